"""Functions that stay finite, with finite slopes, where the plain ones overflow or cancel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def stirling(a: jax.Array) -> jax.Array:
    """What Stirling's formula leaves out, log Gamma(a) - ((a - 1/2) log a - a + log(2 pi) / 2), without cancellation.

    By its asymptotic series from a + 8 on, and the recurrence of Gamma; cheaper to compile, with its slopes, than lgamma.
    """
    below = a[..., None] + jnp.arange(8, dtype=a.dtype)
    steps = ((below + 0.5) * jnp.log1p(1 / below) - 1).sum(axis=-1)
    inverse = 1 / (a + 8)
    value = jnp.zeros_like(a)
    for coefficient in (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        value = value * jnp.square(inverse) + coefficient
    return steps + value * inverse


def exp_limit(dtype: Any) -> float:
    """The exponent beyond which `extended` follows the tangent: a third of the largest that this type has."""
    return math.log(float(jnp.finfo(dtype).max)) / 3


def extended(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function`, jnp.exp or jnp.expm1, continued along its tangent from exp(x) = 7e12 in float32 (1e102 in float64).

    So that densities, which are 0 to any precision out there, have finite logarithms with slopes that point back.
    """
    limit = exp_limit(x.dtype)
    return function(jnp.minimum(x, limit)) + math.exp(limit) * jnp.maximum(x - limit, 0)


def half_square(z: jax.Array) -> jax.Array:
    """z^2 / 2, continued along its tangent from where the square would soon overflow."""
    limit = math.exp(exp_limit(z.dtype))
    near = jnp.clip(z, -limit, limit)  # both sides are computed, and neither may overflow
    return jnp.where(jnp.abs(z) < limit, 0.5 * jnp.square(near), limit * (jnp.abs(z) - 0.5 * limit))


def bounded_exp(x: jax.Array) -> jax.Array:
    """exp(x), or the largest float."""
    return jnp.exp(jnp.minimum(x, math.log(float(jnp.finfo(x.dtype).max)) * (1 - 1e-6)))
