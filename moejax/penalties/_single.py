"""Penalties on single coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.penalties._formulas import Coefficients, checked_part, largest_absolute, soft_threshold, zero


@dataclass(frozen=True)
class L1:
    """Sum of absolute values; made by `l1`."""

    part: str
    place = (0, 0)
    kinked = True
    separable = (1.0, 0.0)

    @property
    def name(self) -> str:
        """`l1_experts` or `l1_gate`."""
        return f"l1_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum of absolute values. Its derivative is sign(c), 0 at 0 (that of `jnp.abs` is 1 there)."""
        return sum((jnp.sum(c * jax.lax.stop_gradient(jnp.sign(c))) for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Soft thresholding at t: exact zeros."""
        return [soft_threshold(c, t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest absolute gradient."""
        return largest_absolute(gradients)

    def majorant(self, h: jax.Array) -> jax.Array:
        """The curvatures themselves, for nothing is coupled."""
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros_like(coefficients)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """The value for each expert, (K,)."""
        return jax.vmap(lambda c: self.value([c]))(coefficients)


@dataclass(frozen=True)
class L2:
    """Sum of squares; made by `l2`."""

    part: str
    place = (2, 2)
    kinked = False
    separable = (0.0, 1.0)

    @property
    def name(self) -> str:
        """`l2_experts` or `l2_gate`."""
        return f"l2_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum of squares."""
        return sum((jnp.square(c).sum() for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Shrinkage by 1 / (1 + 2 t)."""
        return [c / (1 + 2 * t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Infinity: no weight makes coefficients 0."""
        return jnp.asarray(jnp.inf)

    def majorant(self, h: jax.Array) -> jax.Array:
        """The curvatures themselves, for nothing is coupled."""
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """2."""
        return jnp.full_like(coefficients, 2)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """The value for each expert, (K,)."""
        return jax.vmap(lambda c: self.value([c]))(coefficients)


@dataclass(frozen=True)
class ElasticNet:
    """Absolute values and squares under one weight; made by `elastic_net`."""

    part: str
    l1_ratio: float = 0.5
    place = (1, 2)

    @property
    def kinked(self) -> bool:
        """Whether there is a share of L1."""
        return self.l1_ratio > 0

    @property
    def separable(self) -> tuple[float, float]:
        """The weights of absolute values and of squares."""
        return self.l1_ratio, (1 - self.l1_ratio) / 2

    @property
    def name(self) -> str:
        """`elastic_net_experts` or `elastic_net_gate`."""
        return f"elastic_net_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """l1_ratio times the sum of absolute values + (1 - l1_ratio) / 2 times the sum of squares."""
        sizes, squares = L1(self.part).value(coefficients), L2(self.part).value(coefficients)
        return self.l1_ratio * sizes + (1 - self.l1_ratio) / 2 * squares

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Soft thresholding at t * l1_ratio, then shrinkage by 1 / (1 + t * (1 - l1_ratio))."""
        # A share of 0 times a step of infinity is no number.
        threshold, shrinkage = (t * share if share else 0.0 for share in (self.l1_ratio, 1 - self.l1_ratio))
        return [soft_threshold(c, threshold) / (1 + shrinkage) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest absolute gradient over l1_ratio; infinity for a ratio of 0."""
        return largest_absolute(gradients) / self.l1_ratio if self.l1_ratio else jnp.asarray(jnp.inf)

    def majorant(self, h: jax.Array) -> jax.Array:
        """The curvatures themselves, for nothing is coupled."""
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """1 - l1_ratio."""
        return jnp.full_like(coefficients, 1 - self.l1_ratio)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """The value for each expert, (K,)."""
        return jax.vmap(lambda c: self.value([c]))(coefficients)


def l1(part: str) -> L1:
    """The lasso penalty (Tibshirani 1996), weight `l1_experts` or `l1_gate` times the sum of absolute coefficients.

    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return L1(checked_part(part))


def l2(part: str) -> L2:
    """The ridge penalty, weight `l2_experts` or `l2_gate` times the sum of squared coefficients.

    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return L2(checked_part(part))


def elastic_net(part: str, l1_ratio: float = 0.5) -> ElasticNet:
    """The elastic net (Zou and Hastie 2005) as scikit-learn and glmnet have it: weight `elastic_net_experts` or
    `elastic_net_gate` times (l1_ratio * sum of |c| + (1 - l1_ratio) / 2 * sum of c^2).

    Their mean squared errors have a factor of 1/2 that `losses.squared_error` lacks, so that a weight here is twice theirs.
    part: "experts" or "gate". l1_ratio: from 0, a ridge, to 1, the lasso. Raises ValueError for anything else.
    """
    _checks.not_negative("l1_ratio", l1_ratio)
    if l1_ratio > 1:
        raise ValueError(f"l1_ratio: {l1_ratio} was given; want a number from 0 to 1")
    return ElasticNet(checked_part(part), float(l1_ratio))
