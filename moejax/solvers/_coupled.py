"""The quadratic step under penalties that couple coefficients, such as group penalties, or that are somebody's own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax._linear import Quadratic, Terms, dot, quadratic_problem

_SWEEPS = 5


def coupled_step(q: Quadratic, terms: Terms, part: Any, params: Any) -> tuple[jax.Array, jax.Array]:
    """As `quadratic_step`, by block coordinate descent with the penalties' own proximal steps.

    terms: penalties and their weights, which see coefficients (K, d) or (K, d, m), as params["weights"] of the part are.
    """
    shape = params["weights"].shape

    def laid(v: jax.Array) -> jax.Array:
        """(A, ..., d) as (K, ..., d), with m outputs last."""
        return v if len(shape) == 2 else jnp.moveaxis(v.reshape(shape[0], shape[2], *v.shape[1:]), 1, -1)

    def flat(v: jax.Array) -> jax.Array:
        return v if len(shape) == 2 else jnp.moveaxis(v, -1, 1).reshape(-1, shape[1])

    def lower(b: jax.Array, slope: jax.Array, gram: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = flat(_descended(laid(b), laid(slope), laid(gram), terms))
        return new, dot(gram, (new - b)[..., None])[..., 0]

    return quadratic_problem(q, lower)


def _descended(b: jax.Array, slope: jax.Array, gram: jax.Array, terms: Terms) -> jax.Array:
    """Rounds of block coordinate descent, for b (K, d[, m]) and gram (K, d, d[, m]).

    A block is a column, or a penalty's group of columns. Each is brought to its optimum given the others, or, where it is
    coupled, to that of a majorant (Qin, Scheinberg and Goldfarb 2013): exact zeros, and never a step up.
    """
    d, blocks = b.shape[1], _blocks(b.shape[1], terms)
    sizes = 1 / _curvatures(gram, blocks, terms)
    member = np.array([[j in block for j in range(d)] for block in blocks])
    inside = jnp.asarray(member.reshape(len(blocks), 1, d, *(1,) * (b.ndim - 2)))

    def step(carry: tuple[jax.Array, jax.Array], here: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        b, gradient = carry
        size = jnp.where(here, sizes, 0)
        new = b - size * gradient
        for p, weight in terms:
            new = p.prox([new], weight * size)[0]
        new = jnp.where(here, new, b)
        bent = jnp.einsum("kij...,kj...->ki...", gram, new - b, precision="highest")
        return (new, gradient + bent), None

    def sweep(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jax.lax.scan(step, carry, inside)[0]

    descended: jax.Array = jax.lax.fori_loop(0, _SWEEPS, sweep, (b, slope))[0]
    return descended


def _curvatures(gram: jax.Array, blocks: list[list[int]], terms: Terms) -> jax.Array:
    """A curvature for each coefficient, (K, d[, m]), that bounds its block's, and is the same over what is coupled."""
    d = gram.shape[1]
    together = np.zeros((d, d), gram.dtype)
    for block in blocks:
        together[np.ix_(block, block)] = 1
    h = (jnp.abs(gram) * together.reshape(1, d, d, *(1,) * (gram.ndim - 3))).sum(axis=2)  # a bound by Gershgorin
    # Where no row counts nothing moves, but penalties bring an expert that nobody uses to 0.
    h = jnp.maximum(h, jnp.finfo(h.dtype).tiny ** 0.5)
    for penalty, _ in terms:
        h = penalty.majorant(h)
    return h


def _blocks(d: int, terms: Terms) -> list[list[int]]:
    """Columns that a penalty's groups hold together, and the others one by one."""
    groups = [list(group) for penalty, _ in terms for group in penalty.blocks]
    held = {column for group in groups for column in group}
    return sorted(groups + [[j] for j in range(d) if j not in held])
