"""Records of somebody's own, as parts."""

from __future__ import annotations

from typing import Any


class _Record:
    """A user's record with a hash that tells it from others, so that compiled programs can be kept for it.

    A named tuple equals those of other types that hold the same, and is told apart by its type; a record that cannot be
    hashed is told apart by its identity.
    """

    def __init__(self, part: Any):
        self._part = part

    def __getattr__(self, name: str) -> Any:
        if name == "_part":  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self._part, name)

    def __repr__(self) -> str:
        return repr(self._part)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Record) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> Any:
        return (type(self._part), self._part) if _has_hash(self._part) else id(self._part)


def _has_hash(part: Any) -> bool:
    try:
        hash(part)
    except TypeError:
        return False
    return True


def hashable(part: Any) -> Any:
    """The part itself, or a stand-in with all its attributes where it could not name a compiled program."""
    return part if _has_hash(part) and not isinstance(part, tuple) else _Record(part)


def check_functions(name: str, part: Any, wanted: tuple[str, ...]) -> None:
    missing = [f for f in wanted if not callable(getattr(part, f, None))]
    if missing:
        raise ValueError(f"{name}: {part!r} has no function {' and no '.join(missing)}; want a record with {wanted}")
