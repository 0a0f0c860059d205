"""What is trained of a model: low-rank adapters (LoRA, arXiv:2106.09685, by `peft`) with chosen other parts, or all of it."""

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from longreach.core.errors import InputError

PARTS = ("embeddings", "norms")  # what LongLoRA (arXiv:2309.12307) found adapters to need for long contexts


def add_adapters(model: PreTrainedModel, *, rank: int, alpha: int, targets: Sequence[str] = (), parts: Sequence[str] = ()) -> Any:
    """The model with adapters of the given rank on its linear layers; everything else is frozen, but for `parts`.

    Args: targets: names of linear layers (q_proj, layers.0.mlp.up_proj); none: all but the output head. parts: of PARTS.
    Returns: a `peft.PeftModel`. `model` itself is changed until `merged`.
    Raises: InputError for a target that matches nothing.
    """
    from peft import LoraConfig, get_peft_model

    check_targets(model, targets)
    low_rank = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=list(targets) or "all-linear", bias="none", task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that transformers has renamed
        wrapped = get_peft_model(model, low_rank)
    for part in parts:
        for parameter in _part(model, part):
            parameter.requires_grad = True
    return wrapped


def check_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    """Raise InputError for a target that matches no linear layer of the model."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise InputError(f"LoRA target {target!r} matches no linear layer of {type(model).__name__}; it has {', '.join(known)}")


def merged(wrapped: Any) -> PreTrainedModel:
    """The plain model with the adapters added into its weights."""
    model: PreTrainedModel = wrapped.merge_and_unload()
    if hasattr(model, "peft_config"):
        del model.peft_config
    return model.requires_grad_(True)


def _part(model: PreTrainedModel, part: str) -> list[nn.Parameter]:
    """The parameters meant by embeddings (with an output head of their own) or norms."""
    if part == "embeddings":
        layers = [model.get_input_embeddings(), model.get_output_embeddings()]
        return [layer.weight for layer in layers if layer is not None]
    norms = [module for module in model.modules() if "norm" in type(module).__name__.lower()]
    return [parameter for module in norms for parameter in module.parameters(recurse=False)]
