"""Functions that all scikit-learn estimators here share: weights, scales, precision, best fit, and compiled predictions."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from numbers import Real
from typing import Any

import jax
import numpy as np
import optax
from sklearn.base import is_regressor
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from moejax import _cache, _checks
from moejax._precision import precision
from moejax._rows import padded_size
from moejax.losses import Loss
from moejax.model import Model, widened
from moejax.model._arguments import shapes_of
from moejax.solvers import EMFit, Fit, GradientFit, fit_gradient
from moejax.sweeps import sweep
from moejax.sweeps._selection import winner

_LITTLE_WORK = 2**30  # bytes of work arrays, summed over all steps of all fits
_SMALL = 2**20  # numbers in a table that is sorted
_ACCELERATED = "accelerated"
_PATIENCE = 100  # accelerated steps without a relative improvement of at least _LEAST_IMPROVEMENT
_LEAST_IMPROVEMENT = 1e-9
_LEARNING_RATE = 0.1  # learning rate of Adam


def check_choice(name: str, given: Any, wanted: tuple[str, ...]) -> None:
    """Raise ValueError if a value is not one of the allowed ones.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    given : object
        The value.
    wanted : tuple of str
        The allowed values.

    Raises
    ------
    ValueError
        If `given` is not in `wanted`.
    """
    _checks.choice(name, given, wanted)


def row_weights(given: Any, n: int) -> np.ndarray:
    """Check the weights of rows and return them as floats.

    Parameters
    ----------
    given : array-like, (n,), float or None
        Weights. A number is the weight of every row. None means weights of 1, so that one compiled program serves all cases.
    n : int
        Number of rows.

    Returns
    -------
    numpy.ndarray, (n,)
        Weights; over the largest where their sums could overflow, or come to 0.

    Raises
    ------
    ValueError
        If the shape does not fit, a weight is negative or not finite, or all weights are 0.
    """
    if given is None:
        return np.ones(n)
    weights = _checks.of_objects("sample_weight", given)
    return _checks.row_weights("sample_weight", weights if weights.ndim else np.full(n, weights), n)


def counted(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows that count: those of weight 0 are absent, whatever they hold.

    Of a small table rows are sorted by what they hold, and those of whole weights are written out. Equal data are then the
    same arrays, in whatever order and by whatever weights they are given, and so is the fit to the last digit. Where rows
    are fewer than coefficients, or experts are, even rounding decides which one of many fits is found.

    Parameters
    ----------
    x : numpy.ndarray, (n, d)
        Inputs.
    y : numpy.ndarray, (n,)
        Targets.
    weights : numpy.ndarray, (n,)
        Weights, checked.

    Returns
    -------
    tuple of numpy.ndarray
        x, y and weights of the rows.
    """
    rows, columns = np.flatnonzero(weights), x.shape[1]
    if len(rows) * columns <= _SMALL:
        rows = rows[np.lexsort([weights[rows], *x[rows].T, y[rows]])]
        if (weights % 1 == 0).all() and weights.sum() * columns <= _SMALL:
            rows = np.repeat(rows, weights[rows].astype(int))
            weights = np.ones(len(weights))
    return x[rows], y[rows], weights[rows]


def table_of(X: Any) -> Any:
    """Return X for scikit-learn to check: a plain array of numbers, of anything but data frames and sparse matrices.

    Parameters
    ----------
    X : array-like, (n, d)
        Inputs as the user gave them.

    Returns
    -------
    array-like, (n, d)
        The same, unchanged where it is a data frame or a sparse matrix.

    Raises
    ------
    ValueError or TypeError
        If entries are masked, or are no real numbers.
    """
    if X is None or any(hasattr(X, name) for name in ("iloc", "tocsr", "__dataframe__")):
        return X  # of which scikit-learn has its own to say
    if isinstance(X, jax.Array):
        X = _checks.array("X", X)
    return _real("X", X)


def target_of(y: Any) -> Any:
    """Return a real target as a plain array of numbers, or unchanged what is no target at all.

    Parameters
    ----------
    y : array-like, (n,)
        Targets as the user gave them.

    Returns
    -------
    numpy.ndarray, (n,), or None
        Numbers.

    Raises
    ------
    ValueError or TypeError
        If entries are masked, or are no real numbers.
    """
    if y is None:
        return None  # of which scikit-learn has its own to say
    return _real("y", y)


def column(name: str, value: Any, n: int) -> np.ndarray:
    """Return a target as (n,); warn of one that is (n, 1), as scikit-learn does in `fit`.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : array-like, (n,) or (n, 1)
        Targets or labels.
    n : int
        Number of rows.

    Returns
    -------
    numpy.ndarray, (n,)
        The same targets.

    Raises
    ------
    ValueError
        If the shape is another one.
    """
    array = np.asarray(value)
    if array.shape == (n, 1):
        array = column_or_1d(array, warn=True)
    _checks.shape(name, array, (n,), "one for each row of X")
    return array


def _real(name: str, value: Any) -> np.ndarray:
    """Return an array of real numbers, or raise ValueError or TypeError."""
    numbers: np.ndarray = widened(_checks.of_objects(name, value))  # bfloat16 is no type of NumPy's
    if numbers.dtype.kind == "c":  # in the words that scikit-learn looks for
        raise ValueError(f"{name}: Complex data not supported; want real numbers")
    _checks.real(name, numbers)
    return numbers


def labels_of(y: Any) -> Any:
    """Return labels as a plain array of any type, or unchanged what is no target at all.

    Parameters
    ----------
    y : array-like, (n,)
        Labels as the user gave them.

    Returns
    -------
    numpy.ndarray, (n,), or None
        Labels.

    Raises
    ------
    ValueError
        If entries are masked, or this is no array.
    """
    if y is None or hasattr(y, "iloc"):
        return y
    labels = _checks.array("y", y)
    each = labels.ravel().tolist() if labels.dtype.kind == "O" else []
    alike = all(isinstance(v, str) for v in each) or all(isinstance(v, Real | Decimal | np.bool_) for v in each)
    if labels.dtype.kind == "V" or not alike:
        raise ValueError(f"y: {_checks.shown(labels)} was given; want labels of one type, that can be compared")
    return labels


def check_seed(random_state: Any) -> None:
    """Raise ValueError for what is no `random_state` of scikit-learn.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None
        The parameter of an estimator.
    """
    if random_state is not None and not isinstance(random_state, np.random.RandomState):
        _checks.count("random_state", random_state, 0, 2**32 - 1)


def seed_of(random_state: Any) -> int:
    """Return a seed drawn from a `random_state` of scikit-learn.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None
        The parameter of an estimator.

    Returns
    -------
    int
        At least 0 and below 2^31.

    Raises
    ------
    ValueError
        For anything else.
    """
    check_seed(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


class Scored:
    """Scores of numbers that are what they seem: scikit-learn's own takes what lies under a mask."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R squared of the predictions of a regressor, or the accuracy of the labels of a classifier.

        Parameters
        ----------
        X : array-like, (n, d)
            Inputs, in the user's units.
        y : array-like, (n,)
            Targets or labels.
        sample_weight : array-like, (n,), or float, optional
            Case weights; a number is that of every row. None means equal weights.

        Returns
        -------
        float
            The score.
        """
        more: Any = super()
        _checks.present("y", y)
        if is_regressor(self):
            y = target_of(y)
            _checks.finite("y", y)
        y = labels_of(y)
        _checks.shape("y", y, (None,) if np.ndim(y) < 2 else (None, 1), "a value for each row")
        if sample_weight is not None:
            sample_weight = row_weights(sample_weight, len(y))
        score: float = more.score(X, y, sample_weight)
        return score


def moments(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and population standard deviations of columns, in float64.

    Parameters
    ----------
    values : numpy.ndarray, (n,) or (n, d)
        Rows.
    weights : numpy.ndarray, (n,)
        Weights of rows.

    Returns
    -------
    mean, sd : numpy.ndarray, () or (d,)
        For a column that does not vary, its value and 1.
    """
    rows, weights = np.asarray(values, float)[weights > 0], weights[weights > 0]
    mean = np.average(rows, axis=0, weights=weights)
    sd = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=weights))
    # A test of sd == 0 would miss constant columns if the mean has a rounding error.
    constant = np.ptp(rows, axis=0) == 0
    return np.where(constant, rows[0], mean), np.where(constant | (sd == 0), 1.0, sd)


def column_moments(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what standardises columns: means, and standard deviations in float64.

    Parameters
    ----------
    x : numpy.ndarray, (n, d)
        Rows.
    weights : numpy.ndarray, (n,)
        Weights of rows.

    Returns
    -------
    mean, sd : numpy.ndarray, (d,)
        For a column that does not vary, its value and 1; infinity for the sd of one that varies by rounding alone, whose
        standardised values and coefficient are then 0.
    """
    mean, sd = moments(x, weights)
    spread = np.ptp(x[weights > 0], axis=0)
    return mean, np.where((spread > 0) & (spread <= 10 * np.finfo(x.dtype).eps * np.abs(mean)), np.inf, sd)


def gradient_fit(model: Model, loss: Loss, steps: int, *, penalty: Any = None, tol: float | None = None) -> GradientFit:
    """Return a fit by accelerated proximal gradient steps, or by Adam where the objective is not continuous or noisy.

    Parameters
    ----------
    model : Model
        The model.
    loss : Loss
        The loss.
    steps : int
        Most steps.
    penalty : sequence of PenaltyLike or PenaltyLike or None, default None
        Penalties; None for the standard ones.
    tol : float or None, default None
        Violation of the optimality condition at which a fit has converged; None for the default.

    Returns
    -------
    GradientFit
        The fit.

    Raises
    ------
    ValueError
        If the parts, the loss and the penalties do not go together.
    """
    more: dict[str, Any] = {"penalty": penalty, "steps": steps} | ({} if tol is None else {"tol": tol})
    if model.gate.is_noisy or (model.gate.kept is not None and not loss.has_likelihood):
        return fit_gradient(model, loss, optax.adam, learning_rate=_LEARNING_RATE, proximal=True, **more)
    return fit_gradient(model, loss, _ACCELERATED, patience=_PATIENCE, min_improvement=_LEAST_IMPROVEMENT, **more)


def check_coefficients(model: Model, x: Any, weights: dict[str, float]) -> None:
    """Raise ValueError for the weight of a penalty on a part that has no coefficients.

    Parameters
    ----------
    model : Model
        The model.
    x : array or pytree, n rows
        Inputs, of which shapes and types count.
    weights : dict of float
        Weights by name, `l1_experts` and the like.

    Raises
    ------
    ValueError
        If no array in the params of the part is penalised.
    """
    if not weights:
        return
    marked = model.penalized(shapes_of(model, x)[0])
    for name, weight in weights.items():
        place = name.split("_")[1]
        if not any(jax.tree.leaves(marked[place])):
            part = model.parts[place]
            given = f"{weight} was given for {place}={part!r}, without coefficients that penalties see"
            raise ValueError(f"{name}: {given}; want 0, or another {part.role}")


def best_of_starts(
    fit: Any, n_init: int, hyper: dict[str, float], seed: int, x: Any, y: np.ndarray, weights: np.ndarray
) -> Fit:
    """Return the best fit of a sweep over starts, by the rule of `moejax.select`.

    Parameters
    ----------
    fit : callable
        A fit of `moejax`.
    n_init : int
        Number of starts.
    hyper : dict of float
        Weights of penalties and other numbers of the fit, by name.
    seed : int
        Seed of the key.
    x : array or pytree, n rows
        Inputs.
    y : numpy.ndarray, (n,)
        Targets.
    weights : numpy.ndarray, (n,)
        Case weights.

    Returns
    -------
    Fit
        The fit, in NumPy arrays.

    Raises
    ------
    RuntimeError
        If no fit is finite.
    """
    axes = {"restart": n_init, **{name: [value] for name, value in hyper.items()}}
    little = is_little(fit, n_init, y)
    # Of little work two chunks are done sooner than one, on two cores.
    chunk = -(-n_init // 2) if little else None
    grid = sweep(fit, axes, progress=False, optimize=not little, chunk_size=chunk)
    try:
        with _cache.of_estimators():
            result = grid(key_of(seed), x, y, weights=weights)
    except FloatingPointError as error:
        raise RuntimeError(f"no fit is finite: {error}") from error
    return winner(result.isel(**dict.fromkeys(hyper, 0)))[0]


def key_of(seed: int) -> jax.Array:
    """Return `jax.random.key(seed)`, which a program makes that a first fit would wait for.

    Parameters
    ----------
    seed : int
        At least 0 and below 2^31.

    Returns
    -------
    jax.Array, ()
        The key.
    """
    if jax.config.jax_default_prng_impl != "threefry2x32":  # type: ignore[attr-defined]
        return jax.random.key(seed)
    key: jax.Array = jax.random.wrap_key_data(jax.device_put(np.array([0, seed], np.uint32)))  # which words are the seed's
    return key


def is_little(fit: Any, n_init: int, y: np.ndarray) -> bool:
    """Tell whether the fits are so little work that compiling with optimisation takes longer than it saves.

    Parameters
    ----------
    fit : callable
        A fit of `moejax`.
    n_init : int
        Number of starts.
    y : numpy.ndarray, (n,)
        Targets.

    Returns
    -------
    bool
        Whether the total work, in bytes of work arrays over all steps, is at most `_LITTLE_WORK`.
    """
    steps = fit.max_iter if isinstance(fit, EMFit) else fit.steps
    little: bool = fit.work_bytes(y) * n_init * steps <= _LITTLE_WORK
    return little


def applied(method: str, model: Model, params: Any, *rows: Any) -> np.ndarray:
    """Apply a method of the model to rows, compiled for a number of rows that other tables share.

    Parameters
    ----------
    method : str
        Name of the method.
    model : Model
        The model.
    params : pytree
        Its parameters.
    *rows : pytrees of numpy.ndarray
        Arguments of the method, all of one type and with n rows.

    Returns
    -------
    numpy.ndarray
        The result for the n rows.
    """
    first = jax.tree.leaves(rows)[0]
    n = len(first)
    size = padded_size(n)
    padded = jax.tree.map(lambda v: np.pad(v, [(0, size - n)] + [(0, 0)] * (v.ndim - 1), "edge"), rows)
    with precision(first.dtype), _cache.of_estimators():
        return np.asarray(_applied(method, model, params, *padded))[:n]


@partial(_cache.jit, n_static=2)
def _applied(method: str, model: Model, params: Any, *rows: Any) -> Any:
    """Call a method of the model inside a compiled program."""
    return getattr(model, method)(params, *rows)
