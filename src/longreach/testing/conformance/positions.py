"""What holds for every positions method of rotary models: what it computes, what it writes into a config, which models it refuses.

All of it also on checkpoints that are scaled already.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from longreach.core.errors import UnsupportedError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.rope_config import rope_of, with_rope
from longreach.engine.rotation import rotary_modules
from longreach.positions.base import PositionsMethod, Rope
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import (
    LENGTH,
    WINDOW,
    Check,
    cached_logits,
    close,
    first,
    logits,
    moves,
    require,
    same,
    shared_model,
    written,
)
from longreach.testing.models import SCALED, random_ids, tiny_model

_ROPES = (
    Rope(theta=10_000.0, dim=16, trained_window=32),
    Rope(theta=500_000.0, dim=128, trained_window=8192, num_heads=8),
    Rope(theta=1e4, dim=4, trained_window=2048),
    *(rope_of(tiny_model(family).config) for family in SCALED),
)
_SCALED_WINDOW = 128  # of the checkpoints that are scaled already
_NESTED = "gemma3"  # one rotary embedding a layer type
_NESTED_LONGROPE = Version("5.23")  # before, transformers fails beyond the window; `save` does not write it


def check_frequencies(method: PositionsMethod) -> int:
    """Frequencies are float32, one a pair of dimensions, finite, none below 0; the factor is above 0; asking twice gives the same."""
    compared = 0
    for rope in _ROPES:
        for seq_len in (1, rope.trained_window, 10 * rope.trained_window):
            (found, factor), (again, _) = method.inv_freq(rope, seq_len), method.inv_freq(rope, seq_len)
            shape = (rope.num_heads, rope.dim // 2) if method.info.per_head else (rope.dim // 2,)
            require(found.shape == shape, f"{rope}: frequencies of shape {tuple(found.shape)}")
            require(found.dtype == torch.float32, f"{rope}: frequencies in {found.dtype}")
            require(bool((found.isfinite() & (found >= 0)).all()), f"{rope}: frequencies {found.tolist()}")
            require(0 < factor < float("inf"), f"{rope}: factor {factor}")
            compared += same(again, found, f"{rope}, asked twice")
    return compared


def check_neutral_frequencies(method: PositionsMethod) -> int:
    """A neutral setting computes the model's own frequencies, bit for bit, up to the trained window."""
    compared = 0
    for rope in _ROPES:
        found, factor = method.inv_freq(rope, rope.trained_window)
        compared += same(found, rope.inv_freq().expand_as(found), str(rope)) + require(factor == rope.attention_factor, f"factor {factor}")
    return compared


def check_neutral_logits(method: PositionsMethod) -> int:
    """A neutral setting gives the model's own logits, bit for bit."""
    compared = 0
    for family in ("llama", "gpt_neox", _NESTED, *SCALED) if first(method) else ("llama",):
        model, ids = shared_model(family), random_ids(1, LENGTH)
        stock = logits(model, ids)
        with apply(model, method):
            compared += same(logits(model, ids), stock, family)
    return compared


def check_moves_logits(method: PositionsMethod) -> int:
    """Every setting but the neutral ones changes the logits, and writing goes on from the changed ones, with a cache as without."""
    model, ids = shared_model(), random_ids(1, LENGTH)
    stock = logits(model, ids)
    with apply(model, method):
        compared = moves(method, logits(model, ids), stock)
        return compared + same(written(model, ids), written(model, ids, use_cache=False), "written with and without a cache")


def check_undone(method: PositionsMethod) -> int:
    """After the context, also one left by an exception, everything is as it was; nested embeddings, too."""
    compared = 0
    for family in ("llama", _NESTED):
        model, ids = tiny_model(family, max_position_embeddings=WINDOW), random_ids(1, LENGTH)
        stock, before = logits(model, ids), snapshot(model)
        try:
            with apply(model, method):
                logits(model, ids)
                raise KeyError("raised to leave the context")
        except KeyError:
            compared += unchanged(before, snapshot(model), f"{family}, after an exception")
        compared += same(logits(model, ids), stock, f"{family}, logits after the context")
    return compared


def check_export(method: PositionsMethod) -> int:
    """Saved inside the context, the checkpoint gives the same logits and the same text in plain transformers."""
    compared = 0
    written_type = (method.rope_parameters(_ROPES[0]) or {}).get("rope_type")
    nested = () if written_type == "longrope" and Version(transformers.__version__) < _NESTED_LONGROPE else (_NESTED,)
    for family in ("llama", "gpt_neox", *SCALED, *nested) if first(method) else ("llama",):
        window = {} if family in SCALED else {"max_position_embeddings": WINDOW}
        model, ids = tiny_model(family, **window), random_ids(2, 3 * WINDOW)
        with tempfile.TemporaryDirectory() as folder:
            with apply(model, method):
                wanted, text = logits(model, ids), written(model, ids)
                parameters = dict(model.config.rope_parameters)
                type(model).save_pretrained(model, folder)  # past the watch, which refuses it
            plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            saved = AutoConfig.from_pretrained(folder).rope_parameters
            compared += require(saved == parameters, f"{family}: saved {saved}, wanted {parameters}")
        written_in = parameters.get("full_attention", parameters)
        for name, value in (method.rope_parameters(rope_of(model.config)) or {}).items():
            compared += require(written_in[name] == value, f"{family}: {name} is {written_in[name]}, wanted {value}")
        compared += close(logits(plain, ids), wanted, family) + same(written(plain, ids), text, f"{family}, written")
    return compared


def check_export_of_nested(method: PositionsMethod) -> int:
    """Where each layer type has its own embedding, only that of the full-attention layers changes, in the model as in the config."""
    model = tiny_model(_NESTED, max_position_embeddings=WINDOW)
    before = model.config.rope_parameters
    buffers = dict(rotary_modules(model)[0][2].named_buffers())
    full, sliding = buffers["full_attention_inv_freq"].clone(), buffers["sliding_attention_inv_freq"].clone()
    with apply(model, method):
        after = model.config.rope_parameters
        buffers = dict(rotary_modules(model)[0][2].named_buffers())
        compared = same(buffers["sliding_attention_inv_freq"], sliding, "frequencies of the sliding layers")
        compared += require(not torch.equal(buffers["full_attention_inv_freq"], full), "the full layers kept their frequencies")
    require(after["full_attention"] != before["full_attention"], "the config of the full layers did not change")
    return compared + require(after["sliding_attention"] == before["sliding_attention"], "the config of the sliding layers changed")


def check_export_is_refused(method: PositionsMethod) -> int:
    """What transformers cannot express is not written into a config, neither on demand nor by saving inside the context."""
    model = tiny_model(max_position_embeddings=WINDOW)
    before = dict(model.config.rope_parameters)
    with apply(model, method):
        require(model.config.rope_parameters == before, f"the config says {model.config.rope_parameters}")
    return _refused(lambda: with_rope(model.config, method), method, "no rope type")


def check_scaled_models(method: PositionsMethod) -> int:
    """On a checkpoint that is scaled already it acts beyond that one's window at least; in chunks and in one piece alike, and undone."""
    compared = 0
    for family in SCALED:
        model, ids = shared_model(family, _SCALED_WINDOW), random_ids(1, 2 * _SCALED_WINDOW + 10)
        stock, before = logits(model, ids), snapshot(model)
        with apply(model, method):
            ours = logits(model, ids)
            compared += moves(method, ours, stock)
            compared += close(cached_logits(model, ids, (50, 1, 60, 155)), ours, f"{family}, in chunks")
        compared += unchanged(before, snapshot(model), family) + same(logits(model, ids), stock, f"{family}, after the context")
    return compared


def check_other_positions_are_refused(method: PositionsMethod) -> int:
    """A model without rotary embedding is refused."""
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=64, vocab_size=97, bos_token_id=1, eos_token_id=2)
    return refused_by_apply(GPT2LMHeadModel(config), method, "rotary")


def refused_by_apply(model: PreTrainedModel, method: Method, words: str) -> int:
    """Raise AssertionError unless applying is refused with `words` and the method named, and leaves nothing behind."""
    before = snapshot(model)

    def enter() -> None:
        with apply(model, method):
            pass

    return _refused(enter, method, words) + unchanged(before, snapshot(model), "after the refusal")


def _refused(attempt: Callable[[], Any], method: Method, words: str) -> int:
    try:
        attempt()
    except UnsupportedError as error:
        return require(words in str(error) and str(method) in str(error), f"unclear: {error}")
    return require(False, f"{method} was not refused")


def _is_positions(method: Method) -> bool:
    return isinstance(method, PositionsMethod)


def _needs_no_engine(method: Method) -> bool:
    return isinstance(method, PositionsMethod) and not method.needs_engine


def _exports(method: Method) -> bool:
    return _is_positions(method) and method.info.exportable


CHECKS = (
    Check(run=check_frequencies, applies=_is_positions),
    Check(run=check_scaled_models, applies=_is_positions, tier="method"),
    Check(run=check_other_positions_are_refused, applies=_is_positions, tier="contract"),
    Check(run=check_moves_logits, applies=_needs_no_engine),
    Check(run=check_undone, applies=_needs_no_engine, tier="method"),
    Check(run=check_neutral_frequencies, applies=_is_positions, settings="NEUTRAL"),
    Check(run=check_neutral_logits, applies=_needs_no_engine, settings="NEUTRAL"),
    Check(run=check_export, applies=_exports),
    Check(run=check_export_of_nested, applies=_exports, tier="method"),
    Check(run=check_export_is_refused, applies=lambda method: _is_positions(method) and not method.info.exportable, tier="contract"),
)
