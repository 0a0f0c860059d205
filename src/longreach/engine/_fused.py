"""Attention over one piece with its log-sum-exp, and the exact merge of pieces that share a softmax."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PADDED = 8  # dimensions at a time: the kernel is slow on odd widths
_NARROW_ROWS = 64  # queries from which on keys narrower than values are widened for a kernel (measured on a CPU: 3 times as fast at 256)
_FOLDED_ROWS = 64  # queries up to which a mask for all heads is written out for each head of a group (measured on a CPU)
_EAGER_ROWS = 256  # bounds the logits alive at once where no fused kernel gives the log-sum-exp


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool = False, mask: Tensor | None = None, bias: Tensor | None = None,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Softmax attention of q [B, H, T, D] over k, v [B, K, S, D] (K divides H). Queries and keys may have another width than values.

    causal: square, query x sees keys y <= x. mask: bool [B, 1, T, S], True = sees. bias: [B | 1, H | 1, T, S] float32, added to the
    logits. Returns (out [B, H, T, D], lse [B, H, T] float32); a query that sees nothing has out 0 and lse -inf.
    """
    if not k.shape[2]:  # which kernels do not survive
        return q.new_zeros(*q.shape[:3], v.shape[3], dtype=v.dtype), q.new_full(q.shape[:3], float("-inf"), dtype=torch.float32)
    q = q.to(v.dtype)  # under autocast it was rotated in float32
    # The kernels read a vector as one piece, and do not say so where it is none.
    q, k, v = (x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous() for x in (q, k, v))
    if softcap is None and k.shape[-1] < v.shape[-1] and q.shape[2] >= _NARROW_ROWS:
        q, k = (torch.nn.functional.pad(x, (0, v.shape[-1] - x.shape[-1])) for x in (q, k))
    if softcap is None and k.shape[-1] == v.shape[-1] and not _needs_grad(bias):
        if q.device.type == "cpu":
            return _flash_cpu(q, k, v, scale, causal, mask, bias)
        fits = mask is None and bias is None and q.shape[-1] % 8 == 0 and q.shape[-1] <= 256
        if q.device.type == "cuda" and q.dtype != torch.float64 and fits and not _needs_grad(q, k, v):
            return _fused_cuda(q, k, v, scale, causal)
    if _needs_grad(q, k, v, bias) or q.shape[2] <= _EAGER_ROWS:
        return _eager(q, k, v, scale, causal, mask, bias, softcap, 0)
    parts = []
    for row in range(0, q.shape[2], _EAGER_ROWS):
        rows = slice(row, row + _EAGER_ROWS)
        seen, added = (None if tensor is None else tensor[:, :, rows] for tensor in (mask, bias))
        parts.append(_eager(q[:, :, rows], k, v, scale, causal, seen, added, softcap, row))
    return torch.cat([out for out, _ in parts], 2), torch.cat([lse for _, lse in parts], 2)


def _needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def _flash_cpu(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    b, h, t, d = q.shape
    groups = k.shape[1]
    if mask is not None:
        added = torch.zeros(mask.shape, dtype=q.dtype, device=q.device) if bias is None else bias
        bias = added.masked_fill(~mask, float("-inf"))
    fold = not causal and groups != h and (bias is None or bias.shape[1] == h or t <= _FOLDED_ROWS)
    if fold:  # the heads of a group become rows of one: keys are read once for all, several times faster for few queries
        q = q.reshape(b, groups, h // groups * t, d)
        bias = None if bias is None else _folded(bias, h, groups)
    if bias is not None and q.dtype == torch.float64:
        bias = bias.double()  # of other widths the kernel takes the bytes as they are, and does not say so
    out, lse = _FlashCpu.apply(q, k, v, bias, scale, causal) if _needs_grad(q, k, v) else _flash(q, k, v, bias, scale, causal)
    if mask is not None:  # the kernel reports lse 0 for a row that sees nothing
        lse = lse.reshape(b, h, t).masked_fill(~mask.any(-1), float("-inf"))
    return (out.reshape(b, h, t, d), lse.reshape(b, h, t)) if fold else (out, lse)


def _folded(bias: Tensor, heads: int, groups: int) -> Tensor:
    """A bias [B, H, T, S] by rows of a group, [B, K, H / K * T, S]; of one for all heads [B, 1, H / K * T, S]."""
    if bias.shape[1] == 1:
        return bias[:, :, None].expand(-1, -1, heads // groups, -1, -1).flatten(2, 3)
    return bias.reshape(bias.shape[0], groups, -1, bias.shape[3])


def _flash(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=bias, scale=scale)
    return out, lse


class _FlashCpu(torch.autograd.Function):
    """`_flash`, with the gradient through the log-sum-exp that the kernel's own backward pass lacks; none for the bias.

    With P the weights and O the output, the gradient of the logits is P (dO V^T - rowsum(dO O) + dlse). The kernel takes all but the
    last term; a dimension more in which dO is 1, O is -dlse and V is 0 gives it that one, too.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = _flash(q, k, v, bias, scale, causal)
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.scale, ctx.causal = scale, causal
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, out, lse = ctx.saved_tensors
        width = q.shape[-1]
        grad_out, out, q, k, v = (torch.nn.functional.pad(x, (0, _PADDED)) for x in (grad_out, out, q, k, v))
        grad_out[..., width] = 1
        out[..., width] = -grad_lse.to(out.dtype)
        grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad_out, q, k, v, out, lse, 0.0, ctx.causal, attn_mask=bias, scale=ctx.scale
        )
        return (*(grad[..., :width] for grad in grads), None, None, None)


def _fused_cuda(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    if q.dtype in (torch.float16, torch.bfloat16):
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
        return out, lse
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
    return out, lse[:, :, : q.shape[2]]  # padded to a multiple of 32


def _eager(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, mask: Tensor | None, bias: Tensor | None, softcap: float | None, row: int
) -> tuple[Tensor, Tensor]:
    b, h, t, d = q.shape
    groups, s = k.shape[1], k.shape[2]
    logits = (q.reshape(b, groups, h // groups * t, d) @ k.mT).view(b, h, t, s)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias
    if causal:
        seen = torch.ones(t, s, dtype=torch.bool, device=q.device).tril(row)
        mask = seen if mask is None else mask & seen
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    lse = logits.logsumexp(-1)
    # A row that sees nothing has lse -inf; subtracting 0 there keeps its weights, and its gradient, at 0 instead of nan.
    weights = torch.exp(logits - lse.masked_fill(lse == float("-inf"), 0.0)[..., None])
    out = weights.to(v.dtype).view(b, groups, h // groups * t, s) @ v
    return out.view(b, h, t, v.shape[-1]), lse


class Merge:
    """Gathers pieces for queries [B, H, Q, D]: one softmax over the union of their keys."""

    def __init__(self) -> None:
        self._out: Tensor | None = None
        self._lse: Tensor | None = None

    def add(self, out: Tensor, lse: Tensor, rows: slice, total: int) -> None:
        """Add a piece computed for the query rows `rows` of `total`."""
        whole = out.shape[2] == total
        if self._out is None or self._lse is None:
            if whole:
                self._out, self._lse = out, lse
                return
            b, h, _, d = out.shape
            self._out = out.new_zeros(b, h, total, d)
            self._lse = lse.new_full((b, h, total), float("-inf"))
        if whole:
            self._out, self._lse = _merged(self._out, self._lse, out, lse)
            return
        new_out, new_lse = _merged(self._out[:, :, rows], self._lse[:, :, rows], out, lse)
        if torch.is_grad_enabled() and (new_out.requires_grad or self._out.requires_grad):
            self._out, self._lse = self._out.clone(), self._lse.clone()
        self._out[:, :, rows], self._lse[:, :, rows] = new_out, new_lse

    def lse(self, sink_logits: Tensor | None) -> Tensor:
        """Log-sum-exp [B, H, Q] of the whole softmax, learned logits that give nothing included."""
        assert self._lse is not None  # noqa: S101 - every query sees itself
        return self._lse if sink_logits is None else torch.logaddexp(self._lse, sink_logits.float()[None, :, None])

    def result(self, sink_logits: Tensor | None, like: Tensor) -> Tensor:
        """Attention output [B, H, Q, D]. sink_logits [H]: learned logits that take weight and give nothing (GPT-OSS)."""
        if self._out is None or self._lse is None:
            return torch.zeros_like(like)
        if sink_logits is None:
            return self._out
        share = torch.sigmoid(self._lse - sink_logits.float()[None, :, None])
        return self._out * share[..., None].to(self._out.dtype)


def _merged(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.logaddexp(lse, other_lse)
    safe = total.masked_fill(total == float("-inf"), 0.0)  # rows that see nothing so far stay 0
    mine, theirs = torch.exp(lse - safe), torch.exp(other_lse - safe)
    return out * mine[..., None].to(out.dtype) + other * theirs[..., None].to(out.dtype), total
