"""Formulas that several penalties share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._arrays import Coefficients as Coefficients


def checked_part(part: str) -> str:
    """Return `part`, or raise ValueError if it is neither "experts" nor "gate"."""
    _checks.choice("part", part, ("experts", "gate"))
    return part


def zero() -> jax.Array:
    """Return a weakly typed 0, so that a sum keeps the precision of the coefficients."""
    return jnp.asarray(0.0)


def largest_absolute(arrays: Coefficients) -> jax.Array:
    """Return the largest absolute value in a list of arrays, or 0 for an empty list."""
    return jnp.stack([jnp.abs(a).max(initial=0) for a in arrays]).max() if arrays else zero()


def soft_threshold(c: jax.Array, t: Any) -> jax.Array:
    """Return sign(c) * max(|c| - t, 0), with zeros that have no sign."""
    # Users read the coefficients, so a zero is printed without a sign.
    return jnp.where(jnp.abs(c) > t, c - jnp.sign(c) * t, 0)


def square_root(squares: jax.Array) -> jax.Array:
    """Return square roots whose derivative at 0 is 0 instead of infinity."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def shrunk_norms(c: jax.Array, norms: jax.Array, t: Any) -> jax.Array:
    """Reduce the norm of each group of c by t, or to 0; `norms` holds the norms of the groups and broadcasts against c."""
    left = norms > t
    # `where` computes both branches; neither may contain a NaN.
    return c * jnp.where(left, 1 - jnp.where(left, t, 0) / jnp.where(left, norms, 1), 0)


def check_features(name: str, c: jax.Array) -> None:
    """Raise ValueError unless the coefficients have a second axis, that of the features."""
    if c.ndim < 2:
        raise ValueError(f"{name}: coefficients of shape {c.shape} were given; want (K, d) or (K, d, m), features second")


def beside_features(values: Any, c: jax.Array) -> Any:
    """Reshape values (K, d) or (1, d) to have one axis of size 1 for each further axis of c."""
    return values.reshape(*values.shape, *[1] * (c.ndim - 2))
