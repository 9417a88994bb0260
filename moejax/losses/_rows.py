"""Sums over rows, and what losses ask of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def held_division(division: jax.Array | None) -> jax.Array:
    """The responsibilities that a loss holds. Raises ValueError where none were given."""
    if division is None:
        raise ValueError("start: nothing was given for a loss of responsibilities that are held; want them, (n, K)")
    return division


def mean_over_outputs(errors: jax.Array, ndim: int) -> jax.Array:
    """Errors as of one output, a plain mean over several."""
    return errors if errors.ndim == ndim else errors.mean(axis=-1)


def weighted_sum(weights: jax.Array, each: jax.Array) -> jax.Array:
    """Return a weighted sum over rows.

    It is not a matrix product, which would round otherwise in some lanes of a sweep.

    Parameters
    ----------
    weights : jax.Array, (n,)
        Weights of the rows.
    each : jax.Array, (n,)
        A number of each row.

    Returns
    -------
    jax.Array, ()
        The sum of weights * each.
    """
    return (weights * each).sum()


def of_units(weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """Return weights that count each group once.

    Parameters
    ----------
    weights : jax.Array, (n,)
        Weights of the rows.
    leader : jax.Array or None, (n,)
        The first row of each row's group; None where each row is on its own.

    Returns
    -------
    jax.Array, (n,)
        The weights, with 0 for all rows of a group but the first.
    """
    return weights if leader is None else weights * (leader == jnp.arange(weights.shape[0]))
