"""Stacking and ensembles of estimators, against scikit-learn's own stacking and our EM of the same model.

A program is compiled for each shape and each configuration: tests share rows and folds.
"""

import contextlib
import functools
import unittest
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from conftest import precision
from scipy.special import expit
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import StackingRegressor
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, PredefinedSplit, ShuffleSplit, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import estimator_checks_generator

from moejax import experts, families, fit_em, gates, moe
from moejax.sklearn import (
    MoEEnsembleClassifier,
    MoEEnsembleRegressor,
    MoERegressor,
    MoEStackingClassifier,
    MoEStackingRegressor,
)

# ---- stacking -----------------------------------------------------------------------------------------------------------

X, Y = (v[:440] for v in load_diabetes(return_X_y=True))  # so that five folds are even, and one program serves them all
BASE = [
    ("ridge", Ridge(0.1)),
    ("neighbours", make_pipeline(StandardScaler(), KNeighborsRegressor(15))),
    ("tree", DecisionTreeRegressor(max_depth=3, random_state=0)),
    ("vectors", make_pipeline(StandardScaler(), SVR(C=50))),
]
OUTER = [fold for seed in range(2) for fold in KFold(5, shuffle=True, random_state=seed).split(X)]
INNER = np.arange(352) % 5


def errors(model):
    return np.array([np.square(clone(model).fit(X[a], Y[a]).predict(X[b]) - Y[b]).mean() for a, b in OUTER])


@functools.cache
def of_scikit_learn():
    return errors(StackingRegressor(BASE, RidgeCV(), cv=PredefinedSplit(INNER)))


@pytest.mark.parametrize("settings", [{"gate": "constant"}, {"gate": "softmax", "sees": "both", "l2_gate": 0.1}], ids=str)
def test_stacking_is_no_worse_than_that_of_scikit_learn(settings):
    ours = errors(MoEStackingRegressor(BASE, cv=INNER, n_init=1, random_state=0, **settings))
    difference = ours - of_scikit_learn()
    assert difference.mean() <= difference.std(ddof=1) / len(difference) ** 0.5
    assert ours.mean() < 0.6 * Y.var()


@functools.cache
def stacked(**settings):
    a, _ = OUTER[0]
    return MoEStackingRegressor(BASE, cv=INNER, n_init=1, random_state=0, **settings).fit(X[a], Y[a])


def test_predictions_are_weighted_means_of_those_of_the_estimators():
    model, (a, b) = stacked(gate="constant"), OUTER[0]
    each = np.column_stack([clone(m).fit(X[a], Y[a]).predict(X[b]) for _, m in BASE])
    np.testing.assert_allclose(model.predict_experts(X[b]), each, rtol=1e-9)
    gate = model.predict_gate(X[b])
    np.testing.assert_allclose(gate.sum(axis=1), 1)
    np.testing.assert_allclose(model.predict(X[b]), (gate * each).sum(axis=1), rtol=1e-9)
    inner = [cross_val_predict(m, X[a], Y[a], cv=PredefinedSplit(INNER)) for _, m in BASE]
    np.testing.assert_allclose(model.out_of_fold_, np.transpose(inner), rtol=1e-9)


def test_weights_of_confidence_are_those_of_its_forecasts():
    model, (_, b) = stacked(gate="confidence", temperature=0.5, loss="nll"), OUTER[0]
    table = (X[b] - X[OUTER[0][0]].mean(axis=0)) / X[OUTER[0][0]].std(axis=0)
    forecasts = np.column_stack([f.predict(table) for f in model.forecasters_])
    weights = np.exp(-2 * forecasts)
    np.testing.assert_allclose(model.predict_gate(X[b]), weights / weights.sum(axis=1, keepdims=True), rtol=1e-6)
    assert np.isfinite(model.log_prob(X[b], Y[b])).all()


def test_stacked_classes_are_likelier_than_by_any_of_the_classifiers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = np.array(["no", "so-so", "yes"])[np.where(x[:, 0] > 0, 2 * (x[:, 1] > 0), rng.integers(0, 3, 300))]
    base = [
        ("logistic", LogisticRegression()),
        ("tree", DecisionTreeClassifier(max_depth=3)),
        ("ignorant", LogisticRegression(C=1e-9)),
    ]
    folds = np.arange(300) % 5
    model = MoEStackingClassifier(base, gate="softmax", cv=folds, n_init=2, random_state=0).fit(x, y)
    probabilities = model.predict_proba(x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (model.predict(x) == model.classes_[probabilities.argmax(axis=1)]).all()
    alone = [
        -log_loss(y, cross_val_predict(m, x, y, cv=PredefinedSplit(folds), method="predict_proba"), normalize=False)
        for _, m in base
    ]
    assert model.log_likelihood_ > max(alone) + 20
    np.testing.assert_allclose(np.exp(model.out_of_fold_).sum(axis=2), 1, atol=1e-6)


class Level(NamedTuple):
    """A gate of one's own, which names no coefficients: the first column decides between the first estimator and others."""

    def init(self, key, n_experts, x):
        return {"slopes": jnp.zeros(n_experts, x.dtype)}

    def log_probs(self, params, x):
        return jax.nn.log_softmax(params["slopes"][:, None] * x[:, 0], axis=0)


def test_gates_may_be_objects():
    (a, b), settings = OUTER[0], {"cv": INNER, "n_init": 1, "random_state": 0}
    np.testing.assert_array_equal(stacked(gate=gates.constant()).predict(X[b]), stacked(gate="constant").predict(X[b]))
    for gate in (Level(), gates.top_k(2)):  # the second by steps for an objective that is not continuous
        model = clone(MoEStackingRegressor(BASE, gate=gate, max_iter=20, **settings)).fit(X[a], Y[a])
        assert model.score(X[b], Y[b]) > 0.1
    given = MoEStackingRegressor(BASE, gate=gates.fixed([0.1, 0.2, 0.3, 0.4]), **settings).fit(X[a], Y[a])
    np.testing.assert_allclose(given.predict(X[b]), given.predict_experts(X[b]) @ [0.1, 0.2, 0.3, 0.4], rtol=1e-6)


# ---- ensembles ----------------------------------------------------------------------------------------------------------

N = 200


def two_lines(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 2))
    second = rng.random(N) < expit(2 * x[:, 0] - 0.5)
    return x, np.where(second, 3 - 2 * x[:, 1], x @ [1.0, 0.5]) + np.where(second, 0.5, 0.3) * rng.normal(size=N)


LX, LY = two_lines()
START = np.random.default_rng(1).dirichlet([1, 1], N)
LINES = [("one", LinearRegression()), ("other", make_pipeline(StandardScaler(), LinearRegression()))]


@functools.cache
def of_lines(gate="softmax", l2_gate=1e-3):
    return MoEEnsembleRegressor(LINES, gate=gate, l2_gate=l2_gate, tol=1e-10, max_iter=400).fit(LX, LY, start=START)


def test_linear_regressions_come_to_the_very_optimum_of_em():
    ensemble = of_lines()
    model = moe(experts.linear(), gates.softmax(), 2, family=families.gaussian(variance_floor=1e-3))
    with precision(True):
        x, y = (LX - LX.mean(axis=0)) / LX.std(axis=0), (LY - LY.mean()) / LY.std()
        fit = fit_em(model)(jax.random.key(0), x, y, {"l2_gate": 1e-3}, start=START)
        predicted = np.asarray(model.predict(fit.params, x)) * LY.std() + LY.mean()
    assert ensemble.converged_
    assert ensemble.log_likelihood_ == pytest.approx(float(fit.log_likelihood) - N * np.log(LY.std()), abs=1e-5)
    np.testing.assert_allclose(ensemble.predict(LX), predicted, atol=1e-3)
    assert ensemble.log_prob(LX, LY).sum() == pytest.approx(ensemble.log_likelihood_, rel=1e-9)
    assert ensemble.shares_.sum() == pytest.approx(1)


def test_a_classifier_as_gate_comes_to_the_softmax_gate():
    """An unpenalised logistic regression of the responsibilities is the M-step of a softmax gate for two experts."""
    softmax, learned = of_lines(l2_gate=0.0), of_lines(gate=LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000))
    assert learned.log_likelihood_ == pytest.approx(softmax.log_likelihood_, abs=1e-4)
    np.testing.assert_allclose(learned.predict_gate(LX), softmax.predict_gate(LX), atol=1e-2)
    np.testing.assert_allclose(learned.predict_gate(LX), learned.gate_estimator_.predict_proba(LX), rtol=1e-6)


def test_gates_of_ensembles_may_be_objects():
    np.testing.assert_array_equal(of_lines(gate=gates.softmax()).predict(LX), of_lines().predict(LX))
    model = clone(MoEEnsembleRegressor(LINES, gate=Level(), max_iter=30, tol=1e-3)).fit(LX, LY, start=START)
    assert model.gate_estimator_ is None
    assert model.log_prob(LX, LY).sum() == pytest.approx(model.log_likelihood_, rel=1e-6)


def test_trees_and_lines_share_a_piecewise_problem():
    """A line on one side, steps on the other: neither a line nor a small tree has both."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, size=(500, 2))
    y = np.where(x[:, 0] > 0, 4 * np.floor(x[:, 1]), 2 * x[:, 1]) + 0.1 * rng.normal(size=500)
    a, b = slice(0, N), slice(N, 500)
    pair = [("line", LinearRegression()), ("tree", DecisionTreeRegressor(max_leaf_nodes=4, random_state=0))]
    model = MoEEnsembleRegressor(pair, cv=5, n_init=3, max_iter=30, tol=1e-3, random_state=0).fit(x[a], y[a])
    alone = [clone(m).fit(x[a], y[a]).score(x[b], y[b]) for _, m in pair]
    assert model.score(x[b], y[b]) > 0.95 > max(alone) + 0.02
    steps = model.predict_gate(x[b])[:, 1]
    assert steps[x[b][:, 0] > 0.3].mean() > 0.9 > 0.1 > steps[x[b][:, 0] < -0.3].mean()


def test_each_expert_has_its_own_columns_and_labels_of_any_kind():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 3))
    y = np.array(["left", "right"])[(np.where(x[:, 2] > 0, x[:, 0], x[:, 1]) > 0).astype(int)]

    def of(column):
        chosen = ColumnTransformer([("column", "passthrough", [column])])
        return make_pipeline(chosen, LogisticRegression())

    model = MoEEnsembleClassifier(
        [("first", of(0)), ("second", of(1))], gate_columns=[2], n_init=2, max_iter=50, tol=1e-4, random_state=0
    ).fit(x, y)
    assert [m[-1].coef_.shape for m in model.estimators_] == [(1, 1), (1, 1)]
    assert model.score(x, y) > 0.9
    assert make_pipeline(LogisticRegression()).fit(x, y).score(x, y) < 0.85
    said = model.predict_experts(x)
    np.testing.assert_allclose(said[:, 0], model.estimators_[0].predict_proba(x), atol=1e-6)
    np.testing.assert_allclose(
        model.predict_proba(x), np.einsum("nk,nkc->nc", model.predict_gate(x), said), rtol=1e-9, atol=1e-12
    )


def test_too_few_iterations_are_told_and_the_best_one_counts():
    with pytest.warns(ConvergenceWarning, match="max_iter: 2 was given, and the likelihood still changes"):
        model = MoEEnsembleRegressor(LINES, max_iter=2, tol=1e-10).fit(LX, LY, start=START)
    assert not model.converged_
    assert model.n_iter_ == 2
    assert model.log_likelihood_ < of_lines().log_likelihood_
    again = clone(model).set_params(max_iter=400)
    assert again.get_params()["max_iter"] == 400


def ensemble(estimators=LINES, **settings):
    return lambda: MoEEnsembleRegressor(estimators, **settings).fit(LX, LY)


def stacking(estimators=LINES, **settings):
    return lambda: MoEStackingRegressor(estimators, **settings).fit(LX, LY)


class Untouched(LinearRegression):
    """An estimator that nobody should fit in vain."""

    def fit(self, X, y, sample_weight=None):
        raise AssertionError("an estimator was fitted before the gate was checked")


UNTOUCHED = [("one", Untouched()), ("other", Untouched())]
MISTAKES = {
    "a gate for others": (
        stacking(UNTOUCHED, gate=gates.fixed([0.5, 0.3, 0.2])),
        "^proportions: 3 were given; want one for each of 2 experts",
    ),
    "no gate": (stacking(UNTOUCHED, gate=experts.linear()), "^gate: Linear.* has no function log_probs"),
    "noise in EM": (ensemble(UNTOUCHED, gate=gates.top_k(1, noise=1.0)), "^gate: NoisyTopK.* is noisy in training"),
    "l1 of a gate without coefficients": (
        stacking(UNTOUCHED, gate=Level(), l1_gate=0.1),
        "^l1_gate: 0.1 was given for gate=Level",
    ),
    "no weights": (
        ensemble([*LINES, ("near", KNeighborsRegressor())]),
        "estimators: 'near': KNeighborsRegressor takes no sample_weight in fit; want an estimator that does",
    ),
    "no weights in the last step": (
        ensemble([("near", make_pipeline(StandardScaler(), KNeighborsRegressor()))]),
        "estimators: 'near': KNeighborsRegressor, the last step of Pipeline, takes no sample_weight",
    ),
    "a gate without weights": (ensemble(gate=KNeighborsClassifier()), "gate: KNeighborsClassifier takes no sample_weight"),
    "a regressor as gate": (ensemble(gate=Ridge()), r"gate: Ridge\(\) was given; want one of .* one with predict_proba"),
    "no such gate": (ensemble(gate="top2"), "gate: 'top2' was given; want one of"),
    "no names": (ensemble([LinearRegression()]), r"estimators: .* want \(name, estimator\) pairs"),
    "a name twice": (ensemble([LINES[0]] * 2), "estimators: .* names distinct"),
    "a classifier of reals": (ensemble([("l", LogisticRegression())]), "estimators: 'l' is Logistic.*; want a regressor"),
    "a regressor of classes": (
        lambda: MoEStackingClassifier(LINES).fit(LX, LY > 0),
        "estimators: 'one' is LinearRegression.*; want a classifier with predict_proba",
    ),
    "a start of another shape": (
        lambda: MoEEnsembleRegressor(LINES).fit(LX, LY, start=START[:5]),
        r"start: shape \(5, 2\) was given; want \(200, 2\)",
    ),
    "no tolerance": (ensemble(tol=0.0), "tol: 0.0 was given"),
    "a gap between folds": (stacking(cv=np.arange(N) % 3 - 1), "folds: 67 rows are held out in no fold"),
    "l1 of no coefficients": (stacking(gate="constant", l1_gate=0.1), "l1_gate: 0.1 was given for gate=Constant"),
    "nothing to see": (stacking(sees="rows"), "sees: 'rows' was given; want one of"),
    "one class": (
        lambda: MoEStackingClassifier([("l", LogisticRegression())]).fit(LX, np.ones(N, int)),
        "y: all rows of positive weight have the label 1; want more than one class",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    mistake, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        mistake()


def test_our_own_estimators_take_weights_and_can_be_experts():
    from moejax.stacking import weight_argument

    assert weight_argument(make_pipeline(StandardScaler(), MoERegressor()), "mixture") == "moeregressor__sample_weight"


@pytest.mark.parametrize("gate", ["fixed", "confidence"])
def test_a_gate_without_anything_to_train_takes_models_of_any_quality(gate):
    x = np.random.default_rng(0).normal(size=(60, 2))
    y = x @ [1.0, 2.0] + 0.01 * x[:, 0] ** 2
    model = MoEStackingRegressor([("line", LinearRegression()), ("stump", DecisionTreeRegressor(max_depth=1))], gate=gate)
    model.fit(x, y)
    each = np.column_stack([m.predict(x) for m in model.estimators_])
    np.testing.assert_allclose(model.predict(x), (model.predict_gate(x) * each).sum(axis=1), rtol=1e-6)


def test_confidence_of_classifiers_forecasts_a_loss_for_each():
    x = np.random.default_rng(0).normal(size=(60, 2))
    pair = [("line", LogisticRegression()), ("tree", DecisionTreeClassifier(max_depth=2, random_state=0))]
    model = MoEStackingClassifier(pair, gate="confidence", cv=3, n_init=1, random_state=0).fit(x, x[:, 0] * x[:, 1] > 0)
    assert len(model.forecasters_) == 2
    mixed = np.einsum("nk,nkc->nc", model.predict_gate(x), model.predict_experts(x))
    np.testing.assert_allclose(model.predict_proba(x), mixed, rtol=1e-6)


@pytest.mark.parametrize(
    "cv", [ShuffleSplit(3, test_size=0.5), [(np.arange(20), np.arange(40, 60)), (np.arange(40, 60), np.arange(40))]]
)
def test_folds_have_to_part_all_rows(cv):
    x = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match=r"^cv: fold . leaves rows out or holds"):
        MoEStackingRegressor([("line", LinearRegression())], gate="constant", cv=cv).fit(x, x[:, 0])


@pytest.mark.parametrize("columns", [[7], [0.5], "a", 0, [], [0, 0], [-1]])
def test_columns_of_a_gate_are_columns_of_x(columns):
    x = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.raises(ValueError, match=r"^gate_columns: .* was given; want columns of X"):
        MoEEnsembleRegressor([("a", LinearRegression()), ("b", LinearRegression())], gate_columns=columns).fit(x, x[:, 0])


CLASSIFIERS = [("one", LogisticRegression()), ("other", LogisticRegression(C=0.01))]
SMALL = {
    "stacking": MoEStackingRegressor(LINES, cv=3, n_init=1, random_state=0),
    "stacking by likelihood": MoEStackingRegressor(LINES, cv=3, n_init=1, loss="nll", random_state=0),
    "equal weights": MoEStackingRegressor(LINES, cv=3, gate="fixed", random_state=0),
    "stacking of classes": MoEStackingClassifier(CLASSIFIERS, cv=3, n_init=1, random_state=0),
    "ensemble": MoEEnsembleRegressor(LINES, n_init=1, max_iter=1, random_state=0),
    "ensemble of classes": MoEEnsembleClassifier(CLASSIFIERS, n_init=1, max_iter=1, random_state=0),
}
small = pytest.mark.parametrize("model", SMALL.values(), ids=list(SMALL))
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in SMALL if name not in ("stacking by likelihood", "equal weights")])
def test_rules_of_scikit_learn(name):
    model = SMALL[name]
    run = set()
    for estimator, check in estimator_checks_generator(model):
        with contextlib.suppress(unittest.SkipTest):
            check(estimator)
        run.add(check.func.__name__)
    assert "check_sample_weight_equivalence_on_dense_data" in run
    assert len(run) >= 45


COUNTS = np.random.default_rng(3).integers(0, 3, len(LX))


@quiet
@small
def test_all_fits_tell_their_iterations_and_how_they_ended(model):
    fitted = clone(model).fit(LX, COUNTS)
    assert fitted.n_iter_ >= 1
    assert fitted.converged_ in (True, False)


@quiet
@small
def test_whole_numbers_and_columns_are_the_same_targets(model):
    want = clone(model).fit(LX, COUNTS)
    np.testing.assert_array_equal(clone(model).fit(LX, COUNTS.astype(float)).predict(LX), want.predict(LX))
    with pytest.warns(DataConversionWarning):
        got = clone(model).fit(LX, COUNTS[:, None])
    np.testing.assert_array_equal(got.predict(LX), want.predict(LX))
    np.testing.assert_array_equal(got.fit(LX, COUNTS).predict(LX), want.predict(LX))  # fitted again
    if getattr(model, "loss", "nll") == "nll":
        with pytest.warns(DataConversionWarning):
            np.testing.assert_array_equal(got.log_prob(LX, COUNTS[:, None]), want.log_prob(LX, COUNTS))


@quiet
@small
def test_a_number_is_the_weight_of_every_row(model):
    want = clone(model).fit(LX, COUNTS, np.full(len(LX), 2.0))
    got = clone(model).fit(LX, COUNTS, 2)
    np.testing.assert_array_equal(got.predict(LX), want.predict(LX))
    assert got.score(LX, COUNTS, 2) == pytest.approx(want.score(LX, COUNTS))


@quiet
@small
@pytest.mark.parametrize("size", [1e306, 1e-306])
def test_the_size_of_weights_does_not_matter(model, size):
    weights = 1 / (1 + np.arange(len(LX)) % 3)
    want = clone(model).fit(LX, COUNTS, weights)
    np.testing.assert_allclose(clone(model).fit(LX, COUNTS, weights * size).predict(LX), want.predict(LX), rtol=1e-6)
