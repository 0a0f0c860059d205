"""What a snapshot sees: anything that applying a method could leave behind."""

import pytest
from transformers import AttentionInterface

from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.models import tiny_model


def leave_attribute(model):
    model.lm_head.left_behind = 1


def leave_hook(model):
    model.base_model.register_forward_pre_hook(lambda module, args: None)


def leave_weight(model):
    model.lm_head.weight.data[0, 0] += 1


def leave_buffer(model):
    model.model.rotary_emb.inv_freq.mul_(2)


def leave_module(model):
    model.model.rotary_emb = tiny_model().model.rotary_emb


def leave_config(model):
    model.config.rope_parameters["rope_theta"] = 5.0


def leave_implementation(model):
    model.config._attn_implementation = "eager"


def leave_function(model):
    AttentionInterface.register("left_behind", leave_config)


def leave_class_attribute(model):
    type(model).left_behind = 1


@pytest.mark.parametrize(
    ("leave", "undo"),
    [
        (leave_attribute, None),
        (leave_hook, None),
        (leave_weight, None),
        (leave_buffer, None),
        (leave_module, None),
        (leave_config, None),
        (leave_implementation, None),
        (leave_function, lambda model: AttentionInterface._global_mapping.pop("left_behind")),
        (leave_class_attribute, lambda model: delattr(type(model), "left_behind")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_snapshot_sees_what_is_left_behind(leave, undo):
    model = tiny_model()
    before = snapshot(model)
    assert unchanged(before, snapshot(model), "nothing happened") > 100
    leave(model)
    try:
        with pytest.raises(AssertionError, match="1 things|2 things|3 things"):
            unchanged(before, snapshot(model), "something happened")
    finally:
        if undo is not None:
            undo(model)
