"""Figures of coefficients: of experts, of tied groups, and along a path of penalties."""

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

_MOST_LABELS = 12  # largest number of named lines of a coefficient path


def expert_weights(
    weights: Any,
    *,
    feature_names: Sequence[str] | None = None,
    intercept: Any = None,
    shares: Any = None,
    numbers: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a heat map of the experts' coefficients: experts are rows, features are columns, and white means 0.

    Parameters
    ----------
    weights : array_like, shape (K, d)
        Finite coefficients, in units of y per unit of the feature.
    feature_names : sequence of str, length d, optional
        Names of the features. If None (the default), the names are x1 to xd.
    intercept : array_like, shape (K,), optional
        Intercepts, in units of y. If None (the default), they are not shown.
    shares : array_like, shape (K,), optional
        Share of the samples of each expert, from 0 to 1, which is written in the row label. If None (the default), no shares
        are written.
    numbers : sequence of int, length K, optional
        Number of each expert, counted from 0, which is written in the row label, counted from 1. If None (the default), the
        numbers are 0 to K - 1.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the heat map. The colour bar has Axes of its own in the same figure.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values.

    Notes
    -----
    If the cells are large enough, each holds its number, or a middle dot for a coefficient that is exactly 0. Intercepts are
    in a separate column without colour: they have other units, and are often so large that the coefficients would be almost
    white.

    Examples
    --------
    >>> from moejax import plots
    >>> ax = plots.expert_weights([[1.0, 0.0], [-0.5, 2.0]], feature_names=["age", "sex"], shares=[0.4, 0.6])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['expert 1 (40%)', 'expert 2 (60%)']
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
        column = max(1.0, 46.0 / width)  # the width of the word "intercept", in cells
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
    """Draw a heat map of tied coefficients: experts are rows, features are columns, and white means 0.

    The colour of a cell is the value of the feature's group.

    Parameters
    ----------
    values : array_like, shape (K, Q)
        Value of each group, in units of y per unit of the feature, as the method `labels` of `experts.tied` returns them.
        The value of a group without features is ignored and may be NaN.
    groups : array_like of int, shape (K, d)
        Group of each feature, from 0 to Q - 1.
    feature_names : sequence of str, length d, optional
        Names of the features. If None (the default), the names are x1 to xd.
    shares : array_like, shape (K,), optional
        Share of the samples of each expert, from 0 to 1, which is written in the row label. If None (the default), no shares
        are written.
    numbers : sequence of int, length K, optional
        Number of each expert, counted from 0, which is written in the row label, counted from 1. If None (the default), the
        numbers are 0 to K - 1.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the heat map. The colour bar has Axes of its own in the same figure.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values.

    Notes
    -----
    If the cells are large enough, each holds the number of the feature's group within the expert, counted from 1.

    Examples
    --------
    >>> from moejax import plots
    >>> ax = plots.tied_groups([[-1.0, 2.0], [0.0, 1.0]], [[0, 1, 1], [1, 1, 0]])
    >>> [text.get_text() for text in ax.texts]
    ['1', '2', '2', '2', '2', '1']
    """
    group_values = as_numbers("values", values, 2, 2, "(K, Q)")
    members = as_numbers("groups", groups, 2, 2, "(K, d)")
    experts, features = members.shape
    _checks.shape("values", group_values, (experts, None), "a row for each expert, as in groups")
    _checks.whole("groups", members, 0, group_values.shape[1] - 1)
    members = members.astype(int)
    table = np.take_along_axis(group_values, members, axis=1)
    _checks.finite("values of groups with features", table)
    names, rows = names_of_features(feature_names, features), names_of_experts(experts, shares, numbers)
    ax, image, largest = coloured(table, names, ax)
    width, height = cell_in_points(ax, features, experts)
    write_cells(ax, table, [str(q + 1) for q in members.flat], largest, width, height)
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
    """Draw coefficients against the penalty, one line per expert and feature, coloured by expert.

    Parameters
    ----------
    penalty : array_like, shape (P,)
        Penalties, in any order. None of them is negative.
    coefficients : array_like, shape (P, d) or (P, K, d)
        Coefficients at each penalty, in units of y per unit of the feature. NaN and infinite values are gaps in a line.
    feature_names : sequence of str, length d, optional
        Names of the features. If None (the default), the names are x1 to xd.
    chosen : float, optional
        Penalty that was chosen, between the smallest and the largest in `penalty`. It is drawn as a vertical line. If None
        (the default), there is no such line.
    penalty_label : str, default "penalty weight"
        Name of the penalty.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the figure. The scale of the coefficients is on the right.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values.

    Notes
    -----
    The axis of the penalty is the axis of `validation_error`. The (at most 12) lines with the largest magnitude anywhere on
    the path are bold. The name of their feature is written on the left, at the smallest penalty, where coefficients
    differ most.

    Examples
    --------
    >>> from moejax import plots
    >>> ax = plots.coefficient_path([0.01, 0.1, 1.0], [[2.0, 1.0], [1.5, 0.2], [0.0, 0.0]], chosen=0.1)
    >>> sorted(text.get_text() for text in ax.texts)
    ['x1', 'x2']
    """
    _checks.text("penalty_label", penalty_label)
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
    labelled = _strongest(strength, _room_for_labels(ax))
    for k, j in np.ndindex(experts, features):
        width, alpha, level = (1.7, 1.0, 3) if (k, j) in labelled else (0.9, 0.45, 2)
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
    _name_lines(ax, grid[order], paths[order], labelled, names)
    return ax


def _room_for_labels(ax: Any) -> int:
    """Return how many line names fit beside the Axes."""
    return max(1, min(_MOST_LABELS, floor(size_in_points(ax)[1] / (1.5 * SMALL))))


def _strongest(strength: np.ndarray, most: int) -> set[tuple[int, int]]:
    """Return the (expert, feature) pairs of the `most` largest entries of `strength` (K, d), without entries close to 0."""
    largest = np.argsort(-strength, axis=None, kind="stable")[:most]
    pairs = [divmod(int(i), strength.shape[1]) for i in largest]
    return {pair for pair in pairs if strength[pair] > 0.03 * strength.max()}


def _name_lines(ax: Any, grid: np.ndarray, paths: np.ndarray, labelled: set[tuple[int, int]], names: list[str]) -> None:
    """Write the names of the `labelled` lines to the left of the Axes, each joined to the first point of its line."""
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    ends = []
    for k, j in sorted(labelled):
        first = int(np.flatnonzero(np.isfinite(paths[:, k, j]))[0])
        ends.append((float(paths[first, k, j]), float(grid[first]), k, j))
    if not ends:
        return
    ends.sort()
    wanted = np.array([(end[0] - low) / (high - low) for end in ends])
    places = _spread(wanted, 1.45 * SMALL / size_in_points(ax)[1])
    for (value, penalty, k, j), place in zip(ends, places, strict=True):
        leader = {"arrowstyle": "-", "color": colour_of(k), "lw": 0.6, "relpos": (1, 0.5), "shrinkA": 1, "shrinkB": 0}
        ax.annotate(
            names[j], (penalty, value), (-0.035, place), textcoords="axes fraction", ha="right", va="center",
            fontsize=SMALL, color=colour_of(k), arrowprops=leader, annotation_clip=False,
        )  # fmt: skip


def _spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Return places in [0, 1], at least `gap` apart, with the smallest sum of squared distances from `wanted`.

    `wanted` is in rising order, and so are the places. A place minus its rank times `gap` only has to be nondecreasing,
    which makes this an isotonic regression. It is solved by pooling adjacent violators.
    """
    pools: list[tuple[float, int]] = []
    for i, place in enumerate(wanted):
        mean, size = float(place) - i * gap, 1
        while pools and pools[-1][0] >= mean:
            last_mean, last_size = pools.pop()
            mean, size = (last_mean * last_size + mean * size) / (last_size + size), last_size + size
        pools.append((mean, size))
    base = np.concatenate([np.full(size, mean) for mean, size in pools])
    top = max(0.0, 1.0 - gap * (len(wanted) - 1))
    places: np.ndarray = np.clip(base, 0.0, top) + gap * np.arange(len(wanted))
    return places
