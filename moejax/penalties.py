"""Penalties on coefficients. Each owns its value and its proximal step, for a weight that a fit gets as a traced number.

A penalty is any record with

    name                                        the field of `hyper` that holds its weight
    part                                        "experts" or "gate": whose coefficients it sees
    value(coefficients) -> scalar               of a list of arrays; the objective has weight * value
    prox(coefficients, t) -> coefficients       arg min over v of  t * value(v) + |v - coefficients|^2 / 2

Proximal steps of several penalties on one part are applied one after another in the order given, which is exact for L1
followed by L2.

Values are sums over coefficients, never means, and intercepts, logits without inputs and scales are not coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Coefficients = list[jax.Array]


def _part(part: str) -> str:
    if part not in ("experts", "gate"):
        raise ValueError(f'part: {part!r} was given; want "experts" or "gate"')
    return part


def _zero() -> jax.Array:
    return jnp.asarray(0.0)  # of no precision of its own, so that sums keep that of the coefficients


@dataclass(frozen=True)
class L1:
    """Sum of absolute values; made by `l1`."""

    part: str

    @property
    def name(self) -> str:
        """`l1_experts` or `l1_gate`."""
        return f"l1_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum of absolute values. Its derivative is sign(c), 0 at 0 (that of `jnp.abs` is 1 there)."""
        return sum((jnp.sum(c * jax.lax.stop_gradient(jnp.sign(c))) for c in coefficients), _zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Soft thresholding at t: exact zeros."""
        return [jnp.sign(c) * jnp.maximum(jnp.abs(c) - t, 0) for c in coefficients]


@dataclass(frozen=True)
class L2:
    """Sum of squares; made by `l2`."""

    part: str

    @property
    def name(self) -> str:
        """`l2_experts` or `l2_gate`."""
        return f"l2_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum of squares."""
        return sum((jnp.square(c).sum() for c in coefficients), _zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Shrinkage by 1 / (1 + 2 t)."""
        return [c / (1 + 2 * t) for c in coefficients]


def l1(part: str) -> L1:
    """The lasso penalty (Tibshirani 1996), weight `l1_experts` or `l1_gate` times the sum of absolute coefficients.

    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return L1(_part(part))


def l2(part: str) -> L2:
    """The ridge penalty, weight `l2_experts` or `l2_gate` times the sum of squared coefficients.

    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return L2(_part(part))


def standard() -> tuple[L1 | L2, ...]:
    """What a fit has unless told otherwise: L1 and L2 on experts and on gate, each of weight 0 until it is set."""
    return (l1("experts"), l2("experts"), l1("gate"), l2("gate"))
