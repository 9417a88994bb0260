"""Inputs that separate what coefficients are to tell apart, experts or targets, so that no finite coefficients are best.

They separate all rows of an expert, or those in which a column differs from what it is in the rest: then rows that are not
certain leave the column constant, and its coefficient grows without end.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from moejax._linear import Quadratic, on_own_rows
from moejax._ops import where
from moejax.model import Model
from moejax.solvers._sums import CERTAIN, Sums

_HELD = 1e-6  # of the variance of a column, where it is as good as constant
_LARGE = 3  # of a coefficient of a standardised column, in predictors without units


def gate_unsure(model: Model, params: Any, sums: Sums, q: Quadratic | None, variances: jax.Array | None) -> jax.Array:
    """Of the experts that some rows belong to and others do not, the least weight of rows that may do either.

    0 too where a column is constant in these rows and not in all; 1 where nobody asked. q: the quadratics of the gate.
    variances: (d,), of its columns.
    """
    if sums.unsure is None:
        return jnp.ones((), sums.sizes.dtype)
    divided = model.active(params) & (sums.sizes > 1 - CERTAIN) & (sums.sizes < CERTAIN)
    least = where(divided, sums.unsure, 1.0).min()
    if q is None or variances is None or len(q.b) > len(sums.sizes):  # of a tree, whose splits see some rows alone
        return least
    constant = _constant(q, q.gram[:, -1, -1], variances)
    return where((constant & divided[: len(q.b), None]).any(), 0.0, least)


def experts_missed(model: Model, params: Any, sums: Sums, q: Quadratic | None, variances: jax.Array | None) -> jax.Array:
    """Of the experts that have rows, the least share of rows whose targets one is not certain of.

    0 too where a column is constant in these rows and its coefficient is large; 1 where nobody asked. q: the quadratics of
    the experts. variances: (d,), of their columns.
    """
    if sums.missed is None:
        return jnp.ones((), sums.sizes.dtype)
    there = model.active(params) & (sums.sizes > 0)
    least = where(there, sums.missed / where(there, sums.sizes, 1.0), 1.0).min()
    if q is None or variances is None:
        return least
    outputs = len(q.b) // len(sums.sizes)
    large = jnp.abs(q.b[:, :-1]) * jnp.sqrt(variances) > _LARGE
    constant = _constant(q, jnp.repeat(sums.sizes, outputs), variances)
    return where((constant & large & jnp.repeat(there, outputs)[:, None]).any(), 0.0, least)


def _constant(q: Quadratic, sizes: jax.Array, variances: jax.Array) -> jax.Array:
    """Which columns have next to no curvature in rows of weights (A,), and vary in all rows: (A, d)."""
    bend = on_own_rows(q)[1][:, :-1]
    share = _HELD + 16 * q.gram.shape[-1] * float(jnp.finfo(q.gram.dtype).eps)
    return (bend <= share * sizes[:, None] * variances) & (variances > 0)
