"""What the files of the gradient solver share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

Hyper = dict[str, Any]
MeanLoss: TypeAlias = Callable[[Any], jax.Array]  # of params, without penalties


class TrainState(NamedTuple):
    """Where training stands.

    Attributes
    ----------
    params : dict
        Params of the model.
    optimizer_state : pytree
        State of the optimizer, which belongs to its data and hyper.
    """

    params: Any
    optimizer_state: Any


def tree_minus(a: Any, b: Any) -> Any:
    """The difference of two trees."""
    return jax.tree.map(jnp.subtract, a, b)


def tree_dot(a: Any, b: Any) -> jax.Array:
    """The inner product of two trees."""
    return jnp.stack([jnp.sum(u * v) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]).sum()


PENALIZED = ("experts", "gate")  # parts whose coefficients penalties see
LARGEST = 1e30  # of step sizes, as for a coefficient without a gradient; finite also as a multiple of weights
