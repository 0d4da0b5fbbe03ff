"""The rotation axis by the sharpness of slices: the right one makes the least negative and the least double contours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.geometry import Scan
from firstlight.needs import needs
from firstlight.restore.reconstruct import reconstruct

__all__ = ["around", "sharpest_center", "unsharpness"]

Array = NDArray[Any]
STEP = "restore.sharpest_center"
FINEST = 0.1  # px


def around(frame: Frame, centers: ArrayLike, *, row: int | None = None, size: int | None = None, filter: str = "ramp") -> Frame:
    """Slices (K, Y, X) of one detector row (the middle one), each with its own centre [px]; frame: optical depth AYX."""
    tried = np.atleast_1d(np.asarray(centers, dtype=np.float64))
    y = frame.shape[1] // 2 if row is None else row
    if not 0 <= y < frame.shape[1]:
        raise FrameError(f"{STEP}: row {y}, expected one of 0..{frame.shape[1] - 1}")
    data = np.repeat(np.asarray(frame.data[:, y : y + 1], dtype=np.float32), tried.size, axis=1)
    one = frame.replace(data=data, flags=None, std=None)
    return reconstruct(one, center=tried.tolist(), size=size, filter=filter)


def unsharpness(slices: Array) -> Array:
    """Mean |f| over the disc of each slice (K, Y, X) over the mean of f: least at the right centre; (K,).

    Q_IA of Donath, Beckmann and Schreyer, J. Opt. Soc. Am. A 23, 1048 (2006).
    """
    half = (slices.shape[-1] - 1) / 2
    y, x = np.ogrid[-half : half + 0.5, -half : half + 0.5]
    inside = np.asarray(slices, dtype=np.float64)[:, x * x + y * y <= half * half]
    level = np.abs(inside.mean(axis=1))
    return np.asarray(np.abs(inside).mean(axis=1) / np.maximum(level, 1e-12))


@needs(copies=4.0, sample=8)
def sharpest_center(frame: Frame, *, guess: float | None = None, width: float = 4.0, rows: int | Sequence[int] = 4) -> Frame:
    """The frame with Scan.center where slices are sharpest, within guess +- width [px]; optical depth AYX, data shared.

    guess: of the scan by default, so that it refines calibrate.find_center. rows: how many detector rows, spread evenly, or
    which. See `unsharpness`. Raises FrameError where there is no guess, or the best lies on the edge of the range.
    """
    scan = frame.geometry
    if not isinstance(scan, Scan) or frame.axes != "AYX":
        raise FrameError(f"{STEP}: got axes {frame.axes} without a scan, expected AYX with the angle of each projection")
    start = guess if guess is not None else None if scan.center is None else float(np.mean(scan.center))
    if start is None or not width >= 1:
        raise FrameError(
            f"{STEP}: guess {start}, width {width}; give a guess and a width of 1 px or more, or find_center first"
        )
    height = frame.shape[1]
    chosen = [int((k + 0.5) * height / min(rows, height)) for k in range(min(rows, height))] if isinstance(rows, int) else rows
    best, step = start, width / 4
    while step > FINEST:
        tried = best + step * np.arange(-4, 5)
        tried = tried[(tried >= 0) & (tried <= frame.shape[2] - 1)]
        figures = np.mean([unsharpness(np.asarray(around(frame, tried, row=y).data)) for y in chosen], axis=0)
        best, step = float(tried[int(np.argmin(figures))]), step / 4
    if abs(best - start) > 0.97 * width:
        raise FrameError(f"{STEP}: the best axis {best:.1f} lies on the edge of {start:g} +- {width:g} px; widen width=")
    found = {"center": round(best, 3), "methods": {"sharpness": round(best, 3)}}
    params = {"width": width, "rows": rows if isinstance(rows, int) else list(rows), "found": found}
    return frame.then(STEP, params | ({} if guess is None else {"guess": guess}), geometry=replace(scan, center=round(best, 3)))
