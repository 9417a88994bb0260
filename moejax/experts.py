"""Experts: what each of the K experts says of a row, before any gate weighs it.

An expert is any record with two pure functions, for all K experts at once:

    init(key, n_experts, x) -> params            params: a pytree, experts on its leading axis
    apply(params, x) -> eta                      eta: (K, n), or (K, n, m) for m outputs

and, where it helps, `prepare(x)`, run once and shared by all members of a sweep, whose result `apply` then gets in the
place of x; `trainable(params)` and `penalized(params)`, trees of booleans (see `moejax.model`); `takes_any_array`, whether x
may be an array of any shape with n leading, such as images, rather than a table (n, d); and `degrees_of_freedom(params) ->
(K,)`, two more rows than which an expert needs so as not to count as starved (without it, two). `stack` makes such a record
of the two functions of a single expert, and `neural` of a network.

For an M-step of its own in EM (without it, it gets gradient steps on EM's expected objective):

    statistics(rows, curvature) -> statistics            sums over rows; curvature: like eta, of the loss in eta
    m_step(params, gradient, statistics, penalties) -> params
    rows(x) -> rows                                      optional: computed once from what `prepare` returned
    null(params, eta) -> params                          optional: where to begin from given responsibilities, predicting eta

gradient is that of the expected loss in params. penalties: pairs of a penalty and its weight. From sums of rows alone, the
M-step lowers the quadratic approximation of the expected loss, plus penalties; the solver sees to it that the expected
objective itself never rises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _check
from moejax._linear import Moments, Pairs, collinear, dot, moments, pairs, predictors, quadratic_step, with_intercept
from moejax.neural import neural_expert

neural = neural_expert  # networks have a file of their own


@dataclass(frozen=True)
class Linear:
    """Linear predictors; made by `linear`."""

    outputs: int | None = None
    init_scale: float = 1.0

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Normal weights of variance init_scale^2 / d and intercepts of 0: (K, d) and (K,), or (K, d, m) and (K, m)."""
        d = x.shape[1]
        tail = () if self.outputs is None else (self.outputs,)
        scale = self.init_scale / d**0.5
        return {
            "weights": scale * jax.random.normal(key, (n_experts, d, *tail), x.dtype),
            "intercept": jnp.zeros((n_experts, *tail), x.dtype),
        }

    def prepare(self, x: jax.Array) -> jax.Array:
        """What all members share: x with a column of ones, (n, d + 1)."""
        return with_intercept(x)

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """x . weights + intercept, (K, n) or (K, n, m), for x as `prepare` returns it."""
        if self.outputs is None:
            return predictors(params["weights"], params["intercept"], x)
        coefficients = jnp.concatenate([params["weights"], params["intercept"][:, None]], axis=1)
        return jnp.moveaxis(dot(jnp.moveaxis(coefficients, 1, 2), x.T), 1, 2)

    def rows(self, x: jax.Array) -> Pairs:
        """What `statistics` wants of x as `prepare` returns it, computed once."""
        return pairs(x)

    def statistics(self, rows: Pairs, curvature: jax.Array) -> Moments:
        """sum over rows of curvature * x x', (K, p, p) or (K, m, p, p), for curvatures (K, n) or (K, n, m)."""
        return moments(rows, curvature if self.outputs is None else jnp.swapaxes(curvature, 1, 2))

    def m_step(self, params: Any, gradient: Any, statistics: Moments, penalties: Any) -> Any:
        """Params at which the quadratic with that gradient and those statistics, plus penalties, is lower."""
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
        return {"weights": weights, "intercept": jnp.broadcast_to(jnp.asarray(eta, intercept.dtype), intercept.shape)}

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
        _check.count("outputs", outputs)
    _check.not_negative("init_scale", init_scale)
    return Linear(outputs, float(init_scale))


@dataclass(frozen=True)
class Stack:
    """K copies of one expert; made by `stack`."""

    one_init: Callable[[jax.Array, Any], Any]
    one_apply: Callable[[Any, Any], jax.Array]

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The single expert's parameters, drawn K times, stacked on a leading axis."""
        return jax.vmap(lambda k: self.one_init(k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """The single expert's predictions with each of the K parameters: (K, n) or (K, n, m)."""
        return jax.vmap(self.one_apply, in_axes=(0, None))(params, x)


def stack(init: Callable[[jax.Array, Any], Any], apply: Callable[[Any, Any], jax.Array]) -> Stack:
    """K experts from the two functions of a single one.

    init(key, x) -> params of one expert, any pytree; apply(params, x) -> its predictions, (n,) or (n, m).
    """
    return Stack(init, apply)
