"""Reading beyond an encoder's window, where the shared checks do not go."""

import copy

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from longreach.checkpoints.checkpoint import load, save
from longreach.core.errors import InputError, UnsupportedError
from longreach.decoding.writing import generate
from longreach.engine import nearest
from longreach.engine.apply import applied, apply
from longreach.testing.conformance.cross import decoded
from longreach.testing.models import random_ids, randomize, tiny_biased, tiny_encoder_decoder, tiny_model
from tests.checkpoints.folders import VOCABULARY, byte_tokenizer

WINDOW = 32
IDS = random_ids(2, 90)
TEXT = "a text that is longer than thirty-two bytes, which is all that the model has positions for"


def small():
    return tiny_encoder_decoder(window=WINDOW, vocab_size=VOCABULARY, eos_token_id=None)


@pytest.mark.parametrize("numbers", [1, 300, 1 << 22])
def test_the_nearest_states_are_found_however_few_are_looked_at_at_a_time(numbers, monkeypatch):
    monkeypatch.setattr(nearest, "_NUMBERS", numbers)
    q, states = torch.randn(2, 7, 5).double(), torch.randn(2, 31, 5).double()
    seen = torch.rand(2, 31) > 0.2
    logits = (q @ states.transpose(1, 2)).masked_fill(~seen[:, None], -torch.inf)
    best, index = logits.sort(2, descending=True)
    assert torch.equal(nearest.nearest(q, states, seen, 6), index[..., :6])
    counts = torch.tensor([6, 2])
    ours = nearest.attend_nearest(q, states, seen, counts)
    for row, count in enumerate(counts):
        weights = best[row, :, :count].softmax(-1)
        wanted = (weights[..., None] * states[row, index[row, :, :count]]).sum(1)
        torch.testing.assert_close(ours[row], wanted, rtol=0, atol=1e-12)


def test_of_no_more_keys_than_are_seen_none_is_left_out():
    q, states = torch.randn(1, 3, 5), torch.randn(1, 9, 5)
    wanted = (q @ states.transpose(1, 2)).softmax(-1) @ states
    torch.testing.assert_close(nearest.attend_nearest(q, states, None, torch.tensor([50])), wanted)


def test_embeddings_are_read_as_ids_are():
    model = tiny_encoder_decoder(window=WINDOW)
    embeddings = model.get_input_embeddings()(IDS)
    with torch.no_grad(), apply(model, "unlimiformer"):
        by_ids, by_embeddings = (model.get_encoder()(**{name: x}) for name, x in (("input_ids", IDS), ("inputs_embeds", embeddings)))
        as_tuple = model.get_encoder()(input_ids=IDS, return_dict=False)
    assert torch.equal(by_ids.last_hidden_state, by_embeddings.last_hidden_state)
    assert torch.equal(as_tuple[0], by_ids.last_hidden_state)
    assert by_ids.last_hidden_state.shape == (2, 90, 32)


def test_what_is_padding_in_a_whole_row_gives_numbers():
    mask = torch.ones_like(IDS)
    mask[1] = 0
    model = tiny_encoder_decoder(window=WINDOW)
    with apply(model, "unlimiformer"):
        assert decoded(model, IDS, mask).isfinite().all()
        torch.testing.assert_close(decoded(model, IDS, mask)[:1], decoded(model, IDS[:1]))


def test_half_precision_finds_what_float32_finds():
    model = tiny_encoder_decoder(window=WINDOW)
    half = copy.deepcopy(model).to(torch.bfloat16)
    with apply(model, "unlimiformer:budget=64"), apply(half, "unlimiformer:budget=64"):
        wanted, found = decoded(model, IDS), decoded(half, IDS)
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).square().mean() < 0.01 * wanted.var()


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Marian", {}), ("PLBart", {}), ("M2M100", {}), ("Blenderbot", {}), ("SwitchTransformers", {"num_experts": 2, "d_kv": 8, "d_ff": 48})],
)
def test_others_of_the_kind(name, settings):
    kind = getattr(transformers, "MarianMTModel" if name == "Marian" else f"{name}ForConditionalGeneration")
    shape = tiny_encoder_decoder("t5" if settings else "bart", window=WINDOW).config.to_diff_dict()
    model = randomize(kind(kind.config_class(**{**shape, **settings, "model_type": kind.config_class.model_type})).eval())
    with apply(model, "unlimiformer"):
        first, second = decoded(model, IDS), decoded(model, IDS.roll(1, 0))
    torch.testing.assert_close(first, second.roll(1, 0))
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize(
    ("make", "spec", "says"),
    [
        (tiny_model, "unlimiformer", "it is no encoder-decoder, and has no cross-attention"),
        (small, "unlimiformer:window_size=33", "its encoder has positions for 32 tokens; give a window_size up to 32"),
        (small, "unlimiformer+stretch_positions:factor=2", "a method for models with an encoder stands alone"),
        (small, "unlimiformer+sinks:window_size=16", "a method for models with an encoder stands alone"),
        (lambda: tiny_encoder_decoder("t5"), "unlimiformer+attention_alignment:temperature=0.5", "stands alone"),
    ],
)
def test_what_it_is_refused_for(make, spec, says):
    with pytest.raises(UnsupportedError, match=says), apply(make(), spec):
        pass


def test_a_window_that_no_config_states_has_to_be_given():
    model = tiny_biased(window=None)
    with pytest.raises(UnsupportedError, match="give that in tokens, as window_size=512"), apply(model, "unlimiformer"):
        pass
    with apply(model, "unlimiformer:window_size=16"):
        assert decoded(model, IDS).isfinite().all()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # of peft
def test_adapters_have_to_be_merged_into_keys():
    model = get_peft_model(tiny_encoder_decoder(), LoraConfig(r=2, target_modules=["k_proj"]))
    with pytest.raises(UnsupportedError, match="not plain linear layers of a known name"), apply(model, "unlimiformer"):
        pass
    on_queries = get_peft_model(tiny_encoder_decoder(window=WINDOW), LoraConfig(r=2, target_modules=["fc1"]))
    with apply(on_queries, "unlimiformer"):
        assert decoded(on_queries.get_base_model(), IDS).isfinite().all()


def test_a_prompt_longer_than_the_table_of_positions_is_written_from():
    model, words = small(), byte_tokenizer()
    says = "has positions for 32 tokens to read and 32 to write; this is 90 and up to 8; --method unlimiformer reads on"
    with pytest.raises(InputError, match=says):
        generate(model, words, TEXT, max_new_tokens=8)
    with pytest.raises(InputError, match="this is 0 and up to 40$"):
        generate(model, words, TEXT, max_new_tokens=40, method="unlimiformer")
    text = "".join(generate(model, words, TEXT, max_new_tokens=8, method="unlimiformer"))
    with apply(model, "unlimiformer"):
        assert "".join(generate(model, words, TEXT, max_new_tokens=8)) == text
        ids = words(TEXT, return_tensors="pt").input_ids
        out = model.generate(ids, do_sample=False, max_new_tokens=8)
    assert words.decode(out[0], skip_special_tokens=True) == text


def test_a_checkpoint_can_carry_it(tmp_path):
    save(small(), byte_tokenizer(), tmp_path, method="unlimiformer", target=4096)
    model, words = load(tmp_path)
    assert applied(model) == "unlimiformer"
    text = "".join(generate(model, words, TEXT, max_new_tokens=8))
    assert text == "".join(generate(small(), words, TEXT, max_new_tokens=8, method="unlimiformer"))
