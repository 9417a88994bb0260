"""Sparse routing: top-k gates, noise, balance and usage, against NumPy, finite differences and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import moejax
from moejax import experts, families, gates, losses
from moejax.model import Data

pytestmark = pytest.mark.usefixtures("float64")

N, D, K = 50, 3, 4
KEY = jax.random.key(5)
RNG = np.random.default_rng(2)
X = RNG.normal(size=(N, D))
Y = np.where(X[:, 0] > 0, 2 * X[:, 1], 1 - X[:, 2]) + 0.3 * RNG.normal(size=N)
CASES = RNG.integers(0, 3, N) / 50.0
CASES = CASES / CASES.sum()


def model_of(gate, family=None, expert=None):
    return moejax.moe(expert or experts.linear(), gate, K, family=family)


def filled(model, seed=3):
    rng = np.random.default_rng(seed)
    params = model.init(jax.random.key(seed), X)
    return jax.tree.map(
        lambda leaf, m: rng.normal(size=leaf.shape) if m else np.asarray(leaf), params, model.trainable(params)
    )


def shares_by_hand(logits, k):
    """Softmax over the k largest of each row, row by row: (n, K)."""
    shares = np.zeros(logits.shape)
    for row, own in zip(shares, logits, strict=True):
        kept = np.argsort(-own, kind="stable")[:k]
        row[kept] = np.exp(own[kept]) / np.exp(own[kept]).sum()
    return shares


def logits_by_hand(params):
    return X @ params["gate"]["weights"].T + params["gate"]["intercept"]


def shares_of(model, params):
    weights = np.asarray(model.gate_weights(params, model.prepare(X)))
    return (weights / weights.sum(axis=0)).T


# ---- top-k gates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_shares_are_the_softmax_over_the_largest(k):
    model = model_of(gates.top_k(k))
    params = filled(model)
    want = shares_by_hand(logits_by_hand(params), k)
    np.testing.assert_allclose(shares_of(model, params), want, atol=1e-12)
    means = X @ params["experts"]["weights"].T + params["experts"]["intercept"]
    np.testing.assert_allclose(model.predict(params, X), (want * means).sum(axis=1), atol=1e-12)
    soft = model_of(gates.softmax())
    np.testing.assert_array_equal(model.gate_probs(params, X), soft.gate_probs(params, X))
    if k == K:
        np.testing.assert_array_equal(model.predict(params, X), soft.predict(params, X))
    some = model.with_hyper(params, {"n_experts": 3})  # the choice is among those that take part
    want = shares_by_hand(np.where(np.arange(K) < 3, logits_by_hand(params), -1e9), min(k, 3))
    np.testing.assert_allclose(shares_of(model, some), want, atol=1e-12)


def test_equal_logits_keep_exactly_k():
    model = model_of(gates.top_k(2))
    params = model.with_hyper(jax.tree.map(jnp.zeros_like, model.init(KEY, X)), {"temperature": 1.0})
    np.testing.assert_array_equal(shares_of(model, params), np.tile([0.5, 0.5, 0, 0], (N, 1)))


def value_of(model, loss, **more):
    data = Data(model.prepare(X), jnp.asarray(Y), **more)
    return lambda params: loss.value(model, params, data, jnp.asarray(CASES))


def assert_is_derivative(value, params, trained, gradient=None):
    """The gradient is that by central differences, in every trained number."""
    gradient = jax.jit(jax.grad(value))(params) if gradient is None else gradient
    value = jax.jit(value)
    leaves, structure = jax.tree.flatten(params)
    for i, (leaf, own, wanted) in enumerate(zip(leaves, jax.tree.leaves(gradient), jax.tree.leaves(trained), strict=True)):
        for at in np.ndindex(np.shape(leaf)) if wanted else ():
            ends = []
            for step in (1e-6, -1e-6):
                moved = np.array(leaf)
                moved[at] += step
                ends.append(float(value(jax.tree.unflatten(structure, [*leaves[:i], moved, *leaves[i + 1 :]]))))
            assert own[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("loss", [losses.squared_error(), losses.truncated_nll(2)], ids=["squared error", "truncated"])
def test_the_gradient_flows_through_what_is_kept(loss):
    model = model_of(gates.top_k(2), families.gaussian())
    params = filled(model)
    value = value_of(model, loss)
    assert_is_derivative(value, params, model.trainable(params))
    never = {**params, "gate": {**params["gate"], "intercept": np.array([0.0, 0.0, 0.0, -50.0])}}
    if loss == losses.squared_error():  # an expert to which no row goes learns nothing
        slopes = jax.grad(value)(never)
        assert not np.any(slopes["experts"]["weights"][3])
        assert not np.any(slopes["gate"]["weights"][3])
        assert np.any(slopes["gate"]["weights"][0])


def test_one_expert_of_top_k_predicts_as_top_1_and_teaches_the_gate_nothing():
    one, straight = model_of(gates.top_k(1)), model_of(gates.top1())
    params = filled(one)
    np.testing.assert_allclose(one.predict(params, X), straight.predict(params, X), atol=1e-12)
    nothing, something = (jax.grad(value_of(m, losses.squared_error()))(params)["gate"] for m in (one, straight))
    np.testing.assert_allclose(nothing["weights"], 0, atol=1e-15)
    assert np.abs(something["weights"]).max() > 1e-3


# ---- likelihood ------------------------------------------------------------------------------------------------------

FIT = moejax.fit_em(model_of(gates.top_k(2), families.gaussian()), record_every=1, max_iter=300)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_truncated_likelihood_is_of_the_experts_that_explain_a_row_best(k):
    model = model_of(gates.softmax(), families.gaussian())
    params = filled(model)
    joint = np.asarray(model.log_joint(params, model.prepare(X), jnp.asarray(Y)))
    want = -CASES @ np.log(np.sort(np.exp(joint), axis=0)[-k:].sum(axis=0))
    assert value_of(model, losses.truncated_nll(k))(params) == pytest.approx(want, abs=1e-12)
    other = {1: losses.classification_nll(), 4: losses.nll()}.get(k, losses.truncated_nll(k))
    assert value_of(model, other)(params) == pytest.approx(want, abs=1e-12)
    each, r = losses.truncated_nll(k).explained(jnp.asarray(joint))
    assert -CASES @ np.asarray(each) == pytest.approx(want, abs=1e-12)
    np.testing.assert_allclose(r, shares_by_hand(joint.T, k).T, atol=1e-12)


def test_em_of_a_top_k_gate_ascends_it():
    for restart in range(3):
        fit = FIT(KEY, X, Y, {"l2_gate": 0.01, "restart": restart}, weights=50 * CASES)
        history = fit.history[np.isfinite(fit.history)]
        assert (np.diff(history) <= 1e-10).all()
        penalty = 0.01 * float(np.square(fit.params["gate"]["weights"]).sum())
        value = value_of(FIT.model, losses.truncated_nll(2))(fit.params)
        assert fit.objective == pytest.approx(float(value) + penalty, abs=1e-9)
        assert fit.kkt < 1e-6


# ---- noise -----------------------------------------------------------------------------------------------------------

NOISY = moejax.fit_gradient(model_of(gates.top_k(2, noise=0.7)), steps=30, learning_rate=0.05, record_every=10)


def test_noise_has_the_size_that_the_gate_says():
    model = NOISY.model
    params = filled(model)
    inputs = model.prepare(X)
    draws = np.asarray(jax.vmap(lambda key: model.log_gate(params, inputs, key))(jax.random.split(KEY, 4000)))
    size = 0.7 * np.log1p(np.exp(X @ params["gate"]["noise_weights"].T))  # (n, K)
    logits = logits_by_hand(params)
    apart = draws[:, 0] - draws[:, 1]
    want = np.hypot(size[:, 0], size[:, 1])
    np.testing.assert_allclose(apart.std(axis=0), want, rtol=0.06)  # five standard errors
    assert np.abs((apart.mean(axis=0) - logits[:, 0] + logits[:, 1]) * np.sqrt(4000) / want).max() < 5


def test_noise_is_of_training_alone_and_of_its_key():
    first, again = (NOISY(KEY, X, Y, {"noise": 0.7}) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.abs(first.params["gate"]["noise_weights"]).max() > 1e-3  # they are trained
    quiet = model_of(gates.top_k(2))
    bare = {name: first.params["gate"][name] for name in ("weights", "intercept", "temperature")}
    want = quiet.predict({**first.params, "gate": bare}, X)
    np.testing.assert_array_equal(NOISY.model.predict(first.params, X), want)
    none = NOISY(KEY, X, Y, {"noise": 0.0})
    plain = moejax.fit_gradient(quiet, steps=30, learning_rate=0.05, record_every=10)(KEY, X, Y)
    np.testing.assert_allclose(none.params["experts"]["weights"], plain.params["experts"]["weights"], atol=1e-9)
    assert not np.allclose(first.params["experts"]["weights"], plain.params["experts"]["weights"], atol=1e-3)


def test_lone_steps_of_another_key_differ():
    state = NOISY.init_state(KEY, X)
    a, b, c = (NOISY.train_step(state, X, jnp.asarray(Y), key=key)[1] for key in (KEY, jax.random.key(6), None))
    assert len({float(a), float(b), float(c)}) == 3


# ---- balance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["importance", "load"])
@pytest.mark.parametrize("gate", [gates.softmax(), gates.top_k(2)], ids=["softmax", "top-k"])
def test_balance_is_what_the_papers_say(kind, gate):
    model = model_of(gate)
    params = filled(model)
    k = 2 if gate != gates.softmax() else 1
    logits = logits_by_hand(params)
    probs = shares_by_hand(logits, K)
    if kind == "importance":
        importance = CASES @ (probs if k == 1 else shares_by_hand(logits, k))
        want = importance.var() / importance.mean() ** 2
    else:
        load = CASES @ (shares_by_hand(logits, k) > 0) / k
        want = K * sum(load[e] * (CASES @ probs[:, e]) for e in range(K))
    loss = losses.balanced(losses.squared_error(), kind=kind, weight=0.3)
    plain = value_of(model, losses.squared_error())(params)
    assert value_of(model, loss)(params) == pytest.approx(float(plain) + 0.3 * want, abs=1e-12)
    assert value_of(model, loss, hyper={"balance": 2.0})(params) == pytest.approx(float(plain) + 2 * want, abs=1e-12)
    assert_is_derivative(value_of(model, loss), params, model.trainable(params))  # loads stay as they are from here


def test_equal_use_has_the_least_of_both_among_experts_that_take_part():
    model = model_of(gates.constant())
    params = model.with_hyper(model.init(KEY, X), {"n_experts": 3})
    for kind, least in (("importance", 0.0), ("load", 1.0)):
        loss = losses.balanced(losses.squared_error(), kind=kind)
        data = Data(model.prepare(X), jnp.asarray(Y))
        assert loss.term(model, params, data, jnp.asarray(CASES)) == pytest.approx(least, abs=1e-12)


def test_the_weight_of_balance_is_an_axis_and_brings_unused_experts_back():
    model = model_of(gates.top_k(2))
    loss = losses.balanced(losses.squared_error(), weight=0.0)
    fit = moejax.fit_gradient(model, loss, optax.adam, steps=200, learning_rate=0.05)
    start = model.init(KEY, X)
    start["gate"]["intercept"] = jnp.array([3.0, 3.0, -1.0, -1.0])
    grid = moejax.sweep(fit, {"balance": [0.0, 10.0]}, progress=False)(KEY, X, Y, start=start)
    spread = [np.var(moejax.usage(model, grid.sel(balance=b).fits.params, X).routed) for b in (0.0, 10.0)]
    assert spread[1] < 0.25 * spread[0]
    assert fit.score(start, X, jnp.asarray(Y), jnp.asarray(CASES)) == value_of(model, losses.squared_error())(start)


# ---- usage -----------------------------------------------------------------------------------------------------------


def test_usage_counts_rows_and_names_the_unused():
    model = model_of(gates.top_k(2), families.gaussian())
    params = filled(model)
    params["gate"]["intercept"] = np.array([0.5, 0.0, 0.0, -40.0])
    logits = logits_by_hand(params)
    found = moejax.usage(model, params, X, Y, weights=CASES)
    np.testing.assert_allclose(found.routed, CASES @ (shares_by_hand(logits, 2) > 0) / 2, atol=1e-12)
    np.testing.assert_allclose(found.probability, CASES @ shares_by_hand(logits, K), atol=1e-12)
    scale = np.exp(np.asarray(params["family"]["log_scale"]))
    residual = (Y[:, None] - X @ params["experts"]["weights"].T - params["experts"]["intercept"]) / scale
    joint = shares_by_hand(logits, K) * np.exp(-0.5 * residual**2) / scale
    np.testing.assert_allclose(found.responsibility, CASES @ (joint / joint.sum(axis=1, keepdims=True)), atol=1e-9)
    assert found.unused == [3]
    lines = found.text(["a", "b", "c", "d"]).splitlines()
    assert lines[3].startswith("d: routed 0.0%")
    assert [line.endswith("unused") for line in lines] == [False, False, False, True]
    some = moejax.usage(model, model.with_hyper(params, {"n_experts": 3}), X)
    assert some.responsibility is None
    assert some.unused == []
    assert some.text().splitlines()[3] == "expert 3: takes no part"


TOP2, NOISE = model_of(gates.top_k(2), families.gaussian()), model_of(gates.top_k(2, noise=1.0), families.gaussian())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gates.top_k(0), "k: 0 was given"),
        (lambda: gates.top_k(2, noise=-1.0), "noise: -1.0 was given"),
        (lambda: model_of(gates.top_k(5)).init(KEY, X), "k: 5 was given for 4 experts"),
        (lambda: moejax.fit_gradient(model_of(gates.top_k(5)))(KEY, X, Y), "k: 5 was given for 4 experts"),
        (lambda: moejax.fit_gradient(TOP2, losses.nll()), r"chooses 2 experts; want .*truncated_nll\(2\)"),
        (lambda: moejax.fit_gradient(TOP2, losses.truncated_nll(3)), "chooses 2 experts"),
        (lambda: moejax.fit_gradient(TOP2, optimizer="accelerated"), "'accelerated' was given for a gate that chooses 2"),
        (lambda: moejax.fit_gradient(NOISE, losses.truncated_nll(2), "accelerated"), "a gate with noise"),
        (lambda: moejax.fit_em(NOISE), "gate: .* is noisy in training"),
        (lambda: moejax.fit_gradient(NOISE, losses.truncated_nll(2))(KEY, X, Y, {"noise": -1.0}), r"hyper\['noise'\]: -1.0"),
        (lambda: losses.truncated_nll(0), "k: 0 was given"),
        (lambda: losses.balanced("squared"), "loss: 'squared' was given"),
        (lambda: losses.balanced(losses.nll(), kind="even"), "kind: 'even' was given"),
        (lambda: losses.balanced(losses.nll(), weight=-0.1), "weight: -0.1 was given"),
        (lambda: moejax.fit_em(TOP2, losses.balanced(losses.truncated_nll(2))), "loss: .*EM lowers"),
        (lambda: moejax.sweep(moejax.fit_gradient(model_of(gates.softmax())), {"balance": [0.1]}), "'balance' was given"),
        (lambda: moejax.usage(TOP2, TOP2.init(KEY, X), X, weights=-CASES), "weights: "),
        (lambda: moejax.usage(TOP2, TOP2.init(KEY, X), X).text(["a"]), "names: 1 names were given"),
        (lambda: moejax.usage(model_of(gates.softmax()), TOP2.init(KEY, X), X, Y), "has no family"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_experts_that_take_no_part_are_not_routed_to():
    model = moejax.moe(experts.linear(), gates.top_k(2), K)
    params = model.with_hyper(model.init(KEY, X), {"n_experts": 1})
    np.testing.assert_allclose(moejax.usage(model, params, X).routed, [1, 0, 0, 0])
    data, loss = Data(model.prepare(X), jnp.zeros(N)), losses.balanced(losses.squared_error(), kind="load")
    assert loss.term(model, params, data, jnp.full(N, 1 / N)) == pytest.approx(1)  # as where all are used alike


def test_usage_refuses_inputs_that_are_not_finite():
    model = moejax.moe(experts.linear(), gates.softmax(), K)
    with pytest.raises(ValueError, match=r"^x: 1 of"):
        moejax.usage(model, model.init(KEY, X), np.where(np.arange(N * D).reshape(N, D) == 4, np.nan, X))
