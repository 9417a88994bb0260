"""What there is to wait for before a fit is there, and once it is compiled, beside an earlier commit of this library.

    python benchmarks/first_fit.py --against COMMIT [--only NAME ...] [--rounds N] [--quick] [--out DIR]

Takes that commit out of the repository (git archive) into a folder of its own, and runs both codes in turn with the packages
of this environment, this one from the working tree: each process finds one of the two first on its path, and says which.

- `first`: a first `MoERegressor(n_experts=2)` fit of a process, on diabetes (442 rows); `kept`: the same in a second
  process, which finds the programs of the first on disk, if the code keeps any;
- `rows_within`, `rows_across`: 431 and 700 rows, each in a process that has fitted 442;
- `cross_val`: `cross_val_score(cv=5)`, `example`: the README's example of maximum likelihood, and `readme`: all Python
  examples of the README one after another (three rounds at most, of minutes), as they are in that commit;
- `program`: lines of StableHLO and fusions of a lone fit with a softmax gate;
- `gradient_grid` (1,000 Adam fits of the notebook's sample), `em_grid` (1,000 EM fits of its 500 x 10 rows, three experts)
  and `lone` (one such fit), compiled;
- `grid_start`: in that grid, what a member's start costs in iterations. An iteration is the slope of the time over max_iter,
  the start what is left at max_iter=1 less one iteration.

All but the compiled ones run in new processes, each with an empty folder for the programs it keeps (MOEJAX_CACHE); imports
are not counted. The compiled ones run in two processes that live on and take turns. Prints ratios of medians, this code over
that one, and writes them to `first_fit.json` in DIR, after each measurement what there is. Raises RuntimeError where this
code ends at worse fits. --quick, to see that it runs, makes grids small and compiles without optimisation.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lambda_grid import run_command, write_json

ROOT = Path(__file__).resolve().parent.parent
JOBS = Path(__file__).resolve().with_name("timed_jobs.py")
SIDES = ("now", "before")
EXAMPLE = "coefficient_path"  # what the example of maximum likelihood alone has in it
NO_CACHE_OF_JAX = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
FEW, MANY = 10, 30  # iterations between which the slope is taken

Request = dict[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True)
class Cold:
    """A request that new processes answer. earlier: what a process before it answers, whose programs it finds on disk;
    before: what it answers first itself. slack: by how much the score may be worse. want: the ratio, at most. rounds: at
    most.
    """

    request: Request
    want: float
    slack: float
    earlier: tuple[Request, ...] = ()
    before: tuple[Request, ...] = ()
    rounds: int = 99


@dataclass(frozen=True)
class Warm:
    """A request that living processes answer, once before it counts."""

    request: Request
    want: float
    slack: float


def fit(rows: int) -> Request:
    return {"job": "fit", "rows": rows}


def measurements(readme: str, quick: bool) -> dict[str, Cold | Warm]:
    """What is compared in time, by name. readme: the text whose examples are run."""
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    example = [code for code in blocks if EXAMPLE in code]
    return {
        "first": Cold(fit(442), 1 / 4, 0.01),
        "kept": Cold(fit(442), 1 / 8, 0.01, earlier=(fit(442),)),
        "rows_within": Cold(fit(431), 1 / 20, 0.01, before=(fit(442),)),
        "rows_across": Cold(fit(700), 1 / 4, 0.01, before=(fit(442),)),
        "cross_val": Cold({"job": "cross_validate"}, 1 / 6, 0.05),
        "example": Cold({"job": "examples", "blocks": example}, 1 / 6, 0.1),
        "readme": Cold({"job": "examples", "blocks": blocks[-2:] if quick else blocks}, 1 / 5, 0.1, rounds=3),
        "gradient_grid": Warm({"job": "gradient_grid"}, 1.05, 0.01),
        "em_grid": Warm({"job": "em_grid"}, 1.05, 0.01),
        "lone": Warm({"job": "lone"}, 1.05, 0.01),
    }


PROGRAM = {"lines": 5_407 / 4, "fusions": 120}  # at most
START = 3.0  # iterations, at most
NAMES = (*measurements("", False), "program", "grid_start")


# ---- the two codes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One of the two codes: its name, and the folder that has `moejax` in it."""

    name: str
    folder: Path


def commit_of(name: str) -> str:
    """The full name of a commit of this repository; raises RuntimeError if there is none."""
    return (
        git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", wanted=f"--against: no commit {name!r}")
        .decode()
        .strip()
    )


def git(*arguments: str, wanted: str) -> bytes:
    """What a git command prints; raises RuntimeError, saying what was wanted of it."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise RuntimeError(f"{wanted}; git is not here") from None
    if done.returncode:
        raise RuntimeError(f"{wanted} in {ROOT}; want one of this repository {done.stderr.decode().strip()}".strip())
    return done.stdout


@contextlib.contextmanager
def both(commit: str) -> Iterator[list[Side]]:
    """This code, and that of the commit in a folder that is there for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(git("archive", commit, wanted=f"the files of {commit}"))) as files:
            files.extractall(folder, filter="data")
        yield [Side("now", ROOT), Side("before", Path(folder))]


class Worker:
    """A process that has one code, and answers requests until it is closed."""

    def __init__(self, side: Side, cache: str, quick: bool) -> None:
        self._side = side
        self._errors: Any = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        command = [sys.executable, str(JOBS), *(["--quick"] if quick else [])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        environment = environment_of(side, cache, quick)
        self._process: Any = subprocess.Popen(command, env=environment, text=True, encoding="utf-8", **pipes)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def ask(self, request: Request) -> Answer:
        with contextlib.suppress(BrokenPipeError):  # of a process that ended, of which the answer tells
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _check(self) -> None:
        """Raise RuntimeError unless the process has the code that it should have."""
        code = Path(self._answer()["code"]).resolve()
        if not code.is_relative_to(self._side.folder.resolve()):
            raise RuntimeError(f"{self._side.name}: {code} was imported; want moejax of {self._side.folder}")

    def _answer(self) -> Answer:
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        last = [text for text in self._errors.read().splitlines() if text.strip()][-1:]
        raise RuntimeError(f"{self._side.name}: {' '.join(last) or 'the process ended'}")


def environment_of(side: Side, cache: str, quick: bool) -> dict[str, str]:
    """What a process of that side finds in its environment: its code first, and no program compiled before."""
    environment = {name: value for name, value in os.environ.items() if name not in NO_CACHE_OF_JAX}
    path = os.pathsep.join([str(side.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment |= {"PYTHONPATH": path, "MOEJAX_CACHE": cache, "JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"}
    return environment | ({"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if quick else {})


@contextlib.contextmanager
def started(sides: Sequence[Side], quick: bool) -> Iterator[dict[str, Worker]]:
    """A process of each side."""
    with contextlib.ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        yield {s.name: stack.enter_context(Worker(s, f"{cache}/{s.name}", quick)) for s in sides}


# ---- what is measured -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """Both codes, and how they are measured."""

    sides: Sequence[Side]
    rounds: int
    quick: bool

    def cold(self, what: Cold) -> dict[str, list[Answer]]:
        """The answers of new processes, which take turns."""
        found: dict[str, list[Answer]] = {side.name: [] for side in self.sides}
        for _ in range(min(self.rounds, what.rounds)):
            for side in self.sides:
                with tempfile.TemporaryDirectory() as cache:
                    if what.earlier:
                        self._asked(side, cache, what.earlier)
                    found[side.name].append(self._asked(side, cache, (*what.before, what.request))[-1])
        return found

    def _asked(self, side: Side, cache: str, requests: Sequence[Request]) -> list[Answer]:
        with Worker(side, cache, self.quick) as worker:
            return [worker.ask(request) for request in requests]

    def warm(self, requests: Sequence[Request]) -> dict[str, list[list[Answer]]]:
        """The answers of each side, a list of rounds with one for each request; sides take turns, request by request."""
        with started(self.sides, self.quick) as workers:
            for worker in workers.values():
                for request in requests:
                    worker.ask(request)
            found: dict[str, list[list[Answer]]] = {name: [] for name in workers}
            for _ in range(self.rounds):
                answers = [{name: worker.ask(request) for name, worker in workers.items()} for request in requests]
                for name, rounds in found.items():
                    rounds.append([answer[name] for answer in answers])
        return found


def compared(plan: Plan, what: Cold | Warm) -> dict[str, Any]:
    """Seconds of both sides, their ratio with its spread over rounds, and the scores."""
    if isinstance(what, Cold):
        found = plan.cold(what)
    else:
        found = {name: [one for (one,) in rounds] for name, rounds in plan.warm([what.request]).items()}
    seconds = {name: [answer["seconds"] for answer in answers] for name, answers in found.items()}
    now, before = (seconds[name] for name in SIDES)
    each = [a / b for a, b in zip(now, before, strict=True)]
    score = {name: answers[-1]["score"] for name, answers in found.items()}
    worse = None if None in score.values() else score["before"] - score["now"]
    told: dict[str, Any] = {
        "ratio": median(now) / median(before),
        "spread": [min(each), max(each)],
        "want": what.want,
        "seconds": seconds,
        "score": score,
        "worse_than_slack": worse is not None and not worse <= what.slack,
    }
    if "parts" in found["now"][0]:
        told["parts"] = {name: medians([answer["parts"] for answer in answers]) for name, answers in found.items()}
    return told


def medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Of each part over rounds, whose parts are in order."""
    return [median(part) for part in zip(*rounds, strict=True)]


def program(plan: Plan) -> dict[str, Any]:
    """The size of the program of a lone fit on both sides."""
    with started(plan.sides, plan.quick) as workers:
        return {name: worker.ask({"job": "program"}) for name, worker in workers.items()} | {"want": PROGRAM}


def grid_start(plan: Plan) -> dict[str, Any]:
    """What a member's start costs in iterations on both sides."""
    counts = (1, FEW, MANY)
    found = plan.warm([{"job": "em_iterations", "max_iter": count} for count in counts])
    told: dict[str, Any] = {"want": START, "max_iter": counts}
    for name, rounds in found.items():
        seconds = [[answer["seconds"] for answer in answers] for answers in rounds]
        each = [start_of(*times) for times in seconds]
        once, few, many = medians(seconds)
        told[name] = {
            "start_in_iterations": start_of(once, few, many),
            "spread": [min(each), max(each)],
            "seconds_iteration": (many - few) / (MANY - FEW),
            "seconds": seconds,
        }
    return told


def start_of(once: float, few: float, many: float) -> float:
    """What the start costs in iterations, of seconds with 1, few and many of them; NaN where noise hides an iteration."""
    iteration = (many - few) / (MANY - FEW)
    return once / iteration - 1 if iteration > 0 else float("nan")


# ---- telling --------------------------------------------------------------------------------------------------------


def row(name: str, now: float, before: float, value: float, spread: Sequence[float], want: float) -> str:
    between = f"{spread[0]:.3f} to {spread[1]:.3f}"
    return f"{name:14}{now:10.4g}{before:10.4g}{value:9.3f}  {between:18}{want:8.3f}  {'yes' if value <= want else 'no'}"


HEAD = f"{'':14}{'now':>10}{'before':>10}{'ratio':>9}  {'from round to round':18}{'want':>7}"


def timed_row(name: str, told: dict[str, Any]) -> str:
    now, before = (median(told["seconds"][side]) for side in SIDES)
    return row(name, now, before, told["ratio"], told["spread"], told["want"])


def program_rows(told: dict[str, Any]) -> str:
    lines = []
    for name, want in PROGRAM.items():
        now, before = (told[side][name] for side in SIDES)
        lines.append(
            f"{name:14}{now:10d}{before:10d}{now / before:9.3f}  {'':18}{want:8.0f}  {'yes' if now <= want else 'no'}"
        )
    return "\n".join(lines)


def start_row(told: dict[str, Any]) -> str:
    now, before = (told[side]["start_in_iterations"] for side in SIDES)
    return row("grid_start", now, before, now, told["now"]["spread"], told["want"]) + "  (iterations, this code's)"


def run(plan: Plan, names: Sequence[str], readme: str, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure what was asked for, one after another; `keep` gets what there is after each."""
    all_timed = measurements(readme, plan.quick)
    told: dict[str, Any] = {"ratio": {}}
    print(HEAD + "\n" + f"{'':14}{'s':>10}{'s':>10}", flush=True)
    for name in names:
        if name == "program":
            told[name] = program(plan)
            print(program_rows(told[name]), flush=True)
        elif name == "grid_start":
            told[name] = grid_start(plan)
            print(start_row(told[name]), flush=True)
        else:
            told[name] = compared(plan, all_timed[name])
            told["ratio"][name] = told[name]["ratio"]
            print(timed_row(name, told[name]), flush=True)
        keep(told)
    return told


def shortfalls(told: dict[str, Any]) -> list[str]:
    """Where this code ends at worse fits, in words."""
    worse = {name: one["score"] for name, one in told.items() if isinstance(one, dict) and one.get("worse_than_slack")}
    return [
        f"{name}: this code ends at {score['now']:.6g}, that one at {score['before']:.6g}" for name, score in worse.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", required=True, help="of this repository, such as 3f0f1b4")
    parser.add_argument(
        "--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help=f"of {', '.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it runs")
    parser.add_argument("--out", metavar="DIR", default="results/first_fit", help="default: %(default)s")
    given = parser.parse_args(arguments)
    rounds = (1 if given.quick else 5) if given.rounds is None else given.rounds
    if rounds < 1:
        parser.error(f"--rounds: {rounds} was given; want at least 1")
    commit = commit_of(given.against)
    readme = git("show", f"{commit}:README.md", wanted=f"README.md of {commit}").decode()
    about = {"against": commit, "rounds": rounds, "quick": given.quick, "cores": os.cpu_count()}
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)

    def keep(told: dict[str, Any]) -> None:
        write_json({**about, **told}, out / "first_fit.json")

    with both(commit) as sides:
        told = run(Plan(sides, rounds, given.quick), given.only, readme, keep)
    worse = shortfalls(told)
    keep({**told, "shortfalls": worse})
    print(f"written: {out / 'first_fit.json'}")
    if worse:
        raise RuntimeError("; ".join(worse))


if __name__ == "__main__":
    run_command(main)
