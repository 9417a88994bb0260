"""The gradient solver: any optax optimizer on any loss, as one pure function of a key and hyperparameters.

Penalties enter by their subgradients, or by proximal steps, which alone make coefficients exactly 0: after each step of an
optax optimizer on the loss (`_proximal_step`), or in an accelerated proximal gradient method (`_accelerated_step`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from moejax import _checks, _solver, losses, penalties, starts
from moejax._trees import chosen, merge, replaced, split
from moejax.fit import Fit, finished, normalized, total_weight
from moejax.model import PARTS, Data, Model, hashable

Hyper = dict[str, Any]
Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation] | str


class TrainState(NamedTuple):
    """Where training stands: the model's params and the optimizer's state, which belongs to its data and hyper."""

    params: Any
    optimizer_state: Any


class _Sizes(NamedTuple):
    """Running means of sizes of the updates and gradients of one part's coefficients, of which `_averaged` makes rates.

    updates, gradients: arrays like the coefficients, as shares of what the step had in all; ratios: of the former over the
    latter; update, gradient: of what a step has in all, the sum over coefficients of sizes times those of gradients.
    """

    updates: list[jax.Array]
    gradients: list[jax.Array]
    ratios: list[jax.Array]
    update: jax.Array
    gradient: jax.Array


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


class _Progress(NamedTuple):
    """What the compiled loop carries."""

    step: jax.Array
    state: TrainState
    order: jax.Array  # this epoch's order of the rows
    history: jax.Array
    best: jax.Array
    best_step: jax.Array


@dataclass(frozen=True)
class GradientFit:
    """A fit by gradient steps, configured by `fit_gradient`; call it, or hand it to `sweep`.

    Hashed by its configuration: building it again compiles nothing anew.
    """

    model: Model
    loss: Any
    optimizer: Any
    penalties: tuple[Any, ...]
    steps: int
    batch_size: int | None
    record_every: int
    patience: int | None
    min_improvement: float
    tol: float
    learning_rate: float = field(default=0.01)
    proximal: bool = False

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""
        rate = {} if self._is_built or self._is_accelerated else {"learning_rate": self.learning_rate}
        weights = {p.name: 0.0 for p in self.penalties}
        return {**rate, **weights, **getattr(self.loss, "hyper", {}), **self.model.hyper, "restart": 0}

    def __call__(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        hyper: Hyper | None = None,
        *,
        weights: Any = None,
        offset: Any = None,
        groups: Any = None,
        start: Any = None,
    ) -> Fit:
        """Fit once. Pure: takes `jit` and `vmap`, and compiles itself when called outside of them.

        key: the only source of randomness. x: (n, d), or a pytree of arrays with n leading. y: (n,), or (n, m) for m
        outputs. hyper: numbers by name (see the property `hyper`), each of which may be traced; `restart` numbers the
        starts that `key` yields. weights: (n,) of the rows, None for equal ones. offset: added to every expert's
        predictor, shaped like y. groups: (n,) whole numbers; the rows of a group share their expert. start: params to start
        from in the place of drawn ones; or responsibilities (n, K), or a function of x (see `moejax.division`), to which
        drawn params are fitted first.

        Raises ValueError, before anything compiles, for numbers that are NaN or infinite, shapes that do not fit,
        weights below 0 or all 0, a constant target, and names in `hyper` that mean nothing here or values they cannot
        have. Returns a `Fit`; once running, nothing raises and its `status` tells.
        """
        return _compiled(self, *_solver.arguments(self, key, x, y, hyper, weights, offset, groups, start))

    def resumed(
        self,
        key: Any,
        x: Any,
        y: Any,
        hyper: Hyper,
        params: Any,
        warm: jax.Array,
        weights: Any,
        offset: Any,
        leader: Any,
        start: Any,
    ) -> Fit:
        """A fit from these params where `warm` is true, and where it is not from where a call would start: one program for
        both.

        For compiled code, where all that is checked in a call is known to be right; leader as `moejax.model.leaders` has it.
        """
        return self._fit(key, x, y, hyper, weights, offset, leader, start, (params, warm))

    # ---- the pure pieces ----------------------------------------------------------------------------------------

    def init_state(self, key: jax.Array, x: Any, hyper: Hyper | None = None, start: Any = None) -> TrainState:
        """The state before the first step: params drawn from `key` and `hyper["restart"]`, or `start`."""
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        if start is None:
            start = self.model.init(jax.random.fold_in(key, hyper.get("restart", 0)), x)
        else:
            like = jax.eval_shape(self.model.init, key, x)
            start = jax.tree.map(lambda leaf, wanted: jnp.asarray(leaf, wanted.dtype), start, like)
        params = self.model.with_hyper(start, hyper)
        trained, _ = split(params, self.model.trainable(params))
        if not jax.tree.leaves(trained):
            raise ValueError(f"model: nothing in {self.model!r} is trained; want a part that has something to train")
        if self._is_accelerated:
            return TrainState(params, _no_momentum(trained, self.learning_rate / 2))
        optimizer_state = self._optimizer(hyper).init(trained)
        return TrainState(params, (optimizer_state, self._no_sizes(params)) if self.proximal else optimizer_state)

    def train_step(
        self,
        state: TrainState,
        x: Any,
        y: jax.Array,
        hyper: Hyper | None = None,
        *,
        weights: Any = None,
        offset: Any = None,
        key: jax.Array | None = None,
    ) -> tuple[TrainState, jax.Array]:
        """One step on all rows given: the state after it, and the objective before it. Pure; takes `jit` and `vmap`.

        key: of the noise of a gate that has any, another one at each step.
        """
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        data = Data(self.model.prepare(x), y, offset, total=total_weight(weights, y), key=key)
        return self._step(state, data, normalized(weights, y), hyper)

    def objective(self, params: Any, data: Data, weights: jax.Array, hyper: Hyper) -> jax.Array:
        """The weighted mean loss plus penalties. weights: (n,), of sum 1."""
        loss = self.loss.value(self.model, params, data._replace(hyper=hyper), weights)
        return loss + _solver.penalty(self, params, hyper)

    def score(
        self, params: Any, x: Any, y: jax.Array, weights: jax.Array, offset: Any = None, groups: Any = None
    ) -> jax.Array:
        """The weighted mean loss without penalties, by which selection compares: lower is better."""
        return _solver.score(self.model, self.loss, params, x, y, weights, offset, groups)

    def work_bytes(self, y: jax.Array) -> int:
        """About how much memory a step of one fit works in, by which a sweep chooses how many to run at once."""
        rows = self.batch_size or y.shape[0]
        return _WORK_ARRAYS * self.model.n_experts * rows * (y.size // y.shape[0]) * y.dtype.itemsize

    # ---- checks, on the host ------------------------------------------------------------------------------------

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken)."""
        _solver.check_hyper(self, hyper)
        if self.proximal or self._is_accelerated:
            penalties.check_order([p for p, _ in _solver.used(self, hyper)])

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`."""
        n = _solver.checked_rows(self, x, y, weights, offset, groups, start)
        if groups is not None and not hasattr(self.loss, "log_joint"):
            raise ValueError(f"groups: given for {self.loss!r}, which has no experts to share; want losses.nll()")
        if groups is not None and self.batch_size is not None:
            raise ValueError("groups: given beside batch_size, whose batches would tear them; want batch_size=None")
        if self.batch_size is not None and self.batch_size > n:
            raise ValueError(f"batch_size: {self.batch_size} was given for {n} rows; want at most that many")

    # ---- inside the compiled program ----------------------------------------------------------------------------

    @property
    def _is_built(self) -> bool:
        return isinstance(self.optimizer, optax.GradientTransformation)

    @property
    def _is_accelerated(self) -> bool:
        return isinstance(self.optimizer, str)

    def _optimizer(self, hyper: Hyper) -> optax.GradientTransformation:
        if self._is_built:
            return self.optimizer
        built = self.optimizer(hyper.get("learning_rate", self.learning_rate))
        return optax.flatten(built) if self.optimizer in _ELEMENTWISE else built

    def _step(self, state: TrainState, data: Data, weights: jax.Array, hyper: Hyper) -> tuple[TrainState, jax.Array]:
        data = data._replace(hyper=hyper)
        if self._is_accelerated:
            return self._accelerated_step(state, data, weights, hyper)
        if self.proximal:
            return self._proximal_step(state, data, weights, hyper)
        trained, rest = split(state.params, self.model.trainable(state.params))

        def value(trained: Any) -> jax.Array:
            return self.objective(merge(trained, rest), data, weights, hyper)

        objective, gradient = jax.value_and_grad(value)(trained)
        updates, optimizer_state = self._update(trained, state.optimizer_state, value, objective, gradient, hyper)
        return TrainState(merge(optax.apply_updates(trained, updates), rest), optimizer_state), objective

    def _update(self, trained: Any, state: Any, value: Any, objective: Any, gradient: Any, hyper: Hyper) -> tuple[Any, Any]:
        # Some optimizers search along a line, or plan by the value; the others ignore it.
        more = {"value": objective, "grad": gradient, "value_fn": value}
        optimizer = optax.with_extra_args_support(self._optimizer(hyper))
        return optimizer.update(gradient, state, trained, **more)

    # ---- proximal steps after those of an optimizer ---------------------------------------------------------------

    def _no_sizes(self, params: Any) -> dict[str, _Sizes]:
        marked = self.model.penalized(params)

        def none(part: str) -> _Sizes:
            zeros = [jnp.zeros_like(c) for c in chosen(params[part], marked[part])]
            # No number, but of the precision of those here.
            zero = jnp.zeros((), jnp.result_type(*zeros)) if zeros else jnp.zeros(())
            return _Sizes(zeros, zeros, zeros, zero, zero)

        return {part: none(part) for part in _PENALIZED}

    def _proximal_step(
        self, state: TrainState, data: Data, weights: jax.Array, hyper: Hyper
    ) -> tuple[TrainState, jax.Array]:
        """The optimizer's step on the loss alone, then the penalties' proximal steps in the metric of that step.

        An optimizer that treats every number alone moves it, where nothing changes any more, by -rate * its gradient. The
        optimum of loss and penalties stays put under such a step if, and only if, the proximal step of each coefficient has
        the same rate. Coefficients that a penalty couples are given the smallest of their rates.
        """
        optimizer_state, sizes = state.optimizer_state
        trainable = self.model.trainable(state.params)
        trained, rest = split(state.params, trainable)
        marked, _ = split(self.model.penalized(state.params), trainable)

        def value(trained: Any) -> jax.Array:
            return self.loss.value(self.model, merge(trained, rest), data, weights)

        loss, gradient = jax.value_and_grad(value)(trained)
        objective = loss + _solver.penalty(self, state.params, hyper)
        updates, optimizer_state = self._update(trained, optimizer_state, value, loss, gradient, hyper)
        sizes, steps = dict(sizes), {}
        for part in _PENALIZED:
            terms = _solver.used(self, hyper, part)
            moves, slopes = (chosen(tree[part], marked[part]) for tree in (updates, gradient))
            if terms and moves:
                sizes[part], rates = _averaged(sizes[part], moves, slopes)
                steps[part] = [_shared(rate, terms) for rate in rates]
                moves = [_scaled(u, new, old) for u, new, old in zip(moves, steps[part], rates, strict=True)]
                updates = {**updates, part: replaced(updates[part], marked[part], moves)}
        moved = self._shrunk(optax.apply_updates(trained, updates), marked, hyper, steps)
        return TrainState(merge(moved, rest), (optimizer_state, sizes)), objective

    def _shrunk(self, trained: Any, marked: Any, hyper: Hyper, steps: Any) -> Any:
        """The penalties' proximal steps. steps: of each part, a number or a list of arrays like its coefficients."""
        for part in _PENALIZED:
            if terms := _solver.used(self, hyper, part):
                coefficients = chosen(trained[part], marked[part])
                coefficients = penalties.stepped(coefficients, terms, steps.get(part, 0.0)) if coefficients else []
                trained = {**trained, part: replaced(trained[part], marked[part], coefficients)}
        return trained

    # ---- accelerated proximal gradient ----------------------------------------------------------------------------

    def _accelerated_step(
        self, state: TrainState, data: Data, weights: jax.Array, hyper: Hyper
    ) -> tuple[TrainState, jax.Array]:
        """One step of FISTA (Beck and Teboulle 2009), its size found by backtracking.

        The extrapolation starts anew where it points uphill (O'Donoghue and Candes 2015) and where the objective would
        rise, in which case params stay where they are: the objective never rises.
        """
        trainable = self.model.trainable(state.params)
        trained, rest = split(state.params, trainable)
        marked, _ = split(self.model.penalized(state.params), trainable)
        momentum: _Momentum = state.optimizer_state

        def loss(trained: Any) -> jax.Array:
            return self.loss.value(self.model, merge(trained, rest), data, weights)

        def penalty(trained: Any) -> Any:
            return _solver.penalty(self, merge(trained, rest), hyper)

        def shrunk(trained: Any, size: jax.Array) -> Any:
            return self._shrunk(trained, marked, hyper, dict.fromkeys(_PENALIZED, size))

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
        uphill = _dot(_minus(ahead, trial.there), _minus(trial.there, trained)) > 0
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

    def _fit(
        self,
        key: jax.Array,
        x: Any,
        y: jax.Array,
        hyper: Hyper,
        weights: Any,
        offset: Any,
        leader: Any,
        start: Any,
        resume: Any = None,
    ) -> Fit:
        total = total_weight(weights, y)
        weights = normalized(weights, y)
        data = Data(self.model.prepare(x), y, offset, leader, total)
        divided = start is not None and not isinstance(start, dict)
        state = self.init_state(key, x, hyper, None if divided else start)
        if divided:
            division = starts.shared_out(start, self.model.active(state.params), leader, y.dtype)
            state = self.init_state(key, x, hyper, self._suited(state.params, division, data, weights, hyper))
            data = data._replace(division=division if getattr(self.loss, "complete", False) else None)
        if resume is not None:
            own = {name: state.params[name] for name in PARTS}
            params = jax.tree.map(partial(jnp.where, resume[1]), {name: resume[0][name] for name in PARTS}, own)
            state = self.init_state(key, x, hyper, params)
        batches = noise = None
        if self.batch_size is not None:
            order = jax.random.fold_in(key, _ORDER)
            batches = _Batches(self.model, self.batch_size, order, x, y, weights, offset, data.division, total)
        if hasattr(self.model.gate, "noisy_log_probs"):
            noise = jax.random.fold_in(jax.random.fold_in(key, _NOISE), hyper.get("restart", 0))
        end = self._train(state, data, weights, hyper, batches, noise)
        return self._finish(end, data._replace(hyper=hyper), weights, hyper, total)

    def _suited(self, params: Any, division: jax.Array, data: Data, weights: jax.Array, hyper: Hyper) -> Any:
        """Params that suit responsibilities (K, n): those drawn, after steps on the loss in which these are held.

        By the accelerated method, which needs no learning rate and so serves targets and parts of any scale.
        """
        loss = losses.complete_of(self.model)
        fit = dataclasses.replace(
            self, loss=loss, optimizer=_ACCELERATED, steps=_START_STEPS, record_every=_START_STEPS, patience=None
        )
        trained, _ = split(params, self.model.trainable(params))
        state = TrainState(params, _no_momentum(trained, 1.0))
        end = fit._train(state, data._replace(division=division), weights, hyper, None, None)
        return {name: end.state.params[name] for name in PARTS}

    def _train(
        self, state: TrainState, data: Data, weights: jax.Array, hyper: Hyper, batches: Any, noise: jax.Array | None
    ) -> _Progress:
        n, dtype = data.y.shape[0], data.y.dtype
        records = -(-self.steps // self.record_every)  # rounded up

        def step(i: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            begin, state, order, first = carry
            batch, batch_weights = data, weights
            if batches is not None:
                order = batches.order(begin + i, order)
                batch, batch_weights = batches.take(begin + i, order)
            if noise is not None:
                batch = batch._replace(key=jax.random.fold_in(noise, begin + i))
            state, objective = self._step(state, batch, batch_weights, hyper)
            return begin, state, order, jnp.where(i == 0, objective, first)

        def block(p: _Progress, count: int) -> _Progress:
            carry = (p.step, p.state, p.order, jnp.zeros((), dtype))
            _, state, order, objective = jax.lax.fori_loop(0, count, step, carry)
            better = objective < p.best - self.min_improvement * jnp.abs(p.best)
            better = better | ~jnp.isfinite(p.best)
            return _Progress(
                p.step + count,
                state,
                order,
                p.history.at[p.step // self.record_every].set(objective),
                jnp.where(better, objective, p.best),
                jnp.where(better, p.step, p.best_step),
            )

        def hopeful(p: _Progress) -> jax.Array:
            recorded = (p.step - 1) // self.record_every * self.record_every
            return recorded - p.best_step < (self.patience or self.steps)

        zero = jnp.zeros((), jnp.int32)
        order = jnp.zeros(0 if batches is None else n, jnp.int32)
        nothing = jnp.full((), jnp.inf, dtype)
        begin = _Progress(zero, state, order, jnp.full(records, jnp.nan, dtype), nothing, zero)
        whole, rest = divmod(self.steps, self.record_every)
        if self.patience is None:  # a scan, which reverse-mode differentiation takes
            end, _ = jax.lax.scan(lambda p, _: (block(p, self.record_every), None), begin, length=whole)
            return block(end, rest) if rest else end
        until = whole * self.record_every
        end = jax.lax.while_loop(lambda p: (p.step < until) & hopeful(p), lambda p: block(p, self.record_every), begin)
        return jax.lax.cond(hopeful(end), lambda: block(end, rest), lambda: end) if rest else end

    def _finish(self, end: _Progress, data: Data, weights: jax.Array, hyper: Hyper, total: jax.Array) -> Fit:
        params = end.state.params
        trained, rest = split(params, self.model.trainable(params))
        loss, gradient = jax.value_and_grad(lambda t: self.loss.value(self.model, merge(t, rest), data, weights))(trained)
        objective = loss + _solver.penalty(self, params, hyper)
        gradient = merge(gradient, jax.tree.map(jnp.zeros_like, rest))
        if getattr(self.loss, "has_likelihood", False):
            gradient = _solver.free_slopes(self, params, gradient, data.y, weights)
        kkt = _solver.kkt(self, params, gradient, hyper)
        return finished(
            self.model,
            params,
            data,
            weights,
            total,
            getattr(self.loss, "has_likelihood", False),
            objective=objective,
            history=end.history,
            steps=end.step,
            kkt=kkt,
            converged=(end.step < self.steps) | (kkt <= self.tol),
        )


# ---- step sizes that a proximal step shares with an optimizer --------------------------------------------------------


def _averaged(old: _Sizes, updates: list[jax.Array], gradients: list[jax.Array]) -> tuple[_Sizes, list[jax.Array]]:
    """Running means after a step, and the rates: how far each coefficient is moved for each unit of its gradient.

    Rates are exact where neither updates nor gradients change any more. Means are of shares in a sum over all coefficients,
    since a learning rate that falls scales all updates alike and leaves their shares alone; and the share of a coefficient
    that the optimizer speeds up, as Adam does while it forgets the gradients of the start, is extrapolated by as much as it
    changes in the memory of a mean.
    """
    moves, slopes = ([jnp.abs(a) for a in arrays] for arrays in (updates, gradients))
    # By their gradients, for a coefficient that is left to swing around its optimum has updates and no gradient.
    update, gradient = (_dot(sizes, slopes) for sizes in (moves, slopes))
    telling = (update > 0) & (gradient > 0)

    def mean(old: jax.Array, now: jax.Array, total: Any = 1.0) -> jax.Array:
        # A step that moved nothing, or had no gradient, tells no rate.
        return jnp.where(telling, _MEMORY * old + (1 - _MEMORY) * now / jnp.where(telling, total, 1), old)

    moved = [mean(before, u, update) for before, u in zip(old.updates, moves, strict=True)]
    sloped = [mean(before, g, gradient) for before, g in zip(old.gradients, slopes, strict=True)]
    # Coefficients that never had a gradient are moved at the rate of all together.
    ratios = [_ratio(u, g, 1.0) for u, g in zip(moved, sloped, strict=True)]
    slow = [jnp.where(before > 0, mean(before, r), r) for before, r in zip(old.ratios, ratios, strict=True)]
    sizes = _Sizes(moved, sloped, slow, mean(old.update, update), mean(old.gradient, gradient))
    # Of this step, but for steps whose gradients pass through 0 while the optimizer's momentum goes on.
    overall = jnp.minimum(_ratio(update, gradient, jnp.inf), 2 * _ratio(sizes.update, sizes.gradient, 0.0))
    ahead = [r * jnp.clip(_ratio(r, s, 1.0), 0.5, 2.0) for r, s in zip(ratios, slow, strict=True)]
    return sizes, [jnp.minimum(overall * r, _LARGEST).astype(r.dtype) for r in ahead]


def _ratio(a: jax.Array, b: jax.Array, otherwise: float) -> jax.Array:
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), otherwise)


def _shared(rate: jax.Array, terms: list[tuple[Any, Any]]) -> jax.Array:
    """Rates no larger than these that are constant over what the penalties couple."""
    curvature = 1 / rate  # infinite where nothing moves, and neither does then what is coupled with it
    for p, _ in terms:
        curvature = p.majorant(curvature) if hasattr(p, "majorant") else curvature
    return 1 / curvature


def _scaled(update: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    """The update at another rate."""
    return update * jnp.where(old > 0, new / jnp.where(old > 0, old, 1), 1)


# ---- the line search of the accelerated method -----------------------------------------------------------------------


def _no_momentum(trained: Any, size: float) -> _Momentum:
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
        move = _minus(there, start)
        bound = value + _dot(gradient, move) + _dot(move, move) / (2 * size) + slack
        return _Trial(trial.number + 1, size, there, loss(there), bound)

    def refused(trial: _Trial) -> jax.Array:
        again = ~(trial.loss <= trial.bound) & jnp.isfinite(value)  # a NaN is refused too
        return (trial.number == 0) | (again & (trial.number < _TRIALS))

    inf = jnp.full_like(value, jnp.inf)
    size = jnp.clip(size, 1 / _LARGEST, _LARGEST).astype(value.dtype)
    trial = jax.lax.while_loop(refused, tried, _Trial(jnp.zeros((), jnp.int32), 2 * size, start, inf, -inf))
    move = _minus(trial.there, start)
    return trial, _dot(move, move) / (2 * trial.size) > slack


def _minus(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.subtract, a, b)


def _dot(a: Any, b: Any) -> jax.Array:
    return jnp.stack([jnp.sum(u * v) for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]).sum()


class _Batches(NamedTuple):
    """Minibatches in an order that depends on the key alone, so that all members of a sweep share each gather of rows."""

    model: Model
    size: int
    key: jax.Array
    x: Any
    y: jax.Array
    weights: jax.Array
    offset: Any
    division: jax.Array | None
    total: jax.Array

    def order(self, step: jax.Array, order: jax.Array) -> jax.Array:
        """The order of the rows in the epoch of `step`: a new permutation where an epoch begins."""
        n = self.y.shape[0]
        epoch, within = jnp.divmod(step, n // self.size)
        rows = jnp.arange(n, dtype=order.dtype)
        return jax.lax.cond(
            within == 0, lambda: jax.random.permutation(jax.random.fold_in(self.key, epoch), rows), lambda: order
        )

    def take(self, step: jax.Array, order: jax.Array) -> tuple[Data, jax.Array]:
        """The rows of `step`, and their weights scaled so that the expected loss of a batch is that of all rows."""
        n = self.y.shape[0]
        rows = jax.lax.dynamic_slice(order, (step % (n // self.size) * self.size,), (self.size,))
        x, y, offset = jax.tree.map(lambda v: v[rows], (self.x, self.y, self.offset))
        division = None if self.division is None else self.division[:, rows]
        batch = Data(self.model.prepare(x), y, offset, total=self.total, division=division)
        return batch, self.weights[rows] * (n / self.size)


# They treat every number alone, so that all params may be one array to them, updated in one go.
_ELEMENTWISE = (optax.adam, optax.adamw, optax.adamax, optax.nadam, optax.amsgrad, optax.adagrad, optax.rmsprop, optax.sgd)
_WORK_ARRAYS = 8  # arrays of (K, n) or (K, n, m) that a step makes
_PENALIZED = ("experts", "gate")  # parts whose coefficients penalties see
_MEMORY = 0.9  # of running means of update and gradient sizes
_LARGEST = 1e30  # of step sizes, as for a coefficient without a gradient; finite also as a multiple of weights
_ACCELERATED = "accelerated"
_GROWTH = 1.1  # of accelerated steps, lest a small one that was needed once be kept for good
_TRIALS = 40  # halvings of one accelerated step
_ORDER, _NOISE = 0x6F726465, 0x6E6F6973  # streams of the key apart from those of the starts, which are numbered from 0
_START_STEPS = 100  # that make params of given responsibilities: linear experts are then next to their optimum


@partial(jax.jit, static_argnums=0)
def _compiled(fit: GradientFit, *arguments: Any) -> Fit:
    return fit._fit(*arguments)


def fit_gradient(
    model: Model,
    loss: Any = None,
    optimizer: Optimizer = optax.adam,
    *,
    penalty: Sequence[Any] | None = None,
    steps: int = 1000,
    learning_rate: float = 0.01,
    batch_size: int | None = None,
    record_every: int = 10,
    patience: int | None = None,
    min_improvement: float = 1e-6,
    tol: float = 1e-5,
    proximal: bool = False,
) -> GradientFit:
    """A fit by `steps` compiled gradient steps on the mean loss plus penalties.

    model: from `moe`. loss: from `moejax.losses`, squared error unless given. optimizer: an optax optimizer as a
    function of its learning rate (`optax.adam`, or `lambda rate: optax.adam(optax.cosine_decay_schedule(rate, 1000))`),
    which makes the rate a field of `hyper` with the default `learning_rate`; or one that is built already; or
    "accelerated". penalty: from `moejax.penalties`, in the order of their proximal steps; L1, group lasso and L2 on experts
    and on gate unless given, of weight 0 until `hyper` sets them.

    Penalties enter by their subgradients, so that coefficients come near 0 and not to it, unless by proximal steps, which
    make them exactly 0 where the optimum's are:

    - proximal=True: after each step of the optimizer, on the loss alone, one of the penalties at the rates of that step. The
      fit settles at the optimum of loss and penalties if the optimizer treats every number alone (up to a common factor) and
      its learning rate falls, or is small: Adam and its like, SGD with or without momentum, clipping, schedules. It does not
      for those that mix numbers (L-BFGS) or add to gradients (the weight decay of AdamW, which the objective lacks). The
      noise of minibatches makes coefficients be penalised too little by optimizers with momentum.
    - optimizer="accelerated": the accelerated proximal gradient method FISTA with backtracking and restarts, whose objective
      never rises. It wants no learning rate (`learning_rate` is the first step that it tries) and takes all rows in every
      step. The loss must be differentiable. Reverse-mode differentiation does not pass through it.

    batch_size: rows a step, None for all; batches are drawn without replacement, in an order that is the same for all
    members of a sweep. record_every: the stride of `history`. patience: stop once the recorded objective has not fallen
    by more than the share `min_improvement` for so many steps. tol: a fit whose `kkt` is at most this has converged.

    Returns a pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start=None) -> Fit. Raises
    ValueError for a loss that the model does not have, for counts that are not whole numbers above 0, and for "accelerated"
    with a batch_size, with a gate that is noisy in training, or on the squared error of one that chooses experts, whose
    gradient is not that of its value.
    """
    loss = losses.squared_error() if loss is None else loss
    if not callable(getattr(loss, "value", None)):
        raise ValueError(f"loss: {loss!r} was given; want a record with a function `value`, as in moejax.losses")
    if hasattr(loss, "check"):
        loss.check(model)
    if not (isinstance(optimizer, optax.GradientTransformation) or callable(optimizer) or optimizer == _ACCELERATED):
        wanted = f"an optax optimizer, a function from a rate to one, or {_ACCELERATED!r}"
        raise ValueError(f"optimizer: {optimizer!r} was given; want {wanted}")
    if optimizer == _ACCELERATED and batch_size is not None:
        raise ValueError(f"batch_size: {batch_size} was given beside {_ACCELERATED!r}, which needs all rows; want None")
    of_likelihood = getattr(loss, "has_likelihood", False) or getattr(loss, "complete", False)
    if optimizer == _ACCELERATED and model.kept is not None and not of_likelihood:
        what = "one expert" if model.kept == 1 else f"{model.kept} experts"
        raise ValueError(f"optimizer: {_ACCELERATED!r} was given for a gate that chooses {what}; want a soft gate")
    if optimizer == _ACCELERATED and hasattr(model.gate, "noisy_log_probs"):
        raise ValueError(f"optimizer: {_ACCELERATED!r} was given for a gate with noise; want no noise")
    chosen_penalties = penalties.standard() if penalty is None else _solver.checked_penalties(penalty)
    for name, value in (("steps", steps), ("record_every", record_every)):
        _checks.count(name, value)
    for name, optional in (("batch_size", batch_size), ("patience", patience)):
        if optional is not None:
            _checks.count(name, optional)
    _checks.positive("learning_rate", learning_rate)
    _checks.not_negative("min_improvement", min_improvement)
    _checks.not_negative("tol", tol)
    return GradientFit(
        model,
        hashable(loss),
        optimizer,
        chosen_penalties,
        int(steps),
        batch_size,
        int(record_every),
        patience,
        float(min_improvement),
        float(tol),
        float(learning_rate),
        bool(proximal),
    )
