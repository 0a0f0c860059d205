"""What queries leave with the keys that they see: how much attention each got, and when and how often it was among the first of a query."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from longreach.core.ranking import coarse

if TYPE_CHECKING:
    from longreach.engine._cuts import Run

RECEIVED = "received"  # the channel of the attention that tokens got so far, [B, K, n, 1] float32
ATTENDED = "attended"  # the channel of the last query that attended to tokens, as its slot + 1, and of how many did, [B, K, n, 2] float32
ACCOUNTS = {RECEIVED: 1, ATTENDED: 2}  # and how wide their channels are
_ROWS = 256  # queries whose weights are computed again at once

Weights = tuple[slice, Tensor, Tensor | None]  # rows of a run, their weights [B, K, G, r, n] float32, and which keys they see, [r, n]


@dataclass(frozen=True, slots=True)
class Softmax:
    """That of a layer."""

    scale: float = 1.0
    softcap: float | None = None

    def weights(self, run: "Run[Any]", keys: Tensor, first: int | None) -> Iterator[Weights]:
        """What the queries of a run gave to keys [B, K, n, D].

        first: slot of the first key, of consecutive ones that come no earlier than they are seen; None: all queries see all of them.
        """
        groups, keys = keys.shape[1], keys.detach()
        for a in range(0, run.q.shape[2], _ROWS):
            q, lse = run.q[:, :, a : a + _ROWS], run.lse[:, :, a : a + _ROWS]
            b, h, r, d = q.shape
            logits = (q.reshape(b, groups, h // groups * r, d) @ keys.mT).float() * self.scale
            if self.softcap is not None:
                logits = self.softcap * torch.tanh(logits / self.softcap)
            weights = torch.exp(logits - lse.reshape(b, groups, -1, 1)).view(b, groups, h // groups, r, keys.shape[2])
            seen = None
            if first is not None:
                slots = torch.arange(run.begin + a, run.begin + a + r, device=q.device)[:, None]
                seen = torch.arange(first, first + keys.shape[2], device=q.device) <= slots
            yield slice(a, a + r), weights, seen

    def received(self, run: "Run[Any]", keys: Tensor, first: int | None) -> Tensor:
        """The attention [B, K, n, 1] that a run gave to keys, summed over the query heads of each key-value head."""
        total = keys.new_zeros(keys.shape[:3], dtype=torch.float32)
        for _, weights, seen in self.weights(run, keys, first):
            total += (weights if seen is None else weights * seen).sum((2, 3))
        return total[..., None]

    def attended(self, run: "Run[Any]", keys: Tensor, first: int | None) -> Tensor:
        """The last query of a run, as its slot + 1, that had keys among its first, and how many had: [B, K, n, 2]."""
        assert run.bar is not None  # noqa: S101 - asked for
        last, times = keys.new_zeros(2, *keys.shape[:3], dtype=torch.float32)
        for rows, weights, seen in self.weights(run, keys, first):
            hit = coarse(weights) >= run.bar[:, :, rows].reshape(*weights.shape[:4], 1)
            hit = hit if seen is None else hit & seen
            slots = torch.arange(run.begin + rows.start + 1, run.begin + rows.stop + 1, device=keys.device)[:, None]
            last = torch.maximum(last, (hit * slots).amax((2, 3)))
            times += hit.sum((2, 3))
        return torch.stack([last, times], -1)

    def bar(self, run: "Run[Any]", parts: list[tuple[Tensor, int | None, Tensor | None]], top: int) -> Tensor:
        """The weight of the key that is the `top`-th for each query of a run, [B, H, n]; 0 where a query sees fewer.

        parts: of the keys that it sees: keys, first (as in `weights`), and which are there, [B, K, n].
        """
        found = []
        for pieces in zip(*(self.weights(run, keys, first) for keys, first, _ in parts), strict=True):
            every = []
            for (_, weights, seen), (_, _, there) in zip(pieces, parts, strict=True):
                masked = coarse(weights) if seen is None else coarse(weights).masked_fill(~seen, -1.0)
                every.append(masked if there is None else masked.masked_fill(~there[:, :, None, None], -1.0))
            joined = torch.cat(every, -1)
            if joined.shape[-1] < top:
                found.append(joined.new_zeros(joined.shape[:-1]).flatten(1, 2))
            else:
                found.append(joined.topk(top, dim=-1).values[..., -1].clamp(min=0).flatten(1, 2))
        return torch.cat(found, 2)

    def credited(self, name: object, account: Tensor, run: "Run[Any]", keys: Tensor, first: int | None) -> Tensor:
        """An account of keys with what a run gave them."""
        if name == RECEIVED:
            return account + self.received(run, keys, first)
        last, times = self.attended(run, keys, first).unbind(-1)
        return torch.stack([torch.maximum(account[..., 0], last), account[..., 1] + times], -1)
