"""Under full attention the engine gives what the model gives without it, in every family and in every way of running a model."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from transformers import DynamicCache

from longreach.engine import engine
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.examine import examine
from longreach.engine.setup import Setup
from longreach.testing.models import FAMILIES, random_ids, tiny_model

LENGTH, PADDING, NEW = 40, 7, 6
TOLERANCE = 1e-4  # of logits with a standard deviation of 1 to 2


@contextmanager
def full_attention(model):
    """The engine in place; `apply` refuses models in which it would have nothing to do."""
    attentions = examine(model, 128)
    with engine.installed(model, attentions, Setup(), 128):
        yield


def padded(batch):
    """(ids, mask) whose first row has left padding."""
    ids, mask = random_ids(batch, LENGTH), torch.ones(batch, LENGTH, dtype=torch.long)
    ids[0, :PADDING] = mask[0, :PADDING] = 0
    return ids, mask


def at_once(model):
    return model(random_ids(2, LENGTH), use_cache=False).logits


def with_left_padding(model):
    ids, mask = padded(2)
    return model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]


def cached(model, *sizes):
    past, parts = DynamicCache(config=model.config.get_text_config()), []
    for part in random_ids(2, LENGTH).split(sizes, 1):
        parts.append(model(part, **cache_argument(model, past), use_cache=True).logits)
    return torch.cat(parts, 1)


def in_chunks(model):
    return cached(model, 13, 9, 1, 17)


def token_by_token(model):
    return cached(model, 12, *[1] * 28)


def generated(model, ids, mask, **options):
    """(tokens, their logits) written after ids."""
    given = {"do_sample": False, "min_new_tokens": NEW, "max_new_tokens": NEW, "pad_token_id": 0, **options}
    out = model.generate(ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True, **given)
    return out.sequences, torch.stack(out.logits, 1)


WRITING = {
    "left-padded": {},
    "prefill in chunks": {"prefill_chunk_size": 6},
    "static cache": {"cache_implementation": "static"},
    "beams": {"num_beams": 3},
}
READING = {check.__name__: check for check in (at_once, with_left_padding, in_chunks, token_by_token)}


@pytest.mark.parametrize("family", FAMILIES)
def test_reading(family):
    model = tiny_model(family)
    with torch.no_grad():
        wanted = {name: run(model) for name, run in READING.items()}
        with full_attention(model):
            for name, run in READING.items():
                torch.testing.assert_close(run(model), wanted[name], rtol=0, atol=TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("family", FAMILIES)
def test_writing(family):
    model = tiny_model(family)
    ids, mask = (part[:, :20] for part in padded(2))
    wanted = {name: generated(model, ids, mask, **options) for name, options in WRITING.items()}
    with full_attention(model):
        for name, options in WRITING.items():
            tokens, logits = generated(model, ids, mask, **options)
            assert torch.equal(tokens, wanted[name][0]), name
            torch.testing.assert_close(logits, wanted[name][1], rtol=0, atol=TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_assisted_writing(family):
    model, ids = tiny_model(family), random_ids(1, 10).repeat(1, 3)
    mask = torch.ones_like(ids)
    wanted, _ = generated(model, ids, mask, max_new_tokens=16)
    with full_attention(model):
        for options in ({"prompt_lookup_num_tokens": 4}, {"assistant_model": tiny_model(seed=1)}):
            tokens, _ = generated(model, ids, mask, max_new_tokens=16, **options)
            assert torch.equal(tokens, wanted), options


@pytest.mark.parametrize("family", ["llama", "gemma3", "glm4"])
def test_bfloat16(family):
    # Both round to 8 bits in many places: the engine may be as far from the float32 logits as the model is, and a little more.
    model = tiny_model(family)
    with torch.no_grad():
        exact = at_once(model)
        model = model.bfloat16()
        stock = (at_once(model).float() - exact).square().mean().sqrt()
        with full_attention(model):
            for run in (at_once, in_chunks, token_by_token):
                ours = run(model)
                assert ours.dtype == torch.bfloat16
                assert (ours.float() - exact).square().mean().sqrt() < 1.3 * stock, run.__name__


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`")  # its new name is not in all versions that are supported
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox"])
def test_training(family, checkpointing):
    # Two passes with different padding before one backward pass, as preference losses do: recomputed layers must see their own.
    model = tiny_model(family).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids, mask = padded(2)
    other_mask = torch.ones_like(mask)
    other_mask[1, :20] = 0

    def gradients():
        losses = [model(ids, attention_mask=each, labels=ids.where(each.bool(), -100)).loss for each in (mask, other_mask)]
        found = torch.autograd.grad(losses[0] - 0.5 * losses[1], list(model.parameters()), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    wanted = gradients()
    with full_attention(model):
        ours = gradients()
    assert len(ours) == len(wanted) > 20
    for mine, theirs in zip(ours, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()) + 1e-6)


@pytest.mark.parametrize("family", ["llama", "qwen2_mixed"])
def test_a_second_turn_goes_on_where_the_first_ended(family):
    model, first, second = tiny_model(family), random_ids(1, 20), random_ids(1, 9, seed=1)
    with full_attention(model):
        past = DynamicCache(config=model.config)
        written = model.generate(first, max_new_tokens=8, do_sample=False, pad_token_id=0, **cache_argument(model, past))
        ids = torch.cat([written, second], 1)
        mask = torch.ones_like(ids)
        wanted, wanted_logits = generated(model, ids, mask)
        tokens, logits = generated(model, ids, mask, **cache_argument(model, past))
    assert torch.equal(tokens, wanted)
    torch.testing.assert_close(logits, wanted_logits, rtol=0, atol=TOLERANCE)


def test_padding_in_the_middle_is_not_seen():
    # A row that ended early and was padded on the right, before a second turn for all rows.
    model = tiny_model()
    ids, mask = random_ids(2, LENGTH), torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, 15:22] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def run():
        whole = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        past, parts = DynamicCache(config=model.config), []
        for begin, end in ((0, 10), (10, 18), (18, 19), (19, 40)):
            part = model(
                ids[:, begin:end], attention_mask=mask[:, :end], position_ids=positions[:, begin:end], **cache_argument(model, past)
            )
            parts.append(part.logits)
        return torch.cat([whole, torch.cat(parts, 1)])[mask.bool().repeat(2, 1)]

    with torch.no_grad():
        wanted = run()
        with full_attention(model):
            torch.testing.assert_close(run(), wanted, rtol=0, atol=TOLERANCE)


def test_positions_may_begin_anywhere():
    model, ids = tiny_model(), random_ids(2, LENGTH)
    positions = torch.arange(LENGTH)[None] + torch.tensor([[5], [60]])
    with torch.no_grad():
        wanted = model(ids, position_ids=positions, use_cache=True).logits
        with full_attention(model):
            torch.testing.assert_close(model(ids, position_ids=positions, use_cache=True).logits, wanted, rtol=0, atol=TOLERANCE)


def test_a_static_cache_outlives_the_context():
    model = tiny_model()
    ids, mask = padded(2)
    stock, _ = generated(model, ids, mask, cache_implementation="static")
    with apply(model, "sinks:window_size=4"):
        inside, _ = generated(model, ids, mask, cache_implementation="static")
        assert not torch.equal(inside, stock)
    assert torch.equal(generated(model, ids, mask, cache_implementation="static")[0], stock)


def test_autocast():
    # Queries and keys arrive in float32, values in bfloat16. As above, the engine may be as far from float32 as the model is.
    model, ids = tiny_model(), random_ids(2, LENGTH)

    def gradient():
        found = torch.autograd.grad(model(ids, labels=ids, use_cache=False).loss, list(model.parameters()))
        return torch.cat([part.flatten() for part in found])

    def logits(run):
        with torch.no_grad():
            return run(model).float()

    exact, exact_logits = gradient(), logits(at_once)
    with torch.autocast("cpu", torch.bfloat16):
        stock, stock_logits = (gradient() - exact).norm(), (logits(at_once) - exact_logits).norm()
        with apply(model, "full"):
            assert (gradient() - exact).norm() < 1.5 * stock
            for run in (at_once, in_chunks, token_by_token):
                assert (logits(run) - exact_logits).norm() < 1.3 * stock_logits, run.__name__


class Wrapper(nn.Module):
    """As PEFT wraps a model: its `generate` calls the model inside, and no forward pass of the wrapper."""

    def __init__(self, model):
        super().__init__()
        self.base_model, self.config = model, model.config

    def get_base_model(self):
        return self.base_model

    def generate(self, *args, **options):
        return self.base_model.generate(*args, **options)


def test_an_adapter_around_the_model():
    model, (ids, mask) = tiny_model(), padded(2)
    wrapper = Wrapper(model)
    with apply(model, "self_extend:neighbours=8,group=4"):
        wanted, _ = generated(model, ids, mask)
    with apply(wrapper, "self_extend:neighbours=8,group=4") as given:
        assert given is wrapper
        assert torch.equal(generated(wrapper, ids, mask)[0], wanted)
    assert not torch.equal(generated(wrapper, ids, mask)[0], wanted)
