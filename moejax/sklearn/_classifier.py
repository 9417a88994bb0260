"""Mixtures of experts for classes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from moejax import _checks, experts, families
from moejax.sklearn._estimators import row_weights
from moejax.sklearn._mixture import MixtureOfExperts


class MoEClassifier(ClassifierMixin, MixtureOfExperts):
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
