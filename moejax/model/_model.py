"""The model of an expert, a gate and a family; its face has rows leading, all else experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from moejax import _checks
from moejax._arrays import (
    Eta,
    Features,
    Labels,
    Marks,
    Numbers,
    OffsetLike,
    Outputs,
    OutputsLike,
    RandomKey,
    Rowwise,
    Scalar,
    Tree,
)
from moejax._contracts import Params, Part
from moejax._rows import by_block
from moejax.experts import Expert, ExpertLike, by_columns, check_division
from moejax.experts import completed as completed_expert
from moejax.families import Family, FamilyLike
from moejax.families import completed as completed_family
from moejax.gates import NEVER, Gate, GateLike, among
from moejax.gates import completed as completed_gate
from moejax.model._arguments import check_shapes, checked
from moejax.model._columns import Columns, column_tuple, columns_of
from moejax.model._data import PARTS, Data, Inputs, floating, group_numbers, is_table, leaders, native, on_device

_WORK_ARRAYS = 8  # arrays of (K, n) that a prediction makes


@dataclass(frozen=True)
class Model:
    """A mixture of experts; made by `moe`.

    Attributes
    ----------
    expert : Expert
        The part that stands for all K experts.
    gate : Gate
        The gate.
    n_experts : int
        Number of experts K.
    family : Family or None, default None
        The distribution of the target given an expert; None for a model without a likelihood.
    expert_columns : tuple or str or None, default None
        What the experts see of x, None for all of it.
    gate_columns : tuple or str or None, default None
        What the gate sees of x, None for all of it.

    Notes
    -----
    Methods of the face take x with rows leading, and params as from `init`: {"experts": ..., "gate": ..., "family": ...}.
    Methods that take prepared `inputs` return experts first, (K, n).
    """

    expert: Expert
    gate: Gate
    n_experts: int
    family: Family | None = None
    expert_columns: Columns = None
    gate_columns: Columns = None

    # ---- the face: rows lead ------------------------------------------------------------------------------------

    def init(self, key: RandomKey, x: Features) -> Params:
        """Return parameters drawn from a key, for inputs like x.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        x : array_like, (n, d), or pytree
            Inputs. Only structure, number of columns and type matter, and the rows to parts that look at them.

        Returns
        -------
        dict
            {"experts": ..., "gate": ..., "family": ...}, each a pytree.
        """
        _checks.key("key", key)
        x = native("x", x)
        if not any(_checks.is_traced(leaf) for leaf in jax.tree.leaves(x)):
            check_shapes(self, x, least=0)
        x = floating(x)
        expert_key, gate_key = jax.random.split(key)
        prepared = self.prepare(x).expert  # which refuses what a part cannot see, before `init` trips over it
        experts = self.expert.init(expert_key, self.n_experts, self.seen("expert_columns", x))
        gate = self.gate.init(gate_key, self.n_experts, self.seen("gate_columns", x))
        if self.family is None:
            return {"experts": experts, "gate": gate, "family": {}}
        eta = jax.eval_shape(self.expert.apply, experts, prepared)
        return {"experts": experts, "gate": gate, "family": self.family.init(self.n_experts, eta)}

    def predict(self, params: Params, x: Features, offset: OffsetLike | None = None) -> Outputs:
        """Return E[y | x], the gate-weighted mean of the experts' means.

        Parameters
        ----------
        params : dict
            As from `init` or `Fit.params`.
        x : array_like, (n, d), or pytree
            Inputs.
        offset : array_like or None, (n,) or (n, m), default None
            Added to every expert's predictor eta, on the scale of eta.

        Returns
        -------
        jax.Array, (n,) or (n, m)
            Predictions. A top-1 gate uses the mean of one expert alone; `categorical` gives class probabilities (n, C).
        """
        return self._by_block(lambda params, x, offset: self.mean(params, self.prepare(x), offset), params, x, offset=offset)

    def expert_predictions(self, params: Params, x: Features, offset: OffsetLike | None = None) -> Rowwise:
        """Return the mean of each expert.

        Parameters
        ----------
        params : dict
            As from `init` or `Fit.params`.
        x : array_like, (n, d), or pytree
            Inputs.
        offset : array_like or None, (n,) or (n, m), default None
            Added to every expert's predictor eta.

        Returns
        -------
        jax.Array, (n, K) or (n, K, m)
            Means.
        """

        def means(params: Any, x: Any, offset: Any) -> jax.Array:
            return jnp.swapaxes(self.means(params, self.prepare(x), offset), 0, 1)

        return self._by_block(means, params, x, offset=offset)

    def gate_probs(self, params: Params, x: Features) -> Float[Array, "n K"]:
        """Return P(expert | x), soft for every gate.

        Parameters
        ----------
        params : dict
            As from `init` or `Fit.params`.
        x : array_like, (n, d), or pytree
            Inputs.

        Returns
        -------
        jax.Array, (n, K)
            Probabilities, of sum 1 over experts.
        """
        return self._by_block(lambda params, x, _: jnp.exp(self.log_gate(params, self.prepare(x))).T, params, x)

    def proportions(self, params: Params) -> Float[Array, " K"]:
        """Return the mixing proportions, the probabilities of the experts before x and y are seen.

        Parameters
        ----------
        params : dict
            As from `init` or `Fit.params`.

        Returns
        -------
        jax.Array, (K,)
            Probabilities, of sum 1; 0, or next to it, for experts that take no part. Where a fit was given groups they are
            those of groups and not of rows. `Fit.shares` are shares of rows, of large groups more than of small ones.

        Raises
        ------
        ValueError
            If the gate has none, because its probabilities depend on x: see `gate_probs` and `moejax.usage`.
        """
        if not (self.gate.has_proportions or self.gate.models_inputs):
            wanted = "gate_probs(params, x), or moejax.usage for means over rows"
            raise ValueError(f"proportions: the probabilities of {self.gate!r} depend on x; want {wanted}")
        log_proportions = self.gate.log_proportions(native("params", params)["gate"])
        if "active" in params:
            log_proportions = among(log_proportions[:, None], jnp.asarray(params["active"]) > 0)[:, 0]
        return jnp.exp(log_proportions)

    def log_prob(
        self,
        params: Params,
        x: Features,
        y: OutputsLike,
        offset: OffsetLike | None = None,
        groups: Labels | None = None,
    ) -> Float[Array, " n"]:
        """Return log p(y | x), the log density or log mass of the mixture for each row.

        Parameters
        ----------
        params : dict
            As from `init` or `Fit.params`.
        x : array_like, (n, d), or pytree
            Inputs.
        y : array_like, (n,) or (n, m)
            Targets.
        offset : array_like or None, (n,) or (n, m), default None
            Added to every expert's predictor eta.
        groups : sequence or None, (n,), default None
            Labels of any type; the rows of a group share their expert.

        Returns
        -------
        jax.Array, (n,)
            One number a row, summed over outputs and not over rows. The gate is soft, also one that chooses. With groups,
            that of the row's group, the same for all its rows: the log-likelihood of a fit adds it up once a group.

        Raises
        ------
        ValueError
            If the model has no family, or a row has no group.

        Notes
        -----
        The density of a group, with the gate of its first row, is

            sum over k of  g_k(x) * product over rows of the group of  f(y; eta_k(x), phi_k).

        Examples
        --------
        >>> import jax
        >>> import numpy as np
        >>> import moejax
        >>> from moejax import experts, families, gates
        >>> model = moejax.moe(experts.linear(), gates.constant(), 2, family=families.gaussian())
        >>> x, y, groups = np.ones((3, 1)), np.zeros(3), ["a", "b", "a"]
        >>> each = model.log_prob(model.init(jax.random.key(0), x), x, y, groups=groups)
        >>> bool(each[0] == each[2])
        True
        >>> total = each[np.unique(groups, return_index=True)[1]].sum()  # once for each group
        """
        self._family("log_prob", y)

        def each(params: Any, x: Any, offset: Any, y: jax.Array, leader: Any = None) -> jax.Array:
            return jax.nn.logsumexp(self.grouped_log_joint(params, Data(self.prepare(x), y, offset, leader)), axis=0)

        return self._by_group(each, params, x, y, offset, groups)

    def responsibilities(
        self,
        params: Params,
        x: Features,
        y: OutputsLike,
        offset: OffsetLike | None = None,
        groups: Labels | None = None,
    ) -> Float[Array, "n K"]:
        """Return P(expert | x, y).

        Parameters
        ----------
        params : dict
            As from `init` or `Fit.params`.
        x : array_like, (n, d), or pytree
            Inputs.
        y : array_like, (n,) or (n, m)
            Targets.
        offset : array_like or None, (n,) or (n, m), default None
            Added to every expert's predictor eta.
        groups : sequence or None, (n,), default None
            Labels of any type; the rows of a group share their expert.

        Returns
        -------
        jax.Array, (n, K)
            Probabilities, of sum 1 over experts.

        Raises
        ------
        ValueError
            If the model has no family, or a row has no group.

        Notes
        -----
        The responsibility of expert k for a row is g_k(x) f(y; eta_k(x), phi_k) / p(y | x).
        """
        self._family("responsibilities", y)

        def each(params: Any, x: Any, offset: Any, y: jax.Array, leader: Any = None) -> jax.Array:
            return jax.nn.softmax(self.grouped_log_joint(params, Data(self.prepare(x), y, offset, leader)), axis=0).T

        return self._by_group(each, params, x, y, offset, groups)

    def sample(self, key: RandomKey, params: Params, x: Features, offset: OffsetLike | None = None) -> Outputs:
        """Return a draw of y for each row, from the density of `log_prob`.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        params : dict
            As from `init` or `Fit.params`.
        x : array_like, (n, d), or pytree
            Inputs.
        offset : array_like or None, (n,) or (n, m), default None
            Added to every expert's predictor eta.

        Returns
        -------
        jax.Array, (n,) or (n, m)
            Targets.

        Raises
        ------
        ValueError
            If the model has no family, or a family without `sample`.
        """
        _checks.key("key", key)
        family = self._family("sample")
        if not family.has_sample:
            raise ValueError(f"sample: {family!r} has no draws; want a family with `sample`")
        params, x, _, offset = checked(self, params, x, offset=offset)
        inputs = self.prepare(x)
        expert_key, family_key = jax.random.split(key)
        chosen = jax.random.categorical(expert_key, self.log_gate(params, inputs), axis=0)
        draws = family.sample(family_key, self.eta(params, inputs, offset), self.phi(params))
        return draws[chosen, jnp.arange(draws.shape[1])]

    def _by_group(
        self, function: Callable[..., jax.Array], params: Any, x: Any, y: Any, offset: Any, groups: Labels | None
    ) -> jax.Array:
        """What a function of params, x, offset, y and, if there are groups, the first row of each row's returns."""
        if groups is None:
            return self._by_block(function, params, x, y, offset)
        params, x, target, offset = checked(self, params, x, y, offset)  # a group may lie anywhere among the rows
        numbers = group_numbers(groups)
        _checks.shape("groups", numbers, target.shape[:1], "the group of each row")
        return function(params, x, offset, target, leaders(numbers))

    def _by_block(
        self, function: Callable[..., jax.Array], params: Any, x: Any, y: Any = None, offset: Any = None
    ) -> jax.Array:
        """What a function of params, x, offset and, if given, y returns for each row."""
        if isinstance(x, Inputs):
            self.prepare(x)  # which refuses it
        params, x, y, offset = checked(self, params, x, y, offset)
        rows = (x, offset) if y is None else (x, offset, y)
        found: jax.Array = by_block(function, _WORK_ARRAYS * self.n_experts, params, *rows)
        return found

    # ---- inside: experts lead, rows last ------------------------------------------------------------------------

    def prepare(self, x: Features) -> Inputs:
        """Return inputs as the methods below want them; the members of a sweep share what it computes.

        Parameters
        ----------
        x : array_like, (n, d), or pytree
            Inputs.

        Returns
        -------
        Inputs
            What experts and gate see, each as its `prepare` returns it.
        """
        if isinstance(x, Inputs):  # as a loss gets it
            wanted = "a method that takes prepared inputs, as model.mean(params, data.x, data.offset)"
            raise ValueError(f"x: prepared inputs were given to a method that prepares them itself; want {wanted}")
        x = floating(native("x", x))
        return Inputs(
            self.expert.prepare(self.seen("expert_columns", x)),
            self.gate.prepare(self.seen("gate_columns", x)),
        )

    def table(self, x: Features) -> Features:
        """Return where a start may look for clusters.

        Parameters
        ----------
        x : array_like, (n, d), or pytree
            Inputs.

        Returns
        -------
        jax.Array or pytree
            x if it is a table (n, d), what the gate sees if that is one, or else x.
        """
        seen = x if is_table(x) else self.seen("gate_columns", x)
        return seen if is_table(seen) else x

    def seen(self, name: str, x: Features) -> Features:
        """Return what experts or gate see of x.

        Parameters
        ----------
        name : {"expert_columns", "gate_columns"}
            Which of the two.
        x : array_like, (n, d), or pytree
            Inputs.

        Returns
        -------
        jax.Array or pytree
            All of x, some columns, or named arrays.
        """
        return columns_of(name, x, self.expert_columns if name == "expert_columns" else self.gate_columns)

    def eta(self, params: Params, inputs: Inputs, offset: OffsetLike | None = None) -> Eta:
        """Return the experts' predictors, offset added.

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.
        offset : jax.Array or None, default None
            Shaped like the predictor of one expert.

        Returns
        -------
        jax.Array, (K, n) or (K, n, m)
            Predictors.
        """
        eta = self.expert.apply(params["experts"], inputs.expert)
        return eta if offset is None else eta + on_device(offset)

    def means(self, params: Params, inputs: Inputs, offset: OffsetLike | None = None) -> Eta:
        """Return the experts' means.

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.
        offset : jax.Array or None, default None
            Added to every expert's predictor.

        Returns
        -------
        jax.Array, (K, n) or (K, n, m)
            Means; the predictors themselves for a model without a family.
        """
        eta = self.eta(params, inputs, offset)
        return eta if self.family is None else self.family.mean(eta)

    def log_gate(self, params: Params, inputs: Inputs, key: RandomKey | None = None) -> Float[Array, "K n"]:
        """Return log P(expert | x).

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.
        key : jax.Array or None, default None
            If given, of the noise of a gate that is noisy in training.

        Returns
        -------
        jax.Array, (K, n)
            Log probabilities.
        """
        active = params["active"] > 0 if "active" in params else None
        if key is not None and self.gate.is_noisy:
            log_probs = self.gate.noisy_log_probs(params["gate"], inputs.gate, key)
            return log_probs if active is None else among(log_probs, active)
        if active is not None:
            return self.gate.log_probs_among(params["gate"], inputs.gate, active)
        return self.gate.log_probs(params["gate"], inputs.gate)

    def log_gate_joint(self, params: Params, inputs: Inputs) -> Float[Array, "K n"]:
        """Return log p(expert, x) of a gate that models its inputs.

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.

        Returns
        -------
        jax.Array, (K, n)
            Log densities.
        """
        log_joint = self.gate.log_joint(params["gate"], inputs.gate)
        if "active" not in params:
            return log_joint
        # The proportions of the experts that take part are those of the gate, divided by their sum.
        share = jax.nn.logsumexp(self._masked(params, self.gate.log_proportions(params["gate"])[:, None]))
        return self._masked(params, log_joint) - share

    def gate_weights(self, params: Params, inputs: Inputs, key: RandomKey | None = None) -> Float[Array, "K n"]:
        """Return what multiplies the experts' means, up to a factor for each row.

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.
        key : jax.Array or None, default None
            See `log_gate`.

        Returns
        -------
        jax.Array, (K, n)
            The gate's `weights`, or its probabilities, as it routes them.
        """
        if "active" not in params and key is None:
            return self.gate.weights(params["gate"], inputs.gate)
        return self.gate.routed(jnp.exp(self.log_gate(params, inputs, key)))

    def mean(
        self, params: Params, inputs: Inputs, offset: OffsetLike | None = None, key: RandomKey | None = None
    ) -> Outputs:
        """Return the weighted mean of the experts' means.

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.
        offset : jax.Array or None, default None
            Added to every expert's predictor.
        key : jax.Array or None, default None
            See `log_gate`.

        Returns
        -------
        jax.Array, (n,) or (n, m)
            Predictions.
        """
        means, weights = self.means(params, inputs, offset), self.gate_weights(params, inputs, key)
        # Dividing by the sum here rather than in the gate makes autodiff's backward pass as short as that by hand, and
        # the reciprocal lets the compiler read the (K, n) arrays once.
        share = 1 / weights.sum(axis=0)
        if means.ndim == 3:
            return (weights[..., None] * means).sum(axis=0) * share[:, None]
        return (weights * means).sum(axis=0) * share

    def log_joint(self, params: Params, inputs: Inputs, y: Outputs, offset: OffsetLike | None = None) -> Float[Array, "K n"]:
        """Return log g_k(x) + log f(y; eta_k(x), phi_k).

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.
        y : jax.Array, (n,) or (n, m)
            Targets.
        offset : jax.Array or None, default None
            Added to every expert's predictor.

        Returns
        -------
        jax.Array, (K, n)
            Log densities.
        """
        return self.grouped_log_joint(params, Data(inputs, on_device(y), offset))

    def grouped_log_joint(self, params: Params, data: Data) -> Float[Array, "K n"]:
        """Return `log_joint` where the rows of a group share their expert.

        Parameters
        ----------
        params : dict
            Params of the model.
        data : Data
            Prepared inputs, target, offset and groups.

        Returns
        -------
        jax.Array, (K, n)
            Log densities added up over the group, plus the log gate of its first row; the same numbers for all its rows.
        """
        return self.pooled(self.log_gate(params, data.x), self.log_density(params, data), data.leader)

    def log_density(self, params: Params, data: Data) -> Float[Array, "K n"]:
        """Return log f(y; eta_k(x), phi_k).

        Parameters
        ----------
        params : dict
            Params of the model.
        data : Data
            Prepared inputs, target and offset.

        Returns
        -------
        jax.Array, (K, n)
            Log densities.
        """
        family = self._family("log_prob")
        return family.log_prob(data.y, self.eta(params, data.x, data.offset), self.phi(params))

    def variance(self, params: Params, inputs: Inputs) -> Float[Array, "K n"] | None:
        """Return the variance of the predictors of experts whose params are a distribution.

        Parameters
        ----------
        params : dict
            Params of the model.
        inputs : Inputs
            What `prepare` returned.

        Returns
        -------
        jax.Array or None, (K, n)
            None for other experts.
        """
        return self.expert.variance(params["experts"], inputs.expert)

    def expected_log_density(self, params: Params, data: Data) -> Float[Array, "K n"]:
        """Return `log_density`, or its mean over experts whose params are a distribution.

        Parameters
        ----------
        params : dict
            Params of the model.
        data : Data
            Prepared inputs, target and offset.

        Returns
        -------
        jax.Array, (K, n)
            Log densities.
        """
        variance = self.variance(params, data.x)
        if variance is None:
            return self.log_density(params, data)
        family = self._family("expected_log_prob")
        return family.expected_log_prob(data.y, self.eta(params, data.x, data.offset), variance, self.phi(params))

    def log_prior(self, params: Params) -> Scalar | float:
        """Return what experts whose params are a distribution add to the total log-likelihood.

        Parameters
        ----------
        params : dict
            Params of the model.

        Returns
        -------
        jax.Array or float, ()
            A total, added once for all rows; 0 for other experts.
        """
        if not self.expert.has_distribution:
            return 0.0
        return jnp.where(self.active(params), self.expert.log_prior(params["experts"]), 0).sum()

    def phi(self, params: Params) -> Tree:
        """Return the family's dispersion parameters.

        Experts that take no part get those of the first expert. Bounds that one expert's dispersion sets to those of others
        would otherwise come from experts that do not take part.

        Parameters
        ----------
        params : dict
            Params of the model.

        Returns
        -------
        pytree
            Dispersion parameters.
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
    def pooled(
        log_gate: Float[Array, "K n"], log_density: Float[Array, "K n"], leader: Int[Array, " n"] | None
    ) -> Float[Array, "K n"]:
        """Return the sum of log gate and log density, with densities added up over groups.

        Parameters
        ----------
        log_gate : jax.Array, (K, n)
            Log probabilities, of which those of each group's first row count.
        log_density : jax.Array, (K, n)
            Log densities of the rows.
        leader : jax.Array or None, (n,)
            The first row of each row's group; None where each row is on its own.

        Returns
        -------
        jax.Array, (K, n)
            The same numbers for all rows of a group.
        """
        if leader is None:
            return log_gate + log_density
        added = jax.ops.segment_sum(log_density.T, leader, log_density.shape[1]).T
        return (log_gate + added)[:, leader]

    @property
    def kept(self) -> int | None:
        """The number of experts to which the gate routes a row, None for all."""
        kept = self.gate.kept
        return None if kept is None or kept >= self.n_experts else kept

    def active(self, params: Params) -> Bool[Array, " K"]:
        """Return which experts take part: all, unless the gate or the number of experts in `hyper` says otherwise.

        Parameters
        ----------
        params : dict
            Params of the model.

        Returns
        -------
        jax.Array, (K,)
            Booleans.
        """
        active = self.gate.active(params["gate"])
        if active is None:
            active = jnp.ones(self.n_experts, bool)
        return active & (params["active"] > 0) if "active" in params else active

    def _masked(self, params: Params, logs: Float[Array, "K n"]) -> Float[Array, "K n"]:
        return jnp.where(params["active"][:, None] > 0, logs, NEVER)

    # ---- what solvers ask of params -----------------------------------------------------------------------------

    def trainable(self, params: Params) -> Marks:
        """Return which arrays an optimiser moves.

        Each part's `trainable` decides; for a user's record without one, all but those that its `hyper` names.

        Parameters
        ----------
        params : dict
            Params of the model.

        Returns
        -------
        dict
            A tree like params, of bool.
        """
        return self._marked(params, lambda part, own: part.trainable(own))

    def penalized(self, params: Params) -> Marks:
        """Return which arrays are coefficients, which penalties see.

        Each part's `penalized` decides; for a user's record without one, none. An array that is not trained is no
        coefficient.

        Parameters
        ----------
        params : dict
            Params of the model.

        Returns
        -------
        dict
            A tree like params, of bool.
        """
        return self._marked(params, _coefficients)

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set in params, with their defaults.

        They are those of the parts, such as a temperature, and `n_experts`: how many of the experts take part.
        """
        own = {name: default for part in self.parts.values() for name, default in part.hyper.items()}
        return {**own, "n_experts": self.n_experts}

    def check_hyper(self, name: str, value: Numbers) -> None:
        """Raise ValueError for a number that the part which has it cannot have.

        Parameters
        ----------
        name : str
            One of the names in `hyper`.
        value : array_like
            The number, or several.
        """
        _checks.choice("name", name, sorted(self.hyper))
        if name == "n_experts":
            return _checks.whole("hyper['n_experts']", value, 1, self.n_experts)
        next(part for part in self.parts.values() if name in part.hyper).check_hyper(name, value)

    def with_hyper(self, params: Params, hyper: Mapping[str, Num[Array, ""] | float]) -> Params:
        """Return params with the numbers of `hyper` set.

        Parameters
        ----------
        params : dict
            Params of the model.
        hyper : dict
            Numbers by name. Names that the model does not have are ignored.

        Returns
        -------
        dict
            Params. With `n_experts` among the names they have "active", (K,), 1 for experts that take part and 0 for others.
        """
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

    def _marked(self, params: Params, mark: Callable[[Part, Params], Marks]) -> Marks:
        parts = self.parts
        none: dict[str, Any] = {name: {} if name in PARTS else False for name in params}
        return {name: mark(parts[name], params[name]) if name in parts else none[name] for name in params}

    def _family(self, wanted_by: str, *targets: Any) -> Family:
        if self.family is None:
            raise ValueError(f"{wanted_by}: this model has no family; want one, as in moe(..., family=families.gaussian())")
        for target in targets:
            _checks.present("y", target)
        return self.family


def _is_divided(columns: Any) -> bool:
    """Whether columns are those of each expert, sequences in a sequence."""
    if isinstance(columns, np.ndarray):
        return columns.ndim > 1
    several = isinstance(columns, Sequence) and not isinstance(columns, str)
    return several and any(isinstance(own, Sequence | np.ndarray) and not isinstance(own, str) for own in columns)


def _coefficients(part: Part, params: Params) -> Marks:
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
    """Construct a mixture of experts.

    Parameters
    ----------
    expert : ExpertLike
        A part from `moejax.experts`, or any record with its functions `init` and `apply`.
    gate : GateLike
        A part from `moejax.gates`, or any record with `init` and `log_probs`.
    n_experts : int
        Number of experts K.
    family : FamilyLike or None, default None
        The distribution of the target given an expert, from `moejax.families`, or any record with `log_prob` and `mean`.
        None for a model that predicts and has no likelihood.
    expert_columns : sequence or str or None, default None
        What the experts see of x. None for all of it; some columns of a table (n, d), counted from 0; or, where x is a
        mapping from names to arrays, for example {"inputs": (n, d), "predictions": (n, K)}, one name, whose array is seen as
        it is, or a sequence of names, whose arrays are seen side by side as one table. A sequence of columns for each expert
        divides the columns among them, which may overlap (see `moejax.experts.by_columns`).
    gate_columns : sequence of int or sequence of str or str or None, default None
        What the gate sees of x, as for the experts.

    Returns
    -------
    Model
        The model. Records are completed with the defaults of their contract (see `moejax.experts.Expert`,
        `moejax.gates.Gate` and `moejax.families.Family`).

    Raises
    ------
    ValueError
        If n_experts is below 1, if a part lacks a function, if columns are negative or repeated, or if they are for another
        number of experts.

    Notes
    -----
    The model is

        p(y | x) = sum over k of  g_k(x) f(y; eta_k(x), phi_k)        E[y | x] = sum over k of  g_k(x) mean(eta_k(x)).

    References
    ----------
    Jacobs, Jordan, Nowlan and Hinton (1991).

    Examples
    --------
    >>> import moejax
    >>> model = moejax.moe(
    ...     moejax.experts.linear(), moejax.gates.softmax(), n_experts=3, family=moejax.families.gaussian()
    ... )
    >>> model.n_experts
    3
    """
    n_experts = _checks.count("n_experts", n_experts)
    expert = completed_expert(expert)
    if _is_divided(expert_columns):
        check_division("expert_columns", expert_columns, n_experts)
        expert, expert_columns = by_columns(expert, [expert_columns]), None  # type: ignore[list-item]
    return Model(
        expert,
        completed_gate(gate),
        n_experts,
        None if family is None else completed_family(family),
        column_tuple("expert_columns", expert_columns),
        column_tuple("gate_columns", gate_columns),
    )
