"""The proof of exports: right ones pass at any length, wrong ones are found however little is wrong."""

import json
import re

import pytest

from longreach.checkpoints import _plain_logits
from longreach.checkpoints.checkpoint import save
from longreach.checkpoints.export import verify_export
from longreach.core.errors import CheckpointError
from tests.checkpoints.folders import byte_tokenizer, edit, tiny

pytestmark = pytest.mark.usefixtures("warm_reader")
SPELLINGS = ("rope_parameters", "rope_scaling")


def exported(folder, method="yarn:factor=8", window=256, family="llama"):
    model = tiny(family, hidden_size=64, max_position_embeddings=window)
    return save(model, byte_tokenizer(), folder, method=method, target=8 * window)


def change(folder, alter):
    """Alter the rotary settings of an export, in both spellings."""
    config = json.loads((folder / "config.json").read_text())
    for name in SPELLINGS:
        alter(config[name])
    edit(folder / "config.json", **{name: config[name] for name in SPELLINGS})


@pytest.mark.parametrize(
    ("method", "window"),
    [
        ("yarn:factor=8", 256),
        ("giraffe_power:power=0.5", 256),
        ("yarn:factor=8+resonance", 256),
        ("yarn:factor=8+resonance", 4096),  # at position 2047 the last bits of a frequency move the logits by a thousandth
        ("nope", 256),
    ],
)
def test_right_exports_pass(tmp_path, method, window):
    assert verify_export(exported(tmp_path / "out", method, window)) < 0.1


@pytest.mark.parametrize("method", ["yarn:factor=8", "llama3:factor=8", "ntk_by_parts:factor=8", "linear:factor=8", "ntk:factor=8"])
def test_rope_types_of_transformers_are_the_same_to_the_last_bit(tmp_path, method):
    assert verify_export(exported(tmp_path / "out", method)) == 0


def swapped(parameters):
    for name in ("short_factor", "long_factor"):
        parameters[name][2], parameters[name][3] = parameters[name][3], parameters[name][2]


@pytest.mark.parametrize(
    ("method", "alter", "what"),
    [
        ("yarn:factor=8", lambda rope: rope.update(factor=8.1), "inv_freq"),
        ("yarn:factor=8", lambda rope: rope.update(factor=8.00001), "inv_freq"),
        ("yarn:factor=8", lambda rope: rope.update(attention_factor=1.0), "attention_scaling"),
        ("yarn:factor=8,attention_factor=1.1", lambda rope: rope.pop("attention_factor"), "attention_scaling"),
        ("yarn:factor=8", lambda rope: rope.update(rope_type="linear", type="linear"), "inv_freq"),
        ("yarn:factor=8+resonance", swapped, "inv_freq"),
        ("yarn:factor=8+resonance", lambda rope: rope["long_factor"].__setitem__(0, 1.00001), "inv_freq"),
    ],
)
def test_wrong_exports_are_found(tmp_path, method, alter, what):
    folder = exported(tmp_path / "out", method)
    verify_export(folder)
    change(folder, alter)
    says = re.escape(f"{folder} differs in plain transformers: model.rotary_emb.{what} by ") + r".* of its value; do not use it"
    with pytest.raises(CheckpointError, match=says):
        verify_export(folder)


def test_a_base_that_is_not_the_methods_is_found(tmp_path):
    folder = exported(tmp_path / "out", "ntk:factor=8")
    config = json.loads((folder / "config.json").read_text())
    base = config["rope_theta"] * 1.000005
    edit(folder / "config.json", rope_theta=base, rope_parameters={**config["rope_parameters"], "rope_theta": base})
    with pytest.raises(CheckpointError, match=r"rotary_emb.inv_freq by .* of its value"):
        verify_export(folder)


def test_another_share_of_the_heads_is_found(tmp_path):
    folder = exported(tmp_path / "out", family="stablelm")
    config = json.loads((folder / "config.json").read_text())
    assert config["partial_rotary_factor"] == 0.5
    edit(folder / "config.json", partial_rotary_factor=0.25, rope_parameters={**config["rope_parameters"], "partial_rotary_factor": 0.25})
    with pytest.raises(CheckpointError, match=r"differs in plain transformers: its rotary embeddings are of other shapes; do not use it"):
        verify_export(folder)


def test_what_differs_with_equal_frequencies_is_found(tmp_path, monkeypatch):
    """As where plain transformers ran other weights: here one of ours is changed by a thousandth once it is loaded."""
    folder = exported(tmp_path / "out")
    load = _plain_logits.load

    def changed(*args, **options):
        model = load(*args, **options)
        model.model.norm.weight.data[5] *= 1.001
        return model

    monkeypatch.setattr("longreach.checkpoints.export._plain_logits.load", changed)
    with pytest.raises(CheckpointError, match=r"differs in plain transformers: logits by .*, more than .*; do not use it"):
        verify_export(folder)


def test_a_rope_type_that_transformers_lacks_is_told(tmp_path):
    folder = exported(tmp_path / "out")
    change(folder, lambda rope: rope.update(rope_type="ours", **({"type": "ours"} if "type" in rope else {})))
    with pytest.raises(CheckpointError, match=r"plain transformers cannot load .*ours"):
        verify_export(folder)
