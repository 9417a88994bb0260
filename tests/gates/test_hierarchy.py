"""Hierarchical gates: products over the branches by hand, the softmax gate, mixtools, trees drawn and recovered."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import moejax
from moejax import experts, families, gates, plots

pytestmark = pytest.mark.usefixtures("float64")

KEY = jax.random.key(0)
# Nitric oxide in the exhaust of an engine, and the equivalence ratio of its fuel (Brinkman 1981).
NITRIC_OXIDE = """
3.741 2.295 1.498 2.881 0.76 3.12 0.638 1.17 2.358 0.606 3.669 1 0.981 1.192 0.926 1.59 1.806 1.962 4.028 3.148 1.836
2.845 1.013 0.414 0.812 0.374 3.623 1.869 2.836 3.567 0.866 1.369 0.542 2.739 1.2 1.719 3.423 1.634 1.021 2.157 3.361
1.39 1.947 0.962 0.571 2.219 1.419 3.519 1.732 3.206 2.471 1.777 2.571 3.952 3.931 1.587 1.397 3.536 2.202 0.756 1.62
3.656 2.964 3.76 0.672 3.677 3.517 3.29 1.139 0.727 2.581 0.923 1.527 3.388 2.085 0.966 3.488 0.754 0.797 2.064 3.732
0.586 0.561 0.563 0.678 0.37 0.53 1.9
"""
EQUIVALENCE = """
0.907 0.761 1.108 1.016 1.189 1.001 1.231 1.123 1.042 1.215 0.93 1.152 1.138 0.601 0.696 0.686 1.072 1.074 0.934 0.808
1.071 1.009 1.142 1.229 1.175 0.568 0.977 0.767 1.006 0.893 1.152 0.693 1.232 1.036 1.125 1.081 0.868 0.762 1.144
1.045 0.797 1.115 1.07 1.219 0.637 0.733 0.715 0.872 0.765 0.878 0.811 0.676 1.045 0.968 0.846 0.684 0.729 0.911 0.808
1.168 0.749 0.892 1.002 0.812 1.23 0.804 0.813 1.002 0.696 1.199 1.03 0.602 0.694 0.816 1.037 1.181 0.899 1.227 1.18
0.795 0.99 1.201 0.629 0.608 0.584 0.562 0.535 0.655
"""


def numbers(text):
    return np.array(text.split(), float)


def mixture(gate, k, **family):
    return moejax.moe(experts.linear(), gate, k, family=families.gaussian(**family))


# ---- probabilities --------------------------------------------------------------------------------------------------


@st.composite
def trees(draw, most=7):
    """Nested lists with the numbers of up to `most` experts as leaves."""
    leaves = draw(st.permutations(range(draw(st.integers(2, most)))))

    def grown(part):
        if len(part) == 1:
            return part[0]
        cuts = sorted(draw(st.sets(st.integers(1, len(part) - 1), min_size=1)))
        return [grown(part[a:b]) for a, b in zip([0, *cuts], [*cuts, len(part)], strict=True)]

    tree = grown(list(leaves))
    return tree


def walked(tree, logits):
    """Log probabilities by expert, from logits by branch, breadth first, of one row: one split after another."""
    found, waiting, used = {}, [(tree, 0.0)], 0
    for node, log_prob in waiting:
        if isinstance(node, list):
            shares = special.log_softmax(logits[used : used + len(node)])
            used += len(node)
            waiting.extend((child, log_prob + share) for child, share in zip(node, shares, strict=True))
        else:
            found[node] = log_prob
    return np.array([found[k] for k in sorted(found)])


@settings(max_examples=30, deadline=None)
@given(trees(), st.integers(0, 2**31), st.sampled_from([0.1, 3.0, 100.0]))
def test_probabilities_are_products_over_the_branches(tree, seed, size):
    gate, rng = gates.hierarchical(tree), np.random.default_rng(seed)
    leaves = gate.layout.below.shape[1]
    x = rng.normal(size=(5, 2))
    params = jax.tree.map(lambda v: jnp.asarray(size * rng.normal(size=v.shape)), gate.init(KEY, leaves, x))
    logits = x @ np.asarray(params["weights"]).T + np.asarray(params["intercept"])
    want = np.stack([walked([*range(tree[0])] if len(tree) == 1 else tree, row) for row in logits], axis=1)
    np.testing.assert_allclose(gate.log_probs(params, gate.prepare(x)), want, rtol=1e-9, atol=1e-9)


def test_levels_are_a_balanced_tree():
    assert gates.hierarchical((3, 2)) == gates.hierarchical([(0, 1), (2, 3), (4, 5)])
    assert gates.hierarchical((2, 2, 2)) == gates.hierarchical((((0, 1), (2, 3)), ((4, 5), (6, 7))))
    assert hash(gates.hierarchical((2, 2))) == hash(gates.hierarchical([[0, 1], [2, 3]]))


# ---- fits -----------------------------------------------------------------------------------------------------------


def swept(model, x, y, axes):
    return moejax.sweep(moejax.fit_em(model), axes, progress=False)(KEY, x, y)


def test_a_tree_of_one_level_is_the_softmax_gate():
    x, y = numbers(NITRIC_OXIDE)[:, None], numbers(EQUIVALENCE)
    for k in (2, 3):
        tree, softmax = (mixture(gate, k) for gate in (gates.hierarchical((k,)), gates.softmax()))
        params = softmax.init(KEY, x)
        own = {**params, "gate": {name: params["gate"][name] for name in ("weights", "intercept")}}
        np.testing.assert_array_equal(tree.log_prob(own, x, y), softmax.log_prob(params, x, y))
        one, other = (swept(m, x, y, {"l1_gate": [0.0, 0.01], "restart": 3}).fits for m in (tree, softmax))
        np.testing.assert_allclose(one.objective, other.objective, rtol=1e-10)
        np.testing.assert_array_equal(one.degrees_of_freedom, other.degrees_of_freedom)


def test_the_likelihood_of_mixtools():
    """hmeEM of mixtools 2.0.0 on its data NOdata: the best of 20 starts by its regmixEM has 123.6205906."""
    x, y = numbers(NITRIC_OXIDE)[:, None], numbers(EQUIVALENCE)
    fits = swept(mixture(gates.hierarchical((2,)), 2), x, y, {"restart": 8}).fits
    best = np.nanargmax(fits.log_likelihood)
    assert fits.log_likelihood[best] == pytest.approx(123.6205906, abs=2e-6)
    np.testing.assert_allclose(sorted(np.exp(fits.params["family"]["log_scale"][best])), [0.02298072, 0.04456707], rtol=1e-4)
    weights, intercept = (fits.params["experts"][name][best].ravel() for name in ("weights", "intercept"))
    np.testing.assert_allclose(sorted(weights), [-0.08409612, 0.08786477], rtol=1e-4)
    np.testing.assert_allclose(sorted(intercept), [0.56129760, 1.24848916], rtol=1e-4)


def drawn(n=600, seed=1):
    """Four regressions; the first feature decides on one half, the second and third within the halves."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    halves = rng.random(n) < special.expit(8 * x[:, 0])
    within = rng.random(n) < special.expit(8 * np.where(halves, x[:, 1], x[:, 2]))
    label = np.where(halves, np.where(within, 0, 1), np.where(within, 2, 3))
    truth = np.array([[2.0, -1, 0, 1], [-2, 1, 1, 0], [0, 3, -1, -1], [1, 0, 2, 2]])
    return x, (x * truth[label]).sum(axis=1) + 0.2 * rng.normal(size=n), label, truth


def test_a_tree_that_drew_the_data_is_found_again():
    x, y, label, truth = drawn()
    model = mixture(gates.hierarchical((2, 2)), 4)
    fits = swept(model, x, y, {"l1_gate": [0.003], "restart": 12}).fits
    params = jax.tree.map(lambda v: v[0, np.argmin(fits.objective)], fits.params)
    own = {
        "experts": {"weights": jnp.asarray(truth), "intercept": jnp.zeros(4)},
        "gate": {"weights": jnp.zeros((6, 4)).at[jnp.array([0, 2, 4]), jnp.arange(3)].set(8.0), "intercept": jnp.zeros(6)},
        "family": {"log_scale": jnp.full(4, np.log(0.2))},
    }
    true = np.asarray(model.log_prob(own, x, y)).sum()
    assert np.asarray(model.log_prob(params, x, y)).sum() > true - 15  # the penalty takes some; freely fitted it is above
    probs = np.asarray(model.gate_probs(params, x))
    cost = np.abs(np.asarray(params["experts"]["weights"])[:, None] - truth).sum(axis=2)
    found = cost.argmin(axis=1)
    assert sorted(found) == [0, 1, 2, 3]
    routed = np.asarray(model.gate_probs(own, x)).argmax(axis=1)
    assert (found[probs.argmax(axis=1)] == label).mean() > (routed == label).mean() - 0.05
    assert sorted(found[:2]) in ([0, 1], [2, 3])  # siblings are siblings
    weights = np.asarray(params["gate"]["weights"])
    assert np.abs(weights[:2]).max(axis=0).argmax() == 0
    assert (weights == 0).sum() >= 10


def test_gradient_fits_reach_the_likelihood_of_em():
    x, y, *_ = drawn(200)
    model = mixture(gates.hierarchical(((0, (1, 2)), 3)), 4)
    hyper = {"l2_gate": 0.01, "l2_experts": 0.01}
    em = moejax.fit_em(model, init="kmeans")(KEY, x, y, hyper)
    gradient = moejax.fit_gradient(model, moejax.losses.nll(), optimizer="accelerated", steps=300)
    again = gradient(KEY, x, y, hyper, start={name: em.params[name] for name in ("experts", "gate", "family")})
    assert em.status == moejax.Status.CONVERGED
    assert float(again.objective) == pytest.approx(float(em.objective), abs=1e-8)  # nothing is left to gain


def test_degrees_of_freedom_are_those_of_the_splits():
    gate = gates.hierarchical((3, 2))
    params = jax.tree.map(jnp.ones_like, gate.init(KEY, 6, np.zeros((1, 4))))
    everyone = jnp.ones(6, bool)
    assert gate.degrees_of_freedom(params, everyone) == (2 + 3 * 1) * (4 + 1)
    sparse = {**params, "weights": params["weights"].at[0, 0].set(0).at[3:5, 1].set(0)}
    # One of three is no redundant coefficient less; of a pair, the redundant one and its twin are one less.
    assert gate.degrees_of_freedom(sparse, everyone) == 25 - 0 - 1
    # Of experts 1 to 3, two splits with two branches are left, and one branch of no choice.
    assert gate.degrees_of_freedom(params, jnp.arange(6) < 3) == 2 * (4 + 1)


def test_fewer_experts_share_what_is_left():
    x, y, *_ = drawn(100)
    model = mixture(gates.hierarchical(((0, 1), 2)), 3)
    params = model.init(KEY, x)
    probs = np.asarray(model.gate_probs(params, x))[:, :2]
    masked = np.asarray(model.gate_probs({**params, "active": jnp.array([1.0, 1, 0])}, x))
    np.testing.assert_allclose(masked[:, :2], probs / probs.sum(axis=1, keepdims=True), rtol=1e-9)
    fits = swept(model, x, y, {"n_experts": [1, 2, 3], "l2_gate": [0.01], "restart": 2}).fits
    pair = swept(mixture(gates.hierarchical((2,)), 2), x, y, {"l2_gate": [0.01], "restart": 6}).fits
    assert (np.asarray(fits.status) & int(moejax.Status.CONVERGED)).all()
    assert np.min(fits.objective[1]) >= np.min(pair.objective) - 1e-9  # the same model, under a penalty of more numbers


def test_a_split_that_is_left_with_one_branch_does_nothing():
    """An optimum of the tree without its last leaf is one of the whole, under a penalty on the idle coefficients."""
    x, y, *_ = drawn(100)
    whole, less = (mixture(gates.hierarchical(tree), k) for tree, k in ((((0, 1), (2, 3)), 4), (((0, 1), 2), 3)))
    hyper = {"l1_gate": 0.01, "l1_experts": 0.01}
    other = moejax.fit_em(less)(KEY, x, y, hyper, start=less.init(KEY, x))
    padded = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.ones_like(leaf[:1])]), other.params)
    padded["gate"] = jax.tree.map(lambda leaf: jnp.concatenate([leaf, jnp.ones_like(leaf[:2])]), other.params["gate"])
    fit = moejax.fit_em(whole)(KEY, x, y, {**hyper, "n_experts": 3}, start=padded)
    for one in (fit, other):
        assert one.status & int(moejax.Status.CONVERGED)
    assert fit.objective == pytest.approx(float(other.objective), abs=1e-10)
    assert int(fit.degrees_of_freedom) == int(other.degrees_of_freedom)
    assert (fit.params["gate"]["weights"][4:] == 0).all()
    np.testing.assert_allclose(whole.gate_probs(fit.params, x)[:, :3], less.gate_probs(other.params, x), atol=1e-6)


# ---- told and drawn -------------------------------------------------------------------------------------------------

TOLD = gates.hierarchical(((0, 1), (2, 3, 4)))
PARAMS = {
    "weights": jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 2, 0.5], [0, -2, 0.5], [0, 0, 3], [1, 0, 0], [0, 0, 0]]),
    "intercept": jnp.zeros(7),
}
SHARES = [0.3, 0.2, 0.25, 0.15, 0.1]


def test_a_tree_is_told_branch_by_branch():
    assert TOLD.text(PARAMS, SHARES, ["age", "income", "size"], largest=1).splitlines() == [
        "├─ split 50%: +1.00 age",
        "│  ├─ expert 1 30%: +4.00 income",
        "│  └─ expert 2 20%",
        "└─ split 50%",
        "   ├─ expert 3 25%: +3.00 size",
        "   ├─ expert 4 15%: +1.00 age",
        "   └─ expert 5 10%",
    ]
    assert (
        TOLD.text(PARAMS).splitlines()[1] == "│  ├─ expert 1: +4.00 x2"
    )  # what both branches have is not in the difference


def test_a_tree_is_drawn_as_wide_as_its_shares():
    ax = plots.gate_tree(TOLD.branches(PARAMS, SHARES))
    ax.figure.canvas.draw()
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    assert {"expert 1 30%", "+4.00 x2", "expert 5 10%"} <= set(texts)
    lines = ax.get_lines()
    assert len(lines) == 7
    widths = np.array([line.get_linewidth() for line in lines])
    shares = np.array([0.5, 0.5, *SHARES])
    np.testing.assert_allclose(np.polyfit(shares, widths, 1), [7, 0.8], rtol=1e-6)
    ends = [line.get_xydata()[-1] for line in lines]
    assert [end[0] for end in ends] == [1, 1, 2, 2, 2, 2, 2]
    heights = [end[1] for end in ends[2:]]
    assert heights == sorted(heights, reverse=True)
    assert len(plots.gate_tree(TOLD.branches(PARAMS), ax=ax).get_lines()) == 14


BAD = [
    (lambda: gates.hierarchical((2, 1)), "^tree: branches of a level: 1 was given; want a whole number of at least 2"),
    (lambda: gates.hierarchical(3), "^tree: 3 has a split of fewer than two branches"),
    (lambda: gates.hierarchical(()), "^tree: .* fewer than two branches"),
    (lambda: gates.hierarchical(((0, 1), (2,))), "^tree: .* fewer than two branches"),
    (lambda: gates.hierarchical(((0, 1), 1)), r"^tree: .* has the leaves \[0, 1, 1\]; want each expert's number once"),
    (lambda: gates.hierarchical(((0, 1), 3)), r"^tree: .* has the leaves \[0, 1, 3\]"),
    (lambda: gates.hierarchical(((0, 1), "b")), "^tree: 'b' was given; want whole numbers"),
    (lambda: gates.hierarchical((2, 2), init_scale=-1), "^init_scale"),
    (lambda: mixture(gates.hierarchical((2, 2)), 3).init(KEY, np.zeros((4, 2))), "^tree: .* has 4 leaves; want 3"),
    (lambda: moejax.fit_em(mixture(TOLD, 4))(KEY, np.eye(5), np.arange(5.0)), "^tree: .* has 5 leaves; want 4"),
    (lambda: TOLD.text({"weights": np.zeros((3, 2))}), "^params: weights: shape"),
    (lambda: TOLD.text(PARAMS, [1.0]), "^shares: shape"),
    (lambda: TOLD.text(PARAMS, feature_names=["one"]), "^feature_names: 1 names were given; want 3"),
    (lambda: plots.gate_tree([]), "^branches: .* want what `branches` of a hierarchical gate returns"),
]


@pytest.mark.parametrize(("call", "words"), BAD)
def test_bad_input_is_one_error(call, words):
    with pytest.raises(ValueError, match=words):
        call()
