"""Divisions of the rows among experts, made before any model is fitted: responsibilities (n, K).

Three ways to make one: by distance of the inputs, into inliers and outliers of one regression, and by a rule of the
user's own. Each is given to a fit in the same way,

    fit(key, x, y, start=division)

and is where the fit begins, or what it holds, if its loss is one of held responsibilities (`moejax.losses.complete_nll`).
`sweep` takes several by name, {"division": {"distance": r, "rule": f}}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _check, starts
from moejax._linear import dot
from moejax.model import floating

_CONCENTRATIONS = 20  # steps of `inliers` from each start; they end after a few, where nothing changes any more


def by_distance(key: jax.Array, x: Any, n_experts: int, *, tries: int = 10) -> jax.Array:
    """Each row to the nearest of `n_experts` centres: (n, K) of 0 and 1, by k-means on standardised columns.

    The best of `tries` starts from the key, by the sum of squared distances. Pure: takes `jit` and `vmap`. x: (n, d).
    Raises ValueError for x of another shape or that is not finite, and counts that are not whole numbers above 0.
    """
    _check.shape("x", x, (None, None), "rows by features")
    _check.finite("x", x)
    _check.count("n_experts", n_experts)
    _check.count("tries", tries)
    x = floating(x)
    weights = jnp.full(x.shape[0], 1 / x.shape[0], x.dtype)
    table = starts.standardized(x, weights)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        soft = starts.kmeans(key, table, weights, jnp.ones(n_experts, bool))
        hard = jax.nn.one_hot(soft.argmax(axis=0), n_experts, dtype=x.dtype, axis=0)
        # The sum of squares within clusters is that of all less what the means of clusters explain.
        return hard, (jnp.square(dot(hard, table)).sum(axis=1) / jnp.maximum(hard.sum(axis=1), 1)).sum()

    found, explained = jax.vmap(one)(jax.random.split(key, tries))
    return found[explained.argmax()].T


def inliers(key: jax.Array, x: Any, y: Any, *, share: float = 0.1, tries: int = 50) -> jax.Array:
    """Rows that one linear regression explains, the first column, and the outliers, the second: (n, 2) of 0 and 1.

    By least trimmed squares (Rousseeuw 1984): the regression whose squared residuals but for the largest, a `share` of
    all rows, have the least sum; those rows are the outliers. From `tries` regressions of as many random rows as there are
    coefficients, by concentration steps (Rousseeuw and Van Driessen 2006). Pure: takes `jit` and `vmap`. x: (n, d); y: (n,),
    or (n, m), whose outputs count alike by their standard deviations.

    Raises ValueError for shapes that do not fit, numbers that are not finite, and a share of less than one row or more than
    half of them.
    """
    _check.shape("x", x, (None, None), "rows by features")
    n = np.shape(x)[0]
    for name, values in (("x", x), ("y", y)):
        _check.finite(name, values)
    if np.ndim(y) not in (1, 2) or np.shape(y)[0] != n:
        raise ValueError(f"y: shape {np.shape(y)} was given; want {(n,)}, or {(n, 'm')} for m outputs")
    _check.count("tries", tries)
    _check.positive("share", share)
    outliers = round(share * n)
    if not 1 <= outliers <= n // 2:
        raise ValueError(f"share: {share!r} of {n} rows was given; want at least one row and at most half of them")
    equal = jnp.full(n, 1 / n, floating(x).dtype)
    table = starts.standardized(floating(x), equal)
    target = starts.standardized(jnp.asarray(y, table.dtype).reshape(n, -1), equal)

    def smallest(values: jax.Array, count: int) -> jax.Array:
        return (jnp.argsort(jnp.argsort(values)) < count).astype(table.dtype)

    def errors(kept: jax.Array) -> jax.Array:
        return jnp.square(starts.residuals(table, target, kept)).sum(axis=1)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        begin = smallest(jax.random.uniform(key, (n,), table.dtype), table.shape[1] + 1)
        kept = jax.lax.fori_loop(0, _CONCENTRATIONS, lambda _, kept: smallest(errors(kept), n - outliers), begin)
        return kept, dot(kept, errors(kept))

    kept, trimmed = jax.vmap(one)(jax.random.split(key, tries))
    best = kept[trimmed.argmin()]
    return jnp.stack([best, 1 - best], axis=1)


def by_rule(rule: Callable[[Any], Any], x: Any, n_experts: int, *, name: str = "rule") -> jax.Array:
    """What a rule says of the rows of x, as responsibilities (n, K).

    rule: a function of x that returns labels (n,), whole numbers from 0 to K - 1, or memberships (n, K), none below 0. A row
    may be in several divisions, and is then shared by them in proportion. Raises ValueError for other shapes and numbers,
    and for a row that is in no division. name: what errors call it.
    """
    given = rule(x)
    n = np.shape(jax.tree.leaves(x)[0])[0]
    if np.ndim(given) == 1:
        _check.shape(name, given, (n,), "the division of each row")
        _check.whole(name, given, 0, n_experts - 1)
        return jax.nn.one_hot(jnp.asarray(given, jnp.int32), n_experts)
    _check.shape(name, given, (n, n_experts), "rows by experts, or a label for each row")
    _check.not_negative(name, given)
    shares = floating(given)
    total = shares.sum(axis=1, keepdims=True)
    if not _check.is_traced(total) and not np.all(total > 0):
        raise ValueError(f"{name}: row {int(np.argmin(total > 0))} is in no division; want each row in at least one")
    return shares / total


def resolved(name: str, given: Any, x: Any, n_experts: int) -> Any:
    """Responsibilities (n, K), or params as they are, of what may be given as `start`; None for None.

    Raises ValueError for responsibilities that are none, and as `by_rule` does for a function of x.
    """
    if given is None or isinstance(given, dict):
        return given
    if callable(given):
        return by_rule(given, x, n_experts, name=name)
    starts.check_responsibilities(name, given, np.shape(jax.tree.leaves(x)[0])[0], n_experts)
    return given
