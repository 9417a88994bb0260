"""Linear predictors, as experts and gates compute them, and the quadratic problem that fits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks

_LARGEST_PAIRS = 2**28  # bytes of products of pairs of columns that may be kept


Terms = Sequence[tuple[Any, Any]]  # penalties, each with its weight


_PRECISE = jax.lax.Precision.HIGHEST


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """a @ b with all the digits that the arrays have. Accelerators by default keep fewer: an NVIDIA card's products of
    float32 have 11 bits, with which no fit comes to an optimum.
    """
    return jnp.matmul(a, b, precision=_PRECISE)


class Pairs(NamedTuple):
    """Rows (n, p) less the means (p,) of their columns but for the last, of ones, and, unless there are too many, the
    products of their pairs of columns, (n, p (p + 1) / 2). Far from 0, sums of squares would lose the digits that matter.
    """

    x: jax.Array
    products: jax.Array | None
    means: jax.Array


class Moments(NamedTuple):
    """Sums over rows of weight * x x', (K, p, p) or (K, m, p, p), of columns less their means: (p,), or what broadcasts
    against (K, p) or (K, m, p).
    """

    gram: jax.Array
    means: jax.Array

    def of_columns(self, seen: jax.Array) -> Moments:
        """Those of rows in which the columns that an expert does not see are 0. seen: (K, d) of 0 and 1."""
        seen = jnp.concatenate([seen, jnp.ones_like(seen[:, :1])], axis=1)
        seen = seen.reshape(seen.shape[0], *(1,) * (self.gram.ndim - 3), seen.shape[1])
        return Moments(seen[..., :, None] * self.gram * seen[..., None, :], seen * self.means)


def with_intercept(x: jax.Array) -> jax.Array:
    """(n, d) to (n, d + 1), the last column ones: one product then serves weights and intercept."""
    if not hasattr(x, "ndim"):
        raise ValueError(
            f"x: a {type(x).__name__} was given to a part that sees a table; want its expert_columns or "
            "gate_columns to name one of the arrays in x"
        )
    _checks.shape("x", x, (None, None), "rows by features")
    return jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)


def predictors(weights: jax.Array, intercept: jax.Array, x: jax.Array) -> jax.Array:
    """Linear predictors (K, n) of weights (K, d), intercepts (K,) and x as `with_intercept` returns it.

    The rows stay in the order they came in, and the compiler folds the transpose into the product: with samples last
    instead, the gradient solver's backward product takes longer. EM turns x over before its loop and back within it.
    """
    return dot(jnp.concatenate([weights, intercept[:, None]], axis=1), x.T)


def pairs(x: jax.Array) -> Pairs:
    """What `moments` wants of rows (n, p): computed once for all members of a sweep and all iterations of a solver."""
    n, p = x.shape
    means = x.mean(axis=0).at[-1].set(0)
    x = x - means
    small = n * p * (p + 1) // 2 * x.dtype.itemsize <= _LARGEST_PAIRS
    return Pairs(x, _products(x) if small else None, means)


def _products(x: jax.Array) -> jax.Array:
    """All products of two columns of x (n, p), (n, p (p + 1) / 2).

    Each column with the one k before it, for k = 0, 1, ... in turn: whole rows beside rows, which compile to long loops.
    """
    p = x.shape[1]
    products = [x * jnp.roll(x, k, axis=1) for k in range((p + 1) // 2)]
    if p % 2 == 0:  # half way round, every pair comes twice
        products.append(x[:, : p // 2] * x[:, p // 2 :])
    return jnp.concatenate(products, axis=1)


def _places(p: int) -> np.ndarray:
    """Where among `_products` those of each two columns are, (p, p)."""
    i, j = np.indices((p, p))
    k = (i - j) % p
    places = np.where(2 * k < p, k * p + i, (p - k) * p + j)
    return np.where(2 * k == p, k * p + np.minimum(i, j), places)


def moments(rows: Pairs, weights: jax.Array) -> Moments:
    """sum over rows of weight * x x', (..., p, p), for weights (..., n), x less the means of its columns.

    One product of all weights with the pairs of columns serves every expert and every member of a sweep.
    """
    if rows.products is None:
        gram = jnp.einsum("...n,np,nq->...pq", weights, rows.x, rows.x, precision=_PRECISE)
        return Moments(gram, rows.means)
    return Moments(dot(weights, rows.products)[..., _places(rows.x.shape[1])], rows.means)


def diagonals(a: jax.Array) -> jax.Array:
    """Of matrices (..., p, p), (..., p): a reduction, which becomes part of what comes after as a gather does not."""
    return jnp.where(np.eye(a.shape[-1], dtype=bool), a, 0).sum(axis=-1)


class Quadratic(NamedTuple):
    """A quadratic in coefficients (K, p) or (K, p, m): its slope where they are, and its curvature.

    gradient: like the coefficients. gram: (K, p, p), or (K, m, p, p).
    """

    gradient: jax.Array
    gram: jax.Array


def quadratic_step(params: dict[str, Any], gradient: dict[str, Any], sums: Moments, penalties: Terms) -> dict[str, Any]:
    """Params with "weights" (K, d[, m]) and "intercept" (K[, m]) where the quadratic plus penalties is lower.

    The intercept is eliminated first, exactly, which is to centre the columns at each expert's own rows.
    """
    gram = sums.gram
    size, cross = gram[..., -1, -1], gram[..., :-1, -1]
    there = size > jnp.finfo(size.dtype).eps * size.max()  # an expert without rows stays where it is
    share = jnp.where(there, 1 / jnp.where(there, size, 1), 0)
    centres = jnp.moveaxis(sums.means[..., :-1] + cross * share[..., None], -1, 1)  # (K, d[, m])
    centred = gram[..., :-1, :-1] - (cross * share[..., None])[..., :, None] * cross[..., None, :]
    # What rounding leaves of a difference must not pass for a curvature, least of all a negative one.
    squares = diagonals(gram)[..., :-1] + size[..., None] * jnp.square(sums.means[..., :-1])
    rounding = 8 * gram.shape[-1] * jnp.finfo(gram.dtype).eps
    centred = centred + rounding * squares[..., None] * np.eye(squares.shape[-1], dtype=gram.dtype)
    slope = gradient["weights"] - centres * gradient["intercept"][:, None]
    weights = lowered(params["weights"], Quadratic(slope, centred), penalties)
    moved = share * gradient["intercept"] + (centres * (weights - params["weights"])).sum(axis=1)
    return {**params, "weights": weights, "intercept": params["intercept"] - moved}


def lowered(b: jax.Array, quadratic: Quadratic, penalties: Terms) -> jax.Array:
    """Coefficients where the quadratic plus penalties is lower, or the same.

    b: (K, d) or (K, d, m), all of which the penalties see. penalties: pairs of a penalty and its weight, in the order of
    their proximal steps. A Newton step among the coefficients that are not 0, and those that a proximal step would free,
    taken where it lowers; for L1 and L2 it ends in the very minimum once zeros and signs are right. Then a proximal step
    from there, which sets zeros and never ascends. Penalties without a curvature have block coordinate descent instead.
    """
    if not all(hasattr(p, "curvature") for p, _ in penalties):
        return _descended(b, quadratic, penalties, _SWEEPS)
    b, gradient = _newton(b, quadratic, penalties)
    if not any(p.kinked for p, _ in penalties):
        return b
    size = 1 / _curvatures(_by_column(quadratic.gram), [list(range(b.shape[1]))], penalties)
    return _proximal(b - size * gradient, size, penalties)


def collinear(params: dict[str, Any], sums: Moments) -> jax.Array:
    """Whether columns of coefficients that are not 0, and the intercept's, are linearly dependent by weight, (K,)."""
    gram = sums.gram
    free = jnp.concatenate([params["weights"] != 0, jnp.ones_like(params["intercept"][:, None], bool)], axis=1)
    mask = _lanes(free)
    gram = gram.reshape(-1, *gram.shape[-2:])
    scale = jnp.sqrt(diagonals(gram))
    scale = jnp.where(scale > 0, scale, 1)
    gram = jnp.where(mask[:, :, None] & mask[:, None], gram / (scale[:, :, None] * scale[:, None]), 0)
    gram = gram + jnp.where(mask, 0, 1)[..., None] * np.eye(gram.shape[1], dtype=gram.dtype)
    least = _pivots(gram).min(axis=1)
    dependent = (least < 10 * gram.shape[1] * jnp.finfo(gram.dtype).eps).reshape(free.shape[0], -1).any(axis=1)
    return dependent & (sums.gram[..., -1, -1].reshape(free.shape[0], -1) > 0).all(axis=1)  # no rows, no columns


def solved(gram: jax.Array, extra: jax.Array, free: jax.Array, right: jax.Array) -> jax.Array:
    """Solutions (L, p) of (gram + diag(extra)) v = right among the free unknowns, the others 0.

    By elimination for a few unknowns, and nearly by conjugate gradients for many; an unknown that hangs on others stays 0.
    The programs of a sweep run beside each other in threads, where LAPACK's routines in XLA have been seen to wait for each
    other for ever; these need none, and serve all systems of a chunk at once.
    """
    return (_eliminated if right.shape[1] <= _ELIMINATED else _conjugate_gradients)(gram, extra, free, right)


def _eliminated(gram: jax.Array, extra: jax.Array, free: jax.Array, right: jax.Array) -> jax.Array:
    p = right.shape[1]
    diagonal = diagonals(gram) + extra
    least = 10 * p * jnp.finfo(gram.dtype).eps * diagonal
    system = jnp.where(free[:, :, None] & free[:, None], gram, 0)
    system = system + jnp.where(free, extra, 1)[..., None] * np.eye(p, dtype=gram.dtype)

    def step(j: jax.Array, a: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(a, j, 1)
        pivot = jax.lax.dynamic_index_in_dim(row, j, 2)
        there = pivot > jax.lax.dynamic_index_in_dim(least, j, 1)[..., None]
        unit = jnp.where(there, row / jnp.where(there, pivot, 1), 0)
        column = jax.lax.dynamic_index_in_dim(a, j, 2)
        # The row itself is set and not subtracted from, for a large pivot would cost its digits. Without a pivot the unknown
        # is left out: its row becomes 0, and so does its solution.
        return jnp.where((np.arange(p) == j)[:, None], unit, a - column * unit)

    reduced = jax.lax.fori_loop(0, p, step, jnp.concatenate([system, right[..., None]], axis=2))
    return jnp.where(free, reduced[..., -1], 0)


def _conjugate_gradients(gram: jax.Array, extra: jax.Array, free: jax.Array, right: jax.Array) -> jax.Array:
    diagonal = diagonals(gram) + extra
    scale = jnp.where(free & (diagonal > 0), 1 / jnp.where(diagonal > 0, diagonal, 1), 0)  # Jacobi's preconditioner

    def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)

    def step(_: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        v, rest, along, length = carry
        bent = jnp.where(free, (gram * along[:, None]).sum(axis=2) + extra * along, 0)
        size = ratio(length, (along * bent).sum(axis=1))[:, None]
        v, rest = v + size * along, rest - size * bent
        scaled = scale * rest
        new_length = (rest * scaled).sum(axis=1)
        return v, rest, scaled + ratio(new_length, length)[:, None] * along, new_length

    begin = (jnp.zeros_like(right), right, scale * right, (right * scale * right).sum(axis=1))
    return jax.lax.fori_loop(0, min(right.shape[1], _CG_STEPS), step, begin)[0]


def whitening(covariance: jax.Array) -> jax.Array:
    """Lower triangular W, (L, p, p), of positive diagonal, with W' W the inverse of each covariance (L, p, p)."""
    p = covariance.shape[1]
    identity = jnp.broadcast_to(np.eye(p, dtype=covariance.dtype), covariance.shape)

    def step(j: jax.Array, a: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(a, j, 1)
        pivot = jax.lax.dynamic_index_in_dim(row, j, 2)
        column = jax.lax.dynamic_index_in_dim(a, j, 2)
        return a - jnp.where(np.arange(p)[:, None] > j, column * row / pivot, 0)

    reduced = jax.lax.fori_loop(0, p, step, jnp.concatenate([covariance, identity], axis=2))
    return reduced[:, :, p:] / jnp.sqrt(diagonals(reduced[:, :, :p]))[..., None]


def _pivots(gram: jax.Array) -> jax.Array:
    """The pivots of Gaussian elimination, (L, p), of symmetric (L, p, p)."""
    p = gram.shape[1]

    def step(j: jax.Array, a: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_index_in_dim(a, j, 1)
        pivot = jax.lax.dynamic_index_in_dim(row, j, 2)
        below = np.arange(p)[:, None] > j
        return a - jnp.where(below & (pivot > 0), jnp.swapaxes(row, 1, 2) * row / jnp.where(pivot > 0, pivot, 1), 0)

    return diagonals(jax.lax.fori_loop(0, p, step, gram))


def _newton(b: jax.Array, quadratic: Quadratic, penalties: Terms) -> tuple[jax.Array, jax.Array]:
    """Where a Newton step leads, expert by expert where that is lower, and the gradient of the quadratic there."""
    gradient, gram = quadratic.gradient, quadratic.gram.reshape(-1, *quadratic.gram.shape[-2:])
    step = 1 / _curvatures(_by_column(quadratic.gram), [[j] for j in range(b.shape[1])], penalties)
    near = _proximal(b - step * gradient, step, penalties)
    free = (b != 0) | (near != 0)
    around = jnp.where(b != 0, b, near)
    slope, bend = _smooth(around, penalties)
    mask = _lanes(free)
    right = jnp.where(mask, _lanes(gradient + slope), 0)
    moved = _unlaned(solved(gram, jnp.where(mask, _lanes(bend), 0), mask, -right), b)
    new = jnp.where(free, b + moved, 0)
    if any(p.kinked for p, _ in penalties):  # the minimum given the sign is not beyond 0
        new = jnp.where(jnp.sign(new) == jnp.sign(around), new, 0)
    moved = new - b
    bent = _unlaned(dot(gram, _lanes(moved)[..., None])[..., 0], b)
    change, rounding = _of_each(moved * (gradient + bent / 2)), 0.0
    for p, weight in penalties:
        before = weight * p.of_experts(b)
        change = change + (weight * p.of_experts(new) - before)
        rounding = rounding + 4 * jnp.finfo(b.dtype).eps * before  # of that difference, beside which the change may be small
    better = (change <= rounding).reshape(-1, *(1,) * (b.ndim - 1))
    return jnp.where(better, new, b), jnp.where(better, gradient + bent, gradient)


def _descended(b: jax.Array, quadratic: Quadratic, penalties: Terms, sweeps: int) -> jax.Array:
    """Rounds of block coordinate descent (Friedman, Hastie and Tibshirani 2010).

    A block is a column, or a penalty's group of columns. Each is brought to its optimum given the others, or, where it is
    coupled, to that of a majorant (Qin, Scheinberg and Goldfarb 2013): exact zeros, and never a step up.
    """
    p, blocks = b.shape[1], _blocks(b.shape[1], penalties)
    gram = _by_column(quadratic.gram)
    sizes = 1 / _curvatures(gram, blocks, penalties)
    member = np.array([[j in block for j in range(p)] for block in blocks])
    inside = jnp.asarray(member.reshape(len(blocks), 1, p, *(1,) * (b.ndim - 2)))
    single = len(blocks) == p
    rows = jnp.moveaxis(gram, 1, 0)  # of each column with all others, (p, K, p[, m])

    def step(carry: tuple[jax.Array, jax.Array], block: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
        b, gradient = carry
        here, row = block
        size = jnp.where(here, sizes, 0)
        new = jnp.where(here, _proximal(b - size * gradient, size, penalties), b)
        moved = new - b
        if single:
            bent = row * moved.sum(axis=1, keepdims=True)  # all of it is in one column
        else:
            bent = jnp.einsum("kij...,kj...->ki...", gram, moved, precision=_PRECISE)
        return (new, gradient + bent), None

    def sweep(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jax.lax.scan(step, carry, (inside, rows if single else None))[0]

    return jax.lax.fori_loop(0, sweeps, sweep, (b, quadratic.gradient))[0]


_ELIMINATED = 32  # unknowns, up to which elimination is faster
_CG_STEPS = 16
_SWEEPS = 5  # where there is no Newton step


def _proximal(b: jax.Array, size: jax.Array, penalties: Terms) -> jax.Array:
    """Proximal steps of all penalties, of a size for each coefficient."""
    for p, weight in penalties:
        b = p.prox([b], weight * size)[0]
    return b


def _smooth(b: jax.Array, penalties: Terms) -> tuple[jax.Array, jax.Array]:
    """Slope and diagonal curvature of the penalties at coefficients that are not 0."""
    slope, bend = jnp.zeros_like(b), jnp.zeros_like(b)
    for p, weight in penalties:
        slope = slope + weight * jax.grad(lambda c, p=p: p.value([c]))(b)
        bend = bend + weight * p.curvature(b)
    return slope, bend


def _curvatures(gram: jax.Array, blocks: list[list[int]], penalties: Terms) -> jax.Array:
    """A curvature for each coefficient, (K, p[, m]), that bounds its block's, and is the same over what is coupled."""
    p = gram.shape[1]
    together = np.zeros((p, p), gram.dtype)
    for block in blocks:
        together[np.ix_(block, block)] = 1
    h = (jnp.abs(gram) * together.reshape(1, p, p, *(1,) * (gram.ndim - 3))).sum(axis=2)  # a bound by Gershgorin
    # Where no row counts nothing moves, but penalties bring an expert that nobody uses to 0.
    h = jnp.maximum(h, jnp.finfo(h.dtype).tiny ** 0.5)
    for penalty, _ in penalties:
        h = penalty.majorant(h) if hasattr(penalty, "majorant") else h
    return h


def _blocks(p: int, penalties: Terms) -> list[list[int]]:
    """Columns that a penalty's groups hold together, and the others one by one."""
    groups = [list(group) for penalty, _ in penalties for group in getattr(penalty, "blocks", ())]
    held = {column for group in groups for column in group}
    return sorted(groups + [[j] for j in range(p) if j not in held])


def _by_column(gram: jax.Array) -> jax.Array:
    """Grams beside coefficients: (K, p, p), or (K, p, p, m)."""
    return gram if gram.ndim == 3 else jnp.moveaxis(gram, 1, -1)


def _lanes(b: jax.Array) -> jax.Array:
    """(K, p) as it is, (K, p, m) as (K m, p): a system for each."""
    return b if b.ndim == 2 else jnp.moveaxis(b, 1, 2).reshape(-1, b.shape[1])


def _unlaned(lanes: jax.Array, like: jax.Array) -> jax.Array:
    return lanes if like.ndim == 2 else jnp.moveaxis(lanes.reshape(like.shape[0], like.shape[2], like.shape[1]), 2, 1)


def _of_each(b: jax.Array) -> jax.Array:
    """Sums over all but the experts, (K,)."""
    return b.reshape(b.shape[0], -1).sum(axis=1)
