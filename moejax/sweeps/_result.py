"""The labelled result of a sweep."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from moejax import _checks
from moejax.solvers import Fit, describe
from moejax.sweeps._inputs import Inputs

if TYPE_CHECKING:
    from moejax.sweeps._sweep import Sweeper


@dataclass(frozen=True)
class Run:
    """A record of how a sweep was run.

    Attributes
    ----------
    chunk_size : int
        Members of one call of the program. Results depend on it in their last bits.
    devices : tuple of str
        The devices.
    threads : int
        Chunks that ran at once on each device.
    seconds : mapping
        Wall-clock seconds: "compile" and "run".
    block_size : int, default 0
        Rows over which sums are taken at once; 0 where all rows are one block. Results depend on it in their last bits.
    """

    chunk_size: int
    devices: tuple[str, ...]
    threads: int
    seconds: Mapping[str, float]
    block_size: int = 0


@dataclass(frozen=True, eq=False)
class Sweep:
    """The labelled result of a sweep: arrays whose leading axes are the axes of the sweep, in their order.

    Attributes
    ----------
    axes : dict of numpy.ndarray
        The values of each axis, by name.
    fits : pytree of numpy.ndarray
        Results of the fit, with the axes of the sweep leading.
    held_out : numpy.ndarray or None
        The mean loss of each member, without penalties, over the rows that it did not train on. None without the axis `fold`
        or without a `score` of the fit.
    sweeper : Sweeper
        The configured sweep.
    inputs : Inputs
        The inputs of the sweep.
    run : Run
        How the sweep was run.
    fixed : mapping
        Values that `sel` and `isel` selected, by axis.
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
        """Number of values on each axis."""
        return tuple(len(v) for v in self.axes.values())

    def sel(self, **at: Any) -> Sweep:
        """Select members by values on axes, as in `result.sel(l1_experts=0.01, restart=3)`.

        Parameters
        ----------
        **at : number or str
            One value for each named axis. Numbers match to a relative 1e-6.

        Returns
        -------
        Sweep
            The selected members, without these axes.

        Raises
        ------
        KeyError
            If a name is not an axis, or a value is not on its axis.
        """
        return self.isel(**{name: self._position(name, value) for name, value in at.items()})

    def isel(self, **at: int) -> Sweep:
        """Select members by positions along axes, as in `result.isel(restart=0)`.

        Parameters
        ----------
        **at : int
            One position for each named axis. Negative positions count from the end.

        Returns
        -------
        Sweep
            The selected members, without these axes.

        Raises
        ------
        KeyError
            If a name is not an axis.
        TypeError
            If a position is not an integer.
        IndexError
            If a position is beyond the axis.
        """
        fixed = {**self.fixed, **{name: self._axis(name)[self._index(name, i)] for name, i in at.items()}}
        index = tuple(at.get(name, slice(None)) for name in self.axes)
        axes = {name: values for name, values in self.axes.items() if name not in at}
        fits = jax.tree.map(lambda v: v[index], self.fits)
        held_out = None if self.held_out is None else self.held_out[index]
        return dataclasses.replace(self, axes=axes, fits=fits, held_out=held_out, fixed=fixed)

    def table(self) -> dict[str, np.ndarray]:
        """Return one row for each member, as columns.

        Returns
        -------
        dict of numpy.ndarray
            Columns by name: the values on the axes, each field of the fit that is one number, and `held_out`.
        """
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
        """Write `table` to a CSV file, with statuses in words.

        Parameters
        ----------
        path : str or path
            The file.
        """
        path = _checks.path("path", path)
        if not path.parent.is_dir():
            raise FileNotFoundError(f"path: {str(path)!r} was given, in a folder that is not there; want one that is")
        columns = self.table()
        if isinstance(self.fits, Fit):
            columns["status"] = np.asarray([describe(s) for s in columns["status"]])
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))

    def _axis(self, name: str) -> np.ndarray:
        """Return the values of an axis, or raise KeyError."""
        if name not in self.axes:
            raise KeyError(f"{name!r} is no axis of this sweep; want one of {list(self.axes)}")
        return self.axes[name]

    def _index(self, name: str, position: Any) -> int:
        """Return a position along an axis, or raise TypeError or IndexError."""
        size = len(self._axis(name))
        if not _checks.is_whole(position):
            raise TypeError(f"{name}: {_checks.shown(position)} was given; want a whole number, a position on this axis")
        if not -size <= position < size:
            raise IndexError(f"{name}: position {_checks.shown(position)} was given on an axis of {size} values")
        return int(position)

    def _position(self, name: str, value: Any) -> int:
        """Return the position of a value on an axis, or raise KeyError."""
        values = self._axis(name)
        if values.dtype.kind == "U":
            if not isinstance(value, str) or value not in values:
                raise KeyError(f"{name}: {_checks.shown(value)} is not on this axis; want one of {values.tolist()}")
            position: int = values.tolist().index(value)
            return position
        number = _checks.number(name, value)
        nearest = int(np.abs(np.subtract(values, number, dtype=float)).argmin())
        if not np.isclose(values[nearest], number, rtol=1e-6, atol=0):
            raise KeyError(f"{name}: {_checks.shown(value)} is not on this axis; want one of {values.tolist()}")
        return nearest
