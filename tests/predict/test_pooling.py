"""Pooling of experts and metrics of classes, against SciPy, scikit-learn and sums written out here."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

import moejax
from moejax import experts, families, gates, metrics, pooling

pytestmark = pytest.mark.usefixtures("float64")

N, K = 5, 3
X = np.random.default_rng(0).normal(size=(N, 2))
MANY = np.random.default_rng(5).normal(size=(60, 2))
LEVELS = np.array([1e-6, 0.05, 0.5, 0.9, 1 - 1e-6])
FAMILIES = {
    "gaussian": (None, families.gaussian(), {"log_scale": np.log([0.5, 1.0, 0.3])}),
    "t": (None, families.student_t(), {"log_scale": np.log([0.5, 1.0, 0.3]), "log_df": np.log([1.5, 4.0, 30.0])}),
    "gamma": (None, families.gamma(), {"log_shape": np.log([0.6, 3.0, 8.0])}),
    "poisson": (None, families.poisson(), {}),
    "bernoulli": (None, families.bernoulli(), {}),
    "location-scale": (2, families.location_scale(scale_floor=0.1), {}),
}
HUMPS = {"gamma, humps": (None, families.gamma(), {"log_shape": np.log([1.5, 6.0, 20.0])})}
every_family = pytest.mark.parametrize("name", FAMILIES)


@cache
def mixture(name, double=True, many=False):
    """A model, params, gate probabilities (n, K), and SciPy's distribution of each expert and row (of MANY, or of X)."""
    x = MANY if many else X
    outputs, family, phi = (FAMILIES | HUMPS)[name]
    model = moejax.moe(experts.linear(outputs, init_scale=1.5), gates.softmax(init_scale=0.7), K, family=family)
    params = model.init(jax.random.key(1), x)
    params["family"] = {key: jnp.asarray(leaf) for key, leaf in phi.items()}
    eta = np.asarray(model.eta(params, model.prepare(x)))
    value = {key: np.exp(leaf)[:, None] for key, leaf in phi.items()}
    if name == "gaussian":
        each = stats.norm(eta, value["log_scale"])
    elif name == "t":
        each = stats.t(value["log_df"], eta, value["log_scale"])
    elif name.startswith("gamma"):
        each = stats.gamma(value["log_shape"], scale=np.exp(eta) / value["log_shape"])
    elif name == "poisson":
        each = stats.poisson(np.exp(eta))
    elif name == "bernoulli":
        each = stats.bernoulli(1 / (1 + np.exp(-eta)))
    else:
        each = stats.norm(eta[..., 0], np.sqrt(np.exp(2 * eta[..., 1]) + 0.1**2))
    return model, params, np.asarray(model.gate_probs(params, x)), each


# ---- the whole distribution -----------------------------------------------------------------------------------------


@every_family
def test_density_and_distribution_function_are_sums_of_scipys_on_rows_and_on_grids(name):
    model, params, probs, each = mixture(name)
    grid = np.arange(N)[:, None] + np.array([1.0, 2.0, 4.0])
    grid = grid % 2 if name == "bernoulli" else grid
    mass = each.pmf if hasattr(each.dist, "pmf") else each.pdf
    for got, own in ((pooling.density, mass), (pooling.cdf, each.cdf)):
        want = np.stack([(probs.T * own(column)).sum(axis=0) for column in grid.T], axis=1)
        np.testing.assert_allclose(got(model, params, X, grid), want, rtol=1e-9)
        np.testing.assert_allclose(got(model, params, X, grid[:, 1]), want[:, 1], rtol=1e-9)


@every_family
def test_quantiles_are_where_scipys_distribution_function_reaches_them(name):
    model, params, probs, each = mixture(name)
    got = np.asarray(pooling.quantiles(model, params, X, LEVELS))
    assert got.shape == (N, len(LEVELS))
    for column, level in zip(got.T, LEVELS, strict=True):
        at, below = ((probs.T * each.cdf(y)).sum(axis=0) for y in (column, column - 1e-9))
        if name in ("poisson", "bernoulli"):  # the smallest whole number that reaches it
            assert (column == np.floor(column)).all()
            assert (at >= level - 1e-12).all()
            assert (below < level).all()
        else:
            np.testing.assert_allclose(at, level, rtol=0, atol=1e-12)


def test_of_one_normal_expert_quantiles_and_interval_are_the_normal_ones():
    model = moejax.moe(experts.linear(), gates.constant(), 1, family=families.gaussian())
    params = model.init(jax.random.key(0), X)
    params["family"] = {"log_scale": jnp.log(jnp.asarray([0.7]))}
    mean, offset = np.asarray(model.predict(params, X)), np.arange(N, dtype=float)
    got = pooling.interval(model, params, X, 0.8, offset)
    want = np.stack(stats.norm.interval(0.8, mean + offset, 0.7), axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    np.testing.assert_allclose(pooling.quantiles(model, params, X, 0.5), mean, rtol=0, atol=1e-14)
    several = jax.vmap(lambda s: pooling.quantiles(model, params | {"family": {"log_scale": s[None]}}, X, jnp.array([0.9])))
    want = mean + np.exp([[0.0], [0.5]]) * stats.norm.ppf(0.9)
    np.testing.assert_allclose(several(jnp.asarray([0.0, 0.5]))[..., 0], want, rtol=1e-10, atol=1e-12)
    broken = params | {"family": {"log_scale": jnp.full(1, jnp.nan)}}
    assert np.isnan(pooling.quantiles(model, broken, X, 0.5)).all()


@pytest.mark.usefixtures("float32")
def test_quantiles_in_float32_are_exact_to_its_rounding():
    model, params, probs, each = mixture("gaussian", double=False)
    got = pooling.quantiles(model, params, X.astype(np.float32), [0.1, 0.6])
    assert got.dtype == jnp.float32
    np.testing.assert_allclose((probs.T * each.cdf(np.asarray(got[:, 1]))).sum(axis=0), 0.6, atol=2e-6)


NORMAL = families.gaussian(variance_floor=1e-6)


def placed(means, scales, probs, family=None):
    """A mixture of these at every row, by intercepts alone."""
    model = moejax.moe(
        experts.linear(), gates.constant(), len(means), family=family or families.gaussian(variance_floor=1e-6)
    )
    params = model.init(jax.random.key(0), X)
    params["experts"] = {"weights": jnp.zeros_like(params["experts"]["weights"]), "intercept": jnp.asarray(means)}
    params["gate"] = {"logits": jnp.log(jnp.asarray(probs))}
    params["family"] = params["family"] | {"log_scale": jnp.log(jnp.asarray(scales))}
    return model, params


@pytest.mark.parametrize("family", [None, families.student_t(4, variance_floor=1e-6)])
@pytest.mark.parametrize(
    ("means", "scales", "probs"),
    [
        ([-2.0, 0.0, 3.0], [0.5, 0.4, 1.0], [0.3, 0.3, 0.4]),  # three
        ([0.0, 1.99, 9.0], [1.0, 1.0, 1.0], [0.5, 0.5, 1e-300]),  # equal halves closer than two scales are one
        ([0.0, 2.5, 2.5], [1.0, 1.0, 1.0], [0.52, 0.24, 0.24]),  # and two if further apart
        ([0.0, 0.6, 5.0], [2.0, 0.05, 0.3], [0.7, 0.1, 0.2]),  # narrow ones on a wide one
        ([1.0, 1.0, 1.0], [1.0, 0.1, 3.0], [0.2, 0.5, 0.3]),
    ],
)
def test_modes_are_those_of_a_dense_grid(family, means, scales, probs):
    model, params = placed(means, scales, probs, family)
    got = pooling.modes(model, params, X)
    draw = stats.norm(means, scales) if family is None else stats.t(4, means, scales)
    grid = np.linspace(-5, 8, 400_001)
    values = (np.array(probs) * draw.pdf(grid[:, None])).sum(axis=1)
    top = 1 + np.flatnonzero((values[1:-1] > values[:-2]) & (values[1:-1] >= values[2:]))
    top = top[np.argsort(-values[top])]
    want = np.concatenate([grid[top], np.full(3 - len(top), np.nan)])
    for row in range(N):
        np.testing.assert_allclose(got.at[row], want, atol=4e-5)
        np.testing.assert_allclose(got.density[row, : len(top)], values[top], rtol=1e-6)
    if len(top) > 1:  # to full precision, by the slope of the density
        slope = lambda y: (np.array(probs) * (draw.pdf(y + 1e-6) - draw.pdf(y - 1e-6))).sum()  # noqa: E731
        root = optimize.brentq(slope, got.at[0, 0] - 1e-3, got.at[0, 0] + 1e-3, xtol=1e-13)
        np.testing.assert_allclose(got.at[0, 0], root, atol=1e-7)


def tops(values, at):
    """Where the values of a row are above those on both sides, the first of equals, a fall from the first one included."""
    apart = np.r_[True, np.diff(values) != 0]  # plateaus of one number each
    values, at = values[apart], at[apart]
    steps = np.diff(values)
    return at[np.r_[steps[0] < 0, (steps[:-1] > 0) & (steps[1:] < 0), False]]


@pytest.mark.parametrize("name", [name for name in FAMILIES | HUMPS if name not in ("gaussian", "bernoulli")])
def test_modes_of_many_mixtures_are_those_of_fine_grids_by_scipy(name):
    model, params, probs, each = mixture(name, many=True)
    family, line = model.family, np.linspace(-12, 12, 12_001)
    grid = {"counts": np.arange(1000.0), "positive": np.exp(line), "real": line}[family.support]
    density = each.pmf if family.support == "counts" else each.pdf
    values = (probs.T * density(grid[:, None, None])).sum(axis=1)
    got, counts = pooling.modes(model, params, MANY), set()
    for row, (at, height) in enumerate(zip(np.asarray(got.at), np.asarray(got.density), strict=True)):
        want = tops(values[:, row], grid)
        counts.add(len(want))
        found = at[: len(want)]
        assert np.isnan(at[len(want) :]).all()
        if family.support == "counts":
            np.testing.assert_array_equal(np.sort(found), want)
        else:  # a fall from the first place of the grid is one from 0 there
            want = np.where(want == np.exp(-12), np.finfo(float).tiny, want)
            np.testing.assert_allclose(np.sort(found), want, rtol=2e-3, atol=2e-3 * (family.support == "real"))
        at_them = [(probs[row] * density(np.full(1, y)[:, None, None])[0][:, row]).sum() for y in found]
        np.testing.assert_allclose(height[: len(want)], at_them, rtol=1e-9)
        assert (np.diff(at_them) <= 0).all()  # the highest first
    assert len(counts) > 1


@pytest.mark.parametrize(
    ("family", "eta", "phi", "want"),
    [
        (families.gaussian(), -0.3, {"log_scale": 1.0}, -0.3),
        (families.poisson(), np.log(3.7), {}, 3),
        (families.poisson(), np.log(0.2), {}, 0),
        (families.poisson(), 0.0, {}, 0),  # 0 and 1 are equally probable
        (families.poisson(), np.log(1e6 + 0.5), {}, 1e6),
        (families.gamma(), np.log(6.0), {"log_shape": np.log(3.0)}, 2 * 2.0),  # (shape - 1) * scale
        (families.gamma(), np.log(6.0), {"log_shape": np.log(1.001)}, 0.001 * 6 / 1.001),
        (families.gamma(), 1.0, {"log_shape": 0.0}, np.finfo(float).tiny),
        (families.gamma(), 1.0, {"log_shape": np.log(0.5)}, np.finfo(float).tiny),
    ],
)
def test_of_one_expert_the_mode_is_the_formula(family, eta, phi, want):
    model = moejax.moe(experts.linear(), gates.constant(), 1, family=family)
    params = model.init(jax.random.key(0), X[:1])
    params["experts"] = {"weights": jnp.zeros((1, 2)), "intercept": np.full(1, eta)}
    got = pooling.modes(model, params | {"family": {name: np.full(1, leaf) for name, leaf in phi.items()}}, X[:1])
    np.testing.assert_allclose(got.at, [[want]], rtol=1e-11)


def test_a_mode_is_found_that_lies_uphill_of_no_expert():
    # Two at +-0.7 make one hump, but on them the feet of two at +-5 rise already: from every mean it is uphill to those.
    means, probs = np.array([-5.0, -0.7, 0.7, 5.0]), np.array([0.49988, 0.00012, 0.00012, 0.49988])
    grid = np.linspace(-6, 6, 120_001)
    values = stats.norm.pdf(grid[:, None], means) @ probs
    want = tops(values, grid)
    np.testing.assert_allclose(want, [-5, 0, 5], atol=1e-3)
    assert (np.diff(values)[(grid[1:] > 0.7) & (grid[1:] < 4.9)] > 0).all()
    np.testing.assert_allclose(np.sort(pooling.modes(*placed(means, np.ones(4), probs), X).at[0, :3]), want, atol=2e-4)


@pytest.mark.usefixtures("float32")
def test_modes_in_float32_are_exact_under_vmap_too_and_nan_where_params_are():
    rates, at = np.array([3.3, 60.4, 250.6], np.float32), np.arange(1000)
    model = moejax.moe(experts.linear(), gates.constant(), 3, family=families.poisson())
    params = model.init(jax.random.key(0), X[:1].astype(np.float32))
    params["experts"] = {"weights": jnp.zeros((3, 2)), "intercept": jnp.log(rates)}
    probs = np.array([[0.2, 0.4, 0.4], [1e-4, 0.3, 0.6999], [0.1, 1e-30, 0.9], 3 * [np.nan]], np.float32)
    own = jax.vmap(lambda share: pooling.modes(model, params | {"gate": {"logits": jnp.log(share)}}, X[:1]).at[0])
    got = np.asarray(own(jnp.asarray(probs)))
    assert got.dtype == np.float32
    for row, share in zip(got[:-1], probs.astype(float), strict=False):
        want = tops(stats.poisson.pmf(at[:, None], rates.astype(float)) @ share, at)
        np.testing.assert_array_equal(np.sort(row), np.r_[want, [np.nan] * (3 - len(want))])
    assert np.isnan(got[-1]).all()


def test_experts_that_take_no_part_have_no_share():
    model, params, _, _ = mixture("gaussian")
    two = model.with_hyper(params, {"n_experts": 2})
    smaller = moejax.moe(model.expert, model.gate, 2, family=model.family)
    cut = jax.tree.map(lambda leaf: leaf[:2] if jnp.ndim(leaf) else leaf, params)
    y = np.zeros(N)
    for function in (
        lambda m, p: pooling.density(m, p, X, y),
        lambda m, p: pooling.predict(m, p, X, "top"),
        lambda m, p: pooling.modes(m, p, X).at[:, :2],
    ):
        np.testing.assert_allclose(function(model, two), function(smaller, cut), rtol=1e-9)


# ---- one number a row, and classes ----------------------------------------------------------------------------------


def test_the_mean_is_soft_and_the_top_is_one_expert_also_of_a_gate_that_chooses():
    model = moejax.moe(experts.linear(), gates.top1(), K)
    params = model.init(jax.random.key(2), X)
    probs, means = (np.asarray(f(params, X)) for f in (model.gate_probs, model.expert_predictions))
    np.testing.assert_allclose(pooling.predict(model, params, X), (probs * means).sum(axis=1), rtol=1e-12)
    top = pooling.predict(model, params, X, pool="top")
    np.testing.assert_allclose(top, means[np.arange(N), probs.argmax(axis=1)], rtol=1e-12)
    np.testing.assert_allclose(top, model.predict(params, X), rtol=1e-12)


@pytest.mark.parametrize(("family", "outputs"), [(families.bernoulli(), None), (families.categorical(4), 4)])
def test_class_probabilities_are_gate_weighted(family, outputs):
    model = moejax.moe(experts.linear(outputs, init_scale=2), gates.softmax(), K, family=family)
    params = model.init(jax.random.key(3), X)
    probs = np.asarray(pooling.probabilities(model, params, X))
    assert probs.shape == (N, outputs or 2)
    grid = np.tile(np.arange(float(probs.shape[1])), (N, 1))
    np.testing.assert_allclose(probs, pooling.density(model, params, X, grid), rtol=1e-10)
    np.testing.assert_array_equal(pooling.classes(model, params, X), probs.argmax(axis=1))
    gate, eta = np.asarray(model.gate_probs(params, X)), np.asarray(model.eta(params, model.prepare(X)))
    own = np.stack([1 / (1 + np.exp(eta)), 1 / (1 + np.exp(-eta))], axis=2) if outputs is None else np.exp(eta)
    own = (own / own.sum(axis=2, keepdims=True))[gate.argmax(axis=1), np.arange(N)]
    np.testing.assert_allclose(pooling.probabilities(model, params, X, pool="top"), own, rtol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: pooling.predict(m, p, X, pool="best"), "^pool: 'best' was given"),
        (lambda m, p: pooling.quantiles(m, p, X, [0.5, 1.0]), "^q: .*between 0 and 1"),
        (lambda m, p: pooling.quantiles(m, p, X, [[0.5]]), "^q: "),
        (lambda m, p: pooling.interval(m, p, X, 1.0), "^level: 1.0 was given"),
        (lambda m, p: pooling.interval(m, p, X, [0.5]), "^level: shape"),
        (lambda m, p: pooling.density(m, p, X, np.zeros(N + 1)), "^y: shape"),
        (lambda m, p: pooling.probabilities(m, p, X), "^model: family Gaussian.*classes"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    model, params, _, _ = mixture("gaussian")
    with pytest.raises(ValueError, match=message):
        call(model, params)


@pytest.mark.parametrize(
    ("outputs", "family", "call", "message"),
    [
        (None, families.bernoulli(), lambda m, p: pooling.modes(m, p, X), "^model: family Bernoulli.*pooling.classes"),
        (3, families.categorical(3), lambda m, p: pooling.modes(m, p, X), "^model: family Categorical.*pooling.classes"),
        (2, families.gamma(), lambda m, p: pooling.modes(m, p, X), "^model: 2 targets"),
        (None, families.poisson(), lambda m, p: pooling.density(m, p, X, np.full((N, 2), 0.5)), "^y: .*counts"),
        (3, families.categorical(3), lambda m, p: pooling.quantiles(m, p, X, 0.5), "^model: family Categorical.*cdf"),
        (2, families.gaussian(), lambda m, p: pooling.cdf(m, p, X, np.zeros(N)), "^model: 2 targets"),
        (2, families.bernoulli(), lambda m, p: pooling.probabilities(m, p, X), "^model: 2 columns of labels"),
        (None, None, lambda m, p: pooling.density(m, p, X, np.zeros(N)), "^model: one without a family"),
    ],
)
def test_models_without_an_answer_are_refused(outputs, family, call, message):
    model = moejax.moe(experts.linear(outputs), gates.constant(), 2, family=family)
    with pytest.raises(ValueError, match=message):
        call(model, model.init(jax.random.key(0), X))


# ---- metrics --------------------------------------------------------------------------------------------------------


def scored(n_classes, seed=0, n=300):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(n_classes), size=n)
    y = np.array([rng.choice(n_classes, p=p**2 / (p**2).sum()) for p in probs])
    return y, probs, rng.integers(0, 4, n)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_log_loss_and_accuracy_are_scikit_learns(n_classes):
    own = pytest.importorskip("sklearn.metrics")
    y, probs, weights = scored(n_classes)
    for w in (None, weights):
        assert metrics.log_loss(y, probs, w) == pytest.approx(own.log_loss(y, probs, sample_weight=w), rel=1e-12)
        want = own.accuracy_score(y, probs.argmax(axis=1), sample_weight=w)
        assert metrics.accuracy(y, probs, w) == pytest.approx(want, rel=1e-12)
    if n_classes == 2:
        assert metrics.log_loss(y, probs[:, 1]) == pytest.approx(own.log_loss(y, probs), rel=1e-12)


def test_calibration_is_scikit_learns():
    own = pytest.importorskip("sklearn.calibration")
    y, probs, weights = scored(2)
    observed, predicted = own.calibration_curve(y, probs[:, 1], n_bins=7)
    for given in (probs, probs[:, 1]):
        got = metrics.calibration(y, given, 7)
        np.testing.assert_allclose(got.observed, observed, rtol=1e-12)
        np.testing.assert_allclose(got.predicted, predicted, rtol=1e-12)
    assert got.error == pytest.approx(np.abs(observed - predicted) @ got.share, rel=1e-12)
    again = metrics.calibration(np.repeat(y, weights), np.repeat(probs, weights, axis=0), 7)
    for a, b in zip(metrics.calibration(y, probs, 7, weights=weights), again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_calibration_of_many_classes_is_that_of_the_most_probable_or_of_one():
    own = pytest.importorskip("sklearn.calibration")
    y, probs, _ = scored(4)
    for got, came, said in (
        (metrics.calibration(y, probs), probs.argmax(axis=1) == y, probs.max(axis=1)),
        (metrics.calibration(y, probs, of_class=3), y == 3, probs[:, 3]),
    ):
        there = got.share > 0
        observed, predicted = own.calibration_curve(came, said, n_bins=10)
        np.testing.assert_allclose(got.observed[there], observed, rtol=1e-12)
        np.testing.assert_allclose(got.predicted[there], predicted, rtol=1e-12)
        assert np.isnan(got.predicted[~there]).all()


@pytest.mark.parametrize(
    ("y", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.6], [0.5, 0.5]], "^probabilities: .*sum to 1"),
        ([0, 1], [1.2, 0.5], "^probabilities: "),
        ([0, 2], [0.2, 0.5], "^y: .*whole numbers from 0 to 1"),
        ([0, 1, 1], [0.2, 0.5], "^y: shape"),
        ([0, 1], [np.nan, 0.5], "^probabilities: .*NaN"),
    ],
)
def test_metrics_refuse(y, probabilities, message):
    for function in (metrics.log_loss, metrics.accuracy, metrics.calibration):
        with pytest.raises(ValueError, match=message):
            function(np.array(y), np.array(probabilities))


def test_a_perfectly_calibrated_forecast_has_no_error():
    y = np.r_[np.zeros(30), np.ones(10), np.zeros(5), np.ones(15)]
    table = metrics.calibration(y, np.repeat([0.25, 0.75], [40, 20]), 4)
    assert table.error == pytest.approx(0, abs=1e-15)


def far_out(locations, scales, shares):
    """A mixture of normal densities of one row, whatever its input."""
    model = moejax.moe(experts.linear(), gates.softmax(), len(shares), family=families.gaussian())
    params = model.init(jax.random.key(0), np.eye(1))
    params["experts"] = {"weights": jnp.zeros((len(shares), 1)), "intercept": jnp.asarray(locations)}
    params["gate"] |= {"weights": jnp.zeros((len(shares), 1)), "intercept": jnp.log(jnp.asarray(shares))}
    return model, params | {"family": {"log_scale": jnp.log(jnp.asarray(scales))}}


def test_a_shoulder_is_no_mode_and_a_far_mode_is_one():
    locations, scales, shares = [0.82421544, -1.32562734], [0.99383506, 1.0069165], [0.51400934, 0.48599066]
    grid = np.linspace(-4, 4, 200_001)
    density = stats.norm.pdf(grid[:, None], locations, scales) @ shares
    assert (np.diff(np.sign(np.diff(density))) < 0).sum() == 1
    at = np.asarray(pooling.modes(*far_out(locations, scales, shares), np.eye(1)).at)
    assert at[0, 0] == pytest.approx(grid[density.argmax()], abs=1e-3)
    assert np.isnan(at[0, 1])
    far = np.asarray(pooling.modes(*far_out([1e6, 1e6 + 5], [0.3, 1.0], [0.5, 0.5]), np.eye(1)).at)
    assert far[0] == pytest.approx([1e6, 1e6 + 5], abs=0.2)


def test_quantiles_near_the_end_are_finite_in_float32():
    rng = np.random.default_rng(3)
    for _ in range(20):
        shares = rng.dirichlet(np.ones(3)).astype(np.float32)
        model, params = far_out(rng.normal(size=3).astype(np.float32), np.ones(3, np.float32), shares)
        assert pooling.quantiles(model, params, np.eye(1, dtype=np.float32), 1 - 6e-8)[0] < 10


def test_hard_forecasts_are_probabilities():
    y, wrong = np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])
    for kind in (int, bool, np.float32):
        assert metrics.log_loss(y, y.astype(kind)) == pytest.approx(0, abs=1e-6)
        assert metrics.accuracy(y, wrong.astype(kind)) == 0.75
    assert metrics.log_loss(y, np.where(y == 1, 1 + 1e-7, 0)) == pytest.approx(0, abs=1e-6)  # one rounding above 1
