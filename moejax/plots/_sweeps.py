"""Figures of sweeps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from moejax import _checks
from moejax.plots._arguments import as_numbers, as_penalties, picked_errors
from moejax.plots._scales import axis_of_penalties, axis_of_values, chosen_line, ring
from moejax.plots._style import GREY, PALETTE, add_note, axes_or_new, finish_axes


def validation_error(
    penalty: Any,
    error: Any,
    *,
    chosen_restart: Any = None,
    chosen: float | None = None,
    reference: float | None = None,
    reference_label: str = "noise floor",
    label: str = "validation MSE",
    penalty_label: str = "penalty weight",
    ax: Axes | None = None,
) -> Axes:
    """Error on held-out data against the penalty; restarts are points, and the chosen ones a line.

    The penalty has a logarithmic axis, on which 0 has a place of its own, left of a break. The error has one where all
    of it is positive and spans more than a decade. Errors that are NaN or infinite are left out, and the legend says
    how many.

    Args:
        penalty: (P,), none below 0, in any order.
        error: (P,) or (P, R).
        chosen_restart: (P,), whole numbers from 0 to R - 1: the restart that was chosen at each penalty. Without it,
            restarts are points only: the best of them on held-out data is luck, not a choice.
        chosen: the penalty that was chosen, between the smallest and the largest in `penalty`.
        reference: an error to compare with, a horizontal line.
        reference_label: its name in the legend.
        label: name of the error, with its units if any.
        penalty_label: name of the penalty.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    grid, order = as_penalties(penalty, chosen)
    errors = as_numbers("error", error, 1, 2, "(P,) or (P, R)")
    if len(errors) != len(grid):
        raise ValueError(f"error: {len(errors)} rows were given for {len(grid)} penalties; want one per penalty")
    line = errors if errors.ndim == 1 else None
    if chosen_restart is not None:
        line = picked_errors(errors, chosen_restart)
    if reference is not None:
        _checks.shape("reference", reference, (), "one number")
        _checks.finite("reference", reference)
    ax = axes_or_new(ax, (6.4, 4.0))
    errors = np.where(np.isfinite(errors), errors, np.nan)
    keys: list[Line2D] = []
    colour = PALETTE[0]
    if errors.ndim == 2:
        at = np.broadcast_to(grid[:, None], errors.shape)[np.isfinite(errors)]
        shown = errors[np.isfinite(errors)]
        ax.scatter(at, shown, s=12, color=colour, alpha=0.35, linewidths=0)
        name = "restart" if line is not None else label
        keys.append(Line2D([], [], color=colour, alpha=0.5, marker="o", markersize=3.5, linestyle="", label=name))
    if line is not None:
        line = np.where(np.isfinite(line), line, np.nan)
        name = "chosen restart" if errors.ndim == 2 else label
        keys += ax.plot(
            grid[order], line[order], color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name, zorder=3
        )
    if chosen is not None:
        keys.append(chosen_line(ax, chosen))
        ring(ax, grid, line, chosen)
    if reference is not None:
        keys.append(ax.axhline(float(reference), color=GREY, linewidth=1.4, linestyle="--", zorder=2, label=reference_label))
    lost = int(np.isnan(errors).sum())
    if lost:
        keys.append(add_note(f"{lost} of {errors.size} not finite, left out"))
    axis_of_values(ax, np.append(errors[np.isfinite(errors)], [] if reference is None else [reference]))
    finish_axes(ax, penalty_label, label, keys)
    axis_of_penalties(ax)
    return ax
