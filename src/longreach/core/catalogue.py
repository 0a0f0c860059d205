"""What there is to choose from: every registered method with what its file says of it. Listing imports the methods' modules."""

import types
import typing
from dataclasses import MISSING, dataclass, fields
from typing import Any

from longreach.core import registry
from longreach.core.method import Method, MethodInfo, Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A setting of a method. Args: type: as `int or none`. default: None where the setting is required, too."""

    name: str
    type: str
    required: bool
    default: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A method. Args: arguments: what its settings mean. flags: the names of what its `info` declares as true. fit, fit_arguments: the
    settings of its fit, and what they mean, where it has to be fitted.
    """

    kind: str
    name: str
    title: str
    paper: str
    summary: str
    cost: str
    limits: str
    differs: str
    arguments: str
    settings: tuple[Setting, ...]
    flags: tuple[str, ...]
    fit: tuple[Setting, ...]
    fit_arguments: str


def catalogue(kind: str | None = None) -> list[Entry]:
    """Every registered method, or those of one kind, by kind and name."""
    return [describe(registry.get(name)) for of in ([kind] if kind else registry.KINDS) for name in registry.names(of)]


def describe(method: type[Method]) -> Entry:
    """A method as its file describes it."""
    document = method.document()
    fit: type[Settings] | None = getattr(registry.module(method.name()), "FIT", None)
    return Entry(
        kind=method.kind,
        name=method.name(),
        title=method.info.title,
        paper=method.info.paper,
        summary=document["summary"],
        cost=document["Cost"],
        limits=document["Limits"],
        differs=document["Differs from the paper"],
        arguments=_arguments(method),
        settings=_settings(method),
        flags=tuple(field.name for field in fields(MethodInfo) if getattr(method.info, field.name) is True),
        fit=() if fit is None else _settings(fit),
        fit_arguments="" if fit is None else _arguments(fit),
    )


def _arguments(settings: type[Settings]) -> str:
    return " ".join((settings.__doc__ or "").split()).removeprefix("Args: ")


def _settings(method: type[Settings]) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(method)
    return tuple(
        Setting(
            name=field.name,
            type=_type_name(hints[field.name]),
            required=field.default is MISSING and field.default_factory is MISSING,
            default=None if field.default is MISSING else field.default,
        )
        for field in fields(method)
    )


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(option) for option in typing.get_args(hint))
    return "none" if hint is type(None) else str(getattr(hint, "__name__", hint))
