"""Finds methods by name. A file in a kind's folder is a method of that kind: listing imports nothing, using imports that file."""

import difflib
import importlib
import importlib.util
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from types import ModuleType

from longreach.core.errors import SpecError
from longreach.core.method import Method

# kind -> the package whose files are its methods. Outside packages join by the entry point group `longreach.<kind>`.
KINDS = {
    "positions": "longreach.positions",
    "attention": "longreach.attention",
    "cache": "longreach.cache",
    "sampler": "longreach.training.samplers",
    "task": "longreach.evaluation.tasks",
}


@cache
def modules() -> dict[str, tuple[str, str]]:
    """Every method's name -> (kind, module that defines it), without importing any.

    Raises: SpecError where two modules claim one name, or an entry point is not called as its module is.
    """
    found: dict[str, tuple[str, str]] = {}
    for kind, package in KINDS.items():
        spec = importlib.util.find_spec(package)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        claims = [(module.name, f"{package}.{module.name}") for module in pkgutil.iter_modules(folders)]
        claims += [(point.name, point.value) for point in entry_points(group=f"longreach.{kind}")]
        for name, module in claims:
            if name == "base" or name.startswith("_"):
                continue
            if name in found:
                raise SpecError(f"two methods are called {name!r}: {found[name][1]} and {module}")
            if module.rpartition(".")[2] != name:
                raise SpecError(f"the method {name!r} lives in {module}: a method is called as its file is; rename one of them")
            found[name] = (kind, module)
    return dict(sorted(found.items()))


def names(kind: str | None = None) -> list[str]:
    """Names of all methods, or of one kind's."""
    return [name for name, (of, _) in modules().items() if kind in (None, of)]


def module(name: str, kind: str | None = None) -> ModuleType:
    """The module of a method.

    Raises: SpecError for an unknown name, with the nearest known ones.
    """
    known = modules()
    if name not in known or kind not in (None, known[name][0]):
        close = difflib.get_close_matches(name, names(kind), n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names(kind))}"
        raise SpecError(f"unknown {kind or 'method'} {name!r}; {hint}")
    return importlib.import_module(known[name][1])


def get(name: str, kind: str | None = None) -> type[Method]:
    """The class of a method (its module's `METHOD`)."""
    method: type[Method] = module(name, kind).METHOD
    return method
