"""Reads parts of a text side by side into one cache: none sees another, all begin at one position, what follows sees all of them.

Each part is read over what stands before all of them, and its keys and values are put aside. Then all are put behind one another. In the
cache a token has a slot of its own, so slots run ahead of positions from there on; passes over such a cache get the positions, and layers
with a sliding window count by them.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from longreach.attention.base import ReadsSets
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine._own import own_attention
from longreach.engine.cache_argument import cache_argument, take_cache
from longreach.engine.forward import apart, forward_replaced, named_inputs, rounding, transformer_of
from longreach.engine.interface import interface
from longreach.engine.stock import keeps_all

_NAME = "longreach_sets"
_INSTEAD = "choose a causal language model with rotary or learned positions, whose layers keep keys and values"
_proven: weakref.WeakSet[PreTrainedModel] = weakref.WeakSet()
_positions: ContextVar[Tensor | None] = ContextVar("positions of all slots", default=None)


@dataclass(eq=False)
class SlotPlaces:
    """Where the tokens of a cache stand. Args: held: the positions of its first slots; from there on, each is `ahead` slots further."""

    held: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    ahead: int = 0

    def until(self, slots: int) -> Tensor:
        """The positions of so many slots."""
        return torch.cat([self.held[:slots], torch.arange(len(self.held), slots) - self.ahead])


_places: "weakref.WeakKeyDictionary[Cache, SlotPlaces]" = weakref.WeakKeyDictionary()


def cache_for_sets() -> Cache:
    """An empty cache that keeps all tokens, also for layers that see a window of them: how far away they are hangs on their positions."""
    return DynamicCache()


@contextmanager
def side_by_side(cache: Cache) -> Iterator[Callable[[], None]]:
    """Inside, call what it gives after each part that was read; afterwards all of them stand in the cache.

    What is read next stands behind the longest. Without a part, nothing changes.
    """
    begin, aside = int(cache.get_seq_length()), []
    places = _places.setdefault(cache, SlotPlaces())

    def put_aside() -> None:
        aside.append([(layer.keys[:, :, begin:], layer.values[:, :, begin:]) for layer in _layers(cache)])
        for layer in _layers(cache):
            layer.keys, layer.values = layer.keys[:, :, :begin], layer.values[:, :, :begin]

    yield put_aside
    lengths = [part[0][0].shape[2] for part in aside]
    for layer, *parts in zip(_layers(cache), *aside, strict=True) if aside else ():
        layer.keys = torch.cat([layer.keys, *(keys for keys, _ in parts)], 2)
        layer.values = torch.cat([layer.values, *(values for _, values in parts)], 2)
    before, first = places.until(begin), begin - places.ahead
    places.held = torch.cat([before, *(torch.arange(first, first + length) for length in lengths)])
    places.ahead += sum(lengths) - max(lengths, default=0)


def _layers(cache: Cache) -> list[Any]:
    """Raises: LongreachError for layers that keep more, or less, than the keys and values of all tokens."""
    if any(not keeps_all(layer) for layer in cache.layers):
        raise LongreachError("parts of a text can be read side by side only where a cache keeps the keys and values of all tokens")
    return cache.layers


@contextmanager
def reads_sets(model: PreTrainedModel, method: ReadsSets) -> Iterator[None]:
    """Inside, the model goes on after caches that were filled `side_by_side`; undone on leaving.

    Raises: UnsupportedError for a model that the order of parts would make a difference to.
    """
    reader = SetReader(model)
    implementation = reader.config._attn_implementation
    functions = partial(_attention, implementation), partial(_mask, implementation)
    with ExitStack() as undo:
        undo.enter_context(interface(model, f"{_NAME}_{implementation}", *functions))
        undo.enter_context(forward_replaced(reader.base, reader.forward))
        if model not in _proven:
            _prove(model, reader, method.spec)
            _proven.add(model)
        yield


class SetReader:
    """Of one model. Its method stands in the model as its forward pass, so copies have their own."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.base, self.config = transformer_of(model), model.config.get_text_config()
        self.own: Callable[..., Any] = self.base.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The transformer's forward pass, at the positions that follow on what the cache holds."""
        inputs = named_inputs(self.own, args, kwargs)
        cache = take_cache(inputs)
        places = None if cache is None else _places.get(cache)
        if cache is not None:
            inputs |= cache_argument(self.base, cache)
        if cache is None or places is None:
            return self.own(**inputs)
        given = next(inputs[name] for name in ("input_ids", "inputs_embeds") if inputs.get(name) is not None)
        held = int(cache.get_seq_length())
        positions = places.until(held + given.shape[1]).to(given.device)
        inputs["position_ids"] = positions[held:].expand(given.shape[:2])
        token = _positions.set(positions)
        try:
            return self.own(**inputs)
        finally:
            _positions.reset(token)


def _mask(implementation: str, **kwargs: Any) -> Any:
    """The mask function registered with transformers: the model's own, and in windows distances are those of positions."""
    positions = _positions.get()
    if positions is not None and kwargs.get("local_size") is not None:
        by_position = kwargs["mask_function"]

        def by_slot(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            seen: Tensor = by_position(batch, head, positions[query], positions[key])
            return seen

        kwargs |= {"mask_function": by_slot, "local_size": None, "allow_is_causal_skip": False}
    return ALL_MASK_ATTENTION_FUNCTIONS[implementation](**kwargs)


def _attention(implementation: str, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
    """The attention function registered with transformers: the model's own."""
    return own_attention(module, implementation, options)(q, k, v, mask), None


@torch.no_grad()
def _prove(model: PreTrainedModel, reader: SetReader, method: str) -> None:
    """Refuse a model that tells one order of parts from another, or reads a single part otherwise than a text."""
    ids = torch.arange(3, 17, device=next(reader.base.parameters()).device)[None] % reader.config.vocab_size
    start, *parts, end = (ids[:, a:b] for a, b in pairwise((0, 3, 9, 11, 14)))

    def read(*parts: Tensor) -> Tensor:
        cache = cache_for_sets()

        def go_on(text: Tensor) -> Tensor:
            states: Tensor = reader.base(text, **cache_argument(reader.base, cache), use_cache=True, return_dict=True).last_hidden_state
            return states[:, -1]

        go_on(start)
        with side_by_side(cache) as put_aside:
            for part in parts:
                go_on(part)
                put_aside()
        if int(cache.get_seq_length()) != start.shape[1] + sum(part.shape[1] for part in parts):
            raise LongreachError("it fills no cache")
        return torch.cat([go_on(end), go_on(end)])

    mode = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            one_way, other_way, alone = read(*parts), read(*parts[::-1]), read(parts[0])[0]
            whole = reader.base(torch.cat([start, parts[0], end], 1), use_cache=False, return_dict=True).last_hidden_state[0, -1]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, LongreachError) as error:
        why = f"parts of a text cannot be read side by side ({type(error).__name__}: {str(error).splitlines()[0]})"
        raise UnsupportedError(method, type(model).__name__, why, _INSTEAD) from error
    finally:
        model.train(mode)
    differs = max(apart(one_way, other_way), apart(alone, whole))
    if not differs < rounding(model):
        why = f"the order of parts that are read side by side changes its states by {differs:.2g} of themselves"
        raise UnsupportedError(method, type(model).__name__, why, _INSTEAD)
