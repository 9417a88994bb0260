"""Targets with heavy tails: Student t."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.families._base import Params, Target, beside_eta, like_eta, over_outputs, residuals
from moejax.families._dispersion import DEFAULT_FLOOR, Spread, checked_share, spread_of
from moejax.families._located import Located
from moejax.families._numerics import stirling

DF_START, DF_RANGE = 5.0, (1.0, 200.0)


@dataclass(frozen=True)
class StudentT(Located):
    """Student t targets; made by `student_t`.

    Attributes
    ----------
    shared_scale : bool, default False
        Whether all experts have the same scale.
    variance_floor : float, default 2e-3
        Lower bound of every scale^2, as a share of the largest; 0 for none.
    df : float or None, default None
        Degrees of freedom; None where they are estimated.
    """

    df: float | None = None

    def init(self, n_experts: int, eta: Any) -> Params:
        """Return scales of 1, and 5 degrees of freedom if they are to be estimated, in logarithms."""
        phi = super().init(n_experts, eta)
        if self.df is None:
            phi["log_df"] = jnp.full_like(phi["log_scale"], math.log(DF_START))
        return phi

    def log_df(self, phi: Params) -> jax.Array:
        """Return log degrees of freedom within their range, as they enter the density.

        Parameters
        ----------
        phi : dict
            Dispersion parameters.

        Returns
        -------
        jax.Array, (K,) or (K, m), or () or (m,) if shared
            Logarithms of degrees of freedom, like the log scales.
        """
        if self.df is None:
            return jnp.clip(phi["log_df"], *map(math.log, DF_RANGE))
        return jnp.full_like(phi["log_scale"], math.log(self.df))

    def summary(self, phi: Params) -> Params:
        """Return scales and degrees of freedom, (K,) or () if shared."""
        return {**super().summary(phi), "df": jnp.exp(self.log_df(phi))}

    def held(self, phi: Params, target: Target) -> Params:
        """Return what holds for all families, and degrees of freedom at an end of their range."""
        held: Params = super().held(phi, target)
        if self.df is None:
            least, most = map(math.log, DF_RANGE)
            slack = 100 * jnp.finfo(phi["log_df"].dtype).eps
            inside = (phi["log_df"] > least + slack) & (phi["log_df"] < most - slack)
            held["log_df"] = held["log_df"] | ~inside
        return held

    def log_prob(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return log t((y - eta) / scale; df) - log scale, summed over outputs, (K, n)."""
        _checks.shape("y", y, eta.shape[1:], "like an expert's predictions")
        return over_outputs(_log_t(y - eta, self._spread(phi), beside_eta(self.log_df(phi), self.shared_scale)))

    def cdf(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return P(target <= y), like eta, by the incomplete beta function."""
        log_df = beside_eta(self.log_df(phi), self.shared_scale)
        u = _standardized(residuals(y, eta), self._spread(phi), log_df)
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
        """Return a draw from every expert for every row, like eta."""
        df = jnp.exp(beside_eta(self.log_df(phi), self.shared_scale))
        draws = jax.random.t(key, jnp.broadcast_to(df, eta.shape), eta.shape, eta.dtype)
        return eta + jnp.exp(self._spread(phi)) * draws

    def curvature(self, y: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return (df + 1) / (df scale^2 + residual^2), the weights of iteratively reweighted least squares.

        -log_prob is concave in the square of the residual. It therefore lies below its tangent there, a quadratic in eta
        with the same value and slope.
        """
        log_scale, log_df = self._spread(phi), beside_eta(self.log_df(phi), self.shared_scale)
        u = _standardized(y - eta, log_scale, log_df)
        return (1 + jnp.exp(-log_df)) * jnp.exp(-2 * log_scale) / (1 + jnp.square(u))

    def fall(self, low: jax.Array, high: jax.Array, eta: jax.Array, phi: Params) -> jax.Array:
        """Return how far `rise` falls, (K, n): it falls up to a distance of scale * sqrt(df) from eta, and not beyond."""
        log_df = beside_eta(self.log_df(phi), self.shared_scale)
        reach = jnp.exp(self._spread(phi) + 0.5 * log_df)
        near = (jnp.clip(y, eta - reach, eta + reach) for y in (low, high))
        return jnp.subtract(*(self.rise(y, eta, phi) for y in near))

    def spread(self, y: jax.Array, eta: jax.Array, phi: Params, weights: jax.Array) -> tuple[Spread, Any]:
        """Return sums for the scales, and slope and curvature of the log-likelihood in log df."""
        residual, log_df = y - eta, self.log_df(phi)
        log_scale, rows_log_df = self._spread(phi), beside_eta(log_df, self.shared_scale)
        # residual^2 times its weight, (df + 1) / (df + (residual / scale)^2), in a form that cannot overflow
        share = 1 - 1 / (1 + jnp.square(_standardized(residual, log_scale, rows_log_df)))
        squares = (1 + jnp.exp(rows_log_df)) * jnp.exp(2 * log_scale) * share
        scales = spread_of(squares, weights)
        if self.df is not None:
            return scales, ()

        def total(log_df: jax.Array) -> jax.Array:
            each = _log_t(residual, log_scale, beside_eta(log_df, self.shared_scale))
            return (like_eta(weights, each) * each).sum()

        return scales, jax.jvp(jax.grad(total), (log_df,), (jnp.ones_like(log_df),))

    def dispersion(self, phi: Params, sums: tuple[Spread, Any], change: jax.Array, target: Target) -> Params:
        """Return the best scales for a quadratic bound, and a Newton step in log df of at most 1."""
        scales, of_df = sums
        new = {"log_scale": self._scale_step(phi, scales, change, target)}
        if self.df is None:
            slope, bend = of_df
            step = jnp.where(bend < 0, -slope / jnp.where(bend < 0, bend, -1), jnp.sign(slope))
            new["log_df"] = jnp.clip(self.log_df(phi) + jnp.clip(step, -1, 1), *map(math.log, DF_RANGE))
        return new


def student_t(df: float | None = None, *, shared_scale: bool = False, variance_floor: float = DEFAULT_FLOOR) -> StudentT:
    """Construct the family of Student t targets, which is robust to outliers.

    Parameters
    ----------
    df : float or None, default None
        Degrees of freedom. None to estimate them, between 1 and 200, wherever there is a scale.
    shared_scale : bool, default False
        Whether all experts have the same scale, rather than one each.
    variance_floor : float, default 2e-3
        Lower bound of every scale^2, as a share of the largest; 0 for none.

    Returns
    -------
    StudentT
        The family.

    Raises
    ------
    ValueError
        If df is not above 0, or variance_floor is below 0, or not below 1.

    Notes
    -----
    The target is eta + scale * t, with t of df degrees of freedom. eta is the median. It is also the mean, which exists for
    df above 1. The M-step for the scales uses the quadratic bound of iteratively reweighted least squares, and degrees of
    freedom take a Newton step an iteration. phi has `log_scale`, and `log_df` if it is estimated.

    References
    ----------
    Lange, Little and Taylor (1989).
    """
    if df is not None:
        df = _checks.number_above_0("df", df)
    floor = checked_share("variance_floor", variance_floor, "scale^2")
    return StudentT(_checks.flag("shared_scale", shared_scale), floor, df)


def _standardized(residual: jax.Array, log_scale: jax.Array, log_df: jax.Array) -> jax.Array:
    """The residual over scale * sqrt(df), held where its square would overflow: the density is flat there to rounding."""
    limit = float(jnp.finfo(residual.dtype).max) ** 0.5 / 16
    return jnp.clip(residual * jnp.exp(-log_scale - 0.5 * log_df), -limit, limit)


def _log_t(residual: jax.Array, log_scale: jax.Array, log_df: jax.Array) -> jax.Array:
    half = 0.5 * jnp.exp(log_df)
    # log Gamma(half + 1/2) - log Gamma(half) - log(2 half) / 2, whose two large terms would cancel for large df
    constant = half * jnp.log1p(0.5 / half) - 0.5 + stirling(half + 0.5) - stirling(half) - 0.5 * math.log(2 * math.pi)
    tail = jnp.log1p(jnp.square(_standardized(residual, log_scale, log_df)))
    return constant - log_scale - (half + 0.5) * tail
