"""Stories of people, places and things are told in order, and everything that is asked follows from them."""

import re
from collections import Counter

import pytest

from longreach.evaluation.tasks.reasoning.babi import EXAMPLES, Babi
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

_SENTENCE = re.compile(r"^([A-Z][a-z]+) ([a-z ]+?) the ([a-z]+)( there)?\.$", re.MULTILINE)
_TAKEN = ("picked up", "took", "grabbed", "got", "collected")


class Read:
    """What a reader knows who goes through the story sentence by sentence."""

    def __init__(self, text):
        self.at, self.holds, self.lies, self.been = {}, {}, {}, {}
        for person, verb, what, there in _SENTENCE.findall(text):
            if there:
                self.holds.setdefault(person, [])
                if verb in _TAKEN:
                    self.holds[person].append(what)
                else:
                    self.holds[person].remove(what)
                self.lies[what] = self.at[person]
                self.be(what, self.at[person])
            elif "no" in verb.split("is ")[-1] or verb == "has left":
                self.at[person] = None
            else:
                self.at[person] = what
                for thing in self.holds.get(person, ()):
                    self.be(thing, what)

    def be(self, thing, place):
        self.been.setdefault(thing, [])
        if not self.been[thing] or self.been[thing][-1] != place:
            self.been[thing].append(place)


def reading(passage, question):
    read = Read(passage)
    if found := re.match(r"Where was the (\w+) before it came to the (\w+)", question):
        places = read.been[found[1]]
        return f"Before it came to the {found[2]}, it was in the {places[places.index(found[2]) - 1]}."
    if found := re.match(r"Where is the (\w+)", question):
        return read.been[found[1]][-1]
    if found := re.match(r"Where is (\w+)", question):
        return f"In the {read.at[found[1]].upper()}!"
    if found := re.match(r"Is (\w+) in the (\w+)", question):
        return "Yes." if read.at[found[1]] == found[2] else "No, elsewhere."
    if found := re.match(r"How many things is (\w+)", question):
        return ("none", "one", "two", "three")[len(read.holds.get(found[1], ()))]
    found = re.match(r"What is (\w+) carrying", question)
    return ", ".join(read.holds.get(found[1], ())) or "not anything"


@pytest.mark.parametrize("task", EXAMPLES, ids=str)
def test_who_follows_the_story_answers_everything(task):
    assert mean_mark(task, reading) == 1


@pytest.mark.parametrize("form", ["two", "three"])
def test_the_last_sentence_about_a_thing_does_not_say_where_it_is(form):
    """Else one fact would do."""
    joined = 0
    for number in range(10):
        for ask in made(Babi(form=form), number).asks:
            thing = re.search(r"the (\w+)", ask.text)[1]
            last = [line for line in made(Babi(form=form), number).text.splitlines() if f"the {thing} there." in line][-1]
            assert ask.right not in last
            joined += len(ask.evidence) >= (2 if form == "two" else 3)
    assert joined >= 35


@pytest.mark.parametrize("form", ["negation", "count"])
def test_no_answer_is_right_most_of_the_time(form):
    answers = Counter(ask.right for number in range(40) for ask in made(Babi(form=form), number).asks)
    assert max(answers.values()) < 0.6 * answers.total()


def test_a_list_has_to_be_whole():
    task = Babi(form="list")
    ask = next(ask for number in range(20) for ask in made(task, number).asks if " and " in ask.right)
    one, other = re.findall(r"the (\w+)", ask.right)[:2]
    assert task.mark(ask, f"{one} and the {other}") == 1
    assert task.mark(ask, one) == task.mark(ask, "nothing") == 0


def test_lengths_share_their_story():
    assert facts(Babi(form="two"), 12_000) == facts(Babi(form="two"), 40_000)
