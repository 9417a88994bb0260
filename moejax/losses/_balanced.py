"""A loss with a term that keeps all experts in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import dot
from moejax.gates import largest
from moejax.losses._base import Loss, LossLike, completed
from moejax.model import Data, Model


@dataclass(frozen=True)
class Balanced(Loss):
    """A loss plus what makes the gate use all experts; made by `balanced`."""

    loss: Loss
    kind: str
    weight: float

    @property
    def has_likelihood(self) -> bool:
        """As of the loss."""
        return self.loss.has_likelihood

    @property
    def takes_groups(self) -> bool:
        """As of the loss."""
        return self.loss.takes_groups

    @property
    def complete(self) -> bool:
        """As of the loss."""
        return self.loss.complete

    def check(self, model: Model) -> None:
        """As the loss does."""
        self.loss.check(model)

    @property
    def hyper(self) -> dict[str, float]:
        """`balance`, the weight of the balancing term, and what the loss has."""
        return {**self.loss.hyper, "balance": self.weight}

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """That of the loss plus `balance` times the balancing term."""
        balance = (data.hyper or {}).get("balance", self.weight)
        return self.loss.value(model, params, data, weights) + balance * self.term(model, params, data, weights)

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """That of the loss: balance is a means, as penalties are."""
        return self.loss.score(model, params, data, weights)

    def term(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The balancing term, see `balanced`: a scalar."""
        count = model.active(params).sum()
        if self.kind == "importance":
            share = model.gate_weights(params, data.x, data.key)
            return count * jnp.square(dot(share / share.sum(axis=0), weights)).sum() - 1
        probs = jnp.exp(model.log_gate(params, data.x, data.key))
        kept = model.kept or 1
        routed = largest(probs, kept) & model.active(params)[:, None]
        share = dot(routed.astype(probs.dtype), weights) / jnp.minimum(kept, count)
        return count * jnp.sum(share * dot(probs, weights))


def balanced(loss: LossLike, *, kind: str = "importance", weight: float = 0.01) -> Balanced:
    """A loss with a term that keeps all experts in use, for `fit_gradient`: its weight is the field `balance` of `hyper`.

    kind, where g are the shares of the experts (K, n) as the gate routes them, and means over rows are by weight:

    - "importance": the squared coefficient of variation, over experts, of the importance sum_i g_ki (Shazeer et al. 2017,
      1701.06538, equations 6 and 7), which is K * sum_k p_k^2 - 1 for p_k the mean of g_k: 0 where all are used alike;
    - "load": K * sum_k f_k P_k (Fedus, Zoph and Shazeer 2021, 2101.03961, equation 4), f_k the share of rows routed to
      expert k (of those kept by a gate that keeps several, the most probable elsewhere), without a gradient, and P_k the
      mean probability: 1 where all are used alike.

    weight: the default of `balance`. Raises ValueError for what is no loss, another kind, and a weight below 0.
    """
    loss = completed(loss)
    if kind not in ("importance", "load"):
        raise ValueError(f"kind: {kind!r} was given; want 'importance' or 'load'")
    _checks.not_negative("weight", weight)
    return Balanced(loss, kind, float(weight))
