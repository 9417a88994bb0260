"""What every solver returns: params, how good they are, and status flags in the place of exceptions."""

from moejax.solvers import INADMISSIBLE as INADMISSIBLE
from moejax.solvers import Fit as Fit
from moejax.solvers import Status as Status
from moejax.solvers import degrees_of_freedom as degrees_of_freedom
from moejax.solvers import describe as describe
from moejax.solvers import effective_sizes as effective_sizes
from moejax.solvers import finished as finished
from moejax.solvers import name_of as name_of
from moejax.solvers import normalized as normalized
from moejax.solvers import total_weight as total_weight

__all__ = [
    "INADMISSIBLE",
    "Fit",
    "Status",
    "degrees_of_freedom",
    "describe",
    "effective_sizes",
    "finished",
    "name_of",
    "normalized",
    "total_weight",
]
