import longreach
from longreach.diagnosis.base import Severity
from longreach.evaluation.rows import Row, Rows
from tests.checkpoints.folders import edit, write_folder


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
        for length, score in ((64, 1.0), (128, 0.5))
        for number in range(40)
    )
    found = longreach.doctor(write_folder(tmp_path / "tiny"), rows=tmp_path / "rows.jsonl", name="mine", load_weights=False)
    assert found.usable.by_retrieval == 64
    assert str(found).startswith("warning: measured, it can be used up to 64 tokens, and its window is 128.")
