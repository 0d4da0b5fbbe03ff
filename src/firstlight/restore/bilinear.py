"""Colours between the samples of a mosaic as weighted means of the nearest: the baseline, for any pattern."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from firstlight import cfa
from firstlight.geometry import Mosaic

__all__ = ["interpolate"]

Array = NDArray[Any]


def interpolate(samples: Array, mosaic: Mosaic) -> Array:
    """Colours (C, Y, X) float32 of a mosaic (Y, X): its samples, and elsewhere means of those of that colour.

    Weights fall linearly with the distance along Y and X, over the least square that holds every colour wherever it lies
    (normalised convolution, Knutsson & Westin 1993); for a Bayer pattern that is bilinear interpolation.
    """
    cell = mosaic.cell()
    half = _half(cell, len(mosaic.colors))
    edge = ((half, half), (half, half))
    wide, grown = cfa.extend(np.asarray(samples, dtype=np.float32), mosaic, edge)
    kernel = (half + 1 - np.abs(np.arange(-half, half + 1))).astype(np.float32)
    color = grown.at(wide.shape)
    out = np.empty((len(mosaic.colors), *samples.shape), dtype=np.float32)
    for k in range(len(out)):
        mask = (color == k).astype(np.float32)
        total, weight = (_smooth(part, kernel)[half:-half, half:-half] for part in (wide * mask, mask))
        measured = mask[half:-half, half:-half] > 0
        out[k] = np.where(measured, samples, total / weight)
    return out


def _smooth(plane: Array, kernel: Array) -> Array:
    return np.asarray(correlate1d(correlate1d(plane, kernel, axis=0), kernel, axis=1))


def _half(cell: Array, colors: int) -> int:
    half = 1
    while True:
        ring = np.pad(cell, half, mode="wrap")
        width = 2 * half + 1
        windows = np.lib.stride_tricks.sliding_window_view(ring, (width, width))
        if all(np.all(np.any(windows == k, axis=(-2, -1))) for k in range(colors)):
            return half
        half += 1
