"""Hierarchical gates: soft multiway splits, one below another (Jordan and Jacobs 1994).

A split divides the rows that reach it among its branches by a softmax of linear functions of the input. A branch leads to
another split or to a leaf, which is an expert, and an expert's probability is the product of those of the branches on its
way. Given responsibilities, the expected loss falls apart into one for each split: a softmax regression of the
responsibilities below its branches, weighted by those that reach it. So EM fits all splits at once, each on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._linear import Ask, Moments, Quadratic, Table, coefficients_of, dot, predictors, with_intercept
from moejax.gates._base import NEVER, Gate

Params = dict[str, jax.Array]


class Layout(NamedTuple):
    """A tree's E branches, breadth first, those of a split side by side.

    spans: each split's first branch, and the one after its last. above: the branch that leads to each branch's split, -1
    for the first split. below: whether each leaf is below each branch, (E, K). ways: the branches from the first split to
    each leaf, (K, depth), E where there are no more.
    """

    spans: tuple[tuple[int, int], ...]
    above: np.ndarray
    below: np.ndarray
    ways: np.ndarray


class Branch(NamedTuple):
    """A branch of a fitted tree.

    Attributes
    ----------
    above : int
        Number of the branch that leads to its split, -1 for the first split.
    expert : int or None
        Number of the expert that it leads to, None for a split.
    share : float or None
        Share of all rows, None if not known.
    coefficients : tuple of (str, float)
        Names and values, the largest first.
    """

    above: int
    expert: int | None
    share: float | None
    coefficients: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """The expert or split that the branch leads to, and its share."""
        where = "split" if self.expert is None else f"expert {self.expert + 1}"
        return where if self.share is None else f"{where} {self.share:.0%}"

    def coefficients_after(self, before: str) -> str:
        """Return the coefficients in words, after other words.

        Parameters
        ----------
        before : str
            What stands before the coefficients.

        Returns
        -------
        str
            Empty if there are no coefficients.
        """
        told = ", ".join(f"{value:+.2f} {name}" for name, value in self.coefficients)
        return before + told if told else ""


@lru_cache(maxsize=256)
def layout(tree: Any) -> Layout:
    """The branches of a tree of nested tuples, leaves being numbers from 0."""
    spans: list[tuple[int, int]] = []
    above: list[int] = []
    nodes: list[Any] = []  # what each branch leads to
    waiting: list[tuple[Any, int]] = [(tree, -1)]
    for node, branch in waiting:
        if isinstance(node, tuple):
            spans.append((len(nodes), len(nodes) + len(node)))
            waiting.extend((child, len(nodes) + i) for i, child in enumerate(node))
            above.extend([branch] * len(node))
            nodes.extend(node)
    leaves = [_leaves(node) for node in nodes]
    below = np.array([[k in group for k in range(len(_leaves(tree)))] for group in leaves])
    ways = [np.flatnonzero(below[:, k]) for k in range(below.shape[1])]
    depth = max(map(len, ways))
    padded = np.array([[*way, *[len(nodes)] * (depth - len(way))] for way in ways], np.int32)
    return Layout(tuple(spans), np.array(above, np.int32), below, padded)


def _leaves(node: Any) -> list[int]:
    return [leaf for child in node for leaf in _leaves(child)] if isinstance(node, tuple) else [node]


@dataclass(frozen=True)
class Hierarchical(Gate):
    """A tree of softmax splits; made by `hierarchical`.

    Attributes
    ----------
    tree : tuple
        Nested tuples; a leaf is the number of its expert.
    init_scale : float, default 1.0
        Standard deviation of the initial logits, for standardised x.
    """

    tree: Any
    init_scale: float = 1.0
    is_linear = True
    inits_by_shape = True
    has_linear_terms = True

    @property
    def layout(self) -> Layout:
        """The branches of the tree, in the order of params."""
        return layout(self.tree)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return normal weights (E, d) of variance init_scale^2 / d and intercepts (E,) of 0, for E branches."""
        branches, leaves = self.layout.below.shape
        if leaves != n_experts:
            raise ValueError(f"tree: {self.tree} has {leaves} leaves; want {n_experts}, one for each expert")
        d = x.shape[1]
        return {
            "weights": self.init_scale / max(d, 1) ** 0.5 * jax.random.normal(key, (branches, d), x.dtype),
            "intercept": jnp.zeros(branches, x.dtype),
        }

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that the weights of the logits are penalised and the intercepts are not."""
        return {name: name == "weights" for name in params}

    def reordered(self, params: Params, order: Any) -> tuple[Hierarchical, Params]:
        """Return the tree in another order of the experts; params, which belong to branches, stay as they are."""
        place = {int(k): i for i, k in enumerate(order)}

        def renamed(node: Any) -> Any:
            return tuple(map(renamed, node)) if isinstance(node, tuple) else place[node]

        return Hierarchical(renamed(self.tree), self.init_scale), params

    def linear_terms(self, params: Params) -> tuple[jax.Array, jax.Array]:
        """Return weights (E, d) and intercepts (E,) of the E branches."""
        return params["weights"], params["intercept"]

    def prepare(self, x: jax.Array) -> Table:
        """Return the table of x, which all members share."""
        return with_intercept(x)

    def log_branches(self, params: Params, x: Table, active: jax.Array | None = None) -> jax.Array:
        """Return the log share that each branch has of the rows that reach its split.

        Parameters
        ----------
        params : dict
            Params of the gate.
        x : Table
            What `prepare` returned.
        active : jax.Array or None, (K,), default None
            Which experts take part, None for all. A branch that leads to none of them has no share.

        Returns
        -------
        jax.Array, (E, n)
            Logarithms that are normalised in each split.
        """
        logits = predictors(params["weights"], params["intercept"], x)
        if active is not None:
            logits = jnp.where((jnp.asarray(self.layout.below) & active).any(axis=1)[:, None], logits, NEVER)
        return jnp.concatenate([jax.nn.log_softmax(logits[first:end], axis=0) for first, end in self.layout.spans])

    def log_probs(self, params: Params, x: Table) -> jax.Array:
        """Return log P(expert), the sum over the branches on its way, (K, n)."""
        return self._along(self.log_branches(params, x))

    def log_probs_among(self, params: Params, x: Table, active: jax.Array) -> jax.Array:
        """Return the same where only some experts take part.

        Each split divides its rows among the branches that lead to an expert that takes part. A split that is left with one
        branch does nothing, and the others are softmax regressions as before.
        """
        return jnp.where(active[:, None], self._along(self.log_branches(params, x, active)), NEVER)

    def _along(self, branches: jax.Array) -> jax.Array:
        none = jnp.zeros_like(branches[:1])
        return jnp.concatenate([branches, none])[self.layout.ways].sum(axis=1)

    def statistics(self, params: Params, x: Table, probs: jax.Array, responsibilities: jax.Array, weights: jax.Array) -> Ask:
        """Ask for the moments of weight * curvature and of weight * slope, of each branch.

        The curvature of a branch of share g is 2 g (1 - g), as in `Softmax.statistics`, times the responsibility that
        reaches the split.
        """
        shares, reached = self._of_splits(probs, responsibilities)
        own = dot(jnp.asarray(self.layout.below, probs.dtype), responsibilities)
        return Ask(2 * shares * (1 - shares) * reached * weights, (shares * reached - own) * weights)

    def _of_splits(self, probs: jax.Array, responsibilities: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of each branch, its share of its split, and the responsibility that reaches the split, (E, n)."""
        above = self.layout.above
        below = jnp.asarray(self.layout.below, probs.dtype)
        branches, of_leaves = dot(below, probs), dot(below, responsibilities)
        first = (above < 0)[:, None]  # everything reaches the first split
        whole = jnp.where(first, 1, branches[above])
        return jnp.where(whole > 0, branches / jnp.where(whole > 0, whole, 1), 0), jnp.where(first, 1, of_leaves[above])

    def quadratic(self, params: Params, moments: Moments) -> Quadratic:
        """Return the expected loss of the logit of each branch as a quadratic in its coefficients."""
        return coefficients_of(params, moments)

    def with_coefficients(self, params: Params, b: jax.Array) -> Params:
        """Return params of these coefficients, those of a `Quadratic`."""
        return {**params, "weights": b[:, :-1], "intercept": b[:, -1]}

    def null(self, params: Params) -> Params:
        """Return coefficients of 0, which make equal shares in each split."""
        zeros: Params = jax.tree.map(jnp.zeros_like, params)
        return zeros

    def degrees_of_freedom(self, params: Params, active: jax.Array) -> jax.Array:
        """Return the number of nonzero coefficients and of intercepts that are free.

        Where all branches of a split have a nonzero coefficient of a column, one of these is not free; nor is one of the
        intercepts.
        """
        taking = (jnp.asarray(self.layout.below) & active).any(axis=1)
        nonzero = (params["weights"] != 0) & taking[:, None]
        count = jnp.zeros((), int)
        for first, end in self.layout.spans:
            branches, coefficients = taking[first:end].sum(), nonzero[first:end].sum(axis=0)
            count += (coefficients - (coefficients == branches)).sum() * (branches > 0) + jnp.maximum(branches - 1, 0)
        return count

    def branches(
        self, params: Params, shares: Any = None, feature_names: Sequence[str] | None = None, largest: int = 3
    ) -> list[Branch]:
        """Describe each branch of a fitted tree, in the order of params.

        Parameters
        ----------
        params : dict
            Params of the gate.
        shares : array_like or None, (K,), default None
            Shares of the experts in the rows, such as mean responsibilities.
        feature_names : sequence of str or None, (d,), default None
            Names of the features, x1 to xd unless given.
        largest : int, default 3
            How many coefficients are listed, the largest first, none that is 0.

        Returns
        -------
        list of Branch
            One for each branch. `text` and `moejax.plots.gate_tree` show them.

        Raises
        ------
        ValueError
            If an argument has another shape, or a share is below 0.
        """
        weights = _checks.leaf("params", params, "weights")
        branches, leaves = self.layout.below.shape
        _checks.shape("params: weights", weights, (branches, None), "a row for each branch of the tree")
        names = [f"x{j + 1}" for j in range(weights.shape[1])]
        if feature_names is not None:
            names = _checks.names("feature_names", feature_names, len(names), "one for each feature that the gate sees")
        largest = _checks.count("largest", largest, 0)
        if shares is not None:
            _checks.shape("shares", shares, (leaves,), "one for each expert")
            _checks.not_negative("shares", shares)
        told = []
        for first, end in self.layout.spans:
            two = end - first == 2  # of which only the difference counts
            for i in range(first, end):
                values = weights[i] - weights[first + 1] if two else weights[i]  # nothing beside the second
                order = [j for j in np.argsort(-np.abs(values), kind="stable")[:largest] if values[j] != 0]
                below = self.layout.below[i]
                told.append(
                    Branch(
                        int(self.layout.above[i]),
                        None if i in self.layout.above else int(below.argmax()),
                        None if shares is None else float(np.asarray(shares)[below].sum()),
                        tuple((names[j], float(values[j])) for j in order),
                    )
                )
        return told

    def text(self, params: Params, shares: Any = None, feature_names: Sequence[str] | None = None, largest: int = 3) -> str:
        """Describe a fitted tree in words, a line for each branch: its expert or split, its share, its largest coefficients.

        Parameters
        ----------
        params : dict
            Params of the gate.
        shares : array_like or None, (K,), default None
            Shares of the experts in the rows, such as mean responsibilities.
        feature_names : sequence of str or None, (d,), default None
            Names of the features, x1 to xd unless given.
        largest : int, default 3
            How many coefficients are listed, the largest first, none that is 0.

        Returns
        -------
        str
            The lines. In a split into two, the coefficients of the first branch less those of the second stand beside the
            first.

        Raises
        ------
        ValueError
            If an argument has another shape, or a share is below 0.
        """
        told = self.branches(params, shares, feature_names, largest)

        def lines(above: int, indent: str) -> list[str]:
            children = [i for i, branch in enumerate(told) if branch.above == above]
            found = []
            for i in children:
                last = i == children[-1]
                found.append(f"{indent}{'└' if last else '├'}─ {told[i].name}{told[i].coefficients_after(': ')}")
                found += lines(i, indent + ("   " if last else "│  "))
            return found

        return "\n".join(lines(-1, ""))


def hierarchical(tree: Sequence[Any], *, init_scale: float = 1.0) -> Hierarchical:
    """Construct the gate of a hierarchical mixture of experts: soft splits, one below another.

    Parameters
    ----------
    tree : sequence
        The number of branches of the splits of each level, as (2, 2) for two splits of two leaves each below a first split.
        Or, for any tree, nested sequences of the numbers of the experts, as ((0, 1), (2, (3, 4))) or (0, 1). A tree of one
        level is the softmax gate.
    init_scale : float, default 1.0
        Standard deviation of the initial logits of a gradient fit, for standardised x.

    Returns
    -------
    Hierarchical
        The gate.

    Raises
    ------
    ValueError
        If a split has fewer than two branches, if the leaves are not the numbers from 0, each once, or if init_scale is
        below 0. When params are made: if there is not one leaf for each expert.

    Notes
    -----
    A split divides the rows that reach it among its branches by a softmax of linear functions of the input. The probability
    of an expert is the product of those of the branches on its way. Params are `weights`, (E, d), and `intercept`, (E,), for
    the E branches, breadth first.

    References
    ----------
    Jordan and Jacobs (1994).
    """
    init_scale = _checks.number_from_0("init_scale", init_scale)
    nested = _tuples(tree)
    if isinstance(nested, tuple) and nested and all(isinstance(level, int) for level in nested) and 0 not in nested:
        nested = _balanced(nested)
    _check_tree(nested, tree)
    return Hierarchical(nested, init_scale)


def _tuples(node: Any) -> Any:
    if isinstance(node, int | np.integer) and not isinstance(node, bool | np.timedelta64):
        return int(node)
    if isinstance(node, list | tuple) or (isinstance(node, np.ndarray) and node.ndim):
        return tuple(_tuples(child) for child in node)
    raise ValueError(f"tree: {_checks.shown(node)} was given; want whole numbers, and sequences of them")


def _balanced(branches: tuple[int, ...]) -> Any:
    for level in branches:
        _checks.count("tree: branches of a level", level, 2)
    nodes: list[Any] = list(range(int(np.prod(branches))))
    for size in reversed(branches):
        nodes = [tuple(nodes[i : i + size]) for i in range(0, len(nodes), size)]
    return nodes[0]


def _check_tree(node: Any, given: Any) -> None:
    splits = [node]
    for split in splits:
        if not isinstance(split, tuple) or len(split) < 2:
            raise ValueError(f"tree: {given!r} has a split of fewer than two branches; want at least two")
        splits.extend(child for child in split if isinstance(child, tuple))
    leaves = sorted(_leaves(node))
    if leaves != list(range(len(leaves))):
        raise ValueError(f"tree: {given!r} has the leaves {leaves}; want each expert's number once, from 0")
