"""The fits of `problems`, against those that were kept: the same optima, or better ones, and the same steps."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from problems import OUTCOMES, all_problems, solve

HERE = Path(__file__).parent
NUMBERS = json.loads((HERE / "fits.json").read_text())
PROBLEMS = all_problems()
SAME_OBJECTIVE, SAME_STEPS = 1e-9, 1e-9
FEW = 3  # fits that may reach a better optimum than the kept one
BETTER = []


@pytest.fixture(autouse=True, scope="module")
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def arrays():
    with np.load(HERE / "fits.npz") as kept:
        return dict(kept)


def off(new, kept):
    """The largest difference, relative to numbers above 1."""
    return float(np.max(np.abs(new - kept) / np.maximum(1, np.abs(kept)), initial=0))


def test_every_problem_has_a_kept_fit():
    assert list(PROBLEMS) == list(NUMBERS)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_fit_is_the_kept_one_or_better(name, arrays):
    problem, kept = PROBLEMS[name], NUMBERS[name]
    assert np.sum(problem.data.y) == pytest.approx(kept["data"], rel=1e-12), "these are not the data of the kept fit"
    found = solve(problem, quick=bool(jax.config.read("jax_disable_most_optimizations"))).kept
    objective = np.asarray(kept["objective"])
    assert found["objective"].shape == objective.shape
    change = (found["objective"] - objective) / np.maximum(1, np.abs(objective))
    assert not np.isnan(change).any()
    assert change.max() <= SAME_OBJECTIVE
    if change.min() < -SAME_OBJECTIVE:
        assert problem.settled
        BETTER.append(name)
        return
    assert found["status"].tolist() == kept["status"]
    tolerance = problem.tolerance if problem.settled else SAME_STEPS
    wanted = {n: np.asarray(kept[n], float) for n in OUTCOMES[1:] if n in kept and n != "status"}
    wanted |= {key.rsplit("/", 1)[1]: v for key, v in arrays.items() if key.rsplit("/", 1)[0] == name}
    assert set(found) == {*wanted, "objective", "status"}
    for kind, value in wanted.items():
        new = found[kind]
        assert new.shape == value.shape, kind
        np.testing.assert_array_equal(np.isnan(new), np.isnan(value), err_msg=kind)
        assert off(np.nan_to_num(new), np.nan_to_num(value)) <= tolerance, kind
        if kind.endswith("_weights") and problem.settled:
            np.testing.assert_array_equal(new == 0, value == 0, err_msg=f"{kind}: exact zeros")


def test_few_fits_are_better():
    assert len(BETTER) <= FEW, BETTER
