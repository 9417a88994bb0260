"""The compiled program of one chunk of members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax.sweeps._axes import ROW_AXES
from moejax.sweeps._inputs import STREAMS, Inputs, typed

# XLA groups reductions into library calls, which suits some of these programs (a constant gate loses a fifth of its speed
# without, EM a tenth) and harms others (a softmax gate's gradient steps gain a little, a top-1 gate's half as much again,
# and these are the ones that take long); and its vectors are half as wide as many processors'. A version that lacks one of
# these options runs without them.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "", "xla_cpu_prefer_vector_width": 512}
# Without optimisation programs compile in a fraction of the time and run several times as long; what that comes to by the
# number of rows, benchmarks/first_fit.py prints.
_QUICK_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
# By kind of device, what the work arrays of a chunk should fit into (a core's cache; a part of an accelerator's memory),
# and the least and most members that it may have. Of fits that end at different times a chunk runs half at once, and at
# the end waits for the last: it is better small.
_CHUNK_BYTES = {"cpu": (2**20, 8, 128), "cpu uneven": (2**20, 2, 32), "other": (2**32, 1, 1024)}


def fit_member(fit: Callable[..., Any], values: dict[str, jax.Array], shared: Inputs) -> tuple[Any, Any]:
    """One fit, and its loss on the rows that it did not see."""
    weights, held = shared.weights, None
    if "fold" in values:
        held = weights * (shared.fold_of_row == values["fold"])
        weights = weights * (shared.fold_of_row != values["fold"])
    if "bootstrap" in values:
        weights = weights * _bootstrap_counts(shared.key, values["bootstrap"], weights, shared.leader)
    start = shared.start[values["division"]] if "division" in values else shared.start
    more = {"weights": weights, "offset": shared.offset, "groups": shared.leader, "start": start}
    hyper = {name: value for name, value in values.items() if name not in ROW_AXES}
    if shared.inner is not None:
        hyper[fit.inner_axis] = shared.inner  # type: ignore[attr-defined]
    result = fit(shared.key, shared.x, shared.y, hyper, **{name: v for name, v in more.items() if v is not None})
    if held is None or not hasattr(fit, "score"):
        return result, None
    grouped = {} if shared.leader is None else {"groups": shared.leader}
    return result, fit.score(result.params, shared.x, shared.y, held, shared.offset, **grouped)


def _bootstrap_counts(key: jax.Array, sample: jax.Array, weights: jax.Array, leader: jax.Array | None) -> jax.Array:
    """How often each row is drawn, among those of positive weight and as many times as there are such rows.

    leader: the first row of each row's group, where groups are drawn in the place of rows.
    """
    counts = _drawn_counts(key, sample, weights, weights > 0 if leader is None else _first(leader) & (weights > 0))
    return counts if leader is None else counts[leader]


def _first(leader: jax.Array) -> jax.Array:
    return leader == jnp.arange(leader.shape[0])


def _drawn_counts(key: jax.Array, sample: jax.Array, weights: jax.Array, there: jax.Array) -> jax.Array:
    key = jax.random.fold_in(jax.random.fold_in(key, STREAMS["bootstrap"]), sample)
    n = weights.shape[0]
    rank = jax.random.randint(key, (n,), 0, there.sum(), jnp.int32)
    rows = jnp.argsort(~there, stable=True)[rank]
    return jnp.zeros_like(weights).at[rows].add(jnp.where(jnp.arange(n) < there.sum(), 1.0, 0.0).astype(weights.dtype))


_executables: dict[Any, Any] = {}
_KEPT_PROGRAMS = 64


def _remember(known: Any, executable: Any) -> None:
    while len(_executables) >= _KEPT_PROGRAMS:
        _executables.pop(next(iter(_executables)), None)
    _executables[known] = executable


class Program:
    """The compiled program of one chunk on one device, with the inputs that all members share laid there."""

    def __init__(
        self, fit: Callable[..., Any], names: tuple[str, ...], inputs: Inputs, chunk: int, device: Any, optimize: bool
    ):
        self.device = device
        self.shared = jax.device_put(inputs, device)
        example = jax.device_put(typed({name: np.zeros(chunk) for name in names}, inputs), device)
        modes = tuple(getattr(jax.config, f"jax_{name}") for name in ("enable_x64", "default_matmul_precision"))
        known: Any = (fit, names, device, _signature((example, self.shared)), modes, optimize)
        try:
            executable = _executables.get(known)
        except TypeError:  # a function that cannot be hashed is compiled for each call
            executable = known = None
        if executable is None:
            jitted = jax.jit(
                jax.vmap(lambda values, shared: fit_member(fit, values, shared), in_axes=(0, None), axis_size=chunk)
            )
            executable = compile_for(jitted.lower(example, self.shared), device, _is_uneven(fit), optimize)
            if known is not None:
                _remember(known, executable)
        self.executable = executable

    @property
    def structure(self) -> Any:
        """The tree that a call returns."""
        return self.executable.out_tree

    def __call__(self, values: dict[str, jax.Array]) -> Any:
        """The results of one chunk, as NumPy arrays."""
        return jax.tree.map(np.asarray, self.executable(jax.device_put(values, self.device), self.shared))


def _signature(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in map(jnp.asarray, leaves))


def _is_uneven(fit: Any) -> bool:
    """Whether members end at different times, unlike those that all take as many steps."""
    return getattr(fit, "uneven", False)


def compile_for(lowered: Any, device: Any, uneven: bool = False, optimize: bool = True) -> Any:
    """The executable of a lowered program, compiled as the programs of sweeps on that device are."""
    options = {} if device.platform != "cpu" else _QUICK_OPTIONS if not optimize else {} if uneven else _CPU_OPTIONS
    try:
        return lowered.compile(compiler_options=options)
    except Exception as error:  # jaxlib's own type of error has moved between versions
        if "compile option" not in str(error):
            raise
        return lowered.compile()


def default_chunk_size(fit: Any, inputs: Inputs, platform: str) -> int:
    if not hasattr(fit, "work_bytes"):
        return 32 if platform == "cpu" else 1024
    kind = "other" if platform != "cpu" else "cpu uneven" if _is_uneven(fit) else "cpu"
    room, least, most = _CHUNK_BYTES[kind]
    return int(np.clip(2 ** int(np.log2(max(1, room // fit.work_bytes(inputs.y)))), least, most))
