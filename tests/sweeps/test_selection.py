"""Selection from numbers written by hand, and a refit against lone fits on all rows."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import moejax
from moejax.fit import Fit, Status
from moejax.selection import ChoiceWarning
from moejax.sweeps import _program

N = 12
X, Y = np.arange(2.0 * N).reshape(N, 2), np.arange(1.0 * N)
KEY = jax.random.key(0)
FOLDS = np.array([0] * 6 + [1] * 3 + [2] * 3)
CONVERGED, DEGENERATE, FLOOR, DIVERGED, RUNNING = (
    int(s) for s in (Status.CONVERGED, Status.DEGENERATE_EXPERT, Status.SCALE_AT_FLOOR, Status.DIVERGED, Status.OUT_OF_STEPS)
)


def stub(key, x, y, hyper, weights=None):
    """A solver that tells what it was given; on all rows its best start is number 1."""
    weights = jnp.ones(len(y)) if weights is None else weights
    restart = hyper.get("restart", jnp.zeros((), jnp.int32))
    objective = jnp.abs(restart - 1) + 0.5
    one = jnp.ones(())
    return Fit({"hyper": hyper, "weights": weights}, objective, one, jnp.ones(2), one, one, jnp.asarray(CONVERGED))


def made(axes, objective, held_out=None, status=CONVERGED, weights=None):
    """A sweep with the numbers given, in the place of those that `stub` returned."""
    result = moejax.sweep(stub, axes, chunk_size=4)(KEY, X, Y, weights=weights)
    fits = result.fits._replace(
        objective=np.broadcast_to(np.asarray(objective, float), result.shape),
        status=np.broadcast_to(np.asarray(status), result.shape),
    )
    held_out = None if held_out is None else np.broadcast_to(np.asarray(held_out, float), result.shape)
    return dataclasses.replace(result, fits=fits, held_out=held_out)


TUNED = {"l1": [0.1, 0.2], "fold": 3}
ONE = {"l1": [0.1, 0.2], "restart": [3, 5, 7], "fold": np.where(np.arange(N) < 4, 0, -1)}


def one_fold(objective, held_out, status=CONVERGED):
    """Of two penalties and three restarts, given as (2, 3)."""
    objective, held_out, status = (np.asarray(v)[..., None] if np.ndim(v) else v for v in (objective, held_out, status))
    return made(ONE, objective, held_out, status)


# ---- choosing -------------------------------------------------------------------------------------------------------

OBJECTIVE = [[3.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
HELD_OUT = [[0.1, 5.0, 0.2], [4.0, 0.0, 9.0]]  # of the restarts that the objective prefers: 5.0 and 4.0
CHOICES = [
    # status, held out, penalty chosen, restart chosen
    (CONVERGED, HELD_OUT, 0.2, 3),
    (CONVERGED, [[0.1, 3.0, 0.2], [4.0, 0.0, 9.0]], 0.1, 5),
    ([[CONVERGED] * 3, [DEGENERATE, CONVERGED, CONVERGED]], HELD_OUT, 0.2, 5),
    ([[CONVERGED] * 3, [FLOOR | CONVERGED, DIVERGED, CONVERGED]], HELD_OUT, 0.2, 3),
    ([[CONVERGED, RUNNING, CONVERGED], [RUNNING, RUNNING, CONVERGED]], HELD_OUT, 0.1, 7),
    ([[DEGENERATE, DEGENERATE | CONVERGED, RUNNING], [DIVERGED] * 3], HELD_OUT, 0.1, 7),
    ([[CONVERGED] * 3, [DEGENERATE] * 3], [[8.0] * 3, [0.0] * 3], 0.1, 5),
    ([[DIVERGED, DIVERGED, int(Status.OUT_OF_STEPS)], [DEGENERATE] * 3], HELD_OUT, 0.1, 7),
    (int(Status.SEPARATED_GATE | Status.RANK_DEFICIENT | Status.OUT_OF_STEPS), HELD_OUT, 0.2, 3),
    (CONVERGED, [[0.1, np.nan, 0.2], [4.0, 0.0, 9.0]], 0.2, 3),
]


@pytest.mark.parametrize(("status", "held_out", "penalty", "restart"), CHOICES)
def test_restarts_by_objective_and_penalties_by_held_out_loss(status, held_out, penalty, restart):
    selection = moejax.select(one_fold(OBJECTIVE, held_out, status), refit=False)
    assert selection.chosen == {"l1": penalty}
    assert selection.restart == restart
    assert selection.params["hyper"]["restart"] == restart
    np.testing.assert_allclose(selection.params["hyper"]["l1"], penalty, rtol=1e-6)
    i, j = ONE["l1"].index(penalty), ONE["restart"].index(restart)
    assert selection.fit.objective == OBJECTIVE[i][j]
    assert selection.refit is None


def test_a_fit_without_a_finite_objective_is_not_chosen():
    selection = moejax.select(one_fold([[np.nan, 1.0, 2.0], [-np.inf, 3.0, 4.0]], HELD_OUT), refit=False)
    assert (selection.chosen, selection.restart) == ({"l1": 0.2}, 5)
    with pytest.raises(
        RuntimeError, match="no combination has a finite fit in every fold: 6 of 6 not finite in the objective; want"
    ):
        moejax.select(one_fold(np.nan, HELD_OUT), refit=False)


AXES = {"fold": FOLDS, "l1": [0.1, 0.2], "restart": 3}
LOSSES = np.array([[1.0, 2.0], [4.0, 2.5], [7.0, 3.0]])  # fold by penalty: plain means 4.0 and 2.5


@pytest.mark.parametrize("case_weights", [None, np.where(FOLDS == 0, 1.0, np.where(FOLDS == 1, 2.0, 6.0))])
def test_held_out_mean_weighs_rows_and_has_the_standard_error_of_the_formula(case_weights):
    result = made(AXES, [3.0, 1.0, 2.0], np.stack([LOSSES * 0, LOSSES, LOSSES * 0], axis=-1), weights=case_weights)
    table = moejax.select(result).table
    share = np.array([6, 3, 3]) / 12 if case_weights is None else np.array([6, 6, 18]) / 30
    mean = (share[:, None] * LOSSES).sum(axis=0)
    np.testing.assert_allclose(table["held_out"], mean, rtol=1e-12)
    variance = (share[:, None] * (LOSSES - mean) ** 2).sum(axis=0) / 2
    np.testing.assert_allclose(table["standard_error"], np.sqrt(variance), rtol=1e-12)


def test_standard_error_of_equal_folds_is_that_of_a_mean():
    axes = {**AXES, "fold": np.arange(N) % 3}
    table = moejax.select(made(axes, 1.0, LOSSES[..., None])).table
    np.testing.assert_allclose(table["standard_error"], LOSSES.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-12)


def test_rows_and_not_folds_decide():
    # By folds the second penalty is better, 2.5 against 3.0; by rows the first, 2.25 against 2.5.
    losses = np.array([[0.0, 2.5], [4.0, 2.5], [5.0, 2.5]])
    assert moejax.select(made(AXES, 1.0, losses[..., None])).chosen == {"l1": 0.1}
    equal = {**AXES, "fold": np.arange(N) % 3}
    assert moejax.select(made(equal, 1.0, losses[..., None])).chosen == {"l1": 0.2}


def test_table_has_a_row_for_each_combination():
    axes = {"l1": [0.1, 0.2], "fold": FOLDS, "restart": [4, 9], "l2": [1.0, 2.0, 3.0]}
    rng = np.random.default_rng(0)
    objective, held_out = rng.uniform(size=(2, 2, 3, 2, 3))
    status = np.full(objective.shape, CONVERGED)
    status[0, 1, 0, 2] = DEGENERATE
    status[1, 2, :, 1] = DIVERGED
    selection = moejax.select(made(axes, objective, held_out, status))
    table = selection.table
    names = ["held_out", "standard_error", "difference", "difference_se", "objective", "restart", "admissible"]
    assert list(table) == ["l1", "l2", *names, "chosen"]
    assert {len(column) for column in table.values()} == {6}
    losses = []
    for row in range(6):
        i, k = divmod(row, 3)
        assert (table["l1"][row], table["l2"][row]) == (axes["l1"][i], axes["l2"][k])
        fits = [
            [(objective[i, f, r, k], held_out[i, f, r, k], r) for r in (0, 1) if status[i, f, r, k] == 1] for f in range(3)
        ]
        assert table["admissible"][row] == pytest.approx(sum(map(len, fits)) / 6)
        if (i, k) == (1, 1):
            assert np.isnan(table["held_out"][row])
            assert np.isinf(table["objective"][row])
            continue
        best = [min(f) for f in fits]
        losses.append(np.average([b[1] for b in best], weights=[6, 3, 3]))
        assert table["held_out"][row] == pytest.approx(losses[-1])
        assert table["objective"][row] == pytest.approx(np.mean([b[0] for b in best]))
        assert table["restart"][row] == axes["restart"][best[-1][2]]
    assert table["chosen"].sum() == 1
    assert table["held_out"][table["chosen"]] == pytest.approx(min(losses))
    assert selection.chosen == {name: table[name][table["chosen"]].item() for name in ("l1", "l2")}


def test_restarts_alone_need_no_fold():
    selection = moejax.select(made({"restart": [3, 5, 7]}, [2.0, 1.0, 3.0]))
    assert (selection.chosen, selection.restart, selection.refit) == ({}, 5, None)
    assert selection.fit.objective == 1.0
    assert selection.table["objective"].tolist() == [1.0]
    assert np.isnan(selection.table["held_out"]).all()  # there is none, and an objective is no substitute
    assert moejax.select(made({"l1": [0.3]}, 1.0)).chosen == {"l1": 0.3}


# ---- within one standard error --------------------------------------------------------------------------------------

FOUR = {"l1": [0.1, 0.2, 0.3, 0.4], "fold": FOLDS}
# Fold by penalty. The second is the best; the third is worse by about as much in each fold, and so surely; the first
# and fourth by amounts that vary, though not by more on the whole.
BY_FOLD = np.array([[1.0, 0.9, 1.0, 1.5], [5.0, 4.9, 5.0, 4.3], [3.2, 2.8, 3.0, 2.6]])


def with_penalties(result, *names):
    fit = Named(tuple(SimpleNamespace(name=name) for name in names))
    return dataclasses.replace(result, sweeper=dataclasses.replace(result.sweeper, fit=fit))


@dataclasses.dataclass(frozen=True)
class Named:
    """`stub` as a record with penalties."""

    penalties: tuple

    def __call__(self, *arguments, **more):
        return stub(*arguments, **more)


def with_numbers(result, degrees, log_likelihood=-10.0, classified=-1.0, rows=float(N)):
    numbers = {"degrees_of_freedom": degrees, "log_likelihood": log_likelihood, "classified": classified, "rows": rows}
    numbers = {name: np.broadcast_to(np.asarray(v, float), result.shape) for name, v in numbers.items()}
    return dataclasses.replace(result, fits=result.fits._replace(**numbers))


def test_differences_are_within_folds():
    table = moejax.select(made(FOUR, 1.0, BY_FOLD.T)).table
    share = np.array([6, 3, 3]) / 12
    differences = BY_FOLD - BY_FOLD[:, 1:2]
    mean = share @ differences
    np.testing.assert_allclose(table["difference"], mean, atol=1e-12)
    np.testing.assert_allclose(table["difference"], table["held_out"] - table["held_out"][1], atol=1e-12)
    np.testing.assert_allclose(table["difference_se"], np.sqrt(share @ (differences - mean) ** 2 / 2), atol=1e-12)
    # By hand: 0.1, 0.1, 0.4 and 0.6, -0.6, -0.2 with shares 1/2, 1/4, 1/4.
    np.testing.assert_allclose(table["difference"][[0, 3]], [0.175, 0.1])
    np.testing.assert_allclose(table["difference_se"][[0, 3]], np.sqrt([0.016875 / 2, (0.125 + 0.1225 + 0.0225) / 2]))
    assert (table["standard_error"] > table["difference_se"].max()).all()


RULED = [
    # degrees of freedom by penalty (or by fold and penalty), chosen
    ([4, 3, 2, 1], 0.4),
    ([4, 3, 1, 2], 0.4),  # the third is worse by more than an error of the difference
    ([4, 3, 1, 5], 0.2),
    ([1, 3, 2, 3], 0.2),  # of equals the better one; the first is too bad
    ([[9, 5, 0, 1], [9, 5, 0, 5], [9, 5, 0, 8]], 0.4),  # on average 14 / 3
    ([[9, 5, 0, 1], [9, 5, 0, 5], [9, 5, 0, 10]], 0.2),
]


@pytest.mark.parametrize(("degrees", "chosen"), RULED)
def test_one_standard_error_takes_the_fewest_degrees_of_freedom(degrees, chosen):
    result = with_numbers(made(FOUR, 1.0, BY_FOLD.T), np.broadcast_to(degrees, (3, 4)).T)
    assert moejax.select(result, rule="one_standard_error").chosen == {"l1": chosen}
    assert moejax.select(result).chosen == {"l1": 0.2}


@pytest.mark.parametrize(
    ("order", "losses", "chosen"),
    [
        (("l1", "rate"), 1.0, {"l1": 0.2, "rate": 3.0}),  # a rate is no matter of simplicity: the first of equals
        (("rate", "l1"), [[1.0, 1.5], [1.0, 1.5]], {"l1": 0.1, "rate": 3.0}),
        (("l1", "n_experts"), 1.0, {"l1": 0.2, "n_experts": 1.0}),
        (("n_experts", "l1"), [[1.0, 2.0], [1.0, 1.0]], {"l1": 0.1, "n_experts": 1.0}),
        (("l1", "n_experts"), [[1.0, 1.0], [2.0, 1.0]], {"l1": 0.2, "n_experts": 2.0}),
    ],
)
def test_without_degrees_of_freedom_the_largest_penalties_are_simplest(order, losses, chosen):
    values = {"l1": [0.1, 0.2], "rate": [3.0, 1.0], "n_experts": [1.0, 2.0]}
    axes = {**{name: values[name] for name in order}, "fold": 2}
    result = made(axes, 1.0, np.broadcast_to(losses, (2, 2))[..., None])
    assert moejax.select(with_penalties(result, "l1", "l2"), rule="one_standard_error").chosen == chosen


# ---- by information criteria ----------------------------------------------------------------------------------------


def test_information_criteria_are_those_of_their_formulas():
    #           restarts of the first penalty, and of the second
    objective = [[2.0, 1.0, 3.0], [5.0, 6.0, 4.0]]
    log_likelihood = [[0.0, -20.0, 0.0], [0.0, 0.0, -18.5]]
    degrees, classified = [[0, 5, 0], [0, 0, 6]], [[0, -1.0, 0], [0, 0, -4.0]]
    result = made({"l1": [0.1, 0.2], "restart": [3, 5, 7]}, objective)
    result = with_numbers(result, degrees, log_likelihood, classified)
    wanted = {"aic": [50, 49], "bic": [40 + 5 * np.log(12), 37 + 6 * np.log(12)]}
    wanted["icl"] = [wanted["bic"][0] + 2, wanted["bic"][1] + 8]
    for criterion, penalty, restart in (("aic", 0.2, 7), ("bic", 0.2, 7), ("icl", 0.1, 5)):
        selection = moejax.select(result, criterion=criterion)
        assert (selection.chosen, selection.restart, selection.refit) == ({"l1": penalty}, restart, None)
        assert selection.fit.objective == min(objective[0 if penalty == 0.1 else 1])
        for name, values in wanted.items():
            np.testing.assert_allclose(selection.table[name], values)
        assert selection.table["degrees_of_freedom"].tolist() == [5, 6]
        assert selection.table["log_likelihood"].tolist() == [-20, -18.5]
        assert np.isnan(selection.table["held_out"]).all()


def test_information_criteria_pass_over_what_is_not_admissible():
    status = [[DEGENERATE, CONVERGED], [DEGENERATE, DIVERGED]]
    result = made({"l1": [0.1, 0.2], "restart": 2}, [[1.0, 2.0], [1.0, 1.0]], status=np.asarray(status))
    selection = moejax.select(with_numbers(result, [[1, 9], [1, 1]]), criterion="bic")
    assert (selection.chosen, selection.restart) == ({"l1": 0.1}, 1)
    assert np.isfinite(selection.table["bic"]).all()
    with pytest.warns(ChoiceWarning, match="^the chosen fit ended degenerate expert, like all others"):
        only = moejax.select(with_numbers(result, 1).isel(l1=1), criterion="aic")
    assert only.restart == 0


def test_a_criterion_of_ones_own_is_lowest_for_the_best_restarts():
    axes = {"n_experts": [1.0, 2.0], "restart": [3, 5, 7], "l1": [0.1, 0.2]}
    objective = np.array([[[1.0, 6], [2, 5], [3, 4]], [[9, 1], [8, 2], [7, 3]]])  # best: 3, 7 / 7, 3
    numbers = np.array([[[20.0, 0], [0, 0], [0, 30]], [[0, np.nan], [0, 0], [25, 0]]])
    result = made(axes, objective)
    calls = []

    def criterion(fits):
        calls.append(fits)
        return numbers

    selection = moejax.select(result, criterion=criterion)
    assert calls == [result.fits]
    assert (selection.chosen, selection.restart, selection.refit) == ({"n_experts": 1.0, "l1": 0.1}, 3, None)
    np.testing.assert_array_equal(selection.table["criterion"], [20, 30, 25, np.nan])
    status = np.where(objective == 1.0, DEGENERATE, CONVERGED)
    again = moejax.select(made(axes, objective, status=status), criterion=lambda fits: numbers - 1)
    np.testing.assert_array_equal(again.table["criterion"], [-1, 29, 24, -1])
    assert (again.chosen, again.restart) == ({"n_experts": 1.0, "l1": 0.1}, 5)


# ---- refusals -------------------------------------------------------------------------------------------------------


def not_fits():
    result = made({"restart": 2}, 1.0)
    return dataclasses.replace(result, fits=result.fits.params)


REFUSED = [
    (lambda: made(TUNED, 1.0, 1.0), {"criterion": "cv"}, ValueError, "^criterion: 'cv' was given; want one of"),
    (
        lambda: made({"l1": [0.1, 0.2]}, 1.0),
        {"criterion": lambda fits: 1.0},
        ValueError,
        r"^criterion: .* shape \(\) .* \(2,\)",
    ),
    (lambda: made({"l1": [0.1]}, 1.0), {"criterion": lambda fits: ["a"]}, ValueError, "^criterion: <U1 numbers"),
    (lambda: made(TUNED, 1.0, 1.0), {"criterion": lambda fits: 1.0}, ValueError, "^criterion: a function .*'fold'"),
    (
        lambda: made(TUNED, 1.0, 1.0),
        {"criterion": lambda fits: 1.0, "rule": "one_standard_error"},
        ValueError,
        "criterion: a function",
    ),
    (lambda: made(TUNED, 1.0, 1.0), {"rule": "1se"}, ValueError, "^rule: '1se' was given; want one of"),
    (lambda: with_numbers(made(TUNED, 1.0, 1.0), 1), {"criterion": "bic"}, ValueError, "^criterion: 'bic'.*'fold'"),
    (lambda: with_numbers(made(TUNED, 1.0, 1.0), 1).isel(fold=0), {"criterion": "aic"}, ValueError, "'fold'"),
    (lambda: made({"l1": [0.1, 0.2]}, 1.0), {"criterion": "aic"}, ValueError, "^criterion: 'aic' .*without a likelihood"),
    (
        lambda: with_numbers(made({"l1": [0.1, 0.2]}, 1.0), np.nan),
        {"criterion": "icl"},
        ValueError,
        "^criterion: 'icl' .*without a likelihood",
    ),
    (
        lambda: with_numbers(made({"l1": [0.1, 0.2]}, 1.0), 1),
        {"criterion": "bic", "rule": "one_standard_error"},
        ValueError,
        "^rule: .*criterion='bic'",
    ),
    (
        lambda: made(ONE, 1.0, 1.0),
        {"rule": "one_standard_error", "refit": False},
        ValueError,
        "^rule: .*1 folds; want .*at least two",
    ),
    (
        lambda: made(TUNED, 1.0, 1.0),
        {"rule": "one_standard_error"},
        ValueError,
        "^rule: .*cannot order .'l1'.* by simplicity",
    ),
    (lambda: made({"l1": [0.1, 0.2], "restart": 2}, 1.0), {}, ValueError, "'l1'.*want the axis 'fold'"),
    (lambda: made({"bootstrap": 2, "restart": 2}, 1.0), {}, ValueError, "bootstrap"),
    (lambda: made({"bootstrap": 2, "fold": 3}, 1.0, 1.0), {}, ValueError, "bootstrap"),
    (lambda: made(TUNED, 1.0), {}, ValueError, "score"),
    (lambda: made(TUNED, 1.0, 1.0), {"refit": False}, ValueError, "^refit: False was given for 3"),
    (not_fits, {}, ValueError, "^result:.*dict"),
    (
        lambda: made(
            {"l1": [0.1, 0.2], "fold": 3}, 1.0, 1.0, [[DIVERGED, DIVERGED, CONVERGED | DEGENERATE], [DIVERGED] * 3]
        ),
        {},
        RuntimeError,
        "no combination has a finite fit in every fold: 5 of 6 diverged, 1 of 6 degenerate expert; want",
    ),
    (
        lambda: made(TUNED, 1.0, 1.0, [[1, 1, DIVERGED], [DIVERGED, 1, 1]]),
        {},
        RuntimeError,
        "no combination has a finite fit in every fold: 2 of 6 diverged; want",
    ),
]


@pytest.mark.parametrize(("result", "options", "error", "words"), REFUSED)
def test_refusals(result, options, error, words):
    with pytest.raises(error, match=words):
        moejax.select(result(), **options)


# ---- refitting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [None, np.where(np.arange(N) % 5 == 0, 0.0, 2.0)])
def test_refit_is_on_all_rows_from_every_restart(weights):
    losses = np.array([3.0, 1.0, 2.0])[:, None, None]
    result = made({"l1": [0.1, 0.2, 0.3], "fold": FOLDS, "restart": 3}, 1.0, losses, weights=weights)
    selection = moejax.select(result)
    assert selection.chosen == {"l1": 0.2}
    assert selection.refit.axes["restart"].tolist() == [0, 1, 2]
    assert selection.refit.shape == (3,)
    every = np.ones(N) if weights is None else weights
    np.testing.assert_array_equal(selection.refit.fits.params["weights"], np.broadcast_to(every, (3, N)))
    np.testing.assert_allclose(selection.refit.fits.params["hyper"]["l1"], [0.2] * 3, rtol=1e-6)
    assert (selection.restart, selection.fit.objective) == (1, 0.5)
    assert selection.params["hyper"]["restart"] == 1


def test_refit_keeps_what_was_selected_before():
    losses = np.array([3.0, 1.0])[:, None, None]
    result = made({"l2": [0.5, 0.7], "l1": [0.1, 0.2], "fold": FOLDS, "restart": [2, 6]}, 1.0, losses)
    params = moejax.select(result.sel(l2=0.7, restart=6)).params
    assert float(params["hyper"]["l2"]) == pytest.approx(0.7)
    assert float(params["hyper"]["l1"]) == pytest.approx(0.2)
    assert params["hyper"]["restart"] == 6
    assert moejax.select(result.sel(l2=0.7, restart=6)).restart == 6
    assert moejax.select(result.sel(l2=0.5)).restart == 2


def test_selection_of_real_fits(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3))
    y = np.where(x[:, 0] > 0, 2.0, -1.0) * x[:, 1] + 0.3 * rng.normal(size=60)
    fit = moejax.fit_gradient(moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), 2), steps=40, learning_rate=0.1)
    result = moejax.sweep(fit, {"l1_experts": [0.0, 3.0], "restart": 4, "fold": 3}, chunk_size=8)(KEY, x, y)
    monkeypatch.setattr(_program, "compile_for", None)  # the refit is by the sweep's own program
    selection = moejax.select(result)
    assert selection.chosen == {"l1_experts": 0.0}  # a penalty of 3 leaves nothing of a signal of this size
    lone = [fit(KEY, x, y, {"l1_experts": 0.0, "restart": r}) for r in range(4)]
    objectives = [float(f.objective) for f in lone]
    np.testing.assert_allclose(selection.refit.fits.objective, objectives, rtol=1e-3)
    assert selection.restart == int(np.argmin(objectives))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3), selection.params, lone[selection.restart].params
    )
    assert selection.refit.run.chunk_size == 8
