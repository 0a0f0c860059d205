import re

import pytest

from longreach.core.errors import InputError
from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.abbreviations import expansion_accuracy
from longreach.workflows.run import composition
from longreach.workflows.spans import Document

SAID = Document(name="said", text="How are you?\nI would go by train. The train was late again!\nSee you tomorrow.\nHave a yoghurt.\n")


class Guesser(ScriptedWriter):
    """Says what it is told to say, in turn."""

    def __init__(self, *said, **settings):
        super().__init__(window=400, **settings)
        self.said = list(said)

    def written(self, prompt):
        return self.said[(len(self.requests) - 1) % len(self.said)]


def expanded(task, *said, workflow="expand_abbreviations", documents=(SAID,)):
    model = Guesser(*said)
    run = composition(model, task, workflow=workflow, documents=documents)
    return list(run.parts()), model, run


def prompts(model):
    return [str(request.messages[-1]["content"]) for request in model.requests]


def test_each_line_is_expanded_and_the_most_frequent_expansion_wins():
    of_each = ("Help a youth", "hear all year", "Have a yen", "Have a yen."), ("Sell your toys", "see you then", "no", "See you, then!")
    parts, model, _ = expanded("HAY\ns y t", *of_each[0], *of_each[1])
    assert parts == ["Have a yen", "see you then"]
    assert len(model.requests) == 8


def test_what_the_user_has_said_wins_among_equals():
    parts, _, _ = expanded("hay", "Help a youth", "How are you", "Hear all year", "Hug a yak")
    assert parts == ["How are you"]


def test_what_does_not_have_the_letters_is_asked_for_again_and_then_told():
    parts, model, run = expanded("How was it? | iwqg", "It was quite good indeed", "It was", "nonsense", "")
    assert parts == ["How was it? | iwqg (no expansion found)"]
    assert len(model.requests) == run.estimate.calls == 8
    assert len({(request.seed, request.temperature) for request in model.requests}) == 8


def test_the_users_own_sentence_stands_in_where_the_model_finds_none():
    parts, _, _ = expanded("hay", "nonsense")
    assert parts == ["How are you?"]


@pytest.mark.parametrize(
    ("line", "best"),
    [("hay", "How are you?"), ("ttwla", "The train was late again!"), ("Was the train late? | iwg", "I would go by train.")],
)
def test_the_sentence_that_is_most_like_the_line_stands_nearest_to_it(line, best):
    _, model, run = expanded(line, "nonsense", workflow="expand_abbreviations:examples=3,samples=1,rounds=1")
    (prompt,) = prompts(model)
    shown = re.findall(r"Sentence: (.+)", prompt)
    assert len(shown) == 3
    assert shown[-1] == best
    assert sorted(SAID.text[span.start : span.end] for span in run.ledger.calls[0].spans) == sorted(shown)


def test_as_many_sentences_are_shown_as_fit():
    many = Document(name="said", text="\n".join(f"How are you today number {number}?" for number in range(200)))
    _, model, _ = expanded("haytn", "nonsense", workflow="expand_abbreviations:examples=100,samples=1,rounds=1", documents=[many])
    shown = prompts(model)[0].count("Sentence: How")
    assert 15 < shown < 60


def test_a_sentence_is_taken_out_of_what_is_written_around_it():
    parts, _, _ = expanded("hay", 'Sentence: "How are you?"\n\nI hope this helps.')
    assert parts == ["How are you?"]


def test_personal_sentences_help():
    """A model that speaks as its examples do: with the user's own sentences it is right, with those of somebody else it is not."""

    class Mimic(ScriptedWriter):
        def written(self, prompt):
            letters = prompt.rpartition("Abbreviation: ")[2].partition("\n")[0]
            known = dict(re.findall(r"Abbreviation: (\w+)\nSentence: (.+)", prompt))
            return known.get(letters) or " ".join(letter + "x" for letter in letters)

    right = ["How are you?", "I would go by train.", "See you tomorrow."]
    others = Document(name="others", text="Good evening.\nWhat a day it was.\n")
    scores = []
    for document in (SAID, others):
        run = composition(Mimic(window=400), "hay\niwgbt\nsyt", workflow="expand_abbreviations", documents=[document])
        scores.append(expansion_accuracy(right, list(run.parts())))
    assert scores == [1.0, 0.0]


def test_a_task_without_letters_is_refused():
    with pytest.raises(InputError, match="the task has no abbreviation"):
        expanded("...\n?", "x")
