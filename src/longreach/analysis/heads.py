"""Positional heads: those whose slow rotary dimensions do the looking into the distance, and what the model loses without them.

Source: On the token distance modeling ability of higher RoPE attention dimension, 2024, arXiv:2410.08703. It correlates the dimensions of a
head with their contribution to capturing long distances; higher dimensions turn more slowly.

The contribution of a rotary pair n to a query's looking into the distance is what it adds to the logits of the far keys, weighted by the
attention that they get, less what it adds to those of all keys (softmax does not feel what is added to all):
C_n = sum_i sum_j A_ij far_ij (g_n(i, j) - mean_j g_n(i, j)), where g_n(i, j) is the product of the pair's two dimensions of the rotated
query i and key j. A head's score is Spearman's correlation of n with C_n: 1 where the contribution grows dimension by dimension.

Differs from the paper: it follows the paper's idea, not its formula to the letter; contributions are weighted by attention and centred,
queries are spread evenly over the second half of a text, and the first tokens, attention sinks, are left out. Soft caps and learned sinks
of a model do not count.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.analysis.single_heads import Head, observed
from longreach.core.errors import InputError, UnsupportedError
from longreach.core.progress import SILENT, Progress
from longreach.engine.apply import applied
from longreach.engine.engine import NAME
from longreach.engine.examine import examine
from longreach.engine.rotation import Attention, rotary_modules, table
from longreach.evaluation.text import Ids

_QUERIES = 64  # of each text
_SINKS = 4  # first tokens that do not count
_FAR = 4  # distances of at least this part of the text are far


@dataclass(frozen=True, kw_only=True)
class HeadScore:
    """Args: layer, head: from 0. score: -1 to 1. far: the share of its attention that goes to far keys (a fourth of the text away)."""

    layer: int
    head: int
    score: float
    far: float


def head_scores(model: PreTrainedModel, texts: Sequence[Ids], trained_window: int, *, progress: Progress = SILENT) -> list[HeadScore]:
    """The score of every head with a rotary embedding and without a sliding window of its own, highest first.

    Args: texts: ids, all of one length, as the model is to read them.
    Raises: UnsupportedError for a model that the engine cannot run, or without such heads; InputError for texts that are too short.
    """
    length = len(texts[0])
    if length < _FAR * 2 * _SINKS:
        raise InputError(f"heads are scored on texts of at least {_FAR * 2 * _SINKS} tokens, not {length}")
    attentions = examine(model, trained_window)
    if any(NAME in vars(attention.module) for attention in attentions):
        why = "it does not attend by the model's own attention, where heads are found"
        raise UnsupportedError(applied(model), type(model).__name__, why, "choose a positions method, as yarn, or none")
    layers = [index for index, attention in enumerate(attentions) if attention.rotation is not None and attention.window is None]
    if not layers:
        raise UnsupportedError("heads", type(model).__name__, "no layer has rotary positions over the whole text", "choose another model")
    sums: dict[int, Tensor] = {}
    shares: dict[int, Tensor] = {}

    pairs = {layer: _rotary_pairs(model, attentions[layer]) for layer in layers}

    def observe(layer: int, q: Tensor, k: Tensor, scale: float) -> None:
        if layer in layers:
            contributions, far = _contributions(attentions[layer], pairs[layer], q[0].float(), k[0].float(), scale)
            sums[layer] = sums.get(layer, 0.0) + contributions
            shares[layer] = shares.get(layer, 0.0) + far

    with torch.no_grad(), observed(model, attentions, observe):
        for text in texts:
            model(torch.from_numpy(text)[None].long().to(model.device), use_cache=False, logits_to_keep=1)
            progress.advance(length)
    found = [
        HeadScore(layer=layer, head=head, score=spearman(sums[layer][head]), far=float(shares[layer][head]) / len(texts))
        for layer in layers
        for head in range(attentions[layer].num_heads)
    ]
    return sorted(found, key=lambda each: (-each.score, -each.far, each.layer, each.head))


def _rotary_pairs(model: PreTrainedModel, attention: Attention) -> int:
    """How many pairs of dimensions turn."""
    assert attention.rotation is not None  # noqa: S101 - the caller chose
    rotary = rotary_modules(model)[attention.rotation.rotary][2]
    place = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    return attention.rotation.angles(table(rotary, place.float(), place, attention.rotation.layer_type)[0]).shape[-1]


def _contributions(attention: Attention, half: int, q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """C_n [H, R / 2], fastest pair first, and the share of attention on far keys [H]; q [H, T, D], k [K, T, D], rotated."""
    assert attention.rotation is not None  # noqa: S101 - the caller chose
    length = q.shape[1]
    k = k.repeat_interleave(len(q) // len(k), 0)
    i = torch.linspace(length // 2, length - 1, min(_QUERIES, length // 2), device=q.device).long()[:, None]
    j = torch.arange(length, device=q.device)[None]
    seen, far = j <= i, (i - j >= length // _FAR) & (j >= _SINKS)
    logits = (q[:, i[:, 0]] @ k.mT * scale).masked_fill(~seen, float("-inf"))
    weights = logits.softmax(-1) * far
    total = weights.sum(-1, keepdim=True)
    # What a pair adds is linear in the keys: the keys are added up first.
    kept = (weights - total * seen / seen.sum(-1, keepdim=True)) @ k
    by_dimension = (q[:, i[:, 0]] * kept).sum(1) * scale
    if attention.rotation.layout == "half":
        pairs = by_dimension[:, :half] + by_dimension[:, half : 2 * half]
    else:
        pairs = by_dimension[:, : 2 * half].unflatten(-1, (half, 2)).sum(-1)
    return pairs.double().cpu(), total.mean(1)[:, 0].double().cpu()


def spearman(values: Tensor) -> float:
    """Rank correlation of [n] values with their index; equal values share a rank; 0 where all are equal.

    >>> round(spearman(torch.tensor([1.0, 3.0, 2.0])), 3)
    0.5
    """
    ranks = torch.stack([(values < value).sum() + (values == value).sum() / 2 for value in values]).double()
    index = torch.arange(len(values), dtype=torch.float64)
    ranks, index = ranks - ranks.mean(), index - index.mean()
    size = float(ranks.norm() * index.norm())
    return float(ranks @ index) / size if size else 0.0


def random_heads(heads: Sequence[Head], count: int, seed: int) -> list[Head]:
    """`count` of these heads, drawn by a seed.

    Raises: InputError where there are not so many.
    """
    if count > len(heads):
        raise InputError(f"there are {len(heads)} heads beside the positional ones, and {count} are to be compared with; ablate fewer")
    return sorted(random.Random(seed).sample(list(heads), count))  # noqa: S311 - not for secrets
