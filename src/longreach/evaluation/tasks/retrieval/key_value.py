"""Key-value retrieval: a JSON object of pairs of UUIDs, in which the values of some keys are looked up.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one pass over each passage for all its questions, and up to 60 written tokens for each.
Limits: the keys are random, so that nothing but the very key can be searched for; a UUID is many tokens, and more in some tokenizers.
Differs from the paper: several keys are asked for in each object (which is that of Lost in the Middle, arXiv:2307.03172); the last pair
may be shorter, so that the object has the asked length.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import spread, uuids
from longreach.evaluation.asking.marks import UUID, first_said, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.retrieval._pairs import filled_object, written
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "Look up the values of keys in the JSON object below.\n\n"


@dataclass(frozen=True, kw_only=True)
class KeyValue(TextTask):
    """Args: questions: to each object (>= 2); their values are each other's candidates."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "literal"
    needs_text: ClassVar[bool] = False
    questions: int = 5

    def __post_init__(self) -> None:
        at_least(self, 2, "questions")

    def passage(self, space: Space) -> Passage:
        """An object with as many pairs as there is room for; those that are asked for stand in parts of their own."""
        rng = space.rng()
        facts, depths = uuids(rng, 2 * self.questions), spread(self.questions, rng)
        pairs = list(zip(facts[::2], facts[1::2], depths, strict=True))
        choices = tuple(f'"{value}"' for _, value, _ in pairs)
        asks = tuple(
            Ask(
                text=f'What is the value of the key "{key}" in the JSON object above?', opening=f'"{key}":', right=f'"{value}"',
                choices=choices, most_tokens=60, depth=depth, evidence=(written(key, [value]),),
            )
            for key, value, depth in pairs
        )  # fmt: skip
        wanted = [(depth, written(key, [value])) for key, value, depth in pairs]
        return Passage(text=filled_object(space, asks, wanted, head=_HEAD), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first UUID that is written, but for the key, is the right one."""
        (key,) = first_said(UUID, ask.text)
        return is_only(first_said(UUID, written.lower().replace(key, "")), ask.right.strip('"'))


METHOD = KeyValue
EXAMPLES = (KeyValue(),)
BAD = ({"questions": 1},)
