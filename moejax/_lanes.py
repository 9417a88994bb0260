"""Loops of many members that end at different times, run beside each other.

Under `jax.vmap` a loop goes on until its last member is done, and all others wait for it. A loop of this module has a rule
of its own for `vmap`: half of the members run at once, in lanes, and a lane whose member is done takes the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_SHARE = 2  # members for each lane


class Turn(NamedTuple):
    """What a step leads to: the state after it, whether it ends something that is kept, what, at which place, and whether it
    was the member's last.
    """

    state: Any
    ends: jax.Array
    place: jax.Array
    kept: Any
    over: jax.Array


class Loop(NamedTuple):
    """The loop of one member: begin(given) is its first state, and step(given, state) a `Turn`.

    Of all that is kept a member has as many as there are `places`. What members differ in is in `given`, a pytree of arrays.
    """

    begin: Callable[[Any], Any]
    step: Callable[[Any, Any], Turn]
    places: int


class _Lanes(NamedTuple):
    """member: (L,), which one runs there, of those that idle one beyond the last. waiting: the first that has not begun."""

    member: jax.Array
    own: list[jax.Array]  # of what they are given, that in which they differ
    state: Any
    waiting: jax.Array
    kept: Any  # (members, places, ...)


def run(loop: Loop, given: Any) -> Any:
    """All that a member keeps, with `places` leading."""
    leaves, tree = jax.tree.flatten(given)

    def alone(*leaves: jax.Array) -> Any:
        return _alone(loop, jax.tree.unflatten(tree, leaves))

    def together(size: int, differ: list[bool], *leaves: jax.Array) -> tuple[Any, Any]:
        # In none where only derivatives differ.
        kept = _together(loop, size, tree, leaves, differ) if any(differ) else alone(*leaves)
        return kept, jax.tree.map(lambda _: any(differ), kept)

    either = jax.custom_batching.custom_vmap(alone)
    either.def_vmap(together)
    return either(*leaves)


def _alone(loop: Loop, given: Any) -> Any:
    def step(carry: tuple[Any, Any, jax.Array]) -> tuple[Any, Any, jax.Array]:
        state, kept, _ = carry
        turn = loop.step(given, state)
        return turn.state, _with(kept, jnp.where(turn.ends, turn.place, loop.places), turn.kept), turn.over

    begin = loop.begin(given)
    kept = jax.eval_shape(loop.step, given, begin).kept
    kept = jax.tree.map(lambda v: jnp.zeros((loop.places, *v.shape), v.dtype), kept)
    return jax.lax.while_loop(lambda carry: ~carry[2], step, (begin, kept, jnp.zeros((), bool)))[1]


def _together(loop: Loop, size: int, tree: Any, leaves: Sequence[jax.Array], differ: Sequence[bool]) -> Any:
    """What all members keep, with their number leading. differ: which of the leaves that they are given they differ in."""
    axes = (jax.tree.unflatten(tree, [0 if d else None for d in differ]),)
    given = jax.tree.unflatten(tree, leaves)
    begins = jax.vmap(loop.begin, in_axes=axes, axis_size=size)(given)
    steps = jax.vmap(loop.step, in_axes=(*axes, 0))

    def of(member: jax.Array) -> list[jax.Array]:
        return [_of(v, member) for v, d in zip(leaves, differ, strict=True) if d]

    def merged(own: list[jax.Array]) -> Any:
        rest = iter(own)
        return jax.tree.unflatten(tree, [next(rest) if d else v for v, d in zip(leaves, differ, strict=True)])

    def step(lanes: _Lanes) -> _Lanes:
        turn = steps(merged(lanes.own), lanes.state)
        kept = _with(lanes.kept, (jnp.where(turn.ends, lanes.member, size), turn.place), turn.kept)
        member = jnp.where(turn.over, lanes.waiting + jnp.cumsum(turn.over) - 1, lanes.member)

        def refilled() -> tuple[Any, Any]:
            fresh = jax.tree.map(lambda v: _of(v, member), begins)
            state = jax.tree.map(lambda new, old: jnp.where(_beside(turn.over, old), new, old), fresh, turn.state)
            return of(member), state

        own, state = jax.lax.cond(turn.over.any(), refilled, lambda: (lanes.own, turn.state))
        return _Lanes(member, own, state, lanes.waiting + turn.over.sum(), kept)

    first = jnp.arange(-(-size // _SHARE))
    kept = jax.eval_shape(steps, given, begins).kept
    kept = jax.tree.map(lambda v: jnp.zeros((size, loop.places, *v.shape[1:]), v.dtype), kept)
    state = jax.tree.map(lambda v: _of(v, first), begins)
    begin = _Lanes(first, of(first), state, jnp.asarray(len(first)), kept)
    return jax.lax.while_loop(lambda lanes: (lanes.member < size).any(), step, begin).kept


def _with(kept: Any, at: Any, new: Any) -> Any:
    """What is kept with new ones at these places, but for those beyond the last."""
    return jax.tree.map(lambda all, one: all.at[at].set(one, mode="drop"), kept, new)


def _of(leaf: jax.Array, member: jax.Array) -> jax.Array:
    return leaf.at[member].get(mode="clip")


def _beside(flags: jax.Array, like: jax.Array) -> jax.Array:
    return flags.reshape(-1, *[1] * (like.ndim - 1))
