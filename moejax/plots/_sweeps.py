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
    """Draw the error on held-out data against the penalty.

    Restarts are points. The errors of the chosen restarts are joined by a line.

    Parameters
    ----------
    penalty : array_like, shape (P,)
        Penalties, in any order. None of them is negative.
    error : array_like, shape (P,) or (P, R)
        Mean error on held-out data at each penalty, or at each penalty and restart. Values that are NaN or infinite are not
        drawn. The legend gives their number.
    chosen_restart : array_like of int, shape (P,), optional
        Restart that was chosen at each penalty, from 0 to R - 1. If None (the default), no line joins the restarts.
    chosen : float, optional
        Penalty that was chosen, between the smallest and the largest in `penalty`. It is drawn as a vertical line. If None
        (the default), there is no such line.
    reference : float, optional
        Error to compare with, in the units of `error`. It is drawn as a horizontal line. If None (the default), there is no
        such line.
    reference_label : str, default "noise floor"
        Name of `reference` in the legend.
    label : str, default "validation MSE"
        Name of the error, with its units if it has any.
    penalty_label : str, default "penalty weight"
        Name of the penalty.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the figure.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values, or if `chosen_restart` is given with `error` of shape (P,).

    Notes
    -----
    The axis of the penalty is logarithmic. The penalty 0 has a place to the left of a break in the axis. The axis of the
    error is logarithmic if all errors are positive and span more than a decade.

    Choose restarts by their training objective. The smallest held-out error over restarts is biased downwards: it rewards
    luck.

    Examples
    --------
    >>> from moejax import plots
    >>> error = [[1.2, 1.1], [0.9, 1.0], [1.5, 1.4]]
    >>> ax = plots.validation_error([0.0, 0.01, 0.1], error, chosen_restart=[0, 0, 1], chosen=0.01)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['restart', 'chosen restart', 'chosen: 0.01']
    """
    _checks.texts(reference_label=reference_label, label=label, penalty_label=penalty_label)
    grid, order = as_penalties(penalty, chosen)
    errors = as_numbers("error", error, 1, 2, "(P,) or (P, R)")
    if len(errors) != len(grid):
        raise ValueError(f"error: {len(errors)} rows were given for {len(grid)} penalties; want one per penalty")
    line = errors if errors.ndim == 1 else None
    if chosen_restart is not None:
        line = picked_errors(errors, chosen_restart)
    if reference is not None:
        reference = _checks.number("reference", reference)
    ax = axes_or_new(ax, (6.4, 4.0))
    errors = np.where(np.isfinite(errors), errors, np.nan)
    keys: list[Line2D] = []
    colour = PALETTE[0]
    if errors.ndim == 2:
        finite = np.isfinite(errors)
        ax.scatter(
            np.broadcast_to(grid[:, None], errors.shape)[finite],
            errors[finite],
            s=12,
            color=colour,
            alpha=0.35,
            linewidths=0,
        )
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
    n_omitted = int(np.isnan(errors).sum())
    if n_omitted:
        keys.append(add_note(f"{n_omitted} of {errors.size} not finite, left out"))
    axis_of_values(ax, np.append(errors[np.isfinite(errors)], [] if reference is None else [reference]))
    finish_axes(ax, penalty_label, label, keys)
    axis_of_penalties(ax)
    return ax
