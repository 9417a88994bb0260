"""Rows in blocks: sums, fits and EM from an iterator, against those of all rows at once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moejax
from moejax import Status, _rows, experts, families, gates
from moejax._rows import Block, block_size, lay
from moejax.solvers._iterations import EM
from moejax.solvers._sums import prepared

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(0)
N, D, K = 90, 3, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)) + np.array([0, 2, -1])
SIGNAL = np.where(X[:, 0] > 0, 1.5 * (X[:, 1] - 2), 1 - X[:, 2])
Y = {
    "gaussian": SIGNAL + 0.3 * RNG.normal(size=N),
    "poisson": RNG.poisson(np.exp(0.5 * SIGNAL)).astype(float),
    "student_t": SIGNAL + 0.3 * RNG.standard_t(3, size=N),
}
FAMILIES = {"gaussian": families.gaussian(), "poisson": families.poisson(), "student_t": families.student_t(4)}
GATES = {"softmax": gates.softmax(), "gaussian": gates.gaussian(), "hierarchical": gates.hierarchical((2, (0, 1)))}
WEIGHTS = (RNG.integers(0, 4, N) / 2).astype(float)
OFFSET = 0.3 * np.sin(np.arange(N))
GROUPS = np.arange(N) // 7 % 8  # each of rows far apart, so that it spans blocks
SHARES = RNG.dirichlet([2.0] * K, N)
GIVEN = {
    "plain": {},
    "weights, offset": {"weights": WEIGHTS, "offset": OFFSET},
    "weights, groups": {"weights": WEIGHTS[GROUPS], "groups": GROUPS},
    "all": {"weights": WEIGHTS[GROUPS], "offset": OFFSET, "groups": GROUPS},
}
HYPER = {"l1_experts": 0.0, "l2_experts": 0.01, "l1_gate": 0.0, "l2_gate": 0.01, "restart": 0}
BLOCKS = [17, 30, 89]  # the last block is filled up in the first case, and is nearly empty in the last


@functools.cache
def fit_of(gate, family, block=None, **more):
    model = moejax.moe(experts.linear(), GATES[gate], K, family=FAMILIES[family])
    return dataclasses.replace(moejax.fit_em(model, **more), block_size=block)


def leaders(groups):
    return None if groups is None else np.unique(groups, return_index=True)[1][groups].astype(np.int32)


def task_of(fit, family, given):
    """A task that begins with responsibilities, for compiled code. Its sums are about the means of X, whatever fills up."""
    arrays = [None if given.get(name) is None else jnp.asarray(given[name]) for name in ("weights", "offset")]
    leader = leaders(given.get("groups"))
    leader = None if leader is None else jnp.asarray(leader)
    laid = fit.laid(jnp.asarray(X), jnp.asarray(Y[family]), *arrays, leader, jnp.asarray(SHARES))
    _, task = fit.descent(KEY, {name: jnp.asarray(v) for name, v in HYPER.items()}, *laid)
    means = jnp.asarray(X.mean(axis=0, keepdims=True))
    whole = task.inputs is not None
    return task._replace(means=means, inputs=prepared(fit.model, task.rows.first.x, means, keep=True) if whole else None)


def iterated(fit, family, given, steps):
    """Sums and states of each of some iterations."""

    @jax.jit
    def run():
        task = task_of(fit, family, given)
        solver = EM(fit, task.params)
        state, seen = solver.init(task), []
        for _ in range(steps):
            sums = task.rows.sum(solver.ask(task, state))
            state = solver.update(task, state, sums)
            seen.append((sums, state))
        return seen

    return run()


def assert_same(got, want, rtol):
    """Equal to a share of the largest number of an array: the others are differences of numbers of its size."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, path
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), err_msg=str(path))
        size = np.abs(b[np.isfinite(b)]).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(size, 1), err_msg=str(path))


# ---- sums ---------------------------------------------------------------------------------------------------------------


CASES = [  # every gate, family and case
    ("softmax", "gaussian", "all"),
    ("gaussian", "poisson", "weights, offset"),
    ("hierarchical", "student_t", "all"),
]


@pytest.mark.parametrize(("gate", "family", "case"), CASES)
def test_sums_and_m_steps_are_the_same_in_one_block_or_in_many(gate, family, case):
    whole = iterated(fit_of(gate, family), family, GIVEN[case], 1)
    for block in BLOCKS[:2] if gate == "softmax" else BLOCKS[:1]:
        for (sums, state), (want_sums, want_state) in zip(
            iterated(fit_of(gate, family, block), family, GIVEN[case], 1), whole, strict=True
        ):
            assert_same(sums, want_sums, 1e-10)
            assert_same(state, want_state, 1e-10)


@pytest.mark.parametrize("case", ["weights, groups"])
def test_later_sums_are_the_same_too(case):
    """Of responsibilities that follow from params."""
    whole = iterated(fit_of("softmax", "gaussian"), "gaussian", GIVEN[case], 3)
    blocks = iterated(fit_of("softmax", "gaussian", 17), "gaussian", GIVEN[case], 3)
    for (sums, _), (want, _) in zip(blocks, whole, strict=True):
        assert_same(sums, want, 1e-9)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 60), block=st.integers(1, 60), numpy=st.booleans(), seed=st.integers(0, 99))
def test_sums_over_laid_rows_are_those_over_rows(n, block, numpy, seed):
    """Whatever the number of rows and of those in a block, of arrays of NumPy and of JAX."""
    rng = np.random.default_rng(seed)
    x, y, weights, division = rng.normal(size=(n, 2)), rng.normal(size=n), rng.uniform(1, 2, n), rng.random((n, 3))
    leader = (np.arange(n) // 3 * 3).astype(np.int32)
    arrays = (x, y, weights, y + 1, leader, division)
    rows = lay(*(arrays if numpy else map(jnp.asarray, arrays)), block)
    assert rows.n_blocks == -(-rows.size // block)

    def sums(b):
        units = b.units
        one = b.weights > 0
        found = b.weights @ b.x, b.weights @ (b.y * b.offset), b.division @ b.weights, units @ b.y, one.sum()
        return tuple(jnp.asarray(v, float) for v in found)

    units = np.where(leader == np.arange(n), weights, 0)
    want = weights @ x, weights @ (y * (y + 1)), weights @ division, units @ y, n
    for a, b in zip(rows.sum(sums), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    each = np.asarray(rows.map(lambda b: b.y)).ravel()
    np.testing.assert_array_equal(each[:n], y)
    assert np.isin(each, y).all()  # what fills up copies a real row


def test_blocks_are_for_large_tables():
    for dtype in (np.float32, np.float64):
        assert block_size(1000, 11, 36, dtype) == 0
        size = block_size(10**7, 11, 36, dtype)
        assert 128 <= size < 10**5
        assert block_size(10**8, 11, 36, dtype) == size  # by the width of the rows, not by how many there are


# ---- fits ---------------------------------------------------------------------------------------------------------------


def fitted(fit, family, given, **more):
    return jax.tree.map(np.asarray, fit(KEY, X, Y[family], HYPER, **given, **more))


@pytest.mark.parametrize(
    ("gate", "family", "case"),
    [
        ("softmax", "gaussian", "all"),
        ("gaussian", "student_t", "weights, offset"),
    ],
)
def test_a_fit_in_blocks_ends_at_the_same_optimum(gate, family, case):
    whole = fitted(fit_of(gate, family, tol=1e-10), family, GIVEN[case], start=SHARES)
    assert whole.status & Status.CONVERGED
    for block in BLOCKS[:1]:
        got = fitted(fit_of(gate, family, block, tol=1e-10), family, GIVEN[case], start=SHARES)
        assert got.status == whole.status
        assert got.objective == pytest.approx(whole.objective, rel=1e-9)
        assert got.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-9)
        assert got.classified == pytest.approx(whole.classified, rel=1e-7)
        assert_same(got.params, whole.params, 1e-7)  # where the objective is flat to 1e-14


@pytest.mark.parametrize("init", ["random"])
def test_a_drawn_start_is_the_same_in_blocks(init):
    """Those that look for clusters see some rows of each block, and are others."""
    for restart in range(2):
        hyper = {**HYPER, "restart": restart}
        whole, blocks = (fit_of("softmax", "gaussian", block, init=init) for block in (None, 17))
        a, b = (fit(KEY, X, Y["gaussian"], hyper, weights=WEIGHTS) for fit in (whole, blocks))
        assert float(b.objective) == pytest.approx(float(a.objective), rel=1e-9)


@pytest.mark.parametrize("init", ["kmeans"])
def test_clusters_in_blocks_are_starts_too(init):
    fit = fit_of("softmax", "gaussian", 17, init=init)
    got = [fit(KEY, X, Y["gaussian"], {**HYPER, "restart": r}, weights=WEIGHTS) for r in range(3)]
    whole = [fit_of("softmax", "gaussian", None, init=init)(KEY, X, Y["gaussian"], HYPER, weights=WEIGHTS)]
    assert all(f.status & Status.CONVERGED for f in got)
    assert min(float(f.objective) for f in got) < float(whole[0].objective) + 0.2


# ---- EM from a plain iterator -----------------------------------------------------------------------------------------


def blocks_of(family, weights, offset, leader, division, size):
    """Blocks made by hand, one after another, of which the last is shorter than the others."""
    for start in range(0, N, size):
        cut = slice(start, start + size)
        yield Block(
            jnp.asarray(X[cut]),
            jnp.asarray(Y[family][cut]),
            jnp.asarray(weights[cut] / weights.sum()),
            None if offset is None else jnp.asarray(offset[cut]),
            None if leader is None else jnp.asarray(leader[cut]),
            jnp.asarray(division[cut].T),
            None if leader is None else jnp.arange(N, dtype=jnp.int32)[cut],
        )


@pytest.mark.parametrize(
    ("gate", "family", "case"),
    [
        ("softmax", "poisson", "all"),
        ("gaussian", "gaussian", "weights, offset"),
    ],
)
def test_em_from_an_iterator_over_blocks_is_the_call(gate, family, case):
    """What an iteration asks of a block are sums: added up from wherever blocks come, they give the fit of the call."""
    fit, more = fit_of(gate, family, 17, tol=1e-10), GIVEN[case]
    call = fitted(fit, family, more, start=SHARES)
    task = jax.jit(lambda: task_of(fit, family, more))()
    solver = EM(fit, task.params)
    weights, leader = more.get("weights", np.ones(N)), leaders(more.get("groups"))
    division = SHARES if leader is None else SHARES[leader]
    ask = jax.jit(lambda task, state, block: solver.ask(task, state)(block))
    update, done = jax.jit(solver.update), jax.jit(solver.done)
    state = solver.init(task)
    while not done(state):
        sums = None
        for block in blocks_of(family, weights, more.get("offset"), leader, division, 13):
            own = ask(task, state, block)
            sums = own if sums is None else jax.tree.map(jnp.add, sums, own)
        state = update(task, state, sums)
    got = jax.tree.map(np.asarray, jax.jit(lambda end: solver.finish(task, end))(solver.end(state)))
    assert got.status == call.status
    assert got.status & Status.CONVERGED
    assert got.objective == pytest.approx(call.objective, rel=1e-9)
    assert got.log_likelihood == pytest.approx(call.log_likelihood, rel=1e-9)
    assert_same(got.params, call.params, 1e-7)
    np.testing.assert_allclose(got.history[0], call.history[0], rtol=1e-9)


# ---- gradients and predictions in blocks ---------------------------------------------------------------------------------

LOSSES = {
    "nll": moejax.losses.nll(),
    "squared error": moejax.losses.squared_error(),
    "balanced importance": moejax.losses.balanced(moejax.losses.nll(), kind="importance", weight=0.3),
    "balanced load": moejax.losses.balanced(moejax.losses.squared_error(), kind="load", weight=0.3),
    "held": moejax.losses.complete_nll(),
    "held squares": moejax.losses.complete_squared_error(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_mean_loss_and_its_gradient_are_those_of_all_rows(name):
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    start = model.init(KEY, X) if "held" not in name else SHARES

    def told(block):
        fit = moejax.fit_gradient(model, LOSSES[name], "accelerated", steps=2, block_size=block)
        got = fit(KEY, X, Y["gaussian"], {"l1_experts": 0.01}, weights=WEIGHTS, offset=OFFSET, start=start)
        return got._replace(history=None)

    whole = told(None)
    for block in BLOCKS[:1]:
        assert_same(told(block), whole, 1e-9)


def test_only_sums_go_in_blocks():
    """Groups, minibatches, and a loss that is no function of sums take all rows as one block."""
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    x, y, leader = jnp.asarray(X), jnp.asarray(Y["gaussian"]), jnp.asarray(leaders(GROUPS))

    class Own(moejax.losses.Loss):
        def value(self, model, params, data, weights):
            return jnp.median(data.y)

    for fit, given_leader, count in [
        (moejax.fit_gradient(model, block_size=30), None, 3),
        (moejax.fit_gradient(model, moejax.losses.nll(), block_size=30), leader, 1),
        (moejax.fit_gradient(model, batch_size=10, block_size=30), None, 1),
        (moejax.fit_gradient(model, Own(), block_size=30), None, 1),
    ]:
        assert fit.laid(x, y, None, None, given_leader, None)[0].n_blocks == count


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "in a program"])
def test_predictions_in_blocks_are_those_of_each_row(traced, monkeypatch):
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    params = model.init(KEY, X)
    calls = {
        "predict": (X, OFFSET),
        "expert_predictions": (X, OFFSET),
        "gate_probs": (X,),
        "log_prob": (X, Y["gaussian"], OFFSET),
        "responsibilities": (X, Y["gaussian"], OFFSET),
    }
    for name, rows in calls.items():
        method = functools.partial(getattr(model, name), params)
        want = method(*rows)
        with monkeypatch.context() as patch:
            patch.setattr(_rows, "block_size", lambda *_: 17)
            got = jax.jit(lambda *rows, method=method: method(*rows))(*rows) if traced else method(*rows)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_predictions_in_blocks_take_params_that_are_traced_and_offsets_of_one_number(monkeypatch):
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    params, y = model.init(KEY, X), Y["gaussian"]
    want = model.predict(params, X, 0.5)
    size = len(jax.make_jaxpr(lambda params: model.log_prob(params, X, y))(params).eqns)
    monkeypatch.setattr(_rows, "block_size", lambda *_: 4)  # 22 blocks and a rest
    np.testing.assert_allclose(model.predict(params, X, 0.5), want, rtol=1e-12)
    traced = jax.make_jaxpr(lambda params: model.log_prob(params, X, y))(params)
    assert len(traced.eqns) < 3 * size  # a loop, and the rest
