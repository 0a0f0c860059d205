"""Next element: traces of events that an unknown process made; what comes next in a new one is predicted.

Paper: An Interdisciplinary Comparison of Sequence Modeling Methods for Next-Element Prediction, 2018, arXiv:1811.00062
Cost: one pass over each passage for all its questions, and up to 8 written tokens for each.
Limits: the events are random, so that nobody is right each time. The best that can be hoped for, which is what the right process would
reach, stands with each question as `best`: its mean over the questions is the most that an accuracy is to be held against.
Differs from the paper: the processes are random Markov chains and automata, not logs of real events, so that they can be had for any
length and the best possible accuracy is known; predictions are marked by accuracy, not by the Brier score.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.marks import any_of
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import some_nouns
from longreach.evaluation.tasks.patterns._processes import Process, automaton, markov_chain, next_symbols
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "Each line below is a record of events in their order. The same process made all of them.\n\n"
_SHORTEST, _LONGEST = 8, 24  # events of a line


@dataclass(frozen=True, kw_only=True)
class NextElement(TextTask):
    """Args: process: `markov`, where an event hangs on the last few, or `automaton`, where it hangs on a hidden state. order: of a Markov
    chain (1 to 3). states: of an automaton (>= 3). events: that there are (2 to 12). questions: to each passage (>= 1).
    """

    info: ClassVar = MethodInfo(
        title="An Interdisciplinary Comparison of Sequence Modeling Methods for Next-Element Prediction", paper="arXiv:1811.00062"
    )
    ability: ClassVar[Ability] = "aggregation"
    needs_text: ClassVar[bool] = False
    process: Literal["markov", "automaton"] = "markov"
    order: int = 2
    states: int = 8
    events: int = 6
    questions: int = 8

    def __post_init__(self) -> None:
        at_least(self, 1, "order", "questions")
        at_least(self, 2, "events")
        at_least(self, 3, "states")
        at_most(self, 3, "order")
        at_most(self, 12, "events")

    def passage(self, space: Space) -> Passage:
        """As many traces as there is room for."""
        rng = space.rng()
        events = some_nouns(rng, self.events)
        process = markov_chain(rng, events, self.order) if self.process == "markov" else automaton(rng, events, self.states, even=False)
        asks = tuple(self._ask(rng, process, events) for _ in range(self.questions))
        lines = space.rng("lines")
        traces = Drawn(lambda: f"{' '.join(process.string(lines, int(lines.integers(_SHORTEST, _LONGEST + 1))))}\n")

        def text(count: int, rest: int) -> str:
            return f"{_HEAD}{''.join(traces.first(count))}{' '.join(traces.first(count + 1)[-1].split()[:rest])}".strip()

        return Passage(text=text(*space.topped(text, asks, least=1, most=_LONGEST)), asks=asks)

    def _ask(self, rng: np.random.Generator, process: Process, events: list[str]) -> Ask:
        *begun, right = process.string(rng, int(rng.integers(_SHORTEST, _LONGEST + 1)))
        best = max(process.after(begun).values())
        return Ask(
            text=f'Another record begins with "{" ".join(begun)}". Which event comes next in it?', opening=" ".join(begun), right=right,
            choices=tuple(sorted(events)), most_tokens=8, about={"best": round(best, 6)}, expected=tuple(begun),
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the event that is said to come next does."""
        return float(ask.right in next_symbols(written, ask.expected, any_of(ask.choices)))

    def chance(self, ask: Ask) -> float:
        """One of all events."""
        return 1 / len(ask.choices)

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """Any event."""
        return str(rng.choice(ask.choices))


METHOD = NextElement
EXAMPLES = (NextElement(), NextElement(process="automaton"))
BAD = ({"order": 0}, {"order": 4}, {"states": 2}, {"events": 1}, {"events": 13}, {"questions": 0})
