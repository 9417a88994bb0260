"""Ensembles of estimators that are trained inside EM."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from tqdm import tqdm

from moejax import _checks, gates
from moejax.predict import _stacking as stacking
from moejax.sklearn._combination import Classification, Combination, Regression, model_of
from moejax.sklearn._estimators import check_choice, precision
from moejax.solvers import EMFit, Fit, _starts, fit_em

ENSEMBLE_GATES = ("fixed", "constant", "softmax", "gaussian")
_LEAST_WEIGHT = 1e-9  # of a row for an expert: estimators want some of every row, and EM's shares underflow


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


class _Ensemble(Combination):
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
        self.model_ = model_of(
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


class MoEEnsembleRegressor(Regression, _Ensemble):
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


class MoEEnsembleClassifier(Classification, _Ensemble):
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
