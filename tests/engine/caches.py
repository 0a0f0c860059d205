"""What tests of snapshots do with caches."""

import torch
from transformers import DynamicCache

from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import random_ids


def read(model, cache, ids, **inputs):
    """Logits [B, T, V] of one forward pass."""
    with torch.no_grad():
        return model(ids, **cache_argument(model, cache), use_cache=True, **inputs).logits


def filled(model, tokens=20, rows=1, cache=None):
    """A cache that read so many tokens, by default a new one."""
    cache = DynamicCache(config=model.config) if cache is None else cache
    read(model, cache, random_ids(rows, tokens))
    return cache
