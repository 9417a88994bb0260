"""Sparse mixtures of experts in JAX: whole grids of penalties, restarts and folds trained as one compiled program.

    model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), n_experts=3)
    fit = moejax.fit_gradient(model, steps=1000)
    grid = moejax.sweep(fit, {"l1_experts": [0.0, 0.001, 0.01], "restart": 10, "fold": 5})
    chosen = moejax.select(grid(key, x, y))

`moejax.plots` (matplotlib) is imported only when asked for.
"""

from moejax import datasets, division, experts, families, gates, handwritten, losses, metrics, penalties, pooling, stacking
from moejax._cache import cache
from moejax.em import fit_em
from moejax.fit import Fit, Status
from moejax.gradient import fit_gradient
from moejax.model import Model, moe
from moejax.path import path
from moejax.selection import select
from moejax.sweep import sweep
from moejax.usage import Usage, usage

__all__ = [
    "Fit",
    "Model",
    "Status",
    "Usage",
    "cache",
    "datasets",
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
    "stacking",
    "sweep",
    "usage",
]
