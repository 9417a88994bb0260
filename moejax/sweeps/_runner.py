"""The run of chunks on devices and threads."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from moejax.solvers import Fit, Status
from moejax.sweeps._axes import chunk_of
from moejax.sweeps._inputs import typed
from moejax.sweeps._program import Program
from moejax.sweeps._store import Store

logger = logging.getLogger("moejax")

_GRACE = 2.0  # seconds in which the chunks that run may finish when a sweep is interrupted or has failed
_LOOK = 0.5  # seconds after which a thread that waits looks for an interrupt, where the wait itself does not notice one


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

    Raises
    ------
    Exception
        The first error of a chunk. Like an interrupt, it ends the run within seconds, and finished chunks are kept.
    """
    inputs = programs[0].shared
    values = jax.device_put([typed(chunk_of(members, start, chunk), inputs) for start in starts])

    def run(program: Program, place: int) -> Any:
        kept = store.load(starts[place], program.structure) if store else None
        if kept is not None:
            return kept
        result = program(values[place])
        if store:
            store.save(starts[place], result)
        return result

    outputs: list[Any] = [None] * len(starts)
    crew = _Crew(run, len(starts))
    with _bar(len(starts), progress) as bar:
        finished = 0
        try:
            crew.start((programs * threads)[: len(starts)])
            while finished < len(starts):
                place, outputs[place] = crew.next()
                finished += 1
                bar.update()
        except BaseException as error:
            if not isinstance(error, Exception):
                kept = f"they are kept in {store.folder}" if store else "without a checkpoint they are not kept"
                logger.warning("the sweep is interrupted; %d of %d chunks are finished; %s", finished, len(starts), kept)
            raise
        finally:
            crew.end(programs)
    return outputs


def _bar(count: int, progress: bool | None) -> Any:
    """Return a progress bar over chunks, without the thread with which tqdm watches its bars."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        monitor_interval = 0

    return Bar(total=count, unit="chunk", desc="sweep", miniters=1, disable=None if progress is None else not progress)


class _Crew:
    """Threads that do numbered jobs.

    The interpreter does not wait for these threads when it ends, as it would for those of `concurrent.futures`.

    Parameters
    ----------
    run : callable
        Does a job: (program, number) -> result.
    count : int
        Number of jobs.
    """

    def __init__(self, run: Callable[[Program, int], Any], count: int):
        self._run = run
        self._todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        for number in range(count):
            self._todo.put(number)

    def start(self, programs: Sequence[Program]) -> None:
        """Start one thread for each of these programs."""
        for program in programs:
            name = f"sweep-{len(self._threads)}"
            thread = threading.Thread(target=self._work, args=(program,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def next(self) -> tuple[int, Any]:
        """Wait for a job; return its number and its result, or raise its error."""
        while True:
            with contextlib.suppress(queue.Empty):
                number, result, error = self._done.get(timeout=_LOOK)
                if error is not None:
                    raise error
                return number, result

    def end(self, programs: Sequence[Program]) -> None:
        """Start no more jobs, give those that run a little time to finish, and drop them afterwards."""
        self._stopped.set()
        try:
            self._join(_GRACE)
        finally:
            for program in programs:
                program.drop()
            self._join(_GRACE / 2)

    def _work(self, program: Program) -> None:
        while not self._stopped.is_set():
            try:
                number = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                self._done.put((number, self._run(program, number), None))
            except BaseException as error:  # raised by `next`, in the thread that waits
                self._stopped.set()
                self._done.put((number, None, error))

    def _join(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


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
