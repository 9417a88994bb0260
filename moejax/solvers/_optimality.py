"""How far params are from optimal, in numbers that no unit of x or of the target changes.

A gradient has the units of the objective over those of a number. Divided by the root of the second derivative it has none:
half its square is about what the objective would fall by if that number alone were moved.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from moejax import penalties
from moejax._linear import Moments, Quadratic, on_own_rows
from moejax._ops import where
from moejax._rows import Rows
from moejax._trees import chosen
from moejax.families import Target
from moejax.model import PARTS, Model
from moejax.solvers import _shared

_MOST = 2  # tolerances that are ascribed to rounding
_LEAST = 1e-4  # of the largest curvature in a column, below which others are not taken to be


def violation(fit: Any, params: Any, gradient: Any, hyper: Any, curvature: Any, tol: float) -> jax.Array:
    """By how much the trained numbers violate the optimality condition, see `penalties.kkt`; less what rounding makes of 0.

    gradient: of the mean loss, see `scaled`. curvature: its second derivatives, above 0. Both are like params. tol: see
    `beyond_rounding`.
    """
    marked, trainable = fit.model.penalized(params), fit.model.trainable(params)
    free = jax.tree.map(lambda t, m: t and not m, trainable, marked)
    found = [penalties.kkt(chosen(params, free), chosen(gradient, free), (), chosen(curvature, free))]
    for part in PARTS:
        own, slopes, bends = (chosen(tree[part], marked[part]) for tree in (params, gradient, curvature))
        found.append(penalties.kkt(own, slopes, _shared.used(fit, hyper, part), bends))
    numbers, curvatures = (chosen(tree, trainable) for tree in (params, curvature))
    squares = sum((jnp.square(v) * h).sum() for v, h in zip(numbers, curvatures, strict=True))
    return beyond_rounding(jnp.stack(found).max(), squares, tol)


def beyond_rounding(found: jax.Array, squares: Any, tol: float) -> jax.Array:
    """A violation less what the last digit of numbers makes, and of that no more than twice the tolerance.

    Where rounding makes more, a fit cannot come to the optimum and is not to say so. squares: the sum of numbers^2 *
    curvatures, of predictors.
    """
    rounding = float(jnp.finfo(found.dtype).eps) * jnp.sqrt(squares)
    return jnp.maximum(found - jnp.minimum(rounding, _MOST * tol), 0.0)


def scaled(model: Model, params: Any, problems: dict[str, Quadratic], gradient: Any, gate: Any = None) -> tuple[Any, Any]:
    """The gradient in coefficients of columns that are centred at each expert's rows, and its curvatures, like params.

    Intercepts are not penalised, so that this gradient vanishes where that of other columns does. Curvatures are those of
    quadratics, and 1 where nothing tells. gate: the sums over rows of a gate that `has_gradient`, None where not known.
    """
    curvature, gradient = jax.tree.map(jnp.ones_like, params), dict(gradient)
    for name, q in problems.items():
        part = model.expert if name == "experts" else model.gate
        slope, bend = on_own_rows(q)
        gradient[name] = part.with_coefficients(gradient[name], slope)
        # Beside others a few rows weigh next to nothing, and of none, or a column of nothing, the gradient itself tells.
        bend = jnp.maximum(bend, _LEAST * bend.max(axis=0))
        curvature[name] = part.with_coefficients(curvature[name], where(bend > 0, bend, 1.0))
    if model.gate.has_gradient and gate is not None:
        curvature["gate"] = model.gate.curvature(params["gate"], gate)
    return gradient, curvature


def estimated(fit: Any, params: Any, rows: Rows, gradient: Any, shares: jax.Array, target: Target) -> tuple[Any, Any]:
    """The same, by about the curvature there is, of a solver that has no quadratics.

    For linear parts it follows from the variances of the columns, the experts' shares (K,), and what the loss is for a row
    at the mean of the target. A loss that is no likelihood is taken for one of squares.
    """
    model = fit.model
    means = rows.sum(lambda block: jax.tree.map(lambda v: _summed(block.weights, v), block.x))
    squares = rows.sum(lambda block: jax.tree.map(lambda v, m: _summed(block.weights, jnp.square(v - m)), block.x, means))
    problems = {}
    for name, part, columns in (("experts", model.expert, "expert_columns"), ("gate", model.gate, "gate_columns")):
        if part.is_linear:
            centre, square = (model.seen(columns, v)[0] for v in (means, squares))
            bends = _of_experts(fit, params, shares, target) if name == "experts" else _of_gate(fit, target)
            gram = bends[:, None, None] * jnp.diag(jnp.append(square, 1.0))
            raw = part.quadratic(gradient[name], Moments(gram, jnp.zeros_like(gram[:, 0]), centre))  # b is the gradient
            slope = jnp.concatenate([raw.b[:, :-1] - centre * raw.b[:, -1:], raw.b[:, -1:]], axis=1)
            whole = jnp.broadcast_to(raw.gram, (len(slope), *gram.shape[1:]))
            problems[name] = Quadratic(slope, slope, whole, jnp.zeros_like(raw.means))
    return scaled(model, params, problems, gradient)


def _summed(weights: jax.Array, x: jax.Array) -> jax.Array:
    """The weighted sum over rows, as one row."""
    return jnp.tensordot(weights, x, 1)[None]


def _of_experts(fit: Any, params: Any, shares: jax.Array, target: Target) -> jax.Array:
    """About the second derivative of the loss in each predictor of linear experts, (A,)."""
    model = fit.model
    outputs = model.expert.outputs or 1
    bends: jax.Array = jnp.full((1, outputs), 2 / outputs, shares.dtype)
    if fit.loss.has_likelihood:
        y = target.mean[None]
        shape = (len(shares), 1, *(() if model.expert.outputs is None else (outputs,)))
        eta = jnp.broadcast_to(jnp.asarray(model.family.start(target)), shape)
        bends = model.family.curvature(y, eta.astype(y.dtype), model.phi(params)).reshape(-1, outputs)
    return (jnp.broadcast_to(bends, (len(shares), outputs)) * shares[:, None]).ravel()


def _of_gate(fit: Any, target: Target) -> jax.Array:
    """About the same in a logit of the gate, (1,)."""
    return jnp.full((1,), 0.25) * (1.0 if fit.loss.has_likelihood else 2 * _variance(target))


def unit_of(fit: Any, target: Target) -> jax.Array | float:
    """The unit of the loss: none of a likelihood; others are taken for squares of the target."""
    return 1.0 if fit.loss.has_likelihood else _variance(target)


def _variance(target: Target) -> jax.Array:
    """Of the target, a mean over its outputs; 1 where it is constant."""
    variance = jnp.mean(target.variance)
    return where(variance > 0, variance, 1.0)
