"""Logits of a model that reads one token after the other, and how far they are from others."""

import torch
from torch import Tensor

from longreach.decoding.reading import CHUNK
from longreach.engine.cache_argument import cache_argument, cache_of
from longreach.evaluation.claims.base import ClaimBench
from longreach.evaluation.evidence import Number, counted
from longreach.evaluation.intervals import Interval


def ids_inside(bench: ClaimBench) -> Tensor:
    """[1, T] random ids, inside the window: no more than a chunk, whose logits can be held at once."""
    generator, count = torch.Generator().manual_seed(0), min(bench.subject.window, CHUNK)
    return torch.randint(3, bench.model.config.get_text_config().vocab_size, (1, count), generator=generator)


@torch.no_grad()
def token_by_token(bench: ClaimBench, ids: Tensor) -> Tensor:
    """[1, T, V] logits of ids [1, T], through the cache."""
    cache, parts = None, []
    for token in ids.split(1, dim=1):
        out = bench.model(token, **cache_argument(bench.model, cache), use_cache=True)
        cache = cache_of(out)
        parts.append(out.logits)
    return torch.cat(parts, 1)


def largest(spec: str, differences: Tensor) -> Number:
    """The largest of differences [1, T, V]: counted and not estimated, so its interval has no width."""
    most = float(differences.abs().max())
    return Number(spec=spec, interval=Interval(most, most, most), of=counted(range(differences.shape[1]), "token"))
