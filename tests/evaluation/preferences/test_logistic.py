"""The solver beside a naive one of the same objective."""

import numpy as np
import pytest

from longreach.evaluation.preferences.logistic import FOLDS, STRENGTHS, Problem, cross_validated, sigmoid, solve


def made(seed, rows=60, features=3):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features))
    chance = sigmoid(2.0 * x[:, 0] - x[:, 1])
    y = chance if seed % 2 else (rng.random(rows) < chance).astype(float)
    return Problem(x=x, y=y, weight=rng.choice([0.1, 1.0], rows))


def objective(problem, w, strength):
    """Written as two copies of each row, with labels, as liblinear has them."""
    logits = problem.x @ w
    losses = problem.y * np.log1p(np.exp(-logits)) + (1 - problem.y) * np.log1p(np.exp(logits))
    return np.abs(w).sum() + strength * (problem.weight * losses).sum()


def naive(problem, strength):
    """The least along each coordinate in turn, by golden sections."""
    w, golden = np.zeros(problem.x.shape[1]), (np.sqrt(5) - 1) / 2
    for _ in range(60):
        for j in range(len(w)):
            low, high = w[j] - 4, w[j] + 4

            def at(value, j=j):
                return objective(problem, np.where(np.arange(len(w)) == j, value, w), strength)

            while high - low > 1e-9:
                one, other = high - golden * (high - low), low + golden * (high - low)
                low, high = (low, other) if at(one) < at(other) else (one, high)
            w[j] = (low + high) / 2 if at((low + high) / 2) < at(0.0) else 0.0
    return w


@pytest.mark.parametrize(("seed", "strength"), [(0, 0.05), (1, 0.3), (2, 20.0)])
def test_it_finds_the_least_of_the_objective(seed, strength):
    problem = made(seed)
    found, slow = solve(problem, strength)[0], naive(problem, strength)
    assert found == pytest.approx(slow, abs=2e-6)
    assert objective(problem, found, strength) <= objective(problem, slow, strength) + 1e-12


def test_the_penalty_leaves_coefficients_out():
    weak = solve(made(0), 0.2)[0]
    assert weak[0] > 0
    assert weak[2] == 0
    assert solve(made(0), 1e-4)[0].tolist() == [0, 0, 0]


def test_many_problems_at_once_are_as_one_by_one():
    problem = made(1)
    counts = np.random.default_rng(5).multinomial(60, np.full(60, 1 / 60), size=4).astype(float)
    together = solve(problem, 2.0, counts)
    for count, w in zip(counts, together, strict=True):
        rows = np.repeat(np.arange(60), count.astype(int))
        alone = solve(Problem(x=problem.x[rows], y=problem.y[rows], weight=problem.weight[rows]), 2.0)[0]
        assert w == pytest.approx(alone, abs=1e-7)
    assert solve(problem, STRENGTHS) == pytest.approx(np.concatenate([solve(problem, one) for one in STRENGTHS]), abs=1e-7)


def test_the_strength_is_the_one_with_the_least_loss_on_held_out_rows():
    problem = made(2)
    losses = []
    for strength in STRENGTHS:
        total = 0.0
        for held in range(FOLDS):
            out = np.arange(60) % FOLDS == held
            w = solve(Problem(x=problem.x[~out], y=problem.y[~out], weight=problem.weight[~out]), strength)[0]
            chance = sigmoid(problem.x[out] @ w)
            loss = -(problem.y[out] * np.log(chance) + (1 - problem.y[out]) * np.log(1 - chance))
            total += (problem.weight[out] * loss).mean()
        losses.append(total)
    assert cross_validated(problem) == STRENGTHS[int(np.argmin(losses))]
    assert losses[0] > min(losses) < losses[-1]


def test_separable_rows_come_to_an_end():
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    w = solve(Problem(x=x, y=np.array([0.0, 0, 1, 1]), weight=np.ones(4)), 1e4)[0]
    assert 5 < w[0] < 20
