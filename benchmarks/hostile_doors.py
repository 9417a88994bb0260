"""The public surface as a table: every function, method and setting that takes an argument of a user's.

A `Door` is a function with right arguments of all kinds. Doors of a stage "free" may take what they are given, since nothing
compiles there. Doors of the stage "checked" refuse before they compile. Doors of the stage "fitted" are methods of what a
fit returns.

`UNCALLED` names what is public and not in the table, and why.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Iterator
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen

import moejax
from moejax import (
    datasets,
    division,
    experts,
    families,
    gates,
    handwritten,
    losses,
    metrics,
    penalties,
    plots,
    pooling,
    solvers,
    stacking,
)
from moejax import sklearn as estimators
from moejax.model import check_model

N, D, K = 12, 3, 2
LATER = object()  # a right value that has to be fitted first


class Door(NamedTuple):
    """A public function with right arguments.

    name: under which it is public. call: takes the arguments by name. given: (kind, right value) of each argument. also:
    what else a message may call an argument. result: what of the result shall be finite.
    """

    name: str
    call: Callable[..., Any]
    given: dict[str, tuple[str, Any]]
    stage: str = "free"
    also: dict[str, str] = {}  # noqa: RUF012
    result: Callable[[Any], Any] = lambda result: result
    double: bool = False  # whether it computes in NumPy's float64, so that 1e39 is a number like others


def door(call: Callable[..., Any], name: str, stage: str = "free", /, **given: tuple[str, Any]) -> Door:
    return Door(name, call, given, stage)


# ---- right arguments ------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, D)).astype(np.float32)
Y = (np.where(X[:, 0] > 0, X[:, 1], -X[:, 2]) + 0.1 * RNG.standard_normal(N)).astype(np.float32)
WEIGHTS = np.repeat(RNG.uniform(0.5, 1, N // 3), 3).astype(np.float32)
SHARES = RNG.dirichlet([1, 1], N).astype(np.float32)
GROUPS, LABELS, FOLDS = np.arange(N) // 3, np.arange(N) % 2, np.arange(N) % 3
PROBABILITIES = np.stack([np.linspace(0.1, 0.9, N), np.linspace(0.9, 0.1, N)], axis=1)
KEY = jax.random.key(0)
BY_HAND = {
    "experts": {"weights": np.ones((K, D)), "intercept": np.array([0.5, -0.5])},
    "gate": {"weights": np.eye(K, D), "intercept": np.zeros(K), "temperature": np.array(1.0)},
}


class Mean:
    """The mean of the targets, as a model for stacking."""

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> Mean:
        self.mean = np.average(y, axis=0, weights=sample_weight)
        return self

    def predict(self, x: Any) -> np.ndarray:
        return np.broadcast_to(self.mean, (len(x), *np.shape(self.mean)))


class Steps(solvers.LossSolver):
    """A solver of one's own, which does nothing."""

    n_steps = 1

    def init(self, task: Any) -> Any:
        return task.params

    def step(self, task: Any, state: Any) -> Any:
        return state


def model_of(gate: Any = None, family: Any = None, **more: Any) -> moejax.Model:
    gate, family = gate or gates.softmax(), family or families.gaussian()
    return moejax.moe(experts.linear(), gate, K, family=family, **more)


def params_of(model: Any) -> Any:
    return jax.tree.map(np.asarray, model.init(KEY, X))


@cache
def doors() -> tuple[Door, ...]:
    """The whole table."""
    made = [
        *of_parts(),
        *of_models(),
        *of_solvers(),
        *of_sweeps(),
        *of_predictions(),
        *of_numpy(),
        *of_data(),
        *of_plots(),
        *of_estimators(),
        *of_fitted(),
    ]
    return tuple(made)


# ---- parts ----------------------------------------------------------------------------------------------------------

GATE = {"temperature": ("number", 1.0), "reference": ("flag", False), "init_scale": ("number", 1.0)}


def of_parts() -> Iterator[Door]:
    unit, unit_apply = (lambda key, x: {"b": x[0]}), (lambda params, x: x @ params["b"])
    yield door(experts.linear, "experts.linear", outputs=("count?", None), init_scale=("number", 1.0))
    yield door(experts.tied, "experts.tied", groups=("count", 3), init_scale=("number", 1.0))
    yield door(experts.functions, "experts.functions", each=("list", [unit_apply]))._replace(also={"each": "functions"})
    yield door(experts.neural, "experts.neural", module=("part", linen.Dense(1)))
    stack = {"init": ("callable", unit), "apply": ("callable", unit_apply), "penalized": ("callable?", None)}
    yield door(experts.stack, "experts.stack", **stack)
    choices = ("list", [[[0, 1], [1, 2]]])
    yield door(experts.by_columns, "experts.by_columns", expert=("part", experts.linear()), choices=choices)
    yield door(
        lambda columns: experts.check_division("columns", columns, 2), "experts.check_division", columns=("list", [[0], [1]])
    )
    yield door(experts.completed, "experts.completed", expert=("part", experts.linear()))
    for name in ("softmax", "top1"):
        yield door(getattr(gates, name), f"gates.{name}", **GATE)
    yield door(gates.top_k, "gates.top_k", k=("count", 1), noise=("number", 0.0), **GATE)
    yield door(gates.gaussian, "gates.gaussian", covariance=("name", "own"), ridge=("number", 0.01))
    yield door(gates.fixed, "gates.fixed", proportions=("list?", np.array([0.25, 0.75])))
    confidence = {"weights": ("spread", X[:2]), "intercept": ("spread", Y[:2]), "temperature": ("number", 1.0)}
    yield door(gates.confidence, "gates.confidence", **confidence)
    yield door(gates.hierarchical, "gates.hierarchical", tree=("tree", (2, 2)), init_scale=("number", 1.0))
    custom = {"init": ("callable", unit), "logits": ("callable", unit_apply), "penalized": ("callable?", None)}
    yield door(gates.custom, "gates.custom", **custom)
    yield door(gates.neural, "gates.neural", module=("part", linen.Dense(K)))
    yield door(gates.completed, "gates.completed", gate=("part", gates.softmax()))
    yield door(families.gaussian, "families.gaussian", shared_scale=("flag", False), variance_floor=("number", 0.01))
    student = {"df": ("number?", 4.0), "shared_scale": ("flag", False), "variance_floor": ("number", 0.01)}
    yield door(families.student_t, "families.student_t", **student)
    yield door(families.gamma, "families.gamma", shared_shape=("flag", False), dispersion_floor=("number", 0.01))
    yield door(families.location_scale, "families.location_scale", scale_floor=("number", 0.01))
    yield door(families.categorical, "families.categorical", n_classes=("count", 3))
    yield door(families.completed, "families.completed", family=("part", families.gaussian()))
    balanced = {"loss": ("part", losses.nll()), "kind": ("name", "load"), "weight": ("number", 0.1)}
    yield door(losses.balanced, "losses.balanced", **balanced)
    yield door(losses.complete_nll, "losses.complete_nll", joint=("flag", False))
    yield door(losses.truncated_nll, "losses.truncated_nll", k=("count", 1))
    yield door(losses.completed, "losses.completed", loss=("part", losses.nll()))
    yield door(losses.complete_of, "losses.complete_of", model=("part", model_of()))
    yield door(losses.likelihood_of, "losses.likelihood_of", model=("part", model_of()))
    for name in ("l1", "l2", "group"):
        yield door(getattr(penalties, name), f"penalties.{name}", part=("name", "experts"))
    yield door(penalties.elastic_net, "penalties.elastic_net", part=("name", "gate"), l1_ratio=("number", 0.5))
    columns = {"part": ("name", "gate"), "groups": ("list", [[0, 1], [2]])}
    yield door(penalties.group_columns, "penalties.group_columns", **columns)
    yield door(penalties.completed, "penalties.completed", penalty=("part", penalties.l1("gate")))
    yield door(penalties.completed_all, "penalties.completed_all", penalties=("parts", [penalties.l1("gate")]))._replace(
        call=lambda penalties: moejax.penalties.completed_all(penalties), also={"penalties": "penalty"}
    )


def of_models() -> Iterator[Door]:
    model = model_of()
    params = params_of(model)
    made = {"expert": ("part", experts.linear()), "gate": ("part", gates.softmax()), "n_experts": ("count", K)}
    made |= {"family": ("part?", None), "expert_columns": ("columns?", [0, 1]), "gate_columns": ("columns?", [0, 1])}
    yield door(moejax.moe, "moe", **made)
    rows = {"params": ("params", params), "x": ("array", X), "offset": ("offset?", Y)}
    yield door(check_model, "model.check_model", model=("part", model))
    yield door(model.init, "Model.init", "checked", key=("key", KEY), x=("like", X))
    for name in ("predict", "expert_predictions"):
        yield door(getattr(model, name), f"Model.{name}", "checked", **rows)
    yield door(model.gate_probs, "Model.gate_probs", "checked", params=rows["params"], x=("spread", X))
    yield door(model.sample, "Model.sample", "checked", key=("key", KEY), **rows)
    yield door(model.log_prob, "Model.log_prob", "checked", **rows, y=("array", Y))
    grouped = {**rows, "y": ("array", Y), "groups": ("labels?", GROUPS)}
    yield door(model.responsibilities, "Model.responsibilities", "checked", **grouped)
    own = {"name": ("name", "temperature"), "value": ("grid", 1.0)}
    yield door(model.check_hyper, "Model.check_hyper", **own)._replace(also={"value": "temperature"})
    tied = moejax.moe(experts.tied(2), gates.softmax(), K, family=families.gaussian())
    seen = {name: params_of(tied)["experts"][name] for name in ("values", "memberships", "n_groups")}
    yield door(tied.expert.labels, "experts.Tied.labels", params=("part params", seen))
    tree = moejax.moe(experts.linear(), gates.hierarchical((2,)), K)
    told = {"params": ("part params", {"weights": params_of(tree)["gate"]["weights"]}), "shares": ("spread?", SHARES[0])}
    told |= {"feature_names": ("names?", ["a", "b", "c"]), "largest": ("index", 2)}
    for name in ("branches", "text"):
        yield door(getattr(tree.gate, name), f"gates.Hierarchical.{name}", **told)


# ---- solvers --------------------------------------------------------------------------------------------------------


def starts(of: Any) -> dict[str, tuple[str, Any]]:
    """What the call of a fit takes, with one of its three starts."""
    rows = {"key": ("key", KEY), "x": ("spread", X), "y": ("array", Y), "weights": ("array?", WEIGHTS)}
    return {**rows, "offset": ("array?", Y), "groups": ("labels?", GROUPS), **of}


def of_solvers() -> Iterator[Door]:
    model, params = model_of(), params_of(model_of())
    em, gradient = moejax.fit_em(model, max_iter=1), moejax.fit_gradient(model, losses.nll(), steps=1)
    configured = {"model": ("part", model), "loss": ("part?", losses.nll()), "penalty": ("parts?", None)}
    counts = {"record_every": ("count", 10), "block_size": ("count?", None), "tol": ("number", 1e-5)}
    em_own = {"init": ("name", "mixed"), "max_iter": ("count", 9), **counts, "tol": ("number?", None)}
    yield door(moejax.fit_em, "fit_em", **configured, **em_own)
    own = {"optimizer": ("part", optax.adam), "steps": ("count", 5), "learning_rate": ("number", 0.1), **counts}
    own |= {"batch_size": ("count?", None), "patience": ("count?", None), "min_improvement": ("number", 0.1)}
    own |= {"proximal": ("flag", False), "optimizer": ("callable", optax.adam)}
    yield door(moejax.fit_gradient, "fit_gradient", **configured, **own)
    yield door(solvers.fit_with, "solvers.fit_with", solver=("callable", Steps), **configured)
    along = {"name": ("name", "l1_experts"), "ratio": ("number", 0.1), "order": ("name?", None)}
    yield door(moejax.path, "path", fit=("part", em), **along)
    responsible, begun = {"start_responsibilities": ("start?", SHARES)}, {"start_params": ("params?", params)}
    older = {"start": ("start?", SHARES)}
    for begin in (responsible, begun, older):
        yield door(em, "solvers.EMFit.__call__", "checked", **starts(begin), hyper=("hyper?", {}))
    yield door(gradient, "solvers.GradientFit.__call__", "checked", **starts(begun), hyper=("hyper?", {}))
    path = moejax.path(gradient)
    yield door(path, "solvers.Path.__call__", "checked", **starts(responsible), hyper=("hyper grid?", {}))
    begun_at = {"key": ("key", KEY), "x": ("like", X), "hyper": ("hyper?", {}), "start": ("params?", params)}
    yield door(gradient.init_state, "solvers.GradientFit.init_state", "checked", **begun_at)
    rows = {"params": ("params", params), "x": ("array", X), "y": ("array", Y), "weights": ("array?", WEIGHTS)}
    rows |= {"offset": ("offset?", Y), "groups": ("labels?", GROUPS)}
    several = {**rows, "params": ("params", jax.tree.map(lambda leaf: np.stack([leaf, leaf]), params))}
    for fit in (em, gradient, path):
        yield door(fit.score, f"solvers.{type(fit).__name__}.score", "checked", **(several if fit is path else rows))
        yield door(fit.check_hyper, f"solvers.{type(fit).__name__}.check_hyper", hyper=("hyper grid", {}))
    data = {name: kind for name, kind in starts(older).items() if name != "key"}
    yield door(em.check_data, "solvers.EMFit.check_data", "checked", **data)
    yield door(gradient.check_data, "solvers.GradientFit.check_data", "checked", **data)
    yield door(solvers.check_key, "solvers.check_key", key=("key", KEY))
    sequence = {"fit": ("part", em), "name": ("name", "l1_experts"), **starts(older), "hyper": ("hyper?", {})}
    yield door(solvers.critical, "solvers.critical", "checked", **sequence)
    yield door(solvers.sequence, "solvers.sequence", "checked", **sequence, count=("count", 3))._replace(
        also={"count": "l1_experts"}
    )
    yield door(solvers.describe, "solvers.describe", status=("status", 1))
    yield door(solvers.remedy, "solvers.remedy", status=("status", 1))
    state = gradient.init_state(KEY, X)
    step = {name: kind for name, kind in rows.items() if name not in ("params", "groups")}
    yield door(lambda **given: gradient.train_step(state, **given), "solvers.GradientFit.train_step", "checked", **step)
    yield door(
        lambda state, **given: gradient.train_step(state, **given), "solvers.GradientFit.train_step", "checked",
        state=("part", state), x=("array", X), y=("array", Y), hyper=("hyper?", {}), key=("key?", None),
    )  # fmt: skip


def of_sweeps() -> Iterator[Door]:
    model, params = model_of(), params_of(model_of())
    em = moejax.fit_em(model, max_iter=1)
    settings = {"fit": ("callable", em), "axes": ("axes", {"restart": 2}), "chunk_size": ("count?", None)}
    settings |= {"devices": ("devices?", None), "threads": ("count?", None), "progress": ("flag?", None)}
    settings |= {"checkpoint": ("folder?", None), "optimize": ("flag", True)}
    yield door(moejax.sweep, "sweep", **settings)._replace(also={"axes": "hyper|restart|fold|bootstrap"})
    grid = moejax.sweep(em, {"l1_gate": [0.1]}, progress=False)
    for begin in ({"start_responsibilities": ("start?", SHARES)}, {"start_params": ("params?", params)}):
        yield door(grid, "sweeps.Sweeper.__call__", "checked", **starts(begin))
    chosen = {"result": ("part", LATER), "refit": ("flag", True), "rule": ("name", "best")}
    chosen |= {"criterion": ("callable", "held_out")}
    yield door(
        lambda result, **more: moejax.select(fitted()["sweep"] if result is LATER else result, **more),
        "select", "fitted", **chosen,
    )  # fmt: skip


# ---- predictions ----------------------------------------------------------------------------------------------------


def of_predictions() -> Iterator[Door]:
    model, labelled = model_of(), model_of(family=families.bernoulli())
    params, of_labels = params_of(model), params_of(labelled)
    rows = {"model": ("part", model), "params": ("params", params), "x": ("array", X), "offset": ("offset?", Y)}
    classes = {**rows, "model": ("part", labelled), "params": ("params", of_labels), "pool": ("name", "top")}
    yield door(pooling.predict, "pooling.predict", "checked", **rows, pool=("name", "mean"))
    for name in ("probabilities", "classes"):
        yield door(getattr(pooling, name), f"pooling.{name}", "checked", **classes)
    for name in ("density", "cdf"):
        yield door(getattr(pooling, name), f"pooling.{name}", "checked", **rows, y=("spread", Y))
    yield door(pooling.quantiles, "pooling.quantiles", "checked", **rows, q=("levels", np.array([0.2, 0.5])))
    yield door(pooling.interval, "pooling.interval", "checked", **rows, level=("number", 0.9))
    modes = door(pooling.modes, "pooling.modes", "checked", **rows)
    yield modes._replace(result=lambda modes: modes.density[:, 0])  # NaN stands for modes that a row does not have
    weighted = {"y": ("array?", Y), "weights": ("array?", WEIGHTS)}
    yield door(moejax.usage, "usage", "checked", **rows, **weighted)
    usage = moejax.usage(model, params, X)
    yield door(usage.text, "Usage.text", names=("names?", ["a", "b"]))


def of_numpy() -> Iterator[Door]:
    rows = {"y": ("array", LABELS), "probabilities": ("array", PROBABILITIES), "weights": ("array?", WEIGHTS)}
    for name in ("log_loss", "accuracy"):
        yield door(getattr(metrics, name), f"metrics.{name}", **rows)._replace(double=True)
    table = door(metrics.calibration, "metrics.calibration", **rows, bins=("count", 4), of_class=("index?", None))
    yield table._replace(result=lambda table: table.error, double=True)  # NaN stands for bins without rows
    made = {"predicted": ("spread", PROBABILITIES), "y": ("array", Y)}
    yield door(stacking.losses, "stacking.losses", **made)._replace(double=True)
    forecasts = {"x": ("spread", X), "losses": ("spread", PROBABILITIES), "l2": ("number", 0.1)}
    forecasts |= {"weights": ("array?", WEIGHTS)}
    yield door(stacking.linear_forecasts, "stacking.linear_forecasts", **forecasts)._replace(double=True)
    of_fold = {"models": ("models", [Mean()]), "y": ("spread", Y), "folds": ("folds", FOLDS)}
    of_fold |= {"weights": ("array?", WEIGHTS), "seed": ("seed", 0)}
    yield door(lambda **given: stacking.out_of_fold(x=X, **given), "stacking.out_of_fold", **of_fold)._replace(double=True)
    folds = {"folds": ("folds", FOLDS), "seed": ("seed", 0), "stratified": ("flag", False)}
    yield door(lambda **given: stacking.fold_labels(y=Y, **given), "stacking.fold_labels", **folds)
    yield door(
        lambda models: stacking.predictions(models, X), "stacking.predictions", models=("models", [lambda x: x[:, 0]])
    )._replace(double=True)
    by_hand = {"params": ("params", BY_HAND), "x": ("array", X), "y": ("array", Y), "gate": ("name", "softmax")}
    by_hand |= dict.fromkeys(("l1_experts", "l1_gate", "l2_experts", "l2_gate"), ("number", 0.1))
    by_hand |= {"weights": ("array?", WEIGHTS)}
    for name in ("loss", "gradient"):
        yield door(getattr(handwritten, name), f"handwritten.{name}", **by_hand)._replace(double=True)
    slope = {"gradient": ("callable", lambda p: p), "params": ("numbers", BY_HAND["experts"])}
    slope |= {"steps": ("index", 2), "rate": ("number", 0.1)}
    yield door(handwritten.descend, "handwritten.descend", **slope)._replace(double=True)
    compared = {"loss": ("callable", lambda p: (p["w"] ** 2).sum()), "gradient": ("callable", lambda p: {"w": 2 * p["w"]})}
    compared |= {"rtol": ("number", 1e-6)}
    yield door(
        lambda **given: handwritten.compare(params={"w": np.ones(2)}, file=io.StringIO(), **given),
        "handwritten.compare", "checked", **compared,
    )._replace(double=True)  # fmt: skip
    by_distance = {"key": ("key", KEY), "x": ("spread", X), "n_experts": ("count", 2), "tries": ("count", 2)}
    yield door(division.by_distance, "division.by_distance", "checked", **by_distance)
    inliers = {"key": ("key", KEY), "x": ("spread", X), "y": ("spread", Y), "share": ("number", 0.2), "tries": ("count", 2)}
    yield door(division.inliers, "division.inliers", "checked", **inliers)
    rule = {"rule": ("callable", lambda x: LABELS), "n_experts": ("count", 2), "name": ("text", "rule")}
    yield door(lambda **given: division.by_rule(x=X, **given), "division.by_rule", "checked", **rule)._replace(
        also={"n_experts": "rule"}
    )
    yield door(lambda labels: division.by_rule(lambda _: labels, X, 2, name="labels"), "division.by_rule", "checked",
        labels=("array", LABELS))  # fmt: skip


# ---- data -----------------------------------------------------------------------------------------------------------


def of_data() -> Iterator[Door]:
    drawn = {"seed": ("seed", 0), "n": ("count", 9), "d": ("count", 3), "n_experts": ("count", 2), "n_active": ("count", 1)}
    drawn |= {"shared_active": ("flag", False), "covariance": ("spread?", np.eye(3)), "noise_sd": ("number", 0.1)}
    drawn |= {"noise_df": ("number?", None)}
    yield door(datasets.three_regressions, "datasets.three_regressions", **drawn, separation=("number", 1.5))
    yield door(datasets.softmax_regressions, "datasets.softmax_regressions", **drawn, sharpness=("number", 4.0))
    tied = {"seed": ("seed", 0), "n": ("count", 9), "d": ("count", 3), "n_experts": ("count", 2), "n_groups": ("count", 2)}
    numbers = {"spread": ("number", 2.0), "noise_sd": ("number", 0.1), "sharpness": ("number", 4.0)}
    yield door(datasets.tied, "datasets.tied", **tied, **numbers)
    yield door(datasets.inverse_sine, "datasets.inverse_sine", n=("count", 9), seed=("seed", 0))
    fractions = ("array", np.array([0.5, 0.3, 0.2]))
    yield door(datasets.split, "datasets.split", n=("count", 20), seed=("seed", 0), fractions=fractions)
    table = {"path": ("folder", datasets.data_path("diabetes.csv")), "target": ("name", "progression")}
    yield door(datasets.read_csv, "datasets.read_csv", **table, indicators=("flag", False))
    yield door(datasets.data_path, "datasets.data_path", name=("name", "diabetes.csv"))
    problem = datasets.three_regressions(0, n=N, d=D, n_active=1)
    rows = {"x": ("array", X), "y": ("array", Y)}
    for name in ("responsibilities", "log_prob"):
        yield door(getattr(problem, name), f"datasets.Problem.{name}", **rows)._replace(double=True)
    for name in ("posterior", "bayes"):
        yield door(getattr(problem, name), f"datasets.Problem.{name}", x=("spread", X))._replace(double=True)
    yield door(problem.draw, "datasets.Problem.draw", seed=("seed", 0), n=("count", 3))
    yield door(problem.bayes_mse, "datasets.Problem.bayes_mse", seed=("seed", 0), n=("count", 3))


def of_plots() -> Iterator[Door]:
    paths, names = np.ones((4, K, D)), ("names?", ["a", "b", "c"])
    grid, at = np.linspace(-2, 2, 6), np.array([0.0, 1.0])
    ax, text = ("ax?", None), ("text", "label")
    shares, numbers = ("spread?", np.array([0.5, 0.5])), ("spread?", np.array([0, 1]))
    penalty = ("array", np.array([0.1, 0.2, 0.3, 0.4]))
    table = metrics.calibration(LABELS, PROBABILITIES, 4)
    yield door(plots.calibration, "plots.calibration", "checked", table=("part", table), ax=ax)
    path = {"penalty": penalty, "coefficients": ("drawn", paths), "feature_names": names, "chosen": ("number?", 0.2)}
    yield door(plots.coefficient_path, "plots.coefficient_path", "checked", **path, penalty_label=text, ax=ax)
    density = {"at": ("array", at), "grid": ("array", grid), "density": ("array", np.ones((2, 6))), "x": ("spread?", Y)}
    density |= {"y": ("array?", Y), "x_label": text, "y_label": text, "ax": ax}
    yield door(plots.conditional_density, "plots.conditional_density", "checked", **density)
    weights = {"weights": ("array", paths[0]), "feature_names": names, "intercept": ("spread?", at), "shares": shares}
    yield door(plots.expert_weights, "plots.expert_weights", "checked", **weights, numbers=numbers, ax=ax)
    tree = gates.hierarchical((2,)).branches(params_of(moejax.moe(experts.linear(), gates.hierarchical((2,)), 2))["gate"])
    yield door(plots.gate_tree, "plots.gate_tree", "checked", branches=("part", tree), ax=ax)
    cloud = {"x": ("spread", X[:, :2]), "y": ("array", Y), "expert": ("array", LABELS), "ax": ax}
    yield door(plots.sample_3d, "plots.sample_3d", "checked", **cloud)
    groups = {"values": ("spread", np.ones((K, 3))), "groups": ("array", np.zeros((K, D), int)), "feature_names": names}
    yield door(plots.tied_groups, "plots.tied_groups", "checked", **groups, shares=shares, numbers=numbers, ax=ax)
    drawn = plots.training_loss(np.ones(3))
    yield door(plots.title, "plots.title", "checked", ax=("ax", drawn), text=text)
    history = {"history": ("drawn", np.ones((2, 3))), "steps": ("range?", np.arange(3)), "labels": ("names?", ["a", "b"])}
    yield door(plots.training_loss, "plots.training_loss", "checked", **history, highlight=("index?", None), ax=ax)
    both = {"y": ("array", Y), "prediction": ("array", Y), "expert": ("array?", LABELS), "ax": ax}
    yield door(plots.true_vs_predicted, "plots.true_vs_predicted", "checked", **both)
    error = {"penalty": penalty, "error": ("drawn", paths[:, 0]), "chosen_restart": ("array?", np.array([0, 1, 0, 1]))}
    error |= {"chosen": ("number?", 0.2), "reference": ("real?", 0.5), "reference_label": text, "label": text}
    yield door(plots.validation_error, "plots.validation_error", "checked", **error, penalty_label=text, ax=ax)


# ---- estimators -----------------------------------------------------------------------------------------------------

_MIXTURE = {
    "n_experts": ("count", K),
    "experts": ("part", "linear"),
    "gate": ("name", "softmax"),
    "solver": ("name", "em"),
    **dict.fromkeys(("l1_experts", "l1_gate", "l2_experts", "l2_gate"), ("number", 0.1)),
    "penalty": ("parts?", None),
    "hyper": ("hyper?", None),
    "gate_reference": ("flag", False),
    "standardize": ("flag", True),
    "n_init": ("count", 1),
    "max_iter": ("count", 2),
    "tol": ("number?", None),
    "random_state": ("sklearn seed?", 0),
}
_REGRESSION = {
    "family": ("name", "gaussian"),
    "loss": ("name", "nll"),
    "shared_scale": ("flag", False),
    "variance_floor": ("number?", None),
    "standardize_y": ("flag", True),
}
_COMBINATION = {
    "gate": ("name", "fixed"),
    "l1_gate": ("number", 0.0),
    "l2_gate": ("number", 0.1),
    "n_init": ("count", 1),
    "max_iter": ("count", 2),
    "random_state": ("sklearn seed?", 0),
}
_STACKING = {"sees": ("name", "inputs"), "cv": ("folds?", FOLDS), "temperature": ("number", 1.0)}
_STACKING |= {"forecaster": ("part?", None)}
_ENSEMBLE = {"gate_columns": ("columns?", None), "cv": ("folds?", FOLDS), "tol": ("number", 1e-3)}
_ENSEMBLE |= {"progress": ("flag?", False)}


def of_estimators() -> Iterator[Door]:
    x = X.astype(float)
    for name, settings, target in combined():
        made = getattr(estimators, name)
        rows = {"X": ("spread", x), "y": ("classes" if target is LABELS else "spread", target)}
        given = {**settings, **rows, "sample_weight": ("row weights?", WEIGHTS.astype(float))}

        def fit(X: Any, y: Any, sample_weight: Any, made: Any = made, **settings: Any) -> Any:
            return finite_of(made(**settings).fit(X, y, sample_weight), X)

        also = {"random_state": "RandomState", "X": "array|x", "cv": "folds", "y": "labels|classes|label"}
        also |= {"experts": "expert", "gate": "gate|tree"}
        yield Door(f"sklearn.{name}", fit, given, "checked", {**also, "estimators": "estimator"}, double=True)


def combined() -> Iterator[tuple[str, dict[str, tuple[str, Any]], Any]]:
    """The estimators with their settings and a target."""
    regression, classification = ("estimators", [("a", Mean()), ("b", Mean())]), ("estimators", classifiers())
    yield "MoERegressor", {**_MIXTURE, **_REGRESSION}, Y.astype(float)
    yield "MoEClassifier", _MIXTURE, LABELS
    stacked = {**_COMBINATION, **_STACKING}
    yield "MoEStackingRegressor", {"estimators": regression, **stacked, "loss": ("name", "squared_error")}, Y.astype(float)
    yield "MoEStackingClassifier", {"estimators": classification, **stacked}, LABELS
    ensemble = {**_COMBINATION, **_ENSEMBLE}
    yield "MoEEnsembleRegressor", {"estimators": regression, **ensemble}, Y.astype(float)
    yield "MoEEnsembleClassifier", {"estimators": classification, **ensemble}, LABELS


def classifiers() -> list[tuple[str, Any]]:
    naive = importlib.import_module("sklearn.naive_bayes").GaussianNB
    return [("a", naive()), ("b", naive(var_smoothing=0.1))]


def finite_of(estimator: Any, x: Any) -> Any:
    """What of a fitted estimator shall be finite."""
    return estimator.predict_proba(x) if hasattr(estimator, "predict_proba") else estimator.predict(x)


@cache
def fitted() -> dict[str, Any]:
    """An estimator of each kind, and a sweep, all fitted."""
    made = {name: {key: right for key, (_, right) in settings.items()} for name, settings, _ in combined()}
    targets = {name: target for name, _, target in combined()}
    found = {name: getattr(estimators, name)(**settings).fit(X, targets[name]) for name, settings in made.items()}
    fit = moejax.fit_em(model_of(), max_iter=2)
    return {**found, "sweep": moejax.sweep(fit, {"l1_gate": [0.1, 0.2], "fold": 2}, progress=False)(KEY, X, Y)}


def of_fitted() -> Iterator[Door]:
    """Methods of what a fit returns. They are made when they are called, for then something has to be fitted."""

    def method(owner: str, name: str) -> Callable[..., Any]:
        return lambda **given: getattr(fitted()[owner], name)(**given)

    also = {"X": "array|x", "y": "labels|classes|label"}
    rows = {"X": ("spread", X.astype(float))}
    for owner, _, target in combined():
        names = ["predict", "predict_experts", "predict_gate"]
        for name in [*names, "predict_proba"] if "Classifier" in owner else names:
            yield Door(f"sklearn.{owner}.{name}", method(owner, name), rows, "fitted", also, double=True)
        both = {"X": ("array", X.astype(float)), "y": ("classes" if target is LABELS else "spread", target)}
        scored = {**both, "sample_weight": ("row weights?", WEIGHTS)}
        yield Door(f"sklearn.{owner}.score", method(owner, "score"), scored, "fitted", also, double=True)
        for name in ("log_prob", "responsibilities"):
            if hasattr(getattr(estimators, owner), name) and owner != "MoEStackingRegressor":  # which has no likelihood
                yield Door(f"sklearn.{owner}.{name}", method(owner, name), both, "fitted", also, double=True)
    yield door(method("sweep", "sel"), "sweeps.Sweep.sel", "fitted", l1_gate=("number", 0.1))
    yield door(method("sweep", "isel"), "sweeps.Sweep.isel", "fitted", l1_gate=("position", 0))
    yield door(in_a_new_folder(method("sweep", "to_csv")), "sweeps.Sweep.to_csv", "fitted", path=("folder", "table.csv"))


def in_a_new_folder(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function called in a folder of its own, for it writes files."""

    def within(**given: Any) -> Any:
        with TemporaryDirectory() as folder, contextlib.chdir(folder):
            return call(**given)

    return within


# ---- what is not in the table ---------------------------------------------------------------------------------------

MODULES = (
    *("moejax", "datasets", "data", "division", "em", "ensembles", "experts", "families", "fit", "gates", "gradient"),
    *("handwritten", "losses", "metrics", "model", "penalties", "plots", "pooling", "predict", "selection", "sklearn"),
    *("solvers", "stacking", "starts", "sweeps", "tied", "typing"),
)

UNCALLED = {
    "they take no argument": (
        *("experts.predictions", "families.bernoulli", "families.poisson", "gates.constant", "losses.classification_nll"),
        *("losses.complete_squared_error", "losses.joint_nll", "losses.nll", "losses.squared_error", "penalties.standard"),
        *("datasets.diabetes", "datasets.notebook"),
    ),
    "contracts, which users inherit": (
        *("experts.Expert", "experts.ExpertLike", "families.Family", "families.FamilyLike", "gates.Gate", "gates.GateLike"),
        *("losses.Loss", "losses.LossLike", "penalties.Penalty", "penalties.PenaltyLike", "solvers.Solver"),
        *("solvers.LossSolver", "solvers.Configured"),
    ),
    "made by the functions of the table, which check": (
        *("Model", "experts.Choices", "experts.Functions", "experts.Linear", "experts.NeuralExpert", "experts.Predictions"),
        *("experts.Stack", "experts.Tied", "experts.Zeroed", "families.Bernoulli", "families.Categorical", "families.Gamma"),
        *("families.Gaussian", "families.LocationScale", "families.Poisson", "families.StudentT", "gates.Confidence"),
        *("gates.Constant", "gates.Custom", "gates.Fixed", "gates.Gaussian", "gates.Hierarchical", "gates.NeuralGate"),
        *("gates.NoisyTopK", "gates.Softmax", "gates.Top1", "gates.TopK", "losses.Balanced", "losses.CompleteSquaredError"),
        *("losses.NegativeLogLikelihood", "losses.SquaredError", "penalties.Columns", "penalties.ElasticNet"),
        *("penalties.Group", "penalties.L1", "penalties.L2", "solvers.EMFit", "solvers.GradientFit", "solvers.OwnFit"),
        *("solvers.Path", "sweeps.Sweeper", "datasets.Clusters", "datasets.Problem", "datasets.SoftmaxGate"),
    ),
    "records of results": (
        *("Fit", "Status", "Usage", "handwritten.Comparison", "handwritten.Row", "metrics.Calibration", "pooling.Modes"),
        *("datasets.Split", "datasets.Table", "gates.Branch", "selection.ChoiceWarning", "sweeps.Inputs", "sweeps.Run"),
        *("sweeps.Selection", "sweeps.Sweep", "solvers.TrainState", "model.Data", "model.Inputs"),
    ),
    "below the face: called with what is checked already": (
        *("gates.among", "gates.largest", "gates.straight_through", "losses.of_units", "losses.weighted_sum"),
        *("families.Target", "families.target_of", "penalties.check_order", "penalties.kkt", "penalties.stepped"),
        *("solvers.degrees_of_freedom", "solvers.effective_sizes", "solvers.finished", "solvers.name_of"),
        *("solvers.normalized", "solvers.total_weight", "solvers.is_count", "solvers.check_data", "solvers.check_groups"),
        *("starts.check_distinct", "starts.check_init", "starts.check_name", "starts.check_responsibilities"),
        *("starts.draw", "starts.kmeans", "starts.residuals", "starts.shared_rows", "starts.standardized"),
        *("model.checked", "model.floating", "model.is_table", "model.leaders", "model.native", "model.on_device"),
        *("model.group_numbers", "model.widened"),
        *("model.without_absent", "sweeps.compile_for", "stacking.fit_copy", "stacking.is_classifier"),
        *("stacking.rows_of", "stacking.weight_argument", "tied.icl", "division.resolved"),
    ),
    "they change the settings of the process": ("cache",),
    "names of types and constants": (
        *("datasets.Seed", "gates.NEVER", "model.Columns", "model.Params", "model.PARTS", "penalties.Coefficients"),
        *("penalties.Terms", "plots.PALETTE", "selection.CRITERIA", "selection.Criterion", "selection.RULES"),
        *("solvers.INADMISSIBLE", "solvers.Optimizer", "stacking.LEAST", "starts.EQUAL", "starts.KINDS", "starts.MIXED"),
        *("sweeps.EVERY_ROW", "sweeps.NO_SAMPLE", "sweeps.ROW_AXES", "tied.FORMS"),
    ),
}  # fmt: skip


def found(name: str) -> Any:
    """What is public under a name, as `gates.softmax` or `Model.predict`."""
    at: Any = moejax
    for step in name.split("."):
        at = getattr(at, step) if hasattr(at, step) else importlib.import_module(f"moejax.{step}")
    return at


def public() -> dict[str, Any]:
    """All public names of the public modules, but for modules and the annotations of `moejax.typing`."""
    names: dict[str, Any] = {}
    for module in MODULES:
        there = moejax if module == "moejax" else importlib.import_module(f"moejax.{module}")
        own = {f"{module}.{name}": getattr(there, name) for name in there.__all__}
        names |= {} if module == "typing" else own
    return {name: value for name, value in names.items() if type(value) is not type(moejax)}


def missing() -> list[str]:
    """Public names that are neither in the table nor in `UNCALLED`."""
    known = [*(each.name for each in doors()), *(name for names in UNCALLED.values() for name in names)]
    objects = [found(name) for name in known]
    return [name for name, value in public().items() if not any(value is one for one in objects)]
