"""Methods that have to be fitted to a model: how they are fitted, and the files that hold what was found.

A method whose `info` declares `fitted` has a `FIT` in its file: a class of settings whose `run` finds, on a bench, what the method needs.
`longreach fit` writes that into a JSON file, which the method takes as a setting of the type `FittedFile`: `longrope:file=nano-4k.json`.
"""

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from longreach.core.errors import InputError, SpecError
from longreach.core.files import write_text
from longreach.core.method import Method, Settings

FORMAT = 1

_ANY = "`longreach fit` or `longreach heads`"
_NAMED = re.compile(r"(.+)@([0-9a-f]{12})")
_known: dict[str, dict[str, Any]] = {}  # digest -> contents: what was read once is found without its file


class BudgetSpent(Exception):  # noqa: N818 - not an error: the fit ends with the best that it has found
    """As many evaluations, or as much time, as the user allowed."""


class Bench(ABC):
    """What a fit works with: a model, real text, and a count of what it may still spend.

    Args: model, tokenizer: transformers' own. trained_window, target: tokens. seed: of everything random.
    """

    model: Any
    tokenizer: Any
    trained_window: int
    target: int
    seed: int

    @abstractmethod
    def rope(self) -> Any:
        """The model's rotary embedding (`positions.base.Rope`).

        Raises: UnsupportedError for a model without one.
        """

    @abstractmethod
    def begin(self, label: str, evaluations: int, *, least: int = 1, share: float = 1.0) -> None:
        """Work called `label` begins, of so many evaluations at most; it may spend `share` of what is left of the budget.

        Its first `least` evaluations are made whatever the budget: without them it would have no result.
        """

    @abstractmethod
    def loss(self, method: Method, length: int) -> float:
        """Nats a token over the first `length` tokens of each window of text, under `method`. Nothing is evaluated twice.

        Raises: BudgetSpent.
        """

    def sharpness(self, method: Method | None, length: int, metric: str) -> float:
        """How sharply an encoder attends in pieces of `length` tokens of the windows of text, under `method` (None: as it is).

        Args: metric: `entropy` (nats) or `max_probability`, means over layers, heads and queries. Nothing is evaluated twice.
        Raises: BudgetSpent; UnsupportedError for a model without an encoder of the kind that the method needs.
        """
        raise NotImplementedError

    def slopes(self, method: Method, length: int, window: int) -> tuple[float, list[float]]:
        """Nats a token over the first `length` tokens of one window of text (counted on from the first after the last), under a positions
        method, and its derivatives by the frequencies of that method, the model's weights held fixed. Nothing is evaluated twice.

        Raises: BudgetSpent.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Fit(Settings, ABC):
    """How a method is fitted: settings, as `longreach fit MODEL METHOD:key=value` gives them, and the work."""

    @property
    def metric(self) -> str:
        """What it is fitted by, and compared by on other text: `loss`, or a metric of `Bench.sharpness`."""
        return "loss"

    def stated_window(self) -> int | None:
        """The trained window, where the settings state one; None leaves it to the model's config."""
        return None

    @abstractmethod
    def run(self, bench: Bench) -> dict[str, Any]:
        """What was found, in plain JSON values: the `fitted` of the file. The same seed and losses give the same."""

    def baselines(self, trained_window: int, target: int) -> tuple[Method, ...]:
        """Methods that need no fitting, to compare the result with on other text."""
        return ()


class FittedFile:
    """A file that `longreach fit` wrote, as a setting: `NAME`, or `NAME@DIGEST` where its contents are to be these and no others.

    Contents that were seen once (also those that a checkpoint's longreach.json holds) are found by their digest, without the file.
    Equal are those of one name and equal contents. A method whose file another command writes takes a class of its own, which says so.
    """

    __slots__ = ("digest", "name")
    made_by: ClassVar[str] = "longreach fit"  # the command that writes such files

    def __init__(self, text: str) -> None:
        match = _NAMED.fullmatch(text)
        self.name: str = match[1] if match else text
        digest = match[2] if match else None
        if digest is not None and digest in _known:
            self.digest = digest
            return
        self.digest = remember(_read(Path(self.name).expanduser(), self._command()), self._command())
        if digest not in (None, self.digest):
            raise SpecError(f"the file holds other contents by now (@{self.digest}); leave @{digest} out to take it as it is")

    @classmethod
    def of(cls, name: str, data: dict[str, Any]) -> Self:
        """Contents that no file holds yet."""
        return cls(f"{name}@{remember(data, cls._command())}")

    @classmethod
    def _command(cls) -> str:
        return f"`{cls.made_by}`"

    @property
    def data(self) -> dict[str, Any]:
        """The contents: `format`, `method`, `fitted`, and what else `longreach fit` wrote. Not to be changed."""
        return _known[self.digest]

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FittedFile) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class HeadsFile(FittedFile):
    """A file of the scores of heads."""

    __slots__ = ()
    made_by = "longreach heads MODEL --save FILE"


def fitted_by(method: Settings) -> dict[str, dict[str, Any]]:
    """digest -> contents of every fitted file among the settings of a method."""
    values = (getattr(method, field.name) for field in fields(method))
    return {value.digest: value.data for value in values if isinstance(value, FittedFile)}


def remember(data: dict[str, Any], command: str = _ANY) -> str:
    """Keep contents, to be found by their digest, which is returned.

    Args: command: that writes such files, as messages name it.
    Raises: SpecError for what it did not write.
    """
    if not (isinstance(data, dict) and isinstance(data.get("method"), str) and isinstance(data.get("fitted"), dict)):
        raise SpecError(f"not a file of {command} (it has no method with what was fitted)")
    if data.get("format") != FORMAT:
        raise SpecError(f"its format is {data.get('format')!r} and this longreach reads {FORMAT}; fit the method again")
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
    _known.setdefault(digest, data)
    return digest


def _read(path: Path, command: str = _ANY) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(f"the file cannot be read: {error.strerror}; {command} makes one") from None
    except ValueError:  # also of bytes that are no text
        raise SpecError(f"not a file of {command} (not JSON)") from None


def check_place(path: Path) -> None:
    """Refuse a place for a fitted file where it could not be written, or named in a spec.

    Raises: InputError.
    """
    if wrong := sorted(set(str(path)) & set(",+@;")):
        raise InputError(f"{path} cannot be named in a spec, where {' and '.join(wrong)} has a meaning; choose another name")
    if path.exists():
        try:
            remember(_read(path))
        except SpecError:
            raise InputError(f"{path} exists and is not a file of {_ANY}; choose another name") from None
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise InputError(f"{path} cannot be written: {path.parent} is not a folder that can be written to")


def write_fitted(path: Path, data: dict[str, Any]) -> None:
    """Write the contents of a fitted file; a stopped process leaves the old file whole.

    Raises: InputError where that fails.
    """
    try:
        write_text(path, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
