"""Figures of coefficients: of experts, of what is tied, along a path of penalties."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from moejax import _checks
from moejax.plots._arguments import as_numbers, as_penalties, names_of_experts, names_of_features
from moejax.plots._cells import cell_in_points, coloured, framed, number_text, write_cells, write_column_labels
from moejax.plots._scales import axis_of_penalties, chosen_line
from moejax.plots._style import GREY, SMALL, axes_or_new, colour_of, dash_of, finish_axes, size_in_points

_MOST_LABELS = 12  # of lines of a coefficient path


def expert_weights(
    weights: Any,
    *,
    feature_names: Sequence[str] | None = None,
    intercept: Any = None,
    shares: Any = None,
    numbers: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Heat map of the experts' coefficients: experts are rows, features columns, and white is 0.

    Cells large enough to be read hold their number, or a middle dot for a coefficient that is exactly 0. Intercepts
    stand in a column of their own, without a colour: they are no coefficients and would drown them.

    Args:
        weights: (K, d), finite, in units of y per unit of the feature.
        feature_names: (d,); x1 to xd if None.
        intercept: (K,), in units of y.
        shares: (K,), the share of samples of each expert, 0 to 1; shown in its label.
        numbers: (K,), the number of each expert, from 0; shown in its label counted from 1. The order of the rows if None.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the colour bar is beside it, in the same figure.
    """
    table = as_numbers("weights", weights, 2, 2, "(K, d)")
    _checks.finite("weights", table)
    experts, features = table.shape
    names = names_of_features(feature_names, features)
    constants = None
    if intercept is not None:
        constants = as_numbers("intercept", intercept, 1)
        _checks.shape("intercept", constants, (experts,), "one number per expert")
        _checks.finite("intercept", constants)
    rows = names_of_experts(experts, shares, numbers)
    ax, image, largest = coloured(table, names, ax)
    width, height = cell_in_points(ax, features + (constants is not None), experts)
    texts = ["·" if number == 0 else number_text(float(number), largest) for number in table.flat]
    write_cells(ax, table, texts, largest, width, height)
    ticks = np.arange(features, dtype=float)
    if constants is not None:
        column = max(1.0, 46.0 / width)  # the width of the word
        ax.set_xlim(-0.5, features - 0.5 + column)
        ticks = np.append(ticks, features - 0.5 + 0.5 * column)
        for k, number in enumerate(constants):
            text = number_text(number, float(np.abs(constants).max()))
            ax.text(ticks[-1], k, text, ha="center", va="center", fontsize=max(4.0, min(SMALL, 0.8 * height)))
    write_column_labels(ax, ticks, names, width)
    return framed(ax, image, rows, features, height, "coefficient")


def tied_groups(
    values: Any,
    groups: Any,
    *,
    feature_names: Sequence[str] | None = None,
    shares: Any = None,
    numbers: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Heat map of tied coefficients: experts are rows, features columns, the colour is the value that a feature's group has.

    White is 0. Cells large enough to be read hold the number of the group within its expert, counted from 1.

    Args:
        values: (K, Q), in units of y per unit of the feature, as `labels` of `experts.tied` returns them; a group without
            features may have any, also NaN.
        groups: (K, d), whole numbers from 0 to Q - 1, the group of each feature.
        feature_names: (d,); x1 to xd if None.
        shares: (K,), the share of samples of each expert, 0 to 1; shown in its label.
        numbers: (K,), the number of each expert, from 0; shown in its label counted from 1. The order of the rows if None.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes; the colour bar is beside it, in the same figure.
    """
    of_groups = as_numbers("values", values, 2, 2, "(K, Q)")
    member = as_numbers("groups", groups, 2, 2, "(K, d)")
    experts, features = member.shape
    _checks.shape("values", of_groups, (experts, None), "a row for each expert, as in groups")
    _checks.whole("groups", member, 0, of_groups.shape[1] - 1)
    member = member.astype(int)
    table = np.take_along_axis(of_groups, member, axis=1)
    _checks.finite("values of groups with features", table)
    names, rows = names_of_features(feature_names, features), names_of_experts(experts, shares, numbers)
    ax, image, largest = coloured(table, names, ax)
    width, height = cell_in_points(ax, features, experts)
    write_cells(ax, table, [str(q + 1) for q in member.flat], largest, width, height)
    write_column_labels(ax, np.arange(features, dtype=float), names, width)
    return framed(ax, image, rows, features, height, "value of the group")


def coefficient_path(
    penalty: Any,
    coefficients: Any,
    *,
    feature_names: Sequence[str] | None = None,
    chosen: float | None = None,
    penalty_label: str = "penalty weight",
    ax: Axes | None = None,
) -> Axes:
    """Coefficients against the penalty, one line per expert and feature, coloured by expert.

    The strongest lines (largest absolute coefficient anywhere on the path) carry the name of their feature at the end
    of the smallest penalty, where coefficients differ most; their scale is therefore on the right.

    Args:
        penalty: (P,), none below 0, in any order. The axis is that of `validation_error`.
        coefficients: (P, d) or (P, K, d), in units of y per unit of the feature; NaN and infinities leave gaps.
        feature_names: (d,); x1 to xd if None.
        chosen: the penalty that was chosen, between the smallest and the largest in `penalty`.
        penalty_label: name of the penalty.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    grid, order = as_penalties(penalty, chosen)
    paths = as_numbers("coefficients", coefficients, 2, 3, "(P, d) or (P, K, d)")
    if len(paths) != len(grid):
        raise ValueError(f"coefficients: {len(paths)} rows were given for {len(grid)} penalties; want one per penalty")
    paths = paths[:, None, :] if paths.ndim == 2 else paths
    experts, features = paths.shape[1:]
    names = names_of_features(feature_names, features)
    paths = np.where(np.isfinite(paths), paths, np.nan)
    ax = axes_or_new(ax, (7.4, 4.6))
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    strength = np.abs(np.nan_to_num(paths)).max(axis=0)
    bold = _strongest(strength, _room_for_labels(ax))
    for k, j in np.ndindex(experts, features):
        width, alpha, level = (1.7, 1.0, 3) if (k, j) in bold else (0.9, 0.45, 2)
        ax.plot(
            grid[order], paths[order, k, j], color=colour_of(k), linestyle=dash_of(k), lw=width, alpha=alpha, zorder=level
        )
    keys = []
    if experts > 1:
        keys = [
            Line2D([], [], color=colour_of(k), linestyle=dash_of(k), lw=1.7, label=f"expert {k + 1}") for k in range(experts)
        ]
    if chosen is not None:
        keys.append(chosen_line(ax, chosen))
    finish_axes(ax, penalty_label, "coefficient", keys)
    axis_of_penalties(ax)
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.spines["right"].set_visible(True)
    ax.spines["left"].set_visible(False)
    _name_lines(ax, grid[order], paths[order], bold, names)
    return ax


def _room_for_labels(ax: Any) -> int:
    return max(1, min(_MOST_LABELS, floor(size_in_points(ax)[1] / (1.5 * SMALL))))


def _strongest(strength: np.ndarray, most: int) -> set[tuple[int, int]]:
    """(expert, feature) of the at most `most` largest entries of `strength` (K, d), but of none that is next to 0."""
    best = np.argsort(-strength, axis=None, kind="stable")[:most]
    pairs = [divmod(int(i), strength.shape[1]) for i in best]
    return {pair for pair in pairs if strength[pair] > 0.03 * strength.max()}


def _name_lines(ax: Any, grid: np.ndarray, paths: np.ndarray, bold: set[tuple[int, int]], names: list[str]) -> None:
    """The names of the `bold` lines left of the Axes, each joined to the first point of its line."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    ends = []
    for k, j in sorted(bold):
        first = int(np.flatnonzero(np.isfinite(paths[:, k, j]))[0])
        ends.append((float(paths[first, k, j]), float(grid[first]), k, j))
    if not ends:
        return
    ends.sort()
    wanted = np.array([(end[0] - low) / (high - low) for end in ends])
    places = _spread(wanted, 1.45 * SMALL / size_in_points(ax)[1])
    for (value, at, k, j), place in zip(ends, places, strict=True):
        leader = {"arrowstyle": "-", "color": colour_of(k), "lw": 0.6, "relpos": (1, 0.5), "shrinkA": 1, "shrinkB": 0}
        ax.annotate(
            names[j], (at, value), (-0.035, place), textcoords="axes fraction", ha="right", va="center",
            fontsize=SMALL, color=colour_of(k), arrowprops=leader, annotation_clip=False,
        )  # fmt: skip


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """The places in [0, 1], in the order of `wanted` and `gap` apart, with the least squared distance from it.

    Places less their rank times `gap` only have to rise: an isotonic regression, by pooling neighbours that do not.
    """
    pools: list[tuple[float, int]] = []
    for i, place in enumerate(wanted):
        mean, size = float(place) - i * gap, 1
        while pools and pools[-1][0] >= mean:
            before, count = pools.pop()
            mean, size = (before * count + mean * size) / (count + size), count + size
        pools.append((mean, size))
    base = np.concatenate([np.full(size, mean) for mean, size in pools])
    top = max(0.0, 1.0 - gap * (len(wanted) - 1))
    return np.clip(base, 0.0, top) + gap * np.arange(len(wanted))
