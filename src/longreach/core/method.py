"""The method contract: a frozen dataclass in a file of its own, described by its docstring and its `info`."""

import math
import sys
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from longreach.core.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

    from longreach.core.bands import LayerContext

Verdict = Literal["holds", "does not hold", "undecided"]
Condition = Literal["untuned", "tuned", "trained"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What the paper reports, and the number of ours that shows whether it holds here.

    Args: text: the paper's result. metric: the name of a file in evaluation/claims, or a key of METRICS in the experiment that has
    a model for it. condition: of the model that the result is about: `untuned` (a checkpoint as it is), `tuned` (after continued training
    under the method), or `trained` (from scratch, or weights of the method's own). times: trained windows that it is about (default:
    those that evidence goes to).
    at_least, at_most: where it counts as delivered.
    """

    text: str
    metric: str
    condition: Condition = "untuned"
    times: int | None = None
    at_least: float | None = None
    at_most: float | None = None

    def verdict(self, low: float, high: float) -> Verdict:
        """Whether a number that lies between `low` and `high` is inside the bounds; undecided where it may be either."""
        at_least = -math.inf if self.at_least is None else self.at_least
        at_most = math.inf if self.at_most is None else self.at_most
        if at_least <= low and high <= at_most:
            return "holds"
        return "does not hold" if high < at_least or low > at_most else "undecided"

    @property
    def bounds(self) -> str:
        """The bounds in words: `at least 0.9`."""
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodInfo:
    """What a method declares of itself; the core reads it and never asks which method it is.

        Args: title: the paper's full title. paper: its identifier (`arXiv:2401.01325`), or where it was published.
        training_free: works on a checkpoint as it is. exportable: transformers can run it from a plain config.
        bounded_memory: keeps a fixed number of tokens however many were seen. forgets: text beyond that number is lost.
        length_dependent: its frequencies or bands change with the number of tokens seen. plain_inside: up to the trained window they are
    the model's own, and the engine then leaves attention to the model, bit for bit. per_head: each key-value head has its frequencies.
    changes_positions: works by positions alone, and so has no effect where a layer uses none. reads_text: places tokens by the text that
    they stand for, and so needs the tokenizer. fitted: has settings that have to be found for each model; its file says how, as `FIT`
    (core/fitting.py). claims: what the evidence table holds it to.
    """

    title: str
    paper: str
    training_free: bool = True
    exportable: bool = False
    bounded_memory: bool = False
    forgets: bool = False
    length_dependent: bool = False
    plain_inside: bool = False
    per_head: bool = False
    changes_positions: bool = False
    reads_text: bool = False
    fitted: bool = False
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a spec string can name: a frozen keyword-only dataclass in the file of a method."""

    @classmethod
    def name(cls) -> str:
        """The registry name: the name of the file that the method lives in."""
        return cls.__module__.rpartition(".")[2]

    @property
    def spec(self) -> str:
        """The spec string that makes this very object: `yarn:factor=8`. Settings at their default are left out."""
        settings = [
            f"{field.name}={format_value(value)}" for field in fields(self) if (value := getattr(self, field.name)) != _default(field)
        ]
        return f"{self.name()}:{','.join(settings)}" if settings else self.name()

    def __str__(self) -> str:
        """The spec."""
        return self.spec


@dataclass(frozen=True, kw_only=True)
class Method(Settings):
    """Base of every method. Subclasses have `info`; kinds set `kind`.

    weights_alone: of a method with weights of its own: they are all that has to be trained, and the model's stay as they are.

    Where what a method declares depends on its settings, an instance may have an `info` of its own (`declare`).
    """

    kind: ClassVar[str]
    info: ClassVar[MethodInfo]
    weights_alone: ClassVar[bool] = True

    def declare(self, **changes: Any) -> None:
        """Give this very method an `info` with other flags than its class has; for `__post_init__`."""
        object.__setattr__(self, "info", replace(self.info, **changes))

    def weights(self, layer: "LayerContext") -> "dict[str, Tensor]":
        """Weights of its own that the method needs in a layer, by name, as they are before training.

        What it returns for the first layer only, all layers share. They arrive in `layer.weights`, as `t5_bias.table` (engine/weights.py).
        """
        return {}

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
    def auto_factor(cls, trained_window: int, target: int) -> float:
        """What `factor=auto` means: the factor of the first suggestion, and 1 where the target is inside the window.

        Raises: SpecError for a method that suggests no factor for this target.
        """
        if target <= trained_window:
            return 1.0
        for method in cls.suggest(trained_window, target):
            factor: float | None = getattr(method, "factor", None)
            if factor is not None:
                return factor
        raise SpecError(f"{cls.name()}: factor=auto is not known for {target} tokens; write a number")

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


def at_least(method: Settings, minimum: float, *names: str) -> None:
    """Raise SpecError for each named setting that is below `minimum` or not finite; None (not given) passes."""
    for name in names:
        value = getattr(method, name)
        if value is not None and not minimum <= value < math.inf:  # written so that it also refuses nan
            wanted = "finite" if value == math.inf else f"at least {minimum:g}"
            raise SpecError(f"{method.name()}: {name}={format_value(value)} must be {wanted}")


def at_most(method: Settings, maximum: float, *names: str) -> None:
    """Raise SpecError for each named setting that is above `maximum`; None (not given) passes."""
    for name in names:
        value = getattr(method, name)
        if value is not None and not value <= maximum:
            raise SpecError(f"{method.name()}: {name}={format_value(value)} must be at most {maximum:g}")


def _default(field: Any) -> Any:
    return field.default if field.default is not MISSING else MISSING
