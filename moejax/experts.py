"""Experts: what each of the K experts says of a row, before any gate weighs it.

An expert is any record with two pure functions, for all K experts at once:

    init(key, n_experts, x) -> params            params: a pytree, experts on its leading axis
    apply(params, x) -> eta                      eta: (K, n), or (K, n, m) for m outputs

and, where it helps, `prepare(x)`, run once and shared by all members of a sweep, whose result `apply` then gets in the
place of x; `trainable(params)` and `penalized(params)`, trees of booleans (see `moejax.model`); `takes_any_array`, whether x
may be an array of any shape with n leading, such as images, rather than a table (n, d); `hyper`, `check_hyper` and
`settled`, as for gates; `degrees_of_freedom(params) -> (K,)`, two more rows than which an expert needs so as not to count as
starved (without it, two; none where nothing in params is trained, as in the empty params of experts that are fitted
already); and `by_columns(choices)`, for the function of that name. `stack` makes such a record of the two functions of a
single expert, and `neural` of a network.

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

The params of an expert may describe a distribution of its coefficients (`tied`). Its predictor is then that at their mean,
and it has

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

from moejax import _checks
from moejax._linear import Moments, Pairs, collinear, dot, moments, pairs, predictors, quadratic_step, with_intercept
from moejax.columns import Choices
from moejax.columns import by_columns as by_columns  # experts of these kinds have files of their own
from moejax.neural import neural_expert
from moejax.tied import tied as tied

neural = neural_expert  # networks have a file of their own


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
        _checks.count("outputs", outputs)
    _checks.not_negative("init_scale", init_scale)
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
