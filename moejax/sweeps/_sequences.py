"""Automatic sequences of weights for the axes of a sweep, found by the sweep's own program."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from moejax.solvers import _sequence
from moejax.sweeps._axes import EVERY_ROW, NO_SAMPLE, ROW_AXES
from moejax.sweeps._inputs import Inputs, typed
from moejax.sweeps._program import Program

if TYPE_CHECKING:
    from moejax.sweeps._sweep import Sweeper

_WHOLE = {"restart": 0, "fold": EVERY_ROW, "bootstrap": NO_SAMPLE}  # the member from which weights come


def with_sequences(sweeper: Sweeper, inputs: Inputs, more: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], float]:
    """Replace the number of weights of an axis by an automatic sequence of weights.

    The sequence is computed from all rows and is therefore the same for all folds.

    Parameters
    ----------
    sweeper : Sweeper
        The configured sweep; an axis without dimensions is a number of weights.
    inputs : Inputs
        The checked inputs.
    more : list of dict
        Further arguments of the fit, one dictionary for each start. The sequence with the largest first weight is used.

    Returns
    -------
    axes : dict of numpy.ndarray
        The axes, with values (V,) everywhere.
    seconds : float
        Seconds in which the program of the sweep was compiled.

    Raises
    ------
    ValueError
        If a penalty has no critical weight. The error is raised before anything compiles, unless it depends on the data.
    """
    axes, fit, program = dict(sweeper.axes), sweeper.fit, None
    counts = {name: int(values) for name, values in axes.items() if not values.ndim}
    for name in counts:
        _sequence.refuse(fit, name, inputs.key, inputs.x)
    only = {n: v[0] for n, v in axes.items() if n not in ("restart", *ROW_AXES) and v.shape == (1,)}
    seconds = 0.0
    for name, count in counts.items():
        if _finds(sweeper, name):
            if program is None:
                started = time.perf_counter()
                program = _program(sweeper, inputs)
                seconds = time.perf_counter() - started
            each = [_largest(sweeper, program, inputs, name, place) for place in range(len(more))]
            axes[name] = _sequence.spaced(fit, count, max(each))
        else:
            lone = [_sequence.sequence(fit, name, count, inputs.key, inputs.x, inputs.y, only, **one) for one in more]
            axes[name] = max(lone, key=np.max)
    return axes, seconds


def _inner(sweeper: Sweeper) -> str | None:
    """Return the axis that the fit takes all at once, if it has one."""
    return getattr(sweeper.fit, "inner_axis", None)


def _finds(sweeper: Sweeper, name: str) -> bool:
    """Tell whether the program of the sweep can find the weights of this axis, and is then not compiled twice."""
    fit = sweeper.fit
    known = {*getattr(fit, "hyper", {}), *ROW_AXES}
    mine = _inner(sweeper) in (None, name) and set(sweeper.axes) <= known
    return mine and _sequence.is_shared(fit) and _sequence.is_hashable(fit)


def _program(sweeper: Sweeper, inputs: Inputs) -> Program:
    """Return the program of the sweep on its first device."""
    inner = _inner(sweeper)
    if inner is not None:
        inputs = inputs._replace(inner=typed({inner: np.zeros(int(sweeper.axes[inner]))}, inputs)[inner])
    outer = tuple(name for name in sweeper.axes if name != inner)
    return Program(sweeper.fit, outer, inputs, sweeper.chunk_of(inputs), sweeper.used_devices()[0], sweeper.optimize)


def _largest(sweeper: Sweeper, program: Program, inputs: Inputs, name: str, place: int) -> float:
    """Return the largest weight of the sequence of an axis, for the start at that place."""
    inner, chunk = _inner(sweeper), sweeper.chunk_of(inputs)
    member = _member(sweeper, name, place)

    def run(weights: np.ndarray) -> Any:
        values = member if inner is not None else {**member, name: weights[0]}
        along = None if inner is None else typed({inner: weights}, inputs)[inner]
        fits, _ = program(typed({n: np.full(chunk, v) for n, v in values.items()}, inputs), along)
        return jax.tree.map(lambda leaf: leaf[:1] if inner is None else leaf[0], fits)

    length = 1 if inner is None else int(sweeper.axes[inner])
    hyper = typed({n: np.asarray(v) for n, v in member.items() if n not in ROW_AXES}, inputs)
    start = inputs.start[place] if sweeper.divisions else inputs.start
    held = _sequence.held(sweeper.fit, start)
    rows = _sequence.Rows(inputs.x, inputs.y, inputs.weights, inputs.offset, inputs.leader, held, hyper)
    return _sequence.largest(sweeper.fit, name, _sequence.Search(run, length, rows))


def _member(sweeper: Sweeper, name: str, place: int) -> dict[str, Any]:
    """Return the values of the member from which the weights of an axis come, on the other axes.

    It is restart 0 on all rows, and has the only value of each other axis, or the default.
    """
    fit: Any = sweeper.fit
    defaults = (fit if _inner(sweeper) is None else fit.fit).hyper
    member: dict[str, Any] = {}
    for axis, values in sweeper.axes.items():
        if axis == "division":
            member[axis] = place
        elif axis in _WHOLE:
            member[axis] = _WHOLE[axis]
        elif axis != name:
            member[axis] = values[0] if values.shape == (1,) else defaults[axis]
    return member
