"""Loops of the gridding: pairs of slices as complex numbers, a batch of pairs innermost, one cell of the grid a cache line.

Arrays are real views of complex64: z (angles, 2 * batch * M) is the spectrum of a chunk of projections, grid a flat array of
(side + 2 * PAD)^2 cells. A sample at frequency m and its mirror at -m share their weights. Constant inner lengths let the
compiler use whole vectors, so there is one compiled loop per batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from numba import float32, intp, uintp

from firstlight.operators.kernel import OVER

__all__ = ["BATCHES", "PAD", "crop", "embed", "gather", "pack", "recentre", "spread", "unpack"]

PAD = 3  # cells beyond the grid on each side, folded back: the kernel never wraps in the inner loop
BATCHES = (1, 2, 4, 8)
ONE = float32(OVER)
LARGEST = np.finfo(np.float32).max
options: dict[str, Any] = {"fastmath": True, "nogil": True, "cache": True, "error_model": "numpy"}


@nb.njit(**(options | {"fastmath": False}))  # type: ignore[untyped-decorator]
def pack(p: Any, first: int, edge: int, z: Any) -> Any:
    """Rows p (A, S, N) from `first` on into z (a, M, 2 * batch); False where not finite.

    Padded by the means of `edge` columns at either end, faded into each other halfway round; by zeros where edge is 0.
    """
    n, width, lanes = z.shape
    slices, columns = p.shape[1], p.shape[2]
    bad = 0
    for a in range(n):
        for x0 in range(0, columns, 16):
            x1 = min(x0 + 16, columns)
            for b in range(slices):
                for x in range(x0, x1):
                    v = p[first + a, b, x]
                    bad += not abs(v) <= LARGEST  # NaN too
                    z[a, x, b] = v
            for x in range(x0, x1):
                for b in range(slices, lanes):
                    z[a, x, b] = 0
        for b in range(lanes):
            left, right = float32(0), float32(0)
            for x in range(edge):
                left += z[a, x, b] / float32(edge)
                right += z[a, columns - 1 - x, b] / float32(edge)
            z[a, columns, b], z[a, width - 1, b] = right, left
        gap = width - columns
        for x in range(columns + 1, width - 1):
            t = (x - columns) / gap
            w = float32(1 if t < 0.25 else 0 if t > 0.75 else 0.5 + 0.5 * np.cos(2 * np.pi * (t - 0.25)))
            for b in range(lanes):
                z[a, x, b] = w * z[a, columns, b] + (1 - w) * z[a, width - 1, b] if edge else float32(0)
    return bad == 0


@nb.njit(**options)  # type: ignore[untyped-decorator]
def unpack(z: Any, first: int, p: Any) -> None:
    """The first N samples of z (a, M, 2 * batch) into rows p (A, S, N) from `first` on."""
    for a in range(z.shape[0]):
        for x0 in range(0, p.shape[2], 16):
            for b in range(p.shape[1]):
                for x in range(x0, min(x0 + 16, p.shape[2])):
                    p[first + a, b, x] = z[a, x, b]


@nb.njit(**options)  # type: ignore[untyped-decorator]
def recentre(z: Any, turns: Any) -> None:
    """Multiply the spectrum of slice s at frequency m by exp(2 pi i m turns[s]): a shift of its own for each slice."""
    width = z.shape[1]
    half = width // 2
    for b in range(turns.size // 2):
        for m in range(half + 1):
            mirror = (width - m) % width
            c0, s0 = np.cos(2 * np.pi * m * turns[2 * b]), np.sin(2 * np.pi * m * turns[2 * b])
            c1, s1 = np.cos(2 * np.pi * m * turns[2 * b + 1]), np.sin(2 * np.pi * m * turns[2 * b + 1])
            if m == half:
                s0 = s1 = 0.0
            first, second = complex(c0, s0), complex(c1, s1)
            for a in range(z.shape[0]):
                up, down = z[a, m, b], np.conj(z[a, mirror, b])
                one, two = 0.5 * (up + down) * first, -0.5j * (up - down) * second
                z[a, m, b] = one + 1j * two
                z[a, mirror, b] = np.conj(one) + 1j * np.conj(two)


def _spread(batch: int) -> Callable[..., None]:
    lanes = 2 * batch

    @nb.njit(**options)  # type: ignore[untyped-decorator]
    def loop(z: Any, response: Any, cos: Any, sin: Any, side: int, table: Any, grid: Any) -> None:
        width = z.shape[1] // lanes
        half = width // 2
        stride, cell = uintp((side + 2 * PAD) * lanes), uintp(lanes)
        s, q = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
        wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
        middle = side // 2 + PAD
        for a in range(z.shape[0]):
            dx, dy = cos[a] * side / width, sin[a] * side / width
            line = z[a]
            for m in range(half + 1):
                r, i = response[a, uintp(m)].real, response[a, uintp(m)].imag
                px, py = dx * m + middle, dy * m + middle
                ix, iy = intp(px) - 1, intp(py) - 1
                fx, fy = float32(px - ix) * ONE, float32(py - iy) * ONE
                for k in range(4):
                    wx[k] = table[uintp(abs(fx - ONE * float32(k)))]
                    wy[k] = table[uintp(abs(fy - ONE * float32(k)))]
                up, down = uintp(m * lanes), uintp((width - m) * lanes)
                if m == 0:
                    down, r, i = up, r * float32(0.5), i * float32(0.5)
                for b in range(batch):
                    re, im = line[up + uintp(2 * b)], line[up + uintp(2 * b + 1)]
                    s[2 * b], s[2 * b + 1] = re * r - im * i, re * i + im * r
                    re, im = line[down + uintp(2 * b)], line[down + uintp(2 * b + 1)]
                    q[2 * b], q[2 * b + 1] = re * r + im * i, im * r - re * i
                o = uintp(iy) * stride + uintp(ix) * cell
                p = uintp(2 * middle - iy) * stride + uintp(2 * middle - ix - 3) * cell
                for k in range(4):
                    w0, w1, w2, w3 = wy[k] * wx[0], wy[k] * wx[1], wy[k] * wx[2], wy[k] * wx[3]
                    for b in range(lanes):
                        grid[o + uintp(b)] += w0 * s[b]
                        grid[o + uintp(lanes + b)] += w1 * s[b]
                        grid[o + uintp(2 * lanes + b)] += w2 * s[b]
                        grid[o + uintp(3 * lanes + b)] += w3 * s[b]
                    for b in range(lanes):
                        grid[p + uintp(b)] += w3 * q[b]
                        grid[p + uintp(lanes + b)] += w2 * q[b]
                        grid[p + uintp(2 * lanes + b)] += w1 * q[b]
                        grid[p + uintp(3 * lanes + b)] += w0 * q[b]
                    o += stride
                    p -= stride

    return loop  # type: ignore[no-any-return]


def _gather(batch: int) -> Callable[..., None]:
    lanes = 2 * batch

    @nb.njit(**options)  # type: ignore[untyped-decorator]
    def loop(grid: Any, response: Any, cos: Any, sin: Any, side: int, table: Any, z: Any) -> None:
        width = z.shape[1] // lanes
        half = width // 2
        stride, cell = uintp((side + 2 * PAD) * lanes), uintp(lanes)
        s, q = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
        wx, wy = np.empty(4, np.float32), np.empty(4, np.float32)
        middle = side // 2 + PAD
        for a in range(z.shape[0]):
            dx, dy = cos[a] * side / width, sin[a] * side / width
            line = z[a]
            for m in range(half + 1):
                r, i = response[a, uintp(m)].real, -response[a, uintp(m)].imag
                px, py = dx * m + middle, dy * m + middle
                ix, iy = intp(px) - 1, intp(py) - 1
                fx, fy = float32(px - ix) * ONE, float32(py - iy) * ONE
                for k in range(4):
                    wx[k] = table[uintp(abs(fx - ONE * float32(k)))]
                    wy[k] = table[uintp(abs(fy - ONE * float32(k)))]
                s[:] = 0
                q[:] = 0
                o = uintp(iy) * stride + uintp(ix) * cell
                p = uintp(2 * middle - iy) * stride + uintp(2 * middle - ix - 3) * cell
                for k in range(4):
                    w0, w1, w2, w3 = wy[k] * wx[0], wy[k] * wx[1], wy[k] * wx[2], wy[k] * wx[3]
                    for b in range(lanes):
                        s[b] += w0 * grid[o + uintp(b)] + w1 * grid[o + uintp(lanes + b)]
                        s[b] += w2 * grid[o + uintp(2 * lanes + b)] + w3 * grid[o + uintp(3 * lanes + b)]
                    for b in range(lanes):
                        q[b] += w3 * grid[p + uintp(b)] + w2 * grid[p + uintp(lanes + b)]
                        q[b] += w1 * grid[p + uintp(2 * lanes + b)] + w0 * grid[p + uintp(3 * lanes + b)]
                    o += stride
                    p -= stride
                up, down = uintp(m * lanes), uintp((width - m) * lanes)
                if m == 0:
                    for b in range(batch):
                        line[uintp(2 * b)] = s[2 * b] * r - s[2 * b + 1] * i
                        line[uintp(2 * b + 1)] = s[2 * b] * i + s[2 * b + 1] * r
                elif m == half:  # both ends of the spectrum fall on one sample
                    for b in range(batch):
                        re, im = s[2 * b], s[2 * b + 1]
                        rq, iq = q[2 * b], q[2 * b + 1]
                        line[up + uintp(2 * b)] = re * r - im * i + rq * r + iq * i
                        line[up + uintp(2 * b + 1)] = re * i + im * r - rq * i + iq * r
                else:
                    for b in range(batch):
                        re, im = s[2 * b], s[2 * b + 1]
                        line[up + uintp(2 * b)], line[up + uintp(2 * b + 1)] = re * r - im * i, re * i + im * r
                        re, im = q[2 * b], q[2 * b + 1]
                        line[down + uintp(2 * b)], line[down + uintp(2 * b + 1)] = re * r + im * i, im * r - re * i

    return loop  # type: ignore[no-any-return]


spread = {batch: _spread(batch) for batch in BATCHES}
gather = {batch: _gather(batch) for batch in BATCHES}


@nb.njit(**options)  # type: ignore[untyped-decorator]
def crop(rows: Any, correction: Any, first: int, start: int, images: Any) -> None:
    """Rows (R, side, lanes) of the transformed grid into rows `first`.. of images (S, n, n), corrected.

    start: the grid's index of the first column; correction (n,) for both axes.
    """
    slices, n = images.shape[0], images.shape[2]
    side = rows.shape[1]
    for y in range(rows.shape[0]):
        row = correction[first + y]
        for x0 in range(0, n, 16):
            x1 = min(x0 + 16, n)
            for b in range(slices):
                for x in range(x0, x1):
                    images[b, first + y, x] = rows[y, (start + x) % side, b] * (row * correction[x])


@nb.njit(**options)  # type: ignore[untyped-decorator]
def embed(images: Any, correction: Any, first: int, start: int, rows: Any) -> None:
    """The adjoint of `crop`: rows `first`.. of images (S, n, n) into rows (R, side, lanes) of an empty grid."""
    slices, n = images.shape[0], images.shape[2]
    side = rows.shape[1]
    for y in range(rows.shape[0]):
        rows[y] = 0
        row = correction[first + y]
        for x0 in range(0, n, 16):
            for b in range(slices):
                for x in range(x0, min(x0 + 16, n)):
                    rows[y, (start + x) % side, b] = images[b, first + y, x] * (row * correction[x])
