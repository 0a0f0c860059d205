"""How much of the preferences length explains, with nothing else known."""

from dataclasses import dataclass

import numpy as np

from longreach.evaluation.preferences.annotations import Floats
from longreach.evaluation.preferences.logistic import Problem, sigmoid, solve

_FREE = 1e6  # C: the penalty does not matter


@dataclass(frozen=True, kw_only=True)
class LengthEffect:
    """What length explains of preferences.

    Args: deviance: share of their deviance that length alone explains, 0 to 1. mcfadden: the same of the loglikelihood, which is smaller
    where annotators give probabilities. spearman: rank correlation of preference and difference of lengths, -1 to 1.
    """

    deviance: float
    mcfadden: float
    spearman: float


def length_effect(feature: Floats, longer: Floats, y: Floats) -> LengthEffect:
    """Of N judged comparisons. Args: feature: of length [N]. longer: difference of lengths in characters [N]. y: preference [N]."""
    x = np.stack([feature, np.ones_like(feature)], axis=1)
    (w,) = solve(Problem(x=x, y=y, weight=np.ones(len(y))), _FREE)
    model, null, whole = (_loss(chance, y) for chance in (sigmoid(x @ w), np.full(len(y), y.mean()), y))
    spread = null - whole
    return LengthEffect(
        deviance=max(0.0, 1 - (model - whole) / spread) if spread > _ROUNDING else 0.0,
        mcfadden=max(0.0, 1 - model / null) if null > _ROUNDING else 0.0,
        spearman=_correlation(_ranks(longer), _ranks(y)),
    )


def _loss(chance: Floats, y: Floats) -> float:
    """Mean -log likelihood; of y itself, the least there is."""
    chance = np.clip(chance, 1e-300, 1)
    other = np.clip(1 - chance, 1e-300, 1)
    return float(-(y * np.log(chance) + (1 - y) * np.log(other)).mean())


def _ranks(values: Floats) -> Floats:
    """Ranks [N]; equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


_ROUNDING = 1e-12
