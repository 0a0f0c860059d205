"""Whose turn it is: which prompt is read next, how much of it at once, and how reading and writing share the time."""

from longreach.serving.texts import OpenText

_AGEING = 8  # a waiting prompt counts as shorter by an eighth of a chunk each step
_SLICE = 0.05  # seconds that a part of a prompt may take: who comes meanwhile waits so long
_SMALLEST = 16  # tokens of a part


class ReadingTurns:
    """The order of prompts, and the size of their parts.

    The one with the least left comes first, and each step of waiting counts as if less were left. Far into a long prompt a chunk takes
    long: then it is read in smaller parts, and while answers are written it gets half of the time.
    """

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._owed = 0.0  # seconds that answers get before more is read of a long prompt: as many as its last part took

    def rank(self, tokens: int, waited: int) -> float:
        """The lowest comes first. Args: tokens: left to be read. waited: steps."""
        return tokens - waited * self._chunk_size / _AGEING

    def most(self, text: OpenText, *, room: int, first: bool, writing: bool) -> int:
        """Tokens of a prompt that may be read now. Only the first may be read in part, and not while answers are owed time.

        Args: room: of the chunk. writing: whether answers are written.
        """
        part = self._chunk_size
        if text.seconds_a_token * part > _SLICE:
            part = max(_SMALLEST, int(_SLICE / text.seconds_a_token))
        part = min(part, room)
        if text.left <= part:
            return text.left
        return part if first and not (writing and self._owed) else 0

    def read(self, text: OpenText, count: int, seconds: float) -> None:
        """So many tokens of a prompt took so long."""
        text.seconds_a_token = seconds / count
        if text.left:
            self._owed = seconds

    def wrote(self, seconds: float) -> None:
        """A token of every answer took so long."""
        self._owed = max(0.0, self._owed - seconds)
