"""CLEX: frequencies move with the length by a differential equation whose network is trained, so that one training serves all lengths.

Paper: CLEX: Continuous Length Extrapolation for Large Language Models, 2023, arXiv:2310.16450
Cost: none at run time at a fixed factor; without one, keys are kept unrotated and rotated anew where the text enters a further window.
Limits: a network fits one model; beyond the factor that it was fitted for, frequencies no longer change.
Differs from the paper: `longreach fit` trains the network alone, on whole texts at their true positions, and the model stays as it is; the
paper trains the model too, on short texts at random positions. Derivatives by fast frequencies, which are nearly all noise, count for less
(by 1 + frequency * length). The network sees the frequencies of the model's base; in the official code it sees those of the base 10000,
whatever the model's is. After the fit, `longreach tune MODEL --method clex:file=FILE,factor=8` trains the model at that factor. Without a
factor, it hangs on each token's own position, so that chunks and caches agree.

Without a file, the network is the one that a fit begins with: NTK-aware scaling by 2 * factor - 1.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError, UnsupportedError
from longreach.core.fitting import FORMAT, Bench, BudgetSpent, Fit, FittedFile
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, Method, MethodInfo, at_least, format_value
from longreach.positions.base import PositionsMethod, Rope, as_longrope
from longreach.positions.fitted._ode import Network, frequencies
from longreach.positions.scaling.ntk import Ntk
from longreach.positions.scaling.yarn import Yarn

_DIGITS = 7  # of a weight in a file


@dataclass(frozen=True, kw_only=True)
class Clex(PositionsMethod):
    """Args: file: what `longreach fit` found, as nano-4k.json. factor: target length over trained window (>= 1); without it, the factor
    follows the text: the trained windows, rounded up, that it has by then.
    """

    info: ClassVar = MethodInfo(
        title="CLEX: Continuous Length Extrapolation for Large Language Models",
        paper="arXiv:2310.16450",
        exportable=True,
        fitted=True,
        claims=(Claim(text="lower perplexity than YaRN at 4 to 8 times the window", metric="over_yarn", condition="trained", at_most=0.0),),
    )
    file: FittedFile | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")
        if self.file is not None:
            _check(self.file)
            if self.factor is not None and self.factor > self.file.data["fitted"]["factor"]:
                most = format_value(self.file.data["fitted"]["factor"])
                raise SpecError(f"clex: factor={format_value(self.factor)} is beyond {most}, which file={self.file} was fitted for")
        if self.factor is None:
            self.declare(exportable=False, length_dependent=True, plain_inside=True, changes_positions=True)

    @classmethod
    def auto_factor(cls, trained_window: int, target: int) -> float:
        """The target over the window."""
        return max(1.0, factor_to(target, trained_window))

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta(t) of the equation; theta(1) are the model's own."""
        factors = self._factors(rope, seq_len)
        if self.factor is None and seq_len <= rope.trained_window:
            return rope.own(seq_len)
        return rope.divided(factors), rope.attention_factor

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """Transformers' `longrope` at a fixed factor; none where the factor follows the text."""
        if self.factor is None:
            return None
        factors = rope.over_plain(self._factors(rope, rope.trained_window))
        exported = as_longrope(rope, *self.inv_freq(rope, rope.trained_window))
        return exported | {"short_factor": factors, "long_factor": list(factors)}

    def _factors(self, rope: Rope, seq_len: int) -> list[float]:
        """By what each frequency is divided."""
        network, most = None, math.inf
        if self.file is not None:
            found = self.file.data["fitted"]
            if (has := len(found["up"])) != rope.dim // 2 or found["window"] != rope.trained_window:
                why = f"it is for {has} frequencies and a window of {found['window']} tokens, and this model has {rope.dim // 2}"
                instead = "fit it to this model (longreach fit MODEL clex)"
                raise UnsupportedError(self.spec, "this model", f"{why} and {rope.trained_window}", instead)
            network, most = _network(self.file), found["factor"]
        factor = min(most, math.ceil(seq_len / rope.trained_window)) if self.factor is None else self.factor
        if factor <= 1:
            return [1.0] * (rope.dim // 2)
        with torch.no_grad():
            return (rope.inv_freq().double() / frequencies(rope, network, factor)).tolist()

    def length_step(self, rope: Rope) -> int:
        """The trained window."""
        return rope.trained_window


@dataclass(frozen=True, kw_only=True)
class ClexFit(Fit):
    """Args: steps: gradients to take, each on one window of text at a factor drawn anew (>= 1). lr: of Adam (> 0), after a warm-up of an
    eighth of the steps, and falling as a cosine. width: the network's inner size over the head's (>= 1; the paper's lambda).
    """

    steps: int = 64
    lr: float = 1e-4
    width: int = 1

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "width")
        if not 0 < self.lr < math.inf:
            raise SpecError(f"clex: lr={format_value(self.lr)} must be above 0 and finite")

    def run(self, bench: Bench) -> dict[str, Any]:
        """Algorithm 1 of the paper with the model frozen; of the network before and after, the one with the lower loss at the target."""
        rope, draw = bench.rope(), Random(bench.seed)  # noqa: S311 - a fit, no secret
        most = bench.target / rope.trained_window
        network = Network.new(rope.dim, self.width, bench.seed)
        weights = [network.up.requires_grad_(), network.down.requires_grad_()]
        adam = torch.optim.Adam(weights, lr=self.lr)
        start = _values(rope, most, network)
        bench.begin("gradients", self.steps, share=0.8)
        try:
            for number in range(self.steps):
                done = (number + 1) / self.steps
                adam.param_groups[0]["lr"] = self.lr * min(1.0, 8 * done) * (1 + math.cos(math.pi * (done - 1 / self.steps))) / 2
                factor = min(most, draw.randint(2, math.ceil(most)))
                trial, length = with_weights(_values(rope, most, network), factor), round(factor * rope.trained_window)
                _, slopes = bench.slopes(trial, length, number)
                adam.zero_grad()
                found = frequencies(rope, network, factor)
                # A step that turns the farthest keys by more than a radian is beyond what a derivative can tell.
                found.backward(torch.tensor(slopes, dtype=torch.float64) / (1 + found.detach() * length))
                adam.step()
        except BudgetSpent:
            pass
        tried = [start, _values(rope, most, network)]
        bench.begin("comparison", len(tried), least=len(tried))
        losses = [bench.loss(with_weights(values, most), bench.target) for values in tried]
        return tried[losses.index(min(losses))]

    def baselines(self, trained_window: int, target: int) -> tuple[Method, ...]:
        """Yarn, and NTK-aware scaling, also as the fit begins with it."""
        most = target / trained_window
        return (*Yarn.suggest(trained_window, target), *Ntk.suggest(trained_window, target), Ntk(factor=2 * most - 1))


def with_weights(found: dict[str, Any], factor: float | None = None) -> Clex:
    """The method with the weights of a fit, without a file."""
    return Clex(file=FittedFile.of("weights", {"format": FORMAT, "method": Clex.name(), "fitted": found}), factor=factor)


def _values(rope: Rope, factor: float, network: Network) -> dict[str, Any]:
    """What a file holds, in plain JSON values."""
    rounded = {
        name: [[float(f"{value:.{_DIGITS}g}") for value in row] for row in getattr(network, name).tolist()] for name in ("up", "down")
    }
    return {"window": rope.trained_window, "factor": factor, **rounded}


@lru_cache(maxsize=4)
def _network(file: FittedFile) -> Network:
    found = file.data["fitted"]
    return Network(*(torch.tensor(found[name], dtype=torch.float64) for name in ("up", "down")))


def _check(file: FittedFile) -> None:
    """Raise SpecError for contents that are not this method's."""
    if file.data["method"] != Clex.name():
        raise SpecError(f"clex: file={file} was fitted for {file.data['method']}; fit clex itself")
    found = file.data["fitted"]
    try:
        up, down = (torch.tensor(found[name], dtype=torch.float64) for name in ("up", "down"))
        fits = up.ndim == 2 and up.shape == down.T.shape and bool(up.isfinite().all() and down.isfinite().all())
        whole = isinstance(found["window"], int) and found["window"] > 1 and 1 <= found["factor"] < math.inf
    except (KeyError, TypeError, ValueError):
        fits = whole = False
    if not (fits and whole):
        raise SpecError(f"clex: file={file} is damaged (up, down, window or factor); fit it again")


METHOD = Clex
FIT = ClexFit
EXAMPLES = (Clex(factor=4), Clex(factor=1.5), Clex())
NEUTRAL = (Clex(factor=1),)
BAD = ({"factor": 0.5}, {"factor": math.inf}, {"file": "no-such-file.json"})
