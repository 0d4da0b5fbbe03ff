"""Plain backprojection, pixel by pixel with linear interpolation: the oracle of the gridding, and for odd geometries."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from firstlight.operators.ramp import response

__all__ = ["backproject", "filtered"]

Array = NDArray[Any]


def filtered(data: Array, filter: str, edge: int = 0) -> Array:
    """Projections (A, Y, X) through a filter of filtered backprojection, float32; padded as by the gridding."""
    from firstlight.operators.spread import pack, unpack

    width = 2 * int(fft.next_fast_len(data.shape[2]))
    gain = response(filter, width).astype(np.float32)
    gain = np.concatenate([gain, gain[-2:0:-1]])
    out = np.empty(data.shape, np.float32)
    work = np.empty((1, width, -(-data.shape[1] // 2)), np.complex64)
    for a in range(len(data)):
        pack(data, a, edge, work.view(np.float32))
        z = fft.fft(work, axis=1, overwrite_x=True)
        z *= gain[:, None]
        unpack(fft.ifft(z, axis=1, overwrite_x=True).view(np.float32), a, out)
    return out


def backproject(projections: Array, angles: Array, centers: Array, size: int) -> Array:
    """The sum over angles of projections (A, Y, X) read at x cos t + y sin t + center: slices (Y, size, size), float32.

    centers (Y,) [px]; zero beyond the detector. The rotation axis lies at (size - 1) / 2.
    """
    out = np.zeros((projections.shape[1], size, size), np.float32)
    _rows(np.ascontiguousarray(projections), np.cos(angles), np.sin(angles), np.asarray(centers, dtype=np.float64), out)
    return out


@nb.njit(nogil=True, cache=True, error_model="numpy")
def _rows(q: Any, cos: Any, sin: Any, centers: Any, out: Any) -> None:
    slices, size = out.shape[0], out.shape[1]
    columns, middle = q.shape[2], (size - 1) / 2
    for s in range(slices):
        for y in range(size):
            line = out[s, y]
            for a in range(q.shape[0]):
                row = q[a, s]
                u0 = (y - middle) * sin[a] - middle * cos[a] + centers[s]
                for x in range(size):
                    u = u0 + x * cos[a]
                    if u < 0 or u > columns - 1:
                        continue
                    i = min(int(u), columns - 2)
                    f = np.float32(u - i)
                    line[x] += row[i] + f * (row[i + 1] - row[i])
