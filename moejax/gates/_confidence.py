"""Gates that weigh experts by forecasts of their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._contracts import by_expert
from moejax._linear import Table, predictors, with_intercept
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Confidence(Gate):
    """Softmax of minus forecasts of the experts' losses; made by `confidence`.

    Attributes
    ----------
    coefficients : tuple of tuple of float or None, default None
        Coefficients of each expert's forecast, the intercept last; None where the gate sees the forecasts.
    temperature : float, default 1.0
        Divides the forecasts.
    """

    coefficients: tuple[tuple[float, ...], ...] | None = None  # of each expert, the intercept last
    temperature: float = 1.0
    has_linear_terms = True
    inits_by_shape = True

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `temperature`, which divides the forecasts."""
        return {"temperature": self.temperature}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0."""
        _checks.positive(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return the coefficients of the forecasts, (K, d) and (K,); the identity where the gate sees the forecasts."""
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
        """Return that nothing is trained."""
        return dict.fromkeys(params, False)

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that nothing is penalised."""
        return dict.fromkeys(params, False)

    def reordered(self, params: Params, order: Any) -> tuple[Confidence, Params]:
        """Return the gate and the forecasts in another order of the experts."""
        given = self.coefficients
        coefficients = None if given is None else tuple(given[k] for k in order)
        return Confidence(coefficients, self.temperature), by_expert(params, order)

    def linear_terms(self, params: Params) -> tuple[jax.Array, jax.Array]:
        """Return minus the coefficients of the forecasts, (K, d) and (K,), divided by the temperature."""
        return -params["weights"] / params["temperature"], -params["intercept"] / params["temperature"]

    def prepare(self, x: jax.Array) -> Table:
        """Return the table of x, which all members share."""
        return with_intercept(x)

    def log_probs(self, params: Params, x: Table) -> jax.Array:
        """Return log softmax(-forecasts / temperature), (K, n)."""
        forecasts = predictors(params["weights"], params["intercept"], x)
        return jax.nn.log_softmax(-forecasts / params["temperature"], axis=0)


def confidence(weights: Any = None, intercept: Any = None, *, temperature: float = 1.0) -> Confidence:
    """Construct a gate that weighs experts by forecasts of their losses.

    Parameters
    ----------
    weights : array_like or None, (K, d), default None
        Coefficients of forecasts that are linear in what the gate sees, as `moejax.stacking.linear_forecasts` fits them to
        the experts' out-of-fold losses. They are kept and never trained. None where the gate sees the forecasts themselves,
        (n, K).
    intercept : array_like or None, (K,), default None
        Intercepts of the forecasts, in nats. None if weights is.
    temperature : float, default 1.0
        Divides the forecasts. It is the default of the field `temperature` of `hyper`.

    Returns
    -------
    Confidence
        The gate.

    Raises
    ------
    ValueError
        If temperature is not above 0, if one of weights and intercept is missing, or if they are not finite or differ in
        shape.

    Notes
    -----
    With l_k(x) the forecast of the loss of expert k, in nats,

        g_k(x) = exp(-l_k(x) / temperature) / sum over j of exp(-l_j(x) / temperature).

    The loss of a classifier is -log of the probability that it gives the right class. The loss of a regressor with error r
    is log(r^2) / 2. Where its error is normal with variance s_k^2(x), E[log r^2 | x] = log s_k^2(x) - 1.27, with the same
    constant for all experts, and a normal expert of that variance has the expected log density -log s_k(x) + constant.
    Forecasts of either kind are thus minus expected log densities but for a constant that all experts share, and g_k(x) is
    proportional to s_k(x)^(-1 / temperature). At a temperature of 1 experts count by expected density. At 0.5 they count by
    inverse variance, which is the best convex combination for squared error where errors are unbiased and independent.
    Towards 0 the expert of the lowest forecast is chosen. Towards infinity all experts count alike.
    """
    temperature = _checks.number_above_0("temperature", temperature)
    if weights is None and intercept is None:
        return Confidence(None, temperature)
    _checks.shape("weights", weights, (None, None), "experts by what the gate sees")
    _checks.shape("intercept", intercept, (_checks.shape_of("weights", weights)[0],), "one for each expert")
    _checks.finite("weights", weights)
    _checks.finite("intercept", intercept)
    rows = np.column_stack([weights, intercept]).astype(float)
    return Confidence(tuple(map(tuple, rows.tolist())), temperature)
