"""Extractor: in place of attention, a learned sum of the last values, times the query, element by element.

Paper: Attention Is Not All You Need Anymore, 2023, arXiv:2308.07661; Interpretation of the Transformer and Improvement of the Extractor,
2023, arXiv:2311.12678
Cost: a query reads the last `length` values, in time that hardly grows with `length` where many are read at once; a cache of `length`
tokens. Weights of its own, of each head: for `she` a matrix for each distance, for `he` a vector, for `we` a number, for `me` none.
Limits: a model has to be trained under it. A query sees nothing that is `length` or more tokens back.
Differs from the paper: its text could not be had. The sum over matrices, its division by the root of how many values it is of (the second
paper), and the product with the projected input are those of a port of the super high-performance extractor (`she`); `he`, `we` and `me`
are read off the abstract, which says no more than that each is simpler and costs less. Weights belong to distances, where the port has one
for each place of a text of fixed length. There are heads: queries and values are the model's, a matrix stays within its head, and the
model's output projection follows. A model's learned sinks, where it has some, take weight as they do beside a softmax whose log-sum-exp
is 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from longreach.attention.base import Places, Vectors
from longreach.core.bands import Computed, Constant, LayerContext, QueryRun
from longreach.core.errors import LongreachError
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

_FEW = 4  # queries that are computed one by one, as when a text is written
_ROWS = 4096  # queries that are computed together, about
# Of values at t - l and the taps for l, the sum over l; and of their spectra, the product.
_SUMS = {"he": "bhtdl,hld->bhtd", "we": "bhtdl,hl->bhtd"}
_PRODUCTS = {"she": "bhndf,hfde->bhnef", "he": "bhndf,hfd->bhndf", "we": "bhndf,hf->bhndf"}

_BETTER = Claim(
    text="replacing self-attention with the SHE evidently improves the performance of the transformer",
    metric="costs_inside_above_full",
    condition="trained",
    at_most=0.0,
)
_CLOSE = Claim(
    text="the HE, the WE and the ME perform close to or better than self-attention",
    metric="costs_inside_above_full",
    condition="trained",
    at_most=0.05,
)


@dataclass(frozen=True, kw_only=True)
class Extractor(Places):
    """Args: length: values that a query sees, its own included (>= 1). form: super high-performance, higher-performance, worthwhile or
    minimalist: a value is weighed by a matrix for its distance, by a vector, by a number, or not at all.
    """

    info: ClassVar = MethodInfo(
        title="Attention Is Not All You Need Anymore",
        paper="arXiv:2308.07661",
        training_free=False,
        bounded_memory=True,
        forgets=True,
        claims=(_BETTER, _CLOSE),
    )
    weights_alone: ClassVar[bool] = False
    length: int = 128
    form: Literal["she", "he", "we", "me"] = "she"

    def __post_init__(self) -> None:
        at_least(self, 1, "length")
        self.declare(claims=(_BETTER if self.form == "she" else _CLOSE,))

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`taps` of each head and distance, [H, length] and a matrix, a vector or nothing of the head's size.

        They are such that a sum of independent values varies as much as one of them.
        """
        if self.form == "me":
            return {}
        size = {"she": 2, "he": 1, "we": 0}[self.form] * (layer.head_dim,)
        taps = torch.randn(layer.num_heads, self.length, *size)
        return {"taps": taps / math.sqrt(layer.head_dim) if self.form == "she" else taps}

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The last values, without positions."""
        return (Computed(_Extraction(self, layer), positions=Constant(0), normalised=True, reach=self.length - 1),)

    def keys_read(self, i: Tensor) -> Tensor:
        """As many as there are up to the length."""
        return (i + 1).clamp(max=self.length)

    def outputs(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor:
        """Query by query."""
        padding = int((j < 0).sum())
        q, v, rows = vectors.rotated(vectors.q, 0 * i[:, 0]), vectors.v, []
        for query in range(q.shape[1]):
            begin = max(padding, query + 1 - self.length)
            seen = v[:, begin : query + 1].flip(1)  # by distance
            if self.form != "me":
                taps = vectors.layer.weights["extractor.taps"].double()[:, : seen.shape[1]]
                if self.form == "we":
                    taps = taps[..., None]
                seen = (seen[..., None] * taps).sum(2) if self.form == "she" else seen * taps
            rows.append(q[:, query] * seen.sum(1) / max(1, query + 1 - begin) ** 0.5)
        return torch.stack(rows, 1)


@dataclass(frozen=True)
class _Extraction:
    """Reads the last values."""

    policy: Extractor
    layer: LayerContext

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """So many queries at a time."""
        count, reach = run.q.shape[2], min(self.policy.length, run.first + run.q.shape[2])
        if run.q.shape[3] != run.values.shape[3]:
            what = f"queries have {run.q.shape[3]} dimensions and values {run.values.shape[3]}"
            raise LongreachError(f"extractor: in this model {what}, which cannot be multiplied element by element")
        repeats, exact = run.q.shape[1] // run.keys.shape[1], torch.promote_types(run.values.dtype, torch.float32)
        behind = min(run.first, reach - 1)
        values = pad(run.values[:, :, run.values.shape[2] - count - behind :].repeat_interleave(repeats, 1), (0, 0, reach - 1 - behind, 0))
        taps = None if self.policy.form == "me" else self.layer.weights["extractor.taps"][:, :reach].to(exact)
        size = 1 << (reach + min(reach, count) - 2).bit_length()  # room for what as many queries see together as one sees values
        share = size - reach + 1
        step = max(1, _ROWS // share) * share
        spectrum = None if taps is None or count <= _FEW else torch.fft.rfft(taps, size, 1)
        for row in range(0, count, step):
            rows = slice(row, min(row + step, count))
            sums = self._sums(values[:, :, row : rows.stop + reach - 1].to(exact), reach, taps, spectrum, size)
            number = torch.arange(run.first + row, run.first + rows.stop, device=sums.device)[:, None] + 1
            out = run.q[:, :, rows].to(exact) * sums * number.clamp(max=reach).to(exact).rsqrt()
            yield rows, out.to(run.values.dtype), out.new_zeros(out.shape[:3])

    def _sums(self, seen: Tensor, reach: int, taps: Tensor | None, spectrum: Tensor | None, size: int) -> Tensor:
        """Of each `reach` values of `seen` [B, H, W, D] that follow on one another, [B, H, W - reach + 1, D].

        spectrum: of the taps, over `size` places; None: they are to be used as they are.
        """
        form, count = self.policy.form, seen.shape[2] - reach + 1
        with torch.autocast(seen.device.type, enabled=False):
            if taps is None:
                return _moving(seen, reach)
            if spectrum is None:
                near = seen.unfold(2, reach, 1).flip(4)
                if form != "she":
                    return torch.einsum(_SUMS[form], near, taps)
                # Matrices, which may be large, are read where they lie.
                by_head = near.mT.flatten(3).transpose(0, 1).flatten(1, 2) @ taps.flatten(1, 2)
                return by_head.unflatten(1, (len(seen), -1)).transpose(0, 1)
            share = size - reach + 1
            parts = pad(seen, (0, 0, 0, -count % share)).unfold(2, size, share)
            found = torch.fft.irfft(torch.einsum(_PRODUCTS[form], torch.fft.rfft(parts), spectrum), size)
            # What is wrapped around falls on the values before the first query of a part.
            return found[..., reach - 1 :].mT.flatten(2, 3)[:, :, :count]


def _moving(x: Tensor, reach: int) -> Tensor:
    """The sums of each `reach` vectors of x [..., W, D] that follow on one another, [..., W - reach + 1, D].

    Each is the end of one block and the beginning of the next, so that nothing is subtracted, however long the text.
    """
    count = x.shape[-2] - reach + 1
    blocks = pad(x, (0, 0, 0, reach - x.shape[-2] % reach)).unflatten(-2, (-1, reach))
    ends = blocks.flip(-2).cumsum(-2).flip(-2).flatten(-3, -2)
    begins = pad(blocks.cumsum(-2), (0, 0, 1, -1)).flatten(-3, -2)
    return ends[..., :count, :] + begins[..., reach : reach + count, :]


METHOD = Extractor
EXAMPLES = (
    Extractor(length=12),
    Extractor(length=7, form="he"),
    Extractor(length=40, form="we"),
    Extractor(length=5, form="me"),
)
NEUTRAL = ()
BAD = ({"length": 0}, {"form": "it"})
