"""Finished chunks in a folder, from which a sweep that was cut off goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from moejax.sweeps._inputs import Inputs, key_words, typed
from moejax.sweeps._program import fit_member

if TYPE_CHECKING:
    from moejax.sweeps._sweep import Sweeper


class Store:
    """A folder of finished chunks, each a file that appears whole or not at all, beside what they are chunks of."""

    def __init__(self, folder: Path, identity: str):
        self.folder = folder
        self.identity = identity
        manifest = folder / "sweep.json"
        self.chunk_size: int | None = None
        if manifest.exists():
            kept = json.loads(manifest.read_text())
            if kept["identity"] != self.identity:
                raise ValueError(f"checkpoint: {folder} holds chunks of another sweep; want its own folder for each")
            self.chunk_size = kept["chunk_size"]

    def begin(self, chunk_size: int) -> None:
        """Lay out the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("sweep.json", json.dumps({"identity": self.identity, "chunk_size": chunk_size}).encode())

    def load(self, start: int, structure: Any) -> Any:
        """The results of the chunk that begins with that member, or None where it is not finished yet."""
        try:
            with np.load(self._path(start)) as kept:
                return jax.tree.unflatten(structure, [kept[str(i)] for i in range(len(kept.files))])
        except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # all but the first: a disk's fault
            return None

    def save(self, start: int, result: Any) -> None:
        """Keep the results of that chunk."""
        file = io.BytesIO()
        np.savez(file, **{str(i): leaf for i, leaf in enumerate(jax.tree.leaves(result))})
        self._write(self._path(start).name, file.getvalue())

    def _path(self, start: int) -> Path:
        return self.folder / f"chunk-{start:09d}.npz"

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}.part"
        temporary.write_bytes(content)
        os.replace(temporary, self.folder / name)


def identity_of(sweeper: Sweeper, inputs: Inputs, platform: str) -> str:
    """A digest of all that the results depend on, but for the chunk size, which is kept beside it."""
    inner = getattr(sweeper.fit, "inner_axis", None)
    one = typed({name: values[0] for name, values in sweeper.coded(sweeper.axes).items() if name != inner}, inputs)
    # The program itself, for the names of functions do not tell one optimizer, closure or version of the code from another.
    program = jax.jit(lambda values, shared: fit_member(sweeper.fit, values, shared)).lower(one, inputs).as_text()
    parts = [jax.__version__, platform, program, repr(key_words(inputs.key)), str(sweeper.optimize)]
    parts += [f"{name}={values.tolist()}" for name, values in sweeper.axes.items()]
    digest = hashlib.sha256("\n".join(parts).encode())
    for leaf in jax.tree.leaves(inputs[1:]):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
