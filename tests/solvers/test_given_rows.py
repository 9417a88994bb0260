"""Rows as users give them: of 16 bits, of weights of any size, absent, in groups of any labels, of no columns or events."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import moejax
from moejax import Status, experts, families, gates, losses
from moejax._precision import precision

KEY, N = jax.random.key(0), 48
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2)).astype(np.float32)
LABELS = np.repeat(np.arange(18), [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 5, 5, 5, 5, 5, 5])  # of groups of 1, 2 and 5 rows
FIRST = np.unique(LABELS, return_index=True)[1]
SIDE = np.isin(LABELS, [0, 1, 2, 3, 4, 6, 7, 12])  # groups of few rows mostly
Y = (np.where(SIDE, 1 + 2 * X[:, 0], -1 - X[:, 1]) + 0.3 * RNG.normal(size=N)).astype(np.float32)
COUNTS = RNG.poisson(np.exp(np.clip(Y, None, 2))).astype(np.float32)
WEIGHTS = RNG.uniform(0.5, 2, N)


def model_of(family=None, gate=None, k=2, outputs=None):
    family = families.gaussian() if family is None else family
    return moejax.moe(experts.linear(outputs), gate or gates.constant(), k, family=family)


MODEL = model_of()
EM = moejax.fit_em(MODEL, max_iter=30)
OF_COUNTS = moejax.fit_em(model_of(families.poisson()), max_iter=30)
CALLS = {
    "em": lambda x, y, fit=EM, **more: fit(KEY, x, y, **more),
    "gradient": lambda x, y, fit=EM, **more: moejax.fit_gradient(fit.model, losses.nll(), steps=30)(KEY, x, y, **more),
    "path": lambda x, y, fit=EM, **more: moejax.path(fit)(KEY, x, y, {"l1_experts": [0.01, 0.1]}, **more),
    "sequence": lambda x, y, fit=EM, **more: moejax.solvers.sequence(fit, "l1_experts", 3, KEY, x, y, **more),
    "sweep": lambda x, y, fit=EM, **more: moejax.sweep(fit, {"fold": 2}, progress=False)(KEY, x, y, **more).fits,
    "held out": lambda x, y, fit=EM, **more: moejax.sweep(fit, {"fold": 2}, progress=False)(KEY, x, y, **more).held_out,
    "score": lambda x, y, fit=EM, weights=None, **more: fit.score(
        fit.model.init(KEY, X), x, y, weights, more.get("offset"), more.get("groups")
    ),
    "usage": lambda x, y, fit=EM, weights=None, **more: list(
        vars(moejax.usage(fit.model, fit.model.init(KEY, X), x, y, weights=weights, offset=more.get("offset"))).values()
    ),
}
call_of = pytest.mark.parametrize("call", CALLS)


@pytest.fixture
def double():
    with precision(np.dtype(float)):
        yield


def assert_same(got, want, **tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})


# ---- types of few bits --------------------------------------------------------------------------------------------------


@call_of
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_numbers_of_16_bits_are_fitted_in_float32(call, dtype):
    assert_same(CALLS[call](X.astype(dtype), Y), CALLS[call](X.astype(dtype).astype(np.float32), Y))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_arrays_of_jax_of_16_bits_are_float32_too(dtype):
    x, params = jnp.asarray(X, dtype), MODEL.init(KEY, X)
    assert {leaf.dtype for leaf in jax.tree.leaves(EM(KEY, x, Y)) if leaf.dtype.kind == "f"} == {np.dtype(np.float32)}
    assert jax.jit(lambda x: EM(KEY, x, Y).objective)(x).dtype == np.float32
    assert (MODEL.predict(params, x).dtype, MODEL.log_prob(params, x, jnp.asarray(Y, dtype)).dtype) == (np.float32,) * 2


# ---- weights ------------------------------------------------------------------------------------------------------------


@call_of
@pytest.mark.parametrize("size", [1e306, 1e37, 1e-40, 1e-306])
def test_the_size_of_weights_does_not_matter(call, size):
    want = CALLS[call](X, Y, weights=WEIGHTS / WEIGHTS.max())
    assert_same(CALLS[call](X, Y, weights=WEIGHTS * size), want)


def test_ordinary_weights_are_frequencies():
    twice = EM(KEY, X, Y, weights=2 * np.ones(N))
    assert float(twice.log_likelihood) == pytest.approx(2 * float(EM(KEY, X, Y).log_likelihood), rel=1e-6)


ABSENT = np.arange(N) % 7 == 3
PRESENT = {"weights": np.where(ABSENT, 0, WEIGHTS)}


@call_of
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_rows_of_weight_0_may_hold_anything(call, array):
    """A target that the family cannot have, and no number at all."""
    want = CALLS[call](array(X), array(COUNTS), fit=OF_COUNTS, **PRESENT)
    for x, y in (0.0, -3.0), (np.nan, np.inf):
        x, y = (array(np.where(at, value, rows)) for at, value, rows in ((ABSENT[:, None], x, X), (ABSENT, y, COUNTS)))
        offset = array(np.where(ABSENT, y, 0).astype(np.float32))
        assert_same(CALLS[call](x, y, fit=OF_COUNTS, offset=offset, **PRESENT), want, rtol=1e-4, atol=1e-5)


def test_targets_of_rows_that_count_are_checked():
    for call in CALLS.values():
        with pytest.raises(ValueError, match=r"^y: -3 was given"):
            call(X, np.where(ABSENT, -3, COUNTS), fit=OF_COUNTS, weights=WEIGHTS)


def test_rows_of_weight_0_are_in_no_group():
    """A group of which the first row is absent has the weight of the others."""
    labels = np.where(ABSENT, None, LABELS)
    weights = np.where(ABSENT, 0.0, 1.0)
    got = EM(KEY, X, Y, weights=weights, groups=labels, start_responsibilities=np.c_[SIDE, ~SIDE])
    assert_same(EM(KEY, X, Y, weights=weights, groups=LABELS, start_responsibilities=np.c_[SIDE, ~SIDE]), got)
    rest = EM(KEY, X[~ABSENT], Y[~ABSENT], groups=LABELS[~ABSENT], start_responsibilities=np.c_[SIDE, ~SIDE][~ABSENT])
    assert float(got.log_likelihood) == pytest.approx(float(rest.log_likelihood), rel=1e-4)


# ---- groups -------------------------------------------------------------------------------------------------------------

OF_ANY_TYPE = {
    "text": np.array([f"patient {label}" for label in LABELS]),
    "a list of text": [str(label) for label in LABELS],
    "bytes": np.array([b"%d" % label for label in LABELS]),
    "pairs": [(int(label), "a") for label in LABELS],
    "sets": np.array([frozenset([label]) for label in LABELS], object),
    "several types": [int(label) if label % 2 else str(label) for label in LABELS],
    "real numbers": LABELS / 2,
    "dates": np.datetime64("2020-01-31") + LABELS,
    "a list of whole numbers": LABELS.tolist(),
    "booleans": None,
}


@pytest.mark.parametrize("kind", OF_ANY_TYPE)
def test_labels_of_groups_are_of_any_type(kind):
    labels, numbers = OF_ANY_TYPE[kind], LABELS
    if labels is None:
        labels, numbers = SIDE, SIDE.astype(int)
    params = MODEL.init(KEY, X)
    for call in ("em", "path", "held out", "score"):
        assert_same(CALLS[call](X, Y, groups=labels), CALLS[call](X, Y, groups=numbers))
    for method in (MODEL.log_prob, MODEL.responsibilities):
        np.testing.assert_array_equal(method(params, X, Y, groups=labels), method(params, X, Y, groups=numbers))


def test_categories_of_pandas_are_labels():
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series([f"g{label}" for label in LABELS], dtype="category")
    assert_same(EM(KEY, X, Y, groups=labels), EM(KEY, X, Y, groups=LABELS))
    with pytest.raises(ValueError, match=r"^groups: row 0 has the label"):
        EM(KEY, X, Y, groups=labels.astype(object).where(LABELS > 0, pandas.NA))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([None, *LABELS[1:]], "row 0 has the label None; want one that has a hash, and none missing"),
        (np.where(LABELS == 3, np.nan, LABELS), "row 3 has the label nan"),
        ([[1]] * N, r"row 0 has the label \[1\]"),
        (LABELS[:-1], r"shape \(47,\) was given; want \(48,\)"),
        (np.stack([LABELS, LABELS], axis=1), r"shape \(48, 2\)"),
        (3, r"shape \(\)"),
    ],
)
def test_rows_without_a_group_are_named(groups, message):
    calls = [lambda: EM(KEY, X, Y, groups=groups), lambda: MODEL.log_prob(MODEL.init(KEY, X), X, Y, groups=groups)]
    for call in [*calls, lambda: moejax.sweep(EM, {"restart": 2}, progress=False)(KEY, X, Y, groups=groups)]:
        with pytest.raises(ValueError, match=rf"^groups: {message}"):
            call()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("gate", [gates.constant(), gates.softmax()])
def test_log_prob_of_groups_adds_up_to_the_log_likelihood(gate):
    model = model_of(gate=gate)
    fit = moejax.fit_em(model)(KEY, X.astype(float), Y.astype(float), {"l2_gate": 0.01}, groups=LABELS)
    each = np.asarray(model.log_prob(fit.params, X.astype(float), Y.astype(float), groups=LABELS))
    assert each[FIRST].sum() == pytest.approx(float(fit.log_likelihood), rel=1e-10)
    np.testing.assert_array_equal(each, each[FIRST][LABELS])
    by_hand = np.asarray(model.log_prob(fit.params, X.astype(float), Y.astype(float), groups=np.arange(N)))
    np.testing.assert_allclose(by_hand, model.log_prob(fit.params, X.astype(float), Y.astype(float)), rtol=1e-12)
    rows = np.log(np.asarray(model.gate_probs(fit.params, X.astype(float))))[FIRST]
    scale = np.exp(np.asarray(fit.params["family"]["log_scale"]))
    density = stats.norm.logpdf(Y[:, None], np.asarray(model.expert_predictions(fit.params, X.astype(float))), scale)
    total = logsumexp(rows + np.add.reduceat(density, FIRST), axis=1)  # rows of a group are side by side
    np.testing.assert_allclose(each[FIRST], total, rtol=1e-10)


def plain_em(x, y, first, r, steps=2000):
    """Proportions of groups and log-likelihood where EM by least squares ends, from responsibilities (G, K) of groups."""
    rows, sizes = np.c_[np.ones(len(y)), x], np.diff(np.r_[first, len(y)])
    for _ in range(steps):
        logs = []
        for w in np.repeat(r, sizes, axis=0).T:
            b = np.linalg.lstsq(rows * np.sqrt(w)[:, None], y * np.sqrt(w), rcond=None)[0]
            scale = np.sqrt((w * (y - rows @ b) ** 2).sum() / w.sum())
            logs.append(np.add.reduceat(stats.norm.logpdf(y, rows @ b, scale), first))
        share = r.mean(axis=0)
        logs = np.array(logs).T + np.log(share)
        r = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return share, logsumexp(logs, axis=1).sum()


@pytest.mark.usefixtures("double")
def test_proportions_of_groups_are_those_of_plain_em():
    x, y, begin = X.astype(float), Y.astype(float), np.where(np.c_[SIDE, ~SIDE], 0.9, 0.1)
    share, log_likelihood = plain_em(x, y, FIRST, begin[FIRST])
    fit = moejax.fit_em(MODEL, tol=1e-10)(KEY, x, y, groups=LABELS, start_responsibilities=begin)
    assert float(fit.log_likelihood) == pytest.approx(log_likelihood, rel=1e-9)
    np.testing.assert_allclose(MODEL.proportions(fit.params), share, rtol=1e-6)
    assert abs(share[0] - np.mean(SIDE)) > 0.1  # groups and rows have other shares
    np.testing.assert_allclose(MODEL.gate_probs(fit.params, x), np.tile(share, (N, 1)), rtol=1e-6)


PROPORTIONS = np.array([0.2, 0.3, 0.5])


@pytest.mark.parametrize("gate", [gates.constant(), gates.fixed(PROPORTIONS), gates.gaussian()])
def test_proportions_of_a_gate(gate):
    model = model_of(gate=gate, k=3)
    params = model.init(KEY, X)
    if "logits" in params["gate"]:
        params["gate"]["logits"] = jnp.log(PROPORTIONS) + 5
    np.testing.assert_allclose(model.proportions(params), PROPORTIONS, rtol=1e-5)
    among = model.proportions({**params, "active": jnp.array([1.0, 1.0, 0.0])})
    np.testing.assert_allclose(among, [0.4, 0.6, 0], rtol=1e-5)


@pytest.mark.parametrize("gate", [gates.softmax(), gates.top1(), gates.hierarchical((0, 1))])
def test_a_gate_that_sees_x_has_no_proportions(gate):
    model = model_of(gate=gate)
    with pytest.raises(ValueError, match=r"^proportions: .* depend on x; want gate_probs"):
        model.proportions(model.init(KEY, X))


# ---- no columns ---------------------------------------------------------------------------------------------------------


def normal_mixture(y, r, steps=2000):
    """Proportions, means, scales and log-likelihood of a mixture of normal distributions, by EM from (n, K)."""
    for _ in range(steps):
        size = r.sum(axis=0)
        mean = y @ r / size
        scale = np.sqrt(((y[:, None] - mean) ** 2 * r).sum(axis=0) / size)
        logs = np.log(size / len(y)) + stats.norm.logpdf(y[:, None], mean, scale)
        r = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return size / len(y), mean, scale, logsumexp(logs, axis=1).sum()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "gate", [gates.constant(), gates.softmax(), gates.softmax(reference=True), gates.hierarchical((0, 1)), gates.gaussian()]
)
def test_without_columns_a_fit_is_a_mixture_of_distributions(gate):
    rng = np.random.default_rng(1)
    low = np.arange(60) < 20
    y = np.where(low, rng.normal(-2, 0.5, 60), rng.normal(3, 1, 60))
    share, mean, scale, log_likelihood = normal_mixture(y, np.c_[low, ~low].astype(float))
    model = model_of(gate=gate)
    fit = moejax.fit_em(model)(KEY, np.zeros((60, 0)), y)
    assert fit.status & Status.CONVERGED
    order = np.argsort(fit.params["experts"]["intercept"])
    assert float(fit.log_likelihood) == pytest.approx(log_likelihood, abs=1e-6)
    np.testing.assert_allclose(np.asarray(fit.params["experts"]["intercept"])[order], mean, atol=1e-5)
    np.testing.assert_allclose(np.exp(fit.params["family"]["log_scale"])[order], scale, rtol=1e-5)
    np.testing.assert_allclose(model.gate_probs(fit.params, np.zeros((1, 0)))[0][order], share, rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        model_of(outputs=2),
        model_of(families.categorical(3), gates.softmax(), outputs=3),
        model_of(families.poisson()),
        model_of(gate=gates.fixed()),
        model_of(gate=gates.top1()),
    ],
)
def test_every_kind_of_model_takes_no_columns(model):
    empty = np.zeros((N, 0), np.float32)
    y = {2: np.c_[Y, -Y], 3: LABELS % 3.0}.get(model.expert.outputs, COUNTS)
    axes = {"l1_experts": [0.0, 0.1], "l2_experts": [0.0, 0.1], "group_experts": [0.0, 0.1], "fold": 2}
    grid = moejax.sweep(moejax.fit_em(model, max_iter=5), axes, progress=False, optimize=False)(KEY, empty, y)
    objective = np.asarray(grid.fits.objective)
    assert np.isfinite(objective).all()
    np.testing.assert_allclose(objective, np.broadcast_to(objective[:1, :1, :1], objective.shape), rtol=1e-5)  # of nothing
    assert np.isfinite(model.predict(jax.tree.map(lambda v: v[0, 0, 0, 0], grid.fits.params), empty)).all()


def test_what_needs_columns_says_so():
    empty = np.zeros((N, 0), np.float32)
    for init in ("kmeans", "centres"):
        with pytest.raises(ValueError, match=rf"^init: '{init}' was given for inputs that are no array"):
            moejax.fit_em(MODEL, init=init)(KEY, empty, Y)
    with pytest.raises(ValueError, match=r"^x: no columns were given to experts.tied"):
        moejax.fit_em(moejax.moe(experts.tied(), gates.constant(), 2, family=families.gaussian()))(KEY, empty, Y)


# ---- no events ----------------------------------------------------------------------------------------------------------

ALIKE = {
    "no counts": (families.poisson(), None, np.zeros(N), 0.0),
    "counts of three": (families.poisson(), None, np.full(N, 3.0), N * stats.poisson.logpmf(3, 3)),
    "no events": (families.bernoulli(), None, np.zeros(N), 0.0),
    "events alone": (families.bernoulli(), None, np.ones(N), 0.0),
    "one class": (families.categorical(3), 3, np.ones(N), 0.0),
}


@pytest.mark.parametrize("solver", ["em", "gradient"])
@pytest.mark.parametrize("case", ALIKE)
def test_probabilities_of_targets_that_are_all_the_same(case, solver):
    """The supremum of the likelihood is known: each target has the probability 1, or that of its mean."""
    family, outputs, y, best = ALIKE[case]
    model = model_of(family, outputs=outputs)
    fit = moejax.fit_em(model) if solver == "em" else moejax.fit_gradient(model, losses.nll(), "accelerated", steps=300)
    got = fit(KEY, X, y)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got.params))
    assert float(got.log_likelihood) == pytest.approx(best, abs=0.1)
    assert np.isfinite(model.log_prob(got.params, X, 1 - y.clip(0, 1))).all()  # of an event where there was none
    if solver == "em":
        wanted = Status.CONVERGED if case == "counts of three" else Status.SEPARATED_EXPERT
        assert got.status & wanted


def test_a_fold_without_events_is_fitted_and_scored():
    y = np.where(np.arange(N) < 6, 1.0 + np.arange(N), 0)
    folds = np.where(np.arange(N) < 6, 0, 1 + np.arange(N) % 2)
    grid = moejax.sweep(OF_COUNTS, {"fold": folds, "restart": 2}, progress=False)(KEY, X, y)
    assert np.isfinite(grid.held_out).all()
    assert (grid.fits.status[0] & int(Status.SEPARATED_EXPERT)).all()
    moejax.sweep(OF_COUNTS, {"fold": 2}, progress=False)(KEY, X, np.zeros(N))


def test_a_constant_target_of_a_density_is_refused():
    for fit in (EM, moejax.fit_gradient(moejax.moe(experts.linear(), gates.constant(), 2))):
        with pytest.raises(ValueError, match=r"^y: the target is constant"):
            fit(KEY, X, np.ones(N))


# ---- words --------------------------------------------------------------------------------------------------------------


def test_a_status_in_words():
    assert moejax.describe(Status.CONVERGED | Status.STARVED_EXPERT) == "converged, starved expert"
    assert moejax.describe(0) == "none"
    assert moejax.describe(EM(KEY, X, Y).status) in ("converged", "out of steps")
    assert moejax.describe(np.int32(4)) == "diverged"
    for wrong in (np.ones(3, int), 1.5, "converged", None):
        with pytest.raises(ValueError, match=r"^status: .* was given; want"):
            moejax.describe(wrong)
