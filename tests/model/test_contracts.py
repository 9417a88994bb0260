"""Contracts: users' own parts in a few lines, what is refused, and no attribute of a part that is asked for."""

from __future__ import annotations

import ast
import dataclasses
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import moejax
from moejax import _contracts, experts, families, gates, losses, penalties, typing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contracts.md").read_text()
EXAMPLES = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class " in block]
OWN: dict = {}
exec("\n".join(EXAMPLES), OWN)  # the examples of the page, as a reader would copy them

N, K, KEY = 24, 2, jax.random.key(0)
X = np.random.default_rng(0).normal(size=(N, 2)).astype("float32")
Y = np.where(X[:, 0] > 0, X[:, 1], -X[:, 1]) + 0.1 * np.random.default_rng(1).normal(size=N).astype("float32")
PARTS = {
    "expert": (OWN["Bumps"](), gates.constant(), families.gaussian(), "l2_experts"),
    "gate": (experts.linear(), OWN["Nearest"](), families.gaussian(), "l2_gate"),
    "family": (experts.linear(), gates.softmax(), OWN["Logistic"](), "l1_experts"),
    "namespace": (
        types.SimpleNamespace(init=OWN["Bumps"]().init, apply=OWN["Bumps"]().apply, penalized=OWN["Bumps"]().penalized),
        gates.constant(),
        families.gaussian(),
        "l1_experts",
    ),
}


# ---- users' own parts ------------------------------------------------------------------------------------------------


def test_the_examples_are_short():
    assert len(EXAMPLES) == 6
    assert all(len(example[example.index("class") :].strip().splitlines()) < 15 for example in EXAMPLES)


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_of_ones_own_is_fitted_swept_and_selected(kind):
    expert, gate, family, penalty = PARTS[kind]
    model = moejax.moe(expert, gate, K, family=family)
    for fit in (moejax.fit_em(model, max_iter=3), moejax.fit_gradient(model, losses.nll(), steps=3)):
        shapes = jax.eval_shape(lambda key, fit=fit: fit(key, X, Y, {penalty: 0.01}), KEY)
        assert shapes.objective.shape == ()
        along = moejax.path(fit, penalty)
        values = {penalty: np.array([0.1, 0.01])}
        assert jax.eval_shape(lambda key, along=along, values=values: along(key, X, Y, values), KEY).objective.shape == (2,)
    grid = moejax.sweep(moejax.fit_em(model, max_iter=3), {penalty: [0.01, 0.1], "fold": 2}, progress=False)
    assert np.isfinite(moejax.select(grid(KEY, X, Y)).fit.objective).all()


def test_a_penalty_of_ones_own_keeps_coefficients_above_zero():
    model = moejax.moe(experts.linear(), gates.softmax(), K, family=families.gaussian())
    fit = moejax.fit_em(model, penalty=OWN["NonNegative"]())  # to the end, for an extrapolation may step over
    assert (fit(KEY, X, Y, {"positive_experts": 0.01}).params["experts"]["weights"] >= 0).all()
    other = moejax.fit_gradient(model, penalty=[OWN["NonNegative"]()], steps=3, proximal=True)
    assert jax.eval_shape(lambda key: other(key, X, Y, {"positive_experts": 0.01}), KEY).kkt.shape == ()
    with pytest.raises(ValueError, match=r"positive_experts: .* knows no critical weight"):
        moejax.path(fit, "positive_experts")(KEY, X, Y, {"positive_experts": 3})


def test_a_loss_of_ones_own_falls():
    model = moejax.moe(experts.linear(), gates.softmax(), K)
    fit = moejax.fit_gradient(model, OWN["AbsoluteError"](), steps=20, learning_rate=0.05, record_every=1)
    got = fit(KEY, X, Y)
    assert got.objective < got.history[0]
    assert float(fit.score(got.params, X, Y, None)) == pytest.approx(float(got.objective), rel=1e-5)


def test_a_solver_of_ones_own_is_fitted_swept_and_walked():
    """ISTA comes to the optimum of the lasso, which scikit-learn has too."""
    sklearn = pytest.importorskip("sklearn.linear_model")
    model = moejax.moe(experts.linear(), gates.constant(), 1)
    fit = moejax.solvers.fit_with(OWN["Ista"], model)
    got = fit(KEY, X, Y, {"l1_experts": 0.1})
    lasso = sklearn.Lasso(0.05, tol=1e-10).fit(X, Y)  # whose loss is half of ours
    np.testing.assert_allclose(got.params["experts"]["weights"][0], lasso.coef_, atol=1e-5)
    assert moejax.Status.CONVERGED in moejax.Status(int(got.status))
    grid = moejax.sweep(fit, {"l1_experts": [0.1, 0.2], "fold": 2}, progress=False)(KEY, X, Y)
    assert np.isfinite(moejax.select(grid).fit.objective)
    along = moejax.path(fit)(KEY, X, Y, {"l1_experts": [0.1, 0.2]})
    assert float(along.objective[0]) == pytest.approx(float(got.objective), rel=1e-5)


def test_a_completed_record_has_what_it_has_and_the_defaults():
    model = moejax.moe(OWN["Bumps"](3.0), OWN["Nearest"](), K, family=OWN["Logistic"]())
    expert, gate, family = model.expert, model.gate, model.family
    assert (isinstance(expert, typing.Expert), isinstance(gate, typing.Gate), isinstance(family, typing.Family)) == (
        True,
    ) * 3
    assert expert.width == 3.0
    assert expert.prepare(X) is X
    assert (expert.has_m_step, gate.kept, family.shared, dict(gate.hyper)) == (False, None, False, {})
    params = model.init(KEY, X)
    np.testing.assert_allclose(gate.weights(params["gate"], X), np.exp(gate.log_probs(params["gate"], X)), rtol=1e-5)
    assert model.trainable(params)["experts"] == {"centres": True, "height": True}
    assert model.penalized(params)["experts"] == {"centres": False, "height": True}
    assert experts.completed(expert) is expert


def test_leaves_of_no_record_are_guessed_by_name():
    record = types.SimpleNamespace(
        init=lambda key, k, x: {"weights": jnp.ones((k, 2)), "intercept": jnp.ones(k), "count": jnp.ones(k, int)},
        apply=lambda params, x: params["weights"] @ x.T + params["intercept"][:, None],
    )
    model = moejax.moe(record, gates.constant(), K)
    params = model.init(KEY, X)
    assert model.trainable(params)["experts"] == {"weights": True, "intercept": True, "count": False}
    assert not any(jax.tree.leaves(model.penalized(params)))


# ---- what is refused -------------------------------------------------------------------------------------------------


def no_init(key, n_experts, x):
    return {"a": jnp.zeros(n_experts)}


def no_apply(params, x):
    return jnp.broadcast_to(params["a"][:, None], (len(params["a"]), len(x)))


def record(**more):
    return types.SimpleNamespace(
        init=no_init, apply=no_apply, log_probs=lambda p, x: jax.nn.log_softmax(no_apply(p, x), 0), **more
    )


def anything(*_):
    return None


class Forgot(experts.Expert):
    def init(self, key, n_experts, x):
        return no_init(key, n_experts, x)

    def apply(self, params, x):
        return no_apply(params, x)

    def statistics(self, params, x, slope, curvature):
        return slope.sum(axis=1)

    def m_step(self, params, statistics, penalties, total):
        return params


def model_of(expert=None, gate=None, family=None):
    usual = (experts.linear(), gates.softmax(), families.gaussian())
    given = zip((expert, gate, family), usual, strict=True)  # a named tuple without fields is false
    expert, gate, family = (default if part is None else part for part, default in given)
    return moejax.moe(expert, gate, K, family=family)


LOGISTIC = OWN["Logistic"]()
REFUSED = {
    "statistics alone": (
        model_of(record(statistics=anything)),
        r"^expert: .* has statistics and no m_step; want both, or neit",
    ),
    "m_step alone": (model_of(record(m_step=anything)), r"^expert: .* has m_step and no statistics; want both, or neither"),
    "no in_use": (
        model_of(record(statistics=anything, quadratic=anything, with_coefficients=anything)),
        r"^expert: .*and no (in_use|m_step); want",
    ),
    "variance alone": (
        model_of(record(variance=anything)),
        r"^expert: .* has variance and no log_prior and no expected; want all",
    ),
    "declared": (model_of(record(has_m_step=True)), r"^expert: .* declares has_m_step and has no statistics and no m_step"),
    "not declared": (model_of(Forgot()), r"^expert: .* does not declare has_m_step; want has_m_step = True"),
    "gate": (model_of(gate=record(m_step=anything)), r"^gate: .* has m_step and no statistics"),
    "log_joint alone": (model_of(gate=record(log_joint=anything)), r"^gate: .* has log_joint and no log_proportions"),
    "spread alone": (
        model_of(family=types.SimpleNamespace(log_prob=LOGISTIC.log_prob, mean=LOGISTIC.mean, spread=anything)),
        r"^family: .* has spread and no dispersion; want both, or neither",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_capability_that_is_not_complete_is_refused(name):
    model, message = REFUSED[name]
    for configure in (moejax.fit_em, moejax.fit_gradient):
        with pytest.raises(ValueError, match=message):
            configure(model)


@pytest.mark.parametrize(
    ("part", "name"),
    [("experts", "l1_experts"), ("experts", "group_experts"), ("gate", "l2_gate")],
)
@pytest.mark.parametrize("kind", ["record", "helper"])
def test_a_penalty_on_a_part_without_coefficients_is_refused(part, name, kind):
    helpers = {
        "experts": experts.stack(lambda key, x: jnp.zeros(x.shape[1]), lambda params, x: x @ params),
        "gate": gates.custom(lambda key, k, x: jnp.zeros((x.shape[1], k)), lambda params, x: x @ params),
    }
    own = record() if kind == "record" else helpers[part]
    model = model_of(own) if part == "experts" else model_of(gate=own)
    for fit in (moejax.fit_em(model, max_iter=3), moejax.fit_gradient(model, steps=3)):
        with pytest.raises(ValueError, match=rf"^{name}: (expert|gate) .*penalized\(params\)"):
            fit(KEY, X, Y, {name: 0.1})
        with pytest.raises(ValueError, match=rf"^{name}: "):
            moejax.sweep(fit, {name: [0.1, 0.2]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: moejax.moe(record(), types.SimpleNamespace(init=no_init), K), "^gate: .* no function log_probs"),
        (lambda: moejax.moe(types.SimpleNamespace(apply=no_apply), gates.softmax(), K), "^expert: .* no function init"),
        (lambda: model_of(family=types.SimpleNamespace(mean=anything)), "^family: .* no function log_prob"),
        (lambda: moejax.fit_gradient(model_of(), types.SimpleNamespace(score=anything)), "^loss: .* function `value`"),
        (
            lambda: moejax.fit_em(model_of(), penalty=types.SimpleNamespace(name="a", part="gate", value=anything)),
            "^penalty: .* no prox",
        ),
        (lambda: moejax.fit_em(model_of(), penalty=OWN["NonNegative"](part="family")), "^penalty: .* the part 'family'"),
        (lambda: moejax.fit_em(moejax.moe(experts.linear(), gates.softmax(), K)), "^model: one without a family"),
        (lambda: model_of(family=OWN["Logistic"]()).sample(KEY, {}, X), "^sample: .* want a family with `sample`"),
    ],
)
def test_parts_without_their_functions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- the package -----------------------------------------------------------------------------------------------------

KINDS = {
    typing.Expert: [
        experts.linear(),
        experts.by_columns(experts.linear(), [[(0,), (1,)]]),
        experts.by_columns(experts.stack(anything, anything), [[(0,), (1,)]]),
        experts.stack(anything, anything),
        experts.functions([anything]),
        experts.predictions(),
        experts.tied(),
        experts.neural(nn.Dense(1)),
    ],
    typing.Gate: [
        gates.softmax(),
        gates.top1(),
        gates.top_k(1),
        gates.top_k(1, noise=1.0),
        gates.constant(),
        gates.fixed(),
        gates.confidence(),
        gates.custom(anything, anything),
        gates.gaussian(),
        gates.hierarchical((2,)),
        gates.neural(nn.Dense(2)),
    ],
    typing.Family: [
        families.bernoulli(),
        families.categorical(3),
        families.gamma(),
        families.gaussian(),
        families.location_scale(),
        families.poisson(),
        families.student_t(),
    ],
    typing.Penalty: [*penalties.standard(), penalties.elastic_net("gate"), penalties.group_columns("gate", [[0]])],
    typing.Loss: [
        losses.nll(),
        losses.joint_nll(),
        losses.squared_error(),
        losses.complete_squared_error(),
        losses.balanced(losses.nll()),
    ],
}
BUILT_IN = [(base, part) for base, parts in KINDS.items() for part in parts]


@pytest.mark.parametrize(
    ("base", "part"), BUILT_IN, ids=[f"{base.__name__} {type(part).__name__}" for base, part in BUILT_IN]
)
def test_built_in_parts_keep_their_contract(base, part):
    assert isinstance(part, base)
    assert dataclasses.is_dataclass(part)
    assert type(part).__dataclass_params__.frozen
    assert hash(part) == hash(dataclasses.replace(part))
    _contracts.check_capabilities(part)


@pytest.mark.parametrize("base", [*KINDS, moejax.solvers.Solver])
def test_the_page_tables_every_name_of_a_contract(base):
    titles = {"Family": "Families", "Penalty": "Penalties", "Loss": "Losses"}
    title = titles.get(base.__name__, f"{base.__name__}s")
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    names = set(re.findall(r"\w+", table))
    known = {name for cls in base.__mro__ if cls.__module__.startswith("moejax") for name in vars(cls) if name[0] != "_"}
    assert known - {"role", "declares_penalized"} <= names
    for name in base.__abstractmethods__:
        assert re.search(rf"\| `{name}[^|]*\| required", table), name


def asked(node):
    """Return the name of what `hasattr` or `getattr` is called on, None for other nodes."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr")):
        return None
    words = re.findall(r"\w+", ast.unparse(node.args[0]))
    return words[-1] if words else None


def test_no_code_asks_a_part_for_an_attribute():
    parts = {"expert", "gate", "family", "penalty", "loss", "part", "p", "own"}
    found = []
    for path in sorted((ROOT / "moejax").rglob("*.py")):
        where = path.relative_to(ROOT / "moejax").as_posix()
        if where in ("_contracts.py", "sklearn/_ensembles.py"):  # the latter asks a scikit-learn classifier
            continue
        calls = ast.walk(ast.parse(path.read_text()))
        found += [f"{where}:{node.lineno}" for node in calls if asked(node) in parts]
    assert found == []


# ---- what is refused when data are there: shapes ---------------------------------------------------------------------


def gate_of(**more):
    own = {"init": no_init, "log_probs": lambda p, x: jax.nn.log_softmax(no_apply(p, x), 0)}
    return types.SimpleNamespace(**{**own, **more})


def family_of(log_prob):
    return types.SimpleNamespace(log_prob=log_prob, mean=lambda eta: eta)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"gate": gate_of(log_probs=lambda p, x: jax.nn.log_softmax(no_apply(p, x).T, 1))},
            r"^gate: log_probs: shape \(24, 2\) was given; want \(2, 24\), experts first",
        ),
        ({"gate": gate_of(penalized=lambda params: {})}, "^gate: penalized of .* returned {}; want a tree like params"),
        ({"gate": gate_of(penalized=lambda params: {"a": 1})}, "^gate: penalized of .*; want a tree like params of True"),
        ({"expert": record(trainable=lambda params: ["a"])}, "^expert: trainable of .*; want a tree like params of True"),
        (
            {"family": family_of(lambda y, eta, phi: -jnp.square(y - eta).sum(axis=0))},
            r"^family: log_prob: shape \(24,\) was given; want \(2, 24\), experts first",
        ),
    ],
)
def test_a_part_that_speaks_in_another_shape_is_refused(parts, message):
    for fit in (moejax.fit_em(model_of(**parts)), moejax.fit_gradient(model_of(**parts), losses.nll())):
        with pytest.raises(ValueError, match=message):
            fit(KEY, X, Y)


def test_numbers_that_a_record_begins_with_may_be_of_python():
    gate = gate_of(init=lambda key, n_experts, x: {**no_init(key, n_experts, x), "unused": 1.0})
    assert np.isfinite(moejax.fit_em(model_of(gate=gate), max_iter=1)(KEY, X, Y).objective)


def test_a_loss_that_asks_for_prepared_inputs_twice_is_told_what_to_call():
    class Twice(losses.Loss):
        def value(self, model, params, data, weights):
            return (weights * (model.predict(params, data.x) - data.y)).sum()

    with pytest.raises(ValueError, match=r"^x: prepared inputs were given .* want .*model\.mean\(params, data\.x"):
        moejax.fit_gradient(model_of(), Twice(), steps=1)(KEY, X, Y)


class Endless(moejax.solvers.LossSolver):
    def init(self, task):
        return task.params

    def step(self, task, params):
        return params


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Endless, "^solver: .* has no n_steps and no done, and would never end"),
        (lambda fit: 3, "^solver: .* made 3; want a class that inherits"),
        (3, "^solver: 3 was given; want a class"),
    ],
)
def test_what_is_no_solver_is_refused(solver, message):
    with pytest.raises(ValueError, match=message):
        moejax.solvers.fit_with(solver, model_of())


class Grows(moejax.solvers.LossSolver):
    """Its state begins with a whole number that becomes another."""

    def init(self, task):
        return {"params": task.params, "size": 1}

    def step(self, task, state):
        return {"params": state["params"], "size": state["size"] * 0.5}

    def done(self, state):
        return state["size"] < 0.1


def test_a_step_that_returns_another_kind_of_state_is_refused():
    fit = moejax.solvers.fit_with(Grows, model_of())
    with pytest.raises(ValueError, match=r"^solver: step of .* returned float32\[\] at state\['size'\]; want int32\[\]"):
        fit(KEY, X, Y)


def test_a_fit_by_ones_own_solver_refuses_what_others_do():
    fit = moejax.solvers.fit_with(OWN["Ista"], model_of())
    with pytest.raises(ValueError, match=r"^groups: given for SquaredError"):
        fit(KEY, X, Y, groups=np.arange(N) // 2)
    order = [penalties.l2("experts"), penalties.l1("experts")]
    with pytest.raises(ValueError, match="penalt"):
        moejax.solvers.fit_with(OWN["Ista"], model_of(), penalty=order)(KEY, X, Y, {"l1_experts": 0.1, "l2_experts": 0.1})


class Scaled(moejax.losses.Loss):
    """A loss with a number of its own."""

    hyper = {"delta": 2.0}  # noqa: RUF012

    def value(self, model, params, data, weights):
        return data.hyper["delta"] * (weights * jnp.square(model.mean(params, data.x) - data.y)).sum()


def test_the_numbers_of_a_loss_have_their_defaults_where_they_are_not_given():
    fit = moejax.fit_gradient(model_of(), Scaled(), steps=1)
    one, two = (fit(KEY, X, Y, hyper, start_params=fit.init_state(KEY, X).params) for hyper in ({"delta": 1.0}, {}))
    assert float(two.history[0]) == pytest.approx(2 * float(one.history[0]), rel=1e-6)
    grid = moejax.sweep(fit, {"fold": 2}, progress=False)(KEY, X, Y)
    assert np.isfinite(grid.held_out).all()


def test_a_balanced_loss_of_ones_own_is_fitted():
    fit = moejax.fit_gradient(model_of(), losses.balanced(OWN["AbsoluteError"]()), steps=1)
    assert np.isfinite(fit(KEY, X, Y).objective)
