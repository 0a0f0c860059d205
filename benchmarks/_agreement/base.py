"""The contract of a comparison, and the rows that comparisons give."""

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import _agreement
from _agreement.theirs import Source
from longreach.core.errors import InputError

Pair = tuple[Tensor, Tensor]  # (theirs, ours), of one shape
ROUNDING = 1e-6  # of the largest number: what float32 may lose where the same is computed in another order


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One function of authors and one of ours on the same inputs.

    Args: method: our method's name. setting: the spec that is run. repository: owner/name on GitHub. commit: 40 hex digits. file: path in
    it. compared: the numbers, with their unit. inputs: in words. differs: why theirs are others, where they are; empty: they are the
    same. rounding: of the largest number; above it two results are different. run: gives both.
    """

    method: str
    setting: str
    repository: str
    commit: str
    file: str
    compared: str
    inputs: str
    differs: str
    rounding: float
    run: Callable[[Source], Pair]

    def row(self, clones: Path) -> dict[str, object]:
        """Run it.

        Raises: InputError where the clone is not there, and for results of other shapes or not all finite.
        """
        source = Source(clone=clone_of(self.repository, clones), commit=self.commit, file=self.file)
        torch.manual_seed(0)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of their older style, and of lengths beyond what is reached here
            theirs, ours = (found.detach().double() for found in self.run(source))
        if theirs.shape != ours.shape:
            raise InputError(f"{self.method}: the authors' code gives {tuple(theirs.shape)}, ours {tuple(ours.shape)}")
        if not (theirs.isfinite().all() and ours.isfinite().all()):
            raise InputError(f"{self.method}: not all numbers are finite")
        difference, largest = float((theirs - ours).abs().max()), float(theirs.abs().max())
        same = difference <= self.rounding * largest
        return {
            "method": self.method, "setting": self.setting, "repository": self.repository, "commit": self.commit, "file": self.file,
            "compared": self.compared, "inputs": self.inputs, "difference": float(f"{difference:.3g}"),
            "largest": float(f"{largest:.3g}"), "same": same, "differs": self.differs,
        }  # fmt: skip


FOUND: list[Comparison] = []


def compares(
    setting: str, repository: str, commit: str, file: str, *, compared: str, inputs: str, differs: str = "", rounding: float = ROUNDING,
    method: str = "",
) -> Callable[[Callable[[Source], Pair]], Callable[[Source], Pair]]:  # fmt: skip
    """Makes a function a comparison; see `Comparison`. method: where it is not the first in the setting."""

    def add(run: Callable[[Source], Pair]) -> Callable[[Source], Pair]:
        name = method or setting.partition("+")[0].partition(":")[0]
        FOUND.append(
            Comparison(
                method=name, setting=setting, repository=repository, commit=commit, file=file, compared=compared, inputs=inputs,
                differs=differs, rounding=rounding, run=run,
            )
        )  # fmt: skip
        return run

    return add


def comparisons() -> list[Comparison]:
    """All in this package."""
    for module in pkgutil.iter_modules(_agreement.__path__, "_agreement."):
        importlib.import_module(module.name)
    return FOUND


def clone_of(repository: str, clones: Path) -> Path:
    """The clone of a repository, in a folder called owner+name or name.

    Raises: InputError where there is none.
    """
    owner, _, name = repository.partition("/")
    for folder in (f"{owner}+{name}", name):
        if (clones / folder).is_dir():
            return clones / folder
    raise InputError(f"no clone: git clone https://github.com/{repository} {clones / name}")


def without_clone(found: list[Comparison], clones: Path) -> Iterator[str]:
    """What to do about each repository that is not there."""
    for repository in dict.fromkeys(one.repository for one in found):
        try:
            clone_of(repository, clones)
        except InputError as error:
            yield str(error)


def stacked(*parts: Any) -> Tensor:
    """Numbers and tensors as one row of numbers."""
    return torch.cat([torch.as_tensor(part, dtype=torch.float64).reshape(-1) for part in parts])
