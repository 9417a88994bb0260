"""Sound data that are hard: a user who calls `fit` gets the best fit there is, and is told what is the matter with it."""

import warnings

import jax
import numpy as np
import pytest
from sklearn.datasets import make_regression
from sklearn.exceptions import ConvergenceWarning

import moejax
from moejax import Status, experts, families, gates
from moejax.sklearn import MoEClassifier, MoERegressor


def fitted(x, y, n_experts, said=(), **settings):
    """A fit, of which `said` is all that is warned of, by how messages begin."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = MoERegressor(n_experts, random_state=0, **settings).fit(x, y)
    assert [str(w.message).split(":")[0] for w in seen] == list(said)
    return model


LINE = np.linspace(-2, 2, 81)[:, None] + 0.013


@pytest.mark.parametrize(
    ("n_experts", "x", "y"), [(1, *make_regression(100, 3, random_state=0)), (2, LINE, np.abs(LINE[:, 0]))]
)
def test_targets_without_noise_are_reproduced(n_experts, x, y):
    model = fitted(x, y, n_experts, ["y"])
    assert model.score(x, y) > 0.99
    assert model.status_ & Status.SCALE_AT_FLOOR
    assert model.converged_  # though the scale is at what rounding leaves, and slopes are huge


def two_noises(ratio):
    """Two crossing lines, the noise of one so many times that of the other, 0.05."""
    rng = np.random.default_rng(1)
    z = rng.integers(0, 2, 400)
    x = rng.uniform(-2, 2, (400, 1))
    noise = rng.normal(size=400) * np.where(z == 0, 0.05 * ratio, 0.05)
    return x, np.where(z == 0, 1 + 2 * x[:, 0], 5 - 2 * x[:, 0]) + noise, z


def plain_em(x, y, z):
    """The log-likelihood where EM by least squares ends, from the true labels."""
    rows, r = np.c_[np.ones(len(y)), x], np.stack([z == 0, z == 1]).astype(float)
    for _ in range(500):
        each = []
        for w in r:
            b = np.linalg.lstsq(rows * np.sqrt(w)[:, None], y * np.sqrt(w), rcond=None)[0]
            off = y - rows @ b
            s = np.sqrt((w * off**2).sum() / w.sum())
            each.append(np.log(w.mean()) - off**2 / (2 * s**2) - np.log(s) - np.log(2 * np.pi) / 2)
        total = np.logaddexp(*each)
        r = np.exp(np.array(each) - total)
    return total.sum()


@pytest.mark.parametrize("ratio", [4, 8, 20])
def test_unequal_noise_is_no_fault(ratio):
    x, y, z = two_noises(ratio)
    model = fitted(x, y, 2, gate="constant")
    assert model.log_likelihood_ == pytest.approx(plain_em(x, y, z), abs=0.01)
    assert model.converged_


def test_a_floor_that_holds_a_scale_is_named_and_can_be_lowered():
    x, y, z = two_noises(20)
    held = fitted(x, y, 2, ["y"], gate="constant", variance_floor=0.05)
    assert held.scale_.min() / held.scale_.max() == pytest.approx(np.sqrt(0.05), rel=1e-4)
    free = fitted(x, y, 2, gate="constant", variance_floor=0)
    assert free.log_likelihood_ == pytest.approx(plain_em(x, y, z), abs=0.01)
    for settings in ({"family": "poisson"}, {"family": families.gaussian()}):
        with pytest.raises(ValueError, match=r"^variance_floor: 0\.1 was given"):
            MoERegressor(2, variance_floor=0.1, **settings).fit(x, np.round(np.abs(y)))


def test_an_expert_of_one_count_is_let_go():
    rng = np.random.default_rng(7)
    x = rng.uniform(-1, 1, (200, 1))
    y = rng.poisson(np.exp(1 + x[:, 0]))
    y[0] = 10_000
    model = fitted(x, y, 2, ["n_experts"], family="poisson", gate="constant")
    assert model.model_.n_experts == 1
    assert model.predict(x).max() < 10_000


def test_rows_near_to_a_line_by_chance_are_no_expert():
    """Normal noise around one plane: eight rows or so are within a hundredth of some plane, and of a high likelihood."""
    rng = np.random.default_rng(0)
    x = np.vstack([rng.normal(size=(60, 2)), rng.normal(size=(200, 3))[:, :2]])[60:]
    y = x.sum(axis=1) + rng.normal(size=200)
    for seed in range(3):
        model = MoERegressor(2, gate="constant", n_init=16, random_state=seed).fit(x, y)
        rows = model.shares_ * len(y)
        assert (model.scale_**2 / (model.scale_**2).max() > 1e-3).all() or rows.min() >= 12


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("absent", [-9999.0, 1e20])
def test_rows_of_weight_0_may_hold_anything(dtype, absent):
    x, y, _ = two_noises(2)
    want = MoERegressor(2, gate="constant", random_state=0, n_init=4).fit(x.astype(dtype), y.astype(dtype))
    rows = np.vstack([x, np.full((5, 1), absent)]).astype(dtype)
    weights = np.r_[np.ones(400), np.zeros(5)]
    got = MoERegressor(2, gate="constant", random_state=0, n_init=4).fit(rows, np.r_[y, np.zeros(5)], sample_weight=weights)
    assert got.log_likelihood_ == pytest.approx(want.log_likelihood_, abs=0.01)


@pytest.mark.parametrize("n_experts", [1, 2])
def test_a_column_that_varies_by_rounding_alone_is_constant(n_experts):
    rng = np.random.default_rng(7)
    x = rng.uniform(-1, 1, 200)
    y = 1 + 2 * x + rng.normal(0, 0.3, 200)
    column = np.where(rng.uniform(size=200) < 0.5, 0.1 + 0.2, 0.3)
    assert np.ptp(column) > 0
    model = MoERegressor(n_experts, n_init=2, random_state=0, shared_scale=True).fit(np.c_[x, column], y)
    assert (model.coef_[:, 1] == 0).all()
    at = model.predict([[0.0, 0.3], [0.0, 0.3 + 1e-6], [0.0, 7.0]])
    np.testing.assert_allclose(at, at[0], rtol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_a_collapse_of_all_scales_is_no_fit(shared):
    """120 rows, 100 columns, a ridge: two experts reproduce their rows; one cannot, and is sound."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 100))
    y = np.where(x[:, 0] > 0, x[:, 1], -2 * x[:, 2]) + 0.5 * rng.normal(size=120)
    model = fitted(x, y, 2, ["n_experts"], l2_experts=0.1, n_init=2, shared_scale=shared)
    assert model.model_.n_experts == 1
    assert np.min(model.scale_) > 0.1


def test_gates_of_a_number_of_experts_keep_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(14, 4))
    model = fitted(
        x, x[:, 0] + 0.1 * rng.normal(size=14), 4, ["n_experts"], gate=gates.hierarchical(((0, 1), (2, 3))), n_init=2
    )
    assert model.model_.n_experts == 4
    assert model.status_ & Status.DEGENERATE_EXPERT


def test_a_separated_fit_competes_like_others():
    """Stripes of classes, of which each expert's are separated: the best fit is not passed over for one that converged."""
    rng = np.random.default_rng(0)

    def stripes(n):
        x = rng.uniform(-3, 3, size=(n, 2)).astype("f")
        return x, np.floor(x[:, 0] + 3).astype(int) % 2 == 0

    (x, y), fresh = stripes(300), stripes(2000)
    with pytest.warns(ConvergenceWarning, match="^the best fit ended separated expert; .*want l2_experts above 0"):
        model = MoEClassifier(3, n_init=40, random_state=0).fit(x, y)
    assert model.score(*fresh) > 0.9


def test_outputs_share_the_rows_of_an_expert():
    """Ten outputs of ten columns: an expert of a hundred rows has them for each output."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(200, 10)), rng.normal(size=(2, 10, 10))
    y = np.where(x[:, :1] > 0, x @ w[0], x @ w[1]) + 0.3 * rng.normal(size=(200, 10))
    model = moejax.moe(experts.linear(10), gates.softmax(), 2, family=families.gaussian())
    fits = moejax.sweep(moejax.fit_em(model), {"restart": 4, "l2_gate": [1e-3]}, progress=False, optimize=False)(
        jax.random.key(0), x, y
    )
    assert fits.fits.admissible.all()
