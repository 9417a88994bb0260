"""The benchmark of hostile arguments: that it runs, and what it tells. Its calls are tested in test_hostile.py."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import hostile


@pytest.mark.parametrize("only", ["", "gates."])
def test_some_calls_are_made_and_told(tmp_path, capsys, only):
    told = hostile.main(["--quick", "--only", only, "--out", str(tmp_path)])
    assert json.loads((tmp_path / "hostile.json").read_text())["outcomes"] == told["outcomes"]
    assert told["calls"] == sum(told["outcomes"].values()) > 20
    assert not told["faults"]
    assert not told["missing"]
    printed = capsys.readouterr().out
    assert "silent NaN" in printed
    assert f"{told['calls']} calls in" in printed
    assert all(only in name for name in told["functions"])


def test_there_are_as_many_calls_as_are_wanted():
    assert sum(1 for _ in hostile.without_compiling()) > 25_000


def test_a_fault_is_told(monkeypatch, capsys):
    monkeypatch.setattr(hostile, "outcome", lambda call: ("inner", "TypeError: unhashable type"))
    told = hostile.main(["--quick", "--only", "gates.top_k"])
    assert len(told["faults"]) == told["outcomes"]["inner"] == told["calls"]
    assert "inner  gates.top_k(k=" in capsys.readouterr().out
