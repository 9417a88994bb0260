"""Compiled programs kept on disk: what they depend on, what becomes of their files, and who may have them."""

import concurrent.futures
import functools
import logging
import os
import platform
import subprocess
import sys
import threading
import time
import types
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import moejax
from moejax import _cache, _files, _keys

DEVICE = jax.devices()[0]
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def _double(x):
    return {"twice": jnp.tanh(x @ x.T) * 2}


class Counter:
    """Programs that go through `program`, and how often they were lowered and compiled."""

    def __init__(self, monkeypatch):
        self.lowered = self.compiled = 0
        there = _cache._compile

        def compiled(*arguments):
            self.compiled += 1
            return there(*arguments)

        monkeypatch.setattr(_cache, "_compile", compiled)

    def __call__(self, function=_double, *arguments, parts=None, options=None):
        arguments = arguments or (X,)

        def build():
            self.lowered += 1
            return jax.jit(function).lower(*arguments)

        return _cache.program(parts, build, options, device=DEVICE)

    @property
    def counts(self):
        return self.lowered, self.compiled


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "_chosen", _cache._UNSET)
    monkeypatch.setattr(_cache, "_usable", {})
    monkeypatch.setattr(_files, "_unwritten", set())
    moejax.cache(tmp_path / "programs")
    return tmp_path / "programs"


@pytest.fixture
def unset(at, monkeypatch):
    monkeypatch.setattr(_cache, "_chosen", _cache._UNSET)
    monkeypatch.delenv("MOEJAX_CACHE", raising=False)
    return at


@pytest.fixture
def program(at, monkeypatch):
    return Counter(monkeypatch)


def _lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "moejax"]


# ---- keeping --------------------------------------------------------------------------------------------------------


def test_a_program_is_compiled_once_and_gives_the_same_bits(program, at):
    first, again = program(), program()
    assert program.counts == (2, 1)
    assert again(X)["twice"].tobytes() == first(X)["twice"].tobytes() == jax.jit(_double)(X)["twice"].tobytes()
    assert again.out_tree == first.out_tree
    assert at.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in at.iterdir()] == [0o600]


def test_a_program_known_by_its_parts_is_not_even_lowered(program, at):
    parts = _keys.parts("a test", 3, arguments=(X,))
    first, again = program(parts=parts), program(parts=parts)
    assert program.counts == (1, 1)
    assert again(X)["twice"].tobytes() == first(X)["twice"].tobytes()
    program(parts=_keys.parts("a test", 4, arguments=(X,)))  # another name for what is there already
    assert program.counts == (2, 1)
    assert sorted(path.suffix for path in at.iterdir()) == [".parts", ".parts", ".program"]


def test_without_a_folder_programs_are_compiled(program, at):
    moejax.cache(None)
    program()
    program()
    assert program.counts == (2, 2)
    assert not at.exists()


def test_a_loaded_program_runs_in_any_thread(program):
    with jax.enable_x64(True):
        wide = X.astype(np.float64)
        program(_double, wide)
        executable = program(_double, wide)
        want = np.asarray(executable(wide)["twice"])
        on_device = jax.device_put(wide, DEVICE)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: np.asarray(executable(on_device)["twice"]), range(8)):
            assert got.tobytes() == want.tobytes()
    assert program.counts[1] == 1


def test_programs_of_this_process_alone_are_not_kept(program, at):
    def calls_back(x):
        return jax.pure_callback(lambda v: v, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    program(calls_back)
    program(calls_back)
    assert program.counts == (2, 2)
    assert not list(at.iterdir())


def test_programs_that_call_a_library_are_lowered_each_time(program, at):
    parts, matrix = ("a test",), np.eye(3, dtype=np.float32)
    for _ in range(2):
        program(jnp.linalg.cholesky, matrix, parts=parts)
    assert program.counts == (2, 1)
    assert [path.suffix for path in at.iterdir()] == [".program"]


def test_an_option_that_this_version_lacks_is_done_without(program):
    assert program(options={"xla_no_such_option": True})(X)["twice"].shape == (3, 3)


def test_jit_is_that_of_jax(program, at):
    def power(n, x, y):
        return x**n + y["b"]

    y = {"b": jnp.ones(4)}
    want = jax.jit(power, static_argnums=0)(3, X, y)
    kept = _cache.jit(power)
    for x in (X, X, jnp.asarray(X), X[0]):
        assert np.asarray(kept(3, x, y)).tobytes() == np.asarray(jax.jit(power, static_argnums=0)(3, x, y)).tobytes()
    assert program.counts[1] == 2  # for two shapes
    assert np.asarray(jax.vmap(lambda x: kept(3, x, y))(jnp.asarray(X))).tobytes() == np.asarray(want).tobytes()
    assert jnp.isfinite(jax.grad(lambda x: kept(3, x, y).sum())(X[0])).all()
    moejax.cache(None)
    assert np.asarray(kept(3, X, y)).tobytes() == np.asarray(want).tobytes()
    assert program.counts[1] == 2


# ---- keys -----------------------------------------------------------------------------------------------------------


def _lowered(function=_double, *arguments, **more):
    return jax.jit(function, **more).lower(*(arguments or (X,)))


def _key(lowered=None, options=(), device=DEVICE):
    return _keys.of_lowered(_lowered() if lowered is None else lowered, dict(options), device)[0]


def test_what_was_lowered_tells_programs_apart():
    double = X.astype(np.float64)
    pair = (X, X)
    with jax.enable_x64(True):
        wide = _key(_lowered(_double, double))
    keys = [
        *(_key(), wide, _key(options={"xla_cpu_prefer_vector_width": 512}), _key(_lowered(_double, X[:2]))),
        _key(_lowered(_double, donate_argnums=0)),
        _key(_lowered(lambda x: {"thrice": _double(x)["twice"]})),
        # These two are of the same text: each drops an argument.
        *(_key(_lowered(lambda x, y: x + 1, *pair)), _key(_lowered(lambda x, y: y + 1, *pair))),
        _key(_lowered(_double, jax.device_put(X, DEVICE))),
    ]
    assert _lowered(lambda x, y: x + 1, *pair).as_text() == _lowered(lambda x, y: y + 1, *pair).as_text()
    assert len(set(keys)) == len(keys)
    assert _key() == keys[0]


def _described_device(**more):
    client = {"platform": "cpu", "platform_version": "cpu", **more.pop("client", {})}
    return types.SimpleNamespace(**{"device_kind": "cpu", "id": 0, **more}, client=types.SimpleNamespace(**client))


def test_what_is_around_tells_programs_apart(monkeypatch):
    keys = []

    def add(device=None, options=()):
        device = _described_device() if device is None else device
        lowered, made = _key(device=device, options=options), _keys.of_parts(("a test",), dict(options), device)
        assert lowered is not None
        assert made is not None
        keys.extend([lowered, made])

    add()
    add(_described_device(device_kind="another"))
    add(_described_device(id=1))
    add(_described_device(client={"platform": "gpu"}))
    add(_described_device(client={"platform_version": "cuda 13"}))
    add(options={"xla_backend_optimization_level": 0})
    with jax.default_matmul_precision("highest"):
        add()
    with monkeypatch.context() as patch:
        patch.setattr(_keys, "_cpu", lambda: "flags: another")
        add()
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.0.0")
        add()
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        add()
    there = _keys.importlib.metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(_keys.importlib.metadata, "version", lambda name: "0" if name == "jaxlib" else there(name))
        add()
    assert len(set(keys)) == len(keys)
    with monkeypatch.context() as patch:
        patch.setattr(_keys.importlib.metadata, "version", lambda name: "0" if name == "optax" else there(name))
        assert _keys.of_parts(("a test",), {}, _described_device()) not in keys
    add()
    assert keys[:2] == keys[-2:]


def test_the_cpu_is_described():
    assert platform.machine() in _keys._cpu()
    if Path("/proc/cpuinfo").exists():
        assert len(_keys._cpu().splitlines()) > 3


def test_the_source_of_the_library_is_part_of_the_key(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text("1")
    with monkeypatch.context() as patch:
        patch.setattr(_keys, "__file__", str(tmp_path / "a.py"))
        one = _keys._source()
        (tmp_path / "a.py").write_text("2")
        assert _keys._source() != one
        assert _keys.of_parts((), {}, DEVICE) is None  # edited since it was imported
        patch.setattr(_keys, "__file__", str(tmp_path / "none" / "a.py"))
        assert _keys._source() is None
    assert _keys.of_parts((), {}, DEVICE) is not None


@dataclass(frozen=True)
class Own:
    size: int = 1


def _own(x):
    return x


def test_what_is_the_librarys_own_is_told_in_words():
    gaussian = moejax.families.gaussian()
    fits = [
        moejax.fit_em(moejax.moe(moejax.experts.linear(), gate, k, family=gaussian), max_iter=steps)
        for gate in (moejax.gates.softmax(), moejax.gates.top1(), moejax.gates.constant())
        for k in (2, 3)
        for steps in (10, 20)
    ]
    model = moejax.moe(moejax.experts.linear(), moejax.gates.softmax(), 2, family=gaussian)
    fits += [moejax.fit_gradient(model, optimizer=optimizer, steps=5) for optimizer in (optax.adam, optax.sgd)]
    fits.append(moejax.path(fits[0]))
    told = [_keys.parts(fit) for fit in fits]
    assert None not in told
    assert len(set(told)) == len(told)
    assert not any("0x" in word for words in told for word in words)
    assert _keys.parts(moejax.path(fits[0])) == told[-1]


@pytest.mark.parametrize(
    "what", [1, 1.0, True, "1", b"1", None, (1,), [1], {"1": 1}, ("1",), (1, 1), float("nan"), -0.0, 0.0]
)
def test_plain_values_are_told_apart(what):
    others = [2, 2.0, False, "2", b"2", ("None",), (2,), [2], {"1": 2}, (None,), ((1, 1),)]
    assert _keys.parts(what) is not None
    assert all(_keys.parts(what) != _keys.parts(other) for other in others)


def test_what_is_a_users_own_is_not_told():
    gate = moejax.gates.custom(lambda key, k, x: {}, lambda params, x: jnp.zeros((x.shape[0], 2)))
    model = moejax.moe(moejax.experts.linear(), gate, 2, family=moejax.families.gaussian())
    pretender = type("Linear", (), {"__module__": "moejax.experts", "__qualname__": "Linear"})()
    whats = [model, moejax.fit_em(model), Own(), _own, lambda x: x, functools.partial(_own), optax.adam(0.1), object()]
    for what in [*whats, np.ones(2), Own, pretender, optax.adam(0.1).init]:
        assert _keys.parts(what) is None, what
        assert _keys.parts("sweep", (1, {"a": [what]})) is None, what
    assert _keys.parts(optax.adam, jnp.tanh, jax.nn.relu, moejax.fit_em) is not None


def test_arguments_are_told_by_their_structure_and_types():
    key, one = jax.random.key(0), jnp.ones(3)
    trees = [one, [one], (one,), {"a": one}, {"b": one}, jnp.ones(4), one.astype(jnp.int32), None, key, 1.0, jnp.float32(1)]
    told = [_keys.parts(arguments=tree) for tree in [*trees, jax.device_put(one, DEVICE)]]
    assert None not in told
    assert len(set(told)) == len(told)
    assert _keys.parts(arguments=jnp.zeros(3)) == told[0]

    @jax.tree_util.register_pytree_node_class
    class Node:
        def tree_flatten(self):
            return (one,), "what its words do not tell"

        @classmethod
        def tree_unflatten(cls, aux, children):
            return cls()

    assert _keys.parts(arguments=[Node()]) is None


# ---- files ----------------------------------------------------------------------------------------------------------

DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "a byte": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "head": lambda content: b"x" + content[1:],
    "other": lambda content: b"\x80\x05K\x01.",
}


@pytest.mark.parametrize("parts", [None, ("a test",)])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_compiled_anew(program, at, damage, parts):
    want = program(parts=parts)(X)["twice"]
    (path,) = at.glob("*.program")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert program(parts=parts)(X)["twice"].tobytes() == want.tobytes()
    assert program.counts == (2, 2)
    program(parts=parts)
    assert program.counts[1] == 2


@pytest.mark.parametrize("content", [b"", b"../" * 22, b"0" * 64, b"\xff", b"0" * 63])
def test_a_damaged_name_is_found_again(program, at, content):
    program(parts=("a test",))
    (path,) = at.glob("*.parts")
    path.write_bytes(content)
    program(parts=("a test",))
    assert program.counts == (2, 1)
    program(parts=("a test",))
    assert program.counts == (2, 1)


def test_a_program_under_anothers_name_is_not_taken(program, at):
    program()
    (path,) = at.glob("*.program")
    program(lambda x: x + 1)
    (other,) = set(at.glob("*.program")) - {path}
    other.write_bytes(path.read_bytes())
    assert np.asarray(program(lambda x: x + 1)(X)).tobytes() == (X + 1).tobytes()
    assert program.counts == (3, 3)


def test_deleted_files_and_folders_are_done_without(program, at, caplog):
    program(parts=("a test",))
    next(at.glob("*.program")).unlink()
    program(parts=("a test",))
    assert program.counts == (2, 2)
    for path in at.iterdir():
        path.unlink()
    at.rmdir()
    program(parts=("a test",))
    program(parts=("a test",))
    assert program.counts == (4, 4)
    assert len([line for line in _lines(caplog) if "not kept" in line]) == 1


def test_a_folder_that_cannot_be_made_is_done_without(program, at, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    moejax.cache(tmp_path / "file" / "programs")
    for _ in range(2):
        assert program()(X)["twice"].shape == (3, 3)
    assert program.counts == (2, 2)
    assert len(_lines(caplog)) == 1
    assert str(tmp_path / "file") in _lines(caplog)[0]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_folder_that_is_open_to_others_is_done_without(program, at, caplog):
    at.mkdir()
    at.chmod(0o755)
    program()
    assert not list(at.iterdir())
    assert "mode 0755; want 0700" in _lines(caplog)[0]


@pytest.mark.skipif(os.name != "posix", reason="owners are POSIX's")
def test_what_belongs_to_somebody_else_is_done_without(program, at, caplog, monkeypatch):
    program()
    (path,) = at.glob("*.program")
    path.chmod(0o622)
    program()
    assert program.counts == (2, 2)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    program()
    assert program.counts == (3, 3)
    monkeypatch.setattr(_cache, "_usable", {})
    program()
    assert program.counts == (4, 4)
    assert "somebody else" in _lines(caplog)[-1]


@pytest.mark.skipif(os.name != "posix", reason="links are POSIX's")
def test_a_link_is_not_followed(program, at, tmp_path):
    program()
    (path,) = at.glob("*.program")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    program()
    assert program.counts == (2, 2)
    assert not path.is_symlink()


def test_the_folder_is_bounded_and_the_least_recently_used_go_first(at, monkeypatch):
    at.mkdir(mode=0o700)
    monkeypatch.setattr(_files, "ROOM", 10 * 4096)
    for number in range(5):
        assert _files.write(at, f"{number}", bytes(2 * 4096))
        os.utime(at / f"{number}", (number, number))
    assert len(list(at.iterdir())) == 5
    _files.read(at / "0")  # which counts as used
    _files.write(at, "short", b"1")
    assert sorted(path.name for path in at.iterdir()) == ["0", "2", "3", "4", "short"]
    (at / ".old.part").write_bytes(b"1")
    (at / ".new.part").write_bytes(b"1")
    os.utime(at / ".old.part", (0, 0))
    _files.write(at, "large", bytes(20 * 4096))  # more than there is room for
    assert [path.name for path in at.iterdir()] == [".new.part"]


# ---- where ----------------------------------------------------------------------------------------------------------


def test_the_environment_names_a_folder(unset, monkeypatch, tmp_path):
    assert _cache.folder() is None
    monkeypatch.setenv("MOEJAX_CACHE", str(tmp_path / "named"))
    assert _cache.folder() == tmp_path / "named"
    with _cache.of_estimators():
        assert _cache.folder() == tmp_path / "named"
    moejax.cache(str(unset))
    assert _cache.folder() == unset
    moejax.cache(None)
    with _cache.of_estimators():
        assert _cache.folder() is None


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="estimators keep nothing there")
def test_estimators_keep_theirs_among_the_users_caches(unset, monkeypatch, tmp_path):
    monkeypatch.setattr(_cache, "default_folder", lambda: tmp_path / "default")
    with _cache.of_estimators():
        assert _cache.folder() == tmp_path / "default"
        for off in ("0", "off", " OFF "):
            monkeypatch.setenv("MOEJAX_CACHE", off)
            assert _cache.folder() is None
        monkeypatch.setenv("MOEJAX_CACHE", "")
        assert _cache.folder() == tmp_path / "default"
        jax.config.update("jax_enable_compilation_cache", False)
        try:
            assert _cache.folder() is None
        finally:
            jax.config.update("jax_enable_compilation_cache", True)
    assert _cache.folder() is None


def test_the_default_folder_is_the_platforms(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert _cache.default_folder() == tmp_path / "xdg" / "moejax" / "programs"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert _cache.default_folder() == tmp_path / ".cache" / "moejax" / "programs"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _cache.default_folder() == tmp_path / "Library" / "Caches" / "moejax" / "programs"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert _cache.default_folder() == tmp_path / "local" / "moejax" / "programs"


# ---- the log --------------------------------------------------------------------------------------------------------


def test_a_program_that_takes_long_is_told_of_while_it_compiles(program, caplog, monkeypatch):
    monkeypatch.setattr(_cache, "_SLOW", 0.05)
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record):
            said.set()

    listener = Listener()
    logging.getLogger("moejax").addHandler(listener)
    try:
        with caplog.at_level(logging.INFO, "moejax"):
            _cache.program(None, lambda: said.wait(20) and _lowered(), device=DEVICE, name="a long one")
    finally:
        logging.getLogger("moejax").removeHandler(listener)
    assert said.is_set()
    told = _lines(caplog)
    assert told[0].startswith("compiling a long one")
    assert told[-1].startswith("compiled a long one in ")


def test_a_program_that_does_not_take_long_is_not_told_of(program, caplog):
    with caplog.at_level(logging.INFO, "moejax"):
        program()
        time.sleep(0.05)
    assert not _lines(caplog)


# ---- processes ------------------------------------------------------------------------------------------------------

ESTIMATOR = """
import sys, jax, numpy as np
there = {name: getattr(jax.config, name, None) for name in jax.config.values}
from moejax import _cache, sweep
from moejax.sklearn import MoERegressor
counts, there_compile = [0, 0], _cache._compile
def compiled(*arguments):
    counts[0] += 1
    return there_compile(*arguments)
_cache._compile = compiled
module = sys.modules["moejax.sweeps._program"]
member = module.fit_member
def traced(*arguments):
    counts[1] += 1
    return member(*arguments)
module.fit_member = traced
rng = np.random.default_rng(0)
x = rng.normal(size=(40, 3)); y = np.abs(x[:, 0]) + 0.1 * rng.normal(size=40)
kind = {"gate": "top1", "solver": "gradient", "loss": "squared_error"}  # which compiles soonest
model = MoERegressor(2, n_init=2, max_iter=30, random_state=0, **kind).fit(x, y)
bits = b"".join(np.asarray(v).tobytes() for v in (model.coef_, model.intercept_, model.gate_coef_, model.predict(x)))
assert there == {name: getattr(jax.config, name, None) for name in jax.config.values}
print(bits.hex()[:64], model.objective_.hex(), *counts)
"""


def _environment(tmp_path, **more):
    return {
        **{k: v for k, v in os.environ.items() if k != "MOEJAX_CACHE"},
        "XDG_CACHE_HOME": str(tmp_path),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        **more,
    }


def _started(program, environment):
    return subprocess.Popen([sys.executable, "-c", program], env=environment, text=True, stdout=subprocess.PIPE)


def _said(process):
    said = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    return said


@pytest.mark.skipif(sys.platform != "linux", reason="the user's folder is elsewhere")
@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="estimators keep nothing there")
def test_a_second_process_neither_compiles_nor_traces(tmp_path):
    first, second = [_said(each) for each in [_started(ESTIMATOR, _environment(tmp_path)) for _ in range(2)]]  # at once
    assert first[:2] == second[:2]
    assert int(first[3]) > 0
    folder = tmp_path / "moejax" / "programs"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.glob(".*"))
    third = _said(_started(ESTIMATOR, _environment(tmp_path, PYTHONHASHSEED="7")))
    assert third == [*first[:2], "0", "0"]


OWN_CACHE = """
import sys, jax, numpy as np, jax.numpy as jnp
jax.config.update("jax_compilation_cache_dir", sys.argv[1] if len(sys.argv) > 1 else None)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from moejax import _cache
x = np.linspace(0, 1, 400).reshape(20, 20)
f = jax.jit(lambda a: jax.lax.scan(lambda c, _: (jnp.tanh(c @ c) + jnp.sort(c, axis=0), None), a, None, length=10)[0])
executable = _cache.program(None, lambda: f.lower(x), device=jax.devices()[0])
print(float(executable(x).sum()).hex(), jax.config.jax_compilation_cache_dir)
"""


def test_jaxs_own_cache_is_left_alone(tmp_path):
    """What JAX has loaded from its cache cannot be kept again: it would load, and fail when it runs."""
    own, ours = tmp_path / "own", tmp_path / "ours"
    command = OWN_CACHE.replace("sys.argv[1] if len(sys.argv) > 1 else None", repr(str(own)))
    environment = _environment(tmp_path, MOEJAX_CACHE=str(ours))
    first = _said(_started(command, environment))
    assert first[1] == str(own)
    kept = sorted(path.name for path in own.iterdir())
    assert kept
    assert _said(_started(command, environment)) == first
    assert sorted(path.name for path in own.iterdir()) == kept
    assert not list(ours.iterdir())
    assert _said(_started(OWN_CACHE, environment)) == [first[0], "None"]
    assert [path.suffix for path in ours.iterdir()] == [".program"]
