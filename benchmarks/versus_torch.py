"""The same thousand fits three ways: PyTorch one by one, PyTorch batched by hand, and one sweep of moejax.

    python benchmarks/versus_torch.py [--fits N] [--steps N] [--one-by-one N] [--batched-steps N] [--rounds N] [--out DIR]

Each is a mixture of three linear experts with a softmax gate, fitted to the 500 training rows of the three-regressions
sample by Adam at rate 0.1 on squared error plus an L1 penalty on the experts' weights. All three start from the same values,
and before anything is timed their objectives over the first steps must agree. Everything runs on the CPU. The three ways
take turns for several rounds; medians are compared, and PyTorch's are scaled up from fewer fits or fewer steps.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import moejax
from moejax.sweeps import Sweep, compile_for

try:
    import torch
except ImportError:
    print('versus_torch.py needs PyTorch, which is not here: pip install torch (or pip install ".[bench]")', file=sys.stderr)
    raise SystemExit(2) from None

EXPERTS = 3
RATE = 0.1
MOST_RESTARTS = 20
# The bias correction of optax's Adam is in float32, PyTorch's in float64: steps differ in length by 6e-6 from the first on.
# That grows, in the most sensitive of 1,000 fits to 4e-5 of the objective after 10 steps, 2e-4 after 20; later it is chaos.
AGREEING_STEPS = 10
TOLERANCE = 1e-4
CHUNKS = (100, 200, 500, 1000)  # fits at once, of which the batched way takes the fastest size
FLOOR_STEPS = 2000
WAYS = ("one_by_one", "batched", "moejax")


class Disagreement(RuntimeError):
    """The three ways do not fit the same thing."""


# ---- what is fitted -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """The rows, the penalties (P,), the number of restarts R, and their starts, R on every leading axis.

    Fit number i has the penalty i // R and the restart i % R.
    """

    x: np.ndarray
    y: np.ndarray
    penalties: np.ndarray
    restarts: int
    starts: dict[str, np.ndarray]

    @property
    def fits(self) -> int:
        return len(self.penalties) * self.restarts

    def l1(self, members: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.penalties[members // self.restarts])

    def start(self, name: str, members: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.starts[name][members % self.restarts])

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.x), torch.from_numpy(self.y)


def make_problem(fits: int) -> Problem:
    """The notebook's sample, with as many restarts, up to 20, as divide `fits` and leave more than one penalty."""
    data, parts = moejax.datasets.notebook()
    x, y = data.x[parts.train].astype(np.float32), data.y[parts.train].astype(np.float32)
    restarts = next(r for r in range(min(MOST_RESTARTS, max(1, fits // 2)), 0, -1) if fits % r == 0)
    penalties = np.concatenate([[0.0], np.geomspace(1e-4, 1.0, fits // restarts - 1)]).astype(np.float32)
    # The starts that a sweep draws: that of restart r is from the key with r folded in.
    drawn = jax.vmap(lambda r: model().init(jax.random.fold_in(key(), r), x))(jnp.arange(restarts))
    starts = {
        f"{part}.{name}": np.array(drawn[part][name]) for part in ("experts", "gate") for name in ("weights", "intercept")
    }
    return Problem(x, y, penalties, restarts, starts)


def model() -> moejax.Model:
    return moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), EXPERTS)


def key() -> jax.Array:
    return jax.random.key(0)


# ---- the three ways, each giving the objective before every step, (members, steps) ----------------------------------


class Mixture(torch.nn.Module):
    """The notebook's module."""

    def __init__(self, features: int):
        super().__init__()
        self.experts = torch.nn.ModuleList(torch.nn.Linear(features, 1) for _ in range(EXPERTS))
        self.gate = torch.nn.Linear(features, EXPERTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = torch.softmax(self.gate(x), dim=1)
        predictions = torch.cat([expert(x) for expert in self.experts], dim=1)
        return (shares * predictions).sum(dim=1)

    @torch.no_grad()
    def load(self, problem: Problem, member: int) -> None:
        """Take the start of a member of the grid."""
        start = {name: problem.start(name, np.array([member]))[0] for name in problem.starts}
        for k, expert in enumerate(self.experts):
            expert.weight.copy_(start["experts.weights"][k : k + 1])
            expert.bias.copy_(start["experts.intercept"][k : k + 1])
        self.gate.weight.copy_(start["gate.weights"])
        self.gate.bias.copy_(start["gate.intercept"])


def one_by_one(problem: Problem, members: np.ndarray, steps: int) -> np.ndarray:
    """PyTorch as the notebook has it, one fit after another; its operations are too small for more than one thread."""
    with _torch_threads(1):
        return np.array([_notebook_fit(problem, int(member), steps) for member in members])


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """So many threads in each of PyTorch's operations, here and in threads that are started within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _notebook_fit(problem: Problem, member: int, steps: int) -> list[float]:
    x, y = problem.rows()
    l1 = float(problem.l1(np.array([member])))
    mixture = Mixture(x.shape[1])
    mixture.load(problem, member)
    optimizer = torch.optim.Adam(mixture.parameters(), lr=RATE)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(mixture(x), y)
        loss = loss + l1 * sum(expert.weight.abs().sum() for expert in mixture.experts)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return history


class Plan(NamedTuple):
    """How many fits are stacked, and whether all cores share each operation or every core has a chunk to itself."""

    chunk: int
    shared: bool

    def __str__(self) -> str:
        return f"{self.chunk} at once, {'all cores on one' if self.shared else 'a core each'}"


def batched(problem: Problem, members: np.ndarray, steps: int, plan: Plan) -> np.ndarray:
    """PyTorch with the fits of a chunk stacked by hand, on all cores.

    Of what was tried, this was the fastest: samples last; intercepts as a column of the weights; one matrix product for all
    experts of a chunk, on a par with addmm and ahead of bmm and einsum; experts and gates in a tensor each, not one for
    both; torch.softmax, not exp and a division; the fused Adam, just ahead of foreach and of the plain one. `fastest_plan`
    finds the rest: on a quiet machine, chunks of a few hundred (a third faster than a thousand at once) and all cores in
    each operation; on a busy one, where cores that share an operation wait for each other, a chunk for every core. The
    gradient by hand in place of autograd gains less than a tenth. torch.compile is left out: it needs a C++ compiler at
    run time.
    """
    parts = [members[i : i + plan.chunk] for i in range(0, len(members), plan.chunk)]
    if plan.shared:
        return np.concatenate([_batched_chunk(problem, part, steps) for part in parts])
    cores = torch.get_num_threads()
    with _torch_threads(1), ThreadPoolExecutor(cores) as pool:
        return np.concatenate(list(pool.map(lambda part: _batched_chunk(problem, part, steps), parts)))


def _batched_chunk(problem: Problem, members: np.ndarray, steps: int) -> np.ndarray:
    x, y = problem.rows()
    columns = torch.cat([x, torch.ones(len(x), 1)], dim=1).T.contiguous()
    l1 = problem.l1(members)
    experts, gates = (_stacked(problem, part, members) for part in ("experts", "gate"))
    optimizer = _adam([experts, gates])
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses = _losses(experts, gates, l1, columns, y)
        losses.sum().backward()
        optimizer.step()
        history.append(losses.detach())
    return torch.stack(history, dim=1).numpy()


def _stacked(problem: Problem, part: str, members: np.ndarray) -> torch.Tensor:
    """Weights and intercepts of all members, (G, K, d + 1)."""
    weights, intercepts = problem.start(f"{part}.weights", members), problem.start(f"{part}.intercept", members)
    return torch.cat([weights, intercepts[:, :, None]], dim=2).requires_grad_()


def _losses(
    experts: torch.Tensor, gates: torch.Tensor, l1: torch.Tensor, columns: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """The objective of each member, (G,)."""
    shape = (*experts.shape[:2], len(y))
    predictions = (experts.view(-1, len(columns)) @ columns).view(shape)
    shares = torch.softmax((gates.view(-1, len(columns)) @ columns).view(shape), dim=1)
    errors = (shares * predictions).sum(dim=1) - y
    return errors.square().mean(dim=1) + l1 * experts[:, :, :-1].abs().sum(dim=(1, 2))


def _adam(parameters: list[torch.Tensor]) -> torch.optim.Adam:
    try:
        return torch.optim.Adam(parameters, lr=RATE, fused=True)
    except RuntimeError:  # before PyTorch 2.4 it was for GPUs alone
        return torch.optim.Adam(parameters, lr=RATE)


def fastest_plan(problem: Problem, tries: int = 3, steps: int = 10) -> Plan:
    """The plan by which `batched` is fastest, by the median of several tries of each plan, which take turns."""
    sizes = sorted({min(size, problem.fits) for size in CHUNKS})
    plans = [Plan(size, shared) for size in sizes for shared in (True, False)]
    seconds: dict[Plan, list[float]] = {plan: [] for plan in plans}
    members = np.arange(min(problem.fits, max(CHUNKS)))
    for _ in range(tries):
        for plan in plans:
            seconds[plan].append(_seconds(batched, problem, members, steps, plan))
    return min(plans, key=lambda plan: median(seconds[plan]))


def swept(problem: Problem, steps: int) -> Sweep:
    """All fits as one sweep of moejax."""
    fit = moejax.fit_gradient(model(), moejax.losses.squared_error(), steps=steps, learning_rate=RATE, record_every=1)
    axes = {"l1_experts": problem.penalties, "restart": problem.restarts}
    return moejax.sweep(fit, axes, progress=False)(key(), problem.x, problem.y)


# ---- do they agree? -------------------------------------------------------------------------------------------------


def histories(problem: Problem, members: np.ndarray, steps: int, plan: Plan) -> dict[str, np.ndarray]:
    """The objectives of the first steps by each way: of `members` one by one, of all fits otherwise."""
    return {
        "one_by_one": one_by_one(problem, members, steps),
        "batched": batched(problem, np.arange(problem.fits), steps, plan),
        "moejax": swept(problem, steps).fits.history.reshape(problem.fits, steps),
    }


def check_agreement(found: dict[str, np.ndarray], members: np.ndarray) -> float:
    """The largest relative difference between the objectives of moejax and PyTorch; raises where it is too large."""
    pairs = {"one_by_one": found["moejax"][members], "batched": found["moejax"]}
    apart = {name: float(np.max(np.abs(found[name] - ours) / np.abs(ours))) for name, ours in pairs.items()}
    for name, difference in apart.items():
        if not difference < TOLERANCE:
            raise Disagreement(
                f"the objectives of {name} and moejax differ by {difference:.2g}; want less than {TOLERANCE:g}"
            )
    return max(apart.values())


# ---- the floor ------------------------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """A part of a step: a function of arrays of one chunk and of a number to add to them, 0 in effect."""

    work: Callable[[Any, Any], tuple[Any, ...]]
    arrays: tuple[np.ndarray, ...]


def pieces(problem: Problem, chunk: int) -> dict[str, Piece]:
    """What no step of one chunk can do without.

    forward: the predictors of experts and gate, two products (3C, 11) x (11, 500). backward: the gradients of their
    coefficients from the predictors' cotangents, two products (3C, 500) x (500, 11). exp: the exponential of the (C, 3, 500)
    logits. memory: the predictors read once and their cotangents written once (the products do the rest of the reading and
    writing). Not in it: subtracting the maximum, softmax's sums, means and residuals, their derivatives, the penalty, Adam.
    """
    rng = np.random.default_rng(0)
    x = np.concatenate([problem.x, np.ones((len(problem.x), 1), np.float32)], axis=1)
    rows = EXPERTS * chunk
    coefficients, predictors = (
        tuple(rng.standard_normal((2, rows, columns)).astype(np.float32)) for columns in (x.shape[1], len(x))
    )
    flat = tuple(v.ravel() for v in predictors)
    return {
        "forward": Piece(lambda a, zero: tuple((v + zero) @ x.T for v in a), coefficients),
        "backward": Piece(lambda a, zero: tuple(v @ (x + zero) for v in a), predictors),
        "exp": Piece(lambda a, zero: (jnp.exp(a[0] + zero),), flat[:1]),
        "memory": Piece(lambda a, zero: tuple(v + zero for v in a), flat),
    }


def compiled_loop(piece: Piece, steps: int) -> Callable[[], Any]:
    """The piece over and over in one program, compiled as the sweep's are.

    A tiny multiple of one number that a turn makes is added to what the next turn works on, and all that it makes is
    carried along: so nothing can be hoisted out of the loop or dropped.
    """

    def looped(arrays: tuple[jax.Array, ...]) -> tuple[Any, ...]:
        def turn(_: Any, made: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            return piece.work(arrays, 1e-30 * made[0].ravel()[0])

        return jax.lax.fori_loop(0, steps, turn, piece.work(arrays, jnp.float32(0)))

    device = jax.local_devices()[0]
    arrays = tuple(jax.device_put(v, device) for v in piece.arrays)
    executable = compile_for(jax.jit(looped).lower(arrays), device)
    return lambda: jax.block_until_ready(executable(arrays))


def floor_seconds(loops: dict[str, Callable[[], Any]], threads: int, steps: int) -> dict[str, float]:
    """Seconds by the wall clock that each piece takes for a step of one chunk, with one loop running in every thread."""
    with ThreadPoolExecutor(threads) as pool:
        return {
            name: _seconds(lambda loop=loop: _together(pool, loop, threads)) / threads / steps
            for name, loop in loops.items()
        }


def _together(pool: ThreadPoolExecutor, loop: Callable[[], Any], threads: int) -> None:
    for running in [pool.submit(loop) for _ in range(threads)]:
        running.result()


# ---- timing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """How much is timed."""

    fits: int = 1000
    steps: int = 1000
    one_by_one: int = 4
    batched_steps: int = 100
    rounds: int = 3


@dataclass(frozen=True)
class Timing:
    """Seconds for all fits and all steps by round, scaled where scaled; what came first apart; the floor by piece."""

    rounds: dict[str, list[float]]
    first: dict[str, float]
    floor: dict[str, float]
    chunk: int
    threads: int

    def seconds(self, way: str) -> float:
        return median(self.rounds[way])

    def ratio(self, way: str) -> float:
        return self.seconds(way) / self.seconds("moejax")

    @property
    def floor_fraction(self) -> float:
        return sum(self.floor.values()) / self.seconds("moejax")


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def spread(fits: int, count: int) -> np.ndarray:
    """`count` members, evenly over the grid."""
    return np.linspace(0, fits - 1, count).round().astype(int)


def measure(problem: Problem, sizes: Sizes, plan: Plan) -> Timing:
    """Time the three ways in turn, after the first call of each, and the floor beside them."""
    members, everyone = spread(problem.fits, sizes.one_by_one), np.arange(problem.fits)
    calls: dict[str, tuple[float, Callable[[], Any]]] = {
        "one_by_one": (problem.fits / len(members), lambda: one_by_one(problem, members, sizes.steps)),
        "batched": (sizes.steps / sizes.batched_steps, lambda: batched(problem, everyone, sizes.batched_steps, plan)),
        "moejax": (1.0, lambda: swept(problem, sizes.steps)),
    }
    first = {
        "one_by_one": _seconds(one_by_one, problem, members[:1], 1),
        "batched": _seconds(batched, problem, everyone, 1, plan),
    }
    run = swept(problem, sizes.steps).run
    first["moejax"] = run.seconds["compile"]
    loops = {name: compiled_loop(piece, FLOOR_STEPS) for name, piece in pieces(problem, run.chunk_size).items()}
    floor_seconds(loops, run.threads, FLOOR_STEPS)
    rounds: dict[str, list[float]] = {way: [] for way in WAYS}
    floors = []
    for _ in range(sizes.rounds):
        for way, (scale, call) in calls.items():
            rounds[way].append(scale * _seconds(call))
        floors.append(floor_seconds(loops, run.threads, FLOOR_STEPS))
    turns = problem.fits / run.chunk_size * sizes.steps
    floor = {name: turns * median(f[name] for f in floors) for name in loops}
    return Timing(rounds, first, floor, run.chunk_size, run.threads)


# ---- telling --------------------------------------------------------------------------------------------------------


def summary(timing: Timing, sizes: Sizes) -> dict[str, Any]:
    """What is written as versus_torch.json."""
    return {
        "fits": sizes.fits,
        "steps": sizes.steps,
        "seconds": {way: timing.seconds(way) for way in WAYS},
        "ratio": {way: timing.ratio(way) for way in WAYS[:2]},
        "floor_fraction": timing.floor_fraction,
        "moejax_compile": timing.first["moejax"],
        "threads": timing.threads,
        "device": jax.local_devices()[0].device_kind,
    }


def report(timing: Timing, sizes: Sizes, plan: Plan) -> str:
    """The table that is printed."""
    notes = {
        "one_by_one": f"scaled from {sizes.one_by_one} fits; first step {timing.first['one_by_one']:.3f} s",
        "batched": f"scaled from {sizes.batched_steps} steps; {plan}; first step {timing.first['batched']:.3f} s",
        "moejax": f"{timing.chunk} at once in {timing.threads} threads; compiling, apart: {timing.first['moejax']:.1f} s",
    }
    lines = [f"{sizes.fits} fits of {sizes.steps} steps, medians of {sizes.rounds} rounds", ""]
    lines.append(f"{'':12}{'over moejax':>12}{'in single rounds':>20}{'seconds':>10}")
    for way in WAYS:
        single = [ours / its for ours, its in zip(timing.rounds[way], timing.rounds["moejax"], strict=True)]
        range_of = f"{min(single):.1f} to {max(single):.1f}"
        lines.append(f"{way:12}{timing.ratio(way):>12.1f}{range_of:>20}{timing.seconds(way):>10.2f}  {notes[way]}")
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in timing.floor.items())
    lines += ["", f"floor of moejax's arithmetic and memory: {sum(timing.floor.values()):.2f} s ({parts})"]
    lines.append(f"floor / measured: {timing.floor_fraction:.2f}")
    return "\n".join(lines)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} was given; want a whole number of at least 1")
    return int(text)


def parse(arguments: list[str] | None) -> tuple[Sizes, Path]:
    """The command line's sizes and folder; leaves with code 2 and a message where they make no sense."""
    usual = Sizes()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fits", type=_count, default=usual.fits, help="fits in the grid (default %(default)s)")
    parser.add_argument("--steps", type=_count, default=usual.steps, help="steps of each fit (default %(default)s)")
    parser.add_argument("--one-by-one", type=_count, help=f"fits timed one by one (default {usual.one_by_one})")
    parser.add_argument("--batched-steps", type=_count, help=f"steps timed batched (default {usual.batched_steps})")
    parser.add_argument("--rounds", type=_count, default=usual.rounds, help="rounds of timing (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/versus_torch"), help="folder (default %(default)s)")
    given = parser.parse_args(arguments)
    if given.one_by_one is not None and given.one_by_one > given.fits:
        parser.error(f"argument --one-by-one: {given.one_by_one} was given; want at most --fits, {given.fits}")
    if given.batched_steps is not None and given.batched_steps > given.steps:
        parser.error(f"argument --batched-steps: {given.batched_steps} was given; want at most --steps, {given.steps}")
    if any(p.exists() and not p.is_dir() for p in (given.out, *given.out.parents)):
        parser.error(f"argument --out: {str(given.out)!r} is, or lies below, a file; want a folder")
    single = given.one_by_one or min(usual.one_by_one, given.fits)
    batched_steps = given.batched_steps or min(usual.batched_steps, given.steps)
    return Sizes(given.fits, given.steps, single, batched_steps, given.rounds), given.out


def main(arguments: list[str] | None = None) -> int:
    """Check, time, print and write."""
    sizes, out = parse(arguments)
    jax.config.update("jax_platforms", "cpu")
    problem = make_problem(sizes.fits)
    plan = fastest_plan(problem)
    members, steps = spread(sizes.fits, sizes.one_by_one), min(AGREEING_STEPS, sizes.steps)
    try:
        apart = check_agreement(histories(problem, members, steps, plan), members)
    except Disagreement as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"over the first {steps} steps the three agree: their objectives differ by {apart:.1e} at most, relatively")
    timing = measure(problem, sizes, plan)
    print(report(timing, sizes, plan))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "versus_torch.json"
    path.write_text(json.dumps(summary(timing, sizes), indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
