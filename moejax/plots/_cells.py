"""Heat maps."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from moejax.plots._style import GREY, MINUS, NORMAL, SMALL, axes_or_new, size_in_points

_MOST_NUMBERS = 300  # in a heat map: each is a text, and a thousand texts take a second


def cell_in_points(ax: Any, columns: float, rows: int) -> tuple[float, float]:
    """Width and height of a cell, with what the labels and the colour bar will take off the Axes guessed."""
    width, height = size_in_points(ax)
    return 0.85 * width / columns, 0.85 * height / rows


def coloured(table: np.ndarray, names: list[str], ax: Axes | None) -> tuple[Any, Any, float]:
    """A heat map of experts by features, in Axes of a size that fits them, its image, and the number that is darkest."""
    experts, features = table.shape
    inches = float(np.clip(2.4 + 0.52 * features, 4.5, 13.0))
    longest = 0.04 * max(len(name) for name in names)  # slanted names take room from the rows
    ax = axes_or_new(ax, (inches, float(np.clip(1.1 + longest + 0.45 * experts, 2.3, 9.0))))
    largest = float(np.abs(table).max()) or 1.0
    image = ax.imshow(  # type: ignore[union-attr]
        table, cmap="RdBu_r", norm=Normalize(-largest, largest), aspect="auto", interpolation="nearest", origin="upper"
    )
    return ax, image, largest


def framed(ax: Any, image: Any, rows: list[str], features: int, height: float, label: str) -> Axes:
    """A heat map with the names of its rows, of `height` points, gaps between its cells, and a colour bar."""
    every = max(1, ceil(11.0 / height))
    ax.set_yticks(np.arange(len(rows))[::every], rows[::every])
    _gaps_between_cells(ax, len(rows), features)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05, aspect=15)
    bar.set_label(label, fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL, length=2)
    bar.outline.set_visible(False)
    return ax


def write_cells(ax: Any, table: np.ndarray, texts: list[str], largest: float, width: float, height: float) -> None:
    """The text of each cell, of `width` and `height` points, if all can be read: black, or white on a dark colour."""
    size = min(SMALL, width / (0.68 * max(len(text) for text in texts)), 0.8 * height)
    if size < 5.0 or table.size > _MOST_NUMBERS:
        return
    for ((k, j), number), text in zip(np.ndenumerate(table), texts, strict=True):
        dot = text == "·"
        colour = GREY if dot else "white" if abs(number) > 0.6 * largest else "black"
        ax.text(j, k, text, ha="center", va="center", fontsize=2.0 * size if dot else size, color=colour)


def number_text(value: float, largest: float) -> str:
    """`value` in few characters, to the digits that matter where `largest` is the largest of its kind."""
    if value == 0.0:
        return "0"
    if not 1e-2 <= largest < 1e5:
        return f"{value:.1e}".replace("-", MINUS).replace("e+0", "e").replace(f"e{MINUS}0", f"e{MINUS}")
    decimals = 3 if largest < 0.1 else 2 if largest < 10 else 1 if largest < 100 else 0
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", MINUS)


def write_column_labels(ax: Any, ticks: np.ndarray, names: list[str], width: float) -> None:
    """Names below the columns of `width` points, level or slanted; every so many of very many; then the intercept."""
    slanted = max(len(name) for name in names) * 0.62 * SMALL > width
    every = max(1, ceil((1.3 * 1.42 * SMALL if slanted else 0.0) / width))
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    rest = list(ticks[len(names) :])
    ax.set_xticks([*ticks[: len(names) : every], *rest], [*names[::every], *["intercept" for _ in rest]], **slant)
    ax.tick_params(labelsize=SMALL, length=0)


def _gaps_between_cells(ax: Any, experts: int, features: int) -> None:
    """White lines between the cells, and no frame."""
    for spine in ax.spines.values():
        spine.set_visible(False)
    columns = LineCollection([[(j - 0.5, -0.5), (j - 0.5, experts - 0.5)] for j in range(1, features)])
    rows = LineCollection([[(-0.5, k - 0.5), (features - 0.5, k - 0.5)] for k in range(1, experts)])
    for lines in (columns, rows):
        lines.set(color="white", linewidth=1.2)
        ax.add_collection(lines, autolim=False)
