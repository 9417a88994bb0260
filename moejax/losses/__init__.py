"""Losses: the mean over rows that a fit improves, before penalties.

`Loss` is the contract. A user's own loss is any object with a function `value(model, params, data, weights)`.
"""

from moejax.losses._balanced import Balanced as Balanced
from moejax.losses._balanced import balanced as balanced
from moejax.losses._base import Loss as Loss
from moejax.losses._base import LossLike as LossLike
from moejax.losses._base import completed as completed
from moejax.losses._complete import complete_of as complete_of
from moejax.losses._likelihood import NegativeLogLikelihood as NegativeLogLikelihood
from moejax.losses._likelihood import classification_nll as classification_nll
from moejax.losses._likelihood import complete_nll as complete_nll
from moejax.losses._likelihood import joint_nll as joint_nll
from moejax.losses._likelihood import likelihood_of as likelihood_of
from moejax.losses._likelihood import nll as nll
from moejax.losses._likelihood import truncated_nll as truncated_nll
from moejax.losses._rows import of_units as of_units
from moejax.losses._rows import weighted_sum as weighted_sum
from moejax.losses._squared_error import CompleteSquaredError as CompleteSquaredError
from moejax.losses._squared_error import SquaredError as SquaredError
from moejax.losses._squared_error import complete_squared_error as complete_squared_error
from moejax.losses._squared_error import squared_error as squared_error

__all__ = [
    "Balanced",
    "CompleteSquaredError",
    "Loss",
    "LossLike",
    "NegativeLogLikelihood",
    "SquaredError",
    "balanced",
    "classification_nll",
    "complete_nll",
    "complete_of",
    "complete_squared_error",
    "completed",
    "joint_nll",
    "likelihood_of",
    "nll",
    "of_units",
    "squared_error",
    "truncated_nll",
    "weighted_sum",
]
