"""Queries of an encoder that wait."""

import pytest
import torch
import transformers

import longreach
from longreach.attention.encoder.attendre import Attendre
from longreach.core.errors import SpecError, UnsupportedError
from longreach.testing.models import random_ids, randomize, tiny_biased, tiny_learned, tiny_model


def test_queries_leave_their_memory_in_order_and_see_what_the_other_holds_then():
    # Chunks end at 4, 8, 12 and 14. Three queries wait; the memory of keys has room for eight.
    steps = Attendre(budget=8, delay=3, chunk=4).steps(14)
    assert steps == [(range(1), range(4)), (range(1, 5), range(8)), (range(5, 9), range(4, 12)), (range(9, 14), range(6, 14))]
    assert Attendre(budget=8, delay=3, chunk=4).steps(2) == [(range(2), range(2))]
    assert Attendre(budget=9, delay=5, chunk=2).steps(7) == [(range(1), range(6)), (range(1, 7), range(7))]  # none, until five wait


@torch.no_grad()
def test_a_token_reaches_those_that_wait_and_no_others():
    """One layer: what a token changes is what sees its key."""
    model, ids = tiny_learned("bert", num_hidden_layers=1), random_ids(1, 40)
    other = ids.clone()
    other[0, 20] = 4 if ids[0, 20] != 4 else 5
    with longreach.apply(model, "attendre:budget=12,delay=4,chunk=4"):
        moved = (model(other).last_hidden_state - model(ids).last_hidden_state).abs().amax(-1)[0] > 1e-6
    # 20 comes with the chunk 20 to 23, when the queries 16 to 19 leave, and is gone when that of 32 to 35 comes.
    assert moved.nonzero().flatten().tolist() == list(range(16, 28))


@torch.no_grad()
def test_learned_positions_reach_on_beside_it():
    model, ids = tiny_learned("bert", window=32), random_ids(2, 100)
    spec = "attendre:budget=16,delay=8,chunk=8"
    with longreach.apply(model, f"grouped_positions:factor=4+{spec}"):
        assert model(ids).last_hidden_state.shape == (2, 100, 64)
    with pytest.raises(UnsupportedError, match="beside a memory for an encoder only learned positions may change"):
        longreach.apply(model, f"sinks:window_size=8+{spec}").__enter__()


@torch.no_grad()
def test_rotary_encoders_with_fewer_key_heads_read_with_it_too():
    sizes = {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "mask_token_id": 3}
    model = randomize(transformers.EuroBertModel(transformers.EuroBertConfig(**sizes, **heads, **special)).eval())
    ids = random_ids(1, 40)
    stock = model(ids).last_hidden_state
    with longreach.apply(model, "attendre:budget=64,delay=40,chunk=8"):
        torch.testing.assert_close(model(ids).last_hidden_state, stock)
    with longreach.apply(model, "attendre:budget=12,delay=4,chunk=4"):
        assert (model(ids).last_hidden_state - stock).abs().max() > 1e-3


@pytest.mark.parametrize("make", [tiny_model, tiny_biased, tiny_learned, lambda: tiny_learned("clip_text")])
def test_what_is_no_such_encoder_is_refused(make):
    with pytest.raises(UnsupportedError, match="choose BERT, RoBERTa or one of their kin"):
        longreach.apply(make(), "attendre:budget=12,delay=4,chunk=4").__enter__()


def test_a_memory_that_loses_the_keys_of_waiting_queries_is_refused():
    with pytest.raises(SpecError, match="attendre: budget=11 must be at least delay=8 and chunk=4 together"):
        Attendre(budget=11, delay=8, chunk=4)
