"""The gradient solver: any optax optimizer on any loss, as one pure function of a key and hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from moejax import _check, losses, penalties
from moejax._trees import chosen, merge, replaced, split
from moejax.fit import Fit, Status, check_data, check_key, status_of
from moejax.model import Data, Model, floating, hashable

Hyper = dict[str, Any]
Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation]


class TrainState(NamedTuple):
    """Where training stands: the model's params and the optimizer's state."""

    params: Any
    optimizer_state: Any


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

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""
        rate = {} if self._is_built else {"learning_rate": self.learning_rate}
        return {**rate, **{p.name: 0.0 for p in self.penalties}, **self.model.hyper, "restart": 0}

    def __call__(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        hyper: Hyper | None = None,
        *,
        weights: Any = None,
        offset: Any = None,
        start: Any = None,
    ) -> Fit:
        """Fit once. Pure: takes `jit` and `vmap`, and compiles itself when called outside of them.

        key: the only source of randomness. x: (n, d), or a pytree of arrays with n leading. y: (n,), or (n, m) for m
        outputs. hyper: numbers by name (see the property `hyper`), each of which may be traced; `restart` numbers the
        starts that `key` yields. weights: (n,) of the rows, None for equal ones. offset: added to every expert's
        predictor, shaped like y. start: params to start from in the place of drawn ones.

        Raises ValueError, before anything compiles, for numbers that are NaN or infinite, shapes that do not fit,
        weights below 0 or all 0, a constant target, and names in `hyper` that mean nothing here or values they cannot
        have. Returns a `Fit`; once running, nothing raises and its `status` tells.
        """
        check_key(key)
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        for name, value in hyper.items():
            _check.shape(f"hyper[{name!r}]", value, (), "one number; `sweep` takes many")
        self.check_data(x, y, weights, offset, start)
        x = jax.tree.map(floating, x)
        dtype = jax.tree.leaves(x)[0].dtype
        y, weights, offset = (None if v is None else jnp.asarray(v, dtype) for v in (y, weights, offset))
        hyper = {name: jnp.asarray(value, jnp.int32 if name == "restart" else dtype) for name, value in hyper.items()}
        return _compiled(self, key, x, y, hyper, weights, offset, start)

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
        return TrainState(params, self._optimizer(hyper).init(trained))

    def train_step(
        self, state: TrainState, x: Any, y: jax.Array, hyper: Hyper | None = None, *, weights: Any = None, offset: Any = None
    ) -> tuple[TrainState, jax.Array]:
        """One step on all rows given: the state after it, and the objective before it. Pure; takes `jit` and `vmap`."""
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        data = Data(self.model.prepare(x), y, offset)
        return self._step(state, data, _normalized(weights, y), hyper)

    def objective(self, params: Any, data: Data, weights: jax.Array, hyper: Hyper) -> jax.Array:
        """The weighted mean loss plus penalties. weights: (n,), of sum 1."""
        return self.loss.value(self.model, params, data, weights) + self._penalty(params, hyper)

    def score(self, params: Any, x: Any, y: jax.Array, weights: jax.Array, offset: Any = None) -> jax.Array:
        """The weighted mean loss without penalties, by which selection compares: lower is better."""
        return self.loss.value(self.model, params, Data(self.model.prepare(x), y, offset), _normalized(weights, y))

    def work_bytes(self, y: jax.Array) -> int:
        """About how much memory a step of one fit works in, by which a sweep chooses how many to run at once."""
        rows = self.batch_size or y.shape[0]
        return _WORK_ARRAYS * self.model.n_experts * rows * (y.size // y.shape[0]) * y.dtype.itemsize

    # ---- checks, on the host ------------------------------------------------------------------------------------

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken)."""
        if not isinstance(hyper, Mapping):
            raise ValueError(f"hyper: {hyper!r} was given; want a mapping from names to numbers")
        for name, value in hyper.items():
            if name not in self.hyper:
                raise ValueError(f"hyper: {name!r} was given; want names among {sorted(self.hyper)}")
            if name in self.model.hyper:
                self.model.check_hyper(name, value)
            else:
                (_check.positive if name == "learning_rate" else _check.not_negative)(f"hyper[{name!r}]", value)
            if name == "restart" and not _check.is_traced(value):
                numbers = np.asarray(value)
                if (numbers % 1 != 0).any() or (numbers >= 2**31).any():
                    raise ValueError(f"hyper['restart']: {value!r} was given; want whole numbers below 2**31")

    def check_data(self, x: Any, y: Any, weights: Any = None, offset: Any = None, start: Any = None) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`."""
        n = check_data(self.model, x, y, weights, offset, start)
        if self.batch_size is not None and self.batch_size > n:
            raise ValueError(f"batch_size: {self.batch_size} was given for {n} rows; want at most that many")

    # ---- inside the compiled program ----------------------------------------------------------------------------

    @property
    def _is_built(self) -> bool:
        return isinstance(self.optimizer, optax.GradientTransformation)

    def _optimizer(self, hyper: Hyper) -> optax.GradientTransformation:
        if self._is_built:
            return self.optimizer
        built = self.optimizer(hyper.get("learning_rate", self.learning_rate))
        return optax.flatten(built) if self.optimizer in _ELEMENTWISE else built

    def _used(self, hyper: Hyper) -> list[Any]:
        # A penalty that nobody set costs nothing: its weight is not even a number in the program.
        return [p for p in self.penalties if p.name in hyper]

    def _penalty(self, params: Any, hyper: Hyper) -> Any:
        marked = self.model.penalized(params)
        terms = (hyper[p.name] * p.value(chosen(params[p.part], marked[p.part])) for p in self._used(hyper))
        return sum(terms, 0.0)

    def _step(self, state: TrainState, data: Data, weights: jax.Array, hyper: Hyper) -> tuple[TrainState, jax.Array]:
        trained, rest = split(state.params, self.model.trainable(state.params))

        def value(trained: Any) -> jax.Array:
            return self.objective(merge(trained, rest), data, weights, hyper)

        objective, gradient = jax.value_and_grad(value)(trained)
        # Some optimizers search along a line, or plan by the value; the others ignore it.
        more = {"value": objective, "grad": gradient, "value_fn": value}
        optimizer = optax.with_extra_args_support(self._optimizer(hyper))
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, trained, **more)
        return TrainState(merge(optax.apply_updates(trained, updates), rest), optimizer_state), objective

    def _fit(self, key: jax.Array, x: Any, y: jax.Array, hyper: Hyper, weights: Any, offset: Any, start: Any) -> Fit:
        total = jnp.asarray(y.shape[0], y.dtype) if weights is None else weights.sum()
        weights = _normalized(weights, y)
        state = self.init_state(key, x, hyper, start)
        batches = None
        if self.batch_size is not None:
            batches = _Batches(self.model, self.batch_size, jax.random.fold_in(key, _ORDER), x, y, weights, offset)
        data = Data(self.model.prepare(x), y, offset)
        end = self._train(state, data, weights, hyper, batches)
        return self._finish(end, data, weights, hyper, total)

    def _train(self, state: TrainState, data: Data, weights: jax.Array, hyper: Hyper, batches: Any) -> _Progress:
        n, dtype = data.y.shape[0], data.y.dtype
        records = -(-self.steps // self.record_every)  # rounded up

        def step(i: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            begin, state, order, first = carry
            if batches is None:
                state, objective = self._step(state, data, weights, hyper)
            else:
                order = batches.order(begin + i, order)
                batch, batch_weights = batches.take(begin + i, order)
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
        objective = loss + self._penalty(params, hyper)
        kkt = self._kkt(params, merge(gradient, jax.tree.map(jnp.zeros_like, rest)), hyper)
        likelihood = getattr(self.loss, "has_likelihood", False)
        status = status_of(self.model, params, data, weights, objective, likelihood)
        ended = (end.step < self.steps) | (kkt <= self.tol)
        ended = jnp.where(ended, int(Status.CONVERGED), int(Status.OUT_OF_STEPS))
        status = jnp.where(status & int(Status.DIVERGED), status, status | ended)
        log_likelihood = -loss * total if likelihood else jnp.full_like(loss, jnp.nan)
        return Fit(params, objective, log_likelihood, end.history, end.step, kkt, status)

    def _kkt(self, params: Any, gradient: Any, hyper: Hyper) -> jax.Array:
        """The largest move that a proximal gradient step of size 1 would make: 0 where, and only where, optimal."""
        moved = jax.tree.map(jnp.subtract, params, gradient)
        marked = self.model.penalized(params)
        for p in self._used(hyper):
            shrunk = p.prox(chosen(moved[p.part], marked[p.part]), hyper[p.name])
            moved = {**moved, p.part: replaced(moved[p.part], marked[p.part], shrunk)}
        moves = jax.tree.map(lambda before, after: jnp.abs(before - after).max(initial=0), params, moved)
        return jnp.stack(jax.tree.leaves(moves)).max()


class _Batches(NamedTuple):
    """Minibatches in an order that depends on the key alone, so that all members of a sweep share each gather of rows."""

    model: Model
    size: int
    key: jax.Array
    x: Any
    y: jax.Array
    weights: jax.Array
    offset: Any

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
        return Data(self.model.prepare(x), y, offset), self.weights[rows] * (n / self.size)


# They treat every number alone, so that all params may be one array to them, updated in one go.
_ELEMENTWISE = (optax.adam, optax.adamw, optax.adamax, optax.nadam, optax.amsgrad, optax.adagrad, optax.rmsprop, optax.sgd)
_WORK_ARRAYS = 8  # arrays of (K, n) or (K, n, m) that a step makes
_ORDER = 0x6F726465  # a stream of the key apart from those of the starts, which are numbered from 0


@partial(jax.jit, static_argnums=0)
def _compiled(fit: GradientFit, *arguments: Any) -> Fit:
    return fit._fit(*arguments)


def _normalized(weights: Any, y: jax.Array) -> jax.Array:
    if weights is None:
        return jnp.full(y.shape[:1], 1.0 / y.shape[0], y.dtype)
    weights = jnp.asarray(weights, y.dtype)
    weights = weights / weights.max()  # whose sum then cannot overflow
    return weights / weights.sum()


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
) -> GradientFit:
    """A fit by `steps` compiled gradient steps on the mean loss plus penalties.

    model: from `moe`. loss: from `moejax.losses`, squared error unless given. optimizer: an optax optimizer as a
    function of its learning rate (`optax.adam`, or `lambda rate: optax.adam(optax.cosine_decay_schedule(rate, 1000))`),
    which makes the rate a field of `hyper` with the default `learning_rate`; or one that is built already. penalty: from
    `moejax.penalties`, in the order of their proximal steps; L1 and L2 on experts and on gate unless given, of weight 0
    until `hyper` sets them. L1 enters by its subgradient, so that coefficients come near 0 and not to it.

    batch_size: rows a step, None for all; batches are drawn without replacement, in an order that is the same for all
    members of a sweep. record_every: the stride of `history`. patience: stop once the recorded objective has not fallen
    by more than the share `min_improvement` for so many steps. tol: a fit whose `kkt` is at most this has converged.

    Returns a pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, start=None) -> Fit. Raises ValueError
    for a loss that the model does not have, and for counts that are not whole numbers above 0.
    """
    loss = losses.squared_error() if loss is None else loss
    if not callable(getattr(loss, "value", None)):
        raise ValueError(f"loss: {loss!r} was given; want a record with a function `value`, as in moejax.losses")
    if hasattr(loss, "check"):
        loss.check(model)
    if not (isinstance(optimizer, optax.GradientTransformation) or callable(optimizer)):
        raise ValueError(f"optimizer: {optimizer!r} was given; want an optax optimizer, or a function from a rate to one")
    chosen_penalties = penalties.standard() if penalty is None else _penalties(penalty)
    for name, value in (("steps", steps), ("record_every", record_every)):
        _check.count(name, value)
    for name, optional in (("batch_size", batch_size), ("patience", patience)):
        if optional is not None:
            _check.count(name, optional)
    _check.positive("learning_rate", learning_rate)
    _check.not_negative("min_improvement", min_improvement)
    _check.not_negative("tol", tol)
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
    )


def _penalties(given: Any) -> tuple[Any, ...]:
    given = given if isinstance(given, list | tuple) and not hasattr(given, "prox") else (given,)
    for p in given:
        if not all(hasattr(p, name) for name in ("name", "part", "value", "prox")):
            raise ValueError(f"penalty: {p!r} was given; want records as in moejax.penalties")
    return tuple(hashable(p) for p in given)
