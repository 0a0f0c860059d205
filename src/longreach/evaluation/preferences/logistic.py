"""Logistic regression on probabilities with an L1 penalty, for few features: exact, and many problems at once.

The objective is liblinear's, |w| + C * sum of s * (log(1 + exp(x w)) - y * x w), without an intercept. A label y may be any probability,
which is the same as two copies of a row, one of each label, weighted by y and 1 - y. liblinear stops near the optimum; this solves it.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from longreach.evaluation.preferences.annotations import Floats

STRENGTHS = np.logspace(-4, 4, 10)  # the values of C that scikit-learn's cross-validation tries
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Rows to fit. Args: x: features [N, K]. y: probabilities of label 1 [N]. weight: of each row [N]."""

    x: Floats
    y: Floats
    weight: Floats


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits))


def solve(problem: Problem, strength: Floats | float, counts: Floats | None = None, start: Floats | None = None) -> Floats:
    """The coefficients [B, K] of B problems on the same rows.

    Args: strength: C, of each problem [B] or of all. counts: how often each problem has each row [B, N]; None: once. start: where to begin.
    """
    x, y = problem.x, problem.y
    weight = problem.weight[None] if counts is None else problem.weight * counts
    scaled = np.broadcast_to(np.asarray(strength, float).reshape(-1, 1), (max(np.size(strength), len(weight)), 1)) * weight
    w = np.zeros((len(scaled), x.shape[1])) if start is None else np.broadcast_to(start, (len(scaled), x.shape[1])).copy()
    value = _objective(x, y, scaled, w)
    todo = np.arange(len(w))
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    for _ in range(_STEPS):
        chance = sigmoid(w[todo] @ x.T)
        gradient = (scaled[todo] * (chance - y)) @ x
        curvature = ((scaled[todo] * chance * (1 - chance)) @ squares).reshape(-1, x.shape[1], x.shape[1])
        step = _newton(gradient, curvature + _RIDGE * np.eye(x.shape[1]), w[todo]) - w[todo]
        moving = np.abs(step).max(-1) > _TOLERANCE * (1 + np.abs(w[todo]).max(-1))
        todo, step = todo[moving], step[moving]
        if not len(todo):
            break
        w[todo], value[todo] = _searched(x, y, scaled[todo], w[todo], step, value[todo])
    return w


def cross_validated(problem: Problem) -> float:
    """The C with the least loss on rows held out: every fifth row makes a fold. Of equal ones the smallest."""
    fold = np.arange(len(problem.y)) % FOLDS
    losses = np.zeros(len(STRENGTHS))
    for held in range(FOLDS):
        inside = fold != held
        w = solve(Problem(x=problem.x[inside], y=problem.y[inside], weight=problem.weight[inside]), STRENGTHS)
        logits = w @ problem.x[~inside].T
        losses += (problem.weight[~inside] * _loss(logits, problem.y[~inside])).mean(-1)
    return float(STRENGTHS[losses.argmin()])


def _loss(logits: Floats, y: Floats) -> Floats:
    return np.logaddexp(0, logits) - y * logits


def _objective(x: Floats, y: Floats, scaled: Floats, w: Floats) -> Floats:
    return np.abs(w).sum(-1) + (scaled * _loss(w @ x.T, y)).sum(-1)


def _newton(gradient: Floats, curvature: Floats, w: Floats) -> Floats:
    """The least of the quadratic model with its L1 penalty [B, K]: under the signs that one expects, else under the best ones."""
    target = np.einsum("bij,bj->bi", curvature, w) - gradient
    signs = np.where(w != 0, np.sign(w), -np.sign(gradient) * (np.abs(gradient) > 1))
    v = _under(signs, curvature, target)
    slope = target - np.einsum("bij,bj->bi", curvature, v)
    wrong = ((np.sign(v) != signs) | ((signs == 0) & (np.abs(slope) > 1))).any(-1)
    if wrong.any():
        v[wrong] = _best_signs(curvature[wrong], target[wrong])
    return v


def _best_signs(curvature: Floats, target: Floats) -> Floats:
    """The same by trying all P patterns of signs -1, 0 and 1."""
    signs = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=target.shape[1])))[:, None]  # [P, 1, K]
    v = _under(signs, curvature, target)  # [P, B, K]
    value = np.abs(v).sum(-1) + (v * (0.5 * np.einsum("bij,pbj->pbi", curvature, v) - target)).sum(-1)
    value[(np.sign(v) != signs).any(-1)] = np.inf
    found: Floats = v[value.argmin(0), np.arange(len(target))]
    return found


def _under(signs: Floats, curvature: Floats, target: Floats) -> Floats:
    """The least where the coefficients have these signs, as if the penalty were that smooth everywhere."""
    free = signs != 0
    matrix = np.where(free[..., :, None] & free[..., None, :], curvature, np.eye(signs.shape[-1]))
    found: Floats = np.linalg.solve(matrix, ((target - signs) * free)[..., None])[..., 0]
    return found


def _searched(x: Floats, y: Floats, scaled: Floats, w: Floats, step: Floats, value: Floats) -> tuple[Floats, Floats]:
    """Where each step leads, halved as often as it takes for the objective not to rise."""
    size = np.ones((len(w), 1))
    for _ in range(_HALVINGS):
        new = w + size * step
        reached = _objective(x, y, scaled, new)
        worse = reached > value * (1 + _ROUNDING)
        if not worse.any():
            break
        size[worse] /= 2
    return new, reached


_STEPS, _HALVINGS = 200, 40
_TOLERANCE, _ROUNDING, _RIDGE = 1e-9, 1e-13, 1e-10
