"""The beam's intensity in each projection, from the air beside the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.needs import needs
from firstlight.noise import Noise, spread

__all__ = ["normalize_air"]

Array = NDArray[Any]
STEP = "calibrate.normalize_air"
UNSEEN = Flag.SATURATED | Flag.DEAD | Flag.NO_DATA


@needs(halo=0, copies=3.25)
def normalize_air(frame: Frame, *, columns: int = 10) -> Frame:
    """Transmission (..., Y, X) [1] over that of air: 1 on average in the outermost `columns` [px] of each row, left and right.

    Each row of each projection is divided by the straight line through the means of its first and last `columns`; saturated,
    dead, lost and non-finite pixels are left out of them. Noise and std are divided by each row's mean air over the
    projections; the air's own noise, var/columns and common to a row, is left out of the model. Raises FrameError for
    another unit, more columns than half the width, or a row whose air is not positive: nothing but the sample is there, or
    no beam.
    """
    frame.need(STEP, Unit.TRANSMISSION)
    width = frame.shape[-1]
    if not 1 <= columns <= width // 2:
        raise FrameError(
            f"{STEP}: {columns} columns of {width}, expected 1 to {width // 2}: air beside the sample, left and right"
        )
    data = np.asarray(frame.data, dtype=np.result_type(frame.data.dtype, np.float32))
    flags = None if frame.flags is None else np.broadcast_to(np.asarray(frame.flags), data.shape)
    left, right = (_air(data, flags, side) for side in (slice(0, columns), slice(width - columns, width)))
    centres = (columns - 1) / 2, width - 1 - (columns - 1) / 2
    along = ((np.arange(width) - centres[0]) / (centres[1] - centres[0])).astype(data.dtype)
    out = np.empty_like(data)
    for at in np.ndindex(data.shape[:-2]):
        np.divide(data[at], left[at] + (right[at] - left[at]) * along, out=out[at])
    mean = ((left + right) / 2).reshape(-1, data.shape[-2], 1).mean(axis=0).astype(np.float32)
    noise = frame.noise
    if isinstance(noise, Noise):
        noise = Noise(*(spread(p, frame.shape) for p in (noise.a, noise.b, noise.offset, noise.c, noise.d))).scaled(1 / mean)
    std = None if frame.std is None else np.asarray(frame.std) / mean
    return frame.then(STEP, {"columns": columns}, data=out, noise=noise, std=std)


def _air(data: Array, flags: Array | None, side: slice) -> Array:
    """Mean (..., Y, 1) of the columns of one side."""
    part = data[..., side]
    good = np.isfinite(part) if flags is None else np.isfinite(part) & ((flags[..., side] & int(UNSEEN)) == 0)
    number = good.sum(axis=-1, keepdims=True)
    mean = np.where(good, part, 0).sum(axis=-1, keepdims=True) / np.maximum(number, 1)
    bad = np.argwhere(~(mean[..., 0] > 0))
    if bad.size:
        raise FrameError(
            f"{STEP}: air of row {bad[0][-1]} is {mean[tuple(bad[0])][0]:.3g} in columns {side.start} to {side.stop - 1} of "
            f"projection {tuple(map(int, bad[0][:-1]))}, expected above 0; choose fewer columns, or leave this step out"
        )
    return np.asarray(mean.astype(data.dtype))
