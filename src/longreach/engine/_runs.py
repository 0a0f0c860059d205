"""Reading in runs: the decoder reads a forward pass from one cut of the text to the next, for layers that then have to be told of what only
a whole run gives.
"""

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel

from longreach.core.cuts import Cut
from longreach.core.errors import LongreachError
from longreach.engine._store import BandLayer
from longreach.engine._stream import Stream, begins_of
from longreach.engine.cache_argument import cache_argument, take_cache, without_cache
from longreach.engine.head import hidden_of, with_hidden
from longreach.engine.prompt import end_of_prompt


class Adopting(Protocol):
    """What this needs of the engine."""

    cache: Cache | None

    def adopt(self, cache: Cache) -> None:
        """Make the layers of an empty cache the engine's."""


class RunReader(ABC):
    """Reads in the place of a model's decoder. Args: cuts: of the layers that have to be told. what: of what, for errors."""

    what: ClassVar[str]

    def __init__(self, engine: Adopting, model: PreTrainedModel, cuts: frozenset[Cut]) -> None:
        self.engine, self.model, self.cuts, self.decoder = engine, model, cuts, model.base_model
        self.inner = vars(self.decoder).get("forward")  # of what has put its own in the place of the module's, as offloading does

    @abstractmethod
    def note(self, cache: Cache, output: Any, hidden: Tensor, ids: Tensor, begin: int) -> None:
        """Tell the layers, behind a run of the tokens `ids` [B, n], the first of which has the slot `begin`.

        Args: output: of the decoder. hidden: its states, [B, n, hidden size].
        """

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """The decoder's forward pass, in runs."""
        inner = self.inner or type(self.decoder).forward.__get__(self.decoder)
        named = inspect.signature(type(self.decoder).forward).parameters
        kwargs = {**dict(zip(list(named)[1:], args, strict=False)), **kwargs}
        ids = kwargs.get("input_ids")
        if not isinstance(ids, Tensor):
            raise LongreachError(f"the method goes by {self.what}, and here are embeddings in their place; pass input_ids")
        given = take_cache(kwargs)
        first = 0 if given is None else given.get_seq_length()
        mask = kwargs.get("attention_mask")
        if mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2):
            raise LongreachError("attention masks beyond padding cannot go with this cache; pass a two-dimensional attention_mask")
        ends = self._ends(None if given is None else self.layer(given).stream, ids, first, mask)
        if given is None and len(ends) == 1:  # nothing is cut
            return inner(**kwargs)
        if len(ends) > 1 and kwargs.get("output_hidden_states"):
            raise LongreachError("hidden states cannot be returned of a text that is read in runs; leave out output_hidden_states")
        if self.decoder.training and getattr(self.decoder, "gradient_checkpointing", False):
            raise LongreachError(f"a cache that goes by {self.what} cannot be trained with gradient checkpointing; turn that off")
        if given is None and (positions := kwargs.get("position_ids")) is not None:
            steps = positions.diff()
            if bool((steps > 1).any()) or (mask is None and bool((steps != 1).any())):
                raise LongreachError("positions that skip or begin anew cannot go with this cache; give positions that follow on")
        cache = DynamicCache(config=self.model.config.get_text_config()) if given is None else given
        output = self._runs(inner, kwargs, ids, cache, first, ends)
        return without_cache(output) if given is None else output

    def _runs(self, inner: Any, kwargs: dict[str, Any], ids: Tensor, cache: Cache, first: int, ends: list[int]) -> Any:
        self.engine.adopt(cache)
        self.engine.cache = cache
        stream, hidden, begin = self.layer(cache).stream, [], first
        stream.prompt = end_of_prompt(ends[-1]) if stream.prompt is None else stream.prompt
        stream.began, stream.until = first, ends[-1]
        try:
            for end in ends:
                part = slice(begin - first, end - first)
                output = inner(**_part(kwargs, part, end), **cache_argument(self.decoder, cache))
                hidden.append(hidden_of(output))
                self.note(cache, output, hidden[-1], ids[:, part], begin)
                begin = end
        finally:
            stream.until = None
        return output if len(hidden) == 1 else with_hidden(output, torch.cat(hidden, 1))

    @staticmethod
    def layer(cache: Cache) -> BandLayer:
        """A layer of the engine."""
        return next(layer for layer in cache.layers if isinstance(layer, BandLayer))

    def _ends(self, stream: Stream | None, ids: Tensor, first: int, mask: Tensor | None) -> list[int]:
        """The slots where runs of the new tokens end: before the cuts of all rows, and after the last token."""
        rows, count = ids.shape
        prompt = end_of_prompt(first + count) if stream is None or stream.prompt is None else stream.prompt
        begins = set(begins_of(stream or Stream(), first, count, rows, None if mask is None else mask.bool()))
        cuts = {
            begin + index
            for begin in begins
            for cut in self.cuts
            for index in cut.before(max(0, first - begin), max(0, first + count - begin), prompt - begin)
        }
        return sorted({*(slot for slot in cuts if slot > first), first + count})


def _part(kwargs: dict[str, Any], part: slice, end: int) -> dict[str, Any]:
    """The arguments of a run: tensors with the new tokens in their last dimension are cut, the mask of all tokens ends with the run."""
    cut = {name: tensor[..., part] for name in ("input_ids", "position_ids", "cache_position") if (tensor := kwargs.get(name)) is not None}
    mask = kwargs.get("attention_mask")
    return {**kwargs, **cut, **({} if mask is None else {"attention_mask": mask[:, :end]})}


class Instead(Protocol):
    """Reads in the place of a module. inner: the forward of what had put its own there before."""

    inner: Any

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """The module's forward pass."""


def install(module: nn.Module, reader: Instead) -> Any:
    """Let the reader read in the place of the module. Returns what undoes it."""
    vars(module)["forward"] = reader.read

    def undo() -> None:
        vars(module).pop("forward", None)
        if reader.inner is not None:
            vars(module)["forward"] = reader.inner

    return undo
