"""Linear predictors, as experts and gates compute them, their sums over rows, and the quadratic problem that fits them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from moejax import _checks
from moejax._ops import where

Terms = Sequence[tuple[Any, Any]]  # penalties, each with its weight

_PRECISE = jax.lax.Precision.HIGHEST
_ELIMINATED = 32  # unknowns, up to which elimination is faster
_CG_STEPS = 16
_SWEEPS = 30  # of coordinate descent at most
_SMALL = 1e-6  # of what a round of it moves, beside the largest one, squared


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product a @ b with all the digits that the arrays have.

    Accelerators by default keep fewer: an NVIDIA card's products of float32 have 11 bits, with which no fit comes to an
    optimum.
    """
    return jnp.matmul(a, b, precision=_PRECISE)


# ---- tables, and what linear predictors ask of them -----------------------------------------------------------------


class Table(NamedTuple):
    """Rows of a linear predictor. x: (n, p), p - 1 = d columns less `means` and one of ones. means: (d,), or None for 0.

    products: (n, P) of the pairs of columns, where they are kept, or None.
    """

    x: Float[Array, "n p"]
    means: Float[Array, " d"] | None = None
    products: Float[Array, "n P"] | None = None

    @property
    def columns(self) -> Float[Array, "n d"]:
        """The columns as they were given, (n, d)."""
        columns = self.x[:, :-1]
        return columns if self.means is None else columns + self.means


class Ask(NamedTuple):
    """What a part asks of the rows of its table: sums of products.

    weights: (A, n), of products of pairs of columns. pulls: (A2, n), of columns.
    """

    weights: Float[Array, "A n"]
    pulls: Float[Array, "A2 n"]


class Moments(NamedTuple):
    """Sums over rows, for x as in a `Table`: gram (A, p, p), of weight * x x'; pull (A2, p), of pull * x; means (d,)."""

    gram: Float[Array, "A p p"]
    pull: Float[Array, "A2 p"]
    means: Float[Array, " d"]

    def of_columns(self, seen: Float[Array, "A d"]) -> Moments:
        """Those of rows in which the columns that an expert does not see are 0. seen: (A, d) of 0 and 1."""
        seen = jnp.concatenate([seen, jnp.ones((len(seen), 1), seen.dtype)], axis=1)
        return Moments(seen[:, :, None] * self.gram * seen[:, None], seen * self.pull, self.means)


def with_intercept(x: Float[Array, "n d"]) -> Table:
    """The table of x (n, d), not centred: one product serves weights and intercept."""
    return table(x)


def table(x: Float[Array, "n d"], means: Float[Array, " d"] | None = None, products: bool = False) -> Table:
    """The table of x (n, d), less `means` (d,) where they are given, and with products of pairs of columns on request.

    Far from 0, sums of squares would lose the digits that matter.
    """
    if not hasattr(x, "ndim"):
        raise ValueError(
            f"x: a {type(x).__name__} was given to a part that sees a table; want its expert_columns or "
            "gate_columns to name one of the arrays in x"
        )
    _checks.shape("x", x, (None, None), "rows by features")
    x = x if means is None else x - means
    x = jnp.concatenate([x, jnp.ones((x.shape[0], 1), x.dtype)], axis=1)
    return Table(x, means, _products(x) if products else None)


def predictors(weights: Float[Array, "A d"], intercept: Float[Array, " A"], x: Table) -> Float[Array, "A n"]:
    """Linear predictors (A, n) of weights (A, d) and intercepts (A,)."""
    if x.means is not None:
        intercept = intercept + (weights * x.means).sum(axis=1)
    return dot(jnp.concatenate([weights, intercept[:, None]], axis=1), x.x.T)


def _products(x: Float[Array, "n p"]) -> Float[Array, "n P"]:
    """All products of two columns of x (n, p), (n, p (p + 1) / 2).

    Each column with the one k before it, for k = 0, 1, ... in turn: whole rows beside rows, which compile to long loops.
    """
    p = x.shape[1]
    twice = jnp.concatenate([x, x], axis=1)
    products = [x * twice[:, p - k : 2 * p - k] for k in range((p + 1) // 2)]
    if p % 2 == 0:  # half way round, every pair comes twice
        products.append(x[:, : p // 2] * x[:, p // 2 :])
    return jnp.concatenate(products, axis=1)


def _places(p: int) -> Int[np.ndarray, "p p"]:
    """Where among `_products` those of each two columns are, (p, p)."""
    i, j = np.indices((p, p))
    k = (i - j) % p
    places = np.where(2 * k < p, k * p + i, (p - k) * p + j)
    return np.where(2 * k == p, k * p + np.minimum(i, j), places).astype(np.int32)


def asked(rows: Table, asks: Sequence[Ask]) -> list[tuple[Float[Array, "A P"], Float[Array, "A2 p"]]]:
    """Of each ask the sums over rows: packed products of pairs (A, P) and columns (A2, p).

    One product of all weights with the pairs of columns serves every part, every expert and every member of a sweep.
    """
    weights = [ask.weights for ask in asks]
    pulls = [ask.pulls for ask in asks]
    products = _products(rows.x) if rows.products is None else rows.products
    packed = dot(_stacked(weights), products)
    pulled = dot(_stacked(pulls), rows.x) if sum(map(len, pulls)) else jnp.zeros((0, rows.x.shape[1]), rows.x.dtype)
    return list(zip(_parted(packed, weights), _parted(pulled, pulls), strict=True))


def unpacked(packed: Float[Array, "A P"], pull: Float[Array, "A2 p"], means: Float[Array, " d"]) -> Moments:
    """Moments of packed products (A, P)."""
    return Moments(packed[..., _places(len(means) + 1)], pull, means)


def _stacked(arrays: Sequence[jax.Array]) -> jax.Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays)


def _parted(stack: jax.Array, like: Sequence[jax.Array]) -> list[jax.Array]:
    ends = np.cumsum([len(v) for v in like])
    return [stack[end - len(v) : end] for v, end in zip(like, ends, strict=True)]


def diagonals(a: Float[Array, "*A p p"]) -> Float[Array, "*A p"]:
    """Of matrices (..., p, p), (..., p): a reduction, which becomes part of what comes after as a gather does not."""
    return where(np.eye(a.shape[-1], dtype=bool), a, 0).sum(axis=-1)


# ---- the quadratic problem ------------------------------------------------------------------------------------------


class Quadratic(NamedTuple):
    """Quadratics in A coefficient vectors of p numbers, the last an intercept: where they are, slope and curvature.

    b, gradient: (A, p). gram: (A, p, p). means: (A, d), d = p - 1, around which columns are centred.
    """

    b: Float[Array, "A p"]
    gradient: Float[Array, "A p"]
    gram: Float[Array, "A p p"]
    means: Float[Array, "A d"]


class Moved(NamedTuple):
    """Where a step led. b: (A, p). change: (A,), by how much the quadratic rose."""

    b: Float[Array, "A p"]
    change: Float[Array, " A"]


def quadratic_of(b: Float[Array, "A p"], moments: Moments) -> Quadratic:
    """The quadratics of coefficients (A, p), intercepts last, that have these moments."""
    means = jnp.broadcast_to(moments.means, (b.shape[0], b.shape[1] - 1))
    return Quadratic(b, moments.pull, moments.gram, means)


def coefficients_of(params: dict[str, Float[Array, "A ..."]], moments: Moments) -> Quadratic:
    """The quadratics of params with weights (A, d) and intercepts (A,)."""
    b = jnp.concatenate([params["weights"], params["intercept"][:, None]], axis=1)
    return quadratic_of(b, moments)


def quadratic_step(q: Quadratic, absolute: Float[Array, "A 1"] | None, square: Float[Array, "A 1"] | None) -> Moved:
    """The coefficients where quadratics plus penalties are lower, or the same.

    The penalties are absolute * sum |b| + square * sum b^2 over all but intercepts, (A, 1) each, None for none.
    """
    return quadratic_problem(q, lambda b, slope, gram: lowered(b, slope, gram, absolute, square))


def quadratic_problem(q: Quadratic, lower: Callable[..., tuple[Float[Array, "A d"], Float[Array, "A d"]]]) -> Moved:
    """Coefficients where quadratics are lower, by what lowers them once their intercepts are out of the way.

    lower: a function of coefficients (A, d), their slopes and grams (A, d, d), to new ones and the grams times their moves.
    Intercepts are eliminated exactly, which is to centre the columns at each problem's own rows.
    """
    share, cross, centres = _centre(q)
    slope = q.gradient[:, :-1] - centres * q.gradient[:, -1:]
    extra = _rounding(q)[..., None] * np.eye(cross.shape[1], dtype=cross.dtype)
    b = q.b[:, :-1]
    if not b.shape[1]:  # intercepts alone
        lower = _unchanged
    new, bent = lower(b, slope, q.gram[:, :-1, :-1] - centres[:, :, None] * cross[:, None] + extra)
    moved = new - b
    fall = share * q.gradient[:, -1:]
    change = (moved * (slope + bent / 2)).sum(axis=1) - 0.5 * (fall * q.gradient[:, -1:])[:, 0]
    intercept = q.b[:, -1:] - fall - ((q.means + centres) * moved).sum(axis=1, keepdims=True)
    return Moved(jnp.concatenate([new, intercept], axis=1), change)


def on_own_rows(q: Quadratic) -> tuple[Float[Array, "A p"], Float[Array, "A p"]]:
    """Slopes and curvatures of quadratics in coefficients of columns that are centred at each problem's own rows, (A, p)."""
    _, cross, centres = _centre(q)
    slope = q.gradient[:, :-1] - centres * q.gradient[:, -1:]
    bend = diagonals(q.gram)[:, :-1] - centres * cross + _rounding(q)
    return jnp.concatenate([slope, q.gradient[:, -1:]], axis=1), jnp.concatenate([bend, q.gram[:, -1, -1:]], axis=1)


def _centre(q: Quadratic) -> tuple[jax.Array, jax.Array, jax.Array]:
    """1 over the weight of each problem's rows, (A, 1); sums and means of its columns, (A, d)."""
    size, cross = q.gram[:, -1, -1:], q.gram[:, :-1, -1]
    there = size > jnp.finfo(size.dtype).eps * size.max()  # an expert without rows stays where it is
    share = where(there, 1 / where(there, size, 1.0), 0.0)
    return share, cross, cross * share


def _rounding(q: Quadratic) -> jax.Array:
    """What is to be added, (A, d), so that the rounding of a difference does not pass for a curvature below 0."""
    size = q.gram[:, -1, -1:]
    squares = diagonals(q.gram)[:, :-1] + size * jnp.square(q.means)
    return squares * (8 * q.gram.shape[-1] * float(jnp.finfo(size.dtype).eps))


def _unchanged(b: jax.Array, slope: jax.Array, gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Coefficients as they are, and the gram times no move."""
    return b, jnp.zeros_like(b)


def lowered(
    b: Float[Array, "A d"],
    slope: Float[Array, "A d"],
    gram: Float[Array, "A d d"],
    absolute: Float[Array, "A 1"] | None,
    square: Float[Array, "A 1"] | None,
) -> tuple[Float[Array, "A d"], Float[Array, "A d"]]:
    """New coefficients (A, d), and the gram times their move."""
    ridge = 0.0 if square is None else 2 * square
    if absolute is not None:
        return _descended(b, slope, gram, absolute, ridge)
    moved = solved(gram, diagonals(gram), ridge, jnp.ones_like(b, bool), -(slope + ridge * b))
    return b + moved, dot(gram, moved[..., None])[..., 0]


def _descended(b: jax.Array, slope: jax.Array, gram: jax.Array, absolute: Any, ridge: Any) -> tuple[jax.Array, jax.Array]:
    """Coordinate descent from b (Friedman, Hastie and Tibshirani 2010), until rounding or for so many rounds.

    With the intercept out of the way its minimum in one coordinate is a soft threshold: exact zeros, and never a step up.
    """
    d = b.shape[1]
    curved = diagonals(gram) + ridge
    inverse = where(curved > 0, 1 / where(curved > 0, curved, 1), 0)

    def sweep(carry: Any) -> Any:
        number, old, bent, largest, _ = carry  # bent: slope + gram @ (old - b)
        aims = (curved - ridge) * old

        def coordinate(bent: jax.Array, j: Any) -> tuple[jax.Array, jax.Array]:
            row, here, own, scale, at = (
                jax.lax.dynamic_slice_in_dim(v, j, 1, axis=1) for v in (gram, old, aims, inverse, bent)
            )
            aim = own - at
            move = (aim - jnp.clip(aim, -absolute, absolute)) * scale - here
            return bent + move * row[:, 0], move[:, 0]

        # What moved comes out beside what is carried: a number that is read and then written is copied at every step.
        bent, moves = jax.lax.scan(coordinate, bent, np.arange(d, dtype=np.int32))
        moved = (curved * jnp.square(moves.T)).max(initial=0)
        return number + 1, old + moves.T, bent, jnp.maximum(largest, moved), moved

    # Until a round moves by rounding alone, or next to nothing beside the largest one: the next M-step goes on from here.
    zero = jnp.zeros((), b.dtype)
    rounding = (8 * float(jnp.finfo(b.dtype).eps)) ** 2 / _SMALL * (curved * jnp.square(b)).max(initial=0)
    _, new, bent, *_ = jax.lax.while_loop(
        lambda c: (c[0] == 0) | ((c[0] < _SWEEPS) & (c[4] > _SMALL * c[3])),
        sweep,
        (jnp.zeros((), jnp.int32), b, slope, rounding, zero),
    )
    return new, bent - slope


def collinear(gram: Float[Array, "A p p"], used: Bool[Array, "A p"]) -> Bool[Array, " A"]:
    """Whether the used columns of each problem are linearly dependent by weight, (A,), by Gaussian elimination.

    gram: (A, p, p). used: (A, p); the last column, the intercept's, always counts as used.
    """
    p = gram.shape[1]
    inverse = jax.lax.rsqrt(jnp.maximum(diagonals(gram), jnp.finfo(gram.dtype).tiny))
    scale = where(used | (np.arange(p) == p - 1), inverse, 0.0)
    system = gram * scale[:, :, None] * scale[:, None]
    system = system + where(scale > 0, 0.0, 1.0).astype(gram.dtype)[..., None] * np.eye(p, dtype=gram.dtype)

    def step(j: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        a, least = carry  # the Schur complement of the unknowns so far
        row = jax.lax.dynamic_slice(a, (0, j, 0), (len(a), 1, p))
        pivot = jax.lax.dynamic_slice(row, (0, 0, j), (len(a), 1, 1))
        share = where(pivot > 0, 1 / pivot, 0.0)
        return a - jnp.swapaxes(row, 1, 2) * row * share, jnp.minimum(least, pivot[:, 0, 0])

    least: jax.Array = jax.lax.fori_loop(0, p, step, (system, jnp.ones(len(gram), gram.dtype)))[1]
    dependent = least < 10 * p * float(jnp.finfo(gram.dtype).eps)
    return dependent & (gram[:, -1, -1] > 0)  # no rows, no columns


def solved(
    gram: Float[Array, "A d d"],
    diagonal: Float[Array, "A d"],
    ridge: Float[Array, "A d"] | Float[Array, "A 1"] | float,
    free: Bool[Array, "A d"],
    right: Float[Array, "A d"],
) -> Float[Array, "A d"]:
    """Solutions (A, d) of (gram + ridge) v = right among the free unknowns, the others 0.

    By elimination for a few unknowns, and nearly by conjugate gradients for many; an unknown that hangs on others stays 0.
    The programs of a sweep run beside each other in threads, where LAPACK's routines in XLA have been seen to wait for each
    other for ever; these need none, and serve all systems of a chunk at once.
    """
    if not right.shape[1]:
        return right
    return (_eliminated if right.shape[1] <= _ELIMINATED else _conjugate_gradients)(gram, diagonal, ridge, free, right)


def _eliminated(gram: jax.Array, diagonal: jax.Array, ridge: Any, free: jax.Array, right: jax.Array) -> jax.Array:
    d = right.shape[1]
    least = 10 * d * jnp.finfo(gram.dtype).eps * (diagonal + ridge)
    identity = np.eye(d, dtype=gram.dtype)
    system = where(free[:, :, None] & free[:, None], gram + jnp.broadcast_to(ridge, right.shape)[..., None] * identity, 0)
    system = system + where(free, 0, 1)[..., None] * identity
    least = where(free, least, 0)

    def step(j: jax.Array, a: jax.Array) -> jax.Array:
        row = jax.lax.dynamic_slice(a, (0, j, 0), (len(a), 1, d + 1))
        pivot = jax.lax.dynamic_slice(row, (0, 0, j), (len(a), 1, 1))
        there = pivot > jax.lax.dynamic_slice(least, (0, j), (len(a), 1))[..., None]
        unit = where(there, row / where(there, pivot, 1.0), 0.0)
        column = jax.lax.dynamic_slice(a, (0, 0, j), (len(a), d, 1))
        # The row itself is set and not subtracted from, for a large pivot would cost its digits. Without a pivot the unknown
        # is left out: its row becomes 0, and so does its solution.
        return where((np.arange(d) == j)[:, None], unit, a - column * unit)

    reduced = jax.lax.fori_loop(0, d, step, jnp.concatenate([system, right[..., None]], axis=2))
    return where(free, reduced[..., -1], 0.0)


def _conjugate_gradients(gram: jax.Array, diagonal: jax.Array, ridge: Any, free: jax.Array, right: jax.Array) -> jax.Array:
    diagonal = diagonal + ridge
    scale = where(free & (diagonal > 0), 1 / where(diagonal > 0, diagonal, 1), 0)  # Jacobi's preconditioner

    def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
        return where(b > 0, a / where(b > 0, b, 1), 0)

    def step(_: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        v, rest, along, length = carry
        bent = where(free, (gram * along[:, None]).sum(axis=2) + ridge * along, 0)
        size = ratio(length, (along * bent).sum(axis=1))[:, None]
        v, rest = v + size * along, rest - size * bent
        scaled = scale * rest
        new_length = (rest * scaled).sum(axis=1)
        return v, rest, scaled + ratio(new_length, length)[:, None] * along, new_length

    begin = (jnp.zeros_like(right), right, scale * right, (right * scale * right).sum(axis=1))
    solution: jax.Array = jax.lax.fori_loop(0, min(right.shape[1], _CG_STEPS), step, begin)[0]
    return solution
