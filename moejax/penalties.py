"""Penalties on coefficients. Each owns its value and its proximal step, for a weight that a fit gets as a traced number.

A penalty is any record with

    name                                        the field of `hyper` that holds its weight
    part                                        "experts" or "gate": whose coefficients it sees
    value(coefficients) -> scalar               of a list of arrays; the objective has weight * value
    prox(coefficients, t) -> coefficients       arg min over v of  t * value(v) + |v - coefficients|^2 / 2

and, where it helps,

    critical(gradients) -> scalar               the smallest weight at which coefficients that are all 0 are optimal, given
                                                the gradient of the mean loss there; infinity if there is none
    majorant(h) -> h                            curvatures at least as large as h > 0, of the shape of one array of
                                                coefficients, and constant over what the penalty couples; a penalty
                                                without it acts on every coefficient alone
    curvature(coefficients) -> like them        of one array: a diagonal second derivative of the value where no
                                                coefficient is 0; EM then makes Newton steps, for which it also wants
    of_experts(coefficients) -> (K,)            the value of each expert's coefficients in one array, and
    kinked                                      whether the value has a kink where a coefficient changes sign
    place                                       where its proximal step may stand among those of others, see `check_order`

t is a number, or an array that broadcasts against every array of coefficients: a step of its own for each coefficient,
constant over what the penalty couples. A step of 0 leaves coefficients as they are, and one of infinity makes them 0.

Coefficients are (K, d) or (K, d, m): experts lead, features next, outputs last. Those of somebody's own expert have any
shape, which suits penalties on single coefficients; penalties on groups want features on the second axis. No penalty
here couples one array with another. Values are sums over coefficients, never means, and intercepts, logits without inputs
and scales are not coefficients.

Proximal steps of several penalties on one part are applied one after another in the order given. That is the proximal step
of their sum for L1, then a group penalty, then L2: the sparse group lasso (Simon, Friedman, Hastie and Tibshirani 2013),
whose step is the group's after the soft threshold, and a ridge last, which only scales. What other orders yield is near the
step of the sum, and no more; `kkt` and the proximal solvers take it for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks

Coefficients = list[jax.Array]
Terms = Sequence[tuple[Any, Any]]  # penalties, each with its weight


# ---- what solvers get from penalties --------------------------------------------------------------------------------


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
    return _largest([c - m for c, m in zip(coefficients, moved, strict=True)])


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


# ---- on single coefficients -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class L1:
    """Sum of absolute values; made by `l1`."""

    part: str
    place = (0, 0)
    kinked = True

    @property
    def name(self) -> str:
        """`l1_experts` or `l1_gate`."""
        return f"l1_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum of absolute values. Its derivative is sign(c), 0 at 0 (that of `jnp.abs` is 1 there)."""
        return sum((jnp.sum(c * jax.lax.stop_gradient(jnp.sign(c))) for c in coefficients), _zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Soft thresholding at t: exact zeros."""
        return [_soft(c, t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest absolute gradient."""
        return _largest(gradients)

    def majorant(self, h: jax.Array) -> jax.Array:
        """The curvatures themselves, for nothing is coupled."""
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """None."""
        return jnp.zeros_like(coefficients)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """The value for each expert, (K,)."""
        return jax.vmap(lambda c: self.value([c]))(coefficients)


@dataclass(frozen=True)
class L2:
    """Sum of squares; made by `l2`."""

    part: str
    place = (2, 2)
    kinked = False

    @property
    def name(self) -> str:
        """`l2_experts` or `l2_gate`."""
        return f"l2_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum of squares."""
        return sum((jnp.square(c).sum() for c in coefficients), _zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Shrinkage by 1 / (1 + 2 t)."""
        return [c / (1 + 2 * t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Infinity: no weight makes coefficients 0."""
        return jnp.asarray(jnp.inf)

    def majorant(self, h: jax.Array) -> jax.Array:
        """The curvatures themselves, for nothing is coupled."""
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """2."""
        return jnp.full_like(coefficients, 2)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """The value for each expert, (K,)."""
        return jax.vmap(lambda c: self.value([c]))(coefficients)


@dataclass(frozen=True)
class ElasticNet:
    """Absolute values and squares under one weight; made by `elastic_net`."""

    part: str
    l1_ratio: float = 0.5
    place = (1, 2)

    @property
    def kinked(self) -> bool:
        """Whether there is a share of L1."""
        return self.l1_ratio > 0

    @property
    def name(self) -> str:
        """`elastic_net_experts` or `elastic_net_gate`."""
        return f"elastic_net_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """l1_ratio times the sum of absolute values + (1 - l1_ratio) / 2 times the sum of squares."""
        sizes, squares = L1(self.part).value(coefficients), L2(self.part).value(coefficients)
        return self.l1_ratio * sizes + (1 - self.l1_ratio) / 2 * squares

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Soft thresholding at t * l1_ratio, then shrinkage by 1 / (1 + t * (1 - l1_ratio))."""
        # A share of 0 times a step of infinity is no number.
        threshold, shrinkage = (t * share if share else 0.0 for share in (self.l1_ratio, 1 - self.l1_ratio))
        return [_soft(c, threshold) / (1 + shrinkage) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest absolute gradient over l1_ratio; infinity for a ratio of 0."""
        return _largest(gradients) / self.l1_ratio if self.l1_ratio else jnp.asarray(jnp.inf)

    def majorant(self, h: jax.Array) -> jax.Array:
        """The curvatures themselves, for nothing is coupled."""
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """1 - l1_ratio."""
        return jnp.full_like(coefficients, 1 - self.l1_ratio)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """The value for each expert, (K,)."""
        return jax.vmap(lambda c: self.value([c]))(coefficients)


# ---- on groups of coefficients --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Norms of features over all experts; made by `group`."""

    part: str
    place = (1, 1)

    @property
    def name(self) -> str:
        """`group_experts` or `group_gate`."""
        return f"group_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum over features of norms over experts and outputs. Its derivative is 0 for a feature that is 0."""
        return sum((self._norms(c).sum() for c in coefficients), _zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Each feature's norm lowered by t, or to 0: exact zeros."""
        return [_shrunk(c, self._norms(c), t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest norm of a feature's gradient over experts and outputs."""
        return _largest([self._norms(g) for g in gradients])

    def majorant(self, h: jax.Array) -> jax.Array:
        """Each feature's largest curvature."""
        return jnp.broadcast_to(h.max(axis=self._axes(h), keepdims=True), h.shape)

    def _norms(self, c: jax.Array) -> jax.Array:
        """Of features, (1, d) or (1, d, 1)."""
        return _root(jnp.square(c).sum(axis=self._axes(c), keepdims=True))

    def _axes(self, c: jax.Array) -> tuple[int, ...]:
        _features(self.name, c)
        return (0, *range(2, c.ndim))


@dataclass(frozen=True)
class Columns:
    """Norms of groups of columns in each expert; made by `group_columns`. blocks: the columns of each group."""

    part: str
    blocks: tuple[tuple[int, ...], ...]
    place = (1, 1)

    @property
    def name(self) -> str:
        """`columns_experts` or `columns_gate`."""
        return f"columns_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """The sum over experts and groups of sqrt(size) * norm. Its derivative is 0 for a group that is 0."""
        return sum(((self._norms(c) * self._roots(c)).sum() for c in coefficients), _zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """The norm of each group, in each expert, lowered by t * sqrt(size), or to 0; other columns stay as they are."""
        return [self._prox(c, t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest norm of a group's gradient over sqrt(size). Columns in no group are not looked at: they are to be
        at their optimum, as intercepts are.
        """
        return _largest([self._norms(g) / self._roots(g) for g in gradients])

    def majorant(self, h: jax.Array) -> jax.Array:
        """The largest curvature of each group, in each expert; those of other columns as they are."""
        rows = h.reshape(*h.shape[:2], -1).max(axis=2)
        of_column, grouped = self._groups(h)
        largest = jnp.where(grouped, self._members(rows).max(axis=2)[:, of_column], rows)
        return jnp.where(_beside(grouped, h), _beside(largest, h), h)

    def _prox(self, c: jax.Array, t: Any) -> jax.Array:
        of_column, grouped = self._groups(c)
        norms, roots = _beside(self._norms(c)[:, of_column], c), _beside(self._roots(c)[of_column][None], c)
        return jnp.where(_beside(grouped, c), _shrunk(c, norms, t * roots), c)

    def _norms(self, c: jax.Array) -> jax.Array:
        """Of groups in each expert, (K, G)."""
        self._groups(c)
        return _root(self._members(jnp.square(c).reshape(*c.shape[:2], -1).sum(axis=2)).sum(axis=2))

    def _members(self, rows: jax.Array) -> jax.Array:
        """The values (K, d) of each group's columns, filled up with zeros: (K, G, size of the largest)."""
        size = max(map(len, self.blocks))
        index = np.asarray([[*block, *[-1] * (size - len(block))] for block in self.blocks])
        return jnp.where(index >= 0, rows[:, index], 0)

    def _roots(self, c: jax.Array) -> np.ndarray:
        return np.sqrt([len(block) for block in self.blocks]).astype(c.dtype)

    def _groups(self, c: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """The group of each column, (d,), and whether it has one, (1, d)."""
        _features(self.name, c)
        highest = max(max(block) for block in self.blocks)
        if highest >= c.shape[1]:
            raise ValueError(
                f"{self.name}: column {highest} was given; want columns below {c.shape[1]}, those of {self.part}"
            )
        of_column = np.full(c.shape[1], -1)
        for i, block in enumerate(self.blocks):
            of_column[list(block)] = i
        return np.maximum(of_column, 0), (of_column >= 0)[None]


# ---- making them ----------------------------------------------------------------------------------------------------


def l1(part: str) -> L1:
    """The lasso penalty (Tibshirani 1996), weight `l1_experts` or `l1_gate` times the sum of absolute coefficients.

    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return L1(_part(part))


def l2(part: str) -> L2:
    """The ridge penalty, weight `l2_experts` or `l2_gate` times the sum of squared coefficients.

    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return L2(_part(part))


def elastic_net(part: str, l1_ratio: float = 0.5) -> ElasticNet:
    """The elastic net (Zou and Hastie 2005) as scikit-learn and glmnet have it: weight `elastic_net_experts` or
    `elastic_net_gate` times (l1_ratio * sum of |c| + (1 - l1_ratio) / 2 * sum of c^2).

    Their mean squared errors have a factor of 1/2 that `losses.squared_error` lacks, so that a weight here is twice theirs.
    part: "experts" or "gate". l1_ratio: from 0, a ridge, to 1, the lasso. Raises ValueError for anything else.
    """
    _checks.not_negative("l1_ratio", l1_ratio)
    if l1_ratio > 1:
        raise ValueError(f"l1_ratio: {l1_ratio} was given; want a number from 0 to 1")
    return ElasticNet(_part(part), float(l1_ratio))


def group(part: str) -> Group:
    """The group lasso (Yuan and Lin 2006) over experts, weight `group_experts` or `group_gate` times the sum over features
    of the Euclidean norm of all coefficients of the feature: it leaves all experts (and outputs) at once.

    Plain norms, without the square root of the group's size, which is the same for all features.
    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return Group(_part(part))


def group_columns(part: str, groups: Sequence[Sequence[int]]) -> Columns:
    """The group lasso (Yuan and Lin 2006) over columns, weight `columns_experts` or `columns_gate` times the sum over
    experts and groups of sqrt(columns in the group) * the Euclidean norm of their coefficients.

    The columns of a group, such as the indicators of a factor, leave together, expert by expert (and with all outputs).
    part: "experts" or "gate". groups: column numbers among those that the part sees, one sequence for each group; columns in
    no group are not penalised. Raises ValueError for groups that are empty or overlap and for columns that are negative or
    no whole numbers, and, once used, for columns that are not there.
    """
    blocks = tuple(_block(block) for block in groups)
    columns = [column for block in blocks for column in block]
    if not columns:
        raise ValueError("groups: none were given; want at least one group of columns")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise ValueError(f"groups: column {twice} was given more than once; want groups that do not overlap")
    return Columns(_part(part), blocks)


def standard() -> tuple[L1 | Group | L2, ...]:
    """What a fit has unless told otherwise: L1, `group` and L2 on experts and on gate, each of weight 0 until it is set."""
    return tuple(make(part) for part in ("experts", "gate") for make in (l1, group, l2))


def _part(part: str) -> str:
    if part not in ("experts", "gate"):
        raise ValueError(f'part: {part!r} was given; want "experts" or "gate"')
    return part


def _block(block: Any) -> tuple[int, ...]:
    columns = np.asarray(block)
    if columns.ndim != 1 or columns.dtype.kind not in "iu" or not columns.size or columns.min() < 0:
        raise ValueError(f"groups: {block!r} was given; want column numbers, at least one a group and none negative")
    return tuple(columns.tolist())


# ---- formulas that they share ---------------------------------------------------------------------------------------


def _zero() -> jax.Array:
    return jnp.asarray(0.0)  # of no precision of its own, so that sums keep that of the coefficients


def _largest(arrays: Coefficients) -> jax.Array:
    """The largest absolute value, 0 of nothing."""
    return jnp.stack([jnp.abs(a).max(initial=0) for a in arrays]).max() if arrays else _zero()


def _soft(c: jax.Array, t: Any) -> jax.Array:
    # A zero without a sign, which people read.
    return jnp.where(jnp.abs(c) > t, c - jnp.sign(c) * t, 0)


def _root(squares: jax.Array) -> jax.Array:
    """Square roots, of derivative 0 at 0 in the place of infinity."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def _shrunk(c: jax.Array, norms: jax.Array, t: Any) -> jax.Array:
    """c with its groups' norms, which broadcast against c, lowered by t or to 0."""
    left = norms > t
    # Both sides are computed whatever `left` is, and neither may be a NaN.
    return c * jnp.where(left, 1 - jnp.where(left, t, 0) / jnp.where(left, norms, 1), 0)


def _features(name: str, c: jax.Array) -> None:
    if c.ndim < 2:
        raise ValueError(f"{name}: coefficients of shape {c.shape} were given; want (K, d) or (K, d, m), features second")


def _beside(values: Any, c: jax.Array) -> Any:
    """Values (K, d) or (1, d) with an axis of size 1 for each further axis of c."""
    return values.reshape(*values.shape, *[1] * (c.ndim - 2))
