"""The spec grammar: `name:key=value,key=value`, stacked with `+` (`yarn:factor=8+log_n`)."""

import difflib
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, fields
from typing import Any

from longreach.core import registry
from longreach.core.errors import LongreachError, SpecError
from longreach.core.kinds import Subject
from longreach.core.lengths import parse_length
from longreach.core.method import Method, Settings

S = typing.TypeVar("S", bound=Settings)

AUTO_FACTOR = "auto"
STOCK = "stock"  # what people call the model without a method


def parse(spec: str, *, trained_window: int | None = None, target: int | None = None, acts_on: Subject = "model") -> tuple[Method, ...]:
    """The methods that a spec names, in its order. `factor=auto` is the factor that stretches `trained_window` tokens to `target`.

    Args: spec: `name:key=value,key=value`, stacked with `+`. trained_window, target: in tokens; also for methods without settings, which
    then mean what they suggest for these lengths. acts_on: what methods are meant where several kinds have one of that name.
    Raises: SpecError for an unknown name or key, a missing or malformed value, a value out of range, or `factor=auto` without lengths.
    """
    return tuple(_parse_one(part.strip(), trained_window, target, acts_on) for part in spec.split("+"))


def stack_of(
    method: str | Method | Iterable[str | Method] | None, *, trained_window: int | None = None, target: int | None = None
) -> tuple[Method, ...]:
    """The methods meant by a spec, a method, several of them, or None. The lengths are for `factor=auto`.

    Raises: SpecError for a spec that does not parse.
    """
    if not method:
        return ()
    if isinstance(method, str):
        return parse(method, trained_window=trained_window, target=target)
    if isinstance(method, Method):
        return (method,)
    if not isinstance(method, Iterable):
        raise SpecError(f"{method!r} is no method: write a spec, as yarn:factor=8, or give a method, or a list of both")
    return tuple(each for part in method for each in stack_of(part, trained_window=trained_window, target=target))


def check_spec(spec: str) -> None:
    """Raise what `parse` would raise once the lengths are known that `factor=auto` waits for."""
    parse(spec, trained_window=1, target=2)


def check_names(specs: Iterable[str], *, acts_on: Subject = "model") -> None:
    """Refuse specs with a name that nothing has, without importing any method. Raises: SpecError."""
    for spec in specs:
        for part in spec.split("+"):
            registry.locate(part.partition(":")[0].strip(), acts_on=acts_on)


def unparse(methods: typing.Iterable[Method]) -> str:
    """The spec of a stack of methods."""
    return "+".join(method.spec for method in methods)


def parse_settings(text: str) -> tuple[str, dict[str, str]]:
    """The name of one spec (`name:key=value,key=value`) and its settings as text.

    Raises: SpecError where it does not parse.
    """
    name, colon, rest = text.partition(":")
    if not name:
        raise SpecError(f"empty method in spec {text!r}; write name:key=value,key=value")
    if colon and not rest:
        raise SpecError(f"{name}: nothing after the colon; write {name}:key=value,key=value")
    settings: dict[str, str] = {}
    for item in rest.split(",") if rest else ():
        key, value = _setting(name, item)
        if key in settings:
            raise SpecError(f"{name}: {key} is given twice, as {settings[key]} and as {value}")
        settings[key] = value
    return name, settings


def _parse_one(text: str, trained_window: int | None, target: int | None, acts_on: Subject) -> Method:
    name, settings = parse_settings(text)
    method = registry.get(name, acts_on=acts_on)
    if settings.get("factor") == AUTO_FACTOR and any(field.name == "factor" for field in fields(method)):
        if trained_window is None or target is None:
            raise SpecError(f"{name}: factor=auto needs to know the length to reach; give a target, or write the factor as a number")
        return make(method, {**settings, "factor": method.auto_factor(trained_window, target)})
    if not settings and trained_window is not None and target is not None and any(_required(field) for field in fields(method)):
        # By itself it means what it suggests for this length; inside the window there is nothing to stretch.
        suggested = method.suggest(trained_window, max(trained_window, target))
        if suggested:
            return suggested[0]
    return make(method, settings)


def _required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def split_specs(options: Iterable[str], also: str = "") -> list[str]:
    """The specs in values of an option that may be repeated: white space and `;` separate them, and the characters in `also`."""
    return [spec for option in options for spec in re.split(rf"[\s;{re.escape(also)}]+", option) if spec]


def _setting(name: str, item: str) -> tuple[str, str]:
    key, equals, value = item.partition("=")
    other = key.partition(":")[0].strip()
    if other in registry.names() and (":" in key or not equals):
        why = "separate methods by white space or ';', or repeat the option; + stacks them"
        raise SpecError(f"{name}: after the comma comes {other}, which is no setting but another method; {why}")
    if not equals or not key.strip() or not value.strip():
        raise SpecError(f"{name}: {item!r} is not a setting; write key=value")
    return key.strip(), value.strip()


def make(method: type[S], settings: dict[str, Any]) -> S:
    """A method (or what else has settings) from settings given as text (from a spec) or as values (from a program)."""
    known = {field.name: field for field in fields(method)}
    hints = typing.get_type_hints(method)
    values = {}
    for key, value in settings.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"it takes: {', '.join(known) or 'no settings'}"
            raise SpecError(f"{method.name()}: unknown setting {key!r}; {hint}")
        values[key] = _convert(method.name(), key, value, hints[key]) if isinstance(value, str) else value
    for key, field in known.items():
        if key not in values and _required(field):
            raise SpecError(f"{method.name()}: {key} is missing; write {method.name()}:{key}=...")
    return method(**values)


def _convert(name: str, key: str, text: str, hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if type(None) in options and text == "none":
        return None
    (wanted,) = (option for option in options if option is not type(None))
    if typing.get_origin(wanted) is typing.Literal:
        if text not in (words := typing.get_args(wanted)):
            raise SpecError(f"{name}: {key}={text} must be {', '.join(words[:-1])} or {words[-1]}")
        return text
    try:
        if wanted is bool:
            return {"true": True, "false": False}[text]
        if wanted is int:
            return int(text) if text.lstrip("+-").isdecimal() else parse_length(text)
        return wanted(text)
    except (ValueError, KeyError) as error:
        if isinstance(error, LongreachError) and wanted is not int:  # as of a file that is not what it should be
            raise SpecError(f"{name}: {key}={text}: {error}") from None
        kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(wanted, wanted.__name__)
        raise SpecError(f"{name}: {key}={text} is not {kind}") from None
