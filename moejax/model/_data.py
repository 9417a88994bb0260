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
        The same structure. Several arrays have the highest precision among them.
    """

    def one(leaf: Any) -> jax.Array:
        array = on_device(leaf)
        return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)

    x = jax.tree.map(one, x)
    leaves = jax.tree.leaves(x)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(*leaves)), x) if len(leaves) > 1 else x


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

    They take no part in any sum; but numbers without meaning, as 1e20 for a missing value, would take the digits of others.

    Parameters
    ----------
    weights : jax.Array or numpy.ndarray, (n,), or None
        Weights of the rows. Under a trace they are not known, and rows stay what they are.
    *rows : pytrees of jax.Array or numpy.ndarray, or None
        Inputs, targets, offsets, with n leading.

    Returns
    -------
    tuple
        The same where no row has weight 0.
    """
    if weights is None or any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves((weights, rows))):
        return rows
    there = np.asarray(weights) > 0
    if there.all():
        return rows
    at = np.where(there, np.arange(len(there)), there.argmax())
    present: tuple[Any, ...] = jax.tree.map(lambda v: v[at] if v.ndim else v, rows)
    return present


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


def leaders(groups: Labels) -> Int[Array, " n"]:
    """Return the first row of each row's group.

    Parameters
    ----------
    groups : array_like, (n,)
        Labels of any value, traced or not.

    Returns
    -------
    jax.Array, (n,)
        Numbers of rows.
    """
    if not _checks.is_traced(groups):
        groups = _checks.native("groups", groups)
        _, rows, group = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
        return jnp.asarray(rows[group.ravel()], jnp.int32)
    traced: Any = groups  # an array
    order = jnp.argsort(traced, stable=True).astype(jnp.int32)  # rows of a group side by side, its first row first
    labels = traced[order]
    begins = jnp.concatenate([jnp.ones(1, bool), labels[1:] != labels[:-1]])
    first = jax.lax.cummax(jnp.where(begins, jnp.arange(len(order)), 0))
    return jnp.zeros_like(order).at[order].set(order[first])
