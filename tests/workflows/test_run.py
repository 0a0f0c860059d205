import json

import pytest

import longreach
from longreach.core import registry
from longreach.core.errors import InputError, SpecError
from longreach.endpoint.base import ChatModel, Completion, TokenLogprob
from longreach.endpoint.errors import EndpointError
from longreach.endpoint.recording import Recording
from longreach.testing.scripted import PerfectReader
from longreach.workflows.budget import BudgetError, Meter, RunBudget
from longreach.workflows.counting import TokenCounter
from longreach.workflows.run import reading

FACT, TASK, RIGHT = "The key lies below the stair.", "Where is the key?", "below the stair"


def text(words=600, fact=FACT):
    filler = "Nothing happened on that day, and nobody came. "
    half = filler * (words // 16)
    return f"{half}{fact} {half}"


def reader(**more):
    return PerfectReader([FACT], RIGHT, window=200, **more)


class Mute(ChatModel):
    """Counts nothing, states no window, and answers briefly."""

    name = "mute"

    def ask(self, request):
        return Completion(text="NOTHING", finish_reason="stop", seconds=0.0)

    def count(self, text):
        return None


class Prosy(ChatModel):
    """Counts nothing for others, and writes as much as it may, in tokens of `width` bytes.."""

    name, window = "prosy", 1200

    def __init__(self, width):
        self.width, self.most = width, 0

    def ask(self, request):
        read = len(request.messages[0]["content"]) // self.width
        self.most = max(self.most, read + request.most_tokens)
        token = TokenLogprob(token="a", logprob=-0.7, top={"a": -0.7, "b": -0.7})
        text = ("a" * (self.width - 1) + " ") * request.most_tokens
        return Completion(
            text=text, finish_reason="length", prompt_tokens=read, completion_tokens=request.most_tokens, seconds=0.0,
            logprobs=None if request.logprobs is None else (token,),
        )  # fmt: skip

    def count(self, text):
        return None


class Failing(PerfectReader):
    """Fails at the third call."""

    def ask(self, request):
        if len(self.requests) == 2:
            raise EndpointError("http://x", "503: busy")
        return super().ask(request)


def test_a_task_on_a_text_of_many_windows():
    run = reading(reader(), [text()], TASK, workflow="map_reduce")
    assert run.answer() == RIGHT
    assert run.ledger.coverage == 1
    (place,) = run.ledger.support
    assert FACT in run.documents[0].text[place.start : place.end]
    assert "read 100% of the text; the answer goes back to 1 place" in str(run.ledger)


def test_the_ledger_as_json_names_every_place():
    run = reading(reader(), [longreach.Document(name="diary", text=text())], TASK, workflow="truncate:keep=start")
    run.answer()
    said = json.loads(run.ledger.to_json())
    assert said["documents"] == [{"name": "diary", "characters": len(text())}]
    assert said["unread"][-1]["end"] == len(text())
    assert said["support"] == said["read"]
    assert said["read"][0]["excerpt"].startswith("Nothing happened on that day")
    assert 0 < said["coverage"] < 0.5
    assert said["cost"]["calls"] == len(said["calls"]) == 1


def test_a_budget_is_refused_before_the_first_call():
    model = reader()
    with pytest.raises(BudgetError, match=r"map_reduce may take \d+ calls, .* and the budget is 2 calls"):
        reading(model, [text()], TASK, budget=RunBudget(calls=2))
    assert not model.requests


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(InputError, match="a budget of 0 calls must be at least 1"):
        RunBudget(calls=0)


def test_a_meter_counts_what_is_under_way_and_gives_back_what_was_not_used():
    meter = Meter(RunBudget(calls=3, tokens=100))
    meter.reserve(40, 20)
    with pytest.raises(BudgetError, match="takes up to 41 tokens"):
        meter.reserve(30, 11)
    meter.settle((40, 20), (40, 1))
    meter.reserve(30, 11)
    assert (meter.spent.calls, meter.spent.read, meter.spent.written) == (2, 70, 12)


def test_a_call_that_fails_leaves_a_ledger_that_says_so():
    model = Failing([FACT], RIGHT, window=200)
    run = reading(model, [text()], TASK, workflow="chain")
    with pytest.raises(EndpointError, match="busy"):
        run.answer()
    assert len(run.ledger.calls) == 2
    assert run.ledger.stopped == "http://x: 503: busy"
    assert 0 < run.ledger.coverage < 1


def test_what_the_recording_answered_is_told(tmp_path):
    record = tmp_path / "calls.jsonl"
    first = reading(reader(), [text()], TASK, record=record)
    first.answer()
    again = reading(model := reader(), [text()], TASK, record=record)
    assert again.answer() == RIGHT
    assert not model.requests
    assert again.ledger.replayed == len(again.ledger.calls) == len(first.ledger.calls)
    assert "answered from the recording" in str(again.ledger)


def test_a_run_goes_on_offline_from_its_recording_alone(tmp_path):
    record = tmp_path / "calls.jsonl"
    reading(Mute(), [text()], TASK, window=400, record=record).answer()
    offline = reading(Recording(record), [text()], TASK, window=400)
    assert offline.answer() == "NOTHING"


def test_tokens_of_a_model_that_counts_none_are_estimates_on_the_safe_side():
    count = TokenCounter(Mute())
    assert not count.exact
    assert (count(""), count("abc"), count("abcd"), count("日本")) == (0, 1, 2, 2)
    run = reading(Mute(), [text()], TASK, window=400)
    run.answer()
    assert str(run.ledger).endswith("tokens are estimates")


@pytest.mark.parametrize("width", [3, 5, 8])
@pytest.mark.parametrize("workflow", registry.names("reading"))
def test_a_run_ends_within_its_estimate_where_nobody_counts_tokens(workflow, width):
    run = reading(model := Prosy(width), [text(4000)], TASK, workflow=workflow)
    run.answer()
    assert run.ledger.cost.calls <= run.estimate.calls
    assert run.ledger.cost.tokens <= run.estimate.tokens
    assert model.most <= model.window


def test_a_window_has_to_be_known():
    with pytest.raises(InputError, match=r"mute does not say .* \(--window\)"):
        reading(Mute(), [text()], TASK)
    with pytest.raises(InputError, match="must be at least 64"):
        reading(reader(), [text()], TASK, window=63)


@pytest.mark.parametrize(
    "workflow", ["map_reduce", "chain", "refine", "rag", "segments", "tree_summary", "recursive", "memory_stream", "reports"]
)
def test_a_task_that_fills_the_window_is_refused_in_one_line(workflow):
    with pytest.raises(InputError, match="window") as error:
        reading(reader(), [text()], "Where is it? " * 60, workflow=workflow, answer_tokens=16)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": " "}, InputError, "the task is empty"),
        ({"documents": []}, InputError, "map_reduce works from documents"),
        ({"documents": [" "]}, InputError, "text 1 is empty"),
        ({"workflow": "map_redcue"}, SpecError, "map_reduce"),
        ({"workflow": "yarn:factor=2"}, SpecError, "unknown workflow 'yarn'"),
        ({"answer_tokens": 0}, InputError, "must be at least 1"),
    ],
)
def test_bad_input(changes, error, message):
    given = {"documents": [text()], "task": TASK} | changes
    with pytest.raises(error, match=message):
        reading(reader(), given.pop("documents"), given.pop("task"), **given)
