"""Checks of what a user passes in: each raises one error that names the argument, what was given and what is wanted.

They run on the host, before anything compiles. Values that are traced (inside `jit` or `vmap`) have no numbers to look
at; their shapes are checked and their values left to the status flags of a fit.

Whatever a value may be, `array` is what makes an array of it, and `shown` what shows it in an error. All other checks go
through these two, so that none of them raises an error from inside NumPy or JAX.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_LEAST_WEIGHT, _MOST_WEIGHT = 1e-18, 1e18  # of the largest weight and of the sum: squares of both are numbers in float32
_MOST_SHOWN = 300  # characters of a value in an error
MOST = 2**31 - 1  # JAX counts in 32 bits
_OLD_KEYS = ((2,), (4,))  # shapes of keys as plain numbers
MOST_MADE = 2**24  # values that a number of values stands for, and float32 tells apart
MOST_SEED = 2**128 - 1  # as many bits as NumPy draws for one of its own


def is_traced(value: Any) -> bool:
    """Whether `value` stands for an array of a program under compilation, and so has a shape but no numbers."""
    jax = sys.modules.get("jax")  # this module serves NumPy code too, and must not be what imports JAX
    return jax is not None and isinstance(value, jax.core.Tracer)


def _is_deleted(value: Any) -> bool:
    """Whether `value` is an array of JAX without memory, as one that was donated."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array) and not is_traced(value) and value.is_deleted()


def shown(value: Any) -> str:
    """`value` as an error shows it: in Python's words, cut where they are long."""
    try:
        text = repr(value)
    except Exception:  # a deleted array, a number of more digits than Python prints, an object of the user's own
        return f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


# ---- arrays ---------------------------------------------------------------------------------------------------------


def native(name: str, value: Any) -> Any:
    """`value`, of NumPy as a plain array that JAX reads right; raise if entries are masked, or if the array is deleted.

    Compiled code reads the bytes of an array as they lie, and would take those of another order for other numbers. It has
    no long doubles, which become float64.
    """
    if not isinstance(value, np.ndarray):
        if _is_deleted(value):
            raise ValueError(f"{name}: a deleted array was given, as one that was donated; want one that is still there")
        return value.astype(float) if isinstance(value, np.longdouble) else value
    if np.ma.is_masked(value):
        raise ValueError(
            f"{name}: a masked array was given; want a number in every place, and weights of 0 for rows to leave out"
        )
    array = np.asarray(value)
    if array.dtype.char == "g":
        return array.astype(float)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def array(name: str, value: Any) -> np.ndarray:
    """`value` as an array of NumPy, of whatever type; raise if it is none, as a ragged list is."""
    value = native(name, value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise ValueError(f"{name}: {shown(value)} was given; want an array of numbers")
    try:
        return np.asarray(value)
    except Exception as error:  # what an object's own conversion raises may be anything
        text = str(error).split("\n")[0]
        given = f"a {type(value).__name__} was given that is no array ({text})"
        raise ValueError(f"{name}: {given}; want an array of numbers") from error


def shape_of(name: str, value: Any) -> tuple[int, ...]:
    """The shape of what is or becomes an array; raise if it is none."""
    given = getattr(value, "shape", None)
    return given if isinstance(given, tuple) else array(name, value).shape


def shape(name: str, value: Any, want: tuple[int | None, ...], meaning: str = "") -> None:
    """Raise unless `value` has the shape `want`, in which None stands for any size."""
    given = shape_of(name, value)
    if len(given) != len(want) or any(w is not None and g != w for g, w in zip(given, want, strict=True)):
        wanted = "(" + ", ".join("any" if w is None else str(w) for w in want) + ("," if len(want) == 1 else "") + ")"
        raise ValueError(f"{name}: shape {given} was given; want {wanted}{', ' + meaning if meaning else ''}")


def of_objects(name: str, value: Any) -> np.ndarray:
    """`array`, and an array of Python objects that are numbers as floats; raise where one is no number.

    For what scikit-learn takes too: columns of pandas and of databases come as objects, as of `decimal.Decimal`.
    """
    given = array(name, value)
    if given.dtype.kind != "O":
        return given
    try:
        text = next((each for each in given.flat if isinstance(each, str | bytes)), None)
        if text is not None:
            raise ValueError(f"{text!r} was given")
        return given.astype(float)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}; want real numbers") from error


def is_real(dtype: Any) -> bool:
    """Whether a type of NumPy's, or one that JAX adds to them, is of real numbers or booleans."""
    if not isinstance(dtype, np.dtype):
        return False
    return dtype.kind in "biuf" or (dtype.kind == "V" and dtype.type is not np.void)  # as bfloat16, which has this kind


def real(name: str, value: Any) -> None:
    """Raise unless the type of `value` is one of real numbers (or of booleans)."""
    dtype = getattr(value, "dtype", None)
    if not _is_key_type(dtype) and not (isinstance(dtype, np.dtype) and hasattr(value, "__array__")):
        dtype = array(name, value).dtype
    if not is_real(dtype):
        alone = getattr(dtype, "kind", "V") in "OSU" and not np.ndim(value)
        given = f"{shown(value)} was" if alone else f"values of type {dtype} were"
        raise ValueError(f"{name}: {given} given; want real numbers")


def finite(name: str, value: Any) -> None:
    """Raise if `value` holds a NaN or an infinity, and say where the first one is."""
    if is_traced(value) or (type(value) is float and math.isfinite(value)):
        return
    given = array(name, value)
    real(name, given)
    bad = ~np.isfinite(given)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name}: {int(bad.sum())} of {given.size} values are NaN or infinite, the first at index {first}; "
            "want finite numbers"
        )


def within(name: str, value: Any, dtype: Any) -> None:
    """Raise if a number in `value` is beyond what a floating-point type of JAX holds, in which it is to be used."""
    if is_traced(value) or np.dtype(dtype).itemsize >= 8:
        return
    given, jax = array(name, value), sys.modules["jax"]
    largest = float(jax.numpy.finfo(dtype).max)
    beyond = np.abs(given.astype(float, copy=False)) > largest
    if beyond.any():
        worst = given[beyond].flat[0]
        raise ValueError(f"{name}: {worst} was given, which is beyond {dtype}; want at most {largest:.3g}, or float64")


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


def leaf(name: str, params: Any, key: str) -> np.ndarray:
    """The array of that name in the params of a part; raise ValueError where there is none of real numbers."""
    if not isinstance(params, dict) or key not in params:
        given = f"a dict of {sorted(map(str, params))}" if isinstance(params, dict) else shown(params)
        raise ValueError(f"{name}: {given} was given; want the params of this part, with {key!r}")
    found = array(f"{name}[{key!r}]", params[key])
    real(f"{name}[{key!r}]", found)
    return found


def present(name: str, value: Any) -> None:
    """Raise ValueError for None, where something is wanted."""
    if value is None:
        raise ValueError(f"{name}: None was given; want values for all rows")


def row_weights(name: str, value: Any, n: int) -> np.ndarray:
    """Weights of n rows as floats, `scaled`; raise unless they are (n,), finite, none below 0 and not all 0."""
    shape(name, value, (n,), "one for each row")
    not_negative(name, value)
    weights = np.asarray(value, float)
    if not weights.any():
        raise ValueError(f"{name}: all are 0; want at least one that is not zero")
    return np.asarray(scaled(weights, name))


def scaled(weights: Any, name: str = "weights") -> Any:
    """Weights over the largest, if their sum or all of them are far beyond what float32 holds; unchanged otherwise.

    Sums of weight * log density would overflow, or come to 0. What are no weights at all is left to other checks.
    """
    if weights is None or is_traced(weights):
        return weights
    given = array(name, weights)
    if given.dtype.kind not in "fiub" or not given.size:
        return weights
    given = given.astype(float)
    largest = given.max()
    with np.errstate(over="ignore"):
        held = largest >= _LEAST_WEIGHT and given.sum() <= _MOST_WEIGHT
    return weights if held or not 0 < largest < math.inf else given / largest


def check_weights(weights: Any, n: int) -> None:
    """Raise ValueError unless weights is (n,), finite, none below 0 and not all 0."""
    if is_traced(weights):
        shape("weights", weights, (n,), "one for each row")
    else:
        row_weights("weights", weights, n)


# ---- one number -----------------------------------------------------------------------------------------------------


def number(name: str, value: Any) -> float:
    """`value` as a float, exact or to its last digit; raise unless it is one real, finite number."""
    shape(name, value, (), "one number")
    finite(name, value)
    return float(value)


def number_above_0(name: str, value: Any) -> float:
    """`value` as a float; raise unless it is one finite number above 0."""
    shape(name, value, (), "one number")
    positive(name, value)
    return float(value)


def number_from_0(name: str, value: Any) -> float:
    """`value` as a float; raise unless it is one finite number of at least 0."""
    shape(name, value, (), "one number")
    not_negative(name, value)
    return float(value)


def flag(name: str, value: Any) -> bool:
    """`value` as a Python boolean; raise unless it is one, for a text such as "no" counts as true in Python."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}: {shown(value)} was given; want True or False")
    return bool(value)


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer of Python's or NumPy's; a boolean and a span of time are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool | np.timedelta64)


def count(name: str, value: Any, least: int = 1, most: int = MOST) -> int:
    """`value` as a Python integer; raise unless it is a whole number from `least` to `most`."""
    if not is_whole(value) or not least <= value <= most:
        wanted = f"at most {most}" if is_whole(value) and value > most else f"at least {least}"
        raise ValueError(f"{name}: {shown(value)} was given; want a whole number of {wanted}")
    return int(value)


def whole(name: str, value: Any, least: int, most: int) -> None:
    """Raise unless every number in `value` is whole and from `least` to `most`."""
    if isinstance(value, int) and least <= value <= most:
        return
    finite(name, value)
    if is_traced(value):
        return
    numbers = np.asarray(value)
    if (numbers % 1 != 0).any() or (numbers < least).any() or (numbers > most).any():
        raise ValueError(f"{name}: {shown(value)} was given; want whole numbers from {least} to {most}")


# ---- keys, functions, names -----------------------------------------------------------------------------------------


def _is_key_type(dtype: Any) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def key(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is one key of JAX, of the new kind or of the old one."""
    import jax

    wanted = "one key, as from jax.random.key(0)"
    native(name, value)
    dtype, given = getattr(value, "dtype", None), getattr(value, "shape", None)
    if not isinstance(value, jax.Array | np.ndarray):
        raise ValueError(f"{name}: {shown(value)} was given; want {wanted}")
    if not _is_key_type(dtype) and dtype != np.uint32:
        raise ValueError(f"{name}: an array of type {dtype} was given; want {wanted}")
    if given not in ([()] if _is_key_type(dtype) else _OLD_KEYS):
        raise ValueError(f"{name}: an array of shape {given} was given, as of several keys; want {wanted}")


def functions(**named: Any) -> None:
    """Raise ValueError unless all arguments of these names can be called."""
    for name, value in named.items():
        if not callable(value):
            raise ValueError(f"{name}: {shown(value)} was given; want a function")


def choice(name: str, value: Any, wanted: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of some texts."""
    if not isinstance(value, str) or value not in wanted:
        raise ValueError(f"{name}: {shown(value)} was given; want one of {list(wanted)}")


def text(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a text."""
    if not isinstance(value, str):
        raise ValueError(f"{name}: {shown(value)} was given; want a text")


def texts(**named: Any) -> None:
    """Raise ValueError unless all arguments of these names are texts."""
    for name, value in named.items():
        text(name, value)


def names(name: str, value: Any, size: int, meaning: str) -> list[str]:
    """`value` as a list of texts; raise ValueError unless it is a sequence of `size` texts, or of whole numbers."""
    given = sequence(name, value, f"a sequence of {size} texts, {meaning}")
    if len(given) != size:
        raise ValueError(f"{name}: {len(given)} names were given; want {size}, {meaning}")
    for each in given:
        if isinstance(each, bool) or not isinstance(each, str | int | np.integer):
            raise ValueError(f"{name}: {shown(each)} was given among them; want texts")
    return [str(each) for each in given]


def path(name: str, value: Any, wanted: str = "a path") -> Path:
    """`value` as a path; raise ValueError unless it is a text, or something of the kind, that may be one."""
    given = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(given, str) or not given or "\0" in given:
        raise ValueError(f"{name}: {shown(value)} was given; want {wanted}")
    return Path(given)


def sequence(name: str, value: Any, wanted: str) -> Sequence[Any]:
    """`value`, an array as a list; raise ValueError unless it is a list, a tuple or an array, and no text."""
    if hasattr(value, "__array__"):  # also an index of pandas
        value = array(name, value).tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray | memoryview):
        raise ValueError(f"{name}: {shown(value)} was given; want {wanted}")
    return value
