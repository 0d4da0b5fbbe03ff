"""The eight symmetries of the pixel grid: they move pixels and mix none, so that independent noise stays independent."""

from __future__ import annotations

from typing import Any, TypeVar

from firstlight.restore.symmetries import turn

__all__ = ["turned"]

Parts = TypeVar("Parts", bound=tuple[Any, ...])


def turned(parts: Parts, which: int) -> Parts:
    """Arrays (..., Y, X), square along both, of a named tuple, under symmetry `which` 0..7: quarter turns, then a flip."""
    kind: Any = type(parts)
    found: Parts = kind(*(None if part is None else turn(part, which) for part in parts))
    return found
