"""Reads the fields of a request's body: each is checked, and one that is not known is refused by name, never ignored."""

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from longreach.serving.errors import ApiError, wrong

_MANY = 8  # names that are listed


def parsed(raw: bytes) -> Any:
    """The JSON of a body. Raises: ApiError for what is none, or holds text that no UTF-8 can be made of."""
    try:
        text = raw.decode("utf-8")
        found = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():
            json.dumps(found, ensure_ascii=False).encode("utf-8")  # refuses halves of surrogate pairs
    except RecursionError:
        raise wrong(None, "the body is nested too deeply") from None
    except ValueError as error:
        raise wrong(None, f"the body is not valid JSON: {' '.join(str(error).split())[:200]}") from None
    return found


class Fields:
    """The fields of a JSON object, each taken once. A field that is null counts as not given.

    Args: found: what should be an object. where: its path in the body, as `messages[0]`; "" is the body itself.
    Raises: ApiError where it is none; so do all methods, for a field that is not what it should be.
    """

    def __init__(self, found: Any, where: str = "") -> None:
        if not isinstance(found, dict):
            what = where or "the body"
            raise wrong(where or None, f"{what} must be a JSON object, not {_kind(found)}")
        self.where = where
        self._left: dict[str, Any] = {name: value for name, value in found.items() if value is not None}

    def path(self, name: str) -> str:
        """How a field is named to the client."""
        return f"{self.where}.{name}" if self.where else name

    def take(self, name: str) -> Any:
        """A field as it is; None where it is not given."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.refuse(name, f"must be a string, not {_kind(value)}")
        return value

    def needed_text(self, name: str) -> str:
        """A string that has to be there."""
        value = self.text(name)
        if value is None:
            raise self.refuse(name, "is missing")
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number of a range."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(name, f"must be a whole number, not {_kind(value)}")
        if not low <= value <= high:
            raise self.refuse(name, f"must be from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number of a range."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(name, f"must be a number, not {_kind(value)}")
        if (isinstance(value, float) and not math.isfinite(value)) or not low <= value <= high:
            raise self.refuse(name, f"must be from {low:g} to {high:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false; false where it is not given."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(name, f"must be true or false, not {_kind(value)}")
        return bool(value)

    def items(self, name: str, most: int) -> list[Any] | None:
        """A list."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            raise self.refuse(name, f"must be a list, not {_kind(value)}")
        if value is not None and len(value) > most:
            raise self.refuse(name, f"has {len(value)} entries, and may have {most}")
        return value

    def texts(self, name: str, most: int, longest: int) -> tuple[str, ...]:
        """A string, or a list of some; none may be empty."""
        value = self.take(name)
        found = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(found, list) or not all(isinstance(each, str) and 0 < len(each) <= longest for each in found):
            raise self.refuse(name, f"must be a string or a list of strings, none empty or longer than {longest} characters")
        if len(found) > most:
            raise self.refuse(name, f"has {len(found)} entries, and may have {most}")
        return tuple(found)

    def inner(self, name: str) -> "Fields | None":
        """An object."""
        value = self.take(name)
        return None if value is None else Fields(value, self.path(name))

    def only(self, values: Mapping[str, Collection[Any]]) -> None:
        """Fields that are taken with values that change nothing, and refused with any other. Args: values: name -> these."""
        for name, neutral in values.items():
            value = self.take(name)
            if value is not None and (isinstance(value, bool), value) not in [(isinstance(each, bool), each) for each in neutral]:
                raise self.refuse(name, "is not supported by this server; leave it out", "unsupported_parameter")

    def done(self) -> None:
        """Refuse what is left."""
        if self._left:
            names = [self.path(name) for name in self._left]
            listed = ", ".join(names[:_MANY])
            raise wrong(names[0][:200], f"Unrecognized request argument supplied: {listed[:500]}", "unknown_parameter")

    def refuse(self, name: str, why: str, code: str | None = None) -> ApiError:
        """What is said of a field."""
        return wrong(self.path(name), f"{self.path(name)} {why}", code)


def _kind(value: Any) -> str:
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
