"""Files in a private folder of bounded size: whole or not there at all, the least recently used gone first."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import time
from pathlib import Path

logger = logging.getLogger("moejax")

ROOM = 2**30  # bytes in a folder
_BLOCK = 4096  # bytes that even a short file takes
_ABANDONED = 3600  # seconds, after which nobody goes on writing a file

_unwritten: set[Path] = set()


def fault(at: Path) -> str | None:
    """What speaks against a folder, which is made unless it is there."""
    try:
        at.parent.mkdir(parents=True, exist_ok=True)
        at.mkdir(mode=0o700, exist_ok=True)
        found = at.stat()
    except OSError as error:
        return str(error)
    if os.name != "posix":  # others' profiles are private by themselves
        return None
    if found.st_uid != os.geteuid():
        return "it belongs to somebody else"
    mode = stat.S_IMODE(found.st_mode)
    return f"it is open to others, by mode {mode:04o}; want 0700" if mode & 0o077 else None


def read(path: Path) -> bytes:
    """What is in a file of the user's own, which counts as used."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:  # a pipe in its place is not waited for
        found = os.fstat(file.fileno())
        if os.name == "posix" and (found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022):
            raise PermissionError(f"{path.name} is not the user's own")
        content = file.read()
    with contextlib.suppress(OSError):
        os.utime(path)
    return content


def write(at: Path, name: str, content: bytes) -> bool:
    """Write a file, which appears whole or not at all, and make room for it; whether that went well."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(".part", ".", at)
        with open(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, at / name)
        _make_room(at)
        return True
    except OSError as error:
        if at not in _unwritten:
            _unwritten.add(at)
            logger.warning("a compiled program is not kept in %s: %s", at, error)
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False


def _make_room(at: Path) -> None:
    files = []
    with os.scandir(at) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # which another process has removed
                found = entry.stat(follow_symlinks=False)
                if not entry.name.startswith("."):
                    files.append((found.st_mtime_ns, max(found.st_size, _BLOCK), entry.path))
                elif entry.name.endswith(".part") and time.time() - found.st_mtime > _ABANDONED:
                    os.unlink(entry.path)
    used = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if used <= ROOM:
            return
        with contextlib.suppress(OSError):
            os.unlink(path)
        used -= size
