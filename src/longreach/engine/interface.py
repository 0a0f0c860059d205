"""Puts an attention function in place of a model's own through transformers' registries, and takes it away again."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from longreach.engine._stream import mask_spec
from longreach.engine.families import routed

_users: Counter[str] = Counter()  # models that attend through a registered name; the last one takes it away


@contextmanager
def interface(model: PreTrainedModel, name: str, function: Callable[..., Any], masks: Callable[..., Any] = mask_spec) -> Iterator[None]:
    """The model's decoder attends with `function`, given what `masks` makes; on leaving, model and transformers are as they were."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    _users[name] += 1
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, masks)
    config._attn_implementation = name
    try:
        with routed(model):
            yield
    finally:
        config._attn_implementation = before
        _leave(name)


def hold(model: PreTrainedModel) -> None:
    """Keep the registered function that a copied model attends with, where it does with one, for as long as the copy lives."""
    name = model.config.get_text_config()._attn_implementation
    if name in _users:
        _users[name] += 1
        weakref.finalize(model, _leave, name)


def _leave(name: str) -> None:
    _users[name] -= 1
    if not _users[name]:
        del _users[name], AttentionInterface._global_mapping[name], AttentionMaskInterface._global_mapping[name]
