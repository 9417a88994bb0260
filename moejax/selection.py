"""Selection: from a sweep to one model. It reads what a sweep returned and fits once more, on all rows.

Restarts compete by their training objective, for the best of them on held-out rows would reward luck; what the penalties
(and other numbers) are compared by is the held-out loss. Only admissible fits take part.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moejax.fit import INADMISSIBLE, Fit, Status, name_of
from moejax.sweep import EVERY_ROW, Sweep


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select` chose.

    params: of the chosen model. chosen: the chosen values by axis. fit: the `Fit` that params belong to, on all rows if
    there was a refit. restart: the number of its start. table: columns with a row for each combination of values: the
    values, `held_out` (a mean over the held-out rows) and `standard_error` (of that mean, over folds; NaN for fewer than
    two), `objective` and `restart` of the best admissible restart (the mean objective over folds, and the restart of the
    last), `admissible` (the share of its fits), and `chosen`. refit: the sweep on all rows, or None.
    """

    params: Any
    chosen: dict[str, Any]
    fit: Fit
    restart: int
    table: dict[str, np.ndarray] = field(repr=False)
    refit: Sweep | None = field(repr=False)


def select(result: Sweep, *, refit: bool = True) -> Selection:
    """Choose from a sweep: restarts by training objective, everything else by held-out loss; then refit on all rows.

    result: from a sweep of `fit_gradient`'s fits over any axes, with `fold` among them unless there is nothing but
    restarts to choose from. The held-out loss of a combination of values is the mean over all held-out rows, each from
    the best restart of its fold. refit: fit the chosen combination on all rows, from every restart, and return the best by
    training objective; if False, that of the sweep's only fold, trained without its held-out rows.

    Raises ValueError where there is nothing to choose by, and for a bootstrap (its members are no candidates); and
    RuntimeError if no fit is admissible.
    """
    _check_axes(result, refit)
    tuned = [name for name in result.axes if name not in ("restart", "fold")]
    objective, held_out, admissible = _ordered(result, tuned)
    if not admissible.any():
        raise RuntimeError(f"no fit is admissible: {_reasons(result)}; want other penalties, more restarts or fewer experts")
    competing = np.where(admissible, objective, np.inf)
    best = competing.argmin(axis=-1)
    table = _table(result, tuned, competing, held_out, admissible, best)
    losses = np.where(np.isfinite(table["held_out"]), table["held_out"], np.inf)
    if not np.isfinite(losses).any():
        raise RuntimeError(f"no combination has an admissible fit in every fold: {_reasons(result)}; want more restarts")
    position = int(losses.argmin())
    table["chosen"] = np.arange(losses.size) == position
    if result.held_out is None:  # restarts alone, which the objective chose among
        table["held_out"] = np.full_like(table["held_out"], np.nan)
    at = dict(zip(tuned, (int(i) for i in np.unravel_index(position, competing.shape[:-2])), strict=True))
    chosen = {name: result.axes[name][i].item() for name, i in at.items()}
    if "fold" in result.axes and refit:
        again = _refit(result, chosen)
        fit, restart = _winner(again)
        return Selection(fit.params, chosen, fit, restart, table, again)
    rest = result.isel(**at, **({"fold": 0} if "fold" in result.axes else {}))
    fit, restart = _winner(rest)
    return Selection(fit.params, chosen, fit, restart, table, None)


def _check_axes(result: Sweep, refit: bool) -> None:
    if not isinstance(result, Sweep):
        raise ValueError(f"result: {type(result).__name__} was given; want what a sweep returns once it is called with data")
    if not (hasattr(result.fits, "objective") and hasattr(result.fits, "status")):
        raise ValueError(f"result: a sweep of {type(result.fits).__name__} was given; want one whose fits are of type Fit")
    if "bootstrap" in result.axes:
        raise ValueError("result: it has the axis 'bootstrap', whose members are no candidates; want a sweep without it")
    if "fold" not in result.axes:
        several = [n for n, values in result.axes.items() if n != "restart" and len(values) > 1]
        if several:
            raise ValueError(f"result: {several} cannot be chosen without held-out rows; want the axis 'fold' in the sweep")
    elif result.held_out is None:
        raise ValueError("result: its fit has no `score`, so nothing is held out to choose by; want a fit that has one")
    elif not refit and len(result.axes["fold"]) > 1:
        raise ValueError(f"refit: False was given for {len(result.axes['fold'])} folds; want True, or a single fold")


def _ordered(result: Sweep, tuned: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objective, held-out loss and admissibility with axes (tuned ..., fold, restart), each of length 1 where absent."""
    names = list(result.axes)
    order = [names.index(n) for n in (*tuned, "fold", "restart") if n in names]
    shape = [len(result.axes[n]) for n in tuned] + [len(result.axes.get(n, [0])) for n in ("fold", "restart")]
    objective = np.asarray(result.fits.objective)
    held_out = objective if result.held_out is None else result.held_out
    a, b, c = (np.transpose(v, order).reshape(shape) for v in (objective, held_out, _selectable(result)))
    return a, b, c


def _selectable(result: Sweep) -> np.ndarray:
    return result.fits.admissible & np.isfinite(result.fits.objective)


def _table(
    result: Sweep, tuned: list[str], competing: np.ndarray, held_out: np.ndarray, admissible: np.ndarray, best: np.ndarray
) -> dict[str, np.ndarray]:
    there = np.isfinite(competing.min(axis=-1))
    losses = np.where(there, np.take_along_axis(held_out, best[..., None], axis=-1)[..., 0], np.nan)
    shares = _fold_shares(result)
    grid = np.meshgrid(*(result.axes[n] for n in tuned), indexing="ij")
    folds = losses.shape[-1]
    mean = losses @ shares
    spread = np.sqrt(np.square(losses - mean[..., None]) @ shares / (folds - 1)) if folds > 1 else np.full_like(mean, np.nan)
    return {
        **{name: values.ravel() for name, values in zip(tuned, grid, strict=True)},
        "held_out": mean.ravel(),
        "standard_error": spread.ravel(),
        "objective": competing.min(axis=-1).mean(axis=-1).ravel(),
        "restart": np.asarray([_restart_number(result, i) for i in best[..., -1].ravel()]),
        "admissible": admissible.mean(axis=(-2, -1)).ravel(),
    }


def _fold_shares(result: Sweep) -> np.ndarray:
    """The share of the held-out rows that each fold has, by weight."""
    if "fold" not in result.axes:
        return np.ones(1)
    weights, labels = np.asarray(result.inputs.weights, float), np.asarray(result.inputs.fold_of_row)
    totals = np.asarray([weights[labels == fold].sum() for fold in result.axes["fold"]])
    return totals / totals.sum()


def _refit(result: Sweep, chosen: dict[str, Any]) -> Sweep:
    """The chosen values on all rows, from every restart, by the program that the sweep compiled."""
    one = {**result.fixed, **chosen, "fold": EVERY_ROW}
    axes = {name: np.asarray([one[name]]) if name in one else result.axes[name] for name in result.sweeper.axes}
    sweeper = dataclasses.replace(result.sweeper, axes=axes, checkpoint=None, chunk_size=result.run.chunk_size)
    try:
        again = sweeper.run(result.inputs)
    except FloatingPointError as error:
        raise RuntimeError(f"no fit on all rows is admissible: {error}") from error
    return again.isel(**{name: 0 for name in axes if name in one})


def _winner(again: Sweep) -> tuple[Fit, int]:
    """The best admissible fit of a sweep over restarts alone (or over nothing), and the number of its start."""
    objective = np.where(_selectable(again), again.fits.objective, np.inf)
    if not np.isfinite(objective).any():
        raise RuntimeError(f"no fit on all rows is admissible: {_reasons(again)}; want more restarts or fewer experts")
    position = int(objective.argmin())
    fit = again.isel(restart=position).fits if "restart" in again.axes else again.fits
    return fit, _restart_number(again, position)


def _restart_number(result: Sweep, position: Any) -> int:
    return int(result.axes["restart"][position] if "restart" in result.axes else result.fixed.get("restart", 0))


def _reasons(result: Sweep) -> str:
    status = np.ravel(result.fits.status)
    counts = {name_of(flag): int((status & int(flag) != 0).sum()) for flag in Status if flag & INADMISSIBLE}
    counts["not finite in the objective"] = int((~np.isfinite(result.fits.objective) & result.fits.admissible).sum())
    return ", ".join(f"{count} of {status.size} {name}" for name, count in counts.items() if count)
