"""Models with learned positions: the table is lengthened first, then trained."""

import pytest
import torch

from longreach.checkpoints.checkpoint import load, save
from longreach.cli.main import run
from longreach.testing.models import tiny_learned
from tests.evaluation.samples import VOCABULARY, tokenizer

QUICK = ("--to", "128", "--data", "books", "--text", "held.txt", "--steps", "2", "--batch-size", "2")


@pytest.fixture
def folder(to_tune):
    """The model `gpt2` with 64 learned positions, books, and held-out text."""
    tiny_learned("gpt2", window=64, vocab_size=VOCABULARY).save_pretrained(to_tune / "gpt2")
    tokenizer().save_pretrained(to_tune / "gpt2")
    return to_tune


def table(folder):
    return load(folder).model.transformer.wpe.weight


def test_tune_lengthens_the_table_and_trains_its_rows(folder, capsys):
    assert run(["tune", "gpt2", "--method", "stretch_positions", "--out", "far", *QUICK, "--force"]) == 0
    out, err = capsys.readouterr()
    assert "with its longer table of positions, positions by pose" in out
    assert [line for line in err.splitlines() if line.startswith("loss inside")] == [
        f"loss inside the window {when} training ..." for when in ("before", "after")
    ]
    assert load("far").model.config.n_positions >= 128
    save(*load("gpt2"), "untrained", method="stretch_positions", target=128)
    assert (table("far") != table("untrained")).any(1)[64:].any()
    assert [path.name for path in folder.glob(".lengthened-*")] == []
    with torch.no_grad():
        load("far").model(torch.arange(3, 103)[None])


def test_a_checkpoint_with_a_longer_table_is_trained_as_it_is(folder, capsys):
    model, tokens = load("gpt2")
    save(model, tokens, "longer", method="interpolated_positions:factor=2", target=128)
    assert run(["tune", "longer", "--out", "far", *QUICK, "--force"]) == 0
    assert load("far").model.config.n_positions == 128
    capsys.readouterr()
    assert run(["tune", "longer", "--out", "far2", "--method", "yarn:factor=2", *QUICK]) == 2
    assert "the table of positions was lengthened already" in capsys.readouterr().err
    assert run(["tune", "longer", "--out", "far3", *QUICK, "--to", "256"]) == 2
    assert "the table has 128 positions, and 256 are asked for" in capsys.readouterr().err


def test_without_a_method_the_way_is_named(folder, capsys):
    assert run(["tune", "gpt2", "--out", "far", *QUICK]) == 2
    assert "for learned positions a method that lengthens their table" in capsys.readouterr().err
