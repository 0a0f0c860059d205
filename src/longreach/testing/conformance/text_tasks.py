"""What holds for every task that asks in plain text: passages of the asked length, and marks that tell knowing from guessing."""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
from transformers import AutoTokenizer

from longreach.checkpoints.places import local_checkpoint
from longreach.core.method import Method
from longreach.data.stdlib import stdlib_text
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters, Tokens, Units
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.text_task import TextTask
from longreach.testing.conformance.base import Check, require

_TEXT = 400_000  # characters of real text
_LENGTHS = {"tokens": 4096, "characters": 20_000}
_FULL = 0.99  # of the asked length is filled
_PASSAGES = 6
_GUESSES = 60  # at each question
_SIGMAS = 4.5
_JUNK = ("", " ", "\n", "\0", "?" * 5000, "I cannot answer this question.", "答案是不知道", "-1", "1e999", "{", "a, b, c, d, e, f")


def check_length(task: TextTask) -> int:
    """No prompt is longer than asked, with its answer, and none is shorter by more than 1 %, unless texts have lengths of their own."""
    compared = 0
    for units, length, passage in _passages(task):
        used = units.count(passage.text)
        longest = max(used + units.around(ask, passage.turns) for ask in passage.asks)
        compared += require(longest <= length, f"{longest} {units.name} where {length} were asked for")
        compared += task.sized and require(longest >= _FULL * length, f"only {longest} of {length} {units.name}")
    return compared


def check_seed(task: TextTask) -> int:
    """Seed and number decide a passage; another number is another passage, and of texts of a file each has its turn once, at any depth."""
    units = _units()[0]
    one, same, other, reseeded = (_made(task, units, 4096, number, seed) for number, seed in ((0, 0), (0, 0), (1, 0), (0, 1)))
    require(one == same, "the same seed gives another passage")
    require(one.whole != other.whole, "the next passage is the same")
    if (there := task.available()) is not None:
        told = (lambda passage: _questions(passage)[1:]) if task.sized else _questions
        first, second = ([told(_made(task, units, 4096, number, seed)) for number in range(there)] for seed in (0, 1))
        require(first != second, "another seed gives the same order")
        return require(sorted(map(repr, first)) == sorted(map(repr, second)), "another seed gives other texts")
    return require(_questions(one) != _questions(reseeded), "another seed gives the same passage and questions")


def check_right_answers(task: TextTask) -> int:
    """What is written as the right answer gets the full mark, with the opening repeated before it, too."""
    compared = 0
    for ask in _asks(task):
        for written in (ask.right, f" {ask.right}\n", f"{ask.opening} {ask.right}".strip()):
            compared += require(
                task.mark(ask, written) == 1.0, f"{written!r} gets {task.mark(ask, written)}, and is right for {ask.text!r}"
            )
    return compared


def check_chance(task: TextTask) -> int:
    """Guesses get on average what the task says is chance."""
    rng, guessed, stated = np.random.default_rng(0), [], []
    for ask in _asks(task):
        guessed += [task.mark(ask, task.guess(ask, rng)) for _ in range(_GUESSES)]
        stated += [task.chance(ask)] * _GUESSES
    error = max(float(np.std(guessed)), 0.05) / len(guessed) ** 0.5
    away = abs(float(np.mean(guessed)) - float(np.mean(stated)))
    words = f"guessing gets {np.mean(guessed):.3f}, and chance is said to be {np.mean(stated):.3f}"
    return require(away <= _SIGMAS * error, words) * len(guessed)


def check_junk(task: TextTask) -> int:
    """Whatever is written gets a mark from 0 to 1, and neither nonsense nor a list of all choices gets the full one."""
    compared = 0
    for ask in _asks(task):
        others = [choice for choice in ask.choices if choice != ask.right]
        for written in (*_JUNK, ask.text, *([", ".join([*others, ask.right])] if others else [])):
            mark = task.mark(ask, written)
            require(0.0 <= mark <= 1.0, f"{written[:40]!r} gets {mark}")
            compared += require(mark < 1.0 or written.strip() == ask.right.strip(), f"{written[:60]!r} gets the full mark for {ask.text!r}")
    return compared


def check_evidence(task: TextTask) -> int:
    """What an answer hangs on stands in the passage, word for word, and about where its depth says."""
    compared = 0
    for units, _, passage in _passages(task):
        whole = passage.whole
        for ask in passage.asks:
            places = [whole.find(part) for part in ask.evidence]
            missing = [part for part, place in zip(ask.evidence, places, strict=True) if place < 0]
            require(not missing, f"not in the passage in {units.name}: {missing[:1]}")
            if ask.depth is not None and places:
                at = min(places) / max(1, len(whole) - len(ask.evidence[places.index(min(places))]))
                require(abs(at - ask.depth) < 0.1, f"stands at {at:.2f} of the passage, and its depth is {ask.depth:.2f}")
            compared += 1
    return compared


def check_forgetting(task: TextTask) -> int:
    """One who has read only the last half of a passage gets a lower mark for what stands in the first."""
    rng, marks = np.random.default_rng(0), {False: list[float](), True: list[float]()}
    for _, _, passage in _passages(task):
        half = passage.whole[len(passage.whole) // 2 :]
        for ask in passage.asks:
            kept = all(part in half for part in ask.evidence)
            marks[kept] += [task.mark(ask, ask.right if kept else task.guess(ask, rng)) for _ in range(5)]
    require(bool(marks[False]), "nothing that is asked stands in the first half")
    lost = float(np.mean(marks[False]))
    return require(lost < 0.8, f"without the first half {lost:.2f} is right of what stands there") * len(marks[False])


def check_metrics(task: TextTask) -> int:
    """Every metric has a mark, the first of them that of `mark`, and a task with free words says so."""
    compared = 0
    for ask in _asks(task):
        require(task.free or not ask.free, f"an answer is in free words, and the task says that none is: {ask.text!r}")
        for written in (ask.right, "", "?"):
            marks, metrics = task.marks(ask, written), task.metrics(ask)
            require(len(set(metrics)) == len(marks), f"{len(marks)} marks of {metrics}")
            require(marks[0] == task.mark(ask, written), f"{metrics[0]} is {marks[0]}, and {task.mark(ask, written)} alone")
            compared += require(all(0.0 <= mark <= 1.0 for mark in marks), f"marks of {written!r} are {marks}")
    return compared


def check_least_length(task: TextTask) -> int:
    """A length that is too short is refused with the least one, and that one holds the task."""
    units = _units()[1]
    try:
        _passage(task, units, 8, 0)
    except NoRoom as error:
        found = re.findall(r"a length of (\d+) characters", str(error))
        require(len(found) == 1, f"the message names no length: {error}")
        least = int(found[0])
    else:
        raise AssertionError("8 characters hold it")
    passage = _passage(task, units, least, 0)
    longest = max(units.count(passage.text) + units.around(ask, passage.turns) for ask in passage.asks)
    return require(longest <= least, f"{longest} characters where {least} are the least")


def _numbers(task: TextTask) -> range:
    there = task.available()
    return range(_PASSAGES if there is None else there)


def _passages(task: TextTask) -> Iterator[tuple[Units, int, Passage]]:
    for units in _units():
        for number in _numbers(task):
            yield units, _LENGTHS[units.name], _passage(task, units, _LENGTHS[units.name], number)


def _asks(task: TextTask) -> Iterator[Ask]:
    units = _units()[0]
    for number in _numbers(task):
        yield from _passage(task, units, _LENGTHS["tokens"], number).asks


def _questions(passage: Passage) -> list[object]:
    return [passage.whole, *((ask.text, ask.right) for ask in passage.asks)]


@cache
def _units() -> tuple[Tokens, Characters]:
    """Tokens of the bundled model, and characters."""
    return Tokens(Form(AutoTokenizer.from_pretrained(local_checkpoint("nano")), chat=False)), Characters()


@cache
def _passage(task: TextTask, units: Units, length: int, number: int) -> Passage:
    return _made(task, units, length, number, seed=0)


def _made(task: TextTask, units: Units, length: int, number: int, seed: int) -> Passage:
    text = Filler(_text(), units) if task.needs_text else None
    return task.passage(Space(task=task.spec, length=length, units=units, seed=seed, number=number, text=text))


@cache
def _text() -> str:
    return stdlib_text("held-out")[:_TEXT]


def _asks_in_text(method: Method) -> bool:
    return isinstance(method, TextTask)


def _hangs_on_places(method: Method) -> bool:
    """Whether its questions name what they hang on. By one passage, counted in characters, which is quick."""
    if not isinstance(method, TextTask):
        return False
    units = _units()[1]
    return any(ask.evidence for ask in _passage(method, units, _LENGTHS[units.name], 0).asks)


CHECKS = [
    *(Check(run=check, applies=_asks_in_text) for check in (check_length, check_seed, check_right_answers, check_chance, check_junk)),
    *(Check(run=check, applies=_asks_in_text) for check in (check_metrics, check_evidence, check_least_length)),
    Check(run=check_forgetting, applies=_hangs_on_places),
]
