"""The method contract: a frozen dataclass in a file of its own, described by its docstring and its `info`."""

import math
import sys
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from longreach.core.errors import SpecError


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What the paper reports, and the number of ours that shows whether it holds here.

    Args: text: the paper's result. metric: a key of METRICS in benchmarks/evidence.py. at_least, at_most: where it counts as delivered.
    """

    text: str
    metric: str
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, number: float) -> bool:
        """Whether `number` is inside the bounds."""
        return (self.at_least is None or number >= self.at_least) and (self.at_most is None or number <= self.at_most)


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodInfo:
    """What a method declares of itself; the core reads it and never asks which method it is.

    Args: title: the paper's full title. paper: its identifier (`arXiv:2401.01325`), or where it was published.
    training_free: works on a checkpoint as it is. exportable: transformers can run it from a plain config.
    bounded_memory: keeps a fixed number of tokens however many were seen. forgets: text beyond that number is lost.
    length_dependent: its frequencies change with the number of tokens seen. changes_positions: works by positions alone, and so
    has no effect where a layer uses none. claims: what the evidence table holds it to.
    """

    title: str
    paper: str
    training_free: bool = True
    exportable: bool = False
    bounded_memory: bool = False
    forgets: bool = False
    length_dependent: bool = False
    changes_positions: bool = False
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of every method. Subclasses are frozen keyword-only dataclasses with `info`; kinds set `kind`."""

    kind: ClassVar[str]
    info: ClassVar[MethodInfo]

    @classmethod
    def name(cls) -> str:
        """The registry name: the name of the file that the method lives in."""
        return cls.__module__.rpartition(".")[2]

    @property
    def spec(self) -> str:
        """The spec string that makes this very method: `yarn:factor=8`. Settings at their default are left out."""
        settings = [
            f"{field.name}={format_value(value)}" for field in fields(self) if (value := getattr(self, field.name)) != _default(field)
        ]
        return f"{self.name()}:{','.join(settings)}" if settings else self.name()

    def __str__(self) -> str:
        """The spec."""
        return self.spec

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> "tuple[Method, ...]":
        """The settings worth trying to stretch a model from `trained_window` to `target` tokens, without tuning; `stretch` measures them.

        Each must reach the target. A method that cannot stretch a model by itself suggests nothing.
        """
        return ()

    @classmethod
    def suggest_on(cls, other: "Method") -> "tuple[Method, ...]":
        """For methods that improve on another one: the settings worth stacking on `other` (`self_extend:... + log_n`)."""
        return ()

    @classmethod
    def document(cls) -> dict[str, str]:
        """The module docstring in parts: `summary`, and what follows `Paper:`, `Cost:`, `Limits:`, `Differs from the paper:`."""
        return parse_document(sys.modules[cls.__module__].__doc__ or "")


_LABELS = ("Paper", "Cost", "Limits", "Differs from the paper")


def parse_document(text: str) -> dict[str, str]:
    """Split a method's module docstring into its summary and its labelled parts, white space folded."""
    label = "summary"
    parts = dict.fromkeys((label, *_LABELS), "")
    for line in text.strip().splitlines():
        for candidate in _LABELS:
            if line.startswith(f"{candidate}:"):
                label, line = candidate, line.removeprefix(f"{candidate}:")
        if not line.strip():
            label = "details"
        parts[label] = f"{parts.get(label, '')} {line.strip()}".strip()
    # `Cost: ...   Limits: ...` may share a line.
    cost, found, limits = parts["Cost"].partition("Limits:")
    if found:
        parts["Cost"], parts["Limits"] = cost.strip(), limits.strip()
    return parts


def format_value(value: Any) -> str:
    """A setting as the spec grammar writes it: exact, and without the `+` that stacks methods (`1e+16` is `1e16`)."""
    if isinstance(value, float):
        return repr(value).removesuffix(".0").replace("e+", "e")
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def at_least(method: Method, minimum: float, *names: str) -> None:
    """Raise SpecError for each named setting that is below `minimum` or not finite; None (not given) passes."""
    for name in names:
        value = getattr(method, name)
        if value is not None and not minimum <= value < math.inf:  # written so that it also refuses nan
            wanted = "finite" if value == math.inf else f"at least {minimum:g}"
            raise SpecError(f"{method.name()}: {name}={format_value(value)} must be {wanted}")


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else MISSING
