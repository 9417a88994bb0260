"""Divisions of the rows among experts, made before any model is fitted: responsibilities (n, K).

Three ways to make one: by distance of the inputs, into inliers and outliers of one regression, and by a rule of the
user's own. Each is given to a fit in the same way,

    fit(key, x, y, start_responsibilities=division)

and is where the fit begins, or what it holds, if its loss is one of held responsibilities (`moejax.losses.complete_nll`).
`sweep` takes several by name, {"division": {"distance": r, "rule": f}}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._linear import dot
from moejax.model import floating, native, on_device
from moejax.model._arguments import check_numbers, dtype_of
from moejax.solvers import _starts

_CONCENTRATIONS = 20  # steps of `inliers` from each start; they end after a few, where nothing changes any more


def by_distance(key: jax.Array, x: Any, n_experts: int, *, tries: int = 10) -> jax.Array:
    """Each row to the nearest of `n_experts` centres: (n, K) of 0 and 1, by k-means on standardised columns.

    The best of `tries` starts from the key, by the sum of squared distances. Pure: takes `jit` and `vmap`. x: (n, d).
    Raises ValueError for x of another shape or that is not finite, and counts that are not whole numbers above 0.
    """
    _checks.key("key", key)
    _check_table(x)
    n_experts, tries = _checks.count("n_experts", n_experts), _checks.count("tries", tries)
    shares: jax.Array = _clusters(key, floating(x), n_experts, tries)
    return shares


def _check_table(x: Any) -> int:
    """Raise ValueError unless x is a table (n, d) of numbers that JAX holds; return n."""
    _checks.shape("x", x, (None, None), "rows by features")
    if not _checks.is_traced(x):
        check_numbers("x", x, dtype_of(x))
    n, d = _checks.shape_of("x", x)
    _checks.count("rows of x", n)
    _checks.count("columns of x", d)
    return n


@partial(jax.jit, static_argnums=(2, 3))
def _clusters(key: jax.Array, x: jax.Array, n_experts: int, tries: int) -> jax.Array:
    weights = jnp.full(x.shape[0], 1 / x.shape[0], x.dtype)
    table = _starts.standardized(x, weights)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        hard = _starts.kmeans(key, table, weights, jnp.ones(n_experts, bool))
        means = dot(hard, table) / jnp.maximum(hard.sum(axis=1), 1)[:, None]
        return hard, jnp.square(table - dot(hard.T, means)).sum()

    found, within = jax.vmap(one)(jax.random.split(key, tries))
    return found[_first_best(within)].T


def _first_best(losses: jax.Array) -> jax.Array:
    """Where the first of those is that are the least but for rounding: several tries often end at the same place."""
    return jnp.argmax(losses <= (1 + jnp.finfo(losses.dtype).eps ** 0.5) * losses.min())


def inliers(key: jax.Array, x: Any, y: Any, *, share: float = 0.1, tries: int = 50) -> jax.Array:
    """Rows that one linear regression explains, the first column, and the outliers, the second: (n, 2) of 0 and 1.

    By least trimmed squares (Rousseeuw 1984): the regression whose squared residuals but for the largest, a `share` of
    all rows, have the least sum; those rows are the outliers. From `tries` regressions of as many random rows as there are
    coefficients, by concentration steps (Rousseeuw and Van Driessen 2006). Pure: takes `jit` and `vmap`. x: (n, d); y: (n,),
    or (n, m), whose outputs count alike by their standard deviations.

    Raises ValueError for shapes that do not fit, numbers that are not finite, and a share of less than one row or more than
    half of them.
    """
    _checks.key("key", key)
    n = _check_table(x)
    given = _checks.shape_of("y", y)
    if len(given) not in (1, 2) or given[0] != n or 0 in given:
        raise ValueError(f"y: shape {given} was given; want {(n,)}, or {(n, 'm')} for m outputs")
    _checks.finite("y", y)
    if not _checks.is_traced(x):
        _checks.within("y", y, dtype_of(x))
    tries, share = _checks.count("tries", tries), _checks.number_above_0("share", share)
    outliers = round(share * n)
    if not 1 <= outliers <= n // 2:
        raise ValueError(f"share: {share!r} of {n} rows was given; want at least one row and at most half of them")
    x = floating(x)
    shares: jax.Array = _trimmed(key, x, on_device(y, x.dtype).reshape(n, -1), outliers, tries)
    return shares


@partial(jax.jit, static_argnums=(3, 4))
def _trimmed(key: jax.Array, x: jax.Array, y: jax.Array, outliers: int, tries: int) -> jax.Array:
    n = x.shape[0]
    equal = jnp.full(n, 1 / n, x.dtype)
    table, target = _starts.standardized(x, equal), _starts.standardized(y, equal)

    def smallest(values: jax.Array, count: int) -> jax.Array:
        return (jnp.argsort(jnp.argsort(values)) < count).astype(table.dtype)

    def errors(kept: jax.Array) -> jax.Array:
        return jnp.square(_starts.residuals(table, target, kept)).sum(axis=1)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        begin = smallest(jax.random.uniform(key, (n,), table.dtype), table.shape[1] + 1)
        kept = jax.lax.fori_loop(0, _CONCENTRATIONS, lambda _, kept: smallest(errors(kept), n - outliers), begin)
        return kept, dot(kept, errors(kept))

    kept, trimmed = jax.vmap(one)(jax.random.split(key, tries))
    best = kept[_first_best(trimmed)]
    return jnp.stack([best, 1 - best], axis=1)


def by_rule(rule: Callable[[Any], Any], x: Any, n_experts: int, *, name: str = "rule") -> jax.Array:
    """What a rule says of the rows of x, as responsibilities (n, K).

    rule: a function of x that returns labels (n,), whole numbers from 0 to K - 1, or memberships (n, K), none below 0. A row
    may be in several divisions, and is then shared by them in proportion. Raises ValueError for other shapes and numbers,
    and for a row that is in no division. name: what errors call it.
    """
    _checks.functions(rule=rule)
    n_experts = _checks.count("n_experts", n_experts)
    _checks.text("name", name)
    given = native(name, rule(native("x", x)))
    n = np.shape(jax.tree.leaves(x)[0])[0]
    if len(_checks.shape_of(name, given)) == 1:
        _checks.shape(name, given, (n,), "the division of each row")
        if not _checks.is_traced(given):
            labels = _checks.array(name, given)
            _checks.real(name, labels)
            wrong = ~np.isin(labels, np.arange(n_experts))
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(
                    f"{name}: row {row} has the label {labels[row]}; want whole numbers from 0 to {n_experts - 1}"
                )
        return jax.nn.one_hot(jnp.asarray(given, jnp.int32), n_experts)
    _checks.shape(name, given, (n, n_experts), "rows by experts, or a label for each row")
    _checks.not_negative(name, given)
    shares = floating(given)
    total = shares.sum(axis=1, keepdims=True)
    if not _checks.is_traced(total) and not np.all(total > 0):
        raise ValueError(f"{name}: row {int(np.argmin(total > 0))} is in no division; want each row in at least one")
    divided: jax.Array = shares / total
    return divided


def resolved(name: str, given: Any, x: Any, n_experts: int) -> Any:
    """Responsibilities (n, K), or params as they are, of what may be given as `start`; None for None.

    Raises ValueError for responsibilities that are none, and as `by_rule` does for a function of x.
    """
    if given is None or isinstance(given, dict):
        return given
    if callable(given):
        return by_rule(given, x, n_experts, name=name)
    _starts.check_responsibilities(name, given, np.shape(jax.tree.leaves(x)[0])[0], n_experts)
    return given
