"""The methods that a plan compares, where the user names none."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

from longreach.core import registry
from longreach.core.errors import SpecError
from longreach.core.method import Method
from longreach.core.spec import make

_SHARE = 8  # tokens of the text for each that is kept, where a method has to be told a budget
_KINDS = ("positions", "attention", "cache")


def to_compare(window: int | None, context: int) -> list[tuple[Method, ...]]:
    """The model as it is, every cache method, and what stretches `window` to `context` tokens where the text is longer.

    Methods have the settings that they suggest, or else their own defaults; a budget that has to be given is an eighth of the text.
    """
    found: list[tuple[Method, ...]] = [()]
    for kind in _KINDS:
        for method in registry.methods(kind):
            if method.info.training_free and not method.info.fitted:
                found += [(each,) for each in _of(method, window, context)]
    return found


def _of(method: type[Method], window: int | None, context: int) -> Iterator[Method]:
    beyond = window is not None and context > window
    if beyond or method.kind == "cache":
        stretched = method.suggest(window if beyond and window is not None else max(1, context // _SHARE), context)
        if stretched:
            yield from stretched
        elif method.kind == "cache":
            yield from _by_itself(method, context)


def _by_itself(method: type[Method], context: int) -> Iterator[Method]:
    budgets: dict[str, Any] = {"budget": max(1, context // _SHARE), "ratio": 1 / _SHARE}
    needed = [field.name for field in fields(method) if field.default is MISSING and field.default_factory is MISSING]
    try:
        yield make(method, {name: budgets[name] for name in needed})
    except (KeyError, SpecError):  # one that only stands behind another, or a text too short for its other settings
        return
