"""What cache policies keep, and what layers give under them, by the classes that authors published."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import repeat_kv, rotate_half

import longreach
from _agreement.base import Pair, compares
from _agreement.layers import INPUTS, Layer
from _agreement.theirs import Source
from longreach.cache.compact._bits import Bits
from longreach.cache.eviction.sirllm import SirLLM
from longreach.cache.retrieval.infllm import InfLLM
from longreach.core.bands import PROBE, TRUE
from longreach.core.memory import Signals
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import tiny_model

OUTPUT = "output of the attention layer, token by token"
KEPT = "tokens of the prompt that each key-value head keeps, as 0 and 1"
KEPT_COUNTS = "how many tokens of the prompt each key-value head keeps"
ROUNDING = 1e-5
OF_TRANSFORMERS = {"repeat_kv": repeat_kv, "rotate_half": rotate_half}


def rotated(layer: Layer) -> tuple[Tensor, Tensor]:
    """Queries and keys [1, H, T, D] at their positions."""
    cos, sin = layer.angles(layer.positions)
    return layer.q * cos + rotate_half(layer.q) * sin, layer.k * cos + rotate_half(layer.k) * sin


def kept(layer: Layer, setting: str) -> Tensor:
    """[K, T] whether each key-value head keeps each token of the layer's text as a prompt, by the engine."""
    return (held(layer, setting).index[0, :, :, None] == torch.arange(layer.tokens)).any(1)


def held(layer: Layer, setting: str) -> Any:
    """The state of the engine's store once the layer's text was read as a prompt."""
    with longreach.apply(layer.model, setting, warn=False):
        cache = DynamicCache(config=layer.model.config)
        for ids in (layer.ids, layer.ids[:, :1]):  # the prompt is cut when the token after it is read
            layer.model(ids, **cache_argument(layer.model, cache))
    (row,) = cache.layers[0].store.rows.values()
    return row.state


def found_in(vectors: Tensor, keys: Tensor) -> Tensor:
    """[T] which tokens' keys `vectors` [n, D] of one head are; keys [T, D]."""
    return (vectors[:, None] == keys).all(-1).any(0)


STREAMING = ("mit-han-lab/streaming-llm", "2e5042606d69933d88fbf909bd77907456b9b4dd", "streaming_llm/pos_shift/modify_llama.py")


@compares(
    "sinks:num_sinks=4,window_size=17", *STREAMING, compared=OUTPUT, rounding=ROUNDING,
    inputs=INPUTS.format("100 tokens") + "; theirs keeps 4 and 16 tokens before each, cut after every token as its evaluation does",
)  # fmt: skip
def sinks(source: Source) -> Pair:
    layer, past, found = Layer("sinks:num_sinks=4,window_size=17", 100), None, []
    forward = source.load("llama_pos_shift_attention_forward", **OF_TRANSFORMERS).llama_pos_shift_attention_forward
    cut = replace(source, file="streaming_llm/kv_cache.py").load("StartRecentKVCache", print=lambda text: None).StartRecentKVCache(4, 16)
    for t in range(layer.tokens):
        place = torch.tensor([[past[0].shape[2] if past else 0]])  # of the query: behind what is cached
        output, _, past = forward(layer.like_theirs(layer.old_rotary()), layer.hidden[:, t : t + 1], None, place, past, use_cache=True)
        found.append(output)
        (past,) = cut([past])
    return torch.cat(found, 1), layer.ours


H2O = ("FMInference/H2O", "ac75c2a8a9e76832b2a4139b9363373b56336bfb", "h2o_hf/utils_real_drop/modify_llama.py")


def h2o(source: Source, setting: str, name: str) -> Pair:
    layer, past, found = Layer(setting, 100, kv_heads=4), None, []
    theirs = source.load(f"{name}.forward", "H2OKVCache_LayerWise", print=lambda text: None, **OF_TRANSFORMERS)
    like = layer.like_theirs(layer.old_rotary(), kv_cache=theirs.H2OKVCache_LayerWise(12, 12))
    for t in range(layer.tokens):
        step = layer.hidden[:, t : t + 1], None, layer.positions[:, t : t + 1].clone(), past
        output, _, past = theirs.forward(like, *step, use_cache=True)
        found.append(output)
    return torch.cat(found, 1), layer.ours


H2O_INPUTS = INPUTS.format("100 tokens") + ", each head with keys of its own; theirs keeps 12 heavy hitters and 12 last tokens"


@compares("h2o:budget=24,recent=12,slack=1", *H2O, compared=OUTPUT, inputs=H2O_INPUTS, rounding=ROUNDING)
def h2o_in_place(source: Source) -> Pair:
    return h2o(source, "h2o:budget=24,recent=12,slack=1", "H2OLlamaAttention")


@compares("h2o:budget=24,recent=12,slack=1,packed=true", *H2O, compared=OUTPUT, inputs=H2O_INPUTS, rounding=ROUNDING)
def h2o_packed(source: Source) -> Pair:
    return h2o(source, "h2o:budget=24,recent=12,slack=1,packed=true", "H2OLlamaAttention_streaming")


TOVA = ("schwartz-lab-NLP/TOVA", "9c7d09bfff64cfc92cfb5f9d7e138cb04866e5a7", "src/tova_cache.py")


@compares(
    "tova:budget=24,slack=1", *TOVA, compared=OUTPUT, rounding=ROUNDING,
    inputs=INPUTS.format("100 tokens") + "; attention is computed here, theirs is what is dropped after each token",
)  # fmt: skip
def tova(source: Source) -> Pair:
    layer, found = Layer("tova:budget=24,slack=1", 100), []
    cache = source.load("TOVACache", DynamicCache=object).TOVACache(24)
    q, k = rotated(layer)
    cache.key_cache, cache.value_cache = [k[:, :, :0]], [layer.v[:, :, :0]]
    for t in range(layer.tokens):
        cache.key_cache[0], cache.value_cache[0] = (
            torch.cat([old[0], new[:, :, t : t + 1]], 2) for old, new in ((cache.key_cache, k), (cache.value_cache, layer.v))
        )
        keys, values = (repeat_kv(x[0], 2) for x in (cache.key_cache, cache.value_cache))
        weights = (q[:, :, t : t + 1] @ keys.mT / 4).softmax(-1)
        found.append(weights @ values)
        cache.reduce(0, weights)
    return layer.out(torch.cat(found, 2)), layer.ours


SNAPKV = ("FasterDecoding/SnapKV", "e216ddc84c5bd210378cbdbbba12ba02102aa640", "snapkv/monkeypatch/snapkv_utils.py")


def snapkv(cluster: Callable[..., Any], layer: Layer, **settings: Any) -> Tensor:
    """[H, T] what their class keeps."""
    q, k = rotated(layer)
    keys, _ = cluster(**settings).update_kv(k, q, layer.v, None, 1)
    return torch.stack([found_in(mine, own) for mine, own in zip(keys[0], k[0], strict=True)])


@compares(
    "snapkv:budget=64,window_size=16", *SNAPKV, compared=KEPT, inputs=INPUTS.format("300 tokens") + ", each head with keys of its own",
)  # fmt: skip
def snapkv_average(source: Source) -> Pair:
    layer = Layer("snapkv:budget=64,window_size=16", 300, kv_heads=4)
    cluster = source.load("SnapKVCluster").SnapKVCluster
    return snapkv(cluster, layer, window_size=16, max_capacity_prompt=64), kept(layer, "snapkv:budget=64,window_size=16")


@compares(
    "snapkv:budget=64,window_size=16,pooling=maximum,kernel_size=7", *SNAPKV, compared=KEPT,
    inputs=INPUTS.format("300 tokens") + ", each head with keys of its own",
    differs="Neighbours that share a maximum have equal scores. Where the budget ends among them, the later ones stay here; in the "
    "authors' code it is left to torch.topk.",
)  # fmt: skip
def snapkv_maximum(source: Source) -> Pair:
    setting = "snapkv:budget=64,window_size=16,pooling=maximum,kernel_size=7"
    layer, cluster = Layer(setting, 300, kv_heads=4), source.load("SnapKVCluster").SnapKVCluster
    theirs = snapkv(cluster, layer, window_size=16, max_capacity_prompt=64, kernel_size=7, pooling="maxpool")
    return theirs, kept(layer, setting)


KVPRESS = ("NVIDIA/kvpress", "8bb29b9c3078452a86d692f29123fa6c793e2b05")


def undecorated(made: type) -> type:
    """Stands in for `dataclass`: their fields all have defaults, which a plain class has, too."""
    return made


def press(source: Source, name: str, setting: str, *, module: Any = None, **given: Any) -> Pair:
    """[K, T] what a scorer of kvpress keeps of a prompt, which it cuts once."""
    layer = Layer(setting, 300)
    _, keys = rotated(layer)
    if module is not None:
        given["get_prerope_query_states"] = lambda module, hidden: layer.q[:, :, -hidden.shape[1] :]
        module.rotary_emb = layer.new_rotary()
    found = source.load(name, ScorerPress=object, dataclass=undecorated, F=functional, **given)
    best = getattr(found, name)().score(module, layer.hidden, keys, layer.v, None, {})[0].topk(64, dim=-1).indices
    return torch.zeros(len(best), layer.tokens, dtype=torch.bool).scatter(-1, best, True), kept(layer, setting)


PRESS_INPUTS = INPUTS.format("300 tokens") + "; theirs is kvpress"


@compares(
    "knorm:budget=64", *KVPRESS, "kvpress/presses/knorm_press.py", compared=KEPT, inputs=PRESS_INPUTS,
    differs="In the first layer, tokens of one id have keys of one norm. Where the budget ends among them, the later ones stay here; in "
    "kvpress it is left to torch.topk.",
)  # fmt: skip
def knorm(source: Source) -> Pair:
    return press(source, "KnormPress", "knorm:budget=64")


@compares("keydiff:budget=64", *KVPRESS, "kvpress/presses/keydiff_press.py", compared=KEPT, inputs=PRESS_INPUTS)
def keydiff(source: Source) -> Pair:
    return press(source, "KeyDiffPress", "keydiff:budget=64")


@compares(
    "expected_attention:budget=64", *KVPRESS, "kvpress/presses/expected_attention_press.py", compared=KEPT, inputs=PRESS_INPUTS,
)  # fmt: skip
def expected_attention(source: Source) -> Pair:
    module = SimpleNamespace(head_dim=16, config=SimpleNamespace(num_attention_heads=4))
    return press(source, "ExpectedAttentionPress", "expected_attention:budget=64", module=module, repeat_kv=repeat_kv)


LAGKV = ("AI-Lab-China-Merchants-Bank/LagKV", "2a9d19e7d17dbf49c5c596d2980ef0728ea121ec", "lag_kv.py")


class OldCache:
    """What of transformers' DynamicCache the authors' class uses, as it was up to 4.53."""

    def __init__(self, data: Any = None) -> None:
        self.key_cache: list[Tensor] = []
        self.value_cache: list[Tensor] = []
        self._seen_tokens = 0


@compares(
    "lagkv:ratio=0.5,num_sinks=8,lag=32", *LAGKV, compared="tokens that each key-value head keeps, as 0 and 1",
    inputs=INPUTS.format("168 tokens") + ", read by theirs in pieces of a partition, the first one of two and the first tokens",
    differs="Scores count to 10 binary digits here, so that every way to compute them keeps the same tokens. Two tokens of one partition "
    "differ by less (0.062238 and 0.062236), and the later one stays.",
)  # fmt: skip
def lagkv(source: Source) -> Pair:
    setting = "lagkv:ratio=0.5,num_sinks=8,lag=32"
    layer = Layer(setting, 8 + 5 * 32)
    _, keys = rotated(layer)
    cache = source.load("LagKV", DynamicCache=OldCache).LagKV(ratio=0.5, sink_size=8, lag_size=32)
    for begin, end in ((0, 72), *((end - 32, end) for end in range(104, layer.tokens + 1, 32))):
        cache.update(keys[:, :, begin:end].clone(), layer.v[:, :, begin:end].clone(), 0)  # theirs writes in place
    theirs = torch.stack([found_in(mine, own) for mine, own in zip(cache.key_cache[0][0], keys[0], strict=True)])
    return theirs, kept(layer, setting)


ADA = ("FFY0/AdaKV", "efe4e2eea0099bf497f0c175ac5440a915d89f83", "adaptive_snapkv/monkeypatch/snapkv_utils.py")


def ada(source: Source, floor: float) -> Pair:
    """[K, T] what each key-value head keeps of the prompt."""
    setting = f"snapkv:budget=64,window_size=16+ada:floor={floor:g}"
    layer = Layer(setting, 300)
    q, k = rotated(layer)
    cluster = source.load("AdaptiveSnapKVCluster").AdaptiveSnapKVCluster(
        window_size=16, kernel_size=5, pooling="avgpool", base_capacity=64, floor_alpha=floor, skip=0, normalize=False, layer_idx=0,
        num_hidden_layers=1, gqa_support=True, num_key_value_groups=2, gqa_func="mean",
    )  # fmt: skip
    keys, _ = cluster.update_kv(k, q, layer.v)
    by_head = keys.split(cluster.head_lens.tolist())
    return torch.stack([found_in(mine, own) for mine, own in zip(by_head, k[0], strict=True)]), kept(layer, setting)


ADA_INPUTS = INPUTS.format("300 tokens") + "; theirs for grouped queries, by the mean, without normalising scores"


@compares("snapkv:budget=64,window_size=16+ada:floor=0", *ADA, method="ada", compared=KEPT, inputs=ADA_INPUTS)
def ada_without_floor(source: Source) -> Pair:
    return ada(source, 0.0)


@compares(
    "snapkv:budget=64,window_size=16+ada:floor=0.1", *ADA, method="ada", compared=KEPT_COUNTS, inputs=ADA_INPUTS,
    differs="The authors' code shares out (1 - floor) of the budget, also where it rounds the floor down, and rounds to the nearest token. "
    "Here all is shared out that the floor leaves, and rounded down, so that a layer never keeps more than its budget.",
)  # fmt: skip
def ada_with_floor(source: Source) -> Pair:
    theirs, ours = ada(source, 0.1)
    return theirs.sum(1), ours.sum(1)


PYRAMID = ("Zefan-Cai/KVCache-Factory", "c97f9d706d63d1b56e980f8b81b2a924c21162b3", "pyramidkv/pyramidkv_utils.py")


def pyramid(source: Source, budget: int, tokens: int) -> Pair:
    """Tokens that stay of a prompt in each of 5 layers, with 8 at its end that stay in any case."""
    cluster = source.load("PyramidKVCluster", os=os).PyramidKVCluster
    x = torch.randn(1, 1, tokens, 16)
    settings = {"num_hidden_layers": 5, "window_size": 8, "max_capacity_prompt": budget, "beta": 20}
    theirs = [cluster(layer_idx=i, **settings).update_kv(x, x, x, None, 1)[0].shape[2] for i in range(5)]
    model = tiny_model(num_hidden_layers=5, max_position_embeddings=2048)
    ids = torch.randint(3, 97, (1, tokens), generator=torch.Generator().manual_seed(0))
    with longreach.apply(model, f"snapkv:budget={budget},window_size=8+pyramid", warn=False):
        cache = DynamicCache(config=model.config)
        for part in (ids, ids[:, :1]):
            model(part, **cache_argument(model, cache))
    ours = [next(iter(layer.store.rows.values())).state.index.shape[2] for layer in cache.layers]
    return torch.tensor(theirs), torch.tensor(ours)


@compares(
    "snapkv:budget=88,window_size=8+pyramid", *PYRAMID, method="pyramid", compared="tokens of the prompt that stay, in each of 5 layers",
    inputs="300 random tokens, of which 8 stay in any case",
)  # fmt: skip
def pyramid_even(source: Source) -> Pair:
    return pyramid(source, 88, 300)


@compares(
    "snapkv:budget=100,window_size=8+pyramid", *PYRAMID, method="pyramid", compared="tokens of the prompt that stay, in each of 5 layers",
    inputs="300 random tokens, of which 8 stay in any case",
    differs="The authors' code rounds the least budget and the step from layer to layer down, so that lower layers keep a few tokens more; "
    "here each layer's budget is rounded, and their sum is that of equal budgets.",
)  # fmt: skip
def pyramid_uneven(source: Source) -> Pair:
    return pyramid(source, 100, 300)


@compares(
    "snapkv:budget=88,window_size=8+pyramid", *PYRAMID, method="pyramid", compared="tokens of the prompt that stay, in each of 5 layers",
    inputs="120 random tokens, of which 8 stay in any case",
    differs="Of a prompt shorter than twice the budget, the authors' code keeps the same in all layers. Here lower layers keep it whole.",
)  # fmt: skip
def pyramid_short(source: Source) -> Pair:
    return pyramid(source, 88, 120)


KIVI = ("jy-yuan/KIVI", "876b4d2d08e3b1d5f70d0969c299d8c7c42ddfb6", "quant/new_pack.py")


@compares(
    "quantised:bits=4", *KIVI, compared="a chunk's keys and values after coding, as far as they are from what they were",
    inputs="random keys and values of 32 tokens, 2 heads of 32, in float16",
    differs="The authors' code divides and rounds in float16, here it is done in float32 with the same float16 steps and least numbers: a "
    "number in the middle between two codes can get the other one.",
)  # fmt: skip
def quantised(source: Source) -> Pair:
    theirs = source.load("quant_and_pack_kcache", "quant_and_pack_vcache", "unpack_and_dequant_kcache", "unpack_and_dequant_vcache")
    k, v = (torch.randn(1, 2, 32, 32).half() for _ in range(2))
    keys = theirs.unpack_and_dequant_kcache(*theirs.quant_and_pack_kcache(k, 32, 4), 32, 4)
    values = theirs.unpack_and_dequant_vcache(*theirs.quant_and_pack_vcache(v, 32, 4), 32, 4)
    ours = [Bits(4).decode(Bits(4).encode(x, side), side) for x, side in ((k, "keys"), (v, "values"))]
    return torch.stack([keys - k, values - v]), torch.stack([ours[0] - k.float(), ours[1] - v.float()])


THINK = ("SalesforceAIResearch/ThinK", "d200577a7e52adf130772ca682ea958c2b442601", "ThinK_eager/src/kv_pruning_utils.py")


@compares(
    "think:keep=0.6", *THINK, compared="keys of the prompt with the channels that stay, but for the last 32 tokens",
    inputs=INPUTS.format("300 tokens") + ", each head with keys of its own; theirs prunes 0.4 of the channels",
)  # fmt: skip
def think(source: Source) -> Pair:
    layer = Layer("think:keep=0.6", 300, kv_heads=4)
    q, k = rotated(layer)
    theirs, _, _ = source.load("key_pruner_query_driven").key_pruner_query_driven(k, q, recent_size=32, ratio=0.4)
    return theirs, held(layer, "think:keep=0.6").channels[TRUE]


CHANNELS = "channels of the keys that stay, as 0 and 1"


def channels(state: Any) -> Tensor:
    """[K, D] which channels the keys of a state have."""
    return torch.zeros(state.thin.shape[1], 16).scatter(1, state.thin[0], 1.0)


@compares(
    "snapkv:budget=64+think:keep=0.6", *THINK, method="think", compared=CHANNELS,
    inputs=INPUTS.format("300 tokens") + ", each head with keys of its own; theirs keeps 64 tokens and prunes 0.4 of their channels",
)  # fmt: skip
def think_on_snapkv(source: Source) -> Pair:
    layer = Layer("snapkv:budget=64+think:keep=0.6", 300, kv_heads=4)
    q, k = rotated(layer)
    cluster = source.load("SnapKVCluster").SnapKVCluster(window_size=32, max_capacity_prompt=64)
    _, _, stay, _ = cluster.update_thinkv(k, q, layer.v, None, 1)
    return stay[0], channels(held(layer, "snapkv:budget=64+think:keep=0.6"))


@compares(
    "think:keep=0.6", *KVPRESS, "kvpress/presses/think_press.py", compared=CHANNELS,
    inputs=PRESS_INPUTS + ", which prunes 0.4 of the channels of keys that two heads share",
)  # fmt: skip
def think_of_shared_keys(source: Source) -> Pair:
    layer = Layer("think:keep=0.6", 300)
    _, keys = rotated(layer)
    found = source.load(
        "ThinKPress", BasePress=object, dataclass=undecorated, rotate_half=rotate_half,
        get_prerope_query_states=lambda module, hidden: layer.q[:, :, -hidden.shape[1] :],
    )  # fmt: skip
    press, module = found.ThinKPress(), SimpleNamespace(head_dim=16, config=SimpleNamespace(num_attention_heads=4))
    press.key_channel_compression_ratio = 0.4
    given = {"hidden_states": layer.hidden, "position_embeddings": layer.angles(layer.positions)}
    theirs, _ = press.compress(module, layer.hidden, keys.clone(), layer.v, None, given)
    return theirs[0].any(1), channels(held(layer, "think:keep=0.6"))


INFLLM = ("thunlp/InfLLM", "12b70798f56e56ebb23c53c7018091a3f540a028", "inf_llm/attention/context_manager.py")


@compares(
    "infllm:block_size=32,num_blocks=4,local_window=64", *INFLLM, compared="mean of the keys that stand for a block, of each head",
    inputs="random keys and attention of a block of 32 tokens and 4 heads; float32; the rest of theirs needs a GPU, and was not run",
)  # fmt: skip
def infllm(source: Source) -> Pair:
    keys, received = torch.randn(1, 4, 32, 16), torch.rand(1, 4, 32)
    sizes = SimpleNamespace(num_units=1, unit_size=4, num_heads=4, num_heads_kv=4, dim_head=16, block_size=32, repr_topk=4)
    theirs = source.load("ContextManager.get_block_k", "ContextManager.from_group_kv")
    sizes.from_group_kv = partial(theirs.from_group_kv, sizes)
    method = InfLLM(block_size=32, num_blocks=4, local_window=64)
    return theirs.get_block_k(sizes, keys, received).mean(-2), method.represent(keys, received)


SIRLLM = ("Zoeyyao27/SirLLM", "4c95578ba69d0c849f02cafcb3a7a60a32218987", "sir_llm/kv_cache.py")


@compares(
    "sirllm:budget=40,num_sinks=4,recent=16,slack=20", *SIRLLM, compared="tokens that stay, as 0 and 1",
    inputs="entropies of 60 tokens, drawn at random; theirs keeps 4 first tokens, 20 by entropy and 16 last ones",
    differs="In the authors' code a surprising token among the first or the last ones counts as one of the 20, and last tokens fill up the "
    "budget, so that more of these stay. Here the 20 are chosen among the others.",
)  # fmt: skip
def sirllm(source: Source) -> Pair:
    entropy = torch.rand(60, generator=torch.Generator().manual_seed(0))
    given = {"print": lambda text: None}
    cut = source.load("StartRecentKVCache", **given).StartRecentKVCache(4, 16, 20)
    numbers = torch.arange(60.0)[None, None, :, None]
    (((theirs, _),), _) = cut.evict_for_space_token_entropy([[numbers, numbers]], entropy.tolist(), 0)
    method = SirLLM(budget=40, num_sinks=4, recent=16, slack=20)
    signals = Signals(seen=60, index=torch.arange(60)[None, None], entropy=entropy[None, None])
    ours = method.keep(signals, PROBE)[0, 0]
    return (theirs[0, 0] == torch.arange(60)).any(0), ours


@compares(
    "duo:heads=0.1,num_sinks=4,window_size=17",
    "mit-han-lab/duo-attention", "fe93c314ae87306ef6629dc16713250b4718ffe7", "duo_attn/patch/streaming_attn.py",
    compared="output of the attention layer", rounding=ROUNDING,
    inputs=INPUTS.format("104 tokens") + "; theirs for the head that streams, with its queries, and plain attention for the other",
)  # fmt: skip
def duo(source: Source) -> Pair:
    layer = Layer("duo:heads=0.1,num_sinks=4,window_size=17", 104)
    code = source.load("generate_streaming_mask", "streaming_attn_sdpa")
    (q, k), v = rotated(layer), layer.v
    streamed = code.streaming_attn_sdpa(
        *(x.transpose(1, 2) for x in (q[:, :2], k[:, :1], v[:, :1])), code.generate_streaming_mask(104, 4, 17, "cpu")
    )
    whole = functional.scaled_dot_product_attention(q[:, 2:], k[:, 1:], v[:, 1:], is_causal=True, enable_gqa=True)
    return layer.out(torch.cat([streamed.transpose(1, 2), whole], 1)), layer.ours
