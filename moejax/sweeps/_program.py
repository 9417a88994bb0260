"""The compiled program of one chunk of members."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax import _cache, _keys
from moejax._rows import padded_size
from moejax.solvers import Configured, Path
from moejax.sweeps._axes import NO_SAMPLE, ROW_AXES
from moejax.sweeps._inputs import STREAMS, Inputs, padded, typed

# By default XLA groups reductions into library calls. Without this grouping a constant gate loses a fifth of its speed and
# EM a tenth; the gradient steps of a softmax gate gain a little, and those of a top-1 gate gain half as much again. The
# programs that gain take the longest, so the grouping is off. XLA's default vectors are half as wide as those of many
# processors. An XLA version that lacks one of these options compiles without all of them.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_prefer_vector_width": 512}
# Without optimisation, benchmarks/first_fit.py prints the total time by the number of rows.
_QUICK_OPTIONS = _cache.QUICK_OPTIONS
# By kind of device: the bytes that the work arrays of a chunk should fit into (a core's cache; a part of an accelerator's
# memory), and the least and the largest number of members. If fits end at different times, half of a chunk's members run at
# once, and the chunk waits for the last member. Small chunks are then better.
_CHUNK_BYTES = {"cpu": (2**20, 8, 128), "cpu uneven": (2**20, 2, 32), "other": (2**32, 1, 1024)}

# Seconds of a step of waiting for results: a part of the time so far, within limits.
_STEP, _LEAST_WAIT, _MOST_WAIT = 0.03, 2e-5, 0.05


def fit_member(fit: Callable[..., Any], values: dict[str, jax.Array], shared: Inputs) -> tuple[Any, Any]:
    """Fit one member and compute its loss on the rows that it did not train on.

    Parameters
    ----------
    fit : callable
        The fit.
    values : dict of jax.Array
        The value of the member on each axis, scalars.
    shared : Inputs
        Inputs that all members share.

    Returns
    -------
    result : pytree
        The result of the fit.
    held_out : jax.Array or None
        The mean loss on the held-out rows, without penalties; None without the axis `fold` or without a `score` of the fit.
    """
    weights, held = shared.weights, None
    if "fold" in values:
        held = weights * (shared.fold_of_row == values["fold"])
        weights = weights * (shared.fold_of_row != values["fold"])
    if "bootstrap" in values:
        counts = _bootstrap_counts(shared.key, values["bootstrap"], weights, shared.leader)
        weights = jnp.where(values["bootstrap"] == NO_SAMPLE, weights, weights * counts)
    start = shared.start[values["division"]] if "division" in values else shared.start
    hyper = {name: value for name, value in values.items() if name not in ROW_AXES}
    if shared.inner is not None:
        hyper[fit.inner_axis] = shared.inner  # type: ignore[attr-defined]
    result = _fitted(fit, shared, hyper, weights, start)
    if held is None or not hasattr(fit, "score"):
        return result, None
    grouped = {} if shared.leader is None else {"groups": shared.leader}
    return result, fit.score(result.params, shared.x, shared.y, held, shared.offset, **grouped)


def _fitted(fit: Any, shared: Inputs, hyper: dict[str, Any], weights: Any, start: Any) -> Any:
    """Return what a fit of this library returns, without its checks, or a function of the user's own."""
    if isinstance(fit, Configured | Path):
        return fit.solve(shared.key, hyper, *fit.laid(shared.x, shared.y, weights, shared.offset, shared.leader, start))
    more = {"weights": weights, "offset": shared.offset, "groups": shared.leader, "start": start}
    return fit(shared.key, shared.x, shared.y, hyper, **{name: v for name, v in more.items() if v is not None})


def _bootstrap_counts(key: jax.Array, sample: jax.Array, weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """Return how often each row of positive weight is drawn; there are as many draws as such rows.

    leader: the first row of each row's group, if groups are drawn instead of rows.
    """
    counts = _drawn_counts(key, sample, weights, weights > 0 if leader is None else _first(leader) & (weights > 0))
    return counts if leader is None else counts[leader]


def _first(leader: jax.Array) -> jax.Array:
    """Tell which rows are the first of their group, (n,)."""
    return leader == jnp.arange(leader.shape[0])


def _drawn_counts(key: jax.Array, sample: jax.Array, weights: jax.Array, there: jax.Array) -> jax.Array:
    """Draw with replacement among the rows marked by `there`, as many times as there are such rows; return counts (n,)."""
    key = jax.random.fold_in(jax.random.fold_in(key, STREAMS["bootstrap"]), sample)
    n = weights.shape[0]
    rank = jax.random.randint(key, (n,), 0, there.sum(), jnp.int32)
    rows = jnp.argsort(~there, stable=True)[rank]
    return jnp.zeros_like(weights).at[rows].add(jnp.where(jnp.arange(n) < there.sum(), 1.0, 0.0).astype(weights.dtype))


_executables: dict[Any, Any] = {}
_KEPT_PROGRAMS = 64
_lock = threading.Lock()


def _remember(known: Any, executable: Any) -> None:
    """Keep an executable, and drop the oldest ones above the limit."""
    with _lock:
        while len(_executables) >= _KEPT_PROGRAMS:
            _executables.pop(next(iter(_executables)))
        _executables[known] = executable


class Dropped(Exception):
    """Nobody waits any longer for the results of a program."""


class Program:
    """The compiled program of one chunk on one device, with the shared inputs on that device.

    Parameters
    ----------
    fit : callable
        The fit.
    names : tuple of str
        Names of the axes.
    inputs : Inputs
        Inputs that all members share.
    chunk : int
        Number of members of a chunk.
    device : jax.Device
        The device.
    optimize : bool
        Whether the program is compiled with optimisation.

    Attributes
    ----------
    shared : Inputs
        The shared inputs on the device.
    executable : callable
        The compiled program.
    """

    def __init__(
        self, fit: Callable[..., Any], names: tuple[str, ...], inputs: Inputs, chunk: int, device: Any, optimize: bool
    ):
        self.device = device
        inputs = padded(fit, inputs)
        self.shared = jax.device_put(inputs, device)
        example = jax.device_put(typed({name: np.zeros(chunk) for name in names}, inputs), device)
        modes = tuple(getattr(jax.config, f"jax_{name}") for name in ("enable_x64", "default_matmul_precision"))
        known: Any = (fit, names, device, _signature((example, self.shared)), modes, optimize)
        try:
            executable = _executables.get(known)
        except TypeError:  # a fit that cannot be hashed is compiled at each call
            executable = known = None
        if executable is None:
            jitted = jax.jit(
                jax.vmap(lambda values, shared: fit_member(fit, values, shared), in_axes=(0, None), axis_size=chunk)
            )
            parts = _keys.parts("sweep", fit, names, chunk, optimize, arguments=(example, self.shared))
            lowering = partial(jitted.lower, example, self.shared)
            executable = compile_for(lowering, device, _is_uneven(fit), optimize, parts)
            if known is not None:
                _remember(known, executable)
        self.executable = executable
        self._dropped = threading.Event()

    @property
    def structure(self) -> Any:
        """Structure of the pytree that a call returns."""
        return self.executable.out_tree

    def __call__(self, values: Mapping[str, Any], inner: Any = None) -> Any:
        """Run one chunk. An interrupt ends the wait for it, though not what the device does.

        Parameters
        ----------
        values : dict of arrays
            For each axis the values of the members, (chunk,).
        inner : jax.Array, optional
            Other values of the axis that the fit takes all at once, as many as there are in the shared inputs.

        Returns
        -------
        pytree of numpy.ndarray
            Results of the members, with the members leading.

        Raises
        ------
        Dropped
            If `drop` was called.
        """
        shared = self.shared if inner is None else self.shared._replace(inner=jax.device_put(inner, self.device))
        with _cache.nan_is_a_result():
            results = self.executable(jax.device_put(values, self.device), shared)
        self._wait(jax.tree.leaves(results))
        return jax.tree.map(np.asarray, results)

    def drop(self) -> None:
        """End all waiting for results: nobody wants them any more."""
        self._dropped.set()

    def _wait(self, leaves: list[Any]) -> None:
        """Wait for results in short steps, because nothing interrupts a thread that waits in JAX."""
        began = time.perf_counter()
        try:
            while not self._dropped.is_set():
                if all(leaf.is_ready() for leaf in leaves):
                    return
                self._dropped.wait(min(max(_STEP * (time.perf_counter() - began), _LEAST_WAIT), _MOST_WAIT))
            raise Dropped
        except BaseException:
            # JAX's client would wait for the device when it is destroyed, and the interpreter could not end until then. With
            # one more reference it is never destroyed.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.device.client))
            raise


def _signature(tree: Any) -> Any:
    """Return the structure of a pytree with the shapes and types of its leaves."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in map(jnp.asarray, leaves))


def _is_uneven(fit: Any) -> bool:
    """Tell whether members may stop after different numbers of steps."""
    return getattr(fit, "uneven", False)


def compile_for(
    lowered: Any, device: Any, uneven: bool = False, optimize: bool = True, parts: tuple[str, ...] | None = None
) -> Any:
    """Compile a lowered program with the options that sweeps use on a device, or load it from disk.

    Parameters
    ----------
    lowered : jax.stages.Lowered or callable
        The lowered program, or a function that lowers it. The function is not called if a program of these `parts` is kept.
    device : jax.Device
        The device.
    uneven : bool, default False
        Whether members may stop after different numbers of steps.
    optimize : bool, default True
        On a CPU, False compiles faster and runs slower.
    parts : tuple of str, optional
        Everything that the program depends on (see `moejax._keys`); None if that cannot be told in words.

    Returns
    -------
    jax.stages.Compiled
        The executable. If the compiler does not know an option, no options are used.
    """
    options = _options(device.platform, uneven, optimize)
    build = lowered if callable(lowered) else lambda: lowered
    return _cache.program(parts, build, options, device=device, name="the program of a sweep")


def compiler_options(fit: Any, platform: str, optimize: bool) -> dict[str, Any]:
    """Return the options with which the program of a sweep is compiled.

    Parameters
    ----------
    fit : callable
        The fit.
    platform : str
        Kind of device, as "cpu".
    optimize : bool
        Whether the program is compiled with optimisation.

    Returns
    -------
    dict
        Values by the names of options.
    """
    return _options(platform, _is_uneven(fit), optimize)


def _options(platform: str, uneven: bool, optimize: bool) -> dict[str, Any]:
    """Return the compiler's options on a kind of device."""
    return {} if platform != "cpu" else _QUICK_OPTIONS if not optimize else {} if uneven else _CPU_OPTIONS


def _padded_target(fit: Any, y: Any) -> Any:
    """Return the shape and type of the target of the program: tables that share programs share the size of a chunk."""
    n = padded_size(y.shape[0]) if getattr(fit, "takes_padding", False) else y.shape[0]
    return jax.ShapeDtypeStruct((n, *y.shape[1:]), y.dtype)


def default_chunk_size(fit: Any, inputs: Inputs, platform: str) -> int:
    """Return the number of members of a chunk such that its work arrays fit the memory meant for them.

    Parameters
    ----------
    fit : callable
        The fit. Its method `work_bytes` gives the memory of one member; without this method the size is fixed.
    inputs : Inputs
        Inputs that all members share.
    platform : str
        Kind of device, as "cpu".

    Returns
    -------
    int
        A power of two within the limits of `_CHUNK_BYTES`.
    """
    if not hasattr(fit, "work_bytes"):
        return 32 if platform == "cpu" else 1024
    kind = "other" if platform != "cpu" else "cpu uneven" if _is_uneven(fit) else "cpu"
    room, least, most = _CHUNK_BYTES[kind]
    return int(np.clip(2 ** int(np.log2(max(1, room // fit.work_bytes(_padded_target(fit, inputs.y))))), least, most))
