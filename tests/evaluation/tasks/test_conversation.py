"""Long conversations: whoever counts the requests repeats the right reply."""

import re

import pytest

from longreach.evaluation.tasks.conversation import multi_round
from longreach.evaluation.tasks.conversation.multi_round import MultiRound
from tests.evaluation.asked import facts, mean_mark, passage

TITLE = r"(?:poem|letter|story|song|speech|riddle) about an? \w+"


def repeater(text, question, *, ordinal=True):
    word, place, wanted = re.match(rf"Write (\w+), and then the (\d+)\w\w ({TITLE}),", question).groups()
    asked = rf"(?:(?:Please w|Now w|W)rite a {TITLE}\.|Could you write a {TITLE}\?|I would like a {TITLE}\.|Next, a {TITLE}, please\.)\n"
    replies = [reply.strip() for reply in re.split(asked, text.rsplit("\n", 1)[0] + "\n")]
    own = [reply for reply in replies if reply.startswith(f"A {wanted}\n")]
    return f"{word}\n{own[int(place) - 1 if ordinal else 0]}"


@pytest.mark.parametrize("task", multi_round.EXAMPLES, ids=str)
def test_who_counts_the_requests_is_right(task):
    assert mean_mark(task, repeater) == 1.0


def test_questions_are_the_same_at_every_length():
    assert facts(MultiRound(), 8_000) == facts(MultiRound(), 30_000)


def test_another_reply_to_the_same_request_is_no_answer():
    first = mean_mark(MultiRound(), lambda text, question: repeater(text, question, ordinal=False))
    asked = [ask.about["place"] == 1 for number in range(20) for ask in passage(MultiRound(), number).asks]
    assert first < sum(asked) / len(asked) + 0.4
    assert 0.1 < sum(asked) / len(asked) < 0.45


def test_an_answer_without_its_first_word_is_worth_nothing():
    assert mean_mark(MultiRound(), lambda text, question: repeater(text, question).split("\n", 1)[1]) == 0.0
    assert 0.5 < mean_mark(MultiRound(), lambda text, question: repeater(text, question)[:-100]) < 1.0


def test_turns_alternate_and_end_with_a_reply():
    for number in range(5):
        roles = [turn.role for turn in passage(MultiRound(), number).turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert len(roles) > 40
