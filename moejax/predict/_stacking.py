"""Fitted models as experts: their predictions in and out of fold, and forecasts of their losses.

Stacking [1]_ [2]_ is a mixture whose experts are fitted beforehand. Its gate is trained on out-of-fold predictions, which
are predictions for rows that the predicting model was not fitted to:

    inner = stacking.out_of_fold(models, x, y)                                         (n, K)
    model = moe(experts.predictions(), gates.softmax(), K, expert_columns="predictions", gate_columns="inputs")
    fit_gradient(model)(key, {"inputs": x, "predictions": inner}, y)

A gate without inputs, under squared error, gives plain stacking with convex weights. A gate that sees inputs, predictions or
both lets the weights depend on them. A model here is any object with the methods `fit` and `predict` of scikit-learn. An
object with `predict_proba` is a classifier.

References
----------
.. [1] Wolpert (1992), "Stacked generalization", Neural Networks.
.. [2] Breiman (1996), "Stacked regressions", Machine Learning.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from moejax import _checks

LEAST = 1e-7  # smaller probabilities count as this one, so that their logarithms are finite


def predictions(models: Sequence[Any], x: Any, classes: Any = None) -> np.ndarray:
    """Return the predictions of K fitted models, in the form that `experts.predictions` takes.

    Parameters
    ----------
    models : sequence
        K regressors, each with `predict` or a function of x; or K classifiers with `predict_proba`.
    x : array or data frame, n rows
        Inputs, in any form that the models take.
    classes : array, (C,), optional
        Sorted labels, for classifiers. None means all labels that any of the models knows.

    Returns
    -------
    numpy.ndarray
        `(n, K)` for regressors; `(n, K, m)` for regressors of m outputs; log probabilities `(n, K, C)` for classifiers, none
        below log(1e-7).

    Raises
    ------
    ValueError
        If there is no model, if only some of the models are classifiers, if the shapes of the predictions differ, if a
        prediction is NaN or infinite, or if a classifier knows a label that is not in `classes`. The message gives the
        number of the model.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import stacking
    >>> stacking.predictions([np.negative, np.square], np.array([2.0, 3.0])).tolist()
    [[-2.0, 4.0], [-3.0, 9.0]]
    """
    _check_models(models, "predict")
    x = _checks.native("x", x)
    if is_classifier(models):
        known = _labels(models, classes)
        predicted = [_log_probabilities(model, x, known) for model in models]
    else:
        predicted = [_numbers(number, model, x) for number, model in enumerate(models)]
    for number, values in enumerate(predicted):
        _checks.finite(f"models[{number}]: predictions", values)
        if values.ndim not in (1, 2) or values.shape != predicted[0].shape:
            raise ValueError(
                f"models[{number}]: predictions of shape {values.shape} were given; want {predicted[0].shape} from all"
            )
    return np.stack(predicted, axis=1)


def out_of_fold(models: Sequence[Any], x: Any, y: Any, folds: Any = 5, *, weights: Any = None, seed: int = 0) -> np.ndarray:
    """Return the predictions of K models for rows that they were not fitted to.

    For each fold, copies of the models are fitted to the rows of all other folds. The given models are not changed.

    Parameters
    ----------
    models : sequence
        K estimators with `fit` and `predict` (or `predict_proba`).
    x : array, data frame or sparse matrix, (n, d)
        Inputs. Rows are selected by `x[rows]` or `x.iloc[rows]`.
    y : array, (n,) or (n, m)
        Targets.
    folds : int or array of int, (n,), default 5
        The number of folds, or the fold in which each row is held out. Folds given by number are drawn from `seed`; for
        classifiers each fold has about the same share of every class.
    weights : array, (n,), optional
        Case weights, passed to `fit` as `sample_weight`. None means no weights.
    seed : int, default 0
        Seed of the draw of folds.

    Returns
    -------
    numpy.ndarray
        `(n, K)`, `(n, K, m)` or `(n, K, C)`, as in `predictions`.

    Raises
    ------
    ValueError
        If x and y have different numbers of rows, if a row is held out in no fold (a label below 0), if there are fewer than
        two folds or more folds than rows, if weights are negative or a model's `fit` takes no weights, or for a reason given
        in `predictions`.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import stacking
    >>> class Mean:
    ...     def fit(self, x, y):
    ...         self.mean = y.mean()
    ...     def predict(self, x):
    ...         return np.full(len(x), self.mean)
    >>> stacking.out_of_fold([Mean()], np.zeros((4, 1)), np.array([1.0, 2.0, 3.0, 6.0]), folds=[0, 0, 1, 1]).tolist()
    [[4.5], [4.5], [1.5], [1.5]]
    """
    _check_models(models, "fit")
    y = _targets(y, is_classifier(models))
    x = _checks.native("x", x)
    rows = len(x) if hasattr(x, "__len__") else np.shape(x)[0]
    if rows != len(y):
        raise ValueError(f"y: {len(y)} targets were given for {rows} rows of x; want one target for each row")
    classes = np.unique(y) if is_classifier(models) else None
    labels = fold_labels(folds, y, seed, stratified=classes is not None)
    if weights is not None:
        weights = _checks.row_weights("weights", weights, len(y))
    result = None
    for fold in np.unique(labels):
        held_out, training = np.flatnonzero(labels == fold), np.flatnonzero(labels != fold)
        training_weights = None if weights is None else weights[training]
        inputs, target = rows_of(x, training), y[training]
        fitted = [
            fit_copy(model, inputs, target, training_weights, f"models[{number}]") for number, model in enumerate(models)
        ]
        predicted = predictions(fitted, rows_of(x, held_out), classes)
        if result is None:
            result = np.empty((len(y), *predicted.shape[1:]))
        result[held_out] = predicted
    assert result is not None
    return result


def losses(predicted: Any, y: Any) -> np.ndarray:
    """Return the loss of each model on each row, in nats, as `gates.confidence` takes it.

    Parameters
    ----------
    predicted : array, (n, K) or (n, K, C)
        Predictions of regressors, or log probabilities of classifiers.
    y : array, (n,)
        Targets; for classifiers class numbers from 0 to C - 1.

    Returns
    -------
    numpy.ndarray
        Losses of shape `(n, K)`: log(error^2) / 2 for regressors, minus the log probability of the observed class for
        classifiers.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is NaN or infinite, or a class number is out of range.

    Notes
    -----
    For regressors, an error smaller than a thousandth of the root mean square of all errors counts as that thousandth.
    Otherwise a single small error could determine a forecast.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import stacking
    >>> stacking.losses(np.array([[1.0, 2.0]]), np.array([0.0])).round(3).tolist()  # log(1), log(2)
    [[0.0, 0.693]]
    """
    _checks.finite("predicted", predicted)
    predicted = np.asarray(predicted, float)
    if predicted.ndim not in (2, 3) or (predicted.ndim == 3 and predicted.shape[2] < 2):
        raise ValueError(f"predicted: shape {predicted.shape} was given; want (n, K), or (n, K, C) for classifiers")
    _checks.shape("y", y, (len(predicted),), "one for each row")
    _checks.finite("y", y)
    y = np.asarray(y)
    if predicted.ndim == 3:
        _checks.whole("y", y, 0, predicted.shape[2] - 1)
        return -np.take_along_axis(predicted, y.astype(int)[:, None, None], axis=2)[..., 0]
    squares = np.square(predicted - y[:, None])
    least = max(1e-6 * squares.mean(), np.finfo(float).tiny)
    logs: np.ndarray = np.log(np.maximum(squares, least)) / 2
    return logs


def linear_forecasts(x: Any, losses: Any, l2: float = 1e-3, weights: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Fit ridge regressions of each expert's losses on x, for `gates.confidence`.

    Parameters
    ----------
    x : array, (n, d)
        Inputs; standardised columns are best.
    losses : array, (n, K)
        Losses on rows that the experts were not fitted to; see `losses`.
    l2 : float, default 1e-3
        Ridge weight, at least 0.
    weights : array, (n,), optional
        Case weights. None means equal weights.

    Returns
    -------
    weights : numpy.ndarray, (K, d)
        Coefficients of the forecasts.
    intercepts : numpy.ndarray, (K,)
        Intercepts of the forecasts.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is NaN or infinite, `l2` or a weight is negative, or all weights are 0.

    Notes
    -----
    For each expert the weighted mean over rows of (loss - forecast)^2 + l2 * sum of squared coefficients is minimised in
    closed form. Intercepts are not penalised.

    Examples
    --------
    >>> import numpy as np
    >>> from moejax import stacking
    >>> x = np.array([[-1.0], [1.0]])
    >>> weights, intercepts = stacking.linear_forecasts(x, np.array([[0.0], [2.0]]), l2=0.0)
    >>> weights.round(6).tolist(), intercepts.tolist()
    ([[1.0]], [1.0])
    """
    _checks.shape("x", x, (None, None), "rows by features")
    _checks.shape("losses", losses, (_checks.shape_of("x", x)[0], None), "rows by experts")
    _checks.finite("x", x)
    _checks.finite("losses", losses)
    l2 = _checks.number_from_0("l2", l2)
    x, losses = np.asarray(x, float), np.asarray(losses, float)
    w = np.ones(len(x)) if weights is None else _checks.row_weights("weights", weights, len(x))
    w = w / w.sum()
    centre, mean = w @ x, w @ losses
    rows = (x - centre) * w[:, None]
    system, right = rows.T @ (x - centre), rows.T @ (losses - mean)
    # Least squares instead of elimination: without a ridge, collinear columns make the system singular.
    solution = np.linalg.lstsq(system + l2 * np.eye(len(system)), right, rcond=None)[0]
    return solution.T, mean - centre @ solution


# ---- any models with fit and predict --------------------------------------------------------------------------------


def is_classifier(models: Sequence[Any]) -> bool:
    """Tell whether the models are classifiers, which have `predict_proba`.

    Parameters
    ----------
    models : sequence
        At least one model.

    Returns
    -------
    bool
        True if all have `predict_proba`, False if none has it.

    Raises
    ------
    ValueError
        If only some of the models have `predict_proba`.
    """
    kinds = [hasattr(model, "predict_proba") for model in models]
    if any(kinds) and not all(kinds):
        classifier, regressor = models[kinds.index(True)], models[kinds.index(False)]
        raise ValueError(
            f"models: {classifier!r} has predict_proba and {regressor!r} has none; want classifiers or regressors alone"
        )
    return kinds[0]


def fit_copy(model: Any, x: Any, y: Any, weights: Any = None, name: str = "model") -> Any:
    """Fit an unfitted copy of a model.

    Parameters
    ----------
    model : estimator
        The model to copy. It is not changed.
    x : array or data frame, n rows
        Inputs.
    y : array, (n,) or (n, m)
        Targets.
    weights : array, (n,), optional
        Case weights, passed as `sample_weight`. None means that no weights are passed.
    name : str, default "model"
        Name of the model in error messages.

    Returns
    -------
    estimator
        The fitted copy.

    Raises
    ------
    ValueError
        If weights are given and the model's `fit` takes none.
    """
    fresh = model.__sklearn_clone__() if hasattr(model, "__sklearn_clone__") else copy.deepcopy(model)
    fresh.fit(x, y, **({} if weights is None else {weight_argument(model, name): weights}))
    return fresh


def weight_argument(model: Any, name: str) -> str:
    """Return the name of the argument of `fit` that takes case weights.

    Parameters
    ----------
    model : estimator
        The model.
    name : str
        Name of the model in error messages.

    Returns
    -------
    str
        "sample_weight"; for a Pipeline, that argument of the last step, as in "ridge__sample_weight".

    Raises
    ------
    ValueError
        If `fit` takes no `sample_weight`.
    """
    prefix, last = "", model
    while hasattr(last, "steps"):
        prefix, last = f"{prefix}{last.steps[-1][0]}__", last.steps[-1][1]
    taken = inspect.signature(last.fit).parameters if hasattr(last, "fit") else {}
    if "sample_weight" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return f"{prefix}sample_weight"
    where = f", the last step of {type(model).__name__}," if prefix else ""
    raise ValueError(f"{name}: {type(last).__name__}{where} takes no sample_weight in fit; want an estimator that does")


def rows_of(x: Any, rows: np.ndarray) -> Any:
    """Select rows of an array, a data frame or a sparse matrix.

    Parameters
    ----------
    x : array, data frame, sparse matrix or sequence
        The table.
    rows : numpy.ndarray of int
        Numbers of the rows.

    Returns
    -------
    array, data frame or sparse matrix
        The selected rows.
    """
    return x.iloc[rows] if hasattr(x, "iloc") else (x if hasattr(x, "shape") else np.asarray(x))[rows]


def fold_labels(folds: Any, y: np.ndarray, seed: int = 0, stratified: bool = False) -> np.ndarray:
    """Return the fold in which each row is held out.

    Parameters
    ----------
    folds : int or array of int, (n,)
        The number of folds, or the fold of each row.
    y : numpy.ndarray, (n,) or (n, m)
        Targets.
    seed : int, default 0
        Seed of the draw of folds.
    stratified : bool, default False
        Whether drawn folds have about the same share of every class. Not used if `folds` holds labels.

    Returns
    -------
    numpy.ndarray of int, (n,)
        Labels of the folds.

    Raises
    ------
    ValueError
        If there are fewer than two folds or more folds than rows, or if labels are not integers or one is below 0.
    """
    n, stratified = len(y), _checks.flag("stratified", stratified)
    seed = _checks.count("seed", seed, 0, _checks.MOST_SEED)
    if _checks.shape_of("folds", folds) == ():
        folds = _checks.count("folds", folds, 2)
        if folds > n:
            raise ValueError(f"folds: {folds} were given for {n} rows; want at most one fold for each row")
        order = np.random.default_rng(seed).permutation(n)
        order = order[np.argsort(y[order], kind="stable")] if stratified else order
        labels = np.empty(n, int)
        labels[order] = np.arange(n) % folds
        return labels
    _checks.shape("folds", folds, (n,), "the fold of each row")
    labels = _checks.array("folds", folds)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"folds: values of type {labels.dtype} were given; want whole numbers")
    if (labels < 0).any():
        missing = np.flatnonzero(labels < 0)
        raise ValueError(
            f"folds: {len(missing)} rows are held out in no fold, the first of them {missing[0]}; want each row in a fold"
        )
    if len(np.unique(labels)) < 2:
        raise ValueError("folds: all rows are in the same one, so no rows are left to fit to; want at least two folds")
    return labels


def _targets(y: Any, labels: bool) -> np.ndarray:
    """Return targets (n,) or (n, m) as an array: of finite numbers, or, for classifiers, of labels of any type."""
    given = _checks.array("y", y) if labels else _checks.of_objects("y", y)
    if given.ndim not in (1, 2):
        raise ValueError(f"y: shape {given.shape} was given; want (n,), or (n, m) for m outputs")
    if not labels or given.dtype.kind in "fc":
        _checks.finite("y", given)
    return given


def _check_models(models: Any, wanted: str) -> None:
    """Raise ValueError unless `models` is a sequence of at least one model with the method `wanted`."""
    wants = "a sequence of at least one model"
    if not len(_checks.sequence("models", models, wants)):
        raise ValueError(f"models: none were given; want {wants}")
    for number, model in enumerate(models):
        if not (callable(getattr(model, wanted, None)) or (wanted == "predict" and callable(model))):
            raise ValueError(f"models[{number}]: {_checks.shown(model)} has no {wanted}; want a model with this method")


def _labels(models: Any, classes: Any) -> np.ndarray:
    """Return the sorted labels that are given, or all that any of the classifiers knows."""
    if classes is None:
        return np.unique(np.concatenate([model.classes_ for model in models]))
    return np.asarray(_checks.native("classes", classes))


def _numbers(number: int, model: Any, x: Any) -> np.ndarray:
    """Return the predictions of a regressor or of a function of x."""
    predicted = model.predict(x) if hasattr(model, "predict") else model(x)
    return _checks.of_objects(f"models[{number}]: predictions", predicted)


def _log_probabilities(model: Any, x: Any, classes: np.ndarray) -> np.ndarray:
    """Return log probabilities (n, C); a class that the model does not know has log(LEAST)."""
    table = np.asarray(model.predict_proba(x), float)
    _checks.shape("predict_proba", table, (len(table), len(model.classes_)), "a column for each of classes_")
    columns = np.searchsorted(classes, model.classes_)
    if (columns >= len(classes)).any() or (classes[columns] != model.classes_).any():
        raise ValueError(f"classes: a model knows the labels {list(model.classes_)}; want labels among {classes.tolist()}")
    probabilities = np.zeros((len(table), len(classes)))
    probabilities[:, columns] = table
    return np.log(np.maximum(probabilities, LEAST))
