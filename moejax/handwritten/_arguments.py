"""Checks and conversions of the arguments of handwritten mixtures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moejax import _checks

Array = NDArray[np.float64]
Params = dict[str, Any]
_GATE_KEYS = {
    "fixed": {"log_proportions"},
    "constant": {"logits"},
    "softmax": {"weights", "intercept", "temperature"},
    "top1": {"weights", "intercept", "temperature"},
}


def checked_data(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Return x (n, d) and y (n,) as float64 and the weight of each row in the mean (n,), after a check."""
    _checks.shape("x", x, (None, None), "rows by columns")
    n = np.shape(x)[0]
    _checks.count("rows of x", n)
    _checks.shape("y", y, (n,), "a number for every row of x")
    _checks.finite("x", x)
    _checks.finite("y", y)
    row_weights = np.ones(n)
    if weights is not None:
        _checks.shape("weights", weights, (n,), "a number for every row of x")
        _checks.not_negative("weights", weights)
        row_weights = np.asarray(_checks.scaled(weights), dtype=np.float64)
        _checks.positive("sum of weights", row_weights.sum())
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), row_weights / row_weights.sum()


def checked_params(params: Params, gate: str, d: int) -> Params:
    """Return the parameters as float64 arrays, after a check of keys, shapes and values for the gate and d features."""
    _checks.choice("gate", gate, tuple(_GATE_KEYS))
    check_keys("params", params, {"experts", "gate"})
    check_keys("params['experts']", params["experts"], {"weights", "intercept"})
    check_keys("params['gate']", params["gate"], _GATE_KEYS[gate], f" for gate {gate!r}")
    _checks.shape("params['experts']['weights']", params["experts"]["weights"], (None, d), "experts by columns of x")
    k = np.shape(params["experts"]["weights"])[0]
    _checks.count("rows of params['experts']['weights']", k)
    for part in ("experts", "gate"):
        for key, value in params[part].items():
            want = {"weights": (k, d), "temperature": ()}.get(key, (k,))
            _checks.shape(f"params[{part!r}][{key!r}]", value, want, f"for {k} experts and {d} columns of x")
            if key != "log_proportions":  # a proportion may be 0, so its logarithm may be minus infinity
                _checks.finite(f"params[{part!r}][{key!r}]", value)
    params = as_arrays("params", params)
    _check_gate_values(params["gate"])
    return params


def _check_gate_values(gate: Params) -> None:
    """Raise a ValueError unless the temperature is above 0 and the proportions sum to 1."""
    if "temperature" in gate:
        _checks.positive("params['gate']['temperature']", gate["temperature"])
    if "log_proportions" in gate:
        total = float(np.sum(np.exp(gate["log_proportions"])))
        # The tolerance allows for float32 and for central differences, but finds logits passed as log proportions.
        if not abs(total - 1) < 1e-4:
            raise ValueError(
                f"params['gate']['log_proportions']: proportions that sum to {total} were given; want a sum of 1"
            )


def check_keys(name: str, value: Any, want: set[str], purpose: str = "") -> None:
    """Raise a ValueError unless `value` is a dict with exactly the keys `want`."""
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {type(value).__name__} was given; want a dict with keys {sorted(want)}{purpose}")
    if set(value) != want:
        raise ValueError(f"{name}: keys {sorted(map(str, value))} were given; want {sorted(want)}{purpose}")


def started(name: str, params: Any) -> Any:
    """Return `as_arrays` of a dict, of which no number is NaN; raise ValueError for anything else."""
    if not isinstance(params, dict):
        raise ValueError(f"{name}: {_checks.shown(params)} was given; want a dict of arrays")
    arrays = as_arrays(name, params)
    _refuse_nan(name, arrays)
    return arrays


def _refuse_nan(name: str, tree: Any) -> None:
    """Raise ValueError for a NaN; the logarithm of a proportion of 0 is infinite."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            _refuse_nan(f"{name}[{key!r}]", value)
    elif np.isnan(tree).any():
        raise ValueError(f"{name}: {int(np.isnan(tree).sum())} of {tree.size} values are NaN; want numbers")


def as_arrays(name: str, tree: Any) -> Any:
    """Return a copy of a nested dict with float64 arrays as values."""
    if isinstance(tree, dict):
        return {key: as_arrays(f"{name}[{key!r}]", value) for key, value in tree.items()}
    if _checks.is_traced(tree):
        return np.array(tree, dtype=np.float64)  # which has no numbers; the message of JAX says more
    given = _checks.array(name, tree)
    _checks.real(name, given)
    return given.astype(np.float64)
