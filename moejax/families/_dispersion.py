"""Dispersions: their floors and their M-step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._ops import where
from moejax.families._base import Params, Target, like_eta

DEFAULT_FLOOR = 2e-3  # of variances: noise that differs twentyfold is ordinary, and more mostly tells of too few rows
_NO_FLOOR = 1e-30
NEWTON_STEPS = 6  # to float64's precision from a start within log 2, see `log_dispersions`


class Spread(NamedTuple):
    """Sums over rows of weight * deviance and of weights, (K,) or (K, m)."""

    deviance: jax.Array
    size: jax.Array


def spread_of(deviance: jax.Array, weights: jax.Array) -> Spread:
    """The sums over rows of deviances like eta, by weights (K, n)."""
    weights = like_eta(weights, deviance)
    return Spread((weights * deviance).sum(axis=1), jnp.broadcast_to(weights, deviance.shape).sum(axis=1))


def log_dispersions(
    sums: Spread,
    floor: float,
    least: jax.Array | float,
    shared: bool,
    remainder: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """The best log dispersions u within the floors, (K,) or (K, m) or, if shared, () or (m,).

    They maximise the sum over everything of

        weights * l,  l = -(u + deviance exp(-u)) / 2 - remainder(exp(-u)),

    subject to u >= max(u) + log(floor) and u >= least.

    Each expert's l is concave in u, so the best u are their own maximisers, clipped to [t, t - log(floor)], for the t at
    which a concave function has its maximum (Fritz, Garcia-Escudero and Mayo-Iscar 2013): its slope tells between which two
    of the 2 K edges t lies, and which experts are clipped there. What maximises l is close to log(mean deviance): it is that
    without a remainder, and at most log 2 below with Stirling's, which leaves little to Newton's method.
    """
    mean, total = _averages(sums, shared)
    floor = max(floor, _NO_FLOOR)
    tiny = jnp.finfo(mean.dtype).tiny
    mean = jnp.maximum(mean, jnp.maximum(jnp.finfo(mean.dtype).eps * jnp.exp(least), tiny))  # not log 0 for a perfect fit
    log_mean = jnp.log(mean)

    def slope(u: jax.Array) -> jax.Array:
        """Twice the derivative of each expert's l."""
        pull = jnp.exp(log_mean - u) - 1
        return pull if remainder is None else pull - 2 * jax.grad(lambda u: remainder(jnp.exp(-u)).sum())(u)

    def newton(start: jax.Array, of: Callable[[jax.Array], jax.Array]) -> jax.Array:
        u = start
        for _ in range(NEWTON_STEPS if remainder is not None else 0):
            slopes, bends = jax.jvp(of, (u,), (jnp.ones_like(u),))
            u = u - jnp.clip(slopes / where(bends < 0, bends, -1.0), -1, 1)
        return u

    free = newton(log_mean, slope)
    if shared:
        return jnp.maximum(free, least)
    span = -math.log(floor)
    if remainder is None:
        return _clipped(mean, free, total, floor, least)

    def pull(t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The slope in t, (...), and which experts are held at t and at t + span, (..., K)."""
        low, high = free < t[..., None, :], free > t[..., None, :] + span
        u = where(low, t[..., None, :], t[..., None, :] + span)
        return where(low | high, total * slope(u), 0.0).sum(axis=-2), low, high

    # Outputs last, of which there may be one.
    shape, rows = mean.shape, len(mean)
    mean, log_mean, free, total = (v.reshape(rows, -1) for v in (mean, log_mean, free, total))
    edges = jnp.concatenate([free, free - span])
    pulls, _, _ = pull(edges)
    below = where(pulls >= 0, edges, -jnp.inf).max(axis=0)
    above = where(pulls <= 0, edges, jnp.inf).min(axis=0)
    below, above = jnp.maximum(below, edges.min(axis=0)), jnp.minimum(above, edges.max(axis=0))
    middle = 0.5 * (below + above)
    _, low, high = pull(middle)
    size = where(low | high, total, 0.0).sum(axis=0)
    start = jnp.log((total * mean * (low + floor * high)).sum(axis=0) / where(size > 0, size, 1.0))

    def held(t: jax.Array) -> jax.Array:
        return where(low | high, total * slope(where(low, t, t + span)), 0.0).sum(axis=0)

    t = newton(start, held)
    t = where(size > 0, jnp.clip(t, jnp.minimum(below, above), jnp.maximum(below, above)), middle)
    t = jnp.maximum(t, least)
    return jnp.clip(free, t, t + span).reshape(shape)


def _clipped(mean: jax.Array, free: jax.Array, total: jax.Array, floor: float, least: jax.Array | float) -> jax.Array:
    """The best u of l without a remainder, where t has a closed form once it is known which experts are clipped.

    Between two edges that is the same for all t, and the slope of the concave function falls through 0 between the largest
    edge at which it is not negative and the next. It is continuous, so the closed form of the former holds.
    """
    span = -math.log(floor)
    edges = jnp.concatenate([free, free - span])[:, None]
    low, high = free <= edges, free - span > edges  # (2 K, K, ...), at edges, which come first
    size = where(low | high, total, 0.0).sum(axis=1)
    share = where(low, 1.0, where(high, floor, 0.0)).astype(mean.dtype)
    best = jnp.log((total * mean * share).sum(axis=1) / where(size > 0, size, 1.0))
    best = where(size > 0, best, edges[:, 0])  # where none is clipped, no t is better than another
    last = where(best >= edges[:, 0], edges[:, 0], -jnp.inf).max(axis=0)
    t = jnp.maximum(where(edges[:, 0] == last, best, -jnp.inf).max(axis=0), least)
    return jnp.clip(free, t, t + span)


def _averages(sums: Spread, shared: bool) -> tuple[jax.Array, jax.Array]:
    """Weighted means over rows and the sums of weights, (K, ...); over experts too if shared, (...).

    Experts without weight get the mean over all.
    """
    deviance, total = sums
    tiny = jnp.finfo(total.dtype).tiny
    pooled, everything = deviance.sum(axis=0) / jnp.maximum(total.sum(axis=0), tiny), total.sum(axis=0)
    if shared:
        return pooled, everything
    return where(total > tiny, deviance / jnp.maximum(total, tiny), pooled), where(total > tiny, total, 0.0)


def log_floor(floor: float) -> float:
    """The logarithm of a floor as a share of the largest dispersion; of none, that of next to nothing."""
    return math.log(max(floor, _NO_FLOOR))


def lowest(values: jax.Array, log_share: float) -> jax.Array:
    """The lowest log dispersion that the floor allows, of each output."""
    # The largest dispersion is a bound for the others, not something that they should pull on.
    return jax.lax.stop_gradient(values.max(axis=0)) + log_share


def raised_to_floor(values: jax.Array, log_share: float, shared: bool) -> jax.Array:
    """Log dispersions within the floor; shared ones have none."""
    return values if shared else jnp.maximum(values, lowest(values, log_share))


def touches(values: jax.Array, bound: Any) -> jax.Array:
    """Whether some value is at its bound or below, to rounding."""
    slack = 100 * jnp.finfo(values.dtype).eps * (1 + jnp.abs(bound))
    below: jax.Array = (values <= bound + slack).any()
    return below


def least_log_variance(target: Target) -> jax.Array:
    """The logarithm of what rounding leaves of the target's variance: 10 eps var(y), of each output."""
    precision = jnp.finfo(target.variance.dtype)
    return jnp.log(jnp.maximum(10 * precision.eps * target.variance, precision.tiny))


def log_weighted_mean(target: Target) -> jax.Array:
    """The logarithm of the mean of the target, of each output."""
    return jnp.log(jnp.maximum(target.mean, jnp.finfo(target.mean.dtype).tiny))


def least_log_dispersion(dtype: Any) -> float:
    """The lowest log dispersion that this type tells from 0."""
    return math.log(10 * float(jnp.finfo(dtype).eps))


def count_free(phi: Params, shared: bool) -> jax.Array:
    """Numbers in phi: of each expert (K,), or all if shared ()."""
    leaves = list(phi.values())
    if shared:
        return jnp.asarray(sum(leaf.size for leaf in leaves))
    return jnp.full(leaves[0].shape[0], sum(leaf[0].size for leaf in leaves))


def checked_share(name: str, value: Any, of: str) -> float:
    """A floor as a float; raise ValueError unless it is a share, at least 0 and below 1. of: what it is a share of."""
    share = _checks.number_from_0(name, value)
    if share >= 1:
        raise ValueError(f"{name}: {value} was given; want a share of the largest {of}, below 1")
    return share
