"""Gates that weigh experts by forecasts of their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._linear import Table, predictors, with_intercept
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Confidence(Gate):
    """Softmax of minus forecasts of the experts' losses; made by `confidence`."""

    coefficients: tuple[tuple[float, ...], ...] | None = None  # of each expert, the intercept last
    temperature: float = 1.0

    @property
    def hyper(self) -> dict[str, float]:
        """`temperature`, which divides the forecasts."""
        return {"temperature": self.temperature}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0."""
        _checks.positive(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """The forecasts' coefficients, weights (K, d) and intercepts (K,); the identity where forecasts are what is seen."""
        d = x.shape[1]
        given = np.eye(n_experts, n_experts + 1) if self.coefficients is None else np.asarray(self.coefficients)
        if given.shape != (n_experts, d + 1):
            what = "the forecast of each" if self.coefficients is None else f"{given.shape[1] - 1} for {given.shape[0]}"
            raise ValueError(f"confidence: {d} columns were given for {n_experts} experts; want {what}")
        coefficients = jnp.asarray(given, x.dtype)
        return {
            "weights": coefficients[:, :-1],
            "intercept": coefficients[:, -1],
            "temperature": jnp.asarray(self.temperature, x.dtype),
        }

    def trainable(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return dict.fromkeys(params, False)

    def penalized(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return dict.fromkeys(params, False)

    def prepare(self, x: jax.Array) -> Table:
        """What all members share: the table of x."""
        return with_intercept(x)

    def log_probs(self, params: Params, x: Table) -> jax.Array:
        """log softmax(-forecasts / temperature), (K, n)."""
        forecasts = predictors(params["weights"], params["intercept"], x)
        return jax.nn.log_softmax(-forecasts / params["temperature"], axis=0)


def confidence(weights: Any = None, intercept: Any = None, *, temperature: float = 1.0) -> Confidence:
    """A gate of forecasts: expert k counts by exp(-l_k(x) / temperature), l_k(x) the loss in nats that is forecast for it.

    weights (K, d), intercept (K,): of forecasts that are linear in what the gate sees, as `moejax.stacking.linear_forecasts`
    fits them to the experts' out-of-fold losses; they are kept, and never trained. Without them the gate sees the forecasts
    themselves, (n, K), whatever made them.

    The loss of a classifier is -log of the probability that it gives the right class. That of a regressor with error r is
    log(r^2) / 2: where its error is normal with variance s_k^2(x), E[log r^2 | x] = log s_k^2(x) - 1.27, the same constant
    for all experts, and a normal expert of that variance has the expected log density -log s_k(x) + constant. Forecasts of
    either kind are thus expected log densities but for their sign and a constant in which experts are alike, and
    exp(-l_k(x) / temperature) is proportional to s_k(x)^(-1 / temperature). At a temperature of 1 experts count by expected
    density. At 0.5 they count by inverse variance, which is the best convex combination for squared error where errors are
    unbiased and independent. Towards 0 the expert of the lowest forecast is chosen, and towards infinity all count alike.

    temperature: the default of the field `temperature` of `hyper`. Raises ValueError for a temperature that is not above 0,
    and for coefficients of which one is missing or not finite, or whose shapes differ.
    """
    _checks.positive("temperature", temperature)
    if weights is None and intercept is None:
        return Confidence(None, float(temperature))
    _checks.shape("weights", weights, (None, None), "experts by what the gate sees")
    _checks.shape("intercept", intercept, (np.shape(weights)[0],), "one for each expert")
    _checks.finite("weights", weights)
    _checks.finite("intercept", intercept)
    rows = np.column_stack([weights, intercept]).astype(float)
    return Confidence(tuple(map(tuple, rows.tolist())), float(temperature))
