"""Pooling: predictions of a fitted mixture from all experts or from one, as a number or as a whole distribution.

The way in which experts are pooled is chosen at prediction, independently of training. The gate is always soft here, also a
gate that chooses one expert. Experts that take no part (`params["active"]`) have share 0. All functions take
(model, params, x, ...) and work inside `jit` and `vmap`.

    predict(model, params, x, pool="top")                  the mean of the most probable expert alone
    probabilities, classes                                 for families of classes
    density, cdf, quantiles, interval, modes               of the mixture p(y | x), for one target
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _cache, _checks
from moejax._trees import n_rows
from moejax.model import Model, check_model, checked, on_device
from moejax.predict import _modes
from moejax.predict._modes import Mixture


class Modes(NamedTuple):
    """Modes of p(y | x) and their densities, in falling order of density.

    Attributes
    ----------
    at : jax.Array, (n, K)
        The modes of each row; NaN where a row has fewer than K.
    density : jax.Array, (n, K)
        The density or mass at each mode; NaN likewise.
    """

    at: jax.Array
    density: jax.Array


# ---- one number for each row ----------------------------------------------------------------------------------------


def predict(model: Model, params: Any, x: Any, pool: str = "mean", offset: Any = None) -> jax.Array:
    """Return the pooled means of the experts.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    pool : {"mean", "top"}, default "mean"
        "mean" is E[y | x], the mean of the experts weighted by the gate. "top" is the mean of the expert with the largest
        gate probability.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Predictions of shape `(n,)`, or `(n, m)` for m outputs.

    Raises
    ------
    ValueError
        If `pool` is neither "mean" nor "top".

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.gaussian())
    >>> x = jnp.ones((3, 2))
    >>> params = model.init(jax.random.key(0), x)
    >>> pooling.predict(model, params, x, pool="top").shape
    (3,)
    """
    _checks.choice("pool", pool, ("mean", "top"))
    params, x, _, offset = checked(model, params, x, offset=offset)
    inputs = model.prepare(x)
    return _pooled(model.means(params, inputs, offset), model.log_gate(params, inputs), pool)


def probabilities(model: Model, params: Any, x: Any, pool: str = "mean", offset: Any = None) -> jax.Array:
    """Return pooled class probabilities.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    pool : {"mean", "top"}, default "mean"
        "mean" gives the class probabilities of the mixture. "top" gives those of the expert with the largest gate
        probability.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Probabilities of shape `(n, C)`. For labels 0 and 1, C is 2.

    Raises
    ------
    ValueError
        If the family has no classes, if the model predicts several columns of labels, or if `pool` is neither "mean" nor
        "top".

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.bernoulli())
    >>> x = jnp.ones((3, 2))
    >>> pooling.probabilities(model, model.init(jax.random.key(0), x), x).shape
    (3, 2)
    """
    check_model(model)
    if model.family is None or not model.family.has_classes:
        raise ValueError(f"model: family {model.family!r} was given; want a family of classes, as families.bernoulli()")
    _checks.choice("pool", pool, ("mean", "top"))
    params, x, _, offset = checked(model, params, x, offset=offset)
    inputs = model.prepare(x)
    eta = model.eta(params, inputs, offset)
    each = model.family.class_probabilities(eta)
    if each.ndim != 3:
        raise ValueError(f"model: {eta.shape[2]} columns of labels are predicted; want one column, or model.predict")
    return _pooled(each, model.log_gate(params, inputs), pool)


def classes(model: Model, params: Any, x: Any, pool: str = "mean", offset: Any = None) -> jax.Array:
    """Return the most probable class of each row.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    pool : {"mean", "top"}, default "mean"
        How the experts are pooled; see `probabilities`.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Class numbers from 0, of shape `(n,)`.

    Raises
    ------
    ValueError
        As in `probabilities`.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.bernoulli())
    >>> x = jnp.ones((3, 2))
    >>> params = model.init(jax.random.key(0), x)
    >>> pooling.classes(model, params, x).shape
    (3,)
    """
    return probabilities(model, params, x, pool, offset).argmax(axis=1)


def _pooled(each: jax.Array, log_gate: jax.Array, pool: str) -> jax.Array:
    """Pool values of experts, (K, n) or (K, n, m)."""
    if pool == "top":
        return each[log_gate.argmax(axis=0), jnp.arange(each.shape[1])]
    share = jnp.exp(log_gate).reshape(*log_gate.shape, *[1] * (each.ndim - 2))
    return (share * each).sum(axis=0) / share.sum(axis=0)  # rounding leaves the sum a little off 1


# ---- the whole distribution -----------------------------------------------------------------------------------------


def density(model: Model, params: Any, x: Any, y: Any, offset: Any = None) -> jax.Array:
    """Return p(y | x), the density or mass of the mixture.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    y : array, (n,) or (n, g)
        Where to evaluate: one target for each row, or a grid of g targets for each row.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Densities, with the shape of `y`.

    Raises
    ------
    ValueError
        If the model has several targets or no family, if the shape of `y` does not fit, or if `y` is outside the support of
        the family.

    Notes
    -----
    p(y | x) = sum over k of g_k(x) f_k(y; eta_k(x), phi_k).

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.gaussian())
    >>> x = jnp.ones((3, 2))
    >>> params = model.init(jax.random.key(0), x)
    >>> grid = jnp.tile(jnp.linspace(-1, 1, 5), (3, 1))
    >>> pooling.density(model, params, x, grid).shape
    (3, 5)
    """
    return _on_grid(model, params, x, y, offset, lambda mixture, y: jnp.exp(mixture.log_joint(y)).sum(axis=0))


def cdf(model: Model, params: Any, x: Any, y: Any, offset: Any = None) -> jax.Array:
    """Return P(target <= y | x), the distribution function of the mixture.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    y : array, (n,) or (n, g)
        Where to evaluate: one target for each row, or a grid of g targets for each row.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Probabilities, with the shape of `y`.

    Raises
    ------
    ValueError
        If the model has several targets, if its family has no distribution function (families of classes have none), if the
        shape of `y` does not fit, or if `y` is not finite.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.gaussian())
    >>> x = jnp.ones((3, 2))
    >>> params = model.init(jax.random.key(0), x)
    >>> pooling.cdf(model, params, x, jnp.zeros(3)).shape
    (3,)
    """
    _check_cdf(model)
    return _on_grid(model, params, x, y, offset, _cdf)


def quantiles(model: Model, params: Any, x: Any, q: Any, offset: Any = None) -> jax.Array:
    """Return quantiles of p(y | x).

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    q : float or array, (Q,)
        Probabilities between 0 and 1, both excluded.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Quantiles of shape `(n, Q)`, or `(n,)` for one number q; NaN where the parameters are NaN.

    Raises
    ------
    ValueError
        If a number in `q` is not between 0 and 1, or for a reason given in `cdf`.

    Notes
    -----
    The quantile at q is the smallest float at which the distribution function is at least q. It is found by bisection over
    all floats. It is therefore exact up to the rounding of the distribution function; for counts it is the smallest such
    count.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.gaussian())
    >>> x = jnp.ones((3, 2))
    >>> params = model.init(jax.random.key(0), x)
    >>> pooling.quantiles(model, params, x, [0.05, 0.5, 0.95]).shape
    (3, 3)
    """
    _check_cdf(model)
    _checks.finite("q", q)
    inside = _checks.is_traced(q) or ((np.asarray(q) > 0) & (np.asarray(q) < 1)).all()
    if np.ndim(q) > 1 or not np.size(q) or not inside:
        raise ValueError(f"q: {_checks.shown(q)} was given; want numbers between 0 and 1, one or a sequence")
    params, x, _, offset = checked(model, params, x, offset=offset)
    found: jax.Array = _quantiles(model, params, x, jnp.atleast_1d(on_device(q, float)), offset)
    return found if np.ndim(q) else found[:, 0]


def interval(model: Model, params: Any, x: Any, level: float = 0.9, offset: Any = None) -> jax.Array:
    """Return the central interval of p(y | x).

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    level : float, default 0.9
        Probability of the interval, between 0 and 1, both excluded.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    jax.Array
        Shape `(n, 2)`: the quantiles at (1 - level) / 2 and (1 + level) / 2.

    Raises
    ------
    ValueError
        If `level` is not one number between 0 and 1, or for a reason given in `cdf`.

    Notes
    -----
    If p(y | x) has modes that are far apart, the interval also contains the region of low density between them.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.gaussian())
    >>> x = jnp.ones((3, 2))
    >>> params = model.init(jax.random.key(0), x)
    >>> pooling.interval(model, params, x, level=0.8).shape
    (3, 2)
    """
    _checks.shape("level", level, (), "one number between 0 and 1")
    _checks.positive("level", level)
    if not _checks.is_traced(level) and level >= 1:
        raise ValueError(f"level: {level} was given; want a number between 0 and 1")
    return quantiles(model, params, x, 0.5 + 0.5 * jnp.asarray([-1, 1]) * on_device(level, float), offset)


def modes(model: Model, params: Any, x: Any, offset: Any = None) -> Modes:
    """Return the modes of p(y | x) of each row and their densities.

    A mode is a point at which p(y | x) is higher than on both sides. If several neighbouring counts are equally probable,
    the smallest is the mode.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    Modes
        The modes and their densities, each `(n, K)`, in falling order of density and padded with NaN.

    Raises
    ------
    ValueError
        If the family has classes (use `classes`), or if the model has several targets.

    Notes
    -----
    All modes are found, wherever they lie between the experts' modes (see `_modes`), with one exception: a mode that rises
    above a valley beside it by less than a share of 1e-6 in float64, or 3e-4 in float32, is merged with its neighbour.

    A mixture of K normal densities has at most K modes; so has a mixture of K Poisson distributions, or of K gamma
    distributions with one common shape. In these cases p(y + 1) - p(y), or the slope of p, is up to a positive factor a sum
    over k of (a_k + b_k y) exp(c_k y). Such a sum changes its sign at most 2 K - 1 times [1]_. If there are more than K
    modes, the K highest are returned.

    The density of a gamma expert with shape 1 or less is highest towards 0, and infinite there if the shape is below 1. The
    value 0 is not in the support. Such a mode is reported as the smallest positive normal float (`jnp.finfo(dtype).tiny`),
    with the density at that point.

    References
    ----------
    .. [1] Pólya and Szegő (1925), "Aufgaben und Lehrsätze aus der Analysis", part V.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, families, gates, pooling
    >>> model = moejax.moe(experts.linear(), gates.constant(), n_experts=2, family=families.gaussian())
    >>> x = jnp.ones((3, 2))
    >>> pooling.modes(model, model.init(jax.random.key(0), x), x).at.shape
    (3, 2)
    """
    check_model(model)
    if model.family is None or not model.family.has_modes:
        raise ValueError(
            f"model: family {model.family!r} was given; want a family of numbers; for classes use pooling.classes"
        )
    params, x, _, offset = checked(model, params, x, offset=offset)
    with _cache.nan_is_a_result():
        found: Modes = _modes_of(model, params, x, offset)
    return found


# ---- computation ----------------------------------------------------------------------------------------------------


def _mixture(model: Model, params: Any, x: Any, offset: Any, copies: int) -> Mixture:
    """Return the mixture with each row of x repeated `copies` times; raise ValueError unless it has one target."""
    assert model.family is not None  # as `_check_family` saw
    inputs = model.prepare(x)
    eta, log_gate = model.eta(params, inputs, offset), model.log_gate(params, inputs)
    classes = model.family.has_classes
    if jax.eval_shape(model.family.class_probabilities if classes else model.family.mean, eta).ndim != (3 if classes else 2):
        raise ValueError(f"model: {eta.shape[2]} targets are predicted; want one")
    return Mixture(model.family, jnp.repeat(eta, copies, axis=1), model.phi(params), jnp.repeat(log_gate, copies, axis=1))


def _cdf(mixture: Mixture, y: jax.Array) -> jax.Array:
    """Return the distribution function of the mixture at y (n,)."""
    share = jnp.exp(mixture.log_gate)
    return jnp.minimum((share * mixture.family.cdf(y, mixture.eta, mixture.phi)).sum(axis=0) / share.sum(axis=0), 1)


def _on_grid(model: Model, params: Any, x: Any, y: Any, offset: Any, function: Any) -> jax.Array:
    """Return function(mixture, y) at y (n,) or (n, g), with the shape of y."""
    _check_family(model)
    params, x, _, offset = checked(model, params, x, offset=offset)
    n = n_rows(x)
    given = _checks.shape_of("y", y)
    if len(given) not in (1, 2) or given[0] != n:
        raise ValueError(f"y: shape {given} was given; want {(n,)}, or ({n}, g) for a grid")
    _checks.finite("y", y)
    mixture = _mixture(model, params, x, offset, 1 if len(given) == 1 else given[1])
    _checks.within("y", y, mixture.eta.dtype)
    values: jax.Array = function(mixture, on_device(y, mixture.eta.dtype).ravel()).reshape(np.shape(y))
    return values


def _check_family(model: Model) -> None:
    """Raise ValueError if the model is none or has no family."""
    check_model(model)
    if model.family is None:
        raise ValueError("model: one without a family was given; want a family, as in moe(..., family=families.gaussian())")


def _check_cdf(model: Model) -> None:
    """Raise ValueError if the model is none or its family has no distribution function."""
    check_model(model)
    if model.family is None or not model.family.has_cdf:
        raise ValueError(f"model: family {model.family!r} was given; want a family with a distribution function `cdf`")


@partial(jax.jit, static_argnums=0)
def _quantiles(model: Model, params: Any, x: Any, q: jax.Array, offset: Any) -> jax.Array:
    """Find quantiles by bisection over all floats, (n, Q)."""
    mixture = _mixture(model, params, x, offset, q.size)
    dtype, rows = mixture.eta.dtype, mixture.eta.shape[1]
    wanted = jnp.tile(q.astype(dtype), rows // q.size)
    bits = jnp.finfo(dtype).bits
    largest = jax.lax.bitcast_convert_type(jnp.finfo(dtype).max, jnp.int32 if bits == 32 else jnp.int64)

    def halved(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)  # (low + high) / 2 without overflow
        reached = _cdf(mixture, _float_of(middle, dtype)) >= wanted
        return jnp.where(reached, low, middle), jnp.where(reached, middle, high)

    _, high = jax.lax.fori_loop(0, bits, halved, (jnp.full(rows, -largest), jnp.full(rows, largest)))
    found = _float_of(high, dtype)
    found = jnp.where(jnp.abs(found) < jnp.finfo(dtype).tiny, 0, found)
    return jnp.where(jnp.isnan(_cdf(mixture, found)), jnp.nan, found).reshape(-1, q.size)


def _float_of(number: jax.Array, dtype: Any) -> jax.Array:
    """Return the float with that number, counted from 0 in both directions.

    The bits of positive floats, read as integers, have the same order as the floats.
    """
    return jnp.sign(number).astype(dtype) * jax.lax.bitcast_convert_type(jnp.abs(number), dtype)


@partial(jax.jit, static_argnums=0)
def _modes_of(model: Model, params: Any, x: Any, offset: Any) -> Modes:
    """Return at most K modes of each row, in falling order of density."""
    at, log_density = (v.T for v in _modes.find(_mixture(model, params, x, offset, 1)))
    height = jnp.exp(log_density)
    down = jnp.argsort(-height, axis=1)[:, : model.n_experts]  # `argsort` puts NaN last
    return Modes(*(jnp.take_along_axis(v, down, axis=1) for v in (at, height)))
