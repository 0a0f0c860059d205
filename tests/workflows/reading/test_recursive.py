import pytest

from longreach.endpoint.base import ChatModel, Completion
from longreach.workflows.reading.recursive import parsed
from longreach.workflows.run import reading

TEXT = "\n\n".join(
    [*("Rain fell on the harbour all day." for _ in range(80)), "The mayor was born in Delft.", *("Sun shone." for _ in range(80))]
)
TASK = "Where was the mayor born?"


class Mover(ChatModel):
    """Makes the moves that it is given, and says of parts that it is asked about what they hold of the mayor."""

    name, window = "mover", 160

    def __init__(self, *moves):
        self.moves, self.prompts = list(moves), []

    def count(self, text):
        return len(text.split())

    def ask(self, request):
        prompt = request.messages[0]["content"]
        self.prompts.append(prompt)
        if prompt.endswith("Notes:"):
            text = "The mayor was born in Delft." if "Delft" in prompt else "NOTHING"
        elif prompt.endswith("Answer:"):
            text = "Delft" if "Delft" in prompt else "unknown"
        else:
            text = self.moves.pop(0)
        return Completion(text=text, finish_reason="stop", seconds=0.0)


def run(model, **settings):
    given = ",".join(f"{key}={value}" for key, value in settings.items())
    made = reading(model, [TEXT], TASK, workflow=f"recursive:{given}" if given else "recursive", answer_tokens=12)
    return made, made.answer()


def read_text(made):
    return " ".join(TEXT[span.start : span.end] for span in made.ledger.read)


def test_it_searches_opens_and_answers():
    made, answer = run(model := Mover("search: mayor born", "open: 5", "answer: in Delft"))
    listed = next(line for line in model.prompts[1].splitlines() if line.endswith("The mayor was born in Delft."))
    assert listed.partition(":")[0].isdigit()
    assert answer == "in Delft"
    assert "Rain fell" in model.prompts[2]
    assert made.ledger.coverage < 0.3


def test_a_part_is_asked_by_a_call_of_its_own():
    model = Mover("search: mayor", "ask: {number}: Where is the mayor from?", "answer: Delft")
    made = reading(model, [TEXT], TASK, workflow="recursive", answer_tokens=12)
    first = model.ask

    def ask(request):
        if "{number}" in (model.moves or [""])[0]:
            listed = next(line for line in request.messages[0]["content"].splitlines() if line.endswith("Delft."))
            model.moves[0] = model.moves[0].format(number=listed.partition(":")[0])
        return first(request)

    model.ask = ask
    assert made.answer() == "Delft"
    assert "Question: Where is the mayor from?" in model.prompts[2]
    assert "The mayor was born in Delft." in model.prompts[3].partition("Noted:")[2]
    assert [call.role for call in made.ledger.calls] == ["move", "move", "part", "move"]
    place = TEXT.index("The mayor")
    assert any(span.start <= place < span.end for span in made.ledger.support)


def test_after_the_last_move_it_answers_from_what_it_has():
    made, answer = run(Mover("search: mayor", "note: Delft it is"), steps=2)
    assert answer == "Delft"
    assert made.ledger.calls[-1].role == "answer"


@pytest.mark.parametrize(
    ("move", "told"),
    [
        ("I cannot decide.", "none of the moves"),
        ("open: 999", "from 1 to"),
        ("open: the door", "from 1 to"),
        ("search: zebra", "No part holds these words"),
        ("ask: 2: " + "why " * 30, "too long"),
        ("ask: 1: who?", "says nothing on that"),
    ],
)
def test_a_move_that_leads_nowhere_is_told(move, told):
    _, answer = run(model := Mover(move, "answer: x"))
    assert answer == "x"
    assert told in model.prompts[-1]


def test_the_same_move_again_is_told():
    run(model := Mover("search: mayor", "search: mayor", "answer: x"))
    assert "You made this move before" in model.prompts[-1]


def test_no_prompt_outgrows_the_window():
    moves = [move for number in range(1, 6) for move in (f"open: {number}", f"note: {'long words ' * 8}")]
    run(model := Mover(*moves, "search: mayor", "answer: x"))
    assert all(model.count(prompt) + 12 <= model.window for prompt in model.prompts)


@pytest.mark.parametrize(
    ("text", "move"),
    [
        ("answer: in Delft,\nI think", ("answer", "in Delft,\nI think")),
        ("1. **note**: a `b`", ("note", "a `b")),
        ("> Search for the key", ("search", "for the key")),
        ("The answer is 5", ("", "")),
        ("", ("", "")),
    ],
)
def test_moves_are_read_leniently(text, move):
    assert parsed(text) == move
