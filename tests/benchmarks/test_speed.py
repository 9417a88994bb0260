"""The benchmarks of waiting, of many rows and of wide tables: that they run, and what they make of their measurements."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import first_fit  # noqa: E402
import rows  # noqa: E402
import starts  # noqa: E402
import timed_jobs  # noqa: E402
import wide  # noqa: E402


def of(path):
    return json.loads(path.read_text())


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


# ---- first_fit ------------------------------------------------------------------------------------------------------


def in_repository():
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, check=False)
    return done.returncode == 0


class FakePlan(first_fit.Plan):
    """Answers of known seconds and scores: of this code, and of the one before."""

    @property
    def answers(self):
        return {"now": {"seconds": 1.0, "score": 0.5 - self.worse}, "before": {"seconds": 8.0, "score": 0.5}}

    worse = 0.0

    def cold(self, what):
        return {name: [answer] * self.rounds for name, answer in self.answers.items()}

    def warm(self, requests):
        seconds = {"now": (1.2, 2.0, 4.0), "before": (2.0, 2.0, 4.0)}  # of 1, 10 and 30 iterations
        if len(requests) == 1:
            return {name: [[answer]] * self.rounds for name, answer in self.answers.items()}
        return {name: [[{"seconds": s} for s in times]] * self.rounds for name, times in seconds.items()}


@pytest.mark.skipif(not in_repository(), reason="no git repository")
def test_two_codes_are_timed_in_turn(tmp_path, capsys):
    arguments = ["--against", "HEAD", "--quick", "--only", "readme", "gradient_grid", "--out", str(tmp_path)]
    first_fit.main(arguments)
    told = of(tmp_path / "first_fit.json")
    assert len(told["against"]) == 40
    assert (told["rounds"], told["quick"], told["shortfalls"]) == (1, True, [])
    assert set(told["ratio"]) == {"readme", "gradient_grid"}
    for name, want in (("readme", 0.2), ("gradient_grid", 1.05)):
        now, before = (told[name]["seconds"][side] for side in first_fit.SIDES)
        assert told["ratio"][name] == pytest.approx(now[0] / before[0])
        assert told[name]["want"] == want
    assert len(told["readme"]["parts"]["now"]) == 2
    score = told["gradient_grid"]["score"]
    assert score["now"] == pytest.approx(score["before"], rel=1e-3)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:-1]] == ["readme", "gradient_grid"]


@pytest.mark.parametrize("worse", [0.0, 0.2])
def test_ratios_are_of_medians_and_worse_fits_are_told(worse, monkeypatch, capsys):
    monkeypatch.setattr(FakePlan, "worse", worse)
    kept = []
    names = ["first", "cross_val", "lone", "grid_start"]
    told = first_fit.run(FakePlan((), 2, False), names, "", lambda told: kept.append(set(told)))
    assert kept[0] == {"ratio", "first"}
    assert told["ratio"] == {"first": 0.125, "cross_val": 0.125, "lone": 0.125}
    assert told["first"]["spread"] == [0.125, 0.125]
    assert told["grid_start"]["now"]["start_in_iterations"] == pytest.approx(11)
    assert told["grid_start"]["before"]["start_in_iterations"] == pytest.approx(19)
    assert [line.split(":")[0] for line in first_fit.shortfalls(told)] == (["first", "cross_val", "lone"] if worse else [])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == names
    assert lines[0].split()[-1] == "yes"
    assert "no" in lines[-1].split()


def test_a_start_that_noise_hides_is_no_number():
    assert np.isnan(first_fit.start_of(1.0, 2.0, 2.0))


def test_the_examples_are_those_of_the_text():
    text = "```python\na = 1\n```\n```sh\nls\n```\n```python\nplots.coefficient_path(a)\n```\n"
    all_timed = first_fit.measurements(text, quick=False)
    assert all_timed["readme"].request["blocks"] == ["a = 1\n", "plots.coefficient_path(a)\n"]
    assert all_timed["example"].request["blocks"] == ["plots.coefficient_path(a)\n"]


def test_a_process_has_its_own_code_and_no_programs_of_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "somewhere")
    found = first_fit.environment_of(first_fit.Side("now", tmp_path), "cache", quick=False)
    assert found["PYTHONPATH"].split(":")[0] == str(tmp_path)
    assert found["MOEJAX_CACHE"] == "cache"
    assert "JAX_COMPILATION_CACHE_DIR" not in found
    with pytest.raises(RuntimeError, match="was imported; want moejax of"):
        first_fit.Worker(first_fit.Side("now", tmp_path), str(tmp_path), quick=True)


@pytest.mark.skipif(not in_repository(), reason="no git repository")
def test_a_commit_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RuntimeError, match="no commit 'nowhere'"):
        first_fit.main(["--against", "nowhere", "--out", str(tmp_path)])


def test_examples_are_timed_without_their_imports():
    block = "import math, json\nfrom os import path\nimport_path = path.join('a', 'b')\nprint(math.pi)\n"
    scope = {}
    exec(timed_jobs.imports(block), scope)
    assert {"math", "json", "path"} <= scope.keys()
    assert "import_path" not in scope
    answer = timed_jobs.examples([block, "later = 1\n"])
    assert answer["seconds"] == pytest.approx(sum(answer["parts"]))
    assert answer["score"] is None


def test_more_rows_than_the_table_has_are_drawn_from_it():
    x, y = timed_jobs.diabetes(700)
    assert (x.shape, y.shape) == ((700, 10), (700,))
    assert len(np.unique(x, axis=0)) == 700
    few, _ = timed_jobs.diabetes(431)
    assert few.shape == (431, 10)


# ---- rows -----------------------------------------------------------------------------------------------------------


def test_many_rows_are_timed_in_a_process_of_their_own(tmp_path, capsys):
    rows.main(["--quick", "--out", str(tmp_path)])
    told = of(tmp_path / "rows.json")
    (one,) = told["sizes"]
    assert (one["rows"], one["columns"], one["experts"]) == (1000, 3, 2)
    assert one["bytes"]["table"] == 4 * (3000 + 1000)
    assert one["seconds"]["floor"] > 0
    assert one["seconds"]["one_iteration"] > 0
    assert one["memory_in_tables"] is None  # of so few rows
    assert is_picture(tmp_path / "rows.png")
    assert capsys.readouterr().out.splitlines()[1].startswith("1,000 x 3, K = 2")


def test_an_iteration_is_a_slope_and_the_start_is_what_is_left():
    size = rows.Size(1_000_000, 10, 3, 3.0, (10, 30))
    times = {"floors": [[9.0, 0.1]] * 2, "times": [[1.0, 3.0, 7.0]] * 2}  # threads of NumPy that wait for each other
    found = {**times, "steps": [1, 10, 30], "table": 100, "peak": 150, "peak_compiled": None}
    told = rows.summary(size, found)
    assert told["iteration_in_floors"] == pytest.approx(2.0)
    assert told["start_in_iterations"] == pytest.approx(4.0)
    assert told["memory_in_tables"] == 1.5
    assert told["memory_in_tables_compiled"] is None
    with pytest.raises(RuntimeError, match=r"ended after \[1, 10, 29\] iterations"):
        rows.summary(size, {**found, "steps": [1, 10, 29]})


def test_the_peak_of_memory_begins_anew():
    held = rows.status("VmRSS")
    if held is None or not rows.forget_peak():
        pytest.skip("the system does not tell")
    assert rows.peak_above(held, lambda: np.ones(10_000_000)) > 70_000_000
    assert rows.peak_above(rows.status("VmRSS"), lambda: None) < 10_000_000


# ---- starts ---------------------------------------------------------------------------------------------------------


def test_starts_are_counted_where_they_end(tmp_path, capsys):
    starts.main(["--quick", "--out", str(tmp_path)])
    (problem,) = of(tmp_path / "starts.json")["problems"]
    assert set(problem["ways"]) == set(starts.QUICK_WAYS)
    assert max(each["hits"] for each in problem["ways"].values()) > 0
    for each in problem["ways"].values():
        assert each["expected"] == pytest.approx(each["seconds_start"] * 5 / (each["hits"] + 0.5))
    assert is_picture(tmp_path / "starts.png")
    assert "short runs" in capsys.readouterr().out


def test_every_problem_of_starts_is_a_sound_table():
    for problem in starts.PROBLEMS:
        x, y = problem.make()
        assert len(x) == len(y) > 50
        assert np.isfinite(np.column_stack([x, y])).all()
        assert problem.fit().model.n_experts == problem.n_experts
    assert len(starts.PROBLEMS) >= 20


def test_the_expected_time_counts_half_a_hit_where_there_was_none():
    assert starts.expected(0, 99, 2.0) == pytest.approx(400.0)
    assert starts.expected(99, 99, 2.0) == pytest.approx(2 * 100 / 99.5)


# ---- wide -----------------------------------------------------------------------------------------------------------


def test_wide_tables_are_fitted_both_ways(tmp_path, capsys):
    wide.main(["--quick", "--out", str(tmp_path)])
    told = of(tmp_path / "wide.json")
    (one,) = told["problems"]
    assert one["library"]["converged"] == one["plain"]["converged"] == one["starts"] == 2
    assert abs(one["objective_worse_by"]) < 1e-3
    assert one["iterations"] > 0
    assert one["time"] > 0
    assert told["growth"]["columns"] == [8]
    assert is_picture(tmp_path / "wide.png")
    assert capsys.readouterr().out.splitlines()[1].startswith("rank 6, table 0, l1 0.03")


def test_the_plain_em_needs_few_iterations_where_starts_are_nearly_equal():
    with jax.enable_x64(True):
        problem = wide.Problem(rank=80, seed=0, l1=0.03, starts=2)
        told = wide.of_ends(wide.plain_em()(problem.responsibilities(), *problem.table(), problem.l1))
    assert told["converged"] == 2
    assert told["iterations"] == pytest.approx([53, 49], abs=5)
    assert told["objectives"] == pytest.approx([-0.266491] * 2, abs=1e-5)


def test_growth_is_told_as_a_power_of_the_columns():
    assert wide.powers_of((10, 100, 300), (1.0, 100.0, 900.0)) == pytest.approx([2.0, 2.0])
    assert np.isnan(wide.powers_of((10, 100), (1.0, -1.0))).all()


@pytest.mark.parametrize(("name", "bad"), [("iterations", 1.3), ("objective_worse_by", 0.1), ("time", 1.1)])
def test_every_wish_counts(name, bad):
    good = {"library": {"converged": 8}, "starts": 8, "iterations": 1.0, "objective_worse_by": -1.0, "time": 0.5}
    assert wide.meets(good)
    assert not wide.meets({**good, name: bad})
    assert not wide.meets({**good, "library": {"converged": 7}})


@pytest.mark.parametrize("program", [rows, wide])
def test_no_rounds_are_refused(program, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(["--rounds", "0"])
    assert error.value.code == 2
    assert "--rounds: 0" in capsys.readouterr().err.splitlines()[-1]
