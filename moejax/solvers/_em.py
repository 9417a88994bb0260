"""The EM solver: maximum likelihood with exact zeros, from sums over rows.

An iteration (Dempster, Laird and Rubin 1977; for mixtures of experts Jordan and Jacobs 1994) takes the responsibilities at
the present params, and with them all sums over rows that the M-steps want. The M-steps see these sums alone: experts and
gate each lower a quadratic that bounds or approximates the expected loss, plus penalties; the dispersion is the best one for
where the experts go. The next E-step tells whether the objective fell. If it did not, the step is halved until it does.

The first iterations of a start take responsibilities that were given or drawn; what must not rise is then the expected loss.

Between iterations Anderson's extrapolation from the last few (Anderson 1965; for EM, Henderson and Varadhan 2019) guesses
where they lead. A guess at which the objective is higher is dropped for the iterate that it was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _cache, _checks, _rows, losses, penalties
from moejax._ops import choose, where
from moejax._rows import Rows
from moejax.families import Target
from moejax.model import PARTS, Data, Model
from moejax.solvers import _lanes, _shared, _starts
from moejax.solvers._iterations import EM, State, Task
from moejax.solvers._result import Fit
from moejax.solvers._sums import column_means, prepared, target_moments

Hyper = dict[str, Any]
_START_STEPS = {"exact": 1, "approximate": 3, "gradient": 15}  # with the responsibilities of a start, by kind of M-step
_WORK_ARRAYS = 12  # arrays of (K, n) or (K, n, m) that an iteration makes


@dataclass(frozen=True)
class EMFit:
    """A fit by EM, configured by `fit_em`; call it, or hand it to `sweep` or `path`.

    Hashed by its configuration: building it again compiles nothing anew.
    """

    model: Model
    penalties: tuple[Any, ...]
    init: str
    max_iter: int
    tol: float | None
    record_every: int
    loss: losses.NegativeLogLikelihood
    block_size: int | None = None

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""
        return {**{p.name: 0.0 for p in self.penalties}, **self.model.hyper, "restart": 0}

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
        predictor, shaped like y. groups: (n,) whole numbers; the rows of a group share their expert. start: params to
        start from in the place of drawn ones; or responsibilities (n, K), or a function of x (see `moejax.division`).

        Raises ValueError, before anything compiles, for numbers that are NaN or infinite, shapes that do not fit, targets
        that the family cannot have, weights below 0 or all 0, more experts than distinct rows, and names in `hyper` that
        mean nothing here or values they cannot have. Returns a `Fit`; once running, nothing raises and its `status` tells.
        """
        given = _shared.arguments(self, key, x, y, hyper, weights, offset, groups, start)
        return _compiled(self, given[0], given[3], *self.laid(*given[1:3], *given[4:]))

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
        return self._fit(key, x, y, hyper, weights, offset, leader, start, resume=(params, warm))

    def laid(self, x: Any, y: Any, weights: Any, offset: Any, leader: Any, start: Any) -> tuple[Rows, Any]:
        """Rows in blocks, and params to start from, or None. The blocks hold responsibilities to start from."""
        is_params = isinstance(start, dict)
        division = None if is_params or start is None else start.astype(y.dtype)
        return _rows.lay(x, y, weights, offset, leader, division, self._block(x, y)), start if is_params else None

    def descent(self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: Any = None) -> tuple[EM, Task]:
        """The iterations of this fit and what they are given, for compiled code that runs them itself.

        rows: of raw weights. start: params to start from, or None. resume: params, and whether to begin there, or None.
        """
        model, number = self.model, hyper.get("restart", jnp.zeros((), jnp.int32))
        dtype, leader = rows.blocks.y.dtype, rows.blocks.leader
        total = rows.blocks.weights.sum()
        weights = rows.blocks.weights / rows.blocks.weights.max()  # the sum of which then cannot overflow
        rows = Rows(rows.blocks._replace(weights=weights / weights.sum()))
        is_params = start is not None
        own_key = jax.random.fold_in(key, number)
        drawn = model.init(own_key, rows.first.x)
        active = model.active(model.with_hyper(drawn, hyper))
        division = rows.blocks.division
        target = target_moments(rows)
        if is_params:
            params = self._given_params(start, drawn, hyper)
        else:
            null = {
                "experts": model.expert.null(drawn["experts"], self._eta(rows, target)),
                "gate": model.gate.null(drawn["gate"]),
                "family": drawn["family"],
            }
            params = model.with_hyper(null, hyper)
            if division is None:
                alike = any(jax.tree.leaves(model.trainable(drawn)["experts"]))
                division = _starts.draw(self.init, number, key, rows, model.table, active, alike)
            else:
                division = _starts.shared_out(division, active)
            if leader is not None:
                whole = jnp.moveaxis(division, 1, 0).reshape(len(active), -1)
                division = jnp.moveaxis(whole[:, leader], 0, 1)
            rows = Rows(rows.blocks._replace(division=division))
        sizes = self._sizes(dtype)
        kind = "gradient" if sizes else "exact" if model.family.is_quadratic else "approximate"
        given = jnp.asarray(0 if is_params or self.loss.complete else _START_STEPS[kind], jnp.int32)
        if resume is not None:
            there, warm = resume
            params = choose(warm, self._given_params(there, params, hyper), params)
            given = where(warm, 0, given)
        params = self.bounded(params, target)
        squares = rows.sum(lambda block: jnp.square(block.weights).sum())
        means = column_means(rows)
        start_key = own_key if model.expert.has_begin else key
        task = Task(params, rows, means, target, total, squares, given, start_key, hyper, sizes)
        if rows.n_blocks == 1:
            task = task._replace(inputs=rows.sum(lambda block: prepared(model, block.x, means, keep=True)))
        return EM(self, params), task

    def objective(self, params: Any, data: Data, weights: jax.Array, hyper: Hyper) -> jax.Array:
        """What EM lowers: the weighted mean of the negative log-likelihood plus penalties. weights: (n,), of sum 1."""
        return self.loss.value(self.model, params, data, weights) + _shared.penalty(self, params, hyper)

    def score(self, params: Any, x: Any, y: jax.Array, weights: Any, offset: Any = None, groups: Any = None) -> jax.Array:
        """The weighted mean of -log p(y | x), by which selection compares: lower is better."""
        return _shared.score(self.model, losses.NegativeLogLikelihood(), params, x, y, weights, offset, groups)

    def work_bytes(self, y: jax.Array) -> int:
        """About how much memory an iteration of one fit works in, by which a sweep chooses how many to run at once."""
        return _WORK_ARRAYS * self.model.n_experts * y.size * y.dtype.itemsize

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face: yes."""
        return True

    @property
    def uneven(self) -> bool:
        """Yes: a fit ends when it has converged, and those that run beside it in a sweep wait for the last."""
        return True

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken)."""
        _shared.check_hyper(self, hyper)
        penalties.check_order([p for p, _ in _shared.used(self, hyper)])

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`."""
        _shared.checked_rows(self, x, y, weights, offset, groups, start)
        _starts.check_init(self.init, self.model.table(x))
        _starts.check_distinct(x, y, self.model.n_experts)

    # ---- inside the compiled program ----------------------------------------------------------------------------

    def _fit(self, key: Any, x: Any, y: Any, hyper: Hyper, *more: Any, resume: Any = None) -> Fit:
        return self.solve(key, hyper, *self.laid(x, y, *more), resume)

    def solve(self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: Any = None) -> Fit:
        """Fit once, inside compiled code; see `descent`."""
        solver, task = self.descent(key, hyper, rows, start, resume)

        def step(task: Task, state: State) -> _lanes.Turn:
            state = solver.step(task, state)
            over = solver.done(state)
            return _lanes.Turn(state, over, jnp.zeros((), jnp.int32), solver.end(state), over)

        ends = _lanes.run(_lanes.Loop(solver.init, step, 1), task)
        return solver.finish(task, jax.tree.map(lambda v: v[0], ends))

    def _block(self, x: Any, y: Any) -> int:
        if self.block_size is not None:
            return min(self.block_size, y.shape[0])
        return _rows.block_size(y.shape[0], *self._widths(x, y), y.dtype)

    def _widths(self, x: Any, y: Any) -> tuple[int, int]:
        """Columns of the widest table, and work arrays of an iteration."""
        wide = max((v.shape[1] + 1 for v in jax.tree.leaves(x) if v.ndim == 2), default=1)
        return wide, _WORK_ARRAYS * self.model.n_experts * (y.size // y.shape[0])

    def tolerance(self, dtype: Any) -> float:
        """The violation of the optimality condition at which a fit has converged."""
        if self.tol is not None:
            return self.tol
        return 1e-7 if dtype == jnp.float64 else 1e-4

    def bounded(self, params: Any, target: Target) -> Any:
        """Params within constraints of the family that the density does not see."""
        return {**params, "family": self.model.family.bounded(params["family"], target)}

    def _eta(self, rows: Rows, target: Target) -> Any:
        """The predictor to begin with, less the mean offset."""
        eta = self.model.family.start(target)
        if rows.blocks.offset is None:
            return eta
        return eta - rows.sum(lambda block: jnp.tensordot(block.weights, jnp.asarray(block.offset), 1))

    def _given_params(self, given: Any, like: Any, hyper: Hyper) -> Any:
        own = {name: jax.tree.map(lambda leaf, v: jnp.asarray(leaf, v.dtype), given[name], like[name]) for name in PARTS}
        return self.model.with_hyper(own, hyper)

    def _sizes(self, dtype: Any) -> dict[str, jax.Array]:
        """Sizes of the first gradient steps of parts without an M-step."""
        model = self.model
        own = {name: part.is_linear or part.has_m_step for name, part in (("experts", model.expert), ("gate", model.gate))}
        own["family"] = model.family.has_dispersion
        return {name: jnp.asarray(0.1, dtype) for name, there in own.items() if not there}


@_cache.jit
def _compiled(fit: EMFit, *arguments: Any) -> Fit:
    return fit.solve(*arguments)


def fit_em(
    model: Model,
    loss: Any = None,
    *,
    penalty: Sequence[Any] | None = None,
    init: str = "random",
    max_iter: int = 500,
    tol: float | None = None,
    record_every: int = 10,
) -> EMFit:
    """A fit of the mixture's likelihood by EM, with exact zeros.

    model: from `moe`, with a family. Its gate says what is ascended: log p(y | x); log p(x, y) for a gate that models its
    inputs; for one that chooses an expert, the sum over rows of max over k of log g_k(x) f_k(y) (classification EM, Celeux
    and Govaert 1992), and for `top_k` of the log of the sum of the k largest (see `moejax.losses.truncated_nll`). loss:
    None, or that very loss; or `losses.complete_nll`, of the responsibilities that a fit gets as `start`, which are then
    held. penalty: from `moejax.penalties`, in the order of their proximal steps; L1, group lasso over experts and L2, on
    experts and on gate, unless given, of weight 0 until `hyper` sets them.

    init: how a start is drawn: "kmeans" (clusters of x), "residuals" (clusters of what one regression leaves), "centres"
    (nearest of K random rows), "random" (responsibilities), "equal" (the same for all experts, from which only experts that
    differ by themselves part), or "mixed", one of the first four after another by the number `restart`, after "equal" where
    experts have nothing to train. Where x is no table (n, d), clusters are of what the gate sees, if that is one.
    max_iter: iterations at most. tol: the KKT violation (see `Fit.kkt`) at which a fit has converged; unless given, 1e-7 in
    float64 and 1e-4 in float32. record_every: the stride of `history`.

    Returns a pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start=None) -> Fit. Raises
    ValueError for a model without a family, or whose family does not go with its experts, for a loss that EM does not lower,
    for a gate with noise, and for counts that are not whole numbers above 0.
    """
    if model.family is None:
        raise ValueError(
            "model: one without a family was given; EM ascends a likelihood: want moe(..., family=families.gaussian())"
        )
    _shared.check_parts(model)
    if model.gate.is_noisy:
        raise ValueError(f"gate: {model.gate!r} is noisy in training, which EM is not; want no noise, or fit_gradient")
    own = losses.likelihood_of(model)
    held = losses.complete_nll(joint=own.joint)
    if loss is not None and loss not in (own, held):
        raise ValueError(f"loss: {loss!r} was given; EM lowers {own!r} or {held!r} for this model, and fit_gradient any")
    own.check(model)
    _starts.check_name(init)
    _checks.count("max_iter", max_iter)
    _checks.count("record_every", record_every)
    if tol is not None:
        _checks.not_negative("tol", tol)
    chosen_penalties = penalties.standard() if penalty is None else _shared.checked_penalties(penalty)
    tol = None if tol is None else float(tol)
    return EMFit(model, chosen_penalties, init, int(max_iter), tol, int(record_every), own if loss is None else loss)
