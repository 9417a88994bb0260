"""What an iteration of EM asks of the rows: sums, at some params, from which all M-steps follow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from moejax._linear import Ask, Table, asked, table
from moejax._ops import where
from moejax._rows import Block, Rows
from moejax._trees import merge, split
from moejax.families import Family, Target
from moejax.losses import NegativeLogLikelihood
from moejax.model import Data, Inputs, Model

CERTAIN = 0.99  # a gate that is this sure of its expert in every row separates them, as an expert does its targets


class Sums(NamedTuple):
    """Sums over rows, by weights of sum 1.

    likelihood: of the log-likelihood that is ascended. expected: the same for responsibilities that were given, or None.
    log_likelihood: of log p(y | x). classified: of how much less the likeliest expert has of it. unsure: (K,), of rows of
    which the gate is not certain whether they are an expert's, or wrong, or None. missed: (K,), of rows of whose targets an
    expert is not certain, or None. sizes: (K,), of responsibilities. experts, gate: what the parts asked for, a `Packed`
    where that was moments, None of parts that ask for nothing. slopes: of the expected loss in what is trained, by part, of
    those that it does not follow from. spread: what the dispersion of the family wants.
    """

    likelihood: jax.Array
    expected: jax.Array | None
    log_likelihood: jax.Array
    classified: jax.Array
    unsure: jax.Array | None
    missed: jax.Array | None
    sizes: jax.Array
    experts: Any
    gate: Any
    slopes: dict[str, Any]
    spread: Any


class Packed(NamedTuple):
    """The sums of an `Ask`: of products of pairs of columns, packed, and of columns."""

    products: jax.Array
    pulls: jax.Array


class Asker(NamedTuple):
    """The sums of a model and a loss, of which some are what is trained (a tree of booleans)."""

    model: Model
    loss: NegativeLogLikelihood
    trainable: Any

    @property
    def _family(self) -> Family:
        return cast(Family, self.model.family)  # without which EM takes no model

    @property
    def is_plain(self) -> bool:
        """Whether the loss is the likelihood of y given x."""
        plain = not (self.loss.joint or self.loss.complete or self.loss.kept)
        return plain and not self.model.expert.has_distribution

    @property
    def watches_experts(self) -> bool:
        """Whether experts have coefficients, which grow without end where they are certain of every target of their rows."""
        linear = self._family.is_discrete and self.model.expert.is_linear
        return linear and any(jax.tree.leaves(self.trainable["experts"]))

    @property
    def watches_gate(self) -> bool:
        """Whether the gate has coefficients, which grow without end where it separates the experts."""
        return any(jax.tree.leaves(self.trainable["gate"])) and self.model.gate.is_linear

    def sums(self, params: Any, block: Block, inputs: Inputs, first: jax.Array, pooled: Any, hyper: Any) -> Sums:
        """Sums over the rows of a block.

        first: whether responsibilities are those of `block.division`. pooled: `pooled_joints` where rows come in groups.
        """
        model, loss, family = self.model, self.loss, self._family
        data = self.data(block, inputs, hyper)
        eta, variance = model.eta(params, inputs, data.offset), model.variance(params, inputs)

        def density(eta: jax.Array, own: Any) -> jax.Array:
            phi = model.phi({**params, "family": own})
            if variance is None:
                return family.log_prob(data.y, eta, phi)
            return family.expected_log_prob(data.y, eta, variance, phi)

        log_density, back = jax.vjp(density, eta, params["family"])
        log_gate = loss.log_gate(model, params, data)
        joint = log_gate + log_density if pooled is None else pooled[0][:, block.leader]
        each, r = loss.explained(joint, data.division)
        rows = {"likelihood": each}
        if block.division is not None and not loss.complete:
            r = where(first, block.division, r)
            rows["expected"] = (r * where(r > 0, joint, 0.0)).sum(axis=0)
        w = r * block.weights
        slope, of_phi = back(-w)
        log_probs = log_gate if self.is_plain else model.log_gate(params, inputs)
        rows |= self._plain(params, data, block, joint, each, log_probs, pooled)
        own = rows.pop("responsibilities", None)
        probs = jnp.exp(log_probs)
        totals = (jnp.stack(list(rows.values())) * block.units).sum(axis=1)
        total = dict(zip(rows, totals, strict=True))
        experts = self._expert_sums(params, inputs.expert, data.y, eta, slope, w)
        gate = None
        if model.gate.is_linear or model.gate.has_m_step:
            gate = model.gate.statistics(params["gate"], inputs.gate, probs, r, block.units)
        experts, gate = _answered((experts, inputs.expert), (gate, inputs.gate))
        slopes = {"family": of_phi} | self._slopes(params, data, slope, r * block.units)
        return Sums(
            total["likelihood"],
            total.get("expected"),
            total["log_likelihood"] if "log_likelihood" in total else total["likelihood"],
            total["classified"],
            self._unsure(probs, r, block.units) if self.watches_gate else None,
            where(log_density < math.log(CERTAIN), w, 0.0).sum(axis=1) if self.watches_experts else None,
            (w if own is None else own * block.weights).sum(axis=1),
            experts,
            gate,
            slopes,
            self._spread(data.y, eta, params, w, variance),
        )

    def _unsure(self, probs: jax.Array, r: jax.Array, weights: jax.Array) -> jax.Array:
        """Of each expert the weight of rows of which the gate is not certain, or is certain and wrong."""
        right = (probs >= CERTAIN) & (r > 0.5) | (probs <= 1 - CERTAIN) & (r < 0.5)
        return where(right, 0.0, weights).sum(axis=1)

    def data(self, block: Block, inputs: Inputs, hyper: Any) -> Data:
        """A block as the model sees it, its groups aside."""
        division = block.division if self.loss.complete else None
        return Data(inputs, block.y, block.offset, None, None, division, hyper=hyper)

    def pooled_joints(self, params: Any, block: Block, inputs: Inputs, rows: int, hyper: Any) -> jax.Array:
        """Log joints of groups, each at the number of its first row, (1 or 2, K, n), as far as a block knows them.

        Densities are added up over rows, and the gate is that of the first row. The second one is that of log p(y | x),
        where another likelihood is ascended.
        """
        model, data = self.model, self.data(block, inputs, hyper)
        first = block.leader == block.number
        joints = [where(first, self.loss.log_gate(model, params, data), 0.0) + model.expected_log_density(params, data)]
        if not self.is_plain:
            joints.append(where(first, model.log_gate(params, inputs), 0.0) + model.log_density(params, data))
        by_row = jnp.moveaxis(jnp.stack(joints), 2, 0)
        return jnp.moveaxis(jax.ops.segment_sum(by_row, jnp.asarray(block.leader), rows), 0, 2)

    def _plain(
        self, params: Any, data: Data, block: Block, joint: jax.Array, each: jax.Array, log_probs: jax.Array, pooled: Any
    ) -> dict[str, jax.Array]:
        """For each row `classified`; and where another likelihood is ascended, log p(y | x) and the experts' shares."""
        if self.is_plain:
            return {"classified": joint.max(axis=0) - each}
        joint = log_probs + self.model.log_density(params, data) if pooled is None else pooled[1][:, block.leader]
        each = jax.nn.logsumexp(joint, axis=0)
        share = jnp.exp(joint - each) if data.division is None else data.division
        return {"classified": joint.max(axis=0) - each, "log_likelihood": each, "responsibilities": share}

    def _expert_sums(self, params: Any, x: Any, y: jax.Array, eta: jax.Array, slope: jax.Array, w: jax.Array) -> Any:
        expert = self.model.expert
        if not (expert.is_linear or expert.has_m_step):
            return None
        bend = self._family.curvature(y, eta, self.model.phi(params)) * (w if eta.ndim == 2 else w[..., None])
        return expert.statistics(params["experts"], x, slope, bend)

    def _slopes(self, params: Any, data: Data, slope: jax.Array, r: jax.Array) -> dict[str, Any]:
        """Slopes of the expected loss in what is trained of parts that do not tell them from their statistics."""
        expert, gate, slopes = self.model.expert, self.model.gate, {}
        if not (expert.is_linear or expert.has_distribution):
            trained, rest = split(params["experts"], self.trainable["experts"])
            slopes["experts"] = jax.vjp(lambda trained: expert.apply(merge(trained, rest), data.x.expert), trained)[1](
                slope
            )[0]
        if not (gate.is_linear or gate.has_gradient):
            trained, rest = split(params["gate"], self.trainable["gate"])

            def log_gate(trained: Any) -> jax.Array:
                return self.loss.log_gate(self.model, {**params, "gate": merge(trained, rest)}, data)

            slopes["gate"] = jax.vjp(log_gate, trained)[1](-r)[0]
        return slopes

    def _spread(self, y: jax.Array, eta: jax.Array, params: Any, w: jax.Array, variance: Any) -> Any:
        family = self._family
        if not family.has_dispersion:
            return ()
        more = {} if variance is None else {"variance": variance}
        return family.spread(y, eta, self.model.phi(params), w, **more)


def _answered(*parts: tuple[Any, Any]) -> list[Any]:
    """Sums in which each `Ask` is answered; those of the same table by one product. parts: pairs of sums and table."""
    answers = [own for own, _ in parts]
    tables: dict[int, list[int]] = {}
    for i, (own, rows) in enumerate(parts):
        if isinstance(own, Ask):
            tables.setdefault(id(rows), []).append(i)
    for members in tables.values():
        found = asked(parts[members[0]][1], [parts[i][0] for i in members])
        for i, (products, pulls) in zip(members, found, strict=True):
            answers[i] = Packed(products, pulls)
    return answers


# ---- what is computed once in a fit -----------------------------------------------------------------------------------


def target_moments(rows: Rows) -> Target:
    """Moments of the target, by weight."""

    def share(block: Block) -> jax.Array:
        return block.weights.reshape(-1, *(1,) * (block.y.ndim - 1))

    mean = rows.sum(lambda block: (share(block) * block.y).sum(axis=0))
    return Target(mean, rows.sum(lambda block: (share(block) * jnp.square(block.y - mean)).sum(axis=0)))


def column_means(rows: Rows) -> Any:
    """Means of the columns of x over all rows, like x of one row.

    Columns are centred there for the digits of sums alone. Rows of weight 0 count too: so all members of a sweep, with
    weights of their own, share one table.
    """
    sums = rows.sum(lambda block: jax.tree.map(lambda v: v.sum(axis=0, keepdims=True), block.x))
    return jax.tree.map(lambda v: v / rows.size, sums)


def column_variances(rows: Rows, means: Any, see: Any) -> jax.Array:
    """Weighted means of squares of the columns that a part sees of x, less their means: (d,)."""
    found: jax.Array = rows.sum(lambda block: block.weights @ jnp.square(see(block.x) - see(means)))
    return found


def prepared(model: Model, x: Any, means: Any, keep: bool) -> Inputs:
    """What experts and gate see of some rows; tables less the means of all rows, one for both where they see the same.

    keep: whether products of pairs of columns are kept, for many iterations.
    """
    inputs = model.prepare(x)
    expert = _centred(model, inputs.expert, x, means, "expert_columns", keep)
    if model.expert_columns == model.gate_columns and isinstance(inputs.gate, Table) and isinstance(expert, Table):
        return Inputs(expert, expert)
    return Inputs(expert, _centred(model, inputs.gate, x, means, "gate_columns", keep))


def _centred(model: Model, inputs: Any, x: Any, means: Any, columns: str, keep: bool) -> Any:
    if not isinstance(inputs, Table):
        return inputs
    return table(model.seen(columns, x), model.seen(columns, means)[0], keep)
