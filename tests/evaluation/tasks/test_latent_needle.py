"""A latent needle is asked for in words that it does not share."""

import re

import pytest

from longreach.evaluation.tasks.reasoning._associations import RELATIONS
from longreach.evaluation.tasks.reasoning.latent_needle import EXAMPLES, LatentNeedle
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

_FUNCTION_WORDS = """
the a an of to in on at by is has and with that from it for as but one who what which been be its are was this name while text above alone
answer character most only some something
"""


def stems(text):
    words = [word for word in re.findall(r"[a-z]+", text.lower()) if word not in _FUNCTION_WORDS.split()]
    return {word[:5] for word in words} | {word.removesuffix("s") for word in words}


def knowing(passage, question):
    """Finds the thing that the question means, and who is said to have to do with it."""
    for relation in RELATIONS:
        for known in relation.known:
            for hop, asked in enumerate(relation.asked, start=1):
                if f" {asked.format(answer=known[hop])}?" in question and known.thing.lower() in passage.lower():
                    for fact in relation.facts:
                        before, after = (re.escape(part) for part in fact.format(name="@", thing=known.thing).split("@"))
                        if found := re.search(f"{before}([A-Z][a-z]+){after}", passage, re.IGNORECASE):
                            return f"It is {found[1]}."
    raise AssertionError(question)


@pytest.mark.parametrize("task", EXAMPLES, ids=str)
def test_a_reader_who_knows_the_world_finds_the_character(task):
    assert mean_mark(task, knowing) == 1


def test_no_question_shares_a_word_with_its_fact():
    assert sum(len(relation.known) for relation in RELATIONS) >= 40
    for relation in RELATIONS:
        for known in relation.known:
            for fact in relation.facts:
                for hop, asked in enumerate(relation.asked, start=1):
                    shared = stems(fact.format(name="", thing=known.thing)) & stems(asked.format(answer=known[hop]))
                    assert not shared, (known, shared)


def test_no_two_facts_of_a_sort_mean_the_same():
    for relation in RELATIONS:
        for hop in (1, 2):
            assert len({known[hop] for known in relation.known}) == len(relation.known)


def test_all_facts_of_a_passage_have_the_same_forms():
    passage = made(LatentNeedle())
    (relation,) = [one for one in RELATIONS if all(part in passage.asks[0].text for part in one.asked[0].split("{answer}"))]
    forms = [fact.format(name="[A-Z][a-z]+", thing=".+") for fact in relation.facts]
    said = [line for line in passage.text.splitlines() if any(re.search(rf"\b{name}\b", line) for name in passage.asks[0].choices)]
    assert len(said) == 8
    assert all(any(re.fullmatch(form, line) for form in forms) for line in said)


def test_lengths_and_steps_of_thought_share_their_facts():
    assert facts(LatentNeedle(), 12_000) == facts(LatentNeedle(), 40_000)
    one, two = made(LatentNeedle()), made(LatentNeedle(hops=2))
    assert [ask.evidence for ask in one.asks] == [ask.evidence for ask in two.asks]
    assert not {ask.text for ask in one.asks} & {ask.text for ask in two.asks}
