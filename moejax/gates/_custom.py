"""Gates of somebody's own logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Custom:
    """A gate of two functions of the user's own; made by `custom`."""

    init: Callable[[jax.Array, int, Any], Any]
    log_probs: Callable[[Any, Any], jax.Array]


def custom(
    init: Callable[[jax.Array, int, Any], Any],
    logits: Callable[[Any, Any], jax.Array],
) -> Custom:
    """A gate from two functions: init(key, n_experts, x) -> params, and logits(params, x) -> (n, K) of any real numbers.

    The probabilities are the softmax of the logits. Building it again from the same two functions compiles nothing anew.
    """
    return Custom(init, _LogSoftmax(logits))


@dataclass(frozen=True)
class _LogSoftmax:
    """log softmax of somebody's (n, K) logits as (K, n), hashed by that function."""

    logits: Callable[[Any, Any], jax.Array]

    def __call__(self, params: Any, x: Any) -> jax.Array:
        return jax.nn.log_softmax(self.logits(params, x), axis=-1).T
