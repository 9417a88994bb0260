"""Makes the reference fits, fits.json and fits.npz beside this file, by the moejax that is installed.

    python make.py [words]

Run once, with the code whose optima are to be kept. A fit is kept only where its optimum lasts: other keys and starts
nearby lead to it. Others are told, and are not kept. With words, only fits whose names have one of them are made anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from problems import OUTCOMES, Problem, Solution, all_problems, solve

NUMBERS, ARRAYS = Path(__file__).with_name("fits.json"), Path(__file__).with_name("fits.npz")
CONVERGED = 1
SAME_OBJECTIVE = 1e-10
SHARE = 0.3  # of a problem's tolerance, by which solutions from other starts may differ
NEAR = 0.02  # how far params are moved


def moved(model: Any, params: Any, seed: int, size: float = NEAR) -> Any:
    """Params somewhat away from these, in what is trained."""
    rng = np.random.default_rng(seed)
    own = {name: params[name] for name in ("experts", "gate", "family")}
    trained = {name: model.trainable(params)[name] for name in own}
    return jax.tree.map(lambda leaf, t: np.asarray(leaf) + t * size * rng.normal(size=np.shape(leaf)), own, trained)


def mixed(rows: np.ndarray) -> np.ndarray:
    """Responsibilities somewhat away from these."""
    return 0.9 * rows + 0.1 * np.random.default_rng(0).dirichlet(np.ones(rows.shape[1]), len(rows))


def members(problem: Problem, found: Solution) -> list[tuple[int | None, Problem, Any]]:
    """The fits of a path, or the only one: its place among what is kept, its problem and its params."""
    if problem.path is None:
        return [(None, problem, found.params)]
    name = problem.path[0]
    return [
        (i, replace(problem, path=None, hyper={**problem.hyper, name: v}), jax.tree.map(lambda a, i=i: a[i], found.params))
        for i, v in enumerate(problem.hyper[name])
    ]


def again(problem: Problem, found: Solution) -> Iterator[tuple[str, int | None, Solution]]:
    """Solutions from elsewhere: where from, of which member, None for all."""
    yield "another key", None, solve(problem, key=7, quick=True)
    if not problem.settled or getattr(problem.fit.loss, "complete", False):
        return
    begins = problem.begins()
    near = moved(problem.model, begins, 1) if isinstance(begins, dict) else mixed(begins)
    yield "a start nearby", None, solve(problem, near, quick=True)
    if problem.axes is None:
        for member, alone, params in members(problem, found):
            for seed, size in ((0, 0.0), (2, NEAR), (3, NEAR)):
                yield f"params away by {size}", member, solve(alone, moved(problem.model, params, seed, size), quick=True)


def differences(
    problem: Problem, kept: dict[str, np.ndarray], other: dict[str, np.ndarray], member: int | None
) -> list[str]:
    """What differs by more than it may."""
    told = []
    for name, value in kept.items():
        if member is not None:
            value = value[member] if name in OUTCOMES else value[member : member + 1]
        allowed = SAME_OBJECTIVE if name in OUTCOMES[:1] else SHARE * problem.tolerance
        off = np.max(np.abs(value - other[name]) / np.maximum(1, np.abs(value)), initial=0)
        if off > allowed:
            told.append(f"{name} by {off:.1e}")
        if name.endswith("_weights") and problem.settled and ((value == 0) != (other[name] == 0)).any():
            told.append(f"{name}: other zeros")
    return told


def complaints(problem: Problem, found: Solution) -> list[str]:
    """Why this is no reference."""
    kept = found.kept
    told = [f"{n} is not finite" for n, v in kept.items() if n != "log_likelihood" and not np.isfinite(v).all()]
    if problem.settled and not (kept["status"] == CONVERGED).all():
        told.append(f"status {kept['status'].tolist()}")
    for where, member, other in again(problem, found):
        told += [f"from {where}: {difference}" for difference in differences(problem, kept, other.kept, member)]
        if problem.settled and not (other.kept["status"] == CONVERGED).all():
            told.append(f"from {where}: status {other.kept['status'].tolist()}")
    return told


def main(words: list[str]) -> int:
    """Solve the problems, and keep what is kept of them."""
    problems = all_problems()
    numbers = json.loads(NUMBERS.read_text()) if words and NUMBERS.exists() else {}
    arrays = dict(np.load(ARRAYS)) if words and ARRAYS.exists() else {}
    chosen = [name for name in problems if not words or any(word in name for word in words)]
    refused = 0
    for name in chosen:
        found = solve(problems[name], quick=True)
        told = complaints(problems[name], found)
        print(f"{name}: {'; '.join(told) or 'kept'}", flush=True)
        refused += bool(told)
        numbers.pop(name, None)
        arrays = {key: v for key, v in arrays.items() if key.rsplit("/", 1)[0] != name}
        if not told:
            own = {outcome: found.kept[outcome].tolist() for outcome in OUTCOMES if outcome in found.kept}
            numbers[name] = {"data": float(np.sum(problems[name].data.y)), **own}
            arrays |= {f"{name}/{kind}": v for kind, v in found.kept.items() if kind not in OUTCOMES}
    numbers = {name: numbers[name] for name in problems if name in numbers}
    arrays = {key: v for key, v in arrays.items() if key.rsplit("/", 1)[0] in numbers}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
    np.savez_compressed(ARRAYS, **arrays)
    print(f"{len(numbers)} of {len(problems)} fits are kept")
    return int(refused > 0)


if __name__ == "__main__":
    with jax.enable_x64(True):
        sys.exit(main(sys.argv[1:]))
