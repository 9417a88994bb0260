"""Values that no argument wants, by the kind of the argument.

`values(kind, right)` lists them for one argument. `right` is a value of that argument that is right: arrays and params are
spoilt from it. A value is `never` right if every function has to refuse it for this kind. Others may be taken at their value
or refused: a NumPy scalar for a number, an array of another shape where any shape serves.

A kind that ends in "?" takes None too.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

HUGE = 1e39  # beyond float32


class Value(NamedTuple):
    """One hostile value. never: whether no function may take it for this kind of argument."""

    label: str
    value: Any
    never: bool


class Raises:
    """Something like an array that cannot be read."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise RuntimeError("this array cannot be read")


class NoTruth:
    """Something that is neither true nor false, and equal to nothing."""

    __hash__ = None

    def __bool__(self) -> bool:
        raise RuntimeError("this object has no truth value")

    def __eq__(self, other: object) -> Any:
        raise RuntimeError("this object cannot be compared")


def deleted(array: Any) -> jax.Array:
    """An array of JAX whose memory was given back."""
    array = jnp.array(array)
    array.delete()
    return array


def structured(n: int = 2) -> np.ndarray:
    return np.zeros(n, [("a", float), ("b", int)])


def generator() -> Iterator[int]:
    yield from range(3)


# ---- of any kind ----------------------------------------------------------------------------------------------------

ANY: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: np.False_,
    "0": lambda: 0,
    "1": lambda: 1,
    "int64 1": lambda: np.int64(1),
    "0-d int": lambda: np.array(1),
    "0.5": lambda: 0.5,
    "float32 0.5": lambda: np.float32(0.5),
    "0-d 0.5": lambda: np.array(0.5),
    "JAX 0.5": lambda: jnp.array(0.5),
    "Decimal 0.5": lambda: Decimal("0.5"),
    "Fraction": lambda: Fraction(1, 2),
    "long double 0.5": lambda: np.longdouble(0.5),
    "2**31": lambda: 2**31,
    "2**40": lambda: 2**40,
    "10**400": lambda: 10**400,
    "1e39": lambda: HUGE,
    "-1": lambda: -1,
    "-1e39": lambda: -HUGE,
    "NaN": lambda: float("nan"),
    "0-d NaN": lambda: np.array(np.nan),
    "JAX NaN": lambda: jnp.array(jnp.nan),
    "Decimal NaN": lambda: Decimal("nan"),
    "infinity": lambda: float("inf"),
    "-infinity": lambda: -np.float32(np.inf),
    "complex": lambda: 0.5 + 0j,
    "0-d complex": lambda: np.array(1j),
    "JAX complex": lambda: jnp.array(1j),
    "text": lambda: "no such thing",
    "empty text": lambda: "",
    "text of a number": lambda: "1",
    "text of a boolean": lambda: "False",
    "text of NumPy": lambda: np.str_("0.5"),
    "0-d text": lambda: np.array("1"),
    "text with a null": lambda: "a\0b",
    "bytes": lambda: b"1",
    "date": lambda: datetime.date(2020, 1, 1),
    "datetime64": lambda: np.datetime64("2020-01-01"),
    "timedelta64": lambda: np.timedelta64(1, "D"),
    "object": object,
    "0-d object": lambda: np.array(object()),
    "0-d None": lambda: np.array(None),
    "no truth": NoTruth,
    "unreadable": Raises,
    "masked": lambda: np.ma.masked,
    "structured": structured,
    "0-d structured": lambda: structured()[0],
    "deleted": lambda: deleted(1.0),
    "deleted table": lambda: deleted(np.ones((3, 2))),
    "void": lambda: np.void(b"ab"),
    "empty list": list,
    "empty dict": dict,
    "empty tuple": tuple,
    "empty array": lambda: np.zeros(0),
    "list of a number": lambda: [1],
    "list of text": lambda: ["a"],
    "list of None": lambda: [None],
    "list of NaN": lambda: [float("nan")],
    "ragged list": lambda: [[1, 2], [3]],
    "nested list": lambda: [[[1]]],
    "dict": lambda: {"a": 1},
    "dict of None": lambda: {None: None},
    "dict of numbers": lambda: {0: 1.0, 1: 2.0},
    "set": lambda: {1, 2},
    "range": lambda: range(3),
    "generator": generator,
    "iterator": lambda: iter([1, 2]),
    "function": lambda: _function,
    "type": lambda: int,
    "module": lambda: datetime,
    "error": lambda: ValueError("a"),
    "ellipsis": lambda: ...,
    "not implemented": lambda: NotImplemented,
    "slice": lambda: slice(None),
    "memory": lambda: memoryview(b"abc"),
    "path": lambda: Path("/nowhere/at/all"),
    "key": lambda: jax.random.key(0),
    "raw key": lambda: jax.random.PRNGKey(0),
    "keys": lambda: jax.random.split(jax.random.key(0), 2),
    "raw keys": lambda: jax.random.split(jax.random.PRNGKey(0), 2),
    "shape": lambda: jax.ShapeDtypeStruct((), np.float32),
}


def _function(*_: Any) -> Any:
    return None


_FLOATS = {"0.5", "float32 0.5", "0-d 0.5", "JAX 0.5", "Decimal 0.5", "Fraction", "long double 0.5"}
_COUNTS = {"1", "int64 1"}
_NUMBERS = {"True", "False", "0", "1", "int64 1", "0-d int", *_FLOATS, "2**31", "2**40", "1e39"}
_TEXTS = {"text", "empty text", "text of a number", "text of a boolean", "text of NumPy", "text with a null"}
_FILES = {"text", "text of a number", "text of a boolean", "text of NumPy", "path"}
_LISTS = {"empty list", "empty tuple", "empty array", "list of a number", "range", "raw key"}

# What each kind may take.
KINDS: dict[str, set[str]] = {
    "anything": set(ANY),
    "array": set(),
    "spread": {"raw key", "raw keys"},  # an array of which every shape may serve
    "offset": {*_NUMBERS, "-1"} - {"1e39"},  # like y, or one number
    "row weights": {*_NUMBERS, "2**31", "2**40", "0-d int"},  # of all rows, or one number for each of them
    "labels": set(),  # of rows, of any type
    "drawn": {"raw key", "raw keys", "range"},  # what a figure leaves out where it is not finite
    "levels": {*_FLOATS, "list of a number", "raw key", "raw keys"},  # numbers between 0 and 1, one or several
    "like": {"raw key", "raw keys"},  # an array whose numbers do not matter
    "axes": set(),
    "ax": set(),
    "callable": {"function"},
    "classes": set(),  # labels of any type
    "columns": {*_LISTS, "list of text", "ragged list", *_TEXTS},
    "count": _COUNTS,
    "devices": set(),
    "estimators": set(),
    "flag": {"True", "False"},
    "folder": _FILES,
    "folds": {*_COUNTS, "0-d int"},
    "grid": {*_NUMBERS, *_LISTS, "nested list", "raw key", "raw keys"},  # numbers of any shape
    "hyper": {"empty dict"},
    "hyper grid": {"empty dict"},
    "index": {"0", *_COUNTS},
    "position": {"0", "-1", *_COUNTS},
    "key": {"key", "raw key"},
    "list": {"raw keys", *_LISTS, "nested list", "ragged list"},
    "models": set(),
    "name": set(),
    "names": {"list of text", "range", "list of a number", "raw key"},
    "numbers": {"empty dict", "dict of numbers", "dict"},
    "number": _NUMBERS,
    "params": set(),
    "part params": set(),
    "part": set(),
    "parts": {"empty list", "empty tuple"},
    "real": {*_NUMBERS, "-1", "-1e39"},
    "range": {"range"},  # an array of three numbers
    "scale": _NUMBERS - {"1e39", "2**31", "2**40"},  # a number that is used in the type of x
    "start": set(),  # responsibilities, or a function of x
    "status": {"True", "False", "0", "0-d int", "2**31", *_COUNTS},
    "seed": {"0", "1", "int64 1", "2**31", "2**40", "10**400"},
    "sklearn seed": {"0", "1", "int64 1", "0-d int", "2**31"},
    "text": _TEXTS,
    "tree": _LISTS,
}


def values(kind: str, right: Any) -> Iterator[Value]:
    """The hostile values of an argument of that kind."""
    kind, optional = kind.removesuffix("?"), kind.endswith("?")
    allowed = KINDS[kind] | ({"None"} if optional else set())
    for label, make in ANY.items():
        if kind not in ("callable", "start") or label != "type":  # which can be called, and fails by itself
            yield Value(label, make(), label not in allowed)
    if kind in ARRAYS:
        yield from spoilt_arrays(np.asarray(right), kind)
    elif kind == "params":
        yield from spoilt_params(right)
    elif kind in ("part params", "numbers"):
        yield from spoilt_leaves(right, kind == "part params")
    elif kind in SPOILT:
        for label, value in SPOILT[kind]():
            yield Value(label, value, True)


# ---- arrays ---------------------------------------------------------------------------------------------------------


# Kinds of arrays, and whether only one shape will do.
ARRAYS = {
    **dict.fromkeys(("array", "labels", "offset", "range", "row weights", "start"), True),
    **dict.fromkeys(("classes", "drawn", "levels", "like", "spread"), False),
}


_NAN = ("classes", "labels", "like", "drawn")  # kinds of which a NaN is no error


def spoilt_arrays(array: np.ndarray, kind: str) -> Iterator[Value]:
    """Arrays made of one that is right."""
    for label, spoil in NEVER.items():
        yield Value(label, spoil(array), kind not in _NAN or (kind in ("like", "drawn") and label not in NUMBERS))
    for label, spoil in SHAPES.items():
        value = spoil(array)
        free = not ARRAYS[kind] or np.shape(value) == (() if kind in ("offset", "row weights") else array.shape)
        yield Value(label, value, not free)
    for label, spoil in TAKEN.items():
        yield Value(label, spoil(array), False)


def _with(array: np.ndarray, value: Any, dtype: Any = float) -> np.ndarray:
    """The array in another type with one entry replaced."""
    changed = array.astype(dtype)
    changed.flat[changed.size // 2] = value
    return changed


def _objects(array: np.ndarray, value: Any) -> np.ndarray:
    return _with(array, value, object)


NEVER: dict[str, Callable[[np.ndarray], Any]] = {
    "with NaN": lambda a: _with(a, np.nan),
    "with infinity": lambda a: _with(a, np.inf),
    "with -infinity": lambda a: _with(a, -np.inf),
    "of JAX with NaN": lambda a: jnp.asarray(_with(a, np.nan)),
    "list with NaN": lambda a: _with(a, np.nan).tolist(),
    "complex array": lambda a: a * 1j,
    "complex array of JAX": lambda a: jnp.asarray(a) * 1j,
    "list of complex": lambda a: (a * 1j).tolist(),
    "array of text": lambda a: a.astype(str),
    "list of texts": lambda a: a.astype(str).tolist(),
    "array of bytes": lambda a: a.astype("S"),
    "array of dates": lambda a: np.abs(a).astype(int).astype("M8[D]"),
    "array of days": lambda a: np.abs(a).astype(int).astype("m8[D]"),
    "list of dates": lambda a: np.full(a.shape, datetime.date(2020, 1, 1), object).tolist(),
    "objects with None": lambda a: _objects(a, None),
    "objects with text": lambda a: _objects(a, "1"),
    "objects with a list": lambda a: _objects(a, "a").astype(object) if a.ndim == 0 else _with_list(a),
    "objects with complex": lambda a: _objects(a, 1j),
    "list with None": lambda a: _objects(a, None).tolist(),
    "list with 10**400": lambda a: _objects(a, 10**400).tolist(),
    "masked array": lambda a: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == a.size // 2),
    "structured array": lambda a: np.zeros(a.shape, [("a", float)]),
    "void array": lambda a: np.zeros(a.shape, "V4"),
    "deleted array": deleted,
    "ragged": lambda a: [[1.0], *a.tolist()] if a.ndim == 1 else [*a.tolist(), [1.0, [2.0]]],
    "in a dict of text": lambda a: {"a": "b"},
    "keys of that shape": lambda a: jax.random.split(jax.random.key(0), a.shape),
    "shape alone": lambda a: jax.ShapeDtypeStruct(a.shape, np.float32),
}


def _with_list(array: np.ndarray) -> np.ndarray:
    changed = array.astype(object)
    changed[(0,) * array.ndim] = [1.0, 2.0]
    return changed


NUMBERS = ("with NaN", "with infinity", "with -infinity", "of JAX with NaN", "list with NaN")

SHAPES: dict[str, Callable[[np.ndarray], Any]] = {
    "a number of it": lambda a: a.flat[0],
    "no rows": lambda a: a[:0],
    "one row less": lambda a: a[:-1],
    "one row more": lambda a: np.concatenate([a, a[:1]]),
    "one row alone": lambda a: a[0],
    "first row": lambda a: a[:1],
    "one axis more": lambda a: a[..., None],
    "one axis before": lambda a: a[None],
    "two axes more": lambda a: a[..., None, None],
    "transposed": lambda a: a.T if a.ndim > 1 else np.stack([a, a]),
    "one column less": lambda a: a[..., :-1],
    "two columns more": lambda a: np.concatenate([a, a[..., :2]], axis=-1),
}

TAKEN: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()),
    "of JAX": jnp.asarray,
    "long double": lambda a: a.astype(np.longdouble),
    "float64": lambda a: a.astype(float),
    "objects": lambda a: a.astype(object),
    "Decimal objects": lambda a: np.array([Decimal(repr(float(v))) for v in a.flat], object).reshape(a.shape),
    "other bytes": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "Fortran": np.asfortranarray,
    "backwards": lambda a: a[::-1].copy()[::-1],
    "read-only": lambda a: _read_only(a),
    "matrix": lambda a: np.asmatrix(a) if a.ndim == 2 else a,
    "mask without entries": lambda a: np.ma.masked_array(a),
    "NumPy's booleans": lambda a: a > np.median(a),
    "uint8": lambda a: np.abs(a).astype(np.uint8),
    "with 1e39": lambda a: _with(a, HUGE),
    "with -0.0": lambda a: _with(a, -0.0),
    "with 1e-45": lambda a: _with(a, 1e-45),
}


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


# ---- params and others ----------------------------------------------------------------------------------------------


def spoilt_params(params: Any) -> Iterator[Value]:
    """Params with a part or an array that is not theirs."""
    first = next(name for name in params if params[name])
    for part in params:
        yield Value(f"without {part}", {name: own for name, own in params.items() if name != part}, True)
        for label, value in (("None", None), ("text", "a"), ("a list", []), ("a number", 1.0)):
            yield Value(f"{part} as {label}", {**params, part: value}, True)
    for label, part, never in spoilt_leaves(params[first]):
        yield Value(label, {**params, first: part}, never)


def spoilt_leaves(part: Any, fixed: bool = True) -> Iterator[Value]:
    """The params of one part, without an array, or with one that is not theirs. fixed: whether only their shapes will do.

    Numbers that are not finite are no error: a fit that diverged has them, and its status says so.
    """
    for name, leaf in part.items():
        yield Value(f"without {name}", {other: own for other, own in part.items() if other != name}, fixed)
        array = np.asarray(leaf)
        for label, spoil in {**NEVER, **SHAPES}.items() if array.ndim else ():
            value = spoil(array)
            same = label in SHAPES and np.shape(value) == array.shape
            if label not in NUMBERS and not same:
                yield Value(f"{name} {label}", {**part, name: value}, fixed or label in NEVER)


def _spoilt_axes() -> Iterator[tuple[str, Any]]:
    for name in ("l1_experts", "restart", "fold", "bootstrap", "n_experts", "division"):
        for label, make in ANY.items():
            if name not in AXES or label not in AXES[name]:
                yield f"{name}: {label}", {name: make()}
    for label, names in (("unknown", "no such axis"), ("number", 1), ("none", None), ("tuple", ())):
        yield f"axis of {label} name", {names: [0.1]}


# What an axis takes.
AXES = {
    "l1_experts": {*_LISTS, "set", "dict of numbers", "iterator", "generator"},
    "restart": {*_COUNTS, *_LISTS, "set", "iterator", "generator", "dict of numbers"},
    "fold": {*_LISTS, "set", "iterator", "generator", "dict of numbers"},
    "bootstrap": {*_COUNTS, *_LISTS, "set", "iterator", "generator", "dict of numbers"},
    "n_experts": {"list of a number", "iterator", "generator", "set"},
    "division": {"nested list"},
}


def _spoilt_hyper(more: Iterable[str] = ()) -> Iterator[tuple[str, Any]]:
    for name in ("l1_experts", "restart", "n_experts"):
        taken = {"l1_experts": KINDS["scale"], "restart": {"0", "1", "int64 1", "0-d int"}}.get(name, {"1", "int64 1"})
        for label, make in ANY.items():
            if label not in {*taken, *KINDS["number"], *more}:
                yield f"{name}: {label}", {name: make()}
    for label, names in (("unknown", "no such field"), ("number", 1), ("none", None), ("tuple", ())):
        yield f"field of {label} name", {names: 0.1}


def _spoilt_grid() -> Iterator[tuple[str, Any]]:
    return _spoilt_hyper(KINDS["grid"])


SPOILT: dict[str, Callable[[], Iterator[tuple[str, Any]]]] = {
    "axes": _spoilt_axes,
    "hyper": _spoilt_hyper,
    "hyper grid": _spoilt_grid,
}
