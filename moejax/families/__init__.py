"""Families: the distribution of the target given an expert's linear predictor eta.

`Family` is the contract: required methods, defaults, capabilities. A family is one from here, or a user's own record with
two pure functions:

    log_prob(y, eta, phi) -> (K, n)                proper, normalised log densities or log masses
    mean(eta) -> (K, n) or (K, n, m)               of each output; class probabilities for `categorical`

and, for dispersion parameters phi, `init(n_experts, eta) -> phi`.

A model without a family predicts and has no likelihood. The families here are finite, with finite slopes, for |eta| to 1e18
in float32.

The dispersions of `gaussian`, `student_t` and `gamma` are bounded from below, relative to the largest and on their own: the
likelihood of a mixture has no maximum without (Hathaway 1985). All three have the same M-step, `log_dispersions`.
"""

from moejax.families._base import Family as Family
from moejax.families._base import FamilyLike as FamilyLike
from moejax.families._base import Target as Target
from moejax.families._base import completed as completed
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
    "Family",
    "FamilyLike",
    "Gamma",
    "Gaussian",
    "LocationScale",
    "Poisson",
    "StudentT",
    "bernoulli",
    "categorical",
    "completed",
    "gamma",
    "gaussian",
    "location_scale",
    "poisson",
    "student_t",
]
