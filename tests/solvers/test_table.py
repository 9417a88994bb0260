"""Every family, gate, solver and penalty together: what is refused, and the shapes of what is not.

All combinations are configured. Shapes are checked of as many as it takes for each two parts to meet, and with
`MOEJAX_TABLE=full` of all.
"""

from __future__ import annotations

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import moejax
from moejax import experts, families, gates, losses, penalties

N, D, K, C, KEY = 16, 2, 2, 3, jax.random.key(0)
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
REAL = (X[:, 0] + np.arange(N) / N).astype(np.float32)
COUNTS = (np.arange(N) % 4).astype(np.float32)

FAMILIES = {
    "gaussian": (families.gaussian(), REAL),
    "gaussian, shared": (families.gaussian(shared_scale=True), REAL),
    "student_t": (families.student_t(), REAL),
    "location_scale": (families.location_scale(), REAL),
    "gamma": (families.gamma(), np.exp(REAL)),
    "poisson": (families.poisson(), COUNTS),
    "bernoulli": (families.bernoulli(), COUNTS % 2),
    "categorical": (families.categorical(C), COUNTS % C),
}
GATES = {
    "constant": gates.constant(),
    "fixed": gates.fixed([0.5, 0.5]),
    "softmax": gates.softmax(),
    "reference": gates.softmax(reference=True),
    "top1": gates.top1(),
    "top_k": gates.top_k(1),
    "noisy": gates.top_k(1, noise=1.0),
    "gaussian": gates.gaussian(),
    "hierarchical": gates.hierarchical((2,)),
    "neural": gates.neural(nn.Dense(K)),
    "custom": gates.custom(lambda key, k, x: jnp.zeros((x.shape[1], k)), lambda params, x: x @ params),
}
SOLVERS = ("em", "adam", "proximal", "accelerated")
PENALTIES = {
    "l1_experts": None,
    "l2_experts": None,
    "group_experts": None,
    "l1_gate": None,
    "l2_gate": None,
    "group_gate": None,
    "elastic_net_gate": penalties.elastic_net("gate"),
    "group_columns_experts": penalties.group_columns("experts", [[0, 1]]),
}
UNDECLARED = {"custom"}  # a gate of the user's own arrays, of which nobody said which are coefficients
TABLE = list(itertools.product(FAMILIES, GATES, SOLVERS, PENALTIES))


def configured(family, gate, solver, penalty):
    """The fit of a combination, and what it is called with."""
    family, y = FAMILIES[family]
    outputs = {families.categorical(C): C, families.location_scale(): 2}.get(family)
    model = moejax.moe(experts.linear(outputs) if outputs else experts.linear(), GATES[gate], K, family=family)
    given = PENALTIES[penalty]
    name = penalty if given is None else given.name
    if solver == "em":
        return moejax.fit_em(model, penalty=given, max_iter=2), y, name
    loss = losses.likelihood_of(model)
    how = {"adam": {}, "proximal": {"proximal": True}, "accelerated": {"optimizer": "accelerated"}}[solver]
    return moejax.fit_gradient(model, loss, penalty=given, steps=2, **how), y, name


def refused(family, gate, solver, penalty):
    """What a combination is refused for, None if it is not."""
    if gate == "noisy" and solver in ("em", "accelerated"):
        return "noise|noisy"
    if "gate" in penalty and gate in UNDECLARED:
        return r"penalized\(params\)"
    return None


def meeting(table):
    """As many combinations of a table as it takes for each two parts of different kinds to meet."""
    pairs = [set(itertools.combinations(enumerate(row), 2)) for row in table]
    left, chosen = set().union(*pairs), []
    while left:
        best = max(range(len(table)), key=lambda i: len(pairs[i] & left))
        chosen.append(table[best])
        left -= pairs[best]
    return chosen


ALLOWED = [row for row in TABLE if refused(*row) is None]
TRACED = ALLOWED if os.environ.get("MOEJAX_TABLE") == "full" else meeting(ALLOWED)


def checked(row):
    fit, _, name = configured(*row)
    fit.check_hyper({name: 0.1})


def test_every_combination_is_configured_or_refused_by_name():
    for row in TABLE:
        words = refused(*row)
        if words is None:
            checked(row)
        else:
            with pytest.raises(ValueError, match=words):
                checked(row)


def test_each_two_parts_meet():
    assert {pair for row in TRACED for pair in itertools.combinations(enumerate(row), 2)} == {
        pair for row in ALLOWED for pair in itertools.combinations(enumerate(row), 2)
    }


@pytest.mark.parametrize("row", TRACED, ids=", ".join)
def test_what_is_allowed_has_the_shapes_of_a_fit(row):
    fit, y, name = configured(*row)
    got = jax.eval_shape(lambda key: fit(key, X, y, {name: 0.1}), KEY)
    assert jax.tree.structure(got.params) == jax.tree.structure(jax.eval_shape(fit.model.init, KEY, X))
    scalars = (got.objective, got.log_likelihood, got.kkt, got.degrees_of_freedom, got.classified, got.rows)
    assert {(v.shape, v.dtype) for v in scalars} == {((), np.dtype("float32"))}
    assert (got.status.shape, got.steps.shape, got.shares.shape) == ((), (), (K,))
