"""Comparison of a gradient with automatic differentiation and central differences."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from moejax import _checks
from moejax.handwritten._arguments import Array

AGREE = "agree"
GRADIENT_OFF = "gradient is off"
AUTODIFF_OFF = "autodiff is off"
DIFFERENCES_OFF = "differences are off (a kink, or a straight-through estimator)"
ALL_DIFFER = "all three differ"
_EPS = float(np.finfo(np.float64).eps)
_STEP = _EPS ** (1 / 3)  # the truncation and rounding errors of a central difference are of the same order
_DIFFERENCES_RTOL = 1e-5
_NOT_JAX = "loss: JAX cannot trace it, because it calls NumPy on params; want a function written with jax.numpy"


@dataclass(frozen=True)
class Row:
    """Comparison of the gradients of one leaf of the parameters.

    A relative difference is the absolute difference, divided by the largest magnitude in the leaf of the two gradients.

    Attributes
    ----------
    leaf : str
        Path of the leaf in the parameters, such as "gate.logits".
    shape : tuple of int
        Shape of the leaf.
    autodiff_absolute : float
        Largest absolute difference between the given gradient and autodiff.
    autodiff_relative : float
        The same difference, relative.
    differences_absolute : float
        Largest absolute difference between the given gradient and central differences.
    differences_relative : float
        The same difference, relative.
    verdict : str
        One of "agree", "gradient is off", "autodiff is off", "differences are off (a kink, or a straight-through estimator)"
        and "all three differ".
    """

    leaf: str
    shape: tuple[int, ...]
    autodiff_absolute: float
    autodiff_relative: float
    differences_absolute: float
    differences_relative: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`. Its `str` is the printed table.

    Attributes
    ----------
    rows : tuple of Row
        One row for each leaf of the parameters, in the order of the leaves.
    """

    rows: tuple[Row, ...]

    @property
    def agree(self) -> bool:
        """Whether the given gradient agrees with autodiff in every leaf (bool).

        A leaf in which only central differences differ counts as agreement. A kink and a straight-through estimator have
        this effect.
        """
        return all(row.verdict in (AGREE, DIFFERENCES_OFF) for row in self.rows)

    def __str__(self) -> str:
        head = ("leaf", "shape", "autodiff: abs", "rel", "differences: abs", "rel", "verdict")
        table = [head, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
        off = [row.leaf for row in self.rows if row.verdict not in (AGREE, DIFFERENCES_OFF)]
        last = f"off from autodiff: {', '.join(off)}" if off else "the given gradient agrees with autodiff"
        return "\n".join([*lines, last])


def compare(
    loss: Callable[[Any], Any],
    gradient: Callable[[Any], Any],
    params: Any,
    *,
    rtol: float = 1e-6,
    file: TextIO | None = None,
) -> Comparison:
    """Compare a gradient with autodiff and with central differences, leaf by leaf, and print a table.

    All three gradients are computed in float64, whatever the default precision of JAX. The default precision is not changed.

    Parameters
    ----------
    loss : callable
        Function of the parameters that returns a scalar, written with `jax.numpy`. It is compiled unless Python branches on
        its values.
    gradient : callable
        Function of the parameters (float64 NumPy arrays) that returns the gradient to check: a tree with the structure and
        the shapes of `params`, with NumPy arrays, JAX arrays or numbers as leaves.
    params : pytree of arrays or numbers
        Parameters at which the gradients are compared.
    rtol : float, default 1e-6
        Relative tolerance between the given gradient and autodiff, above 0.
    file : text file, optional
        File to print the table to. If None (the default), the standard output.

    Returns
    -------
    Comparison
        One `Row` for each leaf.

    Raises
    ------
    ValueError
        If a leaf of `params` or of the gradient is not numeric or not finite; if the structure or a shape of the gradient
        differs from `params`; or if the loss, its derivative or its central difference is not a finite float64 number.
    TypeError
        If the loss calls NumPy on its argument, so that JAX cannot differentiate it.

    Notes
    -----
    If two of the three gradients agree on a leaf and the third differs, the third is off.

    The given gradient and autodiff agree on a leaf if their difference is at most `rtol` times the largest magnitude in the
    leaf. The tolerance is relative to the leaf, not to each entry: an entry close to zero is often a difference of large
    terms and has few correct digits in any derivation. Differences below 64 eps times the loss, or times the largest
    gradient of any leaf, are rounding errors and are ignored. If a model fits without error, the loss itself is a rounding
    error. Then no gradient has correct digits, and a leaf may be reported as off.

    Central differences use the steps h = cbrt(eps) max(1, |p|), about 6e-6, and h / 2 for a parameter p, with Richardson
    extrapolation. They evaluate the loss four times per parameter, so `compare` suits models with up to some thousands of
    parameters. Their tolerance is max(rtol, 1e-5) times the largest magnitude in the leaf, plus 32 eps |loss| / h:

    - The truncation error is of order h^4, below 1e-10, unless the slope of the loss changes much when a parameter changes
      by about 1e-4. The tolerance of 1e-5 allows for such a loss.
    - Small steps seldom cross a kink, but they amplify rounding errors: after extrapolation, a rounding error of the loss
      becomes an error of 3 eps |loss| / h. The factor 32 leaves a margin for rounding errors inside the loss.

    If central differences agree within their tolerance with two gradients that differ by more than `rtol`, the verdict
    follows autodiff.

    A kink within one step of the point (L1 at 0, a ReLU, a choice of expert) gives the verdict "differences are off". So
    does an operation that stops or replaces a gradient on purpose (straight-through, `stop_gradient`). Exactly at 0,
    autodiff of |w| is off: JAX gives the slope 1 there, while sign(w) and central differences give 0.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import handwritten
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> result = handwritten.compare(
    ...     lambda p: (p["w"] ** 2).sum(), lambda p: {"w": 2 * p["w"]}, params
    ... )  # doctest: +ELLIPSIS
    leaf ...
    the given gradient agrees with autodiff
    >>> result.agree
    True
    """
    import jax  # imported here so that the rest of the package works without JAX

    _checks.functions(loss=loss, gradient=gradient)
    rtol = _checks.number_above_0("rtol", rtol)
    with _float64(jax):
        names, leaves, structure = _read_leaves(jax, "params", params)
        given = _given_gradient(jax, gradient, names, leaves, structure)

        def loss_of_leaves(values: Sequence[Any]) -> Any:
            return loss(structure.unflatten([jax.numpy.asarray(value) for value in values]))

        compiled = _compiled(jax, loss_of_leaves, leaves)
        value, automatic = _autodiff(jax, compiled, names, leaves)
        numeric = _differences(compiled, leaves)
    for name, slopes in zip(names, numeric, strict=True):
        _checks.finite(f"loss: central differences in {name}", slopes)
    rows = _rows(names, given, automatic, numeric, value, rtol)
    result = Comparison(tuple(rows))
    print(result, file=file)
    return result


def _float64(jax: Any) -> AbstractContextManager[Any]:
    """Return the context in which JAX computes in float64; its name differs between versions of JAX."""
    there = jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    context: AbstractContextManager[Any] = there.enable_x64(True)
    return context


def _read_leaves(jax: Any, name: str, tree: Any) -> tuple[list[str], list[Array], Any]:
    """Return the paths of the leaves of a tree, the leaves as new float64 arrays, and the structure of the tree."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    if not flat:
        raise ValueError(f"{name}: a tree without leaves was given; want at least one array")
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in flat]
    leaves = []
    for path, (_, leaf) in zip(paths, flat, strict=True):
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not any(jax.numpy.issubdtype(kind, real) for real in (np.floating, np.integer)):
            raise ValueError(f"{name}: leaf {path} of type {kind} was given; want real numbers")
        leaf = _checks.native(f"{name}: leaf {path}", leaf)
        _checks.finite(f"{name}: leaf {path}", np.asarray(leaf).astype(np.float64))
        leaves.append(np.array(leaf).astype(np.float64))
    return paths, leaves, structure


def _given_gradient(
    jax: Any, gradient: Callable[[Any], Any], names: list[str], leaves: list[Array], structure: Any
) -> list[Array]:
    """Return the leaves of the gradient to check, after a check of structure and shapes."""
    result = gradient(structure.unflatten([leaf.copy() for leaf in leaves]))  # copies, because it may change its argument
    paths, given, given_structure = _read_leaves(jax, "gradient", result)
    for missing in sorted(set(names) - set(paths)):
        raise ValueError(f"gradient: leaf {missing} was not given; want the leaves of params, {', '.join(names)}")
    for unknown in sorted(set(paths) - set(names)):
        raise ValueError(f"gradient: leaf {unknown} was given; want only the leaves of params, {', '.join(names)}")
    if given_structure != structure:
        raise ValueError(f"gradient: structure {given_structure} was given; want that of params, {structure}")
    for name, slopes, leaf in zip(names, given, leaves, strict=True):
        _checks.shape(f"gradient: leaf {name}", slopes, leaf.shape, "the shape in params")
    return given


def _compiled(jax: Any, loss: Callable[[Sequence[Any]], Any], leaves: list[Array]) -> Callable[[Sequence[Any]], Any]:
    """Return the compiled loss, or the loss itself if Python branches on its values."""
    compiled: Callable[[Sequence[Any]], Any] = jax.jit(loss)
    try:
        compiled(leaves)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(_NOT_JAX) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError):
        return loss
    return compiled


def _autodiff(
    jax: Any, loss: Callable[[Sequence[Any]], Any], names: list[str], leaves: list[Array]
) -> tuple[float, list[Array]]:
    """Return the loss and its gradient by JAX, after a check that the loss is a finite float64 scalar."""
    value = loss(leaves)
    _checks.shape("loss", value, (), "a scalar")
    kind = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if kind != np.float64:
        raise ValueError(f"loss: {kind} was returned for float64 params; want float64: a loss that casts to no other type")
    _checks.finite("loss", value)
    try:
        slopes = [np.asarray(leaf) for leaf in jax.grad(loss)(list(leaves))]
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise TypeError(_NOT_JAX) from error
    for name, slope in zip(names, slopes, strict=True):
        _checks.finite(f"loss: autodiff in {name}", slope)
    return float(value), slopes


def _differences(loss: Callable[[Sequence[Any]], Any], leaves: list[Array]) -> list[Array]:
    """Return central differences of the loss in every parameter, with Richardson extrapolation to a step of zero."""
    slopes = [np.empty_like(leaf) for leaf in leaves]
    for position, leaf in enumerate(leaves):

        def shifted_loss(index: tuple[int, ...], value: float, position: int = position, leaf: Array = leaf) -> float:
            shifted = leaf.copy()
            shifted[index] = value
            return float(loss([*leaves[:position], shifted, *leaves[position + 1 :]]))

        for index in np.ndindex(leaf.shape):
            centre = float(leaf[index])
            step = _STEP * max(1.0, abs(centre))
            wide, narrow = (_slope(shifted_loss, index, centre, h) for h in (step, step / 2))
            slopes[position][index] = narrow + (narrow - wide) / 3  # cancels the term in h^2
    return slopes


def _slope(shifted_loss: Callable[..., float], index: tuple[int, ...], centre: float, step: float) -> float:
    """Return the slope of the loss between the points one step below and one step above `centre`."""
    above, below = centre + step, centre - step
    return (shifted_loss(index, above) - shifted_loss(index, below)) / (above - below)  # the distance after rounding


def _rows(
    names: list[str], given: list[Array], automatic: list[Array], numeric: list[Array], value: float, rtol: float
) -> list[Row]:
    """Return one row for each leaf."""
    largest = max(abs(value), *(_largest(leaf) for leaf in automatic))
    floor, numeric_floor = 64 * _EPS * largest, 32 * _EPS * abs(value) / _STEP
    numeric_rtol = max(rtol, _DIFFERENCES_RTOL)
    rows = []
    for name, candidate, auto, slopes in zip(names, given, automatic, numeric, strict=True):
        verdict = _verdict(
            given_is_auto=_close(candidate, auto, rtol, floor),
            auto_is_numeric=_close(auto, slopes, numeric_rtol, floor + numeric_floor),
            given_is_numeric=_close(candidate, slopes, numeric_rtol, floor + numeric_floor),
        )
        rows.append(Row(name, candidate.shape, *_distance(candidate, auto), *_distance(candidate, slopes), verdict))
    return rows


def _verdict(*, given_is_auto: bool, auto_is_numeric: bool, given_is_numeric: bool) -> str:
    """Return the verdict on a leaf: the gradient that differs from the two others is off.

    If central differences agree with both others, and these differ, the verdict follows autodiff.
    """
    if given_is_auto:
        return AGREE if auto_is_numeric or given_is_numeric else DIFFERENCES_OFF
    if auto_is_numeric:
        return GRADIENT_OFF
    return AUTODIFF_OFF if given_is_numeric else ALL_DIFFER


def _largest(values: Array) -> float:
    """Return the largest magnitude, 0 for an empty array."""
    return float(np.max(np.abs(values), initial=0.0))


def _distance(a: Array, b: Array) -> tuple[float, float]:
    """Return the largest absolute difference, and its ratio to the largest magnitude in `a` and `b`."""
    absolute, scale = _largest(a - b), max(_largest(a), _largest(b))
    return absolute, absolute / scale if scale > 0 else 0.0


def _close(a: Array, b: Array, rtol: float, floor: float) -> bool:
    """Return whether `a` and `b` differ by at most `rtol` times their largest magnitude, plus `floor` for rounding."""
    return _largest(a - b) <= rtol * max(_largest(a), _largest(b)) + floor


def _cells(row: Row) -> tuple[str, ...]:
    """Return the texts of one row of the table."""
    figures = (row.autodiff_absolute, row.autodiff_relative, row.differences_absolute, row.differences_relative)
    return (row.leaf, str(row.shape), *(f"{figure:.1e}" for figure in figures), row.verdict)
