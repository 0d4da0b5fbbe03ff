"""Medians by selection networks and what stands out of them: row loops without the GIL, single-threaded, bit-exact medians.

A comparator network has no branches, so that a loop over a row of pixels runs it on whole vector registers. 3 x 3 is written
out; other sizes run a list of comparators (`network`) on blocks of columns that stay in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["SEGMENT", "network", "replace_outliers"]

Array = NDArray[Any]
F = np.float32
SEGMENT = 128  # columns over which a local scale is taken
BLOCK = 256  # columns that a network works on at a time
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _row(f: Kernel) -> Kernel:
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy", fastmath={"nsz", "contract", "reassoc"})(f))


def _loop(f: Kernel) -> Kernel:
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy")(f))


@njit(inline="always")
def _low(a: Any, b: Any) -> Any:
    return a if a < b else b


@njit(inline="always")
def _high(a: Any, b: Any) -> Any:
    return a if a > b else b


@njit(inline="always")
def _middle(a: Any, b: Any, c: Any) -> Any:
    return _high(_low(a, b), _low(_high(a, b), c))


@_loop
def _mirror(i: int, n: int) -> int:
    """Index i continued beyond 0..n-1 by reflection at the centres of the first and the last pixel."""
    if n == 1:
        return 0
    i = i % (2 * n - 2)
    return i if i < n else 2 * n - 2 - i


@_loop
def _near(a: int, k: int, size: int, n: int) -> int:
    """The k-th of the `size` projections nearest to a; with fewer than that the first and last are mirrored."""
    if n < size:
        return _mirror(a + k - size // 2, n)
    return min(max(a - size // 2, 0), n - size) + k


@_row
def _copy(row: Array, out: Array) -> None:
    for x in range(out.size):
        out[x] = row[x]


@_loop
def _load(row: Array, out: Array, r: int) -> None:
    """A row in the working precision, `r` mirrored pixels on both sides."""
    n = row.size
    _copy(row, out[r : r + n])
    for k in range(1, r + 1):
        out[r - k] = out[r + _mirror(-k, n)]
        out[r + n - 1 + k] = out[r + _mirror(n - 1 + k, n)]


@_row
def _median9(up: Array, mid: Array, down: Array, out: Array) -> None:
    """3 x 3 median: sorted columns, then the median of the largest low, the middle of the middles, the smallest high."""
    for x in range(np.uintp(out.size)):
        p, q = np.uintp(x + np.uintp(1)), np.uintp(x + np.uintp(2))
        a0, b0, a1, b1 = _low(up[x], mid[x]), _high(up[x], mid[x]), _low(up[p], mid[p]), _high(up[p], mid[p])
        a2, b2 = _low(up[q], mid[q]), _high(up[q], mid[q])
        c0, c1, c2 = _low(b0, down[x]), _low(b1, down[p]), _low(b2, down[q])
        low = _high(_high(_low(a0, c0), _low(a1, c1)), _low(a2, c2))
        middle = _middle(_high(a0, c0), _high(a1, c1), _high(a2, c2))
        high = _low(_low(_high(b0, down[x]), _high(b1, down[p])), _high(b2, down[q]))
        out[x] = _middle(low, middle, high)


@_row
def _median3(before: Array, row: Array, after: Array, out: Array) -> None:
    for x in range(out.size):
        a, b, c = out.dtype.type(before[x]), out.dtype.type(row[x]), out.dtype.type(after[x])
        out[x] = _middle(a, b, c)


@_row
def _compare(u: Array, v: Array) -> None:
    for x in range(u.size):
        a, b = u[x], v[x]
        u[x] = _low(a, b)
        v[x] = _high(a, b)


@_loop
def _select(work: Array, n: int, pairs: Array) -> None:
    for k in range(pairs.shape[0]):
        _compare(work[pairs[k, 0], :n], work[pairs[k, 1], :n])


@_loop
def _median_image(ring: Array, first: int, size: int, pairs: Array, work: Array, out: Array) -> None:
    """Median of size x size from the ring of padded rows, whose topmost one is `first`."""
    for x0 in range(0, out.size, BLOCK):
        n = min(BLOCK, out.size - x0)
        for j in range(size):
            for i in range(size):
                _copy(ring[(first + j) % size, x0 + i : x0 + i + n], work[j * size + i, :n])
        _select(work, n, pairs)
        _copy(work[(size * size) // 2, :n], out[x0 : x0 + n])


@_loop
def _median_angle(data: Array, a: int, y: int, size: int, pairs: Array, work: Array, out: Array) -> None:
    for x0 in range(0, out.size, BLOCK):
        n = min(BLOCK, out.size - x0)
        for k in range(size):
            _copy(data[_near(a, k, size, data.shape[0]), y, x0 : x0 + n], work[k, :n])
        _select(work, n, pairs)
        _copy(work[size // 2, :n], out[x0 : x0 + n])


@_row
def _score_law(row: Array, median: Array, law: Array, sign: Any, out: Array) -> None:
    """Above 0 where sign (row - median) exceeds the limit: r |r| - threshold^2 variance(median), one law for all pixels."""
    a, b, offset, c = law[0, 0], law[1, 0], law[2, 0], law[3, 0]
    zero = row.dtype.type(0)
    for x in range(out.size):
        s, r = median[x] - offset, sign * (row[x] - median[x])
        shot = _high(a * s, zero)
        out[x] = r * abs(r) - (shot + c * s * s + b)


@_row
def _score_map(row: Array, median: Array, a: Array, b: Array, offset: Array, c: Array, sign: Any, out: Array) -> None:
    zero = row.dtype.type(0)
    for x in range(out.size):
        s, r = median[x] - offset[x], sign * (row[x] - median[x])
        shot = _high(a[x] * s, zero)
        out[x] = r * abs(r) - (shot + c[x] * s * s + b[x])


@_row
def _difference(row: Array, median: Array, sign: Any, out: Array) -> None:
    for x in range(out.size):
        out[x] = sign * (row[x] - median[x])


@_row
def _mean_within(r: Array, most: Any) -> Any:
    total = r.dtype.type(0)
    for x in range(r.size):
        total += _low(abs(r[x]), most)
    return total / r.dtype.type(r.size)


@_row
def _largest(r: Array) -> Any:
    most = r.dtype.type(0)
    for x in range(r.size):
        most = _high(most, abs(r[x]))
    return most


@_row
def _lower(r: Array, by: Any) -> None:
    for x in range(r.size):
        r[x] -= by


@_loop
def _score_local(row: Array, median: Array, limits: Array, sign: Any, out: Array) -> None:
    """Above 0 where the residual exceeds limits[0] means of |residual| over its segment, limits[2] at the least.

    In the mean a residual counts for limits[1] means at most.
    """
    _difference(row, median, sign, out)
    n = out.size
    x0 = 0
    while x0 < n:
        x1 = n if n - x0 < 2 * SEGMENT else x0 + SEGMENT
        part = out[x0:x1]
        top = _largest(part)
        mean = _mean_within(part, top)
        for _ in range(12):  # each step divides an outlier's share by some 16
            if not top > limits[1] * mean:
                break
            mean = _mean_within(part, limits[1] * mean)
        _lower(part, _high(limits[0] * mean, limits[2]))
        x0 = x1


@_row
def _count_both(score: Array, other: Array) -> Any:
    n = np.int32(0)
    for x in range(score.size):
        n += np.int32(1) if _low(score[x], other[x]) > 0 else np.int32(0)
    return n


@_loop
def _scores(row: Array, median: Array, law: Array, limits: Array, y: int, sign: Any, out: Array) -> None:
    if law.shape[0] == 0:
        _score_local(row, median, limits, sign, out)
    elif law.shape[1] == 1 and law.shape[2] == 1:
        _score_law(row, median, law[:, 0], sign, out)
    else:
        _score_map(row, median, law[0, y], law[1, y], law[2, y], law[3, y], sign, out)


@_loop
def _not_finite(row: Array) -> Any:
    bad = np.int32(0)
    for x in range(row.size):
        bad |= np.int32(0) if abs(row[x]) < np.inf else np.int32(1)
    return bad != 0


@_loop
def _start(data: Array, a: int, image: int, ring: Array) -> None:
    """All rows but the last of the window about row 0."""
    for k in range(image - 1):
        _load(data[a, _mirror(k - image // 2, data.shape[1])], ring[k], image // 2)


@_loop
def _image_row(data: Array, a: int, y: int, size: int, pairs: Array, ring: Array, work: Array, out: Array) -> None:
    _load(data[a, _mirror(y + size // 2, data.shape[1])], ring[(y + size - 1) % size], size // 2)
    if size == 3:
        _median9(ring[y % 3], ring[(y + 1) % 3], ring[(y + 2) % 3], out)
    else:
        _median_image(ring, y % size, size, pairs, work, out)


@_loop
def _angle_row(data: Array, a: int, y: int, size: int, pairs: Array, work: Array, out: Array) -> None:
    n = data.shape[0]
    if size == 3:
        _median3(data[_near(a, 0, 3, n), y], data[_near(a, 1, 3, n), y], data[_near(a, 2, 3, n), y], out)
    else:
        _median_angle(data, a, y, size, pairs, work, out)


@_loop
def _put(score: Array, other: Array, median: Array, another: Array, sign: Any, bit: int, out: Array, flags: Array) -> None:
    """What stands out of both medians gets the lower of bright, the higher of dark outliers."""
    for x in range(score.size):
        if score[x] > 0 and other[x] > 0:
            out[x] = sign * min(sign * median[x], sign * another[x])
            flags[x] |= bit


@_loop
def replace_outliers(
    data: Array,
    runs: tuple[int, int],
    sizes: tuple[int, int],
    networks: tuple[Array, Array],
    law: Array,
    limits: Array,
    signs: Array,
    bit: int,
    work: tuple[Array, Array, Array],
    out: Array,
    flags: Array,
) -> int:
    """Replaces in `out`, a copy of data (A, Y, X), what stands out in a run of projections; their number, -1 for NaN.

    sizes: widths of the medians in the image and along the angle, 0 for none; networks: their comparators. law (4, Y or 1,
    X or 1): threshold^2 a, threshold^2 (b + d), offset, threshold^2 c of the noise, or (0, 1, 1) where `limits` (2, 3) of
    _score_local rule, for image and angle. signs: 1 for bright, -1 for dark outliers. work: ring (image, X + image - 1),
    columns (elements, BLOCK), rows (5, X), of the working precision.
    """
    ring, columns, rows = work
    image, angle = sizes
    row, score, other = rows[0], rows[3], rows[4]
    mid, mid_angle = rows[1], rows[2]
    if not (image and angle):  # one median alone rules, seen twice
        other = score
        mid_angle = mid
    found = 0
    for a in range(runs[0], runs[1]):
        if image:
            _start(data, a, image, ring)
        for y in range(data.shape[1]):
            _copy(data[a, y], row)
            if _not_finite(row):
                return -1
            if image:
                _image_row(data, a, y, image, networks[0], ring, columns, mid)
            if angle:
                _angle_row(data, a, y, angle, networks[1], columns, mid_angle)
            for sign in signs:
                if image:
                    _scores(row, mid, law, limits[0], y, sign, score)
                if angle:
                    _scores(row, mid_angle, law, limits[1], y, sign, other)
                n = _count_both(score, other)
                if n:
                    _put(score, other, mid, mid_angle, sign, bit, out[a, y], flags[a, y])
                    found += n
    return found


def network(n: int) -> Array:
    """Comparators (pairs, 2) that bring the median of n numbers to place n // 2: Batcher's odd-even merge sort (1968),
    less what does not reach that place.
    """
    pairs: list[tuple[int, int]] = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    needed, kept = {n // 2}, []
    for pair in reversed(pairs):
        if needed & set(pair):
            needed |= set(pair)
            kept.append(pair)
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)
