"""Rows of a batch that come and go while a cache is in use, whatever its stores."""

import pytest
import torch
from transformers import DynamicCache

from longreach.core.errors import LongreachError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.prompt import prompt_end
from longreach.testing.conformance.base import close, left_padding, logits, shared_model
from longreach.testing.models import random_ids

LENGTHS = (30, 30, 21)  # tokens of the rows; of two that begin together, the third comes later
STORES = [
    "h2o:budget=16,slack=4",
    "tova:budget=12,slack=1",
    "snapkv:budget=8,window_size=3",
    "sirllm:budget=10,num_sinks=2,slack=4",
    "infllm:block_size=4,num_blocks=2,local_window=8,num_representatives=2",
]


@pytest.mark.parametrize("changes", [((0, 1),), ((2,),), ((0, 2, 2, 1), (3, 1))], ids=str)
@pytest.mark.parametrize("spec", STORES)
@torch.no_grad()
def test_rows_that_are_left_go_on(spec, changes):
    model, ids, mask = shared_model(), random_ids(3, 30), left_padding(LENGTHS, 30)
    cache = DynamicCache(config=model.config)
    with apply(model, spec, warn=False), prompt_end(30):
        model(ids, attention_mask=mask, **cache_argument(model, cache), use_cache=True)
        for rows in changes:
            cache.batch_select_indices(torch.tensor(rows))
            ids, mask = ids[list(rows)], mask[list(rows)]
        for count in (1, 6):
            ids = torch.cat([ids, new := random_ids(len(ids), count, seed=count)], 1)
            mask = torch.cat([mask, torch.ones_like(new)], 1)
            ours = model(new, attention_mask=mask, **cache_argument(model, cache), use_cache=True).logits
            close(ours, logits(model, ids, mask)[:, -count:], f"{count} tokens")


@torch.no_grad()
def test_the_beginning_of_a_row_cannot_be_taken_back():
    model, ids, mask = shared_model(), random_ids(2, 12), left_padding((12, 2), 12)
    cache = DynamicCache(config=model.config)
    with apply(model, "full"):
        model(ids, attention_mask=mask, **cache_argument(model, cache), use_cache=True)
        with pytest.raises(LongreachError, match="cannot take back 3 tokens, for a row of the batch begins among them"):
            cache.crop(-3)
        cache.crop(-2)
        ours = model(ids[:, -2:], attention_mask=mask, **cache_argument(model, cache), use_cache=True).logits
        close(ours, logits(model, ids, mask)[:, -2:], "all of a row taken back")


@torch.no_grad()
def test_padding_can_be_taken_back_before_a_row_begins():
    model, ids, mask = shared_model(), random_ids(2, 12), left_padding((12, 2), 12)
    cache = DynamicCache(config=model.config)
    with apply(model, "full"):
        model(ids[:, :8], attention_mask=mask[:, :8], **cache_argument(model, cache), use_cache=True)
        cache.crop(-3)
        ours = model(ids[:, 5:], attention_mask=mask, **cache_argument(model, cache), use_cache=True).logits
        close(ours[mask[:, 5:].bool()], logits(model, ids, mask)[:, 5:][mask[:, 5:].bool()], "after padding was taken back")
