"""Normal targets whose scale is predicted too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.families._base import Params, Target, Undispersed, residuals
from moejax.families._numerics import exp_limit, half_square


@dataclass(frozen=True)
class LocationScale(Undispersed):
    """Normal targets, location and scale predicted; made by `location_scale`.

    Attributes
    ----------
    scale_floor : float, default 0.01
        Lower bound of every scale, in the units of y.
    """

    scale_floor: float = 0.01
    support = "real"
    has_sample = True
    has_cdf = True
    has_modes = True

    def init(self, n_experts: int, eta: Any) -> Params:
        """Return no dispersion parameters; raise ValueError unless eta is (K, n, 2)."""
        self._check_eta(eta)
        return {}

    def log_scale(self, eta: jax.Array) -> jax.Array:
        """Return log scales as they enter the density.

        Parameters
        ----------
        eta : jax.Array, (K, n, 2)
            Location and log scale.

        Returns
        -------
        jax.Array, (K, n)
            log(exp(2 eta[..., 1]) + scale_floor^2) / 2.
        """
        return 0.5 * jnp.logaddexp(2 * math.log(self.scale_floor), 2 * eta[..., 1])

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return log N(y; eta[..., 0], scale^2), (K, n)."""
        self._check_eta(eta)
        _checks.shape("y", y, eta.shape[1:2], "a number for each row")
        log_scale = self.log_scale(eta)
        return -half_square((y - eta[..., 0]) * jnp.exp(-log_scale)) - log_scale - 0.5 * math.log(2 * math.pi)

    def mean(self, eta: jax.Array) -> jax.Array:
        """Return the location, (K, n)."""
        return eta[..., 0]

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return a draw from every expert for every row, (K, n); scales above 7e12 (1e102 in float64) are drawn as that."""
        scale = jnp.exp(jnp.minimum(self.log_scale(eta), exp_limit(eta.dtype)))
        return eta[..., 0] + scale * jax.random.normal(key, eta.shape[:2], eta.dtype)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(target <= y), (K, n)."""
        return jax.scipy.special.ndtr(residuals(y, eta[..., 0]) * jnp.exp(-self.log_scale(eta)))

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """Return the location, (K, n)."""
        return eta[..., 0]

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return (location - y) / scale^2, (K, n)."""
        return (eta[..., 0] - y) * jnp.exp(-2 * self.log_scale(eta))

    def start(self, target: Target) -> jax.Array:
        """Return the mean of the target and the logarithm of its standard deviation, (2,)."""
        tiny = jnp.finfo(target.variance.dtype).tiny
        return jnp.stack([target.mean, 0.5 * jnp.log(jnp.maximum(target.variance, tiny))])

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return 1 / scale^2 and 2 t, (K, n, 2), t being the share of the variance that is not the floor's.

        The Fisher information is diagonal, 1 / scale^2 and 2 t^2. The second would vanish faster than the slope does where
        the floor holds, and steps would grow without bound.
        """
        share = jax.nn.sigmoid(2 * (eta[..., 1] - math.log(self.scale_floor)))
        return jnp.stack([jnp.exp(-2 * self.log_scale(eta)), 2 * share], axis=-1)

    def _check_eta(self, eta: Any) -> None:
        if eta.shape[2:] != (2,):
            given = f"{eta.shape[2]} outputs" if eta.ndim == 3 else "one output"
            raise ValueError(f"expert: {given} for a location and a log scale; want two, as in experts.linear(2)")


def location_scale(*, scale_floor: float = 0.01) -> LocationScale:
    """Construct the family of normal targets of which experts predict location and scale.

    Parameters
    ----------
    scale_floor : float, default 0.01
        Lower bound of every scale, an absolute number in the units of y. The default suits targets that are standardised.

    Returns
    -------
    LocationScale
        The family.

    Raises
    ------
    ValueError
        If scale_floor is not above 0.

    Notes
    -----
    Targets are (n,). eta, (K, n, 2), holds the location and the log scale, as `experts.linear(2)` predicts them:

        y ~ N(eta[..., 0], exp(2 eta[..., 1]) + scale_floor^2).

    An offset is (n, 2), of location and log scale. Without the floor the likelihood has no maximum: an expert whose location
    meets one target would gain without end from a scale that goes to 0. The floor is absolute because predicted scales have
    no largest one with which others could be compared. Such models are mixture density networks.

    References
    ----------
    Bishop (1994).
    """
    return LocationScale(_checks.number_above_0("scale_floor", scale_floor))
