"""Finds methods by name. A file at any depth in a kind's package is a method of that kind.

Listing imports nothing; using a method imports its file.
"""

import difflib
import importlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from longreach.core.errors import SpecError
from longreach.core.kinds import DECLARATION, Subject, all_kinds, kinds
from longreach.core.method import Method

_NO_METHODS = ("base", "main", DECLARATION)  # files of a package that have other purposes


@cache
def modules() -> dict[tuple[str, str], str]:
    """(kind, name) -> module that defines it, for every method, without importing any.

    Raises: SpecError where two modules of one kind claim one name, or an entry point is not called as its module is.
    """
    found: dict[tuple[str, str], str] = {}
    for kind in all_kinds().values():
        claims = [(module.rpartition(".")[2], module) for module in _below(kind.package)]
        claims += [(point.name, point.value) for point in entry_points(group=f"longreach.{kind.name}")]
        for name, module in sorted(claims, key=lambda claim: claim[0]):
            if (kind.name, name) in found:
                raise SpecError(f"two methods are called {name!r}: {found[kind.name, name]} and {module}")
            if module.rpartition(".")[2] != name:
                raise SpecError(f"the method {name!r} lives in {module}: a method is called as its file is; rename one of them")
            found[kind.name, name] = module
    return found


def _below(package: str) -> Iterator[str]:
    """The modules of a package that are methods; folders of its that are kinds of their own, or private, are left out."""
    others = {kind.package for kind in all_kinds().values()} - {package}
    pending = [(package, Path(folder)) for folder in importlib.import_module(package).__path__]
    while pending:
        name, folder = pending.pop()
        for path in folder.iterdir():
            within = f"{name}.{path.stem}"
            if path.stem.startswith("_") or path.stem in _NO_METHODS or within in others:
                continue
            if path.suffix == ".py":
                yield within
            elif (path / "__init__.py").is_file():
                pending.append((within, path))


def asked(kind: str | None = None) -> dict[tuple[str, str], str]:
    """`modules` of one kind, or of all that users choose from."""
    wanted = kinds() if kind is None else (kind,)
    return {(of, name): module for (of, name), module in modules().items() if of in wanted}


def names(kind: str | None = None) -> list[str]:
    """Names of all methods, or of one kind's."""
    return sorted({name for _, name in asked(kind)})


def locate(name: str, kind: str | None = None, *, acts_on: Subject | None = None) -> str:
    """The name of the module of a method, which is not imported.

    Args: kind: where it has to be of one. acts_on: of several methods of that name, the one that acts on this.
    Raises: SpecError for an unknown name, with the nearest known ones, and for one that several kinds have.
    """
    having = [of for of, known in asked(kind) if known == name]
    if not having:
        meant = [kind] if kind in all_kinds() else [of for of, each in kinds().items() if kind is None and acts_on in (None, each.acts_on)]
        known = sorted({each for of in meant for each in names(of)})
        close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
        called = {all_kinds()[of].called or of for of in meant}
        raise SpecError(f"unknown {called.pop() if len(called) == 1 else 'method'} {name!r}; {hint}")
    if len(having) > 1:
        having = [of for of in having if kinds()[of].acts_on == acts_on] or having
    if len(having) > 1:
        raise SpecError(f"{name!r} is a {' and a '.join(having)}; say which kind is meant")
    return modules()[having[0], name]


def module(name: str, kind: str | None = None, *, acts_on: Subject | None = None) -> ModuleType:
    """The module of a method. Takes and raises what `locate` does."""
    return importlib.import_module(locate(name, kind, acts_on=acts_on))


def get(name: str, kind: str | None = None, *, acts_on: Subject | None = None) -> type[Method]:
    """The class of a method (its module's `METHOD`)."""
    found = module(name, kind, acts_on=acts_on)
    if not hasattr(found, "METHOD"):
        raise SpecError(f"{name!r} is no method that a spec can name, but a {_kind_of(found)}")
    method: type[Method] = found.METHOD
    return method


def methods(kind: str | None = None) -> Iterator[type[Method]]:
    """The classes of all methods, or of one kind's, by kind and name; imports them."""
    for path in asked(kind).values():
        if hasattr(found := importlib.import_module(path), "METHOD"):
            yield found.METHOD


def _kind_of(found: ModuleType) -> str:
    return next(of for (of, _), path in modules().items() if path == found.__name__)
