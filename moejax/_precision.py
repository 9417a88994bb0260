"""The precision that JAX computes in, chosen for a stretch of code."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """Run JAX in float64 for the type float64, and in float32 for other types.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the inputs.

    Yields
    ------
    None
    """
    there = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    with there(dtype == np.float64):
        yield
