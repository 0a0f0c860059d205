"""The contracts of position methods: those that change rotary frequencies, and those that lengthen tables of learned positions."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from longreach.core.errors import UnsupportedError
from longreach.core.method import Method, MethodInfo

_STANDSTILL = 1e20  # stands for an infinite factor, which JSON cannot hold: nothing turns measurably within any text


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """How the rotary embedding of a checkpoint is scaled before any method.

    Args: kind: transformers' rope type. frequencies: [dim / 2] radians a token, for texts as long as the trained window.
    attention_factor: on cos and sin. original_window: tokens before the scaling; None where the config does not say. short: [dim / 2]
    frequencies of texts up to the original window, where these have others (`longrope`). stated: the config's other settings, by name.
    """

    kind: str
    frequencies: tuple[float, ...]
    attention_factor: float = 1.0
    original_window: int | None = None
    short: tuple[float, ...] | None = None
    stated: tuple[tuple[str, Any], ...] = ()

    def get(self, name: str, default: Any = None) -> Any:
        """A setting of the config; `default` where it is not stated, or null."""
        found = dict(self.stated).get(name)
        return default if found is None else found


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """The rotary embedding of a checkpoint: the frequencies that it has, scaled or not, and the window that they were trained for.

    Methods start from `inv_freq()` and `attention_factor`, whatever these were scaled by before.
    Args: theta: base. dim: rotated dimensions of a head. trained_window: tokens. num_heads: key-value heads, for `per_head` methods.
    sections: how many pairs of dimensions turn with the time, height and width of what is seen, in models that see (else None).
    scaling: of the checkpoint itself; None where it has the frequencies of its base.
    """

    theta: float
    dim: int
    trained_window: int
    num_heads: int = 1
    sections: tuple[int, ...] | None = None
    scaling: Scaling | None = None

    @property
    def attention_factor(self) -> float:
        """On cos and sin, of the checkpoint itself."""
        return 1.0 if self.scaling is None else self.scaling.attention_factor

    @property
    def original_window(self) -> int:
        """Tokens before the checkpoint was scaled, as far as its config says; else the trained window."""
        return (self.scaling and self.scaling.original_window) or self.trained_window

    @property
    def switch(self) -> int | None:
        """Tokens up to which the checkpoint has other frequencies for short texts; None where it has one set."""
        return self.scaling.original_window if self.scaling is not None and self.scaling.short is not None else None

    def inv_freq(self, theta: float | None = None) -> Tensor:
        """[dim / 2] radians a token, float32: the checkpoint's own; with another base, each times what that does to a plain one."""
        own = None if self.scaling is None else torch.tensor(self.scaling.frequencies)
        if own is None or theta is None:
            return self.plain(theta) if own is None else own
        return (own.double() * self.plain(theta).double() / self.plain().double()).float()

    def plain(self, theta: float | None = None) -> Tensor:
        """[dim / 2] radians a token, float32: theta ** (-2i / dim), as before any scaling."""
        return 1.0 / self._powers(theta)

    def powers(self) -> Tensor:
        """[dim / 2] tokens a radian, float32."""
        return self._powers() if self.scaling is None else 1.0 / self.inv_freq()

    def own(self, seq_len: int) -> tuple[Tensor, float]:
        """What the checkpoint itself turns a text of `seq_len` tokens by: ([dim / 2] radians a token, factor on cos and sin)."""
        if self.scaling is not None and self.scaling.short is not None and seq_len <= self.original_window:
            return torch.tensor(self.scaling.short), self.attention_factor
        return self.inv_freq(), self.attention_factor

    def divided(self, factors: Sequence[float]) -> Tensor:
        """[dim / 2] the checkpoint's own frequencies over `factors`."""
        by = torch.tensor(factors, dtype=torch.float32)
        # Plain ones in the order in which transformers computes them, so that an export agrees bit for bit.
        return 1.0 / (by * self.powers()) if self.scaling is None else self.inv_freq() / by

    def over_plain(self, factors: Sequence[float]) -> list[float]:
        """Factors that the checkpoint's own frequencies are divided by, as such that the plain ones are."""
        if self.scaling is None:
            return list(factors)
        before = self.plain().double() / self.inv_freq().double()
        return (before * torch.tensor(factors, dtype=torch.float64)).clamp(max=_STANDSTILL).tolist()

    def merged(self, kind: str, factor: float, **settings: float) -> tuple["Rope", float]:
        """The embedding that a scaling acts on, and its factor: two scalings of one kind (a rope type) and the same settings are one.

        So where the checkpoint has one already, this is the embedding before it, and the product of both factors; else itself.
        """
        before = self.scaling
        if before is None or before.kind != kind or any(before.get(name) != value for name, value in settings.items()):
            return self, factor
        return replace(self, scaling=None, trained_window=self.original_window), factor * float(before.get("factor"))

    def _powers(self, theta: float | None = None) -> Tensor:
        exponents = torch.arange(0, self.dim, 2, dtype=torch.int64).float() / self.dim
        powers: Tensor = (self.theta if theta is None else theta) ** exponents
        return powers


@dataclass(frozen=True, kw_only=True)
class PositionsMethod(Method):
    """Changes the frequencies of a rotary embedding, on top of what the checkpoint itself was scaled by.

    Methods that depend on the length seen set `length_dependent` in `info` and take it from `seq_len`; the engine then keeps keys so
    that none stands under an older frequency. `length_step`: the frequencies change every so many tokens.
    """

    kind: ClassVar[str] = "positions"

    @property
    def needs_engine(self) -> bool:
        """Whether more than the numbers in the model's rotary embedding has to change."""
        return self.info.length_dependent or self.info.per_head

    @abstractmethod
    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """([dim / 2] radians a token, factor on cos and sin) for a context of `seq_len` tokens; [num_heads, dim / 2] if `per_head`.

        The factor holds the checkpoint's own (`rope.attention_factor`).
        """

    def reach(self, trained_window: int) -> int | None:
        """Tokens that the method stretches the trained window to; None: none is stated (it grows with the text, or needs no positions)."""
        factor: float | None = getattr(self, "factor", None)
        return None if factor is None or self.info.length_dependent else int(factor * trained_window)

    def mixture(self, rope: Rope) -> tuple[Tensor, Tensor] | None:
        """Coefficients of cos and of sin, [num_heads, dim / 2, dim / 2] each: every pair of dimensions is turned by a sum over frequencies.

        For `per_head` methods. Then logits no longer depend on distances alone. None: each pair has its own frequency.
        """
        return None

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """The same as transformers' `rope_parameters`, where it can express it; exportable methods return it.

        By default `longrope`, which divides every frequency by a factor of its own and so expresses all fixed frequencies.
        """
        return as_longrope(rope, *self.inv_freq(rope, rope.trained_window)) if self.info.exportable else None

    def unscaled_tokens(self) -> int:
        """The first tokens of a text that keep the model's own frequencies; the others have those of `inv_freq` at their full position."""
        return 0

    def at_length(self, rope: Rope, seq_len: int) -> "PositionsMethod":
        """What readers of an exported config make of the method for a text of `seq_len` tokens, where that hangs on its whole length."""
        return self

    def length_step(self, rope: Rope) -> int | None:
        """For length-dependent methods: tokens between changes of the frequencies."""
        return None


@dataclass(frozen=True, kw_only=True)
class PositionsWrapper(PositionsMethod):
    """Changes the frequencies of the positions method before it in the stack (`yarn:factor=8+resonance`); by itself, the model's own."""

    @abstractmethod
    def wrap(self, inner: PositionsMethod, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """`inv_freq` on top of that of `inner`."""

    def wrapped_info(self, inner: MethodInfo) -> MethodInfo:
        """What holds for the two together."""
        return replace(
            self.info,
            exportable=self.info.exportable and inner.exportable and not inner.length_dependent,
            length_dependent=self.info.length_dependent or inner.length_dependent,
            changes_positions=self.info.changes_positions or inner.changes_positions,
            per_head=inner.per_head,
        )

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """On top of the model's own frequencies."""
        return self.wrap(Unscaled(), rope, seq_len)


@dataclass(frozen=True, kw_only=True)
class Unscaled(PositionsMethod):
    """The model's own frequencies: what a wrapper by itself wraps."""

    info: ClassVar = MethodInfo(title="", paper="", exportable=True)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i."""
        return rope.own(seq_len)


@dataclass(frozen=True, kw_only=True)
class Wrapped(PositionsMethod):
    """A positions method and the wrapper on it, as one method."""

    inner: PositionsMethod
    outer: PositionsWrapper

    def __post_init__(self) -> None:
        if self.inner.info.length_dependent and self.outer.info.length_dependent:
            raise UnsupportedError(self.outer.spec, self.inner.spec, "both change with the length", "keep one of them")
        if self.inner.unscaled_tokens():
            raise UnsupportedError(self.outer.spec, self.inner.spec, "that leaves first tokens unscaled", "keep one of them")

    @property
    def info(self) -> MethodInfo:  # type: ignore[override]
        """What holds for the two together."""
        return self.outer.wrapped_info(self.inner.info)

    @property
    def spec(self) -> str:
        """`inner+outer`."""
        return f"{self.inner.spec}+{self.outer.spec}"

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """The wrapper's, on top of those of the method inside."""
        return self.outer.wrap(self.inner, rope, seq_len)

    def mixture(self, rope: Rope) -> tuple[Tensor, Tensor] | None:
        """That of the method inside."""
        return self.inner.mixture(rope)

    def reach(self, trained_window: int) -> int | None:
        """That of the method inside."""
        return self.inner.reach(trained_window)

    def length_step(self, rope: Rope) -> int | None:
        """That of whichever depends on the length."""
        return (self.outer if self.outer.info.length_dependent else self.inner).length_step(rope)


def positions_of(stack: Iterable[Method]) -> PositionsMethod | None:
    """The positions methods of a stack as one: a wrapper takes in what stands before it. None where there is none.

    Raises: UnsupportedError for a second method that is no wrapper.
    """
    found: PositionsMethod | None = None
    for method in stack:
        if not isinstance(method, PositionsMethod):
            continue
        if found is None:
            found = method
        elif isinstance(method, PositionsWrapper):
            found = Wrapped(inner=found, outer=method)
        else:
            why = "they are two positions methods that say what the frequencies are"
            instead = f"put {found.spec} behind it" if isinstance(found, PositionsWrapper) else "keep one of them"
            raise UnsupportedError(method.spec, found.spec, why, instead)
    return found


def as_longrope(rope: Rope, inv_freq: Tensor, factor: float) -> dict[str, Any]:
    """Any frequencies [dim / 2] and factor on cos and sin as transformers' `longrope`; short texts get the same as long ones."""
    factors = (rope.plain().double() / inv_freq.double()).clamp(max=_STANDSTILL).tolist()
    return {
        "rope_type": "longrope",
        "rope_theta": rope.theta,
        "short_factor": factors,
        "long_factor": list(factors),
        "original_max_position_embeddings": rope.original_window,
        "attention_factor": float(factor),
    }


@dataclass(frozen=True, kw_only=True)
class TableMethod(Method):
    """Lengthens a table of learned absolute positions: says where in the trained table each position of the longer one stands.

    The core finds the model's tables and their first position (some begin with rows for padding), reads them at these places, and
    lengthens what families keep beside them.
    """

    kind: ClassVar[str] = "positions"

    @abstractmethod
    def places(self, window: int) -> Tensor:
        """[new window] float64: for each new position one in the trained table of `window` positions.

        At a whole number the row is copied, between two it is interpolated linearly, beyond the last one it continues the line of the
        last two. Raises: SpecError for settings that do not fit the window.
        """
