"""What a compiled program depends on, as digests by which programs are kept on disk (see `moejax._cache`).

There are two: of what was lowered, and of what it is made from (the configuration of a fit, the shapes it is for, and the
source of this library), which is known without tracing anything. To both belongs all that is around: versions, the device,
the kind of CPU, JAX's settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import jax

# Of what was lowered, that which its text does not tell: which arguments are dropped, above all.
_UNTOLD = ("kept_var_idx", "in_shardings", "out_shardings", "in_layouts", "out_layouts", "committed", "num_devices")
_POINTERS = ("callback", "CustomSPMDPartitioning")  # in a program's text, beside addresses in this process
_CPU = "vendor_id|cpu family|model|model name|flags|Features|CPU implementer|CPU architecture|CPU variant|CPU part|isa|uarch"
_VARIABLES = ("XLA_", "LIBTPU_", "TF_XLA_", "NPROC")  # of the environment, by how their names begin
_BY_NAME = ("moejax", "jax", "optax")  # packages whose functions are known by their names


def parts(*what: Any, arguments: Any = ()) -> tuple[str, ...] | None:
    """What a program is made from, in words that mean the same in every process, or None where there are none.

    There are for numbers, strings, None, and tuples, lists and mappings of them, for frozen dataclasses and enumerations of
    this library, and for functions and types that are found by name in this library, JAX or optax; for what is a user's own
    there are none.

    Parameters
    ----------
    *what
        Fits, models, names, sizes: all that is no argument of the program.
    arguments : pytree of arrays
        What it is lowered for, of which structure, shapes and types count.

    Returns
    -------
    tuple of str or None
        What `moejax._cache.program` takes.
    """
    words = [*map(_described, what), _signature(arguments)]
    return None if None in words else tuple(word for word in words if word is not None)


def _signature(arguments: Any) -> str | None:
    leaves, structure = jax.tree.flatten(arguments)
    words = [(str(jax.typeof(leaf)), is_weak(leaf), is_bound(leaf)) for leaf in leaves]
    return f"{structure} {words}" if _is_plain(structure) else None


def _is_plain(structure: Any) -> bool:
    """Whether its words tell all of it, unlike those of a user's own kinds of nodes."""
    kind = (structure.node_data() or (None,))[0]
    known = kind in (None, type(None), tuple, list, dict) or _is_in(("moejax",), kind)
    return known and all(map(_is_plain, structure.children()))


def is_weak(leaf: Any) -> bool:
    """Whether an argument gives way to the types of others."""
    return bool(getattr(jax.typeof(leaf), "weak_type", False))


def is_bound(leaf: Any) -> bool:
    """Whether an argument is an array that was put on its device by name."""
    return isinstance(leaf, jax.Array) and bool(getattr(leaf, "committed", True))


def of_parts(words: tuple[str, ...], options: Mapping[str, Any], device: Any) -> str | None:
    """The digest of what a program is made from; None where this library is not as it was imported."""
    if _SOURCE is None or _source() != _SOURCE:
        return None
    versions = [importlib.metadata.version(name) for name in ("optax", "flax", "numpy")]
    return _digest(["parts", *words, repr(sorted(options.items())), *versions, _SOURCE, *_surroundings(device)])


def of_lowered(lowered: Any, options: Mapping[str, Any], device: Any) -> tuple[str | None, bool]:
    """The digest of a lowered program, None for one that is of this process alone; and whether its file is all of it.

    One that calls into a library, such as LAPACK, finds it only in a process that has lowered such a call.
    """
    text, more = lowered.as_text(), lowered._lowering.compile_args
    if (
        any(word in text for word in _POINTERS)
        or more["host_callbacks"]
        or more["num_devices"] != 1
        or jax.process_count() > 1
    ):
        return None, False
    trees = [str(lowered.in_tree), str(lowered.out_tree), repr(lowered.args_info)]
    untold = [f"{name} {more[name]!r}" for name in _UNTOLD]
    words = [text, repr(sorted(options.items())), *trees, *untold, *_surroundings(device)]
    return _digest(words), "custom_call" not in text


def setting(name: str) -> Any:
    """JAX's setting of that name, as it is here and now."""
    return getattr(jax.config, f"jax_{name}")


def _described(what: Any) -> str | None:
    kind = type(what)
    if what is None or kind in (bool, int, float, str, bytes):
        return repr(what)
    if kind in (tuple, list):
        words = [_described(each) for each in what]
        return None if None in words else f"{kind.__name__}{words}"
    if kind is dict:
        inner = _described([list(pair) for pair in what.items()])
        return inner and f"dict {inner}"
    if _is_in(("moejax",), kind):
        if isinstance(what, Enum):
            return f"{kind.__module__}.{kind.__qualname__}.{what.name}"
        if dataclasses.is_dataclass(what) and vars(kind)["__dataclass_params__"].frozen:
            inner = _described({each.name: getattr(what, each.name) for each in dataclasses.fields(what)})
            return inner and f"{kind.__module__}.{kind.__qualname__} {inner}"
    return f"{what.__module__}.{what.__qualname__}" if _is_in(_BY_NAME, what) else None


def _is_in(packages: tuple[str, ...], what: Any) -> bool:
    """Whether a function or type is found under its own name in one of these packages."""
    module, name = getattr(what, "__module__", None), getattr(what, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module.split(".")[0] not in packages:
        return False
    return functools.reduce(lambda at, step: getattr(at, step, None), name.split("."), sys.modules.get(module)) is what


def _source() -> str | None:
    """A digest of the source of this library; None where it is not in files."""
    digest, root = hashlib.sha256(), Path(__file__).parent
    try:
        for path in sorted(root.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    except OSError:
        return None
    return digest.hexdigest() if Path(__file__).exists() else None


_SOURCE = _source()  # as it was imported: what is edited afterwards is not what runs


@functools.cache
def _cpu() -> str:
    """The kind of CPU: other machines may see the same folder."""
    words = [platform.system(), platform.machine(), platform.processor()]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if sys.platform == "darwin":
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            words.append(subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout)
        else:
            first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
            words += re.findall(rf"^(?:{_CPU})\s*:.*$", first, re.MULTILINE)
    return "\n".join(words)


def _surroundings(device: Any) -> list[str]:
    """What every program depends on."""
    settings = {name: getattr(jax.config, name, value) for name, value in jax.config.values.items() if "cache" not in name}
    variables = {name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    client = device.client
    return [
        *(jax.__version__, importlib.metadata.version("jaxlib"), sys.version),
        *(client.platform, client.platform_version, device.device_kind, str(device.id)),
        *(_cpu(), str(cores), repr(sorted(variables.items()))),
        *(repr(sorted(settings.items(), key=str)), repr(jax.sharding.get_abstract_mesh())),
    ]


def _digest(words: list[str]) -> str:
    return hashlib.sha256("".join(f"{len(word)} {word}" for word in words).encode("utf-8", "surrogatepass")).hexdigest()
