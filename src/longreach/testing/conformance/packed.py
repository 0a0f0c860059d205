"""What holds for every method that lays out a padded batch in rows of its own."""

import copy
import gc
import warnings
from itertools import product
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from longreach.attention.base import Packs
from longreach.core.errors import LongreachError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import LENGTH, Check, close, first, left_padding, loss_gradients, require, same, written
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import random_ids, tiny_biased, tiny_learned, tiny_model

LENGTHS = (LENGTH, 7, 23, 7, 1)
_WRITERS = ("llama", "gemma3", "gpt2")
_EXACT = 1e-9  # of float64 logits
_DECODERS = ("llama", "mistral", "gemma3", "phi3", "gpt_neox", "granite")
_LEARNED = ("gpt2", "opt", "bert", "roberta")  # tables that are numbered by columns, by real tokens, and from `padding_idx` on


def check_rows(method: Packs) -> int:
    """Every text stands in one row, whatever the lengths, and rows hold no more tokens than the batch does."""
    compared = 0
    for lengths in ((5,), (1, 1, 1), (64, 3, 3, 60, 17, 2), tuple(range(1, 40)), tuple(range(300, 1, -13))):
        rows = method.rows(lengths)
        compared += require(sorted(text for row in rows for text in row) == list(range(len(lengths))), f"rows of {lengths}: {rows}")
        require(all(rows), f"an empty row for {lengths}: {rows}")
        slots = len(rows) * max(sum(lengths[text] for text in row) for row in rows)
        require(slots <= len(lengths) * max(lengths), f"{slots} slots for {lengths}")
    return compared


def check_packed_batches(method: Packs) -> int:
    """Real tokens get what the model gives them in the padded batch, float64."""
    compared = 0
    for model in _models(method):
        for mask in (_mask("left"), _mask("right")):
            ids = _ids(model, mask)
            wanted = _outputs(model, ids, mask)
            with apply(model, method):
                ours = _outputs(model, ids, mask)
            compared += close(ours[mask.bool()], wanted[mask.bool()], _name(model), tolerance=_EXACT)
    return compared


def check_batches_without_padding(method: Packs) -> int:
    """They are read as by the model itself, bit for bit, with a mask and without one."""
    compared = 0
    for model in _models(method):
        ids = random_ids(2, LENGTH)
        wanted = _outputs(model, ids)
        with apply(model, method):
            for mask in (None, torch.ones_like(ids)):
                compared += same(_outputs(model, ids, mask), wanted, _name(model))
    return compared


def check_padding_is_not_read(method: Packs) -> int:
    """Layers see the rows alone: tokens of padding are in none of them, but for the ends of rows that are not full."""
    model, mask = tiny_model().double(), _mask("right")
    seen: list[int] = []
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, out: seen.append(args[0].shape[:2].numel()))
    with apply(model, method):
        seen.clear()
        _outputs(model, _ids(model, mask), mask)
    rows = method.rows(LENGTHS)
    wanted = len(rows) * max(sum(LENGTHS[text] for text in row) for row in rows)
    return require(seen == [wanted], f"layers read {seen} tokens, not {wanted}")


def check_packed_prompts(method: Packs) -> int:
    """A cache that was filled in rows holds what the padded batch leaves there, and the same text is written from it."""
    compared, mask = 0, _mask("left")
    for model in _models(method, _WRITERS):
        ids, real = _ids(model, mask), mask.bool()
        wanted = _filled(model, ids, mask)
        text = written(model, ids, mask)
        with apply(model, method):
            ours = _filled(model, ids, mask)
            held = [(layer.keys.clone(), layer.values.clone()) for layer in ours.layers]
            compared += same(written(model, ids, mask), text, f"{_name(model)}, written")
        for layer, kept in zip(wanted.layers, held, strict=True):
            there = real[:, -layer.keys.shape[2] :]
            for a, b in zip(kept, (layer.keys, layer.values), strict=True):
                compared += close(a.transpose(1, 2)[there], b.transpose(1, 2)[there], f"{_name(model)}, cache", tolerance=_EXACT)
    return compared


def check_packed_gradients(method: Packs) -> int:
    """A loss has the gradients that it has in the padded batch, with checkpoints of activations, too."""
    compared, whole = 0, torch.ones_like(_mask("right"))
    for checkpointing, mask in product((False, True), (_mask("right"), whole)):
        model = tiny_model().double()
        ids = _ids(model, mask)
        labels = ids.masked_fill(mask == 0, -100)
        if checkpointing:
            model.train()
            with warnings.catch_warnings(action="ignore"):  # of its new name, which is not in all versions that are supported
                model.gradient_checkpointing_enable()
        wanted = loss_gradients(model, ids, mask, labels)
        with apply(model, method):
            ours = loss_gradients(model, ids, mask, labels)
        for name, gradient in wanted.items():
            compared += close(ours[name], gradient, f"gradient of {name}", tolerance=_EXACT)
    return compared


def check_packing_and_frequencies(method: Packs) -> int:
    """Methods that change frequencies alone stand beside it."""
    compared, mask = 0, _mask("left")
    model = tiny_model(max_position_embeddings=32).double()
    ids = _ids(model, mask)
    for spec in ("yarn:factor=4", "linear:factor=2"):
        with apply(model, spec):
            wanted = _outputs(model, ids, mask)
        with apply(model, f"{spec}+{method.spec}"):
            compared += close(_outputs(model, ids, mask)[mask.bool()], wanted[mask.bool()], spec, tolerance=_EXACT)
    return compared


def check_packing_is_undone(method: Packs) -> int:
    """After the context, also one left by an exception, everything is as it was; a copy made inside goes on with it."""
    compared, mask = 0, _mask("right")
    gc.collect()
    for model in (tiny_model(), tiny_learned("bert")):
        ids, before = _ids(model, mask), snapshot(model)
        stock = _outputs(model, ids, mask)
        twin: Any = None
        try:
            with apply(model, method):
                ours, twin = _outputs(model, ids, mask), copy.deepcopy(model)
                raise KeyError("raised to leave the context")
        except KeyError:
            compared += same(_outputs(twin, ids, mask), ours, f"{_name(model)}, a copy")
            del twin
            gc.collect()  # it takes what it needs out of the registries when it goes
            compared += unchanged(before, snapshot(model), f"{_name(model)}, after an exception")
        compared += same(_outputs(model, ids, mask), stock, f"{_name(model)}, after the context")
    return compared


def check_what_cannot_be_packed_is_refused(method: Packs) -> int:
    """Passes that cannot be read in rows, other computed attention, and encoder-decoders are refused."""
    model, mask = tiny_model(), _mask("left")
    ids, holes = _ids(model, mask), mask.clone()
    holes[0, 20] = 0
    square = torch.ones(len(ids), 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    compared = 0
    with apply(model, method):
        stock = _outputs(model, ids, mask)
        for given, words in (
            ({"attention_mask": square}, "a mask other than"),
            ({"attention_mask": holes}, "padding between the tokens"),
            ({"attention_mask": mask, "output_attentions": True}, "output_attentions"),
        ):
            try:
                model(ids, **given)
                raise AssertionError(f"{words}: not refused")
            except LongreachError as error:
                compared += require(words in str(error) and "\n" not in str(error), f"refused as {error}")
        compared += same(_outputs(model, ids, mask), stock, "after refusals")
    for other in ("log_n", "sinks:window_size=16", "prepack" if method.name() != "prepack" else "padding_free"):
        try:
            with apply(model, f"{method.spec}+{other}"):
                raise AssertionError(f"{other}: not refused")
        except LongreachError as error:
            compared += require("keep one of them" in str(error), f"refused as {error}")
    return compared + refused_by_apply(tiny_biased(), method, "encoder-decoder")


def _models(method: Packs, families: tuple[str, ...] = (*_DECODERS, *_LEARNED)) -> list[PreTrainedModel]:
    """In float64: of all families for the first setting in a method's file, Llama for the others."""
    names = families if first(method) else families[:1]
    return [(tiny_learned if name in _LEARNED else tiny_model)(name).double() for name in names]


def _mask(side: str) -> Tensor:
    mask = left_padding(LENGTHS)
    return mask if side == "left" else mask.flip(1)


def _ids(model: PreTrainedModel, mask: Tensor) -> Tensor:
    return random_ids(*mask.shape).masked_fill(mask == 0, model.config.pad_token_id)


@torch.no_grad()
def _outputs(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits [B, T, V], or hidden states [B, T, D]."""
    out = model(ids, attention_mask=mask)
    found: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found


@torch.no_grad()
def _filled(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Any:
    cache = DynamicCache(config=model.config.get_text_config())
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model(ids, attention_mask=mask, position_ids=positions, **cache_argument(model, cache), use_cache=True)
    return cache


def _name(model: PreTrainedModel) -> str:
    return str(model.config.model_type)


def _is_packing(method: Method) -> bool:
    return isinstance(method, Packs)


CHECKS = (
    *(
        Check(run=check, applies=_is_packing)
        for check in (check_rows, check_packed_batches, check_padding_is_not_read, check_packed_prompts)
    ),
    *(
        Check(run=check, applies=_is_packing, tier="method")
        for check in (check_packed_gradients, check_packing_and_frequencies, check_packing_is_undone)
    ),
    Check(run=check_batches_without_padding, applies=_is_packing, settings="NEUTRAL"),
    Check(run=check_what_cannot_be_packed_is_refused, applies=_is_packing, tier="contract"),
)
