"""Arguments as files, databases and programs give them: what is taken counts at its value, all else is refused by name."""

import itertools
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

import moejax
from moejax import _checks, datasets, division, experts, families, gates, losses, metrics, plots, pooling, stacking
from moejax.sklearn import MoEClassifier, MoEEnsembleRegressor, MoERegressor, MoEStackingRegressor

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import hostile
import hostile_doors
import hostile_values

RNG = np.random.default_rng(0)
N = 16
X = RNG.standard_normal((N, 3)).astype(np.float32)
Y = (np.where(X[:, 0] > 0, X[:, 1], -X[:, 2]) + 0.1 * RNG.standard_normal(N)).astype(np.float32)
WEIGHTS = RNG.uniform(0.5, 1, N).astype(np.float32)
SHARES = RNG.dirichlet([1, 1], N).astype(np.float32)
GROUPS, LABELS, FOLDS = np.arange(N) // 4, np.arange(N) % 2, np.arange(N) % 3
PROBABILITIES = np.stack([np.linspace(0.1, 0.9, N), np.linspace(0.9, 0.1, N)], axis=1)
KEY = jax.random.key(0)
MODEL = moejax.moe(experts.linear(), gates.softmax(), 2, family=families.gaussian())
NAMED = moejax.moe(experts.linear(), gates.softmax(), 2, family=families.gaussian(), expert_columns="a", gate_columns="b")
LABELLED = moejax.moe(experts.linear(), gates.softmax(), 2, family=families.bernoulli())
PARAMS = jax.tree.map(np.asarray, MODEL.init(KEY, X))
SLOPES = PARAMS["experts"]["weights"]
FIT, EM = moejax.fit_gradient(MODEL, losses.nll(), steps=3), moejax.fit_em(MODEL, max_iter=2)
PAIR = [("a", Ridge()), ("b", Ridge(10.0))]


def refused(pattern, call, *arguments):
    """Assert that a call is refused by an error of that text."""
    with pytest.raises((TypeError, ValueError), match=pattern):
        call(*arguments)


def with_slopes(slopes):
    return {**PARAMS, "experts": {**PARAMS["experts"], "weights": slopes}}


def regressor(**settings):
    return MoERegressor(2, n_init=1, max_iter=3, random_state=0, **settings)


def stacked(**settings):
    return MoEStackingRegressor(PAIR, gate="fixed", n_init=1, max_iter=3, random_state=0, **settings)


def ensemble():
    return MoEEnsembleRegressor(PAIR, gate="fixed", n_init=1, max_iter=1, random_state=0, progress=False)


def swept(axes, fit=FIT, **more):
    return moejax.sweep(fit, axes, progress=False)(KEY, X, Y, **more)


# Of each array that is taken: the name of the argument, what comes of it, and an array that is right.
ARRAYS = {
    "fit x": ("x", lambda v: FIT(KEY, v, Y).objective, X),
    "fit named x": ("x", lambda v: moejax.fit_gradient(NAMED, losses.nll(), steps=1)(KEY, {"a": v, "b": X}, Y).objective, X),
    "fit y": ("y", lambda v: FIT(KEY, X, v).objective, Y),
    "fit weights": ("weights", lambda v: FIT(KEY, X, Y, weights=v).objective, WEIGHTS),
    "fit offset": ("offset", lambda v: FIT(KEY, X, Y, offset=v).objective, Y),
    "fit groups": ("groups", lambda v: EM(KEY, X, Y, groups=v).objective, GROUPS),
    "fit params": ("start_params", lambda v: FIT(KEY, X, Y, start_params=with_slopes(v)).objective, SLOPES),
    "fit shares": ("start_responsibilities", lambda v: FIT(KEY, X, Y, start_responsibilities=v).objective, SHARES),
    "sweep weights": ("weights", lambda v: swept({"l2_gate": [0.1]}, weights=v).fits.objective, WEIGHTS),
    "sweep axis": ("l2_gate", lambda v: swept({"l2_gate": v}).fits.objective, np.array([0.1, 0.2], np.float32)),
    "sweep folds": ("fold", lambda v: swept({"fold": v}).held_out, FOLDS),
    "sweep division": ("division", lambda v: swept({"division": [v]}).fits.objective, SHARES),
    "by_distance": ("x", lambda v: division.by_distance(KEY, v, 2), X),
    "inliers": ("y", lambda v: division.inliers(KEY, X, v), Y),
    "by_rule": ("rule", lambda v: division.by_rule(lambda x: v, X, 2), LABELS),
    "init": ("x", lambda v: MODEL.init(KEY, v)["gate"]["weights"], X),
    "predict x": ("x", lambda v: MODEL.predict(PARAMS, v), X),
    "predict offset": ("offset", lambda v: MODEL.predict(PARAMS, X, v), Y),
    "predict params": ("params", lambda v: MODEL.predict(with_slopes(v), X), SLOPES),
    "log_prob": ("y", lambda v: MODEL.log_prob(PARAMS, X, v), Y),
    "responsibilities": ("groups", lambda v: MODEL.responsibilities(PARAMS, X, Y, groups=v), GROUPS),
    "score": ("weights", lambda v: FIT.score(PARAMS, X, Y, v), WEIGHTS),
    "quantiles x": ("x", lambda v: pooling.quantiles(MODEL, PARAMS, v, 0.5), X),
    "quantiles q": ("q", lambda v: pooling.quantiles(MODEL, PARAMS, X, v), np.array([0.2, 0.5], np.float32)),
    "quantiles params": ("params", lambda v: pooling.quantiles(MODEL, with_slopes(v), X, 0.5), SLOPES),
    "density": ("y", lambda v: pooling.density(MODEL, PARAMS, X, v), Y),
    "modes": ("x", lambda v: pooling.modes(MODEL, PARAMS, v).at, X),
    "usage x": ("x", lambda v: moejax.usage(MODEL, PARAMS, v, Y).probability, X),
    "usage weights": ("weights", lambda v: moejax.usage(MODEL, PARAMS, X, Y, weights=v).probability, WEIGHTS),
    "log_loss y": ("y", lambda v: metrics.log_loss(v, PROBABILITIES), LABELS),
    "log_loss": ("probabilities", lambda v: metrics.log_loss(LABELS, v), PROBABILITIES),
    "accuracy": ("weights", lambda v: metrics.accuracy(LABELS, PROBABILITIES, v), WEIGHTS),
    "calibration": ("probabilities", lambda v: metrics.calibration(LABELS, v).error, PROBABILITIES),
    "losses": ("predicted", lambda v: stacking.losses(v, Y), PROBABILITIES),
    "forecasts": ("losses", lambda v: stacking.linear_forecasts(X, v)[0], PROBABILITIES),
    "out_of_fold x": ("x", lambda v: stacking.out_of_fold([Ridge()], v, Y), X),
    "out_of_fold": ("folds", lambda v: stacking.out_of_fold([Ridge()], X, Y, v), FOLDS),
    "predictions": ("x", lambda v: stacking.predictions([lambda x: x[:, 0]], v), X),
    "columns": (
        "gate_columns",
        lambda v: moejax.moe(experts.linear(), gates.softmax(), 2, gate_columns=v).gate_columns,
        FOLDS[:2],
    ),
    "fixed": ("proportions", lambda v: gates.fixed(v).proportions, np.array([0.25, 0.75])),
    "split": ("fractions", lambda v: datasets.split(20, 0, v).train, np.array([0.5, 0.3, 0.2])),
    "plot": ("y", lambda v: plots.true_vs_predicted(v, Y).get_xlim(), Y),
    "MoERegressor X": ("X", lambda v: regressor().fit(v, Y).coef_, X),
    "MoERegressor y": ("y", lambda v: regressor().fit(X, v).coef_, Y),
    "MoERegressor weights": ("sample_weight", lambda v: regressor().fit(X, Y, v).coef_, WEIGHTS),
    "MoEClassifier y": ("y", lambda v: MoEClassifier(2, n_init=1, max_iter=3, random_state=0).fit(X, v).coef_, LABELS),
    "stacked y": ("y", lambda v: stacked().fit(X, v).predict(X), Y),
    "stacked cv": ("folds", lambda v: stacked(cv=v).fit(X, Y).predict(X), FOLDS),
    "ensemble X": ("X", lambda v: ensemble().fit(v, Y).predict(X), X),
    "ensemble start": ("start", lambda v: ensemble().fit(X, Y, start=v).predict(X), SHARES),
}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_of_another_byte_order_count_at_their_value_and_masked_numbers_never(case):
    name, call, array = ARRAYS[case]
    want = np.asarray(call(array))
    swapped = np.asarray(call(array.astype(array.dtype.newbyteorder(">"))))
    np.testing.assert_allclose(swapped, want, rtol=1e-5, atol=1e-5)
    assert swapped.dtype == want.dtype
    np.testing.assert_allclose(np.asarray(call(np.ma.masked_array(array))), want, rtol=1e-5, atol=1e-5)
    masked = np.ma.masked_array(array, np.arange(array.size).reshape(array.shape) % 5 == 0)
    with pytest.raises(ValueError, match=rf"(?<!\w){name}(?!\w).*masked array was given"):
        call(masked)


def test_a_fit_that_runs_does_not_see_what_becomes_of_swapped_arrays():
    x, slopes = X.astype(">f4"), SLOPES.astype(">f4")
    fit = FIT(KEY, x, Y, start_params=with_slopes(slopes))
    x[:], slopes[:] = 0, 0
    np.testing.assert_array_equal(fit.objective, FIT(KEY, X, Y, start_params=PARAMS).objective)


# ---- what a prediction is made from ------------------------------------------------------------------------------------

PREDICTIONS = {
    "predict": lambda p, x, offset=None: MODEL.predict(p, x, offset),
    "expert_predictions": lambda p, x, offset=None: MODEL.expert_predictions(p, x, offset),
    "sample": lambda p, x, offset=None: MODEL.sample(KEY, p, x, offset),
    "log_prob": lambda p, x, offset=None: MODEL.log_prob(p, x, Y, offset),
    "responsibilities": lambda p, x, offset=None: MODEL.responsibilities(p, x, Y, offset),
    "of groups": lambda p, x, offset=None: MODEL.responsibilities(p, x, Y, offset, GROUPS),
    "pooling.predict": lambda p, x, offset=None: pooling.predict(MODEL, p, x, offset=offset),
    "density": lambda p, x, offset=None: pooling.density(MODEL, p, x, Y, offset),
    "quantiles": lambda p, x, offset=None: pooling.quantiles(MODEL, p, x, 0.5, offset),
    "interval": lambda p, x, offset=None: pooling.interval(MODEL, p, x, 0.5, offset),
    "modes": lambda p, x, offset=None: pooling.modes(MODEL, p, x, offset),
    "usage": lambda p, x, offset=None: moejax.usage(MODEL, p, x, Y, offset=offset),
    "score": lambda p, x, offset=None: EM.score(p, x, Y, None, offset),
    "classes": lambda p, x, offset=None: pooling.classes(LABELLED, p, x, offset=offset),
}
HOLED = np.where(np.arange(N) == 3, np.nan, Y)
INPUTS = {
    "NaN": np.where(X[0, 0] == X, np.nan, X),
    "two columns": X[:, :2],
    "four columns": np.hstack([X, X[:, :1]]),
    "one row": X[0],
    "complex": X * 1j,
    "text": "abc",
    "texts": np.full((N, 3), "a"),
    "objects": np.full((N, 3), None),
    "nothing": None,
    "numbers": [1.0, 2.0, 3.0],
    "a mapping": {"a": X},
}
TARGETS = {"NaN": HOLED, "too few": Y[:-1], "text": np.full(N, "a"), "complex": Y * 1j, "objects": np.full(N, None)}
OFFSETS = {**TARGETS, "a row": Y[None]}


def wrong_params(params):
    """Nothing, a fit, params of two columns and of three experts, a table, params of a part, and text."""
    three = moejax.moe(experts.linear(), gates.softmax(), 3, family=MODEL.family)
    text = {**params, "experts": {**params["experts"], "weights": np.full((2, 3), "a")}}
    fit, part = moejax.Fit(params, *[0] * 6), {"experts": params["experts"]}
    return None, fit, MODEL.init(KEY, X[:, :2]), three.init(KEY, X), X, part, text


@pytest.mark.parametrize("call", PREDICTIONS)
def test_predictions_refuse_what_does_not_go_with_the_model(call):
    predict = PREDICTIONS[call]
    params = LABELLED.init(KEY, X) if call == "classes" else PARAMS
    for x in INPUTS.values():
        refused(r"(?<!\w)x(?!\w)", predict, params, x)
    for offset in OFFSETS.values():
        refused(r"^offset: ", predict, params, X, offset)
    for wrong in wrong_params(params):
        refused(r"^params\b", lambda given: predict(given, X), wrong)


@pytest.mark.parametrize("case", TARGETS)
@pytest.mark.parametrize(
    "call",
    [
        lambda y: MODEL.log_prob(PARAMS, X, y),
        lambda y: MODEL.responsibilities(PARAMS, X, y),
        lambda y: pooling.density(MODEL, PARAMS, X, y),
        lambda y: moejax.usage(MODEL, PARAMS, X, y),
        lambda y: EM.score(PARAMS, X, y, None),
    ],
)
def test_targets_of_predictions_are_checked(call, case):
    refused(r"^y: ", call, TARGETS[case])


def test_rows_to_predict_may_be_none_of_one_class_or_traced():
    params = LABELLED.init(KEY, X)
    assert LABELLED.log_prob(params, X, np.ones(N)).shape == (N,)
    assert MODEL.predict(PARAMS, X[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"^y: 0.5 was given"):
        LABELLED.log_prob(params, X, np.full(N, 0.5))
    assert np.isnan(jax.jit(lambda x: MODEL.predict(PARAMS, x))(INPUTS["NaN"])[0])
    assert np.isnan(jax.jit(MODEL.log_prob)(PARAMS, X, HOLED)[3])
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), PARAMS)
    assert jax.vmap(lambda p: MODEL.predict(p, X))(many).shape == (2, N)


def test_whole_numbers_beyond_32_bits_and_numbers_beyond_float32_are_used_as_given_or_refused():
    large = np.arange(N) * 2**33
    np.testing.assert_allclose(MODEL.predict(PARAMS, X, large), MODEL.predict(PARAMS, X, large.astype(np.float32)))
    table = large[:, None] * np.ones(3, int)
    np.testing.assert_allclose(MODEL.predict(PARAMS, table), MODEL.predict(PARAMS, table.astype(np.float32)), rtol=1e-5)
    beyond = X.astype(float) * 1e39
    refused("^x: .* beyond float32", MODEL.predict, PARAMS, beyond)
    refused("^x: .* beyond float32", FIT, KEY, beyond, Y)
    refused("^y: .* beyond float32", FIT, KEY, X, Y.astype(float) * 1e39)
    refused(r"^hyper\['l2_gate'\]: .* beyond float32", FIT, KEY, X, Y, {"l2_gate": 1e39})


def test_params_of_a_fit_that_diverged_predict_nan_and_those_of_fewer_experts_are_taken():
    assert np.isnan(MODEL.predict(with_slopes(SLOPES * np.nan), X)).all()
    assert MODEL.predict(FIT(KEY, X, Y, {"n_experts": 1}).params, X).shape == (N,)


def test_experts_that_jax_cannot_trace_predict_all_the_same():
    model = moejax.moe(experts.functions([lambda x: np.asarray(x)[:, 0], lambda x: np.asarray(x)[:, 1]]), gates.fixed(), 2)
    np.testing.assert_allclose(model.predict(model.init(KEY, X), X), X[:, :2].mean(axis=1), rtol=1e-5, atol=1e-6)


# ---- objects -----------------------------------------------------------------------------------------------------------


def objects(kind, array):
    return np.array([kind(repr(float(v))) for v in array.ravel()], object).reshape(array.shape)


@pytest.mark.parametrize("make", [regressor, stacked, ensemble])
@pytest.mark.parametrize("kind", [float, Decimal, Fraction])
def test_regressors_take_objects_that_are_numbers(make, kind):
    x, y, weights = (objects(kind, v.astype(float)) for v in (X, Y, WEIGHTS))
    fitted, want = make().fit(x, y, weights), make().fit(X.astype(float), Y.astype(float), WEIGHTS.astype(float))
    np.testing.assert_allclose(fitted.predict(x), want.predict(X.astype(float)), rtol=1e-6)
    assert fitted.score(x, y, weights) == pytest.approx(want.score(X.astype(float), Y.astype(float), WEIGHTS))


@pytest.mark.parametrize("make", [regressor, stacked, ensemble])
@pytest.mark.parametrize("wrong", [None, {}, "a", "1.5", 1j])
def test_regressors_refuse_objects_that_are_none_by_name(make, wrong):
    x, y = X.astype(object), Y.astype(object)
    x[1, 0] = y[1] = wrong
    fitted = make().fit(X, Y)
    calls = [("X", lambda: make().fit(x, Y)), ("X", lambda: fitted.predict(x)), ("y", lambda: make().fit(X, y))]
    for name, call in [*calls, ("y", lambda: fitted.score(X, y)), ("sample_weight", lambda: make().fit(X, Y, y))]:
        refused(rf"(?<!\w){name}(?!\w)", lambda _, call=call: call(), wrong)


# ---- flags -------------------------------------------------------------------------------------------------------------


class Own:
    """A gate of one's own, whose flag is given."""

    def __init__(self, models_inputs):
        self.models_inputs = models_inputs

    def init(self, key, n_experts, x):
        return {}

    def log_probs(self, params, x):
        return jnp.zeros((2, x.shape[0]))


FLAGS = {
    "optimize": lambda v: moejax.sweep(FIT, {"restart": 2}, optimize=v),
    "progress": lambda v: moejax.sweep(FIT, {"restart": 2}, progress=v),
    "proximal": lambda v: moejax.fit_gradient(MODEL, proximal=v),
    "softmax reference": lambda v: gates.softmax(reference=v),
    "top1 reference": lambda v: gates.top1(reference=v),
    "top_k reference": lambda v: gates.top_k(1, reference=v),
    "gaussian shared_scale": lambda v: families.gaussian(shared_scale=v),
    "student_t shared_scale": lambda v: families.student_t(shared_scale=v),
    "shared_shape": lambda v: families.gamma(shared_shape=v),
    "joint": lambda v: losses.complete_nll(joint=v),
    "three_regressions shared_active": lambda v: datasets.three_regressions(0, shared_active=v),
    "softmax_regressions shared_active": lambda v: datasets.softmax_regressions(0, shared_active=v),
    "indicators": lambda v: datasets.read_csv(datasets.data_path("diabetes.csv"), "progression", indicators=v),
    **{
        f"estimator {name}": lambda v, name=name: regressor(**{name: v})._check_settings()
        for name in ("gate_reference", "shared_scale", "standardize", "standardize_y")
    },
    "classifier standardize": lambda v: MoEClassifier(standardize=v)._check_settings(),
    "classifier gate_reference": lambda v: MoEClassifier(gate_reference=v)._check_settings(),
    "ensemble progress": lambda v: ensemble().set_params(progress=v).fit(X, Y),
    "models_inputs": lambda v: moejax.fit_em(moejax.moe(experts.linear(), Own(v), 2, family=families.gaussian())),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flags_are_true_or_false_and_nothing_else(case):
    name = case.split()[-1]
    for wrong in ("False", "no", "", 2, 0, 1.0, np.nan, np.array(True), []):
        refused(rf"(?<!\w){name}: .* was given; want True or False", FLAGS[case], wrong)
    FLAGS[case](np.False_)


# ---- the whole public surface ------------------------------------------------------------------------------------------

STAGES = {"free": 1, "checked": 4}  # of which one call of so many is made here, and all by benchmarks/hostile.py
LEAST = 5000  # calls


def test_every_public_name_is_in_the_table_of_hostile_calls_or_said_not_to_be():
    assert not hostile_doors.missing()
    named = [name for names in hostile_doors.UNCALLED.values() for name in names]
    assert len(set(named)) == len(named)
    tabled = {door.name for door in hostile.doors()}
    assert not tabled & set(named)
    for name in (*tabled, *named):
        hostile_doors.found(name)  # raises AttributeError for what is not public


def test_right_arguments_are_right():
    assert not [said for door in hostile.doors() if door.stage == "free" for said in [hostile.wrong(door)] if said]


def test_every_argument_refuses_hostile_values_by_name_or_takes_them_at_their_value():
    parts = [itertools.islice(hostile.calls((stage,)), None, None, every) for stage, every in STAGES.items()]
    chosen = list(itertools.chain(*parts))
    assert len(chosen) > LEAST
    found = hostile.faults(chosen)
    assert not found, f"{len(found)} of {len(chosen)} calls: " + "\n".join(found[:20])


FAULTY = {
    "taken": lambda value: 1.0,
    "silent NaN": lambda value: float("nan"),
    "inner": lambda value: float(value),
    "refused": lambda value: _checks.number("value", value),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_outcomes_are_told_apart(kind):
    door = hostile_doors.Door("door", FAULTY[kind], {"value": ("number", 1.0)})
    call = hostile.Call(door, "value", hostile_values.Value("text", "abc", kind != "silent NaN"))
    assert hostile.outcome(call)[0] == kind


def test_a_fit_that_diverges_is_flagged_and_one_that_hides_it_is_not():
    fit = moejax.Fit({}, *[jnp.asarray(jnp.nan)] * 5, jnp.asarray(int(moejax.Status.DIVERGED)))
    value = hostile_values.Value("1", 1.0, False)
    flagged = hostile_doors.Door("door", lambda value: fit, {"value": ("number", 1.0)})
    assert hostile.outcome(hostile.Call(flagged, "value", value))[0] == "flagged"
    silent = flagged._replace(call=lambda value: fit._replace(status=jnp.asarray(0)))
    assert hostile.outcome(hostile.Call(silent, "value", value))[0] == "silent NaN"


# ---- JAX's settings for debugging --------------------------------------------------------------------------------------

PATIENT = moejax.fit_gradient(MODEL, losses.nll(), steps=3, patience=1)
DEBUGGED = {
    "EM": lambda: EM(KEY, X, Y).objective,
    "gradient": lambda: FIT(KEY, X, Y, {"l1_experts": 0.1}).objective,
    "patience": lambda: PATIENT(KEY, X, Y).objective,
    "sweep": lambda: swept({"l2_gate": [0.1], "fold": 2}).held_out,
    "path": lambda: moejax.path(FIT)(KEY, X, Y, {"l1_experts": [0.1, 0.2]}).objective,
    "predict": lambda: MODEL.predict(PARAMS, X),
    "modes": lambda: pooling.modes(MODEL, PARAMS, X).density[:, 0],
}


@pytest.mark.parametrize("case", DEBUGGED)
@pytest.mark.parametrize("setting", ["debug_nans", "disable_jit"])
def test_settings_for_debugging_change_no_result(setting, case):
    want = np.asarray(DEBUGGED[case]())
    with getattr(jax, setting)(True):
        found = np.asarray(DEBUGGED[case]())
    np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-5)
