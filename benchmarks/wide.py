"""EM on wide tables with correlated columns: iterations, optima and time beside a plain EM with exact M-steps.

    python benchmarks/wide.py [--rounds N] [--quick] [--out DIR]

Eight problems: 400 rows x 100 columns of rank 80 and of rank 100, two tables of each, at two L1 weights. Two Gaussian
experts with scales of their own, a softmax gate with the last expert as reference, L1 on both, float64, to a KKT violation
of 1e-5. Eight starts each, responsibilities that are nearly equal, all at once (`vmap`) in one program.

`plain_em` here is what is compared with: M-steps by coordinate descent, 30 sweeps over all columns, and Anderson's
extrapolation over the last 12 iterations. It gets the same responsibilities. Wanted of the library: all starts converged
within 400 iterations, a median number of them within 1.2 times that of the plain EM, a best objective no worse by more
than 1e-3, and all starts together no slower, compiled.

Then the time of an iteration (its slope over max_iter, tol=0) at 30, 100 and 300 columns of 400 rows, which shall grow no
faster than the square of the columns.

Prints both tables and writes `wide.json` and `wide.png` to DIR. --quick, to see that it runs, takes small tables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from lambda_grid import panels, run_command, write_json

import moejax

EXPERTS = 2
TOL = 1e-5
MOST = 400  # iterations
PLAIN_MOST = 1000
SWEEPS, MEMORY = 30, 12
SETTLING = 5  # plain iterations before the first extrapolation
FLOOR = 0.05  # of a variance, as a share of the largest, which is the library's own
GATE_SHARE = 1 / 3  # the gate's L1 weight over that of the experts
CONCENTRATION = 20.0  # of the Dirichlet distribution of the first responsibilities
ITERATIONS, OBJECTIVE, TIME, POWER = 1.2, 1e-3, 1.0, 2.0  # what is wanted at most


# ---- what is fitted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A table and an L1 weight. rank: of the table, whose other columns are sums of the first."""

    rank: int
    seed: int
    l1: float
    rows: int = 400
    columns: int = 100
    starts: int = 8

    def table(self) -> tuple[jax.Array, jax.Array]:
        """x (n, d) and y (n,), standardised."""
        rng = np.random.default_rng(self.seed)
        places = np.arange(self.rank)
        covariance = 0.5 ** np.abs(places[:, None] - places)
        independent = rng.normal(size=(self.rows, self.rank)) @ np.linalg.cholesky(covariance).T
        mixing = rng.normal(size=(self.rank, self.columns - self.rank)) / np.sqrt(self.rank)
        x = np.concatenate([independent, independent @ mixing], axis=1)
        weights = np.zeros((EXPERTS, self.columns))
        for expert in weights:
            expert[rng.choice(self.rank, min(8, self.rank), replace=False)] = rng.normal(size=min(8, self.rank))
        second = x[:, :3].sum(axis=1) + rng.logistic(size=self.rows) > 0
        y = (x * weights[second.astype(int)]).sum(axis=1) + 0.5 * rng.normal(size=self.rows)
        return jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0)), jnp.asarray((y - y.mean()) / y.std())

    def responsibilities(self) -> jax.Array:
        """Of each start, (starts, n, K)."""
        seeds = range(self.starts)
        return jnp.asarray([np.random.default_rng(s).dirichlet([CONCENTRATION] * EXPERTS, self.rows) for s in seeds])


PROBLEMS = tuple(Problem(rank, seed, l1) for rank in (80, 100) for seed in (0, 1) for l1 in (0.03, 0.01))
QUICK = (Problem(6, 0, 0.03, rows=80, columns=8, starts=2),)
WIDTHS, QUICK_WIDTHS = (30, 100, 300), (8,)
SLOPE = (10, 40)  # iterations between which it is taken


class Ends(NamedTuple):
    """Where the starts of a problem ended: (starts,) each. objective: to be lowered; kkt: its violation."""

    objective: Any
    steps: Any
    kkt: Any


Solver = Callable[[jax.Array, jax.Array, jax.Array, float], Ends]


def library(max_iter: int = MOST, tol: float = TOL) -> Solver:
    """The library's EM of all starts at once."""
    gate, family = moejax.gates.softmax(reference=True), moejax.families.gaussian()
    fit = moejax.fit_em(moejax.moe(moejax.experts.linear(), gate, EXPERTS, family=family), max_iter=max_iter, tol=tol)

    def one(first: jax.Array, x: jax.Array, y: jax.Array, l1: Any) -> Ends:
        hyper = {"l1_experts": l1, "l1_gate": GATE_SHARE * l1}
        ended = fit(jax.random.key(0), x, y, hyper, start=first)
        return Ends(ended.objective, ended.steps, ended.kkt)

    return jax.jit(jax.vmap(one, (0, None, None, None)))


# ---- the plain EM ---------------------------------------------------------------------------------------------------


class Params(NamedTuple):
    """Coefficients (K, d + 1) of the experts and (K - 1, d + 1) of the gate, intercepts first, and log variances (K,)."""

    experts: jax.Array
    gate: jax.Array
    log_variance: jax.Array


class Walk(NamedTuple):
    """What the loop carries. here: where the next iteration begins; safe: where the last one led; points and moves: where
    the last iterations began and how far they led, the last first.
    """

    here: jax.Array
    safe: jax.Array
    objective: jax.Array
    steps: jax.Array
    points: jax.Array
    moves: jax.Array
    kkt: jax.Array
    done: jax.Array


def coordinate_descent(gram: jax.Array, target: jax.Array, start: jax.Array, l1: jax.Array) -> jax.Array:
    """The minimum over w (K, d) of w'Gw / 2 - target'w + sum of l1 |w|, by sweeps over the coordinates."""
    width = start.shape[1]
    curvature = jnp.diagonal(gram, axis1=1, axis2=2)

    def update(turn: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        weights, slope = state  # slope: G w
        j = turn % width
        pull = target[:, j] - slope[:, j] + curvature[:, j] * weights[:, j]
        new = jnp.sign(pull) * jnp.maximum(jnp.abs(pull) - l1[j], 0) / curvature[:, j]
        slope = slope + (new - weights[:, j])[:, None] * gram[:, j]
        return weights.at[:, j].set(new), slope

    first = start, jnp.einsum("kij,kj->ki", gram, start)
    return jax.lax.fori_loop(0, SWEEPS * width, update, first)[0]


def violation(weights: jax.Array, gradient: jax.Array, l1: jax.Array) -> jax.Array:
    """The largest distance of a coefficient from its optimality condition."""
    at_zero = jnp.maximum(jnp.abs(gradient) - l1, 0)
    return jnp.where(weights == 0, at_zero, jnp.abs(gradient + l1 * jnp.sign(weights))).max()


def iterate(
    params: Params, given: tuple[jax.Array, jax.Array], x: jax.Array, y: jax.Array, l1: Any
) -> tuple[Params, jax.Array, jax.Array]:
    """An iteration of EM: where it leads, and the objective and its KKT violation where it begins.

    given: the first responsibilities (K, n), and whether they take the place of those at params. x: (n, d + 1).
    """
    rows, width = x.shape
    penalised = jnp.ones(width).at[0].set(0.0)
    l1_experts, l1_gate = l1 * penalised, GATE_SHARE * l1 * penalised
    variance = jnp.exp(params.log_variance)[:, None]
    residuals = y - params.experts @ x.T
    logits = jnp.concatenate([params.gate @ x.T, jnp.zeros((1, rows))])
    log_gate = jax.nn.log_softmax(logits, axis=0)
    log_joint = log_gate - (jnp.log(2 * jnp.pi * variance) + residuals**2 / variance) / 2
    log_density = jax.nn.logsumexp(log_joint, axis=0)
    responsibilities = jnp.where(given[1], given[0], jnp.exp(log_joint - log_density))

    of_experts = -(responsibilities * residuals / variance) @ x / rows
    of_gate = (jnp.exp(log_gate) - responsibilities)[:-1] @ x / rows
    gram = jnp.einsum("kn,ni,nj->kij", responsibilities / variance / rows, x, x)
    bound = (x.T @ x / (4 * rows))[None]  # no less than the gate's curvature

    def lowered(weights: jax.Array, gradient: jax.Array, gram: jax.Array, l1: jax.Array) -> jax.Array:
        return coordinate_descent(gram, jnp.einsum("kij,kj->ki", gram, weights) - gradient, weights, l1)

    experts, gate = lowered(params.experts, of_experts, gram, l1_experts), lowered(params.gate, of_gate, bound, l1_gate)
    spread = (responsibilities * (y - experts @ x.T) ** 2).sum(axis=1) / responsibilities.sum(axis=1)
    penalty = (l1_experts * jnp.abs(params.experts)).sum() + (l1_gate * jnp.abs(params.gate)).sum()
    kkt = jnp.maximum(violation(params.experts, of_experts, l1_experts), violation(params.gate, of_gate, l1_gate))
    log_variance = jnp.log(jnp.maximum(spread, FLOOR * spread.max()))
    return Params(experts, gate, log_variance), penalty - log_density.mean(), kkt


def extrapolated(points: jax.Array, moves: jax.Array, plain: jax.Array) -> jax.Array:
    """Anderson's guess where iterations lead; what the last one brought to 0 stays there. Rows that are 0 are not filled."""
    filled = (moves[1:] != 0).any(axis=1, keepdims=True)
    move_changes, point_changes = (jnp.where(filled, v[1:] - v[0], 0) for v in (moves, points))
    normal = move_changes @ move_changes.T
    ridge = (1e-10 * jnp.trace(normal) + 1e-300) * jnp.eye(len(normal))
    shares = jnp.linalg.solve(normal + ridge, -move_changes @ moves[0])
    return jnp.where(plain == 0, 0.0, plain + shares @ (move_changes + point_changes))


def plain_em(max_iter: int = PLAIN_MOST) -> Solver:
    """EM with exact M-steps of all starts at once. A guess at which the objective is higher is taken back."""

    def one(first: jax.Array, x: jax.Array, y: jax.Array, l1: Any) -> Ends:
        x = jnp.concatenate([jnp.ones((len(x), 1)), x], axis=1)
        width = x.shape[1]
        zeros = Params(jnp.zeros((EXPERTS, width)), jnp.zeros((EXPERTS - 1, width)), jnp.full(EXPERTS, jnp.log(y.var())))
        begin, of_vector = jax.flatten_util.ravel_pytree(zeros)

        def turn(walk: Walk) -> Walk:
            after, objective, kkt = iterate(of_vector(walk.here), (first.T, walk.steps == 0), x, y, l1)
            worse = (objective > walk.objective + 1e-12) & (walk.steps > 1)
            plain = jax.flatten_util.ravel_pytree(after)[0]
            points, moves = (
                jnp.where(worse, 0.0, jnp.roll(kept, 1, axis=0).at[0].set(new))
                for kept, new in ((walk.points, walk.here), (walk.moves, plain - walk.here))
            )
            guess = extrapolated(points, moves, plain)
            guess = jnp.where((walk.steps > SETTLING) & jnp.isfinite(guess).all(), guess, plain)
            done = (kkt < TOL) & (walk.steps > 0) & ~worse
            return Walk(
                here=jnp.where(done, walk.here, jnp.where(worse, walk.safe, guess)),
                safe=jnp.where(worse, walk.safe, plain),
                objective=jnp.where(worse, walk.objective, objective),
                steps=walk.steps + 1,
                points=points,
                moves=moves,
                kkt=kkt,
                done=done,
            )

        none, infinite = jnp.zeros((MEMORY, begin.size)), jnp.full((), jnp.inf)
        walk = Walk(begin, begin, infinite, jnp.zeros((), int), none, none, infinite, jnp.zeros((), bool))
        ended = jax.lax.while_loop(lambda walk: ~walk.done & (walk.steps < max_iter), turn, walk)
        return Ends(ended.objective, ended.steps, ended.kkt)

    return jax.jit(jax.vmap(one, (0, None, None, None)))


# ---- what is measured -----------------------------------------------------------------------------------------------


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - started, result


def compared(problem: Problem, solvers: dict[str, Solver], rounds: int) -> dict[str, Any]:
    """Both solvers on one problem, in turn, compiled."""
    arguments = problem.responsibilities(), *problem.table(), problem.l1
    ends = {name: jax.block_until_ready(solver(*arguments)) for name, solver in solvers.items()}
    times: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(rounds):
        for name, solver in solvers.items():
            times[name].append(timed(partial(solver, *arguments))[0])
    told = {name: of_ends(end) | {"seconds": times[name]} for name, end in ends.items()}
    ours, plain = told["library"], told["plain"]
    ratio = {
        "iterations": ours["median_iterations"] / plain["median_iterations"],
        "objective_worse_by": ours["best_objective"] - plain["best_objective"],
        "time": median(ours["seconds"]) / median(plain["seconds"]),
    }
    return {"rank": problem.rank, "table": problem.seed, "l1": problem.l1, "starts": problem.starts, **told, **ratio}


def of_ends(ends: Ends) -> dict[str, Any]:
    objective, steps, kkt = (np.asarray(v) for v in ends)
    converged = kkt <= TOL
    return {
        "converged": int((converged & (steps <= MOST)).sum()),
        "median_iterations": float(np.median(steps)),
        "best_objective": float(np.nanmin(objective)),
        "iterations": steps.tolist(),
        "objectives": objective.tolist(),
    }


def growth(widths: Sequence[int], counts: tuple[int, int], rounds: int, starts: int) -> dict[str, Any]:
    """Seconds of an iteration by the number of columns, and the powers of it by which they grow."""
    solvers = [library(count, 0.0) for count in counts]
    seconds = [iteration_seconds(Problem(d, 0, 0.03, columns=d, starts=starts), solvers, counts, rounds) for d in widths]
    powers = powers_of(widths, seconds)
    return {"columns": list(widths), "starts": starts, "seconds_iteration": seconds, "powers": powers, "want": POWER}


def iteration_seconds(problem: Problem, solvers: Sequence[Solver], counts: tuple[int, int], rounds: int) -> float:
    """The slope of the time between two solvers that take so many iterations."""
    arguments = problem.responsibilities(), *problem.table(), problem.l1
    for solver in solvers:
        jax.block_until_ready(solver(*arguments))
    times = [[timed(partial(solver, *arguments))[0] for solver in solvers] for _ in range(rounds)]
    few, many = (median(part) for part in zip(*times, strict=True))
    return (many - few) / (counts[1] - counts[0])


def powers_of(widths: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Between neighbours, the power of the width by which seconds grow; NaN where noise hides them."""
    pairs = zip(widths, widths[1:], seconds, seconds[1:], strict=False)
    return [log(u / t) / log(e / d) if min(t, u) > 0 else float("nan") for d, e, t, u in pairs]


# ---- telling --------------------------------------------------------------------------------------------------------

HEAD = f"{'':24}{'converged':>10}{'iterations':>12}{'plain':>7}{'ratio':>7}{'objective worse by':>20}{'time / plain':>14}"


def row(told: dict[str, Any]) -> str:
    ours, plain = told["library"], told["plain"]
    name = f"rank {told['rank']}, table {told['table']}, l1 {told['l1']:g}"
    met = "yes" if meets(told) else "no"
    return (
        f"{name:24}{ours['converged']:>7}/{told['starts']:<2}{ours['median_iterations']:>12g}{plain['median_iterations']:>7g}"
        f"{told['iterations']:>7.2f}{told['objective_worse_by']:>20.2g}{told['time']:>14.2f}  {met}"
    )


def meets(told: dict[str, Any]) -> bool:
    """Whether a problem is solved as is wanted."""
    good = told["library"]["converged"] == told["starts"] and told["iterations"] <= ITERATIONS
    return good and told["objective_worse_by"] <= OBJECTIVE and told["time"] <= TIME


def growth_rows(told: dict[str, Any]) -> str:
    lines = [f"{'columns':>8}{'iteration, ms':>15}{'power of columns':>18}{'want':>6}"]
    for width, seconds, power in zip(told["columns"], told["seconds_iteration"], [None, *told["powers"]], strict=True):
        lines.append(f"{width:>8}{1e3 * seconds:>15.3g}" + ("" if power is None else f"{power:>18.2f}{POWER:>6.1f}"))
    return "\n".join(lines)


def draw(results: Sequence[dict[str, Any]], grown: dict[str, Any]) -> Any:
    """Iterations of every start on both sides, times, and the time of an iteration by the number of columns."""
    figure, (iterations, times, columns) = panels(3, 3, (4.6, 3.8))
    labels = [f"{told['rank']}, {told['table']}, {told['l1']:g}" for told in results]
    sides = {"library": ("this library", "#4477AA", -0.15), "plain": ("plain EM", "#CC3311", 0.15)}
    for name, (label, colour, shift) in sides.items():
        steps = [told[name]["iterations"] for told in results]
        at = [place + shift for place, each in enumerate(steps) for _ in each]
        iterations.plot(at, [count for each in steps for count in each], "o", color=colour, alpha=0.5, ms=4, label=label)
        seconds = [median(told[name]["seconds"]) for told in results]
        times.bar([place + shift for place in range(len(results))], seconds, width=0.3, color=colour, label=label)
    iterations.axhline(MOST, color="#888888", linewidth=1, linestyle="--", label="most allowed")
    iterations.set_ylabel("iterations of each start")
    times.set_ylabel("time of all starts (s)")
    iterations.set_yscale("log")
    for ax in (iterations, times):
        ax.set_xticks(range(len(results)), labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
        ax.set_xlabel("rank, table, L1 weight of the experts")
    widths, milliseconds = np.array(grown["columns"], float), 1e3 * np.array(grown["seconds_iteration"])
    milliseconds = np.maximum(milliseconds, 1e-3)  # noise may hide an iteration
    columns.loglog(widths, milliseconds, "o-", color="#4477AA", label="this library")
    columns.loglog(
        widths, milliseconds[0] * (widths / widths[0]) ** POWER, "--", color="#888888", label="square of the columns"
    )
    columns.set_xticks(widths, [f"{width:g}" for width in widths])
    columns.minorticks_off()
    columns.set_xlabel("columns")
    columns.set_ylabel("time of an iteration (ms)")
    for ax in (iterations, times, columns):  # with room for the legend
        low, high = ax.get_ylim()
        ax.set_ylim(low, 1.35 * high if ax is times else high * (high / low) ** 0.35)
        ax.legend(fontsize=8, loc="upper left")
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it runs")
    parser.add_argument("--out", metavar="DIR", default="results/wide", help="default: %(default)s")
    given = parser.parse_args(arguments)
    rounds = (1 if given.quick else 3) if given.rounds is None else given.rounds
    if rounds < 1:
        parser.error(f"--rounds: {rounds} was given; want at least 1")
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_platforms", "cpu")
    want = {"iterations": ITERATIONS, "objective_worse_by": OBJECTIVE, "time": TIME, "most_iterations": MOST}
    about = {"rounds": rounds, "quick": given.quick, "want": want}
    results: list[dict[str, Any]] = []
    with jax.enable_x64(True):
        solvers = {"library": library(), "plain": plain_em()}
        print(HEAD, flush=True)
        for problem in QUICK if given.quick else PROBLEMS:
            results.append(compared(problem, solvers, rounds))
            print(row(results[-1]), flush=True)
            write_json({**about, "problems": results}, out / "wide.json")
        widths, counts = (QUICK_WIDTHS, (1, 3)) if given.quick else (WIDTHS, SLOPE)
        grown = growth(widths, counts, rounds, 2 if given.quick else 8)
    print("\n" + growth_rows(grown))
    write_json({**about, "problems": results, "growth": grown}, out / "wide.json")
    draw(results, grown).savefig(out / "wide.png", dpi=100)
    print(f"written: {out / 'wide.json'}, {out / 'wide.png'}")


if __name__ == "__main__":
    run_command(main)
