"""What kind of target an estimator has: real, or labels of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from moejax import _checks, families
from moejax.sklearn._estimators import moments

_FLOOR = 1e-3  # of variances; experts that are not linear in few columns may well differ by more than those of `gaussian`


@dataclass(frozen=True)
class Reals:
    """A real target, of which the model has (y - mean) / scale."""

    mean: float
    scale: float
    numbers: ClassVar[None] = None

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> Reals:
        mean, scale = moments(y, weights)
        return cls(float(mean), float(scale))

    @staticmethod
    def checked(y: Any) -> np.ndarray:
        _checks.finite("y", y)
        return np.asarray(y, float)

    def encoded(self, y: np.ndarray) -> np.ndarray:
        """y as estimators get it."""
        return y

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """What estimators get as the model gets it."""
        return (y - self.mean) / self.scale

    def predictors(self, said: np.ndarray) -> np.ndarray:
        """What estimators predict, (n, K), as predictors of the model."""
        return (said - self.mean) / self.scale

    def columns(self, said: np.ndarray) -> np.ndarray:
        """The same, as a gate sees it, (n, K)."""
        return said

    @property
    def family(self) -> Any:
        return families.gaussian(variance_floor=_FLOOR)


@dataclass(frozen=True)
class Labels:
    """Labels, of which estimators and the model have numbers."""

    classes: np.ndarray
    scale: ClassVar[float] = 1.0

    @classmethod
    def of(cls, y: np.ndarray, weights: np.ndarray) -> Labels:
        classes, there = np.unique(y), np.unique(y[weights > 0])
        if len(there) < 2:
            raise ValueError(f"y: {there.tolist()[0]!r} alone was given, among rows that count; want more than one class")
        return cls(classes)

    @staticmethod
    def checked(y: Any) -> np.ndarray:
        check_classification_targets(y)
        return np.asarray(y)

    def encoded(self, y: np.ndarray) -> np.ndarray:
        unknown = np.setdiff1d(y, self.classes)
        if unknown.size:
            raise ValueError(f"y: label {unknown[0]!r} was given; want labels among {self.classes.tolist()}")
        return np.searchsorted(self.classes, y)

    def scaled(self, y: np.ndarray) -> np.ndarray:
        return y.astype(float)

    @property
    def numbers(self) -> np.ndarray:
        """What classes are to estimators, (C,)."""
        return np.arange(len(self.classes))

    def predictors(self, said: np.ndarray) -> np.ndarray:
        return said

    def columns(self, said: np.ndarray) -> np.ndarray:
        """Probabilities, (n, K C), for logarithms of small ones would be all that a gate sees."""
        return np.exp(said).reshape(len(said), -1)

    @property
    def family(self) -> Any:
        return families.categorical(len(self.classes))
