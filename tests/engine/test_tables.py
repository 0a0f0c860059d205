import copy

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from longreach.core.errors import UnsupportedError
from longreach.engine.apply import applied, apply
from longreach.engine.tables import position_tables
from longreach.engine.window import position_limit, window_of
from longreach.testing.conformance.base import cached_logits
from longreach.testing.models import random_ids, tiny_learned, tiny_model

SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TWO_SIDED = {
    "vocab_size": 97, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 32, "pad_token_id": 1, "decoder_start_token_id": 2,
}  # fmt: skip
PICTURES = {**SMALL, "image_size": 56, "patch_size": 8}  # 49 patches and a class token: 50 positions of their own


def make(name: str, **settings) -> PreTrainedModel:
    kind = getattr(transformers, name)
    return kind(kind.config_class(**settings)).eval()


def clip(positions: int = 50) -> PreTrainedModel:
    """CLIP with both towers; the picture's table may be as long as the text's."""
    text = {**SMALL, "max_position_embeddings": positions, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return make("CLIPModel", text_config=text, vision_config=PICTURES, projection_dim=16)


def text_features(model, ids):
    with torch.no_grad():
        return model.get_text_features(input_ids=ids).last_hidden_state


@pytest.mark.parametrize(
    ("model", "tables"),
    [
        (lambda: tiny_learned("gpt2", window=32), [(0, 32)]),
        (lambda: tiny_learned("opt", window=32), [(2, 32)]),
        (lambda: tiny_learned("roberta", window=32), [(2, 32)]),
        (lambda: make("XLMRobertaForMaskedLM", **SMALL, max_position_embeddings=34), [(2, 32)]),
        (
            lambda: make("DistilBertModel", vocab_size=97, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=32),
            [(0, 32)],
        ),
        (lambda: make("BartForConditionalGeneration", **TWO_SIDED), [(2, 32), (2, 32)]),
        (clip, [(0, 50)]),
        (tiny_model, []),
    ],
    ids=["gpt2", "opt", "roberta", "xlm-roberta", "distilbert", "bart", "clip", "llama"],
)
def test_tables_and_their_first_rows_are_found(model, tables):
    assert [(table.first, table.positions) for table in position_tables(model())] == tables


def test_the_window_is_what_the_table_holds():
    model = tiny_learned("roberta", window=32)
    assert (model.config.max_position_embeddings, position_limit(model), window_of(model)) == (34, 32, 32)
    with apply(model, "recurrent_positions:factor=2"):
        assert (model.config.max_position_embeddings, position_limit(model)) == (66, 64)


def test_only_the_text_tower_of_clip_is_lengthened():
    model, ids = clip(), random_ids(2, 120)
    before = copy.deepcopy(model.vision_model.state_dict())
    with apply(model, "stretch_positions:factor=4,keep=20"):
        assert model.config.text_config.max_position_embeddings == 20 + 30 * 4
        assert text_features(model, ids).shape == (2, 120, 32)
        assert all(torch.equal(value, before[name]) for name, value in model.vision_model.state_dict().items())
    with pytest.raises(ValueError, match="Sequence length"):
        text_features(model, ids)


def test_both_tables_of_an_encoder_decoder_are_lengthened():
    model, ids = make("BartForConditionalGeneration", **TWO_SIDED), random_ids(2, 60)
    with apply(model, "interpolated_positions:factor=2"), torch.no_grad():
        assert model(input_ids=ids, decoder_input_ids=ids).logits.shape[1] == 60
    assert [table.positions for table in position_tables(model)] == [32, 32]


def test_masks_of_the_length_of_the_table_are_lengthened():
    """GPT-Neo keeps a causal mask in each layer, in every other one a local one: they are those of a model made with more positions."""
    model, longer = tiny_learned("gpt_neo", window=32), tiny_learned("gpt_neo", window=96)
    with apply(model, "recurrent_positions:factor=3"):
        masks = {name: buffer.clone() for name, buffer in model.named_buffers()}
    wanted = dict(longer.named_buffers())
    assert masks.keys() == wanted.keys()
    assert len({mask.sum().item() for mask in masks.values()}) == 2
    assert all(torch.equal(mask, wanted[name]) for name, mask in masks.items())


def test_tables_that_are_one_stay_one():
    model = make("BartForConditionalGeneration", **TWO_SIDED)
    encoder, decoder = model.model.encoder.embed_positions, model.model.decoder.embed_positions
    decoder.weight = encoder.weight
    with apply(model, "interpolated_positions:factor=2"):
        assert decoder.weight is encoder.weight
        assert len(encoder.weight) == 66


def test_the_longer_table_can_be_trained():
    model, ids = tiny_learned("gpt2", window=32), random_ids(1, 64)
    trained = model.transformer.wpe.weight
    with apply(model, "interpolated_positions:factor=2"):
        model(ids, labels=ids).loss.backward()
        gradient = model.transformer.wpe.weight.grad
        assert gradient.shape == (64, 64)
        assert bool((gradient.abs().sum(1) > 0)[:63].all())  # nothing is predicted at the last position
    assert model.transformer.wpe.weight is trained
    assert trained.grad is None


def test_recurrent_positions_read_the_table_anew():
    """A decoder that sees a token at position 32 of 64 gives it the vector that it has at position 0."""
    model = tiny_learned("gpt2", window=32)
    with apply(model, "recurrent_positions:factor=2"):
        table = model.transformer.wpe.weight
        assert torch.equal(table[32:], table[:32])
        ids = random_ids(1, 64)
        assert cached_logits(model, ids, (32, 32)).isfinite().all()


REFUSED = [
    (tiny_model, "stretch_positions:factor=4", "it has no table of learned positions; choose a method for rotary models"),
    (tiny_learned, "yarn:factor=4", "it has no rotary position embedding; choose a model that has one, or for learned positions a method"),
    (tiny_learned, "self_extend:neighbours=16,group=4", "it has no rotary embedding; choose a model with rotary positions"),
    (tiny_learned, "interpolated_positions:factor=2+log_n", "it has no rotary embedding"),
    (tiny_learned, "interpolated_positions:factor=2+grouped_positions:factor=2", "has two positions methods; keep one of them"),
    (tiny_learned, "interpolated_positions:factor=2+linear:factor=2", "has two positions methods"),
    (lambda: make("MarianMTModel", **{**TWO_SIDED, "pad_token_id": 0}), "grouped_positions:factor=2", "computed .sinusoids., not learned"),
    (lambda: make("T5ForConditionalGeneration", vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0),
     "grouped_positions:factor=2", "no table of learned positions"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "spec", "says"), REFUSED, ids=[spec for _, spec, _ in REFUSED])
def test_what_cannot_work_is_refused_in_one_line(model, spec, says):
    model = model()
    with pytest.raises(UnsupportedError, match=says) as caught, apply(model, spec):
        pass
    assert "\n" not in str(caught.value)
    assert not applied(model)


def test_masks_that_do_not_hang_on_distance_are_refused():
    model = tiny_learned("gpt_neo", window=32)
    model.transformer.h[0].attn.attention.bias[0, 0, 5, 2] = False
    with (
        pytest.raises(UnsupportedError, match="mask of its GPTNeoSelfAttention is not one of distances"),
        apply(model, "recurrent_positions:factor=2"),
    ):
        pass
    assert position_limit(model) == 32
