"""Linear experts: predictors that are linear in x, of one output or of several."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import Ask, Moments, Quadratic, Table, predictors, quadratic_of, with_intercept
from moejax.experts._base import Expert
from moejax.experts._columns import Choices


@dataclass(frozen=True)
class Linear(Expert):
    """Linear predictors; made by `linear`."""

    outputs: int | None = None
    init_scale: float = 1.0
    choices: Choices | None = None
    is_linear = True

    @property
    def is_divided(self) -> bool:
        """Whether each expert sees columns of its own."""
        return self.choices is not None

    @property
    def hyper(self) -> dict[str, float]:
        """Of experts that see some columns only, which (see `by_columns`)."""
        return {} if self.choices is None else self.choices.hyper

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number of no choice of columns."""
        self.choices.check_hyper(name, value)  # type: ignore[union-attr]

    def by_columns(self, choices: Choices) -> Linear:
        """The same experts, each of which sees some columns only: the coefficients of the others are exactly 0."""
        return dataclasses.replace(self, choices=choices)

    def _seen(self, params: Any) -> jax.Array:
        weights = params["weights"]
        return self.choices.seen(params, weights.shape[1], weights.dtype)  # type: ignore[union-attr]

    def settled(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Params with 0 for the coefficients of columns that an expert does not see."""
        if self.choices is None:
            return params
        seen = self._seen(params).reshape(*params["weights"].shape[:2], *(1,) * (self.outputs is not None))
        return {**params, "weights": seen * params["weights"]}

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Normal weights of variance init_scale^2 / d and intercepts of 0: (K, d) and (K,), or (K, d, m) and (K, m)."""
        d = x.shape[1]
        tail = () if self.outputs is None else (self.outputs,)
        scale = self.init_scale / d**0.5
        return {
            "weights": scale * jax.random.normal(key, (n_experts, d, *tail), x.dtype),
            "intercept": jnp.zeros((n_experts, *tail), x.dtype),
            **({} if self.choices is None else self.choices.init(n_experts, x)),
        }

    def penalized(self, params: dict[str, jax.Array]) -> dict[str, bool]:
        """The weights."""
        return {name: name == "weights" for name in params}

    def prepare(self, x: jax.Array) -> Table:
        """What all members share: the table of x."""
        return with_intercept(x)

    def apply(self, params: dict[str, jax.Array], x: Table) -> jax.Array:
        """x . weights + intercept, (K, n) or (K, n, m), for x as `prepare` returns it."""
        params = self.settled(params)
        eta = predictors(_by_predictor(params["weights"]), params["intercept"].ravel(), x)
        return eta if self.outputs is None else jnp.moveaxis(eta.reshape(-1, self.outputs, eta.shape[1]), 1, 2)

    def statistics(self, params: Any, x: Table, slope: jax.Array, curvature: jax.Array) -> Ask:
        """Moments of each predictor, those of an expert's m outputs side by side."""
        return Ask(*map(_by_row, (curvature, slope)))

    def quadratic(self, params: Any, moments: Moments) -> Quadratic:
        """The expected loss of each predictor in its coefficients."""
        if self.choices is not None:
            moments = moments.of_columns(jnp.repeat(self._seen(params), self.outputs or 1, axis=0))
        weights = _by_predictor(params["weights"])
        b = jnp.concatenate([weights, params["intercept"].reshape(-1, 1)], axis=1)
        return quadratic_of(b, moments)

    def in_use(self, params: Any, sparse: jax.Array) -> jax.Array:
        """Which columns, and the intercept's, each predictor uses, (A, d + 1): those of coefficients that are not 0, and all
        that the expert sees where no penalty brings coefficients to 0 (sparse is false).
        """
        weights = _by_predictor(params["weights"])
        seen = jnp.ones_like(weights) if self.choices is None else jnp.repeat(self._seen(params), self.outputs or 1, axis=0)
        used = (weights != 0) | ((seen > 0) & ~sparse)
        return jnp.concatenate([used, jnp.ones_like(used[:, :1])], axis=1)

    def with_coefficients(self, params: Any, b: jax.Array) -> Any:
        """Params of these coefficients, those of a `Quadratic`; of slopes, a tree like params."""
        shape, intercept = params["weights"].shape, params["intercept"].shape
        weights = b[:, :-1] if self.outputs is None else jnp.swapaxes(b[:, :-1].reshape(shape[0], shape[2], shape[1]), 1, 2)
        return {**params, "weights": weights, "intercept": b[:, -1].reshape(intercept)}

    def null(self, params: dict[str, jax.Array], eta: Any = 0.0) -> dict[str, jax.Array]:
        """Coefficients of 0 and intercepts eta, a number or (m,): where EM begins when it is given responsibilities."""
        weights, intercept = jnp.zeros_like(params["weights"]), params["intercept"]
        intercept = jnp.broadcast_to(jnp.asarray(eta, intercept.dtype), intercept.shape)
        return {**params, "weights": weights, "intercept": intercept}

    def degrees_of_freedom(self, params: dict[str, jax.Array]) -> jax.Array:
        """Nonzero coefficients and intercepts of each expert, (K,)."""
        nonzero = (params["weights"] != 0).reshape(params["weights"].shape[0], -1).sum(axis=1)
        return nonzero + (self.outputs or 1)


def _by_predictor(weights: jax.Array) -> jax.Array:
    """Coefficients (K, d) or (K, d, m) as (A, d), A being K or K m."""
    return weights if weights.ndim == 2 else jnp.swapaxes(weights, 1, 2).reshape(-1, weights.shape[1])


def _by_row(values: jax.Array) -> jax.Array:
    """Values (K, n) or (K, n, m) as (A, n)."""
    return values if values.ndim == 2 else jnp.swapaxes(values, 1, 2).reshape(-1, values.shape[1])


def linear(outputs: int | None = None, *, init_scale: float = 1.0) -> Linear:
    """Linear experts, eta_k(x) = x . weights_k + intercept_k.

    outputs: None for a target (n,), m for a target (n, m). init_scale: the standard deviation of the initial
    predictions when x is standardised. Raises ValueError for outputs below 1 or an init_scale below 0.
    """
    if outputs is not None:
        _checks.count("outputs", outputs)
    _checks.not_negative("init_scale", init_scale)
    return Linear(outputs, float(init_scale))
