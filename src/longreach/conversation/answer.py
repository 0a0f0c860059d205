"""An answer while it is being written: text in pieces, and in the end what there is to say of it."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Self

from longreach.conversation.reply import Reply
from longreach.core.errors import LongreachError


class Answer(Iterator[str]):
    """The pieces of an answer, as they are written. `reply` has the whole, once they have ended or `close` was called.

    Args: pieces: of text. replies: where the reply is found once the pieces have ended.
    """

    def __init__(self, pieces: Generator[str, None, None], replies: Sequence[Reply]) -> None:
        self._pieces, self._replies = pieces, replies
        self.done = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except BaseException:  # also the end
            self.done = True
            raise

    def close(self) -> None:
        """End the answer where it is. What was written of it stays."""
        self._pieces.close()
        self.done = True

    @property
    def empty(self) -> bool:
        """Whether it has come to nothing, and the conversation is as it was."""
        return self.done and not self._replies

    @property
    def reply(self) -> Reply:
        """What there is to say of the answer.

        Raises: LongreachError for one that has not ended, and for one of which nothing was written.
        """
        if not self._replies:
            why = "nothing of the answer was written" if self.done else "the answer has not ended; read its pieces, or close it"
            raise LongreachError(why)
        return self._replies[0]


def spoken(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The pieces up to the first of `stops`, without white space around the whole; without any, all as they are."""
    if not stops:
        yield from pieces
        return
    waiting, begun = "", False
    for piece in pieces:
        waiting += piece
        found = min((at for stop in stops if (at := waiting.find(stop)) >= 0), default=None)
        # What may be the beginning of one waits.
        held = max((length for stop in stops for length in range(1, len(stop)) if waiting.endswith(stop[:length])), default=0)
        text = waiting[: len(waiting) - held if found is None else found].rstrip()
        waiting = waiting[len(text) :]
        text = text if begun else text.lstrip()
        if text:
            begun = True
            yield text
        if found is not None:
            return
    if waiting := (waiting.rstrip() if begun else waiting.strip()):
        yield waiting
