"""Penalties on coefficients: the value and the proximal step of each, for a weight that is a traced number.

A penalty is any object with these members:

    name                                        the field of `hyper` that holds the weight
    part                                        "experts" or "gate": the part whose coefficients are penalised
    value(coefficients) -> scalar               takes a list of arrays; the objective contains weight * value
    prox(coefficients, t) -> coefficients       arg min over v of  t * value(v) + |v - coefficients|^2 / 2

These members are optional:

    critical(gradients) -> scalar               the smallest weight at which coefficients that are all 0 are optimal, given
                                                the gradient of the mean loss at 0; infinity if no weight is large enough
    majorant(h) -> h                            curvatures at least as large as h > 0, with the shape of one array of
                                                coefficients, and constant over each group that the penalty couples;
                                                without this method every coefficient is treated separately
    curvature(coefficients) -> like them        for one array: the diagonal second derivative of the value where no
                                                coefficient is 0. With it EM makes Newton steps; it then also needs
    of_experts(coefficients) -> (K,)            the value of each expert's coefficients in one array, and
    kinked                                      whether the value has a kink where a coefficient changes sign
    place                                       the position of the proximal step among those of other penalties, see
                                                `check_order`

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
    "Terms",
    "check_order",
    "elastic_net",
    "group",
    "group_columns",
    "kkt",
    "l1",
    "l2",
    "standard",
    "stepped",
]
