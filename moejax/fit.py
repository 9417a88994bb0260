"""What every solver returns: params, how good they are, and status flags in the place of exceptions."""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._checks import check_weights
from moejax.losses import of_units, weighted_sum
from moejax.model import Data, Model, floating, leaders


class Status(enum.IntFlag):
    """How a fit ended: bits, several of which may be set.

    CONVERGED: the optimality condition holds to the tolerance, or the objective stopped falling for as long as the solver
    was told to wait. DIVERGED: a number that is not finite, and none of the two before. STARVED_EXPERT: one that is trained
    with fewer rows to itself than its parameters + 2. SEPARATED_GATE (the inputs separate the experts, and an unpenalised
    gate has no finite optimum) and RANK_DEFICIENT (collinear columns) are for solvers that solve for coefficients and so can
    tell.
    """

    CONVERGED = 1
    OUT_OF_STEPS = 2
    DIVERGED = 4
    SCALE_AT_FLOOR = 8
    STARVED_EXPERT = 16
    SEPARATED_GATE = 32
    RANK_DEFICIENT = 64


INADMISSIBLE = Status.DIVERGED | Status.SCALE_AT_FLOOR | Status.STARVED_EXPERT


class Fit(NamedTuple):
    """A fit, or many of them, each field with the same leading axes.

    params: the model's parameters. objective: the mean penalised quantity that the solver lowered. log_likelihood: the
    total over rows of weight * log p(y | x), NaN for a loss that is not a likelihood. history: the objective at a stride
    of steps, NaN after an early stop. steps: updates made. kkt: the largest distance of a trainable number from
    satisfying the optimality condition of the objective. status: `Status` bits. For a likelihood also
    degrees_of_freedom: free numbers, of coefficients those that are not 0, intercepts and scales included;
    classified: the total over rows of weight * log (the share of p(y | x) that the likeliest expert has); and rows: the
    total weight. They are what the criteria want, which compare models of y given x: of a gate that models its inputs too,
    the likelihood that EM ascended is another one than theirs.
    """

    params: Any
    objective: Any
    log_likelihood: Any
    history: Any
    steps: Any
    kkt: Any
    status: Any
    degrees_of_freedom: Any = None
    classified: Any = None
    rows: Any = None

    @property
    def aic(self) -> Any:
        """-2 log-likelihood + 2 degrees of freedom (Akaike 1974)."""
        return -2 * self.log_likelihood + 2 * self.degrees_of_freedom

    @property
    def bic(self) -> Any:
        """-2 log-likelihood + log(rows) degrees of freedom (Schwarz 1978)."""
        log = jnp.log if _checks.is_traced(self.rows) else np.log
        return -2 * self.log_likelihood + log(self.rows) * self.degrees_of_freedom

    @property
    def icl(self) -> Any:
        """BIC of the log-likelihood with each row at its likeliest expert (Biernacki, Celeux and Govaert 2000)."""
        return self.bic - 2 * self.classified

    @property
    def admissible(self) -> Any:
        """Whether a selection may choose it: not diverged, no scale at its floor, no starved expert."""
        return (self.status & int(INADMISSIBLE)) == 0


def describe(status: Any) -> str:
    """The names of the bits of one status, as "converged, starved expert"."""
    return ", ".join(name_of(flag) for flag in Status if int(status) & flag) or "none"


def name_of(flag: Status) -> str:
    """The name of one bit in words, as "out of steps"."""
    return str(flag.name).lower().replace("_", " ")


def finished(
    model: Model,
    params: Any,
    data: Data,
    weights: jax.Array,
    total: jax.Array,
    likelihood: bool,
    *,
    objective: jax.Array,
    history: jax.Array,
    steps: jax.Array,
    kkt: jax.Array,
    converged: jax.Array,
    flags: Any = 0,
) -> Fit:
    """The `Fit` of a solver that ended at params. weights: (n,), of sum 1, and `total` before they were scaled to it.

    likelihood: whether log-likelihood and criteria have a meaning. flags: status bits that only the solver can tell.
    """
    nothing = jnp.full_like(objective, jnp.nan)
    log_likelihood = degrees = classified = nothing
    if likelihood:
        log_joint = model.grouped_log_joint(params, data)
        each = jax.nn.logsumexp(log_joint, axis=0)
        counted = of_units(weights, data.leader)
        log_likelihood = total * weighted_sum(counted, each)
        classified = total * weighted_sum(counted, log_joint.max(axis=0) - each)
        degrees = degrees_of_freedom(model, params).astype(objective.dtype)
        share = jnp.exp(log_joint - each) if data.division is None else data.division
    else:
        share = model.gate_weights(params, data.x)
        share = share / share.sum(axis=0)
    numbers = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    diverged = ~(jnp.isfinite(objective) & jnp.stack(numbers).all())
    floor = likelihood and hasattr(model.family, "at_floor") and model.family.at_floor(model.phi(params), data.y, weights)
    starved = (model.active(params) & (_sizes(share, weights) < _needed(model, params))).any()
    bits = (
        (diverged, Status.DIVERGED),
        (converged & ~diverged, Status.CONVERGED),
        (~converged & ~diverged, Status.OUT_OF_STEPS),
        (floor, Status.SCALE_AT_FLOOR),
        (starved & ~diverged, Status.STARVED_EXPERT),
    )
    status = sum((jnp.where(flag, int(bit), 0) for flag, bit in bits), jnp.asarray(flags, jnp.int32))
    return Fit(params, objective, log_likelihood, history, steps, kkt, status.astype(jnp.int32), degrees, classified, total)


def normalized(weights: Any, y: jax.Array) -> jax.Array:
    """Weights (n,) scaled to a sum of 1; equal ones for None."""
    if weights is None:
        return jnp.full(y.shape[:1], 1.0 / y.shape[0], y.dtype)
    weights = jnp.asarray(weights, y.dtype)
    weights = weights / weights.max()  # whose sum then cannot overflow
    return weights / weights.sum()


def total_weight(weights: Any, y: jax.Array) -> jax.Array:
    """The sum of weights (n,), before they are scaled; the number of rows for None."""
    return jnp.asarray(y.shape[0], y.dtype) if weights is None else jnp.asarray(weights, y.dtype).sum()


def effective_sizes(model: Model, params: Any, data: Data, weights: jax.Array, likelihood: bool) -> jax.Array:
    """How many rows each expert has to itself, (K,): its share of the rows times their effective number (Kish 1965).

    By responsibilities for a likelihood, by gate weights otherwise. weights: (n,), of sum 1.
    """
    if likelihood:
        return _sizes(jax.nn.softmax(model.grouped_log_joint(params, data), axis=0), weights)
    share = model.gate_weights(params, data.x)
    return _sizes(share / share.sum(axis=0), weights)


def _sizes(share: jax.Array, weights: jax.Array) -> jax.Array:
    return (share * weights).sum(axis=1) / jnp.square(weights).sum()


def _needed(model: Model, params: Any) -> Any:
    """The least effective size of an expert that is not starved: its free parameters + 2; nothing if it trains none, for
    then all that it may lack rows for is a scale, which has its floor.
    """
    if not any(jax.tree.leaves(model.trainable(params)["experts"])):
        return 0
    if hasattr(model.expert, "degrees_of_freedom"):
        return model.expert.degrees_of_freedom(params["experts"]) + 2
    return 2


def degrees_of_freedom(model: Model, params: Any) -> jax.Array:
    """Free numbers of the experts that take part: coefficients that are not 0, and whatever no penalty sees.

    A part's own `degrees_of_freedom` says ((K,), or a number; that of a gate gets which experts take part).
    """
    active = model.active(params)
    marked, trainable = model.penalized(params), model.trainable(params)

    def count(name: str, *more: Any) -> jax.Array:
        part = {"experts": model.expert, "gate": model.gate, "family": model.family}[name]
        if hasattr(part, "degrees_of_freedom"):
            own = part.degrees_of_freedom(params[name], *more)
            return jnp.where(active, own, 0).sum() if jnp.ndim(own) else jnp.asarray(own)
        free = jax.tree.map(
            lambda v, m, t: (v != 0 if m else jnp.ones_like(v, bool)) & t, params[name], marked[name], trainable[name]
        )
        return sum((v.sum() for v in jax.tree.leaves(free)), jnp.zeros((), int))

    return count("experts") + count("gate", active) + count("family")


# ---- what every solver asks of its data, before anything compiles ---------------------------------------------------


def check_data(
    model: Model, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
) -> int:
    """Raise ValueError unless `model` can be fitted to these; else return the number of rows.

    x: (n, d), an array of any shape with n leading if experts and gate take such, or a pytree of arrays with n leading; y:
    shaped as the model predicts, unless its family has a say; weights: (n,), none below 0, not all 0; offset: like y;
    groups: (n,) whole numbers, in each of which weights are equal; start: like the model's params.
    """
    n = _check_inputs(model, x)
    leaves, structure = jax.tree.flatten(x)
    init, eta, predicted = _shapes(model, structure, tuple(_signature(leaf) for leaf in leaves))
    if hasattr(model.family, "check_target"):
        model.family.check_target(y, predicted.shape)
    elif np.shape(y) != predicted.shape:
        raise ValueError(f"y: shape {np.shape(y)} was given; want {predicted.shape}, what this model predicts for this x")
    _checks.finite("y", y)
    if not _checks.is_traced(y) and n > 1 and (np.asarray(y, float) == np.asarray(y, float)[0]).all(axis=0).any():
        raise ValueError("y: the target is constant; want one that varies over the rows")
    if weights is not None:
        check_weights(weights, n)
    if offset is not None:
        _checks.shape("offset", offset, eta.shape[1:], "like one expert's predictors")
        _checks.finite("offset", offset)
    if groups is not None:
        check_groups(groups, weights, n)
    if start is not None:
        _check_start(start, init)
    return n


def check_groups(groups: Any, weights: Any, n: int) -> None:
    """Raise ValueError unless groups is (n,) whole numbers, and weights are equal in each group."""
    _checks.shape("groups", groups, (n,), "the group of each row")
    if _checks.is_traced(groups):
        return
    if np.asarray(groups).dtype.kind not in "iu":
        raise ValueError(f"groups: values of type {np.asarray(groups).dtype} were given; want whole numbers")
    if weights is not None and not _checks.is_traced(weights):
        first = np.asarray(leaders(groups))
        differ = np.asarray(weights)[first] != np.asarray(weights)
        if differ.any():
            raise ValueError(
                f"weights: row {int(differ.argmax())} has another weight than its group; want equal ones in a group"
            )


def check_key(key: Any) -> None:
    """Raise ValueError for what is no key at all."""
    if not hasattr(key, "dtype"):
        raise ValueError(f"key: {key!r} was given; want a key, as from jax.random.key(0)")


def _signature(leaf: Any) -> tuple[tuple[int, ...], Any]:
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return np.shape(leaf), jax.dtypes.canonicalize_dtype(leaf.dtype)


@lru_cache(maxsize=256)
def _shapes(model: Model, structure: Any, signature: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Shapes of params, predictors and prediction; raises where a part does not speak for all experts and rows.

    Kept, for tracing a model costs more than a small fit.
    """
    x = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in signature])

    def speak(x: Any) -> tuple[Any, Any, Any, Any]:
        x = floating(x)
        params = model.init(jax.random.key(0), x)
        inputs = model.prepare(x)
        return params, model.eta(params, inputs), model.log_gate(params, inputs), model.predict(params, x)

    init, eta, log_gate, predicted = jax.eval_shape(speak, x)
    n = signature[0][0][0]
    if eta.ndim not in (2, 3) or eta.shape[:2] != (model.n_experts, n):
        raise ValueError(f"expert: apply returned shape {eta.shape}; want {(model.n_experts, n)}, or with m outputs last")
    _checks.shape("gate: log_probs", log_gate, (model.n_experts, n), "experts by rows")
    return init, eta, predicted


def _check_inputs(model: Model, x: Any) -> int:
    leaves = jax.tree.leaves(x)
    if isinstance(x, list | tuple) and leaves and not any(np.ndim(leaf) for leaf in leaves):
        raise ValueError(f"x: a {type(x).__name__} of numbers was given; want an array (n, d), as from numpy.asarray")
    if not leaves:
        raise ValueError("x: nothing was given; want an array (n, d), or a pytree of arrays with n leading")
    if len(leaves) == 1 and leaves[0] is x:
        takes_any = all(getattr(part, "takes_any_array", False) for part in (model.expert, model.gate))
        if not takes_any or np.ndim(x) < 2:
            _checks.shape("x", x, (None, None), "rows by features")
        _checks.count("columns of x", np.shape(x)[1])
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in leaves}
    if len(sizes) > 1 or None in sizes or 0 in sizes:
        raise ValueError(f"x: arrays of shapes {[np.shape(leaf) for leaf in leaves]} were given; want the same n > 0 rows")
    for leaf in leaves:
        _checks.finite("x", leaf)
    return int(np.shape(leaves[0])[0])


def _check_start(start: Any, like: Any) -> None:
    given: Any = jax.tree.structure(start)
    wanted: Any = jax.tree.structure(like)
    if given != wanted:
        raise ValueError(f"start: params of structure {given} were given; want {wanted}, as model.init makes them")
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(like), strict=True):
        _checks.shape(f"start{jax.tree_util.keystr(path)}", leaf, want.shape)
        _checks.finite(f"start{jax.tree_util.keystr(path)}", leaf)
