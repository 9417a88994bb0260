"""Positive targets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.families._base import Family, Params, Target, beside_eta, check_values, over_outputs
from moejax.families._dispersion import (
    DEFAULT_FLOOR,
    Spread,
    checked_share,
    count_free,
    least_log_dispersion,
    log_dispersions,
    log_floor,
    log_weighted_mean,
    lowest,
    raised_to_floor,
    spread_of,
    touches,
)
from moejax.families._numerics import bounded_exp, extended, stirling


@dataclass(frozen=True)
class Gamma(Family):
    """Positive targets; made by `gamma`.

    Attributes
    ----------
    shared_shape : bool, default False
        Whether all experts have the same shape.
    dispersion_floor : float, default 2e-3
        Lower bound of every 1 / shape, as a share of the largest; 0 for none.
    """

    shared_shape: bool = False
    dispersion_floor: float = DEFAULT_FLOOR
    support = "positive"
    has_sample = True
    has_dispersion = True
    has_cdf = True
    has_modes = True

    @property
    def shared(self) -> bool:
        """Whether all experts have the same dispersion."""
        return self.shared_shape

    def init(self, n_experts: int, eta: Any) -> Params:
        """Return logarithms of shapes of 1: one for each expert (and output), or one for all."""
        tail = eta.shape[2:]
        return {"log_shape": jnp.zeros(tail if self.shared_shape else (n_experts, *tail), eta.dtype)}

    def log_shape(self, phi: Params) -> jax.Array:
        """Return log shapes with the floors of the dispersion, 1 / shape, applied, as they enter the density.

        Parameters
        ----------
        phi : dict
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K,) or (K, m), or () or (m,) if shared
            Logarithms of shapes.
        """
        floored = raised_to_floor(-phi["log_shape"], log_floor(self.dispersion_floor), self.shared_shape)
        return -jnp.maximum(floored, least_log_dispersion(floored.dtype))

    def summary(self, phi: Params) -> Params:
        """Return the standard deviation divided by the mean, (K,) or () if shared."""
        return {"scale": jnp.exp(-0.5 * self.log_shape(phi))}

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return the log density of mean exp(eta) and variance mean^2 / shape, summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        self._check_support(y)
        log_shape, log_y = self._spread(phi), jnp.log(y)
        shape = jnp.exp(log_shape)
        # shape log shape - log Gamma(shape), and the mode of the rest, which would cancel for large shapes
        constant = 0.5 * log_shape - 0.5 * math.log(2 * math.pi) - stirling(shape)
        return over_outputs(constant - 0.5 * shape * _gamma_deviance(log_y, eta) - log_y)

    def mean(self, eta: jax.Array) -> jax.Array:
        """Return exp(eta), or the largest float."""
        return bounded_exp(eta)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(target <= y), like eta, by the incomplete gamma function."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        log_shape = jnp.broadcast_to(self._spread(phi), eta.shape)
        positive = y > 0
        log_y = jnp.log(jnp.where(positive, y, 1))
        return jnp.where(positive, jax.scipy.special.gammainc(jnp.exp(log_shape), bounded_exp(log_shape + log_y - eta)), 0)

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return a draw from every expert for every row, like eta; none is 0."""
        log_shape = jnp.broadcast_to(self._spread(phi), eta.shape)
        log_draws = jax.random.loggamma(key, jnp.exp(log_shape), eta.shape, eta.dtype)
        return jnp.maximum(bounded_exp(eta + log_draws - log_shape), jnp.finfo(eta.dtype).tiny)

    def start(self, target: Target) -> jax.Array:
        """Return the logarithm of the mean target, of each output."""
        return log_weighted_mean(target)

    def null(self, phi: Params, target: Target) -> Params:
        """Return the shapes of the density that has the target's mean and variance."""
        tiny = jnp.finfo(target.variance.dtype).tiny
        log_shape = 2 * log_weighted_mean(target) - jnp.log(jnp.maximum(target.variance, tiny))
        return {"log_shape": jnp.broadcast_to(log_shape, phi["log_shape"].shape).astype(phi["log_shape"].dtype)}

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """Return (1 - 1 / shape) * mean, like eta.

        It is the smallest float for shapes of 1 or less, whose densities fall throughout.
        """
        return jnp.maximum(-jnp.expm1(-self._spread(phi)) * bounded_exp(eta), jnp.finfo(eta.dtype).tiny)

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return the slope of log_prob in log y, shape - 1 - shape y / mean, like eta."""
        return -jnp.exp(self._spread(phi)) * jnp.expm1(jnp.log(y) - eta) - 1

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return the shape, which is the expectation of the second derivative, shape y exp(-eta)."""
        return jnp.broadcast_to(jnp.exp(self._spread(phi)), eta.shape)

    def spread(self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array) -> Spread:
        """Return sums of deviances."""
        return spread_of(_gamma_deviance(jnp.log(y), eta), weights)

    def dispersion(self, phi: Params, sums: Spread, change: jax.Array, target: Target) -> Params:
        """Return the shapes that maximise the weighted likelihood within the floors, by Newton's method."""
        deviance = sums.deviance + 2 * jnp.exp(-self.log_shape(phi)) * change
        least = least_log_dispersion(deviance.dtype)
        sums = Spread(deviance, sums.size)
        return {"log_shape": -log_dispersions(sums, self.dispersion_floor, least, self.shared_shape, stirling)}

    def at_floor(self, phi: Params, target: Target) -> jax.Array:
        """Return whether some dispersion, 1 / shape, is at its floor, or at the floor of rounding."""
        log_dispersion = -phi["log_shape"]
        least = jnp.asarray(least_log_dispersion(log_dispersion.dtype), log_dispersion.dtype)
        if not self.shared_shape:
            least = jnp.maximum(least, lowest(log_dispersion, log_floor(self.dispersion_floor)))
        return touches(log_dispersion, least)

    def log_variances(self, phi: Params) -> jax.Array:
        """Return the logarithms of dispersions, (K,) or (K, m), or () or (m,) if shared."""
        return -self.log_shape(phi)

    def degrees_of_freedom(self, phi: Params) -> jax.Array:
        """Return one for each output: (K,), or () if shared."""
        return count_free(phi, self.shared_shape)

    def _spread(self, phi: Params) -> jax.Array:
        return beside_eta(self.log_shape(phi), self.shared_shape)

    def _check_support(self, y: Any) -> None:
        check_values(y, lambda v: v > 0, "numbers above 0")


def gamma(*, shared_shape: bool = False, dispersion_floor: float = DEFAULT_FLOOR) -> Gamma:
    """Construct the gamma family, for positive targets.

    Parameters
    ----------
    shared_shape : bool, default False
        Whether all experts have the same shape, rather than one each.
    dispersion_floor : float, default 2e-3
        Lower bound of every dispersion, 1 / shape, as a share of the largest; 0 for none.

    Returns
    -------
    Gamma
        The family.

    Raises
    ------
    ValueError
        If dispersion_floor is below 0, or not below 1.

    Notes
    -----
    The mean is exp(eta) and the variance mean^2 / shape. phi has `log_shape`, (K,) or (K, m), or one for all experts. Every
    1 / shape is also at least 10 eps. As with the variances of `gaussian`, the likelihood of a mixture has no maximum
    without a floor.
    """
    floor = checked_share("dispersion_floor", dispersion_floor, "dispersion")
    return Gamma(_checks.flag("shared_shape", shared_shape), floor)


def _gamma_deviance(log_y: jax.Array, eta: jax.Array) -> jax.Array:
    """2 (log(mean / y) + y / mean - 1), no less than 0."""
    log_ratio = log_y - eta
    return 2 * (extended(jnp.expm1, log_ratio) - log_ratio)
