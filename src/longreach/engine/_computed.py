"""What a method computes itself."""

from collections.abc import Callable, Iterator

from torch import Tensor

from longreach.core.bands import Computed, PositionMap, QueryRun
from longreach.core.errors import LongreachError
from longreach.engine._attend import Options
from longreach.engine._choice import attend_chosen
from longreach.engine._fused import attend
from longreach.engine._store import BandLayer
from longreach.engine._stream import Step


def computed_pieces(
    layer: BandLayer,
    step: Step,
    view: Computed,
    q: Tensor,
    turn: Callable[[Tensor, PositionMap, int, Step], Tensor],
    slot: int,
    options: Options,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, output and log-sum-exp of rotated queries q [B, H, T, D], the first of which has the slot `slot`.

    Raises: LongreachError where padding stands inside a row.
    """
    if step.valid is not None:
        raise LongreachError(
            "padding inside a text cannot go with a method that computes attention itself; pad on the left, or pass texts one by one"
        )
    start, end = step.start_min, slot + q.shape[2]
    padding = max(0, start - slot)
    if padding >= q.shape[2]:
        return
    keys, values = (layer.recent.view(name)[:, :, max(0, start - layer.oldest) : end - layer.oldest] for name in (view.positions, "v"))

    def queries(first: int, last: int) -> Tensor:
        late = layer.tokens - len(layer.queries) - start
        return turn(layer.queries.view("q")[:, :, first - late : last - late], view.positions, first, step)

    run = QueryRun(
        q=q[:, :, padding:],
        first=max(slot - start, 0),
        prompt=step.prompt - start,
        keys=keys,
        values=values,
        queries=queries,
        attend=lambda q, k, v, mask: attend(q, k, v, scale=options.scale, mask=mask, softcap=options.softcap),
        attend_chunks=lambda q, k, v, chosen: attend_chosen(q, k, v, chosen, options.scale, options.softcap),
        memo=layer.memos.setdefault(layer.index, {}),
        summaries=None if layer.summaries is None else layer.summaries[:, :, : (end - start) // view.chunk],
        training=options.training,
    )
    for rows, out, lse in view.reader.pieces(run):
        yield slice(rows.start + padding, rows.stop + padding), out, lse
