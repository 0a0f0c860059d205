"""Nothing is left out of the text, which is read under the cache policy `infllm`: all is kept, and each token looks up parts of it."""

from dataclasses import dataclass
from typing import ClassVar

from longreach.cache.retrieval.infllm import InfLLM
from longreach.conversation.overflow.base import Excerpt, OverflowPolicy, Room, Talk
from longreach.conversation.reply import Receipt
from longreach.core.errors import InputError
from longreach.core.method import Method


@dataclass(frozen=True, kw_only=True)
class KeepAll(OverflowPolicy):
    """Takes no settings: the method is what `infllm` suggests for the window."""

    keeps_text: ClassVar[bool] = True

    def methods(self, room: Room, system_tokens: int) -> tuple[Method, ...]:
        """What `infllm` suggests for the window."""
        return (_method(room),)

    def sight(self, room: Room, tokens: int) -> int:
        """The first block, those that it finds, and the local window."""
        method, query = _method(room), tokens - 1
        size = method.block_size
        far = max(0, query // size - -(-method.local_window // size))  # blocks before the local window, which ends with a block
        return min(far, method.num_blocks + 1) * size + tokens - far * size

    def fit(self, talk: Talk) -> Excerpt:
        """All of it."""
        receipt = Receipt(policy=self.spec, system_tokens=talk.system_tokens, forgotten=False)
        return Excerpt(messages=talk.without(0), receipt=receipt)


def _method(room: Room) -> InfLLM:
    if room.window is None:
        raise InputError("overflow=infllm has to know a window, and what is read has no end; give one (--window)")
    return InfLLM.suggest(room.window, room.window)[0]


OVERFLOW = KeepAll
EXAMPLES = (KeepAll(),)
BAD = ()
