"""Laminography: a rotation axis that is not perpendicular to the beam; bilinear backprojection and its exact adjoint.

The axis Z makes an angle `tilt` with the beam. At rotation t a point (x, y, z) of the sample, from the volume's centre, falls
on column u = x cos t + y sin t + center and row v = z sin tilt + (y cos t - x sin t) cos tilt + row: at 90 degrees each slice
has a detector row of its own.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numba import float32, uintp
from numpy.typing import NDArray

from firstlight.operators.backproject import OPTIONS, each, inside

__all__ = ["backproject", "project"]

Array = NDArray[Any]
SQUARE = 16  # rows of a slice at a time


def backproject(
    projections: Array, angles: Array, tilt: float, center: float, row: float, out: Array, *, workers: int = 1
) -> Array:
    """The sum over angles of projections (A, Y, X) read at (v, u) of each voxel, into out (Z, size, size); zero beyond.

    tilt [rad]; center [px along X], row [px along Y]: where the volume's centre falls.
    """
    q = np.ascontiguousarray(projections, dtype=np.float32)
    cos, sin = np.cos(angles), np.sin(angles)
    middle = (out.shape[0] - 1) / 2
    each(
        out.shape[0],
        workers,
        lambda z: _back(q, cos, sin, _exact(np.cos(tilt)), (z - middle) * np.sin(tilt) + row, center, out[z]),
    )
    return out


def project(volume: Array, angles: Array, tilt: float, center: float, row: float, out: Array, *, workers: int = 1) -> Array:
    """The exact adjoint of `backproject`: line integrals [unit x px] of a volume (Z, size, size) into out (A, Y, X)."""
    x = np.ascontiguousarray(volume, dtype=np.float32)
    slope, rise = _exact(np.cos(tilt)), float(np.sin(tilt))
    each(len(angles), workers, lambda a: _onto(x, np.cos(angles[a]), np.sin(angles[a]), slope, rise, row, center, out[a]))
    return out


def _exact(slope: float) -> float:
    """cos 90 degrees is 6e-17 in floating point: enough to put a voxel beyond the last row."""
    return 0.0 if abs(slope) < 1e-12 else float(slope)


@nb.njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _span(u0: float, du: float, v0: float, dv: float, size: int, columns: int, rows: int) -> tuple[int, int]:
    """The x whose column and row are both on the detector."""
    one, two = inside(u0, du, size, float(columns - 1)), inside(v0, dv, size, float(rows - 1))
    return max(one[0], two[0]), min(one[1], two[1])


@nb.njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _back(q: Any, cos: Any, sin: Any, slope: float, height: float, center: float, out: Any) -> None:
    size, rows, columns = out.shape[0], q.shape[1], q.shape[2]
    middle = (size - 1) / 2
    out[:] = 0
    for y0 in range(0, size, SQUARE):
        for a in range(q.shape[0]):
            du, dv, image = cos[a], -sin[a] * slope, q[a]
            for y in range(y0, min(y0 + SQUARE, size)):
                u0 = (y - middle) * sin[a] - middle * du + center
                v0 = (y - middle) * cos[a] * slope - middle * dv + height
                first, stop = _span(u0, du, v0, dv, size, columns, rows)
                line = out[uintp(y)]
                for x in range(first, stop):
                    u, v = u0 + x * du, v0 + x * dv
                    i, j = min(int(u), columns - 2), min(int(v), max(rows - 2, 0))
                    f, g = float32(u - i), float32(v - j)
                    near, far = image[uintp(j)], image[uintp(min(j + 1, rows - 1))]
                    low = near[uintp(i)] + f * (near[uintp(i + 1)] - near[uintp(i)])
                    high = far[uintp(i)] + f * (far[uintp(i + 1)] - far[uintp(i)])
                    line[uintp(x)] += low + g * (high - low)


@nb.njit(**OPTIONS)  # type: ignore[untyped-decorator]
def _onto(volume: Any, cos: float, sin: float, slope: float, rise: float, row: float, center: float, p: Any) -> None:
    size, rows, columns = volume.shape[1], p.shape[0], p.shape[1]
    middle, floor = (size - 1) / 2, (volume.shape[0] - 1) / 2
    du, dv = cos, -sin * slope
    p[:] = 0
    for z in range(volume.shape[0]):
        for y in range(size):
            u0 = (y - middle) * sin - middle * du + center
            v0 = (y - middle) * cos * slope - middle * dv + (z - floor) * rise + row
            first, stop = _span(u0, du, v0, dv, size, columns, rows)
            line = volume[uintp(z), uintp(y)]
            for x in range(first, stop):
                u, v = u0 + x * du, v0 + x * dv
                i, j = min(int(u), columns - 2), min(int(v), max(rows - 2, 0))
                f, g = float32(u - i), float32(v - j)
                near, far, value = p[uintp(j)], p[uintp(min(j + 1, rows - 1))], line[uintp(x)]
                high = g * value
                low = value - high
                near[uintp(i)] += low - f * low
                near[uintp(i + 1)] += f * low
                far[uintp(i)] += high - f * high
                far[uintp(i + 1)] += f * high
