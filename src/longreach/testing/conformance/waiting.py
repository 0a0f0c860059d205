"""What holds for every memory of encoders."""

import copy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.attention.base import EncoderMemory
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import LENGTH, Check, close, gradients, left_padding, moves, require, same
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import random_ids, tiny_learned, tiny_model

_FAMILIES = ("bert", "roberta")


def check_neutral_memory(method: EncoderMemory) -> int:
    """A memory that holds the whole text, and queries that wait for all of it, give the model's own outputs."""
    compared = 0
    for family in _FAMILIES:
        model, ids = tiny_learned(family), random_ids(2, LENGTH)
        with torch.no_grad():
            stock = outputs(model, ids)
            with apply(model, method):
                compared += close(outputs(model, ids), stock, family, tolerance=1e-5)
    return compared


def check_memory_is_read(method: EncoderMemory) -> int:
    """Outputs are those of the model in float64 under the mask of the definition, for every text of a padded batch at its own length."""
    compared, lengths = 0, (LENGTH, LENGTH - 7, 3)
    for family in _FAMILIES:
        model, ids = tiny_learned(family), random_ids(3, LENGTH)
        mask = left_padding(lengths).flip(1)
        ids[mask == 0] = model.config.pad_token_id
        with torch.no_grad(), apply(model, method):
            found, alone = outputs(model, ids, mask), outputs(model, ids[:1])
        for row, length in enumerate(lengths):
            wanted = _defined(model, method, ids[row : row + 1, :length]).detach()
            compared += close(found[row, :length].double(), wanted[0], f"{family}, {length} tokens")
        compared += close(alone[0], found[0], f"{family}, alone")
        compared += moves(method, alone, outputs(model, ids[:1]).detach())
    return compared


def check_each_query_attends_once(method: EncoderMemory) -> int:
    """Steps hold every query of a text once, in order, and each sees itself."""
    compared = 0
    for length in (1, 2, 7, LENGTH, 4 * LENGTH):
        steps = method.steps(length)
        require([i for queries, _ in steps for i in queries] == list(range(length)), f"{length} tokens: {steps}")
        compared += require(all(i in keys for queries, keys in steps for i in queries), f"{length} tokens: some do not see themselves")
    return compared


def check_memory_and_gradients(method: EncoderMemory) -> int:
    """The gradients of every weight are those of the definition in float64."""
    model, ids, compared = tiny_learned("bert"), random_ids(1, LENGTH), 0
    with apply(model, method):
        ours = gradients(model, outputs(model, ids))
    exact = copy.deepcopy(model).double()
    wanted = gradients(exact, _defined(exact, method, ids))
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        # Of a key's bias it is 0, for that adds the same to all logits of a query; what is left there is rounding of the others.
        tolerance = 2e-4 * float(gradient.abs().max()) + 1e-6 * largest
        compared += close(ours[name].double(), gradient, f"gradient of {name}", tolerance=tolerance)
    return compared


@torch.no_grad()
def check_memory_is_undone(method: EncoderMemory) -> int:
    """After the context, also one left by an exception, everything is as it was."""
    model, ids = tiny_learned("bert"), random_ids(1, LENGTH)
    stock, before, compared = outputs(model, ids), snapshot(model), 0
    try:
        with apply(model, method):
            outputs(model, ids)
            raise KeyError("raised to leave the context")
    except KeyError:
        compared += unchanged(before, snapshot(model), "after an exception")
    return compared + same(outputs(model, ids), stock, "outputs after the context")


@torch.no_grad()
def check_copies_have_the_memory(method: EncoderMemory) -> int:
    """A copy made inside reads as the model does, also after the context."""
    model, ids = tiny_learned("bert"), random_ids(1, LENGTH)
    with apply(model, method):
        wanted = outputs(model, ids)
        twin = copy.deepcopy(model)
    return same(outputs(twin, ids), wanted, "the copy") + moves(method, wanted, outputs(model, ids))


def check_causal_models_are_refused(method: EncoderMemory) -> int:
    """A model whose queries may not see later keys is refused."""
    return refused_by_apply(tiny_model(), method, "no encoder in which every token sees all others")


def outputs(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Hidden states [B, T, D]."""
    found: Tensor = model(ids, attention_mask=mask).last_hidden_state
    return found


def _defined(model: PreTrainedModel, method: EncoderMemory, ids: Tensor) -> Tensor:
    """Outputs [1, T, D] in float64, of a model that gets the whole mask."""
    exact, length = model if model.dtype == torch.float64 else copy.deepcopy(model).double(), ids.shape[1]
    i, j = torch.arange(length)[:, None], torch.arange(length)
    hidden = torch.zeros(1, 1, length, length, dtype=torch.float64).masked_fill(~method.sees(i, j, length), float("-inf"))
    return outputs(exact, ids, hidden)


def _is_memory(method: Method) -> bool:
    return isinstance(method, EncoderMemory)


CHECKS = (
    *(Check(run=check, applies=_is_memory) for check in (check_memory_is_read, check_each_query_attends_once, check_memory_and_gradients)),
    *(Check(run=check, applies=_is_memory, tier="method") for check in (check_memory_is_undone, check_copies_have_the_memory)),
    Check(run=check_causal_models_are_refused, applies=_is_memory, tier="contract"),
    Check(run=check_neutral_memory, applies=_is_memory, settings="NEUTRAL"),
)
