"""benchmarks/versus_torch.py at a tiny size: it writes what it should, and its check of agreement can fail."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "versus_torch.py"
TINY = ["--fits", "4", "--steps", "5", "--rounds", "1", "--one-by-one", "2", "--batched-steps", "3"]
STEPS = 5


@pytest.fixture(scope="module")
def versus():
    spec = importlib.util.spec_from_file_location("versus_torch", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.FLOOR_STEPS = 5
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def found(versus):
    return versus.histories(versus.make_problem(4), np.arange(4), STEPS, versus.Plan(3, shared=True))


def test_writes_what_it_measured(versus, tmp_path, capsys):
    assert versus.main([*TINY, "--out", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "versus_torch.json").read_text())
    assert (written["fits"], written["steps"]) == (4, 5)
    assert set(written["seconds"]) == {"one_by_one", "batched", "moejax"}
    assert set(written["ratio"]) == {"one_by_one", "batched"}
    more = {"floor_fraction", "moejax_compile", "threads", "device"}
    assert set(written) == {"fits", "steps", "seconds", "ratio"} | more
    for way, ratio in written["ratio"].items():
        assert ratio == pytest.approx(written["seconds"][way] / written["seconds"]["moejax"])
    printed = capsys.readouterr().out
    assert "scaled from 2 fits" in printed
    assert "scaled from 3 steps" in printed


def test_the_three_agree(versus, found):
    assert versus.check_agreement(found, np.arange(4)) < versus.TOLERANCE
    np.testing.assert_allclose(found["one_by_one"], found["batched"], rtol=1e-5)
    apart = versus.batched(versus.make_problem(4), np.arange(4), STEPS, versus.Plan(2, shared=False))
    np.testing.assert_allclose(apart, found["batched"], rtol=1e-5)
    assert found["moejax"].shape == (4, STEPS)
    assert (np.diff(found["moejax"], axis=1) != 0).all()


@pytest.mark.parametrize("way", ["one_by_one", "batched", "moejax"])
def test_a_perturbed_side_is_noticed(versus, found, way):
    other = versus.make_problem(4)
    other.starts["experts.weights"][1, 0, 0] += 0.01
    members = np.arange(4)
    perturbed = {
        "one_by_one": lambda: versus.one_by_one(other, members, STEPS),
        "batched": lambda: versus.batched(other, members, STEPS, versus.Plan(4, shared=False)),
        "moejax": lambda: found["moejax"] * (1 + 3e-4 * (members == 1))[:, None],
    }
    with pytest.raises(versus.Disagreement, match="differ by"):
        versus.check_agreement(found | {way: perturbed[way]()}, members)


def test_nan_is_no_agreement(versus, found):
    with pytest.raises(versus.Disagreement):
        versus.check_agreement(found | {"batched": np.full_like(found["batched"], np.nan)}, np.arange(4))


@pytest.mark.parametrize("fits", [1, 7, 1000])
def test_any_number_of_fits_makes_a_grid(versus, fits):
    problem = versus.make_problem(fits)
    assert problem.fits == fits
    assert problem.restarts <= versus.MOST_RESTARTS
    assert problem.penalties[0] == 0
    assert len(np.unique(problem.penalties)) == len(problem.penalties)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fits", "0"], "--fits: '0' was given; want a whole number"),
        (["--steps", "many"], "--steps: 'many' was given"),
        (["--rounds", "1.5"], "--rounds: '1.5' was given"),
        (["--fits", "4", "--one-by-one", "5"], "want at most --fits, 4"),
        (["--steps", "4", "--batched-steps", "5"], "want at most --steps, 4"),
        (["--out", str(SCRIPT)], "want a folder"),
    ],
)
def test_errors_of_the_command_line(versus, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        versus.parse(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
