"""What the README shows runs, and is as short as it says."""

import contextlib
import io
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import moejax

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def run(block):
    scope, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, scope)
    return scope, printed.getvalue()


def block(text):
    """The one block that has this in it."""
    (found,) = [code for code in BLOCKS if text in code]
    return found


def test_ten_lines_choose_a_model_near_the_truth():
    assert len(block("300 fits, one program").strip().splitlines()) <= 10
    scope, printed = run(block("300 fits, one program"))
    assert scope["result"].shape == (3, 2, 10, 5)
    x, y, _ = scope["problem"].draw(5, 20_000)
    error = float(((scope["model"].predict(scope["best"].params, x) - y) ** 2).mean())
    assert error < 3 * 0.02167  # the Bayes error of this problem
    assert "l1_experts" in printed


@pytest.mark.usefixtures("quickly")
def test_a_dozen_lines_fit_by_likelihood():
    assert len(block("coefficient_path").strip().splitlines()) <= 15
    scope, printed = run(block("coefficient_path"))
    best, weights = scope["best"], scope["best"].params["experts"]["weights"]
    assert best.fit.admissible
    assert scope["along"].params["experts"]["weights"].shape == (30, *weights.shape)
    x, y, _ = scope["problem"].draw(5, 20_000)
    error = float(((scope["model"].predict(best.params, x) - y) ** 2).mean())
    assert error < 3 * 0.02167  # the Bayes error of this problem
    assert "l1_experts" in printed


@pytest.mark.usefixtures("quickly")
def test_the_estimator_beats_the_mean():
    pytest.importorskip("sklearn")
    _, printed = run(block("MoERegressor(n_experts=2"))
    assert float(printed.split()[0]) > 0.4  # R^2 over five folds


def test_a_tree_is_fitted_and_told():
    assert len(block("gate_tree").strip().splitlines()) <= 20
    scope, printed = run(block("gate_tree"))
    lines = printed.splitlines()[1:]
    assert len(lines) == 6
    assert sum("expert" in line for line in lines) == 4
    x, y, model = scope["x"], scope["y"], scope["model"]
    assert float(((model.predict(scope["best"].params, x) - y) ** 2).mean()) < 0.5  # least squares has 0.482


@pytest.mark.usefixtures("quickly")
def test_tied_coefficients_are_found_and_drawn():
    assert len(block("tied_groups").strip().splitlines()) <= 20
    scope, printed = run(block("tied_groups"))
    assert scope["best"].chosen["n_experts"] == 3
    assert scope["best"].chosen["n_groups"] == 3
    assert "n_groups" in printed
    values, groups, problem = scope["values"], scope["groups"], scope["problem"]
    for weights in problem.weights:
        found = np.take_along_axis(values[:3], groups[:3], axis=1)
        assert np.abs(found - weights).max(axis=1).min() < 0.1  # values are at least 1 apart


@pytest.mark.usefixtures("quickly")
def test_fitted_models_are_stacked_and_estimators_mixed():
    pytest.importorskip("sklearn")
    one, other = block("out_of_fold"), block("MoEEnsembleRegressor(")
    assert all(len(code.strip().splitlines()) <= 20 for code in (one, other))
    scope, printed = run(one)
    assert "l1_gate" in printed
    weights = scope["model"].gate_probs(scope["best"].params, scope["seen"])
    error = float(((scope["model"].predict(scope["best"].params, scope["seen"]) - scope["y"]) ** 2).mean())
    assert error < min(((scope["seen"]["predictions"] - scope["y"][:, None]) ** 2).mean(axis=0))
    assert weights.shape == (442, 2)
    _, printed = run(other)
    assert min(float(score) for score in printed.split()[:2]) > 0.35  # R^2 on the last rows


def test_an_expert_and_a_gate_of_ones_own_take_two_functions_each_and_can_be_fitted():
    code = [line for line in block("gate_logits").splitlines() if line.strip()]
    assert len(code) < 15
    scope, _ = run(block("gate_logits"))
    problem = moejax.datasets.three_regressions(0, n=100, d=3, n_experts=2, n_active=2)
    model, fit = scope["model"], moejax.fit_gradient(scope["model"], steps=300, learning_rate=0.05)
    got = fit(jax.random.key(0), problem.x, problem.y)
    assert float(got.objective) < 0.5 * float(got.history[0])
    assert model.gate_probs(got.params, problem.x).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_a_mixture_density_network_has_three_branches_where_there_are_three():
    code = block("inverse_sine")
    assert len(code.strip().splitlines()) <= 20
    scope, _ = run(code)
    peaks = moejax.pooling.modes(scope["model"], scope["best"], np.array([[0.5]])).at[0]
    assert sorted(map(float, peaks)) == pytest.approx([0.2096, 0.5, 0.7904], abs=0.03)  # of t + 0.3 sin(2 pi t) = 0.5
    assert scope["density"].shape == (101, 121)


@pytest.mark.usefixtures("quickly")
def test_an_interval_covers_as_many_rows_as_it_says():
    code = block("pooling.interval")
    assert len(code.strip().splitlines()) <= 20
    _, printed = run(code)
    covered = float(printed.split("covered:")[1].split()[0])
    assert covered == pytest.approx(0.9, abs=0.04)  # three standard errors of 500 rows


def test_the_widespread_mistake_is_named():
    _, printed = run(block("handwritten"))
    verdicts = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "gradient is off" in verdicts["gate.logits"]
    assert "agree" in verdicts["experts.weights"]


@pytest.mark.usefixtures("quickly")
def test_divisions_are_chosen_by_name():
    code = block("division.by_distance")
    assert len(code.strip().splitlines()) <= 20
    scope, printed = run(code)
    assert printed.count("'division': 'distance'") == 2  # clusters of inputs are what separates these regressions
    assert scope["best"].chosen["columns"] in (0, 1)
    x, y, _ = scope["problem"].draw(5, 20_000)
    error = float(((scope["model"].predict(scope["best"].params, x) - y) ** 2).mean())
    assert error < 6 * 0.02167  # the Bayes error of this problem; half of the columns may be gone


def test_rows_are_routed_to_two_experts_each():
    code = block("gates.top_k")
    assert len(code.strip().splitlines()) <= 20
    scope, printed = run(code)
    assert printed.count("expert ") == 4
    weights = scope["model"].gate_weights(scope["best"].params, scope["model"].prepare(scope["x"]))
    assert ((weights > 0).sum(axis=0) == 2).all()


def test_set_up_takes_exactly_two_commands_and_ci_runs_the_second():
    commands = re.findall(r"```sh\n(.*?)\n```", README, flags=re.S)
    assert len(commands) == 2
    assert commands[0].endswith("benchmarks/lambda_grid.py")
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert f"tests='{commands[1]}'" in script
