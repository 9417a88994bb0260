"""Pooling: predictions and predictive distributions of a fitted mixture; see `moejax.predict`."""

from moejax.predict._pooling import Modes as Modes
from moejax.predict._pooling import cdf as cdf
from moejax.predict._pooling import classes as classes
from moejax.predict._pooling import density as density
from moejax.predict._pooling import interval as interval
from moejax.predict._pooling import modes as modes
from moejax.predict._pooling import predict as predict
from moejax.predict._pooling import probabilities as probabilities
from moejax.predict._pooling import quantiles as quantiles

__all__ = [
    "Modes",
    "cdf",
    "classes",
    "density",
    "interval",
    "modes",
    "predict",
    "probabilities",
    "quantiles",
]
