"""The same mixtures by R's mixtools and flexmix and by moejax's EM, on the three-regressions sample: likelihoods and time.

    python benchmarks/versus_r.py [--seeds N] [--weights N] [--restarts N] [--rounds N] [--decay D] [--large] [--out DIR]

Mixtures of three linear regressions on the notebook's 500 training rows, with constant proportions and with a softmax gate.
R fits each once a seed. moejax fits a grid of penalty weights and restarts in one sweep, each fit alone and along warm
started paths, and single fits one after another. Medians are compared, of compiled programs; compiling stands apart. A
sweep runs on all cores and R on one. Writes `versus_r.json` into DIR. Where Rscript, flexmix or mixtools is not there, it
says so and does nothing.

What is the same on both sides. mixtools and the constant gate of moejax maximise the same likelihood. flexmix divides each
squared scale by residual degrees of freedom, so that it ends a little below that maximum. With a softmax gate there is no
maximum at all, since the inputs separate the experts: flexmix ends where `nnet` stops. So the gate gets a ridge. flexmix
has no argument for it, but its drivers are made to be written anew: `ridged` below is FLXPmultinom with the `decay` of
nnet, which adds decay * sum of squared weights to minus the log-likelihood; here not of intercepts, whose decay is 0. In
moejax that is `l2_gate` = decay / n, as its loss is a mean over n rows. The ridge is on weights against a reference class,
the first of flexmix and the last of moejax, and which expert that is changes the maximum: exchanging the others does not.
So penalised likelihoods are compared expert by expert at the reference, those of the truth being matched to it. A third
flexmix has scales of maximum likelihood besides, and must agree with moejax.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np
from lambda_grid import run_command, write_json

import moejax
from moejax.fit import Status
from moejax.solvers import sequence

EXPERTS = 3
PACKAGES = ("flexmix", "mixtools")
# The smallest power of ten at which flexmix's seeds agree on the optimum (to 1e-3 in the log-likelihood; at 0.01, to 0.02).
DECAY = 0.1
SLACK = 0.01  # by which a log-likelihood in float32 may fall short
TARGETS = {"grid": 500, "lone": 50}  # times as fast as flexmix
LEAST_CALLS = 20  # of lone fits
LARGE_ROWS = 20_000
LARGE_SEEDS, LARGE_RESTARTS = 2, 6
SMALL_WAYS = ("mixtools", "flexmix", "flexmix_softmax", "flexmix_ridge", "flexmix_ridge_ml")
LARGE_WAYS = ("flexmix_softmax", "flexmix_ridge")

R_SCRIPT = r"""
suppressMessages({library(flexmix); library(mixtools); library(nnet)})
given <- commandArgs(trailingOnly = TRUE)  # data, output, seeds, ways, decay, whether to warm up
table <- as.matrix(read.csv(given[1]))
x <- table[, -ncol(table)]
y <- table[, ncol(table)]
K <- 3
seeds <- as.integer(strsplit(given[3], ",")[[1]])
ways <- strsplit(given[4], ",")[[1]]
decay <- as.numeric(given[5])

# FLXPmultinom, which calls nnet in every M-step, with a decay of all weights but intercepts. `last$penalty` is what it adds.
ridged <- function(last) {
  driver <- FLXPmultinom(~ x)
  plain <- driver@fit
  # The weights of a class: nnet's own bias, held at 0, then the columns, the first of which is the intercept.
  decays <- function(classes) rep(c(0, 0, rep(decay, ncol(x))), classes)
  driver@fit <- function(x, y, w, ...) {
    r <- ncol(x)
    mask <- c(rep(0, r + 1), rep(c(0, rep(1, r)), ncol(y) - 1))
    net <- nnet.default(x, y, w, mask = mask, size = 0, skip = TRUE, softmax = TRUE, censored = FALSE, rang = 0,
                        trace = FALSE, decay = decays(ncol(y)))
    last$penalty <- sum(decays(ncol(y)) * net$wts^2)
    net$fitted.values
  }
  driver@refit <- function(x, y, w, ...) {
    multinom(y ~ 0 + x, data = list(y = y, x = x), trace = FALSE, decay = decays(ncol(y)))
  }
  driver
}

# The Gaussian driver, with the scale that maximises the likelihood.
maximal <- function() {
  driver <- FLXMRglm()
  driver@fit <- function(x, y, w, component) {
    fit <- lm.wfit(x, y, w = w)
    sigma <- sqrt(sum(fit$weights * fit$residuals^2) / sum(fit$weights))
    driver@defineComponent(list(coef = coef(fit), df = ncol(x) + 1, sigma = sigma))
  }
  driver
}

fits <- list(
  mixtools = function(last) regmixEM(y, x, k = K, arbvar = TRUE),
  flexmix = function(last) flexmix(y ~ x, k = K),
  flexmix_softmax = function(last) flexmix(y ~ x, k = K, concomitant = FLXPmultinom(~ x)),
  flexmix_ridge = function(last) flexmix(y ~ x, k = K, concomitant = ridged(last)),
  flexmix_ridge_ml = function(last) flexmix(y ~ x, k = K, model = maximal(), concomitant = ridged(last))
)

told <- function(fit) {
  if (is(fit, "flexmix")) {
    list(logLik = fit@logLik, iterations = fit@iter, converged = fit@converged, experts = length(fit@components),
         first = fit@components[[1]][[1]]@parameters$coef)
  } else {
    list(logLik = fit$loglik, iterations = length(fit$all.loglik) - 1, converged = TRUE, experts = length(fit$lambda),
         first = fit$beta[, 1])
  }
}

one <- function(way, seed) {
  set.seed(seed)
  last <- new.env()
  last$penalty <- 0
  seconds <- system.time(noise <- capture.output(fit <- try(fits[[way]](last), silent = TRUE)))[["elapsed"]]
  if (inherits(fit, "try-error")) {
    fit <- list(logLik = NA, iterations = NA, converged = FALSE, experts = 0, first = NA)
  } else {
    fit <- told(fit)
  }
  first <- paste(format(fit$first, digits = 15), collapse = " ")
  data.frame(way = way, seed = seed, seconds = seconds, log_likelihood = fit$logLik, penalty = last$penalty,
             iterations = fit$iterations, converged = fit$converged, experts = fit$experts, first = first)
}

if (given[6] == "warm") for (way in ways) one(way, 1000)
found <- do.call(rbind, lapply(ways, function(way) do.call(rbind, lapply(seeds, function(seed) one(way, seed)))))
write.csv(format(found, digits = 15, trim = TRUE), given[2], row.names = FALSE)
cat("R ", as.character(getRversion()), ", flexmix ", as.character(packageVersion("flexmix")), ", mixtools ",
    as.character(packageVersion("mixtools")), "\n", sep = "")
"""


# ---- what is fitted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Rows x (n, d), y (n,) and the true coefficients (K, d), by which experts are told apart."""

    x: np.ndarray
    y: np.ndarray
    truth: np.ndarray

    def nearest(self, coefficients: np.ndarray) -> int:
        """The number of the true expert whose coefficients these are, about."""
        return int(np.square(self.truth - coefficients).sum(axis=1).argmin())

    def in_type(self, dtype: Any) -> tuple[jax.Array, jax.Array]:
        return jax.numpy.asarray(self.x, dtype), jax.numpy.asarray(self.y, dtype)


def notebook() -> Sample:
    problem, parts = moejax.datasets.notebook()
    return Sample(problem.x[parts.train], problem.y[parts.train], problem.weights)


def large() -> Sample:
    problem = moejax.datasets.three_regressions(0, n=LARGE_ROWS)
    return Sample(problem.x, problem.y, problem.weights)


@dataclass(frozen=True)
class Sizes:
    """How much is fitted."""

    seeds: int = 6
    weights: int = 50
    restarts: int = 20
    rounds: int = 5
    decay: float = DECAY


class Record(NamedTuple):
    """A fit, of R or a lone one of moejax. log_likelihood is without `penalty`, both totals over rows.

    reference: the true expert nearest to the reference of the gate (the first of R, the last of moejax), -1 for none.
    """

    way: str
    seed: int
    seconds: float
    log_likelihood: float
    penalty: float
    iterations: float
    converged: bool
    experts: int
    reference: int

    @property
    def penalised(self) -> float:
        return self.log_likelihood - self.penalty


# ---- R --------------------------------------------------------------------------------------------------------------


def missing() -> str | None:
    """What of R is not here, in a line, or None."""
    if shutil.which("Rscript") is None:
        return "versus_r.py needs R, and Rscript is not here: apt install r-base-core r-cran-flexmix r-cran-mixtools"
    test = "; ".join(f'if (!requireNamespace("{p}", quietly = TRUE)) cat("{p} ")' for p in PACKAGES)
    lacking = _rscript(["-e", f"suppressMessages({{{test}}})"]).split()
    if lacking:
        packages = " ".join(f"r-cran-{p}" for p in lacking)
        return f"versus_r.py needs R packages that are not here, {' and '.join(lacking)}: apt install {packages}"
    return None


def _rscript(arguments: Sequence[str]) -> str:
    done = subprocess.run(["Rscript", "--vanilla", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Rscript failed: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def run_r(sample: Sample, ways: Sequence[str], seeds: int, decay: float, warm: bool = True) -> tuple[list[Record], str]:
    """Fits by each of `ways` for seeds 1, 2, ..., timed within R, and which versions made them.

    warm: whether a fit of each, of another seed, goes before what is timed.
    """
    with tempfile.TemporaryDirectory() as folder:
        script, data, out = (Path(folder) / name for name in ("fits.R", "data.csv", "out.csv"))
        script.write_text(R_SCRIPT, encoding="utf-8")
        np.savetxt(data, np.column_stack([sample.x, sample.y]), "%.17g", ",", header=_header(sample), comments="")
        numbers = ",".join(str(seed + 1) for seed in range(seeds))
        arguments = [script, data, out, numbers, ",".join(ways), repr(float(decay)), "warm" if warm else "cold"]
        versions = _rscript([str(a) for a in arguments]).strip()
        return parsed(out.read_text(encoding="utf-8"), sample), versions


def _header(sample: Sample) -> str:
    return ",".join([*(f"x{j}" for j in range(sample.x.shape[1])), "y"])


def parsed(text: str, sample: Sample) -> list[Record]:
    """The records of the table that the script writes."""
    return [_record(row, sample) for row in csv.DictReader(io.StringIO(text))]


def _record(row: dict[str, str], sample: Sample) -> Record:
    numeric = [name for name in row if name not in ("way", "first", "converged")]
    number = {name: float("nan") if row[name] == "NA" else float(row[name]) for name in numeric}
    failed = row["first"].strip() == "NA"
    reference = -1 if failed else sample.nearest(np.array(row["first"].split(), float)[1:])
    return Record(
        row["way"],
        int(number["seed"]),
        number["seconds"],
        number["log_likelihood"],
        number["penalty"],
        number["iterations"],
        row["converged"] == "TRUE",
        int(number["experts"]),
        reference,
    )


# ---- moejax ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gated:
    """A kind of gate: the fit, the fields of `hyper` that it has, the ways of R that fit the same (of which the first is
    compared in time), and one that fits it without its ridge.
    """

    name: str
    fit: Any
    hyper: dict[str, float]
    same: tuple[str, ...]
    free: tuple[str, ...] = ()

    @property
    def ways(self) -> tuple[str, ...]:
        return self.same + self.free


def kinds(decay: float, rows: int) -> list[Gated]:
    constant, softmax = em(moejax.gates.constant()), em(moejax.gates.softmax(reference=True))
    ridge, same = {"l2_gate": decay / rows}, ("flexmix_ridge", "flexmix_ridge_ml")
    return [
        Gated("constant", constant, {}, ("flexmix", "mixtools")),
        Gated("softmax", softmax, ridge, same, ("flexmix_softmax",)),
    ]


def em(gate: Any) -> Any:
    return moejax.fit_em(moejax.moe(moejax.experts.linear(), gate, EXPERTS, family=moejax.families.gaussian()))


def key() -> jax.Array:
    return jax.random.key(0)


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = jax.block_until_ready(function())
    return time.perf_counter() - started, result


class Lone(NamedTuple):
    """Single fits, of a number of restarts: the seconds of the first call, which compiles, and of the others."""

    first: float
    records: list[Record]

    @property
    def seconds(self) -> float:
        """The median of fits that converged, of all if none did."""
        return median([r.seconds for r in self.records if r.converged] or [r.seconds for r in self.records])


def lone(kind: Gated, sample: Sample, restarts: int, rounds: int = 1, dtype: Any = np.float32, **hyper: float) -> Lone:
    """Each of `restarts` fits on its own, `rounds` times, without a penalty on the experts."""
    x, y = sample.in_type(dtype)
    hyper = {**kind.hyper, **hyper}

    def call(restart: int) -> tuple[float, Any]:
        return _timed(lambda: kind.fit(key(), x, y, {**hyper, "restart": restart}))

    first, _ = call(0)
    calls = [(restart, *call(restart)) for _ in range(rounds) for restart in range(restarts)]
    ridge = hyper.get("l2_gate", 0.0) * len(sample.y)
    return Lone(first, [_own_record(kind, sample, ridge, *each) for each in calls])


def _own_record(kind: Gated, sample: Sample, ridge: float, restart: int, seconds: float, fit: Any) -> Record:
    weights = fit.params["gate"].get("weights", np.zeros(1))
    return Record(
        f"moejax_{kind.name}",
        restart,
        seconds,
        float(fit.log_likelihood),
        ridge * float(np.square(np.asarray(weights, float)).sum()),
        int(fit.steps),
        bool(int(fit.status) & Status.CONVERGED),
        EXPERTS,
        sample.nearest(np.asarray(fit.params["experts"]["weights"][-1], float)),
    )


def within_jit(kind: Gated) -> Gated:
    """The same with its fit in a `jit` of the user's own."""
    return dataclasses.replace(kind, fit=jax.jit(lambda key, x, y, hyper: kind.fit(key, x, y, hyper)))


class Grid(NamedTuple):
    """A sweep over weights and restarts: seconds of the first call and, by round, of later ones, and what came of it."""

    first: float
    compiling: float
    rounds: list[float]
    fits: int
    converged: int
    log_likelihood: float  # the best at the smallest weight
    threads: int

    @property
    def seconds(self) -> float:
        """For each fit that converged."""
        return median(self.rounds) / max(1, self.converged)

    @property
    def share(self) -> float:
        return self.converged / self.fits


def grids(kind: Gated, sample: Sample, sizes: Sizes) -> dict[str, Grid]:
    """The grid with each fit alone and by paths, which take turns."""
    x, y = sample.in_type(np.float32)
    weights = sequence(kind.fit, "l1_experts", sizes.weights, key(), x, y, kind.hyper)
    axes = {"l1_experts": weights, "restart": sizes.restarts, **{name: [value] for name, value in kind.hyper.items()}}
    fits = {"alone": kind.fit, "path": moejax.path(kind.fit, "l1_experts")}

    def call(fit: Any) -> tuple[float, Any]:
        started = time.perf_counter()
        return moejax.sweep(fit, axes, progress=False)(key(), x, y), time.perf_counter() - started

    started = {name: call(fit)[::-1] for name, fit in fits.items()}
    rounds: dict[str, list[float]] = {name: [] for name in fits}
    for _ in range(sizes.rounds):
        for name, fit in fits.items():
            rounds[name].append(call(fit)[1])
    return {name: _grid(*started[name], rounds[name]) for name in fits}


def _grid(first: float, swept: Any, rounds: list[float]) -> Grid:
    converged = (swept.fits.status & int(Status.CONVERGED)) > 0
    smallest = int(np.argmin(swept.axes["l1_experts"]))
    best = np.nanmax(np.where(converged, swept.fits.log_likelihood, np.nan)[smallest], initial=-np.inf)
    run = swept.run
    return Grid(first, run.seconds["compile"], rounds, converged.size, int(converged.sum()), float(best), run.threads)


@dataclass(frozen=True)
class Measured:
    """What moejax did with one kind of gate.

    lone: a call of the fit after another. jitted: the same within the user's own `jit`, which leaves out the checks of the
    data. double: the restarts again in float64. free: the softmax gate unpenalised.
    """

    grid: dict[str, Grid]
    lone: Lone
    jitted: Lone
    double: Lone
    free: Lone | None


def measure(kind: Gated, sample: Sample, sizes: Sizes) -> Measured:
    grid = grids(kind, sample, sizes)
    rounds = max(sizes.rounds, -(-LEAST_CALLS // sizes.restarts))
    single, jitted = (lone(each, sample, sizes.restarts, rounds) for each in (kind, within_jit(kind)))
    with jax.enable_x64(True):
        double = lone(kind, sample, sizes.restarts, dtype=np.float64)
    free = lone(kind, sample, sizes.restarts, l2_gate=0.0) if kind.hyper else None
    return Measured(grid, single, jitted, double, free)


# ---- what it comes to -----------------------------------------------------------------------------------------------


def best(records: Sequence[Record], reference: int | None = None) -> float | None:
    """The largest penalised log-likelihood of the fits that kept all experts, with that expert at the reference if given."""
    there = [r for r in records if r.experts == EXPERTS and reference in (None, r.reference)]
    return max((r.penalised for r in there if np.isfinite(r.penalised)), default=None)


def seconds_of(records: Sequence[Record]) -> float:
    """The median over seeds of those that did not fail."""
    return median([r.seconds for r in records if r.experts] or [float("nan")])


def likelihoods(kind: Gated, measured: Measured, of_r: dict[str, list[Record]]) -> dict[str, Any]:
    """Penalised log-likelihoods of both sides: the best of all, and with each true expert at the reference of the gate."""
    sides = {way: of_r[way] for way in kind.same}
    sides |= {"moejax_float32": measured.lone.records, "moejax_float64": measured.double.records}
    found: dict[str, Any] = {"best": {side: best(records) for side, records in sides.items()}}
    if kind.hyper:
        for expert in range(EXPERTS):
            found[f"reference_{expert + 1}"] = {side: best(records, expert) for side, records in sides.items()}
    if measured.free is not None:
        free = {way: of_r[way] for way in kind.free} | {"moejax_float32": measured.free.records}
        found["without_ridge"] = {side: best(records) for side, records in free.items()}
    return found


def shortfalls(found: dict[str, dict[str, Any]]) -> list[str]:
    """In words, where moejax ends below R. Not without a ridge, where there is no maximum to reach."""
    told = []
    for name, values in found.items():
        if name == "without_ridge":
            continue
        ours = {side: v for side, v in values.items() if side.startswith("moejax") and v is not None}
        theirs = {side: v for side, v in values.items() if not side.startswith("moejax") and v is not None}
        for side, value in ours.items():
            for other, limit in theirs.items():
                if value < limit - SLACK:
                    told.append(f"{name}: {side} ends at {value:.4f}, below {other} at {limit:.4f}")
    return told


def summary(kind: Gated, measured: Measured, of_r: dict[str, list[Record]]) -> dict[str, Any]:
    """The entry of a gate in versus_r.json."""
    seconds = {way: seconds_of(of_r[way]) for way in kind.ways}
    ours = {name: grid.seconds for name, grid in measured.grid.items()}
    ours |= {"lone": measured.lone.seconds, "jitted": measured.jitted.seconds}
    return {
        "seconds": seconds | {f"moejax_{name}": value for name, value in ours.items()},
        "ratio": {name: {way: seconds[way] / value for way in kind.ways} for name, value in ours.items()},
        "grid": {name: _grid_summary(grid) for name, grid in measured.grid.items()},
        "lone": _lone_summary(measured.lone),
        "jitted": _lone_summary(measured.jitted),
        "lone_float64": _lone_summary(measured.double),
        "log_likelihood": likelihoods(kind, measured, of_r),
        "r": {way: of_seeds(of_r[way]) for way in kind.ways},
    }


def _grid_summary(grid: Grid) -> dict[str, Any]:
    return {
        "fits": grid.fits,
        "converged_share": grid.share,
        "seconds_per_converged_fit": grid.seconds,
        "seconds_rounds": grid.rounds,
        "seconds_first_call": grid.first,
        "seconds_compile": grid.compiling,
        "log_likelihood_at_smallest_weight": grid.log_likelihood,
        "threads": grid.threads,
    }


def _lone_summary(single: Lone) -> dict[str, Any]:
    return {"seconds_first_call": single.first, **of_seeds(single.records), "seconds": single.seconds}


def of_seeds(records: Sequence[Record]) -> dict[str, Any]:
    """What came of fits from different starts. at_best_share: of those that end less than 0.5 below the best of them."""
    top = best(records)
    done = [r for r in records if r.experts]
    return {
        "seconds": seconds_of(records),
        "iterations": median([r.iterations for r in done]) if done else None,
        "converged_share": sum(r.converged for r in records) / len(records),
        "at_best_share": 0.0 if top is None else sum(r.penalised > top - 0.5 for r in done) / len(records),
        "log_likelihoods": sorted({round(r.log_likelihood, 4) for r in done}),
        "penalised": sorted({round(r.penalised, 4) for r in done}),
    }


# ---- telling --------------------------------------------------------------------------------------------------------


def report(kind: Gated, told: dict[str, Any], sizes: Sizes) -> str:
    """The tables of a gate: ratios of time, then likelihoods."""
    ridge = f", decay {sizes.decay:g}" if kind.hyper else ""
    lines = [f"{kind.name} gate{ridge}; seconds of R for a fit over those of moejax", ""]
    lines.append(_row("", [*kind.ways, "want", "seconds"]))
    for name, ratio in told["ratio"].items():
        target = TARGETS["lone" if name in ("lone", "jitted") else "grid"]
        cells = [*(f"{ratio[way]:.1f}" for way in kind.ways), f"{target}", f"{told['seconds'][f'moejax_{name}']:.3g}"]
        lines.append(_row(_LONG[name], cells))
    lines.append(_row("seconds", [f"{told['seconds'][way]:.3g}" for way in kind.ways]))
    return "\n".join([*lines, "", *_notes(told), "", *_likelihood_lines(told["log_likelihood"])])


_LONG = {
    "alone": "grid, each fit alone",
    "path": "grid, warm starts",
    "lone": "lone fits",
    "jitted": "lone fits, within jit",
}


def _row(name: str, cells: Sequence[str]) -> str:
    return f"{name:28}" + "".join(f"{cell:>18}" for cell in cells)


def _notes(told: dict[str, Any]) -> list[str]:
    lines = []
    for name, grid in told["grid"].items():
        ended = f"{grid['converged_share']:.1%} of {grid['fits']} fits converged, on {grid['threads']} threads"
        lines.append(f"{_LONG[name]}: {ended}; first call, with compiling: {grid['seconds_first_call']:.1f} s")
    single, longer = told["lone"], told["lone_float64"]["seconds"] / told["lone"]["seconds"]
    lines.append(
        f"lone fits: {single['converged_share']:.0%} converged, first call {single['seconds_first_call']:.1f} s; "
        f"{longer:.1f} times as long in float64"
    )
    of_starts = {**told["r"], "lone fits": single}
    shares = ", ".join(f"{way} {of['at_best_share']:.0%}" for way, of in of_starts.items())
    counts = ", ".join(f"{way} {_whole(of['iterations'])}" for way, of in of_starts.items())
    return [*lines, f"starts that end at the best optimum: {shares}", f"iterations: {counts}"]


def _likelihood_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The ridge is taken off; the last column is moejax in float64 less the first of R."""
    sides = list(found["best"])
    lines = [_row("log-likelihood", [*sides, "better by"])]
    for name, values in found.items():
        if name != "without_ridge":
            cells = [*(values[side] for side in sides), _better(values[sides[0]], values["moejax_float64"])]
            lines.append(_row(name.replace("_", " "), [_number(cell) for cell in cells]))
    if "without_ridge" in found:
        values = ", ".join(f"{side} {_number(value)}" for side, value in found["without_ridge"].items())
        lines.append(f"without ridge, where there is no maximum: {values}")
    return lines


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _better(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else ours - theirs


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def compare_large(sizes: Sizes) -> dict[str, Any]:
    """Lone fits of the softmax gate on 20,000 rows, with the ridge per row that the small sample has."""
    sample = large()
    decay = sizes.decay * LARGE_ROWS / len(notebook().y)
    kind = kinds(decay, LARGE_ROWS)[1]
    records, _ = run_r(sample, LARGE_WAYS, LARGE_SEEDS, decay, warm=False)
    single = lone(kind, sample, LARGE_RESTARTS, sizes.rounds)
    of_r = by_way(records)
    same = {"flexmix_ridge": of_r["flexmix_ridge"], "moejax_float32": single.records}
    return {
        "rows": LARGE_ROWS,
        "decay": decay,
        "ratio": {way: seconds_of(of_r[way]) / single.seconds for way in LARGE_WAYS},
        "lone": _lone_summary(single),
        "r": {way: of_seeds(of_r[way]) for way in LARGE_WAYS},
        "log_likelihood": {
            f"reference_{expert + 1}": {side: best(found, expert) for side, found in same.items()}
            for expert in range(EXPERTS)
        },
    }


def report_large(told: dict[str, Any]) -> str:
    ratios = ", ".join(f"{way} / moejax {ratio:.1f}" for way, ratio in told["ratio"].items())
    lines = [f"lone fits, {told['rows']} rows, softmax gate: {ratios}"]
    for name, values in told["log_likelihood"].items():
        reached = ", ".join(f"{side} {_number(value)}" for side, value in values.items())
        lines.append(f"{name.replace('_', ' ')}: {reached}")
    return "\n".join(lines)


def by_way(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {way: [r for r in records if r.way == way] for way in dict.fromkeys(r.way for r in records)}


# ---- the command ----------------------------------------------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; want a whole number of at least 1")
    return int(text)


def _several(text: str) -> int:
    if _count(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} was given; want a whole number of at least 2")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} was given; want a number above 0")
    return value


def parse(arguments: list[str] | None) -> tuple[Sizes, bool, Path]:
    """The command line's sizes, whether to fit the large sample too, and the folder."""
    usual = Sizes()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=_count, default=usual.seeds, help=f"fits of R in each way ({usual.seeds})")
    parser.add_argument("--weights", type=_several, default=usual.weights, help=f"penalties in the grid ({usual.weights})")
    parser.add_argument("--restarts", type=_count, default=usual.restarts, help=f"starts of each ({usual.restarts})")
    parser.add_argument("--rounds", type=_count, default=usual.rounds, help=f"rounds of timing ({usual.rounds})")
    parser.add_argument("--decay", type=_positive, default=usual.decay, help=f"ridge of the softmax gate ({usual.decay})")
    parser.add_argument("--large", action="store_true", help="lone fits on 20,000 rows too; takes minutes")
    parser.add_argument("--out", metavar="DIR", default="results/versus_r", help="default: %(default)s")
    given = parser.parse_args(arguments)
    return Sizes(given.seeds, given.weights, given.restarts, given.rounds, given.decay), given.large, Path(given.out)


def main(arguments: list[str] | None = None) -> None:
    """Fit, print and write; raises RuntimeError where moejax ends below R."""
    sizes, with_large, out = parse(arguments)
    lacking = missing()
    if lacking:
        print(lacking)
        return
    out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_platforms", "cpu")
    sample = notebook()
    records, versions = run_r(sample, SMALL_WAYS, sizes.seeds, sizes.decay)
    of_r = by_way(records)
    told: dict[str, Any] = {"data": {"name": "three_regressions", "n": len(sample.y), "d": sample.x.shape[1]}}
    told |= {"r_versions": versions, "seeds": sizes.seeds, "decay": sizes.decay, "rounds": sizes.rounds}
    told |= {"device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores", "targets": TARGETS, "gates": {}}
    print(f"{versions}; medians of {sizes.seeds} seeds; moejax in float32, medians of {sizes.rounds} rounds\n")
    for kind in kinds(sizes.decay, len(sample.y)):
        told["gates"][kind.name] = summary(kind, measure(kind, sample, sizes), of_r)
        print(report(kind, told["gates"][kind.name], sizes) + "\n", flush=True)
    if with_large:
        told["large"] = compare_large(sizes)
        print(report_large(told["large"]) + "\n")
    told["shortfalls"] = [line for gate in told["gates"].values() for line in shortfalls(gate["log_likelihood"])]
    write_json(told, out / "versus_r.json")
    print(f"written: {out / 'versus_r.json'}")
    if told["shortfalls"]:
        raise RuntimeError("; ".join(told["shortfalls"]))


if __name__ == "__main__":
    run_command(main)
