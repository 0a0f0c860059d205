"""The slow and obvious way to run a method: every pair of tokens by itself, in float64, straight from the method's `reference`.

It can be differentiated, so gradients are compared with it, too.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.attention.base import Ages, AttentionPolicy, Biases, Fades, Places, Prefixes, ReadsText, Scales, Vectors
from longreach.cache.base import CachePolicy, History
from longreach.core.bands import LayerContext
from longreach.core.method import Method
from longreach.engine import rotation
from longreach.engine._text import Pieces, tokenizer_of
from longreach.engine.contexts import contexts
from longreach.engine.examine import examine
from longreach.engine.interface import interface
from longreach.engine.rope_config import rope_of
from longreach.engine.window import trained_window
from longreach.positions.base import PositionsMethod


def naive_logits(
    model: PreTrainedModel, methods: Sequence[Method], ids: Tensor, padding: Tensor | None = None, indices: Tensor | None = None
) -> Tensor:
    """Logits [B, T, V] of the model under attention, cache and length-dependent methods; padding [B, T], True = real, on the left only.

    indices: [T] where the tokens stand, ascending from 0, where they do not follow on one another; not with padding.
    Keeps what a backward pass needs, unless under `torch.no_grad()`.
    """
    attentions = examine(model, trained_window(model.config.get_text_config()))
    starts = torch.zeros(ids.shape[0], dtype=torch.long) if padding is None else padding.int().argmax(1)
    tokenizer = tokenizer_of(model)
    pieces = None if tokenizer is None else Pieces(tokenizer)
    by_module = {id(attention.module): (index, attention) for index, attention in enumerate(attentions)}

    layers, inputs = contexts(model, attentions), {}

    def see(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        inputs[id(module)] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
        index, learned = by_module[id(module)]
        hidden = inputs[id(module)]
        texts = [
            ["" if pieces is None else pieces[token] for token in row[start:]] for row, start in zip(ids.tolist(), starts, strict=True)
        ]
        outs = [
            _row(model, learned, layers[index], methods, texts[b], q[b], k[b], v[b], hidden[b : b + 1], options, indices)
            for b in range(len(ids))
        ]
        return torch.stack(outs).transpose(1, 2), None

    with ExitStack() as undo:
        for each in attentions:
            undo.callback(each.module.register_forward_pre_hook(see, with_kwargs=True).remove)
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, "longreach_naive", attention))
        return model(ids, attention_mask=None if padding is None else padding.long(), use_cache=False).logits


def _row(
    model: PreTrainedModel, learned: rotation.Attention, context: LayerContext, methods: Sequence[Method], texts: Sequence[str],
    q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, options: dict[str, Any], indices: Tensor | None,
) -> Tensor:  # fmt: skip
    """Attention output [H, T, D] of one row; q [H, T, D], k and v [K, T, D], all unrotated; hidden [1, T, hidden_size].

    texts: of its tokens that are no padding. indices: [T] where they do not follow on one another.
    """
    dtype, start = q.dtype, q.shape[1] - len(texts)
    q, k, v = q.double(), k.double(), v.double()
    for policy in methods if learned.window is None else ():
        if isinstance(policy, CachePolicy) and type(policy).sight is not CachePolicy.sight:
            out = _by_sight(model, learned, context, methods, policy, q[:, start:], k[:, start:], v[:, start:], options)
            return torch.cat([out.new_zeros(len(q), start, v.shape[-1]), out], 1).to(dtype)
    k, v = k.repeat_interleave(q.shape[0] // k.shape[0], 0), v.repeat_interleave(q.shape[0] // v.shape[0], 0)
    before = torch.arange(q.shape[1])[None] - start
    j = before if indices is None else indices[None]
    i = j.T
    relative, visible, between = (i - j).expand(q.shape[1], -1), (j <= i) & (j >= 0), False
    scale = options.get("scaling", q.shape[-1] ** -0.5)
    if learned.window is not None:
        visible = visible & (i - j < learned.window)
    else:
        for method in methods:
            if isinstance(method, AttentionPolicy | CachePolicy) and method.views(context) is not None:
                if isinstance(method, ReadsText):
                    pairs = 0 if learned.rotation is None else _frequencies(model, learned)[0].shape[-1]
                    relative, seen = method.reference_by_text(i, j, texts, pairs, context.trained_window)
                elif isinstance(method, Places):
                    between = method.interpolates_logits
                    relative, seen = method.reference_of(i, j, _vectors(model, learned, q, k, v, scale))
                else:
                    relative, seen = method.reference(i, j)
                visible = visible & seen
    policies = [method for method in methods if isinstance(method, AttentionPolicy) and learned.window is None]
    if between:
        below = relative.floor()
        near, far = (_pair_logits(model, learned, context, methods, place, q, k, i) for place in (below, below + 1))
        logits = (near + (far - near) * (relative - below)) * scale
    else:
        logits = _pair_logits(model, learned, context, methods, relative, q, k, i) * scale
    for policy in policies:
        if isinstance(policy, Scales):
            logits = logits * policy.temperature(before, context).double().reshape(-1, q.shape[1], 1)
    if (cap := options.get("softcap")) is not None:
        logits = cap * torch.tanh(logits / cap)
    real = (i >= 0)[:, 0]
    for policy in policies:
        if isinstance(policy, Biases):
            logits = logits + policy.bias(relative.clamp(min=0), context).double()
        if isinstance(policy, Ages):
            ages = (policy.aging(hidden, context)[0].double() * real).cumsum(-1)
            logits = logits - (ages[:, :, None] - ages[:, None])
    sees = visible.any(-1, keepdim=True)  # a row that sees nothing (padding) gives 0; it may not reach softmax, whose gradient is nan there
    logits = logits.masked_fill(~visible & sees, float("-inf"))
    if (sinks := options.get("s_aux")) is not None:
        logits = torch.cat([logits, sinks.double()[:, None, None].expand(-1, q.shape[1], 1)], -1)
        v = torch.cat([v, torch.zeros_like(v[:, :1])], 1)
    out, mass = logits.softmax(-1) * sees @ v, logits.logsumexp(-1)
    for policy in policies:
        if isinstance(policy, Prefixes):
            turned = _vectors(model, learned, q, k, v, scale).rotated(q, i[:, 0])
            found = policy.prefix(turned[None].to(dtype), context)
            share = torch.sigmoid(found[1][0].double().log() - mass)[..., None]
            out = out * (1 - share) + found[0][0].double() / found[1][0].double()[..., None] * share
    return out.to(dtype)


def _by_sight(
    model: PreTrainedModel, learned: rotation.Attention, context: LayerContext, methods: Sequence[Method], policy: CachePolicy,
    q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any],
) -> Tensor:  # fmt: skip
    """Attention output [H, T, D] of a policy that decides by content, query by query; q [H, T, D], k and v [K, T, D] without padding."""
    scale, tokens, repeats = options.get("scaling", q.shape[-1] ** -0.5), torch.arange(q.shape[1]), len(q) // len(k)
    vectors = _vectors(model, learned, q, k, v, scale)
    rotated = _as_model(model, learned) if policy.rounds else vectors.rotated
    still = rotated(k, torch.zeros_like(tokens))
    factors = [other.temperature(tokens[None], context).double().view(-1, len(tokens)) for other in methods if isinstance(other, Scales)]
    rows: list[Tensor] = []
    outs: list[Tensor] = []
    for i in range(len(tokens)):
        attention = torch.stack(rows, 1).detach() if rows else q.new_zeros(len(q), 0, len(tokens))
        sight = policy.sight(i, History(attention=attention, q=q, k=k, v=v, rotated=rotated))
        assert sight is not None  # noqa: S101 - the caller chose a policy that states it
        if sight.keys is not None:
            logits = (rotated(q[:, i : i + 1], tokens[i : i + 1]) * sight.keys.repeat_interleave(repeats, 0)).sum(-1)
        else:
            relative = (i - tokens).repeat(len(q), 1) if sight.relative is None else sight.relative.repeat_interleave(repeats, 0)
            turned = torch.stack([rotated(q[h, i].expand(len(tokens), -1), relative[h]) for h in range(len(q))])
            logits = (turned * still.repeat_interleave(repeats, 0)).sum(-1)
        logits = logits * scale
        for factor in factors:
            logits = logits * factor[:, i, None]
        if (cap := options.get("softcap")) is not None:
            logits = cap * torch.tanh(logits / cap)
        visible = torch.zeros(len(k), len(tokens), dtype=torch.bool)
        for head, seen in enumerate(sight.tokens):
            visible[head, list(seen)] = True
        logits = logits.masked_fill(~visible.repeat_interleave(repeats, 0), float("-inf"))
        if (sinks := options.get("s_aux")) is not None:
            logits = torch.cat([logits, sinks.double()[:, None]], -1)
        weights = logits.softmax(-1)[:, : len(tokens)]
        rows.append(weights)
        values = v if sight.values is None else sight.values
        outs.append((weights[..., None] * values.repeat_interleave(repeats, 0)).sum(1))
    return torch.stack(outs, 1)


def _as_model(model: PreTrainedModel, learned: rotation.Attention) -> Callable[[Tensor, Tensor], Tensor]:
    """Rotates by the tables of the model itself, whose last bits decide how a number is rounded."""

    def rotated(x: Tensor, positions: Tensor) -> Tensor:
        if learned.rotation is None:
            return x
        rotary = rotation.rotary_modules(model)[learned.rotation.rotary][2]
        tables = rotation.table(rotary, x, positions[None], learned.rotation.layer_type)
        return learned.rotation(x[None], *(learned.rotation.angles(table) for table in tables))[0]

    return rotated


def _pair_logits(
    model: PreTrainedModel, learned: rotation.Attention, context: LayerContext, methods: Sequence[Method], relative: Tensor,
    q: Tensor, k: Tensor, i: Tensor,
) -> Tensor:  # fmt: skip
    """<R(relative) q_i, k_j> for every pair, [H, T, T]; relative [T, T] or [H, T, T], or [T, T, R / 2] for methods that read the text."""
    if learned.rotation is None:
        return q @ k.mT
    if learned.window is None and (mixed := _mixed(model, learned, methods, q, k, i)) is not None:
        return mixed
    if any(method.info.reads_text for method in methods) and learned.window is None:
        frequencies, scale = _frequencies(model, learned)
        angles = (relative.double() * frequencies)[None]
    else:
        angles, scale = _angles(model, learned, methods, relative, i)
    angles = angles.repeat_interleave(q.shape[0] // angles.shape[0], 0)
    half = angles.shape[-1]
    first, second = _pair(learned.rotation, half)
    q1, q2, k1, k2 = q[..., first], q[..., second], k[..., first], k[..., second]
    cos, sin = angles.cos() * scale**2, angles.sin() * scale**2
    for method in methods:
        if isinstance(method, Fades) and learned.window is None:
            lost = method.decay(half, context).double() ** relative.clamp(min=0)[..., None]
            cos, sin = cos * lost, sin * lost
    same = torch.einsum("hif,hjf,hijf->hij", q1, k1, cos) + torch.einsum("hif,hjf,hijf->hij", q2, k2, cos)
    cross = torch.einsum("hif,hjf,hijf->hij", q1, k2, sin) - torch.einsum("hif,hjf,hijf->hij", q2, k1, sin)
    return same + cross + q[..., 2 * half :] @ k[..., 2 * half :].mT


def _mixed(
    model: PreTrainedModel, learned: rotation.Attention, methods: Sequence[Method], q: Tensor, k: Tensor, i: Tensor
) -> Tensor | None:
    """The logits [H, T, T] where every pair of dimensions is turned by a sum over frequencies, which no distance tells; else None."""
    assert learned.rotation is not None  # noqa: S101 - the caller checked
    mixing = [method for method in methods if isinstance(method, PositionsMethod) and method.info.per_head]
    rope = replace(rope_of(model.config), num_heads=learned.num_kv_heads) if mixing else None
    mixtures = [mix for method in mixing if rope is not None and (mix := method.mixture(rope)) is not None]
    if not mixtures:
        return None
    angles, factor = _angles(model, learned, methods, i, i)  # [K, T, 1, R / 2]
    cos, sin = (
        torch.einsum("ktf,kfg->ktg", table[:, :, 0], mix.double()).repeat_interleave(q.shape[0] // mix.shape[0], 0) * factor[..., 0]
        for table, mix in zip((angles.cos(), angles.sin()), mixtures[0], strict=True)
    )
    first, second = _pair(learned.rotation, cos.shape[-1])
    turned = []
    for x in (q, k):
        out = x.clone()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        turned.append(out)
    return turned[0] @ turned[1].mT


def _pair(learned: rotation.Rotation, half: int) -> tuple[slice, slice]:
    """The dimensions that turn together."""
    if learned.layout == "half":
        return slice(0, half), slice(half, 2 * half)
    return slice(0, 2 * half, 2), slice(1, 2 * half, 2)


def _frequencies(model: PreTrainedModel, learned: rotation.Attention) -> tuple[Tensor, Tensor]:
    """The layer's own frequencies [R / 2] and the factor on cos and sin, in float64."""
    assert learned.rotation is not None  # noqa: S101 - the callers checked
    rotary = rotation.rotary_modules(model)[learned.rotation.rotary][2]
    prefix = f"{learned.rotation.layer_type}_" if learned.rotation.layer_type else ""
    scale = torch.tensor(getattr(rotary, f"{prefix}attention_scaling"), dtype=torch.float64)
    return getattr(rotary, f"{prefix}inv_freq").double(), scale


def _vectors(model: PreTrainedModel, learned: rotation.Attention, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Vectors:
    def rotated(x: Tensor, positions: Tensor) -> Tensor:
        if learned.rotation is None:
            return x
        angles, factor = _angles(model, learned, (), positions, positions)
        first, second = _pair(learned.rotation, angles.shape[-1])
        cos, sin, out = angles.cos() * factor, angles.sin() * factor, x.clone()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        return out

    return Vectors(q=q, k=k, v=v, scale=scale, rotated=rotated)


def _angles(
    model: PreTrainedModel, learned: rotation.Attention, methods: Sequence[Method], relative: Tensor, i: Tensor
) -> tuple[Tensor, Tensor]:
    """(relative position times frequency [1 | K | H, T, T, R / 2], factor on cos and sin [1 | T, 1, 1]), in float64."""
    assert learned.rotation is not None  # noqa: S101 - the caller checked
    relative = relative[None] if relative.ndim == 2 else relative
    frequencies, scale = _frequencies(model, learned)
    dynamic = [method for method in methods if isinstance(method, PositionsMethod) and method.needs_engine]
    if not dynamic or learned.window is not None:
        return relative[..., None].double() * frequencies, scale
    rope = replace(rope_of(model.config), num_heads=learned.num_kv_heads)
    step, window = dynamic[0].length_step(rope) or 1, rope.trained_window
    lengths = [window if query < window else (query // step + 1) * step for query in i[:, 0].tolist()]
    found = {length: dynamic[0].inv_freq(rope, length) for length in lengths}
    rows = torch.stack([found[length][0].double() for length in lengths], -2)  # [T, R / 2] or [K, T, R / 2]
    factors = torch.tensor([found[length][1] for length in lengths], dtype=torch.float64)
    return relative[..., None].double() * rows.view(-1, rows.shape[-2], 1, rows.shape[-1]), factors[:, None, None]
