"""Logs are parsed into the templates that they were made of, and scored as Loghub-2.0 does."""

import csv
import re
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.core.spec import parse
from longreach.evaluation.tasks.aggregation._logs import Message, Scores, parsed, scores
from longreach.evaluation.tasks.aggregation.log_templates import EXAMPLES, LogTemplates
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

_VALUE = re.compile(r"\d+(?:\.\d+)*|[0-9a-f]{8}|node\d+|/\S+")
_AFTER = {"for", "user", "by", "Service", "state", "queue", "Queue", "Cache"}  # words that a name comes after
_FIXED = {"user"}


def reading(passage, question):
    """Groups messages by their words without values and names; what never varies in a group belongs to its template."""
    groups = defaultdict(list)
    for message in passage.partition("\n\n")[2].splitlines():
        words = message.split()
        names = [False, *(before in _AFTER and word not in _FIXED for before, word in pairwise(words))]
        key = " ".join("<*>" if name or _VALUE.fullmatch(word.strip(",")) else word for name, word in zip(names, words, strict=True))
        groups[key].append(words)
    templates = {}
    for lines in groups.values():
        word = [ones[0] if len(set(ones)) == 1 else "<*>" + "," * ones[0].endswith(",") for ones in zip(*lines, strict=True)]
        templates.update({" ".join(line): " ".join(word) for line in lines})
    if "this message" in question:
        return f"`{templates[question.splitlines()[1]]}`"
    return "\n".join(f"{number}. `{one}`" for number, one in enumerate(dict.fromkeys(templates.values()), start=1))


@pytest.mark.parametrize("task", [*EXAMPLES, LogTemplates(templates=24)], ids=str)
def test_who_groups_the_messages_finds_their_templates(task):
    assert mean_mark(task, reading) == 1


def naive(lines, found):
    """The definitions, group by group."""
    places = range(len(lines))
    true_groups = {frozenset(j for j in places if lines[j].template == lines[i].template) for i in places}
    groups = {frozenset(j for j in places if found[j] == found[i]): found[i] for i in places if found[i] is not None}
    right = true_groups & set(groups)
    correct = [group for group, template in groups.items() if {lines[i].template for i in group} == {template}]

    def f1(count):
        precision, recall = count / len(groups) if groups else 0.0, count / len(true_groups)
        return 2 * precision * recall / (precision + recall) if count else 0.0

    return Scores(
        ga=sum(map(len, right)) / len(lines),
        fga=f1(len(right)),
        pa=sum(line.template == one for line, one in zip(lines, found, strict=True)) / len(lines),
        fta=f1(len(correct)),
    )


def test_scores_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        names = ["a <*>", "b <*>", "<*> c", "d"]
        lines = [Message("text", names[int(rng.integers(4))]) for _ in range(9)]
        found = [line.template if rng.random() < 0.8 else [*names, "other", None][int(rng.integers(6))] for line in lines]
        assert scores(lines, found) == pytest.approx(naive(lines, found))
        seen.add(scores(lines, found))
    assert len(seen) > 50


def test_scores_of_a_small_log():
    lines = [Message("up 1", "up <*>"), Message("up 2", "up <*>"), Message("down 1", "down <*>"), Message("halt", "halt")]
    assert scores(lines, parsed(lines, ["up <*>", "down <*>", "halt"])) == Scores(1, 1, 1, 1)
    assert scores(lines, parsed(lines, ["<*> <*>", "halt"])) == pytest.approx(Scores(0.25, 2 / 5, 0.25, 2 / 5))
    assert scores(lines, parsed(lines, ["up <*>", "down 1"])) == pytest.approx(Scores(0.75, 4 / 5, 0.5, 2 / 5))
    assert scores(lines, parsed(lines, [])) == Scores(0, 0, 0, 0)


def test_of_several_templates_that_fit_the_most_telling_one_is_taken():
    lines = [Message("took 5 s on node1", ""), Message("took a long while", ""), Message("tookover", "")]
    assert parsed(lines, ["<*> <*>", "took <*>", "took <*> s on <*>"]) == ["took <*> s on <*>", "took <*>", None]
    lines = [Message("a () b", ""), Message("ab", ""), Message("a", "")]
    assert parsed(lines, ["a (<*>) b", "a<*>b", "a<*>a"]) == ["a (<*>) b", "a<*>b", None]


def test_a_template_that_could_fit_in_many_ways_is_tried_quickly():
    line = Message("x " * 500 + "y", "")
    assert parsed([line], ["<*> " * 40 + "z"]) == [None]
    assert parsed([line], ["<*> " * 40 + "y"]) == ["<*> " * 40 + "y"]


def test_every_part_that_varies_does_so_and_all_templates_stand_in_the_shortest_log():
    for number in range(10):
        passage = made(LogTemplates(), number, length=2500)
        lines = passage.asks[0].expected
        assert "\n".join(line.content for line in lines) in passage.text
        for template in passage.asks[0].right.splitlines():
            of = [line.content.split() for line in lines if line.template == template]
            assert len(of) >= 2
            for word, ones in zip(template.split(), zip(*of, strict=True), strict=True):
                assert (len(set(ones)) > 1) == ("<*>" in word)


def test_metrics_have_their_names():
    assert [task.metric for task in EXAMPLES] == ["fga", "ga", "pa", "fta", "pa"]


def test_a_structured_log_of_ones_own(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["LineId", "Content", "EventTemplate"])
        for line in range(300):
            word = ("up", "down, left", "halt", "rest")[line % 4]
            rows.writerow([line, f"{word}  {line}", f"{word} <*>"])
    (task,) = parse(f"log_templates:templates=3,by=pa,file={path}", acts_on="measurement")
    passage = made(task, length=1500)
    assert len(passage.asks[0].right.splitlines()) == 3
    assert task.mark(passage.asks[0], passage.asks[0].right) == 1
    assert task.mark(passage.asks[0], "\n".join(passage.asks[0].right.splitlines()[1:])) == pytest.approx(2 / 3, abs=0.03)
    assert {line.template for line in passage.asks[0].expected} == set(passage.asks[0].right.splitlines())
    with pytest.raises(InputError, match="has only 225 messages of 3 templates, which do not fill 12000 characters"):
        made(task)
    with pytest.raises(InputError, match="has 4 templates, and 9 are asked for"):
        made(LogTemplates(file=path, templates=9))
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="has no columns Content and EventTemplate"):
        made(LogTemplates(file=tmp_path / "." / "log.csv", templates=2))


def test_lengths_share_their_templates():
    assert facts(LogTemplates(), 12_000) == facts(LogTemplates(), 40_000)
