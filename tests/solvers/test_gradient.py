"""Losses and the gradient solver: closed forms, gradients by hand, identities, and what is refused."""

from __future__ import annotations

import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import moejax
from moejax import Status, experts, families, gates, losses, penalties
from moejax import handwritten as hw
from moejax.fit import describe, effective_sizes
from moejax.model import Data
from moejax.solvers import _configured, _gradient

pytestmark = pytest.mark.usefixtures("float64")

N, D, K = 40, 3, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = np.where(X[:, 0] > 0, 2 * X[:, 1], 1 - X[:, 2]) + 0.3 * RNG.normal(size=N)
CASES = RNG.permutation(np.repeat([0.0, 1.0, 2.0, 3.0], [12, 20, 4, 4])).astype(float)  # their sum is N
OFFSET = RNG.normal(size=N)
KEY = jax.random.key(7)
PENALTIES = {"l1_experts": 0.03, "l2_experts": 0.02, "l1_gate": 0.05, "l2_gate": 0.01}
NONE = dict.fromkeys(PENALTIES, 0.0)
GATES = {
    "fixed": gates.fixed([0.5, 0.2, 0.3]),
    "constant": gates.constant(),
    "softmax": gates.softmax(temperature=0.7),
    "top1": gates.top1(temperature=0.7),
}
every_gate = pytest.mark.parametrize("gate", GATES)


def model_of(gate="softmax", k=K, **options):
    return moejax.moe(experts.linear(), GATES[gate], k, **options)


def filled(model, seed=3):
    """Params whose trained leaves are all drawn, the proportions of a fixed gate being given."""
    rng = np.random.default_rng(seed)
    params = model.init(jax.random.key(seed), X)
    mask = model.trainable(params)
    return jax.tree.map(lambda leaf, m: rng.normal(size=leaf.shape) if m else np.asarray(leaf), params, mask)


def bare(params):
    """Params as `handwritten` has them."""
    return {"experts": params["experts"], "gate": params["gate"]}


def assert_close(got, want, rtol=1e-10, atol=0.0):
    """Trees whose leaves agree to rtol of the largest number in each leaf, or atol."""
    got, want = dict(jax.tree_util.tree_leaves_with_path(got)), dict(jax.tree_util.tree_leaves_with_path(want))
    assert got.keys() == want.keys()
    for path, leaf in want.items():
        bound = rtol * np.abs(leaf).max() + atol
        np.testing.assert_allclose(got[path], leaf, rtol=0, atol=bound, err_msg=jax.tree_util.keystr(path))


def assert_same_bits(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


# Fits that several tests share, called with every argument by `full`, so that each is compiled once.
SHORT = moejax.fit_gradient(model_of(), steps=25, record_every=10, learning_rate=0.05)
ONE = moejax.fit_gradient(model_of("constant", 1), optimizer=optax.sgd, steps=1500, learning_rate=0.2, tol=1e-9)
STEP = moejax.fit_gradient(model_of("constant", 1), optimizer=optax.sgd, steps=1, learning_rate=1e-30)
NLL = moejax.fit_gradient(model_of(family=families.gaussian()), losses.nll(), steps=25, record_every=10, learning_rate=0.05)
FULL = NONE | {"learning_rate": 0.05, "temperature": 0.7, "restart": 0}


def full(fit, hyper=None, *, key=KEY, x=X, y=Y, weights=None, offset=None, start=None):
    weights = np.ones(N) if weights is None else weights
    offset = np.zeros(N) if offset is None else offset
    hyper = {name: value for name, value in FULL.items() if name in fit.hyper} | (hyper or {})
    return fit(key, x, y, hyper, weights=weights, offset=offset, start=start)


# ---- gradients, against those by hand -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objective_and_slopes():
    """Objective and gradient of each gate's model, compiled once a gate for all penalties and weights."""

    def of(gate):
        fit = moejax.fit_gradient(model_of(gate))

        def objective(params, weights, hyper):
            return fit.objective(params, Data(fit.model.prepare(X), jnp.asarray(Y)), weights, hyper)

        return jax.jit(jax.value_and_grad(objective))

    return {gate: of(gate) for gate in GATES}


@every_gate
@pytest.mark.parametrize("names", [(), ("l1_experts",), ("l2_gate",), ("l1_gate", "l2_experts"), tuple(PENALTIES)])
@pytest.mark.parametrize("weighted", [False, True])
def test_objective_and_gradient_are_those_by_hand(objective_and_slopes, gate, names, weighted):
    params, hyper = filled(model_of(gate)), NONE | {name: PENALTIES[name] for name in names}
    params["experts"]["weights"][0, 0] = 0.0  # where L1 has the subgradient 0
    weights = CASES if weighted else np.ones(N)
    value, slopes = objective_and_slopes[gate](params, weights / weights.sum(), hyper)
    assert float(value) == pytest.approx(hw.loss(bare(params), X, Y, gate, **hyper, weights=weights), rel=1e-12)
    want = hw.gradient(bare(params), X, Y, gate, **hyper, weights=weights)
    moved = model_of(gate).trainable(params)
    for part in ("experts", "gate"):
        for name, slope in want[part].items():
            if moved[part][name]:
                np.testing.assert_allclose(slopes[part][name], slope, rtol=0, atol=1e-10 * np.abs(slope).max())


@every_gate
def test_a_fit_by_gradient_descent_is_that_by_hand(gate):
    fit = moejax.fit_gradient(model_of(gate), optimizer=optax.sgd, steps=20, learning_rate=0.02, record_every=3)
    start = filled(fit.model)
    got = fit(KEY, X, Y, PENALTIES, weights=CASES, start=start)

    def slopes(p):
        return hw.gradient(p, X, Y, gate, **PENALTIES, weights=CASES)

    last, iterates = hw.descend(slopes, bare(start), 20, 0.02)
    values = [hw.loss(p, X, Y, gate, **PENALTIES, weights=CASES) for p in iterates]
    assert values[-1] < 0.9 * values[0]
    assert_close(bare(got.params), last, 1e-9, 1e-12)
    np.testing.assert_allclose(got.history, values[0:20:3], rtol=1e-10)
    assert float(got.objective) == pytest.approx(values[-1], rel=1e-10)
    assert got.steps == 20
    assert np.isnan(got.log_likelihood)
    assert describe(got.status).split(", ")[0] == "out of steps"


def log_density(params, y=Y, temperature=0.7):
    """log p(y | x) of a mixture with a softmax gate, in NumPy."""
    p = jax.tree.map(np.asarray, params)
    z = (X @ p["gate"]["weights"].T + p["gate"]["intercept"]) / temperature
    log_gate = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    residual = y[:, None] - X @ p["experts"]["weights"].T - p["experts"]["intercept"]
    variance = np.exp(2 * p["family"]["log_scale"])
    variance = np.maximum(variance, 0.05 * variance.max())
    return np.log(np.exp(log_gate - 0.5 * residual**2 / variance - 0.5 * np.log(2 * np.pi * variance)).sum(axis=1))


def test_likelihood_loss_and_its_gradient():
    params, weights = filled(NLL.model), CASES / CASES.sum()
    params["family"]["log_scale"] = np.array([0.3, -0.4, 0.1])

    def by_hand(p):
        return -weights @ log_density(p, Y - OFFSET)

    data = Data(NLL.model.prepare(X), jnp.asarray(Y), jnp.asarray(OFFSET))
    value, slopes = jax.jit(jax.value_and_grad(lambda p: NLL.objective(p, data, weights, {})))(params)
    assert float(value) == pytest.approx(by_hand(params), rel=1e-12)
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes["experts"] | slopes["family"]):
        part = "family" if path[-1].key == "log_scale" else "experts"
        leaf = params[part][path[-1].key]
        for index in np.ndindex(leaf.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = leaf.copy()
                moved[index] += step
                ends.append(by_hand(params | {part: params[part] | {path[-1].key: moved}}))
            assert float(slope[index]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6, abs=1e-9)


def test_a_fit_reports_what_it_reached():
    got = full(NLL, PENALTIES, weights=CASES, offset=OFFSET)
    w, v = got.params["experts"]["weights"], got.params["gate"]["weights"]
    log_p = log_density(got.params, Y - OFFSET)
    penalty = 0.03 * np.abs(w).sum() + 0.02 * np.square(w).sum() + 0.05 * np.abs(v).sum() + 0.01 * np.square(v).sum()
    assert float(got.objective) == pytest.approx(-CASES @ log_p / CASES.sum() + penalty, rel=1e-10)
    assert float(got.log_likelihood) == pytest.approx(CASES @ log_p, rel=1e-10)
    assert got.history.shape == (3,)
    assert got.objective < got.history[-1] < got.history[0]
    score = NLL.score(got.params, X, Y, CASES, OFFSET)
    assert float(score) == pytest.approx(-CASES @ log_p / CASES.sum(), rel=1e-10)


# ---- one expert: closed forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("weights", [np.ones(N), CASES])
@pytest.mark.parametrize("offset", [np.zeros(N), OFFSET])
def test_one_expert_is_least_squares_and_ridge(l2, weights, offset):
    got = full(ONE, {"l2_experts": l2, "learning_rate": 0.2}, weights=weights, offset=offset)
    ones, root = np.ones((N, 1)), np.sqrt(weights / weights.sum())[:, None]
    rows = np.vstack([root * np.hstack([X, ones]), np.sqrt(l2) * np.eye(D, D + 1)])
    target = np.concatenate([root[:, 0] * (Y - offset), np.zeros(D)])
    want, residual, *_ = np.linalg.lstsq(rows, target, rcond=None)
    coefficients = np.append(got.params["experts"]["weights"], got.params["experts"]["intercept"])
    np.testing.assert_allclose(coefficients, want, rtol=1e-8)
    assert float(got.objective) == pytest.approx(float(residual[0]), rel=1e-12)
    assert got.kkt < 1e-9
    assert describe(got.status) == "converged"
    assert got.admissible


def test_adam_reaches_least_squares_in_several_outputs():
    target = np.column_stack([Y, X[:, 0] - 0.3 * Y, OFFSET])
    model = moejax.moe(experts.linear(3), gates.constant(), 1)
    got = moejax.fit_gradient(model, steps=2000, learning_rate=0.03)(KEY, X, target)
    want, residual, *_ = np.linalg.lstsq(np.hstack([X, np.ones((N, 1))]), target, rcond=None)
    np.testing.assert_allclose(got.params["experts"]["weights"][0], want[:-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.params["experts"]["intercept"][0], want[-1], rtol=1e-4, atol=1e-5)
    assert float(got.objective) == pytest.approx(residual.sum() / (3 * N), rel=1e-8)  # a mean over rows and outputs


def test_one_expert_by_likelihood_is_least_squares_with_its_variance():
    model = model_of("constant", 1, family=families.gaussian())
    got = moejax.fit_gradient(model, losses.nll(), optax.sgd, steps=1500, learning_rate=0.3)(KEY, X, Y, weights=CASES)
    root = np.sqrt(CASES)
    want, residual, *_ = np.linalg.lstsq(root[:, None] * np.hstack([X, np.ones((N, 1))]), root * Y, rcond=None)
    total, variance = CASES.sum(), residual[0] / CASES.sum()
    np.testing.assert_allclose(got.params["experts"]["weights"][0], want[:-1], rtol=1e-7)
    np.testing.assert_allclose(np.exp(2 * got.params["family"]["log_scale"]), variance, rtol=1e-7)
    assert float(got.log_likelihood) == pytest.approx(-0.5 * total * (np.log(2 * np.pi * variance) + 1), rel=1e-10)
    assert float(got.objective) == pytest.approx(-float(got.log_likelihood) / total, rel=1e-12)
    assert Status(int(got.status)) == Status.CONVERGED


# ---- the distance to optimality -----------------------------------------------------------------------------------


def at(weights, intercept):
    gate = {"logits": np.zeros(1)}
    return {"experts": {"weights": np.array([weights]), "intercept": np.array([intercept])}, "gate": gate, "family": {}}


def kkt_at(x, y, weights, intercept, **hyper):
    return float(STEP(KEY, x, y, {"l1_experts": 0.0} | hyper, start=at(weights, intercept)).kkt)


@pytest.mark.parametrize("l1", [0.0, 0.2, 1.0, 5.0])
def test_kkt_is_zero_at_the_lasso_of_orthogonal_columns(l1):
    x = np.linalg.qr(X - X.mean(axis=0))[0] * np.sqrt(N)  # x'x = n I and mean 0: soft thresholding at l1 / 2
    least_squares = x.T @ Y / N
    lasso = np.sign(least_squares) * np.maximum(np.abs(least_squares) - l1 / 2, 0)
    assert kkt_at(x, Y, lasso, Y.mean(), l1_experts=l1) < 1e-12
    off = np.sqrt(2) * 0.05 / Y.std()  # the mean squared error rises by half its square, in units of the variance
    assert kkt_at(x, Y, lasso, Y.mean() + 0.05, l1_experts=l1) == pytest.approx(off, rel=1e-9)
    nearby = np.where(lasso == 0, 0.01, lasso + 0.01 * np.sign(lasso))
    assert kkt_at(x, Y, nearby, Y.mean(), l1_experts=l1) > 0.005
    if not lasso.all():
        assert kkt_at(x, Y, lasso, Y.mean(), l1_experts=0.5 * np.abs(least_squares).min()) > 1e-3


@pytest.mark.parametrize("l1", [0.02, 0.5])
def test_kkt_is_zero_at_the_lasso_of_scikit_learn(l1):
    linear_model = pytest.importorskip("sklearn.linear_model")
    lasso = linear_model.Lasso(alpha=l1 / 2, tol=1e-14, max_iter=100_000).fit(X, Y)
    assert kkt_at(X, Y, lasso.coef_, lasso.intercept_, l1_experts=l1) < 1e-8
    assert kkt_at(X, Y, lasso.coef_, lasso.intercept_, l1_experts=1.5 * l1) > 0.1 * l1


# ---- optimizers -----------------------------------------------------------------------------------------------------


def decayed(rate):
    return optax.adam(optax.cosine_decay_schedule(rate, 25))


OPTIMIZERS = {
    "adam": optax.adam,
    "sgd": optax.sgd,
    "adamw": optax.adamw,
    "lion": optax.lion,
    "schedule": decayed,
    "chain": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.5)),
    "built": optax.adam(0.05),
    "flattened": optax.flatten(optax.adam(0.05)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_objective(name):
    fit = moejax.fit_gradient(model_of(), None, OPTIMIZERS[name], steps=25, record_every=10, learning_rate=0.05)
    got = full(fit, PENALTIES)
    assert got.objective < 0.8 * got.history[0]
    built = name in ("built", "flattened")
    assert ("learning_rate" in fit.hyper) is not built
    if name == "adam" or built:
        assert_close(got.params, full(SHORT, PENALTIES).params, 1e-10)
        start = fit.init_state(KEY, X).params
        want = hw.loss(bare(start), X, Y, "softmax", **PENALTIES)
        assert float(got.history[0]) == pytest.approx(want, rel=1e-12)
    if built:
        with pytest.raises(ValueError, match=r"hyper: 'learning_rate' was given"):
            fit(KEY, X, Y, {"learning_rate": 0.1})


def test_the_learning_rate_of_hyper_overrules_the_default():
    got, want = full(ONE, {"learning_rate": 0.2}), ONE(KEY, X, Y)  # the same numbers, given and by default
    np.testing.assert_allclose(got.history[:10], want.history[:10], rtol=1e-10)
    assert not np.allclose(full(ONE, {"learning_rate": 0.01}).history[:10], want.history[:10])


# ---- the same fit by other routes ---------------------------------------------------------------------------------


def test_train_steps_by_hand_are_the_fit_alone_and_vmapped():
    step = jax.jit(lambda state: SHORT.train_step(state, X, jnp.asarray(Y), PENALTIES))
    state, values = SHORT.init_state(KEY, X, PENALTIES), []
    for _ in range(25):
        state, value = step(state)
        values.append(value)
    want = full(SHORT, PENALTIES)
    assert_close(state.params, want.params, 1e-9)
    np.testing.assert_allclose(want.history, values[::10], rtol=1e-10)

    def first(l1):
        hyper = PENALTIES | {"l1_experts": l1}
        return SHORT.train_step(SHORT.init_state(KEY, X, hyper), X, jnp.asarray(Y), hyper, weights=CASES, offset=OFFSET)

    states, objectives = jax.jit(jax.vmap(first))(jnp.array([0.0, 1.0]))
    weights = SHORT.init_state(KEY, X).params["experts"]["weights"]
    assert float(objectives[1] - objectives[0]) == pytest.approx(float(np.abs(weights).sum()), rel=1e-10)
    assert states.params["experts"]["weights"].shape == (2, K, D)


def test_hyper_may_be_traced():
    chosen = {"l1_experts": 0.1, "temperature": 0.4, "restart": 2}
    traced, direct = jax.jit(lambda hyper: full(SHORT, hyper))(chosen), full(SHORT, chosen)
    assert_close(traced.params, direct.params, 1e-9)
    np.testing.assert_allclose(traced.history, direct.history, rtol=1e-10)
    assert traced.params["gate"]["temperature"] == 0.4
    with pytest.raises(ValueError, match=r"^y: shape"):
        jax.jit(lambda y: SHORT(KEY, X, y))(Y[:-1])


def test_a_member_that_diverges_harms_no_other():
    rates = np.array([0.05, 1e300, 0.02])
    many = jax.vmap(lambda rate: full(SHORT, {"learning_rate": rate}))(rates)
    flags = [Status(int(s)) for s in many.status]
    assert flags[1] == Status.DIVERGED
    assert many.admissible.tolist()[1] is False
    for i in (0, 2):
        alone = full(SHORT, {"learning_rate": rates[i]})
        assert not flags[i] & Status.DIVERGED
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], many.params), alone.params, 1e-9)
        np.testing.assert_allclose(many.history[i], alone.history, rtol=1e-10)


def test_the_key_and_the_restart_are_all_the_randomness():
    first, again = (full(SHORT) for _ in range(2))
    assert_same_bits(first, again)
    starts = [SHORT.init_state(k, X, {"restart": r}).params for k in (KEY, jax.random.key(8)) for r in (0, 1, 2)]
    draws = np.array([start["experts"]["weights"].ravel() for start in starts])
    assert len(np.unique(draws)) == draws.size
    assert not np.allclose(first.history, full(SHORT, {"restart": 1}).history)


# ---- weights and offsets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", [SHORT, NLL], ids=["squared error", "likelihood"])
def test_weights_are_rows(fit):
    got, rows = full(fit, weights=CASES), np.repeat(np.arange(N), CASES.astype(int))
    want = full(fit, x=X[rows], y=Y[rows])  # each row so many times, some not at all
    assert not np.allclose(got.history, full(fit).history)
    for other in (want, full(fit, weights=7 * CASES)):
        assert_close(got.params, other.params, 1e-8, 1e-12)
        np.testing.assert_allclose(got.history, other.history, rtol=1e-10)
    assert float(got.log_likelihood) == pytest.approx(float(want.log_likelihood), rel=1e-10, nan_ok=True)
    out = CASES == 0
    spoilt = full(fit, x=np.where(out[:, None], 50.0, X), y=np.where(out, -900.0, Y), weights=CASES)
    assert_close(spoilt.params, got.params, 1e-8, 1e-12)


def test_weights_may_be_vmapped():
    folds = np.array([CASES, np.ones(N)])
    many = jax.vmap(lambda w: full(SHORT, weights=w))(folds)
    for i, weights in enumerate(folds):
        alone = full(SHORT, weights=weights)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], many.params), alone.params, 1e-9)


@pytest.mark.parametrize("fit", [SHORT, NLL], ids=["squared error", "likelihood"])
def test_an_offset_is_taken_from_the_target(fit):
    got, want = full(fit, offset=OFFSET), full(fit, y=Y - OFFSET)
    assert not np.allclose(got.history, full(fit).history)
    assert_close(got.params, want.params, 1e-8, 1e-12)
    assert float(got.objective) == pytest.approx(float(want.objective), rel=1e-10)


# ---- history and stopping -------------------------------------------------------------------------------------------


def stop_by_hand(values, patience, share, stride):
    """Steps taken by the rule of the docstring, from the objective before every step."""
    best, best_step = np.inf, 0
    for i in range(0, len(values), stride):
        if not np.isfinite(best) or values[i] < best - share * abs(best):
            best, best_step = values[i], i
        if i - best_step >= patience:
            return min(i + stride, len(values))
    return len(values)


@pytest.mark.parametrize(("patience", "stride"), [(1, 10), (25, 7), (10_000, 10)])
def test_patience_stops_where_its_rule_says(patience, stride):
    options = {"optimizer": optax.sgd, "steps": 203, "learning_rate": 0.2, "min_improvement": 1e-3}
    every = moejax.fit_gradient(ONE.model, record_every=1, **options)(KEY, X, Y)
    fit = moejax.fit_gradient(ONE.model, record_every=stride, patience=patience, **options)
    got, want = fit(KEY, X, Y), stop_by_hand(np.asarray(every.history), patience, 1e-3, stride)
    assert stride < want < 203 or patience == 10_000
    assert got.steps == want
    recorded = -(-want // stride)
    assert got.history.shape == (-(-203 // stride),)
    np.testing.assert_allclose(got.history[:recorded], every.history[:want:stride], rtol=1e-12)
    assert np.isnan(got.history[recorded:]).all()
    assert bool(got.status & Status.CONVERGED) is (want < 203 or bool(got.kkt <= 1e-5))


# ---- minibatches ----------------------------------------------------------------------------------------------------


def test_a_batch_of_all_rows_is_the_full_fit():
    options = {"optimizer": optax.sgd, "steps": 10, "learning_rate": 0.05}
    full, batch = (moejax.fit_gradient(model_of(), batch_size=size, **options) for size in (None, N))
    got, want = (fit(KEY, X, Y, PENALTIES, weights=CASES, offset=OFFSET) for fit in (batch, full))
    assert_close(got.params, want.params, 1e-10)
    np.testing.assert_allclose(got.history, want.history, rtol=1e-12)


def test_an_epoch_of_batches_sees_every_row_once_in_an_order_of_the_key_alone():
    rate, start = 1e-8, filled(model_of())
    options = {"optimizer": optax.sgd, "steps": 10, "batch_size": 8, "learning_rate": rate, "record_every": 1}
    fit = moejax.fit_gradient(model_of(), **options)
    got = full(fit, {"learning_rate": rate}, weights=CASES, start=start)
    moved = jax.tree.map(lambda a, b: (a - b) / (10 * rate), bare(start), bare(got.params))
    assert_close(moved, hw.gradient(bare(start), X, Y, "softmax", weights=CASES), 1e-5)
    epochs = np.asarray(got.history).reshape(2, 5)
    np.testing.assert_allclose(epochs.mean(axis=1), hw.loss(bare(start), X, Y, "softmax", weights=CASES), rtol=1e-5)
    assert len(np.unique(epochs.round(6))) == 10
    assert_same_bits(full(fit, {"learning_rate": rate, "restart": 3}, weights=CASES, start=start), got)
    other = full(fit, {"learning_rate": rate}, key=jax.random.key(8), weights=CASES, start=start)
    assert not np.allclose(other.history, got.history)


# ---- status ---------------------------------------------------------------------------------------------------------


def test_a_starved_expert_is_flagged():
    start = filled(model_of())
    start["gate"]["weights"] *= 0.1
    assert not full(SHORT, {"learning_rate": 1e-30}, start=start).status & Status.STARVED_EXPERT
    start["gate"]["intercept"] = np.array([0.0, 0.0, -50.0])
    starved = full(SHORT, {"learning_rate": 1e-30}, start=start)
    assert starved.status & Status.STARVED_EXPERT
    assert starved.admissible  # without a likelihood nothing is unbounded
    assert "starved expert" in describe(starved.status)


def test_a_scale_at_its_floor_is_flagged():
    start = filled(NLL.model)
    for low, flagged in ((-0.3, False), (-9.0, True)):
        start["family"]["log_scale"] = np.array([0.0, low, 0.0])
        got = full(NLL, {"learning_rate": 1e-30}, start=start)
        assert bool(got.status & Status.SCALE_AT_FLOOR) is flagged


@pytest.mark.parametrize("likelihood", [False, True])
def test_effective_sizes_are_those_of_kish(likelihood):
    model, params = NLL.model, filled(NLL.model)
    data, weights = Data(model.prepare(X), jnp.asarray(Y)), CASES / CASES.sum()
    share = np.asarray(model.responsibilities(params, X, Y) if likelihood else model.gate_probs(params, X))
    want = share.T @ CASES * CASES.sum() / np.square(CASES).sum()
    np.testing.assert_allclose(effective_sizes(model, params, data, weights, likelihood), want, rtol=1e-10)


# ---- parts of somebody's own ---------------------------------------------------------------------------------------


class OwnExpert(NamedTuple):
    slope: float = 1.0

    def init(self, key, n_experts, x):
        return experts.linear().init(key, n_experts, x)

    def apply(self, params, x):
        return self.slope * (params["weights"] @ x.T + params["intercept"][:, None])

    def penalized(self, params):
        return {"weights": True, "intercept": False}


class Steeper(OwnExpert):
    def apply(self, params, x):
        return 2 * super().apply(params, x)


class OwnGate(NamedTuple):
    def init(self, key, n_experts, x):
        made = gates.softmax().init(key, n_experts, x)
        return {"weights": made["weights"], "intercept": made["intercept"]}

    def log_probs(self, params, x):
        z = params["weights"] @ x.T + params["intercept"][:, None]
        return z - jax.nn.logsumexp(z, axis=0)

    def penalized(self, params):
        return {"weights": True, "intercept": False}


def as_namespace(part, *names):
    return types.SimpleNamespace(**{name: getattr(part, name) for name in names})


@pytest.mark.parametrize("kind", ["named tuple", "namespace"])
def test_parts_of_ones_own_train_like_the_built_in(kind):
    parts = (OwnExpert(), OwnGate(), losses.nll(), tuple(penalties.standard()))
    if kind == "namespace":
        expert, gate = (
            as_namespace(part, "init", name, "penalized") for part, name in zip(parts, ("apply", "log_probs"), strict=False)
        )
        loss = as_namespace(losses.nll(), "value", "has_likelihood")
        parts = (expert, gate, loss, [as_namespace(p, "name", "part", "value", "prox") for p in penalties.standard()])
    expert, gate, loss, penalty = parts
    options = {"steps": 25, "record_every": 10, "learning_rate": 0.05}
    model = moejax.moe(expert, gate, K, family=families.gaussian())
    got = full(moejax.fit_gradient(model, loss, penalty=penalty, **options), PENALTIES)
    want = full(NLL, PENALTIES | {"temperature": 1.0})
    del want.params["gate"]["temperature"]
    assert_close(got.params, want.params, 1e-8)
    assert float(got.log_likelihood) == pytest.approx(float(want.log_likelihood), rel=1e-10)


def test_equal_named_tuples_of_two_types_have_two_programs():
    start = None
    for expert, slope in ((OwnExpert(), 1.0), (Steeper(), 2.0)):
        fit = moejax.fit_gradient(moejax.moe(expert, gates.constant(), 1), steps=1, learning_rate=1e-30)
        start = fit.init_state(KEY, X).params if start is None else start
        got = fit(KEY, X, Y, start=start)
        want = np.mean((Y - slope * X @ np.asarray(start["experts"]["weights"][0])) ** 2)
        assert float(got.objective) == pytest.approx(want, rel=1e-10)


def test_building_the_same_fit_again_compiles_nothing(monkeypatch):
    first = full(SHORT)
    monkeypatch.setattr(_gradient.GradientFit, "descent", refuse)
    again = moejax.fit_gradient(
        moejax.moe(experts.linear(), gates.softmax(temperature=0.7), K), steps=25, record_every=10, learning_rate=0.05
    )
    assert float(full(again).objective) == float(first.objective)


# ---- precision ------------------------------------------------------------------------------------------------------


def floats(fit):
    return {np.asarray(leaf).dtype for leaf in jax.tree.leaves((fit.params, *fit[1:4], fit.kkt))}


def test_everything_is_float64_under_x64_and_follows_x():
    assert floats(full(NLL, PENALTIES)) == {np.dtype("float64")}
    assert floats(full(NLL, PENALTIES, x=X.astype("float32"), start=filled(NLL.model))) == {np.dtype("float32")}
    whole = (10 * X).astype(int)
    assert floats(full(NLL, x=whole, y=whole[:, 0])) == {np.dtype("float64")}


@pytest.mark.usefixtures("float32")
def test_everything_is_float32_by_default():
    got = full(NLL, x=X.copy())  # JAX may keep the float64 form of an array that it has seen in a closure
    assert floats(got) == {np.dtype("float32")}
    assert float(got.objective) == pytest.approx(-log_density(got.params).mean(), rel=1e-4)


def test_a_start_of_whole_numbers_is_trained():
    zero = jax.tree.map(lambda leaf: np.zeros(leaf.shape, int), ONE.model.init(KEY, X))
    got = full(ONE, {"learning_rate": 0.2}, start=zero)
    want = np.linalg.lstsq(np.hstack([X, np.ones((N, 1))]), Y, rcond=None)[0]
    np.testing.assert_allclose(got.params["experts"]["weights"][0], want[:-1], rtol=1e-8)


# ---- what is refused, before anything compiles ----------------------------------------------------------------------


def refuse(*_):
    raise AssertionError("a program was compiled")


def spoiled(array, value, index=0):
    array = np.array(array, float)
    array[index] = value
    return array


START = filled(model_of())
COLUMNS = moejax.fit_gradient(moejax.moe(experts.linear(), gates.softmax(), K, gate_columns=[D]))
FEATURES = moejax.fit_gradient(moejax.moe(experts.linear(), gates.softmax(), K, expert_columns=[0, D + 4]))
PROPORTIONS = moejax.fit_gradient(moejax.moe(experts.linear(), gates.fixed([0.5, 0.5]), K))
BATCHES = moejax.fit_gradient(model_of(), batch_size=N + 1)
OUTPUTS = moejax.fit_gradient(moejax.moe(experts.linear(2), gates.softmax(), K))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *(({"x": spoiled(X, bad, (2, 1))}, r"^x: 1 of 120 values .* \(2, 1\)") for bad in (np.nan, np.inf, -np.inf)),
        *(({"y": spoiled(Y, bad, 3)}, r"^y: 1 of 40 values .* \(3,\)") for bad in (np.nan, np.inf)),
        *(({"weights": spoiled(CASES, bad)}, r"^weights: 1 of 40 values") for bad in (np.nan, np.inf)),
        ({"offset": spoiled(OFFSET, np.nan)}, r"^offset: 1 of 40 values"),
        ({"x": X[:, 0]}, r"^x: shape \(40,\) was given; want \(any, any\)"),
        ({"x": X[None]}, r"^x: shape \(1, 40, 3\) was given"),
        ({"x": X[:0], "y": Y[:0]}, r"^x: .*n > 0"),
        ({"x": None}, r"^x: nothing was given"),
        ({"x": X.astype(str)}, r"^x: values of type"),
        ({"x": {"a": X, "b": X[1:]}}, r"^x: arrays of shapes"),
        ({"x": X[1:]}, r"^y: shape \(40,\) was given; want \(39,\)"),
        ({"y": Y[1:]}, r"^y: shape \(39,\) was given; want \(40,\)"),
        ({"y": Y[:, None]}, r"^y: shape \(40, 1\) was given; want \(40,\)"),
        ({"y": np.full(N, 2.5)}, r"^y: the target is constant"),
        ({"y": np.array(["a", "b"] * 20)}, r"^y: values of type"),
        ({"weights": CASES[1:]}, r"^weights: shape \(39,\) was given; want \(40,\)"),
        ({"weights": CASES[:, None]}, r"^weights: shape \(40, 1\)"),
        ({"weights": spoiled(CASES, -0.5)}, r"^weights: -0.5 was given"),
        ({"weights": np.zeros(N)}, r"^weights: all are 0"),
        ({"offset": OFFSET[1:]}, r"^offset: shape \(39,\)"),
        ({"offset": 1.0}, r"^offset: shape \(\)"),
        *(({"hyper": {name: -0.1}}, rf"^hyper\['{name}'\]: -0.1 was given") for name in PENALTIES),
        *(({"hyper": {name: 0.0}}, rf"^hyper\['{name}'\]: 0.0 was given") for name in ("temperature", "learning_rate")),
        *(({"hyper": {name: np.nan}}, rf"^hyper\['{name}'\]: 1 of 1 values are NaN") for name in SHORT.hyper),
        *(({"hyper": {name: np.ones(2)}}, rf"^hyper\['{name}'\]: shape \(2,\) was given") for name in SHORT.hyper),
        ({"hyper": {"restart": 1.5}}, r"^hyper\['restart'\]: 1.5 was given"),
        ({"hyper": {"restart": -1}}, r"^hyper\['restart'\]: -1 was given"),
        ({"hyper": {"l1": 0.1}}, r"^hyper: 'l1' was given; want names among \['group_experts', "),
        ({"start": {}}, r"^start: params of structure"),
        ({"start": {"experts": START["experts"], "gate": START["gate"]}}, r"^start: params of structure"),
        ({"start": START | {"gate": {"logits": np.zeros(K)}}}, r"^start: params of structure"),
        (
            {"start": START | {"experts": START["experts"] | {"weights": np.zeros((K, D + 1))}}},
            r"^start\['experts'\]\['weights'\]: shape \(3, 4\) was given; want \(3, 3\)",
        ),
        (
            {"start": START | {"gate": START["gate"] | {"intercept": np.array([0, np.nan, 0])}}},
            r"^start\['gate'\]\['intercept'\]: 1 of 3 values are NaN",
        ),
        ({"fit": COLUMNS}, r"^gate_columns: column 3 was given; want columns below 3"),
        ({"fit": FEATURES}, r"^expert_columns: column 7 was given; want columns below 3"),
        ({"fit": PROPORTIONS}, r"^proportions: 2 were given; want one for each of 3"),
        ({"fit": BATCHES}, r"^batch_size: 41 was given for 40 rows"),
        ({"fit": OUTPUTS}, r"^y: shape \(40,\) was given; want \(40, 2\)"),
        ({"fit": OUTPUTS, "y": np.column_stack([Y, np.ones(N)])}, r"^y: the target is constant"),
    ],
)
def test_a_fit_refuses_before_it_compiles(monkeypatch, changed, message):
    monkeypatch.setattr(_configured, "_compiled", refuse)
    arguments = {"fit": SHORT, "x": X, "y": Y, "hyper": None} | changed
    fit, x, y, hyper = (arguments.pop(name) for name in ("fit", "x", "y", "hyper"))
    with pytest.raises(ValueError, match=message):
        fit(KEY, x, y, hyper, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({name: bad}, rf"^{name}: ") for name in ("steps", "record_every") for bad in (0, -1, 1.5, True)),
        *(({name: bad}, rf"^{name}: ") for name in ("batch_size", "patience") for bad in (0, -1, 1.5, True)),
        *(({"learning_rate": bad}, r"^learning_rate: ") for bad in (0.0, -0.1, np.nan, np.inf)),
        *(({name: -1e-9}, rf"^{name}: ") for name in ("tol", "min_improvement")),
        ({"loss": losses.nll()}, r"^loss: nll was given for a model without a family"),
        ({"loss": "nll"}, r"^loss: 'nll' was given"),
        *(({"optimizer": bad}, r"^optimizer: ") for bad in (None, "adam")),
        ({"penalty": "l1"}, r"^penalty: 'l1' was given"),
        ({"penalty": [penalties.l1]}, r"^penalty: "),
    ],
)
def test_fit_gradient_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        moejax.fit_gradient(model_of(), **options)


# ---- a family with targets of its own kind -------------------------------------------------------------------------


class Labels(NamedTuple):
    """Class labels (n,) beside predictors (K, n, classes): a target that is not shaped like a prediction."""

    def init(self, n_experts, eta):
        return {}

    def log_prob(self, y, eta, phi):
        return jnp.take_along_axis(jax.nn.log_softmax(eta), y.astype(int)[None, :, None], axis=2)[..., 0]

    def mean(self, eta):
        return jax.nn.softmax(eta)

    def check_target(self, y, shape):
        if np.shape(y) != shape[:1]:
            raise ValueError(f"y: shape {np.shape(y)} was given; want {shape[:1]}, labels")


def test_a_family_may_have_targets_of_another_shape():
    labels = (X[:, 0] > 0).astype(float)
    model = moejax.moe(experts.linear(2), gates.constant(), 1, family=Labels())
    fit = moejax.fit_gradient(model, losses.nll(), steps=50, learning_rate=0.1)
    got = fit(KEY, X, labels, {"l2_experts": 0.01})
    probs = model.predict(got.params, X)
    assert probs.shape == (N, 2)
    assert float(got.log_likelihood) == pytest.approx(np.log(probs[np.arange(N), labels.astype(int)]).sum(), rel=1e-5)
    with pytest.raises(ValueError, match="labels"):
        fit(KEY, X, np.zeros((N, 2)))


# ---- what optimizers, differentiation and mistakes ask of a fit ----------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [optax.lbfgs, optax.polyak_sgd, lambda rate: optax.chain(optax.adam(rate), optax.contrib.reduce_on_plateau())],
    ids=["lbfgs", "polyak_sgd", "reduce_on_plateau"],
)
def test_optimizers_that_ask_for_the_value_reach_least_squares(optimizer):
    model = moejax.moe(experts.linear(), gates.constant(), 1)
    fit = moejax.fit_gradient(model, optimizer=optimizer, steps=300, learning_rate=0.1)
    design = np.c_[X, np.ones(N)]
    best = np.mean((Y - design @ np.linalg.lstsq(design, Y, rcond=None)[0]) ** 2)
    assert float(fit(KEY, X, Y).objective) == pytest.approx(best, rel=1e-3)


def test_a_fit_can_be_differentiated_in_its_penalty(float64):
    model = moejax.moe(experts.linear(), gates.constant(), 1)
    fit = moejax.fit_gradient(model, optimizer=optax.sgd, steps=2000, learning_rate=0.1, record_every=10)

    def held(l2):
        return fit(KEY, X, Y, {"l2_experts": l2}).params["experts"]["weights"].sum()

    # Ridge regression with a free intercept: w = (X'X / n + l2 I)^-1 X'y / n on centred data.
    x, y = X - X.mean(axis=0), Y - Y.mean()
    gram, moment = x.T @ x / N + 0.1 * np.eye(x.shape[1]), x.T @ y / N
    want = -np.linalg.solve(gram, np.linalg.solve(gram, moment)).sum()
    assert float(jax.grad(held)(0.1)) == pytest.approx(want, rel=1e-6)
    assert float(held(0.1)) == pytest.approx(np.linalg.solve(gram, moment).sum(), rel=1e-8)


@pytest.mark.parametrize("rest", [0, 3])
def test_steps_that_are_no_multiple_of_the_stride_are_all_made(rest):
    fit = moejax.fit_gradient(moejax.moe(experts.linear(), gates.constant(), 1), optimizer=optax.sgd, steps=20 + rest)
    state, objectives = fit.init_state(KEY, X), []
    for _ in range(20 + rest):
        state, objective = jax.jit(fit.train_step)(state, X, Y)
        objectives.append(float(objective))
    got = fit(KEY, X, Y)
    assert int(got.steps) == 20 + rest
    np.testing.assert_allclose(got.history, objectives[::10], rtol=1e-5)


def test_huge_weights_weigh_like_equal_ones():
    fit = moejax.fit_gradient(moejax.moe(experts.linear(), gates.softmax(), 2), steps=5)
    huge, none = fit(KEY, X, Y, weights=np.full(N, 1e38)), fit(KEY, X, Y)
    assert float(huge.objective) == pytest.approx(float(none.objective), rel=1e-5)


def test_an_expert_of_proportion_zero_is_not_starved():
    def status(*shares):
        return moejax.fit_gradient(moejax.moe(experts.linear(), gates.fixed(shares), 3), steps=5)(KEY, X, Y).status

    assert not status(0.5, 0.5, 0.0) & Status.STARVED_EXPERT
    assert status(0.5, 0.499, 0.001) & Status.STARVED_EXPERT


def test_admissible_can_be_asked_inside_a_program():
    fit = moejax.fit_gradient(moejax.moe(experts.linear(), gates.constant(), 1), steps=5)
    assert bool(jax.jit(lambda x: fit(KEY, x, Y).admissible)(X))


def reviewed(**change):
    """One mistake each, of those that once passed or ended in somebody else's traceback."""
    usual = {"model": moejax.moe(experts.linear(), gates.softmax(), 2), "key": KEY, "x": X, "y": Y, "hyper": None}
    return {**usual, **change}


class OneExpert(NamedTuple):
    def init(self, key, n_experts, x):
        return jnp.zeros(x.shape[1])

    def apply(self, params, x):
        return (x @ params)[None]


MISTAKES = {
    "key": (reviewed(key=3), "key"),
    "hyper": (reviewed(hyper=0.1), "hyper"),
    "restart": (reviewed(hyper={"restart": 2**31}), "restart"),
    "list": (reviewed(x=X.tolist()), "x: a list"),
    "complex": (reviewed(y=Y + 1j), "y"),
    "one expert for all": (reviewed(model=moejax.moe(OneExpert(), gates.softmax(), 2)), "expert"),
    "one column": (
        reviewed(model=moejax.moe(experts.linear(), gates.custom(lambda k, m, x: {}, lambda p, x: x[:, :1]), 2)),
        "gate",
    ),
    "dictionary": (reviewed(model=moejax.moe(experts.linear(), gates.softmax(), 2, expert_columns=[0]), x={"a": X}), "x"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    given, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        moejax.fit_gradient(given["model"], steps=1)(given["key"], given["x"], given["y"], given["hyper"])


def test_a_gate_that_chooses_has_no_likelihood_of_a_mixture():
    model = moejax.moe(experts.linear(), gates.top1(), 2, family=families.gaussian())
    with pytest.raises(ValueError, match="chooses one expert"):
        moejax.fit_gradient(model, losses.nll())


def test_a_step_of_ones_own_is_checked_too():
    fit = moejax.fit_gradient(moejax.moe(experts.linear(), gates.softmax(), 2))
    state = fit.init_state(KEY, X)
    with pytest.raises(ValueError, match=r"^y: shape"):
        fit.train_step(state, X, Y[:, None])
    with pytest.raises(ValueError, match="l1_expert"):
        fit.train_step(state, X, Y, {"l1_expert": 100.0})


def test_columns_that_are_not_there_are_named_in_predictions():
    model = moejax.moe(experts.linear(), gates.softmax(), 2, expert_columns=[0, X.shape[1] - 1])
    params = model.init(KEY, X)
    with pytest.raises(ValueError, match="expert_columns"):
        model.predict(params, X[:, :-1])
