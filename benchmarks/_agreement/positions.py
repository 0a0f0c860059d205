"""Rotary frequencies and factors on cos and sin, by the classes and functions that authors published."""

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import longreach
from _agreement.base import Pair, compares, stacked
from _agreement.theirs import Source
from longreach.core.spec import stack_of
from longreach.positions.base import Rope, positions_of
from longreach.positions.fitted._ode import Network, frequencies, runge_kutta
from longreach.positions.scaling.distributional import _distribution
from longreach.testing.models import tiny_model

YARN = ("jquesnelle/yarn", "995db5b575e75230b3384d658f8b944c9662f775")
GIRAFFE = ("abacusai/Long-Context", "c2a90d1fd0e905d6e8ef8c7e6f5a9441c78616b1")
ROPE = Rope(theta=10000.0, dim=64, trained_window=2048)
INPUTS = "head dimension 64, base 10000, window 2048; float32"
COMPARED = "frequencies, over those of the model"


def ours(setting: str, rope: Rope = ROPE, seq_len: int = 2048) -> tuple[Tensor, float]:
    """Frequencies and factor of a spec."""
    method = positions_of(stack_of(setting))
    assert method is not None  # noqa: S101 - a spec of positions
    return method.inv_freq(rope, seq_len)


def over_own(inv_freq: Tensor, factor: float = 1.0, rope: Rope = ROPE) -> Tensor:
    """Frequencies over those of the model, so that slow ones count as much as fast ones; then the factor."""
    return stacked(inv_freq / rope.inv_freq(), factor)


@compares(
    "yarn:factor=8", *YARN, "scaled_rope/LlamaYaRNScaledRotaryEmbedding.py", compared=f"{COMPARED}, and the factor on cos and sin",
    inputs=INPUTS,
)  # fmt: skip
def yarn(source: Source) -> Pair:
    made = source.load("LlamaYaRNScaledRotaryEmbedding").LlamaYaRNScaledRotaryEmbedding(64, 16384, scale=8)
    return over_own(made.inv_freq, made.mscale), over_own(*ours("yarn:factor=8"))


@compares(
    "linear:factor=4", *YARN, "scaled_rope/LlamaLinearScaledRotaryEmbedding.py", compared="cos and sin of 8192 positions", inputs=INPUTS
)
def linear(source: Source) -> Pair:
    made = source.load("LlamaLinearScaledRotaryEmbedding").LlamaLinearScaledRotaryEmbedding(64, 8192, scale=4)
    angles = torch.outer(torch.arange(8192), ours("linear:factor=4")[0]).repeat(1, 2)
    return stacked(made.cos_cached, made.sin_cached), stacked(angles.cos(), angles.sin())


@compares("ntk:factor=4", *YARN, "scaled_rope/LlamaNTKScaledRotaryEmbedding.py", compared=COMPARED, inputs=INPUTS)
def ntk(source: Source) -> Pair:
    made = source.load("LlamaNTKScaledRotaryEmbedding").LlamaNTKScaledRotaryEmbedding(64, alpha=4)
    return over_own(made.inv_freq), over_own(*ours("ntk:factor=4"))


@compares(
    "dynamic_ntk:factor=2", *YARN, "scaled_rope/LlamaDynamicScaledRotaryEmbedding.py", compared=f"{COMPARED}, at 5120 tokens", inputs=INPUTS
)
def dynamic_ntk(source: Source) -> Pair:
    made = source.load("LlamaDynamicScaledRotaryEmbedding").LlamaDynamicScaledRotaryEmbedding(64, ntk=2)
    made(torch.zeros(1), seq_len=5120)
    return over_own(made.inv_freq), over_own(*ours("dynamic_ntk:factor=2", seq_len=5120))


@compares(
    "ntk_by_parts:factor=8", *YARN, "scaled_rope/LlamaPartNTKScaledRotaryEmbedding.py", compared=COMPARED, inputs=INPUTS,
    differs="The class of this name is another form: its ramps are over the index of the dimension, with other constants, and between what "
    "is interpolated and what is kept lie NTK-aware frequencies. Here one ramp over turns lies between the two.",
)  # fmt: skip
def ntk_by_parts(source: Source) -> Pair:
    made = source.load("LlamaPartNTKScaledRotaryEmbedding").LlamaPartNTKScaledRotaryEmbedding(64, scale=8)
    return over_own(made.inv_freq), over_own(*ours("ntk_by_parts:factor=8"))


@compares(
    "llama3:factor=8", "meta-llama/llama-models", "a9c89c471f793423afd4cc3ca8671d6e56fe64cb", "models/llama3/model.py", compared=COMPARED,
    inputs="head dimension 128, base 500000, window 8192; float32",
)  # fmt: skip
def llama3(source: Source) -> Pair:
    rope = Rope(theta=500000.0, dim=128, trained_window=8192)
    theirs = source.load("apply_scaling").apply_scaling(rope.inv_freq())
    return over_own(theirs, rope=rope), over_own(*ours("llama3:factor=8", rope), rope=rope)


@compares("giraffe_power:power=0.5", *GIRAFFE, "python/models/interpolate.py", compared=COMPARED, inputs=INPUTS)
def giraffe_power(source: Source) -> Pair:
    made = source.load("ScaledLlamaRotaryEmbedding", PI=math.pi).ScaledLlamaRotaryEmbedding(64, scale_power=0.5)
    return over_own(made.freq_2pi), over_own(*ours("giraffe_power:power=0.5"))


@compares("linear:factor=4+giraffe_truncated:cutoff=2048", *GIRAFFE, "python/models/interpolate.py", compared=COMPARED, inputs=INPUTS,
          method="giraffe_truncated")  # fmt: skip
def giraffe_truncated(source: Source) -> Pair:
    made = source.load("ScaledLlamaRotaryEmbedding", PI=math.pi).ScaledLlamaRotaryEmbedding(64, scale=4.0, truncate=2048)
    return over_own(made.freq_2pi), over_own(*ours("linear:factor=4+giraffe_truncated:cutoff=2048"))


RESONANCE = ("sheryc/resonance_rope", "4a7f5a703b2e96756939db51916937ab7c5ab3a9")


@compares(
    "yarn:factor=8+resonance", *RESONANCE, "llama_finetuning/scaled_rope/LlamaYaRNScaledResonanceRotaryEmbedding.py", method="resonance",
    compared=f"{COMPARED}, and the factor on cos and sin", inputs=INPUTS,
)  # fmt: skip
def resonance(source: Source) -> Pair:
    made = source.load("LlamaYaRNScaledResonanceRotaryEmbedding", repeat=lambda x, pattern, repeat: x.repeat(repeat))
    theirs = made.LlamaYaRNScaledResonanceRotaryEmbedding(64, 16384, scale=8)
    return over_own(theirs.r_inv_freq, theirs.mscale), over_own(*ours("yarn:factor=8+resonance"))


LONGROPE = ("microsoft/LongRoPE", "c9e56aa54007c328399677232a489feec446e4b8", "rope/longrope.py")
STRETCHED = Rope(theta=10000.0, dim=16, trained_window=128)  # of the tiny model


@compares(
    "longrope:factor=4", *LONGROPE, compared=f"{COMPARED}, and the factor on cos and sin", inputs=f"{INPUTS}; the same rescale factors"
)
def longrope(source: Source) -> Pair:
    factors = (ROPE.inv_freq() / ours("longrope:factor=4")[0]).tolist()
    made = source.load("LongRoPEScaledRotaryEmbedding").LongRoPEScaledRotaryEmbedding(64, factors, 4.0, 8192, 2048)
    return over_own(made._calc_inv_freq(8192, None), made.mscale), over_own(*ours("longrope:factor=4"))


@compares(
    "longrope:factor=4,start_tokens=8", *LONGROPE, compared="cos and sin of 32 positions", rounding=1e-5,
    inputs="head dimension 16, base 10000, window 128, the same rescale factors; float32",
)  # fmt: skip
def unscaled_first_tokens(source: Source) -> Pair:
    setting = "longrope:factor=4,start_tokens=8"
    factors = (STRETCHED.inv_freq() / ours(setting, STRETCHED)[0]).tolist()
    positions = torch.arange(32)[None]
    model = tiny_model(num_hidden_layers=1)
    plain = model.model.rotary_emb(torch.zeros(1, 32, 16), positions)
    load = source.load("MixedLongRoPEScaledRotaryEmbedding").MixedLongRoPEScaledRotaryEmbedding
    made = load(16, factors, 8, plain, 4.0, 512, 128)
    with longreach.apply(model, setting, warn=False):
        found = model.model.rotary_emb(torch.zeros(1, 32, 16), positions)
    theirs = made._add_original_embeddings(*made._longrope_forward(torch.zeros(1, 32, 16), positions))
    return stacked(*theirs), stacked(*found)


CLEX = ("DAMO-NLP-SG/CLEX", "023709d923ea9492ba82a6e8341d8c02f77e34e8", "CLEX/clex_layer.py")
NETWORK = "the network as it is set up, with random second maps; theirs gives the slope, integrated as ours is"


def clex(source: Source, theta: float, factor: float) -> Pair:
    rope = Rope(theta=theta, dim=64, trained_window=2048)
    network = Network.new(64, 1, seed=0)
    network = Network(network.up, torch.randn(network.down.shape, generator=torch.Generator().manual_seed(0)).double() * 0.01)
    made = source.load("ODELinear").ODELinear(64, 1, "silu", theta)
    made.ode_up_proj.copy_(network.up)
    made.ode_down_proj.copy_(network.down)
    slope = lambda t, x: made(torch.tensor(t), x.float())  # noqa: E731
    theirs = runge_kutta(slope, rope.inv_freq().log(), 1.0, factor, 60).exp()
    return over_own(theirs, rope=rope), over_own(frequencies(rope, network, factor), rope=rope)


@compares("clex:factor=4", *CLEX, compared=COMPARED, inputs=f"{INPUTS}; {NETWORK}", rounding=1e-5)
def clex_network(source: Source) -> Pair:
    return clex(source, 10000.0, 4.0)


@compares(
    "clex:factor=4", *CLEX, compared=COMPARED, inputs=f"{INPUTS.replace('10000', '500000')}; {NETWORK}", rounding=1e-5,
    differs="In the authors' code the class is given the base but the network is called without it, so that it sees the NTK-aware "
    "frequencies of the base 10000 whatever the model's base is. Here it sees those of the model.",
)  # fmt: skip
def clex_other_base(source: Source) -> Pair:
    return clex(source, 500000.0, 4.0)


@compares(
    "clex", *CLEX, compared="cos and sin of the first 100 of 5000 positions", inputs=f"{INPUTS}; the network as it is set up",
    rounding=1e-5,
)  # fmt: skip
def clex_by_length(source: Source) -> Pair:
    def odeint(slope: Any, x: Tensor, times: Tensor, **settings: Any) -> Tensor:
        return torch.stack([runge_kutta(lambda t, y: slope(torch.tensor(t), y), x, 1.0, float(end), 60) for end in times])

    made = source.load("CLEXScalingRotaryEmbedding", odeint=odeint).CLEXScalingRotaryEmbedding(
        64, 2048, {"max_factor": 16, "param_factor": 1, "act": "silu", "time_dt": 0.01}
    )
    angles = torch.outer(torch.arange(100), ours("clex", seq_len=5000)[0]).repeat(1, 2)
    return made(torch.zeros(1), 5000)[:, :100], torch.stack([angles.cos(), angles.sin()])


@compares(
    "m_rope_pp:factor=4", "kiaia/GIRAFFE", "0d30a229328256865610378bcdf9aadaa35caa93", "models/mrope_plus_mokey_patch.py",
    compared=COMPARED, inputs="head dimension 128, sections of 16, 24 and 24 pairs, base 10000, window 16384; float32",
    differs="By default the authors' code takes NTK-aware frequencies, as they are at the full factor, for height and width. Here "
    "width is interpolated, and height lies on a ramp between.",
)  # fmt: skip
def m_rope_pp(source: Source) -> Pair:
    rope = Rope(theta=10000.0, dim=128, trained_window=16384, sections=(16, 24, 24))
    made = source.load("Qwen2RotaryEmbeddingMRoPEPP").Qwen2RotaryEmbeddingMRoPEPP(128)
    return over_own(made.inv_freq, rope=rope), over_own(*ours("m_rope_pp:factor=4", rope), rope=rope)


DPROPE = ("1180301012/DPRoPE", "b9db7b5000d1827f3f261588116956b3a4f25365", "DPRoPE/DPRope.py")
QUIET = SimpleNamespace(warning=lambda text: None)
ANGLES = "head dimension 32, base 10000, window 256, factor 4; float32"


@compares("distributional:factor=4", *DPROPE, compared="share of the positions in each of 360 intervals of the circle, of each dimension",
          inputs=ANGLES)  # fmt: skip
def shares_of_angles(source: Source) -> Pair:
    made = source.load("DPRopeClass", logger=QUIET).DPRopeClass(origin_max_position=256, head_dim=32, scaling_factor=4)
    theirs, _ = made._get_rotation_angles(1024, made._interpolation)
    return theirs, _distribution(Rope(theta=10000.0, dim=32, trained_window=256).inv_freq().double() / 4, 1024, 360)


@compares(
    "distributional:factor=4", *DPROPE, compared="by what each frequency is divided, 1 or 4", inputs=ANGLES,
    differs="The authors' code takes the divergence of the trained angles from the others, where equation 8 of the paper, and ours, takes "
    "it the other way round; and where neither moves an angle to another interval, it keeps the frequency, where ours interpolates.",
)  # fmt: skip
def which_are_interpolated(source: Source) -> Pair:
    rope = Rope(theta=10000.0, dim=32, trained_window=256)
    made = source.load("DPRopeClass", logger=QUIET).DPRopeClass(origin_max_position=256, head_dim=32, scaling_factor=4)
    return made.get_dprope_inv_freq()[1], (rope.inv_freq() / ours("distributional:factor=4", rope)[0]).round()
