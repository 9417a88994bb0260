"""Mixtures of linear regressions whose conditional density and best predictor are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from moejax import _checks
from moejax.data._random import Seed, generator


@dataclass(frozen=True, eq=False)
class Clusters:
    """Inputs in K clusters, one cluster per expert.

    The expert k of a row is uniform over the K experts, and x given k is N(means[k], covariance).

    Attributes
    ----------
    means : numpy.ndarray, shape (K, d)
        Mean of x for each expert.
    covariance : numpy.ndarray, shape (d, d)
        Covariance of x given the expert. It is the same for all experts.
    """

    means: np.ndarray
    covariance: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw inputs and their experts.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of random numbers.
        n : int
            Number of rows.

        Returns
        -------
        x : numpy.ndarray, shape (n, d)
            Inputs.
        expert : numpy.ndarray of int64, shape (n,)
            Expert of each row, from 0 to K - 1.
        """
        expert = rng.integers(len(self.means), size=n)
        noise = rng.standard_normal((n, self.means.shape[1]))
        return self.means[expert] + noise @ np.linalg.cholesky(self.covariance).T, expert

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Compute log P(expert | x), up to a constant that may differ between rows.

        Parameters
        ----------
        x : numpy.ndarray, shape (n, d)
            Inputs.

        Returns
        -------
        numpy.ndarray, shape (n, K)
            Logits. Their softmax over experts is P(expert | x).
        """
        # The quadratic term in x is the same for every expert and cancels, so the logits are linear in x. The centre of
        # the means is the origin: this loses no digits when the means are close together and far from 0.
        centre = self.means.mean(axis=0)
        means = self.means - centre
        slopes = np.linalg.solve(self.covariance, means.T)
        logits: np.ndarray = (x - centre) @ slopes - 0.5 * np.sum(means.T * slopes, axis=0)
        return logits


@dataclass(frozen=True, eq=False)
class SoftmaxGate:
    """Inputs in one cluster, divided among the experts by a softmax gate.

    x is N(0, covariance), and P(k | x) is the softmax over experts of x . weights[k].

    Attributes
    ----------
    weights : numpy.ndarray, shape (K, d)
        Coefficients of the gate's logits.
    covariance : numpy.ndarray, shape (d, d)
        Covariance of x.
    """

    weights: np.ndarray
    covariance: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw inputs and their experts.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of random numbers.
        n : int
            Number of rows.

        Returns
        -------
        x : numpy.ndarray, shape (n, d)
            Inputs.
        expert : numpy.ndarray of int64, shape (n,)
            Expert of each row, from 0 to K - 1.
        """
        x = rng.standard_normal((n, self.weights.shape[1])) @ np.linalg.cholesky(self.covariance).T
        # Gumbel-max trick: the argmax of logits plus Gumbel noise is a draw from the softmax.
        return x, (self.logits(x) + rng.gumbel(size=(n, len(self.weights)))).argmax(axis=1)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Compute log P(expert | x), up to a constant that may differ between rows.

        Parameters
        ----------
        x : numpy.ndarray, shape (n, d)
            Inputs.

        Returns
        -------
        numpy.ndarray, shape (n, K)
            Logits x . weights[k]. Their softmax over experts is P(expert | x).
        """
        logits: np.ndarray = x @ self.weights.T
        return logits


@dataclass(frozen=True, eq=False)
class Problem:
    """A sample from a mixture of K linear regressions without intercepts, with the true parameters.

    The gate draws x and the expert k of each row. Then y = x . weights[k] + noise_sd * noise. The noise has variance 1 and
    is normal, or follows Student's t distribution.

    Attributes
    ----------
    x : numpy.ndarray, shape (n, d)
        Inputs.
    y : numpy.ndarray, shape (n,)
        Targets.
    expert : numpy.ndarray of int64, shape (n,)
        True expert of each row, from 0 to K - 1.
    gate : Clusters or SoftmaxGate
        Joint distribution of x and the expert.
    weights : numpy.ndarray, shape (K, d)
        Coefficients of each expert.
    noise_sd : float
        Standard deviation of y given x and the expert.
    noise_df : float or None
        Degrees of freedom of the noise, above 2. None (the default) means normal noise.
    groups : numpy.ndarray of int64, shape (K, d), or None
        Group of each coefficient: within an expert, the coefficients of a group are equal. None (the default) means that the
        coefficients are not grouped.

    Examples
    --------
    >>> from moejax import datasets
    >>> problem = datasets.three_regressions(0, n=100, d=5)
    >>> x, y, expert = problem.draw(1, 1000)
    >>> x.shape, y.shape, expert.shape
    ((1000, 5), (1000,), (1000,))
    >>> problem.posterior(x).sum(axis=1).round(6).max().item()
    1.0
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
        """Draw new rows of this problem.

        The new rows are independent of the rows `x` and `y`, even for the seed with which the problem was made.

        Parameters
        ----------
        seed : int or numpy.random.SeedSequence
            Source of all randomness.
        n : int
            Number of rows, at least 1.

        Returns
        -------
        x : numpy.ndarray, shape (n, d)
            Inputs.
        y : numpy.ndarray, shape (n,)
            Targets.
        expert : numpy.ndarray of int64, shape (n,)
            True expert of each row, from 0 to K - 1.

        Raises
        ------
        ValueError
            If `seed` or `n` is not a whole number, or is too small.
        """
        _checks.count("n", n)
        return drawn_rows(generator(seed, "draw"), n, self.gate, self.weights, self.noise_sd, self.noise_df)

    def posterior(self, x: np.ndarray) -> np.ndarray:
        """Compute the true probability of each expert given x.

        Parameters
        ----------
        x : numpy.ndarray, shape (n, d)
            Inputs.

        Returns
        -------
        numpy.ndarray, shape (n, K)
            P(expert | x), by Bayes' rule. Each row sums to 1.

        Raises
        ------
        ValueError
            If `x` has the wrong shape or is not finite.
        """
        return _softmax(self.gate.logits(self._inputs(x)))

    def responsibilities(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Compute the true probability of each expert given x and y.

        Parameters
        ----------
        x : numpy.ndarray, shape (n, d)
            Inputs.
        y : numpy.ndarray, shape (n,)
            Targets.

        Returns
        -------
        numpy.ndarray, shape (n, K)
            P(expert | x, y). Each row sums to 1.

        Raises
        ------
        ValueError
            If `x` or `y` has the wrong shape or is not finite, or if `noise_sd` is 0.
        """
        return _softmax(self._log_joint(x, y))

    def log_prob(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Compute the true conditional log density of y given x.

        Parameters
        ----------
        x : numpy.ndarray, shape (n, d)
            Inputs.
        y : numpy.ndarray, shape (n,)
            Targets.

        Returns
        -------
        numpy.ndarray, shape (n,)
            log p(y | x) of each row, for y in its own units.

        Raises
        ------
        ValueError
            If `x` or `y` has the wrong shape or is not finite, or if `noise_sd` is 0.
        """
        return _log_sum(self._log_joint(x, y))[:, 0]

    def bayes(self, x: np.ndarray) -> np.ndarray:
        """Compute E[y | x] under the true mixture.

        No predictor has a smaller expected squared error.

        Parameters
        ----------
        x : numpy.ndarray, shape (n, d)
            Inputs.

        Returns
        -------
        numpy.ndarray, shape (n,)
            E[y | x], in the units of y.

        Raises
        ------
        ValueError
            If `x` has the wrong shape or is not finite.
        """
        x = self._inputs(x)
        mean: np.ndarray = np.sum(self.posterior(x) * (x @ self.weights.T), axis=1)
        return mean

    def bayes_mse(self, seed: Seed = 0, n: int = 200_000) -> float:
        """Estimate the expected squared error of `bayes`, which is the smallest of any predictor.

        Parameters
        ----------
        seed : int or numpy.random.SeedSequence, default 0
            Source of all randomness.
        n : int, default 200_000
            Number of new inputs that the estimate is a mean over, at least 1.

        Returns
        -------
        float
            Estimate of E[(y - E[y | x])^2], in squared units of y.

        Raises
        ------
        ValueError
            If `seed` or `n` is not a whole number, or is too small.

        Notes
        -----
        With m_k(x) = x . weights[k] and p_k(x) = P(k | x), the expected squared error is::

            noise_sd^2 + E[sum over k of p_k(x) (m_k(x) - E[y | x])^2]

        The expectation over x is a mean over n inputs. The sum over k is exact: no expert is drawn. This keeps the
        expectation and lowers the Monte Carlo error (Rao-Blackwell).
        """
        _checks.count("n", n)
        x, _ = self.gate.draw(generator(seed, "bayes_mse"), n)
        posterior, predictions = self.posterior(x), x @ self.weights.T
        bayes = np.sum(posterior * predictions, axis=1, keepdims=True)
        return float(self.noise_sd**2 + np.mean(np.sum(posterior * (predictions - bayes) ** 2, axis=1)))

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        """Return x as float64, after a check of shape and values."""
        _checks.shape("x", x, (None, self.weights.shape[1]), "samples by features of the problem")
        _checks.finite("x", x)
        return np.asarray(x, dtype=np.float64)

    def _log_joint(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return log p(expert, y | x), shape (n, K)."""
        x = self._inputs(x)
        _checks.shape("y", y, (len(x),), "one target for each row of x")
        _checks.finite("y", y)
        if self.noise_sd == 0:
            raise ValueError("noise_sd: 0 was given, but y then has no density; want a problem with noise_sd above 0")
        logits = self.gate.logits(x)
        residuals = np.asarray(y, dtype=np.float64)[:, None] - x @ self.weights.T
        joint: np.ndarray = (
            logits - _log_sum(logits) + _log_noise(residuals / self.noise_sd, self.noise_df) - math.log(self.noise_sd)
        )
        return joint


def drawn_rows(
    rng: np.random.Generator,
    n: int,
    gate: Clusters | SoftmaxGate,
    weights: np.ndarray,
    noise_sd: float,
    noise_df: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw inputs (n, d), targets (n,) and the expert of each row (n,)."""
    x, expert = gate.draw(rng, n)
    noise = rng.standard_normal(n) if noise_df is None else t_scale(noise_df) * rng.standard_t(noise_df, n)
    return x, np.sum(x * weights[expert], axis=1) + noise_sd * noise, expert


def t_scale(df: float) -> float:
    """Return the factor that gives a Student t variable with `df` degrees of freedom the variance 1."""
    return math.sqrt((df - 2) / df)


def _log_noise(z: np.ndarray, df: float | None) -> np.ndarray:
    """Return the log density, at z, of noise of variance 1."""
    if df is None:
        normal: np.ndarray = -0.5 * np.square(z) - 0.5 * math.log(2 * math.pi)
        return normal
    constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(math.pi * (df - 2))
    logs: np.ndarray = constant - (df + 1) / 2 * np.log1p(np.square(z) / (df - 2))
    return logs


def _log_sum(logs: np.ndarray) -> np.ndarray:
    """Return log(sum(exp(logs))) over experts, shape (n, 1), for logs of shape (n, K)."""
    largest = logs.max(axis=1, keepdims=True)
    sums: np.ndarray = largest + np.log(np.exp(logs - largest).sum(axis=1, keepdims=True))
    return sums


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax of logits (n, K) over experts."""
    joint = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: np.ndarray = joint / joint.sum(axis=1, keepdims=True)
    return probs


def check_problem(n: Any, d: Any, n_experts: Any, n_active: Any, noise_sd: Any, noise_df: Any) -> None:
    """Raise a ValueError if an argument of a simulated problem is out of range."""
    for name, value in (("n", n), ("d", d), ("n_experts", n_experts), ("n_active", n_active)):
        _checks.count(name, value)
    if n_active > d:
        raise ValueError(f"n_active: {n_active} was given; want at most d, which is {d}")
    _checks.number_from_0("noise_sd", noise_sd)
    if noise_df is not None and _checks.number_from_0("noise_df", noise_df) <= 2:
        raise ValueError(f"noise_df: {noise_df} was given, but the noise then has no finite variance; want more than 2")
