"""Nothing is left out of the text, which is read under the cache policy `sinks`: its first and last tokens are seen, a window in all."""

from dataclasses import dataclass
from typing import ClassVar

from longreach.cache.streaming.sinks import Sinks
from longreach.conversation.overflow.base import Excerpt, OverflowPolicy, Room, Talk
from longreach.conversation.reply import Receipt
from longreach.core.errors import InputError
from longreach.core.method import Method, at_least


@dataclass(frozen=True, kw_only=True)
class KeepFirstAndLast(OverflowPolicy):
    """Args: num_sinks: first tokens that stay seen (paper of `sinks`: 4); none: the system prompt, and 4 at least."""

    keeps_text: ClassVar[bool] = True
    num_sinks: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 0, "num_sinks")

    def methods(self, room: Room, system_tokens: int) -> tuple[Method, ...]:
        """Sinks and a window that are together as long as the window of the conversation."""
        if room.window is None:
            raise InputError("overflow=sinks has to know a window, and what is read has no end; give one (--window)")
        first = max(4, system_tokens) if self.num_sinks is None else self.num_sinks
        if first > room.window - room.reserve:
            raise InputError(
                f"overflow=sinks keeps {first} first tokens in sight, which leave no room in a window of {room.window} with {room.reserve} "
                "for the answer; give a larger window (--window), or sinks:num_sinks=4"
            )
        return (Sinks(num_sinks=first, window_size=room.window - first),)

    def sight(self, room: Room, tokens: int) -> int:
        """The first and the last, as many as the window has."""
        return min(tokens, room.window or tokens)

    def fit(self, talk: Talk) -> Excerpt:
        """All of it."""
        receipt = Receipt(policy=self.spec, system_tokens=talk.system_tokens, forgotten=True)
        return Excerpt(messages=talk.without(0), receipt=receipt)


OVERFLOW = KeepFirstAndLast
EXAMPLES = (KeepFirstAndLast(), KeepFirstAndLast(num_sinks=1))
BAD = ({"num_sinks": -1},)
