"""What the README shows runs, and is as short as it says."""

import contextlib
import io
import re
from pathlib import Path

import jax
import pytest

import moejax

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.S)


def run(block):
    scope, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, scope)
    return scope, printed.getvalue()


def test_ten_lines_choose_a_model_near_the_truth():
    assert len(BLOCKS[0].strip().splitlines()) <= 10
    scope, printed = run(BLOCKS[0])
    assert scope["result"].shape == (3, 2, 10, 5)
    x, y, _ = scope["problem"].draw(5, 20_000)
    error = float(((scope["model"].predict(scope["best"].params, x) - y) ** 2).mean())
    assert error < 3 * 0.02167  # the Bayes error of this problem
    assert "l1_experts" in printed


def test_a_dozen_lines_fit_by_likelihood():
    assert len(BLOCKS[1].strip().splitlines()) <= 15
    scope, printed = run(BLOCKS[1])
    best, weights = scope["best"], scope["best"].params["experts"]["weights"]
    assert best.fit.admissible
    assert scope["along"].params["experts"]["weights"].shape == (30, *weights.shape)
    x, y, _ = scope["problem"].draw(5, 20_000)
    error = float(((scope["model"].predict(best.params, x) - y) ** 2).mean())
    assert error < 3 * 0.02167  # the Bayes error of this problem
    assert "l1_experts" in printed


def test_the_estimator_beats_the_mean():
    pytest.importorskip("sklearn")
    _, printed = run(BLOCKS[2])
    assert float(printed.split()[0]) > 0.4  # R^2 over five folds


def test_a_tree_is_fitted_and_told():
    assert len(BLOCKS[3].strip().splitlines()) <= 20
    scope, printed = run(BLOCKS[3])
    lines = printed.splitlines()[1:]
    assert len(lines) == 6
    assert sum("expert" in line for line in lines) == 4
    x, y, model = scope["x"], scope["y"], scope["model"]
    assert float(((model.predict(scope["best"].params, x) - y) ** 2).mean()) < 0.5  # least squares has 0.482


def test_fitted_models_are_stacked_and_estimators_mixed():
    pytest.importorskip("sklearn")
    assert all(len(BLOCKS[i].strip().splitlines()) <= 20 for i in (4, 5))
    scope, printed = run(BLOCKS[4])
    assert "l1_gate" in printed
    weights = scope["model"].gate_probs(scope["best"].params, scope["seen"])
    error = float(((scope["model"].predict(scope["best"].params, scope["seen"]) - scope["y"]) ** 2).mean())
    assert error < min(((scope["seen"]["predictions"] - scope["y"][:, None]) ** 2).mean(axis=0))
    assert weights.shape == (442, 2)
    _, printed = run(BLOCKS[5])
    assert min(float(score) for score in printed.split()[:2]) > 0.35  # R^2 on the last rows


def test_an_expert_and_a_gate_of_ones_own_take_two_functions_each_and_can_be_fitted():
    code = [line for line in BLOCKS[6].splitlines() if line.strip()]
    assert len(code) < 15
    scope, _ = run(BLOCKS[6])
    problem = moejax.datasets.three_regressions(0, n=100, d=3, n_experts=2, n_active=2)
    model, fit = scope["model"], moejax.fit_gradient(scope["model"], steps=300, learning_rate=0.05)
    got = fit(jax.random.key(0), problem.x, problem.y)
    assert float(got.objective) < 0.5 * float(got.history[0])
    assert model.gate_probs(got.params, problem.x).sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_widespread_mistake_is_named():
    _, printed = run(BLOCKS[7])
    verdicts = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert "gradient is off" in verdicts["gate.logits"]
    assert "agree" in verdicts["experts.weights"]


def test_set_up_takes_exactly_two_commands_and_ci_runs_the_second():
    commands = re.findall(r"```sh\n(.*?)\n```", README, flags=re.S)
    assert len(commands) == 2
    assert commands[0].endswith("benchmarks/lambda_grid.py")
    script = (Path(__file__).parent.parent / ".ci" / "run").read_text()
    assert f"tests='{commands[1]}'" in script
