"""Data: mixtures of regressions whose best possible predictor is known, packaged samples, and tables read from files.

NumPy and the standard library only. Arrays are float64 with one row a sample: x (n, d) and y (n,), n samples,
d features, K experts. Every error of prediction here is a mean over samples, in squared units of y.

A bad argument is one `ValueError` that names the argument, what was given and what is wanted; a file that is not there
is a `FileNotFoundError`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moejax import _checks

__all__ = [
    "Clusters",
    "Problem",
    "Seed",
    "SoftmaxGate",
    "Split",
    "Table",
    "data_path",
    "diabetes",
    "inverse_sine",
    "notebook",
    "read_csv",
    "softmax_regressions",
    "split",
    "three_regressions",
    "tied",
]

Seed = int | np.random.SeedSequence
"""What all randomness here comes from: a whole number of at least 0, or a seed sequence (which is left as it was)."""


class Split(NamedTuple):
    """Row numbers of three disjoint parts of a data set, each a 1-D array of int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class Clusters:
    """Experts that live in different parts of the input space: k is uniform over K, and x ~ N(means[k], covariance).

    Attributes:
        means: the mean of x under each expert (K, d).
        covariance: the covariance of x under every expert (d, d).
    """

    means: np.ndarray
    covariance: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw inputs (n, d) and the experts (n,) that they belong to."""
        expert = rng.integers(len(self.means), size=n)
        noise = rng.standard_normal((n, self.means.shape[1]))
        return self.means[expert] + noise @ np.linalg.cholesky(self.covariance).T, expert

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return log P(expert | x) (n, K), up to a constant of each row."""
        # The quadratic in x is the same for every expert and cancels; what is left is linear in x. With the centre of
        # the means as the origin, no digits are lost when the means lie close together but far from 0.
        centre = self.means.mean(axis=0)
        means = self.means - centre
        slopes = np.linalg.solve(self.covariance, means.T)
        return (x - centre) @ slopes - 0.5 * np.sum(means.T * slopes, axis=0)


@dataclass(frozen=True, eq=False)
class SoftmaxGate:
    """One cloud of inputs, x ~ N(0, covariance), in which P(k | x) is a softmax of x . weights[k].

    Attributes:
        weights: the coefficients of each expert's logit (K, d).
        covariance: the covariance of x (d, d).
    """

    weights: np.ndarray
    covariance: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw inputs (n, d) and the experts (n,) that they belong to."""
        x = rng.standard_normal((n, self.weights.shape[1])) @ np.linalg.cholesky(self.covariance).T
        # The largest of the logits plus Gumbel noise is at k with the softmax's probability.
        return x, (self.logits(x) + rng.gumbel(size=(n, len(self.weights)))).argmax(axis=1)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return log P(expert | x) (n, K), up to a constant of each row."""
        return x @ self.weights.T


@dataclass(frozen=True, eq=False)
class Problem:
    """A sample of a mixture of K linear regressions without intercepts, together with the truth that it was drawn from.

    The gate says how x and the expert k of a row come about, and y = x . weights[k] + noise_sd * noise, the noise of
    variance 1 and normal, or of Student's t distribution.

    Attributes:
        x: inputs (n, d).
        y: targets (n,).
        expert: the expert that each row came from (n,), int64.
        gate: the distribution of x and the expert.
        weights: the coefficients of each expert (K, d).
        noise_sd: the standard deviation of y given x and the expert.
        noise_df: the degrees of freedom of the noise, above 2, or None for normal noise.
        groups: the group of each coefficient (K, d), int64, where those of a group are one value; else None.
    """

    x: np.ndarray
    y: np.ndarray
    expert: np.ndarray
    gate: Clusters | SoftmaxGate
    weights: np.ndarray
    noise_sd: float
    noise_df: float | None = None
    groups: np.ndarray | None = None

    def draw(self, seed: Seed, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw n fresh rows of this problem: x (n, d), y (n,) and the experts (n,) that they came from.

        They are independent of the rows in the problem, also for the seed that the problem was made with.

        Raises:
            ValueError: the seed or n is not a whole number in range.
        """
        _checks.count("n", n)
        return _rows(_generator(seed, "draw"), n, self.gate, self.weights, self.noise_sd, self.noise_df)

    def posterior(self, x: np.ndarray) -> np.ndarray:
        """Return the probability (n, K) of each expert given x (n, d), by Bayes' rule; rows sum to 1.

        Raises:
            ValueError: x is not of shape (n, d) or not finite.
        """
        return _softmax(self.gate.logits(self._inputs(x)))

    def responsibilities(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the probability (n, K) of each expert given x (n, d) and y (n,); rows sum to 1.

        Raises:
            ValueError: x is not of shape (n, d), y is not of shape (n,), or one is not finite.
        """
        return _softmax(self._log_joint(x, y))

    def log_prob(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return log p(y | x) (n,), the true conditional log density of y (n,) given x (n, d).

        Raises:
            ValueError: x is not of shape (n, d), y is not of shape (n,), or one is not finite.
        """
        return _log_sum(self._log_joint(x, y))[:, 0]

    def bayes(self, x: np.ndarray) -> np.ndarray:
        """Return E[y | x] (n,) for x (n, d) under the true mixture: the predictor of least squared error.

        Raises:
            ValueError: x is not of shape (n, d) or not finite.
        """
        x = self._inputs(x)
        return np.sum(self.posterior(x) * (x @ self.weights.T), axis=1)

    def bayes_mse(self, seed: Seed = 0, n: int = 200_000) -> float:
        """Estimate the mean squared error of `bayes` in the long run, the least of any predictor, from n fresh rows.

        It is the variance of the noise plus the mean squared difference between `bayes` and the mean of the row's own
        expert. For each x that square is averaged over the posterior of the expert, rather than taken for one expert
        drawn from it, which keeps the mean and lowers the Monte-Carlo error (Rao-Blackwell).

        Raises:
            ValueError: the seed or n is not a whole number in range.
        """
        _checks.count("n", n)
        x, _ = self.gate.draw(_generator(seed, "bayes_mse"), n)
        posterior, predictions = self.posterior(x), x @ self.weights.T
        bayes = np.sum(posterior * predictions, axis=1, keepdims=True)
        return float(self.noise_sd**2 + np.mean(np.sum(posterior * (predictions - bayes) ** 2, axis=1)))

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        _checks.shape("x", x, (None, self.weights.shape[1]), "samples by the features of the problem")
        _checks.finite("x", x)
        return np.asarray(x, dtype=np.float64)

    def _log_joint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return log p(expert, y | x) (n, K)."""
        x = self._inputs(x)
        _checks.shape("y", y, (len(x),), "one target for each row of x")
        _checks.finite("y", y)
        if self.noise_sd == 0:
            raise ValueError("noise_sd: 0 was given, with which y has no density; want a problem with noise")
        logits = self.gate.logits(x)
        residuals = np.asarray(y, dtype=np.float64)[:, None] - x @ self.weights.T
        return logits - _log_sum(logits) + _log_noise(residuals / self.noise_sd, self.noise_df) - math.log(self.noise_sd)


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
    _check_problem(n, d, n_experts, n_active, noise_sd, noise_df)
    _check_scale("separation", separation)
    covariance = np.eye(d) if covariance is None else _covariance(covariance, d)
    rng = _generator(seed, "truth")
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
    _check_problem(n, d, n_experts, n_active, noise_sd, noise_df)
    _check_scale("sharpness", sharpness)
    covariance = np.eye(d) if covariance is None else _covariance(covariance, d)
    rng = _generator(seed, "truth")
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
    _check_problem(n, d, n_experts, 1, noise_sd, None)
    if n_groups > d:
        raise ValueError(f"n_groups: {n_groups} was given; want at most d, which is {d}")
    _check_scale("spread", spread)
    _check_scale("sharpness", sharpness)
    rng = _generator(seed, "truth")
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
    rng = _generator(seed, "inverse sine")
    t = rng.uniform(size=n)
    x = t + 0.3 * np.sin(2 * np.pi * t) + rng.uniform(-0.1, 0.1, size=n)
    return Table(x[:, None], t, ("x",), "t")


def split(n: int, seed: Seed, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> Split:
    """Divide rows 0 to n - 1 at random into training, validation and test rows; each row is in exactly one part.

    Args:
        n: rows.
        seed: where all randomness comes from.
        fractions: of the rows in each of the three parts, summing to 1; each part's size is n times its fraction to
            within one row. The first must be above 0; a part of fraction 0 is empty.

    Raises:
        ValueError: an argument is out of range, or a part with a fraction above 0 would have no row.
    """
    _checks.count("n", n)
    _checks.shape("fractions", fractions, (3,), "of training, validation and test rows")
    _checks.not_negative("fractions", fractions)
    shares = np.asarray(fractions, dtype=np.float64)
    if abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions: {tuple(fractions)} was given, which sums to {shares.sum():.12g}; want a sum of 1")
    if shares[0] == 0:
        raise ValueError(f"fractions: {tuple(fractions)} was given; want a training fraction above 0")
    # Rounding the running sums, rather than each size, makes the sizes add up to n.
    ends = np.rint(np.cumsum(shares) * n).astype(int)
    parts = Split(*np.split(_generator(seed, "split").permutation(n), ends[:2]))
    for name, share, part in zip(Split._fields, shares, parts, strict=True):
        if share > 0 and not part.size:
            raise ValueError(f"n: {n} rows leave none for {name} at a fraction of {share:g}; want more rows")
    return parts


@dataclass(frozen=True, eq=False)
class Table:
    """A table of numbers with one column to predict.

    Attributes:
        x: features (n, d).
        y: target (n,), not constant.
        feature_names: the names of the columns of x, d of them, all different.
        target_name: the name of y.
    """

    x: np.ndarray
    y: np.ndarray
    feature_names: tuple[str, ...]
    target_name: str


def read_csv(path: str | os.PathLike[str], target: str, *, indicators: bool = False) -> Table:
    """Read a table from a file of comma-separated values, whose first line names the columns.

    The file is UTF-8, with or without a byte-order mark; cells may be quoted, lines end in LF or CRLF, and blank lines
    at the end are passed over. A column is numeric if at least one of its cells is a finite number; then all of them
    must be. Names and levels are kept exactly as they stand, spaces and all.

    Args:
        path: the file.
        target: the name of the column that becomes y; it must be numeric.
        indicators: whether a column of text becomes columns of 0 and 1, named `column=level`, one for each of its
            levels but the first in sorted order; otherwise a column of text is an error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such table. The message says where, what stands there and what is wanted.
    """
    names, rows, lines = _read(Path(path))
    _check_names(path, names, target)
    _check_rows(path, names, rows, lines)
    columns = [_Column(name, cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)]
    _check_text(path, columns, target, indicators)
    _check_cells(path, columns, lines)
    y = columns.pop(names.index(target)).values
    if y.min() == y.max():
        raise ValueError(
            f"{path}: target column {target!r} holds the same number, {y[0]:g}, in each of {y.size} rows; "
            "want at least two different numbers"
        )
    features = [feature for column in columns for feature in column.features()]
    feature_names = tuple(name for name, _ in features)
    if not features:
        raise ValueError(f"{path}: no feature is left beside target {target!r}; want at least one feature column")
    _check_unique(path, [*feature_names, target], "after text columns were turned into indicators")
    return Table(np.stack([values for _, values in features], axis=1), y, feature_names, target)


def diabetes() -> Table:
    """Return the diabetes data, x (442, 10): disease progression a year after ten measurements of each patient.

    They are age, sex (1 or 2), body mass index, mean blood pressure and six blood sera (`s1` to `s6`), all in the units
    of measurement, none of them standardised.

    Source: Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression", Annals of Statistics 32 (2004) 407-499.
    """
    return read_csv(data_path("diabetes.csv"), "progression")


def data_path(name: str) -> Path:
    """Return the path of a file that comes with the package, such as "diabetes.csv".

    Raises:
        FileNotFoundError: the package has no such file; the message lists those that it has.
    """
    folder = Path(__file__).parent / "data"
    there = sorted(path.name for path in folder.iterdir())
    if name not in there:
        raise FileNotFoundError(f"name: {name!r} was given; want one of {_listed(there)}")
    return folder / name


def _generator(seed: Seed, purpose: str) -> np.random.Generator:
    """Return the stream of random numbers that belongs to a seed and a purpose.

    Each purpose has its own, so that fresh rows drawn with the seed of a problem do not repeat that problem's noise.
    """
    if not isinstance(seed, np.random.SeedSequence):
        _checks.count("seed", seed, least=0)
        seed = np.random.SeedSequence(int(seed))
    key = (*seed.spawn_key, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size))


def _problem(
    seed: Seed, n: int, gate: Clusters | SoftmaxGate, weights: np.ndarray, noise_sd: float, noise_df: float | None
) -> Problem:
    """Draw the rows of a problem whose truth is known."""
    noise_sd, noise_df = float(noise_sd), None if noise_df is None else float(noise_df)
    x, y, expert = _rows(_generator(seed, "rows"), n, gate, weights, noise_sd, noise_df)
    return Problem(x, y, expert, gate, weights, noise_sd, noise_df)


def _rows(
    rng: np.random.Generator,
    n: int,
    gate: Clusters | SoftmaxGate,
    weights: np.ndarray,
    noise_sd: float,
    noise_df: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw inputs (n, d), targets (n,) and the experts (n,) that they belong to."""
    x, expert = gate.draw(rng, n)
    noise = rng.standard_normal(n) if noise_df is None else _t_scale(noise_df) * rng.standard_t(noise_df, n)
    return x, np.sum(x * weights[expert], axis=1) + noise_sd * noise, expert


def _sparse_weights(rng: np.random.Generator, d: int, n_experts: int, n_active: int, shared_active: bool) -> np.ndarray:
    """Draw weights (K, d), standard normal on the active features and 0 elsewhere."""
    weights = rng.standard_normal((n_experts, d))
    # The features come last, so that `shared_active` and `n_active` leave the numbers before them alone.
    choices = 1 if shared_active else n_experts
    active = np.stack([np.isin(np.arange(d), rng.choice(d, n_active, replace=False)) for _ in range(choices)])
    return np.where(active, weights, 0.0)


def _t_scale(df: float) -> float:
    """Return the factor that gives a Student t variable the variance 1."""
    return math.sqrt((df - 2) / df)


def _log_noise(z: np.ndarray, df: float | None) -> np.ndarray:
    """Return the log density of noise of variance 1 at z."""
    if df is None:
        return -0.5 * np.square(z) - 0.5 * math.log(2 * math.pi)
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(math.pi * (df - 2))
    return constant - (df + 1) / 2 * np.log1p(np.square(z) / (df - 2))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(logs))) over experts: (n, 1) of (n, K)."""
    largest = logs.max(axis=1, keepdims=True)
    return largest + np.log(np.exp(logs - largest).sum(axis=1, keepdims=True))


def _softmax(logits: np.ndarray) -> np.ndarray:
    joint = np.exp(logits - logits.max(axis=1, keepdims=True))
    return joint / joint.sum(axis=1, keepdims=True)


def _check_problem(n: Any, d: Any, n_experts: Any, n_active: Any, noise_sd: Any, noise_df: Any) -> None:
    for name, value in (("n", n), ("d", d), ("n_experts", n_experts), ("n_active", n_active)):
        _checks.count(name, value)
    if n_active > d:
        raise ValueError(f"n_active: {n_active} was given; want at most d, which is {d}")
    _check_scale("noise_sd", noise_sd)
    if noise_df is not None:
        _check_scale("noise_df", noise_df)
        if noise_df <= 2:
            raise ValueError(f"noise_df: {noise_df} was given, with which noise has no variance; want more than 2")


def _check_scale(name: str, value: Any) -> None:
    _checks.shape(name, value, (), "one number")
    _checks.not_negative(name, value)


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


def _listed(names: Iterable[str], most: int = 20) -> str:
    """Return names, quoted and separated by commas; a long list ends with how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


def _number(text: str) -> float | None:
    """Return the number that a cell holds, NaN and infinities included, or None for text and for an empty cell."""
    if "_" in text:  # Python reads 1_000 as a number; in a table it is more likely to be a code.
        return None
    try:
        return float(text)
    except ValueError:
        return None


class _Column:
    """A column's name and cells as they stand in the file, its numbers if it is numeric, and its unusable rows."""

    def __init__(self, name: str, cells: Sequence[str]) -> None:
        self.name, self.cells = name, cells
        numbers = [_number(cell) for cell in cells]
        numeric = any(value is not None and math.isfinite(value) for value in numbers)
        texts = any(value is None and cell.strip() for value, cell in zip(numbers, cells, strict=True))
        # A column of nothing but gaps is not text: it has no levels, and its gaps are what to report.
        self.is_text = texts and not numeric
        self.bad = [row for row, value in enumerate(numbers) if self._is_bad(value, cells[row])]
        self.values = np.array([] if self.is_text or self.bad else numbers, dtype=np.float64)

    def _is_bad(self, value: float | None, cell: str) -> bool:
        if value is None:
            return not (self.is_text and cell.strip())
        # In text, cells such as 5 cannot be (the column would be numeric), and nan stands for a gap.
        return not math.isfinite(value)

    def features(self) -> list[tuple[str, np.ndarray]]:
        """Return the names and values (n,) of the features that this column gives."""
        if not self.is_text:
            return [(self.name, self.values)]
        cells = np.array(self.cells, dtype=object)
        levels = sorted(set(self.cells))[1:]
        return [(f"{self.name}={level}", (cells == level).astype(np.float64)) for level in levels]


def _read(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return a file's header, its rows and the line that each row starts on (the header's is 1)."""
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"path: {str(path)!r} was given, but {what}; want a file of comma-separated values")
    records: list[list[str]] = []
    lines: list[int] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        start = 1
        try:
            for record in reader:
                records.append(record)
                lines.append(start)
                start = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{path}: line {start}: {error}; want comma-separated cells, quotes closed") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: {error}; want a text file in UTF-8") from error
    while records and not any(cell.strip() for cell in records[-1]) and len(records[-1]) < 2:
        records.pop()
    if not records:
        raise ValueError(f"{path}: the file is empty; want a line of column names and rows of numbers")
    return records[0], records[1:], lines[1 : len(records)]


def _check_names(path: Any, names: list[str], target: str) -> None:
    if not any(name.strip() for name in names):
        raise ValueError(f"{path}: the first line is blank; want a header of column names")
    if all(_number(name) is not None for name in names):
        raise ValueError(f"{path}: the first line holds only numbers ({_listed(names)}); want a header of column names")
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise ValueError(
                f"{path}: column {number} of {len(names)} has an empty name; want a name for every column "
                "(a table written with its row numbers has such a column)"
            )
    _check_unique(path, names, "in the first line")
    if target not in names:
        raise ValueError(f"target: {target!r} was given; want a column of {path}, which has {_listed(names)}")
    if len(names) < 2:
        raise ValueError(f"{path}: target {target!r} is the only column; want at least one feature column beside it")


def _check_unique(path: Any, names: list[str], where: str) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: more than one column is named {_listed(twice)} {where}; want names that differ")


def _check_rows(path: Any, names: list[str], rows: list[list[str]], lines: list[int]) -> None:
    if not rows:
        raise ValueError(f"{path}: there are column names but no rows; want at least two rows of numbers")
    wrong = [row for row, cells in enumerate(rows) if len(cells) != len(names)]
    if wrong:
        first, more = wrong[0], _more(len(wrong) - 1, "line")
        raise ValueError(
            f"{path}: line {lines[first]} has {len(rows[first])} cells{more}; want {len(names)}, one for each column"
        )


def _check_text(path: Any, columns: list[_Column], target: str, indicators: bool) -> None:
    names = [column.name for column in columns]
    texts = [column.name for column in columns if column.is_text]
    if target in texts:
        example = next(cell for cell in columns[names.index(target)].cells if cell.strip())
        raise ValueError(f"{path}: target column {target!r} holds text, such as {example!r}; want a column of numbers")
    if texts and not indicators:
        raise ValueError(
            f"{path}: text, without a single number, in column {_listed(texts)}; want columns of numbers, or "
            "indicators=True to turn text into columns of 0 and 1"
        )


def _check_cells(path: Any, columns: list[_Column], lines: list[int]) -> None:
    bad = [(row, number) for number, column in enumerate(columns) for row in column.bad]
    if not bad:
        return
    row, number = min(bad)
    column = columns[number]
    cell = column.cells[row]
    what = repr(cell) if cell.strip() else "an empty cell"
    raise ValueError(
        f"{path}: line {lines[row]}, column {column.name!r}: {what} was given{_more(len(bad) - 1, 'cell')}; "
        f"want {'the name of a level' if column.is_text else 'a finite number'}"
    )


def _more(others: int, what: str) -> str:
    """Return how many others are wrong in the same way, or nothing if none are."""
    return f" (and {others} more such {what}{'s' if others > 1 else ''} in the file)" if others else ""
