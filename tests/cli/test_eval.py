import json

import pytest

from longreach.cli.main import run
from longreach.testing.endpoint_server import EndpointServer, Fault
from longreach.testing.models import tiny_learned
from tests.evaluation.samples import VOCABULARY

QUICK = ("--tasks", "needle,passkey:digits=3", "--lengths", "256:512", "--limit", "2", "--text", "book.txt")


@pytest.fixture(autouse=True)
def folder(tiny_folder):
    """A folder to work in, with the model `tiny` (trained window 128) and the text book.txt."""
    return tiny_folder


def test_marks_for_programs_and_rows_for_the_next_run(folder, capsys):
    command = ["eval", "tiny", *QUICK, "--method", "stock yarn:factor=4", "--json"]
    assert run(command) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["model"], result["unit"], result["impossible"]) == ("tiny", "tokens", {})
    cells = {(mark["task"], mark["metric"], mark["method"], mark["length"], mark["n"]) for mark in result["marks"]}
    assert cells == {
        (task, metric, method, length, 2)
        for task in ("needle", "passkey:digits=3")
        for metric in ("accuracy", "likelihood")
        for method in ("", "yarn:factor=4")
        for length in (256, 512)
    }
    path = folder / "longreach-results/rows/tiny.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 2 * 2 * 2 * 2 * 2
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert path.read_text().splitlines() == lines


def test_a_table_for_people(capsys):
    assert run(["eval", "tiny", "--tasks", "passkey", "--lengths", "200,2000", "--unit", "characters", "--limit", "1"]) == 0
    shown = capsys.readouterr().out
    assert "tiny, lengths in characters" in shown
    assert "passkey" in shown
    assert "passkey needs a length of " in shown  # 200 characters are too few
    assert "Rows: longreach-results/rows/tiny.jsonl" in shown


def test_a_budget_ends_the_run_and_the_next_one_goes_on(folder, capsys, monkeypatch):
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("longreach.evaluation.time_limit.TimeLimit.fits", lambda limit, task, length: length < 512)
        assert run(["eval", "tiny", *QUICK, "--budget", "20m"]) == 0
    assert "Passages that there was no time for: 4 of 512. Run the command again to go on." in capsys.readouterr().out
    rows = folder / "longreach-results/rows/tiny.jsonl"
    first = rows.read_text()
    assert run(["eval", "tiny", *QUICK]) == 0
    assert rows.read_text().startswith(first)
    assert len(rows.read_text().splitlines()) == 2 * len(first.splitlines())


def test_a_workflow_is_measured_by_the_same_tasks_and_rows(folder, capsys):
    command = ["eval", "tiny", *QUICK, "--workflow", "rag:passages=1", "--window", "200", "--more-tokens", "4"]
    assert run([*command, "--json"]) == 0
    told = capsys.readouterr()
    result = json.loads(told.out)
    assert (result["model"], result["workflow"]) == ("tiny", "rag:passages=1")
    assert {(mark["metric"], mark["n"]) for mark in result["marks"]} == {("accuracy", 2)}
    assert "warning: a window of 200 tokens goes beyond the 128" in told.err
    rows = [json.loads(line) for line in (folder / "longreach-results/rows/tiny.jsonl").read_text().splitlines()]
    assert {(row["settings"]["workflow"], row["settings"]["window"], row["settings"]["more_tokens"]) for row in rows} == {
        ("rag:passages=1", 200, 4)
    }
    assert run(command) == 0
    assert "tiny, read by rag:passages=1, lengths in tokens" in capsys.readouterr().out
    assert len((folder / "longreach-results/rows/tiny.jsonl").read_text().splitlines()) == len(rows)


def test_a_workflow_reads_through_an_endpoint(folder, capsys):
    with EndpointServer(lambda body: "NOTHING") as server:
        options = [
            "--endpoint",
            server.url,
            "--unit",
            "characters",
            "--workflow",
            "map_reduce",
            "--window",
            "400",
            "--record",
            "calls.jsonl",
        ]
        asked = ["eval", "--tasks", "passkey", "--lengths", "6000", "--limit", "1", *options, "--json"]
        assert run(asked) == 0
        assert sum(post.path.endswith("/chat/completions") for post in server.posts) > 3
    result = json.loads(capsys.readouterr().out)
    assert [(mark["metric"], mark["interval"][0]) for mark in result["marks"]] == [("accuracy", 0.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "needle"], "Missing option '--lengths'"),
        (["--tasks", "nedle", "--lengths", "256"], "nedle"),
        (["--tasks", "loss", "--lengths", "256"], "loss asks nothing in plain text; `longreach measure MODEL --tasks loss` measures it"),
        (["--tasks", "yarn:factor=2", "--lengths", "256"], "yarn"),
        (["--tasks", "needle", "--lengths", "4k:1k"], "they go from the least to the greatest"),
        (["--tasks", "needle", "--lengths", "256", "--method", "yarn:factor=0"], "factor=0"),
        (["--tasks", "needle", "--lengths", "256", "--method", "stock;stock"], "named twice"),
        (["--tasks", "passkey", "--lengths", "256", "--text", "book.txt"], "--text has no effect on passkey"),
        (["--tasks", "needle", "--lengths", "256", "--text", "none.txt"], "none.txt"),
        (["--tasks", "needle", "--lengths", "256", "--template", "chat"], "no chat template"),
        (["--tasks", "needle", "--lengths", "1M", "--text", "book.txt"], "give more text (--text), or choose shorter lengths"),
        (["--tasks", "needle", "--lengths", "256", "--budget", "9m", "--workers", "2"], "--budget and --workers exclude each other"),
        (["--tasks", "needle", "--lengths", "20"], "needle needs a length of"),
        (["--tasks", "needle", "--lengths", "256", "--truncate", "left"], "--truncate has no effect on needle"),
        (["--tasks", "needle", "--lengths", "256", "--judge", "http://localhost:1"], "--judge has no effect on needle"),
        (["--tasks", "leval", "--lengths", "2k", "--judge-model", "j"], "--judge-model has no effect without --judge"),
        (["--tasks", "leval:file=missing", "--lengths", "2k"], "missing is no JSON Lines file"),
        (["--tasks", "leval", "--lengths", "700"], "(--truncate)"),
        (["--tasks", "needle", "--lengths", "256", "--window", "200"], "--window has no effect without --workflow"),
        (["--tasks", "needle", "--lengths", "256", "--more-tokens", "9"], "--more-tokens has no effect without --endpoint or --workflow"),
        (["--tasks", "needle", "--lengths", "256", "--workflow", "rga"], "unknown workflow 'rga'; did you mean rag"),
        (["--tasks", "needle", "--lengths", "256", "--workflow", "plan_write"], "unknown workflow 'plan_write'"),
        (["--tasks", "needle", "--lengths", "256", "--workflow", "rag", "--template", "none"], "--template has no effect with --workflow"),
        (["--tasks", "needle", "--lengths", "256", "--workflow", "rag", "--window", "far"], "far"),
        (["--tasks", "needle", "--lengths", "256", "--workflow", "rag", "--window", "10"], "window=10 must be at least 64 tokens"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, capsys):
    assert run(["eval", "tiny", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]


def test_beyond_a_table_of_positions(folder, capsys):
    tiny_learned("gpt2", vocab_size=VOCABULARY).save_pretrained(folder / "tiny")
    assert run(["eval", "tiny", *QUICK]) == 2
    assert "cannot read beyond 128 tokens" in capsys.readouterr().err


# --- endpoints


def reader(body):
    """Reads the number of the city that is asked for."""
    prompt = body["messages"][-1]["content"]
    city = prompt.rsplit("number for ", 1)[1].split()[0]
    return prompt.split(f"numbers for {city} is: ")[1][:5]


REMOTE = ("eval", "--tasks", "needle", "--lengths", "1000", "--limit", "2", "--text", "book.txt")


def test_an_endpoint_is_asked(folder, capsys):
    with EndpointServer(reader) as server:
        assert run([*REMOTE, "--endpoint", server.url, "--unit", "characters", "--record", "calls.jsonl", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [(mark["interval"][0], mark["n"], mark["metric"]) for mark in found["marks"]] == [(1.0, 2, "accuracy")]
        asked = len(server.posts)
        (folder / found["rows_file"]).unlink()
        assert run([*REMOTE, "--endpoint", server.url, "--unit", "characters", "--record", "calls.jsonl", "--json"]) == 0
        assert len(server.posts) == asked, "what was recorded is not asked again"
        assert run([*REMOTE, "--endpoint", server.url, "--tokenizer", "tiny", "--served-model", "stub"]) == 0
    assert "stub, lengths in tokens" in capsys.readouterr().out


def test_failures_are_told(capsys):
    with EndpointServer(reader, faults={0: Fault.error(400, "no such thing")}) as server:
        assert run([*REMOTE, "--endpoint", server.url, "--unit", "characters"]) == 0
    shown = capsys.readouterr().out
    assert "1 question got no answer" in shown
    assert "no such thing" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a MODEL, or an endpoint with --endpoint URL"),
        (["tiny", "--endpoint", "http://127.0.0.1:9"], "and not both"),
        (["--endpoint", "http://127.0.0.1:9"], "lengths in tokens need --tokenizer NAME"),
        (["--endpoint", "http://127.0.0.1:9", "--unit", "characters", "--tokenizer", "tiny"], "--tokenizer has no effect with --unit"),
        (
            ["--endpoint", "http://127.0.0.1:9", "--unit", "characters", "--method", "yarn:factor=2"],
            "--method has no effect with --endpoint",
        ),
        (["--endpoint", "http://127.0.0.1:9", "--unit", "characters", "--dtype", "float32"], "--dtype has no effect with --endpoint"),
        (["--endpoint", "http://127.0.0.1:9", "--tokenizer", "none"], "none"),
        (["--endpoint", "ftp://here", "--unit", "characters"], "ftp://here"),
        (["tiny", "--more-tokens", "5"], "--more-tokens has no effect without --endpoint"),
        (["tiny", "--record", "calls.jsonl"], "--record has no effect without --endpoint"),
        (["--endpoint", "http://127.0.0.1:9", "--unit", "characters", "--workers", "2"], "--workers has no effect with --endpoint"),
        (["tiny", "--workers", "two"], "write a number of processes, as 4"),
    ],
)
def test_what_an_endpoint_does_not_take_is_one_line(arguments, message, capsys):
    assert run([*REMOTE, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_endpoint_that_is_down_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("longreach.endpoint.client.backoff", lambda attempts, chance: 0.0)
    assert run([*REMOTE, "--endpoint", "http://127.0.0.1:9", "--unit", "characters", "--served-model", "m"]) == 2
    assert "cannot be reached" in capsys.readouterr().err.splitlines()[-1]


def test_texts_of_a_file_are_cut_and_a_judge_marks_them(folder, capsys):
    document = {"input": "A long report. " * 300, "evaluation": "LLM", "instructions": ["Sum it up."], "outputs": ["It is long."]}
    (folder / "reports.jsonl").write_text(json.dumps(document))
    with EndpointServer(lambda body: "Says all.\nGrade: 5") as server:
        command = [
            "eval", "tiny", "--tasks", "leval:file=reports.jsonl,evaluated=judged", "--lengths", "900", "--truncate", "middle", "--judge",
            server.url,
        ]  # fmt: skip
        assert run(command) == 0
        shown = capsys.readouterr().out
        asked = len(server.received)
        assert run([*command, "--json"]) == 0
        assert len(server.received) < asked + 2  # which model it serves is asked again, and nothing else
    marks = {mark["metric"]: mark["interval"][0] for mark in json.loads(capsys.readouterr().out)["marks"]}
    assert set(marks) == {"reports/rouge_l", "reports/rouge_1", "reports/rouge_2", "reports/judge"}
    assert marks["reports/judge"] == 1.0
    assert "1 text was cut, by " in shown
