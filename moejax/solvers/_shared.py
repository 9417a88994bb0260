"""What all solvers share: the call of a fit, its checks, and what penalties add to objective and optimality.

A fit here is a record with `model`, `loss`, `penalties`, `hyper` (names with defaults), `check_hyper` and `check_data`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks, penalties
from moejax._contracts import check_capabilities
from moejax._trees import chosen
from moejax.model import (
    PARTS,
    Data,
    Model,
    check_model,
    checked,
    floating,
    group_numbers,
    leaders,
    native,
    on_device,
    widened,
    without_absent,
)
from moejax.model._arguments import dtype_of
from moejax.solvers import _division
from moejax.solvers._arguments import check_data, check_key
from moejax.solvers._result import normalized

Hyper = dict[str, Any]


def arguments(
    fit: Any, key: Any, x: Any, y: Any, hyper: Hyper | None, weights: Any, offset: Any, groups: Any, start: Any
) -> tuple[Any, ...]:
    """What a fit was called with, checked, in arrays of the type of x: key, x, y, hyper, weights, offset, leader, start.

    A start is then params or responsibilities (n, K).
    """
    check_key(key)
    x, y, weights, offset, groups, start = natives(x, y, weights, offset, groups, start)
    hyper = {} if hyper is None else hyper
    fit.check_hyper(hyper)
    check_single(hyper)
    fit.check_data(x, y, weights, offset, groups, start)
    check_within(hyper, x)
    start = _division.resolved("start", start, x, fit.model.n_experts)
    return key, *arrays(x, y, hyper, weights, offset, groups, start)


def check_single(hyper: Mapping[str, Any]) -> None:
    """Raise ValueError for a field of `hyper` that is not one number."""
    for name, value in hyper.items():
        _checks.shape(f"hyper[{name!r}]", value, (), "one number; `sweep` takes many")


def check_within(hyper: Mapping[str, Any], x: Any) -> None:
    """Raise ValueError for numbers of `hyper` that the type of x does not hold."""
    first = jax.tree.leaves(x)[0]
    if _checks.is_traced(first):
        return
    dtype = dtype_of(first)
    for name, value in hyper.items():
        if name != "restart":
            _checks.within(f"hyper[{name!r}]", value, dtype)


def natives(x: Any, y: Any, weights: Any, offset: Any, groups: Any, start: Any) -> tuple[Any, ...]:
    """The data of a fit as they count: what checks see, and all that comes after.

    NumPy's arrays are in the byte order of this machine, weights are such as float32 holds, rows of weight 0 are copies of
    another one, and groups are numbers. Raises ValueError where entries are masked, or a row has no group.
    """
    named = {"x": x, "y": y, "weights": weights, "offset": offset, "start": start}
    x, y, weights, offset, start = (native(name, value) for name, value in named.items())
    if weights is not None and not _checks.is_traced(weights):
        _checks.real("weights", weights)
    weights, groups = _checks.scaled(weights), group_numbers(groups, weights)
    has_rows = not (isinstance(start, dict) or callable(start))  # as responsibilities have
    x, y, offset, shares = without_absent(weights, x, y, offset, start if has_rows else None)
    return x, y, weights, offset, groups, shares if has_rows else start


@contextlib.contextmanager
def one_start(start: Any, params: Any, responsibilities: Any) -> Iterator[Any]:
    """Where a fit starts, of the three arguments that may say so, of which at most one is given.

    Yields params as a dict, or responsibilities, or None. Errors raised within name the argument that was given.
    """
    named = {"start": start, "start_params": params, "start_responsibilities": responsibilities}
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise ValueError(f"{given[1]}: given beside {given[0]}; want only one of them")
    if params is not None and not isinstance(params, dict):
        what = type(params).__name__
        raise ValueError(
            f"start_params: a {what} was given; want params as model.init makes them, or start_responsibilities"
        )
    if isinstance(responsibilities, dict):
        raise ValueError(
            "start_responsibilities: a dict was given; want an array (n, K) or a function of x, or start_params"
        )
    try:
        begin = named[given[0]] if given else None
        # Without what a number in `hyper` adds to params, so that those of any fit may be given.
        yield {name: begin[name] for name in begin if name in PARTS} if isinstance(begin, dict) else begin
    except ValueError as error:
        if given and given[0] != "start" and re.match(r"start\b", str(error)):
            raise ValueError(given[0] + str(error).removeprefix("start")) from error
        raise


def arrays(
    x: Any, y: Any, hyper: Hyper, weights: Any, offset: Any, groups: Any, start: Any
) -> tuple[Any, Any, Hyper, Any, Any, Any, Any]:
    """The arguments x, y, hyper, weights, offset, leader and start in arrays of the type of x, which are copies.

    A fit still runs when its call has returned, and must not see what becomes of the caller's NumPy arrays then.
    """
    x = _own(x)
    dtype = jax.tree.leaves(x)[0].dtype
    y, weights, offset = (None if v is None else array(v, dtype) for v in (y, weights, offset))
    hyper = {name: array(value, np.int32 if name == "restart" else dtype) for name, value in hyper.items()}
    return x, y, hyper, weights, offset, None if groups is None else leaders(groups), _started(start, dtype)


def _started(start: Any, dtype: Any) -> Any:
    """Params, or responsibilities as an array, that nobody else changes."""
    return start if start is None else _copied(native("start", start)) if isinstance(start, dict) else array(start, dtype)


def _own(x: Any) -> Any:
    """`floating` of arrays that are nobody else's; an array that is right already costs no more than its copy."""
    x = jax.tree.map(lambda leaf: widened(leaf) if isinstance(leaf, np.ndarray | jax.Array) else leaf, native("x", x))
    is_array = type(x) is np.ndarray or isinstance(x, jax.Array)  # other kinds of arrays are JAX's to judge
    if is_array and x.dtype.kind == "f" and jax.dtypes.canonicalize_dtype(x.dtype) == x.dtype:
        return _copied(x)
    return floating(_copied(x))


def _copied(tree: Any) -> Any:
    return jax.tree.map(lambda v: v.copy() if isinstance(v, np.ndarray) else v, tree)


def array(value: Any, dtype: Any) -> Any:
    """An array of that type: NumPy's unless it is JAX's already, which takes compiled code less time than `jnp.asarray`."""
    return value.astype(dtype) if isinstance(value, jax.Array) else np.array(value, dtype)


def check_hyper(fit: Any, hyper: Hyper) -> None:
    """Raise ValueError for a name that means nothing to the fit, or a number that it cannot have (any shape is taken)."""
    if not isinstance(hyper, Mapping):
        raise ValueError(f"hyper: {_checks.shown(hyper)} was given; want a mapping from names to numbers")
    for name, value in hyper.items():
        if not isinstance(name, str) or name not in fit.hyper:
            raise ValueError(f"hyper: {name!r} was given; want names among {sorted(fit.hyper)}")
        if name in fit.model.hyper:
            fit.model.check_hyper(name, value)
        elif name == "restart":
            _checks.whole("hyper['restart']", value, 0, 2**31 - 1)
        else:
            (_checks.positive if name == "learning_rate" else _checks.not_negative)(f"hyper[{name!r}]", value)
    _check_penalized(fit, hyper)


def _check_penalized(fit: Any, hyper: Hyper) -> None:
    """Raise ValueError for a penalty on a part that does not say which numbers are penalised."""
    parts = fit.model.parts
    for p, _ in used(fit, hyper):
        part = parts[p.part]
        if not part.declares_penalized:
            raise ValueError(
                f"{p.name}: {part.role} {part!r} has no coefficients that penalties see; want one that declares them, by "
                "`penalized(params)`, a tree like params of True and False"
            )


def checked_rows(fit: Any, x: Any, y: Any, weights: Any, offset: Any, groups: Any, start: Any) -> int:
    """Raise ValueError unless the fit's model and loss can be fitted to these; else return the number of rows."""
    is_params = isinstance(start, dict)
    n = check_data(fit.model, x, y, weights, offset, groups, start if is_params else None)
    if fit.loss.complete and (start is None or is_params):
        given = "params were" if is_params else "nothing was"
        raise ValueError(f"start: {given} given for {fit.loss!r}; want the responsibilities that it holds, (n, K)")
    if not is_params:
        _division.resolved("start", start, x, fit.model.n_experts)
    return n


def score(model: Any, loss: Any, params: Any, x: Any, y: jax.Array, weights: Any, offset: Any, groups: Any) -> jax.Array:
    """The weighted mean loss without penalties, by which selection compares: lower is better."""
    params, x, y, weights, offset, groups = scored(model, params, x, y, weights, offset, groups)
    leader = None if groups is None else leaders(groups)
    data = Data(model.prepare(x), y, offset, leader, hyper=dict(loss.hyper))
    mean: jax.Array = loss.score(model, params, data, normalized(weights, y))
    return mean


def scored(model: Any, params: Any, x: Any, y: Any, weights: Any, offset: Any, groups: Any) -> tuple[Any, ...]:
    """What a score is computed from, checked, in the same order without the model."""
    _checks.present("y", y)
    weights = None if weights is None else _checks.scaled(native("weights", weights))
    x, y, offset = without_absent(weights, x, y, offset)
    params, x, y, offset = checked(model, params, x, y, offset)
    if weights is not None:
        _checks.check_weights(weights, y.shape[0])
        weights = on_device(weights)
    if groups is not None:
        groups = group_numbers(groups, weights)
        _checks.shape("groups", groups, y.shape[:1], "the group of each row")
    return params, x, y, weights, offset, groups


def used(fit: Any, hyper: Hyper, part: str | None = None) -> list[tuple[Any, Any]]:
    """Penalties whose weight is set, with it. One that nobody set costs nothing: it is not even in the program."""
    return [(p, hyper[p.name]) for p in fit.penalties if p.name in hyper and part in (None, p.part)]


def penalty(fit: Any, params: Any, hyper: Hyper, part: str | None = None) -> jax.Array | float:
    """What penalties add to the objective, those of one part or of all."""
    marked = fit.model.penalized(params)
    return sum((w * p.value(chosen(params[p.part], marked[p.part])) for p, w in used(fit, hyper, part)), 0.0)


def determined(fit: Any, hyper: Hyper) -> jax.Array:
    """Whether penalties alone determine every coefficient of the experts, as a ridge does."""
    bends = [w * jnp.min(p.curvature(jnp.ones((1, 1)))) for p, w in used(fit, hyper, "experts")]
    found: jax.Array = sum(bends, jnp.zeros(())) > 0
    return found


def free_slopes(fit: Any, params: Any, gradient: Any, target: Any) -> Any:
    """The gradient with 0 for numbers of the family that a constraint holds, whose slope no optimum could get rid of."""
    if fit.model.family is None:
        return gradient
    held = fit.model.family.held(fit.model.phi(params), target)
    return {**gradient, "family": jax.tree.map(lambda g, h: jnp.where(h, 0, g), gradient["family"], held)}


def checked_penalties(given: Any) -> tuple[penalties.Penalty, ...]:
    """Penalties as a tuple, one of them alone too. Raises ValueError for what is none."""
    penalty = penalties.completed_all(given)
    for each in penalty:
        check_capabilities(each)
    return penalty


def check_parts(model: Model) -> None:
    """Raise ValueError for what is no model, or for a part that has some methods of a capability and not all."""
    check_model(model)
    for part in model.parts.values():
        check_capabilities(part)
