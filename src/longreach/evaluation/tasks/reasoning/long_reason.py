"""LongReason: short reasoning problems whose premises are spread over a long text, with four answers to choose from.

Paper: LongReason: A Synthetic Long-Context Reasoning Benchmark via Context Expansion, 2025, arXiv:2501.15089
Cost: one pass over each passage for all its questions, and up to 16 written tokens for each.
Limits: problems have a few forms, and answers are to be written at once, without steps before them.
Differs from the paper: the problems are drawn by us (its data could not be had); each premise becomes a short paragraph of fixed sentences,
where it lets a model expand them; several problems to each text, each with people of its own.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import spread
from longreach.evaluation.asking.marks import choice_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.reasoning._problems import KINDS, expanded, groups, problem
from longreach.evaluation.text_task import Ability, TextTask


@dataclass(frozen=True, kw_only=True)
class LongReason(TextTask):
    """Args: form: what is reasoned about: goods that come and go (`stock`), an `order` of people, a `family`, a `schedule`, who is left as
    the `culprit`, or all of these in turn (`mixed`). questions: to each text (>= 1).
    """

    info: ClassVar = MethodInfo(
        title="LongReason: A Synthetic Long-Context Reasoning Benchmark via Context Expansion", paper="arXiv:2501.15089"
    )
    ability: ClassVar[Ability] = "latent"
    form: Literal["mixed", "stock", "order", "family", "schedule", "culprit"] = "mixed"
    questions: int = 3

    def __post_init__(self) -> None:
        at_least(self, 1, "questions")

    def passage(self, space: Space) -> Passage:
        """Real text with all premises, each in a paragraph, in a part of its own."""
        rng = space.rng(self.form)
        kinds = [KINDS[place] for place in rng.permutation(len(KINDS))] if self.form == "mixed" else [self.form]
        people = groups(rng, self.questions)
        problems = [(kind, problem(kind, rng, people[number])) for number in range(self.questions) for kind in [kinds[number % len(kinds)]]]
        depths = iter(spread(sum(len(one.premises) for _, one in problems), rng))
        pieces, asks = [], []
        for kind, one in problems:
            at = [next(depths) for _ in one.premises]
            pieces += [(depth, f"\n{expanded(premise, rng)}\n") for depth, premise in zip(at, one.premises, strict=True)]
            asks.append(
                Ask(
                    text=f"{one.question} Choose one of these answers: {'; '.join(one.choices)}.", opening=one.opening, right=one.right,
                    choices=one.choices, depth=min(at), evidence=one.premises, about={"problem": kind},
                )
            )  # fmt: skip
        return Passage(text=space.filled(pieces, asks), asks=tuple(asks))

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the right choice, and no other, is in the first sentence that has any."""
        return choice_said(ask, written)


METHOD = LongReason
EXAMPLES = (LongReason(questions=5), LongReason(form="family"), LongReason(form="schedule", questions=2))
BAD = ({"questions": 0}, {"form": "riddle"})
