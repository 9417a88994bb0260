"""Softmax gates: logits that are linear in x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import Ask, Moments, Quadratic, Table, coefficients_of, predictors, with_intercept
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Softmax(Gate):
    """Softmax of linear functions of the input; made by `softmax`."""

    temperature: float = 1.0
    reference: bool = False
    init_scale: float = 1.0
    is_linear = True

    @property
    def hyper(self) -> dict[str, float]:
        """`temperature`, which divides the logits."""
        return {"temperature": self.temperature}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0."""
        _checks.positive(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Weights (K, d), normal with variance init_scale^2 / d, intercepts (K,) of 0; K - 1 of each with a reference."""
        rows, d = n_experts - self.reference, x.shape[1]
        return {
            "weights": self.init_scale / d**0.5 * jax.random.normal(key, (rows, d), x.dtype),
            "intercept": jnp.zeros(rows, x.dtype),
            "temperature": jnp.asarray(self.temperature, x.dtype),
        }

    def trainable(self, params: Params) -> dict[str, bool]:
        """All but the temperature."""
        return {"weights": True, "intercept": True, "temperature": False}

    def penalized(self, params: Params) -> dict[str, bool]:
        """The weights of the logits."""
        return {name: name == "weights" for name in params}

    def prepare(self, x: jax.Array) -> Table:
        """What all members share: the table of x."""
        return with_intercept(x)

    def logits(self, params: Params, x: Table) -> jax.Array:
        """(x . weights + intercept) / temperature, (K, n); the reference expert's are 0."""
        # The few coefficients are divided rather than the (K, n) logits.
        logits = predictors(params["weights"] / params["temperature"], params["intercept"] / params["temperature"], x)
        if self.reference:
            logits = jnp.concatenate([logits, jnp.zeros_like(logits[:1])])
        return logits

    def statistics(self, params: Params, x: Table, probs: jax.Array, responsibilities: jax.Array, weights: jax.Array) -> Ask:
        """Moments of weight * curvature and of weight * slope, of each logit.

        The curvature diag(g) - g g' of the softmax couples experts. 2 g (1 - g), less g times the reference's, is diagonal
        and bounds it (as 2 g_k g_l v_k v_l >= -g_k g_l (v_k^2 + v_l^2)), exact for two experts; with it each expert's
        logits are a regression of their own.
        """
        count = probs.shape[0] - self.reference
        free = probs[:count]
        other = 2 * (1 - free) - (probs[-1] if self.reference else 0)
        scaled = weights / params["temperature"]
        return Ask(free * other * (scaled / params["temperature"]), (free - responsibilities[:count]) * scaled)

    def quadratic(self, params: Params, moments: Moments) -> Quadratic:
        """The expected loss of each logit in its coefficients."""
        return coefficients_of(params, moments)

    def with_coefficients(self, params: Params, b: jax.Array) -> Params:
        """Params of these coefficients, those of a `Quadratic`."""
        return {**params, "weights": b[:, :-1], "intercept": b[:, -1]}

    def null(self, params: Params) -> Params:
        """Equal probabilities."""
        return {**params, "weights": jnp.zeros_like(params["weights"]), "intercept": jnp.zeros_like(params["intercept"])}

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Coefficients that are not 0, and intercepts; one less of each where all experts have one, of which one is free."""
        taking = active[: params["weights"].shape[0], None]
        nonzero = ((params["weights"] != 0) & taking).sum(axis=0)
        full = nonzero == active.sum()  # never where the reference takes part
        return (nonzero - full).sum() + active.sum() - 1

    def log_probs(self, params: Params, x: Table) -> jax.Array:
        """log softmax(logits), (K, n)."""
        return jax.nn.log_softmax(self.logits(params, x), axis=0)

    def weights(self, params: Params, x: Table) -> jax.Array:
        """exp(logits) over that of the largest, (K, n): softmax but for its sum, by which the model divides."""
        logits = self.logits(params, x)
        return jnp.exp(logits - jax.lax.stop_gradient(logits).max(axis=0))


def softmax(*, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> Softmax:
    """The gate of Jacobs, Jordan, Nowlan and Hinton (1991): softmax of linear functions of the input.

    temperature: divides the logits; the default of the field `temperature` of `hyper`. reference: the last expert's
    logits are 0 (an identified model) instead of one logit for each of K experts. Raises ValueError for a temperature
    that is not above 0.
    """
    _checks.positive("temperature", temperature)
    _checks.not_negative("init_scale", init_scale)
    return Softmax(float(temperature), bool(reference), float(init_scale))
