import pytest
from transformers import GPT2Config

from longreach.core.errors import UnsupportedError
from longreach.engine.rope_config import rope_of, with_rope
from longreach.positions.scaling.linear import Linear
from longreach.positions.scaling.yarn import Yarn
from longreach.testing.models import tiny_model
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


@pytest.mark.parametrize(("family", "says"), [("llama_yarn", r"yarn, factor 4"), ("llama_llama3", "llama3, factor 8")])
def test_scaled_ropes_are_refused(family, says):
    with pytest.raises(UnsupportedError, match=rf"already scaled \({says}\); start from the checkpoint that was scaled"):
        with_rope(tiny(family).config, Yarn(factor=2))


def test_models_without_rope_are_refused():
    says = "yarn:factor=2 cannot be used with gpt2: it has no rotary position embedding; choose a model that has one"
    with pytest.raises(UnsupportedError, match=says):
        with_rope(GPT2Config(), Yarn(factor=2))
