import pytest
import torch
import transformers
from transformers import PreTrainedModel

from longreach.attention.encoder.attention_alignment import AttentionAlignment, aligned
from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.record import read_record
from longreach.core.errors import InputError, UnsupportedError
from longreach.decoding.generation import tokens
from longreach.decoding.reading import read
from longreach.engine.apply import applied, apply
from longreach.engine.biased import sharpness
from longreach.testing.conformance.biased import decoded
from longreach.testing.models import BIASED, random_ids, randomize, tiny_biased
from tests.checkpoints.folders import VOCABULARY, byte_tokenizer

SHARPER = AttentionAlignment(temperature=0.6, window_size=16)
SMALL = {"vocab_size": 97, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
IDS = random_ids(1, 40)


def make(name: str, **settings) -> PreTrainedModel:
    kind = getattr(transformers, name)
    return randomize(kind(kind.config_class(**SMALL | settings)).eval())


def tiny(**changes):
    return tiny_biased(vocab_size=VOCABULARY, window=32, **changes)


@pytest.mark.parametrize("family", BIASED)
@pytest.mark.parametrize("metric", ["entropy", "max_probability"])
def test_sharpness_is_that_of_all_attention_weights(family, metric):
    model, ids = tiny_biased(family), random_ids(2, 40)
    with torch.no_grad():
        model.set_attn_implementation("eager")
        weights = torch.stack(model.get_encoder()(ids, output_attentions=True).attentions).double()
        model.set_attn_implementation("sdpa")
    values = -(weights * weights.clamp(min=1e-300).log()).sum(-1) if metric == "entropy" else weights.amax(-1)
    assert sharpness(model, ids, metric) == pytest.approx(values.mean().item(), rel=1e-5)
    assert model.config._attn_implementation == "sdpa"


def test_only_the_encoder_is_changed():
    model = tiny()
    with torch.no_grad():
        read_by_stock = model.get_encoder()(IDS)
        stock = model(encoder_outputs=read_by_stock, decoder_input_ids=IDS).logits
        with apply(model, SHARPER):
            assert torch.equal(model(encoder_outputs=read_by_stock, decoder_input_ids=IDS).logits, stock)
            assert not torch.equal(model.get_encoder()(IDS).last_hidden_state, read_by_stock.last_hidden_state)


@pytest.mark.parametrize(("name", "settings"), [("T5EncoderModel", {}), ("SwitchTransformersForConditionalGeneration", {"num_experts": 2})])
def test_others_of_the_family(name, settings):
    model = make(name, **settings)
    with torch.no_grad(), apply(model, SHARPER):
        sharp = model.get_encoder()(IDS).last_hidden_state
    with torch.no_grad():
        assert (model.get_encoder()(IDS).last_hidden_state - sharp).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("LongT5ForConditionalGeneration", {"local_radius": 4}, "its encoder's attention is not that of T5"),
        ("UdopForConditionalGeneration", {}, "its encoder's attention is not that of T5"),
        (
            "BartForConditionalGeneration",
            {"encoder_attention_heads": 2, "decoder_attention_heads": 2},
            "no encoder with a learned relative",
        ),
        ("BertModel", {"hidden_size": 32, "num_attention_heads": 2}, "no encoder with a learned relative bias"),
    ],
)
def test_other_encoders_are_refused(name, settings, says):
    with pytest.raises(UnsupportedError, match=says), apply(make(name, **settings), SHARPER):
        pass


def test_a_bias_that_the_hooks_do_not_reach_is_seen(monkeypatch):
    model = tiny()
    attention = type(model.encoder.block[0].layer[0].SelfAttention)
    forward = attention.forward

    def with_its_own_bias(self, hidden_states, mask=None, key_value_states=None, position_bias=None, **kwargs):
        position_bias = attention.compute_bias(self, *[hidden_states.shape[1]] * 2) if self.has_relative_attention_bias else position_bias
        return forward(self, hidden_states, mask, key_value_states, position_bias, **kwargs)

    monkeypatch.setattr(attention, "forward", with_its_own_bias)
    with pytest.raises(UnsupportedError, match="its encoder's attention is not that of T5"), apply(model, SHARPER):
        pass
    assert applied(model) == ""


def test_a_model_that_states_no_window():
    model = tiny_biased(window=None)
    with (
        pytest.raises(UnsupportedError, match="give that in tokens, as window_size=512"),
        apply(model, "attention_alignment:temperature=0.7"),
    ):
        pass
    with apply(model, "attention_alignment:temperature=0.7,window_size=16", target=64):
        pass


@pytest.mark.parametrize("stack", ["attention_alignment:temperature=0.7+log_n", "yarn:factor=2+attention_alignment:temperature=0.7"])
def test_it_stands_alone(stack):
    with pytest.raises(UnsupportedError, match="a method for models with an encoder stands alone"), apply(tiny(), stack):
        pass


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("self_extend:neighbours=8,group=4", "it is an encoder-decoder"),
        ("sinks:window_size=16", "it is an encoder-decoder"),
        ("dynamic_ntk", "it is an encoder-decoder"),
        ("yarn:factor=2", "no rotary position embedding"),
        ("interpolated_positions:factor=2", "no table of learned positions"),
    ],
)
def test_methods_for_decoders_are_refused_on_encoder_decoders(spec, says):
    with pytest.raises(UnsupportedError, match=says), apply(tiny(), spec):
        pass


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`")  # its new name is not in all versions that are supported
def test_it_trains_also_with_gradient_checkpointing():
    model = tiny(dropout_rate=0.0).train()
    modes, grads = [module.training for module in model.modules()], []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        with apply(model, SHARPER):
            assert [module.training for module in model.modules()] == modes
            model(IDS, labels=IDS).loss.backward()
        grads.append(model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad.clone())
    torch.testing.assert_close(grads[1], grads[0])
    assert grads[0].abs().max() > 0


def test_it_works_in_bfloat16():
    model = tiny().bfloat16()
    mask = torch.ones(2, 40, dtype=torch.long)
    mask[1, 12:] = 0
    with apply(model, SHARPER):
        assert decoded(model, random_ids(2, 40), mask).dtype == torch.bfloat16


# checkpoints


@pytest.mark.parametrize("window", [32, None])
def test_a_saved_model_is_loaded_under_its_method(tmp_path, window):
    model, tokenizer = tiny_biased(vocab_size=VOCABULARY, window=window), byte_tokenizer()
    method = aligned([[40, 0.7], [64, 0.5]], 32)
    save(model, tokenizer, tmp_path / "out", method=method, target=64)
    record = read_record(tmp_path / "out")
    assert (record.method, record.exported, record.trained_window, record.target) == (method.spec, False, 32, 64)
    with apply(model, method):
        wanted = decoded(model, IDS)
    again, tokenizer = load(tmp_path / "out")
    assert applied(again) == method.spec
    assert torch.equal(decoded(again, IDS), wanted)
    assert tokenizer.model_max_length == 64
    save(again, tokenizer, tmp_path / "twice")
    assert torch.equal(decoded(load(tmp_path / "twice").model, IDS), wanted)
    assert torch.equal(decoded(load(tmp_path / "out", apply_method=False).model, IDS), decoded(model, IDS))


def test_a_saved_model_without_a_window_needs_one(tmp_path):
    with pytest.raises((InputError, UnsupportedError), match="window"):
        save(
            tiny_biased(vocab_size=VOCABULARY, window=None),
            byte_tokenizer(),
            tmp_path / "out",
            method=AttentionAlignment(temperature=0.5),
            target=64,
        )
    assert not (tmp_path / "out").exists()


# writing


@pytest.mark.parametrize("family", BIASED)
def test_writing_is_that_of_generate(family):
    model = tiny_biased(family, window=32)
    with apply(model, SHARPER):
        wanted = model.generate(IDS, max_new_tokens=12, do_sample=False)[0, 1:].tolist()
        ours = list(tokens(model, IDS, max_new_tokens=12))
    assert ours == [token for token in wanted if token != 2]
    assert ours


def test_a_decoder_without_a_first_token_is_named():
    model = tiny()
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = config.bos_token_id = None
    with pytest.raises(InputError, match="states no decoder_start_token_id"):
        next(tokens(model, IDS, max_new_tokens=1))


def test_reading_in_chunks_is_for_decoders():
    with pytest.raises(InputError, match="T5ForConditionalGeneration is an encoder-decoder, and this needs a causal language model"):
        next(read(tiny(), IDS))
