"""Biases, fading and added keys: what changes the logits of attention, by the code that authors published."""

import math
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import repeat_kv, rotate_half

from _agreement.base import Pair, compares, stacked
from _agreement.layers import INPUTS, Layer
from _agreement.theirs import Source
from longreach.attention.bias.alibi import Alibi
from longreach.attention.bias.t5_bias import T5Bias
from longreach.attention.scaling.head_temperature import HeadTemperature
from longreach.attention.scaling.log_n import LogN
from longreach.core.bands import PROBE
from longreach.positions.base import Rope
from longreach.positions.by_head.fope import Fope

OUTPUT = "output of the attention layer"
ROUNDING = 1e-5


@compares(
    "alibi", "ofirpress/attention_with_linear_biases", "4b92f28a005ead2567abe2359f633e73e08f3833", "fairseq/models/transformer.py",
    compared="slopes of the heads", inputs="8 heads, and 12; float64",
)  # fmt: skip
def alibi(source: Source) -> Pair:
    slopes = source.load("TransformerDecoder.__init__.get_slopes").get_slopes
    ours = [-Alibi().bias(torch.ones(1), replace(PROBE, num_heads=heads)) for heads in (8, 12)]
    return stacked(*(torch.tensor(slopes(heads)) for heads in (8, 12))), stacked(*ours)


@compares(
    "t5_bias", "google-research/t5x", "cc342d419ec3e3e9c4bf1df33c82330cafdc1e16", "t5x/examples/t5/layers.py",
    compared="bucket of each distance", inputs="distances from 0 to 2000, 32 buckets, up to 128",
)  # fmt: skip
def t5_bias(source: Source) -> Pair:
    bucket = source.load("RelativePositionBiases._relative_position_bucket")._relative_position_bucket
    theirs = bucket(-torch.arange(2001).numpy(), bidirectional=False, num_buckets=32, max_distance=128)
    return torch.from_numpy(theirs), T5Bias().bucket(torch.arange(2001))


@compares(
    "lex:block_size=64", "microsoft/torchscale", "4d1e0e82e5adf86dd424f1463192635b73fc8efc",
    "torchscale/component/xpos_relative_position.py", compared=OUTPUT,
    inputs=INPUTS.format("100 tokens") + "; theirs turns and fades queries and keys", rounding=ROUNDING,
)  # fmt: skip
def lex(source: Source) -> Pair:
    layer = Layer("lex:block_size=64", 100)
    fades = source.load("XPOS").XPOS(16)
    pairs = torch.arange(16).view(2, 8).T.reshape(-1)  # their pairs are neighbours, Llama's are half a head apart
    q = fades(layer.q[0][..., pairs])
    k = fades(repeat_kv(layer.k, 2)[0][..., pairs], downscale=True)
    weights = (q @ k.mT / 4 + layer.mask[0]).softmax(-1)
    return layer.out((weights @ repeat_kv(layer.v, 2)[0])[None]), layer.ours


@compares(
    "ntk_attention", "ChristianYang37/chiwun", "08a0713d4873a257d47efc957b99674e81e89a2b", "src/NTK-Attention/ntk_attn_demo.py",
    compared=OUTPUT, inputs=INPUTS.format("100 tokens") + ", a random prefix", rounding=ROUNDING,
)  # fmt: skip
def ntk_attention(source: Source) -> Pair:
    total, mass = torch.randn(4, 16, 16), torch.rand(4, 16)
    layer = Layer("ntk_attention", 100, weights={"ntk_attention.total": total, "ntk_attention.mass": mass})
    cos, sin = layer.angles(layer.positions)
    q, k = (x * cos + rotate_half(x) * sin for x in (layer.q, repeat_kv(layer.k, 2)))
    theirs = source.load("ntk_attn").ntk_attn(q, k, repeat_kv(layer.v, 2), mass[None, ..., None], total[None])
    return layer.out(theirs), layer.ours


@compares(
    "nope+cable", "axiomlab/Cable", "8bc6b83e872899c50827e6940344350c37fadaa8", "src/Cable.py", method="cable", compared=OUTPUT,
    inputs=INPUTS.format("100 tokens") + ", each head with keys of its own, random aging; theirs gets queries divided by 4, for it does "
    "not scale logits", rounding=ROUNDING,
)  # fmt: skip
def cable(source: Source) -> Pair:
    weights = {"cable.weight": torch.randn(4, 64) * 0.05, "cable.bias": torch.randn(4) * 0.1}
    layer = Layer("nope+cable", 100, kv_heads=4, weights=weights)
    own = layer.like_theirs(None)
    like = SimpleNamespace(
        c_attn=lambda x: torch.cat([own.q_proj(x) / 4, own.k_proj(x), own.v_proj(x)], -1), c_proj=own.o_proj,
        h_attn=lambda x: torch.nn.functional.linear(x, *weights.values()), n_head=4, n_embd=64, block_size=100, dtype=torch.float32,
        device="cpu",
    )  # fmt: skip
    return source.load("CausalSelfAttention.forward").forward(like, layer.hidden), layer.ours


NOPE = ("AntNLP/nope_head_scale", "51e0a82aeb8afc6d3dcc92f4e29be16ec2a63804", "models/llama_nope.py")
QUIET = {"utils": SimpleNamespace(log_once=lambda *words: None), "logger": None}


@compares("nope", *NOPE, compared=OUTPUT, inputs=INPUTS.format("100 tokens") + "; theirs is what becomes of queries and keys",
          rounding=ROUNDING)  # fmt: skip
def nope(source: Source) -> Pair:
    layer = Layer("nope", 100)
    q, k = source.load("nope_monkey_patch", **QUIET).nope_monkey_patch(layer.q, layer.k, None, None, layer.positions)
    weights = (q @ repeat_kv(k, 2).mT / 4 + layer.mask).softmax(-1)
    return layer.out(weights @ repeat_kv(layer.v, 2)), layer.ours


@compares("head_temperature", *NOPE, compared="queries, with the factor of each head and of the scale on logits",
          inputs="random queries of 4 heads of 64, random factors; float32")  # fmt: skip
def head_temperature(source: Source) -> Pair:
    scale, q, positions = torch.rand(4) + 0.5, torch.randn(1, 4, 10, 64), torch.arange(10)[None]
    kinds = SimpleNamespace(HS="by head", CONST="the same")
    like = SimpleNamespace(num_heads=4, head_dim=64, softmax_scale=1.0, softmax_scale_type="by head", scale_param=scale)
    theirs = source.load("ScaleMixin.query_scale", SoftMaxScaleType=kinds, **QUIET).query_scale(like, q, positions)
    layer = replace(PROBE, num_heads=4, weights={"head_temperature.scale": scale})
    return theirs, q / 8 * HeadTemperature().temperature(positions, layer)[..., None]


@compares(
    "log_n:window_size=128", "bojone/rerope", "acfe78840357a94d0bb504cb8865eeaa752df1a6", "ntk_patch.py",
    compared="factor on the queries", inputs="300 positions, a window of 128; float32",
)  # fmt: skip
def log_n(source: Source) -> Pair:
    given = {"training_length": 128, "old_apply_rotary_pos_emb": lambda q, k, cos, sin, positions: (q, k)}
    code, positions = source.load("apply_rotary_pos_emb_and_logn_scale", **given), torch.arange(300)[None]
    theirs, _ = code.apply_rotary_pos_emb_and_logn_scale(torch.ones(1, 1, 300, 1), None, None, None, positions)
    return theirs[0, 0, :, 0], LogN(window_size=128).temperature(positions, PROBE)[0]


FOPE = ("TsinghuaC3I/Fourier-Position-Embedding", "bd94b20d82bf11240ad3584c515c790d255da919", "olmo/model.py")
TURNED = "a random vector at 200 positions, turned, {}"
SIZES = "4 heads of 64, base 10000, window 512, the same coefficients; float32"


def fope(source: Source) -> tuple[Tensor, Tensor, int]:
    """Theirs and ours [4, 200, 64], and how many pairs of dimensions have coefficients."""
    rope, method = Rope(theta=10000.0, dim=64, trained_window=512, num_heads=4), Fope(gain=1.0)
    frequencies, (cos_mix, sin_mix) = method.inv_freq(rope, 512)[0], method.mixture(rope)
    own, kept = frequencies[0][frequencies[0] > 0], 16
    made = source.load("FourierEmbedding", "RotaryEmbedding", math=math, _non_meta_init_device=lambda config: torch.device("cpu"))
    config = SimpleNamespace(
        d_model=256, n_heads=4, max_sequence_length=512, rope_theta=10000.0, rope_full_precision=True, rope_no_pos=False, len_extra=False,
        fourier_dim=0, fourier_ignore_zero=True, fourier=True, fourier_separate_head=True, fourier_separate_basis=True, fourier_norm=False,
        fourier_learnable=False, fourier_init="eye_xavier_norm", fourier_init_norm_gain=0.3, rope_clamp_floor_freq=True,
        rope_clamp_floor_to_zero=True, rope_floor_freq_ratio=1.0, rope_clamp_upper_freq=False, rope_init_floor_freq=0.0,
        rope_init_upper_freq=1.0, rope_zero_freq_ratio=-1.0, rope_clamp_to_linear=False, rope_clamp_to_linear_mode="ceil",
        rope_learnable=False, rope_no_repetition=False, rope_include_neg_freq=False, rope_init_distribution="exponential",
    )  # fmt: skip
    theirs = made.FourierEmbedding(config, {})
    theirs.sin_coef.data, theirs.cos_coef.data = (mix[:, : len(own), :kept].contiguous() for mix in (sin_mix, cos_mix))
    x = torch.randn(1, 4, 200, 64)
    angles = torch.arange(200)[:, None] * frequencies[:, None]
    cos, sin = (torch.cat([table @ mix] * 2, -1) for table, mix in ((angles.cos(), cos_mix), (angles.sin(), sin_mix)))
    return theirs(x, 200)[0], (x * cos + rotate_half(x) * sin)[0], kept


@compares("fope:gain=1", *FOPE, compared=TURNED.format("pairs of dimensions with coefficients"), inputs=SIZES, rounding=ROUNDING)
def fope_pairs(source: Source) -> Pair:
    theirs, ours, kept = fope(source)
    return theirs.view(4, 200, 2, 32)[..., :kept], ours.view(4, 200, 2, 32)[..., :kept]


@compares(
    "fope:gain=1", *FOPE, compared=TURNED.format("the other pairs"), inputs=SIZES, rounding=ROUNDING,
    differs="The authors' code gives pairs without coefficients a cos and a sin of 1, which turns them all by 45 degrees and doubles their "
    "logits. Here they are left as they are.",
)  # fmt: skip
def fope_others(source: Source) -> Pair:
    theirs, ours, kept = fope(source)
    return theirs.view(4, 200, 2, 32)[..., kept:], ours.view(4, 200, 2, 32)[..., kept:]
