"""Networks as experts and gates: against linear parts, NumPy, each other, and a problem with three answers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from matplotlib.figure import Figure
from scipy import optimize

import moejax
from moejax import experts, families, gates, plots, pooling
from moejax.model import Data

N, D, K = 20, 3, 2
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.random.default_rng(1).normal(size=N)
KEY = jax.random.key(0)


def linen(outputs, hidden=10):
    return nn.Sequential([nn.Dense(hidden), nn.tanh, nn.Dense(outputs)])


class Small(nnx.Module):
    """A network with all that a fit has to see through: a list of layers, normalisation and dropout."""

    def __init__(self, outputs, rngs, hidden=4, inputs=D):
        self.first = nnx.Linear(inputs, hidden, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.LayerNorm(hidden, rngs=rngs)
        self.rest = nnx.List([nnx.Linear(hidden, outputs, rngs=rngs)])

    def __call__(self, x):
        return self.rest[0](self.norm(self.drop(nnx.relu(self.first(x)))))


def small(rngs):
    return Small(1, rngs)


def small_gate(rngs):
    return Small(K, rngs)


MODULES = {"linen": (linen(1), linen(K)), "nnx": (small, small_gate)}


# ---- parts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_network_of_one_layer_is_the_linear_expert(outputs):
    part = experts.neural(nn.Dense(outputs))
    params = part.init(KEY, K, jnp.asarray(X))
    like = experts.linear(None if outputs == 1 else outputs)
    weights, bias = params["kernel"], params["bias"] + 1.0
    if outputs == 1:
        weights, bias = weights[..., 0], bias[..., 0]
    want = like.apply({"weights": weights, "intercept": bias}, like.prepare(jnp.asarray(X)))
    got = part.apply({"kernel": params["kernel"], "bias": params["bias"] + 1.0}, jnp.asarray(X))
    assert got.shape == ((K, N) if outputs == 1 else (K, N, outputs))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert np.ptp(np.asarray(params["kernel"]), axis=0).min() > 0  # experts are drawn each on its own


@pytest.mark.usefixtures("float64")
def test_an_nnx_network_is_what_numpy_makes_of_its_numbers_without_dropout_and_in_float64():
    part = experts.neural(small)
    params = part.init(KEY, K, jnp.asarray(X))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    got = part.apply(params, jnp.asarray(X))
    for k in range(K):
        p = jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), params)
        h = np.maximum(X @ p["first"]["kernel"] + p["first"]["bias"], 0)
        h = (h - h.mean(axis=1, keepdims=True)) / np.sqrt(h.var(axis=1, keepdims=True) + 1e-6)
        h = h * p["norm"]["scale"] + p["norm"]["bias"]
        np.testing.assert_allclose(got[k], (h @ p["rest"][0]["kernel"] + p["rest"][0]["bias"])[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", MODULES)
def test_penalties_see_kernels_and_gates_are_softmaxes(kind):
    expert, gate = MODULES[kind]
    model = moejax.moe(experts.neural(expert), gates.neural(gate), K)
    params = jax.jit(model.init)(KEY, X)
    marked = jax.tree_util.tree_leaves_with_path(model.penalized(params))
    assert {path[-1].key for path, seen in marked if seen} == {"kernel"}
    assert {path[-1].key for path, seen in marked if not seen} <= {"bias", "scale"}
    logits = gates.neural(gate).network.apply(params["gate"], jnp.asarray(X, jnp.float32))
    want = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.gate_probs(params, X), want, rtol=1e-5)


def test_parts_made_again_are_equal_and_others_are_not():
    assert experts.neural(linen(1)) == experts.neural(linen(1))
    assert hash(gates.neural(linen(2))) == hash(gates.neural(linen(2)))
    assert experts.neural(linen(1)) != experts.neural(linen(2))
    assert experts.neural(linen(1)) != experts.neural(nn.Sequential([nn.Dense(10), nn.relu, nn.Dense(1)]))
    assert experts.neural(small) == experts.neural(small)
    assert experts.neural(small) != experts.neural(small_gate)


class Picture(nn.Module):
    outputs: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.outputs)(x.reshape(len(x), -1))


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x["image"].reshape(len(x["image"]), -1)) + nn.Dense(1)(x["row"])


def test_inputs_may_be_images_and_pytrees():
    images = np.random.default_rng(2).normal(size=(N, 4, 4, 1))
    model = moejax.moe(experts.neural(Picture(1)), gates.neural(Picture(K)), K)
    fit = moejax.fit_gradient(model, steps=30, learning_rate=0.05)
    end = fit(KEY, images, Y)
    assert float(end.objective) < 0.9 * float(end.history[0])
    assert model.predict(end.params, images).shape == (N,)
    both = moejax.moe(experts.neural(Pair()), gates.constant(), K)
    x = {"image": images, "row": X}
    assert jax.eval_shape(lambda x: both.predict(both.init(KEY, x), x), x).shape == (N,)
    with pytest.raises(ValueError, match=r"^x: shape \(20, 4, 4, 1\) was given; want \(any, any\)"):
        moejax.fit_gradient(moejax.moe(experts.linear(), gates.neural(Picture(K)), K))(KEY, images, Y)


class Several(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x, nn.Dense(1)(x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: experts.neural(3), "^module: 3 was given; want a flax.linen.Module, or a function"),
        (lambda: gates.neural(nn.Dense), "^module: .*Dense.* was given; want"),
        (lambda: experts.neural(small(nnx.Rngs(0))), r"^module: an nnx Small was given; want what builds it, as in lambda"),
        (lambda: experts.neural(lambda rngs: 3), "^module: .*builds no nnx.Module"),
        (lambda: experts.neural(lambda rngs: nnx.BatchNorm(D, rngs=rngs)), "^module: BatchNorm keeps BatchStat beside"),
        (lambda: of(nn.BatchNorm(use_running_average=True)), "^module: BatchNorm keeps batch_stats beside"),
        (lambda: of(nn.Dropout(0.5, deterministic=False)), "^module: Dropout draws random numbers"),
        (lambda: of(nn.DenseGeneral((2, 2))), r"^expert: DenseGeneral returned shape \(20, 2, 2\); want \(20,\), \(20, 1\)"),
        (lambda: of(Several()), "^module: Several returned tuple; want one array"),
        (lambda: of(nn.Dense(1), gates.neural(nn.Dense(5))), r"^gate: Dense returned shape \(20, 5\); want \(20, 2\)"),
    ],
)
def test_modules_that_do_not_fit_are_refused_before_anything_compiles(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def of(module, gate=None):
    model = moejax.moe(experts.neural(module), gate or gates.constant(), K)
    return moejax.fit_gradient(model)(KEY, X, Y)


# ---- fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_generalised_em_never_raises_its_objective_and_ends_below_a_mixture_of_lines():
    x = np.linspace(-2, 2, 60)[:, None]
    y = np.sin(3 * x[:, 0]) + 0.1 * np.random.default_rng(0).normal(size=60)
    model = moejax.moe(experts.neural(linen(1, 5)), gates.neural(nn.Dense(K)), K, family=families.gaussian())
    end = moejax.fit_em(model, max_iter=60, record_every=1)(KEY, x, y, {"l2_gate": 1e-3})
    history = np.asarray(end.history)
    assert (np.diff(history) <= 1e-12).all()
    data = Data(model.prepare(x), jnp.asarray(y))
    value = -model.log_prob(end.params, x, y).mean() + 1e-3 * np.square(end.params["gate"]["kernel"]).sum()
    assert float(end.objective) == pytest.approx(float(value), rel=1e-10)
    assert model.log_density(end.params, data).shape == (K, 60)
    lines = -np.log(2 * np.pi * np.e * np.var(y - np.polyval(np.polyfit(x[:, 0], y, 1), x[:, 0]))) / 2
    assert -float(value) > lines + 0.3  # the maximum of one regression's likelihood


def test_networks_are_swept_selected_and_refitted_on_a_real_table():
    table = moejax.datasets.diabetes()
    x, y = (table.x - table.x.mean(axis=0)) / table.x.std(axis=0), (table.y - table.y.mean()) / table.y.std()
    model = moejax.moe(experts.neural(linen(1, 4)), gates.neural(nn.Dense(K)), K)
    fit = moejax.fit_gradient(model, steps=100, learning_rate=0.03, proximal=True)
    grid = moejax.sweep(fit, {"l1_experts": [0.003, 0.03, 10.0], "restart": 2, "fold": 2})
    result = grid(KEY, x, y)
    assert result.shape == (3, 2, 2)
    kernels = np.asarray(result.fits.params["experts"]["layers_0"]["kernel"])
    zeros = (kernels == 0).mean(axis=tuple(range(1, kernels.ndim)))
    assert zeros[0] < zeros[1] < zeros[2] == 1  # exact, and biases are left
    assert (np.asarray(result.fits.params["experts"]["layers_2"]["bias"][2]) != 0).all()
    best = moejax.select(result)
    trained_best = np.take_along_axis(result.held_out, result.fits.objective.argmin(axis=1)[:, None], axis=1)[:, 0]
    assert best.chosen["l1_experts"] == pytest.approx(result.axes["l1_experts"][trained_best.mean(axis=1).argmin()])
    assert float(((model.predict(best.params, x) - y) ** 2).mean()) < 0.6  # on all rows; least squares has 0.482


def test_a_mixture_density_network_finds_the_three_branches():
    train, fresh = (moejax.datasets.inverse_sine(n, seed) for n, seed in ((500, 0), (2000, 1)))
    model = moejax.moe(experts.neural(linen(2)), gates.neural(linen(3)), 3, family=families.location_scale())
    fit = moejax.fit_gradient(model, moejax.losses.nll(), steps=800, learning_rate=0.03)
    score, held_out = jax.jit(model.log_prob), {}
    for n_experts in (1, 3):
        params = fit(KEY, train.x, train.y, {"n_experts": n_experts}).params
        held_out[n_experts] = float(score(params, fresh.x, fresh.y).mean())
    assert held_out[3] > held_out[1] + 0.4
    at = np.array([[0.5]])
    peaks = pooling.modes(model, params, at)

    def miss(t):
        return t + 0.3 * np.sin(2 * np.pi * t) - 0.5

    branches = [optimize.brentq(miss, *ends) for ends in ((0, 0.35), (0.35, 0.65), (0.65, 1))]
    np.testing.assert_allclose(np.sort(peaks.at[0]), branches, atol=0.03)
    assert np.abs(pooling.predict(model, params, at) - np.array(branches[::2])).min() > 0.15  # the mean is on no outer one
    assert float(pooling.density(model, params, at, np.array([0.36]))[0]) < 0.5 * float(peaks.density[0].min())


def test_the_inverse_problem_is_what_it_says():
    table = moejax.datasets.inverse_sine(4000, 3)
    noise = table.x[:, 0] - table.y - 0.3 * np.sin(2 * np.pi * table.y)
    assert np.abs(noise).max() < 0.1
    assert noise.std() == pytest.approx(0.2 / np.sqrt(12), rel=0.03)
    assert table.y.min() > 0 and table.y.max() < 1 and table.y.mean() == pytest.approx(0.5, abs=0.02)  # noqa: PT018
    np.testing.assert_array_equal(moejax.datasets.inverse_sine(4000, 3).x, table.x)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("solver", ["em", "gradient"])
def test_linear_location_and_scale_reach_the_maximum_that_a_search_finds(solver):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 1))
    y = 1 + 2 * x[:, 0] + np.exp(-0.5 + 0.6 * x[:, 0]) * rng.normal(size=200)
    model = moejax.moe(experts.linear(2), gates.constant(), 1, family=families.location_scale(scale_floor=1e-3))
    if solver == "em":
        fit = moejax.fit_em(model)
    else:
        fit = moejax.fit_gradient(model, moejax.losses.nll(), "accelerated", steps=2000, tol=1e-8)
    end = fit(KEY, x, y)

    def loss(b):
        log_scale = 0.5 * np.logaddexp(2 * np.log(1e-3), 2 * (b[2] + b[3] * x[:, 0]))
        return np.mean(0.5 * ((y - b[0] - b[1] * x[:, 0]) / np.exp(log_scale)) ** 2 + log_scale) + 0.5 * np.log(2 * np.pi)

    best = optimize.minimize(loss, np.zeros(4), tol=1e-12)
    got = end.params["experts"]
    np.testing.assert_allclose(
        np.r_[got["intercept"][0, 0], got["weights"][0, 0, 0], got["intercept"][0, 1], got["weights"][0, 0, 1]],
        best.x, atol=1e-4,
    )  # fmt: skip
    assert float(end.objective) == pytest.approx(best.fun, abs=1e-9)


# ---- figures --------------------------------------------------------------------------------------------------------


def test_the_figure_of_a_density_shows_what_it_is_given():
    at, grid = np.linspace(0, 1, 5), np.linspace(-1, 1, 4)
    density = np.random.default_rng(0).random((5, 4))
    centres = np.array([[0.5, np.nan]] * 5)
    ax = plots.conditional_density(at, grid, density, x=at[:, None], y=at, centres=centres, shares=np.full((5, 2), 0.25))
    mesh, data, dots = ax.collections
    np.testing.assert_array_equal(np.ravel(mesh.get_array()), density.T.ravel())
    np.testing.assert_array_equal(data.get_offsets(), np.stack([at, at], axis=1))
    drawn = np.ma.filled(np.ma.asarray(dots.get_offsets()).astype(float), np.nan)
    assert np.nansum(drawn[:, 1] == 0.5) == 5
    np.testing.assert_allclose(dots.get_sizes(), 3.5)
    assert ax.get_xlabel() == "x" and ax.get_ylabel() == "y"  # noqa: PT018
    assert ax.figure.axes[1].get_ylabel() == "density"
    own = Figure().subfigures(1, 2)[0].add_subplot()
    assert plots.conditional_density(at, grid, density, ax=own) is own


def test_the_reliability_diagram_shows_the_table():
    y, said = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.3, 0.35, 0.9, 0.8])
    table = moejax.metrics.calibration(y, said, 5)
    ax = plots.calibration(table)
    points = ax.collections[0].get_offsets()
    there = table.share > 0
    np.testing.assert_allclose(points, np.stack([table.predicted[there], table.observed[there]], axis=1))
    assert f"{table.error:.3f}" in ax.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.conditional_density([0, 0], [0, 1], np.ones((2, 2))), "^at: .*each above the one before"),
        (lambda: plots.conditional_density([0, 1], [0, 1], np.ones((3, 2))), "^density: shape"),
        (lambda: plots.conditional_density([0, 1], [0, 1], -np.ones((2, 2))), "^density: .*below 0"),
        (lambda: plots.conditional_density([0, 1], [0, 1], np.ones((2, 2)), x=[0, 1]), "^x, y: x was given alone"),
        (
            lambda: plots.conditional_density([0, 1], [0, 1], np.ones((2, 2)), shares=np.ones((2, 2))),
            "^shares: given without",
        ),
        (lambda: plots.calibration([0.5]), "^table: list was given"),
    ],
)
def test_figures_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_layer_that_is_used_twice_is_not_two_layers():
    def network(shared):
        layer = nn.Dense(3)
        return nn.Sequential([layer, nn.tanh, layer if shared else nn.Dense(3), nn.Dense(1)])

    once, twice = (experts.neural(network(shared)) for shared in (False, True))
    assert once != twice
    assert once == experts.neural(network(False))
    assert twice == experts.neural(network(True))
    assert len(once.init(KEY, K, jnp.asarray(X))) == len(twice.init(KEY, K, jnp.asarray(X))) + 1
