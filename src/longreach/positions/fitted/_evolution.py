"""The evolutionary search of LongRoPE: rescale factors that never fall from high to low frequency, and the count of unscaled tokens.

Source: section 3.2 of arXiv:2402.13753 (search space, population, mutation, crossover, constraint), with the official code where the
paper is silent: a mutated factor lies between its neighbours, and a crossover that finds nothing new becomes a mutation.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import NamedTuple

from longreach.core.fitting import BudgetSpent

STEP = 0.01  # of the rescale factors
MOST_OVER_RATIO = 1.25  # the largest factor, over the ratio of extension
PROBABILITY = 0.3  # that one factor changes
START_TOKENS = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
_TRIES = 20  # at a child that is new


class Individual(NamedTuple):
    """factors: one for each pair of dimensions, from the highest frequency. start_tokens: first tokens that stay unscaled."""

    factors: tuple[float, ...]
    start_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Search:
    """Args: most: the largest factor. start_tokens: counts to choose from; the others are sizes, as in the paper."""

    most: float
    population: int
    parents: int
    mutations: int
    crossovers: int
    iterations: int
    start_tokens: tuple[int, ...] = (0,)

    @property
    def evaluations(self) -> int:
        """How many there are at most."""
        return self.population + self.iterations * (self.mutations + self.crossovers)

    def run(self, starts: Sequence[Individual], loss: Callable[[Individual], float], random: Random) -> tuple[Individual, float]:
        """The best candidate and its loss; no worse than any start. Ends early where `loss` raises BudgetSpent.

        A start may lie beyond `most`, and is then as large as that.
        """
        found: dict[Individual, float] = {}
        try:
            for start in starts:
                self._evaluate(Individual(tuple(min(factor, self.most) for factor in start.factors), start.start_tokens), loss, found)
            first, seen = list(found), set(found)
            for _ in range(self.population - len(first)):
                self._evaluate(self._mutated(random.choice(first), seen, random), loss, found)
            for _ in range(self.iterations):
                parents = sorted(found, key=lambda one: found[one])[: self.parents]
                children = [self._mutated(random.choice(parents), seen, random) for _ in range(self.mutations)]
                children += [self._crossed(parents, seen, random) for _ in range(self.crossovers)]
                for child in children:
                    self._evaluate(child, loss, found)
        except BudgetSpent:
            if not found:
                raise
        best = min(found, key=lambda one: found[one])
        return best, found[best]

    def _evaluate(self, candidate: Individual | None, loss: Callable[[Individual], float], found: dict[Individual, float]) -> None:
        if candidate is not None and candidate not in found:
            found[candidate] = loss(candidate)

    def _mutated(self, parent: Individual, seen: set[Individual], random: Random) -> Individual | None:
        """`parent` with some factors drawn anew, each from the steps between its neighbours; None where nothing new was found."""
        for _ in range(_TRIES):
            factors = list(parent.factors)
            for i in range(len(factors)):
                if random.random() < PROBABILITY:
                    low = factors[i - 1] if i else 1.0
                    high = factors[i + 1] if i + 1 < len(factors) else self.most
                    first, last = math.ceil(round(low / STEP, 6)), math.floor(round(high / STEP, 6))
                    if first <= last:
                        factors[i] = round(random.randint(first, last) * STEP, 6)
            start = random.choice(self.start_tokens) if random.random() < PROBABILITY else parent.start_tokens
            child = Individual(tuple(factors), start)
            if child not in seen:
                seen.add(child)
                return child
        return None

    def _crossed(self, parents: Sequence[Individual], seen: set[Individual], random: Random) -> Individual | None:
        """A parent with some factors of another one, where they never fall; else a mutation of it."""
        if len(parents) < 2:
            return self._mutated(parents[0], seen, random)
        one, other = random.sample(parents, 2)
        for _ in range(_TRIES):
            taken = [random.random() < PROBABILITY for _ in (*one.factors, None)]
            mixed = [b if take else a for a, b, take in zip(one.factors, other.factors, taken, strict=False)]
            child = Individual(tuple(mixed), other.start_tokens if taken[-1] else one.start_tokens)
            if child not in seen and all(a <= b for a, b in pairwise(mixed)):
                seen.add(child)
                return child
        return self._mutated(one, seen, random)
