"""Operations that compile to less than those of `jax.numpy` of the same names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def where(condition: Any, a: Any, b: Any) -> jax.Array:
    """`jnp.where` without a function of its own in the program: numbers are constants of the full shape."""
    shape = np.broadcast_shapes(np.shape(condition), np.shape(a), np.shape(b))
    dtype = jnp.result_type(a, b)

    def full(v: Any, dtype: Any) -> Any:
        if isinstance(v, bool | int | float | np.number | np.bool_):
            return np.full(shape, v, dtype)
        v = v if v.dtype == dtype else v.astype(dtype)
        return v if v.shape == shape else jnp.broadcast_to(v, shape)

    return jax.lax.select(full(condition, bool), full(a, dtype), full(b, dtype))


def choose(condition: Any, new: Any, old: Any) -> Any:
    """The pytree `new` where the condition, one truth value, holds, and else `old`."""
    return jax.tree.map(lambda a, b: where(condition, a, b), new, old)
