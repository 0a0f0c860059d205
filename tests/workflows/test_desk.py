import math

import pytest

from longreach.endpoint.base import Completion, TokenLogprob
from longreach.testing.scripted import PerfectReader
from longreach.workflows.budget import Meter, RunBudget
from longreach.workflows.counting import TokenCounter
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, entropy_of
from longreach.workflows.ledger import Ledger
from longreach.workflows.spans import Document, Span
from longreach.workflows.wording import says_nothing


@pytest.fixture
def desk():
    model, documents = PerfectReader([], "", window=100), [Document(name="a", text="text")]
    ledger = Ledger(documents=documents, workflow="", task="In 1984?", window=100, exact=True)
    return Desk(
        model, "In 1984?", documents, window=100, answer_tokens=8, meter=Meter(RunBudget()), ledger=ledger, count=TokenCounter(model)
    )


@pytest.mark.parametrize(
    ("note", "kept", "left_out"),
    [
        ("The code is 48,213.", "The code is 48,213.", 0),
        ("The code is 12345. It opens the door.", "It opens the door.", 1),
        ("It opened in 1984.\nIt cost 1,500 marks! It has 3 doors.", "It opened in 1984.\nIt has 3 doors.", 1),
        ("- code: 48213\n- other: 99999\n- room 7", "- code: 48213\n- room 7", 1),
        ("He paid 2.50 and 48.213.", "", 1),
        ("NOTHING", "NOTHING", 0),
    ],
)
def test_numbers_that_no_source_has_are_made_up(desk, note, kept, left_out):
    chunk = TextChunk(text="The code of the harbour is 48,213.", spans=(Span(0, 0, 4),), tokens=6)
    found = desk.grounded(Note(text=note, spans=chunk.spans), chunk)
    assert found.text == kept
    assert found.spans == chunk.spans
    assert desk.ledger.made_up == left_out
    assert ("left out for numbers" in str(desk.ledger)) == bool(left_out)


def test_entropy_is_the_mean_over_tokens_with_the_rest_as_one():
    def token(*shares):
        return TokenLogprob(token="a", logprob=0.0, top={str(number): math.log(share) for number, share in enumerate(shares)})

    said = Completion(text="a", finish_reason="stop", seconds=0.0, logprobs=(token(0.5, 0.25), token(1.0)))
    assert entropy_of(said) == pytest.approx((0.5 * math.log(2) + 2 * 0.25 * math.log(4)) / 2)
    assert entropy_of(Completion(text="a", finish_reason="stop", seconds=0.0)) is None
    assert entropy_of(Completion(text="", finish_reason="stop", seconds=0.0, logprobs=())) is None


def test_room_is_what_fits_beside_the_rest(desk):
    desk.ask("one two", "Answer:", most=desk.room("one two", "Answer:", most=8), role="answer")
    with pytest.raises(Exception, match="do not fit into a window of 100"):
        desk.ask("word " * 90, "Answer:", most=8, role="answer")


@pytest.mark.parametrize(
    ("text", "nothing"),
    [("", True), ("NOTHING", True), ("**Nothing**.", True), ("NOTHING in it helps.", True), ("Nothing is known but her name, Ada.", False)],
)
def test_notes_that_say_nothing(text, nothing):
    assert says_nothing(text) == nothing
    assert Note(text=text).empty == nothing
