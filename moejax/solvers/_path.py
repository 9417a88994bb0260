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

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax import _cache, _checks
from moejax.model import native
from moejax.solvers import _division, _lanes, _sequence, _shared
from moejax.solvers._arguments import check_key
from moejax.solvers._result import Fit, Status
from moejax.solvers._sequence import COUNT, RATIO, is_count, parts_of

_FACE = ("hyper", "check_hyper", "check_data", "score", "work_bytes", "model", "penalties", "loss", "laid", "solve")


@dataclass(frozen=True)
class Path:
    """A fit along a sequence of one field of `hyper`, configured by `path`; call it, or hand it to `sweep`.

    It is hashed by its configuration.

    Attributes
    ----------
    fit : EMFit or GradientFit
        The fit at each weight.
    name : str
        The field of `hyper` that takes the sequence.
    ratio : float
        The smallest weight of an automatic sequence over the largest.
    descending : bool
        Whether the path begins at the largest weight.
    """

    fit: Any
    name: str
    ratio: float
    descending: bool

    @property
    def inner_axis(self) -> str:
        """The field of `hyper` that takes (P,) values at once, which names the leading axis of results."""
        return self.name

    @property
    def model(self) -> Any:
        """The model that is fitted."""
        return self.fit.model

    @property
    def penalties(self) -> tuple[Any, ...]:
        """The penalties of the fit."""
        penalties: tuple[Any, ...] = self.fit.penalties
        return penalties

    @property
    def loss(self) -> Any:
        """The loss of the fit."""
        return self.fit.loss

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults; for the sequence, how many weights are chosen."""
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
        start_params: Any = None,
        start_responsibilities: Any = None,
        start: Any = None,
    ) -> Fit:
        """Fit along the sequence.

        It takes `jit` and `vmap` where the values are given.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        x : array_like, (n, d), or pytree
            Inputs, an array or a pytree of arrays with n leading.
        y : array_like, (n,) or (n, m)
            Targets.
        hyper : mapping or None, default None
            As for the fit, but for the field of the sequence: (P,) values in any order, or a whole number P of at least 2
            for an automatic sequence (see `sequence`). 50 values unless given.
        weights : array_like or None, (n,), default None
            Frequencies of the rows, none below 0. None for equal ones.
        offset : array_like or None, default None
            Added to every expert's predictor, on the scale of eta.
        groups : array_like or None, (n,), default None
            Labels of any type; the rows of a group share their expert.
        start_params : dict or None, default None
            Params from which the first fit starts.
        start_responsibilities : array_like or callable or None, (n, K), default None
            Responsibilities from which the first fit starts, or a function of x that returns them.
        start : dict or array_like or callable or None, default None
            An older name for both, as for the fit.

        Returns
        -------
        Fit
            Each field has a leading axis (P,), in the order in which the values were given.

        Raises
        ------
        ValueError
            If the fit refuses an argument, if the sequence is none, or if an automatic one has no largest weight (see
            `critical`).

        Notes
        -----
        The first value, the smallest unless the path descends, starts where the fit itself would. Each next value starts at
        the params before it, or at the first start again if those diverged. A path of EM starts where the line through the
        last two params leads, if the objective is lower there.
        """
        with _shared.one_start(start, start_params, start_responsibilities) as begin:
            return self._checked(key, x, y, {} if hyper is None else hyper, weights, offset, groups, parts_of(begin))

    def _checked(self, key: Any, x: Any, y: Any, hyper: Any, weights: Any, offset: Any, groups: Any, start: Any) -> Fit:
        check_key(key)
        x, y, weights, offset, groups, start = _shared.natives(x, y, weights, offset, groups, start)
        self.check_hyper(hyper)
        _shared.check_single({name: value for name, value in hyper.items() if name != self.name})
        self.check_data(x, y, weights, offset, groups, start)
        _shared.check_within(hyper, x)
        if callable(start):
            start = _division.resolved("start", start, x, self.model.n_experts)
        rest = {name: value for name, value in hyper.items() if name != self.name}
        values = hyper.get(self.name, COUNT)
        if is_count(values):
            more = {"weights": weights, "offset": offset, "groups": groups, "start": start}
            if _sequence.is_shared(self):
                values = _sequence.automatic(self, values, key, x, y, rest, int(values), **more)
            else:
                values = _sequence.sequence(self, self.name, values, key, x, y, rest, **more)
        return self.along(values, *_shared.arrays(x, y, rest, weights, offset, groups, start), key=key)

    def along(
        self, values: Any, x: Any, y: Any, hyper: Any, weights: Any, offset: Any, leader: Any, start: Any, *, key: jax.Array
    ) -> Fit:
        """Fit at these values, with arguments that are checked already.

        Parameters
        ----------
        values : array_like, (P,)
            Weights, in any order.
        x : jax.Array or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        hyper : dict
            Numbers by name, without the sequence.
        weights : jax.Array or None, (n,)
            Weights of the rows.
        offset : jax.Array or None
            Added to every expert's predictor.
        leader : jax.Array or None, (n,)
            As from `moejax.model.leaders`.
        start : dict or jax.Array or None
            As in a call, but no function.
        key : jax.Array
            The only source of randomness.

        Returns
        -------
        Fit
            With a leading axis (P,), in the order of `values`.
        """
        hyper = {**hyper, self.name: _shared.array(values, jax.tree.leaves(x)[0].dtype)}
        fit: Fit = _compiled(self, key, hyper, *self.laid(x, y, weights, offset, leader, start))
        return fit

    def score(
        self, params: Any, x: Any, y: jax.Array, weights: jax.Array, offset: Any = None, groups: Any = None
    ) -> jax.Array:
        """Return the score of the fit for each of the params along their leading axis.

        Parameters
        ----------
        params : dict
            Params with a leading axis (P,).
        x : array_like or pytree
            Inputs.
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
        jax.Array, (P,)
            Means over rows; lower is better.
        """
        if not any(map(_checks.is_traced, jax.tree.leaves(params))):
            first = _first(params)
            _shared.scored(self.model, first, x, y, weights, offset, groups)
        scores: jax.Array = jax.lax.map(lambda p: self.fit.score(p, x, y, weights, offset, groups), params)
        return scores

    def work_bytes(self, y: jax.Array) -> int:
        """Return the memory of the fit: one value is fitted at a time.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.

        Returns
        -------
        int
            Bytes.
        """
        size: int = self.fit.work_bytes(y)
        return size

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face, as for the fit."""
        return getattr(self.fit, "takes_padding", False)

    @property
    def uneven(self) -> bool:
        """Whether fits end at different times."""
        return getattr(self.fit, "uneven", False)

    @property
    def is_settling(self) -> bool:
        """Whether fits converge if they may take enough steps."""
        return getattr(self.fit, "is_settling", False)

    def check_hyper(self, hyper: Mapping[str, Any]) -> None:
        """Raise ValueError as the fit does, and for a sequence that is none.

        Parameters
        ----------
        hyper : mapping
            Numbers by name, and the sequence.
        """
        if not isinstance(hyper, Mapping):
            raise ValueError(f"hyper: {_checks.shown(hyper)} was given; want a mapping from names to numbers")
        values = hyper.get(self.name)
        if is_count(values):
            _sequence.check_count(f"hyper[{self.name!r}]", values)
            hyper = {name: value for name, value in hyper.items() if name != self.name}
        elif values is not None:
            _checks.shape(f"hyper[{self.name!r}]", values, (None,), "the values of a path, or how many")
            _checks.count(f"values in hyper[{self.name!r}]", _checks.shape_of("hyper", values)[0])
        self.fit.check_hyper(hyper)

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError as the fit does.

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
        self.fit.check_data(x, y, weights, offset, groups, parts_of(start))

    # ---- below the face: nothing is checked ------------------------------------------------------------------------

    def laid(self, x: Any, y: Any, weights: Any, offset: Any, leader: Any, start: Any) -> tuple[Any, Any]:
        """Return rows in blocks, and params to start from, as the fit does.

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
            Blocks of rows.
        start : dict or None
            Params to start from, or None.
        """
        rows, start = self.fit.laid(x, y, weights, offset, leader, start)
        return rows, start

    def rows_in_block(self, x: Any, y: Any, leader: Any = None) -> int:
        """Return how many rows a block has, as for the fit.

        Parameters
        ----------
        x : jax.Array or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        leader : jax.Array or None, (n,), default None
            As from `moejax.model.leaders`.

        Returns
        -------
        int
            The number; 0 where all rows are one block.
        """
        rows: int = self.fit.rows_in_block(x, y, leader)
        return rows

    def solve(self, key: Any, hyper: dict[str, Any], rows: Any, start: Any = None) -> Fit:
        """Fit along the sequence, inside compiled code.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        hyper : dict
            Numbers by name, and the sequence, (P,).
        rows : Rows
            Blocks of rows, of raw weights.
        start : dict or None, default None
            Params from which the first fit starts.

        Returns
        -------
        Fit
            With a leading axis (P,), in the order of the values.
        """
        values = hyper[self.name]
        order = jnp.argsort(-values if self.descending else values, stable=True)
        along = self._walked if self.fit.has_warm_start else self._chained
        fits = along(key, {**hyper, self.name: values[order]}, rows, start)
        as_given: Fit = jax.tree.map(lambda v: v[jnp.argsort(order)], fits)
        return as_given

    def _chained(self, key: Any, hyper: dict[str, Any], rows: Any, start: Any) -> Fit:
        """A fit after the other, each from the params before it, or where it starts of itself if those diverged."""
        shapes = parts_of(jax.eval_shape(self.model.init, key, rows.first.x))
        begin = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), shapes), jnp.zeros((), bool)

        def step(at: tuple[Any, jax.Array], value: jax.Array) -> tuple[Any, Fit]:
            fit = self.fit.solve(key, {**hyper, self.name: value}, rows, start, at)
            return (parts_of(fit.params), (fit.status & int(Status.DIVERGED)) == 0), fit

        return jax.lax.scan(step, begin, hyper[self.name])[1]

    def _walked(self, key: Any, hyper: dict[str, Any], rows: Any, start: Any) -> Fit:
        """The iterations of all fits in one loop, for fits that end when they have converged.

        Of paths that run beside each other each goes on to its next value as soon as it can. Were every value a loop of its
        own, all paths would wait at each for the slowest.
        """
        values = hyper[self.name]
        descent, task = self.fit.descent(key, {**hyper, self.name: values[0]}, rows, start)
        walk = _Walk(self, descent)
        ends = _lanes.run(_lanes.Loop(walk.begin, walk.step, len(values)), (task, values))
        fits: Fit = jax.lax.map(lambda each: descent.finish(walk.at(task, each[1]), each[0]), (ends, values))
        return fits


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


def _first(params: Any) -> Any:
    """The first of params with a leading axis (P,). Raises ValueError where it differs, or is none."""
    if not isinstance(params, dict):
        raise ValueError(f"params: {_checks.shown(params)} was given; want a dict, as the params of a path")
    params = native("params", params)
    for leaf in jax.tree.leaves(params):
        _checks.real("params", leaf)
    sizes = {(_checks.shape_of("params", leaf) or (0,))[0] for leaf in jax.tree.leaves(params)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"params: arrays of {sorted(sizes)} values of the path were given; want the same number in all")
    return jax.tree.map(lambda leaf: leaf[0] if hasattr(leaf, "shape") else _checks.array("params", leaf)[0], params)


def _ahead(step: jax.Array, numbers: jax.Array, slope: jax.Array) -> jax.Array:
    """Numbers further along a line, each as it is where it would change its sign: what is 0 stays so.

    Between two changes of their zeros the lasso's coefficients are linear in its weight (Efron, Hastie, Johnstone and
    Tibshirani 2004), and those of generalised linear models nearly so (the predictor of Park and Hastie 2007).
    """
    moved = numbers + (step * slope).astype(numbers.dtype)
    return jnp.where(jnp.sign(moved) == jnp.sign(numbers), moved, numbers)


@_cache.jit
def _compiled(path: Path, *arguments: Any) -> Fit:
    return path.solve(*arguments)


def path(fit: Any, name: str = "l1_experts", *, ratio: float = RATIO, order: str | None = None) -> Path:
    """Configure a fit along a sequence of one penalty's weights, with warm starts.

    Parameters
    ----------
    fit : EMFit or GradientFit
        From `fit_em` or `fit_gradient`, or another fit that is `moejax.solvers.Configured`.
    name : str, default "l1_experts"
        The field of `hyper` that takes the sequence, the weight of one of the fit's penalties.
    ratio : float, default 1e-3
        The smallest weight of an automatic sequence over the largest, between 0 and 1.
    order : {"ascending", "descending"} or None, default None
        Which weight comes first, the smallest or the largest. None descends for a single expert, as the lasso does, and
        ascends for a mixture, whose experts would stay alike if the path began without coefficients.

    Returns
    -------
    Path
        A function path(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start_params=None,
        start_responsibilities=None) -> Fit. hyper[name]
        holds (P,) values, or how many are wanted (50 unless given), and the result has a leading axis (P,). `sweep` takes it
        like the fit, with `name` among its axes: sweep(path(fit), {"l1_experts": 50, "restart": 20, "fold": 5}).

    Raises
    ------
    ValueError
        If fit is no fit or a path already, if name is no weight of its penalties, if ratio is not between 0 and 1, or for
        another order.

    Notes
    -----
    Each fit starts from where the one before it ended. This is cheaper than as many separate fits, and a mixture keeps its
    experts from one weight to the next.

    References
    ----------
    Friedman, Hastie and Tibshirani (2010).
    """
    lacking = [face for face in _FACE if not hasattr(fit, face)]
    if lacking or not callable(fit) or hasattr(fit, "inner_axis"):
        why = "is a path already" if hasattr(fit, "inner_axis") else f"has no {' and no '.join(lacking)}"
        raise ValueError(f"fit: {_checks.shown(fit)} {why}; want a fit, as from fit_em")
    _sequence.penalty_of(fit, name)
    ratio = _checks.number_above_0("ratio", ratio)
    if ratio >= 1:
        raise ValueError(f"ratio: {ratio!r} was given; want a number between 0 and 1")
    if order is not None:
        _checks.choice("order", order, ("ascending", "descending"))
    descending = getattr(fit.model, "n_experts", 1) == 1 if order is None else order == "descending"
    return Path(fit, name, ratio, descending)
