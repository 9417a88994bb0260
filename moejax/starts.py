"""Starts of EM: responsibilities (K, n) drawn from a key, before any model has been fitted.

All take key, x (n, d), weights (n,) (rows of weight 0 take no part in it) and active (K,), which experts there are.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _check
from moejax._linear import conjugate_gradients

_SOFTNESS = 0.1  # of responsibilities by cluster: shared by all experts, so that no gate begins separated
_LLOYD_STEPS = 10


def kmeans(key: jax.Array, x: jax.Array, weights: jax.Array, active: jax.Array) -> jax.Array:
    """Clusters of x by k-means (Lloyd 1982), seeded by k-means++ (Arthur and Vassilvitskii 2007), columns standardised."""
    x = _standardized(x, weights)
    centres = _seeds(key, x, weights, active)

    def step(_: Any, centres: jax.Array) -> jax.Array:
        member = jax.nn.one_hot(_distances(x, centres, active).argmin(axis=0), len(active), dtype=x.dtype, axis=0) * weights
        size = member.sum(axis=1, keepdims=True)
        return jnp.where(size > 0, member @ x / jnp.where(size > 0, size, 1), centres)

    return _softened(_distances(x, jax.lax.fori_loop(0, _LLOYD_STEPS, step, centres), active), active)


def centres(key: jax.Array, x: jax.Array, weights: jax.Array, active: jax.Array) -> jax.Array:
    """Each row to the nearest of K rows drawn at random, columns standardised."""
    x = _standardized(x, weights)
    draws = jax.random.gumbel(key, weights.shape, x.dtype) + jnp.log(weights)
    return _softened(_distances(x, x[jax.lax.top_k(draws, len(active))[1]], active), active)


def random(key: jax.Array, x: Any, weights: jax.Array, active: jax.Array) -> jax.Array:
    """Each row to an expert at random."""
    return _softened(-jax.random.gumbel(key, (len(active), len(weights)), weights.dtype), active)


def residuals(key: jax.Array, x: Any, y: jax.Array, weights: jax.Array, active: jax.Array) -> jax.Array:
    """Clusters, by k-means, of what one linear regression of y on x leaves unexplained (of y itself without a table x)."""
    rest = y.reshape(len(weights), -1)
    if _is_table(x):
        rows = jnp.concatenate([_standardized(x, weights), jnp.ones((len(weights), 1), x.dtype)], axis=1)
        gram = (rows.T * weights) @ rows
        right = ((rows.T * weights) @ rest).T
        every = jnp.ones(right.shape, bool)
        grams = jnp.broadcast_to(gram, (len(right), *gram.shape))
        rest = rest - rows @ conjugate_gradients(grams, jnp.zeros_like(right), every, right).T
    return kmeans(key, rest, weights, active)


MIXED = ("kmeans", "residuals", "centres", "random")  # in the order of restarts


def draw(
    init: str, number: jax.Array, key: jax.Array, x: Any, y: jax.Array, weights: jax.Array, active: jax.Array
) -> jax.Array:
    """Responsibilities (K, n) of the kind `init`; of a mixed one, of the kind whose turn it is at that number of a start."""
    kinds = {
        "kmeans": lambda: kmeans(key, x, weights, active),
        "residuals": lambda: residuals(key, x, y, weights, active),
        "centres": lambda: centres(key, x, weights, active),
        "random": lambda: random(key, x, weights, active),
    }
    if init != "mixed":
        return kinds[init]()
    turns = [kinds[name] for name in (MIXED if _is_table(x) else ("residuals", "random"))]
    return jax.lax.switch(number % len(turns), turns)


def check_name(init: Any) -> None:
    """Raise ValueError unless init names a kind of start."""
    if init not in (*MIXED, "mixed"):
        raise ValueError(f"init: {init!r} was given; want one of {[*MIXED, 'mixed']}")


def check_init(init: str, x: Any) -> None:
    """Raise ValueError for clusters of inputs that are no table."""
    if init in ("kmeans", "centres") and not _is_table(x):
        raise ValueError(f"init: {init!r} was given for inputs that are no array (n, d); want 'residuals' or 'random'")


def check_responsibilities(name: str, given: Any, n: int, n_experts: int) -> None:
    """Raise ValueError unless given is (n, K), none below 0, of sum 1 over experts (to 1e-4)."""
    _check.shape(name, given, (n, n_experts), "responsibilities, rows by experts")
    _check.not_negative(name, given)
    if not _check.is_traced(given):
        sums = np.asarray(given, float).sum(axis=1)
        wrong = np.abs(sums - 1) > 1e-4
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"{name}: responsibilities of row {row} sum to {sums[row]:.6g}; want 1")


def check_distinct(x: Any, y: Any, n_experts: int) -> None:
    """Raise ValueError for more experts than distinct rows of x and y."""
    leaves = [leaf for leaf in (*jax.tree.leaves(x), y)]
    if any(_check.is_traced(leaf) for leaf in leaves):
        return
    for most in (1000, None):  # the first rows nearly always suffice
        rows = np.concatenate([np.asarray(v)[:most].reshape(len(np.asarray(v)[:most]), -1) for v in leaves], axis=1)
        distinct = len(np.unique(rows, axis=0))
        if distinct >= n_experts:
            return
    raise ValueError(f"n_experts: {n_experts} experts were given for {distinct} distinct rows; want at most one for each")


def _is_table(x: Any) -> bool:
    return np.ndim(x) == 2 if hasattr(x, "ndim") else False


def _standardized(x: jax.Array, weights: jax.Array) -> jax.Array:
    total = weights.sum()
    mean = weights @ x / total
    sd = jnp.sqrt(weights @ jnp.square(x - mean) / total)
    return (x - mean) / jnp.where(sd > 0, sd, 1)


def _distances(x: jax.Array, centres: jax.Array, active: jax.Array) -> jax.Array:
    """Squared distances, but for what all centres have in common, (K, n); infinite to those of absent experts."""
    distances = jnp.square(centres).sum(axis=1)[:, None] - 2 * centres @ x.T
    return jnp.where(active[:, None], distances, jnp.inf)


def _seeds(key: jax.Array, x: jax.Array, weights: jax.Array, active: jax.Array) -> jax.Array:
    """Rows drawn one after another, in proportion to their squared distance from those before."""
    norms = jnp.square(x).sum(axis=1)
    nearest = jnp.ones_like(weights)
    chosen = []
    for k in jax.random.split(key, len(active)):
        log_odds = jnp.where(weights * nearest > 0, jnp.log(weights * nearest), -jnp.inf)
        # Where all rows are taken, any of positive weight.
        log_odds = jnp.where(jnp.isfinite(log_odds).any(), log_odds, jnp.log(weights))
        row = x[jax.random.categorical(k, log_odds)]
        distance = jnp.maximum(norms - 2 * x @ row + row @ row, 0)
        nearest = jnp.minimum(nearest, distance) if chosen else distance
        chosen.append(row)
    return jnp.stack(chosen)


def _softened(distances: jax.Array, active: jax.Array) -> jax.Array:
    member = jax.nn.one_hot(distances.argmin(axis=0), len(active), dtype=distances.dtype, axis=0)
    return jnp.where(active[:, None], (1 - _SOFTNESS) * member + _SOFTNESS / active.sum(), 0).astype(distances.dtype)
