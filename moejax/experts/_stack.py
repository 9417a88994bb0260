"""K experts from the functions of a single one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from moejax import _checks
from moejax._contracts import by_expert
from moejax.experts._base import Expert


@dataclass(frozen=True)
class Stack(Expert):
    """K copies of one expert; made by `stack`.

    Attributes
    ----------
    one_init : callable
        Makes the params of one expert.
    one_apply : callable
        Makes the predictions of one expert.
    coefficients : callable or None, default None
        Tells which arrays are penalised; None for none.
    """

    one_init: Callable[[jax.Array, Any], Any]
    one_apply: Callable[[Any, Any], jax.Array]
    coefficients: Callable[[Any], Any] | None = None

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """Return the parameters of the single expert, drawn K times, stacked on a leading axis."""
        return jax.vmap(lambda k: self.one_init(k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """Return the predictions of the single expert with each of the K parameters, (K, n) or (K, n, m)."""
        return jax.vmap(self.one_apply, in_axes=(0, None))(params, x)

    def penalized(self, params: Any) -> Any:
        """Return what the user's function tells, and without one that nothing is penalised."""
        return super().penalized(params) if self.coefficients is None else self.coefficients(params)

    def reordered(self, params: Any, order: Any) -> tuple[Stack, Any]:
        """Return the params in another order of the experts."""
        return self, by_expert(params, order)

    @property
    def declares_penalized(self) -> bool:
        """Whether the user gave a function that tells which arrays are penalised."""
        return self.coefficients is not None


def stack(
    init: Callable[[jax.Array, Any], Any],
    apply: Callable[[Any, Any], jax.Array],
    *,
    penalized: Callable[[Any], Any] | None = None,
) -> Stack:
    """Construct K experts from the two functions of a single one.

    Parameters
    ----------
    init : callable
        `init(key, x) -> params` of one expert, any pytree.
    apply : callable
        `apply(params, x) -> (n,)` or `(n, m)`, the predictions of one expert.
    penalized : callable or None, default None
        `penalized(params) -> tree of bool`, like params: which arrays penalties see. None for none; a penalty on the experts
        is then refused.

    Returns
    -------
    Stack
        The experts. Building them again from the same functions compiles nothing anew.

    Examples
    --------
    >>> import jax
    >>> from moejax import experts
    >>> bumps = experts.stack(
    ...     lambda key, x: {"slopes": jax.random.normal(key, x.shape[1:])},
    ...     lambda params, x: jax.numpy.tanh(x @ params["slopes"]),
    ...     penalized=lambda params: {"slopes": True},
    ... )
    """
    _checks.functions(init=init, apply=apply)
    if penalized is not None:
        _checks.functions(penalized=penalized)
    return Stack(init, apply, penalized)
