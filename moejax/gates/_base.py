"""The contract of gates."""

from __future__ import annotations

import abc
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from moejax._arrays import Features, RandomKey, Scalar, Tree
from moejax._contracts import Params, Part, Record, capability, check_functions, free_numbers, is_whole
from moejax._linear import Moments, Quadratic, Terms

FUNCTIONS = ("init", "log_probs")
NEVER = -1e30  # the logarithm of no probability at all, finite so that gradients are


class GateLike(Protocol):
    """Any record with the two functions that a gate needs."""

    def init(self, key: RandomKey, n_experts: int, x: Features, /) -> Params:
        """Return the params of the gate."""

    def log_probs(self, params: Params, x: Tree, /) -> Float[Array, "K n"]:
        """Return the logarithms of the experts' probabilities."""


class Gate(Part):
    """The contract of gates: how much each of the K experts counts for a row.

    A user's own record needs only the two required functions; `moe` completes it with the defaults that stand here.

    Attributes
    ----------
    takes_any_array : bool, default False
        Whether x may be an array of any shape with n leading, such as images, rather than a table (n, d).
    reference : bool, default False
        Of a gate that `has_linear_terms`: whether the logits of the last expert are 0.
    has_m_step : bool, default False
        Capability: `statistics` and `m_step`. EM calls them; without them it takes gradient steps.
    is_linear : bool, default False
        Capability: `statistics`, `quadratic` and `with_coefficients`. EM solves the quadratic.
    has_gradient : bool, default False
        Capability: `gradient`. The gradient of the expected loss follows from `statistics`; without it EM differentiates
        `log_probs`, or `log_joint`.
    models_inputs : bool, default False
        Capability: `log_joint` and `log_proportions`. The gate is a density of the inputs, and EM ascends the joint
        likelihood of x and y; `log_prior` is added to it.
    has_proportions : bool, default False
        Capability: `log_proportions`, of a gate that has them whatever x is. `Model.proportions` reports them.
    is_noisy : bool, default False
        Capability: `noisy_log_probs`. Gradient steps add noise; EM refuses such a gate.
    has_linear_terms : bool, default False
        Capability: `linear_terms`. The logits are linear in x, and estimators report their coefficients.

    Notes
    -----
    Required: `init`, `log_probs`. Optional, with a default: `prepare`, `weights`, `routed`, `active`, `log_probs_among`,
    `log_prior`, `curvature`, `trainable`, `penalized`, `hyper`, `check_hyper`, `settled`, `null`, `degrees_of_freedom`,
    `reordered`.

    Shapes: n rows, K experts, d features. Probabilities are (K, n) inside, experts first.
    """

    role: ClassVar[str] = "gate"
    takes_any_array: bool = False
    reference: bool = False
    has_m_step: bool = False
    is_linear: bool = False
    has_gradient: bool = False
    models_inputs: bool = False
    has_proportions: bool = False
    is_noisy: bool = False
    has_linear_terms: bool = False

    @property
    def kept(self) -> int | None:
        """To how many experts the gate routes a row; by default None, for all."""
        return None

    # ---- required -----------------------------------------------------------------------------------------------

    @property
    def inits_by_shape(self) -> bool:
        """Whether `init` looks at shapes and types of x alone; by default no.

        Only then are rows added that fill up a program, copies of real ones of weight 0.
        """
        return False

    @abc.abstractmethod
    def init(self, key: RandomKey, n_experts: int, x: Features) -> Params:
        """Return the params of the gate.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        n_experts : int
            K.
        x : jax.Array or pytree
            Inputs, n leading, as the gate sees them and before `prepare`.

        Returns
        -------
        pytree
            Any pytree of arrays.
        """

    @abc.abstractmethod
    def log_probs(self, params: Params, x: Tree) -> Float[Array, "K n"]:
        """Return log P(expert | x).

        Parameters
        ----------
        params : pytree
            As from `init`.
        x : pytree
            What `prepare` returned.

        Returns
        -------
        jax.Array, (K, n)
            Finite; the exponentials of a column sum to 1. Soft, also of a gate that chooses.
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
            What the other methods get in the place of x.
        """
        return x

    def weights(self, params: Params, x: Tree) -> Float[Array, "K n"]:
        """Return what multiplies the experts' means in a prediction; by default the probabilities, as `routed`.

        Parameters
        ----------
        params : pytree
            As from `init`.
        x : pytree
            What `prepare` returned.

        Returns
        -------
        jax.Array, (K, n)
            Weights up to a factor for each row.
        """
        return self.routed(jnp.exp(self.log_probs(params, x)))

    def routed(self, probs: Float[Array, "K n"]) -> Float[Array, "K n"]:
        """Return what multiplies the experts' means for these probabilities; by default the probabilities.

        Parameters
        ----------
        probs : jax.Array, (K, n)
            Soft probabilities, of the experts that take part.

        Returns
        -------
        jax.Array, (K, n)
            Weights, 0 for experts to which a row is not routed.
        """
        return probs

    def active(self, params: Params) -> Bool[Array, " K"] | None:
        """Return which experts take part at all; by default None, for all.

        Parameters
        ----------
        params : pytree
            The params of the gate.

        Returns
        -------
        jax.Array or None, (K,)
            Booleans.
        """
        return None

    def log_probs_among(self, params: Params, x: Tree, active: Bool[Array, " K"]) -> Float[Array, "K n"]:
        """Return `log_probs` where only some experts take part; by default the others are left out and the rest rescaled.

        Parameters
        ----------
        params : pytree
            As from `init`.
        x : pytree
            What `prepare` returned.
        active : jax.Array, (K,)
            Which experts take part.

        Returns
        -------
        jax.Array, (K, n)
            `NEVER`, or about as little, for experts that do not take part.
        """
        return among(self.log_probs(params, x), active)

    def log_prior(self, params: Params) -> Scalar | float:
        """Return what a gate that `models_inputs` adds to the mean joint log-likelihood; by default 0.

        Parameters
        ----------
        params : pytree
            The params of the gate.

        Returns
        -------
        jax.Array or float, ()
            The log density of a prior, as a mean over rows.
        """
        return 0.0

    def null(self, params: Params) -> Params:
        """Return where EM begins from given responsibilities; by default params as they were drawn.

        Parameters
        ----------
        params : pytree
            As from `init`.

        Returns
        -------
        pytree
            Params of the same structure.
        """
        return params

    def degrees_of_freedom(self, params: Params, active: Bool[Array, " K"]) -> Int[Array, ""]:
        """Return the free numbers of the gate; by default coefficients that are not 0, and all other trained numbers.

        Parameters
        ----------
        params : pytree
            The params of the gate.
        active : jax.Array, (K,)
            Which experts take part.

        Returns
        -------
        jax.Array, ()
            A whole number.
        """
        return free_numbers(self, params)

    # ---- capabilities -------------------------------------------------------------------------------------------

    @capability("has_m_step", "is_linear")
    def statistics(
        self,
        params: Params,
        x: Tree,
        probs: Float[Array, "K n"],
        responsibilities: Float[Array, "K n"],
        weights: Float[Array, " n"],
    ) -> Tree:
        """Return sums over the rows of a block, from which the M-step follows.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        x : pytree
            What `prepare` returned.
        probs : jax.Array, (K, n)
            The probabilities at `params`.
        responsibilities : jax.Array, (K, n)
            P(expert | x, y).
        weights : jax.Array, (n,)
            Of the rows, of sum 1 over all blocks.

        Returns
        -------
        pytree
            Arrays that are added up over blocks; of linear parts an `Ask`.
        """

    @capability("has_m_step")
    def m_step(self, params: Params, statistics: Tree, penalties: Terms) -> Params:
        """Return params at which the expected loss plus penalties is no higher.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        statistics : pytree
            Sums over all rows.
        penalties : list of (Penalty, weight)
            The penalties of the gate, each with its weight.

        Returns
        -------
        pytree
            Params of the same structure.
        """

    @capability("is_linear")
    def quadratic(self, params: Params, moments: Moments) -> Quadratic:
        """Return the expected loss of each logit as a quadratic in its coefficients.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        moments : Moments
            Weighted moments of the columns, what `statistics` asked for.

        Returns
        -------
        Quadratic
            A logits of p = d + 1 coefficients, the intercept last.
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

    @capability("models_inputs")
    def log_joint(self, params: Params, x: Tree) -> Float[Array, "K n"]:
        """Return log p(expert, x).

        Parameters
        ----------
        params : pytree
            As from `init`.
        x : pytree
            What `prepare` returned.

        Returns
        -------
        jax.Array, (K, n)
            Log densities.
        """

    @capability("models_inputs", "has_proportions")
    def log_proportions(self, params: Params) -> Float[Array, " K"]:
        """Return log P(expert), the logarithms of the mixing proportions.

        Parameters
        ----------
        params : pytree
            The params of the gate.

        Returns
        -------
        jax.Array, (K,)
            Log probabilities.
        """

    @capability("has_gradient")
    def gradient(self, params: Params, statistics: Tree, active: Bool[Array, " K"]) -> Params:
        """Return the gradient of the expected loss, the mean of responsibility * -log_probs, from sums over rows.

        Of a gate that `models_inputs`, of responsibility * -log_joint.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        statistics : pytree
            Sums over all rows, what `statistics` asked for.
        active : jax.Array, (K,)
            Which experts take part.

        Returns
        -------
        pytree
            A tree like `params`.
        """

    def curvature(self, params: Params, statistics: Tree) -> Params:
        """Return the second derivatives that the violation of the optimality condition is measured by; by default 1.

        They make it independent of units. Only of a gate that `has_gradient`.

        Parameters
        ----------
        params : pytree
            Where the E-step was.
        statistics : pytree
            Sums over all rows, what `statistics` asked for.

        Returns
        -------
        pytree
            A tree like `params`, of numbers above 0.
        """
        return jax.tree.map(jnp.ones_like, params)

    @capability("is_noisy")
    def noisy_log_probs(self, params: Params, x: Tree, key: RandomKey) -> Float[Array, "K n"]:
        """Return `log_probs` with noise, for gradient steps.

        Parameters
        ----------
        params : pytree
            As from `init`.
        x : pytree
            What `prepare` returned.
        key : jax.Array
            Another one at each step.

        Returns
        -------
        jax.Array, (K, n)
            Log probabilities.
        """

    @capability("has_linear_terms")
    def linear_terms(self, params: Params) -> tuple[jax.Array | None, jax.Array]:
        """Return coefficients and intercepts of the logits, as they enter the probabilities.

        Parameters
        ----------
        params : pytree
            The params of the gate.

        Returns
        -------
        weights : jax.Array or None, (A, d)
            Coefficients of the A logits; None for logits that do not depend on x.
        intercept : jax.Array, (A,)
            Intercepts.
        """


def among(log_probs: Float[Array, "K n"], active: Bool[Array, " K"]) -> Float[Array, "K n"]:
    """Return the log probabilities of the experts that take part, normalised among them.

    Parameters
    ----------
    log_probs : jax.Array, (K, n)
        Log probabilities of all experts.
    active : jax.Array, (K,)
        Booleans, which experts take part.

    Returns
    -------
    jax.Array, (K, n)
        Log probabilities; `NEVER` for the experts that take no part.
    """
    return jax.nn.log_softmax(jnp.where(active[:, None], log_probs, NEVER), axis=0)


class OwnGate(Record, Gate):
    """A user's own record as a gate."""

    _record: GateLike

    def init(self, key: RandomKey, n_experts: int, x: Features) -> Params:
        """Return what the record's `init` returns, in arrays."""
        return jax.tree.map(jnp.asarray, self._record.init(key, n_experts, x))

    def log_probs(self, params: Params, x: Tree) -> Float[Array, "K n"]:
        """Return what the record's `log_probs` returns."""
        return self._record.log_probs(params, x)


def completed(gate: GateLike) -> Gate:
    """Return a gate with all methods of the contract.

    Parameters
    ----------
    gate : GateLike
        A part from `moejax.gates`, or a user's own record.

    Returns
    -------
    Gate
        The part itself, or the record with the defaults.

    Raises
    ------
    ValueError
        If a required function is missing.
    """
    if isinstance(gate, Gate) and is_whole(gate, Gate):
        return gate
    check_functions("gate", gate, FUNCTIONS)
    return OwnGate(gate)
