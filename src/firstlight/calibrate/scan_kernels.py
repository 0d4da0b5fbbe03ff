"""One pass over a scan (A, Y, X) each: gaps filled, fields divided out, minus the logarithm. No GIL, single-threaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["divide_fields", "fill_gaps", "minus_log"]

Array = NDArray[Any]
F, INT = np.float32, np.int32
ROOT_HALF, MANTISSA = INT(0x3F3504F3), INT(23)  # the bits of sqrt(1/2); bits of the mantissa
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _row(f: Kernel) -> Kernel:
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz", "contract"})(f))


def _loop(f: Kernel) -> Kernel:
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy")(f))


@njit(inline="always")
def _positive(a: Any) -> Any:
    return a if a > 0 else F(0)


@_row
def _count_not_finite(row: Array) -> Any:
    n = INT(0)
    for x in range(row.size):
        n += INT(0) if abs(row[x]) < np.inf else INT(1)
    return n


@_loop
def _fill(row: Array, bit: int, bits: Array) -> bool:
    """Non-finite pixels of one row interpolated; False where none is finite."""
    n, x = row.size, 0
    while x < n:
        if abs(row[x]) < np.inf:
            x += 1
            continue
        end = x
        while end < n and not abs(row[end]) < np.inf:
            bits[end] |= bit
            end += 1
        if x == 0 and end == n:
            return False
        left = row[x - 1] if x > 0 else row[end]
        right = row[end] if end < n else left
        for i in range(x, end):
            row[i] = left + (right - left) * row.dtype.type((i - x + 1) / (end - x + 1))
        x = end
    return True


@_loop
def fill_gaps(data: Array, bit: int, bits: Array) -> int:
    """In place; the first row (counted through all projections) that has no finite pixel, -1 where all have."""
    for a in range(data.shape[0]):
        for y in range(data.shape[1]):
            if _count_not_finite(data[a, y]) and not _fill(data[a, y], bit, bits[a, y]):
                return int(a * data.shape[1] + y)
    return -1


@_row
def _divide(row: Array, dark: Array, factor: Array, out: Array) -> None:
    for x in range(out.size):
        out[x] = (out.dtype.type(row[x]) - dark[x]) * factor[x]


@_row
def _blend(low: Array, high: Array, f: Any, out: Array) -> None:
    for x in range(out.size):
        out[x] = out.dtype.type(1) / (low[x] + f * (high[x] - low[x]))


@_loop
def divide_fields(data: Array, dark: Array, beam: Array, at: Array, out: Array) -> int:
    """out = (data - dark) / beam; the number of results that are not finite.

    dark (Y, X); beam (groups, Y, X), interpolated at place at[a] between its groups; one group: 1 / beam itself.
    """
    bad, groups = 0, beam.shape[0]
    factor = np.empty(data.shape[2], dtype=out.dtype)
    for a in range(data.shape[0]):
        i = min(max(int(np.floor(at[a])), 0), max(groups - 2, 0))
        f = out.dtype.type(at[a] - i)
        for y in range(data.shape[1]):
            if groups == 1:
                _divide(data[a, y], dark[y], beam[0, y], out[a, y])
            else:
                _blend(beam[i, y], beam[i + 1, y], f, factor)
                _divide(data[a, y], dark[y], factor, out[a, y])
            bad += _count_not_finite(out[a, y])
    return bad


@_row
def _floored(row: Array, least: Any, out: Array) -> Any:
    n = INT(0)
    for x in range(out.size):
        t = row[x]
        n += INT(0) if (t > least) & (t < np.inf) else INT(1)
        out[x] = t if t > least else least
    return n


@_loop
def _repair(row: Array, least: Any, floored: int, lost: int, bits: Array, out: Array) -> bool:
    """The same where some pixel is bad: floored and gaps filled, with flags; False where no pixel is finite."""
    for x in range(out.size):
        out[x] = row[x]
        if abs(row[x]) < np.inf and not row[x] > least:
            out[x] = least
            bits[x] |= floored
    return _fill(out, lost, bits)


@_row
def _split(bits: Array, exponent: Array) -> None:
    """t = m 2^e on the bits of float32, m in [.707, 1.414) in place, e apart."""
    for x in range(bits.size):
        e = (bits[x] - ROOT_HALF) >> MANTISSA
        exponent[x] = e
        bits[x] -= e << MANTISSA


@_row
def _series(mantissa: Array, exponent: Array, out: Array) -> None:
    """-log t = -(2 atanh s + e log 2), s = (m - 1)/(m + 1), |s| < .172: five terms leave 1e-9 of it."""
    for x in range(out.size):
        s = (mantissa[x] - F(1)) / (mantissa[x] + F(1))
        q = s * s
        p = F(2) + q * (F(2 / 3) + q * (F(2 / 5) + q * (F(2 / 7) + q * F(2 / 9))))
        out[x] = -(s * p + exponent[x] * F(np.log(2)))


@_row
def _variance(t: Array, a: Array, b: Array, out: Array) -> None:
    for x in range(out.size):
        u = F(1) / t[x]
        out[x] = (_positive(a[x] * t[x]) + b[x]) * u * u


@_row
def _variance_one(t: Array, a: Any, b: Any, out: Array) -> None:
    for x in range(out.size):
        u = F(1) / t[x]
        out[x] = (_positive(a * t[x]) + b) * u * u


@_loop
def minus_log(
    data: Array, least: Any, floored: int, lost: int, law: Array, out: Array, bits: Array, variance: Array
) -> tuple[int, int]:
    """out = -log(max(data, least)); (pixels flagged in `bits`, first row without a finite pixel or -1).

    law (2, Y or 1, X or 1): a and b of the noise of data, for variance (A, Y, X) = (a t + b) / t^2; both of size 0 for none.
    """
    found, t, exponent = 0, np.empty(data.shape[2], dtype=F), np.empty(data.shape[2], dtype=F)
    as_bits = t.view(INT)
    for a in range(data.shape[0]):
        for y in range(data.shape[1]):
            bad = _floored(data[a, y], least, t)
            if bad:
                found += bad
                if not _repair(data[a, y], least, floored, lost, bits[a, y], t):
                    return found, a * data.shape[1] + y
            if variance.size:
                if law.shape[1] == 1 and law.shape[2] == 1:
                    _variance_one(t, law[0, 0, 0], law[1, 0, 0], variance[a, y])
                else:
                    _variance(t, law[0, y], law[1, y], variance[a, y])
            _split(as_bits, exponent)
            _series(t, exponent, out[a, y])
    return found, -1
