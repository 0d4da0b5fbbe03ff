"""Gaps of a sinogram (A, X): pixels that say nothing, given a value by their neighbours so that a filter can run over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill"]

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
