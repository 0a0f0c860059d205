"""PosGen: a list of numbers, each the sum of a few before it; which of them tells how far back a model has to look. The next one is asked.

Paper: Resonance RoPE: Improving Context Length Generalization of Large Language Models, 2024, arXiv:2403.00071
Cost: one pass over each passage for all its questions, and up to 8 written tokens for each.
Limits: it asks for sums, which small models cannot do; it was made to train models on, which then generate it. Sums modulo a small number
repeat themselves sooner or later, and what is far away can be found out from other sums: an answer may come by another way than the rule.
Differs from the paper: the rule is told, and a model is asked for the next number, not trained to write the list; numbers have two digits;
lists begin with no zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.marks import first_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

Form = Literal["recursive", "chain_of_thought", "semi_recursive"]

_HEAD = "Below is a list of numbers.\n\n"
_LEAST = 40  # numbers of a list


@dataclass(frozen=True, kw_only=True)
class Posgen(TextTask):
    """Args: form: what is added to the last numbers: `recursive`, those right before them; `chain_of_thought`, the first ones of the list;
    `semi_recursive`, those at a place that moves on by one number for every two that are written. near: last numbers (paper: 3; >= 1). far:
    others (paper: 1; >= 1). modulus: of the sums (paper: 17; 3 to 100). questions: to each list (1 to near + far).
    """

    info: ClassVar = MethodInfo(
        title="Resonance RoPE: Improving Context Length Generalization of Large Language Models", paper="arXiv:2403.00071"
    )
    ability: ClassVar[Ability] = "latent"
    needs_text: ClassVar[bool] = False
    form: Form = "semi_recursive"
    near: int = 3
    far: int = 1
    modulus: int = 17
    questions: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "near", "far", "questions")
        at_least(self, 3, "modulus")
        at_most(self, 100, "modulus")
        at_most(self, self.near + self.far, "questions")

    def passage(self, space: Space) -> Passage:
        """As many numbers as there is room for. Each question tells some more of them, and never so many that they are enough."""
        rng = space.rng()
        begun = rng.integers(1, self.modulus, size=self.near + self.far).tolist()
        written = list[int]()

        def draw() -> int:
            written.append(begun[len(written)] if len(written) < len(begun) else self._next(written))
            return written[-1]

        numbers = Drawn(draw)

        def text(count: int) -> str:
            return _HEAD + " ".join(f"{one:02}" for one in numbers.first(_LEAST + count))

        longest = tuple(self._ask([0] * _LEAST, given) for given in range(self.questions))
        count = _LEAST + space.listed(text, longest, least=0)
        whole = numbers.first(count + self.questions)
        return Passage(
            text=text(count - _LEAST), asks=tuple(self._ask(whole[: count + given + 1], given) for given in range(self.questions))
        )

    def _next(self, numbers: Sequence[int]) -> int:
        place = self._place(len(numbers))
        return (sum(numbers[place : place + self.far]) + sum(numbers[len(numbers) - self.near :])) % self.modulus

    def _place(self, count: int) -> int:
        """Where the far numbers begin by which the number after `count` is made."""
        drawn = self.near + self.far
        return {"recursive": count - drawn, "chain_of_thought": 0, "semi_recursive": (count - drawn) // 2}[self.form]

    def _ask(self, numbers: Sequence[int], given: int) -> Ask:
        """What comes last of the numbers, all but `given` of which, and that one, stand in the passage."""
        *known, right = numbers
        told = " ".join(f"{one:02}" for one in known[len(known) - given :])
        return Ask(
            text=f"{self._rule()}{f'; the list goes on with {told}' if given else ''}. Which number is next in the list?",
            opening="The next number is", right=f"{right:02}", choices=tuple(f"{one:02}" for one in range(self.modulus)), most_tokens=8,
            depth=min(1.0, self._place(len(known)) / (len(known) - given)), about={"told": given},
        )  # fmt: skip

    def _rule(self) -> str:
        drawn = self.near + self.far
        begin = f"After the first {drawn}, each number in the list is the sum, modulo {self.modulus}, of"
        near = "the number before it" if self.near == 1 else f"the {self.near} numbers before it"
        if self.form == "recursive":
            return f"{begin} the {drawn} numbers before it"
        if self.form == "chain_of_thought":
            return f"{begin} {near} and the first {'number' if self.far == 1 else f'{self.far} numbers'} of the list"
        more = "one number" if self.far == 1 else f"{self.far} numbers"
        return (
            f"{begin} {near} and {more} from further back: from the 1st on for the numbers {drawn + 1} and {drawn + 2}, "
            f"from the 2nd on for the numbers {drawn + 3} and {drawn + 4}, and so on"
        )

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first number that is written is the right one."""
        found = first_said(r"-?\d+", written)
        return float(len(found) == 1 and len(found[0]) < 10 and int(found[0]) == int(ask.right))

    def chance(self, ask: Ask) -> float:
        """One of all numbers that a sum may be."""
        return 1 / len(ask.choices)

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """Any of them."""
        return str(rng.choice(ask.choices))


METHOD = Posgen
EXAMPLES = (Posgen(), Posgen(form="recursive"), Posgen(form="chain_of_thought", far=2, questions=3))
BAD = ({"near": 0}, {"far": 0}, {"modulus": 2}, {"modulus": 101}, {"questions": 5}, {"questions": 0})
