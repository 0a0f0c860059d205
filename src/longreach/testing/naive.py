"""The slow and obvious way to run a method: every pair of tokens by itself, in float64, straight from the method's `reference`.

It can be differentiated, so gradients are compared with it, too.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.attention.base import Ages, AttentionPolicy, Biases, Fades, Places, Prefixes, ReadsText, Scales, Vectors
from longreach.cache.base import CachePolicy
from longreach.cache.trained.base import Inserts
from longreach.core.bands import PROBE, LayerContext
from longreach.core.memory import Carried
from longreach.core.method import Method
from longreach.core.sight import History
from longreach.engine import rotation
from longreach.engine._text import Pieces, tokenizer_of
from longreach.engine.contexts import contexts
from longreach.engine.examine import examine
from longreach.engine.interface import interface
from longreach.engine.prompt import end_of_prompt
from longreach.engine.rope_config import rope_of
from longreach.engine.window import trained_window
from longreach.positions.base import PositionsMethod, Rope
from longreach.testing.naive_inserted import naive_inserted_logits


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """An attention layer, and the methods that it is run under. rotary: its embedding's module; None where it has no positions."""

    model: PreTrainedModel
    learned: rotation.Attention
    context: LayerContext
    methods: Sequence[Method]
    rotary: nn.Module | None

    @property
    def rope(self) -> Rope:
        """With the heads that keys have."""
        return replace(rope_of(self.model.config), num_heads=self.learned.num_kv_heads)


def naive_logits(
    model: PreTrainedModel, methods: Sequence[Method], ids: Tensor, padding: Tensor | None = None, indices: Tensor | None = None
) -> Tensor:
    """Logits [B, T, V] of the model under attention, cache and length-dependent methods; padding [B, T], True = real, on the left only.

    indices: [T] where the tokens stand, ascending from 0, where they do not follow on one another; not with padding.
    Keeps what a backward pass needs, unless under `torch.no_grad()`.
    """
    inserting = next((method for method in methods if isinstance(method, Inserts)), None)
    if inserting is not None:
        return naive_inserted_logits(model, inserting, ids, padding, lambda learned: _rotated(_bare_layer(model, learned)))
    starts = torch.zeros(ids.shape[0], dtype=torch.long) if padding is None else padding.int().argmax(1)
    entropy = torch.zeros(ids.shape, dtype=torch.float64)
    carried = [
        view for method in methods if isinstance(method, CachePolicy) for view in method.views(PROBE) or () if isinstance(view, Carried)
    ]
    if carried:  # with every round, the hidden states of one window more are right
        hidden: list[Tensor] = []
        for _ in range(-(-ids.shape[1] // carried[0].window)):
            logits, hidden = _naive_pass(model, methods, ids, padding, indices, entropy, hidden)
        return logits
    while True:
        logits, _ = _naive_pass(model, methods, ids, padding, indices, entropy, [])
        if not any("entropy" in getattr(method, "signals", ()) for method in methods):
            return logits
        # What a token sees hangs on the entropies of those before it: with every round, those up to one cut more are right.
        found = -logits.detach().double().log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        found = torch.cat([torch.zeros_like(found[:, :1]), found], 1).masked_fill(torch.arange(ids.shape[1]) <= starts[:, None], 0.0)
        if torch.equal(found, entropy):
            return logits
        entropy = found


def _naive_pass(
    model: PreTrainedModel, methods: Sequence[Method], ids: Tensor, padding: Tensor | None, indices: Tensor | None, entropy: Tensor,
    hidden: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """`naive_logits`, and what each layer with full attention got, [B, T, hidden size].

    entropy: of every token [B, T]. hidden: what these layers got in the round before; empty in the first.
    """
    trained = trained_window(model.config.get_text_config())
    attentions = examine(model, trained)
    starts = torch.zeros(ids.shape[0], dtype=torch.long) if padding is None else padding.int().argmax(1)
    tokenizer = tokenizer_of(model)
    pieces = None if tokenizer is None else Pieces(tokenizer)
    rotaries = [rotary for _, _, rotary in rotation.rotary_modules(model)]
    layers = {
        id(learned.module): _Layer(
            model=model,
            learned=learned,
            context=context,
            methods=methods,
            rotary=None if learned.rotation is None else rotaries[learned.rotation.rotary],
        )
        for learned, context in zip(attentions, contexts(model, attentions, trained), strict=True)
    }
    texts = [["" if pieces is None else pieces[token] for token in row[start:]] for row, start in zip(ids.tolist(), starts, strict=True)]
    inputs = {}

    def see(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        inputs[id(module)] = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> tuple[Tensor, None]:
        layer = layers[id(module)]
        outs = []
        for b in range(len(ids)):
            got, known = inputs[id(module)][b : b + 1], [each[b] for each in hidden]
            outs.append(_row(layer, texts[b], entropy[b], q[b], k[b], v[b], got, options, indices, known))
        return torch.stack(outs).transpose(1, 2), None

    with ExitStack() as undo:
        for each in attentions:
            undo.callback(each.module.register_forward_pre_hook(see, with_kwargs=True).remove)
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, "longreach_naive", attention))
        logits = model(ids, attention_mask=None if padding is None else padding.long(), use_cache=False).logits
    return logits, [inputs[id(each.module)] for each in attentions if each.window is None]


def _row(
    layer: _Layer, texts: Sequence[str], entropy: Tensor, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, options: dict[str, Any],
    indices: Tensor | None, known: Sequence[Tensor],
) -> Tensor:  # fmt: skip
    """Attention output [H, T, D] of one row; q [H, T, D], k and v [K, T, D], all unrotated; hidden [1, T, hidden_size].

    texts: of its tokens that are no padding. entropy: [T]. indices: [T] where they do not follow on one another. known: what layers with
    full attention got in the round before, [T, hidden_size] each.
    """
    learned, context, methods = layer.learned, layer.context, layer.methods
    dtype, start = q.dtype, q.shape[1] - len(texts)
    prompt = end_of_prompt(q.shape[1]) - start
    q, k, v = q.double(), k.double(), v.double()
    for policy in methods if learned.window is None else ():
        if isinstance(policy, CachePolicy) and type(policy).sight is not CachePolicy.sight:
            behind = [each[start:].double() for each in known]
            out = _by_sight(layer, policy, prompt, entropy[start:], q[:, start:], k[:, start:], v[:, start:], options, behind)
            return torch.cat([out.new_zeros(len(q), start, v.shape[-1]), out], 1).to(dtype)
    k, v = k.repeat_interleave(q.shape[0] // k.shape[0], 0), v.repeat_interleave(q.shape[0] // v.shape[0], 0)
    before = torch.arange(q.shape[1])[None] - start
    j = before if indices is None else indices[None]
    i = j.T
    relative, visible, between, counted = (i - j).expand(q.shape[1], -1), (j <= i) & (j >= 0), False, None
    scale, cap = options.get("scaling", q.shape[-1] ** -0.5), options.get("softcap")
    if learned.window is not None:
        visible = visible & (i - j < learned.window)
    else:
        for method in methods:
            if isinstance(method, AttentionPolicy | CachePolicy) and method.views(context) is not None:
                if isinstance(method, ReadsText):
                    pairs = 0 if learned.rotation is None else _frequencies(layer)[0].shape[-1]
                    relative, seen = method.reference_by_text(i, j, texts, pairs, context.trained_window)
                elif isinstance(method, Places):
                    between, vectors = method.interpolates_logits, _vectors(layer, q, k, v, scale, prompt, cap)
                    if (made := method.outputs(i, j, vectors)) is not None:
                        return _weighed(torch.eye(len(i)).to(v), made, options.get("s_aux")).to(dtype)
                    if (masses := method.masses(i, j, vectors)) is not None:
                        return _weighed(masses * visible, v, options.get("s_aux")).to(dtype)
                    relative, seen = method.reference_of(i, j, vectors)
                    counted = method.counted(i, j, vectors)
                else:
                    relative, seen = method.reference(i, j)
                visible = visible & seen
    policies = [method for method in methods if isinstance(method, AttentionPolicy) and learned.window is None]
    if between:
        below = relative.floor()
        near, far = (_pair_logits(layer, place, q, k, i) for place in (below, below + 1))
        logits = (near + (far - near) * (relative - below)) * scale
    else:
        logits = _pair_logits(layer, relative, q, k, i) * scale
    for policy in policies:
        if isinstance(policy, Scales):
            logits = logits * policy.temperature(before, context).double().reshape(-1, q.shape[1], 1)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    real = (i >= 0)[:, 0]
    for policy in policies:
        if isinstance(policy, Biases):
            logits = logits + policy.bias(relative.clamp(min=0), context).double()
        if isinstance(policy, Ages):
            ages = (policy.aging(hidden, context)[0].double() * real).cumsum(-1)
            logits = logits - (ages[:, :, None] - ages[:, None])
    if counted is not None:
        logits = logits + torch.where(visible, counted, 1.0).log()
    sees = visible.any(-1, keepdim=True)  # a row that sees nothing (padding) gives 0; it may not reach softmax, whose gradient is nan there
    logits = logits.masked_fill(~visible & sees, float("-inf"))
    if (sinks := options.get("s_aux")) is not None:
        logits = torch.cat([logits, sinks.double()[:, None, None].expand(-1, q.shape[1], 1)], -1)
        v = torch.cat([v, torch.zeros_like(v[:, :1])], 1)
    out, mass = logits.softmax(-1) * sees @ v, logits.logsumexp(-1)
    for policy in policies:
        if isinstance(policy, Prefixes):
            turned = _vectors(layer, q, k, v, scale, prompt).rotated(q, i[:, 0])
            found = policy.prefix(turned[None].to(dtype), context)
            share = torch.sigmoid(found[1][0].double().log() - mass)[..., None]
            out = out * (1 - share) + found[0][0].double() / found[1][0].double()[..., None] * share
    return out.to(dtype)


def _weighed(masses: Tensor, v: Tensor, sinks: Tensor | None) -> Tensor:
    """Values [H, T, D] by their masses [H, T, T] or [T, T], beside learned sinks [H]; 0 where nothing is seen."""
    total = masses.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + sinks.double().exp()[:, None, None]
    return masses @ v / total.masked_fill(total == 0, 1.0)


def _by_sight(
    layer: _Layer, policy: CachePolicy, prompt: int, entropy: Tensor, q: Tensor, k: Tensor, v: Tensor, options: dict[str, Any],
    hidden: Sequence[Tensor],
) -> Tensor:  # fmt: skip
    """Attention output [H, T, D] of a policy that decides by content, query by query; q [H, T, D], k and v [K, T, D] without padding.

    prompt: its tokens. entropy: [T]. hidden: `History.hidden`.
    """
    scale, tokens, repeats = options.get("scaling", q.shape[-1] ** -0.5), torch.arange(q.shape[1]), len(q) // len(k)
    vectors = _vectors(layer, q, k, v, scale, prompt)
    rotated = _as_model(layer) if policy.rounds else vectors.rotated
    still = rotated(k, torch.zeros_like(tokens))
    scaling = [other for other in layer.methods if isinstance(other, Scales)]
    factors = [other.temperature(tokens[None], layer.context).double().view(-1, len(tokens)) for other in scaling]
    rows: list[Tensor] = []
    outs: list[Tensor] = []
    worths: dict[int, list[list[float]]] = {}
    for i in range(len(tokens)):
        attention = torch.stack(rows, 1).detach() if rows else q.new_zeros(len(q), 0, len(tokens))
        so_far = History(
            layer=layer.context, prompt=prompt, entropy=entropy, attention=attention, q=q, k=k, v=v, scale=scale, rotated=rotated,
            worths=worths, hidden=hidden,
        )  # fmt: skip
        sight = policy.sight(i, so_far)
        assert sight is not None  # noqa: S101 - the caller chose a policy that states it
        if sight.keys is not None:
            logits = (rotated(q[:, i : i + 1], tokens[i : i + 1]) * sight.keys.repeat_interleave(repeats, 0)).sum(-1)
        else:
            relative = (i - tokens).repeat(len(q), 1) if sight.relative is None else sight.relative.repeat_interleave(repeats, 0)
            turned = rotated(q[:, i : i + 1].expand(-1, len(tokens), -1), relative)
            logits = (turned * still.repeat_interleave(repeats, 0)).sum(-1)
        values = v if sight.values is None else sight.values
        visible = torch.zeros(len(sight.tokens), len(tokens), dtype=torch.bool)
        for head, seen in enumerate(sight.tokens):
            visible[head, list(seen)] = True
        visible = visible.repeat_interleave(len(q) // len(visible), 0)
        if sight.beside is not None:
            more, given, place = sight.beside
            turned = rotated(q[:, i : i + 1], torch.tensor([place]))
            logits = torch.cat([logits, (turned * more.repeat_interleave(repeats, 0)).sum(-1)], 1)
            values = torch.cat([values, given], 1)
            visible = torch.cat([visible, torch.ones(len(q), more.shape[1], dtype=torch.bool)], 1)
        logits = logits * scale
        for factor in factors:
            logits = logits * factor[:, i, None]
        if (cap := options.get("softcap")) is not None:
            logits = cap * torch.tanh(logits / cap)
        logits = logits.masked_fill(~visible, float("-inf"))
        if (sinks := options.get("s_aux")) is not None:
            logits = torch.cat([logits, sinks.double()[:, None]], -1)
        weights = logits.softmax(-1)[:, : values.shape[1]]
        rows.append(weights[:, : len(tokens)])
        outs.append((weights[..., None] * values.repeat_interleave(repeats, 0)).sum(1))
    return torch.stack(outs, 1)


def _as_model(layer: _Layer) -> Callable[[Tensor, Tensor], Tensor]:
    """Rotates by the tables of the model itself, whose last bits decide how a number is rounded."""

    turn = layer.learned.rotation

    def rotated(x: Tensor, positions: Tensor) -> Tensor:
        if turn is None or layer.rotary is None:
            return x
        tables = rotation.table(layer.rotary, x, positions.view(-1, positions.shape[-1]), turn.layer_type)
        return turn(x[:, None], *(turn.angles(table) for table in tables))[:, 0]

    return rotated


def _pair_logits(layer: _Layer, relative: Tensor, q: Tensor, k: Tensor, i: Tensor) -> Tensor:
    """<R(relative) q_i, k_j> for every pair, [H, T, T]; relative [T, T] or [H, T, T], or [T, T, R / 2] for methods that read the text."""
    learned = layer.learned
    if learned.rotation is None:
        return q @ k.mT
    if learned.window is None and (mixed := _mixed(layer, q, k, i)) is not None:
        return mixed
    if any(method.info.reads_text for method in layer.methods) and learned.window is None:
        frequencies, scale = _frequencies(layer)
        angles = (relative.double() * frequencies)[None]
    else:
        angles, scale = _angles(layer, relative, i)
    angles = angles.repeat_interleave(q.shape[0] // angles.shape[0], 0)
    half = angles.shape[-1]
    first, second = _pair(learned.rotation, half)
    q1, q2, k1, k2 = q[..., first], q[..., second], k[..., first], k[..., second]
    cos, sin = angles.cos() * scale**2, angles.sin() * scale**2
    for method in layer.methods:
        if isinstance(method, Fades) and learned.window is None:
            lost = method.decay(half, layer.context).double() ** relative.clamp(min=0)[..., None]
            cos, sin = cos * lost, sin * lost
    same = torch.einsum("hif,hjf,hijf->hij", q1, k1, cos) + torch.einsum("hif,hjf,hijf->hij", q2, k2, cos)
    cross = torch.einsum("hif,hjf,hijf->hij", q1, k2, sin) - torch.einsum("hif,hjf,hijf->hij", q2, k1, sin)
    return same + cross + q[..., 2 * half :] @ k[..., 2 * half :].mT


def _mixed(layer: _Layer, q: Tensor, k: Tensor, i: Tensor) -> Tensor | None:
    """The logits [H, T, T] where every pair of dimensions is turned by a sum over frequencies, which no distance tells; else None."""
    assert layer.learned.rotation is not None  # noqa: S101 - the caller checked
    mixing = [method for method in layer.methods if isinstance(method, PositionsMethod) and method.info.per_head]
    mixtures = [mix for method in mixing if (mix := method.mixture(layer.rope)) is not None]
    if not mixtures:
        return None
    angles, factor = _angles(layer, i, i)  # [K, T, 1, R / 2]
    cos, sin = (
        torch.einsum("ktf,kfg->ktg", table[:, :, 0], mix.double()).repeat_interleave(q.shape[0] // mix.shape[0], 0) * factor[..., 0]
        for table, mix in zip((angles.cos(), angles.sin()), mixtures[0], strict=True)
    )
    first, second = _pair(layer.learned.rotation, cos.shape[-1])
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


def _frequencies(layer: _Layer) -> tuple[Tensor, Tensor]:
    """The layer's own frequencies [R / 2] and the factor on cos and sin, in float64."""
    turn = layer.learned.rotation
    assert turn is not None  # noqa: S101 - the callers checked
    prefix = f"{turn.layer_type}_" if turn.layer_type else ""
    scale = torch.tensor(getattr(layer.rotary, f"{prefix}attention_scaling"), dtype=torch.float64)
    return getattr(layer.rotary, f"{prefix}inv_freq").double(), scale


def _bare_layer(model: PreTrainedModel, learned: rotation.Attention) -> _Layer:
    """A layer without methods."""
    rotaries = [rotary for _, _, rotary in rotation.rotary_modules(model)]
    rotary = None if learned.rotation is None else rotaries[learned.rotation.rotary]
    return _Layer(model=model, learned=learned, context=PROBE, methods=(), rotary=rotary)


def _vectors(layer: _Layer, q: Tensor, k: Tensor, v: Tensor, scale: float, prompt: int, cap: float | None = None) -> Vectors:
    return Vectors(layer=layer.context, q=q, k=k, v=v, scale=scale, prompt=prompt, rotated=_rotated(layer), softcap=cap)


def _rotated(layer: _Layer) -> Callable[[Tensor, Tensor], Tensor]:
    """Turns x [..., T, D] to positions [T], or [..., T], in float64."""
    turn = layer.learned.rotation

    def rotated(x: Tensor, positions: Tensor) -> Tensor:
        if turn is None:
            return x
        frequencies, factor = _frequencies(layer)
        angles = positions[..., None].double() * frequencies
        first, second = _pair(turn, angles.shape[-1])
        cos, sin, out = angles.cos() * factor, angles.sin() * factor, x.clone()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., second] * cos + x[..., first] * sin
        return out

    return rotated


def _angles(layer: _Layer, relative: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """(relative position times frequency [1 | K | H, T, T, R / 2], factor on cos and sin [1 | T, 1, 1]), in float64."""
    relative = relative[None] if relative.ndim == 2 else relative
    frequencies, scale = _frequencies(layer)
    dynamic = [method for method in layer.methods if isinstance(method, PositionsMethod) and method.needs_engine]
    if not dynamic or layer.learned.window is not None:
        return relative[..., None].double() * frequencies, scale
    rope = layer.rope
    step, window = dynamic[0].length_step(rope) or 1, rope.trained_window
    lengths = [window if query < window else (query // step + 1) * step for query in i[:, 0].tolist()]
    if rope.switch is not None and len(lengths) <= rope.switch:
        lengths = [rope.switch] * len(lengths)
    found = {length: dynamic[0].inv_freq(rope, length) for length in lengths}
    rows = torch.stack([found[length][0].double() for length in lengths], -2)  # [T, R / 2] or [K, T, R / 2]
    factors = torch.tensor([found[length][1] for length in lengths], dtype=torch.float64)
    return relative[..., None].double() * rows.view(-1, rows.shape[-2], 1, rows.shape[-1]), factors[:, None, None]
