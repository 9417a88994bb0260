"""How good class probabilities are: log loss, accuracy and calibration, in NumPy and float64.

y holds class numbers (n,) from 0; probabilities are (n, C), rows summing to 1, or (n,), those of class 1 of two. weights
(n,) count rows, None for equal ones. Each raises ValueError for shapes that do not fit, for numbers that are no
probabilities and for classes that have none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from moejax import _checks

_ROUNDING = 1e-4  # of probabilities, and of their sum over classes


class Calibration(NamedTuple):
    """A reliability table of B bins of predicted probability, and what it comes to.

    edges: (B + 1,), of the bins. predicted: mean probability in each, (B,). observed: how often it came true, (B,). share:
    of the rows, (B,). Both means are NaN in a bin without rows. error: the expected calibration error, the mean over rows
    of |predicted - observed| of their bin (Naeini, Cooper and Hauskrecht 2015).
    """

    edges: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    share: np.ndarray
    error: float


def log_loss(y: Any, probabilities: Any, weights: Any = None) -> float:
    """The mean over rows of -log P(the class that it was), in nats; probabilities count as no less than rounding, eps."""
    labels, table, share = _checked(y, probabilities, weights)
    kind = getattr(probabilities, "dtype", np.dtype(float))
    eps = float(jnp.finfo(kind).eps) if jnp.issubdtype(kind, jnp.floating) else np.finfo(float).eps
    of_class = np.clip(table[np.arange(len(labels)), labels], eps, None)
    return float(-share @ np.log(of_class))


def accuracy(y: Any, probabilities: Any, weights: Any = None) -> float:
    """The share of rows whose most probable class is theirs."""
    labels, table, share = _checked(y, probabilities, weights)
    return float(share @ (table.argmax(axis=1) == labels))


def calibration(
    y: Any, probabilities: Any, bins: int = 10, *, of_class: int | None = None, weights: Any = None
) -> Calibration:
    """Predicted against observed shares in bins of equal width.

    of_class: whose probability is looked at. Unless given, class 1 of two, and of more classes the most probable one of
    each row, of which "observed" is the accuracy (Guo, Pleiss, Sun and Weinberger 2017). Also raises ValueError for bins
    below 1 and for a class that is not there.
    """
    _checks.count("bins", bins)
    labels, table, share = _checked(y, probabilities, weights)
    if of_class is not None:
        _checks.count("of_class", of_class, 0)
        _checks.whole("of_class", of_class, 0, table.shape[1] - 1)
    elif table.shape[1] == 2:
        of_class = 1
    chosen = table.argmax(axis=1) if of_class is None else np.full(len(labels), of_class)
    said, came = table[np.arange(len(labels)), chosen], labels == chosen
    edges = np.linspace(0, 1, bins + 1)
    number = np.searchsorted(edges[1:-1], said)  # what is on an edge is in the bin below

    def total(values: Any) -> np.ndarray:
        return np.bincount(number, share * values, minlength=bins)

    size = total(1.0)
    there = size > 0
    predicted, observed = (np.where(there, total(v) / np.where(there, size, 1), np.nan) for v in (said, came))
    error = float((size * np.abs(predicted - observed))[there].sum())
    return Calibration(edges, predicted, observed, size, error)


def _checked(y: Any, probabilities: Any, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,) as integers, probabilities (n, C), and weights (n,) of sum 1."""
    table = np.asarray(probabilities)
    _checks.finite("probabilities", table if table.dtype.kind in "OSUMmc" else table.astype(float))
    table = table.astype(float)
    if table.ndim == 1:
        table = np.stack([1 - table, table], axis=1)
    _checks.shape("probabilities", table, (None, None), "rows by classes, or (n,) of class 1")
    if (table < -_ROUNDING).any() or (np.abs(table.sum(axis=1) - 1) > _ROUNDING).any():
        raise ValueError("probabilities: some are below 0, or of a row that does not sum to 1; want those of all classes")
    _checks.shape("y", y, (len(table),), "a class number for each row")
    _checks.whole("y", y, 0, table.shape[1] - 1)
    share = np.ones(len(table)) if weights is None else np.asarray(weights, float)
    _checks.shape("weights", share, (len(table),), "one for each row")
    _checks.not_negative("weights", share)
    _checks.positive("sum of weights", share.sum())
    return np.asarray(y).astype(int), np.clip(table, 0, 1), share / share.sum()
