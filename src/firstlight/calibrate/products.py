"""The product of a thin matrix with a sinogram, float32, in the thread that asks: a BLAS starts its own, which wait busily."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, uintp
from numpy.typing import NDArray

__all__ = ["product"]

Array = NDArray[Any]
COLUMNS = 128  # of the right factor at a time
W, ONE, TWO = uintp(COLUMNS), uintp(1), uintp(2)

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


@cast(Callable[[Kernel], Kernel], njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"}))
def _four_rows(u: Array, tile: Array, total: Array) -> None:
    """total, flat 4 x COLUMNS, of u (4, n even) times the tile, flat n x COLUMNS."""
    total[:] = 0
    for a in range(uintp(0), uintp(u.shape[1]), TWO):  # type: ignore[call-overload]
        b = a + ONE
        u0, u1, u2, u3 = u[0, a], u[1, a], u[2, a], u[3, a]
        v0, v1, v2, v3 = u[0, b], u[1, b], u[2, b], u[3, b]
        at = a * W
        for k in range(W):
            p, q = tile[at + k], tile[at + W + k]
            total[k] += u0 * p + v0 * q
            total[W + k] += u1 * p + v1 * q
            total[W + W + k] += u2 * p + v2 * q
            total[W + W + W + k] += u3 * p + v3 * q


@cast(Callable[[Kernel], Kernel], njit(cache=True, nogil=True, error_model="numpy"))
def product(left: Array, right: Array, out: Array) -> None:
    """out (r, X) = left (r, n) @ right (n, X), float32, C-contiguous."""
    (rows, n), width = left.shape, right.shape[1]
    padded = np.zeros(((rows + 3) // 4 * 4, (n + 1) // 2 * 2), np.float32)
    padded[:rows, :n] = left
    tile, total = np.zeros(padded.shape[1] * COLUMNS, np.float32), np.empty(4 * COLUMNS, np.float32)
    for s in range(0, width, COLUMNS):
        count = min(COLUMNS, width - s)
        for a in range(n):
            tile[a * COLUMNS : a * COLUMNS + count] = right[a, s : s + count]
        for k in range(0, rows, 4):
            _four_rows(padded[k : k + 4], tile, total)
            for j in range(min(4, rows - k)):
                out[k + j, s : s + count] = total[j * COLUMNS : j * COLUMNS + count]
