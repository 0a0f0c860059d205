"""What attention layers give under methods that place tokens anew, by the forward functions that authors published."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import repeat_kv, rotate_half

from _agreement.base import Pair, compares
from _agreement.layers import INPUTS, Layer
from _agreement.theirs import Source

SELF_EXTEND = ("datamllab/LongLM", "cdbbb061dc76438c46d7e1ddc500f8e4bf255574", "self_extend_patch/Llama.py")
REROPE = ("bojone/rerope", "acfe78840357a94d0bb504cb8865eeaa752df1a6")
OUTPUT = "output of the attention layer"
ROUNDING = 1e-5
OF_TRANSFORMERS = {"repeat_kv": repeat_kv, "rotate_half": rotate_half}


def self_extend(source: Source, layer: Layer, neighbours: int, group: int) -> Pair:
    forward = source.load("self_extend_forward").self_extend_forward
    theirs, _, _ = forward(
        layer.like_theirs(layer.new_rotary()), layer.hidden, layer.mask, layer.positions, group_size_1=group, group_size_2=neighbours
    )
    return theirs, layer.ours


@compares("self_extend:neighbours=16,group=4", *SELF_EXTEND, compared=OUTPUT, inputs=INPUTS.format("300 tokens"), rounding=ROUNDING)
def even_groups(source: Source) -> Pair:
    return self_extend(source, Layer("self_extend:neighbours=16,group=4", 300), 16, 4)


@compares(
    "self_extend:neighbours=10,group=4", *SELF_EXTEND, compared=OUTPUT, inputs=INPUTS.format("300 tokens"), rounding=ROUNDING,
    differs="This function divides neighbours by group without rounding, so that far keys lie less than a position nearer, between whole "
    "ones. Other paths of the authors' code round down, as here: the same function in Llama_4_40.py, and decoding with flash attention in "
    "this file. Nothing differs where group divides neighbours.",
)  # fmt: skip
def uneven_groups(source: Source) -> Pair:
    return self_extend(source, Layer("self_extend:neighbours=10,group=4", 300), 10, 4)


@compares(
    "self_extend:neighbours=10,group=4", *SELF_EXTEND[:2], "self_extend_patch/Llama_4_40.py", compared=OUTPUT,
    inputs=INPUTS.format("300 tokens"), rounding=ROUNDING,
)  # fmt: skip
def uneven_groups_rounded(source: Source) -> Pair:
    return self_extend(source, Layer("self_extend:neighbours=10,group=4", 300), 10, 4)


@compares(
    "rerope:window_size=16+log_n:window_size=128", *REROPE, "rerope_patch.py", compared=OUTPUT, inputs=INPUTS.format("300 tokens"),
    rounding=ROUNDING,
)  # fmt: skip
def rerope(source: Source) -> Pair:
    layer = Layer("rerope:window_size=16+log_n:window_size=128", 300)
    theirs = source.load("forward_with_rerope", window=16, training_length=128, **OF_TRANSFORMERS)
    return theirs.forward_with_rerope(layer.like_theirs(layer.old_rotary()), layer.hidden, layer.mask, layer.positions)[0], layer.ours


@compares(
    "rerope:window_size=16,leak=8+log_n:window_size=128", *REROPE, "leaky_rerope_patch.py", compared=OUTPUT,
    inputs=INPUTS.format("300 tokens"), rounding=ROUNDING,
)  # fmt: skip
def leaky_rerope(source: Source) -> Pair:
    layer = Layer("rerope:window_size=16,leak=8+log_n:window_size=128", 300)
    settings = {"window": 16, "scaling_factor": 8, "training_length": 128}
    theirs = source.load("forward_with_leaky_rerope", **settings, **OF_TRANSFORMERS)
    like = layer.like_theirs(layer.old_rotary(), rotary_emb2=layer.old_rotary(divided_by=8))
    return theirs.forward_with_leaky_rerope(like, layer.hidden, layer.mask, layer.positions)[0], layer.ours


LM_INFINITE = ("Glaciohound/LM-Infinite", "a0ce64c6b7ae54f6059668c899603a6eb0c94c18", "models/llama.py")


def lm_infinite(source: Source, setting: str, window: int, limit: int) -> Pair:
    layer = Layer(setting, 100, kv_heads=4)
    matmul = replace(source, file="models/lambda_attention.py").load("lambda_matmul").lambda_matmul
    factory = source.load("attn_forward_factory", lambda_matmul=matmul).attn_forward_factory
    forward = factory(layer.like_theirs(layer.new_rotary()), True, window, 3, limit, 0, None, None, None, None, 0)
    return forward(layer.hidden, layer.mask, layer.positions)[0], layer.ours


@compares("lm_infinite:num_sinks=3,window_size=16", *LM_INFINITE, compared=OUTPUT, inputs=INPUTS.format("100 tokens"), rounding=ROUNDING)
def lambda_attention(source: Source) -> Pair:
    return lm_infinite(source, "lm_infinite:num_sinks=3,window_size=16", 16, 16)


@compares(
    "lm_infinite:num_sinks=3,window_size=16,limit=24", *LM_INFINITE, compared=OUTPUT, inputs=INPUTS.format("100 tokens"),
    rounding=ROUNDING,
    differs="The authors' code sees every first token that has left the window at the distance `limit`, also where it is nearer; here it "
    "is min(distance, limit). The two are the same where `limit` is the window, as in the runs that the authors' README lists.",
)  # fmt: skip
def lambda_attention_far_limit(source: Source) -> Pair:
    return lm_infinite(source, "lm_infinite:num_sinks=3,window_size=16,limit=24", 16, 24)


CHUNK_LLAMA = ("HKUNLP/ChunkLlama", "2add4d7c99d24dcc1ab03414cc602abb2e28cf2c", "chunkllama_attn_replace.py")
DUAL_CHUNK = "dual_chunk:chunk_size=16,local_window=9"  # theirs: chunk_size 24 with a local window of 8 in it
ITS_INPUTS = f"{INPUTS}; {{}}".format


class GrowingCache:
    """Keys and values of one layer, as transformers' DynamicCache kept them."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.states = keys, values

    def get_usable_length(self, new: int, layer_idx: int) -> int:
        return self.states[0].shape[2]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, cache_kwargs: Any = None) -> tuple[Tensor, Tensor]:
        self.states = torch.cat([self.states[0], keys], 2), torch.cat([self.states[1], values], 2)
        return self.states


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> tuple[Tensor, Tensor]:
    """Outputs and log-sum-exps: what flash attention gives."""
    logits = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        logits = logits + torch.full_like(logits, float("-inf")).triu(1)
    return logits.softmax(-1) @ v, logits.logsumexp(-1)


def dual_chunk(source: Source, layer: Layer, *, decode: bool = False, **given: Any) -> Pair:
    given |= {"do_flash_attn": plain_attention, **OF_TRANSFORMERS}
    theirs = source.load("forward", "ChunkLlamaRotaryEmbedding", chunk_size=24, local_window=8, MAX_NEW_TOKENS=512, **given)
    like = layer.like_theirs(theirs.ChunkLlamaRotaryEmbedding(16, 128))
    if not decode:
        return theirs.forward(like, layer.hidden, None, layer.positions)[0], layer.ours
    cache = GrowingCache(layer.k[:, :, :1], layer.v[:, :, :1])  # at position 0 rotation changes nothing
    steps = [(layer.hidden[:, t : t + 1], None, layer.positions[:, t : t + 1], cache) for t in range(1, layer.tokens)]
    return torch.cat([theirs.forward(like, *step)[0] for step in steps], 1), layer.ours[:, 1:]


@compares(
    DUAL_CHUNK, *CHUNK_LLAMA, compared=f"{OUTPUT}, token by token", rounding=ROUNDING,
    inputs=ITS_INPUTS("100 tokens", "a window of 128, of which theirs takes a chunk of 16 and a local window of 8 beyond it"),
)  # fmt: skip
def dual_chunk_decoding(source: Source) -> Pair:
    return dual_chunk(source, Layer(DUAL_CHUNK, 100), decode=True)


@compares(
    DUAL_CHUNK, *CHUNK_LLAMA, compared=f"{OUTPUT}, at once", rounding=ROUNDING,
    inputs=ITS_INPUTS("100 tokens", "the same window; plain attention stands for flash attention"),
    differs="Where the authors' code joins the three parts of a prompt, it rounds their weights to bfloat16.",
)  # fmt: skip
def dual_chunk_at_once(source: Source) -> Pair:
    return dual_chunk(source, Layer(DUAL_CHUNK, 100))


@compares(
    DUAL_CHUNK, *CHUNK_LLAMA, compared=f"{OUTPUT}, at once", rounding=ROUNDING,
    inputs=ITS_INPUTS("300 tokens", "a window of 128; plain attention stands for flash attention"),
    differs="Beyond the trained window the authors' code multiplies cos and sin by 0.05 ln(length / window) + 1; a comment there says "
    "that the paper's results are without it. With the factor in both, and nothing rounded, both are the same, as the other table shows.",
)  # fmt: skip
def dual_chunk_with_factor(source: Source) -> Pair:
    return dual_chunk(source, Layer(DUAL_CHUNK, 300))


WITH_FACTOR = f"yarn:factor=1,attention_factor={0.05 * math.log(300 / 128) + 1:.10f}+{DUAL_CHUNK}"


@compares(
    WITH_FACTOR, *CHUNK_LLAMA, method="dual_chunk", compared=f"{OUTPUT}, at once", rounding=ROUNDING,
    inputs=ITS_INPUTS("300 tokens", "a window of 128; plain attention stands for flash attention, and float32 for bfloat16"),
)  # fmt: skip
def dual_chunk_both_with_factor(source: Source) -> Pair:
    exact = SimpleNamespace(**{**vars(torch), "bfloat16": torch.float32})
    return dual_chunk(source, Layer(WITH_FACTOR, 300), torch=exact)


LONGHEADS = ("LuLuLuyi/LongHeads", "1c9f72e726401cbccf320d2c5c72244dd92a336f", "modeling_longheads/modeling_llama.py")
CHOSEN = "longheads:chunk_size=32,num_chunks=8"
CHOSEN_INPUTS = INPUTS.format("480 tokens, of which the last 224 are compared") + "; plain attention stands for flash attention"


def longheads(source: Source, *, decode: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Theirs and ours for the tokens from 256 on, and whether each is the last of its chunk. decode: token by token, and not at once."""
    import einops

    def of_three(qkv: Tensor, softmax_scale: float = 0.25, causal: bool = False) -> Tensor:  # [B, S, 3, H, D] -> [B, S, H, D]
        return plain_attention(*qkv.transpose(1, 3).unbind(2), causal=causal)[0].transpose(1, 2)

    def with_cache(q: Tensor, k_cache: Tensor, v_cache: Tensor, softmax_scale: float, causal: bool) -> Tensor:
        return plain_attention(*(x.transpose(1, 2) for x in (q, k_cache, v_cache)), causal=causal)[0].transpose(1, 2)

    layer = Layer(CHOSEN, 480, kv_heads=4, window=256)
    given = {"rearrange": einops.rearrange, "flash_attn_with_kvcache": with_cache, "flash_attn_qkvpacked_func": of_three}
    code = source.load("LlamaAttention.forward", "LlamaAttention._nonoverlap_window_1d_partition", **given)
    like = layer.like_theirs(
        layer.old_rotary(), attn=of_three, attn_scale=0.25, window_size=32, atten_length=256, begin_selective_length=256,
        cpu_offload=False, batch_encoding=False,
    )  # fmt: skip
    like._nonoverlap_window_1d_partition = partial(code._nonoverlap_window_1d_partition, like)
    last = torch.arange(256, layer.tokens) % 32 == 31
    if not decode:
        return code.forward(like, layer.hidden, torch.ones(1, layer.tokens), layer.positions)[0][:, 256:], layer.ours[:, 256:], last
    known, queries, chunks, found = (layer.k[:, :, :256], layer.v[:, :, :256]), (layer.q[:, :, :256],), None, []
    for t in range(256, layer.tokens):
        step, at = layer.hidden[:, t : t + 1], layer.positions[:, t : t + 1]
        output, _, (known, queries, chunks) = code.forward(like, step, torch.ones(1, 1), at, known, queries, chunks, use_cache=True)
        found.append(output)
    return torch.cat(found, 1), layer.ours[:, 256:], last


@compares(
    CHOSEN, *LONGHEADS, compared=f"{OUTPUT}, token by token, but for the last token of every chunk", inputs=CHOSEN_INPUTS, rounding=ROUNDING
)
def longheads_inside(source: Source) -> Pair:
    theirs, ours, last = longheads(source)
    return theirs[:, ~last], ours[:, ~last]


@compares(
    CHOSEN, *LONGHEADS, compared=f"{OUTPUT}, token by token, of the last token of every chunk", inputs=CHOSEN_INPUTS, rounding=ROUNDING,
    differs="For the last token of a chunk the authors' code takes this chunk for the one that is always seen whole; so the one before it "
    "is seen only where a head chooses it, and one chunk fewer is seen. Here such a token is like the others.",
)  # fmt: skip
def longheads_last(source: Source) -> Pair:
    theirs, ours, last = longheads(source)
    return theirs[:, last], ours[:, last]


@compares(
    CHOSEN, *LONGHEADS, compared=f"{OUTPUT}, at once", inputs=CHOSEN_INPUTS, rounding=ROUNDING,
    differs="In the authors' code a token of a prompt that is longer than the window does not see itself; here it does, as in decoding.",
)  # fmt: skip
def longheads_at_once(source: Source) -> Pair:
    theirs, ours, _ = longheads(source, decode=False)
    return theirs, ours


GALI = ("AcademyCityL/GALI", "5a3e9474d1cedddac05f8c64ecee35fe7588ba13", "models/DPI/patches/Llama.py")


@compares(
    "gali:window_size=32,local_window=8,chunk_size=10", *GALI, compared=f"{OUTPUT}, in chunks of 10 tokens beyond the window of 32",
    inputs=INPUTS.format("122 tokens") + "; theirs places tokens and computes logits, without its noise", rounding=ROUNDING,
)  # fmt: skip
def gali(source: Source) -> Pair:
    layer, found = Layer("gali:window_size=32,local_window=8,chunk_size=10", 122), []
    logits_of = source.load("attention_score_approximate").attention_score_approximate
    places = replace(source, file="models/DPI/help_funcs.py").load("construct_new_pi", print=lambda *words: None).construct_new_pi
    for start in range(32, layer.tokens, 10):
        place = places(start, 32, None, [], 10, 8)[None]
        (cos_1, sin_1), (cos_2, sin_2) = layer.angles(place.ceil()), layer.angles(place.floor())
        logits = logits_of(cos_1, cos_2, sin_1, sin_2, layer.q[:, :, start : start + 10], layer.k[:, :, : start + 10], place, 2, 16,
                           {"noise_type": "no"})  # fmt: skip
        logits += layer.mask[..., start : start + 10, : start + 10]
        found.append(logits.softmax(-1) @ repeat_kv(layer.v[:, :, : start + 10], 2))
    return layer.out(torch.cat(found, 2)), layer.ours[:, 32:]
