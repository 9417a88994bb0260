"""Stacking: predictions of fitted models, in and out of fold, as experts of a mixture; see `moejax.predict`."""

from moejax.predict._stacking import LEAST as LEAST
from moejax.predict._stacking import fit_copy as fit_copy
from moejax.predict._stacking import fold_labels as fold_labels
from moejax.predict._stacking import is_classifier as is_classifier
from moejax.predict._stacking import linear_forecasts as linear_forecasts
from moejax.predict._stacking import losses as losses
from moejax.predict._stacking import out_of_fold as out_of_fold
from moejax.predict._stacking import predictions as predictions
from moejax.predict._stacking import rows_of as rows_of
from moejax.predict._stacking import weight_argument as weight_argument

__all__ = [
    "LEAST",
    "fit_copy",
    "fold_labels",
    "is_classifier",
    "linear_forecasts",
    "losses",
    "out_of_fold",
    "predictions",
    "rows_of",
    "weight_argument",
]
