"""Several workers ask what one would ask, once, into one file of rows."""

import pickle

import pytest

import longreach
from longreach.core.errors import InputError
from longreach.evaluation.rows import Rows
from longreach.evaluation.spreading import Workers, _by_processes, spread, take_share
from longreach.testing.models import tiny_model
from longreach.workflows.base import reading_workflow
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer
from tests.evaluation.sharing import refuse

OPTIONS = {"tasks": "needle,passkey", "lengths": "400", "passages": 5, "text": real_text(), "name": "tiny"}
METHODS = ("", "yarn:factor=4")


@pytest.fixture
def load(tmp_path):
    tiny_model(vocab_size=VOCABULARY).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    return {"name": str(tmp_path / "tiny")}


def alone(load, options=OPTIONS):
    loaded, rows = longreach.load(**load), Rows()
    for method in METHODS:
        longreach.evaluate(*loaded, method=method, rows=rows, **options)
    return {row.identity: row.score for row in rows}


def test_shares_make_the_whole_and_do_not_overlap(load, tmp_path):
    counts = [take_share(load, OPTIONS, METHODS, str(tmp_path / f"{share}.jsonl"), (share, 3)) for share in range(3)]
    parts = [{row.identity: row.score for row in Rows(tmp_path / f"{share}.jsonl")} for share in range(3)]
    assert counts == [len(part) for part in parts] == [16, 16, 8]
    assert {key: score for part in parts for key, score in part.items()} == alone(load)
    assert sum(map(len, parts)) == len(alone(load))


@pytest.mark.filterwarnings("ignore:a window of 256 tokens goes beyond")
def test_questions_that_a_workflow_answers_are_shared_out_too(load, tmp_path):
    by_rag = OPTIONS | {"tasks": "needle", "passages": 3, "workflow": reading_workflow("rag"), "window": 256}
    options = pickle.loads(pickle.dumps(by_rag))  # as they come to another process
    for share in range(2):
        take_share(load, options, METHODS, str(tmp_path / "rows.jsonl"), (share, 2))
    found = {row.identity: row.score for row in Rows(tmp_path / "rows.jsonl")}
    assert len(found) == 3 * len(METHODS)
    assert found == alone(load, by_rag)


def test_processes_append_to_one_file_and_go_on(load, tmp_path):
    path = tmp_path / "rows.jsonl"
    take_share(load, OPTIONS, METHODS, str(path), (0, 5))
    spread(Workers(count=2), load, OPTIONS, METHODS, path)
    found = {row.identity: row.score for row in Rows(path)}
    assert found == alone(load)
    assert len(path.read_text().splitlines()) == len(found), "nothing is asked twice"


def test_what_a_worker_raises_arrives():
    with pytest.raises(ValueError, match="share 1 failed"):
        _by_processes(refuse, [(0,), (1,)])


@pytest.mark.parametrize(("text", "wanted"), [("4", Workers(count=4)), ("ray:2", Workers(count=2, ray=True))])
def test_how_many(text, wanted):
    assert Workers.parse(text) == wanted


@pytest.mark.parametrize("text", ["0", "-1", "two", "ray:", "ray:0", "4.5"])
def test_what_is_no_number_of_workers_is_refused(text):
    with pytest.raises(InputError, match="write a number of processes, as 4, or ray:4"):
        Workers.parse(text)


def test_ray_asks_the_same(load, tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    spread(Workers(count=2, ray=True), load, OPTIONS, METHODS, tmp_path / "rows.jsonl")
    assert {row.identity: row.score for row in Rows(tmp_path / "rows.jsonl")} == alone(load)
