"""A store of finished chunks in a folder, from which an interrupted sweep continues.

The folder holds one file for each finished chunk, beside a manifest that tells which sweep they are of. Every file carries a
checksum, and every chunk the sweep it is of and its first member, so that files which were lost, damaged, swapped or copied
from elsewhere are noticed. What is not as it should be is named in a log line and computed again. Several threads and
processes may share a folder: each file is written under a name of its own, and appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from moejax.sweeps._inputs import Inputs, key_words, typed
from moejax.sweeps._program import compiler_options, fit_member

if TYPE_CHECKING:
    from moejax.sweeps._sweep import Sweeper

logger = logging.getLogger("moejax")

_FORMAT = 2  # of the files; those of another format are computed again
_MANIFEST = "sweep.json"
_ABANDONED = 3600  # seconds, after which nobody goes on writing a file
_TRIES = 100  # to write a file while others change the folder


class Kept(NamedTuple):
    """Which sweep a folder or a file is of.

    Attributes
    ----------
    identity : str
        Digest of the sweep; see `identity_of`.
    chunk_size : int
        Number of members of a chunk.
    """

    identity: str
    chunk_size: int


class Store:
    """A folder of finished chunks, beside a description of the sweep.

    Parameters
    ----------
    folder : Path
        The folder.
    identity : str
        Digest of the sweep; see `identity_of`.

    Attributes
    ----------
    chunk_size : int
        Number of members of a chunk; 0 before `begin`.

    Raises
    ------
    ValueError
        If the folder holds chunks of another sweep.
    """

    def __init__(self, folder: Path, identity: str):
        self.folder = folder
        self.identity = identity
        self.chunk_size = 0
        self._refuse_another(_kept(folder))

    def begin(self, chunk_size: int) -> int:
        """Create the folder and its manifest, unless they are there.

        Parameters
        ----------
        chunk_size : int
            Number of members of a chunk.

        Returns
        -------
        int
            Number of members of a chunk, as another run of the same sweep has begun in the folder, or else as given.

        Raises
        ------
        ValueError
            If the folder cannot be written, or another sweep has come first.
        """
        try:
            self.chunk_size = self._claim(Kept(self.identity, chunk_size))
            _clear(self.folder)
        except OSError as error:
            raise ValueError(
                f"checkpoint: {self.folder} cannot be used: {error}; want a folder that can be written"
            ) from error
        return self.chunk_size

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
            The results; None if the chunk is not finished. If its file is damaged or of another chunk, a log line says so.
        """
        path = self._path(start)
        try:
            about, leaves = _decoded(_read(path))
            if about[:2] != [self.identity, self.chunk_size]:
                raise ValueError("it is of another sweep, or of another chunk size")
            if about[2] != start or len(leaves) != structure.num_leaves:
                raise ValueError(f"it is of the chunk that begins at member {about[2]}")
            return jax.tree.unflatten(structure, leaves)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as fault:
            logger.warning("checkpoint: %s is not used, and its members are computed again: %s", path, _said(fault))
            return None

    def save(self, start: int, result: Any) -> None:
        """Save the results of a chunk. If that fails, a log line says so, and the sweep goes on.

        Parameters
        ----------
        start : int
            The first member of the chunk.
        result : pytree
            The results.
        """
        path = self._path(start)
        try:
            _put(path, _encoded([self.identity, self.chunk_size, start], jax.tree.leaves(result)))
        except OSError as error:
            logger.warning("checkpoint: %s is not kept: %s", path, _said(error))

    def _path(self, start: int) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"chunk-{start:09d}.bin"

    def _claim(self, mine: Kept) -> int:
        """Write the manifest unless it is there; return the chunk size in it."""
        path = self.folder / _MANIFEST
        for _ in range(_TRIES):
            with contextlib.suppress(FileNotFoundError):  # somebody removes the folder
                self.folder.mkdir(parents=True, exist_ok=True)
                kept, fault = _manifest(self.folder)
                if kept is not None and kept.identity == mine.identity:
                    return kept.chunk_size
                if fault is not None:
                    logger.warning("checkpoint: %s is written anew, and what it was is kept beside it: %s", path, fault)
                    _aside(path)
                elif kept is not None:  # of a sweep without any chunk
                    self._refuse_another(_kept(self.folder))
                    path.unlink(missing_ok=True)
                if _create(path, _described(mine)):
                    return mine.chunk_size
        raise FileExistsError(f"{path} was changed all the time")

    def _refuse_another(self, kept: Kept | None) -> None:
        """Raise ValueError if the folder holds chunks of another sweep."""
        if kept is not None and kept.identity != self.identity:
            raise ValueError(
                f"checkpoint: {self.folder} holds chunks of another sweep, or of other versions of JAX or moejax; "
                "want a separate folder for each sweep, or this one without its files"
            )


# ---- which sweep a folder holds -----------------------------------------------------------------------------------------


def kept_chunk_size(folder: Path) -> int | None:
    """Return the chunk size of the sweep in a folder, whichever sweep that is.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    int or None
        Number of members of a chunk; None if there are no chunks.
    """
    kept = _kept(folder)
    return None if kept is None else kept.chunk_size


def _kept(folder: Path) -> Kept | None:
    """Which sweep has chunks in a folder: by the manifest, or by most of the chunks if it is lost or damaged."""
    chunks = sorted(folder.glob("chunk-*.bin"))
    if not chunks:
        return None
    kept, _ = _manifest(folder)
    return kept or _by_chunks(chunks)


def _by_chunks(paths: list[Path]) -> Kept | None:
    """Which sweep most of the chunks are of."""
    votes: Counter[Kept] = Counter()
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            identity, chunk_size, _ = _decoded(_read(path))[0]
            votes[Kept(identity, chunk_size)] += 1
    return votes.most_common(1)[0][0] if votes else None


def _manifest(folder: Path) -> tuple[Kept | None, str | None]:
    """Which sweep the manifest names, and what is wrong with it; neither if it is not there."""
    try:
        found = json.loads(_read(folder / _MANIFEST))
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except (OSError, ValueError, RecursionError) as error:
        return None, _said(error)
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        return None, "it is not the manifest of a sweep, or one of another version of moejax"
    if found.pop("checksum", None) != _checksum(json.dumps(found, sort_keys=True).encode()):
        return None, "its checksum is wrong"
    return Kept(found["identity"], found["chunk_size"]), None


def _described(kept: Kept) -> bytes:
    """Return the manifest of a sweep."""
    content = {"format": _FORMAT, **kept._asdict()}
    return json.dumps({**content, "checksum": _checksum(json.dumps(content, sort_keys=True).encode())}).encode()


# ---- the content of a chunk ---------------------------------------------------------------------------------------------


def _encoded(about: list[Any], leaves: list[Any]) -> bytes:
    """Return a chunk as bytes: a line with the checksum of the rest, a line about the chunk, and the arrays."""
    arrays = [np.asarray(leaf) for leaf in leaves]
    line = json.dumps([about, [[each.dtype.name, each.shape] for each in arrays]]).encode()
    content = b"\n".join([line, b"".join(each.tobytes() for each in arrays)])
    return b"\n".join([_checksum(content).encode(), content])


def _decoded(raw: bytes) -> tuple[list[Any], list[np.ndarray]]:
    """Return what `_encoded` was given, or raise ValueError if the bytes are damaged."""
    checksum, _, content = raw.partition(b"\n")
    if checksum != _checksum(content).encode():
        raise ValueError("its checksum is wrong")
    line, _, rest = content.partition(b"\n")
    about, shapes = json.loads(line)
    leaves, at = [], 0
    for name, shape in shapes:
        dtype = np.dtype(name)
        end = at + dtype.itemsize * int(np.prod(shape, dtype=int))
        leaves.append(np.ndarray(shape, dtype, rest[at:end]))
        at = end
    return about, leaves


def _checksum(content: bytes) -> str:
    """Return a digest of the content of a file."""
    digest = hashlib.sha256(b"moejax %d\n" % _FORMAT)
    digest.update(content)
    return digest.hexdigest()


# ---- files that others may write at once --------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    """Return the content of a file, or raise OSError or ValueError."""
    if path.exists() and not path.is_file():
        raise ValueError("it is not a file")
    return path.read_bytes()


@contextlib.contextmanager
def _temporary(path: Path, content: bytes) -> Any:
    """A file with this content beside a path, under a name that nobody else has, which is gone afterwards."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_bytes(content)
        yield temporary
    finally:
        with contextlib.suppress(OSError):  # it has its place, or nobody can help it
            temporary.unlink(missing_ok=True)


def _put(path: Path, content: bytes) -> None:
    """Write a file atomically; a folder in its place is put aside, and a folder that was removed is made again."""
    for left in reversed(range(_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _temporary(path, content) as temporary:
                if path.is_dir():
                    _aside(path)
                os.replace(temporary, path)
            return
        except FileNotFoundError:
            if not left:
                raise


def _create(path: Path, content: bytes) -> bool:
    """Write a file atomically unless it is there; whether it was written."""
    with _temporary(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            os.replace(temporary, path)
    return True


def _aside(path: Path) -> None:
    """Give a file, or a folder, another name."""
    with contextlib.suppress(FileNotFoundError):  # somebody else has done so
        os.replace(path, path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.damaged"))


def _clear(folder: Path) -> None:
    """Remove what was left by writing that was cut off long ago."""
    for path in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # somebody else has done so
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def _said(error: Exception) -> str:
    """Return an error in words; a few errors have none."""
    return str(error) or type(error).__name__


# ---- what identifies a sweep --------------------------------------------------------------------------------------------


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
    fit = sweeper.fit
    inner = getattr(fit, "inner_axis", None)
    one = typed({name: values[0] for name, values in sweeper.coded(sweeper.axes).items() if name != inner}, inputs)
    # The digest includes the program itself: names do not distinguish optimizers, closures or versions of the code. Unused
    # arguments stay in the program, whose text would else not tell which of two is used.
    lowered = jax.jit(lambda values, shared: fit_member(fit, values, shared), keep_unused=True).lower(one, inputs)
    trees = re.sub(" at 0x[0-9a-f]+", "", f"{lowered.in_tree} {lowered.out_tree}")
    options = repr(sorted(compiler_options(fit, platform, sweeper.optimize).items()))
    parts = [
        jax.__version__,
        importlib.metadata.version("jaxlib"),
        platform,
        lowered.as_text(),
        trees,
        options,
        str(sweeper.optimize),
    ]
    parts += [repr(key_words(inputs.key)), *(f"{name}={values.tolist()}" for name, values in sweeper.axes.items())]
    digest = hashlib.sha256()
    for part in [part.encode("utf-8", "surrogatepass") for part in parts] + list(map(_bytes, jax.tree.leaves(inputs[1:]))):
        digest.update(b"%d " % len(part) + part)
    return digest.hexdigest()


def _bytes(leaf: Any) -> bytes:
    """Return the content of an array, row by row."""
    return np.asarray(leaf).tobytes()
