"""Figures of training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from moejax import _checks
from moejax.plots._arguments import MOST_NAMED, as_numbers, check_highlight, finite_beginnings, line_names
from moejax.plots._scales import as_segments, axis_of_values
from moejax.plots._style import GREY, PALETTE, add_note, axes_or_new, finish_axes


def training_loss(
    history: Any,
    *,
    steps: Any = None,
    labels: Sequence[str] | None = None,
    highlight: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the training loss against the training step, one line per member.

    Parameters
    ----------
    history : array_like, shape (T,) or (M, T)
        Losses in the units of the objective (a mean over rows, plus penalties), as a fit returns them.
    steps : array_like, shape (T,), optional
        Step of each loss. If None (the default), the steps are 1 to T.
    labels : sequence of str, length M, optional
        Names of the members. With at most eight members, each member has a colour and an entry in the legend. With more
        members, only the highlighted member is named. If None (the default), the legend gives the number of members.
    highlight : int, optional
        Index of a member that is drawn with a bold line. Its history must be drawn, see Notes. If None (the default), no
        member is highlighted.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into. If None (the default), a new figure is made.

    Returns
    -------
    matplotlib.axes.Axes
        The Axes with the figure.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or wrong values, or if the history of `highlight` is not drawn.

    Notes
    -----
    The axis of the loss is logarithmic if all losses are positive and span more than a decade.

    A fit that stops early has a history that is finite up to a step and NaN after this step. Its line ends with a dot. A
    member with another NaN or infinite loss is not drawn. The legend gives the number of members of each of these two kinds.

    Examples
    --------
    >>> from moejax import plots
    >>> ax = plots.training_loss([[3.0, 2.0, 1.5], [4.0, 2.5, 2.0]], labels=["first", "second"])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['first', 'second']
    """
    lines = as_numbers("history", history, 1, 2, "(T,) or (M, T)")
    lines = lines[None] if lines.ndim == 1 else lines
    members, length = lines.shape
    positions = np.arange(1.0, length + 1.0) if steps is None else as_numbers("steps", steps, 1)
    _checks.shape("steps", positions, (length,), "one step per column of history")
    _checks.finite("steps", positions)
    names = None if labels is None else line_names("labels", labels, members, "one per member")
    sizes = finite_beginnings(lines)
    drawable, stops_early = sizes > 0, (sizes > 0) & (sizes < length)
    if highlight is not None:
        check_highlight(highlight, drawable)
    ax = axes_or_new(ax, (6.4, 4.0))
    has_colours = names is not None and members <= MOST_NAMED
    others = np.flatnonzero(drawable & (np.arange(members) != (-1 if highlight is None else highlight)))
    is_crowded = others.size > MOST_NAMED
    segments = as_segments(positions, lines[others], sizes[others])
    colours = [PALETTE[i % len(PALETTE)] for i in others] if has_colours else ["#5B6B7A" if is_crowded else PALETTE[0]]
    width, alpha = (0.6, float(np.clip(20.0 / others.size, 0.12, 0.5))) if is_crowded else (1.2, 0.8)
    ax.add_collection(LineCollection(segments, colors=colours, linewidths=width, alpha=alpha))
    ends = np.array([segment[-1] for segment, i in zip(segments, others, strict=True) if stops_early[i]])
    if ends.size:
        dots = [colour for colour, i in zip(cycle(colours), others, strict=False) if stops_early[i]]
        ax.scatter(ends[:, 0], ends[:, 1], s=5.0 if is_crowded else 14.0, c=dots, alpha=max(alpha, 0.4), linewidths=0)
    keys: list[Line2D] = []
    if names is not None and has_colours:
        keys += [Line2D([], [], color=PALETTE[i], linewidth=1.5, label=names[i]) for i in others]
    elif members > 1 and others.size:
        text = f"{others.size} {'other ' if highlight is not None else ''}member{'s' if others.size > 1 else ''}"
        keys.append(Line2D([], [], color=colours[0], linewidth=1.2, alpha=0.8, label=text))
    if highlight is not None:
        colour = PALETTE[highlight] if has_colours else PALETTE[1]
        name = f"member {highlight}" if names is None else names[highlight]
        size, dot = sizes[highlight], "o" if stops_early[highlight] else ""
        ax.plot(
            positions[:size], lines[highlight, :size], color=colour, linewidth=2.4, marker=dot, markevery=[int(size) - 1],
            markersize=5.0, zorder=3,
        )  # fmt: skip
        keys.append(Line2D([], [], color=colour, linewidth=2.4, label=name))
    if stops_early.any():
        text = f"{stops_early.sum()} of {members} end early"
        keys.append(Line2D([], [], linestyle="", marker="o", markersize=4, color=GREY, label=text))
    if not drawable.all():
        keys.append(add_note(f"{np.sum(~drawable)} of {members} not finite, left out"))
    axis_of_values(ax, np.concatenate([lines[i, : sizes[i]] for i in range(members)]))
    ax.autoscale_view()
    finish_axes(ax, "training step", "training loss", keys)
    return ax
