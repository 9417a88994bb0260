"""Experts that are given functions of the inputs, of which nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.experts._base import Expert


@dataclass(frozen=True)
class Functions(Expert):
    """Predictors that are functions of the inputs; made by `functions`.

    Attributes
    ----------
    each : tuple of callable
        One function of x for each expert.
    """

    each: tuple[Callable[[Any], jax.Array], ...]

    inits_by_shape = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> dict[str, jax.Array]:
        """Return no params; raise ValueError unless there are as many functions as experts."""
        if len(self.each) != n_experts:
            raise ValueError(f"functions: {len(self.each)} were given for {n_experts} experts; want one for each")
        return {}

    def penalized(self, params: dict[str, jax.Array]) -> dict[str, bool]:
        """Return no coefficients, because nothing is trained."""
        return {}

    def reordered(self, params: dict[str, jax.Array], order: Any) -> tuple[Functions, dict[str, jax.Array]]:
        """Return the functions in another order; there are no params."""
        return Functions(tuple(self.each[k] for k in order)), params

    def prepare(self, x: Any) -> jax.Array:
        """Return the values of the functions, (n, K) or (n, K, m), evaluated once for all members of a sweep."""
        n = jax.tree.leaves(x)[0].shape[0]
        said = [_said(number, function, x) for number, function in enumerate(self.each)]
        shapes = [eta.shape for eta in said]
        if len(set(shapes)) > 1 or shapes[0][:1] != (n,) or len(shapes[0]) > 2:
            raise ValueError(f"functions: they returned shapes {shapes}; want ({n},) of all, or ({n}, m)")
        return jnp.stack(said, axis=1)

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """Return the values of the functions, experts first."""
        return jnp.swapaxes(x, 0, 1)


def _said(number: int, function: Callable[[Any], Any], x: Any) -> jax.Array:
    dtype = jax.tree.leaves(x)[0].dtype
    try:
        return jnp.asarray(function(x), dtype)
    except jax.errors.JAXTypeError as error:  # it asked an array that is only traced for its numbers
        raise ValueError(
            f"functions[{number}]: {function!r} cannot be traced by JAX; want a function of jax.numpy, or what "
            "moejax.stacking.predictions makes of it beforehand, with experts.predictions()"
        ) from error


def functions(each: Sequence[Callable[[Any], Any]]) -> Functions:
    """Construct experts that are given functions of the inputs.

    Parameters
    ----------
    each : sequence of callable
        One function for each expert, f(x) -> eta, (n,) or (n, m), of what the experts see of x. JAX traces it, and it runs
        once for all members of a sweep.

    Returns
    -------
    Functions
        The experts. Nothing in them is trained; the gate and the scales are.

    Raises
    ------
    ValueError
        If there is no function, or something that is not callable. When the model is used: if a function cannot be traced,
        if there is not one for each expert, or if the functions return different shapes.

    Notes
    -----
    A function that needs numbers, such as the `predict` of a scikit-learn estimator, cannot be traced.
    `moejax.stacking.predictions` runs such functions beforehand, for `predictions`.
    """
    given, each = each, tuple(each) if isinstance(each, Sequence) else ()
    if not each or not all(callable(function) for function in each):
        wanted = "a sequence of functions of x, one for each expert"
        raise ValueError(f"functions: {_checks.shown(given)} was given; want {wanted}")
    return Functions(each)
