"""Sweeps: a fit over a product of named axes, as one compiled program run chunk by chunk.

This is the only place that knows of members, chunks, devices, threads, progress and resuming; nothing below it knows that
it is being swept.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import operator
import os
import queue
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _cache, _check, _keys, division
from moejax.fit import Fit, Status, check_groups, check_key, check_weights, describe
from moejax.model import floating, leaders
from moejax.path import is_count, sequence

ROW_AXES = ("fold", "bootstrap", "division")  # they say something of the rows, and are no fields of `hyper`
EVERY_ROW = -2  # on the axis `fold`: trains on all rows
_STREAMS = {"fold": 0x666F6C64, "bootstrap": 0x626F6F74}  # of the key, apart from those that a fit draws

# XLA groups reductions into library calls, which suits some of these programs (a constant gate loses a fifth of its speed
# without, EM a tenth) and harms others (a softmax gate's gradient steps gain a little, a top-1 gate's half as much again,
# and these are the ones that take long); and its vectors are half as wide as many processors'. A version that lacks one of
# these options runs without them.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_prefer_vector_width": 512}
# Without optimisation programs compile in a fraction of the time and run several times as long; what that comes to by the
# number of rows, benchmarks/first_fit.py prints.
_QUICK_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
# By kind of device, what the work arrays of a chunk should fit into (a core's cache; a part of an accelerator's memory),
# and the least and most members that it may have. Of fits that end at different times a chunk runs half at once, and at
# the end waits for the last: it is better small.
_CHUNK_BYTES = {"cpu": (2**20, 8, 128), "cpu uneven": (2**20, 2, 32), "other": (2**32, 1, 1024)}


class Inputs(NamedTuple):
    """What all members share. start: that of a fit or, for the axis `division`, responsibilities (D, n, K). fold_of_row:
    the fold in which each row is held out, -1 for none. leader: the first row of each row's group. inner: the values of the
    axis that the fit takes all at once.
    """

    key: jax.Array
    x: Any
    y: Any
    weights: Any = None
    offset: Any = None
    start: Any = None
    fold_of_row: Any = None
    leader: Any = None
    inner: Any = None


@dataclass(frozen=True)
class Run:
    """How a sweep was run. seconds: "compile" and "run", by the wall clock. chunk_size: results depend on it bit by bit."""

    chunk_size: int
    devices: tuple[str, ...]
    threads: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Sweep:
    """The labelled result of a sweep: arrays whose leading axes are the sweep's axes, in their order.

    axes: the values by the name of each axis. fits: what the fit returned, in NumPy arrays with the axes leading.
    held_out: each member's loss, without penalties, on the rows that it did not train on (a mean over them); None without
    an axis `fold` or a `score` of the fit. sweeper, inputs, run: what was run, on what, and how. fixed: values that
    `sel` and `isel` took, by axis.
    """

    axes: dict[str, np.ndarray]
    fits: Any
    held_out: np.ndarray | None
    sweeper: Sweeper = field(repr=False)
    inputs: Inputs = field(repr=False)
    run: Run
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values on each axis."""
        return tuple(len(v) for v in self.axes.values())

    def sel(self, **at: Any) -> Sweep:
        """The members at the given values, as in `result.sel(l1_experts=0.01, restart=3)`; these axes go.

        Raises KeyError for a name that is no axis, and for a value that is not on it (to a relative 1e-6).
        """
        return self.isel(**{name: self._position(name, value) for name, value in at.items()})

    def isel(self, **at: int) -> Sweep:
        """The members at the given positions along axes; these axes go.

        Raises KeyError for a name that is no axis, TypeError for a position that is no whole number, and IndexError for
        one beyond the axis.
        """
        fixed = {**self.fixed, **{name: self._axis(name)[operator.index(i)] for name, i in at.items()}}
        index = tuple(at.get(name, slice(None)) for name in self.axes)
        left = {name: values for name, values in self.axes.items() if name not in at}
        fits = jax.tree.map(lambda v: v[index], self.fits)
        held_out = None if self.held_out is None else self.held_out[index]
        return dataclasses.replace(self, axes=left, fits=fits, held_out=held_out, fixed=fixed)

    def table(self) -> dict[str, np.ndarray]:
        """Columns with a row for each member: its place on the axes, each field of a fit that is one number, `held_out`."""
        grid = np.meshgrid(*self.axes.values(), indexing="ij")
        columns = {name: values.ravel() for name, values in zip(self.axes, grid, strict=True)}
        fields = self.fits._asdict() if hasattr(self.fits, "_asdict") else self.fits
        for name, v in fields.items() if isinstance(fields, dict) else ():
            if getattr(v, "shape", None) == self.shape:
                columns.setdefault(name, np.ravel(v))
        if self.held_out is not None:
            columns["held_out"] = np.ravel(self.held_out)
        return columns

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` to a file, statuses in words."""
        columns = self.table()
        if isinstance(self.fits, Fit):
            columns["status"] = np.asarray([describe(s) for s in columns["status"]])
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))

    def _axis(self, name: str) -> np.ndarray:
        if name not in self.axes:
            raise KeyError(f"{name!r} is no axis of this sweep; want one of {list(self.axes)}")
        return self.axes[name]

    def _position(self, name: str, value: Any) -> int:
        values = self._axis(name)
        if values.dtype.kind == "U":
            if value not in values:
                raise KeyError(f"{name}: {value!r} is not on this axis; want one of {values.tolist()}")
            return values.tolist().index(value)
        nearest = int(np.abs(np.subtract(values, value, dtype=float)).argmin())
        if not np.isclose(values[nearest], value, rtol=1e-6, atol=0):
            raise KeyError(f"{name}: {value!r} is not on this axis; want one of {values.tolist()}")
        return nearest


@dataclass(frozen=True, eq=False)
class Sweeper:
    """A sweep, configured by `sweep`; call it with what a single fit is called with.

    axes: the values by name; where a number of weights was asked for, that number, of no dimension, until it is called.
    divisions: those of the axis of that name, by the values that stand for them there.
    """

    fit: Callable[..., Any]
    axes: dict[str, np.ndarray]
    divisions: dict[Any, Any]
    fold_of_row: np.ndarray | None
    chunk_size: int | None
    devices: tuple[Any, ...] | None
    threads: int | None
    progress: bool | None
    checkpoint: Path | None
    optimize: bool

    def __call__(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        *,
        weights: Any = None,
        offset: Any = None,
        groups: Any = None,
        start: Any = None,
    ) -> Sweep:
        """Fit every member of the product of the axes; all of them share these arguments, which are those of a fit.

        The rows of a group share their expert, and so are held out together and drawn together.

        Raises ValueError, before the sweep compiles, for what a fit refuses, for a fold without rows and for one that holds
        a part of a group; and FloatingPointError if every member diverged.
        """
        if start is not None and self.divisions:
            raise ValueError("start: given beside the axis 'division', whose members start from theirs; want one of them")
        if start is not None and len(self.axes.get("restart", ())) > 1:
            raise ValueError("start: params were given beside the axis 'restart', whose members would all start there")
        begins = self._resolved(x) if self.divisions else [start]
        if hasattr(self.fit, "check_data"):
            for begin in begins:
                self.fit.check_data(x, y, weights, offset, groups, begin)
        if callable(start):
            begins = [division.resolved("start", start, x, _n_experts(self.fit))]
        laid = jnp.stack([jnp.asarray(begin) for begin in begins]) if self.divisions else begins[0]
        inputs = _inputs(Inputs(key, x, y, weights, offset, laid, self.fold_of_row, groups), self.axes)
        more = [{"weights": weights, "offset": offset, "groups": groups, "start": begin} for begin in begins]
        axes = _with_sequences(self.fit, self.axes, inputs, more)
        return dataclasses.replace(self, axes=axes).run(inputs)

    def _resolved(self, x: Any) -> list[Any]:
        """The responsibilities (n, K) of each division. Raises ValueError where they are none."""
        count, named = _n_experts(self.fit), self.divisions.items()
        return [division.resolved(f"axes['division'][{name!r}]", given, x, count) for name, given in named]

    def coded(self, axes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values of axes as numbers: those of divisions by their place."""
        places = {name: place for place, name in enumerate(self.divisions)}
        return {
            name: np.asarray([places[v] for v in values.tolist()]) if name == "division" else values
            for name, values in axes.items()
        }

    def run(self, inputs: Inputs) -> Sweep:
        """The sweep on inputs that were checked before."""
        inner = getattr(self.fit, "inner_axis", None)
        if inner is not None:
            inputs = inputs._replace(inner=_typed({inner: self.axes[inner]}, inputs)[inner])
        outer = {name: values for name, values in self.axes.items() if name != inner}
        shape = tuple(len(v) for v in outer.values())
        count = int(np.prod(shape))
        members = _members(self.coded(outer))
        devices = self.devices or tuple(jax.local_devices())
        started = time.perf_counter()
        store = _Store(self.checkpoint, _identity(self, inputs, devices[0].platform)) if self.checkpoint else None
        chunk = (store and store.chunk_size) or self.chunk_size or _chunk_size(self.fit, inputs, devices[0].platform)
        threads = self.threads or _threads_per_device(devices)
        programs = [_Program(self.fit, tuple(outer), inputs, chunk, device, self.optimize) for device in devices]
        compiled = time.perf_counter()
        if store:
            store.begin(chunk)
        starts = range(0, count, chunk)
        outputs = _run_chunks(programs, threads, members, chunk, starts, store, self.progress)
        seconds = {"compile": compiled - started, "run": time.perf_counter() - compiled}
        fits, held_out = jax.tree.map(lambda *v: np.concatenate(v)[:count].reshape(shape + v[0].shape[1:]), *outputs)
        if inner is not None:  # it leads the result of each member, and goes to its place among the axes
            place = list(self.axes).index(inner)
            fits, held_out = jax.tree.map(lambda v: np.moveaxis(v, len(shape), place), (fits, held_out))
        _refuse_if_all_diverged(fits)
        run = Run(chunk, tuple(str(d) for d in devices), threads, seconds)
        return Sweep(dict(self.axes), fits, held_out, self, inputs, run)


def sweep(
    fit: Callable[..., Any],
    axes: Mapping[str, Any],
    *,
    chunk_size: int | None = None,
    devices: Sequence[Any] | None = None,
    threads: int | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    optimize: bool = True,
) -> Sweeper:
    """A fit over the product of named axes, compiled once.

    fit: from `fit_em`, `fit_gradient` or `path`, or any pure function fit(key, x, y, hyper, **more) -> pytree of arrays,
    where more are the
    `weights`, `offset`, `groups` and `start` that the sweep has. One that has an `inner_axis`, like those of `path`, takes
    all values of that axis at once, and its results have them leading; in the sweep it is an axis like the others, with
    the default of `hyper` where it is not given. axes, by name:

    - any field of the fit's `hyper`: a sequence of numbers, which reach the fit in the type of x (`restart`, the number
      of a start, is whole and may be given as how many; every penalty then has the same starts). The weight of a penalty
      may be given as how many, at least 2: from a weight at which on all rows all its coefficients are 0 (see
      `moejax.path.sequence`) down to a thousandth of it (or to the ratio of the path), the same for all members. Other
      fields count there with their only value, or their default;
    - `fold`: how many folds (drawn from the key, of sizes that differ by at most 1), or (n,) whole numbers: the fold in
      which each row is held out, -1 for rows that never are. Members train on the other rows, by weights;
    - `bootstrap`: how many samples with replacement (Efron 1979), as weights;
    - `division`: what members are given as `start` (see `moejax.division`): a mapping from names to responsibilities (n, K)
      or functions of x, or a sequence of them, which are then numbered. An automatic sequence of weights serves all of them.

    Where rows come in groups, whole groups are held out and drawn in the place of rows.

    chunk_size: members a call of the program, the last call padded; chosen from the number of rows, never from that of
    members, unless given. devices: JAX devices, each of which gets whole chunks; all local ones unless given. threads:
    chunks that run at once on each device; unless given, the cores divided among the devices on a CPU, and 1 elsewhere.
    progress: a progress bar over chunks; unless given, where standard error is a terminal. checkpoint: a folder that keeps
    every finished chunk; a sweep that was cut off goes on from there, in chunks of the size that it began with. optimize:
    False, on a CPU, compiles in a fraction of the time what then runs several times as long: for few members of few rows.

    The same key, versions, kind of device, chunk size and `optimize` give the same bits for a member, whatever the order and
    number of members, devices or threads. (Keys of JAX's `rbg` implementation do not draw alike under `vmap`, and are
    excepted.)

    Returns a function (key, x, y, *, weights=None, offset=None, groups=None, start=None) -> Sweep. Raises ValueError for an
    axis that is empty, unknown, or has values it cannot have.
    """
    if not callable(fit):
        trained = hasattr(fit, "fit")  # an estimator
        why = (
            " (a sweep compiles, and an estimator is trained on the host: see GridSearchCV in scikit-learn)"
            if trained
            else ""
        )
        raise ValueError(f"fit: {fit!r} was given; want a function, as from fit_gradient{why}")
    if not isinstance(axes, Mapping) or not axes:
        raise ValueError(f"axes: {axes!r} was given; want a mapping from the name of at least one axis to its values")
    if chunk_size is not None:
        _check.count("chunk_size", chunk_size)
    if threads is not None:
        _check.count("threads", threads)
    if devices is not None and not len(devices):
        raise ValueError("devices: none were given; want at least one, or None for all local ones")
    inner = getattr(fit, "inner_axis", None)
    if inner is not None and inner not in axes:
        axes = {**axes, inner: fit.hyper[inner]}  # type: ignore[attr-defined]
    countable = {penalty.name for penalty in getattr(fit, "penalties", ())}
    divisions = _divisions(axes["division"]) if "division" in axes else {}
    axes = {**axes, "division": np.asarray(list(divisions))} if divisions else axes
    values = {name: _axis_values(name, given, name in countable) for name, given in axes.items()}
    if hasattr(fit, "check_hyper"):
        fit.check_hyper({name: v for name, v in values.items() if name not in ROW_AXES and v.ndim})
    return Sweeper(
        fit,
        values,
        divisions,
        _fold_labels(axes.get("fold")),
        chunk_size,
        None if devices is None else tuple(devices),
        threads,
        progress,
        None if checkpoint is None else Path(checkpoint),
        bool(optimize),
    )


# ---- axes and what members share ------------------------------------------------------------------------------------


def _n_experts(fit: Any) -> int:
    if not hasattr(fit, "model"):
        raise ValueError(f"fit: {fit!r} has no model, whose experts rows are divided among; want one, as from fit_em")
    return fit.model.n_experts


def _divisions(given: Any) -> dict[Any, Any]:
    """Divisions of the rows by name, or by number."""
    if not isinstance(given, Mapping | list | tuple) or not len(given):
        raise ValueError(
            f"axes['division']: {type(given).__name__} was given; want at least one division, in a mapping from names to "
            "responsibilities or functions of x, or in a sequence of them"
        )
    named = given if isinstance(given, Mapping) else dict(enumerate(given))
    if isinstance(given, Mapping) and not all(isinstance(name, str) for name in named):
        raise ValueError(f"axes['division']: names {list(named)} were given; want words")
    for name, each in named.items():
        if each is None or isinstance(each, Mapping):
            wanted = "responsibilities (n, K) or a function of x"
            raise ValueError(f"axes['division'][{name!r}]: {type(each).__name__} was given; want {wanted}")
    return dict(named)


def _axis_values(name: str, given: Any, countable: bool = False) -> np.ndarray:
    if countable and is_count(given):
        _check.count(f"axes[{name!r}]", given, 2)
        return np.asarray(given)
    if name in ("restart", "fold", "bootstrap") and np.ndim(given) == 0:
        _check.count(name, given, 2 if name == "fold" else 1)
        return np.arange(given)
    try:
        values = np.asarray(list(given) if isinstance(given, Iterable) and not hasattr(given, "__array__") else given)
    except ValueError:  # sequences of several lengths
        values = np.empty(0)
    if values.ndim != 1 or not values.size:
        what = repr(given) if np.size(values) < 10 else f"an array of shape {values.shape}"
        raise ValueError(f"axes[{name!r}]: {what} was given; want a sequence of at least one number")
    if name == "division":
        return values
    _check.finite(f"axes[{name!r}]", values)
    if name in ("restart", "fold", "bootstrap"):
        least = -1 if name == "fold" else 0
        whole = np.issubdtype(values.dtype, np.integer)
        if not whole or values.min() < least or values.max() > np.iinfo(np.int32).max:
            what = f"{values.dtype} numbers from {values.min()} to {values.max()} were given"
            raise ValueError(f"axes[{name!r}]: {what}; want whole numbers of at least {least} and below 2**31")
    if name == "fold":
        values = np.unique(values[values >= 0])
        if not values.size:
            raise ValueError("axes['fold']: no row is held out in any fold; want some numbers of at least 0")
    return values


def _fold_labels(given: Any) -> np.ndarray | None:
    return None if given is None or np.ndim(given) == 0 else np.asarray(given)


def _with_sequences(
    fit: Any, axes: dict[str, np.ndarray], inputs: Inputs, more: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    """The axes, with weights where how many of them were asked for; from all rows, and so the same for all folds.

    more: the other arguments of a fit, for each start; the weights are those that begin highest.
    """
    only = {n: v[0] for n, v in axes.items() if n not in ("restart", *ROW_AXES) and v.shape == (1,)}

    def weights(name: str, count: int) -> np.ndarray:
        each = [sequence(fit, name, count, inputs.key, inputs.x, inputs.y, only, **one) for one in more]
        return max(each, key=np.max)

    return {name: values if values.ndim else weights(name, int(values)) for name, values in axes.items()}


def _inputs(given: Inputs, axes: dict[str, np.ndarray]) -> Inputs:
    """Inputs as arrays of one precision, with the fold of every row, and the leader of its group where there are groups."""
    check_key(given.key)
    x = floating(given.x)
    first = next((leaf for leaf in jax.tree.leaves(x) if leaf.ndim), None)
    if first is None:
        raise ValueError("x: no array was given; want (n, d), or a pytree of arrays with n leading")
    n, dtype = first.shape[0], first.dtype
    if given.weights is not None:
        check_weights(given.weights, n)
    y, weights, offset = (None if v is None else jnp.asarray(v, dtype) for v in given[2:5])
    leader = None
    if given.leader is not None:  # labels, as the user has them
        check_groups(given.leader, given.weights, n)
        leader = leaders(given.leader)
    labels = given.fold_of_row
    if "fold" in axes:
        labels = _drawn_folds(given.key, n, len(axes["fold"]), leader) if labels is None else labels
        _check.shape("axes['fold']", labels, (n,), "the fold of every row")
        _check_folds(labels, axes["fold"], weights, leader)
    if "fold" in axes or "bootstrap" in axes:
        weights = jnp.ones(n, dtype) if weights is None else weights
    labels = None if labels is None else jnp.asarray(labels, jnp.int32)
    return Inputs(given.key, x, y, weights, offset, given.start, labels, leader)


def _drawn_folds(key: jax.Array, n: int, folds: int, leader: Any) -> np.ndarray:
    unit = np.arange(n) if leader is None else np.unique(np.asarray(leader), return_inverse=True)[1].ravel()
    units, what = int(unit.max()) + 1, "row" if leader is None else "group"
    if folds > units:
        raise ValueError(f"axes['fold']: {folds} folds were given for {units} {what}s; want at most one for each {what}")
    return np.random.default_rng([*_key_words(key), _STREAMS["fold"]]).permutation(units)[unit] % folds


def _check_folds(labels: np.ndarray, folds: np.ndarray, weights: Any, leader: Any) -> None:
    if leader is not None and (apart := labels != labels[np.asarray(leader)]).any():
        row = int(np.argmax(apart))
        raise ValueError(
            f"axes['fold']: row {row} is in fold {labels[row]} and row {int(leader[row])} of its group in fold "
            f"{labels[int(leader[row])]}; want whole groups in each fold"
        )
    counted = np.ones(len(labels), bool) if weights is None else np.asarray(weights) > 0
    for fold in folds:
        held = counted & (np.asarray(labels) == fold)
        if not held.any() or held.sum() == counted.sum():
            which = "no row of positive weight is held out" if not held.any() else "every row is held out"
            raise ValueError(f"axes['fold']: in fold {fold} {which}; want rows to train on and rows to test on")


def _key_words(key: jax.Array) -> list[int]:
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return [int(word) for word in np.ravel(np.asarray(data))]


def _members(axes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The value of every member on every axis, the last axis fastest; without axes there is one member."""
    grid = np.meshgrid(*axes.values(), indexing="ij")
    return {name: np.ravel(values) for name, values in zip(axes, grid, strict=True)}


def _slice(members: dict[str, np.ndarray], start: int, chunk: int) -> dict[str, np.ndarray]:
    """The members of one chunk, the last of them repeated where there are too few."""
    index = np.arange(start, start + chunk)
    return {name: values[np.minimum(index, len(values) - 1)] for name, values in members.items()}


# ---- the program ----------------------------------------------------------------------------------------------------


def _member(fit: Callable[..., Any], values: dict[str, jax.Array], shared: Inputs) -> tuple[Any, Any]:
    """One fit, and its loss on the rows that it did not see."""
    weights, held = shared.weights, None
    if "fold" in values:
        held = weights * (shared.fold_of_row == values["fold"])
        weights = weights * (shared.fold_of_row != values["fold"])
    if "bootstrap" in values:
        weights = weights * _bootstrap_counts(shared.key, values["bootstrap"], weights, shared.leader)
    start = shared.start[values["division"]] if "division" in values else shared.start
    more = {"weights": weights, "offset": shared.offset, "groups": shared.leader, "start": start}
    hyper = {name: value for name, value in values.items() if name not in ROW_AXES}
    if shared.inner is not None:
        hyper[fit.inner_axis] = shared.inner  # type: ignore[attr-defined]
    result = fit(shared.key, shared.x, shared.y, hyper, **{name: v for name, v in more.items() if v is not None})
    if held is None or not hasattr(fit, "score"):
        return result, None
    grouped = {} if shared.leader is None else {"groups": shared.leader}
    return result, fit.score(result.params, shared.x, shared.y, held, shared.offset, **grouped)


def _bootstrap_counts(key: jax.Array, sample: jax.Array, weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """How often each row is drawn, among those of positive weight and as many times as there are such rows.

    leader: the first row of each row's group, where groups are drawn in the place of rows.
    """
    counts = _drawn_counts(key, sample, weights, weights > 0 if leader is None else _first(leader) & (weights > 0))
    return counts if leader is None else counts[leader]


def _first(leader: jax.Array) -> jax.Array:
    return leader == jnp.arange(leader.shape[0])


def _drawn_counts(key: jax.Array, sample: jax.Array, weights: jax.Array, there: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(key, _STREAMS["bootstrap"]), sample)
    n = weights.shape[0]
    rank = jax.random.randint(key, (n,), 0, there.sum(), jnp.int32)
    rows = jnp.argsort(~there, stable=True)[rank]
    return jnp.zeros_like(weights).at[rows].add(jnp.where(jnp.arange(n) < there.sum(), 1.0, 0.0).astype(weights.dtype))


_executables: dict[Any, Any] = {}
_KEPT_PROGRAMS = 64


def _remember(known: Any, executable: Any) -> None:
    while len(_executables) >= _KEPT_PROGRAMS:
        _executables.pop(next(iter(_executables)), None)
    _executables[known] = executable


class _Program:
    """The compiled program of one chunk on one device, with the inputs that all members share laid there."""

    def __init__(
        self, fit: Callable[..., Any], names: tuple[str, ...], inputs: Inputs, chunk: int, device: Any, optimize: bool
    ):
        self.device = device
        self.shared = jax.device_put(inputs, device)
        example = jax.device_put(_typed({name: np.zeros(chunk) for name in names}, inputs), device)
        modes = tuple(getattr(jax.config, f"jax_{name}") for name in ("enable_x64", "default_matmul_precision"))
        known: Any = (fit, names, device, _signature((example, self.shared)), modes, optimize)
        try:
            executable = _executables.get(known)
        except TypeError:  # a function that cannot be hashed is compiled for each call
            executable = known = None
        if executable is None:
            jitted = jax.jit(
                jax.vmap(lambda values, shared: _member(fit, values, shared), in_axes=(0, None), axis_size=chunk)
            )
            parts = _keys.parts("sweep", fit, names, chunk, optimize, arguments=(example, self.shared))
            lowering = partial(jitted.lower, example, self.shared)
            executable = compile_for(lowering, device, _is_uneven(fit), optimize, parts)
            if known is not None:
                _remember(known, executable)
        self.executable = executable

    @property
    def structure(self) -> Any:
        """The tree that a call returns."""
        return self.executable.out_tree

    def __call__(self, values: dict[str, jax.Array]) -> Any:
        """The results of one chunk, as NumPy arrays."""
        return jax.tree.map(np.asarray, self.executable(jax.device_put(values, self.device), self.shared))


def _typed(values: dict[str, np.ndarray], inputs: Inputs) -> dict[str, jax.Array]:
    """Values of axes as the program wants them. To be called where the sweep was: threads do not inherit `enable_x64`."""
    dtype = jax.tree.leaves(inputs.x)[0].dtype
    return {n: jnp.asarray(v, jnp.int32 if n in ("restart", *ROW_AXES) else dtype) for n, v in values.items()}


def _signature(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in map(jnp.asarray, leaves))


def _is_uneven(fit: Any) -> bool:
    """Whether members end at different times, unlike those that all take as many steps."""
    return getattr(fit, "uneven", False)


def compile_for(
    lowered: Any, device: Any, uneven: bool = False, optimize: bool = True, parts: tuple[str, ...] | None = None
) -> Any:
    """The executable of a lowered program, compiled as the programs of sweeps on that device are.

    lowered: the program, or a function that lowers it, which is not called where a program of these `parts` is kept (see
    `moejax._cache`).
    """
    options = {} if device.platform != "cpu" else _QUICK_OPTIONS if not optimize else {} if uneven else _CPU_OPTIONS
    build = lowered if callable(lowered) else lambda: lowered
    return _cache.program(parts, build, options, device=device, name="the program of a sweep")


def _chunk_size(fit: Any, inputs: Inputs, platform: str) -> int:
    if not hasattr(fit, "work_bytes"):
        return 32 if platform == "cpu" else 1024
    kind = "other" if platform != "cpu" else "cpu uneven" if _is_uneven(fit) else "cpu"
    room, least, most = _CHUNK_BYTES[kind]
    return int(np.clip(2 ** int(np.log2(max(1, room // fit.work_bytes(inputs.y)))), least, most))


# ---- running it -----------------------------------------------------------------------------------------------------


def _threads_per_device(devices: Sequence[Any]) -> int:
    if devices[0].platform != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // len(devices))


def _run_chunks(
    programs: list[_Program],
    threads: int,
    members: dict[str, np.ndarray],
    chunk: int,
    starts: Sequence[int],
    store: _Store | None,
    progress: bool | None,
) -> list[Any]:
    """The results of all chunks, in order; whichever device is free takes the next one."""
    from tqdm import tqdm

    free: queue.SimpleQueue[_Program] = queue.SimpleQueue()
    for program in programs * threads:
        free.put(program)

    def run(start: int, values: dict[str, jax.Array]) -> Any:
        kept = store.load(start, programs[0].structure) if store else None
        if kept is not None:
            return kept
        program = free.get()
        try:
            result = program(values)
        finally:
            free.put(program)
        if store:
            store.save(start, result)
        return result

    inputs = programs[0].shared
    values = [_typed(_slice(members, start, chunk), inputs) for start in starts]
    pool = ThreadPoolExecutor(len(programs) * threads, thread_name_prefix="sweep")
    try:
        disable = None if progress is None else not progress
        return list(tqdm(pool.map(run, starts, values), total=len(starts), unit="chunk", desc="sweep", disable=disable))
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_if_all_diverged(fits: Any) -> None:
    if isinstance(fits, Fit) and (fits.status & int(Status.DIVERGED)).all():
        count = fits.status.size
        raise FloatingPointError(
            f"all {count} members of the sweep diverged; want a smaller learning rate, or inputs of a smaller scale"
        )


class _Store:
    """A folder of finished chunks, each a file that appears whole or not at all, beside what they are chunks of."""

    def __init__(self, folder: Path, identity: str):
        self.folder = folder
        self.identity = identity
        manifest = folder / "sweep.json"
        self.chunk_size: int | None = None
        if manifest.exists():
            kept = json.loads(manifest.read_text())
            if kept["identity"] != self.identity:
                raise ValueError(f"checkpoint: {folder} holds chunks of another sweep; want its own folder for each")
            self.chunk_size = kept["chunk_size"]

    def begin(self, chunk_size: int) -> None:
        """Lay out the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("sweep.json", json.dumps({"identity": self.identity, "chunk_size": chunk_size}).encode())

    def load(self, start: int, structure: Any) -> Any:
        """The results of the chunk that begins with that member, or None where it is not finished yet."""
        try:
            with np.load(self._path(start)) as kept:
                return jax.tree.unflatten(structure, [kept[str(i)] for i in range(len(kept.files))])
        except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # all but the first: a disk's fault
            return None

    def save(self, start: int, result: Any) -> None:
        """Keep the results of that chunk."""
        file = io.BytesIO()
        np.savez(file, **{str(i): leaf for i, leaf in enumerate(jax.tree.leaves(result))})
        self._write(self._path(start).name, file.getvalue())

    def _path(self, start: int) -> Path:
        return self.folder / f"chunk-{start:09d}.npz"

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}.part"
        temporary.write_bytes(content)
        os.replace(temporary, self.folder / name)


def _identity(sweeper: Sweeper, inputs: Inputs, platform: str) -> str:
    """A digest of all that the results depend on, but for the chunk size, which is kept beside it."""
    inner = getattr(sweeper.fit, "inner_axis", None)
    one = _typed({name: values[0] for name, values in sweeper.coded(sweeper.axes).items() if name != inner}, inputs)
    # The program itself, for the names of functions do not tell one optimizer, closure or version of the code from another.
    program = jax.jit(lambda values, shared: _member(sweeper.fit, values, shared)).lower(one, inputs).as_text()
    parts = [jax.__version__, platform, program, repr(_key_words(inputs.key)), str(sweeper.optimize)]
    parts += [f"{name}={values.tolist()}" for name, values in sweeper.axes.items()]
    digest = hashlib.sha256("\n".join(parts).encode())
    for leaf in jax.tree.leaves(inputs[1:]):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
