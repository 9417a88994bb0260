"""What location families, normal and Student t, share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax.families._base import Family, Params, Target, beside_eta
from moejax.families._dispersion import (
    DEFAULT_FLOOR,
    Spread,
    count_free,
    least_log_variance,
    log_dispersions,
    log_floor,
    lowest,
    raised_to_floor,
    touches,
)


@dataclass(frozen=True)
class Located(Family):
    """Scales around eta, for each expert or for all, none far below the largest.

    Attributes
    ----------
    shared_scale : bool, default False
        Whether all experts have the same scale.
    variance_floor : float, default 2e-3
        Lower bound of every variance, as a share of the largest; 0 for none.
    """

    shared_scale: bool = False
    variance_floor: float = DEFAULT_FLOOR
    support = "real"
    is_location = True
    has_sample = True
    has_dispersion = True
    has_cdf = True
    has_modes = True

    @property
    def shared(self) -> bool:
        """Whether all experts have the same dispersion."""
        return self.shared_scale

    def init(self, n_experts: int, eta: Any) -> Params:
        """Return logarithms of scales of 1: one for each expert (and output), or one for all."""
        tail = eta.shape[2:]
        return {"log_scale": jnp.zeros(tail if self.shared_scale else (n_experts, *tail), eta.dtype)}

    def log_scale(self, phi: Params) -> jax.Array:
        """Return log scales with the floor applied, as they enter the density.

        Parameters
        ----------
        phi : dict
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K,) or (K, m), or () or (m,) if shared
            Logarithms of scales, in the units of y.
        """
        return raised_to_floor(phi["log_scale"], 0.5 * log_floor(self.variance_floor), self.shared_scale)

    def null(self, phi: Params, target: Target) -> Params:
        """Return scales that are the target's standard deviation."""
        log_scale = 0.5 * jnp.log(jnp.maximum(target.variance, jnp.finfo(target.variance.dtype).tiny))
        return {**phi, "log_scale": jnp.broadcast_to(log_scale, phi["log_scale"].shape).astype(phi["log_scale"].dtype)}

    def summary(self, phi: Params) -> Params:
        """Return the scales, (K,) or () if shared."""
        return {"scale": jnp.exp(self.log_scale(phi))}

    def mean(self, eta: jax.Array) -> jax.Array:
        """Return eta."""
        return eta

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """Return eta."""
        return eta

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return the slope of log_prob in y, like eta: (eta - y) times the curvature."""
        return (eta - y) * self.curvature(y, eta, phi)

    def bounded(self, phi: Params, target: Target) -> Params:
        """Return phi with no scale below what rounding leaves of the target's, a bound that the density does not see."""
        return {**phi, "log_scale": jnp.maximum(phi["log_scale"], 0.5 * least_log_variance(target))}

    def at_floor(self, phi: Params, target: Target) -> jax.Array:
        """Return whether some scale is at its floor, or at what rounding leaves of the target's variance."""
        least = 0.5 * least_log_variance(target)
        if not self.shared_scale:
            least = jnp.maximum(least, lowest(phi["log_scale"], 0.5 * log_floor(self.variance_floor)))
        return touches(phi["log_scale"], least)

    def log_variances(self, phi: Params) -> jax.Array:
        """Return the logarithms of squared scales, (K,) or (K, m), or () or (m,) if shared."""
        return 2 * self.log_scale(phi)

    def degrees_of_freedom(self, phi: Params) -> jax.Array:
        """Return one for each leaf and output: (K,), or () if shared."""
        return count_free(phi, self.shared_scale)

    def _spread(self, phi: Params) -> jax.Array:
        return beside_eta(self.log_scale(phi), self.shared_scale)

    def _scale_step(self, phi: Params, sums: Spread, change: jax.Array, target: Target) -> jax.Array:
        """Log scales that maximise sum(weights * (-log scale - squares / (2 scale^2))) within the floors."""
        log_scale = self.log_scale(phi)
        squares = sums.deviance + 2 * jnp.exp(2 * log_scale) * change
        least = least_log_variance(target)
        return 0.5 * log_dispersions(Spread(squares, sums.size), self.variance_floor, least, self.shared_scale)
