"""The steps of the gradient solver on one fit: a solver of `init`, `step`, `done` and `finish`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax._rows import Block, Rows
from moejax._trees import merge, split
from moejax.model import Data
from moejax.solvers import _shared
from moejax.solvers._base import Solver
from moejax.solvers._batches import Batches
from moejax.solvers._optimality import estimated, unit_of, violation
from moejax.solvers._proximal import shrunk_parts
from moejax.solvers._result import Fit, concluded, told
from moejax.solvers._sums import target_moments
from moejax.solvers._training import PENALIZED, Hyper, MeanLoss, TrainState

if TYPE_CHECKING:
    from moejax.solvers._configured import Configured
    from moejax.solvers._gradient import GradientFit

_ORDER, _NOISE = 0x6F726465, 0x6E6F6973  # streams of the key apart from those of the starts, which are numbered from 0


class Task(NamedTuple):
    """What the steps of one fit are given.

    params: where they begin. rows: of weights of sum 1; their `division` holds responsibilities that the loss wants. total:
    the weight of all rows. inputs: what the parts see of the only block, None where there are several or minibatches.
    batches: None where each step takes all rows. noise: the key of a gate that is noisy in training, or None.
    """

    params: Any
    rows: Rows
    total: jax.Array
    hyper: Hyper
    inputs: Any
    batches: Any
    noise: jax.Array | None


def task_of(fit: Configured, key: jax.Array, params: Any, rows: Rows, total: jax.Array, hyper: Hyper) -> Task:
    """Return the task of a fit that begins at params."""
    noise = batches = None
    if fit.model.gate.is_noisy:
        noise = jax.random.fold_in(jax.random.fold_in(key, _NOISE), hyper.get("restart", 0))
    if fit.rows_in_step is not None:
        first, order = rows.first, jax.random.fold_in(key, _ORDER)
        batches = (order, first.x, first.y, first.weights, first.offset, first.division)
    inputs = fit.model.prepare(rows.first.x) if rows.n_blocks == 1 and batches is None else None
    return Task(params, rows, total, hyper, inputs, batches, noise)


class Progress(NamedTuple):
    """Where the steps of a fit stand.

    step: how many were taken. train: params and the state of the optimizer. order: this epoch's order of the rows.
    history: recorded objectives. best, best_step: the lowest of them, and when it was recorded.
    """

    step: jax.Array
    train: TrainState
    order: jax.Array
    history: jax.Array
    best: jax.Array
    best_step: jax.Array


class End(NamedTuple):
    """Where the steps ended."""

    params: Any
    history: jax.Array
    step: jax.Array


class LossSolver(Solver):
    """A solver of a mean loss plus penalties, from which one's own may inherit.

    It has the loss, its gradient, proximal steps, and the `Fit` of some params. One's own adds `init`, `step` and `done`, or
    the number `n_steps`.

    Parameters
    ----------
    fit : Configured
        The fit whose steps these are: its `model`, `loss` and `penalties`.
    """

    fit: Configured

    def done(self, state: Any) -> jax.Array:
        """Return False: all `n_steps` are taken."""
        return jnp.zeros((), bool)

    def loss(self, task: Task, step: jax.Array | None = None) -> MeanLoss:
        """Return the mean loss of all rows, a function of params.

        Parameters
        ----------
        task : Task
            What the fit is given.
        step : jax.Array or None, default None
            The number of the step, for the noise of a gate that has any. None for no noise.

        Returns
        -------
        callable
            From params to a mean over rows, without penalties.
        """
        loss, model, rows = self.fit.loss, self.fit.model, task.rows
        if rows.n_blocks == 1:
            first = rows.first
            data = self._data(task, first)._replace(key=self._key(task, step))
            return lambda params: loss.value(model, params, data, first.weights)

        def mean(params: Any) -> jax.Array:
            # What a block's sums were made of is computed again for its gradient, so that no array is as long as the rows.
            sums = jax.checkpoint(lambda block: loss.sums(model, params, self._data(task, block), block.weights))
            value: jax.Array = loss.of_sums(model, params, rows.sum(sums), task.total, self._hyper(task))
            return value

        return mean

    def value_and_gradient(self, task: Task, params: Any, step: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """Return the mean loss and its gradient, 0 for numbers that are not trained.

        Parameters
        ----------
        task : Task
            What the fit is given.
        params : dict
            Params of the model.
        step : jax.Array or None, default None
            The number of the step, for the noise of a gate that has any. None for no noise.

        Returns
        -------
        value : jax.Array, ()
            The mean loss, without penalties.
        gradient : dict
            Like params.
        """
        trained, rest = split(params, self.fit.model.trainable(params))
        value, gradient = jax.value_and_grad(lambda trained: self.loss(task, step)(merge(trained, rest)))(trained)
        return value, merge(gradient, jax.tree.map(jnp.zeros_like, rest))

    def prox(self, task: Task, params: Any, size: Any) -> Any:
        """Return params after the proximal steps of all penalties.

        Parameters
        ----------
        task : Task
            What the fit is given, with the weights of penalties in `hyper`.
        params : dict
            Params of the model.
        size : jax.Array or float, ()
            The size of the step.

        Returns
        -------
        dict
            Like params.
        """
        marked = self.fit.model.penalized(params)
        return shrunk_parts(self.fit, params, marked, task.hyper, dict.fromkeys(PENALIZED, size))

    def finish(self, task: Task, end: Any) -> Fit:
        """Return the fit at params that are the last state; a solver of another state calls `concluded`."""
        history = jnp.full(0, jnp.nan, task.total.dtype)
        return self.concluded(task, end, history, jnp.asarray(self.n_steps or 0, jnp.int32), tol=1e-5)

    def concluded(
        self, task: Task, params: Any, history: jax.Array, steps: jax.Array, tol: float, ended: Any = False
    ) -> Fit:
        """Return the fit that ended at params, by all rows and without noise.

        Parameters
        ----------
        task : Task
            What the fit is given.
        params : dict
            Params of the model.
        history : jax.Array
            Recorded objectives.
        steps : jax.Array, ()
            How many steps were taken.
        tol : float
            Violation of the optimality condition at which the fit has converged.
        ended : jax.Array or bool, default False
            Whether the solver itself found that it has converged.

        Returns
        -------
        Fit
            The fit.
        """
        fit, model = self.fit, self.fit.model
        task = task._replace(batches=None, noise=None)
        loss, gradient = self.value_and_gradient(task, params)
        target, likelihood = target_moments(task.rows), fit.loss.has_likelihood
        if likelihood:
            gradient = _shared.free_slopes(fit, params, gradient, target)
        sums = task.rows.sum(lambda block: told(model, params, self._data(task, block), block.weights, likelihood))
        gradient, curvature = estimated(fit, params, task.rows, gradient, sums.shares, target)
        kkt = violation(fit, params, gradient, task.hyper, curvature, tol) / jnp.sqrt(unit_of(fit, target))
        leaves = [v for v in jax.tree.leaves(params) if jnp.issubdtype(v.dtype, jnp.inexact)]
        return concluded(
            model,
            params,
            target,
            task.total,
            log_likelihood=None if sums.log_likelihood is None else task.total * sums.log_likelihood,
            classified=None if sums.classified is None else task.total * sums.classified,
            shares=sums.shares,
            count=sums.present,
            objective=loss + _shared.penalty(fit, params, task.hyper),
            finite=jnp.stack([jnp.isfinite(v).all() for v in leaves]).all(),
            history=history,
            steps=steps,
            kkt=kkt,
            converged=ended | (kkt <= tol),
            determined=_shared.determined(fit, task.hyper),
        )

    def _hyper(self, task: Task) -> Hyper:
        """The numbers of the fit, with the defaults of the loss where they are not given."""
        return {**self.fit.loss.hyper, **task.hyper}

    def _data(self, task: Task, block: Block) -> Data:
        inputs = self.fit.model.prepare(block.x) if task.inputs is None else task.inputs
        return Data(inputs, block.y, block.offset, block.leader, task.total, block.division, hyper=self._hyper(task))

    def _key(self, task: Task, step: jax.Array | None) -> jax.Array | None:
        return None if task.noise is None or step is None else jax.random.fold_in(task.noise, step)


class Descent(LossSolver):
    """The steps of an optimizer on the mean loss, one by one."""

    fit: GradientFit

    @property
    def n_steps(self) -> int | None:
        """The number of steps, unless a fit may stop early."""
        return self.fit.steps if self.fit.patience is None else None

    def init(self, task: Task) -> Progress:
        """Return the state before the first step."""
        fit, dtype = self.fit, task.total.dtype
        zero, nothing = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, dtype)
        order = jnp.zeros(0 if task.batches is None else task.rows.size, jnp.int32)
        history = jnp.full(-(-fit.steps // fit.record_every), jnp.nan, dtype)
        return Progress(zero, fit.begun(task.params, task.hyper), order, history, nothing, zero)

    def step(self, task: Task, state: Progress) -> Progress:
        """Return the state after one more step on all rows, or on a minibatch."""
        fit = self.fit
        order, loss = self._loss(task, state)
        train, objective = fit.stepped(state.train, loss, task.hyper)
        # A comparison, for a scatter of each member's own index is a loop over members.
        now = fit.record_every * np.arange(len(state.history), dtype=np.int32) == state.step
        history = jnp.where(now, objective, state.history)
        better = (objective < state.best - fit.min_improvement * jnp.abs(state.best)) | ~jnp.isfinite(state.best)
        better = better & (state.step % fit.record_every == 0)
        best, best_step = jnp.where(better, objective, state.best), jnp.where(better, state.step, state.best_step)
        return Progress(state.step + 1, train, order, history, best, best_step)

    def done(self, state: Progress) -> jax.Array:
        """Return whether all steps were taken, or the recorded objective has not fallen for too long."""
        fit = self.fit
        recorded = (state.step - 1) // fit.record_every * fit.record_every
        hopeless = (state.step % fit.record_every == 0) & (recorded - state.best_step >= (fit.patience or fit.steps))
        return hopeless | (state.step >= fit.steps)

    def end(self, state: Progress) -> End:
        """Return params, history and the number of steps."""
        return End(state.train.params, state.history, state.step)

    def finish(self, task: Task, end: End) -> Fit:
        """Return the fit at the params where the steps ended."""
        stopped = end.step < self.fit.steps
        return self.concluded(task, end.params, end.history, end.step, self.fit.tol, stopped)

    def _loss(self, task: Task, state: Progress) -> tuple[jax.Array, MeanLoss]:
        """The order of the rows in the epoch, and the mean loss of the rows of a step, as a function of params."""
        if task.batches is None:
            return state.order, self.loss(task, state.step)
        fit = self.fit
        batches = Batches(fit.model, fit.batch_size, *task.batches, task.total)  # type: ignore[arg-type, call-arg]
        order = batches.order(state.step, state.order)
        data, weights = batches.take(state.step, order)
        data = data._replace(hyper=self._hyper(task), key=self._key(task, state.step))
        return order, lambda params: fit.loss.value(fit.model, params, data, weights)
