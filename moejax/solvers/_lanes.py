"""Loops of many members that end at different times, run beside each other.

Under `jax.vmap` a loop goes on until its last member is done, and all others wait for it. A loop of this module is a
primitive with a rule of its own for `vmap`: half of the members run at once, in lanes, and a lane whose member is done takes
the next one. To all other transformations it is a `while_loop`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir, partial_eval

_SHARE = 2  # members for each lane


class Turn(NamedTuple):
    """What a step leads to.

    state: after the step. ends: whether something that is kept has ended. place: where it is kept. kept: what it is. over:
    whether the step was the member's last.
    """

    state: Any
    ends: jax.Array
    place: jax.Array
    kept: Any
    over: jax.Array


class Loop(NamedTuple):
    """The loop of one member: begin(given) is its first state, and step(given, state) a `Turn`.

    Of all that is kept a member has as many as there are `places`. What members differ in is in `given`, a pytree of arrays,
    or closed over.
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
    """All that a member keeps, with `places` leading.

    State and what is kept go round the loop as one vector for each type. XLA copies what a loop carries at every turn, and
    on a CPU shares work that is ready at once, as copies of many small arrays are, out among threads, which costs far more.
    """
    packing: dict[str, _Packing] = {}  # made while the functions are traced, which is once: tracing takes time

    def begun(given: Any) -> list[jax.Array]:
        state = jax.tree.map(jnp.asarray, loop.begin(given))
        packing["state"] = _Packing(state)
        return packing["state"].packed(state)

    def stepped(given: Any, packed: Any) -> Turn:
        turn = jax.tree.map(jnp.asarray, loop.step(given, packing["state"].unpacked(packed)))
        packing["kept"] = _Packing(turn.kept)
        packed_turn: Turn = turn._replace(state=packing["state"].packed(turn.state), kept=packing["kept"].packed(turn.kept))
        return packed_turn

    begin, like = jax.make_jaxpr(begun, return_shape=True)(given)
    step = jax.make_jaxpr(stepped)(given, like)
    closed_over = len(begin.consts), len(step.consts)
    operands = *begin.consts, *step.consts, *jax.tree.leaves(given)
    programs = {"begin": _needed(begin.jaxpr), "step": _needed(step.jaxpr)}
    ends = lanes_p.bind(*operands, **programs, closed_over=closed_over, places=loop.places)
    return jax.vmap(packing["kept"].unpacked)(ends)


def _needed(jaxpr: Any) -> Any:
    """The same program without what nothing comes of, which JAX does not look for inside of loops."""
    return partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=True)[0]


class _Packing:
    """A pytree of arrays, made into a vector for each of their types, of truth values as whole numbers, and back."""

    def __init__(self, tree: Any):
        leaves, self._structure = jax.tree.flatten(tree)
        self._likes = [(v.shape, v.dtype, jnp.int32 if v.dtype == bool else v.dtype) for v in leaves]
        self._types = list(dict.fromkeys(jnp.dtype(as_type) for *_, as_type in self._likes))

    def packed(self, tree: Any) -> list[jax.Array]:
        """The vectors."""
        of: dict[Any, list[jax.Array]] = {as_type: [] for as_type in self._types}
        for leaf, (*_, as_type) in zip(jax.tree.leaves(tree), self._likes, strict=True):
            flat = leaf.reshape(-1)
            of[jnp.dtype(as_type)].append(flat if flat.dtype == as_type else flat.astype(as_type))
        return [jnp.concatenate(pieces) for pieces in of.values()]

    def unpacked(self, vectors: Sequence[jax.Array]) -> Any:
        """The pytree."""
        of, leaves = dict(zip(self._types, vectors, strict=True)), []
        used = dict.fromkeys(self._types, 0)
        for shape, dtype, as_type in self._likes:
            start = used[jnp.dtype(as_type)]
            used[jnp.dtype(as_type)] = end = start + math.prod(shape)
            leaf = jax.lax.slice_in_dim(of[jnp.dtype(as_type)], start, end).reshape(shape)
            leaves.append(leaf if leaf.dtype == dtype else leaf.astype(dtype))
        return jax.tree.unflatten(self._structure, leaves)


# ---- the primitive, whose loops are of lists of arrays --------------------------------------------------------------

lanes_p = jax.extend.core.Primitive("lanes")
lanes_p.multiple_results = True


def _loop(begin: Any, step: Any, closed_over: tuple[int, int], places: int) -> Loop:
    """The loop of these jaxprs. What they close over comes first in what is given."""
    first, both = closed_over[0], sum(closed_over)

    def begun(given: Sequence[Any]) -> list[Any]:
        return jax.core.eval_jaxpr(begin, given[:first], *given[both:])

    def stepped(given: Sequence[Any], state: Sequence[Any]) -> Turn:
        after = jax.core.eval_jaxpr(step, given[first:both], *given[both:], *state)
        n = len(state)
        return Turn(after[:n], after[n], after[n + 1], after[n + 2 : -1], after[-1])

    return Loop(begun, stepped, places)


def _shapes(*_: Any, begin: Any, step: Any, places: int, **__: Any) -> tuple[list[Any], Any]:
    kept = [jax.core.ShapedArray((places, *v.shape), v.dtype) for v in _kept(begin, step)]
    return kept, begin.effects | step.effects


lanes_p.def_effectful_abstract_eval(_shapes)


def _kept(begin: Any, step: Any) -> list[Any]:
    """Shapes and types of what one place keeps."""
    return [v.aval for v in step.outvars[len(begin.outvars) + 2 : -1]]


def _alone(*given: Any, **loop: Any) -> list[Any]:
    begin, step, places = _loop(**loop)

    def turned(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        state, kept, _ = carry
        turn = step(given, state)
        if places == 1:  # the last one counts
            return turn.state, [one[None] for one in turn.kept], turn.over
        here = [jax.lax.dynamic_index_in_dim(every, turn.place, 0, keepdims=False) for every in kept]
        here = [jnp.where(turn.ends, one, before) for before, one in zip(here, turn.kept, strict=True)]
        kept = [jax.lax.dynamic_update_index_in_dim(*pair, turn.place, 0) for pair in zip(kept, here, strict=True)]
        return turn.state, kept, turn.over

    first = begin(given)
    kept = [jnp.zeros((places, *v.shape), v.dtype) for v in _kept(loop["begin"], loop["step"])]
    return jax.lax.while_loop(lambda carry: ~carry[2], turned, (first, kept, jnp.zeros((), bool)))[1]


lanes_p.def_impl(_alone)
mlir.register_lowering(lanes_p, mlir.lower_fun(_alone, multiple_results=True))


def _tangents(primals: Sequence[Any], tangents: Sequence[Any], **loop: Any) -> tuple[list[Any], list[Any]]:
    moves = [type(tangent) is not ad.Zero for tangent in tangents]

    def moved(*these: Any) -> list[Any]:
        rest = iter(these)
        return _alone(*(next(rest) if m else v for v, m in zip(primals, moves, strict=True)), **loop)

    at, along = ([v for v, m in zip(values, moves, strict=True) if m] for values in (primals, tangents))
    kept, changes = jax.jvp(moved, at, along)
    return kept, [
        ad.Zero(jax.typeof(v).to_tangent_aval()) if change.dtype == jax.dtypes.float0 else change
        for v, change in zip(kept, changes, strict=True)
    ]


ad.primitive_jvps[lanes_p] = _tangents


def _together(given: Sequence[Any], axes: Sequence[int | None], **loop: Any) -> tuple[list[Any], list[int]]:
    """What all members keep, with their number leading. axes: of each that is given, the one along which they differ."""
    begin, step, places = _loop(**loop)
    given = [v if axis is None else jnp.moveaxis(v, axis, 0) for v, axis in zip(given, axes, strict=True)]
    differ = [axis is not None for axis in axes]
    size = next(v.shape[0] for v, d in zip(given, differ, strict=True) if d)
    leading = [0 if d else None for d in differ]
    begins = jax.vmap(begin, in_axes=(leading,), axis_size=size)(given)
    steps = jax.vmap(step, in_axes=(leading, 0))

    def of(member: jax.Array) -> list[jax.Array]:
        return [_of(v, member) for v, d in zip(given, differ, strict=True) if d]

    def merged(own: list[jax.Array]) -> list[jax.Array]:
        rest = iter(own)
        return [next(rest) if d else v for v, d in zip(given, differ, strict=True)]

    def all_step(lanes: _Lanes) -> _Lanes:
        turn = steps(merged(lanes.own), lanes.state)
        kept = _with(lanes.kept, (jnp.where(turn.ends, lanes.member, size), turn.place), turn.kept)
        member = jnp.where(turn.over, lanes.waiting + jnp.cumsum(turn.over) - 1, lanes.member)

        def refilled() -> tuple[Any, Any]:
            fresh = [_of(v, member) for v in begins]
            state = [jnp.where(_beside(turn.over, old), new, old) for new, old in zip(fresh, turn.state, strict=True)]
            return of(member), state

        own, state = jax.lax.cond(turn.over.any(), refilled, lambda: (lanes.own, turn.state))
        return _Lanes(member, own, state, lanes.waiting + turn.over.sum(), kept)

    first = jnp.arange(-(-size // _SHARE))
    kept = [jnp.zeros((size, places, *v.shape), v.dtype) for v in _kept(loop["begin"], loop["step"])]
    start = _Lanes(first, of(first), [_of(v, first) for v in begins], jnp.asarray(len(first)), kept)
    kept = jax.lax.while_loop(lambda lanes: (lanes.member < size).any(), all_step, start).kept
    return kept, [0] * len(kept)


batching.primitive_batchers[lanes_p] = _together


def _with(kept: list[Any], at: Any, new: list[Any]) -> list[Any]:
    """What is kept with new ones at these places, but for those beyond the last."""
    return [every.at[at].set(one, mode="drop") for every, one in zip(kept, new, strict=True)]


def _of(leaf: jax.Array, member: jax.Array) -> jax.Array:
    return leaf.at[member].get(mode="clip")


def _beside(flags: jax.Array, like: jax.Array) -> jax.Array:
    return flags.reshape(-1, *[1] * (like.ndim - 1))
