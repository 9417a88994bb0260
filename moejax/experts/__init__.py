"""Experts: what each of the K experts says of a row, before any gate weighs it.

An expert is any record with two pure functions, for all K experts at once:

    init(key, n_experts, x) -> params            params: a pytree, experts on its leading axis
    apply(params, x) -> eta                      eta: (K, n), or (K, n, m) for m outputs

and, where it helps, `prepare(x)`, run once and shared by all members of a sweep, whose result `apply` then gets in the
place of x; `trainable(params)` and `penalized(params)`, trees of booleans (see `moejax.model`); `takes_any_array`, whether x
may be an array of any shape with n leading, such as images, rather than a table (n, d); `hyper`, `check_hyper` and
`settled`, as for gates; `degrees_of_freedom(params) -> (K,)`, two more rows than which an expert needs so as not to count as
starved (without it, two; none where nothing in params is trained, as in the empty params of experts that are fitted
already); and `by_columns(choices)`, for the function of that name. `stack` makes such a record of the two functions of a
single expert, and `neural` of a network.

For an M-step of its own in EM (without it, it gets gradient steps on EM's expected objective):

    statistics(rows, curvature, slope, total) -> statistics
                                                         sums over rows; curvature, slope: like eta, of the mean loss in eta;
                                                         total: the weight of all rows, by which the mean divides
    m_step(params, gradient, statistics, penalties) -> params
    rows(x) -> rows                                      optional: computed once from what `prepare` returned
    null(params, eta) -> params                          optional: where to begin from given responsibilities, predicting eta
    begin(params, statistics, key) -> params             optional: where to begin, from the statistics at `null`, where an
                                                         M-step from there could not part what begins equal

gradient is that of the expected loss in params. penalties: pairs of a penalty and its weight. From sums of rows alone, the
M-step lowers the quadratic approximation of the expected loss, plus penalties; the solver sees to it that the expected
objective itself never rises.

The params of an expert may describe a distribution of its coefficients (`tied`). Its predictor is then that at their mean,
and it has

    variance(params, x) -> (K, n)        of the predictor
    log_prior(params) -> (K,)            the mean of log prior - log density of each expert's distribution, told once for all
                                         rows: it is added to the total log-likelihood

The likelihood's place is taken by the lower bound that results (Jordan, Ghahramani, Jaakkola and Saul 1999): densities enter
it by the family's `expected_log_prob`. Predictions, `log_prob` and held-out scores are those of the mean.

An expert may also have numbers that a fit sets, `hyper` and `check_hyper`, as gates have (see `moejax.gates`).
"""

from moejax.experts._columns import Choices as Choices
from moejax.experts._columns import Zeroed as Zeroed
from moejax.experts._columns import by_columns as by_columns
from moejax.experts._columns import check_division as check_division
from moejax.experts._functions import Functions as Functions
from moejax.experts._functions import functions as functions
from moejax.experts._linear import Linear as Linear
from moejax.experts._linear import linear as linear
from moejax.experts._neural import NeuralExpert as NeuralExpert
from moejax.experts._neural import neural as neural
from moejax.experts._predictions import Predictions as Predictions
from moejax.experts._predictions import predictions as predictions
from moejax.experts._stack import Stack as Stack
from moejax.experts._stack import stack as stack
from moejax.experts._tied import Tied as Tied
from moejax.experts._tied import tied as tied

__all__ = [
    "Choices",
    "Functions",
    "Linear",
    "NeuralExpert",
    "Predictions",
    "Stack",
    "Tied",
    "Zeroed",
    "by_columns",
    "check_division",
    "functions",
    "linear",
    "neural",
    "predictions",
    "stack",
    "tied",
]
