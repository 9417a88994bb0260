"""What every solver asks of its data, before anything compiles."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np

from moejax import _checks
from moejax._checks import check_weights
from moejax._contracts import Record
from moejax.model import Model, floating, group_numbers, leaders
from moejax.model._arguments import check_inputs, check_numbers, check_params, shapes_of, signature


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
        Labels of groups, with equal weights in each group.
    start : dict or None, default None
        Params, like those of the model.

    Returns
    -------
    int
        The number of rows n.
    """
    n = check_inputs(model, x)
    init, eta, predicted = shapes_of(model, x)
    if model.family is None:
        _checks.shape("y", y, predicted.shape, "what this model predicts for this x")
    else:
        model.family.check_target(y, predicted.shape)
    check_numbers("y", y, eta.dtype)
    if isinstance(model.family, Record):
        leaves, structure = jax.tree.flatten(x)
        dtype = eta.dtype
        _check_density(model, structure, tuple(signature(leaf) for leaf in leaves), (np.shape(y), dtype))
    _check_varies(model, y, n)
    if weights is not None:
        check_weights(weights, n)
    if offset is not None:
        _checks.shape("offset", offset, eta.shape[1:], "like one expert's predictors")
        check_numbers("offset", offset, eta.dtype)
    if groups is not None:
        check_groups(groups, weights, n)
    if start is not None:
        check_params("start", start, init)
        for path, leaf in jax.tree_util.tree_leaves_with_path(start):
            check_numbers(f"start{jax.tree_util.keystr(path)}", leaf, eta.dtype)
    return n


def _check_varies(model: Model, y: Any, n: int) -> None:
    """Raise ValueError for a target that is the same in all rows, which any scale of a density would fit too well.

    Of probabilities there is a best fit, or one that separates what there is.
    """
    if _checks.is_traced(y) or n == 1 or (model.family is not None and model.family.is_discrete):
        return
    values = np.asarray(y, float)
    if (values == values[0]).all(axis=0).any():
        raise ValueError("y: the target is constant; want one that varies over the rows")


def check_groups(groups: Any, weights: Any, n: int) -> None:
    """Raise ValueError unless there is a group for each row, and weights are equal in each group.

    Parameters
    ----------
    groups : array_like, (n,)
        The group of each row, as `moejax.model.group_numbers` takes them.
    weights : array_like or None, (n,)
        Weights of the rows.
    n : int
        Number of rows.
    """
    groups = group_numbers(groups, weights)
    _checks.shape("groups", groups, (n,), "the group of each row")
    if _checks.is_traced(groups):
        return
    if weights is not None and not _checks.is_traced(weights):
        first = np.asarray(leaders(groups))
        differ = np.asarray(weights)[first] != np.asarray(weights)
        if differ.any():
            raise ValueError(
                f"weights: row {int(differ.argmax())} has another weight than its group; want equal ones within groups"
            )


def check_key(key: Any) -> None:
    """Raise ValueError for what is not one key.

    Parameters
    ----------
    key : object
        A key, as from `jax.random.key`.
    """
    _checks.key("key", key)


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
