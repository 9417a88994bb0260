"""Penalties: proximal steps against minimisation by brute force, critical weights, and what is refused."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax import penalties

pytestmark = pytest.mark.usefixtures("float64")

SINGLE = {
    "l1": penalties.l1("experts"),
    "l2": penalties.l2("gate"),
    "elastic_net": penalties.elastic_net("gate", 0.3),
}
COUPLED = {
    "group": penalties.group("experts"),
    "columns": penalties.group_columns("experts", [[3, 0], np.array([2])]),
}
EVERY = SINGLE | COUPLED
MIXED = {name: dataclasses.replace(p, part="gate") for name, p in EVERY.items()}
every_penalty = pytest.mark.parametrize("name", EVERY)
three_axes = pytest.mark.parametrize("shape", [(2, 5, 2)])
every_shape = pytest.mark.parametrize("shape", [(3, 4), (2, 5, 2)])


def norm(v):
    return np.sqrt(np.square(v).sum())


def by_hand(name, c):
    """The value of each penalty above, in NumPy."""
    if name == "group":
        return sum(norm(c[:, j]) for j in range(c.shape[1]))
    if name == "columns":
        return sum(np.sqrt(2) * norm(c[k, [0, 3]]) + norm(c[k, 2]) for k in range(c.shape[0]))
    sizes, squares = np.abs(c).sum(), np.square(c).sum()
    return {"l1": sizes, "l2": squares, "elastic_net": 0.3 * sizes + 0.35 * squares}[name]


def tries(rng, c):
    """Points around c: near and far, along single coefficients, and with whole columns or single coefficients at 0."""
    for scale in (1e-4, 1e-2, 0.3):
        for _ in range(40):
            yield c + scale * rng.normal(size=c.shape)
            yield c + scale * rng.normal() * (rng.random(c.shape) < 0.2)
            yield c * (1 + scale * rng.normal())
            yield c * (rng.random(c.shape) < 0.8)
            yield c * (rng.random((1, *c.shape[1:2], *[1] * (c.ndim - 2))) < 0.8)


def assert_arg_min(c, got, value, rng):
    def objective(v):
        return value(v) + np.square(v - c).sum() / 2

    best = objective(got)
    for v in tries(rng, got):
        assert objective(v) >= best - 1e-12


# ---- values and proximal steps --------------------------------------------------------------------------------------


@every_penalty
@every_shape
def test_values_are_those_by_hand_and_their_slopes_are_finite(name, shape):
    c = np.random.default_rng(0).normal(size=shape)
    c[:, 0], c[0, 1:] = 0, 0
    value, slope = EVERY[name].value, jax.grad(lambda v: EVERY[name].value([v, 2 * v]))(jnp.asarray(c))
    assert float(value([jnp.asarray(c), jnp.asarray(2 * c)])) == pytest.approx(by_hand(name, c) + by_hand(name, 2 * c))
    assert value([]) == 0
    assert np.isfinite(slope).all()
    assert not np.asarray(slope)[:, 0].any() or name == "columns"  # where it shares a group with what is not 0
    assert not np.asarray(jax.grad(lambda v: value([v]))(jnp.zeros(shape))).any()
    for index in zip(*np.nonzero(c), strict=True):
        ends = []
        for step in (1e-6, -1e-6):
            moved = c.copy()
            moved[index] += step
            ends.append(by_hand(name, moved) + by_hand(name, 2 * moved))
        assert float(slope[index]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-8)


@every_penalty
@every_shape
@pytest.mark.parametrize("t", [0.1, 1.0])
def test_proximal_steps_are_the_arg_min(name, shape, t):
    rng = np.random.default_rng(1)
    c = rng.normal(size=shape)
    (got,) = EVERY[name].prox([jnp.asarray(c)], t)
    assert_arg_min(c, np.asarray(got), lambda v: t * by_hand(name, v), rng)


ORDERS = {
    "sparse group lasso with ridge": ("l1", "group", "l2"),
    "sparse columns with ridge": ("l1", "columns", "l2"),
    "lasso and elastic net": ("l1", "elastic_net"),
}


@pytest.mark.parametrize("order", ORDERS)
@three_axes
@pytest.mark.parametrize("t", [0.1, 0.6])
def test_proximal_steps_in_order_are_that_of_the_sum(order, shape, t):
    rng = np.random.default_rng(2)
    c = rng.normal(size=shape)
    weights = dict(zip(ORDERS[order], (0.5, 1.0, 0.4), strict=False))
    (got,) = penalties.stepped([jnp.asarray(c)], [(EVERY[name], w) for name, w in weights.items()], t)
    assert_arg_min(c, np.asarray(got), lambda v: t * sum(w * by_hand(name, v) for name, w in weights.items()), rng)


@every_penalty
def test_proximal_steps_bring_points_no_further_apart(name):
    rng = np.random.default_rng(3)
    for t in (0.3, 2.0):
        a, b = rng.normal(size=(2, 50, 3, 4))
        (after_a,), (after_b,) = (jax.vmap(lambda v, t=t: EVERY[name].prox([v], t))(v) for v in (a, b))
        apart = np.square(after_a - after_b).sum(axis=(1, 2))
        assert (apart <= np.square(a - b).sum(axis=(1, 2)) + 1e-12).all()


@every_penalty
@three_axes
def test_a_step_of_zero_moves_nothing_and_one_of_infinity_leaves_nothing(name, shape):
    c = np.random.default_rng(4).normal(size=shape)
    c[:, 1] = 0
    penalised = np.ones(shape, bool)
    if name == "columns":
        penalised[:, [j for j in range(shape[1]) if j not in (0, 2, 3)]] = False
    for zero in (0, np.zeros(shape)):
        np.testing.assert_array_equal(EVERY[name].prox([jnp.asarray(c)], zero)[0], c)
    for huge in (np.inf, np.full(shape, np.inf)):
        np.testing.assert_allclose(EVERY[name].prox([jnp.asarray(c)], huge)[0], np.where(penalised, 0, c), atol=1e-290)


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("shape", [(4,), (2, 3, 2, 2)])
def test_single_coefficients_may_have_any_shape_and_steps_of_their_own(name, shape):
    rng = np.random.default_rng(5)
    c, t = rng.normal(size=shape), rng.exponential(size=shape)
    (got,) = EVERY[name].prox([jnp.asarray(c)], jnp.asarray(t))
    for index in np.ndindex(shape):
        (want,) = EVERY[name].prox([jnp.asarray(c[index])], t[index])
        assert float(got[index]) == pytest.approx(float(want), rel=1e-14)


@three_axes
def test_groups_may_have_steps_of_their_own(shape):
    rng = np.random.default_rng(6)
    c = jnp.asarray(rng.normal(size=shape))
    tail = (1,) * (len(shape) - 2)
    for name, steps in (("group", (1, shape[1], *tail)), ("columns", (shape[0], 1, *tail))):
        t = rng.exponential(0.5, size=steps)
        (got,) = EVERY[name].prox([c], jnp.asarray(t))
        (full,) = EVERY[name].prox([c], jnp.broadcast_to(t, shape))
        np.testing.assert_array_equal(got, full)
        axis = 1 if name == "group" else 0
        for i in range(shape[axis]):
            (want,) = EVERY[name].prox([c], t.ravel()[i])
            np.testing.assert_allclose(got.take(i, axis), want.take(i, axis), rtol=1e-13)


@pytest.mark.parametrize(("ratio", "like"), [(0, "l2"), (1, "l1")])
def test_the_elastic_net_lies_between_ridge_and_lasso(ratio, like):
    c, g = [jnp.asarray(np.random.default_rng(10).normal(size=(3, 4)))], [jnp.ones((3, 4))]
    net, other, share = penalties.elastic_net("gate", ratio), EVERY[like], 1 if ratio else 0.5
    assert float(net.value(c)) == pytest.approx(share * float(other.value(c)), rel=1e-14)
    assert net.critical(g) == other.critical(g)
    for t in (0.4, np.inf):
        np.testing.assert_allclose(net.prox(c, t)[0], other.prox(c, share * t)[0], rtol=1e-14)


def test_groups_leave_whole():
    c = jnp.asarray(np.random.default_rng(7).normal(size=(3, 6)))
    (got,) = penalties.group("gate").prox([c], float(np.median(np.linalg.norm(c, axis=0))))
    gone = np.asarray(got == 0)
    assert (gone.all(axis=0) == gone.any(axis=0)).all()
    assert gone.all(axis=0).sum() == 3
    columns = penalties.group_columns("gate", [[0, 1], [2, 3, 4]])
    assert columns.blocks == ((0, 1), (2, 3, 4))
    (got,) = columns.prox([c], 0.9)
    gone = np.asarray(got == 0)
    assert (gone[:, 0] == gone[:, 1]).all()
    assert (gone[:, 2:5].all(axis=1) == gone[:, 2:5].any(axis=1)).all()
    assert 0 < gone[:, :5].sum() < 15
    np.testing.assert_array_equal(got[:, 5], c[:, 5])


# ---- what solvers ask -----------------------------------------------------------------------------------------------


@every_penalty
@three_axes
def test_zero_is_optimal_from_the_critical_weight_on(name, shape):
    g = np.random.default_rng(8).normal(size=shape)
    if name == "columns":
        g[:, [j for j in range(shape[1]) if j not in (0, 2, 3)]] = 0
    gradients, zeros = [jnp.asarray(g), jnp.asarray(0.5 * g)], [jnp.zeros(shape)] * 2
    critical = float(EVERY[name].critical(gradients))
    assert np.isinf(critical) == (name == "l2")
    if np.isfinite(critical):
        assert penalties.kkt(zeros, gradients, [(EVERY[name], critical * (1 + 1e-12))]) == 0
        assert penalties.kkt(zeros, gradients, [(EVERY[name], critical * 0.99)]) > 1e-3
        assert EVERY[name].critical([]) == 0


def test_kkt_is_the_move_of_a_step():
    c, g = jnp.array([[1.0, -0.5, 0.0]]), jnp.array([[-0.2, 0.1, 0.15]])
    moves = penalties.kkt([c], [g], [(penalties.l1("experts"), 0.2)])
    assert float(moves) == pytest.approx(0.1, rel=1e-12)  # of the second coefficient: 0.1 of 0.2
    assert float(penalties.kkt([c], [g])) == pytest.approx(0.2, rel=1e-12)
    assert penalties.kkt([], []) == 0


@every_penalty
@every_shape
def test_majorants_are_the_smallest_that_are_constant_over_what_is_coupled(name, shape):
    h = np.random.default_rng(9).exponential(size=shape)
    want = h.copy()
    if name == "group":
        want = np.broadcast_to(h.max(axis=(0, *range(2, h.ndim)), keepdims=True), shape)
    if name == "columns":
        for k in range(shape[0]):
            want[k, [0, 3]], want[k, 2] = h[k, [0, 3]].max(), h[k, 2].max()
    np.testing.assert_array_equal(EVERY[name].majorant(jnp.asarray(h)), want)


@every_penalty
def test_penalties_keep_the_precision_of_coefficients(name):
    c, p = jnp.ones((2, 4), jnp.float32), EVERY[name]
    results = (p.value([c]), p.prox([c], 0.1)[0], p.majorant(c), penalties.kkt([c], [c], [(p, 0.1)]))
    assert {v.dtype for v in results} == {jnp.dtype("float32")}
    assert jnp.result_type(p.critical([c]), c) == jnp.float32


def test_penalties_have_names_of_their_own_and_are_hashed_by_what_they_are():
    assert [p.name for p in EVERY.values()] == [
        "l1_experts",
        "l2_gate",
        "elastic_net_gate",
        "group_experts",
        "columns_experts",
    ]
    assert penalties.group_columns("gate", [(0, 1)]) == penalties.group_columns("gate", np.array([[0, 1]]))
    assert len({penalties.elastic_net("gate", ratio) for ratio in (0.5, 0.5, 0.2)}) == 2
    penalties.check_order(penalties.standard())


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda f=f: f("family"), "^part: 'family'") for f in (penalties.elastic_net, penalties.group)),
        (lambda: penalties.group_columns("both", [[0]]), "^part: 'both'"),
        *((lambda r=r: penalties.elastic_net("gate", r), "^l1_ratio: ") for r in (-0.1, 1.1, np.nan)),
        *((lambda g=g: penalties.group_columns("gate", [g]), "^groups: ") for g in ([], [-1], [0.5], 0, [[0, 1]], ["a"])),
        (lambda: penalties.group_columns("gate", []), "^groups: none"),
        (lambda: penalties.group_columns("gate", [[0, 1], [2, 1]]), "^groups: column 1 was given more than once"),
        (lambda: penalties.group("gate").value([jnp.zeros(3)]), r"^group_gate: coefficients of shape \(3,\)"),
        (lambda: penalties.group("gate").prox([jnp.zeros(3)], 1.0), r"^group_gate: coefficients of shape \(3,\)"),
        (lambda: penalties.group_columns("gate", [[1, 7]]).value([jnp.zeros((2, 7))]), "^columns_gate: column 7"),
        (lambda: penalties.group_columns("gate", [[1, 7]]).prox([jnp.zeros((2, 7))], 1.0), "^columns_gate: column 7"),
        *(
            (lambda o=o: penalties.check_order([MIXED[name] for name in o]), "^penalty: .*after")
            for o in (("group", "l1"), ("group", "columns"), ("elastic_net", "l2"), ("elastic_net", "l1"))
        ),
    ],
)
def test_penalties_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()
