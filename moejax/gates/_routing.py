"""Gates that route each row to one expert, or to the k most probable ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import Table, predictors
from moejax.gates._shapes import Params
from moejax.gates._softmax import Softmax, logit_settings


def straight_through(probs: jax.Array) -> jax.Array:
    """Return hard choices that have the gradient of the probabilities.

    Parameters
    ----------
    probs : jax.Array, (K, n)
        Probabilities of the experts.

    Returns
    -------
    jax.Array, (K, n)
        1 for the most probable expert of each row and 0 for the others.
    """
    hard = jax.nn.one_hot(jnp.argmax(probs, axis=0), probs.shape[0], dtype=probs.dtype, axis=0)
    return hard + (probs - jax.lax.stop_gradient(probs))


@dataclass(frozen=True)
class Top1(Softmax):
    """One expert a row, the most probable one of a softmax gate; made by `top1`.

    Attributes
    ----------
    temperature : float, default 1.0
        Divides the logits.
    reference : bool, default False
        Whether the last expert's logits are 0.
    init_scale : float, default 1.0
        Standard deviation of the initial logits, for standardised x.
    """

    @property
    def kept(self) -> int:
        """The number of experts that a row is routed to, 1."""
        return 1

    def weights(self, params: Params, x: Table) -> jax.Array:
        """Return 1 for the most probable expert and 0 for the others, (K, n), with the gradient of the softmax."""
        return straight_through(jax.nn.softmax(self.logits(params, x), axis=0))

    def routed(self, probs: jax.Array) -> jax.Array:
        """Return 1 for the most probable expert and 0 for the others, (K, n), with the gradient of the probabilities."""
        return straight_through(probs)


def top1(*, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> Top1:
    """Construct a softmax gate whose prediction is the most probable expert alone: straight-through top-1.

    Parameters
    ----------
    temperature : float, default 1.0
        Divides the logits. It is the default of the field `temperature` of `hyper`.
    reference : bool, default False
        Whether the last expert is the reference, with logits of 0.
    init_scale : float, default 1.0
        Standard deviation of the initial logits of a gradient fit, for standardised x.

    Returns
    -------
    Top1
        The gate.

    Raises
    ------
    ValueError
        If temperature is not above 0, or init_scale is below 0.

    Notes
    -----
    Forward (prediction and loss) the most probable expert counts alone. Backward the gradient of the softmax passes, at the
    given temperature. `log_probs` stays soft, because the logarithm of a hard choice has no useful gradient.

    References
    ----------
    Bengio, Leonard and Courville (2013), arXiv 1308.3432.
    """
    temperature, init_scale = logit_settings(temperature, init_scale)
    return Top1(temperature, _checks.flag("reference", reference), init_scale)


def largest(values: jax.Array, k: int) -> jax.Array:
    """Return which experts have the k largest values of each row.

    Parameters
    ----------
    values : jax.Array, (K, n)
        Numbers to compare.
    k : int
        How many experts a row has.

    Returns
    -------
    jax.Array, (K, n)
        Booleans. Of equal values the first counts as larger.
    """
    if k >= values.shape[0]:
        return jnp.ones_like(values, bool)
    found = jnp.zeros_like(values, bool)
    for _ in range(k):
        left = jnp.where(found, -jnp.inf, values)
        found = found | jax.nn.one_hot(jnp.argmax(left, axis=0), values.shape[0], dtype=bool, axis=0)
    return found


@dataclass(frozen=True)
class TopK(Softmax):
    """The k most probable experts of each row, by a softmax gate; made by `top_k`.

    Attributes
    ----------
    temperature : float, default 1.0
        Divides the logits.
    reference : bool, default False
        Whether the last expert's logits are 0.
    init_scale : float, default 1.0
        Standard deviation of the initial logits, for standardised x.
    kept : int, default 1
        How many experts a row is routed to.
    """

    kept: int = 1

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return the params of a softmax gate; raise ValueError for fewer experts than are kept."""
        if self.kept > n_experts:
            raise ValueError(f"k: {self.kept} was given for {n_experts} experts; want at most as many as there are")
        return super().init(key, n_experts, x)

    def weights(self, params: Params, x: Table) -> jax.Array:
        """Return the weights of a softmax gate for the k largest and 0 for the others, (K, n)."""
        return self.routed(super().weights(params, x))

    def routed(self, probs: jax.Array) -> jax.Array:
        """Return the k largest probabilities, and 0 for the others, (K, n)."""
        return jnp.where(largest(probs, self.kept), probs, 0)


@dataclass(frozen=True)
class NoisyTopK(TopK):
    """`TopK` with noise of a trained size on the logits in training; made by `top_k`.

    Attributes
    ----------
    temperature : float, default 1.0
        Divides the logits.
    reference : bool, default False
        Whether the last expert's logits are 0.
    init_scale : float, default 1.0
        Standard deviation of the initial logits, for standardised x.
    kept : int, default 1
        How many experts a row is routed to.
    noise : float, default 1.0
        Multiplies the noise.
    """

    noise: float = 1.0
    is_noisy = True

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `temperature`, and `noise`, which multiplies the noise."""
        return {**super().hyper, "noise": self.noise}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0, or noise below 0."""
        (_checks.not_negative if name == "noise" else _checks.positive)(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return the params of `TopK`, and noise_weights (K, d) of 0, which make noise of the same size in all rows."""
        noise = {"noise_weights": jnp.zeros((n_experts, x.shape[1]), x.dtype), "noise": jnp.asarray(self.noise, x.dtype)}
        return {**super().init(key, n_experts, x), **noise}

    def trainable(self, params: Params) -> dict[str, bool]:
        """Return that all but the numbers of `hyper` is trained."""
        return {name: name not in self.hyper for name in params}

    def noisy_log_probs(self, params: Params, x: Table, key: jax.Array) -> jax.Array:
        """Return log softmax(logits + noise * softplus(x . noise_weights) * a standard normal), (K, n)."""
        logits, weights = self.logits(params, x), params["noise_weights"]
        size = params["noise"] * jax.nn.softplus(predictors(weights, jnp.zeros_like(weights[:, 0]), x))
        return jax.nn.log_softmax(logits + size * jax.random.normal(key, logits.shape, logits.dtype), axis=0)


def top_k(k: int, *, noise: float = 0.0, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> TopK:
    """Construct a softmax gate that routes each row to its k most probable experts: sparse routing.

    Parameters
    ----------
    k : int
        How many experts a row is routed to.
    noise : float, default 0.0
        Above 0, gradient steps add noise to the logits; predictions have none. It is the default of the field `noise` of
        `hyper`. EM refuses a gate with noise.
    temperature : float, default 1.0
        Divides the logits. It is the default of the field `temperature` of `hyper`.
    reference : bool, default False
        Whether the last expert is the reference, with logits of 0.
    init_scale : float, default 1.0
        Standard deviation of the initial logits of a gradient fit, for standardised x.

    Returns
    -------
    TopK
        The gate, a `NoisyTopK` with noise.

    Raises
    ------
    ValueError
        If k is no whole number above 0, if noise or init_scale is below 0, or if temperature is not above 0. When params are
        made: if k is above the number of experts.

    Notes
    -----
    Forward and backward, the prediction uses the softmax over the k largest logits alone. The others weigh exactly 0 and get
    no gradient from that row. With k = K it is `softmax`. With k = 1 it predicts as `top1` does, but the one weight is 1
    whatever its logit, so that under squared error the gate never learns; `top1` lets the gradient of the softmax through.
    `log_probs` stays soft.

    The noise of a step is noise * softplus(x . noise_weights) * a standard normal, drawn anew at each step from the key of
    the fit (equations 4 and 5 of the paper). noise_weights are trained and not penalised.

    References
    ----------
    Shazeer et al. (2017), arXiv 1701.06538.
    """
    noise = _checks.number_from_0("noise", noise)
    temperature, init_scale = logit_settings(temperature, init_scale)
    own = (temperature, _checks.flag("reference", reference), init_scale, _checks.count("k", k))
    return NoisyTopK(*own, noise) if noise > 0 else TopK(*own)
