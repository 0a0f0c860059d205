"""What queries find in caches that keep everything, and what layers give then."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from transformers import DynamicCache
from transformers.models.llama.modeling_llama import repeat_kv, rotate_half

import longreach
from _agreement.base import Pair, compares
from _agreement.layers import INPUTS, Layer
from _agreement.theirs import Source
from longreach.attention.sparse.hip import Hip
from longreach.cache.retrieval.longcache import LongCache
from longreach.cache.retrieval.squeezed import Squeezed
from longreach.engine.cache_argument import cache_argument

OUTPUT = "output of the attention layer, token by token"
ROUNDING = 1e-5


def turned(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, position_ids: object) -> tuple[torch.Tensor, ...]:
    """`apply_rotary_pos_emb` of transformers 4.38 to 4.47."""
    return tuple(x * cos[:, None] + rotate_half(x) * sin[:, None] for x in (q, k))


@compares(
    "quest:budget=24,page_size=4,dense_layers=0",
    "mit-han-lab/Quest", "01c1623bf9395009520874e989e29f683203b357", "evaluation/quest_attention.py",
    compared=OUTPUT, rounding=ROUNDING,
    inputs=INPUTS.format("240 tokens, 200 of them a prompt") + "; theirs ranks the page that is being filled first, too",
    differs="bounds count to ten binary digits here, and of pages that are then equal the later is read",
)  # fmt: skip
def quest(source: Source) -> Pair:
    setting, prompt = "quest:budget=24,page_size=4,dense_layers=0", 200
    layer, ours, theirs = Layer("full", 240), [], []
    given = {"repeat_kv": repeat_kv, "apply_rotary_pos_emb": turned, "DynamicCache": DynamicCache}
    code = source.load("forward", "local_heavy_hitter_mask", **given)
    choose = code.local_heavy_hitter_mask

    def chosen(weights: torch.Tensor, budget: int, size: int) -> torch.Tensor:
        weights[..., (weights.shape[-1] - 1) // size * size :] = torch.finfo(weights.dtype).max
        return choose(weights, budget, size)

    code.globals["local_heavy_hitter_mask"] = chosen
    owner = layer.like_theirs(layer.new_rotary(), layer_id=5, chunk_size=4, token_budget=24)
    k, v = (getattr(layer.attention, f"{name}_proj")(layer.hidden[:, :prompt]).view(1, prompt, -1, 16).transpose(1, 2) for name in "kv")
    cos, sin = layer.angles(layer.positions[:, :prompt])
    past = k * cos[:, None] + rotate_half(k) * sin[:, None], v
    seen: list[torch.Tensor] = []
    hook = layer.attention.o_proj.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with longreach.apply(layer.model, setting, warn=False):
        cache = DynamicCache(config=layer.model.config)
        layer.model(layer.ids[:, :prompt], **cache_argument(layer.model, cache))
        for t in range(prompt, layer.tokens):
            layer.model(layer.ids[:, t : t + 1], **cache_argument(layer.model, cache))
            ours.append(seen[-1].view(-1))
    for t in range(prompt, layer.tokens):
        place = torch.tensor([[t]])
        *_, past = code.forward(owner, layer.hidden[:, t : t + 1], None, place, past, use_cache=True)
        theirs.append(seen[-1].view(-1))
    hook.remove()
    return torch.stack(theirs), torch.stack(ours)


@compares(
    "squeezed:keep=0.3",
    "SqueezeAILab/SqueezedAttention", "4a50c64eca2f20232a4e998d754d030ce3a7f6e6", "squeezedattention/clustering.py",
    compared="the share of a key's weight from which on clusters are read, for half, 0.7, 0.8 and 0.9 of the keys", rounding=ROUNDING,
    inputs="random keys and queries of 4 heads of 16, 300 tokens, 10 of them observed; both with the clusters found here; float32",
)  # fmt: skip
def squeezed(source: Source) -> Pair:
    keys, queries = torch.randn(1, 4, 300, 16), torch.randn(1, 4, 300, 16)
    ours = []
    for keep in (0.5, 0.3, 0.2, 0.1):
        policy = Squeezed(keep=keep, observe=10)
        group, centroids, bar = policy.cluster(keys[:, :, :290], queries[:, :, 290:], 16**-0.5)
        ours.append(bar)
    code = source.load("run_global_threshold")
    count = centroids.shape[2]
    found = code.run_global_threshold({0: keys}, {0: queries}, {0: centroids}, {0: group}, count, observation_window=10, device="cpu")
    return torch.tensor([found[part] for part in (0.5, 0.7, 0.8, 0.9)]), torch.cat(ours)


@compares(
    "hip:budget=32,key_block=4",
    "DeepAuto-AI/hip-attention", "fea42c779263a87b0a669d8ad330e219f18e5d53", "src/hip_attn/v1_1/attention2_draft.py",
    compared="the blocks of keys that 64 runs of queries find", rounding=0,
    inputs="random keys, 40 to 2000 of them, and queries of 16 numbers; of two queries theirs goes by the second",
)  # fmt: skip
def hip(source: Source) -> Pair:
    method = Hip(budget=32, key_block=4)
    code = source.load("masking_iteration_draft_numba_kernel", numba=SimpleNamespace(njit=lambda function: function))
    theirs, ours = [], []
    for run in range(64):
        blocks = 10 + 31 * run // 4
        keys, queries = torch.randn(blocks * 4, 16), torch.randn(2, 16)
        found = np.zeros(8, dtype=np.int32)
        code.masking_iteration_draft_numba_kernel(
            queries.numpy(), keys.numpy(), found, 32, 16, 2, 4, 1, False, 0, False, False, None, 0, False, None, None, 0, 0, 0, 0, 1
        )  # fmt: skip
        theirs.append(torch.from_numpy(found // 4))
        index, _ = method._search(queries[None, None, 1:], keys.view(1, 1, blocks, 4, 16), torch.tensor([blocks]))
        ours.append(index.flatten().sort().values)
    return torch.stack(theirs), torch.stack(ours)


@compares(
    "longcache:span_size=4,num_spans=8,local_window=36,top_k=2",
    "OpenMOSS/ReAttention", "126f9e21a76914ff4a8fda80f838d8df3934ea77",
    "opencompass/opencompass/models/xrliu/re_attention/cache_utils_v0921.py",
    compared="the pieces of four tokens of which a new token sees any", rounding=0.0,
    inputs="random keys and queries of 4 heads of 16, with keys of their own; ten texts of 300 tokens, the last of which looks; float32",
)  # fmt: skip
def longcache(source: Source) -> Pair:
    code = source.load("DynamicCache", "LightCacheConfig", dataclass=dataclass, logger=None)
    # Their local window is rounded so that 128 tokens are a part of what lies before it: here it has 40, as ours for this token.
    settings = code.LightCacheConfig(
        4, 4, global_size=4, mid_size=2, span_size=4, local_size=168, recall_clip=-1, pe_original=False, recall_option="default"
    )  # fmt: skip
    ours, theirs = torch.zeros(2, 10, 75)
    for text in range(10):
        q, k = torch.randn(2, 1, 4, 300, 16)
        cache = code.DynamicCache(settings)
        cache.update(q[:, :, :299], k[:, :, :299], k[:, :, :299], 0)
        *_, seen, _ = cache.update(q[:, :, 299:], k[:, :, 299:], k[:, :, 299:], 0)
        theirs[text, seen[0] // 4] = 1
        policy = LongCache(span_size=4, num_spans=8, local_window=36, top_k=2)
        found = policy.select(q[:, :, 299:], k.unflatten(2, (75, 4)), torch.tensor([74 - 9]))[0, 0, 0]
        ours[text, [*found[found >= 0].tolist(), *range(65, 75)]] = 1
    return theirs, ours


@compares(
    "focused:window_size=32,layers=0",
    "CStanKonrad/long_llama", "bfcb8d1dc6e2c0b744c3f8d42b9194cca99c4b55", "src/modeling_longllama.py",
    compared="output of the attention layer", rounding=ROUNDING,
    inputs=INPUTS.format("100 tokens, read in windows of 32, each of which goes into the memory of what follows"),
)  # fmt: skip
def focused(source: Source) -> Pair:
    layer = Layer("focused:window_size=32,layers=0", 100, kv_heads=4)
    memory = SimpleNamespace  # of keys, values and masks

    def joined(prev_mem_cache: SimpleNamespace, new_mem_content: SimpleNamespace, mem_config: object) -> SimpleNamespace:
        names = ("keys", "values", "masks")
        return memory(**{name: torch.cat([getattr(prev_mem_cache, name), getattr(new_mem_content, name)], -2) for name in names})

    code = source.load("LongLlamaAttention.forward", mem_apply_update=joined, LongLlamaMemCache=memory)
    settings = SimpleNamespace(positionals=True, cache_dtype=torch.float32, attention_grouping=None)
    owner = layer.like_theirs(layer.old_rotary(), mem_config=settings, max_cache=32)
    owner.config.torch_attention = False
    outs, kept = [], None
    for hidden in layer.hidden.split(32, 1):
        count = hidden.shape[1]
        out, *_, kept = code.forward(owner, hidden, layer.mask[..., :count, :count], torch.arange(count)[None], mem_cache=kept)
        outs.append(out)
    return torch.cat(outs, 1), layer.ours
