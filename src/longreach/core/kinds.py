"""The kinds of things that the catalogue lists: each is declared by a file `kind.py` in its package, and found there.

A package of others adds a kind by an entry point in the group `longreach.kinds` whose value is the module that declares it, and methods to
a kind by one in the group `longreach.<kind>`. Finding kinds imports neither their methods nor torch.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, get_args

from longreach.core.errors import SpecError

DECLARATION = "kind"  # name of the file that declares one
Subject = Literal["model", "generation", "training", "measurement", "conversation", "endpoint", "command"]
SUBJECTS: tuple[Subject, ...] = get_args(Subject)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a kind is, and where its parts are.

    Args: name: as `longreach methods --kind` takes it. package: whose files are its methods, at any depth. acts_on: what its methods act
    on; a spec for one subject may use a name that another subject has, too. contract: `module:class` that its methods derive from; None:
    its files are no methods but declare what they publish by an `INFO`. suites: modules with the checks that every method has to pass.
    internal: it stands in no list of methods, and no spec takes its names: other files name them, or an option that takes only them.
    called: what messages call one of its methods, where that is not the kind's name.
    """

    name: str
    package: str
    acts_on: Subject
    contract: str | None = None
    suites: tuple[str, ...] = ()
    internal: bool = False
    called: str = ""


@cache
def kinds() -> dict[str, Kind]:
    """Every kind that users choose from, by its name; by what they act on, longreach's own first.

    Raises: SpecError where two declare one name.
    """
    return {name: kind for name, kind in all_kinds().items() if not kind.internal}


@cache
def all_kinds() -> dict[str, Kind]:
    """The same with those that are internal."""
    found: dict[str, Kind] = {}
    outside = [point.value for point in entry_points(group="longreach.kinds")]
    declared: list[Kind] = [importlib.import_module(module).KIND for module in [*_own(), *outside]]
    for kind in sorted(declared, key=lambda kind: SUBJECTS.index(kind.acts_on)):  # stable
        if kind.name in found:
            raise SpecError(f"two kinds are called {kind.name!r}: {found[kind.name].package} and {kind.package}")
        found[kind.name] = kind
    return found


def load(path: str) -> object:
    """What a `module:name` of a declaration names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _own() -> Iterator[str]:
    """The modules of longreach that declare a kind."""
    house = Path(__file__).resolve().parents[1]
    files = sorted(house.rglob(f"{DECLARATION}.py"), key=lambda file: (len(file.relative_to(house).parts), file))
    for file in files:
        yield ".".join(("longreach", *file.relative_to(house).with_suffix("").parts))
