"""Facts that are looked up: whoever reads the text finds all of them, and what distracts looks like what is asked for."""

import json
import re
from collections import Counter

import pytest

from longreach.evaluation.tasks.retrieval import giraffe_lines, key_value, needles, number_string, threads
from longreach.evaluation.tasks.retrieval.giraffe_lines import GiraffeLines
from longreach.evaluation.tasks.retrieval.key_value import KeyValue
from longreach.evaluation.tasks.retrieval.needles import Needles
from longreach.evaluation.tasks.retrieval.number_string import NumberString
from longreach.evaluation.tasks.retrieval.threads import Threads
from tests.evaluation.asked import facts, mean_mark, passage

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def needle_reader(text, question, *, condition=True):
    stated = re.findall(r"magic numbers for (\S+) is: (\d+)\.", text)
    if sign := re.search(r"the sign (\S)", question):
        found = [value for key, value in stated if sign[1] in key or not condition]
    else:
        keys = re.findall(r"[a-z]+-[a-z]+", question)
        found = [value for key, value in stated if key in keys]
    return f"Those numbers are {' and '.join(found)}, as the text says."


def thread_reader(text, question):
    pairs = json.loads(text[text.index("{") :])
    ends = []
    for key in re.findall(UUID, question):
        while True:
            values = pairs[key] if isinstance(pairs[key], list) else [pairs[key]]
            further = [value for value in values if value in pairs]
            if not further:
                ends.append(key if len(values) > 1 else values[0])
                break
            (key,) = further
    return "\n".join(f"- {end}" for end in ends)


def pair_reader(text, question):
    (key,) = re.findall(UUID, question)
    return f"The value of {key} is {json.loads(text[text.index('{') :])[key].upper()}."


def line_reader(text, question):
    (name,) = re.findall(r"line ([a-z]+-[a-z]+)\?", question)
    return re.search(rf"^line {name}: REGISTER_CONTENT is <(\d+)>$", text, re.MULTILINE)[1]


def string_reader(text, question):
    return re.search(r"The sequence of digits is (\d+)\.", text)[1]


READERS = [
    *((task, needle_reader) for task in needles.EXAMPLES),
    *((task, thread_reader) for task in threads.EXAMPLES),
    *((task, pair_reader) for task in key_value.EXAMPLES),
    *((task, line_reader) for task in giraffe_lines.EXAMPLES),
    *((task, string_reader) for task in number_string.EXAMPLES),
]
CASES = pytest.mark.parametrize(("task", "read"), READERS, ids=lambda value: getattr(value, "spec", ""))


@CASES
def test_whoever_reads_the_text_is_right(task, read):
    assert mean_mark(task, read) == 1.0


@CASES
def test_facts_and_questions_are_the_same_at_every_length(task, read):
    assert facts(task, 10_000) == facts(task, 40_000)


def test_without_its_condition_a_conditional_needle_is_not_found():
    task = Needles(form="conditional", each=2)
    alone = mean_mark(task, lambda text, question: needle_reader(text, question, condition=False))
    assert alone == pytest.approx(2 * 2 / (2 + 8))  # F1 of all eight numbers, two of which are right
    assert mean_mark(task, needle_reader) == 1.0


def test_a_haystack_of_needles_is_made_of_their_form_alone():
    for form in ("multi_key", "conditional"):
        made = passage(Needles(form=form, haystack="needles"))
        lines = [line for line in made.text.splitlines()[1:] if line]
        keys = [re.fullmatch(r"One of the special magic numbers for ([a-z-]*\W?[a-z-]+) is: \d{7}\.", line)[1] for line in lines]
        assert len(set(keys)) == len(keys) > 150
        signs = Counter(re.sub("[a-z-]", "", key) for key in keys)
        assert len(signs) == (9 if form == "conditional" else 1)
        assert min(signs.values()) >= 4


@pytest.mark.parametrize("form", ["multi_value", "multi_query"])
def test_some_of_several_needles_are_worth_their_share(form):
    task = Needles(form=form)
    ask = passage(task).asks[0]
    first, second, *_ = ask.right.split(", ")
    assert task.mark(ask, f"{first}, {second}") == pytest.approx(2 * 2 / (2 + 4))
    assert task.mark(ask, ask.choices[1]) == 0.0


def test_a_needle_has_others_of_its_form_and_every_depth_has_some():
    depths = []
    for number in range(20):
        made = passage(Needles(), number)
        said = re.findall(r"One of the special magic numbers for [a-z]+-[a-z]+ is: \d{7}\.", made.text)
        assert len(said) == 16
        assert all(all(choice in made.text for choice in ask.choices) and len(ask.choices) == 16 for ask in made.asks)
        depths += [ask.depth for ask in made.asks]
    assert all(sum(low <= depth < low + 0.25 for depth in depths) > 10 for low in (0, 0.25, 0.5, 0.75))


@pytest.mark.parametrize("direction", ["forward", "backward", "random"])
def test_threads_run_in_their_direction(direction):
    task, ascending = Threads(direction=direction, steps=4, questions=2), []
    for number in range(10):
        made = passage(task, number)
        for ask in made.asks:
            places = [made.text.index(pair) for pair in ask.evidence]
            ascending.append([*sorted(places)] == places)
            assert direction != "backward" or sorted(places, reverse=True) == places
    assert sum(ascending) == {"forward": 20, "backward": 0}.get(direction, sum(ascending))
    assert direction != "random" or sum(ascending) < 5


def test_the_value_before_the_end_of_a_thread_is_among_the_candidates_and_wrong():
    task = Threads()
    for ask in passage(task).asks:
        pairs = json.loads("{" + ",".join(ask.evidence) + "}")
        before = list(pairs)[-1]
        assert before in ask.choices
        assert task.mark(ask, before) == 0.0
        assert task.mark(ask, f"{before} leads to {ask.right}") == pytest.approx(2 / 3)


def test_a_number_string_differs_from_its_candidates_by_repetitions_alone():
    ask = passage(NumberString()).asks[0]
    assert {len(choice) for choice in ask.choices} == {10}
    assert len({re.sub(r"(\d)\1+", r"\1", choice) for choice in ask.choices}) == 1
    assert len(ask.choices) == 8


def test_a_key_in_the_answer_is_no_answer():
    task = KeyValue()
    ask = passage(task).asks[0]
    key = re.search(UUID, ask.text)[0]
    assert task.mark(ask, f"It is {key}") == 0.0
    assert task.mark(ask, f'{{"{key}": {ask.right}}}') == 1.0


def test_every_line_of_a_record_has_a_name_of_its_own():
    lines = passage(GiraffeLines(), 0, 60_000).text.split("\n\n")[1].splitlines()
    assert len(lines) > 1000
    assert len({line.split(":")[0] for line in lines}) == len(lines)
    assert all(re.fullmatch(r"line [a-z]+-[a-z]+: REGISTER_CONTENT is <\d{5}>", line) for line in lines)
