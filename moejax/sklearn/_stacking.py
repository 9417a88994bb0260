"""Stacking: estimators that are fitted once, and a gate that is trained on their out-of-fold predictions."""

from __future__ import annotations

from typing import Any, Self

import jax
import numpy as np
from sklearn.linear_model import RidgeCV

from moejax import _checks, gates, losses
from moejax._precision import precision
from moejax.model._arguments import shapes_of
from moejax.predict import _stacking as stacking
from moejax.sklearn._combination import BLIND, LOSSES, SEES, Classification, Combination, Regression, model_of
from moejax.sklearn._estimators import best_of_starts, check_choice, check_coefficients, gradient_fit, seed_of
from moejax.sklearn._parts import Named, part_of
from moejax.sklearn._targets import Labels
from moejax.solvers import Status, fit_em

STACKING_GATES: Named = {
    "fixed": gates.fixed,
    "constant": gates.constant,
    "softmax": gates.softmax,
    "gaussian": gates.gaussian,
    "confidence": gates.confidence,
}
# Weights of the ridge that forecasts losses. They are large because losses are mostly noise.
_ALPHAS = np.logspace(-1, 5, 13)


class _Stacking(Combination):
    """Estimators that are fitted once, and a gate that is trained on their out-of-fold predictions."""

    loss: str
    sees: str
    temperature: float
    forecaster: Any

    def _check_settings(self) -> list[Any]:
        """Check the settings and return the estimators."""
        models = self._models()
        for name, wanted in (("loss", LOSSES), ("sees", SEES)):
            check_choice(name, getattr(self, name), wanted)
        _checks.number_above_0("temperature", self.temperature)
        if not isinstance(self.gate, str):
            gates.completed(self.gate)  # which refuses what is none
        if self.forecaster is not None and not all(hasattr(self.forecaster, method) for method in ("fit", "predict")):
            raise ValueError(f"forecaster: {_checks.shown(self.forecaster)} was given; want a regressor")
        if self.loss == "squared_error" and self._kind is Labels:
            raise ValueError("loss: 'squared_error' was given for classes; want 'nll'")
        return models

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the estimators and the gate.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets or labels.
        sample_weight : array-like, (n,), or float, optional
            Case weights, none below 0: a row of weight 2 counts twice, a row of weight 0 is absent. A number is the weight
            of every row. None means equal weights. They apply to estimators and gate alike.

        Returns
        -------
        estimator
            The estimator itself.

        Raises
        ------
        ValueError
            If a setting or a row is not valid, the gate does not fit what it sees, or weights are given and the `fit` of an
            estimator takes no `sample_weight`.
        RuntimeError
            If no start of the gate leads to a fit of finite numbers.
        """
        models = self._check_settings()
        X, target, weights = self._checked_rows(X, y, sample_weight)
        given_weights = None if sample_weight is None else weights
        fit = self._configured(X, len(target))
        labels = self._folds(X, target)
        predicted = stacking.out_of_fold(models, X, target, labels, weights=given_weights)
        self.estimators_ = [
            stacking.fit_copy(m, X, target, given_weights, name)
            for m, (name, _) in zip(models, self.estimators, strict=True)
        ]
        self.out_of_fold_ = predicted
        gate_table = self._standardized(self._table(X, predicted), weights)
        if self.gate == "confidence":
            gate_table = self._forecasts(gate_table, stacking.losses(predicted, target), labels, given_weights)
        inputs = {"predictions": self.target_.predictors(predicted), "gate": gate_table}
        self._fit_gate(fit, inputs, self.target_.scaled(target), weights)
        return self

    def _configured(self, X: Any, n: int) -> Any:
        """Return the fit of the gate; set `model_`.

        Raise ValueError for a gate that does not fit, before any estimator is fitted.
        """
        more = {"temperature": float(self.temperature)} if self.gate == "confidence" else {}
        gate = part_of("gate", self.gate, STACKING_GATES, gates.completed, **more)
        likelihood, count, numbers = self.loss == "nll", len(self.estimators), self.target_.numbers
        self.model_ = model_of(gate, count, self.target_.family if likelihood else None)
        blank = np.zeros((n, count) if numbers is None else (n, count, len(numbers)))
        table = np.zeros((n, count)) if self.gate == "confidence" else self._table(X, blank)
        inputs = {"predictions": blank, "gate": table}
        with precision(np.dtype(float)):
            shapes_of(self.model_, inputs)
            check_coefficients(self.model_, inputs, {"l1_gate": self.l1_gate} if self.l1_gate > 0 else {})
        if likelihood:
            return fit_em(self.model_, max_iter=self.max_iter)
        return gradient_fit(self.model_, losses.squared_error(), 10 * self.max_iter)

    def _fit_gate(self, fit: Any, inputs: dict[str, np.ndarray], y: np.ndarray, weights: np.ndarray) -> None:
        """Fit the gate, and for a likelihood the scales, and set the attributes of that fit."""
        with precision(np.dtype(float)):
            trained = self.model_.trainable(shapes_of(self.model_, inputs)[0])
            if self.model_.family is None and not any(jax.tree.leaves(trained)):
                self.params_ = jax.tree.map(np.asarray, self.model_.init(jax.random.key(0), inputs))
                errors = np.square(np.asarray(self.model_.predict(self.params_, inputs)) - y)
                self.objective_, self.log_likelihood_ = float(np.average(errors, weights=weights)), float("nan")
                self.n_iter_, self.status_, self.converged_ = 1, Status.CONVERGED, True
                return
        seed = seed_of(self.random_state)
        with precision(np.dtype(float)):
            best = best_of_starts(fit, self.n_init, self._hyper(), seed, inputs, y, weights)
        self.params_ = jax.tree.map(np.asarray, best.params)
        self.objective_, self.log_likelihood_ = float(best.objective), float(best.log_likelihood)
        self.n_iter_, self.status_ = int(best.steps), Status(int(best.status))
        self.converged_ = bool(self.status_ & Status.CONVERGED)

    def _table(self, X: Any, predicted: np.ndarray) -> np.ndarray:
        """Return what the gate is to see, (n, d), before it is standardised."""
        inputs = [] if self.sees == "predictions" or self.gate in BLIND else [np.asarray(X, float)]
        return np.hstack([*inputs, *([] if inputs and self.sees == "inputs" else [self.target_.columns(predicted)])])

    def _seen(self, X: Any, predicted: np.ndarray) -> np.ndarray:
        """Return what the gate sees for new rows: standardised columns, or forecasts of losses."""
        table = self._standardized(self._table(X, predicted))
        if self.gate == "confidence":
            return stacking.predictions(self.forecasters_, table)
        return table

    def _forecasts(self, table: np.ndarray, loss_table: np.ndarray, labels: np.ndarray, weights: Any) -> np.ndarray:
        """Return out-of-fold forecasts of the estimators' losses, (n, K); keep forecasters fitted to all rows."""
        forecaster = RidgeCV(_ALPHAS) if self.forecaster is None else self.forecaster
        columns = list(loss_table.T)
        self.forecasters_ = [stacking.fit_copy(forecaster, table, loss, weights, "forecaster") for loss in columns]
        forecasts = [stacking.out_of_fold([forecaster], table, loss, labels, weights=weights) for loss in columns]
        return np.concatenate(forecasts, axis=1)


class MoEStackingRegressor(Regression, _Stacking):
    """Stacking with weights that may depend on the input: a gate over regressors, trained on their out-of-fold predictions.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Name and regressor of each expert, with `fit` and `predict`.
    gate : str or GateLike, default "softmax"
        How the predictions are weighted.

        - "fixed": equally (the plain mean).
        - "constant": by weights that do not depend on the input: plain stacking with convex weights [1]_ [2]_.
        - "softmax": by a softmax of linear functions of what the gate sees.
        - "gaussian": by a normal density, for each estimator, of what the gate sees.
        - "confidence": by forecasts of the loss of each estimator, see `moejax.gates.confidence`.
        - A part from `moejax.gates`, or any record with `init` and `log_probs`.
    sees : {"inputs", "predictions", "both"}, default "inputs"
        What the gates "softmax", "gaussian" and "confidence" see, and gates that are objects. The columns are standardised.
    cv : int, array-like (n,) or splitter, default 5
        Number of folds, the fold of each row, or a splitter of scikit-learn that holds out every row once.
    loss : {"squared_error", "nll"}, default "squared_error"
        The mean squared error of the prediction; or the mean negative log-likelihood of a mixture of normal distributions
        around the predictions, with one scale for each estimator. Under "nll" the gate weights densities instead of means.
    l1_gate, l2_gate : float, defaults 0.0 and 0.01
        Weights of the sum of absolute and of squared coefficients of the gate, whose columns are standardised. `l2_gate` is
        larger than in `MoERegressor`, because the rows contain little information on which of several good estimators is the
        better one. `l1_gate` is only for gates with coefficients, such as "softmax".
    temperature : float, default 1.0
        Temperature of the gate "confidence", above 0.
    forecaster : regressor, optional
        Regressor that forecasts the losses of the estimators, for the gate "confidence". None means ridge regression with a
        weight chosen by cross-validation.
    n_init : int, default 4
        Number of starts of the gate.
    max_iter : int, default 500
        Most iterations of each start.
    random_state : int, numpy.random.RandomState or None, default None
        Source of the starts of the gate. The estimators have random states of their own.

    Attributes
    ----------
    estimators_ : list
        The estimators, fitted to all rows.
    forecasters_ : list
        For gate="confidence", the forecasters of the estimators' losses, fitted to all rows.
    out_of_fold_ : numpy.ndarray, (n, K)
        Out-of-fold predictions, in the units of y.
    model_, params_ : Model and pytree
        The mixture of `moejax`, for inputs {"predictions": predictions, "gate": what the gate sees}, both standardised.
    objective_ : float
        The minimised quantity: mean loss over rows plus penalties, on the scale of the fit.
    log_likelihood_ : float
        Total log-likelihood on the scale of the fit; NaN for squared error.
    n_iter_ : int
        Iterations of the chosen fit of the gate; 1 where it has nothing to fit.
    converged_ : bool
        Whether that fit converged.
    status_ : Status
        How it ended; `moejax.describe` gives it in words.
    gate_mean_, gate_scale_ : numpy.ndarray
        Means and standard deviations that standardise what the gate sees.

    References
    ----------
    .. [1] Wolpert (1992), "Stacked generalization", Neural Networks.
    .. [2] Breiman (1996), "Stacked regressions", Machine Learning.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from sklearn.tree import DecisionTreeRegressor
    >>> from moejax.sklearn import MoEStackingRegressor
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> models = [("line", LinearRegression()), ("tree", DecisionTreeRegressor(max_depth=3, random_state=0))]
    >>> model = MoEStackingRegressor(models, gate="constant", n_init=1, random_state=0).fit(X, np.abs(X[:, 0]))
    >>> model.predict_gate(X).shape
    (100, 2)
    """

    def __init__(
        self,
        estimators: Any,
        *,
        gate: Any = "softmax",
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
    """Stacking of classifiers: P(class | x) is the mean of the classifiers' probabilities, weighted by a gate.

    The loss is the mean negative log-likelihood of the labels.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Name and classifier of each expert, with `fit` and `predict_proba`.
    gate : {"fixed", "constant", "softmax", "gaussian", "confidence"} or GateLike, default "softmax"
        How the probabilities are weighted; see `MoEStackingRegressor`. A gate that sees predictions sees probabilities.
    sees : {"inputs", "predictions", "both"}, default "inputs"
        What the gates "softmax", "gaussian" and "confidence" see, and gates that are objects. The columns are standardised.
    cv : int, array-like (n,) or splitter, default 5
        Number of folds, the fold of each row, or a splitter of scikit-learn that holds out every row once.
    l1_gate, l2_gate : float, defaults 0.0 and 0.01
        Weights of the sum of absolute and of squared coefficients of the gate, whose columns are standardised. `l2_gate` is
        larger than in `MoERegressor`, because the rows contain little information on which of several good estimators is the
        better one. `l1_gate` is only for gates with coefficients, such as "softmax".
    temperature : float, default 1.0
        Temperature of the gate "confidence", above 0.
    forecaster : regressor, optional
        Regressor that forecasts the losses of the estimators, for the gate "confidence". None means ridge regression with a
        weight chosen by cross-validation.
    n_init : int, default 4
        Number of starts of the gate.
    max_iter : int, default 500
        Most iterations of each start.
    random_state : int, numpy.random.RandomState or None, default None
        Source of the starts of the gate. The estimators have random states of their own.

    Attributes
    ----------
    classes_ : numpy.ndarray, (C,)
        Sorted labels.
    estimators_ : list
        The estimators, fitted to all rows.
    forecasters_ : list
        For gate="confidence", the forecasters of the estimators' losses, fitted to all rows.
    out_of_fold_ : numpy.ndarray, (n, K, C)
        Out-of-fold log probabilities.
    model_, params_ : Model and pytree
        The mixture of `moejax`, for inputs {"predictions": predictions, "gate": what the gate sees}, both standardised.
    objective_ : float
        The minimised quantity: mean loss over rows plus penalties, on the scale of the fit.
    log_likelihood_ : float
        Total log-likelihood on the scale of the fit; NaN for squared error.
    n_iter_ : int
        Iterations of the chosen fit of the gate; 1 where it has nothing to fit.
    converged_ : bool
        Whether that fit converged.
    status_ : Status
        How it ended; `moejax.describe` gives it in words.
    gate_mean_, gate_scale_ : numpy.ndarray
        Means and standard deviations that standardise what the gate sees.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from moejax.sklearn import MoEStackingClassifier
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> models = [("line", LogisticRegression()), ("tree", DecisionTreeClassifier(max_depth=3, random_state=0))]
    >>> model = MoEStackingClassifier(models, gate="constant", n_init=1, random_state=0).fit(X, X[:, 0] * X[:, 1] > 0)
    >>> model.predict_proba(X).shape
    (100, 2)
    """

    loss = "nll"

    def __init__(
        self,
        estimators: Any,
        *,
        gate: Any = "softmax",
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
