"""The iterations of EM on one fit: a solver of `init`, `step`, `done` and `finish`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from moejax import penalties
from moejax._linear import Quadratic, collinear, quadratic_step, unpacked
from moejax._ops import choose, where
from moejax._rows import Block, Rows
from moejax._trees import chosen, merge, replaced, split
from moejax.families import Target
from moejax.solvers import _shared
from moejax.solvers._base import Solver
from moejax.solvers._coincidence import coincide, has_coincidence, parted
from moejax.solvers._coupled import coupled_step
from moejax.solvers._extrapolation import Memory, extrapolated, no_memory
from moejax.solvers._optimality import beyond_rounding, scaled, violation
from moejax.solvers._result import Fit, Status, concluded
from moejax.solvers._separation import experts_missed, gate_unsure
from moejax.solvers._sums import Asker, Packed, Sums, prepared

_SURE, _STEP, _GUESS = np.arange(3, dtype=np.int32)
_FAR = 10
_OVERSTEP = 2  # how much longer a step is made that leaves a saddle
_LEAST_SHARE = 2.0**-30  # of a step, before it is given up
_GROWTH = 1.2  # of the sizes of gradient steps that were no worse
_MISSED = 1e-6  # of the rows of an expert, below which it separates their targets
_BEGIN = 0x626567  # a stream of a start's key, apart from those of its responsibilities
COLUMNS = {"experts": "expert_columns", "gate": "gate_columns"}


class Task(NamedTuple):
    """What the iterations of one fit are given.

    params: where they begin, a part of which is trained. rows: their `division` holds responsibilities, given or drawn.
    means: of the inputs, like x of one row. target: moments of the target. total: the weight of all rows. present: how many
    rows have a weight above 0. given: how many iterations take the responsibilities as given. key: of the start.
    sizes: of the first gradient steps, of parts without an M-step. inputs: what the parts see of the only block, or None.
    variances: of the columns that experts and gate see, of those that inputs may separate, (d,) by part.
    """

    params: Any
    rows: Rows
    means: Any
    target: Target
    total: jax.Array
    present: jax.Array
    given: jax.Array
    key: jax.Array
    hyper: dict[str, Any]
    sizes: dict[str, jax.Array]
    variances: dict[str, jax.Array]
    inputs: Any = None


class Report(NamedTuple):
    """What an E-step tells of the params that it was made at.

    objective: with penalties, a mean. log_likelihood, classified: means (see `Fit`). sizes: (K,), of the experts, sums of
    weights. kkt: the violation of the optimality condition. unsure: see `gate_unsure`. missed: see
    `experts_missed`. alike: 1 where experts coincide, else 0.
    """

    objective: jax.Array
    log_likelihood: jax.Array
    classified: jax.Array
    sizes: jax.Array
    kkt: jax.Array
    unsure: jax.Array
    missed: jax.Array
    alike: jax.Array

    def packed(self, dtype: Any) -> jax.Array:
        """All of it as one vector, sizes last."""
        numbers = [v.astype(dtype) for name, v in self._asdict().items() if name != "sizes"]
        return jnp.concatenate([jnp.stack(numbers), self.sizes])


def _unpacked(report: jax.Array) -> Report:
    fields = [name for name in Report._fields if name != "sizes"]
    return Report(**dict(zip(fields, report, strict=False)), sizes=report[len(fields) :])


class State(NamedTuple):
    """Where the iterations of a fit stand. Numbers that are trained are one vector.

    step: how many E-steps there were. given: the number of the first E-step with responsibilities of its own. here:
    where the next E-step is. trial: what `here` is, a point to be accepted (_SURE), a _STEP, or a _GUESS. share: of a
    step, how far `here` is on the way from `safe` to `led`. value: what is monitored, at `safe`. report: of `safe`,
    packed. products: of pairs of columns by the weights of the experts, at `safe`, packed. known: how many iterations in
    a row the memory has, 2 standing for more. sizes: of gradient steps, of parts without an M-step. saddle: the objective
    where experts that coincide were moved apart, to see whether a lower one is near; infinite before.
    """

    step: jax.Array
    given: jax.Array
    here: jax.Array
    trial: jax.Array
    share: jax.Array
    value: jax.Array
    report: jax.Array
    products: jax.Array
    known: jax.Array
    memory: Memory
    sizes: dict[str, jax.Array]
    history: jax.Array
    saddle: jax.Array
    done: jax.Array

    @property
    def safe(self) -> jax.Array:
        """Where the objective is known."""
        return self.memory.point

    @property
    def led(self) -> jax.Array:
        """Where the last M-steps led, to which a bad guess returns."""
        return self.memory.point + self.memory.move


class End(NamedTuple):
    """Where iterations ended."""

    numbers: jax.Array
    history: jax.Array
    steps: jax.Array
    report: jax.Array
    products: jax.Array

    @property
    def objective(self) -> jax.Array:
        """The objective there."""
        return self.report[0]


class EM(Solver):
    """The iterations of one fit, one by one: `init`, `step` until `done`, and the `Fit` that `finish` makes.

    A step is what it asks of the rows, a function of a block with values that are added up, and `update`, which sees the
    sums alone; so rows may come from anywhere. fit: an `EMFit`. params: those of a task; only shapes and what is trained
    count.
    """

    def __init__(self, fit: Any, params: Any):
        self.fit, self.model = fit, fit.model
        self._trainable = fit.model.trainable(params)
        self.asker = Asker(fit.model, fit.loss, self._trainable)
        trained, _ = split(params, self._trainable)
        _, self._unravel = ravel_pytree(jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), trained))
        self._marks = fit.model.penalized(params)
        self._penalized = {part: self._mask(params, part) for part in COLUMNS}

    def _mask(self, params: Any, part: str) -> np.ndarray:
        """Which of the numbers are coefficients of a part, that penalties see."""
        marks = {name: jax.tree.map(lambda m, own=name == part: m and own, self._marks[name]) for name in self._marks}
        full = jax.tree.map(lambda leaf, mark: np.full(leaf.shape, mark), params, marks)
        numbers = jax.tree.leaves(split(full, self._trainable)[0])
        return np.concatenate([np.zeros(0, bool), *map(np.ravel, numbers)])  # also of nothing

    # ---- the contract of a solver -------------------------------------------------------------------------------

    def init(self, task: Task, params: Any = None, guess: Any = None, objective: Any = None) -> State:
        """The state to begin with: at the params of the task, or at others.

        guess: where those may lead to, to begin there and to return should the objective be higher than `objective`, that at
        params.
        """
        fit, dtype = self.fit, task.present.dtype
        safe = self.numbers(task.params if params is None else params)
        here, trial, value = safe, jnp.asarray(_SURE), jnp.asarray(jnp.inf, dtype)
        if guess is not None:
            here, value = self.numbers(fit.bounded(guess, task.target)), objective.astype(dtype)
            trial = where(jnp.isfinite(value), _GUESS, _SURE)
        zero, one, nothing = jnp.zeros((), jnp.int32), jnp.ones((), dtype), jnp.full((), jnp.nan, dtype)
        none = jnp.zeros(self.model.n_experts, dtype)
        report = Report(value, nothing, nothing, none, jnp.inf * one, one, one, 0 * one).packed(dtype)
        history = jnp.full(-(-fit.max_iter // fit.record_every), jnp.nan, dtype)
        no = jnp.zeros((), bool)
        given = task.given if params is None else zero
        products, memory, never = jnp.zeros(self._products(task), dtype), no_memory(safe), jnp.inf * one
        return State(zero, given, here, trial, one, value, report, products, zero, memory, task.sizes, history, never, no)

    def step(self, task: Task, state: State) -> State:
        """The state after one more E-step and, from its sums, M-steps."""
        return self.update(task, state, task.rows.sum(self.ask(task, state)))

    def done(self, state: State) -> jax.Array:
        """Whether there is no further step: optimal, or lost, or there were as many as there may be and one E-step more."""
        over: jax.Array = (state.step - state.given > self.fit.max_iter) | state.done | jnp.isnan(state.value)
        return over

    def end(self, state: State) -> End:
        """What is to be kept of a state that is done."""
        steps = jnp.clip(state.step - state.given, 0, self.fit.max_iter)
        return End(state.safe, state.history, steps, state.report, state.products)

    def finish(self, task: Task, end: End) -> Fit:
        """The `Fit` of an end."""
        params, report = self.params(task, end.numbers), _unpacked(end.report)
        flags = self._flags(task, params, report, end.products)
        return concluded(
            self.model,
            params,
            task.target,
            task.total,
            log_likelihood=task.total * report.log_likelihood,
            classified=task.total * report.classified,
            shares=report.sizes,
            count=task.present,
            objective=report.objective,
            finite=jnp.isfinite(end.numbers).all(),
            history=end.history,
            steps=end.steps,
            kkt=report.kkt,
            converged=report.kkt <= self.fit.tolerance(task.present.dtype),
            flags=flags,
            determined=_shared.determined(self.fit, task.hyper),
        )

    def params(self, task: Task, numbers: jax.Array) -> Any:
        """Params of the numbers that are trained, as those of an end."""
        return merge(self._unravel(numbers), split(task.params, self._trainable)[1])

    def numbers(self, params: Any) -> jax.Array:
        """The numbers of params that are trained, as a vector."""
        trained = split(params, self._trainable)[0]
        # Of nothing, ravel_pytree makes a number in some versions of JAX.
        return ravel_pytree(trained)[0] if jax.tree.leaves(trained) else jnp.zeros(0)

    def _products(self, task: Task) -> tuple[int, ...]:
        """The shape of the packed products of pairs of columns, which linear experts alone have."""
        if not self.model.expert.is_linear:
            return (0, 0)
        p = self.model.seen("expert_columns", task.means).shape[1] + 1
        return (self.model.n_experts * (self.model.expert.outputs or 1), p * (p + 1) // 2)

    def _flags(self, task: Task, params: Any, report: Report, products: jax.Array) -> jax.Array:
        hyper, bits = task.hyper, where(report.alike > 0, int(Status.COINCIDING_EXPERTS), 0)
        if self.model.expert.is_linear:
            means = self.model.seen("expert_columns", task.means)[0]
            q = self.model.expert.quadratic(params["experts"], unpacked(products, 0 * products[:, : len(means) + 1], means))
            sparse = [w for p, w in _shared.used(self.fit, hyper, "experts") if p.separable is None or p.separable[0]]
            used = self.model.expert.in_use(params["experts"], sum(sparse, jnp.zeros(())) > 0)
            hang = collinear(q.gram, used).reshape(self.model.n_experts, -1).any(axis=1) & self.model.active(params)
            bits = bits | where(hang.any() & ~_shared.determined(self.fit, hyper), int(Status.RANK_DEFICIENT), 0)
        if self.asker.watches_experts:
            free = sum((w for _, w in _shared.used(self.fit, hyper, "experts")), jnp.zeros(())) == 0
            bits = bits | where((report.missed < _MISSED) & free, int(Status.SEPARATED_EXPERT), 0)
        if not self.asker.watches_gate:
            return bits
        free = sum((w for _, w in _shared.used(self.fit, hyper, "gate")), jnp.zeros(())) == 0
        return bits | where((report.unsure == 0) & free, int(Status.SEPARATED_GATE), 0)

    # ---- what an iteration asks of the rows -----------------------------------------------------------------------

    def ask(self, task: Task, state: State) -> Callable[[Block], Sums]:
        """A function of a block, whose values are to be added up over all blocks."""
        params, first = self.params(task, state.here), state.step < state.given
        pooled = None
        if task.rows.blocks.leader is not None:
            size = task.rows.size
            pooled = task.rows.sum(
                lambda block: self.asker.pooled_joints(params, block, self._inputs(task, block), size, task.hyper)
            )
        return lambda block: self.asker.sums(params, block, self._inputs(task, block), first, pooled, task.hyper)

    def _inputs(self, task: Task, block: Block) -> Any:
        return prepared(self.model, block.x, task.means, keep=False) if task.inputs is None else task.inputs

    # ---- what it makes of the sums --------------------------------------------------------------------------------

    def update(self, task: Task, state: State, sums: Sums) -> State:
        """The state after an iteration whose sums over all rows are these."""
        fit, dtype = self.fit, task.present.dtype
        params = self.params(task, state.here)
        first, switch = state.step < state.given, (state.step == state.given) & (state.given > 0)
        products = sums.experts.products if self.model.expert.is_linear else state.products
        sums, problems = self._problems(task, params, sums)
        gradient = self._gradient(task, params, sums, problems)
        led, sizes = self._m_steps(task, params, state, sums, problems, gradient)
        slopes, bends = scaled(self.model, params, problems, gradient, sums.gate)
        penalty, kkt = self._optimality(task, params, state.here, slopes, bends)
        extra = penalty + self._priors(task, params)
        may_coincide = has_coincidence(self.model, params)
        alike = coincide(self.model, params, bends, sums.sizes) if may_coincide else jnp.zeros((), bool)
        report = Report(
            (extra - sums.likelihood).astype(dtype),
            sums.log_likelihood,
            sums.classified,
            sums.sizes,
            kkt,
            gate_unsure(self.model, params, sums, problems.get("gate"), task.variances.get("gate")),
            experts_missed(self.model, params, sums, problems.get("experts"), task.variances.get("experts")),
            alike,
        )
        value = (
            report.objective
            if sums.expected is None
            else where(first, (extra - sums.expected).astype(dtype), report.objective)
        )
        # Near the optimum, rounding alone moves the objective.
        slack = 4 * jnp.finfo(dtype).eps * jnp.maximum(1, jnp.abs(state.value))
        accepted = (state.trial == _SURE) | switch | ((value <= state.value + slack) & jnp.isfinite(value))
        forward = self._forward(task, state, report, value, self.numbers(led), sizes, first)
        if may_coincide:
            forward = self._off_saddle(forward, alike, self.numbers(parted(self.model, params, bends)))
        after = choose(accepted, forward._replace(products=products.astype(dtype)), self._back(state))
        # A comparison, for a scatter of each member's own index is a loop over members.
        now = fit.record_every * np.arange(len(state.history)) == state.step - state.given
        lowest = jnp.minimum(after.report[0], after.saddle)
        counted: State = after._replace(step=state.step + 1, history=where(now, lowest, state.history))
        return counted

    def _forward(
        self, task: Task, state: State, report: Report, value: jax.Array, led: jax.Array, sizes: Any, first: jax.Array
    ) -> State:
        """The state after an E-step at whose params the objective is no higher."""
        move, before = led - state.here, state.memory.move
        memory, guess = extrapolated(state.memory, state.here, move, state.known)
        # While moves get longer, iterations leave a saddle, to which an extrapolation would lead back: longer steps help.
        parting = (state.known < 2) & (jnp.square(move).sum() > jnp.square(before).sum())
        known = where(first, 0, where(parting, 1, jnp.minimum(state.known + 1, 2)))
        guess = where(parting, led + _OVERSTEP * move, guess)
        guess = where((self._penalized["experts"] | self._penalized["gate"]) & (led == 0), 0.0, guess)  # zeros stay exact
        guess = self.numbers(self.fit.bounded(self.params(task, guess), task.target))
        # Far beyond all numbers so far, a guess is about one that the objective does not depend on.
        forth = (known > 1) | (parting & (known > 0) & (state.known > 0))
        usable = forth & (jnp.abs(guess).max(initial=0) <= _FAR * (1 + jnp.abs(led).max(initial=0)))
        # A guess is not where a fit ends: the iteration that begins there has exact zeros.
        close = (report.kkt <= self.fit.tolerance(value.dtype)) & ~first
        guessed = state.trial == _GUESS
        usable, done = usable & ~(guessed & close), close & ~guessed
        # After a step that had to be shortened, the next is not tried whole at once.
        share = where(guessed, 1.0, jnp.minimum(1, 2 * state.share))
        plain = where(share < 1, state.here + share * (led - state.here), led)
        return state._replace(
            here=where(usable, guess, plain),
            trial=where(usable, _GUESS, _STEP),
            share=share,
            value=value,
            report=report.packed(value.dtype),
            known=known,
            memory=memory,
            sizes=sizes,
            done=done,
        )

    def _off_saddle(self, state: State, alike: jax.Array, apart: jax.Array) -> State:
        """The state with experts that coincide moved apart, once, where it would be the last one.

        If they come together again, no better fit is near.
        """
        leaves = state.done & alike & jnp.isinf(state.saddle)
        return state._replace(
            here=where(leaves, apart, state.here),
            trial=where(leaves, _SURE, state.trial),
            share=where(leaves, 1.0, state.share),
            known=where(leaves, 0, state.known),
            saddle=where(leaves, state.value, state.saddle),
            done=state.done & ~leaves,
        )

    def _back(self, state: State) -> State:
        """The state after an E-step at params of a higher objective.

        A guess goes back to the step that it was made from, and a step goes back half the way to where it began.
        """
        share = where(state.trial == _GUESS, 1.0, state.share / 2)
        return state._replace(
            here=where(share < 1, state.safe + share * (state.led - state.safe), state.led),
            trial=jnp.asarray(_STEP),
            share=share,
            known=jnp.zeros_like(state.known),
            sizes={name: where(state.trial == _GUESS, size, size / 2) for name, size in state.sizes.items()},
            done=share < _LEAST_SHARE,
        )

    def _problems(self, task: Task, params: Any, sums: Sums) -> tuple[Sums, dict[str, Quadratic]]:
        """Sums with moments in the place of packed ones, and the quadratics of parts that are linear."""
        problems = {}
        for name, part in (("experts", self.model.expert), ("gate", self.model.gate)):
            own = getattr(sums, name)
            if isinstance(own, Packed):
                means = self.model.seen(COLUMNS[name], task.means)[0]
                moments = unpacked(own.products, own.pulls, means)
                sums = sums._replace(**{name: moments})  # type: ignore[arg-type]
                if part.is_linear:
                    problems[name] = part.quadratic(params[name], moments)
        return sums, problems

    def _priors(self, task: Task, params: Any) -> Any:
        """What gate and experts themselves add to the loss."""
        return self.fit.loss.gate_prior(self.model, params["gate"]) - self.model.log_prior(params) / task.total

    def _gradient(self, task: Task, params: Any, sums: Sums, problems: dict[str, Quadratic]) -> Any:
        """Of the expected loss in params, 0 for numbers that are not trained, or that a constraint of the family holds.

        In coefficients it is that of columns less `means`.
        """
        model, gradient = self.model, jax.tree.map(jnp.zeros_like, params)
        slopes = dict(sums.slopes)
        for name, part in (("experts", model.expert), ("gate", model.gate)):
            if name in problems:
                slopes[name] = part.with_coefficients(gradient[name], problems[name].gradient)
            elif name in slopes:
                slopes[name] = merge(slopes[name], split(gradient[name], self._trainable[name])[1])
        if model.expert.has_distribution:
            expected = model.expert.expected
            slopes["experts"] = jax.grad(lambda new: expected(new, params["experts"], sums.experts).sum())(params["experts"])
        if model.gate.has_gradient:
            slopes["gate"] = model.gate.gradient(params["gate"], sums.gate, model.active(params))
        held = model.family.held(model.phi(params), task.target)
        slopes["family"] = jax.tree.map(lambda g, h: where(h, 0.0, g), slopes["family"], held)
        gradient = {**gradient, **slopes}
        if self.fit.loss.joint or model.expert.has_distribution:
            gradient = jax.tree.map(jnp.add, gradient, jax.grad(lambda p: self._priors(task, p))(params))
        return gradient

    def _optimality(self, task: Task, params: Any, here: jax.Array, gradient: Any, curvature: Any) -> tuple[Any, jax.Array]:
        """What penalties add to the objective, and by how much the optimality condition is violated."""
        fit, hyper, tol = self.fit, task.hyper, self.fit.tolerance(here.dtype)
        terms = [(part, p, w) for part in COLUMNS for p, w in _shared.used(fit, hyper, part)]
        if any(p.separable is None for _, p, _ in terms):
            return _shared.penalty(fit, params, hyper), violation(fit, params, gradient, hyper, curvature, tol)
        absolute, square = (
            sum((self._penalized[part] * (w * p.separable[i]) for part, p, w in terms if p.separable[i]), 0.0)
            for i in range(2)
        )
        bends = self.numbers(curvature)
        moved = penalties.shrunk(here - self.numbers(gradient) / bends, absolute / bends, 2 * square / bends)
        penalty: Any = 0.0
        if terms:
            penalty = (absolute * jnp.abs(here) + square * jnp.square(here)).sum()
        roots = jnp.sqrt(bends)
        moves = (roots * jnp.abs(here - moved)).max(initial=0)
        return penalty, beyond_rounding(moves, jnp.square(roots * here).sum(), tol)

    def _m_steps(
        self, task: Task, params: Any, state: State, sums: Sums, problems: dict[str, Quadratic], gradient: Any
    ) -> tuple[Any, Any]:
        """Params after the M-steps, and sizes of the next gradient steps."""
        model, new, sizes = self.model, dict(params), dict(state.sizes)
        change: Any = 0.0
        for name, b, changed in self._quadratic_steps(task, params, problems):
            part = model.expert if name == "experts" else model.gate
            new[name] = part.with_coefficients(params[name], b)
            if name == "experts":
                change = changed
        if "experts" not in problems and model.expert.has_m_step:
            new["experts"], change = self._own_step(task, params, state, sums)
        if "gate" not in problems and model.gate.has_m_step:
            terms = _shared.used(self.fit, task.hyper, "gate")
            new["gate"] = model.gate.m_step(params["gate"], sums.gate, terms)
        if model.family.has_dispersion:
            outputs = model.expert.outputs if model.expert.is_linear else None
            change = change if outputs is None else jnp.reshape(change, (model.n_experts, outputs))
            new["family"] = model.family.dispersion(model.phi(params), sums.spread, change, task.target)
        for name in sizes:
            new[name] = self._gradient_step(name, params[name], gradient[name], sizes[name], task.hyper)
            sizes[name] = sizes[name] * _GROWTH
        return jax.tree.map(lambda v, old: v.astype(old.dtype), new, params), sizes

    def _own_step(self, task: Task, params: Any, state: State, sums: Sums) -> tuple[Any, jax.Array]:
        """The M-step of experts that have one of their own, and by how much it raises each one's expected loss."""
        expert, old = self.model.expert, params["experts"]
        new = expert.m_step(old, sums.experts, _shared.used(self.fit, task.hyper, "experts"), task.total)
        if expert.has_begin:
            begun = expert.begin(old, sums.experts, jax.random.fold_in(task.key, _BEGIN))
            new = choose((state.step == 0) & (state.given > 0), begun, new)
        if not expert.has_distribution:
            return new, jnp.zeros(())
        return new, expert.expected(new, old, sums.experts) - expert.expected(old, old, sums.experts)

    def _quadratic_steps(self, task: Task, params: Any, problems: dict[str, Quadratic]) -> list[Any]:
        """For each part that is linear: its name, its coefficients, and by how much its quadratics rose.

        Parts of equally many columns are solved in one call.
        """
        terms = {name: _shared.used(self.fit, task.hyper, name) for name in problems}
        apart = [name for name in problems if any(p.separable is None for p, _ in terms[name])]
        together: dict[int, list[str]] = {}
        for name, q in problems.items():
            if name not in apart:
                together.setdefault(q.b.shape[1], []).append(name)
        found: list[Any] = []
        for name in apart:
            part = self.model.expert if name == "experts" else self.model.gate
            found.append((name, *coupled_step(problems[name], terms[name], part, params[name])))
        for names in together.values():
            counts = [len(problems[name].b) for name in names]
            stack = [
                jnp.concatenate(v) if len(v) > 1 else v[0] for v in zip(*(problems[name] for name in names), strict=True)
            ]
            weights = (_weights([terms[name] for name in names], counts, i, task.present.dtype) for i in range(2))
            moved = quadratic_step(Quadratic(*stack), *weights)
            ends = np.cumsum(counts)
            for name, count, end in zip(names, counts, ends, strict=True):
                found.append((name, *(v[end - count : end] for v in moved)))
        return found

    def _gradient_step(self, part: str, here: Any, gradient: Any, size: jax.Array, hyper: Any) -> Any:
        """A proximal gradient step, for a part without an M-step: generalised EM."""
        new = jax.tree.map(lambda v, g, t: v - size * g if t else v, here, gradient, self._trainable[part])
        marks = self._marks[part]
        for p, weight in _shared.used(self.fit, hyper, part):
            new = replaced(new, marks, p.prox(chosen(new, marks), size * weight))
        return new


def _weights(terms: list[Any], counts: list[int], which: int, dtype: Any) -> Any:
    """Weights of |b| (0) or of b^2 (1) for each row of a stack, (A, 1); None where there are none."""
    own = [[w * p.separable[which] for p, w in each if p.separable[which]] for each in terms]
    if not any(own):
        return None
    each = [jnp.full((n, 1), sum(v, jnp.zeros((), dtype)), dtype) for v, n in zip(own, counts, strict=True)]
    return each[0] if len(each) == 1 else jnp.concatenate(each)
