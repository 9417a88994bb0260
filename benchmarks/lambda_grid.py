"""The main job: mixtures of experts by squared error and by likelihood, each over a grid of penalty weights and restarts.

    python benchmarks/lambda_grid.py [--data FILE.csv --target COLUMN] [--out DIR]
    python benchmarks/lambda_grid.py --compare [DRAWS] [--out DIR]

With no arguments, the three-regressions problem of the notebook that this library replaces, whose published errors stand in
the table beside ours. Writes `grid.csv` (a row for each fit), `summary.json` and the figures into DIR.

--compare is another job: its models, by squared error and by likelihood, and tied coefficients, each on data drawn from each
one's own model. Writes `comparison.csv` (a row for each problem and model) and `comparison.png` into DIR.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse
import csv
import dataclasses
import itertools
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import moejax
from moejax import datasets, experts, families, gates, plots
from moejax.fit import INADMISSIBLE, Status, describe

IMPORTED = time.perf_counter()

L1_EXPERTS = np.concatenate([[0.0], np.geomspace(1e-5, 1.0, 23)])
NEAR_ZERO = 1e-3  # L1 by subgradient brings a standardised coefficient near 0 and not to it; nearer than this counts as 0
FRESH_ROWS = 20_000
LINEAR = experts.linear()
# Errors on its 500 test rows that the notebook prints: no grid, one start each.
NOTEBOOK = {"fixed_proportions": 3.7904, "softmax_l1": 0.0235, "top1_l1": 3.2859}


@dataclass(frozen=True)
class Task:
    """A table in the units of its user, where each row is used, and what is known of the truth behind it."""

    name: str
    x: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    split: datasets.Split
    problem: datasets.Problem | None = None
    target: str = "y"

    @property
    def rows(self) -> np.ndarray:
        """The rows that choice may see: training rows, then validation rows."""
        return np.concatenate([self.split.train, self.split.validation])

    @property
    def fold(self) -> np.ndarray:
        """For `rows`: validation rows are held out in the only fold."""
        return np.concatenate([np.full(len(self.split.train), -1), np.zeros(len(self.split.validation), int)])


@dataclass(frozen=True)
class Scale:
    """Standardisation by the training rows: population standard deviations, 1 for a column that does not vary.

    Rounding gives a column of equal numbers a deviation that is not quite 0, so what is next to nothing beside the
    largest number counts as 0. Raises ValueError for numbers too large to standardise, and for a target that is constant.
    """

    x_mean: np.ndarray
    x_sd: np.ndarray
    y_mean: float
    y_sd: float

    @classmethod
    def of(cls, task: Task) -> Scale:
        columns = np.column_stack([task.x, task.y])
        train = columns[task.split.train]
        with np.errstate(over="ignore", invalid="ignore"):
            mean, sd = train.mean(axis=0), train.std(axis=0)
            varies = sd > 1e-10 * np.abs(train).max(axis=0)
            sd = np.where(varies, sd, 1.0)
            largest = (np.abs(columns - mean) / sd).max(axis=0)
        for j, name in enumerate([*(f"column {name!r}" for name in task.features), f"target {task.target!r}"]):
            if not (np.isfinite([mean[j], sd[j]]).all() and largest[j] < np.finfo(np.float32).max):
                most = np.abs(columns[:, j]).max()
                raise ValueError(f"{name}: numbers up to {most:g} were given, too large to standardise; want other units")
        if not varies[-1]:
            what = f"{task.y[task.split.train][0]:g} in each of the {len(train)} training rows was given"
            raise ValueError(f"target {task.target!r}: {what}; want one that varies there, or another --seed")
        return cls(mean[:-1], sd[:-1], float(mean[-1]), float(sd[-1]))

    def x(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.x_mean) / self.x_sd).astype(np.float32)

    def y(self, y: np.ndarray) -> np.ndarray:
        return ((y - self.y_mean) / self.y_sd).astype(np.float32)

    def coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients (..., d) for the user's units."""
        return weights * self.y_sd / self.x_sd


@dataclass(frozen=True)
class Entry:
    """A model of the grid: its gate, its axes beside `restart`, and how it is trained.

    solver: "gradient", Adam on the squared error of the prediction, or "em", on the likelihood of normal errors.
    """

    name: str
    title: str
    gate: Any
    axes: dict[str, Any]
    solver: str = "gradient"
    learning_rate: float = 0.1
    expert: Any = LINEAR

    @property
    def near_zero(self) -> float:
        """The largest coefficient that counts as 0, of standardised columns: EM has exact zeros, subgradients near ones."""
        return 0.0 if self.solver == "em" else NEAR_ZERO

    def build(self, n_experts: int, steps: int) -> tuple[Any, Any]:
        """The model and its fit."""
        if self.solver == "em":
            model = moejax.moe(self.expert, self.gate, n_experts, family=families.gaussian())
            return model, moejax.fit_em(model)
        model = moejax.moe(self.expert, self.gate, n_experts)
        return model, moejax.fit_gradient(
            model, optimizer=partial(cosine_adam, steps), steps=steps, learning_rate=self.learning_rate
        )


@dataclass(frozen=True)
class Result:
    """What came of an entry: the sweep, and the choice, trained on the training rows alone and on validation rows too.

    sweep: None where every fit diverged. trained, refitted: None where no fit can be chosen. validation: the squared error
    of every member on the validation rows, by which models of both kinds can be looked at side by side. seconds: "compile"
    is None where it is not known apart from "run".
    """

    entry: Entry
    model: Any
    fits: int
    sweep: Any
    trained: Any
    refitted: Any
    validation: np.ndarray | None
    predictions: dict[str, np.ndarray]
    seconds: dict[str, float | None]
    note: str


def entries() -> list[Entry]:
    l1 = {"l1_experts": L1_EXPERTS}
    return [
        Entry("constant_gate", "constant gate", gates.constant(), l1),
        Entry("fixed_proportions", "fixed proportions", gates.fixed(), l1),
        Entry("softmax_l1", "softmax gate, L1", gates.softmax(), {**l1, "l1_gate": [0.0, 1e-2]}),
        Entry("top1_l1", "top-1 gate, L1", gates.top1(), {**l1, "temperature": [0.3], "l1_gate": [0.0, 1e-2]}),
        Entry("constant_em", "constant gate, EM", gates.constant(), l1, "em"),
        Entry("softmax_em", "softmax gate, EM", gates.softmax(), {**l1, "l2_gate": [1e-4, 1e-2]}, "em"),
        Entry("gaussian_em", "Gaussian gate, EM", gates.gaussian(covariance="shared"), l1, "em"),
    ]


# ---- data -----------------------------------------------------------------------------------------------------------


def load(path: str | None, target: str | None, indicators: bool, seed: int) -> Task:
    """The notebook's sample, or a table from a file, split 60 : 20 : 20 by seed."""
    if path is None:
        problem, split = datasets.notebook()
        features = tuple(f"x{j + 1}" for j in range(problem.x.shape[1]))
        return Task("three_regressions", problem.x, problem.y, features, split, problem)
    if target is None:
        raise ValueError("--target: nothing was given with --data; want the name of the column to predict")
    table = datasets.read_csv(path, target, indicators=indicators)
    split = datasets.split(len(table.y), seed)
    return Task(Path(path).stem, table.x, table.y, table.feature_names, split, target=table.target_name)


# ---- fitting --------------------------------------------------------------------------------------------------------


def cosine_adam(steps: int, rate: Any) -> optax.GradientTransformation:
    """Adam whose rate falls to 0 over the run, so that coefficients under L1 come to rest."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def fit_entry(entry: Entry, task: Task, scale: Scale, steps: int, restarts: int, n_experts: int, seed: int) -> Result:
    """The entry's grid in one sweep, the choice from it, and its predictions of the test rows (and of fresh ones)."""
    started = time.perf_counter()
    model, fit = entry.build(n_experts, steps)
    sweeper = moejax.sweep(fit, {**entry.axes, "restart": restarts, "fold": task.fold})
    fits = math.prod(len(values) for values in sweeper.axes.values())
    try:
        grid = sweeper(jax.random.key(seed), scale.x(task.x[task.rows]), scale.y(task.y[task.rows]))
    except FloatingPointError as error:
        unknown = {"compile": None, "run": time.perf_counter() - started}
        return Result(entry, model, fits, None, None, None, None, {}, unknown, str(error))
    trained, refitted, note = choose(grid)
    wanted = {"validation": task.x[task.split.validation], "test": task.x[task.split.test]}
    if task.problem is not None:
        wanted["fresh"] = fresh_rows(task, seed)[0]
    predict = jax.jit(model.predict)
    predictions = {
        f"{kind}_{name}": np.asarray(predict(chosen.params, scale.x(x))) * scale.y_sd + scale.y_mean
        for kind, chosen in (("trained", trained), ("refitted", refitted))
        for name, x in wanted.items()
        if chosen is not None
    }
    spent = time.perf_counter() - started
    seconds = {"compile": grid.run.seconds["compile"], "run": spent - grid.run.seconds["compile"]}
    return Result(
        entry, model, fits, grid, trained, refitted, validation_errors(grid, model, task, scale), predictions, seconds, note
    )


def validation_errors(grid: Any, model: Any, task: Task, scale: Scale) -> np.ndarray:
    """Squared errors of all members on the validation rows, in the units of the target, shaped like the sweep."""
    if not grid.sweeper.fit.loss.has_likelihood:
        return grid.held_out * scale.y_sd**2
    x, y = (scaled(v[task.split.validation]) for scaled, v in ((scale.x, task.x), (scale.y, task.y)))
    members = jax.tree.map(lambda v: v.reshape(-1, *v.shape[len(grid.shape) :]), grid.fits.params)
    errors = jax.jit(lambda members: jax.lax.map(lambda p: ((model.predict(p, x) - y) ** 2).mean(), members, batch_size=64))
    return np.asarray(errors(members)).reshape(grid.shape) * scale.y_sd**2


def choose(grid: Any) -> tuple[Any, Any, str]:
    """The choice trained on the training rows, the same refitted, and why there is none or the first stands for both."""
    try:
        trained = moejax.select(grid, refit=False)
    except RuntimeError as error:
        return None, None, str(error)
    try:
        return trained, moejax.select(grid), ""
    except RuntimeError as error:
        return trained, trained, f"not refitted: {error}"


def fresh_rows(task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    assert task.problem is not None
    x, y, _ = task.problem.draw(seed + 1, FRESH_ROWS)
    return x, y


# ---- what is reported -----------------------------------------------------------------------------------------------


def mse(y: np.ndarray, prediction: np.ndarray) -> float:
    return float(np.mean(np.square(y - prediction)))


def plain(value: Any) -> Any:
    """What JSON has words for: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(value: Any, path: Path) -> None:
    path.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def summarize(result: Result, task: Task, scale: Scale, seed: int) -> dict[str, Any]:
    """The entry of summary.json. Errors are in the user's units; those without "refit" train on the training rows alone."""
    diverged = np.full(result.fits, int(Status.DIVERGED))
    status = diverged if result.sweep is None else np.ravel(result.sweep.fits.status)
    test, fresh = task.y[task.split.test], None if task.problem is None else fresh_rows(task, seed)[1]
    weights = None if result.trained is None else np.asarray(result.trained.params["experts"]["weights"])
    likelihood = None
    if result.entry.solver == "em" and result.trained is not None:
        table = result.trained.table
        likelihood = -float(table["held_out"][table["chosen"]][0]) - math.log(scale.y_sd)
    validation = result.predictions.get("trained_validation")
    errors = {
        f"{prefix}{name}_mse": None if key not in result.predictions else mse(y, result.predictions[key])
        for prefix, kind in (("", "trained"), ("refit_", "refitted"))
        for name, y in (("test", test), ("fresh", fresh))
        for key in (f"{kind}_{name}",)
    }
    return {
        "name": result.entry.name,
        "solver": result.entry.solver,
        "fits": result.fits,
        "diverged": int((status & int(Status.DIVERGED) != 0).sum()),
        "inadmissible": int((status & int(INADMISSIBLE) != 0).sum()),
        "selected": {} if result.trained is None else result.trained.chosen,
        "validation_mse": None if validation is None else mse(task.y[task.split.validation], validation),
        "validation_log_likelihood": likelihood,
        **errors,
        "nonzero": None if weights is None else int((np.abs(weights) > result.entry.near_zero).sum()),
        "coefficients": None if weights is None else int(weights.size),
        "note": result.note,
        "seconds_compile": result.seconds["compile"],
        "seconds_run": result.seconds["run"],
    }


def write_grid(results: list[Result], path: Path) -> int:
    """A row for each fit of every model, but for those whose fits all diverged; returns how many."""
    tables = [(r.entry.name, r.sweep.table()) for r in results if r.sweep is not None]
    names = list(dict.fromkeys(itertools.chain.from_iterable(table for _, table in tables)))
    count = 0
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *names])
        for model, table in tables:
            table = {**table, "status": np.asarray([describe(s) for s in table["status"]])}
            columns = [table[name].tolist() if name in table else itertools.repeat("") for name in names]
            rows = [(model, *row) for row in zip(*columns, strict=False)]
            writer.writerows(rows)
            count += len(rows)
    return count


def show(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def print_aligned(rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_table(summary: dict[str, Any]) -> None:
    """The summary as a table for the terminal."""
    notebook = summary["noise_floor"] is not None  # no table of anyone's has one
    head = ["model", "solver", "fits", "diverged", "chosen", "log p", "validation", "test"]
    head += ["notebook's test", "fresh"] if notebook else []
    head += ["refitted: test", *(["refitted: fresh"] if notebook else []), "nonzero", "compile s", "run s"]
    rows = [head]
    for m in summary["models"]:
        chosen = ", ".join(f"{k}={v:.3g}" for k, v in m["selected"].items())
        row = [m["name"], m["solver"], str(m["fits"]), str(m["diverged"]), chosen]
        row += [show(m[name]) for name in ("validation_log_likelihood", "validation_mse", "test_mse")]
        row += [show(NOTEBOOK.get(m["name"])), show(m["fresh_mse"])] if notebook else []
        row += [show(m["refit_test_mse"])] + ([show(m["refit_fresh_mse"])] if notebook else [])
        nonzero = "" if m["nonzero"] is None else f"{m['nonzero']}/{m['coefficients']}"
        seconds = ["" if m[name] is None else f"{m[name]:.1f}" for name in ("seconds_compile", "seconds_run")]
        rows.append([*row, nonzero, *seconds])
    print_aligned(rows)
    for m in summary["models"]:
        if m["note"]:
            print(f"{m['name']}: {m['note']}")
    data = summary["data"]
    print(f"\n{data['name']}: {data['n']} rows, {data['d']} features; mean squared errors in the target's units.")
    print("gradient: Adam on squared error; em: on the likelihood, log p a mean over validation rows, by which it chooses.")
    print("test, fresh: trained on the training rows; refitted: on training and validation rows.")
    if summary["noise_floor"] is not None:
        print(f"noise floor (the best possible predictor, in the long run): {summary['noise_floor']:.4g}")
        print(f"the same predictor on these very test rows: {summary['noise_floor_test']:.4g}")


# ---- figures --------------------------------------------------------------------------------------------------------


def assignment(cost: np.ndarray) -> dict[int, int]:
    """A row for each column, or for as many as there are rows, no row twice: the cheapest pair, then the next.

    Greedy: SciPy's exact one takes a third of a second to import.
    """
    left = np.array(cost, dtype=float)
    pairs = {}
    for _ in range(min(left.shape)):
        row, column = (int(i) for i in np.unravel_index(left.argmin(), left.shape))
        pairs[column] = row
        left[row], left[:, column] = np.inf, np.inf
    return pairs


def matched(found: np.ndarray, true: np.ndarray) -> dict[int, int]:
    """The found experts (F, d) by the numbers of the true ones (K, d) that they are closest to, in the order of these.

    Found experts beyond the true ones follow, by the numbers beyond theirs.
    """
    pairs = assignment(np.square(found[:, None] - true).sum(axis=-1))
    rest = [k for k in range(len(found)) if k not in pairs.values()]
    return {**dict(sorted(pairs.items())), **dict(enumerate(rest, len(true)))}


def renumbered(found: np.ndarray, true: np.ndarray, n_found: int, n_true: int) -> np.ndarray:
    """The found expert of each row (n,), by the number of the true one that it has most rows in common with.

    Found experts beyond the true ones get the numbers beyond theirs.
    """
    common = np.array([[np.sum((found == f) & (true == k)) for k in range(n_true)] for f in range(n_found)])
    number = {row: column for column, row in assignment(-common).items()}
    rest = itertools.count(n_true)
    return np.array([number[f] if f in number else next(rest) for f in range(n_found)])[found]


def preferred(results: list[Result], name: str) -> Result:
    """The result of that name, or the last where that model has no admissible fit."""
    return next((r for r in results if r.entry.name == name), results[-1])


def falling_shares(shares: np.ndarray) -> list[int]:
    return list(np.argsort(-shares))


def panels(count: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, list[Any]]:
    """A figure of `count` Axes in rows of `columns`, without pyplot, which takes long to import."""
    from matplotlib.figure import Figure

    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1, **options) for i in range(count)]


def by_penalty(result: Result) -> Any:
    """The sweep along l1_experts and restarts alone, at the chosen value of everything else, on the only fold."""
    others = {name: value for name, value in result.trained.chosen.items() if name != "l1_experts"}
    return result.sweep.sel(**others, fold=0)


def along(result: Result) -> tuple[Any, ...]:
    """The index of that part of the sweep, in arrays shaped like it."""
    chosen = result.trained.chosen
    at = {name: int(np.abs(values - chosen[name]).argmin()) for name, values in result.sweep.axes.items() if name in chosen}
    at = {**at, "fold": 0, "l1_experts": slice(None)}
    return tuple(at.get(name, slice(None)) for name in result.sweep.axes)


def best_by_penalty(result: Result) -> tuple[Any, np.ndarray, np.ndarray]:
    """That sweep, the positions of the penalties that have an admissible fit, and their best restarts by objective."""
    grid = by_penalty(result)
    objective = np.where(grid.fits.admissible & np.isfinite(grid.fits.objective), grid.fits.objective, np.inf)
    there = np.flatnonzero(np.isfinite(objective).any(axis=1))
    return grid, there, objective[there].argmin(axis=1)


def figure_training_loss(results: list[Result], **_: Any) -> Any:
    figure, axes = panels(len(results), 2, (5.5, 3.6))
    for result, ax in zip(results, axes, strict=True):
        chosen = by_penalty(result).sel(l1_experts=result.trained.chosen["l1_experts"])
        history = chosen.fits.history
        steps = np.arange(history.shape[1]) * chosen.sweeper.fit.record_every
        plots.training_loss(history, steps=steps, highlight=result.trained.restart, ax=ax)
        if result.entry.solver == "em":
            ax.set_xlabel("iteration")
        ax.set_ylabel("objective (standardised y)")
        plots.title(ax, result.entry.title)
    return figure


def figure_validation_error(results: list[Result], scale: Scale, floor: float | None, **_: Any) -> Any:
    figure, axes = panels(len(results), 2, (5.5, 3.9))
    for result, ax in zip(results, axes, strict=True):
        grid, there, winners = best_by_penalty(result)
        plots.validation_error(
            grid.axes["l1_experts"][there],
            result.validation[along(result)][there],
            chosen_restart=winners,
            chosen=result.trained.chosen["l1_experts"],
            reference=floor,
            penalty_label="L1 weight of the experts",
            ax=ax,
        )
        plots.title(ax, result.entry.title)
    return figure


def figure_coefficients(results: list[Result], task: Task, **_: Any) -> Any:
    shown = [r for r in results if r.entry.name in ("softmax_l1", "top1_l1", "softmax_em", "gaussian_em")] or results
    figure, axes = panels(len(shown), 2, (7.0, 4.6))
    for result, ax in zip(shown, axes, strict=True):
        grid, there, winners = best_by_penalty(result)
        weights = grid.fits.params["experts"]["weights"][there, winners]
        weights = np.stack(list(aligned(weights)))
        plots.coefficient_path(
            grid.axes["l1_experts"][there],
            weights,
            feature_names=task.features,
            chosen=result.trained.chosen["l1_experts"],
            penalty_label="L1 weight of the experts",
            ax=ax,
        )
        ax.set_ylabel("coefficient (standardised x and y)")
        plots.title(ax, result.entry.title)
    return figure


def aligned(weights: np.ndarray) -> Any:
    """The experts along a path (P, K, d), each set in the order closest to the one before."""
    before = weights[0]
    for now in weights:
        before = now[list(matched(now, before).values())]
        yield before


def figure_expert_weights(results: list[Result], task: Task, scale: Scale, **_: Any) -> Any:
    result = preferred(results, "gaussian_em")
    found = np.asarray(result.refitted.params["experts"]["weights"])
    shares = np.asarray(result.model.gate_probs(result.refitted.params, scale.x(task.x[task.rows]))).mean(axis=0)
    found = scale.coefficients(np.where(np.abs(found) > result.entry.near_zero, found, 0.0))
    truth = None if task.problem is None else task.problem.weights
    numbered = dict(enumerate(falling_shares(shares))) if truth is None else matched(found, truth)
    order = list(numbered.values())
    sets = [(f"found, {result.entry.title}, refitted", found[order], shares[order], list(numbered))]
    if task.problem is not None:
        true_shares = np.bincount(task.problem.expert[task.rows], minlength=len(task.problem.weights)) / len(task.rows)
        sets.insert(0, ("true", task.problem.weights, true_shares, None))
    figure, axes = panels(len(sets), 1, (9.0, 1.0 + 0.7 * max(len(weights) for _, weights, *_ in sets)))
    for (title, weights, share, numbers), ax in zip(sets, axes, strict=True):
        plots.expert_weights(weights, feature_names=task.features, shares=share, numbers=numbers, ax=ax)
        plots.title(ax, title)
    return figure


def figure_predictions(results: list[Result], task: Task, **_: Any) -> Any:
    if np.ptp(task.y[task.split.test]) == 0:
        return None
    figure, axes = panels(len(results), 2, (4.6, 4.6))
    for result, ax in zip(results, axes, strict=True):
        plots.true_vs_predicted(task.y[task.split.test], result.predictions["refitted_test"], ax=ax)
        plots.title(ax, result.entry.title)
    return figure


def figure_sample(results: list[Result], task: Task, scale: Scale, **_: Any) -> Any:
    result = preferred(results, "top1_l1")
    x = task.x[task.rows]
    if x.shape[1] < 2 or not np.ptp(x, axis=0).any():
        return None
    found = np.asarray(result.model.gate_probs(result.refitted.params, scale.x(x))).argmax(axis=1)
    title = f"most probable expert, {result.entry.title}"
    sets = [(title, found)]
    if task.problem is not None:
        true = task.problem.expert[task.rows]
        found = renumbered(found, true, result.model.n_experts, len(task.problem.weights))
        sets = [("true expert", true), (title, found)]
    figure, axes = panels(len(sets), 2, (5.6, 5.0), projection="3d")
    for (title, expert), ax in zip(sets, axes, strict=True):
        plots.sample_3d(x, task.y[task.rows], expert, ax=ax)
        plots.title(ax, title)
    return figure


# Each returns None where the data have nothing to show in it.
FIGURES: dict[str, Callable[..., Any]] = {
    "training_loss": figure_training_loss,
    "validation_error": figure_validation_error,
    "coefficient_path": figure_coefficients,
    "expert_weights": figure_expert_weights,
    "true_vs_predicted": figure_predictions,
    "sample_3d": figure_sample,
}


# ---- the comparison: every model on data of every model's own kind -------------------------------------------------

# The gate of the third kind gives each row to one expert, as that of its own model does.
KINDS: dict[str, Callable[..., datasets.Problem]] = {
    "fixed proportions": partial(datasets.softmax_regressions, sharpness=0.0),
    "softmax gate": datasets.softmax_regressions,
    "winner takes all": partial(datasets.softmax_regressions, sharpness=1e4),
    "tied coefficients": datasets.tied,
}
COMPARED_ROWS = {"train": 500, "validation": 500, "test": 500}


def compared() -> list[Entry]:
    squared, ridge = {"l1_experts": [0.0, 1e-4, 1e-3, 1e-2]}, {"l2_gate": [1e-4, 1e-2]}
    sparse, groups = {"l1_experts": [0.0, 0.03, 0.1, 0.3], **ridge}, {"n_groups": [2, 3, 4, 5], **ridge}
    return [
        Entry("fixed_proportions", "fixed proportions", gates.fixed(), squared),
        Entry("softmax_l1", "softmax gate, L1", gates.softmax(), {**squared, "l1_gate": [0.0, 1e-3]}),
        Entry("top1_l1", "top-1 gate, L1", gates.top1(), {**squared, "temperature": [0.3], "l1_gate": [0.0, 1e-3]}),
        Entry("softmax_em", "softmax gate, EM", gates.softmax(), sparse, "em"),
        Entry("tied_em", "tied coefficients, EM", gates.softmax(), groups, "em", expert=experts.tied(5)),
    ]


def compare(draws: int, steps: int, restarts: int, seed: int, out: Path) -> list[dict[str, Any]]:
    """The expected squared error on fresh inputs, over that of the best possible predictor, by kind, draw and model.

    All is chosen on 500 training and 500 validation rows, and refitted on both.
    """
    rows = []
    for kind, draw in KINDS.items():
        for number in range(draws):
            task = drawn_task(kind, draw(seed + number, n=sum(COMPARED_ROWS.values())))
            scale = Scale.of(task)
            # One number for all columns: of numbers that share a value, each would be scaled by its own.
            scale = dataclasses.replace(scale, x_sd=np.full_like(scale.x_sd, np.sqrt(np.square(scale.x_sd).mean())))
            best, floor = task.problem.bayes(fresh_rows(task, seed)[0]), task.problem.bayes_mse()
            for entry in compared():
                result = fit_entry(entry, task, scale, steps, restarts, len(task.problem.weights), seed)
                prediction = result.predictions.get("refitted_fresh")
                error = math.nan if prediction is None else 1 + mse(best, prediction) / floor
                rows.append({"data": kind, "draw": number, "model": entry.name, "error_over_floor": error})
    names = [entry.name for entry in compared()]
    print_comparison(rows, names)
    with open(out / "comparison.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    figure_comparison(rows, names).savefig(out / "comparison.png", dpi=100)
    print(f"written to {out}: comparison.csv, comparison.png")
    return rows


def drawn_task(name: str, problem: datasets.Problem) -> Task:
    ends = np.cumsum(list(COMPARED_ROWS.values()))
    features = tuple(f"x{j + 1}" for j in range(problem.x.shape[1]))
    parts = datasets.Split(*np.split(np.arange(len(problem.y)), ends[:-1]))
    return Task(name, problem.x, problem.y, features, parts, problem)


def errors_of(rows: list[dict[str, Any]], kind: str, model: str) -> list[float]:
    return [row["error_over_floor"] for row in rows if (row["data"], row["model"]) == (kind, model)]


def print_comparison(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Medians over draws: a row for each kind of data, a column for each model."""
    kinds = list(dict.fromkeys(row["data"] for row in rows))
    table = [["data from", *names]]
    table += [[kind, *(f"{np.median(errors_of(rows, kind, name)):.3f}" for name in names)] for kind in kinds]
    print_aligned(table)
    print(f"\nsquared error on fresh inputs over the least possible, median of {1 + max(row['draw'] for row in rows)} draws")


def figure_comparison(rows: list[dict[str, Any]], names: list[str]) -> Any:
    """A panel for each kind of data: dots are draws, bars their medians."""
    kinds = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = panels(len(kinds), 2, (5.2, 2.6))
    excess = np.array([[[e - 1 for e in errors_of(rows, kind, name)] for name in names] for kind in kinds])
    low = min(1e-3, float(np.nanmin(excess)))
    for kind, of_kind, ax in zip(kinds, excess, axes, strict=True):
        for place, of_model in enumerate(of_kind):
            ax.plot(of_model, np.full(len(of_model), place), "o", color=plots.PALETTE[place], alpha=0.5, markersize=5)
            ax.plot([np.median(of_model)] * 2, [place - 0.3, place + 0.3], color=plots.PALETTE[place], linewidth=2.5)
        ax.set_xscale("log")
        ax.set_xlim(0.7 * low, 2 * float(np.nanmax(excess)))
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlabel("error above the least possible, as a share of it")
        ax.grid(True, axis="x", color="#E4E4E4", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        plots.title(ax, f"data: {kind}")
    return figure


# ---- the job --------------------------------------------------------------------------------------------------------


def keep_compiled_programs() -> None:
    """Keep compiled programs between runs, in the user's cache folder unless the environment says otherwise."""
    if "MOEJAX_CACHE" not in os.environ:
        moejax.cache()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", metavar="FILE.csv", help="a table with a header; without it, the three-regressions problem"
    )
    parser.add_argument("--target", metavar="COLUMN", help="the column of --data to predict")
    parser.add_argument("--indicators", action="store_true", help="turn columns of text into indicator columns")
    parser.add_argument("--out", metavar="DIR", default="results/lambda_grid", help="default: %(default)s")
    parser.add_argument("--experts", type=int, default=3, help="number of experts (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="gradient steps of each fit (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=10, help="starts for each penalty (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the starts and fresh rows (default: %(default)s)")
    parser.add_argument(
        "--compare",
        type=int,
        nargs="?",
        const=5,
        metavar="DRAWS",
        help="instead, compare models on so many draws from each one's own model (5 unless given)",
    )
    options = parser.parse_args(arguments)
    if options.compare is not None and (options.data is not None or options.compare < 1):
        parser.error("--compare draws its own data: want a number of draws above 0, and no --data")
    if options.data is None and (options.target is not None or options.indicators):
        parser.error("--target and --indicators are about the table of --data, which was not given")
    keep_compiled_programs()
    out = Path(options.out)
    if options.compare is not None:
        out.mkdir(parents=True, exist_ok=True)
        return {"comparison": compare(options.compare, options.steps, options.restarts, options.seed, out)}
    task = load(options.data, options.target, options.indicators, options.seed)
    out.mkdir(parents=True, exist_ok=True)
    scale = Scale.of(task)

    training = (options.steps, options.restarts, options.experts, options.seed)
    results = [fit_entry(entry, task, scale, *training) for entry in entries()]
    floor = None if task.problem is None else task.problem.bayes_mse()
    test = task.split.test
    floor_test = None if task.problem is None else mse(task.y[test], task.problem.bayes(task.x[test]))
    models = [summarize(result, task, scale, options.seed) for result in results]
    seconds = {
        "total": time.perf_counter() - STARTED,
        "import": IMPORTED - STARTED,
        "compile": sum(m["seconds_compile"] or 0.0 for m in models),
        "run": sum(m["seconds_run"] for m in models),
    }
    summary = plain(
        {
            "data": {"name": task.name, "n": len(task.y), "d": task.x.shape[1]},
            "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
            "seconds": seconds,
            "models": models,
            "noise_floor": floor,
            "noise_floor_test": floor_test,
        }
    )
    written = ["grid.csv", "summary.json"]
    write_grid(results, out / "grid.csv")
    write_json(summary, out / "summary.json")  # what took long to compute is safe before anything is drawn
    print_table(summary)
    written += write_figures(results, out, task=task, scale=scale, floor=floor)
    summary["seconds"]["total"] = time.perf_counter() - STARTED
    write_json(summary, out / "summary.json")
    print(f"written to {out}: {', '.join(written)}")
    return summary


def write_figures(results: list[Result], out: Path, **known: Any) -> list[str]:
    """The figures of all models that have something to show; returns the names of the files."""
    drawn = [result for result in results if result.trained is not None]
    written = []
    for name, draw in FIGURES.items():
        figure = draw(drawn, **known) if drawn else None
        path = out / f"{name}.png"
        path.unlink(missing_ok=True)  # one from an earlier run would pass for one of this
        if figure is not None:
            figure.savefig(path, dpi=100)
            written.append(path.name)
    return written


def run_command(main: Callable[[], Any]) -> None:
    """Run `main` as a command: what is wrong with the data or the options is one line, and exit code 1."""
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
