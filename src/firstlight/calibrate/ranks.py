"""Vo's stripe methods on one sinogram (A, X): N. T. Vo, R. C. Atwood, M. Drakopoulos, Optics Express 26, 28396 (2018).

Sorted along the angle, a column becomes its distribution of values; neighbours see nearly the same object and differ in it by
their response. Dividing a column by a positive factor, or replacing it by values that rise with the rank, keeps its order: so
one sort serves the large and the small stripes together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label, median_filter

__all__ = ["Found", "correct", "fluctuating", "interpolate", "limits"]

Array = NDArray[Any]
CHUNK = 64  # columns sorted at a time: keys of 64 x 2000 angles are 1 MB
SMOOTH = 10  # angles that a column is averaged over to see how it fluctuates (algorithm 6)
NEAR = 10  # columns on each side that a fluctuating one must stand out from: an object's rim is wider
NEVER = 1e30  # a limit that nothing exceeds, finite because it is multiplied by zeros
FLOOR = 1e-6  # least spread of a list: below it differences are rounding


class Found(NamedTuple):
    """What `correct` did to each column (X,): the factor (or, for differences, the value) removed; whether it was replaced."""

    level: Array
    replaced: Array


def limits(line: Array, snr: float) -> tuple[float, float]:
    """Below and above which a list (X,) is outlying, by a line through the middle half of its sorted values (algorithm 4).

    The line's ends span the noise. Where the largest value lies more than `snr` spans above the upper end, what lies more
    than snr/2 spans above it is outlying, else nothing; likewise below.
    """
    ranked, n = np.sort(np.asarray(line, dtype=np.float64)), line.size
    middle = np.arange(n // 4, max(3 * n // 4, n // 4 + 2))
    slope, low = np.polyfit(middle, ranked[middle], 1) if n > 3 else (0.0, float(np.median(line)))
    high = low + slope * (n - 1)
    span = max(high - low, FLOOR)
    above = high + snr / 2 * span if ranked[-1] - high > snr * span else NEVER
    below = low - snr / 2 * span if low - ranked[0] > snr * span else -NEVER
    return float(below), float(above)


def _outlying(line: Array, snr: float) -> Array:
    """Columns beyond the limits, as far as they are a stripe: see `_steep`."""
    below, above = limits(line, snr)
    return _steep(line, np.asarray(line < below)) | _steep(line, np.asarray(line > above))


def _steep(line: Array, found: Array) -> Array:
    """Runs of `found` columns that rise to more than half their height, over the median of all, within 3 columns at both ends.

    A wrong gain begins from one column to the next; an object about the axis, which stands still too, goes up gradually.
    """
    runs, count = label(found)
    rest, last = np.median(line), line.size - 1
    for k in range(1, count + 1):
        at = np.flatnonzero(runs == k)
        half = 0.5 * abs(float(np.median(line[at])) - rest)
        first, end = int(at[0]), int(at[-1])
        left = first < 2 or abs(line[min(first + 1, end)] - line[first - 2]) > half
        right = end > last - 2 or abs(line[max(end - 1, first)] - line[end + 2]) > half
        if not (left and right):
            found[at] = False
    return found


def _ratio(line: Array, smooth: Array) -> Array:
    return np.divide(line, smooth, out=np.ones_like(line), where=(line > 0) & (smooth > 0))


def _sides(line: Array, reach: int) -> tuple[Array, Array]:
    """The lesser and the greater of the medians of `reach` values to the left and to the right; mirrored ends."""
    medians = np.median(sliding_window_view(np.pad(line, reach, mode="symmetric"), reach), axis=1)
    left, right = medians[: line.size], medians[reach + 1 :]
    return np.minimum(left, right), np.maximum(left, right)


def fluctuating(plane: Array, snr: float, size: int) -> Array:
    """Columns that fluctuate far more, or far less, along the angle than their neighbours (algorithm 6), bool (X,).

    The paper compares with the median of `size` columns around, and takes the rim of an object, which fluctuates far more than
    the air beside it, for a defect. Here a column must also stand out by a factor of 2 from the nearest 10 columns on its left
    and on its right. Grown by one column on each side; not the two columns at each end.
    """
    from firstlight.calibrate.medians import fluctuation

    line = fluctuation(plane, SMOOTH)
    smooth = median_filter(line, size, mode="reflect")
    below, above = limits(np.divide(line, smooth, out=np.ones_like(line), where=smooth > 0), snr)
    least, most = _sides(line, min(NEAR, line.size))
    found = np.asarray(binary_dilation((line > max(above, 2) * most) & (most > 0) | (line < min(below, 0.5) * least)))
    found[:2] = found[-2:] = False
    return found


def interpolate(plane: Array, lost: Array) -> Array:
    """`plane` (A, X) with the columns `lost` (X,) interpolated linearly between the nearest others; beyond them the nearest."""
    good = np.flatnonzero(~lost)
    at = np.flatnonzero(lost)
    right = np.clip(np.searchsorted(good, at), 0, good.size - 1)
    left = np.clip(np.searchsorted(good, at) - 1, 0, good.size - 1)
    a, b = good[left], good[right]
    share = np.clip((at - a) / np.maximum(b - a, 1), 0, 1).astype(np.float32)
    out = np.array(plane)
    out[:, at] = plane[:, a] * (1 - share) + plane[:, b] * share
    return out


def _sorted(plane: Array) -> tuple[Array, Array]:
    """Each column's values in rising order (X, angles padded to whole lanes) and the angles they came from (X, A)."""
    from firstlight.calibrate.medians import LANES, pack, unpack

    angles, width = plane.shape
    bits = plane.view(np.uint32)
    values = np.zeros((width, -(-angles // LANES) * LANES), dtype=np.float32)
    order = np.empty((width, angles), dtype=np.uint32)
    keys = np.empty((min(CHUNK, width), angles), dtype=np.uint64)
    for x in range(0, width, CHUNK):
        some = keys[: min(CHUNK, width - x)]
        pack(bits, x, some)
        some.sort(axis=1)
        unpack(some, x, values.view(np.uint32), order)
    return values, order


def correct(plane: Array, *, snr: float, large: int, small: int, drop: float, divide: bool) -> Found:
    """Large stripes (window `large`, algorithm 5), then all others (window `small`, algorithm 3); a window of 0 leaves one out.

    plane: (A, X) float32, contiguous, finite, changed in place. divide: a column's level is its mean over that of the
    medians, and divided out (as a gain does to transmission); else their difference, and subtracted (as the same gain does to
    optical depth).
    """
    from firstlight.calibrate.medians import scatter, slide

    (values, order), angles = _sorted(plane), plane.shape[0]
    level: Array = np.full(plane.shape[1], 1.0 if divide else 0.0)
    replaced: Array = np.zeros(plane.shape[1], dtype=bool)
    smooth = np.empty_like(values)
    if large:
        slide(values, large, smooth)
        cut = int(drop * angles / 2)
        own, near = (np.asarray(np.mean(v[:, cut : angles - cut], axis=1, dtype=np.float64)) for v in (values, smooth))
        level = _ratio(own, near) if divide else own - near
        replaced = np.asarray(binary_dilation(_outlying(level, snr)))
        step = level[:, None].astype(np.float32)
        values = np.divide(values, step, out=values) if divide else np.subtract(values, step, out=values)
        values[replaced] = smooth[replaced]
    if small:
        slide(values, small, smooth)
        values = smooth
    scatter(values, order, plane)
    return Found(level, replaced)
