"""How near to the best possible predictor: gates that see the inputs, by EM and by gradient, on three kinds of problem.

    python benchmarks/accuracy.py [--draws 12] [--kinds regressions softmax t_noise] [--out DIR]

The kinds: three regressions in three clusters of inputs (the first problem is the notebook's); three regressions whose gate
truly is a softmax; and the first kind with t noise of 3 degrees of freedom. On each problem everything is chosen in three
ways: on 500 rows to train and 500 to choose by, then refitted on all 1,000; by 5-fold cross-validation of the same 1,000
rows, refitted on them; and so with the first 500. Starts compete by training objective, all else by held-out loss: minus the
log-likelihood for EM, squared error for gradient fits. Nothing is chosen on the 20,000 fresh rows, of which the table has

- the squared error over that of the Bayes predictor, both in expectation over y given x, so without luck and at least 1;
- misrouted: the share of rows whose most probable expert is not the true one, experts matched as is best;
- log-lik.: the mean of log p(y | x) less that of the true model, in nats a row, where there is a likelihood.

"chosen" is, for each problem, the EM fit with a soft gate of the highest held-out likelihood. Recovery of active features is
shown along the penalty of the experts on the first kind. Writes `accuracy.json`, `accuracy.png` and `recovery.png` into DIR.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from lambda_grid import cosine_adam, keep_compiled_programs, matched, mse, panels, run_command, write_json

import moejax
from moejax import datasets, experts, families, gates, plots
from moejax.sweeps import EVERY_ROW

ROWS, FRESH, EXPERTS, FOLDS = 1000, 20_000, 3, 5
KEPT = 4  # starts, of a single fold; half as many of each of several
KINDS: dict[str, tuple[str, Callable[..., datasets.Problem]]] = {
    "regressions": ("clusters, normal noise", datasets.three_regressions),
    "softmax": ("softmax gate, normal noise", datasets.softmax_regressions),
    "t_noise": ("clusters, t noise, 3 df", partial(datasets.three_regressions, noise_df=3.0)),
}


# ---- what is compared -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Regime:
    """How many rows there are, how many of them tell the scale, and how they are held out."""

    name: str
    rows: int
    scaled_by: int
    fold: Any


REGIMES = (
    Regime("500 + 500", ROWS, ROWS // 2, np.repeat([-1, 0], ROWS // 2)),
    Regime("1,000 by folds", ROWS, ROWS, FOLDS),
    Regime("500 by folds", ROWS // 2, ROWS // 2, FOLDS),
)


@dataclass(frozen=True)
class Entry:
    """A model: its gate, its solver, and the axes among which to choose. Without a family, squared error by gradient.

    temperatures: what the gate's logits are divided by once fitted, or none.
    """

    name: str
    gate: Any
    axes: dict[str, Any]
    family: Any = None
    temperatures: tuple[float, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)

    @property
    def solver(self) -> str:
        return "gradient" if self.family is None else "em"

    @property
    def candidate(self) -> bool:
        """Whether held-out likelihood may choose it: a gate that chooses predicts otherwise than its likelihood says."""
        return self.solver == "em" and not getattr(self.gate, "kept", None)

    def fit(self, steps: int) -> Any:
        """The fit; one for all problems, so that all share its compiled programs."""
        model = moejax.moe(experts.linear(), self.gate, EXPERTS, family=self.family)
        if self.family is not None:
            return moejax.fit_em(model, max_iter=200)  # one that takes longer makes its whole chunk wait
        return moejax.fit_gradient(model, optimizer=partial(cosine_adam, steps), steps=steps, learning_rate=0.1)


# Of a mean log-likelihood, whose slopes are those of the squared error over the variance of the noise. From about 0.5 on, no
# coefficient at all and a large variance have the lower objective.
L1_EXPERTS = {"l1_experts": [0.01, 0.03, 0.1, 0.3]}
L2_GATE = {"l2_gate": [1e-4, 1e-3, 1e-2, 3e-2, 1e-1]}
# A ridge decides where a gate's borders lie and makes them too soft; how sharp they are is chosen apart from it.
TEMPERATURES = (2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.17, 0.12)
L1_SQUARED = {"l1_experts": [1e-4, 1e-3]}
NORMAL, STUDENT = families.gaussian(shared_scale=True), families.student_t(shared_scale=True)


def em_entries(suffix: str, family: Any, kinds: tuple[str, ...]) -> list[Entry]:
    of = {"family": family, "kinds": kinds}
    ridge = {"l1_experts": [0.03, 0.1], **L2_GATE}
    return [
        Entry(f"softmax{suffix}", gates.softmax(), ridge, temperatures=TEMPERATURES, **of),
        Entry(f"top1{suffix}", gates.top1(), ridge, **of),
        Entry(f"gaussian_own{suffix}", gates.gaussian(covariance="own"), L1_EXPERTS, **of),
        Entry(f"gaussian_shared{suffix}", gates.gaussian(covariance="shared"), L1_EXPERTS, **of),
    ]


ENTRIES = [
    *em_entries("", NORMAL, tuple(KINDS)),
    *em_entries("_t", STUDENT, ("t_noise",)),
    Entry("softmax_gradient", gates.softmax(), {**L1_SQUARED, "l1_gate": [1e-5, 1e-4]}),
    Entry("top1_gradient", gates.top1(), {**L1_SQUARED, "temperature": [0.3, 1.0]}),
]
CHOSEN = "chosen"
RECOVERY = "gaussian_shared"
RECOVERY_PENALTIES = np.geomspace(0.001, 1.0, 25)


# ---- problems -------------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """A problem, its rows, and fresh ones with what is true of them."""

    name: str
    problem: datasets.Problem
    x: np.ndarray
    y: np.ndarray
    fresh_x: np.ndarray
    fresh_y: np.ndarray
    fresh_expert: np.ndarray
    posterior: np.ndarray  # (n, K)
    means: np.ndarray  # (n, K), of y under each expert
    bayes_mse: float  # of the fresh rows, in expectation over y
    log_likelihood: float  # a row


def samples(kind: str, draws: int) -> Iterator[Sample]:
    """`draws` problems of a kind, and before them the notebook's, which is of the first kind."""
    for number in range(0 if kind == "regressions" else 1, draws + 1):
        problem = KINDS[kind][1](number, n=ROWS) if number else datasets.notebook()[0]
        x, y, expert = problem.draw(1, FRESH)
        posterior, means = problem.posterior(x), x @ problem.weights.T
        bayes = expected_error(problem, posterior, means, problem.bayes(x))
        name = f"draw {number}" if number else "notebook"
        of_fresh = (x, y, expert, posterior, means, bayes, float(problem.log_prob(x, y).mean()))
        yield Sample(name, problem, problem.x[:ROWS], problem.y[:ROWS], *of_fresh)


def expected_error(problem: datasets.Problem, posterior: np.ndarray, means: np.ndarray, prediction: np.ndarray) -> float:
    """The mean squared error of a prediction, in expectation over y given x."""
    return float(problem.noise_sd**2 + np.mean(np.sum(posterior * np.square(means - prediction[:, None]), axis=1)))


class Task(NamedTuple):
    """A sample's rows as a model sees them: centred, and x and y each divided by one number, for columns share a unit."""

    sample: Sample
    regime: Regime
    x: np.ndarray
    y: np.ndarray
    fresh_x: np.ndarray
    fresh_y: np.ndarray
    x_sd: float
    y_mean: float
    y_sd: float


def task_of(sample: Sample, regime: Regime) -> Task:
    """The rows of a regime. Divided column by column, those in which the experts differ most would be shrunk the most."""
    x, y = sample.x[: regime.scaled_by], sample.y[: regime.scaled_by]
    centre, x_sd = x.mean(axis=0), float(np.sqrt(x.var(axis=0).mean()))
    y_mean, y_sd = float(y.mean()), float(y.std())
    x, fresh_x = (((v - centre) / x_sd).astype(np.float32) for v in (sample.x[: regime.rows], sample.fresh_x))
    y, fresh_y = (((v - y_mean) / y_sd).astype(np.float32) for v in (sample.y[: regime.rows], sample.fresh_y))
    return Task(sample, regime, x, y, fresh_x, fresh_y, x_sd, y_mean, y_sd)


# ---- fitting and choosing -------------------------------------------------------------------------------------------


def fitted(task: Task, entry: Entry, fit: Any, restarts: int) -> dict[str, Any]:
    """What was chosen, "refitted" on all rows and, if there is one fold, "trained" on the rest."""
    axes = {**entry.axes, "restart": promising(task, entry, fit, restarts), "fold": task.regime.fold}
    grid = moejax.sweep(fit, axes, progress=False)(jax.random.key(0), task.x, task.y)
    if entry.temperatures:
        grid = by_temperature(grid, entry.temperatures)
    # The best starts for some of the rows need not be those for all of them: the refit has every start.
    every = dataclasses.replace(grid.sweeper, axes={**grid.sweeper.axes, "restart": np.arange(restarts)})
    grid = dataclasses.replace(grid, sweeper=every)
    selections = {"refitted": moejax.select(grid)}
    if len(grid.axes["fold"]) == 1:
        selections["trained"] = moejax.select(grid, refit=False)
    return selections


def promising(task: Task, entry: Entry, fit: Any, restarts: int) -> np.ndarray:
    """The numbers of the best of many starts in each fold, by training objective at the first value of each axis.

    Where inputs are one cloud, most starts of a mixture end in a poor optimum, and many for each penalty would take long.
    """
    first = {name: values[:1] for name, values in entry.axes.items()}
    axes = {**first, "restart": restarts, "fold": task.regime.fold}
    grid = moejax.sweep(fit, axes, progress=False)(jax.random.key(0), task.x, task.y).isel(**dict.fromkeys(first, 0))
    objective = np.where(grid.fits.admissible & np.isfinite(grid.fits.objective), grid.fits.objective, np.inf)
    return np.unique(objective.argsort(axis=0, kind="stable")[: KEPT if objective.shape[1] == 1 else KEPT // 2])


def by_temperature(grid: Any, temperatures: tuple[float, ...]) -> Any:
    """The sweep with one more axis: what the logits of the gate are divided by once it is fitted.

    A penalty that is large enough to place a gate's borders well also makes it unsure of them. As in the relaxed lasso
    (Meinshausen 2007) and in calibration by temperature (Guo et al. 2017), one number undoes that, chosen on held-out rows.
    """
    shape, inputs = grid.shape, grid.inputs
    folds = np.broadcast_to(np.reshape(grid.axes["fold"], _along(grid, "fold")), shape).ravel()
    flat = jax.tree.map(lambda v: v.reshape(-1, *v.shape[len(shape) :]), grid.fits.params)
    values = np.asarray(temperatures, np.float32)
    held_out = _held_out(grid.sweeper.fit, flat, folds, values, inputs.x, inputs.y, inputs.fold_of_row)
    fits = jax.tree.map(lambda v: _repeated(v, len(shape), len(values)), grid.fits)
    axes = {**grid.axes, "gate temperature": np.asarray(temperatures)}
    return dataclasses.replace(grid, axes=axes, fits=fits, held_out=np.asarray(held_out).reshape(*shape, -1))


def _along(grid: Any, name: str) -> list[int]:
    return [-1 if axis == name else 1 for axis in grid.axes]


def _repeated(values: np.ndarray, after: int, times: int) -> np.ndarray:
    """The same array with one more axis."""
    return np.broadcast_to(np.expand_dims(values, after), (*values.shape[:after], times, *values.shape[after:]))


@partial(jax.jit, static_argnums=0)
def _held_out(fit: Any, params: Any, folds: Any, temperatures: Any, x: Any, y: Any, fold_of_row: Any) -> jax.Array:
    def member(one: Any) -> jax.Array:
        held = (fold_of_row == one[1]).astype(x.dtype)
        return jax.vmap(lambda t: fit.score(at_temperature(one[0], t), x, y, held / held.sum()))(temperatures)

    return jax.lax.map(member, (params, folds))


def at_temperature(params: Any, temperature: Any) -> Any:
    """The same experts and gate, whose logits are divided by a number."""
    return {**params, "gate": {**params["gate"], "temperature": temperature}}


# ---- how good it is -------------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _on_fresh_rows(model: Any, params: Any, x: Any, y: Any) -> tuple[jax.Array, jax.Array, Any]:
    log_prob = None if model.family is None else model.log_prob(params, x, y).mean()
    return model.predict(params, x), model.gate_probs(params, x).argmax(axis=1), log_prob


def measured(task: Task, model: Any, selection: Any) -> dict[str, Any]:
    """The ratio to the Bayes error on the fresh rows (and on their y as drawn), misrouted rows, and log-likelihood."""
    sample, params = task.sample, selection.params
    if "gate temperature" in selection.chosen:
        params = at_temperature(params, np.float32(selection.chosen["gate temperature"]))
    prediction, routed, log_prob = _on_fresh_rows(model, params, task.fresh_x, task.fresh_y)
    prediction = np.asarray(prediction, np.float64) * task.y_sd + task.y_mean
    bayes = mse(sample.fresh_y, np.sum(sample.posterior * sample.means, axis=1))
    error = expected_error(sample.problem, sample.posterior, sample.means, prediction)
    return {
        "ratio": error / sample.bayes_mse,
        "ratio_as_drawn": mse(sample.fresh_y, prediction) / bayes,
        "misrouted": misrouted(np.asarray(routed), sample.fresh_expert),
        "log_likelihood": None if log_prob is None else float(log_prob) - float(np.log(task.y_sd)) - sample.log_likelihood,
    }


def misrouted(found: np.ndarray, true: np.ndarray) -> float:
    """The share of rows at another expert than the true one, under the best of all ways to number the found experts."""
    count = int(max(found.max(), true.max(), EXPERTS - 1)) + 1
    common = np.bincount(found * count + true, minlength=count**2).reshape(count, count)
    right = max(sum(common[f, k] for f, k in enumerate(order)) for order in itertools.permutations(range(count)))
    return float(1 - right / len(true))


def ratios(task: Task, entry: Entry, fit: Any, restarts: int) -> dict[str, Any]:
    """The entry's results on one problem, and what was chosen."""
    selections = fitted(task, entry, fit, restarts)
    results = {kind: measured(task, fit.model, selection) for kind, selection in selections.items()}
    chosen = selections["refitted"]
    return {
        **{kind: result.pop("ratio") for kind, result in results.items()},
        **results["refitted"],
        "bayes_mse": task.sample.bayes_mse,
        "chosen": chosen.chosen,
        "held_out": float(chosen.table["held_out"][chosen.table["chosen"]][0]),
    }


def best_held_out(rows: dict[str, dict[str, Any]], entries: list[Entry]) -> dict[str, Any]:
    """The results of the entry whose held-out likelihood is highest, of those that predict by that likelihood."""
    names = [entry.name for entry in entries if entry.candidate]
    name = min(names, key=lambda name: np.nan_to_num(rows[name]["held_out"], nan=np.inf))
    return {**rows[name], "chosen": {"model": name, **rows[name]["chosen"]}}


def summarize(name: str, entry: Entry | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst ratio of a model over the problems, and medians of the rest."""
    summary: dict[str, Any] = {"name": name, "solver": entry.solver if entry else "em"}
    for kind, suffix in (("refitted", ""), ("trained", "_trained")):
        if kind in rows[0]:
            values = np.array([row[kind] for row in rows], float)
            summary |= {f"median{suffix}": float(np.median(values)), f"worst{suffix}": float(values.max())}
    for key in ("ratio_as_drawn", "misrouted", "log_likelihood"):
        values = np.array([row[key] for row in rows], float)
        summary[f"median_{key}"] = float(np.median(values))
    return {**summary, "problems": rows}


def run_kind(kind: str, draws: int, restarts: int, fits: dict[str, Any]) -> list[dict[str, Any]]:
    """For each regime, the problems of a kind and the models on them."""
    entries = [entry for entry in ENTRIES if kind in entry.kinds]
    rows: dict[str, dict[str, list[Any]]] = {r.name: {n: [] for n in [*(e.name for e in entries), CHOSEN]} for r in REGIMES}
    names, truths = [], []
    for sample in samples(kind, draws):
        started = time.perf_counter()
        names.append(sample.name)
        truths.append(misrouted(sample.posterior.argmax(axis=1), sample.fresh_expert))
        for regime in REGIMES:
            one = {}
            at = task_of(sample, regime)
            for entry in entries:
                try:
                    one[entry.name] = ratios(at, entry, fits[entry.name], restarts)
                except (RuntimeError, FloatingPointError) as error:
                    raise RuntimeError(f"{kind}, {sample.name}, {regime.name}, {entry.name}: {error}") from error
            if any(entry.candidate for entry in entries):
                one[CHOSEN] = best_held_out(one, entries)
            for name, row in one.items():
                rows[regime.name][name].append(row)
        last = ", ".join(f"{name} {r[-1]['refitted']:.2f}" for name, r in rows[REGIMES[0].name].items() if r)
        print(f"{kind}, {sample.name}: {last} ({time.perf_counter() - started:.1f} s)", file=sys.stderr)
    of_name = {entry.name: entry for entry in entries}
    return [
        {
            "kind": kind,
            "regime": regime.name,
            "problems": names,
            "median_misrouted_by_bayes": float(np.median(truths)),
            "models": [summarize(name, of_name.get(name), r) for name, r in rows[regime.name].items() if r],
        }
        for regime in REGIMES
    ]


# ---- recovery of active features ------------------------------------------------------------------------------------


RULES = {"best": "lowest held-out loss", "one_standard_error": "one standard error"}


def recovery(draws: int, restarts: int) -> dict[str, Any]:
    """Shares of active features found, and of false ones among those found, along the penalty of the experts.

    On the first kind, fits of all 1,000 rows by the gate RECOVERY; with the penalties that 5-fold cross-validation chooses.
    """
    (entry,) = (entry for entry in ENTRIES if entry.name == RECOVERY)
    alone, key, curves, chosen = entry.fit(1), jax.random.key(0), [], []
    fit = moejax.path(alone)
    for sample in samples("regressions", draws):
        at = task_of(sample, REGIMES[1])
        axes = {"l1_experts": RECOVERY_PENALTIES, "restart": promising(at, entry, alone, restarts)}
        grid = moejax.sweep(fit, {**axes, "fold": FOLDS}, progress=False)(key, at.x, at.y)
        chosen.append([moejax.select(grid, rule=rule).chosen["l1_experts"] for rule in RULES])
        every_row = dataclasses.replace(grid.sweeper, axes={**grid.axes, "fold": np.array([EVERY_ROW])})
        along = every_row.run(grid.inputs).isel(fold=0)
        curves.append(shares_found(along.fits, sample.problem.weights, at.y_sd / at.x_sd))
    by_penalty = np.array(curves)  # (problems, penalties, 2)
    places = np.abs(np.log(np.array(chosen)[..., None] / RECOVERY_PENALTIES)).argmin(axis=-1)
    rules = {}
    for rule, penalties, place in zip(RULES, np.transpose(chosen), places.T, strict=True):
        found, false = by_penalty[np.arange(len(place)), place].mean(axis=0)
        rules[rule] = {"l1_experts": penalties.tolist(), "found": float(found), "false": float(false)}
    found, false = by_penalty.mean(axis=0).T.tolist()
    penalties = RECOVERY_PENALTIES.tolist()
    return {"model": RECOVERY, "l1_experts": penalties, "found": found, "false": false, "rules": rules}


def shares_found(fits: Any, true: np.ndarray, unit: float) -> np.ndarray:
    """For each penalty, of the best restart: the share of active features found, and that of false ones among them.

    unit: what makes coefficients of the fits those of the user's units.
    """
    objective = np.where(fits.admissible & np.isfinite(fits.objective), fits.objective, np.inf)
    best = objective.argmin(axis=1)
    weights = fits.params["experts"]["weights"][np.arange(len(best)), best]
    return np.array([counted(found * unit, true) for found in weights])


def counted(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """The share of active features found, and that of false ones among those found (0 if there are none)."""
    order = matched(found, true)
    active, selected = true != 0, np.stack([found[order[k]] for k in range(len(true))]) != 0
    return float(selected[active].mean()), float((selected & ~active).sum() / max(selected.sum(), 1))


# ---- figures and tables ---------------------------------------------------------------------------------------------


TICKS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 6, 11, 21, 51, 101, 201, 501)


def draw(sets: list[dict[str, Any]]) -> Any:
    """Ratios of all models, a panel for each kind and a colour for each regime: a dot a problem, a bar the median.

    Their distance from 1 is on a logarithmic axis.
    """
    kinds = list(dict.fromkeys(s["kind"] for s in sets))
    most = max(len(s["models"]) for s in sets)
    figure, axes = panels(len(kinds), 3, (5.4, 1.6 + 0.46 * most))
    for kind, ax in zip(kinds, axes, strict=True):
        of_kind = [s for s in sets if s["kind"] == kind]
        for i, one in enumerate(of_kind):
            for j, model in enumerate(one["models"]):
                draw_model(ax, model, j + 0.26 * (i - 1), plots.PALETTE[i], one["regime"] if j == 0 else None)
        names = [model["name"] for model in of_kind[0]["models"]]
        ax.set_xscale("log")
        low, high = ax.get_xlim()
        ticks = [t for t in TICKS if low <= t - 1 <= high]
        ax.set_xticks([t - 1 for t in ticks], [f"{t:g}" for t in ticks], fontsize=8)
        ax.set_xticks([], minor=True)
        ax.set_yticks(np.arange(len(names)), [name.replace("_", " ") for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlabel("squared error / Bayes error (bar: median)")
        ax.grid(True, axis="x", color="#E4E4E4", linewidth=0.6)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, fontsize=8, frameon=False, columnspacing=1.0)
        plots.title(ax, KINDS[kind][0])
    return figure


def draw_model(ax: Any, model: dict[str, Any], place: float, colour: str, label: str | None) -> None:
    """The ratios of one model in one regime, less 1."""
    excess = np.array([row["refitted"] for row in model["problems"]], float) - 1
    look: dict[str, Any] = {"color": colour, "markersize": 3.5, "alpha": 0.6, "mew": 0, "label": label}
    ax.plot(excess, np.full(len(excess), place), "o", **look)
    ax.plot([model["median"] - 1] * 2, [place - 0.13, place + 0.13], color=colour, linewidth=2.5)


def draw_recovery(result: dict[str, Any]) -> Any:
    """Shares along the penalty, with the medians of the penalties chosen."""
    figure, (ax,) = panels(1, 1, (6.4, 4.2))
    at = result["l1_experts"]
    ax.plot(at, result["found"], "-o", markersize=3, color=plots.PALETTE[0], label="active features found")
    ax.plot(at, result["false"], "-s", markersize=3, color=plots.PALETTE[1], label="false ones among those found")
    for (rule, words), colour, style in zip(RULES.items(), plots.PALETTE[2:], ("-", "--"), strict=False):
        median = np.median(result["rules"][rule]["l1_experts"])
        ax.axvline(median, color=colour, linestyle=style, linewidth=1.5, label=f"chosen by {words} (median)")
    ax.set_xscale("log")
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("L1 weight of the experts")
    ax.set_ylabel("share, mean over problems")
    ax.grid(True, color="#E4E4E4", linewidth=0.6)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, fontsize=8, frameon=False)
    plots.title(ax, "Recovery of active features")
    return figure


COLUMNS = {"median": "8.3f", "worst": "8.3f", "median_trained": "11.3f", "median_misrouted": "11.1%"}


def print_table(sets: list[dict[str, Any]]) -> None:
    for one in sets:
        routed = f"the true gate misroutes {one['median_misrouted_by_bayes']:.1%}"
        print(f"\n{KINDS[one['kind']][0]}; {one['regime']}; {len(one['problems'])} problems; {routed}")
        print(f"{'error / Bayes error':24}{'median':>8}{'worst':>8}{'500 alone':>11}{'misrouted':>11}{'log-lik.':>11}")
        for model in one["models"]:
            cells = {**COLUMNS, "median_log_likelihood": "11.3f"}
            texts = (format(model[name], form) if name in model else " " * 11 for name, form in cells.items())
            print(f"{model['name']:24}" + "".join(texts).replace("nan", "   "))


def print_recovery(result: dict[str, Any]) -> None:
    print(f"\nactive features found, and false ones among those found ({result['model']}, first kind):")
    for rule, words in RULES.items():
        print(f"  {words:24}{result['rules'][rule]['found']:8.1%}{result['rules'][rule]['false']:8.1%}")


# ---- the job --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=12, help="of each kind, beside the notebook's (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="default: all")
    parser.add_argument(
        "--restarts", type=int, default=32, help="starts, of which a grid has the best (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each fit by gradient (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", default="results/accuracy", help="default: %(default)s")
    options = parser.parse_args(arguments)
    for name, least in (("draws", 0), ("restarts", 1), ("steps", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: {getattr(options, name)} was given; want at least {least}")
    kinds = [kind for kind in KINDS if kind in options.kinds]
    if options.draws == 0 and kinds != ["regressions"]:
        parser.error("--draws: 0 was given, and only the kind regressions has a problem that is not drawn; want at least 1")
    keep_compiled_programs()
    started = time.perf_counter()
    fits = {entry.name: entry.fit(options.steps) for entry in ENTRIES}
    sets = [one for kind in kinds for one in run_kind(kind, options.draws, options.restarts, fits)]
    # The first set stands at the top too, where there was once nothing else.
    summary: dict[str, Any] = {"problems": sets[0]["problems"], "models": sets[0]["models"], "sets": sets}
    figures = {"accuracy.png": draw(sets)}
    if "regressions" in kinds:
        summary["recovery"] = recovery(options.draws, options.restarts)
        figures["recovery.png"] = draw_recovery(summary["recovery"])
    summary["seconds"] = time.perf_counter() - started
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(summary, out / "accuracy.json")
    print_table(sets)
    if "recovery" in summary:
        print_recovery(summary["recovery"])
    for name, figure in figures.items():
        figure.savefig(out / name, dpi=100)
    print(f"\nwritten to {out}: accuracy.json, {', '.join(figures)}")
    return summary


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
