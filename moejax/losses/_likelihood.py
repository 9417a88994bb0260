"""Negative log-likelihoods: of the mixture, the joint, the k best experts, and held responsibilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._arrays import Scalar
from moejax.gates import largest
from moejax.losses._base import Loss
from moejax.losses._rows import held_division, of_units, weighted_sum
from moejax.model import Data, Model, check_model


@dataclass(frozen=True)
class NegativeLogLikelihood(Loss):
    """Negative log-likelihood; made by `nll`, `joint_nll`, `truncated_nll` and `complete_nll`.

    Attributes
    ----------
    joint : bool, default False
        Whether it is of x and y, rather than of y given x.
    kept : int or None, default None
        How many experts a row may have, None for all.
    complete : bool, default False
        Whether responsibilities are held.
    """

    joint: bool = False
    kept: int | None = None
    complete: bool = False
    has_sums = True

    @property
    def has_likelihood(self) -> bool:
        """Whether log-likelihood and criteria have a meaning: yes."""
        return True

    @property
    def takes_groups(self) -> bool:
        """Whether rows of a group share their expert: yes."""
        return True

    def check(self, model: Model) -> None:
        """Raise ValueError for a model without a family, and for a gate that has no likelihood of this kind."""
        if model.family is None:
            raise ValueError("loss: nll was given for a model without a family; want moe(..., family=families.gaussian())")
        if not self.complete and model.kept not in (None, self.kept):
            what = "one expert" if model.kept == 1 else f"{model.kept} experts"
            raise ValueError(
                f"loss: nll was given for a gate that chooses {what}; want squared_error or a soft gate, or "
                f"truncated_nll({model.kept})"
            )
        if self.joint and not model.gate.models_inputs:
            raise ValueError(f"loss: joint_nll was given for {model.gate!r}, which does not model its inputs; want nll")
        if model.expert.has_distribution and not model.family.has_expected_log_prob:
            raise ValueError(
                f"family: {model.family!r} was given for {model.expert!r}, whose coefficients have a distribution; "
                "want a family with expected_log_prob, as families.gaussian()"
            )

    def log_gate(self, model: Model, params: Any, data: Data) -> jax.Array:
        """Return the log probabilities of the experts that the likelihood uses.

        Parameters
        ----------
        model : Model
            The model.
        params : dict
            Params of the model.
        data : moejax.model.Data
            Prepared inputs and target.

        Returns
        -------
        jax.Array, (K, n)
            log p(expert | x), or log p(expert, x) if joint.
        """
        return model.log_gate_joint(params, data.x) if self.joint else model.log_gate(params, data.x, data.key)

    def log_joint(self, model: Model, params: Any, data: Data) -> jax.Array:
        """Return log densities of row (or group) and expert.

        Parameters
        ----------
        model : Model
            The model.
        params : dict
            Params of the model.
        data : moejax.model.Data
            Prepared inputs and target.

        Returns
        -------
        jax.Array, (K, n)
            log p(expert, y | x), or log p(expert, x, y) if joint. For experts whose params are a distribution, the mean over
            it.
        """
        return model.pooled(self.log_gate(model, params, data), model.expected_log_density(params, data), data.leader)

    def each(self, log_joint: jax.Array, division: jax.Array | None = None) -> jax.Array:
        """Return the log-likelihood of each row, whose derivative in log_joint is the responsibilities.

        Parameters
        ----------
        log_joint : jax.Array, (K, n)
            What `log_joint` returned.
        division : jax.Array or None, (K, n), default None
            Responsibilities, if they are held.

        Returns
        -------
        jax.Array, (n,)
            Log densities.
        """
        if self.complete:
            held = held_division(division)
            return jnp.where(held > 0, held * log_joint, 0).sum(axis=0)
        return jax.nn.logsumexp(self._truncated(log_joint), axis=0)

    def explained(self, log_joint: jax.Array, division: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Return the log-likelihood and the responsibilities of each row.

        Parameters
        ----------
        log_joint : jax.Array, (K, n)
            What `log_joint` returned.
        division : jax.Array or None, (K, n), default None
            Responsibilities, if they are held.

        Returns
        -------
        each : jax.Array, (n,)
            What `each` returns.
        responsibilities : jax.Array, (K, n)
            Shares of the experts, of sum 1 over experts.
        """
        if self.complete:
            return self.each(log_joint, division), held_division(division)
        logs = self._truncated(log_joint)
        largest = logs.max(axis=0)
        parts = jnp.exp(logs - largest)
        total = parts.sum(axis=0)
        return jnp.log(total) + largest, parts / total

    def _truncated(self, log_joint: jax.Array) -> jax.Array:
        return log_joint if self.kept is None else jnp.where(largest(log_joint, self.kept), log_joint, -jnp.inf)

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the weighted mean over rows of the negative log-likelihood.

        The joint one includes the gate's prior. For experts whose params are a distribution it is an upper bound, with their
        prior.
        """
        return self.of_sums(model, params, self.sums(model, params, data, weights), data.size, data.hyper)

    def sums(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the weighted sum over rows of the log-likelihood."""
        return self._sum(self.log_joint(model, params, data), data, weights)

    def of_sums(self, model: Model, params: Any, sums: jax.Array, total: Any, hyper: Any) -> jax.Array:
        """Return the negative sum with what gate and experts themselves add."""
        value: jax.Array = self.gate_prior(model, params["gate"]) - sums - model.log_prior(params) / total
        return value

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """Return the same for the density that `Model.log_prob` has, without the prior of experts.

        Where responsibilities are held it is the mean of -log p(y | x), because those of other rows are not known.
        """
        loss = NegativeLogLikelihood() if self.complete else self
        log_joint = model.pooled(loss.log_gate(model, params, data), model.log_density(params, data), data.leader)
        return loss.gate_prior(model, params["gate"]) - loss._sum(log_joint, data, weights)

    def _sum(self, log_joint: jax.Array, data: Data, weights: jax.Array) -> jax.Array:
        return weighted_sum(of_units(weights, data.leader), self.each(log_joint, data.division))

    def gate_prior(self, model: Model, gate: Any) -> Scalar | float:
        """Return what a gate that models its inputs adds to the joint loss.

        Parameters
        ----------
        model : Model
            The model.
        gate : pytree
            Params of the gate.

        Returns
        -------
        jax.Array or float, ()
            A mean over rows; 0 unless joint.
        """
        return -model.gate.log_prior(gate) if self.joint else 0.0


def nll() -> NegativeLogLikelihood:
    """Construct the negative log-likelihood of y given x.

    Returns
    -------
    NegativeLogLikelihood
        The loss. It needs a model with a family and a soft gate.

    Notes
    -----
    The loss is the weighted mean over rows of

        -log p(y | x) = -log of the sum over k of  g_k(x) f_k(y; eta_k(x), phi_k).

    Rows of a group share their expert. Their likelihood is that of the group, and the mean is still over rows.
    """
    return NegativeLogLikelihood()


def joint_nll() -> NegativeLogLikelihood:
    """Construct the negative log-likelihood of x and y, for a gate that models its inputs.

    Returns
    -------
    NegativeLogLikelihood
        The loss, the weighted mean over rows of -log p(x, y), plus the gate's prior.

    References
    ----------
    Xu, Jordan and Hinton (1995).
    """
    return NegativeLogLikelihood(joint=True)


def classification_nll() -> NegativeLogLikelihood:
    """Construct the negative classification log-likelihood: each row has one expert.

    Returns
    -------
    NegativeLogLikelihood
        The loss, `truncated_nll(1)`.

    Notes
    -----
    The loss is the weighted mean over rows of

        -max over k of [log g_k(x) + log f_k(y)].

    References
    ----------
    Celeux and Govaert (1992).
    """
    return truncated_nll(1)


def truncated_nll(k: int) -> NegativeLogLikelihood:
    """Construct the negative log-likelihood in which each row has the k experts that explain it best.

    Parameters
    ----------
    k : int
        How many experts a row has.

    Returns
    -------
    NegativeLogLikelihood
        The loss.

    Raises
    ------
    ValueError
        If k is no whole number above 0.

    Notes
    -----
    The loss is the weighted mean over rows of -log of the sum of the k largest g_k(x) f_k(y). EM ascends it with
    responsibilities that are 0 but for these experts (truncated posteriors). With k = 1 it is the classification likelihood,
    with k = K the likelihood of the mixture.

    References
    ----------
    Lücke and Eggert (2010).
    """
    return NegativeLogLikelihood(kept=_checks.count("k", k))


def complete_nll(*, joint: bool = False) -> NegativeLogLikelihood:
    """Construct the negative log-likelihood of responsibilities that are held.

    Parameters
    ----------
    joint : bool, default False
        Whether to use log p(expert, x), for a gate that models its inputs.

    Returns
    -------
    NegativeLogLikelihood
        The loss.

    Notes
    -----
    The loss is the weighted mean over rows of

        -sum over k of  r_k [log g_k(x) + log f_k(y)].

    A fit gets the responsibilities r, (n, K), as `start_responsibilities`: it is decided beforehand which expert has which
    row, and experts and gate are regressions of their own. Held-out rows are compared by log p(y | x).
    """
    return NegativeLogLikelihood(joint=_checks.flag("joint", joint), complete=True)


def likelihood_of(model: Model) -> NegativeLogLikelihood:
    """Return the likelihood that EM ascends for a model.

    Parameters
    ----------
    model : Model
        From `moe`, with a family.

    Returns
    -------
    NegativeLogLikelihood
        Of x and y for a gate that models its inputs, of the k experts that a gate keeps, or of y given x.
    """
    check_model(model)
    return NegativeLogLikelihood(joint=model.gate.models_inputs, kept=model.kept)
