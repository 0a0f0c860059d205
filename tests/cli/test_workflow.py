from pathlib import Path

import pytest

from longreach.cli._options import AS_IT_IS, Loading
from longreach.cli._workflow import AskedPlace, budget_of, chat_model, documents_of
from longreach.core.errors import InputError, LongreachError
from longreach.testing.endpoint_server import EndpointServer
from longreach.workflows.budget import RunBudget

NOWHERE = {"model": None, "endpoint": None, "served_model": None, "concurrency": None, "method": None, "window": None,
           "record": None, "replay": None, "timeout": None, "loading": AS_IT_IS}  # fmt: skip
CHAT = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "name a model, or an endpoint"),
        ({"model": "tiny", "endpoint": "http://x"}, "and only one of them"),
        ({"model": "tiny", "served_model": "a"}, "--served-model has no effect without --endpoint"),
        ({"model": "tiny", "concurrency": 2}, "--concurrency has no effect without --endpoint"),
        ({"endpoint": "http://x", "method": "yarn:factor=8"}, "--method has no effect with --endpoint"),
        ({"endpoint": "http://x", "loading": Loading(dtype="float32")}, "--dtype has no effect with --endpoint"),
        ({"model": "tiny", "window": "far"}, "far"),
        ({"model": "tiny", "replay": Path("calls.jsonl")}, "and only one of them"),
        ({"replay": Path("calls.jsonl"), "method": "yarn:factor=8"}, "--method has no effect with --replay"),
        ({"replay": Path("calls.jsonl"), "record": Path("more.jsonl")}, "--record has no effect with --replay"),
        ({"replay": Path("calls.jsonl"), "concurrency": 2}, "--concurrency has no effect with --replay"),
    ],
)
def test_what_cannot_be_meant_is_told_before_anything_is_loaded(given, message):
    with pytest.raises(LongreachError, match=message):
        AskedPlace(**(NOWHERE | given))


def test_a_model_in_this_process_is_asked_under_a_method(tiny_folder):
    with chat_model(AskedPlace(**(NOWHERE | {"model": "tiny", "method": "yarn:factor=2"}))) as model:
        assert model.name.endswith("under yarn:factor=2")
        assert model.window == 256
        assert model.chat(CHAT, most_tokens=4).completion_tokens <= 4


def test_a_window_beyond_the_models_own_is_told(tiny_folder, capsys):
    with chat_model(AskedPlace(**(NOWHERE | {"model": "tiny", "window": "200"}))) as model:
        assert model.window == 200
    assert "beyond the 128 that tiny is made for" in capsys.readouterr().err


def test_an_endpoint_is_asked():
    with EndpointServer() as server, chat_model(AskedPlace(**(NOWHERE | {"endpoint": server.url, "concurrency": 3}))) as model:
        assert model.concurrency == 3
        assert model.chat(CHAT, most_tokens=8).text


def test_documents_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.txt").write_text(f"\ufeffof {folder}", encoding="utf-8")
    (tmp_path / "two.txt").write_text("two", encoding="utf-8")
    found = documents_of(["a/one.txt", "b/one.txt", "two.txt"])
    assert [(document.name, document.text) for document in found] == [("a/one.txt", "of a"), ("b/one.txt", "of b"), ("two.txt", "two")]


@pytest.mark.parametrize(
    ("files", "message"),
    [(["none.txt"], "cannot read none.txt"), (["latin.txt"], "latin.txt is not UTF-8"), (["blank.txt"], "empty"), (["x", "x"], "twice")],
)
def test_documents_that_cannot_be_read_are_named(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "blank.txt").write_text(" \n")
    with pytest.raises(InputError, match=message):
        documents_of(files)


def test_a_budget_reads_lengths():
    assert budget_of(3, "2k") == RunBudget(calls=3, tokens=2048)
    assert budget_of(None, None) == RunBudget()
