"""Squared error, of predictions and of held responsibilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import dot
from moejax.losses._base import Loss
from moejax.losses._rows import held_division, mean_over_outputs
from moejax.model import Data, Model


@dataclass(frozen=True)
class SquaredError(Loss):
    """Squared error of the gated mean; made by `squared_error`."""

    has_sums = True

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the weighted mean over rows, and plain mean over outputs, of (y - E[y | x])^2."""
        return self.sums(model, params, data, weights)

    def sums(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the weighted sum over rows."""
        mean = model.mean(params, data.x, data.offset, data.key)
        _checks.shape("y", data.y, mean.shape, "like a prediction")
        return dot(weights, mean_over_outputs(jnp.square(mean - data.y), 1))

    def of_sums(self, model: Model, params: Any, sums: jax.Array, total: Any, hyper: Any) -> jax.Array:
        """Return the sum, which is the mean: weights have sum 1."""
        return sums


def squared_error() -> SquaredError:
    """Construct the squared error of the prediction.

    Returns
    -------
    SquaredError
        The loss.

    Notes
    -----
    The loss is the weighted mean over rows, and plain mean over outputs, of (y - E[y | x])^2, where
    E[y | x] = sum over k of g_k(x) mean(eta_k(x)). It needs no family.
    """
    return SquaredError()


@dataclass(frozen=True)
class CompleteSquaredError(Loss):
    """Squared error of each expert on its own rows; made by `complete_squared_error`."""

    complete = True
    has_sums = True

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the weighted mean over rows of r_k (y - mean_k)^2 - r_k log g_k, summed over experts."""
        return self.sums(model, params, data, weights)

    def of_sums(self, model: Model, params: Any, sums: jax.Array, total: Any, hyper: Any) -> jax.Array:
        """Return the sum, which is the mean: weights have sum 1."""
        return sums

    def sums(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the weighted sum over rows."""
        means = model.means(params, data.x, data.offset)
        _checks.shape("y", data.y, means.shape[1:], "like a prediction")
        each = mean_over_outputs(jnp.square(means - data.y), 2) - model.log_gate(params, data.x, data.key)
        return dot(weights, (held_division(data.division) * each).sum(axis=0))

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the squared error of the prediction, because the experts of other rows are not known."""
        return SquaredError().value(model, params, data, weights)


def complete_squared_error() -> CompleteSquaredError:
    """Construct the squared error of responsibilities that are held.

    Returns
    -------
    CompleteSquaredError
        The loss.

    Notes
    -----
    The loss is the weighted mean over rows of

        sum over k of  r_k [(y - mean_k(x))^2 - log g_k(x)].

    A fit gets the responsibilities r, (n, K), as `start`. It is what `complete_nll` is for a model without a family.
    Held-out rows are compared by the squared error of the prediction.
    """
    return CompleteSquaredError()
