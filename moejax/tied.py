"""Experts whose coefficients are tied, as `moejax.experts.tied` makes them, and a criterion for them."""

from moejax.experts._tied import FORMS as FORMS
from moejax.experts._tied import Tied as Tied
from moejax.experts._tied import icl as icl
from moejax.experts._tied import tied as tied

__all__ = [
    "FORMS",
    "Tied",
    "icl",
    "tied",
]
