"""The gradient solver's proximal modes: the same optimum by all of them, exact zeros, and what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import moejax
from moejax import experts, families, gates, losses, penalties
from moejax.fit import Status

pytestmark = pytest.mark.usefixtures("float64")

N, D, K = 60, 6, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
X[:, 1] += 0.7 * X[:, 0]
Y = X @ [2.0, 0, 0, 1, 0, -1] + 0.5 * RNG.normal(size=N)
KEY = jax.random.key(7)
BLOCKS = [[0, 1], [2, 4]]

ONE = moejax.moe(experts.linear(), gates.constant(), 1)
MIXTURE = moejax.moe(experts.linear(), gates.softmax(), K)
SPARSE = (penalties.l1("experts"), penalties.group_columns("experts", BLOCKS), penalties.l2("experts"))
# Fits that several tests share. All penalties of a model are in `hyper` throughout, so that each is compiled once.
EXACT = moejax.fit_gradient(ONE, optimizer="accelerated", penalty=SPARSE, steps=300)
NONE = {p.name: 0.0 for p in SPARSE}
WEIGHTS = {
    "l1": {"l1_experts": 0.3},
    "columns": {"columns_experts": 0.5},
    "sparse columns with ridge": {"l1_experts": 0.1, "columns_experts": 0.2, "l2_experts": 0.05},
}


def weights_of(fit):
    return np.asarray(fit.params["experts"]["weights"][0])


def null_gradient(x=X, y=Y):
    """Of the mean squared error in the coefficients, at 0 and the best intercept."""
    return -2 * (x - x.mean(axis=0)).T @ (y - y.mean()) / len(y)


# ---- one expert: convex, and known from elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize(("l1", "ratio"), [(0.5, 1.0), (0.3, 0.4)])
def test_one_expert_is_that_of_scikit_learn(l1, ratio):
    linear_model = pytest.importorskip("sklearn.linear_model")
    # Its mean squared error has a factor of 1/2.
    want = linear_model.ElasticNet(alpha=l1 / 2, l1_ratio=ratio, tol=1e-14, max_iter=100_000).fit(X, Y)
    if ratio == 1:
        got = EXACT(KEY, X, Y, NONE | {"l1_experts": l1})
    else:
        net = penalties.elastic_net("experts", ratio)
        got = moejax.fit_gradient(ONE, optimizer="accelerated", penalty=net, steps=300)(KEY, X, Y, {net.name: l1})
    np.testing.assert_allclose(weights_of(got), want.coef_, rtol=0, atol=1e-6)
    assert (weights_of(got) == 0).tolist() == (want.coef_ == 0).tolist()
    assert float(got.params["experts"]["intercept"][0]) == pytest.approx(want.intercept_, abs=1e-6)
    assert got.kkt < 1e-9


CRITICAL = {
    "l1": np.abs(null_gradient()).max(),
    "elastic_net": np.abs(null_gradient()).max() / 0.3,
    "group": np.abs(null_gradient()).max(),  # of one expert: its norm over experts is the absolute value
    "columns": max(np.linalg.norm(null_gradient()[block]) / np.sqrt(2) for block in ([0, 1], [2, 3], [4, 5])),
}
MADE = {
    "l1": penalties.l1("experts"),
    "elastic_net": penalties.elastic_net("experts", 0.3),
    "group": penalties.group("experts"),
    "columns": penalties.group_columns("experts", [[0, 1], [2, 3], [4, 5]]),
}


@pytest.mark.parametrize("name", CRITICAL)
def test_coefficients_are_zero_from_the_critical_weight_on_and_not_below(name):
    penalty, critical = MADE[name], CRITICAL[name]
    assert float(penalty.critical([jnp.asarray(null_gradient()[None])])) == pytest.approx(critical, rel=1e-12)
    fit = moejax.fit_gradient(ONE, optimizer="accelerated", penalty=penalty, steps=150)
    got = jax.vmap(lambda weight: fit(KEY, X, Y, {penalty.name: weight}))(critical * np.array([1.0001, 0.99]))
    zero = np.asarray(got.params["experts"]["weights"][:, 0] == 0)
    assert zero[0].all()
    assert not zero[1].all()
    assert (got.kkt < 1e-7).all()
    assert (np.asarray(got.status) & int(Status.CONVERGED)).all()


def test_features_leave_all_experts_at_once():
    target = np.column_stack([Y, X[:, 3] - X[:, 5], 0.2 * X[:, 0]])
    model = moejax.moe(experts.linear(3), gates.constant(), 1)
    fit = moejax.fit_gradient(model, optimizer="accelerated", penalty=penalties.group("experts"), steps=300)
    got = fit(KEY, X, target, {"group_experts": 0.2})
    zero = np.asarray(got.params["experts"]["weights"][0] == 0)
    assert zero.all(axis=1).tolist() == zero.any(axis=1).tolist()
    assert 0 < zero.all(axis=1).sum() < D
    assert got.kkt < 1e-9


# ---- proximal steps after those of an optimizer ---------------------------------------------------------------------


def cosine(make, steps):
    return lambda rate: make(optax.cosine_decay_schedule(rate, steps))


OPTIMIZERS = {  # with their learning rate and how near they come
    "sgd": (optax.sgd, 0.1, 1500, 1e-12),
    "nesterov, clipped": (
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate, momentum=0.9, nesterov=True)),
        0.02,
        1500,
        1e-12,
    ),
    "adam": (cosine(optax.adam, 4000), 0.05, 4000, 1e-6),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reaches_the_optimum_of_loss_and_penalties(name):
    optimizer, rate, steps, apart = OPTIMIZERS[name]
    fit = moejax.fit_gradient(ONE, optimizer=optimizer, penalty=SPARSE, steps=steps, learning_rate=rate, proximal=True)
    for hyper in WEIGHTS.values():
        got, want = fit(KEY, X, Y, NONE | hyper), EXACT(KEY, X, Y, NONE | hyper)
        np.testing.assert_allclose(weights_of(got), weights_of(want), rtol=0, atol=apart)
        assert (weights_of(got) == 0).tolist() == (weights_of(want) == 0).tolist()
        assert float(got.objective) == pytest.approx(float(want.objective), rel=1e-8)
        assert got.kkt < 10 * apart
        assert want.kkt < 1e-10
        assert (weights_of(want) == 0).sum() >= 2


@pytest.mark.parametrize("accelerated", [False, True])
def test_steps_by_hand(accelerated):
    options = {"optimizer": "accelerated"} if accelerated else {"optimizer": optax.sgd, "proximal": True}
    fit = moejax.fit_gradient(ONE, penalty=SPARSE, learning_rate=0.1, **options)
    hyper = {"l1_experts": 0.3}
    state = fit.init_state(KEY, X, hyper)
    w, b = weights_of(state), 0.0
    step = jax.jit(lambda state: fit.train_step(state, X, jnp.asarray(Y), hyper))
    for _ in range(1 if accelerated else 5):  # the first accelerated step is one of size `learning_rate`
        state, value = step(state)
        residual = X @ w + b - Y
        assert float(value) == pytest.approx(np.mean(residual**2) + 0.3 * np.abs(w).sum(), rel=1e-12)
        w, b = w - 0.1 * 2 * X.T @ residual / N, b - 0.1 * 2 * residual.mean()
        w = np.sign(w) * np.maximum(np.abs(w) - 0.03, 0)
        np.testing.assert_allclose(weights_of(state), w, rtol=1e-10, atol=1e-14)


def test_coefficients_without_a_gradient_leave_too():
    x = X.copy()
    x[:, 2] = 0
    fit = moejax.fit_gradient(ONE, steps=500, learning_rate=0.05, proximal=True)
    got = fit(KEY, x, Y, {"l1_experts": 0.05})
    assert weights_of(got)[2] == 0
    assert weights_of(got)[0] != 0


def test_what_an_optimizer_does_not_move_no_penalty_moves():
    fit = moejax.fit_gradient(ONE, optimizer=optax.sgd(0.0), steps=3, proximal=True)
    start = fit.init_state(KEY, X)
    got = fit(KEY, X, Y, {"l1_experts": 10.0, "group_experts": 10.0})
    np.testing.assert_allclose(weights_of(got), weights_of(start), rtol=1e-14)


def test_batches_may_have_proximal_steps():
    options = {"optimizer": optax.sgd, "steps": 300, "learning_rate": 0.02, "proximal": True}
    hyper = NONE | {"l1_experts": 0.3}
    got = moejax.fit_gradient(ONE, batch_size=20, penalty=SPARSE, **options)(KEY, X, Y, hyper)
    np.testing.assert_allclose(weights_of(got), weights_of(EXACT(KEY, X, Y, hyper)), atol=0.1)
    assert (weights_of(got) == 0).any()


# ---- mixtures -------------------------------------------------------------------------------------------------------

MANY = np.where(X[:, 2] > 0, X @ [2.0, 0, 0, 1, 0, 0], X @ [0, 0, 0, -1, 0, 2.0]) + 0.2 * RNG.normal(size=N)
SETTING = {"l1_experts": 0.02, "group_experts": 0.01, "l2_experts": 0.001, "l1_gate": 0.01, "group_gate": 0.01}
ACCELERATED = moejax.fit_gradient(MIXTURE, optimizer="accelerated", steps=4000, record_every=1)


def test_a_mixture_has_exact_zeros_and_an_objective_that_never_rises():
    got = ACCELERATED(KEY, X, MANY, SETTING)
    for part in ("experts", "gate"):
        zero = np.asarray(got.params[part]["weights"] == 0)
        assert 3 <= zero.sum() < zero.size
    assert got.kkt < 1e-5  # an expert ends with next to no rows, which moves slowly
    assert Status(int(got.status)) & Status.CONVERGED
    history = np.asarray(got.history)
    assert np.diff(history).max() < 1e-14
    assert float(got.objective) == pytest.approx(history[-1], rel=1e-8)
    assert history[-1] < 0.3 * history[0]

    # A fit from there by another optimizer stays there.
    optimizer = cosine(lambda rate: optax.sgd(rate, momentum=0.9), 300)
    fit = moejax.fit_gradient(MIXTURE, optimizer=optimizer, steps=300, learning_rate=0.005, proximal=True)
    again = fit(KEY, X, MANY, SETTING, start=got.params)
    for part in ("experts", "gate"):
        np.testing.assert_allclose(again.params[part]["weights"], got.params[part]["weights"], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(again.params[part]["weights"] == 0, got.params[part]["weights"] == 0)


def test_the_objective_of_a_likelihood_never_rises_either():
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian(variance_floor=0.05))
    fit = moejax.fit_gradient(model, losses.nll(), "accelerated", steps=200, record_every=1, learning_rate=1e4)
    assert "learning_rate" not in fit.hyper
    hyper = {"l1_gate": 0.02, "l1_experts": 0.02}
    got = fit(KEY, X, MANY, hyper)
    assert np.diff(np.asarray(got.history)).max() < 1e-14
    assert got.kkt < 1e-2 < got.history[0] - got.history[-1]


def test_a_sweep_of_accelerated_fits_is_its_fits():
    fit = moejax.fit_gradient(MIXTURE, optimizer="accelerated", steps=50)
    axes = {"l1_experts": [0.0, 0.05, 50.0], "restart": 2}
    result = moejax.sweep(fit, axes, chunk_size=6, threads=1, progress=False)(KEY, X, MANY)
    alone = fit(KEY, X, MANY, {"l1_experts": 0.05, "restart": 1}).params["experts"]["weights"]
    swept = result.sel(l1_experts=0.05, restart=1).fits.params["experts"]["weights"]
    np.testing.assert_allclose(swept, alone, rtol=1e-6, atol=1e-9)
    zeros = (result.fits.params["experts"]["weights"] == 0).sum(axis=(2, 3))
    assert (zeros[0] == 0).all()
    assert (zeros[2] == K * D).all()


def test_adam_with_proximal_steps_may_be_vmapped():
    fit = moejax.fit_gradient(MIXTURE, steps=100, learning_rate=0.05, proximal=True)
    many = jax.vmap(lambda l1: fit(KEY, X, MANY, {"l1_experts": l1, "group_gate": 0.01}))(jnp.array([0.0, 0.05, 50.0]))
    zeros = (many.params["experts"]["weights"] == 0).sum(axis=(1, 2))
    assert zeros[0] == 0
    assert 0 < zeros[1] < zeros[2] == K * D


def test_accelerated_steps_are_of_the_precision_of_the_data(float32):
    got = EXACT(KEY, X.astype("float32"), Y.astype("float32"), NONE | {"l1_experts": 0.3})
    assert got.params["experts"]["weights"].dtype == jnp.float32
    np.testing.assert_allclose(weights_of(got), [1.84992665, 0, 0, 0.88052023, 0, -0.89552478], atol=1e-4)
    assert got.kkt < 1e-4


# ---- what is refused ------------------------------------------------------------------------------------------------

TOP1 = moejax.moe(experts.linear(), gates.top1(), K)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "fista"}, r"^optimizer: 'fista' was given; .*'accelerated'"),
        ({"optimizer": "accelerated", "batch_size": 8}, r"^batch_size: 8 was given beside 'accelerated'"),
        ({"optimizer": "accelerated", "model": TOP1}, r"^optimizer: 'accelerated' .*soft gate"),
    ],
)
def test_fit_gradient_refuses(options, message):
    model = options.pop("model", ONE)
    with pytest.raises(ValueError, match=message):
        moejax.fit_gradient(model, **options)


@pytest.mark.parametrize("mode", [{"proximal": True}, {"optimizer": "accelerated"}])
def test_penalties_whose_steps_do_not_compose_are_refused(mode):
    both = [penalties.l2("gate"), penalties.l1("gate"), penalties.elastic_net("experts"), penalties.l2("experts")]
    fit = moejax.fit_gradient(MIXTURE, penalty=both, **mode)
    fit.check_hyper({"l1_gate": 0.1, "l2_experts": 0.1})
    for names in (("l1_gate", "l2_gate"), ("elastic_net_experts", "l2_experts")):
        with pytest.raises(ValueError, match=r"^penalty: .* after that of"):
            fit(KEY, X, Y, dict.fromkeys(names, 0.1))
    moejax.fit_gradient(MIXTURE, penalty=both).check_hyper({"l1_gate": 0.1, "l2_gate": 0.1})
