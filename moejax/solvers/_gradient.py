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
    """A fit by gradient steps, configured by `fit_gradient`; call it, or hand it to `sweep`.

    Hashed by its configuration: building it again compiles nothing anew.
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
        return _compiled(self, *_shared.arguments(self, key, x, y, hyper, weights, offset, groups, start))

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
        return loss + _shared.penalty(self, params, hyper)

    def score(
        self, params: Any, x: Any, y: jax.Array, weights: jax.Array, offset: Any = None, groups: Any = None
    ) -> jax.Array:
        """The weighted mean loss without penalties, by which selection compares: lower is better."""
        return _shared.score(self.model, self.loss, params, x, y, weights, offset, groups)

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face: not where batches or noise are drawn for each row."""
        return self.batch_size is None and not self.model.gate.is_noisy

    def work_bytes(self, y: jax.Array) -> int:
        """About how much memory a step of one fit works in, by which a sweep chooses how many to run at once."""
        rows = self.batch_size or y.shape[0]
        return _WORK_ARRAYS * self.model.n_experts * rows * (y.size // y.shape[0]) * y.dtype.itemsize

    # ---- checks, on the host ------------------------------------------------------------------------------------

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken)."""
        _shared.check_hyper(self, hyper)
        if self.has_exact_zeros:
            penalties.check_order([p for p, _ in _shared.used(self, hyper)])

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`."""
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
        return optimizer.update(gradient, state, trained, **more)

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
