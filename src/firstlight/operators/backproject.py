"""Plain backprojection, pixel by pixel with linear interpolation, and its exact adjoint: the oracle of the gridding."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba as nb
import numpy as np
from numba import float32, uintp
from numpy.typing import NDArray
from scipy import fft

from firstlight.errors import FrameError
from firstlight.operators.ramp import response
from firstlight.operators.vectors import between, parted

__all__ = ["OPTIONS", "backproject", "each", "filtered", "inside", "project"]

Array = NDArray[Any]
LANES = (1, 4, 16)  # slices at a time: they share the interpolation's weights, and a batch is a vector
CACHE = 1 << 20  # bytes of slices at a time
OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}


def filtered(data: Array, filter: str, edge: int = 0) -> Array:
    """Projections (A, Y, X) through a filter of filtered backprojection, float32; padded as by the gridding.

    Raises FrameError where not finite.
    """
    from firstlight.operators.spread import pack, unpack

    width = 2 * int(fft.next_fast_len(data.shape[2]))
    gain = response(filter, width).astype(np.float32)
    gain = np.concatenate([gain, gain[-2:0:-1]])
    out = np.empty(data.shape, np.float32)
    work = np.empty((1, width, -(-data.shape[1] // 2)), np.complex64)
    for a in range(len(data)):
        if not pack(data, a, edge, work.view(np.float32)):
            raise FrameError("backprojection: the sinogram is not finite; replace what is not, or flag and floor it before")
        z = fft.fft(work, axis=1, overwrite_x=True)
        z *= gain[:, None]
        unpack(fft.ifft(z, axis=1, overwrite_x=True).view(np.float32), a, out)
    return out


def backproject(
    projections: Array, angles: Array, centers: Array, size: int, *, out: Array | None = None, workers: int = 1
) -> Array:
    """The sum over angles of projections (A, S, X) read at x cos t + y sin t + center: slices (S, size, size), float32.

    centers (S,) [px]; zero beyond the detector. The rotation axis lies at (size - 1) / 2.
    """
    q = np.asarray(projections, dtype=np.float32)
    out = np.empty((q.shape[1], size, size), np.float32) if out is None else out
    cos, sin, parts = np.cos(angles), np.sin(angles), _parts(centers)

    def run(i: int) -> None:
        part, center = parts[i]
        back[_lanes(part)](q[:, part], cos, sin, center, rows_of(size), out[part])

    each(len(parts), workers, run)
    return out


def project(images: Array, angles: Array, centers: Array, columns: int, *, out: Array | None = None, workers: int = 1) -> Array:
    """The exact adjoint of `backproject`: each pixel parted between the two columns that it is read from; (A, S, X) float32."""
    x = np.asarray(images, dtype=np.float32)
    out = np.empty((len(angles), x.shape[0], columns), np.float32) if out is None else out
    cos, sin, parts = np.cos(angles), np.sin(angles), _parts(centers)

    def run(i: int) -> None:
        part, center = parts[i]
        onto[_lanes(part)](x[part], cos, sin, center, rows_of(x.shape[1]), out[:, part])

    each(len(parts), workers, run)
    return out


def each(count: int, workers: int, run: Callable[[int], None]) -> None:
    """run(0), run(1), .. by threads."""
    if workers == 1 or count == 1:
        for i in range(count):
            run(i)
        return
    with ThreadPoolExecutor(min(workers, count)) as pool:
        list(pool.map(run, range(count)))


def rows_of(size: int) -> int:
    """Rows of a slice at a time: with all lanes they stay in the cache while all projections pass by."""
    return max(4, min(32, CACHE // (4 * LANES[-1] * size)))


def _parts(centers: Array) -> list[tuple[slice, float]]:
    """Slices that share their centre in batches, with the centre."""
    at = np.asarray(centers, dtype=np.float64)
    most = LANES[-1] if np.ptp(at) == 0 else 1
    return [(slice(i, min(i + most, at.size)), float(at[i])) for i in range(0, at.size, most)]


def _lanes(part: slice) -> int:
    return next(lanes for lanes in LANES if lanes >= part.stop - part.start)


@nb.njit(**OPTIONS)  # type: ignore[untyped-decorator]
def inside(start: float, step: float, size: int, last: float) -> tuple[int, int]:
    """The x of 0 .. size - 1 (first, one beyond the last) with start + x step in 0 .. last."""
    if abs(step) < 1e-12:
        return (0, size) if 0 <= start <= last and 0 <= start + (size - 1) * step <= last else (0, 0)
    one, two = -start / step, (last - start) / step
    first, stop = max(0, int(np.ceil(min(one, two)))), min(size, int(np.floor(max(one, two))) + 1)
    while first < stop and not 0 <= start + first * step <= last:
        first += 1
    while first < stop and not 0 <= start + (stop - 1) * step <= last:
        stop -= 1
    return first, stop


def _back(lanes: int) -> Callable[..., None]:
    @nb.njit(**OPTIONS)  # type: ignore[untyped-decorator]
    def loop(q: Any, cos: Any, sin: Any, center: float, rows: int, out: Any) -> None:
        slices, size, columns = out.shape[0], out.shape[1], q.shape[2]
        middle, last = (size - 1) / 2, float(columns - 1)
        sums, row = np.empty(rows * size * lanes, np.float32), np.zeros((columns + 1) * lanes, np.float32)
        for y0 in range(0, size, rows):
            sums[:] = 0
            for a in range(q.shape[0]):
                for s in range(slices):
                    for x in range(columns):
                        row[uintp(x * lanes + s)] = q[a, s, x]
                for y in range(y0, min(y0 + rows, size)):
                    u0 = (y - middle) * sin[a] - middle * cos[a] + center
                    first, stop = inside(u0, cos[a], size, last)
                    for x in range(first, stop):
                        u = u0 + x * cos[a]
                        i = int(u)
                        to = uintp(((y - y0) * size + x) * lanes)
                        between(sums, to, row, uintp(i * lanes), float32(u - i), lanes)
            for s in range(slices):
                for y in range(y0, min(y0 + rows, size)):
                    for x in range(size):
                        out[s, y, x] = sums[uintp(((y - y0) * size + x) * lanes + s)]

    return loop  # type: ignore[no-any-return]


def _onto(lanes: int) -> Callable[..., None]:
    @nb.njit(**OPTIONS)  # type: ignore[untyped-decorator]
    def loop(images: Any, cos: Any, sin: Any, center: float, rows: int, p: Any) -> None:
        slices, size, columns = images.shape[0], images.shape[1], p.shape[2]
        middle, last = (size - 1) / 2, float(columns - 1)
        values, row = np.zeros(rows * size * lanes, np.float32), np.empty((columns + 1) * lanes, np.float32)
        for y0 in range(0, size, rows):
            for s in range(slices):
                for y in range(y0, min(y0 + rows, size)):
                    for x in range(size):
                        values[uintp(((y - y0) * size + x) * lanes + s)] = images[s, y, x]
            for a in range(p.shape[0]):
                row[:] = 0
                for y in range(y0, min(y0 + rows, size)):
                    u0 = (y - middle) * sin[a] - middle * cos[a] + center
                    first, stop = inside(u0, cos[a], size, last)
                    for x in range(first, stop):
                        u = u0 + x * cos[a]
                        i = int(u)
                        source = uintp(((y - y0) * size + x) * lanes)
                        parted(values, source, row, uintp(i * lanes), float32(u - i), lanes)
                for s in range(slices):
                    for x in range(columns):
                        old = float32(0) if y0 == 0 else p[a, s, x]
                        p[a, s, x] = old + row[uintp(x * lanes + s)]

    return loop  # type: ignore[no-any-return]


back = {lanes: _back(lanes) for lanes in LANES}
onto = {lanes: _onto(lanes) for lanes in LANES}
