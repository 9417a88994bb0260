"""Figures of gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from moejax.plots._style import GREY, MINUS, NORMAL, SMALL, axes_or_new, colour_of


def gate_tree(branches: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """A hierarchical gate from its first split at the left to its experts at the right, branches as wide as their shares.

    Args:
        branches: records with `above`, `expert`, `share`, `coefficients` and `name`, as `branches` of the gate returns them.
            The coefficients stand above a branch; of a split into two, those of the first less those of the second.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    if not branches or any(not hasattr(branch, "above") for branch in branches):
        raise ValueError(f"branches: {branches!r} was given; want what `branches` of a hierarchical gate returns")
    depth, height = _places(branches)
    experts = sum(branch.expert is not None for branch in branches)
    ax = axes_or_new(ax, (2.6 * max(depth) + 1.6, 0.75 * experts + 0.5))
    for i, branch in enumerate(branches):
        siblings = [height[j] for j, other in enumerate(branches) if other.above == branch.above]
        start = depth[i] - 1, (min(siblings) + max(siblings)) / 2
        colour = GREY if branch.expert is None else colour_of(branch.expert)
        width = 1.5 if branch.share is None else 0.8 + 7 * branch.share
        bend = [start[0], start[0], depth[i]], [start[1], height[i], height[i]]
        ax.plot(
            *bend, color=colour, lw=width, solid_joinstyle="round", solid_capstyle="round", zorder=1 + (branch.share or 0)
        )
        told = "\n".join(f"{value:+.2f} {name}" for name, value in branch.coefficients).replace("-", MINUS)
        above: dict[str, Any] = {"xytext": (0, 2 + width / 2), "textcoords": "offset points", "va": "bottom", "ha": "center"}
        ax.annotate(told, (depth[i] - 0.5, height[i]), fontsize=SMALL, linespacing=1.05, **above)
        if branch.expert is not None:
            beside: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(branch.name, (depth[i], height[i]), fontsize=NORMAL, **beside)
    ax.set_xlim(-0.05, max(depth) + 0.55)
    ax.set_ylim(min(height) - 0.4, max(height) + 0.75)
    ax.set_axis_off()
    return ax


def _places(branches: Sequence[Any]) -> tuple[list[int], list[float]]:
    """How many splits each branch is from the left, and its height: experts one below another, splits between theirs."""
    depth: list[int] = []
    for branch in branches:  # a split comes before what is below it
        depth.append(1 if branch.above < 0 else depth[branch.above] + 1)
    height = [0.0] * len(branches)
    free = iter(range(0, -len(branches), -1))

    def settle(above: int) -> None:
        for i, branch in enumerate(branches):
            if branch.above == above:
                if branch.expert is None:
                    settle(i)
                    below = [height[j] for j, other in enumerate(branches) if other.above == i]
                    height[i] = (min(below) + max(below)) / 2
                else:
                    height[i] = float(next(free))

    settle(-1)
    return depth, height
