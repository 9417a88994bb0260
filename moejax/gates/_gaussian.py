"""Gates that model the inputs: a normal density of x for each expert."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._contracts import by_expert
from moejax._linear import Ask, Moments, Table, diagonals, dot, with_intercept
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Gaussian(Gate):
    """A mixture of normal distributions of the input; made by `gaussian`.

    Attributes
    ----------
    shared : bool, default False
        Whether all experts have the same covariance.
    ridge : float, default 0.01
        Weight of the prior that shrinks covariances to the identity, as a share of the total weight.
    """

    shared: bool = False
    ridge: float = 0.01
    has_m_step = True
    inits_by_shape = True
    has_gradient = True
    models_inputs = True
    has_proportions = True

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return equal proportions, means (K, d) drawn standard normal, and covariances that are the identity.

        Params are `logits`, (K,), of the proportions; `means`; and `whitening`, (K, d, d), or (1, d, d) if shared: the lower
        triangular W with W' W the inverse covariance, logarithms on its diagonal.
        """
        d = x.shape[1]
        return {
            "logits": jnp.zeros(n_experts, x.dtype),
            "means": jax.random.normal(key, (n_experts, d), x.dtype),
            "whitening": jnp.zeros((1 if self.shared else n_experts, d, d), x.dtype),
        }

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that nothing is penalised."""
        return dict.fromkeys(params, False)

    def reordered(self, params: Params, order: Any) -> tuple[Gaussian, Params]:
        """Return the gate and params in another order of the experts; a covariance that they share stays."""
        own = {name: leaf for name, leaf in params.items() if not (self.shared and name == "whitening")}
        return self, {**params, **by_expert(own, order)}

    def prepare(self, x: jax.Array) -> Table:
        """Return the table of x, which all members share."""
        return with_intercept(x)

    def log_proportions(self, params: Params) -> jax.Array:
        """Return log P(expert), (K,)."""
        return jax.nn.log_softmax(params["logits"])

    def log_joint(self, params: Params, x: Table) -> jax.Array:
        """Return log P(expert) + log N(x; mean, covariance), (K, n)."""
        whitening, log_diagonal = _whitening(params)
        d = whitening.shape[-1]
        means = params["means"] if x.means is None else params["means"] - x.means
        # W x - W mean in one product.
        shifts = -dot(whitening, means[..., None])
        factors = jnp.concatenate([jnp.broadcast_to(whitening, (len(shifts), d, d)), shifts], axis=2)
        white = dot(factors.reshape(-1, d + 1), x.x.T).reshape(len(shifts), d, x.x.shape[0])
        constant = self.log_proportions(params) + log_diagonal.sum(axis=1) - 0.5 * d * math.log(2 * math.pi)
        return constant[:, None] - 0.5 * jnp.square(white).sum(axis=1)

    def log_probs(self, params: Params, x: Table) -> jax.Array:
        """Return log P(expert | x) by Bayes' rule, (K, n)."""
        return jax.nn.log_softmax(self.log_joint(params, x), axis=0)

    def log_prior(self, params: Params) -> jax.Array:
        """Return -ridge / 2 times the sum over covariances of the trace of the inverse + the log determinant."""
        whitening, log_diagonal = _whitening(params)
        return -self.ridge * (0.5 * jnp.square(whitening).sum() - log_diagonal.sum())

    def statistics(self, params: Params, x: Table, probs: jax.Array, responsibilities: jax.Array, weights: jax.Array) -> Ask:
        """Ask for the moments of weight * responsibility."""
        return Ask(responsibilities * weights, responsibilities[:0])

    def gradient(self, params: Params, statistics: Moments, active: jax.Array) -> Params:
        """Return the gradient in params of the sum of weight * responsibility * -log_joint over the active experts."""
        gram, centre = statistics.gram, statistics.means

        def expected(params: Params) -> jax.Array:
            whitening, log_diagonal = _whitening(params)
            means, size = params["means"] - centre, gram[:, -1, -1]
            cross = gram[:, :-1, -1, None] * means[:, None]
            scatter = gram[:, :-1, :-1] - cross - jnp.swapaxes(cross, 1, 2)
            scatter = scatter + size[:, None, None] * means[:, :, None] * means[:, None]
            spread = (dot(jnp.broadcast_to(whitening, scatter.shape), scatter) * whitening).sum(axis=(1, 2))
            logs = jnp.where(active, params["logits"], -1e30)
            return (0.5 * spread - size * (jax.nn.log_softmax(logs) + log_diagonal.sum(axis=1))).sum()

        slopes: Params = jax.grad(expected)(params)
        return slopes

    def curvature(self, params: Params, statistics: Moments) -> Params:
        """Return those of the means, and of whitening the second moments of columns that it multiplies; 1 of the logits."""
        whitening, _ = _whitening(params)
        size = statistics.gram[:, -1, -1, None]
        of_means = size * jnp.square(whitening).sum(axis=1)
        means = statistics.gram[:, :-1, -1] / jnp.where(size > 0, size, 1)
        scatter = diagonals(statistics.gram)[:, :-1] - size * jnp.square(means)
        scatter = scatter.sum(axis=0, keepdims=True) if self.shared else scatter
        identity = np.eye(whitening.shape[1], dtype=bool)
        of_whitening = jnp.where(identity | (scatter <= 0)[:, None], 1, scatter[:, None])
        return {
            "logits": jnp.ones_like(params["logits"]),
            "means": jnp.where(of_means > 0, of_means, 1),
            "whitening": jnp.broadcast_to(of_whitening, whitening.shape),
        }

    def m_step(self, params: Params, statistics: Moments, penalties: Any) -> Params:
        """Return the optimum: shares, weighted means, and weighted covariances that the ridge shrinks to the identity."""
        gram, centre = statistics.gram, statistics.means
        size = gram[:, -1, -1]
        means = gram[:, :-1, -1] / jnp.maximum(size, jnp.finfo(size.dtype).tiny)[:, None]
        # An expert without rows stays where it is.
        means = jnp.where(size[:, None] > 0, means, params["means"] - centre)
        scatter = gram[:, :-1, :-1] - size[:, None, None] * means[:, :, None] * means[:, None]
        if self.shared:
            scatter, weight = scatter.sum(axis=0, keepdims=True), size.sum(keepdims=True)
        else:
            weight = size
        identity = jnp.eye(scatter.shape[1], dtype=scatter.dtype)
        factor = whitened((scatter + self.ridge * identity) / (weight + self.ridge)[:, None, None])
        return {
            "logits": jnp.log(jnp.maximum(size, jnp.finfo(size.dtype).tiny)),
            "means": means + centre,
            "whitening": jnp.where(identity > 0, jnp.log(jnp.where(identity > 0, factor, 1)), factor),
        }

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Return the number of means, distinct covariances, and proportions but one, of the experts that take part."""
        d = params["means"].shape[1]
        covariances = 1 if self.shared else active.sum()
        return active.sum() * (d + 1) - 1 + covariances * (d * (d + 1) // 2)


def whitened(covariance: jax.Array) -> jax.Array:
    """Lower triangular W, (L, p, p), of positive diagonal, with W' W the inverse of each covariance (L, p, p)."""
    p = covariance.shape[1]
    if not p:
        return covariance
    identity = jnp.broadcast_to(np.eye(p, dtype=covariance.dtype), covariance.shape)

    def step(j: jax.Array, a: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(a, j, 1)
        pivot = jax.lax.dynamic_index_in_dim(row, j, 2)
        column = jax.lax.dynamic_index_in_dim(a, j, 2)
        return a - jnp.where(np.arange(p)[:, None] > j, column * row / pivot, 0)

    reduced: jax.Array = jax.lax.fori_loop(0, p, step, jnp.concatenate([covariance, identity], axis=2))
    return reduced[:, :, p:] / jnp.sqrt(diagonals(reduced[:, :, :p]))[..., None]


def _whitening(params: Params) -> tuple[jax.Array, jax.Array]:
    """Lower triangular factors of inverse covariances, (K or 1, d, d), and the logarithms of their diagonals."""
    raw = params["whitening"]
    log_diagonal = jnp.diagonal(raw, axis1=1, axis2=2)
    return jnp.tril(raw, -1) + jnp.exp(log_diagonal)[..., None] * jnp.eye(raw.shape[1], dtype=raw.dtype), log_diagonal


def gaussian(*, covariance: str = "own", ridge: float = 0.01) -> Gaussian:
    """Construct the gate of a mixture of normal distributions of the input.

    Parameters
    ----------
    covariance : {"own", "shared"}, default "own"
        One covariance for each expert, or one for all, which makes the gate a softmax of linear functions.
    ridge : float, default 0.01
        Weight of the prior that shrinks covariances to the identity, as a share of the total weight of the rows. x is best
        standardised.

    Returns
    -------
    Gaussian
        The gate.

    Raises
    ------
    ValueError
        If covariance is something else, or ridge is not above 0, without which a covariance may collapse.

    Notes
    -----
    P(expert | x) follows by Bayes' rule from a normal density of x for each expert:

        g_k(x) = p_k N(x; mean_k, covariance_k) / sum over j of p_j N(x; mean_j, covariance_j).

    It is the efficient gate where clusters of inputs separate the experts, and it has a finite optimum there. EM ascends the
    joint likelihood of x and y with it, in closed form. A gradient fit of `losses.nll` ascends the likelihood of y given x.

    References
    ----------
    Xu, Jordan and Hinton (1995).
    """
    _checks.choice("covariance", covariance, ("own", "shared"))
    return Gaussian(covariance == "shared", _checks.number_above_0("ridge", ridge))
