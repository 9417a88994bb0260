"""Mixtures of experts for targets that are numbers."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from moejax import _checks, experts, families
from moejax.sklearn._estimators import check_choice, moments, precision, row_weights
from moejax.sklearn._mixture import MixtureOfExperts

FAMILIES = ("gaussian", "student_t", "poisson", "gamma")
_REAL_LINE = ("gaussian", "student_t")


class MoERegressor(RegressorMixin, MixtureOfExperts):
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
