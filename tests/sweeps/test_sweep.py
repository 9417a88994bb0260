"""Sweeps against lone fits, NumPy, subsets of rows and closed forms; the same bits however a sweep is run."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import precision

import moejax
from moejax.fit import Status
from moejax.sweeps import _program

N, D, K = 48, 3, 2
RNG = np.random.default_rng(7)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = (np.where(X[:, 0] > 0, 2.0, -1.0) * X[:, 1] + 0.3 * RNG.normal(size=N)).astype(np.float32)
CASES = np.where(np.arange(N) % 9 == 0, 0.0, 1 + np.arange(N) % 3).astype(np.float32)
KEY = jax.random.key(3)
LABELS = np.arange(N) % 4 - 1  # every fourth row is never held out
PENALTIES = [0.0, 0.003, 0.01, 0.03, 0.1]
MODEL = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), K, family=moejax.families.gaussian())
FIT = moejax.fit_gradient(MODEL, steps=15, learning_rate=0.05)
GRID = {"l1_experts": PENALTIES, "restart": 8}
DRAWN = {"fold": LABELS, "bootstrap": 6, "a": [1]}
COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(event) if "backend_compile" in event else None
)


def swept(axes, fit=FIT, key=KEY, x=X, y=Y, weights=None, **options):
    result = moejax.sweep(fit, axes, **({"chunk_size": 8} | options))(key, x, y, weights=weights)
    return result


def bits(result) -> bytes:
    return b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves((result.fits, result.held_out)))


def assert_close(a, b, rtol=2e-4, atol=2e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=rtol, atol=atol), a, b)


def seen(key, x, y, hyper, weights):
    """A user's own function: what it was given."""
    return {"weights": weights, "hyper": hyper}


def scaled(key, x, y, hyper):
    return {"twice": 2 * hyper["a"], "more": (hyper["restart"], jax.random.normal(jax.random.fold_in(key, 1), (3,)))}


@pytest.fixture(scope="module")
def grid():
    return swept(GRID)


# ---- a member is a lone fit -----------------------------------------------------------------------------------------


def test_every_member_is_the_lone_fit(grid):
    assert grid.shape == grid.fits.objective.shape == (5, 8)
    for i, penalty in enumerate(PENALTIES):
        for restart in range(8):
            lone = FIT(KEY, X, Y, {"l1_experts": penalty, "restart": restart})
            assert_close(grid.isel(l1_experts=i, restart=restart).fits, jax.tree.map(np.asarray, lone))
    assert len(np.unique(grid.fits.objective)) == 40  # and so none is compared with a copy of itself


def test_float64_in_threads():
    with precision(True):
        x, y = X.astype(np.float64), Y.astype(np.float64)
        result = swept({"l1_experts": PENALTIES[:2], "restart": 2}, x=x, y=y, chunk_size=1, threads=2)
        lone = FIT(KEY, x, y, {"l1_experts": PENALTIES[1], "restart": 1})
    assert {leaf.dtype for leaf in jax.tree.leaves(result.fits.params)} == {np.dtype(np.float64)}
    assert_close(result.isel(l1_experts=1, restart=1).fits, jax.tree.map(np.asarray, lone), rtol=1e-10, atol=1e-12)


def test_restart_gives_every_penalty_the_same_starts():
    still = moejax.fit_gradient(MODEL, optimizer=optax.sgd(0.0), steps=1)
    params = swept({"l1_experts": [0.0, 0.5], "restart": [5, 0, 2]}, still).fits.params
    for j, restart in enumerate([5, 0, 2]):
        start = jax.jit(MODEL.init)(jax.random.fold_in(KEY, restart), X)
        for i in range(2):
            assert_close(
                jax.tree.map(lambda v, at=(i, j): v[at], params), jax.tree.map(np.asarray, start), rtol=1e-6, atol=1e-7
            )


def test_a_users_own_function():
    result = swept({"a": range(3), "restart": [4, 1]}, scaled)
    np.testing.assert_array_equal(result.fits["twice"], [[0, 0], [2, 2], [4, 4]])
    np.testing.assert_array_equal(result.fits["more"][0], [[4, 1]] * 3)
    assert result.fits["twice"].dtype == np.float32
    assert result.fits["more"][0].dtype == np.int32
    draw = jax.random.normal(jax.random.fold_in(KEY, 1), (3,))
    np.testing.assert_array_equal(result.fits["more"][1], np.broadcast_to(draw, (3, 2, 3)))
    assert result.held_out is None


@pytest.mark.parametrize("kind", [list, tuple, np.array, jnp.asarray, iter, lambda v: range(0, 3, 2)])
def test_axis_values_of_any_kind(kind):
    values = kind([0.0, 2.0])
    result = swept({"a": values, "restart": 1}, scaled)
    np.testing.assert_array_equal(result.axes["a"], [0, 2])
    np.testing.assert_array_equal(result.fits["twice"], [[0], [4]])


def test_inputs_of_several_arrays_and_no_target():
    def total(key, x, y, hyper):
        return x["a"].sum() + hyper["b"] * x["c"][1].sum(), y

    x = {"a": np.arange(4), "c": (np.zeros((4, 2)), np.ones(4))}
    sums, none = swept({"b": [1, 10]}, total, x=x, y=None).fits
    np.testing.assert_array_equal(sums, [10.0, 46.0])
    assert none is None


def test_keys_of_either_kind():
    old = jax.random.wrap_key_data(jax.random.key_data(KEY)), jax.random.key_data(KEY), np.asarray(jax.random.key_data(KEY))
    results = [swept(DRAWN | {"fold": 3}, seen, key=key) for key in (KEY, *old)]
    assert len({bits(r) for r in results}) == 1
    assert bits(swept(DRAWN | {"fold": 3}, seen, key=jax.random.key(4))) != bits(results[0])


# ---- the same bits --------------------------------------------------------------------------------------------------

ARRANGEMENTS = [
    ("reversed", {"l1_experts": PENALTIES[::-1], "restart": list(range(8))[::-1]}, {}),
    ("mixed", {"l1_experts": [0.03, 0.0, 0.1, 0.01, 0.003], "restart": [3, 7, 0, 5, 1, 2, 6, 4]}, {}),
    ("five members, other places in the chunk", {"l1_experts": PENALTIES, "restart": [6]}, {}),
    ("three members", {"l1_experts": [0.01], "restart": [7, 2, 4]}, {}),
    ("one member", {"l1_experts": [0.03], "restart": [5]}, {}),
    ("the first member alone", {"l1_experts": [0.0], "restart": 1}, {}),
    ("more members", {"l1_experts": [*PENALTIES, 0.5], "restart": 9}, {}),
    ("one thread", GRID, {"threads": 1}),
    ("two threads", GRID, {"threads": 2}),
    ("five threads", GRID, {"threads": 5}),
]


@pytest.mark.parametrize(("axes", "options"), [a[1:] for a in ARRANGEMENTS], ids=[a[0] for a in ARRANGEMENTS])
def test_same_bits_however_arranged(grid, axes, options):
    other = swept(axes, **options)
    compared = 0
    for penalty in other.axes["l1_experts"]:
        for restart in other.axes["restart"]:
            if penalty in PENALTIES and restart < 8:
                at = {"l1_experts": penalty, "restart": restart}
                assert bits(other.sel(**at)) == bits(grid.sel(**at)), at
                compared += 1
    assert compared == min(40, other.fits.objective.size)


@pytest.mark.parametrize(
    ("gate", "n_experts", "chunk"),
    [(moejax.gates.softmax(), 3, 32), (moejax.gates.softmax(), 3, 10), (moejax.gates.constant(), 3, 8)],
)  # of which 16, 5 and 4 members run at once
def test_same_bits_in_every_lane(gate, n_experts, chunk):
    model = moejax.moe(moejax.experts.linear(), gate, n_experts, family=moejax.families.gaussian())
    fit, values, restarts = moejax.fit_em(model, max_iter=60), [0.003, 0.01, 0.03, 0.1], list(range(8))
    more = {"l2_gate": [0.01]} if gate == moejax.gates.softmax() else {}
    there = swept({"l1_experts": values, **more, "restart": restarts}, fit, chunk_size=chunk)
    back = swept({"l1_experts": values[::-1], **more, "restart": restarts[::-1]}, fit, chunk_size=chunk)
    for value in values:
        for restart in restarts:
            at = {"l1_experts": value, "restart": restart}
            assert bits(there.sel(**at)) == bits(back.sel(**at)), at


def test_programs_compiled_quickly_reach_the_same(grid):
    before = len(COMPILED)
    quick = swept(GRID, optimize=False)
    assert len(COMPILED) > before  # a program of its own
    assert_close(quick.fits.objective, grid.fits.objective)


TWO_DEVICES = """
import importlib, sys, threading
import jax
jax.config.update("jax_num_cpu_devices", 2)
sys.path[:0] = sys.argv[1:3]
import test_sweep as t
together, used = threading.Barrier(2, timeout=60), set()
original = t._program.Program.__call__
def call(program, values):
    used_here = {d.id for leaf in jax.tree.leaves(program.shared) for d in leaf.devices()}
    if not used_here <= used:
        used.update(used_here)
        together.wait()  # neither goes on before both have a chunk
    return original(program, values)
t._program.Program.__call__ = call
result = t.swept(t.GRID)
assert used == {0, 1}, used
assert len(set(result.run.devices)) == 2, result.run
open(sys.argv[3], "wb").write(t.bits(result))
"""


def test_same_bits_on_two_devices(tmp_path):
    out = tmp_path / "bits"
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, *map(str, Path(__file__).parents[:2]), str(out)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert out.read_bytes() == bits(swept(GRID, devices=jax.local_devices()[:1]))


def test_chunk_size_comes_from_rows_and_not_from_members():
    class Sized:
        def __call__(self, key, x, y, hyper):
            return hyper["a"] + y.sum()

        def work_bytes(self, y):
            return 400 * y.size

    fit = Sized()

    def chunk(members, rows, **options):
        axes = {"a": np.arange(members)}
        return swept(axes, fit, x=np.ones((rows, 1)), y=np.ones(rows), **({"chunk_size": None} | options)).run.chunk_size

    assert chunk(1, 20) == chunk(40, 20) == chunk(300, 20)
    assert chunk(1, 20) > chunk(1, 80) > chunk(1, 100_000) >= 1
    assert chunk(3, 20, chunk_size=5) == 5


# ---- rows: folds and bootstrap --------------------------------------------------------------------------------------


def predict(params, x):
    """E[y | x] of a softmax mixture of linear regressions, in NumPy."""
    gate, experts = params["gate"], params["experts"]
    logits = x @ gate["weights"].T + gate["intercept"]
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs /= probs.sum(axis=1, keepdims=True)
    return (probs * (x @ experts["weights"].T + experts["intercept"])).sum(axis=1)


@pytest.mark.parametrize("cases", [None, CASES], ids=["equal weights", "case weights"])
def test_a_fold_trains_on_the_other_rows_and_is_scored_on_its_own(cases):
    result = swept({"l1_experts": [0.0, 0.05], "fold": LABELS}, weights=cases)
    weights = np.ones(N) if cases is None else cases
    assert result.axes["fold"].tolist() == [0, 1, 2]
    for fold in range(3):
        train, held = fold != LABELS, fold == LABELS
        member = result.sel(l1_experts=0.05, fold=fold)
        lone = FIT(KEY, X[train], Y[train], {"l1_experts": 0.05}, weights=weights[train])
        assert_close(member.fits, jax.tree.map(np.asarray, lone))
        errors = (predict(member.fits.params, X[held]) - Y[held]) ** 2
        np.testing.assert_allclose(member.held_out, np.average(errors, weights=weights[held]), rtol=1e-5)


def test_held_out_of_a_likelihood_is_minus_its_log():
    fit = moejax.fit_gradient(MODEL, moejax.losses.nll(), steps=15)
    result = swept({"fold": LABELS}, fit)
    for i, fold in enumerate(result.axes["fold"]):
        params = jax.tree.map(lambda v, i=i: v[i].astype(float), result.fits.params)
        x, y = X[fold == LABELS].astype(float), Y[fold == LABELS]
        logits = x @ params["gate"]["weights"].T + params["gate"]["intercept"]
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        scale = np.exp(params["family"]["log_scale"])
        residuals = y[:, None] - x @ params["experts"]["weights"].T - params["experts"]["intercept"]
        density = (probs * np.exp(-0.5 * (residuals / scale) ** 2) / (scale * np.sqrt(2 * np.pi))).sum(axis=1)
        np.testing.assert_allclose(result.held_out[i], -np.log(density).mean(), rtol=1e-5)


@pytest.mark.parametrize(("rows", "folds"), [(10, 2), (11, 3), (47, 5), (6, 6)])
def test_drawn_folds_are_balanced_and_depend_on_the_key_alone(rows, folds):
    def labels(key, x, more):
        result = swept({"fold": folds, **more}, seen, key=key, x=x, y=np.arange(rows))
        by_weight = np.stack([result.fits["weights"][f].reshape(-1, rows)[0] for f in range(folds)])
        assert set(np.unique(by_weight)) == {0.0, 1.0}
        assert (by_weight.sum(axis=0) == folds - 1).all()  # every row is held out once
        return by_weight.argmin(axis=0)

    first = labels(KEY, np.ones((rows, 1)), {"a": [1]})
    sizes = np.bincount(first, minlength=folds)
    assert sizes.sum() == rows
    assert np.ptp(sizes) <= 1
    np.testing.assert_array_equal(first, labels(KEY, np.arange(2.0 * rows).reshape(rows, 2), {"a": [3, 4]}))
    assert any((first != labels(jax.random.key(k), np.ones((rows, 1)), {"a": [1]})).any() for k in range(3))


def test_rows_without_a_fold_always_train():
    weights = swept({"fold": LABELS, "a": [1]}, seen, weights=CASES).fits["weights"][:, 0]
    np.testing.assert_array_equal(weights[:, LABELS == -1], np.broadcast_to(CASES[LABELS == -1], (3, (LABELS == -1).sum())))
    np.testing.assert_array_equal(weights, CASES * (np.arange(3)[:, None] != LABELS))


def test_bootstrap_counts_are_multinomial():
    samples, there = 2000, CASES > 0
    n = there.sum()
    drawn = swept({"bootstrap": samples, "a": [1]}, seen, weights=CASES, chunk_size=100).fits["weights"][:, 0]
    assert (drawn[:, ~there] == 0).all()
    counts = drawn[:, there] / CASES[there]
    np.testing.assert_array_equal(counts, np.round(counts))
    np.testing.assert_array_equal(counts.sum(axis=1), n)
    # Of each row: mean 1 with a standard error of sqrt((1 - 1/n) / samples); 5 of them leave 1 chance in 40,000 a run.
    assert np.abs(counts.mean(axis=0) - 1).max() < 5 * np.sqrt((1 - 1 / n) / samples)
    variance = counts.var(axis=0)
    assert np.abs(variance - (1 - 1 / n)).max() < 0.3
    np.testing.assert_allclose(variance.mean(), 1 - 1 / n, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(counts[:, 0], counts[:, 1])[0, 1], -1 / (n - 1), atol=5 / np.sqrt(samples))
    assert len(np.unique(counts, axis=0)) == samples


def test_bootstrap_sample_is_its_number_whatever_else_is_swept():
    few = swept({"bootstrap": [5, 1], "a": [1]}, seen, chunk_size=100).fits["weights"]
    many = swept({"bootstrap": 9, "a": [1]}, seen, chunk_size=100).fits["weights"]
    np.testing.assert_array_equal(few, many[[5, 1]])


def test_bootstrap_within_folds_draws_training_rows_alone():
    result = swept(DRAWN, seen)
    weights = result.fits["weights"][:, :, 0]
    for fold in range(3):
        assert (weights[fold][:, fold == LABELS] == 0).all()
        np.testing.assert_array_equal(weights[fold].sum(axis=1), (fold != LABELS).sum())


# ---- groups of rows -------------------------------------------------------------------------------------------------

GROUPS = 40 - np.arange(N) % 13
SOFT = moejax.fit_gradient(MODEL, moejax.losses.nll(), steps=15)


def grouped(key, x, y, hyper, weights, groups):
    return {"weights": weights, "groups": groups}


def test_a_fit_gets_the_first_row_of_each_group():
    result = moejax.sweep(grouped, {"a": [1], "bootstrap": 1})(KEY, X, Y, groups=GROUPS)
    first = [int(np.argmax(g == GROUPS)) for g in GROUPS]
    np.testing.assert_array_equal(result.fits["groups"][0, 0], first)


def test_drawn_folds_and_samples_take_whole_groups():
    weights = np.where(GROUPS == 33, 0.0, 1.0 + GROUPS % 2).astype(np.float32)
    sweeper = moejax.sweep(grouped, {"fold": 4, "bootstrap": 50, "a": [1]}, chunk_size=32)
    result = sweeper(KEY, X, Y, groups=GROUPS, weights=weights).fits["weights"][:, :, 0]
    counts = result[:, :, weights > 0] / weights[weights > 0]
    kept = GROUPS[weights > 0]
    by_group = np.stack([counts[:, :, kept == g].max(axis=2) for g in np.unique(kept)], axis=-1)
    np.testing.assert_array_equal(counts, by_group[:, :, np.searchsorted(np.unique(kept), kept)])
    held = (by_group == 0).all(axis=1)  # in no sample: held out
    assert (held.sum(axis=0) == 1).all()
    assert held.sum(axis=1).max() - held.sum(axis=1).min() <= 1 + 1  # of 13 groups, one of which has no weight
    np.testing.assert_array_equal(by_group.sum(axis=2), np.broadcast_to((~held).sum(axis=1)[:, None], (4, 50)))


def test_a_fold_of_groups_trains_on_the_other_groups_and_is_scored_on_its_own():
    labels = np.where(GROUPS == 40, -1, GROUPS % 3)
    result = moejax.sweep(SOFT, {"fold": labels}, chunk_size=8)(KEY, X, Y, groups=GROUPS)
    train, held = labels != 1, labels == 1
    lone = SOFT(KEY, X[train], Y[train], groups=GROUPS[train])
    assert_close(result.sel(fold=1).fits, jax.tree.map(np.asarray, lone))
    score = SOFT.score(lone.params, X[held], Y[held], np.ones(held.sum()), None, GROUPS[held])
    np.testing.assert_allclose(result.sel(fold=1).held_out, score, rtol=1e-4)
    plain = moejax.sweep(SOFT, {"fold": labels}, chunk_size=8)(KEY, X, Y)
    assert (np.abs(plain.held_out - result.held_out) > 1e-3).all()


BAD_GROUPS = [
    ({"fold": LABELS}, {}, r"^axes\['fold'\]: row \d+ is in fold .* of its group in fold"),
    ({"fold": 14}, {}, "fold.*14 folds were given for 13 groups"),
    ({"fold": 3}, {"groups": GROUPS[1:]}, "^groups: shape"),
    ({"fold": 3}, {"groups": np.where(GROUPS == 30, np.nan, GROUPS)}, "^groups: .*none missing"),
    ({"fold": 3}, {"weights": CASES + 1}, "^weights: row"),
]


@pytest.mark.parametrize(("axes", "more", "words"), BAD_GROUPS)
@pytest.mark.parametrize("fit", [SOFT, grouped], ids=["fit", "function"])
def test_bad_groups_are_one_error(fit, axes, more, words):
    with pytest.raises(ValueError, match=words):
        moejax.sweep(fit, axes)(KEY, X, Y, **{"groups": GROUPS, **more})


# ---- numbers of experts ---------------------------------------------------------------------------------------------


def test_fewer_experts_of_a_model_are_a_model_of_fewer():
    def fit(n_experts):
        model = moejax.moe(moejax.experts.linear(), moejax.gates.constant(), n_experts, family=moejax.families.gaussian())
        return moejax.fit_gradient(model, moejax.losses.nll(), steps=1200, learning_rate=0.05)

    def best(fits):
        return np.where(fits.admissible, fits.objective, np.inf).min(axis=-1)

    x = X[:, 1:2]
    y = 2 * np.sign(X[:, 0]) * x[:, 0] + 0.5 * np.random.default_rng(0).normal(size=N).astype(np.float32)
    result = moejax.sweep(fit(3), {"n_experts": [1, 2, 3], "restart": 4}, chunk_size=12)(KEY, x, y)
    lone = moejax.sweep(fit(2), {"restart": 4}, chunk_size=8)(KEY, x, y)
    variance = np.mean((y - np.polyval(np.polyfit(x[:, 0], y, 1), x[:, 0])) ** 2)
    wanted = [0.5 * np.log(2 * np.pi * np.e * variance), best(lone.fits)]
    np.testing.assert_allclose(best(result.fits)[:2], wanted, rtol=1e-4)
    # Two coefficients and a scale each, and the proportions but one.
    np.testing.assert_array_equal(result.fits.degrees_of_freedom, np.repeat([[3], [7], [11]], 4, axis=1))
    for i, number in enumerate((1, 2, 3)):
        params = jax.tree.map(lambda v, i=i: v[i, 0], result.fits.params)
        probs = np.asarray(fit(3).model.gate_probs(params, x))
        assert (probs[:, number:] == 0).all()
        assert (probs[:, :number] > 0).all()
    assert moejax.select(result, criterion="bic").chosen == {"n_experts": 2}
    result = moejax.sweep(fit(3), {"n_experts": [1, 2], "fold": 3, "restart": 2}, chunk_size=12)(KEY, x, y)
    assert moejax.select(result).chosen == {"n_experts": 2}
    with pytest.raises(ValueError, match=r"n_experts.*whole numbers from 1 to 3"):
        moejax.sweep(fit(3), {"n_experts": [4]})


# ---- labels and tables ----------------------------------------------------------------------------------------------


def test_sel_and_isel(grid):
    by_value = grid.sel(l1_experts=0.01)
    assert by_value.shape == (8,)
    assert list(by_value.axes) == ["restart"]
    np.testing.assert_array_equal(by_value.fits.objective, grid.fits.objective[2])
    np.testing.assert_array_equal(by_value.fits.params["experts"]["weights"], grid.fits.params["experts"]["weights"][2])
    member = by_value.isel(restart=-1)
    assert member.shape == ()
    assert member.fits.objective == grid.fits.objective[2, 7]
    assert member.fixed == {"l1_experts": 0.01, "restart": 7}
    assert bits(grid.sel(l1_experts=0.01 * (1 + 1e-8), restart=7)) == bits(member)


@pytest.mark.parametrize(
    ("method", "at", "error", "words"),
    [
        ("sel", {"l2_gate": 0.0}, KeyError, "'l2_gate' is no axis"),
        ("isel", {"fold": 0}, KeyError, "'fold' is no axis"),
        ("sel", {"l1_experts": 0.02}, KeyError, "l1_experts: 0.02 is not on this axis"),
        ("sel", {"restart": 8}, KeyError, "restart: 8 is not on this axis"),
        ("isel", {"restart": 8}, IndexError, "8"),
        ("isel", {"restart": slice(2)}, TypeError, "slice"),
    ],
)
def test_sel_and_isel_refuse(grid, method, at, error, words):
    with pytest.raises(error, match=words):
        getattr(grid, method)(**at)


def test_sel_takes_the_nearest_value():
    result = swept({"a": [1.0, 1.0 + 2e-7, 0.0], "restart": [10**7, 10**7 + 1]}, scaled)
    assert result.sel(restart=10**7 + 1).fits["more"][0].tolist() == [10**7 + 1] * 3
    assert result.sel(a=0).fixed == {"a": 0.0}
    assert result.sel(a=1.0 + 2e-7).fixed["a"] == 1.0 + 2e-7


def test_table_and_csv(tmp_path):
    result = swept({"l1_experts": [0.0, 0.05], "fold": LABELS})
    table = result.table()
    numbers = ["objective", "log_likelihood", "steps", "kkt", "status", "degrees_of_freedom", "classified", "rows"]
    assert list(table) == ["l1_experts", "fold", *numbers, "held_out"]
    assert {len(column) for column in table.values()} == {6}
    row = int(np.flatnonzero((table["l1_experts"] == 0.05) & (table["fold"] == 2))[0])
    member = result.sel(l1_experts=0.05, fold=2)
    assert table["objective"][row] == member.fits.objective
    assert table["held_out"][row] == member.held_out
    result.to_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(table)
    for name in set(table) - {"status"}:
        np.testing.assert_array_equal([float(r[name]) for r in rows], table[name])
    assert {r["status"] for r in rows} == {"out of steps"}
    assert {len(c) for c in member.table().values()} == {1}


def test_tables_of_a_users_own_records(tmp_path):
    class Record(NamedTuple):
        a: Any
        pair: Any
        status: Any

    def own(key, x, y, hyper):
        return Record(-hyper["a"], (jnp.zeros(2), jnp.ones(3)), hyper["a"] / 2)

    result = swept({"a": [1, 2], "restart": 1}, own)
    table = result.table()
    assert {name: column.tolist() for name, column in table.items()} == {
        "a": [1, 2],
        "restart": [0, 0],
        "status": [0.5, 1.0],
    }
    assert list(result.isel(restart=0).table()) == ["a", "status"]
    result.to_csv(tmp_path / "own.csv")
    assert (tmp_path / "own.csv").read_text().split() == ["a,restart,status", "1,0,0.5", "2,0,1.0"]


# ---- divergence -----------------------------------------------------------------------------------------------------


def test_a_diverging_member_is_marked_and_alone():
    ill = swept({"learning_rate": [0.01, 1e30, 0.02], "restart": 3})
    well = swept({"learning_rate": [0.02, 0.01], "restart": 3})
    diverged = ill.fits.status & int(Status.DIVERGED) != 0
    np.testing.assert_array_equal(diverged, [[False] * 3, [True] * 3, [False] * 3])
    assert not np.isfinite(ill.fits.objective[1]).any()
    for rate in (0.01, 0.02):
        assert bits(ill.sel(learning_rate=rate)) == bits(well.sel(learning_rate=rate))
    with pytest.raises(FloatingPointError, match="all 2 members of the sweep diverged"):
        swept({"learning_rate": [1e30], "restart": 2})


# ---- checkpoints ----------------------------------------------------------------------------------------------------


class Cut(Exception):
    pass


@pytest.fixture
def calls(monkeypatch):
    """Counts calls of the program, and cuts the sweep off after `limit` of them."""
    original, lock = _program.Program.__call__, threading.Lock()
    state = {"count": 0, "limit": 10**9}

    def call(program, values):
        with lock:
            if state["count"] >= state["limit"]:
                raise Cut
            state["count"] += 1
        return original(program, values)

    monkeypatch.setattr(_program.Program, "__call__", call)
    return state


def cut_off(calls, folder, after, axes=GRID, **options):
    calls.update(count=0, limit=after)
    with pytest.raises(Cut):
        swept(axes, checkpoint=folder, threads=1, **options)
    assert calls["count"] == after
    calls.update(count=0, limit=10**9)


def test_a_sweep_that_was_cut_off_goes_on(grid, calls, tmp_path):
    cut_off(calls, tmp_path / "deep" / "folder", 2)
    resumed = swept(GRID, checkpoint=tmp_path / "deep" / "folder", chunk_size=16)
    assert calls["count"] == 3
    assert resumed.run.chunk_size == 8  # and not 16, which would change the bits
    assert bits(resumed) == bits(grid)
    again = swept(GRID, checkpoint=tmp_path / "deep" / "folder")
    assert calls["count"] == 3
    assert bits(again) == bits(grid)


@pytest.mark.parametrize("left", [0, 0.5, 0.99], ids=["empty", "half", "nearly whole"])
def test_a_half_written_chunk_is_done_again(grid, calls, tmp_path, left):
    swept(GRID, checkpoint=tmp_path)
    chunks = sorted(tmp_path.glob("chunk*"))
    assert len(chunks) == 5
    content = chunks[1].read_bytes()
    chunks[1].write_bytes(content[: int(left * len(content))])
    chunks[3].rename(tmp_path / f".{chunks[3].name}.part")  # what a cut in the midst of writing leaves
    calls["count"] = 0
    assert bits(swept(GRID, checkpoint=tmp_path)) == bits(grid)
    assert calls["count"] == 2


def rated(rate):
    return moejax.fit_gradient(MODEL, optimizer=optax.adam(rate), steps=2)


def shifted(by):
    return lambda key, x, y, hyper, weights=None: hyper["a"] + by


CHANGES = [
    ("key", {}, {"key": jax.random.key(4)}),
    ("x", {}, {"x": X + 1}),
    ("y", {}, {"y": Y + 1}),
    ("weights", {}, {"weights": CASES}),
    ("values", {}, {"axes": {"a": [1, 3]}}),
    ("more values", {}, {"axes": {"a": [1, 2, 3]}}),
    ("names", {}, {"axes": {"a": [1, 2], "restart": 1}}),
    ("a closure", {}, {"fit": shifted(2.0)}),
    ("a built optimizer", {"fit": rated(0.1), "axes": {"restart": 2}}, {"fit": rated(0.2)}),
    ("optimisation", {}, {"optimize": False}),
]


@pytest.mark.parametrize(("given", "change"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_another_sweep_in_the_same_folder_is_refused(calls, tmp_path, given, change):
    same = {"fit": shifted(1.0), "axes": {"a": [1, 2]}, **given}
    first = swept(**same, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint: .* holds chunks of another sweep"):
        swept(**{**same, **change}, checkpoint=tmp_path)
    calls["count"] = 0
    assert bits(swept(**same, checkpoint=tmp_path)) == bits(first)
    assert calls["count"] == 0


def test_a_sweep_that_never_ran_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyError, match="b"):
        swept({"a": [1, 2]}, lambda key, x, y, hyper: hyper["b"], checkpoint=tmp_path)
    assert swept({"a": [1, 2]}, shifted(1.0), checkpoint=tmp_path).fits.tolist() == [2, 3]


# ---- running --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (False, False), (None, False)])
def test_progress_goes_to_standard_error_when_asked(capsys, progress, shown):
    swept({"a": range(20), "restart": 1}, scaled, progress=progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("3/3" in err) == shown
    assert bool(err) == shown


def test_programs_are_kept():
    def compilations(fit, axes):
        before = len(COMPILED)
        swept(axes, fit)
        return len(COMPILED) - before

    def build():
        return moejax.fit_gradient(MODEL, steps=3, learning_rate=0.123)

    assert compilations(build(), {"restart": 2}) > 0
    assert compilations(build(), {"restart": [7, 3, 4]}) == 0  # an equal fit, built anew


def test_a_function_that_cannot_be_hashed_is_swept_too():
    class Own:
        __hash__ = None

        def __init__(self, by):
            self.by = by

        def __call__(self, key, x, y, hyper):
            return hyper["a"] * self.by

    own = Own(3)
    assert swept({"a": [1, 2]}, own).fits.tolist() == [3, 6]
    own.by = 5
    assert swept({"a": [1, 2]}, own).fits.tolist() == [5, 10]


def test_results_are_the_callers_own(grid):
    assert all(isinstance(leaf, np.ndarray) and leaf.flags.writeable for leaf in jax.tree.leaves(grid.fits))


# ---- bad input ------------------------------------------------------------------------------------------------------

BAD = [
    ({"fit": None}, "^fit:"),
    ({"axes": {}}, "^axes:"),
    ({"axes": ["l1_experts"]}, "^axes:"),
    ({"axes": {"l1_experts": []}}, "l1_experts"),
    ({"axes": {"l1_experts": 0.1}}, "l1_experts"),
    ({"axes": {"l1_experts": [[0.1, 0.2]]}}, "l1_experts"),
    ({"axes": {"l1_experts": [[0.1], [0.2, 0.3]]}}, "l1_experts"),
    ({"axes": {"l1_experts": ["a"]}}, "l1_experts"),
    ({"axes": {"l1_experts": [0.1, float("nan")]}}, "l1_experts"),
    ({"axes": {"l1_experts": [0.1, float("inf")]}}, "l1_experts"),
    ({"axes": {"l1_experts": [0.1, -0.1]}}, "l1_experts"),
    ({"axes": {"learning_rate": [0.0]}}, "learning_rate"),
    ({"axes": {"l1_expert": [0.1]}}, "'l1_expert' was given"),
    ({"axes": {"restart": 0}}, "^restart"),
    ({"axes": {"restart": 2.0}}, "^restart"),
    ({"axes": {"restart": True}}, "^restart"),
    ({"axes": {"restart": [0.5]}}, "restart"),
    ({"axes": {"restart": [-1]}}, "restart"),
    ({"axes": {"restart": [2**31]}}, "restart"),
    ({"axes": {"fold": 1}}, "^fold"),
    ({"axes": {"fold": N + 1}}, "fold.*48 rows"),
    ({"axes": {"fold": LABELS[1:]}}, "fold.*shape"),
    ({"axes": {"fold": LABELS - 1}}, "fold.*at least -1"),
    ({"axes": {"fold": LABELS / 2}}, "fold.*whole"),
    ({"axes": {"fold": np.full(N, -1)}}, "fold.*no row"),
    ({"axes": {"fold": np.zeros(N, int)}}, "fold 0 every row"),
    ({"axes": {"fold": LABELS}, "weights": np.where(LABELS == 1, 0.0, 1.0)}, "fold 1 no row of positive weight"),
    ({"axes": {"bootstrap": 0}}, "^bootstrap"),
    ({"axes": {"bootstrap": [1.5]}}, "bootstrap"),
    ({"axes": {"bootstrap": [-1]}}, "bootstrap"),
    ({"chunk_size": 0}, "^chunk_size"),
    ({"chunk_size": 2.5}, "^chunk_size"),
    ({"threads": 0}, "^threads"),
    ({"devices": []}, "^devices"),
    ({"key": 0}, "^key"),
    ({"x": X[:, 0]}, "^x:"),
    ({"y": Y[1:]}, "^y:"),
    ({"weights": CASES[1:]}, "^weights:"),
    ({"fit": seen, "weights": CASES[:, None]}, "^weights:"),
    ({"fit": seen, "weights": -CASES}, "^weights:"),
    ({"fit": seen, "x": ()}, "^x:"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_input_is_one_error_before_anything_compiles(monkeypatch, change, words):
    def compiled(*_):
        pytest.fail("it compiled")

    monkeypatch.setattr(_program, "compile_for", compiled)
    with pytest.raises(ValueError, match=words):
        swept(**{"axes": {"l1_experts": [0.123], "l2_gate": [0.1]}, **change})


def test_a_start_beside_restarts_is_refused():
    with pytest.raises(ValueError, match="start"):
        moejax.sweep(FIT, {"restart": 2})(KEY, X, Y, start=MODEL.init(KEY, X))
