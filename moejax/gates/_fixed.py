"""Gates of proportions that are given and not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.gates._base import Gate
from moejax.gates._shapes import Params, n_rows


@dataclass(frozen=True)
class Fixed(Gate):
    """Proportions that are given and never trained; made by `fixed`."""

    proportions: tuple[float, ...] | None = None
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Params:
        """Logarithms of the proportions, (K,)."""
        proportions = self.proportions or (1.0 / n_experts,) * n_experts
        if len(proportions) != n_experts:
            raise ValueError(f"proportions: {len(proportions)} were given; want one for each of {n_experts} experts")
        dtype = jax.tree.leaves(x)[0].dtype
        # A proportion of 0 is allowed, but a log-probability has to stay finite for gradients and EM.
        return {"log_proportions": jnp.log(jnp.maximum(jnp.asarray(proportions, dtype), jnp.finfo(dtype).tiny))}

    def trainable(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return {"log_proportions": False}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return {"log_proportions": False}

    def active(self, params: Params) -> jax.Array:
        """Which experts have a proportion above 0, (K,)."""
        return params["log_proportions"] > jnp.log(jnp.finfo(params["log_proportions"].dtype).tiny) + 1

    def log_probs(self, params: Params, x: Any) -> jax.Array:
        """The same for every row, (K, n)."""
        return jnp.broadcast_to(params["log_proportions"][:, None], (params["log_proportions"].shape[0], n_rows(x)))


def fixed(proportions: Sequence[float] | None = None) -> Fixed:
    """A gate of given proportions, one for each expert, never trained; None for equal ones.

    Raises ValueError for a negative proportion or a sum that is not 1 (to 1e-6).
    """
    if proportions is None:
        return Fixed()
    _checks.shape("proportions", proportions, (None,), "one for each expert")
    _checks.not_negative("proportions", proportions)
    total = float(np.sum(np.asarray(proportions, float)))
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"proportions: they sum to {total:.6g}; want a sum of 1")
    return Fixed(tuple(float(p) / total for p in proportions))
