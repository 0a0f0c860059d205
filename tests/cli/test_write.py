import _thread
import itertools
import json
import re
import signal
from pathlib import Path

import pytest

from longreach.cli.main import run
from longreach.testing.endpoint_server import EndpointServer, Fault
from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.output_length import words_in

WRITER = ScriptedWriter(window=10_000)
TASK = "Write a story of 400 words about a ship."


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "draft.txt").write_text("The hinge is made of steel.\n", encoding="utf-8")
    return tmp_path


def answered(body):
    return WRITER.written(body["messages"][-1]["content"])


def served(*arguments, faults=None, answer=answered):
    """Run the command on an endpoint that writes as it is asked to. Returns its exit code, and how often it was asked."""
    with EndpointServer(answer, faults=faults, dialect="vllm") as server:
        code = run(["write", "--endpoint", server.url, "--window", "2000", *arguments])
        return code, sum(post.path.endswith("/chat/completions") for post in server.posts)


def test_a_text_is_written_shown_and_kept(place, capsys):
    code, calls = served("--task", TASK, "--out", "texts/story.txt")
    out, err = capsys.readouterr()
    assert code == 0
    assert calls == 3  # a plan and two passages of 200 words
    assert words_in(out) == 400
    assert out == (place / "texts" / "story.txt").read_text(encoding="utf-8")
    assert re.search(r"^at most 7 calls, [\d,]+ tokens read and [\d,]+ written$", err, re.MULTILINE)
    assert err.splitlines()[-1].startswith("3 calls, ")


def test_the_ledger_has_every_call_and_the_text(place, capsys):
    code, calls = served("--task", TASK, "--ledger", "pages/story.html")
    page = (place / "pages" / "story.html").read_text(encoding="utf-8")
    assert code == 0
    assert "<h1>What was written</h1>" in page
    assert f"All {calls} calls" in page
    assert capsys.readouterr().out.strip().splitlines()[0][:40] in page
    assert served("--task", TASK, "--ledger", "story.txt") == (2, 0)
    assert "ends in .html or .json" in capsys.readouterr().err


def test_what_an_endpoint_does_not_count_is_said_to_be_an_estimate(place, capsys):
    with EndpointServer(answered) as server:
        assert run(["write", "--endpoint", server.url, "--window", "2000", "--task", TASK]) == 0
    assert "(estimates: the endpoint does not count tokens)" in capsys.readouterr().err


def test_a_stopped_run_keeps_what_it_wrote_and_goes_on(place, capsys):
    stopping = ("--task", TASK, "--out", "story.txt", "--record", "calls.jsonl", "--workflow", "plan_write:part_words=100")
    broken = Fault.error(400, "no more")
    code, calls = served(*stopping, faults=lambda _: broken if recorded() == 3 else None)
    assert code == 2
    kept = (place / "story.txt").read_text(encoding="utf-8")
    assert words_in(kept) in (100, 200, 300)
    code, more = served(*stopping)
    whole = (place / "story.txt").read_text(encoding="utf-8")
    assert code == 0
    assert whole.startswith(kept.rstrip())
    assert words_in(whole) == 400
    assert calls - 1 + more == 5  # the one that failed is asked again
    assert "calls answered from the recording" in capsys.readouterr().err


def recorded():
    """Calls in the recording."""
    record = Path("calls.jsonl")
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return sum("answer" in json.loads(line) for line in lines)


@pytest.fixture
def listens():
    """This process listens to Ctrl-C, also where it was begun in the background, which is deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listens")
def test_ctrl_c_keeps_what_is_written(place, capsys):
    calls = itertools.count(1)

    def answer(body):
        if next(calls) == 4:
            _thread.interrupt_main()
        return answered(body)

    code, _ = served("--task", TASK, "--out", "story.txt", "--workflow", "plan_write:part_words=100", answer=answer)
    assert code == 130
    assert words_in((place / "story.txt").read_text(encoding="utf-8")) in (200, 300)
    assert capsys.readouterr().err.endswith("stopped\n")


def test_a_budget_is_refused_before_anything_is_asked(place, capsys):
    code, calls = served("--task", TASK, "--budget-calls", "6")
    assert (code, calls) == (2, 0)
    assert "plan_write may take 7 calls" in capsys.readouterr().err
    assert served("--task", TASK, "--budget-calls", "7", "--budget-tokens", "100k")[0] == 0


def test_a_draft_is_read(place, capsys):
    code, _ = served("--task", "Write a patent of 200 words.", "--from", "draft.txt", "--workflow", "patent")
    out, err = capsys.readouterr()
    assert code == 0
    assert out.startswith("Title\n\n")
    assert "read 100% of the text" in err


def test_a_model_in_this_process_writes(tiny_folder, capsys):
    task = "A letter of 4 words."
    assert run(["write", "tiny", "--window", "2000", "--workflow", "plan_write:retries=0", "--task", task, "--out", "letter.txt"]) in (0, 2)
    out, err = capsys.readouterr()
    assert "warning: a window of 2000 tokens goes beyond the 128 that tiny is made for" in err
    assert "at most 1 call, " in err
    assert ("wrote nothing" in err) == (not out.strip())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", " "], "the task is empty"),
        (["--task", "x", "--workflow", "plan_rite"], "unknown workflow 'plan_rite'; did you mean plan_write or"),
        (["--task", "x", "--workflow", "plan_write:words=0"], "words=0"),
        (["--task", "x", "--from", "draft.txt"], "plan_write writes from the task alone, and documents have no effect"),
        (["--task", "x", "--workflow", "patent"], "patent works from documents; give at least one"),
        (["--task", "x", "--from", "none.txt", "--workflow", "patent"], "cannot read none.txt"),
        (["--task", "x", "--out", "."], "--out . is a folder"),
        (["--task", "x", "--out", "draft.txt/x"], "--out draft.txt cannot be written to"),
        (["--task", "x", "--budget-calls", "0"], "a budget of 0 calls must be at least 1"),
        (["--task", "x", "--window", "far"], "not a length"),
    ],
)
def test_what_cannot_be_is_told_before_a_model_is_loaded(place, capsys, arguments, message):
    assert run(["write", "nowhere", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_writes_nothing_is_told(place, capsys):
    code, _ = served("--task", TASK, answer=lambda body: "")
    assert code == 2
    assert "stub wrote nothing; give another model" in capsys.readouterr().err


def test_a_recorded_text_is_replayed_from_its_file_alone(place, capsys):
    assert served("--task", TASK, "--record", "calls.jsonl", "--ledger", "first.json")[0] == 0
    first = capsys.readouterr().out
    assert run(["write", "--task", TASK, "--window", "2000", "--replay", "calls.jsonl", "--ledger", "second.json"]) == 0
    assert capsys.readouterr().out == first
    assert (place / "second.json").read_bytes() == (place / "first.json").read_bytes()
