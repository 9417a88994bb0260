"""Penalties' proximal steps after those of an optimizer, of sizes that they share with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from moejax import penalties
from moejax._trees import chosen, merge, replaced, split
from moejax.model import Model
from moejax.solvers import _shared
from moejax.solvers._training import LARGEST, PENALIZED, Hyper, MeanLoss, TrainState, tree_dot


class Sizes(NamedTuple):
    """Running means of sizes of the updates and gradients of one part's coefficients, of which `_averaged` makes rates.

    updates, gradients: arrays like the coefficients, as shares of what the step had in all; ratios: of the former over the
    latter; update, gradient: of what a step has in all, the sum over coefficients of sizes times those of gradients.
    """

    updates: list[jax.Array]
    gradients: list[jax.Array]
    ratios: list[jax.Array]
    update: jax.Array
    gradient: jax.Array


def _averaged(old: Sizes, updates: list[jax.Array], gradients: list[jax.Array]) -> tuple[Sizes, list[jax.Array]]:
    """Running means after a step, and the rates: how far each coefficient is moved for each unit of its gradient.

    Rates are exact where neither updates nor gradients change any more. Means are of shares in a sum over all coefficients,
    since a learning rate that falls scales all updates alike and leaves their shares alone; and the share of a coefficient
    that the optimizer speeds up, as Adam does while it forgets the gradients of the start, is extrapolated by as much as it
    changes in the memory of a mean.
    """
    moves, slopes = ([jnp.abs(a) for a in arrays] for arrays in (updates, gradients))
    # By their gradients, for a coefficient that is left to swing around its optimum has updates and no gradient.
    update, gradient = (tree_dot(sizes, slopes) for sizes in (moves, slopes))
    telling = (update > 0) & (gradient > 0)

    def mean(old: jax.Array, now: jax.Array, total: Any = 1.0) -> jax.Array:
        # A step that moved nothing, or had no gradient, tells no rate.
        return jnp.where(telling, _MEMORY * old + (1 - _MEMORY) * now / jnp.where(telling, total, 1), old)

    moved = [mean(before, u, update) for before, u in zip(old.updates, moves, strict=True)]
    sloped = [mean(before, g, gradient) for before, g in zip(old.gradients, slopes, strict=True)]
    # Coefficients that never had a gradient are moved at the rate of all together.
    ratios = [_ratio(u, g, 1.0) for u, g in zip(moved, sloped, strict=True)]
    slow = [jnp.where(before > 0, mean(before, r), r) for before, r in zip(old.ratios, ratios, strict=True)]
    sizes = Sizes(moved, sloped, slow, mean(old.update, update), mean(old.gradient, gradient))
    # Of this step, but for steps whose gradients pass through 0 while the optimizer's momentum goes on.
    overall = jnp.minimum(_ratio(update, gradient, jnp.inf), 2 * _ratio(sizes.update, sizes.gradient, 0.0))
    ahead = [r * jnp.clip(_ratio(r, s, 1.0), 0.5, 2.0) for r, s in zip(ratios, slow, strict=True)]
    return sizes, [jnp.minimum(overall * r, LARGEST).astype(r.dtype) for r in ahead]


def _ratio(a: jax.Array, b: jax.Array, otherwise: float) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), otherwise)


def _shared_rates(rate: jax.Array, terms: list[tuple[Any, Any]]) -> jax.Array:
    """Rates no larger than these that are constant over what the penalties couple."""
    curvature = 1 / rate  # infinite where nothing moves, and neither does then what is coupled with it
    for p, _ in terms:
        curvature = p.majorant(curvature)
    return 1 / curvature


def _scaled(update: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """The update at another rate."""
    return update * jnp.where(old > 0, new / jnp.where(old > 0, old, 1), 1)


def no_sizes(model: Model, params: Any) -> dict[str, Sizes]:
    """The running means before the first step, by part."""
    marked = model.penalized(params)

    def none(part: str) -> Sizes:
        zeros = [jnp.zeros_like(c) for c in chosen(params[part], marked[part])]
        # No number, but of the precision of those here.
        zero = jnp.zeros((), jnp.result_type(*zeros)) if zeros else jnp.zeros(())
        return Sizes(zeros, zeros, zeros, zero, zero)

    return {part: none(part) for part in PENALIZED}


def proximal_step(fit: Any, state: TrainState, mean_loss: MeanLoss, hyper: Hyper) -> tuple[TrainState, jax.Array]:
    """The optimizer's step on the loss alone, then the penalties' proximal steps in the metric of that step.

    An optimizer that treats every number alone moves it, where nothing changes any more, by -rate * its gradient. The
    optimum of loss and penalties stays put under such a step if, and only if, the proximal step of each coefficient has
    the same rate. Coefficients that a penalty couples are given the smallest of their rates.
    """
    optimizer_state, sizes = state.optimizer_state
    trainable = fit.model.trainable(state.params)
    trained, rest = split(state.params, trainable)
    marked, _ = split(fit.model.penalized(state.params), trainable)

    def value(trained: Any) -> jax.Array:
        return mean_loss(merge(trained, rest))

    loss, gradient = jax.value_and_grad(value)(trained)
    objective = loss + _shared.penalty(fit, state.params, hyper)
    updates, optimizer_state = fit.updates(trained, optimizer_state, value, loss, gradient, hyper)
    sizes, steps = dict(sizes), {}
    for part in PENALIZED:
        terms = _shared.used(fit, hyper, part)
        moves, slopes = (chosen(tree[part], marked[part]) for tree in (updates, gradient))
        if terms and moves:
            sizes[part], rates = _averaged(sizes[part], moves, slopes)
            steps[part] = [_shared_rates(rate, terms) for rate in rates]
            moves = [_scaled(u, new, old) for u, new, old in zip(moves, steps[part], rates, strict=True)]
            updates = {**updates, part: replaced(updates[part], marked[part], moves)}
    moved = shrunk_parts(fit, optax.apply_updates(trained, updates), marked, hyper, steps)
    return TrainState(merge(moved, rest), (optimizer_state, sizes)), objective


def shrunk_parts(fit: Any, trained: Any, marked: Any, hyper: Hyper, steps: Any) -> Any:
    """The penalties' proximal steps. steps: of each part, a number or a list of arrays like its coefficients."""
    for part in PENALIZED:
        if terms := _shared.used(fit, hyper, part):
            coefficients = chosen(trained[part], marked[part])
            coefficients = penalties.stepped(coefficients, terms, steps.get(part, 0.0)) if coefficients else []
            trained = {**trained, part: replaced(trained[part], marked[part], coefficients)}
    return trained


_MEMORY = 0.9  # of running means of update and gradient sizes
