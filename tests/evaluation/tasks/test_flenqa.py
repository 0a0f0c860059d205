"""The same key paragraphs in any padding, anywhere."""

import re
from collections import Counter

import pytest

from longreach.evaluation.tasks.reasoning.flenqa import EXAMPLES, Flenqa
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

_NAME = r"[A-Z][a-z]+ [A-Z][a-z]+(?: the \d+[a-z]+)?"


def reading(passage, question):
    statement = question.removeprefix("True or False: ").removesuffix(" Answer True or False.")
    if found := re.search(rf"whoever is (\w+) and (\w+) is \w+, .* that ({_NAME}) is", statement):
        one, other, person = found.groups()
        has = {trait: {name for names in re.findall(rf"^(.*?) are {trait},", passage, re.M) for name in re.findall(_NAME, names)}
               for trait in (one, other)}  # fmt: skip
        return str(person in has[one] and person in has[other])
    if found := re.search(rf"({_NAME}) is in a room that is ([a-z -]+)\.", statement):
        person, look = found.groups()
        room = re.search(rf"{person} is in ({_NAME}'s [a-z ]+?)(?:,|\.)", passage)[1]
        return f"That is {'true' if re.search(f'{room} is {look}[.,]', passage) else 'not true'}."
    first, word, second = re.fullmatch(rf"({_NAME}) is (\w+) than ({_NAME})\.", statement).groups()
    said = re.findall(rf"({_NAME}) is (\w+) than ({_NAME})\.", passage)
    opposite = next(
        words[1 - words.index(word)]
        for words in (("older", "younger"), ("taller", "shorter"), ("faster", "slower"), ("stronger", "weaker"), ("richer", "poorer"))
        if word in words
    )
    above = {(a, b) if what == word else (b, a) for a, what, b in said if what in (word, opposite)}
    (between,) = {b for a, b in above if a in (first, second)} & {a for a, b in above if b in (first, second)}
    return "TRUE" if (first, between) in above else "False, it is the other way round"


@pytest.mark.parametrize("task", [*EXAMPLES, Flenqa(padding="similar", place="last")], ids=str)
def test_who_joins_the_two_paragraphs_tells_every_statement(task):
    assert mean_mark(task, reading) == 1


@pytest.mark.parametrize("form", ["relations", "rooms", "rules"])
def test_padding_and_place_change_nothing_but_themselves(form):
    kinds = [Flenqa(form=form, padding=padding, place=place) for padding in ("other", "similar") for place in ("first", "last", "apart")]
    for kind in (*kinds[1:], Flenqa(form=form, padding="same")):
        assert facts(kinds[0], 12_000) == facts(kind, 12_000)
    assert facts(kinds[0], 12_000) == facts(kinds[0], 30_000)


@pytest.mark.parametrize(("place", "low", "high"), [("first", 0.0, 0.1), ("middle", 0.4, 0.6), ("last", 0.9, 1.0)])
def test_both_paragraphs_stand_where_they_should(place, low, high):
    for padding in ("other", "similar"):
        passage = made(Flenqa(padding=padding, place=place))
        places = [passage.text.index(part) / len(passage.text) for part in passage.asks[0].evidence]
        assert low <= min(places) <= max(places) <= high


def test_paragraphs_that_are_apart_have_padding_between_them():
    gaps = []
    for number in range(10):
        passage = made(Flenqa(padding="similar"), number)
        first, second = (passage.text.index(part) for part in passage.asks[0].evidence)
        gaps.append((second - first) / len(passage.text))
    assert sum(gaps) / len(gaps) > 0.15


@pytest.mark.parametrize("form", ["relations", "rooms", "rules"])
def test_half_of_the_statements_are_true_wherever_they_stand_among_the_others(form):
    rights = [[ask.right for ask in made(Flenqa(form=form), number).asks] for number in range(12)]
    assert all(Counter(right) == {"True": 2, "False": 2} for right in rights)
    assert len({tuple(right) for right in rights}) > 2
