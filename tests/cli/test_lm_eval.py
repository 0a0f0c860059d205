import json

import pytest

pytest.importorskip("lm_eval", reason="needs the extra lm-eval")

import datasets
from lm_eval.tasks import TaskManager

from longreach.cli.main import run
from longreach.testing.models import tiny_model
from tests.evaluation.harness.made import tokens
from tests.evaluation.samples import VOCABULARY, real_text

CHOICES = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: capitals.jsonl}
test_split: train
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
NEEDLE = """
task: needle_400
class: !function longreach.evaluation.harness.tasks.HarnessTask
asks: needle:digits=3
length: 400
tokenizer: tiny
passages: 2
text: book.txt
"""
BROKEN = CHOICES.replace("capitals", "broken")
OWN = ("lm-eval", "tiny", "--include-path", "tasks", "--tasks")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny`, which reads 128 tokens, and tasks; the harness's own are not looked through."""
    tiny_model(vocab_size=VOCABULARY).save_pretrained(tmp_path / "tiny")
    tokens().save_pretrained(tmp_path / "tiny")
    (tmp_path / "tasks").mkdir()
    for name, text in (("capitals", CHOICES), ("needle", NEEDLE), ("broken", BROKEN)):
        (tmp_path / "tasks" / f"{name}.yaml").write_text(text)
    questions = [("The capital of France is", 0), ("The capital of Italy is", 1), ("The capital of Germany is", 2)]
    lines = [json.dumps({"question": text, "choices": ["Paris", "Rome", "Berlin"], "answer": answer}) for text, answer in questions]
    (tmp_path / "capitals.jsonl").write_text("\n".join(lines))
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)  # it takes seconds
    monkeypatch.setattr("longreach.evaluation.harness.run.TaskManager", lambda **given: TaskManager(**{**given, "include_defaults": False}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tasks_under_methods_for_programs(folder, capsys):
    assert run([*OWN, "capitals,needle_400", "--method", "stock yarn:factor=4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "tiny"
    stock, yarn = result["runs"]
    assert (stock["method"], yarn["method"]) == ("", "yarn:factor=4")
    assert stock["settings"]["weights"] == yarn["settings"]["weights"]
    for each in (stock, yarn):
        assert each["n"] == {"capitals": 3, "needle_400": 2}
        assert [(mark["task"], mark["metric"]) for mark in each["marks"]] == [
            ("capitals", "acc"),
            ("needle_400", "accuracy"),
            ("needle_400", "likelihood"),
        ]
        written = json.loads((folder / each["file"]).read_text())
        assert written["config"]["longreach"] == {key: each[key] for key in ("model", "method", "version", "settings")}
        assert written["config"]["model"] == "tiny"
        assert written["results"]["capitals"]["acc,none"] == each["marks"][0]["value"]
    assert {path.parent.name for path in (folder / "longreach-results/lm-eval/tiny").glob("*/results_*.json")} == {"stock", "yarn-factor=4"}


def test_a_table_for_people(capsys):
    assert run([*OWN, "capit*", "--limit", "2", "--out", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "tiny, tasks of lm-evaluation-harness" in shown
    assert "capitals" in shown
    assert "Results: mine/stock/results_" in shown


def test_a_file_is_a_task(capsys):
    assert run(["lm-eval", "tiny", "--tasks", "tasks/capitals.yaml", "--limit", "1", "--num-fewshot", "1"]) == 0
    assert "capitals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*OWN, ","], "no task is named"),
        ([*OWN, "capitols"], "the harness has no task 'capitols'; did you mean capitals?"),
        ([*OWN, "broken"], "the harness cannot load broken: FileNotFoundError: "),
        ([*OWN, "capitals", "--chat"], "no chat template"),
        ([*OWN, "needle_400", "--chat"], "set chat: true in the task"),
        ([*OWN, "capitals", "--method", "stock stock"], "one of them is named twice"),
        ([*OWN, "capitals", "--method", "yarn:factor=0"], "factor=0"),
        (["lm-eval", "tiny", "--tasks", "capitals", "--include-path", "none"], "no such folder: none"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, capsys):
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def test_what_the_harness_refuses_is_one_line(folder, capsys):
    (folder / "tasks/capitals.yaml").write_text(f"{CHOICES}unsafe_code: true\n")
    assert run([*OWN, "capitals"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the harness stopped: ValueError: Attempted to run task: capitals")
