"""Where iterations lead to: Anderson's extrapolation from the last few of them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from moejax._linear import dot
from moejax._ops import where

_LENGTH, _LONG = 5, 12  # iterations that are looked back on
_MANY = 100  # numbers, beyond which there are more of them


class Memory(NamedTuple):
    """What is kept of iterations on p numbers.

    point: (p,), where the last one began. move: (p,), how far it led. turns: (m, p), changes of moves, orthonormal, the
    newest first. steps: (m, p), the changes of points that made them. Rows are 0 where there is nothing to keep.
    """

    point: jax.Array
    move: jax.Array
    turns: jax.Array
    steps: jax.Array


def no_memory(point: jax.Array) -> Memory:
    """A memory of no iterations, for numbers (p,)."""
    nothing = jnp.zeros((_LONG if point.size > _MANY else _LENGTH, point.size), point.dtype)
    return Memory(point, jnp.zeros_like(point), nothing, nothing)


def extrapolated(memory: Memory, point: jax.Array, move: jax.Array, known: jax.Array) -> tuple[Memory, jax.Array]:
    """The memory with one more iteration, from a point (p,) that moved so far (p,); and where it all leads to, (p,).

    That is the combination of the last few iterations whose moves cancel best (Anderson 1965). Changes of moves are kept
    orthonormal (Tang, Xu, He, Saad and Xi 2024, alternating Anderson with truncated Gram-Schmidt), so that there are no
    equations to solve. known: how many iterations came before in a row, 2 standing for more.
    """
    kept = where(known > 1, memory.turns, 0)
    turn, step = move - memory.move, point - memory.point
    share = dot(kept, turn)
    turn, step = turn - dot(share, kept), step - dot(share, memory.steps)
    size = jnp.square(turn).sum()
    told = (known > 0) & (size > 0)  # at rest there is nothing to combine, nor in derivatives to divide by
    scale = where(told, jax.lax.rsqrt(where(told, size, 1.0)), 0.0)
    turns = jnp.concatenate([scale * turn[None], kept[:-1]])
    steps = jnp.concatenate([scale * step[None], memory.steps[:-1]])
    return Memory(point, move, turns, steps), point + move - dot(dot(turns, move), steps + turns)
