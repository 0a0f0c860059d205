"""Reads a padded batch without its padding: every layer runs on the real tokens alone, in rows that a method lays out.

The model's own code reads the rows with an attention function that gives each text to the model's own one by itself, under the mask that
transformers makes for such a text. What comes out, and what goes into the cache, has the shape of the batch again. So whatever follows,
generation among it, sees no difference. A pass that brings no padding, or goes on after a filled cache, is the model's own.
"""

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from longreach.attention.base import Packs
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine._own import own_attention
from longreach.engine.cache_argument import cache_argument, cache_of, take_cache
from longreach.engine.forward import apart, forward_replaced, named_inputs, rounding, transformer_of
from longreach.engine.interface import interface
from longreach.engine.layout import Layout
from longreach.engine.stock import keeps_all
from longreach.engine.tables import position_tables

NAME = "longreach_packed"
_PROBE_LENGTHS = (7, 3, 5)
_INPUTS = ("input_ids", "inputs_embeds", "position_ids", "token_type_ids")  # one for each token
_COUNTS: dict[str, Callable[[Tensor], Tensor]] = {
    "columns": lambda mask: torch.arange(mask.shape[1], device=mask.device).expand(mask.shape),
    "real tokens": lambda mask: (mask.long().cumsum(1) - 1).clamp(min=0),
}  # how models number tokens where nobody gives positions
_INSTEAD = "leave the method for this pass"


@dataclass(frozen=True, slots=True)
class OwnWay:
    """How a model reads a batch by itself.

    Args: count: a key of `_COUNTS`, by which it numbers tokens. first: the number of the first one. caches: it fills a cache if asked to.
    """

    count: str = "columns"
    first: int = 0
    caches: bool = False

    def numbers(self, mask: Tensor) -> Tensor:
        """Of the tokens under a mask [B, T], where no positions are given."""
        return _COUNTS[self.count](mask) + self.first


_known: weakref.WeakKeyDictionary[PreTrainedModel, OwnWay] = weakref.WeakKeyDictionary()
_pass: ContextVar["tuple[Layout, str] | None"] = ContextVar("packed pass", default=None)


@contextmanager
def packed(model: PreTrainedModel, method: Packs) -> Iterator[None]:
    """Inside, the model reads padded batches in the rows that `method` lays out; undone on leaving.

    Raises: UnsupportedError for a model that does not give the same that way.
    """
    packer = Packer(model, method)
    with ExitStack() as undo:
        undo.enter_context(interface(model, NAME, _attention, _mask))
        undo.enter_context(forward_replaced(packer.base, packer.forward))
        if isinstance(pooler := getattr(packer.base, "pooler", None), nn.Module):
            undo.callback(pooler.register_forward_pre_hook(packer.before_pooler).remove)
        if isinstance(head := model.get_output_embeddings(), nn.Module):
            undo.callback(head.register_forward_pre_hook(packer.before_head).remove)
            undo.callback(head.register_forward_hook(packer.after_head).remove)
        if model not in _known:
            _known[model] = _proven(model, packer)
        packer.own_way = _known[model]
        yield


class Packer:
    """Of one model: what reads in rows. Its methods stand in the model as its forward pass and hooks, so copies have their own.

    base: the transformer without a head. own_way: how it reads batches. off: passes are the model's own.
    """

    def __init__(self, model: PreTrainedModel, method: Packs) -> None:
        self.method, self.name = method, type(model).__name__
        self.base = transformer_of(model)
        self.config = model.config.get_text_config()
        self.implementation: str = self.config._attn_implementation
        self.own: Callable[..., Any] = self.base.forward
        self.own_way = OwnWay()
        self.off = False
        self.pooled: Layout | None = None  # of a pass under way, until its pooler has run
        self.last: tuple[Layout, weakref.ref[Tensor]] | None = None  # what a head may read next
        self.headed: Layout | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The transformer's forward pass."""
        inputs = named_inputs(self.own, args, kwargs)
        cache = take_cache(inputs)
        layout = None if self.off or (cache is not None and cache.get_seq_length() > 0) else self._layout(inputs)
        self.last = None
        if layout is None:
            if cache is not None:
                inputs |= cache_argument(self.base, cache)
            return self._plainly(inputs)
        return self._in_rows(layout, inputs, cache)

    def _plainly(self, inputs: dict[str, Any]) -> Any:
        self.config._attn_implementation = self.implementation
        try:
            return self.own(**inputs)
        finally:
            self.config._attn_implementation = NAME

    def _layout(self, inputs: dict[str, Any]) -> Layout | None:
        """None for a pass without padding. Raises: LongreachError for one that cannot be read in rows."""
        mask = inputs.get("attention_mask")
        if mask is None and self._computes_again():
            given = next(inputs[name] for name in _INPUTS if isinstance(inputs.get(name), Tensor))
            mask = inputs["attention_mask"] = torch.ones(given.shape[:2], device=given.device)
        if mask is None:
            return None
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise self._refusal("a mask other than [batch, tokens]", "leave out the static cache, or that mask")
        mask = mask.bool()
        if mask.all() and not self._computes_again():
            return None
        if inputs.get("output_attentions") or getattr(self.config, "output_attentions", False):
            raise self._refusal("output_attentions", "leave that out")
        ends = mask.shape[1] - mask.int().flip(1).argmax(1) - mask.int().argmax(1)
        if not torch.equal(ends[mask.any(1)], mask.sum(1)[mask.any(1)]):
            raise self._refusal("padding between the tokens of a text", "pad on the left or on the right")
        return Layout.of(mask, self.method.rows) if mask.any() else None

    def _computes_again(self) -> bool:
        """Whether layers run again for their gradients, when nobody would say any more which attention they ran with."""
        return bool(self.base.training and getattr(self.base, "gradient_checkpointing", False))

    def _in_rows(self, layout: Layout, inputs: dict[str, Any], cache: Cache | None) -> Any:
        mask = inputs.pop("attention_mask").bool()
        as_dict = inputs.pop("return_dict", None)
        use_cache = inputs.pop("use_cache", None)
        positions = inputs.get("position_ids")
        inputs["position_ids"] = self.own_way.numbers(mask) if positions is None else positions
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                inputs[name] = layout.pack(self._each_token(name, value, layout))
        if self.own_way.caches:
            use_cache = self.config.use_cache if use_cache is None else use_cache
            if use_cache and cache is None and not self._computes_again():
                cache = DynamicCache(config=self.config)
            inputs |= cache_argument(self.base, None if cache is None else PackedCache(layout, cache)) | {"use_cache": cache is not None}
        ones = torch.ones(layout.size, dtype=torch.long, device=mask.device)
        token, self.pooled = _pass.set((layout, self.implementation)), layout
        try:
            output = self.own(**inputs, attention_mask=ones, return_dict=True)
            found = self._of_batch(layout, output, cache if use_cache else None)
        finally:
            _pass.reset(token)
            self.pooled = None
        self.last = layout, weakref.ref(found.last_hidden_state)
        wanted = getattr(self.config, "return_dict", True) if as_dict is None else as_dict
        return found if wanted else found.to_tuple()

    def _each_token(self, name: str, value: Tensor, layout: Layout) -> Tensor:
        """An input as [B, T, ...]. Raises: LongreachError for one that is not of tokens."""
        if name == "position_ids" and value.ndim == 2:
            value = value.expand(layout.shape)
        if name not in _INPUTS or value.shape[:2] != layout.shape:
            raise self._refusal(f"the input {name} {tuple(value.shape)}", "leave that out")
        return value

    def _of_batch(self, layout: Layout, output: Any, cache: Cache | None) -> Any:
        """What a pass over rows gave, in the shape of the batch."""
        found: dict[str, Any] = {}
        cached = cache_argument(self.base, None).keys()
        for name, value in output.items():
            if name in cached:
                value = cache
            elif name == "last_hidden_state":
                value = layout.unpack(value)
            elif name == "hidden_states":
                value = tuple(layout.unpack(each) for each in value)
            elif value is not None and not (name == "pooler_output" and self.pooled is None):
                raise self._refusal(f"the output {name}", "leave that out")
            found[name] = value
        return type(output)(**found)

    def before_pooler(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Show a pooler the batch instead of rows (a hook before it)."""
        layout, self.pooled = self.pooled, None
        return None if layout is None else (layout.unpack(args[0]), *args[1:])

    def before_head(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Leave padding out of what becomes logits (a hook before the head)."""
        self.headed = None
        if self.last is None or not args:
            return None
        (layout, reference), x = self.last, args[0]
        hidden = reference()
        if hidden is None or hidden.shape != x.shape or hidden.data_ptr() != x.data_ptr():
            return None
        self.headed, self.last = layout, None
        return (layout.real(x), *args[1:])

    def after_head(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        """Put logits where the batch has their tokens (a hook after the head)."""
        layout, self.headed = self.headed, None
        return None if layout is None else layout.spread(output)

    def _refusal(self, what: str, instead: str) -> LongreachError:
        return LongreachError(f"{self.method} cannot read a padded batch of {self.name} with {what}; {instead}, or {_INSTEAD}")


class PackedCache(DynamicCache):
    """Stands in for an empty cache while rows are read: keys and values go into it in the shape of the batch, zeros at padding."""

    def __init__(self, layout: Layout, real: Cache) -> None:
        super().__init__()
        self.layout, self.real = layout, real

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [R, K, L, D] as they are."""
        keys, values = self.layout.unpack_heads(key_states), self.layout.unpack_heads(value_states)
        layer = self.real.layers[layer_idx] if layer_idx < len(self.real.layers) else None
        if keeps_all(layer) and not self.real.offloading:  # which would copy them behind the nothing that it holds
            layer.update(keys[:, :, :0], values[:, :, :0])
            layer.keys, layer.values = keys, values
        else:
            self.real.update(keys, values, layer_idx, *args, **kwargs)
        return key_states, value_states


@dataclass(eq=False)
class RowMask:
    """What transformers' mask code passes along in place of a mask while rows are read: how the mask of each text is made."""

    layout: Layout
    implementation: str
    arguments: dict[str, Any]
    masks: dict[int, Any] = field(default_factory=dict)
    ndim = 4  # transformers hands masks of four dimensions through unchanged

    def of(self, length: int) -> Any:
        """The mask of a text, as the model has it for that text alone."""
        if length not in self.masks:
            shape = {"batch_size": 1, "q_length": length, "kv_length": length, "q_offset": 0, "kv_offset": 0, "attention_mask": None}
            self.masks[length] = ALL_MASK_ATTENTION_FUNCTIONS[self.implementation](**{**self.arguments, **shape})
        return self.masks[length]

    def to(self, *args: Any, **kwargs: Any) -> "RowMask":
        """Itself."""
        return self


def _mask(*args: Any, **kwargs: Any) -> RowMask:
    """The mask function registered with transformers."""
    under_way = _pass.get()
    if under_way is None:
        what = "a padded batch is to be read without its padding, and a static cache has the mask made that knows of it"
        raise LongreachError(f"{what}; leave out cache_implementation='static'")
    if kwargs.get("use_vmap"):
        raise LongreachError("a mask of the model's own making cannot go with rows of several texts; leave the method that packs them")
    return RowMask(*under_way, kwargs)


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
    """The attention function registered with transformers."""
    options.pop("position_ids", None)
    attend = own_attention(module, attention_mask.implementation, options)
    return attention_mask.layout.each_text(lambda q, k, v, length: attend(q, k, v, attention_mask.of(length)), query, key, value), None


@torch.no_grad()
def _proven(model: PreTrainedModel, packer: Packer) -> OwnWay:
    """How the model numbers tokens, found by comparing what it gives for padded batches in rows and by itself.

    Raises: UnsupportedError where nothing gives the same.
    """
    starts = {0, *(table.first for table in position_tables(model))}
    mode, worst = model.training, ""
    model.eval()
    try:
        with torch.autocast(model.device.type, enabled=False):
            packer.off = True
            wanted, caches = _probe(packer)
            packer.off = False
            for packer.own_way in [OwnWay(count, first, caches) for count in _COUNTS for first in sorted(starts)]:
                found, _ = _probe(packer)
                if not (worst := _difference(model, found, wanted)):
                    return packer.own_way
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, LongreachError) as error:
        worst = f"it cannot be read in rows of several texts ({type(error).__name__}: {str(error).splitlines()[0]})"
    finally:
        packer.off = False
        model.train(mode)
    raise UnsupportedError(packer.method.spec, type(model).__name__, worst, "choose a model whose tokens meet in attention alone")


def _probe(packer: Packer) -> tuple[list[Tensor], bool]:
    """States of the real tokens of two padded batches, and of a token after each where the model fills a cache; whether it does."""
    width, batch = max(_PROBE_LENGTHS), len(_PROBE_LENGTHS)
    device, states = next(packer.base.parameters()).device, []
    numbers = [number for number in range(3, 200) if number != packer.config.pad_token_id]
    ids = torch.tensor(numbers[: (width + 1) * batch], device=device).view(batch, width + 1) % packer.config.vocab_size
    right = torch.stack([torch.arange(width, device=device) < length for length in _PROBE_LENGTHS]).long()
    cache, option = None, {"use_cache": True} if "use_cache" in inspect.signature(packer.own).parameters else {}
    for mask in (right, right.flip(1)):
        text = ids[:, :width].masked_fill(mask == 0, packer.config.pad_token_id or 0)
        out = packer.base(text, attention_mask=mask, return_dict=True, **option)
        states.append(out.last_hidden_state[mask.bool()])
        if mask is right and "pooler_output" in out:
            states.append(out.pooler_output)
        cache = cache_of(out)
    if cache is not None:
        mask = torch.cat([mask, mask.new_ones(batch, 1)], 1)
        out = packer.base(ids[:, -1:], attention_mask=mask, return_dict=True, **cache_argument(packer.base, cache), **option)
        states.append(out.last_hidden_state[:, 0])
    return states, cache is not None


def _difference(model: PreTrainedModel, found: list[Tensor], wanted: list[Tensor]) -> str:
    """By how much they differ, in words; "" where that is rounding."""
    if not all(bool(states.isfinite().all()) for states in found):
        return "in rows of several texts its states are not finite"
    # Some implementations of attention turn padding on the left to NaN, which spreads to the tokens behind it, and does not count.
    differs = max(map(apart, found, wanted))
    return "" if differs < rounding(model) else f"in rows of several texts its states differ by {differs:.2g} of themselves"
