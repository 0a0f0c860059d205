"""The fit as AlpacaEval makes it: liblinear, by scikit-learn's LogisticRegressionCV, on two copies of each row."""

import warnings

import numpy as np

from longreach.evaluation.preferences.annotations import Floats
from longreach.evaluation.preferences.logistic import FOLDS, Problem


def fitted(problem: Problem, tolerance: float) -> tuple[Floats, float]:
    """Coefficients [K] and C. Copies of a row stay in one fold. Raises: ImportError without scikit-learn."""
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    x, label = np.concatenate([problem.x, problem.x]), np.repeat([1, 0], len(problem.y))
    chance, weight = np.concatenate([problem.y, 1 - problem.y]), np.tile(problem.weight, 2)
    scorer = make_scorer(_loss, response_method="predict_proba", greater_is_better=False)
    with sklearn.config_context(enable_metadata_routing=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1.8 and later would have `penalty` written as l1_ratio
        model = LogisticRegressionCV(
            cv=GroupKFold(FOLDS), scoring=scorer.set_score_request(weight=True, chance=True), random_state=123, penalty="l1",
            solver="liblinear", fit_intercept=False, tol=tolerance, max_iter=100 if tolerance >= _USUAL else 100_000,
        ).set_fit_request(sample_weight=True)  # fmt: skip
        groups = np.tile(np.arange(len(problem.y)), 2)
        model.fit(x, label, sample_weight=chance * weight, groups=groups, weight=weight, chance=chance)
    return model.coef_[0], float(np.ravel(model.C_)[0])


def _loss(label: Floats, predicted: Floats, weight: Floats, chance: Floats) -> float:
    y = np.where(np.asarray(label) == 1, chance, 1 - chance)
    predicted = np.clip(predicted, 1e-15, 1 - 1e-15)
    return float(-(weight * (y * np.log(predicted) + (1 - y) * np.log(1 - predicted))).mean())


_USUAL = 1e-4
