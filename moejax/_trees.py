"""Params by mask: trees of arrays split, merged, read and replaced by trees of booleans, and the masks of parts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

FREE_NAMES = ("intercept", "bias", "logits", "log_scale", "active")


def _is_none(leaf: Any) -> bool:
    return leaf is None


def split(tree: Any, mask: Any) -> tuple[Any, Any]:
    """The leaves where `mask` is True and the leaves where it is not, None standing for those in the other tree."""
    return (
        jax.tree.map(lambda leaf, m: leaf if m else None, tree, mask),
        jax.tree.map(lambda leaf, m: None if m else leaf, tree, mask),
    )


def merge(first: Any, second: Any) -> Any:
    """The tree of which `split` made `first` and `second`."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=_is_none)


def chosen(tree: Any, mask: Any) -> list[Any]:
    """The leaves where `mask` is True, in order."""
    return [leaf for leaf, m in zip(jax.tree.leaves(tree), jax.tree.leaves(mask), strict=True) if m]


def replaced(tree: Any, mask: Any, leaves: list[Any]) -> Any:
    """`tree` with the leaves where `mask` is True replaced by `leaves`, in order."""
    new = iter(leaves)
    return jax.tree.map(lambda leaf, m: next(new) if m else leaf, tree, mask)


def trainable(part: Any, params: Any) -> Any:
    """A tree like the part's params: True for leaves that an optimiser moves, by its own `trainable`.

    Without it, for numbers that are no integers and that the part's `hyper` does not name.
    """
    if hasattr(part, "trainable"):
        return part.trainable(params)
    set_by_fits = getattr(part, "hyper", {})
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.issubdtype(leaf.dtype, jnp.inexact) and _name(path) not in set_by_fits, params
    )


def penalized(part: Any, params: Any) -> Any:
    """A tree like the part's params: True for trained leaves that penalties see, by its own `penalized`.

    Without it, for all but those of a name in FREE_NAMES.
    """
    if hasattr(part, "penalized"):
        seen = part.penalized(params)
    else:
        seen = jax.tree_util.tree_map_with_path(lambda path, _: _name(path) not in FREE_NAMES, params)
    return jax.tree.map(lambda s, t: s and t, seen, trainable(part, params))


def _name(path: tuple[Any, ...]) -> str:
    last = path[-1] if path else None
    return str(getattr(last, "key", getattr(last, "name", "")))
