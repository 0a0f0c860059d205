"""The oldest turns are replaced by a summary that the model writes, which stands behind the system prompt.

Once a summary has to be written, the turns that stay whole take up a share of the room only, so that not every answer costs another one.
"""

from dataclasses import dataclass, replace

from longreach.conversation.messages import Message, joined
from longreach.conversation.overflow.base import Condensed, Excerpt, OverflowPolicy, Talk
from longreach.conversation.overflow.whole_turns import WholeTurns
from longreach.conversation.reply import Receipt
from longreach.core.errors import InputError, SpecError
from longreach.core.method import at_least


@dataclass(frozen=True, kw_only=True)
class Summarise(OverflowPolicy):
    """Args: max_tokens: of a summary. keep: share of the room that the turns which stay whole take up (above 0, at most 1)."""

    max_tokens: int = 128
    keep: float = 0.5

    def __post_init__(self) -> None:
        at_least(self, 1, "max_tokens")
        if not 0 < self.keep <= 1:
            raise SpecError(f"{self.name()}: keep={self.keep:g} must be above 0 and at most 1")

    def fit(self, talk: Talk) -> Excerpt:
        """The summary and the newest turns; where it cannot be had, what `whole_turns` leaves."""
        before = talk.condensed
        first = 0 if before is None else before.turns
        whole = _noted(talk, before)
        if talk.fits(whole):
            return self._fitted(talk, whole, before)
        talk.fewest()  # refuses what nothing helps
        try:
            return self._condensed(talk, first, before)
        except InputError as error:  # a template that takes no system prompt
            return _left_whole(talk, str(error))

    def _condensed(self, talk: Talk, first: int, before: Condensed | None) -> Excerpt:
        """With a new summary, of the turns from `first` on and of what stood for those before."""
        text, found, upto = "" if before is None else before.text, None, first
        for upto in self._choices(talk, first):
            found = talk.summarise(talk.turns[first:upto], text, self.max_tokens)
            if found is not None:
                break
        if upto == first:
            return _left_whole(talk, f"{self.max_tokens} tokens of summary leave no room for the newest turn")
        if found is None:
            return _left_whole(talk, "the turns are too long to be summarised in one window")
        if not found[0]:
            return _left_whole(talk, "the model wrote an empty one")
        condensed = Condensed(turns=upto, text=found[0], tokens=found[1])
        messages = _noted(talk, condensed)
        if talk.fits(messages):
            return self._fitted(talk, messages, condensed)
        return _left_whole(talk, f"one of {found[1]} tokens does not fit")

    def _choices(self, talk: Talk, first: int) -> list[int]:
        """How many turns the summary may stand for, the best first: what is left then takes up its share, or as little more as can be."""
        room = talk.room.prompt or 0
        counts = {
            upto: talk.count(_noted(talk, Condensed(turns=upto, text="", tokens=0))) + self.max_tokens
            for upto in range(first + 1, len(talk.turns))
        }
        fitting = [upto for upto, tokens in counts.items() if tokens <= room]
        best = next((upto for upto in fitting if counts[upto] <= room * self.keep), max(fitting, default=0))
        return sorted((upto for upto in fitting if upto <= best), reverse=True)

    def _fitted(self, talk: Talk, messages: list[Message], condensed: Condensed | None) -> Excerpt:
        receipt = Receipt(policy=self.spec, system_tokens=talk.system_tokens)
        if condensed is None:
            return Excerpt(messages=messages, receipt=receipt)
        left = talk.left_out(condensed.turns)
        receipt = replace(receipt, left_out=left, summary=condensed.text, summary_tokens=condensed.tokens)
        return Excerpt(messages=messages, receipt=receipt, first=condensed.turns, condensed=condensed)


def _noted(talk: Talk, condensed: Condensed | None) -> list[Message]:
    """The messages with the summary in place of the turns that it stands for."""
    if condensed is None:
        return talk.without(0)
    said = [*(message["content"] for message in talk.system), f"Summary of the conversation so far: {condensed.text}"]
    return [{"role": "system", "content": "\n\n".join(said)}, *joined(talk.turns[condensed.turns :])]


def _left_whole(talk: Talk, why: str) -> Excerpt:
    fitted = WholeTurns().fit(talk)
    return replace(fitted, receipt=replace(fitted.receipt, note=f"no summary ({why}): whole_turns"), condensed=talk.condensed)


OVERFLOW = Summarise
EXAMPLES = (Summarise(), Summarise(max_tokens=8, keep=1.0))
BAD = ({"max_tokens": 0}, {"keep": 0.0}, {"keep": 1.5})
