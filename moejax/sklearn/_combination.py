"""Mixtures of any estimators: stacking of models that are fitted once, and ensembles trained inside EM.

    from moejax.sklearn import MoEStackingRegressor, MoEEnsembleRegressor

    MoEStackingRegressor([("ridge", Ridge()), ("forest", RandomForestRegressor())], gate="softmax").fit(X, y)
    MoEEnsembleRegressor([("line", LinearRegression()), ("tree", DecisionTreeRegressor())]).fit(X, y)

Experts are whatever has scikit-learn's `fit` and `predict` (`predict_proba` for classes). They are trained on the host, one
after another; gate and scales are those of a `moejax` model whose experts are predictions, compiled, in float64. The target
and what the gate sees are standardised for that model, and never for the estimators, which get X and y as they are given
(classes as numbers from 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from moejax import _checks, experts
from moejax.model import Model, moe
from moejax.predict import _stacking as stacking
from moejax.sklearn._estimators import applied, moments, row_weights
from moejax.sklearn._targets import Labels, Reals

LOSSES = ("nll", "squared_error")
SEES = ("inputs", "predictions", "both")
BLIND = ("fixed", "constant")
UNTRAINED = ("fixed", "confidence")
PATIENCE, LEAST_IMPROVEMENT = 100, 1e-9  # of accelerated steps


class Combination(BaseEstimator):
    """Named estimators beside a gate: their checks, and predictions by the model that was fitted."""

    estimators: Any
    gate: Any
    cv: Any
    l1_gate: float
    l2_gate: float
    n_init: int
    max_iter: int
    random_state: Any
    _kind: Any  # of target: _Reals or _Labels
    _seen: Any  # X and what estimators predict to what the gate sees, (n, d)

    def _models(self) -> list[Any]:
        """The estimators, checked like the numbers."""
        for name in ("n_init", "max_iter"):
            _checks.count(name, getattr(self, name))
        for name in ("l1_gate", "l2_gate"):
            _checks.not_negative(name, getattr(self, name))
        given = self.estimators
        pairs = isinstance(given, Sequence) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given)
        if not given or not pairs or len({name for name, _ in given}) < len(given):
            raise ValueError(f"estimators: {given!r} was given; want (name, estimator) pairs, at least one, names distinct")
        for name, model in given:
            if (self._kind is Labels) != hasattr(model, "predict_proba"):
                wanted = "a classifier with predict_proba" if self._kind is Labels else "a regressor"
                raise ValueError(f"estimators: {name!r} is {model!r}; want {wanted}")
        return [model for _, model in given]

    def _checked(self, X: Any, reset: bool = False) -> Any:
        """X as estimators get it: data frames as they are, all else as an array of numbers."""
        if not reset:
            check_is_fitted(self, "params_")
        more = {"skip_check_array": True} if hasattr(X, "iloc") else {"dtype": np.float64}
        return validate_data(self, X, reset=reset, **more)

    def _checked_rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """X and y as estimators get them, and weights; sets the kind of target."""
        X = self._checked(X, reset=True)
        y = self._kind.checked(column_or_1d(y, warn=True))
        check_consistent_length(X, y)
        weights = row_weights(sample_weight, len(y))
        self.target_ = self._kind.of(y, weights)
        return X, self.target_.encoded(y), weights

    def _folds(self, X: Any, y: np.ndarray) -> np.ndarray:
        """The fold of each row, (n,), by cv: how many, labels, or a splitter of scikit-learn."""
        if isinstance(self.cv, np.ndarray | list | tuple) and not any(map(np.iterable, self.cv)):
            return stacking.fold_labels(self.cv, y)
        labels = np.full(len(y), -1)
        splitter = check_cv(self.cv, y, classifier=self._kind is Labels)
        for fold, (train, held) in enumerate(splitter.split(np.zeros((len(y), 1)), y)):
            if (labels[held] >= 0).any() or len(train) + len(held) < len(y):
                raise ValueError(f"cv: fold {fold} leaves rows out or holds some out again; want folds that part all rows")
            labels[held] = fold
        return stacking.fold_labels(labels, y)

    def _hyper(self) -> dict[str, float]:
        given = {"l1_gate": self.l1_gate, "l2_gate": self.l2_gate}
        return {name: float(weight) for name, weight in given.items() if weight > 0}

    def _standardized(self, table: Any, weights: np.ndarray | None = None) -> np.ndarray:
        """What the gate sees; weights: given in a fit, by which means and deviations are then kept."""
        table = np.asarray(table, float)
        _checks.finite("X", table)
        if weights is not None:
            self.gate_mean_, self.gate_scale_ = moments(table, weights)
        return (table - self.gate_mean_) / self.gate_scale_

    def _applied(self, method: str, X: Any, *y: np.ndarray) -> np.ndarray:
        X = self._checked(X)
        said = stacking.predictions(self.estimators_, X, self.target_.numbers)
        inputs = {"predictions": self.target_.predictors(said), "gate": self._seen(X, said)}
        return applied(method, self.model_, self.params_, inputs, *y)

    def predict_gate(self, X: Any) -> np.ndarray:
        """The weight of each estimator for each row of X (n, d): (n, K)."""
        return self._applied("gate_probs", X)

    def score_samples(self, X: Any, y: Any) -> np.ndarray:
        """log p(y | x) for each row of X (n, d) and y (n,), in the units of y: (n,). Raises ValueError for squared error."""
        check_is_fitted(self, "params_")
        scaled = self.target_.scaled(self.target_.encoded(self._kind.checked(column_or_1d(y))))
        return self._applied("log_prob", X, scaled) - np.log(self.target_.scale)


class Regression(RegressorMixin):
    """Predictions of a real target."""

    _kind = Reals
    _applied: Any
    target_: Any

    def predict(self, X: Any) -> np.ndarray:
        """E[y | x] for each row of X (n, d), the gate-weighted mean of what the estimators predict: (n,)."""
        return self._applied("predict", X) * self.target_.scale + self.target_.mean

    def predict_experts(self, X: Any) -> np.ndarray:
        """What each estimator predicts for each row of X (n, d): (n, K)."""
        return self._applied("expert_predictions", X) * self.target_.scale + self.target_.mean


class Classification(ClassifierMixin):
    """Predictions of labels."""

    _kind = Labels
    _applied: Any
    target_: Any

    @property
    def classes_(self) -> np.ndarray:
        """Sorted labels, (C,)."""
        check_is_fitted(self, "target_")
        return self.target_.classes

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label for each row of X (n, d): (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """P(class | x) for each row of X (n, d), the gate-weighted mean of those of the estimators: (n, C)."""
        return self._applied("predict", X)

    def predict_experts(self, X: Any) -> np.ndarray:
        """Each estimator's P(class | x) for each row of X (n, d): (n, K, C)."""
        return self._applied("expert_predictions", X)


def model_of(gate: Any, count: int, family: Any) -> Model:
    return moe(experts.predictions(), gate, count, family=family, expert_columns="predictions", gate_columns="gate")
