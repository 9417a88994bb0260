"""Starts of EM: responsibilities (K, n) drawn from a key, before any model has been fitted.

Each kind is a clustering by k-means, of the inputs, of what a regression leaves, or of noise; so one program serves all.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._linear import dot, solved
from moejax.model import is_table

MIXED = ("kmeans", "residuals", "centres", "random")  # in the order of restarts
EQUAL = "equal"
_SOFTNESS = 0.1  # of responsibilities by cluster: shared by all experts, so that no gate begins separated
_OTHERS = 0.2  # how much the columns that a kind does not cluster count in later rounds
_LLOYD_STEPS = {"kmeans": 10, "residuals": 10, "centres": 0, "random": 0, EQUAL: 0}


def draw(
    init: str,
    number: jax.Array,
    key: jax.Array,
    x: Any,
    y: jax.Array,
    offset: Any,
    weights: jax.Array,
    active: jax.Array,
    alike: bool = True,
) -> jax.Array:
    """Responsibilities (K, n) of the kind `init`, or for "mixed" of the kind whose turn it is at that number of a start.

    kmeans: clusters of x. residuals: clusters of what one linear regression of y on x leaves unexplained. centres: each row
    to the nearest of K rows. random: clusters of noise. equal: the same for all experts. x: (n, d), or inputs that are no
    table, which have no clusters. weights: (n,); rows of weight 0 take no part. active: (K,), which experts there are.
    alike: whether nothing but a start tells experts apart; where they differ by themselves, equal is the first of "mixed".
    """
    table = standardized(x, weights) if is_table(x) else jnp.zeros((len(weights), 0), y.dtype)
    known = table if offset is None else jnp.concatenate([table, offset.reshape(len(weights), -1)], axis=1)
    rest = standardized(residuals(known, y, weights), weights)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (len(weights), 1), y.dtype)
    kinds = _turns(init, x, alike)
    wanted = {"kmeans": (1, 0, 0), "centres": (1, 0, 0), "residuals": (0, 1, 0), "random": (0, 0, 1), EQUAL: (0, 0, 0)}
    masks = [np.repeat(wanted[kind], [table.shape[1], rest.shape[1], 1]) for kind in kinds]
    turn = number % len(kinds)
    columns = jnp.concatenate([table, rest, noise], axis=1)
    # The same clusters would come out again and again: from the second round on, every column has a weight of its own.
    drawn = jnp.exp(jax.random.normal(jax.random.fold_in(key, 2), columns.shape[1:], y.dtype))
    mask = jnp.asarray(np.stack(masks), y.dtype)[turn]
    features = columns * jnp.where(number < len(kinds), mask, (mask + _OTHERS) * drawn)
    steps = jnp.asarray([_LLOYD_STEPS[kind] for kind in kinds])[turn]
    softness = jnp.asarray([1.0 if kind == EQUAL else _SOFTNESS for kind in kinds], y.dtype)[turn]
    return kmeans(key, features, weights, active, steps, softness)


def kmeans(
    key: jax.Array, x: jax.Array, weights: jax.Array, active: jax.Array, steps: Any = 10, softness: Any = _SOFTNESS
) -> jax.Array:
    """Responsibilities (K, n) by clusters of x (n, d) by k-means (Lloyd 1982), seeded by k-means++ (Arthur and Vassilvitskii
    2007), after `steps` rounds. softness: the share of each row that all experts have alike.
    """
    columns = x.astype(weights.dtype).T

    def step(i: jax.Array, centres: jax.Array) -> jax.Array:
        member = _nearest(columns, centres, active) * weights
        size = member.sum(axis=1, keepdims=True)
        moved = jnp.where(size > 0, dot(member, columns.T) / jnp.where(size > 0, size, 1), centres)
        return jnp.where(i < steps, moved, centres)

    centres = jax.lax.fori_loop(0, max(_LLOYD_STEPS.values()), step, _seeds(key, columns, weights, len(active)))
    soft = (1 - softness) * _nearest(columns, centres, active) + softness / active.sum()
    return jnp.where(active[:, None], soft, 0).astype(weights.dtype)


def _turns(init: str, x: Any, alike: bool) -> tuple[str, ...]:
    if init != "mixed":
        return (init,)
    clusters = MIXED if is_table(x) else ("residuals", "random")
    return clusters if alike else (EQUAL, *clusters)


def residuals(x: jax.Array, y: jax.Array, weights: jax.Array) -> jax.Array:
    """What a linear regression of y on x (n, d) leaves, (n, m)."""
    rest = y.reshape(len(weights), -1)
    rows = jnp.concatenate([x, jnp.ones((len(weights), 1), x.dtype)], axis=1)
    gram = dot(rows.T * weights, rows)
    right = dot(rows.T * weights, rest).T
    grams = jnp.broadcast_to(gram, (len(right), *gram.shape))
    return rest - dot(rows, solved(grams, jnp.zeros_like(right), jnp.ones(right.shape, bool), right).T)


def standardized(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Columns of x (n, d) of weighted mean 0 and standard deviation 1, or 0 where they are constant."""
    total = weights.sum()
    mean = dot(weights, x) / total
    sd = jnp.sqrt(dot(weights, jnp.square(x - mean)) / total)
    return (x - mean) / jnp.where(sd > 0, sd, 1)


def _nearest(columns: jax.Array, centres: jax.Array, active: jax.Array) -> jax.Array:
    """1 for the nearest of the active centres, 0 for the others, (K, n), for rows that are given by columns (d, n)."""
    distances = jnp.square(centres).sum(axis=1)[:, None] - 2 * dot(centres, columns)  # but for what all have in common
    distances = jnp.where(active[:, None], distances, jnp.inf)
    return (distances.argmin(axis=0) == np.arange(len(active))[:, None]).astype(columns.dtype)


def _seeds(key: jax.Array, columns: jax.Array, weights: jax.Array, n_experts: int) -> jax.Array:
    """Rows (K, d) of columns (d, n), drawn one after another in proportion to their squared distance from those before."""
    norms = jnp.square(columns).sum(axis=0)

    # As jax.random.categorical draws, but the noise of all draws at once.
    noise = jax.vmap(lambda k: jax.random.gumbel(k, weights.shape, weights.dtype))(jax.random.split(key, n_experts))

    def step(nearest: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        odds = weights * jnp.where(jnp.isinf(nearest), 1, nearest)
        odds = jnp.where((odds > 0).any(), odds, weights)  # where all rows are taken, any of positive weight
        row = columns[:, (noise + jnp.log(odds)).argmax()]
        return jnp.minimum(nearest, jnp.maximum(norms - 2 * dot(row, columns) + dot(row, row), 0)), row

    return jax.lax.scan(step, jnp.full_like(weights, jnp.inf), noise)[1]


def shared_out(given: Any, active: jax.Array, leader: jax.Array | None, dtype: Any) -> jax.Array:
    """Responsibilities (n, K) as solvers want them, (K, n): of the experts that take part, and one for all rows of a group.

    Rows of those that do not are shared by the others alike.
    """
    r = jnp.where(active[:, None], jnp.asarray(given, dtype).T, 0)
    total = r.sum(axis=0)
    r = jnp.where(total > 0, r / jnp.where(total > 0, total, 1), (active / active.sum())[:, None])
    return r if leader is None else r[:, leader]


def check_name(init: Any) -> None:
    """Raise ValueError unless init names a kind of start."""
    wanted = [*MIXED, EQUAL, "mixed"]
    if init not in wanted:
        raise ValueError(f"init: {init!r} was given; want one of {wanted}")


def check_init(init: str, x: Any) -> None:
    """Raise ValueError for clusters of inputs that are no table."""
    if init in ("kmeans", "centres") and not is_table(x):
        raise ValueError(f"init: {init!r} was given for inputs that are no array (n, d); want 'residuals' or 'random'")


def check_responsibilities(name: str, given: Any, n: int, n_experts: int) -> None:
    """Raise ValueError unless given is (n, K), none below 0, of sum 1 over experts (to 1e-4)."""
    _checks.shape(name, given, (n, n_experts), "responsibilities, rows by experts")
    _checks.not_negative(name, given)
    if not _checks.is_traced(given):
        sums = np.asarray(given, float).sum(axis=1)
        wrong = np.abs(sums - 1) > 1e-4
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"{name}: responsibilities of row {row} sum to {sums[row]:.6g}; want 1")


def check_distinct(x: Any, y: Any, n_experts: int) -> None:
    """Raise ValueError for more experts than distinct rows of x and y."""
    leaves = [*jax.tree.leaves(x), y]
    if any(_checks.is_traced(leaf) for leaf in leaves):
        return
    if any(len(np.unique(np.asarray(y)[:most])) >= n_experts for most in (n_experts, 1000)):
        return
    for most in (1000, None):  # the first rows nearly always suffice
        rows = np.concatenate([np.asarray(v)[:most].reshape(len(np.asarray(v)[:most]), -1) for v in leaves], axis=1)
        distinct = len(np.unique(rows, axis=0))
        if distinct >= n_experts:
            return
    raise ValueError(f"n_experts: {n_experts} experts were given for {distinct} distinct rows; want at most one for each")
