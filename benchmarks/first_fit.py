"""What a first fit costs: a sweep over eight starts compiled with optimisation and without, by the number of rows.

    python benchmarks/first_fit.py [--rows N ...] [--rounds N] [--out DIR]

EM of three regressions with a softmax gate, what `moejax.sklearn.MoERegressor` fits by default. Both sides in turn, in one
process, every round a program that was not compiled before. Prints ratios of medians, and which of the two the estimator
takes; writes them to `first_fit.json` in DIR. Raises RuntimeError where the best objectives differ.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

import jax
from lambda_grid import run_command, write_json

import moejax
from moejax.sklearn._estimators import is_little

STARTS = 8
SLACK = 1e-3  # by which the best objectives may differ, in float32


def fit(number: int = 0) -> Any:
    """The fit, a program of its own for every number."""
    model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), 3, family=moejax.families.gaussian())
    return moejax.fit_em(model, max_iter=500 + number)


def swept(x: Any, y: Any, number: int, optimize: bool) -> tuple[float, float, float]:
    """Seconds of the first and of the second call of the program of that number, and the best objective."""
    grid = moejax.sweep(fit(number), {"restart": STARTS, "l2_gate": [1e-3]}, progress=False, optimize=optimize)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        best = grid(jax.random.key(0), x, y).fits.objective.min()
        seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1], float(best)


def measure(n: int, rounds: int) -> dict[str, Any]:
    problem = moejax.datasets.three_regressions(0, n=n)
    x, y = problem.x.astype("f"), problem.y.astype("f")
    found: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for number in range(rounds + 1):  # one before those that count, for what is compiled once for all
        for optimize, runs in found.items():
            runs.append(swept(x, y, number, optimize))
    first, later, best = ({o: median(run[i] for run in runs[1:]) for o, runs in found.items()} for i in range(3))
    if abs(best[True] - best[False]) > SLACK:
        raise RuntimeError(f"{n} rows: the best objectives are {best[True]:.6g} and {best[False]:.6g}")
    return {
        "rows": n,
        "first_optimized_over_quick": first[True] / first[False],
        "later_quick_over_optimized": later[False] / later[True],
        "estimator_optimizes": not is_little(fit(), STARTS, y),
        "seconds": {"first_optimized": first[True], "first_quick": first[False]},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 5_000, 20_000], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--out", metavar="DIR", default="results/first_fit", help="default: %(default)s")
    given = parser.parse_args(arguments)
    if min(given.rows) < 10 or given.rounds < 1:
        parser.error("want at least 10 rows and 1 round")
    jax.config.update("jax_platforms", "cpu")
    print(f"{'rows':>8}  {'first: optimised / quick':>26}  {'later: quick / optimised':>26}  the estimator takes")
    told = []
    for n in given.rows:
        one = measure(n, given.rounds)
        told.append(one)
        first, later = one["first_optimized_over_quick"], one["later_quick_over_optimized"]
        print(
            f"{n:>8}  {first:>26.2f}  {later:>26.2f}  {'optimised' if one['estimator_optimizes'] else 'quick'}", flush=True
        )
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json({"rounds": given.rounds, "rows": told}, out / "first_fit.json")


if __name__ == "__main__":
    run_command(main)
