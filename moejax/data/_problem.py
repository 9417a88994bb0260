"""Mixtures of regressions whose density and best predictor are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from moejax import _checks
from moejax.data._random import Seed, generator


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
        return drawn_rows(generator(seed, "draw"), n, self.gate, self.weights, self.noise_sd, self.noise_df)

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
        x, _ = self.gate.draw(generator(seed, "bayes_mse"), n)
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


def drawn_rows(
    rng: np.random.Generator,
    n: int,
    gate: Clusters | SoftmaxGate,
    weights: np.ndarray,
    noise_sd: float,
    noise_df: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw inputs (n, d), targets (n,) and the experts (n,) that they belong to."""
    x, expert = gate.draw(rng, n)
    noise = rng.standard_normal(n) if noise_df is None else t_scale(noise_df) * rng.standard_t(noise_df, n)
    return x, np.sum(x * weights[expert], axis=1) + noise_sd * noise, expert


def t_scale(df: float) -> float:
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


def check_problem(n: Any, d: Any, n_experts: Any, n_active: Any, noise_sd: Any, noise_df: Any) -> None:
    for name, value in (("n", n), ("d", d), ("n_experts", n_experts), ("n_active", n_active)):
        _checks.count(name, value)
    if n_active > d:
        raise ValueError(f"n_active: {n_active} was given; want at most d, which is {d}")
    check_scale("noise_sd", noise_sd)
    if noise_df is not None:
        check_scale("noise_df", noise_df)
        if noise_df <= 2:
            raise ValueError(f"noise_df: {noise_df} was given, with which noise has no variance; want more than 2")


def check_scale(name: str, value: Any) -> None:
    _checks.shape(name, value, (), "one number")
    _checks.not_negative(name, value)
