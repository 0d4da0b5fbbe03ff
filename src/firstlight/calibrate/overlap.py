"""The axis of a scan all the way round: where projections half a turn apart overlap, one is the other's mirror image.

p(theta, x) = p(theta + pi, 2c - x). The normalised correlation is taken over the overlap alone (Padfield 2012: sums by FFT,
pooled over all pairs), so that an axis near the edge of the field, with little overlap, is found as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

__all__ = ["overlap_center"]

Array = NDArray[Any]
LEAST = 0.05  # of the width: a smaller overlap is not looked at
BLOCKS = 4  # of angles, interleaved: their scatter is the error bar
BLUR = 1 / 32  # of the width: standard deviation of what is taken off each row first


def overlap_center(pairs: list[tuple[Array, Array]]) -> tuple[float, float]:
    """(axis, its standard error) [px] from pairs of half turns (N, X), the second half a turn on from the first."""
    width = pairs[0][0].shape[1]
    blocks = [[(a[k::BLOCKS], b[k::BLOCKS, ::-1]) for a, b in pairs] for k in range(BLOCKS)]
    sums = [sum((_sums(_details(a), _details(b)) for a, b in block), np.zeros((6, 2 * width - 1))) for block in blocks]
    centers = [_top(s, width) for s in sums]
    spread = float(np.sqrt(np.mean(np.square(np.subtract(centers, np.median(centers))))))
    return _top(sum(sums, np.zeros((6, 2 * width - 1))), width), spread / np.sqrt(BLOCKS)


def _details(rows: Array) -> Array:
    rows = rows.astype(np.float64)
    return np.asarray(rows - gaussian_filter1d(rows, rows.shape[1] * BLUR, axis=1, mode="nearest"))


def _sums(a: Array, b: Array) -> Array:
    """Over the overlap of a(x) with b(x + k), k = -(W - 1)..W - 1: number, a, b, a^2, b^2, a b; (6, 2 W - 1)."""
    width = a.shape[1]
    length = scipy.fft.next_fast_len(2 * width, real=True)
    fa, fb = scipy.fft.rfft(a, length, axis=1), scipy.fft.rfft(b, length, axis=1)
    cross = scipy.fft.irfft((np.conj(fa) * fb).sum(axis=0), length)
    k = np.arange(-(width - 1), width)
    first, last = np.maximum(0, -k), np.minimum(width, width - k)  # columns of a; those of b are k further on
    out = [np.asarray((last - first) * len(a), dtype=np.float64)]
    for power in (1, 2):
        for part, move in ((a, 0), (b, k)):
            total = np.append(0, np.cumsum((part**power).sum(axis=0)))
            out.append(total[last + move] - total[first + move])
    return np.stack([*out, cross[k]])


def _top(sums: Array, width: int) -> float:
    n, a, b, a2, b2, ab = sums
    spread = np.sqrt(np.maximum(a2 - a * a / n, 0) * np.maximum(b2 - b * b / n, 0))
    likeness = (ab - a * b / n) / np.maximum(spread, 1e-12 * max(float(spread.max()), 1e-30))
    edge = max(int(LEAST * width), 8)
    i = edge + int(np.argmax(likeness[edge:-edge]))
    left, mid, right = likeness[i - 1 : i + 2]
    bend = left - 2 * mid + right
    k = i - (width - 1) + (0.5 * (left - right) / bend if bend < 0 else 0.0)
    return float((width - 1 - k) / 2)
