"""Reads tokens of a method's own with those of the text: behind them, as one forward pass, whose caller sees the text's alone.

The decoder gets embeddings: those of the text's new tokens, and behind them those of the inserted tokens that these make complete. All
layers compute both; only attention knows where inserted tokens stand (engine/layer.py). So slots, positions, padding and the length of the
cache stay what they are without them.
"""

import inspect
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from longreach.cache.trained.base import Condenses, Inserts
from longreach.core.bands import LayerContext
from longreach.core.errors import UnsupportedError
from longreach.engine._seats import NEW, NewInserted
from longreach.engine._states import has_state
from longreach.engine._store import BandLayer
from longreach.engine._stream import MaskSpec, Stream, begins_of
from longreach.engine.aside import Aside
from longreach.engine.head import decoder_of
from longreach.engine.setup import Setup
from longreach.engine.tables import position_tables


class Caching(Protocol):
    """What this needs of the engine."""

    cache: Cache | None


def check_inserting(model: PreTrainedModel, policy: Inserts, setup: Setup) -> None:
    """Raise UnsupportedError for what inserted tokens cannot go with."""
    if setup.attention or setup.frequencies is not None:
        other = setup.attention[0].spec if setup.attention else "positions that depend on the length or the head"
        why = "it says itself what inserted tokens see, and where they stand"
        raise UnsupportedError(policy.spec, other, why, "leave one of them out; methods that only change frequencies can stand beside it")
    name = type(model).__name__
    if decoder_of(model) is not model.base_model or getattr(model.config.get_text_config(), "hidden_size_per_layer_input", None):
        why = "what its layers read is more than one embedding of each token"
        raise UnsupportedError(policy.spec, name, why, "choose a causal language model of plain layers")
    if position_tables(model) or any(has_state(layer) for layer in DynamicCache(config=model.config.get_text_config()).layers):
        why = "it tells order by learned positions, or by states of its layers, which inserted tokens would change"
        raise UnsupportedError(policy.spec, name, why, "choose a model with attention layers and rotary positions")


class Inserting:
    """Reads in the place of a model's decoder. Args: context: of the first layer with full attention, which has the embeddings."""

    def __init__(self, engine: Caching, model: PreTrainedModel, policy: Inserts, context: LayerContext) -> None:
        self.engine, self.policy, self.context = engine, policy, context
        self.decoder: Any = model.base_model
        self.view = policy.inserted(context)
        self.inner = vars(self.decoder).get("forward")  # of what has put its own in the place of the module's, as offloading does
        self.aside = Aside(model, self.inner) if isinstance(policy, Condenses) else None

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """The decoder's forward pass."""
        inner = self.inner or type(self.decoder).forward.__get__(self.decoder)
        named = inspect.signature(type(self.decoder).forward).parameters
        kwargs = {**dict(zip(list(named)[1:], args, strict=False)), **kwargs}
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        given = ids if embeds is None else embeds
        assert given is not None  # noqa: S101 - the model asks for one of them
        stream, first = self._so_far()
        begins = begins_of(stream or Stream(), first, given.shape[1], given.shape[0], _padding(kwargs.get("attention_mask")))
        before, after = ([self.view.before(end - begin) for begin in begins] for end in (first, first + given.shape[1]))
        new = NewInserted(before, [late - early for early, late in zip(before, after, strict=True)])
        if not new.width and self.aside is None:
            return inner(**kwargs)
        if embeds is None:
            embeds = self.decoder.get_input_embeddings()(ids)
        kwargs |= {"input_ids": None, "inputs_embeds": embeds}
        text = embeds if self.aside is None else self._with_last(stream, embeds)
        end = first + given.shape[1]
        made = self._made(new, text, [begin - (end - text.shape[1]) for begin in begins]) if new.width else None
        output = inner(**kwargs) if made is None else self._behind(inner, kwargs, made.to(embeds), new)
        if self.aside is not None and stream is not None:
            stream.embeds = text  # as many as a pass can take back, and of a chunk that is not full what comes before them
        return output

    def _so_far(self) -> tuple[Stream | None, int]:
        """Of the cache, where there is one, and how many tokens it has seen."""
        if (cache := self.engine.cache) is None:
            return None, 0
        return next((layer.stream for layer in cache.layers if isinstance(layer, BandLayer)), None), int(cache.get_seq_length())

    def _with_last(self, stream: Stream | None, embeds: Tensor) -> Tensor:
        """The new tokens [B, T, hidden_size] behind those that may stand in a chunk with them."""
        if stream is None:
            return embeds
        if (before := stream.embeds) is None:
            return embeds.clone()  # the caller's, who may change them
        return torch.cat([before[:, max(0, before.shape[1] - (self.view.every - 1)) :].to(embeds), embeds], 1)

    def _made(self, new: NewInserted, text: Tensor, begins: list[int]) -> Tensor:
        """Embeddings [B, M, hidden_size] of inserted tokens; those on empty seats are seen by nobody.

        Args: text: [B, n, hidden_size], the last tokens. begins: where among them each row begins; before them, below 0.
        """
        if self.aside is None or not isinstance(self.policy, Condenses):
            table = self.policy.embeddings(self.context)
            assert table is not None  # noqa: S101 - it condenses nothing
            places = [[(first + seat) % self.view.count for seat in range(new.width)] for first in new.first]
            return table[torch.tensor(places, device=table.device)]
        return _by_row(self.policy.condensed(self._full(new, text, begins), self.aside.read, self.context), new)

    def _full(self, new: NewInserted, text: Tensor, begins: list[int]) -> Tensor:
        """The chunks that became full, [N, every, hidden_size], row by row."""
        every, count = self.view.every, self.view.count
        return torch.cat(
            [
                row[begin + first // count * every :][: made // count * every].unflatten(0, (-1, every))
                for row, begin, first, made in zip(text, begins, new.first, new.counts, strict=True)
                if made
            ]
        )

    def _behind(self, inner: Any, kwargs: dict[str, Any], made: Tensor, new: NewInserted) -> Any:
        """The decoder's output for the text's tokens, which it reads with the inserted ones behind them."""
        embeds, behind = kwargs["inputs_embeds"], torch.arange(1, new.width + 1, device=made.device)
        for name in ("position_ids", "cache_position"):
            if (positions := kwargs.get(name)) is not None:
                kwargs[name] = torch.cat([positions, positions[..., -1:] + behind.to(positions.device)], -1)
        kwargs |= {"inputs_embeds": torch.cat([embeds, made], 1), "attention_mask": _with(kwargs.get("attention_mask"), new)}
        token = NEW.set(new)
        try:
            output = inner(**kwargs)
        finally:
            NEW.reset(token)
        return _of_the_text(output, embeds.shape[1], new.width)


def _by_row(made: Tensor, new: NewInserted) -> Tensor:
    """[B, M, hidden_size] of what was made of chunks [N, count, hidden_size]; 0 on empty seats."""
    rows = made.flatten(0, 1).split(list(new.counts))
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, new.width - len(row))) for row in rows])


def _padding(mask: Any) -> Tensor | None:
    """Which tokens are real, of whatever a decoder gets as its mask."""
    if isinstance(mask, dict):
        mask = next(iter(mask.values()))
    if isinstance(mask, MaskSpec):
        mask = mask.padding
    return mask.bool() if isinstance(mask, Tensor) and mask.ndim == 2 else None


def _with(mask: Any, new: NewInserted) -> Any:
    """The mask, where it was made before, with the inserted tokens."""
    if isinstance(mask, dict):
        return {name: _with(each, new) for name, each in mask.items()}
    return replace(mask, inserted=new) if isinstance(mask, MaskSpec) else mask


def _of_the_text(output: Any, count: int, width: int) -> Any:
    """A decoder's output without the states of inserted tokens."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[:, :count] if value.ndim == 3 and value.shape[1] == count + width else value
        return tuple(cut(each) for each in value) if type(value) is tuple else value

    if isinstance(output, Tensor | tuple):
        return cut(output)
    return type(output)(**{name: cut(value) for name, value in output.items()})
