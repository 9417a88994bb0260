"""The user's side of a sweep: `sweep` configures it, and the result is called like a fit."""

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
from moejax.model import on_device
from moejax.solvers import _division, _shared
from moejax.sweeps._axes import ROW_AXES, axis_values, fold_labels, members_of, n_experts, named_divisions
from moejax.sweeps._inputs import Inputs, as_inputs, typed
from moejax.sweeps._program import Program, default_chunk_size
from moejax.sweeps._result import Run, Sweep
from moejax.sweeps._runner import refuse_if_all_diverged, run_chunks, threads_per_device
from moejax.sweeps._sequences import with_sequences
from moejax.sweeps._store import Store, identity_of, kept_chunk_size


@dataclass(frozen=True, eq=False)
class Sweeper:
    """A configured sweep, from `sweep`; call it with the arguments of a single fit.

    Attributes
    ----------
    fit : callable
        The fit.
    axes : dict of numpy.ndarray
        Values of each axis, by name. A number of weights is an array without dimensions until the sweep is called.
    divisions : dict
        Divisions of the axis `division`, by the names or numbers on that axis.
    fold_of_row : numpy.ndarray or None
        Labels of folds, (n,), if labels were given.
    chunk_size : int or None
        Members of one call of the program; None means automatic.
    devices : tuple or None
        The devices; None means all local devices.
    threads : int or None
        Chunks that run at once on each device; None means automatic.
    progress : bool or None
        Whether to show a progress bar; None means if standard error is a terminal.
    checkpoint : Path or None
        Folder of finished chunks.
    optimize : bool
        Whether programs are compiled with optimisation.
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
        start_params: Any = None,
        start_responsibilities: Any = None,
        start: Any = None,
    ) -> Sweep:
        """Fit every member of the product of the axes.

        Parameters
        ----------
        key : jax.Array
            Key of all random draws.
        x : array or pytree, (n, d)
            Inputs, shared by all members.
        y : array, (n,) or (n, m)
            Targets.
        weights : array, (n,), optional
            Case weights. None means equal weights.
        offset : array, optional
            Offset of the linear predictors, as in a fit.
        groups : sequence, (n,), optional
            Group of each row, a label of any type. The rows of a group share their expert; they are held out together and
            drawn together.
        start_params : dict, optional
            Params from which every member starts. They exclude the axis `division` and an axis `restart` of several values.
        start_responsibilities : array or callable, (n, K), optional
            Responsibilities from which every member starts, or a function of x that returns them.
        start : optional
            An older name for both, as in a fit.

        Returns
        -------
        Sweep
            The labelled result.

        Raises
        ------
        ValueError
            If the fit refuses an argument, a fold has no rows to train on or to test on, a fold holds a part of a group, or
            the folder of the checkpoint holds chunks of another sweep. The error is raised before the sweep compiles.
        FloatingPointError
            If every member diverged.
        """
        with _shared.one_start(start, start_params, start_responsibilities) as begin:
            inputs, more = self._checked(key, x, y, weights, offset, groups, begin)
        axes, seconds = with_sequences(self, inputs, more)
        return dataclasses.replace(self, axes=axes).run(inputs, compiled=seconds)

    def _checked(
        self, key: Any, x: Any, y: Any, weights: Any, offset: Any, groups: Any, start: Any
    ) -> tuple[Inputs, list[dict[str, Any]]]:
        """Return the checked inputs, and further arguments of a fit for each start."""
        if start is not None and self.divisions:
            raise ValueError(
                "start: given beside the axis 'division', which sets the start of every member; want only one of the two"
            )
        if start is not None and len(self.axes.get("restart", ())) > 1:
            raise ValueError(
                "start: given beside the axis 'restart', whose starts it would replace; want only one of the two"
            )
        _checks.key("key", key)
        x, y, weights, offset, groups, start = _shared.natives(x, y, weights, offset, groups, start)
        starts = self._resolved(x) if self.divisions else [start]
        if hasattr(self.fit, "check_data"):
            for one_start in starts:
                self.fit.check_data(x, y, weights, offset, groups, one_start)
        if callable(start):
            starts = [_division.resolved("start", start, x, n_experts(self.fit))]
        shared_start = jnp.stack([on_device(one_start) for one_start in starts]) if self.divisions else starts[0]
        inputs = as_inputs(Inputs(key, x, y, weights, offset, shared_start, self.fold_of_row, groups), self.axes)
        more = [{"weights": weights, "offset": offset, "groups": groups, "start": one_start} for one_start in starts]
        return inputs, more

    def _resolved(self, x: Any) -> list[Any]:
        """Return the responsibilities (n, K) of each division, or raise ValueError."""
        count, named = n_experts(self.fit), self.divisions.items()
        return [_division.resolved(f"axes['division'][{name!r}]", given, x, count) for name, given in named]

    def coded(self, axes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the values of axes as numbers; a division becomes its position.

        Parameters
        ----------
        axes : dict of numpy.ndarray
            Values of the axes.

        Returns
        -------
        dict of numpy.ndarray
            Numbers.
        """
        places = {name: place for place, name in enumerate(self.divisions)}
        return {
            name: np.asarray([places[v] for v in values.tolist()]) if name == "division" else values
            for name, values in axes.items()
        }

    def chunk_of(self, inputs: Inputs) -> int:
        """Return the number of members of a chunk: of the sweep in the folder of a checkpoint, given, or chosen.

        Parameters
        ----------
        inputs : Inputs
            Inputs from `as_inputs`.

        Returns
        -------
        int
            Number of members.
        """
        kept = kept_chunk_size(self.checkpoint) if self.checkpoint else None
        return kept or self.chunk_size or default_chunk_size(self.fit, inputs, self.used_devices()[0].platform)

    def used_devices(self) -> tuple[Any, ...]:
        """Return the devices.

        Returns
        -------
        tuple of jax.Device
            Those given, or all local devices.
        """
        return self.devices or tuple(jax.local_devices())

    def run(self, inputs: Inputs, compiled: float = 0.0) -> Sweep:
        """Run the sweep on checked inputs.

        Parameters
        ----------
        inputs : Inputs
            Inputs from `as_inputs`.
        compiled : float, default 0.0
            Seconds in which its program was compiled before.

        Returns
        -------
        Sweep
            The labelled result.

        Raises
        ------
        ValueError
            If the folder of the checkpoint holds chunks of another sweep or cannot be written.
        FloatingPointError
            If every member diverged.
        """
        inner = getattr(self.fit, "inner_axis", None)
        if inner is not None:
            inputs = inputs._replace(inner=typed({inner: self.axes[inner]}, inputs)[inner])
        outer = {name: values for name, values in self.axes.items() if name != inner}
        shape = tuple(len(v) for v in outer.values())
        count = int(np.prod(shape))
        members = members_of(self.coded(outer))
        devices = self.used_devices()
        started = time.perf_counter()
        store = Store(self.checkpoint, identity_of(self, inputs, devices[0].platform)) if self.checkpoint else None
        chunk = self.chunk_of(inputs)
        chunk = store.begin(chunk) if store else chunk
        threads = self.threads or threads_per_device(devices)
        programs = [Program(self.fit, tuple(outer), inputs, chunk, device, self.optimize) for device in devices]
        ready = time.perf_counter()
        starts = range(0, count, chunk)
        outputs = run_chunks(programs, threads, members, chunk, starts, store, self.progress)
        seconds = {"compile": compiled + ready - started, "run": time.perf_counter() - ready}
        fits, held_out = jax.tree.map(lambda *v: np.concatenate(v)[:count].reshape(shape + v[0].shape[1:]), *outputs)
        if inner is not None:  # the inner axis leads each member's result; move it to its position among the axes
            place = list(self.axes).index(inner)
            fits, held_out = jax.tree.map(lambda v: np.moveaxis(v, len(shape), place), (fits, held_out))
        refuse_if_all_diverged(fits)
        shared = programs[0].shared
        block = self.fit.rows_in_block(shared.x, shared.y, shared.leader) if hasattr(self.fit, "rows_in_block") else 0
        run = Run(chunk, tuple(str(d) for d in devices), threads, seconds, block)
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
    """Configure a fit over the product of named axes, compiled once.

    Parameters
    ----------
    fit : callable
        A fit from `fit_em`, `fit_gradient` or `path`, or any pure function fit(key, x, y, hyper, **more) -> pytree of
        arrays. The keyword arguments are those of `weights`, `offset`, `groups` and `start` that the sweep was given. A fit
        with an `inner_axis`, as from `path`, takes all values of that axis at once, and its results have that axis leading.
        In the sweep it is an axis like the others; if it is not given, it has the default of `hyper`.
    axes : mapping
        Values by the name of each axis.

        - A field of the fit's `hyper`: a sequence of numbers, converted to the type of x. `restart`, the number of a start,
          is an integer and may be given as a number of starts; the same starts serve all other values. The weight of a
          penalty may be given as a number of weights, at least 2. The sequence then runs from a weight at which, on all
          rows, all coefficients of the penalty are 0 (see `moejax.solvers.sequence`) down to a thousandth of that weight (or
          to the ratio of the path). It is the same for all members. To compute it, each other field has its only value or
          its default.
        - `fold`: a number of folds, drawn from the key, whose sizes differ by at most 1; or integers (n,), the fold in which
          each row is held out, with -1 for rows that are never held out. A member trains on the other rows, by weights.
        - `bootstrap`: a number of samples with replacement [1]_, as weights.
        - `division`: the `start_responsibilities` of the members (see `moejax.division`): a mapping from names to
          responsibilities (n, K) or to functions of x, or a sequence of these, which are then numbered. An automatic
          sequence of weights serves all divisions.
    chunk_size : int, optional
        Members of one call of the program; the last call is padded. None chooses it from the number of rows, never from the
        number of members.
    devices : sequence of jax.Device, optional
        Devices, each of which gets whole chunks. None means all local devices.
    threads : int, optional
        Chunks that run at once on each device. None divides the cores among the devices on a CPU, and means 1 elsewhere.
    progress : bool, optional
        Whether to show a progress bar over chunks. None shows one if standard error is a terminal.
    checkpoint : str or path, optional
        A folder that keeps every finished chunk. An interrupted sweep continues from there, with its first chunk size.
        Chunks that are damaged, or of another sweep, are named in the log "moejax" and computed again. Several runs of one
        sweep may share the folder.
    optimize : bool, default True
        False, on a CPU, makes compilation several times faster and the run several times slower. This suits few members and
        few rows.

    Returns
    -------
    Sweeper
        A function (key, x, y, *, weights=None, offset=None, groups=None, start_params=None, start_responsibilities=None) ->
        Sweep.

    Raises
    ------
    ValueError
        If `fit` is not a function, an axis is empty, unknown or has a value that it cannot have, or `chunk_size`, `threads`,
        `devices` or `checkpoint` is not valid.

    Notes
    -----
    If rows come in groups, whole groups are held out and drawn.

    The same key, versions, kind of device, chunk size and `optimize` give the same bits for a member, whatever the order and
    number of members, devices or threads. Keys of JAX's `rbg` implementation are an exception: their draws differ under
    `vmap`.

    An interrupt (Ctrl-C) ends a sweep within seconds. Chunks that run have two seconds to finish. A device may go on with a
    chunk that does not, but its results are dropped.

    References
    ----------
    .. [1] Efron (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics.

    Examples
    --------
    >>> import jax
    >>> import moejax
    >>> problem, rows = moejax.datasets.notebook()
    >>> x, y = problem.x[rows.train], problem.y[rows.train]
    >>> model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), n_experts=3)
    >>> grid = moejax.sweep(moejax.fit_gradient(model, steps=20), {"l1_experts": [0.0, 0.01], "restart": 2})
    >>> result = grid(jax.random.key(0), x, y)
    >>> result.fits.objective.shape
    (2, 2)
    >>> result.sel(l1_experts=0.01).shape
    (2,)
    """
    if not callable(fit):
        trained = hasattr(fit, "fit")  # a scikit-learn estimator
        why = (
            " (a sweep compiles the fit, and an estimator is trained on the host: see GridSearchCV in scikit-learn)"
            if trained
            else ""
        )
        raise ValueError(f"fit: {_checks.shown(fit)} was given; want a function, as from fit_gradient{why}")
    if not isinstance(axes, Mapping) or not axes:
        wanted = "a mapping from the name of at least one axis to its values"
        raise ValueError(f"axes: {_checks.shown(axes)} was given; want {wanted}")
    if chunk_size is not None:
        _checks.count("chunk_size", chunk_size)
    if threads is not None:
        _checks.count("threads", threads)
    if devices is not None:
        devices = _devices(devices)
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
        devices,
        threads,
        None if progress is None else _checks.flag("progress", progress),
        None if checkpoint is None else _folder(checkpoint),
        _checks.flag("optimize", optimize),
    )


def _devices(given: Any) -> tuple[Any, ...]:
    """Return devices as a tuple, or raise ValueError if there is none, or something else among them."""
    wanted = "at least one jax.Device, or None for all local devices"
    devices = tuple(_checks.sequence("devices", given, wanted))
    if not devices:
        raise ValueError(f"devices: none were given; want {wanted}")
    if not all(isinstance(each, jax.Device) for each in devices):
        raise ValueError(f"devices: {_checks.shown(given)} was given; want {wanted}")
    return devices


def _folder(checkpoint: Any) -> Path:
    """Return the folder of a checkpoint, or raise ValueError if it cannot be one."""
    folder = _checks.path("checkpoint", checkpoint, "the path of a folder, or None")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint: {str(folder)!r} is not a folder; want the path of a folder, or None")
    return folder
