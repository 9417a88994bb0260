"""Data sets against published figures, closed forms and the files they were read from."""

from __future__ import annotations

import ast
import csv
import importlib.util
import io
import json
import math
import sys
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from moejax import data, datasets

TRUTH = json.loads(datasets.data_path("three_regressions.json").read_text(encoding="utf-8"))


def correlated(d: int) -> np.ndarray:
    """A covariance with unequal variances and correlations of both signs."""
    sd = np.linspace(0.5, 2.0, d)
    return np.outer(sd, sd) * (-0.6) ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))


def normal_cdf(z: float) -> float:
    return math.erfc(-z / math.sqrt(2)) / 2


def test_the_module_imports_numpy_and_the_standard_library_only() -> None:
    files = [Path(datasets.__file__), *Path(data.__file__).parent.glob("*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert others == {"numpy", "moejax"}


# The packaged sample


def test_notebook_reaches_the_published_errors_on_its_test_rows() -> None:
    problem, parts = datasets.notebook()
    x, y, expert = (a[parts.test] for a in (problem.x, problem.y, problem.expert))
    assert np.mean((problem.bayes(x) - y) ** 2) == pytest.approx(TRUTH["bayes_test_mse"], rel=1e-6)
    oracle = np.sum(x * np.array(TRUTH["weights"])[expert], axis=1)
    assert np.mean((oracle - y) ** 2) == pytest.approx(TRUTH["oracle_test_mse"], rel=1e-12)


def test_notebook_has_the_published_long_run_error_and_misrouting() -> None:
    problem, _ = datasets.notebook()
    # An estimate from 200,000 rows has a standard error of about 0.0005.
    assert problem.bayes_mse() == pytest.approx(TRUTH["bayes_mse"], abs=0.002)
    n = 100_000
    x, _, expert = problem.draw(1, n)
    share = TRUTH["share_misrouted_by_bayes"]
    misrouted = np.mean(problem.posterior(x).argmax(axis=1) != expert)
    assert misrouted == pytest.approx(share, abs=4 * math.sqrt(share / n))


def test_notebook_is_the_file_to_the_last_bit_of_float32() -> None:
    problem, parts = datasets.notebook()
    file = np.loadtxt(datasets.data_path("three_regressions.csv"), delimiter=",", skiprows=1, dtype=np.float32)
    np.testing.assert_array_equal(problem.x, file[:, :10])
    np.testing.assert_array_equal(problem.y, file[:, 10])
    np.testing.assert_array_equal(problem.expert, file[:, 11])
    assert problem.x.dtype == problem.y.dtype == np.float64
    assert [(part[0], part[-1], part.size) for part in parts] == [(0, 499, 500), (500, 999, 500), (1000, 1499, 500)]


def test_diabetes_is_the_published_table() -> None:
    table = datasets.diabetes()
    assert table.x.shape == (442, 10)
    assert table.feature_names == ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    assert table.target_name == "progression"
    # Table 1 of Efron et al. (2004), which rounds s5 to one digit: the first, the second and the last patient.
    published = [
        [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.9, 87, 151],
        [48, 1, 21.6, 87, 183, 103.2, 70, 3, 3.9, 69, 75],
        [36, 1, 19.6, 71, 250, 133.2, 97, 3, 4.6, 92, 57],
    ]
    rows = np.column_stack([table.x, table.y])[[0, 1, -1]]
    rows[:, 8] = rows[:, 8].round(1)
    np.testing.assert_array_equal(rows, published)
    # R's lm and lars report a multiple R-squared of 0.5177 for all ten features.
    design = np.column_stack([np.ones(442), table.x])
    residuals = table.y - design @ np.linalg.lstsq(design, table.y, rcond=None)[0]
    assert round(1 - residuals.var() / table.y.var(), 4) == 0.5177


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_diabetes_equals_scikit_learns() -> None:
    from sklearn.datasets import load_diabetes

    theirs, ours = load_diabetes(scaled=False), datasets.diabetes()
    np.testing.assert_array_equal(ours.x, theirs.data)
    np.testing.assert_array_equal(ours.y, theirs.target)
    assert list(ours.feature_names) == theirs.feature_names


def test_data_path_lists_what_there_is() -> None:
    with pytest.raises(FileNotFoundError, match=r"name: 'iris\.csv' was given; want one of 'diabetes\.csv'"):
        datasets.data_path("iris.csv")


# Problems drawn at random


@pytest.mark.parametrize("covariance", [None, correlated(4)], ids=["identity", "correlated"])
def test_fresh_rows_have_the_moments_of_the_truth(covariance: np.ndarray | None) -> None:
    n, d, k = 60_000, 4, 3
    problem = datasets.three_regressions(5, d=d, n_experts=k, n_active=2, covariance=covariance, noise_sd=0.3)
    truth = np.eye(d) if covariance is None else covariance
    x, y, expert = problem.draw(5, n)
    counts = np.bincount(expert, minlength=k)
    assert np.all(np.abs(counts / n - 1 / k) < 5 * math.sqrt(1 / k * (1 - 1 / k) / n))
    variances = np.diag(truth)
    for expert_number, count in enumerate(counts):
        own = x[expert == expert_number]
        # The standard errors of a normal sample's mean and covariance.
        assert np.all(np.abs(own.mean(axis=0) - problem.gate.means[expert_number]) < 5 * np.sqrt(variances / count))
        standard_error = np.sqrt((np.outer(variances, variances) + truth**2) / count)
        assert np.all(np.abs(np.cov(own.T) - truth) < 5 * standard_error)
    noise = y - np.einsum("nd,nd->n", x, problem.weights[expert])
    assert abs(noise.mean()) < 5 * 0.3 / math.sqrt(n)
    assert noise.var() == pytest.approx(0.09, rel=5 * math.sqrt(2 / n))
    assert np.all(np.abs(noise @ (x - problem.gate.means[expert]) / n) < 5 * 0.3 * np.sqrt(variances / n))


def test_the_problems_own_rows_come_from_its_truth() -> None:
    problem = datasets.three_regressions(2, n=400, noise_sd=0.0)
    np.testing.assert_allclose(problem.y, np.einsum("nd,nd->n", problem.x, problem.weights[problem.expert]), rtol=1e-12)
    own_mean = np.stack([problem.x[problem.expert == k].mean(axis=0) for k in range(3)])
    assert np.abs(own_mean - problem.gate.means).max() < 5 / math.sqrt(100)
    assert problem.x.shape == (400, 10)
    assert problem.y.shape == problem.expert.shape == (400,)
    assert problem.expert.dtype == np.int64


def test_means_and_weights_have_the_sizes_asked_for() -> None:
    many = datasets.three_regressions(0, n=1, d=50, n_experts=40, n_active=25, separation=3.0)
    assert many.gate.means.std() == pytest.approx(3.0, rel=5 / math.sqrt(2 * 2000))
    assert many.weights[many.weights != 0].std() == pytest.approx(1.0, rel=5 / math.sqrt(2 * 1000))


@pytest.mark.parametrize(("d", "n_active"), [(10, 4), (10, 1), (5, 5)])
def test_active_features(d: int, n_active: int) -> None:
    for seed in range(5):
        own = datasets.three_regressions(seed, n=2, d=d, n_active=n_active).weights != 0
        shared = datasets.three_regressions(seed, n=2, d=d, n_active=n_active, shared_active=True).weights != 0
        assert np.all(own.sum(axis=1) == n_active)
        assert np.all(shared.sum(axis=1) == n_active)
        assert np.all(shared == shared[0])
    drawn = {
        tuple(row) for s in range(20) for row in datasets.three_regressions(s, n=2, d=d, n_active=n_active).weights != 0
    }
    assert len(drawn) >= min(10, math.comb(d, n_active))


def test_the_same_seed_gives_the_same_data_and_another_gives_other_data() -> None:
    first, again, other = (datasets.three_regressions(seed) for seed in (3, 3, 4))
    for name in ("x", "y", "expert", "weights", "gate.means", "gate.covariance"):
        np.testing.assert_array_equal(attrgetter(name)(first), attrgetter(name)(again))
    assert not np.array_equal(first.x, other.x)
    assert not np.array_equal(first.gate.means, other.gate.means)
    for a, b in zip(first.draw(1, 20), again.draw(1, 20), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.bayes_mse(1, 1000) == again.bayes_mse(1, 1000) != first.bayes_mse(2, 1000)
    np.testing.assert_array_equal(first.gate.means, datasets.three_regressions(3, n=7).gate.means)
    np.testing.assert_array_equal(first.weights, datasets.three_regressions(3, n=7).weights)


def test_a_seed_sequence_is_a_seed_and_is_left_as_it_was() -> None:
    sequence = np.random.SeedSequence(3)
    child = np.random.SeedSequence(3).spawn(1)[0]
    np.testing.assert_array_equal(datasets.three_regressions(sequence).x, datasets.three_regressions(3).x)
    np.testing.assert_array_equal(datasets.three_regressions(sequence).x, datasets.three_regressions(3).x)
    assert sequence.n_children_spawned == 0
    assert not np.array_equal(datasets.three_regressions(child).x, datasets.three_regressions(3).x)


def test_fresh_rows_do_not_repeat_the_noise_of_the_problem() -> None:
    problem = datasets.three_regressions(0, n=300, d=1, n_experts=1, n_active=1, noise_sd=1.0)
    x, y, _ = problem.draw(0, 300)
    own = np.concatenate([problem.x[:, 0] - problem.gate.means[0, 0], problem.y - problem.x @ problem.weights[0]])
    fresh = np.concatenate([x[:, 0] - problem.gate.means[0, 0], y - x @ problem.weights[0]])
    # Were one stream used twice, numbers would come back up to rounding, perhaps at another place.
    assert np.abs(np.subtract.outer(own, fresh)).min() > 1e-12


# The Bayes predictor


@pytest.mark.parametrize("covariance", [None, correlated(3)], ids=["identity", "correlated"])
def test_posterior_is_bayes_rule_on_normal_densities(covariance: np.ndarray | None) -> None:
    problem = datasets.three_regressions(1, d=3, n_experts=4, n_active=2, covariance=covariance, separation=0.7)
    truth = np.eye(3) if covariance is None else covariance
    for x in ([0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [-0.3, 0.2, 2.5]):
        densities = [
            math.exp(-(x - mean) @ np.linalg.inv(truth) @ (x - mean) / 2)
            / math.sqrt((2 * math.pi) ** 3 * np.linalg.det(truth))
            for mean in problem.gate.means
        ]
        posterior = [density / sum(densities) for density in densities]
        np.testing.assert_allclose(problem.posterior(np.array([x]))[0], posterior, rtol=1e-10)
        bayes = sum(p * (w @ x) for p, w in zip(posterior, problem.weights, strict=True))
        assert problem.bayes(np.array([x]))[0] == pytest.approx(bayes, rel=1e-10)


def test_posterior_far_from_every_mean_is_finite() -> None:
    problem = datasets.three_regressions(0)
    posterior = problem.posterior(np.full((1, 10), 1e6))
    np.testing.assert_allclose(posterior.sum(), 1.0)
    assert posterior.max() == 1.0


def test_without_separation_the_inputs_say_nothing() -> None:
    problem = datasets.three_regressions(0, d=4, n_active=3, covariance=correlated(4), separation=0.0, noise_sd=0.2)
    np.testing.assert_allclose(problem.posterior(problem.x), 1 / 3, rtol=1e-12)
    # Then E[y | x] is linear, with the mean of the weights, and what is lost is known in closed form.
    apart = problem.weights - problem.weights.mean(axis=0)
    lost = np.mean(np.sum(apart @ correlated(4) * apart, axis=1))
    np.testing.assert_allclose(problem.bayes(problem.x), problem.x @ problem.weights.mean(axis=0), rtol=1e-9, atol=1e-12)
    assert problem.bayes_mse(n=100_000) == pytest.approx(0.04 + lost, rel=0.03)


def test_one_expert_leaves_the_noise_alone() -> None:
    problem = datasets.three_regressions(0, n_experts=1, noise_sd=0.7)
    assert problem.bayes_mse(n=100) == pytest.approx(0.49, rel=1e-12)
    np.testing.assert_allclose(problem.bayes(problem.x), problem.x @ problem.weights[0], rtol=1e-12)


def test_two_experts_are_misrouted_as_often_as_their_distance_says() -> None:
    n, covariance = 60_000, correlated(3)
    problem = datasets.three_regressions(4, d=3, n_experts=2, n_active=2, covariance=covariance, separation=0.3)
    x, _, expert = problem.draw(0, n)
    apart = problem.gate.means[0] - problem.gate.means[1]
    share = normal_cdf(-math.sqrt(apart @ np.linalg.inv(covariance) @ apart) / 2)
    assert 0.02 < share < 0.48
    misrouted = np.mean(problem.posterior(x).argmax(axis=1) != expert)
    assert misrouted == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))


def test_bayes_mse_is_the_error_on_fresh_targets_and_below_that_of_others() -> None:
    problem = datasets.three_regressions(6, d=4, n_experts=3, n_active=2, separation=0.8, noise_sd=0.5)
    x, y, _ = problem.draw(0, 100_000)
    squares = (problem.bayes(x) - y) ** 2
    assert problem.bayes_mse() == pytest.approx(squares.mean(), abs=5 * squares.std() / math.sqrt(squares.size))
    hard = np.einsum("nd,nd->n", x, problem.weights[problem.posterior(x).argmax(axis=1)])
    linear = x @ np.linalg.lstsq(x, y, rcond=None)[0]
    assert problem.bayes_mse() < min(np.mean((hard - y) ** 2), np.mean((linear - y) ** 2))


# Kinds of problems: where the experts live, and how the noise is distributed

KINDS = {
    "clusters, normal noise": (datasets.three_regressions, {"separation": 0.6}),
    "clusters, t noise": (datasets.three_regressions, {"separation": 0.6, "noise_df": 9.0}),
    "softmax gate, normal noise": (datasets.softmax_regressions, {}),
    "softmax gate, t noise": (datasets.softmax_regressions, {"noise_df": 9.0}),
    "softmax gate, correlated": (datasets.softmax_regressions, {"covariance": correlated(4), "sharpness": 2.0}),
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> datasets.Problem:
    draw, more = request.param
    return draw(5, n=200, d=4, n_active=2, noise_sd=0.3, **more)


def noise_density(z: float, df: float | None) -> float:
    """Of standard deviation 1."""
    if df is None:
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    scale = math.sqrt((df - 2) / df)
    constant = math.gamma((df + 1) / 2) / (math.gamma(df / 2) * math.sqrt(df * math.pi))
    return constant * (1 + (z / scale) ** 2 / df) ** (-(df + 1) / 2) / scale


def test_probabilities_of_each_kind_are_those_of_bayes_rule(kind: datasets.Problem) -> None:
    x, y, _ = kind.draw(1, 20)
    for row, target in zip(x, y, strict=True):
        if isinstance(kind.gate, datasets.SoftmaxGate):
            joint = [math.exp(row @ v) for v in kind.gate.weights]
        else:
            inverse = np.linalg.inv(kind.gate.covariance)
            joint = [math.exp(-(row - mean) @ inverse @ (row - mean) / 2) for mean in kind.gate.means]
        prior = np.array(joint) / sum(joint)
        densities = [noise_density((target - row @ w) / kind.noise_sd, kind.noise_df) / kind.noise_sd for w in kind.weights]
        np.testing.assert_allclose(kind.posterior(row[None])[0], prior, rtol=1e-9)
        assert kind.log_prob(row[None], target[None])[0] == pytest.approx(math.log(prior @ densities), rel=1e-9)
        share = prior * densities / (prior @ densities)
        np.testing.assert_allclose(kind.responsibilities(row[None], target[None])[0], share, rtol=1e-9, atol=1e-300)


def test_densities_integrate_to_one_and_to_the_bayes_predictor(kind: datasets.Problem) -> None:
    y = np.linspace(-60.0, 60.0, 60_001)
    for row in kind.x[:5]:
        density = np.exp(kind.log_prob(np.broadcast_to(row, (y.size, row.size)), y)) * (y[1] - y[0])
        assert density.sum() == pytest.approx(1, abs=1e-6)
        assert density @ y == pytest.approx(kind.bayes(row[None])[0], abs=1e-5)


def test_fresh_rows_of_each_kind_have_the_moments_of_the_truth(kind: datasets.Problem) -> None:
    n = 60_000
    x, y, expert = kind.draw(2, n)
    assert x.shape == (n, 4)
    assert expert.dtype == np.int64
    # What is left of the expert, its probability taken off, is 0 on average, whatever it is multiplied by.
    apart = np.eye(3)[expert] - kind.posterior(x)
    for values in (apart, *(apart * column[:, None] for column in x.T)):
        assert np.all(np.abs(values.mean(axis=0)) < 5 * values.std(axis=0) / math.sqrt(n))
    if isinstance(kind.gate, datasets.SoftmaxGate):
        truth = kind.gate.covariance
        variances = np.diag(truth)
        assert np.all(np.abs(x.mean(axis=0)) < 5 * np.sqrt(variances / n))
        assert np.all(np.abs(np.cov(x.T) - truth) < 5 * np.sqrt((np.outer(variances, variances) + truth**2) / n))
    noise = (y - np.einsum("nd,nd->n", x, kind.weights[expert])) / kind.noise_sd
    kurtosis = 3.0 if kind.noise_df is None else 3 + 6 / (kind.noise_df - 4)
    assert abs(noise.mean()) < 5 / math.sqrt(n)
    assert noise.var() == pytest.approx(1, abs=5 * math.sqrt((kurtosis - 1) / n))
    own = (kind.y - np.einsum("nd,nd->n", kind.x, kind.weights[kind.expert])) / kind.noise_sd
    assert own.var() == pytest.approx(1, abs=5 * math.sqrt((kurtosis - 1) / len(own)))


def test_bayes_mse_of_each_kind_is_the_error_on_fresh_targets(kind: datasets.Problem) -> None:
    x, y, _ = kind.draw(0, 100_000)
    squares = (kind.bayes(x) - y) ** 2
    assert kind.bayes_mse() == pytest.approx(squares.mean(), abs=5 * squares.std() / math.sqrt(squares.size))


def test_t_noise_has_the_quantiles_of_its_distribution() -> None:
    n = 40_000
    problem = datasets.three_regressions(0, n_experts=1, noise_sd=2.0, noise_df=3.0)
    x, y, _ = problem.draw(0, n)
    z = np.abs(y - x @ problem.weights[0]) * math.sqrt(3) / 2.0  # a t variable of 3 degrees of freedom
    for t in (0.2, 0.765, 2.353, 5.841):
        share = 2 / math.pi * (t / math.sqrt(3) / (1 + t * t / 3) + math.atan(t / math.sqrt(3)))
        assert np.mean(z < t) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / n))
    assert problem.bayes_mse(n=10) == pytest.approx(4.0)


def test_noise_of_many_degrees_of_freedom_is_normal() -> None:
    normal, student = (datasets.three_regressions(0, n=50, noise_df=df) for df in (None, 1e7))
    np.testing.assert_array_equal(normal.x, student.x)
    np.testing.assert_array_equal(normal.weights, student.weights)
    np.testing.assert_allclose(student.log_prob(normal.x, normal.y), normal.log_prob(normal.x, normal.y), rtol=1e-4)


def test_the_softmax_gate_is_neither_flat_nor_separated() -> None:
    problems = [datasets.softmax_regressions(seed, n=4000) for seed in range(12)]
    for problem in problems:
        right = problem.posterior(problem.x).max(axis=1).mean()
        assert 0.8 < right < 0.89
        assert np.bincount(problem.expert).min() > 0.15 * 4000
        assert np.all((problem.weights != 0).sum(axis=1) == 4)
    flat = datasets.softmax_regressions(0, sharpness=0.0)
    np.testing.assert_allclose(flat.posterior(flat.x), 1 / 3)
    assert np.array_equal(problems[3].weights, datasets.softmax_regressions(3, n=7).weights)


# Splits


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (1.0, 0.0, 0.0), (0.5, 0.0, 0.5), (1 / 3, 1 / 3, 1 / 3)])
@pytest.mark.parametrize("n", [5, 11, 442])
def test_split_covers_every_row_once(n: int, fractions: tuple[float, ...]) -> None:
    parts = datasets.split(n, 0, fractions)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    for part, fraction in zip(parts, fractions, strict=True):
        assert abs(part.size - n * fraction) <= 1
        assert part.dtype == np.int64
        assert (part.size == 0) == (fraction == 0)


def test_split_is_random_and_repeatable() -> None:
    first, again, other = (datasets.split(100, seed) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(first.train) != set(other.train)
    # Each row is in training with probability 0.6: over 400 seeds its share has standard error 0.0245.
    share = np.mean([np.isin(np.arange(20), datasets.split(20, seed).train) for seed in range(400)], axis=0)
    assert np.abs(share - 0.6).max() < 5 * 0.0245


BAD_ARGUMENTS = [
    (lambda: datasets.three_regressions(-1), r"seed: -1 was given; want a whole number of at least 0"),
    (lambda: datasets.three_regressions(1.5), r"seed: 1\.5 was given"),
    (lambda: datasets.three_regressions(None), r"seed: None was given"),
    (lambda: datasets.three_regressions(0, n=0), r"n: 0 was given"),
    (lambda: datasets.three_regressions(0, d=0), r"d: 0 was given"),
    (lambda: datasets.three_regressions(0, n_experts=0), r"n_experts: 0 was given"),
    (lambda: datasets.three_regressions(0, n_active=0), r"n_active: 0 was given"),
    (lambda: datasets.three_regressions(0, d=3), r"n_active: 4 was given; want at most d, which is 3"),
    (lambda: datasets.three_regressions(0, noise_sd=-0.1), r"noise_sd: -0\.1 was given"),
    (lambda: datasets.three_regressions(0, noise_sd=math.nan), r"noise_sd: .* NaN or infinite"),
    (lambda: datasets.three_regressions(0, noise_sd=[0.1, 0.2]), r"noise_sd: shape \(2,\) was given; want \(\)"),
    (lambda: datasets.three_regressions(0, separation=-1.0), r"separation: -1\.0 was given"),
    (lambda: datasets.three_regressions(0, covariance=np.eye(3)), r"covariance: shape \(3, 3\) .* want \(10, 10\)"),
    (lambda: datasets.three_regressions(0, covariance=np.full((10, 10), math.inf)), r"covariance: .* infinite"),
    (lambda: datasets.three_regressions(0, covariance=np.tri(10)), r"covariance: .* want a symmetric one"),
    (lambda: datasets.three_regressions(0, covariance=np.ones((10, 10))), r"covariance: .* want a positive definite"),
    (lambda: datasets.three_regressions(0, covariance=-np.eye(10)), r"covariance: .* want a positive definite"),
    (lambda: datasets.three_regressions(0).draw(0, -5), r"n: -5 was given"),
    (lambda: datasets.three_regressions(0).draw(True, 5), r"seed: True was given"),
    (lambda: datasets.three_regressions(0).bayes_mse(n=0), r"n: 0 was given"),
    (lambda: datasets.three_regressions(0).bayes(np.zeros((2, 9))), r"x: shape \(2, 9\) .* want \(any, 10\)"),
    (lambda: datasets.three_regressions(0).posterior(np.zeros(10)), r"x: shape \(10,\) .* want \(any, 10\)"),
    (lambda: datasets.three_regressions(0).posterior(np.full((1, 10), math.nan)), r"x: .* NaN"),
    (lambda: datasets.three_regressions(0, noise_df=2.0), r"noise_df: 2\.0 was given, .*; want more than 2"),
    (lambda: datasets.three_regressions(0, noise_df=math.inf), r"noise_df: .* infinite"),
    (lambda: datasets.softmax_regressions(0, sharpness=-1.0), r"sharpness: -1\.0 was given"),
    (lambda: datasets.softmax_regressions(0, d=3), r"n_active: 4 was given; want at most d, which is 3"),
    (lambda: datasets.softmax_regressions(0, covariance=np.ones((10, 10))), r"covariance: .* want a positive definite"),
    (lambda: datasets.softmax_regressions(0).log_prob(np.zeros((2, 10)), np.zeros(3)), r"y: shape \(3,\) .* want \(2,\)"),
    (lambda: datasets.softmax_regressions(0).responsibilities(np.zeros((1, 10)), [math.nan]), r"y: .* NaN"),
    (lambda: datasets.three_regressions(0, noise_sd=0.0).log_prob(np.zeros((1, 10)), [0.0]), r"noise_sd: 0 was given"),
    (lambda: datasets.split(0, 0), r"n: 0 was given"),
    (lambda: datasets.split(10, -1), r"seed: -1 was given"),
    (lambda: datasets.split(10, 0, (0.5, 0.5)), r"fractions: shape \(2,\) was given; want \(3,\)"),
    (
        lambda: datasets.split(10, 0, (0.5, 0.2, 0.2)),
        r"fractions: \(0\.5, 0\.2, 0\.2\) .* sums to 0\.9; want a sum of 1",
    ),
    (lambda: datasets.split(10, 0, (1.2, -0.1, -0.1)), r"fractions: -0\.1 was given"),
    (lambda: datasets.split(10, 0, (0.0, 0.5, 0.5)), r"fractions: .* want a training fraction above 0"),
    (lambda: datasets.split(10, 0, (math.nan, 0.5, 0.5)), r"fractions: .* NaN"),
    (lambda: datasets.split(2, 0), r"n: 2 rows leave none for test at a fraction of 0\.2; want more rows"),
]


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS, ids=[message for _, message in BAD_ARGUMENTS])
def test_bad_arguments(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


# Reading files


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_read_csv_takes_the_target_out_and_keeps_the_order(tmp_path: Path) -> None:
    table = datasets.read_csv(write(tmp_path / "t.csv", "a,y,b\n1,2,3\n-4e-3,5, 6 \n"), "y")
    np.testing.assert_array_equal(table.x, [[1, 3], [-0.004, 6]])
    np.testing.assert_array_equal(table.y, [2, 5])
    assert table.feature_names == ("a", "b")
    assert table.target_name == "y"
    assert table.x.dtype == table.y.dtype == np.float64


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa,y\n1,2\n3,4\n",
        "a,y\r\n1,2\r\n3,4\r\n",
        "a,y\n1,2\n3,4",
        "a,y\n1,2\n3,4\n\n\r\n  \n",
        '"a","y"\n"1","2"\n"3","4"\n',
        '\ufeff"a",y\r\n"1",2\r\n3,"4"\r\n\r\n',
    ],
    ids=["byte-order mark", "CRLF", "no last line ending", "blank last lines", "quotes", "all of these"],
)
def test_read_csv_takes_files_as_programs_write_them(tmp_path: Path, text: str) -> None:
    table = datasets.read_csv(str(write(tmp_path / "t.csv", text)), "y")
    np.testing.assert_array_equal(table.x, [[1], [3]])
    np.testing.assert_array_equal(table.y, [2, 4])
    assert table.feature_names == ("a",)


def test_text_becomes_indicators_on_request(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv", 'colour,size,y,one\nred,1,1,same\nblue,2,2,same\n"light, green",3,3,same\nred,4,4,same\n'
    )
    table = datasets.read_csv(path, "y", indicators=True)
    assert table.feature_names == ("colour=light, green", "colour=red", "size")
    np.testing.assert_array_equal(table.x, [[0, 1, 1], [0, 0, 2], [1, 0, 3], [0, 1, 4]])


BAD_FILES: list[tuple[str, str | bytes, bool, list[str]]] = [
    ("empty", "", False, ["the file is empty"]),
    ("only blank lines", "\n\r\n \n", False, ["the file is empty"]),
    ("only a byte-order mark", "\ufeff", False, ["the file is empty"]),
    ("blank first line", "\na,y\n1,2\n3,4\n", False, ["the first line is blank", "want a header"]),
    ("no header", "1,2.5\n3,4\n", False, ["the first line holds only numbers ('1', '2.5')", "want a header"]),
    ("same name twice", "a,y,a,b,b\n1,2,3,4,5\n", False, ["more than one column is named 'a', 'b'", "want names that"]),
    ("no name", ",a,y\n0,1,2\n1,3,4\n", False, ["column 1 of 3 has an empty name", "want a name for every column"]),
    ("no target", "a,b\n1,2\n3,4\n", False, ["target: 'y' was given", "t.csv, which has 'a', 'b'"]),
    ("other delimiter", "a;y\n1;2\n", False, ["target: 'y' was given", "which has 'a;y'"]),
    ("many columns", ",".join(f"c{i}" for i in range(25)), False, ["'c18', 'c19' and 5 more"]),
    ("only the target", "y\n1\n2\n", False, ["target 'y' is the only column", "at least one feature column"]),
    ("no rows", "a,y\n\n", False, ["column names but no rows", "want at least two rows"]),
    ("short row", "a,y\n1,2\n3\n4,5,6\n", False, ["line 3 has 1 cells", "1 more such line in the file", "want 2"]),
    ("blank line within", "a,y\n1,2\n\n3,4\n", False, ["line 3 has 0 cells", "want 2"]),
    ("long row", "a,y\n1,2\n3,4,5\n", False, ["line 3 has 3 cells; want 2, one for each column"]),
    ("row after a cell of two lines", '"a\nb",y\n1,2\n3\n', False, ["line 4 has 1 cells"]),
    ("text among numbers", "a,y\n1,2\nten,3\n?,4\n", False,
     ["line 3, column 'a': 'ten' was given", "1 more such cell in the file", "want a finite number"]),
    ("text among target's", "a,y\n1,2\n2,two\n", False, ["line 3, column 'y': 'two' was given; want a finite number"]),
    ("underscore", "a,y\n1,2\n1_000,3\n", False, ["line 3, column 'a': '1_000' was given"]),
    ("decimal comma", 'a,y\n1,2\n"1,5",3\n', False, ["line 3, column 'a': '1,5' was given"]),
    ("empty cell", "a,b,y\n1,1,2\n3,,4\n,5,6\n,7,8\n", False,
     ["line 3, column 'b': an empty cell was given", "2 more such cells in the file", "want a finite number"]),
    ("blank cell", "a,y\n1,2\n  ,3\n", False, ["line 3, column 'a': an empty cell was given"]),
    ("nothing but empty cells", "a,y\n,2\n,3\n", True, ["line 2, column 'a': an empty cell", "want a finite number"]),
    ("empty target", "a,y\n1,\n2,\n", False, ["line 2, column 'y': an empty cell was given"]),
    ("NaN", "a,y\n1,2\nNaN,3\n", False, ["line 3, column 'a': 'NaN' was given; want a finite number"]),
    ("infinity", "a,y\n1,2\n2,-inf\n", False, ["line 3, column 'y': '-inf' was given; want a finite number"]),
    ("overflow", "a,y\n1,2\n1e999,3\n", False, ["line 3, column 'a': '1e999' was given"]),
    ("text columns", "a,b,c,y\nu,1,w,2\nv,2,z,3\n", False, ["text", "in column 'a', 'c'", "want", "indicators=True"]),
    ("empty level", "a,b,y\nu,1,2\n,2,3\n", True, ["line 3, column 'a': an empty cell", "want the name of a level"]),
    ("NaN as a level", "a,b,y\nu,1,2\nnan,2,3\n", True, ["line 3, column 'a': 'nan'", "want the name of a level"]),
    ("one level only", "a,y\nu,2\nu,3\n", True, ["no feature is left", "at least one feature column"]),
    ("indicator of a taken name", "a,a=v,y\nu,1,2\nv,2,3\n", True, ["more than one column is named 'a=v'"]),
    ("text target", "a,y\n1,\n2,low\n", True, ["target column 'y' holds text, such as 'low'", "want a column"]),
    ("constant target", "a,y\n1,2.5\n2,2.5\n", False, ["column 'y'", "same number, 2.5, in each of 2 rows", "want"]),
    ("one row", "a,y\n1,2\n", False, ["same number, 2, in each of 1 rows", "at least two different numbers"]),
    ("open quote", 'a,y\n1,2\n"3,4\n5,6\n', False, ["line 3:", "want comma-separated cells, quotes closed"]),
    ("not UTF-8", b"a,y\n1,2\n\xff,3\n", False, ["can't decode", "want a text file in UTF-8"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "indicators", "fragments"), [b[1:] for b in BAD_FILES], ids=[b[0] for b in BAD_FILES])
def test_bad_files(tmp_path: Path, text: str | bytes, indicators: bool, fragments: list[str]) -> None:
    path = write(tmp_path / "t.csv", text)
    with pytest.raises(ValueError, match=r"t\.csv") as error:
        datasets.read_csv(path, "y", indicators=indicators)
    message = str(error.value)
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: .*absent\.csv' was given, but there is no such file; want"):
        datasets.read_csv(tmp_path / "absent.csv", "y")
    with pytest.raises(FileNotFoundError, match=r"path: .* was given, but it is a folder; want"):
        datasets.read_csv(tmp_path, "y")


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# Names and levels of any characters that a UTF-8 file can hold, quotes, commas and line endings above all; a byte-order
# mark in front of the first name is one that readers drop.
words = st.text(
    st.sampled_from("ab\"',;\n\r =\té") | st.characters(codec="utf-8", exclude_characters="\ufeff\0"), min_size=1
)
words = words.filter(lambda word: word.strip() != "" and not is_number(word))
numbers = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[float]], list[str]]:
    """Names of the columns, the last of them text; the rows of the numeric ones; the cells of the text one."""
    names = draw(st.lists(words, min_size=3, max_size=5, unique=True))
    n = draw(st.integers(2, 5))
    row = st.lists(numbers, min_size=len(names) - 1, max_size=len(names) - 1)
    rows = draw(st.lists(row, min_size=n, max_size=n).filter(lambda rows: len({row[0] for row in rows}) > 1))
    return names, rows, draw(st.lists(words, min_size=n, max_size=n))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables(), mark=st.booleans(), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_read_csv_reads_back_what_was_written(tmp_path: Path, table, mark: bool, quoting) -> None:  # type: ignore[no-untyped-def]
    names, rows, texts = table
    file = io.StringIO(newline="")
    writer = csv.writer(file, quoting=quoting)
    writer.writerow(names)
    writer.writerows([*map(repr, row), text] for row, text in zip(rows, texts, strict=True))
    path = write(tmp_path / "t.csv", file.getvalue().encode("utf-8-sig" if mark else "utf-8"))

    levels = sorted(set(texts))[1:]
    *numeric, text_name = names
    wanted_names = (*numeric[1:], *(f"{text_name}={level}" for level in levels))
    # An indicator that takes the name of another column is an error, tested above.
    assume(len({*wanted_names, names[0]}) > len(wanted_names))
    read = datasets.read_csv(path, names[0], indicators=True)
    assert read.feature_names == wanted_names
    np.testing.assert_array_equal(read.y, [row[0] for row in rows])
    indicators = [[float(text == level) for level in levels] for text in texts]
    np.testing.assert_array_equal(read.x, np.hstack([[row[1:] for row in rows], np.reshape(indicators, (len(rows), -1))]))
