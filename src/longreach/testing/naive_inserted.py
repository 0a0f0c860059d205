"""The slow and obvious way to run a method that inserts tokens: they stand in the text, and each query is weighed alone, in float64."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from longreach.cache.trained.base import Condenses, Inserts, Spot
from longreach.core.bands import LayerContext
from longreach.engine import rotation
from longreach.engine.aside import stack_of
from longreach.engine.contexts import contexts
from longreach.engine.examine import examine
from longreach.engine.interface import interface
from longreach.engine.window import trained_window

Rotated = Callable[[Tensor, Tensor], Tensor]  # x [..., T, D], positions [T] -> x at these positions


@dataclass(frozen=True, kw_only=True)
class _InsertedLayer:
    policy: Inserts
    context: LayerContext
    window: int | None
    rotated: Rotated


def naive_inserted_logits(
    model: PreTrainedModel, policy: Inserts, ids: Tensor, padding: Tensor | None, rotated: Callable[[rotation.Attention], Rotated]
) -> Tensor:
    """Logits [B, T, V] of the text's tokens; padding [B, T], True = real, on the left only, where logits are 0.

    rotated: how the vectors of a layer are turned.
    """
    trained = trained_window(model.config.get_text_config())
    attentions = examine(model, trained)
    around = contexts(model, attentions, trained)
    layers = {
        id(each.module): _InsertedLayer(policy=policy, context=context, window=each.window, rotated=rotated(each))
        for each, context in zip(attentions, around, strict=True)
    }
    first = next(context for context in around if context.first)
    inputs: dict[int, Tensor] = {}
    spots: list[Spot] = []

    def see(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        inputs[id(module)] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
        out = _attention(layers[id(module)], spots, inputs[id(module)], q[0], k[0], v[0], options)
        return out[None].transpose(1, 2).to(q.dtype), None

    made_of = _made(model, policy, first)
    with ExitStack() as undo:
        for each in attentions:
            undo.callback(each.module.register_forward_pre_hook(see, with_kwargs=True).remove)
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, "longreach_naive", attention))
        found = []
        for row in range(len(ids)):
            start = 0 if padding is None else int(padding[row].int().argmax())
            text = ids[row : row + 1, start:]
            spots[:] = _spots(policy, first, text.shape[1])
            own = model.get_input_embeddings()(text)[0]
            made = made_of(own)
            embeds = torch.stack([made[spot.index % len(made)] if spot.inserted else own[spot.index] for spot in spots])
            logits = model(inputs_embeds=embeds[None], use_cache=False).logits[0]
            mine = logits[[number for number, spot in enumerate(spots) if not spot.inserted]]
            found.append(torch.cat([mine.new_zeros(start, mine.shape[1]), mine]))
    return torch.stack(found)


def _made(model: PreTrainedModel, policy: Inserts, layer: LayerContext) -> Callable[[Tensor], Tensor]:
    """What inserted tokens are to the first layer, [E, hidden_size], as a function of what the text's are, [T, hidden_size]."""
    if not isinstance(policy, Condenses):
        table = policy.embeddings(layer)
        assert table is not None  # noqa: S101 - it condenses nothing
        return lambda text: table
    plain: Any = copy.deepcopy(model.base_model)
    every, (name, stack) = policy.inserted(layer).every, stack_of(model)

    def read(embeds: Tensor, layers: int, weights: Mapping[str, Tensor]) -> Tensor:
        """By a copy of the model as it is, without its last layers: one text after the other."""
        del plain.get_submodule(name)[layers : len(stack)]
        given: Any = weights
        return torch.stack(
            [functional_call(plain, given, kwargs={"inputs_embeds": text[None], "use_cache": False})[0][0] for text in embeds]
        )

    def made(text: Tensor) -> Tensor:
        full = text[: len(text) // every * every]
        return policy.condensed(full.unflatten(0, (-1, every)), read, layer).flatten(0, 1) if len(full) else full

    return made


def _spots(policy: Inserts, layer: LayerContext, count: int) -> list[Spot]:
    """The tokens of a text of so many, and the inserted ones, in the order in which they are read."""
    view, found = policy.inserted(layer), []
    for index in range(count):
        found.append(Spot(index=index))
        found += [Spot(index=number, inserted=True) for number in range(view.before(index), view.before(index + 1))]
    return found


def _attention(
    layer: _InsertedLayer, spots: Sequence[Spot], hidden: Tensor, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any]
) -> Tensor:
    """Attention output [H, N, D]; q [H, N, D], k and v [K, N, D], unrotated; hidden [1, N, hidden_size]."""
    if layer.window is None:
        q, k, v = _projected(layer, spots, hidden, q, k, v)
    q, k, v = q.double(), k.double(), v.double()
    k, v = (x.repeat_interleave(len(q) // len(x), 0) for x in (k, v))
    scale, cap, sinks = options.get("scaling", q.shape[-1] ** -0.5), options.get("softcap"), options.get("s_aux")
    still, outs = layer.rotated(k, torch.zeros(len(spots))), []
    for number, query in enumerate(spots):

        def logit(before: Sequence[Any], number: int = number) -> Tensor:
            relative = torch.as_tensor(before, dtype=torch.float64)
            keys = still[:, : relative.shape[-1]]
            logits = (layer.rotated(q[:, number : number + 1].expand(-1, keys.shape[1], -1), relative) * keys).sum(-1) * scale
            return logits if cap is None else cap * torch.tanh(logits / cap)

        seen = spots[: number + 1]
        if layer.window is None:
            weights, total = layer.policy.given(query, seen, logit, layer.context)
        else:
            weights, total = _beside_window(layer, query, seen, logit)
        if sinks is not None:
            weights = weights * torch.sigmoid(total - sinks.double())[:, None]
        outs.append((weights[..., None] * v[:, : number + 1]).sum(1))
    return torch.stack(outs, 1)


def _projected(layer: _InsertedLayer, spots: Sequence[Spot], hidden: Tensor, *vectors: Tensor) -> list[Tensor]:
    own = torch.tensor([number for number, spot in enumerate(spots) if spot.inserted], dtype=torch.long)
    added = layer.policy.projected(hidden[:, own], layer.context)
    if added is None:
        return list(vectors)
    return [x.index_add(1, own, more[0].unflatten(-1, (len(x), -1)).transpose(0, 1)) for x, more in zip(vectors, added, strict=True)]


def _beside_window(
    layer: _InsertedLayer, query: Spot, spots: Sequence[Spot], logit: Callable[[Sequence[Any]], Tensor]
) -> tuple[Tensor, Tensor]:
    """In a layer with a sliding window an inserted token sees what the text's token before it sees, and nobody sees it."""
    assert layer.window is not None  # noqa: S101 - the caller checked
    place = max(spot.index for spot in spots if not spot.inserted) if query.inserted else query.index
    seen = torch.tensor([not spot.inserted and place - spot.index < layer.window for spot in spots])
    logits = logit([place - spot.index for spot in spots]).masked_fill(~seen, float("-inf"))
    return logits.softmax(-1), logits.logsumexp(-1)
