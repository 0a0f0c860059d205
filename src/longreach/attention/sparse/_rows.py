"""Rows of keys or values that each head chose, copied together."""

import torch
from torch import Tensor

_NUMBERS = 2**20  # that are copied at once: larger copies cost more for each, in memory that has to be found anew


def at_once(row: int) -> int:
    """Choices to copy together where one of them is so many numbers."""
    return max(1, _NUMBERS // row)


def chosen_rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows `index` [B, H, n, P] of x [B, K, m, *rest], head by head: [B, H, n, P, *rest].

    Whole rows are copied, where indexing with several tensors would go number by number: on a CPU several times slower.
    """
    b, heads, n, places = index.shape
    rest, each, index = x.shape[3:], x.flatten(0, 1), index.reshape(b * x.shape[1], -1)
    if torch.is_grad_enabled() and x.requires_grad:
        rows = torch.stack([part.index_select(0, some) for part, some in zip(each, index, strict=True)])
    else:
        rows = x.new_empty(*index.shape, *rest)
        for part, some, out in zip(each, index, rows, strict=True):
            torch.index_select(part, 0, some, out=out)
    return rows.view(b, heads, n, places, *rest)
