"""Negative log-likelihoods: of the mixture, the joint, the k best experts, and held responsibilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.gates import largest
from moejax.losses._base import Loss
from moejax.losses._rows import held_division, of_units, weighted_sum
from moejax.model import Data, Model


@dataclass(frozen=True)
class NegativeLogLikelihood(Loss):
    """Negative log-likelihood of the mixture; made by `nll`, `joint_nll`, `truncated_nll` and `complete_nll`.

    kept: how many experts a row may have, None for all.
    """

    joint: bool = False
    kept: int | None = None
    complete: bool = False

    @property
    def has_likelihood(self) -> bool:
        """Yes: log-likelihood and criteria have a meaning."""
        return True

    @property
    def takes_groups(self) -> bool:
        """Yes: the likelihood of a group is that of its rows by one expert."""
        return True

    def check(self, model: Model) -> None:
        """Raise for a model without a family, and for a gate that has no likelihood of this kind."""
        if model.family is None:
            raise ValueError("loss: nll was given for a model without a family; want moe(..., family=families.gaussian())")
        if not self.complete and model.kept not in (None, self.kept):
            what = "one expert" if model.kept == 1 else f"{model.kept} experts"
            raise ValueError(
                f"loss: nll was given for a gate that chooses {what}; want squared_error or a soft gate, or "
                f"truncated_nll({model.kept})"
            )
        if self.joint and not model.gate.models_inputs:
            raise ValueError(f"loss: joint_nll was given for {model.gate!r}, which does not model its inputs; want nll")
        if model.expert.has_distribution and not model.family.has_expected_log_prob:
            raise ValueError(
                f"family: {model.family!r} was given for {model.expert!r}, whose coefficients have a distribution; "
                "want a family with expected_log_prob, as families.gaussian()"
            )

    def log_gate(self, model: Model, params: Any, data: Data) -> jax.Array:
        """log p(expert | x), or log p(expert, x), (K, n)."""
        return model.log_gate_joint(params, data.x) if self.joint else model.log_gate(params, data.x, data.key)

    def log_joint(self, model: Model, params: Any, data: Data) -> jax.Array:
        """Log densities of row (or group) and expert, (K, n): log p(expert, y | x), or log p(expert, x, y).

        Of experts whose params are a distribution, in the mean over it.
        """
        return model.pooled(self.log_gate(model, params, data), model.expected_log_density(params, data), data.leader)

    def each(self, log_joint: jax.Array, division: jax.Array | None = None) -> jax.Array:
        """The log-likelihood of each row, (n,); its derivative in log_joint is the responsibilities."""
        if self.complete:
            held = held_division(division)
            return jnp.where(held > 0, held * log_joint, 0).sum(axis=0)
        return jax.nn.logsumexp(self._truncated(log_joint), axis=0)

    def explained(self, log_joint: jax.Array, division: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """What `each` returns, and how much of each row is each expert's, (K, n), of sum 1 over experts."""
        if self.complete:
            return self.each(log_joint, division), held_division(division)
        logs = self._truncated(log_joint)
        largest = logs.max(axis=0)
        parts = jnp.exp(logs - largest)
        total = parts.sum(axis=0)
        return jnp.log(total) + largest, parts / total

    def _truncated(self, log_joint: jax.Array) -> jax.Array:
        return log_joint if self.kept is None else jnp.where(largest(log_joint, self.kept), log_joint, -jnp.inf)

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows of the negative log-likelihood; of the joint one with the gate's prior.

        Of experts whose params are a distribution, an upper bound of it, with their prior.
        """
        log_joint = self.log_joint(model, params, data)
        return self._mean(model, params, data, weights, log_joint) + self.expert_prior(model, params, data)

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The same of the density that `Model.log_prob` has, and without the prior of experts.

        Where responsibilities are held it is the mean of -log p(y | x), for those of other rows are not known.
        """
        loss = NegativeLogLikelihood() if self.complete else self
        log_joint = model.pooled(loss.log_gate(model, params, data), model.log_density(params, data), data.leader)
        return loss._mean(model, params, data, weights, log_joint)

    def _mean(self, model: Model, params: Any, data: Data, weights: jax.Array, log_joint: jax.Array) -> jax.Array:
        each = self.each(log_joint, data.division)
        return self.gate_prior(model, params["gate"]) - weighted_sum(of_units(weights, data.leader), each)

    def gate_prior(self, model: Model, gate: Any) -> Any:
        """What a gate that models its inputs adds to the joint loss."""
        return -model.gate.log_prior(gate) if self.joint else 0.0

    def expert_prior(self, model: Model, params: Any, data: Data) -> Any:
        """What experts whose params are a distribution add to the loss, a mean over rows."""
        return -model.log_prior(params) / data.size


def nll() -> NegativeLogLikelihood:
    """-log p(y | x), a mean over rows; needs a family and a soft gate.

    Rows of a group share their expert: their likelihood is that of the group, divided by the rows all the same.
    """
    return NegativeLogLikelihood()


def joint_nll() -> NegativeLogLikelihood:
    """-log p(x, y), a mean over rows, for a gate that models its inputs (Xu, Jordan and Hinton 1995)."""
    return NegativeLogLikelihood(joint=True)


def classification_nll() -> NegativeLogLikelihood:
    """-max over k of [log g_k(x) + log f_k(y)], a mean over rows (Celeux and Govaert 1992): each row has one expert."""
    return truncated_nll(1)


def truncated_nll(k: int) -> NegativeLogLikelihood:
    """-log of the sum of the k largest g_k(x) f_k(y), a mean over rows: each row has the k experts that explain it best.

    It is what EM ascends with responsibilities that are 0 but for these (Lücke and Eggert 2010, truncated posteriors); with
    k = 1 the classification likelihood, with k = K the mixture's. Raises ValueError for k that is no whole number above 0.
    """
    _checks.count("k", k)
    return NegativeLogLikelihood(kept=int(k))


def complete_nll(*, joint: bool = False) -> NegativeLogLikelihood:
    """-sum over k of r_k [log g_k(x) + log f_k(y)], a mean over rows, of responsibilities r (n, K) that are held.

    A fit gets them as `start`: who has which row is decided beforehand, and experts and gate are regressions of their own.
    joint: with log p(expert, x) for a gate that models its inputs. Held-out rows are compared by log p(y | x).
    """
    return NegativeLogLikelihood(joint=joint, complete=True)


def likelihood_of(model: Model) -> NegativeLogLikelihood:
    """The likelihood that EM ascends for this model: of the joint, of the k experts that a gate keeps, or of y given x."""
    return NegativeLogLikelihood(joint=model.gate.models_inputs, kept=model.kept)
