"""Experts: what each of the K experts says of a row, before any gate weighs it.

An expert is any record with two pure functions, for all K experts at once:

    init(key, n_experts, x) -> params            params: a pytree, experts on its leading axis
    apply(params, x) -> eta                      eta: (K, n), or (K, n, m) for m outputs

and, where it helps, `prepare(x)`, run once and shared by all members of a sweep, whose result `apply` then gets in the
place of x; `trainable(params)` and `penalized(params)`, trees of booleans (see `moejax.model`); `takes_any_array`, whether x
may be an array of any shape with n leading, such as images, rather than a table (n, d); `hyper`, `check_hyper` and `settled`,
as for gates; `degrees_of_freedom(params) -> (K,)`, two more rows than which an expert needs so as not to count as starved
(without it, two; none where nothing in params is trained, as in the empty params of experts that are fitted already); and
`by_columns(choices)`, for the function of that name. `stack` makes such a record of the two functions of a single expert, and
`neural` of a network.

For an M-step of its own in EM (without it, it gets gradient steps on EM's expected objective):

    statistics(rows, curvature, slope, total) -> statistics
                                                         sums over rows; curvature, slope: like eta, of the mean loss in eta;
                                                         total: the weight of all rows, by which the mean divides
    m_step(params, gradient, statistics, penalties) -> params
    rows(x) -> rows                                      optional: computed once from what `prepare` returned
    null(params, eta) -> params                          optional: where to begin from given responsibilities, predicting eta
    begin(params, statistics, key) -> params             optional: where to begin, from the statistics at `null`, where an
                                                         M-step from there could not part what begins equal

gradient is that of the expected loss in params. penalties: pairs of a penalty and its weight. From sums of rows alone, the
M-step lowers the quadratic approximation of the expected loss, plus penalties; the solver sees to it that the expected
objective itself never rises.

The params of an expert may describe a distribution of its coefficients (`tied`). Its predictor is then that at their mean, and
it has

    variance(params, x) -> (K, n)        of the predictor
    log_prior(params) -> (K,)            the mean of log prior - log density of each expert's distribution, told once for all
                                         rows: it is added to the total log-likelihood

The likelihood's place is taken by the lower bound that results (Jordan, Ghahramani, Jaakkola and Saul 1999): densities enter
it by the family's `expected_log_prob`. Predictions, `log_prob` and held-out scores are those of the mean.

An expert may also have numbers that a fit sets, `hyper` and `check_hyper`, as gates have (see `moejax.gates`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _check, _trees
from moejax._linear import Moments, Pairs, collinear, dot, moments, pairs, predictors, quadratic_step, with_intercept
from moejax.neural import neural_expert as neural  # noqa: F401, these and the next have files of their own
from moejax.tied import tied as tied


@dataclass(frozen=True)
class Choices:
    """Divisions of columns among experts, of which a number in params tells the one that holds; see `by_columns`.

    columns: of each choice, of each expert.
    """

    columns: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def hyper(self) -> dict[str, float]:
        """`columns`, the number of the choice, where there are several."""
        return {"columns": 0} if len(self.columns) > 1 else {}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number of no choice."""
        _check.whole(f"hyper[{name!r}]", value, 0, len(self.columns) - 1)

    def init(self, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """The number of the choice that holds, unless there is one only.

        Raises ValueError for another number of experts, and for columns that x (n, d) does not have.
        """
        _check.shape("x", x, (None, None), "an array, since its columns are divided among the experts")
        for choice in self.columns:
            check_division("expert_columns", choice, n_experts)
            last = max(map(max, choice))
            if last >= x.shape[1]:
                raise ValueError(f"expert_columns: column {last} was given; want columns below {x.shape[1]}, those of x")
        return {name: jnp.asarray(number, x.dtype) for name, number in self.hyper.items()}

    def own(self, params: Any) -> Any:
        """Params of the expert alone."""
        return {name: v for name, v in params.items() if name not in self.hyper} if self.hyper else params

    def seen(self, params: Any, d: int, dtype: Any) -> jax.Array:
        """1 for each column that an expert sees and 0 for the others, (K, d)."""
        masks = np.zeros((len(self.columns), len(self.columns[0]), d))
        for choice, mask in zip(self.columns, masks, strict=True):
            for row, columns in zip(mask, choice, strict=True):
                row[list(columns)] = 1
        number = params["columns"].astype(jnp.int32) if self.hyper else 0
        return jnp.asarray(masks, dtype)[number]


@dataclass(frozen=True)
class Linear:
    """Linear predictors; made by `linear`."""

    outputs: int | None = None
    init_scale: float = 1.0
    choices: Choices | None = None

    @property
    def hyper(self) -> dict[str, float]:
        """Of experts that see some columns only, which (see `by_columns`)."""
        return {} if self.choices is None else self.choices.hyper

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number of no choice of columns."""
        self.choices.check_hyper(name, value)  # type: ignore[union-attr]

    def by_columns(self, choices: Choices) -> Linear:
        """The same experts, each of which sees some columns only: the coefficients of the others are exactly 0."""
        return dataclasses.replace(self, choices=choices)

    def _seen(self, params: Any) -> jax.Array:
        weights = params["weights"]
        return self.choices.seen(params, weights.shape[1], weights.dtype)  # type: ignore[union-attr]

    def settled(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Params with 0 for the coefficients of columns that an expert does not see."""
        if self.choices is None:
            return params
        seen = self._seen(params).reshape(*params["weights"].shape[:2], *(1,) * (self.outputs is not None))
        return {**params, "weights": seen * params["weights"]}

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Normal weights of variance init_scale^2 / d and intercepts of 0: (K, d) and (K,), or (K, d, m) and (K, m)."""
        d = x.shape[1]
        tail = () if self.outputs is None else (self.outputs,)
        scale = self.init_scale / d**0.5
        return {
            "weights": scale * jax.random.normal(key, (n_experts, d, *tail), x.dtype),
            "intercept": jnp.zeros((n_experts, *tail), x.dtype),
            **({} if self.choices is None else self.choices.init(n_experts, x)),
        }

    def prepare(self, x: jax.Array) -> jax.Array:
        """What all members share: x with a column of ones, (n, d + 1)."""
        return with_intercept(x)

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """x . weights + intercept, (K, n) or (K, n, m), for x as `prepare` returns it."""
        params = self.settled(params)
        if self.outputs is None:
            return predictors(params["weights"], params["intercept"], x)
        coefficients = jnp.concatenate([params["weights"], params["intercept"][:, None]], axis=1)
        return jnp.moveaxis(dot(jnp.moveaxis(coefficients, 1, 2), x.T), 1, 2)

    def rows(self, x: jax.Array) -> Pairs:
        """What `statistics` wants of x as `prepare` returns it, computed once."""
        return pairs(x)

    def statistics(self, rows: Pairs, curvature: jax.Array, slope: jax.Array, total: jax.Array) -> Moments:
        """sum over rows of curvature * x x', (K, p, p) or (K, m, p, p), for curvatures (K, n) or (K, n, m)."""
        return moments(rows, curvature if self.outputs is None else jnp.swapaxes(curvature, 1, 2))

    def m_step(self, params: Any, gradient: Any, statistics: Moments, penalties: Any) -> Any:
        """Params at which the quadratic with that gradient and those statistics, plus penalties, is lower."""
        if self.choices is not None:
            statistics = statistics.of_columns(self._seen(params))
        return quadratic_step(params, gradient, statistics, penalties)

    @property
    def exact(self) -> bool:
        """Whether an M-step lowers the quadratic itself, as predictors that are linear in params allow."""
        return True

    def deficient(self, params: dict[str, jax.Array], statistics: Moments) -> jax.Array:
        """Whether the columns with coefficients are collinear in an expert's rows, (K,)."""
        return collinear(params, statistics)

    def null(self, params: dict[str, jax.Array], eta: Any = 0.0) -> dict[str, jax.Array]:
        """Coefficients of 0 and intercepts eta, a number or (m,): where EM begins when it is given responsibilities."""
        weights, intercept = jnp.zeros_like(params["weights"]), params["intercept"]
        intercept = jnp.broadcast_to(jnp.asarray(eta, intercept.dtype), intercept.shape)
        return {**params, "weights": weights, "intercept": intercept}

    def degrees_of_freedom(self, params: dict[str, jax.Array]) -> jax.Array:
        """Nonzero coefficients and intercepts of each expert, (K,)."""
        nonzero = (params["weights"] != 0).reshape(params["weights"].shape[0], -1).sum(axis=1)
        return nonzero + (self.outputs or 1)


def linear(outputs: int | None = None, *, init_scale: float = 1.0) -> Linear:
    """Linear experts, eta_k(x) = x . weights_k + intercept_k.

    outputs: None for a target (n,), m for a target (n, m). init_scale: the standard deviation of the initial
    predictions when x is standardised. Raises ValueError for outputs below 1 or an init_scale below 0.
    """
    if outputs is not None:
        _check.count("outputs", outputs)
    _check.not_negative("init_scale", init_scale)
    return Linear(outputs, float(init_scale))


@dataclass(frozen=True)
class Stack:
    """K copies of one expert; made by `stack`."""

    one_init: Callable[[jax.Array, Any], Any]
    one_apply: Callable[[Any, Any], jax.Array]

    def init(self, key: jax.Array, n_experts: int, x: Any) -> Any:
        """The single expert's parameters, drawn K times, stacked on a leading axis."""
        return jax.vmap(lambda k: self.one_init(k, x))(jax.random.split(key, n_experts))

    def apply(self, params: Any, x: Any) -> jax.Array:
        """The single expert's predictions with each of the K parameters: (K, n) or (K, n, m)."""
        return jax.vmap(self.one_apply, in_axes=(0, None))(params, x)


def stack(init: Callable[[jax.Array, Any], Any], apply: Callable[[Any, Any], jax.Array]) -> Stack:
    """K experts from the two functions of a single one.

    init(key, x) -> params of one expert, any pytree; apply(params, x) -> its predictions, (n,) or (n, m).
    """
    return Stack(init, apply)


@dataclass(frozen=True)
class Zeroed:
    """Experts each of which sees x with the columns of the others set to 0; made by `by_columns`."""

    expert: Any
    choices: Choices

    @property
    def hyper(self) -> dict[str, float]:
        """Which columns the experts see, and what they have of their own."""
        return {**getattr(self.expert, "hyper", {}), **self.choices.hyper}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError for a number that it cannot be."""
        if name in self.choices.hyper:
            self.choices.check_hyper(name, value)
        elif hasattr(self.expert, "check_hyper"):
            self.expert.check_hyper(name, value)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Any:
        """The expert's params, with the number of the choice of columns beside them where there are several."""
        number, params = self.choices.init(n_experts, x), self.expert.init(key, n_experts, x)
        if not number:
            return params
        if not isinstance(params, dict):
            raise ValueError(f"expert: params of type {type(params).__name__}, among choices of columns; want a dictionary")
        return {**params, **number}

    def trainable(self, params: Any) -> Any:
        """As the expert says, and no number of a choice."""
        return self._marked(_trees.trainable, params)

    def penalized(self, params: Any) -> Any:
        """As the expert says, and no number of a choice."""
        return self._marked(_trees.penalized, params)

    def _marked(self, mark: Callable[[Any, Any], Any], params: Any) -> Any:
        own = mark(self.expert, self.choices.own(params))
        return {**own, **dict.fromkeys(self.choices.hyper, False)} if self.choices.hyper else own

    def apply(self, params: Any, x: jax.Array) -> jax.Array:
        """Each expert's predictions of its own columns, (K, n) or (K, n, m)."""

        def one(own: Any, seen: jax.Array) -> jax.Array:
            rows = self.expert.prepare(seen * x) if hasattr(self.expert, "prepare") else seen * x
            return self.expert.apply(jax.tree.map(lambda leaf: leaf[None], own), rows)[0]

        return jax.vmap(one)(self.choices.own(params), self.choices.seen(params, x.shape[1], x.dtype))


def by_columns(expert: Any, choices: Sequence[Sequence[Sequence[int]]]) -> Any:
    """The same experts, each of which sees only columns of its own, by one of several divisions.

    choices: divisions, each with the columns of every expert; columns may be in those of several experts, or of none. With
    more than one, the field `columns` of `hyper` is the number of the one that holds, from 0 and by default 0: an axis of a
    sweep. `moe(..., expert_columns=[(0, 1), (2, 3)])` is a shorthand for a single one.

    Linear experts then have coefficients of exactly 0 elsewhere, which are not fitted, and count for nothing. To others, by
    `stack` or of somebody's own, with experts on the leading axis of all params, the other columns are 0; by EM they make
    gradient steps.

    Raises ValueError for no choice, choices for different numbers of experts, an expert without columns, columns that are
    negative or repeated, and experts that are divided already; and, once inputs are known, for columns that they lack.
    """
    if getattr(expert, "choices", None) is not None:
        raise ValueError(f"expert: {expert!r} has columns of its own already; want to divide them once")
    if not len(choices):
        raise ValueError("choices: none was given; want at least one division of the columns")
    for number, choice in enumerate(choices):
        check_division(f"choices[{number}]", choice, len(choices[0]))
    divided = Choices(tuple(tuple(tuple(int(c) for c in columns) for columns in choice) for choice in choices))
    return expert.by_columns(divided) if hasattr(expert, "by_columns") else Zeroed(expert, divided)


def check_division(name: str, columns: Any, n_experts: int) -> None:
    """Raise ValueError unless there is for each expert at least one column, none negative or repeated."""
    if len(columns) != n_experts:
        raise ValueError(f"{name}: columns of {len(columns)} experts were given; want those of {n_experts}")
    for k, own in enumerate(columns):
        given = np.asarray(own)
        if given.ndim != 1 or given.dtype.kind not in "iu" or given.min() < 0 or len(set(given.tolist())) < len(given):
            wanted = f"at least one column index for expert {k}, none negative or repeated"
            raise ValueError(f"{name}: {own!r} was given; want {wanted}")


@dataclass(frozen=True)
class Predictions:
    """Predictors that come with the inputs; made by `predictions`."""

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> dict[str, jax.Array]:
        """Nothing; raises ValueError unless x has a column for each expert."""
        if x.shape[1] != n_experts:
            raise ValueError(f"predictions: {x.shape[1]} columns were given for {n_experts} experts; want one for each")
        return {}

    def prepare(self, x: jax.Array) -> jax.Array:
        """Experts first: (n, K) to (K, n), (n, K, m) to (K, n, m)."""
        if not hasattr(x, "ndim") or x.ndim not in (2, 3):
            given = f"shape {x.shape}" if hasattr(x, "ndim") else f"a {type(x).__name__}"
            raise ValueError(f"predictions: {given} was given; want (n, K) or (n, K, m), which expert_columns may name in x")
        return jnp.swapaxes(x, 0, 1)

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """What was given, as `prepare` returns it."""
        return x


def predictions() -> Predictions:
    """Experts that are fitted already, whatever they are: what they see of x is their predictors, (n, K) or (n, K, m).

    Predictors are on the scale of eta: means for `gaussian`, log odds for `bernoulli`, log probabilities (n, K, C) for
    `categorical`, log means for `poisson` and `gamma`. Nothing in such experts is trained; gate and scales are. They
    usually see one array of several in x (see `moejax.moe`), and `moejax.stacking` makes it.
    """
    return Predictions()


@dataclass(frozen=True)
class Functions:
    """Predictors that are functions of the inputs; made by `functions`."""

    each: tuple[Callable[[Any], jax.Array], ...]

    def init(self, key: jax.Array, n_experts: int, x: Any) -> dict[str, jax.Array]:
        """Nothing; raises ValueError unless there are as many functions as experts."""
        if len(self.each) != n_experts:
            raise ValueError(f"functions: {len(self.each)} were given for {n_experts} experts; want one for each")
        return {}

    def prepare(self, x: Any) -> jax.Array:
        """What the functions say, evaluated once for all members of a sweep: (K, n) or (K, n, m)."""
        n = jax.tree.leaves(x)[0].shape[0]
        said = [_said(number, function, x) for number, function in enumerate(self.each)]
        shapes = [eta.shape for eta in said]
        if len(set(shapes)) > 1 or shapes[0][:1] != (n,) or len(shapes[0]) > 2:
            raise ValueError(f"functions: they returned shapes {shapes}; want ({n},) of all, or ({n}, m)")
        return jnp.stack(said)

    def apply(self, params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        """What the functions said, as `prepare` returns it."""
        return x


def _said(number: int, function: Callable[[Any], Any], x: Any) -> jax.Array:
    dtype = jax.tree.leaves(x)[0].dtype
    try:
        return jnp.asarray(function(x), dtype)
    except jax.errors.JAXTypeError as error:  # it asked an array that is only traced for its numbers
        raise ValueError(
            f"functions[{number}]: {function!r} cannot be traced by JAX; want a function of jax.numpy, or what "
            "moejax.stacking.predictions makes of it beforehand, with experts.predictions()"
        ) from error


def functions(each: Sequence[Callable[[Any], Any]]) -> Functions:
    """Experts that are given functions of what they see of x, f(x) -> eta (n,) or (n, m), of which nothing is trained.

    The functions are traced by JAX, and run once for all members of a sweep. Those that want numbers, as the `predict` of a
    scikit-learn estimator does, cannot be traced; `moejax.stacking.predictions` runs them beforehand for `predictions`.
    Raises ValueError for no function, and for what is none; and when a model is used, for a function that cannot be traced.
    """
    each = tuple(each) if isinstance(each, Sequence) else ()
    if not each or not all(callable(function) for function in each):
        raise ValueError(f"functions: {each!r} was given; want a sequence of functions of x, one for each expert")
    return Functions(each)
