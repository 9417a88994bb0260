"""Gradients of a mixture of linear experts by hand, and a check of anybody's own gradients against autodiff.

For researchers who derive gradients on paper. Everything is NumPy in float64, plain enough to be read beside the
derivation, and independent of the rest of the package. JAX is imported by `compare` alone.

For rows x (n, d), targets y (n,) and K linear experts, params is the nested dict

    {"experts": {"weights": (K, d), "intercept": (K,)}, "gate": GATE}

in which GATE belongs to one of four gates:

    "fixed"     {"log_proportions": (K,)}                              given proportions, never trained
    "constant"  {"logits": (K,)}                                       softmax of logits that see no input
    "softmax"   {"weights": (K, d), "intercept": (K,), "temperature": ()}
    "top1"      the same as softmax; the expert of largest probability answers alone (straight-through)

The probabilities of the last two are softmax((x weights^T + intercept) / temperature); the temperature is not trained.

    eta_ik = x_i . w_k + b_k        prediction_i = sum over k of g_ik eta_ik        r_i = y_i - prediction_i
    loss   = mean over i of r_i^2 + l1_experts sum|w| + l1_gate sum|v| + l2_experts sum w^2 + l2_gate sum v^2

with w the experts' weights and v the gate's: intercepts and logits are never penalised, and a gate without weights has
no penalty. The mean is over rows, weighted on request: the loss has the unit of y squared.

The gradient, with s_i the share of row i in the mean (1 / n, unless weighted) and z the logits of the gate:

    dL/deta_ik = -2 s_i r_i g_ik
    dL/dg_ik   = -2 s_i r_i eta_ik
    dL/dz_ik   = g_ik (dL/dg_ik - sum over j of g_ij dL/dg_ij) = -2 s_i r_i g_ik (eta_ik - sum over j of g_ij eta_ij)

Straight-through top-1 puts the one-hot choice for g into the prediction and into dL/deta, and keeps the softmax's g in
dL/dz, as though the choice had been the softmax. |w| has the subgradient sign(w), which is 0 at 0.

Sources: the gated mean of experts is that of R. A. Jacobs, M. I. Jordan, S. J. Nowlan and G. E. Hinton, "Adaptive
mixtures of local experts", Neural Computation 3 (1991); the straight-through estimator is that of Y. Bengio,
N. Leonard and A. Courville, "Estimating or propagating gradients through stochastic neurons for conditional
computation", arXiv:1308.3432 (2013).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moejax import _checks

__all__ = ["Comparison", "Row", "compare", "descend", "gradient", "loss"]

Array = NDArray[np.float64]
Params = dict[str, Any]

AGREE = "agree"
GRADIENT_OFF = "gradient is off"
AUTODIFF_OFF = "autodiff is off"
DIFFERENCES_OFF = "differences are off (a kink, or a straight-through estimator)"
ALL_DIFFER = "all three differ"

_GATE_KEYS = {
    "fixed": {"log_proportions"},
    "constant": {"logits"},
    "softmax": {"weights", "intercept", "temperature"},
    "top1": {"weights", "intercept", "temperature"},
}
_EPS = float(np.finfo(np.float64).eps)
_STEP = _EPS ** (1 / 3)  # where truncation and rounding of a plain central difference balance
_DIFFERENCES_RTOL = 1e-5
_NOT_JAX = "loss: JAX cannot trace it, for it calls NumPy on params; want a function written with jax.numpy"


# --- the loss and its gradient ----------------------------------------------------------------------------------------


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
    current = _arrays("params", params)
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
    x, y, share = _data(x, y, weights)
    params = _checked_params(params, gate, x.shape[1])
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


def _data(x: ArrayLike, y: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Checked x (n, d) and y (n,), and each row's share of the mean (n,)."""
    _checks.shape("x", x, (None, None), "rows by columns")
    n = np.shape(x)[0]
    _checks.count("rows of x", n)
    _checks.shape("y", y, (n,), "a number for every row of x")
    _checks.finite("x", x)
    _checks.finite("y", y)
    share = np.ones(n)
    if weights is not None:
        _checks.shape("weights", weights, (n,), "a number for every row of x")
        _checks.not_negative("weights", weights)
        share = np.asarray(weights, dtype=np.float64)
        _checks.positive("sum of weights", share.sum())
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), share / share.sum()


def _checked_params(params: Params, gate: str, d: int) -> Params:
    """The params of a mixture with that gate, as float64 arrays, after a check of keys, shapes and values."""
    if gate not in _GATE_KEYS:
        raise ValueError(f"gate: {gate!r} was given; want one of {', '.join(repr(name) for name in _GATE_KEYS)}")
    _check_keys("params", params, {"experts", "gate"})
    _check_keys("params['experts']", params["experts"], {"weights", "intercept"})
    _check_keys("params['gate']", params["gate"], _GATE_KEYS[gate], f" for gate {gate!r}")
    _checks.shape("params['experts']['weights']", params["experts"]["weights"], (None, d), "experts by columns of x")
    k = np.shape(params["experts"]["weights"])[0]
    _checks.count("rows of params['experts']['weights']", k)
    for part in ("experts", "gate"):
        for key, value in params[part].items():
            want = {"weights": (k, d), "temperature": ()}.get(key, (k,))
            _checks.shape(f"params[{part!r}][{key!r}]", value, want, f"for {k} experts and {d} columns of x")
            if key != "log_proportions":  # a proportion may be 0, and its logarithm minus infinity
                _checks.finite(f"params[{part!r}][{key!r}]", value)
    params = _arrays("params", params)
    _check_gate_values(params["gate"])
    return params


def _check_gate_values(gate: Params) -> None:
    """Raise unless the temperature is above 0 and the proportions sum to 1."""
    if "temperature" in gate:
        _checks.positive("params['gate']['temperature']", gate["temperature"])
    if "log_proportions" in gate:
        total = float(np.sum(np.exp(gate["log_proportions"])))
        # Loose enough for float32 and for a central difference, tight enough for logits mistaken for log proportions.
        if not abs(total - 1) < 1e-4:
            raise ValueError(f"params['gate']['log_proportions']: proportions that sum to {total} were given; want 1")


def _check_keys(name: str, value: Any, want: set[str], purpose: str = "") -> None:
    """Raise unless `value` is a dict with just the keys `want`."""
    if not isinstance(value, dict):
        raise ValueError(f"{name}: {type(value).__name__} was given; want a dict with keys {sorted(want)}{purpose}")
    if set(value) != want:
        raise ValueError(f"{name}: keys {sorted(map(str, value))} were given; want {sorted(want)}{purpose}")


def _arrays(name: str, tree: Any) -> Any:
    """A nested dict as float64 arrays, copied."""
    if isinstance(tree, dict):
        return {key: _arrays(f"{name}[{key!r}]", value) for key, value in tree.items()}
    try:
        return np.array(tree, dtype=np.float64)
    except (TypeError, ValueError) as error:
        if hasattr(tree, "aval"):  # of JAX, and without numbers: its own message says more
            raise
        raise ValueError(f"{name}: {type(tree).__name__} was given; want numbers") from error


def _moved(name: str, params: Any, direction: Any, rate: float) -> Any:
    """params - rate * direction, over nested dicts of the same keys and shapes."""
    if isinstance(params, dict):
        _check_keys(name, direction, set(params))
        return {key: _moved(f"{name}[{key!r}]", value, direction[key], rate) for key, value in params.items()}
    _checks.shape(name, direction, params.shape, "the shape of params")
    return params - rate * np.asarray(direction, dtype=np.float64)


def _still_finite(before: Any, after: Any) -> bool:
    """Whether what was finite is finite (the log of a proportion of 0 never was)."""
    if isinstance(before, dict):
        return all(_still_finite(value, after[key]) for key, value in before.items())
    return bool((np.isfinite(after) | ~np.isfinite(before)).all())


# --- somebody's own gradient against autodiff and central differences -------------------------------------------------


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
