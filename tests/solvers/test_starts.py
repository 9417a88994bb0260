"""Where a fit, a path and a sweep start: params or responsibilities, each with an argument of its own."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import moejax
from moejax import experts, families, gates
from moejax._rows import lay

KEY, N, K = jax.random.key(0), 32, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2)).astype(np.float32)
Y = (np.abs(X[:, 0]) + 0.1 * RNG.normal(size=N)).astype(np.float32)
SIDES = np.stack([X[:, 0] > 0, X[:, 0] <= 0], axis=1).astype(np.float32)
MODEL = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
FITS = {
    "em": moejax.fit_em(MODEL, max_iter=3),
    "gradient": moejax.fit_gradient(MODEL, moejax.losses.nll(), steps=3),
}
CALLS = {
    "fit": lambda fit, **start: fit(KEY, X, Y, {"l1_experts": 0.01}, **start),
    "path": lambda fit, **start: moejax.path(fit)(KEY, X, Y, {"l1_experts": [0.01, 0.1]}, **start),
    "sweep": lambda fit, **start: moejax.sweep(fit, {"l1_experts": [0.01, 0.1]}, progress=False)(KEY, X, Y, **start).fits,
}
STARTS = {
    "start_params": MODEL.init(KEY, X),
    "start_responsibilities": SIDES,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("solver", FITS)
def test_each_kind_of_start_is_what_the_older_name_takes(solver, name, call):
    got, want = (CALLS[call](FITS[solver], **{key: STARTS[name]}) for key in (name, "start"))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_rule_of_x_gives_responsibilities():
    got, want = (FITS["em"](KEY, X, Y, start_responsibilities=given) for given in (lambda x: (x[:, 0] <= 0) * 1, SIDES))
    np.testing.assert_array_equal(got.objective, want.objective)


def test_responsibilities_may_be_a_list_and_params_those_of_a_fit_of_fewer_experts():
    for fit in FITS.values():
        got, want = (fit(KEY, X, Y, start_responsibilities=given) for given in (SIDES.tolist(), SIDES))
        np.testing.assert_array_equal(got.objective, want.objective)
        fewer = fit(KEY, X, Y, {"n_experts": 1}).params
        assert np.isfinite(fit(KEY, X, Y, start_params=fewer).objective)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"start_params": SIDES}, "^start_params: a ndarray was given; want params .* or start_responsibilities"),
        ({"start_params": {"experts": 1}}, "^start_params: params of structure .* were given; want"),
        (
            {"start_responsibilities": STARTS["start_params"]},
            "^start_responsibilities: a dict was given; want .* start_params",
        ),
        ({"start_responsibilities": SIDES[:, :1]}, r"^start_responsibilities: shape \(32, 1\) was given; want \(32, 2\)"),
        ({"start_responsibilities": 2 * SIDES}, "^start_responsibilities: responsibilities of row 0 sum to 2; want 1"),
        ({"start": SIDES, "start_params": STARTS["start_params"]}, "^start_params: given beside start; want only one"),
        (STARTS, "^start_responsibilities: given beside start_params; want only one"),
    ],
)
def test_what_is_no_start_is_refused_by_the_name_that_it_was_given(call, start, message):
    with pytest.raises(ValueError, match=message):
        CALLS[call](FITS["em"], **start)


# ---- what starts depend on -------------------------------------------------------------------------------------------


def drawn(init, x, y, weights=None, block=0, number=0):
    """Responsibilities (n, K) of a start."""
    rows = lay(x, y, np.ones(len(y), y.dtype) if weights is None else weights, block=block, pads=False)
    shares = moejax.starts.draw(init, np.int32(number), KEY, rows, lambda x: x, np.ones(3, bool))
    return np.moveaxis(np.asarray(shares), 1, 2).reshape(-1, 3)[: len(y)]


OF_ANY_KIND = pytest.mark.parametrize("init", ["random", "kmeans", "residuals", "centres"])


@OF_ANY_KIND
@pytest.mark.parametrize("number", [0, 5])
def test_starts_do_not_depend_on_the_order_of_rows_or_on_absent_ones(init, number):
    want, order = drawn(init, X, Y, number=number), RNG.permutation(N)
    np.testing.assert_allclose(drawn(init, X[order], Y[order], number=number), want[order], atol=1e-5)
    absent = np.r_[np.ones(N), np.zeros(5)].astype(np.float32)
    more = drawn(init, np.r_[X, X[:5]], np.r_[Y, Y[:5]], absent, number=number)
    np.testing.assert_allclose(more, np.r_[want, want[:5]], atol=1e-5)


@OF_ANY_KIND
def test_a_row_of_weight_2_starts_as_two_equal_rows_do(init):
    counts = RNG.integers(1, 4, N)
    rows = np.repeat(np.arange(N), counts)
    np.testing.assert_allclose(drawn(init, X[rows], Y[rows]), drawn(init, X, Y, counts.astype(np.float32))[rows], atol=1e-5)


def test_nearly_equal_shares_are_the_same_in_blocks_and_apart_in_rows():
    shares = drawn("random", X, Y)
    np.testing.assert_array_equal(drawn("random", X, Y, block=10), shares)
    assert len(np.unique(shares, axis=0)) == N
    assert 0.1 < shares.min() < shares.max() < 0.6
    other = drawn("random", X, Y, number=1)
    assert np.abs(np.corrcoef(shares[:, 0], other[:, 0])[0, 1]) < 0.6
    only_y = drawn("random", np.zeros((N, 0), np.float32), Y)
    assert len(np.unique(only_y, axis=0)) == N


def test_a_row_of_next_to_no_weight_is_no_centre():
    far = np.r_[X, [[1000, 1000]]].astype(np.float32)
    y, weights = np.r_[Y, 0].astype(np.float32), np.r_[np.ones(N), 1e-9].astype(np.float32)
    shares = drawn("centres", far, y, weights)
    assert (shares[:N].argmax(axis=1)[:, None] == np.arange(3)).any(axis=0).sum() == 3
