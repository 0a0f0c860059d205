"""Whether the weights of all distances have a finite sum, and how many of the nearest hold most of it: numerics for any bias.

The first 65,536 weights are summed one by one, and every octave of distances up to 2^52 by Gauss-Legendre quadrature. As all weights are
positive, their series converges exactly if that of its octaves does (Cauchy's condensation), and that is put to the ratio test and,
where octaves shrink ever more slowly, to Raabe's. Sums are kept as logarithms.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

LogWeights = Callable[[Tensor], Tensor]  # distances [N] float64, whole or between -> log of the weights [H, N] float64

_EXACT = 16  # octaves that are summed weight by weight
_LAST = 52  # beyond it, neighbouring distances are one float64
_PIECES = 16  # of an octave
_NODES = 16  # of a piece
_EARLY, _MIDDLE, _LATE = (21, 33), (27, 39), (39, 51)  # octaves over which slopes are taken
_STEADY = 1e-5  # nats an octave below which a slope counts as 0: what float32 biases leave of it
_RAABE = 0.1  # to each side of 1, where Raabe's test is left undecided


@dataclass(frozen=True, kw_only=True)
class Field:
    """What the weights of one head say.

    Args: converges: None where the tests cannot tell. tokens: the receptive field; infinite where the series diverges, None where it is
    not known, or ends beyond 2^52. exact: `tokens` is right to the token, but for rounding.
    """

    converges: bool | None
    tokens: float | None
    exact: bool


def fields_of(log_weights: LogWeights, epsilon: float) -> list[Field]:
    """The receptive field of each head: the least n for which the weights of the distances below n hold 1 - epsilon (0 to 1) of the whole.

    Exponents of a power of the distance that differ by less than 1e-5 from where convergence begins count as there.
    """
    near = log_weights(torch.arange(2**_EXACT, dtype=torch.float64))
    edges = _edges()
    pieces = torch.stack([_mass(log_weights, float(a), float(b)) for a, b in pairwise(edges)], -1)  # [H, P]

    def mass(head: int, begin: float, end: float) -> Tensor:
        return _mass(log_weights, begin, end)[head]

    return [_Head(near[head], pieces[head], partial(mass, head)).field(epsilon) for head in range(len(near))]


def _edges() -> list[int]:
    """Where the pieces of the octaves from the exact part to the last begin, and where the last one ends."""
    starts = [2**octave + piece * 2**octave // _PIECES for octave in range(_EXACT, _LAST) for piece in range(_PIECES)]
    return [*starts, 2**_LAST]


def _mass(log_weights: LogWeights, begin: float, end: float) -> Tensor:
    """log of the sum over the whole distances from `begin` to below `end`, as an integral between the halves [H]."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(_NODES))
    half = (end - begin) / 2
    return (log_weights(begin - 0.5 + half * (1 + nodes)) + (weights * half).log()).logsumexp(-1)


class _Head:
    """One head's sums. near: log weights [2^16]. pieces: log masses beyond [P]. mass: (begin, end) -> log mass between."""

    def __init__(self, near: Tensor, pieces: Tensor, mass: Callable[[float, float], Tensor]) -> None:
        self.near, self.pieces, self.mass = near, pieces, mass
        first = [near[2**octave : 2 ** (octave + 1)].logsumexp(0) for octave in range(_EXACT)]
        self.octaves = torch.cat([torch.stack(first), pieces.view(-1, _PIECES).logsumexp(-1)]).tolist()  # log masses

    def field(self, epsilon: float) -> Field:
        converges, beyond = self._test()
        if converges is None:
            return Field(converges=None, tokens=None, exact=False)
        if not converges:
            return Field(converges=False, tokens=math.inf, exact=True)
        last = torch.tensor([beyond], dtype=torch.float64)
        far = torch.cat([self.pieces, last]).flip(0).logcumsumexp(0).flip(0)  # what lies beyond the begin of each piece
        left = torch.cat([self.near, far[:1]]).flip(0).logcumsumexp(0).flip(0)  # beyond each distance
        allowed = float(left[0]) + math.log(epsilon)
        if float(left[-1]) <= allowed:
            return Field(converges=True, tokens=float((left > allowed).sum()), exact=True)
        if beyond > allowed:
            return Field(converges=True, tokens=None, exact=False)
        edges, piece = _edges(), int((far > allowed).sum()) - 1
        low, high, after = edges[piece], edges[piece + 1], float(far[piece + 1])
        while high - low > 1:
            middle = (low + high) // 2
            rest = float(torch.logaddexp(self.mass(float(middle), float(edges[piece + 1])), torch.tensor(after).double()))
            low, high = (middle, high) if rest > allowed else (low, middle)
        return Field(converges=True, tokens=float(high), exact=False)

    def _test(self) -> tuple[bool | None, float]:
        """Whether the octaves' series converges, and the log of its mass beyond the last octave."""
        octaves = self.octaves
        if any(math.isnan(mass) or mass == math.inf for mass in octaves):
            return None, math.nan
        if octaves[-1] == -math.inf:  # cut off, or smaller than any power of the distance by far
            return True, -math.inf
        early, late = (_slope(octaves, *span) for span in (_EARLY, _LATE))
        if late > -_STEADY:  # octaves do not shrink: unless they are about to
            return (False, math.inf) if late >= _slope(octaves, *_MIDDLE) - _STEADY else (None, math.nan)
        if late <= 0.9 * min(early, 0.0) and (early < -_STEADY or late < -100 * _STEADY):
            step = octaves[-1] - octaves[-2]
            return (True, octaves[-1] + step - math.log1p(-math.exp(step))) if step < 0 else (None, math.nan)
        early, late = (_power(octaves, *span) for span in (_EARLY, _LATE))
        if min(early, late) > 1 + _RAABE and late > early - _RAABE:
            return True, octaves[-1] + late * math.log(_LAST - 0.5) + (1 - late) * math.log(_LAST) - math.log(late - 1)
        if max(early, late) < 1 - _RAABE and late < early + _RAABE:
            return False, math.inf
        return None, math.nan


def _slope(octaves: list[float], first: int, last: int) -> float:
    """How the log masses grow an octave."""
    return (octaves[last] - octaves[first]) / (last - first)


def _power(octaves: list[float], first: int, last: int) -> float:
    """The p for which masses shrink as the p-th power of the octave's number."""
    return (octaves[first] - octaves[last]) / math.log((last + 0.5) / (first + 0.5))
