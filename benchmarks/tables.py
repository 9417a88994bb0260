"""Our mixtures on real tables, beside the lasso, a tree, forests, boosting and scikit-learn's stacking.

    python benchmarks/tables.py [--tables ...] [--csv FILE --target COLUMN] [--models ...] [--repeats 3] [--out DIR]

Repeated cross-validation, the same folds for all models. Regressions are judged by squared error over the variance of the
target, classifications by log loss and accuracy; no probability counts as less than 0.001, for any model. Whatever a
model has to choose, it chooses within the training rows of a fold.

Ours come from one sweep over penalties, numbers of experts (one expert is the lasso), starts and five inner folds, whose
members are compared by what they predict for the rows that they did not see:

- `mixture`: the best combination, refitted on all training rows: a few sparse experts and a gate, to be read;
- `averaged`: the same sweep, no refit. Members that differ in start and inner fold alone are averaged, and combinations of
  penalties and number of experts weighed by pseudo-Bayesian model averaging with the Bayesian bootstrap (Yao, Vehtari,
  Simpson and Gelman 2018);
- `hierarchy`: `averaged` with a tree of splits for a gate;
- `neural`: `averaged`, of two networks with a hidden layer each and a softmax gate, by Adam;
- `stacked`: a mixture of fixed penalties, the lasso, the forest and boosting, weighed by a gate that sees the inputs.

Columns are standardised by the training rows and cut at three standard deviations, and no prediction of ours leaves the
range of the training targets: both keep a linear expert from going astray where it has seen nothing.

Standard errors are those of Nadeau and Bengio (2003) for repeated cross-validation, whose training sets overlap; whether a
model is within one of the best is asked of their paired differences. Writes `tables.json`, `tables.csv` (a row for each
model and fold), `tables.png` and `experts.txt`, the experts of the first table, into DIR, after each table what there is.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sklearn.datasets
from flax import linen as nn
from lambda_grid import keep_compiled_programs, panels, run_command, write_json
from matplotlib.ticker import LogLocator, NullLocator
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
)
from sklearn.linear_model import LassoCV, LogisticRegressionCV
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits

import moejax
from moejax import datasets, experts, families, gates, plots
from moejax.sklearn import MoEClassifier, MoERegressor, MoEStackingClassifier, MoEStackingRegressor

LEAST_PROBABILITY = 1e-3  # a tree is sure where it saw one class alone, and one such row would decide its mean
CUT = 3.0  # standard deviations
DRAWS = 200  # of the Bayesian bootstrap
N_EXPERTS = (1, 2, 4)
FEW_ROWS = 100
LARGE = 50_000  # numbers in a table, from which on grids are smaller


# ---- tables ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Table:
    """A table and what is asked of it: y holds numbers, or with `classes` the position of each row's class."""

    name: str
    x: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    classes: tuple[str, ...] | None = None

    @property
    def large(self) -> bool:
        return self.x.size > LARGE

    def losses(self, predictions: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The loss of each row (..., n): squared error, or log loss of probabilities (..., n, C)."""
        if self.classes is None:
            return np.square(predictions - y)
        probs = np.maximum(predictions, LEAST_PROBABILITY)
        at = np.broadcast_to(y[:, None], (*probs.shape[:-1], 1))
        return -np.log(np.take_along_axis(probs, at, axis=-1)[..., 0] / probs.sum(axis=-1))


def of_sklearn(name: str, target: int | None = None) -> Table:
    """A table that comes with scikit-learn; target: which of several targets."""
    data = getattr(sklearn.datasets, f"load_{name}")()
    features = tuple(map(str, data.feature_names))
    if target is not None:
        return Table(name, data.data, data.target[:, target], features)
    return Table(name, data.data, data.target, features, tuple(map(str, data.target_names)))


def of_csv(path: str, target: str, classes: bool) -> Table:
    table = datasets.read_csv(path, target)
    if not classes:
        return Table(Path(path).stem, table.x, table.y, table.feature_names)
    labels, numbers = np.unique(table.y, return_inverse=True)
    return Table(Path(path).stem, table.x, numbers, table.feature_names, tuple(f"{label:g}" for label in labels))


def diabetes() -> Table:
    table = datasets.diabetes()
    return Table("diabetes", table.x, table.y, table.feature_names)


TABLES: dict[str, Callable[[], Table]] = {
    "diabetes": diabetes,
    "linnerud": partial(of_sklearn, "linnerud", target=0),  # weight from three exercises
    "breast_cancer": partial(of_sklearn, "breast_cancer"),
    "digits": partial(of_sklearn, "digits"),
    "iris": partial(of_sklearn, "iris"),
    "wine": partial(of_sklearn, "wine"),
}


def fold_labels(y: np.ndarray, classes: bool, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, (n,); every class in all folds alike."""
    if classes:
        least = np.bincount(y).min()
        if least < folds:
            raise ValueError(f"--folds: {folds} were given for a class of {least} rows; want at most one for each")
    split = (StratifiedKFold if classes else KFold)(folds, shuffle=True, random_state=seed)
    labels = np.empty(len(y), int)
    for fold, (_, test) in enumerate(split.split(y, y)):
        labels[test] = fold
    return labels


@dataclass(frozen=True, eq=False)
class Task:
    """A table of which only the rows of `train`, (n,) booleans, have been seen. seed: of what is drawn among them."""

    table: Table
    train: np.ndarray
    seed: int

    @cached_property
    def weights(self) -> np.ndarray:
        """1 for rows that were seen, 0 for others: rows never move, so that one compiled program serves all folds."""
        return self.train.astype(np.float32)

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the seen targets; 0 and 1 for classes."""
        y = self.table.y[self.train]
        return (0.0, 1.0) if self.table.classes else (y.mean(), y.std())

    @cached_property
    def x(self) -> np.ndarray:
        seen = self.table.x[self.train]
        sd = seen.std(axis=0)
        scaled = (self.table.x - seen.mean(axis=0)) / np.where(sd > 1e-10 * np.abs(seen).max(axis=0), sd, 1)
        return np.clip(scaled, -CUT, CUT).astype(np.float32)

    @cached_property
    def y(self) -> np.ndarray:
        mean, sd = self.moments
        return ((self.table.y - mean) / sd).astype(np.float32)

    @property
    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and targets to fit to, in which rows of weight 0 are blank, so that nothing can come from them."""
        return np.where(self.train[:, None], self.x, 0), np.where(self.train, self.y, 0)

    def inner_folds(self, folds: int) -> np.ndarray:
        """The inner fold of each row, -1 for rows that were not seen."""
        labels, classes = np.full(len(self.train), -1), self.table.classes is not None
        seen = self.table.y[self.train]
        most = int(min(folds, np.bincount(seen).min() if classes else len(seen)))
        labels[self.train] = fold_labels(seen, classes, most, self.seed)
        return labels


# ---- our models -----------------------------------------------------------------------------------------------------


Model = Callable[[Task], np.ndarray]  # fits to the rows that were seen, and predicts all: (n,), or probabilities (n, C)


@dataclass(frozen=True)
class Grid:
    """Our models for a table: a fit, the same for all folds, and the axes of its sweep beside folds, starts last."""

    fit: Any
    axes: tuple[tuple[str, Any], ...]
    folds: int


def outputs(table: Table) -> int | None:
    """How many numbers an expert predicts: None for one."""
    return len(table.classes) if table.classes is not None and len(table.classes) > 2 else None


def family(table: Table) -> Any:
    if table.classes is None:
        return families.gaussian(shared_scale=True)
    return families.bernoulli() if len(table.classes) == 2 else families.categorical(len(table.classes))


def linear(gate: Any, n_experts: tuple[int, ...], table: Table, quick: bool) -> Grid:
    """Paths of sparse linear experts, fewer where fits cost much. Too large a ridge on a gate starves experts of classes.

    Experts of classes have a little ridge too: where a line separates the classes, the lasso's optimum is far too sure.
    """
    l1 = (0.003, 0.01, 0.03, 0.1, 0.5) if table.classes is None else (1e-4, 3e-4, 1e-3)
    ridge = (0.0,) if table.classes is None else (1e-4,)
    l2 = (3e-4, 1e-2) if table.classes is None else (3e-4, 3e-3)
    few = quick or table.large
    if few:
        n_experts, l1, ridge, l2 = n_experts[:2], l1[1:3], ridge[:1], l2[1:]
    iterations = 30 if quick else 40 if table.large else 100
    model = moejax.moe(experts.linear(outputs(table)), gate, max(n_experts), family=family(table))
    restarts = 2 if quick else 1 if table.large else 4
    axes = (("l1_experts", l1), ("l2_experts", ridge), ("l2_gate", l2), ("n_experts", n_experts), ("restart", restarts))
    return Grid(moejax.path(moejax.fit_em(model, max_iter=iterations)), axes, 3 if few else 5)


def neural(table: Table, quick: bool) -> Grid:
    """Networks of one hidden layer, by Adam on the likelihood under a ridge."""
    network = nn.Sequential([nn.Dense(16), nn.tanh, nn.Dense(outputs(table) or 1)])
    model = moejax.moe(experts.neural(network), gates.softmax(), 2, family=family(table))
    steps = 50 if quick else 200 if table.large else 500
    fit = moejax.fit_gradient(model, moejax.losses.nll(), steps=steps, learning_rate=0.01, record_every=steps)
    few = quick or table.large
    ridges = (1e-3,) if few else (1e-3, 1e-2, 1e-1)
    axes = (("l2_experts", ridges), ("l2_gate", (1e-2,)), ("restart", 1 if few else 3))
    return Grid(fit, axes, 3 if few else 5)


@partial(jax.jit, static_argnums=0)
def predicted(model: Any, params: Any, x: Any) -> jax.Array:
    """Predictions (G, n) or (G, n, C) of params with G leading."""
    return jax.lax.map(lambda p: model.predict(p, x), params, batch_size=32)


class Members:
    """All fits of a sweep on a task, and what they predict.

    swept: the sweep, its last axes `restart` and `fold`. predictions: of all rows, (*axes, n) or (*axes, n, C).
    held: the inner fold of each row.
    """

    def __init__(self, grid: Grid, task: Task):
        self.task, self.table, self.held = task, task.table, task.inner_folds(grid.folds)
        sweep = moejax.sweep(grid.fit, {**dict(grid.axes), "fold": self.held}, progress=False)
        self.swept = sweep(jax.random.key(task.seed), *task.seen, weights=task.weights)
        shape = self.swept.shape
        params = jax.tree.map(lambda v: v.reshape(-1, *v.shape[len(shape) :]), self.swept.fits.params)
        flat = self.spoken(predicted(grid.fit.model, params, task.x), 1)
        self.predictions = flat.reshape(*shape, *flat.shape[1:])

    def spoken(self, predictions: Any, leading: int) -> np.ndarray:
        """A model's predictions within the range of the seen targets, or probabilities of all classes."""
        predictions = np.asarray(predictions, np.float64)
        if self.table.classes is None:
            seen = self.task.y[self.task.train]
            return np.clip(predictions, seen.min(), seen.max())
        binary = predictions.ndim == leading + 1
        return np.stack([1 - predictions, predictions], axis=-1) if binary else predictions

    @property
    def target(self) -> np.ndarray:
        """What predictions are held against: standardised numbers, or positions of classes."""
        return self.task.y if self.table.classes is None else self.table.y

    def losses(self, predictions: np.ndarray) -> np.ndarray:
        """The losses (C, n) of predictions (C, folds, n, ...), each seen row's by the member of its own inner fold."""
        seen = self.task.train
        own = predictions[:, self.held[seen], np.flatnonzero(seen)]
        return self.table.losses(own, self.target[seen])

    def chosen(self) -> Any:
        """The best combination of all but starts, which compete by training objective, refitted on all seen rows."""
        each = self.table.losses(self.predictions, self.target)
        held = self.held == self.swept.axes["fold"][:, None]
        return moejax.select(dataclasses.replace(self.swept, held_out=(each * held).sum(axis=-1) / held.sum(axis=-1)))

    def single(self) -> np.ndarray:
        """Predictions of the chosen mixture."""
        model = self.swept.sweeper.fit.model
        return self.spoken(jax.jit(model.predict)(self.chosen().params, self.task.x), 0)

    def averaged(self) -> np.ndarray:
        """Predictions averaged over starts and folds, and combinations by their weights."""
        ok = np.asarray(self.swept.fits.admissible & np.isfinite(self.swept.fits.objective))
        depth = ok.ndim - 2
        ok = ok.reshape(-1, *ok.shape[depth:])  # (C, restarts, folds)
        predictions = self.predictions.reshape(*ok.shape, *self.predictions.shape[depth + 2 :])
        everywhere = ok.any(axis=1).all(axis=1)
        if not everywhere.any():
            raise RuntimeError(f"{self.table.name}: no combination has an admissible fit in every fold")
        ok, predictions = ok[everywhere], predictions[everywhere]
        counts = ok / ok.sum(axis=1, keepdims=True)
        of_fold = np.einsum("crf,crf...->cf...", counts, np.where(_beside(ok, predictions), predictions, 0))
        losses = self.losses(of_fold)
        if self.table.classes is None:  # the log score of normal errors of the best combination's variance
            losses = losses / (2 * losses.mean(axis=1).min())
        return np.tensordot(weights_of(losses, self.task.seed), of_fold.mean(axis=1), 1)


def _beside(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def weights_of(losses: np.ndarray, seed: int) -> np.ndarray:
    """Weights (C,), of sum 1, of models with held-out negative log scores (C, n): pseudo-BMA with the Bayesian bootstrap.

    Each draw weighs the rows anew and each model by exp of its total score; what is returned is their mean.
    """
    rows = losses.shape[1]
    shares = np.random.default_rng(seed).dirichlet(np.ones(rows), DRAWS)
    totals = -rows * losses @ shares.T
    odds = np.exp(totals - totals.max(axis=0))
    return (odds / odds.sum(axis=0)).mean(axis=1)


members = lru_cache(maxsize=1)(Members)  # several models of one sweep on one task, one after another


def ours(make: Callable[[Table, bool], Grid], how: Callable[[Members], np.ndarray], table: Table, quick: bool) -> Model:
    grid = make(table, quick)

    def predict(task: Task) -> np.ndarray:
        mean, sd = task.moments
        return how(members(grid, task)) * sd + mean

    return predict


# ---- other models ---------------------------------------------------------------------------------------------------


def theirs(make: Callable[[Table, bool], Any], table: Table, quick: bool) -> Model:
    """A scikit-learn estimator, fitted to the rows that were seen."""

    def predict(task: Task) -> np.ndarray:
        # Threads gain nothing on so few rows, and wait for each other where the machine is busy.
        with warnings.catch_warnings(), threadpool_limits(1, "openmp"):
            warnings.simplefilter("ignore")  # of solvers that stop at their last iteration
            fitted = make(table, quick).fit(table.x[task.train], table.y[task.train])
        return fitted.predict(table.x) if table.classes is None else fitted.predict_proba(table.x)

    return predict


def lasso(table: Table, quick: bool) -> Any:
    """The lasso, or logistic regression under L1, its weight by cross-validation."""
    if table.classes is None:
        return make_pipeline(StandardScaler(), LassoCV(cv=5))
    few = quick or table.large
    weights = np.geomspace(1e-2, 10, 4) if few else np.geomspace(1e-2, 1e2, 9)
    logistic = LogisticRegressionCV(
        Cs=weights,
        penalty="l1",
        solver="saga",
        scoring="neg_log_loss",
        cv=3 if few else 5,
        tol=1e-3 if few else 1e-4,
        max_iter=200 if few else 1000,
    )
    return make_pipeline(StandardScaler(), logistic)


def tree(table: Table, quick: bool) -> Any:
    """A tree whose depth and size of leaves are chosen by cross-validation."""
    sizes = {"max_depth": [1, 2, 3, 4, 6, 8, None], "min_samples_leaf": [1, 5, 20]}
    if table.classes is None:
        return GridSearchCV(DecisionTreeRegressor(random_state=0), sizes, scoring="neg_mean_squared_error", cv=5)
    return GridSearchCV(DecisionTreeClassifier(random_state=0), sizes, scoring="neg_log_loss", cv=3 if quick else 5)


def forest(table: Table, quick: bool) -> Any:
    """300 trees, whose splits see a third of the columns in a regression (Breiman 2001), else the root of their number."""
    count = 20 if quick else 300
    if table.classes is None:
        return RandomForestRegressor(count, max_features=1 / 3, random_state=0)
    return RandomForestClassifier(count, random_state=0)


def boosting(table: Table, quick: bool) -> Any:
    rounds = 20 if quick else 100
    if table.classes is None:
        return HistGradientBoostingRegressor(max_iter=rounds, random_state=0)
    return HistGradientBoostingClassifier(max_iter=rounds, random_state=0)


def stacking(table: Table, quick: bool) -> Any:
    """The lasso, the forest and boosting, weighed by a regression of what they predict for rows that they did not see."""
    parts = [(make.__name__, make(table, quick)) for make in (lasso, forest, boosting)]
    return (StackingRegressor if table.classes is None else StackingClassifier)(parts, cv=3)


def stacked(table: Table, quick: bool) -> Any:
    """Our stacking of the same parts and, where its experts have rows enough, a mixture, by a gate that sees the inputs."""
    parts = [(make.__name__, make(table, quick)) for make in (lasso, forest, boosting)]
    own = {"n_experts": 2, "l2_gate": 0.01, "random_state": 0}
    if table.classes is None:
        mixture, stack = MoERegressor(l1_experts=0.03, shared_scale=True, **own), MoEStackingRegressor
    else:
        mixture, stack = MoEClassifier(l1_experts=1e-2, max_iter=100, **own), MoEStackingClassifier
    if len(table.y) >= FEW_ROWS:
        parts.append(("mixture", make_pipeline(StandardScaler(), mixture)))
    return stack(parts, cv=3, l2_gate=0.1, random_state=0)


SOFTMAX = partial(linear, gates.softmax(), N_EXPERTS)
MODELS: dict[str, Callable[[Table, bool], Model]] = {
    "mixture": partial(ours, SOFTMAX, Members.single),
    "averaged": partial(ours, SOFTMAX, Members.averaged),
    "hierarchy": partial(ours, partial(linear, gates.hierarchical((2, 2)), (1, 4)), Members.averaged),
    "neural": partial(ours, neural, Members.averaged),
    "stacked": partial(theirs, stacked),
    "lasso": partial(theirs, lasso),
    "tree": partial(theirs, tree),
    "forest": partial(theirs, forest),
    "boosting": partial(theirs, boosting),
    "stacking": partial(theirs, stacking),
}


# ---- cross-validation -----------------------------------------------------------------------------------------------


def run_table(table: Table, names: list[str], labels: np.ndarray, quick: bool) -> dict[str, Any]:
    """Errors of all models in all folds. labels: (repeats, n), the fold of each row in each repeat."""
    models = {name: MODELS[name](table, quick) for name in names}
    folds = int(labels.max()) + 1
    rows: list[dict[str, Any]] = []
    variance = table.y.var() if table.classes is None else 1.0
    for repeat, of_row in enumerate(labels):
        for fold in range(folds):
            task, test = Task(table, of_row != fold, seed=repeat * folds + fold), of_row == fold
            for name, model in models.items():
                started = time.perf_counter()
                predictions, y = model(task)[test], table.y[test]
                seconds = time.perf_counter() - started
                row = {"table": table.name, "model": name, "repeat": repeat, "fold": fold}
                row["error"] = float(table.losses(predictions, y).mean() / variance)
                right = None if table.classes is None else float((predictions.argmax(axis=1) == y).mean())
                rows.append({**row, "accuracy": right, "seconds": seconds})
        last = {name: np.mean([r["error"] for r in rows if r["model"] == name and r["repeat"] == repeat]) for name in names}
        print(f"{table.name}, repeat {repeat}: " + ", ".join(f"{n} {e:.4g}" for n, e in last.items()), flush=True)
    measure = "squared error / variance" if table.classes is None else "log loss"
    what = {"name": table.name, "n": len(table.y), "d": table.x.shape[1], "classes": table.classes, "measure": measure}
    return {**what, "fold_of_row": labels.tolist(), "models": summaries(names, rows, folds), "rows": rows}


def corrected_error(values: np.ndarray, folds: int) -> float:
    """The standard error of a mean over repeats and folds (Nadeau and Bengio 2003)."""
    return float(np.sqrt((1 / len(values) + 1 / (folds - 1)) * values.var(ddof=1)))


def summaries(names: list[str], rows: list[dict[str, Any]], folds: int) -> list[dict[str, Any]]:
    """For each model the mean error, its standard error, and how far it is from the best, within folds."""
    errors = {name: np.array([r["error"] for r in rows if r["model"] == name]) for name in names}
    best = min(names, key=lambda name: errors[name].mean())
    found = []
    for name in names:
        difference = errors[name] - errors[best]
        mean, error = float(difference.mean()), corrected_error(difference, folds)
        accuracy = [r["accuracy"] for r in rows if r["model"] == name]
        found.append(
            {
                "name": name,
                "error": float(errors[name].mean()),
                "standard_error": corrected_error(errors[name], folds),
                "accuracy": None if accuracy[0] is None else float(np.mean(accuracy)),
                "difference": mean,
                "difference_se": error,
                "best": name == best,
                "near_best": mean <= error,
                "seconds": float(np.mean([r["seconds"] for r in rows if r["model"] == name])),
            }
        )
    return found


# ---- what is written ------------------------------------------------------------------------------------------------


def told(table: Table, quick: bool) -> str:
    """The experts that `mixture` chooses on all rows of a table, by name, for standardised columns and targets."""
    grid = SOFTMAX(table, quick)
    task = Task(table, np.ones(len(table.y), bool), seed=0)
    own = members(grid, task)
    best, model = own.chosen(), own.swept.sweeper.fit.model
    chosen = ", ".join(f"{name}={value:g}" for name, value in best.chosen.items())
    lines = [f"{table.name}: {chosen}; columns and target standardised, coefficients of 0 left out"]
    share = np.asarray(model.gate_probs(best.params, task.x)).mean(axis=0)
    count = int(best.chosen["n_experts"])
    linear, gate = best.params["experts"], best.params["gate"]
    for k in np.argsort(-share[:count]):
        lines.append(f"\nexpert {k + 1}, {share[k]:.0%} of the rows")
        lines += _terms(table, linear["weights"][k], linear["intercept"][k])
        if count > 1:
            centred = gate["weights"][:count] - gate["weights"][:count].mean(axis=0)
            lines.append(f"  where {_sum(table.features, centred[k], 4)} is large")
    return "\n".join(lines) + "\n"


def _terms(table: Table, weights: np.ndarray, intercept: np.ndarray) -> list[str]:
    """A line for each output of an expert; weights: (d,), or (d, C)."""
    if weights.ndim == 1:
        what = "target" if table.classes is None else f"log odds of {(table.classes or ())[1]}"
        return [f"  {what} = {intercept:.2f} {_sum(table.features, weights)}"]
    names = table.classes or ()
    return [f"  {names[c]}: {intercept[c]:.2f} {_sum(table.features, weights[:, c])}" for c in range(len(names))]


def _sum(names: tuple[str, ...], weights: np.ndarray, most: int | None = None) -> str:
    order = [j for j in np.argsort(-np.abs(weights)) if abs(weights[j]) > 5e-3][:most]
    return " ".join(f"{weights[j]:+.2f} {names[j]}" for j in order) or "nothing"


def printed(results: list[dict[str, Any]]) -> str:
    """The table of errors: * marks the best, + what is within one standard error of it."""
    names = list(dict.fromkeys(m["name"] for r in results for m in r["models"]))
    wide = max(len(r["name"]) for r in results) + 2
    lines = ["".join([" " * wide, *(f"{name:>20}" for name in names)])]
    for result in results:
        by_name = {m["name"]: m for m in result["models"]}
        cells = []
        for m in (by_name[name] for name in names):
            mark = "*" if m["best"] else "+" if m["near_best"] else " "
            cells.append(f"{m['error']:12.4f} ±{m['standard_error']:.3f}{mark}")
        lines.append(f"{result['name']:{wide}}" + "".join(cells))
    lines.append("squared error / variance of the target, or log loss; * the best, + within one standard error of it")
    classified = [r for r in results if r["classes"] is not None]
    if classified:
        lines.append("\naccuracy")
        lines += [f"{r['name']:{wide}}" + "".join(f"{m['accuracy']:20.3f}" for m in r["models"]) for r in classified]
    return "\n".join(lines)


def draw(results: list[dict[str, Any]]) -> Any:
    """A panel for each table: a dot and a bar of one standard error for each model, the best filled."""
    figure, axes = panels(len(results), 3, (4.2, 3.0))
    for ax, result in zip(axes, results, strict=True):
        for place, model in enumerate(result["models"]):
            colour = plots.PALETTE[place % len(plots.PALETTE)]
            face = colour if model["near_best"] else "white"
            bar = {"color": colour, "markerfacecolor": face, "markersize": 6, "capsize": 2.5, "linewidth": 1.4}
            ax.errorbar(model["error"], place, xerr=model["standard_error"], fmt="o", **bar)
        ax.set_yticks(range(len(result["models"])), [m["name"] for m in result["models"]], fontsize=8)
        ax.set_ylim(len(result["models"]) - 0.5, -0.5)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}")
        ax.tick_params(axis="x", labelsize=8)
        ax.set_xlabel(f"{result['measure']}\nfilled: within one standard error of the best", fontsize=8)
        ax.grid(True, axis="x", color="#E4E4E4", linewidth=0.6)
        plots.title(ax, f"{result['name']} ({result['n']} x {result['d']})")
    return figure


def write(results: list[dict[str, Any]], text: str, out: Path, about: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [row for result in results for row in result["rows"]]
    with open(out / "tables.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    kept = [{name: v for name, v in result.items() if name != "rows"} for result in results]
    write_json({**about, "tables": kept}, out / "tables.json")
    (out / "experts.txt").write_text(text, encoding="utf-8")
    draw(results).savefig(out / "tables.png", dpi=100)


# ---- the job --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=list(TABLES), help="default: all")
    parser.add_argument("--csv", metavar="FILE", help="one more table, a file with a header")
    parser.add_argument("--target", metavar="COLUMN", help="the column of --csv to predict")
    parser.add_argument("--classes", action="store_true", help="the target of --csv numbers classes")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="default: all")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="of the folds, of large tables one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the folds (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="small grids and one repeat, to see that it runs")
    parser.add_argument("--out", metavar="DIR", default="results/tables", help="default: %(default)s")
    options = parser.parse_args(arguments)
    for name, least in (("folds", 2), ("repeats", 1), ("seed", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: {getattr(options, name)} was given; want at least {least}")
    if (options.csv is None) != (options.target is None):
        parser.error("--csv and --target: one was given without the other; want both, or neither")
    if options.classes and options.csv is None:
        parser.error("--classes is about the table of --csv, which was not given")
    if not options.tables and options.csv is None:
        parser.error("--tables: none was given; want at least one, or --csv")
    keep_compiled_programs()
    started = time.perf_counter()
    tables = [TABLES[name]() for name in options.tables]
    if options.csv is not None:
        tables.append(of_csv(options.csv, options.target, options.classes))
    results, text, about = [], "", {"folds": options.folds, "seed": options.seed}
    for table in tables:
        repeats = 1 if options.quick or table.large else options.repeats
        seeds = [options.seed + repeat for repeat in range(repeats)]
        labels = np.stack([fold_labels(table.y, table.classes is not None, options.folds, seed) for seed in seeds])
        results.append(run_table(table, options.models, labels, options.quick))
        text = text or told(table, options.quick)
        about = {**about, "seconds": time.perf_counter() - started}
        write(results, text, Path(options.out), about)  # what took long to compute is safe
    print("\n" + printed(results) + "\n\n" + text)
    print(f"written to {options.out}: tables.json, tables.csv, tables.png, experts.txt")
    return {**about, "tables": results}


def cli() -> None:
    run_command(main)


if __name__ == "__main__":
    cli()
