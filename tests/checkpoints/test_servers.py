import json
import math
import shlex
from dataclasses import replace

import pytest

from longreach.checkpoints.servers import server_settings
from longreach.engine.rope_config import rope_of
from longreach.positions.base import Rope
from tests.checkpoints.folders import tiny

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


@pytest.mark.parametrize(("spec", "low", "high"), [("llama3:factor=8", 1, 4), ("ntk_by_parts:factor=8", 1, 32)])
def test_llama3(spec, low, high):
    found = settings(spec)
    assert vllm_overrides(found["vllm"]) == {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": 512,
        },
        "max_position_embeddings": 4096,  # vLLM does not multiply the window by the factor of llama3
    }
    assert found["llama.cpp"] == "llama.cpp has no option for the rope type llama3"


def test_any_other_frequencies_are_longrope():
    found = settings("yarn:factor=8+resonance")
    overrides = vllm_overrides(found["vllm"])
    parameters = overrides["rope_parameters"]
    assert overrides["max_position_embeddings"] == 4096
    assert (parameters["rope_type"], parameters["original_max_position_embeddings"]) == ("longrope", 512)
    assert len(parameters["long_factor"]) == 32
    assert parameters["short_factor"] == parameters["long_factor"]
    # vLLM takes the attention factor from these, and would compute another one without them
    assert parameters["short_mscale"] == parameters["long_mscale"] == pytest.approx(1.2079442)
    assert "attention_factor" not in parameters
    assert (
        found["llama.cpp"] == "llama.cpp takes longrope's factors from the GGUF file alone, where its converter writes them for this family"
    )


def test_vllm_runs_longrope_only_where_halves_are_rotated():
    config = tiny("glm4").config
    found = server_settings("giraffe_truncated", rope_of(config), 4096, config=config)
    assert found["vllm"] == "vLLM does not run the rope type longrope on glm4 models"
    assert server_settings("linear:factor=4", rope_of(config), 4096, config=config)["vllm"].startswith("vllm serve")


@pytest.mark.parametrize(("spec", "runs"), [("m_rope_pp:factor=8", False), ("linear:factor=8", False), ("yarn:factor=8", True)])
def test_vllm_scales_sections_by_yarn_alone(spec, runs):
    found = server_settings(spec, replace(ROPE, sections=(8, 12, 12)), 4096)
    assert found["vllm"].startswith("vllm serve" if runs else "vLLM does not run the rope type")


def test_self_extend_is_in_llama_cpp_but_not_in_its_server():
    found = settings("self_extend:neighbours=100,group=8")
    assert found["vllm"] == "vLLM has no option for self_extend:neighbours=100,group=8"
    assert found["llama.cpp"] == "llama-completion -m MODEL.gguf --ctx-size 4096 --grp-attn-n 8 --grp-attn-w 104"


def test_longrope():
    found = settings("longrope:factor=8")
    overrides = vllm_overrides(found["vllm"])
    parameters = overrides["rope_parameters"]
    # vLLM takes the window from the config, and one factor on cos and sin for each length under names of its own
    assert overrides["max_position_embeddings"] == 4096
    assert parameters["short_mscale"] == parameters["long_mscale"] == pytest.approx((1 + math.log(8) / math.log(512)) ** 0.5)
    assert "attention_factor" not in parameters
    assert len(parameters["short_factor"]) == len(parameters["long_factor"]) == 32
    assert found["llama.cpp"].startswith("llama.cpp takes longrope's factors from the GGUF file alone")


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
