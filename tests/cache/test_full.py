import torch
from transformers import DynamicCache

from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import random_ids, tiny_model


def kept(methods, tokens=60):
    """What the first layer keeps after so many tokens."""
    model, past = tiny_model(), DynamicCache()
    with apply(model, methods), torch.no_grad():
        for part in random_ids(1, tokens).split(7, 1):
            model(part, **cache_argument(model, past))
        return len(past.layers[0].recent)


def test_everything_is_kept_whatever_the_attention_policy_can_reach():
    last = 60 % 7  # tokens of the last pass: these can still be taken back, so nothing is forgotten for them yet
    assert kept("lm_infinite:num_sinks=2,window_size=8") == 7 + last
    assert kept("lm_infinite:num_sinks=2,window_size=8+full") == 60
    assert kept("full") == 60


def test_the_attention_policy_still_decides_what_is_seen():
    model, ids = tiny_model(), random_ids(1, 60)
    found = []
    for methods in ("lm_infinite:num_sinks=2,window_size=8", "lm_infinite:num_sinks=2,window_size=8+full"):
        past = DynamicCache()
        with apply(model, methods), torch.no_grad():
            found.append(torch.cat([model(part, **cache_argument(model, past)).logits for part in ids.split(7, 1)], 1))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
