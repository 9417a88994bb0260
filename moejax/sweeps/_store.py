"""A store of finished chunks in a folder, from which an interrupted sweep continues."""

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
    """A folder of finished chunks, beside a description of the sweep.

    Each chunk is one file, written atomically.

    Parameters
    ----------
    folder : Path
        The folder.
    identity : str
        Digest of the sweep; see `identity_of`.

    Attributes
    ----------
    chunk_size : int or None
        Chunk size of the sweep in the folder; None if the folder is empty.

    Raises
    ------
    ValueError
        If the folder holds chunks of another sweep.
    """

    def __init__(self, folder: Path, identity: str):
        self.folder = folder
        self.identity = identity
        description = _description(folder)
        self.chunk_size: int | None = description.get("chunk_size")
        if description and description["identity"] != self.identity:
            raise ValueError(f"checkpoint: {folder} holds chunks of another sweep; want a separate folder for each sweep")

    def begin(self, chunk_size: int) -> None:
        """Create the folder and write the description of the sweep.

        Parameters
        ----------
        chunk_size : int
            Number of members of a chunk.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write("sweep.json", json.dumps({"identity": self.identity, "chunk_size": chunk_size}).encode())

    def load(self, start: int, structure: Any) -> Any:
        """Load the results of a chunk.

        Parameters
        ----------
        start : int
            The first member of the chunk.
        structure : PyTreeDef
            Structure of the results.

        Returns
        -------
        pytree or None
            The results; None if the chunk is not finished or its file is damaged.
        """
        try:
            with np.load(self._path(start)) as kept:
                return jax.tree.unflatten(structure, [kept[str(i)] for i in range(len(kept.files))])
        except (FileNotFoundError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # a missing file, or a damaged one
            return None

    def save(self, start: int, result: Any) -> None:
        """Save the results of a chunk.

        Parameters
        ----------
        start : int
            The first member of the chunk.
        result : pytree
            The results.
        """
        file = io.BytesIO()
        np.savez(file, **{str(i): leaf for i, leaf in enumerate(jax.tree.leaves(result))})
        self._write(self._path(start).name, file.getvalue())

    def _path(self, start: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"chunk-{start:09d}.npz"

    def _write(self, name: str, content: bytes) -> None:
        """Write a file atomically."""
        temporary = self.folder / f".{name}.{os.getpid()}.part"
        temporary.write_bytes(content)
        os.replace(temporary, self.folder / name)


def _description(folder: Path) -> dict[str, Any]:
    """Return the description of the sweep in a folder; nothing if the folder is empty."""
    manifest = folder / "sweep.json"
    return json.loads(manifest.read_text()) if manifest.exists() else {}


def kept_chunk_size(folder: Path) -> int | None:
    """Return the chunk size of the sweep in a folder, whichever sweep that is.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    int or None
        Number of members of a chunk; None if the folder is empty.
    """
    return _description(folder).get("chunk_size")


def identity_of(sweeper: Sweeper, inputs: Inputs, platform: str) -> str:
    """Return a digest of everything that the results depend on, except the chunk size, which is stored beside it.

    Parameters
    ----------
    sweeper : Sweeper
        The configured sweep.
    inputs : Inputs
        The inputs of the sweep.
    platform : str
        Kind of device, as "cpu".

    Returns
    -------
    str
        A SHA-256 digest in hexadecimal.
    """
    inner = getattr(sweeper.fit, "inner_axis", None)
    one = typed({name: values[0] for name, values in sweeper.coded(sweeper.axes).items() if name != inner}, inputs)
    # The digest includes the program itself: names do not distinguish optimizers, closures or versions of the code.
    program = jax.jit(lambda values, shared: fit_member(sweeper.fit, values, shared)).lower(one, inputs).as_text()
    parts = [jax.__version__, platform, program, repr(key_words(inputs.key)), str(sweeper.optimize)]
    parts += [f"{name}={values.tolist()}" for name, values in sweeper.axes.items()]
    digest = hashlib.sha256("\n".join(parts).encode())
    for leaf in jax.tree.leaves(inputs[1:]):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
