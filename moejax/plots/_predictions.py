"""Figures of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.lines import Line2D

from moejax import _checks
from moejax.plots._arguments import as_labels, as_numbers
from moejax.plots._scales import few_ticks
from moejax.plots._style import (
    CHOSEN,
    GREY,
    MINUS,
    NORMAL,
    PALETTE,
    SMALL,
    axes_or_new,
    draw_clouds,
    finish_axes,
    size_in_points,
)


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
    true = as_numbers("y", y, 1)
    _checks.finite("y", true)
    guess = as_numbers("prediction", prediction, 1)
    _checks.shape("prediction", guess, true.shape, "one number per target in y")
    _checks.finite("prediction", guess)
    if np.ptp(true) == 0:
        raise ValueError(f"y: {true.size} times {true[0]:g} was given; want targets that vary, or R² has no meaning")
    labels = None if expert is None else as_labels(expert, true.size)
    ax = axes_or_new(ax, (4.9, 5.0))
    keys = draw_clouds(ax, (true, guess), labels)
    low, high = float(min(true.min(), guess.min())), float(max(true.max(), guess.max()))
    ax.plot([low, high], [low, high], color=GREY, linewidth=1.2, linestyle="--", zorder=3)
    few_ticks(ax, 44.0)
    pad = 0.04 * (high - low)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    mse = float(np.mean((true - guess) ** 2))
    r2 = f"{1.0 - mse / float(np.var(true)):.4f}".replace("-", MINUS)
    _in_emptiest_corner(ax, true, guess, f"R² = {r2}\nMSE = {mse:.4g}")
    finish_axes(ax, "true y", "predicted y", keys)
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
    inputs = as_numbers("x", x, 2, 2, "(n, d)")
    _checks.finite("x", inputs)
    target = as_numbers("y", y, 1)
    _checks.shape("y", target, (len(inputs),), "one target per row of x")
    _checks.finite("y", target)
    labels = as_labels(expert, len(inputs))
    if min(inputs.shape) < 2:
        raise ValueError(f"x: shape {inputs.shape} was given; want at least 2 rows and 2 columns for two components")
    scores, explained = _principal_components(inputs)
    canvas: Any = axes_or_new(ax, (6.2, 5.0), three_d=True)
    keys = draw_clouds(canvas, (scores[:, 0], scores[:, 1], target), labels)
    canvas.view_init(elev=20.0, azim=-60.0)
    few_ticks(canvas, 52.0)
    finish_axes(canvas, f"component 1 ({explained[0]:.0%} of variance)", f"component 2 ({explained[1]:.0%})", keys)
    canvas.set_zlabel("y", fontsize=NORMAL)
    _fit_3d(canvas)
    return canvas


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
    values = as_numbers("density", density, 2, 2, "(a, g)")
    _checks.shape("density", values, (across.size, up.size), "one for each of at and of grid")
    _checks.not_negative("density", values)
    if (x is None) != (y is None):
        raise ValueError(f"x, y: {'y' if x is None else 'x'} was given alone; want both, or none")
    if centres is None and shares is not None:
        raise ValueError("shares: given without centres; want both, or centres alone")
    ax = axes_or_new(ax, (6.4, 4.4))
    image = ax.pcolormesh(across, up, values.T, cmap="Blues", shading="nearest", norm=PowerNorm(0.5, vmin=0.0))
    keys: list[Any] = []
    if x is not None:
        points, targets = as_numbers("x", x, 1, 2, "(n,) or (n, 1)"), as_numbers("y", y, 1)
        _checks.shape("x", points.reshape(len(points), -1), (targets.size, 1), "one number for each y")
        look: dict[str, Any] = {"color": CHOSEN, "alpha": 0.5, "linewidths": 0}
        keys.append(ax.scatter(points.ravel(), targets, s=4.0, label="data", **look))
    if centres is not None:
        dots = as_numbers("centres", centres, 2, 2, "(a, K)")
        _checks.shape("centres", dots, (across.size, None), "a row for each of at")
        sizes = np.ones_like(dots) if shares is None else as_numbers("shares", shares, 2, 2, "(a, K)")
        _checks.shape("shares", sizes, dots.shape, "like centres")
        label = "centres" if shares is None else "centres, by share"
        each = np.broadcast_to(across[:, None], dots.shape)
        ax.scatter(each, dots, s=14.0 * np.nan_to_num(sizes), color=PALETTE[1], linewidths=0, zorder=3)
        keys.append(Line2D([], [], color=PALETTE[1], marker="o", linestyle="", markersize=4, label=label))
    finish_axes(ax, x_label, y_label, keys)
    ax.grid(False)
    ax.set_xlim(across[0], across[-1])
    ax.set_ylim(up[0], up[-1])
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("density", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
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
    predicted, observed, share = (as_numbers(name, getattr(table, name), 1) for name in ("predicted", "observed", "share"))
    there = share > 0
    ax = axes_or_new(ax, (4.4, 4.4))
    ax.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle="--", linewidth=1.0)
    ax.plot(predicted[there], observed[there], color=PALETTE[0], linewidth=1.2)
    ax.scatter(predicted[there], observed[there], s=20.0 + 400.0 * share[there], color=PALETTE[0], alpha=0.6, linewidths=0)
    told = f"calibration error {float(table.error):.3f}"
    keys = [Line2D([], [], color=PALETTE[0], marker="o", markersize=5, label=told)]
    keys.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="as predicted"))
    finish_axes(ax, "predicted probability", "observed share", keys)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_aspect("equal")
    return ax


def _rising(name: str, value: Any) -> np.ndarray:
    numbers = as_numbers(name, value, 1)
    _checks.finite(name, numbers)
    if numbers.size < 2 or (np.diff(numbers) <= 0).any():
        raise ValueError(f"{name}: {numbers.size} numbers were given; want at least two, each above the one before")
    return numbers


def _in_emptiest_corner(ax: Any, x: np.ndarray, y: np.ndarray, text: str) -> None:
    """`text` in the corner of the Axes that has the fewest points; upper left if all are empty."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    across, up = (x - left) / (right - left), (y - bottom) / (top - bottom)
    corners = [(0.03, 0.97, "left", "top"), (0.97, 0.03, "right", "bottom")]
    corners += [(0.97, 0.97, "right", "top"), (0.03, 0.03, "left", "bottom")]
    counts = [np.sum((abs(across - u) < 0.42) & (abs(up - v) < 0.16)) for u, v, _, _ in corners]
    u, v, ha, va = corners[int(np.argmin(counts))]
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.0}
    ax.text(u, v, text, transform=ax.transAxes, ha=ha, va=va, fontsize=NORMAL, bbox=white, zorder=5)


def _fit_3d(ax: Any) -> None:
    """The cube and its text sized so that no label is cut off: neither follows the size of the Axes by itself."""
    size = float(np.clip(min(size_in_points(ax)) / 275.0, 0.6, 1.0)) ** 0.5
    ax.set_box_aspect(None, zoom=0.98 * size)
    ax.tick_params(labelsize=SMALL * size)
    ax.zaxis.set_tick_params(pad=7.0 * size)
    for axis, pad in ((ax.xaxis, 4.0), (ax.yaxis, 4.0), (ax.zaxis, 10.0)):
        axis.label.set_fontsize(NORMAL * size)
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
