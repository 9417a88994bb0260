"""Selection: from a sweep to one model. It reads what a sweep returned and fits once more, on all rows.

Restarts compete by their training objective, for the best of them on held-out rows would reward luck; what the penalties
(and other numbers) are compared by is the held-out loss, which for a likelihood is minus the mean held-out log-likelihood,
or an information criterion, or any number of one's own. Only admissible fits take part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moejax.solvers import INADMISSIBLE, Fit, Status, name_of
from moejax.sweeps._axes import EVERY_ROW
from moejax.sweeps._result import Sweep

CRITERIA = ("held_out", "aic", "bic", "icl")
RULES = ("best", "one_standard_error")

Criterion = str | Callable[[Fit], Any]


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select` chose.

    params: of the chosen model. chosen: the chosen values by axis. fit: the `Fit` that params belong to, on all rows if
    there was a refit. restart: the number of its start. table: columns with a row for each combination of values: the
    values, `held_out` (a mean over the held-out rows) and `standard_error` (of that mean, over folds; NaN for fewer than
    two), `difference` (how much higher `held_out` is than the lowest) and `difference_se` (its standard error, from the
    differences within folds), `objective` and `restart` of the best admissible restart (the mean objective over folds, and
    the restart of the last), `admissible` (the share of its fits), for a likelihood `degrees_of_freedom` and
    `log_likelihood` of the best admissible restart (means over folds) and, without folds, its `aic`, `bic` and `icl`;
    `criterion` of that restart, where it was a function; and `chosen`. refit: the sweep on all rows, or None.
    """

    params: Any
    chosen: dict[str, Any]
    fit: Fit
    restart: int
    table: dict[str, np.ndarray] = field(repr=False)
    refit: Sweep | None = field(repr=False)


def select(result: Sweep, *, refit: bool = True, criterion: Criterion = "held_out", rule: str = "best") -> Selection:
    """Choose from a sweep: restarts by training objective, everything else by a criterion; then refit on all rows.

    result: from a sweep of fits that return a `Fit`, over any axes. refit: fit the chosen combination on all rows, from
    every restart, and return the best by training objective; if False, that of the sweep's only fold, trained without its
    held-out rows. criterion, which is lowest for what is chosen:

    - "held_out": the mean loss over all held-out rows, each from the best restart of its fold; for a likelihood this takes
      the highest held-out log-likelihood. Wants the axis `fold`, unless there is nothing but restarts to choose from;
    - "aic", "bic", "icl": of the best restart (see `Fit`). Want a likelihood and no axis `fold`; nothing is refitted, for
      the fits are on all rows already;
    - a function of `result.fits`, whose arrays have the sweep's axes leading, to an array of the sweep's shape, NaN where it
      has no value. Wants no axis `fold`, as above.

    rule, for held-out loss: "best" takes the lowest; "one_standard_error" (Breiman, Friedman, Olshen and Stone 1984) the
    simplest combination whose loss is higher than the lowest by at most one standard error of this difference, which
    is taken within folds, for they share what makes a fold hard. The simplest has the fewest degrees of freedom (a mean
    over folds); where fits have none, the largest weights of penalties and the fewest experts, the first of these axes
    first. Of equals, that of lower loss.

    Raises ValueError where there is nothing to choose by, for a function whose numbers are not one for each fit, and for a
    bootstrap (its members are no candidates); and RuntimeError if no fit is admissible.
    """
    if not callable(criterion):
        _check_choice("criterion", criterion, CRITERIA)
    _check_choice("rule", rule, RULES)
    _check_axes(result, refit, criterion)
    tuned = [name for name in result.axes if name not in ("restart", "fold")]
    simplicity = _check_rule(result, tuned, criterion) if rule == "one_standard_error" else []
    objective, held_out, admissible = _ordered(result, tuned)
    if not admissible.any():
        raise RuntimeError(f"no fit is admissible: {_reasons(result)}; want other penalties, more restarts or fewer experts")
    competing = np.where(admissible, objective, np.inf)
    best = competing.argmin(axis=-1)
    own = _laid_out(result, tuned, _own(result, criterion)) if callable(criterion) else None
    table = _table(result, tuned, competing, held_out, admissible, best, own)
    by = table["criterion" if callable(criterion) else criterion]
    losses = np.where(np.isfinite(by), by, np.inf)
    if not np.isfinite(losses).any():
        if callable(criterion):
            raise RuntimeError("criterion: it has a finite value for no admissible fit; want one that has")
        raise RuntimeError(f"no combination has an admissible fit in every fold: {_reasons(result)}; want more restarts")
    position = int(losses.argmin())
    if rule == "one_standard_error":
        position = _simplest(table, losses, simplicity)
    table["chosen"] = np.arange(losses.size) == position
    if result.held_out is None:  # nothing was held out, and an objective is no substitute
        for name in ("held_out", "difference"):
            table[name] = np.full_like(table[name], np.nan)
    at = dict(zip(tuned, (int(i) for i in np.unravel_index(position, competing.shape[:-2])), strict=True))
    chosen = {name: result.axes[name][i].item() for name, i in at.items()}
    if "fold" in result.axes and refit:
        again = _refit(result, chosen)
        fit, restart = _winner(again)
        return Selection(fit.params, chosen, fit, restart, table, again)
    rest = result.isel(**at, **({"fold": 0} if "fold" in result.axes else {}))
    fit, restart = _winner(rest)
    return Selection(fit.params, chosen, fit, restart, table, None)


def _check_choice(name: str, given: str, wanted: tuple[str, ...]) -> None:
    if given not in wanted:
        raise ValueError(f"{name}: {given!r} was given; want one of {list(wanted)}")


def _own(result: Sweep, criterion: Callable[[Fit], Any]) -> np.ndarray:
    """The numbers that a criterion of the user's has for the fits, in the shape of the sweep."""
    values = np.asarray(criterion(result.fits))
    if values.dtype.kind not in "fiu" or values.shape != result.shape:
        what = f"{values.dtype} numbers of shape {values.shape} were returned"
        raise ValueError(f"criterion: {what}; want real numbers of shape {result.shape}, one for each fit of the sweep")
    return values.astype(float)


def _told(criterion: Criterion) -> str:
    return "a function" if callable(criterion) else repr(criterion)


def _check_axes(result: Sweep, refit: bool, criterion: Criterion) -> None:
    if not isinstance(result, Sweep):
        raise ValueError(f"result: {type(result).__name__} was given; want what a sweep returns once it is called with data")
    if not (hasattr(result.fits, "objective") and hasattr(result.fits, "status")):
        raise ValueError(f"result: a sweep of {type(result.fits).__name__} was given; want one whose fits are of type Fit")
    if "bootstrap" in result.axes:
        raise ValueError("result: it has the axis 'bootstrap', whose members are no candidates; want a sweep without it")
    if criterion != "held_out":
        _check_information(result, criterion)
    elif "fold" not in result.axes:
        several = [n for n, values in result.axes.items() if n != "restart" and len(values) > 1]
        if several:
            raise ValueError(f"result: {several} cannot be chosen without held-out rows; want the axis 'fold' in the sweep")
    elif result.held_out is None:
        raise ValueError("result: its fit has no `score`, so nothing is held out to choose by; want a fit that has one")
    elif not refit and len(result.axes["fold"]) > 1:
        raise ValueError(f"refit: False was given for {len(result.axes['fold'])} folds; want True, or a single fold")


def _check_information(result: Sweep, criterion: Criterion) -> None:
    if "fold" in result.axes or "fold" in result.fixed:
        raise ValueError(f"criterion: {_told(criterion)} was given for fits by fold; want a sweep without the axis 'fold'")
    if not (callable(criterion) or _has_likelihood(result)):
        raise ValueError(
            f"criterion: {criterion!r} was given for fits without a likelihood; want losses.nll(), or criterion='held_out'"
        )


def _has_likelihood(result: Sweep) -> bool:
    values = [getattr(result.fits, name, None) for name in ("log_likelihood", "degrees_of_freedom", "classified", "rows")]
    return not any(v is None or np.isnan(v).all() for v in values)


def _check_rule(result: Sweep, tuned: list[str], criterion: Criterion) -> list[tuple[str, int]]:
    """The columns by which combinations are the simpler the lower these are, with a sign; the first counts first."""
    if criterion != "held_out" or len(result.axes.get("fold", ())) < 2:
        what = f"criterion={_told(criterion)}" if criterion != "held_out" else f"{len(result.axes.get('fold', ()))} folds"
        raise ValueError(f"rule: 'one_standard_error' was given with {what}; want held-out loss in at least two folds")
    if _has_likelihood(result):
        return [("degrees_of_freedom", 1)]
    weights = [penalty.name for penalty in getattr(result.sweeper.fit, "penalties", ())]
    axes = [(name, -1 if name in weights else 1) for name in tuned if name in (*weights, "n_experts")]
    if tuned and not axes:
        raise ValueError(f"rule: 'one_standard_error' knows no simplest of {tuned}; want fits that have degrees of freedom")
    return axes


def _simplest(table: dict[str, np.ndarray], losses: np.ndarray, simplicity: list[tuple[str, int]]) -> int:
    near = np.flatnonzero(np.isfinite(losses) & (table["difference"] <= table["difference_se"]))
    keys = [losses, *(sign * table[name] for name, sign in reversed(simplicity))]
    return int(near[np.lexsort([key[near] for key in keys])[0]])


def _ordered(result: Sweep, tuned: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objective, held-out loss (or else objective) and admissibility, laid out."""
    held_out = result.fits.objective if result.held_out is None else result.held_out
    a, b, c = (_laid_out(result, tuned, v) for v in (result.fits.objective, held_out, _selectable(result)))
    return a, b, c


def _laid_out(result: Sweep, tuned: list[str], values: Any) -> np.ndarray:
    """Values of all members with axes (tuned ..., fold, restart), each of length 1 where absent."""
    names = list(result.axes)
    order = [names.index(n) for n in (*tuned, "fold", "restart") if n in names]
    shape = [len(result.axes[n]) for n in tuned] + [len(result.axes.get(n, [0])) for n in ("fold", "restart")]
    return np.transpose(values, order).reshape(shape)


def _selectable(result: Sweep) -> np.ndarray:
    return result.fits.admissible & np.isfinite(result.fits.objective)


def _table(
    result: Sweep,
    tuned: list[str],
    competing: np.ndarray,
    held_out: np.ndarray,
    admissible: np.ndarray,
    best: np.ndarray,
    own: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    there = np.isfinite(competing.min(axis=-1))

    def of_best(values: np.ndarray) -> np.ndarray:
        """Those of the best restart in each fold, NaN where no restart is admissible."""
        return np.where(there, np.take_along_axis(values, best[..., None], axis=-1)[..., 0], np.nan)

    losses, shares = of_best(held_out), _fold_shares(result)
    grid = np.meshgrid(*(result.axes[n] for n in tuned), indexing="ij")
    mean, error = _mean_and_error(losses, shares)
    lowest = np.unravel_index(np.where(np.isfinite(mean), mean, np.inf).argmin(), mean.shape)
    difference, difference_error = _mean_and_error(losses - losses[lowest], shares)
    columns = {
        "held_out": mean,
        "standard_error": error,
        "difference": difference,
        "difference_se": difference_error,
        "objective": competing.min(axis=-1).mean(axis=-1),
        "restart": np.reshape([_restart_number(result, i) for i in best[..., -1].ravel()], mean.shape),
        "admissible": admissible.mean(axis=(-2, -1)),
    }
    if _has_likelihood(result):
        names = ("degrees_of_freedom", "log_likelihood", *(CRITERIA[1:] if "fold" not in result.axes else ()))
        columns |= {name: of_best(_laid_out(result, tuned, getattr(result.fits, name))).mean(axis=-1) for name in names}
    if own is not None:
        columns["criterion"] = of_best(own).mean(axis=-1)
    return {
        **{name: values.ravel() for name, values in zip(tuned, grid, strict=True)},
        **{name: values.ravel() for name, values in columns.items()},
    }


def _mean_and_error(values: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over folds, the last axis, weighted by their shares, and its standard error (NaN for fewer than two)."""
    mean, folds = values @ shares, values.shape[-1]
    if folds < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, np.sqrt(np.square(values - mean[..., None]) @ shares / (folds - 1))


def _fold_shares(result: Sweep) -> np.ndarray:
    """The share of the held-out rows that each fold has, by weight."""
    if "fold" not in result.axes:
        return np.ones(1)
    weights, labels = np.asarray(result.inputs.weights, float), np.asarray(result.inputs.fold_of_row)
    totals = np.asarray([weights[labels == fold].sum() for fold in result.axes["fold"]])
    return totals / totals.sum()


def _refit(result: Sweep, chosen: dict[str, Any]) -> Sweep:
    """The chosen values on all rows, from every restart of the sweep, by the program that it compiled."""
    one = {**result.fixed, **chosen, "fold": EVERY_ROW}
    axes = {name: np.asarray([one[name]]) if name in one else values for name, values in result.sweeper.axes.items()}
    inner = getattr(result.sweeper.fit, "inner_axis", None)
    if inner is not None:  # all its values again, for each is fitted from those before
        axes[inner] = result.sweeper.axes[inner]
    sweeper = dataclasses.replace(result.sweeper, axes=axes, checkpoint=None, chunk_size=result.run.chunk_size)
    try:
        again = sweeper.run(result.inputs)
    except FloatingPointError as error:
        raise RuntimeError(f"no fit on all rows is admissible: {error}") from error
    return again.isel(**{n: int(np.argmax(values == one[n])) for n, values in axes.items() if n in one})


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
