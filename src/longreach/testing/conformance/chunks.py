"""What holds for every method that has exact attention computed a few queries and keys at a time."""

from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from longreach.attention.base import Chunks
from longreach.core.errors import LongreachError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.tiled import Seen, Tiling, tiled_attention
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import (
    LENGTH,
    Check,
    cached_logits,
    close,
    first,
    left_padding,
    loss_gradients,
    require,
    same,
    written,
)
from longreach.testing.conformance.positions import refused_by_apply
from longreach.testing.models import random_ids, tiny_biased, tiny_learned, tiny_model

_EXACT = 1e-9
_DOUBLE = ("llama", "gemma3", "gpt_neox", "gpt2", "bert")  # with fused kernels of their own, which are exact in float64
_EAGER = ("gemma2", "gpt_oss")  # with soft caps or sinks, which have a softmax in float32
_LONG = 96


def check_tiles(method: Chunks) -> int:
    """Tiles give the definition in float64, values and gradients: of soft caps, sinks, groups of heads, and whoever sees whom."""
    compared = 0
    numbers = torch.Generator().manual_seed(0)
    new, held = 23, 31
    q, k, v, sinks = (
        torch.randn(*shape, generator=numbers, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 4, new, 6), (2, 2, held, 6), (2, 2, held, 5), (4,))
    )
    at, keys = torch.arange(new)[:, None] + held - new, torch.arange(held)
    causal = (keys <= at)[None, None].expand(2, 1, -1, -1)
    padded = causal & (keys >= torch.tensor([0, 12])[:, None])[:, None, None]
    masks = {
        "all": None,
        "causal": causal,
        "window": causal & (keys > at - 4),
        "padded": padded,
        "added": torch.randn(1, 4, new, held).double(),
    }
    for (name, mask), cap, given in product(masks.items(), (None, 1.5), (None, sinks)):
        leaves = [q, k, v] if given is None else [q, k, v, sinks]
        tiling = Tiling(method.sizes(), _tiles_of(mask), 0.4, cap)
        out = tiled_attention(q, k, v, tiling, given)
        wanted = _definition(q, k, v, mask, 0.4, cap, given)
        weights = torch.randn(out.shape, generator=numbers, dtype=torch.float64)
        what = f"{name}, soft cap {cap}, {'sinks' if given is not None else 'no sinks'}"
        compared += close(out.detach(), wanted.detach(), what, tolerance=_EXACT)
        ours, theirs = (torch.autograd.grad((each * weights).sum(), leaves) for each in (out, wanted))
        for a, b in zip(ours, theirs, strict=True):
            compared += close(a, b, f"{what}, gradients", tolerance=_EXACT)
    return compared


def check_chunked_models(method: Chunks) -> int:
    """Models give what they give by themselves, in padded batches, too."""
    return _compared(method, (*_DOUBLE, *_EAGER) if first(method) else _EAGER)


def check_default_chunks(method: Chunks) -> int:
    """The same under neutral settings."""
    return _compared(method, ("llama", "gemma2"))


def check_chunked_gradients(method: Chunks) -> int:
    """A loss has the gradients that it has by itself, also those of sinks."""
    compared, ids = 0, random_ids(2, LENGTH)
    for family in ("llama", "gpt_oss", "gemma2"):
        model = tiny_model(family)
        model, tolerance = (model.double(), _EXACT) if family == "llama" else (model, 2e-4)
        wanted = loss_gradients(model, ids)
        with apply(model, method):
            ours = loss_gradients(model, ids)
        require(family != "gpt_oss" or any("sinks" in name for name in wanted), "no sinks")
        for name, gradient in wanted.items():
            compared += close(ours[name], gradient, f"{family}, gradient of {name}", tolerance=tolerance)
    return compared


def check_chunked_decoding(method: Chunks) -> int:
    """Read in pieces and token by token, a text gives what it gives at once, and the same is written."""
    compared, ids = 0, random_ids(2, LENGTH)
    for family in ("llama", "gemma2", "gemma3"):
        model = tiny_model(family)
        text = written(model, ids)
        with apply(model, method):
            whole = cached_logits(model, ids, (LENGTH,))
            for sizes in ((20, 1, LENGTH), *([(1,) * LENGTH] if family == "llama" else ())):
                compared += close(cached_logits(model, ids, sizes), whole, f"{family}, {sizes[:3]}")
            compared += same(written(model, ids), text, f"{family}, written")
    return compared


def check_memory_of_chunks(method: Chunks) -> int:
    """No tensor is made, forwards or backwards, that grows with the square of the text; the plain model makes such."""
    model, ids = tiny_model("gemma2"), random_ids(1, _LONG)
    config = model.config
    rows, columns = (min(size, _LONG) for size in method.sizes())
    linear = max([_LONG * max(config.vocab_size, config.intermediate_size), *(parameter.numel() for parameter in model.parameters())])
    most = max(config.num_attention_heads * rows * columns, linear)
    with apply(model, method), _Largest() as ours:
        loss_gradients(model, ids)
    with _Largest() as plain:
        loss_gradients(model, ids)
    require(plain.numbers >= config.num_attention_heads * _LONG**2, "the plain model makes no logits")
    return require(ours.numbers <= most, f"a tensor of {ours.numbers} numbers, allowed {most}")


def check_chunks_are_undone(method: Chunks) -> int:
    """After the context, also one left by an exception, everything is as it was."""
    model, ids = tiny_model("gemma2"), random_ids(1, LENGTH)
    before, stock = snapshot(model), _outputs(model, ids, None)
    compared = 0
    try:
        with apply(model, method):
            _outputs(model, ids, None)
            raise KeyError("raised to leave the context")
    except KeyError:
        compared += unchanged(before, snapshot(model), "after an exception")
    return compared + same(_outputs(model, ids, None), stock, "after the context")


def check_what_has_no_chunks_is_refused(method: Chunks) -> int:
    """Dropout, attention weights, a learned bias, and methods that compute attention are refused."""
    compared, ids = 0, random_ids(1, LENGTH)
    model = tiny_model(attention_dropout=0.5)
    for change, given, words in ((model.train, {}, "dropout"), (model.eval, {"output_attentions": True}, "output_attentions")):
        change()
        try:
            with apply(model, method):
                model(ids, **given)
            raise AssertionError(f"{words}: not refused")
        except LongreachError as error:
            compared += require(words in str(error) and "\n" not in str(error), f"refused as {error}")
    try:
        with apply(tiny_model(), f"{method.spec}+log_n"):
            raise AssertionError("log_n: not refused")
    except LongreachError as error:
        compared += require("keep one of them" in str(error), f"refused as {error}")
    return compared + refused_by_apply(tiny_biased(), method, "encoder-decoder")


class _Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor holds that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() // leaf.element_size() for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return out


def _compared(method: Chunks, families: tuple[str, ...]) -> int:
    compared = 0
    for family in families:
        model = (tiny_learned if family in ("gpt2", "bert") else tiny_model)(family)
        model, tolerance = (model.double(), _EXACT) if family in _DOUBLE else (model, 1e-4)
        for mask in (None, left_padding((LENGTH, 20)), left_padding((LENGTH, 20)).flip(1)):
            ids = random_ids(2, LENGTH)
            real = torch.ones(2, LENGTH, dtype=torch.bool) if mask is None else mask.bool()
            wanted = _outputs(model, ids, mask)
            with apply(model, method):
                ours = _outputs(model, ids, mask)
            compared += close(ours[real], wanted[real], family, tolerance=tolerance)
    return compared


def _tiles_of(mask: Tensor | None) -> Seen:
    return lambda rows, columns: None if mask is None else mask[:, :, rows, columns]


def _definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None, sinks: Tensor | None) -> Tensor:
    """Softmax attention with all logits at once; a query that sees nothing gets zeros."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    logits = q @ k.transpose(2, 3) * scale
    if softcap is not None:
        logits = (logits / softcap).tanh() * softcap
    if mask is not None:
        logits = logits.masked_fill(~mask, -1e30) if mask.dtype == torch.bool else logits + mask
    if sinks is not None:
        logits = torch.cat([logits, sinks.view(1, -1, 1, 1).expand(*logits.shape[:3], 1)], -1)
    weights = logits.softmax(-1)[..., : k.shape[2]]
    if mask is not None and mask.dtype == torch.bool:
        weights = weights * mask
    return weights @ v


@torch.no_grad()
def _outputs(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    out = model(ids, attention_mask=mask)
    found: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found


def _has_chunks(method: Method) -> bool:
    return isinstance(method, Chunks)


CHECKS = (
    *(Check(run=check, applies=_has_chunks) for check in (check_tiles, check_chunked_models)),
    *(
        Check(run=check, applies=_has_chunks, tier="method")
        for check in (check_chunked_gradients, check_chunked_decoding, check_memory_of_chunks, check_chunks_are_undone)
    ),
    Check(run=check_default_chunks, applies=_has_chunks, settings="NEUTRAL"),
    Check(run=check_what_has_no_chunks_is_refused, applies=_has_chunks, tier="contract"),
)
