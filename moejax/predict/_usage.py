"""Usage: the share of the rows of each expert of a fitted model, and the experts that are not used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax.gates import largest
from moejax.model import Model, check_model, checked, without_absent


@dataclass(frozen=True, eq=False)
class Usage:
    """Shares of the experts of a fitted model, from `usage`.

    Attributes
    ----------
    routed : numpy.ndarray, (K,)
        The share of the rows that the gate sends to each expert: to the most probable expert, or in equal parts to the
        experts that a top-k gate keeps. The sum is 1.
    probability : numpy.ndarray, (K,)
        The mean gate probability. The sum is 1.
    responsibility : numpy.ndarray, (K,), or None
        The mean of P(expert | x, y), with sum 1; None without y.
    active : numpy.ndarray of bool, (K,)
        Whether each expert takes part.
    """

    routed: np.ndarray
    probability: np.ndarray
    responsibility: np.ndarray | None
    active: np.ndarray

    @property
    def unused(self) -> list[int]:
        """Numbers of the experts that take part and to which no row is routed."""
        return np.flatnonzero(self.active & (self.routed == 0)).tolist()

    def text(self, names: Sequence[str] | None = None) -> str:
        """Describe each expert in one line; unused experts are marked.

        Parameters
        ----------
        names : sequence of str, optional
            Names of the K experts. None means their numbers.

        Returns
        -------
        str
            K lines.

        Raises
        ------
        ValueError
            If the number of names is not K.
        """
        count = len(self.routed)
        if names is not None:
            names = _checks.names("names", names, count, "one name for each expert")
        return "\n".join(self._line(k, f"expert {k}" if names is None else names[k]) for k in range(count))

    def _line(self, k: int, name: str) -> str:
        """Return the line of expert k."""
        if not self.active[k]:
            return f"{name}: takes no part"
        line = f"{name}: routed {self.routed[k]:.1%}, probability {self.probability[k]:.1%}"
        if self.responsibility is not None:
            line += f", responsibility {self.responsibility[k]:.1%}"
        return line + (", unused" if k in self.unused else "")


def usage(model: Model, params: Any, x: Any, y: Any = None, *, weights: Any = None, offset: Any = None) -> Usage:
    """Measure the share of the rows of each expert.

    The shares are weighted means over rows of gate probabilities and, given y, of responsibilities. The function runs on the
    host, not inside `jit`.

    Parameters
    ----------
    model : Model
        The model, from `moejax.moe`.
    params : pytree
        Its fitted parameters.
    x : array or pytree, (n, d)
        Inputs.
    y : array, (n,) or (n, m), optional
        Targets. None means that responsibilities are not computed.
    weights : array, (n,), optional
        Case weights: a row of weight 2 counts twice. None means equal weights.
    offset : array, (n,) or (n, m), optional
        Offset of the experts' linear predictors, as in `Model.predict`. None means no offset.

    Returns
    -------
    Usage
        The shares.

    Raises
    ------
    ValueError
        If y is given and the model has no family, if x or y is not finite, or if weights have another shape, are negative or
        are all 0.

    Examples
    --------
    >>> import jax
    >>> import jax.numpy as jnp
    >>> import moejax
    >>> from moejax import experts, gates
    >>> model = moejax.moe(experts.linear(), gates.fixed(), n_experts=2)
    >>> x = jnp.ones((4, 2))
    >>> moejax.usage(model, model.init(jax.random.key(0), x), x).probability.tolist()
    [0.5, 0.5]
    """
    check_model(model)
    if y is not None and model.family is None:
        raise ValueError("y: given for a model that has no family; want one, as in moe(..., family=families.gaussian())")
    weights = _checks.scaled(weights)
    x, y, offset = without_absent(weights, x, y, offset)
    params, x, y, offset = checked(model, params, x, y, offset)
    inputs = model.prepare(x)
    log_gate = model.log_gate(params, inputs)
    kept, n = model.kept or 1, log_gate.shape[1]
    share = np.ones(n) if weights is None else _checks.row_weights("weights", weights, n)
    share = share / share.sum()

    def mean(rows: Any) -> np.ndarray:
        mean: np.ndarray = np.asarray(rows, float) @ share
        return mean

    responsibility = None if y is None else mean(model.responsibilities(params, x, y, offset).T)
    active = np.asarray(model.active(params))
    routed = mean(largest(log_gate, kept) & active[:, None]) / min(kept, active.sum())
    return Usage(routed, mean(jnp.exp(log_gate)), responsibility, active)
