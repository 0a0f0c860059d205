"""Graphs that are walked: whoever follows their edges finds the answer, and edges from outside do not change it."""

import re
from collections import defaultdict

import pytest

from longreach.evaluation.tasks.tracing import graph_walks
from longreach.evaluation.tasks.tracing.graph_walks import GraphWalks
from tests.evaluation.asked import facts, mean_mark, passage


def walker(text, question, *, exactly=True):
    after, before = defaultdict(set), defaultdict(set)
    for start, end in re.findall(r"^([0-9a-f]{10}) -> ([0-9a-f]{10})$", text, re.MULTILINE):
        after[start].add(end)
        before[end].add(start)
    (node,) = re.findall(r"[0-9a-f]{10}", question)
    if "parents" in question:
        return f"The parents are {', '.join(sorted(before[node]))}."
    seen, level = {node}, {node}
    for _ in range(int(re.search(r"at depth (\d+)", question)[1])):
        level = {end for start in level for end in after[start]} - seen
        seen |= level
    return f"Final Answer: [{', '.join(sorted(level if exactly else seen))}]"


@pytest.mark.parametrize("task", [*graph_walks.EXAMPLES, GraphWalks(depth=4, questions=2)], ids=str)
def test_whoever_follows_the_edges_is_right(task):
    assert mean_mark(task, walker) == 1.0


@pytest.mark.parametrize("task", graph_walks.EXAMPLES, ids=str)
def test_the_answer_is_the_same_at_every_length(task):
    assert facts(task, 6_000) == facts(task, 40_000)


def test_nodes_on_the_way_are_no_answer():
    assert mean_mark(GraphWalks(depth=2), lambda text, question: walker(text, question, exactly=False)) < 0.8


def test_edges_from_outside_lead_to_nodes_that_are_asked_about():
    for task in graph_walks.EXAMPLES:
        made = passage(task)
        for ask in made.asks:
            own = {line.split(" -> ")[1].strip() for line in ask.evidence}
            into = re.findall(rf"^\w+ -> (?:{'|'.join(own)})$", made.text, re.MULTILINE)
            assert len(into) > len(ask.evidence) or task.operation == "parents"
            start = re.search(r"[0-9a-f]{10}", ask.text)[0]
            assert task.operation != "parents" or re.search(rf"^{start} -> ", made.text, re.MULTILINE)


def test_answers_are_marked_by_their_overlap():
    task = GraphWalks(operation="parents")
    ask = passage(task).asks[0]
    nodes = re.findall(r"[0-9a-f]{10}", ask.right)
    assert task.mark(ask, f"Final Answer: [{nodes[0]}]") == pytest.approx(2 / (1 + len(nodes)))
    assert task.mark(ask, f"{ask.choices[1]} cannot be right. Final Answer: {ask.right}") == 1.0
    assert task.mark(ask, ask.choices[1]) == 0.0
