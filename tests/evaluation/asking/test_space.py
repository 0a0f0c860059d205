"""Passages fill a length: haystacks, and lists of items."""

import pytest

from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters, Tokens
from longreach.evaluation.tasks.base import NoRoom
from tests.evaluation.samples import real_text, tokenizer

ASKS = (Ask(text="Which?", right="this"), Ask(text="And which of the others would it be then?", right="that", most_tokens=30))


class Counted(Characters):
    """Characters, and how often they were counted."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def count(self, text):
        self.calls += 1
        return super().count(text)


def space(length, units=None, **values):
    units = units or Characters()
    return Space(task="task", length=length, units=units, text=Filler(real_text(), units), **values)


def test_the_longest_question_and_answer_have_room():
    units = Characters(each=3)
    assert Space(task="task", length=1000, units=units).left(ASKS) == 1000 - units.around(ASKS[1], ())
    assert units.around(ASKS[1], ()) == len(ASKS[1].text) + 3 + 3 * 30


@pytest.mark.parametrize("length", [500, 2000, 30_000])
@pytest.mark.parametrize("style", ["groups", "metaspace", None])
def test_a_haystack_is_full_and_holds_its_pieces(length, style):
    units = Tokens(Form(tokenizer(style), chat=False)) if style else Characters()
    made = space(length, units).filled([(0.5, "\nA fact.\n"), (0.1, "\nAnother.\n")], ASKS, before="Begin.\n")
    used = units.count(made) + units.around(ASKS[1], ())
    assert length - 20 <= used <= length
    assert made.startswith("Begin.\n")
    assert 0.05 < made.index("\nAnother.\n") / len(made) < 0.45 < made.index("\nA fact.\n") / len(made) < 0.55


@pytest.mark.parametrize("width", [3, 40, 700])
@pytest.mark.parametrize("length", [3000, 100_000])
def test_a_list_has_as_many_items_as_fit_and_is_counted_a_few_times(width, length):
    units = Counted()
    asked = space(length, units)

    def make(items):
        return "".join(f"{number:<{width}}" for number in range(items))

    found = asked.listed(make, ASKS, least=1)
    assert units.calls <= 12
    room = asked.left(ASKS)
    assert len(make(found)) <= room
    assert len(make(found + 1)) > room or len(make(found)) >= 0.995 * room


def test_too_short_a_length_names_the_least_one():
    with pytest.raises(NoRoom, match=r"task needs a length of (\d+) characters at least here, and 100 are asked for") as refused:
        space(100).filled([(0.5, "fact " * 20)], ASKS)
    least = int(str(refused.value).split("length of ")[1].split()[0])
    assert space(least).filled([(0.5, "fact " * 20)], ASKS)
    with pytest.raises(NoRoom):
        space(least - 3).filled([(0.5, "fact " * 20)], ASKS)
    with pytest.raises(NoRoom, match="a length of"):
        space(300).listed(lambda items: "item " * items, ASKS, least=40)


def test_chance_is_the_same_at_every_length_and_differs_by_number_seed_key_and_task():
    def draw(**values):
        key = values.pop("key", ())
        return Space(**{"task": "task", "length": 100, "units": Characters(), **values}).rng(*key).integers(10**9)

    assert draw() == draw(length=5000)
    assert len({draw(), draw(number=1), draw(seed=1), draw(key=("a",)), draw(key=(1,)), draw(task="other")}) == 6
