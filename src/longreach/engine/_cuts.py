"""The stores that take tokens out of the window when the text is cut: what is common to all of them.

Rows that begin at the same slot share one state; others have one each. A state never changes: a cut makes a new one, so that the tokens of
the last forward pass can be taken back by going back to the state that stood before them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_type_hints

import torch
from torch import Tensor

from longreach.core.bands import TRUE, LayerContext
from longreach.core.errors import LongreachError
from longreach.core.memory import Carried, Coded, Kept, Store
from longreach.engine._accounts import ACCOUNTS, Softmax
from longreach.engine._channels import Change, Channels
from longreach.engine._moments import QueryMoments
from longreach.engine._stream import Step

if TYPE_CHECKING:
    from longreach.engine._store import BandLayer

ENTROPY = "entropy"  # the channel of how surprising tokens were, [B, K, n, 1] float32
ROLLBACK = 32  # tokens of the last forward pass that can be taken back
ALL = -1  # the key of the one state that all rows share

Part = tuple[slice, Tensor, Tensor]  # rows of the queries, their output [B, H, n, D] and log-sum-exp [B, H, n]


@dataclass(frozen=True, kw_only=True)
class State:
    """What a store holds at one time. upto: the slot up to which, exclusive, it took the tokens over."""

    upto: int


S = TypeVar("S", bound=State)
V = TypeVar("V", bound=Store)


@dataclass(kw_only=True)
class Run(Generic[S]):
    """Queries between two cuts, whose attention may be asked for again.

    state: that they saw; None once it may no longer come back. begin: slot of the first. q: rotated [B, H, n, D]; raw: unrotated, where
    that is asked for (else D is 0). counted: slot of the first that its row's moments are of. lse: of their softmax, [B, H, n]. settled:
    what they gave is in the accounts. bar: the weight from which on a key is among the first of a query, [B, H, n], where that is asked
    for.
    """

    state: S | None
    begin: int
    q: Tensor
    raw: Tensor
    counted: int
    lse: Tensor
    settled: bool = False
    bar: Tensor | None = None

    @property
    def end(self) -> int:
        """The slot after the last."""
        return self.begin + self.q.shape[2]

    @property
    def noted(self) -> bool:
        """Whether its queries are there."""
        return self.q.shape[3] > 0

    def between(self, begin: int, end: int) -> "Run[S]":
        """Those with slots from `begin` up to and without `end`."""
        part = slice(max(0, begin - self.begin), end - self.begin)
        bar = None if self.bar is None else self.bar[:, :, part]
        return replace(
            self, begin=max(begin, self.begin), q=self.q[:, :, part], raw=self.raw[:, :, part], lse=self.lse[:, :, part], bar=bar
        )  # fmt: skip

    def apart(self) -> "Run[S]":
        """The same in memory of its own, so that the longer run that it was a part of can go."""
        bar = None if self.bar is None else self.bar.clone()
        return replace(self, q=self.q.clone(), raw=self.raw.clone(), lse=self.lse.clone(), bar=bar)


@dataclass(kw_only=True)
class StoreRow(Generic[S]):
    """What is known of rows that are laid out alike: their state, the runs of the last queries, oldest first, and the moments of those
    that are settled.
    """

    state: S
    runs: list[Run[S]] = field(default_factory=list)
    back: int = 0  # the slot that can be gone back to at most
    moments: QueryMoments | None = None


class CutStore(ABC, Generic[V, S]):
    """A store of one layer. Args: view: what the policy declared. scale, softcap: of the layer's softmax."""

    def __init__(self, view: V, context: LayerContext, scale: float = 1.0, softcap: float | None = None) -> None:
        self.view, self.context, self.scale, self.softcap = view, context, scale, softcap
        self.rows: dict[int, StoreRow[S]] = {}

    @abstractmethod
    def empty(self, like: dict[object, Tensor], start: int) -> S:
        """The state before anything was taken over; like: the channels of the window. start: slot of the first token."""

    @abstractmethod
    def taken(self, row: StoreRow[S], window: Channels, oldest: int, slot: int, start: int, prompt: int) -> S:
        """The state after a cut right before `slot`.

        window: the channels, whose first token has the slot `oldest`. start: slot of the first token; prompt: of the first that follows the
        prompt.
        """

    @abstractmethod
    def pieces(self, state: S, q: Tensor, turned: Any) -> Iterator[Part]:
        """Output and log-sum-exp of the queries of a run over what the store holds.

        q: [B, H, n, D] under TRUE. turned: (map, rows) -> these rows of them under another map.
        """

    @abstractmethod
    def changed(self, state: S, change: Change) -> S:
        """The state for other rows of the batch."""

    def credited(self, state: S, run: Run[S]) -> S:
        """The state with what its tokens got from a run."""
        return state

    def bar(self, state: S, run: Run[S], window: Channels, oldest: int) -> Tensor | None:
        """`Run.bar`, where that is asked for."""
        return None

    @property
    def state_class(self) -> type[State]:
        """The class of its states, for what reads them from a file."""
        found: type[State] = get_type_hints(type(self).empty)["return"]
        return found

    # --- called by the engine

    @property
    def apart(self) -> bool:
        """Whether rows have states of their own; they keep them, also where rows that began elsewhere are gone."""
        return bool(self.rows) and ALL not in self.rows

    def row(self, layer: "BandLayer", step: Step) -> StoreRow[S]:
        """What is known of the rows that `layer` stands for."""
        start = step.start_min
        if layer.index not in self.rows:
            if ALL in self.rows:
                self._split(layer.batch)
            else:
                self.rows[layer.index] = StoreRow(state=self.empty(layer.recent.data, start), back=step.first)
        row = self.rows[layer.index]
        if row.state.upto < start:  # the row begins later than was known
            row.state = self.empty(layer.recent.data, start)
        return row

    def cut(self, layer: "BandLayer", step: Step, slot: int) -> None:
        """Take over what is due where the text is cut right before `slot`."""
        row = self.row(layer, step)
        if slot > row.state.upto:
            row.state = self.taken(row, layer.recent, layer.oldest, slot, step.start_min, step.prompt)

    def cut_at_end(self, layer: "BandLayer") -> None:
        """Take over what is due right before the token that would come next."""
        slot, stream = layer.tokens, layer.stream
        for index, row in self.rows.items():
            part, start = (layer, min(stream.start)) if index == ALL else (layer.row(index), stream.start[index])
            seen, prompt = slot - start, slot if stream.prompt is None else stream.prompt
            if slot > row.state.upto and self.view.cut.before(seen, seen + 1, prompt - start):
                row.state = self.taken(row, part.recent, part.oldest, slot, start, prompt)

    def observe(self, layer: "BandLayer", step: Step, q: Tensor, raw: Tensor, lse: Tensor, slot: int) -> None:
        """Note the queries of a run: q [B, H, n, D] rotated, raw not, lse [B, H, n] of the whole softmax; the first has the slot `slot`."""
        end = step.end if layer.stream.until is None else layer.stream.until
        row, early = self.row(layer, step), end - max(ROLLBACK, self.observed)
        over = self.view.cut.over(slot + 1 - step.start_min, step.prompt - step.start_min)  # nobody asks about these queries
        asked, nothing = bool(self.view.signals) and not over, q.new_empty(*q.shape[:3], 0)
        noted = asked or (self.observed > 0 and not over)
        run = Run(
            state=row.state, begin=slot, q=q.detach() if noted else nothing, raw=raw.detach() if noted and self.needs_raw else nothing,
            counted=step.start_min + self.skipped, lse=lse.detach(), settled=not asked,
        )  # fmt: skip
        if slot < step.start_min:  # padding
            run = run.between(step.start_min, run.end)
        run.bar = self.bar(row.state, run, layer.recent, layer.oldest) if asked else None
        if run.begin < early:  # these cannot be taken back: what they gave is settled at once
            first = run.between(run.begin, early)
            if asked:
                self._settle(row, first, layer.recent, layer.oldest, mine=True)
            row.back = max(row.back, first.end)
            row.runs.append(replace(first.between(first.end - self.observed, first.end), state=None, settled=True).apart())
            run = replace(run.between(early, run.end), state=row.state).apart()
        row.runs.append(run)
        asked_again = row.back - self.observed  # at a cut right after what can be gone back to
        row.runs = [each for each in row.runs if each.q.shape[2] and (each.state is not None or each.end > asked_again)]

    def begin_pass(self, layer: "BandLayer", tokens: int) -> int:
        """Settle the last pass, which can no longer be taken back; `tokens` were read up to now.

        Returns: the slot before which the window is no longer needed.
        """
        for index, row in self.rows.items():
            window = (layer if index == ALL else layer.row(index)).recent
            state = row.state
            for run in row.runs:
                if not run.settled:
                    self._settle(row, run, window, tokens - len(window), mine=run.state is state)
            over = bool(row.runs) and not row.runs[-1].noted
            first = tokens - (0 if over else self.observed)
            row.runs = [replace(run.between(first, run.end), state=None, settled=True) for run in row.runs if run.end > first]
            row.back = tokens
        return min((row.state.upto for row in self.rows.values()), default=0)

    @property
    def observed(self) -> int:
        """The last queries that are asked for at a cut."""
        return 0 if isinstance(self.view, Coded | Carried) else self.view.last_queries

    @property
    def of_queries(self) -> bool:
        """Whether moments of queries are asked for."""
        return "queries" in self.view.signals

    @property
    def needs_raw(self) -> bool:
        """Whether queries are noted unrotated, too."""
        return self.of_queries

    @property
    def skipped(self) -> int:
        """First queries of a row that its moments leave out."""
        return self.view.skip if isinstance(self.view, Kept) else 0

    def crop(self, layer: "BandLayer", tokens: int) -> None:
        """Go back to the first `tokens` tokens.

        Raises: LongreachError where that is not known any more.
        """
        if any(tokens < row.back for row in self.rows.values()):
            lost = layer.tokens - tokens
            raise LongreachError(f"a cache that forgets cannot take back {lost} tokens, only the last {ROLLBACK} of the last forward pass")
        for row in self.rows.values():
            kept = [run.between(run.begin, tokens) for run in row.runs if run.begin < tokens]
            dropped = next((run for run in row.runs if run.begin >= tokens and run.state is not None), None)
            before = kept[-1].state if kept and kept[-1].state is not None else dropped.state if dropped is not None else None
            row.runs, row.state = kept, row.state if before is None else before

    def change(self, layer: "BandLayer", change: Change) -> None:
        """Follow a change of the batch's rows."""
        self.begin_pass(layer, layer.tokens)
        if ALL in self.rows:
            self.rows[ALL].state = self.changed(self.rows[ALL].state, change)
            self.rows[ALL].runs = [_changed(run, change) for run in self.rows[ALL].runs]
            moments = self.rows[ALL].moments
            self.rows[ALL].moments = moments and moments.changed(change)
            return
        sources = change(torch.arange(layer.batch)).tolist() if self.rows else []
        self.rows = {new: replace(self.rows[old], runs=list(self.rows[old].runs)) for new, old in enumerate(sources)}

    # --- accounts

    def _settle(self, row: StoreRow[S], run: Run[S], window: Channels, oldest: int, mine: bool) -> None:
        """Credit the tokens of the window, and of the state where the run saw it (mine), with the attention that the run gave them."""
        if mine:
            row.state = self.credited(row.state, run)
        if self.of_queries:
            row.moments = with_run(row.moments, run)
        part = slice(row.state.upto - oldest, run.end - oldest)
        if part.stop > part.start:
            keys = window.view(TRUE)[:, :, part]
            for name in self.accounts(window):
                account = window.view(name)[:, :, part]
                account.copy_(self.softmax.credited(name, account, run, keys, row.state.upto))
        run.settled = True

    def totals(self, row: StoreRow[S], window: Channels, oldest: int, slot: int) -> tuple[S, dict[object, Tensor]]:
        """The state, and the accounts of the window's tokens up to `slot`, with all that was given so far, settled or not."""
        part = slice(row.state.upto - oldest, slot - oldest)
        state, totals = row.state, {name: window.view(name)[:, :, part].clone() for name in self.accounts(window)}
        keys = window.view(TRUE)[:, :, part]
        for run in row.runs if totals else ():
            if not run.settled:
                state = self.credited(state, run) if run.state is row.state else state
                for name, total in totals.items():
                    totals[name] = self.softmax.credited(name, total, run, keys, row.state.upto)
        return state, totals

    @staticmethod
    def accounts(channels: Channels) -> list[object]:
        """The accounts that are kept."""
        return [name for name in ACCOUNTS if name in channels.data]

    @property
    def softmax(self) -> Softmax:
        """That of the layer."""
        return Softmax(self.scale, self.softcap)

    def _split(self, batch: int) -> None:
        shared = self.rows.pop(ALL)
        for index in range(batch):
            pick = Change(pick=torch.tensor([index]))
            runs = [replace(_changed(run, pick), state=None) for run in shared.runs]
            moments = shared.moments and shared.moments.changed(pick)
            self.rows[index] = StoreRow(state=self.changed(shared.state, pick), runs=runs, back=shared.back, moments=moments)


def with_run(moments: QueryMoments | None, run: Run[S]) -> QueryMoments:
    """The moments with the queries of a run."""
    of_run = QueryMoments.of(run.between(run.counted, run.end).raw)
    return of_run if moments is None else moments + of_run


def _changed(run: Run[S], change: Change) -> Run[S]:
    return replace(run, q=change(run.q), raw=change(run.raw), lse=change(run.lse), bar=None if run.bar is None else change(run.bar))
