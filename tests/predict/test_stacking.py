"""Fitted models as experts, against scipy's optimisers, scikit-learn's cross-validation and ridge, and known variances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from scipy.optimize import minimize
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import moejax
from moejax import experts, families, fit_em, fit_gradient, gates, losses, moe, stacking, starts
from moejax._rows import lay
from moejax.fit import Status

pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
N, K = 150, 3
X = RNG.normal(size=(N, 2))
SAID = np.column_stack([X[:, 0], -X[:, 1], np.full(N, -2.0)])  # predictors of which the last is of no use
LABELS = (RNG.random(N) < 1 / (1 + np.exp(-np.where(X[:, 1] > 0, SAID[:, 0], SAID[:, 1])))).astype(float)
BOTH = {"inputs": X, "predictions": SAID}
KEY = jax.random.key(0)


def plugged(gate, family=None, gate_columns="inputs"):
    return moe(experts.predictions(), gate, K, family=family, expert_columns="predictions", gate_columns=gate_columns)


# ---- what a part sees -------------------------------------------------------------------------------------------------


def test_names_see_what_columns_of_one_table_do():
    table = np.hstack([X, SAID])
    by_column = moe(experts.linear(), gates.softmax(), K, expert_columns=[2, 3, 4], gate_columns=[0, 1, 2, 3, 4])
    by_name = moe(experts.linear(), gates.softmax(), K, expert_columns="predictions", gate_columns=("inputs", "predictions"))
    params = by_column.init(KEY, table)
    np.testing.assert_array_equal(params["gate"]["weights"], by_name.init(KEY, BOTH)["gate"]["weights"])
    np.testing.assert_array_equal(by_column.predict(params, table), by_name.predict(params, BOTH))


def test_several_outputs_are_flattened_beside_a_table_and_stay_apart_alone():
    x = {"inputs": X, "predictions": np.stack([SAID, 2 * SAID], axis=2)}
    model = plugged(gates.softmax(), gate_columns=("inputs", "predictions"))
    params = model.init(KEY, x)
    assert params["gate"]["weights"].shape == (K, 2 + 2 * K)
    np.testing.assert_allclose(model.expert_predictions(params, x), x["predictions"])


def test_arrays_of_two_precisions_become_one():
    x = {"inputs": X.astype(np.float32), "predictions": SAID}
    fit = fit_em(plugged(gates.softmax(), families.bernoulli()), max_iter=3)
    assert fit(KEY, x, LABELS).params["gate"]["weights"].dtype == jnp.float64


def test_functions_say_what_predictions_hold():
    each = [lambda x: x[:, 0], lambda x: -x[:, 1], lambda x: jnp.full(x.shape[0], -2.0)]
    model, given = moe(experts.functions(each), gates.softmax(), K), plugged(gates.softmax())
    params = model.init(KEY, X)
    np.testing.assert_allclose(jax.jit(model.predict)(params, X), given.predict(params, BOTH), rtol=1e-12)


def test_clusters_of_a_start_are_those_of_what_the_gate_sees():
    model = plugged(gates.softmax())
    np.testing.assert_array_equal(model.table(BOTH), X)
    assert model.table(X) is X
    blind = plugged(gates.constant(), gate_columns=None)
    assert blind.table(BOTH) is BOTH
    fit_em(plugged(gates.softmax(), families.bernoulli()), init="kmeans").check_data(BOTH, LABELS)
    with pytest.raises(ValueError, match="init: 'kmeans' was given for inputs that are no array"):
        fit_em(plugged(gates.constant(), families.bernoulli(), None), init="kmeans").check_data(BOTH, LABELS)


def test_experts_that_differ_by_themselves_begin_with_equal_shares():
    rows = lay(jnp.asarray(X), jnp.asarray(LABELS))

    def draw(init, number, **more):
        active = jnp.asarray([True, True, False])
        return starts.draw(init, jnp.asarray(number), jax.random.key(1), rows, lambda x: x, active, **more)[0]

    equal = draw("mixed", 0, alike=False)
    np.testing.assert_allclose(equal, np.repeat([[0.5], [0.5], [0.0]], N, axis=1))
    np.testing.assert_array_equal(draw("equal", 3), equal)
    np.testing.assert_array_equal(draw("random", 0, alike=False), equal)
    assert np.ptp(np.asarray(draw("mixed", 1, alike=False))[0]) > 0.05  # tilted
    assert np.ptp(np.asarray(draw("mixed", 2, alike=False))[0]) > 0.2
    assert np.ptp(np.asarray(draw("mixed", 3, alike=False))[0]) > 0.5  # clusters


def linear(**more):
    return moe(experts.linear(), gates.softmax(), K, family=families.gaussian(), **more)


def predictors(count=K, x=BOTH):
    return lambda: moe(experts.predictions(), gates.constant(), count, expert_columns="predictions").init(KEY, x)


FITTED = Ridge().fit(X, LABELS)
NOT_TRACED = moe(experts.functions([FITTED.predict] * K), gates.softmax(), K, family=families.gaussian())
MISTAKES = {
    "a name that x lacks": (
        lambda: fit_em(linear(expert_columns="rows", gate_columns="inputs"))(KEY, BOTH, LABELS),
        r"expert_columns: 'rows' was given, which x does not have; want one of \['inputs', 'predictions'\]",
    ),
    "one of several names": (
        lambda: fit_em(linear(expert_columns="inputs", gate_columns=["inputs", "rows"]))(KEY, BOTH, LABELS),
        "gate_columns: 'rows' was given, which x does not have",
    ),
    "a name for a table": (
        lambda: fit_em(linear(gate_columns="inputs"))(KEY, X, LABELS),
        "gate_columns: 'inputs' was given, for an x that has no names; want x as a mapping",
    ),
    "no name for a mapping": (
        lambda: fit_em(linear(gate_columns="inputs"))(KEY, BOTH, LABELS),
        "x: a dict was given to a part that sees a table; want its expert_columns or gate_columns to name",
    ),
    "a name twice": (lambda: linear(gate_columns=["inputs", "inputs"]), "gate_columns: .* or names in x"),
    "too few predictors": (predictors(4), "predictions: 3 columns were given for 4 experts; want one for each"),
    "predictors of no shape": (
        predictors(x={"predictions": X[:, 0]}),
        r"predictions: shape \(150,\) was given; want \(n, K\) or \(n, K, m\)",
    ),
    "a function on the host": (
        lambda: fit_em(NOT_TRACED)(KEY, X, LABELS),
        r"functions\[0\]: .* cannot be traced by JAX; want .* moejax.stacking.predictions",
    ),
    "functions of other shapes": (
        lambda: moe(experts.functions([lambda x: x] * 2 + [lambda x: x[:, 0]]), gates.softmax(), K).prepare(X),
        r"functions: they returned shapes .*; want \(150,\) of all",
    ),
    "too few functions": (
        lambda: moe(experts.functions([jnp.sum]), gates.softmax(), K).expert.init(KEY, K, X),
        "functions: 1 were given for 3 experts",
    ),
    "no function": (lambda: experts.functions([]), "functions: .* want a sequence of functions of x"),
    "nothing to train": (
        lambda: fit_gradient(plugged(gates.fixed()))(KEY, BOTH, LABELS),
        "model: nothing in .* is trained",
    ),
    "a sweep of an estimator": (
        lambda: moejax.sweep(FITTED, {"restart": 2}),
        r"fit: Ridge\(\) was given; .* an estimator is trained on the host",
    ),
    "forecasts of other columns": (
        lambda: plugged(gates.confidence(np.ones((3, 5)), np.ones(3))).init(KEY, BOTH),
        "confidence: 2 columns were given for 3 experts; want 5 for 3",
    ),
    "forecasts that are not seen": (
        lambda: plugged(gates.confidence()).init(KEY, BOTH),
        "confidence: 2 columns were given for 3 experts; want the forecast of each",
    ),
    "a temperature of 0": (lambda: gates.confidence(temperature=0), "temperature: 0 was given; want numbers above 0"),
    "an intercept too few": (lambda: gates.confidence(np.ones((3, 2)), [1.0]), r"intercept: shape \(1,\) was given"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_compiles(name):
    mistake, message = MISTAKES[name]
    with pytest.raises(ValueError, match=message):
        mistake()


# ---- gates over predictions, against scipy ----------------------------------------------------------------------------


def on_simplex(value):
    """The lowest value over weights of sum 1, none below 0, by sequential quadratic programming."""
    constraint = {"type": "eq", "fun": lambda w: w.sum() - 1}
    best = minimize(value, np.full(K, 1 / K), bounds=[(1e-12, 1)] * K, constraints=constraint, options={"ftol": 1e-14})
    return best.x, best.fun


def test_em_finds_the_likeliest_proportions_and_a_useless_expert_is_not_starved():
    fit = fit_em(plugged(gates.constant(), families.bernoulli()))(KEY, BOTH, LABELS, {"l1_experts": 0.1})
    density = np.where(LABELS[:, None] == 1, 1 / (1 + np.exp(-SAID)), 1 / (1 + np.exp(SAID)))
    weights, value = on_simplex(lambda w: -np.log(density @ w).sum())
    assert float(-fit.log_likelihood) == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose(jax.nn.softmax(fit.params["gate"]["logits"]), weights, atol=1e-3)
    assert int(fit.status) == int(Status.CONVERGED)
    assert int(fit.degrees_of_freedom) == K - 1
    assert fit.params["experts"] == {}


def test_a_gate_that_sees_nothing_is_stacking_with_convex_weights():
    y = SAID @ [0.5, 0.2, 0.3] + np.random.default_rng(1).normal(size=N)
    weights, value = on_simplex(lambda w: np.square(y - SAID @ w).mean())
    fit = fit_gradient(plugged(gates.constant()), losses.squared_error(), "accelerated", steps=300)(KEY, BOTH, y)
    assert float(fit.objective) == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(fit.params["gate"]["logits"]), weights, atol=2e-3)


def test_a_sweep_of_a_gate_without_anything_to_train():
    """The likelihood of forecasts at several temperatures, by hand."""
    forecasts = np.abs(SAID)
    x = {"forecasts": forecasts, **BOTH}
    model = plugged(gates.confidence(), families.bernoulli(), "forecasts")
    values = [0.25, 1.0, 4.0]
    result = moejax.sweep(fit_em(model, max_iter=5), {"temperature": values})(KEY, x, LABELS)
    density = np.where(LABELS[:, None] == 1, 1 / (1 + np.exp(-SAID)), 1 / (1 + np.exp(SAID)))
    for value, found in zip(values, result.fits.log_likelihood, strict=True):
        weights = np.exp(-forecasts / value)
        assert found == pytest.approx(np.log((weights * density).sum(axis=1) / weights.sum(axis=1)).sum(), rel=1e-9)
    assert (result.fits.degrees_of_freedom == 0).all()


# ---- predictions of models ----------------------------------------------------------------------------------------------

REALS = X @ [1.0, -2.0] + 0.3 * np.random.default_rng(2).normal(size=N)
FOLDS = np.arange(N) % 4


def test_out_of_fold_is_cross_validation():
    models = [Ridge(), make_pipeline(StandardScaler(), KNeighborsRegressor(7))]
    expected = [cross_val_predict(model, X, REALS, cv=PredefinedSplit(FOLDS)) for model in models]
    np.testing.assert_allclose(stacking.out_of_fold(models, X, REALS, FOLDS), np.transpose(expected), rtol=1e-12)
    assert not hasattr(models[0], "coef_")


def test_weights_reach_the_last_step_of_a_pipeline():
    weights = np.random.default_rng(3).integers(0, 3, N)
    rows = np.repeat(np.arange(N), weights)
    model, plain = make_pipeline(StandardScaler(with_std=False), Ridge()), Ridge()
    weighted = stacking.fit_copy(model, X, REALS, weights).predict(X)
    np.testing.assert_allclose(weighted, plain.fit(X[rows], REALS[rows]).predict(X), rtol=1e-9)


def test_classes_that_a_fold_lacks_are_next_to_impossible():
    y = np.array(["a", "b"])[(X[:, 0] > 0).astype(int)]
    y[:3] = "c"
    folds = np.where(np.arange(N) < 3, 0, 1 + np.arange(N) % 2)
    said = stacking.out_of_fold([LogisticRegression(), DecisionTreeClassifier(max_depth=2)], X, y, folds)
    assert said.shape == (N, 2, 3)
    np.testing.assert_allclose(said[:3, :, 2], np.log(1e-7))
    rest = folds == 1
    there = LogisticRegression().fit(X[~rest], y[~rest]).predict_log_proba(X[rest])
    np.testing.assert_allclose(said[rest, 0], there, rtol=1e-9)


def test_folds_are_even_and_have_their_share_of_each_class():
    y = np.arange(103) % 5 == 0
    labels = stacking.fold_labels(4, y, seed=1, stratified=True)
    assert np.ptp(np.bincount(labels)) <= 1
    assert np.ptp(np.bincount(labels[y])) <= 1
    assert np.ptp(np.bincount(stacking.fold_labels(4, y))) <= 1
    assert (stacking.fold_labels(4, y, seed=2) != stacking.fold_labels(4, y, seed=1)).any()


class NaNs:
    def fit(self, x, y):
        return self

    def predict(self, x):
        return np.full(len(x), np.nan)


def out(models, folds=FOLDS, **more):
    return lambda: stacking.out_of_fold(models, X, REALS, folds, **more)


REFUSED = {
    "a gap": (out([Ridge()], FOLDS - 1), "folds: 38 rows are held out in no fold, the first of them 0"),
    "one fold": (out([Ridge()], np.zeros(N, int)), "folds: all rows are in the same one"),
    "too many folds": (out([Ridge()], N + 1), "folds: 151 were given for 150 rows"),
    "one fold by number": (out([Ridge()], 1), "folds: 1 was given; want a whole number of at least 2"),
    "folds that are no numbers": (out([Ridge()], FOLDS / 2), "folds: values of type float64 were given"),
    "NaN": (out([Ridge(), NaNs()]), r"models\[1\]: predictions: 38 of 38 values are NaN"),
    "no weights": (
        out([Ridge(), KNeighborsRegressor()], weights=np.ones(N)),
        r"models\[1\]: KNeighborsRegressor takes no sample_weight",
    ),
    "no weights in a pipeline": (
        out([make_pipeline(StandardScaler(), KNeighborsRegressor())], weights=np.ones(N)),
        "KNeighborsRegressor, the last step of Pipeline, takes no sample_weight",
    ),
    "two kinds": (
        out([Ridge(), LogisticRegression()]),
        "models: .*LogisticRegression.* want classifiers or regressors alone",
    ),
    "no model": (out([]), "models: .* want a sequence of at least one"),
    "what does not fit": (out([np.sin]), r"models\[0\]: <ufunc 'sin'> has no fit"),
    "losses of one model": (lambda: stacking.losses(REALS, REALS), "predicted: shape .* want .n, K."),
    "a ridge below 0": (lambda: stacking.linear_forecasts(X, SAID, -1.0), "l2: -1.0 was given; want no number below 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_predictions_is_refused(name):
    mistake, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        mistake()


# ---- confidence ---------------------------------------------------------------------------------------------------------


def test_linear_forecasts_are_ridge_regressions():
    weights = np.random.default_rng(4).random(N)
    coefficients, intercept = stacking.linear_forecasts(X, SAID, 0.3, weights)
    expected = Ridge(0.3 * weights.sum()).fit(X, SAID, sample_weight=weights)
    np.testing.assert_allclose(coefficients, expected.coef_, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(intercept, expected.intercept_, rtol=1e-9)


def test_losses_in_nats():
    said = np.log([[[0.2, 0.8]], [[0.9, 0.1]]])
    np.testing.assert_allclose(stacking.losses(said, [1, 1]), -np.log([[0.8], [0.1]]))
    np.testing.assert_allclose(stacking.losses([[1.0, 3.0], [0.0, 5.0]], [2.0, 2.0]), np.log([[1.0, 1.0], [2.0, 3.0]]))


def test_confidence_comes_to_inverse_variances_which_are_the_best_weights():
    """Independent errors of variances known at every x: the best convex weights, and the error that they leave."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, size=(20_000, 1))
    sd = np.exp(x * [1.0, -1.0, 0.0] + [0.0, 0.2, 0.5])
    y = 3 * x[:, 0]
    said = y[:, None] + sd * rng.normal(size=sd.shape)
    coefficients, intercept = stacking.linear_forecasts(x, stacking.losses(said, y), 0.0)
    np.testing.assert_allclose(coefficients[:, 0], [1, -1, 0], atol=0.05)
    np.testing.assert_allclose(intercept - intercept[0], [0.0, 0.2, 0.5], atol=0.05)
    model = plugged(gates.confidence(coefficients, intercept, temperature=0.5))
    inputs = {"inputs": x, "predictions": said}
    params = model.init(KEY, inputs)
    best = sd**-2 / (sd**-2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.gate_probs(params, inputs), best, atol=0.03)
    error = np.square(np.asarray(model.predict(params, inputs)) - y)
    assert error.mean() == pytest.approx((1 / (sd**-2).sum(axis=1)).mean(), rel=0.05)
    seen = moe(experts.predictions(), gates.confidence(temperature=0.5), K, expert_columns="predictions", gate_columns="f")
    forecasts = {"f": x @ coefficients.T + intercept, "predictions": said}
    np.testing.assert_allclose(
        seen.gate_probs(seen.init(KEY, forecasts), forecasts), model.gate_probs(params, inputs), rtol=1e-9
    )
    cold = model.with_hyper(params, {"temperature": 1e-4})
    np.testing.assert_array_equal(
        model.gate_probs(cold, inputs).argmax(axis=1), (x @ coefficients.T + intercept).argmin(axis=1)
    )


# ---- weights that depend on the input -----------------------------------------------------------------------------------


def test_a_gate_that_sees_inputs_beats_constant_weights_out_of_sample():
    """Two regressions, each right on one side, and a tree: the gate has to find the side."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(400, 2))
    y = np.where(x[:, 1] > 0, x[:, 0], -x[:, 0]) + 0.1 * rng.normal(size=400)
    train, test = slice(0, 300), slice(300, 400)
    sides = [lambda x: x[:, 0], lambda x: -x[:, 0]]
    tree = DecisionTreeRegressor(max_depth=2, random_state=0)
    inner = np.column_stack([*(f(x[train]) for f in sides), stacking.out_of_fold([tree], x[train], y[train])])
    outer = stacking.predictions([*sides, tree.fit(x[train], y[train])], x[test])
    model = plugged(gates.softmax(), families.gaussian(variance_floor=1e-3))
    fit = fit_em(model)(KEY, {"inputs": x[train], "predictions": inner}, y[train], {"l2_gate": 1e-3})
    predicted = model.predict(fit.params, {"inputs": x[test], "predictions": outer})
    constant = LinearRegression().fit(inner, y[train]).predict(outer)
    assert np.square(predicted - y[test]).mean() < 0.2 * np.square(constant - y[test]).mean()
