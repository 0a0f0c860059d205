"""Caches of several texts as the rows of one, so that they go on side by side; and a row as a cache of its own again.

All texts end in the same slot, with padding before the shorter ones. So whatever goes by distances, or keeps the last tokens, finds in
each row what it finds where the row is alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from longreach.core.errors import LongreachError
from longreach.engine._channels import Channels
from longreach.engine._store import BandLayer
from longreach.engine.snapshots import settle
from longreach.engine.stock import keeps_all, keeps_window


def stackable(cache: Cache) -> bool:
    """Whether a cache that was filled may be a row among others: it holds nothing but keys and values of tokens, of which none was placed
    or chosen by how long the text is, or where its prompt ends.
    """
    return bool(cache.layers) and all(keeps_all(layer) or keeps_window(layer) or _only_bands(layer) for layer in cache.layers)


def stack_rows(into: Cache, caches: Sequence[Cache]) -> list[int]:
    """Let `into` hold what `caches` hold, a row each. Returns: the padding of each row.

    Args: into: empty, and one that the model takes for its own, as `Watch.claim` makes it. caches: of one row each, filled by one model
    under the same methods; they are settled (engine/snapshots.py), and otherwise stay as they are.
    Raises: LongreachError for caches that are not `stackable`.
    """
    if not all(stackable(cache) for cache in caches):
        raise LongreachError("these caches hold more than keys and values, and cannot be rows of one; go on with one text at a time")
    lengths = [int(cache.get_seq_length()) for cache in caches]
    width, layers = max(lengths), list(zip(*(cache.layers for cache in caches), strict=True))
    padding = [width - length for length in lengths]
    for cache in caches:
        settle(cache)
    for layer, rows in zip(into.layers, layers, strict=True):
        if isinstance(layer, BandLayer):
            channels = {name: _stacked([row.recent.view(name) for row in rows]) for name in rows[0].recent.data}
            first = {name: torch.cat([row.first[name] for row in rows]) for name in rows[0].first}
            _fill(layer, rows[0], channels, first, tokens=width, first_filled=all(row.first_filled for row in rows))
            streams = [row.stream for row in rows]
            layer.stream.start, layer.stream.started = padding, [True] * len(rows)
            layer.stream.prompt = max(before + (stream.prompt or 0) for before, stream in zip(padding, streams, strict=True))
            layer.stream.offset = torch.cat([stream.offset for stream in streams])
        else:
            _fill_plain(layer, *(_stacked([getattr(row, name) for row in rows]) for name in ("keys", "values")), tokens=width)
    return padding


def take_row(into: Cache, cache: Cache, row: int, padding: int) -> None:
    """Let `into`, empty and as in `stack_rows`, hold what `cache` holds of a row that has so much padding. Tensors are shared."""
    tokens, here = int(cache.get_seq_length()) - padding, slice(row, row + 1)
    held: Any
    for layer, held in zip(into.layers, cache.layers, strict=True):
        if isinstance(layer, BandLayer):
            channels = {name: held.recent.view(name)[here, :, -tokens:] for name in held.recent.data}
            first = {name: each[here] for name, each in held.first.items()}
            _fill(layer, held, channels, first, tokens=tokens, first_filled=held.first_filled)
            layer.stream.start, layer.stream.started = [0], [True]
            layer.stream.prompt, layer.stream.offset = max(0, held.stream.prompt - padding), held.stream.offset[here]
        else:  # in a window there may be no padding any more
            _fill_plain(layer, held.keys[here, :, -tokens:], held.values[here, :, -tokens:], tokens=tokens)


def _only_bands(layer: object) -> bool:
    if type(layer) is not BandLayer or not layer.plan.only_bands or layer.epoch is not None or layer.inserted:
        return False
    return all(getattr(layer.stream, name) is None for name in ("valid", "indices", "read", "last", "embeds"))


def _fill(
    layer: BandLayer, like: BandLayer, channels: dict[object, Tensor], first: dict[object, Tensor], *, tokens: int, first_filled: bool
) -> None:
    recent, batch = Channels.holding(channels), next(iter(channels.values())).shape[0]
    layer.hold(replace(like.held(), tokens=tokens, batch=batch, recent=recent, first=first, first_filled=first_filled))


def _fill_plain(layer: Any, keys: Tensor, values: Tensor, *, tokens: int) -> None:
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    if keeps_window(layer):
        layer.cumulative_length = tokens


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """[1, K, S, D] each -> [B, K, the largest S, D], with zeros before the shorter ones."""
    first, width = tensors[0], max(tensor.shape[2] for tensor in tensors)
    stacked = first.new_zeros(len(tensors), first.shape[1], width, first.shape[3])
    for row, tensor in enumerate(tensors):
        stacked[row, :, width - tensor.shape[2] :] = tensor[0]
    return stacked
