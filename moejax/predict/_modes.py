"""Modes of a mixture of one target: a search along the line that misses no mode.

p(y | x) rises below the lowest of the experts' modes and falls above the highest. All its modes therefore lie between these
two. The search goes from the lowest to the highest in steps. A step is accepted if it provably contains no mode, or if it is
too short for a mode that matters.

Notes
-----
Let r_k be the responsibilities and s_k the slopes of log f_k. The slope of log p is S = sum over k of r_k s_k, and

    dS = sum over k of r_k ds_k + (sum over k of r_k s_k^2 - S^2) dy,  where the second term is at least 0.

(As y grows, responsibility moves to the experts that rise faster. The same holds for counts with
s_k = f_k(y + 1) / f_k(y) - 1.) Between a and b the slope therefore falls by at most
F = sum over k of max r_k * (s_k(a) - s_k(b)). If S(a) > F, p rises on the whole step. If S(b) < -F, p falls on the whole
step. A mode that is missed inside a step is higher than the valley beside it by a factor of at most exp(F (b - a)). Each
expert is unimodal, so its values at a, at b and at its mode bound r_k.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax.families import Family

_SLOTS = 2  # slots for each expert: a mixture of K Cauchy densities is a ratio of polynomials and has at most 2 K - 1 modes


class Mixture(NamedTuple):
    """p(y | x) for n rows, or for several copies of each row.

    Attributes
    ----------
    family : family
        The family of the experts.
    eta : jax.Array, (K, n) or (K, n, m)
        Linear predictors.
    phi : pytree
        Parameters of the family.
    log_gate : jax.Array, (K, n)
        Logarithms of the gate probabilities.
    """

    family: Family
    eta: jax.Array  # (K, n) or (K, n, m)
    phi: Any
    log_gate: jax.Array  # (K, n)

    def log_joint(self, y: jax.Array) -> jax.Array:
        """Return log p(expert, y | x).

        Parameters
        ----------
        y : jax.Array, (n,)
            One target for each row.

        Returns
        -------
        jax.Array, (K, n)
            Log joint densities.
        """
        return self.log_gate + self.family.log_prob(y, self.eta, self.phi)


class _Line(NamedTuple):
    """The interval of the search for each row, low to high, (n,).

    modes: the modes of the experts, (K, n). tops: the log joint density of each expert at its mode, (K, n).
    """

    modes: jax.Array  # (K, n)
    tops: jax.Array
    low: jax.Array
    high: jax.Array


class _Place(NamedTuple):
    """Values of the mixture at one position of each row, (n,)."""

    at: jax.Array
    log_joint: jax.Array  # (K, n)
    rises: jax.Array  # (K, n), slopes of log f of each expert
    slope: jax.Array  # slope of log p
    log_density: jax.Array


class _Walk(NamedTuple):
    """The state of the search for each row.

    here: the position up to which the modes are known. step: the next step. number: the number of modes passed, (n,).
    up: whether p has risen since the last of these modes. extreme: if up, the highest log density at a turn since then;
    otherwise the lowest log density since then. low, high: (slots, n), intervals that contain the modes passed and, if up,
    the current turn.
    """

    here: _Place
    step: jax.Array
    number: jax.Array
    up: jax.Array
    extreme: jax.Array
    low: jax.Array
    high: jax.Array


def find(mixture: Mixture) -> tuple[jax.Array, jax.Array]:
    """Find the modes of each row and their log densities.

    Parameters
    ----------
    mixture : Mixture
        The mixture, with one target.

    Returns
    -------
    at : jax.Array, (slots, n)
        Modes of each row in ascending order; NaN in the slots that are not used.
    log_density : jax.Array, (slots, n)
        Their log densities; NaN likewise.
    """
    line = _line(mixture)
    walk = jax.lax.while_loop(
        lambda walk: (walk.here.at < line.high).any(),
        lambda walk: _stepped(mixture, line, walk),
        _begun(mixture, line),
    )
    found = _number(walk.low) < walk.number + walk.up
    at = jnp.where(found, _target(mixture, _narrowed(mixture, walk.low, walk.high)), jnp.nan)
    log_density = jax.vmap(lambda y: jax.nn.logsumexp(mixture.log_joint(y), axis=0))(at)
    return jnp.where(jnp.isnan(log_density), jnp.nan, at), log_density  # NaN where the parameters are NaN


def _number(slots: jax.Array) -> jax.Array:
    """Return the number of each slot, (slots, 1)."""
    return jnp.arange(len(slots))[:, None]


# ---- positions: the target itself for real targets and counts, its logarithm for positive targets --------------------


def _target(mixture: Mixture, place: jax.Array) -> jax.Array:
    """Return the target at a position: the position itself, or its exponential for positive targets."""
    if mixture.family.support != "positive":
        return place
    return jnp.maximum(jnp.exp(place), jnp.finfo(place.dtype).tiny)


def _line(mixture: Mixture) -> _Line:
    """Return the interval of the search, from the lowest to the highest mode of the experts."""
    modes = mixture.family.mode(mixture.eta, mixture.phi)
    tops = jnp.diagonal(jax.vmap(mixture.log_joint)(modes)).T
    modes = jnp.log(modes) if mixture.family.support == "positive" else modes
    active = jnp.exp(mixture.log_gate) > 0
    low = jnp.where(active, modes, jnp.inf).min(axis=0)
    return _Line(modes, tops, low, jnp.where(active, modes, -jnp.inf).max(axis=0))


def _seen(mixture: Mixture, at: jax.Array) -> _Place:
    """Evaluate the mixture at one position of each row."""
    y = _target(mixture, at)
    log_joint, rises = mixture.log_joint(y), mixture.family.rise(y, mixture.eta, mixture.phi)
    log_density = jax.nn.logsumexp(log_joint, axis=0)
    return _Place(at, log_joint, rises, _weighed(jnp.exp(log_joint - log_density), rises), log_density)


def _share(dtype: Any) -> float:
    """Return the least difference in log density between a mode and the valley beside it; a smaller one may be rounding."""
    share: float = max(1e-6, float(jnp.finfo(dtype).eps) ** 0.5)
    return share


def _weighed(share: jax.Array, values: jax.Array) -> jax.Array:
    """Return sums over experts, (n,), without the values of experts of share 0, which may have overflowed."""
    return jnp.where(share > 0, share * values, 0).sum(axis=0)


# ---- the search ------------------------------------------------------------------------------------------------------


def _begun(mixture: Mixture, line: _Line) -> _Walk:
    """Return the state of the search at the lowest mode of the experts."""
    here = _seen(mixture, line.low)
    slots = jnp.broadcast_to(line.low, (_SLOTS * len(line.modes), *line.low.shape))
    number = jnp.zeros(line.low.shape, int)
    extreme = jnp.where(here.slope > 0, -jnp.inf, here.log_density)  # if p does not rise here, this may be a mode
    return _Walk(here, line.high - line.low, number, number == 0, extreme, slots, slots)


def _stepped(mixture: Mixture, line: _Line, walk: _Walk) -> _Walk:
    """Go on by `step` if no mode is missed, and double the step if that is proved; otherwise halve the step."""
    here = walk.here
    whole = mixture.family.support == "counts"
    eps = float(jnp.finfo(here.at.dtype).eps)
    grain = 4 * eps * jnp.maximum(jnp.abs(here.at), eps * (line.high - line.low))  # the least step
    grain = jnp.maximum(grain, 1) if whole else grain
    at = here.at + jnp.maximum(walk.step, grain)
    next_place = _seen(mixture, jnp.minimum(jnp.floor(at) if whole else at, line.high))
    step, fall = next_place.at - here.at, _fall(mixture, line, here, next_place)
    known = (here.slope > fall) | (next_place.slope < -fall)
    short = ~(fall * step > _share(here.at.dtype)) | (step <= grain)
    on = _arrived(line, walk, next_place)._replace(step=jnp.where(known, 2 * step, step))
    after: _Walk = jax.tree.map(partial(jnp.where, known | short), on, walk._replace(step=step / 2))
    return after


def _fall(mixture: Mixture, line: _Line, here: _Place, next_place: _Place) -> jax.Array:
    """Return an upper bound of the fall of the slope between two positions, (n,)."""
    inside = (here.at <= line.modes) & (line.modes <= next_place.at)
    most = jnp.where(inside, line.tops, jnp.maximum(here.log_joint, next_place.log_joint))
    least = jax.nn.logsumexp(jnp.minimum(here.log_joint, next_place.log_joint), axis=0)
    ends = _target(mixture, here.at), _target(mixture, next_place.at)
    falls = mixture.family.fall(*ends, mixture.eta, mixture.phi)
    if falls is None:
        falls = here.rises - next_place.rises
    return _weighed(jnp.exp(jnp.minimum(most - least, 0)), falls)


def _arrived(line: _Line, walk: _Walk, next_place: _Place) -> _Walk:
    """Return the state of the search at the next position.

    Two modes are separate only if the valley between them is lower than both by the share `_share`.
    """
    share, log_density = _share(next_place.at.dtype), next_place.log_density
    risen = ~walk.up & (log_density > walk.extreme + share)
    extreme = jnp.where(risen, -jnp.inf, jnp.where(walk.up, walk.extreme, jnp.minimum(walk.extreme, log_density)))
    up = walk.up | risen
    falls = ~(next_place.slope > 0) | (next_place.at >= line.high)  # at the highest mode p falls; rounding may hide it
    top = jnp.maximum(walk.here.log_density, log_density)
    better = up & (walk.here.slope > 0) & falls & (top > extreme)
    extreme = jnp.where(better, top, extreme)
    passed = up & (log_density < extreme - share)
    slot = better & (_number(walk.low) == walk.number)
    return _Walk(
        here=next_place,
        step=walk.step,
        number=walk.number + passed,
        up=up & ~passed,
        extreme=jnp.where(passed, log_density, extreme),
        low=jnp.where(slot, walk.here.at, walk.low),
        high=jnp.where(slot, next_place.at, walk.high),
    )


def _narrowed(mixture: Mixture, low: jax.Array, high: jax.Array) -> jax.Array:
    """Find by bisection the first position where p does not rise, (slots, n)."""

    def halved(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = low + 0.5 * (high - low)
        middle = jnp.floor(middle) if mixture.family.support == "counts" else middle
        rises = jax.vmap(lambda at: _seen(mixture, at).slope)(middle) > 0
        return jnp.where(rises, middle, low), jnp.where(rises, high, middle)

    high_end: jax.Array = jax.lax.fori_loop(0, jnp.finfo(low.dtype).bits, halved, (low, high))[1]
    return high_end
