import pytest

import longreach
from longreach.checkpoints.checkpoint import save
from longreach.core.errors import InputError
from longreach.diagnosis.base import Severity
from longreach.evaluation.rows import Row, Rows
from tests.checkpoints.folders import byte_tokenizer, edit, tiny, write_folder


def test_a_healthy_checkpoint(tmp_path):
    found = longreach.doctor(write_folder(tmp_path / "tiny"), load_weights=False)
    assert (found.patient.name, found.findings, found.usable, str(found)) == ("tiny", (), None, "No findings.")
    assert not found.plan.measured


def test_findings_are_told_with_their_remedies(tmp_path):
    edit(write_folder(tmp_path / "tiny") / "config.json", rope_parameters=None, rope_scaling={"type": "ntk", "factor": 4.0})
    found = longreach.doctor(tmp_path / "tiny", load_weights=False)
    assert found.findings[0].severity == Severity.ERROR
    assert str(found).startswith(f"error: {found.findings[0].what}. Remedy: {found.findings[0].remedy}.")


def test_what_was_measured_counts(tmp_path):
    row = {"task": "passkey", "model": "mine", "method": "", "version": "1"}
    Rows(tmp_path / "rows.jsonl").append(
        Row(**row, length=length, score=score, settings={"metric": "likelihood", "input": str(number)})
        for length, score in ((64, 1.0), (128, 0.3))
        for number in range(40)
    )
    found = longreach.doctor(write_folder(tmp_path / "tiny"), rows=tmp_path / "rows.jsonl", name="mine", load_weights=False)
    assert found.usable.by_retrieval == 64
    assert str(found).startswith("warning: measured, it can be used up to 64 tokens, and its window is 128.")


def test_rows_of_other_weights_do_not_count(tmp_path):
    write_folder(tmp_path / "one" / "tiny")
    other = tiny()
    other.model.norm.weight.data *= 2
    save(other, byte_tokenizer(), tmp_path / "other" / "tiny")
    model, tokenizer = longreach.load(tmp_path / "one" / "tiny")
    longreach.measure(model, tokenizer, to=128, tasks="loss", text="All the cats sat on a mat. " * 200, windows=2, rows=tmp_path / "rows")
    usable = [longreach.doctor(tmp_path / where / "tiny", rows=tmp_path / "rows").usable for where in ("one", "other")]
    assert usable[0].measured_to == 128
    assert usable[1] == "What was measured of tiny was measured on other weights, or in another dtype."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"batch_size": 0}, r"batch_size=0 must be at least 1"),
        ({"rows": "missing.jsonl"}, r"cannot read rows from missing.jsonl: no such file"),
        ({"checkpoint": 3}, r"give a folder, a GGUF file, a hub id or nano, not a int"),
    ],
)
def test_wrong_arguments(tmp_path, arguments, says):
    with pytest.raises(InputError, match=says):
        longreach.doctor(**{"checkpoint": write_folder(tmp_path / "tiny"), **arguments})
