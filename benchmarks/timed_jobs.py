"""What `first_fit.py` times, in a process that has one of the two codes.

    python benchmarks/timed_jobs.py [--quick]

Reads requests from standard input, each a line of JSON with the name of a job and its arguments, and answers each by a line
of JSON: `seconds`, and `score`, by which both codes are compared (higher is better) or null. The first line, before any
request, tells which code was imported. --quick makes all sizes small.

Nothing here is of one code alone: public names of the library, and no other benchmark.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import cross_val_score

import moejax
from moejax import experts, families, gates
from moejax.sklearn import MoERegressor

QUICK = "--quick" in sys.argv[1:]
WEIGHTS, RESTARTS = (3, 2) if QUICK else (50, 20)  # of the grids
ADAM_STEPS = 20 if QUICK else 1000
LONE_CALLS = 3 if QUICK else 50
JITTER = 0.1  # standard deviations, between rows that are drawn more than once

Answer = dict[str, Any]


# ---- data -----------------------------------------------------------------------------------------------------------


def diabetes(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of the table, or, where it has not so many, rows drawn from it with a little noise."""
    x, y = load_diabetes(return_X_y=True)
    if rows <= len(y):
        return x[:rows], y[:rows]
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(y), size=rows)
    x = x[drawn] + JITTER * x.std(axis=0) * rng.normal(size=(rows, x.shape[1]))
    return x, y[drawn] + JITTER * y.std() * rng.normal(size=rows)


@lru_cache
def notebook() -> tuple[np.ndarray, np.ndarray]:
    """The notebook's training rows in float32, (500, 10) and (500,)."""
    problem, rows = moejax.datasets.notebook()
    return problem.x[rows.train].astype("f"), problem.y[rows.train].astype("f")


def penalties() -> np.ndarray:
    return np.geomspace(1e-4, 0.3, WEIGHTS)


def likelihood_model(n_experts: int) -> Any:
    return moejax.moe(experts.linear(), gates.softmax(), n_experts, family=families.gaussian())


# ---- jobs of a process that has compiled nothing --------------------------------------------------------------------


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def fit(rows: int) -> Answer:
    """The estimator as it comes, on so many rows. Score: the log-likelihood a row."""
    x, y = diabetes(rows)
    seconds, model = timed(lambda: MoERegressor(n_experts=2, random_state=0).fit(x, y))
    return {"seconds": seconds, "score": model.log_likelihood_ / rows}


def cross_validate() -> Answer:
    """Five folds of the same. Score: their mean R²."""
    x, y = diabetes(442)
    seconds, scores = timed(lambda: cross_val_score(MoERegressor(n_experts=2, random_state=0), x, y, cv=5))
    return {"seconds": seconds, "score": float(scores.mean())}


def examples(blocks: Sequence[str]) -> Answer:
    """Run blocks of Python one after another; what they import, they import before the clock starts.

    Score: where the last block ends with a `model` and the `best` fit of the notebook's `problem`, the log-likelihood a
    row on its test rows.
    """
    for code in blocks:
        exec(imports(code), {})
    parts, scope = [], {}
    for code in blocks:
        scope = {}
        parts.append(timed(lambda code=code, scope=scope: exec(code, scope))[0])
    return {"seconds": sum(parts), "score": held_out_likelihood(scope), "parts": parts}


def imports(code: str) -> Any:
    """The import statements of a block, compiled."""
    found: list[ast.stmt] = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return compile(ast.Module(found, []), "imports", "exec")


def held_out_likelihood(scope: dict[str, Any]) -> float | None:
    if not {"model", "best", "problem", "rows"} <= scope.keys() or scope["model"].family is None:
        return None
    problem, test = scope["problem"], scope["rows"].test
    return float(scope["model"].log_prob(scope["best"].params, problem.x[test], problem.y[test]).mean())


def program() -> Answer:
    """How large the program of a lone fit is, and how long its steps take. Score: minus the objective."""
    table = moejax.datasets.diabetes()
    x, y = ((v - v.mean(axis=0)) / v.std(axis=0) for v in (table.x, table.y))
    hyper = {"l1_experts": 0.05, "l1_gate": 0.01, "l2_gate": 1e-3}
    arguments = jax.random.key(0), jnp.asarray(x, "f"), jnp.asarray(y, "f"), {k: jnp.float32(v) for k, v in hyper.items()}
    fit_once = moejax.fit_em(likelihood_model(2))
    whole = jax.jit(lambda key, x, y, hyper: fit_once(key, x, y, hyper))
    lowering, lowered = timed(lambda: whole.lower(*arguments))
    compiling, compiled = timed(lowered.compile)
    return {
        "seconds": lowering + compiling,
        "seconds_lower": lowering,
        "seconds_compile": compiling,
        "score": -float(compiled(*arguments).objective),
        "lines": lowered.as_text().count("\n"),
        "fusions": compiled.as_text().count(" fusion("),
    }


# ---- jobs that are compiled when they are timed: the first answer is of no use ----------------------------------------


@lru_cache
def gradient_sweep() -> Any:
    model = moejax.moe(experts.linear(), gates.softmax(), 3)
    fit_once = moejax.fit_gradient(model, moejax.losses.squared_error(), steps=ADAM_STEPS, learning_rate=0.1)
    return moejax.sweep(fit_once, {"l1_experts": penalties(), "restart": RESTARTS}, progress=False)


@lru_cache
def em_sweep(max_iter: int = 500, tol: float | None = None) -> Any:
    fit_once = moejax.fit_em(likelihood_model(3), max_iter=max_iter, tol=tol)
    axes = {"l1_experts": penalties(), "l2_gate": [1e-3], "restart": RESTARTS}
    return moejax.sweep(fit_once, axes, progress=False)


def swept(grid: Any) -> tuple[float, np.ndarray]:
    """Seconds and objectives, (weights, ..., restarts)."""
    seconds, result = timed(lambda: grid(jax.random.key(0), *notebook()))
    return seconds, np.asarray(result.fits.objective)


def gradient_grid() -> Answer:
    """Adam on the notebook's sample, all fits. Score: minus the median objective."""
    seconds, objectives = swept(gradient_sweep())
    return {"seconds": seconds, "score": -float(np.median(objectives))}


def em_grid() -> Answer:
    """EM on the same, all fits. Score: minus the mean over weights of the objective that a quarter of the starts reach.

    At some weights one start of a hundred finds the best, which so many starts find by chance.
    """
    seconds, objectives = swept(em_sweep())
    return {"seconds": seconds, "score": -float(np.nanquantile(objectives, 0.25, axis=-1).mean())}


def em_iterations(max_iter: int) -> Answer:
    """The same grid, each member for so many iterations."""
    return {"seconds": swept(em_sweep(max_iter, 0.0))[0], "score": None}


@lru_cache
def lone_fit() -> Any:
    return moejax.fit_em(likelihood_model(3))


def lone() -> Answer:
    """A fit by EM on the same rows, the median of many calls. Score: minus the objective."""
    hyper = {"l1_experts": 0.01, "l2_gate": 1e-3}
    calls = [
        timed(lambda: jax.block_until_ready(lone_fit()(jax.random.key(0), *notebook(), hyper))) for _ in range(LONE_CALLS)
    ]
    return {"seconds": median(seconds for seconds, _ in calls), "score": -float(calls[-1][1].objective)}


JOBS: dict[str, Callable[..., Answer]] = {
    job.__name__: job for job in (fit, cross_validate, examples, program, gradient_grid, em_grid, em_iterations, lone)
}


def main() -> None:
    replies = sys.stdout

    def reply(answer: Answer) -> None:
        print(json.dumps(answer), file=replies, flush=True)

    reply({"code": moejax.__file__, "jax": jax.__version__})
    for line in sys.stdin:
        request = json.loads(line)
        with contextlib.redirect_stdout(io.StringIO()):  # of the examples
            answer = JOBS[request.pop("job")](**request)
        reply(answer)


if __name__ == "__main__":
    main()
