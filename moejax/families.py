"""Families: the distribution of the target given an expert's linear predictor eta.

A family is any record with

    init(n_experts, eta) -> phi                    dispersion parameters, a pytree (eta: an array or its shape and dtype)
    log_prob(y, eta, phi) -> (K, n)                proper, normalised log densities
    mean(eta) -> like eta
    sample(key, eta, phi) -> like eta

and, where it helps, `at_floor(phi) -> bool`, and `check_target(y, shape)`, which raises for targets that it cannot have
(without it, y has the shape of a prediction). A model without a family predicts and has no likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _check

Params = dict[str, jax.Array]


@dataclass(frozen=True)
class Gaussian:
    """Normal targets; made by `gaussian`."""

    shared_scale: bool = False
    variance_floor: float = 0.05

    def init(self, n_experts: int, eta: Any) -> Params:
        """Logarithms of scales of 1: one for each expert (and output), or one for all."""
        tail = eta.shape[2:]
        return {"log_scale": jnp.zeros(tail if self.shared_scale else (n_experts, *tail), eta.dtype)}

    def penalized(self, phi: Params) -> dict[str, bool]:
        """Nothing."""
        return {"log_scale": False}

    def log_scale(self, phi: Params) -> jax.Array:
        """Log standard deviations with the floor applied, as they enter the density."""
        if self.shared_scale:
            return phi["log_scale"]
        return jnp.maximum(phi["log_scale"], self._lowest(phi))

    def _lowest(self, phi: Params) -> jax.Array:
        # The largest scale is a bound for the others, not something that they should pull on.
        return jax.lax.stop_gradient(phi["log_scale"].max(axis=0)) + 0.5 * math.log(self.variance_floor)

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """log N(y; eta, scale^2), summed over outputs, (K, n)."""
        _check.shape("y", y, eta.shape[1:], "like an expert's predictions")
        log_scale = self._spread(phi, eta)
        each = -0.5 * ((y - eta) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi)
        return each.sum(axis=2) if eta.ndim == 3 else each

    def mean(self, eta: jax.Array) -> jax.Array:
        """eta itself."""
        return eta

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A draw from every expert for every row, like eta."""
        return eta + jnp.exp(self._spread(phi, eta)) * jax.random.normal(key, eta.shape, eta.dtype)

    def at_floor(self, phi: Params) -> jax.Array:
        """Whether some scale is held up by the floor."""
        if self.shared_scale:
            return jnp.zeros((), bool)
        return (phi["log_scale"] <= self._lowest(phi)).any()

    def _spread(self, phi: Params, eta: jax.Array) -> jax.Array:
        """Scales against eta: (K,) or () beside (K, n), (K, m) or (m,) beside (K, n, m)."""
        log_scale = self.log_scale(phi)
        return log_scale if self.shared_scale else jnp.expand_dims(log_scale, 1)


def gaussian(*, shared_scale: bool = False, variance_floor: float = 0.05) -> Gaussian:
    """Normal targets around eta, with a scale for each expert or one for all.

    variance_floor: every variance is at least this share of the largest (Hathaway 1985), without which the likelihood
    of a mixture has no maximum. Raises ValueError unless it lies between 0 and 1.
    """
    _check.positive("variance_floor", variance_floor)
    if variance_floor >= 1:
        raise ValueError(f"variance_floor: {variance_floor} was given; want a share of the largest variance, below 1")
    return Gaussian(bool(shared_scale), float(variance_floor))
