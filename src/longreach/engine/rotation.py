"""How each attention layer of a model rotates queries and keys, found by trying instead of by a table of families.

The model is run twice on a few tokens with an attention function that returns zeros (so that hidden states do not depend on the
rotation): once as it is, once with cos = 1 and sin = 0. The rotation that turns the second queries and keys into the first is the
layer's own.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.core.errors import LongreachError, UnsupportedError

_PROBE_TOKENS = 5


@dataclass(frozen=True, slots=True)
class Rotation:
    """rotary: which of the model's rotary modules. layout: `half` rotates (x_i, x_{i + R/2}), `interleaved` (x_{2i}, x_{2i + 1}).

    table: how the model's cos and sin hold the R/2 angles (`cat`: twice in a row, `repeat`: each twice, `single`). layer_type: argument
    of the rotary module. upcast: in float32.
    """

    rotary: int
    layout: Literal["half", "interleaved"]
    table: Literal["cat", "repeat", "single"]
    layer_type: str | None
    upcast: bool

    def angles(self, table: Tensor) -> Tensor:
        """[..., R/2] of a cos or sin table as the model's rotary module gives it."""
        if self.table == "single":
            return table
        return table[..., : table.shape[-1] // 2] if self.table == "cat" else table[..., ::2]

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate x [B, H, T, D]; cos, sin [B | 1, T, R/2], or [B | 1, K, T, R/2] (K divides H). Dimensions from R on pass unrotated."""
        dtype = x.dtype
        if self.upcast:
            x, cos, sin = x.float(), cos.float(), sin.float()
        if cos.ndim == 3:
            cos, sin = cos[:, None], sin[:, None]
        elif cos.shape[1] != x.shape[1]:  # queries: those of a group share their key-value head's
            cos, sin = (table.repeat_interleave(x.shape[1] // table.shape[1], 1) for table in (cos, sin))
        half = cos.shape[-1]
        if self.layout == "half":
            first, second = slice(0, half), slice(half, 2 * half)
        else:
            first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        a, b = x[..., first], x[..., second]
        if torch.is_grad_enabled() and x.requires_grad:
            turned = (a * cos - b * sin, b * cos + a * sin)
            pair = torch.cat(turned, -1) if self.layout == "half" else torch.stack(turned, -1).flatten(-2)
            return torch.cat((pair, x[..., 2 * half :]), -1).to(dtype)
        out = torch.empty_like(x)
        # Not addcmul: its fused rounding would cost the bit-for-bit agreement with the model's own rotation.
        torch.mul(a, cos, out=out[..., first]).sub_(b * sin)
        torch.mul(b, cos, out=out[..., second]).add_(a * sin)
        if x.shape[-1] > 2 * half:
            out[..., 2 * half :] = x[..., 2 * half :]
        return out.to(dtype)


@dataclass(frozen=True, slots=True)
class Attention:
    """What the probe learned of one attention layer. rotation: None where the layer uses no positions. window: own sliding window."""

    module: nn.Module
    rotation: Rotation | None
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None


class IdentityRotary(nn.Module):
    """Stands in for a rotary module: cos = 1, sin = 0, of the original's shape. Attributes are the original's."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.__dict__["original"] = original  # not a submodule: its buffers must not appear twice
        self.__dict__["sizes"] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["original"], name)

    def forward(self, x: Tensor, position_ids: Tensor, layer_type: str | None = None, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Tables of ones and zeros.

        Raises: LongreachError for positions in more than one dimension (of images), which the engine does not know.
        """
        if position_ids.ndim == 3:  # [3, B, T]: time, height and width, which are one in a text
            if not bool((position_ids == position_ids[:1]).all()):
                raise LongreachError(
                    "under a longreach method that computes attention, this model reads text alone; leave out images and videos"
                )
            position_ids = position_ids[0]
        size = self.sizes.get(layer_type)
        if size is None:
            size = self.sizes[layer_type] = table(self.original, x, position_ids[:, :1], layer_type)[0].shape[-1]
        shape = (*position_ids.shape, size)
        return x.new_ones(1).expand(shape), x.new_zeros(1).expand(shape)


def table(rotary: nn.Module, x: Tensor, positions: Tensor, layer_type: str | None) -> tuple[Tensor, Tensor]:
    """The model's own cos and sin [B, T, R or R/2] at `positions` [B, T]; x gives dtype and device."""
    cos, sin = rotary(x, positions, layer_type) if layer_type is not None else rotary(x, positions)
    return cos, sin


def turns_by(rotary: nn.Module, inv_freq: Tensor, factor: float, layer_type: str | None, position: int) -> bool:
    """Whether a rotary module gives cos of these frequencies [R / 2], times the factor, at a position; True for modules of another form."""
    x = torch.zeros(1, device=getattr(rotary, f"{layer_type}_inv_freq" if layer_type else "inv_freq").device)
    try:
        cos, _ = table(rotary, x, torch.tensor([[position]], device=x.device), layer_type)
    except (IndexError, RuntimeError, TypeError, ValueError):  # positions of several dimensions, complex tables, other arguments
        return True
    wanted, found = (position * inv_freq.double().cpu()).cos() * factor, cos.flatten().double().cpu()
    forms = [wanted, torch.cat([wanted, wanted]), wanted.repeat_interleave(2)]
    known = [form for form in forms if form.shape == found.shape]
    return not known or any(torch.allclose(found, form, rtol=0, atol=1e-2) for form in known)


def table_in_text(rotary: nn.Module, x: Tensor, positions: Tensor, layer_type: str | None, tokens: int) -> tuple[Tensor, Tensor]:
    """`table` within a text that has `tokens` tokens so far: the model's frequencies for that text, wherever in it the positions are.

    Some embeddings (dynamic, longrope) choose by the largest position that they are asked for, and a policy may move all of them to the
    front, or ask for those of the queries alone.
    """
    if not _follows_length(rotary, layer_type):
        return table(rotary, x, positions, layer_type)
    last = positions.new_full((positions.shape[0], 1), tokens - 1)
    cos, sin = table(rotary, x, torch.cat([positions, last], -1), layer_type)
    return cos[:, :-1], sin[:, :-1]


def _follows_length(rotary: nn.Module, layer_type: str | None) -> bool:
    """Whether a rotary module changes its frequencies with the largest position that it is asked for."""
    kind: Any = getattr(rotary, "rope_type", None)
    kind = kind.get(layer_type) if isinstance(kind, dict) else kind
    return kind == "longrope" or "dynamic" in (kind or "")


@contextmanager
def length_kept(model: PreTrainedModel) -> Iterator[None]:
    """What rotary modules that follow the length remember of the last text is afterwards as it was before."""
    kept = []
    for _, _, rotary in rotary_modules(model):
        kinds: Any = getattr(rotary, "rope_type", None)
        if any(_follows_length(rotary, key) for key in (kinds if isinstance(kinds, dict) else (None,))):
            values = {name: value for name, value in vars(rotary).items() if name.endswith(("inv_freq", "max_seq_len_cached"))}
            kept.append((rotary, values, [(name, buffer, buffer.clone()) for name, buffer in rotary.named_buffers(recurse=False)]))
    try:
        yield
    finally:
        for rotary, values, buffers in kept:
            for name in [name for name in vars(rotary) if name.endswith("inv_freq") and name not in values]:
                delattr(rotary, name)
            vars(rotary).update(values)
            for name, buffer, content in buffers:
                rotary._buffers[name] = buffer.copy_(content)


def exact_angles(rotary: nn.Module, x: Tensor, positions: Tensor, layer_type: str | None, tokens: int) -> tuple[Tensor, Tensor]:
    """cos and sin [B, T, R/2] of the angles computed in float64, for positions where float32 blurs them; x gives dtype and device.

    tokens: that the text has so far.
    """
    table_in_text(rotary, x, positions[:, :1], layer_type, tokens)  # sets frequencies that hang on it
    prefix = f"{layer_type}_" if layer_type is not None else ""
    inv_freq: Tensor = getattr(rotary, f"{prefix}inv_freq")
    positions = positions.cpu().double()[..., None]  # some devices have no float64
    angles = positions * inv_freq.cpu().double()
    factor = getattr(rotary, f"{prefix}attention_scaling", 1.0)
    if (kept := vars(rotary).get(UNSCALED)) and kept.prefix == prefix:
        first = positions < kept.tokens
        angles = torch.where(first, positions * kept.inv_freq.cpu().double(), angles)
        factor = torch.where(first, kept.factor, factor)
    return (angles.cos() * factor).to(x), (angles.sin() * factor).to(x)


UNSCALED = "longreach_unscaled"


@dataclass(frozen=True, slots=True)
class UnscaledEmbedding:
    """First tokens that a rotary module leaves unscaled.

    Args: tokens: how many. inv_freq, factor: theirs, the latter on cos and sin. prefix: of the names of what they do not use.
    """

    tokens: int
    inv_freq: Tensor
    factor: float
    prefix: str


@contextmanager
def unscaled_tokens(rotary: nn.Module, own: UnscaledEmbedding) -> Iterator[None]:
    """Inside, the first positions of a rotary module have frequencies and a factor of their own.

    Source: equation 3 of arXiv:2402.13753. A token is rotated by its own position, so cached keys stay true.
    """
    plain, before = copy.copy(rotary), rotary.forward
    plain._buffers = {**rotary._buffers, f"{own.prefix}inv_freq": own.inv_freq}
    setattr(plain, f"{own.prefix}attention_scaling", own.factor)

    def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        which = () if layer_type is None else (layer_type,)
        scaled = before(x, position_ids, *which)
        if layer_type is not None and not own.prefix.startswith(layer_type):
            return scaled
        first = (position_ids < own.tokens)[..., None]
        cos, sin = (torch.where(first, kept, other) for kept, other in zip(plain(x, position_ids, *which), scaled, strict=True))
        return cos, sin

    rotary.forward = forward
    vars(rotary)[UNSCALED] = own
    try:
        yield
    finally:
        del rotary.forward, vars(rotary)[UNSCALED]


@contextmanager
def differentiable(model: PreTrainedModel, inv_freq: Tensor, factor: float) -> Iterator[None]:
    """Inside, the layers with full attention rotate by the frequencies `inv_freq` [R / 2] (times `factor` on cos and sin), by which a loss
    can be differentiated: rotary modules of transformers take no gradients of their own.
    """
    full = "full_attention"
    with ExitStack() as undo:
        for _, _, rotary in rotary_modules(model):
            layer_type = full if hasattr(rotary, f"{full}_inv_freq") else None
            _turn_by(rotary, inv_freq, factor, layer_type)
            undo.callback(vars(rotary).pop, "forward")
        yield


def _turn_by(rotary: nn.Module, inv_freq: Tensor, factor: float, layer_type: str | None) -> None:
    before, pairs = rotary.forward, inv_freq.shape[0]
    cos, _ = table(rotary, inv_freq.detach(), torch.arange(_PROBE_TOKENS, device=inv_freq.device)[None], layer_type)
    twice = cos.shape[-1] == 2 * pairs
    side_by_side = twice and torch.equal(cos[..., :pairs], cos[..., pairs:])

    def forward(x: Tensor, position_ids: Tensor, asked: str | None = None) -> tuple[Tensor, Tensor]:
        if asked != layer_type:
            found: tuple[Tensor, Tensor] = before(x, position_ids, asked)
            return found
        angles = position_ids[..., None].float() * inv_freq
        if twice:
            angles = torch.cat([angles, angles], -1) if side_by_side else angles.repeat_interleave(2, -1)
        return (angles.cos() * factor).to(x.dtype), (angles.sin() * factor).to(x.dtype)

    rotary.forward = forward


def rotary_modules(model: PreTrainedModel) -> list[tuple[nn.Module, str, nn.Module]]:
    """(owner, attribute, module) of every rotary embedding of the decoder; what sees or hears for it has others."""
    found = []
    for owner in (model.get_decoder() or model).modules():
        for name, child in owner.named_children():
            child = child.original if isinstance(child, IdentityRotary) else child
            if "rotary" in name and any(key.endswith("inv_freq") for key, _ in child.named_buffers(recurse=False)):
                found.append((owner, name, child))
    return found


@contextmanager
def identity_rotary(model: PreTrainedModel) -> Iterator[None]:
    """The model's rotary modules replaced by IdentityRotary."""
    modules = rotary_modules(model)
    for owner, name, original in modules:
        setattr(owner, name, IdentityRotary(original))
    try:
        yield
    finally:
        for owner, name, original in modules:
            setattr(owner, name, original)


Capture = Callable[..., tuple[Tensor, None]]


def probe(model: PreTrainedModel, run_with: Callable[[Capture, Tensor], None]) -> list[Attention]:
    """Learn every attention layer's rotation. `run_with(f, ids)` runs the model on ids with the attention function f.

    Raises: UnsupportedError for a layer whose rotation is none of the known ones.
    """
    device = next(model.parameters()).device
    ids = (torch.arange(_PROBE_TOKENS, device=device)[None] * 7 + 3) % model.config.get_text_config().vocab_size
    stock = _captured(run_with, ids)
    with identity_rotary(model):
        plain = _captured(run_with, ids)
    if len(stock) != len(plain) or not stock:
        raise refusal(model, f"its attention does not go through transformers' attention interface ({len(plain)} layers seen)")
    if len({getattr(module, "layer_idx", index) for index, (module, *_) in enumerate(stock)}) < len(stock):
        raise refusal(model, "several of its layers share the weights and the number of one attention")
    rotaries = [module for _, _, module in rotary_modules(model)]
    found = []
    for (module, q, k, options), (_, q0, k0, _) in zip(stock, plain, strict=True):
        if not options.get("is_causal", getattr(module, "is_causal", True)):
            raise refusal(model, "it is not a causal decoder")
        rotation = _fit(rotaries, model, (q0, k0), (q, k))
        # What is passed along counts, also None: some families keep the window on their full layers, too.
        window = options["sliding_window"] if "sliding_window" in options else getattr(module, "sliding_window", None)
        found.append(Attention(module, rotation, q.shape[1], k.shape[1], q.shape[-1], window))
    if not rotaries:
        raise refusal(model, "it has no rotary embedding")
    return found


def _captured(run_with: Callable[[Capture, Tensor], None], ids: Tensor) -> list[tuple[nn.Module, Tensor, Tensor, dict[str, Any]]]:
    seen = []

    def capture(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
        seen.append((module, query.detach().clone(), key.detach().clone(), options))
        b, h, t, _ = query.shape
        return value.new_zeros(b, t, h, value.shape[-1]), None

    with torch.no_grad():
        run_with(capture, ids)
    return seen


def _fit(rotaries: list[nn.Module], model: PreTrainedModel, plain: tuple[Tensor, Tensor], stock: tuple[Tensor, Tensor]) -> Rotation | None:
    if all(torch.equal(a, b) for a, b in zip(plain, stock, strict=True)):
        return None
    positions = torch.arange(_PROBE_TOKENS, device=plain[0].device)[None]
    types = list(dict.fromkeys(getattr(model.config.get_text_config(), "layer_types", None) or ()))
    best: tuple[float, Rotation] | None = None
    for index, rotary in enumerate(rotaries):
        nested = any("attention" in name for name, _ in rotary.named_buffers())
        for layer_type in types if nested else [None]:
            cos, sin = table(rotary, plain[0], positions, layer_type)
            for rotation in _candidates(index, layer_type):
                angles = rotation.angles(cos), rotation.angles(sin)
                if 2 * angles[0].shape[-1] > plain[0].shape[-1]:
                    continue
                error = max(float((rotation(a, *angles) - b).abs().max()) for a, b in zip(plain, stock, strict=True))
                if best is None or error < best[0]:
                    best = (error, rotation)
    scale = float(stock[0].abs().max())
    if best is None or best[0] > 1e-2 * scale or (plain[0].dtype == torch.float32 and best[0] > 1e-4 * scale):
        raise refusal(model, f"its rotary embedding is of no known form (closest differs by {best[0] if best else float('nan'):.2g})")
    return best[1]


def _candidates(rotary: int, layer_type: str | None) -> Iterator[Rotation]:
    for layout in ("half", "interleaved"):
        for form in ("cat", "repeat", "single"):
            for upcast in (False, True):
                yield Rotation(rotary, layout, form, layer_type, upcast)


def refusal(model: PreTrainedModel, why: str) -> UnsupportedError:
    """The error that says why the engine cannot run a model, and what can be done instead."""
    instead = "use a positions method, which needs no engine" if rotary_modules(model) else "choose a model with rotary positions"
    return UnsupportedError("the engine", type(model).__name__, why, instead)
