"""Solvers: what fits a model, by EM or by gradients, one fit or a path of them; and what a fit returns."""

from moejax.solvers._arguments import check_data as check_data
from moejax.solvers._arguments import check_groups as check_groups
from moejax.solvers._arguments import check_key as check_key
from moejax.solvers._base import Solver as Solver
from moejax.solvers._configured import Configured as Configured
from moejax.solvers._descent import LossSolver as LossSolver
from moejax.solvers._em import EMFit as EMFit
from moejax.solvers._em import fit_em as fit_em
from moejax.solvers._gradient import GradientFit as GradientFit
from moejax.solvers._gradient import Optimizer as Optimizer
from moejax.solvers._gradient import fit_gradient as fit_gradient
from moejax.solvers._own import OwnFit as OwnFit
from moejax.solvers._own import fit_with as fit_with
from moejax.solvers._path import Path as Path
from moejax.solvers._path import path as path
from moejax.solvers._result import INADMISSIBLE as INADMISSIBLE
from moejax.solvers._result import Fit as Fit
from moejax.solvers._result import Status as Status
from moejax.solvers._result import degrees_of_freedom as degrees_of_freedom
from moejax.solvers._result import describe as describe
from moejax.solvers._result import effective_sizes as effective_sizes
from moejax.solvers._result import finished as finished
from moejax.solvers._result import name_of as name_of
from moejax.solvers._result import normalized as normalized
from moejax.solvers._result import remedy as remedy
from moejax.solvers._result import total_weight as total_weight
from moejax.solvers._sequence import critical as critical
from moejax.solvers._sequence import is_count as is_count
from moejax.solvers._sequence import sequence as sequence
from moejax.solvers._training import TrainState as TrainState

__all__ = [
    "INADMISSIBLE",
    "Configured",
    "EMFit",
    "Fit",
    "GradientFit",
    "LossSolver",
    "Optimizer",
    "OwnFit",
    "Path",
    "Solver",
    "Status",
    "TrainState",
    "check_data",
    "check_groups",
    "check_key",
    "critical",
    "degrees_of_freedom",
    "describe",
    "effective_sizes",
    "finished",
    "fit_em",
    "fit_gradient",
    "fit_with",
    "is_count",
    "name_of",
    "normalized",
    "path",
    "remedy",
    "sequence",
    "total_weight",
]
