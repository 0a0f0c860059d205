"""The contract of metrics: what a number means, how it is taken of a method, and from what."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Self

from longreach.core import registry
from longreach.core.errors import LongreachError
from longreach.core.fitting import FittedFile
from longreach.core.method import Claim
from longreach.core.spec import parse
from longreach.evaluation.applicable import refusal
from longreach.evaluation.evidence import Number, Subject, counted, found_share
from longreach.evaluation.intervals import Interval, mean_interval

SAMPLES = 20  # questions of each depth: 100 in all
RECALLS = 0.5  # share of needles that a model has to find inside its window, for retrieval beyond to say anything
RANKING = 2  # as many tell which setting of a method is its best


class LeftOut(LongreachError):  # noqa: N818 - not an error: the other claims go on
    """Why a claim has no number on this model."""


class ClaimBench:
    """What the numbers are taken from. Args: text: that of the subject. fitted: method -> its file for the model.

    `to` is the length that they are taken at: the subject's longest, or that of `for_claim`.
    """

    def __init__(self, subject: Subject, text: str, fitted: Mapping[str, FittedFile]) -> None:
        self.subject, self.model, self.fitted, self.to = subject, subject.model, fitted, subject.to
        self.text_sha256 = sha256(text.encode()).hexdigest()

    def for_claim(self, claim: Claim) -> Self:
        """The bench at the length that a claim is about."""
        if claim.times is None:
            return self
        to = claim.times * self.subject.window
        if to not in self.subject.edges:
            raise LeftOut(f"it is about {to} tokens, and {self.subject.to} are measured")
        other = copy.copy(self)
        other.to = to
        vars(other).pop("ranked", None)
        return other

    def settings(self, name: str) -> list[str]:
        """The specs that a method suggests by itself and that the model takes."""
        suggested = registry.get(name).suggest(self.subject.window, self.to)
        refusals = {method.spec: refusal(self.model, (method,)) for method in suggested}
        fitting = [spec for spec, error in refusals.items() if error is None]
        if not fitting:
            reasons = [error.reason for error in refusals.values() if error is not None]
            raise LeftOut(reasons[0] if reasons else "it suggests nothing for these lengths")
        return fitting

    def flattest(self, name: str) -> str:
        """The setting of a method under which the loss rises least."""
        return min(self.settings(name), key=lambda spec: self.rise(spec).mean)

    def best(self, name: str) -> str:
        """The setting of a method that finds most, and of those that find as much the one with the least loss."""
        return min(self.settings(name), key=self._rank)

    def rises(self, spec: str) -> dict[str, float]:
        """By text: loss beyond the window above that inside."""
        return self.subject.rises(spec, end=self.to)

    def rise(self, spec: str) -> Interval:
        """Their mean."""
        return mean_interval(list(self.rises(spec).values()))

    def answers(self, spec: str, samples: int | None = None) -> dict[str, bool]:
        """By question of the target length. Args: samples: questions of each depth; None: as many as claims are held to."""
        return self.subject.answers(spec, self.to, samples or SAMPLES)

    def inside(self) -> dict[str, bool]:
        """By question of the window's length: what the model as it is finds. Raises: LeftOut for one that finds less than half: then no
        method can make it find what lies beyond its window.
        """
        answers = self.subject.answers("", self.subject.window, SAMPLES)
        if (found := found_share(answers).mean) < RECALLS:
            raise LeftOut(f"the plain model finds {found:.2f} of the needles inside its window")
        return answers

    def stacked(self, name: str) -> tuple[str, str]:
        """A method on top of the best one that it improves, and that one alone."""
        for spec in self.ranked:
            if wrappers := registry.get(name).suggest_on(parse(spec)[0]):
                return f"{spec}+{wrappers[0].spec}", spec
        raise LeftOut("no method that it improves works on this model")

    @cached_property
    def ranked(self) -> list[str]:
        """The best setting of every method that forgets nothing, best first."""
        found = []
        for method in registry.methods():
            if method.suggest(self.subject.window, self.to) and not method.info.forgets:
                try:
                    found.append(self.best(method.name()))
                except LeftOut:
                    continue
        return sorted(found, key=self._rank)

    def _rank(self, spec: str) -> tuple[float, float]:
        return -found_share(self.answers(spec, RANKING)).mean, self.rise(spec).mean


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that claims are held to; the `METRIC` of a file of its name.

    Args: meaning: what it is, as the table says it, with its unit. take: of the method of a name; raises LeftOut where the model has none.
    """

    meaning: str
    take: Callable[[str, ClaimBench], Number]


def difference(spec: str, losses: Mapping[str, float], others: Mapping[str, float]) -> Number:
    """The mean of losses less that of others, paired by text."""
    differences = [loss - others[text] for text, loss in losses.items()]
    return Number(spec=spec, interval=mean_interval(differences), of=counted(differences, "text"))


def over(name: str, others: Sequence[str], bench: ClaimBench) -> Number:
    """The loss of a method above that of the best of others, each in its flattest setting."""
    spec, best = bench.flattest(name), min(map(bench.flattest, others), key=lambda other: bench.rise(other).mean)
    return difference(spec, bench.rises(spec), bench.rises(best))
