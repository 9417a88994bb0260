"""Where a fit, a path and a sweep start: params or responsibilities, each with an argument of its own."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import moejax
from moejax import experts, families, gates

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
