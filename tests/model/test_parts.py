"""Experts, gates, families, penalties and the model they make, against formulas written here in NumPy."""

from __future__ import annotations

import copy
import pickle
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moejax
from moejax import experts, families, gates, penalties
from moejax.fit import degrees_of_freedom
from moejax.model import Data, leaders

pytestmark = pytest.mark.usefixtures("float64")

N, D, K = 17, 4, 3
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.random.default_rng(1).normal(size=N)
PROPORTIONS = (0.5, 0.2, 0.3)


def one_init(key, x):
    return {"weights": jax.random.normal(key, (x.shape[1],), x.dtype), "intercept": jnp.zeros((), x.dtype)}


def one_apply(params, x):
    return x @ params["weights"] + params["intercept"]


def weights_alone(params):
    return {name: name == "weights" for name in params}


def logits_init(key, n_experts, x):
    return {"weights": jax.random.normal(key, (n_experts, x.shape[1]), x.dtype), "intercept": jnp.zeros(n_experts, x.dtype)}


def logits(params, x):
    return x @ params["weights"].T + params["intercept"]


EXPERTS = {
    "linear": experts.linear(),
    "one output": experts.linear(1),
    "three outputs": experts.linear(3),
    "stack": experts.stack(one_init, one_apply, penalized=weights_alone),
}
GATES = {
    "fixed": gates.fixed(),
    "given": gates.fixed(PROPORTIONS),
    "constant": gates.constant(),
    "softmax": gates.softmax(),
    "cold": gates.softmax(temperature=0.3),
    "reference": gates.softmax(reference=True),
    "top1": gates.top1(),
    "top1 reference": gates.top1(reference=True, temperature=2.0),
    "custom": gates.custom(logits_init, logits, penalized=weights_alone),
    "tree": gates.hierarchical(((0, 2), 1)),
}
every_gate = pytest.mark.parametrize("gate", GATES)
every_expert = pytest.mark.parametrize("expert", EXPERTS)


def filled(model, seed=3, x=X):
    """Params whose trained leaves are all drawn, intercepts and logits too."""
    rng = np.random.default_rng(seed)
    params = model.init(jax.random.key(seed), x)
    mask = model.trainable(params)
    return jax.tree.map(lambda leaf, m: jnp.asarray(rng.normal(size=leaf.shape)) if m else leaf, params, mask)


def softmax(z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def probs_by_hand(gate, params, x=X):
    """P(expert | x), (n, K), in NumPy."""
    g = jax.tree.map(np.asarray, params["gate"])
    if gate in ("fixed", "given"):
        return np.tile(PROPORTIONS if gate == "given" else (1 / K,) * K, (len(x), 1))
    if gate == "constant":
        return np.tile(softmax(g["logits"]), (len(x), 1))
    if gate == "tree":  # its branches are a split and expert 2, and then experts 1 and 3
        z = x @ g["weights"].T + g["intercept"]
        first, second = softmax(z[:, :2]), softmax(z[:, 2:])
        return np.stack([first[:, 0] * second[:, 0], first[:, 1], first[:, 0] * second[:, 1]], axis=1)
    z = (x @ g["weights"].T + g["intercept"]) / {"cold": 0.3, "top1 reference": 2.0}.get(gate, 1.0)
    return softmax(np.hstack([z, np.zeros((len(x), 1))]) if "reference" in gate else z)


def predictions_by_hand(params, x=X):
    """Each expert's prediction, (n, K) or (n, K, m), in NumPy."""
    e = jax.tree.map(np.asarray, params["experts"])
    return np.moveaxis(np.tensordot(x, e["weights"], (1, 1)), 1, 1) + e["intercept"]


def weighted(probs, predictions):
    return np.einsum("nk,nk...->n...", probs, predictions)


# ---- the model, every gate by every expert -----------------------------------------------------------------------


@every_gate
@every_expert
def test_predictions_are_the_formulas(expert, gate):
    model = moejax.moe(EXPERTS[expert], GATES[gate], K)
    params = filled(model)
    probs, predictions = probs_by_hand(gate, params), predictions_by_hand(params)
    outputs = {"one output": (1,), "three outputs": (3,)}.get(expert, ())
    assert model.expert_predictions(params, X).shape == (N, K, *outputs)
    np.testing.assert_allclose(model.expert_predictions(params, X), predictions, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.gate_probs(params, X), probs, rtol=1e-12)
    used = np.eye(K)[probs.argmax(axis=1)] if "top1" in gate else probs
    want = weighted(used, predictions)
    assert model.predict(params, X).shape == want.shape == (N, *outputs)
    np.testing.assert_allclose(model.predict(params, X), want, rtol=1e-12, atol=1e-12)
    inputs = model.prepare(X)
    assert model.means(params, inputs).shape == (K, N, *outputs)
    assert model.log_gate(params, inputs).shape == model.gate_weights(params, inputs).shape == (K, N)
    offset = np.random.default_rng(2).normal(size=want.shape)
    np.testing.assert_allclose(model.predict(params, X, offset), want + offset, rtol=1e-12, atol=1e-12)


@every_gate
@pytest.mark.parametrize("scale", [1.0, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gates_stay_finite_for_huge_logits(gate, scale, dtype):
    model = moejax.moe(experts.linear(), GATES[gate], K)
    params, mask = filled(model), model.trainable(filled(model))
    params["gate"] = jax.tree.map(lambda leaf, m: scale * leaf if m else leaf, params["gate"], mask["gate"])
    params, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, X))
    log_probs = model.log_gate(params, model.prepare(x))
    assert np.isfinite(log_probs).all()
    total = np.exp(np.asarray(log_probs, float)).sum(axis=0)
    np.testing.assert_allclose(total, 1, rtol=1e-5 if dtype == "float32" else 1e-12)
    slopes = jax.grad(lambda p: model.predict(p, x).sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), temperature=st.floats(0.05, 20.0), gate=st.sampled_from([gates.softmax, gates.top1]))
def test_temperature_divides_the_coefficients(seed, temperature, gate):
    model = moejax.moe(experts.linear(), gate(temperature=temperature), K)
    params = filled(model, seed)
    assert params["gate"]["temperature"] == temperature
    divided = {**params["gate"], "temperature": 1.0}
    divided |= {name: params["gate"][name] / temperature for name in ("weights", "intercept")}
    for method in (model.gate_probs, model.predict):
        np.testing.assert_allclose(method(params, X), method(params | {"gate": divided}, X), rtol=1e-10)


@pytest.mark.parametrize("gate", [gates.softmax, gates.top1])
def test_the_reference_form_is_the_symmetric_one_less_its_last_logits(gate):
    symmetric, reference = (moejax.moe(experts.linear(), gate(reference=r), K) for r in (False, True))
    params = filled(symmetric)
    less = {name: params["gate"][name][:-1] - params["gate"][name][-1] for name in ("weights", "intercept")}
    smaller = params | {"gate": params["gate"] | less}
    assert jax.tree.map(np.shape, smaller) == jax.tree.map(np.shape, reference.init(jax.random.key(0), X))
    for method in ("gate_probs", "predict"):
        np.testing.assert_allclose(getattr(reference, method)(smaller, X), getattr(symmetric, method)(params, X), rtol=1e-10)


def test_fixed_proportions_may_be_zero_and_stay_finite_in_log_space():
    model = moejax.moe(experts.linear(), gates.fixed([0, 1, 0]), K)
    params = filled(model)
    assert np.isfinite(model.log_gate(params, model.prepare(X))).all()
    np.testing.assert_allclose(model.predict(params, X), predictions_by_hand(params)[:, 1], rtol=1e-12)


def test_top1_sees_one_expert_alone():
    model = moejax.moe(experts.linear(), gates.top1(), K, family=families.gaussian())
    params = filled(model)
    chosen = probs_by_hand("top1", params).argmax(axis=1)
    assert len(set(chosen)) > 1
    weights = np.asarray(model.gate_weights(params, model.prepare(X)))
    np.testing.assert_array_equal(weights, np.eye(K)[chosen].T)
    other = 1e6 * (np.arange(K) != chosen[0])  # wreck all experts but that of row 0
    wrecked = params | {"experts": params["experts"] | {"intercept": params["experts"]["intercept"] + other}}
    np.testing.assert_array_equal(model.predict(wrecked, X)[0], model.predict(params, X)[0])
    slopes = jax.jacobian(lambda p: model.predict(p, X))(params)["experts"]["intercept"]
    np.testing.assert_allclose(slopes, np.eye(K)[chosen], atol=1e-12)


def test_a_custom_gate_with_linear_logits_is_softmax_and_so_is_its_gradient():
    builtin, custom = (moejax.moe(experts.linear(), gate, K) for gate in (gates.softmax(), GATES["custom"]))
    params = filled(builtin)
    bare = params | {"gate": {name: params["gate"][name] for name in ("weights", "intercept")}}

    def loss(model):
        return jax.grad(lambda p: jnp.square(model.predict(p, X) - Y).mean())

    want, got = loss(builtin)(params), loss(custom)(bare)
    for part, name in [(p, n) for p in ("experts", "gate") for n in ("weights", "intercept")]:
        np.testing.assert_allclose(got[part][name], want[part][name], rtol=1e-10, atol=1e-14)
    again = gates.custom(logits_init, logits, penalized=weights_alone)
    assert again == GATES["custom"]
    assert hash(again) == hash(GATES["custom"])
    assert gates.custom(logits_init, logits) != GATES["custom"]


@every_gate
@every_expert
def test_initial_params(expert, gate):
    model = moejax.moe(EXPERTS[expert], GATES[gate], K, family=families.gaussian())
    first, again, other = (model.init(jax.random.key(seed), X) for seed in (0, 0, 1))
    assert set(first) == {"experts", "gate", "family"}
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["experts"]["weights"], other["experts"]["weights"])
    assert len(np.unique(np.asarray(first["experts"]["weights"]))) == first["experts"]["weights"].size  # experts differ
    assert not np.any(first["experts"]["intercept"])
    outputs = {"one output": (1,), "three outputs": (3,)}.get(expert, ())
    np.testing.assert_array_equal(first["family"]["log_scale"], np.zeros((K, *outputs)))


@pytest.mark.parametrize("part", ["experts", "gate"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_initial_predictors_of_standardised_inputs_have_the_standard_deviation_asked_for(part, scale):
    model = moejax.moe(experts.linear(init_scale=scale), gates.softmax(init_scale=scale), 2000)
    weights = np.asarray(model.init(jax.random.key(0), X)[part]["weights"])
    squares = np.square(weights).sum(axis=1)  # the variance of x . w over standardised, uncorrelated x
    assert squares.mean() == pytest.approx(scale**2, rel=4 * np.sqrt(2 / (D * 2000)))


# ---- parts of somebody's own -------------------------------------------------------------------------------------


class OwnExpert(NamedTuple):
    factor: float = 2.0

    def init(self, key, n_experts, x):
        return {"weights": jax.random.normal(key, (n_experts, x.shape[1]), x.dtype)}

    def apply(self, params, x):
        return self.factor * params["weights"] @ x.T


class OtherExpert(OwnExpert):
    def apply(self, params, x):
        return -params["weights"] @ x.T


def test_named_tuples_of_two_types_are_two_parts():
    assert OwnExpert() == OtherExpert()  # so Python says, and a compiled program of one must not serve the other
    own, again, other = (moejax.moe(part, gates.constant(), K) for part in (OwnExpert(), OwnExpert(), OtherExpert()))
    assert own == again
    assert hash(own) == hash(again)
    assert own != other


def test_records_without_a_hash_are_told_apart_by_identity():
    record = types.SimpleNamespace(init=OwnExpert().init, apply=OwnExpert().apply)
    twin = types.SimpleNamespace(init=OwnExpert().init, apply=OwnExpert().apply)
    first, again, second = (moejax.moe(part, gates.constant(), K) for part in (record, record, twin))
    assert first == again
    assert hash(first) == hash(again)
    assert first != second
    assert copy.deepcopy(first).n_experts == K


def test_models_can_be_pickled():
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian(), gate_columns=[1])
    assert pickle.loads(pickle.dumps(model)) == model
    own = moejax.moe(OwnExpert(), gates.softmax(), K)
    assert pickle.loads(pickle.dumps(own)) == own


@pytest.mark.parametrize("library", ["linen", "nnx"])
def test_a_flax_module_is_an_expert(library):
    if library == "linen":
        layer = pytest.importorskip("flax.linen").Dense(1)
        expert = experts.stack(
            layer.init,
            lambda params, x: layer.apply(params, x)[:, 0],
            penalized=lambda params: {"params": {"kernel": True, "bias": False}},
        )
    else:
        nnx = pytest.importorskip("flax.nnx")
        graph = nnx.graphdef(nnx.eval_shape(lambda: nnx.Linear(D, 1, rngs=nnx.Rngs(0))))
        expert = experts.stack(
            lambda key, x: nnx.to_pure_dict(nnx.state(nnx.Linear(D, 1, param_dtype=x.dtype, rngs=nnx.Rngs(params=key)))),
            lambda params, x: nnx.merge(graph, nnx.State(params))(x)[:, 0],
            penalized=lambda params: {"kernel": True, "bias": False},
        )
    model = moejax.moe(expert, gates.constant(), K)
    params = filled(model)
    layers = params["experts"]["params"] if library == "linen" else params["experts"]
    want = np.einsum("nd,kd->nk", X, layers["kernel"][..., 0]) + layers["bias"][:, 0]
    np.testing.assert_allclose(model.expert_predictions(params, X), want, rtol=1e-5)
    marked = model.penalized(params)["experts"]
    assert (marked["params"] if library == "linen" else marked) == {"kernel": True, "bias": False}


# ---- columns, and inputs that are trees ---------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["softmax", "top1", "constant"])
@pytest.mark.parametrize(("expert_columns", "gate_columns"), [([2, 0], None), (None, (3,)), ([1, 2], np.array([3, 0]))])
def test_parts_see_their_columns_alone(gate, expert_columns, gate_columns):
    model = moejax.moe(experts.linear(), GATES[gate], K, expert_columns=expert_columns, gate_columns=gate_columns)
    params = filled(model)
    e, g = (slice(None) if c is None else list(c) for c in (expert_columns, gate_columns))
    assert params["experts"]["weights"].shape == (K, X[:, e].shape[1])
    np.testing.assert_allclose(model.expert_predictions(params, X), predictions_by_hand(params, X[:, e]), rtol=1e-12)
    np.testing.assert_allclose(model.gate_probs(params, X), probs_by_hand(gate, params, X[:, g]), rtol=1e-12)
    seen = set(range(D)[e] if isinstance(e, slice) else e) | set(range(D)[g] if isinstance(g, slice) else g)
    changed = X + 100 * ~np.isin(np.arange(D), list(seen))
    np.testing.assert_array_equal(model.predict(params, changed), model.predict(params, X))


def test_inputs_may_be_trees():
    expert = experts.stack(lambda key, x: one_init(key, x["left"]), lambda params, x: one_apply(params, x["left"]))
    gate = gates.custom(lambda key, k, x: logits_init(key, k, x["right"]), lambda params, x: logits(params, x["right"]))
    tree, model = {"left": X[:, :3], "right": X[:, 3:]}, moejax.moe(expert, gate, K)
    params = filled(model, x=tree)
    probs, predictions = probs_by_hand("custom", params, X[:, 3:]), predictions_by_hand(params, X[:, :3])
    np.testing.assert_allclose(model.predict(params, tree), weighted(probs, predictions), rtol=1e-12)
    constant = moejax.moe(expert, gates.constant(), K)
    assert constant.gate_probs(filled(constant, x=tree), tree).shape == (N, K)


# ---- families -----------------------------------------------------------------------------------------------------


def normal(y, mean, scale):
    return np.exp(-0.5 * ((y - mean) / scale) ** 2) / (scale * np.sqrt(2 * np.pi))


def scales_by_hand(log_scale, floor=0.05):
    variance = np.exp(2 * np.asarray(log_scale))
    return np.sqrt(np.maximum(variance, floor * variance.max(axis=0)))


SPREADS = [np.array([0.1, -0.3, 0.4]), np.array([0.1, -9.0, -2.0])]  # in the second two are below the floor


@pytest.mark.parametrize("gate", ["given", "softmax", "top1"])
@pytest.mark.parametrize("log_scale", SPREADS)
def test_densities_and_responsibilities_are_those_of_bayes(gate, log_scale):
    model = moejax.moe(experts.linear(), GATES[gate], K, family=families.gaussian(variance_floor=0.05))
    params = filled(model) | {"family": {"log_scale": jnp.asarray(log_scale)}}
    joint = probs_by_hand(gate, params) * normal(Y[:, None], predictions_by_hand(params), scales_by_hand(log_scale))
    np.testing.assert_allclose(model.log_prob(params, X, Y), np.log(joint.sum(axis=1)), rtol=1e-10)
    want = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.responsibilities(params, X, Y), want, rtol=1e-9, atol=1e-300)
    shift = np.linspace(-1, 1, N)
    np.testing.assert_allclose(model.log_prob(params, X, Y + shift, shift), np.log(joint.sum(axis=1)), rtol=1e-10)
    target = families.target_of(jnp.asarray(Y), jnp.full(N, 1 / N))
    assert bool(model.family.at_floor(params["family"], target)) is bool(log_scale.min() < -1.6)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("floor", [0.05, 0.5])
def test_gaussian_densities(shared, outputs, floor):
    rng, tail = np.random.default_rng(0), () if outputs is None else (outputs,)
    family = families.gaussian(shared_scale=shared, variance_floor=floor)
    eta, y = rng.normal(size=(K, N, *tail)), rng.normal(size=(N, *tail))
    phi = family.init(K, jax.eval_shape(lambda: jnp.asarray(eta)))
    assert phi["log_scale"].shape == (tail if shared else (K, *tail))
    phi = {"log_scale": jnp.asarray(rng.normal(size=phi["log_scale"].shape))}
    scales = np.exp(phi["log_scale"]) if shared else scales_by_hand(phi["log_scale"], floor)
    each = np.log(normal(y, eta, scales if shared else scales[:, None]))
    np.testing.assert_allclose(family.log_prob(y, eta, phi), each.sum(axis=2) if outputs else each, rtol=1e-10)
    np.testing.assert_array_equal(family.mean(eta), eta)
    if shared:
        assert not family.at_floor(phi, families.target_of(jnp.asarray(y), jnp.full(N, 1 / N)))


@pytest.mark.parametrize("log_scale", SPREADS)
def test_the_mixture_density_integrates_to_one_and_has_the_predicted_mean(log_scale):
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    params = filled(model) | {"family": {"log_scale": jnp.asarray(log_scale)}}
    grid, step = np.linspace(-40, 40, 40_001, retstep=True)
    for row in X[:3]:
        density = np.exp(model.log_prob(params, np.tile(row, (len(grid), 1)), grid))
        assert density.sum() * step == pytest.approx(1, abs=1e-8)
        assert (grid * density).sum() * step == pytest.approx(float(model.predict(params, row[None])[0]), abs=1e-7)


@pytest.mark.parametrize("outputs", [None, 2])
@pytest.mark.parametrize("shared", [False, True])
def test_draws_have_the_moments_of_the_mixture(outputs, shared):
    model = moejax.moe(experts.linear(outputs), gates.softmax(), K, family=families.gaussian(shared_scale=shared))
    params, rows = filled(model), 20_000
    draws = np.asarray(model.sample(jax.random.key(5), params, np.tile(X[0], (rows, 1))))
    assert draws.shape == (rows, *(() if outputs is None else (outputs,)))
    log_scale = params["family"]["log_scale"]
    scales = np.exp(log_scale) if shared else scales_by_hand(log_scale)
    probs, means = probs_by_hand("softmax", params)[0], predictions_by_hand(params)[0]
    mean = np.tensordot(probs, means, 1)
    variance = np.tensordot(probs, means**2 + scales**2, 1) - mean**2
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mean), 4 * np.sqrt(variance / rows))
    fourth = ((draws - mean) ** 4).mean(axis=0)
    np.testing.assert_array_less(np.abs(draws.var(axis=0) - variance), 4 * np.sqrt((fourth - variance**2) / rows))
    again = model.sample(jax.random.key(5), params, np.tile(X[0], (rows, 1)))
    np.testing.assert_array_equal(draws, again)


def test_a_model_without_a_family_has_no_likelihood():
    model = moejax.moe(experts.linear(), gates.constant(), K)
    params = filled(model)
    for method in (model.log_prob, model.responsibilities):
        with pytest.raises(ValueError, match="family"):
            method(params, X, Y)
    with pytest.raises(ValueError, match="family"):
        model.sample(jax.random.key(0), params, X)


@pytest.mark.parametrize("y", [Y[:, None], Y[:1], Y[:-1], np.float64(0)])
@pytest.mark.parametrize("k", [1, K])
def test_targets_that_would_broadcast_are_refused(y, k):
    model = moejax.moe(experts.linear(), gates.constant(), k, family=families.gaussian())
    for method in (model.log_prob, model.responsibilities):
        with pytest.raises(ValueError, match=r"^y: shape"):
            method(filled(model), X, y)


# ---- penalties ------------------------------------------------------------------------------------------------------


def l1_then_l2(coefficients, t):
    return penalties.l2("gate").prox(penalties.l1("gate").prox(coefficients, t), 0.7 * t)


PROXES = {
    "l1": (penalties.l1("experts").prox, lambda v, t: t * np.abs(v)),
    "l2": (penalties.l2("experts").prox, lambda v, t: t * v**2),
    "l1 then l2": (l1_then_l2, lambda v, t: t * np.abs(v) + 0.7 * t * v**2),
}
number = st.floats(-10, 10, allow_subnormal=False)


@pytest.mark.parametrize("name", PROXES)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(values=st.lists(number, min_size=1, max_size=4), t=st.floats(0, 5))
def test_proximal_steps_are_the_arg_min(name, values, t):
    prox, value = PROXES[name]
    c = np.array(values)
    got = np.asarray(prox([jnp.asarray(c)], t)[0])

    def objective(v):
        return value(v, t) + (v - c) ** 2 / 2

    grid = np.linspace(-11, 11, 4401)[:, None]  # coefficient by coefficient: the problem is separable
    assert (objective(got) <= objective(grid).min(axis=0) + 1e-12).all()
    assert (np.abs(got - grid[objective(grid).argmin(axis=0), 0]) <= 0.005 + 1e-9).all()


def test_l1_prox_gives_exact_zeros():
    got = penalties.l1("experts").prox([jnp.array([0.3, -0.3, 0.5, -2.0, 0.0])], 0.3)[0]
    np.testing.assert_allclose(got, [0, 0, 0.2, -1.7, 0], rtol=1e-12)
    assert (np.asarray(got) == 0).tolist() == [True, True, False, False, True]


def test_values_are_sums_and_l1_is_flat_at_zero():
    tree = [np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([-0.5])]
    leaves = [jnp.asarray(leaf) for leaf in tree]
    assert penalties.l1("gate").value(leaves) == 6.5
    assert penalties.l2("gate").value(leaves) == 14.25
    for penalty, slope in ((penalties.l1("gate"), np.sign), (penalties.l2("gate"), lambda v: 2 * v)):
        for got, leaf in zip(jax.grad(penalty.value)(leaves), tree, strict=True):
            np.testing.assert_array_equal(got, slope(leaf))
        assert penalty.value([]) == 0
    names = ["l1_experts", "group_experts", "l2_experts", "l1_gate", "group_gate", "l2_gate"]
    assert [p.name for p in penalties.standard()] == names


WEIGHTS = {"l1_experts": 0.3, "l2_experts": 0.7, "l1_gate": 0.11, "l2_gate": 0.05}


@every_gate
@every_expert
def test_penalties_see_coefficients_and_nothing_else(expert, gate):
    model = moejax.moe(EXPERTS[expert], GATES[gate], K, family=families.gaussian())
    params = filled(model)
    fit = moejax.fit_gradient(model)
    shape = model.predict(params, X).shape
    data, weights = Data(model.prepare(X), jnp.zeros(shape)), jnp.full(N, 1 / N)
    plain = fit.objective(params, data, weights, {})
    w, v = params["experts"]["weights"], params["gate"].get("weights", np.zeros(0))
    sums = {
        "l1_experts": np.abs(w).sum(),
        "l2_experts": np.square(w).sum(),
        "l1_gate": np.abs(v).sum(),
        "l2_gate": np.square(v).sum(),
    }
    for name, value in WEIGHTS.items():
        got = fit.objective(params, data, weights, {name: value}) - plain
        assert float(got) == pytest.approx(value * sums[name], rel=1e-9, abs=1e-11)
    all_four = fit.objective(params, data, weights, WEIGHTS) - plain
    assert float(all_four) == pytest.approx(sum(WEIGHTS[name] * sums[name] for name in WEIGHTS), rel=1e-9)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (lambda k=k: moejax.moe(experts.linear(), gates.softmax(), k), "^n_experts: ")
            for k in (0, -1, 1.5, 2.0, np.nan, True, "2")
        ),
        (lambda: moejax.moe(gates.softmax(), gates.softmax(), 2), "^expert: .*no function apply"),
        (lambda: moejax.moe(None, gates.softmax(), 2), "^expert: .*no function init and no apply"),
        (lambda: moejax.moe(experts.linear(), experts.linear(), 2), "^gate: .*no function log_probs"),
        (lambda: moejax.moe(experts.linear(), types.SimpleNamespace(init=1, log_probs=2), 2), "^gate: .*no function init"),
        (lambda: moejax.moe(experts.linear(), gates.softmax(), 2, family="gaussian"), "^family: 'gaussian' has no function"),
        *(
            (lambda c=c: moejax.moe(experts.linear(), gates.softmax(), 2, expert_columns=c), "^expert_columns: ")
            for c in ([], [-1], [0, 0], [0.5], [True, False], 1, ["a", "a"])
        ),
        (lambda: moejax.moe(experts.linear(), gates.softmax(), 2, gate_columns=[2, -3]), "^gate_columns: "),
        (lambda: gates.fixed([0.5, -0.5, 1.0]), "^proportions: -0.5"),
        (lambda: gates.fixed([0.5, 0.4]), "^proportions: they sum to 0.9"),
        (lambda: gates.fixed([0.5, np.nan]), "^proportions: 1 of 2 values are NaN"),
        (lambda: gates.fixed(0.5), r"^proportions: shape \(\) was given"),
        (
            lambda: moejax.moe(experts.linear(), gates.fixed([0.5, 0.5]), 3).init(jax.random.key(0), X),
            "^proportions: 2 were given",
        ),
        *(
            (lambda g=g, t=t: g(temperature=t), "^temperature: ")
            for g in (gates.softmax, gates.top1)
            for t in (0, -1, np.inf)
        ),
        *((lambda g=g: g(init_scale=-1.0), "^init_scale: -1.0") for g in (gates.softmax, gates.top1, experts.linear)),
        *((lambda m=m: experts.linear(m), "^outputs: ") for m in (0, -1, 1.5, True)),
        *((lambda f=f: families.gaussian(variance_floor=f), "^variance_floor: ") for f in (-0.1, 1.1, np.nan)),
        *((lambda p=p: p("family"), "^part: 'family' was given") for p in (penalties.l1, penalties.l2)),
    ],
)
def test_parts_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- fewer experts than the model has --------------------------------------------------------------------------------


def test_absent_experts_leave_a_shared_dispersion_alone():
    outputs = K  # as many as experts, so that shapes alone cannot tell one from the other
    model = moejax.moe(experts.linear(outputs), gates.constant(), K, family=families.gaussian(shared_scale=True))
    params = model.with_hyper(model.init(jax.random.key(0), X), {"n_experts": 1})
    params["family"] = {"log_scale": jnp.arange(float(outputs))}
    np.testing.assert_array_equal(model.phi(params)["log_scale"], np.arange(float(outputs)))
    own = moejax.moe(experts.linear(), gates.constant(), K, family=families.gaussian())
    params = own.with_hyper(own.init(jax.random.key(0), X), {"n_experts": K - 1})
    params["family"] = {"log_scale": jnp.arange(float(K))}
    assert own.phi(params)["log_scale"][-1] == 0


@pytest.mark.parametrize("reference", [False, True])
def test_degrees_of_freedom_of_fewer_experts_are_those_of_a_smaller_model(reference):
    def count(n_experts, hyper):
        family = families.gaussian()
        model = moejax.moe(experts.linear(), gates.softmax(reference=reference), n_experts, family=family)
        return int(degrees_of_freedom(model, model.with_hyper(model.init(jax.random.key(0), X), hyper)))

    d = X.shape[1]
    assert count(K, {"n_experts": K - 1}) == count(K - 1, {}) == (K - 1) * (d + 2) + (K - 2) * (d + 1)


def test_groups_are_found_whatever_their_labels_traced_or_not():
    draw = np.random.default_rng(0)
    for n in (1, 7, 60):
        labels = draw.integers(-5, 3 * n, size=n)
        wanted = [int(np.flatnonzero(labels == label)[0]) for label in labels]
        for found in (leaders(labels), jax.jit(leaders)(labels), jax.vmap(leaders)(labels[None])[0]):
            assert np.asarray(found).tolist() == wanted
