"""Selection: the choice of one model from a sweep, and its refit on all rows.

Restarts are compared by their training objective. A choice of restarts by held-out loss would reward luck. Penalties and
other numbers are compared by held-out loss (for a likelihood, minus the mean held-out log-likelihood), by an information
criterion, or by a user's own criterion.

Restarts are compared by one rule: fits that are neither diverged nor degenerate (see `Fit.admissible`) before others; of
those, such as ran out of steps after others; then the objective. So some fit is chosen wherever one is finite, and a warning
tells of a choice that is not of the first kind.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moejax import _checks
from moejax._precision import precision
from moejax.solvers import INADMISSIBLE, Fit, Status, describe, name_of, remedy
from moejax.sweeps._axes import EVERY_ROW
from moejax.sweeps._result import Sweep

CRITERIA = ("held_out", "aic", "bic", "icl")
RULES = ("best", "one_standard_error")

Criterion = str | Callable[[Fit], Any]

_DEGENERATE, _LOST = 2, 9  # ranks: 1 for out of steps, 2 more for degenerate; and what is not finite


class ChoiceWarning(UserWarning):
    """A selection chose a fit that is degenerate or has not converged, for want of a better one."""


@dataclass(frozen=True, eq=False)
class Selection:
    """The result of `select`.

    Attributes
    ----------
    params : pytree
        Parameters of the chosen model.
    chosen : dict
        The chosen value of each axis.
    fit : Fit
        The fit with these parameters; after a refit, the fit on all rows.
    restart : int
        Number of the start of this fit.
    table : dict of numpy.ndarray
        Columns with one row for each combination of values; see Notes.
    refit : Sweep or None
        The sweep on all rows; None without a refit.

    Notes
    -----
    The columns of `table` are:

    - the values on the axes;
    - `held_out`: mean loss over the held-out rows, from the best restart of each fold;
    - `standard_error`: standard error of this mean, over folds; NaN for fewer than two folds;
    - `difference`: `held_out` minus its lowest value;
    - `difference_se`: standard error of `difference`, from the differences within folds;
    - `objective`: objective of the best restart, as a mean over folds;
    - `restart`: number of the best restart, in the last fold;
    - `admissible`: share of admissible fits;
    - for a likelihood, `degrees_of_freedom` and `log_likelihood` of the best restart, as means over folds, and,
      without folds, its `aic`, `bic` and `icl`;
    - `criterion` of the best restart, if the criterion is a function;
    - `chosen`: whether the combination was chosen.
    """

    params: Any
    chosen: dict[str, Any]
    fit: Fit
    restart: int
    table: dict[str, np.ndarray] = field(repr=False)
    refit: Sweep | None = field(repr=False)


def select(result: Sweep, *, refit: bool = True, criterion: Criterion = "held_out", rule: str = "best") -> Selection:
    """Choose restarts by training objective and everything else by a criterion; then refit on all rows.

    Parameters
    ----------
    result : Sweep
        The result of a sweep over any axes except `bootstrap`, of fits that return a `Fit`.
    refit : bool, default True
        Whether to fit the chosen combination on all rows, from every restart, and to return the best of these fits. False
        returns the fit of the only fold, which was trained without the held-out rows.
    criterion : {"held_out", "aic", "bic", "icl"} or callable, default "held_out"
        The number that is lowest for the chosen combination.

        - "held_out": the mean loss over all held-out rows, from the best restart of each fold. For a likelihood this chooses
          the highest held-out log-likelihood. It needs the axis `fold`, unless restarts are the only candidates.
        - "aic", "bic", "icl": the criterion of the best restart (see `Fit`). They need a likelihood and a sweep without the
          axis `fold`. There is no refit, because the fits are on all rows.
        - A function that takes `result.fits`, whose arrays have the axes of the sweep leading, and returns an array of the
          shape of the sweep, NaN where there is no value. It needs a sweep without the axis `fold`, and there is no refit.
    rule : {"best", "one_standard_error"}, default "best"
        How held-out loss decides. "best" chooses the lowest loss. "one_standard_error" chooses the simplest combination
        whose loss exceeds the lowest by at most one standard error of this difference.

    Returns
    -------
    Selection
        The chosen model and a table of all combinations.

    Raises
    ------
    ValueError
        If `result` is not a sweep of such fits; if it has the axis `bootstrap`, whose members are not candidates; if the
        criterion or the rule does not apply to it; or if a criterion function does not return one number for each fit.
    RuntimeError
        If no combination has a finite fit in every fold, or no fit on all rows is finite.

    Warns
    -----
    ChoiceWarning
        If the chosen fit is degenerate, because all are, or has not converged, though its solver goes on until a fit has.

    Notes
    -----
    Of restarts the best is the one of lowest objective, among those that are admissible and did not run out of steps; where
    there are none, among those that are admissible; else among all that are finite. A combination that has no
    admissible fit in some fold is chosen only where that is so for all.

    One-standard-error rule [1]_: the standard error is that of the paired difference within folds, because combinations
    share what makes a fold difficult. The simplest combination has the fewest degrees of freedom, as a mean over folds. If
    the fits have no degrees of freedom, it has the largest weights of penalties and the fewest experts, compared axis by
    axis in the order of the axes. Between equally simple combinations, the lower loss decides.

    References
    ----------
    .. [1] Breiman, Friedman, Olshen and Stone (1984), "Classification and Regression Trees".

    Examples
    --------
    >>> import jax
    >>> import moejax
    >>> problem, rows = moejax.datasets.notebook()
    >>> x, y = problem.x[rows.train], problem.y[rows.train]
    >>> model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), n_experts=3)
    >>> grid = moejax.sweep(moejax.fit_gradient(model, steps=20), {"l1_experts": [0.0, 0.01], "restart": 2, "fold": 2})
    >>> best = moejax.select(grid(jax.random.key(0), x, y))
    >>> list(best.chosen)
    ['l1_experts']
    >>> best.table["held_out"].shape
    (2,)
    """
    if not callable(criterion):
        _check_choice("criterion", criterion, CRITERIA)
    _check_choice("rule", rule, RULES)
    refit = _checks.flag("refit", refit)
    _check_axes(result, refit, criterion)
    tuned = [name for name in result.axes if name not in ("restart", "fold")]
    simplicity = _check_rule(result, tuned, criterion) if rule == "one_standard_error" else []
    objective, held_out, admissible, rank = (_laid_out(result, tuned, values) for values in _judged(result))
    competing = np.where(rank == rank.min(axis=-1, keepdims=True), objective, np.inf)
    competing = np.where(rank == _LOST, np.inf, competing)
    best = competing.argmin(axis=-1)
    criterion_values = _laid_out(result, tuned, _criterion_values(result, criterion)) if callable(criterion) else None
    table = _table(result, tuned, competing, held_out, admissible, best, criterion_values)
    by = table["criterion" if callable(criterion) else criterion]
    losses = np.where(np.isfinite(by), by, np.inf)
    if not np.isfinite(losses).any():
        if callable(criterion) and np.isfinite(competing).any():
            raise RuntimeError("criterion: its value is not finite for any fit; want a finite value for at least one")
        raise RuntimeError(
            f"no combination has a finite fit in every fold: {_reasons(result)}; want a smaller learning rate, other "
            "penalties, or inputs of a smaller scale"
        )
    degenerate = (rank.min(axis=-1).max(axis=-1) >= _DEGENERATE).ravel()
    if not degenerate[np.isfinite(losses)].all():
        losses = np.where(degenerate, np.inf, losses)
    position = int(losses.argmin())
    if rule == "one_standard_error":
        position = _simplest(table, losses, simplicity)
    table["chosen"] = np.arange(losses.size) == position
    if result.held_out is None:  # without held-out rows, `_ordered` put the objective in these columns
        for name in ("held_out", "difference"):
            table[name] = np.full_like(table[name], np.nan)
    at = dict(zip(tuned, (int(i) for i in np.unravel_index(position, competing.shape[:-2])), strict=True))
    chosen = {name: result.axes[name][i].item() for name, i in at.items()}
    if "fold" in result.axes and refit:
        with precision(np.asarray(result.fits.objective).dtype):  # that of the sweep, wherever this is called
            again = _refit(result, chosen)
        fit, restart = winner(again)
        _warn(again, fit)
        return Selection(fit.params, chosen, fit, restart, table, again)
    rest = result.isel(**at, **({"fold": 0} if "fold" in result.axes else {}))
    fit, restart = winner(rest)
    _warn(rest, fit)
    return Selection(fit.params, chosen, fit, restart, table, None)


def _check_choice(name: str, given: str, wanted: tuple[str, ...]) -> None:
    """Raise ValueError if the given name is not one of the wanted names."""
    _checks.choice(name, given, wanted)


def _criterion_values(result: Sweep, criterion: Callable[[Fit], Any]) -> np.ndarray:
    """Return the values of a user's criterion, in the shape of the sweep."""
    values = np.asarray(criterion(result.fits))
    if values.dtype.kind not in "fiu" or values.shape != result.shape:
        what = f"{values.dtype} numbers of shape {values.shape} were returned"
        raise ValueError(f"criterion: {what}; want real numbers of shape {result.shape}, one for each fit of the sweep")
    return values.astype(float)


def _criterion_name(criterion: Criterion) -> str:
    """Return the name of a criterion for error messages."""
    return "a function" if callable(criterion) else repr(criterion)


def _check_axes(result: Sweep, refit: bool, criterion: Criterion) -> None:
    """Raise ValueError if nothing can be chosen from this sweep by this criterion."""
    if not isinstance(result, Sweep):
        raise ValueError(
            f"result: {type(result).__name__} was given; want the Sweep that sweep(fit, axes)(key, x, y) returns"
        )
    if not (hasattr(result.fits, "objective") and hasattr(result.fits, "status")):
        raise ValueError(
            f"result: a sweep of {type(result.fits).__name__} was given; want a sweep of fits that return a Fit"
        )
    if "bootstrap" in result.axes:
        raise ValueError(
            "result: it has the axis 'bootstrap', and fits to samples cannot be chosen; want a sweep without this axis"
        )
    if criterion != "held_out":
        _check_information(result, criterion)
    elif "fold" not in result.axes:
        several = [n for n, values in result.axes.items() if n != "restart" and len(values) > 1]
        if several:
            raise ValueError(f"result: {several} cannot be chosen without held-out rows; want the axis 'fold' in the sweep")
    elif result.held_out is None:
        raise ValueError("result: its fit has no `score`, so there is no held-out loss; want a fit with a `score`")
    elif not refit and len(result.axes["fold"]) > 1:
        raise ValueError(f"refit: False was given for {len(result.axes['fold'])} folds; want True, or a single fold")


def _check_information(result: Sweep, criterion: Criterion) -> None:
    """Raise ValueError unless the fits are on all rows and, for an information criterion, have a likelihood."""
    if "fold" in result.axes or "fold" in result.fixed:
        raise ValueError(
            f"criterion: {_criterion_name(criterion)} was given for fits by fold; want a sweep without the axis 'fold'"
        )
    if not (callable(criterion) or _has_likelihood(result)):
        raise ValueError(
            f"criterion: {criterion!r} was given for fits without a likelihood; want losses.nll(), or criterion='held_out'"
        )


def _has_likelihood(result: Sweep) -> bool:
    """Tell whether the fits have a log-likelihood and degrees of freedom."""
    values = [getattr(result.fits, name, None) for name in ("log_likelihood", "degrees_of_freedom", "classified", "rows")]
    return not any(v is None or np.isnan(v).all() for v in values)


def _check_rule(result: Sweep, tuned: list[str], criterion: Criterion) -> list[tuple[str, int]]:
    """Return the columns that measure simplicity, each with a sign; lower is simpler, and the first column decides first."""
    if criterion != "held_out" or len(result.axes.get("fold", ())) < 2:
        what = (
            f"criterion={_criterion_name(criterion)}"
            if criterion != "held_out"
            else f"{len(result.axes.get('fold', ()))} folds"
        )
        raise ValueError(f"rule: 'one_standard_error' was given with {what}; want held-out loss in at least two folds")
    if _has_likelihood(result):
        return [("degrees_of_freedom", 1)]
    weights = [penalty.name for penalty in getattr(result.sweeper.fit, "penalties", ())]
    axes = [(name, -1 if name in weights else 1) for name in tuned if name in (*weights, "n_experts")]
    if tuned and not axes:
        raise ValueError(
            f"rule: 'one_standard_error' cannot order {tuned} by simplicity; want fits that have degrees of freedom"
        )
    return axes


def _simplest(table: dict[str, np.ndarray], losses: np.ndarray, simplicity: list[tuple[str, int]]) -> int:
    """Return the position of the simplest combination within one standard error of the lowest loss."""
    near = np.flatnonzero(np.isfinite(losses) & (table["difference"] <= table["difference_se"]))
    keys = [losses, *(sign * table[name] for name, sign in reversed(simplicity))]
    return int(near[np.lexsort([key[near] for key in keys])[0]])


def _judged(result: Sweep) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return objective, held-out loss (or else objective), admissibility and rank of each fit, the lowest rank first."""
    objective, status = np.asarray(result.fits.objective), np.asarray(result.fits.status)
    held_out = objective if result.held_out is None else result.held_out
    admissible = result.fits.admissible & np.isfinite(objective)
    rank = np.where(status & int(Status.OUT_OF_STEPS), 1, 0) + np.where(admissible, 0, _DEGENERATE)
    lost = ~np.isfinite(objective) | (status & int(Status.DIVERGED) > 0)
    return objective, held_out, admissible, np.where(lost, _LOST, rank)


def _laid_out(result: Sweep, tuned: list[str], values: Any) -> np.ndarray:
    """Return the values of all members with axes (tuned ..., fold, restart), each of length 1 if absent."""
    names = list(result.axes)
    order = [names.index(n) for n in (*tuned, "fold", "restart") if n in names]
    shape = [len(result.axes[n]) for n in tuned] + [len(result.axes.get(n, [0])) for n in ("fold", "restart")]
    return np.transpose(values, order).reshape(shape)


def _table(
    result: Sweep,
    tuned: list[str],
    competing: np.ndarray,
    held_out: np.ndarray,
    admissible: np.ndarray,
    best: np.ndarray,
    criterion_values: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the columns of `Selection.table`."""
    available = np.isfinite(competing.min(axis=-1))

    def of_best(values: np.ndarray) -> np.ndarray:
        """Those of the best restart in each fold, NaN where no restart is admissible."""
        return np.where(available, np.take_along_axis(values, best[..., None], axis=-1)[..., 0], np.nan)

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
    if criterion_values is not None:
        columns["criterion"] = of_best(criterion_values).mean(axis=-1)
    return {
        **{name: values.ravel() for name, values in zip(tuned, grid, strict=True)},
        **{name: values.ravel() for name, values in columns.items()},
    }


def _mean_and_error(values: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean over folds, the last axis, and its standard error (NaN for fewer than two folds)."""
    mean, folds = values @ shares, values.shape[-1]
    if folds < 2:
        return mean, np.full_like(mean, np.nan)
    return mean, np.sqrt(np.square(values - mean[..., None]) @ shares / (folds - 1))


def _fold_shares(result: Sweep) -> np.ndarray:
    """Return the share of the held-out rows in each fold, by weight."""
    if "fold" not in result.axes:
        return np.ones(1)
    weights, labels = np.asarray(result.inputs.weights, float), np.asarray(result.inputs.fold_of_row)
    totals = np.asarray([weights[labels == fold].sum() for fold in result.axes["fold"]])
    shares: np.ndarray = totals / totals.sum()
    return shares


def _refit(result: Sweep, chosen: dict[str, Any]) -> Sweep:
    """Fit the chosen values on all rows, from every restart, with the compiled program of the sweep."""
    chosen_values = {**result.fixed, **chosen, "fold": EVERY_ROW}
    axes = {
        name: np.asarray([chosen_values[name]]) if name in chosen_values else values
        for name, values in result.sweeper.axes.items()
    }
    inner = getattr(result.sweeper.fit, "inner_axis", None)
    if inner is not None:  # all values of the inner axis, because each fit starts from the one before
        axes[inner] = result.sweeper.axes[inner]
    sweeper = dataclasses.replace(result.sweeper, axes=axes, checkpoint=None, chunk_size=result.run.chunk_size)
    try:
        again = sweeper.run(result.inputs)
    except FloatingPointError as error:
        raise RuntimeError(f"no fit on all rows is finite: {error}") from error
    return again.isel(**{n: int(np.argmax(values == chosen_values[n])) for n, values in axes.items() if n in chosen_values})


def winner(again: Sweep) -> tuple[Fit, int]:
    """Return the best fit of a sweep over restarts alone, or over nothing, and the number of its start.

    Parameters
    ----------
    again : Sweep
        The sweep.

    Returns
    -------
    fit : Fit
        The best fit, by the rule of `select`.
    restart : int
        Its start.

    Raises
    ------
    RuntimeError
        If no fit is finite.
    """
    objective, _, _, rank = (np.ravel(values) for values in _judged(again))
    if rank.min() == _LOST:
        raise RuntimeError(
            f"no fit on all rows is finite: {_reasons(again)}; want a smaller learning rate or other penalties"
        )
    position = int(np.where(rank == rank.min(), objective, np.inf).argmin())
    fit = again.isel(restart=position).fits if "restart" in again.axes else again.fits
    return fit, _restart_number(again, position)


def _warn(again: Sweep, fit: Fit) -> None:
    """Warn of a chosen fit that is degenerate, or that has not converged where its solver goes on until a fit has."""
    ended = describe(fit.status)
    if int(fit.status) & int(Status.DEGENERATE_EXPERT):
        said = f"the chosen fit ended {ended}, like all others: too few rows for an expert's coefficients or scale"
        warnings.warn(f"{said}; {remedy(fit.status)}", ChoiceWarning, stacklevel=3)
    elif not int(fit.status) & int(Status.CONVERGED) and getattr(again.sweeper.fit, "is_settling", False):
        said = f"the chosen fit ended {ended}, and no other converged"
        warnings.warn(f"{said}; {remedy(fit.status)}", ChoiceWarning, stacklevel=3)


def _restart_number(result: Sweep, position: Any) -> int:
    """Return the number of the start at a position."""
    return int(result.axes["restart"][position] if "restart" in result.axes else result.fixed.get("restart", 0))


def _reasons(result: Sweep) -> str:
    """Return how many fits are not finite, or not admissible, by reason, in words."""
    status = np.ravel(result.fits.status)
    counts = {name_of(flag): int((status & int(flag) != 0).sum()) for flag in Status if flag & INADMISSIBLE}
    counts["not finite in the objective"] = int((~np.isfinite(result.fits.objective) & result.fits.admissible).sum())
    return ", ".join(f"{count} of {status.size} {name}" for name, count in counts.items() if count)
