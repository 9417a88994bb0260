"""Prediction with a fitted model, the quality of predictions, and the share of rows of each expert."""

from moejax.predict._metrics import Calibration as Calibration
from moejax.predict._metrics import accuracy as accuracy
from moejax.predict._metrics import calibration as calibration
from moejax.predict._metrics import log_loss as log_loss
from moejax.predict._pooling import Modes as Modes
from moejax.predict._pooling import cdf as cdf
from moejax.predict._pooling import classes as classes
from moejax.predict._pooling import density as density
from moejax.predict._pooling import interval as interval
from moejax.predict._pooling import modes as modes
from moejax.predict._pooling import predict as predict
from moejax.predict._pooling import probabilities as probabilities
from moejax.predict._pooling import quantiles as quantiles
from moejax.predict._usage import Usage as Usage
from moejax.predict._usage import usage as usage

__all__ = [
    "Calibration",
    "Modes",
    "Usage",
    "accuracy",
    "calibration",
    "cdf",
    "classes",
    "density",
    "interval",
    "log_loss",
    "modes",
    "predict",
    "probabilities",
    "quantiles",
    "usage",
]
