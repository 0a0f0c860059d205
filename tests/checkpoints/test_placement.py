from importlib.util import find_spec

import pytest
import torch

from longreach.checkpoints import choices
from longreach.checkpoints.checkpoint import load
from longreach.core.errors import InputError
from tests.checkpoints.folders import logits, tiny


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"device_map": "left"}, r"unknown device map 'left'; choose auto, balanced"),
        ({"device_map": "auto", "device": "cpu"}, r"a device and a device map exclude each other"),
    ],
)
def test_what_cannot_be(folder, arguments, says):
    with pytest.raises(InputError, match=says):
        load(folder, **arguments)


def test_a_device_map_places_the_same_model(folder):
    assert torch.equal(logits(load(folder, device_map="auto", dtype="float32").model.cpu()), logits(tiny()))


def test_four_bits_need_a_library_and_take_no_adapter(folder, monkeypatch):
    monkeypatch.setattr(choices, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs bitsandbytes; pip install 'longreach\[4bit\]'"):
        load(folder, load_in_4bit=True)
    monkeypatch.setattr(choices, "find_spec", lambda name: "there")
    with pytest.raises(InputError, match=r"an adapter cannot be merged into 4-bit weights without loss"):
        load(folder, load_in_4bit=True, adapter=folder)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes (the extra 4bit)")
def test_four_bits_come_near_the_model():
    plain, small = load("nano").model, load("nano", load_in_4bit=True).model
    assert type(small.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    wanted, found = (logits(model).flatten().float() for model in (plain, small))
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.95
