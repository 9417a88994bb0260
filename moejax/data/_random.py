"""Where the randomness of data comes from."""

from __future__ import annotations

import numpy as np

from moejax import _checks

Seed = int | np.random.SeedSequence
"""What all randomness here comes from: a whole number of at least 0, or a seed sequence (which is left as it was)."""


def generator(seed: Seed, purpose: str) -> np.random.Generator:
    """Return the stream of random numbers that belongs to a seed and a purpose.

    Each purpose has its own, so that fresh rows drawn with the seed of a problem do not repeat that problem's noise.
    """
    if not isinstance(seed, np.random.SeedSequence):
        _checks.count("seed", seed, least=0)
        seed = np.random.SeedSequence(int(seed))
    key = (*seed.spawn_key, *purpose.encode())
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key, pool_size=seed.pool_size))
