"""The base class of the estimators of a mixture of experts."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from moejax import _checks, experts, families, gates, losses
from moejax._precision import precision
from moejax.losses import Loss
from moejax.model import Model, moe
from moejax.sklearn._estimators import (
    applied,
    best_of_starts,
    check_choice,
    check_coefficients,
    column_moments,
    counted,
    gradient_fit,
    seed_of,
    table_of,
)
from moejax.sklearn._parts import gate_of, loss_of
from moejax.solvers import Fit, Status, describe, fit_em, remedy

SOLVERS = ("em", "gradient")
_PENALTIES = ("l1_experts", "l1_gate", "l2_experts", "l2_gate")
_FLAGS = ("gate_reference", "shared_scale", "standardize", "standardize_y")  # a classifier has some of them
_APART = {"restart": "n_init", "n_experts": "n_experts", **{name: name for name in _PENALTIES}}  # numbers not in `hyper`


class MixtureOfExperts(BaseEstimator):
    """The base class of `MoERegressor` and `MoEClassifier`: the fit itself, and everything that concerns the gate."""

    n_experts: int
    experts: Any
    gate: Any
    loss: Any
    solver: str
    penalty: Any
    hyper: Any
    gate_reference: bool
    standardize: bool
    n_init: int
    max_iter: int
    tol: float | None
    random_state: Any
    _target: Callable[[Any, int], np.ndarray]  # method: y (n,) -> the target of the model

    # ---- fitting ------------------------------------------------------------------------------------------------

    def _check_settings(self) -> Loss:
        """Raise ValueError if a setting is not valid or does not fit the others; return the loss."""
        check_choice("solver", self.solver, SOLVERS)
        loss = loss_of(self.loss)
        if self.solver == "em" and not loss.has_likelihood:
            raise ValueError(f"loss: {self.loss!r} was given with solver='em', which wants a likelihood; want 'gradient'")
        for name in ("n_experts", "n_init", "max_iter"):
            _checks.count(name, getattr(self, name))
        for name in _PENALTIES:
            _checks.number_from_0(name, getattr(self, name))
        for name in _FLAGS:
            if hasattr(self, name):
                _checks.flag(name, getattr(self, name))
        return loss

    def _configured(self, model: Model, loss: Loss) -> Any:
        """Return the fit of the library that these settings specify."""
        if self.solver == "em":
            own = None if loss == losses.nll() else loss  # None: the likelihood that goes with the gate
            return fit_em(model, own, penalty=self.penalty, max_iter=self.max_iter, tol=self.tol)
        return gradient_fit(model, loss, self.max_iter, penalty=self.penalty, tol=self.tol)

    def _numbers(self, fit: Any, x: np.ndarray) -> dict[str, float]:
        """Return the numbers that the fit is given: weights of penalties that are above 0, and those of `hyper`."""
        weights = {name: float(getattr(self, name)) for name in _PENALTIES if getattr(self, name) > 0}
        if "l2_gate" not in fit.hyper or not fit.model.gate.declares_penalized:
            weights.pop("l2_gate", None)  # which is above 0 by default
        for name, weight in weights.items():
            if name not in fit.hyper:
                given = f"{weight} was given, and none of the penalties in `penalty` has that name"
                raise ValueError(f"{name}: {given}; want one of them, as penalties.{name[:2]}({name[3:]!r}), or 0")
        own = {} if self.hyper is None else self.hyper
        fit.check_hyper(own)
        for name, number in own.items():
            if name in _APART:
                raise ValueError(f"hyper: {name!r} was given; want the parameter {_APART[name]} of the estimator")
            _checks.shape(f"hyper[{name!r}]", number, (), "one number")
        fit.check_hyper({**weights, **own})
        check_coefficients(fit.model, x, {name: weight for name, weight in weights.items() if name != "l2_gate"})
        return {**weights, **{name: float(number) for name, number in own.items()}}

    def _fit(self, x: np.ndarray, y: np.ndarray, weights: np.ndarray, expert: Any, loss: Loss, family: Any) -> None:
        """Fit to y (n,) on the scale of the fit, and set everything that does not depend on the units of y.

        `y_scale_` must be set. weights: (n,), checked.
        """
        x, y, weights = counted(x, y, weights)
        centre, scale = column_moments(x, weights) if self.standardize else (np.zeros(x.shape[1]), np.ones(x.shape[1]))
        self.x_mean_, self.x_scale_, self._dtype = centre, scale, x.dtype
        seed = seed_of(self.random_state)
        with precision(x.dtype):
            standardized = self._standardized(x)
            fit, best = self._best(expert, loss, family, seed, standardized, y, weights)
            order = np.argsort(-np.asarray(best.shares, float), kind="stable")
            moved = _in_order(fit.model, best.params, order)
            if moved is None:  # some part cannot be reordered
                order, moved = np.arange(fit.model.n_experts), (fit.model, jax.tree.map(np.asarray, best.params))
        self.model_, self.params_ = moved
        self._keep(best, np.asarray(best.shares, float)[order], weights.sum())
        self.gate_reference_ = int(np.argmax(order == fit.model.n_experts - 1)) if fit.model.gate.reference else None
        self._report()
        self._warn(fit)

    def _best(
        self, expert: Any, loss: Loss, family: Any, seed: int, x: np.ndarray, y: np.ndarray, weights: np.ndarray
    ) -> tuple[Any, Fit]:
        """Return the best fit and what it was configured as.

        Where every start ends with an expert of too few rows, one is let go, until there is a sound fit. Where there is none
        of fewer experts either, the best of all experts is returned.
        """
        fit = self._configured(
            moe(expert, gate_of(self.gate, self.n_experts, self.gate_reference), self.n_experts, family=family), loss
        )
        best = best_of_starts(fit, self.n_init, self._numbers(fit, x), seed, x, y, weights)
        if best.admissible or not (isinstance(self.gate, str) and isinstance(self.experts, str)):
            return fit, best  # of one's own parts some know how many experts there are
        for n_experts in range(self.n_experts - 1, 0, -1):
            try:
                gate = gate_of(self.gate, n_experts, self.gate_reference)
                fewer = self._configured(moe(expert, gate, n_experts, family=family), loss)
                sound = best_of_starts(fewer, self.n_init, self._numbers(fewer, x), seed, x, y, weights)
            except (ValueError, RuntimeError):  # a gate that takes no fewer, or no finite fit
                break
            if sound.admissible:
                return fewer, sound
        return fit, best

    def _warn(self, fit: Any) -> None:
        """Warn of a fit that is not what was asked for, with what to do."""
        if fit.model.n_experts < self.n_experts:
            given = f"{self.n_experts} were given, and of so many every start leaves one with too few rows"
            warnings.warn(f"n_experts: {given}; {fit.model.n_experts} were fitted", UserWarning, stacklevel=4)
        if self.status_ & Status.DEGENERATE_EXPERT:
            said = "every start ends with an expert that has too few rows for its coefficients or its scale"
            warnings.warn(f"n_experts: {said}; {remedy(self.status_)}", UserWarning, stacklevel=4)
        elif self.status_ & Status.SCALE_AT_FLOOR:
            said = (
                "a scale of the best fit is at its floor: the expert reproduces its rows, or has far less noise than others"
            )
            warnings.warn(f"y: {said}; see variance_floor", UserWarning, stacklevel=4)
        if fit.is_settling and not self.status_ & (Status.CONVERGED | Status.DEGENERATE_EXPERT):
            given = f"max_iter: {self.max_iter} was given, and " if self.status_ & Status.OUT_OF_STEPS else ""
            ended = f"{given}the best fit ended {describe(self.status_)}"
            warnings.warn(f"{ended}; {remedy(self.status_)}", ConvergenceWarning, stacklevel=4)

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
        experts, gate = self.model_.expert, self.model_.gate
        self.coef_, intercept = self._unscaled(experts, self.params_["experts"], self.y_scale_)
        self.intercept_ = None if intercept is None else intercept + self.y_mean_
        self.gate_coef_, self.gate_intercept_ = self._unscaled(gate, self.params_["gate"])

    def _unscaled(self, part: Any, params: Any, factor: float = 1.0) -> tuple[Any, Any]:
        """Return coefficients (K, d), or (K, m, d) for m outputs, and intercepts of a part, for X in the user's units.

        None for a part that has none.
        """
        if not part.has_linear_terms:
            return None, None
        with precision(self._dtype):
            weights, intercept = jax.tree.map(np.asarray, part.linear_terms(params))
        if weights is None:
            return None, intercept
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
        x = validate_data(self, table_of(X), dtype=[np.float64, np.float32], reset=False)
        _checks.within("X", x, self._dtype)
        return self._standardized(x)

    def _apply(self, method: str, x: np.ndarray, *y: np.ndarray) -> np.ndarray:
        """Apply the model's method of that name to standardised rows."""
        return applied(method, self.model_, self.params_, x, *(v.astype(self._dtype) for v in y))

    def _apply_to_pair(self, method: str, X: Any, y: Any) -> np.ndarray:
        """Apply the model's method of that name to rows of X and y, or raise ValueError without a likelihood."""
        x = self._checked(X)
        if self.model_.family is None:
            raise ValueError(f"loss: {self.loss!r} was given, under which {method} has no meaning; want loss='nll'")
        target = self._target(y, len(x))
        _checks.within("y", target, self._dtype)
        return self._apply(method, x, target)

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

    def log_prob(self, X: Any, y: Any) -> np.ndarray:
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


def _in_order(model: Model, params: Any, order: np.ndarray) -> tuple[Model, Any] | None:
    """Return the same mixture with its experts in another order; None if some part cannot be reordered."""
    params = jax.tree.map(np.asarray, params)
    moved = {name: part.reordered(params[name], order) for name, part in model.parts.items()}
    found = {name: each for name, each in moved.items() if each is not None}
    if len(found) < len(moved):
        return None
    expert, gate = experts.completed(found["experts"][0]), gates.completed(found["gate"][0])
    family = families.completed(found["family"][0]) if "family" in found else None
    params = {**params, **{name: jax.tree.map(np.asarray, own) for name, (_, own) in found.items()}}
    return dataclasses.replace(model, expert=expert, gate=gate, family=family), params
