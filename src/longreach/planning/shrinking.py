"""Shorter texts that stand for a long one, and the settings that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import Any

from longreach.core.errors import SpecError
from longreach.core.method import Method
from longreach.decoding.reading import CHUNK

SHORT = 1024  # tokens of the shorter text, where settings allow it
_LONGEST = 8192  # the same at most where settings shrink, and twice as many where none does
_KEPT = 1024  # settings of so many tokens at most do not shrink: they stand beside the tokens of a forward pass
_BLOCK = 16  # settings from here on are taken for blocks, which larger settings are multiples of
_EVEN = 2 * CHUNK  # texts differ by a multiple of this, so that their last chunks and cuts are alike


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Texts to read in place of one of `context` tokens. Args: short, long: tokens; the same number where the text itself is read. over:
    settings of more tokens shrink with the text.
    """

    context: int
    short: int
    long: int
    over: float

    def part(self, length: int) -> float:
        """Of the context, the part that a text is."""
        return length / self.context

    def window(self, tokens: int | None, length: int) -> int | None:
        """A window of the model in a text of that length."""
        return tokens if tokens is None or tokens <= self.over else max(1, round(tokens * self.part(length)))

    def settings(self, stack: Sequence[Method], length: int) -> tuple[Method, ...]:
        """The methods for a text of that length."""
        return tuple(self._smaller(method, self.part(length)) for method in stack)

    def _smaller(self, method: Method, part: float) -> Method:
        """With settings of many tokens in proportion; in whole blocks, where a method takes no others."""
        large = [field.name for field in fields(method) if getattr(method, field.name) in _settings([method])]
        values = {name: value for name in large if (value := getattr(method, name)) > self.over}
        for whole in (False, True):
            changes: dict[str, Any] = {}
            for name, value in values.items():
                block = _block([method], value) if whole else 1
                changes[name] = type(value)(max(block, round(value * part / block) * block))
            try:
                return replace(method, **changes)
            except SpecError:  # settings that hang together
                continue
        return method


def lengths_for(stack: Sequence[Method], context: int, sliding: int | None = None, *, short: int | None = None) -> Lengths:
    """The shorter text is longer than what does not shrink, and what shrinks is a block in it. Args: sliding: window of the model."""
    values, size, over = [*_settings(stack), *([sliding] if sliding else [])], short or SHORT, float(_KEPT)
    for value in values:
        unshrunk, blocks = value + _KEPT + CHUNK, _block(stack, value) * context // value
        if value <= _KEPT:
            size = max(size, 2 * value + CHUNK)
        elif blocks <= _LONGEST or unshrunk > 2 * _LONGEST:
            size = max(size, min(blocks, _LONGEST))
        else:
            size, over = max(size, unshrunk), inf
    size, rest = -(-size // _EVEN) * _EVEN, context % _EVEN
    longer = size + 2 * _EVEN if over == inf else 2 * size
    if longer + rest >= context:
        return Lengths(context=context, short=context, long=context, over=inf)
    return Lengths(context=context, short=size + rest, long=longer + rest, over=over)


def _settings(stack: Sequence[Method]) -> list[int]:
    """The settings that are whole numbers above 1."""
    values = [getattr(method, field.name) for method in stack for field in fields(method)]
    return [int(value) for value in values if isinstance(value, int | float) and value > 1 and value == int(value)]


def _block(stack: Sequence[Method], value: int) -> int:
    """The largest setting of few tokens that divides a setting; 1 where there is none."""
    return max((other for other in _settings(stack) if _BLOCK <= other <= _KEPT and other < value and value % other == 0), default=1)
