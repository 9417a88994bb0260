"""Paths: a fit along a sequence of one penalty's weights, each from where the one before it ended.

Warm starts (Friedman, Hastie and Tibshirani 2010) make a path cheaper than as many fits, and let a mixture keep its experts
from one weight to the next. The sequence reaches, unless it is given, to where all coefficients of that penalty are 0. A
path has the face of the fit that it is made of, and sweeps the same way.

The lasso's path goes down from the critical weight, which for one regression is cheapest and leads to the same optima. A
mixture's goes up from the smallest. Where all coefficients are 0 its experts are alike, and a fit that starts from there
finds them alike at the next weights too, with a gradient of next to nothing to tell them apart; from below, experts that
have been told apart stay so, and beyond the critical weight of the null fit too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _cache, _checks
from moejax._trees import chosen, merge, replaced, split
from moejax.model import PARTS, Data, floating, leaders
from moejax.solvers import _division, _lanes, _shared, _starts
from moejax.solvers._arguments import check_key
from moejax.solvers._gradient import GradientFit
from moejax.solvers._result import Fit, Status, normalized, total_weight

COUNT, RATIO = 50, 1e-3  # of an automatic sequence: how many weights, and the smallest over the largest
_DOUBLINGS = 7  # of the critical weight, in search of one at which a path that comes from below has no coefficients
_HUGE = 1e10  # a weight beyond any critical one, small enough that its multiples are finite in float32
_FACE = ("hyper", "check_hyper", "check_data", "score", "work_bytes", "model", "penalties", "loss")


@dataclass(frozen=True)
class Path:
    """A fit along a sequence of one field of `hyper`, configured by `path`; call it, or hand it to `sweep`.

    Hashed by its configuration. `inner_axis` tells `sweep` which field takes all its values at once.
    """

    fit: Any
    name: str
    ratio: float
    descending: bool

    @property
    def inner_axis(self) -> str:
        """The field of `hyper` that takes (P,) values at once, and so the name of the leading axis of results."""
        return self.name

    @property
    def model(self) -> Any:
        """The model that is fitted."""
        return self.fit.model

    @property
    def penalties(self) -> tuple[Any, ...]:
        """The penalties of the fit."""
        return self.fit.penalties

    @property
    def loss(self) -> Any:
        """The loss of the fit."""
        return self.fit.loss

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults; of the sequence, how many weights are chosen."""
        return {**self.fit.hyper, self.name: COUNT}

    def __call__(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        hyper: Mapping[str, Any] | None = None,
        *,
        weights: Any = None,
        offset: Any = None,
        groups: Any = None,
        start: Any = None,
    ) -> Fit:
        """Fit along the sequence. Takes `jit` and `vmap` where the values are given.

        hyper: as of the fit, but for the sequence: (P,) values in any order, or a whole number P of at least 2 for an
        automatic sequence (see `sequence`). The rest is as for the fit. The first value, the smallest unless the path
        descends, starts where the fit itself would, and each next one at the params before (those of EM at where the line
        through the last two leads, if the objective is lower there), or at the first start again if those diverged.

        Returns a `Fit` each of whose fields has a leading axis (P,), in the order in which the values were given. Raises
        ValueError for what the fit refuses.
        """
        check_key(key)
        hyper = {} if hyper is None else hyper
        self.check_hyper(hyper)
        for name, value in hyper.items():
            if name != self.name:
                _checks.shape(f"hyper[{name!r}]", value, (), "one number; `sweep` takes many")
        start = _parts(start)
        self.check_data(x, y, weights, offset, groups, start)
        if callable(start):
            start = _division.resolved("start", start, x, self.model.n_experts)
        rest = {name: value for name, value in hyper.items() if name != self.name}
        values = hyper.get(self.name, COUNT)
        if is_count(values):
            more = {"weights": weights, "offset": offset, "groups": groups, "start": start}
            values = sequence(self, self.name, values, key, x, y, rest, **more)
        hyper = {**rest, self.name: values}
        x, y, hyper, weights, offset, leader, start = _shared.arrays(x, y, hyper, weights, offset, groups, start)
        values, rest = hyper.pop(self.name), hyper
        more = {"weights": weights, "offset": offset, "groups": leader, "start": start}
        return _compiled(self, key, x, y, values, rest, _given(more))

    def score(
        self, params: Any, x: Any, y: jax.Array, weights: jax.Array, offset: Any = None, groups: Any = None
    ) -> jax.Array:
        """The score of the fit for each of the params along their leading axis, (P,)."""
        return jax.lax.map(lambda p: self.fit.score(p, x, y, weights, offset, groups), params)

    def work_bytes(self, y: jax.Array) -> int:
        """That of the fit: one value is fitted at a time."""
        return self.fit.work_bytes(y)

    @property
    def uneven(self) -> bool:
        """Whether fits end at different times."""
        return getattr(self.fit, "uneven", False)

    def check_hyper(self, hyper: Mapping[str, Any]) -> None:
        """Raise ValueError as the fit does, and for a sequence that is none."""
        if not isinstance(hyper, Mapping):
            raise ValueError(f"hyper: {hyper!r} was given; want a mapping from names to numbers")
        values = hyper.get(self.name)
        if is_count(values):
            _check_count(f"hyper[{self.name!r}]", values)
            hyper = {name: value for name, value in hyper.items() if name != self.name}
        elif values is not None:
            _checks.shape(f"hyper[{self.name!r}]", values, (None,), "the values of a path, or how many")
            _checks.count(f"values in hyper[{self.name!r}]", np.shape(values)[0])
        self.fit.check_hyper(hyper)

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError as the fit does."""
        self.fit.check_data(x, y, weights, offset, groups, _parts(start))

    # ---- inside the compiled program ----------------------------------------------------------------------------

    def _along(self, key: Any, x: Any, y: jax.Array, values: jax.Array, hyper: dict[str, Any], more: dict[str, Any]) -> Fit:
        order = jnp.argsort(-values if self.descending else values, stable=True)
        along = self._chained if not hasattr(self.fit, "descent") else self._descended
        fits = along(key, x, y, values[order], hyper, more)
        return jax.tree.map(lambda v: v[jnp.argsort(order)], fits)

    def _chained(
        self, key: Any, x: Any, y: jax.Array, values: jax.Array, hyper: dict[str, Any], more: dict[str, Any]
    ) -> Fit:
        """A fit after the other, for fits that take as long as each other."""

        def after(fit: Fit) -> tuple[Any, jax.Array]:
            warm = (fit.status & int(Status.DIVERGED)) == 0
            return jax.tree.map(partial(jnp.where, warm), _parts(fit.params), origin), warm

        def step(at: tuple[Any, jax.Array], value: jax.Array) -> tuple[Any, Fit]:
            params, warm = at
            if hasattr(self.fit, "resumed"):
                arguments = (more.get(name) for name in ("weights", "offset", "groups", "start"))
                fit = self.fit.resumed(key, x, y, {**hyper, self.name: value}, params, warm, *arguments)
            else:
                fit = self.fit(key, x, y, {**hyper, self.name: value}, **{**more, "start": params})
            return after(fit), fit

        origin, first = self._origin(key, x, hyper, more.get("start")), None
        begin = origin, jnp.zeros((), bool)
        if not (hasattr(self.fit, "resumed") or hasattr(self.fit, "init_state") or isinstance(more.get("start"), dict)):
            # How such a fit starts of itself is not known here; so the first has a program of its own.
            first = self.fit(key, x, y, {**hyper, self.name: values[0]}, **more)
            begin = after(first)
        _, fits = jax.lax.scan(step, begin, values[0 if first is None else 1 :])
        if first is not None:
            fits = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), first, fits)
        return fits

    def _descended(
        self, key: Any, x: Any, y: jax.Array, values: jax.Array, hyper: dict[str, Any], more: dict[str, Any]
    ) -> Fit:
        """The iterations of all fits in one loop, for fits that end when they have converged.

        Of paths that run beside each other each goes on to its next value as soon as it can. Were every value a loop of its
        own, all paths would wait at each for the slowest.
        """
        rest = (more.get(name) for name in ("weights", "offset", "groups", "start"))
        descent, task = self.fit.descent(key, {**hyper, self.name: values[0]}, *self.fit.laid(x, y, *rest))
        walk = _Walk(self, descent)
        ends = _lanes.run(_lanes.Loop(walk.begin, walk.step, len(values)), (task, values))
        return jax.lax.map(lambda each: descent.finish(walk.at(task, each[1]), each[0]), (ends, values))

    def _origin(self, key: jax.Array, x: Any, hyper: dict[str, Any], start: Any) -> Any:
        """The params that the first fit starts from, and those after one that diverged."""
        if isinstance(start, dict):
            like = jax.eval_shape(self.model.init, key, x)
            return jax.tree.map(lambda s, wanted: jnp.asarray(s, wanted.dtype), start, like)
        if hasattr(self.fit, "init_state"):
            return _parts(self.fit.init_state(key, x, hyper).params)
        return self.model.init(jax.random.fold_in(key, hyper.get("restart", 0)), x)


class _Point(NamedTuple):
    """Where a path has come to. Numbers that are trained are a vector."""

    numbers: jax.Array
    warm: jax.Array  # whether a fit led there
    value: jax.Array
    slope: jax.Array  # of the numbers, per unit of the value, since the point before
    objective: jax.Array  # there, with that value


class _State(NamedTuple):
    """How far a path is: at the value of that number."""

    turn: jax.Array
    iterations: Any
    point: _Point


class _Walk:
    """The iterations of a path: those at its first value, as soon as they end those at the next, and so on."""

    def __init__(self, path: Path, descent: Any):
        self.path, self.descent = path, descent

    def at(self, task: Any, value: jax.Array) -> Any:
        """The task at that value."""
        return task._replace(hyper={**task.hyper, self.path.name: value})

    def begin(self, given: tuple[Any, jax.Array]) -> _State:
        task, values = given
        fresh = self.descent.init(task)
        nowhere = _Point(fresh.safe, jnp.zeros((), bool), values[0], jnp.zeros_like(fresh.safe), fresh.value)
        return _State(jnp.zeros((), jnp.int32), fresh, nowhere)

    def step(self, given: tuple[Any, jax.Array], state: _State) -> _lanes.Turn:
        task, values = given
        value, following = values[state.turn], values[jnp.minimum(state.turn + 1, len(values) - 1)]
        iterations = self.descent.step(self.at(task, value), state.iterations)
        ended, end = self.descent.done(iterations), self.descent.end(iterations)
        point = _point(end, value, state.point)
        new = _State(state.turn + 1, self.following(task, point, following), point)
        old = _State(state.turn, iterations, state.point)
        after = jax.tree.map(partial(jnp.where, ended), new, old)
        return _lanes.Turn(after, ended, state.turn, end, after.turn == len(values))

    def following(self, task: Any, point: _Point, value: jax.Array) -> Any:
        """Where the next value begins: ahead of the point, or as the fit begins of itself if that is not `warm`."""
        params = self.descent.params(task, point.numbers)
        before, now = (_shared.penalty(self.path.fit, params, self.at(task, v).hyper) for v in (point.value, value))
        ahead = self.descent.params(task, _ahead(value - point.value, point.numbers, point.slope))
        warm = self.descent.init(task, params, ahead, point.objective + now - before)
        return jax.tree.map(partial(jnp.where, point.warm), warm, self.descent.init(task))


def _point(end: Any, value: jax.Array, last: _Point) -> _Point:
    warm = jnp.isfinite(end.objective) & jnp.isfinite(end.numbers).all()
    known = last.warm & warm & (value != last.value)
    per = jnp.where(known, 1 / jnp.where(known, value - last.value, 1), 0)
    slope = (per * jnp.where(known, end.numbers - last.numbers, 0)).astype(end.numbers.dtype)
    return _Point(end.numbers, warm, value, slope, end.objective)


def _ahead(step: jax.Array, numbers: jax.Array, slope: jax.Array) -> jax.Array:
    """Numbers further along a line, each as it is where it would change its sign: what is 0 stays so.

    Between two changes of their zeros the lasso's coefficients are linear in its weight (Efron, Hastie, Johnstone and
    Tibshirani 2004), and those of generalised linear models nearly so (the predictor of Park and Hastie 2007).
    """
    moved = numbers + (step * slope).astype(numbers.dtype)
    return jnp.where(jnp.sign(moved) == jnp.sign(numbers), moved, numbers)


@_cache.jit
def _compiled(path: Path, *arguments: Any) -> Fit:
    return path._along(*arguments)


def path(fit: Any, name: str = "l1_experts", *, ratio: float = RATIO, order: str | None = None) -> Path:
    """The fit along a sequence of one penalty's weights, with warm starts.

    fit: from `fit_em` or `fit_gradient`, or anything with their face. name: the field of `hyper` that the sequence is of,
    the weight of one of its penalties. ratio: the smallest weight of an automatic sequence over the largest, between 0 and
    1. order: "ascending", from the smallest weight, or "descending"; unless given, that of a single expert descends, as the
    lasso's does, and that of a mixture ascends, for its experts would be alike if it began without coefficients.

    Returns a function path(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start=None) -> Fit, whose
    hyper[name] holds (P,) values or how many are wanted, and whose result has a leading axis (P,). `sweep` takes it like
    the fit, with `name` among its axes: sweep(path(fit), {"l1_experts": 50, "restart": 20, "fold": 5}). Raises ValueError
    for what is no fit, a name that is no weight of its penalties, a ratio that is not between 0 and 1, and another order.
    """
    lacking = [face for face in _FACE if not hasattr(fit, face)]
    if lacking or not callable(fit) or hasattr(fit, "inner_axis"):
        why = "is a path already" if hasattr(fit, "inner_axis") else f"has no {' and no '.join(lacking)}"
        raise ValueError(f"fit: {fit!r} {why}; want a fit, as from fit_em")
    _penalty(fit, name)
    _checks.positive("ratio", ratio)
    if ratio >= 1:
        raise ValueError(f"ratio: {ratio!r} was given; want a number between 0 and 1")
    if order not in (None, "ascending", "descending"):
        raise ValueError(f"order: {order!r} was given; want 'ascending' or 'descending'")
    descending = getattr(fit.model, "n_experts", 1) == 1 if order is None else order == "descending"
    return Path(fit, name, float(ratio), descending)


# ---- automatic sequences, on the host -------------------------------------------------------------------------------


def is_count(values: Any) -> bool:
    """Whether these are not values of a sequence, but how many are wanted."""
    return isinstance(values, int | np.integer) and not isinstance(values, bool)


def _check_count(name: str, count: Any) -> None:
    if count < 2:
        raise ValueError(f"{name}: {count!r} was given; want a whole number of at least 2, or a sequence of values")


def sequence(
    fit: Any, name: str, count: Any, key: jax.Array, x: Any, y: Any, hyper: Mapping[str, Any] | None = None, **more: Any
) -> np.ndarray:
    """The weights (count,) of an automatic sequence, geometric from the largest down.

    The largest is the critical one, and of a path that ascends the first double of it at which nothing is left of what came
    from below (the critical one where something always is, as of subgradient steps). The last is the first times the `ratio`
    of a path, `RATIO` for other fits. The arguments, and what is raised, are those of `critical`; a count below 2 is
    refused.
    """
    _check_count(name, count)
    alone, ratio = (fit.fit, fit.ratio) if isinstance(fit, Path) else (fit, RATIO)
    first = critical(alone, name, key, x, y, hyper, **more)
    if isinstance(fit, Path) and not fit.descending:
        first = _emptied(alone, name, first, ratio, key, x, y, {**(hyper or {}), "restart": 0}, more)
    return np.geomspace(first, first * ratio, int(count))


def _emptied(fit: Any, name: str, first: float, ratio: float, key: Any, x: Any, y: Any, hyper: Any, more: Any) -> float:
    """The weight, doubled from the critical one, at which a fit that comes from the smallest has no coefficients left."""
    penalty = _penalty(fit, name)
    more = _given({**more, "start": _parts(more.get("start"))})
    for weight in [first * ratio, *(first * 2.0 ** np.arange(_DOUBLINGS))]:
        params = fit(key, x, y, {**hyper, name: weight}, **more).params
        if jax.tree.all(jax.tree.map(np.array_equal, params, _without(fit.model, penalty, params))):
            return float(max(weight, first))
        if not getattr(fit.loss, "complete", False):  # whose start is what it holds
            more = {**more, "start": _parts(params)}
    return first


def critical(
    fit: Any,
    name: str,
    key: jax.Array,
    x: Any,
    y: Any,
    hyper: Mapping[str, Any] | None = None,
    *,
    weights: Any = None,
    offset: Any = None,
    groups: Any = None,
    start: Any = None,
) -> float:
    """The smallest weight of a penalty at which all coefficients that it sees are 0, other penalties of theirs left aside.

    It is that at which the null fit, all else fitted with these coefficients at 0, stops being optimal: a function of the
    gradient of the mean loss there, which the penalty's own `critical` knows. The null fit of a mixture depends on its
    start; this is the one of restart 0 of `key`, whatever `hyper` says, or of `start`. name: the penalty's weight in
    `hyper`. The rest is as for the fit, on all rows.

    Raises ValueError for a name that is no weight of a penalty, a penalty that has no critical weight (a ridge brings no
    coefficient to 0), a fit that brings none to 0, and values that are traced: it is computed on the host.
    """
    penalty = _penalty(fit, name)
    if not hasattr(penalty, "critical"):
        raise ValueError(f"{name}: {penalty!r} knows no critical weight; want values")
    if any(_checks.is_traced(leaf) for leaf in jax.tree.leaves((key, x, y, hyper, weights, offset, groups, start))):
        raise ValueError(f"{name}: how many weights are wanted was given inside a compiled function; want the weights")
    hyper = {n: v for n, v in (hyper or {}).items() if n != name} | {"restart": 0}
    more = _given({"weights": weights, "offset": offset, "groups": groups})
    x = floating(x)
    dtype = jax.tree.leaves(x)[0].dtype
    y, offset = (None if v is None else jnp.asarray(v, dtype) for v in (y, offset))
    params = _null_params(fit, penalty, key, x, y, hyper, _parts(start), more)
    leader = None if groups is None else leaders(groups)
    data = Data(fit.model.prepare(x), y, offset, leader, total_weight(weights, y), hyper=hyper)
    if getattr(fit.loss, "complete", False):
        given = _division.resolved("start", start, x, fit.model.n_experts)
        data = data._replace(division=_starts.shared_rows(given, fit.model.active(params), data.leader, dtype))
    trained, rest = split(params, fit.model.trainable(params))
    slope = jax.grad(lambda t: fit.loss.value(fit.model, merge(t, rest), data, normalized(weights, y)))
    gradient = merge(slope(trained), jax.tree.map(jnp.zeros_like, rest))
    return _finite_critical(name, penalty, chosen(gradient[penalty.part], fit.model.penalized(params)[penalty.part]))


def _finite_critical(name: str, penalty: Any, gradients: list[jax.Array]) -> float:
    weight = float(penalty.critical(gradients))
    if np.isinf(weight):
        raise ValueError(f"{name}: {penalty!r} has no critical weight, for it brings no coefficient to 0; want values")
    if not weight > 0:
        raise ValueError(f"{name}: the critical weight is {weight}, so nothing depends on this part; want values")
    return weight


def _null_params(
    fit: Any, penalty: Any, key: jax.Array, x: Any, y: Any, hyper: dict[str, Any], start: Any, more: dict[str, Any]
) -> Any:
    """Params of the fit without the coefficients that the penalty would bring to 0."""
    more = {**more, **_given({"start": start})}
    if isinstance(fit, GradientFit):  # which may step by subgradients, and these bring nothing to 0
        null = dataclasses.replace(fit, loss=_Without(fit.loss, penalty))(key, x, y, hyper, **more)
    else:
        null = fit(key, x, y, {**hyper, penalty.name: _HUGE}, **more)
    if int(null.status) & Status.DIVERGED:
        raise ValueError(f"{penalty.name}: the fit without these coefficients diverged; want values, or other data")
    params = _without(fit.model, penalty, null.params)
    if not isinstance(fit, GradientFit) and not jax.tree.all(jax.tree.map(np.array_equal, params, null.params)):
        raise ValueError(f"{penalty.name}: {fit!r} brings no coefficient to 0, whatever its weight; want values")
    return params


@dataclass(frozen=True)
class _Without:
    """A loss that does not see the coefficients that a penalty would bring to 0."""

    loss: Any
    penalty: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("loss", "penalty"):  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.loss, name)

    def value(self, model: Any, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """That of the loss."""
        return self.loss.value(model, _without(model, self.penalty, params), data, weights)


def _without(model: Any, penalty: Any, params: Any) -> Any:
    """Params with 0 for each coefficient that an infinite step of the penalty makes 0."""
    part = params[penalty.part]
    marked = model.penalized(params)[penalty.part]
    coefficients = chosen(part, marked)
    left = penalty.prox([jnp.ones_like(c) for c in coefficients], jnp.inf)
    return {
        **params,
        penalty.part: replaced(part, marked, [jnp.where(v == 0, 0, c) for v, c in zip(left, coefficients, strict=True)]),
    }


def _penalty(fit: Any, name: str) -> Any:
    for penalty in fit.penalties:
        if penalty.name == name:
            return penalty
    known = [penalty.name for penalty in fit.penalties]
    raise ValueError(f"name: {name!r} was given, which is no weight of a penalty; want one of {known}")


def _parts(params: Any) -> Any:
    """Params without what a number in `hyper` adds to them, as `start` wants them."""
    return {name: params[name] for name in params if name in PARTS} if isinstance(params, dict) else params


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
