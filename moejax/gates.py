"""Gates: how much each of the K experts counts for a row.

A gate is any record with two pure functions:

    init(key, n_experts, x) -> params
    log_probs(params, x) -> (K, n)       soft and finite: exp of it sums to 1 over the experts

and, where it helps,

    weights(params, x) -> (K, n)         what multiplies the experts' means in a prediction, up to a factor for each row;
                                         without it, the probabilities
    hard                                 whether `weights` choose one expert rather than give a share to each
    active(params) -> (K,)               which experts take part at all
    prepare(x)                           as for experts
    trainable(params), penalized(params) trees of booleans, see `moejax.model`
    hyper                                names of numbers that a fit may set, each an untrained leaf of params, with their
                                         defaults; and check_hyper(name, value), which refuses what they cannot be
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _check
from moejax._linear import predictors, with_intercept

Params = dict[str, jax.Array]


def _rows(x: Any) -> int:
    return jax.tree.leaves(x)[0].shape[0]


@dataclass(frozen=True)
class Fixed:
    """Proportions that are given and never trained; made by `fixed`."""

    proportions: tuple[float, ...] | None = None

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
    _check.shape("proportions", proportions, (None,), "one for each expert")
    _check.not_negative("proportions", proportions)
    total = float(np.sum(np.asarray(proportions, float)))
    if abs(total - 1.0) > 1e-6:
        raise ValueError(f"proportions: they sum to {total:.6g}; want a sum of 1")
    return Fixed(tuple(float(p) / total for p in proportions))


@dataclass(frozen=True)
class Constant:
    """Proportions that are trained and see no input; made by `constant`."""

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Params:
        """Logits of 0, (K,): equal proportions."""
        return {"logits": jnp.zeros(n_experts, jax.tree.leaves(x)[0].dtype)}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Nothing: logits without inputs are intercepts."""
        return {"logits": False}

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
        _check.positive(f"hyper[{name!r}]", value)

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
    _check.positive("temperature", temperature)
    _check.not_negative("init_scale", init_scale)
    return Softmax(float(temperature), bool(reference), float(init_scale))


@dataclass(frozen=True)
class Top1(Softmax):
    """One expert a row, chosen by a softmax gate's arg-max; made by `top1`."""

    @property
    def hard(self) -> bool:
        """Yes: it chooses."""
        return True

    def weights(self, params: Params, x: jax.Array) -> jax.Array:
        """1 for the most probable expert and 0 for the others, (K, n); its gradient is the softmax's."""
        soft = jax.nn.softmax(self.logits(params, x), axis=0)
        hard = jax.nn.one_hot(jnp.argmax(soft, axis=0), soft.shape[0], dtype=soft.dtype, axis=0)
        return hard + (soft - jax.lax.stop_gradient(soft))


def top1(*, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> Top1:
    """A softmax gate whose prediction is the most probable expert alone: straight-through top-1.

    Forward (prediction and loss) the arg-max expert counts alone; backward the softmax's gradient passes, at the given
    temperature (Bengio, Leonard and Courville 2013, arXiv 1308.3432). `log_probs` stays soft, since the logarithm of a
    hard choice has no useful gradient. Arguments and errors as for `softmax`.
    """
    _check.positive("temperature", temperature)
    _check.not_negative("init_scale", init_scale)
    return Top1(float(temperature), bool(reference), float(init_scale))


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
