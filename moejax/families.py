"""Families: the distribution of the target given an expert's linear predictor eta.

A family is any record with

    init(n_experts, eta) -> phi                    dispersion parameters, a pytree (eta: an array or its shape and dtype)
    log_prob(y, eta, phi) -> (K, n)                proper, normalised log densities or log masses
    mean(eta) -> (K, n) or (K, n, m)               of each output; class probabilities for `categorical`
    sample(key, eta, phi) -> like y, K leading     a draw from every expert for every row

where y is (n,) or (n, m), always floats (counts and class numbers too), and eta is (K, n), or (K, n, m) for m outputs, which
are independent given the expert, or for m numbers that are one output's. And, where it helps,

    check_target(y, shape)               raises for targets that it cannot have (shape: that of a prediction); without it, y
                                         has the shape of a prediction
    penalized(phi), trainable(phi)       trees of booleans, see `moejax.model`
    at_floor(phi, y, weights) -> bool    whether a constraint holds some dispersion; weights: (n,) of the rows, or None
    held(phi, y, weights) -> like phi    which numbers a constraint holds, so that no optimum has to have a slope of 0 there
    bounded(phi, y, weights) -> phi      phi brought within constraints that the density does not see
    shared                               whether phi is one for all experts rather than led by them
    start(y, weights) -> number          the eta to begin with, 0 unless given
    degrees_of_freedom(phi)              free dispersion parameters: of each expert (K,), or of all together if shared, ()
    curvature(y, eta, phi) -> like eta   no less than 0: the second derivative of -log_prob in eta, its expectation or a
                                         bound, for quadratic approximations of -log_prob; where log_prob is no sum over the
                                         last axis of eta (`categorical`), the diagonal of a matrix above the Hessian
    majorizes                            whether the quadratic of the exact slope and `curvature` is nowhere below -log_prob
    dispersion(y, eta, phi, weights, *, total)
                                         phi that maximises, or at least does not lower, sum(weights * log_prob), for
                                         weights (K, n) of which an expert may have none; total: (n,), their sum over
                                         experts if it is known, as in EM, where it never changes
    expected_log_prob(y, eta, variance, phi) -> (K, n)
                                         the mean of log_prob where the predictor has this variance around eta, (K, n), as
                                         that of experts whose params are a distribution; `dispersion` then takes
                                         `variance` too, and maximises the sum of this
    cdf(y, eta, phi) -> (K, n)           P(target <= y) for any real y (n,); of each output (K, n, m) for y (n, m)
    support                              of targets that are numbers and not classes: "real", "positive" or "counts"; with
    mode(eta, phi) -> (K, n)             up to where the density of one target rises, and from where it falls: of positive
                                         ones above 0, of counts the smallest, and
    rise(y, eta, phi) -> (K, n)          the slope of log_prob in y (n,), in log y of positive ones, and of counts
                                         f(y + 1) / f(y) - 1; the modes of mixtures come by it
    fall(low, high, eta, phi) -> (K, n)  how far `rise` falls between two numbers (n,) where it does; without it, it falls
                                         throughout
    class_probabilities(eta)             of classes, (K, n, C)

A model without a family predicts and has no likelihood. The families here are finite, with finite slopes, for |eta| to 1e18
in float32.

The dispersions of `gaussian`, `student_t` and `gamma` are bounded from below, relative to the largest and on their own: the
likelihood of a mixture has no maximum without (Hathaway 1985). All three have the same M-step, `_log_dispersions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks

Params = dict[str, jax.Array]
DF_START, DF_RANGE = 5.0, (1.0, 200.0)
NEWTON_STEPS = 6  # to float64's precision from a start within log 2, see `_log_dispersions`


class _Family:
    """What families without dispersion parameters share."""

    majorizes: ClassVar[bool] = False

    def init(self, n_experts: int, eta: Any) -> Params:
        """Nothing to estimate."""
        return {}

    def penalized(self, phi: Params) -> dict[str, bool]:
        """Nothing."""
        return dict.fromkeys(phi, False)

    def at_floor(self, phi: Params, y: jax.Array, weights: Any = None) -> jax.Array:
        """Never."""
        return jnp.zeros((), bool)

    def held(self, phi: Params, y: jax.Array, weights: Any = None) -> Params:
        """All numbers in phi where some dispersion is at its floor, since a bound ties them together."""
        at_floor = self.at_floor(phi, y, weights)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(at_floor, leaf.shape), phi)

    def degrees_of_freedom(self, phi: Params) -> jax.Array:
        """None."""
        return jnp.zeros((), int)

    def dispersion(self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array, *, total: Any = None) -> Params:
        """Phi as it is."""
        return phi

    def check_target(self, y: Any, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y has this shape and values of the family's support."""
        _checks.shape("y", y, shape, "what this model predicts for this x")
        self._check_support(y)

    def _check_support(self, y: Any) -> None:
        _checks.finite("y", y)


# ---- location families: normal and Student t ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Located(_Family):
    """Scales around eta, for each expert or for all, none far below the largest."""

    shared_scale: bool = False
    variance_floor: float = 0.05
    majorizes: ClassVar[bool] = True
    support: ClassVar[str] = "real"

    @property
    def shared(self) -> bool:
        """Whether all experts have the same dispersion."""
        return self.shared_scale

    def init(self, n_experts: int, eta: Any) -> Params:
        """Logarithms of scales of 1: one for each expert (and output), or one for all."""
        tail = eta.shape[2:]
        return {"log_scale": jnp.zeros(tail if self.shared_scale else (n_experts, *tail), eta.dtype)}

    def log_scale(self, phi: Params) -> jax.Array:
        """Log scales with the floor applied, as they enter the density."""
        return _floored(phi["log_scale"], 0.5 * math.log(self.variance_floor), self.shared_scale)

    def mean(self, eta: jax.Array) -> jax.Array:
        """eta itself."""
        return eta

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """eta itself."""
        return eta

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """The slope of log_prob in y, like eta: by the curvature, that of a tangent with the density's slope."""
        return (eta - y) * self.curvature(y, eta, phi)  # type: ignore[attr-defined]

    def bounded(self, phi: Params, y: jax.Array, weights: Any = None) -> Params:
        """Phi with no scale below what rounding leaves of the target's, a bound that the density does not see."""
        least = 0.5 * _least_log_variance(y, phi["log_scale"].dtype, weights)
        return {**phi, "log_scale": jnp.maximum(phi["log_scale"], least)}

    def at_floor(self, phi: Params, y: jax.Array, weights: Any = None) -> jax.Array:
        """Whether some scale is held up by the floor, or by what rounding leaves of the target's variance."""
        log_scale = self.log_scale(phi)
        held = _touches(log_scale, 0.5 * _least_log_variance(y, log_scale.dtype, weights))
        if self.shared_scale:
            return held
        return held | _touches(phi["log_scale"], _lowest(phi["log_scale"], 0.5 * math.log(self.variance_floor)))

    def degrees_of_freedom(self, phi: Params) -> jax.Array:
        """One for each leaf and output: (K,), or () if shared."""
        return _count(phi, self.shared_scale)

    def _spread(self, phi: Params) -> jax.Array:
        return _beside(self.log_scale(phi), self.shared_scale)

    def _scale_step(self, y: jax.Array, squares: jax.Array, weights: jax.Array, total: Any) -> jax.Array:
        """Log scales that maximise sum(weights * (-log scale - squares / (2 scale^2))) within the floors.

        total: (n,), the sum of weights over experts, or None. Where it is known the floors are computed but once in a fit.
        """
        least = _least_log_variance(y, squares.dtype, weights.sum(axis=0) if total is None else total)
        return 0.5 * _log_dispersions(squares, weights, self.variance_floor, least, self.shared_scale)


@dataclass(frozen=True)
class Gaussian(_Located):
    """Normal targets; made by `gaussian`."""

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """log N(y; eta, scale^2), summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        log_scale = self._spread(phi)
        return _over_outputs(-0.5 * ((y - eta) * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * math.log(2 * math.pi))

    def expected_log_prob(self, y: jax.Array, eta: jax.Array, variance: jax.Array, phi: Params) -> jax.Array:
        """The mean of `log_prob` over predictors of this variance around eta, (K, n): less by variance / (2 scale^2)."""
        return self.log_prob(y, eta, phi) - _over_outputs(0.5 * variance * jnp.exp(-2 * self._spread(phi)))

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(target <= y), like eta."""
        return jax.scipy.special.ndtr(_residuals(y, eta) * jnp.exp(-self._spread(phi)))

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A draw from every expert for every row, like eta."""
        return eta + jnp.exp(self._spread(phi)) * jax.random.normal(key, eta.shape, eta.dtype)

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """1 / scale^2, exact: -log_prob is that quadratic."""
        return jnp.broadcast_to(jnp.exp(-2 * self._spread(phi)), eta.shape)

    def dispersion(
        self,
        y: jax.Array,
        eta: jax.Array,
        phi: Params,
        weights: jax.Array,
        *,
        total: Any = None,
        variance: jax.Array | float = 0.0,
    ) -> Params:
        """The weighted root mean squares of the residuals, exactly the best ones within the floors.

        variance: like eta, of the predictors, which adds to the squares.
        """
        return {"log_scale": self._scale_step(y, jnp.square(y - eta) + variance, weights, total)}


def gaussian(*, shared_scale: bool = False, variance_floor: float = 0.05) -> Gaussian:
    """Normal targets around eta, with a scale for each expert or one for all.

    variance_floor: every variance is at least this share of the largest (Hathaway 1985), without which the likelihood
    of a mixture has no maximum. Solvers that call `dispersion` also keep variances above what rounding leaves of the
    target's, 10 eps var(y). Raises ValueError unless variance_floor lies between 0 and 1.
    """
    _check_share("variance_floor", variance_floor, "variance")
    return Gaussian(bool(shared_scale), float(variance_floor))


@dataclass(frozen=True)
class StudentT(_Located):
    """Student t targets; made by `student_t`."""

    df: float | None = None

    def init(self, n_experts: int, eta: Any) -> Params:
        """Scales of 1, and 5 degrees of freedom if they are to be estimated, in logarithms."""
        phi = super().init(n_experts, eta)
        if self.df is None:
            phi["log_df"] = jnp.full_like(phi["log_scale"], math.log(DF_START))
        return phi

    def log_df(self, phi: Params) -> jax.Array:
        """Log degrees of freedom within their range, as they enter the density."""
        if self.df is None:
            return jnp.clip(phi["log_df"], *map(math.log, DF_RANGE))
        return jnp.full_like(phi["log_scale"], math.log(self.df))

    def held(self, phi: Params, y: jax.Array, weights: Any = None) -> Params:
        """As for all families, and degrees of freedom at an end of their range."""
        held = super().held(phi, y, weights)
        if self.df is None:
            least, most = map(math.log, DF_RANGE)
            slack = 100 * jnp.finfo(phi["log_df"].dtype).eps
            inside = (phi["log_df"] > least + slack) & (phi["log_df"] < most - slack)
            held["log_df"] = held["log_df"] | ~inside
        return held

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """log t((y - eta) / scale; df) - log scale, summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        return _over_outputs(_log_t(y - eta, self._spread(phi), _beside(self.log_df(phi), self.shared_scale)))

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(target <= y), like eta, by the incomplete beta function."""
        log_df = _beside(self.log_df(phi), self.shared_scale)
        u = _standardized(_residuals(y, eta), self._spread(phi), log_df)
        half_df = jnp.broadcast_to(0.5 * jnp.exp(log_df), u.shape)
        half, square = jnp.full_like(u, 0.5), jnp.square(u)
        # Of P(|t| < |u|) in the middle and of P(|t| > |u|) in the tails, each where it keeps its digits.
        middle = square < 1
        share = jax.scipy.special.betainc(
            jnp.where(middle, half, half_df), jnp.where(middle, half_df, half), jnp.where(middle, square, 1) / (1 + square)
        )
        tail = jnp.where(u < 0, share / 2, 1 - share / 2)
        return jnp.where(middle, 0.5 + 0.5 * jnp.sign(u) * share, tail)

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A draw from every expert for every row, like eta."""
        df = jnp.exp(_beside(self.log_df(phi), self.shared_scale))
        draws = jax.random.t(key, jnp.broadcast_to(df, eta.shape), eta.shape, eta.dtype)
        return eta + jnp.exp(self._spread(phi)) * draws

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """(df + 1) / (df scale^2 + residual^2), the weights of iteratively reweighted least squares.

        -log_prob is concave in the residual's square, so it lies below its tangent there, a quadratic in eta with
        the same value and slope.
        """
        log_scale, log_df = self._spread(phi), _beside(self.log_df(phi), self.shared_scale)
        u = _standardized(y - eta, log_scale, log_df)
        return (1 + jnp.exp(-log_df)) * jnp.exp(-2 * log_scale) / (1 + jnp.square(u))

    def fall(self, low: jax.Array, high: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """How far `rise` falls, which it does as far as scale * sqrt(df) from eta and not beyond, (K, n)."""
        log_df = _beside(self.log_df(phi), self.shared_scale)
        reach = jnp.exp(self._spread(phi) + 0.5 * log_df)
        near = (jnp.clip(y, eta - reach, eta + reach) for y in (low, high))
        return jnp.subtract(*(self.rise(y, eta, phi) for y in near))

    def dispersion(self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array, *, total: Any = None) -> Params:
        """The scales that are best for a quadratic bound (the EM step of Lange, Little and Taylor 1989), then the df."""
        residual, log_df = y - eta, self.log_df(phi)
        log_scale, rows_log_df = self._spread(phi), _beside(log_df, self.shared_scale)
        # residual^2 times its weight, (df + 1) / (df + (residual / scale)^2), in a form that cannot overflow
        share = 1 - 1 / (1 + jnp.square(_standardized(residual, log_scale, rows_log_df)))
        squares = (1 + jnp.exp(rows_log_df)) * jnp.exp(2 * log_scale) * share
        new = {"log_scale": self._scale_step(y, squares, weights, total)}
        if self.df is None:
            new["log_df"] = self._df_step(residual, _beside(new["log_scale"], self.shared_scale), log_df, weights)
        return new

    def _df_step(self, residual: jax.Array, log_scale: jax.Array, log_df: jax.Array, weights: jax.Array) -> jax.Array:
        """A Newton step in log df, shrunk for each expert until its likelihood rises; else none."""

        def total(log_df: jax.Array) -> jax.Array:
            each = _log_t(residual, log_scale, _beside(log_df, self.shared_scale))
            return (_like(weights, each) * each).sum(axis=(0, 1) if self.shared_scale else 1)

        slope, bend = jax.jvp(jax.grad(lambda v: total(v).sum()), (log_df,), (jnp.ones_like(log_df),))
        step = jnp.where(bend < 0, -slope / jnp.where(bend < 0, bend, -1), jnp.sign(slope))
        sizes = jnp.array([0, 1, 1 / 4, 1 / 16], log_df.dtype).reshape(-1, *[1] * log_df.ndim)
        tries = jnp.clip(log_df + sizes * jnp.clip(step, -1, 1), *map(math.log, DF_RANGE))
        best = jax.vmap(total)(tries).argmax(axis=0)  # the first of equals: no step
        return jnp.take_along_axis(tries, best[None], axis=0)[0]


def student_t(df: float | None = None, *, shared_scale: bool = False, variance_floor: float = 0.05) -> StudentT:
    """Targets that are eta + scale * t, robust to outliers, with a scale for each expert or one for all.

    df: the degrees of freedom, or None to estimate them between 1 and 200 wherever there is a scale. eta is the median,
    and the mean, which exists for df above 1. variance_floor: a bound on scale^2, as in `gaussian`. Raises ValueError for a
    df that is not above 0 and a variance_floor not between 0 and 1.
    """
    if df is not None:
        _checks.positive("df", df)
    _check_share("variance_floor", variance_floor, "scale^2")
    return StudentT(bool(shared_scale), float(variance_floor), None if df is None else float(df))


def _standardized(residual: jax.Array, log_scale: jax.Array, log_df: jax.Array) -> jax.Array:
    """residual / (scale * sqrt(df)), held where its square would overflow: the density's slope is 0 there to rounding."""
    limit = float(jnp.finfo(residual.dtype).max) ** 0.5 / 16
    return jnp.clip(residual * jnp.exp(-log_scale - 0.5 * log_df), -limit, limit)


def _log_t(residual: jax.Array, log_scale: jax.Array, log_df: jax.Array) -> jax.Array:
    half = 0.5 * jnp.exp(log_df)
    # log Gamma(half + 1/2) - log Gamma(half) - log(2 half) / 2, whose two large terms would cancel for large df
    constant = half * jnp.log1p(0.5 / half) - 0.5 + _stirling(half + 0.5) - _stirling(half) - 0.5 * math.log(2 * math.pi)
    tail = jnp.log1p(jnp.square(_standardized(residual, log_scale, log_df)))
    return constant - log_scale - (half + 0.5) * tail


# ---- normal targets whose scale is predicted too ----------------------------------------------------------------------


@dataclass(frozen=True)
class LocationScale(_Family):
    """Normal targets, location and scale predicted; made by `location_scale`."""

    scale_floor: float = 0.01
    support: ClassVar[str] = "real"

    def init(self, n_experts: int, eta: Any) -> Params:
        """Nothing to estimate; raises ValueError unless eta is (K, n, 2)."""
        self._check_eta(eta)
        return {}

    def log_scale(self, eta: jax.Array) -> jax.Array:
        """Log scales as they enter the density, (K, n)."""
        return 0.5 * jnp.logaddexp(2 * math.log(self.scale_floor), 2 * eta[..., 1])

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """log N(y; eta[..., 0], scale^2), (K, n)."""
        self._check_eta(eta)
        _checks.shape("y", y, eta.shape[1:2], "a number for each row")
        log_scale = self.log_scale(eta)
        return -_half_square((y - eta[..., 0]) * jnp.exp(-log_scale)) - log_scale - 0.5 * math.log(2 * math.pi)

    def mean(self, eta: jax.Array) -> jax.Array:
        """The location, (K, n)."""
        return eta[..., 0]

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A draw from every expert for every row, (K, n); scales above 7e12 (1e102 in float64) are drawn as that."""
        scale = jnp.exp(jnp.minimum(self.log_scale(eta), _exp_limit(eta.dtype)))
        return eta[..., 0] + scale * jax.random.normal(key, eta.shape[:2], eta.dtype)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(target <= y), (K, n)."""
        return jax.scipy.special.ndtr(_residuals(y, eta[..., 0]) * jnp.exp(-self.log_scale(eta)))

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """The location, (K, n)."""
        return eta[..., 0]

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """(location - y) / scale^2, (K, n)."""
        return (eta[..., 0] - y) * jnp.exp(-2 * self.log_scale(eta))

    def start(self, y: jax.Array, weights: jax.Array) -> jax.Array:
        """The mean of the target and the logarithm of its standard deviation, (2,)."""
        share = weights / weights.sum()
        mean = jnp.tensordot(share, y, 1)
        variance = jnp.tensordot(share, jnp.square(y - mean), 1)
        return jnp.stack([mean, 0.5 * jnp.log(jnp.maximum(variance, jnp.finfo(y.dtype).tiny))])

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """1 / scale^2 and 2 t, (K, n, 2), t being the share of the variance that is not the floor's.

        The Fisher information is diagonal, 1 / scale^2 and 2 t^2, the second of which would vanish faster than the slope
        does where the floor holds, and steps grow without bound.
        """
        share = jax.nn.sigmoid(2 * (eta[..., 1] - math.log(self.scale_floor)))
        return jnp.stack([jnp.exp(-2 * self.log_scale(eta)), 2 * share], axis=-1)

    def _check_eta(self, eta: Any) -> None:
        if eta.shape[2:] != (2,):
            given = f"{eta.shape[2]} outputs" if eta.ndim == 3 else "one output"
            raise ValueError(f"expert: {given} for a location and a log scale; want two, as in experts.linear(2)")


def location_scale(*, scale_floor: float = 0.01) -> LocationScale:
    """Normal targets y (n,) of which experts predict location and scale: mixture density networks (Bishop 1994).

    eta (K, n, 2) holds the location and the log scale: the variance is exp(2 eta[..., 1]) + scale_floor^2. scale_floor: in
    the units of y, an absolute number, for predicted scales have no largest one that others could be held to. The likelihood
    has no maximum without it: an expert whose location meets one target would gain without end from a scale that goes to 0.
    The default suits targets that are standardised. An offset is (n, 2), of location and log scale. Raises ValueError for a
    floor that is not above 0.
    """
    _checks.positive("scale_floor", scale_floor)
    return LocationScale(float(scale_floor))


# ---- discrete families ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bernoulli(_Family):
    """Labels 0 and 1; made by `bernoulli`."""

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """log P(y), summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        self._check_support(y)
        return _over_outputs(-jax.nn.softplus((1 - 2 * y) * eta))

    def mean(self, eta: jax.Array) -> jax.Array:
        """P(y = 1)."""
        return jax.nn.sigmoid(eta)

    def class_probabilities(self, eta: jax.Array) -> jax.Array:
        """P(y = 0) and P(y = 1), on a last axis."""
        return jnp.stack([jax.nn.sigmoid(-eta), jax.nn.sigmoid(eta)], axis=-1)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(label <= y), like eta."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        return jnp.where(y < 0, 0, jnp.where(y < 1, jax.nn.sigmoid(-eta), 1))

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A label from every expert for every row, like eta."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(eta)).astype(eta.dtype)

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """p (1 - p), exact."""
        return jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta)

    def check_target(self, y: Any, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y has this shape and labels 0 and 1, both of them (in every column)."""
        super().check_target(y, shape)
        if not _checks.is_traced(y) and (np.ptp(np.asarray(y, float), axis=0) == 0).any():
            raise ValueError("y: labels of a single class were given; want rows of both classes, 0 and 1")

    def _check_support(self, y: Any) -> None:
        _check_values(y, lambda v: (v == 0) | (v == 1), "the labels 0 and 1")


def bernoulli() -> Bernoulli:
    """Labels 0 and 1 with P(y = 1) = 1 / (1 + exp(-eta))."""
    return Bernoulli()


@dataclass(frozen=True)
class Categorical(_Family):
    """Class numbers; made by `categorical`."""

    n_classes: int

    def init(self, n_experts: int, eta: Any) -> Params:
        """Nothing to estimate; raises ValueError unless eta is (K, n, n_classes)."""
        self._check_eta(eta)
        return {}

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """log P(y), (K, n), for class numbers y (n,) and eta (K, n, C)."""
        self._check_eta(eta)
        _checks.shape("y", y, eta.shape[1:2], "a class number for each row")
        self._check_support(y)
        of_class = y[:, None] == jnp.arange(self.n_classes)
        return jnp.where(of_class, jax.nn.log_softmax(eta), 0).sum(axis=2)

    def mean(self, eta: jax.Array) -> jax.Array:
        """Class probabilities, (K, n, C)."""
        return jax.nn.softmax(eta)

    def class_probabilities(self, eta: jax.Array) -> jax.Array:
        """Those of `mean`, (K, n, C)."""
        return self.mean(eta)

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A class number from every expert for every row, (K, n), of eta's type."""
        return jax.random.categorical(key, eta).astype(eta.dtype)

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """2 p (1 - p), (K, n, C): a diagonal matrix above the Hessian, diag(p) - p p'.

        The Hessian is the Laplacian of a graph with weights p_c p_d between classes, v' H v = sum over pairs of
        p_c p_d (v_c - v_d)^2, and (v_c - v_d)^2 <= 2 v_c^2 + 2 v_d^2. It bounds the Hessian at this eta, not elsewhere.
        """
        p = jax.nn.softmax(eta)
        return 2 * p * (1 - p)

    def check_target(self, y: Any, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless y (n,) has class numbers of at least two classes; shape: (n, n_classes)."""
        self._check_outputs(shape[1:])
        _checks.shape("y", y, shape[:1], "a class number for each row")
        self._check_support(y)
        if not _checks.is_traced(y) and np.ptp(np.asarray(y, float)) == 0:
            raise ValueError(f"y: class {float(np.asarray(y)[0]):g} alone was given; want rows of at least two classes")

    def _check_support(self, y: Any) -> None:
        whole = f"class numbers, whole from 0 to {self.n_classes - 1}"
        _check_values(y, lambda v: (v >= 0) & (v < self.n_classes) & (v == np.floor(v)), whole)

    def _check_eta(self, eta: Any) -> None:
        self._check_outputs(eta.shape[2:])

    def _check_outputs(self, outputs: tuple[int, ...]) -> None:
        if outputs != (self.n_classes,):
            given = f"{outputs[0]} outputs" if outputs else "one output"
            raise ValueError(
                f"expert: {given} for {self.n_classes} classes; want one for each, as in experts.linear({self.n_classes})"
            )


def categorical(n_classes: int) -> Categorical:
    """Class numbers 0, 1, ..., n_classes - 1 as y (n,), with probabilities softmax(eta) for eta (K, n, n_classes).

    Experts need an output for every class, as `experts.linear(n_classes)` has. Raises ValueError for less than 2 classes.
    """
    _checks.count("n_classes", n_classes, 2)
    return Categorical(int(n_classes))


@dataclass(frozen=True)
class Poisson(_Family):
    """Counts; made by `poisson`."""

    support: ClassVar[str] = "counts"

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """y eta - exp(eta) - log y!, summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        self._check_support(y)
        # Around the rate y, lest terms that are far larger than their sum cancel; where y is 0, -exp(eta).
        counted = jnp.asarray(y, eta.dtype)
        some = jnp.maximum(counted, 1)
        off = eta - jnp.log(some)
        apart = _extended(jnp.expm1, off)
        constant = -0.5 * jnp.log(2 * math.pi * some) - _stirling(some)
        return _over_outputs(jnp.where(counted > 0, constant - counted * (apart - off), -(apart + 1)))

    def mean(self, eta: jax.Array) -> jax.Array:
        """exp(eta), or the largest float."""
        return _exp(eta)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(count <= y), like eta, by the incomplete gamma function."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        rate = _exp(eta)
        # So far above the rate nothing is left, and the series of the function need not go on.
        count = jnp.minimum(jnp.floor(y), 2 * rate + 1000)
        return jnp.where(y < 0, 0, jax.scipy.special.gammaincc(jnp.maximum(count, 0) + 1, rate))

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A count from every expert for every row, like eta; rates above 2^30 are drawn as 2^30, for they are integers."""
        return jax.random.poisson(key, jnp.minimum(_exp(eta), 2.0**30)).astype(eta.dtype)

    def start(self, y: jax.Array, weights: jax.Array) -> jax.Array:
        """The logarithm of the mean target, of each output."""
        return _log_mean(y, weights)

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """The largest count below the rate, or 0: a whole rate is as probable, like eta."""
        return jnp.maximum(jnp.ceil(_exp(eta)) - 1, 0)

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(y + 1) / P(y) - 1, like eta."""
        return _exp(eta) / (y + 1) - 1

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """exp(eta), exact."""
        return jnp.exp(jnp.minimum(eta, _exp_limit(eta.dtype)))

    def _check_support(self, y: Any) -> None:
        _check_values(y, lambda v: (v >= 0) & (v == np.floor(v)), "counts: whole numbers, none below 0")


def poisson() -> Poisson:
    """Counts 0, 1, 2, ... with rate exp(eta); the logarithm of an exposure goes into the offset."""
    return Poisson()


# ---- gamma ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gamma(_Family):
    """Positive targets; made by `gamma`."""

    shared_shape: bool = False
    dispersion_floor: float = 0.05
    support: ClassVar[str] = "positive"

    @property
    def shared(self) -> bool:
        """Whether all experts have the same dispersion."""
        return self.shared_shape

    def init(self, n_experts: int, eta: Any) -> Params:
        """Logarithms of shapes of 1: one for each expert (and output), or one for all."""
        tail = eta.shape[2:]
        return {"log_shape": jnp.zeros(tail if self.shared_shape else (n_experts, *tail), eta.dtype)}

    def log_shape(self, phi: Params) -> jax.Array:
        """Log shapes with the floors of the dispersion, 1 / shape, applied, as they enter the density."""
        floored = _floored(-phi["log_shape"], math.log(self.dispersion_floor), self.shared_shape)
        return -jnp.maximum(floored, _least_log_dispersion(floored.dtype))

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """The log density of mean exp(eta) and variance mean^2 / shape, summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        self._check_support(y)
        log_shape, log_y = self._spread(phi), jnp.log(y)
        shape = jnp.exp(log_shape)
        # shape log shape - log Gamma(shape), and the mode of the rest, which would cancel for large shapes
        constant = 0.5 * log_shape - 0.5 * math.log(2 * math.pi) - _stirling(shape)
        return _over_outputs(constant - 0.5 * shape * _gamma_deviance(log_y, eta) - log_y)

    def mean(self, eta: jax.Array) -> jax.Array:
        """exp(eta), or the largest float."""
        return _exp(eta)

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """P(target <= y), like eta, by the incomplete gamma function."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        log_shape = jnp.broadcast_to(self._spread(phi), eta.shape)
        positive = y > 0
        log_y = jnp.log(jnp.where(positive, y, 1))
        return jnp.where(positive, jax.scipy.special.gammainc(jnp.exp(log_shape), _exp(log_shape + log_y - eta)), 0)

    def sample(self, key: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """A draw from every expert for every row, like eta; none is 0."""
        log_shape = jnp.broadcast_to(self._spread(phi), eta.shape)
        log_draws = jax.random.loggamma(key, jnp.exp(log_shape), eta.shape, eta.dtype)
        return jnp.maximum(_exp(eta + log_draws - log_shape), jnp.finfo(eta.dtype).tiny)

    def start(self, y: jax.Array, weights: jax.Array) -> jax.Array:
        """The logarithm of the mean target, of each output."""
        return _log_mean(y, weights)

    def mode(self, eta: jax.Array, phi: Params) -> jax.Array:
        """(1 - 1 / shape) * mean, like eta; the smallest float for shapes of 1 or less, whose densities fall throughout."""
        return jnp.maximum(-jnp.expm1(-self._spread(phi)) * _exp(eta), jnp.finfo(eta.dtype).tiny)

    def rise(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """The slope of log_prob in log y, shape - 1 - shape y / mean, like eta."""
        return -jnp.exp(self._spread(phi)) * jnp.expm1(jnp.log(y) - eta) - 1

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """The shape, which is the expectation of the second derivative, shape y exp(-eta)."""
        return jnp.broadcast_to(jnp.exp(self._spread(phi)), eta.shape)

    def dispersion(self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array, *, total: Any = None) -> Params:
        """The shapes that maximise the weighted likelihood within the floors, by Newton's method."""
        deviance = _gamma_deviance(jnp.log(y), eta)
        least = _least_log_dispersion(deviance.dtype)
        return {
            "log_shape": -_log_dispersions(deviance, weights, self.dispersion_floor, least, self.shared_shape, _stirling)
        }

    def at_floor(self, phi: Params, y: jax.Array, weights: Any = None) -> jax.Array:
        """Whether some dispersion, 1 / shape, is held up by the floor, or by that of rounding."""
        log_dispersion = -self.log_shape(phi)
        held = _touches(log_dispersion, _least_log_dispersion(log_dispersion.dtype))
        if self.shared_shape:
            return held
        return held | _touches(-phi["log_shape"], _lowest(-phi["log_shape"], math.log(self.dispersion_floor)))

    def degrees_of_freedom(self, phi: Params) -> jax.Array:
        """One for each output: (K,), or () if shared."""
        return _count(phi, self.shared_shape)

    def _spread(self, phi: Params) -> jax.Array:
        return _beside(self.log_shape(phi), self.shared_shape)

    def _check_support(self, y: Any) -> None:
        _check_values(y, lambda v: v > 0, "numbers above 0")


def gamma(*, shared_shape: bool = False, dispersion_floor: float = 0.05) -> Gamma:
    """Positive targets of mean exp(eta) and variance mean^2 / shape, with a shape for each expert or one for all.

    dispersion_floor: every 1 / shape is at least this share of the largest, as the variances are in `gaussian`, and at
    least 10 eps. Raises ValueError unless it lies between 0 and 1.
    """
    _check_share("dispersion_floor", dispersion_floor, "dispersion")
    return Gamma(bool(shared_shape), float(dispersion_floor))


def _gamma_deviance(log_y: jax.Array, eta: jax.Array) -> jax.Array:
    """2 (log(mean / y) + y / mean - 1), no less than 0."""
    log_ratio = log_y - eta
    return 2 * (_extended(jnp.expm1, log_ratio) - log_ratio)


# ---- dispersions: their floors and their M-step ----------------------------------------------------------------------


def _log_dispersions(
    deviance: jax.Array,
    weights: jax.Array,
    floor: float,
    least: jax.Array | float,
    shared: bool,
    remainder: Callable[[jax.Array], jax.Array] | None = None,
) -> jax.Array:
    """Log dispersions u, (K,) or (K, m) or, if shared, () or (m,), that maximise the sum over everything of

        weights * l,  l = -(u + deviance exp(-u)) / 2 - remainder(exp(-u)),

    subject to u >= max(u) + log(floor) and u >= least. deviance: (K, n) or (K, n, m); weights: (K, n).

    Each expert's l is concave in u, so the best u are their own maximisers, clipped to [t, t - log(floor)], for the t at
    which a concave function has its maximum (Fritz, Garcia-Escudero and Mayo-Iscar 2013): its slope tells between which two
    of the 2 K edges t lies, and which experts are clipped there. What maximises l is close to log(mean deviance): it is that
    without a remainder, and at most log 2 below with Stirling's, which leaves little to Newton's method.
    """
    mean, total = _averages(deviance, weights, shared)
    tiny = jnp.finfo(mean.dtype).tiny
    mean = jnp.maximum(mean, jnp.maximum(jnp.finfo(mean.dtype).eps * jnp.exp(least), tiny))  # not log 0 for a perfect fit
    log_mean = jnp.log(mean)

    def value(u: jax.Array) -> jax.Array:
        value = -0.5 * (u + jnp.exp(log_mean - u))
        return (value if remainder is None else value - remainder(jnp.exp(-u))).sum()

    slope = jax.grad(value)

    def newton(start: jax.Array, of: Callable[[jax.Array], jax.Array]) -> jax.Array:
        u = start
        for _ in range(NEWTON_STEPS if remainder is not None else 0):
            slopes, bends = jax.jvp(of, (u,), (jnp.ones_like(u),))
            u = u - jnp.clip(slopes / jnp.where(bends < 0, bends, -1), -1, 1)
        return u

    free = newton(log_mean, slope)
    if shared:
        return jnp.maximum(free, least)

    span = -math.log(floor)
    edges = jnp.concatenate([free, free - span])

    def pull(t: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
        """The slope in t if the experts `low` are held at t and the experts `high` at t + span."""
        u = jnp.where(low, t, jnp.where(high, t + span, free))
        return jnp.where((low | high) & (total > 0), total * slope(u), 0).sum(axis=0)

    def held(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return free < t, free > t + span

    pulls = jax.vmap(lambda t: pull(t, *held(t)))(edges)
    below = jnp.where(pulls >= 0, edges, -jnp.inf).max(axis=0)
    above = jnp.where(pulls <= 0, edges, jnp.inf).min(axis=0)
    below, above = jnp.maximum(below, edges.min(axis=0)), jnp.minimum(above, edges.max(axis=0))
    middle = 0.5 * (below + above)
    low, high = held(middle)
    size = jnp.where(low | high, total, 0).sum(axis=0)
    start = jnp.log((total * mean * (low + floor * high)).sum(axis=0) / jnp.where(size > 0, size, 1))
    t = newton(start, lambda t: pull(t, low, high))
    t = jnp.where(size > 0, jnp.clip(t, jnp.minimum(below, above), jnp.maximum(below, above)), middle)
    t = jnp.maximum(t, least)
    return jnp.clip(free, t, t + span)


def _averages(each: jax.Array, weights: jax.Array, shared: bool) -> tuple[jax.Array, jax.Array]:
    """Weighted means over rows and the sums of weights, (K, ...); over experts too if shared, (...).

    Experts without weight get the mean over all.
    """
    sums = (_like(weights, each) * each).sum(axis=1)
    total = _like(weights, each).sum(axis=1)
    tiny = jnp.finfo(sums.dtype).tiny
    pooled, everything = sums.sum(axis=0) / jnp.maximum(total.sum(axis=0), tiny), total.sum(axis=0)
    if shared:
        return pooled, everything
    return jnp.where(total > tiny, sums / jnp.maximum(total, tiny), pooled), jnp.where(total > tiny, total, 0)


def _lowest(values: jax.Array, log_share: float) -> jax.Array:
    # The largest dispersion is a bound for the others, not something that they should pull on.
    return jax.lax.stop_gradient(values.max(axis=0)) + log_share


def _floored(values: jax.Array, log_share: float, shared: bool) -> jax.Array:
    return values if shared else jnp.maximum(values, _lowest(values, log_share))


def _touches(values: jax.Array, bound: Any) -> jax.Array:
    """Whether some value is at its bound or below, to rounding."""
    slack = 100 * jnp.finfo(values.dtype).eps * (1 + jnp.abs(bound))
    return (values <= bound + slack).any()


def _least_log_variance(y: jax.Array, dtype: Any, weights: Any = None) -> jax.Array:
    """The logarithm of what rounding leaves of the target's variance: 10 eps var(y), of each output. weights: (n,)."""
    y = jnp.asarray(y, dtype)
    weights = jnp.ones(y.shape[0], dtype) if weights is None else jnp.asarray(weights, dtype)
    share = (weights / weights.sum()).reshape(-1, *(1,) * (y.ndim - 1))
    variance = (share * jnp.square(y - (share * y).sum(axis=0))).sum(axis=0)
    return jnp.log(jnp.maximum(10 * jnp.finfo(dtype).eps * variance, jnp.finfo(dtype).tiny))


def _log_mean(y: jax.Array, weights: jax.Array) -> jax.Array:
    mean = jnp.tensordot(weights / weights.sum(), y, 1)
    return jnp.log(jnp.maximum(mean, jnp.finfo(y.dtype).tiny))


def _least_log_dispersion(dtype: Any) -> float:
    return math.log(10 * float(jnp.finfo(dtype).eps))


def _count(phi: Params, shared: bool) -> jax.Array:
    """Numbers in phi: of each expert (K,), or all if shared ()."""
    leaves = list(phi.values())
    if shared:
        return jnp.asarray(sum(leaf.size for leaf in leaves))
    return jnp.full(leaves[0].shape[0], sum(leaf[0].size for leaf in leaves))


# ---- shapes, checks and functions ------------------------------------------------------------------------------------


def _beside(values: jax.Array, shared: bool) -> jax.Array:
    """Against eta: (K,) or () beside (K, n), (K, m) or (m,) beside (K, n, m)."""
    return values if shared else jnp.expand_dims(values, 1)


def _like(weights: jax.Array, each: jax.Array) -> jax.Array:
    return weights[..., None] if each.ndim == 3 else weights


def _residuals(y: jax.Array, location: jax.Array) -> jax.Array:
    _checks.shape("y", y, location.shape[1:], "like an expert's predictions")
    return y - location


def _over_outputs(each: jax.Array) -> jax.Array:
    return each.sum(axis=2) if each.ndim == 3 else each


def _check_share(name: str, value: Any, of: str) -> None:
    _checks.positive(name, value)
    if value >= 1:
        raise ValueError(f"{name}: {value} was given; want a share of the largest {of}, below 1")


def _check_values(y: Any, good: Callable[[np.ndarray], np.ndarray], want: str) -> None:
    _checks.finite("y", y)
    if _checks.is_traced(y):
        return
    values = np.asarray(y, float)
    bad = ~good(values)
    if bad.any():
        raise ValueError(f"y: {values[bad][0]:g} was given ({int(bad.sum())} of {bad.size} are not right); want {want}")


def _stirling(a: jax.Array) -> jax.Array:
    """log Gamma(a) - ((a - 1/2) log a - a + log(2 pi) / 2), what Stirling's formula leaves out, without cancellation.

    By its asymptotic series from a + 8 on, and the recurrence of Gamma; cheaper to compile, with its slopes, than lgamma.
    """
    below = a[..., None] + jnp.arange(8, dtype=a.dtype)
    steps = ((below + 0.5) * jnp.log1p(1 / below) - 1).sum(axis=-1)
    inverse = 1 / (a + 8)
    value = jnp.zeros_like(a)
    for coefficient in (1 / 156, -691 / 360360, 1 / 1188, -1 / 1680, 1 / 1260, -1 / 360, 1 / 12):
        value = value * jnp.square(inverse) + coefficient
    return steps + value * inverse


def _exp_limit(dtype: Any) -> float:
    return math.log(float(jnp.finfo(dtype).max)) / 3


def _extended(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """`function`, jnp.exp or jnp.expm1, continued along its tangent from exp(x) = 7e12 in float32 (1e102 in float64).

    So that densities, which are 0 to any precision out there, have finite logarithms with slopes that point back.
    """
    limit = _exp_limit(x.dtype)
    return function(jnp.minimum(x, limit)) + math.exp(limit) * jnp.maximum(x - limit, 0)


def _half_square(z: jax.Array) -> jax.Array:
    """z^2 / 2, continued along its tangent from where the square would soon overflow."""
    limit = math.exp(_exp_limit(z.dtype))
    near = jnp.clip(z, -limit, limit)  # both sides are computed, and neither may overflow
    return jnp.where(jnp.abs(z) < limit, 0.5 * jnp.square(near), limit * (jnp.abs(z) - 0.5 * limit))


def _exp(x: jax.Array) -> jax.Array:
    """exp(x), or the largest float."""
    return jnp.exp(jnp.minimum(x, math.log(float(jnp.finfo(x.dtype).max)) * (1 - 1e-6)))
