"""The gradient solver; see `moejax.solvers`."""

from moejax.solvers import GradientFit as GradientFit
from moejax.solvers import Optimizer as Optimizer
from moejax.solvers import TrainState as TrainState
from moejax.solvers import fit_gradient as fit_gradient

__all__ = [
    "GradientFit",
    "Optimizer",
    "TrainState",
    "fit_gradient",
]
