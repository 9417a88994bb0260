"""Kinds of target of an estimator: real numbers, or labels of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from moejax import _checks, families
from moejax.sklearn._estimators import labels_of, moments, target_of

_FLOOR = 1e-3  # floor of variances; any estimators differ more in accuracy than linear experts, so it is below the default


@dataclass(frozen=True)
class Reals:
    """A real target; the model gets (y - mean) / scale.

    Parameters
    ----------
    mean : float
        Weighted mean of the training targets.
    scale : float
        Weighted population standard deviation of the training targets.

    Attributes
    ----------
    numbers : None
        Estimators of a real target have no class numbers.
    """

    mean: float
    scale: float
    numbers: ClassVar[None] = None

    @staticmethod
    def plain(y: Any) -> Any:
        """Return y as a plain array of numbers, or raise ValueError or TypeError."""
        return target_of(y)

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> Reals:
        """Construct from training targets and their weights."""
        mean, scale = moments(y, weights)
        return cls(float(mean), float(scale))

    @staticmethod
    def checked(y: Any) -> np.ndarray:
        """Return y as floats, or raise ValueError if it is not finite."""
        _checks.finite("y", y)
        return np.asarray(y, float)

    def encoded(self, y: np.ndarray) -> np.ndarray:
        """Return y as the estimators get it: unchanged."""
        return y

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Return the estimators' target as the model gets it."""
        return (y - self.mean) / self.scale

    def predictors(self, predicted: np.ndarray) -> np.ndarray:
        """Return the estimators' predictions, (n, K), as the model's experts."""
        return (predicted - self.mean) / self.scale

    def columns(self, predicted: np.ndarray) -> np.ndarray:
        """Return the estimators' predictions, (n, K), as the gate sees them."""
        return predicted

    @property
    def family(self) -> Any:
        """The family of the model under a likelihood."""
        return families.gaussian(variance_floor=_FLOOR)


@dataclass(frozen=True)
class Labels:
    """Labels of classes; the estimators and the model get class numbers.

    Parameters
    ----------
    classes : numpy.ndarray, (C,)
        Sorted labels.

    Attributes
    ----------
    scale : float
        1: probabilities have no unit.
    """

    classes: np.ndarray
    scale: ClassVar[float] = 1.0

    @staticmethod
    def plain(y: Any) -> Any:
        """Return labels as they are, or raise ValueError for masked ones."""
        return labels_of(y)

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> Labels:
        """Construct from training labels and their weights, or raise ValueError for a single class."""
        classes, present = np.unique(y), np.unique(y[weights > 0])
        if len(present) < 2:
            raise ValueError(
                f"y: all rows of positive weight have the label {present.tolist()[0]!r}; want more than one class"
            )
        return cls(classes)

    @staticmethod
    def checked(y: Any) -> np.ndarray:
        """Return labels as an array, or raise ValueError if they are not classes."""
        check_classification_targets(y)
        return np.asarray(y)

    def encoded(self, y: np.ndarray) -> np.ndarray:
        """Return class numbers, or raise ValueError for an unknown label."""
        unknown = np.setdiff1d(y, self.classes)
        if unknown.size:
            raise ValueError(f"y: label {unknown[0]!r} was given; want labels among {self.classes.tolist()}")
        return np.searchsorted(self.classes, y)

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Return class numbers as floats."""
        return y.astype(float)

    @property
    def numbers(self) -> np.ndarray:
        """Class numbers, (C,): the labels of the estimators."""
        return np.arange(len(self.classes))

    def predictors(self, predicted: np.ndarray) -> np.ndarray:
        """Return the estimators' log probabilities, (n, K, C), as the model's experts."""
        return predicted

    def columns(self, predicted: np.ndarray) -> np.ndarray:
        """Return probabilities, (n, K C), as the gate sees them.

        Logarithms of small probabilities would dominate all other columns.
        """
        columns: np.ndarray = np.exp(predicted).reshape(len(predicted), -1)
        return columns

    @property
    def family(self) -> Any:
        """The family of the model."""
        return families.categorical(len(self.classes))
