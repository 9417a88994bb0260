"""Losses: the mean over rows that a fit improves, before penalties.

A loss is any record with

    value(model, params, data, weights) -> scalar      data: a `moejax.model.Data`; weights: (n,), of sum 1

and, where it helps, `has_likelihood`, whether it is a mixture's negative log-likelihood (else no), and `check(model)`,
which raises where model and loss do not go together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _check
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
        return weights @ (squares.mean(axis=1) if squares.ndim == 2 else squares)


def squared_error() -> SquaredError:
    """Squared error of the prediction, a mean over rows (and over outputs)."""
    return SquaredError()


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Negative log-likelihood of the mixture; made by `nll`."""

    has_likelihood = True

    def check(self, model: Model) -> None:
        """Raise for a model without a family, and for a gate that chooses one expert, whose likelihood is another."""
        if getattr(model.gate, "hard", False):
            raise ValueError("loss: nll was given for a gate that chooses one expert; want squared_error, or a soft gate")
        if model.family is None:
            raise ValueError("loss: nll was given for a model without a family; want moe(..., family=families.gaussian())")

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows of -log p(y | x)."""
        log_joint = model.log_joint(params, data.x, data.y, data.offset)
        return -weights @ jax.nn.logsumexp(log_joint, axis=0)


def nll() -> NegativeLogLikelihood:
    """Negative log-likelihood of the mixture, a mean over rows; needs a family and a soft gate."""
    return NegativeLogLikelihood()
