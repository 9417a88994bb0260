"""Penalties on coefficients. Each owns its value and its proximal step, for a weight that a fit gets as a traced number.

A penalty is any record with

    name                                        the field of `hyper` that holds its weight
    part                                        "experts" or "gate": whose coefficients it sees
    value(coefficients) -> scalar               of a list of arrays; the objective has weight * value
    prox(coefficients, t) -> coefficients       arg min over v of  t * value(v) + |v - coefficients|^2 / 2

and, where it helps,

    critical(gradients) -> scalar               the smallest weight at which coefficients that are all 0 are optimal, given
                                                the gradient of the mean loss there; infinity if there is none
    majorant(h) -> h                            curvatures at least as large as h > 0, of the shape of one array of
                                                coefficients, and constant over what the penalty couples; a penalty
                                                without it acts on every coefficient alone
    curvature(coefficients) -> like them        of one array: a diagonal second derivative of the value where no
                                                coefficient is 0; EM then makes Newton steps, for which it also wants
    of_experts(coefficients) -> (K,)            the value of each expert's coefficients in one array, and
    kinked                                      whether the value has a kink where a coefficient changes sign
    place                                       where its proximal step may stand among those of others, see `check_order`

t is a number, or an array that broadcasts against every array of coefficients: a step of its own for each coefficient,
constant over what the penalty couples. A step of 0 leaves coefficients as they are, and one of infinity makes them 0.

Coefficients are (K, d) or (K, d, m): experts lead, features next, outputs last. Those of somebody's own expert have any
shape, which suits penalties on single coefficients; penalties on groups want features on the second axis. No penalty
here couples one array with another. Values are sums over coefficients, never means, and intercepts, logits without inputs
and scales are not coefficients.

Proximal steps of several penalties on one part are applied one after another in the order given. That is the proximal step
of their sum for L1, then a group penalty, then L2: the sparse group lasso (Simon, Friedman, Hastie and Tibshirani 2013),
whose step is the group's after the soft threshold, and a ridge last, which only scales. What other orders yield is near the
step of the sum, and no more; `kkt` and the proximal solvers take it for that.
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
