"""Loops of the gridding: pairs of slices as complex numbers, a batch of pairs innermost, one cell of the grid a cache line.

Arrays are real views of complex64: z (angles, 2 * batch * M) is the spectrum of a chunk of projections, grid a flat array of
(side + 2 * PAD)^2 cells. A sample at frequency m and its mirror at -m have the same weights, reversed. The vectors' lengths are
constants, so there is one compiled loop per batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba as nb
import numpy as np
from numba import float32, intp, uintp

from firstlight.operators.kernel import OVER
from firstlight.operators.vectors import collect, deposit

__all__ = ["BATCHES", "PAD", "crop", "embed", "gather", "pack", "recentre", "spread", "unpack"]

PAD = 3  # cells beyond the grid on each side, folded back: the kernel never wraps in the inner loop
BATCHES = (1, 2, 4, 8)
LARGEST = np.finfo(np.float32).max
options: dict[str, Any] = {"fastmath": True, "nogil": True, "cache": True, "error_model": "numpy"}


@nb.njit(**(options | {"fastmath": False}))  # type: ignore[untyped-decorator]
def pack(p: Any, first: int, edge: int, z: Any) -> Any:
    """Rows p (A, S, N) from `first` on into z (a, M, 2 * batch); False where not finite.

    Padded by the means of `edge` columns at either end, faded into each other halfway round; by zeros where edge is 0.
    """
    n, width, lanes = z.shape
    slices, columns = uintp(p.shape[1]), uintp(p.shape[2])
    gap = uintp(width) - columns
    t = np.arange(intp(gap)) / gap
    fade = np.where(t < 0.25, 1, np.where(t > 0.75, 0, 0.5 + 0.5 * np.cos(2 * np.pi * (t - 0.25)))).astype(np.float32)
    fade[0], fade[gap - uintp(1)] = 1, 0
    left, right = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
    bad = 0
    for i in range(n):
        a, row = uintp(i), uintp(first + i)
        for x0 in range(uintp(0), columns, uintp(16)):
            x1 = min(x0 + uintp(16), columns)
            for b in range(slices):
                for x in range(x0, x1):
                    v = p[row, b, x]
                    bad += not abs(v) <= LARGEST  # NaN too
                    z[a, x, b] = v
            for x in range(x0, x1):
                for b in range(slices, uintp(lanes)):
                    z[a, x, b] = 0
        left[:] = 0
        right[:] = 0
        for x in range(uintp(edge)):
            for b in range(uintp(lanes)):
                left[b] += z[a, x, b] / float32(edge)
                right[b] += z[a, columns - uintp(1) - x, b] / float32(edge)
        for x in range(gap):
            for b in range(uintp(lanes)):
                z[a, columns + x, b] = fade[x] * right[b] + (1 - fade[x]) * left[b]
    return bad == 0


@nb.njit(**options)  # type: ignore[untyped-decorator]
def unpack(z: Any, first: int, p: Any) -> None:
    """The first N samples of z (a, M, 2 * batch) into rows p (A, S, N) from `first` on."""
    slices, columns = uintp(p.shape[1]), uintp(p.shape[2])
    for i in range(z.shape[0]):
        a, row = uintp(i), uintp(first + i)
        for x0 in range(uintp(0), columns, uintp(16)):
            for b in range(slices):
                for x in range(x0, min(x0 + uintp(16), columns)):
                    p[row, b, x] = z[a, x, b]


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
        middle = side // 2 + PAD
        for a in range(z.shape[0]):
            dx, dy = cos[a] * side / width, sin[a] * side / width
            line = z[a]
            for m in range(half + 1):
                r, i = response[a, uintp(m)].real, response[a, uintp(m)].imag
                px, py = dx * m + middle, dy * m + middle
                ix, iy = intp(px), intp(py)
                jx, jy = uintp((px - ix) * OVER + 0.5), uintp((py - iy) * OVER + 0.5)
                up, down = uintp(m * lanes), uintp((width - m) * lanes)
                if m == 0:
                    down, r, i = up, r * float32(0.5), i * float32(0.5)
                o = uintp(iy - 1) * stride + uintp(ix - 1) * cell
                p = uintp(2 * middle - iy - 2) * stride + uintp(2 * middle - ix - 2) * cell
                deposit(grid, o, stride, line, up, r, i, table, jx, jy, lanes)
                deposit(grid, p, stride, line, down, r, -i, table, uintp(OVER) - jx, uintp(OVER) - jy, lanes)

    return loop  # type: ignore[no-any-return]


def _gather(batch: int) -> Callable[..., None]:
    lanes = 2 * batch

    @nb.njit(**options)  # type: ignore[untyped-decorator]
    def loop(grid: Any, response: Any, cos: Any, sin: Any, side: int, table: Any, z: Any) -> None:
        width = z.shape[1] // lanes
        half = width // 2
        stride, cell = uintp((side + 2 * PAD) * lanes), uintp(lanes)
        other = np.empty(lanes, np.float32)
        middle = side // 2 + PAD
        for a in range(z.shape[0]):
            dx, dy = cos[a] * side / width, sin[a] * side / width
            line = z[a]
            for m in range(half + 1):
                r, i = response[a, uintp(m)].real, -response[a, uintp(m)].imag
                px, py = dx * m + middle, dy * m + middle
                ix, iy = intp(px), intp(py)
                jx, jy = uintp((px - ix) * OVER + 0.5), uintp((py - iy) * OVER + 0.5)
                kx, ky = uintp(OVER) - jx, uintp(OVER) - jy
                up, down = uintp(m * lanes), uintp((width - m) * lanes)
                o = uintp(iy - 1) * stride + uintp(ix - 1) * cell
                p = uintp(2 * middle - iy - 2) * stride + uintp(2 * middle - ix - 2) * cell
                collect(grid, o, stride, line, up, r, i, table, jx, jy, lanes)
                if 0 < m < half:
                    collect(grid, p, stride, line, down, r, -i, table, kx, ky, lanes)
                elif m == half:  # both ends of the spectrum fall on one sample
                    collect(grid, p, stride, other, uintp(0), r, -i, table, kx, ky, lanes)
                    for b in range(lanes):
                        line[up + uintp(b)] += other[b]

    return loop  # type: ignore[no-any-return]


spread = {batch: _spread(batch) for batch in BATCHES}
gather = {batch: _gather(batch) for batch in BATCHES}


@nb.njit(**options)  # type: ignore[untyped-decorator]
def crop(rows: Any, correction: Any, first: int, start: int, images: Any) -> None:
    """Rows (R, side, lanes) of the transformed grid into rows `first`.. of images (S, n, n), corrected.

    start: the grid's index of the first column; correction (n,) for both axes.
    """
    slices, n, side = uintp(images.shape[0]), uintp(images.shape[2]), uintp(rows.shape[1])
    turn = side - uintp(start)  # the first column of the image beyond the grid's last
    for i in range(rows.shape[0]):
        y, at = uintp(i), uintp(first + i)
        weights = correction[at] * correction
        for x0 in range(uintp(0), n, uintp(16)):
            for b in range(slices):
                for x in range(x0, min(x0 + uintp(16), n)):
                    column = x - turn if x >= turn else uintp(start) + x
                    images[b, at, x] = rows[y, column, b] * weights[x]


@nb.njit(**options)  # type: ignore[untyped-decorator]
def embed(images: Any, correction: Any, first: int, start: int, rows: Any) -> None:
    """The adjoint of `crop`: rows `first`.. of images (S, n, n) into rows (R, side, lanes) of an empty grid."""
    slices, n, side = uintp(images.shape[0]), uintp(images.shape[2]), uintp(rows.shape[1])
    turn = side - uintp(start)
    for i in range(rows.shape[0]):
        y, at = uintp(i), uintp(first + i)
        rows[y] = 0
        weights = correction[at] * correction
        for x0 in range(uintp(0), n, uintp(16)):
            for b in range(slices):
                for x in range(x0, min(x0 + uintp(16), n)):
                    column = x - turn if x >= turn else uintp(start) + x
                    rows[y, column, b] = images[b, at, x] * weights[x]
