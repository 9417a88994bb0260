"""Fitted models, whatever they are, as experts: what they predict, in and out of fold, and forecasts of their losses.

Stacking (Wolpert 1992; Breiman 1996) is a mixture whose experts are fitted beforehand and whose gate is trained on what they
predict for rows that they were not fitted to:

    inner = stacking.out_of_fold(models, x, y)                                         (n, K)
    model = moe(experts.predictions(), gates.softmax(), K, expert_columns="predictions", gate_columns="inputs")
    fit_gradient(model)(key, {"inputs": x, "predictions": inner}, y)

A gate that sees no input, under squared error, is plain stacking with convex weights; one that sees inputs, predictions or
both lets the weights depend on them. Models here are anything with `fit` and `predict` (and `predict_proba`, which makes a
classifier of them), as scikit-learn's are; nothing else is asked of them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np

from moejax import _checks

LEAST = 1e-7  # a probability below which none is taken to be, for its logarithm has to be finite


def predictions(models: Sequence[Any], x: Any, classes: Any = None) -> np.ndarray:
    """What each of K fitted models predicts for the rows of x, as `experts.predictions` wants it.

    models: with `predict`, or functions of x, for (n, K), or (n, K, m) of several outputs; or, all of them, classifiers with
    `predict_proba`, for log probabilities (n, K, C) of all classes that any of them knows, none below log(1e-7). x: whatever
    the models take. classes: (C,) sorted labels in the place of those.

    Raises ValueError for no model, for classifiers beside others, for shapes that differ, and for predictions that are NaN
    or infinite, by the number of the model.
    """
    _check_models(models, "predict")
    if is_classifier(models):
        known = np.unique(np.concatenate([model.classes_ for model in models])) if classes is None else np.asarray(classes)
        said = [_log_probabilities(model, x, known) for model in models]
    else:
        said = [np.asarray(model.predict(x) if hasattr(model, "predict") else model(x)) for model in models]
    for number, values in enumerate(said):
        _checks.finite(f"models[{number}]: predictions", values)
        if values.ndim not in (1, 2) or values.shape != said[0].shape:
            raise ValueError(
                f"models[{number}]: predictions of shape {values.shape} were given; want {said[0].shape} of all"
            )
    return np.stack(said, axis=1)


def out_of_fold(models: Sequence[Any], x: Any, y: Any, folds: Any = 5, *, weights: Any = None, seed: int = 0) -> np.ndarray:
    """What each of K models predicts for rows that it was not fitted to: (n, K), (n, K, m) or (n, K, C) as `predictions`.

    For each fold, copies of the models are fitted to the rows of the others. models: with `fit` and `predict`, left as they
    are. x: (n, d), or anything whose rows are taken by `x[rows]` or `x.iloc[rows]`; y: (n,), or (n, m). folds: the fold of
    each row, (n,) whole numbers, or how many; these are then drawn from `seed`, each with its share of every class.
    weights: (n,), handed to `fit` as `sample_weight`.

    Raises ValueError for rows that no fold holds out (labels below 0), fewer than two folds or rows than folds, for weights
    that a model's `fit` does not take, and as `predictions` does.
    """
    _check_models(models, "fit")
    y = np.asarray(y)
    rows = len(x) if hasattr(x, "__len__") else np.shape(x)[0]
    if rows != len(y):
        raise ValueError(f"y: {len(y)} targets were given for {rows} rows of x; want one for each")
    classes = np.unique(y) if is_classifier(models) else None
    labels = fold_labels(folds, y, seed, stratified=classes is not None)
    if weights is not None:
        _checks.shape("weights", weights, (len(y),), "one for each row")
        _checks.not_negative("weights", weights)
    result = None
    for fold in np.unique(labels):
        held, rest = np.flatnonzero(labels == fold), np.flatnonzero(labels != fold)
        given = None if weights is None else np.asarray(weights)[rest]
        seen, target = rows_of(x, rest), y[rest]
        fitted = [fit_copy(model, seen, target, given, f"models[{number}]") for number, model in enumerate(models)]
        said = predictions(fitted, rows_of(x, held), classes)
        if result is None:
            result = np.empty((len(y), *said.shape[1:]))
        result[held] = said
    assert result is not None
    return result


def losses(predicted: Any, y: Any) -> np.ndarray:
    """The loss of each model on each row in nats, (n, K), as `gates.confidence` has it.

    predicted: (n, K) of regressors, whose loss is log(error^2) / 2; or log probabilities (n, K, C) of classifiers, of which
    it is minus that of the right class. y: (n,), for classifiers numbers from 0 to C - 1. No loss is that of a smaller error
    than the thousandth part of the root mean square of all, for one lucky row must not make a forecast.

    Raises ValueError for other shapes, and for numbers that are NaN or infinite.
    """
    predicted, y = np.asarray(predicted, float), np.asarray(y)
    _checks.finite("predicted", predicted)
    if predicted.ndim not in (2, 3):
        raise ValueError(f"predicted: shape {predicted.shape} was given; want (n, K), or (n, K, C) for classifiers")
    _checks.shape("y", y, (len(predicted),), "one for each row")
    _checks.finite("y", y)
    if predicted.ndim == 3:
        _checks.whole("y", y, 0, predicted.shape[2] - 1)
        return -np.take_along_axis(predicted, y.astype(int)[:, None, None], axis=2)[..., 0]
    squares = np.square(predicted - y[:, None])
    least = max(1e-6 * squares.mean(), np.finfo(float).tiny)
    return np.log(np.maximum(squares, least)) / 2


def linear_forecasts(x: Any, losses: Any, l2: float = 1e-3, weights: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regressions of each expert's losses on x, for `gates.confidence`: weights (K, d) and intercepts (K,).

    They lower the weighted mean over rows of (loss - forecast)^2 + l2 * sum of squared weights, in closed form; intercepts
    are free. x: (n, d), best standardised. losses: (n, K), of rows that the experts were not fitted to. weights: (n,).
    Raises ValueError for shapes that do not fit, and for numbers that are NaN, infinite or, of l2 and weights, below 0.
    """
    _checks.shape("x", x, (None, None), "rows by features")
    _checks.shape("losses", losses, (np.shape(x)[0], None), "rows by experts")
    _checks.finite("x", x)
    _checks.finite("losses", losses)
    _checks.not_negative("l2", l2)
    x, losses = np.asarray(x, float), np.asarray(losses, float)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, float)
    _checks.shape("weights", w, (len(x),), "one for each row")
    _checks.not_negative("weights", w)
    _checks.positive("sum of weights", w.sum())
    w = w / w.sum()
    centre, mean = w @ x, w @ losses
    rows = (x - centre) * w[:, None]
    system, right = rows.T @ (x - centre), rows.T @ (losses - mean)
    # Least squares rather than elimination, for without a ridge collinear columns have many solutions.
    solution = np.linalg.lstsq(system + l2 * np.eye(len(system)), right, rcond=None)[0]
    return solution.T, mean - centre @ solution


# ---- models, whoever wrote them -------------------------------------------------------------------------------------


def is_classifier(models: Sequence[Any]) -> bool:
    """Whether these are classifiers, which have `predict_proba`; raises ValueError where some are and some are not."""
    kinds = [hasattr(model, "predict_proba") for model in models]
    if any(kinds) and not all(kinds):
        there, without = models[kinds.index(True)], models[kinds.index(False)]
        raise ValueError(
            f"models: {there!r} has predict_proba and {without!r} has not; want classifiers or regressors alone"
        )
    return kinds[0]


def fit_copy(model: Any, x: Any, y: Any, weights: Any = None, name: str = "model") -> Any:
    """A copy of the model without what it learned, fitted to x and y; weights: (n,), for its `sample_weight`, or None."""
    fresh = model.__sklearn_clone__() if hasattr(model, "__sklearn_clone__") else copy.deepcopy(model)
    fresh.fit(x, y, **({} if weights is None else {weight_argument(model, name): weights}))
    return fresh


def weight_argument(model: Any, name: str) -> str:
    """What `fit` of this model calls the weights of rows: sample_weight, for a Pipeline that of its last step.

    Raises ValueError, with the name of the model, where there is none.
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
    """These rows of an array, a data frame or a sparse matrix."""
    return x.iloc[rows] if hasattr(x, "iloc") else (x if hasattr(x, "shape") else np.asarray(x))[rows]


def fold_labels(folds: Any, y: np.ndarray, seed: int = 0, stratified: bool = False) -> np.ndarray:
    """The fold of each row, (n,): those given, checked, or so many drawn from a seed, each with its share of every class."""
    n = len(y)
    if np.ndim(folds) == 0:
        _checks.count("folds", folds, 2)
        if folds > n:
            raise ValueError(f"folds: {folds} were given for {n} rows; want at most one for each")
        order = np.random.default_rng(seed).permutation(n)
        order = order[np.argsort(y[order], kind="stable")] if stratified else order
        labels = np.empty(n, int)
        labels[order] = np.arange(n) % folds
        return labels
    _checks.shape("folds", folds, (n,), "the fold of each row")
    labels = np.asarray(folds)
    if labels.dtype.kind not in "iu":
        raise ValueError(f"folds: values of type {labels.dtype} were given; want whole numbers")
    if (labels < 0).any():
        never = np.flatnonzero(labels < 0)
        raise ValueError(f"folds: {len(never)} rows are held out in no fold, the first of them {never[0]}; want all of them")
    if len(np.unique(labels)) < 2:
        raise ValueError("folds: all rows are in the same one, which leaves none to fit to; want at least two")
    return labels


def _check_models(models: Any, wanted: str) -> None:
    if not isinstance(models, Sequence) or not models:
        raise ValueError(f"models: {models!r} was given; want a sequence of at least one")
    for number, model in enumerate(models):
        if not (callable(getattr(model, wanted, None)) or (wanted == "predict" and callable(model))):
            raise ValueError(f"models[{number}]: {model!r} has no {wanted}; want a model that has")


def _log_probabilities(model: Any, x: Any, classes: np.ndarray) -> np.ndarray:
    """(n, C), of classes that the model does not know the least."""
    given = np.asarray(model.predict_proba(x), float)
    _checks.shape("predict_proba", given, (len(given), len(model.classes_)), "a column for each of classes_")
    place = np.searchsorted(classes, model.classes_)
    if (place >= len(classes)).any() or (classes[place] != model.classes_).any():
        raise ValueError(f"classes: a model knows {list(model.classes_)}; want them all among {classes.tolist()}")
    probabilities = np.zeros((len(given), len(classes)))
    probabilities[:, place] = given
    return np.log(np.maximum(probabilities, LEAST))
