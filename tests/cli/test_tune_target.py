import json
from dataclasses import asdict
from pathlib import Path

import pytest

from longreach.checkpoints.checkpoint import Checkpoint
from longreach.cli import _target, _tuning
from longreach.cli import tune as verb
from longreach.cli._options import Loading
from longreach.cli._target import TargetLoss, planned, result, words
from longreach.cli.main import run
from longreach.core.progress import SILENT
from longreach.testing.models import tiny_learned, tiny_model
from longreach.training import tune as tuning
from longreach.training.gate import Gate
from longreach.training.plan import TuneConfig, plan
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

QUICK = ("--to", "256", "--data", "books", "--out", "far", "--text", "held.txt", "--steps", "1", "--batch-size", "1", "--rank", "2")
PHASES = [
    "reading books ...",
    "loading the libraries ...",
    "loading tiny ...",
    "tokenizing ...",
    "loss inside the window before training ...",
    "loss at 256 tokens before training ...",
    "loss inside the window under yarn:factor=4, untrained ...",
    "loss at 256 tokens under yarn:factor=4, untrained ...",
    "tuning ...",
    "loss inside the window after training ...",
    "loss at 256 tokens after training ...",
    "saving far ...",
]


@pytest.mark.usefixtures("to_tune")
def test_what_was_gained_is_what_measure_shows(capsys):
    assert run(["tune", "tiny", *QUICK]) == 0
    out, err = capsys.readouterr()
    assert [line for line in err.splitlines() if line.endswith(" ...")] == PHASES
    lines = out.splitlines()
    assert lines[3].startswith("Loss at tokens 129 to 256 of 4 texts, in nats a token: ")
    assert lines[4].startswith("Beside the loss of the same tokens read inside the window, it is ")
    assert lines[6] == "To measure the target in full: longreach measure far --to 256 --text held.txt"
    assert run(["tune", "tiny", *QUICK, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "before" not in err, "what is known is not measured again"
    found = json.loads(out)
    loss = found["target_loss"]
    assert (loss["length"], loss["start"], loss["texts"], found["not_measured"]) == (256, 128, 4, None)
    assert loss["gained"]["mean"] == pytest.approx(loss["untrained"]["loss"] - loss["after"]["loss"])
    assert f"{loss['before']['loss']:.3f} before, {loss['untrained']['loss']:.3f} under yarn:factor=4 untrained, " in lines[3]
    assert f"{loss['after']['loss']:.3f} after training, which " in lines[3]
    command = found["measure"].split()[1:]
    assert run([*command, "--tasks", "loss+loss_inside:window_size=64", "--windows", "4", "--json"]) == 0
    rows = {row["task"]: row["score"] for row in json.loads(capsys.readouterr().out)["rows"] if row["length"] == 256}
    assert loss["after"]["loss"] == pytest.approx(rows["loss"], abs=1e-4)
    assert loss["after"]["over_inside"]["mean"] == pytest.approx(rows["loss"] - rows["loss_inside:window_size=64"], abs=1e-4)


@pytest.mark.usefixtures("to_tune")
def test_what_is_not_wanted_is_left_out(capsys):
    assert run(["tune", "tiny", *QUICK, "--no-measure"]) == 0
    out, err = capsys.readouterr()
    assert "loss at 256" not in err
    command = "longreach measure far --to 256 --text held.txt"
    assert f"The target was not measured (--no-measure); to do so: {command}\n" in out
    assert "Loss at tokens" not in out


def test_what_takes_long_or_has_no_text_is_left_out(monkeypatch):
    loaded = Checkpoint(tiny_model(vocab_size=VOCABULARY, max_position_embeddings=64), tokenizer())

    def look(steps, text):
        config = TuneConfig(target=256, steps=steps)
        found = planned(loaded, plan(loaded.model, config), config, text, SILENT)
        return found if isinstance(found, str) else found.texts

    text = real_text()[:10_000]
    assert look(1, text) == 4
    assert look(1, text[:1500]) == 2
    assert look(1, text[:500]) == "the held-out text has no room for 2 texts of 256 tokens"
    monkeypatch.setattr(_target, "_QUICK", 0)
    # Three looks at 4 texts, of 3 * 256 tokens each, beside 3 times 16 * 64 tokens a step, of which they may take a tenth.
    assert [look(steps, text) for steps in (10, 22, 44)] == ["it would take more than a tenth of the training's time", 2, 4]


def test_the_command_has_what_the_model_needs(tmp_path):
    texts = [tmp_path / "one.txt", tmp_path / "a b.txt"]
    assert verb._command(tmp_path / "far", "32k", texts, Loading(device="cuda:1", trust_remote_code=True)) == (
        f"longreach measure {tmp_path}/far --to 32k --text {tmp_path}/one.txt --text '{tmp_path}/a b.txt' "
        "--device cuda:1 --trust-remote-code"
    )


def look(*losses, inside=2.0):
    return {"start": 128, "losses": list(losses), "inside": [inside] * len(losses)}


def test_the_sentences_say_what_can_be_told():
    target = TargetLoss(tokenizer(), 256, 64, "", 4, SILENT)
    before, untrained = look(4.0, 4.1, 4.0, 4.1), look(3.0, 3.1, 3.0, 3.1)
    gained = words(result(target, {"before": before, "untrained": untrained, "after": look(2.5, 2.62, 2.5, 2.62)}), "yarn:factor=4")
    assert gained[0] == (
        "Loss at tokens 129 to 256 of 4 texts, in nats a token: 4.050 before, 3.050 under yarn:factor=4 untrained, 2.560 after training, "
        "which gained 0.490 ± 0.018."
    )
    assert gained[1].endswith("it is 0.560 ± 0.110 higher after training, 2.050 ± 0.092 higher before.")
    lost = words(result(target, {"before": before, "untrained": untrained, "after": look(3.5, 3.62, 3.5, 3.62)}), "yarn:factor=4")
    assert lost[0].endswith("which lost 0.510 ± 0.018.")
    neither = words(result(target, {"before": before, "untrained": untrained, "after": look(3.0, 3.0, 3.1, 3.12)}), "yarn:factor=4")
    assert neither[0].endswith("which changed it by +0.005 ± 0.131: 4 texts cannot tell that from nothing.")
    alone = words(result(target, {"before": before, "untrained": before, "after": look(3.5, 3.62, 3.5, 3.62)}), "")
    assert ": 4.050 before, 3.560 after training, which gained 0.490 ± 0.018." in alone[0]
    near = words(result(target, {"before": before, "untrained": untrained, "after": look(1.5, 1.6, 1.5, 1.6)}), "yarn:factor=4")
    assert "it is 0.450 ± 0.092 lower after training" in near[1]


def test_what_cannot_be_measured_is_said_and_stops_nothing():
    short = tiny_learned("gpt2", vocab_size=VOCABULARY)
    target = TargetLoss(tokenizer(), 256, 64, real_text(), 2, SILENT)
    failed = target(short, "before training")
    assert failed == {"failed": "the model cannot read beyond 128 tokens: its table of positions ends there"}
    found = result(target, {"before": failed, "untrained": look(3.0, 3.1), "after": look(2.5, 2.6)})
    first, second = words(found, "yarn:factor=4")
    assert "not known before (the model cannot read beyond 128 tokens: its table of positions ends there), 3.050 under" in first
    assert second.endswith("higher after training.")
    found = result(target, {"before": look(4.0, 4.1), "untrained": look(3.0, 3.1), "after": failed})
    assert words(found, "yarn:factor=4") == [f"The loss at 256 tokens was not measured: {failed['failed']}."]


@pytest.mark.parametrize(
    ("untrained", "after", "advice"),
    [
        (
            2.764,
            2.740,
            "yarn:factor=8 alone had raised the loss to 2.764, and 20 steps have brought it down to 2.740: train for more steps.",
        ),
        (
            2.6,
            2.740,
            "Training raised the loss (under yarn:factor=8 alone it is 2.600): try a smaller --lr, or more of short in tune's --mix.",
        ),
        (2.764, float("nan"), "Training raised the loss (under yarn:factor=8 alone it is 2.764): try a smaller --lr, or more of short in "),
    ],
)
def test_advice_hangs_on_what_raised_the_loss(untrained, after, advice):
    gate = Gate(before=2.658, untrained=untrained, after=after)
    loss = {**asdict(gate), "rise": gate.rise, "falling": gate.falling}
    rest = {"data": "", "trained_parameters": 1, "tokens": 1, "sampler": "pose", "seq_len": 512, "resumed_at": 0, "extended": gate.passed}
    last = _tuning.words({"method": "yarn:factor=8", "steps": 20, "short_loss": loss, **rest})[-1]
    assert last.startswith(f"The model lost too much at short lengths to be called extended. {advice}")


@pytest.mark.usefixtures("to_tune")
def test_a_stopped_run_says_what_is_kept(capsys, monkeypatch):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "tune", stopped)
    command = ["tune", "tiny", *QUICK, "--no-measure", "--steps", "100"]
    assert run(command) == 130
    told = "Nothing trained is kept yet: that is done every 2 minutes and at the end. The same command begins the training anew.\nstopped\n"
    assert capsys.readouterr().err.endswith(told)
    for step in (20, 100):
        checkpoint = Path("far-run", f"checkpoint-{step}")
        checkpoint.mkdir(parents=True)
        (checkpoint / "whole").touch()
    assert run(command) == 130
    assert capsys.readouterr().err.endswith("Step 100 of 100 is kept in far-run; the same command goes on from there.\nstopped\n")
