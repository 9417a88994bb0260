"""Splits of rows into training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moejax import _checks
from moejax.data._random import Seed, generator


class Split(NamedTuple):
    """Row numbers of three disjoint parts of a data set.

    Attributes
    ----------
    train : numpy.ndarray of int64, shape (n_train,)
        Training rows.
    validation : numpy.ndarray of int64, shape (n_validation,)
        Validation rows.
    test : numpy.ndarray of int64, shape (n_test,)
        Test rows.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split(n: int, seed: Seed, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> Split:
    """Split rows 0 to n - 1 at random into training, validation and test rows.

    Each row is in exactly one part.

    Parameters
    ----------
    n : int
        Number of rows, at least 1.
    seed : int or numpy.random.SeedSequence
        Source of all randomness.
    fractions : sequence of float, default (0.6, 0.2, 0.2)
        Fractions of training, validation and test rows. Their sum is 1. The size of a part differs from n times its fraction
        by at most one row. The training fraction must be above 0. A part of fraction 0 is empty.

    Returns
    -------
    Split
        Row numbers of the three parts, in random order.

    Raises
    ------
    ValueError
        If an argument is out of range, or if a part with a fraction above 0 has no row.

    Examples
    --------
    >>> from moejax import datasets
    >>> parts = datasets.split(10, 0)
    >>> len(parts.train), len(parts.validation), len(parts.test)
    (6, 2, 2)
    """
    _checks.count("n", n)
    _checks.shape("fractions", fractions, (3,), "the fractions of training, validation and test rows")
    _checks.not_negative("fractions", fractions)
    shares = np.asarray(fractions, dtype=np.float64)
    if abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions: {tuple(fractions)} was given, which sums to {shares.sum():.12g}; want a sum of 1")
    if shares[0] == 0:
        raise ValueError(f"fractions: {tuple(fractions)} was given; want a training fraction above 0")
    # The cumulative sums are rounded, not the sizes, so that the sizes add up to n.
    ends = np.rint(np.cumsum(shares) * n).astype(int)
    parts = Split(*np.split(generator(seed, "split").permutation(n), ends[:2]))
    for name, share, part in zip(Split._fields, shares, parts, strict=True):
        if share > 0 and not part.size:
            raise ValueError(f"n: {n} rows leave none for {name} at a fraction of {share:g}; want more rows")
    return parts
