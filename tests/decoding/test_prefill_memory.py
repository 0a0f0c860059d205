"""Prefill holds nothing that grows with the square of the text: no mask, no logits of all pairs."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import longreach
from longreach.attention.base import AttentionPolicy
from longreach.core import registry
from longreach.engine.apply import apply
from longreach.testing.models import random_ids, tiny_model

EXAMPLES = [registry.module(name).EXAMPLES[0] for name in registry.names("attention")]
METHODS = [example for example in EXAMPLES if isinstance(example, AttentionPolicy)]


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest new tensor holds."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


def largest(model, length):
    with Largest() as seen:
        model(random_ids(1, length), use_cache=True, logits_to_keep=1)
    return seen.numbers


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_largest_tensor_grows_no_faster_than_the_text(method):
    model = longreach.equip(tiny_model(max_position_embeddings=32, num_hidden_layers=1), method)
    with apply(model, method), torch.no_grad():
        short, long = largest(model, 256), largest(model, 1024)
    assert long <= 4.5 * short, f"{long} numbers for 1024 tokens, {short} for 256"
    assert long < 1024 * 1024, "as many numbers as pairs"
