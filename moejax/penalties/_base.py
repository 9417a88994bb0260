"""The contract of penalties."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp
from jaxtyping import Array, Float

from moejax import _checks
from moejax._arrays import Coefficients, Floats, Scalar
from moejax._contracts import Contract, Record, capability, is_whole, missing

FUNCTIONS = ("value", "prox")


class PenaltyLike(Protocol):
    """Any record with the two names and the two functions that a penalty needs."""

    @property
    def name(self) -> str:
        """Field of `hyper` that holds the weight."""

    @property
    def part(self) -> str:
        """Part whose coefficients are penalised."""

    def value(self, coefficients: Coefficients, /) -> Scalar:
        """Return the value without the weight."""

    def prox(self, coefficients: Coefficients, t: Any, /) -> Coefficients:
        """Return the proximal step."""


class Penalty(Contract):
    """The contract of penalties on the coefficients of one part.

    A user's own record needs only `name`, `part`, `value` and `prox`; `fit_em` and `fit_gradient` complete it with the
    defaults that stand here.

    Attributes
    ----------
    part : {"experts", "gate"}
        Required: the part whose coefficients are penalised.
    blocks : tuple of tuple of int, default empty
        Columns that the penalty couples, which EM moves together.
    place : (int, int) or None, default None
        The position of the proximal step among those of other penalties, see `check_order`; None is not checked.
    has_critical : bool, default False
        Capability: `critical`, from which automatic sequences of weights follow.

    Notes
    -----
    Required: `name`, `part`, `value`, `prox`. Optional, with a default: `separable`, `blocks`, `place`, `majorant`,
    `curvature`.

    Shapes: coefficients are a list of arrays (K, d) or (K, d, m): experts, features, outputs.
    """

    role: ClassVar[str] = "penalty"
    part: str
    place: tuple[int, int] | None = None
    blocks: tuple[tuple[int, ...], ...] = ()
    has_critical: bool = False

    @property
    def separable(self) -> tuple[float, float] | None:
        """Weights a and b of a value that is the sum of a |c| + b c^2 over coefficients; by default None, for another value.

        EM solves its quadratics by coordinate descent in closed form if all penalties are of this kind, and else by `prox`.
        """
        return None

    # ---- required -----------------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Field of `hyper` that holds the weight."""

    @abc.abstractmethod
    def value(self, coefficients: Coefficients) -> Scalar:
        """Return the value without the weight; the objective contains weight * value.

        Parameters
        ----------
        coefficients : list of jax.Array
            The coefficients of the part.

        Returns
        -------
        jax.Array, ()
            The total over all arrays.
        """

    @abc.abstractmethod
    def prox(self, coefficients: Coefficients, t: Floats | float) -> Coefficients:
        """Return the arg min over v of t * value(v) + |v - coefficients|^2 / 2.

        Parameters
        ----------
        coefficients : list of jax.Array
            The coefficients of the part.
        t : float or jax.Array
            Step times weight. An array broadcasts against every array of coefficients and is constant over what the penalty
            couples. 0 leaves the coefficients unchanged; infinity makes them 0.

        Returns
        -------
        list of jax.Array
            The new coefficients, with the shapes of `coefficients`.
        """

    # ---- optional -----------------------------------------------------------------------------------------------

    def majorant(self, h: Float[Array, "K ..."]) -> Float[Array, "K ..."]:
        """Return curvatures at least as large as h, and constant over what the penalty couples; by default h.

        Parameters
        ----------
        h : jax.Array
            Curvatures above 0, shaped like one array of coefficients.

        Returns
        -------
        jax.Array
            Curvatures of the same shape.
        """
        return h

    def curvature(self, coefficients: Float[Array, "K ..."]) -> Float[Array, "K ..."]:
        """Return the diagonal second derivative where no coefficient is 0, or less; by default 0.

        Above 0, the penalty alone determines every coefficient, and collinear columns do no harm.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients.

        Returns
        -------
        jax.Array
            Second derivatives, with the shape of `coefficients`.
        """
        return jnp.zeros_like(coefficients)

    # ---- capabilities -------------------------------------------------------------------------------------------

    @capability("has_critical")
    def critical(self, gradients: Coefficients) -> Scalar:
        """Return the smallest weight at which coefficients that are all 0 are optimal.

        Parameters
        ----------
        gradients : list of jax.Array
            Gradient of the mean loss where the coefficients are 0, with the shapes of the coefficients.

        Returns
        -------
        jax.Array, ()
            Infinity if no weight is large enough.
        """


class OwnPenalty(Record, Penalty):
    """A user's own record as a penalty."""

    _record: PenaltyLike

    @property
    def name(self) -> str:
        """Name of the record."""
        return self._record.name

    def value(self, coefficients: Coefficients) -> Scalar:
        """Return what the record's `value` returns."""
        return self._record.value(coefficients)

    def prox(self, coefficients: Coefficients, t: Floats | float) -> Coefficients:
        """Return what the record's `prox` returns."""
        return self._record.prox(coefficients, t)


def completed(penalty: PenaltyLike) -> Penalty:
    """Return a penalty with all methods of the contract.

    Parameters
    ----------
    penalty : PenaltyLike
        A penalty from `moejax.penalties`, or a user's own record.

    Returns
    -------
    Penalty
        The penalty itself, or the record with the defaults.

    Raises
    ------
    ValueError
        If a required name or function is missing, or if `part` is neither "experts" nor "gate".
    """
    if isinstance(penalty, Penalty) and is_whole(penalty, Penalty):
        return penalty
    absent = missing(penalty, FUNCTIONS, ("name", "part"))
    if absent:
        given = f"{_checks.shown(penalty)} was given, which has no {' and no '.join(absent)}"
        raise ValueError(f"penalty: {given}; want records as in moejax.penalties")
    if penalty.part not in ("experts", "gate"):
        raise ValueError(f'penalty: {_checks.shown(penalty)} has the part {penalty.part!r}; want "experts" or "gate"')
    return OwnPenalty(penalty)


def completed_all(penalties: Any) -> tuple[Penalty, ...]:
    """Return penalties as a tuple, each with all methods of the contract.

    Parameters
    ----------
    penalties : PenaltyLike or sequence of PenaltyLike
        One penalty, or several.

    Returns
    -------
    tuple of Penalty
        The penalties in the same order.

    Raises
    ------
    ValueError
        As `completed`.
    """
    several = isinstance(penalties, list | tuple) and missing(penalties, FUNCTIONS)  # a named tuple may be one penalty
    return tuple(map(completed, penalties if several else (penalties,)))
