"""Watches a model while a method is applied to it: what would be wrong without a word is refused, or said, by name."""

import copy
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn

from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine._states import has_state
from longreach.engine._store import CLOSED, OUTSIDE
from longreach.engine.cache_argument import cache_argument, cache_of, take_cache
from longreach.engine.interface import hold

Adopt = Callable[[Cache], None]
_WATCH = "_longreach_watch"
_watches: "weakref.WeakKeyDictionary[Cache, Watch]" = weakref.WeakKeyDictionary()


class ClosedLayer(CacheLayerMixin):
    """Stands where a cache's layer was filled under a method that is no longer applied: it knows how many tokens it held."""

    is_sliding = False

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Refuse. Raises: LongreachError."""
        raise LongreachError(CLOSED)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As if all tokens were there."""
        return self.tokens + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens it held."""
        return self.tokens

    def get_max_length(self) -> int:
        """No maximum."""
        return -1


class Watch:
    """Of one model and the methods applied to it.

    Args: spec: of the methods. reach: tokens that they read to; None: no end. warn: of texts that are longer. adopt: where attention is
    computed by longreach, what makes an empty cache its own; it ties caches to itself.
    """

    def __init__(self, model: PreTrainedModel, spec: str, reach: int | None, warn: bool, adopt: Adopt | None) -> None:
        self.spec, self.reach, self.adopt = spec, reach, adopt
        self.config = model.config.get_text_config()
        self.implementation: str = self.config._attn_implementation
        self.caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        self.busy: int | None = None  # the thread that a forward pass is under way in
        self.told, self.closed = not warn, False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Watch":
        """Of a copy of the model: its own, without the caches of the original."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        twin.config, twin.adopt = copy.deepcopy(self.config, memo), copy.deepcopy(self.adopt, memo)
        twin.caches, twin.busy = weakref.WeakSet(), None
        return twin

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Check a forward pass (a hook before it)."""
        me = threading.get_ident()
        if self.busy not in (None, me):
            raise LongreachError(f"another thread runs this model under {self.spec}; one at a time, or a copy of the model for each")
        if self.adopt is not None and self.config._attn_implementation != self.implementation:
            changed, self.config._attn_implementation = self.config._attn_implementation, self.implementation
            raise LongreachError(
                f"attention was set to {changed!r} while {self.spec} is applied; set it before, or leave {self.spec} first"
            )
        self.busy = me
        cache = take_cache(kwargs)
        if cache is not None:
            kwargs.update(cache_argument(module, cache))
        seen = self._checked(cache)
        ids = kwargs.get("input_ids", args[0] if args else kwargs.get("inputs_embeds"))
        if isinstance(ids, Tensor):
            self._tell(seen + ids.shape[1])
        return args, kwargs

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Remember the cache that a forward pass filled (a hook after it, also after an exception)."""
        self.busy = None
        if output is not None and isinstance(cache := cache_of(output), Cache):
            self._add(cache)

    def claim(self, cache: Cache) -> None:
        """Take an empty cache for one that is filled under the methods.

        Raises: LongreachError for a kind of cache that cannot be.
        """
        if self.adopt is not None:
            self.adopt(cache)
        self._add(cache)

    def _add(self, cache: Cache) -> None:
        self.caches.add(cache)
        _watches[cache] = self

    def _checked(self, cache: Cache | None) -> int:
        """How many tokens a cache holds. Raises: LongreachError for one that was filled elsewhere."""
        if not isinstance(cache, Cache) or not hasattr(cache, "layers"):
            return 0
        seen = int(cache.get_seq_length())
        if seen and self.adopt is None and cache not in self.caches:
            raise LongreachError(OUTSIDE)
        return seen

    def _tell(self, tokens: int) -> None:
        if self.reach is not None and tokens > self.reach and not self.told:
            self.told = True
            message = (
                f"{tokens} tokens are read under {self.spec}, which reaches {self.reach} with this model; beyond, its text falls apart"
            )
            warnings.warn(message, UserWarning, stacklevel=2)

    def close(self) -> None:
        """Caches that were filled can no longer be used."""
        self.closed = True
        for cache in self.caches if self.adopt is None else ():  # the engine closes its own layers
            layers: list[Any] = cache.layers
            layers[:] = [_closed(layer) for layer in layers]
        self.adopt = None  # a cache that lives on does not keep the model alive


def _closed(layer: Any) -> Any:
    """What stands in place of a layer, so that attention refuses it. What has nothing but a state stays."""
    if not isinstance(layer, CacheLayerMixin):
        return layer
    closed = ClosedLayer(int(layer.get_seq_length()))
    if not has_state(layer):
        return closed
    vars(layer)["update"] = closed.update
    return layer


def watch_of(cache: Cache) -> Watch | None:
    """The watch of the methods that a cache was filled under; None where none were."""
    return _watches.get(cache)


def watch_on(model: PreTrainedModel) -> Watch | None:
    """The watch of the methods that are applied to a model; None for encoder-decoders, whose caches it does not tell apart."""
    return vars(model).get(_WATCH)


@contextmanager
def watched(model: PreTrainedModel, spec: str, reach: int | None, *, warn: bool, adopt: Adopt | None) -> Iterator[None]:
    """Inside, the model is watched, refuses to be saved without its method, and can be copied with it."""
    watch = Watch(model, spec, reach, warn, adopt)

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        why = f"{spec} is applied to it, and what is written here would not be what runs"
        raise UnsupportedError("save_pretrained", type(model).__name__, why, f"leave it, then longreach.save(..., method={spec!r})")

    with ExitStack() as undo:
        if not model.config.is_encoder_decoder:
            base = model.base_model
            undo.callback(watch.close)
            undo.callback(base.register_forward_pre_hook(watch.before, with_kwargs=True, prepend=True).remove)
            undo.callback(base.register_forward_hook(watch.after, always_call=True).remove)
            vars(model)[_WATCH] = watch
            undo.callback(vars(model).pop, _WATCH, None)
        for name, value in (("save_pretrained", refuse), ("__deepcopy__", lambda memo: _copied(model, memo))):
            vars(model)[name] = value
            undo.callback(vars(model).pop, name, None)
        yield


def _copied(model: PreTrainedModel, memo: dict[int, Any]) -> PreTrainedModel:
    """A copy that works under the method, for as long as it lives."""
    own = vars(model).pop("__deepcopy__")
    try:
        twin: PreTrainedModel = copy.deepcopy(model, memo)
    finally:
        vars(model)["__deepcopy__"] = own
    vars(twin)["__deepcopy__"] = lambda memo: _copied(twin, memo)
    hold(twin)
    return twin
