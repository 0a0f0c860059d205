import math

import pytest
import torch
from transformers import GPT2Config

from longreach.core.errors import UnsupportedError
from longreach.engine.rope_config import rope_of, scaled_before, with_rope
from longreach.positions.scaling.linear import Linear
from longreach.positions.scaling.yarn import Yarn
from longreach.testing.models import random_ids, tiny_model
from tests.checkpoints.folders import tiny


def test_the_rope_of_configs():
    assert rope_of(tiny("llama").config).dim == 8
    assert rope_of(tiny("phi3").config).dim == 4
    nested = tiny_model("gemma3").config
    assert rope_of(nested).theta == nested.rope_parameters["full_attention"]["rope_theta"]
    assert rope_of(nested, "sliding_attention").theta == nested.rope_parameters["sliding_attention"]["rope_theta"]
    config = tiny("llama").config
    config.head_dim = None
    assert rope_of(config).dim == 8


def test_partial_rotary_factors_are_kept():
    config = tiny("phi3").config
    assert with_rope(config, Linear(factor=4)) == {**config.rope_parameters, "rope_type": "linear", "factor": 4}
    assert config.rope_parameters["rope_type"] == "default"


@pytest.mark.parametrize(
    ("family", "windows", "factor", "says"),
    [
        ("llama", (128, 128), 1.0, None),
        ("llama_yarn", (128, 32), 0.1 * math.log(4) + 1, "yarn, factor 4"),
        ("llama_llama3", (128, 32), 1.0, "llama3, factor 8"),
        ("llama_linear", (128, 128), 1.0, "linear, factor 4"),
        ("llama_longrope", (128, 32), math.sqrt(1 + math.log(4) / math.log(32)), "longrope, factor 4"),
        ("llama_dynamic", (128, 128), 1.0, None),
    ],
)
def test_the_rope_of_scaled_checkpoints_is_what_they_turn_by(family, windows, factor, says):
    model = tiny_model(family)
    rope = rope_of(model.config)
    assert (rope.trained_window, rope.original_window) == windows
    assert rope.attention_factor == model.model.rotary_emb.attention_scaling == pytest.approx(factor, rel=1e-12)
    model(random_ids(1, 128), use_cache=False)  # as long as the window
    assert torch.equal(rope.inv_freq(), model.model.rotary_emb.inv_freq)
    model(random_ids(1, 32), use_cache=False)
    assert torch.equal(rope.own(32)[0], model.model.rotary_emb.inv_freq)
    assert torch.equal(rope.own(33)[0], rope.inv_freq())
    assert scaled_before(model.config) == says


def test_rope_types_without_a_known_meaning_are_refused():
    config = tiny_model().config
    config.rope_parameters = {"rope_type": "proportional", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    with pytest.raises(UnsupportedError, match="scaled by the rope type proportional, on which no method can build; choose an attention"):
        rope_of(config)


def test_no_setting_of_the_scaling_before_is_left_behind():
    config = tiny_model("llama_yarn", rope_parameters={**tiny_model("llama_yarn").config.rope_parameters, "attention_factor": 1.5}).config
    written = with_rope(config, Linear(factor=2))
    assert set(written) == {
        "rope_type", "rope_theta", "short_factor", "long_factor", "attention_factor", "original_max_position_embeddings",
    }  # fmt: skip
    assert written["attention_factor"] == 1.5


def test_models_without_rope_are_refused():
    says = "yarn:factor=2 cannot be used with gpt2: it has no rotary position embedding; choose a model that has one"
    with pytest.raises(UnsupportedError, match=says):
        with_rope(GPT2Config(), Yarn(factor=2))
