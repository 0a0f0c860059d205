"""The contracts of cache policies: which tokens are kept, in which form, and at which positions they are seen."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from longreach.core.bands import PROBE, Band, LayerContext
from longreach.core.cuts import Cut, Over, PromptEnd
from longreach.core.errors import UnsupportedError
from longreach.core.memory import Kept, Signal, Signals, Store, View
from longreach.core.method import Method, MethodInfo
from longreach.core.ranking import coarse, highest
from longreach.core.sight import History, Sight


@dataclass(frozen=True, kw_only=True)
class CachePolicy(Method):
    """What is kept. Without a policy the engine keeps what the bands can still reach; `keep_all` keeps everything.

    rounds: it rounds numbers, so that two ways to compute the same differ by more than their own rounding.
    """

    kind: ClassVar[str] = "cache"
    keep_all: ClassVar[bool] = False
    rounds: ClassVar[bool] = False

    def stores(self, layer: LayerContext) -> tuple[View, ...] | None:
        """The parts of a layer's memory; None leaves the choice to an attention policy."""
        return None

    def views(self, layer: LayerContext) -> tuple[View, ...] | None:
        """What a query sees: the stores."""
        return self.stores(layer)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The definition: (relative position, visible) of queries `i` and keys `j` (indices, broadcast; causality is added)."""
        return i - j, j <= i

    def sight(self, i: int, history: History) -> Sight | None:
        """The definition of a policy that decides by content: what query `i` sees. None: `reference` says it."""
        return None


@dataclass(frozen=True, kw_only=True)
class Eviction(CachePolicy):
    """Keeps a budget of tokens in each key-value head, those with the highest scores; of equal ones the later.

    signals: what scores are made of. by_head: what is kept differs from head to head. packed: keys stand at places in the cache. One
    whose setting `budget` is the budget of every layer needs no `tokens` of its own.
    """

    signals: ClassVar[tuple[Signal, ...]]
    by_head: ClassVar[bool] = True
    packed: bool = False

    @property
    def observe(self) -> int:
        """Queries whose attention `observed` adds up."""
        return 0

    @property
    def skip(self) -> int:
        """First queries of a row that `queries` leaves out."""
        return 0

    @abstractmethod
    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """How much each token is worth, [B, K, n]; infinite where it has to stay."""

    @abstractmethod
    def worth(self, seen: int, history: History) -> Tensor:
        """The definition of the score at a cut before the token `seen`, [K, T]; of tokens from that on it may be anything."""

    def tokens(self, layer: LayerContext) -> int:
        """The budget of a layer: tokens that stay at a cut."""
        budget: int = vars(self)["budget"]
        return budget

    @property
    def least(self) -> int:
        """The smallest budget that it can have: what stays in any case, and what a setting needs."""
        return 1

    def with_budget(self, budget: int) -> Self:
        """The same with another budget."""
        changes: dict[str, Any] = {"budget": budget}
        return replace(self, **changes)

    def counts(self, score: Tensor, index: Tensor, layer: LayerContext) -> int | Tensor:
        """How many tokens each head keeps, [B, K] or one number for all; score and index [B, K, n], index below 0 where there is none."""
        return self.tokens(layer)

    def shares(self, worth: Sequence[Mapping[int, float]], layer: LayerContext) -> list[int]:
        """The definition of `counts`, of one row; worth: token -> score, of each head."""
        return [self.tokens(layer)] * len(worth)

    def cut(self, layer: LayerContext) -> Cut:
        """With every token once the budget is spent."""
        return Over(self.tokens(layer))

    def keep(self, signals: Signals, layer: LayerContext) -> Tensor:
        """The highest scores."""
        score = self.score(signals, layer)
        return highest(score, signals.index, self.counts(score, signals.index, layer))

    def kept(self, layer: LayerContext) -> Kept:
        """The store of what is kept."""
        return Kept(keeper=self, cut=self.cut(layer), signals=self.signals, observe=self.observe, skip=self.skip, packed=self.packed)

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """What is kept, and all that came since."""
        return (self.kept(layer), Band())

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The farthest that a key can stand: where it is, or packed as many places away as are held."""
        held = self.tokens(PROBE)
        slack = self.cut(PROBE).before(0, 2 * held + 1, 0)
        return (i - j).clamp(max=(slack[0] if slack else held) - 1) if self.packed else i - j, j <= i

    def sight(self, i: int, history: History) -> Sight:
        """The definition, token by token."""
        held: list[list[int]] = [[] for _ in history.k]
        relative = (i - torch.arange(history.k.shape[1])).repeat(len(history.k), 1)
        for seen in range(i + 1):
            if self.cut(history.layer).before(seen, seen + 1, history.prompt):
                if seen not in history.worths:
                    history.worths[seen] = coarse(self.worth(seen, replace(history, held=held))).tolist()
                values = history.worths[seen]
                worth = [{token: values[head][token] for token in tokens} for head, tokens in enumerate(held)]
                for head, count in enumerate(self.shares(worth, history.layer)):
                    ranked = sorted(((value, token) for token, value in worth[head].items()), reverse=True)
                    held[head] = sorted(token for _, token in ranked[:count])
                    if self.packed:
                        for place, token in enumerate(held[head]):
                            relative[head, token] = i - (seen - len(held[head]) + place)
            for tokens in held:
                tokens.append(seen)
        return self.form(Sight(tokens=held, relative=relative), i, history)

    def form(self, sight: Sight, i: int, history: History) -> Sight:
        """The definition of the form in which tokens are kept: what query `i` sees of those in `sight`."""
        return sight


@dataclass(frozen=True, kw_only=True)
class Everything(Eviction):
    """Keeps every token, at a cut where the prompt ends: what a wrapper by itself stands on."""

    info: ClassVar = MethodInfo(title="", paper="")
    signals: ClassVar[tuple[Signal, ...]] = ()
    spec: ClassVar[str] = ""

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """All the same."""
        return torch.zeros(signals.index.shape, device=signals.index.device)

    def worth(self, seen: int, history: History) -> Tensor:
        """All the same."""
        return history.k.new_zeros(history.k.shape[:2])

    def tokens(self, layer: LayerContext) -> int:
        """No number."""
        return 0

    def counts(self, score: Tensor, index: Tensor, layer: LayerContext) -> int:
        """All."""
        return index.shape[-1]

    def shares(self, worth: Sequence[Mapping[int, float]], layer: LayerContext) -> list[int]:
        """All."""
        return [len(values) for values in worth]

    def cut(self, layer: LayerContext) -> Cut:
        """Once."""
        return PromptEnd()


@dataclass(frozen=True, kw_only=True)
class CacheWrapper(CachePolicy):
    """Changes the eviction policy before it in the stack: what its budget is, which tokens stay in any case, in which form they are kept.

    alone: it also stands on a cache that keeps everything. needs, instead: why it does not stand there, and what to do then.
    """

    alone: ClassVar[bool] = False
    needs: ClassVar[str]
    instead: ClassVar[str]

    @property
    def last(self) -> int:
        """Last tokens before a cut that stay in any case."""
        return 0

    def refusal(self, inner: Eviction) -> str | None:
        """Why it cannot stand on a policy; None: it can."""
        return None

    def kept(self, inner: Kept) -> Kept:
        """`Eviction.kept`; inner: without the wrapper."""
        return inner

    def form(self, sight: Sight, i: int, history: History) -> Sight:
        """`Eviction.form`; sight: without the wrapper."""
        return sight

    def of_layer(self, inner: Eviction, layer: LayerContext) -> Eviction:
        """The policy of one layer: the same with another budget."""
        return inner

    def counts(self, inner: Eviction, score: Tensor, index: Tensor, layer: LayerContext) -> int | Tensor:
        """`Eviction.counts`; inner: the policy of the layer."""
        return inner.counts(score, index, layer)

    def shares(self, inner: Eviction, worth: Sequence[Mapping[int, float]], layer: LayerContext) -> list[int]:
        """`Eviction.shares`; inner: the policy of the layer."""
        return inner.shares(worth, layer)

    def stores(self, layer: LayerContext) -> tuple[View, ...] | None:
        """By itself, of a cache that keeps everything."""
        return WrappedEviction(inner=Everything(), outer=self).stores(layer) if self.alone else None

    def sight(self, i: int, history: History) -> Sight | None:
        """By itself, of a cache that keeps everything."""
        return WrappedEviction(inner=Everything(), outer=self).sight(i, history) if self.alone else None


@dataclass(frozen=True, kw_only=True)
class BudgetWrapper(CacheWrapper):
    """Divides the budget of the eviction policy before it in another way (`snapkv:budget=1024+pyramid`): by layer or head."""

    needs: ClassVar[str] = "it divides a budget of tokens among layers or heads, and there is none"
    instead: ClassVar[str] = "put it behind a cache policy that has a budget"

    def refusal(self, inner: Eviction) -> str | None:
        """Where there is no number of tokens to divide, or keys would reach as far as others let them."""
        if not inner.tokens(PROBE):
            return "its budget is no number of tokens; give one"
        why = "its keys are packed, and how far they then reach would differ from layer to layer and head to head"
        return why if inner.packed else None


@dataclass(frozen=True, kw_only=True)
class WrappedEviction(Eviction):
    """An eviction policy and the wrapper on it, as one policy."""

    inner: Eviction
    outer: CacheWrapper

    def __post_init__(self) -> None:
        if (why := self.outer.refusal(self.inner)) is not None:
            raise UnsupportedError(self.outer.spec, self.inner.spec, why, "leave one of them out")

    @property
    def info(self) -> MethodInfo:  # type: ignore[override]
        """What holds for the policy inside."""
        return self.inner.info if self.inner.spec else self.outer.info

    @property
    def spec(self) -> str:
        """`inner+outer`."""
        return "+".join(filter(None, (self.inner.spec, self.outer.spec)))

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        """Those of the policy inside."""
        return self.inner.signals

    @property
    def by_head(self) -> bool:  # type: ignore[override]
        """That of the policy inside."""
        return self.inner.by_head

    @property
    def observe(self) -> int:
        """That of the policy inside."""
        return self.inner.observe

    @property
    def skip(self) -> int:
        """That of the policy inside."""
        return self.inner.skip

    @property
    def least(self) -> int:
        """That of the policy inside, or what the wrapper keeps."""
        return max(self.inner.least, self.outer.last)

    def with_budget(self, budget: int) -> "WrappedEviction":
        """Another budget to divide."""
        return replace(self, inner=self.inner.with_budget(budget))

    def _of(self, layer: LayerContext) -> Eviction:
        return self.outer.of_layer(self.inner, layer)

    def tokens(self, layer: LayerContext) -> int:
        """What the wrapper gives the layer."""
        return self._of(layer).tokens(layer)

    def counts(self, score: Tensor, index: Tensor, layer: LayerContext) -> int | Tensor:
        """What the wrapper gives each head, and no less than stays in any case."""
        counts = self.outer.counts(self._of(layer), score, index, layer)
        return counts.clamp(min=self.outer.last) if isinstance(counts, Tensor) else max(counts, self.outer.last)

    def shares(self, worth: Sequence[Mapping[int, float]], layer: LayerContext) -> list[int]:
        """What the wrapper gives each head, and no less than stays in any case."""
        return [max(count, self.outer.last) for count in self.outer.shares(self._of(layer), worth, layer)]

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """That of the policy of the layer; infinite where the wrapper says that a token stays."""
        score = self._of(layer).score(signals, layer)
        return score.masked_fill(signals.index >= signals.seen - self.outer.last, float("inf"))

    def worth(self, seen: int, history: History) -> Tensor:
        """That of the policy of the layer; infinite where the wrapper says that a token stays."""
        worth = self._of(history.layer).worth(seen, history).clone()
        worth[:, max(0, seen - self.outer.last) :] = float("inf")
        return worth

    def kept(self, layer: LayerContext) -> Kept:
        """The store of the policy of the layer, as the wrapper changes it."""
        return replace(self.outer.kept(self._of(layer).kept(layer)), keeper=self)

    def form(self, sight: Sight, i: int, history: History) -> Sight:
        """That of the policy inside, as the wrapper changes it."""
        return self.outer.form(self.inner.form(sight, i, history), i, history)

    def cut(self, layer: LayerContext) -> Cut:
        """That of the policy of the layer."""
        return self._of(layer).cut(layer)


def cuts_prompts(stack: Iterable[Method]) -> bool:
    """Whether a policy of the stack acts on nothing but what follows a prompt: then a text that is only read is read as by the model."""
    policies = [method for method in with_wrappers(stack) if isinstance(method, CachePolicy)]
    return any(isinstance(view, Store) and view.cut.waits for each in policies for view in each.stores(PROBE) or ())


def with_wrappers(stack: Iterable[Method]) -> list[Method]:
    """The stack with its cache policy and the wrappers behind that as one method.

    Raises: UnsupportedError for a wrapper without a policy before it that it could stand on.
    """
    found: list[Method] = []
    for method in stack:
        if not isinstance(method, CacheWrapper):
            found.append(method)
            continue
        place = next((at for at, other in enumerate(found) if isinstance(other, CachePolicy)), len(found))
        inner = found[place] if place < len(found) else Everything() if method.alone else None
        if not isinstance(inner, Eviction):
            raise UnsupportedError(method.spec, inner.spec if inner else "no cache policy before it", method.needs, method.instead)
        found[place : place + 1] = [WrappedEviction(inner=inner, outer=method)]
    return found
