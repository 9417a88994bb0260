"""The contract of losses."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from jaxtyping import Array, Float

from moejax import _checks
from moejax._arrays import Scalar
from moejax._contracts import Contract, Params, Record, capability, is_whole, missing

if TYPE_CHECKING:
    from moejax.model import Data, Model

FUNCTIONS = ("value",)


class LossLike(Protocol):
    """Any record with the function that a loss needs."""

    def value(self, model: Any, params: Params, data: Any, weights: Float[Array, " n"], /) -> Scalar:
        """Return the mean loss."""


class Loss(Contract):
    """The contract of losses: the mean over rows that a fit improves, before penalties.

    A user's own record needs only `value`; `fit_gradient` completes it with the defaults that stand here.

    Notes
    -----
    Required: `value`. Optional, with a default: `has_likelihood`, `complete`, `takes_groups`, `hyper`, `check`, `score`.
    Capability `has_sums`: `sums` and `of_sums`, by which large data are gone over in blocks of rows.

    A fit hands the responsibilities of a `complete` loss from `start` on in `data.division`, and the groups of one that
    `takes_groups` in `data.leader`. A loss reads the numbers of `hyper` from `data.hyper`.
    """

    role: ClassVar[str] = "loss"

    @property
    def hyper(self) -> Mapping[str, float]:
        """Numbers that a fit may set, with their defaults, none below 0; by default none."""
        return MappingProxyType({})

    @property
    def complete(self) -> bool:
        """Whether the loss wants responsibilities that are held; by default no."""
        return False

    @property
    def has_likelihood(self) -> bool:
        """Whether it is a mixture's negative log-likelihood; by default no."""
        return False

    @property
    def takes_groups(self) -> bool:
        """Whether the rows of a group share their expert; by default no."""
        return False

    @property
    def has_sums(self) -> bool:
        """Whether it follows from sums over rows, `sums` and `of_sums`; by default no."""
        return False

    @abc.abstractmethod
    def value(self, model: Model, params: Params, data: Data, weights: Float[Array, " n"]) -> Scalar:
        """Return the weighted mean over rows.

        Parameters
        ----------
        model : Model
            The model, whose methods take `data.x`.
        params : dict
            Params of the model.
        data : moejax.model.Data
            Prepared inputs, target, offset, groups, and numbers of `hyper`.
        weights : jax.Array, (n,)
            Of the rows, of sum 1.

        Returns
        -------
        jax.Array, ()
            The mean loss, without penalties.
        """

    @capability("has_sums")
    def sums(self, model: Model, params: Params, data: Data, weights: Float[Array, " n"]) -> Any:
        """Return sums over some of the rows, which add up to those over all.

        Parameters
        ----------
        model : Model
            The model.
        params : dict
            Params of the model.
        data : moejax.model.Data
            Some rows.
        weights : jax.Array, (n,)
            Of these rows. Those of all rows have sum 1.

        Returns
        -------
        pytree
            Sums, none of which is of the size of the rows.
        """
        raise NotImplementedError

    @capability("has_sums")
    def of_sums(
        self, model: Model, params: Params, sums: Any, total: Scalar | float, hyper: Mapping[str, Any] | None
    ) -> Scalar:
        """Return the mean loss that has these sums over all rows: `value`.

        Parameters
        ----------
        model : Model
            The model.
        params : dict
            Params of the model.
        sums : pytree
            What `sums` returned, added up.
        total : jax.Array or float, ()
            The total weight of the rows before they were scaled.
        hyper : mapping or None
            Numbers of the fit by name.

        Returns
        -------
        jax.Array, ()
            The mean loss, without penalties.
        """
        raise NotImplementedError

    def check(self, model: Model) -> None:
        """Raise ValueError where a model and the loss do not go together; by default never.

        Parameters
        ----------
        model : Model
            The model that a fit is configured for.
        """
        return None

    def score(self, model: Model, params: Params, data: Data, weights: Float[Array, " n"]) -> Scalar:
        """Return the mean loss of rows that were not fitted, by which selection compares; by default `value`.

        Parameters
        ----------
        model : Model
            The model.
        params : dict
            Params of the model.
        data : moejax.model.Data
            Other rows, without held responsibilities.
        weights : jax.Array, (n,)
            Of the rows, of sum 1.

        Returns
        -------
        jax.Array, ()
            Lower is better. What a fit's own params or held responsibilities add to the loss is left out.
        """
        return self.value(model, params, data, weights)


class OwnLoss(Record, Loss):
    """A user's own record as a loss."""

    _record: LossLike

    def value(self, model: Model, params: Params, data: Data, weights: Float[Array, " n"]) -> Scalar:
        """Return what the record's `value` returns."""
        return self._record.value(model, params, data, weights)


def completed(loss: LossLike) -> Loss:
    """Return a loss with all methods of the contract.

    Parameters
    ----------
    loss : LossLike
        A loss from `moejax.losses`, or a user's own record.

    Returns
    -------
    Loss
        The loss itself, or the record with the defaults.

    Raises
    ------
    ValueError
        If it has no function `value`.
    """
    if isinstance(loss, Loss) and is_whole(loss, Loss):
        return loss
    if missing(loss, FUNCTIONS):
        given = _checks.shown(loss)
        raise ValueError(f"loss: {given} was given; want a record with a function `value`, as in moejax.losses")
    return OwnLoss(loss)
