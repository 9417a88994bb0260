"""Gates of proportions that are given and not trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._contracts import by_expert
from moejax._trees import n_rows
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Fixed(Gate):
    """Proportions that are given and never trained; made by `fixed`.

    Attributes
    ----------
    proportions : tuple of float or None, default None
        One for each expert; None for equal ones.
    """

    proportions: tuple[float, ...] | None = None
    takes_any_array = True
    inits_by_shape = True
    has_proportions = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Params:
        """Return the logarithms of the proportions, (K,)."""
        proportions = self.proportions or (1.0 / n_experts,) * n_experts
        if len(proportions) != n_experts:
            raise ValueError(f"proportions: {len(proportions)} were given; want one for each of {n_experts} experts")
        dtype = jax.tree.leaves(x)[0].dtype
        # A proportion of 0 is allowed, but a log-probability has to stay finite for gradients and EM.
        return {"log_proportions": jnp.log(jnp.maximum(jnp.asarray(proportions, dtype), jnp.finfo(dtype).tiny))}

    def trainable(self, params: Params) -> dict[str, bool]:
        """Return that nothing is trained."""
        return {"log_proportions": False}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that nothing is penalised."""
        return {"log_proportions": False}

    def reordered(self, params: Params, order: Any) -> tuple[Fixed, Params]:
        """Return the gate and the proportions in another order of the experts."""
        given = self.proportions
        return Fixed(None if given is None else tuple(given[k] for k in order)), by_expert(params, order)

    def active(self, params: Params) -> jax.Array:
        """Return which experts have a proportion above 0, (K,)."""
        return params["log_proportions"] > jnp.log(jnp.finfo(params["log_proportions"].dtype).tiny) + 1

    def log_proportions(self, params: Params) -> jax.Array:
        """Return the logarithms of the proportions, (K,)."""
        log_proportions: jax.Array = params["log_proportions"]
        return log_proportions

    def log_probs(self, params: Params, x: Any) -> jax.Array:
        """Return the logarithms of the proportions, the same for every row, (K, n)."""
        return jnp.broadcast_to(params["log_proportions"][:, None], (params["log_proportions"].shape[0], n_rows(x)))


def fixed(proportions: Sequence[float] | None = None) -> Fixed:
    """Construct a gate of given proportions, which are never trained.

    Parameters
    ----------
    proportions : sequence of float or None, default None
        One for each expert, none below 0, of sum 1. None for equal ones.

    Returns
    -------
    Fixed
        The gate. An expert with a proportion of 0 takes no part.

    Raises
    ------
    ValueError
        If a proportion is negative, or the sum is not 1 (to 1e-6). When params are made: if there is not one for each
        expert.
    """
    if proportions is None:
        return Fixed()
    _checks.shape("proportions", proportions, (None,), "one for each expert")
    _checks.not_negative("proportions", proportions)
    total = float(np.sum(np.asarray(proportions, float)))
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"proportions: they sum to {total:.6g}; want a sum of 1")
    return Fixed(tuple(float(p) / total for p in proportions))
