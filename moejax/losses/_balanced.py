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
    """A loss plus a term that makes the gate use all experts; made by `balanced`.

    Attributes
    ----------
    loss : Loss
        The loss without the term.
    kind : {"importance", "load"}
        The balancing term.
    weight : float
        Weight of the term, unless `hyper` has `balance`.
    """

    loss: Loss
    kind: str
    weight: float

    @property
    def has_likelihood(self) -> bool:
        """Whether the loss is a mixture's negative log-likelihood."""
        return self.loss.has_likelihood

    @property
    def takes_groups(self) -> bool:
        """Whether the loss takes groups of rows."""
        return self.loss.takes_groups

    @property
    def complete(self) -> bool:
        """Whether the loss wants responsibilities that are held."""
        return self.loss.complete

    def check(self, model: Model) -> None:
        """Raise ValueError where the model and the loss do not go together."""
        self.loss.check(model)

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `balance`, the weight of the term, and those of the loss."""
        return {**self.loss.hyper, "balance": self.weight}

    @property
    def has_sums(self) -> bool:
        """Whether it follows from sums over rows: as the loss does."""
        return self.loss.has_sums

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the loss plus `balance` times the balancing term."""
        loss = self.loss.value(model, params, data, weights)
        return loss + self._balance(data.hyper) * self.term(model, params, data, weights)

    def sums(self, model: Model, params: Any, data: Data, weights: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        """Return the sums of the loss, and those of the term."""
        return self.loss.sums(model, params, data, weights), self._term_sums(model, params, data, weights)

    def of_sums(self, model: Model, params: Any, sums: Any, total: Any, hyper: Any) -> jax.Array:
        """Return the loss plus `balance` times the balancing term."""
        loss = self.loss.of_sums(model, params, sums[0], total, hyper)
        return loss + self._balance(hyper) * self._term(model, params, sums[1])

    def _balance(self, hyper: Any) -> jax.Array:
        balance: jax.Array = (hyper or {}).get("balance", self.weight)
        return balance

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the score of the loss, without the balancing term."""
        return self.loss.score(model, params, data, weights)

    def term(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the balancing term.

        Parameters
        ----------
        model : Model
            The model.
        params : dict
            Params of the model.
        data : moejax.model.Data
            Prepared inputs and target.
        weights : jax.Array, (n,)
            Weights of the rows, of sum 1.

        Returns
        -------
        jax.Array, ()
            The term, see `balanced`.
        """
        return self._term(model, params, self._term_sums(model, params, data, weights))

    def _term_sums(self, model: Model, params: Any, data: Data, weights: jax.Array) -> dict[str, jax.Array]:
        """Of each expert, (K,): its share of the gate, and of rows that are sent to it."""
        if self.kind == "importance":
            share = model.gate_weights(params, data.x, data.key)
            return {"share": dot(share / share.sum(axis=0), weights)}
        probs = jnp.exp(model.log_gate(params, data.x, data.key))
        routed = largest(probs, model.kept or 1) & model.active(params)[:, None]
        return {"share": dot(probs, weights), "load": dot(routed.astype(probs.dtype), weights)}

    def _term(self, model: Model, params: Any, sums: dict[str, jax.Array]) -> jax.Array:
        count = model.active(params).sum()
        if self.kind == "importance":
            return count * jnp.square(sums["share"]).sum() - 1
        return count * jnp.sum(sums["load"] / jnp.minimum(model.kept or 1, count) * sums["share"])


def balanced(loss: LossLike, *, kind: str = "importance", weight: float = 0.01) -> Balanced:
    """Construct a loss with a term that keeps all experts in use, for `fit_gradient`.

    Parameters
    ----------
    loss : LossLike
        A loss from `moejax.losses`, or a user's own record.
    kind : {"importance", "load"}, default "importance"
        The balancing term, see Notes.
    weight : float, default 0.01
        Weight of the term. It is the default of the field `balance` of `hyper`.

    Returns
    -------
    Balanced
        The loss plus weight * term. Held-out rows are compared by the loss alone.

    Raises
    ------
    ValueError
        If loss is no loss, kind is something else, or weight is below 0.

    Notes
    -----
    Let g be the shares of the K experts (K, n) as the gate routes them. Means over rows are by weight.

    - "importance": K * sum_k p_k^2 - 1, with p_k the mean of g_k. It is the squared coefficient of variation, over experts,
      of the importance sum_i g_ki. It is 0 where all experts are used alike.
    - "load": K * sum_k f_k P_k, with P_k the mean probability, and f_k the share of rows routed to expert k, without a
      gradient. Rows are routed to the experts that the gate keeps, or to the most probable one if it keeps all. It is 1
      where all experts are used alike.

    References
    ----------
    "importance": Shazeer et al. (2017), arXiv 1701.06538, equations 6 and 7. "load": Fedus, Zoph and Shazeer (2021), arXiv
    2101.03961, equation 4.
    """
    loss = completed(loss)
    _checks.choice("kind", kind, ("importance", "load"))
    return Balanced(loss, kind, _checks.number_from_0("weight", weight))
