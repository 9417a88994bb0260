"""Linear experts: predictors that are linear in x, of one output or of several."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import Moments, Pairs, collinear, dot, moments, pairs, predictors, quadratic_step, with_intercept
from moejax.experts._columns import Choices


@dataclass(frozen=True)
class Linear:
    """Linear predictors; made by `linear`."""

    outputs: int | None = None
    init_scale: float = 1.0
    choices: Choices | None = None

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

    def prepare(self, x: jax.Array) -> jax.Array:
        """What all members share: x with a column of ones, (n, d + 1)."""
        return with_intercept(x)

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """x . weights + intercept, (K, n) or (K, n, m), for x as `prepare` returns it."""
        params = self.settled(params)
        if self.outputs is None:
            return predictors(params["weights"], params["intercept"], x)
        coefficients = jnp.concatenate([params["weights"], params["intercept"][:, None]], axis=1)
        return jnp.moveaxis(dot(jnp.moveaxis(coefficients, 1, 2), x.T), 1, 2)

    def rows(self, x: jax.Array) -> Pairs:
        """What `statistics` wants of x as `prepare` returns it, computed once."""
        return pairs(x)

    def statistics(self, rows: Pairs, curvature: jax.Array, slope: jax.Array, total: jax.Array) -> Moments:
        """sum over rows of curvature * x x', (K, p, p) or (K, m, p, p), for curvatures (K, n) or (K, n, m)."""
        return moments(rows, curvature if self.outputs is None else jnp.swapaxes(curvature, 1, 2))

    def m_step(self, params: Any, gradient: Any, statistics: Moments, penalties: Any) -> Any:
        """Params at which the quadratic with that gradient and those statistics, plus penalties, is lower."""
        if self.choices is not None:
            statistics = statistics.of_columns(self._seen(params))
        return quadratic_step(params, gradient, statistics, penalties)

    @property
    def exact(self) -> bool:
        """Whether an M-step lowers the quadratic itself, as predictors that are linear in params allow."""
        return True

    def deficient(self, params: dict[str, jax.Array], statistics: Moments) -> jax.Array:
        """Whether the columns with coefficients are collinear in an expert's rows, (K,)."""
        return collinear(params, statistics)

    def null(self, params: dict[str, jax.Array], eta: Any = 0.0) -> dict[str, jax.Array]:
        """Coefficients of 0 and intercepts eta, a number or (m,): where EM begins when it is given responsibilities."""
        weights, intercept = jnp.zeros_like(params["weights"]), params["intercept"]
        intercept = jnp.broadcast_to(jnp.asarray(eta, intercept.dtype), intercept.shape)
        return {**params, "weights": weights, "intercept": intercept}

    def degrees_of_freedom(self, params: dict[str, jax.Array]) -> jax.Array:
        """Nonzero coefficients and intercepts of each expert, (K,)."""
        nonzero = (params["weights"] != 0).reshape(params["weights"].shape[0], -1).sum(axis=1)
        return nonzero + (self.outputs or 1)


def linear(outputs: int | None = None, *, init_scale: float = 1.0) -> Linear:
    """Linear experts, eta_k(x) = x . weights_k + intercept_k.

    outputs: None for a target (n,), m for a target (n, m). init_scale: the standard deviation of the initial
    predictions when x is standardised. Raises ValueError for outputs below 1 or an init_scale below 0.
    """
    if outputs is not None:
        _checks.count("outputs", outputs)
    _checks.not_negative("init_scale", init_scale)
    return Linear(outputs, float(init_scale))
