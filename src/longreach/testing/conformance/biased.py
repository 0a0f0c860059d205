"""What holds for every temperature of encoders with a learned relative bias."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.attention.base import EncoderTemperature
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import LENGTH, WINDOW, Check, close, gradients, left_padding, moves, same
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import BIASED, random_ids, tiny_biased, tiny_model

_DECODED = random_ids(1, 12, seed=1)  # what decoders read
_SHORT = 16  # tokens that are inside every window


def check_neutral_temperature(method: EncoderTemperature) -> int:
    """A neutral setting gives the model's own logits, bit for bit."""
    compared = 0
    for family in BIASED:
        model, ids = tiny_biased(family, window=WINDOW), random_ids(2, LENGTH)
        stock = decoded(model, ids)
        with apply(model, method):
            compared += same(decoded(model, ids), stock, family)
    return compared


def check_temperature_is_read(method: EncoderTemperature) -> int:
    """Logits are those of softmax((q k + bias) / temperature) in float64, for every text of a padded batch at its own length."""
    compared, lengths = 0, (LENGTH, LENGTH - 7, _SHORT)
    for family in BIASED:
        model, ids, mask = tiny_biased(family, window=WINDOW), random_ids(3, LENGTH), left_padding(lengths).flip(1)
        wanted = naive_decoded(model, method, ids, mask)
        with apply(model, method):
            for implementation in ("sdpa", "eager"):
                model.set_attn_implementation(implementation)
                compared += close(decoded(model, ids, mask), wanted, f"{family}, {implementation}")
            model.set_attn_implementation("sdpa")
            whole = decoded(model, ids[:1])
        compared += moves(method, whole, decoded(model, ids[:1]))
    return compared


def check_short_texts_are_left_alone(method: EncoderTemperature) -> int:
    """Where a method says that it is `plain_inside`, texts up to the trained window are read as they were, bit for bit."""
    compared = 0
    for family in BIASED:
        model, ids = tiny_biased(family, window=WINDOW), random_ids(2, method.stated_window() or WINDOW)
        stock = decoded(model, ids)
        with apply(model, method):
            compared += same(decoded(model, ids), stock, family)
    return compared


def check_padded_texts(method: EncoderTemperature) -> int:
    """A padded batch gives what its texts give one by one, also what is written from it."""
    compared, lengths = 0, (LENGTH, LENGTH - 7, _SHORT)
    for family in BIASED:
        model, ids, mask = tiny_biased(family, window=WINDOW), random_ids(3, LENGTH), left_padding(lengths).flip(1)
        with apply(model, method):
            whole, text = decoded(model, ids, mask), written_from(model, ids, mask)
            for row, length in enumerate(lengths):
                alone = ids[row : row + 1, :length]
                compared += close(whole[row], decoded(model, alone)[0], f"{family}, {length} tokens")
                compared += same(text[row], written_from(model, alone)[0], f"{family}, {length} tokens, written")
    return compared


def check_writing_with_a_cache(method: EncoderTemperature) -> int:
    """What is written with a cache is what is written without one, greedily and with beams."""
    compared = 0
    for family in BIASED:
        model, ids = tiny_biased(family, window=WINDOW), random_ids(2, LENGTH)
        with apply(model, method):
            for beams in (1, 3):
                without = written_from(model, ids, use_cache=False, num_beams=beams)
                compared += same(written_from(model, ids, num_beams=beams), without, f"{family}, {beams} beams")
    return compared


def check_temperature_is_undone(method: EncoderTemperature) -> int:
    """After the context, also one left by an exception, everything is as it was."""
    compared = 0
    for family in BIASED:
        model, ids = tiny_biased(family, window=WINDOW), random_ids(1, LENGTH)
        stock, before = decoded(model, ids), snapshot(model)
        try:
            with apply(model, method):
                decoded(model, ids)
                raise KeyError("raised to leave the context")
        except KeyError:
            compared += unchanged(before, snapshot(model), f"{family}, after an exception")
        compared += same(decoded(model, ids), stock, f"{family}, logits after the context")
    return compared


def check_temperature_and_gradients(method: EncoderTemperature) -> int:
    """The gradients of every weight are those of the definition in float64."""
    compared, ids, mask = 0, random_ids(2, LENGTH), left_padding((LENGTH, LENGTH - 7)).flip(1)
    for family in ("t5", "umt5"):
        model = tiny_biased(family, window=WINDOW)
        with apply(model, method):
            ours = gradients(model, _decoded(model, ids, mask))
        exact = copy.deepcopy(model).double()
        wanted = gradients(exact, _naive_decoded(exact, method, ids, mask))
        for name, gradient in wanted.items():
            scale = float(gradient.abs().max())
            compared += close(ours[name].double(), gradient, f"{family}, gradient of {name}", tolerance=2e-4 * scale + 1e-6)
    return compared


def check_copies_have_the_temperature(method: EncoderTemperature) -> int:
    """A copy made inside reads as the model does, also after the model reads something shorter."""
    model, ids = tiny_biased(window=WINDOW), random_ids(2, LENGTH)
    with apply(model, method):
        wanted = decoded(model, ids)
        twin = copy.deepcopy(model)
    compared = same(decoded(twin, ids), wanted, "the copy")
    stock = decoded(model, ids)
    with apply(model, method):
        moves(method, decoded(twin, ids), stock)
        return compared + same(decoded(model, ids), wanted, "the model beside its copy")


def check_decoders_are_refused(method: EncoderTemperature) -> int:
    """A model without an encoder is refused."""
    return refused_by_apply(tiny_model(), method, "no encoder with a learned relative bias")


def _decoded(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits [B, 12, V] of a fixed text that a decoder reads after its encoder has read `ids`."""
    found: Tensor = model(input_ids=ids, attention_mask=mask, decoder_input_ids=_DECODED.expand(len(ids), -1)).logits
    return found


decoded = torch.no_grad()(_decoded)


def written_from(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """The tokens [B, 1 + 8] that `generate` writes; no end-of-text before."""
    mask = torch.ones_like(ids) if mask is None else mask
    given = {"do_sample": False, "min_new_tokens": 8, "max_new_tokens": 8, **options}
    found: Tensor = model.generate(ids, attention_mask=mask, **given)  # type: ignore[operator]  # a module's attributes may be tensors
    return found


def _naive_decoded(model: PreTrainedModel, method: EncoderTemperature, ids: Tensor, mask: Tensor) -> Tensor:
    """`decoded` by the definition: in float64, one text after the other, without its padding."""
    exact = model if model.dtype == torch.float64 else copy.deepcopy(model).double()
    found = []
    for row, real in enumerate(mask.bool()):
        text = ids[row : row + 1, real]
        temperature = method.temperature_at(text.shape[1], method.stated_window() or WINDOW)
        read = (naive_encoded(exact, text, temperature),)
        found.append(exact(encoder_outputs=read, decoder_input_ids=_DECODED).logits)
    return torch.cat(found)


naive_decoded = torch.no_grad()(_naive_decoded)


def naive_encoded(model: Any, ids: Tensor, temperature: float) -> Tensor:
    """Hidden states [1, T, D] of an encoder of the T5 kind, its attention head by head."""
    encoder = model.get_encoder()
    bias: Any = None
    x = encoder.embed_tokens(ids)
    for block in encoder.block:
        layer = block.layer[0]
        attention, normed = layer.SelfAttention, layer.layer_norm(x)
        if attention.has_relative_attention_bias:
            bias = attention.relative_attention_bias(_buckets(attention, ids.shape[1]))  # [T, T, H]
        heads = []
        for head in range(attention.n_heads):
            part = slice(head * attention.key_value_proj_dim, (head + 1) * attention.key_value_proj_dim)
            q, k, v = (projection(normed)[0, :, part] for projection in (attention.q, attention.k, attention.v))
            heads.append(((q @ k.T + bias[..., head]) / temperature).softmax(-1) @ v)
        x = x + attention.o(torch.cat(heads, -1)[None])
        x = block.layer[-1](x)
    found: Tensor = encoder.final_layer_norm(x)
    return found


def _buckets(attention: Any, length: int) -> Tensor:
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    settings = {"num_buckets": attention.relative_attention_num_buckets, "max_distance": attention.relative_attention_max_distance}
    bucket = attention._relative_position_bucket
    found: Tensor = bucket(distance, bidirectional=True, **settings) if "bidirectional" in bucket.__code__.co_varnames else bucket(distance)
    return found


def _is_temperature(method: Method) -> bool:
    return isinstance(method, EncoderTemperature)


CHECKS = (
    *(
        Check(run=check, applies=_is_temperature)
        for check in (
            check_temperature_is_read,
            check_padded_texts,
            check_writing_with_a_cache,
            check_temperature_and_gradients,
        )
    ),
    *(
        Check(run=check, applies=_is_temperature, tier="method")
        for check in (check_temperature_is_undone, check_copies_have_the_temperature)
    ),
    Check(run=check_decoders_are_refused, applies=_is_temperature, tier="contract"),
    Check(run=check_short_texts_are_left_alone, applies=lambda method: _is_temperature(method) and method.info.plain_inside),
    Check(run=check_neutral_temperature, applies=_is_temperature, settings="NEUTRAL"),
)
