"""Asks readers of a test, who see the text and the question as a model does, and nothing else."""

from functools import cache

from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from tests.evaluation.samples import real_text


@cache
def passage(task, number=0, length=12_000):
    """A passage of so many characters."""
    units = Characters()
    text = Filler(real_text(), units) if task.needs_text else None
    return task.passage(Space(task=task.spec, length=length, units=units, number=number, text=text))


def mean_mark(task, read, *, count=20, length=12_000):
    """What `read(text, question)` gets for its answers, on average over all questions to some passages."""
    made = [passage(task, number, length) for number in range(count)]
    marks = [task.mark(ask, read(one.whole, ask.text)) for one in made for ask in one.asks]
    return sum(marks) / len(marks)


def facts(task, length):
    """What is asked in a passage, and what is right."""
    return [(ask.text, ask.right) for ask in passage(task, 3, length).asks]
