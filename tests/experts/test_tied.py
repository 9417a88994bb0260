"""Tied experts: the bound summed term by term, steps by enumeration of memberships, least squares, groups found again."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn.metrics import adjusted_rand_score

import moejax
from moejax import datasets, experts, families, gates, losses, plots, tied
from moejax._linear import asked, unpacked
from moejax.model import Data, leaders

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N, D, K, Q = 24, 3, 3, 3
X, Y, OFFSET = RNG.normal(size=(N, D)) + 0.5, RNG.normal(size=N), RNG.normal(size=N)
CASES, GROUPS = RNG.integers(1, 4, N // 2).repeat(2).astype(float), np.arange(N) // 2


def mixture(groups=Q, k=K, gate=None, **family):
    return moejax.moe(experts.tied(groups), gate or gates.softmax(), k, family=families.gaussian(**family))


MODEL = mixture()
EM = moejax.fit_em(MODEL, record_every=1)


def drawn(hyper=(), model=MODEL, seed=1):
    """Params of no fit: every number is drawn."""
    params = model.init(KEY, X)
    rng = np.random.default_rng(seed)
    trainable = model.trainable(params)
    params = jax.tree.map(lambda v, t: jnp.asarray(rng.normal(size=v.shape)) if t else v, params, trainable)
    params["family"] = jax.tree.map(lambda v: 0.3 * v, params["family"])  # no scale at its floor
    return model.with_hyper(params, dict(hyper))


def memberships(p, k):
    """The probabilities of groups (d, Q) and their proportions (Q,) in expert k."""
    taking = np.arange(np.shape(p["values"])[1]) < p["n_groups"][k]
    logits, shares = (np.where(taking, p[name][k], -np.inf) for name in ("memberships", "shares"))
    return special.softmax(logits, axis=1), special.softmax(shares)


def gate_log_probs(params, x):
    active = np.asarray(params.get("active", np.ones(params["gate"]["weights"].shape[0]))) > 0
    logits = x @ np.asarray(params["gate"]["weights"]).T + np.asarray(params["gate"]["intercept"])
    return special.log_softmax(np.where(active, logits, -np.inf), axis=1)


def bound(params, x, y, weights=None, offset=None, groups=None):
    """The total bound of the module's docstring, term by term."""
    p, log_gate = jax.tree.map(np.asarray, params["experts"]), gate_log_probs(params, x)
    weights = np.ones(len(y)) if weights is None else weights
    groups = np.arange(len(y)) if groups is None else groups
    taking = np.flatnonzero(np.asarray(params.get("active", np.ones(log_gate.shape[1]))) > 0)
    total, scores = 0.0, np.full(log_gate.shape, -np.inf)
    for k in taking:
        tau, share = memberships(p, k)
        scale = np.exp(params["family"]["log_scale"][k])
        for j, q in itertools.product(*map(range, tau.shape)):
            if tau[j, q] > 0:
                total += tau[j, q] * (np.log(share[q]) - np.log(tau[j, q]))
        for i in range(len(y)):
            mean, variance = p["intercept"][k] + (0 if offset is None else offset[i]), 0.0
            for j in range(tau.shape[0]):
                first, second = tau[j] @ p["values"][k], tau[j] @ p["values"][k] ** 2
                mean += x[i, j] * first
                variance += x[i, j] ** 2 * (second - first**2)
            square = (y[i] - mean) ** 2 + variance
            scores[i, k] = -0.5 * square / scale**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        total += weights[rows[0]] * special.logsumexp(log_gate[rows[0]] + scores[rows].sum(axis=0))
    return total


# ---- the bound ------------------------------------------------------------------------------------------------------

MORE = {
    "rows": ({}, {}),
    "weights and offset": ({}, {"weights": CASES, "offset": OFFSET}),
    "groups of rows": ({}, {"weights": CASES, "groups": GROUPS}),
    "fewer groups": ({"n_groups": 2.0}, {"weights": CASES}),
    "fewer experts": ({"n_experts": 2.0, "n_groups": 1.0}, {}),
}


def value(params, weights=None, offset=None, groups=None):
    leader = None if groups is None else leaders(groups)
    weights = np.ones(N) if weights is None else weights
    data = Data(MODEL.prepare(X), jnp.asarray(Y), offset, leader, weights.sum())
    return losses.nll().value(MODEL, params, data, weights / weights.sum())


@pytest.mark.parametrize("name", MORE)
def test_the_loss_is_the_bound_summed_term_by_term(name):
    hyper, more = MORE[name]
    params = drawn(hyper)
    total = np.sum(more.get("weights", np.ones(N)))
    assert float(value(params, **more)) == pytest.approx(-bound(params, X, Y, **more) / total, rel=1e-12)


@pytest.mark.parametrize("name", ["groups of rows", "fewer experts"])
def test_gradients_are_those_of_the_bound(name):
    hyper, more = MORE[name]
    params = drawn(hyper)
    total = np.sum(more.get("weights", np.ones(N)))
    slopes_of = jax.jit(jax.grad(lambda p: value({**params, **p}, **more)))
    gradient = slopes_of({part: params[part] for part in ("experts", "family")})
    assert not gradient["experts"].pop("n_groups").any()
    for path, slopes in jax.tree_util.tree_leaves_with_path(gradient):
        part, leaf = (step.key for step in path)
        for at in list(np.ndindex(slopes.shape))[:: 1 + slopes.size // 9]:

            def moved(by, part=part, leaf=leaf, at=at):
                new = {**params, part: {**params[part], leaf: params[part][leaf].at[at].add(by)}}
                return -bound(new, X, Y, **more) / total

            assert (moved(1e-5) - moved(-1e-5)) / 2e-5 == pytest.approx(float(slopes[at]), abs=1e-8)


def test_what_is_compared_is_the_density_at_the_mean_coefficients():
    params = drawn()
    p = jax.tree.map(np.asarray, params["experts"])
    means = np.array([memberships(p, k)[0] @ p["values"][k] for k in range(K)])
    eta, scale = X @ means.T + p["intercept"], np.exp(params["family"]["log_scale"])
    log_p = special.logsumexp(gate_log_probs(params, X) + stats.norm.logpdf(Y[:, None], eta, scale), axis=1)
    np.testing.assert_allclose(MODEL.log_prob(params, X, Y), log_p, rtol=1e-10)
    assert float(EM.score(params, X, Y, CASES)) == pytest.approx(-CASES @ log_p / CASES.sum(), rel=1e-12)
    gradient = moejax.fit_gradient(MODEL, losses.nll())
    assert float(gradient.score(params, X, jnp.asarray(Y), CASES)) == pytest.approx(-CASES @ log_p / CASES.sum(), rel=1e-12)
    np.testing.assert_allclose(MODEL.expert_predictions(params, X), eta, rtol=1e-10)
    np.testing.assert_allclose(MODEL.expert.coefficients(params["experts"]), means, rtol=1e-12)


def test_steps_by_gradient_see_the_same_bound():
    params = drawn()
    fit = moejax.fit_gradient(MODEL, losses.nll())
    state = fit.init_state(KEY, X, start={part: params[part] for part in ("experts", "gate", "family")})
    _, objective = fit.train_step(state, X, jnp.asarray(Y), weights=CASES)
    assert float(objective) == pytest.approx(-bound(params, X, Y, CASES) / CASES.sum(), rel=1e-12)


# ---- the M-step, by all Q^d memberships -----------------------------------------------------------------------------


def expectation(tau, y, x, w, values, intercept, fixed=None):
    """The mean over memberships, some of them fixed, of sum w log N(y; intercept + x . coefficients, 1), by enumeration."""
    total = 0.0
    for config in itertools.product(range(tau.shape[1]), repeat=len(tau)):
        if fixed is None or config[fixed[0]] == fixed[1]:
            odds = np.prod([tau[j, q] for j, q in enumerate(config) if fixed is None or j != fixed[0]])
            total += odds * -0.5 * w @ (y - intercept - x @ values[list(config)]) ** 2
    return total


@pytest.mark.parametrize("n_groups", [2.0, 3.0])
def test_an_m_step_is_coordinate_ascent(n_groups):
    expert, x = MODEL.expert, MODEL.prepare(X).expert
    params = drawn({"n_groups": n_groups})["experts"]
    w = np.random.default_rng(2).random((K, N)) + 0.1  # totals: responsibility times weight over the scale's square
    slope = -(Y - np.asarray(expert.apply(params, x))) * w
    ask = expert.statistics(params, x, jnp.asarray(slope / 40), jnp.asarray(w / 40))
    sums = unpacked(*asked(x, [ask])[0], jnp.zeros(D))
    new = jax.tree.map(np.asarray, expert.m_step(params, sums, (), 40.0))
    old, q = jax.tree.map(np.asarray, params), int(n_groups)
    for k in range(K):
        tau, share = (v[..., :q] for v in memberships(old, k))
        values = old["values"][k, :q]
        for j in range(D):  # one after another
            fixed = [expectation(tau, Y, X, w[k], values, old["intercept"][k], (j, g)) for g in range(q)]
            tau[j] = special.softmax(np.log(share) + fixed)
        got, shares = memberships(new, k)
        np.testing.assert_allclose(got[:, :q], tau, atol=1e-10)
        np.testing.assert_allclose(shares[:q], tau.mean(axis=0), atol=1e-10)
        assert not got[:, q:].any()
        # Least squares over every row as often as there are memberships, by their probabilities.
        configs = [list(c) for c in itertools.product(range(q), repeat=D)]
        odds = np.array([np.prod(tau[range(D), c]) for c in configs])
        design = np.concatenate([np.c_[X @ np.eye(q)[c], np.ones(N)] for c in configs])
        root = np.sqrt(np.concatenate([p * w[k] for p in odds]))
        best = np.linalg.lstsq(design * root[:, None], np.tile(Y, len(configs)) * root, rcond=None)[0]
        np.testing.assert_allclose([*new["values"][k, :q], new["intercept"][k]], best, rtol=1e-8)
        np.testing.assert_array_equal(new["values"][k, q:], old["values"][k, q:])


# ---- fits -----------------------------------------------------------------------------------------------------------

TRUTHS = [datasets.tied(seed, n=400, d=8) for seed in range(10)]
BIG = mixture(4, 4)  # whose one program serves all fits of 400 rows and 8 features
GRID = {"n_experts": [2, 3, 4], "n_groups": [2, 3, 4], "l2_gate": [1e-3], "restart": 12}


def swept(x, y, **axes):
    fit = moejax.fit_em(BIG, record_every=1, max_iter=200)
    return moejax.sweep(fit, {**GRID, **axes}, progress=False)(KEY, x, y)


@pytest.fixture(scope="module")
def found():
    return [swept(truth.x, truth.y) for truth in TRUTHS]


def rises(history):
    """How much the objective ever rose, beside its size."""
    return np.nanmax(np.diff(history, axis=-1) / np.maximum(1, np.abs(history[..., 1:])))


def test_the_bound_never_falls(found):
    for result in found:
        assert rises(result.fits.history) < 1e-14
        assert np.isfinite(result.fits.objective).all()


@pytest.mark.usefixtures("quickly")
def test_the_bound_never_falls_for_weighted_groups_of_rows_and_fewer_experts():
    truth = datasets.tied(3, n=120, d=5)
    weights, groups = np.repeat(np.random.default_rng(0).integers(0, 3, 40), 3).astype(float), np.arange(120) // 3
    axes = {"n_experts": [1, 2, 3], "n_groups": [1, 3], "restart": 3}
    result = moejax.sweep(EM, axes, progress=False)(KEY, truth.x, truth.y, weights=weights, groups=groups)
    assert rises(result.fits.history) < 1e-14
    for at in np.ndindex(result.shape):
        params = jax.tree.map(lambda v, at=at: v[at], result.fits.params)
        want = -bound(params, truth.x, truth.y, weights, groups=groups) / weights.sum()
        assert result.fits.objective[at] == pytest.approx(want, rel=1e-10)
    assert (result.fits.objective[:, 1].min(axis=-1) < result.fits.objective[:, 0].min(axis=-1)).all()


def recovered(result, truth, scale=1.0):
    """The mean adjusted Rand index of the best of three experts' groups, and the relative error of the coefficients."""
    objective = np.where(result.fits.admissible, result.fits.objective, np.inf)
    params = jax.tree.map(lambda v: v[np.unravel_index(objective.argmin(), objective.shape)], result.fits.params)
    coefficients = np.asarray(BIG.expert.coefficients(params["experts"]))[:3] / scale
    order = np.square(coefficients[None] - truth.weights[:, None]).sum(axis=2).argmin(axis=1)
    _, labels = BIG.expert.labels(params["experts"])
    rand = np.mean([adjusted_rand_score(truth.groups[k], labels[order[k]]) for k in range(3)])
    return rand, np.linalg.norm(coefficients[order] - truth.weights) / np.linalg.norm(truth.weights)


def test_groups_and_values_that_drew_the_data_are_found_again(found):
    """A group's value has a standard error near 0.3 / sqrt(400 / 3 * 8 / 3) = 0.016, of values about 2 and apart by at least
    1: where an optimum is the right one, every group is, and the error is about a hundredth. Two groups cannot do it.
    """
    pairs = [(result.sel(n_experts=3), truth) for result, truth in zip(found, TRUTHS, strict=True)]
    right, wrong = (np.array([recovered(result.sel(n_groups=q), truth) for result, truth in pairs]) for q in (3, 2))
    assert ((right[:, 0] == 1) & (right[:, 1] < 0.03)).sum() >= 9
    assert (wrong[:, 0] < 0.8).all()
    assert (wrong[:, 1] > 0.15).all()


@pytest.mark.usefixtures("quickly")
def test_float32_finds_the_same(float32):
    for scale, shift in ((1.0, 0.0), (1e-3, 0.0), (1e3, 3.0)):
        x, y = (v.astype(np.float32) for v in (TRUTHS[0].x, TRUTHS[0].y * scale + shift))
        result = swept(x, y, n_experts=[3], n_groups=[3])
        assert rises(result.fits.history) < 1e-6  # rounding alone
        rand, error = recovered(result, TRUTHS[0], scale)
        assert rand == 1
        assert error < 0.03


def test_one_expert_with_one_group_and_with_a_group_for_each_feature():
    x = RNG.normal(size=(400, 8)) * (np.arange(8) < 4)  # four of the columns are 0 and tell nothing
    y = x[:, :4] @ [1.0, -2.0, 0.3, 4.0] + 0.5 + 0.1 * RNG.normal(size=400)
    fits = swept(x, y, n_experts=[1], n_groups=[1, 4], restart=1).fits
    one, each = (jax.tree.map(lambda v, i=i: v[0, i, 0, 0], fits.params) for i in range(2))
    slope, intercept = np.polyfit(x.sum(axis=1), y, 1)
    np.testing.assert_allclose(BIG.expert.coefficients(one["experts"])[0], np.full(8, slope), rtol=1e-7)
    np.testing.assert_allclose(one["experts"]["intercept"][0], intercept, rtol=1e-7)
    rest = y - slope * x.sum(axis=1) - intercept
    assert fits.log_likelihood[0, 0, 0, 0] == pytest.approx(stats.norm.logpdf(rest, 0, rest.std()).sum(), rel=1e-7)
    best = np.linalg.lstsq(np.c_[x[:, :4], np.ones(400)], y, rcond=None)[0]
    np.testing.assert_allclose(BIG.expert.coefficients(each["experts"])[0, :4], best[:4], rtol=1e-6)
    # What is left of the bound is that each of four features is in one of four groups: log 4 each.
    rest = y - x[:, :4] @ best[:4] - best[4]
    log_p = stats.norm.logpdf(rest, 0, rest.std()).sum()
    penalty = 1e-3 * np.square(each["gate"]["weights"]).sum()
    assert -400 * (fits.objective[0, 1, 0, 0] - penalty) == pytest.approx(log_p - 4 * np.log(4), abs=1e-3)


# ---- choosing K and Q -----------------------------------------------------------------------------------------------


def entropy(p):
    return -special.xlogy(p, p).sum()


@pytest.mark.parametrize(("count", "q"), [(2, 3), (4, 2)])
def test_icl_by_hand(found, count, q):
    result, truth = found[0].sel(n_experts=count, n_groups=q, l2_gate=1e-3, restart=1), TRUTHS[0]
    (n, d), params = truth.x.shape, result.fits.params
    assert (params["active"].sum(), *params["experts"]["n_groups"]) == (count, q, q, q, q)
    total = bound(params, truth.x, truth.y) - n * 1e-3 * np.square(params["gate"]["weights"][:count]).sum()
    published = total - (d * (count - 1) + count * q) * np.log(n) / 2 - count * (q - 1) * np.log(d) / 2
    assert tied.icl(result.fits) == pytest.approx(published, rel=1e-9)
    r = np.asarray(BIG.responsibilities(params, truth.x, truth.y))
    entropy = sum(special.entr(memberships(params["experts"], k)[0]).sum() for k in range(count))
    free = (d + 1) * (count - 1) + count * (q + 2)
    full = total - entropy + np.log(r.max(axis=1)).sum() - free * np.log(n) / 2 - count * (q - 1) * np.log(d) / 2
    assert tied.icl(result.fits, form="full") == pytest.approx(full, rel=1e-9)


@pytest.mark.parametrize("form", tied.FORMS)
def test_icl_finds_the_numbers_of_experts_and_groups(found, form):
    chosen = [moejax.select(result, criterion=lambda fits: -tied.icl(fits, form=form)).chosen for result in found]
    assert sum((c["n_experts"], c["n_groups"]) == (3, 3) for c in chosen) >= 8


# ---- told and drawn -------------------------------------------------------------------------------------------------


def test_labels_are_in_the_order_of_values():
    params = {
        "values": jnp.array([[3.0, -1, 2], [0, 5, 4]]),
        "memberships": jnp.array([[[9.0, 0, 0], [0, 9, 0], [0, 0, 9]], [[9.0, 0, 0], [0, 0, 9], [0, 8, 9]]]),
        "n_groups": jnp.array([3.0, 2]),
    }
    values, labels = experts.tied(3).labels(params)
    np.testing.assert_array_equal(values, [[-1, 2, 3], [0, 5, np.nan]])
    np.testing.assert_array_equal(labels, [[2, 0, 1], [0, 0, 1]])
    ax = plots.tied_groups(values, labels, shares=[0.25, 0.75], feature_names=["a", "b", "c"])
    ax.figure.canvas.draw()
    image = ax.get_images()[0]
    np.testing.assert_array_equal(image.get_array(), [[3, -1, 2], [0, 0, 5]])
    assert image.get_clim() == (-5, 5)
    assert [text.get_text() for text in ax.texts] == ["3", "1", "2", "1", "1", "2"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["expert 1 (25%)", "expert 2 (75%)"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    assert ax.figure.axes[1].get_ylabel() == "value of the group"


def test_draws_have_their_groups_apart():
    for truth in TRUTHS:
        for weights, groups in zip(truth.weights, truth.groups, strict=True):
            values = [np.unique(weights[groups == q]) for q in range(3)]
            assert [len(v) for v in values] == [1, 1, 1]
            assert np.diff(np.concatenate(values)).min() >= 1
        assert np.std(truth.y - np.sum(truth.x * truth.weights[truth.expert], axis=1)) == pytest.approx(0.3, rel=0.15)
    again = datasets.tied(3, n=5, d=8)
    np.testing.assert_array_equal(again.groups, TRUTHS[3].groups)
    np.testing.assert_array_equal(again.weights, TRUTHS[3].weights)


LINEAR = moejax.moe(experts.linear(), gates.constant(), 1, family=families.gaussian())
BAD = [
    (lambda: experts.tied(0), "^groups: 0 was given; want a whole number of at least 1"),
    (lambda: experts.tied(3, init_scale=-1.0), "^init_scale: -1.0 was given"),
    (lambda: EM(KEY, X, Y, {"n_groups": 4}), r"^hyper\['n_groups'\]: 4 was given; want whole numbers from 1 to 3"),
    (lambda: moejax.sweep(EM, {"n_groups": [1.5]}), r"^hyper\['n_groups'\]: .*want whole numbers from 1 to 3"),
    (lambda: moejax.fit_em(LINEAR)(KEY, X, Y, {"n_groups": 1}), "^hyper: 'n_groups' was given"),
    (
        lambda: moejax.fit_em(moejax.moe(experts.tied(), gates.constant(), 2, family=families.poisson())),
        "^family: Poisson.* was given for Tied.*want .*families.gaussian",
    ),
    (
        lambda: moejax.fit_gradient(moejax.moe(experts.tied(), gates.top1(), 2, family=families.student_t()), losses.nll()),
        "^loss: nll was given for a gate that chooses",
    ),
    (
        lambda: moejax.fit_gradient(moejax.moe(experts.tied(), gates.softmax(), 2, family=families.gamma()), losses.nll()),
        "^family: Gamma.* was given for Tied.*want .*families.gaussian",
    ),
    (lambda: tied.icl(None, form="both"), r"^form: 'both' was given; want one of \['published', 'full'\]"),
    (lambda: tied.icl(moejax.Fit({"experts": {}}, 0.0, 0.0, None, 0, 0.0, 1)), "^fit: one of other experts"),
    (lambda: tied.icl(moejax.Fit(drawn(), 0.0, np.nan, None, 0, 0.0, 1)), "^fit: one without a likelihood"),
    (lambda: datasets.tied(0, n_groups=11), "^n_groups: 11 was given; want at most d, which is 10"),
    (lambda: datasets.tied(0, n_groups=0), "^n_groups: 0 was given; want a whole number of at least 1"),
    (lambda: datasets.tied(0, spread=-1.0), "^spread"),
    (lambda: plots.tied_groups([[1.0, 2.0]], [[0, 2]]), "^groups: .* want whole numbers from 0 to 1"),
    (lambda: plots.tied_groups([[1.0], [2.0]], [[0, 0]]), "^values: shape .* a row for each expert"),
    (lambda: plots.tied_groups([[1.0, np.nan]], [[0, 1]]), "^values of groups with features: 1 of 2 values are NaN"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input_is_one_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
