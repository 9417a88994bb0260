"""Divisions of rows into training, validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moejax import _checks
from moejax.data._random import Seed, generator


class Split(NamedTuple):
    """Row numbers of three disjoint parts of a data set, each a 1-D array of int64."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


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
    parts = Split(*np.split(generator(seed, "split").permutation(n), ends[:2]))
    for name, share, part in zip(Split._fields, shares, parts, strict=True):
        if share > 0 and not part.size:
            raise ValueError(f"n: {n} rows leave none for {name} at a fraction of {share:g}; want more rows")
    return parts
