"""Which scores are highest, in every way to compute them."""

import torch
from torch import Tensor

_DIGITS = 10  # binary digits of a score that count


def coarse(score: Tensor) -> Tensor:
    """Scores to so many binary digits: what is equal but for rounding is equal, in every way to compute it."""
    mantissa, exponent = torch.frexp(score)
    return torch.ldexp((mantissa * 2**_DIGITS).round() / 2**_DIGITS, exponent)


def highest(score: Tensor, index: Tensor, count: int | Tensor) -> Tensor:
    """Where the `count` highest of the scores [..., n] are, bool; of equal ones the later tokens. index: below 0 where there is none.

    count: also one for each row, [...].
    """
    score = coarse(score).masked_fill(index < 0, float("-inf"))
    order = index.sort(dim=-1, descending=True, stable=True).indices
    order = order.gather(-1, score.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices)
    counts = torch.as_tensor(count, device=index.device)[..., None]
    best = (torch.arange(index.shape[-1], device=index.device) < counts).expand_as(index)
    return torch.zeros_like(best).scatter(-1, order, best) & (index >= 0)
