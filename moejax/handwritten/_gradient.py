"""Loss of a mixture of linear experts, its handwritten gradient, and gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moejax import _checks
from moejax.handwritten._arguments import Array, Params, check_keys, checked_data, checked_params, started


def loss(
    params: Params,
    x: ArrayLike,
    y: ArrayLike,
    gate: str,
    *,
    l1_experts: float = 0.0,
    l1_gate: float = 0.0,
    l2_experts: float = 0.0,
    l2_gate: float = 0.0,
    weights: ArrayLike | None = None,
) -> float:
    """Compute the penalised mean squared error of a mixture of linear experts.

    Parameters
    ----------
    params : dict
        Nested dict of parameters of K experts and the gate, as described in `moejax.handwritten`.
    x : array_like, shape (n, d)
        Inputs.
    y : array_like, shape (n,)
        Targets.
    gate : {"fixed", "constant", "softmax", "top1"}
        The gate.
    l1_experts : float, default 0.0
        Factor of the sum of magnitudes of the experts' weights.
    l1_gate : float, default 0.0
        Factor of the sum of magnitudes of the gate's weights, if it has weights.
    l2_experts : float, default 0.0
        Factor of the sum of squares of the experts' weights.
    l2_gate : float, default 0.0
        Factor of the sum of squares of the gate's weights, if it has weights.
    weights : array_like, shape (n,), optional
        Weight of each row in the mean. No weight is negative, and their sum is above 0. If None (the default), all rows have
        the same weight.

    Returns
    -------
    float
        Mean over rows of (y - prediction)^2, in squared units of y, plus the penalties.

    Raises
    ------
    ValueError
        If an argument has wrong keys, a wrong shape or wrong values. The message names the argument.
    TypeError
        If the function is called inside a JAX transformation, where the parameters have no numbers. The message is from JAX.
    """
    penalties = _penalties(l1_experts, l1_gate, l2_experts, l2_gate)
    params, forward = _forward(params, x, y, gate, weights)
    total = np.sum(forward.share * forward.residual**2)
    for part, (l1, l2) in penalties.items():
        if "weights" in params[part]:
            w = params[part]["weights"]
            total += l1 * np.sum(np.abs(w)) + l2 * np.sum(w**2)
    return float(total)


def gradient(
    params: Params,
    x: ArrayLike,
    y: ArrayLike,
    gate: str,
    *,
    l1_experts: float = 0.0,
    l1_gate: float = 0.0,
    l2_experts: float = 0.0,
    l2_gate: float = 0.0,
    weights: ArrayLike | None = None,
) -> Params:
    """Compute the gradient of `loss` with respect to the parameters, by the formulas in `moejax.handwritten`.

    Parameters
    ----------
    params : dict
        Nested dict of parameters of K experts and the gate, as described in `moejax.handwritten`.
    x : array_like, shape (n, d)
        Inputs.
    y : array_like, shape (n,)
        Targets.
    gate : {"fixed", "constant", "softmax", "top1"}
        The gate.
    l1_experts : float, default 0.0
        Factor of the sum of magnitudes of the experts' weights.
    l1_gate : float, default 0.0
        Factor of the sum of magnitudes of the gate's weights, if it has weights.
    l2_experts : float, default 0.0
        Factor of the sum of squares of the experts' weights.
    l2_gate : float, default 0.0
        Factor of the sum of squares of the gate's weights, if it has weights.
    weights : array_like, shape (n,), optional
        Weight of each row in the mean. No weight is negative, and their sum is above 0. If None (the default), all rows have
        the same weight.

    Returns
    -------
    dict
        Nested dict with the keys and shapes of `params`, in units of the loss per unit of each parameter. Parameters that
        are not trained (`log_proportions`, `temperature`) have gradient 0.

    Raises
    ------
    ValueError
        If an argument has wrong keys, a wrong shape or wrong values. The message names the argument.
    TypeError
        If the function is called inside a JAX transformation, where the parameters have no numbers. The message is from JAX.

    Notes
    -----
    For the gate "top1", the result is the straight-through estimate. As a function of the gate's parameters, the loss is
    constant except where the chosen expert changes, so its derivative carries no information. The estimate is the gradient
    of the softmax gate, evaluated at the residuals of the top-1 prediction. The gradient of an expert then comes only from
    the rows that chose this expert.
    """
    penalties = _penalties(l1_experts, l1_gate, l2_experts, l2_gate)
    params, forward = _forward(params, x, y, gate, weights)
    slope = (-2 * forward.share * forward.residual)[:, None]  # (n, 1), dL/dprediction
    d_eta = slope * forward.multipliers
    result = {
        "experts": {"weights": d_eta.T @ forward.x, "intercept": d_eta.sum(axis=0)},
        "gate": _gate_gradient(params["gate"], forward, d_g=slope * forward.eta),
    }
    for part, (l1, l2) in penalties.items():
        if "weights" in params[part]:
            w = params[part]["weights"]
            result[part]["weights"] = result[part]["weights"] + l1 * np.sign(w) + 2 * l2 * w
    return result


def descend(gradient: Callable[[Params], Params], params: Params, steps: int, rate: float) -> tuple[Params, list[Params]]:
    """Run plain gradient descent: params - rate * gradient(params), `steps` times.

    All iterates are kept, so the function suits small problems on which two derivations are compared step by step.

    Parameters
    ----------
    gradient : callable
        Function of the parameters that returns a nested dict with the keys and shapes of the parameters.
    params : dict
        Initial parameters, a nested dict of numbers and arrays. They are copied, not changed.
    steps : int
        Number of steps, at least 0.
    rate : float
        Learning rate, above 0, in units of a squared parameter per unit of the loss.

    Returns
    -------
    params : dict
        Last iterate, in float64.
    iterates : list of dict
        All steps + 1 iterates, from the initial parameters to the last iterate, in float64.

    Raises
    ------
    ValueError
        If `steps` or `rate` is out of range, if the keys or shapes of the gradient differ from those of the parameters, or
        if the parameters become NaN or infinite because `rate` is too large.

    Examples
    --------
    >>> from moejax import handwritten
    >>> last, iterates = handwritten.descend(lambda p: {"w": 2 * p["w"]}, {"w": 1.0}, steps=2, rate=0.25)
    >>> [float(params["w"]) for params in iterates]
    [1.0, 0.5, 0.25]
    """
    _checks.functions(gradient=gradient)
    _checks.count("steps", steps, least=0)
    rate = _checks.number_above_0("rate", rate)
    current = started("params", params)
    iterates = [current]
    for step in range(1, steps + 1):
        with np.errstate(over="ignore", invalid="ignore"):  # the check below has a clearer message
            current = _moved("gradient", current, gradient(current), rate)
        if not _still_finite(iterates[-1], current):
            raise ValueError(f"rate: {rate} made the parameters NaN or infinite at step {step}; want a smaller rate")
        iterates.append(current)
    return current, iterates


@dataclass(frozen=True)
class _Forward:
    """Results of the forward pass that the backward pass needs."""

    x: Array  # (n, d)
    eta: Array  # (n, K), the experts' predictions
    probabilities: Array  # (n, K), the gate's probabilities
    multipliers: Array  # (n, K), the factors of the experts' predictions: one-hot for top-1, otherwise the probabilities
    residual: Array  # (n,), y - prediction
    share: Array  # (n,), the weight of each row in the mean; sums to 1


def _forward(params: Params, x: ArrayLike, y: ArrayLike, gate: str, weights: ArrayLike | None) -> tuple[Params, _Forward]:
    """Return the parameters in float64 and the results of the forward pass, after a check of all arguments."""
    x, y, share = checked_data(x, y, weights)
    params = checked_params(params, gate, x.shape[1])
    eta = x @ params["experts"]["weights"].T + params["experts"]["intercept"]
    probabilities = _probabilities(params["gate"], x)
    multipliers = probabilities
    if gate == "top1":
        multipliers = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    residual = y - np.einsum("nk,nk->n", multipliers, eta)
    return params, _Forward(x, eta, probabilities, multipliers, residual, share)


def _probabilities(gate: Params, x: Array) -> Array:
    """Return the probabilities of the gate, shape (n, K)."""
    if "log_proportions" in gate:
        return np.tile(np.exp(gate["log_proportions"]), (len(x), 1))
    if "logits" in gate:
        return np.tile(_softmax(gate["logits"]), (len(x), 1))
    return _softmax((x @ gate["weights"].T + gate["intercept"]) / gate["temperature"])


def _softmax(logits: Array) -> Array:
    """Return the softmax over the last axis, without overflow for large logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: Array = powers / powers.sum(axis=-1, keepdims=True)
    return probs


def _gate_gradient(gate: Params, forward: _Forward, d_g: Array) -> Params:
    """Return the gradient in the gate's parameters, from the gradient d_g (n, K) in its probabilities."""
    if "log_proportions" in gate:
        return {"log_proportions": np.zeros_like(gate["log_proportions"])}
    # The Jacobian of the softmax, diag(g) - g g^T, times d_g. Its diagonal is g_k (1 - g_k): the factor g_k is before the
    # bracket, and (1 - g_k) comes from the difference inside the bracket.
    d_z = forward.probabilities * (d_g - np.sum(forward.probabilities * d_g, axis=1, keepdims=True))
    if "logits" in gate:
        return {"logits": d_z.sum(axis=0)}
    d_z = d_z / gate["temperature"]
    return {"weights": d_z.T @ forward.x, "intercept": d_z.sum(axis=0), "temperature": np.zeros(())}


def _penalties(l1_experts: float, l1_gate: float, l2_experts: float, l2_gate: float) -> dict[str, tuple[float, float]]:
    """Return the penalties (l1, l2) of each part, after a check."""
    named = {"l1_experts": l1_experts, "l1_gate": l1_gate, "l2_experts": l2_experts, "l2_gate": l2_gate}
    given = {name: _checks.number_from_0(name, value) for name, value in named.items()}
    return {part: (given[f"l1_{part}"], given[f"l2_{part}"]) for part in ("experts", "gate")}


def _moved(name: str, params: Any, direction: Any, rate: float) -> Any:
    """Return params - rate * direction, for nested dicts with the same keys and shapes."""
    if isinstance(params, dict):
        check_keys(name, direction, set(params))
        return {key: _moved(f"{name}[{key!r}]", value, direction[key], rate) for key, value in params.items()}
    _checks.shape(name, direction, params.shape, "the shape of params")
    return params - rate * np.asarray(direction, dtype=np.float64)


def _still_finite(before: Any, after: Any) -> bool:
    """Return whether all values are finite that were finite before; the logarithm of a proportion of 0 is not finite."""
    if isinstance(before, dict):
        return all(_still_finite(value, after[key]) for key, value in before.items())
    return bool((np.isfinite(after) | ~np.isfinite(before)).all())
