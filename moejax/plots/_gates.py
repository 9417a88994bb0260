"""Figures of gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from moejax import _checks
from moejax.plots._style import GREY, MINUS, NORMAL, SMALL, axes_or_new, colour_of


def gate_tree(branches: Sequence[Any], *, ax: Axes | None = None) -> Axes:
    """Draw the tree of a hierarchical gate.

    The first split is on the left and the experts are on the right. The width of a branch grows with its share of the rows.

    Parameters
    ----------
    branches : sequence of records
        Branches of the tree, as the method `branches` of a hierarchical gate returns them. A record has the attributes
        `above` (int, index of the branch that leads to its split; -1 at the first split), `expert` (int, or None for a
        split), `share` (float from 0 to 1, or None), `coefficients` (pairs of feature name and value) and `name` (str).
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the figure.

    Raises
    ------
    ValueError
        If `branches` is empty or holds other records, or if `ax` is not two-dimensional Axes.

    Notes
    -----
    Coefficients are written above their branch. At a split into two branches, only the difference of the two coefficient
    vectors matters: the first branch shows the first vector minus the second.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import gates, plots
    >>> gate = gates.hierarchical(((0, 1), 2))
    >>> params = {"weights": np.eye(4, 3), "intercept": np.zeros(4)}
    >>> ax = plots.gate_tree(gate.branches(params, shares=[0.2, 0.5, 0.3]))
    >>> len(ax.get_lines())
    4
    """
    wanted = "what `branches` of a hierarchical gate returns"
    branches = _checks.sequence("branches", branches, wanted)
    if not branches or any(not hasattr(branch, "above") for branch in branches):
        raise ValueError(f"branches: {_checks.shown(branches)} was given; want {wanted}")
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
        text = "\n".join(f"{value:+.2f} {name}" for name, value in branch.coefficients).replace("-", MINUS)
        above_line: dict[str, Any] = {
            "xytext": (0, 2 + width / 2),
            "textcoords": "offset points",
            "va": "bottom",
            "ha": "center",
        }
        ax.annotate(text, (depth[i] - 0.5, height[i]), fontsize=SMALL, linespacing=1.05, **above_line)
        if branch.expert is not None:
            right_of_end: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(branch.name, (depth[i], height[i]), fontsize=NORMAL, **right_of_end)
    ax.set_xlim(-0.05, max(depth) + 0.55)
    ax.set_ylim(min(height) - 0.4, max(height) + 0.75)
    ax.set_axis_off()
    return ax


def _places(branches: Sequence[Any]) -> tuple[list[int], list[float]]:
    """Return the depth and the height of each branch.

    The depth is the number of splits from the left. Experts are one below another. A split is halfway between the highest
    and the lowest branch below it.
    """
    depth: list[int] = []
    for branch in branches:  # a branch comes before the branches below it
        depth.append(1 if branch.above < 0 else depth[branch.above] + 1)
    height = [0.0] * len(branches)
    expert_heights = iter(range(0, -len(branches), -1))

    def set_heights(above: int) -> None:
        for i, branch in enumerate(branches):
            if branch.above == above:
                if branch.expert is None:
                    set_heights(i)
                    children = [height[j] for j, other in enumerate(branches) if other.above == i]
                    height[i] = (min(children) + max(children)) / 2
                else:
                    height[i] = float(next(expert_heights))

    set_heights(-1)
    return depth, height
