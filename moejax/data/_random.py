"""Random number generators of simulated data."""

from __future__ import annotations

import numpy as np

from moejax import _checks

Seed = int | np.random.SeedSequence
"""Type of a seed: a whole number of at least 0, or a `numpy.random.SeedSequence`, which is not changed."""


def generator(seed: Seed, purpose: str) -> np.random.Generator:
    """Return the random number generator of a seed and a purpose.

    Each purpose has an independent stream of random numbers. So new rows that are drawn with the seed of a problem do not
    repeat the noise of that problem.
    """
    if not isinstance(seed, np.random.SeedSequence):
        seed = np.random.SeedSequence(_checks.count("seed", seed, 0, _checks.MOST_SEED))
    key = (*seed.spawn_key, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size))
