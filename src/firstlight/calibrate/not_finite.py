"""Pixels of a scan without a finite value: filled along the detector's rows, so that no later step spreads them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag

__all__ = ["filled", "refuse_empty"]

Array = NDArray[Any]


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
