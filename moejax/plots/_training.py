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
    lines = as_numbers("history", history, 1, 2, "(T,) or (M, T)")
    lines = lines[None] if lines.ndim == 1 else lines
    members, length = lines.shape
    at = np.arange(1.0, length + 1.0) if steps is None else as_numbers("steps", steps, 1)
    _checks.shape("steps", at, (length,), "one step per column of history")
    _checks.finite("steps", at)
    names = None if labels is None else line_names("labels", labels, members, "one per member")
    sizes = finite_beginnings(lines)
    shown, early = sizes > 0, (sizes > 0) & (sizes < length)
    if highlight is not None:
        check_highlight(highlight, shown)
    ax = axes_or_new(ax, (6.4, 4.0))
    named = names is not None and members <= MOST_NAMED
    rest = np.flatnonzero(shown & (np.arange(members) != (-1 if highlight is None else highlight)))
    crowd = rest.size > MOST_NAMED
    segments = as_segments(at, lines[rest], sizes[rest])
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
        keys.append(Line2D([], [], linestyle="", marker="o", markersize=4, color=GREY, label=text))
    if not shown.all():
        keys.append(add_note(f"{np.sum(~shown)} of {members} not finite, left out"))
    axis_of_values(ax, np.concatenate([lines[i, : sizes[i]] for i in range(members)]))
    ax.autoscale_view()
    finish_axes(ax, "training step", "training loss", keys)
    return ax
