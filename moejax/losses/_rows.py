"""Sums over rows, and what losses ask of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def held_division(division: jax.Array | None) -> jax.Array:
    if division is None:
        raise ValueError("start: nothing was given for a loss of responsibilities that are held; want them, (n, K)")
    return division


def mean_over_outputs(errors: jax.Array, ndim: int) -> jax.Array:
    """Errors as of one output, a plain mean over several."""
    return errors if errors.ndim == ndim else errors.mean(axis=-1)


def weighted_sum(weights: jax.Array, each: jax.Array) -> jax.Array:
    """The sum over rows of weights (n,) times what each row has (n,).

    Not as a product, which of a sweep's members together would round otherwise in some of its lanes.
    """
    return (weights * each).sum()


def of_units(weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """Weights (n,) of what has one expert of its own: each row, or each group, whose first row stands for it."""
    return weights if leader is None else weights * (leader == jnp.arange(weights.shape[0]))
