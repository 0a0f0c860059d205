"""Checkpoints with a longer table of learned positions: normal ones, that plain transformers loads."""

import json

import pytest
import torch
from transformers import AutoConfig, GPT2LMHeadModel

from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.export import verify_export
from longreach.checkpoints.record import read_record
from longreach.core.errors import CheckpointError, InputError
from longreach.engine.apply import apply
from longreach.testing.models import tiny_learned
from tests.checkpoints.folders import VOCABULARY, byte_tokenizer

SPEC = "stretch_positions:factor=4,keep=8"
IDS = torch.arange(3, 103)[None]

pytestmark = pytest.mark.usefixtures("warm_reader")


def gpt2(**changes):
    return tiny_learned("gpt2", window=32, vocab_size=VOCABULARY, **changes)


@pytest.fixture
def folder(tmp_path):
    """A GPT-2 with 32 positions, as any other program would have saved it."""
    gpt2().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_longer_table_is_saved_as_a_normal_checkpoint(folder, tmp_path):
    model, tokenizer = load(folder)
    place = save(model, tokenizer, tmp_path / "out", method=SPEC)
    record, config = read_record(place), json.loads((place / "config.json").read_text())
    assert (record.method, record.exported, record.trained_window, record.target) == (SPEC, True, 32, 104)
    assert config["n_positions"] == 104
    assert json.loads((place / "tokenizer_config.json").read_text())["model_max_length"] == 104
    with torch.no_grad(), apply(model, SPEC):
        wanted = model(IDS).logits
    assert len(model.transformer.wpe.weight) == model.config.n_positions == 32, "the model itself is as it was"
    with torch.no_grad():
        assert torch.equal(GPT2LMHeadModel.from_pretrained(place).eval()(IDS).logits, wanted)
        assert torch.equal(load(place).model(IDS).logits, wanted)
    assert verify_export(place, model) <= 1e-4


def test_the_longer_checkpoint_is_kept_when_saved_again_and_can_be_lengthened_again(folder, tmp_path):
    save(*load(folder), tmp_path / "one", method=SPEC)
    longer = load(tmp_path / "one")
    save(*longer, tmp_path / "two")
    for file in ("config.json", "longreach.json", "model.safetensors", "tokenizer_config.json"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file
    save(*longer, tmp_path / "three", method="grouped_positions:factor=2")
    assert AutoConfig.from_pretrained(tmp_path / "three").max_position_embeddings == 208
    assert read_record(tmp_path / "three").trained_window == 104


@pytest.mark.parametrize("family", ["bert", "opt"])
def test_other_families_read_the_same_in_plain_transformers(family, tmp_path):
    model = tiny_learned(family, window=32, vocab_size=VOCABULARY)
    place = save(model, byte_tokenizer(), tmp_path / "out", method="interpolated_positions:factor=3", target=90)
    assert verify_export(place, model) <= 1e-4
    assert read_record(place).target == 90


def test_a_table_that_changed_on_the_way_is_noticed(folder, tmp_path):
    model, tokenizer = load(folder)
    place = save(model, tokenizer, tmp_path / "out", method=SPEC)
    model.transformer.wpe.weight.data[20] *= 2
    with pytest.raises(CheckpointError, match=r"differs in plain transformers: logits by .*; do not use it"):
        verify_export(place, model)
    with pytest.raises(CheckpointError, match="can only be checked beside the model that it was saved from"):
        verify_export(place)


def test_stored_precision_is_kept_where_it_loses_nothing(tmp_path):
    gpt2().to(torch.bfloat16).save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    model, tokenizer = load(tmp_path / "base")
    assert model.dtype == torch.float32
    for spec, dtype in (("recurrent_positions:factor=4", torch.bfloat16), ("interpolated_positions:factor=4", torch.float32)):
        place = save(model, tokenizer, tmp_path / spec.partition(":")[0], method=spec)
        assert AutoConfig.from_pretrained(place).dtype == dtype
        assert verify_export(place, model) <= 1e-4


@pytest.mark.parametrize("target", [31, 105])
def test_targets_are_checked(folder, tmp_path, target):
    with pytest.raises(InputError, match=rf"target={target} is not between the 32 positions of the model and the 104 under {SPEC}"):
        save(*load(folder), tmp_path / "out", method=SPEC, target=target)
    assert not (tmp_path / "out").exists()
