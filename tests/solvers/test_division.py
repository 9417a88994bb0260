"""Divisions of the rows and of the columns: closed forms, brute force, other packages, and what is refused."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

import moejax
from moejax import Status, division, experts, families, gates, losses

pytestmark = pytest.mark.usefixtures("float64")

N, D, K = 60, 4, 2
KEY = jax.random.key(3)
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, D))
LABELS = (X[:, 0] + 0.5 * RNG.normal(size=N) > 0).astype(int)
Y = np.where(LABELS == 1, 2 * X[:, 1] + 1, -X[:, 2] - 1) + 0.3 * RNG.normal(size=N)
SHARES = 0.8 * np.eye(K)[LABELS] + 0.2 * RNG.dirichlet(np.ones(K), N)
CASES = RNG.integers(0, 4, N).astype(float)
TWISTED = (X[:, 3] > 0).astype(int)  # a division that has nothing to do with y
COLUMNS = [(0, 1), (2, 3)]
L2 = 0.05


def model_of(gate, **options):
    return moejax.moe(experts.linear(), gate, K, **{"family": families.gaussian(), **options})


HELD = moejax.fit_em(model_of(gates.softmax(reference=True)), losses.complete_nll(), record_every=1)


def least_squares(r, cases, columns=None):
    """Coefficients, intercept and mean squared error of each expert's weighted regression, and its share of the weight."""
    found = []
    for k in range(K):
        own = np.arange(D) if columns is None else list(columns[k])
        w = r[:, k] * cases
        rows = np.column_stack([X[:, own], np.ones(N)]) * np.sqrt(w)[:, None]
        solution = np.linalg.lstsq(rows, np.sqrt(w) * Y, rcond=None)[0]
        weights = np.zeros(D)
        weights[own] = solution[:-1]
        error = np.square(Y - X @ weights - solution[-1])
        found.append((weights, solution[-1], w @ error / w.sum(), w.sum() / cases.sum()))
    return [np.array(v) for v in zip(*found, strict=True)]


# ---- divisions of rows -----------------------------------------------------------------------------------------------


def test_by_distance_is_k_means():
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    found = np.asarray(division.by_distance(KEY, X, 3, tries=20))
    assert set(np.unique(found)) == {0, 1}
    assert (found.sum(axis=1) == 1).all()
    centres = (found.T @ z) / found.sum(axis=0)[:, None]
    within = np.square(z - found @ centres).sum()
    assert within <= 1.001 * KMeans(3, n_init=20, random_state=0).fit(z).inertia_
    many = jax.jit(jax.vmap(lambda key, x: division.by_distance(key, x, 3, tries=20)))(KEY[None], X[None])
    np.testing.assert_array_equal(many[0], found)


@pytest.mark.parametrize("seed", range(3))
def test_outliers_are_those_of_the_best_regression_of_all(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(10, 1)), rng.standard_t(1, size=(10, 1))

    def trimmed(kept):
        rows = np.column_stack([x, np.ones(10)])[list(kept)]
        return np.square(y[list(kept)] - rows @ np.linalg.lstsq(rows, y[list(kept)], rcond=None)[0]).sum()

    best = min(itertools.combinations(range(10), 7), key=trimmed)
    found = np.asarray(division.inliers(KEY, x, y[:, 0], share=0.3))
    assert set(np.flatnonzero(found[:, 0])) == set(best)
    np.testing.assert_array_equal(found.sum(axis=1), 1)


def test_a_rule_gives_labels_or_memberships_that_overlap():
    np.testing.assert_array_equal(division.by_rule(lambda x: LABELS, X, K), np.eye(K)[LABELS])
    both = np.column_stack([np.ones(N), X[:, 0] > 0])
    want = np.where(X[:, :1] > 0, 0.5, [[1.0, 0.0]])
    np.testing.assert_allclose(division.by_rule(lambda x: both, X, K), want)


def swept(divisions, fit=HELD, **more):
    return moejax.sweep(fit, {"division": divisions}, progress=False)(KEY, X, Y, **more)


GAP = np.eye(K)[LABELS] * (np.arange(N) != 7)[:, None]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: division.by_rule(lambda x: GAP, X, K), "rule: row 7 is in no division"),
        (lambda: division.by_rule(lambda x: LABELS + 1, X, K), "rule: .*want whole numbers from 0 to 1"),
        (lambda: division.by_rule(lambda x: LABELS[:5], X, K), r"rule: shape \(5,\) was given; want \(60,\)"),
        (lambda: division.by_rule(lambda x: np.ones((N, 3)), X, K), r"rule: shape \(60, 3\) was given; want \(60, 2\)"),
        (lambda: division.by_rule(lambda x: -SHARES, X, K), "rule: .*want no number below 0"),
        (lambda: division.by_distance(KEY, X[0], K), r"x: shape \(4,\) was given"),
        (lambda: division.by_distance(KEY, X, 0), "n_experts: 0 was given"),
        (lambda: division.inliers(KEY, X, Y[:5]), r"y: shape \(5,\) was given"),
        (lambda: division.inliers(KEY, X, Y, share=0.6), "share: 0.6 of 60 rows was given"),
        (lambda: division.inliers(KEY, X, Y, share=0.001), "share: 0.001 of 60 rows was given"),
        (lambda: HELD(KEY, X, Y), "start: nothing was given"),
        (lambda: HELD(KEY, X, Y, start=HELD.model.init(KEY, X)), "start: params were given"),
        (lambda: HELD(KEY, X, Y, start=np.where(SHARES > 0.9, np.nan, SHARES)), "start: .*are NaN"),
        (lambda: HELD(KEY, X, Y, start=lambda x: GAP), "start: row 7 is in no division"),
        (lambda: moejax.fit_em(HELD.model, losses.complete_nll(joint=True)), "loss: .*EM lowers"),
        (lambda: swept({}), "axes.*division.*want at least one division"),
        (lambda: swept(SHARES), "axes.*division.*ndarray was given"),
        (lambda: swept({1: SHARES}), "axes.*division.*want strings"),
        (lambda: swept({"a": SHARES, "b": None}), r"axes\['division'\]\['b'\]: NoneType was given"),
        (lambda: swept({"a": SHARES}, start=SHARES), "start: given beside the axis 'division'"),
        (lambda: swept({"a": SHARES, "b": np.ones((N, 3)) / 3}), r"axes\['division'\]\['b'\]: shape \(60, 3\)"),
        (lambda: swept({"a": SHARES, "b": lambda x: GAP}), r"axes\['division'\]\['b'\]: row 7 is in no"),
        (lambda: moejax.sweep(lambda *a, **b: 0, {"division": [SHARES]})(KEY, X, Y), "fit: .* has no model"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- as an axis of a sweep, where they are held ----------------------------------------------------------------------

DIVISIONS = {"distance": lambda x: division.by_distance(KEY, x, K), "labels": SHARES, "twisted": lambda x: TWISTED}
FOLD = np.arange(N) % 3


def of_folds(divisions):
    """One program for all of these tests, as long as divisions are three."""
    axes = {"division": divisions, "l2_gate": [L2, 1.0], "fold": FOLD}
    return moejax.sweep(HELD, axes, chunk_size=4, progress=False)(KEY, X, Y, weights=CASES)


@pytest.fixture(scope="module")
def grid(float64):
    return of_folds(DIVISIONS)


@pytest.mark.parametrize(("name", "r"), [("labels", SHARES), ("twisted", np.eye(K)[TWISTED])])
def test_held_responsibilities_make_regressions_of_their_own(grid, name, r):
    held, cases = grid.sel(division=name, l2_gate=L2, fold=1).fits, CASES * (FOLD != 1)
    weights, intercept, variance, _ = least_squares(r, cases)
    assert held.status == Status.CONVERGED
    np.testing.assert_allclose(held.params["experts"]["weights"], weights, atol=1e-6)
    np.testing.assert_allclose(held.params["experts"]["intercept"], intercept, atol=1e-6)
    np.testing.assert_allclose(np.exp(2 * held.params["family"]["log_scale"]), variance, rtol=1e-5)
    # The gate is a logistic regression in which each row counts for both experts, by its responsibilities.
    own = cases[:, None] * r
    logistic = LogisticRegression(C=1 / (2 * L2 * cases.sum()), tol=1e-10, max_iter=1000)
    logistic.fit(np.tile(X, (2, 1)), np.repeat([1, 0], N), sample_weight=own.T.ravel())
    np.testing.assert_allclose(held.params["gate"]["weights"], logistic.coef_, atol=1e-4)
    gate = logistic.predict_log_proba(X)[:, ::-1]
    each = gate - 0.5 * np.log(2 * np.pi * variance)
    complete = (own * each).sum() - 0.5 * cases.sum()  # squared errors over variances add up to the weight
    want = -complete / cases.sum() + L2 * np.square(logistic.coef_).sum()
    assert held.objective == pytest.approx(want, abs=1e-7)
    history = held.history[np.isfinite(held.history)]
    assert (np.diff(history) <= 1e-12).all()


def test_gradient_steps_on_the_same_loss_end_there(grid):
    fit = moejax.fit_gradient(HELD.model, losses.complete_nll(), "accelerated", steps=300)
    got = fit(KEY, X, Y, {"l2_gate": L2}, weights=CASES * (FOLD != 1), start=SHARES)
    held = grid.sel(division="labels", l2_gate=L2, fold=1).fits
    assert got.objective == pytest.approx(float(held.objective), abs=1e-6)


def test_the_division_that_made_the_target_is_chosen_by_name(grid, tmp_path):
    assert grid.shape == (3, 2, 3)
    best = moejax.select(grid)
    assert best.chosen["division"] == "labels"
    weights, _, _, _ = least_squares(SHARES, CASES)
    np.testing.assert_allclose(best.params["experts"]["weights"], weights, atol=1e-6)
    assert list(np.unique(best.table["division"])) == sorted(DIVISIONS)
    grid.to_csv(tmp_path / "grid.csv")
    assert (tmp_path / "grid.csv").read_text().count("twisted") == 6
    with pytest.raises(KeyError, match="'other' is not on this axis"):
        grid.sel(division="other")


def test_a_member_has_the_same_bits_whatever_the_order_of_the_divisions(grid):
    again = of_folds(dict(reversed(DIVISIONS.items())))
    for name in DIVISIONS:
        jax.tree.map(np.testing.assert_array_equal, again.sel(division=name).fits, grid.sel(division=name).fits)


def test_divisions_without_names_are_numbered_and_a_part_that_a_fold_empties_is_told():
    few = ((FOLD == 0) & (np.arange(N) < 12)).astype(int)
    result = of_folds([SHARES, lambda x: few, lambda x: TWISTED])
    assert list(result.axes["division"]) == [0, 1, 2]
    status = result.fits.status[:, 0]
    assert status[1, 0] & Status.STARVED_EXPERT  # its rows are those held out in fold 0
    assert (status[[0, 2]] == Status.CONVERGED).all()
    assert np.isfinite(result.fits.objective).all()
    assert np.isfinite(result.held_out).all()


# ---- as starts -------------------------------------------------------------------------------------------------------


def test_a_gradient_fit_begins_where_each_expert_is_the_regression_of_its_rows():
    still = moejax.fit_gradient(moejax.moe(experts.linear(), gates.softmax(), K), steps=1, learning_rate=1e-30)
    got = still(KEY, X, 100 * Y, weights=CASES, start=lambda x: SHARES)
    weights, intercept, _, share = least_squares(SHARES, CASES)
    np.testing.assert_allclose(got.params["experts"]["weights"], 100 * weights, atol=0.1)
    np.testing.assert_allclose(got.params["experts"]["intercept"], 100 * intercept, atol=0.1)
    gate = np.asarray(still.model.gate_probs(got.params, X))
    cross_entropy = -(CASES[:, None] * SHARES * np.log(gate)).sum() / CASES.sum()
    assert cross_entropy < -0.95 * share @ np.log(share)  # that of a gate that sees no input


def test_paths_within_a_sweep_begin_at_each_division():
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    path = moejax.path(moejax.fit_gradient(model, losses.nll(), "accelerated", steps=40, record_every=40))
    axes = {"division": {"labels": SHARES, "twisted": lambda x: TWISTED}, "l1_experts": [0.2, 0.02], "l2_gate": [L2]}
    both = moejax.sweep(path, axes, progress=False)(KEY, X, Y)
    for name, r in (("labels", SHARES), ("twisted", np.eye(K)[TWISTED])):
        first = both.sel(division=name, l1_experts=0.02, l2_gate=L2).fits  # a path of a mixture begins with the smallest
        weights, _, variance, share = least_squares(r, np.ones(N))
        complete = share @ (0.5 * np.log(2 * np.pi * variance) + 0.5 - np.log(share))
        assert first.history[0] < complete + 0.02 * np.abs(weights).sum()  # where the fit of held responsibilities is
        assert both.sel(division=name, l1_experts=0.2, l2_gate=L2).fits.objective > first.objective
    begun = both.fits.history[:, 1, 0, 0]
    assert begun[0] < begun[1]  # the one that made the target explains it


# ---- divisions of columns --------------------------------------------------------------------------------------------


CHOICES = [COLUMNS, [(1, 3), (2,)], [(0, 1, 2, 3), (2, 3)]]


def of_columns(x, y, start=SHARES):
    """One program for all tests of linear experts."""
    expert = experts.by_columns(experts.linear(), CHOICES)
    fit = moejax.fit_em(moejax.moe(expert, gates.constant(), K, family=families.gaussian()), losses.complete_nll())
    return moejax.sweep(fit, {"columns": [0, 1, 2], "fold": FOLD}, progress=False)(KEY, x, y, weights=CASES, start=start)


@pytest.fixture(scope="module")
def by_columns(float64):
    return of_columns(X, Y)


@pytest.mark.parametrize("choice", [0, 1])
def test_each_expert_is_a_regression_on_its_own_columns(by_columns, choice):
    got, own = by_columns.sel(columns=choice, fold=2).fits, CHOICES[choice]
    weights, intercept, variance, share = least_squares(SHARES, CASES * (FOLD != 2), own)
    np.testing.assert_allclose(got.params["experts"]["weights"], weights, atol=1e-6)
    np.testing.assert_allclose(got.params["experts"]["intercept"], intercept, atol=1e-6)
    assert all(not np.delete(got.params["experts"]["weights"][k], own[k]).any() for k in range(K))
    want = -share @ (np.log(share) - 0.5 * np.log(2 * np.pi * variance) - 0.5)
    assert got.objective == pytest.approx(want, abs=1e-7)
    assert got.degrees_of_freedom == sum(map(len, own)) + K + K + K - 1  # intercepts, scales and proportions
    assert got.status == Status.CONVERGED


def test_columns_are_collinear_only_where_one_expert_sees_them():
    repeated = of_columns(np.column_stack([X[:, :3], X[:, 0]]), Y).fits.status
    assert (repeated[0] == Status.CONVERGED).all()
    assert (repeated[2] & Status.RANK_DEFICIENT > 0).all()


def test_the_best_division_of_columns_is_chosen():
    y = np.where(LABELS == 0, 2 * X[:, 1] + X[:, 3], -X[:, 2]) + 0.3 * np.random.default_rng(0).normal(size=N)
    best = moejax.select(of_columns(X, y, np.eye(K)[LABELS]))
    assert best.chosen == {"columns": 1}
    assert not best.params["experts"]["weights"][0, [0, 2]].any()


def one_init(key, x):
    return {"slopes": jax.random.normal(key, x.shape[1:]), "bias": jnp.zeros(())}


def one_apply(params, x):
    return x @ params["slopes"] + params["bias"]


def slopes_alone(params):
    return {"slopes": True, "bias": False}


def test_other_experts_see_zeros_in_the_place_of_other_columns():
    line = moejax.moe(experts.linear(), gates.softmax(), K, expert_columns=COLUMNS)
    other = moejax.moe(experts.stack(one_init, one_apply), gates.softmax(), K, expert_columns=COLUMNS)
    params = other.init(KEY, X)
    slopes = params["experts"]["slopes"]
    of_lines = {**params, "experts": {"weights": slopes, "intercept": params["experts"]["bias"]}}
    seen = np.zeros((K, D))
    seen[0, [0, 1]] = seen[1, [2, 3]] = 1
    want = X @ (seen * np.asarray(slopes)).T
    np.testing.assert_allclose(other.expert_predictions(params, X), want, atol=1e-12)
    np.testing.assert_allclose(line.expert_predictions(of_lines, X), want, atol=1e-12)
    got = moejax.fit_gradient(line, steps=5, learning_rate=0.1)(KEY, X, Y).params["experts"]["weights"]
    np.testing.assert_array_equal(np.asarray(got) != 0, seen == 1)


def test_choices_for_experts_of_ones_own_are_a_number_in_params():
    expert = experts.by_columns(experts.stack(one_init, one_apply, penalized=slopes_alone), [COLUMNS, [(3,), (0, 1)]])
    model = moejax.moe(expert, gates.constant(), K, family=families.gaussian())
    params = model.with_hyper(model.init(KEY, X), {"columns": 1})
    slopes = np.asarray(params["experts"]["slopes"])
    want = np.column_stack([X[:, 3] * slopes[0, 3], X[:, :2] @ slopes[1, :2]])
    np.testing.assert_allclose(model.expert_predictions(params, X), want, atol=1e-12)
    assert model.trainable(params)["experts"] == {"slopes": True, "bias": True, "columns": False}
    assert model.penalized(params)["experts"] == {"slopes": True, "bias": False, "columns": False}
    got = moejax.fit_em(model, max_iter=20, record_every=1)(KEY, X, Y, {"columns": 1}, start=SHARES)
    assert got.params["experts"]["columns"] == 1
    assert (np.diff(got.history[np.isfinite(got.history)]) <= 1e-9).all()
    assert got.objective < got.history[0] - 0.1


def tuples(key, x):
    return (jnp.zeros(x.shape[1]),)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model_of(gates.constant(), expert_columns=[(0, 1)]), "expert_columns: columns of 1 experts were given"),
        (lambda: model_of(gates.constant(), expert_columns=[(0, 1), ()]), "expert_columns: .*at least one column index"),
        (lambda: model_of(gates.constant(), expert_columns=[(0, 1), (2, 2)]), "expert 1, none negative or repeated"),
        (lambda: model_of(gates.constant(), expert_columns=[(0, 1), (-2,)]), "expert 1, none negative or repeated"),
        (lambda: model_of(gates.constant(), expert_columns=[(0, 1), 2]), "expert 1, none negative or repeated"),
        (
            lambda: model_of(gates.constant(), expert_columns=[(0, 1), (7,)]).init(KEY, X),
            "column 7 was given; want .* below 4",
        ),
        (lambda: experts.by_columns(experts.linear(), []), "choices: none was given"),
        (lambda: experts.by_columns(experts.linear(), [COLUMNS, [(0,)]]), r"choices\[1\]: columns of 1 experts"),
        (
            lambda: experts.by_columns(experts.by_columns(experts.linear(), [COLUMNS]), [COLUMNS]),
            "columns of its own already",
        ),
        (
            lambda: experts.by_columns(experts.stack(tuples, one_apply), [COLUMNS, COLUMNS]).init(KEY, K, X),
            "params of type tuple",
        ),
        (lambda: columns_of(2), r"hyper\['columns'\]: .*from 0 to 1"),
    ],
)
def test_columns_that_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def columns_of(number):
    expert = experts.by_columns(experts.linear(), [COLUMNS, COLUMNS])
    moejax.sweep(
        moejax.fit_em(moejax.moe(expert, gates.constant(), K, family=families.gaussian())), {"columns": [0, number]}
    )


@pytest.mark.parametrize(
    ("expert", "message"),
    [
        (experts.tied(2), "^expert: .* has a distribution of coefficients"),
        (experts.predictions(), "^expert: params of shapes .. in divided columns"),
        (experts.functions([jnp.sum, jnp.sum]), "^expert: params of shapes .. in divided columns"),
    ],
)
def test_columns_are_divided_among_experts_that_have_their_params_first(expert, message):
    with pytest.raises(ValueError, match=message):
        moejax.moe(expert, gates.constant(), 2, expert_columns=[(0,), (1,)]).init(KEY, jnp.asarray(X[:, :2]))
