"""Rows of a batch that come and go while a cache is in use, whatever its stores."""

import pytest
import torch
from transformers import DynamicCache

from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.conformance.base import close, left_padding, logits, shared_model
from longreach.testing.models import random_ids

LENGTHS = (30, 30, 21)  # tokens of the rows; of two that begin together, the third comes later
STORES = ["h2o:budget=16,slack=4", "tova:budget=12", "infllm:block_size=4,num_blocks=2,local_window=8,num_representatives=2"]


@pytest.mark.parametrize("changes", [((0, 1),), ((2,),), ((0, 2, 2, 1), (3, 1))], ids=str)
@pytest.mark.parametrize("spec", STORES)
@torch.no_grad()
def test_rows_that_are_left_go_on(spec, changes):
    model, ids, mask = shared_model(), random_ids(3, 30), left_padding(LENGTHS, 30)
    cache = DynamicCache(config=model.config)
    with apply(model, spec, warn=False):
        model(ids, attention_mask=mask, **cache_argument(model, cache), use_cache=True)
        for rows in changes:
            cache.batch_select_indices(torch.tensor(rows))
            ids, mask = ids[list(rows)], mask[list(rows)]
        for count in (1, 6):
            ids = torch.cat([ids, new := random_ids(len(ids), count, seed=count)], 1)
            mask = torch.cat([mask, torch.ones_like(new)], 1)
            ours = model(new, attention_mask=mask, **cache_argument(model, cache), use_cache=True).logits
            close(ours, logits(model, ids, mask)[:, -count:], f"{count} tokens")
