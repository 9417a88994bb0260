"""Linear algebra in small: against LAPACK's, whatever the units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision

import moejax
from moejax._linear import Ask, asked, diagonals, solved, table, unpacked


@pytest.mark.parametrize(
    ("p", "double", "tol"), [(5, False, 1e-5), (5, True, 1e-12), (40, False, 1e-3), (40, True, 1e-3)]
)  # by elimination, and nearly by conjugate gradients
@pytest.mark.parametrize("size", [1e-12, 1e-4, 1.0, 1e4, 1e12])
def test_solutions_do_not_depend_on_units(p, double, tol, size):
    """A times v = b has the solution that size * A times v = size * b has, to the precision of one of them."""
    rng = np.random.default_rng(p)
    x = rng.normal(size=(2, 3 * p, p))
    gram, right, extra = np.swapaxes(x, 1, 2) @ x, rng.normal(size=(2, p)), rng.uniform(size=(2, p))
    free = rng.random((2, p)) < 0.8
    with precision(double):
        scaled, ridge = (jnp.asarray(size * a) for a in (gram, extra))
        found = np.asarray(solved(scaled, diagonals(scaled), ridge, jnp.asarray(free), jnp.asarray(size * right)))
    for k in range(2):
        f = free[k]
        wanted = np.linalg.solve((gram[k] + np.diag(extra[k]))[np.ix_(f, f)], right[k][f])
        np.testing.assert_allclose(found[k][f], wanted, rtol=0, atol=tol * abs(wanted).max())
        assert (found[k][~f] == 0).all()


def test_steps_keep_the_precision_of_the_inputs():
    """Inputs in float32 where float64 is there too: a loop refuses what changes its type."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2)).astype(np.float32)
    with precision(True):
        model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), 2, family=moejax.families.gaussian())
        fit = moejax.fit_em(model, max_iter=3)(jax.random.key(0), x, x[:, 0] * x[:, 1], {"l1_experts": 0.1, "l2_gate": 0.1})
    assert fit.objective.dtype == jnp.float32


@pytest.mark.parametrize("keep", [False, True], ids=["products of each call", "products kept"])
@pytest.mark.parametrize("d", range(8))
def test_moments_are_sums_over_rows_about_the_means(d, keep):
    """Of all pairs of columns, for every number of them, odd and even, and of what several parts ask for, by one product."""
    rng = np.random.default_rng(d)
    x, weights, pulls = rng.normal(5, 1, size=(30, d)), rng.uniform(size=(6, 30)), rng.normal(size=(3, 30))
    means = x.mean(axis=0)
    with precision(True):
        rows = table(jnp.asarray(x), jnp.asarray(means), keep)
        asks = [(weights[:4], pulls[:1]), (weights[4:], pulls[1:])]
        answers = asked(rows, [Ask(*map(jnp.asarray, ask)) for ask in asks])
        found = [unpacked(*answer, jnp.asarray(means)) for answer in answers]
        np.testing.assert_allclose(rows.columns, x, rtol=1e-12)
    z = np.column_stack([x - means, np.ones(30)])
    for (own, pull), got in zip(asks, found, strict=True):
        np.testing.assert_allclose(got.means, means, rtol=1e-12)
        np.testing.assert_allclose(got.gram, np.einsum("an,ni,nj->aij", own, z, z), rtol=0, atol=1e-12)
        np.testing.assert_allclose(got.pull, pull @ z, rtol=0, atol=1e-12)


def test_a_table_without_means_is_about_zero():
    x, weights = np.random.default_rng(9).normal(5, 1, size=(30, 3)), np.random.default_rng(1).uniform(size=(2, 30))
    with precision(True):
        answer = asked(table(jnp.asarray(x)), [Ask(jnp.asarray(weights), jnp.asarray(weights))])[0]
        found = unpacked(*answer, jnp.zeros(3))
    z = np.column_stack([x, np.ones(30)])
    np.testing.assert_allclose(found.gram, np.einsum("an,ni,nj->aij", weights, z, z), rtol=1e-12)
    np.testing.assert_allclose(found.pull, weights @ z, rtol=1e-12)
