"""Interrupts and errors in a sweep: what is finished is kept, and nothing goes on."""

from __future__ import annotations

import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

import moejax
from moejax.sweeps import _program

KEY = jax.random.key(1)
X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)

INTERRUPTED = """
import glob, os, signal, sys, threading, time
import jax, jax.numpy as jnp, moejax, numpy as np

def turns(key, x, y, hyper):  # hours for the larger numbers
    return jax.lax.fori_loop(0, jnp.int32(hyper["a"]), lambda i, v: jnp.cos(v) + i, y)

def interrupt():
    while len(glob.glob(sys.argv[1] + "/chunk*")) < 2:
        time.sleep(0.01)
    time.sleep(0.3)
    began.append(time.time())
    os.kill(os.getpid(), signal.SIGINT)

began = []
threading.Thread(target=interrupt).start()
sweep = moejax.sweep(turns, {"a": [1, 2, 2e9, 2.1e9, 3]}, chunk_size=1, threads=1, checkpoint=sys.argv[1])
try:
    sweep(jax.random.key(0), np.ones((5000, 1)), np.ones(5000))
except KeyboardInterrupt:
    print(time.time() - began[0], *(thread.name for thread in threading.enumerate()))
"""


def test_an_interrupt_keeps_finished_chunks_and_leaves_no_thread(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, timeout=100, check=True
    )
    seconds, *threads = child.stdout.split()
    assert float(seconds) < 10
    assert threads == ["MainThread"]
    assert "2 of 5 chunks are finished; they are kept in" in child.stderr
    assert sorted(path.name for path in tmp_path.glob("chunk*")) == ["chunk-000000000.bin", "chunk-000000001.bin"]


def multiplied(key, x, y, hyper):
    return hyper["a"] * y.sum()


def before_each(monkeypatch, act):
    """Call `act` with the value of a chunk before the chunk is computed."""
    original = _program.Program.__call__

    def call(program, values):
        act(float(values["a"][0]))
        return original(program, values)

    monkeypatch.setattr(_program.Program, "__call__", call)


def crew():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sweep")]


@pytest.mark.parametrize("error", [ArithmeticError("here"), KeyboardInterrupt()])
def test_a_chunk_that_fails_ends_the_sweep_and_leaves_no_thread(tmp_path, monkeypatch, error):
    def fail(value):
        if value == 3:
            raise error

    sweep = moejax.sweep(multiplied, {"a": [1.0, 2.0, 3.0, 4.0]}, chunk_size=1, threads=1, checkpoint=tmp_path)
    with monkeypatch.context() as patch:
        before_each(patch, fail)
        with pytest.raises(type(error)):
            sweep(KEY, X, Y)
    assert len(list(tmp_path.glob("chunk*"))) == 2
    assert not crew()
    assert sweep(KEY, X, Y).fits.tolist() == [15.0, 30.0, 45.0, 60.0]


def test_a_chunk_that_nobody_waits_for_is_not_kept(tmp_path, monkeypatch):
    running, ended = threading.Event(), threading.Event()

    def act(value):
        if value == 1:  # this chunk takes longer than it is given
            running.set()
            ended.wait(30)
        else:
            running.wait(30)
            raise ArithmeticError("here")

    before_each(monkeypatch, act)
    with pytest.raises(ArithmeticError, match="here"):
        moejax.sweep(multiplied, {"a": [1.0, 2.0]}, chunk_size=1, threads=2, checkpoint=tmp_path)(KEY, X, Y)
    held = crew()
    ended.set()
    for thread in held:
        thread.join()
    assert len(held) == 1
    assert not list(tmp_path.glob("chunk*"))
