"""Deferred rotation: runs bands on unmodified transformers models.

The model's rotary modules return cos = 1 and sin = 0, so that queries and keys arrive unrotated at an attention function registered
with transformers. It rotates keys once, when they are written to the cache, into one copy for each position map in use, rotates
queries as each band wants them, computes the bands piece by piece with fused attention and merges the pieces by log-sum-exp.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache

from longreach.attention.base import Follows, goes_by_text
from longreach.core.bands import Computed
from longreach.core.errors import LongreachError
from longreach.core.memory import Blocks, Carried, Store, View
from longreach.engine import rotation
from longreach.engine._entropy import EntropyReader
from longreach.engine._hidden import HiddenReader
from longreach.engine._own import own_attention
from longreach.engine._runs import install
from longreach.engine._store import HALF_WRITTEN, OUTSIDE, BandLayer
from longreach.engine._stream import Step, Stream, make_step
from longreach.engine._text import given_ids
from longreach.engine.cache_argument import cache_argument, take_cache
from longreach.engine.contexts import contexts
from longreach.engine.inserting import Inserting, check_inserting
from longreach.engine.interface import interface
from longreach.engine.layer import AttentionCall, LayerEngine
from longreach.engine.prompt import prompts_end_where_generation_begins
from longreach.engine.rotation import Attention
from longreach.engine.setup import Setup

NAME = "longreach"


class Engine:
    """The state of one applied setup: what it learned of the model, and the cache of the forward pass under way.

    texts: of a batch, whose keys a query meets in bands that are shared; 1 but in training (engine/among.py).
    """

    def __init__(self, model: PreTrainedModel, attentions: list[Attention], setup: Setup, trained_window: int) -> None:
        self.setup = setup
        self.base, self.config = model.base_model, model.config.get_text_config()
        self.implementation = self.config._attn_implementation
        self.rotaries = [module for _, _, module in rotation.rotary_modules(model)]
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._cache: Callable[[], Cache | None] = lambda: None
        self.ids: Tensor | None = None
        self.texts = 1
        self.layers: dict[int, LayerEngine] = {}
        for index, (attention, context) in enumerate(zip(attentions, contexts(model, attentions, trained_window), strict=True)):
            slot = getattr(attention.module, "layer_idx", index)
            self.layers[slot] = LayerEngine(self, attention, context, slot)

    @property
    def cache(self) -> Cache | None:
        """That of the forward pass under way, which keeps it: caches know who filled them, and must not be kept by that."""
        return self._cache()

    @cache.setter
    def cache(self, cache: Cache | None) -> None:
        self._cache = (lambda: None) if cache is None else weakref.ref(cache)

    def before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the model a cache made of the engine's layers (a hook before each forward pass)."""
        cache = take_cache(kwargs)
        use_cache = kwargs.get("use_cache")
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            checkpointing = module.training and getattr(module, "gradient_checkpointing", False)
            cache = None if checkpointing else DynamicCache(config=self.config)
        if cache is not None:
            self.adopt(cache)
            kwargs.update(cache_argument(module, cache))
        self.cache, self.ids = cache, given_ids(args, kwargs)
        return args, kwargs

    def adopt(self, cache: Cache) -> None:
        """Make the layers of an empty cache the engine's; one that has them already stays.

        Raises: LongreachError for a cache that was filled elsewhere, is half written, or keeps keys and values in a way of its own.
        """
        ours = [layer for layer in cache.layers if isinstance(layer, BandLayer)]
        if ours and all(layer.stream in self.streams for layer in ours):
            if len({layer.tokens for layer in ours}) > 1:
                raise LongreachError(HALF_WRITTEN)
            return
        if ours or cache.get_seq_length() > 0:
            raise LongreachError(OUTSIDE)
        if type(cache) not in (Cache, DynamicCache, StaticCache):
            what = f"a {type(cache).__name__} cannot be used under a longreach method, which keeps keys and values itself"
            raise LongreachError(f"{what}; pass a DynamicCache or none (for fewer bytes, stack the method staircase on it)")
        stream = Stream()
        self.streams.add(stream)
        lead = min(self.layers)
        given: list[Any] = list(cache.layers) + [None] * (max(self.layers) + 1 - len(cache.layers))
        cache.layers[:] = [
            self.layers[index].new_cache_layer(stream, leads=index == lead, given=layer) if index in self.layers else layer
            for index, layer in enumerate(given)
        ]
        cache.layer_class_to_replicate = None

    def step(self, stream: Stream, first: int, x: Tensor, spec: Any, position_ids: Tensor | None, *, cached: bool) -> Step:
        """The forward pass under way; made by its first layer."""
        if not (isinstance(stream.step, Step) and stream.step.first == first and stream.step.count == x.shape[2]):
            keep = self.setup.frequencies is not None and not self.setup.frequencies.fixed
            stream.step = make_step(stream, first, x, spec, position_ids, cached=cached, keep_indices=keep)
            if stream.step.skips and any(goes_by_text(policy) for policy in self.setup.seeing):
                raise LongreachError("positions that skip cannot go with a method that goes by the text; give positions that follow on")
            if self.setup.text is not None:
                stream.step.memo["blocks"] = self.setup.text.blocks(stream, first, self.ids)
        return stream.step

    def close(self) -> None:
        """Caches filled so far can no longer be used."""
        for stream in self.streams:
            stream.closed = True


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
    """The attention function registered with transformers."""
    layer: LayerEngine = module.__dict__[NAME]
    if options.get("dropout"):
        raise LongreachError("attention dropout is not supported under a longreach method; set attention_dropout to 0")
    if options.get("output_attentions"):
        raise LongreachError("attention weights do not exist under a longreach method; leave out output_attentions")
    scale = options.get("scaling")
    return (
        layer.attend(
            query,
            key,
            value,
            AttentionCall(
                spec=attention_mask,
                position_ids=options.get("position_ids"),
                scale=query.shape[-1] ** -0.5 if scale is None else scale,
                softcap=options.get("softcap"),
                sinks=options.get("s_aux"),
                own=own_attention(module, layer.engine.implementation, options),
                training=module.training,
            ),
        ),
        None,
    )  # fmt: skip


def follow(model: nn.Module) -> None:
    """Let weights of applied methods that follow what is read in training move; comes after each step of it."""
    for module in model.modules():
        if isinstance(layer := module.__dict__.get(NAME), LayerEngine) and layer.native_window is None:
            for policy in layer.engine.setup.policies:
                if isinstance(policy, Follows):
                    policy.follow(layer.context)


@contextmanager
def installed(model: PreTrainedModel, attentions: list[Attention], setup: Setup, trained_window: int) -> Iterator[Engine]:
    """The engine in place on the model; on leaving, everything is as it was."""
    if setup.inserting is not None:
        check_inserting(model, setup.inserting, setup)
    engine = Engine(model, attentions, setup, trained_window)
    with ExitStack() as undo:
        undo.callback(engine.close)
        for attention, layer in zip(attentions, engine.layers.values(), strict=True):
            attention.module.__dict__[NAME] = layer
            undo.callback(attention.module.__dict__.pop, NAME, None)
        if setup.inserting is not None:
            context = next(layer.context for layer in engine.layers.values() if layer.context.first)
            undo.callback(install(model.base_model, Inserting(engine, model, setup.inserting, context)))
        stores = [layer.stored for layer in engine.layers.values() if layer.stored is not None]
        if cuts := frozenset(store.cut for store in stores if "entropy" in store.signals):
            undo.callback(install(model.base_model, EntropyReader(engine, model, cuts)))
        seeing = [layer for layer in engine.layers.values() if layer.added.agings or setup.inserting is not None]
        if cuts := frozenset(store.cut for store in stores if isinstance(store, Carried)):
            reader = HiddenReader(engine, model, cuts, engine.layers)
            seeing += reader.sources
            undo.callback(install(model.base_model, reader))
        for layer in dict.fromkeys(seeing):
            undo.callback(layer.module.register_forward_pre_hook(layer.see, with_kwargs=True).remove)
        if any(_hangs_on_prompt(view) for layer in engine.layers.values() for view in layer.views):
            undo.enter_context(prompts_end_where_generation_begins(model))
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, NAME, _attention))
        hook = model.base_model.register_forward_pre_hook(engine.before_forward, with_kwargs=True)
        undo.callback(hook.remove)
        yield engine


def _hangs_on_prompt(view: View) -> bool:
    """Whether what is seen hangs on where the prompt ends."""
    if isinstance(view, Computed):
        return view.waits
    return isinstance(view, Store) and (view.cut.waits or (isinstance(view, Blocks) and view.shared > 1))
