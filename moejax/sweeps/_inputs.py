"""Inputs that all members of a sweep share: arrays, and the folds of the rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._checks import check_weights
from moejax._rows import padded_size
from moejax.model import floating, leaders, on_device
from moejax.solvers import check_groups, check_key
from moejax.sweeps._axes import ROW_AXES

STREAMS = {"fold": 0x666F6C64, "bootstrap": 0x626F6F74}  # streams of the key that no fit uses


class Inputs(NamedTuple):
    """Inputs that all members of a sweep share.

    Attributes
    ----------
    key : jax.Array
        Key of all random draws.
    x : pytree of arrays
        Inputs, rows first.
    y : array or None
        Targets, (n,) or (n, m).
    weights : array, (n,), or None
        Case weights.
    offset : array or None
        Offset of the linear predictors.
    start : pytree or None
        Start of a fit; with the axis `division`, responsibilities (D, n, K).
    fold_of_row : array of int, (n,), or None
        The fold in which each row is held out; -1 for rows that are never held out.
    leader : array of int, (n,), or None
        The first row of each row's group.
    inner : array or None
        Values of the axis that the fit takes all at once.
    """

    key: jax.Array
    x: Any
    y: Any
    weights: Any = None
    offset: Any = None
    start: Any = None
    fold_of_row: Any = None
    leader: Any = None
    inner: Any = None


def padded(fit: Any, inputs: Inputs) -> Inputs:
    """Pad the rows to a size that other tables share, so that their programs do for these inputs as well.

    Parameters
    ----------
    fit : callable
        The fit. If its `takes_padding` is not true, the inputs are returned as they are.
    inputs : Inputs
        Inputs from `as_inputs`.

    Returns
    -------
    Inputs
        Inputs with copies of the first row of weight 0, in a group of their own, in no fold.
    """
    if not getattr(fit, "takes_padding", False):
        return inputs
    n = inputs.y.shape[0]
    more = padded_size(n) - n

    # By NumPy, for JAX would compile each of these for each number of rows.
    def pad(leaf: Any, axis: int = 0) -> Any:
        leaf = np.asarray(leaf)
        return np.concatenate([leaf, np.take(leaf, np.zeros(more, int), axis=axis)], axis=axis)

    weights = np.ones(n, inputs.y.dtype) if inputs.weights is None else np.asarray(inputs.weights)
    start = inputs.start
    if start is not None and not isinstance(start, dict):
        start = pad(start, np.ndim(start) - 2)
    own = np.arange(n, n + more, dtype=np.int32)
    return inputs._replace(
        x=jax.tree.map(pad, inputs.x),
        y=pad(inputs.y),
        weights=np.concatenate([weights, np.zeros(more, weights.dtype)]),
        offset=None if inputs.offset is None else pad(inputs.offset),
        start=start,
        fold_of_row=None if inputs.fold_of_row is None else np.concatenate([np.asarray(inputs.fold_of_row), own * 0 - 1]),
        leader=None if inputs.leader is None else np.concatenate([np.asarray(inputs.leader), own]),
    )


def as_inputs(given: Inputs, axes: dict[str, np.ndarray]) -> Inputs:
    """Check inputs and convert them to arrays of one precision.

    Parameters
    ----------
    given : Inputs
        Inputs as the user passed them; `leader` holds the labels of groups.
    axes : dict of numpy.ndarray
        Values of the axes.

    Returns
    -------
    Inputs
        The converted inputs, with the fold of every row and, if there are groups, the first row of each row's group.

    Raises
    ------
    ValueError
        If the key, x, weights, groups or folds are not valid.
    """
    check_key(given.key)
    x = floating(given.x)
    first = next((leaf for leaf in jax.tree.leaves(x) if leaf.ndim), None)
    if first is None:
        raise ValueError("x: no array was given; want (n, d), or a pytree of arrays with n leading")
    n, dtype = first.shape[0], first.dtype
    if given.weights is not None:
        check_weights(given.weights, n)
    y, weights, offset = (None if v is None else on_device(v, dtype) for v in given[2:5])
    leader = None
    if given.leader is not None:  # here still the user's labels of groups
        check_groups(given.leader, given.weights, n)
        leader = leaders(given.leader)
    labels = given.fold_of_row
    if "fold" in axes:
        labels = _drawn_folds(given.key, n, len(axes["fold"]), leader) if labels is None else labels
        _checks.shape("axes['fold']", labels, (n,), "the fold of every row")
        _check_folds(labels, axes["fold"], weights, leader)
    if "fold" in axes or "bootstrap" in axes:
        weights = jnp.ones(n, dtype) if weights is None else weights
    labels = None if labels is None else on_device(labels, np.int32)
    return Inputs(given.key, x, y, weights, offset, given.start, labels, leader)


def _drawn_folds(key: jax.Array, n: int, folds: int, leader: Any) -> np.ndarray:
    """Draw the fold of every row from the key; sizes differ by at most one row, or one group."""
    unit = np.arange(n) if leader is None else np.unique(np.asarray(leader), return_inverse=True)[1].ravel()
    units, what = int(unit.max()) + 1, "row" if leader is None else "group"
    if folds > units:
        raise ValueError(
            f"axes['fold']: {folds} folds were given for {units} {what}s; want at most one fold for each {what}"
        )
    return np.random.default_rng([*key_words(key), STREAMS["fold"]]).permutation(units)[unit] % folds


def _check_folds(labels: np.ndarray, folds: np.ndarray, weights: Any, leader: Any) -> None:
    """Raise ValueError unless every fold has rows to train on and to test on, and holds whole groups."""
    if leader is not None and (split := labels != labels[np.asarray(leader)]).any():
        row = int(np.argmax(split))
        raise ValueError(
            f"axes['fold']: row {row} is in fold {labels[row]} and row {int(leader[row])} of its group in fold "
            f"{labels[int(leader[row])]}; want whole groups in each fold"
        )
    positive = np.ones(len(labels), bool) if weights is None else np.asarray(weights) > 0
    for fold in folds:
        held = positive & (np.asarray(labels) == fold)
        if not held.any() or held.sum() == positive.sum():
            problem = "no row of positive weight is held out" if not held.any() else "every row is held out"
            raise ValueError(f"axes['fold']: in fold {fold} {problem}; want rows to train on and rows to test on")


def key_words(key: jax.Array) -> list[int]:
    """Return the words of a key as integers.

    Parameters
    ----------
    key : jax.Array
        The key.

    Returns
    -------
    list of int
        The words.
    """
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return [int(word) for word in np.ravel(np.asarray(data))]


def typed(values: dict[str, np.ndarray], inputs: Inputs) -> dict[str, np.ndarray]:
    """Convert the values of axes to the types that the program takes.

    Put them on a device in the thread that called the sweep: other threads do not inherit `enable_x64`.

    Parameters
    ----------
    values : dict of numpy.ndarray
        Values by axis.
    inputs : Inputs
        Inputs that all members share; numbers get the type of x.

    Returns
    -------
    dict of numpy.ndarray
        The converted values.
    """
    dtype = jax.tree.leaves(inputs.x)[0].dtype
    return {n: np.asarray(v, np.int32 if n in ("restart", *ROW_AXES) else dtype) for n, v in values.items()}
