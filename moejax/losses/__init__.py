"""Losses: the mean over rows that a fit improves, before penalties.

A loss is any record with

    value(model, params, data, weights) -> scalar      data: a `moejax.model.Data`; weights: (n,), of sum 1

and, where it helps, `has_likelihood`, whether it is a mixture's negative log-likelihood (else no); `check(model)`, which
raises where model and loss do not go together; `score`, called like `value`, for rows that were not fitted: without what a
fit's own params or held responsibilities add to the loss; `complete`, whether it wants responsibilities that are held, which
a fit then gets as `start` and hands on in `data.division`; and `hyper`, names of its own numbers that a fit may set, with
their defaults, read from `data.hyper`.
"""

from moejax.losses._balanced import Balanced as Balanced
from moejax.losses._balanced import balanced as balanced
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
    "NegativeLogLikelihood",
    "SquaredError",
    "balanced",
    "classification_nll",
    "complete_nll",
    "complete_of",
    "complete_squared_error",
    "joint_nll",
    "likelihood_of",
    "nll",
    "of_units",
    "squared_error",
    "truncated_nll",
    "weighted_sum",
]
