"""What a figure is given, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from moejax import _checks

MOST_NAMED = 8  # members of a grid that can each have a colour


def as_numbers(name: str, value: Any, least: int, most: int | None = None, wanted: str = "") -> np.ndarray:
    """`value` in float64, with `least` to `most` axes and at least one number."""
    array = np.asarray(value)
    if array.dtype != bool and not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name}: values of type {array.dtype} were given; want numbers")
    if np.iscomplexobj(array):
        raise ValueError(f"{name}: complex numbers were given; want real ones")
    if not least <= array.ndim <= (most or least):
        raise ValueError(f"{name}: shape {array.shape} was given; want {wanted or ('a number', '(any,)')[least]}")
    if array.size == 0:
        raise ValueError(f"{name}: shape {array.shape} was given; want at least one number")
    return array.astype(float)


def line_names(argument: str, names: Sequence[str], size: int, meaning: str) -> list[str]:
    if isinstance(names, str) or len(names) != size:
        given = repr(names) if isinstance(names, str) else f"{len(names)} names"
        raise ValueError(f"{argument}: {given} was given; want a sequence of {size}, {meaning}")
    return [str(name) for name in names]


def names_of_features(names: Sequence[str] | None, features: int) -> list[str]:
    if names is None:
        return [f"x{j + 1}" for j in range(features)]
    return line_names("feature_names", names, features, "one per feature")


def as_labels(expert: Any, samples: int) -> np.ndarray:
    """`expert` as integers (n,)."""
    labels = as_numbers("expert", expert, 1)
    _checks.shape("expert", labels, (samples,), "one expert per sample")
    _checks.not_negative("expert", labels)
    if (labels != np.round(labels)).any():
        raise ValueError(f"expert: {labels[labels != np.round(labels)][0]:g} was given; want whole numbers from 0")
    return labels.astype(int)


def names_of_experts(experts: int, shares: Any, numbers: Sequence[int] | None) -> list[str]:
    if numbers is not None:
        _checks.shape("numbers", numbers, (experts,), "one number per expert")
    names = [f"expert {k + 1}" for k in (range(experts) if numbers is None else numbers)]
    if shares is None:
        return names
    parts = as_numbers("shares", shares, 1)
    _checks.shape("shares", parts, (experts,), "one share per expert")
    _checks.not_negative("shares", parts)
    if parts.max() > 1.0 + 1e-6:
        raise ValueError(f"shares: {parts.max():g} was given; want shares from 0 to 1")
    return [f"{name} ({part:.0%})" for name, part in zip(names, parts, strict=True)]


def as_penalties(penalty: Any, chosen: float | None) -> tuple[np.ndarray, np.ndarray]:
    """The penalties (P,) and what sorts them."""
    grid = as_numbers("penalty", penalty, 1)
    _checks.not_negative("penalty", grid)
    if chosen is not None:
        _checks.shape("chosen", chosen, (), "one penalty")
        _checks.finite("chosen", chosen)
        # Float32 grids come back rounded; an index passed for a penalty is what this is meant to catch.
        if not grid.min() * (1 - 1e-5) <= float(chosen) <= grid.max() * (1 + 1e-5):
            raise ValueError(
                f"chosen: {float(chosen):g} was given; want one of the penalties, which are {grid.min():g} to {grid.max():g}"
            )
    return grid, np.argsort(grid, kind="stable")


def picked_errors(errors: np.ndarray, restart: Any) -> np.ndarray:
    """The errors (P,) of the restart (P,) chosen at each penalty."""
    if errors.ndim == 1:
        raise ValueError(f"chosen_restart: given with error of shape {errors.shape}; want error of shape (P, R)")
    index = as_numbers("chosen_restart", restart, 1)
    _checks.shape("chosen_restart", index, (len(errors),), "one restart per penalty")
    _checks.finite("chosen_restart", index)
    wrong = (index != np.round(index)) | (index < 0) | (index >= errors.shape[1])
    if wrong.any():
        raise ValueError(
            f"chosen_restart: {index[wrong][0]:g} was given; want whole numbers from 0 to {errors.shape[1] - 1}"
        )
    return errors[np.arange(len(errors)), index.astype(int)]


def check_highlight(highlight: int, whole: np.ndarray) -> None:
    if isinstance(highlight, bool) or not isinstance(highlight, int | np.integer) or not 0 <= highlight < whole.size:
        raise ValueError(f"highlight: {highlight!r} was given; want a whole number from 0 to {whole.size - 1}")
    if not whole[highlight]:
        raise ValueError(f"highlight: {highlight} was given, whose history is not finite; want a member that is")


def finite_beginnings(lines: np.ndarray) -> np.ndarray:
    """How many finite numbers, with nothing but NaN behind them, each of lines (M, T) begins with; 0 for any other line."""
    finite = np.isfinite(lines)
    sizes = finite.sum(axis=1)
    behind = np.arange(lines.shape[1]) >= sizes[:, None]
    return np.where(np.where(behind, np.isnan(lines), finite).all(axis=1), sizes, 0)
