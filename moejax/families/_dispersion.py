"""Dispersions: their floors and their M-step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.families._base import Params, like_eta

NEWTON_STEPS = 6  # to float64's precision from a start within log 2, see `log_dispersions`


def log_dispersions(
    deviance: jax.Array,
    weights: jax.Array,
    floor: float,
    least: jax.Array | float,
    shared: bool,
    remainder: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Log dispersions u, (K,) or (K, m) or, if shared, () or (m,), that maximise the sum over everything of

        weights * l,  l = -(u + deviance exp(-u)) / 2 - remainder(exp(-u)),

    subject to u >= max(u) + log(floor) and u >= least. deviance: (K, n) or (K, n, m); weights: (K, n).

    Each expert's l is concave in u, so the best u are their own maximisers, clipped to [t, t - log(floor)], for the t at
    which a concave function has its maximum (Fritz, Garcia-Escudero and Mayo-Iscar 2013): its slope tells between which two
    of the 2 K edges t lies, and which experts are clipped there. What maximises l is close to log(mean deviance): it is that
    without a remainder, and at most log 2 below with Stirling's, which leaves little to Newton's method.
    """
    mean, total = _averages(deviance, weights, shared)
    tiny = jnp.finfo(mean.dtype).tiny
    mean = jnp.maximum(mean, jnp.maximum(jnp.finfo(mean.dtype).eps * jnp.exp(least), tiny))  # not log 0 for a perfect fit
    log_mean = jnp.log(mean)

    def value(u: jax.Array) -> jax.Array:
        value = -0.5 * (u + jnp.exp(log_mean - u))
        return (value if remainder is None else value - remainder(jnp.exp(-u))).sum()

    slope = jax.grad(value)

    def newton(start: jax.Array, of: Callable[[jax.Array], jax.Array]) -> jax.Array:
        u = start
        for _ in range(NEWTON_STEPS if remainder is not None else 0):
            slopes, bends = jax.jvp(of, (u,), (jnp.ones_like(u),))
            u = u - jnp.clip(slopes / jnp.where(bends < 0, bends, -1), -1, 1)
        return u

    free = newton(log_mean, slope)
    if shared:
        return jnp.maximum(free, least)

    span = -math.log(floor)
    edges = jnp.concatenate([free, free - span])

    def pull(t: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        """The slope in t if the experts `low` are held at t and the experts `high` at t + span."""
        u = jnp.where(low, t, jnp.where(high, t + span, free))
        return jnp.where((low | high) & (total > 0), total * slope(u), 0).sum(axis=0)

    def held(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return free < t, free > t + span

    pulls = jax.vmap(lambda t: pull(t, *held(t)))(edges)
    below = jnp.where(pulls >= 0, edges, -jnp.inf).max(axis=0)
    above = jnp.where(pulls <= 0, edges, jnp.inf).min(axis=0)
    below, above = jnp.maximum(below, edges.min(axis=0)), jnp.minimum(above, edges.max(axis=0))
    middle = 0.5 * (below + above)
    low, high = held(middle)
    size = jnp.where(low | high, total, 0).sum(axis=0)
    start = jnp.log((total * mean * (low + floor * high)).sum(axis=0) / jnp.where(size > 0, size, 1))
    t = newton(start, lambda t: pull(t, low, high))
    t = jnp.where(size > 0, jnp.clip(t, jnp.minimum(below, above), jnp.maximum(below, above)), middle)
    t = jnp.maximum(t, least)
    return jnp.clip(free, t, t + span)


def _averages(each: jax.Array, weights: jax.Array, shared: bool) -> tuple[jax.Array, jax.Array]:
    """Weighted means over rows and the sums of weights, (K, ...); over experts too if shared, (...).

    Experts without weight get the mean over all.
    """
    sums = (like_eta(weights, each) * each).sum(axis=1)
    total = like_eta(weights, each).sum(axis=1)
    tiny = jnp.finfo(sums.dtype).tiny
    pooled, everything = sums.sum(axis=0) / jnp.maximum(total.sum(axis=0), tiny), total.sum(axis=0)
    if shared:
        return pooled, everything
    return jnp.where(total > tiny, sums / jnp.maximum(total, tiny), pooled), jnp.where(total > tiny, total, 0)


def lowest(values: jax.Array, log_share: float) -> jax.Array:
    # The largest dispersion is a bound for the others, not something that they should pull on.
    return jax.lax.stop_gradient(values.max(axis=0)) + log_share


def raised_to_floor(values: jax.Array, log_share: float, shared: bool) -> jax.Array:
    return values if shared else jnp.maximum(values, lowest(values, log_share))


def touches(values: jax.Array, bound: Any) -> jax.Array:
    """Whether some value is at its bound or below, to rounding."""
    slack = 100 * jnp.finfo(values.dtype).eps * (1 + jnp.abs(bound))
    return (values <= bound + slack).any()


def least_log_variance(y: jax.Array, dtype: Any, weights: Any = None) -> jax.Array:
    """The logarithm of what rounding leaves of the target's variance: 10 eps var(y), of each output. weights: (n,)."""
    y = jnp.asarray(y, dtype)
    weights = jnp.ones(y.shape[0], dtype) if weights is None else jnp.asarray(weights, dtype)
    share = (weights / weights.sum()).reshape(-1, *(1,) * (y.ndim - 1))
    variance = (share * jnp.square(y - (share * y).sum(axis=0))).sum(axis=0)
    return jnp.log(jnp.maximum(10 * jnp.finfo(dtype).eps * variance, jnp.finfo(dtype).tiny))


def log_weighted_mean(y: jax.Array, weights: jax.Array) -> jax.Array:
    mean = jnp.tensordot(weights / weights.sum(), y, 1)
    return jnp.log(jnp.maximum(mean, jnp.finfo(y.dtype).tiny))


def least_log_dispersion(dtype: Any) -> float:
    return math.log(10 * float(jnp.finfo(dtype).eps))


def count_free(phi: Params, shared: bool) -> jax.Array:
    """Numbers in phi: of each expert (K,), or all if shared ()."""
    leaves = list(phi.values())
    if shared:
        return jnp.asarray(sum(leaf.size for leaf in leaves))
    return jnp.full(leaves[0].shape[0], sum(leaf[0].size for leaf in leaves))


def check_share(name: str, value: Any, of: str) -> None:
    _checks.positive(name, value)
    if value >= 1:
        raise ValueError(f"{name}: {value} was given; want a share of the largest {of}, below 1")
