"""Linear algebra in small: against LAPACK's, whatever the units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision

import moejax
from moejax._linear import moments, pairs, solved, with_intercept


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
        given = (jnp.asarray(size * a) for a in (gram, extra))
        found = solved(*given, jnp.asarray(free), jnp.asarray(size * right))
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


@pytest.mark.parametrize("d", range(8))
def test_moments_are_sums_over_rows_about_the_means(d):
    """Of all pairs of columns, for every number of them, odd and even."""
    rng = np.random.default_rng(d)
    x, weights = rng.normal(5, 1, size=(30, d)), rng.uniform(size=(2, 3, 30))
    with precision(True):
        found = moments(pairs(with_intercept(jnp.asarray(x))), jnp.asarray(weights))
    rows = np.column_stack([x - x.mean(axis=0), np.ones(30)])
    np.testing.assert_allclose(found.means, [*x.mean(axis=0), 0], rtol=1e-12)
    np.testing.assert_allclose(found.gram, np.einsum("abn,ni,nj->abij", weights, rows, rows), rtol=0, atol=1e-12)
