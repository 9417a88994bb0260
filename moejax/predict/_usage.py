"""Usage: how much of the rows each expert of a fitted model has, and which expert has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._checks import check_weights
from moejax.gates import largest
from moejax.model import Model


@dataclass(frozen=True, eq=False)
class Usage:
    """What `usage` found, (K,) each, of sum 1 over the experts.

    routed: the share of rows that the gate sends to the expert (to its most probable one, or in equal parts to those that
    it keeps). probability: the mean gate probability. responsibility: the mean of P(expert | x, y), or None without y.
    active: which experts take part.
    """

    routed: np.ndarray
    probability: np.ndarray
    responsibility: np.ndarray | None
    active: np.ndarray

    @property
    def unused(self) -> list[int]:
        """The numbers of experts that take part, and that no row is routed to."""
        return np.flatnonzero(self.active & (self.routed == 0)).tolist()

    def text(self, names: Sequence[str] | None = None) -> str:
        """A line for each expert, an unused one named as such. names: of the experts, their numbers unless given.

        Raises ValueError for another number of names.
        """
        count = len(self.routed)
        if names is not None and len(names) != count:
            raise ValueError(f"names: {len(names)} were given; want one for each of {count} experts")
        return "\n".join(self._line(k, f"expert {k}" if names is None else names[k]) for k in range(count))

    def _line(self, k: int, name: str) -> str:
        if not self.active[k]:
            return f"{name}: takes no part"
        line = f"{name}: routed {self.routed[k]:.1%}, probability {self.probability[k]:.1%}"
        if self.responsibility is not None:
            line += f", responsibility {self.responsibility[k]:.1%}"
        return line + (", unused" if k in self.unused else "")


def usage(model: Model, params: Any, x: Any, y: Any = None, *, weights: Any = None, offset: Any = None) -> Usage:
    """How much of the rows of x (n, d) each expert has, by the gate and, given y, by responsibility; means by weights (n,).

    Runs on the host. Raises ValueError for y with a model that has no family, and for weights as a fit does.
    """
    for leaf in jax.tree.leaves(x):
        _checks.finite("x", leaf)
    inputs = model.prepare(x)
    log_gate = model.log_gate(params, inputs)
    kept, n = model.kept or 1, log_gate.shape[1]
    if weights is not None:
        check_weights(weights, n)
    if y is not None:
        _checks.finite("y", y)
    share = np.full(n, 1 / n) if weights is None else np.asarray(weights, float) / np.sum(weights, dtype=float)

    def mean(rows: Any) -> np.ndarray:
        return np.asarray(rows, float) @ share

    responsibility = None if y is None else mean(model.responsibilities(params, x, y, offset).T)
    active = np.asarray(model.active(params))
    routed = mean(largest(log_gate, kept) & active[:, None]) / min(kept, active.sum())
    return Usage(routed, mean(jnp.exp(log_gate)), responsibility, active)
