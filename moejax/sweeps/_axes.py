"""Axes of a sweep: their values, and the members that their product has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from moejax import _checks
from moejax.solvers import is_count

ROW_AXES = ("fold", "bootstrap", "division")  # they say something of the rows, and are no fields of `hyper`
EVERY_ROW = -2  # on the axis `fold`: trains on all rows


def n_experts(fit: Any) -> int:
    if not hasattr(fit, "model"):
        raise ValueError(f"fit: {fit!r} has no model, whose experts rows are divided among; want one, as from fit_em")
    return fit.model.n_experts


def named_divisions(given: Any) -> dict[Any, Any]:
    """Divisions of the rows by name, or by number."""
    if not isinstance(given, Mapping | list | tuple) or not len(given):
        raise ValueError(
            f"axes['division']: {type(given).__name__} was given; want at least one division, in a mapping from names to "
            "responsibilities or functions of x, or in a sequence of them"
        )
    named = given if isinstance(given, Mapping) else dict(enumerate(given))
    if isinstance(given, Mapping) and not all(isinstance(name, str) for name in named):
        raise ValueError(f"axes['division']: names {list(named)} were given; want words")
    for name, each in named.items():
        if each is None or isinstance(each, Mapping):
            wanted = "responsibilities (n, K) or a function of x"
            raise ValueError(f"axes['division'][{name!r}]: {type(each).__name__} was given; want {wanted}")
    return dict(named)


def axis_values(name: str, given: Any, countable: bool = False) -> np.ndarray:
    if countable and is_count(given):
        _checks.count(f"axes[{name!r}]", given, 2)
        return np.asarray(given)
    if name in ("restart", "fold", "bootstrap") and np.ndim(given) == 0:
        _checks.count(name, given, 2 if name == "fold" else 1)
        return np.arange(given)
    try:
        values = np.asarray(list(given) if isinstance(given, Iterable) and not hasattr(given, "__array__") else given)
    except ValueError:  # sequences of several lengths
        values = np.empty(0)
    if values.ndim != 1 or not values.size:
        what = repr(given) if np.size(values) < 10 else f"an array of shape {values.shape}"
        raise ValueError(f"axes[{name!r}]: {what} was given; want a sequence of at least one number")
    if name == "division":
        return values
    _checks.finite(f"axes[{name!r}]", values)
    if name in ("restart", "fold", "bootstrap"):
        least = -1 if name == "fold" else 0
        whole = np.issubdtype(values.dtype, np.integer)
        if not whole or values.min() < least or values.max() > np.iinfo(np.int32).max:
            what = f"{values.dtype} numbers from {values.min()} to {values.max()} were given"
            raise ValueError(f"axes[{name!r}]: {what}; want whole numbers of at least {least} and below 2**31")
    if name == "fold":
        values = np.unique(values[values >= 0])
        if not values.size:
            raise ValueError("axes['fold']: no row is held out in any fold; want some numbers of at least 0")
    return values


def fold_labels(given: Any) -> np.ndarray | None:
    return None if given is None or np.ndim(given) == 0 else np.asarray(given)


def members_of(axes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The value of every member on every axis, the last axis fastest; without axes there is one member."""
    grid = np.meshgrid(*axes.values(), indexing="ij")
    return {name: np.ravel(values) for name, values in zip(axes, grid, strict=True)}


def chunk_of(members: dict[str, np.ndarray], start: int, chunk: int) -> dict[str, np.ndarray]:
    """The members of one chunk, the last of them repeated where there are too few."""
    index = np.arange(start, start + chunk)
    return {name: values[np.minimum(index, len(values) - 1)] for name, values in members.items()}
