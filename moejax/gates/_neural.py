"""Neural gates: any module of Flax, Linen or NNX, in the place of linear logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from moejax._networks import Linen, Nnx, as_network, init_params, n_rows, output_shape, penalized_leaves
from moejax.gates._base import Gate


@dataclass(frozen=True)
class NeuralGate(Gate):
    """Softmax of a network's outputs; made by `neural`."""

    network: Linen | Nnx
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The module's parameters. Raises ValueError for a module that does not return (n, K)."""
        want, shape = (n_rows(x), n_experts), output_shape(self.network, key, x)
        if shape != want:
            raise ValueError(f"gate: {self.network.name} returned shape {shape}; want {want}, a logit for each expert")
        return init_params(self.network, key, x)

    def log_probs(self, params: Any, x: Any) -> jax.Array:
        """log softmax of the module's outputs, (K, n)."""
        return jax.nn.log_softmax(self.network.apply(params, x), axis=1).T

    def penalized(self, params: Any) -> Any:
        """All arrays but biases, scales of normalisations and slopes of activations, by name."""
        return penalized_leaves(params)


def neural(module: Any) -> NeuralGate:
    """A gate that is the softmax of a network's outputs: `moejax.gates.neural`.

    module: as for `neural`; it maps x to logits (n, K). Raises ValueError for the same.
    """
    return NeuralGate(as_network(module))
