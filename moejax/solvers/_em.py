"""The EM solver: maximum likelihood with exact zeros, by parts that bring their own statistics and M-steps.

An iteration (Dempster, Laird and Rubin 1977; for mixtures of experts Jordan and Jacobs 1994) takes the responsibilities at
the present params and then lowers the expected objective once for the experts, once for the family's dispersion and once
for the gate, each given the others (Meng and Rubin 1993). None of these has to reach its optimum, since the next iteration
goes on from there; what none may do is raise the expected objective, which makes the objective itself fall. A gate's step
is taken whole all the same, since it hardly ever rises and to look costs as much as to step: where the next E-step finds the
objective higher, the iteration is made again, and from then on steps are searched for how far they may go, but for those of
gates whose step is known to be the best.

Between iterations Anderson's extrapolation from the last few (Anderson 1965; for EM, Henderson and Varadhan 2019) guesses
where they lead. A guess at which the objective is higher is dropped for the iterate that it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from moejax import _checks, losses, penalties
from moejax._linear import diagonals, dot
from moejax._trees import chosen, merge, replaced, split
from moejax.losses import of_units, weighted_sum
from moejax.model import PARTS, Data, Model
from moejax.solvers import _lanes, _shared, _starts
from moejax.solvers._result import Fit, Status, finished, normalized, total_weight

Hyper = dict[str, Any]
_SURE, _STEP, _GUESS = np.arange(3, dtype=np.int32)
_MEMORY = 5  # iterations that the extrapolation looks back on
_FAR = 10
_HALVINGS = 30  # of a step that would raise the expected objective, before it is given up
_GRADIENT_STEPS = 5  # an iteration, of a part without an M-step
_START_STEPS = 3  # M-steps that make params of given responsibilities
_WORK_ARRAYS = 12  # arrays of (K, n) or (K, n, m) that an iteration makes
_BEGIN = 0x626567  # a stream of a start's key, apart from those of its responsibilities
_CERTAIN = 0.99  # a gate that is this sure of its expert in every row separates them


class _Problem(NamedTuple):
    """What every iteration sees beside params."""

    data: Data
    weights: jax.Array  # (n,) of sum 1
    units: jax.Array  # (n,), of rows or of the first rows of groups
    expert_rows: Any
    gate_rows: Any
    hyper: Hyper

    def turned(self) -> _Problem:
        """The same with the tables that experts and gate see transposed, or, of those, back again.

        Transposed they go into the loop, whose body turns them back, which the compiler makes part of products with them.
        With rows last in memory, those of few experts take half as long.
        """
        turned = jax.tree.map(lambda v: v.T if jnp.ndim(v) == 2 else v, self.data.x)
        return self._replace(data=self.data._replace(x=turned))


class _Measured(NamedTuple):
    """What an E-step tells of the params that it was made at."""

    responsibilities: jax.Array  # (K, n)
    objective: jax.Array
    gradient: Any  # of the expected loss, which is that of the loss
    kkt: jax.Array


class Task(NamedTuple):
    """What the iterations of one fit are given: params where they begin, a part of which is trained, and what they see."""

    params: Any
    problem: _Problem  # `turned`
    sizes: dict[str, jax.Array]  # of the first gradient steps, of parts without an M-step


class End(NamedTuple):
    """Where iterations ended. objective: at the numbers, or, of what ran out of steps, above what it is there."""

    numbers: jax.Array
    history: jax.Array
    steps: jax.Array
    objective: jax.Array


class _Progress(NamedTuple):
    """What the compiled loop carries. Numbers that are trained are one vector in it."""

    step: jax.Array
    here: jax.Array  # where the next iteration begins
    trial: jax.Array  # what that is: _SURE that it is no higher than `safe`, a _STEP, or a _GUESS
    led: jax.Array  # where the last step led, to which a bad guess returns
    safe: jax.Array  # where the objective is known, or known to be lower; a bad step returns to it
    careful: jax.Array  # whether steps are searched for how far they may go before they are taken
    known: jax.Array  # how many of the rows below are filled
    points: jax.Array  # (memory + 1, p), where iterations began, the last first
    moves: jax.Array  # (memory + 1, p), how far each led
    sizes: dict[str, jax.Array]  # of gradient steps, of parts without an M-step
    history: jax.Array
    objective: jax.Array  # at `safe`, or above what it is there
    done: jax.Array


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

    def descent(
        self,
        key: Any,
        x: Any,
        y: Any,
        hyper: Hyper,
        weights: Any = None,
        offset: Any = None,
        leader: Any = None,
        start: Any = None,
        resume: Any = None,
    ) -> tuple[Descent, Task]:
        """The iterations of this fit and what they are given, for compiled code that runs them itself; see `resumed`.

        resume: None, or params and whether to begin there.
        """
        total, weights = total_weight(weights, y), normalized(weights, y)
        inputs = self.model.prepare(x)
        rows = _rows(self.model.expert, inputs.expert), _rows(self.model.gate, inputs.gate)
        problem = _Problem(Data(inputs, y, offset, leader, total), weights, of_units(weights, leader), *rows, hyper)
        params, given = self._start(key, x, problem, start)
        if self.loss.complete:  # the objective itself is of these responsibilities, not the first iterations alone
            problem, given = problem._replace(data=problem.data._replace(division=given)), None
        sizes = self._sizes(problem)
        if given is not None:
            params, sizes = self._led(params, sizes, given, problem)
        if resume is not None:
            there, warm = resume
            params = jax.tree.map(partial(jnp.where, warm), self._given_params(there, params, hyper), params)
        return Descent(self, params), Task(self._bounded(params, problem), problem.turned(), sizes)

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

    def _fit(self, key: Any, x: Any, y: Any, hyper: Hyper, *more: Any) -> Fit:
        descent, task = self.descent(key, x, y, hyper, *more)

        def step(task: Task, state: Any) -> _lanes.Turn:
            state = descent.step(task, state)
            over = ~descent.going(state)
            return _lanes.Turn(state, over, jnp.zeros((), jnp.int32), descent.end(state), over)

        ends = _lanes.run(_lanes.Loop(descent.begin, step, 1), task)
        return descent.fit(task, jax.tree.map(lambda v: v[0], ends))

    def _tolerance(self, dtype: Any) -> float:
        if self.tol is not None:
            return self.tol
        return 1e-7 if dtype == jnp.float64 else 1e-4

    def _flags(self, params: Any, r: jax.Array, problem: _Problem) -> jax.Array:
        """What a solver for coefficients can tell: collinear columns, and a gate without a finite optimum."""
        model, bits = self.model, jnp.zeros((), jnp.int32)
        if hasattr(model.expert, "deficient"):
            deficient = model.expert.deficient(params["experts"], self._expert_statistics(params, r, problem))
            curved = _curved(_shared.used(self, problem.hyper, "experts"), problem.weights)
            deficient = (deficient & model.active(params)).any() & ~curved
            bits = bits | jnp.where(deficient, int(Status.RANK_DEFICIENT), 0)
        if any(jax.tree.leaves(model.penalized(params)["gate"])):
            free = sum((w for _, w in _shared.used(self, problem.hyper, "gate")), jnp.zeros(())) == 0
            certain = jnp.exp(model.log_gate(params, problem.data.x)).max(axis=0) > _CERTAIN
            separated = (certain | (problem.units == 0)).all() & (model.active(params).sum() > 1) & free
            bits = bits | jnp.where(separated, int(Status.SEPARATED_GATE), 0)
        return bits

    # ---- starts ---------------------------------------------------------------------------------------------------

    def _start(self, key: jax.Array, x: Any, problem: _Problem, start: Any) -> tuple[Any, jax.Array | None]:
        """Params to begin with and, unless they are `start`, the responsibilities (K, n) of the first iterations."""
        number = problem.hyper.get("restart", jnp.zeros((), jnp.int32))
        key = jax.random.fold_in(key, number)
        drawn = self.model.init(key, x)
        if isinstance(start, dict):
            return self._given_params(start, drawn, problem.hyper), None
        null = {
            "experts": _null(self.model.expert, drawn["experts"], self._eta(problem)),
            "gate": _null(self.model.gate, drawn["gate"]),
            "family": drawn["family"],
        }
        null = self.model.with_hyper(null, problem.hyper)
        active = self.model.active(null)
        data = problem.data
        if start is not None:
            r = _starts.shared_out(start, active, data.leader, problem.weights.dtype)
        else:
            alike = any(jax.tree.leaves(self.model.trainable(drawn)["experts"]))
            table = self.model.table(x)
            r = _starts.draw(self.init, number, key, table, data.y, data.offset, problem.weights, active, alike)
            r = r if data.leader is None else r[:, data.leader]
        return self._begun(null, r, key, problem), r

    def _led(self, params: Any, sizes: Any, r: jax.Array, problem: _Problem) -> tuple[Any, Any]:
        """Params after a few M-steps from responsibilities (K, n), and sizes of the next gradient steps."""

        def step(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            new = self._m_step(*carry, self._measured(carry[0], problem, r), jnp.ones((), bool), problem)
            return jax.tree.map(lambda v, old: v.astype(old.dtype), new, carry)

        return jax.lax.fori_loop(0, _START_STEPS, step, (self._bounded(params, problem), sizes))

    def _begun(self, params: Any, r: jax.Array, key: jax.Array, problem: _Problem) -> Any:
        """Params to begin with from responsibilities, of experts whose first M-step could not part what begins equal."""
        if not hasattr(self.model.expert, "begin"):
            return params
        statistics = self._expert_statistics(params, r, problem)
        began = self.model.expert.begin(params["experts"], statistics, jax.random.fold_in(key, _BEGIN))
        return self._dispersed({**params, "experts": began}, r * problem.weights, problem)

    def _eta(self, problem: _Problem) -> Any:
        """The predictor to begin with, less the mean offset."""
        family, data = self.model.family, problem.data
        eta = family.start(data.y, problem.weights) if hasattr(family, "start") else 0.0
        return eta if data.offset is None else eta - jnp.tensordot(problem.weights, data.offset, 1)

    def _given_params(self, given: Any, like: Any, hyper: Hyper) -> Any:
        own = {name: jax.tree.map(lambda leaf, v: jnp.asarray(leaf, v.dtype), given[name], like[name]) for name in PARTS}
        return self.model.with_hyper(own, hyper)

    # ---- iterations -----------------------------------------------------------------------------------------------

    def _sizes(self, problem: _Problem) -> dict[str, jax.Array]:
        """Sizes of the first gradient steps of parts without an M-step."""
        parts = {"experts": (self.model.expert, "m_step"), "gate": (self.model.gate, "m_step")}
        parts["family"] = (self.model.family, "dispersion")
        return {n: jnp.asarray(0.1, problem.weights.dtype) for n, (part, own) in parts.items() if not hasattr(part, own)}

    def _bounded(self, params: Any, problem: _Problem) -> Any:
        if not hasattr(self.model.family, "bounded"):
            return params
        return {**params, "family": self.model.family.bounded(params["family"], problem.data.y, problem.weights)}

    def _measured(self, params: Any, problem: _Problem, given: jax.Array | None = None) -> _Measured:
        """The objective at params, responsibilities, or those given, and the gradient of the expected loss."""
        log_joint = self.loss.log_joint(self.model, params, problem.data)
        r = self.loss.responsibilities(log_joint, problem.data.division) if given is None else given
        loss = self._prior(params["gate"]) - weighted_sum(problem.units, self.loss.each(log_joint, problem.data.division))
        loss = loss + self._expert_prior(params, problem)
        trained, rest = split(params, self.model.trainable(params))

        def expected(trained: Any) -> jax.Array:
            params = merge(trained, rest)
            gate = self._gate_loss(params["gate"], params, r, problem)
            return gate + self._experts_loss(params, r * problem.weights, problem)

        gradient = merge(jax.grad(expected)(trained), jax.tree.map(jnp.zeros_like, rest))
        slopes = _shared.free_slopes(self, params, gradient, problem.data.y, problem.weights)
        kkt = _shared.kkt(self, params, slopes, problem.hyper)
        return _Measured(r, loss + _shared.penalty(self, params, problem.hyper), gradient, kkt)

    def _log_gate(self, params: Any, problem: _Problem) -> jax.Array:
        return self.loss.log_gate(self.model, params, problem.data)

    def _prior(self, gate: Any) -> Any:
        """What the gate itself adds to the loss."""
        return self.loss.gate_prior(self.model, gate)

    def _expert_prior(self, params: Any, problem: _Problem) -> Any:
        return self.loss.expert_prior(self.model, params, problem.data)

    def _gate_loss(self, gate: Any, params: Any, r: jax.Array, problem: _Problem) -> jax.Array:
        log_gate = self._log_gate({**params, "gate": gate}, problem)
        return self._prior(gate) - jnp.sum(r * problem.units * log_gate)

    def _density_loss(self, params: Any, w: jax.Array, problem: _Problem) -> jax.Array:
        return -jnp.sum(w * self.model.expected_log_density(params, problem.data))

    def _experts_loss(self, params: Any, w: jax.Array, problem: _Problem) -> jax.Array:
        return self._density_loss(params, w, problem) + self._expert_prior(params, problem)

    # ---- the M-step: part by part, none of which may raise the expected objective -----------------------------------

    def _m_step(
        self, params: Any, sizes: Any, measured: _Measured, searching: jax.Array, problem: _Problem
    ) -> tuple[Any, Any]:
        """New params, and sizes of the next gradient steps.

        searching: whether a step is taken only so far as it does not raise the expected objective; else the whole of it is,
        and the next E-step tells. Experts whose quadratic is no bound are searched always: from far away their steps lead
        much too far, and not every place that happens to be lower is a good one.
        """
        params, sizes = self._experts_step(params, sizes, measured, problem)
        params, sizes = self._dispersion_step(params, sizes, measured, problem)
        return self._gate_step(params, sizes, measured, searching, problem)

    def _experts_step(self, params: Any, sizes: Any, measured: _Measured, problem: _Problem) -> tuple[Any, Any]:
        w = measured.responsibilities * problem.weights

        def smooth(experts: Any) -> jax.Array:
            return self._experts_loss({**params, "experts": experts}, w, problem)

        if "experts" in sizes:
            return self._gradient_steps("experts", smooth, params, sizes, problem)
        terms = _shared.used(self, problem.hyper, "experts")
        statistics = self._expert_statistics(params, measured.responsibilities, problem)
        new = self.model.expert.m_step(params["experts"], measured.gradient["experts"], statistics, terms)
        bounded = getattr(self.model.family, "majorizes", False) and getattr(self.model.expert, "exact", False)
        if not bounded:
            value, always = self._penalised("experts", smooth, params, problem), jnp.ones((), bool)
            new = _not_higher(value, params["experts"], new, always)
        return {**params, "experts": new}, sizes

    def _expert_statistics(self, params: Any, r: jax.Array, problem: _Problem) -> Any:
        family, y, phi = self.model.family, problem.data.y, self.model.phi(params)
        eta = self.model.eta(params, problem.data.x, problem.data.offset)
        slope = jax.grad(lambda eta: -family.log_prob(y, eta, phi).sum())(eta)
        w = r * problem.weights
        w = w if eta.ndim == 2 else w[..., None]
        of_loss = _curvature(family, y, eta, phi) * w, slope * w
        return self.model.expert.statistics(problem.expert_rows, *of_loss, problem.data.size)

    def _dispersion_step(self, params: Any, sizes: Any, measured: _Measured, problem: _Problem) -> tuple[Any, Any]:
        w = measured.responsibilities * problem.weights
        if "family" in sizes:
            smooth = lambda phi: self._density_loss({**params, "family": phi}, w, problem)  # noqa: E731
            return self._gradient_steps("family", smooth, params, sizes, problem)
        return self._dispersed(params, w, problem), sizes

    def _dispersed(self, params: Any, w: jax.Array, problem: _Problem) -> Any:
        """Params with the family's own best dispersion for weights w (K, n), if it has one."""
        if not hasattr(self.model.family, "dispersion"):
            return params
        eta = self.model.eta(params, problem.data.x, problem.data.offset)
        variance = self.model.variance(params, problem.data.x)
        more = {} if variance is None else {"variance": variance}
        phi = self.model.family.dispersion(problem.data.y, eta, self.model.phi(params), w, total=problem.weights, **more)
        return {**params, "family": phi}

    def _gate_step(
        self, params: Any, sizes: Any, measured: _Measured, searching: jax.Array, problem: _Problem
    ) -> tuple[Any, Any]:
        gate, r = self.model.gate, measured.responsibilities

        def smooth(gate_params: Any) -> jax.Array:
            return self._gate_loss(gate_params, params, r, problem)

        if "gate" in sizes:
            return self._gradient_steps("gate", smooth, params, sizes, problem)
        probs = jnp.exp(self.model.log_gate(params, problem.data.x))
        statistics = gate.statistics(problem.gate_rows, params["gate"], probs, r, problem.units)
        terms = _shared.used(self, problem.hyper, "gate")
        new = gate.m_step(params["gate"], measured.gradient["gate"], statistics, terms)
        if not getattr(gate, "exact", False):
            new = _not_higher(self._penalised("gate", smooth, params, problem), params["gate"], new, searching)
        return {**params, "gate": new}, sizes

    def _penalised(self, part: str, smooth: Any, params: Any, problem: _Problem) -> Callable[[Any], jax.Array]:
        return lambda new: smooth(new) + _shared.penalty(self, {**params, part: new}, problem.hyper, part)

    def _gradient_steps(self, part: str, smooth: Any, params: Any, sizes: Any, problem: _Problem) -> tuple[Any, Any]:
        """Proximal gradient steps for a part without an M-step: generalised EM. One that would raise the objective is not
        taken, and the next is smaller.
        """
        trainable = self.model.trainable(params)[part]
        if not any(jax.tree.leaves(trainable)):
            return params, sizes
        marked = self.model.penalized(params)[part]
        terms = _shared.used(self, problem.hyper, part)
        value = self._penalised(part, smooth, params, problem)

        def step(_: Any, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            here, size = carry
            trained, rest = split(here, trainable)
            gradient = jax.grad(lambda trained: smooth(merge(trained, rest)))(trained)
            new = merge(jax.tree.map(lambda v, g: v - size * g, trained, gradient), rest)
            for p, weight in terms:
                new = replaced(new, marked, p.prox(chosen(new, marked), size * weight))
            lower = value(new) <= value(here)
            return jax.tree.map(partial(jnp.where, lower), new, here), size * jnp.where(lower, 1.5, 0.3)

        new, size = jax.lax.fori_loop(0, _GRADIENT_STEPS, step, (params[part], sizes[part]))
        return {**params, part: new}, {**sizes, part: size}


class Descent:
    """The iterations of one fit, one by one: `begin`, `step` while `going`, `end`, and the `fit` that it makes.

    A path runs those of all its weights in one loop. States are records of arrays. params: those of a task, of which the
    shapes alone count, and what is trained.
    """

    def __init__(self, fit: EMFit, params: Any):
        self._of = fit
        self._trainable = fit.model.trainable(params)
        trained, _ = split(params, self._trainable)
        _, self._unravel = ravel_pytree(jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), trained))
        marks = jax.tree.map(lambda leaf, mark: np.full(leaf.shape, mark), params, fit.model.penalized(params))
        numbers = jax.tree.leaves(split(marks, self._trainable)[0])
        self._penalized = np.concatenate([np.zeros(0, bool), *map(np.ravel, numbers)])  # also of nothing

    def begin(self, task: Task, params: Any = None, guess: Any = None, objective: Any = None) -> _Progress:
        """The state to begin with: at the params of the task, or at others.

        guess: where those may lead to, to begin there and to return should the objective be higher than `objective`, that at
        params.
        """
        fit, problem = self._of, task.problem
        dtype = problem.weights.dtype
        safe = self.numbers(task.params if params is None else params)
        zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        here, trial, known = safe, zero, jnp.asarray(jnp.inf, dtype)
        if guess is not None:
            here, known = self.numbers(fit._bounded(guess, problem)), objective.astype(dtype)
            trial = jnp.where(jnp.isfinite(known), _GUESS, _SURE)
        memory = jnp.zeros((_MEMORY + 1, safe.size), safe.dtype)
        history = jnp.full(-(-fit.max_iter // fit.record_every), jnp.nan, dtype)
        return _Progress(zero, here, trial, safe, safe, no, zero, memory, memory, task.sizes, history, known, no)

    def going(self, state: _Progress) -> jax.Array:
        """Whether there is a further step: neither optimal, nor lost, nor as many as there may be."""
        return (state.step < self._of.max_iter) & ~state.done & ~jnp.isnan(state.objective)

    def end(self, state: _Progress) -> End:
        """What is to be kept of a state that ended."""
        return End(state.safe, state.history, state.step, state.objective)

    def params(self, task: Task, numbers: jax.Array) -> Any:
        """Params of the numbers that are trained, as those of an end."""
        return merge(self._unravel(numbers), split(task.params, self._trainable)[1])

    def numbers(self, params: Any) -> jax.Array:
        """The numbers of params that are trained, as a vector."""
        trained = split(params, self._trainable)[0]
        # Of nothing, ravel_pytree makes a number in some versions of JAX.
        return ravel_pytree(trained)[0] if jax.tree.leaves(trained) else jnp.zeros(0)

    def fit(self, task: Task, end: End) -> Fit:
        """The `Fit` of an end."""
        fit, problem, params = self._of, task.problem.turned(), self.params(task, end.numbers)
        reached = fit._measured(params, problem)
        return finished(
            fit.model,
            params,
            problem.data,
            problem.weights,
            problem.data.size,
            True,
            objective=reached.objective,
            history=end.history,
            steps=end.steps,
            kkt=reached.kkt,
            converged=reached.kkt <= fit._tolerance(problem.weights.dtype),
            flags=fit._flags(params, reached.responsibilities, problem),
        )

    def step(self, task: Task, p: _Progress) -> _Progress:
        """The state after one more iteration."""
        fit, problem, dtype = self._of, task.problem.turned(), task.problem.weights.dtype
        here = self.params(task, p.here)
        measured = fit._measured(here, problem)
        # Near the optimum, rounding alone moves the objective.
        slack = 4 * jnp.finfo(dtype).eps * jnp.maximum(1, jnp.abs(p.objective))
        lower = (measured.objective <= p.objective + slack) & jnp.isfinite(measured.objective)
        failed = (p.trial != _SURE) & ~lower
        close = measured.kkt <= fit._tolerance(dtype)
        # What no E-step will look at, or none could compare, has to be right at once, and so has the step before the
        # last, to which the last may have to return.
        searching = p.careful | (p.step >= fit.max_iter - 2)
        new, sizes = fit._m_step(here, p.sizes, measured, searching, problem)
        led = self.numbers(new)
        points = jnp.concatenate([p.here[None], p.points[:-1]])
        moves = jnp.concatenate([(led - p.here)[None], p.moves[:-1]])
        known = jnp.minimum(p.known + 1, _MEMORY + 1)
        guess = _extrapolated(points, moves, known)
        guess = jnp.where(self._penalized & (led == 0), 0, guess)  # zeros stay exact
        guess = self.numbers(fit._bounded(self.params(task, guess), problem))
        # Far beyond all numbers so far, a guess is about one that the objective does not depend on.
        usable = (known > 1) & (jnp.abs(guess).max(initial=0) <= _FAR * (1 + jnp.abs(led).max(initial=0)))
        # A guess is not where a fit ends: the iteration that begins there has exact zeros.
        guessed = p.trial == _GUESS
        usable, done = usable & ~(guessed & close), close & ~guessed
        after = _Progress(
            p.step + 1,
            jnp.where(usable, guess, led),
            jnp.where(usable, _GUESS, jnp.where(searching, _SURE, _STEP)),
            led,
            jnp.where(searching & ~done, led, p.here),
            p.careful,
            known,
            points,
            moves,
            sizes,
            p.history,
            measured.objective,
            done,
        )
        # From a guess back to the step that it was made from, and from a step to where it began.
        back = p._replace(
            step=p.step + 1,
            here=jnp.where(guessed, p.led, p.safe),
            trial=jnp.where(guessed & ~p.careful, _STEP, _SURE),
            careful=p.careful | ~guessed,
            known=jnp.zeros_like(p.known),
        )
        after = jax.tree.map(partial(jnp.where, failed), back, after)
        # A comparison, for a scatter of each member's own index is a loop over members.
        now = fit.record_every * np.arange(len(p.history)) == p.step
        return after._replace(history=jnp.where(now, after.objective, p.history))


def _extrapolated(points: jax.Array, moves: jax.Array, known: jax.Array) -> jax.Array:
    """Where iterations lead to, from where the last ones began and how far they moved, newest first (Anderson 1965).

    points, moves: (m + 1, p), of which `known` count. The combination of them whose moves cancel best.
    """
    steps, turns = points[:1] - points[1:], moves[:1] - moves[1:]
    counts = (np.arange(len(steps)) < known - 1)[:, None]
    steps, turns = jnp.where(counts, steps, 0), jnp.where(counts, turns, 0)
    products = dot(turns, turns.T)
    size = diagonals(products).sum()
    size = jnp.where(size > 0, size, 1)  # at rest there is nothing to combine, nor in derivatives to divide by
    ridge = jnp.where(counts, 10 * jnp.finfo(moves.dtype).eps, 1)
    products = products / size + jnp.where(np.eye(len(steps), dtype=bool), ridge, 0)
    share = _solved(products, dot(turns, moves[0]) / size)
    return points[0] + moves[0] - dot(share, steps + turns)


def _solved(a: jax.Array, b: jax.Array) -> jax.Array:
    """The solution of a few positive definite equations, by elimination.

    Of an array: written for each row by itself, it is compiled to code that rounds otherwise in some lanes than in others.
    """
    rows = jnp.concatenate([a, b[:, None]], axis=1)
    for i in range(len(a)):
        unit = rows[i] / rows[i, i]
        rows = jnp.where((np.arange(len(a)) == i)[:, None], unit, rows - rows[:, i : i + 1] * unit)
    return rows[:, -1]


def _not_higher(value: Callable[[Any], jax.Array], old: Any, new: Any, searching: jax.Array) -> Any:
    """`new`, or, if searching, as far on the way there from `old` as does not raise the value; `old` where nothing helps."""
    before = value(old)
    slack = 4 * jnp.finfo(before.dtype).eps * jnp.abs(before)  # rounding alone moves the value by this

    def at(share: jax.Array) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(share == 1, b, a + share * (b - a)), old, new)

    def higher(share: jax.Array) -> jax.Array:
        return ~(value(at(share)) <= before + slack) & (share > 0)

    def halved(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        share = jnp.where(carry[0] > 0.5**_HALVINGS, carry[0] / 2, 0.0)
        return share, higher(share)

    # The first round of a search tries the whole way.
    begin = (jnp.where(searching, 2, 1).astype(before.dtype), searching)
    share, _ = jax.lax.while_loop(lambda carry: carry[1], halved, begin)
    return jax.tree.map(lambda a, b: jnp.where(share == 0, a, b), old, at(share))


def _curvature(family: Any, y: jax.Array, eta: jax.Array, phi: Any) -> jax.Array:
    """The second derivative of -log f in eta, or what the family has in its place."""
    if hasattr(family, "curvature"):
        return family.curvature(y, eta, phi)
    slope = jax.grad(lambda eta: -family.log_prob(y, eta, phi).sum())
    return jnp.maximum(jax.jvp(slope, (eta,), (jnp.ones_like(eta),))[1], 0)


def _curved(terms: Any, like: jax.Array) -> jax.Array:
    """Whether penalties alone determine every coefficient, as a ridge does."""
    bends = [w * jnp.min(p.curvature(jnp.ones((1, 1), like.dtype))) for p, w in terms if hasattr(p, "curvature")]
    return sum(bends, jnp.zeros((), like.dtype)) > 0


def _rows(part: Any, x: Any) -> Any:
    return part.rows(x) if hasattr(part, "rows") else x


def _null(part: Any, params: Any, *more: Any) -> Any:
    return part.null(params, *more) if hasattr(part, "null") else params


@partial(jax.jit, static_argnums=0)
def _compiled(fit: EMFit, *arguments: Any) -> Fit:
    return fit._fit(*arguments)


def fit_em(
    model: Model,
    loss: Any = None,
    *,
    penalty: Sequence[Any] | None = None,
    init: str = "mixed",
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
    if hasattr(model.gate, "noisy_log_probs"):
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
