"""Mixtures of experts for real targets and counts."""

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

    Parameters
    ----------
    n_experts : int, default 3
        Number of experts K.
    gate : str or tree, default "softmax"
        How experts are weighted.

        - "fixed": equally.
        - "constant": by trained proportions that do not depend on the input.
        - "softmax": by a softmax of linear functions of the input.
        - "top1": by a softmax gate; the prediction is that of the most probable expert alone.
        - "gaussian": by a normal density of the inputs for each expert. EM then maximises the joint likelihood of x and y.
        - "hierarchical": by a soft split into two halves, and a soft split of each half again.
        - A tree of splits, as in `moejax.gates.hierarchical`.
    family : {"gaussian", "student_t", "poisson", "gamma"}, default "gaussian"
        Distribution of y in each expert. The degrees of freedom of "student_t" are estimated. The means of "poisson" and
        "gamma" are exp(x . coef + intercept).
    loss : {"nll", "squared_error"}, default "nll"
        The mean negative log-likelihood, or the mean squared error of the prediction. "squared_error" needs
        solver="gradient" and family="gaussian", and has no scales.
    solver : {"em", "gradient"}, default "em"
        "gradient" is accelerated proximal gradient descent. For gate="top1" it takes only
        loss="squared_error", and it is Adam with proximal steps; that objective is not continuous, and the fit never
        converges. Both solvers give exact zeros. Steps of "gradient" are smaller, and need a `max_iter` of a few thousand.
    l1_experts : float, default 0.0
        Weight of the sum of absolute coefficients of the experts, added to the mean loss. Intercepts and scales are not
        penalised.
    l1_gate : float, default 0.0
        Weight of the sum of absolute coefficients of the gate; for "softmax", "top1" and "hierarchical".
    l2_experts : float, default 0.0
        Weight of the sum of squared coefficients of the experts, added to the mean loss.
    l2_gate : float, default 1e-3
        Weight of the sum of squared coefficients of the gate. It is not 0 by default: if the inputs separate the experts, a
        gate without it has no finite optimum. The default bounds the logits in that case and has little effect otherwise.
    gate_reference : bool, default False
        Whether the logits of one expert are fixed at 0. False gives each of the K experts its own logits; only for "softmax"
        and "top1".
    shared_scale : bool, default False
        Whether all experts share one scale (for "gamma", one shape).
    standardize : bool, default True
        Whether the columns of X are standardised for the fit.
    standardize_y : bool, default True
        Whether y is standardised for the fit; only for "gaussian" and "student_t".
    n_init : int, default 8
        Number of starts. The admissible fit of lowest objective counts.
    max_iter : int, default 500
        Most iterations of each start.
    tol : float, optional
        Largest violation of the optimality (KKT) condition at which a fit has converged. None means 1e-7 for EM in float64,
        1e-4 for EM in float32, and 1e-5 for "gradient".
    random_state : int, numpy.random.RandomState or None, default None
        Source of the starts.

    Attributes
    ----------
    coef_ : numpy.ndarray, (K, d)
        Coefficients of the experts' linear predictors, in the user's units.
    intercept_ : numpy.ndarray, (K,)
        Intercepts of the experts' linear predictors, in the user's units.
    gate_coef_, gate_intercept_ : numpy.ndarray, (K, d) and (K,), or None
        Coefficients of the gate's logits, in the user's units; None where the gate has none. For a tree they are those of
        its branches, in the order of `model_.gate.branches`.
    gate_reference_ : int or None
        Number of the expert whose logits are 0, a row of zeros in `gate_coef_`. It may be any expert, because a change of
        the reference would undo the zeros of the others.
    scale_ : numpy.ndarray, (K,), float or None
        One scale for each expert, one number if shared, or None without a scale: the standard deviation; the scale of
        Student's t; for "gamma" the standard deviation divided by the mean.
    df_ : numpy.ndarray, (K,), float or None
        Degrees of freedom of Student's t, with the shape of `scale_`; None for other families.
    shares_ : numpy.ndarray, (K,)
        Share of the training rows of each expert, by responsibilities (by the gate for squared error).
    objective_ : float
        The minimised quantity: mean loss over rows plus penalties, on the scale of the fit.
    log_likelihood_ : float
        Total over rows of weight * log p(y | x), in the units of y; NaN for squared error.
    n_iter_ : int
        Iterations of the chosen fit.
    converged_ : bool
        Whether the chosen fit converged.
    status_ : Status
        How the chosen fit ended; `moejax.fit.describe` gives it in words.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : numpy.ndarray, (d,)
        Names of the columns of X, if X has names that are strings.
    x_mean_, x_scale_ : numpy.ndarray, (d,)
        Means and standard deviations that standardise X; 0 and 1 if `standardize` is False.
    y_mean_, y_scale_ : float
        Mean and standard deviation that standardise y; 0 and 1 if y is not standardised.
    model_, params_ : Model and pytree
        The model of `moejax` and its parameters, for inputs (X - x_mean_) / x_scale_ and targets (y - y_mean_) / y_scale_.
        The gate has logits for all K experts. All methods of `moejax.Model` can be used.

    Notes
    -----
    Experts are in the order of falling share of the training rows.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax.sklearn import MoERegressor
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> y = np.abs(X[:, 0]) + 0.1 * np.random.default_rng(1).normal(size=200)  # two lines; the sign of x decides
    >>> model = MoERegressor(n_experts=2, n_init=2, random_state=0).fit(X, y)
    >>> model.coef_.shape, model.predict_gate(X).shape
    ((2, 2), (200, 2))
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
        tags.regressor_tags.poor_score = True  # scikit-learn's checks have few rows for each expert
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the mixture.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets, in the user's units.
        sample_weight : array-like, (n,), optional
            Case weights, none below 0: a row of weight 2 counts twice, a row of weight 0 is absent. None means equal
            weights.

        Returns
        -------
        MoERegressor
            The estimator.

        Raises
        ------
        ValueError
            If a setting, a row or a weight is not valid. The error is raised before anything compiles.
        RuntimeError
            If no start leads to an admissible fit: a fit that did not diverge, in which each expert has more rows than
            parameters, and in which no scale is at its floor.

        Warns
        -----
        ConvergenceWarning
            If the chosen fit did not converge.
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
        """Return the family; None for squared error."""
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
        """Set `scale_` and `df_`."""
        self.scale_ = self.df_ = None
        family: Any = self.model_.family  # the names of scales are those of single families
        phi = self.params_["family"]
        with precision(self._dtype):
            if self.family in _REAL_LINE and family is not None:
                self.scale_ = np.exp(np.asarray(family.log_scale(phi)))[()] * self._dtype.type(self.y_scale_)
            if self.family == "student_t":
                self.df_ = np.exp(np.asarray(family.log_df(phi)))[()]
            if self.family == "gamma":
                self.scale_ = np.exp(-np.asarray(family.log_shape(phi)) / 2)[()]

    def predict(self, X: Any) -> np.ndarray:
        """Return E[y | x] for each row: the mean of the experts' means, weighted by the gate.

        For gate="top1" it is the mean of the most probable expert.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n,)
            Predictions, in the units of y.
        """
        return self._in_units(self._apply("predict", self._checked(X)))

    def predict_experts(self, X: Any) -> np.ndarray:
        """Return the mean of each expert for each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, K)
            Means, in the units of y.
        """
        return self._in_units(self._apply("expert_predictions", self._checked(X)))

    def _in_units(self, y: np.ndarray) -> np.ndarray:
        """Return values on the scale of the fit in the units of y."""
        return y * self.y_scale_ + self.y_mean_

    def _target(self, y: Any, n: int) -> np.ndarray:
        """Return y on the scale of the fit, or raise ValueError for values outside the support of the family."""
        _checks.shape("y", y, (n,), "one for each row of X")
        y = np.asarray(y, float)
        family: Any = self.model_.family
        family._check_support(y)
        target: np.ndarray = (y - self.y_mean_) / self.y_scale_
        return target
