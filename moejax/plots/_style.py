"""Style of all figures: colours, text sizes, legends and titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moejax import _checks

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Colours of the experts: the eight colours of Okabe and Ito (2008), which colour-blind readers can tell apart.

Yellow, the palest colour on white, is last.
"""
GREY = "#777777"
CHOSEN = "#222222"  # almost the colour of the seventh expert, but an expert has no vertical line
MINUS = "\N{MINUS SIGN}"  # as wide as a plus sign; a hyphen is narrower
SMALL, NORMAL, _TITLE = 8.0, 9.5, 11.0  # sizes of text in points
_MARKERS, _DASHES = "o^sD", ("-", "--", ":", "-.")  # distinguish experts of the same colour, such as 1 and 9
MOST_VERTICES = 250_000  # more vertices take seconds to draw and do not change a pixel


def title(ax: Axes, text: str) -> Axes:
    """Write a title at the top left of an Axes, above its legend if there is one.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Axes that a function of `moejax.plots` returned.
    text : str
        The title.

    Returns
    -------
    matplotlib.axes.Axes
        The same Axes.

    Examples
    --------
    >>> from moejax import plots
    >>> ax = plots.title(plots.training_loss([3.0, 2.0, 1.5]), "Training")
    >>> ax.get_title(loc="left")
    'Training'
    """
    _checks.text("text", text)
    if not isinstance(ax, Axes):
        raise ValueError(f"ax: {_checks.shown(ax)} was given; want matplotlib Axes")
    legend = ax.get_legend()
    if legend is None:
        ax.set_title(text, loc="left", fontsize=_TITLE)
    else:
        legend.set_title(text)
        legend.get_title().set_fontsize(_TITLE)
        legend.set_alignment("left")
    return ax


def axes_or_new(ax: Any, size: tuple[float, float], three_d: bool = False) -> Any:
    """Return `ax` after a check, or the Axes of a new figure of `size` in inches if `ax` is None."""
    if ax is None:
        figure = Figure(figsize=size, layout="constrained")
        return figure.add_subplot(projection="3d" if three_d else None)
    if not isinstance(ax, Axes) or (ax.name == "3d") != three_d:
        value = f"Axes of projection {ax.name}" if isinstance(ax, Axes) else f"{type(ax).__name__}"
        wanted = '3-D Axes: figure.add_subplot(projection="3d")' if three_d else "two-dimensional matplotlib Axes"
        raise ValueError(f"ax: {value} was given; want {wanted}")
    return ax


def finish_axes(ax: Any, x_label: str, y_label: str, keys: Sequence[Any]) -> None:
    """Add axis labels, a light grid, and a legend in rows above the Axes."""
    ax.set_xlabel(x_label, fontsize=NORMAL)
    ax.set_ylabel(y_label, fontsize=NORMAL)
    ax.tick_params(labelsize=SMALL)
    ax.grid(True, color="#E4E4E4", linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.name != "3d":
        ax.spines[["top", "right"]].set_visible(False)
    if not keys:
        return
    widths = np.array([0.55 * len(str(key.get_label())) + 4.0 for key in keys]) * SMALL
    room = size_in_points(ax)[0]
    column_counts = range(len(keys), 0, -1)
    suitable = (c for c in column_counts if sum(part.max() for part in np.array_split(widths, c)) <= room)
    columns = next(suitable, 1)
    ax.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.8,
    )


def size_in_points(ax: Any) -> tuple[float, float]:
    """Return the width and height of the Axes in points; approximate until matplotlib lays out the figure."""
    return 72.0 * ax.bbox.width / ax.figure.dpi, 72.0 * ax.bbox.height / ax.figure.dpi


def colour_of(expert: int) -> str:
    """Return the colour of an expert."""
    return PALETTE[expert % len(PALETTE)]


def dash_of(expert: int) -> Any:
    """Return the dash pattern of an expert, which differs between experts of the same colour."""
    return _DASHES[expert // len(PALETTE) % len(_DASHES)]


def add_note(text: str) -> Line2D:
    """Return a legend entry that holds only a text."""
    return Line2D([], [], linestyle="", marker="x", markersize=4, color=GREY, label=text)


def draw_clouds(ax: Any, coordinates: tuple[np.ndarray, ...], labels: np.ndarray | None) -> list[Line2D]:
    """Draw one scatter per expert at the given coordinates, and return the entries of the legend."""
    samples = coordinates[0].size
    style: dict[str, Any] = {"s": 16.0 if samples <= 2000 else 5.0, "linewidths": 0}
    style["alpha"] = 0.75 if samples <= 500 else 0.5 if samples <= 5000 else 0.25
    if labels is None:
        ax.scatter(*coordinates, color=PALETTE[0], **style)
        return []
    keys = []
    for k in np.unique(labels):
        rows = labels == k
        marker = _MARKERS[int(k) // len(PALETTE) % len(_MARKERS)]
        name = f"expert {k + 1} ({rows.mean():.0%})"
        points = (values[rows] for values in coordinates)
        ax.scatter(*points, color=colour_of(int(k)), marker=marker, label=name, **style)
        keys.append(Line2D([], [], color=colour_of(int(k)), marker=marker, linestyle="", markersize=5, label=name))
    return keys
