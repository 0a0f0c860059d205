"""Which inserted tokens a forward pass reads, behind those of the text."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from longreach.core.errors import LongreachError


@dataclass(frozen=True, eq=False)
class NewInserted:
    """Inserted tokens that a forward pass reads behind its tokens of the text, as many in every row: some rows have empty seats at the end.

    Args: first: the number of each row's first. counts: how many each row has.
    """

    first: Sequence[int]
    counts: Sequence[int]

    @cached_property
    def width(self) -> int:
        """Seats of a row."""
        return max(self.counts)

    @cached_property
    def alike(self) -> bool:
        """Whether every row has the same."""
        return len(set(zip(self.first, self.counts, strict=True))) == 1

    def row(self, index: int) -> "NewInserted":
        """Those of one row."""
        return NewInserted(self.first[index : index + 1], self.counts[index : index + 1])

    def numbers(self, device: torch.device) -> Tensor:
        """Of rows that have the same: [M]."""
        return torch.arange(self.first[0], self.first[0] + self.counts[0], device=device)


# Those of the forward pass under way: its masks remember them, for what is computed again for its gradients.
NEW: ContextVar[NewInserted | None] = ContextVar("inserted tokens of the forward pass under way", default=None)


def seats() -> int:
    """How many tokens of the forward pass under way are none of the text's."""
    new = NEW.get()
    return 0 if new is None else new.width


def of_mask(spec: object) -> NewInserted | None:
    """Those that a mask remembers. Raises: LongreachError where some are under way, and the mask does not know of them."""
    new: NewInserted | None = getattr(spec, "inserted", None)
    if new is None and NEW.get() is not None:
        raise LongreachError("this model makes no attention mask where inserted tokens would be told of; choose another method")
    return new
