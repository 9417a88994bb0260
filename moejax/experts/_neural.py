"""Neural experts: any module of Flax, Linen or NNX, in the place of linear predictors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from moejax._contracts import by_expert
from moejax._networks import Linen, Nnx, as_network, init_params, output_shape, penalized_leaves
from moejax._trees import n_rows
from moejax.experts._base import Expert


@dataclass(frozen=True)
class NeuralExpert(Expert):
    """K copies of one network; made by `neural`.

    Attributes
    ----------
    network : Linen or Nnx
        The module.
    """

    network: Linen | Nnx
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """Return the parameters of the module, drawn K times, experts on the leading axis.

        Raises ValueError for a module that does not return (n,), (n, 1) or (n, m).
        """
        n, shape = n_rows(x), output_shape(self.network, key, x)
        if len(shape) not in (1, 2) or shape[0] != n:
            raise ValueError(f"expert: {self.network.name} returned shape {shape}; want {(n,)}, {(n, 1)} or ({n}, m)")
        return jax.vmap(lambda k: init_params(self.network, k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """Return the predictors of each expert: (K, n), also of a module that returns (n, 1), or (K, n, m)."""
        eta = jax.vmap(self.network.apply, in_axes=(0, None))(params, x)
        return eta[..., 0] if eta.ndim == 3 and eta.shape[2] == 1 else eta

    def reordered(self, params: Any, order: Any) -> tuple[NeuralExpert, Any]:
        """Return the params in another order of the experts."""
        return self, by_expert(params, order)

    def penalized(self, params: Any) -> Any:
        """Return all arrays but biases, scales of normalisations and slopes of activations, by name."""
        return penalized_leaves(params)


def neural(module: Any) -> NeuralExpert:
    """Construct experts that are K networks of the same architecture.

    Parameters
    ----------
    module : flax.linen.Module or callable
        A Linen module, or, for NNX, a function that builds an `nnx.Module` from its `rngs`, as `lambda rngs: MLP(10,
        rngs=rngs)`. It maps x, an array (n, ...) or the pytree that the model is given, to (n,) or (n, 1), for a target
        (n,), or to (n, m).

    Returns
    -------
    NeuralExpert
        The experts, each with parameters of its own. Building them again from an equal Linen module, or from the same
        function, compiles nothing anew.

    Raises
    ------
    ValueError
        If it is no module, or a module that keeps more than parameters.

    Notes
    -----
    Penalties see the kernels and not the biases. `fit_gradient` trains the networks on any loss, and `fit_em` by a few
    gradient steps an iteration.
    """
    return NeuralExpert(as_network(module))
