"""Gradients by hand against JAX's autodiff of losses written here, against differences, and against known mistakes."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moejax import handwritten as hw

GATES = ("fixed", "constant", "softmax", "top1")
NONE = {"l1_experts": 0.0, "l1_gate": 0.0, "l2_experts": 0.0, "l2_gate": 0.0}
PENALTIES = [
    NONE,
    NONE | {"l1_experts": 0.3},
    NONE | {"l1_gate": 0.2},
    NONE | {"l2_experts": 0.7, "l2_gate": 0.4},
    {"l1_experts": 0.1, "l1_gate": 0.05, "l2_experts": 0.02, "l2_gate": 0.3},
]


@contextlib.contextmanager
def float64() -> Iterator[None]:
    there = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    with there(True):
        yield


def jax_loss(params, x, y, gate, l1_experts=0.0, l1_gate=0.0, l2_experts=0.0, l2_gate=0.0, weights=None):
    """The same loss in JAX, written from the definition and not from the gradient."""
    experts, g = params["experts"], jax.tree.map(jnp.asarray, params["gate"])
    if gate == "fixed":
        probs = jnp.exp(jax.lax.stop_gradient(g["log_proportions"]))[None, :]
    elif gate == "constant":
        probs = jax.nn.softmax(g["logits"])[None, :]
    else:
        logits = (x @ g["weights"].T + g["intercept"]) / jax.lax.stop_gradient(g["temperature"])
        probs = jax.nn.softmax(logits, axis=1)
    if gate == "top1":
        hard = jax.nn.one_hot(jnp.argmax(probs, axis=1), probs.shape[1], dtype=probs.dtype)
        probs = probs + jax.lax.stop_gradient(hard - probs)
    prediction = jnp.sum(probs * (x @ jnp.asarray(experts["weights"]).T + experts["intercept"]), axis=1)
    total = jnp.average((y - prediction) ** 2, weights=weights)
    total += l1_experts * jnp.abs(experts["weights"]).sum() + l2_experts * jnp.square(experts["weights"]).sum()
    if "weights" in g:
        total += l1_gate * jnp.abs(g["weights"]).sum() + l2_gate * jnp.square(g["weights"]).sum()
    return total


value_and_grad = jax.jit(jax.value_and_grad(jax_loss), static_argnames="gate")


def draw_params(rng, d, k, gate, temperature=0.7):
    experts = {"weights": rng.normal(size=(k, d)), "intercept": rng.normal(size=k)}
    if gate == "fixed":
        return {"experts": experts, "gate": {"log_proportions": np.log(rng.dirichlet(np.ones(k)))}}
    if gate == "constant":
        return {"experts": experts, "gate": {"logits": rng.normal(size=k)}}
    gate_params = {"weights": rng.normal(size=(k, d)), "intercept": rng.normal(size=k)}
    return {"experts": experts, "gate": gate_params | {"temperature": np.array(temperature)}}


def draw(n, d, k, gate, seed=0, temperature=0.7):
    rng = np.random.default_rng(seed)
    x, y, weights = rng.normal(size=(n, d)), rng.normal(size=n), rng.uniform(0.1, 3.0, size=n)
    return draw_params(rng, d, k, gate, temperature), x, y, weights


def flat(tree):
    return {f"{part}.{name}": np.asarray(leaf) for part in tree for name, leaf in tree[part].items()}


def assert_same_gradient(given, want, rtol=1e-10):
    given, want = flat(given), flat(want)
    assert given.keys() == want.keys()
    largest = max(np.abs(leaf).max() for leaf in want.values())
    for name, leaf in want.items():
        assert given[name].shape == leaf.shape
        assert given[name].dtype == np.float64
        atol = rtol * np.abs(leaf).max() + 1e-13 * largest  # the second: leaves that are zero but for rounding
        np.testing.assert_allclose(given[name], leaf, rtol=0, atol=atol, err_msg=name)


# --- the gradient -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("gate", GATES)
def test_loss_and_gradient_are_those_of_autodiff(gate, penalties, weighted):
    params, x, y, weights = draw(23, 4, 3, gate)
    weights = weights if weighted else None
    with float64():
        value, want = value_and_grad(params, x, y, gate, **penalties, weights=weights)
    assert hw.loss(params, x, y, gate, **penalties, weights=weights) == pytest.approx(float(value), rel=1e-13)
    assert_same_gradient(hw.gradient(params, x, y, gate, **penalties, weights=weights), want)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 5),
    k=st.integers(1, 6),
    gate=st.sampled_from(GATES),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.05, 20.0),
    penalties=st.sampled_from(PENALTIES),
    weighted=st.booleans(),
)
def test_gradient_is_that_of_autodiff_for_all_shapes(n, d, k, gate, seed, temperature, penalties, weighted):
    params, x, y, weights = draw(n, d, k, gate, seed, temperature)
    weights = weights if weighted else None
    with float64():
        _, want = value_and_grad(params, x, y, gate, **penalties, weights=weights)
    assert_same_gradient(hw.gradient(params, x, y, gate, **penalties, weights=weights), want)


@pytest.mark.parametrize("gate", ["fixed", "constant", "softmax"])
def test_gradient_is_that_of_central_differences(gate):
    params, x, y, weights = draw(15, 3, 4, gate, seed=5)
    options = PENALTIES[-1] | {"weights": weights}
    slopes = flat(hw.gradient(params, x, y, gate, **options))
    for name, slope in slopes.items():
        part, key = name.split(".")
        if key in ("log_proportions", "temperature"):  # not trained
            assert not slope.any()
            continue
        for index in np.ndindex(slope.shape):

            def at(step, part=part, key=key, index=index):
                moved = {p: {k: np.array(v) for k, v in params[p].items()} for p in params}
                moved[part][key][index] += step
                return hw.loss(moved, x, y, gate, **options)

            assert slope[index] == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-6, abs=1e-8)


def test_top1_predicts_by_the_chosen_expert_and_trains_no_other():
    params = {
        "experts": {"weights": np.array([[1.0], [-1.0], [5.0]]), "intercept": np.array([0.0, 2.0, 9.0])},
        "gate": {"weights": np.array([[1.0], [-1.0], [0.0]]), "intercept": np.array([0.0, 0.0, -9.0])},
    }
    params["gate"]["temperature"] = np.array(0.5)
    x, y = (
        np.array([[1.0], [-2.0]]),
        np.array([2.0, 1.0]),
    )  # expert 0 says 1 of the first, expert 1 says 4 of the second
    assert hw.loss(params, x, y, "top1") == pytest.approx((1.0**2 + 3.0**2) / 2)
    slopes = hw.gradient(params, x, y, "top1")
    np.testing.assert_allclose(slopes["experts"]["weights"], [[-1.0], [-6.0], [0.0]])  # -r x for the row of each
    np.testing.assert_allclose(slopes["experts"]["intercept"], [-1.0, 3.0, 0.0])
    assert slopes["gate"]["weights"][2] != 0  # the gate hears of experts that were not chosen


@pytest.mark.parametrize("gate", GATES)
def test_weights_that_are_counts_repeat_rows(gate):
    params, x, y, _ = draw(6, 2, 3, gate)
    counts = np.array([0, 1, 2, 3, 1, 0])
    again = hw.gradient(params, np.repeat(x, counts, axis=0), np.repeat(y, counts), gate)
    assert_same_gradient(hw.gradient(params, x, y, gate, weights=counts), again)


def test_one_expert_at_least_squares_has_no_gradient():
    _, x, y, _ = draw(30, 3, 1, "constant")
    *w, b = np.linalg.lstsq(np.column_stack([x, np.ones(30)]), y, rcond=None)[0]
    params = {"experts": {"weights": np.array([w]), "intercept": np.array([b])}, "gate": {"logits": np.zeros(1)}}
    for leaf in flat(hw.gradient(params, x, y, "constant")).values():
        np.testing.assert_allclose(leaf, 0, atol=1e-14)


def test_subgradient_of_the_absolute_value_is_zero_at_zero():
    params, x, y, _ = draw(5, 2, 2, "softmax")
    for part in ("experts", "gate"):
        params[part]["weights"] = np.array([[0.0, 1.5], [-0.5, 0.0]])
    without = hw.gradient(params, x, y, "softmax")
    penalised = hw.gradient(params, x, y, "softmax", l1_experts=0.5, l1_gate=0.25)
    for part, l1 in (("experts", 0.5), ("gate", 0.25)):
        np.testing.assert_allclose(penalised[part]["weights"] - without[part]["weights"], [[0, l1], [-l1, 0]])
        np.testing.assert_array_equal(penalised[part]["intercept"], without[part]["intercept"])


def test_a_proportion_of_zero_and_large_logits_are_safe():
    experts = {"weights": np.array([[1.0], [2.0]]), "intercept": np.zeros(2)}
    with np.errstate(divide="ignore"):
        fixed = {"experts": experts, "gate": {"log_proportions": np.log([1.0, 0.0])}}
    constant = {"experts": experts, "gate": {"logits": np.array([1e4, -1e4])}}
    for params, gate in ((fixed, "fixed"), (constant, "constant")):
        assert hw.loss(params, [[1.0]], [3.0], gate) == 4.0
        np.testing.assert_array_equal(hw.gradient(params, [[1.0]], [3.0], gate)["experts"]["intercept"], [-4.0, 0.0])


# --- the widespread mistake -------------------------------------------------------------------------------------------

X = np.arange(6.0)[:, None]
Y = 2 * X[:, 0] + 1


def start(logits=(0.02, -0.01, 0.03)):
    return {
        "experts": {"weights": np.array([[0.1], [-0.2], [0.05]]), "intercept": np.array([0.0, 0.1, -0.05])},
        "gate": {"logits": np.array(logits)},
    }


def right(params):
    return hw.gradient(params, X, Y, "constant")


def mistaken(params):
    """The logits' gradient with the softmax's (1 - g_k) once too often."""
    slopes = right(params)
    powers = np.exp(params["gate"]["logits"])
    slopes["gate"]["logits"] = slopes["gate"]["logits"] * (1 - powers / powers.sum())
    return slopes


def regression_loss(params):
    return jax_loss(params, X, Y, "constant")


def test_the_mistaken_formula_is_off_by_one_over_one_minus_g():
    even = start()
    ratio = right(even)["gate"]["logits"] / mistaken(even)["gate"]["logits"]
    np.testing.assert_allclose(ratio, 1.5, rtol=0.02)  # three experts of about a third each
    half = start(logits=np.log([0.5, 0.25, 0.25]))
    ratio = right(half)["gate"]["logits"] / mistaken(half)["gate"]["logits"]
    np.testing.assert_allclose(ratio, [2, 4 / 3, 4 / 3])


def test_a_hundred_steps_are_those_of_autodiff_and_not_of_the_mistaken_formula():
    with float64():
        step = jax.jit(lambda params: jax.tree.map(lambda p, s: p - 0.01 * s, params, jax.grad(regression_loss)(params)))
        want = [jax.tree.map(jnp.asarray, start())]
        for _ in range(100):
            want.append(step(want[-1]))
        want = [flat(params) for params in want]
    last, iterates = hw.descend(right, start(), 100, 0.01)
    assert len(iterates) == 101
    assert last is iterates[-1]
    for ours, theirs in zip(iterates, want, strict=True):
        for name, leaf in flat(ours).items():
            np.testing.assert_allclose(leaf, theirs[name], rtol=1e-10, atol=1e-12)
    wrong, _ = hw.descend(mistaken, start(), 100, 0.01)
    assert np.abs(wrong["gate"]["logits"] - last["gate"]["logits"]).max() > 0.05
    assert hw.loss(last, X, Y, "constant") < 0.05 * hw.loss(start(), X, Y, "constant")


def test_descend_leaves_its_start_alone_and_the_untrained_too():
    params, x, y, _ = draw(8, 2, 3, "softmax")
    before = {name: leaf.copy() for name, leaf in flat(params).items()}
    last, iterates = hw.descend(lambda p: hw.gradient(p, x, y, "softmax"), params, 3, 0.1)
    for name, leaf in flat(params).items():
        np.testing.assert_array_equal(leaf, before[name])
        np.testing.assert_array_equal(flat(iterates[0])[name], before[name])
    assert last["gate"]["temperature"] == params["gate"]["temperature"]
    with np.errstate(divide="ignore"):
        fixed = {"experts": start()["experts"], "gate": {"log_proportions": np.log([0.5, 0.5, 0.0])}}
    last, _ = hw.descend(lambda p: hw.gradient(p, X, Y, "fixed"), fixed, 2, 0.01)
    np.testing.assert_array_equal(last["gate"]["log_proportions"], fixed["gate"]["log_proportions"])
    assert hw.descend(right, start(), 0, 0.1)[1][0]["gate"]["logits"].tolist() == start()["gate"]["logits"].tolist()


# --- compare ----------------------------------------------------------------------------------------------------------


def verdicts(comparison):
    return {row.leaf: row.verdict for row in comparison.rows}


def quiet(loss, gradient, params, **options):
    return hw.compare(loss, gradient, params, file=io.StringIO(), **options)


def test_compare_passes_a_right_gradient_and_prints_the_table(capsys):
    result = hw.compare(regression_loss, right, start())
    assert result.agree
    assert set(verdicts(result).values()) == {"agree"}
    assert [(row.leaf, row.shape) for row in result.rows] == [
        ("experts.intercept", (3,)),
        ("experts.weights", (3, 1)),
        ("gate.logits", (3,)),
    ]
    assert max(row.autodiff_relative for row in result.rows) < 1e-13
    assert max(row.differences_relative for row in result.rows) < 1e-7
    assert capsys.readouterr().out == f"{result}\n"
    assert "gate.logits" in str(result)
    assert str(result).endswith("the given gradient agrees with autodiff")


def test_compare_names_the_logits_in_the_widespread_mistake():
    file = io.StringIO()
    result = hw.compare(regression_loss, mistaken, start(), file=file)
    assert not result.agree
    assert [leaf for leaf, verdict in verdicts(result).items() if verdict != "agree"] == ["gate.logits"]
    row = result.rows[-1]
    assert row.verdict == "gradient is off"
    assert row.autodiff_relative == pytest.approx(1 / 3, abs=0.02)  # a third of the gradient is missing
    assert file.getvalue().endswith("off from autodiff: gate.logits\n")


@pytest.mark.parametrize("factor", [-1.0, 2.0, 1 + 4e-6])
@pytest.mark.parametrize("culprit", ["experts.weights", "experts.intercept", "gate.weights", "gate.intercept"])
def test_compare_catches_a_wrong_sign_or_factor(culprit, factor):
    params, x, y, weights = draw(9, 2, 2, "softmax")
    part, key = culprit.split(".")

    def wrong(p):
        slopes = hw.gradient(p, x, y, "softmax", weights=weights)
        slopes[part][key] = factor * slopes[part][key]
        return slopes

    result = quiet(lambda p: jax_loss(p, x, y, "softmax", weights=weights), wrong, params)
    off = {leaf: verdict for leaf, verdict in verdicts(result).items() if leaf != "gate.temperature"}
    assert off.pop(culprit) == "gradient is off"
    assert set(off.values()) == {"agree"}
    assert not result.agree


def test_compare_names_a_straight_through_gate():
    params, x, y, _ = draw(20, 2, 3, "top1")
    result = quiet(lambda p: jax_loss(p, x, y, "top1"), lambda p: hw.gradient(p, x, y, "top1"), params)
    assert result.agree
    kink = "differences are off (a kink, or a straight-through estimator)"
    assert verdicts(result) == {
        "experts.intercept": "agree",
        "experts.weights": "agree",
        "gate.intercept": kink,
        "gate.temperature": "agree",  # the choice does not depend on it, and its gradient is stopped: zero three times
        "gate.weights": kink,
    }

    def flat_gate(p):  # what the hard choice's derivative truly is
        slopes = hw.gradient(p, x, y, "top1")
        return slopes | {"gate": {key: np.zeros_like(leaf) for key, leaf in slopes["gate"].items()}}

    truth = quiet(lambda p: jax_loss(p, x, y, "top1"), flat_gate, params)
    assert not truth.agree
    assert verdicts(truth)["gate.weights"] == "autodiff is off"

    def other(p):
        slopes = hw.gradient(p, x, y, "top1")
        return slopes | {"gate": slopes["gate"] | {"weights": 2 * slopes["gate"]["weights"]}}

    third = quiet(lambda p: jax_loss(p, x, y, "top1"), other, params)
    assert not third.agree
    assert verdicts(third)["gate.weights"] == "all three differ"


def test_compare_sees_a_kink_within_a_step():
    result = quiet(lambda p: jnp.abs(p).sum(), np.sign, np.array([1.0, 1e-7]))
    assert result.agree
    assert verdicts(result) == {"params": "differences are off (a kink, or a straight-through estimator)"}
    # JAX gives |p| the slope 1 at 0, one of its subgradients; central differences give the middle one, 0, as sign does.
    zero = quiet(lambda p: jnp.abs(p).sum(), np.sign, np.array([1.0, 0.0]))
    assert verdicts(zero) == {"params": "autodiff is off"}
    assert zero.rows[0].autodiff_absolute == 1.0


def test_compare_at_a_minimum_and_where_the_loss_is_large():
    # By hand: the gradient of c + |p - m|^2 is 2 (p - m), zero at m, where relative differences mean nothing.
    m = np.array([0.3, -20.0, 1e3])
    for offset in (1e-3, 1e6):
        result = quiet(lambda p, c=offset: c + jnp.sum((p - m) ** 2), lambda p: 2 * (p - m) + 1e-17, m)
        assert verdicts(result) == {"params": "agree"}
    sharp = quiet(lambda p: jnp.tanh(200 * p).sum(), lambda p: 200 / np.cosh(200 * p) ** 2, np.array([0.001, 0.01]))
    assert sharp.agree
    assert sharp.rows[0].differences_relative < 1e-9  # without extrapolation it would be 1e-6


def test_compare_is_float64_under_either_default_and_changes_none():
    before = jnp.ones(1).dtype
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), start())
    seen = []

    def watched(p):
        seen.extend(leaf.dtype for leaf in jax.tree.leaves(p))
        return right(p)

    for inside in (contextlib.nullcontext(), float64()):
        with inside:
            default = jnp.ones(1).dtype
            result = quiet(regression_loss, watched, params)
            assert jnp.ones(1).dtype == default
        assert result.agree
        assert max(row.autodiff_relative for row in result.rows) < 1e-13
    assert jnp.ones(1).dtype == before
    assert set(seen) == {np.dtype(np.float64)}
    assert quiet(regression_loss, jax.jit(jax.grad(regression_loss)), params).rows[0].autodiff_relative < 1e-13


def test_compare_takes_trees_numbers_and_losses_that_branch():
    def branching(p):  # compiled, this would be an error
        return p[0] ** 2 * p[1]["a"] if p[0] > 0 else p[1]["a"]

    result = quiet(branching, lambda p: (2 * p[0] * p[1]["a"], {"a": p[0] ** 2}), (3, {"a": 0.5}))
    assert verdicts(result) == {"0": "agree", "1.a": "agree"}

    def in_place(p):
        p *= 2
        return p

    assert quiet(lambda p: (p**2).sum(), in_place, np.array([1.0, 2.0])).agree


# --- what is refused --------------------------------------------------------------------------------------------------


def square(p):
    return jnp.sum(p["a"] ** 2) + p["b"] ** 2


def twice(p):
    return {"a": 2 * p["a"], "b": 2 * p["b"]}


POINT = {"a": np.array([1.0, 2.0]), "b": 3.0}


@jax.custom_jvp
def bad_derivative(p):
    return p


bad_derivative.defjvps(lambda tangent, _, p: tangent * jnp.nan)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"gradient": lambda p: {"a": 2 * p["a"]}},
            "^gradient: leaf b was not given; want the leaves of params, a, b$",
        ),
        ({"gradient": lambda p: twice(p) | {"c": 1.0}}, "^gradient: leaf c was given; want only the leaves of params"),
        ({"gradient": lambda p: twice(p) | {"b": None}}, "^gradient: leaf b was not given"),
        (
            {"gradient": lambda p: twice(p) | {"a": np.ones(3)}},
            r"^gradient: leaf a: shape \(3,\) was given; want \(2,\)",
        ),
        (
            {"gradient": lambda p: (2.0,), "loss": lambda p: p[0] ** 2, "params": [1.0]},
            "^gradient: structure .* was given; want that of params",
        ),
        ({"gradient": lambda p: twice(p) | {"b": np.nan}}, "^gradient: leaf b: 1 of 1 values are NaN or infinite"),
        ({"gradient": lambda p: twice(p) | {"b": "six"}}, "^gradient: leaf b of type .* was given; want real numbers"),
        ({"loss": lambda p: p["a"]}, r"^loss: shape \(2,\) was given; want \(\), a scalar"),
        ({"loss": lambda p: square(p) + jnp.inf}, "^loss: 1 of 1 values are NaN or infinite"),
        ({"loss": lambda p: square(p).astype(jnp.float32)}, "^loss: float32 was returned for float64 params"),
        ({"loss": lambda p: square(p) + bad_derivative(p["b"])}, "^loss: autodiff in b: 1 of 1 values are NaN"),
        (
            {"loss": lambda p: square(p) + 0 * jnp.log(p["b"] - 3 + 1e-9)},
            "^loss: central differences in b: 1 of 1 values are NaN",
        ),
        ({"params": POINT | {"b": np.inf}}, "^params: leaf b: 1 of 1 values are NaN or infinite"),
        ({"params": POINT | {"b": True}}, "^params: leaf b of type bool was given; want real numbers"),
        ({"params": POINT | {"b": 1j}}, "^params: leaf b of type complex128 was given"),
        ({"params": {}}, "^params: a tree without leaves was given"),
        ({"rtol": 0.0}, "^rtol: 0.0 was given; want numbers above 0"),
    ],
)
def test_compare_refuses(changed, message):
    arguments = {"loss": square, "gradient": twice, "params": POINT} | changed
    with pytest.raises(ValueError, match=message):
        quiet(**arguments)


def test_compare_refuses_a_loss_that_jax_cannot_see_through():
    for loss in (lambda p: np.sum(np.asarray(p["gate"]["logits"])), lambda p: hw.loss(p, X, Y, "constant")):
        with pytest.raises(TypeError, match=r"^loss: JAX cannot trace it"):
            quiet(loss, right, start())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gate": "hard"}, r"^gate: 'hard' was given; want one of \['fixed', 'constant', 'softmax', 'top1'\]"),
        ({"gate": "softmax"}, r"^params\['gate'\]: keys \['logits'\] were given; want .*for gate 'softmax'"),
        ({"params": [1.0]}, "^params: list was given; want a dict with keys"),
        ({"params": start() | {"scale": 1.0}}, "^params: keys .*'scale'.* were given"),
        (
            {"params": start() | {"gate": {"logits": np.zeros(2)}}},
            r"^params\['gate'\]\['logits'\]: shape \(2,\) was given; want \(3,\), for 3 experts",
        ),
        (
            {"params": start() | {"gate": {"logits": [0.0, np.nan, 0.0]}}},
            r"^params\['gate'\]\['logits'\]: 1 of 3 values are NaN",
        ),
        ({"x": np.ones((6, 2))}, r"^params\['experts'\]\['weights'\]: shape \(3, 1\) was given; want \(any, 2\)"),
        ({"x": np.ones(6)}, r"^x: shape \(6,\) was given"),
        ({"x": X * np.nan}, "^x: 6 of 6 values are NaN"),
        ({"x": np.ones((0, 1)), "y": np.ones(0)}, "^rows of x: 0 was given"),
        ({"y": np.ones(5)}, r"^y: shape \(5,\) was given; want \(6,\)"),
        ({"y": Y[:, None]}, r"^y: shape \(6, 1\) was given"),
        ({"weights": np.ones(5)}, r"^weights: shape \(5,\) was given"),
        ({"weights": -np.ones(6)}, "^weights: -1.0 was given; want no number below 0"),
        ({"weights": np.zeros(6)}, "^sum of weights: 0.0 was given"),
        ({"l1_gate": -0.1}, "^l1_gate: -0.1 was given"),
        ({"l2_experts": np.ones(2)}, r"^l2_experts: shape \(2,\) was given; want \(\)"),
    ],
)
@pytest.mark.parametrize("function", [hw.loss, hw.gradient])
def test_loss_and_gradient_refuse(function, changed, message):
    arguments = {"params": start(), "x": X, "y": Y, "gate": "constant"} | changed
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_gates_refuse_values_without_meaning():
    params, x, y, _ = draw(4, 1, 2, "softmax", temperature=0.0)
    with pytest.raises(ValueError, match=r"^params\['gate'\]\['temperature'\]: 0.0 was given"):
        hw.loss(params, x, y, "softmax")
    params["gate"] = {"log_proportions": np.zeros(2)}
    with pytest.raises(ValueError, match=r"^params\['gate'\]\['log_proportions'\]: proportions that sum to 2.0"):
        hw.loss(params, x, y, "fixed")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": -1}, "^steps: -1 was given"),
        ({"rate": 0.0}, "^rate: 0.0 was given"),
        ({"gradient": lambda p: {"experts": p["experts"]}}, r"^gradient: keys \['experts'\] were given"),
        (
            {"gradient": lambda p: p | {"gate": {"logits": np.ones(2)}}},
            r"^gradient\['gate'\]\['logits'\]: shape \(2,\)",
        ),
        ({"gradient": lambda p: p, "rate": 1e200}, "^rate: 1e.200 made the parameters NaN or infinite at step 2"),
        ({"params": {"a": "one"}}, r"^params\['a'\]: .*'one'.* was given; want real numbers"),
    ],
)
def test_descend_refuses(changed, message):
    arguments = {"gradient": right, "params": start(), "steps": 3, "rate": 0.1} | changed
    with pytest.raises(ValueError, match=message):
        hw.descend(**arguments)
