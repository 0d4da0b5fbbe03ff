"""Non-local means kernels: one plane, float32, single-threaded, without the GIL.

For each shift t of half the search window, once for both pixels of a pair (Darbon et al. 2008): squared differences, their
sum over the patch, a compact weight, and its contribution to pixel i and to pixel j = i + t. Sums are direct, never running,
so that a bright star leaves no trace in later pixels and a pixel's result hardly depends on where its block begins. Inner
loops run over contiguous rows with few arrays each, which is the form that LLVM vectorises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["accumulate", "add_back", "mix"]

Array = NDArray[Any]
F = np.float32
ROWS, COLS = 16, 1024
MATH = {"contract", "nsz", "nnan"}  # no reassociation: sums keep their order in every block
ONE, ZERO, TINY = F(1), F(0), F(1e-30)


Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _row(f: Kernel) -> Kernel:
    """A loop over one row; without the error model division would not vectorise."""
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy", fastmath=MATH)(f))


def _loop(f: Kernel) -> Kernel:
    """What calls rows."""
    return cast(Kernel, njit(cache=True, nogil=True, error_model="numpy")(f))


@_row
def _square(a: Array, b: Array, out: Array) -> None:
    for x in range(out.size):
        d = b[x] - a[x]
        out[x] = d * d


@_row
def _square_scaled(a: Array, b: Array, va: Array, vb: Array, out: Array) -> None:
    for x in range(out.size):
        d = b[x] - a[x]
        out[x] = d * d * (F(2) / (va[x] + vb[x]))


@_row
def _both(pa: Array, pb: Array, out: Array, count: Array) -> None:
    for x in range(out.size):
        both = ONE if min(pa[x], pb[x]) > ZERO else ZERO
        count[x] = both
        out[x] = out[x] * both


@_row
def _sum5(a: Array, b: Array, c: Array, d: Array, e: Array, out: Array) -> None:
    for x in range(out.size):
        out[x] = a[x] + b[x] + c[x] + d[x] + e[x]


@_row
def _add(a: Array, out: Array) -> None:
    for x in range(out.size):
        out[x] += a[x]


@_row
def _patch_sum(rows: Array, k: int, c: int, r: int, line: Array, out: Array) -> None:
    """Sum over (2r+1)^2 of rows[k-r : k+r+1] into `out`, whose pixel 0 lies at column c + r of `rows`."""
    n = out.size
    m = n + 2 * r
    if r == 2:
        _sum5(
            rows[k - 2, c : c + m],
            rows[k - 1, c : c + m],
            rows[k, c : c + m],
            rows[k + 1, c : c + m],
            rows[k + 2, c : c + m],
            line,
        )
        _sum5(line[:n], line[1 : n + 1], line[2 : n + 2], line[3 : n + 3], line[4 : n + 4], out)
        return
    line[:] = rows[k - r, c : c + m]
    for o in range(1 - r, r + 1):
        _add(rows[k + o, c : c + m], line)
    out[:] = line[:n]
    for o in range(1, 2 * r + 1):
        _add(line[o : o + n], out)


@_row
def _weigh(w: Array, edge: Array, row: np.float32, start: np.float32, slope: np.float32) -> None:
    # compact weight: u^8 with u falling from 1 at `start` to 0, close to exp(-8 (D - start) slope)
    for x in range(w.size):
        u = ONE - (w[x] * (edge[x] * row) - start) * slope
        u = min(max(u, ZERO), ONE)
        u = u * u
        u = u * u
        w[x] = u * u


@_row
def _weigh_counted(w: Array, count: Array, full: np.float32, least: np.float32, start: np.float32, slope: np.float32) -> None:
    for x in range(w.size):
        n = max(count[x], ONE)
        u = ONE - (w[x] * (full / n) - start) * slope
        u = min(max(u, ZERO), ONE)
        u = u * u
        u = u * u
        w[x] = u * u * min(count[x] / least, ONE)


@_row
def _gather(w: Array, z: Array, other: Array, num: Array, den: Array) -> None:
    for x in range(w.size):
        num[x] += w[x] * (other[x] - z[x])
        den[x] += w[x]


@_row
def _gather_cubed(w: Array, z: Array, other: Array, num: Array, den: Array) -> None:
    for x in range(w.size):
        w3 = w[x] * w[x] * w[x]
        num[x] += w3 * (other[x] - z[x])
        den[x] += w3


@_row
def _times(w: Array, p: Array, out: Array) -> None:
    for x in range(w.size):
        out[x] = w[x] * p[x]


@_row
def _times_cubed(w: Array, p: Array, out: Array) -> None:
    for x in range(w.size):
        out[x] = w[x] * w[x] * w[x] * p[x]


@_row
def _gather_weighed(
    w: Array, p: Array, z: Array, other: Array, spare: Array, num: Array, den: Array, num3: Array, den3: Array
) -> None:
    _times(w, p, spare)
    _gather(spare, z, other, num, den)
    _times_cubed(w, p, spare)
    _gather(spare, z, other, num3, den3)


@_loop
def _all_one(a: Array, y0: int, y1: int, x0: int, x1: int) -> bool:
    for y in range(y0, y1):
        for x in range(x0, x1):
            if a[y, x] != ONE:
                return False
    return True


@_loop
def _inside(i: int, shift: int, r: int, n: int) -> int:
    """How many of i-r .. i+r lie in an axis of length n together with their partners at `shift`."""
    low = max(i - r, 0, -shift)
    high = min(i + r, n - 1, n - 1 - shift)
    return max(high - low + 1, 0)


@_loop
def _edge_factors(shift: int, r: int, n: int, first: int, out: Array) -> None:
    for k in range(out.size):
        out[k] = F(2 * r + 1) / F(max(_inside(first + k, shift, r, n), 1))


@_loop
def accumulate(z: Array, var: Array, prec: Array, shifts: Array, r: int, start: float, slope: float, sums: Array) -> None:
    """Adds to sums (4, Y, X): sum_j w (z_j - z_i) and sum_j w over `shifts`, then the same two with w^3.

    z: plane (Y, X), float32, finite. var: each pixel's variance, entering distances as 2/(var_i + var_j). prec: weight in
    averages; 0 for a pixel that is neither compared nor averaged. shifts: (n, 2) int64, half of the search window. r: patch
    radius. D = sum over the patch of squared differences, scaled up where parts of the patch are missing.
    """
    height, width = z.shape
    reach_y, reach_x = r + np.max(np.abs(shifts[:, 0])), r + np.max(np.abs(shifts[:, 1]))
    small = height < reach_y + r + 1 or width < reach_x + r + 1
    for y0 in range(0, height, ROWS):
        for x0 in range(0, width, COLS):
            y1, x1 = min(y0 + ROWS, height), min(x0 + COLS, width)
            ga, gb = max(y0 - reach_y, 0), min(y1 + reach_y, height)
            gc, gd = max(x0 - reach_x, 0), min(x1 + reach_x, width)
            plain = not small and _all_one(prec, ga, gb, gc, gd) and _all_one(var, ga, gb, gc, gd)
            _block(z, var, prec, shifts, r, F(start), F(slope), sums, y0, y1, x0, x1, plain)


@_loop
def _block(
    z: Array,
    var: Array,
    prec: Array,
    shifts: Array,
    r: int,
    start: np.float32,
    slope: np.float32,
    sums: Array,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    plain: bool,
) -> None:
    height, width = z.shape
    d2 = np.empty((y1 - y0 + 2 * r, x1 - x0 + 2 * r), F)
    both = np.empty_like(d2)
    line, w_line, n_line, edge = np.empty(d2.shape[1], F), np.empty(x1 - x0, F), np.empty(x1 - x0, F), np.empty(x1 - x0, F)
    for s in range(shifts.shape[0]):
        dy, dx = shifts[s, 0], shifts[s, 1]
        xa, xb = max(x0, -dx), min(x1, width - dx)  # pixels i whose partner lies inside the image
        ya, yb = max(y0, -dy), min(y1, height - dy)
        if xa >= xb or ya >= yb:
            continue
        _differences(z, var, prec, dy, dx, r, y0, y1, x0, x1, plain, d2, both)
        if plain:
            _edge_factors(dx, r, width, xa, edge[: xb - xa])
        for y in range(ya, yb):
            k, n = y - y0 + r, xb - xa
            w, q, p = w_line[:n], y + dy, xa + dx
            _patch_sum(d2, k, xa - x0, r, line[: n + 2 * r], w)
            zi, zj = z[y, xa:xb], z[q, p : p + n]
            if plain:
                row = F(2 * r + 1) / F(max(_inside(y, dy, r, height), 1))
                _weigh(w, edge[:n], row, start, slope)
                _gather(w, zi, zj, sums[0, y, xa:xb], sums[1, y, xa:xb])
                _gather(w, zj, zi, sums[0, q, p : p + n], sums[1, q, p : p + n])
                _gather_cubed(w, zi, zj, sums[2, y, xa:xb], sums[3, y, xa:xb])
                _gather_cubed(w, zj, zi, sums[2, q, p : p + n], sums[3, q, p : p + n])
            else:
                count = n_line[:n]
                _patch_sum(both, k, xa - x0, r, line[: n + 2 * r], count)
                _weigh_counted(w, count, F((2 * r + 1) ** 2), F((r + 1) ** 2), start, slope)
                spare = edge[:n]
                _gather_weighed(
                    w,
                    prec[q, p : p + n],
                    zi,
                    zj,
                    spare,
                    sums[0, y, xa:xb],
                    sums[1, y, xa:xb],
                    sums[2, y, xa:xb],
                    sums[3, y, xa:xb],
                )
                _gather_weighed(
                    w,
                    prec[y, xa:xb],
                    zj,
                    zi,
                    spare,
                    sums[0, q, p : p + n],
                    sums[1, q, p : p + n],
                    sums[2, q, p : p + n],
                    sums[3, q, p : p + n],
                )


@_loop
def _differences(
    z: Array,
    var: Array,
    prec: Array,
    dy: int,
    dx: int,
    r: int,
    y0: int,
    y1: int,
    x0: int,
    x1: int,
    plain: bool,
    d2: Array,
    both: Array,
) -> None:
    """Squared differences (and, unless plain, which pairs count) of a block grown by r; zero outside the image."""
    height, width = z.shape
    xa, xb = max(x0 - r, 0, -dx), min(x1 + r, width, width - dx)
    for y in range(y0 - r, y1 + r):
        k = y - y0 + r
        inside = 0 <= y < height and 0 <= y + dy < height
        a, b = xa - x0 + r, xb - x0 + r
        if not inside:
            a, b = 0, 0
        d2[k, :a] = ZERO
        d2[k, b:] = ZERO
        if plain and inside:
            _square(z[y, xa:xb], z[y + dy, xa + dx : xb + dx], d2[k, a:b])
        if not plain:
            both[k, :a] = ZERO
            both[k, b:] = ZERO
            if inside:
                out = d2[k, a:b]
                _square_scaled(z[y, xa:xb], z[y + dy, xa + dx : xb + dx], var[y, xa:xb], var[y + dy, xa + dx : xb + dx], out)
                _both(prec[y, xa:xb], prec[y + dy, xa + dx : xb + dx], out, both[k, a:b])


@_row
def _finish_row(wide: Array, den_w: Array, tight: Array, den_t: Array, gap: Array) -> None:
    # means relative to z_i in place of the sums; gap: squared difference of the two
    for x in range(gap.size):
        a = wide[x] / max(den_w[x], TINY)
        b = tight[x] / max(den_t[x], TINY) if den_t[x] > TINY else a
        wide[x] = a
        tight[x] = b
        gap[x] = (b - a) * (b - a)


@_row
def _mix_row(z: Array, a: Array, b: Array, gap: Array, own: Array, out: Array, g: Array) -> None:
    for x in range(z.size):
        share = max(ONE - own[x] / max(gap[x], F(1e-30)), ZERO)
        g[x] = share
        out[x] = z[x] + a[x] + share * (b[x] - a[x])


@_row
def _sum3(a: Array, b: Array, c: Array, out: Array) -> None:
    for x in range(out.size):
        out[x] = a[x] + b[x] + c[x]


@_row
def _inverse(den: Array, k: np.float32, out: Array) -> None:
    for x in range(out.size):
        out[x] = k / max(den[x], TINY) if den[x] > TINY else ZERO  # no tight mean: no say in its neighbours' mix


@_loop
def _sum9(a: Array, out: Array) -> None:
    """Sum over 3 x 3 of a (Y + 2, X + 2) into out (Y, X)."""
    n = out.shape[1]
    line = np.empty(n + 2, F)
    for y in range(out.shape[0]):
        _sum3(a[y], a[y + 1], a[y + 2], line)
        _sum3(line[:n], line[1 : n + 1], line[2 : n + 2], out[y])


@_loop
def mix(z: Array, wide: Array, tight: Array, noise: float) -> tuple[Array, Array, Array]:
    """The wide mean, moved towards the tight one where they differ by more than noise: (estimate, share, gap), each (Y, X).

    share = max(0, 1 - noise <1/den_tight> / <(tight - wide)^2>), averages over 3 x 3: the estimated linear minimum mean
    square error combination, with Var(tight - wide) = noise/den_tight. wide and tight, sums on entry, hold means - z after.
    """
    height, width = z.shape
    gap = np.zeros((height + 2, width + 2), F)
    own = np.zeros((height + 2, width + 2), F)
    for y in range(height):
        _finish_row(wide[0, y], wide[1, y], tight[0, y], tight[1, y], gap[y + 1, 1 : width + 1])
        _inverse(tight[1, y], F(noise), own[y + 1, 1 : width + 1])
    gap9, own9 = np.empty_like(z), np.empty_like(z)
    _sum9(gap, gap9)
    _sum9(own, own9)
    out, share = np.empty_like(z), np.empty_like(z)
    for y in range(height):
        _mix_row(z[y], wide[0, y], tight[0, y], gap9[y], own9[y], out[y], share[y])
    return out, share, gap9


@_row
def _residual_row(z: Array, mean: Array, prec: Array, out: Array, count: Array) -> None:
    for x in range(z.size):
        d = z[x] - mean[x]
        out[x] = d * d * prec[x]
        count[x] = ONE if prec[x] > ZERO else ZERO


@_row
def _return_row(
    z: Array, prec: Array, left: Array, count: Array, total: Array, least: np.float32, mean: Array, back: Array
) -> None:
    for x in range(z.size):
        left[x] = left[x] / max(count[x], ONE)
        excess = max(left[x] - least, ZERO)
        quiet = prec[x] * max(count[x], ONE) / max(total[x], TINY)  # this pixel's precision over the window's
        h = excess * quiet / max(excess * quiet + least, TINY)
        back[x] = h
        mean[x] += h * (z[x] - mean[x])


@_loop
def add_back(z: Array, prec: Array, mean: Array, r: int, least: float) -> tuple[Array, Array]:
    """Returns part of the residual to `mean`, in place, where it exceeds noise: (share h, mean squared residual), (Y, X).

    R = <prec (z - mean)^2>, average over the trusted pixels of (2r+1)^2; R - least in units of 1/<prec> is the power of
    texture that no other place of the window repeats, and h = power / (power + least/prec): 1 - least/R for equal prec.
    """
    height, width = z.shape
    left = np.zeros((height + 2 * r, width + 2 * r), F)
    count = np.zeros((height + 2 * r, width + 2 * r), F)
    for y in range(height):
        _residual_row(z[y], mean[y], prec[y], left[y + r, r : width + r], count[y + r, r : width + r])
    padded = np.zeros_like(left)
    padded[r : height + r, r : width + r] = prec
    line, number, precs = np.empty(width + 2 * r, F), np.empty(width, F), np.empty(width, F)
    total, back = np.empty_like(z), np.empty_like(z)
    for y in range(height):
        _patch_sum(left, y + r, 0, r, line, total[y])
        _patch_sum(count, y + r, 0, r, line, number)
        _patch_sum(padded, y + r, 0, r, line, precs)
        _return_row(z[y], prec[y], total[y], number, precs, F(least), mean[y], back[y])
    return back, total
