"""Loops that end at different times, beside each other: against what each does alone, written down in Python."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.solvers import _lanes

STARTS = np.asarray([6, 1, 27, 2, 97, 3, 7], np.int32)
PLACES = 3


def collatz(number):
    """The numbers at which the sequence from there (half an even one, 3 n + 1 of an odd one) first is below 10, 5 and 2."""
    below, steps = [], 0
    for bound in (10, 5, 2):
        while number >= bound:
            number, steps = (number // 2 if number % 2 == 0 else 3 * number + 1), steps + 1
        steps += 1  # that it is seen takes a step
        below.append([number, steps])
    return below


def begin(given):
    start, _ = given
    return start, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)


def step(given, state):
    _, bounds = given
    number, place, steps = state
    ends = number < bounds[place]
    following = jnp.where(number % 2 == 0, number // 2, 3 * number + 1)
    state = jnp.where(ends, number, following), place + ends, steps + 1
    return _lanes.Turn(state, ends, place, jnp.stack([number, steps + 1]), place + ends == PLACES)


LOOP = _lanes.Loop(begin, step, PLACES)
BOUNDS = jnp.asarray([10, 5, 2])


@jax.jit
def of_all(starts, bounds):
    return jax.vmap(lambda start: _lanes.run(LOOP, (start, bounds)))(starts)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_members_in_lanes_end_as_each_does_alone(count):
    wanted = [collatz(int(start)) for start in STARTS[:count]]
    np.testing.assert_array_equal(of_all(STARTS[:count], BOUNDS), wanted)
    np.testing.assert_array_equal(of_all(STARTS[:count][::-1], BOUNDS), wanted[::-1])
    np.testing.assert_array_equal(_lanes.run(LOOP, (jnp.asarray(STARTS[0]), BOUNDS)), wanted[0])


def test_all_that_members_are_given_may_differ_and_maps_nest():
    bounds = jnp.asarray([[10, 5, 2], [10, 10, 10]])
    each = jax.vmap(lambda bounds: of_all(STARTS, bounds))(bounds)
    np.testing.assert_array_equal(each[0], of_all(STARTS, BOUNDS))
    assert (each[1][:, 1, 0] == each[1][:, 0, 0]).all()
    both = jax.jit(jax.vmap(lambda start, bounds: _lanes.run(LOOP, (start, bounds))))
    np.testing.assert_array_equal(both(STARTS[:2], bounds), jnp.stack([each[0][0], each[1][1]]))
    only = jax.vmap(lambda bounds: _lanes.run(LOOP, (jnp.asarray(STARTS[2]), bounds)))(bounds)
    np.testing.assert_array_equal(only, each[:, 2])


def test_nobody_waits_for_a_slow_member_but_at_the_end():
    calls = []

    def counted(total, i):
        jax.debug.callback(lambda _: calls.append(1), i)
        return _lanes.Turn(i + 1, i + 1 == total, jnp.zeros((), int), total, i + 1 == total)

    loop = _lanes.Loop(lambda total: jnp.zeros((), int), counted, 1)
    lengths = jnp.asarray([10, 1, 1, 10])
    kept = jax.jit(jax.vmap(partial(_lanes.run, loop)))(lengths)
    jax.effects_barrier()
    np.testing.assert_array_equal(kept[:, 0], lengths)
    # Of two lanes the second has three members, of 12 steps; two after two would take 20, and all at once 4 x 10.
    assert len(calls) == 2 * 12


# ---- as any other loop --------------------------------------------------------------------------------------------------

LENGTHS = jnp.asarray([3, 5, 2, 4])


def power(base, length, scale=1.0):
    """scale * base ** length, by a loop that closes over the base, and the length, which is no number to differentiate."""

    def multiplied(given, state):
        product, count = state[0] * base, state[1] + 1
        return _lanes.Turn((product, count), count == length, 0, (given * product, length), count == length)

    loop = _lanes.Loop(lambda given: (jnp.ones_like(base), jnp.zeros((), int)), multiplied, 1)
    return _lanes.run(loop, jnp.asarray(scale))[0][0]


def slope(base, length):
    return length * base ** (length - 1)


@pytest.mark.parametrize("jit", [False, True])
def test_members_may_differ_in_what_is_closed_over(jit):
    bases = jnp.asarray([2.0, 1.5, 3.0, 0.5])
    each = jax.vmap(power)
    np.testing.assert_allclose((jax.jit(each) if jit else each)(bases, LENGTHS), bases**LENGTHS)
    np.testing.assert_allclose(jax.vmap(power, in_axes=(0, None))(bases, 3), bases**3)
    np.testing.assert_allclose(jax.vmap(power, in_axes=(None, 0))(2.0, LENGTHS), 2.0**LENGTHS)
    np.testing.assert_allclose(jax.vmap(power, in_axes=(None, None, 0))(2.0, 3, bases), 8 * bases)


def test_derivatives_and_maps_go_in_any_order():
    bases = jnp.asarray([2.0, 1.5, 3.0, 0.5])

    def changed(base, length):
        return jax.jvp(lambda b: power(b, length), (base,), (1.0,))

    for each in (jax.vmap(changed), jax.jit(jax.vmap(changed))):
        at, change = each(bases, LENGTHS)
        np.testing.assert_allclose(at, bases**LENGTHS)
        np.testing.assert_allclose(change, slope(bases, LENGTHS), rtol=1e-6)
    _, change = jax.jvp(lambda b: jax.vmap(power)(b, LENGTHS), (bases,), (jnp.ones(4),))
    np.testing.assert_allclose(change, slope(bases, LENGTHS), rtol=1e-6)
    shared = jax.vmap(lambda length: changed(2.0, length)[1])(LENGTHS)
    np.testing.assert_allclose(shared, slope(2.0, LENGTHS), rtol=1e-6)
    twice = jax.vmap(jax.jacfwd(jax.jacfwd(power)), in_axes=(0, None))(bases, 3)
    np.testing.assert_allclose(twice, 6 * bases, rtol=1e-6)
    np.testing.assert_allclose(jax.linearize(lambda b: power(b, 3), 2.0)[1](1.0), 12, rtol=1e-6)


def test_what_is_not_differentiated_stands_beside_what_is():
    value = jax.grad(lambda b: b**2 + jax.lax.stop_gradient(power(b, 3)))(2.0)
    assert value == 4
    (_, beside), own = jax.value_and_grad(lambda b: (b**2, power(b, 3)), has_aux=True)(2.0)
    assert (beside, own) == (8, 4)
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda b: power(b, 3))(2.0)


# ---- what goes round ------------------------------------------------------------------------------------------------------


def test_state_and_ends_may_be_of_any_types_and_shapes():
    """Arrays of several types and shapes, none of them changed on their way round, in the order in which they came."""

    def first(given):
        return {
            "none": jnp.zeros((0, 2)),
            "flags": jnp.asarray([[True], [False]]),
            "half": given.astype(jnp.bfloat16),
            "step": 0,
        }

    def after(given, state):
        one = {**state, "flags": ~state["flags"], "half": state["half"] * 2, "step": state["step"] + 1}
        over = one["step"] == 3
        kept = (one["flags"], one["none"], {"half": one["half"], "given": given, "even": one["step"] % 2 == 0})
        return _lanes.Turn(one, one["step"] > 1, one["step"] - 2, kept, over)

    def ends(given):
        return _lanes.run(_lanes.Loop(first, after, 2), given)

    given = jnp.asarray([[1.5, -3.0], [0.25, 7.0], [1.0, 1.0]])
    for flags, none, rest in (jax.vmap(ends)(given), jax.tree.map(lambda *v: jnp.stack(v), *map(ends, given))):
        np.testing.assert_array_equal(flags, [[[[True], [False]], [[False], [True]]]] * 3)
        assert flags.dtype == rest["even"].dtype == bool
        assert none.shape == (3, 2, 0, 2)
        assert rest["half"].dtype == jnp.bfloat16
        np.testing.assert_array_equal(rest["half"].astype(float), np.stack([4 * given, 8 * given], axis=1))
        np.testing.assert_array_equal(rest["given"], np.stack([given, given], axis=1))
        np.testing.assert_array_equal(rest["even"], [[True, False]] * 3)
