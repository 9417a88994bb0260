"""What several test files share."""

import contextlib
import gc
import importlib
import os
from pathlib import Path

import jax
import pytest

from moejax._cache import QUICK_OPTIONS

os.environ["MOEJAX_CACHE"] = "off"  # the user's folder is none of the tests'
gc.set_threshold(100_000, 20, 50)  # tracing makes millions of objects, and nearly all that there are stay

# What runs longer than it compiles, or is about what users run.
AS_USERS_COMPILE = {
    *("test_gradient", "test_neural", "test_proximal", "test_readme", "test_sweep", "test_tied", "test_versus_r"),
}
_MAPS, _STATM = Path("/proc/self/maps"), Path("/proc/self/statm")
_MUCH_MEMORY = 1.2e9
_MANY_MAPS = 20_000  # of memory, of which Linux lets a process have 65,530


@contextlib.contextmanager
def precision(double):
    """JAX in float64, or in its default float32."""
    there = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    with there(double):
        yield


@contextlib.contextmanager
def quickly_compiled():
    """Programs compiled quickly, which takes most of the time of most tests."""
    module = importlib.import_module("moejax.sweeps._program")
    there = module.compile_for
    module.compile_for = lambda lowered, device, uneven=False, optimize=True, *more: there(
        lowered, device, uneven, False, *more
    )
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        with quick_options():
            yield
    finally:
        module.compile_for = there
        jax.config.update("jax_disable_most_optimizations", False)


@contextlib.contextmanager
def quick_options():
    """The options of quick programs for all that `jax.jit` compiles, which takes half the time; where JAX lets us."""
    compiler = importlib.import_module("jax._src.compiler")
    there = getattr(compiler, "get_compile_options", None)
    if there is None:
        yield
        return

    def quick(*arguments, env_options_overrides=None, **more):
        return there(*arguments, env_options_overrides={**QUICK_OPTIONS, **(env_options_overrides or {})}, **more)

    compiler.get_compile_options = quick
    try:
        yield
    finally:
        compiler.get_compile_options = there


@pytest.fixture(autouse=True, scope="module")
def compilation(request):
    """Programs compiled quickly, but for some files; and not too many at once.

    Every compiled program keeps memory, and some maps of it, and the compiler crashes where a process has no more.
    """
    quick = request.module.__name__ not in AS_USERS_COMPILE
    with quickly_compiled() if quick else contextlib.nullcontext():
        yield
    if _MAPS.exists() and (len(_MAPS.read_text().splitlines()) > _MANY_MAPS or _resident() > _MUCH_MEMORY):
        importlib.import_module("moejax.sweeps._program")._executables.clear()
        jax.clear_caches()
        gc.collect()


def _resident():
    """Bytes of memory that this process holds."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def quickly():
    """The same for one test of the other files."""
    with quickly_compiled():
        yield


@pytest.fixture(scope="module")
def float64():
    """JAX in float64 for all tests of a module that asks for it."""
    with precision(True):
        yield


@pytest.fixture
def float32(float64):
    """JAX's default precision for one test of such a module."""
    with precision(False):
        yield
