"""The contract of experts."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moejax._arrays import Counts, Eta, Features, PerOutput, RandomKey, Scalar, Tree
from moejax._contracts import Params, Part, Record, capability, check_functions, free_numbers, is_whole
from moejax._linear import Moments, Quadratic, Terms

if TYPE_CHECKING:
    from moejax.experts._columns import Choices

FUNCTIONS = ("init", "apply")


class ExpertLike(Protocol):
    """Any record with the two functions that an expert needs."""

    def init(self, key: RandomKey, n_experts: int, x: Features, /) -> Params:
        """Return the params of all experts."""

    def apply(self, params: Params, x: Tree, /) -> Eta:
        """Return the predictors of all experts."""


class Expert(Part):
    """The contract of experts: what each of the K experts says of a row, before any gate weighs it.

    One part stands for all K experts at once. A user's own record needs only the two required functions; `moe` completes it
    with the defaults that stand here.

    Attributes
    ----------
    takes_any_array : bool, default False
        Whether x may be an array of any shape with n leading, such as images, rather than a table (n, d).
    outputs : int or None, default None
        Of an expert that `is_linear`: how many predictors an expert has, None for one.
    has_m_step : bool, default False
        Capability: `statistics` and `m_step`. EM calls them; without them it takes gradient steps.
    has_begin : bool, default False
        Capability: `begin`, of an expert that `has_m_step`. Without it a start takes the M-step itself.
    is_linear : bool, default False
        Capability: `statistics`, `quadratic`, `with_coefficients` and `in_use`. EM solves the quadratic.
    has_distribution : bool, default False
        Capability: `variance`, `log_prior` and `expected`. The params describe a distribution of coefficients, and the lower
        bound of the likelihood takes the place of the likelihood.
    has_linear_terms : bool, default False
        Capability: `linear_terms`. The predictors are linear in x, and estimators report their coefficients.

    Notes
    -----
    Required: `init`, `apply`. Optional, with a default: `prepare`, `trainable`, `penalized`, `hyper`, `check_hyper`,
    `settled`, `null`, `degrees_of_freedom`, `reordered`, `by_columns`.

    Shapes: n rows, K experts, m outputs. eta is (K, n), or (K, n, m) for m outputs or m numbers of one output. Params are
    any pytree, with experts on the leading axis of each array if the experts are to be divided by columns.
    """

    role: ClassVar[str] = "expert"
    takes_any_array: bool = False
    outputs: int | None = None
    has_m_step: bool = False
    has_begin: bool = False
    is_linear: bool = False
    has_distribution: bool = False
    has_linear_terms: bool = False

    @property
    def is_divided(self) -> bool:
        """Whether each expert sees columns of its own already; by default no."""
        return False

    # ---- required -----------------------------------------------------------------------------------------------

    @property
    def inits_by_shape(self) -> bool:
        """Whether `init` looks at shapes and types of x alone; by default no.

        Only then are rows added that fill up a program, copies of real ones of weight 0.
        """
        return False

    @abc.abstractmethod
    def init(self, key: RandomKey, n_experts: int, x: Features) -> Params:
        """Return the params of all experts.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        n_experts : int
            K.
        x : jax.Array or pytree
            Inputs, n leading, as the experts see them and before `prepare`.

        Returns
        -------
        pytree
            Any pytree of arrays.
        """

    @abc.abstractmethod
    def apply(self, params: Params, x: Tree) -> Eta:
        """Return the predictors of all experts.

        Parameters
        ----------
        params : pytree
            As from `init`.
        x : pytree
            What `prepare` returned.

        Returns
        -------
        jax.Array, (K, n) or (K, n, m)
            eta.
        """

    # ---- optional -----------------------------------------------------------------------------------------------

    def prepare(self, x: Features) -> Tree:
        """Return what all members of a sweep share of x; by default x itself.

        Parameters
        ----------
        x : jax.Array or pytree
            Inputs, n leading.

        Returns
        -------
        pytree
            What `apply`, `statistics` and `variance` get in the place of x.
        """
        return x

    def null(self, params: Params, eta: PerOutput | float) -> Params:
        """Return where EM begins from given responsibilities; by default params as they were drawn.

        Parameters
        ----------
        params : pytree
            As from `init`.
        eta : float or jax.Array, (m,)
            What the experts should predict there.

        Returns
        -------
        pytree
            Params of the same structure.
        """
        return params

    def degrees_of_freedom(self, params: Params) -> Counts:
        """Return the free numbers of each expert, or of all together.

        By default all together: coefficients that are not 0, and all other trained numbers. An expert that needs more rows
        than its free numbers + 2 is starved; where only the total is known, an expert needs 2.

        Parameters
        ----------
        params : pytree
            The params of the experts.

        Returns
        -------
        jax.Array, (K,) or ()
            Whole numbers.
        """
        return free_numbers(self, params)

    def by_columns(self, choices: Choices) -> Expert:
        """Return the same experts, each of which sees columns of its own; by default the other columns are 0 to it.

        Parameters
        ----------
        choices : Choices
            Divisions of the columns, see `moejax.experts.by_columns`.

        Returns
        -------
        Expert
            Experts for which `is_divided` is true.
        """
        from moejax.experts._columns import Zeroed  # which inherits this class

        return Zeroed(self, choices)

    # ---- capabilities -------------------------------------------------------------------------------------------

    @capability("has_m_step", "is_linear")
    def statistics(self, params: Params, x: Tree, slope: Eta, curvature: Eta) -> Tree:
        """Return sums over the rows of a block, from which the M-step follows.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        x : pytree
            What `prepare` returned.
        slope : jax.Array, like eta
            Slope of the expected mean loss in eta, responsibilities and weights included.
        curvature : jax.Array, like eta
            Its curvature in eta, or a bound of it.

        Returns
        -------
        pytree
            Arrays that are added up over blocks; of linear parts an `Ask`.
        """

    @capability("has_m_step")
    def m_step(self, params: Params, statistics: Tree, penalties: Terms, total: Scalar) -> Params:
        """Return params at which the quadratic approximation of the expected loss, plus penalties, is no higher.

        EM sees to it that the objective itself does not rise.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        statistics : pytree
            Sums over all rows.
        penalties : list of (Penalty, weight)
            The penalties of the experts, each with its weight.
        total : jax.Array, ()
            The total weight of the rows, by which means divide.

        Returns
        -------
        pytree
            Params of the same structure.
        """

    @capability("has_begin")
    def begin(self, params: Params, statistics: Tree, key: RandomKey) -> Params:
        """Return what takes the place of the first M-step of a start, which may be unable to part what begins equal.

        Parameters
        ----------
        params : pytree
            As from `null`.
        statistics : pytree
            Sums over rows, as `m_step` gets them.
        key : jax.Array
            The key of the start.

        Returns
        -------
        pytree
            Params of the same structure.
        """

    @capability("is_linear")
    def quadratic(self, params: Params, moments: Moments) -> Quadratic:
        """Return the expected loss of each predictor as a quadratic in its coefficients.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        moments : Moments
            Weighted moments of the columns, what `statistics` asked for.

        Returns
        -------
        Quadratic
            A = K or K m predictors of p = d + 1 coefficients, the intercept last.
        """

    @capability("is_linear")
    def with_coefficients(self, params: Params, b: Float[Array, "A p"]) -> Params:
        """Return params of these coefficients.

        Parameters
        ----------
        params : pytree
            Other params, which give all else.
        b : jax.Array, (A, p)
            Coefficients, or slopes in them, in the order of `quadratic`.

        Returns
        -------
        pytree
            Params of the same structure.
        """

    @capability("is_linear")
    def in_use(self, params: Params, sparse: Bool[Array, ""]) -> Bool[Array, "A p"]:
        """Return which columns each predictor uses, by which collinear ones are found.

        Parameters
        ----------
        params : pytree
            The params of the experts.
        sparse : jax.Array, ()
            Whether some penalty brings coefficients to 0.

        Returns
        -------
        jax.Array, (A, p)
            Booleans, those of the intercept last.
        """

    @capability("has_distribution")
    def variance(self, params: Params, x: Tree) -> Float[Array, "K n"] | None:
        """Return the variance of the predictors over the distribution of the coefficients; by default None, for no variance.

        Parameters
        ----------
        params : pytree
            The params of the experts, of which `apply` tells the mean predictor.
        x : pytree
            What `prepare` returned.

        Returns
        -------
        jax.Array or None, (K, n)
            Variances.
        """
        return None

    @capability("has_distribution")
    def log_prior(self, params: Params) -> Float[Array, " K"] | float:
        """Return the mean of log prior - log density of each expert's distribution; by default 0.

        Parameters
        ----------
        params : pytree
            The params of the experts.

        Returns
        -------
        jax.Array, (K,)
            What is added to the total log-likelihood, once for all rows.
        """
        return 0.0

    @capability("has_distribution")
    def expected(self, new: Params, params: Params, statistics: Tree) -> Float[Array, " K"]:
        """Return how much higher each expert's expected loss is at `new` than at `params`, but for a constant.

        Parameters
        ----------
        new : pytree
            Other params, in which this is differentiated.
        params : pytree
            Where the E-step was.
        statistics : pytree
            Sums over all rows, as `m_step` gets them.

        Returns
        -------
        jax.Array, (K,)
            Mean losses.
        """

    @capability("has_linear_terms")
    def linear_terms(self, params: Params) -> tuple[Array, Array]:
        """Return coefficients and intercepts of the predictors.

        Parameters
        ----------
        params : pytree
            The params of the experts.

        Returns
        -------
        weights : jax.Array, (K, d) or (K, d, m)
            Coefficients.
        intercept : jax.Array, (K,) or (K, m)
            Intercepts.
        """


class OwnExpert(Record, Expert):
    """A user's own record as an expert."""

    _record: ExpertLike

    def init(self, key: RandomKey, n_experts: int, x: Features) -> Params:
        """Return what the record's `init` returns, in arrays."""
        return jax.tree.map(jnp.asarray, self._record.init(key, n_experts, x))

    def apply(self, params: Params, x: Tree) -> Eta:
        """Return what the record's `apply` returns."""
        return self._record.apply(params, x)


def completed(expert: ExpertLike) -> Expert:
    """Return an expert with all methods of the contract.

    Parameters
    ----------
    expert : ExpertLike
        A part from `moejax.experts`, or a user's own record.

    Returns
    -------
    Expert
        The part itself, or the record with the defaults.

    Raises
    ------
    ValueError
        If a required function is missing.
    """
    if isinstance(expert, Expert) and is_whole(expert, Expert):
        return expert
    check_functions("expert", expert, FUNCTIONS)
    return OwnExpert(expert)
