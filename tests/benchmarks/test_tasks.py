"""The script that asks every task, and the page that is drawn from what it writes."""

import importlib
import json
import re
import sys
from pathlib import Path

from longreach.core import registry
from longreach.evaluation.text_task import TextTask
from longreach.reports.tasks_page import tasks_page
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, tokenizer

ROOT = Path(__file__).resolve().parents[2]


def script(monkeypatch, *given):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["tasks", *given])
    return importlib.import_module("tasks")


def test_methods_are_asked_beyond_the_window_and_all_of_it_is_drawn(tmp_path, monkeypatch):
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=512).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    more = ["--lengths", "400,800", "--method", "linear:factor=4", "--passages", "1", "--rows", str(tmp_path / "rows.jsonl")]
    tasks = script(monkeypatch, str(tmp_path / "tiny"), *more)
    chosen = tuple(task for task in tasks.text_tasks() if task.name() in ("passkey", "next_element", "best_answer"))
    monkeypatch.setattr(tasks, "text_tasks", lambda: chosen)
    monkeypatch.setattr(tasks, "FILES", tmp_path / "files")
    tasks.main()
    told = json.loads((tmp_path / "files" / "tiny.json").read_text(encoding="utf-8"))
    assert [(each["method"], each["length"]) for each in told["columns"]] == [("", 400), ("", 800), ("linear:factor=4", 800)]
    page = tasks_page(tmp_path / "files")
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE) == [
        (task, metric) for task in ("passkey", "next_element") for metric in ("accuracy", "likelihood")
    ]
    heads = ["tiny, 400 tokens, as it is", "tiny, 800 tokens, as it is", "tiny, 800 tokens, under `linear:factor=4`"]
    assert f"| task | marked by | chance | {' | '.join(heads)} |" in page
    marks = [mark for each in told["columns"] for mark in each["marks"] if (mark["task"], mark["metric"]) == ("passkey", "likelihood")]
    (line,) = re.findall(r"^\| `passkey` \| likelihood \| \S+ \| (.*) \|$", page, re.MULTILINE)
    shown = [f"{'' if mark['low'] > mark['chance'] else '~'}{mark['mean']:.2f}" for mark in marks]
    assert [cell.split(" ")[0] for cell in line.split(" | ")] == shown


def test_once_asks_longer_texts_only_what_shorter_ones_had_no_room_for(tmp_path, monkeypatch):
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=512).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    more = ["--lengths", "128,400", "--passages", "1", "--once", "--rows", str(tmp_path / "rows.jsonl")]
    tasks = script(monkeypatch, str(tmp_path / "tiny"), *more)
    chosen = tuple(task for task in tasks.text_tasks() if task.name() in ("number_string", "passkey"))
    monkeypatch.setattr(tasks, "text_tasks", lambda: chosen)
    monkeypatch.setattr(tasks, "FILES", tmp_path / "files")
    tasks.main()
    told = json.loads((tmp_path / "files" / "tiny.json").read_text(encoding="utf-8"))
    asked = [{mark["task"] for mark in each["marks"]} for each in told["columns"]]
    assert asked[0].isdisjoint(asked[1])
    assert set.union(*asked) == {"number_string", "passkey"}
    assert asked[1]


def test_every_task_is_asked_whose_passages_fill_a_length(monkeypatch):
    found = {task.name() for task in script(monkeypatch).text_tasks()}
    assert {"needle", "babi", "word_counts", "m4le", "multi_round"} <= found
    assert not {"leval", "infinitebench", "loss"} & found
    methods = [registry.module(name, "task").METHOD for name in found]
    assert all(issubclass(method, TextTask) for method in methods)


def test_what_cannot_be_told_from_guessing_is_marked(tmp_path):
    mark = {"task": "passkey", "metric": "likelihood", "mean": 0.5, "low": 0.2, "high": 0.8, "chance": 0.25, "n": 8, "passages": 4}
    sure = {**mark, "task": "needle", "low": 0.3}
    column = {"method": "", "length": 1024, "marks": [mark, sure]}
    told = {"model": "m", "passages": 4, "abilities": {"passkey": "literal", "needle": "literal"}, "columns": [column]}
    (tmp_path / "m.json").write_text(json.dumps(told))
    page = tasks_page(tmp_path)
    assert "| `needle` | likelihood | 0.25 | 0.50 (0.30 to 0.80) |\n| `passkey` | likelihood | 0.25 | ~0.50 (0.20 to 0.80) |" in page
    assert "`m` (4 passages a task and length) is above chance in 1 of 2 at 1,024 tokens, as it is." in page
