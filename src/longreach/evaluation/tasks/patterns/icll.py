"""In-context language learning: strings of one regular language; what may come next in another string of it is said.

Paper: In-Context Language Learning: Architectures and Algorithms, 2024, arXiv:2401.12973
Cost: one pass over each passage for all its questions, and up to 6 written tokens for each.
Limits: what a short passage shows of a language may leave open what is allowed.
Differs from the paper: a model is asked, not trained; as many strings as a passage has room for, not 10 to 20; only the next symbol of some
strings is asked for, and the distance between distributions is not measured.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.patterns._processes import Process, automaton, next_symbols
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "Each line below is a string of the same language. Only certain symbols may follow what came before in a string.\n\n"
_LETTERS = "bcdefghjklmnopqrstuvwxyz"  # none that is a word
_LONGEST = 50  # symbols of a string
_BEGUN = 4  # symbols at least of what is to be continued


@dataclass(frozen=True, kw_only=True)
class Icll(TextTask):
    """Args: states: at most, of the automaton that makes the language (paper: 12; at least 4 of them). symbols: at most, of its alphabet
    (paper: 18; 5 to 24, at least 5 of them). questions: to each passage (>= 1).
    """

    info: ClassVar = MethodInfo(title="In-Context Language Learning: Architectures and Algorithms", paper="arXiv:2401.12973")
    ability: ClassVar[Ability] = "aggregation"
    needs_text: ClassVar[bool] = False
    states: int = 12
    symbols: int = 18
    questions: int = 8

    def __post_init__(self) -> None:
        at_least(self, 4, "states")
        at_least(self, 5, "symbols")  # one more than may follow a state
        at_least(self, 1, "questions")
        at_most(self, len(_LETTERS), "symbols")

    def passage(self, space: Space) -> Passage:
        """As many strings as there is room for."""
        rng = space.rng()
        states, symbols = int(rng.integers(4, self.states + 1)), int(rng.integers(5, self.symbols + 1))
        alphabet = sorted(rng.permutation(list(_LETTERS))[:symbols].tolist())
        language = automaton(rng, alphabet, states, even=True)
        asks = tuple(self._ask(rng, language, alphabet) for _ in range(self.questions))
        lines = space.rng("lines")
        strings = Drawn(lambda: f"{' '.join(language.string(lines, int(lines.integers(1, _LONGEST + 1))))}\n")

        def text(count: int, rest: int) -> str:
            return f"{_HEAD}{''.join(strings.first(count))}{' '.join(strings.first(count + 1)[-1].split()[:rest])}".strip()

        return Passage(text=text(*space.topped(text, asks, least=1, most=_LONGEST)), asks=asks)

    def _ask(self, rng: np.random.Generator, language: Process, alphabet: list[str]) -> Ask:
        begun = language.string(rng, int(rng.integers(_BEGUN, _LONGEST)))
        allowed = sorted(language.after(begun))
        right = allowed[int(rng.integers(len(allowed)))]
        return Ask(
            text=f'Another string of the language begins with "{" ".join(begun)}". Name a symbol that may come next in it.',
            opening=" ".join(begun), right=right, choices=tuple(one for one in alphabet if one == right or one not in allowed),
            most_tokens=6, expected={"begun": begun, "allowed": allowed, "alphabet": alphabet},
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the symbol that is said to come next may."""
        found = next_symbols(written, ask.expected["begun"], f"[{_LETTERS}]")
        return float(any(symbol in ask.expected["allowed"] for symbol in found))

    def chance(self, ask: Ask) -> float:
        """The share of all symbols that may come next."""
        return len(ask.expected["allowed"]) / len(ask.expected["alphabet"])

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """Any symbol."""
        return str(rng.choice(ask.expected["alphabet"]))


METHOD = Icll
EXAMPLES = (Icll(), Icll(states=4, symbols=5))
BAD = ({"states": 3}, {"symbols": 4}, {"symbols": 25}, {"questions": 0})
