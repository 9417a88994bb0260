"""What a model is given: inputs as its parts see them, targets, and groups of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from moejax import _checks
from moejax._arrays import Features, Labels, OffsetLike, Outputs, RandomKey, Scalar, Tree

PARTS = ("experts", "gate", "family")


class Inputs(NamedTuple):
    """Inputs as experts and gate want them, each part's `prepare` applied to its columns.

    Attributes
    ----------
    expert : pytree
        What the experts see.
    gate : pytree
        What the gate sees.
    """

    expert: Tree
    gate: Tree


class Data(NamedTuple):
    """What a loss sees.

    Attributes
    ----------
    x : Inputs
        Prepared inputs.
    y : jax.Array, (n,) or (n, m)
        Targets.
    offset : jax.Array or None, like y
        Added to every expert's predictor.
    leader : jax.Array or None, (n,)
        The first row of each row's group, where all rows of a group share their expert.
    total : jax.Array or None, ()
        The total weight of the rows, by which a mean over them divides what is added once for all of them. None for the
        number of rows.
    division : jax.Array or None, (K, n)
        Responsibilities that are held, for a loss that is `complete`.
    key : jax.Array or None
        For gates that are noisy in training, another one at each step.
    hyper : mapping or None
        The numbers of the fit by name, of which a loss reads its own.
    """

    x: Inputs
    y: Outputs
    offset: OffsetLike | None = None
    leader: Int[Array, " n"] | None = None
    total: Scalar | None = None
    division: Float[Array, "K n"] | None = None
    key: RandomKey | None = None
    hyper: Mapping[str, Num[Array, ""] | float] | None = None

    @property
    def size(self) -> Scalar | int:
        """The total weight of the rows."""
        return self.y.shape[0] if self.total is None else self.total


def floating(x: Features) -> Tree:
    """Return the arrays of x as JAX arrays of floating-point numbers.

    Parameters
    ----------
    x : array_like or pytree
        Inputs.

    Returns
    -------
    jax.Array or pytree
        The same structure, of float32 or float64. Several arrays have the highest precision among them.
    """

    def one(leaf: Any) -> jax.Array:
        whole = type(leaf) is np.ndarray and leaf.dtype.kind in "biu"  # of which JAX may have fewer bits
        array: jax.Array = widened(on_device(leaf, float if whole else None))
        return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)

    x = jax.tree.map(one, x)
    leaves = jax.tree.leaves(x)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(*leaves)), x) if len(leaves) > 1 else x


def widened(array: Any) -> Any:
    """Return numbers of float16, bfloat16 and narrower types as float32.

    Sums over rows, and solutions of linear systems, have hardly a correct digit in fewer bits.

    Parameters
    ----------
    array : jax.Array or numpy.ndarray
        An array of any type.

    Returns
    -------
    jax.Array or numpy.ndarray
        The array itself if it has another type.
    """
    is_narrow = jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4
    return array.astype(np.float32) if is_narrow else array


def on_device(value: Any, dtype: Any = None) -> jax.Array:
    """Return an array of JAX; what NumPy holds gets there without a program, which `jnp.asarray` compiles for each shape.

    Parameters
    ----------
    value : array_like
        The array.
    dtype : dtype or None, default None
        Its type there; None for its own.

    Returns
    -------
    jax.Array
        The array.
    """
    if hasattr(value, "__array__") and not isinstance(value, jax.Array):  # also a column of pandas
        value = _checks.native("array", np.asanyarray(value))
    if type(value) is not np.ndarray or value.dtype.kind not in "biuf":
        return jnp.asarray(value, dtype)
    wanted = jax.dtypes.canonicalize_dtype(value.dtype if dtype is None else dtype)
    array: jax.Array = jax.device_put(np.asarray(value, wanted), may_alias=False)
    return array


def native(name: str, tree: Any) -> Any:
    """Return a pytree with NumPy's arrays in the byte order of this machine.

    Parameters
    ----------
    name : str
        What errors call it.
    tree : pytree
        Anything that may hold arrays.

    Returns
    -------
    pytree
        The same structure.

    Raises
    ------
    ValueError
        If entries of an array are masked.
    """
    return jax.tree.map(lambda leaf: _checks.native(name, leaf), tree)


def without_absent(weights: Any, *rows: Any) -> tuple[Any, ...]:
    """Return rows of which those of weight 0 hold what the first other one holds.

    A row of weight 0 is absent, so it may hold anything: NaN, 1e20 for a missing value, a target that the family cannot
    have. Checks then see present rows alone, and no sum loses digits to absent ones.

    Parameters
    ----------
    weights : array_like or None, (n,)
        Weights of the rows. Under a trace they are not known, and rows stay what they are.
    *rows : pytrees of array_like, or None
        Inputs, targets, offsets, with n leading. What has another number of rows is left to checks.

    Returns
    -------
    tuple
        The same where no row has weight 0.
    """
    if weights is None or any(_checks.is_traced(v) for v in jax.tree.leaves((weights, rows))):
        return rows
    numbers = np.asarray(weights)
    if numbers.ndim != 1 or numbers.dtype.kind not in "fiub":
        return rows
    there = numbers.astype(np.float32) > 0  # less than that beside others is 0 in any type
    if there.all() or not there.any():
        return rows
    at = np.where(there, np.arange(len(there)), there.argmax())

    def present(leaf: Any) -> Any:
        if np.shape(leaf)[:1] != there.shape:
            return leaf
        return (leaf if isinstance(leaf, jax.Array) else np.asarray(leaf))[at]

    # A target or an offset that is a list is one array, and no pytree of numbers.
    return tuple(present(row) if isinstance(row, list) else jax.tree.map(present, row) for row in rows)


def is_table(x: Any) -> bool:
    """Return whether x is an array (n, d).

    Parameters
    ----------
    x : object
        Inputs.

    Returns
    -------
    bool
        True for an array of two dimensions.
    """
    return np.ndim(x) == 2 if hasattr(x, "ndim") else False


def group_numbers(groups: Any, weights: Any = None) -> Any:
    """Return a whole number for each row's group, of labels of any type.

    Parameters
    ----------
    groups : sequence or None, (n,)
        A label for each row: numbers, text, dates, categories of pandas, tuples, or any other objects that have a hash.
        Equal labels are one group.
    weights : array_like or None, (n,), default None
        Weights of the rows. A row of weight 0 is absent: it is in no group with others, and needs no label.

    Returns
    -------
    numpy.ndarray of int, (n,), or jax.Array, or None
        Numbers. An array that is traced is returned as it is, and None for None.

    Raises
    ------
    ValueError
        If entries are masked, there is not one label for each row, or a label is missing (None, NaN, NaT) or has no hash.
    """
    if groups is None or _checks.is_traced(groups):
        return groups
    labels = _labels(_checks.native("groups", groups))
    _checks.shape("groups", labels, (None,), "the group of each row")
    n = len(labels)
    weighted = np.shape(weights) == (n,) and not _checks.is_traced(weights)
    absent = np.asarray(weights) == 0 if weighted else np.zeros(n, bool)
    if labels.dtype.kind in "iu":
        return labels if not absent.any() else np.where(absent, n + np.arange(n), np.unique(labels, return_inverse=True)[1])
    found: dict[Any, int] = {}
    numbers = n + np.arange(n)
    for row, label in enumerate(labels.tolist()):
        if not absent[row]:
            _check_label(row, label)
            numbers[row] = found.setdefault(label, len(found))
    return numbers


def _labels(groups: Any) -> np.ndarray:
    """Labels as an array; the pairs in a list of pairs are labels, of which NumPy alone would make an array (n, 2)."""
    if not isinstance(groups, list | tuple) or all(isinstance(label, int | np.integer) for label in groups):
        return _checks.array("groups", groups)
    labels = np.empty(len(groups), object)
    labels[:] = groups
    return labels


def _check_label(row: int, label: Any) -> None:
    """Raise ValueError for a label that is missing, or that cannot be looked up."""
    try:
        hash(label)
        missing = label is None or not bool(label == label)
    except (TypeError, ValueError):  # pandas.NA has a hash, and is neither equal to itself nor not
        missing = True
    if missing:
        raise ValueError(f"groups: row {row} has the label {label!r}; want one that has a hash, and none missing")


def leaders(groups: Labels) -> Int[Array, " n"]:
    """Return the first row of each row's group.

    Parameters
    ----------
    groups : array_like, (n,)
        Labels as `group_numbers` takes them.

    Returns
    -------
    jax.Array, (n,)
        Numbers of rows.
    """
    groups = group_numbers(groups)
    if not _checks.is_traced(groups):
        _, rows, group = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        return jnp.asarray(rows[group.ravel()], jnp.int32)
    traced: Any = groups  # an array
    order = jnp.argsort(traced, stable=True).astype(jnp.int32)  # rows of a group side by side, its first row first
    labels = traced[order]
    begins = jnp.concatenate([jnp.ones(1, bool), labels[1:] != labels[:-1]])
    first = jax.lax.cummax(jnp.where(begins, jnp.arange(len(order)), 0))
    return jnp.zeros_like(order).at[order].set(order[first])
