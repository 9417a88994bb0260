"""Params by mask: trees of arrays split, merged, read and replaced by trees of booleans."""

from __future__ import annotations

from typing import Any

import jax


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


def n_rows(x: Any) -> int:
    """The number of rows of a pytree of arrays with n leading."""
    n: int = jax.tree.leaves(x)[0].shape[0]
    return n
