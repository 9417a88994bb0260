"""Heat maps of coefficients."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from moejax.plots._style import GREY, MINUS, NORMAL, SMALL, axes_or_new, size_in_points

_MOST_NUMBERS = 300  # largest number of texts in a heat map; a thousand texts take a second to draw


def cell_in_points(ax: Any, columns: float, rows: int) -> tuple[float, float]:
    """Return the approximate width and height of a cell in points, less the room for labels and colour bar."""
    width, height = size_in_points(ax)
    return 0.85 * width / columns, 0.85 * height / rows


def coloured(table: np.ndarray, names: list[str], ax: Axes | None) -> tuple[Any, Any, float]:
    """Draw a heat map (K, d) in Axes of a suitable size; return the Axes, the image and the largest magnitude."""
    experts, features = table.shape
    inches = float(np.clip(2.4 + 0.52 * features, 4.5, 13.0))
    name_inches = 0.04 * max(len(name) for name in names)  # slanted names take room from the rows
    ax = axes_or_new(ax, (inches, float(np.clip(1.1 + name_inches + 0.45 * experts, 2.3, 9.0))))
    largest = float(np.abs(table).max()) or 1.0
    image = ax.imshow(
        table, cmap="RdBu_r", norm=Normalize(-largest, largest), aspect="auto", interpolation="nearest", origin="upper"
    )
    return ax, image, largest


def framed(ax: Axes, image: Any, rows: list[str], features: int, height: float, label: str) -> Axes:
    """Add row names, gaps between cells and a colour bar to a heat map whose rows are `height` points high."""
    stride = max(1, ceil(11.0 / height))
    ax.set_yticks(np.arange(len(rows))[::stride], rows[::stride])
    _gaps_between_cells(ax, len(rows), features)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05, aspect=15)
    bar.set_label(label, fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL, length=2)
    bar.outline.set_visible(False)
    return ax


def write_cells(ax: Any, table: np.ndarray, texts: list[str], largest: float, width: float, height: float) -> None:
    """Write a text into each cell, of `width` and `height` points, if every text is large enough to read.

    A text is black, or white on a dark colour.
    """
    size = min(SMALL, width / (0.68 * max(len(text) for text in texts)), 0.8 * height)
    if size < 5.0 or table.size > _MOST_NUMBERS:
        return
    for ((k, j), number), text in zip(np.ndenumerate(table), texts, strict=True):
        is_dot = text == "·"
        colour = GREY if is_dot else "white" if abs(number) > 0.6 * largest else "black"
        ax.text(j, k, text, ha="center", va="center", fontsize=2.0 * size if is_dot else size, color=colour)


def number_text(value: float, largest: float) -> str:
    """Return `value` as a short text, with decimals that suit numbers up to the magnitude `largest`."""
    if value == 0.0:
        return "0"
    if not 1e-2 <= largest < 1e5:
        return f"{value:.1e}".replace("-", MINUS).replace("e+0", "e").replace(f"e{MINUS}0", f"e{MINUS}")
    decimals = 3 if largest < 0.1 else 2 if largest < 10 else 1 if largest < 100 else 0
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", MINUS)


def write_column_labels(ax: Any, ticks: np.ndarray, names: list[str], width: float) -> None:
    """Write names below the columns, which are `width` points wide, and "intercept" below a column without a name.

    Names are slanted if they are wider than a column. If slanted names do not fit either, only every second (or third, ...)
    name is written.
    """
    is_slanted = max(len(name) for name in names) * 0.62 * SMALL > width
    stride = max(1, ceil((1.3 * 1.42 * SMALL if is_slanted else 0.0) / width))
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if is_slanted else {}
    intercepts = list(ticks[len(names) :])
    labels = [*names[::stride], *["intercept" for _ in intercepts]]
    ax.set_xticks([*ticks[: len(names) : stride], *intercepts], labels, **slant)
    ax.tick_params(labelsize=SMALL, length=0)


def _gaps_between_cells(ax: Any, experts: int, features: int) -> None:
    """Draw white lines between the cells and remove the frame."""
    for spine in ax.spines.values():
        spine.set_visible(False)
    columns = LineCollection([[(j - 0.5, -0.5), (j - 0.5, experts - 0.5)] for j in range(1, features)])
    rows = LineCollection([[(-0.5, k - 0.5), (features - 0.5, k - 0.5)] for k in range(1, experts)])
    for lines in (columns, rows):
        lines.set(color="white", linewidth=1.2)
        ax.add_collection(lines, autolim=False)
