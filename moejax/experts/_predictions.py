"""Experts that are fitted already: predictors that come with the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from moejax.experts._base import Expert


@dataclass(frozen=True)
class Predictions(Expert):
    """Predictors that come with the inputs; made by `predictions`."""

    inits_by_shape = True

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Return no params; raise ValueError unless x has a column for each expert."""
        if x.shape[1] != n_experts:
            raise ValueError(f"predictions: {x.shape[1]} columns were given for {n_experts} experts; want one for each")
        return {}

    def penalized(self, params: dict[str, jax.Array]) -> dict[str, bool]:
        """Return no coefficients, because nothing is trained."""
        return {}

    def prepare(self, x: jax.Array) -> jax.Array:
        """Return the given predictors once their shape is checked."""
        if not hasattr(x, "ndim") or x.ndim not in (2, 3):
            given = f"shape {x.shape}" if hasattr(x, "ndim") else f"a {type(x).__name__}"
            raise ValueError(f"predictions: {given} was given; want (n, K) or (n, K, m), which expert_columns may name in x")
        return x

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """Return the given predictors, experts first: (n, K) to (K, n), (n, K, m) to (K, n, m)."""
        return jnp.swapaxes(x, 0, 1)


def predictions() -> Predictions:
    """Construct experts that are fitted already, whose predictors come with the inputs.

    Returns
    -------
    Predictions
        The experts. Nothing in them is trained; the gate and the scales are.

    Notes
    -----
    What the experts see of x is their predictors, (n, K) or (n, K, m), on the scale of eta: means for `gaussian`, log odds
    for `bernoulli`, log probabilities (n, K, C) for `categorical`, log means for `poisson` and `gamma`. They usually see one
    of several named arrays in x (see `expert_columns` in `moejax.moe`). `moejax.stacking` makes that array.
    """
    return Predictions()
