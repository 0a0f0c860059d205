"""Puts caches one behind the other, as if what they hold stood in one text: keys are turned on to the positions that they get there.

A rotary embedding turns a key by its position alone, so a key that was read at one place is turned on to any other. That is exact for what
a layer made of its tokens; but no text has seen the ones before it, as it would have in one reading.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine._store import BandLayer
from longreach.engine.apply import applied, unwrapped
from longreach.engine.examine import examine
from longreach.engine.rotation import Rotation, length_kept, rotary_modules, table
from longreach.engine.stock import keeps_all
from longreach.engine.watch import watch_of
from longreach.engine.window import position_limit, trained_window

_WHAT = "several documents in one prompt"
_FAR = 1 << 20  # tokens: beyond every window
_INSTEAD = "ask about one document at a time, or read them as one"


def join(model: Any, caches: Sequence[Cache], *, skip: int = 0) -> Cache:
    """The first of `caches`, with what the others hold behind what it holds itself; the others stay as they are.

    Each token keeps what was made of it when its own text was read; only its keys are turned, from the position in that text to the one in
    all of them. What is read next comes behind the last.
    Args: model: that filled all of them, under the same methods; only such as change no more than frequencies. skip: first tokens of each
    but the first cache that are left out: what begins a text draws attention whatever it is, and in the midst of another it distracts.
    Raises: UnsupportedError where keys cannot be turned on exactly: positions that are no rotation of keys, frequencies that change with
    the length, layers that keep only a window, methods that compute attention; LongreachError for caches that were not filled alike.
    """
    model, first = unwrapped(model), caches[0]
    if len(caches) == 1:
        return first
    _check(model, caches)
    rotations = _rotations(model)
    if missing := set(range(len(first.layers))) - rotations.keys():
        raise _refusal(model, f"how its layer {min(missing)} places keys is not known")
    pieces, end = [(0, 0)], int(first.get_seq_length())
    for cache in caches[1:]:
        pieces.append((skip, end))
        end += int(cache.get_seq_length()) - skip
    with torch.no_grad():
        turns = [_turns(model, rotations.values(), *piece, cache) for piece, cache in zip(pieces, caches, strict=True)]
        for index, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
            kept = [(layer.keys[:, :, begin:], layer.values[:, :, begin:]) for layer, (begin, _) in zip(layers, pieces, strict=True)]
            turned = [_turned(keys, rotations[index], turn) for (keys, _), turn in zip(kept, turns, strict=True)]
            layers[0].keys, layers[0].values = torch.cat(turned, 2), torch.cat([values for _, values in kept], 2)
    return first


def _check(model: PreTrainedModel, caches: Sequence[Cache]) -> None:
    if any(watch_of(cache) is not watch_of(caches[0]) or len(cache.layers) != len(caches[0].layers) for cache in caches):
        raise LongreachError("these caches were filled by different models, or under different methods, and cannot stand in one prompt")
    if position_limit(model) is not None:
        raise _refusal(model, "its positions are a learned table, added before there are keys")
    for layer in (layer for cache in caches for layer in cache.layers):
        if isinstance(layer, BandLayer):
            raise _refusal(model, f"{applied(model)} computes attention, and what it keeps cannot be moved to other positions")
        if isinstance(layer, DynamicSlidingWindowLayer):
            raise _refusal(model, "some of its layers keep only a window of each document")
        if not keeps_all(layer):
            raise _refusal(model, f"it keeps more of a text than keys and values ({type(layer).__name__})")


def _rotations(model: PreTrainedModel) -> dict[int, Rotation | None]:
    """By its number, how each layer turns its keys. Raises: UnsupportedError."""
    try:
        attentions: list[Any] = examine(model, trained_window(model.config))
    except UnsupportedError as error:
        raise _refusal(model, error.why) from None
    found: dict[int, Rotation | None] = {attention.module.layer_idx: attention.rotation for attention in attentions}
    rotaries = [rotary for _, _, rotary in rotary_modules(model)]
    with length_kept(model):
        for rotation in {each for each in found.values() if each is not None}:
            near, far = (_table(rotaries[rotation.rotary], [1, last], rotation)[0][:, :1] for last in (2, _FAR))
            if not torch.equal(near, far):
                raise _refusal(model, "its frequencies change with the length of a text")
    return found


def _turns(
    model: PreTrainedModel, rotations: Iterable[Rotation | None], begin: int, place: int, cache: Cache
) -> dict[Rotation, tuple[Tensor, Tensor]]:
    """cos and sin [1, n, R/2], float64, that turn the keys of a cache from the slot `begin` on, the first to stand at `place`.

    They are the difference of the model's own tables: so keys come to be what the model would have computed there, also at positions so
    large that float32 blurs their angles. A factor on both tables falls out. Nothing where all stays in its place.
    """
    if begin == place:
        return {}
    count, found = int(cache.get_seq_length()) - begin, {}
    rotaries = [rotary for _, _, rotary in rotary_modules(model)]
    for rotation in {each for each in rotations if each is not None}:
        rotary = rotaries[rotation.rotary]
        (cos, sin), (new_cos, new_sin) = (
            [rotation.angles(each).cpu().double() for each in _table(rotary, range(at, at + count), rotation)] for at in (begin, place)
        )
        scale = cos.square() + sin.square()
        found[rotation] = (new_cos * cos + new_sin * sin) / scale, (new_sin * cos - new_cos * sin) / scale
    return found


def _table(rotary: nn.Module, positions: Sequence[int], rotation: Rotation) -> tuple[Tensor, Tensor]:
    """cos and sin of a rotary module at some positions of one text, in float32."""
    device = next(rotary.buffers()).device
    return table(rotary, torch.zeros(1, device=device), torch.tensor([list(positions)], device=device), rotation.layer_type)


def _turned(keys: Tensor, rotation: Rotation | None, turns: dict[Rotation, tuple[Tensor, Tensor]]) -> Tensor:
    if rotation is None or rotation not in turns:
        return keys
    exact = keys.to(torch.promote_types(keys.dtype, torch.float32))
    cos, sin = (each.to(exact) for each in turns[rotation])
    return rotation(exact, cos, sin).to(keys.dtype)


def _refusal(model: PreTrainedModel, why: str) -> UnsupportedError:
    return UnsupportedError(_WHAT, type(model).__name__, why, _INSTEAD)
