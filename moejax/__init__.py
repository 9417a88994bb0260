"""Sparse mixtures of experts in JAX: whole grids of penalties, restarts and folds trained as one compiled program.

    model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), n_experts=3)
    fit = moejax.fit_gradient(model, steps=1000)
    grid = moejax.sweep(fit, {"l1_experts": [0.0, 0.001, 0.01], "restart": 10, "fold": 5})
    chosen = moejax.select(grid(key, x, y))

`moejax.plots` (matplotlib) is imported only when asked for.
"""

from moejax import (
    datasets,
    division,
    experts,
    families,
    gates,
    handwritten,
    losses,
    metrics,
    penalties,
    pooling,
    solvers,
    stacking,
)
from moejax import em as em
from moejax import fit as fit
from moejax import gradient as gradient
from moejax import selection as selection
from moejax import starts as starts
from moejax import tied as tied
from moejax import typing as typing
from moejax._cache import cache
from moejax.model import Model, moe
from moejax.predict import Usage, usage
from moejax.solvers import Fit, Status, describe, fit_em, fit_gradient, path
from moejax.sweeps import select, sweep

__all__ = [
    "Fit",
    "Model",
    "Status",
    "Usage",
    "cache",
    "datasets",
    "describe",
    "division",
    "experts",
    "families",
    "fit_em",
    "fit_gradient",
    "gates",
    "handwritten",
    "losses",
    "metrics",
    "moe",
    "path",
    "penalties",
    "pooling",
    "select",
    "solvers",
    "stacking",
    "sweep",
    "usage",
]
