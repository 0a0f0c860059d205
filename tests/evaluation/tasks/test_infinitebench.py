"""InfiniteBench is read as its authors publish it, and marked as they mark it; what it makes up can be checked by working it out."""

import ast
import json
import re
import statistics

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.evaluation.asking.records import Datum, Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.scoring.running import run_program
from longreach.evaluation.tasks.arithmetic.math_calc import MathCalc
from longreach.evaluation.tasks.arithmetic.math_find import MathFind
from longreach.evaluation.tasks.benchmarks import _infinitebench_rules as rules
from longreach.evaluation.tasks.benchmarks.infinitebench import InfiniteBench, ask_of
from longreach.evaluation.tasks.programs._functions import Function, Sources, functions, with_error
from longreach.evaluation.tasks.programs.code_debug import CodeDebug
from longreach.evaluation.tasks.programs.code_run import CodeRun

DEBUG, CHOICE, WHO = ["repack", "B"], ["Walking Georgie", "A"], ["ACE", "ACE ROTHSTEIN"]


def space(task, number=0, length=6000, **more):
    return Space(task=task.spec, length=length, units=Characters(), number=number, **more)


@pytest.mark.parametrize(
    ("part", "written", "answer", "mark"),
    [
        ("passkey", "It is 71432, not 5.", "71432", 1), ("passkey", "5 and 71432", "71432", 0), ("number_string", "none", "1", 0),
        ("kv_retrieval", 'The value is "a-1".', "a-1", 1), ("kv_retrieval", "a-12", "a-1", 0),
        ("code_run", "The value is -4.", -4.0, 1), ("code_run", "4, I think", 4.0, 0), ("code_run", "", 4.0, 0),
        ("code_debug", "B. repack", DEBUG, 1), ("code_debug", "B", DEBUG, 0), ("code_debug", "The answer is: repack_all", DEBUG, 1),
        ("code_debug", "The correct option is: C", DEBUG, 0), ("code_debug", "so the answer is:", DEBUG, 0),
        ("math_find", "88.0 or 89", 88.0, 1), ("math_find", "88.5", 88.0, 0), ("math_find", "", 88.0, 0),
        ("math_calc", "[5, 25, 21]", [5, 25, 22], 2 / 3), ("math_calc", "4, 5", [5], 0), ("math_calc", "-5 07", [5, 7], 1),
        ("longdialogue_qa_eng", "Ace.", WHO, 1), ("longdialogue_qa_eng", "Rothstein", WHO, 0), ("longdialogue_qa_eng", "ACED", WHO, 0),
        ("longbook_choice_eng", "A.", CHOICE, 1), ("longbook_choice_eng", "Bad", CHOICE, 0),
        ("longbook_choice_eng", "the answer is: A", CHOICE, 1),
        ("longbook_choice_eng", "Walking Georgie", CHOICE, 1), ("longbook_choice_eng", "I choose A of all", CHOICE, 1),
        ("longbook_choice_eng", "the answer is B", CHOICE, 0), ("longbook_choice_eng", "", CHOICE, 0),
        ("longbook_qa_eng", "the war", ["a fight", "war"], 1), ("longbook_qa_chn", "阿禾。", ["阿禾", "林"], 1),
        ("longbook_sum_eng", "two\none", ["one\ntwo"], 1),
    ],
)  # fmt: skip
def test_rules(part, written, answer, mark):
    assert rules.mark(part, written, answer) == pytest.approx(mark)


def test_answers_are_read_in_every_form_that_is_published():
    options = {"options": ["other", "repack", "x", "y"]}
    for given in ("repack", ["repack"], ["repack", "B"]):
        assert rules.answer_of("code_debug", {"answer": given, **options}) == DEBUG
    assert rules.answer_of("math_find", {"answer": ["47.5"]}) == rules.answer_of("math_find", {"answer": 47.5}) == 47.5
    assert rules.answer_of("math_calc", {"answer": [[1, 2]]}) == rules.answer_of("math_calc", {"answer": ["1", "2"]}) == [1, 2]
    assert rules.answer_of("passkey", {"answer": ["07"]}) == "07"


def test_a_file(tmp_path):
    record = {"context": "def func_1(x): ...", "input": "Please give me the return value of func_1(-3).", "answer": [2]}
    (tmp_path / "code_run.jsonl").write_text(json.dumps(record))
    task = InfiniteBench(file=Records(tmp_path))
    (ask,) = task.passage(space(task)).asks
    assert ask.text.startswith("What does func_1(-3) return?")
    assert (ask.right, task.metrics(ask)) == ("2", ("code_run/accuracy",))
    (tmp_path / "code_runs.jsonl").write_text(json.dumps(record))
    with pytest.raises(InputError, match="no part of InfiniteBench is called code_runs"):
        [task.passage(space(task, number)) for number in range(2)]
    with pytest.raises(InputError, match="here:1 is no text of InfiniteBench"):
        ask_of(Datum("code_debug", "here:1", {"context": "", "answer": "f", "options": ["g"]}))


def test_math_find_at_two_lengths():
    for number in range(5):
        short, long = (MathFind().passage(space(MathFind(), number, length)) for length in (1000, 9000))
        assert short.asks == long.asks
        for passage in (short, long):
            numbers = sorted(map(int, re.findall(r"\d+", passage.text)))
            wanted = [*numbers[:3], *numbers[:-4:-1], statistics.median(numbers)]
            assert [int(ask.right) for ask in passage.asks] == wanted


def test_math_calc_is_the_sum_and_a_longer_one_begins_as_a_shorter_one():
    task = MathCalc()
    short, long = (task.passage(space(task, 3, length)) for length in (1000, 4000))
    words = long.text.splitlines()[1].split()
    results = [eval(" ".join(words[:end])) for end in range(3, len(words) + 1, 2)]
    assert ast.literal_eval(long.asks[0].right) == results
    assert all(0 <= result <= 99 for result in results)
    assert long.text.startswith(short.text)
    assert task.mark(long.asks[0], ", ".join(map(str, [*results[:10], results[10] + 1, *results[11:]]))) == 10 / len(results)
    assert len(long.asks[0].right) <= long.asks[0].most_tokens  # also where each character is a token


@pytest.mark.parametrize("calls", [1, 4])
def test_code_run_returns_what_it_says(calls):
    task = CodeRun(calls=calls)
    passage = task.passage(space(task))
    (ask,) = passage.asks
    call = re.search(r"func_\d+\(-?\d+\)", ask.text)[0]
    ran = run_program(f"{passage.text.partition(chr(10))[2]}\nprint({call})")
    assert ran.output.strip() == ask.right
    assert len(ask.evidence) == calls
    assert passage.asks == task.passage(space(task, length=12_000)).asks


def test_code_debug_has_one_wrong_function():
    task = CodeDebug()
    known = {one.text for one in functions(None)}
    for number in range(5):
        passage = task.passage(space(task, number))
        (ask,) = passage.asks
        parts = [part.partition("\n\n\n# ")[0].strip() for part in re.split(r"\n\n\n(?=def |# )", passage.text)[1:]]
        wrong = [part for part in parts if part.startswith("def ") and part not in known]
        assert wrong == list(ask.evidence)
        name = re.match(r"def (\w+)", wrong[0])[1]
        assert f"{ask.right}. {name}" in ask.text
        assert all(re.search(rf"def {name}\(", passage.text) for name in ask.expected)


def test_errors_compile_and_fail():
    rng = np.random.default_rng(0)
    given = Function(
        "mean", "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len(values)"
    )
    wrong = {with_error(given, rng) for _ in range(30)} - {None, given}
    assert len(wrong) > 2
    for one in wrong:
        ran = run_program(f"{one.text}\nmean([1, 2])")
        assert ran.error.startswith("NameError")
    assert with_error(Function("f", "def f():\n    return 1"), rng) is None


def test_source_of_the_user(tmp_path):
    (tmp_path / "few.py").write_text("def f(value):\n    a = 1\n    b = 2\n    return value\n\n\nnot python at all")
    with pytest.raises(InputError, match="0 functions of 4 to 20 lines, and 50 are needed"):
        functions(Sources(tmp_path))
    one = "def f{}(value):\n    '''Ä'''; total = value + 1\n    other = total.real\n    return other + total\n"
    (tmp_path / "few.py").write_text("\n\n".join(one.format(number) for number in range(60)), encoding="utf-8")
    task = CodeDebug(file=Sources(tmp_path / "few.py"))
    assert len(functions(task.file)) == 60
    assert task.passage(space(task, length=3000)).asks[0].evidence[0] not in one
    with pytest.raises(InputError, match="the source has too few functions for 50000 characters; give more"):
        task.passage(space(task, length=50_000))
