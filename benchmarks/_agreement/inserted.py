"""Attention to and from tokens that methods insert into the text."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import repeat_kv, rotate_half

from _agreement.base import Pair, compares
from _agreement.layers import INPUTS, Layer
from _agreement.theirs import Source

LANDMARKS = ("epfml/landmark-attention", "d963e504fa2424687c6cbd412b54f1626e832292", "llama/llama_mem.py")
BEACONS = ("FlagOpen/FlagEmbedding", "7ed43d67ec03fbe5c31c0992dbfa941fb1860549")
BEACON_LAYER = "research/Long_LLM/activation_beacon/src/llama/modeling_llama.py"
OUTPUT = "output of the attention layer, of the text's tokens and of inserted ones"
ROUNDING = 1e-5
LOWEST = torch.finfo(torch.float32).min


def interleaved(tokens: int, every: int) -> list[int]:
    """Where the layer has the tokens of a text and those behind every so many of them, in the order in which they are read."""
    order = []
    for token in range(tokens):
        order.append(token)
        if (token + 1) % every == 0:
            order.append(tokens + (token + 1) // every - 1)
    return order


def causal(queries: int, keys: int) -> Tensor:
    """[1, 1, T, S], the lowest number where a key comes after a query; the last key is the last query's."""
    return torch.full((queries, keys), LOWEST).triu(keys - queries + 1)[None, None]


def masks(is_mem: Tensor, attention: Tensor) -> dict[str, Tensor]:
    """What their model tells its layers of its tokens: which are landmarks, whose block is the query's own, and what is seen."""
    is_mem = is_mem[:, None, None]
    group = torch.where(attention < -1, 0, torch.cumsum(is_mem, -1) - is_mem.int())
    own = torch.amax(group, -1, keepdim=True) == group
    attention = attention.masked_fill(own & is_mem, LOWEST)
    return {"attention_mask": attention, "last_section_mask": own & (attention > -1), "is_mem": is_mem & (attention > -1)}


def landmark_layer(setting: str, tokens: int, size: int) -> tuple[Layer, Tensor, Tensor, Any]:
    """The layer, its input and output in the order in which tokens are read, and what theirs reads of it."""
    # In the first layer all landmarks are the same.
    layer = Layer(setting, tokens, kv_heads=4, depth=1, weights={"embedding": torch.randn(1, 64)})
    order = interleaved(tokens, size)
    return layer, layer.hidden[:, order], layer.ours[:, order], layer.like_theirs(layer.old_rotary())


@compares(
    "landmark:block_size=7,num_blocks=40", *LANDMARKS, compared=OUTPUT, rounding=ROUNDING,
    inputs=INPUTS.format("150 tokens and 21 landmarks, read at once, as in training") + "; masks are made here as their model makes them",
)  # fmt: skip
def landmark(source: Source) -> Pair:
    _, hidden, ours, owner = landmark_layer("landmark:block_size=7,num_blocks=40", 150, 7)
    count = hidden.shape[1]
    given = masks((torch.arange(count) % 8 == 7)[None], causal(count, count))
    code = source.load("LlamaAttention.forward")
    theirs, *_ = code.forward(owner, hidden, position_ids=torch.arange(count)[None], **given)
    return theirs, ours


@compares(
    "landmark:block_size=7,num_blocks=3", *LANDMARKS, compared=OUTPUT, rounding=ROUNDING,
    inputs=INPUTS.format("150 tokens and 21 landmarks, block by block, 3 blocks of those before retrieved") + "; their last block is not"
    " compared, which is not full",
)  # fmt: skip
def landmark_retrieved(source: Source) -> Pair:
    layer, hidden, ours, owner = landmark_layer("landmark:block_size=7,num_blocks=3", 150, 7)
    code, past, theirs = source.load("LlamaAttention.forward"), None, []
    cos, sin = layer.angles(torch.arange(256))

    def rotary(x: Tensor, seq_len: int) -> tuple[Tensor, Tensor]:
        return cos[None, None], sin[None, None]

    owner.rotary_emb = rotary
    whole = hidden.shape[1] // 8 * 8
    for begin in range(0, whole, 8):
        given = masks((torch.arange(8) == 7)[None], causal(8, 8))
        given["attention_mask"] = torch.nn.functional.pad(given["attention_mask"], (begin, 0))
        place = torch.arange(begin, begin + 8)[None]
        out, _, past = code.forward(
            owner, hidden[:, begin : begin + 8], position_ids=place, past_key_value=past, use_cache=True, mem_freq=7, cache_top_k=3, **given
        )
        theirs.append(out)
    return torch.cat(theirs, 1), ours[:, :whole]


def windows(layer: Layer, size: int, ratio: int) -> Iterator[tuple[list[int], Tensor]]:
    """Of each window: where the layer has its tokens, in the order in which they are read, and which of these are beacons."""
    for begin in range(0, layer.tokens, size):
        order = []
        for place in interleaved(min(size, layer.tokens - begin), ratio):
            inserted = place - min(size, layer.tokens - begin)
            order.append(begin + place if inserted < 0 else layer.tokens + begin // ratio + inserted)
        yield order, (torch.tensor(order) >= layer.tokens).long()


@compares(
    "activation_beacon:window_size=24,ratio=4", *BEACONS, BEACON_LAYER, compared=OUTPUT, rounding=ROUNDING,
    inputs=INPUTS.format("110 tokens and 27 beacons, in windows of 24") + "; past beacons, positions and masks are handed to their layer as"
    " their memory does, and its rotary embedding is the model's",
)  # fmt: skip
def activation_beacon(source: Source) -> Pair:
    sizes = {"query": (64, 64), "key": (32, 64), "value": (32, 64), "embedding": (1, 64)}
    added = {name: torch.randn(size) * (0.1 if size[0] > 1 else 1.0) for name, size in sizes.items()}
    layer = Layer("activation_beacon:window_size=24,ratio=4", 110, weights=added)

    def rotary(q: Tensor, k: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        turned = []
        for x, places in ((q, position_ids[:, -q.shape[2] :]), (k, position_ids)):
            cos, sin = layer.angles(places)
            turned.append(x * cos[:, None] + rotate_half(x) * sin[:, None])
        return turned[0], turned[1]

    owner = layer.like_theirs(rotary)
    names = ("forward", "qkv_proj_with_beacon", "o_proj_with_beacon")
    code = source.load(*(f"LlamaAttention.{name}" for name in names), repeat_kv=repeat_kv)
    owner.config = SimpleNamespace(beacon_param=["q", "k", "v"])
    for letter, name in zip("qkv", ("query", "key", "value"), strict=True):
        own = torch.nn.Linear(64, sizes[name][0], bias=False)
        own.weight.copy_(getattr(layer.attention, f"{letter}_proj").weight + added[name])
        setattr(owner, f"beacon_{letter}_proj", own)
    for name in names[1:]:
        setattr(owner, name, getattr(code, name).__get__(owner))
    keys, values, theirs, ours = None, None, [], []
    for order, beacons in windows(layer, 24, 4):
        before = 0 if keys is None else keys.shape[2]
        count = before + len(order)
        out, _, (key, value, *_) = code.forward(
            owner, layer.hidden[:, order], attention_mask=causal(len(order), count), position_ids=torch.arange(count)[None],
            past_key_value=(keys, values, int(beacons.sum()), beacons),
        )  # fmt: skip
        key, value = key[:, :, beacons == 1], value[:, :, beacons == 1]
        keys, values = (key, value) if keys is None or values is None else (torch.cat([keys, key], 2), torch.cat([values, value], 2))
        theirs.append(out)
        ours.append(layer.ours[:, order])
    return torch.cat(theirs, 1), torch.cat(ours, 1)
