"""Counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.families._base import Params, Target, Undispersed, check_values, over_outputs
from moejax.families._numerics import bounded_exp, exp_limit, extended, stirling


@dataclass(frozen=True)
class Poisson(Undispersed):
    """Counts; made by `poisson`."""

    support = "counts"
    is_discrete = True
    has_sample = True
    has_cdf = True
    has_modes = True

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return y eta - exp(eta) - log y!, summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        self._check_support(y)
        # Around the rate y, lest terms that are far larger than their sum cancel; where y is 0, -exp(eta).
        counted = jnp.asarray(y, eta.dtype)
        some = jnp.maximum(counted, 1)
        off = eta - jnp.log(some)
        apart = extended(jnp.expm1, off)
        constant = -0.5 * jnp.log(2 * math.pi * some) - stirling(some)
        return over_outputs(jnp.where(counted > 0, constant - counted * (apart - off), -(apart + 1)))

    def mean(self, eta: jax.Array) -> jax.Array:
        """Return exp(eta), or the largest float."""
        return bounded_exp(eta)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(count <= y), like eta, by the incomplete gamma function."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        rate = bounded_exp(eta)
        # So far above the rate nothing is left, and the series of the function need not go on.
        count = jnp.minimum(jnp.floor(y), 2 * rate + 1000)
        return jnp.where(y < 0, 0, jax.scipy.special.gammaincc(jnp.maximum(count, 0) + 1, rate))

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return a count from every expert for every row, like eta; rates above 2^30 are drawn as 2^30."""
        return jax.random.poisson(key, jnp.minimum(bounded_exp(eta), 2.0**30)).astype(eta.dtype)

    def start(self, target: Target) -> jax.Array:
        """Return the logarithm of the mean target, of each output.

        Where all counts are 0, that of a rate of which rounding leaves nothing: the best one has no logarithm.
        """
        return jnp.log(jnp.maximum(target.mean, jnp.finfo(target.mean.dtype).eps))

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """Return the largest count below the rate, or 0, like eta; a whole rate is as probable."""
        return jnp.maximum(jnp.ceil(bounded_exp(eta)) - 1, 0)

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(y + 1) / P(y) - 1, like eta."""
        return bounded_exp(eta) / (y + 1) - 1

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return exp(eta), exact; more where it is far below y, by which no step in one predictor is above 4.

        From far below a count the quadratic of exp(eta) leads so far beyond that halving a step takes no end.
        """
        rate = jnp.exp(jnp.minimum(eta, exp_limit(eta.dtype)))
        return jnp.maximum(rate, (y - rate) / _LONGEST)

    def _check_support(self, y: Any) -> None:
        check_values(y, lambda v: (v >= 0) & (v == np.floor(v)), "counts: whole numbers, none below 0")


_LONGEST = 4


def poisson() -> Poisson:
    """Construct the Poisson family, for counts.

    Returns
    -------
    Poisson
        The family.

    Notes
    -----
    Targets are whole numbers, none below 0, with

        log f(y; eta) = y eta - exp(eta) - log y!.

    The rate is exp(eta). The logarithm of an exposure goes into the offset.
    """
    return Poisson()
