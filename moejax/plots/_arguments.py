"""Checks and conversions of the arguments of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moejax import _checks

MOST_NAMED = 8  # largest number of members that have a colour each


def as_numbers(name: str, value: Any, least: int, most: int | None = None, wanted: str = "") -> np.ndarray:
    """Return `value` in float64, after a check that it has `least` to `most` axes and at least one number.

    `most` is `least` if None. `wanted` describes the wanted shape in the error message.
    """
    array = _checks.array(name, value)
    if array.dtype.kind == "c":
        raise ValueError(f"{name}: complex numbers were given; want real ones")
    if not _checks.is_real(array.dtype):
        raise ValueError(f"{name}: values of type {array.dtype} were given; want numbers")
    if not least <= array.ndim <= (most or least):
        raise ValueError(f"{name}: shape {array.shape} was given; want {wanted or ('a number', '(any,)')[least]}")
    if array.size == 0:
        raise ValueError(f"{name}: shape {array.shape} was given; want at least one number")
    return array.astype(float)


def line_names(argument: str, names: Sequence[str], size: int, meaning: str) -> list[str]:
    """Return `names` as strings, after a check that there are `size` names."""
    return _checks.names(argument, names, size, meaning)


def names_of_features(names: Sequence[str] | None, features: int) -> list[str]:
    """Return the names of the features, x1 to xd if `names` is None."""
    if names is None:
        return [f"x{j + 1}" for j in range(features)]
    return line_names("feature_names", names, features, "one per feature")


def as_labels(expert: Any, samples: int) -> np.ndarray:
    """Return the expert of each sample as integers (n,), after a check."""
    labels = as_numbers("expert", expert, 1)
    _checks.shape("expert", labels, (samples,), "one expert per sample")
    _checks.not_negative("expert", labels)
    if (labels != np.round(labels)).any():
        raise ValueError(f"expert: {labels[labels != np.round(labels)][0]:g} was given; want whole numbers from 0")
    return labels.astype(int)


def names_of_experts(experts: int, shares: Any, numbers: Sequence[int] | None) -> list[str]:
    """Return the label of each expert: its number, counted from 1, and its share if known."""
    if numbers is not None:
        _checks.shape("numbers", numbers, (experts,), "one number per expert")
        _checks.whole("numbers", numbers, 0, _checks.MOST)
    names = [f"expert {int(k) + 1}" for k in (range(experts) if numbers is None else np.asarray(numbers))]
    if shares is None:
        return names
    fractions = as_numbers("shares", shares, 1)
    _checks.shape("shares", fractions, (experts,), "one share per expert")
    _checks.not_negative("shares", fractions)
    if fractions.max() > 1.0 + 1e-6:
        raise ValueError(f"shares: {fractions.max():g} was given; want shares from 0 to 1")
    return [f"{name} ({fraction:.0%})" for name, fraction in zip(names, fractions, strict=True)]


def as_penalties(penalty: Any, chosen: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the penalties (P,) and the permutation that sorts them, after a check of both arguments."""
    grid = as_numbers("penalty", penalty, 1)
    _checks.not_negative("penalty", grid)
    if chosen is not None:
        _checks.shape("chosen", chosen, (), "one penalty")
        _checks.finite("chosen", chosen)
        # The tolerance is for penalties rounded to float32. The check finds an index passed instead of a penalty.
        if not grid.min() * (1 - 1e-5) <= float(chosen) <= grid.max() * (1 + 1e-5):
            raise ValueError(f"chosen: {float(chosen):g} was given; want a penalty from {grid.min():g} to {grid.max():g}")
    return grid, np.argsort(grid, kind="stable")


def picked_errors(errors: np.ndarray, restart: Any) -> np.ndarray:
    """Return the error (P,) of the chosen restart at each penalty, for errors (P, R) and restarts (P,)."""
    if errors.ndim == 1:
        raise ValueError(f"chosen_restart: given with error of shape {errors.shape}; want an error of shape (P, R)")
    index = as_numbers("chosen_restart", restart, 1)
    _checks.shape("chosen_restart", index, (len(errors),), "one restart per penalty")
    _checks.finite("chosen_restart", index)
    invalid = (index != np.round(index)) | (index < 0) | (index >= errors.shape[1])
    if invalid.any():
        raise ValueError(
            f"chosen_restart: {index[invalid][0]:g} was given; want whole numbers from 0 to {errors.shape[1] - 1}"
        )
    picked: np.ndarray = errors[np.arange(len(errors)), index.astype(int)]
    return picked


def check_highlight(highlight: int, drawable: np.ndarray) -> None:
    """Raise a ValueError unless `highlight` is the index of a member whose history can be drawn."""
    if not _checks.is_whole(highlight) or not 0 <= highlight < drawable.size:
        given = _checks.shown(highlight)
        raise ValueError(f"highlight: {given} was given; want a whole number from 0 to {drawable.size - 1}")
    if not drawable[highlight]:
        raise ValueError(
            f"highlight: {highlight} was given, whose history is not finite; want a member with a finite history"
        )


def finite_beginnings(lines: np.ndarray) -> np.ndarray:
    """Return the length (M,) of the finite beginning of each of the lines (M, T).

    The length is 0 for a line in which a value other than NaN follows the finite beginning.
    """
    finite = np.isfinite(lines)
    sizes = finite.sum(axis=1)
    after_end = np.arange(lines.shape[1]) >= sizes[:, None]
    return np.where(np.where(after_end, np.isnan(lines), finite).all(axis=1), sizes, 0)
