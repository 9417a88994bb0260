"""Penalties that couple coefficients: over experts, and over columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax.penalties._formulas import (
    Coefficients,
    beside_features,
    check_features,
    checked_part,
    largest_absolute,
    shrunk_norms,
    square_root,
    zero,
)


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
        return sum((self._norms(c).sum() for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Each feature's norm lowered by t, or to 0: exact zeros."""
        return [shrunk_norms(c, self._norms(c), t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest norm of a feature's gradient over experts and outputs."""
        return largest_absolute([self._norms(g) for g in gradients])

    def majorant(self, h: jax.Array) -> jax.Array:
        """Each feature's largest curvature."""
        return jnp.broadcast_to(h.max(axis=self._axes(h), keepdims=True), h.shape)

    def _norms(self, c: jax.Array) -> jax.Array:
        """Of features, (1, d) or (1, d, 1)."""
        return square_root(jnp.square(c).sum(axis=self._axes(c), keepdims=True))

    def _axes(self, c: jax.Array) -> tuple[int, ...]:
        check_features(self.name, c)
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
        return sum(((self._norms(c) * self._roots(c)).sum() for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """The norm of each group, in each expert, lowered by t * sqrt(size), or to 0; other columns stay as they are."""
        return [self._prox(c, t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """The largest norm of a group's gradient over sqrt(size). Columns in no group are not looked at: they are to be
        at their optimum, as intercepts are.
        """
        return largest_absolute([self._norms(g) / self._roots(g) for g in gradients])

    def majorant(self, h: jax.Array) -> jax.Array:
        """The largest curvature of each group, in each expert; those of other columns as they are."""
        rows = h.reshape(*h.shape[:2], -1).max(axis=2)
        of_column, grouped = self._groups(h)
        largest = jnp.where(grouped, self._members(rows).max(axis=2)[:, of_column], rows)
        return jnp.where(beside_features(grouped, h), beside_features(largest, h), h)

    def _prox(self, c: jax.Array, t: Any) -> jax.Array:
        of_column, grouped = self._groups(c)
        norms, roots = beside_features(self._norms(c)[:, of_column], c), beside_features(self._roots(c)[of_column][None], c)
        return jnp.where(beside_features(grouped, c), shrunk_norms(c, norms, t * roots), c)

    def _norms(self, c: jax.Array) -> jax.Array:
        """Of groups in each expert, (K, G)."""
        self._groups(c)
        return square_root(self._members(jnp.square(c).reshape(*c.shape[:2], -1).sum(axis=2)).sum(axis=2))

    def _members(self, rows: jax.Array) -> jax.Array:
        """The values (K, d) of each group's columns, filled up with zeros: (K, G, size of the largest)."""
        size = max(map(len, self.blocks))
        index = np.asarray([[*block, *[-1] * (size - len(block))] for block in self.blocks])
        return jnp.where(index >= 0, rows[:, index], 0)

    def _roots(self, c: jax.Array) -> np.ndarray:
        return np.sqrt([len(block) for block in self.blocks]).astype(c.dtype)

    def _groups(self, c: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """The group of each column, (d,), and whether it has one, (1, d)."""
        check_features(self.name, c)
        highest = max(max(block) for block in self.blocks)
        if highest >= c.shape[1]:
            raise ValueError(
                f"{self.name}: column {highest} was given; want columns below {c.shape[1]}, those of {self.part}"
            )
        of_column = np.full(c.shape[1], -1)
        for i, block in enumerate(self.blocks):
            of_column[list(block)] = i
        return np.maximum(of_column, 0), (of_column >= 0)[None]


def group(part: str) -> Group:
    """The group lasso (Yuan and Lin 2006) over experts, weight `group_experts` or `group_gate` times the sum over features
    of the Euclidean norm of all coefficients of the feature: it leaves all experts (and outputs) at once.

    Plain norms, without the square root of the group's size, which is the same for all features.
    part: "experts" or "gate"; raises ValueError for anything else.
    """
    return Group(checked_part(part))


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
    return Columns(checked_part(part), blocks)


def _block(block: Any) -> tuple[int, ...]:
    columns = np.asarray(block)
    if columns.ndim != 1 or columns.dtype.kind not in "iu" or not columns.size or columns.min() < 0:
        raise ValueError(f"groups: {block!r} was given; want column numbers, at least one a group and none negative")
    return tuple(columns.tolist())
