"""Divisions of the columns of x among experts, each of which sees only its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._contracts import by_expert
from moejax.experts._base import Expert, ExpertLike, completed


@dataclass(frozen=True)
class Choices:
    """Divisions of columns among experts; see `by_columns`.

    Attributes
    ----------
    columns : tuple of tuple of tuple of int
        Columns of each division and each expert. A number in params says which division holds.
    """

    columns: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `columns`, which division holds, if there are several."""
        return {"columns": 0} if len(self.columns) > 1 else {}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number of a division that does not exist.

        Parameters
        ----------
        name : str
            The name in `hyper`.
        value : array_like
            The number of a division, from 0.
        """
        _checks.whole(f"hyper[{name!r}]", value, 0, len(self.columns) - 1)

    def init(self, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Return the number of the division that holds, unless there is only one.

        Parameters
        ----------
        n_experts : int
            K.
        x : jax.Array, (n, d)
            Inputs.

        Returns
        -------
        dict of str to jax.Array
            `columns`, or nothing.

        Raises
        ------
        ValueError
            If the divisions are for another number of experts, or if x lacks a column.
        """
        _checks.shape("x", x, (None, None), "an array, since its columns are divided among the experts")
        for choice in self.columns:
            check_division("expert_columns", choice, n_experts)
            last = max(map(max, choice))
            if last >= x.shape[1]:
                raise ValueError(f"expert_columns: column {last} was given; want columns below {x.shape[1]}, those of x")
        return {name: jnp.asarray(number, x.dtype) for name, number in self.hyper.items()}

    def reordered(self, order: Any) -> Choices:
        """Return the divisions for the experts in another order.

        Parameters
        ----------
        order : sequence of int, (K,)
            The present numbers of the experts.

        Returns
        -------
        Choices
            The divisions.
        """
        return Choices(tuple(tuple(choice[k] for k in order) for choice in self.columns))

    def own(self, params: Any) -> Any:
        """Return the params of the expert alone.

        Parameters
        ----------
        params : pytree
            Params of divided experts.

        Returns
        -------
        pytree
            The params without the number of a division.
        """
        return {name: v for name, v in params.items() if name not in self.hyper} if self.hyper else params

    def seen(self, params: Any, d: int, dtype: Any) -> jax.Array:
        """Return which columns each expert sees.

        Parameters
        ----------
        params : pytree
            Params of divided experts.
        d : int
            Number of columns.
        dtype : dtype
            Type of the result.

        Returns
        -------
        jax.Array, (K, d)
            1 for each column that an expert sees and 0 for the others.
        """
        masks = np.zeros((len(self.columns), len(self.columns[0]), d))
        for choice, mask in zip(self.columns, masks, strict=True):
            for row, columns in zip(mask, choice, strict=True):
                row[list(columns)] = 1
        number = params["columns"].astype(jnp.int32) if self.hyper else 0
        return jnp.asarray(masks, dtype)[number]


@dataclass(frozen=True)
class Zeroed(Expert):
    """Experts that see x with the columns of the others set to 0; made by `by_columns`.

    Attributes
    ----------
    expert : Expert
        The experts that are divided.
    choices : Choices
        The columns of each.
    """

    expert: Expert
    choices: Choices
    is_divided = True

    @property
    def inits_by_shape(self) -> bool:
        """Whether the `init` of the divided experts looks at shapes alone."""
        return self.expert.inits_by_shape

    @property
    def declares_penalized(self) -> bool:
        """Whether the divided experts say which arrays are penalised."""
        return self.expert.declares_penalized

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: those of the divided experts, and the number of the division."""
        return {**self.expert.hyper, **self.choices.hyper}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number that cannot be."""
        if name in self.choices.hyper:
            self.choices.check_hyper(name, value)
        else:
            self.expert.check_hyper(name, value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Any:
        """Return the params of the divided experts, with the number of the division beside them where there are several."""
        number, params = self.choices.init(n_experts, x), self.expert.init(key, n_experts, x)
        shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
        if not shapes or any(shape[:1] != (n_experts,) for shape in shapes):
            raise ValueError(f"expert: params of shapes {shapes} in divided columns; want {n_experts} experts first in all")
        if not number:
            return params
        if not isinstance(params, dict):
            raise ValueError(f"expert: params of type {type(params).__name__}, among choices of columns; want a dictionary")
        return {**params, **number}

    def trainable(self, params: Any) -> Any:
        """Return what the divided experts say; the number of the division is not trained."""
        return self._marked(self.expert.trainable(self.choices.own(params)))

    def penalized(self, params: Any) -> Any:
        """Return what the divided experts say; the number of the division is not penalised."""
        return self._marked(self.expert.penalized(self.choices.own(params)))

    def _marked(self, own: Any) -> Any:
        return {**own, **dict.fromkeys(self.choices.hyper, False)} if self.choices.hyper else own

    def reordered(self, params: Any, order: Any) -> tuple[Zeroed, Any]:
        """Return the experts, their columns and their params in another order."""
        return Zeroed(self.expert, self.choices.reordered(order)), by_expert(params, order)

    def apply(self, params: Any, x: jax.Array) -> jax.Array:
        """Return the predictions of each expert from its own columns, (K, n) or (K, n, m)."""

        def one(own: Any, seen: jax.Array) -> jax.Array:
            rows = self.expert.prepare(seen * x)
            return self.expert.apply(jax.tree.map(lambda leaf: leaf[None], own), rows)[0]

        return jax.vmap(one)(self.choices.own(params), self.choices.seen(params, x.shape[1], x.dtype))


def by_columns(expert: ExpertLike, choices: Sequence[Sequence[Sequence[int]]]) -> Expert:
    """Return the same experts, each of which sees only columns of its own.

    Parameters
    ----------
    expert : ExpertLike
        A part from `moejax.experts`, or a user's own record. Params have experts on the leading axis of all arrays.
    choices : sequence of sequence of sequence of int
        Divisions, each with the columns of every expert, counted from 0. A column may belong to several experts, or to none.
        With more than one division, the field `columns` of `hyper` is the number of the one that holds, from 0 and by
        default 0. It can be an axis of a sweep.

    Returns
    -------
    Expert
        The divided experts.

    Raises
    ------
    ValueError
        If there is no division, if divisions are for different numbers of experts, if an expert has no column or a column is
        negative or repeated, or if the experts are divided already or tied. Once inputs are known: if x lacks a column, or
        if params do not have experts first, such as those of `predictions`.

    Notes
    -----
    Linear experts have coefficients of exactly 0 for the columns of others. These are not fitted and not counted. To other
    experts the other columns are 0, and EM takes gradient steps for them. `moe(..., expert_columns=[(0, 1), (2, 3)])` is
    shorthand for a single division.
    """
    expert = completed(expert)
    if expert.is_divided:
        raise ValueError(f"expert: {expert!r} has columns of its own already; want to divide them once")
    if expert.has_distribution:
        raise ValueError(f"expert: {expert!r} has a distribution of coefficients; want others, to divide columns among")
    choices = _checks.sequence("choices", choices, "a sequence of divisions of the columns")
    if not choices:
        raise ValueError("choices: none was given; want at least one division of the columns")
    for number, choice in enumerate(choices):
        each = _checks.sequence(f"choices[{number}]", choice, "the columns of each expert")
        check_division(f"choices[{number}]", each, len(choices[0]))
    divided = Choices(tuple(tuple(tuple(int(c) for c in columns) for columns in choice) for choice in choices))
    return expert.by_columns(divided)


def check_division(name: str, columns: Any, n_experts: int) -> None:
    """Raise ValueError unless each expert has at least one column, none negative or repeated.

    Parameters
    ----------
    name : str
        The name of the argument, for the message.
    columns : sequence of sequence of int
        Columns of each expert.
    n_experts : int
        K.
    """
    columns = _checks.sequence(name, columns, f"the columns of each of {n_experts} experts")
    if len(columns) != n_experts:
        raise ValueError(f"{name}: columns of {len(columns)} experts were given; want those of {n_experts}")
    for k, own in enumerate(columns):
        given = _checks.array(name, own)
        whole = given.ndim == 1 and given.size and given.dtype.kind in "iu"
        if not whole or given.min() < 0 or len(set(given.tolist())) < len(given):
            wanted = f"at least one column index for expert {k}, none negative or repeated"
            raise ValueError(f"{name}: {_checks.shown(own)} was given; want {wanted}")
