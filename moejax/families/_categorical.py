"""Targets of several classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.families._base import Params, Undispersed, check_values


@dataclass(frozen=True)
class Categorical(Undispersed):
    """Class numbers; made by `categorical`.

    Attributes
    ----------
    n_classes : int
        Number of classes.
    """

    n_classes: int
    has_sample = True
    has_classes = True
    is_discrete = True

    def init(self, n_experts: int, eta: Any) -> Params:
        """Return no dispersion parameters; raise ValueError unless eta is (K, n, n_classes)."""
        self._check_eta(eta)
        return {}

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return log P(y), (K, n), for class numbers y (n,) and eta (K, n, C)."""
        self._check_eta(eta)
        _checks.shape("y", y, eta.shape[1:2], "a class number for each row")
        self._check_support(y)
        of_class = y[:, None] == jnp.arange(self.n_classes)
        return jnp.where(of_class, jax.nn.log_softmax(eta), 0).sum(axis=2)

    def mean(self, eta: jax.Array) -> jax.Array:
        """Return class probabilities, (K, n, C)."""
        return jax.nn.softmax(eta)

    def class_probabilities(self, eta: jax.Array) -> jax.Array:
        """Return class probabilities, those of `mean`, (K, n, C)."""
        return self.mean(eta)

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return a class number from every expert for every row, (K, n), of the type of eta."""
        return jax.random.categorical(key, eta).astype(eta.dtype)

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return 2 p (1 - p), (K, n, C): a diagonal matrix above the Hessian, diag(p) - p p'.

        The Hessian is the Laplacian of a graph with weights p_c p_d between classes, v' H v = sum over pairs of p_c p_d (v_c
        - v_d)^2, and (v_c - v_d)^2 <= 2 v_c^2 + 2 v_d^2. The matrix bounds the Hessian at this eta, not elsewhere.
        """
        p = jax.nn.softmax(eta)
        return 2 * p * (1 - p)

    def check_target(self, y: Any, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y (n,) has class numbers; shape is (n, n_classes)."""
        self._check_outputs(shape[1:])
        _checks.shape("y", y, shape[:1], "a class number for each row")
        self._check_support(y)

    def _check_support(self, y: Any) -> None:
        whole = f"class numbers, whole from 0 to {self.n_classes - 1}"
        check_values(y, lambda v: (v >= 0) & (v < self.n_classes) & (v == np.floor(v)), whole)

    def _check_eta(self, eta: Any) -> None:
        self._check_outputs(eta.shape[2:])

    def _check_outputs(self, outputs: tuple[int, ...]) -> None:
        if outputs != (self.n_classes,):
            given = f"{outputs[0]} outputs" if outputs else "one output"
            raise ValueError(
                f"expert: {given} for {self.n_classes} classes; want one for each, as in experts.linear({self.n_classes})"
            )


def categorical(n_classes: int) -> Categorical:
    """Construct the categorical family, for class numbers.

    Parameters
    ----------
    n_classes : int
        Number of classes C, at least 2.

    Returns
    -------
    Categorical
        The family.

    Raises
    ------
    ValueError
        If n_classes is below 2.

    Notes
    -----
    Targets y (n,) are the numbers 0, 1, ..., C - 1, with probabilities softmax(eta) for eta (K, n, C). Experts need an
    output for every class, as `experts.linear(n_classes)` has.
    """
    return Categorical(_checks.count("n_classes", n_classes, 2))
