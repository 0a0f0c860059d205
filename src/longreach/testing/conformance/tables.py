"""What holds for every positions method that lengthens a table of learned positions, on encoders and decoders."""

import math
import tempfile
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.tables import position_tables
from longreach.positions.base import TableMethod
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import LENGTH, WINDOW, Check, cached_logits, close, left_padding, require, same, written
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import DECODERS, LEARNED, random_ids, tiny_learned, tiny_model

_WINDOWS = (32, 77, 512)


def check_places(method: TableMethod) -> int:
    """Places are float64, one a position, and none is further beyond the last row than a step; asking twice gives the same."""
    compared = 0
    for window in _WINDOWS:
        places = method.places(window)
        require(places.dtype == torch.float64 and places.ndim == 1, f"window {window}: {places.dtype} of shape {tuple(places.shape)}")
        require(len(places) >= window, f"window {window}: only {len(places)} places")
        require(bool(((places >= 0) & (places < window)).all()), f"window {window}: places from {places.min()} to {places.max()}")
        require(float(places[0]) == 0, f"window {window}: begins at {places[0]}")
        compared += same(method.places(window), places, f"window {window}, asked twice")
    return compared


def check_neutral_table(method: TableMethod) -> int:
    """A neutral setting gives the model's own outputs, bit for bit."""
    compared = 0
    for family in LEARNED:
        model, ids = tiny_learned(family, window=WINDOW), random_ids(2, WINDOW)
        stock = outputs(model, ids)
        with apply(model, method):
            compared += same(outputs(model, ids), stock, family)
    return compared


def check_table_is_read(method: TableMethod) -> int:
    """The longer table is that of the definition, row by row in float64, and the model reads it to its end."""
    compared = 0
    for family in LEARNED:
        model = tiny_learned(family, window=WINDOW)
        (table,) = position_tables(model)
        before, places = table.module.weight.detach().double(), method.places(WINDOW).tolist()
        own = before[table.first :]
        rows = [own[math.floor(p)] if p == math.floor(p) else _between(own, p) for p in places]
        with apply(model, method):
            compared += close(table.module.weight.detach().double(), torch.stack([*before[: table.first], *rows]), family, tolerance=1e-6)
            found = outputs(model, random_ids(1, len(places)))
            compared += require(bool(found.isfinite().all()) and found.shape[1] == len(places), f"{family}: outputs {tuple(found.shape)}")
    return compared


def check_table_is_undone(method: TableMethod) -> int:
    """After the context, also one left by an exception, the table is as it was, with the config and all buffers beside it."""
    compared = 0
    for family in LEARNED:
        model, ids = tiny_learned(family, window=WINDOW), random_ids(1, WINDOW)
        stock, before = outputs(model, ids), snapshot(model)
        try:
            with apply(model, method):
                outputs(model, random_ids(1, _length(method)))
                raise KeyError("raised to leave the context")
        except KeyError:
            compared += unchanged(before, snapshot(model), f"{family}, after an exception")
        compared += same(outputs(model, ids), stock, f"{family}, outputs after the context")
    return compared


def check_table_and_padding(method: TableMethod) -> int:
    """A padded batch gives what its rows give one by one: encoders padded at the right, decoders at the left, also while they write."""
    compared, length = 0, _length(method)
    for family in LEARNED:
        model, ids = tiny_learned(family, window=WINDOW), random_ids(2, length)
        left = family in DECODERS
        mask = left_padding((length - 5, length), length) if left else left_padding((length - 5, length), length).flip(1)
        ids[mask == 0] = model.config.pad_token_id
        positions: dict[str, Any] = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if left else {}
        with apply(model, method):
            whole = outputs(model, ids, attention_mask=mask, **positions)
            for row, real in enumerate(mask.bool()):
                compared += close(whole[row][real], outputs(model, ids[row, real][None])[0], f"{family}, row {row}")
            if left:
                room = length - 7  # what is written has positions, too
                batch = written(model, ids[:, -room:], mask[:, -room:])
                compared += same(batch[1:], written(model, ids[1:, -room:]), f"{family}, written")
    return compared


def check_table_and_causality(method: TableMethod) -> int:
    """In decoders, changing a token changes what comes after it and nothing before it."""
    compared, length = 0, _length(method)
    for family in DECODERS:
        model, ids = tiny_learned(family, window=WINDOW), random_ids(1, length)
        for place in (1, WINDOW, length - 1):
            other = ids.clone()
            other[:, place] = ids[:, place] - 3 + 90 * (ids[:, place] < 6)
            with apply(model, method):
                before, after = outputs(model, ids), outputs(model, other)
            compared += close(after[:, :place], before[:, :place], f"{family}, tokens before {place}", tolerance=1e-5)
            require(float((after - before)[:, place].abs().max()) > 1e-3, f"{family}: token {place} does not see itself")
    return compared


def check_table_and_chunks(method: TableMethod) -> int:
    """Decoders give the same at once, in chunks and token by token, to the end of the longer table."""
    compared, length = 0, _length(method)
    for family in DECODERS:
        model, ids = tiny_learned(family, window=WINDOW), random_ids(2, length)
        with apply(model, method):
            wanted = outputs(model, ids)
            for sizes in ([13, 1, 16, LENGTH], [1] * length):
                compared += close(cached_logits(model, ids, sizes), wanted, f"{family}, chunks of {sizes[:3]}")
    return compared


def check_table_export(method: TableMethod) -> int:
    """Saved inside the context, the checkpoint gives the same outputs in plain transformers, as long as the table is."""
    compared = 0
    for family in LEARNED:
        model, ids = tiny_learned(family, window=WINDOW), random_ids(2, _length(method))
        with tempfile.TemporaryDirectory() as folder:
            with apply(model, method):
                wanted = outputs(model, ids)
                type(model).save_pretrained(model, folder)
            plain = type(model).from_pretrained(folder).eval()
        compared += same(outputs(plain, ids), wanted, family)
        (table,) = position_tables(plain)
        compared += require(table.positions == len(method.places(WINDOW)), f"{family}: {table.positions} positions")
    return compared


def check_rotary_models_are_refused(method: TableMethod) -> int:
    """A model without a table of learned positions is refused."""
    return refused_by_apply(tiny_model(), method, "no table of learned positions")


@torch.no_grad()
def outputs(model: PreTrainedModel, ids: Tensor, **inputs: Any) -> Tensor:
    """Logits [B, T, V], or hidden states [B, T, D] of an encoder."""
    out = model(ids, **inputs)
    found: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found


def _between(rows: Tensor, place: float) -> Tensor:
    """The row at a broken place; beyond the last one, on the line of the last two."""
    below = min(math.floor(place), len(rows) - 2)
    return rows[below] * (below + 1 - place) + rows[below + 1] * (place - below)


def _length(method: TableMethod) -> int:
    return min(LENGTH, len(method.places(WINDOW)))


def _is_table(method: Method) -> bool:
    return isinstance(method, TableMethod)


CHECKS = (
    *(
        Check(run=check, applies=_is_table)
        for check in (
            check_places,
            check_table_is_read,
            check_table_and_padding,
            check_table_and_causality,
            check_table_and_chunks,
        )
    ),
    *(Check(run=check, applies=_is_table, tier="method") for check in (check_table_is_undone, check_table_export)),
    Check(run=check_rotary_models_are_refused, applies=_is_table, tier="contract"),
    Check(run=check_neutral_table, applies=_is_table, settings="NEUTRAL"),
)
