"""The EM solver; see `moejax.solvers`."""

from moejax.solvers import EMFit as EMFit
from moejax.solvers import fit_em as fit_em

__all__ = [
    "EMFit",
    "fit_em",
]
