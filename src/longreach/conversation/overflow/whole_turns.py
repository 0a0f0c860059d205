"""The oldest turns are left out, whole, as many as have to be. The system prompt and the newest turn always stay."""

from dataclasses import dataclass

from longreach.conversation.overflow.base import Excerpt, OverflowPolicy, Talk
from longreach.conversation.reply import Receipt


@dataclass(frozen=True, kw_only=True)
class WholeTurns(OverflowPolicy):
    """Takes no settings."""

    def fit(self, talk: Talk) -> Excerpt:
        """The newest turns that fit."""
        first = talk.fewest()
        receipt = Receipt(policy=self.spec, left_out=talk.left_out(first), system_tokens=talk.system_tokens)
        return Excerpt(messages=talk.without(first), receipt=receipt, first=first)


OVERFLOW = WholeTurns
EXAMPLES = (WholeTurns(),)
BAD = ()
