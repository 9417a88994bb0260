"""Rows that fill tables up to a size which other tables share: fits are those of the rows alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moejax
from moejax import Status, experts, families, gates
from moejax._rows import padded_size

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(0)
D, K = 3, 2
RNG = np.random.default_rng(0)
MOST = 65
X = RNG.normal(size=(MOST, D))
Y = np.where(X[:, 0] > 0, 1.5 * X[:, 1], 1 - X[:, 2]) + 0.3 * RNG.normal(size=MOST)
X[0] += 5  # the row that is copied is one of its own
WEIGHTS = (RNG.integers(0, 4, MOST) / 2).astype(float)
OFFSET = 0.3 * np.sin(np.arange(MOST))
GROUPS = np.arange(MOST) * 5 // 3 % 20
SHARES = RNG.dirichlet([2.0] * K, MOST)
MODEL = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
GIVEN = {
    "nothing": {},
    "weights": {"weights": WEIGHTS},
    "groups": {"weights": WEIGHTS[GROUPS], "groups": GROUPS},
    "offset": {"offset": OFFSET},
    "responsibilities": {"start": SHARES},
    "all": {"weights": WEIGHTS[GROUPS], "groups": GROUPS, "offset": OFFSET, "start": SHARES},
}


def both(fit, n, given, hyper):
    """The fit of n rows by a call, which fills them up, and inside of other compiled code, which does not."""
    arrays = {name: v[:n] for name, v in given.items()}
    padded = fit(KEY, X[:n], Y[:n], hyper, **arrays)
    plain = jax.jit(lambda x, y, arrays: fit(KEY, x, y, hyper, **arrays))(X[:n], Y[:n], arrays)
    return jax.tree.map(np.asarray, padded), jax.tree.map(np.asarray, plain)


def assert_same(padded, plain):
    assert plain.status & Status.CONVERGED
    assert padded.status == plain.status
    for name in ("objective", "log_likelihood", "degrees_of_freedom", "classified", "rows"):
        assert getattr(padded, name) == pytest.approx(getattr(plain, name), rel=1e-9, abs=1e-9), name
    leaves = zip(jax.tree.leaves_with_path(padded.params), jax.tree.leaves(plain.params), strict=True)
    for (path, a), b in leaves:
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=str(path))


@pytest.mark.parametrize(("case", "n"), [("nothing", 64), ("nothing", 65), ("all", 65)])
def test_a_fit_is_that_of_its_rows_alone(case, n):
    fit = moejax.fit_em(MODEL, tol=1e-12)
    assert_same(*both(fit, n, GIVEN[case], {"l2_experts": 0.02, "l2_gate": 0.02}))


@pytest.mark.parametrize(("init", "n"), [("random", 65), ("residuals", 65)])
def test_a_drawn_start_is_that_of_its_rows_alone(init, n):
    fit = moejax.fit_em(MODEL, init=init, tol=1e-12)
    assert_same(*both(fit, n, {"weights": WEIGHTS}, {"l1_experts": 0.02, "l2_gate": 0.02, "restart": 5}))


@given(st.integers(1, 10**9))
def test_a_padded_size_is_at_least_that_of_the_rows_and_at_most_a_quarter_above(n):
    size = padded_size(n)
    assert n <= size <= max(16, 1.25 * n)
    assert padded_size(size) == size  # so that tables of a size are not padded again
    assert size <= padded_size(n + 1)


def test_padded_sizes_are_few():
    assert len({padded_size(n) for n in range(1, 2**14 + 1)}) <= 1 + 4 * (14 - 4)
    for power in range(4, 30):  # of each factor of two
        step = max(2**power // 64, 1)
        assert len({padded_size(n) for n in range(2**power + 1, 2 ** (power + 1) + 1, step)}) <= 4


def test_sixty_four_rows_and_one_more_have_other_sizes():
    assert padded_size(64) == 64
    assert padded_size(65) > 65


# ---- what may look at rows is not given others ---------------------------------------------------------------------------


class LooksAtAllRows(moejax.losses.Loss):
    """A mean that ignores weights, as a user's own may."""

    def value(self, model, params, data, weights):
        return jnp.abs(model.mean(params, data.x) - data.y).mean()


class BeginsAtTheMean(moejax.gates.Gate):
    """A gate whose params begin at what the rows have in common."""

    def init(self, key, n_experts, x):
        return {"centre": x.mean(axis=0)}

    def log_probs(self, params, x):
        return jnp.broadcast_to(jnp.log(0.5), (2, len(x))) + 0 * params["centre"].sum()

    def trainable(self, params):
        return {"centre": False}


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["NumPy", "JAX"])
def test_parts_and_losses_that_look_at_rows_see_no_others(kind):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(133, 2)).astype(np.float32), rng.normal(size=133).astype(np.float32)
    x[0] = 9  # the row that would be copied
    softmax = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), 2, family=moejax.families.gaussian())
    own = moejax.moe(moejax.experts.linear(), BeginsAtTheMean(), 2, family=moejax.families.gaussian())
    key = jax.random.key(0)
    lone = moejax.fit_gradient(softmax, LooksAtAllRows(), steps=1)
    state = lone.init_state(key, x)
    for _ in range(1):
        state, _ = lone.train_step(state, jnp.asarray(x), jnp.asarray(y))
    want = np.abs(np.asarray(softmax.predict(state.params, x)) - y).mean()
    assert float(lone(key, kind(x), kind(y)).objective) == pytest.approx(want, rel=1e-5)
    grid = moejax.sweep(lone, {"restart": 1}, progress=False)(key, kind(x), kind(y))
    assert float(grid.fits.objective[0]) == pytest.approx(want, rel=1e-5)
    for fit in (moejax.fit_em(own, max_iter=1), moejax.fit_gradient(own, moejax.losses.nll(), steps=1)):
        np.testing.assert_allclose(fit(key, kind(x), kind(y)).params["gate"]["centre"], x.mean(axis=0), rtol=1e-5)
