"""The base class of the estimators of a mixture of experts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from moejax import _checks, gates, losses
from moejax.gates import Hierarchical
from moejax.model import Model, moe
from moejax.sklearn._estimators import applied, best_of_starts, check_choice, moments, precision
from moejax.solvers import Fit, Status, describe, fit_em, fit_gradient

GATES = ("fixed", "constant", "softmax", "top1", "gaussian", "hierarchical")
LOSSES = ("nll", "squared_error")
SOLVERS = ("em", "gradient")
_REFERENCE_GATES = ("softmax", "top1")
_LINEAR_GATES = (*_REFERENCE_GATES, "hierarchical")
_PENALTIES = ("l1_experts", "l1_gate", "l2_experts", "l2_gate")
_LEARNING_RATE = 0.1  # learning rate of Adam, for the gate "top1", which the accelerated method does not support
_PATIENCE = 100  # accelerated steps without a relative improvement of at least _LEAST_IMPROVEMENT
_LEAST_IMPROVEMENT = 1e-9


class MixtureOfExperts(BaseEstimator):
    """The base class of `MoERegressor` and `MoEClassifier`: the fit itself, and everything that concerns the gate."""

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
    _target: Callable[[Any, int], np.ndarray]  # method: y (n,) -> the target of the model

    # ---- fitting ------------------------------------------------------------------------------------------------

    def _check_settings(self) -> None:
        """Raise ValueError if a setting is not valid or does not fit the others."""
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
        """Return the fit of the library that these settings specify."""
        if self.solver == "em":
            return fit_em(model, max_iter=self.max_iter, tol=self.tol)
        loss = losses.nll() if self.loss == "nll" else losses.squared_error()
        more: dict[str, Any] = {"steps": self.max_iter} | ({} if self.tol is None else {"tol": self.tol})
        if self.gate == "top1":  # the accelerated method needs a continuous objective
            return fit_gradient(model, loss, optax.adam, learning_rate=_LEARNING_RATE, proximal=True, **more)
        return fit_gradient(model, loss, "accelerated", patience=_PATIENCE, min_improvement=_LEAST_IMPROVEMENT, **more)

    @property
    def _gate_name(self) -> Any:
        """The kind of gate; a tree means "hierarchical"."""
        return "hierarchical" if isinstance(self.gate, list | tuple) else self.gate

    def _gate(self, reference: bool) -> Any:
        """Return the gate of the library."""
        if self._gate_name == "hierarchical":
            halved = self.gate == "hierarchical"
            return Hierarchical(_halved(range(self.n_experts))) if halved else gates.hierarchical(self.gate)
        return getattr(gates, self.gate)(**({"reference": True} if reference else {}))

    def _fit(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, expert: Any, family: Any) -> None:
        """Fit to y (n,) on the scale of the fit, and set everything that does not depend on the units of y.

        `y_scale_` must be set. weights: (n,), checked.
        """
        # A single expert cannot have a reference.
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
        share = np.asarray(best.shares, float)
        order = np.argsort(-share, kind="stable")
        self._keep(best, share[order], weights.sum())
        self.model_, self.params_ = _in_order(model, best.params, order, self._gate(False) if reference else None)
        self.gate_reference_ = int(np.argmax(order == self.n_experts - 1)) if reference else None
        self._report()
        if not (self.converged_ or (self.gate == "top1" and self.solver == "gradient")):  # this fit never converges
            ended = f"{self.max_iter} was given, and the best fit ended {describe(self.status_)}"
            warnings.warn(f"max_iter: {ended}; want more, or a larger tol", ConvergenceWarning, stacklevel=3)

    def _keep(self, fit: Fit, share: np.ndarray, rows: Any) -> None:
        """Set the attributes that describe how the fit ended."""
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
        """Return coefficients (K, d), or (K, C, d) from weights (K, d, C), and intercepts, for X in the user's units."""
        coef = np.moveaxis(np.asarray(weights, float), 1, -1) / self.x_scale_ * factor
        return coef.astype(self._dtype), (intercept * factor - coef @ self.x_mean_).astype(self._dtype)

    # ---- predictions --------------------------------------------------------------------------------------------

    y_mean_: float = 0.0
    y_scale_: float = 1.0

    def _standardized(self, x: np.ndarray) -> np.ndarray:
        """Return rows on the scale of the fit."""
        standardized: np.ndarray = ((x - self.x_mean_) / self.x_scale_).astype(self._dtype)
        return standardized

    def _checked(self, X: Any) -> np.ndarray:
        """Check X and return it on the scale of the fit."""
        check_is_fitted(self, "params_")
        return self._standardized(validate_data(self, X, dtype=[np.float64, np.float32], reset=False))

    def _apply(self, method: str, x: np.ndarray, *y: np.ndarray) -> np.ndarray:
        """Apply the model's method of that name to standardised rows."""
        return applied(method, self.model_, self.params_, x, *(v.astype(self._dtype) for v in y))

    def _apply_to_pair(self, method: str, X: Any, y: Any) -> np.ndarray:
        """Apply the model's method of that name to rows of X and y, or raise ValueError without a likelihood."""
        x = self._checked(X)
        if self.model_.family is None:
            raise ValueError(f"loss: {self.loss!r} was given, under which {method} has no meaning; want loss='nll'")
        return self._apply(method, x, self._target(y, len(x)))

    def predict_gate(self, X: Any) -> np.ndarray:
        """Return P(expert | x) for each row; the probabilities are soft also for a gate that chooses one expert.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.

        Returns
        -------
        numpy.ndarray, (n, K)
            Gate probabilities; each row has sum 1.
        """
        return self._apply("gate_probs", self._checked(X))

    def responsibilities(self, X: Any, y: Any) -> np.ndarray:
        """Return P(expert | x, y) for each row.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets or labels.

        Returns
        -------
        numpy.ndarray, (n, K)
            Responsibilities; each row has sum 1.

        Raises
        ------
        ValueError
            If loss="squared_error", which has no likelihood.
        """
        return self._apply_to_pair("responsibilities", X, y)

    def score_samples(self, X: Any, y: Any) -> np.ndarray:
        """Return log p(y | x) for each row, in the units of y, by the soft gate.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets or labels.

        Returns
        -------
        numpy.ndarray, (n,)
            Log densities or log probabilities, in nats.

        Raises
        ------
        ValueError
            If loss="squared_error", which has no likelihood, or y is outside the support of the family.
        """
        scores: np.ndarray = self._apply_to_pair("log_prob", X, y) - np.log(self.y_scale_)
        return scores


def _in_order(model: Model, params: Any, order: np.ndarray, symmetric: Any) -> tuple[Model, Any]:
    """Return the same mixture with its experts in another order.

    symmetric: None, or a gate with logits for each expert, which replaces a gate whose last expert has none.
    """
    params = jax.tree.map(np.asarray, params)
    gate = params["gate"]
    reordered = model.gate.reordered(order)
    if reordered is not None:
        model = dataclasses.replace(model, gate=reordered)
        return model, {"experts": _rows(params["experts"], order), "gate": gate, "family": _rows(params["family"], order)}
    if symmetric is not None:
        model = dataclasses.replace(model, gate=symmetric)
        gate = {name: np.append(leaf, np.zeros_like(leaf[:1]), axis=0) if leaf.ndim else leaf for name, leaf in gate.items()}
    return model, {name: _rows(tree, order) for name, tree in {**params, "gate": gate}.items()}


def _rows(tree: Any, order: np.ndarray) -> Any:
    """Return the leaves of a tree by expert in another order; a scalar is shared by all experts."""
    return jax.tree.map(lambda leaf: leaf[order] if leaf.ndim else leaf, tree)


def _halved(experts: Any) -> Any:
    """Return the numbers of experts as a tree of binary splits; the first half is never the smaller one."""
    middle = (len(experts) + 1) // 2
    return (_halved(experts[:middle]), _halved(experts[middle:])) if len(experts) > 1 else experts[0]
