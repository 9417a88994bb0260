"""The loss of a mixture of linear experts, its gradient by hand, and descent along it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from moejax import _checks
from moejax.handwritten._arguments import Array, Params, as_arrays, check_keys, checked_data, checked_params


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
    """The penalised mean squared error of a mixture of linear experts.

    Args:
        params: the nested dict that the module describes, for K experts.
        x: (n, d), the inputs.
        y: (n,), the targets.
        gate: "fixed", "constant", "softmax" or "top1".
        l1_experts: multiplies the sum of absolute values of the experts' weights.
        l1_gate: multiplies the sum of absolute values of the gate's weights, if it has any.
        l2_experts: multiplies the sum of squares of the experts' weights.
        l2_gate: multiplies the sum of squares of the gate's weights, if it has any.
        weights: (n,), what each row counts for in the mean; none below 0, their sum above 0. None: all the same.

    Returns:
        The mean over rows of (y - prediction)^2, plus the penalties.

    Raises:
        ValueError: where an argument has the wrong keys, shape or values; the message names it.
        TypeError: inside a JAX transformation, where params have no numbers; the message is JAX's.
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
    """The gradient of `loss` in params, by the formulas at the head of the module.

    For gate "top1" it is the straight-through estimate: not the derivative of the loss, which has none in the gate (it
    is flat but where the choice jumps), but that of the softmax gate, taken at the hard prediction. Each expert's
    gradient then comes from the rows that chose it.

    Args:
        params: the nested dict that the module describes, for K experts.
        x: (n, d), the inputs.
        y: (n,), the targets.
        gate: "fixed", "constant", "softmax" or "top1".
        l1_experts: multiplies the sum of absolute values of the experts' weights.
        l1_gate: multiplies the sum of absolute values of the gate's weights, if it has any.
        l2_experts: multiplies the sum of squares of the experts' weights.
        l2_gate: multiplies the sum of squares of the gate's weights, if it has any.
        weights: (n,), what each row counts for in the mean; none below 0, their sum above 0. None: all the same.

    Returns:
        A nested dict with the keys and shapes of params, in the unit of the loss per unit of each parameter. What is
        not trained (`log_proportions`, `temperature`) has zeros.

    Raises:
        ValueError: where an argument has the wrong keys, shape or values; the message names it.
        TypeError: inside a JAX transformation, where params have no numbers; the message is JAX's.
    """
    penalties = _penalties(l1_experts, l1_gate, l2_experts, l2_gate)
    params, forward = _forward(params, x, y, gate, weights)
    slope = (-2 * forward.share * forward.residual)[:, None]  # (n, 1), dL/dprediction
    d_eta = slope * forward.used
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
    """Plain gradient descent: params - rate * gradient(params), `steps` times.

    Every iterate is kept, so this is for the small problems on which two derivations are compared step by step.

    Args:
        gradient: any function of params that returns a nested dict with their keys and shapes.
        params: the start, a nested dict of numbers and arrays. It is copied, never changed.
        steps: how many steps to take, at least 0.
        rate: what multiplies the gradient, above 0; in units of parameter squared per unit of loss.

    Returns:
        The last params, and the list of all steps + 1 iterates, the start first and the last params last; float64.

    Raises:
        ValueError: where steps or rate is out of range, where the gradient's keys or shapes differ from those of
            params, or where the parameters stop being finite (the rate is then too large).
    """
    _checks.count("steps", steps, least=0)
    _checks.positive("rate", rate)
    current = as_arrays("params", params)
    iterates = [current]
    for step in range(1, steps + 1):
        with np.errstate(over="ignore", invalid="ignore"):  # the check below says it better
            current = _moved("gradient", current, gradient(current), rate)
        if not _still_finite(iterates[-1], current):
            raise ValueError(f"rate: {rate} made the parameters NaN or infinite at step {step}; want a smaller one")
        iterates.append(current)
    return current, iterates


@dataclass(frozen=True)
class _Forward:
    """What the forward pass leaves for the backward pass."""

    x: Array  # (n, d)
    eta: Array  # (n, K), the experts' predictions
    soft: Array  # (n, K), the gate's probabilities
    used: Array  # (n, K), what multiplied the experts' predictions: one-hot for top-1, else the probabilities
    residual: Array  # (n,), y - prediction
    share: Array  # (n,), each row's part in the mean; sums to 1


def _forward(params: Params, x: ArrayLike, y: ArrayLike, gate: str, weights: ArrayLike | None) -> tuple[Params, _Forward]:
    """Check everything, then predict: params as float64, and the pieces of the forward pass."""
    x, y, share = checked_data(x, y, weights)
    params = checked_params(params, gate, x.shape[1])
    eta = x @ params["experts"]["weights"].T + params["experts"]["intercept"]
    soft = _probabilities(params["gate"], x)
    used = np.eye(soft.shape[1])[soft.argmax(axis=1)] if gate == "top1" else soft
    residual = y - np.einsum("nk,nk->n", used, eta)
    return params, _Forward(x, eta, soft, used, residual, share)


def _probabilities(gate: Params, x: Array) -> Array:
    """The gate's probabilities, (n, K)."""
    if "log_proportions" in gate:
        return np.tile(np.exp(gate["log_proportions"]), (len(x), 1))
    if "logits" in gate:
        return np.tile(_softmax(gate["logits"]), (len(x), 1))
    return _softmax((x @ gate["weights"].T + gate["intercept"]) / gate["temperature"])


def _softmax(logits: Array) -> Array:
    """Softmax over the last axis, safe for large logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _gate_gradient(gate: Params, forward: _Forward, d_g: Array) -> Params:
    """The gradient in the gate's parameters, from that in its probabilities, d_g (n, K)."""
    if "log_proportions" in gate:
        return {"log_proportions": np.zeros_like(gate["log_proportions"])}
    # The softmax's Jacobian, diag(g) - g g^T, times d_g. The g before the bracket is all there is of g_k (1 - g_k): the
    # (1 - g_k) is inside, in the difference from the mean over experts.
    d_z = forward.soft * (d_g - np.sum(forward.soft * d_g, axis=1, keepdims=True))
    if "logits" in gate:
        return {"logits": d_z.sum(axis=0)}
    d_z = d_z / gate["temperature"]
    return {"weights": d_z.T @ forward.x, "intercept": d_z.sum(axis=0), "temperature": np.zeros(())}


def _penalties(l1_experts: float, l1_gate: float, l2_experts: float, l2_gate: float) -> dict[str, tuple[float, float]]:
    """The penalties (l1, l2) of each part, checked."""
    named = {"l1_experts": l1_experts, "l1_gate": l1_gate, "l2_experts": l2_experts, "l2_gate": l2_gate}
    for name, value in named.items():
        _checks.not_negative(name, value)
        _checks.shape(name, value, ())
    return {"experts": (l1_experts, l2_experts), "gate": (l1_gate, l2_gate)}


def _moved(name: str, params: Any, direction: Any, rate: float) -> Any:
    """params - rate * direction, over nested dicts of the same keys and shapes."""
    if isinstance(params, dict):
        check_keys(name, direction, set(params))
        return {key: _moved(f"{name}[{key!r}]", value, direction[key], rate) for key, value in params.items()}
    _checks.shape(name, direction, params.shape, "the shape of params")
    return params - rate * np.asarray(direction, dtype=np.float64)


def _still_finite(before: Any, after: Any) -> bool:
    """Whether what was finite is finite (the log of a proportion of 0 never was)."""
    if isinstance(before, dict):
        return all(_still_finite(value, after[key]) for key, value in before.items())
    return bool((np.isfinite(after) | ~np.isfinite(before)).all())
