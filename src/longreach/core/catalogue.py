"""What there is to choose from: every registered method with what its file says of it. Listing imports the methods' modules."""

import importlib
import types
import typing
from dataclasses import MISSING, dataclass, fields
from types import ModuleType
from typing import Any

from longreach.core import registry
from longreach.core.method import Method, MethodInfo, Settings, parse_document


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A setting of a method. Args: type: as `int or none`. default: None where the setting is required, too."""

    name: str
    type: str
    required: bool
    default: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A method, command or recipe.

    Args: arguments: what its settings mean. flags: the names of what its `info` declares as true. fit, fit_arguments: the
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
    """Everything that was published and that longreach has, or that of one kind, by kind and name.

    Files of kinds without a contract (commands, recipes) stand in it where they declare an `INFO`.
    """
    found = [(of, importlib.import_module(module)) for (of, _), module in registry.asked(kind).items()]
    return [describe(of, module) for of, module in found if hasattr(module, "METHOD") or hasattr(module, "INFO")]


def describe(kind: str, module: ModuleType) -> Entry:
    """A method, or a published system that is none (a command, a recipe), as its file describes it."""
    method: type[Method] | None = getattr(module, "METHOD", None)
    info: MethodInfo = module.INFO if method is None else method.info
    document = parse_document(module.__doc__ or "")
    fit: type[Settings] | None = getattr(module, "FIT", None)
    return Entry(
        kind=kind,
        name=module.__name__.rpartition(".")[2],
        title=info.title,
        paper=info.paper,
        summary=document["summary"],
        cost=document["Cost"],
        limits=document["Limits"],
        differs=document["Differs from the paper"],
        arguments="" if method is None else _arguments(method),
        settings=() if method is None else _settings(method),
        flags=tuple(field.name for field in fields(MethodInfo) if getattr(info, field.name) is True),
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
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(typing.get_args(hint))
    return "none" if hint is type(None) else str(getattr(hint, "__name__", hint))
