"""Axes of values and of penalties."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from moejax.plots._style import CHOSEN, MOST_VERTICES, SMALL, size_in_points


def axis_of_values(ax: Any, values: np.ndarray) -> None:
    """A logarithmic y axis if all `values`, and all that was drawn before, are positive and span over a decade."""
    if values.size == 0:
        return
    low = min(float(values.min()), ax.dataLim.y0)
    high = max(float(values.max()), ax.dataLim.y1)
    if low <= 0 or high <= 10.0 * low:
        return
    decades = log10(high / low)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0), numticks=9))
    ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    ax.yaxis.set_minor_formatter(NullFormatter())


def few_ticks(ax: Any, each: float) -> None:
    """So few ticks that each has `each` points: matplotlib's own choice lets long numbers run into one another."""
    bins = int(np.clip(size_in_points(ax)[0] / each, 2, 6))
    for axis in (ax.xaxis, ax.yaxis, *([ax.zaxis] if ax.name == "3d" else [])):
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))


def axis_of_penalties(ax: Any) -> None:
    """A logarithmic x axis for all that `ax` holds, with a place for 0 left of a break.

    Such an axis is matplotlib's "symlog", linear below the smallest positive penalty, where nothing is drawn: so data
    keep their values, and a second curve on the same Axes needs no knowledge of the first.
    """
    least, low, high = float(ax.dataLim.minposx), float(ax.dataLim.x0), float(ax.dataLim.x1)
    for old in [text for text in ax.texts if text.get_gid() == "break"]:
        old.remove()
    if not 0 < high < np.inf:
        ax.set_xticks([0.0], ["0"])
        return
    decades = log10(high / least)
    room = max(2, floor(size_in_points(ax)[0] / 42.0))
    ticks = _decades(least, high, room)
    pad = 10.0 ** max(0.02 * decades, 0.05)
    if low > 0:
        ax.set_xscale("log")
        ax.set_xlim(least / pad, high * pad)
    else:
        gap = max(0.12 * decades, 0.3)
        # The scale gives the linear part a width of linscale / (1 - 1/10) decades.
        ax.set_xscale("symlog", linthresh=least, linscale=0.9 * gap)
        ax.set_xlim(-least * max(0.02 * decades, 0.05) / gap, high * pad)
        ticks = [0.0, *ticks]
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
        ax.text(
            least / 2, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center", fontsize=SMALL,
            bbox=white, gid="break",
        )  # fmt: skip
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(_plain))
    ax.xaxis.set_minor_locator(NullLocator())


def _decades(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round numbers from `low` to `high`: powers of ten, or 1-2-5 where there are too few."""
    near = 1e-6  # float32 has 1e-4 a little above or below 1e-4
    exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1.0,), (1.0, 2.0, 5.0)):
        # `float` of a string is the number nearest to 1e-4; 10.0 ** -4 need not be.
        ticks = [f * float(f"1e{e}") for e in exponents for f in factors]
        ticks = [tick for tick in ticks if low * (1 - near) <= tick <= high * (1 + near)]
        if len(ticks) >= 3:
            return ticks[:: ceil(len(ticks) / most)]
    return [low] if high <= low * (1 + near) else [low, high]


def _plain(value: float, position: int | None = None) -> str:
    """0.01 rather than 10 to the -2: it is read at once, and matplotlib needs no parser of mathematics to draw it."""
    return f"{value:.3g}"


def chosen_line(ax: Any, chosen: float) -> Line2D:
    """A vertical line at the chosen penalty."""
    # Not `axvline`, which widens the limits of the data by rounding: a 0 may come back as 2e-16, a penalty like any other.
    at, across = [float(chosen)] * 2, ax.get_xaxis_transform()
    line = Line2D(at, [0, 1], transform=across, color=CHOSEN, linewidth=1.4, zorder=2, label=f"chosen: {float(chosen):.3g}")
    return ax.add_artist(line)


def ring(ax: Any, grid: np.ndarray, line: np.ndarray | None, chosen: float) -> None:
    """A ring around the point of the curve at the chosen penalty, if it has one."""
    at = int(np.argmin(np.abs(grid - float(chosen))))
    if line is not None and np.isclose(grid[at], float(chosen), rtol=1e-5) and np.isfinite(line[at]):
        ax.plot(grid[at], line[at], marker="o", markersize=10, mfc="none", mec=CHOSEN, mew=1.8, linestyle="", zorder=4)


def as_segments(at: np.ndarray, lines: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """The vertices (V, 2) of the first `sizes` (M,) numbers of each of the lines (M, T).

    If they are too many, they are thinned to the smallest and largest of each stretch of steps, and to both ends of a line,
    which are what readers look for.
    """
    if sizes.sum() <= MOST_VERTICES:
        return [np.column_stack([at[:size], line[:size]]) for line, size in zip(lines, sizes, strict=True)]
    stretches = max(1, MOST_VERTICES // (2 * len(lines)) - 1)
    segments = []
    for line, size in zip(lines, sizes, strict=True):
        width = -(-int(size) // stretches)
        parts = np.pad(line[:size], (0, -int(size) % width), mode="edge").reshape(-1, width)
        starts = width * np.arange(len(parts))
        index = np.unique([0, *(starts + parts.argmin(axis=1)), *(starts + parts.argmax(axis=1)), size - 1])
        segments.append(np.column_stack([at[index], line[index]]))
    return segments
