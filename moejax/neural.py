"""Neural experts and gates: any module of Flax, Linen or NNX, in the place of linear predictors.

A module counts by its parameters alone. It is applied without dropout, and one that keeps numbers of another kind, such as
running means of batch normalisation, is refused: a fit has no place for what changes with every pass over the data. Layer
normalisation and its like keep none.

Flax itself is imported when a part is made of a module, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_FREE = ("bias", "scale", "negative_slope", "intercept", "logits", "log_scale")  # names of arrays that no penalty sees


@dataclass(frozen=True)
class _Linen:
    """A module of flax.linen as two functions. Two of equal fields are equal, whether these can be hashed or not."""

    module: Any = field(compare=False)
    key: Any

    @property
    def name(self) -> str:
        """That of its class."""
        return type(self.module).__name__

    def init(self, key: jax.Array, x: Any) -> Any:
        """Parameters for inputs like x; raises ValueError for a module that has more than parameters."""
        variables = self.module.init(key, x)
        _refuse_state(self.name, sorted(set(variables) - {"params"}))
        return variables.get("params", {})

    def apply(self, params: Any, x: Any) -> jax.Array:
        """What the module makes of x; raises ValueError for a module that draws random numbers for it."""
        from flax.errors import InvalidRngError

        try:
            return self.module.apply({"params": params}, x)
        except InvalidRngError as error:
            given = f"{self.name} draws random numbers when it is applied"
            raise ValueError(f"module: {given}; want one that does not, as with nn.Dropout(deterministic=True)") from error


@dataclass(frozen=True)
class _Nnx:
    """A module of flax.nnx, as a function that builds it from `rngs`, as two functions; hashed by that function."""

    build: Callable[[Any], Any]

    @property
    def name(self) -> str:
        """That of the class of what is built."""
        return _structure(self.build)[0]

    def init(self, key: jax.Array, x: Any) -> Any:
        """Parameters, nested dictionaries by name."""
        from flax import nnx

        return nnx.to_pure_dict(nnx.state(self.build(nnx.Rngs(key)), nnx.Param))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """What the module makes of x."""
        from flax import nnx

        _, graph, like, rest = _structure(self.build)
        state = jax.tree.map(lambda leaf: leaf, like)  # a copy, for the next line writes into it
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, rest)(x)


@lru_cache(maxsize=256)
def _structure(build: Callable[[Any], Any]) -> tuple[str, Any, Any, Any]:
    """The name of the class, the graph, parameters and whatever random streams there are, by shape: it needs no numbers.

    Raises ValueError for a function that builds no module of flax.nnx, and for a module that has more than parameters.
    """
    from flax import nnx

    module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
    if not isinstance(module, nnx.Module):
        raise ValueError(f"module: {build!r} was given, which builds no nnx.Module; want a function of rngs that does")
    module.eval()
    parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
    graph, params, streams, state = parts
    kinds = {type(leaf).__name__ for leaf in jax.tree.leaves(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))}
    _refuse_state(type(module).__name__, sorted(kinds))
    return type(module).__name__, graph, params, streams


def _refuse_state(name: str, kinds: list[str]) -> None:
    if kinds:
        raise ValueError(
            f"module: {name} keeps {', '.join(kinds)} beside its parameters; want a module with parameters alone"
        )


def _network(module: Any) -> _Linen | _Nnx:
    """The two functions of a module, or of a function that builds one; raises ValueError for anything else."""
    from flax import linen, nnx

    if isinstance(module, linen.Module):
        return _Linen(module, _identity(module))
    if isinstance(module, nnx.Module):
        name = type(module).__name__
        raise ValueError(f"module: an nnx {name} was given; want what builds it, as in lambda rngs: {name}(..., rngs=rngs)")
    if isinstance(module, type) or not callable(module):
        wanted = "a flax.linen.Module, or a function of rngs that builds an nnx.Module"
        raise ValueError(f"module: {module!r} was given; want {wanted}")
    _structure(module)
    return _Nnx(module)


def _identity(value: Any, met: dict[int, int] | None = None) -> Any:
    """What tells a Linen module from others: its class and fields, lists as tuples, so that it can name a program.

    met: modules and their numbers in the order in which they were met, for one that is used twice shares its parameters.
    """
    from flax import linen

    met = {} if met is None else met
    if isinstance(value, linen.Module):
        if id(value) in met:
            return met[id(value)]
        met[id(value)] = len(met)
        own = [f.name for f in fields(value) if f.name != "parent"]
        return (type(value), *((name, _identity(getattr(value, name), met)) for name in own))
    if isinstance(value, list | tuple):
        return tuple(_identity(item, met) for item in value)
    if isinstance(value, dict):
        return tuple((name, _identity(item, met)) for name, item in value.items())
    if isinstance(value, np.ndarray | jax.Array):
        return (value.shape, str(value.dtype), np.asarray(value).tobytes())
    return value


def _init(network: Any, key: jax.Array, x: Any) -> Any:
    """Parameters of the type of x, of whose rows one is enough."""
    dtype = jnp.result_type(*jax.tree.leaves(x))
    params = network.init(key, jax.tree.map(lambda leaf: leaf[:1], x))
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, params)


def _output_shape(network: Any, key: jax.Array, x: Any) -> tuple[int, ...]:
    """The shape of what the module makes of x, without making it."""
    given: Any = jax.eval_shape(lambda key, x: network.apply(_init(network, key, x), x), key, x)
    if not hasattr(given, "shape"):
        raise ValueError(f"module: {network.name} returned {type(given).__name__}; want one array")
    return given.shape


def _rows(x: Any) -> int:
    return jax.tree.leaves(x)[0].shape[0]


def _penalized(params: Any) -> Any:
    def seen(path: tuple[Any, ...], leaf: Any) -> bool:
        names = [str(part.key) for part in path if hasattr(part, "key")]  # what boxes a parameter has no key
        return not names or names[-1] not in _FREE

    return jax.tree_util.tree_map_with_path(seen, params)


@dataclass(frozen=True)
class NeuralExpert:
    """K copies of one network; made by `neural_expert`."""

    network: _Linen | _Nnx
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The module's parameters, drawn K times, experts on the leading axis.

        Raises ValueError for a module that does not return (n,), (n, 1) or (n, m).
        """
        n, shape = _rows(x), _output_shape(self.network, key, x)
        if len(shape) not in (1, 2) or shape[0] != n:
            raise ValueError(f"expert: {self.network.name} returned shape {shape}; want {(n,)}, {(n, 1)} or ({n}, m)")
        return jax.vmap(lambda k: _init(self.network, k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """Each expert's predictors: (K, n), also of a module that returns (n, 1), or (K, n, m)."""
        eta = jax.vmap(self.network.apply, in_axes=(0, None))(params, x)
        return eta[..., 0] if eta.ndim == 3 and eta.shape[2] == 1 else eta

    def penalized(self, params: Any) -> Any:
        """All arrays but biases, scales of normalisations and slopes of activations, by name."""
        return _penalized(params)


@dataclass(frozen=True)
class NeuralGate:
    """Softmax of a network's outputs; made by `neural_gate`."""

    network: _Linen | _Nnx
    takes_any_array = True

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The module's parameters. Raises ValueError for a module that does not return (n, K)."""
        want, shape = (_rows(x), n_experts), _output_shape(self.network, key, x)
        if shape != want:
            raise ValueError(f"gate: {self.network.name} returned shape {shape}; want {want}, a logit for each expert")
        return _init(self.network, key, x)

    def log_probs(self, params: Any, x: Any) -> jax.Array:
        """log softmax of the module's outputs, (K, n)."""
        return jax.nn.log_softmax(self.network.apply(params, x), axis=1).T

    def penalized(self, params: Any) -> Any:
        """All arrays but biases, scales of normalisations and slopes of activations, by name."""
        return _penalized(params)


def neural_expert(module: Any) -> NeuralExpert:
    """Experts that are K networks of the same architecture, each with parameters of its own: `moejax.experts.neural`.

    module: a `flax.linen.Module`, or, for NNX, a function that builds an `nnx.Module` from its `rngs`, as `lambda rngs:
    MLP(10, rngs=rngs)`. It maps x, an array (n, ...) or whatever pytree the model is given, to (n,) or (n, 1), for a target
    (n,), or to (n, m). Penalties see its kernels and no biases. `fit_gradient` trains it on any loss, and `fit_em` by a few
    gradient steps an iteration. Building it again from an equal Linen module, or from the same function, compiles nothing
    anew.

    Raises ValueError for what is no module, and for a module that keeps more than parameters.
    """
    return NeuralExpert(_network(module))


def neural_gate(module: Any) -> NeuralGate:
    """A gate that is the softmax of a network's outputs: `moejax.gates.neural`.

    module: as for `neural_expert`; it maps x to logits (n, K). Raises ValueError for the same.
    """
    return NeuralGate(_network(module))
