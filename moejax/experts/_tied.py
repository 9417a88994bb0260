"""Experts whose coefficients are tied: linear regressions with a few values for all features.

In expert k the d coefficients fall into Q groups of one value each, and which group a coefficient is in is drawn from
proportions of the expert's own (mixture of experts and biclustering unified strategy, MoEBIUS):

    eta_k(x) = intercept_k + sum over j of  x_j values[k, g(k, j)]        P(g(k, j) = q) = shares[k, q]

The likelihood sums over Q^d memberships. In its place is the lower bound of independent memberships (mean field), each with
probabilities of its own, which are params like others: eta has a mean and a variance, and EM ascends the bound exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _checks
from moejax._contracts import by_expert
from moejax._linear import Ask, Moments, Table, diagonals, dot, predictors, solved, with_intercept
from moejax.experts._base import Expert

Params = dict[str, jax.Array]
FORMS = ("published", "full")
_NEVER = -1e30  # the logarithm of no probability at all, finite so that gradients are
_LEAST = -40.0  # of the logarithm of a membership's probability, below which no bound feels it
_SOFTNESS = 0.1  # of memberships by cluster: shared by all groups
_RIDGE = 1e-3  # of the regressions that a fit begins with, as a share of the columns' squares
_LLOYD_STEPS = 10


class _Centred(NamedTuple):
    """The same around the centre of each expert's own rows, where its intercept is out of the way.

    centre: (K, d). gram: (K, d, d) around it. squares: (K, d) around 0. slope: (K, d), of w (y - eta) (x - centre). size and
    rest: (K,), of w and of w (y - eta).
    """

    centre: jax.Array
    gram: jax.Array
    squares: jax.Array
    slope: jax.Array
    size: jax.Array
    rest: jax.Array


@dataclass(frozen=True)
class Tied(Expert):
    """Linear predictors with tied coefficients; made by `tied`.

    Attributes
    ----------
    groups : int, default 3
        Number of values Q of an expert.
    init_scale : float, default 1.0
        Standard deviation of the initial values, times sqrt(d).
    """

    groups: int = 3
    init_scale: float = 1.0
    has_m_step = True
    inits_by_shape = True
    has_begin = True
    has_distribution = True
    has_linear_terms = True

    @property
    def hyper(self) -> dict[str, float]:
        """Numbers that a fit may set: `n_groups`, how many of the groups take part."""
        return {"n_groups": self.groups}

    def check_hyper(self, name: str, value: Any) -> None:
        """Raise ValueError unless the number of groups is whole, from 1 to `groups`."""
        _checks.whole(f"hyper[{name!r}]", value, 1, self.groups)

    def init(self, key: jax.Array, n_experts: int, x: jax.Array) -> Params:
        """Return random memberships and values, and intercepts and shares that are alike.

        Params are `memberships`, standard normal logits (K, d, Q); `values`, (K, Q), normal with variance init_scale^2 / d;
        `intercept`, (K,) of 0; `shares`, logits (K, Q) of 0; and `n_groups`, (K,), the number of groups that take part.
        """
        d = x.shape[1]
        if not d:
            raise ValueError(
                "x: no columns were given to experts.tied, which groups columns; want some, or experts.linear()"
            )
        one, other = jax.random.split(key)
        return {
            "memberships": jax.random.normal(one, (n_experts, d, self.groups), x.dtype),
            "values": self.init_scale / d**0.5 * jax.random.normal(other, (n_experts, self.groups), x.dtype),
            "intercept": jnp.zeros(n_experts, x.dtype),
            "shares": jnp.zeros((n_experts, self.groups), x.dtype),
            "n_groups": jnp.full(n_experts, self.groups, x.dtype),
        }

    def trainable(self, params: Params) -> dict[str, bool]:
        """Return that all but the number of groups is trained."""
        return {name: name != "n_groups" for name in params}

    def penalized(self, params: Params) -> dict[str, bool]:
        """Return that nothing is penalised: the small number of values is the constraint."""
        return dict.fromkeys(params, False)

    def reordered(self, params: Params, order: Any) -> tuple[Tied, Params]:
        """Return the params in another order of the experts."""
        return self, by_expert(params, order)

    # ---- what params say ------------------------------------------------------------------------------------------

    def active(self, params: Params) -> jax.Array:
        """Return which groups take part.

        Parameters
        ----------
        params : dict
            Params of the experts.

        Returns
        -------
        jax.Array, (K, Q)
            Booleans.
        """
        return jnp.arange(params["values"].shape[1]) < params["n_groups"][:, None]

    def log_memberships(self, params: Params) -> jax.Array:
        """Return the log probability that a coefficient is in a group.

        Parameters
        ----------
        params : dict
            Params of the experts.

        Returns
        -------
        jax.Array, (K, d, Q)
            Logarithms of the memberships tau, which sum to 1 over the groups.
        """
        return jax.nn.log_softmax(jnp.where(self.active(params)[:, None], params["memberships"], _NEVER))

    def log_shares(self, params: Params) -> jax.Array:
        """Return the logarithm of the groups' proportions.

        Parameters
        ----------
        params : dict
            Params of the experts.

        Returns
        -------
        jax.Array, (K, Q)
            Logarithms of proportions that sum to 1 over the groups.
        """
        return jax.nn.log_softmax(jnp.where(self.active(params), params["shares"], _NEVER))

    def coefficients(self, params: Params) -> jax.Array:
        """Return the mean of each coefficient over its memberships.

        Parameters
        ----------
        params : dict
            Params of the experts.

        Returns
        -------
        jax.Array, (K, d)
            Mean coefficients.
        """
        return _mean(jnp.exp(self.log_memberships(params)), params["values"])

    def linear_terms(self, params: Params) -> tuple[jax.Array, jax.Array]:
        """Return the mean coefficients, (K, d), and the intercepts, (K,)."""
        return self.coefficients(params), params["intercept"]

    def labels(self, params: Params) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of each expert and the likeliest group of each coefficient.

        Parameters
        ----------
        params : dict
            Params of the experts.

        Returns
        -------
        values : numpy.ndarray, (K, Q)
            Values in rising order, NaN for groups that take no part.
        groups : numpy.ndarray, (K, d)
            Number of the likeliest group of each coefficient, from 0, in the order of `values`.
        """
        values, chances, count = (_checks.leaf("params", params, name) for name in ("values", "memberships", "n_groups"))
        _checks.shape("params['values']", values, (None, self.groups), "experts by groups")
        _checks.shape("params['memberships']", chances, (len(values), None, self.groups), "experts by features by groups")
        _checks.shape("params['n_groups']", count, (len(values),), "one number for each expert")
        _checks.whole("params['n_groups']", count, 1, self.groups)
        given: Any = {**params, "values": values, "memberships": chances, "n_groups": count}
        values = np.where(self.active(given), values, np.nan)
        order = values.argsort(axis=1)  # NaNs come last
        likeliest = np.asarray(self.log_memberships(given)).argmax(axis=2)
        return np.take_along_axis(values, order, axis=1), np.take_along_axis(order.argsort(axis=1), likeliest, axis=1)

    def prepare(self, x: jax.Array) -> Table:
        """Return the table of x, which all members share."""
        return with_intercept(x)

    def apply(self, params: Params, x: Table) -> jax.Array:
        """Return x . mean coefficients + intercept, (K, n)."""
        return predictors(self.coefficients(params), params["intercept"], x)

    def variance(self, params: Params, x: Table) -> jax.Array:
        """Return the variance of the predictor over memberships, (K, n).

        It is the sum over features of x_j^2 times the variance of the coefficient.
        """
        tau = jnp.exp(self.log_memberships(params))
        off = params["values"][:, None] - _mean(tau, params["values"])[..., None]
        return dot((tau * jnp.square(off)).sum(axis=2), jnp.square(x.columns).T)

    def log_prior(self, params: Params) -> jax.Array:
        """Return the sum over features and groups of tau (log share - log tau), (K,), which is at most 0."""
        log_tau = self.log_memberships(params)
        return (jnp.exp(log_tau) * (self.log_shares(params)[:, None] - log_tau)).sum(axis=(1, 2))

    def degrees_of_freedom(self, params: Params) -> jax.Array:
        """Return the number of groups that take part, and 1 for the intercept, (K,)."""
        return self.active(params).sum(axis=1) + 1

    # ---- EM -------------------------------------------------------------------------------------------------------

    def statistics(self, params: Params, x: Table, slope: jax.Array, curvature: jax.Array) -> Ask:
        """Ask for the moments of each expert."""
        return Ask(curvature, slope)

    def expected(self, new: Params, params: Params, statistics: Moments) -> jax.Array:
        """Return how much higher each expert's expected loss is at `new` than at params but for a constant, (K,).

        It is a quadratic in the mean of the predictor, plus half the curvature times the variance of the predictor.
        """
        gram, means = statistics.gram, statistics.means
        moved = self.coefficients(new) - self.coefficients(params)
        shift = new["intercept"] - params["intercept"] + (moved * means).sum(axis=1)
        moved = jnp.concatenate([moved, shift[:, None]], axis=1)
        bent = dot(gram, moved[..., None])[..., 0]
        tau = jnp.exp(self.log_memberships(new))
        off = new["values"][:, None] - _mean(tau, new["values"])[..., None]
        squares = diagonals(gram)[:, :-1] + 2 * means * gram[:, :-1, -1] + jnp.square(means) * gram[:, -1:, -1]
        spread = (squares * (tau * jnp.square(off)).sum(axis=2)).sum(axis=1)
        return (moved * (statistics.pull + bent / 2)).sum(axis=1) + spread / 2

    def null(self, params: Params, eta: Any = 0.0) -> Params:
        """Return values of 0, intercepts eta, and memberships and shares that are equal."""
        zeros = {name: jnp.zeros_like(params[name]) for name in ("memberships", "values", "shares")}
        return {**params, **zeros, "intercept": jnp.full_like(params["intercept"], eta)}

    def begin(self, params: Params, statistics: Moments, key: jax.Array) -> Params:
        """Return groups from clusters of each expert's ridge coefficients, with soft memberships.

        The clusters are those of k-means on a line (Lloyd 1982), from quantiles drawn from `key`.
        """
        c, there = _centred(statistics, 1.0), self.active(params)
        squares = diagonals(c.gram)
        coefficients = solved(c.gram, squares, _RIDGE * squares, squares > 0, c.slope)
        d, levels = coefficients.shape[1], jax.random.uniform(key, params["values"].shape, squares.dtype)
        levels = (jnp.arange(levels.shape[1]) + levels) / params["n_groups"][:, None]
        places = jnp.clip((levels * d).astype(int), 0, d - 1)
        values = jnp.take_along_axis(jnp.sort(coefficients, axis=1), places, axis=1)

        def nearest(values: jax.Array) -> jax.Array:
            off = jnp.where(there[:, None], jnp.abs(coefficients[..., None] - values[:, None]), jnp.inf)
            return jax.nn.one_hot(off.argmin(axis=2), values.shape[1], dtype=values.dtype)

        def moved(_: Any, values: jax.Array) -> jax.Array:
            member = nearest(values)
            size = member.sum(axis=1)
            return jnp.where(size > 0, (member * coefficients[..., None]).sum(axis=1) / jnp.maximum(size, 1), values)

        values = jax.lax.fori_loop(0, _LLOYD_STEPS, moved, values)
        tau = (1 - _SOFTNESS) * nearest(values) + _SOFTNESS / params["n_groups"][:, None, None]
        began = {**params, "memberships": jnp.log(tau)}
        return self._shares_step(self._values_step(began, c))

    def m_step(self, params: Params, statistics: Moments, penalties: Any, total: jax.Array) -> Params:
        """Return params at which the bound is higher or the same.

        It updates memberships one feature after another, then values and intercepts, then shares, each at its optimum given
        the others.
        """
        c = _centred(statistics, total)
        params, c = self._memberships_step(params, c)
        return self._shares_step(self._values_step(params, c))

    def _memberships_step(self, params: Params, c: _Centred) -> tuple[Params, _Centred]:
        """A round over the features. Each step is in the residual's moments alone, which a feature that moves changes.

        With t the residual's moment with a feature, G its squares and m its coefficient's mean before, the bound is a
        constant less the mean over the feature's groups of G (value - m)^2 / 2 - t (value - m) - log share + log tau.
        """
        there, values, log_shares = self.active(params), params["values"], self.log_shares(params)
        gram = c.gram + c.size[:, None, None] * c.centre[:, :, None] * c.centre[:, None]  # around 0, like x in the model
        before = self.coefficients(params)

        def step(carry: jax.Array, feature: Any) -> tuple[jax.Array, Any]:
            row, mean, j = feature
            off = values - mean[:, None]
            t, g = (jax.lax.dynamic_index_in_dim(v, j, 1) for v in (carry, row))
            logits = jnp.where(there, log_shares + off * (t - 0.5 * g * off), _NEVER)
            logits = jnp.maximum(jax.nn.log_softmax(logits), _LEAST)
            tau = jax.nn.softmax(jnp.where(there, logits, _NEVER))
            change = (tau * off).sum(axis=1)
            return carry - change[:, None] * row, (logits, change)

        moment = c.slope + c.rest[:, None] * c.centre
        features = jnp.moveaxis(gram, 1, 0), before.T, jnp.arange(before.shape[1])
        moment, (logits, changes) = jax.lax.scan(step, moment, features)
        rest = c.rest - c.size * (c.centre * changes.T).sum(axis=1)
        params = {**params, "memberships": jnp.moveaxis(logits, 0, 1)}
        return params, c._replace(slope=moment - rest[:, None] * c.centre, rest=rest)

    def _values_step(self, params: Params, c: _Centred) -> Params:
        """Weighted least squares, whose quadratic is the mean over memberships.

        A pair of features shares a group by tau tau', but a feature is always in the group that it is in.
        """
        tau, values = jnp.exp(self.log_memberships(params)), params["values"]
        off = values[:, None] - _mean(tau, values)[..., None]
        own = c.squares[..., None] * tau  # (K, d, Q)
        size = own.sum(axis=1)
        gram = jnp.einsum("kjq,kjl,klp->kqp", tau, c.gram, tau, precision="highest")
        gram = gram - jnp.einsum("kjq,kjp->kqp", own, tau, precision="highest")
        right = (tau * c.slope[..., None]).sum(axis=1) - (own * off).sum(axis=1)
        free = size > jnp.finfo(size.dtype).eps * size.max(axis=1, keepdims=True)  # an empty group stays where it is
        change = solved(gram, diagonals(gram), size, free, right)
        moved = (c.centre * (tau * change[:, None]).sum(axis=2)).sum(axis=1)
        rest = jnp.where(c.size > 0, c.rest / jnp.where(c.size > 0, c.size, 1), 0)
        return {**params, "values": values + change, "intercept": params["intercept"] + rest - moved}

    def _shares_step(self, params: Params) -> Params:
        """Shares that are the mean memberships."""
        share = jnp.exp(self.log_memberships(params)).mean(axis=1)
        return {**params, "shares": jnp.log(jnp.maximum(share, jnp.finfo(share.dtype).tiny))}


def _mean(tau: jax.Array, values: jax.Array) -> jax.Array:
    return (tau * values[:, None]).sum(axis=2)


def _centred(sums: Moments, total: Any) -> _Centred:
    """total: of the weights, for sums are of weights of sum 1, and what memberships tell is told but once."""
    gram, means, residual = total * sums.gram, sums.means, -total * sums.pull
    size, cross = gram[:, -1, -1], gram[:, :-1, -1]
    share = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 0)[:, None]
    around = gram[:, :-1, :-1] - (cross * share)[:, :, None] * cross[:, None]
    centre, rest = means + cross * share, residual[:, -1]
    squares = diagonals(around) + size[:, None] * jnp.square(centre)
    return _Centred(centre, around, squares, residual[:, :-1] - rest[:, None] * cross * share, size, rest)


def tied(groups: int = 3, *, init_scale: float = 1.0) -> Tied:
    """Construct linear experts whose coefficients share a few values each.

    Parameters
    ----------
    groups : int, default 3
        Number of values Q of an expert. `hyper["n_groups"]`, which can be an axis of a sweep, may set fewer.
    init_scale : float, default 1.0
        Standard deviation of the values that a gradient fit begins with, times sqrt(d).

    Returns
    -------
    Tied
        The experts. A fit of the likelihood wants a family with `expected_log_prob` (`families.gaussian`).

    Raises
    ------
    ValueError
        If groups is below 1 or init_scale below 0.

    Notes
    -----
    The d coefficients of expert k fall into Q groups with one value each:

        eta_k(x) = intercept_k + sum over j of  x_j values[k, g(k, j)]        P(g(k, j) = q) = shares[k, q].

    The likelihood sums over Q^d memberships. Fits use the lower bound of independent memberships (mean field) in its place,
    and EM ascends that bound exactly. Features should be in comparable units, because one number multiplies several of them.
    """
    return Tied(_checks.count("groups", groups), _checks.number_from_0("init_scale", init_scale))


def icl(fit: Any, *, form: str = "published") -> Any:
    """Return the integrated completed likelihood of tied experts; higher is better.

    Parameters
    ----------
    fit : Fit
        One fit of `experts.tied` by a likelihood, or all fits of a sweep (`result.fits`), with any leading axes.
    form : {"published", "full"}, default "published"
        Which terms are subtracted, see Notes.

    Returns
    -------
    numpy.ndarray or float
        A total over rows, with the leading axes of the fit.

    Raises
    ------
    ValueError
        If the fit has other experts or no likelihood, or for another form.

    Notes
    -----
    Let n be the total weight of the rows, d the features, K the experts and Q the groups that take part, and J the lower
    bound, a total: minus the objective, penalties included, times n.

    - "published": J - (K - 1) d log(n) / 2 - K (Q - 1) log(d) / 2 - K Q log(n) / 2, for a softmax gate and a model without
      intercepts.
    - "full": J less the entropy of the memberships and the entropy of the rows' experts (by the likeliest expert of each
      row, as in `Fit.icl`), - D log(n) / 2 - K (Q - 1) log(d) / 2. D is `fit.degrees_of_freedom`: those of the gate, an
      intercept and Q values for each expert, and the scales.

    References
    ----------
    Biernacki, Celeux and Govaert (2000).
    """
    if form not in FORMS:
        raise ValueError(f"form: {form!r} was given; want one of {list(FORMS)}")
    params = fit.params["experts"] if hasattr(fit, "params") else None
    if not (isinstance(params, dict) and "memberships" in params and "n_groups" in params):
        raise ValueError("fit: one of other experts was given; want a fit of experts.tied()")
    if fit.rows is None or np.isnan(fit.log_likelihood).all():
        raise ValueError("fit: one without a likelihood was given; want one by fit_em, or with losses.nll()")
    n, log_n = fit.rows, np.log(fit.rows)
    n_groups = np.asarray(params["n_groups"])
    d = params["memberships"].shape[-2]
    active = np.asarray(fit.params["active"]) > 0 if "active" in fit.params else np.ones(n_groups.shape, bool)
    count, proportions = active.sum(axis=-1), np.where(active, n_groups - 1, 0).sum(axis=-1)
    bound = -fit.objective * n - proportions * np.log(d) / 2
    if form == "published":
        return bound - ((count - 1) * d + np.where(active, n_groups, 0).sum(axis=-1)) * log_n / 2
    entropy = np.where(active, _entropies(np.asarray(params["memberships"]), n_groups), 0).sum(axis=-1)
    return bound - entropy + fit.classified - fit.degrees_of_freedom * log_n / 2


def _entropies(logits: np.ndarray, n_groups: np.ndarray) -> np.ndarray:
    """Of the memberships of each expert, (..., K), for logits (..., K, d, Q)."""
    taking = np.arange(logits.shape[-1]) < n_groups[..., None, None]
    logits = np.where(taking, logits, _NEVER)
    logs = logits - logits.max(axis=-1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(axis=-1, keepdims=True))
    entropies: np.ndarray = -(np.exp(logs) * logs).sum(axis=(-2, -1))
    return entropies
