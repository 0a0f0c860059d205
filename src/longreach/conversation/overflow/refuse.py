"""A conversation that does not fit is refused, and stays as it is."""

from dataclasses import dataclass

from longreach.conversation.overflow.base import Excerpt, OverflowPolicy, Talk
from longreach.conversation.reply import Receipt
from longreach.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Refuse(OverflowPolicy):
    """Takes no settings."""

    def fit(self, talk: Talk) -> Excerpt:
        """All of it. Raises: InputError with the tokens that are too many, and the remedies."""
        messages = talk.without(0)
        if not talk.fits(messages):
            others = "choose what happens then (--overflow whole_turns, sinks, infllm or summarise)"
            raise InputError(talk.refusal(talk.count(messages), "the conversation has", others))
        return Excerpt(messages=messages, receipt=Receipt(policy=self.spec, system_tokens=talk.system_tokens))


OVERFLOW = Refuse
EXAMPLES = (Refuse(),)
BAD = ()
