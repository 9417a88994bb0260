"""What families share: what one without dispersion parameters does, shapes and checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks

Params = dict[str, jax.Array]


class Target(NamedTuple):
    """What families want to know of the target as a whole, by weight. mean, variance: () or (m,), of each output."""

    mean: jax.Array
    variance: jax.Array


def target_of(y: jax.Array, weights: jax.Array) -> Target:
    """The target's mean and variance, for weights (n,) of sum 1."""
    share = weights.reshape(-1, *(1,) * (y.ndim - 1))
    mean = (share * y).sum(axis=0)
    return Target(mean, (share * jnp.square(y - mean)).sum(axis=0))


class Family:
    """What families without dispersion parameters share."""

    def init(self, n_experts: int, eta: Any) -> Params:
        """Nothing to estimate."""
        return {}

    def penalized(self, phi: Params) -> dict[str, bool]:
        """Nothing."""
        return dict.fromkeys(phi, False)

    def at_floor(self, phi: Params, target: Target) -> jax.Array:
        """Never."""
        return jnp.zeros((), bool)

    def held(self, phi: Params, target: Target) -> Params:
        """All numbers in phi where some dispersion is at its floor, since a bound ties them together."""
        at_floor = self.at_floor(phi, target)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(at_floor, leaf.shape), phi)

    def degrees_of_freedom(self, phi: Params) -> jax.Array:
        """None."""
        return jnp.zeros((), int)

    def spread(self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array) -> tuple[()]:
        """Nothing."""
        return ()

    def dispersion(self, phi: Params, sums: Any, change: jax.Array, target: Target) -> Params:
        """Phi as it is."""
        return phi

    def check_target(self, y: Any, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y has this shape and values of the family's support."""
        _checks.shape("y", y, shape, "what this model predicts for this x")
        self._check_support(y)

    def _check_support(self, y: Any) -> None:
        _checks.finite("y", y)


def beside_eta(values: jax.Array, shared: bool) -> jax.Array:
    """Against eta: (K,) or () beside (K, n), (K, m) or (m,) beside (K, n, m)."""
    return values if shared else jnp.expand_dims(values, 1)


def like_eta(weights: jax.Array, each: jax.Array) -> jax.Array:
    return weights[..., None] if each.ndim == 3 else weights


def residuals(y: jax.Array, location: jax.Array) -> jax.Array:
    _checks.shape("y", y, location.shape[1:], "like an expert's predictions")
    return y - location


def over_outputs(each: jax.Array) -> jax.Array:
    return each.sum(axis=2) if each.ndim == 3 else each


def check_values(y: Any, good: Callable[[np.ndarray], np.ndarray], want: str) -> None:
    _checks.finite("y", y)
    if _checks.is_traced(y):
        return
    values = np.asarray(y, float)
    bad = ~good(values)
    if bad.any():
        raise ValueError(f"y: {values[bad][0]:g} was given ({int(bad.sum())} of {bad.size} are not right); want {want}")
