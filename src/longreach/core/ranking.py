"""Which scores are highest, in every way to compute them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_DIGITS = 10  # binary digits of a score that count


def coarse(score: "Tensor") -> "Tensor":
    """Scores to so many binary digits: what is equal but for rounding is equal, in every way to compute it."""
    import torch

    mantissa, exponent = torch.frexp(score)
    return torch.ldexp((mantissa * 2**_DIGITS).round() / 2**_DIGITS, exponent)


def highest(score: "Tensor", index: "Tensor", count: "int | Tensor") -> "Tensor":
    """Where the `count` highest of the scores [..., n] are, bool; of equal ones the later tokens. index: below 0 where there is none.

    count: also one for each row, [...].
    """
    import torch

    most = min(count if isinstance(count, int) else int(count.max()), index.shape[-1])
    best = ranking(score, index).topk(most, dim=-1).indices
    chosen = torch.ones_like(best, dtype=torch.bool)
    if isinstance(count, torch.Tensor):
        chosen = (torch.arange(most, device=index.device) < count[..., None]).expand_as(best)
    return torch.zeros_like(index, dtype=torch.bool).scatter(-1, best, chosen) & (index >= 0)


def ranking(score: "Tensor", index: "Tensor") -> "Tensor":
    """Whole numbers in the order of the scores, and of equal ones in that of the index; no two are equal. Below all where that is < 0."""
    import torch

    bits = coarse(score).float().view(torch.int32).long()
    ordered = torch.where(bits < 0, -2147483648 - bits, bits)  # negative floats count backwards; -0.0 is 0.0
    return (ordered << 32 | index).masked_fill(index < 0, torch.iinfo(torch.int64).min)
