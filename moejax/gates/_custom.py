"""Gates of somebody's own logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from moejax import _checks
from moejax.gates._base import Gate


@dataclass(frozen=True)
class Custom(Gate):
    """A gate of a user's own functions; made by `custom`.

    Attributes
    ----------
    own_init : callable
        Makes the params.
    logits : callable
        Makes logits (n, K) of the params and x.
    coefficients : callable or None, default None
        Tells which arrays are penalised; None for none.
    """

    own_init: Callable[[jax.Array, int, Any], Any]
    logits: Callable[[Any, Any], jax.Array]
    coefficients: Callable[[Any], Any] | None = None

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """Return the params that the user's function makes."""
        return self.own_init(key, n_experts, x)

    def log_probs(self, params: Any, x: Any) -> jax.Array:
        """Return log softmax of the user's logits, (K, n)."""
        return jax.nn.log_softmax(self.logits(params, x), axis=-1).T

    def penalized(self, params: Any) -> Any:
        """Return what the user's function tells, and without one that nothing is penalised."""
        return super().penalized(params) if self.coefficients is None else self.coefficients(params)

    @property
    def declares_penalized(self) -> bool:
        """Whether the user gave a function that tells which arrays are penalised."""
        return self.coefficients is not None


def custom(
    init: Callable[[jax.Array, int, Any], Any],
    logits: Callable[[Any, Any], jax.Array],
    *,
    penalized: Callable[[Any], Any] | None = None,
) -> Custom:
    """Construct a gate from two functions: the probabilities are the softmax of logits.

    Parameters
    ----------
    init : callable
        `init(key, n_experts, x) -> params`, any pytree.
    logits : callable
        `logits(params, x) -> (n, K)`, any real numbers.
    penalized : callable or None, default None
        `penalized(params) -> tree of bool`, like params: which arrays penalties see. None for none; a penalty on the gate is
        then refused.

    Returns
    -------
    Custom
        The gate. Building it again from the same functions compiles nothing anew.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from moejax import gates
    >>> gate = gates.custom(
    ...     lambda key, n_experts, x: {"slopes": jnp.zeros((x.shape[1], n_experts)), "shift": jnp.zeros(n_experts)},
    ...     lambda params, x: x @ params["slopes"] + params["shift"],
    ...     penalized=lambda params: {"slopes": True, "shift": False},
    ... )
    """
    _checks.functions(init=init, logits=logits)
    if penalized is not None:
        _checks.functions(penalized=penalized)
    return Custom(init, logits, penalized)
