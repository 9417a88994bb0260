"""The problems of the reference fits, how they are solved, and what is kept of a fit.

Each begins at given responsibilities or params, so that nothing depends on how starts are drawn. Those that are `settled`
lead to an optimum, which any code that is right reaches; the others are a fixed number of gradient steps.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import moejax
from moejax import experts, families, gates, losses, penalties

KEY = 0
WATCHED = 40  # rows whose probabilities and densities are kept
TOL = 1e-12
OUTCOMES = ("objective", "log_likelihood", "status", "held_out")  # kept as numbers; the rest are arrays
_QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


# ---- data -----------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """Rows of a mixture. rows: (n, K), mostly at the expert that each row is from, where fits begin."""

    x: Any
    y: np.ndarray
    rows: np.ndarray


def table(
    family: str, seed: int, k: int = 2, n: int = 100, d: int = 3, outputs: int | None = None, repeats: int = 1
) -> Table:
    """Data of a mixture with a softmax gate. repeats: how many rows in a row share their expert."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    logits = 2.5 * x @ _apart(rng, k, d).T + rng.gumbel(size=(n, k))
    return _drawn(rng, family, x, np.repeat(logits.argmax(axis=1)[::repeats], repeats), k, outputs)


def clusters(family: str, seed: int, k: int = 2, n: int = 100, d: int = 3) -> Table:
    """Data of a mixture whose experts have clusters of inputs."""
    rng = np.random.default_rng(seed)
    z = np.arange(n) % k
    x = 1.2 * _apart(rng, k, d)[z] + rng.normal(size=(n, d)) * (0.6 + 0.3 * z[:, None])
    return _drawn(rng, family, x, z, k, None)


def predicted(seed: int, k: int = 3, n: int = 100) -> Table:
    """Predictions of k models, each of which is best for some rows, beside the inputs."""
    given = table("gaussian", seed, k, n)
    rng = np.random.default_rng(seed + 1000)
    errors = rng.normal(size=(n, k)) * np.where(given.rows > 0.5, 0.3, 1.2)
    return Table({"inputs": given.x, "predictions": given.y[:, None] + errors}, given.y, given.rows)


def tied_table(seed: int, k: int = 2, n: int = 120, d: int = 6) -> Table:
    """Data of experts whose coefficients share three values."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    z = (2.5 * x @ _apart(rng, k, d).T + rng.gumbel(size=(n, k))).argmax(axis=1)
    values = np.array([-1.0, 0.2, 1.2])[rng.integers(3, size=(k, d))]
    y = (x * values[z]).sum(axis=1) + np.array([0.5, -0.5])[z] + 0.4 * rng.normal(size=n)
    return Table(x, y, _near(z, k))


def _apart(rng: np.random.Generator, k: int, d: int) -> np.ndarray:
    """Directions (k, d) that are orthogonal as far as there are so many."""
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return np.concatenate([q, -q])[:k]


def _near(z: np.ndarray, k: int) -> np.ndarray:
    return 0.8 * np.eye(k)[z] + 0.2 / k


def _drawn(rng: np.random.Generator, family: str, x: np.ndarray, z: np.ndarray, k: int, outputs: int | None) -> Table:
    (n, d), m = x.shape, {"categorical": 3, "location_scale": 1}.get(family, outputs or 1)
    weights = np.stack([1.5 * _apart(rng, k, d) for _ in range(m)], axis=2)
    weights[np.abs(weights) < 0.4] = 0
    eta = np.einsum("nd,ndm->nm", x, weights[z]) + np.linspace(-1, 1, k)[z][:, None] * (1 if m < 3 else 0)
    y = _TARGETS[family](rng, eta, x, z).astype(float)
    return Table(x, y if outputs else y.reshape(n), _near(z, k))


def _log_mean(eta: np.ndarray) -> np.ndarray:
    return 0.4 * eta + 1.2


_TARGETS: Mapping[str, Any] = {
    "gaussian": lambda rng, eta, x, z: eta + (0.3 + 0.15 * z[:, None]) * rng.normal(size=eta.shape),
    "student_t": lambda rng, eta, x, z: eta + 0.3 * rng.standard_t(4, size=eta.shape),
    "location_scale": lambda rng, eta, x, z: eta + np.exp(-1 + 0.4 * x[:, :1]) * rng.normal(size=eta.shape),
    "bernoulli": lambda rng, eta, x, z: eta + rng.logistic(size=eta.shape) > 0,
    "categorical": lambda rng, eta, x, z: (eta + rng.gumbel(size=eta.shape)).argmax(axis=1),
    "poisson": lambda rng, eta, x, z: rng.poisson(np.exp(_log_mean(eta))),
    "gamma": lambda rng, eta, x, z: rng.gamma(6.0 + 6 * z[:, None], np.exp(_log_mean(eta)) / (6.0 + 6 * z[:, None])),
}


def counts(n: int, seed: int = 5) -> np.ndarray:
    """Weights of rows, some of them 0."""
    return np.random.default_rng(seed).integers(0, 4, n).astype(float)


def wave(n: int) -> np.ndarray:
    """An offset."""
    return 0.3 * np.sin(np.arange(n))


# ---- a problem, and its solution ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A fit and what it is given.

    start: "rows" for the responsibilities of the data, or the number of params that are drawn by `given_params`. path: the
    arguments of `moejax.path` beside the fit; axes: those of a sweep. coefficients: parts whose weights and intercepts are
    identified. settled: whether it leads to an optimum. tolerance: of all that is kept but the outcomes.
    """

    fit: Any
    data: Table
    hyper: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    start: str | int = "rows"
    path: tuple[str, str] | None = None
    axes: Mapping[str, Any] | None = None
    coefficients: tuple[str, ...] = ("experts",)
    settled: bool = True
    tolerance: float = 1e-7

    @property
    def model(self) -> Any:
        """The model that is fitted."""
        return self.fit.model

    @property
    def function(self) -> Any:
        """What is called: the fit, or a path or a sweep of it."""
        function = self.fit if self.path is None else moejax.path(self.fit, self.path[0], order=self.path[1])
        return function if self.axes is None else moejax.sweep(function, self.axes)

    @property
    def taking_part(self) -> int:
        """How many experts take part."""
        return int(self.hyper.get("n_experts", self.model.n_experts))

    def begins(self) -> Any:
        """What the fit gets as `start`."""
        return self.data.rows if self.start == "rows" else given_params(self.model, self.data.x, int(self.start))


def given_params(model: Any, x: Any, seed: int) -> Any:
    """Params of the model whose arrays of two axes or more are of given numbers."""

    def filled(path: Any, leaf: Any) -> Any:
        if jnp.ndim(leaf) < 2:
            return leaf
        rng = np.random.default_rng([seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
        return jnp.asarray(0.6 * rng.normal(size=leaf.shape))

    return jax.tree_util.tree_map_with_path(filled, model.init(jax.random.key(KEY), x))


class Solution(NamedTuple):
    """params: of a fit, or of all members of a path or sweep. kept: numbers by OUTCOMES and arrays, members leading."""

    params: Any
    kept: dict[str, np.ndarray]


def solve(problem: Problem, start: Any = None, key: int = KEY, quick: bool = False) -> Solution:
    """Solve it, from another start if one is given. quick: whether to compile in a fraction of the time."""
    more = {**problem.more, "start": problem.begins() if start is None else start}
    groups = more.pop("groups", None)
    program = _program(problem.fit, problem.path, problem.coefficients, None if groups is None else tuple(groups), quick)
    given = (jax.random.key(key), problem.data.x, problem.data.y)
    if problem.axes is None:
        hyper = {name: np.asarray(value, float) for name, value in problem.hyper.items()}
        fit, said = program.answer(*given, hyper if quick else problem.hyper, more)
        held_out = {}
    else:
        result = problem.function(*given, **problem.more, start=more["start"])
        fit, held_out = result.fits, {"held_out": result.held_out}
        said = program.said(fit.params, np.shape(fit.objective), *given[1:], more.get("offset"))
    kept = {name: getattr(fit, name) for name in OUTCOMES[:3]} | held_out | _present(said, problem.taking_part)
    return Solution(fit.params, {name: np.asarray(v) for name, v in kept.items()})


def _present(said: dict[str, Any], count: int) -> dict[str, Any]:
    """The same of the experts that take part."""
    of_experts = {"gate_probs": 2, "expert_predictions": 2, "responsibilities": 2}
    of_experts |= {"experts_weights": 1, "experts_intercept": 1}
    return {n: np.take(np.asarray(v), np.arange(count), of_experts[n]) if n in of_experts else v for n, v in said.items()}


class _Program(NamedTuple):
    """The functions that solve problems of one kind and say what is kept."""

    answer: Any
    said: Any


@functools.cache
def _program(fit: Any, path: Any, coefficients: tuple[str, ...], groups: tuple[int, ...] | None, quick: bool) -> _Program:
    labels = None if groups is None else np.asarray(groups)
    function = fit if path is None else moejax.path(fit, path[0], order=path[1])

    def answer(key: Any, x: Any, y: Any, hyper: Any, more: Any) -> Any:
        fit = function(key, x, y, hyper, groups=labels, **more)
        return fit, said(fit.params, jnp.shape(fit.objective), x, y, more.get("offset"))

    def said(params: Any, shape: tuple[int, ...], x: Any, y: Any, offset: Any) -> Any:
        x, y, offset, first = jax.tree.map(lambda v: v[:WATCHED], (x, y, offset, labels))
        members = jax.tree.map(lambda v: jnp.reshape(v, (-1, *jnp.shape(v)[len(shape) :])), params)
        return jax.vmap(lambda p: _said(function.model, coefficients, p, x, y, offset, first))(members)

    return _Program(_quickly(answer) if quick else answer, said)


def _said(model: Any, coefficients: tuple[str, ...], params: Any, x: Any, y: Any, offset: Any, groups: Any) -> Any:
    """What a model says of some rows, and the coefficients that are identified."""
    said = {
        "gate_probs": model.gate_probs(params, x),
        "expert_predictions": model.expert_predictions(params, x, offset),
        "predictions": model.predict(params, x, offset),
    }
    if model.family is not None:
        said["log_prob"] = model.log_prob(params, x, y, offset)
        said["responsibilities"] = model.responsibilities(params, x, y, offset, groups)
    for part in coefficients:
        said |= {f"{part}_{name}": params[part][name] for name in ("weights", "intercept") if name in params[part]}
    return said


def _quickly(function: Any) -> Any:
    """The same function, compiled in a fraction of the time where this version of JAX can."""
    quick, plain = jax.jit(function, compiler_options=_QUICK), jax.jit(function)

    def called(*arguments: Any) -> Any:
        try:
            return quick(*arguments)
        except Exception as error:
            if "compile option" not in str(error):
                raise
            return plain(*arguments)

    return called


# ---- the problems: by EM --------------------------------------------------------------------------------------------

BOTH = ("experts", "gate")
FLOOR = 0.05  # the floor of dispersions that was the default when the fits were kept
GAUSSIAN = families.gaussian(variance_floor=FLOOR)
REFERENCE = gates.softmax(reference=True)


def em(gate: Any, family: Any = GAUSSIAN, k: int = 2, expert: Any = None, *, loss: Any = None, **options: Any) -> Any:
    """A fit by EM."""
    more = {name: options.pop(name) for name in ("gate_columns", "expert_columns") if name in options}
    model = moejax.moe(expert or experts.linear(), gate, k, family=family, **more)
    return moejax.fit_em(model, loss, **{"tol": TOL, "max_iter": 3000, **options})


def standard(l1_experts: float = 0, l1_gate: float = 0, l2_experts: float = 0, l2_gate: float = 0) -> dict[str, float]:
    """Weights of L1 and L2, all of them there, so that fits share their program."""
    return {"l1_experts": l1_experts, "l1_gate": l1_gate, "l2_experts": l2_experts, "l2_gate": l2_gate}


def em_softmax() -> dict[str, Problem]:
    """Softmax gates, penalties, weights, temperatures, numbers of experts."""
    lone, free = em(REFERENCE), em(gates.softmax(), families.gaussian(shared_scale=True), 3)
    data, three = table("gaussian", 1), table("gaussian", 2, 3, 150)
    equal, weights = {"weights": np.ones(100)}, {"weights": counts(100)}

    def hyper(temperature: float, n_experts: int, l2_gate: float) -> dict[str, float]:
        return {"temperature": temperature, "n_experts": n_experts, "l2_gate": l2_gate}

    return {
        "reference": Problem(lone, data, standard(), equal, coefficients=BOTH),
        "reference, weights": Problem(lone, data, standard(), weights, coefficients=BOTH),
        "reference, l1 experts": Problem(lone, data, standard(0.1), equal, coefficients=BOTH),
        "reference, l1 gate": Problem(lone, data, standard(0, 0.05), equal, coefficients=BOTH),
        "reference, l2": Problem(lone, data, standard(0, 0, 0.05, 0.005), equal, coefficients=BOTH),
        "reference, l1 and l2, weights": Problem(lone, data, standard(0.1, 0.02, 0.01, 0.01), weights, coefficients=BOTH),
        "softmax, shared scale, temperature 1": Problem(free, three, hyper(1, 3, 0.01)),
        "softmax, shared scale, temperature 2": Problem(free, three, hyper(2, 3, 0.001)),
        "softmax, shared scale, temperature 0.5": Problem(free, three, hyper(0.5, 3, 0.02)),
        "softmax, shared scale, 2 of 3 experts": Problem(free, three, hyper(1, 2, 0.01)),
    }


def em_gates() -> dict[str, Problem]:
    """The other gates."""
    data, three, other = table("gaussian", 4), table("gaussian", 5, 3, 150), clusters("gaussian", 7, 3, 120)
    equal, weights = {"weights": np.ones(100)}, {"weights": counts(100)}
    tree, l1 = em(gates.hierarchical(((0, 1), 2)), k=3), {"l1_experts": 0.03, "l1_gate": 0.005, "l2_gate": 0.005}
    own, shared = em(gates.gaussian(), k=3), em(gates.gaussian(covariance="shared", ridge=0.1), k=3)
    forecasts = gates.confidence([[1.0, 0.0, -0.5], [-1.0, 0.3, 0.5]], [0.1, -0.1], temperature=0.5)
    fixed, top1, top2 = em(gates.fixed([0.6, 0.4])), em(gates.top1()), em(gates.top_k(2), k=3)
    return {
        "fixed proportions": Problem(fixed, data, {"l1_experts": 0.0}, equal),
        "fixed proportions, l1, weights": Problem(fixed, data, {"l1_experts": 0.1}, weights),
        "top1": Problem(top1, table("gaussian", 8), {"l2_gate": 0.01}),
        "top1, other data": Problem(top1, data, {"l2_gate": 0.02}),
        "top_k": Problem(top2, three, {"l2_gate": 0.01}),
        "gaussian gate": Problem(own, other),
        "gaussian gate, other data": Problem(own, clusters("gaussian", 9, 3, 120)),
        "gaussian gate, shared covariance": Problem(shared, other),
        "tree, l2": Problem(tree, three, {"l1_experts": 0.0, "l1_gate": 0.0, "l2_gate": 0.01}),
        "tree, l1": Problem(tree, three, l1),
        "confidence": Problem(em(forecasts, gate_columns=(0, 1, 2)), data),
        "custom gate": Problem(em(gates.custom(_custom_init, _custom_logits), tol=1e-8), data, tolerance=1e-6),
    }


def _custom_init(key: Any, n_experts: int, x: Any) -> Any:
    return {"slope": jnp.zeros(x.shape[1], x.dtype), "shift": jnp.zeros((), x.dtype)}


def _custom_logits(params: Any, x: Any) -> Any:
    logit = x @ params["slope"] + params["shift"]
    return jnp.stack([logit, jnp.zeros_like(logit)], axis=1)


def em_families() -> dict[str, Problem]:
    """The other families."""
    t4, free = (
        em(gates.constant(), families.student_t(4.0, variance_floor=FLOOR)),
        em(REFERENCE, families.student_t(variance_floor=FLOOR), tol=1e-8),
    )
    located = em(REFERENCE, families.location_scale(), expert=experts.linear(2))
    yes = em(REFERENCE, families.bernoulli())
    classes = em(gates.constant(), families.categorical(3), expert=experts.linear(3))
    poisson, gamma = em(gates.constant(), families.poisson()), em(gates.constant(), families.gamma(dispersion_floor=FLOOR))
    grouped, groups = table("bernoulli", 10, n=240, repeats=6), {"groups": np.arange(240) // 6}
    counted, positive = table("poisson", 11), table("gamma", 12)
    still, moved = {"offset": np.zeros(100)}, {"offset": wave(100)}
    return {
        "student_t, 4 df": Problem(t4, table("student_t", 13)),
        "student_t, 4 df, other data": Problem(t4, table("student_t", 14)),
        "student_t": Problem(free, table("student_t", 15, n=150), coefficients=BOTH, tolerance=1e-6),
        "location_scale": Problem(located, table("location_scale", 16, n=150), {"l2_experts": 0.01}, coefficients=BOTH),
        "bernoulli, groups": Problem(yes, grouped, {"l2_experts": 0.01, "l2_gate": 0.01}, groups, coefficients=BOTH),
        "bernoulli, groups, more l2": Problem(
            yes, grouped, {"l2_experts": 0.05, "l2_gate": 0.001}, groups, coefficients=BOTH
        ),
        "categorical, groups": Problem(
            classes, table("categorical", 17, n=240, repeats=6), {"l2_experts": 0.01}, groups, coefficients=()
        ),
        "poisson": Problem(poisson, counted, {"l1_experts": 0.0}, still),
        "poisson, l1, offset": Problem(poisson, counted, {"l1_experts": 0.2}, moved),
        "gamma": Problem(gamma, positive, {"l1_experts": 0.0}, still),
        "gamma, l1, offset": Problem(gamma, positive, {"l1_experts": 0.1}, moved),
    }


def em_penalties() -> dict[str, Problem]:
    """Penalties on groups, and the elastic net."""
    three, data = table("gaussian", 18, 3, 150, 4), table("gaussian", 19, d=5)
    mixed = em(REFERENCE, k=3)
    several = [penalties.elastic_net("experts"), penalties.elastic_net("gate", 0.3)]
    several += [penalties.group_columns(part, [[0, 1], [3, 4]]) for part in BOTH]
    net, other = em(REFERENCE, penalty=several[:1] + several[3:]), em(REFERENCE, penalty=several[1:3])
    names = ("l1_experts", "group_experts", "group_gate")
    return {
        "group": Problem(mixed, three, dict(zip(names, (0.0, 0.1, 0.0), strict=True)), coefficients=BOTH),
        "sparse group": Problem(mixed, three, dict(zip(names, (0.02, 0.05, 0.0), strict=True)), coefficients=BOTH),
        "group, gate": Problem(mixed, three, dict(zip(names, (0.0, 0.02, 0.03), strict=True)), coefficients=BOTH),
        "elastic net, columns of the gate": Problem(
            net, data, {"elastic_net_experts": 0.1, "columns_gate": 0.02}, coefficients=BOTH
        ),
        "elastic net, columns of the gate, more": Problem(
            net, data, {"elastic_net_experts": 0.3, "columns_gate": 0.05}, coefficients=BOTH
        ),
        "columns, elastic net of the gate": Problem(
            other, data, {"columns_experts": 0.1, "elastic_net_gate": 0.02}, coefficients=BOTH
        ),
        "columns, elastic net of the gate, more": Problem(
            other, data, {"columns_experts": 0.3, "elastic_net_gate": 0.05}, coefficients=BOTH
        ),
    }


def em_experts() -> dict[str, Problem]:
    """Several outputs, columns, predictions, tied coefficients, held divisions."""
    data = table("gaussian", 20, d=4)
    choices = [[(0, 1), (2, 3)], [(0, 1, 2), (1, 2, 3)]]
    divided = em(REFERENCE, expert=experts.by_columns(experts.linear(), choices))
    seen = {"expert": experts.predictions(), "expert_columns": "predictions", "gate_columns": "inputs"}
    stacked = em(REFERENCE, families.gaussian(shared_scale=True), 3, **seen)
    tied = em(gates.softmax(), expert=experts.tied(3), tol=1e-10)
    held = em(REFERENCE, loss=losses.complete_nll())
    two, shared = table("gaussian", 21, outputs=2), tied_table(22)
    return {
        "two outputs": Problem(em(gates.constant(), expert=experts.linear(2)), two, {"l1_experts": 0.05}),
        "columns 0": Problem(divided, data, {"columns": 0, "l2_gate": 0.01}, coefficients=BOTH),
        "columns 1": Problem(divided, data, {"columns": 1, "l2_gate": 0.01}, coefficients=BOTH),
        "predictions": Problem(stacked, predicted(23), {"l2_gate": 0.0}, coefficients=("gate",)),
        "predictions, l2": Problem(stacked, predicted(24), {"l2_gate": 0.02}, coefficients=("gate",)),
        "tied, 3 values": Problem(tied, shared, {"n_groups": 3, "l2_gate": 0.01}, start=1, coefficients=()),
        "tied, 2 values": Problem(tied, shared, {"n_groups": 2, "l2_gate": 0.01}, start=1, coefficients=()),
        "held division": Problem(held, data, {"l1_experts": 0.0, "l2_gate": 0.0}, coefficients=BOTH),
        "held division, l1 and l2": Problem(held, data, {"l1_experts": 0.05, "l2_gate": 0.01}, coefficients=BOTH),
    }


# ---- by gradient ----------------------------------------------------------------------------------------------------


def accelerated(gate: Any, family: Any, loss: Any, k: int = 2, expert: Any = None, **options: Any) -> Any:
    """A fit by accelerated proximal gradient steps."""
    model = moejax.moe(expert or experts.linear(), gate, k, family=family)
    options = {"steps": 3000, "tol": TOL, "record_every": 1000, **options}
    return moejax.fit_gradient(model, loss, "accelerated", **options)


def by_accelerated_steps() -> dict[str, Problem]:
    """Optima that accelerated proximal gradient steps reach."""
    smooth = accelerated(REFERENCE, GAUSSIAN, losses.nll())
    squares = accelerated(gates.softmax(), None, losses.squared_error())
    tree = accelerated(gates.hierarchical((2, 2)), GAUSSIAN, losses.nll(), 4)
    lasso = accelerated(gates.constant(), families.poisson(), losses.nll(), 1)
    joint = accelerated(gates.gaussian(covariance="shared"), GAUSSIAN, losses.joint_nll())
    labels = accelerated(REFERENCE, families.bernoulli(), losses.complete_nll())
    errors = accelerated(REFERENCE, None, losses.complete_squared_error())
    classes = accelerated(gates.constant(), families.categorical(3), losses.nll(), 1, experts.linear(3))
    shapes = accelerated(
        gates.softmax(temperature=0.7, reference=True),
        families.gamma(shared_shape=True, dispersion_floor=FLOOR),
        losses.nll(),
    )
    robust = accelerated(REFERENCE, families.student_t(variance_floor=FLOOR), losses.nll())
    both = {"l1_experts": 0.05, "l2_gate": 0.01}
    ridge = {"l2_experts": 0.01, "l2_gate": 0.01}
    return {
        "reference": Problem(smooth, table("gaussian", 1), both, start=1, coefficients=BOTH),
        "reference, other data": Problem(smooth, table("gaussian", 4), both, start=1, coefficients=BOTH),
        "group": Problem(
            smooth, table("gaussian", 1), {"group_experts": 0.1, "group_gate": 0.02}, start=1, coefficients=BOTH
        ),
        "squared error": Problem(squares, table("gaussian", 25), ridge, start=1),
        "squared error, other data": Problem(squares, table("gaussian", 26), ridge, start=1),
        "tree": Problem(tree, table("gaussian", 27, 4, 200), {"l1_experts": 0.05, "l2_gate": 0.01}, start=1),
        "gamma, shared shape": Problem(shapes, table("gamma", 12), {"l2_gate": 0.005}, start=1, coefficients=BOTH),
        "student_t": Problem(robust, table("student_t", 15, n=150), {"l2_gate": 0.01}, start=1, coefficients=BOTH),
        "one expert, poisson, lasso, offset": Problem(
            lasso, table("poisson", 28, 1), {"l1_experts": 0.2}, {"offset": wave(100), "weights": counts(100)}, 1
        ),
        "gaussian gate, joint": Problem(joint, clusters("gaussian", 29), start=1),
        "bernoulli, held division": Problem(labels, table("bernoulli", 30), both, coefficients=BOTH),
        "squared error, held division": Problem(errors, table("gaussian", 31), both, coefficients=BOTH),
        "one expert, categorical, ridge": Problem(
            classes, table("categorical", 32, 1), {"l2_experts": 0.01}, start=1, coefficients=()
        ),
    }


def steps(model: Any, loss: Any, optimizer: Any = optax.adam, **options: Any) -> Any:
    """Twenty gradient steps."""
    return moejax.fit_gradient(model, loss, optimizer, **{"steps": 20, "learning_rate": 0.05, **options})


def _momentum(rate: Any) -> Any:
    return optax.sgd(rate, momentum=0.9)


def _one_init(key: Any, x: Any) -> Any:
    return {"weights": jnp.zeros((x.shape[1],), x.dtype), "bias": jnp.zeros((), x.dtype)}


def _one_apply(params: Any, x: Any) -> Any:
    return jnp.tanh(x @ params["weights"] + params["bias"])


def by_fixed_steps() -> dict[str, Problem]:
    """Twenty steps from given params."""
    linear, data, three = experts.linear(), table("gaussian", 1), table("gaussian", 2, 3, 150)
    plain, reference = moejax.moe(linear, gates.softmax(), 2), moejax.moe(linear, REFERENCE, 2, family=GAUSSIAN)
    balanced = losses.balanced(losses.squared_error())
    columns = [penalties.group_columns(part, [[0, 2]]) for part in BOTH]
    counted = moejax.moe(linear, gates.constant(), 2, family=families.poisson())
    robust = moejax.moe(linear, gates.softmax(temperature=2.0), 2, family=families.student_t(variance_floor=FLOOR))
    located = moejax.moe(experts.linear(2), gates.gaussian(), 2, family=families.location_scale())
    more, l1 = {"offset": wave(100), "weights": counts(100)}, {"l1_experts": 0.05, "l1_gate": 0.01}
    grouped = {"groups": np.arange(100) // 4}
    problems = {
        "adam, squared error, subgradients": Problem(steps(plain, losses.squared_error()), data, l1),
        "adam, proximal": Problem(steps(reference, losses.nll(), proximal=True), data, {**l1, "l2_gate": 0.01}),
        "adam, proximal, columns": Problem(
            steps(reference, losses.nll(), penalty=columns, proximal=True),
            data,
            {"columns_experts": 0.1, "columns_gate": 0.02},
        ),
        "sgd, weights, offset": Problem(steps(reference, losses.nll(), optax.sgd), data, {"learning_rate": 0.02}, more),
        "momentum, proximal, group": Problem(
            steps(reference, losses.nll(), _momentum, proximal=True), data, {"group_experts": 0.1, "learning_rate": 0.01}
        ),
        "adam, groups": Problem(steps(robust, losses.nll()), data, {}, grouped),
        "adam, top1": Problem(steps(moejax.moe(linear, gates.top1(), 3), losses.squared_error()), three),
        "adam, top_k, balanced": Problem(steps(moejax.moe(linear, gates.top_k(2), 3), balanced), three, {"balance": 0.3}),
        "adam, poisson": Problem(steps(counted, losses.nll()), table("poisson", 11), {"l2_experts": 0.01}),
        "adam, location_scale, gaussian gate": Problem(steps(located, losses.nll()), table("location_scale", 16)),
        "adam, stack": Problem(
            steps(moejax.moe(experts.stack(_one_init, _one_apply), gates.softmax(), 2), losses.squared_error()), data
        ),
        "adam, tied": Problem(
            steps(moejax.moe(experts.tied(3), gates.softmax(), 2, family=GAUSSIAN), losses.nll()), tied_table(22)
        ),
    }
    return {name: replace(problem, start=2, settled=False) for name, problem in problems.items()}


# ---- paths and sweeps -----------------------------------------------------------------------------------------------


def paths() -> dict[str, Problem]:
    """Sequences of weights, and folds."""
    mixture, lone = em(REFERENCE), em(gates.constant(), k=1)
    smooth = accelerated(gates.softmax(), None, losses.complete_squared_error())
    up, down = ("l1_experts", "ascending"), ("l1_experts", "descending")
    data, one = table("gaussian", 33), table("gaussian", 34, 1, d=6)
    weights = {"l1_experts": np.array([0.2, 0.02, 0.1, 0.05]), "l2_gate": 0.01}
    lasso = {"l1_experts": np.array([0.02, 0.3, 0.1, 0.05])}
    gate = {"l1_gate": np.array([0.01, 0.03, 0.1]), "l2_gate": 0.01, "l2_experts": 0.01}
    fold = {"fold": np.arange(100) % 4, "l1_experts": [0.01, 0.1], "l2_gate": [0.01]}
    return {
        "ascending": Problem(mixture, data, weights, path=up, coefficients=BOTH),
        "ascending, other data": Problem(mixture, table("gaussian", 35), weights, path=up, coefficients=BOTH),
        "one expert, descending": Problem(lone, one, lasso, path=down),
        "one expert, descending, other data": Problem(lone, table("gaussian", 36, 1, d=6), lasso, path=down),
        "held division, gate": Problem(smooth, data, gate, path=("l1_gate", "ascending")),
        "folds": Problem(mixture, data, axes=fold, coefficients=BOTH),
    }


FAMILIES_OF_PROBLEMS = {
    "em, ": (em_softmax, em_gates, em_families, em_penalties, em_experts),
    "accelerated, ": (by_accelerated_steps,),
    "": (by_fixed_steps,),
    "path, ": (paths,),
}


def all_problems() -> dict[str, Problem]:
    """Every problem by its name."""
    return {
        before + name: problem
        for before, makers in FAMILIES_OF_PROBLEMS.items()
        for make in makers
        for name, problem in make().items()
    }
