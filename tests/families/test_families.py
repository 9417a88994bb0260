"""Families: densities, samples, curvatures and M-steps against facts from outside this library."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.scipy import stats
from scipy import stats as distributions

import moejax
from moejax import experts, families, gates

pytestmark = pytest.mark.usefixtures("float64")

K, N, C = 3, 40, 4
FAMILIES = {
    "gaussian": families.gaussian(variance_floor=0.05),
    "gaussian, shared": families.gaussian(shared_scale=True),
    "t": families.student_t(variance_floor=0.05),
    "t of df 4": families.student_t(4, variance_floor=0.05),
    "t, shared": families.student_t(shared_scale=True),
    "location-scale": families.location_scale(scale_floor=0.3),
    "bernoulli": families.bernoulli(),
    "categorical": families.categorical(C),
    "poisson": families.poisson(),
    "gamma": families.gamma(dispersion_floor=0.05),
    "gamma, shared": families.gamma(shared_shape=True),
}
DISPERSED = [name for name in FAMILIES if name.startswith(("gaussian", "t", "gamma"))]
SEPARATE = [name for name in DISPERSED if "shared" not in name]
MAJORIZED = [name for name in DISPERSED if not name.startswith("gamma")]
# The others share code.
DISTINCT = ["gaussian", "gaussian, shared", "t", "location-scale", "bernoulli", "categorical", "poisson", "gamma"]
TAILS = {"categorical": (C,), "location-scale": (2,)}  # of predictors of one target

# Each method compiled, which is faster here than its operations one by one.
LOG_PROB, MEAN, SAMPLE, CURVATURE = (
    {name: jax.jit(getattr(family, method)) for name, family in FAMILIES.items()}
    for method in ("log_prob", "mean", "sample", "curvature")
)


def m_step(family):
    """The dispersions that follow from sums over rows: experts stay where they are unless `change` says otherwise."""

    def step(y, eta, phi, weights, change=0.0):
        target = families.target_of(y, weights.sum(axis=0) / weights.sum())
        return family.dispersion(phi, family.spread(y, eta, phi, weights), change, target)

    return jax.jit(step)


def at_floor(family):
    """Whether a constraint holds some dispersion, for a target of equally weighted rows."""
    return jax.jit(lambda phi, y: family.at_floor(phi, families.target_of(y, jnp.full(len(y), 1 / len(y), y.dtype))))


M_STEP = {name: m_step(family) for name, family in FAMILIES.items()}
AT_FLOOR = {name: at_floor(family) for name, family in FAMILIES.items()}

every_family = pytest.mark.parametrize("name", FAMILIES)
every_distinct = pytest.mark.parametrize("name", DISTINCT)
every_dispersed = pytest.mark.parametrize("name", DISPERSED)


def phi_of(name, rng, tail=(), spread=0.4):
    """Dispersions within the floor of 0.05: their logarithms differ by at most 4 * spread, which is below 3."""
    shape = tail if "shared" in name else (K, *tail)
    draw = lambda: jnp.asarray(rng.uniform(-spread, spread, size=shape))  # noqa: E731
    if name.startswith("gamma"):
        return {"log_shape": 0.7 + draw()}
    phi = {"log_scale": draw()} if name.startswith(("gaussian", "t")) else {}
    return phi | ({"log_df": np.log(4) + draw()} if name in ("t", "t, shared") else {})


def typical(name, seed=0, n=N, tail=()):
    """A target, predictors and dispersions."""
    rng = np.random.default_rng(seed)
    eta = jnp.asarray(rng.normal(size=(K, n, *(tail or TAILS.get(name, ())))))
    draw = {"bernoulli": lambda z: z > 0, "categorical": lambda z: abs(z // 1) % C, "poisson": lambda z: abs(2 * z // 1)}
    y = draw.get(name, np.exp if name.startswith("gamma") else np.asarray)(rng.normal(size=(n, *tail)))
    return jnp.asarray(y, float), eta, phi_of(name, rng, tail)


def predicted(name, eta):
    """The shape of a prediction."""
    return jax.eval_shape(FAMILIES[name].mean, eta).shape[1:]


def normalized(rng, empty=()):
    weights = rng.random((K, N)) ** 2
    weights[list(empty)] = 0
    return jnp.asarray(weights / weights.sum())


def grid_of(name):
    """Points over the support and what each counts in an integral over it; heavy tails ask for far points."""
    if name == "bernoulli":
        return np.arange(2.0), np.ones(2)
    if name == "categorical":
        return np.arange(float(C)), np.ones(C)
    if name == "poisson":
        return np.arange(200.0), np.ones(200)
    u = np.linspace(-25, 25, 20001)
    if name.startswith("gamma"):
        return np.exp(u), np.exp(u) * (u[1] - u[0])
    return np.sinh(u), np.cosh(u) * (u[1] - u[0])


def objective(name, y, eta, phi, weights):
    return float((weights * LOG_PROB[name](y, eta, phi)).sum())


def on_grid(name):
    """Grid, measure, one predictor for each expert repeated over the grid, phi, and the density, (K, points)."""
    y, measure = grid_of(name)
    _, eta, phi = typical(name, n=1)
    eta = jnp.repeat(eta, y.size, axis=1)
    return y, measure, eta, phi, np.exp(LOG_PROB[name](jnp.asarray(y), eta, phi))


# ---- densities -----------------------------------------------------------------------------------------------------


@every_family
def test_densities_have_mass_one_and_the_stated_mean(name):
    y, measure, eta, _, density = on_grid(name)
    np.testing.assert_allclose(density @ measure, 1, rtol=1e-8)
    mean = MEAN[name](eta)
    assert mean.shape == (eta.shape[:2] if name == "location-scale" else eta.shape)
    if name == "categorical":
        np.testing.assert_allclose(mean[:, 0], density, rtol=1e-12)
    else:
        np.testing.assert_allclose(density @ (measure * y), mean[:, 0], rtol=1e-5)


def other_density(name, y, eta, phi):
    value = {key: jnp.exp(leaf if "shared" in name else leaf[:, None]) for key, leaf in phi.items()}
    if name.startswith("gaussian"):
        return stats.norm.logpdf(y, eta, value["log_scale"])
    if name.startswith("t"):
        return stats.t.logpdf(y, value.get("log_df", 4.0), eta, value["log_scale"])
    if name == "location-scale":
        return stats.norm.logpdf(y, eta[..., 0], jnp.sqrt(jnp.exp(2 * eta[..., 1]) + 0.3**2))
    if name == "bernoulli":
        return stats.bernoulli.logpmf(y, 1 / (1 + jnp.exp(-eta)))
    if name == "poisson":
        return stats.poisson.logpmf(y, jnp.exp(eta))
    if name == "categorical":
        odds = jnp.exp(eta)
        return jnp.log(odds[:, np.arange(N), y.astype(int)] / odds.sum(axis=2))
    return stats.gamma.logpdf(y, value["log_shape"], scale=jnp.exp(eta) / value["log_shape"])


@every_family
def test_densities_are_those_of_other_code(name):
    y, eta, phi = typical(name)
    np.testing.assert_allclose(
        LOG_PROB[name](y, eta, phi), jax.jit(other_density, static_argnums=0)(name, y, eta, phi), rtol=1e-10, atol=1e-12
    )


def other_cdf(name, y, eta, phi):
    """By SciPy, (K, n)."""
    eta = np.asarray(eta)
    value = {key: np.exp(leaf if "shared" in name else np.asarray(leaf)[:, None]) for key, leaf in phi.items()}
    if name.startswith("gaussian"):
        return distributions.norm.cdf(y, eta, value["log_scale"])
    if name.startswith("t"):
        return distributions.t.cdf(y, value.get("log_df", 4.0), eta, value["log_scale"])
    if name == "location-scale":
        return distributions.norm.cdf(y, eta[..., 0], np.sqrt(np.exp(2 * eta[..., 1]) + 0.3**2))
    if name == "bernoulli":
        return distributions.bernoulli.cdf(y, 1 / (1 + np.exp(-eta)))
    if name == "poisson":
        return distributions.poisson.cdf(y, np.exp(eta))
    return distributions.gamma.cdf(y, value["log_shape"], scale=np.exp(eta) / value["log_shape"])


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "categorical"])
def test_distribution_functions_are_those_of_scipy_between_and_beyond_targets_too(name):
    _, eta, phi = typical(name)
    y = np.r_[-1e30, -40, -1.0, -1e-9, 0, 1e-9, 0.5, 1.0, np.linspace(-9, 9, N - 11), 2, 40, 1e30]
    cdf = jax.jit(FAMILIES[name].cdf)
    want = other_cdf(name, y, eta, phi)
    np.testing.assert_allclose(cdf(jnp.asarray(y), eta, phi), want, rtol=1e-9, atol=1e-14)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (y, eta, phi))
        got = cdf(*single)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, atol=3e-6)


@pytest.mark.parametrize("name", [*DISPERSED, "location-scale"])
def test_densities_rise_up_to_their_mode_and_by_what_is_said(name):
    family, (_, eta, phi), line = FAMILIES[name], typical(name, n=1), np.linspace(-9, 9, 2001)
    y, eta = np.exp(line) if family.support == "positive" else line, jnp.repeat(eta, line.size, axis=1)
    steps = np.diff(jax.jit(other_density, static_argnums=0)(name, y, eta, phi))
    rise = np.asarray(family.rise(y, eta, phi))
    np.testing.assert_allclose(0.5 * (rise[:, 1:] + rise[:, :-1]), steps / (line[1] - line[0]), rtol=1e-3, atol=1e-3)
    mode = np.asarray(family.mode(eta, phi))[:, :-1]
    elsewhere = (mode < y[:-1]) | (mode > y[1:])
    np.testing.assert_array_equal((y[:-1] < mode)[elsewhere], (steps > 0)[elsewhere])
    falls = np.minimum(np.diff(rise), 0)
    got = family.fall(y[:-100], y[100:], eta[:, 100:], phi)
    if got is not None:  # over a hundred steps at a time
        np.testing.assert_allclose(got, -np.lib.stride_tricks.sliding_window_view(falls, 100, axis=1).sum(axis=2), atol=2e-3)
    else:
        assert (falls < 0).all()


def test_counts_rise_up_to_their_mode_and_by_what_is_said():
    rate, y = np.array([1e-3, 0.999, 1.0, 1.001, 6.5, 40.3])[:, None], np.arange(100.0)
    steps, eta = np.diff(distributions.poisson.logpmf(y, rate)), jnp.asarray(np.log(rate))
    np.testing.assert_allclose(FAMILIES["poisson"].rise(y, eta, {})[:, :-1], np.expm1(steps), atol=1e-12)
    np.testing.assert_array_equal(FAMILIES["poisson"].mode(eta, {})[:, 0], [0, 0, 0, 1, 6, 40])  # of 0 and 1 alike, 0


@pytest.mark.parametrize("name", ["bernoulli", "categorical"])
def test_class_probabilities_are_those_of_the_density(name):
    _, eta, phi = typical(name)
    probs = FAMILIES[name].class_probabilities(eta)
    for c in range(probs.shape[2]):
        np.testing.assert_allclose(probs[..., c], np.exp(LOG_PROB[name](jnp.full(N, float(c)), eta, phi)), rtol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "gaussian, shared", "bernoulli"])
def test_outputs_are_independent(name):
    y, eta, phi = typical(name, tail=(2,))
    weights = normalized(np.random.default_rng(3), empty=[1])
    one = [(y[:, j], eta[..., j], {key: leaf[..., j] for key, leaf in phi.items()}) for j in range(2)]
    np.testing.assert_allclose(LOG_PROB[name](y, eta, phi), sum(LOG_PROB[name](*c) for c in one), rtol=1e-10)
    np.testing.assert_allclose(CURVATURE[name](y, eta, phi), np.stack([CURVATURE[name](*c) for c in one], axis=-1))
    got, separate = M_STEP[name](y, eta, phi, weights), [M_STEP[name](*c, weights) for c in one]
    for key in phi:
        np.testing.assert_allclose(got[key], np.stack([phi[key] for phi in separate], axis=-1), rtol=1e-9, atol=1e-12)
    assert jax.eval_shape(SAMPLE[name], jax.random.key(0), eta, phi).shape == eta.shape
    free = FAMILIES[name].degrees_of_freedom
    np.testing.assert_array_equal(free(phi), 2 * free(one[0][2]))


@every_dispersed
def test_initial_dispersions_are_one(name):
    like = jax.ShapeDtypeStruct((K, N, 2), jnp.float32)
    phi = FAMILIES[name].init(K, like)
    assert FAMILIES[name].penalized(phi) == dict.fromkeys(phi, False)
    for key, leaf in phi.items():
        assert leaf.shape == ((2,) if "shared" in name else (K, 2))
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, np.log(5) if key == "log_df" else 0, rtol=1e-6)


# ---- samples -------------------------------------------------------------------------------------------------------


@every_distinct
def test_samples_come_from_the_density(name):
    """Their means are right, and the mean slope of the log density is 0, in eta and in every dispersion."""
    family, draws = FAMILIES[name], 20000
    _, eta, phi = typical(name, n=1)
    eta = jnp.repeat(eta, draws, axis=1)
    sample = SAMPLE[name](jax.random.key(1), eta, phi)
    assert sample.shape == (K, draws)
    assert sample.dtype == eta.dtype
    for own in np.asarray(sample):
        family.check_target(own, predicted(name, eta))
    values = sample[..., None] == np.arange(C) if name == "categorical" else sample
    error = np.std(values, axis=1) / np.sqrt(draws)
    assert (np.abs(np.mean(values, axis=1) - family.mean(eta[:, 0])) < 4.5 * error).all()

    @jax.jit
    def slope(along):
        own = lambda part: jax.vmap(lambda y: family.log_prob(y, *part))(sample)[np.arange(K), np.arange(K)]  # noqa: E731
        return jax.jvp(own, ((eta, phi),), (along,))[1]

    still = jax.tree.map(jnp.zeros_like, (eta, phi))
    first = still[0].at[..., 0].set(1) if name in TAILS else still[0] + 1
    directions = [(first, still[1]), (still[0] + 1, still[1])]
    for along in directions + [(still[0], still[1] | {key: still[1][key] + 1}) for key in phi]:
        slopes = np.asarray(slope(along))
        assert (np.abs(slopes.mean(axis=1)) < 4.5 * slopes.std(axis=1) / np.sqrt(draws) + 1e-12).all()


# ---- curvature -----------------------------------------------------------------------------------------------------


def second_derivative(name, y, eta, phi):
    """Of -log_prob in eta, row by row, for families whose eta is a number."""
    loss = lambda eta: -LOG_PROB[name](y, eta, phi)  # noqa: E731
    one = jnp.ones_like(eta)
    return jax.jvp(lambda e: jax.jvp(loss, (e,), (one,))[1], (eta,), (one,))[1]


@pytest.mark.parametrize("name", ["gaussian", "gaussian, shared", "bernoulli", "poisson"])
def test_curvature_is_the_second_derivative(name):
    y, eta, phi = typical(name)
    got = CURVATURE[name](y, eta, phi)
    assert got.shape == eta.shape
    want = second_derivative(name, y, eta, phi)
    far = (y > 5 * jnp.exp(eta)) if name == "poisson" else jnp.zeros(eta.shape, bool)
    np.testing.assert_allclose(got[~far], want[~far], rtol=1e-9, atol=1e-14)
    assert far.sum() < far.size / 2
    if far.any():  # of a rate far below a count the step in its predictor is 4, where Newton's has no end
        np.testing.assert_allclose(((y - want) / got)[far], 4.0, rtol=1e-12)
        assert (want[far] < got[far]).all()


@pytest.mark.parametrize("name", ["gamma", "gamma, shared"])
def test_curvature_is_the_expected_second_derivative(name):
    y, measure, eta, phi, density = on_grid(name)
    second = second_derivative(name, jnp.asarray(y), eta, phi)
    got = CURVATURE[name](y, eta, phi)
    np.testing.assert_allclose(got[:, 0], (density * second) @ measure, rtol=1e-8)


def test_curvature_of_location_and_scale_is_the_fisher_information_but_where_the_floor_holds():
    """By the expected outer product of slopes: diagonal, 1 / s^2 and 2 t^2, of which 2 t is above, with the same root."""
    name = "location-scale"
    y, measure, eta, phi, density = on_grid(name)
    slopes = jax.grad(lambda eta: LOG_PROB[name](jnp.asarray(y), eta, phi).sum())(eta)
    information = np.einsum("kn,kni,knj->kij", density * measure, slopes, slopes)
    got = CURVATURE[name](y, eta, phi)[:, 0]
    np.testing.assert_allclose(information[:, 0, 1], 0, atol=1e-8)
    np.testing.assert_allclose(got[:, 0], information[:, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(got[:, 1], np.sqrt(2 * information[:, 1, 1]), rtol=1e-8)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in TAILS])
def test_the_quadratic_of_a_majorizer_is_nowhere_below_and_that_of_others_is(name):
    y, eta, phi = typical(name)
    never_below = True

    def loss(eta):
        return -LOG_PROB[name](y, eta, phi)

    value, slope = jax.jvp(loss, (eta,), (jnp.ones_like(eta),))
    curvature = CURVATURE[name](y, eta, phi)
    for step in np.r_[-np.geomspace(1e-3, 1e3, 25), np.geomspace(1e-3, 1e3, 25)]:
        quadratic = value + slope * step + 0.5 * curvature * step**2
        never_below &= bool((quadratic >= loss(eta + step) - 1e-9 * (1 + np.abs(quadratic))).all())
    assert never_below is (name in MAJORIZED)


def test_the_diagonal_for_classes_is_above_the_hessian():
    y, eta, phi = typical("categorical")
    eta = 3 * eta
    of_row = lambda eta, y: -LOG_PROB["categorical"](y[None], eta[None, None], phi)[0, 0]  # noqa: E731
    hessian = jax.jit(jax.vmap(jax.vmap(jax.hessian(of_row)), in_axes=(0, None)))(eta, y)
    bound = CURVATURE["categorical"](y, eta, phi)
    gap = np.asarray(bound)[..., None] * np.eye(C) - np.asarray(hessian)
    assert np.linalg.eigvalsh(gap).min() > -1e-12
    assert (bound >= 0).all()


# ---- the M-step ----------------------------------------------------------------------------------------------------


def spread_target(name, rng, factors):
    """A target of no expert in particular, and predictors that miss it by these factors."""
    noise = rng.normal(size=(K, N)) * np.asarray(factors)[:, None]
    if name.startswith("gamma"):
        y = np.exp(rng.normal(size=N))
        return jnp.asarray(y), jnp.asarray(np.log(y) + np.clip(noise, -30, 30))
    y = rng.normal(size=N)
    return jnp.asarray(y), jnp.asarray(y + noise)


@every_dispersed
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    exponents=st.lists(st.floats(-6, 3), min_size=K, max_size=K),
    empty=st.sets(st.integers(0, K - 1), max_size=K - 1),
)
def test_the_m_step_never_lowers_the_likelihood(name, seed, exponents, empty):
    rng = np.random.default_rng(seed)
    y, eta = spread_target(name, rng, 10.0 ** np.array(exponents))
    weights = normalized(rng, empty)
    phi = phi_of(name, rng, spread=0.7)
    for _ in range(3):
        new = M_STEP[name](y, eta, phi, weights)
        before, after = (objective(name, y, eta, p, weights) for p in (phi, new))
        assert after >= before - 1e-9 * (1 + abs(before))
        assert all(np.isfinite(leaf).all() for leaf in new.values())
        phi = new
    if "shared" not in name:
        u = -2 * phi["log_scale"] if "log_scale" in phi else phi["log_shape"]
        assert np.ptp(u) <= -np.log(0.05) + 1e-9


@every_dispersed
def test_the_m_step_is_the_maximum_where_no_floor_holds(name):
    rng = np.random.default_rng(4)
    factors = [0.6, 0.7, 0.8]
    y, eta = spread_target(name, rng, factors)
    if name.startswith("t"):
        y = y + 0.1 * jnp.asarray(rng.standard_t(3, size=N))
    weights, phi = normalized(rng), phi_of(name, rng)
    for _ in range(400 if name.startswith("t") else 1):  # of Student t it is a step of an iteration
        phi = M_STEP[name](y, eta, phi, weights)
    assert not AT_FLOOR[name](phi, y)
    for key, leaf in phi.items():
        # by central differences, number by number; a df at the end of its range may have a slope
        for index in np.ndindex(leaf.shape):
            if key == "log_df" and not np.log(1.01) < leaf[index] < np.log(199):
                continue
            there = [objective(name, y, eta, phi | {key: leaf.at[index].add(s)}, weights) for s in (-1e-5, 0, 1e-5)]
            assert abs(there[2] - there[0]) / 2e-5 < 1e-6
            assert there[1] >= max(there[0], there[2]) - 1e-12


@pytest.mark.parametrize("name", ["gaussian", "gamma"])
@pytest.mark.parametrize(
    ("factors", "empty"),
    [((0.01, 0.3, 1), ()), ((0.01, 0.02, 2), ()), ((0.1, 2, 2.5), ()), ((0.001, 0.3, 20), ()), ((0.01, 1, 0.5), (2,))],
)
def test_the_m_step_under_the_floor_is_that_of_a_search(name, factors, empty):
    """Over a window of admissible dispersions that slides over a grid; within it each expert has its best."""
    rng = np.random.default_rng(5)
    y, eta = spread_target(name, rng, factors)
    weights, family = normalized(rng, empty), FAMILIES[name]
    phi = phi_of(name, rng)
    new = M_STEP[name](y, eta, phi, weights)
    assert AT_FLOOR[name](new, y)
    key, per_unit = ("log_scale", 0.5) if name == "gaussian" else ("log_shape", -1.0)
    u = np.asarray(new[key]) / per_unit  # log dispersions
    span, step = -np.log(0.05), 0.005
    grid = np.arange(u.min() - 2, u.max() + 2, step)
    window = int(span / step)

    def each(value):
        same = {key: jnp.full(K, per_unit * value)}
        return (weights * family.log_prob(y, eta, same)).sum(axis=1)

    values = np.asarray(jax.jit(jax.vmap(each))(jnp.asarray(grid)))
    best, best_at = -np.inf, None
    for start in range(len(grid) - window):
        inside = values[start : start + window + 1]
        if inside.max(axis=0).sum() > best:
            best, best_at = inside.max(axis=0).sum(), grid[start + inside.argmax(axis=0)]
    assert objective(name, y, eta, new, weights) >= best - 1e-12
    counted = [k for k in range(K) if k not in empty]
    np.testing.assert_allclose(u[counted], best_at[counted], atol=0.05)


@pytest.mark.parametrize("name", [name for name in DISPERSED if not name.startswith("t")])
def test_the_m_step_after_a_step_of_experts_is_that_of_their_new_predictions(name):
    """The sums are of predictions before the step; by how much it changes the likelihood is all that is known of it."""
    rng = np.random.default_rng(12)
    y, eta = spread_target(name, rng, [0.2, 0.5, 1])
    weights, phi, moved = normalized(rng), phi_of(name, rng), 0.7 * eta + 0.1
    change = (weights * (LOG_PROB[name](y, eta, phi) - LOG_PROB[name](y, moved, phi))).sum(axis=1)
    got, want = M_STEP[name](y, eta, phi, weights, change), M_STEP[name](y, moved, phi, weights)
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-9, atol=1e-12)
        assert np.abs(want[key] - M_STEP[name](y, eta, phi, weights)[key]).max() > 1e-2


@every_dispersed
def test_experts_without_weight_have_the_pooled_dispersion_and_move_nothing(name):
    rng = np.random.default_rng(6)
    y, eta = spread_target(name, rng, [0.01, 1, 100])
    weights, phi = normalized(rng, empty=[2]), phi_of(name, rng)
    new = M_STEP[name](y, eta, phi, weights)
    other = M_STEP[name](y, eta.at[2].set(0.3), phi, weights)
    for key in new:
        np.testing.assert_allclose(new[key], other[key], rtol=1e-9)  # what it predicts plays no part
    if "shared" in name:
        return
    if "log_df" in new:
        return
    alone = M_STEP[name](y, eta[:2], {key: leaf[:2] for key, leaf in phi.items()}, weights[:2])
    for key in new:
        np.testing.assert_allclose(new[key][:2], alone[key], rtol=1e-9)
    key = "log_shape" if "log_shape" in new else "log_scale"
    assert new[key][:2].min() - 1e-9 <= new[key][2] <= new[key][:2].max() + 1e-9


@pytest.mark.parametrize(("name", "double"), [*((n, True) for n in DISPERSED), *((n, False) for n in SEPARATE)])
def test_a_perfect_fit_stops_at_the_absolute_floor(name, double):
    with jax.enable_x64(double):
        y = jnp.exp(jnp.asarray(np.random.default_rng(7).normal(size=N), float))
        eta = jnp.broadcast_to(jnp.log(y) if name.startswith("gamma") else y, (K, N))
        phi = FAMILIES[name].init(K, eta)
        weights = jnp.full((K, N), 1 / (K * N), float)
        assert not AT_FLOOR[name](phi, y)
        for _ in range(2):
            phi = M_STEP[name](y, eta, phi, weights)
        u = 2 * phi["log_scale"] - np.log(np.var(y)) if "log_scale" in phi else -phi["log_shape"]
        np.testing.assert_allclose(u, np.log(10 * np.finfo(y.dtype).eps), rtol=1e-5)
        assert AT_FLOOR[name](phi, y)
        assert np.isfinite(LOG_PROB[name](y, eta, phi)).all()


def test_df_are_estimated():
    y = jnp.asarray(np.random.default_rng(8).standard_t(3, size=4000))
    eta, weights = jnp.zeros((2, 4000)), jnp.asarray([[0.5], [0.5]]) * jnp.full((2, 4000), 1 / 4000)
    y2 = jnp.asarray(np.random.default_rng(9).normal(size=4000))
    family = families.student_t()
    step = m_step(family)
    for target, low, high in ((y, 2.4, 3.8), (y2, 25, 201)):
        phi = family.init(2, eta)
        for _ in range(200):
            phi = step(target, eta, phi, weights)
        df = np.exp(family.log_df(phi))
        assert ((df > low) & (df < high)).all()
        assert not at_floor(family)(phi, target)  # a df at the end of its range is no floor
        np.testing.assert_allclose(np.exp(phi["log_scale"]), 1, rtol=0.06)


@pytest.mark.parametrize("name", SEPARATE)
def test_densities_read_dispersions_through_the_floor(name):
    y, eta, phi = typical(name)
    key, sign = ("log_shape", -1) if "log_shape" in phi else ("log_scale", 0.5)
    low = phi | {key: sign * jnp.array([0.0, -50.0, 0.4])}
    lifted = phi | {key: sign * jnp.array([0.0, 0.4 + np.log(0.05), 0.4])}
    family = FAMILIES[name]
    assert AT_FLOOR[name](low, y)
    assert not AT_FLOOR[name](phi, y)
    for method in (LOG_PROB[name], CURVATURE[name]):
        np.testing.assert_allclose(method(y, eta, low), method(y, eta, lifted), rtol=1e-10)
    slope = jax.jit(jax.grad(lambda phi: family.log_prob(y, eta, phi).sum()))(low)[key]
    assert slope[1] == 0


@every_family
def test_degrees_of_freedom(name):
    y, _, phi = typical(name)
    per_expert = 2 if "log_df" in phi else 1
    free = FAMILIES[name].degrees_of_freedom(phi)
    want = np.full(K, per_expert) if name in SEPARATE else per_expert if phi else 0
    np.testing.assert_array_equal(free, want)
    if not phi:
        assert not AT_FLOOR[name](phi, y)
        assert FAMILIES[name].spread(y, None, phi, None) == ()
        assert FAMILIES[name].dispersion(phi, (), 0.0, families.target_of(y, jnp.full(N, 1 / N))) == {}


# ---- compilation and precision ---------------------------------------------------------------------------------------


@every_distinct
def test_everything_runs_under_jit_and_vmap(name):
    family = FAMILIES[name]
    y, eta, phi = typical(name)
    weights = normalized(np.random.default_rng(0), empty=[0])

    def everything(y, eta, phi, weights):
        family.check_target(y, predicted(name, eta))
        done = LOG_PROB[name](y, eta, phi), MEAN[name](eta), CURVATURE[name](y, eta, phi), AT_FLOOR[name](phi, y)
        return *done, M_STEP[name](y, eta, phi, weights), family.degrees_of_freedom(phi)

    both = [(eta, phi), (0.5 * eta[::-1], jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim else -leaf, phi))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
    got = jax.jit(jax.vmap(everything, in_axes=(None, 0, 0, None)))(y, *stacked, weights)
    draws = jax.eval_shape(jax.vmap(SAMPLE[name], in_axes=(None, 0, 0)), jax.random.key(0), *stacked)
    assert draws.shape == (2, K, N)
    for i, (eta, phi) in enumerate(both):
        want = everything(y, eta, phi, weights)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-9, atol=1e-12)


EXTREME = np.array([-1e18, -1e6, -200, -90, -1, 0, 1, 90, 200, 1e6, 1e18], np.float32)


@every_distinct
@pytest.mark.usefixtures("float32")
def test_float32_extremes_are_finite(name):
    family, n = FAMILIES[name], EXTREME.size
    tail = TAILS.get(name, ())
    eta = jnp.broadcast_to(jnp.asarray(EXTREME).reshape(1, n, *[1] * len(tail)), (K, n, *tail))
    eta = eta * jnp.array([1.0, -1, 0, 0.5])[: tail[0]] if tail else eta
    phi = family.init(K, jax.ShapeDtypeStruct(eta.shape, jnp.float32))

    @jax.jit
    def everything(y, eta, phi):
        mean_log_prob = lambda eta, phi: family.log_prob(y, eta, phi).sum(axis=1).mean()  # noqa: E731
        slopes = jax.grad(mean_log_prob, argnums=(0, 1))(eta, phi)
        return family.log_prob(y, eta, phi), family.mean(eta), family.curvature(y, eta, phi), slopes

    y_all = {"bernoulli": (0, 1), "categorical": (0, 3), "poisson": (0, 1, 1e4), "gamma": (1e-30, 1e-3, 1e3, 1e30)}
    for value in y_all.get(name.split(",")[0], (-1e6, 0, 1e6)):
        y = jnp.full(n, value, jnp.float32)
        for leaf in jax.tree.leaves(everything(y, eta, phi)):
            assert leaf.dtype == jnp.float32
            assert np.isfinite(leaf).all()
        assert (CURVATURE[name](y, eta, phi) >= 0).all()
    assert np.isfinite(SAMPLE[name](jax.random.key(0), eta, phi)).all()


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("log_shape", [0.0, 5.0, 12.0])
def test_gamma_densities_of_large_shapes_keep_their_digits_in_float32(log_shape):
    spread = np.exp(-log_shape / 2)
    y = np.exp(spread * np.linspace(-2, 2, 21)).astype(np.float32)
    phi = {"log_shape": jnp.full(1, log_shape, jnp.float32)}
    got = LOG_PROB["gamma"](jnp.asarray(y), jnp.zeros((1, 21), jnp.float32), phi)
    with jax.enable_x64(True):
        shape = np.exp(np.float64(np.float32(log_shape)))
        want = jax.jit(stats.gamma.logpdf)(y.astype(float), shape, scale=1 / shape)
    np.testing.assert_allclose(got[0], want, atol=2e-4, rtol=1e-5)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("count", [1.0, 100.0, 1e4, 1e6, 1e8])
def test_poisson_masses_of_large_counts_keep_their_digits_in_float32(count):
    """Whose terms are up to 1e9 times their sum. An error of a rounded log rate counts by the standard deviation."""
    eta = np.log(count + count**0.5 * np.linspace(-0.9, 3, 21)).astype(np.float32)
    got = LOG_PROB["poisson"](jnp.full(21, count, jnp.float32), jnp.asarray(eta)[None], {})
    want = distributions.poisson.logpmf(count, np.exp(eta.astype(float)))
    np.testing.assert_allclose(got[0], want, atol=1e-5 * (1 + count**0.5), rtol=1e-5)


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("name", SEPARATE)
def test_the_m_step_in_float32_is_that_in_float64(name):
    rng = np.random.default_rng(11)
    with jax.enable_x64(True):
        y, eta = spread_target(name, rng, [0.02, 0.5, 1])
        phi, weights = phi_of(name, rng), normalized(rng)
        want = M_STEP[name](y, eta, phi, weights)
        inputs = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (y, eta, phi, weights))
    got = M_STEP[name](*jax.tree.map(jnp.asarray, inputs))
    for key in want:
        assert got[key].dtype == jnp.float32
        np.testing.assert_allclose(got[key], want[key], atol=2e-4)


# ---- in a model ----------------------------------------------------------------------------------------------------


def test_a_mixture_of_classifiers_speaks_of_class_probabilities():
    x = np.random.default_rng(0).normal(size=(N, 3))
    model = moejax.moe(experts.linear(C), gates.softmax(), 2, family=families.categorical(C))
    params = jax.jit(model.init)(jax.random.key(0), x)
    probs = jax.jit(model.predict)(params, x)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)
    labels = jax.jit(model.sample)(jax.random.key(1), params, x)
    assert labels.shape == (N,)
    chosen = np.asarray(probs)[np.arange(N), np.asarray(labels).astype(int)]
    np.testing.assert_allclose(np.exp(jax.jit(model.log_prob)(params, x, labels)), chosen, rtol=1e-10)
    with pytest.raises(ValueError, match=r"^expert: 3 outputs for 4 classes; .*experts.linear\(4\)"):
        moejax.moe(experts.linear(3), gates.softmax(), 2, family=families.categorical(C)).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"^expert: one output for 4 classes"):
        moejax.moe(experts.linear(), gates.softmax(), 2, family=families.categorical(C)).init(jax.random.key(0), x)


# ---- what is refused -----------------------------------------------------------------------------------------------

BAD = [
    *((name, np.ones((N, 1)), "shape") for name in FAMILIES),
    *((name, np.r_[np.nan, np.ones(N - 1)], "NaN") for name in FAMILIES),
    ("bernoulli", np.r_[2.0, np.ones(N - 1)], "2 was given.*the labels 0 and 1"),
    ("bernoulli", np.r_[-1.0, np.ones(N - 1)], "-1 was given.*the labels 0 and 1"),
    ("bernoulli", np.r_[0.5, np.ones(N - 1)], "0.5 was given"),
    ("categorical", np.r_[4.0, np.ones(N - 1)], "4 was given.*from 0 to 3"),
    ("categorical", np.r_[-1.0, np.ones(N - 1)], "-1 was given"),
    ("categorical", np.r_[1.5, np.ones(N - 1)], "1.5 was given"),
    ("categorical", np.eye(C)[np.arange(N) % C], "shape"),
    ("poisson", np.r_[-1.0, np.ones(N - 1)], "-1 was given.*counts"),
    ("poisson", np.r_[0.5, np.ones(N - 1)], "0.5 was given.*counts"),
    ("gamma", np.r_[0.0, np.ones(N - 1)], "0 was given.*above 0"),
    ("location-scale", np.ones((N, 2)), "shape"),
    ("gamma", np.r_[-2.0, np.ones(N - 1)], "-2 was given.*above 0"),
]


@pytest.mark.parametrize(("name", "y", "message"), BAD)
def test_targets_are_refused(name, y, message):
    shape = (N, C) if name == "categorical" else (N,)
    with pytest.raises(ValueError, match=f"^y: .*{message}"):
        FAMILIES[name].check_target(y, shape)


@pytest.mark.parametrize(("name", "y", "message"), [case for case in BAD if "NaN" not in case[2]])
def test_log_prob_refuses_what_has_no_probability(name, y, message):
    _, eta, phi = typical(name)
    with pytest.raises(ValueError, match=f"^y: .*{message}"):
        FAMILIES[name].log_prob(jnp.asarray(y), eta, phi)


@every_family
def test_targets_of_the_family_are_accepted(name):
    y, eta, _ = typical(name)
    assert FAMILIES[name].check_target(np.asarray(y), predicted(name, eta)) is None


def test_rows_may_have_a_single_class():
    for name in ("bernoulli", "categorical"):
        FAMILIES[name].check_target(np.ones(N), (N,) if name == "bernoulli" else (N, C))
        _, eta, phi = typical(name)
        assert np.isfinite(LOG_PROB[name](jnp.ones(N), eta, phi)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda f=f: families.gaussian(variance_floor=f), "^variance_floor: ") for f in (-1, 1, np.nan)),
        *((lambda f=f: families.student_t(variance_floor=f), "^variance_floor: ") for f in (-0.1, 1.5)),
        *((lambda f=f: families.gamma(dispersion_floor=f), "^dispersion_floor: ") for f in (-1e-9, 1, np.inf)),
        *((lambda f=f: families.location_scale(scale_floor=f), "^scale_floor: ") for f in (0, -1, np.inf)),
        *((lambda d=d: families.student_t(d), "^df: ") for d in (0, -1, np.nan, np.inf)),
        *((lambda c=c: families.categorical(c), "^n_classes: ") for c in (1, 0, 2.0, "3", True)),
    ],
)
def test_families_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()
