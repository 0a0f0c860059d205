"""Formulas of FinQA: nested calls of a few functions on numbers, which are computed exactly and never run as code."""

import re
from collections.abc import Callable
from decimal import Decimal, DecimalException, localcontext

FUNCTIONS: dict[str, Callable[[Decimal, Decimal], Decimal | bool]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "exp": lambda a, b: a**b,
    "greater": lambda a, b: a > b,
}
_TOKEN = re.compile(r"\s*(?:(?P<name>[a-z]+)\s*\(|(?P<number>[-+]?[$€£]?\d+(?:\.\d+)?%?)|(?P<step>#\d+)|(?P<other>[(),]))")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DEEP = 20
_DIGITS = 28


class FormulaError(ValueError):
    """A formula that cannot be computed."""


def computed(formula: str) -> Decimal | bool:
    """The value of a formula: `divide(subtract(120, 100), 100)`, or steps as FinQA writes them: `subtract(120, 100), divide(#0, 100)`.

    Numbers may have a sign of money, and commas where that leaves no doubt; `5%` is 0.05, and `const_100` is 100.

    >>> computed("divide(subtract(1,200, 1000), 1000)"), computed("subtract(120, 100), divide(#0, 100)"), computed("greater(3, 2)")
    (Decimal('0.2'), Decimal('0.2'), True)

    Raises: FormulaError for what is no formula, and what has no value.
    """
    text = re.sub(r"const_(\d+)", r"\1", formula.strip().lower())
    try:
        return _value(text)
    except FormulaError:
        if (merged := _THOUSANDS.sub("", text)) == text:
            raise
        return _value(merged)


def _value(text: str) -> Decimal | bool:
    try:
        with localcontext() as context:
            context.prec = _DIGITS
            return _FormulaReader(text).steps()
    except (DecimalException, OverflowError) as error:
        raise FormulaError("it has no value") from error


class _FormulaReader:
    """Reads a formula from left to right."""

    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0
        self._found: list[Decimal | bool] = []

    def steps(self) -> Decimal | bool:
        """The value of the last step."""
        while True:
            self._found.append(self._call())
            if not self._text[self._at :].strip(" \n.;"):
                return self._found[-1]
            self._expect(",")

    def _call(self, depth: int = 0) -> Decimal | bool:
        token = self._next()
        if token["name"] is None or token["name"] not in FUNCTIONS or depth > _DEEP:
            raise FormulaError(f"write it with {', '.join(FUNCTIONS)}")
        first = self._argument(depth)
        self._expect(",")
        second = self._argument(depth)
        self._expect(")")
        return FUNCTIONS[token["name"]](first, second)

    def _argument(self, depth: int) -> Decimal:
        before = self._at
        token = self._next()
        if token["number"] is not None:
            return _number(token["number"])
        if token["step"] is not None:
            number = int(token["step"][1:])
            if number >= len(self._found):
                raise FormulaError(f"there is no step #{number} before it")
            value = self._found[number]
        else:
            self._at = before
            value = self._call(depth + 1)
        if isinstance(value, bool):
            raise FormulaError("greater gives no number to go on with")
        return value

    def _next(self) -> re.Match[str]:
        token = _TOKEN.match(self._text, self._at)
        if token is None:
            raise FormulaError(f"{self._text[self._at : self._at + 20]!r} is neither a number nor a function")
        self._at = token.end()
        return token

    def _expect(self, sign: str) -> None:
        token = self._next()
        if token["other"] != sign:
            raise FormulaError(f"{sign!r} is missing")


def _number(text: str) -> Decimal:
    plain = re.sub(r"[$€£+]", "", text)
    return Decimal(plain.removesuffix("%")) / (100 if plain.endswith("%") else 1)
