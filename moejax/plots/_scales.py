"""Scales, ticks and lines of penalty axes and value axes."""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from moejax.plots._style import CHOSEN, MOST_VERTICES, SMALL, size_in_points


def axis_of_values(ax: Any, values: np.ndarray) -> None:
    """Make the y axis logarithmic if `values` and all drawn data are positive and span more than a decade."""
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
    """Limit the number of ticks so that each tick has `each` points of room.

    With matplotlib's default, long numbers can overlap.
    """
    bins = int(np.clip(size_in_points(ax)[0] / each, 2, 6))
    for axis in (ax.xaxis, ax.yaxis, *([ax.zaxis] if ax.name == "3d" else [])):
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))


def axis_of_penalties(ax: Any) -> None:
    """Make the x axis logarithmic for all data in `ax`, with a place for the penalty 0 to the left of a break.

    An axis with 0 has matplotlib's scale "symlog", which is linear below the smallest positive penalty. No data lie between
    0 and this penalty. Data keep their values, so a second curve can be drawn on the same Axes without changes to the first.
    """
    least, low, high = float(ax.dataLim.minposx), float(ax.dataLim.x0), float(ax.dataLim.x1)
    for mark in [text for text in ax.texts if text.get_gid() == "break"]:
        mark.remove()
    if not 0 < high < np.inf:
        ax.set_xticks([0.0], ["0"])
        return
    decades = log10(high / least)
    most_ticks = max(2, floor(size_in_points(ax)[0] / 42.0))
    ticks = _decades(least, high, most_ticks)
    pad = 10.0 ** max(0.02 * decades, 0.05)
    if low > 0:
        ax.set_xscale("log")
        ax.set_xlim(least / pad, high * pad)
    else:
        gap = max(0.12 * decades, 0.3)
        # In this scale, the linear part is linscale / (1 - 1/10) decades wide.
        ax.set_xscale("symlog", linthresh=least, linscale=0.9 * gap)
        ax.set_xlim(-least * max(0.02 * decades, 0.05) / gap, high * pad)
        ticks = [0.0, *ticks]
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.3}
        ax.text(
            least / 2, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center", fontsize=SMALL,
            bbox=box, gid="break",
        )  # fmt: skip
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FuncFormatter(_plain))
    ax.xaxis.set_minor_locator(NullLocator())


def _decades(low: float, high: float, most: int) -> list[float]:
    """Return about `most` or fewer round numbers from `low` to `high`.

    The numbers are powers of ten; with fewer than three powers, 1, 2 and 5 times powers of ten.
    """
    tolerance = 1e-6  # the float32 of a number such as 1e-4 is slightly different from its float64
    exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1.0,), (1.0, 2.0, 5.0)):
        # float("1e-4") is the float64 nearest to 1e-4; 10.0 ** -4 may be another one.
        ticks = [f * float(f"1e{e}") for e in exponents for f in factors]
        ticks = [tick for tick in ticks if low * (1 - tolerance) <= tick <= high * (1 + tolerance)]
        if len(ticks) >= 3:
            return ticks[:: ceil(len(ticks) / most)]
    return [low] if high <= low * (1 + tolerance) else [low, high]


def _plain(value: float, position: int | None = None) -> str:
    """Return a tick label such as 0.01, which is easier to read and faster to draw than 10 to the power of -2."""
    return f"{value:.3g}"


def chosen_line(ax: Any, chosen: float) -> Line2D:
    """Draw a vertical line at the chosen penalty."""
    # `axvline` would change the data limits by rounding: a lower limit of 0 could become 2e-16, a positive penalty.
    x, transform = [float(chosen)] * 2, ax.get_xaxis_transform()
    line = Line2D(
        x, [0, 1], transform=transform, color=CHOSEN, linewidth=1.4, zorder=2, label=f"chosen: {float(chosen):.3g}"
    )
    drawn: Line2D = ax.add_artist(line)
    return drawn


def ring(ax: Any, grid: np.ndarray, line: np.ndarray | None, chosen: float) -> None:
    """Draw a ring around the point of the curve at the chosen penalty, if the curve has such a point."""
    index = int(np.argmin(np.abs(grid - float(chosen))))
    if line is not None and np.isclose(grid[index], float(chosen), rtol=1e-5) and np.isfinite(line[index]):
        ax.plot(grid[index], line[index], marker="o", markersize=10, mfc="none", mec=CHOSEN, mew=1.8, linestyle="", zorder=4)


def as_segments(steps: np.ndarray, lines: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Return the vertices (V, 2) of the first `sizes[i]` numbers of each of the lines (M, T).

    Long lines are thinned if there are more than `MOST_VERTICES` numbers. Each line then keeps its two ends, and the
    smallest and the largest number of each range of steps, because readers look for these.
    """
    if sizes.sum() <= MOST_VERTICES:
        return [np.column_stack([steps[:size], line[:size]]) for line, size in zip(lines, sizes, strict=True)]
    n_ranges = max(1, MOST_VERTICES // (2 * len(lines)) - 1)
    segments = []
    for line, size in zip(lines, sizes, strict=True):
        width = -(-int(size) // n_ranges)
        parts = np.pad(line[:size], (0, -int(size) % width), mode="edge").reshape(-1, width)
        starts = width * np.arange(len(parts))
        index = np.unique([0, *(starts + parts.argmin(axis=1)), *(starts + parts.argmax(axis=1)), size - 1])
        segments.append(np.column_stack([steps[index], line[index]]))
    return segments
