"""What solvers get from penalties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from moejax._ops import where
from moejax.penalties._formulas import Coefficients, largest_absolute
from moejax.penalties._groups import Group, group
from moejax.penalties._single import L1, L2, l1, l2

Terms = Sequence[tuple[Any, Any]]  # penalties, each with its weight


def stepped(coefficients: Coefficients, terms: Terms, step: Any = 1.0) -> Coefficients:
    """The proximal steps of penalties on one part, one after another.

    terms: pairs of a penalty and its weight. step: what multiplies the weights, a number, or a list of arrays like the
    coefficients (constant over what the penalties couple).
    """
    for penalty, weight in terms:
        if isinstance(step, list):
            coefficients = [penalty.prox([c], s * weight)[0] for c, s in zip(coefficients, step, strict=True)]
        else:
            coefficients = penalty.prox(coefficients, step * weight)
    return coefficients


def kkt(coefficients: Coefficients, gradients: Coefficients, terms: Terms = ()) -> jax.Array:
    """The largest move that a proximal gradient step of size 1 would make: 0 where, and only where, optimal.

    gradients: of the mean loss without penalties. terms: pairs of a penalty and its weight, as for `stepped`.
    """
    moved = stepped([c - g for c, g in zip(coefficients, gradients, strict=True)], terms)
    return largest_absolute([c - m for c, m in zip(coefficients, moved, strict=True)])


def check_order(penalties: Iterable[Any]) -> None:
    """Raise ValueError unless the proximal steps of penalties on one part compose to that of their sum.

    They do for L1, then `group` or `group_columns`, then L2, any of them left out, and for L1, then an elastic net. A
    penalty of somebody's own, without `place`, is not looked at.
    """
    before: dict[str, Any] = {}
    for p in penalties:
        if not hasattr(p, "place"):
            continue
        last = before.get(p.part)
        if last is not None and p.place[0] <= last.place[1]:
            raise ValueError(
                f"penalty: {p.name} has its proximal step after that of {last.name}, which is not the step of their sum; "
                "want L1, then one group penalty, then L2; or L1, then elastic_net"
            )
        before[p.part] = p


def standard() -> tuple[L1 | Group | L2, ...]:
    """What a fit has unless told otherwise: L1, `group` and L2 on experts and on gate, each of weight 0 until it is set."""
    return tuple(make(part) for part in ("experts", "gate") for make in (l1, group, l2))


def shrunk(c: jax.Array, absolute: Any, ridge: Any) -> jax.Array:
    """The proximal step of absolute * |c| + ridge * c^2 / 2, a number or one for each coefficient; a zero without a sign."""
    if isinstance(absolute, float) and absolute == 0:
        return c / (1 + ridge)
    size = jnp.abs(c) - absolute
    return where(size > 0, jnp.sign(c) * size, 0.0) / (1 + ridge)
