"""What every solver returns: params, how good they are, and status flags in the place of exceptions."""

from __future__ import annotations

import enum
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moejax import _checks
from moejax._arrays import FlagPerFit, HistoryPerFit, Numbers, Outputs, PerFit, Scalar, SharesPerFit, WholePerFit
from moejax._contracts import Params
from moejax.families import Target, target_of
from moejax.losses import of_units, weighted_sum
from moejax.model import Data, Model


class Status(enum.IntFlag):
    """How a fit ended: bits, several of which may be set.

    Attributes
    ----------
    CONVERGED
        The optimality condition holds to the tolerance, or the objective stopped falling for as long as the solver was told
        to wait.
    OUT_OF_STEPS
        The fit has not converged: it took all its steps, or rounding let none of them lower the objective any more.
    DIVERGED
        A number is not finite. Neither of the two before is set.
    SCALE_AT_FLOOR
        A dispersion is at its lower bound.
    STARVED_EXPERT
        An expert that is trained has fewer rows to itself than its parameters + 2: its share of the weight of all rows, or
        of their number where that is larger. Weights are frequencies (for precisions see `effective_sizes`).
    SEPARATED_GATE
        The inputs separate an expert from the others, in all rows or in those where a column differs from what it is in the
        rest, and an unpenalised gate has no finite optimum: the fit neither converges nor runs out of steps. Set by solvers
        that solve for coefficients.
    RANK_DEFICIENT
        Columns are collinear. Set by solvers that solve for coefficients.
    DEGENERATE_EXPERT
        Of a likelihood: an expert has fewer rows to itself than coefficients of an output that are not 0
        and one more, and no ridge; or its variance is at most a 500th of the largest, or a millionth of the target's,
        on fewer rows than three for each of these. A few rows near to a plane are found in any table, and the likelihood
        grows without bound as a variance goes to 0.
    SEPARATED_EXPERT
        The inputs separate the classes, or the counts of 0, of an expert's rows, in all of them or in those where a column
        differs, and its coefficients, unpenalised, have no finite optimum; likewise.
    COINCIDING_EXPERTS
        Two experts have the same predictors and dispersions, so that fewer experts make the same fit. Where the fit has
        converged too, they were moved apart and came together again. Set by solvers that solve for coefficients.
    """

    CONVERGED = 1
    OUT_OF_STEPS = 2
    DIVERGED = 4
    SCALE_AT_FLOOR = 8
    STARVED_EXPERT = 16
    SEPARATED_GATE = 32
    RANK_DEFICIENT = 64
    DEGENERATE_EXPERT = 128
    SEPARATED_EXPERT = 256
    COINCIDING_EXPERTS = 512


INADMISSIBLE = Status.DIVERGED | Status.DEGENERATE_EXPERT
_NARROW = math.log(2.02e-3)  # of a variance beside the largest; the floor by default is just below
_NOTHING = math.log(1.01e-6)  # of one beside the target's
_FEW = 3  # rows for each parameter


class Fit(NamedTuple):
    """A fit, or many of them, each field with the same leading axes.

    Attributes
    ----------
    params : dict
        The model's parameters.
    objective : jax.Array
        The mean penalised quantity that the solver lowered.
    log_likelihood : jax.Array
        The total over rows of weight * log p(y | x); NaN for a loss that is not a likelihood.
    history : jax.Array
        The objective at every `record_every` steps; NaN after an early stop. After EM has moved experts that coincide apart,
        the lowest so far.
    steps : jax.Array
        Updates made.
    kkt : jax.Array
        The largest violation of the optimality condition by a trained number, free of units: half its square is about what
        the objective would fall by if that number alone were moved (see `moejax.penalties.kkt`), less what rounding alone
        makes. For a loss that is no likelihood, in units of the target's variance. Numbers of parts that are not linear
        are measured by the gradient of the mean loss.
    status : jax.Array
        `Status` bits.
    degrees_of_freedom : jax.Array or None
        Of a likelihood: free numbers, intercepts and scales included, of coefficients those that are not 0.
    classified : jax.Array or None
        Of a likelihood: the total over rows of weight * log of the share of p(y | x) that the likeliest expert has.
    rows : jax.Array or None
        The total weight of the rows.
    shares : jax.Array or None
        Of each expert, its share of the weight of the rows, of sum 1: by responsibilities, or by the gate for a loss that is
        not a likelihood.

    Notes
    -----
    The criteria `aic`, `bic` and `icl` compare models of y given x. For a gate that models its inputs too, the likelihood
    that EM ascended is another one than theirs.
    """

    params: Params
    objective: PerFit
    log_likelihood: PerFit
    history: HistoryPerFit
    steps: WholePerFit
    kkt: PerFit
    status: WholePerFit
    degrees_of_freedom: PerFit | None = None
    classified: PerFit | None = None
    rows: PerFit | None = None
    shares: SharesPerFit | None = None

    @property
    def aic(self) -> PerFit:
        """-2 log-likelihood + 2 degrees of freedom (Akaike 1974); lower is better."""
        return -2 * self.log_likelihood + 2 * cast(PerFit, self.degrees_of_freedom)

    @property
    def bic(self) -> PerFit:
        """-2 log-likelihood + log(rows) degrees of freedom (Schwarz 1978); lower is better."""
        rows = cast(PerFit, self.rows)
        log = jnp.log if _checks.is_traced(rows) else np.log
        return -2 * self.log_likelihood + log(rows) * cast(PerFit, self.degrees_of_freedom)

    @property
    def icl(self) -> PerFit:
        """BIC of the log-likelihood with each row at its likeliest expert (Biernacki, Celeux and Govaert 2000)."""
        return self.bic - 2 * cast(PerFit, self.classified)

    @property
    def admissible(self) -> FlagPerFit:
        """Whether it is neither diverged nor degenerate: a selection chooses others only where no fit is."""
        return (self.status & int(INADMISSIBLE)) == 0


def describe(status: Any) -> str:
    """Return the status of one fit in words.

    Parameters
    ----------
    status : int or Status
        The status of a fit, as `Fit.status` or `status_` of an estimator; a number, or an array without axes.

    Returns
    -------
    str
        The names of its bits (see `Status`), as "converged, starved expert"; "none" where no bit is set.

    Raises
    ------
    ValueError
        For more numbers than one, and what is no whole number at all.

    Examples
    --------
    >>> import moejax
    >>> moejax.describe(17)
    'converged, starved expert'
    """
    bits = _bits(status)
    return ", ".join(name_of(flag) for flag in Status if bits & flag) or "none"


def remedy(status: Any) -> str:
    """Return what to do about a fit that has not converged.

    Parameters
    ----------
    status : int
        `Status` bits.

    Returns
    -------
    str
        Words, as "want more steps, or a larger tol".
    """
    status = Status(_bits(status))
    if status & Status.DEGENERATE_EXPERT:
        return "want fewer experts or columns, scales that are shared, or larger penalties"
    if status & Status.SCALE_AT_FLOOR:
        return "want a higher floor of scales, fewer experts or larger penalties"
    if status & Status.DIVERGED:
        return "want other penalties, fewer experts, or inputs of a smaller scale"
    apart = {Status.SEPARATED_EXPERT: "l2_experts", Status.SEPARATED_GATE: "l2_gate"}
    penalties = [name for flag, name in apart.items() if status & flag]
    if penalties:
        return f"no finite coefficients are best where inputs separate; want {' and '.join(penalties)} above 0"
    return "want more steps, or a larger tol"


def _bits(status: Any) -> int:
    """One status as an integer; raise ValueError for anything else."""
    _checks.shape("status", status, (), "of one fit")
    _checks.whole("status", status, 0, sum(Status))
    return int(status)


def name_of(flag: Status) -> str:
    """Return the name of one bit in words.

    Parameters
    ----------
    flag : Status
        One bit.

    Returns
    -------
    str
        As "out of steps".
    """
    return str(flag.name).lower().replace("_", " ")


class Told(NamedTuple):
    """Sums over rows, by weights of sum 1, that a `Fit` is concluded from.

    log_likelihood, classified: means, None where there is no likelihood. shares: (K,). present: how many rows have a weight
    above 0.
    """

    log_likelihood: jax.Array | None
    classified: jax.Array | None
    shares: jax.Array
    present: jax.Array


def told(model: Model, params: Any, data: Data, weights: jax.Array, likelihood: bool) -> Told:
    """Return what some rows tell of params; sums over blocks of rows add up.

    Parameters
    ----------
    model : Model
        The model.
    params : dict
        Params of the model.
    data : moejax.model.Data
        Prepared inputs and target.
    weights : jax.Array, (n,)
        Weights of the rows, of sum 1 over all blocks.
    likelihood : bool
        Whether log-likelihood and criteria have a meaning.

    Returns
    -------
    Told
        The sums.
    """
    count = (weights > 0).sum().astype(weights.dtype)
    if not likelihood:
        share = model.gate_weights(params, data.x)
        return Told(None, None, (share / share.sum(axis=0) * weights).sum(axis=1), count)
    log_joint = model.grouped_log_joint(params, data)
    each = jax.nn.logsumexp(log_joint, axis=0)
    counted = of_units(weights, data.leader)
    share = jnp.exp(log_joint - each) if data.division is None else data.division
    classified = weighted_sum(counted, log_joint.max(axis=0) - each)
    return Told(weighted_sum(counted, each), classified, (share * weights).sum(axis=1), count)


def finished(
    model: Model,
    params: Params,
    data: Data,
    weights: Float[Array, " n"],
    total: Scalar,
    likelihood: bool,
    *,
    objective: Scalar,
    **more: Any,
) -> Fit:
    """Return the `Fit` of a solver that ended at params.

    Parameters
    ----------
    model : Model
        The model.
    params : dict
        Params of the model.
    data : Data
        Prepared inputs and target.
    weights : jax.Array, (n,)
        Weights of the rows, of sum 1.
    total : jax.Array, ()
        The sum of weights before they were scaled.
    likelihood : bool
        Whether log-likelihood and criteria have a meaning.
    objective : jax.Array, ()
        The objective at params.
    **more
        The other arguments of `concluded`.

    Returns
    -------
    Fit
        The fit.
    """
    sums = told(model, params, data, weights, likelihood)
    return concluded(
        model,
        params,
        target_of(data.y, weights),
        total,
        log_likelihood=None if sums.log_likelihood is None else total * sums.log_likelihood,
        classified=None if sums.classified is None else total * sums.classified,
        shares=sums.shares,
        count=sums.present,
        objective=objective,
        finite=jnp.stack(
            [jnp.isfinite(v).all() for v in jax.tree.leaves(params) if jnp.issubdtype(v.dtype, jnp.inexact)]
        ).all(),
        **more,
    )


def concluded(
    model: Model,
    params: Params,
    target: Target,
    total: Scalar,
    *,
    log_likelihood: Scalar | None,
    classified: Scalar | None,
    shares: Float[Array, " K"],
    count: Scalar,
    objective: Scalar,
    finite: Bool[Array, ""],
    history: Float[Array, " T"],
    steps: Int[Array, ""],
    kkt: Scalar,
    converged: Bool[Array, ""],
    flags: Int[Array, ""] | int = 0,
    determined: Bool[Array, ""] | bool = False,
) -> Fit:
    """The `Fit` of a solver that ended at params, of which all sums over rows are known.

    log_likelihood, classified: totals, None where there is no likelihood. shares: (K,), of the weight of the rows. count:
    how many rows have a weight above 0, see `rows_of`. finite: whether all params are. flags: status bits that only the
    solver can tell. determined: whether penalties alone determine the experts' coefficients.
    """
    nothing = jnp.full_like(objective, jnp.nan)
    degrees = nothing
    likelihood = log_likelihood is not None
    if likelihood:
        degrees = degrees_of_freedom(model, params).astype(objective.dtype)
    diverged = ~(jnp.isfinite(objective) & finite)
    finite_optimum = (flags & int(Status.SEPARATED_GATE | Status.SEPARATED_EXPERT)) == 0
    floor = model.family is not None and likelihood and model.family.at_floor(model.phi(params), target)
    sizes = rows_of(shares, total, count)
    degenerate = likelihood and _degenerate(model, params, sizes, target, determined)
    starved = (model.active(params) & (sizes < _needed(model, params))).any()
    bits = (
        (diverged, Status.DIVERGED),
        (converged & ~diverged & finite_optimum, Status.CONVERGED),
        (~converged & ~diverged & finite_optimum, Status.OUT_OF_STEPS),
        (floor, Status.SCALE_AT_FLOOR),
        (starved & ~diverged, Status.STARVED_EXPERT),
        (degenerate, Status.DEGENERATE_EXPERT),
    )
    status = sum((jnp.where(flag, int(bit), 0) for flag, bit in bits), jnp.asarray(flags, jnp.int32))
    if log_likelihood is None:
        log_likelihood, classified = nothing, nothing
    status = status.astype(jnp.int32)
    return Fit(params, objective, log_likelihood, history, steps, kkt, status, degrees, classified, total, shares)


def rows_of(shares: Float[Array, " K"], total: Scalar, count: Scalar) -> Float[Array, " K"]:
    """Return how many rows each expert has to itself, where weights are frequencies.

    A row of weight 2 is two rows. Weights of a sum below the number of rows are no frequencies, and then every row is one:
    weights that are uneven, or small, take no rows away.

    Parameters
    ----------
    shares : jax.Array, (K,)
        Of each expert, its share of the weight of the rows.
    total : jax.Array, ()
        The weight of all rows.
    count : jax.Array, ()
        How many rows have a weight above 0.

    Returns
    -------
    jax.Array, (K,)
        Numbers of rows.
    """
    return shares * jnp.maximum(total, count)


def normalized(weights: Numbers | None, y: Outputs) -> Float[Array, " n"]:
    """Return weights scaled to a sum of 1.

    Parameters
    ----------
    weights : array_like or None, (n,)
        Weights of the rows; None for equal ones.
    y : jax.Array, (n,) or (n, m)
        Targets, which give number and type.

    Returns
    -------
    jax.Array, (n,)
        Weights.
    """
    if weights is None:
        return jnp.full(y.shape[:1], 1.0 / y.shape[0], y.dtype)
    weights = jnp.asarray(weights, y.dtype)
    weights = weights / weights.max()  # whose sum then cannot overflow
    shares: jax.Array = weights / weights.sum()
    return shares


def total_weight(weights: Numbers | None, y: Outputs) -> Scalar:
    """Return the sum of weights before they are scaled.

    Parameters
    ----------
    weights : array_like or None, (n,)
        Weights of the rows; None for equal ones of 1.
    y : jax.Array, (n,) or (n, m)
        Targets, which give number and type.

    Returns
    -------
    jax.Array, ()
        The total.
    """
    return jnp.asarray(y.shape[0], y.dtype) if weights is None else jnp.asarray(weights, y.dtype).sum()


def effective_sizes(
    model: Model, params: Params, data: Data, weights: Float[Array, " n"], likelihood: bool
) -> Float[Array, " K"]:
    """Return how many rows each expert has to itself, where weights are no frequencies but unequal precisions.

    A `Fit` takes weights for frequencies (see `Status.STARVED_EXPERT`); this is the other meaning.

    Parameters
    ----------
    model : Model
        The model.
    params : dict
        Params of the model.
    data : Data
        Prepared inputs and target.
    weights : jax.Array, (n,)
        Weights of the rows, of sum 1.
    likelihood : bool
        Whether shares are responsibilities; gate weights otherwise.

    Returns
    -------
    jax.Array, (K,)
        Each expert's share of the rows times their effective number.

    References
    ----------
    Kish (1965).
    """
    sums = told(model, params, data, weights, likelihood)
    return sums.shares / jnp.square(weights).sum()


def _needed(model: Model, params: Any) -> Any:
    """The least effective size of an expert that is not starved: its free parameters + 2.

    It is 0 for experts that train nothing: a scale is then all that may lack rows, and scales have their floor.
    """
    if not any(jax.tree.leaves(model.trainable(params)["experts"])):
        return 0
    degrees = model.expert.degrees_of_freedom(params["experts"])
    return degrees + 2 if jnp.ndim(degrees) else 2  # of all experts together, it tells nothing of each


def _degenerate(model: Model, params: Any, sizes: jax.Array, target: Target, determined: Any) -> jax.Array:
    """Whether some expert has too few rows for its coefficients, or next to no variance on a few. sizes: (K,), of rows."""
    expert, family, active = model.expert, model.family, model.active(params)
    degrees = expert.degrees_of_freedom(params["experts"])
    if not any(jax.tree.leaves(model.trainable(params)["experts"])) or not jnp.ndim(degrees):
        return jnp.zeros((), bool)  # as in `_needed`
    if expert.is_linear:
        degrees = degrees / (expert.outputs or 1)  # each output has the same rows
    found = (sizes < degrees + 1) & jnp.logical_not(determined)
    phi = model.phi(params)
    log_variances = None if family is None else family.log_variances(phi)
    without_inputs = None if family is None else family.log_variances(family.null(phi, target))
    if family is not None and log_variances is not None and without_inputs is not None:
        rows = 1 if family.shared else len(sizes)  # one for all experts, or one for each
        own, null = (v.reshape(rows, -1) for v in (log_variances, without_inputs))
        own = jnp.broadcast_to(own, (len(sizes), own.shape[1]))
        among = jnp.where(active[:, None], own, -jnp.inf)
        narrow = ((own <= among.max(axis=0) + _NARROW) | (own <= null + _NOTHING)).any(axis=1)
        found |= narrow & (sizes < _FEW * (degrees + 1))
    return (active & found).any()


def degrees_of_freedom(model: Model, params: Params) -> Int[Array, ""]:
    """Return the number of free numbers of a fitted model.

    Parameters
    ----------
    model : Model
        The model.
    params : dict
        Params of the model.

    Returns
    -------
    jax.Array, ()
        Of the experts that take part: coefficients that are not 0, and all numbers that no penalty sees. Each part's own
        `degrees_of_freedom` counts them.
    """
    active = model.active(params)

    def total(own: jax.Array) -> jax.Array:
        return jnp.where(active, own, 0).sum() if jnp.ndim(own) else jnp.asarray(own)

    count = total(model.expert.degrees_of_freedom(params["experts"]))
    count += total(model.gate.degrees_of_freedom(params["gate"], active))
    return count if model.family is None else count + total(model.family.degrees_of_freedom(params["family"]))
