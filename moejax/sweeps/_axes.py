"""Axes of a sweep: their values, and the members of their product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from moejax import _checks
from moejax.solvers import is_count

ROW_AXES = ("fold", "bootstrap", "division")  # axes that concern the rows; they are not fields of `hyper`
EVERY_ROW = -2  # value on the axis `fold`: train on all rows
NO_SAMPLE = -1  # value on the axis `bootstrap`: each row as it is


def n_experts(fit: Any) -> int:
    """Return the number of experts of a fit.

    Parameters
    ----------
    fit : callable
        The fit.

    Returns
    -------
    int
        The number of experts of its model.

    Raises
    ------
    ValueError
        If the fit has no model.
    """
    if not hasattr(fit, "model"):
        raise ValueError(
            f"fit: {fit!r} has no model, and the axis 'division' needs its number of experts; want a fit as from fit_em"
        )
    n: int = fit.model.n_experts
    return n


def named_divisions(given: Any) -> dict[Any, Any]:
    """Return divisions of the rows by name, or by number for a sequence.

    Parameters
    ----------
    given : mapping or sequence
        Responsibilities (n, K) or functions of x, by name or in a sequence.

    Returns
    -------
    dict
        The divisions; keys are names or numbers from 0.

    Raises
    ------
    ValueError
        If there is no division, a name is not a string, or a division is None or a mapping.
    """
    if not isinstance(given, Mapping | list | tuple) or not len(given):
        raise ValueError(
            f"axes['division']: {type(given).__name__} was given; want at least one division, as a mapping from names to "
            "responsibilities or functions of x, or as a sequence of these"
        )
    named = given if isinstance(given, Mapping) else dict(enumerate(given))
    if isinstance(given, Mapping) and not all(isinstance(name, str) for name in named):
        raise ValueError(f"axes['division']: names {list(named)} were given; want strings")
    for name, each in named.items():
        if each is None or isinstance(each, Mapping):
            wanted = "responsibilities (n, K) or a function of x"
            raise ValueError(f"axes['division'][{name!r}]: {type(each).__name__} was given; want {wanted}")
        if not callable(each):
            _checks.shape(f"axes['division'][{name!r}]", each, (None, None), "responsibilities, rows by experts")
    return dict(named)


def axis_values(name: str, given: Any, countable: bool = False) -> np.ndarray:
    """Return the values of an axis as an array.

    Parameters
    ----------
    name : str
        Name of the axis.
    given : number or sequence
        The values, or for some axes their number.
    countable : bool, default False
        Whether the axis is the weight of a penalty, which may be given as a number of weights.

    Returns
    -------
    numpy.ndarray
        Values (V,). A number of weights is returned as an array without dimensions.

    Raises
    ------
    ValueError
        If the axis is empty or has a value that it cannot have.
    """
    if countable and is_count(given):
        return np.asarray(_checks.count(f"axes[{name!r}]", given, 2, _checks.MOST_MADE))
    if name in ("restart", "fold", "bootstrap") and _is_single(given):
        return np.arange(_checks.count(name, given, 2 if name == "fold" else 1, _checks.MOST_MADE))
    values = _checks.array(f"axes[{name!r}]", given if _is_single(given) or hasattr(given, "__array__") else list(given))
    if values.ndim != 1 or not values.size:
        what = _checks.shown(given) if np.size(values) < 10 else f"an array of shape {values.shape}"
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
            raise ValueError("axes['fold']: no row is held out in any fold; want at least one number that is not negative")
    return values


def _is_single(given: Any) -> bool:
    """Whether this is no sequence of values, but one value or a number of them."""
    if hasattr(given, "__array__"):
        return not _checks.shape_of("axes", given)
    return not isinstance(given, Iterable) or isinstance(given, str | bytes | bytearray | memoryview | Mapping)


def fold_labels(given: Any) -> np.ndarray | None:
    """Return the labels of folds, if labels were given.

    Parameters
    ----------
    given : int, array-like (n,), or None
        The axis `fold` as the user gave it.

    Returns
    -------
    numpy.ndarray or None
        The labels; None for a number of folds.
    """
    return None if given is None or _is_single(given) else _checks.array("axes['fold']", given)


def members_of(axes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the value of every member on every axis, the last axis fastest.

    Parameters
    ----------
    axes : dict of numpy.ndarray
        The values of each axis.

    Returns
    -------
    dict of numpy.ndarray
        For each axis an array with one value for each member. Without axes there is one member.
    """
    grid = np.meshgrid(*axes.values(), indexing="ij")
    return {name: np.ravel(values) for name, values in zip(axes, grid, strict=True)}


def chunk_of(members: dict[str, np.ndarray], start: int, chunk: int) -> dict[str, np.ndarray]:
    """Return the members of one chunk; the last member is repeated if there are too few.

    Parameters
    ----------
    members : dict of numpy.ndarray
        The value of every member on every axis.
    start : int
        Index of the first member of the chunk.
    chunk : int
        Number of members of a chunk.

    Returns
    -------
    dict of numpy.ndarray
        For each axis an array of shape (chunk,).
    """
    index = np.arange(start, start + chunk)
    return {name: values[np.minimum(index, len(values) - 1)] for name, values in members.items()}
