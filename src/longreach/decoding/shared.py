"""Reads many texts one after another, and what several of them begin with only once."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from longreach.cache.base import cuts_prompts
from longreach.core.errors import LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import stack_of
from longreach.decoding.reading import CHUNK, check_eval, new_cache, prefill
from longreach.engine.apply import applied
from longreach.engine.finite import check_finite
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshots import Snapshot, restore, snapshot
from longreach.engine.whole_length import frequencies_for, whole_length

_LEAST = 16  # tokens of a common beginning that are worth a snapshot
_STEP = 4  # one within another has a quarter more tokens: all that are held at a time are a few times the longest
_TRIED = 4  # tokens by which it is found out whether a cache can be put back


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A text that is read, and then gone on from. Args: ids: at least one. times: how often it is gone on from. longest: tokens of the
    longest text that begins so, for frequencies that hang on that.
    """

    ids: tuple[int, ...]
    times: int = 1
    longest: int


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A text that was read. Args: logits: [V], of what follows it. cache: gives, as often as was said, a cache that holds just the text;
    one that it gave before must not be used any more.
    """

    beginning: Beginning
    logits: Tensor
    cache: Callable[[], Cache]


class SharedReading:
    """Reads texts with a model, under whatever is applied to it. Memory is that of one text, and of the beginnings that are shared.

    What is kept of a common beginning is put back for each text. Under a method that cuts a prompt at its end, where that lies decides what
    is kept of it, and so each text is read for itself, and is the prompt. Where a cache cannot be put back (a model with states), each
    text is read each time that it is gone on from.

    Args: chunk_size: tokens a forward. progress: is told of tokens that need not be read, too. Raises: InputError for a model in training
    mode.
    """

    def __init__(self, model: PreTrainedModel, *, chunk_size: int = CHUNK, progress: Progress = SILENT) -> None:
        check_eval(model)
        self.model, self.chunk_size, self.progress = model, chunk_size, progress
        self.restores = puts_back(model)
        self._shares = self.restores and not cuts_prompts(stack_of(applied(model)))

    def each(self, beginnings: Sequence[Beginning]) -> Iterator[Begun]:
        """Every text, in an order that shares the most; no two have the same ids. To be used before the next is asked for.

        Raises: LongreachError for logits that are not finite, and where memory runs out.
        """
        alike: dict[tuple[bool, ...], list[Beginning]] = defaultdict(list)
        for beginning in beginnings:
            alike[frequencies_for(self.model, beginning.longest)].append(beginning)
        for group in alike.values():
            with whole_length(self.model, max(beginning.longest for beginning in group)):
                yield from self._in_turn(sorted(group, key=lambda beginning: beginning.ids))

    def _in_turn(self, beginnings: Sequence[Beginning]) -> Iterator[Begun]:
        shared = [_common(one.ids, other.ids) if self._shares else 0 for one, other in pairwise(beginnings)]
        kept: list[tuple[int, Snapshot]] = []  # (tokens, what is kept of so many), each within the next
        cache = new_cache(self.model)
        for number, beginning in enumerate(beginnings):
            before = shared[number - 1] if number else 0
            while kept and kept[-1][0] > before:
                kept.pop()
            at = 0
            if kept:
                at, taken = kept[-1]
                restore(cache, taken)
            else:
                cache = new_cache(self.model)
            self.progress.advance(at)
            for stop in _stops(at, islice(shared, number, None), len(beginning.ids)):
                logits = self.read(beginning.ids, at, stop, cache)
                kept.append((stop, snapshot(cache)))
                at = stop
            if at < len(beginning.ids):
                logits = self.read(beginning.ids, at, len(beginning.ids), cache)
            again = _Again(self, beginning, cache)
            yield Begun(beginning=beginning, logits=logits, cache=again)
            again.held.clear()  # whoever still has it does not keep the memory of two texts

    def read(self, ids: Sequence[int], start: int, stop: int, cache: Cache) -> Tensor:
        """Read a part of the text after what the cache holds of it: the logits [V] of what follows. Raises: LongreachError as `each`."""

        def read(part: Sequence[int], cache: Cache, progress: Progress) -> Tensor:
            tokens = torch.tensor([list(part)], device=self.model.device)
            with prompt_end(len(ids)):
                return prefill(self.model, tokens, cache=cache, chunk_size=self.chunk_size, progress=progress)

        try:
            logits = read(ids[start:stop], cache, self.progress)
        except torch.OutOfMemoryError as error:
            what = f"a text of {stop} tokens, {self.chunk_size} tokens a forward"
            raise LongreachError(f"the device's memory is too small for {what}; use a smaller chunk size or shorter texts") from error
        return check_finite(logits, self.model, lambda: read(ids[:stop], new_cache(self.model), SILENT))[0]


class _Again:
    """Gives a cache that holds a text again and again: put back, or else read anew."""

    def __init__(self, reading: SharedReading, beginning: Beginning, cache: Cache) -> None:
        self.reading, self.ids = reading, beginning.ids
        self.held: list[tuple[Cache, Snapshot | None]] = []
        self.held.append((cache, snapshot(cache) if beginning.times > 1 and reading.restores else None))

    def __call__(self) -> Cache:
        if not self.held:
            fresh = new_cache(self.reading.model)
            self.reading.read(self.ids, 0, len(self.ids), fresh)
            return fresh
        cache, taken = self.held[0]
        if taken is None:
            self.held.clear()
        else:
            restore(cache, taken)
        return cache


def puts_back(model: PreTrainedModel) -> bool:
    """Whether what a cache of the model held can be put back, under the methods that are applied now."""
    cache = new_cache(model)
    prefill(model, torch.zeros(1, _TRIED, dtype=torch.long, device=model.device), cache=cache)
    try:
        restore(cache, snapshot(cache))
    except LongreachError:
        return False
    return True


def _stops(start: int, shared: Iterator[int], length: int) -> list[int]:
    """After how many tokens snapshots are worth it, from `start` tokens on. Args: shared: what each text has in common with the next."""
    least, found = length, list[int]()
    for common in shared:
        least = min(least, common)
        if least < _next(start):
            break
        if least not in found[-1:]:
            found.append(least)
    stops = list[int]()
    for stop in reversed(found):
        if stop >= _next(stops[-1] if stops else start):
            stops.append(stop)
    return stops


def _next(tokens: int) -> int:
    return tokens + max(_LEAST, tokens // _STEP)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two texts begin with in common."""
    return next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), min(len(one), len(other)))
