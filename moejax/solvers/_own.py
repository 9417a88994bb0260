"""Fits by one's own solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from moejax import _checks, losses, penalties
from moejax._contracts import check_capabilities
from moejax._rows import Rows
from moejax.model import Model
from moejax.penalties import Penalty, PenaltyLike
from moejax.solvers import _shared
from moejax.solvers._base import Solver
from moejax.solvers._configured import Configured, Hyper
from moejax.solvers._descent import LossSolver
from moejax.solvers._gradient import begin
from moejax.solvers._sequence import is_hashable

_WORK_ARRAYS = 8  # arrays of (K, n) that a step is taken to make


@dataclass(frozen=True)
class OwnFit(Configured):
    """A fit by one's own solver, configured by `fit_with`; call it, or hand it to `sweep` or `path`.

    Attributes
    ----------
    solver : callable
        From this fit to a `Solver`.
    model : Model
        The model.
    loss : Loss
        The loss.
    penalties : tuple of Penalty
        The penalties, in the order of their proximal steps.
    """

    solver: Callable[[Configured], Solver]
    model: Model
    loss: losses.Loss
    penalties: tuple[Penalty, ...]

    @property
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""
        return {**{p.name: 0.0 for p in self.penalties}, **self.loss.hyper, **self.model.hyper, "restart": 0}

    def descent(
        self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: tuple[Any, Any] | None = None
    ) -> tuple[Solver, Any]:
        """Return the solver and what it is given: see `Configured.descent`."""
        return self.solver(self), begin(self, key, hyper, rows, start, resume)

    @property
    def uneven(self) -> bool:
        """Whether fits end at different times: where the solver says when it is done."""
        return self.solver(self).n_steps is None

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face: not where noise is drawn for each row."""
        return super().takes_padding and not self.model.gate.is_noisy

    def work_bytes(self, y: jax.Array) -> int:
        """Return about how much memory a step of one fit works in: see `Configured.work_bytes`."""
        return _WORK_ARRAYS * self.model.n_experts * y.size * y.dtype.itemsize

    def rows_in_block(self, x: Any, y: Any, leader: Any = None) -> int:
        """Return how many rows a block has; 0 where all rows are one block."""
        whole = leader is not None or self.model.gate.is_noisy or not self.loss.has_sums
        return 0 if whole else super().rows_in_block(x, y)


def fit_with(
    solver: Callable[[Configured], Solver],
    model: Model,
    loss: losses.LossLike | None = None,
    *,
    penalty: Sequence[PenaltyLike] | PenaltyLike | None = None,
) -> OwnFit:
    """Configure a fit by one's own solver.

    Parameters
    ----------
    solver : callable
        From the configured fit to a `Solver`: a class that inherits `Solver` or `LossSolver`. A compiled program is kept for
        it by its hash.
    model : Model
        From `moe`.
    loss : LossLike or None, default None
        From `moejax.losses`. None for squared error.
    penalty : sequence of PenaltyLike or PenaltyLike or None, default None
        From `moejax.penalties`, in the order of their proximal steps. None for L1, group lasso and L2, on experts and on
        gate.

    Returns
    -------
    OwnFit
        A pure function like those of `fit_gradient`.

    Raises
    ------
    ValueError
        If the model does not have the loss, or for a solver that is none or would never end.
    """
    if not callable(solver) or not is_hashable(solver):
        raise ValueError(f"solver: {_checks.shown(solver)} was given; want a class that inherits moejax.solvers.Solver")
    loss = losses.squared_error() if loss is None else losses.completed(loss)
    _shared.check_parts(model)
    check_capabilities(loss)
    loss.check(model)
    chosen = penalties.standard() if penalty is None else _shared.checked_penalties(penalty)
    fit = OwnFit(solver, model, loss, chosen)
    made = solver(fit)
    if not isinstance(made, Solver):
        raise ValueError(f"solver: {solver!r} made {made!r}; want a class that inherits moejax.solvers.Solver")
    if made.n_steps is None and type(made).done is LossSolver.done:
        raise ValueError(f"solver: {solver!r} has no n_steps and no done, and would never end; want one of them")
    return fit
