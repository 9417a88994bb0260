"""Penalties that couple coefficients: over experts, and over columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.penalties._base import Penalty
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
class Group(Penalty):
    """Penalty on the norm of each feature over all experts; see `group`.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.

    Attributes
    ----------
    place : tuple of int
        Position of the proximal step among those of other penalties; see `check_order`.
    """

    part: str
    place = (1, 1)
    has_critical = True

    @property
    def name(self) -> str:
        """Name of the weight in `hyper`: `group_experts` or `group_gate`."""
        return f"group_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """Return the sum over features of the Euclidean norm over experts and outputs.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.

        Returns
        -------
        jax.Array
            A scalar: the total over all arrays, without the weight.

        Notes
        -----
        The derivative is defined as 0 for a feature whose coefficients are all 0.
        """
        return sum((self._norms(c).sum() for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Reduce the norm of each feature by t, or to exactly 0.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.
        t : float or jax.Array
            Step times weight. An array broadcasts against every array of coefficients and is constant over each group of
            coefficients that the penalty couples. 0 leaves the coefficients unchanged; infinity makes them 0.

        Returns
        -------
        list of jax.Array
            The new coefficients, with the shapes of `coefficients`.
        """
        return [shrunk_norms(c, self._norms(c), t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Return the largest norm of a feature's gradient over experts and outputs.

        Parameters
        ----------
        gradients : list of jax.Array
            Gradient of the mean loss where the coefficients are 0, with the shapes of the coefficients.

        Returns
        -------
        jax.Array
            A scalar: the smallest weight at which coefficients that are all 0 are optimal.
        """
        return largest_absolute([self._norms(g) for g in gradients])

    def majorant(self, h: jax.Array) -> jax.Array:
        """Return the largest curvature of each feature.

        Parameters
        ----------
        h : jax.Array
            Curvatures above 0, shaped like one array of coefficients.

        Returns
        -------
        jax.Array
            Curvatures of the same shape, at least as large as `h` and constant over each group.
        """
        return jnp.broadcast_to(h.max(axis=self._axes(h), keepdims=True), h.shape)

    def _norms(self, c: jax.Array) -> jax.Array:
        """Return the norm of each feature, (1, d) or (1, d, 1)."""
        return square_root(jnp.square(c).sum(axis=self._axes(c), keepdims=True))

    def _axes(self, c: jax.Array) -> tuple[int, ...]:
        """Return the axes of experts and outputs."""
        check_features(self.name, c)
        return (0, *range(2, c.ndim))


@dataclass(frozen=True)
class Columns(Penalty):
    """Penalty on the norms of groups of columns within each expert; see `group_columns`.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.
    blocks : tuple of tuple of int
        The column numbers of each group.

    Attributes
    ----------
    place : tuple of int
        Position of the proximal step among those of other penalties; see `check_order`.
    """

    part: str
    blocks: tuple[tuple[int, ...], ...] = field()  # required: it takes no default from the base class
    place = (1, 1)
    has_critical = True

    @property
    def name(self) -> str:
        """Name of the weight in `hyper`: `columns_experts` or `columns_gate`."""
        return f"columns_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """Return the sum over experts and groups of sqrt(number of columns) * Euclidean norm.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.

        Returns
        -------
        jax.Array
            A scalar: the total over all arrays, without the weight.

        Raises
        ------
        ValueError
            If a group contains a column that the coefficients do not have.

        Notes
        -----
        The derivative is defined as 0 for a group whose coefficients are all 0.
        """
        return sum(((self._norms(c) * self._roots(c)).sum() for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Reduce the norm of each group in each expert by t * sqrt(number of columns), or to exactly 0.

        Columns in no group are unchanged.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.
        t : float or jax.Array
            Step times weight. An array broadcasts against every array of coefficients and is constant over each group of
            coefficients that the penalty couples. 0 leaves the coefficients unchanged; infinity makes them 0.

        Returns
        -------
        list of jax.Array
            The new coefficients, with the shapes of `coefficients`.

        Raises
        ------
        ValueError
            If a group contains a column that the coefficients do not have.
        """
        return [self._prox(c, t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Return the largest norm of a group's gradient, divided by sqrt(number of columns).

        Columns in no group are ignored. The gradients must be taken where these columns, like the intercepts, are at their
        optimum.

        Parameters
        ----------
        gradients : list of jax.Array
            Gradient of the mean loss where the coefficients are 0, with the shapes of the coefficients.

        Returns
        -------
        jax.Array
            A scalar: the smallest weight at which coefficients that are all 0 are optimal.
        """
        return largest_absolute([self._norms(g) / self._roots(g) for g in gradients])

    def majorant(self, h: jax.Array) -> jax.Array:
        """Return the largest curvature of each group in each expert; other columns keep their curvature.

        Parameters
        ----------
        h : jax.Array
            Curvatures above 0, shaped like one array of coefficients.

        Returns
        -------
        jax.Array
            Curvatures of the same shape, at least as large as `h` and constant over each group.
        """
        rows = h.reshape(*h.shape[:2], -1).max(axis=2)
        of_column, grouped = self._groups(h)
        largest = jnp.where(grouped, self._members(rows).max(axis=2)[:, of_column], rows)
        return jnp.where(beside_features(grouped, h), beside_features(largest, h), h)

    def _prox(self, c: jax.Array, t: Any) -> jax.Array:
        """Apply the proximal step to one array."""
        of_column, grouped = self._groups(c)
        norms, roots = beside_features(self._norms(c)[:, of_column], c), beside_features(self._roots(c)[of_column][None], c)
        return jnp.where(beside_features(grouped, c), shrunk_norms(c, norms, t * roots), c)

    def _norms(self, c: jax.Array) -> jax.Array:
        """Return the norm of each group in each expert, (K, number of groups)."""
        self._groups(c)
        return square_root(self._members(jnp.square(c).reshape(*c.shape[:2], -1).sum(axis=2)).sum(axis=2))

    def _members(self, rows: jax.Array) -> jax.Array:
        """Gather values (K, d) by group, padded with zeros: (K, number of groups, size of the largest group)."""
        size = max(map(len, self.blocks))
        index = np.asarray([[*block, *[-1] * (size - len(block))] for block in self.blocks], np.int32)
        return jnp.where(index >= 0, rows[:, index], 0)

    def _roots(self, c: jax.Array) -> np.ndarray:
        """Return the square root of each group's number of columns."""
        return np.sqrt([len(block) for block in self.blocks]).astype(c.dtype)

    def _groups(self, c: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Return the group of each column, (d,), and whether the column is in a group, (1, d)."""
        check_features(self.name, c)
        highest = max(max(block) for block in self.blocks)
        if highest >= c.shape[1]:
            raise ValueError(
                f"{self.name}: column {highest} was given; want columns below {c.shape[1]}, those of {self.part}"
            )
        of_column = np.full(c.shape[1], -1, np.int32)
        for i, block in enumerate(self.blocks):
            of_column[list(block)] = i
        return np.maximum(of_column, 0), (of_column >= 0)[None]


def group(part: str) -> Group:
    """Construct the group lasso over experts: a feature leaves all experts and outputs together.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.

    Returns
    -------
    Group
        The penalty. Its weight is the field `group_experts` or `group_gate` of `hyper`.

    Raises
    ------
    ValueError
        If `part` is neither "experts" nor "gate".

    Notes
    -----
    The penalty is weight * sum over features j of ||b_j||, where b_j holds all coefficients of feature j, over experts and
    outputs, and ||.|| is the Euclidean norm [1]_. The usual factor, the square root of the group's size, is left out,
    because it is the same for all features.

    References
    ----------
    .. [1] Yuan and Lin (2006), "Model selection and estimation in regression with grouped variables", Journal of the Royal
       Statistical Society B.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from moejax import penalties
    >>> coefficients = jnp.array([[3.0, 0.0], [4.0, 1.0]])  # two experts, two features
    >>> float(penalties.group("experts").value([coefficients]))  # 5 for the first feature, 1 for the second
    6.0
    """
    return Group(checked_part(part))


def group_columns(part: str, groups: Sequence[Sequence[int]]) -> Columns:
    """Construct the group lasso over columns: the columns of a group leave an expert together.

    A typical group holds the indicators of one factor. A group leaves each expert separately, for all outputs at once.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.
    groups : sequence of sequences of int
        The column numbers of each group, counted among the columns that the part sees. Columns in no group are not
        penalised.

    Returns
    -------
    Columns
        The penalty. Its weight is the field `columns_experts` or `columns_gate` of `hyper`.

    Raises
    ------
    ValueError
        If `part` is neither "experts" nor "gate"; if there is no group, a group is empty or groups overlap; if a column
        number is negative or not an integer. A column beyond the last one raises when the penalty is first used.

    Notes
    -----
    The penalty is weight * sum over experts k and groups B of sqrt(|B|) * ||b_kB||, where b_kB holds the coefficients of the
    columns B in expert k, over outputs, and ||.|| is the Euclidean norm [1]_.

    References
    ----------
    .. [1] Yuan and Lin (2006), "Model selection and estimation in regression with grouped variables", Journal of the Royal
       Statistical Society B.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from moejax import penalties
    >>> factor = penalties.group_columns("experts", [[0, 1, 2, 3]])
    >>> float(factor.value([jnp.array([[1.0, 1.0, 1.0, 1.0, 9.0]])]))  # sqrt(4) * 2; the last column is in no group
    4.0
    """
    blocks = tuple(_block(block) for block in _checks.sequence("groups", groups, "a sequence of groups of columns"))
    columns = [column for block in blocks for column in block]
    if not columns:
        raise ValueError("groups: none were given; want at least one group of columns")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise ValueError(f"groups: column {twice} was given more than once; want groups that do not overlap")
    return Columns(checked_part(part), blocks)


def _block(block: Any) -> tuple[int, ...]:
    """Return the column numbers of one group as a tuple, or raise ValueError."""
    columns = _checks.array("groups", block)
    if columns.ndim != 1 or columns.dtype.kind not in "iu" or not columns.size or columns.min() < 0:
        given = _checks.shown(block)
        raise ValueError(f"groups: {given} was given; want column numbers, at least one a group and none negative")
    return tuple(columns.tolist())
