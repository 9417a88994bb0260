"""Automatic sequences found by the programs of sweeps and paths, against chains of lone fits; and what they compile."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision

import moejax
from moejax.solvers import _path, critical, sequence
from moejax.sweeps import _program
from moejax.sweeps._axes import NO_SAMPLE
from moejax.sweeps._inputs import Inputs

N, D = 60, 3
RNG = np.random.default_rng(11)
X = RNG.normal(size=(N, D))
Y = np.where(RNG.random(N) < 0.5, 3.0, -3.0) * X[:, 0] + 0.5 * X[:, 1] + 0.2 * RNG.normal(size=N)
CASES = 1.0 + np.arange(N) % 3
OFFSET = 0.3 * X[:, 2]
GROUPS = np.arange(N) // 2
KEY = jax.random.key(5)
TRUTH = np.stack([Y * X[:, 0] > 0, Y * X[:, 0] <= 0], axis=1).astype(float)
HALVES = np.stack([X[:, 1] > 0, X[:, 1] <= 0], axis=1).astype(float)


def em(n_experts, gate=None, **options):
    gate = moejax.gates.constant() if gate is None else gate
    model = moejax.moe(moejax.experts.linear(), gate, n_experts, family=moejax.families.gaussian())
    return moejax.fit_em(model, **options)


ONE, TWO, THREE = em(1), em(2), em(3)
SOFT = em(2, moejax.gates.softmax())


def chained(fit, first, ratio, start=None, x=X, y=Y, **more):
    """The largest weight of a path from below by lone fits, each from the params of the one before."""
    for weight in (first * ratio, *first * 2.0 ** np.arange(7)):
        params = fit(KEY, x, y, {"l1_experts": weight}, start=start, **more).params
        if not np.any(params["experts"]["weights"]):
            return max(weight, first)
        start = params
    return first


def assert_spaced(values, first, count, ratio=1e-3):
    np.testing.assert_allclose(values, np.geomspace(first, ratio * first, count), rtol=2e-3)


@pytest.fixture
def float64():
    with precision(True):
        yield


@pytest.fixture
def programs(monkeypatch):
    """How many programs of sweeps, of lone fits and of lone paths were compiled."""
    counts, compiled = Counter(), _program.compile_for

    def counting(*arguments):
        counts["sweep"] += 1
        return compiled(*arguments)

    monkeypatch.setattr(_program, "compile_for", counting)
    traced = _path.Path.solve

    def solve(path, key, hyper, *arguments):
        counts[f"path of {len(hyper[path.name])}"] += counts["sweep"] == 0
        return traced(path, key, hyper, *arguments)

    monkeypatch.setattr(_path.Path, "solve", solve)
    for kind in (moejax.solvers.EMFit, moejax.solvers.GradientFit):
        monkeypatch.setattr(kind, "__call__", _counted(kind.__call__, counts))
    return counts


def _counted(call, counts):
    def counting(fit, key, x, *arguments, **more):
        counts["fit"] += not isinstance(x, jax.core.Tracer)
        return call(fit, key, x, *arguments, **more)

    return counting


# ---- the weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, CASES], ids=["equal", "cases"])
def test_one_expert_descends_from_its_critical_weight(float64, weights):
    path = moejax.path(ONE)
    first = critical(ONE, "l1_experts", KEY, X, Y, weights=weights, offset=OFFSET)
    share = np.ones(N) / N if weights is None else weights / weights.sum()
    residuals = Y - OFFSET - share @ (Y - OFFSET)
    np.testing.assert_allclose(first, np.abs(X.T @ (share * residuals)).max() / (share @ residuals**2), rtol=1e-6)
    swept = moejax.sweep(path, {"l1_experts": 5, "fold": 3})(KEY, X, Y, weights=weights, offset=OFFSET)
    assert_spaced(swept.axes["l1_experts"], first, 5)
    lone = path(KEY, X, Y, {"l1_experts": 5}, weights=weights, offset=OFFSET)
    given = path(KEY, X, Y, {"l1_experts": np.geomspace(first, 1e-3 * first, 5)}, weights=weights, offset=OFFSET)
    np.testing.assert_allclose(lone.objective, given.objective, rtol=1e-6)


@pytest.mark.parametrize("count", [4])  # of 2 and 4 values a path runs several times
@pytest.mark.parametrize("weights", [None, CASES], ids=["equal", "cases"])
def test_a_mixture_ascends_to_where_nothing_is_left(float64, weights, count):
    axes = {"fold": 3, "l1_experts": count, "restart": [4, 2]}
    swept = moejax.sweep(moejax.path(TWO), axes, chunk_size=4)(KEY, X, Y, weights=weights, start=None)
    first = critical(TWO, "l1_experts", KEY, X, Y, weights=weights)
    assert_spaced(swept.axes["l1_experts"], chained(TWO, first, 1e-3, weights=weights), count)
    np.testing.assert_allclose(
        sequence(moejax.path(TWO), "l1_experts", count, KEY, X, Y, weights=weights), swept.axes["l1_experts"], rtol=2e-3
    )


def test_three_experts_of_groups_from_below(float64):
    path, more = moejax.path(THREE, ratio=0.01), {"groups": GROUPS, "weights": CASES[GROUPS]}
    first = chained(THREE, critical(THREE, "l1_experts", KEY, X, Y, **more), 0.01, **more)
    swept = moejax.sweep(path, {"l1_experts": 9, "fold": 2}, chunk_size=2)(KEY, X, Y, **more)
    assert_spaced(swept.axes["l1_experts"], first, 9, 0.01)
    lone = path(KEY, X, Y, {"l1_experts": 9, "restart": 3}, **more)
    given = path(KEY, X, Y, {"l1_experts": sequence(path, "l1_experts", 9, KEY, X, Y, **more), "restart": 3}, **more)
    np.testing.assert_allclose(lone.objective, given.objective, rtol=2e-3)


def test_samples_do_not_change_the_weights(float64):
    plain, drawn = (moejax.sweep(ONE, {"l1_experts": 3, **more})(KEY, X, Y) for more in ({}, {"bootstrap": [7, 3]}))
    np.testing.assert_allclose(drawn.axes["l1_experts"], plain.axes["l1_experts"], rtol=1e-6)
    shared = Inputs(KEY, X, Y, CASES)
    sample = {"bootstrap": jnp.asarray(NO_SAMPLE)}
    weights, _ = _program.fit_member(lambda key, x, y, hyper, weights: weights, sample, shared)
    np.testing.assert_array_equal(weights, CASES)


@pytest.mark.parametrize("held", [True], ids=["held"])
@pytest.mark.parametrize("order", ["ascending"])
def test_of_several_divisions_the_weights_that_begin_highest_count(float64, order, held):
    fit = em(2, moejax.gates.constant())
    if held:
        fit = moejax.fit_em(fit.model, moejax.losses.complete_nll())
    path, divisions = moejax.path(fit, order=order), {"truth": TRUTH, "halves": HALVES}
    swept = moejax.sweep(path, {"division": divisions, "l1_experts": 10})(KEY, X, Y)
    firsts = [sequence(path, "l1_experts", 10, KEY, X, Y, start=start)[0] for start in divisions.values()]
    assert abs(np.log(firsts[0] / firsts[1])) > 0.1
    assert_spaced(swept.axes["l1_experts"], max(firsts), 10)


def test_other_axes_have_their_only_value_or_the_default(float64):
    for ridges, hyper in (([0.5], {"l2_experts": 0.5, "l2_gate": 0.2}), ([0.1, 0.5], {"l2_gate": 0.2})):
        axes = {"l2_experts": ridges, "l1_experts": 3, "l2_gate": [0.2], "n_experts": [1, 2], "l1_gate": 2}
        swept = moejax.sweep(SOFT, axes, chunk_size=4)(KEY, X, Y)
        for name, count in (("l1_experts", 3), ("l1_gate", 2)):
            assert_spaced(swept.axes[name], critical(SOFT, name, KEY, X, Y, hyper), count)


@pytest.mark.parametrize("options", [{"proximal": True}, {"optimizer": "accelerated"}, {}], ids=["prox", "acc", "sub"])
def test_gradient_steps_whether_they_reach_0_or_not(options):
    fit = moejax.fit_gradient(TWO.model, moejax.losses.nll(), steps=200, learning_rate=0.05, **options)
    first = critical(fit, "l1_experts", KEY, X, Y)
    swept = moejax.sweep(fit, {"l1_experts": 3, "fold": 3})(KEY, X, Y)
    assert_spaced(swept.axes["l1_experts"], first, 3)
    path = moejax.path(fit)
    wanted = first if not options else chained(fit, first, 1e-3)
    assert_spaced(sequence(path, "l1_experts", 4, KEY, X, Y), wanted, 4)
    assert_spaced(moejax.sweep(path, {"l1_experts": 4})(KEY, X, Y).axes["l1_experts"], wanted, 4)


def test_a_sweep_that_goes_on_has_the_same_weights(tmp_path, monkeypatch):
    def run(chunk_size):
        axes = {"l1_experts": 3, "restart": 3}
        return moejax.sweep(moejax.path(TWO), axes, chunk_size=chunk_size, checkpoint=tmp_path)(KEY, X, Y)

    first, again = run(2), run(None)
    assert again.run.chunk_size == 2
    jax.tree.map(np.testing.assert_array_equal, (first.axes, first.fits), (again.axes, again.fits))


# ---- what they compile ----------------------------------------------------------------------------------------------


def test_a_sweep_compiles_its_own_program_and_no_other(programs):
    for fit, axes in (
        (moejax.path(em(2, max_iter=41)), {"l1_experts": 9, "fold": 2, "restart": 3}),
        (moejax.path(em(1, max_iter=41)), {"l1_experts": 3, "bootstrap": 2}),
        (em(2, max_iter=42), {"l1_experts": 3, "fold": 2, "division": [TRUTH, HALVES]}),
        (moejax.fit_gradient(TWO.model, moejax.losses.nll(), steps=7, proximal=True), {"l1_experts": 3}),
    ):
        programs.clear()
        result = moejax.sweep(fit, axes, chunk_size=4)(KEY, X, Y)
        assert (programs["sweep"], programs["fit"]) == (1, 0)
        assert result.run.seconds["compile"] > 0


def test_a_lone_path_compiles_its_own_program_and_no_other(programs):
    for n_experts, count in ((1, 4), (2, 9), (2, 3)):
        programs.clear()
        moejax.path(em(n_experts, max_iter=43))(KEY, X, Y, {"l1_experts": count, "restart": 2})
        assert programs == {f"path of {count}": 1}


REFUSED = [
    (moejax.path(TWO, "l2_experts"), {"l2_experts": 3}, "no critical weight"),
    (TWO, {"l2_experts": 3, "fold": 2}, "no critical weight"),
    (TWO, {"l1_gate": 3}, "the critical weight is 0"),
]


@pytest.mark.parametrize(("fit", "axes", "words"), REFUSED)
def test_what_has_no_critical_weight_is_refused_before_anything_compiles(programs, fit, axes, words):
    with pytest.raises(ValueError, match=words):
        moejax.sweep(fit, axes)(KEY, X, Y)
    with pytest.raises(ValueError, match=words):
        sequence(fit, *next(iter(axes.items())), KEY, X, Y)
    assert not programs
