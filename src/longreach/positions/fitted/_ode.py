"""The ordinary differential equation of CLEX: how the logarithms of rotary frequencies move with the factor of the length.

Source: arXiv:2310.16450 and its official code. With x = log theta(t), a(t) = log of the NTK-aware frequencies for the factor 2 t - 1, and a
network f of two linear maps with SiLU between them, dx/dt = f(x + a(t)) + da/dt. The second term is integrated by itself: x = y + a,
dy/dt = f(y + 2 a(t)), y(1) = 0. So a network of zeros gives NTK-aware scaling exactly, and the factor 1 the model's own frequencies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.positions.base import Rope

_STEP = 0.05  # of the factor: below 1e-6 of a frequency from the exact solution, for networks as they come out of a fit


@dataclass(frozen=True)
class Network:
    """f(x) = SiLU(x up) down. Args: up [dim / 2, width * dim], down [width * dim, dim / 2], float64."""

    up: Tensor
    down: Tensor

    @classmethod
    def new(cls, dim: int, width: int, seed: int) -> "Network":
        """As the official code begins: the first map uniform, the second of zeros."""
        inner = width * dim
        uniform = torch.rand(dim // 2, inner, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return cls((2 * uniform - 1) / math.sqrt(inner), torch.zeros(inner, dim // 2, dtype=torch.float64))

    def __call__(self, x: Tensor) -> Tensor:
        """x [dim / 2]."""
        return torch.nn.functional.silu(x @ self.up) @ self.down


def frequencies(rope: Rope, network: Network | None, factor: float, step: float = _STEP) -> Tensor:
    """[dim / 2] radians a token at a factor >= 1, float64; can be differentiated by the network's maps."""
    plain = rope.inv_freq().double().log()
    exponents = torch.arange(0, rope.dim, 2, dtype=torch.float64) / (rope.dim - 2)

    def ntk(t: float) -> Tensor:
        return plain - exponents * math.log(2 * t - 1)

    if network is None:
        return ntk(factor).exp()
    y = runge_kutta(lambda t, y: network(y + 2 * ntk(t)), torch.zeros_like(plain), 1.0, factor, max(1, math.ceil((factor - 1) / step)))
    return (y + ntk(factor)).exp()


def runge_kutta(slope: Callable[[float, Tensor], Tensor], y: Tensor, start: float, end: float, steps: int) -> Tensor:
    """y at `end` of dy/dt = slope(t, y) with y at `start`, by the classical method of fourth order."""
    h = (end - start) / steps
    for number in range(steps):
        t = start + number * h
        k1 = slope(t, y)
        k2 = slope(t + h / 2, y + h / 2 * k1)
        k3 = slope(t + h / 2, y + h / 2 * k2)
        k4 = slope(t + h, y + h * k3)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y
