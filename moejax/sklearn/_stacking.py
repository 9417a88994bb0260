"""Stacking: estimators that are fitted once, and a gate that is trained on what they predict out of fold."""

from __future__ import annotations

from typing import Any, Self

import jax
import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.utils import check_random_state

from moejax import _checks, gates, losses
from moejax.predict import _stacking as stacking
from moejax.sklearn._combination import (
    BLIND,
    LEAST_IMPROVEMENT,
    LOSSES,
    PATIENCE,
    SEES,
    UNTRAINED,
    Classification,
    Combination,
    Regression,
    model_of,
)
from moejax.sklearn._estimators import best_of_starts, check_choice, precision
from moejax.sklearn._targets import Labels
from moejax.solvers import fit_em, fit_gradient

STACKING_GATES = ("fixed", "constant", "softmax", "gaussian", "confidence")
_ALPHAS = np.logspace(
    -1, 5, 13
)  # of the ridge that forecasts losses, whose noise is larger than most of what there is to see


class _Stacking(Combination):
    """Models fitted once, and a gate on what they predict out of fold."""

    loss: str
    sees: str
    temperature: float
    forecaster: Any

    def _check_settings(self) -> list[Any]:
        models = self._models()
        for name, wanted in (("gate", STACKING_GATES), ("loss", LOSSES), ("sees", SEES)):
            check_choice(name, getattr(self, name), wanted)
        _checks.positive("temperature", self.temperature)
        if self.l1_gate > 0 and self.gate != "softmax":
            raise ValueError(f"l1_gate: {self.l1_gate} was given for gate={self.gate!r}; want gate='softmax'")
        if self.loss == "squared_error" and self._kind is Labels:
            raise ValueError("loss: 'squared_error' was given for classes; want 'nll'")
        return models

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n, d) and y (n,). sample_weight: (n,), for estimators and gate alike. Returns the estimator.

        Raises ValueError for settings and rows that have no meaning, and for estimators without sample_weight in `fit` where
        weights are given; RuntimeError if no start of the gate leads to an admissible fit.
        """
        models = self._check_settings()
        X, target, weights = self._checked_rows(X, y, sample_weight)
        given = None if sample_weight is None else weights
        labels = self._folds(X, target)
        said = stacking.out_of_fold(models, X, target, labels, weights=given)
        self.estimators_ = [
            stacking.fit_copy(m, X, target, given, name) for m, (name, _) in zip(models, self.estimators, strict=True)
        ]
        self.out_of_fold_ = said
        seen = self._standardized(self._table(X, said), weights)
        if self.gate == "confidence":
            seen = self._forecasts(seen, stacking.losses(said, target), labels, given)
        inputs = {"predictions": self.target_.predictors(said), "gate": seen}
        self._fit_gate(inputs, self.target_.scaled(target), weights)
        return self

    def _fit_gate(self, inputs: dict[str, np.ndarray], y: np.ndarray, weights: np.ndarray) -> None:
        more = {"temperature": float(self.temperature)} if self.gate == "confidence" else {}
        gate = getattr(gates, self.gate)(**more)
        likelihood = self.loss == "nll"
        self.model_ = model_of(gate, len(self.estimators), self.target_.family if likelihood else None)
        if self.gate in UNTRAINED and not likelihood:  # nor any scale
            with precision(np.dtype(float)):
                self.params_ = jax.tree.map(np.asarray, self.model_.init(jax.random.key(0), inputs))
                errors = np.square(np.asarray(self.model_.predict(self.params_, inputs)) - y)
            self.objective_, self.log_likelihood_ = float(np.average(errors, weights=weights)), float("nan")
            return
        fit: Any
        if likelihood:
            fit = fit_em(self.model_, max_iter=self.max_iter)
        else:
            fit = fit_gradient(
                self.model_,
                losses.squared_error(),
                "accelerated",
                steps=10 * self.max_iter,
                patience=PATIENCE,
                min_improvement=LEAST_IMPROVEMENT,
            )
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with precision(np.dtype(float)):
            best = best_of_starts(fit, self.n_init, self._hyper(), seed, inputs, y, weights)
        self.params_ = jax.tree.map(np.asarray, best.params)
        self.objective_, self.log_likelihood_ = float(best.objective), float(best.log_likelihood)

    def _table(self, X: Any, said: np.ndarray) -> np.ndarray:
        """What the gate is to see, (n, d), before it is standardised."""
        inputs = [] if self.sees == "predictions" or self.gate in BLIND else [np.asarray(X, float)]
        return np.hstack([*inputs, *([] if inputs and self.sees == "inputs" else [self.target_.columns(said)])])

    def _seen(self, X: Any, said: np.ndarray) -> np.ndarray:
        table = self._standardized(self._table(X, said))
        if self.gate == "confidence":
            return stacking.predictions(self.forecasters_, table)
        return table

    def _forecasts(self, table: np.ndarray, lost: np.ndarray, labels: np.ndarray, weights: Any) -> np.ndarray:
        """Forecasts of the estimators' losses out of fold, (n, K); keeps forecasters fitted to all rows."""
        forecaster = RidgeCV(_ALPHAS) if self.forecaster is None else self.forecaster
        each = list(lost.T)
        self.forecasters_ = [stacking.fit_copy(forecaster, table, loss, weights, "forecaster") for loss in each]
        said = [stacking.out_of_fold([forecaster], table, loss, labels, weights=weights) for loss in each]
        return np.concatenate(said, axis=1)


class MoEStackingRegressor(Regression, _Stacking):
    """Stacking whose weights may depend on the input: a gate over regressors, trained on what they predict out of fold.

    estimators: (name, estimator) pairs, with `fit` and `predict`. gate: "fixed" (the plain mean), "constant" (weights that
    see nothing: plain stacking with convex weights, Wolpert 1992, Breiman 1996), "softmax", "gaussian", or "confidence"
    (forecasts of each estimator's loss, see `moejax.gates.confidence`). sees: what the latter three see: "inputs",
    "predictions", or "both". cv: how many folds, the fold of each row (n,), or a splitter of scikit-learn that holds out
    every row once.

    loss: "squared_error" of the prediction; or "nll" of a mixture of normal distributions around the predictions, whose
    scales, one for each estimator, make the weights those of densities rather than of means. l1_gate, l2_gate: as in
    `MoERegressor`, with the gate's columns standardised; l2_gate is larger, for rows tell little of which of several good
    estimators is the better one. temperature, forecaster: of the confidence gate; the forecaster is
    any regressor, ridge by cross-validation unless given. n_init: starts of the gate. max_iter: iterations at most.
    random_state: from which starts are drawn; estimators have their own.

    After `fit`: estimators_, fitted to all rows, as are forecasters_; out_of_fold_ (n, K); model_ and params_, of moejax,
    for {"predictions": (n, K), "gate": what it sees}; objective_; log_likelihood_ (on the scale of the fit, NaN without).
    """

    def __init__(
        self,
        estimators: Any,
        *,
        gate: str = "softmax",
        sees: str = "inputs",
        cv: Any = 5,
        loss: str = "squared_error",
        l1_gate: float = 0.0,
        l2_gate: float = 0.01,
        temperature: float = 1.0,
        forecaster: Any = None,
        n_init: int = 4,
        max_iter: int = 500,
        random_state: Any = None,
    ):
        self.estimators = estimators
        self.gate = gate
        self.sees = sees
        self.cv = cv
        self.loss = loss
        self.l1_gate = l1_gate
        self.l2_gate = l2_gate
        self.temperature = temperature
        self.forecaster = forecaster
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state


class MoEStackingClassifier(Classification, _Stacking):
    """Stacking of classifiers: P(class | x) is the gate-weighted mean of theirs, by the likelihood of the labels.

    The parameters are those of `MoEStackingRegressor` but for the loss, and estimators have `predict_proba`. A gate that
    sees predictions sees probabilities. After `fit` also classes_ (C,); out_of_fold_ has log probabilities (n, K, C).
    """

    loss = "nll"

    def __init__(
        self,
        estimators: Any,
        *,
        gate: str = "softmax",
        sees: str = "inputs",
        cv: Any = 5,
        l1_gate: float = 0.0,
        l2_gate: float = 0.01,
        temperature: float = 1.0,
        forecaster: Any = None,
        n_init: int = 4,
        max_iter: int = 500,
        random_state: Any = None,
    ):
        self.estimators = estimators
        self.gate = gate
        self.sees = sees
        self.cv = cv
        self.l1_gate = l1_gate
        self.l2_gate = l2_gate
        self.temperature = temperature
        self.forecaster = forecaster
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state
