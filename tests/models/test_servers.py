import json
import shlex

import pytest

from longreach.models.rope_config import rope_of
from longreach.models.servers import server_settings
from longreach.positions.base import Rope
from tests.models.folders import tiny

ROPE = Rope(theta=10_000.0, dim=64, trained_window=512)


def settings(spec, **more):
    return server_settings(spec, ROPE, 4096, **more)


def vllm_overrides(command):
    """The JSON of a vLLM command, as a shell would hand it over."""
    words = shlex.split(command)
    assert words[:4] == ["vllm", "serve", "MODEL", "--hf-overrides"]
    assert words[5:] == ["--max-model-len", "4096"]
    return json.loads(words[4])


def test_yarn():
    found = settings("yarn:factor=8")
    assert vllm_overrides(found["vllm"]) == {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        }
    }
    assert found["llama.cpp"] == "llama-server -m MODEL.gguf --ctx-size 4096 --rope-scaling yarn --rope-scale 8 --yarn-orig-ctx 512"


def test_yarn_with_other_betas():
    found = settings("yarn:factor=8,beta_fast=16,beta_slow=2")
    assert vllm_overrides(found["vllm"])["rope_parameters"]["beta_fast"] == 16
    assert found["llama.cpp"].endswith("--yarn-orig-ctx 512 --yarn-beta-fast 16 --yarn-beta-slow 2")


def test_yarn_with_its_own_attention_factor():
    found = settings("yarn:factor=8,attention_factor=1")
    # vLLM multiplies the paper's factor by attn_factor
    assert vllm_overrides(found["vllm"])["rope_parameters"]["attn_factor"] == pytest.approx(1 / 1.2079442)
    assert found["llama.cpp"] == "llama.cpp computes yarn's attention factor itself; attention_factor=1 cannot be given"


def test_linear():
    found = settings("linear:factor=8")
    assert vllm_overrides(found["vllm"]) == {"rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0}}
    assert found["llama.cpp"] == "llama-server -m MODEL.gguf --ctx-size 4096 --rope-scaling linear --rope-scale 8"


def test_ntk():
    theta = 10_000 * 8 ** (64 / 62)
    found = settings("ntk:factor=8")
    assert vllm_overrides(found["vllm"]) == {
        "rope_parameters": {"rope_type": "default", "rope_theta": pytest.approx(theta)},
        "max_position_embeddings": 4096,  # without a factor vLLM would refuse more than the trained window
    }
    assert found["llama.cpp"] == f"llama-server -m MODEL.gguf --ctx-size 4096 --rope-freq-base {theta:.10g}"


def test_self_extend_is_in_llama_cpp_but_not_in_its_server():
    found = settings("self_extend:neighbours=100,group=8")
    assert found["vllm"] == "vLLM has no option for self_extend:neighbours=100,group=8"
    assert found["llama.cpp"] == "llama-completion -m MODEL.gguf --ctx-size 4096 --grp-attn-n 8 --grp-attn-w 104"


@pytest.mark.parametrize("spec", ["sinks:window_size=128", "dynamic_ntk", "yarn:factor=8+log_n"])
def test_what_neither_can_run_is_said(spec):
    assert settings(spec) == {"vllm": f"vLLM has no option for {spec}", "llama.cpp": f"llama.cpp has no option for {spec}"}


def test_partial_rotary_embeddings_stay_partial():
    config = tiny("phi3").config
    found = server_settings("linear:factor=4", rope_of(config), 4096, config=config)
    assert vllm_overrides(found["vllm"])["rope_parameters"]["partial_rotary_factor"] == 0.5


def test_models_with_several_rotary_embeddings():
    config = tiny("gemma3").config
    found = server_settings("yarn:factor=4", rope_of(config), 4096, config=config)
    parameters = vllm_overrides(found["vllm"])["rope_parameters"]
    assert parameters["sliding_attention"]["rope_type"] == "default"
    assert parameters["full_attention"]["rope_type"] == "yarn"
    assert found["llama.cpp"] == "llama.cpp scales one rotary embedding and this model has several"
