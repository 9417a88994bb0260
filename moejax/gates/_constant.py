"""Gates of proportions that are trained and the same for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax._contracts import by_expert
from moejax._trees import n_rows
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Constant(Gate):
    """Proportions that are trained and see no input; made by `constant`."""

    takes_any_array = True
    inits_by_shape = True
    has_m_step = True
    has_linear_terms = True
    has_proportions = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Params:
        """Return logits of 0, (K,): equal proportions."""
        return {"logits": jnp.zeros(n_experts, jax.tree.leaves(x)[0].dtype)}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that nothing is penalised: logits without inputs are intercepts."""
        return {"logits": False}

    def reordered(self, params: Params, order: Any) -> tuple[Constant, Params]:
        """Return the gate and the logits in another order of the experts."""
        return self, by_expert(params, order)

    def linear_terms(self, params: Params) -> tuple[None, jax.Array]:
        """Return no weights, and the logits (K,)."""
        return None, params["logits"]

    def statistics(self, params: Params, x: Any, probs: Any, responsibilities: jax.Array, weights: jax.Array) -> jax.Array:
        """Return each expert's share of the rows, (K,)."""
        return (responsibilities * weights).sum(axis=1)  # a product would round otherwise in some lanes of a sweep

    def m_step(self, params: Params, statistics: jax.Array, penalties: Any) -> Params:
        """Return proportions that are the shares; the logarithm of a share of 0 is kept finite."""
        return {"logits": jnp.log(jnp.maximum(statistics, jnp.finfo(statistics.dtype).tiny))}

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Return the number of experts that take part, less 1."""
        return active.sum() - 1

    def log_proportions(self, params: Params) -> jax.Array:
        """Return log softmax(logits), (K,)."""
        return jax.nn.log_softmax(params["logits"])

    def log_probs(self, params: Params, x: Any) -> jax.Array:
        """Return log softmax(logits), the same for every row, (K, n)."""
        log_probs = self.log_proportions(params)
        return jnp.broadcast_to(log_probs[:, None], (log_probs.shape[0], n_rows(x)))


def constant() -> Constant:
    """Construct the gate of a plain mixture: proportions that are trained and the same for all rows.

    Returns
    -------
    Constant
        The gate.

    Notes
    -----
    The proportions are the softmax of K free logits; `Model.proportions` returns them. EM sets them to each expert's share
    of the rows, or of the groups of rows. The logits are known up to a number that they share.
    """
    return Constant()
