"""What thin keys are: which channels stay, how many bytes that saves, what attends to them, and behind which policies it goes."""

import pytest
import torch
from transformers import DynamicCache

from longreach.cache.compact.think import Think
from longreach.core.bands import TRUE
from longreach.core.errors import UnsupportedError
from longreach.engine.apply import applied, apply
from longreach.engine.interface import interface
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshots import snapshot
from longreach.testing.conformance.base import cached_logits, close, logits, moves, shared_model
from longreach.testing.conformance.engine import _bytes_held
from longreach.testing.models import random_ids, tiny_model
from tests.engine.caches import read

D = 16  # of a head of the tiny models


def after(model, method, prompt, written=3):
    """A cache that read a prompt and then token by token."""
    cache = DynamicCache(config=model.config)
    with apply(model, method, warn=False):
        ids = random_ids(1, prompt + written)
        for part in ids.split([prompt, *[1] * written], 1):
            read(model, cache, part)
        held = snapshot(cache).nbytes
    return cache, held


def states(cache):
    return [next(iter(layer.store.rows.values())).state for layer in cache.layers if layer.store.rows]


# --- bytes


def test_a_cache_is_as_much_smaller_as_it_says():
    model, prompt, written = tiny_model(max_position_embeddings=2048), 600, 3
    _, whole = after(model, "full", prompt, written)
    assert 0 <= whole - 3 * 2 * (prompt + written) * 2 * D * 4 < 100  # layers, key-value heads, tokens, keys and values, float32
    for keep, channels in ((0.75, 12), (0.5, 8), (0.3, 5)):
        cache, held = after(model, Think(keep=keep), prompt, written)
        for state, layer in zip(states(cache), cache.layers, strict=True):
            assert state.channels[TRUE].shape == (1, 2, prompt - 32, channels)
            assert state.channels["v"].shape == (1, 2, prompt - 32, D)
            assert state.channels[TRUE].untyped_storage().nbytes() == 2 * (prompt - 32) * channels * 4, "no part of a larger buffer"
            assert len(layer.recent) == 32 + written
        saved = 3 * 2 * (prompt - 32) * (D - channels) * 4
        assert 0 <= held - (whole - saved) < 0.01 * whole, "beside it next to nothing"


def test_what_a_prompt_took_is_given_back():
    model = tiny_model(max_position_embeddings=2048)
    _, whole = after(model, "full", 600)
    for method, share in (("snapkv:budget=64,window_size=8", 0.3), ("think:keep=0.5,exempt=8", 0.9)):
        cache, held = after(model, method, 600, 0)
        assert held < _bytes_held(cache) < 2 * whole, "not all queries of the prompt"
        cache, held = after(model, method, 600)
        assert held < _bytes_held(cache) < share * whole, "buffers with room for more, but not for the prompt"


# --- channels


def lost(queries, keys, channel):
    """What all logits [G, n, m] lose with a channel, as a sum of squares; queries [G, n, D], keys [m, D]."""
    return sum(float(q[channel]) ** 2 * float(k[channel]) ** 2 for head in queries for q in head for k in keys)


def chosen(queries, keys, count):
    """The channels that stay, by the definition, pair by pair; queries [H, n, D], keys [K, m, D]."""
    groups = len(queries) // len(keys)
    found = []
    for head, own in enumerate(keys):
        mine = queries[head * groups : (head + 1) * groups]
        found.append(sorted(sorted(range(D), key=lambda channel: -lost(mine, own, channel))[:count]))
    return found


def test_the_channels_that_logits_lose_least_with_go():
    queries, keys = torch.randn(2, 4, 6, D).double(), torch.randn(2, 2, 9, D).double()
    queries, keys = queries * torch.rand(4, 1, D) ** 3, keys * torch.rand(2, 1, D) ** 3
    found = Think(keep=0.4).channels(keys, queries)
    assert found.tolist() == [chosen(q, k, 7) for q, k in zip(queries, keys, strict=True)]
    assert len({tuple(row) for rows in found.tolist() for row in rows}) > 1, "heads differ"


@pytest.mark.parametrize(
    ("keep", "channels", "stay"), [(1, 16, 16), (0.6, 128, 77), (0.6, 64, 39), (0.7, 10, 7), (0.01, 16, 1), (0.5, 5, 3)]
)
def test_shares_are_rounded_up(keep, channels, stay):
    assert Think(keep=keep).channels(torch.randn(1, 1, 4, channels), torch.randn(1, 2, 3, channels)).shape == (1, 1, stay)


# --- what attends to them


def zeroed(model, ids, prompt, method):
    """Logits of one stock pass in which queries after the prompt see zeros in the channels that go; and the channels by layer."""
    stayed = []

    def attention(module, q, k, v, mask, scaling, **options):
        (q, k, v), tokens = (x[0].double() for x in (q, k, v)), q.shape[2]
        stay = chosen(q[:, max(0, prompt - method.observe) : prompt], k[:, :prompt], int(method.keep * D))
        stayed.append(stay)
        thin = k.clone()
        for head, channels in enumerate(stay):
            gone = [channel for channel in range(D) if channel not in channels]
            thin[head, : prompt - method.exempt, gone] = 0
        groups = len(q) // len(k)
        whole, thin, v = (x.repeat_interleave(groups, 0) for x in (k, thin, v))
        seen = torch.where(torch.arange(tokens)[:, None] < prompt, q @ whole.mT, q @ thin.mT) * scaling
        seen = seen.masked_fill(~torch.ones(tokens, tokens, dtype=torch.bool).tril(), float("-inf"))
        return (seen.softmax(-1) @ v).transpose(0, 1)[None].float(), None

    with interface(model, "thin", attention), torch.no_grad():
        return model(ids, use_cache=False).logits, stayed


def test_what_follows_a_prompt_sees_zeros_in_the_channels_that_went():
    model, ids, method, prompt = shared_model(), random_ids(1, 40), Think(keep=0.5, observe=7, exempt=4), 30
    wanted, stay = zeroed(model, ids, prompt, method)
    cache = DynamicCache(config=model.config)
    with apply(model, method, warn=False):
        found = torch.cat([read(model, cache, part) for part in (ids[:, :prompt], *ids[:, prompt:].split(1, 1))], 1)
    close(found, wanted, "token by token")
    assert [state.thin[0].tolist() for state in states(cache)] == stay
    moves(method, found[:, prompt:], logits(model, ids)[:, prompt:])
    close(found[:, :prompt], logits(model, ids)[:, :prompt], "the prompt is read as by the model")


def test_a_short_prompt_stays_whole():
    model, ids = shared_model(), random_ids(1, 40)
    stock = logits(model, ids)
    with apply(model, Think(keep=0.2, exempt=20), warn=False):
        close(cached_logits(model, ids, (20, *[1] * 20)), stock, "a prompt of exempt tokens")
        moves(Think(keep=0.2, exempt=20), cached_logits(model, ids, (24, *[1] * 16)), stock)


@pytest.mark.parametrize("method", ["think:keep=0.5,observe=9,exempt=3", "snapkv:budget=12,window_size=9"])
@pytest.mark.parametrize("sizes", [(20,), (14, 9)])  # the prompt ends with a pass, or within one
def test_tokens_after_the_prompt_can_be_taken_back(method, sizes):
    model, ids, prompt = shared_model(), random_ids(1, 40), 20
    with prompt_end(prompt), apply(model, method, warn=False):
        wanted = logits(model, ids)
        for back in range(1, 1 + sum(sizes) - (prompt - 3)) if len(sizes) > 1 else (4,):
            cache = DynamicCache(config=model.config)
            for part in ids[:, : sum(sizes)].split(sizes, 1):
                read(model, cache, part)
            if len(sizes) == 1:
                read(model, cache, (ids[:, 20:24] + 1) % 97)
            cache.crop(-back)
            left = cache.get_seq_length()
            close(read(model, cache, ids[:, left:]), wanted[:, left:], f"{back} tokens back")


# --- behind other policies


def test_what_a_policy_keeps_is_thin():
    model, alone = tiny_model(), "snapkv:budget=24,window_size=6"
    kept, _ = after(model, alone, 60)
    thin, _ = after(model, f"{alone}+think:keep=0.5,exempt=4", 60)
    for before, now in zip(states(kept), states(thin), strict=True):
        assert now.channels[TRUE].shape == (1, 2, 20, D // 2)
        assert torch.equal(now.channels["v"], before.channels["v"][:, :, :20]), "the same tokens"
        assert torch.equal(now.channels[TRUE], before.channels[TRUE][:, :, :20].gather(3, now.thin[:, :, None].expand(-1, -1, 20, -1)))


def test_channels_are_chosen_of_the_keys_that_stay():
    model, ids = tiny_model(num_hidden_layers=1), random_ids(1, 60)
    seen = {}

    def channels(self, keys, queries):
        seen.update(keys=keys, queries=queries)
        return whole(self, keys, queries)

    whole, cache = Think.channels, DynamicCache(config=model.config)
    with pytest.MonkeyPatch.context() as patch, apply(model, "snapkv:budget=24,window_size=6+think:observe=8,exempt=4", warn=False):
        patch.setattr(Think, "channels", channels)
        for part in (ids[:, :50], ids[:, 50:51]):
            read(model, cache, part)
    assert seen["queries"].shape == (1, 4, 8, D)
    held = seen["keys"].abs().sum(-1) > 0
    assert held[0].sum(1).tolist() == [24, 24]
    assert held[..., -6:].all(), "the window and the exempt tokens count"


def test_layers_have_their_budgets():
    model = tiny_model(num_hidden_layers=3)
    for spec in ("snapkv:budget=24,window_size=6+pyramid+think:exempt=6", "snapkv:budget=24,window_size=6+think:exempt=6+pyramid"):
        cache, _ = after(model, spec, 60)
        assert [state.channels[TRUE].shape[2] + 6 for state in states(cache)] == [6 + 35, 6 + 18, 6 + 1]
        assert {len(layer.recent) for layer in cache.layers} == {6 + 3}


def test_exempt_tokens_stay_whatever_they_are_worth():
    model = tiny_model()
    for spec in ("snapkv:budget=12,window_size=2,kernel_size=1", "knorm:budget=0.1", "knorm:budget=12+ada", "keydiff:budget=12"):
        cache, _ = after(model, f"{spec}+think:exempt=12", 60)
        assert {len(layer.recent) for layer in cache.layers} == {12 + 3}
        assert {state.channels[TRUE].shape[2] for state in states(cache)} == {0}, "and nothing beside them"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("h2o:budget=64+think", "think cannot be used with h2o:budget=64: it cuts again and again, and channels would be chosen of"),
        ("tova:budget=64+think", "it cuts again and again"),
        ("knorm:budget=64,every=8+think", "it cuts again and again"),
        ("snapkv:budget=64,packed=true+think", "its keys are packed"),
        ("snapkv:budget=20,window_size=20+think", "its budget of 20 tokens is smaller than exempt=32, which it has to hold"),
        ("think+think:keep=0.5", "its keys are thin already"),
        ("sinks:window_size=16+think", "it thins the keys that are kept where the prompt ends, and this keeps others; put it behind"),
        ("quantised:bits=4+think", "it thins the keys that are kept where the prompt ends"),
        ("think+pyramid", "its budget is no number of tokens"),
        ("think+snapkv:budget=64", "think"),
    ],
)
def test_pairs_that_make_no_sense(spec, says):
    model = tiny_model()
    with pytest.raises(UnsupportedError, match=says), apply(model, spec):
        pass
    assert applied(model) == ""
