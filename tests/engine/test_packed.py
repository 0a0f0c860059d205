import pytest
import torch
import transformers
from transformers import DynamicCache

import longreach
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.conformance.base import cached_logits, left_padding, written
from longreach.testing.models import random_ids, randomize, tiny_learned, tiny_model

LENGTHS = (40, 7, 23, 7, 1)
RIGHT = left_padding(LENGTHS, 40).flip(1)
SMALL = {
    "vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
METHODS = ("padding_free", "prepack")


def make(name: str, **settings):
    kind = getattr(transformers, name)
    return randomize(kind(kind.config_class(**{**SMALL, **settings})).double().eval())


def padded(pad=0, mask=RIGHT):
    return random_ids(*mask.shape).masked_fill(mask == 0, pad)


@torch.no_grad()
def run(model, mask=RIGHT, **inputs):
    return model(padded(mask=mask), attention_mask=mask, **inputs)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ModernBertModel", {"local_attention": 8, "global_attn_every_n_layers": 2}),
        ("DistilBertModel", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
        ("AlbertForMaskedLM", {"embedding_size": 16}),
        ("BertForMaskedLM", {}),
        ("BertForSequenceClassification", {}),
        ("MixtralForCausalLM", {"num_key_value_heads": 2, "num_local_experts": 2}),
    ],
)
def test_encoders_and_experts_give_what_they_give_for_the_padded_batch(name, settings, method):
    model = make(name, **settings)
    model = model.float() if name.startswith("Mixtral") else model  # experts are not computed in float64
    wanted = run(model)
    with apply(model, method):
        ours = run(model)
    first = "logits" if "logits" in wanted else "last_hidden_state"
    real = RIGHT.bool() if ours[first].ndim == 3 else slice(None)
    torch.testing.assert_close(ours[first][real], wanted[first][real], rtol=0, atol=1e-9 if model.dtype == torch.float64 else 1e-5)
    if "pooler_output" in wanted:
        torch.testing.assert_close(ours.pooler_output, wanted.pooler_output, rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_states_and_logits_of_padding_are_zero(method):
    model = tiny_model().double()
    with apply(model, method):
        out = run(model, output_hidden_states=True)
    gone = RIGHT == 0
    assert len(out.hidden_states) == 4
    assert all(float(each[gone].abs().max()) == 0 for each in (out.logits, *out.hidden_states))


def test_kinds_of_input_and_output_stay_what_they_are():
    model = tiny_learned("bert").double()
    kinds = (torch.arange(40) > 5).long().expand(RIGHT.shape)
    wanted = run(model, token_type_ids=kinds)
    with apply(model, "padding_free"):
        ours = run(model, token_type_ids=kinds)
        pair = run(model, token_type_ids=kinds, return_dict=False)
        embedded = model(inputs_embeds=model.get_input_embeddings()(padded()), attention_mask=RIGHT, token_type_ids=kinds)
    assert type(ours) is type(wanted)
    assert isinstance(pair, tuple)
    real = RIGHT.bool()
    for each in (ours[0], pair[0], embedded[0]):
        torch.testing.assert_close(each[real], wanted[0][real], rtol=0, atol=1e-9)


def test_bfloat16_and_dropout_work():
    model = tiny_model(attention_dropout=0.5).bfloat16().train()
    with apply(model, "padding_free"):
        out = model(padded(), attention_mask=RIGHT, labels=padded().masked_fill(RIGHT == 0, -100))
        out.loss.backward()
    assert out.logits.dtype == torch.bfloat16
    assert model.model.layers[0].self_attn.q_proj.weight.grad.isfinite().all()


def test_only_the_logits_that_are_asked_for_are_made():
    model, left = tiny_model().double(), RIGHT.flip(1)
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[:-1].numel()))
    wanted = run(model, left).logits
    with apply(model, "padding_free"):
        seen.clear()
        last = run(model, left, logits_to_keep=1).logits
        every = run(model, left).logits
    assert seen == [len(LENGTHS), sum(LENGTHS)]
    torch.testing.assert_close(last, wanted[:, -1:], rtol=0, atol=1e-9)
    torch.testing.assert_close(every[left.bool()], wanted[left.bool()], rtol=0, atol=1e-9)


def test_a_head_that_is_called_by_itself_reads_everything():
    model = tiny_model().double()
    with apply(model, "padding_free"), torch.no_grad():
        states = model.model(padded(), attention_mask=RIGHT).last_hidden_state
        assert torch.equal(model.lm_head(states + 1), torch.nn.functional.linear(states + 1, model.lm_head.weight))


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_what_goes_on_after_a_filled_cache_is_the_models_own(family, method):
    model = (tiny_learned if family == "gpt2" else tiny_model)(family).double()
    mask, ids = RIGHT.flip(1), padded(mask=RIGHT.flip(1))
    wanted = cached_logits(model, ids, (25, 5, 1, 9), mask)
    with apply(model, method):
        ours = cached_logits(model, ids, (25, 5, 1, 9), mask)
    torch.testing.assert_close(ours[mask.bool()], wanted[mask.bool()], rtol=0, atol=1e-9)


def test_a_row_of_padding_is_allowed():
    model, mask = tiny_model().double(), RIGHT.clone()
    mask[1] = 0
    with apply(model, "prepack"):
        ours = run(model, mask).logits
        nothing = run(model, torch.zeros_like(mask)).logits
    assert float(ours[1].abs().max()) == 0
    assert nothing.shape == ours.shape


def test_caches_of_static_size_are_refused_by_name():
    model, mask = tiny_model(), RIGHT.flip(1)
    with apply(model, "padding_free"), pytest.raises(LongreachError, match="leave out cache_implementation='static'"):
        written(model, padded(mask=mask), mask, cache_implementation="static")


def test_a_model_whose_tokens_meet_outside_of_attention_is_refused():
    settings = {"state_size": 4, "expand": 2, "num_hidden_layers": 2, "time_step_rank": 4}
    model = randomize(transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=97, hidden_size=32, **settings)).eval())
    for method in METHODS:
        with pytest.raises(UnsupportedError, match="choose a model whose tokens meet in attention alone"), apply(model, method):
            pass
    with pytest.raises(UnsupportedError, match="in rows of several texts"), apply(tiny_learned("gpt_neo"), "padding_free"):
        pass


def test_a_mask_of_pictures_and_other_inputs_are_refused():
    model = tiny_model()
    with apply(model, "padding_free"), pytest.raises(LongreachError, match=r"the input position_ids \(3, 5, 40\)"):
        run(model, position_ids=torch.zeros(3, 5, 40, dtype=torch.long))


def test_it_can_be_attached():
    model = tiny_learned("bert")
    with longreach.attach(model, "padding_free"):
        ours = run(model).last_hidden_state
    torch.testing.assert_close(ours[RIGHT.bool()], run(model).last_hidden_state[RIGHT.bool()], rtol=0, atol=1e-5)


def test_a_cache_that_nobody_gave_is_made():
    model, mask = tiny_model("gemma3"), RIGHT.flip(1)
    with apply(model, "padding_free"), torch.no_grad():
        out = model(padded(mask=mask), attention_mask=mask)
        none = model(padded(mask=mask), attention_mask=mask, use_cache=False)
        cache = DynamicCache(config=model.config)
        given = model(padded(mask=mask), attention_mask=mask, **cache_argument(model, cache))
    assert type(out.past_key_values) is DynamicCache
    assert out.past_key_values.get_seq_length() == 40
    assert none.past_key_values is None
    assert given.past_key_values is cache


@pytest.mark.parametrize("method", [*METHODS, "set_based"])
def test_a_model_in_bfloat16_passes_for_what_it_is(method):
    model = tiny_model(hidden_size=256, num_hidden_layers=8).bfloat16()
    with apply(model, method):
        assert run(model).logits.isfinite().all()
    with pytest.raises(UnsupportedError, match="of themselves|unsupported operand"), apply(tiny_learned("gpt_neo").bfloat16(), method):
        pass
