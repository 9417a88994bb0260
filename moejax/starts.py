"""Where EM begins: responsibilities drawn from the data; see `moejax.solvers`."""

from moejax.solvers._starts import EQUAL as EQUAL
from moejax.solvers._starts import KINDS as KINDS
from moejax.solvers._starts import MIXED as MIXED
from moejax.solvers._starts import check_distinct as check_distinct
from moejax.solvers._starts import check_init as check_init
from moejax.solvers._starts import check_name as check_name
from moejax.solvers._starts import check_responsibilities as check_responsibilities
from moejax.solvers._starts import draw as draw
from moejax.solvers._starts import kmeans as kmeans
from moejax.solvers._starts import residuals as residuals
from moejax.solvers._starts import shared_rows as shared_rows
from moejax.solvers._starts import standardized as standardized

__all__ = [
    "EQUAL",
    "KINDS",
    "MIXED",
    "check_distinct",
    "check_init",
    "check_name",
    "check_responsibilities",
    "draw",
    "kmeans",
    "residuals",
    "shared_rows",
    "standardized",
]
