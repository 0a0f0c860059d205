import json
import shutil
import subprocess
import sys

import pytest

from longreach.cli.main import run
from longreach.testing.endpoint_server import EndpointServer
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, tokenizer

ASK = ["--ask", "Where is the key?"]


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filler = "Nothing happened on that day, and nobody came.\n"
    (tmp_path / "diary.txt").write_text(f"{filler * 60}The key lies below the stair.\n{filler * 60}", encoding="utf-8")
    return tmp_path


def chats(server):
    return [post for post in server.posts if post.path.endswith("/chat/completions")]


def answer(body):
    prompt = body["messages"][-1]["content"]
    if "below the stair" not in prompt:
        return "NOTHING"
    return "below the stair" if prompt.endswith("Answer:") else "The key lies below the stair."


def test_documents_are_read_through_an_endpoint(docs, capsys):
    with EndpointServer(answer) as server:
        options = ["--endpoint", server.url, "--window", "400", "--ledger", "ledger.html", "--record", "calls.jsonl"]
        assert run(["read", "diary.txt", *ASK, *options]) == 0
        first = len(chats(server))
        told = capsys.readouterr()
        assert told.out == "below the stair\n"
        assert told.err.startswith("at most ")
        assert "estimates: the endpoint does not count tokens" in told.err
        assert "read 100% of the text" in told.err
        page = (docs / "ledger.html").read_text(encoding="utf-8")
        assert "below the stair" in page
        assert "longreach read diary.txt" in page or "Again" in page
        assert run(["read", "diary.txt", *ASK, *options[:-4], "--record", "calls.jsonl", "--json"]) == 0
        assert len(chats(server)) == first, "the recording was not used"
    said = json.loads(capsys.readouterr().out)
    assert said["answer"] == "below the stair"
    assert said["ledger"]["replayed"] == said["ledger"]["cost"]["calls"]


def test_documents_are_read_by_a_model_in_this_process(tiny_folder, capsys):
    (tiny_folder / "note.txt").write_text("The harbour lies in the north. " * 40, encoding="utf-8")
    options = ["--model", "tiny", "--max-new-tokens", "4", "--workflow", "truncate", "--ledger", "ledger.json"]
    assert run(["read", "note.txt", "--ask", "Where?", *options]) == 0
    said = json.loads((tiny_folder / "ledger.json").read_text(encoding="utf-8"))
    assert said["answer"] == capsys.readouterr().out.rstrip("\n")
    assert said["ledger"]["window"] == 128
    assert 0 < said["ledger"]["coverage"] < 1


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A folder to work in, with note.txt, and the model `tiny` with a window of 600."""
    monkeypatch.chdir(tmp_path)
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=600).save_pretrained("tiny")
    tokenizer().save_pretrained("tiny")
    (tmp_path / "note.txt").write_text("The harbour lies in the north. " * 60, encoding="utf-8")
    return tmp_path


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from longreach.cli.main import main; main()"


@pytest.mark.parametrize("workflow", ["map_reduce", "chain", "segments"])
def test_a_recorded_run_is_replayed_without_any_model(recorded, capsys, workflow):
    asked = ["read", "note.txt", "--ask", "Where?", "--max-new-tokens", "4", "--workflow", workflow]
    assert run([*asked, "--model", "tiny", "--record", "calls.jsonl", "--ledger", "first.json"]) == 0
    first, kept = capsys.readouterr().out, (recorded / "calls.jsonl").read_bytes()
    shutil.rmtree(recorded / "tiny")
    command = [sys.executable, "-c", WITHOUT_TORCH, *asked, "--replay", "calls.jsonl", "--ledger", "second.json"]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stdout == first
    assert "replayed from calls.jsonl; no model is asked" in again.stderr
    assert (recorded / "second.json").read_bytes() == (recorded / "first.json").read_bytes()
    assert json.loads((recorded / "first.json").read_bytes())["ledger"]["exact"] is True
    assert (recorded / "calls.jsonl").read_bytes() == kept


@pytest.mark.parametrize(
    "changed", [["note.txt", "--ask", "When?"], ["other.txt", "--ask", "Where?"], ["note.txt", "--ask", "Where?", "--max-new-tokens", "5"]]
)
def test_a_replay_of_another_run_is_one_line(recorded, capsys, changed):
    (recorded / "other.txt").write_text("The harbour lies in the south. " * 60, encoding="utf-8")
    options = ["--model", "tiny", "--record", "calls.jsonl"]
    assert run(["read", "note.txt", "--ask", "Where?", "--max-new-tokens", "4", *options]) == 0
    capsys.readouterr()
    assert run(["read", "--max-new-tokens", "4", *changed, "--replay", "calls.jsonl"]) == 2
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "calls.jsonl has no such call (" in told
    assert "it replays a run as it was" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diary.txt", *ASK], "name a model, or an endpoint"),
        (["none.txt", *ASK, "--model", "nano"], "cannot read none.txt"),
        (["diary.txt", "--ask", " ", "--model", "nano"], "--ask is empty"),
        (["diary.txt", *ASK, "--model", "nano", "--workflow", "map_redcue"], "unknown workflow 'map_redcue'; did you mean map_reduce or"),
        (["diary.txt", *ASK, "--model", "nano", "--workflow", "rag:order=best"], "order=best"),
        (["diary.txt", *ASK, "--model", "nano", "--ledger", "page.txt"], "ends in .html or .json"),
        (["diary.txt", *ASK, "--model", "nano", "--window", "far"], "far"),
        (["diary.txt", "diary.txt", *ASK, "--model", "nano"], "given twice"),
        (["diary.txt", *ASK, "--model", "nano", "--served-model", "x"], "no effect"),
        (["diary.txt", *ASK, "--model", "nano", "--replay", "calls.jsonl"], "and only one of them"),
        (["diary.txt", *ASK, "--replay", "none.jsonl"], "cannot read calls from none.jsonl"),
    ],
)
def test_wrong_input_is_one_line(docs, capsys, arguments, message):
    assert run(["read", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_a_budget_that_is_too_small_costs_nothing(docs, capsys):
    with EndpointServer(answer) as server:
        assert run(["read", "diary.txt", *ASK, "--endpoint", server.url, "--window", "400", "--budget-calls", "2"]) == 2
        assert not chats(server)
    assert "the budget is 2 calls" in capsys.readouterr().err


def test_an_endpoint_that_fails_leaves_the_ledger(docs, capsys):
    def failing(body):
        raise AssertionError("not today")

    with EndpointServer(failing) as server:
        options = ["--endpoint", server.url, "--window", "400", "--ledger", "ledger.json"]
        assert run(["read", "diary.txt", *ASK, *options]) != 0
    said = json.loads((docs / "ledger.json").read_text(encoding="utf-8"))
    assert said["answer"] == ""
    assert said["ledger"]["stopped"]
