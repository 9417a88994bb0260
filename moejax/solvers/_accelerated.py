"""Accelerated proximal gradient steps, whose sizes a line search finds."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax._trees import merge, split
from moejax.solvers import _shared
from moejax.solvers._proximal import shrunk_parts
from moejax.solvers._training import LARGEST, PENALIZED, Hyper, MeanLoss, TrainState, tree_dot, tree_minus


class _Momentum(NamedTuple):
    """The state of the accelerated method. ahead: where the next proximal gradient step starts, extrapolated from params.

    t: of FISTA, 1 where the extrapolation starts anew. size: of the last step that told the curvature. growth: what
    the next one may be larger by. objective: at params; infinity where ahead is params, whose objective the next step
    computes anyhow.
    """

    ahead: Any
    t: jax.Array
    size: jax.Array
    growth: jax.Array
    objective: jax.Array


class _Trial(NamedTuple):
    """One trial of the line search: the step's size, where it led, the loss there and the most that it may be."""

    number: jax.Array
    size: jax.Array
    there: Any
    loss: jax.Array
    bound: jax.Array


def no_momentum(trained: Any, size: float) -> _Momentum:
    """The state before the first accelerated step. size: the first one that is tried is twice that."""
    one = jnp.ones((), jnp.result_type(*jax.tree.leaves(trained)))
    return _Momentum(trained, one, size * one, 2 * one, jnp.inf * one)


def _searched(
    loss: Any, shrunk: Any, start: Any, value: jax.Array, gradient: Any, size: jax.Array, slack: jax.Array
) -> tuple[_Trial, jax.Array]:
    """The proximal gradient step of the largest size, halved as often as it takes, that the loss allows.

    loss: of params. shrunk: the proximal step, of params and a size. value, gradient: of the loss at start. size: the first
    one tried. slack: what rounding may add. Allowed is a step at whose end the loss is below its quadratic majorant of
    curvature 1 / size. Returns the last trial, and whether the curvature stood out from rounding.
    """

    def tried(trial: _Trial) -> _Trial:
        size = trial.size / 2
        there = shrunk(jax.tree.map(lambda v, g: v - size * g, start, gradient), size)
        move = tree_minus(there, start)
        bound = value + tree_dot(gradient, move) + tree_dot(move, move) / (2 * size) + slack
        return _Trial(trial.number + 1, size, there, loss(there), bound)

    def refused(trial: _Trial) -> jax.Array:
        again = ~(trial.loss <= trial.bound) & jnp.isfinite(value)  # a NaN is refused too
        return (trial.number == 0) | (again & (trial.number < _TRIALS))

    inf = jnp.full_like(value, jnp.inf)
    size = jnp.clip(size, 1 / LARGEST, LARGEST).astype(value.dtype)
    trial = jax.lax.while_loop(refused, tried, _Trial(jnp.zeros((), jnp.int32), 2 * size, start, inf, -inf))
    move = tree_minus(trial.there, start)
    return trial, tree_dot(move, move) / (2 * trial.size) > slack


def accelerated_step(fit: Any, state: TrainState, mean_loss: MeanLoss, hyper: Hyper) -> tuple[TrainState, jax.Array]:
    """One step of FISTA (Beck and Teboulle 2009), its size found by backtracking.

    The extrapolation starts anew where it points uphill (O'Donoghue and Candes 2015) and where the objective would
    rise, in which case params stay where they are: the objective never rises.
    """
    trainable = fit.model.trainable(state.params)
    trained, rest = split(state.params, trainable)
    marked, _ = split(fit.model.penalized(state.params), trainable)
    momentum: _Momentum = state.optimizer_state

    def loss(trained: Any) -> jax.Array:
        return mean_loss(merge(trained, rest))

    def penalty(trained: Any) -> Any:
        return _shared.penalty(fit, merge(trained, rest), hyper)

    def shrunk(trained: Any, size: jax.Array) -> Any:
        return shrunk_parts(fit, trained, marked, hyper, dict.fromkeys(PENALIZED, size))

    ahead = momentum.ahead
    value, gradient = jax.value_and_grad(loss)(ahead)
    # What rounding may add to a loss: differences below this say nothing.
    slack = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    trial, curved = _searched(loss, shrunk, ahead, value, gradient, momentum.size * momentum.growth, slack)
    first = jnp.isinf(momentum.objective)
    before = jnp.where(first, value + penalty(ahead), momentum.objective)
    there = trial.loss + penalty(trial.there)
    accepted = there <= before + slack
    chosen_point = jax.tree.map(partial(jnp.where, accepted), trial.there, trained)
    uphill = tree_dot(tree_minus(ahead, trial.there), tree_minus(trial.there, trained)) > 0
    anew = uphill | ~accepted
    t = jnp.where(anew, 1.0, (1 + jnp.sqrt(1 + 4 * momentum.t**2)) / 2).astype(value.dtype)
    share = jnp.where(anew, 0, (momentum.t - 1) / t)
    ahead = jax.tree.map(lambda new, old: new + share * (new - old), chosen_point, trained)
    # Doubled until a step has to be halved for the first time; then left alone where rounding hides the curvature.
    doubling = (momentum.growth == 2) & (trial.number == 1)
    growth = jnp.where(doubling, 2, jnp.where(curved, _GROWTH, 1.0)).astype(value.dtype)
    size = jnp.where(curved | doubling, trial.size, momentum.size)
    objective = jnp.where(share == 0, jnp.inf, there)
    return TrainState(merge(chosen_point, rest), _Momentum(ahead, t, size, growth, objective)), before


_GROWTH = 1.1  # of accelerated steps, lest a small one that was needed once be kept for good
_TRIALS = 40  # halvings of one accelerated step
