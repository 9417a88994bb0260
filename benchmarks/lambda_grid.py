"""The main job: four mixtures of experts, each over a grid of penalty weights and restarts, on one table of data.

    python benchmarks/lambda_grid.py [--data FILE.csv --target COLUMN] [--out DIR]

With no arguments, the three-regressions problem of the notebook that this library replaces, whose published errors stand in
the table beside ours. Writes `grid.csv` (a row for each fit), `summary.json` and the figures into DIR.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import argparse
import csv
import itertools
import json
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
from moejax import datasets, experts, gates, plots
from moejax.fit import INADMISSIBLE, Status, describe

IMPORTED = time.perf_counter()

L1_EXPERTS = np.concatenate([[0.0], np.geomspace(1e-5, 1.0, 23)])
NEAR_ZERO = 1e-3  # L1 by subgradient brings a standardised coefficient near 0 and not to it; nearer than this counts as 0
FRESH_ROWS = 20_000
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
    """Standardisation by the training rows: population standard deviations, 1 for a column that does not vary."""

    x_mean: np.ndarray
    x_sd: np.ndarray
    y_mean: float
    y_sd: float

    @classmethod
    def of(cls, task: Task) -> Scale:
        x, y = task.x[task.split.train], task.y[task.split.train]
        sd = x.std(axis=0)
        return cls(x.mean(axis=0), np.where(sd > 0, sd, 1.0), float(y.mean()), float(y.std()))

    def x(self, x: np.ndarray) -> np.ndarray:
        return ((x - self.x_mean) / self.x_sd).astype(np.float32)

    def y(self, y: np.ndarray) -> np.ndarray:
        return ((y - self.y_mean) / self.y_sd).astype(np.float32)

    def coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Coefficients (..., d) for the user's units."""
        return weights * self.y_sd / self.x_sd


@dataclass(frozen=True)
class Entry:
    """A model of the grid: its gate, its axes beside `restart`, and how it is trained."""

    name: str
    title: str
    gate: Any
    axes: dict[str, Any]
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Result:
    """What came of an entry: the sweep, and the choice, trained on the training rows alone and on validation rows too."""

    entry: Entry
    model: Any
    sweep: Any
    trained: Any
    refitted: Any
    predictions: dict[str, np.ndarray]
    seconds: dict[str, float]
    note: str


def entries() -> list[Entry]:
    l1 = {"l1_experts": L1_EXPERTS}
    return [
        Entry("constant_gate", "constant gate", gates.constant(), l1),
        Entry("fixed_proportions", "fixed proportions", gates.fixed(), l1),
        Entry("softmax_l1", "softmax gate, L1", gates.softmax(), {**l1, "l1_gate": [1e-4, 1e-2]}),
        Entry("top1_l1", "top-1 gate, L1", gates.top1(), {**l1, "temperature": [0.3], "l1_gate": [0.0, 1e-2]}),
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
    return Task(Path(path).stem, table.x, table.y, table.feature_names, datasets.split(len(table.y), seed))


# ---- fitting --------------------------------------------------------------------------------------------------------


def cosine_adam(steps: int, rate: Any) -> optax.GradientTransformation:
    """Adam whose rate falls to 0 over the run, so that coefficients under L1 come to rest."""
    return optax.adam(optax.cosine_decay_schedule(rate, steps))


def fit_entry(entry: Entry, task: Task, scale: Scale, steps: int, restarts: int, n_experts: int, seed: int) -> Result:
    """The entry's grid in one sweep, the choice from it, and its predictions of the test rows (and of fresh ones)."""
    started = time.perf_counter()
    model = moejax.moe(experts.linear(), entry.gate, n_experts)
    fit = moejax.fit_gradient(model, optimizer=partial(cosine_adam, steps), steps=steps, learning_rate=entry.learning_rate)
    sweeper = moejax.sweep(fit, {**entry.axes, "restart": restarts, "fold": task.fold})
    grid = sweeper(jax.random.key(seed), scale.x(task.x[task.rows]), scale.y(task.y[task.rows]))
    trained, refitted, note = choose(grid)
    wanted = {"test": task.x[task.split.test]}
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
    return Result(entry, model, grid, trained, refitted, predictions, seconds, note)


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


def summarize(result: Result, task: Task, scale: Scale, seed: int) -> dict[str, Any]:
    """The entry of summary.json. Errors are in the user's units; those without "refit" train on the training rows alone."""
    status = np.ravel(result.sweep.fits.status)
    test, fresh = task.y[task.split.test], None if task.problem is None else fresh_rows(task, seed)[1]
    weights = None if result.trained is None else np.asarray(result.trained.params["experts"]["weights"])
    table = None if result.trained is None else result.trained.table
    errors = {
        f"{prefix}{name}_mse": None if key not in result.predictions else mse(y, result.predictions[key])
        for prefix, kind in (("", "trained"), ("refit_", "refitted"))
        for name, y in (("test", test), ("fresh", fresh))
        for key in (f"{kind}_{name}",)
    }
    return {
        "name": result.entry.name,
        "solver": "gradient",
        "fits": int(status.size),
        "diverged": int((status & int(Status.DIVERGED) != 0).sum()),
        "inadmissible": int((status & int(INADMISSIBLE) != 0).sum()),
        "selected": {} if result.trained is None else result.trained.chosen,
        "validation_mse": None if table is None else float(table["held_out"][table["chosen"]][0]) * scale.y_sd**2,
        **errors,
        "nonzero": None if weights is None else int((np.abs(weights) > NEAR_ZERO).sum()),
        "coefficients": None if weights is None else int(weights.size),
        "note": result.note,
        "seconds_compile": result.seconds["compile"],
        "seconds_run": result.seconds["run"],
    }


def write_grid(results: list[Result], path: Path) -> int:
    """A row for each fit of every model; returns how many."""
    tables = [(r.entry.name, r.sweep.table()) for r in results]
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


def print_table(summary: dict[str, Any]) -> None:
    """The summary as a table for the terminal."""
    notebook = summary["data"]["name"] == "three_regressions"
    head = ["model", "fits", "diverged", "chosen", "validation", "test", *(["notebook's test", "fresh"] if notebook else [])]
    head += ["refitted: test", *(["refitted: fresh"] if notebook else []), "nonzero", "compile s", "run s"]
    rows = [head]
    for m in summary["models"]:
        chosen = ", ".join(f"{k}={v:.3g}" for k, v in m["selected"].items())
        row = [m["name"], str(m["fits"]), str(m["diverged"]), chosen, show(m["validation_mse"]), show(m["test_mse"])]
        row += [show(NOTEBOOK.get(m["name"])), show(m["fresh_mse"])] if notebook else []
        row += [show(m["refit_test_mse"])] + ([show(m["refit_fresh_mse"])] if notebook else [])
        nonzero = "" if m["nonzero"] is None else f"{m['nonzero']}/{m['coefficients']}"
        rows.append([*row, nonzero, f"{m['seconds_compile']:.1f}", f"{m['seconds_run']:.1f}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for m in summary["models"]:
        if m["note"]:
            print(f"{m['name']}: {m['note']}")
    data = summary["data"]
    print(f"\n{data['name']}: {data['n']} rows, {data['d']} features; mean squared errors in the target's units.")
    print("test, fresh: trained on the training rows; refitted: on training and validation rows.")
    if summary["noise_floor"] is not None:
        print(f"noise floor (the best possible predictor, in the long run): {summary['noise_floor']:.4g}")


# ---- figures --------------------------------------------------------------------------------------------------------


def matched(found: np.ndarray, true: np.ndarray) -> list[int]:
    """The order of the found experts (K, d) that is closest to the true ones."""
    orders = itertools.permutations(range(len(found)))
    return list(min(orders, key=lambda order: float(np.square(found[list(order)] - true).sum())))


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


def figure_training_loss(results: list[Result], **_: Any) -> Any:
    figure, axes = panels(len(results), 2, (5.5, 3.6))
    for result, ax in zip(results, axes, strict=True):
        chosen = by_penalty(result).sel(l1_experts=result.trained.chosen["l1_experts"])
        history = chosen.fits.history
        plots.training_loss(history, steps=np.arange(history.shape[1]) * 10, highlight=result.trained.restart, ax=ax)
        ax.set_ylabel("objective (standardised y)")
        plots.title(ax, result.entry.title)
    return figure


def figure_validation_error(results: list[Result], scale: Scale, floor: float | None, **_: Any) -> Any:
    figure, axes = panels(len(results), 2, (5.5, 3.9))
    for result, ax in zip(results, axes, strict=True):
        grid = by_penalty(result)
        winners = np.where(grid.fits.admissible, grid.fits.objective, np.inf).argmin(axis=1)
        plots.validation_error(
            grid.axes["l1_experts"],
            grid.held_out * scale.y_sd**2,
            chosen_restart=winners,
            chosen=result.trained.chosen["l1_experts"],
            reference=floor,
            penalty_label="L1 weight of the experts",
            ax=ax,
        )
        plots.title(ax, result.entry.title)
    return figure


def figure_coefficients(results: list[Result], task: Task, **_: Any) -> Any:
    shown = [r for r in results if r.entry.name in ("softmax_l1", "top1_l1")] or results
    figure, axes = panels(len(shown), 2, (7.0, 4.6))
    for result, ax in zip(shown, axes, strict=True):
        grid = by_penalty(result)
        winners = np.where(grid.fits.admissible, grid.fits.objective, np.inf).argmin(axis=1)
        weights = grid.fits.params["experts"]["weights"][np.arange(len(winners)), winners]
        weights = np.stack(list(aligned(weights)))
        plots.coefficient_path(
            grid.axes["l1_experts"],
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
        before = now[matched(now, before)]
        yield before


def figure_expert_weights(results: list[Result], task: Task, scale: Scale, **_: Any) -> Any:
    result = preferred(results, "softmax_l1")
    found = np.asarray(result.refitted.params["experts"]["weights"])
    shares = np.asarray(result.model.gate_probs(result.refitted.params, scale.x(task.x[task.rows]))).mean(axis=0)
    found = scale.coefficients(np.where(np.abs(found) > NEAR_ZERO, found, 0.0))
    truth = None if task.problem is None else task.problem.weights
    order = falling_shares(shares) if truth is None else matched(found, truth)
    sets = [(f"found, {result.entry.title}, refitted", found[order], shares[order])]
    if task.problem is not None:
        true_shares = np.bincount(task.problem.expert[task.rows], minlength=len(found)) / len(task.rows)
        sets.insert(0, ("true", task.problem.weights, true_shares))
    figure, axes = panels(len(sets), 1, (9.0, 1.0 + 0.7 * len(found)))
    for (title, weights, share), ax in zip(sets, axes, strict=True):
        plots.expert_weights(weights, feature_names=task.features, shares=share, ax=ax)
        plots.title(ax, title)
    return figure


def figure_predictions(results: list[Result], task: Task, **_: Any) -> Any:
    figure, axes = panels(len(results), 2, (4.6, 4.6))
    for result, ax in zip(results, axes, strict=True):
        plots.true_vs_predicted(task.y[task.split.test], result.predictions["refitted_test"], ax=ax)
        plots.title(ax, result.entry.title)
    return figure


def figure_sample(results: list[Result], task: Task, scale: Scale, **_: Any) -> Any:
    result = preferred(results, "top1_l1")
    rows = task.rows
    probs = np.asarray(result.model.gate_probs(result.refitted.params, scale.x(task.x[rows])))
    found = probs.argmax(axis=1)
    title = f"most probable expert, {result.entry.title}"
    sets = [(title, found)]
    if task.problem is not None:
        true = task.problem.expert[rows]
        counts = np.array([[np.sum((found == k) & (true == j)) for k in range(probs.shape[1])] for j in range(3)])
        order = max(itertools.permutations(range(len(counts))), key=lambda o: sum(counts[j, k] for j, k in enumerate(o)))
        sets = [("true expert", true), (title, np.argsort(order)[found])]
    figure, axes = panels(len(sets), 2, (5.6, 5.0), projection="3d")
    for (title, expert), ax in zip(sets, axes, strict=True):
        plots.sample_3d(task.x[rows], task.y[rows], expert, ax=ax)
        plots.title(ax, title)
    return figure


FIGURES: dict[str, Callable[..., Any]] = {
    "training_loss": figure_training_loss,
    "validation_error": figure_validation_error,
    "coefficient_path": figure_coefficients,
    "expert_weights": figure_expert_weights,
    "true_vs_predicted": figure_predictions,
    "sample_3d": figure_sample,
}


# ---- the job --------------------------------------------------------------------------------------------------------


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs between runs, unless the user has a place for them already."""
    if jax.config.jax_compilation_cache_dir is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moejax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


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
    options = parser.parse_args(arguments)
    keep_compiled_programs()
    task = load(options.data, options.target, options.indicators, options.seed)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    scale = Scale.of(task)

    training = (options.steps, options.restarts, options.experts, options.seed)
    results = [fit_entry(entry, task, scale, *training) for entry in entries()]
    floor = None if task.problem is None else task.problem.bayes_mse()
    models = [summarize(result, task, scale, options.seed) for result in results]
    write_grid(results, out / "grid.csv")
    drawn = [result for result in results if result.trained is not None]
    for name, draw in FIGURES.items() if drawn else ():
        draw(drawn, task=task, scale=scale, floor=floor).savefig(out / f"{name}.png", dpi=100)
    summary = {
        "data": {"name": task.name, "n": len(task.y), "d": task.x.shape[1]},
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "seconds": {
            "total": time.perf_counter() - STARTED,
            "import": IMPORTED - STARTED,
            "compile": sum(m["seconds_compile"] for m in models),
            "run": sum(m["seconds_run"] for m in models),
        },
        "models": models,
        "noise_floor": floor,
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_table(summary)
    print(f"written to {out}: grid.csv, summary.json, {', '.join(f'{name}.png' for name in FIGURES)}")
    return summary


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
