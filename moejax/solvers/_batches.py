"""Minibatches."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax.model import Data, Model


class Batches(NamedTuple):
    """Minibatches in an order that depends on the key alone, so that all members of a sweep share each gather of rows."""

    model: Model
    size: int
    key: jax.Array
    x: Any
    y: jax.Array
    weights: jax.Array
    offset: Any
    division: jax.Array | None
    total: jax.Array

    def order(self, step: jax.Array, order: jax.Array) -> jax.Array:
        """The order of the rows in the epoch of `step`: a new permutation where an epoch begins."""
        n = self.y.shape[0]
        epoch, within = jnp.divmod(step, n // self.size)
        rows = jnp.arange(n, dtype=order.dtype)
        drawn: jax.Array = jax.lax.cond(
            within == 0, lambda: jax.random.permutation(jax.random.fold_in(self.key, epoch), rows), lambda: order
        )
        return drawn

    def take(self, step: jax.Array, order: jax.Array) -> tuple[Data, jax.Array]:
        """The rows of `step`, and their weights scaled so that the expected loss of a batch is that of all rows."""
        n = self.y.shape[0]
        rows = jax.lax.dynamic_slice(order, (step % (n // self.size) * self.size,), (self.size,))
        x, y, offset = jax.tree.map(lambda v: v[rows], (self.x, self.y, self.offset))
        division = None if self.division is None else self.division[:, rows]
        batch = Data(self.model.prepare(x), y, offset, total=self.total, division=division)
        return batch, self.weights[rows] * (n / self.size)
