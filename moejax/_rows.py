"""Rows of data, and the one way to go over them: sums over blocks.

Small data are one block, and a sum over rows is one call. Larger data are many blocks of equal size, with work arrays that
fit a core's cache, and a sum over rows is a loop over them. Rows that fill up a block copy a real row and have weight 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from moejax import _checks
from moejax._arrays import Tree

_ONE_BLOCK = 2**25  # bytes of work arrays up to which all rows are one block
_BLOCK = 2**21  # bytes of a block's work arrays
_ALIGNED = 64  # bytes, at which XLA takes an array of NumPy's as it is
_FEWEST = 16  # rows that a program is compiled for


class Block(NamedTuple):
    """Some rows, as parts see them, n in all. Stored ones have B leading, see `Rows`.

    x: like the inputs of a fit, rows leading; a table (n, d) is a transposed view. y: (n,) or (n, m). weights: (n,).
    offset: like y, or None. leader: (n,), for each row the number of the first row of its group, or None. division: (K, n),
    responsibilities that were given, or None. number: (n,), of the rows, where they come in groups.
    """

    x: Tree
    y: Float[Array, "*B n"] | Float[Array, "*B n m"]
    weights: Float[Array, "*B n"]
    offset: Float[Array, "*B n"] | Float[Array, "*B n m"] | None = None
    leader: Int[Array, "*B n"] | None = None
    division: Float[Array, "*B K n"] | None = None
    number: Int[Array, "*B n"] | None = None

    @property
    def units(self) -> Float[Array, "*B n"]:
        """Weights of what has one expert of its own: each row, or each group, represented by its first row."""
        return self.weights if self.leader is None else jnp.where(self.leader == self.number, self.weights, 0)


class Rows(NamedTuple):
    """All rows of a fit, in B blocks of n rows.

    Every array of `blocks` has B leading; tables are stored transposed, (B, d, n). None of them has a `number`.
    """

    blocks: Block

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return self.blocks.y.shape[0]

    @property
    def size(self) -> int:
        """How many rows there are, with those that only fill up the last block."""
        return self.blocks.y.shape[0] * self.blocks.y.shape[1]

    def block(self, stored: Block, index: Any = 0) -> Block:
        """One block as parts see it, of stored arrays without the leading axis."""
        block = stored._replace(x=jax.tree.map(lambda v: v.T if v.ndim == 2 else v, stored.x))
        if block.leader is None:
            return block
        m = block.y.shape[0]
        return block._replace(number=index * m + jnp.arange(m, dtype=jnp.int32))

    @property
    def first(self) -> Block:
        """The first block."""
        only = self.n_blocks == 1  # which is then no more than another shape
        return self.block(jax.tree.map(lambda v: v.reshape(v.shape[1:]) if only else v[0], self.blocks))

    def sum(self, function: Callable[[Block], Any]) -> Any:
        """The sum over blocks of a function's pytree of sums over rows."""
        if self.n_blocks == 1:
            return function(self.first)
        like = jax.eval_shape(lambda: function(self.first))
        zeros = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), like)

        def add(total: Any, each: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, function(self.block(*each))), None

        return jax.lax.scan(add, zeros, (self.blocks, jnp.arange(self.n_blocks, dtype=jnp.int32)))[0]

    def map(self, function: Callable[..., Any], *more: Any) -> Any:
        """What a function returns for each block, B leading. more: arrays with B leading, for its other arguments."""
        if self.n_blocks == 1:
            return jax.tree.map(lambda v: v[None], function(self.first, *(v[0] for v in more)))
        numbers = jnp.arange(self.n_blocks, dtype=jnp.int32)
        return jax.lax.map(lambda each: function(self.block(*each[:2]), *each[2:]), (self.blocks, numbers, *more))


def by_block(function: Callable[..., Any], arrays: int, params: Any, *rows: Any) -> Any:
    """What a function of params and rows returns for each row, n leading, block by block where there are many rows.

    arrays: how many arrays of n numbers the function works in. rows: pytrees of arrays with n leading; others, and None, are
    the same for all blocks.
    """
    leaves, structure = jax.tree.flatten(rows)
    n = leaves[0].shape[0]
    long = [np.ndim(v) > 0 and v.shape[0] == n for v in leaves]
    wide = max((v.shape[1] for v in leaves if np.ndim(v) == 2), default=1)
    m = block_size(n, wide, arrays, leaves[0].dtype)
    if m == 0 or m >= n:
        return function(params, *rows)

    def of(taken: list[Any]) -> Any:
        rest = iter(taken)
        block = [next(rest) if is_long else v for v, is_long in zip(leaves, long, strict=True)]
        return function(params, *jax.tree.unflatten(structure, block))

    def part(first: int, end: int) -> list[Any]:
        return [v[first:end] for v, is_long in zip(leaves, long, strict=True) if is_long]

    count = n // m
    if any(_checks.is_traced(v) for v in jax.tree.leaves((params, leaves))):
        found = jax.lax.map(of, [v.reshape(count, m, *v.shape[1:]) for v in part(0, count * m)])
        pieces = [jax.tree.map(lambda v: v.reshape(count * m, *v.shape[2:]), found)]
    else:  # outside of a program every loop would be compiled anew
        pieces = [of(part(i * m, (i + 1) * m)) for i in range(count)]
    if n % m:
        pieces.append(of(part(count * m, n)))
    return jax.tree.map(lambda *each: jnp.concatenate(each), *pieces)


def lay(
    x: Any,
    y: Any,
    weights: Any = None,
    offset: Any = None,
    leader: Any = None,
    division: Any = None,
    block: int = 0,
    pads: bool = True,
) -> Rows:
    """Rows of arrays with n leading; NumPy's stay NumPy's, and are copies, padded to a size that other tables share.

    weights: (n,), None for equal ones. division: (n, K). block: rows of a block; all rows are one unless given. pads:
    whether rows may be added.
    """
    is_numpy = all(isinstance(v, np.ndarray) for v in jax.tree.leaves((x, y, weights, offset)))
    is_numpy = is_numpy and not any(_checks.is_traced(v) for v in (leader, division))
    if is_numpy:
        leader, division = (None if v is None else np.asarray(v) for v in (leader, division))
    n = y.shape[0]
    total = padded_size(n) if is_numpy and pads else n
    m = block or total
    count = -(-total // m)
    cut = _NumPyCut(n, count, m) if is_numpy else _Cut(n, count, m)
    number = np.arange(count * m, dtype=np.int32).reshape(count, m)
    if weights is None:
        weights = (np.ones if is_numpy else jnp.ones)(n, y.dtype)
    return Rows(
        Block(
            jax.tree.map(lambda v: cut.turned(v) if v.ndim == 2 else cut(v), x),
            cut(y),
            cut.zeroed(weights),
            None if offset is None else cut(offset),
            None if leader is None else cut.numbered(leader, number),  # a row that fills up is a group of its own
            None if division is None else cut.turned(division),
        )
    )


class _Cut:
    """Arrays of n rows made into blocks, with copies of the first row to fill up the last one."""

    def __init__(self, n: int, count: int, m: int):
        self.n, self.count, self.m = n, count, m

    def __call__(self, v: Any) -> Any:
        """(n, ...) as (count, m, ...)."""
        more = self.count * self.m - self.n
        if more:
            v = jnp.concatenate([v, jnp.broadcast_to(v[:1], (more, *v.shape[1:]))])
        return v.reshape(self.count, self.m, *v.shape[1:])

    def turned(self, v: Any) -> Any:
        """(n, d) as (count, d, m)."""
        return jnp.swapaxes(self(v), 1, 2)

    def zeroed(self, v: Any) -> Any:
        """The same with 0 to fill up."""
        return self(v) if self.count * self.m == self.n else jnp.where(self._is_real, self(v), 0)

    def numbered(self, v: Any, number: np.ndarray) -> Any:
        """The same with their own numbers to fill up."""
        return jnp.where(self._is_real, self(v), number)

    @property
    def _is_real(self) -> np.ndarray:
        return (np.arange(self.count * self.m) < self.n).reshape(self.count, self.m)


class _NumPyCut(_Cut):
    """The same by NumPy, in memory that XLA need not copy."""

    def __call__(self, v: Any) -> Any:
        found = _aligned((self.count * self.m, *v.shape[1:]), v.dtype)
        found[: self.n], found[self.n :] = v, v[:1]
        return found.reshape(self.count, self.m, *v.shape[1:])

    def turned(self, v: Any) -> Any:
        found = _aligned((self.count, v.shape[1], self.m), v.dtype)
        for block, start in zip(found, range(0, self.n, self.m), strict=False):
            rows = v[start : start + self.m]
            block[:, : len(rows)] = rows.T
        beyond = np.arange(self.count * self.m).reshape(self.count, self.m) >= self.n
        for block, fills in zip(found, beyond, strict=True):
            if fills.any():
                block[:, fills] = v[0][:, None]
        return found

    def zeroed(self, v: Any) -> Any:
        found = self(v)
        found.reshape(-1)[self.n :] = 0
        return found

    def numbered(self, v: Any, number: np.ndarray) -> Any:
        return np.where(self._is_real, self(v), number).astype(np.int32)


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.empty(size + _ALIGNED, np.uint8)
    start = -memory.ctypes.data % _ALIGNED
    found: np.ndarray = memory[start : start + size].view(dtype).reshape(shape)
    return found


def padded_size(n: int) -> int:
    """The number of rows that programs for n rows are compiled for: one of a few sizes, at most a quarter above n."""
    if n <= _FEWEST:
        return _FEWEST
    step = 1 << max((n - 1).bit_length() - 3, 0)
    return -(-n // step) * step


def block_size(n: int, columns: int, arrays: int, dtype: Any) -> int:
    """Rows of a block, for tables of so many columns and so many work arrays; 0 where all rows are one block.

    A function of shapes and type alone, for results depend on it bit by bit.
    """
    row: int = (columns * (columns + 1) // 2 + 2 * columns + arrays) * jnp.dtype(dtype).itemsize
    if n * row <= _ONE_BLOCK:
        return 0
    return max(128, _BLOCK // row // 64 * 64)
