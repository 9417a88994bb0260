"""Automatic sequences of a penalty's weights, down from one at which all its coefficients are 0.

It takes the null fit and, for a path that comes from below, the weights at which nothing is left. Both are runs of one
program with other weights, and where the program that is to run along the sequence can make them, no other is compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _cache, _checks
from moejax._trees import chosen, merge, replaced, split
from moejax.losses import Loss
from moejax.model import PARTS, Data, floating
from moejax.penalties import Penalty
from moejax.solvers import _division, _shared, _starts
from moejax.solvers._arguments import check_key
from moejax.solvers._gradient import GradientFit
from moejax.solvers._result import Fit, Status, normalized, total_weight

COUNT, RATIO = 50, 1e-3  # of an automatic sequence: how many weights, and the smallest over the largest
_DOUBLES = 2.0 ** np.arange(7)  # of the critical weight: where a path from below is looked at for coefficients
_HUGE = 1e10  # a weight beyond any critical one, small enough that its multiples are finite in float32


class Rows(NamedTuple):
    """What the mean loss of a fit is over, in arrays. division: (n, K), held by a loss that is `complete`, or None."""

    x: Any
    y: Any
    weights: Any
    offset: Any
    leader: Any
    division: Any
    hyper: dict[str, Any]


class Search(NamedTuple):
    """Fits of a program, among which a sequence's largest weight is found.

    run: `length` weights, in the order of a path, to a `Fit` with them leading; of restart 0, on all `rows`.
    """

    run: Callable[[np.ndarray], Fit]
    length: int
    rows: Rows


def is_count(values: Any) -> bool:
    """Return whether these are not the values of a sequence, but how many are wanted.

    Parameters
    ----------
    values : object
        What `hyper` holds.

    Returns
    -------
    bool
        True for a whole number.
    """
    return _checks.is_whole(values)


def check_count(name: str, count: Any) -> None:
    """Raise ValueError for a number of weights that is none, or below 2."""
    if not is_count(count) or not 2 <= count <= _checks.MOST_MADE:
        bound = f"at most {_checks.MOST_MADE}" if is_count(count) and count > 2 else "at least 2"
        given = _checks.shown(count)
        raise ValueError(f"{name}: {given} was given; want a whole number of {bound}, or a sequence of values")


def is_shared(fit: Any) -> bool:
    """Whether the program of a fit, or a path, is to search for its own sequence.

    One of subgradient steps cannot. A path along which every fit takes all its steps could, but a run of a shorter one takes
    less time than it saves.
    """
    if not _is_path(fit):
        return not _steps_by_subgradients(fit)
    return not _steps_by_subgradients(fit.fit) and getattr(fit.fit, "uneven", False)


def sequence(
    fit: Any, name: str, count: Any, key: jax.Array, x: Any, y: Any, hyper: Mapping[str, Any] | None = None, **more: Any
) -> np.ndarray:
    """Return the weights of an automatic sequence, geometric from the largest down.

    Parameters
    ----------
    fit : EMFit or GradientFit or Path
        A fit, or a path of it.
    name : str
        The weight of a penalty in `hyper`.
    count : int
        How many weights, at least 2.
    key : jax.Array
        The only source of randomness.
    x : array_like, (n, d), or pytree
        Inputs.
    y : array_like, (n,) or (n, m)
        Targets.
    hyper : mapping or None, default None
        Other numbers by name.
    **more
        `weights`, `offset`, `groups` and `start`, as for `critical`.

    Returns
    -------
    numpy.ndarray, (count,)
        Weights in falling order. The last is the first times the `ratio` of a path, 1e-3 for other fits.

    Raises
    ------
    ValueError
        If count is below 2, or for what `critical` refuses.

    Notes
    -----
    The largest weight is the critical one. For a path that ascends it is the first double of the critical one at which no
    coefficient is left of those that came from below, or the critical one where some coefficient always is.
    """
    check_count(name, count)
    penalty_of(fit, name)
    along = dataclasses.replace(fit, name=name) if _is_path(fit) else fit
    if not _ascends(along):
        return spaced(fit, count, critical(_alone(fit), name, key, x, y, hyper, **more))
    return automatic(along, count, key, x, y, hyper, len(_DOUBLES) + 1, **more)


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
    """Return the smallest weight of a penalty at which all coefficients that it sees are 0.

    Parameters
    ----------
    fit : EMFit or GradientFit
        A fit with that penalty.
    name : str
        The weight of the penalty in `hyper`.
    key : jax.Array
        The only source of randomness.
    x : array_like, (n, d), or pytree
        Inputs.
    y : array_like, (n,) or (n, m)
        Targets.
    hyper : mapping or None, default None
        Other numbers by name. The restart is 0 whatever is given.
    weights : array_like or None, (n,), default None
        Frequencies of the rows. None for equal ones.
    offset : array_like or None, default None
        Added to every expert's predictor.
    groups : array_like or None, (n,), default None
        Labels; the rows of a group share their expert.
    start : dict or array_like or callable or None, default None
        Where the null fit starts, as for the fit.

    Returns
    -------
    float
        The weight, beside a mean loss over all rows.

    Raises
    ------
    ValueError
        If name is no weight of a penalty, if the penalty has no critical weight (a ridge brings no coefficient to 0), if the
        fit brings no coefficient to 0, or if values are traced: it is computed on the host.

    Notes
    -----
    Other penalties of the same coefficients are left aside. In the null fit these coefficients are 0 and all else is fitted.
    The critical weight is the one at which the null fit stops being optimal: a function of the gradient of the mean loss
    there, which the penalty's own `critical` gives. The null fit of a mixture depends on its start.
    """
    x, y, more = _checked_arguments(fit, name, key, x, y, hyper, weights, offset, groups, start)
    hyper = {n: v for n, v in (hyper or {}).items() if n != name} | {"restart": 0}
    null, values = fit, {**hyper, name: _HUGE}
    if _steps_by_subgradients(fit):
        null, values = dataclasses.replace(fit, loss=_Without(fit.loss, penalty_of(fit, name))), hyper

    def run(_: np.ndarray) -> Fit:
        found: Fit = jax.tree.map(lambda leaf: np.asarray(leaf)[None], null(key, x, y, values, **given(more)))
        return found

    return largest(fit, name, Search(run, 1, _rows(fit, _shared.arrays(x, y, hyper, *more.values()))))


def automatic(
    path: Any, count: Any, key: jax.Array, x: Any, y: Any, hyper: Mapping[str, Any] | None, length: int, **more: Any
) -> np.ndarray:
    """The `sequence` of a path, found by its own program of `length` values. The other arguments are those of `critical`."""
    alone = path.fit
    if _steps_by_subgradients(alone):
        return spaced(path, count, critical(alone, path.name, key, x, y, hyper, **more))
    x, y, more = _checked_arguments(path, path.name, key, x, y, hyper, **more)
    hyper = {name: 0 if name == "restart" else value for name, value in (hyper or {}).items() if name != path.name}
    arguments = _shared.arrays(x, y, hyper, *more.values())
    search = Search(lambda values: path.along(values, *arguments, key=key), length, _rows(alone, arguments))
    return spaced(path, count, largest(path, path.name, search))


def spaced(fit: Any, count: Any, first: float) -> np.ndarray:
    """Weights (count,), geometric from the first down to the first times the ratio of a path, or `RATIO`."""
    return np.geomspace(first, first * getattr(fit, "ratio", RATIO), int(count))


def largest(fit: Any, name: str, search: Search) -> float:
    """The largest weight of a sequence. Raises ValueError where there is none."""
    alone, penalty = _alone(fit), penalty_of(fit, name)
    null = jax.tree.map(lambda leaf: np.asarray(leaf)[0], search.run(np.full(search.length, _HUGE)))
    if int(null.status) & Status.DIVERGED:
        raise ValueError(f"{name}: the fit without these coefficients diverged; want values, or other data")
    marked = alone.model.penalized(null.params)[penalty.part]
    weight, seen = _judge(alone, penalty, null.params, search.rows)

    def emptied(params: Any) -> np.ndarray:
        """At which of the weights that lead none of the coefficients is left."""
        each = [(leaf == 0) | ~s for leaf, s in zip(chosen(params[penalty.part], marked), seen, strict=True)]
        empty: np.ndarray = np.all([here.reshape(len(here), -1).all(axis=1) for here in each], axis=0)
        return empty

    if not _steps_by_subgradients(alone) and not emptied(jax.tree.map(lambda leaf: leaf[None], null.params)).all():
        raise ValueError(f"{name}: {alone!r} brings no coefficient to 0, whatever its weight; want values")
    first = _checked(name, penalty, float(weight))
    return _doubled(fit, first, search, emptied) if _ascends(fit) and name == fit.name else first


def _doubled(path: Any, first: float, search: Search, emptied: Callable[[Any], np.ndarray]) -> float:
    """The weight, doubled from the critical one, at which a path that comes from the smallest has no coefficients left.

    A path of few values runs from there several times.
    """
    room = search.length - 1
    for at in range(0, len(_DOUBLES), room):
        doubles = first * _DOUBLES[at : at + room]
        repeats = np.full(room - len(doubles), doubles[-1])
        weights = np.concatenate([[first * path.ratio], doubles, repeats])
        empty = emptied(jax.tree.map(np.asarray, search.run(weights).params))
        if empty.any():
            return float(max(weights[empty.argmax()], first))
    return first


def _judge(fit: Any, penalty: Any, params: Any, rows: Rows) -> tuple[Any, list[np.ndarray]]:
    """The critical weight where `params` are the null fit's, and of all coefficients which ones the penalty sees."""
    judged = _judged if is_hashable((fit, penalty)) else _judged.__wrapped__  # type: ignore[attr-defined]
    weight, seen = judged(fit, penalty, params, rows)
    return weight, [np.asarray(each) for each in seen]


@partial(_cache.jit, n_static=2, quick=True)
def _judged(fit: Any, penalty: Any, params: Any, rows: Rows) -> tuple[jax.Array, list[jax.Array]]:
    model = fit.model
    params = _without(model, penalty, params)
    total = total_weight(rows.weights, rows.y)
    data = Data(model.prepare(rows.x), rows.y, rows.offset, rows.leader, total, hyper=rows.hyper)
    if rows.division is not None:
        shared = _starts.shared_rows(rows.division, model.active(params), rows.leader, rows.y.dtype)
        data = data._replace(division=shared)
    trained, rest = split(params, model.trainable(params))
    slope = jax.grad(lambda t: fit.loss.value(model, merge(t, rest), data, normalized(rows.weights, rows.y)))
    gradient = merge(slope(trained), jax.tree.map(jnp.zeros_like, rest))
    marked = model.penalized(params)[penalty.part]
    seen = [left == 0 for left in _left(penalty, chosen(params[penalty.part], marked))]
    return penalty.critical(chosen(gradient[penalty.part], marked)), seen


def _rows(fit: Any, arguments: tuple[Any, ...]) -> Rows:
    x, y, hyper, weights, offset, leader, start = arguments
    return Rows(x, y, weights, offset, leader, held(fit, start), hyper)


def held(fit: Any, start: Any) -> Any:
    """The responsibilities (n, K) that the loss holds, of what is given as start; None for a loss that holds none."""
    return start if fit.loss.complete and not isinstance(start, dict) else None


def _checked_arguments(
    fit: Any,
    name: str,
    key: Any,
    x: Any,
    y: Any,
    hyper: Any,
    weights: Any = None,
    offset: Any = None,
    groups: Any = None,
    start: Any = None,
) -> tuple[Any, Any, dict[str, Any]]:
    """x, y and further arguments of a fit, start as responsibilities (n, K) for a function of x.

    Raises ValueError as `critical`.
    """
    if not penalty_of(fit, name).has_critical:
        refuse(fit, name, key, x)
    if any(_checks.is_traced(leaf) for leaf in jax.tree.leaves((key, x, y, hyper, weights, offset, groups, start))):
        raise ValueError(f"{name}: how many weights are wanted was given inside a compiled function; want the weights")
    check_key(key)
    check_hyper = getattr(fit, "check_hyper", None)
    if check_hyper is not None:
        check_hyper({} if hyper is None else hyper)
        _shared.check_single({n: v for n, v in (hyper or {}).items() if n != name or not _is_path(fit)})
    x, y, *rest = _shared.natives(x, y, weights, offset, groups, parts_of(start))
    more = dict(zip(("weights", "offset", "groups", "start"), rest, strict=True))
    if hasattr(fit, "check_data"):
        fit.check_data(x, y, *more.values())
    refuse(fit, name, key, x)
    if callable(start):
        more["start"] = _division.resolved("start", start, x, fit.model.n_experts)
    return x, y, more


def refuse(fit: Any, name: str, key: Any, x: Any) -> None:
    """Raise ValueError, before anything compiles, for a penalty that has no critical weight, or sees no coefficient."""
    penalty = penalty_of(fit, name)
    if not penalty.has_critical:
        raise ValueError(f"{name}: {penalty!r} knows no critical weight; want values")
    params = jax.eval_shape(fit.model.init, key, floating(x))
    coefficients = chosen(params[penalty.part], fit.model.penalized(params)[penalty.part])
    traced = jax.make_jaxpr(penalty.critical)(coefficients)
    out = traced.jaxpr.outvars[0]
    known = zip(traced.jaxpr.constvars, traced.consts, strict=True)
    for weight in [out.val] if hasattr(out, "val") else [value for var, value in known if var is out]:
        _checked(name, penalty, float(weight))  # what it is whatever the gradients are


def _checked(name: str, penalty: Any, weight: float) -> float:
    if np.isinf(weight):
        raise ValueError(f"{name}: {penalty!r} has no critical weight, for it brings no coefficient to 0; want values")
    if not weight > 0:
        raise ValueError(f"{name}: the critical weight is {weight}, so nothing depends on this part; want values")
    return weight


def is_hashable(fit: Any) -> bool:
    """Whether it can name a compiled program."""
    try:
        hash(fit)
    except TypeError:
        return False
    return True


def _is_path(fit: Any) -> bool:
    return hasattr(fit, "inner_axis")


def _alone(fit: Any) -> Any:
    """The fit of which a path is made, or the fit."""
    return fit.fit if _is_path(fit) else fit


def _ascends(fit: Any) -> bool:
    """Whether it is a path from below along which coefficients come to be 0."""
    return _is_path(fit) and not fit.descending and not _steps_by_subgradients(fit.fit)


def _steps_by_subgradients(fit: Any) -> bool:
    """Whether a fit brings no coefficient to 0."""
    return isinstance(fit, GradientFit) and not fit.has_exact_zeros


@dataclass(frozen=True)
class _Without(Loss):
    """A loss that does not see the coefficients that a penalty would bring to 0."""

    loss: Loss
    penalty: Penalty

    @property
    def has_likelihood(self) -> bool:
        """As of the loss."""
        return self.loss.has_likelihood

    @property
    def takes_groups(self) -> bool:
        """As of the loss."""
        return self.loss.takes_groups

    @property
    def complete(self) -> bool:
        """As of the loss."""
        return self.loss.complete

    @property
    def hyper(self) -> Mapping[str, float]:
        """As of the loss."""
        return self.loss.hyper

    def value(self, model: Any, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """That of the loss."""
        return self.loss.value(model, _without(model, self.penalty, params), data, weights)


def _without(model: Any, penalty: Any, params: Any) -> Any:
    """Params with 0 for each coefficient that an infinite step of the penalty makes 0."""
    part = params[penalty.part]
    marked = model.penalized(params)[penalty.part]
    coefficients = chosen(part, marked)
    left = _left(penalty, coefficients)
    return {
        **params,
        penalty.part: replaced(part, marked, [jnp.where(v == 0, 0, c) for v, c in zip(left, coefficients, strict=True)]),
    }


def _left(penalty: Any, coefficients: list[Any]) -> list[jax.Array]:
    """What an infinite step of the penalty leaves of coefficients of 1."""
    left: list[jax.Array] = penalty.prox([jnp.ones_like(c) for c in coefficients], jnp.inf)
    return left


def penalty_of(fit: Any, name: str) -> Any:
    """The penalty of that name. Raises ValueError where there is none."""
    if not isinstance(getattr(fit, "penalties", None), tuple):
        raise ValueError(f"fit: {_checks.shown(fit)} was given, which has no penalties; want a fit, as from fit_em")
    known = {penalty.name: penalty for penalty in fit.penalties}
    if not isinstance(name, str) or name not in known:
        given = f"{_checks.shown(name)} was given, which is no weight of a penalty"
        raise ValueError(f"name: {given}; want one of {list(known)}")
    return known[name]


def parts_of(params: Any) -> Any:
    """Params without what a number in `hyper` adds to them, as `start` wants them."""
    return {name: params[name] for name in params if name in PARTS} if isinstance(params, dict) else params


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}
