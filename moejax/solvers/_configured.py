"""What fits of all solvers share: the checked call, and below it `solve`."""

from __future__ import annotations

import abc
from typing import Any

import jax

from moejax import _cache, _rows, penalties
from moejax._rows import Rows
from moejax.model import Data, Model
from moejax.solvers import _shared
from moejax.solvers._base import Solver, run
from moejax.solvers._result import Fit

Hyper = dict[str, Any]


class Configured(abc.ABC):
    """A fit that is configured: a model, a loss, penalties, and a solver.

    Notes
    -----
    It has two doors. The call is for users: it checks and converts all arguments. `solve` is for compiled code, as sweeps,
    paths and estimators: it checks nothing, and takes rows as `laid` makes them.
    """

    model: Model
    loss: Any
    penalties: tuple[Any, ...]

    def __call__(
        self,
        key: jax.Array,
        x: Any,
        y: Any,
        hyper: Hyper | None = None,
        *,
        weights: Any = None,
        offset: Any = None,
        groups: Any = None,
        start_params: Any = None,
        start_responsibilities: Any = None,
        start: Any = None,
    ) -> Fit:
        """Fit once.

        It is pure: it takes `jit` and `vmap`, and compiles itself when called outside of them.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        x : array_like, (n, d), or pytree
            Inputs, an array or a pytree of arrays with n leading.
        y : array_like, (n,) or (n, m)
            Targets, (n, m) for m outputs.
        hyper : dict or None, default None
            Numbers by name (see the property `hyper`), each of which may be traced. `restart` numbers the starts of `key`,
            from 0.
        weights : array_like or None, (n,), default None
            Frequencies of the rows, none below 0: a row of weight 2 is two rows, and one of weight 0 is absent, whatever it
            holds. None for equal ones. If float32 cannot hold their sum, or any of them, they are divided by the largest.
        offset : array_like or None, default None
            Added to every expert's predictor, on the scale of eta; shaped like the predictor of one expert.
        groups : array_like or None, (n,), default None
            Labels of any type; the rows of a group share their expert and have equal weights.
        start_params : dict or None, default None
            Params to start from in the place of drawn ones.
        start_responsibilities : array_like or callable or None, (n, K), default None
            Responsibilities to start from, or a function of x that returns them (see `moejax.division`). A loss whose
            responsibilities are held gets them here.
        start : dict or array_like or callable or None, default None
            An older name for both: params as a dict, or else responsibilities.

        Returns
        -------
        Fit
            Params and how good they are. Once running, nothing raises; `Fit.status` tells.

        Raises
        ------
        ValueError
            Before anything compiles: if numbers are NaN or infinite, shapes do not fit, the family cannot have the targets,
            the target of a density is constant, weights are below 0 or all 0, there are more experts than distinct rows,
            groups do not go with the loss, two starts are given, or `hyper` has an unknown name or a value that cannot be.
        """
        with _shared.one_start(start, start_params, start_responsibilities) as begin:
            given = _shared.arguments(self, key, x, y, hyper, weights, offset, groups, begin)
        fit: Fit = _compiled(self, given[0], given[3], *self.laid(*given[1:3], *given[4:]))
        return fit

    # ---- below the face: nothing is checked ------------------------------------------------------------------------

    @abc.abstractmethod
    def descent(
        self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: tuple[Any, Any] | None = None
    ) -> tuple[Solver, Any]:
        """Return the solver of this fit and what it is given, for compiled code that takes the steps itself.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        hyper : dict
            Numbers by name.
        rows : Rows
            Blocks of rows, of raw weights.
        start : dict or None, default None
            Params to start from.
        resume : tuple or None, default None
            Params, and a boolean that says whether to begin there.

        Returns
        -------
        solver : Solver
            The steps.
        task : pytree
            What they are given.
        """

    def solve(self, key: Any, hyper: Hyper, rows: Rows, start: Any = None, resume: tuple[Any, Any] | None = None) -> Fit:
        """Fit once, inside compiled code. Nothing is checked.

        Parameters
        ----------
        key : jax.Array
            The only source of randomness.
        hyper : dict
            Numbers by name.
        rows : Rows
            Blocks of rows, of raw weights.
        start : dict or None, default None
            Params to start from.
        resume : tuple or None, default None
            See `descent`.

        Returns
        -------
        Fit
            The fit.
        """
        solver, task = self.descent(key, hyper, rows, start, resume)
        return solver.finish(task, run(solver, task))

    def laid(self, x: Any, y: Any, weights: Any, offset: Any, leader: Any, start: Any) -> tuple[Rows, Any]:
        """Return rows in blocks, and params to start from.

        Parameters
        ----------
        x : jax.Array or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        weights : jax.Array or None, (n,)
            Weights of the rows.
        offset : jax.Array or None
            Added to every expert's predictor.
        leader : jax.Array or None, (n,)
            As from `moejax.model.leaders`.
        start : dict or jax.Array or None
            Params, or responsibilities (n, K).

        Returns
        -------
        rows : Rows
            Blocks, which hold responsibilities to start from, if there are any.
        start : dict or None
            Params to start from, or None.
        """
        is_params = isinstance(start, dict)
        division = None if is_params or start is None else start.astype(y.dtype)
        block = self.rows_in_block(x, y, leader)
        return _rows.lay(x, y, weights, offset, leader, division, block, self.takes_padding), start if is_params else None

    def rows_in_block(self, x: Any, y: Any, leader: Any = None) -> int:
        """Return how many rows a block has; 0 where all rows are one block.

        Parameters
        ----------
        x : jax.Array or pytree
            Inputs.
        y : jax.Array, (n,) or (n, m)
            Targets.
        leader : jax.Array or None, (n,), default None
            As from `moejax.model.leaders`.

        Returns
        -------
        int
            A function of shapes and type alone, for results depend on it bit by bit.
        """
        wide = max((v.shape[1] + 1 for v in jax.tree.leaves(x) if v.ndim == 2), default=1)
        arrays = self.work_bytes(y) // (y.shape[0] * y.dtype.itemsize)
        return _rows.block_size(y.shape[0], wide, arrays, y.dtype)

    @property
    def rows_in_step(self) -> int | None:
        """Rows that a step takes, drawn in a new order in each epoch; by default None, for all."""
        return None

    @property
    def takes_padding(self) -> bool:
        """Whether rows of weight 0 may be added below the face, so that tables share programs.

        Not where a part may look at rows when it begins, nor for a loss that may look at rows of weight 0.
        """
        return self.model.expert.inits_by_shape and self.model.gate.inits_by_shape and self.loss.has_sums

    @property
    def uneven(self) -> bool:
        """Whether fits end at different times; by default yes."""
        return True

    @property
    def is_settling(self) -> bool:
        """Whether a fit converges if it may take enough steps; by default where fits end at different times."""
        return self.uneven

    @property
    def has_warm_start(self) -> bool:
        """Whether its solver can begin ahead of a point, as `EM.init` does, and tells where it ended; by default no."""
        return False

    @abc.abstractmethod
    def work_bytes(self, y: jax.Array) -> int:
        """Return about how much memory a step of one fit works in, by which a sweep chooses how many to run at once.

        Parameters
        ----------
        y : jax.Array, (n,) or (n, m)
            Targets.

        Returns
        -------
        int
            Bytes.
        """

    def objective(self, params: Any, data: Data, weights: jax.Array, hyper: Hyper) -> jax.Array:
        """Return the objective that the fit lowers: the weighted mean loss plus penalties.

        Parameters
        ----------
        params : dict
            Params of the model.
        data : Data
            Prepared inputs and target.
        weights : jax.Array, (n,)
            Weights of the rows, of sum 1.
        hyper : dict
            Numbers by name, with the weights of penalties.

        Returns
        -------
        jax.Array, ()
            A mean over rows.
        """
        loss: jax.Array = self.loss.value(self.model, params, data._replace(hyper={**self.loss.hyper, **hyper}), weights)
        return loss + _shared.penalty(self, params, hyper)

    def score(self, params: Any, x: Any, y: jax.Array, weights: Any, offset: Any = None, groups: Any = None) -> jax.Array:
        """Return the weighted mean loss without penalties, by which selection compares: lower is better.

        Parameters
        ----------
        params : dict
            Params of the model.
        x : array_like or pytree
            Inputs of rows that may be others than the fitted ones.
        y : jax.Array, (n,) or (n, m)
            Targets.
        weights : jax.Array or None, (n,)
            Weights of the rows.
        offset : jax.Array or None, default None
            Added to every expert's predictor.
        groups : jax.Array or None, (n,), default None
            Labels; the rows of a group share their expert.

        Returns
        -------
        jax.Array, ()
            A mean over rows.
        """
        return _shared.score(self.model, self.loss, params, x, y, weights, offset, groups)

    # ---- checks, on the host -----------------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def hyper(self) -> dict[str, Any]:
        """The names that `hyper` may hold, with their defaults."""

    @property
    def has_exact_zeros(self) -> bool:
        """Whether penalties bring coefficients to exactly 0; by default yes."""
        return True

    def check_hyper(self, hyper: Hyper) -> None:
        """Raise ValueError for a name that means nothing here, or a number that it cannot have (any shape is taken).

        Penalties that bring coefficients to 0 have to be in an order in which their proximal steps are that of their sum.

        Parameters
        ----------
        hyper : dict
            Numbers by name.
        """
        _shared.check_hyper(self, hyper)
        if self.has_exact_zeros:
            penalties.check_order([p for p, _ in _shared.used(self, hyper)])

    def check_data(
        self, x: Any, y: Any, weights: Any = None, offset: Any = None, groups: Any = None, start: Any = None
    ) -> None:
        """Raise ValueError unless these can be fitted by this model; see `__call__`.

        Parameters
        ----------
        x : array_like or pytree
            Inputs.
        y : array_like, (n,) or (n, m)
            Targets.
        weights : array_like or None, (n,), default None
            Weights of the rows.
        offset : array_like or None, default None
            Added to every expert's predictor.
        groups : array_like or None, (n,), default None
            Labels of rows.
        start : dict or array_like or callable or None, default None
            Where to start: params, or responsibilities.
        """
        _shared.checked_rows(self, x, y, weights, offset, groups, start)
        if groups is not None and not self.loss.takes_groups:
            raise ValueError(f"groups: given for {self.loss!r}, which has no experts to share; want losses.nll()")


@_cache.jit
def _compiled(fit: Configured, *arguments: Any) -> Fit:
    return fit.solve(*arguments)
