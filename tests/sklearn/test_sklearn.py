"""moejax.sklearn against scikit-learn's own estimators, its rules for estimators, and what a change of units may change.

A program is compiled for each shape and each configuration, which is what takes the time: tests share both.
"""

import contextlib
import functools
import importlib.util
import pickle
import sys
import unittest

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from conftest import precision
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import moejax
import moejax.sklearn
from moejax.fit import Status, describe
from moejax.sklearn import MoEClassifier, MoERegressor
from moejax.sklearn._mixture import _in_order
from moejax.sklearn._parts import gate_of

N, D = 200, 3
L1 = 0.02


def drawn(n=N, seed=0):
    """Two regressions with scales 0.3 and 0.5, of which the second has about 30% of the rows: X, y and who has them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) * [1.0, 2.0, 0.5] + [0.0, 1.0, -3.0]
    second = rng.random(n) < expit(2 * x[:, 0] - 1.5)
    y = np.where(second, 3 - 2 * x[:, 0] + 0.5 * rng.normal(size=n), x @ [1.0, 0.5, 0.0] + 0.3 * rng.normal(size=n))
    return x, y, second


X, Y, SECOND = drawn()


def regressor(**settings):
    return MoERegressor(**{"n_experts": 2, "l1_experts": L1, "random_state": 0, **settings})


@functools.cache
def fitted(**settings):
    """A regressor fitted to X and Y."""
    return regressor(**settings).fit(X, Y)


def units(model):
    return model.y_mean_, model.y_scale_


# ---- what a fit tells -------------------------------------------------------------------------------------------------


def test_two_regressions_are_found():
    model = fitted()
    assert model.shares_ == pytest.approx([1 - SECOND.mean(), SECOND.mean()], abs=0.05)
    assert model.coef_[0] == pytest.approx([1, 0.5, 0], abs=0.15)
    assert model.coef_[1] == pytest.approx([-2, 0, 0], abs=0.4)
    assert model.scale_ == pytest.approx([0.3, 0.5], rel=0.3)
    assert model.status_ & Status.CONVERGED
    assert model.converged_
    assert describe(model.status_) == "converged"
    assert model.score(X, Y) > 0.5
    assert isinstance(model.n_iter_, int)
    assert 0 < model.n_iter_ <= 500


def test_coefficients_are_those_of_the_predictions():
    model = fitted()
    np.testing.assert_allclose(model.predict_experts(X), X @ model.coef_.T + model.intercept_, rtol=1e-9)
    gate = softmax(X @ model.gate_coef_.T + model.gate_intercept_, axis=1)
    np.testing.assert_allclose(model.predict_gate(X), gate, rtol=1e-8)
    np.testing.assert_allclose(model.predict(X), (gate * model.predict_experts(X)).sum(axis=1), rtol=1e-8)
    assert model.gate_reference_ is None


def test_model_and_params_are_those_of_moejax():
    model = fitted()
    centre, scale = units(model)
    predicted = model.model_.predict(model.params_, (X - model.x_mean_) / model.x_scale_)
    np.testing.assert_allclose(
        np.asarray(predicted) * scale + centre, model.predict(X), rtol=1e-4, atol=1e-4
    )  # float32 here
    np.testing.assert_allclose(model.x_mean_, X.mean(axis=0))
    np.testing.assert_allclose(model.x_scale_, X.std(axis=0))


CONFIGURATIONS = {
    "softmax": {},
    "constant, student_t": {"gate": "constant", "family": "student_t", "solver": "gradient", "max_iter": 2000},
    "gaussian": {"gate": "gaussian"},
    "reference": {"gate_reference": True, "n_experts": 3},
    "tree": {"gate": ((0, 1), 2), "n_experts": 3, "l1_gate": 0.01},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_density_objective_and_order_agree(name):
    """The density in y's units, from experts in their final order, against what the solver reported of its own."""
    model = fitted(**CONFIGURATIONS[name])
    each, r = model.log_prob(X, Y), model.responsibilities(X, Y)
    assert each.sum() == pytest.approx(model.log_likelihood_, rel=1e-9)
    np.testing.assert_allclose(r.sum(axis=1), 1)
    np.testing.assert_allclose(r.mean(axis=0), model.shares_)
    assert (np.diff(model.shares_) <= 0).all()
    if model.gate in ("softmax", "constant", "fixed"):  # whose objective is of log p(y | x)
        params, penalty = model.params_, model.l1_experts * np.abs(model.params_["experts"]["weights"]).sum()
        penalty += model.l2_gate * np.square(params["gate"]["weights"]).sum() if model.gate == "softmax" else 0
        assert model.objective_ == pytest.approx(penalty - each.mean() - np.log(model.y_scale_), rel=1e-9)
    y = np.linspace(-40, 40, 4000) * model.y_scale_ + model.y_mean_
    density = np.exp(model.log_prob(np.broadcast_to(X[0], (len(y), D)), y))
    assert density.sum() * (y[1] - y[0]) == pytest.approx(1, abs=1e-3)


def test_shapes_where_there_is_less_to_tell():
    constant, gaussian = (fitted(**CONFIGURATIONS[k]) for k in ("constant, student_t", "gaussian"))
    assert constant.gate_coef_ is None
    np.testing.assert_allclose(softmax(constant.gate_intercept_), constant.predict_gate(X)[0])
    assert constant.df_.shape == constant.scale_.shape == (2,)
    assert (gaussian.gate_coef_, gaussian.gate_intercept_, gaussian.df_) == (None, None, None)


def test_top1_in_float32_after_few_iterations():
    x = X.astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="max_iter: 3 was given, and the best fit ended out of steps"):
        model = regressor(gate="top1", max_iter=3).fit(x, Y)
    assert not model.converged_
    for values in (model.coef_, model.gate_coef_, model.predict(x), model.params_["experts"]["weights"]):
        assert values.dtype == np.float32
    likeliest = model.predict_gate(x).argmax(axis=1)
    np.testing.assert_allclose(model.predict(x), model.predict_experts(x)[np.arange(N), likeliest], atol=1e-5)
    assert model.log_prob(x, Y).sum() == pytest.approx(model.log_likelihood_, rel=1e-4)
    assert fitted().params_["experts"]["weights"].dtype == np.float64


def test_reference_is_a_row_of_zeros():
    model = fitted(**CONFIGURATIONS["reference"])
    assert model.gate_coef_.shape == (3, D)
    zeros = (model.gate_coef_ == 0).all(axis=1) & (model.gate_intercept_ == 0)
    assert zeros.tolist() == [k == model.gate_reference_ for k in range(3)]
    gate = softmax(X @ model.gate_coef_.T + model.gate_intercept_, axis=1)
    np.testing.assert_allclose(model.predict_gate(X), gate, rtol=1e-8)


def test_tree():
    """Probabilities are products down the tree, whose leaves are the experts in the order of the estimator."""
    model = fitted(**CONFIGURATIONS["tree"])
    pair, alone = model.model_.gate.tree
    logits = X @ model.gate_coef_.T + model.gate_intercept_  # of two branches, and the first one's two
    first, second = softmax(logits[:, :2], axis=1), softmax(logits[:, 2:], axis=1)
    wanted = np.empty((N, 3))
    wanted[:, alone] = first[:, 1]
    wanted[:, pair] = first[:, :1] * second
    np.testing.assert_allclose(model.predict_gate(X), wanted, rtol=1e-8)
    assert (model.gate_coef_ == 0).any()


@pytest.mark.parametrize(
    ("count", "tree"), [(2, (0, 1)), (3, ((0, 1), 2)), (4, ((0, 1), (2, 3))), (5, (((0, 1), 2), (3, 4)))]
)
def test_hierarchical_gate_halves_the_experts(count, tree):
    assert gate_of("hierarchical", count, False).tree == tree


def test_order_of_experts_does_not_change_the_gate():
    rng = np.random.default_rng(0)
    gate = {"weights": rng.normal(size=(2, D)), "intercept": np.asarray([0.3, -0.4]), "temperature": np.asarray(1.0)}
    params = {"experts": {"weights": np.eye(3)}, "gate": gate, "family": {"log_scale": np.arange(3.0)}}
    order = np.asarray([2, 0, 1])
    parts = {"n_experts": 3, "family": moejax.families.gaussian()}
    model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(reference=True), **parts)
    with precision(True):
        other, moved = _in_order(model, params, order)
    before = np.column_stack([X @ gate["weights"].T + gate["intercept"], np.zeros(N)])
    np.testing.assert_array_equal(X @ moved["gate"]["weights"].T + moved["gate"]["intercept"], before[:, order])
    assert other == moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), **parts)
    assert moved["family"]["log_scale"].tolist() == order.tolist()
    np.testing.assert_array_equal(moved["experts"]["weights"], np.eye(3)[order])


# ---- units and weights ----------------------------------------------------------------------------------------------


def test_units_change_nothing():
    a, b, c, d = np.asarray([10.0, 0.1, 3.0]), np.asarray([5.0, -2.0, 100.0]), 4.0, -7.0
    one, other = fitted(), regressor().fit(X * a + b, Y * c + d)
    np.testing.assert_allclose(other.predict(X * a + b), one.predict(X) * c + d, rtol=1e-6)
    np.testing.assert_allclose(other.coef_, one.coef_ * c / a, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(other.gate_coef_, one.gate_coef_ / a, rtol=1e-4)
    np.testing.assert_allclose(other.scale_, one.scale_ * c, rtol=1e-6)
    np.testing.assert_allclose(other.log_prob(X * a + b, Y * c + d), one.log_prob(X, Y) - np.log(c), atol=1e-6)
    assert other.objective_ == pytest.approx(one.objective_, rel=1e-9)
    assert other.log_likelihood_ == pytest.approx(one.log_likelihood_ - N * np.log(c), rel=1e-9)


def test_column_that_does_not_vary():
    x = X.copy()
    x[:, 2] = 0.1
    model = regressor().fit(x, Y)
    assert (model.x_mean_[2], model.x_scale_[2]) == (0.1, 1)
    assert (model.coef_[:, 2] == 0).all()
    assert model.score(x, Y) > 0.5


def test_weights_are_repetitions():
    """Rows of weight 0 fill up the weighted table, so that both are of one shape."""
    counts = np.repeat([1, 2], 100)[:133]
    counts = np.append(counts, np.zeros(N - 133, int))
    counts[132] += N - counts.sum()
    weighted = regressor().fit(X, Y, sample_weight=counts)
    rows = np.repeat(np.arange(N), counts)
    repeated = regressor().fit(X[rows], Y[rows], sample_weight=np.ones(N))
    np.testing.assert_allclose(weighted.x_scale_, X[rows].std(axis=0))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(weighted.shares_, repeated.shares_, rtol=1e-6)
    assert weighted.log_likelihood_ == pytest.approx(repeated.log_likelihood_, rel=1e-8)


@pytest.mark.parametrize("kind", [MoERegressor, MoEClassifier])
def test_a_number_is_the_weight_of_every_row(kind):
    model, y = kind(2, n_init=1, max_iter=20, random_state=0), Y if kind is MoERegressor else SECOND
    want = clone(model).fit(X, y, np.full(N, 3.0))
    got = model.fit(X, y, 3)
    np.testing.assert_array_equal(got.coef_, want.coef_)
    assert got.log_likelihood_ == want.log_likelihood_
    assert got.score(X, y, 3) == pytest.approx(got.score(X, y))
    with pytest.raises(ValueError, match="sample_weight: all are 0"):
        model.fit(X, y, 0.0)


@pytest.mark.parametrize("dtype", [float, np.float32])
@pytest.mark.parametrize("size", [1e306, 1e37, 1e-306])
def test_the_size_of_weights_does_not_matter(dtype, size):
    weights = 1 / (1 + np.arange(N) % 3)  # the largest is 1
    model = regressor(n_init=2, max_iter=50)
    want = clone(model).fit(X.astype(dtype), Y, weights)
    got = model.fit(X.astype(dtype), Y, weights * size)
    np.testing.assert_allclose(got.coef_, want.coef_, rtol=1e-5, atol=1e-6)
    assert got.log_likelihood_ == pytest.approx(want.log_likelihood_, rel=1e-6)
    assert got.score(X, Y, weights * size) == pytest.approx(want.score(X, Y, weights))


def test_numbers_of_16_bits_are_fitted_in_float32():
    half = X.astype(np.float16)
    model = regressor(n_init=1, max_iter=20)
    want = clone(model).fit(half.astype(np.float32), Y).predict(half.astype(np.float32))
    got = model.fit(half, Y).predict(half)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want)


def test_targets_may_be_one_column():
    model = regressor(n_init=1, max_iter=20)
    with pytest.warns(DataConversionWarning):
        np.testing.assert_array_equal(clone(model).fit(X, Y[:, None]).coef_, model.fit(X, Y).coef_)
    with pytest.warns(DataConversionWarning):
        np.testing.assert_array_equal(model.log_prob(X, Y[:, None]), model.log_prob(X, Y))


def test_counts_may_be_all_0():
    model = regressor(family="poisson", n_init=2, l1_experts=0.0)
    with pytest.warns(ConvergenceWarning, match="separated expert"):
        model.fit(X, np.zeros(N))
    assert model.predict(X).max() < 1e-6
    assert np.isfinite(model.log_prob(X, np.full(N, 5))).all()


# ---- scikit-learn's own estimators, at one expert ---------------------------------------------------------------------


ALONE = {"n_experts": 1, "gate": "fixed", "standardize": False, "n_init": 1}


def test_lasso():
    model = regressor(**ALONE, standardize_y=False, shared_scale=True).fit(X, Y)
    assert np.shape(model.scale_) == ()
    assert (model.gate_coef_, model.gate_intercept_) == (None, None)
    lasso = Lasso(alpha=L1 * model.scale_**2, tol=1e-12, max_iter=100_000).fit(X, Y)
    np.testing.assert_allclose(model.coef_[0], lasso.coef_, atol=1e-6)
    assert model.intercept_[0] == pytest.approx(lasso.intercept_, abs=1e-6)
    assert (model.coef_[0] == 0).tolist() == (lasso.coef_ == 0).tolist()


def test_poisson_regression():
    rate = np.exp(0.4 * X[:, 0] + 0.1 * X[:, 1] + 0.5)
    y = np.random.default_rng(2).poisson(rate)
    model = regressor(**ALONE, family="poisson", l1_experts=0.0, l2_experts=0.05).fit(X, y)
    other = PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(model.coef_[0], other.coef_, atol=1e-5)
    np.testing.assert_allclose(model.predict(X), other.predict(X), rtol=1e-5)
    assert model.scale_ is None
    assert units(model) == (0, 1)
    counts = np.arange(200)
    assert np.exp(model.log_prob(np.broadcast_to(X[0], (200, D)), counts)).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"y: 0\.5 was given"):
        model.log_prob(X, np.full(N, 0.5))


def test_logistic_regression():
    y, l2 = X[:, 0] + np.random.default_rng(3).logistic(size=N) > 0, 0.01
    model = MoEClassifier(**ALONE, l2_experts=l2, random_state=0).fit(X, y)
    other = LogisticRegression(C=1 / (2 * N * l2), tol=1e-10, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(model.coef_, other.coef_, atol=1e-6)
    assert model.predict(X).tolist() == other.predict(X).tolist()
    assert model.predict_experts(X).shape == (N, 1, 2)
    np.testing.assert_allclose(model.predict_experts(X)[:, 0], model.predict_proba(X))
    np.testing.assert_allclose(model.log_prob(X, y), np.log(model.predict_proba(X)[np.arange(N), y.astype(int)]))
    with pytest.raises(ValueError, match="y: all rows of positive weight have the label False"):
        clone(model).fit(X, y, sample_weight=~y)


# ---- the classifier as a mixture --------------------------------------------------------------------------------------


def test_three_classes():
    scores = np.where(SECOND[:, None], X @ [[-3, 0, 3], [0, 1, 0], [0, 0, 0]], X @ [[3, 0, -3], [0, 0, 0], [0, 0, 0]])
    number = (scores + np.random.default_rng(3).gumbel(size=(N, 3))).argmax(axis=1)
    y = np.asarray(["a", "b", "c"])[number]
    model = MoEClassifier(2, l2_experts=0.01, random_state=0).fit(X, y)
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert (model.coef_.shape, model.intercept_.shape) == ((2, 3, D), (2, 3))
    of_experts = softmax(np.einsum("nd,kcd->nkc", X, model.coef_) + model.intercept_, axis=2)
    np.testing.assert_allclose(model.predict_experts(X), of_experts, rtol=1e-8)
    mixed = np.einsum("nk,nkc->nc", model.predict_gate(X), of_experts)
    np.testing.assert_allclose(model.predict_proba(X), mixed, rtol=1e-8)
    np.testing.assert_allclose(model.log_prob(X, y), np.log(mixed[np.arange(N), number]), rtol=1e-8)
    assert model.predict(X).tolist() == model.classes_[mixed.argmax(axis=1)].tolist()
    assert model.log_prob(X, y).sum() == pytest.approx(model.log_likelihood_)
    assert model.log_likelihood_ > np.log(LogisticRegression(C=1e6).fit(X, y).predict_proba(X))[np.arange(N), number].sum()
    np.testing.assert_allclose(model.responsibilities(X, y).mean(axis=0), model.shares_)
    assert model.shares_[0] >= model.shares_[1]
    with pytest.raises(ValueError, match=r"y: .*'maybe'.* was given; want labels among"):
        model.log_prob(X[:1], ["maybe"])


# ---- gradients --------------------------------------------------------------------------------------------------------


def test_gradient_solver_reaches_what_em_does():
    model = fitted(solver="gradient", max_iter=3000, l2_gate=0.01)
    by_em = fitted(l2_gate=0.01)
    assert model.objective_ == pytest.approx(by_em.objective_, abs=1e-5)
    np.testing.assert_allclose(model.coef_, by_em.coef_, atol=0.01)
    assert ((model.coef_ == 0) == (by_em.coef_ == 0)).all()


def test_squared_error_of_a_gate_that_chooses():
    model = fitted(gate="top1", solver="gradient", loss="squared_error", max_iter=300)
    assert model.score(X, Y) > 0.5
    assert model.scale_ is None
    assert np.isnan(model.log_likelihood_)
    np.testing.assert_allclose(model.shares_, np.bincount(model.predict_gate(X).argmax(axis=1)) / N)
    with pytest.raises(ValueError, match="loss: 'squared_error' was given, under which log_prob has no meaning"):
        model.log_prob(X, Y)


# ---- scikit-learn's machinery -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [MoERegressor, MoEClassifier])
def test_rules_of_scikit_learn(kind):
    """All of its checks; it skips some itself."""
    model = kind(2, n_init=1, max_iter=100, random_state=0)
    run = set()
    for estimator, check in estimator_checks_generator(model):
        with contextlib.suppress(unittest.SkipTest):
            check(estimator)
        run.add(check.func.__name__)
    assert "check_sample_weight_equivalence_on_dense_data" in run
    assert len(run) >= 45


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [MoERegressor, MoEClassifier])
@pytest.mark.parametrize("columns", [3, 60])
def test_the_order_of_rows_and_how_they_are_counted_change_no_digit(kind, columns):
    """Also where columns are more than rows, and rounding decides which of many fits is found."""
    rng = np.random.default_rng(0)
    x, y, counts = rng.normal(size=(30, columns)), rng.integers(0, 3, 30), rng.integers(0, 4, 30)
    rows, order = np.repeat(np.arange(30), counts), rng.permutation(counts.sum())
    model = kind(2, n_init=2, max_iter=50, random_state=0)
    want = clone(model).fit(x, y, counts)
    for got in (clone(model).fit(x[rows], y[rows]), clone(model).fit(x[rows][order], y[rows][order])):
        np.testing.assert_array_equal(got.coef_, want.coef_)
        assert (got.objective_, got.status_, got.n_iter_) == (want.objective_, want.status_, want.n_iter_)


def test_same_seed_same_fit():
    np.testing.assert_array_equal(regressor().fit(X, Y).coef_, fitted().coef_)
    again = regressor(random_state=np.random.RandomState(0)).fit(X, Y)
    np.testing.assert_array_equal(again.coef_, fitted().coef_)
    np.testing.assert_allclose(regressor(random_state=None).fit(X, Y).coef_, fitted().coef_, atol=1e-4)


def test_params():
    model = fitted()
    assert clone(model).get_params() == model.get_params()
    assert clone(model).set_params(n_experts=5, gate="top1").get_params()["n_experts"] == 5
    with pytest.raises(NotFittedError):
        clone(model).predict(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_search_over_a_pipeline():
    x, y, _ = drawn(2 * N, seed=5)
    pipeline = make_pipeline(StandardScaler(), regressor())
    assert cross_val_score(pipeline, x, y, cv=2).min() > 0.5
    search = GridSearchCV(regressor(), {"l1_experts": [L1, 10.0]}, cv=2, refit=False).fit(x, y)
    assert search.best_params_ == {"l1_experts": L1}


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c"])
    model = regressor().fit(frame, pandas.Series(Y), sample_weight=None)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(model.predict(frame), fitted().predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "z"}))


# ---- mistakes -----------------------------------------------------------------------------------------------------------

MISTAKES = [
    ({"gate": "sofmax"}, "gate: 'sofmax' was given; want one of .*'gaussian'"),
    ({"family": "bernoulli"}, "family: 'bernoulli' was given"),
    ({"loss": "mse"}, "loss: 'mse' was given"),
    ({"solver": "adam"}, "solver: 'adam' was given"),
    ({"n_experts": 0}, "n_experts: 0 was given"),
    ({"n_experts": N + 1}, f"n_experts: {N + 1} experts were given for {N} distinct rows"),
    ({"n_init": 0}, "n_init: 0 was given"),
    ({"max_iter": 1.5}, "max_iter: 1.5 was given"),
    ({"tol": -1.0}, "tol: -1.0 was given"),
    ({"l1_experts": -1.0}, "l1_experts: -1.0 was given"),
    ({"l2_gate": [1.0, 2.0]}, "l2_gate: shape"),
    ({"loss": "squared_error"}, "loss: 'squared_error' was given with solver='em'"),
    (
        {"loss": "squared_error", "solver": "gradient", "family": "gamma"},
        "family: 'gamma' was given with loss='squared_error'",
    ),
    ({"gate": "top1", "solver": "gradient"}, "loss: nll was given for a gate that chooses one expert"),
    ({"gate": "constant", "gate_reference": True}, "gate_reference: True was given for gate='constant'"),
    ({"gate": (2, 2), "gate_reference": True}, "gate_reference: True was given for gate=.2, 2."),
    ({"gate": (2, 2)}, "gate: .2, 2. was given for n_experts=2; want as many leaves, two or more"),
    ({"gate": "hierarchical", "n_experts": 1}, "gate: 'hierarchical' was given for n_experts=1"),
    ({"gate": ((0, 1), (2,))}, "tree: .* has a split of fewer than two branches"),
    ({"family": "poisson", "shared_scale": True}, "shared_scale: True was given for family='poisson'"),
    ({"family": "gamma"}, "y: -.* was given .*want numbers above 0"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_settings_without_a_meaning(settings, message):
    with pytest.raises(ValueError, match=message):
        regressor(**settings).fit(X, Y)


def test_rows_without_a_meaning():
    with pytest.raises(ValueError, match="NaN"):
        regressor().fit(np.where(X > 1, np.nan, X), Y)
    with pytest.raises(ValueError, match="y: the target is constant"):
        regressor().fit(X, np.ones(N))
    with pytest.raises(ValueError, match="sample_weight: shape"):
        regressor().fit(X, Y, sample_weight=np.ones(3))
    with pytest.raises(ValueError, match=r"sample_weight: -1\.0 was given"):
        regressor().fit(X, Y, sample_weight=-np.ones(N))
    with pytest.raises(ValueError, match="y: all rows of positive weight have the label 'a'; want more than one class"):
        MoEClassifier().fit(X, ["a"] * N)
    with pytest.raises(ValueError, match="y: shape"):
        fitted().log_prob(X, Y[:3])
    with pytest.raises(ValueError, match="features"):
        fitted().predict(X[:, :2])


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    spec = importlib.util.spec_from_file_location("anew", moejax.sklearn.__file__)
    with pytest.raises(ImportError, match=r"want pip install 'moejax\[sklearn\]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
