"""How near to the best possible predictor: softmax and top-1 gates by squared error, on draws of one kind of problem.

    python benchmarks/accuracy.py [--draws 12] [--out DIR]

Each problem has 500 training and 500 validation rows, on which everything is chosen: the restart by training objective, the
penalties and the temperature by validation error. The error on 20,000 fresh rows is given as a ratio to the Bayes error,
once for the model trained on the training rows alone and once refitted on all 1,000. The first problem is the notebook's.
Writes `accuracy.json` and `accuracy.png` into DIR.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from lambda_grid import cosine_adam, keep_compiled_programs, mse, panels, run_command, write_json

import moejax
from moejax import datasets, experts, gates, plots

TRAINING, VALIDATION, FRESH = 500, 500, 20_000
L1_EXPERTS = np.concatenate([[0.0], np.geomspace(1e-5, 0.1, 9)])
GRIDS = {
    "softmax": (gates.softmax(), {"l1_experts": L1_EXPERTS, "l1_gate": [1e-5, 1e-4, 1e-3]}),
    "top1": (gates.top1(), {"l1_experts": L1_EXPERTS, "temperature": [0.3, 1.0, 3.0]}),
}
# Medians and worst ratios of the notebook's models on twelve draws of this kind of problem, with 500 rows to train.
NOTEBOOK = {"softmax": {"median": 2.45, "worst": 28.0}, "top1": {"median": 111.0, "worst": 268.0}}


class Sample(NamedTuple):
    """A problem, its 1,000 rows, and fresh ones."""

    name: str
    problem: datasets.Problem
    x: np.ndarray
    y: np.ndarray
    fresh_x: np.ndarray
    fresh_y: np.ndarray


def samples(draws: int) -> Iterator[Sample]:
    """The notebook's problem, then `draws` of its kind."""
    rows = TRAINING + VALIDATION
    for number in range(draws + 1):
        problem = datasets.three_regressions(number, n=rows) if number else datasets.notebook()[0]
        fresh_x, fresh_y, _ = problem.draw(1, FRESH)
        name = f"draw {number}" if number else "notebook"
        yield Sample(name, problem, problem.x[:rows], problem.y[:rows], fresh_x, fresh_y)


def ratios(sample: Sample, gate: Any, axes: dict[str, Any], restarts: int, steps: int) -> dict[str, Any]:
    """Errors over the Bayes error, and what was chosen."""
    mean, sd = sample.x[:TRAINING].mean(axis=0), sample.x[:TRAINING].std(axis=0)
    y_mean, y_sd = sample.y[:TRAINING].mean(), sample.y[:TRAINING].std()
    fold = np.repeat([-1, 0], [TRAINING, VALIDATION])
    model = moejax.moe(experts.linear(), gate, 3)
    fit = moejax.fit_gradient(model, optimizer=partial(cosine_adam, steps), steps=steps, learning_rate=0.1)
    sweep = moejax.sweep(fit, {**axes, "restart": restarts, "fold": fold}, progress=False)
    grid = sweep(jax.random.key(0), (sample.x - mean) / sd, (sample.y - y_mean) / y_sd)
    bayes = sample.problem.bayes_mse()

    def ratio(chosen: Any) -> float:
        prediction = np.asarray(_predict(model, chosen.params, (sample.fresh_x - mean) / sd)) * y_sd + y_mean
        return mse(sample.fresh_y, prediction) / bayes

    trained, refitted = moejax.select(grid, refit=False), moejax.select(grid)
    return {"trained": ratio(trained), "refitted": ratio(refitted), "bayes_mse": bayes, "chosen": refitted.chosen}


@partial(jax.jit, static_argnums=0)
def _predict(model: Any, params: Any, x: Any) -> jax.Array:
    return model.predict(params, x)


def summarize(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Median and worst ratio of a model over the problems."""
    refitted, trained = (np.array([row[kind] for row in rows]) for kind in ("refitted", "trained"))
    return {
        "name": name,
        "median": float(np.median(refitted)),
        "worst": float(refitted.max()),
        "median_trained": float(np.median(trained)),
        "worst_trained": float(trained.max()),
        "notebook": NOTEBOOK[name],
        "problems": rows,
    }


def draw(models: list[dict[str, Any]], names: list[str]) -> Any:
    """Ratios by problem, a panel for each model."""
    figure, axes = panels(len(models), 2, (6.0, 3.8))
    at = np.arange(len(names))
    for model, ax in zip(models, axes, strict=True):
        for kind, marker, label in (("trained", "o", "500 rows"), ("refitted", "s", "refitted on 1,000 rows")):
            colour = plots.PALETTE[kind == "refitted"]
            ax.plot(at, [row[kind] for row in model["problems"]], marker, color=colour, label=label)
        ax.axhline(model["median"], color=plots.PALETTE[1], linewidth=1, label=f"median, refitted: {model['median']:.2f}")
        ax.axhline(model["notebook"]["median"], color="#777777", linestyle="--", label="median of the notebook's model")
        ax.set_yscale("log")
        ax.set_yticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"])
        ax.set_yticks([], minor=True)
        drawn = [row[kind] for row in model["problems"] for kind in ("trained", "refitted")]
        ax.set_ylim(0.9, 1.3 * max(model["notebook"]["median"], *(ratio for ratio in drawn if np.isfinite(ratio))))
        ax.set_xticks(at, names, rotation=60, ha="right", fontsize=8)
        ax.set_ylabel("squared error / Bayes error")
        ax.grid(True, color="#E4E4E4", linewidth=0.6)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8, frameon=False)
        plots.title(ax, f"{model['name']} gate")
    return figure


def print_table(models: list[dict[str, Any]], names: list[str]) -> None:
    print(f"{'squared error / Bayes error':28}" + "".join(f"{m['name'] + ', 500':>14}{'refitted':>10}" for m in models))
    for i, name in enumerate(names):
        cells = ((m["problems"][i]["trained"], m["problems"][i]["refitted"]) for m in models)
        print(f"{name:28}" + "".join(f"{a:14.2f}{b:10.2f}" for a, b in cells))
    for word in ("median", "worst"):
        print(f"{word:28}" + "".join(f"{m[word + '_trained']:14.2f}{m[word]:10.2f}" for m in models))
        print(f"{'  the notebook, ' + word:28}" + "".join(f"{m['notebook'][word]:14.2f}{'':10}" for m in models))


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=12, help="problems beside the notebook's (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=10, help="starts for each penalty (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1000, help="gradient steps of each fit (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", default="results/accuracy", help="default: %(default)s")
    options = parser.parse_args(arguments)
    for name, least in (("draws", 0), ("restarts", 1), ("steps", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: {getattr(options, name)} was given; want at least {least}")
    keep_compiled_programs()
    started = time.perf_counter()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in GRIDS}
    names = []
    for sample in samples(options.draws):
        names.append(sample.name)
        for name, (gate, axes) in GRIDS.items():
            try:
                rows[name].append(ratios(sample, gate, axes, options.restarts, options.steps))
            except (RuntimeError, FloatingPointError) as error:
                raise RuntimeError(f"{sample.name}, {name} gate: {error}") from error
        print(f"{sample.name}: " + ", ".join(f"{n} {r[-1]['refitted']:.2f}" for n, r in rows.items()), file=sys.stderr)
    models = [summarize(rows[name], name) for name in GRIDS]
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    summary = {"problems": names, "models": models, "seconds": time.perf_counter() - started}
    write_json(summary, out / "accuracy.json")
    print_table(models, names)
    draw(models, names).savefig(out / "accuracy.png", dpi=100)
    print(f"written to {out}: accuracy.json, accuracy.png")
    return summary


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
