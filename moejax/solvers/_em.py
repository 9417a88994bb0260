"""The EM solver: maximum likelihood with exact zeros, from sums over rows.

An iteration (Dempster, Laird and Rubin 1977; for mixtures of experts Jordan and Jacobs 1994) takes the responsibilities at
the present params, and with them all sums over rows that the M-steps want. The M-steps see these sums alone: experts and
gate each lower a quadratic that bounds or approximates the expected loss, plus penalties; the dispersion is the best one for
where the experts go. The next E-step tells whether the objective fell. If it did not, the step is halved until it does.

The first iterations of a start take responsibilities that were given or drawn; what must not rise is then the expected loss.

Between iterations Anderson's extrapolation from the last few (Anderson 1965; for EM, Henderson and Varadhan 2019) guesses
where they lead. A guess at which the objective is higher is dropped for the iterate that it was made from. A start is near
to a saddle, where all experts are alike, and such a guess leads back there; so none is made while moves get longer, and the
iterations go further than the M-steps instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp

from moejax import _checks, losses, penalties
from moejax._ops import choose, where
from moejax._rows import Rows
from moejax.families import Family, Target
from moejax.model import PARTS, Model, check_model
from moejax.solvers import _shared, _starts
from moejax.solvers._configured import Configured, Hyper
from moejax.solvers._iterations import COLUMNS, EM, Task
from moejax.solvers._sums import column_means, column_variances, prepared, target_moments

_START_STEPS = {"exact": 1, "approximate": 3, "gradient": 15}  # with the responsibilities of a start, by kind of M-step
_WORK_ARRAYS = 12  # arrays of (K, n) or (K, n, m) that an iteration makes


@dataclass(frozen=True)
class EMFit(Configured):
    """A fit by EM, configured by `fit_em`; call it, or hand it to `sweep` or `path`.

    It is hashed by its configuration: building it again compiles nothing anew.

    Attributes
    ----------
    model : Model
        The model.
    penalties : tuple of Penalty
        The penalties, in the order of their proximal steps.
    init : str
        How a start is drawn.
    max_iter : int
        Largest number of iterations.
    tol : float or None
        KKT violation at which a fit has converged; None for a default by the type of x.
    record_every : int
        Iterations between two numbers of `Fit.history`.
    loss : NegativeLogLikelihood
        The loss that EM lowers.
    block_size : int or None, default None
        Rows in a block; None for a size that fits a core's cache.
    """

    model: Model
    penalties: tuple[Any, ...]
    init: str
    max_iter: int
    tol: float | None
    record_every: int
    loss: losses.NegativeLogLikelihood
    block_size: int | None = None

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""
        return {**{p.name: 0.0 for p in self.penalties}, **self.model.hyper, "restart": 0}

    def descent(
        self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: tuple[Any, Any] | None = None
    ) -> tuple[EM, Task]:
        """Return the iterations of EM and what they are given: see `Configured.descent`."""
        model, number = self.model, hyper.get("restart")
        dtype, leader = rows.blocks.y.dtype, rows.blocks.leader
        total = rows.blocks.weights.sum()
        weights = rows.blocks.weights / rows.blocks.weights.max()  # the sum of which then cannot overflow
        rows = Rows(rows.blocks._replace(weights=weights / weights.sum()))
        is_params = start is not None
        own_key = jax.random.fold_in(key, 0 if number is None else number)
        drawn = model.init(own_key, rows.first.x)
        active = model.active(model.with_hyper(drawn, hyper))
        division = rows.blocks.division
        target = target_moments(rows)
        if is_params:
            params = self._given_params(start, drawn, hyper)
        else:
            null = {
                "experts": model.expert.null(drawn["experts"], self._eta(rows, target)),
                "gate": model.gate.null(drawn["gate"]),
                # Responsibilities that are given tell the dispersions of experts, which a first step then finds.
                "family": self._family.null(drawn["family"], target) if division is None else drawn["family"],
            }
            params = model.with_hyper(null, hyper)
            if division is None:
                alike = any(jax.tree.leaves(model.trainable(drawn)["experts"]))
                by_inputs = model.gate.models_inputs
                division = _starts.draw(self.init, number, key, rows, model.table, active, alike, by_inputs)
            else:
                division = _starts.shared_out(division, active)
            if leader is not None:
                whole = jnp.moveaxis(division, 1, 0).reshape(len(active), -1)
                division = jnp.moveaxis(whole[:, leader], 0, 1)
            rows = Rows(rows.blocks._replace(division=division))
        sizes = self._sizes(dtype)
        kind = "gradient" if sizes else "exact" if self._family.is_quadratic else "approximate"
        given = jnp.asarray(0 if is_params or self.loss.complete else _START_STEPS[kind], jnp.int32)
        if resume is not None:
            there, warm = resume
            params = choose(warm, self._given_params(there, params, hyper), params)
            given = where(warm, 0, given)
        params = self.bounded(params, target)
        count = rows.sum(lambda block: (block.weights > 0).sum()).astype(dtype)
        means = column_means(rows)
        start_key = own_key if model.expert.has_begin else key
        em = EM(self, params)
        watched = {"experts": em.asker.watches_experts, "gate": em.asker.watches_gate}
        variances = {name: self._variances(rows, means, COLUMNS[name]) for name, is_watched in watched.items() if is_watched}
        task = Task(params, rows, means, target, total, count, given, start_key, hyper, sizes, variances)
        if rows.n_blocks == 1:
            task = task._replace(inputs=rows.sum(lambda block: prepared(model, block.x, means, keep=True)))
        return em, task

    def score(self, params: Any, x: Any, y: jax.Array, weights: Any, offset: Any = None, groups: Any = None) -> jax.Array:
        """Return the weighted mean of -log p(y | x), whatever likelihood is ascended: see `Configured.score`."""
        return _shared.score(self.model, losses.NegativeLogLikelihood(), params, x, y, weights, offset, groups)

    def work_bytes(self, y: jax.Array) -> int:
        """Return about how much memory an iteration of one fit works in: see `Configured.work_bytes`."""
        return _WORK_ARRAYS * self.model.n_experts * y.size * y.dtype.itemsize

    @property
    def has_warm_start(self) -> bool:
        """Whether a path can lead its iterations from one value to the next: yes."""
        return True

    def rows_in_block(self, x: Any, y: Any, leader: Any = None) -> int:
        """Return how many rows a block has; 0 where all rows are one block."""
        if self.block_size is not None:
            return min(self.block_size, len(y))
        return super().rows_in_block(x, y, leader)

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`."""
        super().check_data(x, y, weights, offset, groups, start)
        _starts.check_init(self.init, self.model.table(x))
        _starts.check_distinct(x, y, self.model.n_experts)

    # ---- inside the compiled program ----------------------------------------------------------------------------

    def tolerance(self, dtype: Any) -> float:
        """Return the violation of the optimality condition at which a fit has converged.

        Parameters
        ----------
        dtype : dtype
            Type of the objective.

        Returns
        -------
        float
            `tol`, or its default for this type.
        """
        if self.tol is not None:
            return self.tol
        return 1e-7 if dtype == jnp.float64 else 1e-4

    def bounded(self, params: Any, target: Target) -> Any:
        """Return params within constraints of the family that the density does not see.

        Parameters
        ----------
        params : dict
            Params of the model.
        target : Target
            Moments of the target.

        Returns
        -------
        dict
            Params of the same structure.
        """
        return {**params, "family": self._family.bounded(params["family"], target)}

    @property
    def _family(self) -> Family:
        return cast(Family, self.model.family)  # without which `fit_em` takes no model

    def _eta(self, rows: Rows, target: Target) -> Any:
        """The predictor to begin with, less the mean offset."""
        eta = self._family.start(target)
        if rows.blocks.offset is None:
            return eta
        return eta - rows.sum(lambda block: jnp.tensordot(block.weights, jnp.asarray(block.offset), 1))

    def _variances(self, rows: Rows, means: Any, columns: str) -> jax.Array:
        """Of the columns that a linear part sees, by weight."""
        return column_variances(rows, means, partial(self.model.seen, columns))

    def _given_params(self, given: Any, like: Any, hyper: Hyper) -> Any:
        own = {name: jax.tree.map(lambda leaf, v: jnp.asarray(leaf, v.dtype), given[name], like[name]) for name in PARTS}
        return self.model.with_hyper(own, hyper)

    def _sizes(self, dtype: Any) -> dict[str, jax.Array]:
        """Sizes of the first gradient steps of parts without an M-step."""
        model = self.model
        own = {name: part.is_linear or part.has_m_step for name, part in (("experts", model.expert), ("gate", model.gate))}
        own["family"] = self._family.has_dispersion
        return {name: jnp.asarray(0.1, dtype) for name, there in own.items() if not there}


def fit_em(
    model: Model,
    loss: Any = None,
    *,
    penalty: Sequence[Any] | None = None,
    init: str = "mixed",
    max_iter: int = 500,
    tol: float | None = None,
    record_every: int = 10,
    block_size: int | None = None,
) -> EMFit:
    """Configure a fit of the mixture's likelihood by EM, with exact zeros.

    Parameters
    ----------
    model : Model
        From `moe`, with a family.
    loss : Loss or None, default None
        None for the likelihood that goes with the model, see Notes, or that very loss. `losses.complete_nll` for the
        likelihood of responsibilities that a fit gets as `start_responsibilities`, which are then held.
    penalty : sequence of PenaltyLike or PenaltyLike or None, default None
        From `moejax.penalties`, in the order of their proximal steps. None for L1, group lasso over experts and L2, on
        experts and on gate. Each has weight 0 until `hyper` sets it.
    init : {"random", "tilted", "kmeans", "residuals", "centres", "equal", "mixed"}, default "mixed"
        How the responsibilities of a start are drawn. "random": nearly equal for all experts; equal for `restart` 0 where
        experts have nothing to train. "tilted": the same, with a little more of high targets, or of low ones, for each
        expert. "kmeans": clusters of x. "residuals": clusters of what one linear regression of y on x leaves. "centres": the
        nearest of K random rows. "equal": the same for all experts, from which only experts that differ by themselves part.
        "mixed": "tilted", "random" and "centres" in turn, by the number `restart`; "random" alone for tables of at least 20
        columns and at most ten rows for each of them; "kmeans" and "centres" for a gate that models its inputs; "equal"
        comes before them where experts have nothing to train. Where x is no table (n, d), clusters are of what the gate
        sees; where that is none either, or has no columns, "mixed" is "tilted" and "residuals".
    max_iter : int, default 500
        Largest number of iterations.
    tol : float or None, default None
        Violation of the optimality condition, free of units (see `Fit.kkt`), at which a fit has converged. None for 1e-7 in
        float64 and 1e-4 in float32.
    record_every : int, default 10
        Iterations between two numbers of `Fit.history`.
    block_size : int or None, default None
        Rows over which sums are taken at once. None for a size that fits a core's cache, which depends on shapes and type
        alone; small data are one block.

    Returns
    -------
    EMFit
        A pure function fit(key, x, y, hyper=None, *, weights=None, offset=None, groups=None, start_params=None,
        start_responsibilities=None) -> Fit.

    Raises
    ------
    ValueError
        If the model has no family, if family and experts do not go together, if EM does not lower the loss, if the gate is
        noisy, for another init, or for counts that are not whole numbers above 0.

    Notes
    -----
    EM lowers the objective

        -(weighted mean over rows of the log-likelihood) + sum over penalties of  weight * value.

    The gate decides which likelihood is used: log p(y | x); log p(x, y) for a gate that models its inputs; for a gate that
    chooses an expert, max over k of log g_k(x) f_k(y) (classification EM); for `top_k`, the log of the sum of the k largest
    (see `moejax.losses.truncated_nll`).

    An iteration takes the responsibilities at the present params, and lowers for experts and gate a quadratic that bounds or
    approximates the expected loss, plus penalties. If the objective does not fall, the step is halved until it does.
    Anderson's extrapolation from the last few iterations is used where it lowers the objective, once moves get shorter.

    References
    ----------
    EM: Dempster, Laird and Rubin (1977); for mixtures of experts Jordan and Jacobs (1994). Classification EM: Celeux and
    Govaert (1992). Extrapolation: Anderson (1965); for EM, Henderson and Varadhan (2019).
    """
    check_model(model)
    if model.family is None:
        raise ValueError(
            "model: one without a family was given; EM ascends a likelihood: want moe(..., family=families.gaussian())"
        )
    _shared.check_parts(model)
    if model.gate.is_noisy:
        raise ValueError(f"gate: {model.gate!r} is noisy in training, which EM is not; want no noise, or fit_gradient")
    own = losses.likelihood_of(model)
    held = losses.complete_nll(joint=own.joint)
    if loss is not None and not (isinstance(loss, losses.NegativeLogLikelihood) and loss in (own, held)):
        wanted = f"EM lowers {own!r} or {held!r} for this model, and fit_gradient any"
        raise ValueError(f"loss: {_checks.shown(loss)} was given; {wanted}")
    own.check(model)
    _starts.check_name(init)
    _checks.count("max_iter", max_iter)
    _checks.count("record_every", record_every)
    if block_size is not None:
        _checks.count("block_size", block_size)
    tol = None if tol is None else _checks.number_from_0("tol", tol)
    chosen_penalties = penalties.standard() if penalty is None else _shared.checked_penalties(penalty)
    chosen_loss = own if loss is None else loss
    return EMFit(model, chosen_penalties, init, int(max_iter), tol, int(record_every), chosen_loss, block_size)
