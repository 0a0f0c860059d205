"""Attention alignment: a temperature sharpens an encoder's attention over a long text to what it is over texts of the trained length.

Paper: Attention Alignment and Flexible Positional Embeddings Improve Transformer Length Extrapolation, 2024, arXiv:2311.00684
Cost: one product a query and one a bias. Fitting reads the text some 7 times for each doubling of the window, with all attention weights
of a layer in memory.
Limits: for encoders with a learned relative bias (T5, mT5, UMT5), whose positions reach any length; temperatures fit one model.
Differs from the paper: texts up to the trained window are left as they are; between fitted lengths the temperature is interpolated over the
logarithm of the length, and beyond the last one it stays. That what is aligned is the mean over the encoder's layers, heads and queries,
by one temperature for its self-attention alone, and measured on the model that has this temperature, is our reading.

softmax((q k + bias) / temperature): the maximum probability falls and the entropy rises with the number of keys; the temperature at which
one of them is what it was is found on real text, by `longreach fit`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from longreach.attention.base import EncoderTemperature
from longreach.core.errors import InputError, SpecError
from longreach.core.fitting import FORMAT, Bench, BudgetSpent, Fit, FittedFile
from longreach.core.method import Claim, MethodInfo, at_least, format_value

_STRATEGIES = ("max_probability", "entropy")
_LOWEST, _HIGHEST = 1 / 64, 4.0  # temperatures to search
_CLOSE = 1e-3  # of the value to align with
_MOST = 16  # evaluations for one length


@dataclass(frozen=True, kw_only=True)
class AttentionAlignment(EncoderTemperature):
    """Args: file: what `longreach fit` found, as t5-4k.json. temperature: in place of a file, for every text beyond the window (> 0).

    window_size: the trained window in tokens (>= 1; default: the config's); a file brings its own.
    """

    info: ClassVar = MethodInfo(
        title="Attention Alignment and Flexible Positional Embeddings Improve Transformer Length Extrapolation",
        paper="arXiv:2311.00684",
        length_dependent=True,
        plain_inside=True,
        fitted=True,
        claims=(
            Claim(text="T5 models a language better in texts beyond its window than without", metric="aligned_gain_8x", at_least=0.0),
            Claim(text="T5 makes use of texts far beyond its window", metric="aligned_rise_8x", at_most=0.0),
        ),
    )
    file: FittedFile | None = None
    temperature: float | None = None
    window_size: int | None = None

    def __post_init__(self) -> None:
        name = self.name()
        if (self.file is None) == (self.temperature is None):
            raise SpecError(f"{name}: give file=FITTED.json, which `longreach fit MODEL {name}` makes, or temperature=..., and not both")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise SpecError(f"{name}: temperature={format_value(self.temperature)} must be above 0 and finite")
        at_least(self, 1, "window_size")
        if self.file is not None:
            if self.window_size is not None:
                raise SpecError(f"{name}: window_size={self.window_size} has no effect beside a file, which brings its own")
            _check(self.file)

    def stated_window(self) -> int | None:
        """That of the file, or of the settings."""
        return self.window_size if self.file is None else int(self.file.data["fitted"]["window"])

    def temperature_at(self, length: int, window: int) -> float:
        """1 inside the window; beyond, the one that was fitted for the length, or between those of the lengths around it."""
        if length <= window:
            return 1.0
        if self.file is None:
            return float(self.temperature or 1.0)
        points = [(window, 1.0), *self.file.data["fitted"]["temperatures"]]
        for (short, before), (long, after) in pairwise(points):
            if length <= long:
                return float(before + (after - before) * math.log(length / short) / math.log(long / short))
        return float(points[-1][1])


@dataclass(frozen=True, kw_only=True)
class AttentionAlignmentFit(Fit):
    """Args: strategy: what to align, max_probability or entropy, both means over layers, heads and queries.

    window_size: the trained window in tokens (>= 1; default: the config's).
    """

    strategy: str = "max_probability"
    window_size: int | None = None

    def __post_init__(self) -> None:
        if self.strategy not in _STRATEGIES:
            raise SpecError(f"{self.name()}: strategy={self.strategy} is not known; choose {' or '.join(_STRATEGIES)}")
        at_least(self, 1, "window_size")

    @property
    def metric(self) -> str:
        """The strategy."""
        return self.strategy

    def stated_window(self) -> int | None:
        """Of the settings."""
        return self.window_size

    def run(self, bench: Bench) -> dict[str, Any]:
        """A temperature for each doubling of the window up to the target, the target's first: a budget may end before the others."""
        window, lengths = bench.trained_window, [bench.target]
        while (doubled := window << len(lengths)) < bench.target:
            lengths.insert(1, doubled)
        bench.begin(f"{self.strategy} at {window}", 1)
        wanted = bench.sharpness(None, window, self.strategy)
        found: list[list[float]] = []
        for length in lengths:
            bench.begin(f"temperature at {length}", _MOST, least=_MOST if length == bench.target else 0)
            try:
                found.append([length, self._aligned(bench, length, wanted)])
            except BudgetSpent:
                break
        return {"window": window, "strategy": self.strategy, "temperatures": sorted(found)}

    def _aligned(self, bench: Bench, length: int, wanted: float) -> float:
        """The temperature at which the metric is what it is at the trained length, to a thousandth of it."""

        def off(temperature: float) -> float:
            method = AttentionAlignment(temperature=temperature, window_size=bench.trained_window)
            return bench.sharpness(method, length, self.strategy) / wanted - 1

        rises = self.strategy == "entropy"
        start = off(1.0)
        end = _LOWEST if (start > 0) == rises else _HIGHEST
        found = solve(off, (1.0, start), end)
        if found is None:
            what = f"no temperature from 1 to {end:g} brings {self.strategy} at {length} tokens to what it is at {bench.trained_window}"
            raise InputError(f"{self.name()}: {what} ({wanted:.4g}); fit it by the other strategy, or to a smaller length")
        return found


def solve(function: Callable[[float], float], start: tuple[float, float], end: float) -> float | None:
    """Where `function` is near 0 between `start` (with its value) and `end`, by false position (Illinois) over logarithms; None: nowhere.

    Numbers are rounded to 6 digits, so that what was evaluated is what is returned.
    """
    (a, at_a), b = start, end
    if abs(at_a) <= _CLOSE:
        return a
    at_b = function(b)
    if at_a * at_b > 0:
        return None
    best = min(((a, at_a), (b, at_b)), key=lambda point: abs(point[1]))
    for _ in range(_MOST - 2):
        if abs(best[1]) <= _CLOSE:
            break
        c = math.exp((math.log(a) * at_b - math.log(b) * at_a) / (at_b - at_a))
        c = float(f"{c:.6g}")
        at_c = function(c)
        best = min(best, (c, at_c), key=lambda point: abs(point[1]))
        if at_c * at_b < 0:
            a, at_a = b, at_b
        else:
            at_a /= 2  # or one end would stay for ever
        b, at_b = c, at_c
    return best[0]


def aligned(temperatures: list[list[float]], window: int) -> AttentionAlignment:
    """The method with temperatures by length, without a file."""
    found = {"window": window, "strategy": _STRATEGIES[0], "temperatures": temperatures}
    return AttentionAlignment(file=FittedFile.of("temperatures", {"format": FORMAT, "method": AttentionAlignment.name(), "fitted": found}))


def _check(file: FittedFile) -> None:
    """Raise SpecError for contents that are not this method's."""
    name, data = AttentionAlignment.name(), file.data
    if data["method"] != name:
        raise SpecError(f"{name}: file={file} was fitted for {data['method']}; fit {name} itself")
    window, points = (data["fitted"].get(key) for key in ("window", "temperatures"))
    whole = isinstance(window, int) and window >= 1 and isinstance(points, list | tuple) and len(points) > 0
    if not (whole and all(isinstance(point, list | tuple) and len(point) == 2 for point in points)):
        raise SpecError(f"{name}: file={file} is damaged (window or temperatures); fit it again")
    lengths = [window, *(length for length, _ in points)]
    numbers = all(isinstance(number, int | float) and 0 < number < math.inf for point in points for number in point)
    if not (numbers and all(a < b for a, b in pairwise(lengths))):
        raise SpecError(f"{name}: file={file} is damaged (its temperatures or their lengths); fit it again")


METHOD = AttentionAlignment
FIT = AttentionAlignmentFit
EXAMPLES = (
    AttentionAlignment(temperature=0.7),
    aligned([[40, 0.8], [64, 0.6]], window=32),
    AttentionAlignment(temperature=1.5, window_size=16),
)
NEUTRAL = (AttentionAlignment(temperature=1), AttentionAlignment(temperature=0.7, window_size=64))
BAD = ({"temperature": 0}, {"temperature": 0.7, "window_size": 0}, {"file": "no-such-file.json"})
