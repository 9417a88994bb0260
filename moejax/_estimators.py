"""What all scikit-learn estimators here share: weights, scales, precision, the best of a sweep, and compiled predictions."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from moejax import _cache, _check
from moejax.em import EMFit
from moejax.fit import Fit
from moejax.model import Model
from moejax.selection import select
from moejax.sweep import sweep

_FEWEST_ROWS = 16  # that predictions are compiled for; then doubled
_LITTLE_WORK = 2**30  # bytes, of all steps that fits may take


def check_choice(name: str, given: Any, wanted: tuple[str, ...]) -> None:
    """Raise ValueError for what is none of those wanted."""
    if given not in wanted:
        raise ValueError(f"{name}: {given!r} was given; want one of {list(wanted)}")


def row_weights(given: Any, n: int) -> np.ndarray:
    """Weights of rows as floats, (n,), checked; of 1 for None, so that one program serves both."""
    if given is None:
        return np.ones(n)
    weights = np.asarray(given)
    _check.shape("sample_weight", weights, (n,), "one for each row")
    _check.not_negative("sample_weight", weights)
    if not weights.any():
        raise ValueError("sample_weight: all are zero; want at least one row that counts")
    return weights.astype(float)


def moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and population standard deviations of columns in float64; of one that does not vary, its value and 1."""
    rows, weights = np.asarray(values, float)[weights > 0], weights[weights > 0]
    mean = np.average(rows, axis=0, weights=weights)
    sd = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=weights))
    # Not by sd == 0, which rounding in the mean would hide.
    constant = np.ptp(rows, axis=0) == 0
    return np.where(constant, rows[0], mean), np.where(constant | (sd == 0), 1.0, sd)


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """JAX in float64 for that type and in float32 for others."""
    there = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    with there(dtype == np.float64):
        yield


def best_of_starts(
    fit: Any, n_init: int, hyper: dict[str, float], seed: int, x: Any, y: np.ndarray, weights: np.ndarray
) -> Fit:
    """The best admissible fit of a sweep over starts, in NumPy arrays."""
    axes = {"restart": n_init, **{name: [value] for name, value in hyper.items()}}
    grid = sweep(fit, axes, progress=False, optimize=not is_little(fit, n_init, y))
    try:
        with _cache.of_estimators():
            return select(grid(jax.random.key(seed), x, y, weights=weights)).fit
    except FloatingPointError as error:
        raise RuntimeError(f"no fit is admissible: {error}") from error


def is_little(fit: Any, n_init: int, y: np.ndarray) -> bool:
    """Whether that many fits are so little work that to compile them well takes longer than it saves."""
    steps = fit.max_iter if isinstance(fit, EMFit) else fit.steps
    return fit.work_bytes(y) * n_init * steps <= _LITTLE_WORK


def applied(method: str, model: Model, params: Any, *rows: Any) -> np.ndarray:
    """The model's method of that name for rows of one type, compiled for twice as many rows when there are more."""
    first = jax.tree.leaves(rows)[0]
    n = len(first)
    size = max(_FEWEST_ROWS, 1 << (n - 1).bit_length())
    padded = jax.tree.map(lambda v: np.pad(v, [(0, size - n)] + [(0, 0)] * (v.ndim - 1), "edge"), rows)
    with precision(first.dtype), _cache.of_estimators():
        return np.asarray(_applied(method, model, params, *padded))[:n]


@partial(_cache.jit, n_static=2)
def _applied(method: str, model: Model, params: Any, *rows: Any) -> Any:
    return getattr(model, method)(params, *rows)
