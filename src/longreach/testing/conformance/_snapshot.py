"""Everything that applying a method could leave behind, as one mapping that can be compared."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longreach.testing.conformance.base import require

_REGISTRIES: dict[str, dict[str, Any]] = {
    "AttentionInterface": AttentionInterface._global_mapping,
    "AttentionMaskInterface": AttentionMaskInterface._global_mapping,
    "ROPE_INIT_FUNCTIONS": ROPE_INIT_FUNCTIONS,
}
_MEMOS = {"_can_set_attn_implementation_cached_value"}  # transformers keeps them on a class from its first use on


def snapshot(model: PreTrainedModel) -> dict[str, Any]:
    """Name -> value: tensors' contents, configs, attributes and hooks of modules, attributes of their classes, transformers' registries."""
    return dict(_entries(model))


def unchanged(before: dict[str, Any], after: dict[str, Any], when: str) -> int:
    """Raise AssertionError that names what differs between two snapshots; returns how many things were compared."""
    names = sorted(before.keys() | after.keys())
    changed = [name for name in names if name not in before or name not in after or not _equal(before[name], after[name])]
    require(not changed, f"{when}: {len(changed)} things are not as they were: {', '.join(changed[:8])}")
    return len(names)


def _entries(model: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    for name, tensor in [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]:
        yield f"content of {name}", tensor.detach().clone()
    yield "config", repr(model.config.to_dict())
    yield "attention implementation", model.config.get_text_config()._attn_implementation
    yield "generation config", repr(getattr(model, "generation_config", None))
    for path, module in model.named_modules():
        yield f"{path} is", module
        for attribute, value in vars(module).items():
            if isinstance(value, dict):  # parameters, buffers, submodules, hooks
                yield f"{path}.{attribute}", dict(value)
            else:
                yield f"{path}.{attribute}", value
    classes = {cls for module in model.modules() for cls in type(module).__mro__ if cls.__module__.startswith("transformers")}
    for owner in classes:
        yield f"class {owner.__qualname__}", {name: value for name, value in vars(owner).items() if name not in _MEMOS}
    for name, registry in _REGISTRIES.items():
        yield name, dict(registry)


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_equal(before[key], after[key]) for key in before)
    if before is after:
        return True
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return torch.equal(before, after)
    simple = (str, int, float, bool, tuple, list, set, torch.dtype, torch.device)
    return isinstance(before, simple) and before == after
