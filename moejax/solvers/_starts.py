"""Starts of EM: responsibilities (K, n) drawn from a key, before any model has been fitted.

Each kind is nearly equal shares, or a clustering by k-means, of the inputs or of what a regression leaves. Draws depend on
the key and on what a row holds alone: neither the order of rows, nor rows of weight 0, nor a weight of 2 in the place of two
equal rows changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._linear import diagonals, dot, solved
from moejax._ops import where
from moejax._rows import Block, Rows
from moejax.model import is_table

EQUAL = "equal"
KINDS = ("random", "tilted", "kmeans", "centres", "residuals", EQUAL)
MIXED = ("tilted", "random", "centres")  # in the order of restarts
WIDE = ("random",)  # of many columns beside the rows, where no row is near to another
BY_INPUTS = ("kmeans", "centres")  # of a gate that models the inputs, whose densities random shares leave alike
_SOFTNESS = 0.1  # of responsibilities by cluster: shared by all experts, so that no gate begins separated
_SPREAD = 0.8  # of the logarithms of nearly equal responsibilities: about those of a Dirichlet distribution of parameters 20
_TILT, _LITTLE = 0.1, 0.3  # of the same, of a target that is a standard deviation above its mean, and then of the rest
_UNEVEN = 1.7  # the largest logarithm of a column's weight, of standard deviation 1
_OTHERS = 0.2  # how much the columns that a kind does not cluster count in later rounds
_LLOYD_STEPS = {"kmeans": 2, "residuals": 2, "centres": 0}  # of clusters, which need not be the best ones to begin with
_GOLDEN, _ODD = np.uint32(0x9E3779B9), np.uint32(0x01000193)
_LIGHT = 1e-3  # of the largest weight, below which a row is less likely to be a centre
_MANY, _FEW = 20, 10  # columns of a wide table at least, and rows for each of them at most
_SAMPLE = 4096  # rows at most in which clusters are looked for


def draw(
    init: str,
    number: jax.Array | None,
    key: jax.Array,
    rows: Rows,
    see: Callable[[Any], Any],
    active: jax.Array,
    alike: bool = True,
    by_inputs: bool = False,
) -> jax.Array:
    """Responsibilities (B, K, m) of the kind `init`, or for "mixed" of the kind whose turn it is at that number of a start.

    number: None for a start that has no other beside it, number 0, whose program then has its own kind alone.

    random: nearly equal for all experts. tilted: the same, but that each expert has a little more of high targets, or of low
    ones, so that experts of all levels of a factor part to the same side. kmeans: clusters of x. residuals: clusters of what
    one linear regression of y on x leaves unexplained. centres: each row to the nearest of K rows. equal: the same for all
    experts.

    see: what there is to cluster of x: a table (n, d), or inputs that are no table, which have no clusters. Rows of weight 0
    take no part. active: (K,), which experts there are. by_inputs: whether the gate models the inputs. alike: whether
    nothing but a start tells experts apart; where they differ by themselves, number 0 of "random" is equal, and equal is the
    first of "mixed".
    """
    kinds = _turns(init, see(rows.first.x), rows.size, alike, by_inputs)
    if number is None:
        kinds, number = kinds[:1], jnp.zeros((), jnp.int32)
    turn, dtype = number % len(kinds), rows.blocks.y.dtype

    def own(**of: float) -> Any:
        """A number by kind, 0 for others, of the kind whose turn it is."""
        sizes = [of.get(kind, 0.0) for kind in kinds]
        return sizes[0] if len(set(sizes)) == 1 else jnp.asarray(sizes, dtype)[turn]

    spread = own(random=_SPREAD, tilted=_LITTLE)
    if init == "random" and not alike:
        spread = where(number == 0, 0.0, jnp.asarray(spread, dtype))

    noise = _noise(key, number, len(active), rows, dtype)
    logs = spread * noise
    if "tilted" in kinds:
        sides = own(tilted=_TILT) * _sides(key, number, len(active), dtype)
        logs = logs + sides[:, None] * _standardized_target(rows)[:, None]
    even: jax.Array = jax.nn.softmax(where(active[:, None], logs, -jnp.inf), axis=-2)
    if not set(kinds) & set(_LLOYD_STEPS):
        return even
    near = _clusters(kinds, number, key, noise, rows, see, active)
    hard = own(**dict.fromkeys(_LLOYD_STEPS, 1 - _SOFTNESS))
    mixed: jax.Array = even + hard * (near - even)
    return mixed


def _sides(key: jax.Array, number: jax.Array, n_experts: int, dtype: Any) -> jax.Array:
    """Uniform numbers of standard deviation 1, (K,)."""
    return 12**0.5 * (_uniform(_seed(key, number, 3), np.arange(n_experts, dtype=np.uint32), dtype) - 0.5)


def _standardized_target(rows: Rows) -> jax.Array:
    """The target less its mean, over its standard deviation, none beyond 2; a mean over outputs: (B, m)."""
    y = rows.blocks.y.reshape(*rows.blocks.weights.shape, -1)
    weights = rows.blocks.weights[..., None] / rows.blocks.weights.sum()
    apart = y - (weights * y).sum(axis=(0, 1))
    sd = jnp.sqrt((weights * jnp.square(apart)).sum(axis=(0, 1)))
    return jnp.clip(apart / where(sd > 0, sd, 1.0), -2, 2).mean(axis=2)


def _clusters(
    kinds: tuple[str, ...], number: jax.Array, key: jax.Array, noise: jax.Array, rows: Rows, see: Any, active: jax.Array
) -> jax.Array:
    """1 for the cluster of each row and 0 for the others, (B, K, m)."""
    sample, turn, dtype = _sample(rows), number % len(kinds), rows.blocks.y.dtype
    features, widths = _features(sample, see if is_table(see(rows.first.x)) else None, "residuals" in kinds)
    wanted = {"residuals": (0, 1)}
    masks = np.stack([np.repeat(wanted.get(kind, (1, 0)), widths) for kind in kinds]).astype(dtype)
    mask = jnp.asarray(masks)[turn] if (masks != masks[0]).any() else masks[0]
    # The same clusters would come out again and again: from the second round on, every column has a weight of its own.
    drawn = jnp.exp(_UNEVEN * (2 * _uniform(_seed(key, number, 2), np.arange(sum(widths)), dtype) - 1))
    scale = where(number < len(kinds), mask, (mask + _OTHERS) * drawn)
    rounds = [_LLOYD_STEPS[kind] for kind in kinds if kind in _LLOYD_STEPS]
    steps = rounds[0] if len(set(rounds)) == 1 else jnp.asarray([_LLOYD_STEPS.get(kind, 0) for kind in kinds])[turn]
    columns = features(sample) * scale[:, None]
    race = noise[:, 0, : columns.shape[1] // rows.n_blocks].reshape(-1)  # those of the sample
    centres = _centres(race, columns, sample.weights, active, steps)
    if rows.n_blocks == 1:
        return _nearest(columns, centres, active)[None]
    members: jax.Array = rows.map(lambda block: _nearest(features(block) * scale[:, None], centres, active))
    return members


def _sample(rows: Rows) -> Block:
    """All rows of one block; of many blocks some rows of each."""
    if rows.n_blocks == 1:
        return rows.first
    each = max(1, _SAMPLE // rows.n_blocks)
    taken = rows.blocks._replace(division=None, leader=None)
    some = jax.vmap(lambda stored: jax.tree.map(lambda v: v[:each], rows.block(stored)))(taken)
    block: Block = jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), some)
    return block


def _noise(key: jax.Array, number: jax.Array, n_experts: int, rows: Rows, dtype: Any) -> jax.Array:
    """Uniform numbers (B, K, m). Those of a row depend on the key and on what the row holds alone."""
    experts = np.arange(n_experts, dtype=np.uint32)[:, None] * _ODD
    return _uniform(_seed(key, number, 0), _contents(rows)[:, None] + experts, dtype)


def _contents(rows: Rows) -> jax.Array:
    """A whole number of 32 bits for each row (B, m), of what it holds of x and y, in the digits of float32.

    So a row of weight 2 starts as two equal rows do, in whatever order rows come.
    """
    shape = rows.blocks.weights.shape

    def by_column(leaf: jax.Array) -> jax.Array:
        """An array of n leading, (B, m, ...), as (B, c, m), as tables of x are stored."""
        return jnp.swapaxes(leaf.reshape(*shape, -1), 1, 2)

    x = [leaf if leaf.ndim == 3 else by_column(leaf) for leaf in jax.tree.leaves(rows.blocks.x)]
    columns = jnp.concatenate([by_column(rows.blocks.y), *x], axis=1).astype(jnp.float32)
    words = jax.lax.bitcast_convert_type(where(columns == 0, 0.0, columns), jnp.uint32)  # of -0.0 too
    places = np.arange(columns.shape[1], dtype=np.uint32)[:, None] * _GOLDEN
    return _mixed(words * _ODD + places).sum(axis=1, dtype=jnp.uint32)


def _seed(key: jax.Array, number: jax.Array, stream: int) -> jax.Array:
    """A whole number of 32 bits for each key, number of a start and stream."""
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    words = jnp.concatenate([data.reshape(-1), number.astype(jnp.uint32).reshape(1)])
    places = np.arange(1, len(words) + 1, dtype=np.uint32) + np.uint32(len(words) * stream)
    return jax.lax.reduce_xor(_mixed(words + places * _GOLDEN), (0,))


def _uniform(seed: jax.Array, counter: Any, dtype: Any) -> jax.Array:
    """Uniform numbers, at least 0 and below 1, of the shape of a counter.

    They are hashes of it (the finalizer of MurmurHash3, Appleby 2011, of steps of the golden ratio, as in Steele, Lea and
    Flood 2014), for to tell experts apart takes no more: those of `jax.random` are several times as much to compile, and
    depend on how many there are.
    """
    words = _mixed(_mixed(jnp.asarray(counter, jnp.uint32) * _GOLDEN + seed))
    return (words >> 8).astype(dtype) * 2.0**-24


def _mixed(words: jax.Array) -> jax.Array:
    """Whole numbers of 32 bits, each made into another one that shows nothing of it."""
    words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def _features(sample: Block, see: Callable[[Any], Any] | None, left: bool) -> tuple[Callable[[Block], jax.Array], list[int]]:
    """Columns to cluster by, standardised in the sample, (d + m, n), those of x and of y; and d and m.

    left: whether what a regression on x leaves of y takes its place.
    """
    weights = sample.weights / jnp.maximum(sample.weights.sum(), jnp.finfo(sample.weights.dtype).tiny)

    def seen(block: Block) -> jax.Array:
        return jnp.zeros((len(block.weights), 0), block.y.dtype) if see is None else see(block.x).astype(block.y.dtype)

    def targets(block: Block) -> jax.Array:
        return block.y.reshape(len(block.weights), -1)

    def known(block: Block) -> jax.Array:
        table = seen(block)
        if block.offset is None or not left:
            return table
        return jnp.concatenate([table, block.offset.reshape(len(table), -1)], axis=1)

    rows = jnp.concatenate([known(sample), targets(sample)], axis=1)
    centre = dot(weights, rows)
    off = rows - centre
    sd = jnp.sqrt(dot(weights, jnp.square(off)))
    inverse = where(sd > 0, 1 / where(sd > 0, sd, 1), 0)
    p, d, m = known(sample).shape[1], seen(sample).shape[1], targets(sample).shape[1]
    rest = _left(off * inverse, weights, p) if left else None

    def features(block: Block) -> jax.Array:
        columns = (jnp.concatenate([known(block), targets(block)], axis=1) - centre) * inverse
        own = columns[:, p:] if rest is None else dot(columns, rest)
        return jnp.concatenate([columns[:, :d], own], axis=1).T

    return features, [d, m]


def _left(columns: jax.Array, weights: jax.Array, p: int) -> jax.Array:
    """The combinations (p + m, m) of columns that are what regressions of the last m on the first p leave, standardised."""
    gram = dot(columns.T * weights, columns)
    right = gram[p:, :p]
    grams = jnp.broadcast_to(gram[:p, :p], (len(right), p, p))
    slopes = solved(grams, diagonals(grams), 0.0, jnp.ones(right.shape, bool), right)
    variance = diagonals(gram)[p:] - (slopes * right).sum(axis=1)
    tiny = jnp.finfo(variance.dtype).tiny
    scale = where(variance > 10 * jnp.finfo(variance.dtype).eps, 1 / jnp.sqrt(jnp.maximum(variance, tiny)), 0)
    return jnp.concatenate([-slopes, jnp.eye(len(right), dtype=slopes.dtype)], axis=1).T * scale


def kmeans(key: jax.Array, x: jax.Array, weights: jax.Array, active: jax.Array, steps: Any = 10) -> jax.Array:
    """Clusters of the rows of x (n, d) by k-means (Lloyd 1982): 1 for the cluster of each row and 0 for others, (K, n).

    Seeded by k-means++ (Arthur and Vassilvitskii 2007). steps: rounds.
    """
    columns = x.astype(weights.dtype).T
    centres = _centres(jax.random.uniform(key, weights.shape, weights.dtype), columns, weights, active, steps)
    return _nearest(columns, centres, active)


def _centres(noise: jax.Array, columns: jax.Array, weights: jax.Array, active: jax.Array, steps: Any) -> jax.Array:
    """Centres (K, d) of columns (d, n). noise: uniform, (n,)."""

    def step(_: Any, centres: jax.Array) -> jax.Array:
        member = _nearest(columns, centres, active) * weights
        size = member.sum(axis=1, keepdims=True)
        return where(size > 0, dot(member, columns.T) / where(size > 0, size, 1), centres)

    seeds = _seeds(noise, columns, weights, len(active))
    if isinstance(steps, int) and steps == 0:
        return seeds
    last: jax.Array = jax.lax.fori_loop(0, steps, step, seeds)
    return last


def _seeds(noise: jax.Array, columns: jax.Array, weights: jax.Array, n_experts: int) -> jax.Array:
    """Rows (K, d) of columns (d, n), drawn one after another in proportion to their squared distance from those before.

    A row wins by its distance over an exponential number of its own, which serves all draws. Its weight does not count,
    unless it is next to nothing beside others: a row of weight 2 is as likely as two equal rows, which have one number.
    """
    heavy = jnp.minimum(weights / (_LIGHT * weights.max()), 1)
    chance = heavy / (jnp.finfo(noise.dtype).tiny - jnp.log1p(-noise))

    def step(nearest: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        # Where all rows are taken, any of positive weight.
        row = columns[:, (chance * where((nearest > 0).any(), nearest, 1)).argmax()]
        return jnp.minimum(nearest, jnp.square(columns - row[:, None]).sum(axis=0)), row

    return jax.lax.scan(step, jnp.ones_like(weights), length=n_experts)[1]


def _turns(init: str, seen: Any, n: int, alike: bool, by_inputs: bool) -> tuple[str, ...]:
    """The kinds whose turn comes one after another. seen: what there is to cluster, of n rows in all."""
    if init != "mixed":
        return (init,)
    if not _has_columns(seen):
        kinds: tuple[str, ...] = ("tilted", "residuals")
    elif by_inputs:
        kinds = BY_INPUTS
    else:
        kinds = WIDE if seen.shape[1] >= max(_MANY, n / _FEW) else MIXED
    return kinds if alike else (EQUAL, *kinds)


def _has_columns(x: Any) -> bool:
    """Whether inputs are a table with columns, which have clusters."""
    return is_table(x) and np.shape(x)[1] > 0


def residuals(x: jax.Array, y: jax.Array, weights: jax.Array) -> jax.Array:
    """What a linear regression of y on x (n, d) leaves, (n, m)."""
    rest = y.reshape(len(weights), -1)
    rows = jnp.concatenate([x, jnp.ones((len(weights), 1), x.dtype)], axis=1)
    gram = dot(rows.T * weights, rows)
    right = dot(rows.T * weights, rest).T
    grams = jnp.broadcast_to(gram, (len(right), *gram.shape))
    return rest - dot(rows, solved(grams, diagonals(grams), 0.0, jnp.ones(right.shape, bool), right).T)


def standardized(x: jax.Array, weights: jax.Array) -> jax.Array:
    """Columns of x (n, d) of weighted mean 0 and standard deviation 1, or 0 where they are constant."""
    total = weights.sum()
    mean = dot(weights, x) / total
    sd = jnp.sqrt(dot(weights, jnp.square(x - mean)) / total)
    return (x - mean) / where(sd > 0, sd, 1)


def _nearest(columns: jax.Array, centres: jax.Array, active: jax.Array) -> jax.Array:
    """1 for the nearest of the active centres, 0 for the others, (K, n), for rows that are given by columns (d, n)."""
    distances = jnp.square(centres).sum(axis=1)[:, None] - 2 * dot(centres, columns)  # but for what all have in common
    distances = where(active[:, None], distances, jnp.inf)
    return (distances.argmin(axis=0) == np.arange(len(active))[:, None]).astype(columns.dtype)


def shared_out(given: jax.Array, active: jax.Array) -> jax.Array:
    """Responsibilities (..., K, m) of the experts that take part, who share the rows of the others alike."""
    r = where(active[:, None], given, 0.0)
    total = r.sum(axis=-2, keepdims=True)
    return where(total > 0, r / where(total > 0, total, 1.0), (active / active.sum()).astype(r.dtype)[:, None])


def shared_rows(given: Any, active: jax.Array, leader: jax.Array | None, dtype: Any) -> jax.Array:
    """Responsibilities (n, K) as losses want them, (K, n): of the experts that take part, one for all rows of a group."""
    r = shared_out(jnp.asarray(given, dtype).T, active)
    return r if leader is None else r[:, leader]


def check_name(init: Any) -> None:
    """Raise ValueError unless init names a kind of start."""
    _checks.choice("init", init, [*KINDS, "mixed"])


def check_init(init: str, x: Any) -> None:
    """Raise ValueError for clusters of inputs that are no table, or one without columns."""
    if init in ("kmeans", "centres") and not _has_columns(x):
        raise ValueError(
            f"init: {init!r} was given for inputs that are no array (n, d) of columns; want 'residuals' or 'random'"
        )


def check_responsibilities(name: str, given: Any, n: int, n_experts: int) -> None:
    """Raise ValueError unless given is (n, K), none below 0, of sum 1 over experts (to 1e-4)."""
    _checks.shape(name, given, (n, n_experts), "responsibilities, rows by experts")
    _checks.not_negative(name, given)
    if not _checks.is_traced(given):
        sums = np.asarray(given, float).sum(axis=1)
        wrong = np.abs(sums - 1) > 1e-4
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"{name}: responsibilities of row {row} sum to {sums[row]:.6g}; want 1")


def check_distinct(x: Any, y: Any, n_experts: int) -> None:
    """Raise ValueError for more experts than distinct rows of x and y."""
    leaves = [*jax.tree.leaves(x), y]
    if any(_checks.is_traced(leaf) for leaf in leaves):
        return
    if any(len(np.unique(np.asarray(y)[:most])) >= n_experts for most in (n_experts, 1000)):
        return
    for most in (1000, None):  # the first rows nearly always suffice
        rows = np.concatenate([np.asarray(v)[:most].reshape(len(np.asarray(v)[:most]), -1) for v in leaves], axis=1)
        distinct = len(np.unique(rows, axis=0))
        if distinct >= n_experts:
            return
    raise ValueError(f"n_experts: {n_experts} experts were given for {distinct} distinct rows; want at most one for each")
