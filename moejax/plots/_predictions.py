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
    """Draw predictions against targets, with the diagonal, R² and the mean squared error.

    Parameters
    ----------
    y : array_like, shape (n,)
        Targets. They must be finite and not all equal, because R² is undefined for constant targets.
    prediction : array_like, shape (n,)
        Finite predictions, in the units of y.
    expert : array_like of int, shape (n,), optional
        Expert of each sample, counted from 0. It sets the colour. If None (the default), all samples have one colour.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes. Both axes have the same scale.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values.

    Notes
    -----
    The mean squared error is the mean over samples of (y - prediction)², in squared units of y. R² is 1 minus this mean
    divided by the population variance of y.

    Examples
    --------
    >>> from moejax import plots
    >>> ax = plots.true_vs_predicted([0.0, 1.0, 2.0], [0.1, 0.9, 2.0], expert=[0, 1, 1])
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('true y', 'predicted y')
    """
    targets = as_numbers("y", y, 1)
    _checks.finite("y", targets)
    predictions = as_numbers("prediction", prediction, 1)
    _checks.shape("prediction", predictions, targets.shape, "one number per target in y")
    _checks.finite("prediction", predictions)
    if np.ptp(targets) == 0:
        raise ValueError(
            f"y: {targets.size} times {targets[0]:g} was given; want targets that vary, because R² is undefined otherwise"
        )
    labels = None if expert is None else as_labels(expert, targets.size)
    ax = axes_or_new(ax, (4.9, 5.0))
    keys = draw_clouds(ax, (targets, predictions), labels)
    low, high = float(min(targets.min(), predictions.min())), float(max(targets.max(), predictions.max()))
    ax.plot([low, high], [low, high], color=GREY, linewidth=1.2, linestyle="--", zorder=3)
    few_ticks(ax, 44.0)
    pad = 0.04 * (high - low)
    ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    mse = float(np.mean((targets - predictions) ** 2))
    r2 = f"{1.0 - mse / float(np.var(targets)):.4f}".replace("-", MINUS)
    _in_emptiest_corner(ax, targets, predictions, f"R² = {r2}\nMSE = {mse:.4g}")
    finish_axes(ax, "true y", "predicted y", keys)
    return ax


def sample_3d(x: Any, y: Any, expert: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a sample in three dimensions: y over the first two principal components of x, coloured by expert.

    Parameters
    ----------
    x : array_like, shape (n, d)
        Finite inputs, with n and d at least 2. The rows must not all be equal.
    y : array_like, shape (n,)
        Finite targets.
    expert : array_like of int, shape (n,)
        Expert of each sample, counted from 0. It sets the colour.
    ax : mpl_toolkits.mplot3d.axes3d.Axes3D, optional
        Axes to draw into, made by `figure.add_subplot(projection="3d")`. If None (the default), a new figure is made.

    Returns
    -------
    mpl_toolkits.mplot3d.axes3d.Axes3D
        The Axes. The labels of its first two axes give the share of the variance of x that each component explains.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values, or if `ax` is two-dimensional.

    Notes
    -----
    The sign of each component is chosen so that its loading of largest magnitude is positive. So the same data give the same
    figure.

    Examples
    --------
    >>> from moejax import datasets, plots
    >>> problem = datasets.three_regressions(0, n=50, d=4)
    >>> ax = plots.sample_3d(problem.x, problem.y, problem.expert)
    >>> ax.get_zlabel()
    'y'
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
    axes: Any = axes_or_new(ax, (6.2, 5.0), three_d=True)
    keys = draw_clouds(axes, (scores[:, 0], scores[:, 1], target), labels)
    axes.view_init(elev=20.0, azim=-60.0)
    few_ticks(axes, 52.0)
    finish_axes(axes, f"component 1 ({explained[0]:.0%} of variance)", f"component 2 ({explained[1]:.0%})", keys)
    axes.set_zlabel("y", fontsize=NORMAL)
    _fit_3d(axes)
    drawn: Axes = axes
    return drawn


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
    """Draw p(y | x) for one feature x as an image, and optionally data and centres above the image.

    Parameters
    ----------
    at : array_like, shape (a,)
        Increasing values of x, at least two.
    grid : array_like, shape (g,)
        Increasing values of y, at least two.
    density : array_like, shape (a, g)
        p(y | x) at each x in `at` and each y in `grid`. No density is negative.
    x : array_like, shape (n,) or (n, 1), optional
        Inputs of the data, which are drawn as small points. They require `y`. If None (the default), no data are drawn.
    y : array_like, shape (n,), optional
        Targets of the data. They require `x`.
    centres : array_like, shape (a, K), optional
        Values of y that are drawn as dots at each x, such as modes or the means of experts. NaN means no dot. If None (the
        default), no dots are drawn.
    shares : array_like, shape (a, K), optional
        Relative areas of the dots, from 0 to 1, such as gate probabilities. They require `centres`. If None (the default),
        all dots have the same area.
    x_label : str, default "x"
        Name of x, with its units if it has any.
    y_label : str, default "y"
        Name of y, with its units if it has any.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made. The colour bar takes part of the room of the Axes.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the image. The colour bar has Axes of its own in the same figure.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values, or if one of `x` and `y`, or `shares`, is given alone.

    Notes
    -----
    A darker colour means a larger density. The colour depends on the square root of the density. Otherwise, a narrow peak
    would leave the rest of the image white.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import plots
    >>> at, grid = np.linspace(0.0, 1.0, 5), np.linspace(-3.0, 3.0, 7)
    >>> density = np.exp(-0.5 * (grid - at[:, None]) ** 2) / np.sqrt(2.0 * np.pi)
    >>> ax = plots.conditional_density(at, grid, density, centres=at[:, None])
    >>> ax.get_xlim()[1].item()
    1.0
    """
    _checks.texts(x_label=x_label, y_label=y_label)
    x_values, y_values = _rising("at", at), _rising("grid", grid)
    values = as_numbers("density", density, 2, 2, "(a, g)")
    _checks.shape("density", values, (x_values.size, y_values.size), "one density per number in at and number in grid")
    _checks.not_negative("density", values)
    if (x is None) != (y is None):
        raise ValueError(f"x, y: {'y' if x is None else 'x'} was given alone; want both or neither")
    if centres is None and shares is not None:
        raise ValueError("shares: given without centres; want both, or only centres")
    ax = axes_or_new(ax, (6.4, 4.4))
    image = ax.pcolormesh(x_values, y_values, values.T, cmap="Blues", shading="nearest", norm=PowerNorm(0.5, vmin=0.0))
    keys: list[Any] = []
    if x is not None:
        points, targets = as_numbers("x", x, 1, 2, "(n,) or (n, 1)"), as_numbers("y", y, 1)
        _checks.shape("x", points.reshape(len(points), -1), (targets.size, 1), "one number per target in y")
        _checks.finite("x", points)
        _checks.finite("y", targets)
        style: dict[str, Any] = {"color": CHOSEN, "alpha": 0.5, "linewidths": 0}
        keys.append(ax.scatter(points.ravel(), targets, s=4.0, label="data", **style))
    if centres is not None:
        dots = as_numbers("centres", centres, 2, 2, "(a, K)")
        _checks.shape("centres", dots, (x_values.size, None), "one row per number in at")
        sizes = np.ones_like(dots) if shares is None else as_numbers("shares", shares, 2, 2, "(a, K)")
        _checks.shape("shares", sizes, dots.shape, "the shape of centres")
        label = "centres" if shares is None else "centres, by share"
        positions = np.broadcast_to(x_values[:, None], dots.shape)
        ax.scatter(positions, dots, s=14.0 * np.nan_to_num(sizes), color=PALETTE[1], linewidths=0, zorder=3)
        keys.append(Line2D([], [], color=PALETTE[1], marker="o", linestyle="", markersize=4, label=label))
    finish_axes(ax, x_label, y_label, keys)
    ax.grid(False)
    ax.set_xlim(x_values[0], x_values[-1])
    ax.set_ylim(y_values[0], y_values[-1])
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("density", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    return ax


def calibration(table: Any, *, ax: Axes | None = None) -> Axes:
    """Draw a reliability diagram: observed frequencies against predicted probabilities.

    On the diagonal, the observed frequency equals the predicted probability.

    Parameters
    ----------
    table : moejax.metrics.Calibration
        Result of `moejax.metrics.calibration`, or another record with the attributes `predicted`, `observed` and `share`,
        each of shape (B,) for B bins, and `error`. A bin of share 0 is not drawn.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes. The legend gives the expected calibration error.

    Raises
    ------
    ValueError
        If `table` lacks one of the attributes, or if `ax` is not two-dimensional Axes.

    Notes
    -----
    The area of a dot grows linearly with the share of the rows in its bin.

    Examples
    --------
    >>> from moejax import metrics, plots
    >>> table = metrics.calibration([0, 1, 1, 0], [[0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.6, 0.4]], bins=2)
    >>> ax = plots.calibration(table)
    >>> ax.get_legend().get_texts()[0].get_text()
    'calibration error 0.325'
    """
    if not all(hasattr(table, name) for name in ("predicted", "observed", "share", "error")):
        raise ValueError(f"table: {type(table).__name__} was given; want the result of `moejax.metrics.calibration`")
    predicted, observed, share = (as_numbers(name, getattr(table, name), 1) for name in ("predicted", "observed", "share"))
    filled = share > 0
    ax = axes_or_new(ax, (4.4, 4.4))
    ax.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle="--", linewidth=1.0)
    ax.plot(predicted[filled], observed[filled], color=PALETTE[0], linewidth=1.2)
    ax.scatter(
        predicted[filled], observed[filled], s=20.0 + 400.0 * share[filled], color=PALETTE[0], alpha=0.6, linewidths=0
    )
    text = f"calibration error {float(table.error):.3f}"
    keys = [Line2D([], [], color=PALETTE[0], marker="o", markersize=5, label=text)]
    keys.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.0, label="as predicted"))
    finish_axes(ax, "predicted probability", "observed share", keys)
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_aspect("equal")
    return ax


def _rising(name: str, value: Any) -> np.ndarray:
    """Return `value` as increasing, finite numbers in float64, after a check."""
    numbers = as_numbers(name, value, 1)
    _checks.finite(name, numbers)
    if numbers.size < 2 or (np.diff(numbers) <= 0).any():
        raise ValueError(f"{name}: {numbers.size} numbers were given; want at least two numbers, each above the one before")
    return numbers


def _in_emptiest_corner(ax: Any, x: np.ndarray, y: np.ndarray, text: str) -> None:
    """Write `text` in the corner with the fewest points; in the upper left corner if all are empty."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x_fractions, y_fractions = (x - left) / (right - left), (y - bottom) / (top - bottom)
    corners = [(0.03, 0.97, "left", "top"), (0.97, 0.03, "right", "bottom")]
    corners += [(0.97, 0.97, "right", "top"), (0.03, 0.03, "left", "bottom")]
    counts = [np.sum((abs(x_fractions - u) < 0.42) & (abs(y_fractions - v) < 0.16)) for u, v, _, _ in corners]
    u, v, ha, va = corners[int(np.argmin(counts))]
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2.0}
    ax.text(u, v, text, transform=ax.transAxes, ha=ha, va=va, fontsize=NORMAL, bbox=box, zorder=5)


def _fit_3d(ax: Any) -> None:
    """Scale the cube and its text to the size of the Axes, so that no label is cut off; matplotlib does not do this."""
    size = float(np.clip(min(size_in_points(ax)) / 275.0, 0.6, 1.0)) ** 0.5
    ax.set_box_aspect(None, zoom=0.98 * size)
    ax.tick_params(labelsize=SMALL * size)
    ax.zaxis.set_tick_params(pad=7.0 * size)
    for axis, pad in ((ax.xaxis, 4.0), (ax.yaxis, 4.0), (ax.zaxis, 10.0)):
        axis.label.set_fontsize(NORMAL * size)
        axis.labelpad = pad * size


def _principal_components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores (n, 2) on the first two principal components of x (n, d), and their shares of variance (2,)."""
    centred = x - x.mean(axis=0)
    if not centred.any():
        raise ValueError(f"x: {len(x)} equal rows were given; want rows that vary")
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    directions = directions[:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return centred @ (directions * np.sign(largest)).T, (values**2 / np.sum(values**2))[:2]
