"""Softmax gates: logits that are linear in x."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._contracts import by_expert
from moejax._linear import Ask, Moments, Quadratic, Table, coefficients_of, predictors, with_intercept
from moejax.gates._base import Gate
from moejax.gates._shapes import Params


@dataclass(frozen=True)
class Softmax(Gate):
    """Softmax of linear functions of the input; made by `softmax`.

    Attributes
    ----------
    temperature : float, default 1.0
        Divides the logits.
    reference : bool, default False
        Whether the last expert's logits are 0.
    init_scale : float, default 1.0
        Standard deviation of the initial logits, for standardised x.
    """

    temperature: float = 1.0
    reference: bool = False
    init_scale: float = 1.0
    is_linear = True
    inits_by_shape = True
    has_linear_terms = True

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `temperature`, which divides the logits."""
        return {"temperature": self.temperature}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a temperature that is not above 0."""
        _checks.positive(f"hyper[{name!r}]", value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return normal weights (K, d) of variance init_scale^2 / d and intercepts (K,) of 0; K - 1 with a reference."""
        rows, d = n_experts - self.reference, x.shape[1]
        return {
            "weights": self.init_scale / max(d, 1) ** 0.5 * jax.random.normal(key, (rows, d), x.dtype),
            "intercept": jnp.zeros(rows, x.dtype),
            "temperature": jnp.asarray(self.temperature, x.dtype),
        }

    def trainable(self, params: Params) -> dict[str, bool]:
        """Return that all but the temperature is trained."""
        return {"weights": True, "intercept": True, "temperature": False}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that the weights are penalised and the intercepts are not."""
        return {name: name == "weights" for name in params}

    def reordered(self, params: Params, order: Any) -> tuple[Softmax, Params]:
        """Return the gate and params in another order of the experts.

        The gate has logits for all experts. Those of a reference are 0, and it may then be any expert.
        """
        return dataclasses.replace(self, reference=False), by_expert({**params, **self._of_all(params)}, order)

    def linear_terms(self, params: Params) -> tuple[jax.Array, jax.Array]:
        """Return weights (K, d) and intercepts (K,), divided by the temperature; 0 for the reference."""
        rows = self._of_all(params)
        return rows["weights"] / params["temperature"], rows["intercept"] / params["temperature"]

    def _of_all(self, params: Params) -> Params:
        """Weights and intercepts of all K experts; those of the reference are 0."""
        rows = {name: params[name] for name in ("weights", "intercept")}
        if not self.reference:
            return rows
        return {name: jnp.pad(v, [(0, 1)] + [(0, 0)] * (v.ndim - 1)) for name, v in rows.items()}

    def prepare(self, x: jax.Array) -> Table:
        """Return the table of x, which all members share."""
        return with_intercept(x)

    def logits(self, params: Params, x: Table) -> jax.Array:
        """Return the logits, divided by the temperature.

        Parameters
        ----------
        params : dict
            Params of the gate.
        x : Table
            What `prepare` returned.

        Returns
        -------
        jax.Array, (K, n)
            (x . weights + intercept) / temperature; 0 for the reference expert.
        """
        # The few coefficients are divided rather than the (K, n) logits.
        logits = predictors(params["weights"] / params["temperature"], params["intercept"] / params["temperature"], x)
        if self.reference:
            logits = jnp.concatenate([logits, jnp.zeros_like(logits[:1])])
        return logits

    def statistics(self, params: Params, x: Table, probs: jax.Array, responsibilities: jax.Array, weights: jax.Array) -> Ask:
        """Ask for the moments of weight * curvature and of weight * slope, of each logit.

        The curvature diag(g) - g g' of the softmax couples experts. 2 g (1 - g), less g times the probability of the
        reference, is diagonal and bounds it (as 2 g_k g_l v_k v_l >= -g_k g_l (v_k^2 + v_l^2)). It is exact for two experts.
        With it the logits of each expert are a regression of their own.
        """
        count = probs.shape[0] - self.reference
        free = probs[:count]
        other = 2 * (1 - free) - (probs[-1] if self.reference else 0)
        scaled = weights / params["temperature"]
        return Ask(free * other * (scaled / params["temperature"]), (free - responsibilities[:count]) * scaled)

    def quadratic(self, params: Params, moments: Moments) -> Quadratic:
        """Return the expected loss of each logit as a quadratic in its coefficients."""
        return coefficients_of(params, moments)

    def with_coefficients(self, params: Params, b: jax.Array) -> Params:
        """Return params of these coefficients, those of a `Quadratic`."""
        return {**params, "weights": b[:, :-1], "intercept": b[:, -1]}

    def null(self, params: Params) -> Params:
        """Return coefficients of 0, which make equal probabilities."""
        return {**params, "weights": jnp.zeros_like(params["weights"]), "intercept": jnp.zeros_like(params["intercept"])}

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Return the number of nonzero coefficients and of intercepts that are free.

        Where all experts have a nonzero coefficient of a column, one of these is not free; nor is one of the intercepts.
        """
        taking = active[: params["weights"].shape[0], None]
        nonzero = ((params["weights"] != 0) & taking).sum(axis=0)
        full = nonzero == active.sum()  # never where the reference takes part
        return (nonzero - full).sum() + active.sum() - 1

    def log_probs(self, params: Params, x: Table) -> jax.Array:
        """Return log softmax(logits), (K, n)."""
        return jax.nn.log_softmax(self.logits(params, x), axis=0)

    def weights(self, params: Params, x: Table) -> jax.Array:
        """Return exp(logits) over the largest of each row, (K, n).

        It is the softmax before the division by the sum. The model divides.
        """
        logits = self.logits(params, x)
        return jnp.exp(logits - jax.lax.stop_gradient(logits).max(axis=0))


def softmax(*, temperature: float = 1.0, reference: bool = False, init_scale: float = 1.0) -> Softmax:
    """Construct the softmax gate, whose logits are linear in the input.

    Parameters
    ----------
    temperature : float, default 1.0
        Divides the logits. It is the default of the field `temperature` of `hyper`.
    reference : bool, default False
        Whether the last expert is the reference, with logits of 0 (an identified model), instead of one logit for each of K
        experts.
    init_scale : float, default 1.0
        Standard deviation of the initial logits of a gradient fit, for standardised x.

    Returns
    -------
    Softmax
        The gate.

    Raises
    ------
    ValueError
        If temperature is not above 0, or init_scale is below 0.

    Notes
    -----
    The probability of expert k is

        g_k(x) = exp(l_k(x) / temperature) / sum over j of exp(l_j(x) / temperature),    l_k(x) = x . weights_k +
        intercept_k.

    Params are `weights`, (K, d), `intercept`, (K,), and `temperature`, with K - 1 rows beside a reference. Penalties see the
    weights and never the intercepts. Where inputs separate the experts, an unpenalised gate has no finite optimum.

    References
    ----------
    Jacobs, Jordan, Nowlan and Hinton (1991).
    """
    temperature, init_scale = logit_settings(temperature, init_scale)
    return Softmax(temperature, _checks.flag("reference", reference), init_scale)


def logit_settings(temperature: Any, init_scale: Any) -> tuple[float, float]:
    """Return the checked numbers of a gate of linear logits, or raise ValueError."""
    return _checks.number_above_0("temperature", temperature), _checks.number_from_0("init_scale", init_scale)
