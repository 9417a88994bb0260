"""EM on many rows: an iteration in floors, what the start costs, and how much memory it takes.

    python benchmarks/rows.py [--rounds N] [--quick] [--out DIR]

Mixtures of Gaussian regressions with a softmax gate, drawn from such a model, in float32: 10^4, 10^5 and 10^6 rows x 10
columns with three experts, and 10^6 x 50 with eight; each size in a process of its own.

An iteration is the slope of the time of a fit over max_iter, at tol=0. The floor is what it cannot do without, by NumPy in
the same process: the matrix product of the weights of the rows for the curvature of experts and gate (2 K of them) with the
products of all pairs of columns, intercept included, in blocks of 10,000 rows; on all cores or on one, whichever takes less
(on a busy machine, NumPy's threads wait for each other for much longer than they work). The start is what is left of a fit
of one iteration.

Memory is the peak of the process in its first fit of all rows, to compile it and the library's own copies included, above
what the process holds before it: after a fit of 1,000 rows, with the table loaded. Beside it stands the peak in a second
fit of all rows, which compiles nothing, above the same. Both at 10^6 rows alone, in bytes of x and y.

Prints a table and writes `rows.json` and `rows.png` to DIR. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, where they are set, slow
NumPy, and are unset for it. --quick, to see that it runs, takes one small size and compiles without optimisation.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from lambda_grid import panels, run_command, write_json
from threadpoolctl import threadpool_limits

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
BLOCK = 10_000  # rows of the floor's products
WARM_ROWS = 1_000
PROC = Path("/proc/self")


@dataclass(frozen=True)
class Size:
    """A table and its fit. floors: how many of them an iteration may take; counts: of iterations, for the slope."""

    rows: int
    columns: int
    experts: int
    floors: float
    counts: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.rows:,} x {self.columns}, K = {self.experts}"


SIZES = (
    Size(10_000, 10, 3, 3.0, (10, 30)),
    Size(100_000, 10, 3, 3.0, (10, 30)),
    Size(1_000_000, 10, 3, 3.0, (5, 15)),
    Size(1_000_000, 50, 8, 1.5, (3, 7)),
)
QUICK = (Size(WARM_ROWS, 3, 2, 3.0, (1, 4)),)  # two programs in all
START, MEMORY = 5.0, 2.0  # at most: iterations, and bytes over those of x and y
MEMORY_ROWS = 1_000_000  # from which on memory is compared with the table, beside which the rest of a process is little


# ---- in a process of its own ----------------------------------------------------------------------------------------


def drawn(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """x (n, d) and y (n,) of a mixture whose gate is a softmax, in float32."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((size.rows, size.columns), np.float32)
    gate, weights = rng.standard_normal((2, size.columns, size.experts), np.float32)
    noise = rng.gumbel(size=(size.rows, size.experts)).astype("f")
    expert = (x @ (2 * gate / np.sqrt(size.columns)) + noise).argmax(axis=1)
    means = (x @ weights)[np.arange(size.rows), expert]
    return x, means + 0.3 * rng.standard_normal(size.rows, np.float32)


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def floor_of(size: Size) -> Callable[[], None]:
    """The matrix products alone of one iteration, on as many cores as NumPy takes."""
    width, block = size.columns + 1, min(BLOCK, size.rows)
    rng = np.random.default_rng(0)
    weights = rng.random((2 * size.experts, block), np.float32)
    pairs = rng.random((block, width * (width + 1) // 2), np.float32)

    def products() -> None:
        for _ in range(size.rows // block):
            weights @ pairs

    return products


def on_one_core(call: Callable[[], Any]) -> float:
    """Seconds of a call in which NumPy has one thread."""
    with threadpool_limits(1, user_api="blas"):
        return seconds(call)


def status(name: str) -> int | None:
    """Bytes of an entry of the process's status, such as VmRSS; None where the system has no such file."""
    try:
        lines = (PROC / "status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


def forget_peak() -> bool:
    """Let the peak of memory begin anew; whether that can be done."""
    try:
        (PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_above(held: int | None, call: Callable[[], Any]) -> int | None:
    """The peak of the process during a call, above so many bytes; None where it cannot be told."""
    can_tell = held is not None and forget_peak()
    call()
    peak = status("VmHWM")
    return max(0, peak - held) if can_tell and peak is not None and held is not None else None


def measured(size: Size, rounds: int) -> dict[str, Any]:
    """Seconds of the floor (on all cores and on one) and of fits of 1, few and many iterations, in turn; peaks of memory."""
    import jax

    import moejax

    x, y = drawn(size)
    family, gate = moejax.families.gaussian(), moejax.gates.softmax()
    model = moejax.moe(moejax.experts.linear(), gate, size.experts, family=family)

    def fit(iterations: int, rows: int = size.rows) -> Any:
        once = moejax.fit_em(model, max_iter=iterations, tol=0.0)
        return jax.block_until_ready(once(jax.random.key(0), x[:rows], y[:rows], {"l2_gate": 1e-3}))

    counts = (1, *size.counts)
    fit(counts[-1], WARM_ROWS)
    held = status("VmRSS")
    first, again = (peak_above(held, lambda: fit(counts[-1])) for _ in range(2))
    floor = floor_of(size)
    floor()
    steps = [int(fit(count).steps) for count in counts]
    floors, times = [], []
    for _ in range(rounds):
        floors.append([seconds(floor), on_one_core(floor)])
        times.append([seconds(lambda count=count: fit(count)) for count in counts])
    return {
        "floors": floors,
        "times": times,
        "steps": steps,
        "table": x.nbytes + y.nbytes,
        "peak": first,
        "peak_compiled": again,
    }


# ---- all sizes ------------------------------------------------------------------------------------------------------


def alone(size: Size, rounds: int, quick: bool) -> dict[str, Any]:
    """What `measured` tells in a new process."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name not in SLOWING}
        environment |= {"JAX_PLATFORMS": "cpu", "MOEJAX_CACHE": cache}
        environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if quick else {}
        command = [sys.executable, __file__, "--one", json.dumps(dataclasses.astuple(size)), "--rounds", str(rounds)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
        raise RuntimeError(f"{size}: {' '.join(last) or f'the process ended with {done.returncode}'}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(size: Size, found: dict[str, Any]) -> dict[str, Any]:
    """An iteration in floors, the start in iterations and memory in tables, from medians over rounds."""
    if found["steps"] != [1, *size.counts]:
        raise RuntimeError(f"{size}: fits ended after {found['steps']} iterations; want {[1, *size.counts]}")
    once, few, many = medians(found["times"])
    floor = min(medians(found["floors"]))
    iteration = (many - few) / (size.counts[1] - size.counts[0])
    each = [(t[2] - t[1]) / (size.counts[1] - size.counts[0]) / floor for t in found["times"]]
    return {
        **dataclasses.asdict(size),
        "iteration_in_floors": iteration / floor,
        "iteration_in_floors_spread": [min(each), max(each)],
        "start_in_iterations": once / iteration - 1 if iteration > 0 else float("nan"),
        "memory_in_tables": of_table(size, found, "peak"),
        "memory_in_tables_compiled": of_table(size, found, "peak_compiled"),
        "want": {"iteration_in_floors": size.floors, "start_in_iterations": START, "memory_in_tables": MEMORY},
        "bytes": {name: found[name] for name in ("table", "peak", "peak_compiled")},
        "seconds": {"floor": floor, "iteration": iteration, "one_iteration": once},
        "rounds": {"seconds": found["times"], "seconds_floor": found["floors"]},
    }


def medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Of each part over rounds, whose parts are in order."""
    return [median(part) for part in zip(*rounds, strict=True)]


def of_table(size: Size, found: dict[str, Any], name: str) -> float | None:
    """A peak over the bytes of x and y; None for few rows, or where it cannot be told."""
    return None if found[name] is None or size.rows < MEMORY_ROWS else found[name] / found["table"]


# ---- telling --------------------------------------------------------------------------------------------------------

HEAD = (
    f"{'':22}{'floor, s':>9}{'iteration, floors':>19}{'want':>6}{'start, iterations':>19}{'want':>6}"
    f"{'memory, tables':>16}{'want':>6}{'compiled':>10}"
)


def row(told: dict[str, Any]) -> str:
    cells = [f"{told['rows']:,} x {told['columns']}, K = {told['experts']}".ljust(22), f"{told['seconds']['floor']:9.3g}"]
    for (name, want), width in zip(told["want"].items(), (19, 19, 16), strict=True):
        cells += [number(told[name]).rjust(width), f"{want:6.1f}"]
    return "".join([*cells, number(told["memory_in_tables_compiled"]).rjust(10)])


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


PANELS = {
    "iteration_in_floors": "time of an iteration (floors)",
    "start_in_iterations": "time of the start (iterations)",
    "memory_in_tables": "peak memory (bytes of x and y)",
}


def draw(results: Sequence[dict[str, Any]]) -> Any:
    """A panel for each measure: a bar for each size, and a line at what it may be at most."""
    figure, axes = panels(len(PANELS), len(PANELS), (4.0, 3.2))
    labels = [f"{told['rows']:,}\nx {told['columns']},\nK = {told['experts']}" for told in results]
    for ax, (name, label) in zip(axes, PANELS.items(), strict=True):
        there = [place for place, told in enumerate(results) if told[name] is not None]
        ax.bar(there, [results[place][name] for place in there], width=0.6, color="#4477AA", label="measured")
        wanted = [results[place]["want"][name] for place in there]
        ends = [place - 0.4 for place in there], [place + 0.4 for place in there]
        ax.hlines(wanted, *ends, color="#CC3311", linewidth=2, label="wanted at most")
        ax.set_xticks(range(len(results)), labels, fontsize=8)
        ax.set_xlim(-0.6, len(results) - 0.4)
        ax.set_ylabel(label)
        ax.set_xlabel("rows x columns, experts")
        ax.margins(y=0.3)
        ax.legend(fontsize=8, loc="upper left")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it runs")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", metavar="DIR", default="results/rows", help="default: %(default)s")
    given = parser.parse_args(arguments)
    rounds = (1 if given.quick else 5) if given.rounds is None else given.rounds
    if rounds < 1:
        parser.error(f"--rounds: {rounds} was given; want at least 1")
    if given.one is not None:
        print(json.dumps(measured(Size(*json.loads(given.one)), rounds)))
        return
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    print(HEAD, flush=True)
    for size in QUICK if given.quick else SIZES:
        results.append(summary(size, alone(size, rounds, given.quick)))
        print(row(results[-1]), flush=True)
        write_json({"rounds": rounds, "quick": given.quick, "sizes": results}, out / "rows.json")
    draw(results).savefig(out / "rows.png", dpi=100)
    print(f"written: {out / 'rows.json'}, {out / 'rows.png'}")


if __name__ == "__main__":
    run_command(main)
