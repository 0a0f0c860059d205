"""A line chart over token positions as SVG, drawn here so that a report is one file. Colours come from the page's style sheet.

Every line is named where it ends. Labels that would touch are moved apart, and a thin leader joins each to its line.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from longreach.core.lengths import format_length

_WIDTH, _HEIGHT = 1040, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 340, 12, 56  # labels stand to the right
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_LINE = 17  # height of a line of text
_GAP = 26  # between the axes and the labels
_LETTERS = 34  # that a line of a label holds
_SHAPES = (  # drawn around 0, 0
    '<circle r="4.6"/>',
    '<rect x="-4.2" y="-4.2" width="8.4" height="8.4"/>',
    '<path d="M0-5.6 5.2 4H-5.2Z"/>',
    '<path d="M0-6 6 0 0 6-6 0Z"/>',
    '<path d="M0 5.6 5.2-4H-5.2Z"/>',
    '<path d="M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z"/>',
    '<path d="M0-6 1.8-1.9 6-1.6 2.8 1.2 3.8 5.4 0 3.1-3.8 5.4-2.8 1.2-6-1.6-1.8-1.9Z"/>',
)
_SPAN = 0.4  # nats that a chart shows above the best line's highest value
COLOURS = 8  # that the style sheet has, --c0 to --c7, and so the most lines; c0 is for the model as it is, which is dotted


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mean over an octave of positions, with its interval where there is one. Args: end: of the octave, in tokens."""

    end: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line. Args: number: decides colour and shape, below COLOURS. bold: it stands out."""

    label: str
    number: int
    points: Sequence[Point]
    bold: bool = False


def line_chart(series: Sequence[Series], *, title: str, window: int, limit: float, key: str) -> str:
    """A chart over octaves of positions. Args: window: the trained one, marked. limit: a horizontal mark.

    key: makes ids on the page unique.
    """
    ends = sorted({point.end for line in series for point in line.points})
    frame = _Frame([max(1, ends[0] // 2), *ends], _values_shown(series, limit))
    lines = "".join(_line(line, frame, key) for line in sorted(series, key=lambda line: line.bold))
    return (
        f'<figure><h3>{escape(title)}</h3><div class="wide"><svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{escape(title)}</title>'
        f'<desc id="{key}-d">{escape(_description(series))}</desc>'
        f'<clipPath id="{key}-c"><rect x="{_LEFT}" y="{_TOP}" width="{_INNER_WIDTH}" height="{_INNER_HEIGHT}"/></clipPath>'
        f"{_axes(frame, window, limit)}{lines}{_labels(series, frame)}</svg></div></figure>"
    )


class _Frame:
    """Where values and positions stand on the paper."""

    def __init__(self, edges: Sequence[int], shown: tuple[float, float]) -> None:
        self.edges = edges
        self.ticks = _ticks(*shown)
        self.bottom, self.top = shown

    def x(self, position: float) -> float:
        first, last = math.log2(self.edges[0]), math.log2(self.edges[-1])
        return _LEFT + (math.log2(position) - first) / (last - first) * _INNER_WIDTH

    def middle(self, end: int) -> float:
        """The middle of the octave that ends there."""
        return self.x(math.sqrt(self.edges[self.edges.index(end) - 1] * end))

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - self.bottom) / (self.top - self.bottom) * _INNER_HEIGHT


def _axes(frame: _Frame, window: int, limit: float) -> str:
    right, base, x, y = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, frame.x(window), frame.y(limit)
    parts = []
    for tick in frame.ticks:
        parts += [f'<path class="grid" d="M{_LEFT} {frame.y(tick):.1f}H{right}"/>', _text(_LEFT - 8, frame.y(tick) + 5, f"{tick:g}", "end")]
    every = math.ceil(len(frame.edges) / 9)
    for number, edge in enumerate(reversed(frame.edges)):
        parts.append(f'<path class="grid" d="M{frame.x(edge):.1f} {_TOP}V{base}"/>')
        if number % every == 0:
            parts.append(_text(frame.x(edge), base + 20, format_length(edge)))
    parts += [f'<path class="window" d="M{x:.1f} {_TOP}V{base}"/>', _text(x - 6, _TOP + 14, "trained window", "end", kind="strong")]
    parts += [f'<path class="limit" d="M{_LEFT} {y:.1f}H{right}"/>', _text(_LEFT + 6, y - 7, f"bar {limit:+g}", "start", kind="strong")]
    return "".join([*parts, _text((_LEFT + right) / 2, _HEIGHT - 8, "position in the text, tokens")])


def _text(x: float, y: float, words: str, anchor: str = "middle", *, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(line: Series, frame: _Frame, key: str) -> str:
    places = [(frame.middle(point.end), frame.y(point.value)) for point in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    marks = "".join(
        f'<g class="mark" transform="translate({x:.1f} {y:.1f})">{_SHAPES[line.number % len(_SHAPES)]}</g>'
        for x, y in places
        if y >= _TOP - 1
    )
    return f'<g class="{_style(line)}" clip-path="url(#{key}-c)">{_band(line.points, frame)}<path d="{path}"/>{marks}</g>'


def _style(line: Series) -> str:
    return f"line c{line.number}{' bold' if line.bold else ''}"


def _band(points: Iterable[Point], frame: _Frame) -> str:
    ends = [(frame.middle(p.end), frame.y(p.low), frame.y(p.high)) for p in points if p.low is not None and p.high is not None]
    if not ends:
        return ""
    upper = [f"{x:.1f} {high:.1f}" for x, _, high in ends]
    lower = [f"{x:.1f} {low:.1f}" for x, low, _ in reversed(ends)]
    return f'<path class="band" d="M{"L".join([*upper, *lower])}Z"/>'


def _labels(series: Sequence[Series], frame: _Frame) -> str:
    """The name of each line, where it ends; of one that leaves the chart, how far it goes."""
    placed = []
    for line in series:
        last, most = line.points[-1], max(point.value for point in line.points)
        beyond = f" (off the chart: up to {most:.2f})" if most > frame.top else ""
        y = max(frame.y(last.value), _TOP)
        end = _WIDTH - _RIGHT if last.value > frame.top else frame.middle(last.end)
        placed.append((y, end, wrapped(line.label + beyond), line))
    placed.sort(key=lambda one: one[0])
    tops = apart([y - _LINE * len(words) / 2 for y, _, words, _ in placed], [_LINE * len(words) for _, _, words, _ in placed], _HEIGHT)
    x = _WIDTH - _RIGHT + _GAP
    parts = []
    for top, (y, end, words, line) in zip(tops, placed, strict=True):
        middle = top + _LINE * len(words) / 2
        leader = f'<path class="leader" d="M{end:.1f} {y:.1f}L{x - _GAP:.1f} {y:.1f}L{x - 4} {middle:.1f}"/>'
        spans = "".join(f'<tspan x="{x}" dy="{_LINE if number else 0}">{escape(part)}</tspan>' for number, part in enumerate(words))
        parts.append(f'<g class="{_style(line)}">{leader}<text class="name" x="{x}" y="{top + 13:.1f}">{spans}</text></g>')
    return "".join(parts)


def wrapped(label: str) -> list[str]:
    """A label in lines, broken at spaces and behind the marks of specs."""
    lines = [""]
    for piece in re.findall(r"[^\s,+]*[\s,+]?", label):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > _LETTERS:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


def apart(tops: Sequence[float], heights: Sequence[float], end: float) -> list[float]:
    """Where boxes stand that touch neither each other nor the end, in their order, moved as little as their neighbours let them."""
    moved: list[float] = []
    for top, height in zip(tops, heights, strict=True):
        moved.append(max(top, moved[-1] + heights[len(moved) - 1] if moved else 0.0))
        excess = moved[-1] + height - end
        for at in range(len(moved) - 1, -1, -1):  # push those before it up, as far as this one is too low
            if excess <= 0:
                break
            moved[at] -= excess
            excess = moved[at - 1] + heights[at - 1] - moved[at] if at else 0
    return moved


def _values_shown(series: Sequence[Series], limit: float) -> tuple[float, float]:
    """The range to draw: a method that breaks down leaves the chart at its top, and wide intervals at both ends, so that the
    rest can be told apart.
    """
    values = [point.value for line in series for point in line.points]
    bands = [end for line in series for p in line.points for end in (p.low, p.high) if end is not None]
    low, best = min(values), min(max(point.value for point in line.points) for line in series)
    high = min(max(values), best + _SPAN)
    low, high = max(low - _SPAN / 2, min([low, *bands])), min(high + _SPAN / 2, max([high, *bands]))
    margin = max(0.05 * (high - low), 0.02)
    return low - margin, max(high + margin, 2 * limit)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers."""
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _description(series: Sequence[Series]) -> str:
    return " ".join(f"{line.label}: {', '.join(f'{point.value:.3f} up to {point.end}' for point in line.points)}." for line in series)
