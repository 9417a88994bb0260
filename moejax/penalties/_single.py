"""Penalties on single coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from moejax import _checks
from moejax.penalties._base import Penalty
from moejax.penalties._formulas import Coefficients, checked_part, largest_absolute, soft_threshold, zero


@dataclass(frozen=True)
class L1(Penalty):
    """Penalty on absolute values; see `l1`.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.

    Attributes
    ----------
    place : tuple of int
        Position of the proximal step among those of other penalties; see `check_order`.
    kinked : bool
        True: the value has a kink where a coefficient changes sign.
    """

    part: str
    place = (0, 0)
    kinked = True
    separable = (1.0, 0.0)
    has_critical = True

    @property
    def name(self) -> str:
        """Name of the weight in `hyper`: `l1_experts` or `l1_gate`."""
        return f"l1_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """Return the sum of absolute values.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.

        Returns
        -------
        jax.Array
            A scalar: the total over all arrays, without the weight.

        Notes
        -----
        The derivative is sign(c), which is 0 at 0. (The derivative of `jnp.abs` at 0 is 1.)
        """
        return sum((jnp.sum(c * jax.lax.stop_gradient(jnp.sign(c))) for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Apply soft thresholding at t, which gives exact zeros.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.
        t : float or jax.Array
            Step times weight. An array broadcasts against every array of coefficients and is constant over each group of
            coefficients that the penalty couples. 0 leaves the coefficients unchanged; infinity makes them 0.

        Returns
        -------
        list of jax.Array
            The new coefficients, with the shapes of `coefficients`.
        """
        return [soft_threshold(c, t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Return the largest absolute gradient.

        Parameters
        ----------
        gradients : list of jax.Array
            Gradient of the mean loss where the coefficients are 0, with the shapes of the coefficients.

        Returns
        -------
        jax.Array
            A scalar: the smallest weight at which coefficients that are all 0 are optimal.
        """
        return largest_absolute(gradients)

    def majorant(self, h: jax.Array) -> jax.Array:
        """Return the curvatures unchanged.

        Parameters
        ----------
        h : jax.Array
            Curvatures above 0, shaped like one array of coefficients.

        Returns
        -------
        jax.Array
            `h` unchanged: this penalty couples no coefficients.
        """
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """Return the second derivative, which is 0.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients.

        Returns
        -------
        jax.Array
            The second derivative for each coefficient, with the shape of `coefficients`.
        """
        return jnp.zeros_like(coefficients)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """Return the sum of absolute values of each expert.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients, `(K, d)` or `(K, d, m)`.

        Returns
        -------
        jax.Array
            Values of shape `(K,)`, without the weight.
        """
        return jax.vmap(lambda c: self.value([c]))(coefficients)


@dataclass(frozen=True)
class L2(Penalty):
    """Penalty on squares; see `l2`.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.

    Attributes
    ----------
    place : tuple of int
        Position of the proximal step among those of other penalties; see `check_order`.
    kinked : bool
        False: the value has no kink.
    """

    part: str
    place = (2, 2)
    kinked = False
    separable = (0.0, 1.0)
    has_critical = True

    @property
    def name(self) -> str:
        """Name of the weight in `hyper`: `l2_experts` or `l2_gate`."""
        return f"l2_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """Return the sum of squares, without a factor of 1/2.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.

        Returns
        -------
        jax.Array
            A scalar: the total over all arrays, without the weight.
        """
        return sum((jnp.square(c).sum() for c in coefficients), zero())

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Divide the coefficients by 1 + 2 t.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.
        t : float or jax.Array
            Step times weight. An array broadcasts against every array of coefficients and is constant over each group of
            coefficients that the penalty couples. 0 leaves the coefficients unchanged; infinity makes them 0.

        Returns
        -------
        list of jax.Array
            The new coefficients, with the shapes of `coefficients`.
        """
        return [c / (1 + 2 * t) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Return infinity: no finite weight makes coefficients 0.

        Parameters
        ----------
        gradients : list of jax.Array
            Gradient of the mean loss where the coefficients are 0, with the shapes of the coefficients.

        Returns
        -------
        jax.Array
            A scalar: the smallest weight at which coefficients that are all 0 are optimal.
        """
        return jnp.asarray(jnp.inf)

    def majorant(self, h: jax.Array) -> jax.Array:
        """Return the curvatures unchanged.

        Parameters
        ----------
        h : jax.Array
            Curvatures above 0, shaped like one array of coefficients.

        Returns
        -------
        jax.Array
            `h` unchanged: this penalty couples no coefficients.
        """
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """Return the second derivative, which is 2.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients.

        Returns
        -------
        jax.Array
            The second derivative for each coefficient, with the shape of `coefficients`.
        """
        return jnp.full_like(coefficients, 2)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """Return the sum of squares of each expert.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients, `(K, d)` or `(K, d, m)`.

        Returns
        -------
        jax.Array
            Values of shape `(K,)`, without the weight.
        """
        return jax.vmap(lambda c: self.value([c]))(coefficients)


@dataclass(frozen=True)
class ElasticNet(Penalty):
    """Penalty on absolute values and squares under one weight; see `elastic_net`.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.
    l1_ratio : float, default 0.5
        Share of the absolute values, from 0 to 1.

    Attributes
    ----------
    place : tuple of int
        Position of the proximal step among those of other penalties; see `check_order`.
    """

    part: str
    l1_ratio: float = 0.5
    place = (1, 2)
    has_critical = True

    @property
    def kinked(self) -> bool:
        """Whether the value has a kink where a coefficient changes sign: whether `l1_ratio` is above 0."""
        return self.l1_ratio > 0

    @property
    def separable(self) -> tuple[float, float]:
        """The weights of absolute values and of squares."""
        return self.l1_ratio, (1 - self.l1_ratio) / 2

    @property
    def name(self) -> str:
        """Name of the weight in `hyper`: `elastic_net_experts` or `elastic_net_gate`."""
        return f"elastic_net_{self.part}"

    def value(self, coefficients: Coefficients) -> jax.Array:
        """Return l1_ratio * sum of |c| + (1 - l1_ratio) / 2 * sum of c^2.

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.

        Returns
        -------
        jax.Array
            A scalar: the total over all arrays, without the weight.
        """
        sizes, squares = L1(self.part).value(coefficients), L2(self.part).value(coefficients)
        return self.l1_ratio * sizes + (1 - self.l1_ratio) / 2 * squares

    def prox(self, coefficients: Coefficients, t: Any) -> Coefficients:
        """Apply soft thresholding at t * l1_ratio, then divide by 1 + t * (1 - l1_ratio).

        Parameters
        ----------
        coefficients : list of jax.Array
            Arrays of shape `(K, d)` or `(K, d, m)`: experts, features, outputs.
        t : float or jax.Array
            Step times weight. An array broadcasts against every array of coefficients and is constant over each group of
            coefficients that the penalty couples. 0 leaves the coefficients unchanged; infinity makes them 0.

        Returns
        -------
        list of jax.Array
            The new coefficients, with the shapes of `coefficients`.
        """
        # 0 times infinity is NaN, so a share of 0 is handled separately.
        threshold, shrinkage = (t * share if share else 0.0 for share in (self.l1_ratio, 1 - self.l1_ratio))
        return [soft_threshold(c, threshold) / (1 + shrinkage) for c in coefficients]

    def critical(self, gradients: Coefficients) -> jax.Array:
        """Return the largest absolute gradient divided by l1_ratio; infinity if l1_ratio is 0.

        Parameters
        ----------
        gradients : list of jax.Array
            Gradient of the mean loss where the coefficients are 0, with the shapes of the coefficients.

        Returns
        -------
        jax.Array
            A scalar: the smallest weight at which coefficients that are all 0 are optimal.
        """
        return largest_absolute(gradients) / self.l1_ratio if self.l1_ratio else jnp.asarray(jnp.inf)

    def majorant(self, h: jax.Array) -> jax.Array:
        """Return the curvatures unchanged.

        Parameters
        ----------
        h : jax.Array
            Curvatures above 0, shaped like one array of coefficients.

        Returns
        -------
        jax.Array
            `h` unchanged: this penalty couples no coefficients.
        """
        return h

    def curvature(self, coefficients: jax.Array) -> jax.Array:
        """Return the second derivative, which is 1 - l1_ratio.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients.

        Returns
        -------
        jax.Array
            The second derivative for each coefficient, with the shape of `coefficients`.
        """
        return jnp.full_like(coefficients, 1 - self.l1_ratio)

    def of_experts(self, coefficients: jax.Array) -> jax.Array:
        """Return the value of each expert.

        Parameters
        ----------
        coefficients : jax.Array
            One array of coefficients, `(K, d)` or `(K, d, m)`.

        Returns
        -------
        jax.Array
            Values of shape `(K,)`, without the weight.
        """
        return jax.vmap(lambda c: self.value([c]))(coefficients)


def l1(part: str) -> L1:
    """Construct the lasso penalty: weight * sum of absolute coefficients.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.

    Returns
    -------
    L1
        The penalty. Its weight is the field `l1_experts` or `l1_gate` of `hyper`.

    Raises
    ------
    ValueError
        If `part` is neither "experts" nor "gate".

    Notes
    -----
    The penalty is weight * sum over j of |c_j| [1]_. The objective is the mean loss plus the penalty.

    References
    ----------
    .. [1] Tibshirani (1996), "Regression shrinkage and selection via the lasso", Journal of the Royal Statistical Society B.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from moejax import penalties
    >>> lasso = penalties.l1("experts")
    >>> coefficients = jnp.array([[3.0, -0.5]])
    >>> float(lasso.value([coefficients]))
    3.5
    >>> lasso.prox([coefficients], 1.0)[0].tolist()
    [[2.0, 0.0]]
    """
    return L1(checked_part(part))


def l2(part: str) -> L2:
    """Construct the ridge penalty: weight * sum of squared coefficients.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.

    Returns
    -------
    L2
        The penalty. Its weight is the field `l2_experts` or `l2_gate` of `hyper`.

    Raises
    ------
    ValueError
        If `part` is neither "experts" nor "gate".

    Notes
    -----
    The penalty is weight * sum over j of c_j^2, without a factor of 1/2. The objective is the mean loss plus the penalty.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from moejax import penalties
    >>> ridge = penalties.l2("gate")
    >>> coefficients = jnp.array([[3.0, -1.5]])
    >>> float(ridge.value([coefficients]))
    11.25
    >>> ridge.prox([coefficients], 1.0)[0].tolist()
    [[1.0, -0.5]]
    """
    return L2(checked_part(part))


def elastic_net(part: str, l1_ratio: float = 0.5) -> ElasticNet:
    """Construct the elastic net, parametrised as in scikit-learn and glmnet.

    Parameters
    ----------
    part : {"experts", "gate"}
        The part whose coefficients are penalised.
    l1_ratio : float, default 0.5
        Share of the absolute values: 0 is a ridge, 1 is the lasso.

    Returns
    -------
    ElasticNet
        The penalty. Its weight is the field `elastic_net_experts` or `elastic_net_gate` of `hyper`.

    Raises
    ------
    ValueError
        If `part` is neither "experts" nor "gate", or `l1_ratio` is not a number from 0 to 1.

    Notes
    -----
    The penalty is weight * (l1_ratio * sum of |c| + (1 - l1_ratio) / 2 * sum of c^2) [1]_. The mean squared error of
    scikit-learn and glmnet has a factor of 1/2, and `losses.squared_error` has none. For the same fit a weight here is
    therefore twice the weight there.

    References
    ----------
    .. [1] Zou and Hastie (2005), "Regularization and variable selection via the elastic net", Journal of the Royal
       Statistical Society B.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from moejax import penalties
    >>> net = penalties.elastic_net("experts", l1_ratio=0.5)
    >>> float(net.value([jnp.array([[2.0, -2.0]])]))  # 0.5 * 4 + 0.25 * 8
    4.0
    """
    l1_ratio = _checks.number_from_0("l1_ratio", l1_ratio)
    if l1_ratio > 1:
        raise ValueError(f"l1_ratio: {l1_ratio} was given; want a number from 0 to 1")
    return ElasticNet(checked_part(part), l1_ratio)
