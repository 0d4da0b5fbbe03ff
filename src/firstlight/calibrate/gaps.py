"""Gaps of a scan: pixels that say nothing, given a value by their neighbours along X, so that no later step spreads them.

`filled` for pixels that are not finite, where a row without any value is refused; `fill` for any pixels of one sinogram, where
such a row is interpolated along the angle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag

__all__ = ["fill", "filled", "refuse_empty"]

Array = NDArray[Any]


def fill(plane: Array, gaps: Array, neutral: float) -> Array:
    """`plane` (A, X) with the pixels of `gaps` (A, X) interpolated linearly along their row; beyond its last the nearest.

    A row without any other pixel is interpolated between the rows around it; a plane without any becomes `neutral`.
    """
    out = np.array(plane)
    empty = gaps.all(axis=1)
    if empty.all():
        out[:] = neutral
        return out
    for row in np.flatnonzero(gaps.any(axis=1) & ~empty):
        good = np.flatnonzero(~gaps[row])
        out[row, gaps[row]] = np.interp(np.flatnonzero(gaps[row]), good, out[row, good])
    if empty.any():
        rows, at = np.flatnonzero(~empty), np.flatnonzero(empty)
        above = np.clip(np.searchsorted(rows, at), 0, rows.size - 1)
        a, b = rows[np.maximum(above - 1, 0)], rows[above]
        share = np.clip((at - a) / np.maximum(b - a, 1), 0, 1).astype(out.dtype)[:, None]
        out[at] = out[a] * (1 - share) + out[b] * share
    return out


def filled(data: Array, step: str) -> tuple[Array, Array]:
    """(A copy of data (A, Y, X) with non-finite pixels linearly interpolated along X, uint8 bits NO_DATA where they were).

    Beyond the first and the last finite pixel of a row their value goes on. Raises FrameError where a row has none.
    """
    from firstlight.calibrate.scan_kernels import fill_gaps

    out, bits = data.copy(), np.zeros(data.shape, dtype=np.uint8)
    refuse_empty(fill_gaps(out, int(Flag.NO_DATA), bits), data.shape[1], step)
    return out, bits


def refuse_empty(row: int, height: int, step: str) -> None:
    """Raises FrameError for the first row (counted through all projections) without a finite pixel; -1 for none."""
    if row >= 0:
        raise FrameError(
            f"{step}: row {row % height} of projection {row // height} holds no finite value, expected at least one; "
            "leave that projection or that row out"
        )
