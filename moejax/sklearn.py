"""Mixtures of experts as scikit-learn estimators: `MoERegressor` and `MoEClassifier`. Wants scikit-learn 1.6 or newer.

    from moejax.sklearn import MoERegressor

    model = MoERegressor(n_experts=3, l1_experts=0.01, random_state=0).fit(X, y)
    model.coef_, model.predict(X), model.responsibilities(X, y)

A fit is one sweep over `n_init` starts, of which the best admissible one counts. Columns of X, and a target on the real
line, are standardised first, by population standard deviations (weighted, where rows are; a column that does not vary is
only centred). Penalties, `objective_` and `params_` are on that scale, everything else in the user's units. Where X is
float32 a fit is in float32, and otherwise in float64, whatever JAX's own default.

Mixtures of any other estimators, `MoEStackingRegressor` and `MoEEnsembleRegressor` (and ...Classifier), are in
`moejax.ensembles`, and have their names here too.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import jax
import numpy as np
import optax

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(f"moejax.sklearn: {error}; want pip install 'moejax[sklearn]'") from error

from moejax import _checks, experts, families, gates, losses
from moejax._estimators import applied, best_of_starts, check_choice, moments, precision, row_weights
from moejax.ensembles import MoEEnsembleClassifier as MoEEnsembleClassifier
from moejax.ensembles import MoEEnsembleRegressor as MoEEnsembleRegressor
from moejax.ensembles import MoEStackingClassifier as MoEStackingClassifier
from moejax.ensembles import MoEStackingRegressor as MoEStackingRegressor
from moejax.gates import Hierarchical
from moejax.model import Data, Model, moe
from moejax.solvers import Fit, Status, describe, effective_sizes, fit_em, fit_gradient

GATES = ("fixed", "constant", "softmax", "top1", "gaussian", "hierarchical")
FAMILIES = ("gaussian", "student_t", "poisson", "gamma")
LOSSES = ("nll", "squared_error")
SOLVERS = ("em", "gradient")
_REFERENCE_GATES = ("softmax", "top1")
_LINEAR_GATES = (*_REFERENCE_GATES, "hierarchical")
_REAL_LINE = ("gaussian", "student_t")
_PENALTIES = ("l1_experts", "l1_gate", "l2_experts", "l2_gate")
_LEARNING_RATE = 0.1  # of Adam, for the gate that the accelerated method does not take
_PATIENCE = 100  # accelerated steps without a gain, relative to the objective, that shows in the last digits
_LEAST_IMPROVEMENT = 1e-9


class _MixtureOfExperts(BaseEstimator):
    """What both estimators share: the fit itself, and whatever concerns the gate."""

    n_experts: int
    gate: Any
    loss: str
    solver: str
    gate_reference: bool
    standardize: bool
    n_init: int
    max_iter: int
    tol: float | None
    random_state: Any
    _target: Callable[[Any, int], np.ndarray]  # y (n,) as the model wants it

    # ---- fitting ------------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        for name, wanted in (("loss", LOSSES), ("solver", SOLVERS)):
            check_choice(name, getattr(self, name), wanted)
        for name in ("n_experts", "n_init", "max_iter"):
            _checks.count(name, getattr(self, name))
        gate = self._gate_name
        check_choice("gate", gate, GATES)
        for name in _PENALTIES:
            _checks.shape(name, getattr(self, name), (), "one number")
            _checks.not_negative(name, getattr(self, name))
        if self.l1_gate > 0 and gate not in _LINEAR_GATES:
            raise ValueError(f"l1_gate: {self.l1_gate} was given for gate={self.gate!r}; want one of {list(_LINEAR_GATES)}")
        if self.loss == "squared_error" and self.solver == "em":
            raise ValueError("loss: 'squared_error' was given with solver='em', which wants a likelihood; want 'gradient'")
        if self.gate_reference and gate not in _REFERENCE_GATES:
            raise ValueError(f"gate_reference: True was given for gate={self.gate!r}; want one of {list(_REFERENCE_GATES)}")
        if gate == "hierarchical":
            leaves = self._gate(False).layout.below.shape[1] if self.n_experts > 1 else 0
            if leaves != self.n_experts:
                given = f"{self.gate!r} was given for n_experts={self.n_experts}"
                raise ValueError(f"gate: {given}; want as many leaves, two or more")

    def _configured(self, model: Model) -> Any:
        """The fit of the library that these settings ask for."""
        if self.solver == "em":
            return fit_em(model, max_iter=self.max_iter, tol=self.tol)
        loss = losses.nll() if self.loss == "nll" else losses.squared_error()
        more: dict[str, Any] = {"steps": self.max_iter} | ({} if self.tol is None else {"tol": self.tol})
        if self.gate == "top1":  # the accelerated method wants an objective that does not jump
            return fit_gradient(model, loss, optax.adam, learning_rate=_LEARNING_RATE, proximal=True, **more)
        return fit_gradient(model, loss, "accelerated", patience=_PATIENCE, min_improvement=_LEAST_IMPROVEMENT, **more)

    @property
    def _gate_name(self) -> Any:
        """The kind of gate; a tree stands for a hierarchical one."""
        return "hierarchical" if isinstance(self.gate, list | tuple) else self.gate

    def _gate(self, reference: bool) -> Any:
        if self._gate_name == "hierarchical":
            halved = self.gate == "hierarchical"
            return Hierarchical(_halved(range(self.n_experts))) if halved else gates.hierarchical(self.gate)
        return getattr(gates, self.gate)(**({"reference": True} if reference else {}))

    def _fit(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, expert: Any, family: Any) -> None:
        """Fit to y (n,) on the scale of the fit, and set everything that does not depend on its units.

        Expects `y_scale_` to be set. weights: (n,), checked.
        """
        # One expert alone has no other to be compared with.
        reference = bool(self.gate_reference) and self.n_experts > 1
        model = moe(expert, self._gate(reference), self.n_experts, family=family)
        fit = self._configured(model)
        centre, scale = moments(x, weights) if self.standardize else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
        self.x_mean_, self.x_scale_, self._dtype = centre, scale, x.dtype
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        hyper = {name: float(getattr(self, name)) for name in _PENALTIES if getattr(self, name) > 0}
        with precision(x.dtype):
            standardized = self._standardized(x)
            best = best_of_starts(fit, self.n_init, hyper, seed, standardized, y, weights)
            share = _shares(model, best.params, standardized, y.astype(x.dtype), weights, self.loss == "nll")
        order = np.argsort(-share, kind="stable")
        self._keep(best, share[order], weights.sum())
        self.model_, self.params_ = _in_order(model, best.params, order, self._gate(False) if reference else None)
        self.gate_reference_ = int(np.argmax(order == self.n_experts - 1)) if reference else None
        self._report()
        if not (self.converged_ or (self.gate == "top1" and self.solver == "gradient")):  # which never gets there
            ended = f"{self.max_iter} was given, and the best fit ended {describe(self.status_)}"
            warnings.warn(f"max_iter: {ended}; want more, or a larger tol", ConvergenceWarning, stacklevel=3)

    def _keep(self, fit: Fit, share: np.ndarray, rows: Any) -> None:
        """Set what a fit tells of itself."""
        self.objective_ = float(fit.objective)
        self.log_likelihood_ = float(fit.log_likelihood - rows * np.log(self.y_scale_))
        self.n_iter_ = int(fit.steps)
        self.status_ = Status(int(fit.status))
        self.converged_ = bool(self.status_ & Status.CONVERGED)
        self.shares_ = share

    def _report(self) -> None:
        """Set coefficients in the user's units."""
        linear = self.params_["experts"]
        coef, intercept = self._unscaled(linear["weights"], linear["intercept"], self.y_scale_)
        self.coef_, self.intercept_ = coef, intercept + self.y_mean_
        self.gate_coef_ = self.gate_intercept_ = None
        gate = self.params_["gate"]
        if self._gate_name in _LINEAR_GATES:
            factor = 1 / gate.get("temperature", 1)
            self.gate_coef_, self.gate_intercept_ = self._unscaled(gate["weights"], gate["intercept"], factor)
        elif self.gate == "constant":
            self.gate_intercept_ = gate["logits"]

    def _unscaled(self, weights: np.ndarray, intercept: np.ndarray, factor: Any) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients (K, d), or (K, C, d) from weights (K, d, C), and intercepts, for X as it was given."""
        coef = np.moveaxis(np.asarray(weights, float), 1, -1) / self.x_scale_ * factor
        return coef.astype(self._dtype), (intercept * factor - coef @ self.x_mean_).astype(self._dtype)

    # ---- using a fit --------------------------------------------------------------------------------------------

    y_mean_: float = 0.0
    y_scale_: float = 1.0

    def _standardized(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.x_mean_) / self.x_scale_).astype(self._dtype)

    def _checked(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "params_")
        return self._standardized(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def _apply(self, method: str, x: np.ndarray, *y: np.ndarray) -> np.ndarray:
        """The model's method of that name, for standardised rows."""
        return applied(method, self.model_, self.params_, x, *(v.astype(self._dtype) for v in y))

    def _apply_to_pair(self, method: str, X: Any, y: Any) -> np.ndarray:
        x = self._checked(X)
        if self.model_.family is None:
            raise ValueError(f"loss: {self.loss!r} was given, under which {method} has no meaning; want loss='nll'")
        return self._apply(method, x, self._target(y, len(x)))

    def predict_gate(self, X: Any) -> np.ndarray:
        """P(expert | x) for each row of X (n, d): (n, K), soft also for a gate that chooses."""
        return self._apply("gate_probs", self._checked(X))

    def responsibilities(self, X: Any, y: Any) -> np.ndarray:
        """P(expert | x, y) for each row of X (n, d) and y (n,): (n, K). Raises ValueError for loss="squared_error"."""
        return self._apply_to_pair("responsibilities", X, y)

    def score_samples(self, X: Any, y: Any) -> np.ndarray:
        """log p(y | x) for each row of X (n, d) and y (n,), in the units of y: (n,), by the soft gate.

        Raises ValueError for loss="squared_error", and for a y that the model gives no probability at all.
        """
        return self._apply_to_pair("log_prob", X, y) - np.log(self.y_scale_)


class MoERegressor(RegressorMixin, _MixtureOfExperts):
    """A mixture of K linear regressions, sparse on request.

    n_experts: K. gate: how experts are weighed: "fixed" (equally), "constant" (proportions that see no input), "softmax",
    "top1" (a softmax gate whose prediction is the likeliest expert alone), "gaussian" (a density of the inputs for each
    expert; EM then ascends the joint likelihood), "hierarchical" (soft splits into two, and each half again), or the tree of
    such a gate, as in `moejax.gates.hierarchical`. family: "gaussian", "student_t" (its degrees of freedom estimated),
    "poisson" or "gamma" (means exp(x . coef + intercept)). loss: "nll", or "squared_error" of the prediction, which wants
    solver="gradient" and has no scales. solver: "em"; or "gradient", which is accelerated proximal gradient descent, and for
    gate="top1" (under squared error alone) Adam with proximal steps, whose objective jumps and which never converges. All
    make exact zeros; steps of "gradient" are shorter, and want a max_iter of a few thousand.

    l1_experts, l1_gate, l2_experts, l2_gate: multiply sums over coefficients, and are added to the mean loss. l2_gate
    is not 0 by default, because inputs that separate the experts leave a gate without it no finite optimum; 1e-3 bounds
    the logits where they do, and costs little where they do not. gate_reference: one expert's logits are 0, instead of one
    logit for each of K experts. shared_scale: one scale for all experts.

    standardize, standardize_y: see `moejax.sklearn`; the latter only concerns "gaussian" and "student_t". n_init: starts.
    max_iter: iterations at most, of each. tol: the violation of the optimality condition at which a fit has converged;
    unless given, 1e-7 for EM in float64, 1e-4 in float32, and 1e-5 for "gradient". random_state: a number, a
    `numpy.random.RandomState` or None, from which starts are drawn.

    After `fit`, experts in the order of falling share of the training rows (by responsibilities, or for squared error by
    the gate):

    coef_ (K, d), intercept_ (K,): of the experts' linear predictors. gate_coef_ (K, d), gate_intercept_ (K,): of the
    gate's logits, None where it has none; of a tree's branches, in the order of `model_.gate.branches`. gate_reference_:
    which expert's logits are 0, a row of zeros in gate_coef_, or None (it is any of them, for to make it the last one
    would undo the zeros of the others). scale_: (K,), a number if shared, or None: standard deviations; scales of
    Student's t; standard deviations over means for "gamma". df_: of Student's t, shaped like scale_, or None. shares_
    (K,): of the training rows. objective_: what was lowered, a mean over rows. log_likelihood_: the weighted total of
    log p(y | x) in the units of y, NaN for squared error. n_iter_, converged_, status_ (a `moejax.Status`; in words by
    `moejax.fit.describe`). n_features_in_, feature_names_in_.

    model_, params_: of moejax, for inputs (X - x_mean_) / x_scale_ and targets (y - y_mean_) / y_scale_; its gate has logits
    for all K experts. With them, model_ does whatever a `moejax.Model` does.
    """

    def __init__(
        self,
        n_experts: int = 3,
        *,
        gate: Any = "softmax",
        family: str = "gaussian",
        loss: str = "nll",
        solver: str = "em",
        l1_experts: float = 0.0,
        l1_gate: float = 0.0,
        l2_experts: float = 0.0,
        l2_gate: float = 1e-3,
        gate_reference: bool = False,
        shared_scale: bool = False,
        standardize: bool = True,
        standardize_y: bool = True,
        n_init: int = 8,
        max_iter: int = 500,
        tol: float | None = None,
        random_state: Any = None,
    ):
        self.n_experts = n_experts
        self.gate = gate
        self.family = family
        self.loss = loss
        self.solver = solver
        self.l1_experts = l1_experts
        self.l1_gate = l1_gate
        self.l2_experts = l2_experts
        self.l2_gate = l2_gate
        self.gate_reference = gate_reference
        self.shared_scale = shared_scale
        self.standardize = standardize
        self.standardize_y = standardize_y
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = self.family not in _REAL_LINE
        tags.regressor_tags.poor_score = True  # on the few rows for each expert that scikit-learn's checks have
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n, d) and y (n,). sample_weight: (n,), none below 0; None for equal ones. Returns the estimator.

        Raises ValueError for settings, rows and weights that have no meaning, before anything compiles; and RuntimeError
        if no start leads to an admissible fit, that is one that did not diverge and in which each expert has more rows than
        parameters and no scale is held up by its floor.
        """
        self._check_settings()
        family = self._family()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True, ensure_min_samples=2)
        y, weights = np.asarray(y, float), row_weights(sample_weight, len(y))
        self.y_mean_, self.y_scale_ = 0.0, 1.0
        if self.standardize_y and self.family in _REAL_LINE:
            self.y_mean_, self.y_scale_ = (float(v) for v in moments(y, weights))
        self._fit(X, (y - self.y_mean_) / self.y_scale_, weights, experts.linear(), family)
        self._report_scale()
        return self

    def _family(self) -> Any:
        """The family; None under squared error."""
        check_choice("family", self.family, FAMILIES)
        if self.loss == "squared_error":
            if self.family != "gaussian":
                raise ValueError(
                    f"family: {self.family!r} was given with loss='squared_error'; want loss='nll', or 'gaussian'"
                )
            return None
        if self.family == "poisson":
            if self.shared_scale:
                raise ValueError("shared_scale: True was given for family='poisson', which has no scale; want False")
            return families.poisson()
        name = "shared_shape" if self.family == "gamma" else "shared_scale"
        return getattr(families, self.family)(**{name: bool(self.shared_scale)})

    def _report_scale(self) -> None:
        self.scale_ = self.df_ = None
        family, phi = self.model_.family, self.params_["family"]
        with precision(self._dtype):
            if self.family in _REAL_LINE and family is not None:
                self.scale_ = np.exp(np.asarray(family.log_scale(phi)))[()] * self._dtype.type(self.y_scale_)
            if self.family == "student_t":
                self.df_ = np.exp(np.asarray(family.log_df(phi)))[()]
            if self.family == "gamma":
                self.scale_ = np.exp(-np.asarray(family.log_shape(phi)) / 2)[()]

    def predict(self, X: Any) -> np.ndarray:
        """E[y | x] for each row of X (n, d), the gate-weighted mean of the experts' means (of one for "top1"): (n,)."""
        return self._in_units(self._apply("predict", self._checked(X)))

    def predict_experts(self, X: Any) -> np.ndarray:
        """Each expert's mean for each row of X (n, d): (n, K)."""
        return self._in_units(self._apply("expert_predictions", self._checked(X)))

    def _in_units(self, y: np.ndarray) -> np.ndarray:
        return y * self.y_scale_ + self.y_mean_

    def _target(self, y: Any, n: int) -> np.ndarray:
        _checks.shape("y", y, (n,), "one for each row of X")
        y = np.asarray(y, float)
        self.model_.family._check_support(y)
        return (y - self.y_mean_) / self.y_scale_


class MoEClassifier(ClassifierMixin, _MixtureOfExperts):
    """A mixture of K linear classifiers, logistic for two classes and softmax for more, sparse on request.

    The parameters are those of `MoERegressor`, without what concerns the target: it has no family and no scales, and its
    loss is the negative log-likelihood. classes_ (C,): sorted labels, of any type. For two classes coef_ is (K, d) and
    intercept_ (K,), of the log odds of the second; for more, coef_ is (K, C, d) and intercept_ (K, C). All else that
    `fit` leaves is as in `MoERegressor`.
    """

    loss = "nll"

    def __init__(
        self,
        n_experts: int = 3,
        *,
        gate: Any = "softmax",
        solver: str = "em",
        l1_experts: float = 0.0,
        l1_gate: float = 0.0,
        l2_experts: float = 0.0,
        l2_gate: float = 1e-3,
        gate_reference: bool = False,
        standardize: bool = True,
        n_init: int = 8,
        max_iter: int = 500,
        tol: float | None = None,
        random_state: Any = None,
    ):
        self.n_experts = n_experts
        self.gate = gate
        self.solver = solver
        self.l1_experts = l1_experts
        self.l1_gate = l1_gate
        self.l2_experts = l2_experts
        self.l2_gate = l2_gate
        self.gate_reference = gate_reference
        self.standardize = standardize
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to X (n, d) and labels y (n,). sample_weight: (n,), none below 0; None for equal ones. Returns the estimator.

        Raises as `MoERegressor.fit` does, and ValueError for labels of a single class.
        """
        self._check_settings()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        weights = row_weights(sample_weight, len(y))
        self.classes_, numbers = np.unique(y, return_inverse=True)
        count, there = len(self.classes_), np.unique(numbers[weights > 0])
        if len(there) < 2:
            only = self.classes_[there].tolist()[0]
            raise ValueError(f"y: {only!r} alone was given, among rows that count; want more than one class")
        family = families.bernoulli() if count == 2 else families.categorical(count)
        self._fit(X, numbers.astype(float), weights, experts.linear(None if count == 2 else count), family)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label for each row of X (n, d): (n,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Any) -> np.ndarray:
        """P(class | x) for each row of X (n, d): (n, C), in the order of classes_; by one expert alone for gate="top1"."""
        return self._of_classes(self._apply("predict", self._checked(X)), 1)

    def predict_experts(self, X: Any) -> np.ndarray:
        """Each expert's P(class | x) for each row of X (n, d): (n, K, C)."""
        return self._of_classes(self._apply("expert_predictions", self._checked(X)), 2)

    def _of_classes(self, probs: np.ndarray, axis: int) -> np.ndarray:
        return np.stack([1 - probs, probs], axis=-1) if probs.ndim == axis else probs

    def _target(self, y: Any, n: int) -> np.ndarray:
        _checks.shape("y", y, (n,), "one for each row of X")
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise ValueError(f"y: label {unknown[0]!r} was given; want labels among {self.classes_.tolist()}")
        return np.searchsorted(self.classes_, y).astype(float)


# ---- what does not depend on the estimator --------------------------------------------------------------------------


def _shares(model: Model, params: Any, x: Any, y: Any, weights: np.ndarray, likelihood: bool) -> np.ndarray:
    """The share of the rows that each expert has, (K,)."""
    sizes = np.asarray(_sizes(model, params, x, y, (weights / weights.sum()).astype(x.dtype), likelihood), float)
    return sizes / sizes.sum()


@partial(jax.jit, static_argnums=(0, 5))
def _sizes(model: Model, params: Any, x: Any, y: Any, weights: Any, likelihood: bool) -> jax.Array:
    return effective_sizes(model, params, Data(model.prepare(x), y), weights, likelihood)


def _in_order(model: Model, params: Any, order: np.ndarray, symmetric: Any) -> tuple[Model, Any]:
    """The same mixture with its experts in another order.

    symmetric: None, or the gate with a logit for each expert that takes the place of one whose last expert has none.
    """
    params = jax.tree.map(np.asarray, params)
    gate = params["gate"]
    if hasattr(model.gate, "reordered"):
        model = dataclasses.replace(model, gate=model.gate.reordered(order))
        return model, {"experts": _rows(params["experts"], order), "gate": gate, "family": _rows(params["family"], order)}
    if symmetric is not None:
        model = dataclasses.replace(model, gate=symmetric)
        gate = {name: np.append(leaf, np.zeros_like(leaf[:1]), axis=0) if leaf.ndim else leaf for name, leaf in gate.items()}
    return model, {name: _rows(tree, order) for name, tree in {**params, "gate": gate}.items()}


def _rows(tree: Any, order: np.ndarray) -> Any:
    """The leaves of a tree by expert in another order; a lone number is that of all experts."""
    return jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, tree)


def _halved(experts: Any) -> Any:
    """The numbers of experts as a tree of splits into two, the first half no smaller."""
    middle = (len(experts) + 1) // 2
    return (_halved(experts[:middle]), _halved(experts[middle:])) if len(experts) > 1 else experts[0]
