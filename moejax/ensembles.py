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

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import check_cv
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from tqdm import tqdm

from moejax import _checks, experts, families, gates, losses, stacking
from moejax._estimators import applied, best_of_starts, check_choice, moments, precision, row_weights
from moejax.model import Model, moe
from moejax.solvers import EMFit, Fit, _starts, fit_em, fit_gradient

STACKING_GATES = ("fixed", "constant", "softmax", "gaussian", "confidence")
ENSEMBLE_GATES = ("fixed", "constant", "softmax", "gaussian")
LOSSES = ("nll", "squared_error")
SEES = ("inputs", "predictions", "both")
_BLIND = ("fixed", "constant")
_UNTRAINED = ("fixed", "confidence")
_FLOOR = 1e-3  # of variances; experts that are not linear in few columns may well differ by more than those of `gaussian`
_LEAST_WEIGHT = 1e-9  # of a row for an expert: estimators want some of every row, and EM's shares underflow
_PATIENCE, _LEAST_IMPROVEMENT = 100, 1e-9  # of accelerated steps
_ALPHAS = np.logspace(
    -1, 5, 13
)  # of the ridge that forecasts losses, whose noise is larger than most of what there is to see


# ---- what kind of target ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reals:
    """A real target, of which the model has (y - mean) / scale."""

    mean: float
    scale: float
    numbers: ClassVar[None] = None

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> _Reals:
        mean, scale = moments(y, weights)
        return cls(float(mean), float(scale))

    @staticmethod
    def checked(y: Any) -> np.ndarray:
        _checks.finite("y", y)
        return np.asarray(y, float)

    def encoded(self, y: np.ndarray) -> np.ndarray:
        """y as estimators get it."""
        return y

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """What estimators get as the model gets it."""
        return (y - self.mean) / self.scale

    def predictors(self, said: np.ndarray) -> np.ndarray:
        """What estimators predict, (n, K), as predictors of the model."""
        return (said - self.mean) / self.scale

    def columns(self, said: np.ndarray) -> np.ndarray:
        """The same, as a gate sees it, (n, K)."""
        return said

    @property
    def family(self) -> Any:
        return families.gaussian(variance_floor=_FLOOR)


@dataclass(frozen=True)
class _Labels:
    """Labels, of which estimators and the model have numbers."""

    classes: np.ndarray
    scale: ClassVar[float] = 1.0

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> _Labels:
        classes, there = np.unique(y), np.unique(y[weights > 0])
        if len(there) < 2:
            raise ValueError(f"y: {there.tolist()[0]!r} alone was given, among rows that count; want more than one class")
        return cls(classes)

    @staticmethod
    def checked(y: Any) -> np.ndarray:
        check_classification_targets(y)
        return np.asarray(y)

    def encoded(self, y: np.ndarray) -> np.ndarray:
        unknown = np.setdiff1d(y, self.classes)
        if unknown.size:
            raise ValueError(f"y: label {unknown[0]!r} was given; want labels among {self.classes.tolist()}")
        return np.searchsorted(self.classes, y)

    def scaled(self, y: np.ndarray) -> np.ndarray:
        return y.astype(float)

    @property
    def numbers(self) -> np.ndarray:
        """What classes are to estimators, (C,)."""
        return np.arange(len(self.classes))

    def predictors(self, said: np.ndarray) -> np.ndarray:
        return said

    def columns(self, said: np.ndarray) -> np.ndarray:
        """Probabilities, (n, K C), for logarithms of small ones would be all that a gate sees."""
        return np.exp(said).reshape(len(said), -1)

    @property
    def family(self) -> Any:
        return families.categorical(len(self.classes))


# ---- what all of them share ---------------------------------------------------------------------------------------------


class _Combination(BaseEstimator):
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
            if (self._kind is _Labels) != hasattr(model, "predict_proba"):
                wanted = "a classifier with predict_proba" if self._kind is _Labels else "a regressor"
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
        splitter = check_cv(self.cv, y, classifier=self._kind is _Labels)
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


class _Regression(RegressorMixin):
    """Predictions of a real target."""

    _kind = _Reals
    _applied: Any
    target_: Any

    def predict(self, X: Any) -> np.ndarray:
        """E[y | x] for each row of X (n, d), the gate-weighted mean of what the estimators predict: (n,)."""
        return self._applied("predict", X) * self.target_.scale + self.target_.mean

    def predict_experts(self, X: Any) -> np.ndarray:
        """What each estimator predicts for each row of X (n, d): (n, K)."""
        return self._applied("expert_predictions", X) * self.target_.scale + self.target_.mean


class _Classification(ClassifierMixin):
    """Predictions of labels."""

    _kind = _Labels
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


def _model(gate: Any, count: int, family: Any) -> Model:
    return moe(experts.predictions(), gate, count, family=family, expert_columns="predictions", gate_columns="gate")


# ---- stacking -----------------------------------------------------------------------------------------------------------


class _Stacking(_Combination):
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
        if self.loss == "squared_error" and self._kind is _Labels:
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
        self.model_ = _model(gate, len(self.estimators), self.target_.family if likelihood else None)
        if self.gate in _UNTRAINED and not likelihood:  # nor any scale
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
                patience=_PATIENCE,
                min_improvement=_LEAST_IMPROVEMENT,
            )
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        with precision(np.dtype(float)):
            best = best_of_starts(fit, self.n_init, self._hyper(), seed, inputs, y, weights)
        self.params_ = jax.tree.map(np.asarray, best.params)
        self.objective_, self.log_likelihood_ = float(best.objective), float(best.log_likelihood)

    def _table(self, X: Any, said: np.ndarray) -> np.ndarray:
        """What the gate is to see, (n, d), before it is standardised."""
        inputs = [] if self.sees == "predictions" or self.gate in _BLIND else [np.asarray(X, float)]
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


class MoEStackingRegressor(_Regression, _Stacking):
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


class MoEStackingClassifier(_Classification, _Stacking):
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


# ---- ensembles trained inside EM ----------------------------------------------------------------------------------------


class _Iterate(NamedTuple):
    """Where the outer iterations of a start got: its best, by log-likelihood.

    models, gate_model: fitted, unless predictions are out of fold. shares: (n, K), by which they were trained.
    """

    params: Any
    log_likelihood: float
    shares: np.ndarray
    models: list[Any]
    gate_model: Any
    steps: int
    converged: bool


class _Ensemble(_Combination):
    """Estimators that EM trains, on the host, by responsibilities as weights of rows."""

    gate_columns: Any
    tol: float
    progress: bool | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, start: Any = None) -> Self:
        """Fit to X (n, d) and y (n,). sample_weight: (n,). start: responsibilities (n, K) to begin with, in the place of
        n_init drawn ones. Returns the estimator.

        Raises ValueError for settings and rows that have no meaning, and for an estimator without sample_weight in `fit`.
        """
        models = self._models()
        for (name, _), model in zip(self.estimators, models, strict=True):
            stacking.weight_argument(model, f"estimators: {name!r}")
        learned = self._learned()
        X, target, weights = self._checked_rows(X, y, sample_weight)
        scaled = self.target_.scaled(target)
        labels = None if self.cv is None else self._folds(X, target)
        table = self._standardized(self._columns(X), weights)
        self.model_ = _model(
            gates.confidence() if learned else getattr(gates, self.gate)(), len(models), self.target_.family
        )
        if start is not None:
            _starts.check_responsibilities("start", start, len(target), len(models))
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        problem = _Problem(self, models, X, target, scaled, weights, labels, table, jax.random.key(seed))
        with precision(np.dtype(float)), tqdm(desc="ensemble", unit="iteration", disable=self._silent) as bar:
            count = self.n_init if start is None else 1
            runs = [problem.run(problem.drawn(i) if start is None else np.asarray(start, float), bar) for i in range(count)]
        best = max(runs, key=lambda run: run.log_likelihood)
        self._keep(best, problem)
        if not self.converged_:
            why = f"{self.max_iter} was given, and the likelihood still changes; want more, or a larger tol"
            warnings.warn(f"max_iter: {why}", ConvergenceWarning, stacklevel=2)
        return self

    @property
    def _silent(self) -> bool | None:
        return None if self.progress is None else not self.progress  # None: where standard error is no terminal

    def _learned(self) -> bool:
        """Whether the gate is a classifier of somebody's own; checked."""
        _checks.positive("tol", self.tol)
        if isinstance(self.gate, str):
            check_choice("gate", self.gate, ENSEMBLE_GATES)
            return False
        if not hasattr(self.gate, "predict_proba"):
            raise ValueError(f"gate: {self.gate!r} was given; want one of {list(ENSEMBLE_GATES)}, or one with predict_proba")
        stacking.weight_argument(self.gate, "gate")
        return True

    def _columns(self, X: Any) -> Any:
        """What the gate and starts see, (n, d)."""
        if self.gate_columns is None:
            return X
        columns = (
            list(self.gate_columns) if np.iterable(self.gate_columns) and not isinstance(self.gate_columns, str) else []
        )
        whole = all(isinstance(c, int | np.integer) and 0 <= c < np.shape(X)[1] for c in columns)
        if not columns or len(set(columns)) < len(columns) or not (whole or hasattr(X, "iloc")):
            wanted = f"columns of X, of which there are {np.shape(X)[1]}, none twice"
            raise ValueError(f"gate_columns: {self.gate_columns!r} was given; want {wanted}")
        return X[list(self.gate_columns)] if hasattr(X, "iloc") else X[:, list(self.gate_columns)]

    def _seen(self, X: Any, said: np.ndarray) -> np.ndarray:
        if self.gate_estimator_ is not None:
            return -stacking.predictions([self.gate_estimator_], X, np.arange(len(self.estimators)))[:, 0]
        return self._standardized(self._columns(X))

    def _keep(self, best: _Iterate, problem: _Problem) -> None:
        in_sample = self.cv is None
        self.estimators_ = best.models if in_sample else problem.trained(best.shares)
        self.gate_estimator_ = best.gate_model if in_sample else problem.trained_gate(best.shares)
        self.params_ = best.params
        self.log_likelihood_ = best.log_likelihood - float(problem.weights.sum() * np.log(self.target_.scale))
        self.shares_ = problem.weights @ best.shares / problem.weights.sum()
        self.n_iter_, self.converged_ = best.steps, best.converged


@dataclass(frozen=True)
class _Problem:
    """One ensemble's data, and its outer iterations."""

    ensemble: _Ensemble
    models: list[Any]
    x: Any
    target: np.ndarray  # as estimators get it
    y: np.ndarray  # as the model gets it
    weights: np.ndarray
    labels: np.ndarray | None
    table: np.ndarray
    key: jax.Array

    def drawn(self, number: int) -> np.ndarray:
        """The start of that number: responsibilities (n, K)."""
        table, y, weights = (jnp.asarray(v) for v in (self.table, self.y, self.weights))
        active = jnp.ones(len(self.models), bool)
        key = jax.random.fold_in(self.key, number)
        return np.asarray(_starts.draw("mixed", jnp.asarray(number), key, table, y, None, weights, active)).T

    def run(self, shares: np.ndarray, bar: Any) -> _Iterate:
        """Outer iterations from responsibilities: estimators by them, then gate and scales by EM, then new ones."""
        ensemble, hyper, start = self.ensemble, self.ensemble._hyper(), shares
        em, params, before, best = fit_em(ensemble.model_), None, -np.inf, None
        for number in range(1, ensemble.max_iter + 1):
            in_sample = self.labels is None  # else copies by fold say all that is needed until the end
            models, gate_model = (self.trained(shares), self.trained_gate(shares)) if in_sample else ([], None)
            inputs = self._inputs(shares, models, gate_model)
            warm, params = params is not None, ensemble.model_.init(self.key, inputs) if params is None else params
            fit, after = _gated(em, self.key, inputs, self.y, hyper, self.weights, params, np.asarray(warm), start)
            reached, params = float(fit.log_likelihood), jax.tree.map(np.asarray, fit.params)
            converged = abs(reached - before) <= ensemble.tol * self.weights.sum()
            if best is None or reached > best.log_likelihood:
                best = _Iterate(params, reached, shares, models, gate_model, number, converged)
            shares, before = np.asarray(after), reached
            bar.update()
            if converged:
                break
        assert best is not None
        return best._replace(steps=number, converged=converged)

    def _inputs(self, shares: np.ndarray, models: list[Any], gate_model: Any) -> dict[str, np.ndarray]:
        target = self.ensemble.target_
        if self.labels is None:
            said = stacking.predictions(models, self.x, target.numbers)
        else:
            each = [self._out_of_fold(model, share) for model, share in zip(self.models, shares.T, strict=True)]
            said = np.concatenate(each, axis=1)
        return {"predictions": target.predictors(said), "gate": self._gate_inputs(shares, gate_model)}

    def _out_of_fold(self, model: Any, share: np.ndarray) -> np.ndarray:
        return stacking.out_of_fold([model], self.x, self.target, self.labels, weights=self._row_weights(share))

    def _gate_inputs(self, shares: np.ndarray, gate_model: Any) -> np.ndarray:
        """The table; for a gate that is a classifier, what `gates.confidence` makes its probabilities of."""
        if isinstance(self.ensemble.gate, str):
            return self.table
        count = len(self.models)
        if self.labels is None:
            return -stacking.predictions([gate_model], self.x, np.arange(count))[:, 0]
        result = np.empty((len(self.y), count))
        for fold in np.unique(self.labels):
            held, rest = np.flatnonzero(self.labels == fold), np.flatnonzero(self.labels != fold)
            fitted = self.trained_gate(shares, rest)
            result[held] = -stacking.predictions([fitted], stacking.rows_of(self.x, held), np.arange(count))[:, 0]
        return result

    def trained(self, shares: np.ndarray) -> list[Any]:
        """Copies of the estimators, fitted to all rows by these responsibilities."""
        each = [self._row_weights(share) for share in shares.T]
        return [stacking.fit_copy(m, self.x, self.target, w) for m, w in zip(self.models, each, strict=True)]

    def trained_gate(self, shares: np.ndarray, rows: np.ndarray | None = None) -> Any:
        """A copy of the gate's classifier, fitted to every row once as each expert's, by weight; None for a gate by name."""
        if isinstance(self.ensemble.gate, str):
            return None
        rows, count = np.arange(len(self.y)) if rows is None else rows, len(self.models)
        weights = self._row_weights(shares)[rows].T.ravel()
        x = stacking.rows_of(self.x, np.tile(rows, count))
        return stacking.fit_copy(self.ensemble.gate, x, np.repeat(np.arange(count), len(rows)), weights)

    def _row_weights(self, shares: np.ndarray) -> np.ndarray:
        return (np.maximum(shares, _LEAST_WEIGHT).T * self.weights).T


@partial(jax.jit, static_argnums=0)
def _gated(
    em: EMFit, key: Any, x: Any, y: Any, hyper: Any, weights: Any, params: Any, warm: Any, start: Any
) -> tuple[Fit, jax.Array]:
    """Gate and scales by EM, from params where warm and else from responsibilities; with new responsibilities (n, K)."""
    fit = em.resumed(key, x, y, hyper, params, warm, weights, None, None, start)
    return fit, em.model.responsibilities(fit.params, x, y)


class MoEEnsembleRegressor(_Regression, _Ensemble):
    """A mixture of any regressors, trained by EM: trees, boosting, support vectors, mixtures, each with its own columns.

    estimators: (name, estimator) pairs, one for each expert, of one kind or of several, whose `fit` takes sample_weight; of
    a Pipeline, which may choose columns of its own, the last step. gate: "fixed", "constant", "softmax", "gaussian", or a
    classifier with predict_proba and sample_weight, which is trained on every row once as each expert's. gate_columns: what
    the gates by name see, and starts, indices or names of columns of X, which have to be numbers; None for all.

    An iteration fits every estimator with its responsibilities as weights, then gate and scales to what these predict, which
    gives new responsibilities. cv: None for predictions of the very rows that estimators were fitted to, under which the
    likelihood never falls where `fit` is weighted least squares; or as in `MoEStackingRegressor`, for predictions out of
    fold, without which flexible estimators such as trees confirm whatever rows they began with. The iteration of the highest
    likelihood counts, and the best of n_init starts.

    l1_gate, l2_gate: as in `MoERegressor`. tol: the change of the mean log-likelihood of a row at which a start has
    converged. max_iter: iterations at most. progress: a bar; unless given, where standard error is a terminal.

    After `fit`: estimators_ and gate_estimator_ (or None), on all rows; shares_ (K,) of rows; log_likelihood_, in the units
    of y, out of fold where cv is given; n_iter_, converged_; model_ and params_ as in `MoEStackingRegressor`.
    """

    def __init__(
        self,
        estimators: Any,
        *,
        gate: Any = "softmax",
        gate_columns: Any = None,
        cv: Any = None,
        l1_gate: float = 0.0,
        l2_gate: float = 1e-3,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-5,
        progress: bool | None = None,
        random_state: Any = None,
    ):
        self.estimators = estimators
        self.gate = gate
        self.gate_columns = gate_columns
        self.cv = cv
        self.l1_gate = l1_gate
        self.l2_gate = l2_gate
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.progress = progress
        self.random_state = random_state


class MoEEnsembleClassifier(_Classification, _Ensemble):
    """A mixture of any classifiers with predict_proba and sample_weight, trained by EM, as `MoEEnsembleRegressor` is.

    The parameters, and what `fit` leaves, are the same; with classes_ (C,).
    """

    def __init__(
        self,
        estimators: Any,
        *,
        gate: Any = "softmax",
        gate_columns: Any = None,
        cv: Any = None,
        l1_gate: float = 0.0,
        l2_gate: float = 1e-3,
        n_init: int = 4,
        max_iter: int = 100,
        tol: float = 1e-5,
        progress: bool | None = None,
        random_state: Any = None,
    ):
        self.estimators = estimators
        self.gate = gate
        self.gate_columns = gate_columns
        self.cv = cv
        self.l1_gate = l1_gate
        self.l2_gate = l2_gate
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.progress = progress
        self.random_state = random_state
