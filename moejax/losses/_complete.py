"""The loss of held responsibilities that goes with a model."""

from __future__ import annotations

from moejax.losses._base import Loss
from moejax.losses._likelihood import complete_nll
from moejax.losses._squared_error import complete_squared_error
from moejax.model import Model


def complete_of(model: Model) -> Loss:
    """The loss of held responsibilities that goes with this model."""
    return complete_squared_error() if model.family is None else complete_nll()
