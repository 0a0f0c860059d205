"""Length profiles: the model as it is, and under each method, as modules that share all weights.

A request gets the smallest that covers its prompt and its answer, so that a short one runs on the model as it is.
"""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

from longreach.attention.base import ReadsSets
from longreach.cache.base import CachePolicy, cuts_prompts
from longreach.conversation.window import stack_for, window_for
from longreach.core.errors import InputError, LongreachError
from longreach.core.method import Method
from longreach.core.spec import stack_of
from longreach.decoding.generation import end_tokens
from longreach.decoding.reading import check_eval, new_cache, prefill
from longreach.decoding.shared import puts_back
from longreach.engine.apply import applied, apply, given_model
from longreach.engine.rows import stackable
from longreach.engine.watch import watch_on
from longreach.engine.window import stated_window

_SMALL = 1 << 16  # bytes: buffers up to here are copied with a profile's modules, since methods change frequencies
_ROOM = 1 << 16
_PROBE = 7  # tokens by which it is found out what a cache is made of


class Profile:
    """A model under a stack of methods, for as long as it lives, and what its caches can do.

    Args: model: with the methods applied. method: their spec; "" is the model as it is. window: tokens that prompt and answer may have
    together; None: without end.

    Attributes: ends: ids that end a text. restores: whether what a cache held can be put back. reuses: whether a prompt may go on from
    what was read of another one. crops: whether a cache can be cut back to any token. stacks: whether caches hold nothing but keys and
    values of tokens, so that several can be the rows of one.
    """

    def __init__(self, model: PreTrainedModel, method: str, window: int | None) -> None:
        self.model, self.method, self.window = model, method, window
        self.ends = end_tokens(model)
        stack = stack_of(method)
        self.restores = puts_back(model)
        self.reuses = self.restores and not cuts_prompts(stack)
        probed = self._probed()
        slides = any(getattr(layer, "is_sliding", False) for layer in probed.layers)
        self.stacks = self.reuses and stackable(probed)
        self.crops = self.reuses and not (slides or _forgets(stack)) and _crops(probed)

    def empty(self) -> Cache:
        """An empty cache that the model takes for one of its own, also where it is filled by hand."""
        cache = new_cache(self.model)
        if self.stacks and (watch := watch_on(self.model)) is not None:
            watch.claim(cache)
        return cache

    def covers(self, tokens: int) -> bool:
        """Whether a text of so many tokens fits."""
        return self.window is None or tokens <= self.window

    def _probed(self) -> Cache:
        cache = new_cache(self.model)
        prefill(self.model, torch.zeros(1, _PROBE, dtype=torch.long, device=self.model.device), cache=cache)
        return cache


class Profiles:
    """The profiles of one model, the smallest window first; the model as it is stands before others of its window.

    Args: model: as `longreach.load` gives it. specs: of the stacks of methods that are served beside the model as it is. target: tokens to
    reach, for `factor=auto` and methods without settings.
    Raises: InputError, SpecError, UnsupportedError for a model or a method that cannot be served.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, specs: Sequence[str] = (), *, target: int | None = None
    ) -> None:
        base = given_model(model)
        check_eval(base)
        if base.config.is_encoder_decoder:
            raise InputError(f"{type(base).__name__} is an encoder-decoder, and a server needs a causal language model")
        self.name = base.name_or_path or type(base).__name__
        self.trained_window = stated_window(base.config)
        self._undo = ExitStack()
        window, _ = window_for(base, self.name, (), None)
        found = [Profile(base, applied(base), window)]
        try:
            for spec in specs:
                stack = stack_for(base, spec, target)
                _check_marks(stack)
                window, _ = window_for(base, self.name, stack, None)
                found.append(self._under(base, tokenizer, spec, stack, window))
        except BaseException:
            self.close()
            raise
        endless = float("inf")
        self.all = sorted(found, key=lambda each: endless if each.window is None else each.window)

    @property
    def widest(self) -> Profile:
        """The one with the largest window."""
        return self.all[-1]

    @property
    def window(self) -> int | None:
        """Tokens of prompt and answer at most; None: without end."""
        return self.widest.window

    @property
    def room(self) -> int:
        """Tokens for the caches of all requests, where nobody says: four of the largest windows, and 65536 at least."""
        known = [each.window for each in self.all if each.window is not None]
        return max(_ROOM, 4 * max(known, default=0))

    def smallest(self, tokens: int) -> Profile | None:
        """The first whose window holds so many tokens; None where none does."""
        return next((each for each in self.all if each.covers(tokens)), None)

    def close(self) -> None:
        """Leave the methods."""
        self._undo.close()

    def _under(
        self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, stack: Sequence[Method], window: int | None
    ) -> Profile:
        model = sharing_weights(base)
        self._undo.enter_context(apply(model, stack, tokenizer=tokenizer, warn=False))
        return Profile(model, applied(model), window)


def _check_marks(stack: Sequence[Method]) -> None:
    """Refuse a method that reads marks in a prompt: clients' texts are read as they are."""
    for method in stack:
        if isinstance(method, ReadsSets):
            raise InputError(f"{method.spec} reads marks in prompts, and a server reads them as text; use it with longreach generate")


def _forgets(stack: Sequence[Method]) -> bool:
    """Whether methods let caches go of tokens, so that nothing can be taken back from one that is full."""
    return any((isinstance(each, CachePolicy) and not each.keep_all) or each.info.bounded_memory for each in stack)


def _crops(cache: Cache) -> bool:
    """Whether a cache that was filled gives back a token."""
    try:
        cache.crop(-1)
    except (LongreachError, RuntimeError):  # of the engine, and of transformers
        return False
    return int(cache.get_seq_length()) == _PROBE - 1


def sharing_weights(model: PreTrainedModel) -> PreTrainedModel:
    """A model of its own modules and config, whose parameters and large buffers are those of `model`."""
    memo: dict[int, Any] = {id(each): each for each in model.parameters()}
    memo |= {id(each): each for each in model.buffers() if each.nbytes > _SMALL}
    twin: PreTrainedModel = copy.deepcopy(model, memo)
    return twin


def own_bytes(model: nn.Module, base: nn.Module) -> int:
    """Bytes of parameters and buffers that `model` does not share with `base`."""
    there = {each.data_ptr() for each in _tensors(base)}
    return sum(each.nbytes for each in _tensors(model) if each.data_ptr() not in there)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
