"""How parts keep their contracts: capabilities that are declared, and users' own records completed by defaults.

A contract is a base class: `Expert`, `Gate`, `Family`, `Penalty`, `Loss`. Its abstract methods are required. Its other
methods are the defaults. Methods that belong together are a capability, which a class attribute or a property declares. A
user's own record is completed once, by `moe`, `fit_em` or `fit_gradient`; below that, code calls methods and asks for no
attribute.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from moejax import _checks
from moejax._arrays import Marks, Numbers, Tree

Params: TypeAlias = Tree  # the parameters of a part
_MARK = "_moejax_capabilities"
_NOTHING: Mapping[str, float] = MappingProxyType({})
_Method = TypeVar("_Method", bound=Callable[..., Any])


def capability(*names: str) -> Callable[[_Method], _Method]:
    """Mark a method of a base class as one that the capabilities of these names need.

    Parameters
    ----------
    *names : str
        Names of attributes that declare the capabilities.

    Returns
    -------
    callable
        A decorator, which returns the method itself.
    """

    def marked(method: _Method) -> _Method:
        setattr(method, _MARK, names)
        return method

    return marked


@lru_cache(maxsize=256)
def capabilities(kind: type) -> dict[str, tuple[str, ...]]:
    """Return the capabilities of a contract, each with the methods that it needs.

    Parameters
    ----------
    kind : type
        A base class, or a class that inherits one.

    Returns
    -------
    dict of str to tuple of str
        Methods by the name of the attribute that declares them, in the order of the base class.
    """
    found: dict[str, tuple[str, ...]] = {}
    for cls in reversed(kind.__mro__):
        for name, member in vars(cls).items():
            for each in getattr(member, _MARK, ()):
                found[each] = (*found.get(each, ()), name)
    return found


class Contract(abc.ABC):
    """What all contracts share.

    Attributes
    ----------
    role : str
        How messages name a part of this kind.
    """

    role: ClassVar[str]


class Part(Contract):
    """What experts, gates and families share: which parameters are trained, penalised, or set by a fit."""

    @property
    def hyper(self) -> Mapping[str, float]:
        """Numbers that a fit may set, with their defaults: untrained leaves of `params` by name. By default none."""
        return _NOTHING

    def check_hyper(self, name: str, value: Numbers) -> None:
        """Raise ValueError for a number of `hyper` that cannot be; by default one that is not finite.

        Parameters
        ----------
        name : str
            One of the names in `hyper`.
        value : array_like
            The number, or several.
        """
        _checks.finite(f"hyper[{name!r}]", value)

    def settled(self, params: Params) -> Params:
        """Return the params as they are once the numbers of `hyper` are set; by default unchanged.

        Parameters
        ----------
        params : pytree
            The params of this part.

        Returns
        -------
        pytree
            Params of the same structure.
        """
        return params

    def trainable(self, params: Params) -> Marks:
        """Return which arrays are trained; by default all floating ones, without those that `hyper` names.

        Parameters
        ----------
        params : pytree
            The params of this part.

        Returns
        -------
        pytree of bool
            A tree like `params`.
        """
        names = self.hyper
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.issubdtype(leaf.dtype, jnp.inexact) and _name(path) not in names, params
        )

    def penalized(self, params: Params) -> Marks:
        """Return which arrays are coefficients, which penalties see; by default none.

        Parameters
        ----------
        params : pytree
            The params of this part.

        Returns
        -------
        pytree of bool
            A tree like `params`. An array that is not trained is never penalised.
        """
        return jax.tree.map(lambda leaf: False, params)

    @property
    def declares_penalized(self) -> bool:
        """Whether the part says which arrays are coefficients. A penalty on a part that does not is refused."""
        return type(self).penalized is not Part.penalized

    def reordered(self, params: Params, order: Any) -> tuple[Any, Params] | None:
        """Return part and params of the same mixture with its experts in another order; None where that cannot be done.

        By default None, because an axis of size K need not be that of the experts. `by_expert` reorders params whose arrays
        have experts first.

        Parameters
        ----------
        params : pytree
            The params of this part.
        order : sequence of int, (K,)
            The present numbers of the experts.

        Returns
        -------
        tuple of part and pytree, or None
            The part, which may be this one, and its params.
        """
        return None


def by_expert(params: Params, order: Any) -> Params:
    """Return params whose arrays have experts first, with the experts in another order; single numbers stay.

    Parameters
    ----------
    params : pytree
        Arrays with K leading, and arrays without axes, which all experts share.
    order : sequence of int, (K,)
        The present numbers of the experts.

    Returns
    -------
    pytree
        Params of the same structure.
    """
    return jax.tree.map(lambda leaf: leaf[np.asarray(order)] if leaf.ndim else leaf, params)


def free_numbers(part: Part, params: Params) -> Int[Array, ""]:
    """Return the number of free numbers in params: coefficients that are not 0, and all other trained numbers.

    Parameters
    ----------
    part : Part
        The part whose params these are.
    params : pytree
        Its params.

    Returns
    -------
    jax.Array, ()
        A whole number.
    """
    marks, trained = part.penalized(params), part.trainable(params)
    free = jax.tree.map(lambda v, m, t: (v != 0 if m else jnp.ones_like(v, bool)) & t, params, marks, trained)
    return sum((v.sum() for v in jax.tree.leaves(free)), jnp.zeros((), int))


def _name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf at the top of a dictionary, and nothing for other leaves."""
    return str(getattr(path[0], "key", "")) if len(path) == 1 else ""


# ---- users' own records ---------------------------------------------------------------------------------------------


class Record:
    """A user's own record, completed: it has the attributes of the record, and the defaults of a contract for the rest.

    A class of this kind also inherits the base class of a contract and calls the required functions of the record. A
    capability that the record does not declare is there if the record has all its methods. The hash names a compiled
    program: it is that of the record. A named tuple equals those of other types that hold the same, and is told apart by its
    type; a record that cannot be hashed is told apart by its identity.

    Parameters
    ----------
    record : object
        Any object with the functions that the contract requires.
    """

    def __init__(self, record: Any):
        self._record = record

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__class__")
        if name.startswith("_") or name in vars(own):
            return object.__getattribute__(self, name)
        if hasattr(self._record, name):
            return getattr(self._record, name)
        if name in capabilities(own):
            return all(_has(self, method) for method in capabilities(own)[name])
        if name == "declares_penalized":
            return hasattr(self._record, "penalized")
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        return repr(self._record)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Record) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> Any:
        return (type(self._record), self._record) if _has_hash(self._record) else id(self._record)


def is_whole(part: Any, kind: type) -> bool:
    """Return whether a part has all methods of a contract and a hash that can name a compiled program.

    Parameters
    ----------
    part : object
        What a user gave.
    kind : type
        The base class.

    Returns
    -------
    bool
        False for a record, which has to be completed.
    """
    return isinstance(part, kind) and _has_hash(part) and not isinstance(part, tuple)


def missing(part: Any, functions: tuple[str, ...], attributes: tuple[str, ...] = ()) -> list[str]:
    """Return which of these functions and attributes a user's object does not have.

    Parameters
    ----------
    part : object
        What a user gave.
    functions : tuple of str
        Names of functions.
    attributes : tuple of str, default ()
        Names of attributes of any type.

    Returns
    -------
    list of str
        Names, the attributes first.
    """
    absent = [name for name in attributes if not hasattr(part, name)]
    return absent + [name for name in functions if not callable(getattr(part, name, None))]


def check_functions(role: str, part: Any, functions: tuple[str, ...]) -> None:
    """Raise ValueError unless a user's object has these functions.

    Parameters
    ----------
    role : str
        How the message names the part.
    part : object
        What a user gave.
    functions : tuple of str
        Names of functions.
    """
    absent = missing(part, functions)
    if absent:
        lacks = f"{_checks.shown(part)} has no function {' and no '.join(absent)}"
        raise ValueError(f"{role}: {lacks}; want a record with {functions}")


def _has_hash(part: Any) -> bool:
    try:
        hash(part)
    except TypeError:
        return False
    return True


# ---- capabilities that are not complete ------------------------------------------------------------------------------


def check_capabilities(part: Contract) -> None:
    """Raise ValueError for a capability of which a part has some methods and not all.

    Parameters
    ----------
    part : Contract
        An expert, a gate, a family, a penalty or a loss, with all methods of its contract.

    Raises
    ------
    ValueError
        If a declared capability lacks a method, if a method belongs to a capability that is not complete, if a complete
        capability is not declared, or if an attribute that is a boolean is something else.
    """
    for name in _flags(type(part)):
        _checks.flag(f"{part.role}: {name}", getattr(part, name))
    known = capabilities(type(part))
    declared = [name for name in known if getattr(part, name)]
    for name in declared:
        absent = [method for method in known[name] if not _has(part, method)]
        if absent:
            raise ValueError(
                f"{part.role}: {part!r} declares {name} and has no {' and no '.join(absent)}; "
                f"want {_listed(known[name])}, or {name} = False"
            )
    served = {method for name in declared for method in known[name]}
    # Where a property says which instances have a capability, the others may have its methods.
    decided = {name for name in known if name not in declared and isinstance(_declaration(part, name), property)}
    served |= {method for name in decided for method in known[name]}
    for method in dict.fromkeys(m for methods in known.values() for m in methods):
        if method in served or not _has(part, method):
            continue
        absent, name = min(
            (([m for m in methods if not _has(part, m)], name) for name, methods in known.items() if method in methods),
            key=lambda found: len(found[0]),
        )
        if not absent:
            raise ValueError(
                f"{part.role}: {part!r} has {_listed(known[name])} and does not declare {name}; want {name} = True"
            )
        there = [m for m in known[name] if m not in absent]
        wanted = "both, or neither" if len(known[name]) == 2 else f"all of {_listed(known[name])}, or none"
        raise ValueError(f"{part.role}: {part!r} has {_listed(there)} and no {' and no '.join(absent)}; want {wanted}")


@lru_cache(maxsize=256)
def _flags(kind: type) -> tuple[str, ...]:
    """Return the names of attributes that are booleans by the contract and the fields of a part."""
    notes = [vars(cls).get("__annotations__", {}) for cls in kind.__mro__]
    annotated = (name for own in notes for name, note in own.items() if note in (bool, "bool"))
    return tuple(dict.fromkeys([*annotated, *capabilities(kind)]))


def _declaration(part: Any, name: str) -> Any:
    """What a class in the place of the base class says of a capability; None for nothing, and for a user's record."""
    own = [cls for cls in type(part).__mro__ if name in vars(cls)]
    return vars(own[0])[name] if len(own) > 1 and not isinstance(part, Record) else None


def _has(part: Any, method: str) -> bool:
    """Return whether a part has a method of its own in the place of that of the base class."""
    own = getattr(part._record if isinstance(part, Record) else part, method, None)
    return callable(own) and not hasattr(getattr(own, "__func__", own), _MARK)


def _listed(names: Any) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
