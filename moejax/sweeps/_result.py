"""The labelled result of a sweep."""

from __future__ import annotations

import csv
import dataclasses
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from moejax.solvers import Fit, describe
from moejax.sweeps._inputs import Inputs

if TYPE_CHECKING:
    from moejax.sweeps._sweep import Sweeper


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
