"""The parts of an estimator: those that names stand for, and those that are given as objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moejax import _checks, experts, families, gates, losses
from moejax.families import Family
from moejax.gates import Gate
from moejax.losses import Loss
from moejax.sklearn._estimators import check_choice

Named = Mapping[str, Callable[..., Any]]  # constructors by name

EXPERTS: Named = {"linear": experts.linear}
GATES = ("fixed", "constant", "softmax", "top1", "gaussian", "hierarchical")
FAMILIES: Named = {
    "gaussian": families.gaussian,
    "student_t": families.student_t,
    "poisson": families.poisson,
    "gamma": families.gamma,
}
LOSSES: Named = {"nll": losses.nll, "squared_error": losses.squared_error}
_WITH_REFERENCE = ("softmax", "top1")
_FLOORS = {"gaussian": "variance_floor", "student_t": "variance_floor", "gamma": "dispersion_floor"}
_SHARED = {"gaussian": "shared_scale", "student_t": "shared_scale", "gamma": "shared_shape"}


def part_of(name: str, given: Any, named: Named, completed: Callable[[Any], Any], **settings: Any) -> Any:
    """Return the part that a name stands for, or an object with the defaults of its contract.

    Parameters
    ----------
    name : str
        Name of the parameter, for messages.
    given : object
        A name, or a part.
    named : mapping of str to callable
        Constructors by name.
    completed : callable
        Completes an object, or raises ValueError for one that lacks a function.
    **settings
        Arguments of the constructor.

    Returns
    -------
    part
        A part with all methods of its contract.

    Raises
    ------
    ValueError
        If a name is not known, or an object lacks a function of the contract.
    """
    if not isinstance(given, str):
        return completed(given)
    check_choice(name, given, tuple(named))
    return named[given](**settings)


def gate_of(given: Any, n_experts: int, reference: bool) -> Gate:
    """Return the gate that a name, a tree or an object stands for.

    Parameters
    ----------
    given : str, tree or GateLike
        The parameter `gate` of an estimator.
    n_experts : int
        Number of experts.
    reference : bool
        The parameter `gate_reference` of an estimator. A single expert has no reference.

    Returns
    -------
    Gate
        The gate.

    Raises
    ------
    ValueError
        If a name is not known, an object lacks a function, a tree has another number of leaves, or the gate takes no
        reference from an estimator.
    """
    is_tree = type(given) in (list, tuple)  # a user's own record may be a named tuple
    if not (is_tree or isinstance(given, str)):
        gate = gates.completed(given)
        if reference:
            wanted = "it in the gate itself, as in gates.softmax(reference=True)"
            raise ValueError(f"gate_reference: True was given beside the gate {given!r}; want {wanted}")
        return gate
    if not is_tree:
        check_choice("gate", given, GATES)
    if reference and (is_tree or given not in _WITH_REFERENCE):
        raise ValueError(f"gate_reference: True was given for gate={given!r}; want one of {list(_WITH_REFERENCE)}")
    if is_tree or given == "hierarchical":
        tree = gates.hierarchical(given if is_tree else _halved(range(n_experts))) if n_experts > 1 else None
        if tree is None or tree.layout.below.shape[1] != n_experts:
            raise ValueError(f"gate: {given!r} was given for n_experts={n_experts}; want as many leaves, two or more")
        return tree
    named: Gate = getattr(gates, given)(**({"reference": True} if reference and n_experts > 1 else {}))
    return named


def family_of(given: Any, shared: bool, floor: float | None = None) -> Family:
    """Return the family that a name or an object stands for.

    Parameters
    ----------
    given : str or FamilyLike
        The parameter `family` of an estimator.
    shared : bool
        The parameter `shared_scale` of an estimator.
    floor : float or None, default None
        The parameter `variance_floor` of an estimator; None for the family's own.

    Returns
    -------
    Family
        The family.

    Raises
    ------
    ValueError
        If a name is not known, an object lacks a function, or the family takes no shared scale from an estimator.
    """
    if not isinstance(given, str):
        family = families.completed(given)
        if shared:
            wanted = "it in the family itself, as in families.gaussian(shared_scale=True)"
            raise ValueError(f"shared_scale: True was given beside the family {given!r}; want {wanted}")
        if floor is not None:
            wanted = "it in the family itself, as in families.gaussian(variance_floor=0.01)"
            raise ValueError(f"variance_floor: {floor} was given beside the family {given!r}; want {wanted}")
        return family
    check_choice("family", given, tuple(FAMILIES))
    if shared and given not in _SHARED:
        raise ValueError(f"shared_scale: True was given for family={given!r}, which has no scale; want False")
    settings: dict[str, Any] = {_SHARED[given]: True} if shared else {}
    if floor is not None:
        if given not in _FLOORS:
            raise ValueError(f"variance_floor: {floor} was given for family={given!r}, which has no scale; want None")
        _checks.shape("variance_floor", floor, (), "one number")
        settings[_FLOORS[given]] = floor
    named: Family = FAMILIES[given](**settings)
    return named


def loss_of(given: Any) -> Loss:
    """Return the loss that a name or an object stands for.

    Parameters
    ----------
    given : str or LossLike
        The parameter `loss` of an estimator.

    Returns
    -------
    Loss
        The loss.

    Raises
    ------
    ValueError
        If a name is not known, an object has no `value`, or the loss wants responsibilities, which an estimator has none of.
    """
    loss: Loss = part_of("loss", given, LOSSES, losses.completed)
    if loss.complete:
        wanted = "one that does not, as losses.nll()"
        raise ValueError(f"loss: {given!r} was given, which holds the responsibilities of rows; want {wanted}")
    return loss


def _halved(numbers: Any) -> Any:
    """Return the numbers of experts as a tree of binary splits; the first half is never the smaller one."""
    middle = (len(numbers) + 1) // 2
    return (_halved(numbers[:middle]), _halved(numbers[middle:])) if len(numbers) > 1 else numbers[0]
