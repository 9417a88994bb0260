"""Pooling: what a trained mixture says of a row, from all experts or from one, as a number or as a whole distribution.

How experts are pooled is chosen here, at prediction, whatever was trained; the gate is always soft, also one that chooses an
expert. All functions take (model, params, x, ...) and, where `jit` or `vmap` is wanted, arrays that are traced; offset is
that of `Model.predict`. Experts that take no part (`params["active"]`) have no share.

    predict(model, params, x, pool="top")                  the most trusted expert alone
    probabilities, classes                                 of families of classes
    density, cdf, quantiles, interval, modes               of the mixture p(y | x), for one target
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.model import Model
from moejax.predict import _modes
from moejax.predict._modes import Mixture


class Modes(NamedTuple):
    """Modes of p(y | x), (n, K), the highest first and NaN where a row has fewer, and their densities, (n, K)."""

    at: jax.Array
    density: jax.Array


# ---- one number a row -----------------------------------------------------------------------------------------------


def predict(model: Model, params: Any, x: Any, pool: str = "mean", offset: Any = None) -> jax.Array:
    """The experts' means pooled: (n,), or (n, m) for m outputs.

    pool: "mean" for E[y | x], the gate-weighted mean; "top" for the mean of the expert of largest gate probability. Raises
    ValueError for anything else.
    """
    inputs = model.prepare(x)
    return _pooled(model.means(params, inputs, offset), model.log_gate(params, inputs), pool)


def probabilities(model: Model, params: Any, x: Any, pool: str = "mean", offset: Any = None) -> jax.Array:
    """Class probabilities, (n, C), the experts' pooled as in `predict`: by "mean" those of the mixture.

    Raises ValueError for a family that is not of classes; of labels 0 and 1, C = 2, for a single column of them.
    """
    inputs = model.prepare(x)
    eta = model.eta(params, inputs, offset)
    if not hasattr(model.family, "class_probabilities"):
        raise ValueError(f"model: family {model.family!r} was given; want one of classes, as families.bernoulli()")
    each = model.family.class_probabilities(eta)
    if each.ndim != 3:
        raise ValueError(f"model: {eta.shape[2]} columns of labels are predicted; want one, or model.predict")
    return _pooled(each, model.log_gate(params, inputs), pool)


def classes(model: Model, params: Any, x: Any, pool: str = "mean", offset: Any = None) -> jax.Array:
    """The most probable class of each row, (n,) whole numbers. Arguments and errors as for `probabilities`."""
    return probabilities(model, params, x, pool, offset).argmax(axis=1)


def _pooled(each: jax.Array, log_gate: jax.Array, pool: str) -> jax.Array:
    """Values of experts, (K, n) or (K, n, m), pooled."""
    if pool not in ("mean", "top"):
        raise ValueError(f"pool: {pool!r} was given; want 'mean' or 'top'")
    if pool == "top":
        return each[log_gate.argmax(axis=0), jnp.arange(each.shape[1])]
    share = jnp.exp(log_gate).reshape(*log_gate.shape, *[1] * (each.ndim - 2))
    return (share * each).sum(axis=0) / share.sum(axis=0)  # whose sum rounding leaves a little off 1


# ---- the whole distribution -----------------------------------------------------------------------------------------


def density(model: Model, params: Any, x: Any, y: Any, offset: Any = None) -> jax.Array:
    """p(y | x), the mixture's density or mass: (n,) at y (n,), or (n, g) on a grid y (n, g) with g numbers for each row.

    Raises ValueError for a model of several targets or without a family, and for y that its family cannot have.
    """
    return _on_grid(model, params, x, y, offset, lambda mixture, y: jnp.exp(mixture.log_joint(y)).sum(axis=0))


def cdf(model: Model, params: Any, x: Any, y: Any, offset: Any = None) -> jax.Array:
    """P(target <= y | x): (n,) at y (n,), or (n, g) on a grid y (n, g) with g numbers for each row.

    Raises ValueError for a model of several targets, and for a family without a distribution function (classes have none).
    """
    _check_cdf(model)
    return _on_grid(model, params, x, y, offset, _cdf)


def quantiles(model: Model, params: Any, x: Any, q: Any, offset: Any = None) -> jax.Array:
    """The quantiles of p(y | x) at q: (n, Q) for Q numbers between 0 and 1, (n,) for one.

    The smallest float whose distribution function is at least q, found by bisection over all floats there are: exact to the
    rounding of the function, and for counts the smallest count. NaN where params are. Raises ValueError for numbers that
    are not between 0 and 1, and as `cdf` does.
    """
    _check_cdf(model)
    _checks.finite("q", q)
    inside = _checks.is_traced(q) or bool(((jnp.asarray(q) > 0) & (jnp.asarray(q) < 1)).all())
    if np.ndim(q) > 1 or not inside:
        raise ValueError(f"q: {q} was given; want numbers between 0 and 1, one or a sequence")
    found = _quantiles(model, params, x, jnp.atleast_1d(jnp.asarray(q, float)), offset)
    return found if np.ndim(q) else found[:, 0]


def interval(model: Model, params: Any, x: Any, level: float = 0.9, offset: Any = None) -> jax.Array:
    """The central interval of p(y | x): (n, 2), the quantiles at (1 - level) / 2 and (1 + level) / 2.

    Where p(y | x) has modes far apart, it spans what lies between them too. Raises ValueError for a level that is not one
    number between 0 and 1, and as `quantiles` does.
    """
    _checks.shape("level", level, (), "one number between 0 and 1")
    _checks.positive("level", level)
    if not _checks.is_traced(level) and level >= 1:
        raise ValueError(f"level: {level} was given; want a number between 0 and 1")
    return quantiles(model, params, x, 0.5 + 0.5 * jnp.asarray([-level, level]), offset)


def modes(model: Model, params: Any, x: Any, offset: Any = None) -> Modes:
    """The modes of p(y | x) of each row and their densities, highest first, padded with NaN: two arrays (n, K).

    A mode is where p(y | x) is higher than on both sides; of counts that are equally probable side by side, the smallest.
    All are found, wherever between the experts' modes they lie (see `_modes`), but for those that rise above a valley beside
    them by less than a share of 1e-6 in float64, of 3e-4 in float32: these are one with their neighbour.

    A mixture of K normal densities has at most K modes, and so has one of K Poisson or of K gamma distributions of one
    shape: p(y + 1) - p(y) and the slope of p are then, up to a positive factor, sums over k of (a_k + b_k y) exp(c_k y),
    which change their sign no more than 2 K - 1 times (Pólya and Szegő 1925, part V). Of more than K the highest are told.

    The density of a gamma expert of shape 1 or less is highest towards 0, infinite below 1. Since 0 is no target, such a
    mode is told as the smallest float (`jnp.finfo(dtype).tiny`), with the density there.

    Raises ValueError for families of classes, for which there is `classes`, and for several targets.
    """
    if not hasattr(model.family, "mode"):
        raise ValueError(f"model: family {model.family!r} was given; want one of numbers, or pooling.classes for classes")
    return _modes_of(model, params, x, offset)


# ---- how they are found ---------------------------------------------------------------------------------------------


def _mixture(model: Model, params: Any, x: Any, offset: Any, copies: int) -> Mixture:
    """The mixture of rows of x, each `copies` times in a row; raises ValueError for one of several targets."""
    if model.family is None:
        raise ValueError("model: one without a family was given; want one, as in moe(..., family=families.gaussian())")
    inputs = model.prepare(x)
    eta, log_gate = model.eta(params, inputs, offset), model.log_gate(params, inputs)
    classes = getattr(model.family, "class_probabilities", None)
    if jax.eval_shape(classes or model.family.mean, eta).ndim != (3 if classes else 2):
        raise ValueError(f"model: {eta.shape[2]} targets are predicted; want one")
    return Mixture(model.family, jnp.repeat(eta, copies, axis=1), model.phi(params), jnp.repeat(log_gate, copies, axis=1))


def _cdf(mixture: Mixture, y: jax.Array) -> jax.Array:
    share = jnp.exp(mixture.log_gate)
    return jnp.minimum((share * mixture.family.cdf(y, mixture.eta, mixture.phi)).sum(axis=0) / share.sum(axis=0), 1)


def _on_grid(model: Model, params: Any, x: Any, y: Any, offset: Any, function: Any) -> jax.Array:
    """function(mixture, y) at y (n,) or (n, g), of the same shape."""
    n = jax.tree.leaves(x)[0].shape[0]
    if np.ndim(y) not in (1, 2) or np.shape(y)[0] != n:
        raise ValueError(f"y: shape {np.shape(y)} was given; want {(n,)}, or ({n}, g) for a grid")
    _checks.finite("y", y)
    mixture = _mixture(model, params, x, offset, 1 if np.ndim(y) == 1 else np.shape(y)[1])
    return function(mixture, jnp.asarray(y, mixture.eta.dtype).ravel()).reshape(np.shape(y))


def _check_cdf(model: Model) -> None:
    if not hasattr(model.family, "cdf"):
        raise ValueError(f"model: family {model.family!r} was given; want one with a distribution function `cdf`")


@partial(jax.jit, static_argnums=0)
def _quantiles(model: Model, params: Any, x: Any, q: jax.Array, offset: Any) -> jax.Array:
    mixture = _mixture(model, params, x, offset, q.size)
    dtype, rows = mixture.eta.dtype, mixture.eta.shape[1]
    wanted = jnp.tile(q.astype(dtype), rows // q.size)
    bits = jnp.finfo(dtype).bits
    largest = jax.lax.bitcast_convert_type(jnp.finfo(dtype).max, jnp.int32 if bits == 32 else jnp.int64)

    def halved(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # whose sum would overflow
        reached = _cdf(mixture, _float_of(middle, dtype)) >= wanted
        return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

    _, high = jax.lax.fori_loop(0, bits, halved, (jnp.full(rows, -largest), jnp.full(rows, largest)))
    found = _float_of(high, dtype)
    found = jnp.where(jnp.abs(found) < jnp.finfo(dtype).tiny, 0, found)
    return jnp.where(jnp.isnan(_cdf(mixture, found)), jnp.nan, found).reshape(-1, q.size)


def _float_of(number: jax.Array, dtype: Any) -> jax.Array:
    """The float of that number, counted from 0 on either side: the bits of a positive float count floats by size."""
    return jnp.sign(number).astype(dtype) * jax.lax.bitcast_convert_type(jnp.abs(number), dtype)


@partial(jax.jit, static_argnums=0)
def _modes_of(model: Model, params: Any, x: Any, offset: Any) -> Modes:
    at, log_density = (v.T for v in _modes.find(_mixture(model, params, x, offset, 1)))
    height = jnp.exp(log_density)
    down = jnp.argsort(-height, axis=1)[:, : model.n_experts]  # NaN last
    return Modes(*(jnp.take_along_axis(v, down, axis=1) for v in (at, height)))
