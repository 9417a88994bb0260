"""Modules of Flax, Linen or NNX, as two functions that parts call: `init` and `apply`.

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

from moejax import _checks

_FREE = ("bias", "scale", "negative_slope", "intercept", "logits", "log_scale")  # names of arrays that no penalty sees


@dataclass(frozen=True)
class Linen:
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
            eta: jax.Array = self.module.apply({"params": params}, x)
            return eta
        except InvalidRngError as error:
            given = f"{self.name} draws random numbers when it is applied"
            raise ValueError(f"module: {given}; want one that does not, as with nn.Dropout(deterministic=True)") from error


@dataclass(frozen=True)
class Nnx:
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
        eta: jax.Array = nnx.merge(graph, state, rest)(x)
        return eta


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


def as_network(module: Any) -> Linen | Nnx:
    """The two functions of a module, or of a function that builds one; raises ValueError for anything else."""
    from flax import linen, nnx

    if isinstance(module, linen.Module):
        return Linen(module, _identity(module))
    if isinstance(module, nnx.Module):
        name = type(module).__name__
        raise ValueError(f"module: an nnx {name} was given; want what builds it, as in lambda rngs: {name}(..., rngs=rngs)")
    if isinstance(module, type) or not callable(module):
        wanted = "a flax.linen.Module, or a function of rngs that builds an nnx.Module"
        raise ValueError(f"module: {_checks.shown(module)} was given; want {wanted}")
    _structure(module)
    return Nnx(module)


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


def init_params(network: Any, key: jax.Array, x: Any) -> Any:
    """Parameters of the type of x, of whose rows one is enough."""
    dtype = jnp.result_type(*jax.tree.leaves(x))
    params = network.init(key, jax.tree.map(lambda leaf: leaf[:1], x))
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, params)


def output_shape(network: Any, key: jax.Array, x: Any) -> tuple[int, ...]:
    """The shape of what the module makes of x, without making it."""
    given: Any = jax.eval_shape(lambda key, x: network.apply(init_params(network, key, x), x), key, x)
    if not hasattr(given, "shape"):
        raise ValueError(f"module: {network.name} returned {type(given).__name__}; want one array")
    shape: tuple[int, ...] = given.shape
    return shape


def penalized_leaves(params: Any) -> Any:
    """Which leaves of a network are coefficients, a tree like params of True and False: all but biases and scales."""

    def seen(path: tuple[Any, ...], leaf: Any) -> bool:
        names = [str(entry.key) for entry in path if hasattr(entry, "key")]  # what boxes a parameter has no key
        return not names or names[-1] not in _FREE

    return jax.tree_util.tree_map_with_path(seen, params)
