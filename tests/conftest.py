"""What several test files share."""

import contextlib
import importlib

import jax
import pytest


@contextlib.contextmanager
def precision(double):
    """JAX in float64, or in its default float32."""
    there = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    with there(double):
        yield


@pytest.fixture(scope="module")
def float64():
    """JAX in float64 for all tests of a module that asks for it."""
    with precision(True):
        yield


@pytest.fixture
def float32(float64):
    """JAX's default precision for one test of such a module."""
    with precision(False):
        yield
