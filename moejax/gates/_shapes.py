"""What gates share."""

from __future__ import annotations

from typing import Any

import jax

Params = dict[str, jax.Array]


def n_rows(x: Any) -> int:
    n: int = jax.tree.leaves(x)[0].shape[0]
    return n
