"""Penalties on coefficients: the value and the proximal step of each, for a weight that is a traced number.

`Penalty` is the contract. A user's own penalty is any object with `name`, `part`, `value(coefficients)` and
`prox(coefficients, t)`, for example a named tuple or a `types.SimpleNamespace`.

The argument t is a number, or an array that broadcasts against every array of coefficients. An array gives each coefficient
its own step; the steps are constant over each group that the penalty couples. A step of 0 leaves coefficients unchanged. A
step of infinity makes them 0.

Coefficients have shape (K, d) or (K, d, m): experts, features, outputs. The coefficients of a user's own expert may have any
shape if the penalty acts on single coefficients; penalties on groups need features on the second axis. No penalty here
couples one array with another. Values are sums over coefficients, never means. Intercepts, logits without inputs and scales
are not coefficients.

Notes
-----
The proximal steps of several penalties on one part are applied one after another, in the given order. For L1, then a group
penalty, then L2, the result is the proximal step of their sum: this is the sparse group lasso [1]_, whose step is the group
step after the soft threshold, followed by a ridge, which only scales. For other orders the result is only close to the step
of the sum; `kkt` and the proximal solvers treat it as that step.

References
----------
.. [1] Simon, Friedman, Hastie and Tibshirani (2013), "A sparse-group lasso", Journal of Computational and Graphical
   Statistics.
"""

from moejax.penalties._base import Penalty as Penalty
from moejax.penalties._base import PenaltyLike as PenaltyLike
from moejax.penalties._base import completed as completed
from moejax.penalties._base import completed_all as completed_all
from moejax.penalties._formulas import Coefficients as Coefficients
from moejax.penalties._groups import Columns as Columns
from moejax.penalties._groups import Group as Group
from moejax.penalties._groups import group as group
from moejax.penalties._groups import group_columns as group_columns
from moejax.penalties._single import L1 as L1
from moejax.penalties._single import L2 as L2
from moejax.penalties._single import ElasticNet as ElasticNet
from moejax.penalties._single import elastic_net as elastic_net
from moejax.penalties._single import l1 as l1
from moejax.penalties._single import l2 as l2
from moejax.penalties._terms import Terms as Terms
from moejax.penalties._terms import check_order as check_order
from moejax.penalties._terms import kkt as kkt
from moejax.penalties._terms import shrunk as shrunk
from moejax.penalties._terms import standard as standard
from moejax.penalties._terms import stepped as stepped

__all__ = [
    "L1",
    "L2",
    "Coefficients",
    "Columns",
    "ElasticNet",
    "Group",
    "Penalty",
    "PenaltyLike",
    "Terms",
    "check_order",
    "completed",
    "completed_all",
    "elastic_net",
    "group",
    "group_columns",
    "kkt",
    "l1",
    "l2",
    "standard",
    "stepped",
]
