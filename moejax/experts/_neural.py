"""Neural experts: any module of Flax, Linen or NNX, in the place of linear predictors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from moejax._networks import Linen, Nnx, as_network, init_params, n_rows, output_shape, penalized_leaves
from moejax.experts._base import Expert


@dataclass(frozen=True)
class NeuralExpert(Expert):
    """K copies of one network; made by `neural`."""

    network: Linen | Nnx
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The module's parameters, drawn K times, experts on the leading axis.

        Raises ValueError for a module that does not return (n,), (n, 1) or (n, m).
        """
        n, shape = n_rows(x), output_shape(self.network, key, x)
        if len(shape) not in (1, 2) or shape[0] != n:
            raise ValueError(f"expert: {self.network.name} returned shape {shape}; want {(n,)}, {(n, 1)} or ({n}, m)")
        return jax.vmap(lambda k: init_params(self.network, k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """Each expert's predictors: (K, n), also of a module that returns (n, 1), or (K, n, m)."""
        eta = jax.vmap(self.network.apply, in_axes=(0, None))(params, x)
        return eta[..., 0] if eta.ndim == 3 and eta.shape[2] == 1 else eta

    def penalized(self, params: Any) -> Any:
        """All arrays but biases, scales of normalisations and slopes of activations, by name."""
        return penalized_leaves(params)


def neural(module: Any) -> NeuralExpert:
    """Experts that are K networks of the same architecture, each with parameters of its own: `moejax.experts.neural`.

    module: a `flax.linen.Module`, or, for NNX, a function that builds an `nnx.Module` from its `rngs`, as `lambda rngs:
    MLP(10, rngs=rngs)`. It maps x, an array (n, ...) or whatever pytree the model is given, to (n,) or (n, 1), for a target
    (n,), or to (n, m). Penalties see its kernels and no biases. `fit_gradient` trains it on any loss, and `fit_em` by a few
    gradient steps an iteration. Building it again from an equal Linen module, or from the same function, compiles nothing
    anew.

    Raises ValueError for what is no module, and for a module that keeps more than parameters.
    """
    return NeuralExpert(as_network(module))
