"""The main job and the accuracy benchmark, in process and at a small size: files, shapes and published figures."""

import csv
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import lambda_grid  # noqa: E402

HOUSING = ROOT.parent / "shared" / "cases" / "housing.csv"
MODELS = ["constant_gate", "fixed_proportions", "softmax_l1", "top1_l1"]
FIGURES = ["training_loss", "validation_error", "coefficient_path", "expert_weights", "true_vs_predicted", "sample_3d"]


@pytest.fixture(autouse=True)
def no_cache_outside_the_test(monkeypatch):
    monkeypatch.setattr(lambda_grid, "keep_compiled_programs", lambda: None)
    monkeypatch.setattr(accuracy, "keep_compiled_programs", lambda: None)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    out = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lambda_grid, "keep_compiled_programs", lambda: None)
        lambda_grid.main(["--out", str(out), "--steps", "300", "--restarts", "2"])
    return out, json.loads((out / "summary.json").read_text())


def test_the_summary_has_the_promised_fields(notebook):
    _, summary = notebook
    assert set(summary) == {"data", "device", "seconds", "models", "noise_floor"}
    assert summary["data"] == {"name": "three_regressions", "n": 1500, "d": 10}
    assert set(summary["seconds"]) == {"total", "import", "compile", "run"}
    assert [m["name"] for m in summary["models"]] == MODELS
    wanted = {"name", "solver", "fits", "diverged", "selected", "validation_mse", "test_mse", "fresh_mse", "nonzero"}
    for model in summary["models"]:
        assert wanted | {"seconds_compile", "seconds_run"} <= set(model)
        assert model["fits"] == 24 * 2 * (2 if model["name"] in ("softmax_l1", "top1_l1") else 1)
        assert model["diverged"] == 0


def test_fixed_proportions_reach_the_published_error_and_the_noise_floor_its_figure(notebook):
    models = {m["name"]: m for m in notebook[1]["models"]}
    assert models["fixed_proportions"]["test_mse"] == pytest.approx(3.790, abs=0.005)
    # A gate that sees no input has the same best prediction as fixed proportions: one linear regression.
    assert models["constant_gate"]["test_mse"] == pytest.approx(3.790, abs=0.005)
    assert notebook[1]["noise_floor"] == pytest.approx(0.02167, abs=0.001)
    for name in ("softmax_l1", "top1_l1"):
        assert models[name]["fresh_mse"] > notebook[1]["noise_floor"]
        assert models[name]["fresh_mse"] < 0.3  # one linear regression has 4.1


def test_the_grid_has_a_row_for_every_fit(notebook):
    with open(notebook[0] / "grid.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (1 + 1 + 2 + 2) * 24 * 2
    assert {(r["model"], float(r["l1_experts"]), int(r["restart"])) for r in rows} == {
        (name, float(np.float64(weight)), restart)
        for name in MODELS
        for weight in lambda_grid.L1_EXPERTS
        for restart in range(2)
    }
    assert all(np.isfinite(float(r["objective"])) and np.isfinite(float(r["held_out"])) for r in rows)


def test_every_figure_is_a_picture(notebook):
    for name in FIGURES:
        assert (notebook[0] / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("path", "target", "rows", "columns"),
    [
        (ROOT / "moejax" / "data" / "diabetes.csv", "progression", 442, 10),
        pytest.param(HOUSING, "y", 506, 13, marks=pytest.mark.skipif(not HOUSING.exists(), reason="not in the project")),
    ],
)
def test_anyones_table_goes_the_same_way(path, target, rows, columns, tmp_path, monkeypatch):
    some = [entry for entry in lambda_grid.entries() if entry.name in ("softmax_l1", "top1_l1")]
    monkeypatch.setattr(lambda_grid, "entries", lambda: some)
    arguments = ["--data", str(path), "--target", target, "--out", str(tmp_path), "--steps", "50", "--restarts", "2"]
    summary = lambda_grid.main(arguments)
    assert summary["data"] == {"name": path.stem, "n": rows, "d": columns}
    assert summary["noise_floor"] is None
    variance = np.loadtxt(path, delimiter=",", skiprows=1, usecols=-1).var()
    for model in summary["models"]:
        assert model["fresh_mse"] is None
        assert model["test_mse"] < variance
    assert all((tmp_path / f"{name}.png").exists() for name in FIGURES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere.csv", "--target", "y"], "nowhere.csv"),
        (["--data", str(ROOT / "moejax" / "data" / "diabetes.csv")], "--target"),
        (["--data", str(ROOT / "moejax" / "data" / "diabetes.csv"), "--target", "price"], "price"),
        (["--experts", "0"], "n_experts"),
        (["--steps", "0"], "steps"),
        (["--restarts", "0"], "restart"),
    ],
)
def test_a_mistake_is_one_clear_error(arguments, words, tmp_path):
    with pytest.raises((ValueError, OSError), match=words):
        lambda_grid.main([*arguments, "--out", str(tmp_path)])


def test_coefficients_come_back_in_the_users_units():
    x, y = np.random.default_rng(0).normal(3.0, 2.0, (50, 2)), np.arange(50.0)
    scale = lambda_grid.Scale(x.mean(axis=0), x.std(axis=0), float(y.mean()), float(y.std()))
    raw = np.linalg.lstsq(np.c_[x, np.ones(50)], y, rcond=None)[0]
    standardised = np.linalg.lstsq(scale.x(x).astype(float), scale.y(y).astype(float), rcond=None)[0]
    np.testing.assert_allclose(scale.coefficients(standardised), raw[:2], rtol=1e-5)


def test_accuracy_writes_ratios_above_one(tmp_path, monkeypatch):
    small = {name: (gate, {"l1_experts": [1e-4, 1e-3]}) for name, (gate, _) in accuracy.GRIDS.items()}
    monkeypatch.setattr(accuracy, "GRIDS", small)
    accuracy.main(["--draws", "1", "--restarts", "2", "--steps", "200", "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "accuracy.json").read_text())
    assert summary["problems"] == ["notebook", "draw 1"]
    for model in summary["models"]:
        ratios = [row["refitted"] for row in model["problems"]]
        assert model["median"] == pytest.approx(np.median(ratios))
        assert model["worst"] == max(ratios)
        # Nothing predicts better than the Bayes predictor, but for the chance in 20,000 fresh rows.
        assert min(ratios) > 0.9
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_programs_are_kept_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.undo()
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        lambda_grid.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
