"""Families: the distribution of the target given an expert's linear predictor eta.

A family is any record with

    init(n_experts, eta) -> phi                    dispersion parameters, a pytree (eta: an array or its shape and dtype)
    log_prob(y, eta, phi) -> (K, n)                proper, normalised log densities or log masses
    mean(eta) -> (K, n) or (K, n, m)               of each output; class probabilities for `categorical`
    sample(key, eta, phi) -> like y, K leading     a draw from every expert for every row

where y is (n,) or (n, m), always floats (counts and class numbers too), and eta is (K, n), or (K, n, m) for m outputs, which
are independent given the expert, or for m numbers that are one output's. And, where it helps,

    check_target(y, shape)               raises for targets that it cannot have (shape: that of a prediction); without it, y
                                         has the shape of a prediction
    penalized(phi), trainable(phi)       trees of booleans, see `moejax.model`
    at_floor(phi, target) -> bool        whether a constraint holds some dispersion; target: a `Target`
    held(phi, target) -> like phi        which numbers a constraint holds, so that no optimum has to have a slope of 0 there
    bounded(phi, target) -> phi          phi brought within constraints that the density does not see
    shared                               whether phi is one for all experts rather than led by them
    start(target) -> number              the eta to begin with, 0 unless given
    degrees_of_freedom(phi)              free dispersion parameters: of each expert (K,), or of all together if shared, ()
    curvature(y, eta, phi) -> like eta   no less than 0: the second derivative of -log_prob in eta, its expectation or a
                                         bound, for quadratic approximations of -log_prob; where log_prob is no sum over the
                                         last axis of eta (`categorical`), the diagonal of a matrix above the Hessian
    spread(y, eta, phi, weights) -> sums sums over rows for `dispersion`, for weights (K, n) of which an expert may have none
    dispersion(phi, sums, change, target) -> phi
                                         phi that maximises, or at least does not lower, sum(weights * log_prob); change:
                                         (K,) or (K, m), by how much a step of the experts, which those sums have not seen,
                                         is about to raise sum(weights * -log_prob)
    expected_log_prob(y, eta, variance, phi) -> (K, n)
                                         the mean of log_prob where the predictor has this variance around eta, (K, n), as
                                         that of experts whose params are a distribution; `spread` then takes `variance`
                                         too
    cdf(y, eta, phi) -> (K, n)           P(target <= y) for any real y (n,); of each output (K, n, m) for y (n, m)
    support                              of targets that are numbers and not classes: "real", "positive" or "counts"; with
    mode(eta, phi) -> (K, n)             up to where the density of one target rises, and from where it falls: of positive
                                         ones above 0, of counts the smallest, and
    rise(y, eta, phi) -> (K, n)          the slope of log_prob in y (n,), in log y of positive ones, and of counts
                                         f(y + 1) / f(y) - 1; the modes of mixtures come by it
    fall(low, high, eta, phi) -> (K, n)  how far `rise` falls between two numbers (n,) where it does; without it, it falls
                                         throughout
    class_probabilities(eta)             of classes, (K, n, C)

A model without a family predicts and has no likelihood. The families here are finite, with finite slopes, for |eta| to 1e18
in float32.

The dispersions of `gaussian`, `student_t` and `gamma` are bounded from below, relative to the largest and on their own: the
likelihood of a mixture has no maximum without (Hathaway 1985). All three have the same M-step, `log_dispersions`.
"""

from moejax.families._base import Target as Target
from moejax.families._base import target_of as target_of
from moejax.families._bernoulli import Bernoulli as Bernoulli
from moejax.families._bernoulli import bernoulli as bernoulli
from moejax.families._categorical import Categorical as Categorical
from moejax.families._categorical import categorical as categorical
from moejax.families._gamma import Gamma as Gamma
from moejax.families._gamma import gamma as gamma
from moejax.families._gaussian import Gaussian as Gaussian
from moejax.families._gaussian import gaussian as gaussian
from moejax.families._location_scale import LocationScale as LocationScale
from moejax.families._location_scale import location_scale as location_scale
from moejax.families._poisson import Poisson as Poisson
from moejax.families._poisson import poisson as poisson
from moejax.families._student_t import StudentT as StudentT
from moejax.families._student_t import student_t as student_t

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gamma",
    "Gaussian",
    "LocationScale",
    "Poisson",
    "StudentT",
    "bernoulli",
    "categorical",
    "gamma",
    "gaussian",
    "location_scale",
    "poisson",
    "student_t",
]
