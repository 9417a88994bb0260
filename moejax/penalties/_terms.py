"""Functions of several penalties that solvers call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from moejax._ops import where
from moejax.penalties._base import Penalty
from moejax.penalties._formulas import Coefficients, largest_absolute
from moejax.penalties._groups import Group, group
from moejax.penalties._single import L1, L2, l1, l2

Terms = Sequence[tuple[Penalty, Any]]  # pairs of a penalty and its weight


def stepped(coefficients: Coefficients, terms: Terms, step: Any = 1.0) -> Coefficients:
    """Apply the proximal steps of penalties on one part, one after another.

    Parameters
    ----------
    coefficients : list of jax.Array
        The coefficients of the part.
    terms : sequence of (penalty, weight)
        The penalties in the order of their steps, each with its weight.
    step : float, jax.Array or list of jax.Array, default 1.0
        Factor of the weights. A list has one array for each array of coefficients; each array is constant over the groups
        that the penalties couple.

    Returns
    -------
    list of jax.Array
        The new coefficients.
    """
    for penalty, weight in terms:
        if isinstance(step, list):
            coefficients = [penalty.prox([c], s * weight)[0] for c, s in zip(coefficients, step, strict=True)]
        else:
            coefficients = penalty.prox(coefficients, step * weight)
    return coefficients


def kkt(
    coefficients: Coefficients, gradients: Coefficients, terms: Terms = (), curvatures: Coefficients | None = None
) -> jax.Array:
    """Return by how much coefficients violate the optimality (KKT) condition.

    Parameters
    ----------
    coefficients : list of jax.Array
        The coefficients of the part.
    gradients : list of jax.Array
        Gradient of the mean loss, without penalties, at these coefficients.
    terms : sequence of (penalty, weight), default ()
        The penalties in the order of their steps, each with its weight.
    curvatures : list of jax.Array or None, default None
        Second derivatives of the mean loss, above 0, like the coefficients; None for 1.

    Returns
    -------
    jax.Array
        A scalar: the maximum over coefficients of sqrt(h) |c - prox(c - gradient / h)| with the proximal step of size 1 / h.
        It is 0 if and only if the coefficients satisfy the optimality condition, and half its square is about what the best
        step in one coefficient would lower the objective by, which does not depend on the units of x. Coefficients that a
        penalty couples have the largest of their curvatures.
    """
    if curvatures is None:
        curvatures = [jnp.ones_like(c) for c in coefficients]
    for penalty, _ in terms:
        curvatures = [penalty.majorant(h) for h in curvatures]
    sizes = [1 / h for h in curvatures]
    steps = [c - s * g for c, s, g in zip(coefficients, sizes, gradients, strict=True)]
    moved = stepped(steps, terms, sizes)
    return largest_absolute([jnp.sqrt(h) * (c - m) for h, c, m in zip(curvatures, coefficients, moved, strict=True)])


def check_order(penalties: Iterable[Penalty]) -> None:
    """Raise an error unless the proximal steps of penalties on one part compose to the step of their sum.

    The valid orders are: L1, then `group` or `group_columns`, then L2, where each may be left out; and L1, then an elastic
    net.

    Parameters
    ----------
    penalties : iterable of penalties
        The penalties of a fit, in the order of their steps. A user's own penalty without `place` is not checked.

    Raises
    ------
    ValueError
        If two penalties on one part are in another order.
    """
    before: dict[str, Any] = {}
    for p in penalties:
        last, place = before.get(p.part), p.place
        if place is None:
            continue
        if last is not None and place[0] <= last.place[1]:
            raise ValueError(
                f"penalty: {p.name} has its proximal step after that of {last.name}, which is not the step of their sum; "
                "want L1, then one group penalty, then L2; or L1, then elastic_net"
            )
        before[p.part] = p


def standard() -> tuple[L1 | Group | L2, ...]:
    """Return the default penalties of a fit: L1, `group` and L2 on experts and on gate.

    Returns
    -------
    tuple of penalties
        Six penalties. Each has weight 0 unless `hyper` sets its weight.
    """
    return tuple(make(part) for part in ("experts", "gate") for make in (l1, group, l2))


def shrunk(c: jax.Array, absolute: jax.Array | float, ridge: jax.Array | float) -> jax.Array:
    """The proximal step of absolute * |c| + ridge * c^2 / 2, a number or one for each coefficient; a zero without a sign."""
    if isinstance(absolute, float) and absolute == 0:
        return c / (1 + ridge)
    size = jnp.abs(c) - absolute
    return where(size > 0, jnp.sign(c) * size, 0.0) / (1 + ridge)
