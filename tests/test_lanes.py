"""Loops that end at different times, beside each other: against what each does alone, written down in Python."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax import _lanes

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
        calls.append(1)
        return _lanes.Turn(i + 1, i + 1 == total, jnp.zeros((), int), total, i + 1 == total)

    loop = _lanes.Loop(lambda total: jnp.zeros((), int), counted, 1)
    lengths = jnp.asarray([10, 1, 1, 10])
    with jax.disable_jit():
        kept = jax.vmap(partial(_lanes.run, loop))(lengths)
    np.testing.assert_array_equal(kept[:, 0], lengths)
    # Of two lanes the second has three members, of 12 steps; two after two would take 20. Few calls more ask for shapes.
    assert 12 <= len(calls) <= 15
