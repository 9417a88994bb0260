"""K experts from the functions of a single one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Stack:
    """K copies of one expert; made by `stack`."""

    one_init: Callable[[jax.Array, Any], Any]
    one_apply: Callable[[Any, Any], jax.Array]

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The single expert's parameters, drawn K times, stacked on a leading axis."""
        return jax.vmap(lambda k: self.one_init(k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """The single expert's predictions with each of the K parameters: (K, n) or (K, n, m)."""
        return jax.vmap(self.one_apply, in_axes=(0, None))(params, x)


def stack(init: Callable[[jax.Array, Any], Any], apply: Callable[[Any, Any], jax.Array]) -> Stack:
    """K experts from the two functions of a single one.

    init(key, x) -> params of one expert, any pytree; apply(params, x) -> its predictions, (n,) or (n, m).
    """
    return Stack(init, apply)
