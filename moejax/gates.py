"""Gates: how much each of the K experts counts for a row.

A gate is any record with two pure functions:

    init(key, n_experts, x) -> params
    log_probs(params, x) -> (K, n)       soft and finite: exp of it sums to 1 over the experts

and, where it helps,

    weights(params, x) -> (K, n)         what multiplies the experts' means in a prediction, up to a factor for each row;
                                         without it, the probabilities
    kept                                 to how many experts it routes a row, whose share it alone multiplies; without it,
                                         or with None, to all
    routed(probs) -> (K, n)              of a gate that has it: soft probabilities (K, n) of the experts that take part made
                                         into what multiplies their means
    noisy_log_probs(params, x, key)      of a gate that is noisy in training: `log_probs` with noise drawn from the key
    active(params) -> (K,)               which experts take part at all
    log_probs_among(params, x, active)   `log_probs` where only those experts take part, NEVER for the others; without it,
                                         the probabilities of those that do are divided by their sum
    prepare(x), takes_any_array          as for experts
    trainable(params), penalized(params) trees of booleans, see `moejax.model`
    degrees_of_freedom(params, active)   the free numbers of the experts that take part, for criteria
    log_joint(params, x) -> (K, n)       log p(expert, x), of a gate that models its inputs too; EM then ascends the joint
                                         likelihood; with log_proportions(params) -> (K,)
    log_prior(params)                    of such a gate, added to the mean joint log-likelihood
    rows(x)                              as for experts
    null(params)                         where EM begins from given responsibilities
    statistics(rows, params, probs, responsibilities, weights) -> statistics
                                         sums over rows for EM; all (K, n) but for weights (n,)
    m_step(params, gradient, statistics, penalties) -> params
                                         as for experts; without it, EM makes gradient steps
    exact                                whether an M-step leads to the very optimum, so that EM need not search
    hyper                                names of numbers that a fit may set, each an untrained leaf of params, with their
                                         defaults; and check_hyper(name, value), which refuses what they cannot be
    settled(params) -> params            params as they are once these numbers are set, before a fit begins
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._linear import Moments, Pairs, dot, moments, pairs, predictors, quadratic_step, whitening, with_intercept
from moejax.hierarchy import hierarchical as hierarchical  # a gate like those below, long enough for a file of its own
from moejax.neural import neural_gate

Params = dict[str, jax.Array]

neural = neural_gate  # networks have a file of their own too


def _rows(x: Any) -> int:
    return jax.tree.leaves(x)[0].shape[0]


@dataclass(frozen=True)
class Fixed:
    """Proportions that are given and never trained; made by `fixed`."""

    proportions: tuple[float, ...] | None = None
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Params:
        """Logarithms of the proportions, (K,)."""
        proportions = self.proportions or (1.0 / n_experts,) * n_experts
        if len(proportions) != n_experts:
            raise ValueError(f"proportions: {len(proportions)} were given; want one for each of {n_experts} experts")
        dtype = jax.tree.leaves(x)[0].dtype
        # A proportion of 0 is allowed, but a log-probability has to stay finite for gradients and EM.
        return {"log_proportions": jnp.log(jnp.maximum(jnp.asarray(proportions, dtype), jnp.finfo(dtype).tiny))}

    def trainable(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return {"log_proportions": False}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return {"log_proportions": False}

    def active(self, params: Params) -> jax.Array:
        """Which experts have a proportion above 0, (K,)."""
        return params["log_proportions"] > jnp.log(jnp.finfo(params["log_proportions"].dtype).tiny) + 1

    def log_probs(self, params: Params, x: Any) -> jax.Array:
        """The same for every row, (K, n)."""
        return jnp.broadcast_to(params["log_proportions"][:, None], (params["log_proportions"].shape[0], _rows(x)))


def fixed(proportions: Sequence[float] | None = None) -> Fixed:
    """A gate of given proportions, one for each expert, never trained; None for equal ones.

    Raises ValueError for a negative proportion or a sum that is not 1 (to 1e-6).
    """
    if proportions is None:
        return Fixed()
    _checks.shape("proportions", proportions, (None,), "one for each expert")
    _checks.not_negative("proportions", proportions)
    total = float(np.sum(np.asarray(proportions, float)))
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"proportions: they sum to {total:.6g}; want a sum of 1")
    return Fixed(tuple(float(p) / total for p in proportions))


@dataclass(frozen=True)
class Constant:
    """Proportions that are trained and see no input; made by `constant`."""

    takes_any_array = True
    exact = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Params:
        """Logits of 0, (K,): equal proportions."""
        return {"logits": jnp.zeros(n_experts, jax.tree.leaves(x)[0].dtype)}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Nothing: logits without inputs are intercepts."""
        return {"logits": False}

    def statistics(
        self, rows: Any, params: Params, probs: Any, responsibilities: jax.Array, weights: jax.Array
    ) -> jax.Array:
        """Each expert's share of the rows, (K,)."""
        return (responsibilities * weights).sum(axis=1)  # a product would round otherwise in some lanes of a sweep

    def m_step(self, params: Params, gradient: Any, statistics: jax.Array, penalties: Any) -> Params:
        """Proportions that are the shares; one without rows keeps next to nothing, so that its logarithm is finite."""
        return {"logits": jnp.log(jnp.maximum(statistics, jnp.finfo(statistics.dtype).tiny))}

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """One less than the experts."""
        return active.sum() - 1

    def log_probs(self, params: Params, x: Any) -> jax.Array:
        """log softmax(logits), the same for every row, (K, n)."""
        log_probs = jax.nn.log_softmax(params["logits"])
        return jnp.broadcast_to(log_probs[:, None], (log_probs.shape[0], _rows(x)))


def constant() -> Constant:
    """A gate of trained proportions that see no input, softmax of K free logits: a plain mixture."""
    return Constant()


@dataclass(frozen=True)
class Softmax:
    """Softmax of linear functions of the input; made by `softmax`."""

    temperature: float = 1.0
    reference: bool = False
    init_scale: float = 1.0

    @property
    def hyper(self) -> dict[str, float]:
        """`temperature`, which divides the logits."""
        return {"temperature": self.temperature}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0."""
        _checks.positive(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Weights (K, d), normal with variance init_scale^2 / d, intercepts (K,) of 0; K - 1 of each with a reference."""
        rows, d = n_experts - self.reference, x.shape[1]
        return {
            "weights": self.init_scale / d**0.5 * jax.random.normal(key, (rows, d), x.dtype),
            "intercept": jnp.zeros(rows, x.dtype),
            "temperature": jnp.asarray(self.temperature, x.dtype),
        }

    def trainable(self, params: Params) -> dict[str, bool]:
        """All but the temperature."""
        return {"weights": True, "intercept": True, "temperature": False}

    def prepare(self, x: jax.Array) -> jax.Array:
        """What all members share: x with a column of ones, (n, d + 1)."""
        return with_intercept(x)

    def logits(self, params: Params, x: jax.Array) -> jax.Array:
        """(x . weights + intercept) / temperature, (K, n); the reference expert's are 0."""
        # The few coefficients are divided rather than the (K, n) logits.
        logits = predictors(params["weights"] / params["temperature"], params["intercept"] / params["temperature"], x)
        if self.reference:
            logits = jnp.concatenate([logits, jnp.zeros_like(logits[:1])])
        return logits

    def rows(self, x: jax.Array) -> Pairs:
        """What `statistics` wants of x as `prepare` returns it, computed once."""
        return pairs(x)

    def statistics(
        self, rows: Pairs, params: Params, probs: jax.Array, responsibilities: jax.Array, weights: jax.Array
    ) -> Moments:
        """sum over rows of weight * curvature * x x', (K, p, p), without the reference expert.

        The curvature diag(g) - g g' of the softmax couples experts. 2 g (1 - g), less g times the reference's, is diagonal
        and bounds it (as 2 g_k g_l v_k v_l >= -g_k g_l (v_k^2 + v_l^2)), exact for two experts; with it each expert's
        logits are a regression of their own.
        """
        free = probs[: probs.shape[0] - self.reference]
        other = 2 * (1 - free) - (probs[-1] if self.reference else 0)
        return moments(rows, free * other * weights / params["temperature"] ** 2)

    def m_step(self, params: Params, gradient: Params, statistics: Moments, penalties: Any) -> Params:
        """Params at which the quadratic with that gradient and those statistics, plus penalties, is lower."""
        return quadratic_step(params, gradient, statistics, penalties)

    def null(self, params: Params) -> Params:
        """Equal probabilities."""
        return {**params, "weights": jnp.zeros_like(params["weights"]), "intercept": jnp.zeros_like(params["intercept"])}

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Coefficients that are not 0, and intercepts; one less of each where all experts have one, of which one is free."""
        taking = active[: params["weights"].shape[0], None]
        nonzero = ((params["weights"] != 0) & taking).sum(axis=0)
        full = nonzero == active.sum()  # never where the reference takes part
        return (nonzero - full).sum() + active.sum() - 1

    def log_probs(self, params: Params, x: jax.Array) -> jax.Array:
        """log softmax(logits), (K, n)."""
        return jax.nn.log_softmax(self.logits(params, x), axis=0)

    def weights(self, params: Params, x: jax.Array) -> jax.Array:
        """exp(logits) over that of the largest, (K, n): softmax but for its sum, by which the model divides."""
        logits = self.logits(params, x)
        return jnp.exp(logits - jax.lax.stop_gradient(logits).max(axis=0))


def softmax(*, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> Softmax:
    """The gate of Jacobs, Jordan, Nowlan and Hinton (1991): softmax of linear functions of the input.

    temperature: divides the logits; the default of the field `temperature` of `hyper`. reference: the last expert's
    logits are 0 (an identified model) instead of one logit for each of K experts. Raises ValueError for a temperature
    that is not above 0.
    """
    _checks.positive("temperature", temperature)
    _checks.not_negative("init_scale", init_scale)
    return Softmax(float(temperature), bool(reference), float(init_scale))


def straight_through(probs: jax.Array) -> jax.Array:
    """1 for the most probable expert and 0 for the others, (K, n), with the gradient of the probabilities."""
    hard = jax.nn.one_hot(jnp.argmax(probs, axis=0), probs.shape[0], dtype=probs.dtype, axis=0)
    return hard + (probs - jax.lax.stop_gradient(probs))


@dataclass(frozen=True)
class Top1(Softmax):
    """One expert a row, chosen by a softmax gate's arg-max; made by `top1`."""

    @property
    def kept(self) -> int:
        """One expert a row."""
        return 1

    def weights(self, params: Params, x: jax.Array) -> jax.Array:
        """1 for the most probable expert and 0 for the others, (K, n); its gradient is the softmax's."""
        return straight_through(jax.nn.softmax(self.logits(params, x), axis=0))

    def routed(self, probs: jax.Array) -> jax.Array:
        """1 for the most probable expert and 0 for the others, (K, n), with the gradient of the probabilities."""
        return straight_through(probs)


def top1(*, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> Top1:
    """A softmax gate whose prediction is the most probable expert alone: straight-through top-1.

    Forward (prediction and loss) the arg-max expert counts alone; backward the softmax's gradient passes, at the given
    temperature (Bengio, Leonard and Courville 2013, arXiv 1308.3432). `log_probs` stays soft, since the logarithm of a
    hard choice has no useful gradient. Arguments and errors as for `softmax`.
    """
    _checks.positive("temperature", temperature)
    _checks.not_negative("init_scale", init_scale)
    return Top1(float(temperature), bool(reference), float(init_scale))


def largest(values: jax.Array, k: int) -> jax.Array:
    """True for the k largest of each row, the first of equals, and False for the others, (K, n)."""
    if k >= values.shape[0]:
        return jnp.ones_like(values, bool)
    found = jnp.zeros_like(values, bool)
    for _ in range(k):
        left = jnp.where(found, -jnp.inf, values)
        found = found | jax.nn.one_hot(jnp.argmax(left, axis=0), values.shape[0], dtype=bool, axis=0)
    return found


@dataclass(frozen=True)
class TopK(Softmax):
    """The k most probable experts of each row, by a softmax gate; made by `top_k`."""

    kept: int = 1

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """As of a softmax gate. Raises ValueError for fewer experts than are kept."""
        if self.kept > n_experts:
            raise ValueError(f"k: {self.kept} was given for {n_experts} experts; want at most as many as there are")
        return super().init(key, n_experts, x)

    def weights(self, params: Params, x: jax.Array) -> jax.Array:
        """Those of a softmax gate for the k largest, 0 for the others, (K, n)."""
        return self.routed(super().weights(params, x))

    def routed(self, probs: jax.Array) -> jax.Array:
        """The k largest, and 0 in the place of the others, (K, n)."""
        return jnp.where(largest(probs, self.kept), probs, 0)


@dataclass(frozen=True)
class NoisyTopK(TopK):
    """`TopK` with noise of a trained size on the logits in training; made by `top_k`."""

    noise: float = 1.0

    @property
    def hyper(self) -> dict[str, float]:
        """`temperature`, and `noise`, which multiplies the noise."""
        return {**super().hyper, "noise": self.noise}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0, and noise below 0."""
        (_checks.not_negative if name == "noise" else _checks.positive)(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """As of `TopK`, and noise_weights (K, d) of 0: noise of the same size in all rows."""
        noise = {"noise_weights": jnp.zeros((n_experts, x.shape[1]), x.dtype), "noise": jnp.asarray(self.noise, x.dtype)}
        return {**super().init(key, n_experts, x), **noise}

    def trainable(self, params: Params) -> dict[str, bool]:
        """All but the numbers of `hyper`."""
        return {name: name not in self.hyper for name in params}

    def penalized(self, params: Params) -> dict[str, bool]:
        """The weights of the logits."""
        return {name: name == "weights" for name in params}

    def noisy_log_probs(self, params: Params, x: jax.Array, key: jax.Array) -> jax.Array:
        """log softmax(logits + noise * softplus(x . noise_weights) * a standard normal), (K, n)."""
        logits, weights = self.logits(params, x), params["noise_weights"]
        size = params["noise"] * jax.nn.softplus(predictors(weights, jnp.zeros_like(weights[:, 0]), x))
        return jax.nn.log_softmax(logits + size * jax.random.normal(key, logits.shape, logits.dtype), axis=0)


def top_k(k: int, *, noise: float = 0.0, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> TopK:
    """A softmax gate that routes each row to its k most probable experts: sparse routing (Shazeer et al. 2017, 1701.06538).

    Forward and backward, the prediction is the softmax over the k largest logits alone: the others weigh exactly 0 and get
    no gradient from that row. With k = K it is `softmax`. With k = 1 it predicts as `top1` does, but the one weight is 1
    whatever its logit, so that under squared error the gate never learns; `top1` lets the softmax's gradient through.
    `log_probs` stays soft.

    noise: above 0, gradient steps add noise * softplus(x . noise_weights) * a standard normal to the logits (equations 4 and
    5 of the paper), drawn anew at each step from the key of the fit, noise_weights trained and not penalised; the
    default of the field `noise` of `hyper`. Predictions have none. The other arguments and errors as for `softmax`, and
    ValueError for k that is no whole number above 0, or above the number of experts once that is known.
    """
    _checks.count("k", k)
    _checks.not_negative("noise", noise)
    _checks.positive("temperature", temperature)
    _checks.not_negative("init_scale", init_scale)
    own = (float(temperature), bool(reference), float(init_scale), int(k))
    return NoisyTopK(*own, float(noise)) if noise > 0 else TopK(*own)


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


@dataclass(frozen=True)
class Confidence:
    """Softmax of minus forecasts of the experts' losses; made by `confidence`."""

    coefficients: tuple[tuple[float, ...], ...] | None = None  # of each expert, the intercept last
    temperature: float = 1.0

    @property
    def hyper(self) -> dict[str, float]:
        """`temperature`, which divides the forecasts."""
        return {"temperature": self.temperature}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0."""
        _checks.positive(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """The forecasts' coefficients, weights (K, d) and intercepts (K,); the identity where forecasts are what is seen."""
        d = x.shape[1]
        given = np.eye(n_experts, n_experts + 1) if self.coefficients is None else np.asarray(self.coefficients)
        if given.shape != (n_experts, d + 1):
            what = "the forecast of each" if self.coefficients is None else f"{given.shape[1] - 1} for {given.shape[0]}"
            raise ValueError(f"confidence: {d} columns were given for {n_experts} experts; want {what}")
        coefficients = jnp.asarray(given, x.dtype)
        return {
            "weights": coefficients[:, :-1],
            "intercept": coefficients[:, -1],
            "temperature": jnp.asarray(self.temperature, x.dtype),
        }

    def trainable(self, params: Params) -> dict[str, bool]:
        """Nothing."""
        return dict.fromkeys(params, False)

    def prepare(self, x: jax.Array) -> jax.Array:
        """What all members share: x with a column of ones, (n, d + 1)."""
        return with_intercept(x)

    def log_probs(self, params: Params, x: jax.Array) -> jax.Array:
        """log softmax(-forecasts / temperature), (K, n)."""
        forecasts = predictors(params["weights"], params["intercept"], x)
        return jax.nn.log_softmax(-forecasts / params["temperature"], axis=0)


def confidence(weights: Any = None, intercept: Any = None, *, temperature: float = 1.0) -> Confidence:
    """A gate of forecasts: expert k counts by exp(-l_k(x) / temperature), l_k(x) the loss in nats that is forecast for it.

    weights (K, d), intercept (K,): of forecasts that are linear in what the gate sees, as `moejax.stacking.linear_forecasts`
    fits them to the experts' out-of-fold losses; they are kept, and never trained. Without them the gate sees the forecasts
    themselves, (n, K), whatever made them.

    The loss of a classifier is -log of the probability that it gives the right class. That of a regressor with error r is
    log(r^2) / 2: where its error is normal with variance s_k^2(x), E[log r^2 | x] = log s_k^2(x) - 1.27, the same constant
    for all experts, and a normal expert of that variance has the expected log density -log s_k(x) + constant. Forecasts of
    either kind are thus expected log densities but for their sign and a constant in which experts are alike, and
    exp(-l_k(x) / temperature) is proportional to s_k(x)^(-1 / temperature). At a temperature of 1 experts count by expected
    density. At 0.5 they count by inverse variance, which is the best convex combination for squared error where errors are
    unbiased and independent. Towards 0 the expert of the lowest forecast is chosen, and towards infinity all count alike.

    temperature: the default of the field `temperature` of `hyper`. Raises ValueError for a temperature that is not above 0,
    and for coefficients of which one is missing or not finite, or whose shapes differ.
    """
    _checks.positive("temperature", temperature)
    if weights is None and intercept is None:
        return Confidence(None, float(temperature))
    _checks.shape("weights", weights, (None, None), "experts by what the gate sees")
    _checks.shape("intercept", intercept, (np.shape(weights)[0],), "one for each expert")
    _checks.finite("weights", weights)
    _checks.finite("intercept", intercept)
    rows = np.column_stack([weights, intercept]).astype(float)
    return Confidence(tuple(map(tuple, rows.tolist())), float(temperature))


@dataclass(frozen=True)
class Custom:
    """A gate of two functions of the user's own; made by `custom`."""

    init: Callable[[jax.Array, int, Any], Any]
    log_probs: Callable[[Any, Any], jax.Array]


def custom(
    init: Callable[[jax.Array, int, Any], Any],
    logits: Callable[[Any, Any], jax.Array],
) -> Custom:
    """A gate from two functions: init(key, n_experts, x) -> params, and logits(params, x) -> (n, K) of any real numbers.

    The probabilities are the softmax of the logits. Building it again from the same two functions compiles nothing anew.
    """
    return Custom(init, _LogSoftmax(logits))


@dataclass(frozen=True)
class _LogSoftmax:
    """log softmax of somebody's (n, K) logits as (K, n), hashed by that function."""

    logits: Callable[[Any, Any], jax.Array]

    def __call__(self, params: Any, x: Any) -> jax.Array:
        return jax.nn.log_softmax(self.logits(params, x), axis=-1).T
