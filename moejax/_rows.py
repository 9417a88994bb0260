"""Rows of data, and the one way to go over them: sums over blocks.

Small data are one block, and a sum over rows is one call. Larger data are many blocks of equal size, whose work arrays fit a
core's cache, and a sum over rows is a loop over them. Rows that fill up the last block copy a real row and have weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_ONE_BLOCK = 2**25  # bytes of work arrays up to which all rows are one block
_BLOCK = 2**21  # bytes of a block's work arrays


class Block(NamedTuple):
    """Some rows, as parts see them, m rows in all.

    x: like the inputs of a fit, rows leading; a table (m, d) is a transposed view. y: (m,) or (m, q). weights: (m,).
    offset: like y, or None. leader: (m,), for each row the number of the first row of its group, or None. division: (K, m),
    responsibilities that were given, or None. number: (m,), of the rows.
    """

    x: Any
    y: jax.Array
    weights: jax.Array
    offset: jax.Array | None = None
    leader: jax.Array | None = None
    division: jax.Array | None = None
    number: jax.Array | None = None

    @property
    def units(self) -> jax.Array:
        """Weights of what has one expert of its own: each row, or each group, whose first row stands for it."""
        return self.weights if self.leader is None else jnp.where(self.leader == self.number, self.weights, 0)


class Rows(NamedTuple):
    """All rows of a fit, in B blocks of m. Every array of `blocks` has B leading; tables are stored transposed, (B, d, m)."""

    blocks: Block

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return self.blocks.y.shape[0]

    @property
    def size(self) -> int:
        """How many rows there are, those included that only fill up the last block."""
        return self.blocks.y.shape[0] * self.blocks.y.shape[1]

    def block(self, stored: Block) -> Block:
        """One block as parts see it, of stored arrays without the leading axis."""
        return stored._replace(x=jax.tree.map(lambda v: v.T if v.ndim == 2 else v, stored.x))

    def sum(self, function: Callable[[Block], Any]) -> Any:
        """The sum over blocks of a function's pytree of sums over rows."""
        if self.count == 1:
            return function(self.block(jax.tree.map(lambda v: v[0], self.blocks)))
        like = jax.eval_shape(lambda blocks: function(self.block(jax.tree.map(lambda v: v[0], blocks))), self.blocks)
        zeros = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), like)

        def add(total: Any, stored: Block) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, function(self.block(stored))), None

        return jax.lax.scan(add, zeros, self.blocks)[0]

    def map(self, function: Callable[[Block], Any]) -> Any:
        """What a function says of each block's rows, rows last (..., m), stored with blocks leading."""
        if self.count == 1:
            return jax.tree.map(lambda v: v[None], function(self.block(jax.tree.map(lambda v: v[0], self.blocks))))
        return jax.lax.map(lambda stored: function(self.block(stored)), self.blocks)


def lay(
    x: Any, y: Any, weights: Any, offset: Any = None, leader: Any = None, division: Any = None, block: int | None = None
) -> Rows:
    """Rows of arrays with n leading (division: (K, n)).

    weights: (n,). block: rows of a block; n unless given.
    """
    n = y.shape[0]
    m = n if block is None else block
    count = -(-n // m)
    full = count * m

    def cut(v: Any) -> Any:
        if full > n:
            v = jnp.concatenate([v, jnp.broadcast_to(v[:1], (full - n, *v.shape[1:]))])
        return v.reshape(count, m, *v.shape[1:])

    def table(v: Any) -> Any:
        return jnp.swapaxes(cut(v), 1, 2) if v.ndim == 2 else cut(v)

    number = jnp.arange(full, dtype=jnp.int32).reshape(count, m)
    counted = cut(weights)
    counted = jnp.where(number < n, counted, 0) if full > n else counted
    return Rows(
        Block(
            jax.tree.map(table, x),
            cut(y),
            counted,
            None if offset is None else cut(offset),
            None if leader is None else jnp.where(number < n, cut(leader), number),  # a group of its own
            None if division is None else jnp.swapaxes(cut(division.T), 1, 2),
            number,
        )
    )


def block_size(n: int, columns: int, arrays: int, dtype: Any) -> int | None:
    """Rows of a block for tables of so many columns and so many work arrays; None where all rows are one block.

    A function of shapes and type alone, for results depend on it bit by bit.
    """
    row = (columns * (columns + 1) // 2 + 2 * columns + arrays) * jnp.dtype(dtype).itemsize
    if n * row <= _ONE_BLOCK:
        return None
    return max(128, _BLOCK // row // 64 * 64)
