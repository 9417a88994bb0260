"""Losses: the mean over rows that a fit improves, before penalties.

A loss is any record with

    value(model, params, data, weights) -> scalar      data: a `moejax.model.Data`; weights: (n,), of sum 1

and, where it helps, `has_likelihood`, whether it is a mixture's negative log-likelihood (else no); `check(model)`, which
raises where model and loss do not go together; and `score`, called like `value`, for rows that were not fitted: without what
a fit's own params add to the loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _check
from moejax._linear import dot
from moejax.model import Data, Model


@dataclass(frozen=True)
class SquaredError:
    """Squared error of the gated mean; made by `squared_error`."""

    has_likelihood = False

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows, and plain mean over outputs, of (y - E[y | x])^2."""
        mean = model.mean(params, data.x, data.offset)
        _check.shape("y", data.y, mean.shape, "like a prediction")
        squares = jnp.square(mean - data.y)
        return dot(weights, squares.mean(axis=1) if squares.ndim == 2 else squares)


def squared_error() -> SquaredError:
    """Squared error of the prediction, a mean over rows (and over outputs)."""
    return SquaredError()


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Negative log-likelihood of the mixture; made by `nll`, `joint_nll` and `classification_nll`."""

    joint: bool = False
    hard: bool = False

    @property
    def has_likelihood(self) -> bool:
        """Yes: log-likelihood and criteria have a meaning."""
        return True

    def check(self, model: Model) -> None:
        """Raise for a model without a family, and for a gate that has no likelihood of this kind."""
        if model.family is None:
            raise ValueError("loss: nll was given for a model without a family; want moe(..., family=families.gaussian())")
        if getattr(model.gate, "hard", False) and not self.hard:
            raise ValueError("loss: nll was given for a gate that chooses one expert; want squared_error or a soft gate")
        if self.joint and not hasattr(model.gate, "log_joint"):
            raise ValueError(f"loss: joint_nll was given for {model.gate!r}, which does not model its inputs; want nll")
        if hasattr(model.expert, "variance") and not hasattr(model.family, "expected_log_prob"):
            raise ValueError(
                f"family: {model.family!r} was given for {model.expert!r}, whose coefficients have a distribution; "
                "want a family with expected_log_prob, as families.gaussian()"
            )

    def log_gate(self, model: Model, params: Any, data: Data) -> jax.Array:
        """log p(expert | x), or log p(expert, x), (K, n)."""
        return model.log_gate_joint(params, data.x) if self.joint else model.log_gate(params, data.x)

    def log_joint(self, model: Model, params: Any, data: Data) -> jax.Array:
        """Log densities of row (or group) and expert, (K, n): log p(expert, y | x), or log p(expert, x, y).

        Of experts whose params are a distribution, in the mean over it.
        """
        return model.pooled(self.log_gate(model, params, data), model.expected_log_density(params, data), data.leader)

    def each(self, log_joint: jax.Array) -> jax.Array:
        """The log-likelihood of each row, (n,); its derivative in log_joint is the responsibilities."""
        return log_joint.max(axis=0) if self.hard else jax.nn.logsumexp(log_joint, axis=0)

    def responsibilities(self, log_joint: jax.Array) -> jax.Array:
        """How much of each row is each expert's, (K, n), of sum 1 over experts."""
        if self.hard:
            return jax.nn.one_hot(jnp.argmax(log_joint, axis=0), log_joint.shape[0], dtype=log_joint.dtype, axis=0)
        return jax.nn.softmax(log_joint, axis=0)

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows of the negative log-likelihood; of the joint one with the gate's prior.

        Of experts whose params are a distribution, an upper bound of it, with their prior.
        """
        log_joint = self.log_joint(model, params, data)
        return self._mean(model, params, data, weights, log_joint) + self.expert_prior(model, params, data)

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The same of the density that `Model.log_prob` has, and without the prior of experts."""
        log_joint = model.pooled(self.log_gate(model, params, data), model.log_density(params, data), data.leader)
        return self._mean(model, params, data, weights, log_joint)

    def _mean(self, model: Model, params: Any, data: Data, weights: jax.Array, log_joint: jax.Array) -> jax.Array:
        return self.gate_prior(model, params["gate"]) - dot(of_units(weights, data.leader), self.each(log_joint))

    def gate_prior(self, model: Model, gate: Any) -> Any:
        """What a gate that models its inputs adds to the joint loss."""
        return -model.gate.log_prior(gate) if self.joint and hasattr(model.gate, "log_prior") else 0.0

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
    return NegativeLogLikelihood(hard=True)


def likelihood_of(model: Model) -> NegativeLogLikelihood:
    """The likelihood that EM ascends for this model: of the joint, of the classification, or of y given x."""
    return NegativeLogLikelihood(joint=hasattr(model.gate, "log_joint"), hard=getattr(model.gate, "hard", False))


def of_units(weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """Weights (n,) of what has one expert of its own: each row, or each group, whose first row stands for it."""
    return weights if leader is None else weights * (leader == jnp.arange(weights.shape[0]))
