"""Mixtures of any estimators: stacking, and ensembles trained inside EM; see `moejax.sklearn`."""

from moejax.sklearn import MoEEnsembleClassifier as MoEEnsembleClassifier
from moejax.sklearn import MoEEnsembleRegressor as MoEEnsembleRegressor
from moejax.sklearn import MoEStackingClassifier as MoEStackingClassifier
from moejax.sklearn import MoEStackingRegressor as MoEStackingRegressor

__all__ = [
    "MoEEnsembleClassifier",
    "MoEEnsembleRegressor",
    "MoEStackingClassifier",
    "MoEStackingRegressor",
]
