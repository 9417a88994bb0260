"""The main job and the accuracy benchmark, in process and at a small size: files, shapes and published figures."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import moejax
from moejax import _cache, datasets, experts, families, gates, losses, plots

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import lambda_grid  # noqa: E402

HOUSING = ROOT.parent / "shared" / "cases" / "housing.csv"
MODELS = ["constant_gate", "fixed_proportions", "softmax_l1", "top1_l1", "constant_em", "softmax_em", "gaussian_em"]
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
    assert set(summary) == {"data", "device", "seconds", "models", "noise_floor", "noise_floor_test"}
    assert summary["data"] == {"name": "three_regressions", "n": 1500, "d": 10}
    assert set(summary["seconds"]) == {"total", "import", "compile", "run"}
    assert [m["name"] for m in summary["models"]] == MODELS
    wanted = {"name", "solver", "fits", "diverged", "selected", "validation_mse", "test_mse", "fresh_mse", "nonzero"}
    for model in summary["models"]:
        assert wanted | {"seconds_compile", "seconds_run"} <= set(model)
        assert model["fits"] == 24 * 2 * (2 if model["name"] in ("softmax_l1", "top1_l1", "softmax_em") else 1)
        assert model["diverged"] == 0


def test_fixed_proportions_reach_the_published_error_and_the_noise_floor_its_figure(notebook):
    models = {m["name"]: m for m in notebook[1]["models"]}
    assert models["fixed_proportions"]["test_mse"] == pytest.approx(3.790, abs=0.005)
    # A gate that sees no input has the same best prediction as fixed proportions: one linear regression.
    assert models["constant_gate"]["test_mse"] == pytest.approx(3.790, abs=0.005)
    assert notebook[1]["noise_floor"] == pytest.approx(0.02167, abs=0.001)
    assert notebook[1]["noise_floor_test"] == pytest.approx(0.00996, abs=5e-6)
    for name in ("softmax_l1", "top1_l1"):
        assert models[name]["fresh_mse"] > notebook[1]["noise_floor"]
        assert models[name]["fresh_mse"] < 0.3  # one linear regression has 4.1


def test_likelihood_models_stand_beside_the_others(notebook):
    models = {m["name"]: m for m in notebook[1]["models"]}
    assert [m["solver"] for m in models.values()] == ["gradient"] * 4 + ["em"] * 3
    assert all((m["validation_log_likelihood"] is None) == (m["solver"] == "gradient") for m in models.values())
    # The normal gate is of the kind that drew this sample: near the Bayes error, and better than a gate that sees no input.
    assert models["gaussian_em"]["fresh_mse"] < 2 * 0.02167
    gain = models["gaussian_em"]["validation_log_likelihood"] - models["constant_em"]["validation_log_likelihood"]
    assert gain > 0.5


def test_the_grid_has_a_row_for_every_fit(notebook):
    with open(notebook[0] / "grid.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (1 + 1 + 2 + 2 + 1 + 2 + 1) * 24 * 2
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
    assert summary["noise_floor_test"] is None
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
def test_a_mistake_is_one_clear_error(arguments, words, tmp_path, monkeypatch, capsys):
    with pytest.raises((ValueError, OSError), match=words):
        lambda_grid.main([*arguments, "--out", str(tmp_path)])
    monkeypatch.setattr(sys, "argv", ["lambda_grid.py", *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=f"^error: .*{words}"):  # a text, which Python prints, with exit code 1
        lambda_grid.cli()


@pytest.mark.parametrize("program", [lambda_grid, accuracy])
@pytest.mark.parametrize("kind", [ValueError, OSError, RuntimeError])
def test_commands_end_with_one_line(program, kind, monkeypatch):
    def fail():
        raise kind("what went wrong")

    monkeypatch.setattr(program, "main", fail)
    with pytest.raises(SystemExit, match=r"^error: what went wrong$"):
        program.cli()


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        (lambda_grid, ["--target", "y"], "--data"),
        (lambda_grid, ["--indicators"], "--data"),
        (lambda_grid, ["--compare", "0"], "--compare"),
        (lambda_grid, ["--compare", "--data", "table.csv", "--target", "y"], "--compare"),
        (accuracy, ["--draws", "-1"], "--draws: -1"),
        (accuracy, ["--draws", "0"], "--draws: 0"),
        (accuracy, ["--kinds", "others"], "--kinds"),
        (accuracy, ["--restarts", "0"], "--restarts: 0"),
        (accuracy, ["--steps", "0"], "--steps: 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(program, arguments, words, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(arguments)
    assert error.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


# ---- hard data ------------------------------------------------------------------------------------------------------


def only(monkeypatch, name="fixed_proportions", weights=(0.0, 1e-3), **changes):
    """Let the job have one model alone, on few penalties."""
    (entry,) = (each for each in lambda_grid.entries() if each.name == name)
    entry = dataclasses.replace(entry, axes={**entry.axes, "l1_experts": weights}, **changes)
    monkeypatch.setattr(lambda_grid, "entries", lambda: [entry])
    return entry


def table(path, columns):
    """A file with the columns, by name."""
    values = np.column_stack([*columns.values()])
    np.savetxt(path, values, delimiter=",", header=",".join(columns), comments="", fmt="%.17g")
    return ["--data", str(path), "--steps", "30", "--restarts", "2", "--out", str(path.parent / path.stem)]


def columns(rows=60, **more):
    x = np.random.default_rng(0).normal(size=(rows, 2))
    return {"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, -2.0] + 0.1 * x[:, 0] ** 2, **more}


def task(x, y):
    x = np.asarray(x, float)
    split = datasets.Split(np.arange(len(y)), np.arange(0), np.arange(0))
    return lambda_grid.Task(
        "some", x, np.asarray(y, float), tuple(f"x{j + 1}" for j in range(x.shape[1])), split, target="price"
    )


@pytest.mark.parametrize("constant", [0.1, 1e8 / 3, -7.7e-9, 0.0])
def test_a_constant_column_has_the_scale_one(constant):
    scale = lambda_grid.Scale.of(task(np.column_stack([np.full(7, constant), np.arange(7)]), np.arange(7)))
    assert list(scale.x_sd) == [1.0, 2.0]
    np.testing.assert_allclose(scale.x(np.array([[constant, 3.0]])), 0.0, atol=1e-7)
    assert list(lambda_grid.Scale.of(task([[1e9], [1e9 + 3]], [1, 2])).x_sd) == [1.5]


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([[1.0, 1e300], [2.0, -1e300]], [1, 2], r"column 'x2': numbers up to 1e\+300 were given"),
        ([[1.0, 1.7e308], [2.0, 1.7e308]], [1, 2], r"column 'x2': numbers up to 1.7e\+308 were given"),
        ([[1.0], [2.0]], [1e200, 2e200], r"target 'price': numbers up to 2e\+200 were given"),
        ([[1.0], [2.0]], [0.1, 0.1], "target 'price': 0.1 in each of the 2 training rows was given"),
        ([[1.0]] * 3, [0.1, 0.1, 0.1], "target 'price': 0.1 in each of the 3 training rows was given"),
    ],
)
def test_what_cannot_be_standardised_is_named(x, y, words):
    with pytest.raises(ValueError, match=f"^{words}.*; want "):
        lambda_grid.Scale.of(task(x, y))


def test_rows_that_are_out_of_all_proportion_are_named_though_no_training_row_is():
    far = dataclasses.replace(task([[1.0], [2.0], [1e60]], [1, 2, 3]), split=datasets.Split(*np.split(np.arange(3), [2, 3])))
    with pytest.raises(ValueError, match="column 'x1'"):
        lambda_grid.Scale.of(far)


def test_a_target_that_is_constant_where_it_matters_stops_the_job_before_any_fit(tmp_path, monkeypatch):
    train = datasets.split(60, 0).train
    target = np.arange(60.0)
    target[train] = 0.1
    monkeypatch.setattr(lambda_grid, "fit_entry", None)
    with pytest.raises(ValueError, match="target 'y'"):
        lambda_grid.main([*table(tmp_path / "t.csv", columns(y=target)), "--target", "y"])


def test_a_constant_column_costs_nothing(tmp_path, monkeypatch):
    only(monkeypatch)
    drawn, heat_map = [], plots.expert_weights
    monkeypatch.setattr(plots, "expert_weights", lambda weights, **more: drawn.append(weights) or heat_map(weights, **more))
    lambda_grid.main([*table(tmp_path / "t.csv", columns(flat=np.full(60, 0.1))), "--target", "y"])
    assert np.abs(drawn[0]).max() < 100


def test_one_feature_is_a_table_too_and_a_stale_figure_goes(tmp_path, monkeypatch, capsys):
    only(monkeypatch)
    arguments = table(tmp_path / "t.csv", {name: columns()[name] for name in ("a", "y")})
    stale = tmp_path / "t" / "sample_3d.png"
    stale.parent.mkdir()
    stale.touch()
    summary = lambda_grid.main([*arguments, "--target", "y"])
    assert summary["models"][0]["test_mse"] > 0
    assert not stale.exists()
    files = ["grid.csv", "summary.json", *(f"{name}.png" for name in FIGURES if name != "sample_3d")]
    assert capsys.readouterr().out.splitlines()[-1] == f"written to {tmp_path / 't'}: {', '.join(files)}"
    assert {path.name for path in (tmp_path / "t").iterdir()} == set(files)


def test_numbers_are_written_before_figures(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    only(monkeypatch)
    monkeypatch.setattr(lambda_grid, "FIGURES", {"training_loss": fail})
    with pytest.raises(ZeroDivisionError):
        lambda_grid.main([*table(tmp_path / "t.csv", columns()), "--target", "y"])
    assert json.loads((tmp_path / "t" / "summary.json").read_text())["data"]["d"] == 2
    assert len((tmp_path / "t" / "grid.csv").read_text().splitlines()) == 1 + 2 * 2


def test_a_table_with_the_notebooks_name_is_no_notebook(tmp_path, monkeypatch, capsys):
    only(monkeypatch)
    lambda_grid.main([*table(tmp_path / "three_regressions.csv", columns()), "--target", "y"])
    out = capsys.readouterr().out
    assert "notebook's test" not in out
    assert "noise floor" not in out


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_any_number_of_experts_goes_through(experts, tmp_path, monkeypatch, capsys):
    only(monkeypatch, "softmax_l1")
    arguments = ["--experts", str(experts), "--steps", "100", "--restarts", "2", "--out", str(tmp_path)]
    summary = lambda_grid.main(arguments)
    assert summary["models"][0]["coefficients"] == 10 * experts
    assert all((tmp_path / f"{name}.png").exists() for name in FIGURES)
    out = capsys.readouterr().out
    assert "notebook's test" in out
    assert "test rows: 0.009964" in out


def test_a_model_whose_fits_all_diverge_leaves_the_others_alone(tmp_path, monkeypatch, capsys):
    good = only(monkeypatch)
    bad = dataclasses.replace(good, name="wild", learning_rate=1e30)
    monkeypatch.setattr(lambda_grid, "entries", lambda: [bad, good])
    arguments = [*table(tmp_path / "t.csv", columns()), "--target", "y"]
    lambda_grid.main(arguments)
    wild, tame = json.loads((tmp_path / "t" / "summary.json").read_text())["models"]
    kept = {"name": "wild", "solver": "gradient", "fits": 4, "diverged": 4, "inadmissible": 4, "selected": {}}
    assert {name: wild[name] for name in kept} == kept
    assert "all 4 members" in wild["note"]
    assert all(wild[name] is None for name in set(wild) - set(kept) - {"note", "seconds_run"})
    assert tame["diverged"] == 0
    assert tame["test_mse"] is not None
    with open(tmp_path / "t" / "grid.csv", newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {good.name}
    assert "wild: all 4 members" in capsys.readouterr().out
    # The figures are those of the other models, and none where there are no others.
    monkeypatch.setattr(lambda_grid, "entries", lambda: [bad])
    lambda_grid.main(arguments)
    assert capsys.readouterr().out.splitlines()[-1].endswith(": grid.csv, summary.json")
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"grid.csv", "summary.json"}


def test_a_penalty_without_an_admissible_fit_is_left_out_of_the_figures(tmp_path, monkeypatch):
    only(monkeypatch, weights=(0.0, 1e-3, 1e-2, 1e-1))
    choose, shown = lambda_grid.choose, {}

    def choose_from_spoilt(grid):
        grid.fits.status[[0, 2]] |= int(lambda_grid.Status.DEGENERATE_EXPERT)
        grid.fits.objective[0] = np.nan
        grid.fits.status[3, 0] |= int(lambda_grid.Status.DEGENERATE_EXPERT)
        grid.fits.objective[3, 0] = -1.0  # the best, were it admissible
        return choose(grid)

    def keep(name, draw):
        def kept(penalty, values, **more):
            shown[name] = np.asarray(penalty), np.asarray(values), more
            return draw(penalty, values, **more)

        return kept

    for name in ("validation_error", "coefficient_path"):
        monkeypatch.setattr(plots, name, keep(name, getattr(plots, name)))
    monkeypatch.setattr(lambda_grid, "choose", choose_from_spoilt)
    lambda_grid.main([*table(tmp_path / "t.csv", columns()), "--target", "y"])
    for penalty, values, more in shown.values():
        assert list(penalty) == [1e-3, 1e-1]
        assert len(values) == 2
        assert more["chosen"] in (1e-3, 1e-1)
    assert shown["validation_error"][2]["chosen_restart"][1] == 1


@pytest.mark.parametrize(
    ("found", "order"), [([2, 0, 1], [1, 2, 0]), ([2, 0], [1, 0]), ([3, 2, 4, 0, 1], [3, 4, 1, 0, 2]), ([1], [0])]
)
def test_found_experts_stand_in_the_order_of_the_true_ones(found, order):
    all_of_them = 10.0 * np.eye(5, 4)
    all_of_them[4] = 50.0
    weights = all_of_them[found] + 0.1
    numbered = lambda_grid.matched(weights, all_of_them[:3])
    assert list(numbered.values()) == order
    assert list(numbered) == sorted(found)
    rows = np.arange(100) % len(found)  # the found expert of each row, whose true one is `found`
    true = np.minimum(np.array(found)[rows], 2)
    numbers = lambda_grid.renumbered(rows, true, len(found), 3)
    assert sorted(set(numbers)) == sorted(found)
    assert (numbers == true).mean() >= min(3, len(found)) / len(found)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": float("nan"), "b": [1.5, float("inf")]}, {"a": None, "b": [1.5, None]}),
        ((np.float64("nan"), -np.inf, 3, True, "NaN", None), [None, None, 3, True, "NaN", None]),
    ],
)
def test_what_is_written_is_json(value, text, tmp_path):
    def refuse(name):
        raise AssertionError(name)

    lambda_grid.write_json(value, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=refuse) == text


# ---- units and accuracy ---------------------------------------------------------------------------------------------


def test_coefficients_come_back_in_the_users_units():
    x, y = np.random.default_rng(0).normal(3.0, 2.0, (50, 2)), np.arange(50.0)
    scale = lambda_grid.Scale(x.mean(axis=0), x.std(axis=0), float(y.mean()), float(y.std()))
    raw = np.linalg.lstsq(np.c_[x, np.ones(50)], y, rcond=None)[0]
    standardised = np.linalg.lstsq(scale.x(x).astype(float), scale.y(y).astype(float), rcond=None)[0]
    np.testing.assert_allclose(scale.coefficients(standardised), raw[:2], rtol=1e-5)


def few_entries(*names):
    """Some models of the accuracy benchmark, with one penalty each."""
    some = [entry for entry in accuracy.ENTRIES if entry.name in names]
    return [dataclasses.replace(e, axes={name: values[1:2] for name, values in e.axes.items()}) for e in some]


def test_models_are_compared_on_data_of_each_kind(tmp_path, monkeypatch, capsys):
    entries = [entry for entry in lambda_grid.compared() if entry.solver == "em"]
    assert [entry.name for entry in entries] == ["softmax_em", "tied_em"]
    monkeypatch.setattr(lambda_grid, "compared", lambda: entries)
    monkeypatch.setattr(
        lambda_grid, "KINDS", {name: lambda_grid.KINDS[name] for name in ("softmax gate", "tied coefficients")}
    )
    rows = lambda_grid.main(["--compare", "1", "--restarts", "4", "--out", str(tmp_path)])["comparison"]
    assert [row["data"] for row in rows] == ["softmax gate"] * 2 + ["tied coefficients"] * 2
    errors = np.array([row["error_over_floor"] for row in rows])
    assert ((errors > 1) & (errors < 1.5)).all()  # one regression for all rows has above 3
    with open(tmp_path / "comparison.csv", newline="") as file:
        assert [float(row["error_over_floor"]) for row in csv.DictReader(file)] == pytest.approx(errors)
    assert (tmp_path / "comparison.png").stat().st_size > 5000
    assert "tied coefficients" in capsys.readouterr().out


def test_accuracy_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "ENTRIES", few_entries("softmax", "softmax_gradient"))
    monkeypatch.setattr(accuracy, "RECOVERY", "softmax")
    monkeypatch.setattr(accuracy, "FOLDS", 2)
    monkeypatch.setattr(accuracy, "REGIMES", (accuracy.REGIMES[0], dataclasses.replace(accuracy.REGIMES[1], fold=2)))
    monkeypatch.setattr(accuracy, "RECOVERY_PENALTIES", np.array([0.03, 0.1, 1e4]))
    accuracy.main(["--draws", "0", "--kinds", "regressions", "--restarts", "4", "--steps", "50", "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "accuracy.json").read_text())
    assert summary["problems"] == ["notebook"]
    assert summary["models"] == summary["sets"][0]["models"]
    assert [(s["kind"], s["regime"]) for s in summary["sets"]] == [("regressions", r.name) for r in accuracy.REGIMES]
    for one in summary["sets"]:
        models = {model["name"]: model for model in one["models"]}
        assert list(models) == ["softmax", "softmax_gradient", "chosen"]
        for model in models.values():
            ratios = [row["refitted"] for row in model["problems"]]
            assert model["median"] == pytest.approx(np.median(ratios))
            assert model["worst"] == max(ratios)
            assert min(ratios) > 1  # nothing predicts better than the Bayes predictor
            assert ("median_trained" in model) == (one["regime"] == "500 + 500")
            assert model["median_misrouted"] >= one["median_misrouted_by_bayes"] - 0.005
            assert (model["median_log_likelihood"] is None) == (model["solver"] == "gradient")
            assert (model["median_log_likelihood"] or -1) < 0.01
        assert models["softmax"]["worst"] < 2
        assert models["chosen"]["problems"][0]["chosen"]["model"] == "softmax"
        assert models["softmax"]["problems"][0]["chosen"]["gate temperature"] in accuracy.TEMPERATURES
    recovery = summary["recovery"]
    assert recovery["found"][0] == 1
    assert recovery["found"][-1] == recovery["false"][-1] == 0
    assert recovery["rules"]["one_standard_error"]["l1_experts"][0] >= recovery["rules"]["best"]["l1_experts"][0]
    for name in ("accuracy", "recovery"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_starts_that_promise_little_on_some_rows_are_tried_again_on_all():
    (entry,) = few_entries("softmax_gradient")
    task = accuracy.task_of(next(accuracy.samples("regressions", 0)), accuracy.REGIMES[0])
    chosen = accuracy.fitted(task, entry, entry.fit(5), accuracy.KEPT + 2)["refitted"]
    np.testing.assert_array_equal(chosen.refit.axes["restart"], np.arange(accuracy.KEPT + 2))


def test_a_gates_temperature_is_one_more_axis():
    problem = datasets.softmax_regressions(0, n=60, d=2, n_active=1, n_experts=2)
    model = moejax.moe(experts.linear(), gates.softmax(), 2, family=families.gaussian())
    fit = moejax.fit_gradient(model, losses.nll(), steps=20)  # which compiles faster than EM
    grid = moejax.sweep(fit, {"l2_gate": [1e-3, 1e-1], "fold": 2, "restart": 3})(jax.random.key(0), problem.x, problem.y)
    more = accuracy.by_temperature(grid, (0.5, 1.0))
    assert more.shape == (2, 2, 3, 2)
    np.testing.assert_allclose(more.held_out[..., 1], grid.held_out, rtol=1e-4)
    i, fold, restart = 1, 0, 2
    held = np.asarray(grid.inputs.fold_of_row) == fold
    params = jax.tree.map(lambda v: v[i, fold, restart], grid.fits.params)
    sharper = accuracy.at_temperature(params, 0.5)
    log_prob = fit.model.log_prob(sharper, problem.x[held], problem.y[held])
    assert more.held_out[i, fold, restart, 0] == pytest.approx(-float(log_prob.mean()), rel=1e-4)
    chosen = moejax.select(more)
    assert chosen.chosen["gate temperature"] in (0.5, 1.0)
    assert chosen.table["held_out"].size == 4


@pytest.mark.parametrize(
    ("found", "true", "share"),
    [
        ([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 1], 0.0),
        ([0, 0, 0, 1, 2, 2], [2, 2, 0, 0, 1, 1], 1 / 6),
        ([1, 1, 1, 1, 1, 1], [2, 2, 0, 0, 1, 1], 2 / 3),
        # The greatest number in common is at (0, 0), and yet 0 is best matched with 1.
        ([0] * 7 + [1] * 3, [0] * 4 + [1] * 3 + [0] * 3, 4 / 10),
    ],
)
def test_misrouted_rows_are_counted_beyond_the_numbering_of_experts(found, true, share):
    assert accuracy.misrouted(np.array(found), np.array(true)) == pytest.approx(share)


@pytest.mark.parametrize(
    ("found", "shares"),
    [
        ([[0, 3.1, 0, 0], [2, 1, 0, 0]], (1.0, 0.0)),
        ([[0, 3.1, 0.1, 0], [0, 1, 0, 0]], (2 / 3, 1 / 3)),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], (0.0, 0.0)),
    ],
)
def test_active_features_are_counted_expert_by_expert(found, shares):
    true = np.array([[2.0, 1, 0, 0], [0, 3, 0, 0]])
    assert accuracy.counted(np.array(found, float), true) == pytest.approx(shares)


def test_every_kind_has_its_problems_and_what_is_true_of_them():
    for kind in accuracy.KINDS:
        *_, sample = accuracy.samples(kind, 1)
        assert sample.name == "draw 1"
        assert len(list(accuracy.samples(kind, 1))) == 1 + (kind == "regressions")
        bayes = sample.problem.bayes(sample.fresh_x)
        assert accuracy.expected_error(sample.problem, sample.posterior, sample.means, bayes) == sample.bayes_mse
        assert sample.bayes_mse == pytest.approx(sample.problem.bayes_mse(), rel=0.2)
        assert sample.problem.noise_df == (3.0 if kind == "t_noise" else None)
        assert len(sample.x) == accuracy.ROWS


def result(value=1.5, **more):
    row = {"refitted": value, "trained": float("nan"), "ratio_as_drawn": 1.0, "misrouted": 0.1, "log_likelihood": None}
    return {**row, "bayes_mse": 0.02, "chosen": {"l1_experts": 0.0}, "held_out": float("nan"), **more}


def test_accuracy_writes_null_for_nan_and_still_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "ratios", lambda *_: result())
    accuracy.main(["--draws", "1", "--kinds", "softmax", "--out", str(tmp_path)])
    text = (tmp_path / "accuracy.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["models"][0]["worst_trained"] is None
    assert (tmp_path / "accuracy.png").exists()


@pytest.mark.parametrize("kind", [RuntimeError, FloatingPointError])
def test_accuracy_names_the_problem_that_failed(kind, tmp_path, monkeypatch):
    def ratios(*_):
        raise kind("no fit is admissible")

    monkeypatch.setattr(accuracy, "ratios", ratios)
    monkeypatch.setattr(sys, "argv", ["accuracy.py", "--draws", "1", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: regressions, notebook, 500 \+ 500, softmax: no fit is admissible$"):
        accuracy.cli()


def test_programs_are_kept_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.undo()
    before = jax.config.jax_compilation_cache_dir
    for named, kept in ((str(tmp_path / "named"), tmp_path / "named"), (None, tmp_path / "user" / "moejax" / "programs")):
        with monkeypatch.context() as patch:
            patch.setattr(_cache, "_chosen", _cache._UNSET)
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
            patch.delenv("MOEJAX_CACHE")
            if named:
                patch.setenv("MOEJAX_CACHE", named)
            lambda_grid.keep_compiled_programs()
            assert _cache.folder() == kept
    assert jax.config.jax_compilation_cache_dir == before
