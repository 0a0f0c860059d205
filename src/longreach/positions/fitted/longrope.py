"""LongRoPE: each pair of dimensions is stretched by a factor of its own, found by an evolutionary search on the model and real text.

Paper: LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens, 2024, arXiv:2402.13753
Cost: none at run time (with factors for short texts, keys are rotated anew once, where a text leaves the trained window). The search reads
the text once for each candidate, 1344 times at the paper's sizes.
Limits: factors fit one model, and the length that they were searched at; unscaled first tokens cannot be exported.
Differs from the paper: unscaled first tokens are searched for only on demand (no reader of checkpoints knows them, and the official search
has none); short factors are for lengths up to the trained window, as in transformers, and hang on each token's own position, so that chunks
and caches agree; cos and sin, but those of unscaled tokens, are multiplied by the official code's sqrt(1 + ln(factor) / ln(trained
window)).

With a `factor` alone, factors are where the search begins: YaRN's.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any, ClassVar

from torch import Tensor

from longreach.core.errors import SpecError, UnsupportedError
from longreach.core.fitting import FORMAT, Bench, Fit, FittedFile
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, Method, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope
from longreach.positions.fitted._evolution import MOST_OVER_RATIO, START_TOKENS, Individual, Search
from longreach.positions.scaling.linear import Linear
from longreach.positions.scaling.ntk import Ntk
from longreach.positions.scaling.yarn import Yarn

_ALWAYS = 1 << 40  # tokens: beyond the window frequencies never change again


@dataclass(frozen=True, kw_only=True)
class Longrope(PositionsMethod):
    """Args: file: what `longreach fit` found, as nano-4k.json. factor: in place of a file, target length over trained window (>= 1).

    start_tokens: first tokens that stay unscaled (>= 0); a file brings its own.
    """

    info: ClassVar = MethodInfo(
        title="LongRoPE: Extending LLM Context Window Beyond 2 Million Tokens",
        paper="arXiv:2402.13753",
        exportable=True,
        fitted=True,
        claims=(Claim(text="lower perplexity than YaRN at 8 times the window", metric="over_yarn", at_most=0.0),),
    )
    file: FittedFile | None = None
    factor: float | None = None
    start_tokens: int = 0

    def __post_init__(self) -> None:
        if (self.file is None) == (self.factor is None):
            raise SpecError("longrope: give file=FACTORS.json, which `longreach fit MODEL longrope` makes, or factor=..., and not both")
        at_least(self, 1, "factor")
        at_least(self, 0, "start_tokens")
        if self.file is not None:
            if self.start_tokens:
                raise SpecError(f"longrope: start_tokens={self.start_tokens} has no effect beside a file, which brings its own")
            _check(self.file)
        if self._found.get("short"):
            self.declare(length_dependent=True)
        if self.unscaled_tokens():
            self.declare(exportable=False)

    @classmethod
    def auto_factor(cls, trained_window: int, target: int) -> float:
        """The target over the window."""
        return max(1.0, factor_to(target, trained_window))

    @property
    def _found(self) -> dict[str, Any]:
        found: dict[str, Any] = {} if self.file is None else self.file.data["fitted"]
        return found

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i / lambda_i: equation 3 of the paper, for the tokens from n-hat on."""
        self._check_fits(rope)
        short = self._found.get("short")
        factors = short if short and seq_len <= rope.trained_window else self._long(rope)
        return rope.divided(factors), self._attention_factor(rope)

    def unscaled_tokens(self) -> int:
        """The paper's n-hat."""
        return int(self._found.get("start_tokens", self.start_tokens))

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """Transformers' own `longrope`, with the factor on cos and sin written out; none where first tokens are unscaled."""
        if self.unscaled_tokens():
            return None
        self._check_fits(rope)
        long, short = self._long(rope), self._found.get("short")
        return {
            "rope_type": "longrope",
            "rope_theta": rope.theta,
            "factor": self._factor(),
            "original_max_position_embeddings": rope.trained_window if short else rope.original_window,
            "short_factor": rope.over_plain(short or long),
            "long_factor": rope.over_plain(long),
            "attention_factor": self._attention_factor(rope),
        }

    def at_length(self, rope: Rope, seq_len: int) -> "Longrope":
        """Under the short factors or under the long ones."""
        if self.file is None or not (short := self._found.get("short")):
            return self
        factors = short if seq_len <= rope.trained_window else self._found["long"]
        return with_factors(self._found | {"long": factors, "short": None})

    def length_step(self, rope: Rope) -> int:
        """Beyond the window there is one set of frequencies."""
        return _ALWAYS

    def _factor(self) -> float:
        return float(self.factor if self.factor is not None else self._found["factor"])

    def _long(self, rope: Rope) -> list[float]:
        return self._found["long"] if self.factor is None else ratios(rope, Yarn(factor=self.factor))

    def _attention_factor(self, rope: Rope) -> float:
        return rope.attention_factor * math.sqrt(1 + math.log(self._factor()) / math.log(rope.trained_window))

    def _check_fits(self, rope: Rope) -> None:
        """Refuse a file of another model."""
        if self.file is None:
            return
        has, window = len(self._found["long"]), self._found["window"]
        if has != rope.dim // 2 or window != rope.trained_window:
            found = f"it has {has} factors for a window of {window} tokens, and this model needs {rope.dim // 2} for {rope.trained_window}"
            raise UnsupportedError(self.spec, "this model", found, "fit it to this model (longreach fit MODEL longrope)")


@dataclass(frozen=True, kw_only=True)
class LongropeFit(Fit):
    """Args: on: a file to go on from, in a second stage. short: also search factors for texts up to the trained window.

    start_tokens: also search how many first tokens stay unscaled. population, parents, mutations, crossovers, iterations: the sizes of the
    search (>= 1).
    """

    on: FittedFile | None = None
    short: bool = False
    start_tokens: bool = False
    population: int = 64
    parents: int = 32
    mutations: int = 16
    crossovers: int = 16
    iterations: int = 40

    def __post_init__(self) -> None:
        at_least(self, 1, "population", "parents", "mutations", "crossovers", "iterations")
        if self.short and self.start_tokens:
            raise SpecError("longrope: short=true and start_tokens=true do not go together; leave one of them out")
        if self.on is not None:
            _check(self.on)

    def run(self, bench: Bench) -> dict[str, Any]:
        """Section 3.2 of the paper; with `on`, the second interpolation of section 3.3; with `short`, its readjustment."""
        rope, random = bench.rope(), Random(bench.seed)  # noqa: S311 - a search, no secret
        base, reached, start = self._base(rope)
        if bench.target <= reached:
            raise SpecError(f"longrope: on={self.on} reaches {reached:g} tokens already; give a greater length than {bench.target}")
        found = {"window": rope.trained_window, "factor": bench.target / rope.trained_window, "short": None, "start_tokens": start}

        def long(candidate: Individual) -> dict[str, Any]:
            factors = [round(a * b, 6) for a, b in zip(base, candidate.factors, strict=True)]
            return found | {"long": factors, "start_tokens": candidate.start_tokens}

        def short(candidate: Individual) -> dict[str, Any]:
            return found | {"long": list(candidate.factors), "start_tokens": 0}

        ratio = bench.target / reached
        starts = [Individual(tuple(ratios(rope, method(factor=ratio))), start) for method in (Linear, Ntk, Yarn)]
        search = self._search(ratio, tuple(sorted({start, *START_TOKENS})) if self.start_tokens else (start,))
        bench.begin("long factors", search.evaluations, least=len(starts), share=0.75 if self.short else 1.0)
        best, _ = search.run(starts, lambda one: bench.loss(with_factors(long(one)), bench.target), random)
        found = long(best)
        if self.short:
            search, full = self._search(1.0, (0,)), [min(factor, MOST_OVER_RATIO) for factor in found["long"]]
            starts = [Individual(tuple(1 + (factor - 1) * part for factor in full)) for part in (0.0, 0.5, 1.0)]
            bench.begin("short factors", search.evaluations, least=len(starts))
            best, _ = search.run(starts, lambda one: bench.loss(with_factors(short(one)), rope.trained_window), random)
            found["short"] = list(best.factors)
        return found

    def baselines(self, trained_window: int, target: int) -> tuple[Method, ...]:
        """What the search begins with, as `stretch` suggests it."""
        return tuple(suggested for method in (Linear, Ntk, Yarn) for suggested in method.suggest(trained_window, target))

    def _base(self, rope: Rope) -> tuple[list[float], float, int]:
        """What the model's frequencies are divided by before the search, the tokens that this reaches, and its unscaled tokens."""
        if self.on is None:
            return [1.0] * (rope.dim // 2), rope.trained_window, 0
        earlier = Longrope(file=self.on)
        earlier.inv_freq(rope, rope.trained_window)  # refuses a file of another model
        if self.short and earlier.unscaled_tokens():
            raise SpecError(f"longrope: short=true does not go together with on={self.on}, which leaves first tokens unscaled")
        found = self.on.data["fitted"]
        return found["long"], round(found["factor"] * rope.trained_window), earlier.unscaled_tokens()

    def _search(self, ratio: float, start_tokens: tuple[int, ...]) -> Search:
        return Search(
            most=MOST_OVER_RATIO * ratio, population=self.population, parents=self.parents, mutations=self.mutations,
            crossovers=self.crossovers, iterations=self.iterations, start_tokens=start_tokens,
        )  # fmt: skip


def with_factors(found: dict[str, Any]) -> Longrope:
    """The method with what a search found, without a file."""
    return Longrope(file=FittedFile.of("factors", {"format": FORMAT, "method": Longrope.name(), "fitted": found}))


def ratios(rope: Rope, method: PositionsMethod) -> list[float]:
    """By what a method divides each frequency, to 6 decimals; never falling, also by float32's rounding."""
    found = rope.inv_freq().double() / method.inv_freq(rope, rope.trained_window)[0].double()
    return [round(factor, 6) for factor in found.cummax(0).values.tolist()]


def _check(file: FittedFile) -> None:
    """Raise SpecError for contents that are not this method's."""
    if file.data["method"] != Longrope.name():
        raise SpecError(f"longrope: file={file} was fitted for {file.data['method']}; fit longrope itself")
    found = file.data["fitted"]
    sizes = [len(found[key]) for key in ("long", "short") if isinstance(found.get(key), list)]
    numbers = [*(found.get("long") or [None]), *(found.get("short") or []), found.get("factor")]
    real = all(isinstance(number, int | float) and 0 < number < math.inf for number in numbers) and found["factor"] >= 1
    whole = isinstance(found.get("window"), int) and found["window"] > 1 and isinstance(found.get("start_tokens"), int)
    if not (real and whole and found["start_tokens"] >= 0 and len(set(sizes)) == 1):
        raise SpecError(f"longrope: file={file} is damaged (long, short, factor, window or start_tokens); fit it again")
    if found.get("short") and found["start_tokens"]:
        raise SpecError(f"longrope: file={file} has short factors and unscaled first tokens, which do not go together; fit it again")
    if any(a > b for key in ("long", "short") for a, b in pairwise(found.get(key) or ())):
        raise SpecError(f"longrope: file={file} is damaged: its factors fall from a higher to a lower frequency; fit it again")


METHOD = Longrope
FIT = LongropeFit
EXAMPLES = (Longrope(factor=4), Longrope(factor=4, start_tokens=8))
NEUTRAL = (Longrope(factor=1), Longrope(factor=1, start_tokens=8))
BAD = (
    {"factor": 0.5},
    {"factor": 4, "start_tokens": -1},
    {"file": "no-such-file.json"},
)
