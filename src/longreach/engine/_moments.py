"""Mean and covariance of the queries that a text was read with, as sums that grow."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from longreach.engine._channels import Change


@dataclass(frozen=True, kw_only=True)
class QueryMoments:
    """Of unrotated queries, in float64. count: of them. total: [B, H, D]. products: [B, H, D, D], the sum of each with itself."""

    count: int
    total: Tensor
    products: Tensor

    @classmethod
    def of(cls, q: Tensor) -> Self:
        """q [B, H, n, D]."""
        q = q.double()
        return cls(count=q.shape[2], total=q.sum(2), products=q.mT @ q)

    def __add__(self, other: Self) -> Self:
        count, total = self.count + other.count, self.total + other.total
        return type(self)(count=count, total=total, products=self.products + other.products)

    @property
    def mean(self) -> Tensor:
        """[B, H, D]; 0 of no queries."""
        return self.total / max(1, self.count)

    @property
    def covariance(self) -> Tensor:
        """[B, H, D, D], divided by their number."""
        return self.products / max(1, self.count) - self.mean[..., None] * self.mean[..., None, :]

    def changed(self, change: Change) -> Self:
        """Those of other rows of the batch."""
        return type(self)(count=self.count, total=change(self.total), products=change(self.products))
