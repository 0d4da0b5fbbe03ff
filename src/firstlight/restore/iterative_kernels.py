"""Compiled loops of iterative reconstruction: one pass over an image where NumPy would take several."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["dot", "dual", "gradient", "step_along"]

Array = NDArray[Any]
_jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})


@_jit
def dot(a: Array, b: Array) -> Any:
    """Sum of a b over two float32 arrays of two axes; rows in float32, their sum in float64."""
    total = np.float64(0)
    for i in range(a.shape[0]):
        row = np.float32(0)
        for j in range(a.shape[1]):
            row += a[i, j] * b[i, j]
        total += row
    return total


@_jit
def step_along(x: Array, r: Array, p: Array, q: Array, alpha: float) -> Any:
    """x += alpha p; r -= alpha q; returns the sum of r^2."""
    a, total = np.float32(alpha), np.float64(0)
    for i in range(x.shape[0]):
        row = np.float32(0)
        for j in range(x.shape[1]):
            x[i, j] += a * p[i, j]
            r[i, j] -= a * q[i, j]
            row += r[i, j] * r[i, j]
        total += row
    return total


@_jit
def gradient(hx: Array, c: Array, u: Array, v: Array, w: Array, out: Array) -> None:
    """out = H x - c + D^T (u, v) + w: the gradient of the data term and of both dual terms, (Y, X) float32."""
    rows, columns = hx.shape
    for i in range(rows):
        for j in range(columns):
            out[i, j] = hx[i, j] - c[i, j] + w[i, j] - u[i, j] - v[i, j]
        for j in range(1, columns):
            out[i, j] += v[i, j - 1]
        if i > 0:
            for j in range(columns):
                out[i, j] += u[i - 1, j]


@_jit
def dual(
    x: Array, d: Array, u: Array, v: Array, w: Array, e: Array, sigma: float, sign: float, weight: float
) -> tuple[Any, Any]:
    """x -= d, with both duals moved at the point x - 2 d and projected; returns the sums of d^2 and of the new x^2.

    u, v: rows and columns of the gradient's dual, their length at most `weight`; u ends at the last row and v at the last
    column as 0. w <= 0: the dual of x >= 0. e (2, X): work.
    """
    rows, columns = x.shape
    s, t, most = np.float32(sigma), np.float32(sign), np.float32(weight)
    moved, size = np.float64(0), np.float64(0)
    _advance(x, d, w, e[0], 0, t)
    for i in range(rows):
        here, below = e[i % 2], e[(i + 1) % 2]
        part, full = np.float32(0), np.float32(0)
        for j in range(columns):
            part += d[i, j] * d[i, j]
            full += x[i, j] * x[i, j]
        moved += part
        size += full
        if i + 1 < rows:
            _advance(x, d, w, below, i + 1, t)
            for j in range(columns):
                u[i, j] += s * (below[j] - here[j])
        for j in range(columns - 1):
            v[i, j] += s * (here[j + 1] - here[j])
        for j in range(columns):
            length = np.sqrt(u[i, j] * u[i, j] + v[i, j] * v[i, j])
            k = most / max(length, most, np.float32(1e-30))
            u[i, j] *= k
            v[i, j] *= k
    return moved, size


@_jit
def _advance(x: Array, d: Array, w: Array, e: Array, i: int, t: np.float32) -> None:
    """Row i: e = x - 2 d, x -= d, w = min(w + t e, 0)."""
    for j in range(x.shape[1]):
        a = x[i, j] - d[i, j]
        e[j] = a - d[i, j]
        x[i, j] = a
        w[i, j] = min(w[i, j] + t * e[j], np.float32(0))
