"""The figures show the data they are given: everything here is read back from what was drawn."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from moejax import plots
from moejax.plots._predictions import _principal_components
from moejax.plots._weights import _spread

RNG = np.random.default_rng(0)
LONG = [
    "age of the applicant in years", "sex", "body mass index", "average blood pressure", "total serum cholesterol",
    "low-density lipoproteins", "high-density lipoproteins", "cholesterol ratio", "log triglycerides",
    "blood sugar level", "smoker", "years since diagnosis", "distance to clinic (km)",
]  # fmt: skip
GRID = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 23)])
HISTORY = 0.01 + np.exp(-np.arange(100) / (10 + 10 * RNG.random((30, 1))))
X = RNG.normal(size=(200, 4)) * [3.0, 2.0, 1.0, 0.5]
EXPERT = RNG.integers(0, 3, 200)
Y = X[:, 0] + 2.0 * EXPERT
ERRORS = 0.02 + np.abs(np.log10(GRID.clip(1e-5)) + 2)[:, None] * (0.1 + RNG.random((24, 8)))
WEIGHTS = RNG.normal(size=(5, 13)) * (RNG.random((5, 13)) < 0.6)
PATHS = np.sign(WEIGHTS) * np.maximum(np.abs(WEIGHTS) - np.sqrt(GRID)[:, None, None], 0.0)


def drawn(ax):
    FigureCanvasAgg(ax.figure).draw()
    return ax


def axes():
    return Figure(figsize=(6, 4)).add_subplot()


def legend(ax):
    return [] if ax.get_legend() is None else [text.get_text() for text in ax.get_legend().get_texts()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def tick_texts(axis):
    low, high = sorted(axis.get_view_interval())
    near = 1e-9 * (high - low)
    ticks = [tick for tick in axis.get_major_ticks() if low - near <= tick.get_loc() <= high + near]
    return [label for tick in ticks for label in (tick.label1, tick.label2) if label.get_visible()]


def one(ax, kind):
    found = [artist for artist in ax.collections if isinstance(artist, kind)]
    assert len(found) == 1
    return found[0]


def curves(ax):
    """The lines drawn point by point, without the horizontal and vertical ones."""
    return [line for line in ax.lines if len(line.get_xdata()) > 2]


# ------------------------------------------------------------------------------------------------------- every figure

TYPICAL = {
    "loss": lambda ax=None: plots.training_loss(HISTORY, highlight=3, ax=ax),
    "loss early": lambda ax=None: plots.training_loss(
        np.where(np.arange(100) < RNG.integers(5, 120, (30, 1)), HISTORY, np.nan), highlight=3, ax=ax
    ),
    "loss named": lambda ax=None: plots.training_loss(HISTORY[:6], labels=LONG[:6], ax=ax),
    "weights": lambda ax=None: plots.expert_weights(WEIGHTS[:3, :10], shares=[0.4, 0.3, 0.3], ax=ax),
    "weights long": lambda ax=None: plots.expert_weights(
        40 * WEIGHTS, feature_names=LONG, shares=np.full(5, 0.2), intercept=[152.1, 20, -3, 0, 7], ax=ax
    ),
    "weights wide": lambda ax=None: plots.expert_weights(RNG.normal(size=(3, 60)), intercept=[1, 2, 3], ax=ax),
    "weights tall": lambda ax=None: plots.expert_weights(1e-4 * RNG.normal(size=(30, 9)), ax=ax),
    "predicted": lambda ax=None: plots.true_vs_predicted(Y, Y + 0.1, expert=EXPERT, ax=ax),
    "predicted 9": lambda ax=None: plots.true_vs_predicted(Y * 1e4, -Y, expert=np.arange(200) % 9, ax=ax),
    "sample": lambda ax=None: plots.sample_3d(X, Y, EXPERT, ax=ax),
    "sample large": lambda ax=None: plots.sample_3d(X, 1e4 * Y, np.arange(200) % 5, ax=ax),
    "sample small": lambda ax=None: plots.sample_3d(
        1e3 * X, Y, EXPERT, ax=ax or Figure((4, 3.5), layout="constrained").add_subplot(projection="3d")
    ),
    "error": lambda ax=None: plots.validation_error(
        GRID, ERRORS, chosen_restart=np.zeros(24, int), chosen=GRID[10], reference=0.0098, ax=ax
    ),
    "error narrow": lambda ax=None: plots.validation_error([0, 0.02, 0.03], [0.4, 0.3, 0.5], chosen=0.0, ax=ax),
    "error wide": lambda ax=None: plots.validation_error(np.geomspace(1e-12, 1e6, 30), np.ones(30), ax=ax),
    "path": lambda ax=None: plots.coefficient_path(GRID, PATHS, feature_names=LONG, chosen=GRID[9], ax=ax),
    "path one": lambda ax=None: plots.coefficient_path(GRID[1:], PATHS[1:, 0], ax=ax),
    "path crowded": lambda ax=None: plots.coefficient_path(GRID, 1.0 + 1e-3 * PATHS, feature_names=LONG, ax=ax),
}


@pytest.mark.parametrize("name", TYPICAL)
def test_draws_into_a_figure_of_its_own_and_into_given_axes(name):
    own = TYPICAL[name]()
    assert isinstance(own, Axes)
    assert own.get_xlabel() or name.startswith("weights")
    projection = "3d" if "sample" in name else None
    given = Figure(figsize=(6, 4)).add_subplot(projection=projection)
    assert TYPICAL[name](given) is given
    sub = Figure(figsize=(9, 4)).subfigures(1, 2)[0].add_subplot(projection=projection)
    assert TYPICAL[name](sub) is sub


def rectangle(text, renderer):
    """Corners (4, 2) of what a text covers, rotated as it is."""
    box = Text.get_window_extent(text, renderer)  # of an annotation, without the leader
    centre = np.array([(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2])
    angle = text.get_rotation()
    text.set_rotation(0)
    level = Text.get_window_extent(text, renderer)
    text.set_rotation(angle)
    half = np.array([level.width, level.height]) / 2 - 0.5
    turn = np.deg2rad(angle)
    across, up = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    return centre + np.array([a * half[0] * across + b * half[1] * up for a in (-1, 1) for b in (-1, 1)])


def overlap(first, second):
    """Whether two rectangles do, by the theorem of separating axes."""
    for corners in (first, second):
        for edge in (corners[1] - corners[0], corners[2] - corners[0]):
            a, b = first @ edge, second @ edge
            if a.max() <= b.min() or b.max() <= a.min():
                return False
    return True


@pytest.mark.parametrize("name", TYPICAL)
def test_no_text_overlaps_another_or_is_cut_off(name):
    ax = drawn(TYPICAL[name]())
    renderer = ax.figure.canvas.get_renderer()
    shown = list(ax.texts) if ax.get_legend() is None else [*ax.texts, *ax.get_legend().get_texts()]
    for each in ax.figure.axes:
        for axis in [each.xaxis, each.yaxis] + ([each.zaxis] if each.name == "3d" else []):
            shown += [*tick_texts(axis), axis.label]
    shown = [text for text in shown if text.get_visible() and text.get_text()]
    assert len(shown) >= 5
    boxes = [rectangle(text, renderer) for text in shown]
    for (a, first), (b, second) in itertools.combinations(zip(shown, boxes, strict=True), 2):
        assert not overlap(first, second), (a.get_text(), b.get_text())
    width, height = ax.figure.bbox.size
    for text, box in zip(shown, boxes, strict=True):
        assert (box > -1).all(), text.get_text()
        assert (box < [width + 1, height + 1]).all(), text.get_text()


@pytest.mark.parametrize("name", TYPICAL)
def test_the_legend_covers_no_data(name):
    ax = drawn(TYPICAL[name]())
    if ax.get_legend() is not None and ax.name != "3d":
        assert ax.get_legend().get_window_extent().y0 >= ax.bbox.y1 - 1


def test_pyplot_is_neither_imported_nor_needed():
    code = "import sys, moejax.plots as p; p.training_loss([2.0, 1.0]); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_the_palette_has_eight_distinct_colours():
    assert len({to_rgba(colour) for colour in plots.PALETTE}) == 8


def test_float32_and_lists_are_taken():
    for ax in (
        plots.training_loss([3, 2, 1]),
        plots.expert_weights(np.ones((2, 3), np.float32)),
        plots.validation_error(np.float32([1e-4, 1e-3, 1e-2]), [1, 2, 3], chosen=1e-4),
    ):
        assert ax.has_data()


# ------------------------------------------------------------------------------------------------------ training_loss


def test_training_loss_draws_every_member_and_the_highlighted_one_bold():
    ax = plots.training_loss(HISTORY, steps=np.arange(0, 1000, 10), highlight=3)
    segments = one(ax, LineCollection).get_segments()
    others = np.delete(HISTORY, 3, axis=0)
    np.testing.assert_array_equal([segment[:, 1] for segment in segments], others)
    np.testing.assert_array_equal(segments[0][:, 0], np.arange(0, 1000, 10))
    (bold,) = ax.lines
    np.testing.assert_array_equal(bold.get_ydata(), HISTORY[3])
    assert bold.get_linewidth() > 2 * one(ax, LineCollection).get_linewidth()[0]
    assert legend(ax) == ["29 other members", "member 3"]
    assert ax.get_xlabel() == "training step"
    assert ax.get_ylabel() == "training loss"


def test_training_loss_counts_the_members_it_leaves_out():
    history = HISTORY.copy()
    history[4, 50] = np.nan
    history[7, 99] = np.inf
    ax = plots.training_loss(history)
    assert "2 of 30 not finite, left out" in legend(ax)
    assert len(one(ax, LineCollection).get_segments()) == 28
    ax = drawn(plots.training_loss(np.full((2, 5), np.nan)))
    assert legend(ax) == ["2 of 2 not finite, left out"]


@pytest.mark.parametrize(
    ("row", "size"),
    [
        ([3.0, 2.0, 1.0, 0.5], 4),
        ([3.0, 2.0, np.nan, np.nan], 2),
        ([3.0, np.nan, np.nan, np.nan], 1),
        ([np.nan, np.nan, np.nan, np.nan], 0),
        ([3.0, np.nan, 1.0, np.nan], 0),
        ([np.nan, 2.0, 1.0, 0.5], 0),
        ([3.0, 2.0, 1.0, np.inf], 0),
        ([3.0, np.inf, np.nan, np.nan], 0),
        ([3.0, np.nan, np.nan, -np.inf], 0),
    ],
)
def test_training_loss_draws_the_finite_beginning_of_a_history(row, size):
    ax = drawn(plots.training_loss([row, [4.0, 3.0, 2.0, 1.0]]))
    first, *others = one(ax, LineCollection).get_segments()
    wanted = [row[:size], [4.0, 3.0, 2.0, 1.0]] if size else [[4.0, 3.0, 2.0, 1.0]]
    assert [list(segment[:, 1]) for segment in (first, *others)] == wanted
    assert ("1 of 2 end early" in legend(ax)) == (0 < size < 4)
    assert ("1 of 2 not finite, left out" in legend(ax)) == (size == 0)
    dots = [each for each in ax.collections if isinstance(each, PathCollection)]
    assert [each.get_offsets().tolist() for each in dots] == ([[[size, row[size - 1]]]] if 0 < size < 4 else [])


def test_a_highlighted_history_may_end_early_and_so_may_all():
    history = HISTORY.copy()
    history[:, 60:] = np.nan
    ax = drawn(plots.training_loss(history, highlight=3, steps=np.arange(0, 1000, 10)))
    (bold,) = ax.lines
    np.testing.assert_array_equal(bold.get_ydata(), HISTORY[3, :60])
    assert bold.get_marker() == "o"
    assert bold.get_markevery() == [59]
    assert legend(ax) == ["29 other members", "member 3", "30 of 30 end early"]
    assert ax.get_yscale() == plots.training_loss(HISTORY[:, :60]).get_yscale()
    assert len(one(ax, PathCollection).get_offsets()) == 29


def test_training_loss_is_logarithmic_only_where_it_can_and_should_be():
    assert plots.training_loss([10.0, 1.0, 0.1]).get_yscale() == "log"
    assert plots.training_loss([10.0, 5.0, 2.0]).get_yscale() == "linear"
    assert plots.training_loss([10.0, 1.0, -0.1]).get_yscale() == "linear"


def test_training_loss_names_few_members_by_colour():
    ax = plots.training_loss(HISTORY[:3], labels=["a", "b", "c"], highlight=1)
    assert legend(ax) == ["a", "c", "b"]
    assert ax.lines[0].get_color() == plots.PALETTE[1]
    assert legend(plots.training_loss(HISTORY, labels=[f"m{i}" for i in range(30)], highlight=9))[1] == "m9"
    assert legend(plots.training_loss(HISTORY[0])) == []


def test_long_histories_are_thinned_without_losing_ends_or_spikes():
    history = np.ones((100, 20_000)) + np.linspace(1, 0, 20_000)
    history[5, 12_345] = 77.0
    segments = one(plots.training_loss(history), LineCollection).get_segments()
    assert sum(map(len, segments)) <= 250_000
    assert len(segments) == 100
    for member, segment in enumerate(segments):
        steps = segment[:, 0].astype(int) - 1
        np.testing.assert_array_equal(segment[:, 1], history[member, steps])
        assert (np.diff(steps) >= 0).all()
        assert steps[0] == 0
        assert steps[-1] == 19_999
    assert segments[5][:, 1].max() == 77.0


def test_histories_that_end_early_are_thinned_to_where_they_end():
    history = np.ones((100, 20_000)) + np.linspace(1, 0, 20_000)
    sizes = np.linspace(1, 20_000, 100).astype(int)
    for member, size in enumerate(sizes):
        history[member, size:] = np.nan
    history[50, [3, 7_000]] = -1.0, 77.0
    segments = one(plots.training_loss(history), LineCollection).get_segments()
    assert sum(map(len, segments)) <= 250_000
    for member, segment in enumerate(segments):
        steps = segment[:, 0].astype(int) - 1
        np.testing.assert_array_equal(segment[:, 1], history[member, steps])
        assert (np.diff(steps) > 0).all()
        assert (steps[0], steps[-1]) == (0, sizes[member] - 1)
    assert (segments[50][:, 1].min(), segments[50][:, 1].max()) == (-1.0, 77.0)


# ----------------------------------------------------------------------------------------------------- expert_weights


def test_expert_weights_shows_the_table_centred_on_zero():
    ax = plots.expert_weights(WEIGHTS, feature_names=LONG, shares=[0.34, 0.26, 0.2, 0.1, 0.1])
    (image,) = ax.images
    np.testing.assert_array_equal(image.get_array(), WEIGHTS)
    assert image.norm.vmax == -image.norm.vmin == np.abs(WEIGHTS).max()
    assert [label.get_text() for label in ax.get_xticklabels()] == LONG
    assert ax.get_yticklabels()[0].get_text() == "expert 1 (34%)"
    assert [each.get_ylabel() for each in ax.figure.axes if each is not ax] == ["coefficient"]


def test_expert_weights_writes_numbers_and_dots_for_exact_zeros():
    table = np.array([[1.5, 0.0, -2.0], [0.001, -0.001, 0.3]])
    ax = plots.expert_weights(table)
    at = {text.get_position(): text for text in ax.texts}
    wanted = {(0, 0): "1.50", (1, 0): "·", (2, 0): "\N{MINUS SIGN}2.00", (0, 1): "0.00", (1, 1): "0.00", (2, 1): "0.30"}
    assert {place: text.get_text() for place, text in at.items()} == wanted
    assert at[(2, 0)].get_color() == "white"
    assert at[(2, 1)].get_color() == "black"


def test_numbers_contrast_with_their_cells():
    ax = plots.expert_weights(np.linspace(-1, 1, 21)[None] + 1e-9)
    (image,) = ax.images
    for text in ax.texts:
        cell = np.array(image.cmap(image.norm(image.get_array()[0, text.get_position()[0]]))[:3])
        ink = np.array(to_rgba(text.get_color())[:3])
        light = [
            np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722] for c in (cell, ink)
        ]
        assert (max(light) + 0.05) / (min(light) + 0.05) > 3.5  # the contrast ratio of WCAG


def test_expert_weights_leaves_numbers_out_where_they_cannot_be_read():
    assert texts(plots.expert_weights(RNG.normal(size=(3, 60)))) == []
    assert texts(plots.expert_weights(np.ones((40, 40)))) == []


def test_intercepts_have_a_column_without_colour():
    ax = plots.expert_weights(np.eye(2), intercept=[150.0, -3.0])
    np.testing.assert_array_equal(ax.images[0].get_array(), np.eye(2))
    assert ax.images[0].norm.vmax == 1.0
    assert texts(ax)[-2:] == ["150", "\N{MINUS SIGN}3"]
    assert ax.get_xticklabels()[-1].get_text() == "intercept"


def test_all_zero_weights_are_drawn():
    assert set(texts(drawn(plots.expert_weights(np.zeros((2, 3)))))) == {"·"}


# -------------------------------------------------------------------------------------------------- true_vs_predicted


def test_true_vs_predicted_shows_points_diagonal_and_scores():
    prediction = Y + RNG.normal(size=200)
    ax = plots.true_vs_predicted(Y, prediction, expert=EXPERT)
    for k, cloud in enumerate(ax.collections):
        rows = k == EXPERT
        np.testing.assert_array_equal(cloud.get_offsets(), np.stack([Y[rows], prediction[rows]], axis=1))
        np.testing.assert_allclose(cloud.get_facecolor()[0, :3], to_rgba(plots.PALETTE[k])[:3])
    (diagonal,) = ax.lines
    both = np.concatenate([Y, prediction])
    np.testing.assert_array_equal(diagonal.get_xdata(), [both.min(), both.max()])
    np.testing.assert_array_equal(diagonal.get_ydata(), [both.min(), both.max()])
    r2 = 1 - np.sum((Y - prediction) ** 2) / np.sum((Y - Y.mean()) ** 2)
    assert texts(ax) == [f"R² = {r2:.4f}\nMSE = {np.mean((Y - prediction) ** 2):.4g}"]
    assert ax.get_aspect() == 1.0
    assert ax.get_xlim() == ax.get_ylim()
    assert legend(ax)[0] == f"expert 1 ({np.mean(EXPERT == 0):.0%})"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true y", "predicted y")


def test_without_experts_there_is_one_cloud_and_no_legend():
    ax = plots.true_vs_predicted(Y, Y)
    assert len(one(ax, PathCollection).get_offsets()) == 200
    assert legend(ax) == []
    assert "R² = 1.0000" in texts(ax)[0]


def test_scores_stand_where_no_points_are():
    ax = plots.true_vs_predicted([0.0, 1.0, 0.02], [0.0, 1.0, 0.98])
    assert ax.texts[0].get_position()[0] > 0.5


# ---------------------------------------------------------------------------------------------------------- sample_3d


def test_sample_3d_shows_the_principal_components():
    ax = drawn(plots.sample_3d(X, Y, EXPERT))
    values, vectors = np.linalg.eigh(np.cov(X.T))
    share = values[::-1] / values.sum()
    assert ax.get_xlabel() == f"component 1 ({share[0]:.0%} of variance)"
    assert ax.get_ylabel() == f"component 2 ({share[1]:.0%})"
    assert ax.get_zlabel() == "y"
    vectors = vectors[:, ::-1][:, :2]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])
    scores = (X - X.mean(axis=0)) @ vectors
    for k, cloud in enumerate(ax.collections):
        shown = np.stack(cloud._offsets3d, axis=1)
        wanted = np.column_stack([scores, Y])[k == EXPERT]
        np.testing.assert_allclose(shown[np.argsort(shown[:, 2])], wanted[np.argsort(wanted[:, 2])], atol=1e-10)
    assert len(legend(ax)) == 3


def test_explained_variance_is_that_of_the_covariance():
    _, explained = _principal_components(X)
    values = np.linalg.eigvalsh(np.cov(X.T))[::-1]
    np.testing.assert_allclose(explained, values[:2] / values.sum(), rtol=1e-12)


def test_the_sign_of_components_does_not_depend_on_the_order_of_rows():
    first, _ = _principal_components(X)
    second, _ = _principal_components(X[::-1])
    np.testing.assert_allclose(first, second[::-1], atol=1e-10)


# --------------------------------------------------------------------------------------------------- validation_error


def test_validation_error_shows_restarts_the_chosen_ones_and_the_reference():
    restart = RNG.integers(0, 8, 24)
    ax = plots.validation_error(GRID, ERRORS, chosen_restart=restart, chosen=GRID[10], reference=0.0098)
    offsets = one(ax, PathCollection).get_offsets()
    np.testing.assert_array_equal(offsets[:, 0], np.repeat(GRID, 8))
    np.testing.assert_array_equal(offsets[:, 1], ERRORS.ravel())
    (line,) = curves(ax)
    np.testing.assert_array_equal(line.get_xdata(), GRID)
    np.testing.assert_array_equal(line.get_ydata(), ERRORS[np.arange(24), restart])
    vertical, ring, horizontal = [line for line in ax.lines if len(line.get_xdata()) <= 2]
    assert list(vertical.get_xdata()) == [GRID[10]] * 2
    assert list(horizontal.get_ydata()) == [0.0098] * 2
    assert horizontal.get_linestyle() == "--"
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (GRID[10], ERRORS[10, restart[10]])
    assert legend(ax) == ["restart", "chosen restart", f"chosen: {GRID[10]:.3g}", "noise floor"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("penalty weight", "validation MSE")
    assert ax.get_yscale() == "log"


def test_penalty_zero_has_a_tick_and_a_place_of_its_own():
    ax = drawn(plots.validation_error(GRID, ERRORS[:, 0]))
    ticks = {label.get_text(): label.get_window_extent().x0 for label in tick_texts(ax.xaxis)}
    assert list(ticks) == ["0", "0.0001", "0.001", "0.01", "0.1", "1", "10"]
    assert ticks["0"] < ticks["0.0001"] - 10
    assert texts(ax) == ["//"]
    pixels = ax.transData.transform(np.column_stack([GRID, np.ones(24)]))[:, 0]
    np.testing.assert_allclose(np.diff(pixels[1:]), np.diff(pixels[1:])[0])  # logarithmic right of the break
    assert ax.bbox.x0 < pixels[0] < pixels[1]
    assert plots.validation_error(GRID[1:], ERRORS[1:, 0]).get_xscale() == "log"


@pytest.mark.parametrize("place", [1, 2])
def test_a_chosen_penalty_of_zero_leaves_the_axis_alone(place):
    ax = Figure(figsize=(14, 4.6), layout="constrained").add_subplot(1, 2, place)
    plots.coefficient_path(GRID, PATHS, chosen=0.0, ax=ax)
    assert ax.dataLim.minposx == GRID[1]
    assert [line.get_xdata() for line in ax.lines if line.get_label() == "chosen: 0"] == [[0.0, 0.0]]


def test_one_penalty_alone_is_drawn():
    assert [t.get_text() for t in tick_texts(drawn(plots.validation_error([0.0], [1.0])).xaxis)] == ["0"]
    assert [t.get_text() for t in tick_texts(drawn(plots.validation_error([0.3], [1.0])).xaxis)] == ["0.3"]
    assert [t.get_text() for t in tick_texts(drawn(plots.validation_error([0, 0.3], [1, 2])).xaxis)] == ["0", "0.3"]


def test_penalties_come_in_any_order():
    order = RNG.permutation(24)
    (line,) = curves(plots.validation_error(GRID[order], ERRORS[order, 0]))
    np.testing.assert_array_equal(line.get_xdata(), GRID)
    np.testing.assert_array_equal(line.get_ydata(), ERRORS[:, 0])


def test_errors_that_are_not_finite_are_left_out_and_counted():
    errors = ERRORS.copy()
    errors[3, 2], errors[5] = np.nan, np.inf
    ax = drawn(plots.validation_error(GRID, errors, chosen_restart=np.zeros(24)))
    assert len(one(ax, PathCollection).get_offsets()) == 24 * 8 - 9
    assert "9 of 192 not finite, left out" in legend(ax)
    assert np.isnan(curves(ax)[0].get_ydata()[5])
    drawn(plots.validation_error(GRID, np.full(24, np.nan)))


def test_restarts_alone_have_no_line():
    assert curves(plots.validation_error(GRID, ERRORS)) == []


def test_a_second_curve_widens_the_axis_of_the_first():
    ax = plots.validation_error([0.0, 0.1, 1.0], [3.0, 2.0, 1.0])
    drawn(plots.validation_error([0.0, 1e-3, 10.0], [3.0, 2.0, 1.0], ax=ax))
    assert texts(ax) == ["//"]
    assert [label.get_text() for label in tick_texts(ax.xaxis)] == ["0", "0.001", "0.01", "0.1", "1", "10"]


# --------------------------------------------------------------------------------------------------- coefficient_path


def test_coefficient_path_draws_every_line_in_the_colour_of_its_expert():
    ax = plots.coefficient_path(GRID, PATHS, feature_names=LONG, chosen=GRID[9])
    lines = curves(ax)
    assert len(lines) == 65
    for line, (k, j) in zip(lines, np.ndindex(5, 13), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), GRID)
        np.testing.assert_array_equal(line.get_ydata(), PATHS[:, k, j])
        assert line.get_color() == plots.PALETTE[k]
    assert legend(ax) == [f"expert {k + 1}" for k in range(5)] + [f"chosen: {GRID[9]:.3g}"]
    assert any(list(line.get_xdata()) == [GRID[9]] * 2 for line in ax.lines)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("penalty weight", "coefficient")


def test_coefficient_path_names_the_strongest_lines_where_they_start():
    ax = plots.coefficient_path(GRID, PATHS, feature_names=LONG)
    named = [text for text in ax.texts if isinstance(text, Annotation)]
    best = np.argsort(-np.abs(PATHS[0]), axis=None)[: len(named)]
    assert 5 <= len(named) <= 12
    found = {(text.get_text(), text.xy) for text in named}
    assert found == {(LONG[i % 13], (0.0, PATHS[0].flat[i])) for i in best}
    places = [text.xyann[1] for text in sorted(named, key=lambda text: text.xy[1])]
    assert places == sorted(places)


def test_coefficient_path_takes_one_expert_zeros_and_gaps():
    ax = plots.coefficient_path(GRID, PATHS[:, 0])
    assert len(curves(ax)) == 13
    assert legend(ax) == []
    assert texts(drawn(plots.coefficient_path(GRID, np.zeros((24, 3))))) == ["//"]
    gaps = PATHS.copy()
    gaps[:3] = np.nan
    ax = drawn(plots.coefficient_path(GRID, gaps))
    assert {text.xy[0] for text in ax.texts if isinstance(text, Annotation)} == {GRID[3]}
    drawn(plots.coefficient_path(GRID, np.full((24, 2), np.nan)))


def test_labels_are_spread_with_the_least_movement():
    spread = _spread(np.array([0.5, 0.5, 0.9]), 0.1)
    np.testing.assert_allclose(spread, [0.45, 0.55, 0.9])
    np.testing.assert_allclose(_spread(np.array([0.0, 0.0, 1.0, 1.0]), 0.1), [0.0, 0.1, 0.9, 1.0])
    many = _spread(np.sort(RNG.random(9)), 0.1)
    assert np.diff(many).min() > 0.1 - 1e-12
    assert many[0] >= 0
    assert many[-1] <= 1 + 1e-12


# -------------------------------------------------------------------------------------------------------- bad inputs

NAN = np.array([1.0, np.nan, 2.0])
BAD = {
    "history: shape (1, 1, 1)": lambda: plots.training_loss(np.ones((1, 1, 1))),
    "history: shape (0,) was given": lambda: plots.training_loss([]),
    "history: values of type": lambda: plots.training_loss(["a", "b"]),
    "steps: shape (4,)": lambda: plots.training_loss([1.0, 2.0], steps=np.arange(4)),
    "steps: 1 of 3 values are NaN": lambda: plots.training_loss([1, 2, 3], steps=NAN),
    "labels: 1 names": lambda: plots.training_loss(HISTORY, labels=["a"]),
    "labels: 'ab' was given": lambda: plots.training_loss(HISTORY[:2], labels="ab"),
    "highlight: 30 was given": lambda: plots.training_loss(HISTORY, highlight=30),
    "highlight: -1 was given": lambda: plots.training_loss(HISTORY, highlight=-1),
    "highlight: True was given": lambda: plots.training_loss(HISTORY, highlight=True),
    "highlight: 0 was given, whose": lambda: plots.training_loss([[np.nan, 1.0], [1.0, 1.0]], highlight=0),
    "ax: Figure was given": lambda: plots.training_loss([1.0], ax=Figure()),
    "ax: Axes of projection 3d": lambda: plots.training_loss([1.0], ax=Figure().add_subplot(projection="3d")),
    "weights: shape (3,)": lambda: plots.expert_weights(NAN),
    "weights: 1 of 3 values are NaN": lambda: plots.expert_weights(NAN[None]),
    "weights: complex": lambda: plots.expert_weights(np.ones((2, 2), complex)),
    "feature_names: 2 names": lambda: plots.expert_weights(np.ones((2, 3)), feature_names=["a", "b"]),
    "intercept: shape (3,)": lambda: plots.expert_weights(np.ones((2, 3)), intercept=[1, 2, 3]),
    "intercept: 1 of 3": lambda: plots.expert_weights(np.ones((3, 3)), intercept=NAN),
    "shares: shape (1,)": lambda: plots.expert_weights(np.ones((2, 3)), shares=[1.0]),
    "shares: 34 was given": lambda: plots.expert_weights(np.ones((2, 3)), shares=[34, 33]),
    "shares: -0.1 was given": lambda: plots.expert_weights(np.ones((2, 3)), shares=[-0.1, 0.3]),
    "y: 1 of 3 values are NaN": lambda: plots.true_vs_predicted(NAN, np.ones(3)),
    "y: 3 times 2 was given": lambda: plots.true_vs_predicted([2, 2, 2], [1, 2, 3]),
    "y: shape (3, 1) was given": lambda: plots.true_vs_predicted(np.ones((3, 1)), [1, 2, 3]),
    "prediction: shape (2,)": lambda: plots.true_vs_predicted([1, 2, 3], [1, 2]),
    "prediction: 1 of 3": lambda: plots.true_vs_predicted([1, 2, 3], NAN),
    "expert: shape (2,)": lambda: plots.true_vs_predicted([1, 2, 3], [1, 2, 3], expert=[0, 1]),
    "expert: 0.5 was given": lambda: plots.true_vs_predicted([1, 2, 3], [1, 2, 3], expert=[0, 0.5, 1]),
    "expert: -1.0 was given": lambda: plots.true_vs_predicted([1, 2, 3], [1, 2, 3], expert=[0, -1, 1]),
    "x: shape (3,)": lambda: plots.sample_3d([1, 2, 3], [1, 2, 3], [0, 0, 0]),
    "x: shape (3, 1)": lambda: plots.sample_3d([[1], [2], [3]], [1, 2, 3], [0, 0, 0]),
    "x: 3 equal rows": lambda: plots.sample_3d(np.ones((3, 2)), [1, 2, 3], [0, 0, 0]),
    "x: 1 of 6 values": lambda: plots.sample_3d(np.column_stack([NAN, [1, 2, 3]]), [1, 2, 3], [0, 0, 0]),
    "y: shape (2,)": lambda: plots.sample_3d(np.eye(3), [1, 2], [0, 0, 0]),
    "ax: Axes of projection rectilinear": lambda: plots.sample_3d(X, Y, EXPERT, ax=axes()),
    "penalty: -1.0 was given": lambda: plots.validation_error([-1, 1], [1, 2]),
    "penalty: 1 of 3 values": lambda: plots.validation_error(NAN, [1, 2, 3]),
    "penalty: shape (1, 2)": lambda: plots.coefficient_path([[1, 2]], np.ones((2, 3))),
    "error: 3 rows were given for 2": lambda: plots.validation_error([1, 2], [1, 2, 3]),
    "error: shape (0,)": lambda: plots.validation_error([1, 2], []),
    "chosen: 17 was given": lambda: plots.validation_error(GRID, ERRORS, chosen=17),
    "chosen: shape (2,)": lambda: plots.validation_error(GRID, ERRORS, chosen=[1, 2]),
    "chosen: 1 of 1 values": lambda: plots.coefficient_path(GRID, PATHS, chosen=np.nan),
    "chosen_restart: given with": lambda: plots.validation_error([1, 2], [1, 2], chosen_restart=[0, 0]),
    "chosen_restart: 8 was given": lambda: plots.validation_error(GRID, ERRORS, chosen_restart=np.full(24, 8)),
    "chosen_restart: shape (3,)": lambda: plots.validation_error(GRID, ERRORS, chosen_restart=[0, 0, 0]),
    "reference: shape (1,)": lambda: plots.validation_error(GRID, ERRORS, reference=[1.0]),
    "reference: 1 of 1 values": lambda: plots.validation_error(GRID, ERRORS, reference=np.inf),
    "coefficients: 2 rows": lambda: plots.coefficient_path(GRID, np.ones((2, 3))),
    "coefficients: shape (24,)": lambda: plots.coefficient_path(GRID, np.ones(24)),
    "feature_names: 13 names": lambda: plots.coefficient_path(GRID, np.ones((24, 2)), feature_names=LONG),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    with pytest.raises(ValueError, match="; want ") as error:
        BAD[message]()
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("labels", [None, ["first", "second"]])
def test_a_title_stands_above_the_legend_and_overlaps_nothing(labels):
    ax = plots.title(plots.training_loss([[3.0, 2.0], [4.0, 1.0]], labels=labels), "all of it")
    ax.figure.draw_without_rendering()
    renderer = ax.figure._get_renderer()
    legend = ax.get_legend()
    heading = legend.get_title() if legend else ax._left_title
    assert heading.get_text() == "all of it"
    box = heading.get_window_extent(renderer)
    assert box.y0 >= ax.get_window_extent(renderer).y1
    assert not any(box.overlaps(t.get_window_extent(renderer)) for t in (legend.get_texts() if legend else []))


def test_experts_are_labelled_by_the_numbers_given():
    ax = plots.expert_weights(np.eye(2), shares=[0.25, 0.75], numbers=[0, 2])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["expert 1 (25%)", "expert 3 (75%)"]
    with pytest.raises(ValueError, match="numbers"):
        plots.expert_weights(np.eye(2), numbers=[1])
