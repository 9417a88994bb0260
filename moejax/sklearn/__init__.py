"""Mixtures of experts as scikit-learn estimators: `MoERegressor` and `MoEClassifier`. They need scikit-learn 1.6 or newer.

    from moejax.sklearn import MoERegressor

    model = MoERegressor(n_experts=3, l1_experts=0.01, random_state=0).fit(X, y)
    model.coef_, model.predict(X), model.responsibilities(X, y)

Parts are names or objects: `MoERegressor(gate=gates.top_k(2), experts=experts.tied(3), family=families.gaussian())`, from
`moejax` or of a user's own. Everything is checked before anything compiles.

A fit is one sweep over `n_init` starts; the admissible fit of lowest objective counts. Columns of X and a target on the real
line are standardised first, by population standard deviations (weighted, if rows have weights; a column that does not vary
is only centred). Penalties, `objective_` and `params_` are on that scale. Everything else is in the user's units. If X is
float32, a fit is in float32; otherwise it is in float64. JAX's own default does not matter.

Mixtures of any other estimators are `MoEStackingRegressor`, `MoEEnsembleRegressor` and the two classifiers of the same
kind. They are here and in `moejax.ensembles`.
"""

import importlib

try:
    importlib.import_module("sklearn.base")
except ImportError as error:
    raise ImportError(f"moejax.sklearn: {error}; want pip install 'moejax[sklearn]'") from error


from moejax.sklearn._classifier import MoEClassifier as MoEClassifier
from moejax.sklearn._ensembles import MoEEnsembleClassifier as MoEEnsembleClassifier
from moejax.sklearn._ensembles import MoEEnsembleRegressor as MoEEnsembleRegressor
from moejax.sklearn._regressor import MoERegressor as MoERegressor
from moejax.sklearn._stacking import MoEStackingClassifier as MoEStackingClassifier
from moejax.sklearn._stacking import MoEStackingRegressor as MoEStackingRegressor

__all__ = [
    "MoEClassifier",
    "MoEEnsembleClassifier",
    "MoEEnsembleRegressor",
    "MoERegressor",
    "MoEStackingClassifier",
    "MoEStackingRegressor",
]
