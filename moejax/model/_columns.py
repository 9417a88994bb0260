"""Which columns, or named arrays, of x a part sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np

from moejax import _checks

Columns: TypeAlias = tuple[int, ...] | tuple[str, ...] | str | None  # what a part sees of x


def column_tuple(name: str, columns: Any) -> Columns:
    """Columns as a name, a tuple, or None for all. Raises ValueError for none, or for some that are negative or repeated."""
    if columns is None or isinstance(columns, str):
        return columns
    given = _checks.array(name, columns)
    chosen = given.tolist() if given.ndim == 1 and given.dtype.kind in "iuU" else []
    if not chosen or len(set(chosen)) < len(chosen) or (given.dtype.kind != "U" and min(chosen) < 0):
        raise ValueError(
            f"{name}: {_checks.shown(columns)} was given; want at least one column index, none negative or repeated, "
            "or names in x"
        )
    return tuple(chosen)


def columns_of(name: str, x: Any, columns: Columns) -> Any:
    """The columns of x, or its arrays of these names, that a part sees."""
    if columns is None:
        return x
    if isinstance(columns, str):
        return _named(name, x, columns)
    if isinstance(columns[0], str):
        arrays = [_named(name, x, str(key)) for key in columns]
        return jnp.concatenate([array.reshape(array.shape[0], -1) for array in arrays], axis=1)
    _checks.shape("x", x, (None, None), f"an array, since {name} was given")
    if max(columns) >= x.shape[1]:
        raise ValueError(f"{name}: column {max(columns)} was given; want columns below {x.shape[1]}, those of x")
    return x[:, np.asarray(columns)]


def _named(name: str, x: Any, key: str) -> Any:
    if not isinstance(x, Mapping):
        raise ValueError(f"{name}: {key!r} was given, for an x that has no names; want x as a mapping from names to arrays")
    if key not in x:
        raise ValueError(f"{name}: {key!r} was given, which x does not have; want one of {sorted(x)}")
    return x[key]
