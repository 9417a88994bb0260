"""Gates that route each row to one expert, or to the k most probable ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import Table, predictors
from moejax.gates._shapes import Params
from moejax.gates._softmax import Softmax


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

    def weights(self, params: Params, x: Table) -> jax.Array:
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

    def weights(self, params: Params, x: Table) -> jax.Array:
        """Those of a softmax gate for the k largest, 0 for the others, (K, n)."""
        return self.routed(super().weights(params, x))

    def routed(self, probs: jax.Array) -> jax.Array:
        """The k largest, and 0 in the place of the others, (K, n)."""
        return jnp.where(largest(probs, self.kept), probs, 0)


@dataclass(frozen=True)
class NoisyTopK(TopK):
    """`TopK` with noise of a trained size on the logits in training; made by `top_k`."""

    noise: float = 1.0
    is_noisy = True

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

    def noisy_log_probs(self, params: Params, x: Table, key: jax.Array) -> jax.Array:
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
