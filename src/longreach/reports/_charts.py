"""Line charts over token positions as SVG, drawn here so that a report is one file. Colours come from the page's style sheet."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from longreach.core.lengths import format_length

_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 16, 12, 56
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_DASHES = ("", "7 4", "2 4", "10 4 2 4")
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
Weight = Literal["faint", "plain", "bold"]
COLOURS = 8  # that the style sheet has, --c0 to --c7; c0 is for the model as it is


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mean over an octave of positions, with its interval where there is one. Args: end: of the octave, in tokens."""

    end: int
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line. Args: number: decides colour, dashes and shape. weight: how it stands out; a `faint` one is drawn without its intervals."""

    label: str
    number: int
    points: Sequence[Point]
    weight: Weight = "plain"


def line_chart(series: Sequence[Series], *, title: str, window: int, limit: float | None = None, key: str) -> str:
    """A chart over octaves of positions. Args: window: the trained one, marked. limit: a horizontal mark.

    key: makes ids on the page unique.
    """
    ends = sorted({point.end for line in series for point in line.points})
    edges = [max(1, ends[0] // 2), *ends]
    frame = _Frame(edges, _values_shown(series, limit))
    lines = [_line(line, frame, key) for line in sorted(series, key=lambda line: ("faint", "plain", "bold").index(line.weight))]
    over = [
        f"{line.label} (up to {max(p.value for p in line.points):.2f})" for line in series if any(p.value > frame.top for p in line.points)
    ]
    note = f'<p class="note">Beyond the top of the chart: {escape(", ".join(over))}.</p>' if over else ""
    return (
        f'<figure><h3>{escape(title)}</h3><svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(_description(series))}</desc>'
        f'<clipPath id="{key}-c"><rect x="{_LEFT}" y="{_TOP}" width="{_INNER_WIDTH}" height="{_INNER_HEIGHT}"/></clipPath>'
        f"{_axes(frame, window, limit)}{''.join(lines)}</svg>{note}</figure>"
    )


def swatch(number: int, weight: Weight) -> str:
    """The sign of a line for a legend."""
    return (
        f'<svg class="swatch" viewBox="0 0 44 16" aria-hidden="true"><g class="line {_colour(number)} {weight}">'
        f'<path d="M2 8H42" stroke-dasharray="{_dashes(number)}"/>'
        f'<g class="mark" transform="translate(22 8)">{_shape(number)}</g></g></svg>'
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


def _axes(frame: _Frame, window: int, limit: float | None) -> str:
    right, base, x = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, frame.x(window)
    parts = []
    for tick in frame.ticks:
        y = frame.y(tick)
        parts += [f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>', _text(_LEFT - 8, y + 5, f"{tick:g}", anchor="end")]
    every = math.ceil(len(frame.edges) / 9)
    for number, edge in enumerate(reversed(frame.edges)):
        parts.append(f'<path class="grid" d="M{frame.x(edge):.1f} {_TOP}V{base}"/>')
        if number % every == 0:
            parts.append(_text(frame.x(edge), base + 20, format_length(edge), kind="minor" if number // every % 2 else ""))
    parts += [f'<path class="window" d="M{x:.1f} {_TOP}V{base}"/>', _text(x - 6, _TOP + 14, "trained", kind="strong", anchor="end")]
    if limit is not None:
        y = frame.y(limit)
        parts += [
            f'<path class="limit" d="M{_LEFT} {y:.1f}H{right}"/>',
            _text(_LEFT + 6, y - 7, f"bar {limit:+g}", kind="strong", anchor="start"),
        ]
    return "".join([*parts, _text((_LEFT + right) / 2, _HEIGHT - 8, "position in the text, tokens")])


def _text(x: float, y: float, words: str, *, kind: str = "", anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _line(line: Series, frame: _Frame, key: str) -> str:
    places = [(frame.middle(point.end), frame.y(point.value)) for point in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    marks = "".join(f'<g class="mark" transform="translate({x:.1f} {y:.1f})">{_shape(line.number)}</g>' for x, y in places if y >= _TOP - 1)
    band = "" if line.weight == "faint" else _band(line.points, frame)
    style = f"line {_colour(line.number)} {line.weight}"
    dashes = _dashes(line.number)
    return f'<g class="{style}" clip-path="url(#{key}-c)">{band}<path d="{path}" stroke-dasharray="{dashes}"/>{marks}</g>'


def _band(points: Iterable[Point], frame: _Frame) -> str:
    ends = [(frame.middle(p.end), frame.y(p.low), frame.y(p.high)) for p in points if p.low is not None and p.high is not None]
    if not ends:
        return ""
    upper = [f"{x:.1f} {high:.1f}" for x, _, high in ends]
    lower = [f"{x:.1f} {low:.1f}" for x, low, _ in reversed(ends)]
    return f'<path class="band" d="M{"L".join([*upper, *lower])}Z"/>'


def _values_shown(series: Sequence[Series], limit: float | None) -> tuple[float, float]:
    """The range to draw: a method that breaks down leaves the chart at its top, and wide intervals at both ends, so that the
    rest can be told apart.
    """
    values = [point.value for line in series for point in line.points]
    bands = [end for line in series if line.weight != "faint" for p in line.points for end in (p.low, p.high) if end is not None]
    low, best = min(values), min(max(point.value for point in line.points) for line in series)
    high = min(max(values), best + _SPAN)
    low, high = max(low - _SPAN / 2, min([low, *bands])), min(high + _SPAN / 2, max([high, *bands]))
    margin = max(0.05 * (high - low), 0.02)
    return low - margin, max(high + margin, 0.0 if limit is None else 2 * limit)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers."""
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [round(number * step, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _description(series: Sequence[Series]) -> str:
    return " ".join(f"{line.label}: {', '.join(f'{point.value:.3f} up to {point.end}' for point in line.points)}." for line in series)


def _colour(number: int) -> str:
    return f"c{number if number < COLOURS else (number - 1) % (COLOURS - 1) + 1}"


def _dashes(number: int) -> str:
    return _DASHES[2] if number == 0 else _DASHES[(number - 1) // (COLOURS - 1) % len(_DASHES)]


def _shape(number: int) -> str:
    return _SHAPES[number % len(_SHAPES)]
