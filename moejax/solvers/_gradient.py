"""The gradient solver: any optax optimizer on any loss, as one pure function of a key and hyperparameters.

Penalties enter by their subgradients, or by proximal steps, which alone make coefficients exactly 0: after each step of an
optax optimizer on the loss (`proximal_step`), or in an accelerated proximal gradient method (`accelerated_step`).
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

from moejax import _cache, _checks, losses, penalties
from moejax._contracts import check_capabilities
from moejax._trees import merge, split
from moejax.families import target_of
from moejax.model import PARTS, Data, Model
from moejax.penalties import Penalty, PenaltyLike
from moejax.solvers import _shared, _starts
from moejax.solvers._accelerated import accelerated_step, no_momentum
from moejax.solvers._batches import Batches
from moejax.solvers._proximal import no_sizes, proximal_step
from moejax.solvers._result import Fit, finished, normalized, total_weight
from moejax.solvers._training import Hyper, TrainState

Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation] | str


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
    """A fit by gradient steps, configured by `fit_gradient`; call it, or hand it to `sweep` or `path`.

    It is hashed by its configuration: building it again compiles nothing anew.

    Attributes
    ----------
    model : Model
        The model.
    loss : Loss
        The loss.
    optimizer : callable or optax.GradientTransformation or "accelerated"
        The optimizer.
    penalties : tuple of Penalty
        The penalties, in the order of their proximal steps.
    steps : int
        Number of steps.
    batch_size : int or None
        Rows in a step, None for all.
    record_every : int
        Steps between two numbers of `Fit.history`.
    patience : int or None
        Steps without improvement after which a fit stops.
    min_improvement : float
        Relative fall of the objective that counts.
    tol : float
        Violation of the optimality condition at which a fit has converged.
    learning_rate : float, default 0.01
        Default of the field of `hyper`.
    proximal : bool, default False
        Whether penalties enter by proximal steps.
    """

    model: Model
    loss: losses.Loss
    optimizer: Any
    penalties: tuple[Penalty, ...]
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
        return {**rate, **weights, **self.loss.hyper, **self.model.hyper, "restart": 0}

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
        """Fit once.

        It is pure: it takes `jit` and `vmap`, and compiles itself when called outside of them.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        x : array_like, (n, d), or pytree
            Inputs, an array or a pytree of arrays with n leading.
        y : array_like, (n,) or (n, m)
            Targets, (n, m) for m outputs.
        hyper : dict or None, default None
            Numbers by name (see the property `hyper`), each of which may be traced. `restart` numbers the starts of `key`,
            from 0.
        weights : array_like or None, (n,), default None
            Frequencies of the rows, none below 0. None for equal ones.
        offset : array_like or None, default None
            Added to every expert's predictor, on the scale of eta; shaped like the predictor of one expert.
        groups : array_like or None, (n,), default None
            Whole numbers; the rows of a group share their expert and have equal weights.
        start : dict or array_like or callable or None, default None
            Params to start from in the place of drawn ones; or responsibilities (n, K), or a function of x that returns them
            (see `moejax.division`), to which drawn params are fitted first. None for drawn params.

        Returns
        -------
        Fit
            Params and how good they are. Once running, nothing raises; `Fit.status` tells.

        Raises
        ------
        ValueError
            Before anything compiles: if numbers are NaN or infinite, shapes do not fit, weights are below 0 or all 0, the
            target is constant, groups or batches do not go with the loss or the rows, or `hyper` has an unknown name or a
            value that cannot be.
        """
        fit: Fit = _compiled(self, *_shared.arguments(self, key, x, y, hyper, weights, offset, groups, start))
        return fit

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
        """Fit from these params where `warm` is true, and elsewhere from where a call would start, in one program.

        It is for compiled code: nothing is checked.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        x : jax.Array or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        hyper : dict
            Numbers by name.
        params : dict
            Params to start from.
        warm : jax.Array, ()
            A boolean.
        weights : jax.Array or None, (n,)
            Weights of the rows.
        offset : jax.Array or None
            Added to every expert's predictor.
        leader : jax.Array or None, (n,)
            As from `moejax.model.leaders`.
        start : dict or jax.Array or None
            As in a call, but no function.

        Returns
        -------
        Fit
            The fit.
        """
        return self._fit(key, x, y, hyper, weights, offset, leader, start, (params, warm))

    # ---- the pure pieces ----------------------------------------------------------------------------------------

    def init_state(self, key: jax.Array, x: Any, hyper: Hyper | None = None, start: Any = None) -> TrainState:
        """Return the state before the first step.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        x : array_like or pytree
            Inputs.
        hyper : dict or None, default None
            Numbers by name.
        start : dict or None, default None
            Params; None for params drawn from `key` and `hyper["restart"]`.

        Returns
        -------
        TrainState
            Params, and the state of the optimizer.

        Raises
        ------
        ValueError
            If nothing in the model is trained, or `hyper` has an unknown name or a value that cannot be.
        """
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
            return TrainState(params, no_momentum(trained, self.learning_rate / 2))
        optimizer_state = self._optimizer(hyper).init(trained)
        return TrainState(params, (optimizer_state, no_sizes(self.model, params)) if self.proximal else optimizer_state)

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
        """Take one step on all rows given. It is pure and takes `jit` and `vmap`.

        Parameters
        ----------
        state : TrainState
            As from `init_state`.
        x : array_like or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        hyper : dict or None, default None
            Numbers by name.
        weights : array_like or None, (n,), default None
            Weights of the rows.
        offset : array_like or None, default None
            Added to every expert's predictor.
        key : jax.Array or None, default None
            For the noise of a gate that has any, another one at each step.

        Returns
        -------
        state : TrainState
            The state after the step.
        objective : jax.Array, ()
            The objective before it.
        """
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        data = Data(self.model.prepare(x), y, offset, total=total_weight(weights, y), key=key)
        return self._step(state, data, normalized(weights, y), hyper)

    def objective(self, params: Any, data: Data, weights: jax.Array, hyper: Hyper) -> jax.Array:
        """Return the weighted mean loss plus penalties.

        Parameters
        ----------
        params : dict
            Params of the model.
        data : Data
            Prepared inputs and target.
        weights : jax.Array, (n,)
            Weights of the rows, of sum 1.
        hyper : dict
            Numbers by name, with the weights of penalties.

        Returns
        -------
        jax.Array, ()
            A mean over rows.
        """
        loss = self.loss.value(self.model, params, data._replace(hyper=hyper), weights)
        return loss + _shared.penalty(self, params, hyper)

    def score(
        self, params: Any, x: Any, y: jax.Array, weights: jax.Array, offset: Any = None, groups: Any = None
    ) -> jax.Array:
        """Return the weighted mean loss without penalties, by which selection compares: lower is better.

        Parameters
        ----------
        params : dict
            Params of the model.
        x : array_like or pytree
            Inputs of rows that may be others than the fitted ones.
        y : jax.Array, (n,) or (n, m)
            Targets.
        weights : jax.Array, (n,)
            Weights of the rows.
        offset : jax.Array or None, default None
            Added to every expert's predictor.
        groups : jax.Array or None, (n,), default None
            Labels; the rows of a group share their expert.

        Returns
        -------
        jax.Array, ()
            A mean over rows.
        """
        return _shared.score(self.model, self.loss, params, x, y, weights, offset, groups)

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face: not where batches or noise are drawn for each row."""
        return self.batch_size is None and not self.model.gate.is_noisy

    def work_bytes(self, y: jax.Array) -> int:
        """Return about how much memory a step of one fit works in, by which a sweep chooses how many to run at once.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.

        Returns
        -------
        int
            Bytes.
        """
        rows = self.batch_size or y.shape[0]
        return _WORK_ARRAYS * self.model.n_experts * rows * (y.size // y.shape[0]) * y.dtype.itemsize

    # ---- checks, on the host ------------------------------------------------------------------------------------

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken).

        Parameters
        ----------
        hyper : dict
            Numbers by name.
        """
        _shared.check_hyper(self, hyper)
        if self.has_exact_zeros:
            penalties.check_order([p for p, _ in _shared.used(self, hyper)])

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`.

        Parameters
        ----------
        x : array_like or pytree
            Inputs.
        y : array_like, (n,) or (n, m)
            Targets.
        weights : array_like or None, (n,), default None
            Weights of the rows.
        offset : array_like or None, default None
            Added to every expert's predictor.
        groups : array_like or None, (n,), default None
            Labels of rows.
        start : dict or array_like or callable or None, default None
            Where to start.
        """
        n = _shared.checked_rows(self, x, y, weights, offset, groups, start)
        if groups is not None and not self.loss.takes_groups:
            raise ValueError(f"groups: given for {self.loss!r}, which has no experts to share; want losses.nll()")
        if groups is not None and self.batch_size is not None:
            raise ValueError("groups: given beside batch_size, whose batches would tear them; want batch_size=None")
        if self.batch_size is not None and self.batch_size > n:
            raise ValueError(f"batch_size: {self.batch_size} was given for {n} rows; want at most that many")

    @property
    def has_exact_zeros(self) -> bool:
        """Whether coefficients come to be exactly 0: by proximal steps, but not by those along subgradients."""
        return self.proximal or self._is_accelerated

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
            return accelerated_step(self, state, data, weights, hyper)
        if self.proximal:
            return proximal_step(self, state, data, weights, hyper)
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
        updated: tuple[Any, Any] = optimizer.update(gradient, state, trained, **more)
        return updated

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
            division = _starts.shared_rows(start, self.model.active(state.params), leader, y.dtype)
            state = self.init_state(key, x, hyper, self._suited(state.params, division, data, weights, hyper))
            data = data._replace(division=division if self.loss.complete else None)
        if resume is not None:
            own = {name: state.params[name] for name in PARTS}
            params = jax.tree.map(partial(jnp.where, resume[1]), {name: resume[0][name] for name in PARTS}, own)
            state = self.init_state(key, x, hyper, params)
        batches = noise = None
        if self.batch_size is not None:
            order = jax.random.fold_in(key, _ORDER)
            batches = Batches(self.model, self.batch_size, order, x, y, weights, offset, data.division, total)
        if self.model.gate.is_noisy:
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
        state = TrainState(params, no_momentum(trained, 1.0))
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
        objective = loss + _shared.penalty(self, params, hyper)
        gradient = merge(gradient, jax.tree.map(jnp.zeros_like, rest))
        if self.loss.has_likelihood:
            gradient = _shared.free_slopes(self, params, gradient, target_of(data.y, weights))
        kkt = _shared.kkt(self, params, gradient, hyper)
        return finished(
            self.model,
            params,
            data,
            weights,
            total,
            self.loss.has_likelihood,
            objective=objective,
            history=end.history,
            steps=end.step,
            kkt=kkt,
            converged=(end.step < self.steps) | (kkt <= self.tol),
        )


# They treat every number alone, so that all params may be one array to them, updated in one go.
_ELEMENTWISE = (optax.adam, optax.adamw, optax.adamax, optax.nadam, optax.amsgrad, optax.adagrad, optax.rmsprop, optax.sgd)
_WORK_ARRAYS = 8  # arrays of (K, n) or (K, n, m) that a step makes
_ACCELERATED = "accelerated"
_ORDER, _NOISE = 0x6F726465, 0x6E6F6973  # streams of the key apart from those of the starts, which are numbered from 0
_START_STEPS = 100  # that make params of given responsibilities: linear experts are then next to their optimum


@_cache.jit
def _compiled(fit: GradientFit, *arguments: Any) -> Fit:
    return fit._fit(*arguments)


def fit_gradient(
    model: Model,
    loss: losses.LossLike | None = None,
    optimizer: Optimizer = optax.adam,
    *,
    penalty: Sequence[PenaltyLike] | PenaltyLike | None = None,
    steps: int = 1000,
    learning_rate: float = 0.01,
    batch_size: int | None = None,
    record_every: int = 10,
    patience: int | None = None,
    min_improvement: float = 1e-6,
    tol: float = 1e-5,
    proximal: bool = False,
) -> GradientFit:
    """Configure a fit by compiled gradient steps on the mean loss plus penalties.

    Parameters
    ----------
    model : Model
        From `moe`.
    loss : LossLike or None, default None
        From `moejax.losses`. None for squared error.
    optimizer : callable or optax.GradientTransformation or "accelerated", default optax.adam
        An optax optimizer as a function of its learning rate (`optax.adam`, or
        `lambda rate: optax.adam(optax.cosine_decay_schedule(rate, 1000))`), which makes the rate a field of `hyper`; one
        that is built already; or "accelerated", see Notes.
    penalty : sequence of PenaltyLike or PenaltyLike or None, default None
        From `moejax.penalties`, in the order of their proximal steps. None for L1, group lasso and L2, on experts and on
        gate. Each has weight 0 until `hyper` sets it.
    steps : int, default 1000
        Number of steps.
    learning_rate : float, default 0.01
        Default of the field `learning_rate` of `hyper`. For "accelerated" the first step size that is tried.
    batch_size : int or None, default None
        Rows in a step, None for all. Batches are drawn without replacement, in an order that is the same for all members of
        a sweep.
    record_every : int, default 10
        Steps between two numbers of `Fit.history`.
    patience : int or None, default None
        Stop once the recorded objective has not fallen by more than `min_improvement` for so many steps. None to take all
        steps.
    min_improvement : float, default 1e-6
        Relative fall of the objective that counts.
    tol : float, default 1e-5
        A fit whose `Fit.kkt` is at most this has converged, in units of the gradient of the mean loss.
    proximal : bool, default False
        Whether penalties enter by proximal steps, see Notes.

    Returns
    -------
    GradientFit
        A pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start=None) -> Fit.

    Raises
    ------
    ValueError
        If the model does not have the loss, if counts are not whole numbers above 0, or if "accelerated" is given with a
        batch_size, with a gate that is noisy in training, or with squared error for a gate that chooses experts, whose
        gradient is not that of its value.

    Notes
    -----
    The objective is the weighted mean loss plus the sum over penalties of weight * value. Penalties enter by their
    subgradients, so that coefficients come near 0 and do not reach it, unless by proximal steps, which make them exactly 0
    where those of the optimum are:

    - proximal=True: after each step of the optimizer, on the loss alone, one of the penalties at the rates of that step. The
      fit settles at the optimum of loss and penalties if the optimizer treats every number alone (up to a common factor) and
      its learning rate falls, or is small: Adam and its like, SGD with or without momentum, clipping, schedules. It does not
      for those that mix numbers (L-BFGS) or add to gradients (the weight decay of AdamW, which the objective lacks). With
      the noise of minibatches, optimizers with momentum penalise coefficients too little.
    - optimizer="accelerated": the accelerated proximal gradient method FISTA with backtracking and restarts, whose objective
      never rises. It needs no learning rate, and takes all rows in every step. The loss must be differentiable. Reverse-mode
      differentiation does not pass through it.
    """
    loss = losses.squared_error() if loss is None else losses.completed(loss)
    _shared.check_parts(model)
    check_capabilities(loss)
    loss.check(model)
    if not (isinstance(optimizer, optax.GradientTransformation) or callable(optimizer) or optimizer == _ACCELERATED):
        wanted = f"an optax optimizer, a function from a rate to one, or {_ACCELERATED!r}"
        raise ValueError(f"optimizer: {optimizer!r} was given; want {wanted}")
    if optimizer == _ACCELERATED and batch_size is not None:
        raise ValueError(f"batch_size: {batch_size} was given beside {_ACCELERATED!r}, which needs all rows; want None")
    of_likelihood = loss.has_likelihood or loss.complete
    if optimizer == _ACCELERATED and model.kept is not None and not of_likelihood:
        what = "one expert" if model.kept == 1 else f"{model.kept} experts"
        raise ValueError(f"optimizer: {_ACCELERATED!r} was given for a gate that chooses {what}; want a soft gate")
    if optimizer == _ACCELERATED and model.gate.is_noisy:
        raise ValueError(f"optimizer: {_ACCELERATED!r} was given for a gate with noise; want no noise")
    chosen_penalties = penalties.standard() if penalty is None else _shared.checked_penalties(penalty)
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
        loss,
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
