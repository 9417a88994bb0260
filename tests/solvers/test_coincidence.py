"""Experts that coincide: left where that is a saddle, and told where it is the best fit around."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

import moejax
from moejax import Status, experts, families, gates

KEY, N = jax.random.key(0), 200
RNG = np.random.default_rng(0)
LEVELS = (np.arange(N) % 2.0)[:, None]
COLUMN = RNG.uniform(-1, 1, (N, 1))
FIRST = RNG.random(N) < 0.5


def saddles():
    """By name: a family, x, and y of two regimes that x does not tell apart."""
    counts = RNG.poisson(np.where(FIRST, 12.0, 1.0)).astype(float)
    crossing = np.where(FIRST, 2, -2) * COLUMN[:, 0] + 0.2 * RNG.normal(size=N)
    return {
        "counts of a factor": (families.poisson(), LEVELS, counts),
        "crossing lines": (families.gaussian(shared_scale=True), COLUMN, crossing),
        "levels far from 0": (families.gaussian(), LEVELS + 100, np.where(FIRST, 5.0, 0.0) + RNG.normal(size=N)),
    }


SADDLES = saddles()


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", SADDLES)
def test_experts_that_coincide_part_where_fewer_are_no_best_fit(name):
    family, x, y = SADDLES[name]

    def fit_of(k, **options):
        return moejax.fit_em(moejax.moe(experts.linear(), gates.constant(), k, family=family), **options)

    one = fit_of(1)(KEY, x, y)
    twice = jax.tree.map(lambda v: np.repeat(v, 2, axis=0) if np.shape(v)[:1] == (1,) else v, one.params)
    if name == "crossing lines":
        twice["family"] = one.params["family"]  # a scale that all share
    starts = [fit_of(2, init="random")(KEY, x, y, {"restart": r}) for r in range(4)]
    best = max(float(fit.log_likelihood) for fit in starts)
    for got in (fit_of(2)(KEY, x, y, start_params=twice), fit_of(2, init="equal")(KEY, x, y)):
        assert Status(int(got.status)) == Status.CONVERGED
        # A factor's levels may cross or not, two maxima that chance makes nearly equal.
        assert float(got.log_likelihood) > best - 3 > float(one.log_likelihood) + 5
        assert (np.diff(got.history[np.isfinite(got.history)]) <= 1e-9).all()


def test_experts_that_come_together_again_are_told():
    """Of tails heavier than a normal density's, two means of one scale are worse than one, near to it."""
    tails = np.random.default_rng(1).laplace(size=N)
    fit = moejax.fit_em(
        moejax.moe(experts.linear(), gates.constant(), 2, family=families.gaussian(shared_scale=True)), init="equal"
    )
    got = fit(KEY, COLUMN, tails, {"l1_experts": 100.0})
    assert Status(int(got.status)) == Status.CONVERGED | Status.COINCIDING_EXPERTS
    want = 0.5 * np.log(2 * np.pi * np.var(tails)) + 0.5
    assert float(got.objective) == pytest.approx(want, abs=1e-8)


class Named(type(experts.linear())):
    """Linear experts whose params have names of their own."""

    def _plain(self, params):
        return {"weights": params["w"], "intercept": params["b"]}

    def init(self, key, n_experts, x):
        plain = super().init(key, n_experts, x)
        return {"w": plain["weights"], "b": plain["intercept"]}

    def penalized(self, params):
        return {name: name == "w" for name in params}

    def apply(self, params, x):
        return super().apply(self._plain(params), x)

    def quadratic(self, params, moments):
        return super().quadratic(self._plain(params), moments)

    def in_use(self, params, sparse):
        return super().in_use(self._plain(params), sparse)

    def with_coefficients(self, params, b):
        plain = super().with_coefficients(self._plain(params), b)
        return {"w": plain["weights"], "b": plain["intercept"]}

    def null(self, params, eta=0.0):
        plain = super().null(self._plain(params), eta)
        return {"w": plain["weights"], "b": plain["intercept"]}

    def degrees_of_freedom(self, params):
        return super().degrees_of_freedom(self._plain(params))


class Frozen(type(experts.linear())):
    """Linear experts that are not trained."""

    def trainable(self, params):
        return jax.tree.map(lambda _: False, params)


@pytest.mark.parametrize("kind", [Named, Frozen])
def test_linear_experts_of_ones_own_are_fitted_to_labels(kind):
    y = (COLUMN[:, 0] + 0.3 * RNG.normal(size=N) > 0) * 1.0
    built_in = experts.linear()
    own = kind(**{field.name: getattr(built_in, field.name) for field in dataclasses.fields(built_in)})
    fits = [
        moejax.fit_em(moejax.moe(part, gates.constant(), 2, family=families.bernoulli()))(
            KEY, COLUMN, y, {"l2_experts": 0.01}
        )
        for part in (own, built_in)
    ]
    assert all(np.isfinite(fit.objective) for fit in fits)
    if kind is Named:
        assert float(fits[0].objective) == pytest.approx(float(fits[1].objective), abs=1e-9)


def test_experts_of_other_scales_do_not_coincide():
    y = np.where(FIRST, 0.1, 2.0) * RNG.normal(size=N)
    got = moejax.fit_em(moejax.moe(experts.linear(), gates.constant(), 2, family=families.gaussian()))(KEY, COLUMN, y)
    assert Status(int(got.status)) == Status.CONVERGED
