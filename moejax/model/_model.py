"""The model of an expert, a gate and a family; its face has rows leading, all else experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._contracts import Params, Part
from moejax.experts import Expert, ExpertLike, by_columns, check_division
from moejax.experts import completed as completed_expert
from moejax.families import Family, FamilyLike
from moejax.families import completed as completed_family
from moejax.gates import NEVER, Gate, GateLike, among
from moejax.gates import completed as completed_gate
from moejax.model._columns import Columns, column_tuple, columns_of
from moejax.model._data import PARTS, Data, Inputs, floating, is_table, leaders


@dataclass(frozen=True)
class Model:
    """A mixture of experts; made by `moe`."""

    expert: Expert
    gate: Gate
    n_experts: int
    family: Any = None  # a `Family`, or None
    expert_columns: Columns = None
    gate_columns: Columns = None

    # ---- the face: rows lead ------------------------------------------------------------------------------------

    def init(self, key: jax.Array, x: Any) -> Params:
        """Parameters drawn from `key` for inputs like x (n, d): {"experts": ..., "gate": ..., "family": ...}.

        Only the structure, the number of columns and the type of x matter, and its rows to parts that look at them.
        """
        x = floating(x)
        expert_key, gate_key = jax.random.split(key)
        prepared = self.prepare(x).expert  # which refuses what a part cannot see, before `init` trips over it
        experts = self.expert.init(expert_key, self.n_experts, self.seen("expert_columns", x))
        gate = self.gate.init(gate_key, self.n_experts, self.seen("gate_columns", x))
        if self.family is None:
            return {"experts": experts, "gate": gate, "family": {}}
        eta = jax.eval_shape(self.expert.apply, experts, prepared)
        return {"experts": experts, "gate": gate, "family": self.family.init(self.n_experts, eta)}

    def predict(self, params: Params, x: Any, offset: Any = None) -> jax.Array:
        """E[y | x], the gate-weighted mean of the experts' means (of one expert alone for a top-1 gate): (n,) or (n, m)."""
        return self.mean(params, self.prepare(x), offset)

    def expert_predictions(self, params: Params, x: Any, offset: Any = None) -> jax.Array:
        """Each expert's mean: (n, K), or (n, K, m) for m outputs."""
        return jnp.swapaxes(self.means(params, self.prepare(x), offset), 0, 1)

    def gate_probs(self, params: Params, x: Any) -> jax.Array:
        """P(expert | x), soft for every gate: (n, K)."""
        return jnp.exp(self.log_gate(params, self.prepare(x))).T

    def log_prob(self, params: Params, x: Any, y: Any, offset: Any = None) -> jax.Array:
        """log p(y | x), the mixture's log density or log mass for each row: (n,). The gate is soft, also one that chooses.

        Raises ValueError without a family.
        """
        return jax.nn.logsumexp(self.log_joint(params, self.prepare(x), jnp.asarray(y), offset), axis=0)

    def responsibilities(self, params: Params, x: Any, y: Any, offset: Any = None, groups: Any = None) -> jax.Array:
        """P(expert | x, y): (n, K). groups: (n,) labels; the rows of a group share their expert. Raises without a family."""
        data = Data(self.prepare(x), jnp.asarray(y), offset, None if groups is None else leaders(groups))
        return jax.nn.softmax(self.grouped_log_joint(params, data), axis=0).T

    def sample(self, key: jax.Array, params: Params, x: Any, offset: Any = None) -> jax.Array:
        """A draw of y for each row: (n,) or (n, m), from the density of `log_prob`. Raises ValueError without a family."""
        family = self._family("sample")
        if not family.has_sample:
            raise ValueError(f"sample: {family!r} has no draws; want a family with `sample`")
        inputs = self.prepare(x)
        expert_key, family_key = jax.random.split(key)
        chosen = jax.random.categorical(expert_key, self.log_gate(params, inputs), axis=0)
        draws = family.sample(family_key, self.eta(params, inputs, offset), self.phi(params))
        return draws[chosen, jnp.arange(draws.shape[1])]

    # ---- inside: experts lead, rows last ------------------------------------------------------------------------

    def prepare(self, x: Any) -> Inputs:
        """Inputs as the methods below want them; what it computes is shared by all members of a sweep."""
        x = floating(x)
        return Inputs(
            self.expert.prepare(self.seen("expert_columns", x)),
            self.gate.prepare(self.seen("gate_columns", x)),
        )

    def table(self, x: Any) -> Any:
        """Where a start may look for clusters: x if it is a table (n, d), what the gate sees if that is one, or else x."""
        seen = x if is_table(x) else self.seen("gate_columns", x)
        return seen if is_table(seen) else x

    def seen(self, name: str, x: Any) -> Any:
        """What experts (name: "expert_columns") or gate ("gate_columns") see of x."""
        return columns_of(name, x, self.expert_columns if name == "expert_columns" else self.gate_columns)

    def eta(self, params: Params, inputs: Inputs, offset: Any = None) -> jax.Array:
        """The experts' predictors, offset added: (K, n) or (K, n, m)."""
        eta = self.expert.apply(params["experts"], inputs.expert)
        return eta if offset is None else eta + offset

    def means(self, params: Params, inputs: Inputs, offset: Any = None) -> jax.Array:
        """The experts' means, (K, n) or (K, n, m)."""
        eta = self.eta(params, inputs, offset)
        return eta if self.family is None else self.family.mean(eta)

    def log_gate(self, params: Params, inputs: Inputs, key: jax.Array | None = None) -> jax.Array:
        """log P(expert | x), (K, n); with a key, of a gate that is noisy in training."""
        active = params["active"] > 0 if "active" in params else None
        if key is not None and self.gate.is_noisy:
            log_probs = self.gate.noisy_log_probs(params["gate"], inputs.gate, key)
            return log_probs if active is None else among(log_probs, active)
        if active is not None:
            return self.gate.log_probs_among(params["gate"], inputs.gate, active)
        return self.gate.log_probs(params["gate"], inputs.gate)

    def log_gate_joint(self, params: Params, inputs: Inputs) -> jax.Array:
        """log p(expert, x) of a gate that models its inputs too, (K, n)."""
        log_joint = self.gate.log_joint(params["gate"], inputs.gate)
        if "active" not in params:
            return log_joint
        # The proportions of the experts that take part are those of the gate, divided by their sum.
        share = jax.nn.logsumexp(self._masked(params, self.gate.log_proportions(params["gate"])[:, None]))
        return self._masked(params, log_joint) - share

    def gate_weights(self, params: Params, inputs: Inputs, key: jax.Array | None = None) -> jax.Array:
        """What multiplies the experts' means, up to a factor for each row, (K, n): the gate's `weights`, or probabilities,
        as it routes them. key: see `log_gate`.
        """
        if "active" not in params and key is None:
            return self.gate.weights(params["gate"], inputs.gate)
        return self.gate.routed(jnp.exp(self.log_gate(params, inputs, key)))

    def mean(self, params: Params, inputs: Inputs, offset: Any = None, key: jax.Array | None = None) -> jax.Array:
        """The weighted mean of the experts' means, (n,) or (n, m). key: see `log_gate`."""
        means, weights = self.means(params, inputs, offset), self.gate_weights(params, inputs, key)
        # Dividing by the sum here rather than in the gate makes autodiff's backward pass as short as that by hand, and
        # the reciprocal lets the compiler read the (K, n) arrays once.
        share = 1 / weights.sum(axis=0)
        if means.ndim == 3:
            return (weights[..., None] * means).sum(axis=0) * share[:, None]
        return (weights * means).sum(axis=0) * share

    def log_joint(self, params: Params, inputs: Inputs, y: jax.Array, offset: Any = None) -> jax.Array:
        """log g_k(x) + log f(y; eta_k(x), phi_k), (K, n)."""
        return self.grouped_log_joint(params, Data(inputs, y, offset))

    def grouped_log_joint(self, params: Params, data: Data) -> jax.Array:
        """`log_joint` where the rows of a group share their expert: log densities added up over the group, beside the gate
        of its first row; the same numbers for all its rows, (K, n).
        """
        return self.pooled(self.log_gate(params, data.x), self.log_density(params, data), data.leader)

    def log_density(self, params: Params, data: Data) -> jax.Array:
        """log f(y; eta_k(x), phi_k), (K, n)."""
        family = self._family("log_prob")
        return family.log_prob(data.y, self.eta(params, data.x, data.offset), self.phi(params))

    def variance(self, params: Params, inputs: Inputs) -> jax.Array | None:
        """The variance of the predictors (K, n) of experts whose params are a distribution; None of others."""
        return self.expert.variance(params["experts"], inputs.expert)

    def expected_log_density(self, params: Params, data: Data) -> jax.Array:
        """`log_density`, (K, n); of experts whose params are a distribution, its mean over them."""
        variance = self.variance(params, data.x)
        if variance is None:
            return self.log_density(params, data)
        family = self._family("expected_log_prob")
        return family.expected_log_prob(data.y, self.eta(params, data.x, data.offset), variance, self.phi(params))

    def log_prior(self, params: Params) -> Any:
        """What experts whose params are a distribution add to the total log-likelihood, 0 for others."""
        if not self.expert.has_distribution:
            return 0.0
        return jnp.where(self.active(params), self.expert.log_prior(params["experts"]), 0).sum()

    def phi(self, params: Params) -> Any:
        """The family's dispersion parameters, those of the first expert in the place of those that take no part.

        Bounds that one expert's dispersion sets to those of others would otherwise come from experts that are not there.
        """
        if "active" not in params or self.family is None or self.family.shared:
            return params["family"]
        absent = params["active"] == 0

        def present(leaf: jax.Array) -> jax.Array:
            if leaf.ndim == 0 or leaf.shape[0] != self.n_experts:
                return leaf
            return jnp.where(absent.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf[:1], leaf)

        return jax.tree.map(present, params["family"])

    @staticmethod
    def pooled(log_gate: jax.Array, log_density: jax.Array, leader: jax.Array | None) -> jax.Array:
        """Their sum, (K, n), densities added up over groups and the gate that of each group's first row."""
        if leader is None:
            return log_gate + log_density
        added = jax.ops.segment_sum(log_density.T, leader, log_density.shape[1]).T
        return (log_gate + added)[:, leader]

    @property
    def kept(self) -> int | None:
        """To how many experts the gate routes a row, None for all."""
        kept = self.gate.kept
        return None if kept is None or kept >= self.n_experts else kept

    def active(self, params: Params) -> jax.Array:
        """Which experts take part, (K,): all, unless the gate or the number of experts in `hyper` says otherwise."""
        active = self.gate.active(params["gate"])
        if active is None:
            active = jnp.ones(self.n_experts, bool)
        return active & (params["active"] > 0) if "active" in params else active

    def _masked(self, params: Params, logs: jax.Array) -> jax.Array:
        return jnp.where(params["active"][:, None] > 0, logs, NEVER)

    # ---- what solvers ask of params -----------------------------------------------------------------------------

    def trainable(self, params: Params) -> Params:
        """A tree like params: True for leaves that an optimiser moves.

        Each part's `trainable` says; for a user's record that says nothing, all but those that its `hyper` names.
        """
        return self._marked(params, lambda part, own: part.trainable(own))

    def penalized(self, params: Params) -> Params:
        """A tree like params: True for coefficients, which penalties see.

        Each part's `penalized` says; for a user's record that says nothing, none. A leaf that is not trained is no
        coefficient.
        """
        return self._marked(params, _coefficients)

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set in params, with their defaults: `n_experts`, how many of the experts take part, and
        those of the parts (a temperature).
        """
        own = {name: default for part in self.parts.values() for name, default in part.hyper.items()}
        return {**own, "n_experts": self.n_experts}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number that the part which has it cannot have: by its `check_hyper`, or if not finite."""
        if name == "n_experts":
            return _checks.whole("hyper['n_experts']", value, 1, self.n_experts)
        next(part for part in self.parts.values() if name in part.hyper).check_hyper(name, value)

    def with_hyper(self, params: Params, hyper: dict[str, Any]) -> Params:
        """Params with the numbers of `hyper` set to those given; params["active"], (K,), is there if `n_experts` is."""
        params = dict(params)
        if "n_experts" in hyper:
            some = next(leaf for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact))
            params["active"] = (jnp.arange(self.n_experts) < hyper["n_experts"]).astype(some.dtype)
        for place, part in self.parts.items():
            for name in part.hyper:
                if name in hyper:
                    leaf = params[place][name]
                    params[place] = {**params[place], name: jnp.full_like(leaf, hyper[name])}
            params[place] = part.settled(params[place])
        return params

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by the names of their params; no "family" without one."""
        parts: dict[str, Part] = {"experts": self.expert, "gate": self.gate}
        return parts if self.family is None else {**parts, "family": self.family}

    def _marked(self, params: Params, mark: Callable[[Part, Any], Any]) -> Params:
        parts = self.parts
        none: dict[str, Any] = {name: {} if name in PARTS else False for name in params}
        return {name: mark(parts[name], params[name]) if name in parts else none[name] for name in params}

    def _family(self, wanted_by: str) -> Family:
        if self.family is None:
            raise ValueError(f"{wanted_by}: this model has no family; want one, as in moe(..., family=families.gaussian())")
        return self.family


def _coefficients(part: Part, params: Params) -> Any:
    return jax.tree.map(lambda seen, trained: seen and trained, part.penalized(params), part.trainable(params))


def moe(
    expert: ExpertLike,
    gate: GateLike,
    n_experts: int,
    *,
    family: FamilyLike | None = None,
    expert_columns: Sequence[Any] | str | None = None,
    gate_columns: Sequence[int] | Sequence[str] | str | None = None,
) -> Model:
    """A mixture of `n_experts` experts.

    expert: a part from `moejax.experts`, or any record with its functions `init` and `apply`. gate: a part from
    `moejax.gates`, or any record with `init` and `log_probs`. family: the distribution of the target given an expert, from
    `moejax.families`, or any record with `log_prob` and `mean`; None for a model that predicts and has no likelihood. A
    record is completed with the defaults of its contract (see `moejax.experts.Expert`, `moejax.gates.Gate` and
    `moejax.families.Family`). expert_columns, gate_columns: what the experts and the gate see of
    x: None for all of it; some columns of a table (n, d); or, where x is a mapping from names to arrays, for example
    {"inputs": (n, d), "predictions": (n, K)}, one name, whose array is seen as it is, or a sequence of names, whose arrays
    are seen as one table, side by side. For experts also a sequence of columns for each of them, which may overlap (see
    `moejax.experts.by_columns`).

    Raises ValueError for n_experts below 1, a part without its functions, columns that are negative or repeated, and
    columns for another number of experts.
    """
    _checks.count("n_experts", n_experts)
    expert = completed_expert(expert)
    if isinstance(expert_columns, Sequence | np.ndarray) and any(np.ndim(own) for own in expert_columns):
        check_division("expert_columns", expert_columns, n_experts)
        expert, expert_columns = by_columns(expert, [expert_columns]), None  # type: ignore[list-item]
    return Model(
        expert,
        completed_gate(gate),
        int(n_experts),
        None if family is None else completed_family(family),
        column_tuple("expert_columns", expert_columns),
        column_tuple("gate_columns", gate_columns),
    )
