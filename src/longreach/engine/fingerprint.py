"""Tells models apart: whose caches must not be mixed up, whose measurements stand in a row, what a method was fitted to."""

import hashlib
import json

import torch
from torch import Tensor
from transformers import PreTrainedModel

_SAMPLES = 64  # numbers of each parameter, at least
_OTHERS = ("transformers_version", "architectures", "dtype", "torch_dtype", "use_cache")  # say nothing that the rest does not


def fingerprint(model: PreTrainedModel) -> str:
    """16 hexadecimal digits of the model's class, its config, and the names, shapes, types and some numbers of all parameters.

    The numbers are evenly spread. So it tells fine-tunes of one checkpoint apart, without reading all weights; a change of a few numbers
    alone it may not see. It is of the model as it stands, under what is applied to it. Weights that are offloaded count by their shapes.
    """
    config = {key: value for key, value in model.config.to_dict().items() if not key.startswith("_") and key not in _OTHERS}
    digest = hashlib.sha256(json.dumps([type(model).__name__, config], sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {parameter.dtype} {list(parameter.shape)}\n".encode())
        if parameter.device.type != "meta":
            digest.update(_some(parameter.detach()).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _some(tensor: Tensor) -> Tensor:
    step = max(1, tensor.numel() // _SAMPLES)
    return tensor.flatten()[::step].contiguous().cpu()
