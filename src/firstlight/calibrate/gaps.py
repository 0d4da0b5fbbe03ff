"""Gaps of a scan: pixels that say nothing, given a value by their neighbours along X, so that no later step spreads them.

`filled` for pixels that are not finite, where a row without any value is refused; `fill` for any pixels of one sinogram, where
such a row is interpolated along the angle. `leave_out` for projections that are lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.geometry import WHITES_AT, Scan
from firstlight.needs import needs
from firstlight.noise import Noise, spread

__all__ = ["fill", "filled", "leave_out", "refuse_empty"]

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
            f"leave that projection out, by calibrate.leave_out with projections = [{row // height}] before this step"
        )


@needs(halo=0, copies=3.75)
def leave_out(frame: Frame, *, projections: Sequence[int]) -> Frame:
    """A scan (A, Y, X) without the projections numbered so, from 0: (A', Y, X), the unit, noise, std and flags of the others.

    Where the scan's file says which projection its whites were taken at, that is forgotten. Raises FrameError for other axes,
    numbers that no projection has, or where none would be left.
    """
    step = "calibrate.leave_out"
    if frame.axes != "AYX" or not isinstance(frame.geometry, Scan):
        raise FrameError(f"{step}: got axes {frame.axes}, expected a scan AYX with its angles")
    count, gone = frame.shape[0], sorted({int(i) for i in projections})
    if not gone or gone[0] < 0 or gone[-1] >= count or len(gone) == count:
        raise FrameError(f"{step}: projections {gone}, expected some of 0..{count - 1}, and not all")
    kept = np.delete(np.arange(count), gone)

    def own(part: Any) -> Any:
        return np.asarray(part)[kept] if np.ndim(part) == 3 and np.shape(part)[0] == count else part

    noise = frame.noise
    if isinstance(noise, Noise):
        noise = replace(noise, **{k: own(spread(getattr(noise, k), frame.shape)) for k in ("a", "b", "offset", "c", "d")})
    extra = tuple(e for e in frame.geometry.extra if e[0] != WHITES_AT)
    geometry = replace(frame.geometry, angles=frame.geometry.angles[kept], extra=extra)
    return frame.then(
        step,
        {"projections": gone},
        data=np.asarray(frame.data)[kept],
        noise=noise,
        std=own(frame.std),
        flags=own(frame.flags),
        geometry=geometry,
    )
