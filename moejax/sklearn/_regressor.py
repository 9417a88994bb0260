"""Mixtures of experts for real targets and counts."""

from __future__ import annotations

import contextlib
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from moejax import _checks, experts
from moejax._precision import precision
from moejax.losses import Loss
from moejax.sklearn._estimators import Scored, column, moments, row_weights, table_of, target_of
from moejax.sklearn._mixture import MixtureOfExperts
from moejax.sklearn._parts import EXPERTS, family_of, part_of


class MoERegressor(Scored, RegressorMixin, MixtureOfExperts):
    """A mixture of K regressions: linear and sparse, or of any parts that fit together.

    Parameters
    ----------
    n_experts : int, default 3
        Number of experts K.
    experts : {"linear"} or ExpertLike, default "linear"
        What each expert predicts: "linear", a part from `moejax.experts`, or any record with the functions `init` and
        `apply`. Experts see X and predict y on the scale of the fit (see `standardize` and `standardize_y`).
    gate : str, tree or GateLike, default "softmax"
        How experts are weighted: a name, a tree, a part from `moejax.gates`, or any record with `init` and `log_probs`.

        - "fixed": equally.
        - "constant": by trained proportions that do not depend on the input.
        - "softmax": by a softmax of linear functions of the input.
        - "top1": by a softmax gate; the prediction is that of the most probable expert alone.
        - "gaussian": by a normal density of the inputs for each expert. EM then maximises the joint likelihood of x and y.
        - "hierarchical": by a soft split into two halves, and a soft split of each half again.
        - A tree of splits, as in `moejax.gates.hierarchical`.
    family : {"gaussian", "student_t", "poisson", "gamma"} or FamilyLike, default "gaussian"
        Distribution of y in each expert: a name, a family from `moejax.families`, or any record with `log_prob` and `mean`.
        The degrees of freedom of "student_t" are estimated. The means of "poisson" and "gamma" are
        exp(x . coef + intercept).
    loss : {"nll", "squared_error"} or LossLike, default "nll"
        The mean negative log-likelihood, the mean squared error of the prediction, a loss from `moejax.losses`, or any
        record with `value`. For "nll" EM takes the likelihood that goes with the gate, see `moejax.fit_em`. A loss without a
        likelihood, such as "squared_error", needs solver="gradient". The model then has no family and no scales, and
        `family` stays "gaussian". A family that is given as an object is kept, for a loss that sees it.
    solver : {"em", "gradient"}, default "em"
        "gradient" is accelerated proximal gradient descent. For a gate that chooses experts, such as "top1", it takes only
        `moejax.losses.truncated_nll`, and losses without a likelihood. The objective of the latter is not continuous, and
        that of a gate with noise is not fixed: for these it is Adam with proximal steps, and the fit never converges. Both
        solvers give exact zeros. Steps of "gradient" are smaller, and need a `max_iter` of a few thousand.
    l1_experts : float, default 0.0
        Weight of the sum of absolute coefficients of the experts, added to the mean loss. Intercepts and scales are not
        penalised.
    l1_gate : float, default 0.0
        Weight of the sum of absolute coefficients of the gate; not for gates without coefficients, such as "constant".
    l2_experts : float, default 0.0
        Weight of the sum of squared coefficients of the experts, added to the mean loss.
    l2_gate : float, default 1e-3
        Weight of the sum of squared coefficients of the gate. It is not 0 by default: if the inputs separate the experts, a
        gate without it has no finite optimum. The default bounds the logits in that case; in others it lowers the
        log-likelihood a little. Give 0 for maximum likelihood, as R's packages print it: a gate that separates is then told
        by the status. It has no effect on a gate without coefficients, or beside a `penalty` without it.
    penalty : sequence of PenaltyLike, optional
        Penalties from `moejax.penalties`, or any records with `name`, `part`, `value` and `prox`, in the order of their
        proximal steps, in the place of the standard ones. The four weights above then hold for those of their names. None
        means L1, group lasso and L2, on experts and on gate.
    hyper : mapping of str to float, optional
        Other numbers of the fit, by name: the weights of other penalties, such as `group_experts` or those in `penalty`, and
        what parts have in their `hyper`, such as `temperature`.
    gate_reference : bool, default False
        Whether the logits of one expert are fixed at 0. False gives each of the K experts its own logits; only for "softmax"
        and "top1". A gate that is an object says so itself.
    shared_scale : bool, default False
        Whether all experts share one scale (for "gamma", one shape). A family that is an object says so itself.
    variance_floor : float or None, default None
        Lower bound of every expert's variance (for "gamma", dispersion) as a share of the largest; 0 for none, None for that
        of the family, 1e-3. A family that is an object says so itself.
    standardize : bool, default True
        Whether the columns of X are standardised for the fit.
    standardize_y : bool, default True
        Whether y is standardised for the fit; only for families whose `is_location` is true, such as "gaussian" and
        "student_t", and without a family.
    n_init : int, default 8
        Number of starts. The best fit counts, by the rule of `moejax.select`.
    max_iter : int, default 500
        Most iterations of each start.
    tol : float, optional
        Largest violation of the optimality (KKT) condition at which a fit has converged. None means 1e-7 for EM in float64,
        1e-4 for EM in float32, and 1e-5 for "gradient".
    random_state : int, numpy.random.RandomState or None, default None
        Source of the starts.

    Attributes
    ----------
    coef_ : numpy.ndarray, (K, d) or (K, m, d), or None
        Coefficients of the experts' linear predictors, in the user's units; for m predictors of each expert, (K, m, d). None
        unless experts have `linear_terms`, as "linear" and `moejax.experts.tied` have.
    intercept_ : numpy.ndarray, (K,) or (K, m), or None
        Intercepts of the experts' linear predictors, in the user's units; likewise.
    gate_coef_, gate_intercept_ : numpy.ndarray, (K, d) and (K,), or None
        Coefficients of the gate's logits, in the user's units; None where the gate has none, or no `linear_terms`. For a
        tree they are those of its branches, in the order of `model_.gate.branches`.
    gate_reference_ : int or None
        Number of the expert whose logits are 0, a row of zeros in `gate_coef_`. It may be any expert, because a change of
        the reference would undo the zeros of the others.
    scale_ : numpy.ndarray, (K,), float or None
        One scale for each expert, one number if shared, or None without a scale: the standard deviation; the scale of
        Student's t; for "gamma" the standard deviation divided by the mean; for an object the `scale` of its `summary`. None
        for a loss without a likelihood.
    df_ : numpy.ndarray, (K,), float or None
        Degrees of freedom of Student's t, with the shape of `scale_`; for an object the `df` of its `summary`, or None.
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
        How the chosen fit ended; `moejax.describe` gives it in words.
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
    Experts are in the order of falling share of the training rows. If a part cannot be reordered they are in the order of
    the fit: experts and gates of a user's own without `reordered`, `moejax.experts.predictions`, `moejax.gates.custom` and
    `moejax.gates.neural`.

    Objects are kept as parameters: `clone`, `set_params`, pickle and grid searches take them. Frozen dataclasses and named
    tuples are best, since equal ones share compiled programs.

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
        experts: Any = "linear",
        gate: Any = "softmax",
        family: Any = "gaussian",
        loss: Any = "nll",
        solver: str = "em",
        l1_experts: float = 0.0,
        l1_gate: float = 0.0,
        l2_experts: float = 0.0,
        l2_gate: float = 1e-3,
        penalty: Any = None,
        hyper: Any = None,
        gate_reference: bool = False,
        shared_scale: bool = False,
        variance_floor: float | None = None,
        standardize: bool = True,
        standardize_y: bool = True,
        n_init: int = 8,
        max_iter: int = 500,
        tol: float | None = None,
        random_state: Any = None,
    ):
        self.n_experts = n_experts
        self.experts = experts
        self.gate = gate
        self.family = family
        self.loss = loss
        self.solver = solver
        self.l1_experts = l1_experts
        self.l1_gate = l1_gate
        self.l2_experts = l2_experts
        self.l2_gate = l2_gate
        self.penalty = penalty
        self.hyper = hyper
        self.gate_reference = gate_reference
        self.shared_scale = shared_scale
        self.variance_floor = variance_floor
        self.standardize = standardize
        self.standardize_y = standardize_y
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        with contextlib.suppress(ValueError):  # of a family that is not valid, as `fit` will say
            tags.target_tags.positive_only = family_of(self.family, False).support != "real"
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
        sample_weight : array-like, (n,), or float, optional
            Case weights, none below 0: a row of weight 2 counts twice, a row of weight 0 is absent. A number is the weight
            of every row. None means equal weights.

        Returns
        -------
        MoERegressor
            The estimator.

        Raises
        ------
        ValueError
            If a setting, a row or a weight is not valid, or parts do not fit together. The error is raised before anything
            compiles.
        RuntimeError
            If no start leads to a fit of finite numbers.

        Warns
        -----
        ConvergenceWarning
            If the chosen fit did not converge.
        UserWarning
            If experts had to be let go, because every start left one with too few rows; if all fits are degenerate (see
            `moejax.Status`); or if a scale is at its floor. What is returned is then the best there is.
        """
        loss = self._check_settings()
        expert, family = part_of("experts", self.experts, EXPERTS, experts.completed), self._family(loss)
        X, y = table_of(X), target_of(y)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True, ensure_min_samples=2)
        y, weights = np.asarray(y, float), row_weights(sample_weight, len(y))
        self.y_mean_, self.y_scale_ = 0.0, 1.0
        if self.standardize_y and (family is None or family.is_location):
            self.y_mean_, self.y_scale_ = (float(v) for v in moments(y, weights))
        self._fit(X, (y - self.y_mean_) / self.y_scale_, weights, expert, loss, family)
        self._sees_family = loss.has_likelihood
        return self

    def _family(self, loss: Loss) -> Any:
        """Return the family; None for a loss that sees none."""
        family = family_of(self.family, self.shared_scale, self.variance_floor)
        if loss.has_likelihood or not isinstance(self.family, str):
            return family
        if self.family != "gaussian":
            given = f"{self.family!r} was given with loss={self.loss!r}"
            raise ValueError(f"family: {given}; want loss='nll', or 'gaussian', or an object for a loss that sees it")
        return None

    def _summary(self, name: str) -> Any:
        """Return what the family's summary holds by that name, on the scale of the fit, or None.

        It is computed when it is asked for, so that a first fit does not wait for its programs.
        """
        check_is_fitted(self, "params_")
        family = self.model_.family if self._sees_family else None  # only a likelihood trains it for certain
        if family is None:
            return None
        with precision(self._dtype):
            found = family.summary(self.params_["family"])
        return np.asarray(found[name])[()] if name in found else None

    @property
    def scale_(self) -> Any:
        """One scale for each expert, or None; see the class."""
        scale = self._summary("scale")
        return None if scale is None else scale * self._dtype.type(self.y_scale_)

    @property
    def df_(self) -> Any:
        """Degrees of freedom of Student's t, or None; see the class."""
        return self._summary("df")

    def predict(self, X: Any) -> np.ndarray:
        """Return E[y | x] for each row: the mean of the experts' means, weighted by the gate.

        For a gate that chooses experts, such as "top1", it is that of the chosen ones.

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
        y = column("y", _checks.of_objects("y", y), n)
        _checks.finite("y", y)
        y = y.astype(float)
        family: Any = self.model_.family
        family._check_support(y)
        target: np.ndarray = (y - self.y_mean_) / self.y_scale_
        return target
