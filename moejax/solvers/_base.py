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

    Parameters
    ----------
    fit : Configured
        The fit whose steps these are: its `model`, `loss` and `penalties`.
    """

    def __init__(self, fit: Any):
        self.fit = fit

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

    def stepped(task: Any, state: Any) -> Any:
        after = jax.tree.map(jnp.asarray, solver.step(task, state))
        _check_same(solver, state, after)
        return after

    if solver.n_steps is not None:
        first = jax.tree.map(jnp.asarray, solver.init(task))
        last, _ = jax.lax.scan(lambda state, _: (stepped(task, state), None), first, length=solver.n_steps)
        return solver.end(last)

    def step(task: Any, state: Any) -> _lanes.Turn:
        state = stepped(task, state)
        over = solver.done(state)
        return _lanes.Turn(state, over, jnp.zeros((), jnp.int32), solver.end(state), over)

    ends = _lanes.run(_lanes.Loop(solver.init, step, 1), task)
    return jax.tree.map(lambda v: v[0], ends)


def _check_same(solver: Solver, before: Any, after: Any) -> None:
    """Raise ValueError for a step that returns a state of another structure, or with arrays of other shapes or types."""
    have, want = (jax.tree_util.tree_leaves_with_path(state) for state in (after, before))
    told = [{jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves} for leaves in (have, want)]
    for name in dict.fromkeys([*told[1], *told[0]]):
        new, old = (each.get(name) for each in told)
        if new != old:
            given, wanted = (f"{v[1]}{list(v[0])}" if v else "nothing" for v in (new, old))
            raise ValueError(
                f"solver: step of {solver!r} returned {given} at state{name}; want {wanted}, as before the step"
            )
