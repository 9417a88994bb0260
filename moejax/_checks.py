"""Checks of what a user passes in: each raises one error that names the argument, what was given and what is wanted.

They run on the host, before anything compiles. Values that are traced (inside `jit` or `vmap`) have no numbers to look
at; their shapes are checked and their values left to the status flags of a fit.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np


def is_traced(value: Any) -> bool:
    """Whether `value` stands for an array of a program under compilation, and so has a shape but no numbers."""
    jax = sys.modules.get("jax")  # this module serves NumPy code too, and must not be what imports JAX
    return jax is not None and isinstance(value, jax.core.Tracer)


def shape(name: str, value: Any, want: tuple[int | None, ...], meaning: str = "") -> None:
    """Raise unless `value` has the shape `want`, in which None stands for any size."""
    given = np.shape(value)
    if len(given) != len(want) or any(w is not None and g != w for g, w in zip(given, want, strict=True)):
        wanted = "(" + ", ".join("any" if w is None else str(w) for w in want) + ("," if len(want) == 1 else "") + ")"
        raise ValueError(f"{name}: shape {given} was given; want {wanted}{', ' + meaning if meaning else ''}")


def finite(name: str, value: Any) -> None:
    """Raise if `value` holds a NaN or an infinity, and say where the first one is."""
    if is_traced(value) or (type(value) is float and math.isfinite(value)):
        return
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name}: a masked array was given; want a number in every place, and weights of 0 for rows to leave out"
        )
    array = np.asarray(value)
    if array.dtype.kind in "OSUMmc":
        raise ValueError(f"{name}: values of type {array.dtype} were given; want real numbers")
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}: {int(bad.sum())} of {array.size} values are NaN or infinite, the first at index {first}; "
            "want finite numbers"
        )


def not_negative(name: str, value: Any) -> None:
    """Raise if `value` holds a number below zero, a NaN or an infinity."""
    finite(name, value)
    if not is_traced(value) and (np.asarray(value) < 0).any():
        raise ValueError(f"{name}: {np.min(np.asarray(value))} was given; want no number below 0")


def positive(name: str, value: Any) -> None:
    """Raise unless every number in `value` is above zero and finite."""
    finite(name, value)
    if not is_traced(value) and (np.asarray(value) <= 0).any():
        raise ValueError(f"{name}: {np.min(np.asarray(value))} was given; want numbers above 0")


def count(name: str, value: Any, least: int = 1) -> None:
    """Raise unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: {value!r} was given; want a whole number of at least {least}")


def whole(name: str, value: Any, least: int, most: int) -> None:
    """Raise unless every number in `value` is whole and from `least` to `most`."""
    if isinstance(value, int) and least <= value <= most:
        return
    finite(name, value)
    if is_traced(value):
        return
    numbers = np.asarray(value)
    if (numbers % 1 != 0).any() or (numbers < least).any() or (numbers > most).any():
        raise ValueError(f"{name}: {value!r} was given; want whole numbers from {least} to {most}")


def check_weights(weights: Any, n: int) -> None:
    """Raise ValueError unless weights is (n,), finite, none below 0 and not all 0."""
    shape("weights", weights, (n,), "one for each row")
    not_negative("weights", weights)
    if not is_traced(weights) and not np.asarray(weights).any():
        raise ValueError("weights: all are 0; want at least one row that counts")
