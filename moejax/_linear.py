"""Linear predictors, as experts and gates compute them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from moejax import _check


def with_intercept(x: jax.Array) -> jax.Array:
    """(n, d) to (n, d + 1), the last column ones: one product then serves weights and intercept."""
    _check.shape("x", x, (None, None), "rows by features")
    return jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)


def predictors(weights: jax.Array, intercept: jax.Array, x: jax.Array) -> jax.Array:
    """Linear predictors (K, n) of weights (K, d), intercepts (K,) and x as `with_intercept` returns it.

    The rows stay in the order they came in, and the compiler folds the transpose into the product: with samples last
    instead, the backward product takes half as long again.
    """
    return jnp.concatenate([weights, intercept[:, None]], axis=1) @ x.T
