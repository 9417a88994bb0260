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
from tqdm import tqdm

from moejax import _checks, _rows, gates
from moejax._contracts import missing
from moejax._precision import precision
from moejax.gates import Gate
from moejax.gates._base import FUNCTIONS
from moejax.predict import _stacking as stacking
from moejax.sklearn._combination import Classification, Combination, Regression, model_of
from moejax.sklearn._estimators import key_of, seed_of
from moejax.sklearn._parts import Named, part_of
from moejax.solvers import EMFit, Fit, _starts, fit_em

ENSEMBLE_GATES: Named = {
    "fixed": gates.fixed,
    "constant": gates.constant,
    "softmax": gates.softmax,
    "gaussian": gates.gaussian,
}
_LEAST_WEIGHT = (
    1e-9  # least responsibility that an estimator gets: many estimators refuse weights of 0, and those of EM underflow
)


class _Iterate(NamedTuple):
    """The best outer iteration of a start, by log-likelihood.

    models, gate_model: the fitted estimators and gate; empty and None if predictions are out of fold. shares: the
    responsibilities (n, K) by which they were trained.
    """

    params: Any
    log_likelihood: float
    shares: np.ndarray
    models: list[Any]
    gate_model: Any
    steps: int
    converged: bool


class _Ensemble(Combination):
    """Estimators that EM trains on the host, with responsibilities as weights of rows."""

    gate_columns: Any
    tol: float
    progress: bool | None

    def fit(self, X: Any, y: Any, sample_weight: Any = None, start: Any = None) -> Self:
        """Fit the ensemble.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets or labels.
        sample_weight : array-like, (n,), or float, optional
            Case weights, none below 0: a row of weight 2 counts twice, a row of weight 0 is absent. A number is the weight
            of every row. None means equal weights.
        start : array-like, (n, K), optional
            Responsibilities of the first iteration. None draws `n_init` starts.

        Returns
        -------
        estimator
            The estimator itself.

        Raises
        ------
        ValueError
            If a setting or a row is not valid, or the `fit` of an estimator takes no `sample_weight`.

        Warns
        -----
        ConvergenceWarning
            If the likelihood of the chosen start still changes after `max_iter` iterations.
        """
        models = self._models()
        if self.progress is not None:
            _checks.flag("progress", self.progress)
        for (name, _), model in zip(self.estimators, models, strict=True):
            stacking.weight_argument(model, f"estimators: {name!r}")
        gate = self._gate()
        X, target, weights = self._checked_rows(X, y, sample_weight)
        scaled = self.target_.scaled(target)
        labels = None if self.cv is None else self._folds(X, target)
        table = self._standardized(self._columns(X), weights)
        self.model_ = model_of(gate, len(models), self.target_.family)
        if start is not None:
            _starts.check_responsibilities("start", start, len(target), len(models))
        seed = seed_of(self.random_state)
        problem = _Problem(self, models, X, target, scaled, weights, labels, table, key_of(seed))
        with precision(np.dtype(float)), tqdm(desc="ensemble", unit="iteration", disable=self._silent) as bar:
            count = self.n_init if start is None else 1
            runs = [problem.run(problem.drawn(i) if start is None else np.asarray(start, float), bar) for i in range(count)]
        best = max(runs, key=lambda run: run.log_likelihood)
        self._keep(best, problem)
        if not self.converged_:
            why = f"{self.max_iter} was given, and the likelihood still changes; want more iterations, or a larger tol"
            warnings.warn(f"max_iter: {why}", ConvergenceWarning, stacklevel=2)
        return self

    @property
    def _silent(self) -> bool | None:
        """Whether the progress bar is off; None turns it off unless standard error is a terminal."""
        return (
            None if self.progress is None else not self.progress
        )  # tqdm: None turns the bar off unless standard error is a terminal

    @property
    def _is_learned(self) -> bool:
        """Whether the gate is a user's classifier."""
        return hasattr(self.gate, "predict_proba")

    def _gate(self) -> Gate:
        """Return the gate of the model; check `gate` and `tol`."""
        _checks.number_above_0("tol", self.tol)
        if self._is_learned:
            stacking.weight_argument(self.gate, "gate")
            return gates.confidence()
        if not isinstance(self.gate, str) and missing(self.gate, FUNCTIONS):
            wanted = f"one of {list(ENSEMBLE_GATES)}, a part from moejax.gates, or one with predict_proba"
            raise ValueError(f"gate: {_checks.shown(self.gate)} was given; want {wanted}")
        gate: Gate = part_of("gate", self.gate, ENSEMBLE_GATES, gates.completed)
        return gate

    def _columns(self, X: Any) -> Any:
        """Return the columns of X that the gate and the starts see."""
        if self.gate_columns is None:
            return X
        columns = list(_checks.sequence("gate_columns", self.gate_columns, "columns of X, a sequence"))
        whole = all(_checks.is_whole(c) and 0 <= c < np.shape(X)[1] for c in columns)
        if not columns or len(set(map(str, columns))) < len(columns) or not (whole or hasattr(X, "iloc")):
            wanted = f"columns of X, of which there are {np.shape(X)[1]}, none twice"
            raise ValueError(f"gate_columns: {_checks.shown(self.gate_columns)} was given; want {wanted}")
        return X[columns] if hasattr(X, "iloc") else X[:, columns]

    def _seen(self, X: Any, predicted: np.ndarray) -> np.ndarray:
        """Return what the gate sees, (n, d); for a classifier, minus its log probabilities."""
        if self.gate_estimator_ is not None:
            return -stacking.predictions([self.gate_estimator_], X, np.arange(len(self.estimators)))[:, 0]
        return self._standardized(self._columns(X))

    def _keep(self, best: _Iterate, problem: _Problem) -> None:
        """Set the attributes of a fit."""
        in_sample = self.cv is None
        self.estimators_ = best.models if in_sample else problem.trained(best.shares)
        self.gate_estimator_ = best.gate_model if in_sample else problem.trained_gate(best.shares)
        self.params_ = best.params
        self.log_likelihood_ = best.log_likelihood - float(problem.weights.sum() * np.log(self.target_.scale))
        self.shares_ = problem.weights @ best.shares / problem.weights.sum()
        self.n_iter_, self.converged_ = best.steps, best.converged


@dataclass(frozen=True)
class _Problem:
    """The data of one ensemble, and its outer iterations."""

    ensemble: _Ensemble
    models: list[Any]
    x: Any
    target: np.ndarray  # as the estimators get it
    y: np.ndarray  # as the model gets it
    weights: np.ndarray
    labels: np.ndarray | None
    table: np.ndarray
    key: jax.Array

    def drawn(self, number: int) -> np.ndarray:
        """Draw the responsibilities of a start.

        Parameters
        ----------
        number : int
            Number of the start.

        Returns
        -------
        numpy.ndarray, (n, K)
            Responsibilities.
        """
        rows = _rows.lay(np.asarray(self.table), np.asarray(self.y), np.asarray(self.weights))
        active = jnp.ones(len(self.models), bool)
        key = jax.random.fold_in(self.key, number)
        drawn = _starts.draw("mixed", jnp.asarray(number), key, rows, lambda x: x, active, by_inputs=True)
        return np.asarray(drawn)[0, :, : len(self.y)].T  # without the rows that fill up

    def run(self, shares: np.ndarray, bar: Any) -> _Iterate:
        """Run the outer iterations of one start.

        Each iteration fits the estimators by the responsibilities, then fits gate and scales by EM, and computes new
        responsibilities.

        Parameters
        ----------
        shares : numpy.ndarray, (n, K)
            Responsibilities of the first iteration.
        bar : tqdm.tqdm
            Progress bar.

        Returns
        -------
        _Iterate
            The iteration of highest log-likelihood.
        """
        ensemble, hyper, start = self.ensemble, self.ensemble._hyper(), shares
        em, params, before, best = fit_em(ensemble.model_), None, -np.inf, None
        for number in range(1, ensemble.max_iter + 1):
            in_sample = self.labels is None  # with folds, the estimators on all rows are fitted only at the end
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
        """Return the inputs of the model: predictions of the estimators, and what the gate sees."""
        target = self.ensemble.target_
        if self.labels is None:
            predicted = stacking.predictions(models, self.x, target.numbers)
        else:
            each = [self._out_of_fold(model, share) for model, share in zip(self.models, shares.T, strict=True)]
            predicted = np.concatenate(each, axis=1)
        return {"predictions": target.predictors(predicted), "gate": self._gate_inputs(shares, gate_model)}

    def _out_of_fold(self, model: Any, share: np.ndarray) -> np.ndarray:
        """Return the out-of-fold predictions of one estimator, fitted by its responsibilities (n,)."""
        return stacking.out_of_fold([model], self.x, self.target, self.labels, weights=self._row_weights(share))

    def _gate_inputs(self, shares: np.ndarray, gate_model: Any) -> np.ndarray:
        """Return the table of the gate; for a classifier, minus its log probabilities, as `gates.confidence` takes them."""
        if not self.ensemble._is_learned:
            return self.table
        count = len(self.models)
        if self.labels is None:
            return -stacking.predictions([gate_model], self.x, np.arange(count))[:, 0]
        result = np.empty((len(self.y), count))
        for fold in np.unique(self.labels):
            held_out, training = np.flatnonzero(self.labels == fold), np.flatnonzero(self.labels != fold)
            fitted = self.trained_gate(shares, training)
            result[held_out] = -stacking.predictions([fitted], stacking.rows_of(self.x, held_out), np.arange(count))[:, 0]
        return result

    def trained(self, shares: np.ndarray) -> list[Any]:
        """Fit copies of the estimators to all rows by these responsibilities.

        Parameters
        ----------
        shares : numpy.ndarray, (n, K)
            Responsibilities.

        Returns
        -------
        list
            K fitted estimators.
        """
        each = [self._row_weights(share) for share in shares.T]
        return [stacking.fit_copy(m, self.x, self.target, w) for m, w in zip(self.models, each, strict=True)]

    def trained_gate(self, shares: np.ndarray, rows: np.ndarray | None = None) -> Any:
        """Fit a copy of the gate's classifier to K copies of every row, one labelled with each expert.

        Parameters
        ----------
        shares : numpy.ndarray, (n, K)
            Responsibilities, the weights of the copies.
        rows : numpy.ndarray of int, optional
            Rows to train on. None means all rows.

        Returns
        -------
        estimator or None
            The fitted classifier; None for a gate of the model.
        """
        if not self.ensemble._is_learned:
            return None
        rows, count = np.arange(len(self.y)) if rows is None else rows, len(self.models)
        weights = self._row_weights(shares)[rows].T.ravel()
        x = stacking.rows_of(self.x, np.tile(rows, count))
        return stacking.fit_copy(self.ensemble.gate, x, np.repeat(np.arange(count), len(rows)), weights)

    def _row_weights(self, shares: np.ndarray) -> np.ndarray:
        """Return case weights times responsibilities, which are at least `_LEAST_WEIGHT`."""
        weights: np.ndarray = (np.maximum(shares, _LEAST_WEIGHT).T * self.weights).T
        return weights


@partial(jax.jit, static_argnums=0)
def _gated(
    em: EMFit, key: Any, x: Any, y: Any, hyper: Any, weights: Any, params: Any, warm: Any, start: Any
) -> tuple[Fit, jax.Array]:
    """Fit gate and scales by EM, from params if warm, otherwise from responsibilities; return new responsibilities too."""
    rows, _ = em.laid(x, y, weights, None, None, start)
    fit = em.solve(key, hyper, rows, resume=(params, warm))
    return fit, em.model.responsibilities(fit.params, x, y)


class MoEEnsembleRegressor(Regression, _Ensemble):
    """A mixture of any regressors, trained by EM: trees, boosting, support vector machines or mixtures.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Name and regressor of each expert, of one kind or of several. The `fit` of each must take `sample_weight`. An expert
        with columns of its own is a Pipeline that selects them; the `fit` of its last step must then take `sample_weight`.
    gate : {"fixed", "constant", "softmax", "gaussian"}, GateLike or classifier, default "softmax"
        How experts are weighted: a name, a part from `moejax.gates`, any record with `init` and `log_probs`, or a classifier
        of scikit-learn. A classifier needs `predict_proba` and `sample_weight`. It is trained on K copies of every row, one
        labelled with each expert, weighted by responsibilities.
    gate_columns : sequence of int or str, optional
        Columns of X that the starts see, and gates other than classifiers. They must be numbers. None means all columns.
    cv : int, array-like (n,) or splitter, optional
        None trains the gate on predictions of the rows that the estimators were fitted to. Otherwise, as in
        `MoEStackingRegressor`, predictions are out of fold. Flexible estimators such as trees need this: on their own
        training rows they confirm the responsibilities with which they began.
    l1_gate, l2_gate : float, defaults 0.0 and 1e-3
        Weights of the sum of absolute and of squared coefficients of the gate, whose columns are standardised.
    n_init : int, default 4
        Number of starts. The start of highest likelihood counts.
    max_iter : int, default 100
        Most iterations of each start.
    tol : float, default 1e-5
        Change of the mean log-likelihood per row at which a start has converged.
    progress : bool, optional
        Whether to show a progress bar. None shows one if standard error is a terminal.
    random_state : int, numpy.random.RandomState or None, default None
        Source of the starts. The estimators have random states of their own.

    Attributes
    ----------
    estimators_ : list
        The estimators, fitted to all rows by responsibilities.
    gate_estimator_ : estimator or None
        The fitted classifier of the gate; None for other gates.
    shares_ : numpy.ndarray, (K,)
        Share of the training rows of each expert.
    log_likelihood_ : float
        Total over rows of weight * log p(y | x), in the units of y; from out-of-fold predictions if `cv` is given.
    n_iter_ : int
        Iterations of the chosen start.
    converged_ : bool
        Whether the chosen start converged.
    model_, params_ : Model and pytree
        The mixture of `moejax`, for inputs {"predictions": predictions, "gate": what the gate sees}, both standardised.

    Notes
    -----
    Each iteration fits every estimator with its responsibilities as weights of rows, then fits the gate and the scales to
    the estimators' predictions, and then computes new responsibilities. If `cv` is None and the `fit` of every estimator is
    weighted least squares, the likelihood never decreases. The iteration of highest likelihood is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from moejax.sklearn import MoEEnsembleRegressor
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> y = np.abs(X[:, 0])
    >>> lines = [("one", LinearRegression()), ("two", LinearRegression())]
    >>> model = MoEEnsembleRegressor(lines, n_init=2, max_iter=200, random_state=0).fit(X, y)
    >>> model.predict_experts(X).shape
    (100, 2)
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
    """A mixture of any classifiers, trained by EM.

    Parameters
    ----------
    estimators : list of (str, estimator)
        Name and classifier of each expert, with `predict_proba` and with a `fit` that takes `sample_weight`.
    gate : {"fixed", "constant", "softmax", "gaussian"}, GateLike or classifier, default "softmax"
        How experts are weighted: a name, a part from `moejax.gates`, any record with `init` and `log_probs`, or a classifier
        of scikit-learn. A classifier needs `predict_proba` and `sample_weight`. It is trained on K copies of every row, one
        labelled with each expert, weighted by responsibilities.
    gate_columns : sequence of int or str, optional
        Columns of X that the starts see, and gates other than classifiers. They must be numbers. None means all columns.
    cv : int, array-like (n,) or splitter, optional
        None trains the gate on predictions of the rows that the estimators were fitted to. Otherwise, as in
        `MoEStackingRegressor`, predictions are out of fold. Flexible estimators such as trees need this: on their own
        training rows they confirm the responsibilities with which they began.
    l1_gate, l2_gate : float, defaults 0.0 and 1e-3
        Weights of the sum of absolute and of squared coefficients of the gate, whose columns are standardised.
    n_init : int, default 4
        Number of starts. The start of highest likelihood counts.
    max_iter : int, default 100
        Most iterations of each start.
    tol : float, default 1e-5
        Change of the mean log-likelihood per row at which a start has converged.
    progress : bool, optional
        Whether to show a progress bar. None shows one if standard error is a terminal.
    random_state : int, numpy.random.RandomState or None, default None
        Source of the starts. The estimators have random states of their own.

    Attributes
    ----------
    classes_ : numpy.ndarray, (C,)
        Sorted labels.
    estimators_ : list
        The estimators, fitted to all rows by responsibilities.
    gate_estimator_ : estimator or None
        The fitted classifier of the gate; None for other gates.
    shares_ : numpy.ndarray, (K,)
        Share of the training rows of each expert.
    log_likelihood_ : float
        Total over rows of weight * log p(y | x), in the units of y; from out-of-fold predictions if `cv` is given.
    n_iter_ : int
        Iterations of the chosen start.
    converged_ : bool
        Whether the chosen start converged.
    model_, params_ : Model and pytree
        The mixture of `moejax`, for inputs {"predictions": predictions, "gate": what the gate sees}, both standardised.

    See Also
    --------
    MoEEnsembleRegressor : The same for a real target, with notes on the iterations.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from moejax.sklearn import MoEEnsembleClassifier
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> models = [("one", LogisticRegression()), ("two", LogisticRegression())]
    >>> model = MoEEnsembleClassifier(models, gate="constant", n_init=1, tol=0.1, random_state=0).fit(X, X[:, 0] > 0)
    >>> model.predict_proba(X).shape
    (100, 2)
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
