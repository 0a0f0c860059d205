"""Attention to and from tokens that methods insert into the text, and where their keys and values lie."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.cache.trained.base import Inserts
from longreach.core.bands import TRUE, LayerContext
from longreach.core.errors import LongreachError
from longreach.core.inserted import Inserted, InsertedRun
from longreach.engine._attend import Options
from longreach.engine._choice import chosen_parts
from longreach.engine._fused import Merge, attend
from longreach.engine._seats import NewInserted
from longreach.engine._store import BandLayer
from longreach.engine._stream import Step
from longreach.engine._turn import Turning

KEYS, VALUES = "keys", "values"


@dataclass(frozen=True)
class InsertedAttention:
    """Of one layer.

    Args: view: where inserted tokens stand. policy: None in a layer with a sliding window of its own. window: of that.
    """

    view: Inserted
    policy: Inserts | None
    context: LayerContext
    window: int | None
    turning: Turning

    def projected(self, hidden: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, M, D], keys and values [B, K, M, D] of inserted tokens, with what their method adds.

        hidden: [B, T, hidden_size], the layer's input, in which they come last.
        """
        if self.policy is None:
            return q, k, v
        assert hidden is not None  # noqa: S101 - a hook noted it
        added = self.policy.projected(hidden[:, -q.shape[2] :], self.context)
        if added is None:
            return q, k, v
        parts = zip((q, k, v), added, strict=True)
        q, k, v = (x + more.unflatten(2, (x.shape[1], -1)).transpose(1, 2) for x, more in parts)
        return q, k, v

    def output(self, layer: BandLayer, step: Step, q: Tensor, new: NewInserted, options: Options) -> Tensor:
        """Attention output [B, M, H, D] of inserted tokens, 0 on empty seats; q [B, H, M, D], unrotated."""
        if new.alike and step.start_min == step.start_max:
            return self._alike(layer, step, q, new, options)
        rows = []
        for row, count in enumerate(new.counts):
            mine = self._alike(layer.row(row), step.row(row), q[row : row + 1, :, :count], new.row(row), options)
            rows.append(torch.nn.functional.pad(mine, (0, 0, 0, 0, 0, new.width - count)))
        return torch.cat(rows)

    def _alike(self, layer: BandLayer, step: Step, q: Tensor, new: NewInserted, options: Options) -> Tensor:
        merge, count = Merge(), q.shape[2]
        if count and self.policy is None:
            merge.add(*self._beside_window(layer, step, q, new, options), slice(0, count), count)
        elif count:
            run = _run(layer, step, self.view, self.turning, q, new.numbers(q.device), options, step.end, inserted=True)
            for rows, out, lse in self.view.reader.pieces(run):
                merge.add(out, lse, rows, count)
        return merge.result(options.sinks, q).transpose(1, 2)

    def _beside_window(self, layer: BandLayer, step: Step, q: Tensor, new: NewInserted, options: Options) -> tuple[Tensor, Tensor]:
        """In a layer with a sliding window an inserted token sees what the text's token before it sees."""
        assert self.window is not None  # noqa: S101 - the caller checked
        before = (new.numbers(q.device) // self.view.count + 1) * self.view.every - 1
        place = (before + step.start_min)[:, None]
        slots = torch.arange(layer.oldest, layer.tokens, device=q.device)
        seen = (slots <= place) & (slots > place - self.window) & (slots >= step.start_min)
        turned, mask = self.turning.turn_to(q, before, step.end), seen.expand(q.shape[0], 1, -1, -1)
        return attend(turned, layer.recent.view(TRUE), layer.recent.view("v"), scale=options.scale, mask=mask, softcap=options.softcap)


def write_inserted(layer: BandLayer, new: NewInserted, keys: Tensor, values: Tensor) -> None:
    """Keep the keys and values [B, K, M, D] of inserted tokens, behind those that came before in their row."""
    for name, x in ((KEYS, keys), (VALUES, values)):
        old = layer.inserted.get(name, x[:, :, :0])
        if new.alike:
            layer.inserted[name] = torch.cat([old[:, :, : new.first[0]], x[:, :, : new.counts[0]]], 2)
            continue
        most = max(first + count for first, count in zip(new.first, new.counts, strict=True))
        rows = []
        for row, (first, count) in enumerate(zip(new.first, new.counts, strict=True)):
            mine = torch.cat([old[row, :, :first], x[row, :, :count]], 1)
            rows.append(torch.nn.functional.pad(mine, (0, 0, 0, most - first - count)))
        layer.inserted[name] = torch.stack(rows)


def text_pieces(
    layer: BandLayer, step: Step, view: Inserted, turning: Turning, q: Tensor, slot: int, options: Options
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, output and log-sum-exp of the text's queries q [B, H, T, D], unrotated, the first of which has the slot `slot`."""
    start = step.start_min
    padding = max(0, start - slot)
    if padding >= q.shape[2]:
        return
    index = torch.arange(max(slot - start, 0), slot + q.shape[2] - start, device=q.device)
    run = _run(layer, step, view, turning, q[:, :, padding:], index, options, slot + q.shape[2], inserted=False)
    for rows, out, lse in view.reader.pieces(run):
        yield slice(rows.start + padding, rows.stop + padding), out, lse


def _run(
    layer: BandLayer,
    step: Step,
    view: Inserted,
    turning: Turning,
    q: Tensor,
    index: Tensor,
    options: Options,
    end: int,
    *,
    inserted: bool,
) -> InsertedRun:
    if step.valid is not None:
        raise LongreachError("padding inside a text cannot go with a method that inserts tokens; pad on the left, or pass texts one by one")
    start = step.start_min
    part = slice(max(0, start - layer.oldest), end - layer.oldest)
    values = layer.recent.view("v")[:, :, part]
    own = (layer.inserted.get(name, values[:, :, :0])[:, :, : view.before(step.end - start)] for name in (KEYS, VALUES))
    own_keys, own_values = own
    scale, softcap = options.scale, options.softcap
    return InsertedRun(
        q=q, inserted=inserted, index=index, keys=layer.recent.view(view.keys)[:, :, part], values=values,
        oldest=max(0, layer.oldest - start), own_keys=own_keys, own_values=own_values, scale=scale, softcap=softcap,
        turn=lambda x, positions: turning.turn_to(x, positions, step.end).to(values.dtype),  # under autocast it is done in float32
        attend=lambda q, k, v, mask: attend(q, k, v, scale=scale, mask=mask, softcap=softcap),
        attend_chunks=lambda q, k, v, chosen: chosen_parts(q, k, v, chosen, scale, softcap),
    )  # fmt: skip
