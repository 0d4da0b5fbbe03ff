"""The eight symmetries of the pixel grid: they move pixels and mix none, so that independent noise stays independent."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["turned"]

Parts = TypeVar("Parts", bound=tuple[Any, ...])


def turned(parts: Parts, which: int) -> Parts:
    """Arrays (..., Y, X), square along both, of a named tuple, under symmetry `which` 0..7: quarter turns, then a flip."""
    kind: Any = type(parts)
    found: Parts = kind(*(None if part is None else _turn(part, which) for part in parts))
    return found


def _turn(part: NDArray[Any], which: int) -> NDArray[Any]:
    part = np.rot90(part, which % 4, axes=(-2, -1))
    return part[..., ::-1] if which >= 4 else part
