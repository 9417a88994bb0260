"""Data drawn from known mixtures, and from an inverse problem."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from moejax import _checks
from moejax.data._problem import Clusters, Problem, SoftmaxGate, check_problem, check_scale, drawn_rows
from moejax.data._random import Seed, generator
from moejax.data._split import Split
from moejax.data._tables import Table, data_path, read_csv


def three_regressions(
    seed: Seed,
    n: int = 500,
    d: int = 10,
    n_experts: int = 3,
    *,
    n_active: int = 4,
    shared_active: bool = False,
    covariance: np.ndarray | None = None,
    noise_sd: float = 0.1,
    noise_df: float | None = None,
    separation: float = 1.5,
) -> Problem:
    """Draw a sparse mixture of regressions whose experts live in different parts of the input space.

    Means (K, d) are `separation` times standard normals; weights (K, d) are standard normals on `n_active` features and
    0 elsewhere. Each row takes an expert k uniformly, x = means[k] + N(0, covariance) and
    y = x . weights[k] + noise of standard deviation noise_sd. The same seed gives the same means and weights, whatever n.

    Args:
        seed: where all randomness comes from.
        n: rows.
        d: features.
        n_experts: experts, K.
        n_active: features with a weight other than 0, for each expert; at most d.
        shared_active: whether all experts have the same active features; else each draws its own.
        covariance: of x around its expert's mean (d, d), symmetric and positive definite; None is the identity.
        noise_sd: standard deviation of the noise in y.
        noise_df: None for normal noise; or the degrees of freedom, above 2, of noise that follows Student's t distribution,
            scaled so that its standard deviation is noise_sd all the same: all squared errors compare.
        separation: how far apart the experts' means are; at 0 the inputs say nothing about the expert.

    Raises:
        ValueError: an argument has the wrong shape or is out of range.

    Source: the three-regressions problem of `notebook`, generalised.
    """
    check_problem(n, d, n_experts, n_active, noise_sd, noise_df)
    check_scale("separation", separation)
    covariance = np.eye(d) if covariance is None else _covariance(covariance, d)
    rng = generator(seed, "truth")
    gate = Clusters(separation * rng.standard_normal((n_experts, d)), covariance)
    weights = _sparse_weights(rng, d, n_experts, n_active, shared_active)
    return _problem(seed, n, gate, weights, noise_sd, noise_df)


def softmax_regressions(
    seed: Seed,
    n: int = 500,
    d: int = 10,
    n_experts: int = 3,
    *,
    n_active: int = 4,
    shared_active: bool = False,
    covariance: np.ndarray | None = None,
    noise_sd: float = 0.1,
    noise_df: float | None = None,
    sharpness: float = 4.0,
) -> Problem:
    """Draw a sparse mixture of regressions whose inputs are one cloud, divided among the experts by a softmax gate.

    x ~ N(0, covariance), and the expert k of a row has the probability softmax(x . v)[k], where v (K, d) are `sharpness`
    / sqrt(d) times standard normals. So a logit has about the standard deviation `sharpness` when x has unit variances. At
    the default, and with three experts, the most probable expert is the true one in about 85 % of rows (from 81 to 88 %
    over draws): the gate is neither flat nor separated. The rest is as for `three_regressions`.

    Args:
        seed: where all randomness comes from.
        n: rows.
        d: features.
        n_experts: experts, K.
        n_active: features with a weight other than 0, for each expert; at most d. The gate sees all features.
        shared_active: whether all experts have the same active features; else each draws its own.
        covariance: of x (d, d), symmetric and positive definite; None is the identity.
        noise_sd: standard deviation of the noise in y.
        noise_df: as for `three_regressions`.
        sharpness: how sure the gate is of its expert; at 0 the inputs say nothing about the expert.

    Raises:
        ValueError: an argument has the wrong shape or is out of range.
    """
    check_problem(n, d, n_experts, n_active, noise_sd, noise_df)
    check_scale("sharpness", sharpness)
    covariance = np.eye(d) if covariance is None else _covariance(covariance, d)
    rng = generator(seed, "truth")
    gate = SoftmaxGate(sharpness / math.sqrt(d) * rng.standard_normal((n_experts, d)), covariance)
    weights = _sparse_weights(rng, d, n_experts, n_active, shared_active)
    return _problem(seed, n, gate, weights, noise_sd, noise_df)


def tied(
    seed: Seed,
    n: int = 500,
    d: int = 10,
    n_experts: int = 3,
    n_groups: int = 3,
    *,
    spread: float = 2.0,
    noise_sd: float = 0.3,
    sharpness: float = 4.0,
) -> Problem:
    """Draw a mixture of regressions whose coefficients are tied: in each expert, groups of them share one value.

    Each expert has a group for each coefficient (K, d), of which every group has at least one and which are uniform
    otherwise. Its values, in rising order, are equally spaced numbers from -spread to spread, each moved by up to a quarter
    of their distance: no two are nearer than half of it. The gate is that of `softmax_regressions`, with independent inputs.

    Args:
        seed: where all randomness comes from.
        n: rows.
        d: features.
        n_experts: experts, K.
        n_groups: groups of coefficients in each expert; at most d.
        spread: the largest value but for how far it is moved; of a single group the only one.
        noise_sd: standard deviation of the noise in y.
        sharpness: how sure the gate is of its expert; at 0 the inputs say nothing about the expert.

    Raises:
        ValueError: an argument is out of range.
    """
    _checks.count("n_groups", n_groups)
    check_problem(n, d, n_experts, 1, noise_sd, None)
    if n_groups > d:
        raise ValueError(f"n_groups: {n_groups} was given; want at most d, which is {d}")
    check_scale("spread", spread)
    check_scale("sharpness", sharpness)
    rng = generator(seed, "truth")
    gate = SoftmaxGate(sharpness / math.sqrt(d) * rng.standard_normal((n_experts, d)), np.eye(d))
    step = 2 * spread / (n_groups - 1) if n_groups > 1 else spread
    values = np.linspace(spread, -spread, n_groups)[::-1] + step / 4 * rng.uniform(-1, 1, (n_experts, n_groups))
    drawn = rng.integers(n_groups, size=(n_experts, d))
    drawn[:, :n_groups] = np.arange(n_groups)
    groups = rng.permuted(drawn, axis=1)
    problem = _problem(seed, n, gate, np.take_along_axis(values, groups, axis=1), noise_sd, None)
    return dataclasses.replace(problem, groups=groups)


def notebook() -> tuple[Problem, Split]:
    """Return the packaged three-regressions sample (1500, 10), three experts with four active features, and its split.

    Rows 0 to 499 are for training, 500 to 999 for validation, 1000 to 1499 for the test. The sample was drawn in
    float32; these are the very same numbers, as float64. On the test rows the Bayes predictor has mean squared error
    0.00996 and a predictor told the true expert 0.00932; in the long run 0.0217 and 0.0100.

    Source: `three_regressions.json` beside it: the truth, the sampling procedure and these figures in full.
    """
    truth = json.loads(data_path("three_regressions.json").read_text(encoding="utf-8"))
    table = read_csv(data_path("three_regressions.csv"), "y")
    # Nine digits name one float32 each, which lies a little off the float64 of the same digits.
    x, y = (a.astype(np.float32).astype(np.float64) for a in (table.x[:, :-1], table.y))
    means, weights = np.array(truth["means"]), np.array(truth["weights"])
    expert = table.x[:, -1].astype(np.int64)
    problem = Problem(x, y, expert, Clusters(means, np.eye(x.shape[1])), weights, truth["noise_sd"])
    return problem, Split(*(np.arange(*truth["split"][part]) for part in Split._fields))


def inverse_sine(n: int, seed: Seed) -> Table:
    """Draw n rows of an inverse problem: t given x (n, 1), where x = t + 0.3 sin(2 pi t) + noise and t is uniform on (0, 1).

    The noise is uniform on (-0.1, 0.1). x is a function of t, but about x = 0.5 three t have the same x, and the mean of t
    given x is none of them: a model that is to say anything there has to have several modes.

    Source: Bishop, "Mixture Density Networks", Aston University report NCRG/94/004 (1994).

    Raises:
        ValueError: the seed or n is not a whole number in range.
    """
    _checks.count("n", n)
    rng = generator(seed, "inverse sine")
    t = rng.uniform(size=n)
    x = t + 0.3 * np.sin(2 * np.pi * t) + rng.uniform(-0.1, 0.1, size=n)
    return Table(x[:, None], t, ("x",), "t")


def _problem(
    seed: Seed, n: int, gate: Clusters | SoftmaxGate, weights: np.ndarray, noise_sd: float, noise_df: float | None
) -> Problem:
    """Draw the rows of a problem whose truth is known."""
    noise_sd, noise_df = float(noise_sd), None if noise_df is None else float(noise_df)
    x, y, expert = drawn_rows(generator(seed, "rows"), n, gate, weights, noise_sd, noise_df)
    return Problem(x, y, expert, gate, weights, noise_sd, noise_df)


def _sparse_weights(rng: np.random.Generator, d: int, n_experts: int, n_active: int, shared_active: bool) -> np.ndarray:
    """Draw weights (K, d), standard normal on the active features and 0 elsewhere."""
    weights = rng.standard_normal((n_experts, d))
    # The features come last, so that `shared_active` and `n_active` leave the numbers before them alone.
    choices = 1 if shared_active else n_experts
    active = np.stack([np.isin(np.arange(d), rng.choice(d, n_active, replace=False)) for _ in range(choices)])
    return np.where(active, weights, 0.0)


def _covariance(covariance: Any, d: int) -> np.ndarray:
    _checks.shape("covariance", covariance, (d, d), "features by features")
    _checks.finite("covariance", covariance)
    matrix = np.asarray(covariance, dtype=np.float64)
    apart = np.abs(matrix - matrix.T).max()
    if apart > 1e-6 * np.abs(matrix).max():  # A matrix computed in float32 passes.
        raise ValueError(f"covariance: a matrix up to {apart:g} off its transpose was given; want a symmetric one")
    matrix = (matrix + matrix.T) / 2
    eigenvalues = np.linalg.eigvalsh(matrix)
    if eigenvalues[0] <= d * np.finfo(np.float64).eps * eigenvalues[-1]:
        raise ValueError(
            f"covariance: a matrix with an eigenvalue of {eigenvalues[0]:g} was given, the largest being "
            f"{eigenvalues[-1]:g}; want a positive definite matrix"
        )
    return matrix
