"""The run of chunks on devices and threads."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from moejax.solvers import Fit, Status
from moejax.sweeps._axes import chunk_of
from moejax.sweeps._inputs import typed
from moejax.sweeps._program import Program
from moejax.sweeps._store import Store


def threads_per_device(devices: Sequence[Any]) -> int:
    """Return the default number of chunks that run at once on each device.

    Parameters
    ----------
    devices : sequence of jax.Device
        The devices, all of one kind.

    Returns
    -------
    int
        The cores divided by the number of devices on a CPU; 1 elsewhere.
    """
    if devices[0].platform != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // len(devices))


def run_chunks(
    programs: list[Program],
    threads: int,
    members: dict[str, np.ndarray],
    chunk: int,
    starts: Sequence[int],
    store: Store | None,
    progress: bool | None,
) -> list[Any]:
    """Run all chunks; a free device takes the next chunk.

    Parameters
    ----------
    programs : list of Program
        One program for each device.
    threads : int
        Chunks that run at once on each device.
    members : dict of numpy.ndarray
        The value of every member on every axis.
    chunk : int
        Number of members of a chunk.
    starts : sequence of int
        The first member of each chunk.
    store : Store or None
        Where finished chunks are kept.
    progress : bool or None
        Whether to show a progress bar. None shows one if standard error is a terminal.

    Returns
    -------
    list of pytrees
        The results of the chunks, in order.
    """
    from tqdm import tqdm

    free: queue.SimpleQueue[Program] = queue.SimpleQueue()
    for program in programs * threads:
        free.put(program)

    def run(start: int, values: dict[str, jax.Array]) -> Any:
        kept = store.load(start, programs[0].structure) if store else None
        if kept is not None:
            return kept
        program = free.get()
        try:
            result = program(values)
        finally:
            free.put(program)
        if store:
            store.save(start, result)
        return result

    inputs = programs[0].shared
    values = jax.device_put([typed(chunk_of(members, start, chunk), inputs) for start in starts])
    pool = ThreadPoolExecutor(len(programs) * threads, thread_name_prefix="sweep")
    try:
        disable = None if progress is None else not progress
        return list(tqdm(pool.map(run, starts, values), total=len(starts), unit="chunk", desc="sweep", disable=disable))
    finally:
        pool.shutdown(cancel_futures=True)


def refuse_if_all_diverged(fits: Any) -> None:
    """Raise an error if every member diverged.

    Parameters
    ----------
    fits : pytree
        Results of the sweep. Only results of type `Fit` are checked.

    Raises
    ------
    FloatingPointError
        If every fit has the status `DIVERGED`.
    """
    if isinstance(fits, Fit) and (fits.status & int(Status.DIVERGED)).all():
        count = fits.status.size
        raise FloatingPointError(
            f"all {count} members of the sweep diverged; want a smaller learning rate, or inputs of a smaller scale"
        )
