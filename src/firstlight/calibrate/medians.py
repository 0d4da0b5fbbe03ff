"""Kernels on one sinogram (A, X), float32, finite: columns sorted along the angle, medians across columns, back in order.

Sorted columns lie as (X, L) with L the angles padded to whole groups of LANES, so that a column is contiguous for the sort and
LANES ranks slide across the columns side by side. A window of n values is kept sorted per lane; one step deletes the value
that leaves and inserts the one that enters without a branch, so that LLVM turns the loop over lanes into vector minima and
maxima:

    inserted[i] = min(max(w[i-1], v), w[i])         deleted[i] = inserted[i] if inserted[i] < o else inserted[i+1]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, uintp
from numpy.typing import NDArray

__all__ = ["LANES", "fluctuation", "pack", "scatter", "slide", "unpack"]

Array = NDArray[Any]
LANES = 32  # 2 to 4 vector registers; measured flat from 32 to 256
GROUP = uintp(LANES)
TILE = 16  # columns put back at a time
ONE = uintp(1)
INF = np.float32(np.inf)
SIGN, ALL = np.uint32(0x80000000), np.uint32(0xFFFFFFFF)

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _loop(f: Kernel) -> Kernel:
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy")(f))


@cast(Callable[[Kernel], Kernel], njit(cache=True, nogil=True, error_model="numpy", fastmath={"nnan", "nsz"}))
def _advance(w: Array, new: Array, moves: Array, n: int) -> None:
    """One step of n sorted values a lane from `w` to `new`, flat (n + 2) x LANES with -inf and inf around them; `moves` holds
    LANES values that leave, then LANES that enter.
    """
    for i in range(ONE, uintp(n) + ONE):
        at = i * GROUP
        for k in range(GROUP):
            o, v = moves[k], moves[GROUP + k]
            p, q, r = w[at - GROUP + k], w[at + k], w[at + GROUP + k]
            x = v if v > p else p
            x = x if x < q else q
            y = v if v > q else q
            y = y if y < r else r
            new[at + k] = x if x < o else y


@_loop
def _mirror(i: int, n: int) -> int:
    """Index i of a line of n continued as d c b a | a b c d | d c b a."""
    i %= 2 * n
    return i if i < n else 2 * n - 1 - i


@_loop
def slide(values: Array, size: int, out: Array) -> None:
    """Median of `size` neighbours along axis 0 of `values` (X, a multiple of LANES) into `out`, mirrored at the ends.

    Equal to scipy.ndimage.median_filter(values, (size, 1), mode="reflect"): of an even size the upper of the middle two, its
    window reaching one farther to the left.
    """
    width, length = values.shape
    half = size // 2
    w, new = np.empty((size + 2) * LANES, np.float32), np.empty((size + 2) * LANES, np.float32)
    moves = np.empty(2 * LANES, np.float32)
    middle = (1 + half) * LANES
    for s in range(0, length, LANES):
        w[:], new[:] = INF, INF
        w[:LANES], new[:LANES] = -INF, -INF
        moves[:LANES] = INF
        for k in range(size):
            moves[LANES:] = values[_mirror(k - half, width), s : s + LANES]
            _advance(w, new, moves, size)
            w, new = new, w
        out[0, s : s + LANES] = w[middle : middle + LANES]
        for x in range(1, width):
            moves[:LANES] = values[_mirror(x - 1 - half, width), s : s + LANES]
            moves[LANES:] = values[_mirror(x - 1 - half + size, width), s : s + LANES]
            _advance(w, new, moves, size)
            w, new = new, w
            out[x, s : s + LANES] = w[middle : middle + LANES]


@_loop
def pack(bits: Array, start: int, keys: Array) -> None:
    """Columns of `bits` (A, X), float32 seen as uint32, from `start` on, as `keys` (some X, A) uint64.

    A key is the value as an integer of the same order, then its angle: keys sort like the values, equal ones by angle.
    """
    count, angles = keys.shape
    for a in range(angles):
        for x in range(count):
            b = bits[a, start + x]
            b = b ^ (ALL if b & SIGN else SIGN)
            keys[x, a] = (np.uint64(b) << np.uint64(32)) | np.uint64(a)


@_loop
def unpack(keys: Array, start: int, bits: Array, order: Array) -> None:
    """Sorted `keys` (some X, A) into rows from `start` on: values `bits` (X, at least A), float32 seen as uint32, and their
    angles `order` (X, A) uint32.
    """
    count, angles = keys.shape
    for x in range(count):
        for a in range(angles):
            b = np.uint32(keys[x, a] >> np.uint64(32))
            bits[start + x, a] = b ^ (SIGN if b & SIGN else ALL)
            order[start + x, a] = np.uint32(keys[x, a])


@_loop
def scatter(values: Array, order: Array, out: Array) -> None:
    """out (A, X): values (X, at least A) of each column back at their angles `order` (X, A)."""
    width, angles = order.shape
    tile = np.empty((angles, TILE), np.float32)  # rows of `out` lie a power of two apart and would fall into the same cache set
    for s in range(0, width, TILE):
        count = min(TILE, width - s)
        for x in range(count):
            for a in range(angles):
                tile[order[s + x, a], x] = values[s + x, a]
        for a in range(angles):
            for x in range(count):
                out[a, s + x] = tile[a, x]


@_loop
def fluctuation(plane: Array, size: int) -> Any:
    """Mean over angles of |p - running mean of `size` angles| of each column of `plane` (A, X), float64 (X,); mirrored ends."""
    angles, width = plane.shape
    total, out = np.zeros(width), np.zeros(width)
    for k in range(size):
        total += plane[_mirror(k - size // 2, angles)]
    for a in range(angles):
        row = plane[a]
        leaves, enters = plane[_mirror(a - size // 2, angles)], plane[_mirror(a - size // 2 + size, angles)]
        for x in range(width):
            out[x] += abs(np.float64(row[x]) - total[x] / size)
            total[x] += np.float64(enters[x]) - np.float64(leaves[x])
    return out / angles
