"""Mixtures of classifiers by both solvers: against scikit-learn's logistic regression, and where one line is at chance."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import linen as nn

import moejax
from moejax import experts, families, gates, losses, metrics, pooling

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 2))
NOISE = 0.05
# The class is which side of the diagonal a row is on, to the left the other way round: one line is at chance.
SIGNS = np.sign(X[:, 0]) * np.sign(X[:, 1])
CROSSED = np.where(RNG.random(300) < NOISE, SIGNS < 0, SIGNS > 0).astype(float)
KINDS = {"bernoulli": (None, families.bernoulli()), "categorical": (3, families.categorical(3))}
GATES = {
    "fixed": gates.fixed(),
    "constant": gates.constant(),
    "softmax": gates.softmax(),
    "gaussian": gates.gaussian(),
    "top1": gates.top1(),
    "top_k": gates.top_k(2),
    "hierarchical": gates.hierarchical((2,)),
    "neural": gates.neural(nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])),
}
BLIND = ["fixed", "constant"]
SEEING = [name for name in GATES if name not in BLIND]


def logistic(y, l2):
    """The class probabilities of one penalised logistic regression; scikit-learn's penalty is half the sum of squares."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    return linear_model.LogisticRegression(C=1 / (2 * l2 * len(y)), tol=1e-10, max_iter=10_000).fit(X, y).predict_proba(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", ["em", "gradient"])
def test_one_expert_is_logistic_regression(kind, solver):
    outputs, family = KINDS[kind]
    gate = GATES["fixed" if outputs is None else "constant"]
    model = moejax.moe(experts.linear(outputs), gate, 1, family=family)
    if solver == "em":
        fit = moejax.fit_em(model)
    else:
        fit = moejax.fit_gradient(model, moejax.losses.nll(), "accelerated", steps=1000, tol=1e-8)
    y = CROSSED if outputs is None else (X[:, 0] + RNG.normal(size=300) > 0) + (X[:, 1] > 0.5) * 1.0
    params = fit(jax.random.key(0), X, y, {"l2_experts": 0.01}).params
    np.testing.assert_allclose(pooling.probabilities(model, params, X), logistic(y, 0.01), atol=2e-5)


def accuracy_on_fresh_rows(model, params):
    x = np.random.default_rng(1).normal(size=(4000, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(float)
    return metrics.accuracy(y, pooling.probabilities(model, params, x))


def by(solver, model):
    """The likelihood that goes with the gate, by either solver."""
    if solver == "em":
        return moejax.fit_em(model, max_iter=100)
    return moejax.fit_gradient(model, losses.likelihood_of(model), steps=300, learning_rate=0.1, record_every=300)


EVERY = [*(("em", gate, "bernoulli") for gate in SEEING), *(("gradient", gate, "categorical") for gate in SEEING)]


@pytest.mark.parametrize(("solver", "gate", "kind"), EVERY)
def test_two_experts_tell_what_one_line_cannot(solver, gate, kind):
    outputs = None if kind == "bernoulli" else 2
    family = families.bernoulli() if kind == "bernoulli" else families.categorical(2)
    model = moejax.moe(experts.linear(outputs), GATES[gate], 3 if gate == "top_k" else 2, family=family)
    grid = moejax.sweep(by(solver, model), {"restart": 8, "l2_experts": [1e-4], "l2_gate": [1e-4]})
    result = grid(jax.random.key(0), X, CROSSED)
    assert metrics.accuracy(CROSSED, logistic(CROSSED, 1e-4)) < 0.65  # of a sample, a line is a little above chance
    assert accuracy_on_fresh_rows(model, moejax.select(result).params) > 0.9  # the best there is has 1


@pytest.mark.parametrize(("solver", "gate"), [("em", "fixed"), ("em", "constant"), ("gradient", "constant")])
def test_gates_that_see_no_input_cannot_tell_either_but_fit_no_worse_than_one_line(solver, gate):
    model = moejax.moe(experts.linear(), GATES[gate], 2, family=families.bernoulli())
    result = moejax.sweep(by(solver, model), {"restart": 4, "l2_experts": [1e-4]})(jax.random.key(0), X, CROSSED)
    best = moejax.select(result)
    assert accuracy_on_fresh_rows(model, best.params) < 0.76  # two lines, wherever one is, tell three of four quadrants
    alone = np.log(logistic(CROSSED, 1e-4)[np.arange(300), CROSSED.astype(int)]).sum()
    assert best.fit.log_likelihood > alone


def test_two_experts_of_three_classes_by_gradient_tell_what_one_line_cannot():
    model = moejax.moe(experts.linear(3), gates.softmax(), 2, family=families.categorical(3))
    fit = moejax.fit_gradient(model, moejax.losses.nll(), steps=600, learning_rate=0.1)
    y = np.where(X[:, 0] > 1.2, 2, CROSSED)
    result = moejax.sweep(fit, {"restart": 6})(jax.random.key(0), X, y)
    params = moejax.select(result).params
    assert metrics.accuracy(y, logistic(y, 1e-4)) < 0.8
    assert metrics.accuracy(y, pooling.probabilities(model, params, X)) > 0.9  # the noise leaves 0.95 or so
    assert metrics.log_loss(y, pooling.probabilities(model, params, X)) < 0.7 * metrics.log_loss(y, logistic(y, 1e-4))
