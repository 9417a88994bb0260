"""Ways to start EM: how often each reaches the best objective known, and the expected time until it does.

    python benchmarks/starts.py [--starts N] [--tables DIR] [--only NAME ...] [--quick] [--out DIR]

Problems of all kinds: easy ones, wide tables, many experts, discrete inputs, classes, counts, a Gaussian gate, and with
--tables published data of the R packages flexmix and mixtools, as CSV (seizure, patent, CO2data, NregFix, NPreg).

For each problem and each way to start: the share of starts that end within 1e-3 nats a row (0.02 on wide tables) of the best
objective known, which is the best of a separate, larger run and of all ways; and the expected time to it, seconds of a start
over (hits + 1/2) / (starts + 1). Seconds are of processor time, compiled, all starts at once. Beside each stands its ratio
to "before": clusters of x, of residuals, around random rows, and of noise, in turn, all by this code.

Prints a table, and writes `starts.json` and `starts.png` to DIR. --quick, to see that it runs, takes two small problems.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import wide
from lambda_grid import panels, run_command, write_json

import moejax
from moejax import datasets, experts, families, gates

STARTS, WIDE_STARTS, KNOWN = 200, 50, 2  # KNOWN: how many times as many in the larger run
NEAR, WIDE_NEAR = 1e-3, 0.02  # nats a row
SHORT, FEWER = 10, 4  # iterations of short runs, of which one in so many goes on
STRONGER = 3.0  # of a penalty to begin with, beside the one that is fitted
WANT = {"all": 0.7, "wide": 0.25, "most": 1.2}


# ---- problems -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A table, a model and penalties. kind: what it is an example of."""

    name: str
    kind: str
    make: Callable[[], tuple[np.ndarray, np.ndarray]]
    n_experts: int
    family: Any = field(default_factory=families.gaussian)
    gate: Any = field(default_factory=partial(gates.softmax, reference=True))
    hyper: dict[str, float] = field(default_factory=dict)
    outputs: int | None = None

    @property
    def is_wide(self) -> bool:
        """Whether it is judged as a wide table."""
        return self.kind == "wide"

    def fit(self, **options: Any) -> Any:
        """EM for it, from starts that `options` name."""
        model = moejax.moe(experts.linear(self.outputs), self.gate, self.n_experts, family=self.family)
        return moejax.fit_em(model, max_iter=options.pop("max_iter", 400), tol=1e-5, **options)


def standardized(v: np.ndarray) -> np.ndarray:
    return (v - v.mean(axis=0)) / v.std(axis=0)


def clusters(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    problem = datasets.three_regressions(1, n, d)
    return standardized(problem.x), standardized(problem.y)


def softmax(n: int, d: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Regressions that a softmax gate chooses from."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    of_gate, slopes, levels = 2 * rng.normal(size=(k, d)), rng.normal(size=(k, d)), rng.normal(size=k)
    chosen = (x @ of_gate.T + rng.gumbel(size=(n, k))).argmax(axis=1)
    return x, standardized((x * slopes[chosen]).sum(axis=1) + levels[chosen] + 0.3 * rng.normal(size=n))


def crossing(n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Lines through one point, of experts whatever the input."""
    rng = np.random.default_rng(3)
    x, chosen = rng.uniform(-1, 1, (n, 1)), rng.integers(k, size=n)
    return x, standardized(np.linspace(-2, 2, k)[chosen] * x[:, 0] + 0.2 * rng.normal(size=n))


def levels(n: int, counts: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two regimes that three columns of 0 and 1 do not tell apart."""
    rng = np.random.default_rng(4)
    x, second = rng.integers(2, size=(n, 3)).astype(float), rng.random(n) < 0.4
    eta = np.where(second, 2.0 + x @ [0.3, 0, -0.4], 0.5 + x @ [-0.5, 0.4, 0])
    return x, rng.poisson(np.exp(eta)).astype(float) if counts else standardized(2 * eta + rng.normal(size=n))


def curves(n: int, counts: bool) -> tuple[np.ndarray, np.ndarray]:
    """A line and a parabola, as flexmix's NPreg has them; counts of two rates."""
    rng = np.random.default_rng(5)
    t, second = rng.uniform(0, 10, n), np.arange(n) < n // 2
    if counts:
        return standardized(t[:, None]), rng.poisson(np.exp(np.where(second, 1 + 0.1 * t, 2 - 0.2 * t))).astype(float)
    y = np.where(second, 40 - (t - 5) ** 2, 5 * t) + 3 * rng.normal(size=n)
    return standardized(np.stack([t, t**2], axis=1)), standardized(y)


def rates(n: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of experts that a softmax gate chooses from."""
    x, y = softmax(n, d, k, 6)
    return x, np.random.default_rng(6).poisson(np.exp(1 + y)).astype(float)


def labels(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two logistic regressions on either side of a plane."""
    rng = np.random.default_rng(7)
    x, slopes = rng.normal(size=(n, d)), 2 * rng.normal(size=(2, d))
    return x, ((x * slopes[(x[:, 0] > 0).astype(int)]).sum(axis=1) + rng.logistic(size=n) > 0).astype(float)


def bundled(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A table that comes with scikit-learn."""
    from sklearn import datasets as tables

    x, y = getattr(tables, f"load_{name}")(return_X_y=True)
    return standardized(x), standardized(y) if name == "diabetes" else y.astype(float)


def wide_table(problem: wide.Problem) -> tuple[np.ndarray, np.ndarray]:
    x, y = problem.table()
    return np.asarray(x), np.asarray(y)


def notebook() -> tuple[np.ndarray, np.ndarray]:
    problem, split = datasets.notebook()
    return standardized(problem.x[split.train]), standardized(problem.y[split.train])


L1, L2 = {"l1_experts": 0.01, "l1_gate": 0.01}, {"l2_experts": 0.01, "l2_gate": 0.01}
CONSTANT = gates.constant()
PROBLEMS = (
    Problem("notebook, L1 0.01", "easy", notebook, 3, hyper=L1),
    Problem("notebook, L1 0.1", "easy", notebook, 3, hyper={"l1_experts": 0.1, "l1_gate": 0.1}),
    Problem("clusters", "easy", partial(clusters, 400, 10), 3, hyper=L1),
    Problem("softmax, K = 3", "easy", partial(softmax, 500, 10, 3, 0), 3, hyper=L1),
    Problem("softmax, K = 4", "many", partial(softmax, 600, 5, 4, 0), 4, hyper=L2),
    Problem("softmax, K = 5", "many", partial(softmax, 600, 5, 5, 1), 5, hyper=L2),
    Problem("softmax, K = 8", "many", partial(softmax, 800, 4, 8, 2), 8, hyper=L2),
    *(
        Problem(
            f"wide, rank {p.rank}, {p.l1:g}",
            "wide",
            partial(wide_table, p),
            2,
            hyper={"l1_experts": p.l1, "l1_gate": p.l1 / 3},
        )
        for p in wide.PROBLEMS
        if p.seed == 0
    ),
    Problem("crossing lines, K = 2", "latent", partial(crossing, 300, 2), 2, gate=CONSTANT),
    Problem("crossing lines, K = 3", "latent", partial(crossing, 400, 3), 3, gate=CONSTANT),
    Problem("levels", "discrete", partial(levels, 300, False), 2, gate=CONSTANT),
    Problem("levels, counts", "discrete", partial(levels, 300, True), 2, families.poisson(), CONSTANT),
    Problem("curves", "latent", partial(curves, 200, False), 2, gate=CONSTANT),
    Problem("curves, counts", "counts", partial(curves, 200, True), 2, families.poisson(), CONSTANT),
    Problem("counts", "counts", partial(rates, 500, 5, 3), 3, families.poisson(), hyper=L2),
    Problem("logistic", "classes", partial(labels, 400, 5), 2, families.bernoulli(), hyper=L2),
    Problem("breast cancer", "classes", partial(bundled, "breast_cancer"), 2, families.bernoulli(), hyper=L2),
    Problem("wine", "classes", partial(bundled, "wine"), 2, families.categorical(3), hyper=L2, outputs=3),
    Problem("diabetes", "real", partial(bundled, "diabetes"), 2, hyper=L1),
    Problem("diabetes, Gaussian gate", "Gaussian gate", partial(bundled, "diabetes"), 2, gate=gates.gaussian()),
    Problem("clusters, Gaussian gate", "Gaussian gate", partial(clusters, 400, 10), 3, gate=gates.gaussian()),
)
QUICK = (Problem("softmax", "easy", partial(softmax, 60, 2, 2, 0), 2, hyper=L2),)


def published(folder: Path) -> list[Problem]:
    """Problems of tables in a folder."""

    def read(name: str) -> dict[str, np.ndarray]:
        with open(folder / f"{name}.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {key: np.array([row[key] for row in rows]) for key in rows[0]}

    def columns(name: str, y: str, *x: Callable[[dict[str, np.ndarray]], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        table = read(name)
        return np.stack([each(table) for each in x], axis=1).astype(float), table[y].astype(float)

    def number(name: str) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        return lambda table: table[name].astype(float)

    def seizures() -> tuple[np.ndarray, np.ndarray]:
        table = read("seizure")
        treated, day = (table["Treatment"] == "Yes").astype(float), np.log(table["Day"].astype(float))
        return np.stack([treated, day, treated * day], axis=1), table["Seizures"].astype(float)

    poisson = families.poisson()
    return [
        Problem("seizures", "published", seizures, 2, poisson, CONSTANT),
        Problem("patents", "published", partial(columns, "patent", "Patents", number("lgRD")), 3, poisson, CONSTANT),
        Problem("carbon dioxide", "published", partial(columns, "CO2data", "CO2", number("GNP")), 2, gate=CONSTANT),
        Problem("NregFix", "published", partial(columns, "NregFix", "y", *map(number, ("x1", "x2"))), 3, gate=CONSTANT),
    ]


# ---- ways to start --------------------------------------------------------------------------------------------------

Ends = tuple[np.ndarray, float]  # objectives of the starts, and the seconds of all


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, the second time, and the processor time that it took then: compiled, and whatever else runs."""
    jax.block_until_ready(call())
    started = time.process_time()
    result = jax.block_until_ready(call())
    return result, time.process_time() - started


class Study:
    """One problem and its ways to start. Programs that take responsibilities are shared by all ways that give them."""

    def __init__(self, problem: Problem, starts: int):
        self.problem, self.starts = problem, starts
        self.x, self.y = problem.make()
        self.key = jax.random.key(11)

    def drawn(self, init: str, starts: int | None = None, key: Any = None, **options: Any) -> tuple[Any, float]:
        """Fits from the library's own starts."""
        axes = {"restart": starts or self.starts, **{name: [value] for name, value in self.problem.hyper.items()}}
        run = moejax.sweep(self.problem.fit(init=init, **options), axes, progress=False)
        return timed(lambda: run(self.key if key is None else key, self.x, self.y).fits)

    def given(self, shares: np.ndarray, **options: Any) -> tuple[Any, float]:
        """Fits from responsibilities (starts, n, K)."""
        named = {f"{i:04d}": each for i, each in enumerate(shares)}
        axes = {"division": named, **{name: [value] for name, value in self.problem.hyper.items()}}
        run = moejax.sweep(self.problem.fit(**options), axes, progress=False)
        return timed(lambda: run(self.key, self.x, self.y).fits)

    def ended(self, found: tuple[Any, float]) -> Ends:
        objective = np.asarray(found[0].objective).ravel()
        sound = np.asarray(found[0].admissible).ravel()
        return np.where(sound & np.isfinite(objective), objective, np.inf), found[1]

    # ---- each returns the objectives of `starts` starts, and their seconds ------------------------------------------

    def built_in(self, init: str) -> Ends:
        return self.ended(self.drawn(init))

    def dirichlet(self, concentration: float) -> Ends:
        rng = np.random.default_rng(12)
        k = self.problem.n_experts
        return self.ended(self.given(rng.dirichlet([concentration] * k, (self.starts, len(self.y)))))

    def hard(self) -> Ends:
        rng = np.random.default_rng(13)
        k = self.problem.n_experts
        return self.ended(self.given(np.eye(k)[rng.integers(k, size=(self.starts, len(self.y)))]))

    def short(self) -> Ends:
        """Short runs of four times as many starts, of which the best quarter goes on."""
        begun, seconds = self.drawn("random", FEWER * self.starts, max_iter=SHORT)
        order = np.argsort(np.asarray(begun.objective).ravel())[: self.starts]
        shares = self.responsibilities(begun, order)
        objectives, more = self.ended(self.given(shares))
        return objectives, seconds + more

    def stronger(self) -> Ends:
        """A path from a larger penalty, on coefficients that have one."""
        if not self.problem.hyper:
            return np.full(self.starts, np.nan), np.nan
        strong = {name: STRONGER * value for name, value in self.problem.hyper.items()}
        first = Study.__new__(Study)
        first.__dict__.update(self.__dict__)
        first.problem = Problem(**{**self.problem.__dict__, "hyper": strong})
        begun, seconds = first.drawn("random")
        objectives, more = self.ended(self.given(self.responsibilities(begun, np.arange(self.starts))))
        return objectives, seconds + more

    def annealed(self) -> Ends:
        """One scale for all experts to begin with."""
        if self.problem.family != families.gaussian():
            return np.full(self.starts, np.nan), np.nan
        first = Study.__new__(Study)
        first.__dict__.update(self.__dict__)
        first.problem = Problem(**{**self.problem.__dict__, "family": families.gaussian(shared_scale=True)})
        begun, seconds = first.drawn("random")
        objectives, more = self.ended(self.given(self.responsibilities(begun, np.arange(self.starts), first.problem)))
        return objectives, seconds + more

    def responsibilities(self, fits: Any, which: np.ndarray, problem: Problem | None = None) -> np.ndarray:
        """Of some of the fits, (starts, n, K); experts all the same where a fit is not finite."""
        model = (problem or self.problem).fit().model
        axes = np.ndim(fits.objective)
        params = jax.tree.map(lambda v: np.asarray(v).reshape(-1, *v.shape[axes:])[which], fits.params)
        shares = np.asarray(jax.vmap(lambda p: model.responsibilities(p, self.x, self.y))(params))
        return np.where(np.isfinite(shares).all(axis=(1, 2), keepdims=True), shares, 1 / shares.shape[2])


WAYS: dict[str, Callable[[Study], Ends]] = {
    "mixed": lambda s: s.built_in("mixed"),
    "tilted": lambda s: s.built_in("tilted"),
    "random": lambda s: s.built_in("random"),
    "kmeans": lambda s: s.built_in("kmeans"),
    "residuals": lambda s: s.built_in("residuals"),
    "centres": lambda s: s.built_in("centres"),
    "hard": Study.hard,
    "Dirichlet 5": lambda s: s.dirichlet(5.0),
    "Dirichlet 1000": lambda s: s.dirichlet(1000.0),
    "short runs": Study.short,
    "stronger penalty": Study.stronger,
    "one scale first": Study.annealed,
}
BEFORE = ("kmeans", "residuals", "centres", "hard")
QUICK_WAYS = ("random", "kmeans", "hard", "short runs")
LARGER = ("random", "tilted", "residuals")  # of the run that tells the best objective known


def studied(problem: Problem, starts: int, ways: Sequence[str]) -> dict[str, Any]:
    """Shares of hits and expected times of some ways on one problem."""
    study = Study(problem, starts)
    ends = {name: WAYS[name](study) for name in ways}
    other = jax.random.key(99)
    larger = [study.ended(study.drawn(init, KNOWN * starts, other))[0] for init in LARGER if init in ways]
    best = min(v.min() for v in [*larger, *(objectives for objectives, _ in ends.values())] if np.isfinite(v).any())
    near = WIDE_NEAR if problem.is_wide else NEAR
    told = {}
    for name, (objectives, seconds) in ends.items():
        hits = int((objectives <= best + near).sum())
        told[name] = {"hits": hits, "seconds_start": seconds / starts, "expected": expected(hits, starts, seconds / starts)}
    pooled = [told[name] for name in BEFORE if name in ways]
    hits, seconds = sum(v["hits"] for v in pooled) / len(pooled), sum(v["seconds_start"] for v in pooled) / len(pooled)
    before = expected(hits, starts, seconds)
    return {"problem": problem.name, "kind": problem.kind, "starts": starts, "best": best, "before": before, "ways": told}


def expected(hits: float, starts: int, seconds: float) -> float:
    """Seconds until a start is among the best."""
    return seconds / ((hits + 0.5) / (starts + 1))


# ---- telling --------------------------------------------------------------------------------------------------------


def ratios(results: Sequence[dict[str, Any]], way: str, kind: str | None = None) -> np.ndarray:
    """Expected times over those before, of the problems of a kind that have this way."""
    found = [r["ways"][way]["expected"] / r["before"] for r in results if kind in (None, r["kind"]) and way in r["ways"]]
    return np.array([v for v in found if np.isfinite(v)])


def table(result: dict[str, Any]) -> str:
    cells = []
    for name, told in result["ways"].items():
        ratio = told["expected"] / result["before"]
        cells.append(f"{name} {told['hits']}/{result['starts']} ({ratio:.2f})" if np.isfinite(ratio) else f"{name} -")
    return f"{result['problem']:26} " + ", ".join(cells)


def summary(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each way: geometric means of its ratios over all problems and over wide ones, and the largest one."""
    told = {}
    for way in results[0]["ways"]:
        every, of_wide = ratios(results, way), ratios(results, way, "wide")
        mean, of_mean = (math.exp(np.log(v).mean()) if len(v) else float("nan") for v in (every, of_wide))
        told[way] = {"all": mean, "wide": of_mean, "most": float(every.max(initial=0)), "problems": len(every)}
    return told


def draw(results: Sequence[dict[str, Any]]) -> Any:
    """Ratios of expected times, a row for each way and a dot for each problem."""
    ways = list(results[0]["ways"])
    figure, (ax,) = panels(1, 1, (8.5, 0.36 * len(ways) + 1.4))
    for place, way in enumerate(ways):
        for kind, colour, label in (("wide", "#CC3311", "wide tables"), (None, "#4477AA", "other problems")):
            chosen = [r for r in results if (r["kind"] == "wide") == (kind == "wide")]
            values = ratios(chosen, way)
            ax.plot(
                values, np.full(len(values), place), "o", color=colour, alpha=0.6, ms=5, label=label if place == 0 else None
            )
        every = ratios(results, way)
        if len(every):
            ax.plot(
                math.exp(np.log(every).mean()), place, "|", color="black", ms=16, mew=2, label="mean" if place == 0 else None
            )
    ax.axvline(1, color="#888888", linewidth=1, linestyle="--")
    ax.set_xscale("log")
    ax.set_yticks(range(len(ways)), ways)
    ax.invert_yaxis()
    ax.set_xlabel("expected time to the best objective, over that of the starts before")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=STARTS, help="of each way, a quarter on wide tables (%(default)s)")
    parser.add_argument("--tables", metavar="DIR", help="a folder with published tables")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="problems whose name begins so")
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--out", metavar="DIR", default="results/starts", help="default: %(default)s")
    given = parser.parse_args(arguments)
    if given.starts < 4:
        parser.error(f"--starts: {given.starts} was given; want at least 4")
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    problems = [*(QUICK if given.quick else PROBLEMS), *(published(Path(given.tables)) if given.tables else [])]
    if given.only:
        problems = [p for p in problems if p.name.startswith(tuple(given.only))]
    if not problems:
        parser.error(f"--only: {given.only} was given; want the beginning of a problem's name")
    jax.config.update("jax_platforms", "cpu")
    results: list[dict[str, Any]] = []
    with jax.enable_x64(True):
        for problem in problems:
            starts = 4 if given.quick else max(4, given.starts * WIDE_STARTS // STARTS) if problem.is_wide else given.starts
            results.append(studied(problem, starts, QUICK_WAYS if given.quick else tuple(WAYS)))
            print(table(results[-1]), flush=True)
            told = summary(results)
            write_json({"want": WANT, "summary": told, "problems": results}, out / "starts.json")
    print(f"\n{'':18}{'mean':>8}{'wide':>8}{'most':>8}   ratios of expected times to those before")
    for way, each in told.items():
        print(f"{way:18}{each['all']:>8.2f}{each['wide']:>8.2f}{each['most']:>8.2f}   {each['problems']} problems")
    draw(results).savefig(out / "starts.png", dpi=100)
    print(f"written: {out / 'starts.json'}, {out / 'starts.png'}")


if __name__ == "__main__":
    run_command(main)
