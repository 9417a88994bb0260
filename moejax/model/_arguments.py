"""What a model asks of its params and of rows, before anything compiles; nothing is asked of traced arrays."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np

from moejax import _checks
from moejax.model._data import PARTS, floating, native, on_device


def checked(model: Any, params: Any, x: Any, y: Any = None, offset: Any = None) -> tuple[Any, Any, Any, Any]:
    """Return what a prediction is made from, checked, in arrays that compiled code reads right.

    Parameters
    ----------
    model : Model
        From `moe`.
    params : dict
        As from `model.init`.
    x : array_like or pytree
        Inputs.
    y : array_like or None, (n,) or (n, m), default None
        Targets.
    offset : array_like or None, default None
        Shaped like the predictor of one expert, or a number.

    Returns
    -------
    tuple
        Params, x, y and offset; None for what is None.

    Raises
    ------
    ValueError
        For what does not go with the model, or is not finite; of params, numbers that are not finite are taken. Nothing is
        said where an array is traced.
    """
    check_model(model)
    params, x = native("params", params), native("x", x)
    y, offset = native("y", y), native("offset", offset)
    if not any(_checks.is_traced(leaf) for leaf in jax.tree.leaves((params, x, y, offset))):
        _check(model, params, x, y, offset)
    params = jax.tree.map(lambda leaf: on_device(leaf) if isinstance(leaf, np.ndarray) else leaf, params)
    return params, floating(x), *(None if v is None else on_device(_in_range(v)) for v in (y, offset))


def _in_range(value: Any) -> Any:
    """Whole numbers beyond JAX's 32 bits as floating-point numbers; anything else as it is."""
    whole = isinstance(value, int) or (type(value) is np.ndarray and value.dtype.kind in "iu" and value.dtype.itemsize > 4)
    return np.asarray(value, float) if whole and np.size(value) and np.max(np.abs(value)) > _checks.MOST else value


def check_model(model: Any) -> None:
    """Raise ValueError for what is no model.

    Parameters
    ----------
    model : object
        What a user gave.
    """
    from moejax.model._model import Model  # which imports this module

    if not isinstance(model, Model):
        raise ValueError(f"model: {_checks.shown(model)} was given; want a model, as from moejax.moe")


def _check(model: Any, params: Any, x: Any, y: Any, offset: Any) -> None:
    """Raise ValueError unless a prediction can be made from these, of which none is traced."""
    n = check_inputs(model, x, least=0)
    # Where params do not depend on rows, two stand for any number of them, and the model is traced once.
    by_shape = model.expert.inits_by_shape and model.gate.inits_by_shape
    try:
        init, eta, predicted = shapes_of(model, x, 2 if by_shape else n)
    except (jax.errors.JAXTypeError, ValueError) as error:
        if isinstance(error, jax.errors.JAXTypeError) or isinstance(error.__cause__, jax.errors.JAXTypeError):
            return  # a part of the user's own that runs on numbers alone predicts all the same
        raise
    check_params("params", params, init, f", for x of {_columns(x)}")
    if offset is not None:
        if _checks.shape_of("offset", offset):  # a number is one for all rows
            _checks.shape("offset", offset, (n, *eta.shape[2:]), "like one expert's predictors")
        check_numbers("offset", offset, eta.dtype)
    if y is not None:
        if model.family is None:
            _checks.shape("y", y, (n, *predicted.shape[1:]), "what this model predicts for this x")
        else:
            model.family.check_rows(y, (n, *predicted.shape[1:]))
        check_numbers("y", y, eta.dtype)


def check_numbers(name: str, value: Any, dtype: Any) -> None:
    """Raise ValueError for numbers that are not finite, or would not be in the type of x."""
    _checks.finite(name, value)
    _checks.within(name, value, dtype)


def _columns(x: Any) -> str:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(x)]
    return f"shape {shapes[0]}" if len(shapes) == 1 else f"shapes {shapes}"


def check_params(name: str, given: Any, like: Any, purpose: str = "") -> None:
    """Raise ValueError for params of another structure or of other shapes.

    Parameters
    ----------
    name : str
        What errors call them.
    given : dict
        Params; what a number in `hyper` adds to them may be there.
    like : dict
        Arrays, or shapes and types, of params as `model.init` makes them.
    purpose : str, default ""
        What they are for, for errors.
    """
    if not isinstance(given, dict):
        what = "None" if given is None else f"a {type(given).__name__}"
        hint = ", as its `params` are" if hasattr(given, "params") else ""
        raise ValueError(f"{name}: {what} was given; want a dict as model.init makes them{hint}")
    own = {part: given[part] for part in PARTS if part in given}
    structure: Any = jax.tree.structure(own)
    wanted: Any = jax.tree.structure({part: like[part] for part in PARTS})
    if structure != wanted:
        raise ValueError(f"{name}: params of structure {structure} were given; want {wanted}, as model.init makes them")
    leaves = jax.tree.leaves({part: like[part] for part in PARTS})
    for (path, leaf), want in zip(jax.tree_util.tree_leaves_with_path(own), leaves, strict=True):
        if _checks.shape_of(f"{name}{jax.tree_util.keystr(path)}", leaf) != want.shape:
            _checks.shape(f"{name}{jax.tree_util.keystr(path)}", leaf, want.shape, f"as model.init makes it{purpose}")
        if not _checks.is_traced(leaf):
            _checks.real(f"{name}{jax.tree_util.keystr(path)}", leaf)


def shapes_of(model: Any, x: Any, n: int | None = None) -> tuple[Any, Any, Any]:
    """Return shapes and types of params, predictors and prediction.

    Parameters
    ----------
    model : Model
        From `moe`.
    x : array_like or pytree
        Inputs.
    n : int or None, default None
        The number of rows; None for that of x.

    Returns
    -------
    params : pytree of jax.ShapeDtypeStruct
        As from `model.init`.
    eta : jax.ShapeDtypeStruct, (K, n) or (K, n, m)
        Predictors.
    predicted : jax.ShapeDtypeStruct, (n,) or (n, m)
        What the model predicts.

    Raises
    ------
    ValueError
        If a part cannot see these inputs, or does not speak for all experts and rows.
    """
    leaves, structure = jax.tree.flatten(x)
    signatures = tuple(signature(leaf) for leaf in leaves)
    if n is not None:
        signatures = tuple(((n, *shape[1:]), dtype) for shape, dtype in signatures)
    return _shapes(model, structure, signatures)


def dtype_of(leaf: Any) -> Any:
    """Return the floating-point type that compiled code has an array of x in.

    Parameters
    ----------
    leaf : array_like
        The array.

    Returns
    -------
    dtype
        Its own where it is one of floating-point numbers, of 32 bits at least; else JAX's default.
    """
    dtype = jax.dtypes.canonicalize_dtype(_checks.array("x", leaf).dtype)
    if jax.numpy.issubdtype(dtype, np.floating):
        return jax.numpy.promote_types(dtype, np.float32)
    return jax.dtypes.canonicalize_dtype(float)


def signature(leaf: Any) -> tuple[tuple[int, ...], Any]:
    """Return shape and type of an array, as compiled code has it.

    Parameters
    ----------
    leaf : array_like
        The array.

    Returns
    -------
    tuple
        Both.
    """
    leaf = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    dtype = leaf.dtype.newbyteorder("=") if isinstance(leaf.dtype, np.dtype) else leaf.dtype
    return np.shape(leaf), jax.dtypes.canonicalize_dtype(dtype)


@lru_cache(maxsize=256)
def _shapes(model: Any, structure: Any, signatures: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Shapes of params, predictors and prediction; raises where a part does not speak for all experts and rows.

    Kept, for tracing a model costs more than a small fit.
    """
    x = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in signatures])

    def speak(x: Any) -> tuple[Any, Any, Any]:
        x = floating(x)
        params = model.init(jax.random.key(0), x)
        _check_marks(model, params)
        inputs = model.prepare(x)
        eta = model.eta(params, inputs)
        if np.ndim(eta) not in (2, 3) or eta.shape[:2] != wanted:
            raise ValueError(f"expert: apply returned shape {np.shape(eta)}; want {wanted}, or with m outputs last")
        _checks.shape("gate: log_probs", model.log_gate(params, inputs), wanted, "experts first, then rows")
        return params, eta, model.predict(params, x)

    wanted = (model.n_experts, signatures[0][0][0])
    shapes: tuple[Any, Any, Any] = jax.eval_shape(speak, x)
    return shapes


def _check_marks(model: Any, params: Any) -> None:
    """Raise ValueError for a part whose `trainable` or `penalized` is no tree like its params."""
    for name, part in model.parts.items():
        for mark, marked in (("trainable", part.trainable), ("penalized", part.penalized)):
            given = marked(params[name])
            want: Any = jax.tree.structure(params[name])
            if want != jax.tree.structure(given) or not all(
                isinstance(leaf, bool | np.bool_) for leaf in jax.tree.leaves(given)
            ):
                wanted = f"a tree like params of True and False, of structure {want}"
                raise ValueError(f"{part.role}: {mark} of {part!r} returned {given!r}; want {wanted}")


def check_inputs(model: Any, x: Any, least: int = 1) -> int:
    """Raise ValueError for inputs that are no tables of finite numbers with the same rows.

    Parameters
    ----------
    model : Model
        From `moe`.
    x : array_like or pytree
        Inputs.
    least : int, default 1
        Fewest rows.

    Returns
    -------
    int
        The number of rows n.
    """
    n = check_shapes(model, x, least)
    for leaf in jax.tree.leaves(x):
        if not _checks.is_traced(leaf):
            check_numbers("x", leaf, dtype_of(leaf))
    return n


def check_shapes(model: Any, x: Any, least: int = 1) -> int:
    """Raise ValueError for inputs that are no tables of numbers with the same rows.

    Parameters
    ----------
    model : Model
        From `moe`.
    x : array_like or pytree
        Inputs.
    least : int, default 1
        Fewest rows.

    Returns
    -------
    int
        The number of rows n.
    """
    leaves = jax.tree.leaves(x)
    for leaf in leaves:
        _checks.real("x", leaf)
    if isinstance(x, list | tuple) and leaves and not any(np.ndim(leaf) for leaf in leaves):
        raise ValueError(f"x: a {type(x).__name__} of numbers was given; want an array (n, d), as from numpy.asarray")
    if not leaves:
        raise ValueError("x: nothing was given; want an array (n, d), or a pytree of arrays with n leading")
    if len(leaves) == 1 and leaves[0] is x:
        takes_any = model.expert.takes_any_array and model.gate.takes_any_array
        if not takes_any or np.ndim(x) < 2:
            _checks.shape("x", x, (None, None), "rows by features")
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else None for leaf in leaves}
    if len(sizes) > 1 or None in sizes or (least and 0 in sizes):
        rows = "the same n > 0 rows" if least else "the same number of rows"
        raise ValueError(f"x: arrays of shapes {[np.shape(leaf) for leaf in leaves]} were given; want {rows}")
    return int(np.shape(leaves[0])[0])
