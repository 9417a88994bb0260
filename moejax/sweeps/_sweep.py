"""A sweep as a user has it: configured by `sweep`, then called like a fit."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.solvers import _division
from moejax.sweeps._axes import ROW_AXES, axis_values, fold_labels, members_of, n_experts, named_divisions
from moejax.sweeps._inputs import Inputs, as_inputs, typed, with_sequences
from moejax.sweeps._program import Program, default_chunk_size
from moejax.sweeps._result import Run, Sweep
from moejax.sweeps._runner import refuse_if_all_diverged, run_chunks, threads_per_device
from moejax.sweeps._store import Store, identity_of


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
            begins = [_division.resolved("start", start, x, n_experts(self.fit))]
        laid = jnp.stack([jnp.asarray(begin) for begin in begins]) if self.divisions else begins[0]
        inputs = as_inputs(Inputs(key, x, y, weights, offset, laid, self.fold_of_row, groups), self.axes)
        more = [{"weights": weights, "offset": offset, "groups": groups, "start": begin} for begin in begins]
        axes = with_sequences(self.fit, self.axes, inputs, more)
        return dataclasses.replace(self, axes=axes).run(inputs)

    def _resolved(self, x: Any) -> list[Any]:
        """The responsibilities (n, K) of each division. Raises ValueError where they are none."""
        count, named = n_experts(self.fit), self.divisions.items()
        return [_division.resolved(f"axes['division'][{name!r}]", given, x, count) for name, given in named]

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
            inputs = inputs._replace(inner=typed({inner: self.axes[inner]}, inputs)[inner])
        outer = {name: values for name, values in self.axes.items() if name != inner}
        shape = tuple(len(v) for v in outer.values())
        count = int(np.prod(shape))
        members = members_of(self.coded(outer))
        devices = self.devices or tuple(jax.local_devices())
        started = time.perf_counter()
        store = Store(self.checkpoint, identity_of(self, inputs, devices[0].platform)) if self.checkpoint else None
        chunk = (store and store.chunk_size) or self.chunk_size or default_chunk_size(self.fit, inputs, devices[0].platform)
        threads = self.threads or threads_per_device(devices)
        programs = [Program(self.fit, tuple(outer), inputs, chunk, device, self.optimize) for device in devices]
        compiled = time.perf_counter()
        if store:
            store.begin(chunk)
        starts = range(0, count, chunk)
        outputs = run_chunks(programs, threads, members, chunk, starts, store, self.progress)
        seconds = {"compile": compiled - started, "run": time.perf_counter() - compiled}
        fits, held_out = jax.tree.map(lambda *v: np.concatenate(v)[:count].reshape(shape + v[0].shape[1:]), *outputs)
        if inner is not None:  # it leads the result of each member, and goes to its place among the axes
            place = list(self.axes).index(inner)
            fits, held_out = jax.tree.map(lambda v: np.moveaxis(v, len(shape), place), (fits, held_out))
        refuse_if_all_diverged(fits)
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
      `moejax.solvers.sequence`) down to a thousandth of it (or to the ratio of the path), the same for all members. Other
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
        _checks.count("chunk_size", chunk_size)
    if threads is not None:
        _checks.count("threads", threads)
    if devices is not None and not len(devices):
        raise ValueError("devices: none were given; want at least one, or None for all local ones")
    inner = getattr(fit, "inner_axis", None)
    if inner is not None and inner not in axes:
        axes = {**axes, inner: fit.hyper[inner]}  # type: ignore[attr-defined]
    countable = {penalty.name for penalty in getattr(fit, "penalties", ())}
    divisions = named_divisions(axes["division"]) if "division" in axes else {}
    axes = {**axes, "division": np.asarray(list(divisions))} if divisions else axes
    values = {name: axis_values(name, given, name in countable) for name, given in axes.items()}
    if hasattr(fit, "check_hyper"):
        fit.check_hyper({name: v for name, v in values.items() if name not in ROW_AXES and v.ndim})
    return Sweeper(
        fit,
        values,
        divisions,
        fold_labels(axes.get("fold")),
        chunk_size,
        None if devices is None else tuple(devices),
        threads,
        progress,
        None if checkpoint is None else Path(checkpoint),
        bool(optimize),
    )
