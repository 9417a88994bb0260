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
from typing import Any, cast

import jax
import jax.numpy as jnp

from moejax import _cache, _checks, _rows, losses, penalties
from moejax._ops import choose, where
from moejax._rows import Rows
from moejax.families import Family, Target
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

    It is hashed by its configuration: building it again compiles nothing anew.

    Attributes
    ----------
    model : Model
        The model.
    penalties : tuple of Penalty
        The penalties, in the order of their proximal steps.
    init : str
        How a start is drawn.
    max_iter : int
        Largest number of iterations.
    tol : float or None
        KKT violation at which a fit has converged; None for a default by the type of x.
    record_every : int
        Iterations between two numbers of `Fit.history`.
    loss : NegativeLogLikelihood
        The loss that EM lowers.
    block_size : int or None, default None
        Rows in a block; None for a size that fits a core's cache.
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
            (see `moejax.division`). None for responsibilities that are drawn as `init` says.

        Returns
        -------
        Fit
            Params and how good they are. Once running, nothing raises; `Fit.status` tells.

        Raises
        ------
        ValueError
            Before anything compiles: if numbers are NaN or infinite, shapes do not fit, the family cannot have the targets,
            weights are below 0 or all 0, there are more experts than distinct rows, or `hyper` has an unknown name or a
            value that cannot be.
        """
        given = _shared.arguments(self, key, x, y, hyper, weights, offset, groups, start)
        fit: Fit = _compiled(self, given[0], given[3], *self.laid(*given[1:3], *given[4:]))
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
        return self._fit(key, x, y, hyper, weights, offset, leader, start, resume=(params, warm))

    def laid(self, x: Any, y: Any, weights: Any, offset: Any, leader: Any, start: Any) -> tuple[Rows, Any]:
        """Return rows in blocks, and params to start from.

        Parameters
        ----------
        x : jax.Array or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        weights : jax.Array or None, (n,)
            Weights of the rows.
        offset : jax.Array or None
            Added to every expert's predictor.
        leader : jax.Array or None, (n,)
            As from `moejax.model.leaders`.
        start : dict or jax.Array or None
            Params, or responsibilities (n, K).

        Returns
        -------
        rows : Rows
            Blocks, which hold responsibilities to start from, if there are any.
        start : dict or None
            Params to start from, or None.
        """
        is_params = isinstance(start, dict)
        division = None if is_params or start is None else start.astype(y.dtype)
        return _rows.lay(x, y, weights, offset, leader, division, self._block(x, y)), start if is_params else None

    def descent(self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: Any = None) -> tuple[EM, Task]:
        """Return the iterations of this fit and what they are given, for compiled code that runs them itself.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        hyper : dict
            Numbers by name.
        rows : Rows
            Blocks of rows, of raw weights.
        start : dict or None, default None
            Params to start from.
        resume : tuple or None, default None
            Params, and a boolean that says whether to begin there.

        Returns
        -------
        solver : EM
            The iterations: `init`, `step`, `done`, `finish`.
        task : Task
            What they are given.
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
        kind = "gradient" if sizes else "exact" if self._family.is_quadratic else "approximate"
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
        """Return the objective that EM lowers: the mean negative log-likelihood plus penalties.

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
        return self.loss.value(self.model, params, data, weights) + _shared.penalty(self, params, hyper)

    def score(self, params: Any, x: Any, y: jax.Array, weights: Any, offset: Any = None, groups: Any = None) -> jax.Array:
        """Return the weighted mean of -log p(y | x), by which selection compares: lower is better.

        Parameters
        ----------
        params : dict
            Params of the model.
        x : array_like or pytree
            Inputs of rows that may be others than the fitted ones.
        y : jax.Array, (n,) or (n, m)
            Targets.
        weights : jax.Array or None, (n,)
            Weights of the rows.
        offset : jax.Array or None, default None
            Added to every expert's predictor.
        groups : jax.Array or None, (n,), default None
            Labels; the rows of a group share their expert.

        Returns
        -------
        jax.Array, ()
            A mean over rows, without penalties.
        """
        return _shared.score(self.model, losses.NegativeLogLikelihood(), params, x, y, weights, offset, groups)

    def work_bytes(self, y: jax.Array) -> int:
        """Return about how much memory an iteration of one fit works in, by which a sweep chooses how many to run at once.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.

        Returns
        -------
        int
            Bytes.
        """
        return _WORK_ARRAYS * self.model.n_experts * y.size * y.dtype.itemsize

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face: yes."""
        return True

    @property
    def uneven(self) -> bool:
        """Whether fits end at different times: yes, each ends when it has converged."""
        return True

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken).

        Parameters
        ----------
        hyper : dict
            Numbers by name.
        """
        _shared.check_hyper(self, hyper)
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
        _shared.checked_rows(self, x, y, weights, offset, groups, start)
        _starts.check_init(self.init, self.model.table(x))
        _starts.check_distinct(x, y, self.model.n_experts)

    # ---- inside the compiled program ----------------------------------------------------------------------------

    def _fit(self, key: Any, x: Any, y: Any, hyper: Hyper, *more: Any, resume: Any = None) -> Fit:
        return self.solve(key, hyper, *self.laid(x, y, *more), resume)

    def solve(self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: Any = None) -> Fit:
        """Fit once, inside compiled code.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        hyper : dict
            Numbers by name.
        rows : Rows
            Blocks of rows, of raw weights.
        start : dict or None, default None
            Params to start from.
        resume : tuple or None, default None
            See `descent`.

        Returns
        -------
        Fit
            The fit.
        """
        solver, task = self.descent(key, hyper, rows, start, resume)

        def step(task: Task, state: State) -> _lanes.Turn:
            state = solver.step(task, state)
            over = solver.done(state)
            return _lanes.Turn(state, over, jnp.zeros((), jnp.int32), solver.end(state), over)

        ends = _lanes.run(_lanes.Loop(solver.init, step, 1), task)
        return solver.finish(task, jax.tree.map(lambda v: v[0], ends))

    def _block(self, x: Any, y: Any) -> int:
        if self.block_size is not None:
            rows: int = min(self.block_size, y.shape[0])
            return rows
        return _rows.block_size(y.shape[0], *self._widths(x, y), y.dtype)

    def _widths(self, x: Any, y: Any) -> tuple[int, int]:
        """Columns of the widest table, and work arrays of an iteration."""
        wide = max((v.shape[1] + 1 for v in jax.tree.leaves(x) if v.ndim == 2), default=1)
        return wide, _WORK_ARRAYS * self.model.n_experts * (y.size // y.shape[0])

    def tolerance(self, dtype: Any) -> float:
        """Return the violation of the optimality condition at which a fit has converged.

        Parameters
        ----------
        dtype : dtype
            Type of the objective.

        Returns
        -------
        float
            `tol`, or its default for this type.
        """
        if self.tol is not None:
            return self.tol
        return 1e-7 if dtype == jnp.float64 else 1e-4

    def bounded(self, params: Any, target: Target) -> Any:
        """Return params within constraints of the family that the density does not see.

        Parameters
        ----------
        params : dict
            Params of the model.
        target : Target
            Moments of the target.

        Returns
        -------
        dict
            Params of the same structure.
        """
        return {**params, "family": self._family.bounded(params["family"], target)}

    @property
    def _family(self) -> Family:
        return cast(Family, self.model.family)  # without which `fit_em` takes no model

    def _eta(self, rows: Rows, target: Target) -> Any:
        """The predictor to begin with, less the mean offset."""
        eta = self._family.start(target)
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
        own["family"] = self._family.has_dispersion
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
    """Configure a fit of the mixture's likelihood by EM, with exact zeros.

    Parameters
    ----------
    model : Model
        From `moe`, with a family.
    loss : Loss or None, default None
        None for the likelihood that goes with the model, see Notes, or that very loss. `losses.complete_nll` for the
        likelihood of responsibilities that a fit gets as `start`, which are then held.
    penalty : sequence of PenaltyLike or PenaltyLike or None, default None
        From `moejax.penalties`, in the order of their proximal steps. None for L1, group lasso over experts and L2, on
        experts and on gate. Each has weight 0 until `hyper` sets it.
    init : {"random", "kmeans", "residuals", "centres", "equal", "mixed"}, default "random"
        How the responsibilities of a start are drawn. "random": nearly equal for all experts; equal for `restart` 0 where
        experts have nothing to train. "kmeans": clusters of x. "residuals": clusters of what one linear regression of y on x
        leaves. "centres": the nearest of K random rows. "equal": the same for all experts, from which only experts that
        differ by themselves part. "mixed": "kmeans", "residuals", "centres" and "random", one after another by the number
        `restart`; "equal" comes before them where experts have nothing to train. Where x is no table (n, d), clusters are of
        what the gate sees, if that is one.
    max_iter : int, default 500
        Largest number of iterations.
    tol : float or None, default None
        KKT violation (see `Fit.kkt`) at which a fit has converged, in units of the gradient of the mean loss. None for 1e-7
        in float64 and 1e-4 in float32.
    record_every : int, default 10
        Iterations between two numbers of `Fit.history`.

    Returns
    -------
    EMFit
        A pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start=None) -> Fit.

    Raises
    ------
    ValueError
        If the model has no family, if family and experts do not go together, if EM does not lower the loss, if the gate is
        noisy, for another init, or for counts that are not whole numbers above 0.

    Notes
    -----
    EM lowers the objective

        -(weighted mean over rows of the log-likelihood) + sum over penalties of  weight * value.

    The gate decides which likelihood is used: log p(y | x); log p(x, y) for a gate that models its inputs; for a gate that
    chooses an expert, max over k of log g_k(x) f_k(y) (classification EM); for `top_k`, the log of the sum of the k largest
    (see `moejax.losses.truncated_nll`).

    An iteration takes the responsibilities at the present params, and lowers for experts and gate a quadratic that bounds or
    approximates the expected loss, plus penalties. If the objective does not fall, the step is halved until it does.
    Anderson's extrapolation from the last few iterations is used where it lowers the objective.

    References
    ----------
    EM: Dempster, Laird and Rubin (1977); for mixtures of experts Jordan and Jacobs (1994). Classification EM: Celeux and
    Govaert (1992). Extrapolation: Anderson (1965); for EM, Henderson and Varadhan (2019).
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
