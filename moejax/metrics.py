"""Quality of class probabilities: log loss, accuracy and calibration; see `moejax.predict`."""

from moejax.predict._metrics import Calibration as Calibration
from moejax.predict._metrics import accuracy as accuracy
from moejax.predict._metrics import calibration as calibration
from moejax.predict._metrics import log_loss as log_loss

__all__ = [
    "Calibration",
    "accuracy",
    "calibration",
    "log_loss",
]
