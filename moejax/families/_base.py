"""The contract of families, and what families without dispersion parameters share."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from moejax import _checks
from moejax._arrays import Counts, Eta, Floats, Marks, Masks, Outputs, OutputsLike, PerOutput, RandomKey, Scalar, Tree
from moejax._contracts import Part, Record, by_expert, capability, check_functions, free_numbers, is_whole

Params = dict[str, Floats]
FUNCTIONS = ("log_prob", "mean")


class Target(NamedTuple):
    """What families need to know of the target as a whole, by weight.

    Attributes
    ----------
    mean : jax.Array, () or (m,)
        Weighted mean of each output.
    variance : jax.Array, () or (m,)
        Weighted variance of each output.
    """

    mean: PerOutput
    variance: PerOutput


def target_of(y: Outputs, weights: Float[Array, " n"]) -> Target:
    """Return the mean and the variance of the target.

    Parameters
    ----------
    y : jax.Array, (n,) or (n, m)
        Targets.
    weights : jax.Array, (n,)
        Weights of the rows, of sum 1.

    Returns
    -------
    Target
        The moments.
    """
    share = weights.reshape(-1, *(1,) * (y.ndim - 1))
    mean = (share * y).sum(axis=0)
    return Target(mean, (share * jnp.square(y - mean)).sum(axis=0))


class FamilyLike(Protocol):
    """Any record with the two functions that a family needs."""

    def log_prob(self, y: Outputs, eta: Eta, phi: Tree, /) -> Float[Array, "K n"]:
        """Return log densities or log masses."""

    def mean(self, eta: Eta, /) -> Eta:
        """Return the means."""


class Family(Part):
    """The contract of families: the distribution of the target given an expert's predictor eta.

    A user's own record needs only the two required functions; `moe` completes it with the defaults that stand here.

    Attributes
    ----------
    shared : bool, default False
        Whether phi is one for all experts rather than led by them.
    is_quadratic : bool, default False
        Whether -log_prob is a quadratic in eta, so that an M-step by `curvature` is exact.
    support : {"real", "positive", "counts"}, default "real"
        Of targets that are numbers and not classes; read with `mode` and `rise`.
    is_location : bool, default False
        Whether eta is a location of y, and phi has its scales: the target in other units has the same likelihood, but for
        the unit, at another eta and phi. An estimator may then standardise the target.
    has_sample : bool, default False
        Capability: `sample`.
    has_dispersion : bool, default False
        Capability: `spread` and `dispersion`. EM fits phi by them; without them it takes gradient steps.
    has_expected_log_prob : bool, default False
        Capability: `expected_log_prob`, for experts that have a distribution; `spread` then takes `variance` too.
    has_cdf : bool, default False
        Capability: `cdf`. Quantiles and calibration come by it.
    has_modes : bool, default False
        Capability: `mode` and `rise`. The modes of mixtures come by them.
    has_classes : bool, default False
        Capability: `class_probabilities`. The targets are classes.
    is_discrete : bool, default False
        Whether targets have probabilities rather than densities.

    Notes
    -----
    Required: `log_prob`, `mean`. Optional, with a default: `init`, `check_target`, `check_rows`, `start`, `null`,
    `curvature`, `at_floor`, `log_variances`, `held`, `bounded`, `fall`, `trainable`, `penalized`, `hyper`, `check_hyper`,
    `settled`, `degrees_of_freedom`, `reordered`, `summary`.

    Shapes: y is (n,) or (n, m), always floats (counts and class numbers too). eta is (K, n), or (K, n, m) for m outputs,
    which are independent given the expert, or for m numbers that are one output's. phi is a dictionary of dispersion
    parameters, led by experts unless `shared`.
    """

    role: ClassVar[str] = "family"
    is_quadratic: bool = False
    support: str = "real"
    is_location: bool = False
    has_sample: bool = False
    has_dispersion: bool = False
    has_expected_log_prob: bool = False
    has_cdf: bool = False
    has_modes: bool = False
    has_classes: bool = False
    is_discrete: bool = False

    @property
    def shared(self) -> bool:
        """Whether phi is one for all experts rather than led by them; by default no."""
        return False

    # ---- required -----------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def log_prob(self, y: Outputs, eta: Eta, phi: Tree) -> Float[Array, "K n"]:
        """Return proper, normalised log densities or log masses.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.
        eta : jax.Array, (K, n) or (K, n, m)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K, n)
            Summed over outputs.
        """

    @abc.abstractmethod
    def mean(self, eta: Eta) -> Eta:
        """Return the mean of the target, of each output; the class probabilities of classes.

        Parameters
        ----------
        eta : jax.Array, (K, n) or (K, n, m)
            Predictors.

        Returns
        -------
        jax.Array, (K, n) or (K, n, m)
            What a prediction averages over experts.
        """

    # ---- optional -----------------------------------------------------------------------------------------------

    def init(self, n_experts: int, eta: Eta | jax.ShapeDtypeStruct) -> Tree:
        """Return dispersion parameters to begin with; by default there are none.

        Parameters
        ----------
        n_experts : int
            K.
        eta : jax.Array or jax.ShapeDtypeStruct
            Predictors, or their shape and type.

        Returns
        -------
        pytree
            phi.
        """
        return {}

    def check_target(self, y: OutputsLike, shape: tuple[int, ...]) -> None:
        """Raise ValueError for targets that cannot be; by default those that are not finite numbers shaped like predictions.

        Parameters
        ----------
        y : array_like
            Targets.
        shape : tuple of int
            The shape of a prediction, (n,) or (n, m).
        """
        _checks.shape("y", y, shape, "what this model predicts for this x")
        self._check_support(y)

    def check_rows(self, y: OutputsLike, shape: tuple[int, ...]) -> None:
        """Raise ValueError for targets of rows to predict that cannot be: as `check_target`, which may ask more of a fit.

        Parameters
        ----------
        y : array_like
            Targets.
        shape : tuple of int
            The shape of a prediction, (n,) or (n, m).
        """
        self.check_target(y, shape)

    def _check_support(self, y: OutputsLike) -> None:
        _checks.finite("y", y)

    def start(self, target: Target) -> PerOutput | float:
        """Return the eta to begin with; by default 0.

        Parameters
        ----------
        target : Target
            Moments of the target.

        Returns
        -------
        float or jax.Array, () or (m,)
            The predictor of all experts at the start.
        """
        return 0.0

    def null(self, phi: Tree, target: Target) -> Tree:
        """Return phi of the one density that fits all rows without inputs, to begin with; by default unchanged.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.
        target : Target
            Moments of the target.

        Returns
        -------
        pytree
            phi of the same structure.
        """
        return phi

    def curvature(self, y: Outputs, eta: Eta, phi: Tree) -> Eta:
        """Return the second derivative of -log_prob in eta, its expectation, or a bound.

        By default the second derivative, or 0 where it is below 0. Where log_prob is no sum over the last axis of eta, the
        diagonal of a matrix above the Hessian.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.
        eta : jax.Array, (K, n) or (K, n, m)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, like eta
            No number below 0.
        """
        slope = jax.grad(lambda eta: -self.log_prob(y, eta, phi).sum())
        return jnp.maximum(jax.jvp(slope, (eta,), (jnp.ones_like(eta),))[1], 0)

    def at_floor(self, phi: Tree, target: Target) -> Bool[Array, ""]:
        """Return whether a constraint holds some dispersion; by default never.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.
        target : Target
            Moments of the target.

        Returns
        -------
        jax.Array, ()
            A boolean.
        """
        return jnp.zeros((), bool)

    def log_variances(self, phi: Tree) -> Float[Array, ...] | None:
        """Return how wide each expert's density is around its predictor, by which experts are compared.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K,) or (K, m), or () or (m,) if shared, or None
            Logarithms of variances, or of what grows like them, up to a number that all experts share; by default None,
            where no expert can raise the likelihood without bound on a few rows.
        """
        return None

    def held(self, phi: Tree, target: Target) -> Masks:
        """Return which numbers a constraint holds, so that no optimum has to have a slope of 0 there.

        By default all numbers in phi where some dispersion is at its floor, since a bound ties them together.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.
        target : Target
            Moments of the target.

        Returns
        -------
        pytree of bool
            A tree like phi, of arrays of the same shapes.
        """
        at_floor = self.at_floor(phi, target)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(at_floor, leaf.shape), phi)

    def bounded(self, phi: Tree, target: Target) -> Tree:
        """Return phi brought within constraints that the density does not see; by default unchanged.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.
        target : Target
            Moments of the target.

        Returns
        -------
        pytree
            phi of the same structure.
        """
        return phi

    def fall(
        self, low: Float[Array, " n"], high: Float[Array, " n"], eta: Float[Array, "K n"], phi: Tree
    ) -> Float[Array, "K n"] | None:
        """Return how far `rise` falls between two numbers where it falls; by default None, for one that falls throughout.

        Parameters
        ----------
        low, high : jax.Array, (n,)
            Two numbers for each row.
        eta : jax.Array, (K, n)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array or None, (K, n)
            No number below 0.
        """
        return None

    def penalized(self, phi: Tree) -> Marks:
        """Return that no dispersion parameter is penalised.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        pytree of bool
            A tree like phi.
        """
        return jax.tree.map(lambda leaf: False, phi)

    def degrees_of_freedom(self, phi: Tree) -> Counts:
        """Return the free dispersion parameters, of each expert or of all together; by default all that are trained.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K,) or ()
            Whole numbers.
        """
        return free_numbers(self, phi)

    def reordered(self, phi: Any, order: Any) -> tuple[Any, Any]:
        """Return this family, and phi in another order of the experts, who lead each array in phi unless it is `shared`.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.
        order : sequence of int, (K,)
            The present numbers of the experts.

        Returns
        -------
        tuple of Family and pytree
            The family, and phi of the same structure.
        """
        return self, phi if self.shared else by_expert(phi, order)

    def summary(self, phi: Any) -> Mapping[str, jax.Array]:
        """Return the dispersion parameters as users read them; by default nothing.

        Parameters
        ----------
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        mapping of str to jax.Array
            `scale`, in the units of y if the family `is_location`, and `df`, the degrees of freedom; (K,), or () if shared.
            Estimators report them as `scale_` and `df_`.
        """
        return {}

    # ---- capabilities -------------------------------------------------------------------------------------------

    @capability("has_sample")
    def sample(self, key: RandomKey, eta: Eta, phi: Tree) -> Eta:
        """Return a draw from every expert for every row.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        eta : jax.Array, (K, n) or (K, n, m)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K, n) or (K, n, m)
            Like y, experts leading.
        """

    @capability("has_dispersion")
    def spread(self, y: Outputs, eta: Eta, phi: Tree, weights: Float[Array, "K n"]) -> Tree:
        """Return sums over the rows of a block, from which `dispersion` follows.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.
        eta : jax.Array, (K, n) or (K, n, m)
            Predictors.
        phi : pytree
            Dispersion parameters.
        weights : jax.Array, (K, n)
            Responsibilities times weights; an expert may have none. A family that `has_expected_log_prob` also takes
            `variance`, like eta, by name.

        Returns
        -------
        pytree
            Arrays that are added up over blocks; an expert's number, if there is one, first.
        """

    @capability("has_dispersion")
    def dispersion(
        self, phi: Tree, sums: Tree, change: Scalar | Float[Array, " K"] | Float[Array, "K m"], target: Target
    ) -> Tree:
        """Return phi that maximises, or at least does not lower, the sum of weights * log_prob.

        Parameters
        ----------
        phi : pytree
            Where the E-step was.
        sums : pytree
            What `spread` returned, over all rows.
        change : jax.Array, (), (K,) or (K, m)
            By how much a step of the experts, which the sums have not seen, is about to raise the sum of
            weights * -log_prob.
        target : Target
            Moments of the target.

        Returns
        -------
        pytree
            phi of the same structure.
        """

    @capability("has_expected_log_prob")
    def expected_log_prob(
        self, y: Float[Array, " n"], eta: Float[Array, "K n"], variance: Float[Array, "K n"], phi: Tree
    ) -> Float[Array, "K n"]:
        """Return the mean of log_prob where the predictor has this variance around eta.

        Parameters
        ----------
        y : jax.Array, (n,)
            Targets.
        eta : jax.Array, (K, n)
            Mean predictors.
        variance : jax.Array, (K, n)
            Variances of the predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K, n)
            Log densities.
        """

    @capability("has_cdf")
    def cdf(self, y: Outputs, eta: Eta, phi: Tree) -> Eta:
        """Return P(target <= y) for any real y.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Numbers.
        eta : jax.Array, (K, n) or (K, n, m)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, like eta
            Probabilities.
        """

    @capability("has_modes")
    def mode(self, eta: Float[Array, "K n"], phi: Tree) -> Float[Array, "K n"]:
        """Return up to where the density of one target rises, and from where it falls.

        Parameters
        ----------
        eta : jax.Array, (K, n)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K, n)
            Of positive targets above 0; of counts the smallest.
        """

    @capability("has_modes")
    def rise(self, y: Float[Array, " n"], eta: Float[Array, "K n"], phi: Tree) -> Float[Array, "K n"]:
        """Return the slope of log_prob in y: in log y of positive targets, and of counts f(y + 1) / f(y) - 1.

        Parameters
        ----------
        y : jax.Array, (n,)
            Numbers.
        eta : jax.Array, (K, n)
            Predictors.
        phi : pytree
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K, n)
            Slopes.
        """

    @capability("has_classes")
    def class_probabilities(self, eta: Eta) -> Float[Array, "K n C"]:
        """Return the probability of each class.

        Parameters
        ----------
        eta : jax.Array, (K, n) or (K, n, C)
            Predictors.

        Returns
        -------
        jax.Array, (K, n, C)
            Probabilities.
        """


class Undispersed(Family):
    """Families without dispersion parameters."""

    has_dispersion = True  # of which there is nothing to fit

    def init(self, n_experts: int, eta: Eta | jax.ShapeDtypeStruct) -> Params:
        """Return no parameters."""
        return {}

    def spread(self, y: Outputs, eta: Eta, phi: Params, weights: Float[Array, "K n"]) -> tuple[()]:
        """Return no sums."""
        return ()

    def dispersion(
        self, phi: Params, sums: Tree, change: Scalar | Float[Array, " K"] | Float[Array, "K m"], target: Target
    ) -> Params:
        """Return phi as it is."""
        return phi


class OwnFamily(Record, Family):
    """A user's own record as a family."""

    _record: FamilyLike

    def log_prob(self, y: Outputs, eta: Eta, phi: Tree) -> Float[Array, "K n"]:
        """Return what the record's `log_prob` returns."""
        return self._record.log_prob(y, eta, phi)

    def mean(self, eta: Eta) -> Eta:
        """Return what the record's `mean` returns."""
        return self._record.mean(eta)


def completed(family: FamilyLike) -> Family:
    """Return a family with all methods of the contract.

    Parameters
    ----------
    family : FamilyLike
        A family from `moejax.families`, or a user's own record.

    Returns
    -------
    Family
        The family itself, or the record with the defaults.

    Raises
    ------
    ValueError
        If a required function is missing.
    """
    if isinstance(family, Family) and is_whole(family, Family):
        return family
    check_functions("family", family, FUNCTIONS)
    return OwnFamily(family)


def beside_eta(values: Floats, shared: bool) -> Floats:
    """Against eta: (K,) or () beside (K, n), (K, m) or (m,) beside (K, n, m)."""
    return values if shared else jnp.expand_dims(values, 1)


def like_eta(weights: Float[Array, "K n"], each: Eta) -> Eta:
    """Weights (K, n) beside numbers like eta, (K, n) or (K, n, m)."""
    return weights[..., None] if each.ndim == 3 else weights


def residuals(y: Outputs, location: Eta) -> Eta:
    """Differences of y and a location like eta. Raises ValueError for a y that is not like the predictions of one expert."""
    _checks.shape("y", y, location.shape[1:], "like an expert's predictions")
    return y - location


def over_outputs(each: Eta) -> Float[Array, "K n"]:
    """The sum over outputs, (K, n), of numbers like eta."""
    return each.sum(axis=2) if each.ndim == 3 else each


def check_values(y: OutputsLike, good: Callable[[np.ndarray], np.ndarray], want: str) -> None:
    """Raise ValueError where some values of y are not good, unless y is traced. want: what they should be."""
    _checks.finite("y", y)
    if _checks.is_traced(y):
        return
    values = np.asarray(y, float)
    bad = ~good(values)
    if bad.any():
        raise ValueError(f"y: {values[bad][0]:g} was given ({int(bad.sum())} of {bad.size} are not right); want {want}")
