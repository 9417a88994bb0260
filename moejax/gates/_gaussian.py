"""Gates that model the inputs: a normal density of x for each expert."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import Moments, Pairs, dot, moments, pairs, whitening, with_intercept
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Gaussian:
    """A mixture of normal distributions of the input; made by `gaussian`."""

    shared: bool = False
    ridge: float = 0.01

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Equal proportions, means (K, d) standard normal, and covariances that are the identity.

        logits: of the proportions, (K,). whitening: (K, d, d), or (1, d, d) if shared, the lower triangular W with
        W' W the inverse covariance, logarithms on its diagonal.
        """
        d = x.shape[1]
        return {
            "logits": jnp.zeros(n_experts, x.dtype),
            "means": jax.random.normal(key, (n_experts, d), x.dtype),
            "whitening": jnp.zeros((1 if self.shared else n_experts, d, d), x.dtype),
        }

    def penalized(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return dict.fromkeys(params, False)

    def prepare(self, x: jax.Array) -> jax.Array:
        """What all members share: x with a column of ones, (n, d + 1)."""
        return with_intercept(x)

    def rows(self, x: jax.Array) -> Pairs:
        """What `statistics` wants of x as `prepare` returns it, computed once."""
        return pairs(x)

    def log_proportions(self, params: Params) -> jax.Array:
        """log P(expert), (K,)."""
        return jax.nn.log_softmax(params["logits"])

    def log_joint(self, params: Params, x: jax.Array) -> jax.Array:
        """log P(expert) + log N(x; mean, covariance), (K, n)."""
        whitening, log_diagonal = _whitening(params)
        d = whitening.shape[-1]
        # W x - W mean in one product.
        shifts = -dot(whitening, params["means"][..., None])
        factors = jnp.concatenate([jnp.broadcast_to(whitening, (len(shifts), d, d)), shifts], axis=2)
        white = dot(factors.reshape(-1, d + 1), x.T).reshape(-1, d, x.shape[0])
        constant = self.log_proportions(params) + log_diagonal.sum(axis=1) - 0.5 * d * math.log(2 * math.pi)
        return constant[:, None] - 0.5 * jnp.square(white).sum(axis=1)

    def log_probs(self, params: Params, x: jax.Array) -> jax.Array:
        """log P(expert | x) by Bayes' rule, (K, n)."""
        return jax.nn.log_softmax(self.log_joint(params, x), axis=0)

    def log_prior(self, params: Params) -> jax.Array:
        """-ridge / 2 times the sum over covariances of trace of the inverse + log determinant."""
        whitening, log_diagonal = _whitening(params)
        return -self.ridge * (0.5 * jnp.square(whitening).sum() - log_diagonal.sum())

    def statistics(
        self, rows: Pairs, params: Params, probs: jax.Array, responsibilities: jax.Array, weights: jax.Array
    ) -> Moments:
        """sum over rows of weight * responsibility * (x, 1) (x, 1)', (K, d + 1, d + 1)."""
        return moments(rows, responsibilities * weights)

    def m_step(self, params: Params, gradient: Params, statistics: Moments, penalties: Any) -> Params:
        """The optimum: shares, weighted means, and weighted covariances shrunk to the identity by the ridge."""
        gram, centre = statistics.gram, statistics.means[:-1]
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
        factor = whitening((scatter + self.ridge * identity) / (weight + self.ridge)[:, None, None])
        return {
            "logits": jnp.log(jnp.maximum(size, jnp.finfo(size.dtype).tiny)),
            "means": means + centre,
            "whitening": jnp.where(identity > 0, jnp.log(jnp.where(identity > 0, factor, 1)), factor),
        }

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Means, distinct covariances and proportions but one, of the experts that take part."""
        d = params["means"].shape[1]
        covariances = 1 if self.shared else active.sum()
        return active.sum() * (d + 1) - 1 + covariances * (d * (d + 1) // 2)


def _whitening(params: Params) -> tuple[jax.Array, jax.Array]:
    """Lower triangular factors of inverse covariances, (K or 1, d, d), and the logarithms of their diagonals."""
    raw = params["whitening"]
    log_diagonal = jnp.diagonal(raw, axis1=1, axis2=2)
    return jnp.tril(raw, -1) + jnp.exp(log_diagonal)[..., None] * jnp.eye(raw.shape[1], dtype=raw.dtype), log_diagonal


def gaussian(*, covariance: str = "own", ridge: float = 0.01) -> Gaussian:
    """The gate of a mixture of normal distributions of x: P(expert | x) by Bayes' rule (Xu, Jordan and Hinton 1995).

    It is the efficient gate where clusters of inputs separate the experts, and it has a finite optimum there. EM ascends the
    joint likelihood of x and y with it, in closed form, and a gradient fit that of y given x.

    covariance: "own" for each expert, or "shared", which makes the gate a softmax of linear functions. ridge: weight of
    the prior that shrinks covariances to the identity (x is best standardised), as if so large a share of all rows had it.
    Raises ValueError for another covariance, and for a ridge that is not above 0, without which a covariance may collapse.
    """
    if covariance not in ("own", "shared"):
        raise ValueError(f"covariance: {covariance!r} was given; want 'own' or 'shared'")
    _checks.positive("ridge", ridge)
    return Gaussian(covariance == "shared", float(ridge))
