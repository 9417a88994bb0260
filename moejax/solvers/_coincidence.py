"""Experts that coincide: one expert in several places, which iterations leave as they are, be it the best fit or a saddle.

Distances are in units of the noise: of a number, times the root of the curvature of the mean loss in it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax._trees import chosen
from moejax.model import Model

_NEAR = 1e-2  # experts that differ by less coincide
_APART = 0.05  # how far they are then moved
_SLOPES = 0.2  # of that, in coefficients: experts of all levels of a factor shall leave to the same side
_FLAT = 1e-2  # of a predictor without units: a curvature below which distances by it tell nothing


def has_coincidence(model: Model, params: Any) -> bool:
    """Whether experts are linear, trained, and more than one."""
    return model.expert.is_linear and model.n_experts > 1 and bool(_own(model, params, params, "experts"))


def coincide(model: Model, params: Any, curvature: Any, sizes: jax.Array) -> jax.Array:
    """Whether two linear experts that have rows are the same in all that is trained.

    curvature: like params. sizes: (K,), rows of each expert.
    """
    k = len(sizes)
    numbers, bends = (
        [leaf.reshape(k, -1) for part in ("experts", "family") for leaf in _own(model, params, tree, part)]
        for tree in (params, curvature)
    )
    own = jnp.concatenate([v * jnp.sqrt(h) for v, h in zip(numbers, bends, strict=True)], axis=1)
    apart = jnp.abs(own[:, None] - own[None]).max(axis=2)
    absent = ~(model.active(params) & (sizes > 0))
    others = np.triu(np.ones((k, k), bool), 1)
    near: jax.Array = ((apart <= _NEAR * _certainty(model, curvature)) & others & ~absent & ~absent[:, None]).any()
    return near


def parted(model: Model, params: Any, curvature: Any) -> Any:
    """Params with experts that are moved a little, each to another place."""
    rng, size = np.random.default_rng(0), _APART * _certainty(model, curvature)
    marks = model.expert.penalized(params["experts"])

    def moved(v: jax.Array, h: jax.Array, is_slope: bool, is_trained: bool) -> jax.Array:
        if not is_trained:
            return v
        places = rng.uniform(-1, 1, v.shape) * (_SLOPES if is_slope else 1.0)
        return v + size * places.astype(v.dtype) / jnp.sqrt(h)

    trained = model.trainable(params)["experts"]
    return {**params, "experts": jax.tree.map(moved, params["experts"], curvature["experts"], marks, trained)}


def _own(model: Model, params: Any, tree: Any, part: str) -> list[Any]:
    """The trained leaves of a part that hold numbers of each expert."""
    leaves = chosen(tree[part], model.trainable(params)[part])
    return [leaf for leaf in leaves if leaf.shape[:1] == (model.n_experts,)]


def _certainty(model: Model, curvature: Any) -> jax.Array | float:
    """A factor of distances, below 1 where predictors without units are so large that the loss does not depend on them."""
    if model.family is None or not model.family.is_discrete:
        return 1.0
    is_slope = model.expert.penalized(curvature["experts"])
    levels = chosen(curvature["experts"], jax.tree.map(lambda marked: not marked, is_slope))
    return jnp.sqrt(jnp.minimum(1.0, jnp.stack([leaf.min() for leaf in levels]).min() / _FLAT)) if levels else 1.0
