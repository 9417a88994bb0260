"""Checks of what a user passes in: each raises one error that names the argument, what was given and what is wanted.

They run on the host, before anything compiles. Values that are traced (inside `jit` or `vmap`) have no numbers to look
at; their shapes are checked and their values left to the status flags of a fit.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

_LEAST_WEIGHT, _MOST_WEIGHT = 1e-18, 1e18  # of the largest weight and of the sum: squares of both are numbers in float32


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


def native(name: str, value: Any) -> Any:
    """`value`, of NumPy as a plain array in the byte order of this machine; raise if some of its entries are masked.

    Compiled code reads the bytes of an array as they lie, and would take those of another order for other numbers.
    """
    if not isinstance(value, np.ndarray):
        return value
    if np.ma.is_masked(value):
        raise ValueError(
            f"{name}: a masked array was given; want a number in every place, and weights of 0 for rows to leave out"
        )
    array = np.asarray(value)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def of_objects(name: str, value: Any) -> np.ndarray:
    """`native` as an array, and an array of Python objects that are numbers as floats; raise where one is no number.

    For what scikit-learn takes too: columns of pandas and of databases come as objects, as of `decimal.Decimal`.
    """
    try:
        array = np.asarray(native(name, value))
        if array.dtype.kind != "O":
            return array
        text = next((each for each in array.flat if isinstance(each, str | bytes)), None)
        if text is not None:
            raise ValueError(f"{text!r} was given")
        return array.astype(float)
    except (TypeError, ValueError, OverflowError) as error:
        if str(error).startswith(f"{name}: "):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}; want real numbers") from error


def real(name: str, value: Any) -> None:
    """Raise unless the type of `value` is one of real numbers (or of booleans)."""
    dtype = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if getattr(dtype, "kind", "V") in "OSUMmc":
        raise ValueError(f"{name}: values of type {dtype} were given; want real numbers")


def finite(name: str, value: Any) -> None:
    """Raise if `value` holds a NaN or an infinity, and say where the first one is."""
    if is_traced(value) or (type(value) is float and math.isfinite(value)):
        return
    array = np.asarray(native(name, value))
    real(name, array)
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


def flag(name: str, value: Any) -> bool:
    """`value` as a Python boolean; raise unless it is one, for a text such as "no" counts as true in Python."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: {value!r} was given; want True or False")
    return bool(value)


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


def row_weights(name: str, value: Any, n: int) -> np.ndarray:
    """Weights of n rows as floats, `scaled`; raise unless they are (n,), finite, none below 0 and not all 0."""
    shape(name, value, (n,), "one for each row")
    not_negative(name, value)
    weights = np.asarray(value, float)
    if not weights.any():
        raise ValueError(f"{name}: all are 0; want at least one that is not zero")
    return np.asarray(scaled(weights))


def scaled(weights: Any) -> Any:
    """Weights over the largest, if their sum or all of them are far beyond what float32 holds; unchanged otherwise.

    Sums of weight * log density would overflow, or come to 0. What are no weights at all is left to other checks.
    """
    if weights is None or is_traced(weights):
        return weights
    array = np.asarray(weights)
    if array.dtype.kind not in "fiub" or not array.size:
        return weights
    array = array.astype(float)
    largest = array.max()
    with np.errstate(over="ignore"):
        held = largest >= _LEAST_WEIGHT and array.sum() <= _MOST_WEIGHT
    return weights if held or not 0 < largest < math.inf else array / largest


def check_weights(weights: Any, n: int) -> None:
    """Raise ValueError unless weights is (n,), finite, none below 0 and not all 0."""
    if is_traced(weights):
        shape("weights", weights, (n,), "one for each row")
    else:
        row_weights("weights", weights, n)
