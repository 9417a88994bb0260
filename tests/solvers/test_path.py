"""Paths against chains of lone fits, numbers by hand and closed forms; as an axis of a sweep, against lone paths."""

from __future__ import annotations

import csv
import dataclasses
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import moejax
from moejax._rows import lay
from moejax.fit import Fit, Status
from moejax.solvers import critical, sequence
from moejax.sweeps import _program

N, D = 48, 3
RNG = np.random.default_rng(7)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = (np.where(X[:, 0] > 0, 2.0, -1.0) * X[:, 1] + 0.3 * RNG.normal(size=N)).astype(np.float32)
CASES = (1 + np.arange(N) % 3).astype(np.float32)
LABELS = np.arange(N) % 3
KEY = jax.random.key(3)
VALUES = [0.01, 0.3, 0.0, 0.1]
MODEL = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), 2)
FIT = moejax.fit_gradient(MODEL, steps=15, learning_rate=0.05)
ONE = moejax.moe(moejax.experts.linear(), moejax.gates.constant(), 1, family=moejax.families.gaussian())
PATH = moejax.path(FIT)


def assert_close(a, b, rtol=2e-4, atol=2e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=rtol, atol=atol), a, b)


def at(tree, *index):
    return jax.tree.map(lambda v: np.asarray(v)[index], tree)


@pytest.fixture(scope="module")
def grid():
    return moejax.sweep(PATH, {"restart": 3, "l1_experts": VALUES, "fold": LABELS}, chunk_size=4)(KEY, X, Y)


# ---- a path alone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize(
    ("hyper", "more"),
    [({"restart": 2, "l2_gate": 0.1}, {"weights": CASES, "offset": 0.1 * Y}), ({"n_experts": 1}, {})],
    ids=["weights and offset", "one expert of two"],
)
def test_a_path_is_the_chain_of_fits_each_from_the_params_before(hyper, more, order):
    path = moejax.path(FIT, order=order)(KEY, X, Y, {"l1_experts": VALUES, **hyper}, **more)
    params = None
    for i in np.argsort(VALUES)[:: 1 if order == "ascending" else -1]:
        lone = FIT(KEY, X, Y, {"l1_experts": VALUES[i], **hyper}, start=params, **more)
        assert_close(at(path, i), jax.tree.map(np.asarray, lone))
        params = {name: lone.params[name] for name in ("experts", "gate", "family")}
    assert len(np.unique(path.objective)) == 4


def test_a_guess_counts_where_the_objective_is_lower_and_nowhere_else():
    model = moejax.moe(moejax.experts.linear(), moejax.gates.constant(), 2, family=moejax.families.gaussian())
    fit, weight = moejax.fit_em(model), jnp.asarray(0.1)
    near = fit(KEY, X, Y, {"l1_experts": 0.05})
    wanted = fit(KEY, X, Y, {"l1_experts": weight}, start=near.params)
    size = jnp.abs(near.params["experts"]["weights"]).sum()
    worse = jax.tree.map(lambda leaf: leaf + 3, near.params)
    nothing = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), near.params)

    @jax.jit
    def resumed(ahead):
        solver, task = fit.descent(KEY, {"l1_experts": weight}, lay(X, Y))
        state = solver.init(task, near.params, ahead, near.objective + 0.05 * size)
        end = jax.lax.while_loop(lambda state: ~solver.done(state), lambda state: solver.step(task, state), state)
        return solver.finish(task, solver.end(end))

    for ahead in (near.params, worse, nothing):
        assert_close(resumed(ahead).params, wanted.params, atol=1e-3)
    best = resumed(wanted.params)
    assert best.steps <= 2
    assert_close(best.params, wanted.params, atol=1e-3)


def test_it_starts_where_it_is_told_to_and_takes_jit_and_vmap():
    start = MODEL.init(jax.random.key(9), X)
    lone = FIT(KEY, X, Y, {"l1_experts": 0.0}, start=start)
    assert_close(at(PATH(KEY, X, Y, {"l1_experts": VALUES}, start=start), 2), jax.tree.map(np.asarray, lone))
    extended = {**start, "active": jnp.ones(2)}  # as a fit with `n_experts` returns them

    @jax.jit
    @jax.vmap
    def both(value):
        return PATH(KEY, X, Y, {"l1_experts": jnp.stack([value, 0.0])}, start=extended)

    assert_close(at(both(jnp.asarray([0.1, 0.01])), 1, 1), jax.tree.map(np.asarray, lone))


@pytest.mark.parametrize("fit", [FIT, PATH, moejax.fit_em(ONE)], ids=["gradient", "path", "em"])
def test_arrays_may_change_as_soon_as_a_call_has_returned(fit):
    def called():
        given = [np.tile(array, (40, 1) if array.ndim == 2 else 40) for array in (X, Y, CASES, 0.1 * Y)]
        got = fit(KEY, *given[:2], {"l1_experts": VALUES if fit is PATH else 0.1}, weights=given[2], offset=given[3])
        for array in given:
            array[:] = np.nan
        return np.asarray(got.objective)

    first = called()
    assert np.isfinite(first).all()
    for _ in range(20):
        np.testing.assert_array_equal(called(), first)


def test_the_order_of_values_does_not_matter():
    path, order = PATH(KEY, X, Y, {"l1_experts": VALUES}), [3, 1, 0, 2]
    other = PATH(KEY, X, Y, {"l1_experts": np.asarray(VALUES)[order]})
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a)[order], b), path, other)


@pytest.mark.parametrize(
    ("fit", "beyond"),  # what rounding, or the tolerance, might leave
    [(moejax.fit_gradient(ONE, optimizer="accelerated", steps=100), 1e-5), (moejax.fit_em(ONE), 1e-3)],
    ids=["gradient", "em"],
)
def test_warm_starts_reach_what_cold_ones_do_and_begin_where_all_is_0(fit, beyond):
    values = sequence(fit, "l1_experts", 6, KEY, X, Y) * (1 + beyond)
    warm = moejax.path(fit)(KEY, X, Y, {"l1_experts": values})
    cold = [fit(KEY, X, Y, {"l1_experts": value}).objective for value in values]
    np.testing.assert_allclose(warm.objective, cold, rtol=1e-5)
    nonzero = (np.asarray(warm.params["experts"]["weights"]) != 0).sum(axis=(1, 2))
    assert nonzero.tolist() == sorted(nonzero)
    assert (nonzero[0], nonzero[-1]) == (0, D)
    assert (fit(KEY, X, Y, {"l1_experts": 0.98 * values[0]}).params["experts"]["weights"] != 0).sum() == 1


def test_a_mixture_keeps_its_experts_from_below_and_finds_them_late_from_above():
    y = jnp.asarray(np.where(RNG.random(N) < 0.5, 3.0, -3.0) * X[:, 0] + 0.1 * RNG.normal(size=N), jnp.float32)
    model = moejax.moe(moejax.experts.linear(), moejax.gates.constant(), 2, family=moejax.families.gaussian())
    start = np.stack([y * X[:, 0] > 0, y * X[:, 0] <= 0], axis=1).astype(float)  # the truth but for a few rows
    values = {"l1_experts": [0.001, 0.02, 1.0]}
    fit, null = moejax.fit_em(model), np.broadcast_to(0.5, (N, 2))
    up = moejax.path(fit)(KEY, X, y, values, start=start)
    down = moejax.path(fit, order="descending")(KEY, X, y, values, start=null)
    assert (np.asarray(up.params["experts"]["weights"][:2, :, 0]).prod(axis=1) < -4).all()
    assert (np.asarray(down.params["experts"]["weights"]) == 0).all(axis=(1, 2))[-1]
    assert up.objective[1] < down.objective[1] - 0.5
    # Where the weight is smallest, experts that coincide are at a saddle, and are moved off it.
    assert float(down.objective[0]) == pytest.approx(float(up.objective[0]), abs=1e-4)


@dataclasses.dataclass(frozen=True)
class Counter:
    """A fit that takes numbers down: twice its start plus the value; its own start is 10."""

    bad: float = -1.0
    has_warm_start = False
    hyper = {"w": 0.0, "restart": 0}  # noqa: RUF012
    penalties = (SimpleNamespace(name="w", part="experts"),)
    model = SimpleNamespace(init=lambda key, x: {"experts": jnp.ones(()), "gate": {}, "family": {}})
    loss = check_data = check_hyper = lambda *_: None

    def score(self, params, x, y, weights, offset=None, groups=None):
        return params["experts"] * weights.sum()

    def rows_in_block(self, x, y, leader):
        return 0

    def work_bytes(self, y):
        return 1

    def __call__(self, key, x, y, hyper, *, start=None, **more):
        return self.solve(key, hyper, None, start)

    def laid(self, x, y, weights, offset, leader, start):
        return lay(x, y), start

    def solve(self, key, hyper, rows, start=None, resume=None):
        begin = start["experts"] if start is not None else 10.0
        begin = begin if resume is None else jnp.where(resume[1], resume[0]["experts"], begin)
        params = 2 * begin + hyper["w"]
        params = jnp.where(hyper["w"] == self.bad, jnp.nan, params)
        status = jnp.where(jnp.isfinite(params), Status.CONVERGED, Status.DIVERGED)
        numbers = (params, params, jnp.zeros(2), 1, params, status)
        return Fit({"experts": params, "gate": {}, "family": {}, "active": jnp.ones(1)}, *map(jnp.asarray, numbers))


@pytest.mark.parametrize(
    ("bad", "start", "wanted"),
    [
        (-1.0, None, [50.0, 101.0, 24.0]),
        (4.0, None, [22.0, 45.0, np.nan]),  # the next one starts at 10 again
        (2.0, None, [np.nan, 21.0, 24.0]),
        (1.0, None, [50.0, np.nan, 24.0]),
        (2.0, 5.0, [np.nan, 11.0, 14.0]),
    ],
)
def test_a_value_that_diverges_does_not_harm_the_next(bad, start, wanted):
    start = None if start is None else {"experts": jnp.asarray(start), "gate": {}, "family": {}}
    fit = moejax.path(Counter(bad), "w")(KEY, X, Y, {"w": [2.0, 1.0, 4.0]}, start=start)
    np.testing.assert_array_equal(fit.params["experts"], wanted)


@dataclasses.dataclass(frozen=True)
class Lines(Counter):
    """A fit that ends on three lines at its second step, and tells as its history where it began; it diverges at `bad`."""

    uneven = has_warm_start = True
    penalties = (SimpleNamespace(name="w", part="experts", value=lambda leaves: 0.0),)
    model = SimpleNamespace(
        init=lambda key, x: {"experts": jnp.ones(3), "gate": {}, "family": {}},
        penalized=lambda params: {"experts": True, "gate": {}, "family": {}},
    )

    def descent(self, key, hyper, rows, start=None):
        return LinesDescent(self.bad), Task(hyper)


class Task(NamedTuple):
    hyper: Any


class LinesState(NamedTuple):
    step: Any
    begun: Any
    safe: Any
    value: Any


@dataclasses.dataclass(frozen=True)
class LinesDescent:
    """The two steps of `Lines`."""

    bad: float

    def init(self, task, params=None, guess=None, objective=0.0):
        begun = jnp.full(3, 10.0) if guess is None else guess["experts"]
        return LinesState(jnp.zeros((), int), begun, begun, jnp.asarray(objective, float))

    def step(self, task, state):
        w = task.hyper["w"]
        lines = jnp.asarray([3.0, 0.0, -2.5]) + w * jnp.asarray([2.0, 0.0, 0.5])
        return LinesState(state.step + 1, state.begun, lines, jnp.where(w == self.bad, jnp.nan, 0.0))

    def done(self, state):
        return state.step >= 2

    def end(self, state):
        return LinesEnd(state.safe, state.begun, state.value)

    def params(self, task, numbers):
        return {"experts": numbers, "gate": {}, "family": {}}

    def finish(self, task, end):
        zero = jnp.zeros(())
        params = {**self.params(task, end.numbers), "active": jnp.ones(1)}
        status = jnp.where(jnp.isnan(end.objective), int(Status.DIVERGED), int(Status.CONVERGED))
        return Fit(params, zero, zero, end.begun, jnp.ones((), int), zero, status)


class LinesEnd(NamedTuple):
    numbers: Any
    begun: Any
    objective: Any


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [
        # Of itself, from the fit before, on the lines; what would change its sign stays.
        (-1.0, [[10, 10, 10], [5, 0, -2], [11, 0, -0.5], [17, 0, -0.5]]),
        # After one that diverged of itself again, and then from the fit before: there is no line yet.
        (2.0, [[10, 10, 10], [5, 0, -2], [10, 10, 10], [11, 0, -0.5]]),
    ],
)
def test_a_fit_that_ends_when_it_has_converged_begins_where_the_lines_lead(bad, wanted):
    path = moejax.path(Lines(bad), "w", order="ascending")
    np.testing.assert_allclose(path(KEY, X, Y, {"w": [1.0, 2.0, 4.0, 7.0]}).history, wanted, rtol=1e-6)


# ---- automatic sequences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("likelihood", "weights"), [(False, None), (True, CASES)], ids=["squared error", "likelihood"])
def test_the_critical_weight_is_that_of_the_closed_form(weights, likelihood):
    loss = moejax.losses.nll() if likelihood else None
    share = np.ones(N) / N if weights is None else weights / weights.sum()
    residuals = Y - share @ Y
    slope = 2.0 if not likelihood else 1 / (share @ residuals**2)
    slopes = slope * np.abs(X.T @ (share * residuals))
    wanted = slopes.max()
    fit = moejax.fit_gradient(ONE, loss, steps=1000, learning_rate=0.03)
    first = critical(fit, "l1_experts", KEY, X, Y, weights=weights)
    np.testing.assert_allclose(first, wanted, rtol=1e-4)
    null = ONE.init(KEY, X)
    null["experts"] = {"weights": jnp.zeros((1, D)), "intercept": jnp.asarray([share @ Y])}
    null["family"] = {"log_scale": jnp.full_like(null["family"]["log_scale"], 0.5 * np.log(share @ residuals**2))}
    still = dataclasses.replace(fit, optimizer=optax.sgd(0.0), steps=1)
    kkt = [still(KEY, X, Y, {"l1_experts": f * wanted}, weights=weights, start=null).kkt for f in (1.0001, 0.98)]
    column = X[:, slopes.argmax()]
    curvature = slope * (share @ (column - share @ column) ** 2)
    unit = 1.0 if likelihood else share @ residuals**2
    left = 0.02 * wanted / np.sqrt(curvature * unit)  # half its square is what the largest would lower the objective by
    np.testing.assert_allclose(kkt, [0, left], atol=1e-5, rtol=1e-3)


def test_the_critical_weight_of_a_gate_is_where_a_constant_gate_stops_being_optimal():
    fit = moejax.fit_gradient(MODEL, steps=200, learning_rate=0.05)
    offset, hyper = 0.5 * X[:, 2], {"l2_experts": 0.1, "restart": 4}
    constant = dataclasses.replace(fit, model=dataclasses.replace(MODEL, gate=moejax.gates.constant()))
    null = constant(KEY, X, Y, {"l2_experts": 0.1}, offset=offset).params  # restart 0, whatever `hyper` says
    share = np.asarray(jax.nn.softmax(null["gate"]["logits"]))
    experts = X @ null["experts"]["weights"].T + null["experts"]["intercept"] + offset[:, None]
    mean = experts @ share
    gradient = -2 / N * ((Y - mean)[:, None] * share * (experts - mean[:, None])).T @ X
    np.testing.assert_allclose(critical(fit, "l1_gate", KEY, X, Y, hyper, offset=offset), np.abs(gradient).max(), rtol=1e-3)


def test_penalties_on_some_columns_leave_the_others_free():
    penalty = moejax.penalties.Columns("experts", ((0, 2),))
    fit = moejax.fit_gradient(ONE, steps=1000, learning_rate=0.03, penalty=[penalty])
    free = np.stack([np.ones(N), X[:, 1]], axis=1)
    residuals = Y - free @ np.linalg.lstsq(free, Y, rcond=None)[0]
    wanted = np.linalg.norm(2 * X[:, [0, 2]].T @ residuals / N) / np.sqrt(2)
    np.testing.assert_allclose(critical(fit, penalty.name, KEY, X, Y), wanted, rtol=1e-3)


@pytest.mark.parametrize("ratio", [1e-3, 0.25])
def test_automatic_sequences_are_geometric(ratio):
    path = moejax.path(FIT, ratio=ratio)
    values = sequence(path, "l1_experts", 5, KEY, X, Y)
    first = critical(FIT, "l1_experts", KEY, X, Y)
    np.testing.assert_allclose(values, first * ratio ** (np.arange(5) / 4), rtol=1e-6)
    fit = path(KEY, X, Y, {"l1_experts": 5})
    assert_close(jax.tree.map(np.asarray, fit), jax.tree.map(np.asarray, path(KEY, X, Y, {"l1_experts": values})))
    assert path.hyper == {**FIT.hyper, "l1_experts": 50}


def test_a_sequence_of_a_path_from_below_reaches_to_where_nothing_is_left():
    y = jnp.asarray(np.where(RNG.random(N) < 0.5, 3.0, -3.0) * X[:, 0] + 0.1 * RNG.normal(size=N), jnp.float32)
    model = moejax.moe(moejax.experts.linear(), moejax.gates.constant(), 2, family=moejax.families.gaussian())
    fit, start = moejax.fit_em(model), np.stack([y * X[:, 0] > 0, y * X[:, 0] <= 0], axis=1).astype(float)
    first = critical(fit, "l1_experts", KEY, X, y, start=start)
    down = moejax.path(fit, order="descending")
    np.testing.assert_allclose(sequence(down, "l1_experts", 4, KEY, X, y, start=start)[0], first, rtol=1e-6)
    up = moejax.path(fit)(KEY, X, y, {"l1_experts": 12}, start=start)
    counts = (np.asarray(up.params["experts"]["weights"]) != 0).sum(axis=(1, 2))
    assert counts[0] == 0
    assert 0 < counts[3] < counts[-1]
    doubled = np.log2(sequence(moejax.path(fit), "l1_experts", 4, KEY, X, y, start=start)[0] / first)
    assert doubled > 0.5  # the experts that came from below outlive the null fit's critical weight
    np.testing.assert_allclose(doubled, np.round(doubled), atol=1e-5)


# ---- as an axis of a sweep ------------------------------------------------------------------------------------------


def test_every_member_is_the_lone_path(grid):
    assert grid.shape == grid.held_out.shape == grid.fits.objective.shape == (3, 4, 3)
    assert list(grid.axes) == ["restart", "l1_experts", "fold"]
    for restart in range(3):
        for fold in range(3):
            train = fold != LABELS
            lone = PATH(KEY, X[train], Y[train], {"l1_experts": VALUES, "restart": restart})
            assert_close(grid.isel(restart=restart, fold=fold).fits, jax.tree.map(np.asarray, lone))
            for i in range(4):
                errors = MODEL.predict(at(lone.params, i), X[~train]) - Y[~train]
                np.testing.assert_allclose(grid.held_out[restart, i, fold], np.mean(errors**2), rtol=1e-3)


def test_the_axis_stands_where_it_was_put(grid):
    axes, names = {"restart": 3, "l1_experts": VALUES, "fold": LABELS}, ("fold", "restart", "l1_experts")
    other = moejax.sweep(PATH, {name: axes[name] for name in names}, chunk_size=4)(KEY, X, Y)
    assert list(other.axes) == list(names)
    order = [list(grid.axes).index(name) for name in names]
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(np.transpose(a, [*order, *range(3, a.ndim)]), b),
        (grid.fits, grid.held_out),
        (other.fits, other.held_out),
    )
    one = moejax.sweep(PATH, {"l1_experts": VALUES[::-1]}, chunk_size=4)(KEY, X, Y)
    assert one.shape == (4,)
    assert_close(one.fits, at(PATH(KEY, X, Y, {"l1_experts": VALUES}), slice(None, None, -1)))


def test_labels_and_tables_know_it(grid, tmp_path):
    member = grid.sel(l1_experts=0.1, restart=1).isel(fold=2)
    assert (member.shape, member.fixed) == ((), {"l1_experts": 0.1, "restart": 1, "fold": 2})
    assert member.fits.objective == grid.fits.objective[1, 3, 2]
    table = grid.table()
    row = (table["l1_experts"] == 0.1) & (table["restart"] == 1) & (table["fold"] == 2)
    assert (row.sum(), len(row)) == (1, 36)
    assert table["held_out"][row] == member.held_out
    grid.to_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["l1_experts"]) for r in rows] == table["l1_experts"].tolist()


def test_the_refit_runs_the_whole_path_and_takes_the_chosen_value(grid, monkeypatch):
    losses = np.ones(grid.shape)
    losses[:, 3] = 0.5
    monkeypatch.setattr(_program, "compile_for", None)  # it is by the sweep's own program
    for result, restarts in ((grid, 3), (grid.isel(restart=1), 1)):
        result = dataclasses.replace(result, held_out=losses[:restarts] if restarts == 3 else losses[1])
        selection = moejax.select(result)
        assert selection.chosen == {"l1_experts": 0.1}
        numbers = range(3) if restarts == 3 else [1]
        lone = [at(PATH(KEY, X, Y, {"l1_experts": VALUES, "restart": r}), 3) for r in numbers]
        best = int(np.argmin([fit.objective for fit in lone]))
        assert selection.restart == numbers[best]
        assert_close(selection.fit, lone[best])
        assert selection.refit.axes.keys() == ({"restart"} if restarts == 3 else set())
    chosen = moejax.select(dataclasses.replace(grid, held_out=losses).sel(l1_experts=0.01))
    lone = [at(PATH(KEY, X, Y, {"l1_experts": VALUES, "restart": r}), 0).objective for r in range(3)]
    np.testing.assert_allclose(chosen.refit.fits.objective, lone, rtol=2e-4)


def test_numbers_of_weights_are_made_from_all_rows_whatever_the_members():
    wanted = {n: sequence(FIT, n, 3, KEY, X, Y, {"l2_gate": 0.1}, weights=CASES) for n in ("l1_experts", "l1_gate")}
    axes = {"l2_gate": [0.1], "l1_gate": 3, "fold": LABELS, "l1_experts": 3, "restart": [5, 1]}
    for fit in (FIT, PATH):
        result = moejax.sweep(fit, axes, chunk_size=8)(KEY, X, Y, weights=CASES)
        assert list(result.axes) == list(axes)
        assert result.shape == result.held_out.shape == (1, 3, 3, 3, 2)
        for name, values in wanted.items():
            np.testing.assert_array_equal(result.axes[name], values)


def test_a_sweeper_keeps_no_values_of_other_data():
    sweeper = moejax.sweep(FIT, {"l1_experts": 2})
    for y in (Y, 2 * Y):
        np.testing.assert_array_equal(sweeper(KEY, X, y).axes["l1_experts"], sequence(FIT, "l1_experts", 2, KEY, X, y))


def test_a_path_that_is_not_among_the_axes_is_there_all_the_same():
    result = moejax.sweep(moejax.path(Counter(), "w"), {"restart": 2, "w": [1.0, 2.0]})(KEY, X, Y)
    assert result.fits.params["experts"].tolist() == [[45.0, 22.0]] * 2
    result = moejax.sweep(moejax.path(FIT, ratio=0.5), {"restart": 1})(KEY, X, Y)
    assert result.shape == (1, 50)
    assert result.axes["l1_experts"][-1] == pytest.approx(result.axes["l1_experts"][0] / 2)


def test_checkpoints_know_the_values(tmp_path, monkeypatch):
    def run(values):
        return moejax.sweep(PATH, {"l1_experts": values, "restart": 6}, chunk_size=2, checkpoint=tmp_path)(KEY, X, Y)

    first = run(VALUES)
    with pytest.raises(ValueError, match=r"checkpoint: .* holds chunks of another sweep"):
        run([0.01, 0.3, 0.0, 0.2])
    monkeypatch.setattr(_program.Program, "__call__", None)
    jax.tree.map(np.testing.assert_array_equal, run(VALUES).fits, first.fits)


def test_equal_paths_are_one():
    again = moejax.path(moejax.fit_gradient(MODEL, steps=15, learning_rate=0.05))
    assert (again, hash(again)) == (PATH, hash(PATH))
    assert again != moejax.path(FIT, "l1_gate")
    assert again != moejax.path(FIT, ratio=0.1)


# ---- bad input ------------------------------------------------------------------------------------------------------

BAD: list[Any] = [
    (lambda: moejax.path(lambda key, x, y, hyper: 0), "^fit: .*has no hyper and no check_hyper"),
    (lambda: moejax.path(PATH, "l1_gate"), "^fit: .*is a path already"),
    (lambda: moejax.path(FIT, "learning_rate"), "^name: 'learning_rate' .* want one of .*'l1_experts'"),
    (lambda: moejax.path(FIT, ratio=1.0), "^ratio: 1.0 was given; want a number between 0 and 1"),
    (lambda: moejax.path(FIT, ratio=0.0), "^ratio"),
    (lambda: moejax.path(FIT, order="up"), "^order: .up. was given; want"),
    (lambda: PATH(KEY, X, Y, {"l1_experts": 1}), r"^hyper\['l1_experts'\]: 1 was given; want a whole number of at least 2"),
    (lambda: PATH(KEY, X, Y, {"l1_experts": 0.5}), r"^hyper\['l1_experts'\]: shape \(\) was given"),
    (lambda: PATH(KEY, X, Y, {"l1_experts": []}), "^values in hyper"),
    (lambda: PATH(KEY, X, Y, {"l1_experts": [0.1, -0.1]}), r"^hyper\['l1_experts'\]: -0.1"),
    (lambda: PATH(KEY, X, Y, {"l1_experts": VALUES, "l1_gate": VALUES}), r"^hyper\['l1_gate'\]: shape"),
    (lambda: PATH(KEY, X, Y, {"l1": VALUES}), "^hyper: 'l1'"),
    (lambda: PATH(KEY, X, Y, VALUES), "^hyper: "),
    (lambda: PATH(0, X, Y), "^key"),
    (lambda: PATH(KEY, X, Y[1:]), "^y"),
    (lambda: moejax.path(FIT, "l2_experts")(KEY, X, Y, {"l2_experts": 3}), "^l2_experts: .* no critical weight"),
    (lambda: jax.jit(lambda x: PATH(KEY, x, Y, {"l1_experts": 3}))(X), "^l1_experts: .*inside a compiled function"),
    (lambda: critical(FIT, "n_experts", KEY, X, Y), "^name: 'n_experts'"),
    (lambda: critical(FIT, "l1_experts", KEY, np.zeros_like(X), Y), "^l1_experts: the critical weight is 0"),
    (
        lambda: moejax.sweep(PATH, {"l1_experts": 1}),
        r"^axes\['l1_experts'\]: 1 was given; want a whole number of at least 2",
    ),
    (lambda: moejax.sweep(FIT, {"n_experts": 2}), r"^axes\['n_experts'\]: 2 was given; want a sequence"),
    (lambda: moejax.sweep(FIT, {"l2_experts": 2})(KEY, X, Y), "^l2_experts: .* no critical weight"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input_is_one_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
