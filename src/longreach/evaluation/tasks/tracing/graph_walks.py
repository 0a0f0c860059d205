"""Graph walks: the edges of a directed graph, in which a breadth-first search is done, or the parents of a node are found.

Paper: GraphWalks, OpenAI, 2025, huggingface.co/datasets/openai/graphwalks
Cost: one pass over each passage for all its questions, and up to 12 written tokens for each node of an answer.
Limits: the answer is a set of random names, and there is no room to write steps down before it.
Differs from the paper: several questions to each graph, with equally many nodes to each answer; the searched part of the graph is the
same at every length, and edges that lead into it from outside are what grows; no worked examples before the graph; an answer may have
words around it, and needs no `Final Answer:`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import spread, woven
from longreach.evaluation.asking.marks import all_said, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

Operation = Literal["bfs", "parents"]
_Edge = tuple[str, str]

_BYTES = 5  # of a name, in hexadecimal
_NAME = rf"[0-9a-f]{{{2 * _BYTES}}}"
_FIRST = 16  # nodes from which the other edges begin
_INTO = 0.15  # of the other edges lead to a node that a question is about
_HEAD = (
    "Below are the edges of a directed graph, one on each line, in no order. "
    "`a -> b` is an edge that leads from the node a to the node b: a is a parent of b.\n\n"
)


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """Args: start: the node that is asked about. found: the answer. edges: all of this part. needed: those that the answer hangs on."""

    start: str
    found: list[str]
    edges: list[_Edge]
    needed: set[_Edge]


@dataclass(frozen=True, kw_only=True)
class GraphWalks(TextTask):
    """Args: operation: what is asked for. depth: of a search (edges from its first node; >= 1). questions: to each graph (>= 2)."""

    info: ClassVar = MethodInfo(title="GraphWalks", paper="huggingface.co/datasets/openai/graphwalks")
    ability: ClassVar[Ability] = "latent"
    metric: ClassVar[str] = "f1"
    needs_text: ClassVar[bool] = False
    operation: Operation = "bfs"
    depth: int = 2
    questions: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "depth")
        at_least(self, 2, "questions")

    def passage(self, space: Space) -> Passage:
        """A graph with as many edges as there is room for; those of an answer stand in parts of their own."""
        rng = space.rng()
        sizes = [int(size) for size in 1 + np.cumsum(rng.integers(1, 3, size=self.depth + 1))]
        walks = [(_searched if self.operation == "bfs" else _parents)(rng, sizes) for _ in range(self.questions)]
        edges = [edge for walk in walks for edge in walk.edges]
        placed = dict(zip(edges, spread(len(edges), rng), strict=True))
        asks = tuple(self._ask(walks, number, placed) for number in range(self.questions))
        wanted = [(depth, _line(edge)) for edge, depth in placed.items()]
        starts = {walk.start for walk in walks}
        targets = [node for edge in edges for node in edge if self.operation == "bfs" or node not in starts]

        def text(others: int) -> str:
            return _HEAD + "".join(woven([_line(edge) for edge in _others(space, others, targets)], wanted))

        return Passage(text=text(space.listed(text, asks, least=1)), asks=asks)

    def _ask(self, walks: Sequence[_Walk], number: int, placed: dict[_Edge, float]) -> Ask:
        walk = walks[number]
        if self.operation == "bfs":
            edges = "1 edge" if self.depth == 1 else f"{self.depth} edges, and by no fewer"
            what = f"Do a breadth-first search from the node {walk.start}. Which nodes does it reach at depth {self.depth}, by {edges}?"
        else:
            what = f"Which nodes are the parents of the node {walk.start}?"
        return Ask(
            text=f"{what} Give them as a list: Final Answer: [node, node]", opening="Final Answer:", right=_list(walk.found),
            choices=tuple(_list(one.found) for one in walks), most_tokens=12 * len(walk.found) + 12, until=("]", "\n\n"),
            depth=min(placed[edge] for edge in walk.needed), evidence=tuple(_line(edge) for edge in walk.edges if edge in walk.needed),
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """F1 of the nodes that are written, from the last `Final Answer` on, but for those that the question names."""
        given = all_said(_NAME, ask.text)
        found = all_said(_NAME, written.lower().rpartition("final answer")[2])
        return overlap([node for node in found if node not in given], all_said(_NAME, ask.right))


def _searched(rng: np.random.Generator, sizes: Sequence[int]) -> _Walk:
    """Levels of nodes, each reached from the one before, and edges back; the last level lies beyond the answer."""
    levels = [_names(rng, 1), *(_names(rng, size) for size in sizes)]
    edges: dict[_Edge, None] = {}
    for level, following in pairwise(levels):
        for place, node in enumerate(following):
            edges[level[place % len(level)], node] = None
            edges[str(rng.choice(level)), node] = None
    answer = len(levels) - 2
    needed = {edge for edge in edges if edge[1] not in levels[-1]}
    for place in range(1, answer + 1):  # seen before, and so not found again
        edges[str(rng.choice(levels[place])), str(rng.choice(levels[place - 1]))] = None
    return _Walk(start=levels[0][0], found=levels[answer], edges=list(edges), needed=needed)


def _parents(rng: np.random.Generator, sizes: Sequence[int]) -> _Walk:
    """A node, its parents, and what those and it lead to."""
    (start,), parents, children = _names(rng, 1), _names(rng, sizes[-1]), _names(rng, sizes[0])
    needed = [(parent, start) for parent in parents]
    beside = [(parent, str(rng.choice(children))) for parent in parents]
    return _Walk(start=start, found=parents, edges=[*needed, *beside, *((start, child) for child in children)], needed=set(needed))


def _others(space: Space, count: int, targets: Sequence[str]) -> list[_Edge]:
    """So many edges from nodes that no question is about, two from each on average, to any of the nodes so far, or one of the targets."""
    drawn = space.rng("edges").random((count, 4))
    known = _FIRST + np.arange(count) // 2
    starts = (drawn[:, 0] * known).astype(int)
    ends = (starts + 1 + (drawn[:, 1] * (known - 1)).astype(int)) % known  # no edge leads back at once
    into, which = drawn[:, 2].tolist(), (drawn[:, 3] * len(targets)).astype(int).tolist()
    names = _names(space.rng("names"), int(known[-1]) if count else 0)
    return [
        (names[start], targets[place] if chance < _INTO else names[end])
        for start, end, chance, place in zip(starts.tolist(), ends.tolist(), into, which, strict=True)
    ]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    digits = rng.bytes(_BYTES * count).hex()
    return [digits[place : place + 2 * _BYTES] for place in range(0, len(digits), 2 * _BYTES)]


def _line(edge: _Edge) -> str:
    return f"{edge[0]} -> {edge[1]}\n"


def _list(nodes: Sequence[str]) -> str:
    return f"[{', '.join(nodes)}]"


METHOD = GraphWalks
EXAMPLES = (GraphWalks(), GraphWalks(depth=1, questions=3), GraphWalks(operation="parents"))
BAD = ({"depth": 0}, {"questions": 1})
