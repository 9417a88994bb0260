"""The contract of solvers, and the one loop that runs them."""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.numpy as jnp

from moejax.solvers import _lanes
from moejax.solvers._result import Fit


class Solver(abc.ABC):
    """The steps of one fit: `init`, `step` until `done`, and the `Fit` that `finish` makes of the end.

    All four are pure functions of arrays. A lone fit, a path and the lanes of a sweep run the same four.

    Notes
    -----
    Required: `init`, `step`, `done`, `finish`. Optional, with a default: `end`, `n_steps`.
    """

    @property
    def n_steps(self) -> int | None:
        """The number of steps that every fit takes, known beforehand; None where `done` decides. By default None.

        A loop of a known number of steps can be differentiated in reverse mode.
        """
        return None

    @abc.abstractmethod
    def init(self, task: Any) -> Any:
        """Return the state before the first step.

        Parameters
        ----------
        task : pytree
            What the fit is given: where to begin, rows, numbers by name.

        Returns
        -------
        pytree
            The state.
        """

    @abc.abstractmethod
    def step(self, task: Any, state: Any) -> Any:
        """Return the state after one more step.

        Parameters
        ----------
        task : pytree
            What the fit is given.
        state : pytree
            The state before it.

        Returns
        -------
        pytree
            A state of the same shapes.
        """

    @abc.abstractmethod
    def done(self, state: Any) -> jax.Array:
        """Return whether there is no further step.

        Parameters
        ----------
        state : pytree
            A state.

        Returns
        -------
        jax.Array, ()
            A boolean.
        """

    def end(self, state: Any) -> Any:
        """Return what is kept of the last state; by default all of it.

        Parameters
        ----------
        state : pytree
            The last state.

        Returns
        -------
        pytree
            What `finish` needs.
        """
        return state

    @abc.abstractmethod
    def finish(self, task: Any, end: Any) -> Fit:
        """Return the fit.

        Parameters
        ----------
        task : pytree
            What the fit is given.
        end : pytree
            What `end` kept of the last state.

        Returns
        -------
        Fit
            Params, and how good they are.
        """


def run(solver: Solver, task: Any) -> Any:
    """Take all steps of a solver, inside compiled code.

    Parameters
    ----------
    solver : Solver
        The solver.
    task : pytree
        What it is given.

    Returns
    -------
    pytree
        What its `end` keeps of the last state.
    """
    if solver.n_steps is not None:
        last, _ = jax.lax.scan(lambda state, _: (solver.step(task, state), None), solver.init(task), length=solver.n_steps)
        return solver.end(last)

    def step(task: Any, state: Any) -> _lanes.Turn:
        state = solver.step(task, state)
        over = solver.done(state)
        return _lanes.Turn(state, over, jnp.zeros((), jnp.int32), solver.end(state), over)

    ends = _lanes.run(_lanes.Loop(solver.init, step, 1), task)
    return jax.tree.map(lambda v: v[0], ends)
