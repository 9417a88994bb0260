"""Quality of class probabilities: log loss, accuracy and calibration, computed by NumPy in float64.

In all functions y holds class numbers (n,) from 0. Probabilities have shape (n, C) with rows of sum 1, or shape (n,) for the
probability of class 1 of two classes. Weights (n,) are case weights; None means equal weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from moejax import _checks

_ROUNDING = 1e-4  # tolerance for probabilities and for their sum over classes


class Calibration(NamedTuple):
    """A reliability table of B bins of predicted probability, and the expected calibration error.

    Attributes
    ----------
    edges : numpy.ndarray, (B + 1,)
        Edges of the bins.
    predicted : numpy.ndarray, (B,)
        Mean predicted probability in each bin; NaN in a bin without rows.
    observed : numpy.ndarray, (B,)
        Observed frequency in each bin; NaN in a bin without rows.
    share : numpy.ndarray, (B,)
        Share of the rows in each bin, by weight; the sum is 1.
    error : float
        Expected calibration error [1]_: the sum over bins of share * |predicted - observed|.

    References
    ----------
    .. [1] Naeini, Cooper and Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian binning", AAAI.
    """

    edges: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    share: np.ndarray
    error: float


def log_loss(y: Any, probabilities: Any, weights: Any = None) -> float:
    """Return the mean over rows of -log P(observed class), in nats.

    Parameters
    ----------
    y : array of int, (n,)
        Class numbers from 0 to C - 1.
    probabilities : array, (n, C) or (n,)
        Class probabilities, each row with sum 1; or, for two classes, the probability of class 1.
    weights : array, (n,), optional
        Case weights: a row of weight 2 counts twice. None means equal weights.

    Returns
    -------
    float
        The weighted mean over rows.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not a probability, a class number is out of range, or weights are negative or all
        0.

    Notes
    -----
    Probabilities below the rounding error of their type (`eps`) count as `eps`, so that the loss is finite.

    Examples
    --------
    >>> from moejax import metrics
    >>> round(metrics.log_loss([0, 1], [[0.5, 0.5], [0.2, 0.8]]), 4)  # (log 2 - log 0.8) / 2
    0.4581
    """
    labels, table, share = _checked(y, probabilities, weights)
    kind = getattr(probabilities, "dtype", np.dtype(float))
    eps = float(jnp.finfo(kind).eps) if jnp.issubdtype(kind, jnp.floating) else np.finfo(float).eps
    of_class = np.clip(table[np.arange(len(labels)), labels], eps, None)
    return float(-share @ np.log(of_class))


def accuracy(y: Any, probabilities: Any, weights: Any = None) -> float:
    """Return the share of rows whose most probable class is the observed class.

    Parameters
    ----------
    y : array of int, (n,)
        Class numbers from 0 to C - 1.
    probabilities : array, (n, C) or (n,)
        Class probabilities, each row with sum 1; or, for two classes, the probability of class 1.
    weights : array, (n,), optional
        Case weights: a row of weight 2 counts twice. None means equal weights.

    Returns
    -------
    float
        The weighted share, from 0 to 1. If several classes are equally probable, the lowest number counts.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not a probability, a class number is out of range, or weights are negative or all
        0.

    Examples
    --------
    >>> from moejax import metrics
    >>> metrics.accuracy([0, 1, 1, 1], [0.4, 0.8, 0.3, 0.9])
    0.75
    """
    labels, table, share = _checked(y, probabilities, weights)
    return float(share @ (table.argmax(axis=1) == labels))


def calibration(
    y: Any, probabilities: Any, bins: int = 10, *, of_class: int | None = None, weights: Any = None
) -> Calibration:
    """Compare predicted probabilities with observed frequencies in bins of equal width.

    Parameters
    ----------
    y : array of int, (n,)
        Class numbers from 0 to C - 1.
    probabilities : array, (n, C) or (n,)
        Class probabilities, each row with sum 1; or, for two classes, the probability of class 1.
    bins : int, default 10
        Number of bins, at least 1. A probability on an edge belongs to the bin below the edge.
    of_class : int, optional
        The class whose probability is compared. None means class 1 if there are two classes. If there are more, None means
        the most probable class of each row, and the observed frequency is then the accuracy [1]_.
    weights : array, (n,), optional
        Case weights: a row of weight 2 counts twice. None means equal weights.

    Returns
    -------
    Calibration
        The table and the expected calibration error.

    Raises
    ------
    ValueError
        If `bins` is below 1, `of_class` is not a class number, or for a reason given in `log_loss`.

    References
    ----------
    .. [1] Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", ICML.

    Examples
    --------
    >>> from moejax import metrics
    >>> table = metrics.calibration([0, 1, 1, 1], [0.25, 0.25, 0.75, 0.75], bins=2)
    >>> table.observed.tolist()
    [0.5, 1.0]
    >>> table.error
    0.25
    """
    bins = _checks.count("bins", bins)
    labels, table, share = _checked(y, probabilities, weights)
    if of_class is not None:
        _checks.count("of_class", of_class, 0)
        _checks.whole("of_class", of_class, 0, table.shape[1] - 1)
    elif table.shape[1] == 2:
        of_class = 1
    chosen = table.argmax(axis=1) if of_class is None else np.full(len(labels), of_class)
    probability, correct = table[np.arange(len(labels)), chosen], labels == chosen
    edges = np.linspace(0, 1, bins + 1)
    bin_of_row = np.searchsorted(edges[1:-1], probability)  # a probability on an edge belongs to the bin below

    def total(values: Any) -> np.ndarray:
        return np.bincount(bin_of_row, share * values, minlength=bins)

    size = total(1.0)
    occupied = size > 0
    predicted, observed = (
        np.where(occupied, total(v) / np.where(occupied, size, 1), np.nan) for v in (probability, correct)
    )
    error = float((size * np.abs(predicted - observed))[occupied].sum())
    return Calibration(edges, predicted, observed, size, error)


def _checked(y: Any, probabilities: Any, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels (n,) as integers, probabilities (n, C), and weights (n,) with sum 1."""
    _checks.finite("probabilities", probabilities)
    table = np.asarray(probabilities).astype(float)
    if table.ndim == 1:
        table = np.stack([1 - table, table], axis=1)
    _checks.shape("probabilities", table, (None, None), "rows by classes, or (n,) of class 1")
    if (table < -_ROUNDING).any() or (np.abs(table.sum(axis=1) - 1) > _ROUNDING).any():
        raise ValueError(
            "probabilities: some are below 0, or do not sum to 1 in their row; want the probabilities of all classes"
        )
    _checks.shape("y", y, (len(table),), "a class number for each row")
    _checks.whole("y", y, 0, table.shape[1] - 1)
    share = np.ones(len(table)) if weights is None else _checks.row_weights("weights", weights, len(table))
    return np.asarray(y).astype(int), np.clip(table, 0, 1), share / share.sum()
