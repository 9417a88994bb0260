"""A check of any gradient against automatic differentiation and finite differences."""

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
_STEP = _EPS ** (1 / 3)  # where truncation and rounding of a plain central difference balance
_DIFFERENCES_RTOL = 1e-5
_NOT_JAX = "loss: JAX cannot trace it, for it calls NumPy on params; want a function written with jax.numpy"


@dataclass(frozen=True)
class Row:
    """How the given gradient of one parameter leaf compares.

    Attributes:
        leaf: the path of the leaf in params, such as "gate.logits".
        shape: its shape.
        autodiff_absolute: the largest absolute difference between the given gradient and autodiff.
        autodiff_relative: the same, divided by the largest magnitude in the leaf of either.
        differences_absolute: the largest absolute difference between the given gradient and central differences.
        differences_relative: the same, divided by the largest magnitude in the leaf of either.
        verdict: "agree", "gradient is off", "autodiff is off", "differences are off (a kink, or a straight-through
            estimator)" or "all three differ".
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
    """What `compare` found; its string is the table.

    Attributes:
        rows: one `Row` for each leaf of params, in their order.
    """

    rows: tuple[Row, ...]

    @property
    def agree(self) -> bool:
        """Whether the given gradient is nowhere off from autodiff.

        A leaf whose central differences alone are off counts as agreeing: that is what a kink or a straight-through
        estimator looks like.
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
    """Compare somebody's own gradient with autodiff and with central differences, leaf by leaf, and print a table.

    All three are computed in float64, whatever JAX's default precision, which is left as it was. A central difference
    needs the loss four times per parameter, so this is for models of up to some thousands of parameters.

    Two of the three outvote the third. The given gradient and autodiff agree on a leaf where they differ by at most
    rtol times the leaf's largest magnitude: relative to the leaf and not to each entry, since an entry that is nearly
    zero beside its neighbours is a difference of large terms and has few right digits in any derivation. Differences
    below 64 eps times the loss or the largest gradient of any leaf are rounding and count as none. (Where a model fits
    without any error the loss itself is rounding, no gradient has right digits, and leaves may be called off.)

    Central differences have a tolerance of their own, max(rtol, 1e-5) of the leaf's largest magnitude plus 32 eps
    |loss| / h. Their steps, h = cbrt(eps) max(1, |p|) (about 6e-6) and h / 2, are extrapolated (Richardson), so that
    the error of truncation is of order h^4, below 1e-10 unless the loss bends on a scale of about 1e-4 in a parameter;
    1e-5 allows for such bends. The steps are small so that they seldom meet a kink, and that costs
    digits: rounding in the loss is divided by h, and the extrapolation makes 3 eps |loss| / h of it; 32 leaves a margin
    for the rounding inside the loss. Where differences cannot tell two gradients apart that differ by more than rtol,
    autodiff is believed. A kink (L1 at 0, a ReLU, a choice of expert) within a step of the point shows as "differences
    are off", and so does whatever stops or replaces a gradient on purpose (straight-through, `stop_gradient`).
    Exactly at 0 it is autodiff that is off: JAX gives |w| the slope 1 there, where sign(w) and differences give 0.

    Args:
        loss: a function of params that returns a scalar, written with `jax.numpy`. It is compiled where it can be.
        gradient: the function to be checked, of params (float64 NumPy arrays), that returns a tree of the same
            structure and shapes, of NumPy or JAX arrays or numbers.
        params: a tree (dicts, lists, tuples, records known to JAX) of arrays or numbers, the point of comparison.
        rtol: the relative tolerance between the given gradient and autodiff, above 0.
        file: where the table is printed; standard output by default.

    Returns:
        A `Comparison`, with a `Row` for each leaf.

    Raises:
        ValueError: where a leaf of params or of the gradient is not numeric or not finite, where the gradient's
            structure or a leaf's shape differs from that of params, or where the loss is not a finite float64 scalar
            at params, in its derivative, or a step away; the message says which.
        TypeError: where the loss calls NumPy on its argument, so that JAX cannot differentiate it.
    """
    import jax  # here alone, so that everything above stands without it

    _checks.positive("rtol", rtol)
    with _float64(jax):
        names, leaves, structure = _read_leaves(jax, "params", params)
        given = _given_gradient(jax, gradient, names, leaves, structure)

        def of_leaves(values: Sequence[Any]) -> Any:
            return loss(structure.unflatten([jax.numpy.asarray(value) for value in values]))

        compiled = _compiled(jax, of_leaves, leaves)
        value, automatic = _autodiff(jax, compiled, names, leaves)
        numeric = _differences(compiled, leaves)
    for name, slopes in zip(names, numeric, strict=True):
        _checks.finite(f"loss: central differences in {name}", slopes)
    rows = _rows(names, given, automatic, numeric, value, rtol)
    result = Comparison(tuple(rows))
    print(result, file=file)
    return result


def _float64(jax: Any) -> AbstractContextManager[Any]:
    """The context in which JAX computes in float64; its name moved between versions."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return importlib.import_module("jax.experimental").enable_x64(True)


def _read_leaves(jax: Any, name: str, tree: Any) -> tuple[list[str], list[Array], Any]:
    """The paths of a tree's leaves, the leaves as new float64 arrays, and its structure."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    if not flat:
        raise ValueError(f"{name}: a tree without leaves was given; want at least one array")
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") or "params" for path, _ in flat]
    leaves = []
    for path, (_, leaf) in zip(paths, flat, strict=True):
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if not any(jax.numpy.issubdtype(kind, real) for real in (np.floating, np.integer)):
            raise ValueError(f"{name}: leaf {path} of type {kind} was given; want real numbers")
        _checks.finite(f"{name}: leaf {path}", np.asarray(leaf).astype(np.float64))
        leaves.append(np.array(leaf).astype(np.float64))
    return paths, leaves, structure


def _given_gradient(
    jax: Any, gradient: Callable[[Any], Any], names: list[str], leaves: list[Array], structure: Any
) -> list[Array]:
    """The leaves of the gradient to be checked, after a check of structure and shapes."""
    result = gradient(structure.unflatten([leaf.copy() for leaf in leaves]))  # copies: it may work in place
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
    """The loss compiled, or as it is where Python branches on its values."""
    fast = jax.jit(loss)
    try:
        fast(leaves)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(_NOT_JAX) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.NonConcreteBooleanIndexError):
        return loss
    return fast


def _autodiff(
    jax: Any, loss: Callable[[Sequence[Any]], Any], names: list[str], leaves: list[Array]
) -> tuple[float, list[Array]]:
    """The loss and its gradient by JAX, after a check that the loss is a finite float64 scalar."""
    value = loss(leaves)
    _checks.shape("loss", value, (), "a scalar")
    kind = value.dtype if hasattr(value, "dtype") else np.asarray(value).dtype
    if kind != np.float64:
        raise ValueError(f"loss: {kind} was returned for float64 params; want float64, so no cast to another type")
    _checks.finite("loss", value)
    try:
        slopes = [np.asarray(leaf) for leaf in jax.grad(loss)(list(leaves))]
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise TypeError(_NOT_JAX) from error
    for name, slope in zip(names, slopes, strict=True):
        _checks.finite(f"loss: autodiff in {name}", slope)
    return float(value), slopes


def _differences(loss: Callable[[Sequence[Any]], Any], leaves: list[Array]) -> list[Array]:
    """Central differences of the loss in every coordinate, extrapolated to a step of zero (Richardson)."""
    slopes = [np.empty_like(leaf) for leaf in leaves]
    for position, leaf in enumerate(leaves):

        def along(index: tuple[int, ...], value: float, position: int = position, leaf: Array = leaf) -> float:
            shifted = leaf.copy()
            shifted[index] = value
            return float(loss([*leaves[:position], shifted, *leaves[position + 1 :]]))

        for index in np.ndindex(leaf.shape):
            centre = float(leaf[index])
            step = _STEP * max(1.0, abs(centre))
            wide, narrow = (_slope(along, index, centre, h) for h in (step, step / 2))
            slopes[position][index] = narrow + (narrow - wide) / 3  # cancels the term in h^2
    return slopes


def _slope(along: Callable[..., float], index: tuple[int, ...], centre: float, step: float) -> float:
    """The slope between two points a step to either side."""
    above, below = centre + step, centre - step
    return (along(index, above) - along(index, below)) / (above - below)  # by the distance that rounding left


def _rows(
    names: list[str], given: list[Array], automatic: list[Array], numeric: list[Array], value: float, rtol: float
) -> list[Row]:
    """A row for each leaf."""
    largest = max(abs(value), *(_largest(leaf) for leaf in automatic))
    floor, numeric_floor = 64 * _EPS * largest, 32 * _EPS * abs(value) / _STEP
    numeric_rtol = max(rtol, _DIFFERENCES_RTOL)
    rows = []
    for name, own, auto, slopes in zip(names, given, automatic, numeric, strict=True):
        verdict = _verdict(
            given_is_auto=_close(own, auto, rtol, floor),
            auto_is_numeric=_close(auto, slopes, numeric_rtol, floor + numeric_floor),
            given_is_numeric=_close(own, slopes, numeric_rtol, floor + numeric_floor),
        )
        rows.append(Row(name, own.shape, *_distance(own, auto), *_distance(own, slopes), verdict))
    return rows


def _verdict(*, given_is_auto: bool, auto_is_numeric: bool, given_is_numeric: bool) -> str:
    """Two of three outvote the third; autodiff is believed where differences agree with both others."""
    if given_is_auto:
        return AGREE if auto_is_numeric or given_is_numeric else DIFFERENCES_OFF
    if auto_is_numeric:
        return GRADIENT_OFF
    return AUTODIFF_OFF if given_is_numeric else ALL_DIFFER


def _largest(values: Array) -> float:
    """The largest magnitude, 0 for an empty array."""
    return float(np.max(np.abs(values), initial=0.0))


def _distance(a: Array, b: Array) -> tuple[float, float]:
    """The largest absolute difference, and that relative to the largest magnitude in either."""
    absolute, scale = _largest(a - b), max(_largest(a), _largest(b))
    return absolute, absolute / scale if scale > 0 else 0.0


def _close(a: Array, b: Array, rtol: float, floor: float) -> bool:
    """Whether two leaves differ by no more than a share of their largest magnitude, and rounding."""
    return _largest(a - b) <= rtol * max(_largest(a), _largest(b)) + floor


def _cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    figures = (row.autodiff_absolute, row.autodiff_relative, row.differences_absolute, row.differences_relative)
    return (row.leaf, str(row.shape), *(f"{figure:.1e}" for figure in figures), row.verdict)
