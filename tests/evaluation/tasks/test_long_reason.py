"""Premises are spread over a text, and the answer follows from all of them."""

import re
from collections import Counter

import pytest

from longreach.evaluation.tasks.reasoning.long_reason import EXAMPLES, LongReason
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

FORMS = ("stock", "order", "family", "schedule", "culprit")
_NAME = r"[A-Z][a-z]+ [A-Z][a-z]+"


def stock(passage, asked):
    goods, where = re.match(r"How many ([a-z]+) did (.+?) have", asked).groups()
    full = re.search(rf"{where} had (\d+) full", passage)[1]
    each = re.search(rf"At {where}, (\d+) {goods} make", passage)[1]
    came = re.search(rf"brought (\d+) more {goods} to {where}\.", passage)[1]
    sold = re.search(rf"{where} sold (\d+)", passage)[1]
    spoiled = re.search(rf"{where} had to throw (\d+)", passage)[1]
    return str(int(full) * int(each) + int(came) - int(sold) - int(spoiled))


def order(passage, asked):
    named = re.findall(_NAME, asked.removeprefix("Of "))
    above = {first: second for first, second in re.findall(rf"({_NAME}) is [a-z]+ than ({_NAME})\.", passage) if first in named}
    (first,) = set(above) - set(above.values())
    ranked = [first]
    while ranked[-1] in above:
        ranked.append(above[ranked[-1]])
    return ranked[("first", "second", "third", "fourth").index(re.search(r"the (\w+) \w+\?", asked)[1])]


def family(passage, asked):
    who, whom = re.match(rf"What is ({_NAME}) to ({_NAME})\?", asked).groups()
    parent = {child: one for one, child in re.findall(rf"({_NAME}) is the (?:mother|father) of ({_NAME})\.", passage)}

    def up(name):
        return [name, *up(parent[name])] if name in parent else [name]

    mine, theirs = up(who), up(whom)
    common = next(name for name in mine if name in theirs)
    steps = {(1, 2): "aunt uncle", (2, 1): "niece nephew", (2, 2): "cousin", (1, 1): "sister brother", (0, 2): "grandmother grandfather",
             (2, 0): "granddaughter grandson", (0, 3): "great-grandmother great-grandfather"}  # fmt: skip
    words = steps[mine.index(common), theirs.index(common)].split()
    choices = re.findall(r"[a-z-]+", asked.partition("these answers:")[2])
    return next(word for word in words if word in choices)


def schedule(passage, asked):
    who = re.match(rf"When does ({_NAME})'s", asked)[1]
    if at := re.search(rf"{who}'s talk begins at (\d+):(\d+)", passage):
        minutes = 60 * int(at[1]) + int(at[2])
    else:
        step, side, other = re.search(rf"{who}'s talk begins (\d+) minutes (after|before) that of ({_NAME})", passage).groups()
        hours, rest = schedule(passage, f"When does {other}'s").split(":")
        minutes = 60 * int(hours) + int(rest) + int(step) * (1 if side == "after" else -1)
    return f"{minutes // 60}:{minutes % 60:02}"


def culprit(passage, asked):
    what = re.match(r"Who took (.+?)\?", asked)[1]
    four = re.findall(_NAME, re.search(rf"Either ({_NAME}, {_NAME}, {_NAME} or {_NAME}) took {what}", passage)[1])
    cleared = re.findall(rf"({_NAME}) (?:was|had)[^.]*? {what} was taken", passage)
    (left,) = set(four) - set(cleared)
    return left


def reading(passage, asked):
    kind = {"How": stock, "Of ": order, "Wha": family, "Whe": schedule, "Who": culprit}[asked[:3]]
    return f"{kind(passage, asked)}."


@pytest.mark.parametrize("task", [*EXAMPLES, *(LongReason(form=form) for form in FORMS)], ids=str)
def test_who_joins_the_premises_finds_the_answer(task):
    assert mean_mark(task, reading, count=12) == 1


@pytest.mark.parametrize("form", FORMS)
def test_the_question_alone_does_not_tell_the_answer(form):
    """Neither by where the right choice stands, nor by its rank among numbers, nor by what is asked for most."""
    asks = [ask for number in range(60) for ask in made(LongReason(form=form), number).asks]
    counts = [Counter(ask.choices.index(ask.right) for ask in asks)]
    if form in ("stock", "schedule"):
        counts.append(Counter(sorted(ask.choices, key=lambda one: int(one.replace(":", ""))).index(ask.right) for ask in asks))
    if form == "family":
        counts.append(Counter(ask.right for ask in asks))
    for count in counts:
        assert len(count) >= 4
        assert max(count.values()) < 0.4 * len(asks)


def test_premises_stand_apart():
    for ask in made(LongReason(form="order")).asks:
        places = sorted(made(LongReason(form="order")).text.index(premise) for premise in ask.evidence)
        assert places[-1] - places[0] > 2000


def test_lengths_share_their_problems():
    assert facts(LongReason(), 12_000) == facts(LongReason(), 40_000)
