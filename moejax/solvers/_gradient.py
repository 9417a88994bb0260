"""The gradient solver: any optax optimizer on any loss, as one pure function of a key and hyperparameters.

Penalties enter by their subgradients, or by proximal steps, which alone make coefficients exactly 0: after each step of an
optax optimizer on the loss (`proximal_step`), or in an accelerated proximal gradient method (`accelerated_step`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from moejax import _checks, losses, penalties
from moejax._contracts import check_capabilities
from moejax._rows import Rows
from moejax._trees import merge, split
from moejax.model import PARTS, Data, Model, checked, native, on_device, without_absent
from moejax.model._arguments import check_params, check_shapes
from moejax.penalties import Penalty, PenaltyLike
from moejax.solvers import _shared, _starts
from moejax.solvers._accelerated import accelerated_step, no_momentum
from moejax.solvers._base import run
from moejax.solvers._configured import Configured, Hyper
from moejax.solvers._descent import Descent, Task, task_of
from moejax.solvers._proximal import no_sizes, proximal_step
from moejax.solvers._result import normalized, total_weight
from moejax.solvers._training import MeanLoss, TrainState

Optimizer: TypeAlias = optax.GradientTransformation | Callable[[Any], optax.GradientTransformation] | str


@dataclass(frozen=True)
class GradientFit(Configured):
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
    block_size : int or None, default None
        Rows in a block; None for a size that fits a core's cache.
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
    block_size: int | None = None

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""
        rate = {} if self._is_built or self._is_accelerated else {"learning_rate": self.learning_rate}
        weights = {p.name: 0.0 for p in self.penalties}
        return {**rate, **weights, **self.loss.hyper, **self.model.hyper, "restart": 0}

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
        _checks.key("key", key)
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        _shared.check_single(hyper)
        x, start = native("x", x), native("start", start)
        check_shapes(self.model, x, least=0)
        if start is not None:
            check_params("start", start, jax.eval_shape(self.model.init, key, x))
        params = drawn(self, key, x, hyper, start)
        return self.begun(params, hyper)

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
        if not isinstance(state, TrainState):
            raise ValueError(f"state: {_checks.shown(state)} was given; want a state, as from init_state")
        if key is not None:
            _checks.key("key", key)
        _checks.present("y", y)
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        _shared.check_single(hyper)
        weights = None if weights is None else _checks.scaled(native("weights", weights))
        x, y, offset = without_absent(weights, x, y, offset)
        _, x, y, offset = checked(self.model, state.params, x, y, offset)
        if weights is not None:
            weights = native("weights", weights)
            _checks.check_weights(weights, y.shape[0])
            weights = on_device(weights)
        data = Data(
            self.model.prepare(x), y, offset, total=total_weight(weights, y), key=key, hyper={**self.loss.hyper, **hyper}
        )
        return self.stepped(state, lambda params: self.loss.value(self.model, params, data, normalized(weights, y)), hyper)

    @property
    def rows_in_step(self) -> int | None:
        """Rows that a step takes: `batch_size`."""
        return self.batch_size

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face: not where batches or noise are drawn for each row."""
        return super().takes_padding and self.batch_size is None and not self.model.gate.is_noisy

    @property
    def uneven(self) -> bool:
        """Whether fits end at different times: if they stop early."""
        return self.patience is not None

    @property
    def is_settling(self) -> bool:
        """Whether a fit converges if it may take enough steps: accelerated steps do, Adam at a fixed rate does not."""
        return self.patience is not None or self.optimizer == _ACCELERATED

    def work_bytes(self, y: jax.Array) -> int:
        """Return about how much memory a step of one fit works in: see `Configured.work_bytes`."""
        rows = self.batch_size or y.shape[0]
        return _WORK_ARRAYS * self.model.n_experts * rows * (y.size // y.shape[0]) * y.dtype.itemsize

    def rows_in_block(self, x: Any, y: Any, leader: Any = None) -> int:
        """Return how many rows a block has; 0 where all rows are one block, as those of groups and of minibatches are."""
        whole = leader is not None or self.batch_size is not None or self.model.gate.is_noisy or not self.loss.has_sums
        if whole:
            return 0
        return super().rows_in_block(x, y) if self.block_size is None else min(self.block_size, y.shape[0])

    # ---- checks, on the host ------------------------------------------------------------------------------------

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`."""
        n = _shared.checked_rows(self, x, y, weights, offset, groups, start)
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

    def descent(
        self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: tuple[Any, Any] | None = None
    ) -> tuple[Descent, Task]:
        """Return the steps and what they are given: see `Configured.descent`."""
        task = begin(self, key, hyper, rows, start, resume)
        return Descent(self), task

    def begun(self, params: Any, hyper: Hyper) -> TrainState:
        """Return params with the state of the optimizer before the first step.

        Parameters
        ----------
        params : dict
            Params of the model.
        hyper : dict
            Numbers by name.

        Returns
        -------
        TrainState
            Params, and the state of the optimizer.
        """
        trained, _ = split(params, self.model.trainable(params))
        if self._is_accelerated:
            return TrainState(params, no_momentum(trained, self.learning_rate / 2))
        optimizer_state = self._optimizer(hyper).init(trained)
        return TrainState(params, (optimizer_state, no_sizes(self.model, params)) if self.proximal else optimizer_state)

    def stepped(self, state: TrainState, loss: MeanLoss, hyper: Hyper) -> tuple[TrainState, jax.Array]:
        """Return the state after one step on a loss, and the objective before it.

        Parameters
        ----------
        state : TrainState
            The state before the step.
        loss : callable
            A function of params: the mean loss of the rows of this step, without penalties.
        hyper : dict
            Numbers by name.

        Returns
        -------
        state : TrainState
            The state after the step.
        objective : jax.Array, ()
            The loss before it, with penalties.
        """
        if self._is_accelerated:
            return accelerated_step(self, state, loss, hyper)
        if self.proximal:
            return proximal_step(self, state, loss, hyper)
        trained, rest = split(state.params, self.model.trainable(state.params))

        def value(trained: Any) -> jax.Array:
            params = merge(trained, rest)
            return loss(params) + _shared.penalty(self, params, hyper)

        objective, gradient = jax.value_and_grad(value)(trained)
        updates, optimizer_state = self.updates(trained, state.optimizer_state, value, objective, gradient, hyper)
        return TrainState(merge(optax.apply_updates(trained, updates), rest), optimizer_state), objective

    def updates(
        self, trained: Any, state: Any, value: Callable[[Any], jax.Array], objective: Any, gradient: Any, hyper: Hyper
    ) -> tuple[Any, Any]:
        """Return what the optimizer adds to the trained params, and its next state.

        Parameters
        ----------
        trained : pytree
            The trained params.
        state : pytree
            The state of the optimizer.
        value : callable
            The function of the trained params that the optimizer lowers.
        objective : jax.Array, ()
            Its value at `trained`.
        gradient : pytree
            Its gradient there.
        hyper : dict
            Numbers by name.

        Returns
        -------
        updates : pytree
            Like the trained params.
        state : pytree
            The next state.
        """
        # Some optimizers search along a line, or plan by the value; the others ignore it.
        more = {"value": objective, "grad": gradient, "value_fn": value}
        optimizer = optax.with_extra_args_support(self._optimizer(hyper))
        updated: tuple[Any, Any] = optimizer.update(gradient, state, trained, **more)
        return updated


# They treat every number alone, so that all params may be one array to them, updated in one go.
_ELEMENTWISE = (optax.adam, optax.adamw, optax.adamax, optax.nadam, optax.amsgrad, optax.adagrad, optax.rmsprop, optax.sgd)
_WORK_ARRAYS = 8  # arrays of (K, n) or (K, n, m) that a step makes
_ACCELERATED = "accelerated"
_START_STEPS = 100  # that make params of given responsibilities: linear experts are then next to their optimum


def drawn(fit: Configured, key: jax.Array, x: Any, hyper: Hyper, start: Any = None) -> Any:
    """Return params with the numbers of `hyper`: those to start from, or drawn ones."""
    if start is None:
        start = fit.model.init(jax.random.fold_in(key, hyper.get("restart", 0)), x)
    else:
        like = jax.eval_shape(fit.model.init, key, x)
        start = {name: start[name] for name in PARTS}
        start = jax.tree.map(lambda leaf, wanted: jnp.asarray(leaf, wanted.dtype), start, like)
    params: Any = fit.model.with_hyper(start, hyper)
    if not any(jax.tree.leaves(fit.model.trainable(params))):
        raise ValueError(f"model: nothing in {fit.model!r} is trained; want a part that has something to train")
    return params


def begin(
    fit: Configured, key: jax.Array, hyper: Hyper, rows: Rows, start: Any = None, resume: tuple[Any, Any] | None = None
) -> Task:
    """Return what the steps of a fit on a mean loss are given: see `Configured.descent`."""
    model, leader, x = fit.model, rows.blocks.leader, rows.first.x
    total = rows.blocks.weights.sum()
    weights = rows.blocks.weights / rows.blocks.weights.max()  # the sum of which then cannot overflow
    rows = Rows(rows.blocks._replace(weights=weights / weights.sum()))
    params = drawn(fit, key, x, hyper, start)
    if rows.blocks.division is not None:
        division = _starts.shared_out(rows.blocks.division, model.active(params))
        if leader is not None:
            division = division[:, :, leader[0]]
        rows = Rows(rows.blocks._replace(division=division))
        params = drawn(fit, key, x, hyper, _suited(fit, key, params, rows, total, hyper))
        if not fit.loss.complete:
            rows = Rows(rows.blocks._replace(division=None))
    if resume is not None:
        own = {name: params[name] for name in PARTS}
        there = {name: resume[0][name] for name in PARTS}
        params = drawn(fit, key, x, hyper, jax.tree.map(partial(jnp.where, resume[1]), there, own))
    return task_of(fit, key, params, rows, total, hyper)


def _suited(fit: Configured, key: jax.Array, params: Any, rows: Rows, total: jax.Array, hyper: Hyper) -> Any:
    """Params that suit responsibilities: those drawn, after steps on the loss in which these are held.

    By the accelerated method, which needs no learning rate and so serves targets and parts of any scale.
    """
    loss, steps = losses.complete_of(fit.model), _START_STEPS
    held = GradientFit(fit.model, loss, _ACCELERATED, fit.penalties, steps, None, steps, None, 0.0, 0.0, learning_rate=2.0)
    task = task_of(held, key, params, rows, total, hyper)
    return run(Descent(held), task._replace(noise=None)).params


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
    block_size: int | None = None,
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
        Violation of the optimality condition, free of units (see `Fit.kkt`), at which a fit has converged.
    proximal : bool, default False
        Whether penalties enter by proximal steps, see Notes.
    block_size : int or None, default None
        Rows over which sums are taken at once. None for a size that fits a core's cache, which depends on shapes and type
        alone. All rows are one block where data are small, in minibatches, with groups, and for a loss without `sums`.

    Returns
    -------
    GradientFit
        A pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start_params=None,
        start_responsibilities=None) -> Fit.

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
    is_named = isinstance(optimizer, str) and optimizer == _ACCELERATED
    if not (isinstance(optimizer, optax.GradientTransformation) or callable(optimizer) or is_named):
        wanted = f"an optax optimizer, a function from a rate to one, or {_ACCELERATED!r}"
        raise ValueError(f"optimizer: {_checks.shown(optimizer)} was given; want {wanted}")
    if is_named and batch_size is not None:
        raise ValueError(f"batch_size: {batch_size} was given beside {_ACCELERATED!r}, which needs all rows; want None")
    of_likelihood = loss.has_likelihood or loss.complete
    if is_named and model.kept is not None and not of_likelihood:
        what = "one expert" if model.kept == 1 else f"{model.kept} experts"
        raise ValueError(f"optimizer: {_ACCELERATED!r} was given for a gate that chooses {what}; want a soft gate")
    if is_named and model.gate.is_noisy:
        raise ValueError(f"optimizer: {_ACCELERATED!r} was given for a gate with noise; want no noise")
    chosen_penalties = penalties.standard() if penalty is None else _shared.checked_penalties(penalty)
    for name, value in (("steps", steps), ("record_every", record_every)):
        _checks.count(name, value)
    for name, optional in (("batch_size", batch_size), ("patience", patience), ("block_size", block_size)):
        if optional is not None:
            _checks.count(name, optional)
    learning_rate = _checks.number_above_0("learning_rate", learning_rate)
    min_improvement = _checks.number_from_0("min_improvement", min_improvement)
    tol = _checks.number_from_0("tol", tol)
    return GradientFit(
        model,
        loss,
        optimizer,
        chosen_penalties,
        int(steps),
        batch_size,
        int(record_every),
        patience,
        min_improvement,
        tol,
        learning_rate,
        _checks.flag("proximal", proximal),
        block_size,
    )
