"""Passages fill a length: haystacks, and lists of items."""

import pytest

from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Turn
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


@pytest.mark.parametrize("length", [3000, 400_000])
def test_where_coarse_items_leave_a_gap_a_part_of_one_more_fills_it(length):
    asked = space(length)

    def make(items, rest):
        return "i" * 700 * items + "r" * rest

    items, rest = asked.topped(make, ASKS, least=1, most=700)
    room = asked.left(ASKS)
    assert len(make(items, rest)) == room if length < 10_000 else (rest == 0 and 0.995 * room <= len(make(items, 0)) <= room)
    with pytest.raises(NoRoom):
        space(700).topped(make, ASKS, least=1, most=700)


@pytest.mark.parametrize("style", ["groups", None])
def test_a_conversation_fills_a_length_with_all_that_stands_around_it(style):
    units = Tokens(Form(tokenizer(style), chat=False)) if style else Characters()

    def turns(rounds, rest):
        replies = [*["word " * 60] * rounds, *(["word " * rest] if rest else [])]
        return tuple(turn for reply in replies for turn in (Turn(role="user", text="More."), Turn(role="assistant", text=reply)))

    found = turns(*space(3000, units).talked(turns, "And now?", ASKS, least=1, most=60))
    used = units.count("And now?") + max(units.around(ask, found) for ask in ASKS)
    assert 2970 <= used <= 3000


def test_items_that_grow_in_steps_fill_a_length():
    asked = space(5000)

    def make(items):
        return "step " * (items // 50 * 10)

    assert len(make(asked.listed(make, ASKS, least=100))) >= 0.97 * asked.left(ASKS)


def test_too_short_a_length_names_the_least_one():
    with pytest.raises(NoRoom, match=r"task needs a length of (\d+) characters at least here, and 100 are asked for") as refused:
        space(100).filled([(0.5, "fact " * 20)], ASKS)
    least = int(str(refused.value).split("length of ")[1].split()[0])
    assert space(least).filled([(0.5, "fact " * 20)], ASKS)
    with pytest.raises(NoRoom):
        space(least - 3).filled([(0.5, "fact " * 20)], ASKS)
    with pytest.raises(NoRoom, match="a length of"):
        space(300).listed(lambda items: "item " * items, ASKS, least=40)


def test_chance_is_the_same_at_every_length_and_setting_and_differs_by_number_seed_key_and_task():
    def draw(**values):
        key = values.pop("key", ())
        return Space(**{"task": "task", "length": 100, "units": Characters(), **values}).rng(*key).integers(10**9)

    assert draw() == draw(length=5000) == draw(task="task:form=long")
    assert len({draw(), draw(number=1), draw(seed=1), draw(key=("a",)), draw(key=(1,)), draw(task="other")}) == 6
