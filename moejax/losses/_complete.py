"""The loss of held responsibilities that goes with a model."""

from __future__ import annotations

from moejax.losses._base import Loss
from moejax.losses._likelihood import complete_nll
from moejax.losses._squared_error import complete_squared_error
from moejax.model import Model, check_model


def complete_of(model: Model) -> Loss:
    """Return the loss of held responsibilities that goes with a model.

    Parameters
    ----------
    model : Model
        From `moe`.

    Returns
    -------
    Loss
        `complete_nll`, or `complete_squared_error` for a model without a family.
    """
    check_model(model)
    return complete_squared_error() if model.family is None else complete_nll()
