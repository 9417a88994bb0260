"""Formulas that penalties share."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Coefficients = list[jax.Array]


def checked_part(part: str) -> str:
    if part not in ("experts", "gate"):
        raise ValueError(f'part: {part!r} was given; want "experts" or "gate"')
    return part


def zero() -> jax.Array:
    return jnp.asarray(0.0)  # of no precision of its own, so that sums keep that of the coefficients


def largest_absolute(arrays: Coefficients) -> jax.Array:
    """The largest absolute value, 0 of nothing."""
    return jnp.stack([jnp.abs(a).max(initial=0) for a in arrays]).max() if arrays else zero()


def soft_threshold(c: jax.Array, t: Any) -> jax.Array:
    # A zero without a sign, which people read.
    return jnp.where(jnp.abs(c) > t, c - jnp.sign(c) * t, 0)


def square_root(squares: jax.Array) -> jax.Array:
    """Square roots, of derivative 0 at 0 in the place of infinity."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def shrunk_norms(c: jax.Array, norms: jax.Array, t: Any) -> jax.Array:
    """c with its groups' norms, which broadcast against c, lowered by t or to 0."""
    left = norms > t
    # Both sides are computed whatever `left` is, and neither may be a NaN.
    return c * jnp.where(left, 1 - jnp.where(left, t, 0) / jnp.where(left, norms, 1), 0)


def check_features(name: str, c: jax.Array) -> None:
    if c.ndim < 2:
        raise ValueError(f"{name}: coefficients of shape {c.shape} were given; want (K, d) or (K, d, m), features second")


def beside_features(values: Any, c: jax.Array) -> Any:
    """Values (K, d) or (1, d) with an axis of size 1 for each further axis of c."""
    return values.reshape(*values.shape, *[1] * (c.ndim - 2))
