"""Compiled programs kept on disk.

A later process does not compile them again, and does not trace what it can tell beforehand.

A program is in a file that is named by the digest of what was lowered; beside it, short files named by the digest of what a
program is made from say which that is (see `moejax._keys`). The folder is private, for to load a program is to run what is
in its file. JAX's own compilation cache and its settings are left alone; where it is in use, it does the keeping, and here
programs are only looked for. Whatever is wrong with a file, or cannot be kept, is compiled.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
from jax.experimental import serialize_executable

from moejax import _files, _keys

logger = logging.getLogger("moejax")

# On a CPU, programs without optimisation compile several times faster and run several times slower.
QUICK_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_SLOW = 2.0  # seconds, after which a line says what is being compiled
_KEPT_IN_MEMORY = 256  # executables of each function
_MAGIC = "moejax program 1"
_MODES = ("enable_x64", "default_matmul_precision", "default_prng_impl", "numpy_dtype_promotion", "default_device")
_UNSET = Path()

_chosen: Path | None = _UNSET
_of_estimators: ContextVar[bool] = ContextVar("moejax_cache_of_estimators", default=False)
_usable: dict[Path, bool] = {}
_hits = 0  # of JAX's own cache


def cache(folder: str | os.PathLike[str] | None = _UNSET) -> None:
    """Keep compiled programs in a folder, from which later processes take them.

    Without this call, the environment variable MOEJAX_CACHE names the folder ("0" or "off": none).

    Parameters
    ----------
    folder : str, os.PathLike or None, optional
        A folder of the caller's own, by default the one of the estimators. It is made unless it is there, with no rights for
        others (mode 0700). If it is not private, or cannot be written, programs are not kept, and a line in the log "moejax"
        says so. It holds at most 1 GiB; what was not used for the longest time goes first. None keeps nothing, of estimators
        neither.
    """
    global _chosen
    folder = default_folder() if folder is _UNSET else folder
    _chosen = None if folder is None else Path(folder).expanduser().absolute()


def default_folder() -> Path:
    """The folder of compiled programs among the user's caches, where estimators keep theirs.

    Returns
    -------
    pathlib.Path
        The folder, which need not be there.
    """
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "moejax" / "programs"


@contextlib.contextmanager
def of_estimators() -> Iterator[None]:
    """Keep what is compiled in this context in the `default_folder`.

    `cache` and the environment count for more, and so does a JAX that is told to keep nothing. JAX 0.9 prints errors that
    are none whenever it loads a program on some CPUs, so nothing is kept there.
    """
    token = _of_estimators.set(True)
    try:
        yield
    finally:
        _of_estimators.reset(token)


def folder() -> Path | None:
    """The folder in which programs are kept here and now, which is there and private; None where they are not kept."""
    given = os.environ.get("MOEJAX_CACHE", "").strip()
    at, level = None, logging.WARNING
    if _chosen is not _UNSET:
        at = _chosen
    elif given:
        at = None if given.lower() in ("0", "off") else Path(given).expanduser().absolute()
    elif _of_estimators.get() and _keys.setting("enable_compilation_cache") and jax.__version_info__ >= (0, 10):
        with contextlib.suppress(RuntimeError):  # a user without a home
            at, level = default_folder(), logging.INFO
    if at is not None and at not in _usable:
        fault = _files.fault(at)
        _usable[at] = fault is None
        if fault is not None:
            logger.log(level, "compiled programs are not kept in %s: %s", at, fault)
    return at if at is not None and _usable[at] else None


def program(
    parts: tuple[str, ...] | None,
    build: Callable[[], Any],
    options: Mapping[str, Any] | None = None,
    *,
    device: Any,
    name: str = "a program",
) -> Any:
    """An executable: from the folder if it is there, and else compiled, and then kept there. Any thread may call it.

    parts: what `moejax._keys.parts` makes of all that `build` depends on beside the source of this library, and None if that
    cannot be told. Where the folder has a program of these, nothing is lowered. build: lowers the program. options: the
    compiler's; a version that lacks one of them runs without any. device: the one that the program is for. name: what the
    log calls it when it takes longer than two seconds.
    """
    options, at = dict(options or {}), folder()
    with _told(name):
        if at is None:
            return _compile(build(), options)
        short = None if parts is None else _attempt(_keys.of_parts, parts, options, device)
        found = None if short is None else _attempt(_load_by_parts, at, short, device)
        if found is not None:
            return found
        lowered = build()
        key, whole = _attempt(_keys.of_lowered, lowered, options, device) or (None, False)
        executable = None if key is None else _attempt(_load, at, key, device)
        if executable is None:
            executable = _compile(lowered, options)
            if key is None or _is_jax_keeping() or not _attempt(_save, at, key, executable):
                return executable
        if short is not None and whole:
            _attempt(_files.write, at, f"{short}.parts", f"{key}\n".encode())
        return executable


def jit(function: Callable[..., Any], n_static: int = 1, quick: bool = False) -> Callable[..., Any]:
    """`jax.jit` of a function of this library whose first arguments are static, by `program` where programs are kept.

    quick: whether a program takes less time to compile, and more to run.
    """
    jitted = jax.jit(function, static_argnums=tuple(range(n_static)))
    known: dict[Any, Any] = {}
    lock = threading.Lock()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments[n_static:])
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
        plain = folder() is None and not quick
        device = None if traced or plain or _keys.setting("disable_jit") else _device_of(leaves)
        if device is None:
            with nan_is_a_result():
                return jitted(*arguments)
        like = tuple((jax.typeof(leaf), _keys.is_bound(leaf)) for leaf in leaves)
        modes = tuple(map(_keys.setting, _MODES))
        this = (arguments[:n_static], structure, like, device, modes)
        executable = known.get(this)
        if executable is None:
            what = f"{function.__module__}.{function.__qualname__}"
            ours = what.startswith("moejax.")
            parts = _keys.parts(what, *arguments[:n_static], arguments=arguments[n_static:]) if ours else None
            options = QUICK_OPTIONS if quick and device.platform == "cpu" else None
            executable = program(parts, lambda: jitted.lower(*arguments), options, device=device, name=what)
            with lock:
                while len(known) >= _KEPT_IN_MEMORY:
                    known.pop(next(iter(known)))
                known[this] = executable
        with nan_is_a_result():
            return executable(*arguments[n_static:])

    return call


def nan_is_a_result() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which programs of this library may return NaN, also where JAX is told to raise.

    A history has NaN for the steps that a fit did not take, and of a fit that diverged the status says so.
    """
    on: contextlib.AbstractContextManager[Any] = jax.debug_nans(False)
    return on if _keys.setting("debug_nans") else contextlib.nullcontext()


def _device_of(leaves: list[Any]) -> Any:
    """The device on which `jax.jit` would run with these arguments; None where there are several."""
    bound = {device for leaf in leaves if _keys.is_bound(leaf) for device in leaf.devices()}
    device = bound.pop() if bound else _keys.setting("default_device") or jax.local_devices()[0]
    return None if bound or isinstance(device, str) else device


def _is_jax_keeping() -> bool:
    """Whether an executable may be from JAX's own cache. XLA would load such a one from our file, and could not run it."""
    return _hits > 0 or bool(_keys.setting("compilation_cache_dir") and _keys.setting("enable_compilation_cache"))


def _count_hit(event: str, **_: Any) -> None:
    global _hits
    _hits += event == "/jax/compilation_cache/cache_hits"


jax.monitoring.register_event_listener(_count_hit)


def _compile(lowered: Any, options: dict[str, Any]) -> Any:
    try:
        return lowered.compile(compiler_options=options)
    except Exception as error:  # jaxlib's own type of error has moved between versions
        if "compile option" not in str(error):
            raise
        return lowered.compile()


def _attempt(what: Callable[..., Any], *arguments: Any) -> Any:
    """Its result, or None where it fails."""
    try:
        return what(*arguments)
    except Exception as error:  # from JAX, from the disk, or out of a file
        logger.debug("%s: %s: %s", what.__name__, type(error).__name__, error)
        return None


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """A line in the log when this takes long, and another when it has ended."""
    started = time.perf_counter()
    timer = threading.Timer(_SLOW, logger.info, ("compiling %s, which takes more than %g s", name, _SLOW))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    if (seconds := time.perf_counter() - started) > _SLOW:
        logger.info("compiled %s in %.1f s", name, seconds)


def _load_by_parts(at: Path, short: str, device: Any) -> Any:
    key = _files.read(at / f"{short}.parts").decode().removesuffix("\n")
    return _load(at, key, device) if re.fullmatch("[0-9a-f]{64}", key) else None


def _load(at: Path, key: str, device: Any) -> Any:
    head, _, content = _files.read(at / f"{key}.program").partition(b"\n")
    if head != _head(key, content):
        raise ValueError(f"{key}.program is damaged")
    serialized, given, returned = pickle.loads(content)
    return serialize_executable.deserialize_and_load(serialized, given, returned, device.client, [device])


def _save(at: Path, key: str, executable: Any) -> bool:
    content = pickle.dumps(serialize_executable.serialize(executable))
    return _files.write(at, f"{key}.program", _head(key, content) + b"\n" + content)


def _head(key: str, content: bytes) -> bytes:
    return f"{_MAGIC} {key} {hashlib.sha256(content).hexdigest()}".encode()
