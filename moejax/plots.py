"""Figures of fits and sweeps: each takes arrays and a matplotlib Axes, and returns the Axes.

    ax = training_loss(history)             # a figure of its own: ax.figure.savefig("loss.png", dpi=120)
    ax = training_loss(history, ax=ax)      # into Axes that you made, with pyplot or without

An array is anything that `numpy.asarray` takes. In shapes, n counts samples, d features, K experts, M members of a
grid, T training steps, P penalties, R restarts. Experts are counted from 0 in arrays and from 1 in labels. Nothing is
shown or saved, matplotlib's settings are left alone, and pyplot is not imported. Legends stand in a row above the Axes,
where no data can be: let a title be the figure's (`ax.figure.suptitle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from math import ceil, floor, log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from moejax import _checks

__all__ = [
    "PALETTE",
    "calibration",
    "coefficient_path",
    "conditional_density",
    "expert_weights",
    "gate_tree",
    "sample_3d",
    "tied_groups",
    "training_loss",
    "true_vs_predicted",
    "validation_error",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""The eight colours of Okabe and Ito (2008), which colour-blind readers can tell apart, strongest on white first."""

_GREY = "#777777"
_CHOSEN = "#222222"  # no expert has it but the seventh, and that one has no vertical line
_MINUS = "\N{MINUS SIGN}"  # as wide as a plus, where a hyphen is not
_SMALL, _NORMAL, _TITLE = 8.0, 9.5, 11.0  # sizes of text in points
_MARKERS, _DASHES = "o^sD", ("-", "--", ":", "-.")  # tell a ninth expert from the first, whose colour it has
_MOST_VERTICES = 250_000  # beyond, hundreds of lines take seconds to draw and no pixel shows the difference
_MOST_NUMBERS = 300  # in a heat map: each is a text, and a thousand texts take a second
_MOST_LABELS = 12  # of lines of a coefficient path
_MOST_NAMED = 8  # members of a grid that can each have a colour


def training_loss(
    history: Any,
    *,
    steps: Any = None,
    labels: Sequence[str] | None = None,
    highlight: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Training loss against the step, one line a member.

    The loss has a logarithmic axis where all of it is positive and spans more than a decade. A history that is finite up
    to some step and NaN from there to the end is of a fit that stopped: it ends early, with a dot. Members with a NaN or an
    infinity anywhere else are left out. The legend says how many there are of either.

    Args:
        history: (T,) or (M, T), losses in the units of the objective, as a fit returns them.
        steps: (T,), the step of each loss; 1 to T if None.
        labels: (M,), names of the members. Up to eight members have a colour and a place in the legend each; of more,
            only the highlighted one is named.
        highlight: index of a member to draw bold; its history must be one that is drawn.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    lines = _numbers("history", history, 1, 2, "(T,) or (M, T)")
    lines = lines[None] if lines.ndim == 1 else lines
    members, length = lines.shape
    at = np.arange(1.0, length + 1.0) if steps is None else _numbers("steps", steps, 1)
    _checks.shape("steps", at, (length,), "one step per column of history")
    _checks.finite("steps", at)
    names = None if labels is None else _names("labels", labels, members, "one per member")
    sizes = _finite_beginnings(lines)
    shown, early = sizes > 0, (sizes > 0) & (sizes < length)
    if highlight is not None:
        _check_highlight(highlight, shown)
    ax = _axes(ax, (6.4, 4.0))
    named = names is not None and members <= _MOST_NAMED
    rest = np.flatnonzero(shown & (np.arange(members) != (-1 if highlight is None else highlight)))
    crowd = rest.size > _MOST_NAMED
    segments = _segments(at, lines[rest], sizes[rest])
    colours = [PALETTE[i % len(PALETTE)] for i in rest] if named else ["#5B6B7A" if crowd else PALETTE[0]]
    width, alpha = (0.6, float(np.clip(20.0 / rest.size, 0.12, 0.5))) if crowd else (1.2, 0.8)
    ax.add_collection(LineCollection(segments, colors=colours, linewidths=width, alpha=alpha))
    ends = np.array([segment[-1] for segment, i in zip(segments, rest, strict=True) if early[i]])
    if ends.size:
        dots = [colour for colour, i in zip(cycle(colours), rest, strict=False) if early[i]]
        ax.scatter(ends[:, 0], ends[:, 1], s=5.0 if crowd else 14.0, c=dots, alpha=max(alpha, 0.4), linewidths=0)
    keys: list[Line2D] = []
    if names is not None and named:
        keys += [Line2D([], [], color=PALETTE[i], linewidth=1.5, label=names[i]) for i in rest]
    elif members > 1 and rest.size:
        text = f"{rest.size} {'other ' if highlight is not None else ''}member{'s' if rest.size > 1 else ''}"
        keys.append(Line2D([], [], color=colours[0], linewidth=1.2, alpha=0.8, label=text))
    if highlight is not None:
        colour = PALETTE[highlight] if named else PALETTE[1]
        name = f"member {highlight}" if names is None else names[highlight]
        size, dot = sizes[highlight], "o" if early[highlight] else ""
        ax.plot(
            at[:size], lines[highlight, :size], color=colour, linewidth=2.4, marker=dot, markevery=[int(size) - 1],
            markersize=5.0, zorder=3,
        )  # fmt: skip
        keys.append(Line2D([], [], color=colour, linewidth=2.4, label=name))
    if early.any():
        text = f"{early.sum()} of {members} end early"
        keys.append(Line2D([], [], linestyle="", marker="o", markersize=4, color=_GREY, label=text))
    if not shown.all():
        keys.append(_note(f"{np.sum(~shown)} of {members} not finite, left out"))
    _axis_of_values(ax, np.concatenate([lines[i, : sizes[i]] for i in range(members)]))
    ax.autoscale_view()
    _finish(ax, "training step", "training loss", keys)
    return ax


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
    table = _numbers("weights", weights, 2, 2, "(K, d)")
    _checks.finite("weights", table)
    experts, features = table.shape
    names = _feature_names(feature_names, features)
    constants = None
    if intercept is not None:
        constants = _numbers("intercept", intercept, 1)
        _checks.shape("intercept", constants, (experts,), "one number per expert")
        _checks.finite("intercept", constants)
    rows = _expert_names(experts, shares, numbers)
    ax, image, largest = _coloured(table, names, ax)
    width, height = _cell_in_points(ax, features + (constants is not None), experts)
    texts = ["·" if number == 0 else _number(float(number), largest) for number in table.flat]
    _write_cells(ax, table, texts, largest, width, height)
    ticks = np.arange(features, dtype=float)
    if constants is not None:
        column = max(1.0, 46.0 / width)  # the width of the word
        ax.set_xlim(-0.5, features - 0.5 + column)
        ticks = np.append(ticks, features - 0.5 + 0.5 * column)
        for k, number in enumerate(constants):
            text = _number(number, float(np.abs(constants).max()))
            ax.text(ticks[-1], k, text, ha="center", va="center", fontsize=max(4.0, min(_SMALL, 0.8 * height)))
    _column_labels(ax, ticks, names, width)
    return _framed(ax, image, rows, features, height, "coefficient")


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
    of_groups = _numbers("values", values, 2, 2, "(K, Q)")
    member = _numbers("groups", groups, 2, 2, "(K, d)")
    experts, features = member.shape
    _checks.shape("values", of_groups, (experts, None), "a row for each expert, as in groups")
    _checks.whole("groups", member, 0, of_groups.shape[1] - 1)
    member = member.astype(int)
    table = np.take_along_axis(of_groups, member, axis=1)
    _checks.finite("values of groups with features", table)
    names, rows = _feature_names(feature_names, features), _expert_names(experts, shares, numbers)
    ax, image, largest = _coloured(table, names, ax)
    width, height = _cell_in_points(ax, features, experts)
    _write_cells(ax, table, [str(q + 1) for q in member.flat], largest, width, height)
    _column_labels(ax, np.arange(features, dtype=float), names, width)
    return _framed(ax, image, rows, features, height, "value of the group")


def true_vs_predicted(y: Any, prediction: Any, *, expert: Any = None, ax: Axes | None = None) -> Axes:
    """Predicted against true target, with the diagonal, R² and the mean squared error.

    Args:
        y: (n,), true targets, finite and not all equal, or R² would have no meaning.
        prediction: (n,), finite, in the units of y.
        expert: (n,), whole numbers: the expert of each sample, which gives the colour.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes, both of whose axes have the same scale.
    """
    true = _numbers("y", y, 1)
    _checks.finite("y", true)
    guess = _numbers("prediction", prediction, 1)
    _checks.shape("prediction", guess, true.shape, "one number per target in y")
    _checks.finite("prediction", guess)
    if np.ptp(true) == 0:
        raise ValueError(f"y: {true.size} times {true[0]:g} was given; want targets that vary, or R² has no meaning")
    labels = None if expert is None else _labels(expert, true.size)
    ax = _axes(ax, (4.9, 5.0))
    keys = _clouds(ax, (true, guess), labels)
    low, high = float(min(true.min(), guess.min())), float(max(true.max(), guess.max()))
    ax.plot([low, high], [low, high], color=_GREY, linewidth=1.2, linestyle="--", zorder=3)
    _few_ticks(ax, 44.0)
    pad = 0.04 * (high - low)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    mse = float(np.mean((true - guess) ** 2))
    r2 = f"{1.0 - mse / float(np.var(true)):.4f}".replace("-", _MINUS)
    _in_emptiest_corner(ax, true, guess, f"R² = {r2}\nMSE = {mse:.4g}")
    _finish(ax, "true y", "predicted y", keys)
    return ax


def sample_3d(x: Any, y: Any, expert: Any, *, ax: Axes | None = None) -> Axes:
    """The sample in three dimensions: y over the first two principal components of x, coloured by expert.

    A component's sign is fixed so that its largest loading is positive: the same data give the same picture.

    Args:
        x: (n, d), finite, n and d at least 2, not all rows equal.
        y: (n,), finite.
        expert: (n,), whole numbers: the expert of each sample.
        ax: a 3-D Axes to draw on (`figure.add_subplot(projection="3d")`); a new figure if None.

    Returns:
        The 3-D Axes; the labels of its axes give the share of the variance of x that each component explains.
    """
    inputs = _numbers("x", x, 2, 2, "(n, d)")
    _checks.finite("x", inputs)
    target = _numbers("y", y, 1)
    _checks.shape("y", target, (len(inputs),), "one target per row of x")
    _checks.finite("y", target)
    labels = _labels(expert, len(inputs))
    if min(inputs.shape) < 2:
        raise ValueError(f"x: shape {inputs.shape} was given; want at least 2 rows and 2 columns for two components")
    scores, explained = _principal_components(inputs)
    canvas: Any = _axes(ax, (6.2, 5.0), three_d=True)
    keys = _clouds(canvas, (scores[:, 0], scores[:, 1], target), labels)
    canvas.view_init(elev=20.0, azim=-60.0)
    _few_ticks(canvas, 52.0)
    _finish(canvas, f"component 1 ({explained[0]:.0%} of variance)", f"component 2 ({explained[1]:.0%})", keys)
    canvas.set_zlabel("y", fontsize=_NORMAL)
    _fit_3d(canvas)
    return canvas


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
    """Error on held-out data against the penalty; restarts are points, and the chosen ones a line.

    The penalty has a logarithmic axis, on which 0 has a place of its own, left of a break. The error has one where all
    of it is positive and spans more than a decade. Errors that are NaN or infinite are left out, and the legend says
    how many.

    Args:
        penalty: (P,), none below 0, in any order.
        error: (P,) or (P, R).
        chosen_restart: (P,), whole numbers from 0 to R - 1: the restart that was chosen at each penalty. Without it,
            restarts are points only: the best of them on held-out data is luck, not a choice.
        chosen: the penalty that was chosen, between the smallest and the largest in `penalty`.
        reference: an error to compare with, a horizontal line.
        reference_label: its name in the legend.
        label: name of the error, with its units if any.
        penalty_label: name of the penalty.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    grid, order = _penalties(penalty, chosen)
    errors = _numbers("error", error, 1, 2, "(P,) or (P, R)")
    if len(errors) != len(grid):
        raise ValueError(f"error: {len(errors)} rows were given for {len(grid)} penalties; want one per penalty")
    line = errors if errors.ndim == 1 else None
    if chosen_restart is not None:
        line = _pick(errors, chosen_restart)
    if reference is not None:
        _checks.shape("reference", reference, (), "one number")
        _checks.finite("reference", reference)
    ax = _axes(ax, (6.4, 4.0))
    errors = np.where(np.isfinite(errors), errors, np.nan)
    keys: list[Line2D] = []
    colour = PALETTE[0]
    if errors.ndim == 2:
        at = np.broadcast_to(grid[:, None], errors.shape)[np.isfinite(errors)]
        shown = errors[np.isfinite(errors)]
        ax.scatter(at, shown, s=12, color=colour, alpha=0.35, linewidths=0)
        name = "restart" if line is not None else label
        keys.append(Line2D([], [], color=colour, alpha=0.5, marker="o", markersize=3.5, linestyle="", label=name))
    if line is not None:
        line = np.where(np.isfinite(line), line, np.nan)
        name = "chosen restart" if errors.ndim == 2 else label
        keys += ax.plot(
            grid[order], line[order], color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name, zorder=3
        )
    if chosen is not None:
        keys.append(_chosen_line(ax, chosen))
        _ring(ax, grid, line, chosen)
    if reference is not None:
        keys.append(
            ax.axhline(float(reference), color=_GREY, linewidth=1.4, linestyle="--", zorder=2, label=reference_label)
        )
    lost = int(np.isnan(errors).sum())
    if lost:
        keys.append(_note(f"{lost} of {errors.size} not finite, left out"))
    _axis_of_values(ax, np.append(errors[np.isfinite(errors)], [] if reference is None else [reference]))
    _finish(ax, penalty_label, label, keys)
    _axis_of_penalties(ax)
    return ax


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
    grid, order = _penalties(penalty, chosen)
    paths = _numbers("coefficients", coefficients, 2, 3, "(P, d) or (P, K, d)")
    if len(paths) != len(grid):
        raise ValueError(f"coefficients: {len(paths)} rows were given for {len(grid)} penalties; want one per penalty")
    paths = paths[:, None, :] if paths.ndim == 2 else paths
    experts, features = paths.shape[1:]
    names = _feature_names(feature_names, features)
    paths = np.where(np.isfinite(paths), paths, np.nan)
    ax = _axes(ax, (7.4, 4.6))
    ax.axhline(0.0, color=_GREY, linewidth=0.8, zorder=1)
    strength = np.abs(np.nan_to_num(paths)).max(axis=0)
    bold = _strongest(strength, _room_for_labels(ax))
    for k, j in np.ndindex(experts, features):
        width, alpha, level = (1.7, 1.0, 3) if (k, j) in bold else (0.9, 0.45, 2)
        ax.plot(grid[order], paths[order, k, j], color=_colour(k), linestyle=_dash(k), lw=width, alpha=alpha, zorder=level)
    keys = []
    if experts > 1:
        keys = [
            Line2D([], [], color=_colour(k), linestyle=_dash(k), lw=1.7, label=f"expert {k + 1}") for k in range(experts)
        ]
    if chosen is not None:
        keys.append(_chosen_line(ax, chosen))
    _finish(ax, penalty_label, "coefficient", keys)
    _axis_of_penalties(ax)
    ax.yaxis.tick_right()
    ax.yaxis.set_label_position("right")
    ax.spines["right"].set_visible(True)
    ax.spines["left"].set_visible(False)
    _name_lines(ax, grid[order], paths[order], bold, names)
    return ax


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
    ax = _axes(ax, (2.6 * max(depth) + 1.6, 0.75 * experts + 0.5))
    for i, branch in enumerate(branches):
        siblings = [height[j] for j, other in enumerate(branches) if other.above == branch.above]
        start = depth[i] - 1, (min(siblings) + max(siblings)) / 2
        colour = _GREY if branch.expert is None else _colour(branch.expert)
        width = 1.5 if branch.share is None else 0.8 + 7 * branch.share
        bend = [start[0], start[0], depth[i]], [start[1], height[i], height[i]]
        ax.plot(
            *bend, color=colour, lw=width, solid_joinstyle="round", solid_capstyle="round", zorder=1 + (branch.share or 0)
        )
        told = "\n".join(f"{value:+.2f} {name}" for name, value in branch.coefficients).replace("-", _MINUS)
        above: dict[str, Any] = {"xytext": (0, 2 + width / 2), "textcoords": "offset points", "va": "bottom", "ha": "center"}
        ax.annotate(told, (depth[i] - 0.5, height[i]), fontsize=_SMALL, linespacing=1.05, **above)
        if branch.expert is not None:
            beside: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(branch.name, (depth[i], height[i]), fontsize=_NORMAL, **beside)
    ax.set_xlim(-0.05, max(depth) + 0.55)
    ax.set_ylim(min(height) - 0.4, max(height) + 0.75)
    ax.set_axis_off()
    return ax


def conditional_density(
    at: Any,
    grid: Any,
    density: Any,
    *,
    x: Any = None,
    y: Any = None,
    centres: Any = None,
    shares: Any = None,
    x_label: str = "x",
    y_label: str = "y",
    ax: Axes | None = None,
) -> Axes:
    """The density of y given x, for a single x, as an image: the darker, the denser; with data and centres on top.

    The colour goes by the square root of the density, lest narrow peaks leave the rest white.

    Args:
        at: (a,), rising: the values of x. At least two.
        grid: (g,), rising: the values of y. At least two.
        density: (a, g), none below 0: p(y | x) at each.
        x: (n,) or (n, 1), data to draw as small points; with y.
        y: (n,).
        centres: (a, K), numbers to draw as dots at each x, such as modes or the means of experts; NaN for none.
        shares: (a, K), between 0 and 1: the area of each dot, such as gate probabilities; all the same if None.
        x_label: name of x, with its units if any.
        y_label: name of y.
        ax: where to draw; a new figure if None. The colour bar takes some of its room.

    Returns:
        The Axes.
    """
    across, up = _rising("at", at), _rising("grid", grid)
    values = _numbers("density", density, 2, 2, "(a, g)")
    _checks.shape("density", values, (across.size, up.size), "one for each of at and of grid")
    _checks.not_negative("density", values)
    if (x is None) != (y is None):
        raise ValueError(f"x, y: {'y' if x is None else 'x'} was given alone; want both, or none")
    if centres is None and shares is not None:
        raise ValueError("shares: given without centres; want both, or centres alone")
    ax = _axes(ax, (6.4, 4.4))
    image = ax.pcolormesh(across, up, values.T, cmap="Blues", shading="nearest", norm=PowerNorm(0.5, vmin=0.0))
    keys: list[Any] = []
    if x is not None:
        points, targets = _numbers("x", x, 1, 2, "(n,) or (n, 1)"), _numbers("y", y, 1)
        _checks.shape("x", points.reshape(len(points), -1), (targets.size, 1), "one number for each y")
        look: dict[str, Any] = {"color": _CHOSEN, "alpha": 0.5, "linewidths": 0}
        keys.append(ax.scatter(points.ravel(), targets, s=4.0, label="data", **look))
    if centres is not None:
        dots = _numbers("centres", centres, 2, 2, "(a, K)")
        _checks.shape("centres", dots, (across.size, None), "a row for each of at")
        sizes = np.ones_like(dots) if shares is None else _numbers("shares", shares, 2, 2, "(a, K)")
        _checks.shape("shares", sizes, dots.shape, "like centres")
        label = "centres" if shares is None else "centres, by share"
        each = np.broadcast_to(across[:, None], dots.shape)
        ax.scatter(each, dots, s=14.0 * np.nan_to_num(sizes), color=PALETTE[1], linewidths=0, zorder=3)
        keys.append(Line2D([], [], color=PALETTE[1], marker="o", linestyle="", markersize=4, label=label))
    _finish(ax, x_label, y_label, keys)
    ax.grid(False)
    ax.set_xlim(across[0], across[-1])
    ax.set_ylim(up[0], up[-1])
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("density", fontsize=_NORMAL)
    bar.ax.tick_params(labelsize=_SMALL)
    return ax


def calibration(table: Any, *, ax: Axes | None = None) -> Axes:
    """A reliability diagram: how often it was so against how often it was said to be; on the diagonal both agree.

    Dots have areas by their share of the rows. The legend tells the expected calibration error.

    Args:
        table: what `moejax.metrics.calibration` returns: predicted, observed and share (B,), NaN for empty bins, and error.
        ax: where to draw; a new figure if None.

    Returns:
        The Axes.
    """
    if not all(hasattr(table, name) for name in ("predicted", "observed", "share", "error")):
        raise ValueError(f"table: {type(table).__name__} was given; want what `moejax.metrics.calibration` returns")
    predicted, observed, share = (_numbers(name, getattr(table, name), 1) for name in ("predicted", "observed", "share"))
    there = share > 0
    ax = _axes(ax, (4.4, 4.4))
    ax.plot([0.0, 1.0], [0.0, 1.0], color=_GREY, linestyle="--", linewidth=1.0)
    ax.plot(predicted[there], observed[there], color=PALETTE[0], linewidth=1.2)
    ax.scatter(predicted[there], observed[there], s=20.0 + 400.0 * share[there], color=PALETTE[0], alpha=0.6, linewidths=0)
    told = f"calibration error {float(table.error):.3f}"
    keys = [Line2D([], [], color=PALETTE[0], marker="o", markersize=5, label=told)]
    keys.append(Line2D([], [], color=_GREY, linestyle="--", linewidth=1.0, label="as predicted"))
    _finish(ax, "predicted probability", "observed share", keys)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_aspect("equal")
    return ax


def _rising(name: str, value: Any) -> np.ndarray:
    numbers = _numbers(name, value, 1)
    _checks.finite(name, numbers)
    if numbers.size < 2 or (np.diff(numbers) <= 0).any():
        raise ValueError(f"{name}: {numbers.size} numbers were given; want at least two, each above the one before")
    return numbers


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


# ------------------------------------------------------------------------------------------------ what is passed in


def title(ax: Axes, text: str) -> Axes:
    """Put a title at the top left of an Axes that a function above drew into, above its legend if it has one.

    Args:
        ax: an Axes returned by one of these functions.
        text: the title.

    Returns:
        The Axes.
    """
    legend = ax.get_legend()
    if legend is None:
        ax.set_title(text, loc="left", fontsize=_TITLE)
    else:
        legend.set_title(text)
        legend.get_title().set_fontsize(_TITLE)
        legend.set_alignment("left")
    return ax


def _numbers(name: str, value: Any, least: int, most: int | None = None, wanted: str = "") -> np.ndarray:
    """`value` in float64, with `least` to `most` axes and at least one number."""
    array = np.asarray(value)
    if array.dtype != bool and not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name}: values of type {array.dtype} were given; want numbers")
    if np.iscomplexobj(array):
        raise ValueError(f"{name}: complex numbers were given; want real ones")
    if not least <= array.ndim <= (most or least):
        raise ValueError(f"{name}: shape {array.shape} was given; want {wanted or ('a number', '(any,)')[least]}")
    if array.size == 0:
        raise ValueError(f"{name}: shape {array.shape} was given; want at least one number")
    return array.astype(float)


def _names(argument: str, names: Sequence[str], size: int, meaning: str) -> list[str]:
    if isinstance(names, str) or len(names) != size:
        given = repr(names) if isinstance(names, str) else f"{len(names)} names"
        raise ValueError(f"{argument}: {given} was given; want a sequence of {size}, {meaning}")
    return [str(name) for name in names]


def _feature_names(names: Sequence[str] | None, features: int) -> list[str]:
    if names is None:
        return [f"x{j + 1}" for j in range(features)]
    return _names("feature_names", names, features, "one per feature")


def _labels(expert: Any, samples: int) -> np.ndarray:
    """`expert` as integers (n,)."""
    labels = _numbers("expert", expert, 1)
    _checks.shape("expert", labels, (samples,), "one expert per sample")
    _checks.not_negative("expert", labels)
    if (labels != np.round(labels)).any():
        raise ValueError(f"expert: {labels[labels != np.round(labels)][0]:g} was given; want whole numbers from 0")
    return labels.astype(int)


def _expert_names(experts: int, shares: Any, numbers: Sequence[int] | None) -> list[str]:
    if numbers is not None:
        _checks.shape("numbers", numbers, (experts,), "one number per expert")
    names = [f"expert {k + 1}" for k in (range(experts) if numbers is None else numbers)]
    if shares is None:
        return names
    parts = _numbers("shares", shares, 1)
    _checks.shape("shares", parts, (experts,), "one share per expert")
    _checks.not_negative("shares", parts)
    if parts.max() > 1.0 + 1e-6:
        raise ValueError(f"shares: {parts.max():g} was given; want shares from 0 to 1")
    return [f"{name} ({part:.0%})" for name, part in zip(names, parts, strict=True)]


def _penalties(penalty: Any, chosen: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The penalties (P,) and what sorts them."""
    grid = _numbers("penalty", penalty, 1)
    _checks.not_negative("penalty", grid)
    if chosen is not None:
        _checks.shape("chosen", chosen, (), "one penalty")
        _checks.finite("chosen", chosen)
        # Float32 grids come back rounded; an index passed for a penalty is what this is meant to catch.
        if not grid.min() * (1 - 1e-5) <= float(chosen) <= grid.max() * (1 + 1e-5):
            raise ValueError(
                f"chosen: {float(chosen):g} was given; want one of the penalties, which are {grid.min():g} to {grid.max():g}"
            )
    return grid, np.argsort(grid, kind="stable")


def _pick(errors: np.ndarray, restart: Any) -> np.ndarray:
    """The errors (P,) of the restart (P,) chosen at each penalty."""
    if errors.ndim == 1:
        raise ValueError(f"chosen_restart: given with error of shape {errors.shape}; want error of shape (P, R)")
    index = _numbers("chosen_restart", restart, 1)
    _checks.shape("chosen_restart", index, (len(errors),), "one restart per penalty")
    _checks.finite("chosen_restart", index)
    wrong = (index != np.round(index)) | (index < 0) | (index >= errors.shape[1])
    if wrong.any():
        raise ValueError(
            f"chosen_restart: {index[wrong][0]:g} was given; want whole numbers from 0 to {errors.shape[1] - 1}"
        )
    return errors[np.arange(len(errors)), index.astype(int)]


def _check_highlight(highlight: int, whole: np.ndarray) -> None:
    if isinstance(highlight, bool) or not isinstance(highlight, int | np.integer) or not 0 <= highlight < whole.size:
        raise ValueError(f"highlight: {highlight!r} was given; want a whole number from 0 to {whole.size - 1}")
    if not whole[highlight]:
        raise ValueError(f"highlight: {highlight} was given, whose history is not finite; want a member that is")


# --------------------------------------------------------------------------------------------------- the common style


def _axes(ax: Any, size: tuple[float, float], three_d: bool = False) -> Any:
    """`ax` once checked, or the Axes of a new figure of `size` in inches."""
    if ax is None:
        figure = Figure(figsize=size, layout="constrained")
        return figure.add_subplot(projection="3d" if three_d else None)
    if not isinstance(ax, Axes) or (ax.name == "3d") != three_d:
        given = f"Axes of projection {ax.name}" if isinstance(ax, Axes) else f"{type(ax).__name__}"
        wanted = '3-D Axes: figure.add_subplot(projection="3d")' if three_d else "two-dimensional matplotlib Axes"
        raise ValueError(f"ax: {given} was given; want {wanted}")
    return ax


def _finish(ax: Any, x_label: str, y_label: str, keys: Sequence[Any]) -> None:
    """Labels, a light grid, and the legend in rows above the Axes."""
    ax.set_xlabel(x_label, fontsize=_NORMAL)
    ax.set_ylabel(y_label, fontsize=_NORMAL)
    ax.tick_params(labelsize=_SMALL)
    ax.grid(True, color="#E4E4E4", linewidth=0.6)
    ax.set_axisbelow(True)
    if ax.name != "3d":
        ax.spines[["top", "right"]].set_visible(False)
    if not keys:
        return
    widths = np.array([0.55 * len(str(key.get_label())) + 4.0 for key in keys]) * _SMALL
    room = _size_in_points(ax)[0]
    fits = (c for c in range(len(keys), 0, -1) if sum(part.max() for part in np.array_split(widths, c)) <= room)
    columns = next(fits, 1)
    ax.legend(
        handles=keys,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=columns,
        fontsize=_SMALL,
        frameon=False,
        borderaxespad=0.2,
        columnspacing=1.2,
        handlelength=1.8,
    )


def _size_in_points(ax: Any) -> tuple[float, float]:
    """Width and height of the Axes in points, as far as they are known before the figure is laid out."""
    return 72.0 * ax.bbox.width / ax.figure.dpi, 72.0 * ax.bbox.height / ax.figure.dpi


def _colour(expert: int) -> str:
    return PALETTE[expert % len(PALETTE)]


def _dash(expert: int) -> Any:
    return _DASHES[expert // len(PALETTE) % len(_DASHES)]


def _note(text: str) -> Line2D:
    """A line of the legend that stands for nothing drawn."""
    return Line2D([], [], linestyle="", marker="x", markersize=4, color=_GREY, label=text)


def _clouds(ax: Any, at: tuple[np.ndarray, ...], labels: np.ndarray | None) -> list[Line2D]:
    """One scatter per expert at the coordinates `at`, and the keys of a legend."""
    samples = at[0].size
    look: dict[str, Any] = {"s": 16.0 if samples <= 2000 else 5.0, "linewidths": 0}
    look["alpha"] = 0.75 if samples <= 500 else 0.5 if samples <= 5000 else 0.25
    if labels is None:
        ax.scatter(*at, color=PALETTE[0], **look)
        return []
    keys = []
    for k in np.unique(labels):
        rows = labels == k
        marker = _MARKERS[int(k) // len(PALETTE) % len(_MARKERS)]
        name = f"expert {k + 1} ({rows.mean():.0%})"
        ax.scatter(*(values[rows] for values in at), color=_colour(int(k)), marker=marker, label=name, **look)
        keys.append(Line2D([], [], color=_colour(int(k)), marker=marker, linestyle="", markersize=5, label=name))
    return keys


# --------------------------------------------------------------------------------------------------------------- axes


def _axis_of_values(ax: Any, values: np.ndarray) -> None:
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


def _few_ticks(ax: Any, each: float) -> None:
    """So few ticks that each has `each` points: matplotlib's own choice lets long numbers run into one another."""
    bins = int(np.clip(_size_in_points(ax)[0] / each, 2, 6))
    for axis in (ax.xaxis, ax.yaxis, *([ax.zaxis] if ax.name == "3d" else [])):
        axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))


def _axis_of_penalties(ax: Any) -> None:
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
    room = max(2, floor(_size_in_points(ax)[0] / 42.0))
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
            least / 2, 0, "//", transform=ax.get_xaxis_transform(), ha="center", va="center", fontsize=_SMALL,
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


def _chosen_line(ax: Any, chosen: float) -> Line2D:
    """A vertical line at the chosen penalty."""
    # Not `axvline`, which widens the limits of the data by rounding: a 0 may come back as 2e-16, a penalty like any other.
    at, across = [float(chosen)] * 2, ax.get_xaxis_transform()
    line = Line2D(at, [0, 1], transform=across, color=_CHOSEN, linewidth=1.4, zorder=2, label=f"chosen: {float(chosen):.3g}")
    return ax.add_artist(line)


def _ring(ax: Any, grid: np.ndarray, line: np.ndarray | None, chosen: float) -> None:
    """A ring around the point of the curve at the chosen penalty, if it has one."""
    at = int(np.argmin(np.abs(grid - float(chosen))))
    if line is not None and np.isclose(grid[at], float(chosen), rtol=1e-5) and np.isfinite(line[at]):
        ax.plot(grid[at], line[at], marker="o", markersize=10, mfc="none", mec=_CHOSEN, mew=1.8, linestyle="", zorder=4)


# ------------------------------------------------------------------------------------------------- the single figures


def _finite_beginnings(lines: np.ndarray) -> np.ndarray:
    """How many finite numbers, with nothing but NaN behind them, each of lines (M, T) begins with; 0 for any other line."""
    finite = np.isfinite(lines)
    sizes = finite.sum(axis=1)
    behind = np.arange(lines.shape[1]) >= sizes[:, None]
    return np.where(np.where(behind, np.isnan(lines), finite).all(axis=1), sizes, 0)


def _segments(at: np.ndarray, lines: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """The vertices (V, 2) of the first `sizes` (M,) numbers of each of the lines (M, T).

    If they are too many, they are thinned to the smallest and largest of each stretch of steps, and to both ends of a line,
    which are what readers look for.
    """
    if sizes.sum() <= _MOST_VERTICES:
        return [np.column_stack([at[:size], line[:size]]) for line, size in zip(lines, sizes, strict=True)]
    stretches = max(1, _MOST_VERTICES // (2 * len(lines)) - 1)
    segments = []
    for line, size in zip(lines, sizes, strict=True):
        width = -(-int(size) // stretches)
        parts = np.pad(line[:size], (0, -int(size) % width), mode="edge").reshape(-1, width)
        starts = width * np.arange(len(parts))
        index = np.unique([0, *(starts + parts.argmin(axis=1)), *(starts + parts.argmax(axis=1)), size - 1])
        segments.append(np.column_stack([at[index], line[index]]))
    return segments


def _cell_in_points(ax: Any, columns: float, rows: int) -> tuple[float, float]:
    """Width and height of a cell, with what the labels and the colour bar will take off the Axes guessed."""
    width, height = _size_in_points(ax)
    return 0.85 * width / columns, 0.85 * height / rows


def _coloured(table: np.ndarray, names: list[str], ax: Axes | None) -> tuple[Any, Any, float]:
    """A heat map of experts by features, in Axes of a size that fits them, its image, and the number that is darkest."""
    experts, features = table.shape
    inches = float(np.clip(2.4 + 0.52 * features, 4.5, 13.0))
    longest = 0.04 * max(len(name) for name in names)  # slanted names take room from the rows
    ax = _axes(ax, (inches, float(np.clip(1.1 + longest + 0.45 * experts, 2.3, 9.0))))
    largest = float(np.abs(table).max()) or 1.0
    image = ax.imshow(  # type: ignore[union-attr]
        table, cmap="RdBu_r", norm=Normalize(-largest, largest), aspect="auto", interpolation="nearest", origin="upper"
    )
    return ax, image, largest


def _framed(ax: Any, image: Any, rows: list[str], features: int, height: float, label: str) -> Axes:
    """A heat map with the names of its rows, of `height` points, gaps between its cells, and a colour bar."""
    every = max(1, ceil(11.0 / height))
    ax.set_yticks(np.arange(len(rows))[::every], rows[::every])
    _gaps_between_cells(ax, len(rows), features)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05, aspect=15)
    bar.set_label(label, fontsize=_NORMAL)
    bar.ax.tick_params(labelsize=_SMALL, length=2)
    bar.outline.set_visible(False)
    return ax


def _write_cells(ax: Any, table: np.ndarray, texts: list[str], largest: float, width: float, height: float) -> None:
    """The text of each cell, of `width` and `height` points, if all can be read: black, or white on a dark colour."""
    size = min(_SMALL, width / (0.68 * max(len(text) for text in texts)), 0.8 * height)
    if size < 5.0 or table.size > _MOST_NUMBERS:
        return
    for ((k, j), number), text in zip(np.ndenumerate(table), texts, strict=True):
        dot = text == "·"
        colour = _GREY if dot else "white" if abs(number) > 0.6 * largest else "black"
        ax.text(j, k, text, ha="center", va="center", fontsize=2.0 * size if dot else size, color=colour)


def _number(value: float, largest: float) -> str:
    """`value` in few characters, to the digits that matter where `largest` is the largest of its kind."""
    if value == 0.0:
        return "0"
    if not 1e-2 <= largest < 1e5:
        return f"{value:.1e}".replace("-", _MINUS).replace("e+0", "e").replace(f"e{_MINUS}0", f"e{_MINUS}")
    decimals = 3 if largest < 0.1 else 2 if largest < 10 else 1 if largest < 100 else 0
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0.0 else text.replace("-", _MINUS)


def _column_labels(ax: Any, ticks: np.ndarray, names: list[str], width: float) -> None:
    """Names below the columns of `width` points, level or slanted; every so many of very many; then the intercept."""
    slanted = max(len(name) for name in names) * 0.62 * _SMALL > width
    every = max(1, ceil((1.3 * 1.42 * _SMALL if slanted else 0.0) / width))
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    rest = list(ticks[len(names) :])
    ax.set_xticks([*ticks[: len(names) : every], *rest], [*names[::every], *["intercept" for _ in rest]], **slant)
    ax.tick_params(labelsize=_SMALL, length=0)


def _gaps_between_cells(ax: Any, experts: int, features: int) -> None:
    """White lines between the cells, and no frame."""
    for spine in ax.spines.values():
        spine.set_visible(False)
    columns = LineCollection([[(j - 0.5, -0.5), (j - 0.5, experts - 0.5)] for j in range(1, features)])
    rows = LineCollection([[(-0.5, k - 0.5), (features - 0.5, k - 0.5)] for k in range(1, experts)])
    for lines in (columns, rows):
        lines.set(color="white", linewidth=1.2)
        ax.add_collection(lines, autolim=False)


def _in_emptiest_corner(ax: Any, x: np.ndarray, y: np.ndarray, text: str) -> None:
    """`text` in the corner of the Axes that has the fewest points; upper left if all are empty."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
    corners = [(0.03, 0.97, "left", "top"), (0.97, 0.03, "right", "bottom")]
    corners += [(0.97, 0.97, "right", "top"), (0.03, 0.03, "left", "bottom")]
    counts = [np.sum((abs(across - u) < 0.42) & (abs(up - v) < 0.16)) for u, v, _, _ in corners]
    u, v, ha, va = corners[int(np.argmin(counts))]
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.0}
    ax.text(u, v, text, transform=ax.transAxes, ha=ha, va=va, fontsize=_NORMAL, bbox=white, zorder=5)


def _fit_3d(ax: Any) -> None:
    """The cube and its text sized so that no label is cut off: neither follows the size of the Axes by itself."""
    size = float(np.clip(min(_size_in_points(ax)) / 275.0, 0.6, 1.0)) ** 0.5
    ax.set_box_aspect(None, zoom=0.98 * size)
    ax.tick_params(labelsize=_SMALL * size)
    ax.zaxis.set_tick_params(pad=7.0 * size)
    for axis, pad in ((ax.xaxis, 4.0), (ax.yaxis, 4.0), (ax.zaxis, 10.0)):
        axis.label.set_fontsize(_NORMAL * size)
        axis.labelpad = pad * size


def _principal_components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 2) on the first two principal components of x (n, d), and the share of variance of each (2,)."""
    centred = x - x.mean(axis=0)
    if not centred.any():
        raise ValueError(f"x: {len(x)} equal rows were given; want rows that vary")
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return centred @ (directions * np.sign(largest)).T, (values**2 / np.sum(values**2))[:2]


def _room_for_labels(ax: Any) -> int:
    return max(1, min(_MOST_LABELS, floor(_size_in_points(ax)[1] / (1.5 * _SMALL))))


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
    places = _spread(wanted, 1.45 * _SMALL / _size_in_points(ax)[1])
    for (value, at, k, j), place in zip(ends, places, strict=True):
        leader = {"arrowstyle": "-", "color": _colour(k), "lw": 0.6, "relpos": (1, 0.5), "shrinkA": 1, "shrinkB": 0}
        ax.annotate(
            names[j], (at, value), (-0.035, place), textcoords="axes fraction", ha="right", va="center",
            fontsize=_SMALL, color=_colour(k), arrowprops=leader, annotation_clip=False,
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
