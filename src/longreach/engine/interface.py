"""Puts an attention function in place of a model's own through transformers' registries, and takes it away again."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from longreach.engine._stream import mask_spec
from longreach.engine.families import routed

_users: Counter[str] = Counter()  # models that attend through a registered name; the last one takes it away


@contextmanager
def interface(model: PreTrainedModel, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """The model's decoder attends with `function`; on leaving, model and transformers are as they were."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    _users[name] += 1
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, mask_spec)
    config._attn_implementation = name
    try:
        with routed(model):
            yield
    finally:
        config._attn_implementation = before
        _users[name] -= 1
        if not _users[name]:
            del AttentionInterface._global_mapping[name], AttentionMaskInterface._global_mapping[name]
