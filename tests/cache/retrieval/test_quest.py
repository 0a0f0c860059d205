"""Pages that queries choose."""

import torch
from transformers import DynamicCache

import longreach
from longreach.cache.retrieval.quest import Quest
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import tiny_model


@torch.no_grad()
def test_a_prompt_is_read_whole_and_what_follows_in_pages():
    model, ids = tiny_model(), torch.randint(3, 90, (1, 60), generator=torch.Generator().manual_seed(0))
    whole = model(ids).logits
    with longreach.apply(model, "quest:budget=8,page_size=2,dense_layers=0", warn=False):
        cache = DynamicCache(config=model.config)
        prompt = model(ids[:, :50], **cache_argument(model, cache)).logits
        after = model(ids[:, 50:], **cache_argument(model, cache)).logits
    torch.testing.assert_close(prompt, whole[:, :50])
    assert (after - whole[:, 50:]).abs().max() > 1e-3


def test_no_key_of_a_page_that_is_left_out_can_beat_the_bound_of_one_that_is_chosen():
    torch.manual_seed(0)
    keys, q = torch.randn(1, 2, 20, 4, 8), torch.randn(1, 4, 3, 8)  # 20 pages of 4 tokens
    policy = Quest(budget=24, page_size=4)
    bounds = torch.stack([policy.represent(page, None) for page in keys.unbind(2)], 2)
    chosen = policy.select(q, bounds)
    best = (q[:, :, :, None, None] * keys.repeat_interleave(2, 1)[:, :, None]).sum(-1).amax(-1)  # [1, 4, 3, 20] of each page's keys
    for head in range(4):
        for token in range(3):
            mine = chosen[0, head, token]
            most = torch.cat([q[0, head, token].clamp(min=0), q[0, head, token].clamp(max=0)]) @ bounds[0, head // 2].mT
            assert (best[0, head, token] <= most + 1e-5).all()
            left_out = [page for page in range(20) if page not in mine.tolist()]
            assert len(mine) == 5
            assert most[left_out].max() <= most[mine].min() * (1 + 2**-9)
