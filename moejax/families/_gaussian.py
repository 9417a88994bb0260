"""Normal targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.families._base import Params, Target, over_outputs, residuals
from moejax.families._dispersion import DEFAULT_FLOOR, Spread, checked_share, spread_of
from moejax.families._located import Located


@dataclass(frozen=True)
class Gaussian(Located):
    """Normal targets; made by `gaussian`.

    Attributes
    ----------
    shared_scale : bool, default False
        Whether all experts have the same scale.
    variance_floor : float, default 2e-3
        Lower bound of every variance, as a share of the largest; 0 for none.
    """

    is_quadratic = True  # -log_prob in eta
    has_expected_log_prob = True

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return log N(y; eta, scale^2), summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        log_scale = self._spread(phi)
        return over_outputs(-0.5 * ((y - eta) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi))

    def expected_log_prob(self, y: jax.Array, eta: jax.Array, variance: jax.Array, phi: Params) -> jax.Array:
        """Return the mean of `log_prob` over predictors of this variance around eta, (K, n).

        It is less than `log_prob` at eta by variance / (2 scale^2).
        """
        return self.log_prob(y, eta, phi) - over_outputs(0.5 * variance * jnp.exp(-2 * self._spread(phi)))

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(target <= y), like eta."""
        return jax.scipy.special.ndtr(residuals(y, eta) * jnp.exp(-self._spread(phi)))

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return a draw from every expert for every row, like eta."""
        return eta + jnp.exp(self._spread(phi)) * jax.random.normal(key, eta.shape, eta.dtype)

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return 1 / scale^2, exact: -log_prob is that quadratic."""
        return jnp.broadcast_to(jnp.exp(-2 * self._spread(phi)), eta.shape)

    def spread(
        self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array, *, variance: jax.Array | float = 0.0
    ) -> Spread:
        """Return sums of squared residuals, to which the variance of the predictors, like eta, is added."""
        return spread_of(jnp.square(y - eta) + variance, weights)

    def dispersion(self, phi: Params, sums: Spread, change: jax.Array, target: Target) -> Params:
        """Return the weighted root mean squares of the residuals, exactly the best scales within the floors."""
        return {"log_scale": self._scale_step(phi, sums, change, target)}


def gaussian(*, shared_scale: bool = False, variance_floor: float = DEFAULT_FLOOR) -> Gaussian:
    """Construct the family of normal targets.

    Parameters
    ----------
    shared_scale : bool, default False
        Whether all experts have the same scale, rather than one each.
    variance_floor : float, default 2e-3
        Lower bound of every variance, as a share of the largest; 0 for none.

    Returns
    -------
    Gaussian
        The family.

    Raises
    ------
    ValueError
        If variance_floor is below 0, or not below 1.

    Notes
    -----
    The density of expert k is

        log f(y; eta, scale) = -(y - eta)^2 / (2 scale^2) - log(scale) - log(2 pi) / 2,

    summed over outputs. phi has `log_scale`, (K,) or (K, m), or one for all experts. Without the floor the likelihood of a
    mixture has no maximum. Fits of the likelihood also keep variances above what rounding leaves of the target's variance,
    10 eps var(y).

    References
    ----------
    Hathaway (1985).
    """
    floor = checked_share("variance_floor", variance_floor, "variance")
    return Gaussian(_checks.flag("shared_scale", shared_scale), floor)
