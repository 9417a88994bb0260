"""Mixtures of any estimators: stacking of estimators that are fitted once, and ensembles that are trained inside EM.

    from moejax.sklearn import MoEStackingRegressor, MoEEnsembleRegressor

    MoEStackingRegressor([("ridge", Ridge()), ("forest", RandomForestRegressor())], gate="softmax").fit(X, y)
    MoEEnsembleRegressor([("line", LinearRegression()), ("tree", DecisionTreeRegressor())]).fit(X, y)

An expert is any object with the methods `fit` and `predict` of scikit-learn (`predict_proba` for classes). Experts are
trained on the host, one after another. The gate and the scales belong to a `moejax` model whose experts are predictions.
This model is compiled, in float64. The target and what the gate sees are standardised for this model only. The estimators
get X and y as they are given (classes as numbers from 0).
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
from moejax.sklearn._estimators import Scored, applied, check_seed, column_moments, row_weights, table_of
from moejax.sklearn._targets import Labels, Reals

LOSSES = ("nll", "squared_error")
SEES = ("inputs", "predictions", "both")
BLIND = ("fixed", "constant")


def _is_split(pair: Any) -> bool:
    """Whether this is a pair of row numbers, those to train on and those to hold out."""
    return isinstance(pair, list | tuple) and len(pair) == 2 and all(map(np.iterable, pair))


class Combination(BaseEstimator):
    """Named estimators with a gate: checks of settings and rows, and predictions by the fitted model."""

    estimators: Any
    gate: Any
    cv: Any
    l1_gate: float
    l2_gate: float
    n_init: int
    max_iter: int
    random_state: Any
    model_: Model
    _kind: Any  # kind of target: Reals or Labels
    _seen: Any  # method: X and the estimators' predictions -> what the gate sees, (n, d)

    def _models(self) -> list[Any]:
        """Check the settings and return the estimators."""
        for name in ("n_init", "max_iter"):
            _checks.count(name, getattr(self, name))
        for name in ("l1_gate", "l2_gate"):
            _checks.number_from_0(name, getattr(self, name))
        check_seed(self.random_state)
        given = self.estimators
        pairs = isinstance(given, Sequence) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in given)
        if not pairs or not given or len({str(name) for name, _ in given}) < len(given):
            wanted = "(name, estimator) pairs, at least one, names distinct"
            raise ValueError(f"estimators: {_checks.shown(given)} was given; want {wanted}")
        for name, model in given:
            if (self._kind is Labels) != hasattr(model, "predict_proba"):
                wanted = "a classifier with predict_proba" if self._kind is Labels else "a regressor"
                raise ValueError(f"estimators: {name!r} is {model!r}; want {wanted}")
        return [model for _, model in given]

    def _checked(self, X: Any, reset: bool = False) -> Any:
        """Return X as the estimators get it: a data frame unchanged, anything else as an array of numbers."""
        if not reset:
            check_is_fitted(self, "params_")
        more = {"skip_check_array": True} if hasattr(X, "iloc") else {"dtype": np.float64}
        return validate_data(self, table_of(X), reset=reset, **more)

    def _checked_rows(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Return X and y as the estimators get them, and weights; set `target_`."""
        X = self._checked(X, reset=True)
        y = self._kind.checked(column_or_1d(self._kind.plain(y), warn=True))
        check_consistent_length(X, y)
        weights = row_weights(sample_weight, len(y))
        self.target_ = self._kind.of(y, weights)
        return X, self.target_.encoded(y), weights

    def _folds(self, X: Any, y: np.ndarray) -> np.ndarray:
        """Return the fold of each row, (n,), from `cv`: a number of folds, labels, or a splitter of scikit-learn."""
        is_list = isinstance(self.cv, list | tuple) and not any(map(np.iterable, self.cv))
        if is_list or hasattr(self.cv, "__array__"):
            return stacking.fold_labels(self.cv, y)
        pairs = not isinstance(self.cv, list | tuple) or all(map(_is_split, self.cv))
        if not pairs or isinstance(self.cv, str | bytes):
            wanted = "a number of folds, the fold of each row, or a splitter of scikit-learn"
            raise ValueError(f"cv: {_checks.shown(self.cv)} was given; want {wanted}")
        labels = np.full(len(y), -1)
        splitter = check_cv(self.cv, y, classifier=self._kind is Labels)
        for fold, (train, held) in enumerate(splitter.split(np.zeros((len(y), 1)), y)):
            if (labels[held] >= 0).any() or len(train) + len(held) < len(y):
                raise ValueError(
                    f"cv: fold {fold} leaves rows out or holds some out again; want folds that hold out every row once"
                )
            labels[held] = fold
        return stacking.fold_labels(labels, y)

    def _hyper(self) -> dict[str, float]:
        """Return the weights of penalties that are above 0, by name; no `l2_gate` for a gate without coefficients."""
        given = {"l1_gate": self.l1_gate, "l2_gate": self.l2_gate if self.model_.gate.declares_penalized else 0.0}
        return {name: float(weight) for name, weight in given.items() if weight > 0}

    def _standardized(self, table: Any, weights: np.ndarray | None = None) -> np.ndarray:
        """Standardise what the gate sees; with weights, in a fit, also set the means and standard deviations."""
        table = np.asarray(table, float)
        _checks.finite("X", table)
        if weights is not None:
            self.gate_mean_, self.gate_scale_ = column_moments(table, weights)
        standardized: np.ndarray = (table - self.gate_mean_) / self.gate_scale_
        return standardized

    def _applied(self, method: str, X: Any, *y: np.ndarray) -> np.ndarray:
        """Apply the model's method of that name to predictions of the fitted estimators."""
        X = self._checked(X)
        predicted = stacking.predictions(self.estimators_, X, self.target_.numbers)
        inputs = {"predictions": self.target_.predictors(predicted), "gate": self._seen(X, predicted)}
        return applied(method, self.model_, self.params_, inputs, *y)

    def predict_gate(self, X: Any) -> np.ndarray:
        """Return the weight of each estimator for each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, K)
            Gate probabilities; each row has sum 1.
        """
        return self._applied("gate_probs", X)

    def log_prob(self, X: Any, y: Any) -> np.ndarray:
        """Return log p(y | x) for each row, in the units of y.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets.

        Returns
        -------
        numpy.ndarray, (n,)
            Log densities or log probabilities, in nats.

        Raises
        ------
        ValueError
            If the loss is squared error, which has no density.
        """
        check_is_fitted(self, "params_")
        given = column_or_1d(self._kind.plain(y), warn=True)
        X = table_of(X)
        check_consistent_length(X, given)
        scaled = self.target_.scaled(self.target_.encoded(self._kind.checked(given)))
        scores: np.ndarray = self._applied("log_prob", X, scaled) - np.log(self.target_.scale)
        return scores


class Regression(Scored, RegressorMixin):
    """Predictions of a real target."""

    _kind = Reals
    _applied: Any
    target_: Any

    def predict(self, X: Any) -> np.ndarray:
        """Return E[y | x] for each row: the mean of the estimators' predictions, weighted by the gate.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n,)
            Predictions, in the units of y.
        """
        predicted: np.ndarray = self._applied("predict", X) * self.target_.scale + self.target_.mean
        return predicted

    def predict_experts(self, X: Any) -> np.ndarray:
        """Return the prediction of each estimator for each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, K)
            Predictions, in the units of y.
        """
        predicted: np.ndarray = self._applied("expert_predictions", X) * self.target_.scale + self.target_.mean
        return predicted


class Classification(Scored, ClassifierMixin):
    """Predictions of labels."""

    _kind = Labels
    _applied: Any
    target_: Any

    @property
    def classes_(self) -> np.ndarray:
        """Sorted labels, (C,)."""
        check_is_fitted(self, "target_")
        classes: np.ndarray = self.target_.classes
        return classes

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n,)
            Labels.
        """
        labels: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return P(class | x) for each row: the mean of the estimators' probabilities, weighted by the gate.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, C)
            Probabilities, in the order of `classes_`.
        """
        probs: np.ndarray = self._applied("predict", X)
        return probs

    def predict_experts(self, X: Any) -> np.ndarray:
        """Return P(class | x) of each estimator for each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, K, C)
            Probabilities, with classes in the order of `classes_`.
        """
        probs: np.ndarray = self._applied("expert_predictions", X)
        return probs


def model_of(gate: Any, count: int, family: Any) -> Model:
    """Return the model of a gate over the predictions of estimators.

    Parameters
    ----------
    gate : gate
        A gate of `moejax.gates`.
    count : int
        Number of estimators.
    family : family or None
        A family of `moejax.families`; None without a likelihood.

    Returns
    -------
    Model
        A model for inputs {"predictions": predictions, "gate": what the gate sees}.
    """
    return moe(experts.predictions(), gate, count, family=family, expert_columns="predictions", gate_columns="gate")
