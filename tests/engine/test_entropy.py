"""The entropy of tokens under the model, which layers are told of: by the model's own head, and whatever the caller asks for."""

from types import MethodType

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from longreach.cache.base import with_wrappers
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.core.spec import parse
from longreach.decoding.reading import new_cache, prefill
from longreach.engine import head
from longreach.engine._cuts import ENTROPY
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument, cache_of
from longreach.testing.conformance.base import close, left_padding, shared_model
from longreach.testing.models import random_ids, tiny_model
from longreach.testing.naive import naive_logits

SPEC = "sirllm:budget=12,num_sinks=2,slack=6"
# What follows the head has to bite.
HEADS = {"llama": {}, "gemma2": {"final_logit_softcapping": 2.0}, "cohere2": {"logit_scale": 0.3}, "granite": {"logits_scaling": 4.0}}


def told(cache):
    """The entropies [B, n] of the tokens in the window of the layer with full attention."""
    return next(layer.recent.view(ENTROPY)[:, 0, :, 0] for layer in cache.layers if ENTROPY in layer.recent.data)


@pytest.mark.parametrize("family", HEADS)
@torch.no_grad()
def test_it_is_that_of_the_models_own_logits(family, monkeypatch):
    model, ids = tiny_model(family, **HEADS[family]), random_ids(2, 40)
    cache, counts = new_cache(model), []
    monkeypatch.setattr(head, "LOGITS", 7 * 97)
    with apply(model, SPEC, warn=False):
        hook = model.get_output_embeddings().register_forward_hook(lambda module, args, out: counts.append(out[..., 0].numel()))
        logits = model(ids, **cache_argument(model, cache), use_cache=True).logits
        hook.remove()
    wanted = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(2, 39)
    ours = told(cache)
    assert not ours[:, 0].any()  # nothing comes before the first
    close(ours[:, 1:], wanted, family)
    assert counts.pop() == 80  # the caller's own
    assert max(counts) == 7
    assert sum(counts) == 78


@torch.no_grad()
def test_it_is_the_same_where_the_logits_of_the_last_token_are_asked_for():
    model, ids, mask = shared_model(), random_ids(2, 40), left_padding((29, 40), 40)
    found = []
    with apply(model, SPEC, warn=False):
        for size in (40, 11, 1):
            for keep in (0, 1):
                cache = new_cache(model)
                for begin in range(0, 40, size):
                    end = min(begin + size, 40)
                    given = {"attention_mask": mask[:, :end], "logits_to_keep": keep, **cache_argument(model, cache)}
                    last = model(ids[:, begin:end], use_cache=True, **given).logits[:, -1:]
                found.append(last)
    for each in found[1:]:
        close(each, found[0], "the last token")


@torch.no_grad()
def test_read_in_chunks_it_is_the_same():
    model, ids, more = shared_model(), random_ids(1, 40), random_ids(1, 20, seed=1)
    with apply(model, SPEC, warn=False):
        wanted = model(torch.cat([ids, more], 1), use_cache=False).logits[:, -1]
        cache = new_cache(model)
        prefill(model, ids, cache=cache, chunk_size=16)
        close(prefill(model, more, cache=cache, chunk_size=7), wanted, "the last token")


@torch.no_grad()
def test_layers_may_cut_at_places_of_their_own():
    model, ids = shared_model(), random_ids(1, 40)
    with apply(model, spec := "sirllm:packed=false,budget=12,num_sinks=2,recent=3,slack=6+pyramid:beta=3", warn=False):
        ours = model(ids, use_cache=False).logits
    close(ours, naive_logits(model, with_wrappers(parse(spec)), ids), "at once")


def test_who_asks_for_no_cache_gets_none():
    model = shared_model()
    with apply(model, SPEC, warn=False), torch.no_grad():
        assert cache_of(model(random_ids(1, 40), use_cache=False)) is None
        assert cache_of(model(random_ids(1, 40), use_cache=True)).get_seq_length() == 40


@torch.no_grad()
def test_a_forward_of_somebody_else_is_called_and_put_back():
    model, ids, counts = tiny_model(), random_ids(1, 40), []

    def forward(self, *args, **kwargs):
        counts.append(kwargs["input_ids"].shape[1])
        return type(self).forward(self, *args, **kwargs)

    own = model.model.forward = MethodType(forward, model.model)
    with apply(model, SPEC, warn=False):
        counts.clear()  # it was looked at
        model(ids)
    assert counts == [18, 6, 6, 6, 4]
    assert model.model.forward == own


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda model: {"input_ids": random_ids(1, 40), "position_ids": torch.arange(40)[None] * 2, "use_cache": False}, "follow on"),
        (lambda model: {"input_ids": random_ids(1, 40), "position_ids": torch.arange(40)[None] % 20, "use_cache": False}, "follow on"),
        (lambda model: {"inputs_embeds": torch.zeros(1, 40, 64)}, "pass input_ids"),
        (lambda model: {"input_ids": random_ids(1, 40), "output_hidden_states": True}, "leave out output_hidden_states"),
        (
            lambda model: {"input_ids": random_ids(1, 40), "attention_mask": torch.ones(1, 1, 40, 40)},
            "pass a two-dimensional",
        ),
    ],
)
def test_what_cannot_be_read_in_runs(given, says):
    model = shared_model()
    with apply(model, SPEC, warn=False), torch.no_grad(), pytest.raises(LongreachError, match=says):
        model(**given(model))


def test_gradient_checkpointing_is_refused():
    model = tiny_model().train()
    model.model.gradient_checkpointing = True
    with (
        apply(model, SPEC, warn=False),
        pytest.raises(LongreachError, match="with gradient checkpointing; turn that off"),
    ):
        model(random_ids(1, 40), use_cache=False)


def test_a_model_without_a_head_is_refused():
    with pytest.raises(UnsupportedError, match="it has no output head right behind its decoder"), apply(tiny_model().model, SPEC):
        pass


@torch.no_grad()
def test_an_interrupted_run_leaves_the_cache_half_written():
    model, cache = tiny_model(), DynamicCache(config=tiny_model().config)
    with apply(model, SPEC, warn=False):
        hook = model.model.layers[1].register_forward_hook(lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(random_ids(1, 40), **cache_argument(model, cache), use_cache=True)
        hook.remove()
        with pytest.raises(LongreachError, match="half written"):
            model(random_ids(1, 1), **cache_argument(model, cache), use_cache=True)
