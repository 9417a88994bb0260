"""What every solver asks of its data, before anything compiles."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np

from moejax import _checks
from moejax._checks import check_weights
from moejax._contracts import Record
from moejax.model import Model, floating, leaders


def check_data(
    model: Model, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
) -> int:
    """Raise ValueError unless a model can be fitted to these.

    Parameters
    ----------
    model : Model
        From `moe`.
    x : array_like or pytree
        (n, d); an array of any shape with n leading if experts and gate take such; or a pytree of arrays with n leading.
    y : array_like, (n,) or (n, m)
        Shaped as the model predicts, unless its family decides otherwise.
    weights : array_like or None, (n,), default None
        None below 0, and not all 0.
    offset : array_like or None, default None
        Shaped like the predictor of one expert.
    groups : array_like or None, (n,), default None
        Whole numbers, with equal weights in each group.
    start : dict or None, default None
        Params, like those of the model.

    Returns
    -------
    int
        The number of rows n.
    """
    n = _check_inputs(model, x)
    init, eta, predicted = shapes_of(model, x)
    if model.family is None:
        _checks.shape("y", y, predicted.shape, "what this model predicts for this x")
    else:
        model.family.check_target(y, predicted.shape)
    _checks.finite("y", y)
    if isinstance(model.family, Record):
        leaves, structure = jax.tree.flatten(x)
        dtype = eta.dtype
        _check_density(model, structure, tuple(_signature(leaf) for leaf in leaves), (np.shape(y), dtype))
    if not _checks.is_traced(y) and n > 1 and (np.asarray(y, float) == np.asarray(y, float)[0]).all(axis=0).any():
        raise ValueError("y: the target is constant; want one that varies over the rows")
    if weights is not None:
        check_weights(weights, n)
    if offset is not None:
        _checks.shape("offset", offset, eta.shape[1:], "like one expert's predictors")
        _checks.finite("offset", offset)
    if groups is not None:
        check_groups(groups, weights, n)
    if start is not None:
        _check_start(start, init)
    return n


def shapes_of(model: Model, x: Any) -> tuple[Any, Any, Any]:
    """Return shapes and types of params, predictors and prediction.

    Parameters
    ----------
    model : Model
        From `moe`.
    x : array_like or pytree
        Inputs.

    Returns
    -------
    params : pytree of jax.ShapeDtypeStruct
        As from `model.init`.
    eta : jax.ShapeDtypeStruct, (K, n) or (K, n, m)
        Predictors.
    predicted : jax.ShapeDtypeStruct, (n,) or (n, m)
        What the model predicts.

    Raises
    ------
    ValueError
        If a part cannot see these inputs, or does not speak for all experts and rows.
    """
    leaves, structure = jax.tree.flatten(x)
    return _shapes(model, structure, tuple(_signature(leaf) for leaf in leaves))


def check_groups(groups: Any, weights: Any, n: int) -> None:
    """Raise ValueError unless groups are whole numbers, and weights are equal in each group.

    Parameters
    ----------
    groups : array_like, (n,)
        The group of each row.
    weights : array_like or None, (n,)
        Weights of the rows.
    n : int
        Number of rows.
    """
    _checks.shape("groups", groups, (n,), "the group of each row")
    if _checks.is_traced(groups):
        return
    if np.asarray(groups).dtype.kind not in "iu":
        raise ValueError(f"groups: values of type {np.asarray(groups).dtype} were given; want whole numbers")
    if weights is not None and not _checks.is_traced(weights):
        first = np.asarray(leaders(groups))
        differ = np.asarray(weights)[first] != np.asarray(weights)
        if differ.any():
            raise ValueError(
                f"weights: row {int(differ.argmax())} has another weight than its group; want equal ones in a group"
            )


def check_key(key: Any) -> None:
    """Raise ValueError for what is no key at all.

    Parameters
    ----------
    key : object
        A key, as from `jax.random.key`.
    """
    if not hasattr(key, "dtype"):
        raise ValueError(f"key: {key!r} was given; want a key, as from jax.random.key(0)")


def _signature(leaf: Any) -> tuple[tuple[int, ...], Any]:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)


@lru_cache(maxsize=256)
def _shapes(model: Model, structure: Any, signature: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Shapes of params, predictors and prediction; raises where a part does not speak for all experts and rows.

    Kept, for tracing a model costs more than a small fit.
    """
    x = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in signature])

    def speak(x: Any) -> tuple[Any, Any, Any]:
        x = floating(x)
        params = model.init(jax.random.key(0), x)
        _check_marks(model, params)
        inputs = model.prepare(x)
        eta = model.eta(params, inputs)
        if np.ndim(eta) not in (2, 3) or eta.shape[:2] != wanted:
            raise ValueError(f"expert: apply returned shape {np.shape(eta)}; want {wanted}, or with m outputs last")
        _checks.shape("gate: log_probs", model.log_gate(params, inputs), wanted, "experts first, then rows")
        return params, eta, model.predict(params, x)

    wanted = (model.n_experts, signature[0][0][0])
    shapes: tuple[Any, Any, Any] = jax.eval_shape(speak, x)
    return shapes


def _check_marks(model: Model, params: Any) -> None:
    """Raise ValueError for a part whose `trainable` or `penalized` is no tree like its params."""
    for name, part in model.parts.items():
        for mark, marked in (("trainable", part.trainable), ("penalized", part.penalized)):
            given = marked(params[name])
            want: Any = jax.tree.structure(params[name])
            if want != jax.tree.structure(given) or not all(
                isinstance(leaf, bool | np.bool_) for leaf in jax.tree.leaves(given)
            ):
                wanted = f"a tree like params of True and False, of structure {want}"
                raise ValueError(f"{part.role}: {mark} of {part!r} returned {given!r}; want {wanted}")


@lru_cache(maxsize=256)
def _check_density(model: Model, structure: Any, signature: tuple[Any, ...], target: tuple[Any, ...]) -> None:
    """Raise ValueError where the log densities of a family of the user's own are not of all experts and rows."""
    x, y = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*each) for each in signature]), jax.ShapeDtypeStruct(*target)

    def density(x: Any, y: Any) -> Any:
        x = floating(x)
        params, family = model.init(jax.random.key(0), x), model.family
        assert family is not None
        return family.log_prob(y, model.eta(params, model.prepare(x)), model.phi(params))

    found = jax.eval_shape(density, x, y)
    _checks.shape("family: log_prob", found, (model.n_experts, signature[0][0][0]), "experts first, then rows")


def _check_inputs(model: Model, x: Any) -> int:
    leaves = jax.tree.leaves(x)
    if isinstance(x, list | tuple) and leaves and not any(np.ndim(leaf) for leaf in leaves):
        raise ValueError(f"x: a {type(x).__name__} of numbers was given; want an array (n, d), as from numpy.asarray")
    if not leaves:
        raise ValueError("x: nothing was given; want an array (n, d), or a pytree of arrays with n leading")
    if len(leaves) == 1 and leaves[0] is x:
        takes_any = model.expert.takes_any_array and model.gate.takes_any_array
        if not takes_any or np.ndim(x) < 2:
            _checks.shape("x", x, (None, None), "rows by features")
        _checks.count("columns of x", np.shape(x)[1])
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in leaves}
    if len(sizes) > 1 or None in sizes or 0 in sizes:
        raise ValueError(f"x: arrays of shapes {[np.shape(leaf) for leaf in leaves]} were given; want the same n > 0 rows")
    for leaf in leaves:
        _checks.finite("x", leaf)
    return int(np.shape(leaves[0])[0])


def _check_start(start: Any, like: Any) -> None:
    given: Any = jax.tree.structure(start)
    wanted: Any = jax.tree.structure(like)
    if given != wanted:
        raise ValueError(f"start: params of structure {given} were given; want {wanted}, as model.init makes them")
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(like), strict=True):
        _checks.shape(f"start{jax.tree_util.keystr(path)}", leaf, want.shape)
        _checks.finite(f"start{jax.tree_util.keystr(path)}", leaf)
