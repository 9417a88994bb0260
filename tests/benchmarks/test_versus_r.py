"""benchmarks/versus_r.py: its pieces without R, and, where R with its packages is, all of it at a tiny size."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import versus_r
from versus_r import EXPERTS, Grid, Lone, Measured, Record

import moejax
from moejax.fit import Fit
from moejax.model import Data

TRUTH = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
TABLE = """"way","seed","seconds","log_likelihood","penalty","iterations","converged","experts","first"
"flexmix_ridge","1","0.150","470.5","2.5","20","TRUE","3","0.1  0.02  0.9"
"flexmix_ridge","2","0.25","-55.25","0","55","FALSE","2","-0.5  -1.1 -0.9"
"mixtools","1","0.5","NA","0","NA","FALSE","0","NA"
"""


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    return versus_r.Sample(rng.standard_normal((8, 2)), rng.standard_normal(8), TRUTH)


def fits(way, values, seconds=1.0, reference=0, penalty=0.0, converged=True, experts=EXPERTS):
    return [Record(way, i, seconds, value, penalty, 10, converged, experts, reference) for i, value in enumerate(values)]


# ---- without R ------------------------------------------------------------------------------------------------------


def test_reads_what_the_script_writes(sample):
    first, second, failed = versus_r.parsed(TABLE, sample)
    assert first == Record("flexmix_ridge", 1, 0.15, 470.5, 2.5, 20, True, 3, 1)
    assert first.penalised == 468
    assert second == Record("flexmix_ridge", 2, 0.25, -55.25, 0, 55, False, 2, 2)
    assert failed.experts == 0
    assert failed.reference == -1
    assert np.isnan(failed.log_likelihood)


def test_failed_fits_and_lost_experts_do_not_count():
    failed = fits("flexmix", [np.nan], experts=0, reference=-1, seconds=100.0)
    lost = fits("flexmix", [5.0], experts=2)
    records = [*fits("flexmix", [1.0, 2.0], seconds=3.0), *failed, *lost]
    assert versus_r.best(records) == 2
    assert versus_r.best(records, reference=0) == 2
    assert versus_r.best(records, reference=1) is None
    assert versus_r.best(failed) is None
    assert versus_r.seconds_of(records) == 3
    assert versus_r.of_seeds(records)["converged_share"] == 1
    assert versus_r.of_seeds(failed)["iterations"] is None
    assert np.isnan(versus_r.seconds_of(failed))


def test_the_script_has_all_ways():
    for way in versus_r.SMALL_WAYS:
        assert f"  {way} = function(last)" in versus_r.R_SCRIPT
    assert set(versus_r.LARGE_WAYS) <= set(versus_r.SMALL_WAYS)
    assert {way for kind in versus_r.kinds(0.1, 500) for way in kind.ways} == set(versus_r.SMALL_WAYS)


@pytest.mark.parametrize("number", [0, 1])
def test_summary_of_canned_numbers(number, tmp_path):
    kind = versus_r.kinds(0.1, 500)[number]
    ours = fits("moejax", [10.0, 12.0], seconds=0.01, penalty=1.0)
    slow = fits("moejax", [0.0], seconds=9.0, converged=False)
    grid = Grid(5.0, 4.0, [2.0, 1.0, 3.0], 1000, 500, 11.0, 2)
    free = Lone(1.0, ours) if kind.hyper else None
    measured = Measured({"alone": grid, "path": grid}, Lone(2.0, ours + slow), Lone(2.0, ours), Lone(3.0, ours), free)
    of_r = {way: fits(way, [11.5], seconds=1.0 + i, penalty=1.0) for i, way in enumerate(kind.ways)}
    told = versus_r.summary(kind, measured, of_r)
    assert told["seconds"]["moejax_alone"] == 2 / 500
    assert told["seconds"]["moejax_lone"] == 0.01  # of fits that converged
    assert told["grid"]["path"]["converged_share"] == 0.5
    for i, way in enumerate(kind.ways):
        assert told["ratio"]["alone"][way] == pytest.approx((1 + i) / 0.004)
        assert told["ratio"]["lone"][way] == pytest.approx((1 + i) / 0.01)
    assert told["log_likelihood"]["best"]["moejax_float64"] == 11
    assert told["log_likelihood"]["best"][kind.same[0]] == 10.5
    assert versus_r.shortfalls(told["log_likelihood"]) == []
    versus_r.write_json(told, tmp_path / "told.json")
    printed = versus_r.report(kind, told, versus_r.Sizes())
    assert "250.0" in printed
    assert "0.5000" in printed  # better than R by
    assert ("without ridge" in printed) == bool(kind.hyper)


def test_a_lower_likelihood_is_told():
    level = {"flexmix": -54.73, "mixtools": -54.664, "moejax_float32": -54.67, "moejax_float64": -54.664}
    assert versus_r.shortfalls({"best": level, "reference_1": dict.fromkeys(level)}) == []
    told = versus_r.shortfalls(
        {"best": level | {"moejax_float32": -54.7}, "without_ridge": {"flexmix": 1, "moejax_float32": 0}}
    )
    assert told == ["best: moejax_float32 ends at -54.7000, below mixtools at -54.6640"]


def test_the_ridge_is_that_of_nnet(sample):
    """The mean objective of moejax, times n, is the penalised log-likelihood that the records have."""
    kind = versus_r.kinds(0.5, 8)[1]
    model, (x, y) = kind.fit.model, sample.in_type(np.float32)
    params = model.init(jax.random.key(0), x)
    objective = kind.fit.objective(params, Data(model.prepare(x), y), np.full(8, 0.125, np.float32), kind.hyper)
    fit = Fit(params, objective, -8 * kind.fit.score(params, x, y, None), None, 1, 0.0, 1)
    record = versus_r._own_record(kind, sample, 0.5, 0, 1.0, fit)
    assert record.penalty > 0
    assert record.penalised == pytest.approx(-8 * float(objective), rel=1e-5)


def test_times_lone_fits_and_grids(sample):
    """With a fit that compiles faster than EM."""
    model = moejax.moe(moejax.experts.linear(), moejax.gates.constant(), EXPERTS, family=moejax.families.gaussian())
    quick = moejax.fit_gradient(model, moejax.losses.nll(), steps=5)
    kind = versus_r.Gated("constant", quick, {}, ("flexmix",))
    single = versus_r.lone(versus_r.within_jit(kind), sample, restarts=3, rounds=2)
    assert [r.seed for r in single.records] == [0, 1, 2, 0, 1, 2]
    assert len({r.log_likelihood for r in single.records}) == 3
    assert all(0 < r.seconds < single.first for r in single.records)
    found = versus_r.grids(kind, sample, versus_r.Sizes(weights=2, restarts=3, rounds=2))
    assert set(found) == {"alone", "path"}
    for grid in found.values():
        assert grid.fits == 6
        assert len(grid.rounds) == 2
        assert 0 < grid.compiling < grid.first


def test_says_so_where_there_is_no_r(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "")
    versus_r.main(["--out", str(tmp_path / "out")])  # and returns, so that the exit code is 0
    printed = capsys.readouterr().out
    assert "Rscript is not here" in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_says_so_where_a_package_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(versus_r.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(versus_r, "_rscript", lambda arguments: "mixtools ")
    versus_r.main(["--out", str(tmp_path / "out")])
    assert "not here, mixtools: apt install r-cran-mixtools" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds: '0' was given; want a whole number of at least 1"),
        (["--weights", "1"], "--weights: '1' was given; want a whole number of at least 2"),
        (["--decay", "none"], "--decay: 'none' was given; want a number above 0"),
        (["--decay", "inf"], "--decay: 'inf' was given; want a number above 0"),
    ],
)
def test_errors_of_the_command_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        versus_r.parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


# ---- with R ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run at a tiny size, of as few starts as reach the optima; without sweeps, which compile for long."""
    if versus_r.missing():
        pytest.skip("R with flexmix and mixtools is not here")
    out = tmp_path_factory.mktemp("versus_r")
    grid = Grid(2.0, 1.0, [0.5], 6, 6, 0.0, 2)
    with pytest.MonkeyPatch.context() as patch, quick_compiling():
        patch.setattr(versus_r, "grids", lambda *_: {"alone": grid, "path": grid})
        patch.setattr(versus_r, "within_jit", lambda kind: kind)
        versus_r.main(["--seeds", "1", "--restarts", "6", "--rounds", "1", "--out", str(out)])
    return json.loads((out / "versus_r.json").read_text())


@contextlib.contextmanager
def quick_compiling():
    """Programs of EM that compile in two thirds of the time."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def test_reaches_the_published_likelihoods(whole):
    constant, softmax = (whole["gates"][name]["log_likelihood"] for name in ("constant", "softmax"))
    assert constant["best"]["mixtools"] == pytest.approx(-54.66388, abs=1e-4)
    assert constant["best"]["flexmix"] == pytest.approx(-54.727, abs=1e-3)
    assert constant["best"]["moejax_float64"] == pytest.approx(-54.66388, abs=1e-4)
    assert constant["best"]["moejax_float32"] == pytest.approx(-54.66388, abs=versus_r.SLACK)
    assert 474.5 < softmax["without_ridge"]["flexmix_softmax"] < 475.1
    assert whole["shortfalls"] == []


def test_the_same_ridge_gives_the_same_likelihood(whole):
    softmax = whole["gates"]["softmax"]["log_likelihood"]
    both = [
        (values["flexmix_ridge_ml"], values["moejax_float64"])
        for name, values in softmax.items()
        if name.startswith("reference") and None not in (values["flexmix_ridge_ml"], values["moejax_float64"])
    ]
    assert both
    for theirs, ours in both:
        assert ours == pytest.approx(theirs, abs=2e-3)


def test_writes_ratios_of_what_it_timed(whole):
    assert set(whole["gates"]) == {"constant", "softmax"}
    assert whole["r_versions"].startswith("R ")
    for gate in whole["gates"].values():
        assert set(gate["ratio"]) == {"alone", "path", "lone", "jitted"}
        for name, ratios in gate["ratio"].items():
            for way, ratio in ratios.items():
                assert ratio == pytest.approx(gate["seconds"][way] / gate["seconds"][f"moejax_{name}"])
        assert gate["lone"]["seconds_first_call"] > gate["lone"]["seconds"]
