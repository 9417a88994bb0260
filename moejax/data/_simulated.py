"""Data simulated from known mixtures and from an inverse problem."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from moejax import _checks
from moejax.data._problem import Clusters, Problem, SoftmaxGate, check_problem, drawn_rows
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
    """Draw a sparse mixture of regressions whose experts have inputs in different clusters.

    The same seed gives the same means and coefficients for every n.

    Parameters
    ----------
    seed : int or numpy.random.SeedSequence
        Source of all randomness.
    n : int, default 500
        Number of rows.
    d : int, default 10
        Number of features.
    n_experts : int, default 3
        Number of experts, K.
    n_active : int, default 4
        Number of nonzero coefficients of each expert, at most d.
    shared_active : bool, default False
        If True, all experts have the same active features. Otherwise the active features are drawn for each expert.
    covariance : numpy.ndarray, shape (d, d), optional
        Covariance of x given the expert, symmetric and positive definite. None (the default) means the identity matrix.
    noise_sd : float, default 0.1
        Standard deviation of the noise in y, in the units of y.
    noise_df : float, optional
        Degrees of freedom, above 2, of noise that follows Student's t distribution. The noise is scaled: its standard
        deviation is `noise_sd` for every `noise_df`, so squared errors are comparable. None (the default) means normal
        noise.
    separation : float, default 1.5
        Standard deviation of the entries of the experts' means. At 0, x carries no information on the expert.

    Returns
    -------
    Problem
        The sample and the true parameters. Its `gate` is a `Clusters`.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or is out of range.

    Notes
    -----
    The means (K, d) are `separation` times standard normal numbers. The coefficients (K, d) are standard normal on
    `n_active` features and 0 on the others. For each row::

        k ~ uniform over the K experts
        x ~ N(means[k], covariance)
        y = x . weights[k] + noise_sd * noise

    This is the problem of `notebook`, with every size and scale as an argument.

    Examples
    --------
    >>> from moejax import datasets
    >>> problem = datasets.three_regressions(0, n=100, d=5, n_active=2)
    >>> problem.x.shape, problem.y.shape
    ((100, 5), (100,))
    >>> (problem.weights != 0).sum(axis=1).tolist()
    [2, 2, 2]
    """
    check_problem(n, d, n_experts, n_active, noise_sd, noise_df)
    separation = _checks.number_from_0("separation", separation)
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
    """Draw a sparse mixture of regressions whose inputs are one cluster, divided by a softmax gate.

    Parameters
    ----------
    seed : int or numpy.random.SeedSequence
        Source of all randomness.
    n : int, default 500
        Number of rows.
    d : int, default 10
        Number of features.
    n_experts : int, default 3
        Number of experts, K.
    n_active : int, default 4
        Number of nonzero coefficients of each expert, at most d. The gate uses all features.
    shared_active : bool, default False
        If True, all experts have the same active features. Otherwise the active features are drawn for each expert.
    covariance : numpy.ndarray, shape (d, d), optional
        Covariance of x, symmetric and positive definite. None (the default) means the identity matrix.
    noise_sd : float, default 0.1
        Standard deviation of the noise in y, in the units of y.
    noise_df : float, optional
        Degrees of freedom, above 2, of noise that follows Student's t distribution with standard deviation `noise_sd`.
        None (the default) means normal noise.
    sharpness : float, default 4.0
        Approximate standard deviation of a logit of the gate when the features have variance 1. At 0, x carries no
        information on the expert.

    Returns
    -------
    Problem
        The sample and the true parameters. Its `gate` is a `SoftmaxGate`.

    Raises
    ------
    ValueError
        If an argument has the wrong shape or is out of range.

    Notes
    -----
    The gate's coefficients v (K, d) are `sharpness` / sqrt(d) times standard normal numbers. The experts' coefficients are
    drawn as in `three_regressions`. For each row::

        x ~ N(0, covariance)
        P(k | x) = softmax(x . v)[k]
        y = x . weights[k] + noise_sd * noise

    At the defaults, the most probable expert given x is the true expert in about 85 % of the rows (81 to 88 % over draws of
    the parameters). So the gate is neither flat nor separated.
    """
    check_problem(n, d, n_experts, n_active, noise_sd, noise_df)
    sharpness = _checks.number_from_0("sharpness", sharpness)
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
    """Draw a mixture of regressions in which groups of coefficients share one value within each expert.

    The gate is the gate of `softmax_regressions`, and the features are independent.

    Parameters
    ----------
    seed : int or numpy.random.SeedSequence
        Source of all randomness.
    n : int, default 500
        Number of rows.
    d : int, default 10
        Number of features.
    n_experts : int, default 3
        Number of experts, K.
    n_groups : int, default 3
        Number of groups of coefficients in each expert, at most d.
    spread : float, default 2.0
        Half the range of the equally spaced values, before each value is moved at random. With one group, the value before
        it is moved.
    noise_sd : float, default 0.3
        Standard deviation of the noise in y, in the units of y.
    sharpness : float, default 4.0
        Approximate standard deviation of a logit of the gate. At 0, x carries no information on the expert.

    Returns
    -------
    Problem
        The sample and the true parameters, with `groups` set.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Each group of an expert has at least one coefficient. The groups are uniform otherwise. The values of an expert's groups,
    in rising order, are equally spaced numbers from -spread to spread, each moved at random by at most a quarter of their
    spacing. So the distance between two values is at least half of the spacing. A single group has the value `spread`, moved
    at random by at most a quarter of itself.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import datasets
    >>> problem = datasets.tied(0, n=100, d=6, n_groups=2)
    >>> [len(np.unique(coefficients)) for coefficients in problem.weights]
    [2, 2, 2]
    """
    _checks.count("n_groups", n_groups)
    check_problem(n, d, n_experts, 1, noise_sd, None)
    if n_groups > d:
        raise ValueError(f"n_groups: {n_groups} was given; want at most d, which is {d}")
    spread = _checks.number_from_0("spread", spread)
    sharpness = _checks.number_from_0("sharpness", sharpness)
    rng = generator(seed, "truth")
    gate = SoftmaxGate(sharpness / math.sqrt(d) * rng.standard_normal((n_experts, d)), np.eye(d))
    step = 2 * spread / (n_groups - 1) if n_groups > 1 else spread
    values = np.linspace(spread, -spread, n_groups)[::-1] + step / 4 * rng.uniform(-1, 1, (n_experts, n_groups))
    unordered = rng.integers(n_groups, size=(n_experts, d))
    unordered[:, :n_groups] = np.arange(n_groups)  # every group has at least one coefficient
    groups = rng.permuted(unordered, axis=1)
    problem = _problem(seed, n, gate, np.take_along_axis(values, groups, axis=1), noise_sd, None)
    return dataclasses.replace(problem, groups=groups)


def notebook() -> tuple[Problem, Split]:
    """Return the packaged sample of three regressions and its split.

    The sample has 1500 rows, 10 features and 3 experts with 4 active features each.

    Returns
    -------
    problem : Problem
        The sample and the true parameters. Its x has shape (1500, 10).
    parts : Split
        Rows 0 to 499 for training, 500 to 999 for validation and 1000 to 1499 for testing.

    Notes
    -----
    The sample was drawn in float32. Its numbers are the same numbers as float64. The mean squared errors are:

    =============================  =========  ========
    predictor                      test rows  expected
    =============================  =========  ========
    Bayes predictor E[y | x]       0.00996    0.0217
    prediction of the true expert  0.00932    0.0100
    =============================  =========  ========

    The file `three_regressions.json` of this package holds the true parameters, the sampling procedure and these errors.

    Examples
    --------
    >>> from moejax import datasets
    >>> problem, parts = datasets.notebook()
    >>> x, y = problem.x[parts.train], problem.y[parts.train]
    >>> x.shape, y.shape
    ((500, 10), (500,))
    """
    truth = json.loads(data_path("three_regressions.json").read_text(encoding="utf-8"))
    table = read_csv(data_path("three_regressions.csv"), "y")
    # The file has nine digits per number, which identify one float32. The float64 of the same digits differs slightly.
    x, y = (a.astype(np.float32).astype(np.float64) for a in (table.x[:, :-1], table.y))
    means, weights = np.array(truth["means"]), np.array(truth["weights"])
    expert = table.x[:, -1].astype(np.int64)
    problem = Problem(x, y, expert, Clusters(means, np.eye(x.shape[1])), weights, truth["noise_sd"])
    return problem, Split(*(np.arange(*truth["split"][part]) for part in Split._fields))


def inverse_sine(n: int, seed: Seed) -> Table:
    """Draw an inverse problem, in which the conditional density of the target has up to three modes.

    Parameters
    ----------
    n : int
        Number of rows, at least 1.
    seed : int or numpy.random.SeedSequence
        Source of all randomness.

    Returns
    -------
    Table
        One feature `x` with shape (n, 1), and the target `t` with shape (n,).

    Raises
    ------
    ValueError
        If `seed` or `n` is not a whole number, or is too small.

    Notes
    -----
    For each row, t is uniform on (0, 1), the noise is uniform on (-0.1, 0.1), and::

        x = t + 0.3 sin(2 pi t) + noise

    Without the noise, x is a function of t. Near x = 0.5, three values of t give the same x. So the conditional density of t
    given x has three modes there, and a model needs several modes to describe it.

    References
    ----------
    C. M. Bishop, "Mixture Density Networks", Aston University report NCRG/94/004 (1994).

    Examples
    --------
    >>> from moejax import datasets
    >>> table = datasets.inverse_sine(100, 0)
    >>> table.x.shape, table.y.shape, table.target_name
    ((100, 1), (100,), 't')
    """
    _checks.count("n", n)
    rng = generator(seed, "inverse sine")
    t = rng.uniform(size=n)
    x = t + 0.3 * np.sin(2 * np.pi * t) + rng.uniform(-0.1, 0.1, size=n)
    return Table(x[:, None], t, ("x",), "t")


def _problem(
    seed: Seed, n: int, gate: Clusters | SoftmaxGate, weights: np.ndarray, noise_sd: float, noise_df: float | None
) -> Problem:
    """Draw the rows of a problem from its true parameters."""
    noise_sd, noise_df = float(noise_sd), None if noise_df is None else float(noise_df)
    x, y, expert = drawn_rows(generator(seed, "rows"), n, gate, weights, noise_sd, noise_df)
    return Problem(x, y, expert, gate, weights, noise_sd, noise_df)


def _sparse_weights(rng: np.random.Generator, d: int, n_experts: int, n_active: int, shared_active: bool) -> np.ndarray:
    """Draw coefficients (K, d), standard normal on the active features and 0 on the others."""
    weights = rng.standard_normal((n_experts, d))
    # The active features are drawn last, so `shared_active` and `n_active` do not change the coefficients drawn before.
    n_sets = 1 if _checks.flag("shared_active", shared_active) else n_experts
    active = np.stack([np.isin(np.arange(d), rng.choice(d, n_active, replace=False)) for _ in range(n_sets)])
    return np.where(active, weights, 0.0)


def _covariance(covariance: Any, d: int) -> np.ndarray:
    """Return the covariance (d, d), exactly symmetric, after a check that it is positive definite."""
    _checks.shape("covariance", covariance, (d, d), "features by features")
    _checks.finite("covariance", covariance)
    matrix = np.asarray(covariance, dtype=np.float64)
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > 1e-6 * np.abs(matrix).max():  # A matrix computed in float32 passes.
        raise ValueError(
            f"covariance: a matrix that differs from its transpose by up to {asymmetry:g} was given; want a symmetric one"
        )
    matrix = (matrix + matrix.T) / 2
    eigenvalues = np.linalg.eigvalsh(matrix)
    if eigenvalues[0] <= d * np.finfo(np.float64).eps * eigenvalues[-1]:
        raise ValueError(
            f"covariance: a matrix with smallest eigenvalue {eigenvalues[0]:g} and largest eigenvalue "
            f"{eigenvalues[-1]:g} was given; want a positive definite matrix"
        )
    return matrix
