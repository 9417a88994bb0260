"""Losses: the mean over rows that a fit improves, before penalties.

A loss is any record with

    value(model, params, data, weights) -> scalar      data: a `moejax.model.Data`; weights: (n,), of sum 1

and, where it helps, `has_likelihood`, whether it is a mixture's negative log-likelihood (else no); `check(model)`, which
raises where model and loss do not go together; `score`, called like `value`, for rows that were not fitted: without what a
fit's own params or held responsibilities add to the loss; `complete`, whether it wants responsibilities that are held, which
a fit then gets as `start` and hands on in `data.division`; and `hyper`, names of its own numbers that a fit may set, with
their defaults, read from `data.hyper`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax._linear import dot
from moejax.gates import largest
from moejax.model import Data, Model, hashable


@dataclass(frozen=True)
class SquaredError:
    """Squared error of the gated mean; made by `squared_error`."""

    has_likelihood = False

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows, and plain mean over outputs, of (y - E[y | x])^2."""
        mean = model.mean(params, data.x, data.offset, data.key)
        _checks.shape("y", data.y, mean.shape, "like a prediction")
        return dot(weights, _of_rows(jnp.square(mean - data.y), 1))


def squared_error() -> SquaredError:
    """Squared error of the prediction, a mean over rows (and over outputs)."""
    return SquaredError()


@dataclass(frozen=True)
class NegativeLogLikelihood:
    """Negative log-likelihood of the mixture; made by `nll`, `joint_nll`, `truncated_nll` and `complete_nll`.

    kept: how many experts a row may have, None for all.
    """

    joint: bool = False
    kept: int | None = None
    complete: bool = False

    @property
    def has_likelihood(self) -> bool:
        """Yes: log-likelihood and criteria have a meaning."""
        return True

    def check(self, model: Model) -> None:
        """Raise for a model without a family, and for a gate that has no likelihood of this kind."""
        if model.family is None:
            raise ValueError("loss: nll was given for a model without a family; want moe(..., family=families.gaussian())")
        if not self.complete and model.kept not in (None, self.kept):
            what = "one expert" if model.kept == 1 else f"{model.kept} experts"
            raise ValueError(
                f"loss: nll was given for a gate that chooses {what}; want squared_error or a soft gate, or "
                f"truncated_nll({model.kept})"
            )
        if self.joint and not hasattr(model.gate, "log_joint"):
            raise ValueError(f"loss: joint_nll was given for {model.gate!r}, which does not model its inputs; want nll")
        if hasattr(model.expert, "variance") and not hasattr(model.family, "expected_log_prob"):
            raise ValueError(
                f"family: {model.family!r} was given for {model.expert!r}, whose coefficients have a distribution; "
                "want a family with expected_log_prob, as families.gaussian()"
            )

    def log_gate(self, model: Model, params: Any, data: Data) -> jax.Array:
        """log p(expert | x), or log p(expert, x), (K, n)."""
        return model.log_gate_joint(params, data.x) if self.joint else model.log_gate(params, data.x, data.key)

    def log_joint(self, model: Model, params: Any, data: Data) -> jax.Array:
        """Log densities of row (or group) and expert, (K, n): log p(expert, y | x), or log p(expert, x, y).

        Of experts whose params are a distribution, in the mean over it.
        """
        return model.pooled(self.log_gate(model, params, data), model.expected_log_density(params, data), data.leader)

    def each(self, log_joint: jax.Array, division: jax.Array | None = None) -> jax.Array:
        """The log-likelihood of each row, (n,); its derivative in log_joint is the responsibilities."""
        if self.complete:
            held = _held(division)
            return jnp.where(held > 0, held * log_joint, 0).sum(axis=0)
        return jax.nn.logsumexp(self._truncated(log_joint), axis=0)

    def responsibilities(self, log_joint: jax.Array, division: jax.Array | None = None) -> jax.Array:
        """How much of each row is each expert's, (K, n), of sum 1 over experts."""
        return _held(division) if self.complete else jax.nn.softmax(self._truncated(log_joint), axis=0)

    def _truncated(self, log_joint: jax.Array) -> jax.Array:
        return log_joint if self.kept is None else jnp.where(largest(log_joint, self.kept), log_joint, -jnp.inf)

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows of the negative log-likelihood; of the joint one with the gate's prior.

        Of experts whose params are a distribution, an upper bound of it, with their prior.
        """
        log_joint = self.log_joint(model, params, data)
        return self._mean(model, params, data, weights, log_joint) + self.expert_prior(model, params, data)

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The same of the density that `Model.log_prob` has, and without the prior of experts.

        Where responsibilities are held it is the mean of -log p(y | x), for those of other rows are not known.
        """
        loss = NegativeLogLikelihood() if self.complete else self
        log_joint = model.pooled(loss.log_gate(model, params, data), model.log_density(params, data), data.leader)
        return loss._mean(model, params, data, weights, log_joint)

    def _mean(self, model: Model, params: Any, data: Data, weights: jax.Array, log_joint: jax.Array) -> jax.Array:
        each = self.each(log_joint, data.division)
        return self.gate_prior(model, params["gate"]) - weighted_sum(of_units(weights, data.leader), each)

    def gate_prior(self, model: Model, gate: Any) -> Any:
        """What a gate that models its inputs adds to the joint loss."""
        return -model.gate.log_prior(gate) if self.joint and hasattr(model.gate, "log_prior") else 0.0

    def expert_prior(self, model: Model, params: Any, data: Data) -> Any:
        """What experts whose params are a distribution add to the loss, a mean over rows."""
        return -model.log_prior(params) / data.size


def nll() -> NegativeLogLikelihood:
    """-log p(y | x), a mean over rows; needs a family and a soft gate.

    Rows of a group share their expert: their likelihood is that of the group, divided by the rows all the same.
    """
    return NegativeLogLikelihood()


def joint_nll() -> NegativeLogLikelihood:
    """-log p(x, y), a mean over rows, for a gate that models its inputs (Xu, Jordan and Hinton 1995)."""
    return NegativeLogLikelihood(joint=True)


def classification_nll() -> NegativeLogLikelihood:
    """-max over k of [log g_k(x) + log f_k(y)], a mean over rows (Celeux and Govaert 1992): each row has one expert."""
    return truncated_nll(1)


def truncated_nll(k: int) -> NegativeLogLikelihood:
    """-log of the sum of the k largest g_k(x) f_k(y), a mean over rows: each row has the k experts that explain it best.

    It is what EM ascends with responsibilities that are 0 but for these (Lücke and Eggert 2010, truncated posteriors); with
    k = 1 the classification likelihood, with k = K the mixture's. Raises ValueError for k that is no whole number above 0.
    """
    _checks.count("k", k)
    return NegativeLogLikelihood(kept=int(k))


def complete_nll(*, joint: bool = False) -> NegativeLogLikelihood:
    """-sum over k of r_k [log g_k(x) + log f_k(y)], a mean over rows, of responsibilities r (n, K) that are held.

    A fit gets them as `start`: who has which row is decided beforehand, and experts and gate are regressions of their own.
    joint: with log p(expert, x) for a gate that models its inputs. Held-out rows are compared by log p(y | x).
    """
    return NegativeLogLikelihood(joint=joint, complete=True)


@dataclass(frozen=True)
class CompleteSquaredError:
    """Squared error of each expert on its own rows; made by `complete_squared_error`."""

    has_likelihood = False
    complete = True

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The weighted mean over rows of r_k (y - mean_k)^2 - r_k log g_k, summed over experts."""
        means = model.means(params, data.x, data.offset)
        _checks.shape("y", data.y, means.shape[1:], "like a prediction")
        each = _of_rows(jnp.square(means - data.y), 2) - model.log_gate(params, data.x, data.key)
        return dot(weights, (_held(data.division) * each).sum(axis=0))

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The squared error of the prediction, for whose are other rows is not known."""
        return SquaredError().value(model, params, data, weights)


def complete_squared_error() -> CompleteSquaredError:
    """sum over k of r_k [(y - mean_k(x))^2 - log g_k(x)], a mean over rows, of responsibilities r (n, K) that are held.

    What `complete_nll` is for a model without a family. Held-out rows are compared by the squared error of the prediction.
    """
    return CompleteSquaredError()


def complete_of(model: Model) -> Any:
    """The loss of held responsibilities that goes with this model."""
    return complete_squared_error() if model.family is None else complete_nll()


@dataclass(frozen=True)
class Balanced:
    """A loss plus what makes the gate use all experts; made by `balanced`."""

    loss: Any
    kind: str
    weight: float

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "loss":  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.loss, name)

    @property
    def hyper(self) -> dict[str, float]:
        """`balance`, the weight of the balancing term, and what the loss has."""
        return {**getattr(self.loss, "hyper", {}), "balance": self.weight}

    def value(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """That of the loss plus `balance` times the balancing term."""
        balance = (data.hyper or {}).get("balance", self.weight)
        return self.loss.value(model, params, data, weights) + balance * self.term(model, params, data, weights)

    def score(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """That of the loss: balance is a means, as penalties are."""
        return getattr(self.loss, "score", self.loss.value)(model, params, data, weights)

    def term(self, model: Model, params: Any, data: Data, weights: jax.Array) -> jax.Array:
        """The balancing term, see `balanced`: a scalar."""
        count = model.active(params).sum()
        if self.kind == "importance":
            share = model.gate_weights(params, data.x, data.key)
            return count * jnp.square(dot(share / share.sum(axis=0), weights)).sum() - 1
        probs = jnp.exp(model.log_gate(params, data.x, data.key))
        kept = model.kept or 1
        routed = largest(probs, kept) & model.active(params)[:, None]
        share = dot(routed.astype(probs.dtype), weights) / jnp.minimum(kept, count)
        return count * jnp.sum(share * dot(probs, weights))


def balanced(loss: Any, *, kind: str = "importance", weight: float = 0.01) -> Balanced:
    """A loss with a term that keeps all experts in use, for `fit_gradient`: its weight is the field `balance` of `hyper`.

    kind, where g are the shares of the experts (K, n) as the gate routes them, and means over rows are by weight:

    - "importance": the squared coefficient of variation, over experts, of the importance sum_i g_ki (Shazeer et al. 2017,
      1701.06538, equations 6 and 7), which is K * sum_k p_k^2 - 1 for p_k the mean of g_k: 0 where all are used alike;
    - "load": K * sum_k f_k P_k (Fedus, Zoph and Shazeer 2021, 2101.03961, equation 4), f_k the share of rows routed to
      expert k (of those kept by a gate that keeps several, the most probable elsewhere), without a gradient, and P_k the
      mean probability: 1 where all are used alike.

    weight: the default of `balance`. Raises ValueError for what is no loss, another kind, and a weight below 0.
    """
    if not callable(getattr(loss, "value", None)):
        raise ValueError(f"loss: {loss!r} was given; want a record with a function `value`, as in moejax.losses")
    if kind not in ("importance", "load"):
        raise ValueError(f"kind: {kind!r} was given; want 'importance' or 'load'")
    _checks.not_negative("weight", weight)
    return Balanced(hashable(loss), kind, float(weight))


def likelihood_of(model: Model) -> NegativeLogLikelihood:
    """The likelihood that EM ascends for this model: of the joint, of the k experts that a gate keeps, or of y given x."""
    return NegativeLogLikelihood(joint=hasattr(model.gate, "log_joint"), kept=model.kept)


def _held(division: jax.Array | None) -> jax.Array:
    if division is None:
        raise ValueError("start: nothing was given for a loss of responsibilities that are held; want them, (n, K)")
    return division


def _of_rows(errors: jax.Array, ndim: int) -> jax.Array:
    """Errors as of one output, a plain mean over several."""
    return errors if errors.ndim == ndim else errors.mean(axis=-1)


def weighted_sum(weights: jax.Array, each: jax.Array) -> jax.Array:
    """The sum over rows of weights (n,) times what each row has (n,).

    Not as a product, which of a sweep's members together would round otherwise in some of its lanes.
    """
    return (weights * each).sum()


def of_units(weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """Weights (n,) of what has one expert of its own: each row, or each group, whose first row stands for it."""
    return weights if leader is None else weights * (leader == jnp.arange(weights.shape[0]))
