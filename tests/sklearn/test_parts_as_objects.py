"""Parts as objects in estimators: the same as their names, users' own, what is refused, and experts in another order.

Most tests stop before anything compiles: what is configured tells names from objects, and refusals come first.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
import re
import types
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from conftest import precision
from flax import linen as nn
from flax import nnx
from scipy.special import expit
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import moejax
from moejax import experts, families, gates, losses, penalties
from moejax.sklearn import MoEClassifier, MoERegressor, _mixture
from moejax.sweeps import _program

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
PAGE = (Path(__file__).parents[2] / "docs" / "contracts.md").read_text()
OWN: dict = {}
exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)), OWN)  # as a reader would copy the examples

N, D, K = 64, 2, 2
rng = np.random.default_rng(0)
X = rng.normal(size=(N, D))
SECOND = rng.random(N) < expit(2 * X[:, 0] - 0.5)
Y = np.where(SECOND, 3 - 2 * X[:, 1], X @ [1.0, 0.5]) + np.where(SECOND, 0.5, 0.3) * rng.normal(size=N)
CLASSES = np.asarray(["a", "b", "c"])[rng.integers(0, 3, N)]
GRADIENT = {"solver": "gradient"}


def regressor(**settings):
    return MoERegressor(**{"n_experts": K, "n_init": 1, "max_iter": 5, "random_state": 0, **settings})


def classifier(**settings):
    return MoEClassifier(**{"n_experts": K, "n_init": 1, "max_iter": 5, "random_state": 0, **settings})


class Configured(Exception):
    """Everything is checked, and a fit would begin."""


@pytest.fixture
def configured(monkeypatch):
    """A function that returns the fit, the numbers and the target of an estimator, and compiles nothing."""
    found = []

    def stop(fit, n_init, hyper, seed, x, y, weights):
        found.append((fit, hyper, y))
        raise Configured

    monkeypatch.setattr(_mixture, "best_of_starts", stop)

    def of(estimator, y=Y):
        with pytest.raises(Configured):
            estimator.fit(X, y)
        return found.pop()

    return of


# ---- names are shorthands ---------------------------------------------------------------------------------------------

SHORTHANDS = [
    ({"experts": "linear"}, {"experts": experts.linear()}),
    ({"gate": "fixed"}, {"gate": gates.fixed()}),
    ({"gate": "constant"}, {"gate": gates.constant()}),
    ({"gate": "softmax"}, {"gate": gates.softmax()}),
    ({"gate": "softmax", "gate_reference": True}, {"gate": gates.softmax(reference=True)}),
    ({"gate": "top1"}, {"gate": gates.top1()}),
    ({"gate": "gaussian"}, {"gate": gates.gaussian(), "loss": losses.nll()}),
    ({"gate": "hierarchical"}, {"gate": gates.hierarchical((0, 1))}),
    ({"family": "gaussian"}, {"family": families.gaussian()}),
    ({"family": "student_t", "shared_scale": True}, {"family": families.student_t(shared_scale=True)}),
    ({"family": "poisson"}, {"family": families.poisson()}),
    ({"family": "gamma", "shared_scale": True}, {"family": families.gamma(shared_shape=True)}),
    ({"loss": "nll"}, {"loss": losses.nll()}),
    ({"loss": "nll", **GRADIENT}, {"loss": losses.nll(), **GRADIENT}),
    ({"loss": "squared_error", **GRADIENT}, {"loss": losses.squared_error(), **GRADIENT}),
    (
        {"loss": "squared_error", "gate": "top1", **GRADIENT},
        {"loss": losses.squared_error(), "gate": gates.top1(), **GRADIENT},
    ),
    ({}, {"penalty": penalties.standard()}),
    ({"l2_gate": 0.0}, {"penalty": [penalties.l1("experts")], "l2_gate": 1e-3}),
]


@pytest.mark.parametrize(("named", "given"), SHORTHANDS, ids=str)
def test_a_name_is_a_shorthand(named, given, configured):
    counts = np.round(np.abs(Y)) + 1
    y = Y if named.get("family") in (None, "gaussian", "student_t") else counts
    (one, numbers, target), (other, others, own_target) = (configured(regressor(**v), y) for v in (named, given))
    assert dataclasses.replace(one, penalties=()) == dataclasses.replace(other, penalties=())
    assert numbers == others
    np.testing.assert_array_equal(target, own_target)
    assert "penalty" in given or one == other


def test_names_of_classifiers_are_shorthands(configured):
    for y, outputs in ((CLASSES, 3), (CLASSES == "a", None)):
        assert configured(classifier(), y)[:2] == configured(classifier(experts=experts.linear(outputs)), y)[:2]


def test_a_name_and_its_object_predict_the_same():
    one = regressor().fit(X, Y)
    other = regressor(experts=experts.linear(), gate=gates.softmax(), family=families.gaussian()).fit(X, Y)
    np.testing.assert_array_equal(one.predict(X), other.predict(X))
    assert (one.coef_ == other.coef_).all()
    assert one.scale_.tolist() == other.scale_.tolist()


# ---- parts that have no name ----------------------------------------------------------------------------------------


def one_init(key, x):
    return {"slopes": jax.random.normal(key, x.shape[1:])}


def one_apply(params, x):
    return jnp.tanh(x @ params["slopes"])


def logits_init(key, n_experts, x):
    return {"slopes": 0.1 * jax.random.normal(key, (x.shape[1], n_experts))}  # (d, K), which K = d hides


def logits(params, x):
    return x @ params["slopes"]


def slopes(params):
    return {"slopes": True}


def network(rngs):
    return nnx.Linear(D, 1, rngs=rngs)


def network_gate(rngs):
    return nnx.Linear(D, K, rngs=rngs)


OBJECTS = {
    "reference, tied": {"gate": gates.softmax(reference=True, temperature=2.0), "experts": experts.tied(2)},
    "top-k, t": {"gate": gates.top_k(1), "family": families.student_t(4.0, shared_scale=True)},
    "shared covariance, columns": {
        "gate": gates.gaussian(covariance="shared"),
        "experts": experts.by_columns(experts.linear(), [[(0,), (0, 1)]]),
    },
    "custom, stack": {
        "gate": gates.custom(logits_init, logits, penalized=slopes),
        "experts": experts.stack(one_init, one_apply),
    },
    "networks": {"gate": gates.neural(network_gate), "experts": experts.neural(network)},
    "given": {"gate": gates.fixed([0.3, 0.7]), "experts": experts.predictions()},
    "two predictors": {"family": families.location_scale(), "experts": experts.linear(2)},
    "penalty": {"penalty": [penalties.group("experts")], "hyper": {"group_experts": 0.05, "temperature": 2.0}},
}


@functools.cache
def fitted(name):
    return regressor(**OBJECTS[name]).fit(X, Y)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_fit_and_predict(name):
    model = fitted(name)
    each = model.log_prob(X, Y)
    assert np.isfinite(model.predict(X)).all()
    assert each.sum() == pytest.approx(model.log_likelihood_, rel=1e-6)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    copy = clone(model)
    assert repr(copy) == repr(model)
    assert copy.get_params(deep=False).keys() == model.get_params(deep=False).keys()
    moves = name not in ("custom, stack", "networks", "given")
    assert not moves or (np.diff(model.shares_) <= 0).all()


def test_attributes_have_a_meaning_for_their_parts_alone():
    tied, top, stack, two = map(fitted, ("reference, tied", "top-k, t", "custom, stack", "two predictors"))
    for model in (tied, top):
        np.testing.assert_allclose(model.predict_experts(X), X @ model.coef_.T + model.intercept_, rtol=1e-8)
        powers = np.exp(X @ model.gate_coef_.T + model.gate_intercept_)
        np.testing.assert_allclose(model.predict_gate(X), powers / powers.sum(axis=1, keepdims=True), rtol=1e-8)
    assert (tied.gate_coef_[tied.gate_reference_] == 0).all()
    assert tied.scale_.shape == (K,)
    assert (np.shape(top.scale_), top.df_) == ((), pytest.approx(4.0))
    assert (stack.coef_, stack.intercept_, stack.gate_coef_, stack.gate_intercept_) == (None,) * 4
    np.testing.assert_allclose(two.predict_experts(X), X @ two.coef_[:, 0].T + two.intercept_[:, 0], rtol=1e-8)
    assert (two.scale_, two.df_, two.y_scale_) == (None, None, 1.0)
    np.testing.assert_allclose(fitted("penalty").params_["gate"]["temperature"], 2.0)


def test_a_loss_without_a_likelihood_reports_no_scale():
    loss = losses.balanced(losses.squared_error())
    model = regressor(loss=loss, family=families.gaussian(), solver="gradient").fit(X, Y)
    assert (model.scale_, model.df_) == (None, None)
    assert model.model_.family == families.gaussian()
    assert np.isnan(model.log_likelihood_)


def test_three_classes_with_experts_of_ones_own():
    two_layers = experts.neural(nn.Sequential([nn.Dense(3), nn.tanh, nn.Dense(3)]))
    model = clone(classifier(experts=two_layers, gate=gates.constant(), l2_experts=0.01)).fit(X, CLASSES)
    assert model.coef_ is None
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert model.log_prob(X, CLASSES).sum() == pytest.approx(model.log_likelihood_)


# ---- units ------------------------------------------------------------------------------------------------------------


class Located(NamedTuple):
    """The example of the page, which says that eta is a location and what its scales are."""

    is_location: bool = True

    def init(self, n_experts, eta):
        return {"log_scale": jnp.zeros(n_experts, eta.dtype)}

    def log_prob(self, y, eta, phi):
        return jax.scipy.stats.logistic.logpdf(y, eta, jnp.exp(phi["log_scale"])[:, None])

    def mean(self, eta):
        return eta

    def summary(self, phi):
        return {"scale": jnp.exp(phi["log_scale"])}


@pytest.mark.parametrize(
    ("family", "standardized"),
    [
        (families.gaussian(variance_floor=0.01), True),
        (families.student_t(3.0), True),
        (Located(), True),
        (OWN["Logistic"](), False),
        (families.gamma(), False),
    ],
    ids=repr,
)
def test_the_target_of_a_location_family_is_standardised(family, standardized, configured):
    y = np.sort(np.exp(Y))  # small tables are sorted
    target = configured(regressor(family=family), y)[2]
    np.testing.assert_allclose(target, (y - y.mean()) / y.std() if standardized else y)
    np.testing.assert_array_equal(configured(regressor(family=family, standardize_y=False), y)[2], y)


# ---- parts of one's own -----------------------------------------------------------------------------------------------

PAGE_ESTIMATORS = {name: value for name, value in OWN.items() if isinstance(value, MoERegressor)}


@pytest.mark.parametrize("name", ["with_experts", "with_gate", "with_family", "with_penalty", "with_loss"])
def test_estimators_of_the_page_fit_and_predict(name):
    settings = {"n_experts": K, "n_init": 1, "max_iter": 5, "random_state": 0}
    model = clone(PAGE_ESTIMATORS[name]).set_params(**settings).fit(X, Y)
    assert np.isfinite(model.predict(X)).all()
    assert model.predict_gate(X).sum(axis=1) == pytest.approx(1)
    if name == "with_loss":
        assert np.isnan(model.log_likelihood_)
    else:
        assert model.log_prob(X, Y).sum() == pytest.approx(model.log_likelihood_)
    if name == "with_penalty":
        assert (model.coef_ >= 0).all()


class Planes(NamedTuple):
    """Linear experts that tell their coefficients and can be reordered."""

    def init(self, key, n_experts, x):
        return {"slopes": jax.random.normal(key, (n_experts, x.shape[1])), "level": jnp.zeros(n_experts, x.dtype)}

    def apply(self, params, x):
        return params["slopes"] @ x.T + params["level"][:, None]

    def linear_terms(self, params):
        return params["slopes"], params["level"]

    def reordered(self, params, order):
        return self, jax.tree.map(lambda v: v[order], params)


class Shares(NamedTuple):
    """Proportions, the last of which is what the others leave: K - 1 logits that nobody can reorder by their shapes."""

    def init(self, key, n_experts, x):
        return {"logits": jnp.linspace(0, 0.5, n_experts - 1, dtype=x.dtype)}

    def log_probs(self, params, x):
        logits = jnp.append(params["logits"], 0)
        return jnp.broadcast_to(jax.nn.log_softmax(logits)[:, None], (len(logits), len(x)))


def test_ones_own_parts_report_what_they_declare():
    model = regressor(experts=Planes(), family=Located(), gate="constant").fit(X, Y)
    np.testing.assert_allclose(model.predict_experts(X), X @ model.coef_.T + model.intercept_, rtol=1e-8)
    assert model.scale_.tolist() == pytest.approx((np.exp(model.params_["family"]["log_scale"]) * model.y_scale_).tolist())
    assert model.log_prob(X, Y).sum() == pytest.approx(model.log_likelihood_)
    assert (np.diff(model.shares_) <= 0).all()
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_parts_that_cannot_be_reordered_keep_the_order_of_the_fit(configured):
    """A gate without `penalized` is not given the default of `l2_gate`, which nobody asked for."""
    fit, numbers, _ = configured(regressor(gate=Shares()))
    assert numbers == {}
    with precision(True):
        params = fit.model.init(jax.random.key(0), X)
        assert _mixture._in_order(fit.model, params, np.asarray([1, 0])) is None


def test_grids_run_over_objects():
    grid = {"gate": [gates.softmax(), Shares()]}
    search = GridSearchCV(regressor(), grid, cv=2, refit=False).fit(np.tile(X, (2, 1)), np.tile(Y, 2))
    assert search.best_params_["gate"] in grid["gate"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert regressor(**search.best_params_).set_params(gate="fixed").gate == "fixed"


# ---- another order of the experts -------------------------------------------------------------------------------------


def divided(expert):
    return experts.by_columns(expert, [[(0,), (0, 1), (1,)], [(1,), (0,), (0, 1)]])


THREE = np.asarray([[0.5, 0.2, 0.1], [0.1, -0.3, 0.0], [0.2, 0.2, -0.4]])
REORDERED = {
    "linear": {"expert": experts.linear()},
    "outputs": {"expert": experts.linear(2), "family": families.location_scale()},
    "columns of linear": {"expert": divided(experts.linear())},
    "columns of others": {"expert": divided(experts.stack(one_init, one_apply))},
    "tied": {"expert": experts.tied(2)},
    "stack": {"expert": experts.stack(one_init, one_apply)},
    "neural": {"expert": experts.neural(nn.Dense(1))},
    "functions": {"expert": experts.functions([lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x[:, 0] ** 2])},
    "softmax": {"gate": gates.softmax(temperature=0.5)},
    "softmax reference": {"gate": gates.softmax(reference=True)},
    "top1 reference": {"gate": gates.top1(reference=True)},
    "top_k": {"gate": gates.top_k(2)},
    "noisy reference": {"gate": gates.top_k(2, noise=1.0, reference=True)},
    "constant": {"gate": gates.constant()},
    "fixed": {"gate": gates.fixed([0.5, 0.3, 0.2])},
    "confidence": {"gate": gates.confidence(THREE[:, :2], THREE[:, 2])},
    "gaussian": {"gate": gates.gaussian()},
    "gaussian shared": {"gate": gates.gaussian(covariance="shared")},
    "hierarchical": {"gate": gates.hierarchical(((2, 0), 1))},
    "student_t": {"family": families.student_t()},
    "student_t shared": {"family": families.student_t(shared_scale=True)},
    "gamma": {"family": families.gamma()},
    "poisson": {"family": families.poisson()},
    "bernoulli": {"family": families.bernoulli()},
    "categorical": {"family": families.categorical(2), "expert": experts.linear(2)},
}


def drawn(model, seed=0):
    """Params of which every trained number is drawn."""
    numbers = np.random.default_rng(seed)
    params = jax.tree.map(np.asarray, model.init(jax.random.key(seed), X))
    return jax.tree.map(
        lambda leaf, trained: numbers.normal(size=leaf.shape).astype(leaf.dtype) if trained else leaf,
        params,
        model.trainable(params),
    )


@pytest.mark.parametrize("name", REORDERED)
def test_another_order_of_experts_is_the_same_mixture(name):
    parts = {"expert": experts.linear(), "gate": gates.softmax(), "family": families.gaussian(), **REORDERED[name]}
    model = moejax.moe(parts["expert"], parts["gate"], 3, family=parts["family"])
    order, y = np.asarray([2, 0, 1]), np.ones(N)
    with precision(True):
        params = drawn(model)
        other, moved = _mixture._in_order(model, params, order)
        for method in ("expert_predictions", "gate_probs"):
            before, after = (np.asarray(getattr(m, method)(p, X)) for m, p in ((model, params), (other, moved)))
            np.testing.assert_allclose(after, before[:, order], rtol=1e-10)
        for method, rest in (("predict", ()), ("log_prob", (y,))):
            before, after = (np.asarray(getattr(m, method)(p, X, *rest)) for m, p in ((model, params), (other, moved)))
            np.testing.assert_allclose(after, before, rtol=1e-9)
    assert jax.tree.structure(moved) == jax.tree.structure(jax.tree.map(np.asarray, params))


@pytest.mark.parametrize("part", [gates.custom(logits_init, logits), gates.neural(nn.Dense(3)), experts.predictions()])
def test_parts_without_an_order_say_so(part):
    assert part.reordered({"slopes": np.eye(3)}, np.asarray([2, 0, 1])) is None


# ---- what is refused ----------------------------------------------------------------------------------------------------

NO_COEFFICIENTS = types.SimpleNamespace(init=OWN["Nearest"]().init, log_probs=OWN["Nearest"]().log_probs)
REFUSED = [
    ({"experts": "tree"}, r"^experts: 'tree' was given; want one of \['linear'\]"),
    ({"experts": gates.softmax()}, "^expert: Softmax.* has no function apply; want"),
    ({"gate": experts.linear()}, "^gate: Linear.* has no function log_probs; want"),
    ({"gate": None}, "^gate: None has no function init and no log_probs; want"),
    ({"family": gates.softmax()}, "^family: Softmax.* has no function log_prob and no mean; want"),
    ({"loss": families.gaussian()}, "^loss: Gaussian.* was given; want a record with a function `value`"),
    ({"penalty": [losses.nll()]}, "^penalty: .* has no name and no part and no prox; want"),
    (
        {"gate": gates.softmax(), "gate_reference": True},
        r"^gate_reference: True .*; want .* gates.softmax\(reference=True\)",
    ),
    ({"family": families.gamma(), "shared_scale": True}, r"^shared_scale: True .* families.gaussian\(shared_scale=True\)"),
    ({"experts": experts.tied(2), "family": "student_t"}, "^family: StudentT.* was given for Tied.*; want a family with"),
    ({"experts": experts.linear(2)}, r"^y: shape \(64,\) was given; want \(64, 2\)"),
    ({"gate": gates.fixed([0.2, 0.3, 0.5])}, "^proportions: 3 were given; want one for each of 2 experts"),
    ({"gate": gates.hierarchical((2, 2))}, "^tree: .* has 4 leaves; want 2"),
    ({"gate": gates.top_k(1, noise=0.5)}, "^gate: NoisyTopK.* is noisy in training, which EM is not"),
    ({"loss": losses.truncated_nll(1)}, "^loss: .*kept=1.* was given; EM lowers"),
    ({"gate": gates.top_k(1), **GRADIENT}, "^loss: nll was given for a gate that chooses one expert"),
    ({"loss": OWN["AbsoluteError"]()}, "^loss: AbsoluteError.* was given with solver='em'.*; want 'gradient'"),
    ({"loss": losses.complete_nll()}, "^loss: .* was given, which holds the responsibilities of rows; want"),
    ({"loss": losses.joint_nll(), **GRADIENT}, "^loss: joint_nll was given for Softmax"),
    ({"gate": "constant", "l1_gate": 0.1}, r"^l1_gate: 0.1 was given for gate=Constant\(\), without coefficients"),
    ({"experts": experts.tied(2), "l2_experts": 0.1}, "^l2_experts: 0.1 was given for experts=Tied.*; want 0, or another"),
    (
        {"gate": NO_COEFFICIENTS, "l1_gate": 0.1},
        r"^l1_gate: gate .* has no coefficients that penalties see; want .*penalized",
    ),
    (
        {"penalty": [penalties.l2("gate")], "l1_experts": 0.1},
        r"^l1_experts: 0.1 was given, .* penalties.l1\('experts'\), or 0",
    ),
    ({"penalty": [penalties.l2("gate"), penalties.l1("gate")], "l1_gate": 0.1}, "^penalty: l1_gate has its proximal step"),
    ({"hyper": {"l1_experts": 0.1}}, "^hyper: 'l1_experts' was given; want the parameter l1_experts of the estimator"),
    ({"hyper": {"restart": 3}}, "^hyper: 'restart' was given; want the parameter n_init of the estimator"),
    ({"hyper": {"temprature": 3}}, "^hyper: 'temprature' was given; want names among .*'temperature'"),
    ({"hyper": {"temperature": 0.0}}, r"^hyper\['temperature'\]: 0.0 was given; want numbers above 0"),
    ({"hyper": {"temperature": [1.0, 2.0]}}, r"^hyper\['temperature'\]: shape \(2,\) was given"),
    ({"hyper": 3}, "^hyper: 3 was given; want a mapping"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=lambda v: str(v)[:60])
def test_what_does_not_fit_together_is_refused_before_anything_compiles(settings, message, monkeypatch):
    monkeypatch.setattr(_program, "compile_for", lambda *_: pytest.fail("a program was compiled"))
    with pytest.raises(ValueError, match=message):
        regressor(**settings).fit(X, Y)


def test_classifiers_refuse_experts_for_another_number_of_classes():
    with pytest.raises(ValueError, match=r"^expert: 2 outputs for 3 classes; want one for each"):
        classifier(experts=experts.linear(2)).fit(X, CLASSES)
