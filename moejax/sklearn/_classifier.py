"""Mixtures of experts for classes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from moejax import experts, families
from moejax.sklearn._estimators import Scored, column, labels_of, row_weights, table_of
from moejax.sklearn._mixture import MixtureOfExperts
from moejax.sklearn._parts import EXPERTS, part_of


class MoEClassifier(Scored, ClassifierMixin, MixtureOfExperts):
    """A mixture of K classifiers, logistic for two classes, softmax for more: linear and sparse, or of any experts.

    The loss is the mean negative log-likelihood. There is no family and no scale. All other parameters are as in
    `MoERegressor`.

    Parameters
    ----------
    n_experts : int, default 3
        Number of experts K.
    experts : {"linear"} or ExpertLike, default "linear"
        What each expert predicts; see `MoERegressor`. An object has one predictor for two classes, the log odds of the
        second, and C predictors for C > 2 classes, as `moejax.experts.linear(C)` has.
    gate : {"fixed", "constant", "softmax", "top1", "gaussian", "hierarchical"}, tree or GateLike, default "softmax"
        How experts are weighted; see `MoERegressor`.
    solver : {"em", "gradient"}, default "em"
        How the objective is minimised; see `MoERegressor`.
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
        Penalties in the place of the standard ones; see `MoERegressor`.
    hyper : mapping of str to float, optional
        Other numbers of the fit, by name; see `MoERegressor`.
    gate_reference : bool, default False
        Whether the logits of one expert are fixed at 0. False gives each of the K experts its own logits; only for "softmax"
        and "top1". A gate that is an object says so itself.
    standardize : bool, default True
        Whether the columns of X are standardised for the fit.
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
    classes_ : numpy.ndarray, (C,)
        Sorted labels, of any type.
    coef_ : numpy.ndarray, (K, d) or (K, C, d), or None
        Coefficients of the experts in the user's units: of the log odds of the second of two classes, or of each of C > 2
        classes. None unless experts have `linear_terms`, as "linear" has.
    intercept_ : numpy.ndarray, (K,) or (K, C), or None
        Intercepts, likewise.
    gate_coef_, gate_intercept_ : numpy.ndarray, (K, d) and (K,), or None
        Coefficients of the gate's logits, in the user's units; None where the gate has none, or no `linear_terms`. For a
        tree they are those of its branches, in the order of `model_.gate.branches`.
    gate_reference_ : int or None
        Number of the expert whose logits are 0, a row of zeros in `gate_coef_`. It may be any expert, because a change of
        the reference would undo the zeros of the others.
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
    model_, params_ : Model and pytree
        The model of `moejax` and its parameters, for inputs (X - x_mean_) / x_scale_ and class numbers.

    Notes
    -----
    Experts are in the order of falling share of the training rows, unless a part cannot be reordered (see `MoERegressor`).

    Examples
    --------
    >>> import numpy as np
    >>> from moejax.sklearn import MoEClassifier
    >>> X = np.random.default_rng(0).normal(size=(200, 2))
    >>> labels = np.where(X[:, 0] * X[:, 1] > 0, "same", "other")  # the sign of one column decides the effect of the other
    >>> model = MoEClassifier(n_experts=2, n_init=2, random_state=0).fit(X, labels)
    >>> model.predict_proba(X).shape
    (200, 2)
    """

    loss = "nll"

    def __init__(
        self,
        n_experts: int = 3,
        *,
        experts: Any = "linear",
        gate: Any = "softmax",
        solver: str = "em",
        l1_experts: float = 0.0,
        l1_gate: float = 0.0,
        l2_experts: float = 0.0,
        l2_gate: float = 1e-3,
        penalty: Any = None,
        hyper: Any = None,
        gate_reference: bool = False,
        standardize: bool = True,
        n_init: int = 8,
        max_iter: int = 500,
        tol: float | None = None,
        random_state: Any = None,
    ):
        self.n_experts = n_experts
        self.experts = experts
        self.gate = gate
        self.solver = solver
        self.l1_experts = l1_experts
        self.l1_gate = l1_gate
        self.l2_experts = l2_experts
        self.l2_gate = l2_gate
        self.penalty = penalty
        self.hyper = hyper
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
        """Fit the mixture.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Labels, of any type.
        sample_weight : array-like, (n,), or float, optional
            Case weights, none below 0: a row of weight 2 counts twice, a row of weight 0 is absent. A number is the weight
            of every row. None means equal weights.

        Returns
        -------
        MoEClassifier
            The estimator.

        Raises
        ------
        ValueError
            If a setting, a row or a weight is not valid, parts do not fit together, or all rows of positive weight have the
            same label. The error is raised before anything compiles.
        RuntimeError
            If no start leads to a fit of finite numbers.
        """
        loss = self._check_settings()
        X, y = table_of(X), labels_of(y)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        weights = row_weights(sample_weight, len(y))
        self.classes_, numbers = np.unique(y, return_inverse=True)
        count, present = len(self.classes_), np.unique(numbers[weights > 0])
        if len(present) < 2:
            label = self.classes_[present].tolist()[0]
            raise ValueError(f"y: all rows of positive weight have the label {label!r}; want more than one class")
        family, outputs = (families.bernoulli(), None) if count == 2 else (families.categorical(count), count)
        expert = part_of("experts", self.experts, EXPERTS, experts.completed, outputs=outputs)
        self._fit(X, numbers.astype(float), weights, expert, loss, family)
        return self

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
        likeliest = self.predict_proba(X).argmax(axis=1)
        labels: np.ndarray = self.classes_[likeliest]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return P(class | x) for each row; for a gate that chooses experts, such as "top1", that of the chosen ones.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, C)
            Probabilities, in the order of `classes_`.
        """
        return self._of_classes(self._apply("predict", self._checked(X)), 1)

    def predict_experts(self, X: Any) -> np.ndarray:
        """Return P(class | x) of each expert for each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, K, C)
            Probabilities, with classes in the order of `classes_`.
        """
        return self._of_classes(self._apply("expert_predictions", self._checked(X)), 2)

    def _of_classes(self, probs: np.ndarray, axis: int) -> np.ndarray:
        """Return the probabilities of all classes, given those of the second of two classes or of all."""
        return np.stack([1 - probs, probs], axis=-1) if probs.ndim == axis else probs

    def _target(self, y: Any, n: int) -> np.ndarray:
        """Return class numbers (n,) as floats, or raise ValueError for a label that was not seen in `fit`."""
        y = column("y", labels_of(y), n)
        unknown = np.setdiff1d(y, self.classes_)
        if unknown.size:
            raise ValueError(f"y: label {unknown[0]!r} was given; want labels among {self.classes_.tolist()}")
        numbers: np.ndarray = np.searchsorted(self.classes_, y).astype(float)
        return numbers
