"""Linear experts: predictors that are linear in x, of one output or of several."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._contracts import by_expert
from moejax._linear import Ask, Moments, Quadratic, Table, predictors, quadratic_of, with_intercept
from moejax.experts._base import Expert
from moejax.experts._columns import Choices


@dataclass(frozen=True)
class Linear(Expert):
    """Linear predictors; made by `linear`.

    Attributes
    ----------
    outputs : int or None, default None
        Number of outputs, None for one.
    init_scale : float, default 1.0
        Standard deviation of the initial predictions, for standardised x.
    choices : Choices or None, default None
        Which columns each expert sees; None for all.
    """

    outputs: int | None = None
    init_scale: float = 1.0
    choices: Choices | None = None
    is_linear = True
    inits_by_shape = True
    has_linear_terms = True

    @property
    def is_divided(self) -> bool:
        """Whether each expert sees columns of its own."""
        return self.choices is not None

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `columns`, which division of the columns holds, if there are several."""
        return {} if self.choices is None else self.choices.hyper

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number of a division that does not exist."""
        self.choices.check_hyper(name, value)  # type: ignore[union-attr]

    def by_columns(self, choices: Choices) -> Linear:
        """Return the same experts, whose coefficients of other columns than their own are exactly 0."""
        return dataclasses.replace(self, choices=choices)

    def reordered(self, params: dict[str, jax.Array], order: Any) -> tuple[Linear, dict[str, jax.Array]]:
        """Return the experts, their columns and their params in another order."""
        choices = None if self.choices is None else self.choices.reordered(order)
        return dataclasses.replace(self, choices=choices), by_expert(params, order)

    def linear_terms(self, params: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Return weights, (K, d) or (K, d, m), and intercepts, (K,) or (K, m)."""
        return self.settled(params)["weights"], params["intercept"]

    def _seen(self, params: Any) -> jax.Array:
        weights = params["weights"]
        return self.choices.seen(params, weights.shape[1], weights.dtype)  # type: ignore[union-attr]

    def settled(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Return params with 0 for the coefficients of columns that an expert does not see."""
        if self.choices is None:
            return params
        seen = self._seen(params).reshape(*params["weights"].shape[:2], *(1,) * (self.outputs is not None))
        return {**params, "weights": seen * params["weights"]}

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Return normal weights, (K, d) or (K, d, m), of variance init_scale^2 / d, and intercepts of 0, (K,) or (K, m)."""
        d = x.shape[1]
        tail = () if self.outputs is None else (self.outputs,)
        scale = self.init_scale / max(d, 1) ** 0.5
        return {
            "weights": scale * jax.random.normal(key, (n_experts, d, *tail), x.dtype),
            "intercept": jnp.zeros((n_experts, *tail), x.dtype),
            **({} if self.choices is None else self.choices.init(n_experts, x)),
        }

    def penalized(self, params: dict[str, jax.Array]) -> dict[str, bool]:
        """Return that the weights are penalised and the intercepts are not."""
        return {name: name == "weights" for name in params}

    def prepare(self, x: jax.Array) -> Table:
        """Return the table of x, which all members share."""
        return with_intercept(x)

    def apply(self, params: dict[str, jax.Array], x: Table) -> jax.Array:
        """Return x . weights + intercept, (K, n) or (K, n, m)."""
        params = self.settled(params)
        eta = predictors(_by_predictor(params["weights"]), params["intercept"].ravel(), x)
        return eta if self.outputs is None else jnp.moveaxis(eta.reshape(-1, self.outputs, eta.shape[1]), 1, 2)

    def statistics(self, params: Any, x: Table, slope: jax.Array, curvature: jax.Array) -> Ask:
        """Ask for the moments of each predictor; the m outputs of an expert are side by side."""
        return Ask(*map(_by_row, (curvature, slope)))

    def quadratic(self, params: Any, moments: Moments) -> Quadratic:
        """Return the expected loss of each predictor as a quadratic in its coefficients."""
        if self.choices is not None:
            moments = moments.of_columns(jnp.repeat(self._seen(params), self.outputs or 1, axis=0))
        weights = _by_predictor(params["weights"])
        b = jnp.concatenate([weights, params["intercept"].reshape(-1, 1)], axis=1)
        return quadratic_of(b, moments)

    def in_use(self, params: Any, sparse: jax.Array) -> jax.Array:
        """Return which columns each predictor uses, (A, d + 1), the intercept last.

        A predictor uses a column if its coefficient is not 0. Where no penalty brings coefficients to 0 (`sparse` is false),
        it uses all columns that the expert sees.
        """
        weights = _by_predictor(params["weights"])
        seen = jnp.ones_like(weights) if self.choices is None else jnp.repeat(self._seen(params), self.outputs or 1, axis=0)
        used = (weights != 0) | ((seen > 0) & ~sparse)
        return jnp.concatenate([used, jnp.ones((len(used), 1), bool)], axis=1)

    def with_coefficients(self, params: Any, b: jax.Array) -> Any:
        """Return params of these coefficients, those of a `Quadratic`; for slopes, a tree like params."""
        shape, intercept = params["weights"].shape, params["intercept"].shape
        weights = b[:, :-1] if self.outputs is None else jnp.swapaxes(b[:, :-1].reshape(shape[0], shape[2], shape[1]), 1, 2)
        return {**params, "weights": weights, "intercept": b[:, -1].reshape(intercept)}

    def null(self, params: dict[str, jax.Array], eta: Any = 0.0) -> dict[str, jax.Array]:
        """Return coefficients of 0 and intercepts eta, a number or (m,)."""
        weights, intercept = jnp.zeros_like(params["weights"]), params["intercept"]
        intercept = jnp.broadcast_to(jnp.asarray(eta, intercept.dtype), intercept.shape)
        return {**params, "weights": weights, "intercept": intercept}

    def degrees_of_freedom(self, params: dict[str, jax.Array]) -> jax.Array:
        """Return the number of nonzero coefficients and intercepts of each expert, (K,)."""
        nonzero = (params["weights"] != 0).reshape(params["weights"].shape[0], -1).sum(axis=1)
        return nonzero + (self.outputs or 1)


def _by_predictor(weights: jax.Array) -> jax.Array:
    """Coefficients (K, d) or (K, d, m) as (A, d), A being K or K m."""
    return weights if weights.ndim == 2 else _flat(jnp.swapaxes(weights, 1, 2))


def _flat(weights: jax.Array) -> jax.Array:
    """Coefficients (K, m, d) as (K m, d), where d may be 0."""
    count, outputs, d = weights.shape
    return weights.reshape(count * outputs, d)


def _by_row(values: jax.Array) -> jax.Array:
    """Values (K, n) or (K, n, m) as (A, n)."""
    return values if values.ndim == 2 else jnp.swapaxes(values, 1, 2).reshape(-1, values.shape[1])


def linear(outputs: int | None = None, *, init_scale: float = 1.0) -> Linear:
    """Construct linear experts.

    Parameters
    ----------
    outputs : int or None, default None
        Number of outputs m. None for a target (n,), m for a target (n, m), or the number of predictors of one target: C for
        C classes, 2 for a location and a log scale.
    init_scale : float, default 1.0
        Standard deviation of the initial predictions of a gradient fit, for standardised x. In the units of eta.

    Returns
    -------
    Linear
        The experts.

    Raises
    ------
    ValueError
        If outputs is below 1 or init_scale below 0.

    Notes
    -----
    The predictor of expert k is

        eta_k(x) = x . weights_k + intercept_k.

    Params are `weights`, (K, d) or (K, d, m), and `intercept`, (K,) or (K, m). Penalties see the weights and never the
    intercepts.
    """
    if outputs is not None:
        outputs = _checks.count("outputs", outputs)
    return Linear(outputs, _checks.number_from_0("init_scale", init_scale))
