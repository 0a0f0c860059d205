"""A GGUF file in the place of a MODEL, as users give it."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from longreach.checkpoints.checkpoint import load
from longreach.checkpoints.gguf_header import MAGIC
from longreach.checkpoints.record import read_record
from longreach.cli.main import run
from tests.checkpoints.gguf_files import write_gguf
from tests.evaluation.samples import real_text

pytestmark = pytest.mark.usefixtures("no_bars")
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A folder to work in, with `tiny.gguf` and a text."""
    shutil.copy(made, tmp_path / "tiny.gguf")
    (tmp_path / "book.txt").write_text(real_text()[:30_000], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_doctor_examines_the_file(capsys):
    assert run(["doctor", "tiny.gguf"]) == 0
    out, err = capsys.readouterr()
    assert "tiny.gguf: llama, positions: rotary, window 128 tokens" in out
    assert "the file says" in out
    assert "config.json says" not in out
    assert "Cache: 0.4 MB for each 1024 tokens of a text (measured)." in out
    assert out.rstrip().endswith("No findings.")
    assert err == ""


def test_doctor_sees_the_scaling_of_the_file(folder, capsys):
    write_gguf(folder / "yarn.gguf", values=YARN)
    assert run(["doctor", "yarn.gguf", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    for found in (data["stated"]["all"], data["used"]["all"]["parameters"]):
        assert (found["rope_type"], found["factor"], found["original_max_position_embeddings"]) == ("yarn", 4.0, 32)
    written = {"context_length": 128, "rope.freq_base": 10_000.0, **YARN}
    assert {key: data["readers"]["llama.cpp"][key] for key in written} == written
    assert data["findings"] == []


def test_what_doctor_finds_is_said_of_the_file_and_not_to_be_fixed(folder, capsys):
    write_gguf(folder / "odd.gguf", values={**YARN, "rope.scaling.factor": 0.5})
    assert run(["doctor", "odd.gguf", "--no-load", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert "the file claims 128 tokens, and yarn stretches 32 by 0.5 to 16" in [finding["what"] for finding in findings]
    assert not any(finding["fixable"] for finding in findings)


def test_doctor_sees_the_file_without_its_weights(folder, capsys):
    assert run(["doctor", "tiny.gguf", "--no-load", "--dtype", "bfloat16", "--json"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    parameters = sum(parameter.numel() for parameter in load(folder / "tiny.gguf").model.parameters())
    assert (memory["measured"], memory["dtype"], memory["weights"]) == (False, "bfloat16", 2 * parameters)


def test_measure_names_the_rows_by_the_file(folder, capsys):
    assert run(["measure", "tiny.gguf", "--to", "128", "--tasks", "loss", "--text", "book.txt", "--windows", "2"]) == 0
    assert "tiny.gguf" in capsys.readouterr().out
    rows = [json.loads(line) for line in (folder / "longreach-results/rows/tiny.gguf.jsonl").read_text().splitlines()]
    assert {row["model"] for row in rows} == {"tiny.gguf"}


def test_generate_writes_what_the_saved_folder_writes(folder, capsys):
    model, tokenizer = load("tiny.gguf")
    model.save_pretrained("plain")
    tokenizer.save_pretrained("plain")
    written = []
    for name in ("tiny.gguf", "plain"):
        assert run(["generate", name, "--prompt", "the path", "--max-new-tokens", "8"]) == 0
        written.append(capsys.readouterr())
    assert written[0] == written[1]
    assert written[0].err == ""


def test_stretch_writes_a_plain_folder(folder, capsys):
    common = ["--to", "256", "--methods", "yarn", "--windows", "2", "--samples", "2", "--text", "book.txt"]
    assert run(["stretch", "tiny.gguf", *common, "--force", "--out", "longer"]) == 0
    capsys.readouterr()
    again = AutoModelForCausalLM.from_pretrained("longer")
    assert again.config.max_position_embeddings == read_record(folder / "longer").target == 256
    assert torch.equal(again.model.embed_tokens.weight, load("tiny.gguf").model.model.embed_tokens.weight)
    assert not list(folder.glob("longer/*.gguf"))


def test_what_is_wrong_is_one_line(folder, capsys):
    (folder / "cut.gguf").write_bytes((folder / "tiny.gguf").read_bytes()[:5000])
    (folder / "zip.gguf").write_bytes(b"PK" + bytes(30))
    (folder / "bare.gguf").write_bytes(MAGIC + bytes(30))
    for arguments, says in (
        (["measure", "cut.gguf"], "error: cut.gguf is truncated: "),
        (["doctor", "zip.gguf"], "error: zip.gguf is not a GGUF file: it does not begin with GGUF; fetch it again\n"),
        (["doctor", "bare.gguf"], "error: bare.gguf has version 0 of the GGUF format, and versions 2 and 3 are read; convert it anew\n"),
        (["doctor", "gone.gguf"], "error: no such file or folder: gone.gguf\n"),
        (["doctor", "tiny.gguf", "--fix", "out"], "error: --fix corrects the JSON files of a folder, and tiny.gguf is a GGUF file;"),
        (["measure", "tiny.gguf", "--revision", "v2"], "error: revision v2 has no effect on tiny.gguf, which is not on the hub\n"),
    ):
        assert run(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(says)
        assert err.count("\n") == 1
