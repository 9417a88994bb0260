"""Targets of 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.families._base import Params, Undispersed, check_values, over_outputs


@dataclass(frozen=True)
class Bernoulli(Undispersed):
    """Labels 0 and 1; made by `bernoulli`."""

    has_sample = True
    has_cdf = True
    has_classes = True
    is_discrete = True

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return log P(y), summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        self._check_support(y)
        return over_outputs(-jax.nn.softplus((1 - 2 * y) * eta))

    def mean(self, eta: jax.Array) -> jax.Array:
        """Return P(y = 1)."""
        return jax.nn.sigmoid(eta)

    def class_probabilities(self, eta: jax.Array) -> jax.Array:
        """Return P(y = 0) and P(y = 1), on a last axis."""
        return jnp.stack([jax.nn.sigmoid(-eta), jax.nn.sigmoid(eta)], axis=-1)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(label <= y), like eta."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        return jnp.where(y < 0, 0, jnp.where(y < 1, jax.nn.sigmoid(-eta), 1))

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return a label from every expert for every row, like eta."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(eta)).astype(eta.dtype)

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return p (1 - p), exact."""
        return jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta)

    def _check_support(self, y: Any) -> None:
        check_values(y, lambda v: (v == 0) | (v == 1), "the labels 0 and 1")


def bernoulli() -> Bernoulli:
    """Construct the Bernoulli family, for labels 0 and 1.

    Returns
    -------
    Bernoulli
        The family.

    Notes
    -----
    eta is the log odds: P(y = 1) = 1 / (1 + exp(-eta)).
    """
    return Bernoulli()
