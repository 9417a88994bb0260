"""Neural gates: any module of Flax, Linen or NNX, in the place of linear logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from moejax._networks import Linen, Nnx, as_network, init_params, output_shape, penalized_leaves
from moejax._trees import n_rows
from moejax.gates._base import Gate


@dataclass(frozen=True)
class NeuralGate(Gate):
    """Softmax of a network's outputs; made by `neural`.

    Attributes
    ----------
    network : Linen or Nnx
        The module.
    """

    network: Linen | Nnx
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """Return the parameters of the module; raise ValueError for a module that does not return (n, K)."""
        want, shape = (n_rows(x), n_experts), output_shape(self.network, key, x)
        if shape != want:
            raise ValueError(f"gate: {self.network.name} returned shape {shape}; want {want}, a logit for each expert")
        return init_params(self.network, key, x)

    def log_probs(self, params: Any, x: Any) -> jax.Array:
        """Return log softmax of the outputs of the module, (K, n)."""
        return jax.nn.log_softmax(self.network.apply(params, x), axis=1).T

    def penalized(self, params: Any) -> Any:
        """Return all arrays but biases, scales of normalisations and slopes of activations, by name."""
        return penalized_leaves(params)


def neural(module: Any) -> NeuralGate:
    """Construct a gate that is the softmax of a network's outputs.

    Parameters
    ----------
    module : flax.linen.Module or callable
        A Linen module, or, for NNX, a function that builds an `nnx.Module` from its `rngs`. It maps x, an array (n, ...) or
        the pytree that the gate sees, to logits (n, K).

    Returns
    -------
    NeuralGate
        The gate. Building it again from an equal Linen module, or from the same function, compiles nothing anew.

    Raises
    ------
    ValueError
        If it is no module, or a module that keeps more than parameters. When params are made: if it does not return (n, K).

    Notes
    -----
    Penalties see the kernels and not the biases. `fit_gradient` trains the network on any loss, and `fit_em` by a few
    gradient steps an iteration.
    """
    return NeuralGate(as_network(module))
