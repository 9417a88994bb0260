"""What a sweep leaves in the folder of a checkpoint: damaged, swapped, of another sweep, or shared."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import moejax
from moejax.sweeps import _program

KEY = jax.random.key(1)
X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
AXES = {"a": [1.0, 2.0, 4.0, 8.0], "restart": 2}


def drawn(key, x, y, hyper):
    return {"a": hyper["a"] * y.sum(), "draw": jax.random.normal(jax.random.fold_in(key, hyper["restart"]), (3,))}


def swept(folder, fit=drawn, axes=AXES, key=KEY, **options):
    options = {"chunk_size": 2, "threads": 1, "progress": False} | options
    return moejax.sweep(fit, axes, checkpoint=folder, **options)(key, X, Y)


def bits(result):
    return [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in jax.tree.leaves(result.fits)]


def chunks(folder):
    return sorted(folder.glob("chunk*"))


@pytest.fixture(scope="module")
def right():
    return bits(swept(None))


@pytest.fixture
def computed(monkeypatch):
    """Counts the chunks that are computed."""
    original, lock, state = _program.Program.__call__, threading.Lock(), {"count": 0}

    def call(program, values):
        with lock:
            state["count"] += 1
        return original(program, values)

    monkeypatch.setattr(_program.Program, "__call__", call)
    return state


@pytest.fixture
def folder(tmp_path, computed):
    """The checkpoint of a whole sweep."""
    swept(tmp_path / "here")
    computed["count"] = 0
    return tmp_path / "here"


def assert_mended(folder, right, computed, caplog, name, count):
    """The answer is right, the log names the file, so many chunks are computed again, and the folder is whole afterwards."""
    with caplog.at_level(logging.WARNING, "moejax"):
        assert bits(swept(folder)) == right
    assert any(re.search(rf"checkpoint: .*{re.escape(name)}", line) for line in caplog.messages)
    assert computed["count"] == count
    caplog.clear()
    assert bits(swept(folder)) == right
    assert computed["count"] == count
    assert not caplog.messages
    assert not list(folder.glob(".*"))


# ---- chunks of something else ---------------------------------------------------------------------------------------


def swap(folder, other):
    first, _, third, _ = chunks(folder)
    a, b = first.read_bytes(), third.read_bytes()
    first.write_bytes(b)
    third.write_bytes(a)


def copy_within(folder, other):
    shutil.copy(chunks(folder)[1], chunks(folder)[0])


def copied(**change):
    def copy(folder, other):
        swept(other, **change)
        shutil.copy(chunks(other)[0], chunks(folder)[0])

    return copy


@pytest.mark.parametrize(
    ("harm", "count"),
    [
        (swap, 2),
        (copy_within, 1),
        (copied(key=jax.random.key(2)), 1),
        (copied(axes={"a": [2.0, 1.0, 4.0, 8.0], "restart": 2}), 1),
        (copied(axes={"restart": 2, "a": AXES["a"]}), 1),
        (copied(chunk_size=4), 1),
        (copied(optimize=False), 1),
    ],
    ids=["swapped", "another place", "another key", "another order", "another order of axes", "longer", "optimisation"],
)
def test_a_chunk_of_something_else_is_computed_again(folder, tmp_path, right, computed, caplog, harm, count):
    harm(folder, tmp_path / "other")
    computed["count"] = 0
    assert_mended(folder, right, computed, caplog, chunks(folder)[0].name, count)


def test_without_a_manifest_chunks_tell_which_sweep_they_are_of(folder, right, computed):
    (folder / "sweep.json").unlink()
    again = swept(folder, chunk_size=4)
    assert bits(again) == right
    assert again.run.chunk_size == 2
    assert computed["count"] == 0
    (folder / "sweep.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint: .* holds chunks of another sweep.*; want"):
        swept(folder, key=jax.random.key(2))
    assert bits(swept(folder)) == right


def test_a_manifest_without_chunks_holds_nobody_off(folder, computed):
    for chunk in chunks(folder):
        chunk.unlink()
    other = swept(folder, key=jax.random.key(2), chunk_size=4)
    assert bits(other) == bits(swept(None, key=jax.random.key(2), chunk_size=4))
    assert other.run.chunk_size == 4


def test_what_a_function_does_not_use_identifies_it_too(tmp_path):
    axes = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    swept(tmp_path, lambda key, x, y, hyper: {"v": hyper["a"]}, axes)
    with pytest.raises(ValueError, match="another sweep"):
        swept(tmp_path, lambda key, x, y, hyper: {"v": hyper["b"]}, axes)
    with pytest.raises(ValueError, match="another sweep"):
        swept(tmp_path, lambda key, x, y, hyper: {"w": hyper["a"]}, axes)


def test_another_version_of_jax_is_another_sweep(folder, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    with pytest.raises(ValueError, match=r"checkpoint: .* or of other versions of JAX"):
        swept(folder)


def test_arrays_of_all_types_come_back(tmp_path, computed):
    def fit(key, x, y, hyper):
        a = hyper["a"]
        return [a.astype(jnp.bfloat16), a > 1, jnp.zeros((0, 3)), a.astype(jnp.int8), a + 1j, jnp.full((2, 3), a)]

    first = bits(swept(tmp_path, fit, {"a": [0.5, 1.5, 2.5]}))
    computed["count"] = 0
    assert bits(swept(tmp_path, fit, {"a": [0.5, 1.5, 2.5]})) == first
    assert computed["count"] == 0


# ---- damage ---------------------------------------------------------------------------------------------------------


def changed(**change):
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def to_folder(path):
    path.unlink()
    path.mkdir()
    (path / "full").touch()


MANIFESTS = {
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:30]),
    "a list": lambda path: path.write_text("[]"),
    "an object": lambda path: path.write_text("{}"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "text for a size": changed(chunk_size="2"),
    "no size": changed(chunk_size=None),
    "true": changed(chunk_size=True),
    "negative": changed(chunk_size=-1),
    "zero": changed(chunk_size=0),
    "other": changed(chunk_size=4),
    "huge": changed(chunk_size=10**30),
    "another format": changed(format=1),
    "another identity": changed(identity="0" * 64),
    "a folder": to_folder,
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_damaged_manifest_is_written_anew(folder, right, computed, caplog, name):
    MANIFESTS[name](folder / "sweep.json")
    assert_mended(folder, right, computed, caplog, "sweep.json", 0)


CHUNKS = {
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "zeros": lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
    "npy": lambda path: np.save(path.open("wb"), np.zeros(3)),
    "npz": lambda path: np.savez(path.open("wb"), np.zeros(3)),
    "a folder": to_folder,
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_damaged_chunk_is_computed_again(folder, right, computed, caplog, name):
    path = chunks(folder)[1]
    CHUNKS[name](path)
    assert_mended(folder, right, computed, caplog, path.name, 1)


def test_each_bit_of_a_chunk_counts(folder, right, computed):
    path = chunks(folder)[1]
    raw = path.read_bytes()
    places = range(0, 8 * len(raw), 8 * len(raw) // 20)
    for at in places:
        flipped = bytearray(raw)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert bits(swept(folder)) == right
    assert computed["count"] == len(places)


def test_what_an_older_version_left_is_computed_again(tmp_path, right, computed, caplog):
    (tmp_path / "sweep.json").write_text(json.dumps({"identity": "0" * 64, "chunk_size": 4}))
    np.savez(tmp_path / "chunk-000000000.npz", np.zeros(3))
    assert_mended(tmp_path, right, computed, caplog, "sweep.json", 4)


@pytest.mark.parametrize("given", ["", 3, b"folder", True, "a\0b"])
def test_a_checkpoint_is_the_path_of_a_folder(given):
    with pytest.raises(ValueError, match=r"checkpoint: .*; want the path of a folder"):
        moejax.sweep(drawn, AXES, checkpoint=given)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"checkpoint: .* is not a folder; want"):
        moejax.sweep(drawn, AXES, checkpoint=tmp_path / "file")
    with pytest.raises(ValueError, match=r"checkpoint: .* cannot be used: .*; want"):
        swept(tmp_path / "file" / "below")


def test_a_full_disk_does_not_end_a_sweep(tmp_path, right, monkeypatch, caplog):
    def replace(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        assert bits(swept(tmp_path)) == right
    assert sum("is not kept" in line for line in caplog.messages) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]


# ---- at once --------------------------------------------------------------------------------------------------------


def at_once(count, call):
    """Results, or errors, of calls that begin at the same time in threads of their own."""
    barrier, results = threading.Barrier(count), [None] * count

    def work(number):
        barrier.wait()
        try:
            results[number] = call(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_share_a_folder(tmp_path, right):
    for _ in range(3):
        assert [bits(result) for result in at_once(4, lambda _: swept(tmp_path))] == [right] * 4
        assert len(list(tmp_path.iterdir())) == 5
        shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", ["sweep.json", "chunk-000000002.bin"])
def test_threads_mend_a_folder(folder, right, name):
    for harm in (lambda path: path.write_bytes(b""), to_folder):
        harm(folder / name)
        assert [bits(result) for result in at_once(4, lambda _: swept(folder))] == [right] * 4
    assert bits(swept(folder)) == right


def test_of_two_chunk_sizes_at_once_one_is_taken(tmp_path, right):
    results = at_once(4, lambda number: swept(tmp_path, chunk_size=2 + number % 2))
    assert [bits(result) for result in results] == [right] * 4
    assert len({result.run.chunk_size for result in results}) == 1


def test_two_sweeps_at_once_do_each_other_no_harm(tmp_path, right):
    rights = [right, bits(swept(None, key=jax.random.key(2)))]
    results = at_once(4, lambda number: swept(tmp_path, key=jax.random.key(1 + number % 2)))
    for number, result in enumerate(results):
        if isinstance(result, Exception):
            assert re.match("checkpoint: .* another sweep", str(result))
        else:
            assert bits(result) == rights[number % 2]


def test_a_folder_that_is_removed_meanwhile_does_no_harm(tmp_path, right):
    ended = threading.Event()

    def remove():
        while not ended.is_set():
            shutil.rmtree(tmp_path / "here", ignore_errors=True)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        results = [bits(swept(tmp_path / "here")) for _ in range(5)]
    finally:
        ended.set()
        remover.join()
    assert results == [right] * 5


def test_old_rests_of_writing_are_removed(folder):
    for name, age in (("old", 7200), ("new", 60)):
        path = folder / f".chunk-000000000.bin.{name}.part"
        path.touch()
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    swept(folder)
    assert [path.name.split(".")[-2] for path in folder.glob(".*")] == ["new"]
