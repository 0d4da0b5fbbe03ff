"""Photon transfer from one image: noise against signal in its flattest parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from firstlight.calibrate.levels import Level, distrusted, lattice, truncation
from firstlight.calibrate.line import Line, Transfer, electrons, weighted_line, widened
from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.noise import Detector

__all__ = ["transfer_single"]

Array = NDArray[Any]
CLIP = 4.0  # sigma: edges and stars that the choice of flat blocks left in
BINS = 24
ROWS = 512  # rows of a plane worked on at once
FRACTIONS = (1.0, 0.5, 0.25, 0.12)  # of `flattest`: how far a bin retreats to its flattest blocks to get rid of structure


class _Blocks(NamedTuple):
    """Blocks of 2 x 2 pixels, one value each (n,), in the image's unit.

    detail: diagonal Haar detail, orthonormal, the noise's own size; slope2: mean square of its horizontal and vertical detail;
    mean; around and activity: brightness and roughness of the eight neighbours alone; cross: products of `detail` with the
    detail one pixel along x and y.
    """

    detail: Array
    slope2: Array
    mean: Array
    around: Array
    activity: Array
    cross: Array


class _Bin(NamedTuple):
    """Flat blocks of one brightness: mean [ADU], variance [ADU^2] and its error; structure = slope2/detail^2; lag1."""

    mean: float
    variance: float
    error: float
    blocks: int
    structure: float
    lag1: float


def transfer_single(
    frame: Frame,
    *,
    gain: float | None = None,
    offset: float | None = None,
    flattest: float = 0.4,
    correlation: float = 0.05,
    structure: float = 1.25,
) -> Transfer:
    """Gain [e-/ADU] and read noise [e-] from one raw image (Y, X) [ADU]; a mosaic is taken colour plane by colour plane.

    The diagonal Haar detail of 2 x 2 blocks, in which linear structure cancels, is squared and averaged over the `flattest`
    fraction of blocks at each brightness, and a line fitted. Flatness and brightness are judged by the eight neighbouring
    blocks, whose noise is independent, so that neither choice biases the variance. Levels whose other details hold more than
    `structure` times the energy of the diagonal are texture and left out. With `gain` only the floor is fitted. `offset`
    [ADU], the file's own black level by default, splits the floor into offset and read noise; with neither the noise law
    holds as it is and the split stays unknown.
    Raises FrameError where fewer than three separate levels are left (one with `gain`), or the noise of neighbouring pixels
    correlates by more than `correlation`. Signal-dependent noise from one image: Foi et al., IEEE TIP 17, 1737 (2008).
    """
    data, ok, values = _prepare(frame, gain)
    black = frame.observation.offset
    if offset is None and black is not None and np.ptp(black) == 0:
        offset = float(np.ravel(black)[0])
    step = lattice(values[0])
    bins = _bins(_all_blocks(data, ok, frame.period()), flattest, step, structure)
    ends = _ends(*values, step)
    levels = [_level(b, ends, step, structure) for b in bins]
    _refuse(levels, correlation, gain)
    result = _solve(levels, gain, offset)
    detector: Detector = replace(result.detector, step=step)
    return replace(result, detector=detector)


def _prepare(frame: Frame, gain: float | None) -> tuple[Array, Array, tuple[Array, Array]]:
    """The data, which pixels count, and the values that those take, ascending, with how many take each."""
    frame.need("transfer_single", Unit.ADU)
    if frame.axes != "YX" or min(frame.shape) < 32:
        raise FrameError(f"transfer_single: axes {frame.axes!r}, shape {frame.shape}; expected one image (YX), 32 x 32 or more")
    if gain is not None and not gain > 0:
        raise FrameError(f"transfer_single: gain {gain} e-/ADU, expected a positive number")
    data = np.asarray(frame.data)
    ok = np.isfinite(data)
    if frame.flags is not None:
        ok &= ~distrusted(frame)
    values = _taken(data if ok.all() else data[ok])
    if values[0].size < 2:
        raise FrameError("transfer_single: the image is constant or has no valid pixel, so it holds no noise to measure")
    return data, ok, values


def _taken(data: Array) -> tuple[Array, Array]:
    """The values in `data`, ascending, float64, and the number of each."""
    if data.dtype.kind not in "iu" or data.dtype.itemsize > 2:
        values, counts = np.unique(data, return_counts=True)
        return values.astype(np.float64), counts
    low = int(np.iinfo(data.dtype).min)
    counts = np.zeros(1 << 8 * data.dtype.itemsize, dtype=np.int64)
    flat = data.ravel()
    for start in range(0, flat.size, 1 << 20):  # of which bincount makes int64
        counts += np.bincount(flat[start : start + (1 << 20)].astype(np.intp) - low, minlength=counts.size)
    there = np.flatnonzero(counts)
    return (there + low).astype(np.float64), counts[there]


def _all_blocks(data: Array, ok: Array, period: tuple[int, int]) -> _Blocks:
    """The blocks of each colour plane, in bands of rows that overlap by the neighbours of a block."""
    parts = []
    for y, x in np.ndindex(period):
        plane, good = (p[y :: period[0], x :: period[1]] for p in (data, ok))
        parts += [_blocks(plane[t : t + ROWS + 4], good[t : t + ROWS + 4]) for t in range(0, len(plane), ROWS)]
    return _Blocks(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _blocks(data: Array, ok: Array) -> _Blocks:
    """The blocks that have eight neighbours in `data`, float32."""
    h, w = (n // 2 * 2 for n in data.shape)
    if min(h, w) < 6:
        return _Blocks(*np.zeros((6, 0), dtype=np.float32))
    data, ok = np.where(ok[:h, :w], data[:h, :w], 0).astype(np.float64), ok[:h, :w]
    a, b, c, d = data[::2, ::2], data[::2, 1::2], data[1::2, ::2], data[1::2, 1::2]
    detail, mean = (a - b - c + d) / 2, (a + b + c + d) / 4
    slope2 = ((a - b + c - d) ** 2 + (a + b - c - d) ** 2) / 8
    around = _ring(mean)
    activity = 16 * _ring(slope2) + 28 * (_ring(mean**2) - around**2)
    inner, right, below = np.s_[1:-1, 1:-1], np.s_[1:-1, 2:], np.s_[2:, 1:-1]
    cross = detail[inner] * ((b - d)[inner] - (a - c)[right] + (c - d)[inner] - (a - b)[below]) / 4
    good = minimum_filter(ok[::2, ::2] & ok[::2, 1::2] & ok[1::2, ::2] & ok[1::2, 1::2], 3)[inner]
    found = (detail[inner], slope2[inner], mean[inner], around, activity, cross)
    return _Blocks(*(part[good].astype(np.float32) for part in found))


def _ring(x: Array) -> Array:
    """The mean of the eight neighbours of each value that has them."""
    rows = x[:-2] + x[1:-1] + x[2:]
    return np.asarray((rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] - x[1:-1, 1:-1]) / 8)


def _bins(blocks: _Blocks, flattest: float, step: float, structure: float) -> list[_Bin]:
    """Blocks by brightness, evenly in its square root; sparse bins join the next."""
    if blocks.mean.size == 0:
        return []
    low, high = np.percentile(blocks.around, [0.1, 99.9])
    place = np.sqrt(np.clip(blocks.around - low, 0, high - low))
    width = max(float(place.max()), 1e-30) / BINS
    which = np.minimum(place / width, BINS - 1).astype(np.uint8)
    need, out, members = 120 / flattest, [], np.zeros(0, dtype=int)
    for k in range(BINS):
        members = np.concatenate([members, np.flatnonzero(which == k)])
        if members.size >= need:
            out.append(_bin(blocks, members, flattest, step, structure))
            members = np.zeros(0, dtype=int)
    return out


def _bin(blocks: _Blocks, members: Array, flattest: float, step: float, structure: float) -> _Bin:
    flattest *= members.size
    chosen = members
    for part in FRACTIONS:
        count = max(int(flattest * part), 1)
        chosen = chosen[np.argpartition(blocks.activity[chosen], count - 1)[:count]]
        found = _measure(blocks, chosen, step)
        if found.structure < structure or chosen.size * 0.5 < 100:
            break
    return found


def _measure(blocks: _Blocks, chosen: Array, step: float) -> _Bin:
    detail = np.abs(blocks.detail[chosen], dtype=np.float64)
    sigma = 1.4826 * float(np.median(detail)) + step / 2  # the median of digitised noise is good to half a step
    truncated = 1 - truncation(CLIP)
    for _ in range(20):
        keep = detail <= CLIP * sigma
        new = float(np.sqrt(np.mean(detail[keep] ** 2) / truncated)) if keep.any() else sigma
        if abs(new - sigma) <= 1e-6 * sigma:
            break
        sigma = new
    kept = chosen[keep]
    n, energy = kept.size, float(np.sum(detail[keep] ** 2))
    error = float(np.std(detail[keep] ** 2)) / truncated / np.sqrt(n)
    # the diagonal detail of noise with lag-1 correlation r has powers 2 - 2r at lag 0 and -1 + 2r at lag 1, per axis
    q = float(np.sum(blocks.cross[kept], dtype=np.float64)) / max(energy, 1e-300)
    lag1 = (1 + 2 * q) / (2 + 2 * q) if q > -1 else -1.0
    structure = float(np.sum(np.minimum(blocks.slope2[kept], (CLIP * sigma) ** 2), dtype=np.float64)) / max(energy, 1e-300)
    return _Bin(float(np.mean(blocks.mean[kept], dtype=np.float64)), sigma**2 - step**2 / 12, error, n, structure, lag1)


def _ends(values: Array, counts: Array, step: float) -> tuple[float, float]:
    """The codes where values pile up at either end of the range, or -inf and inf."""
    total = counts.sum()
    piled = [step > 0 and last > 1e-4 * total and last > 1.5 * inner for last, inner in (counts[:2], counts[:-3:-1])]
    return float(values[0]) if piled[0] else -np.inf, float(values[-1]) if piled[1] else np.inf


def _level(b: _Bin, ends: tuple[float, float], step: float, structure: float) -> Level:
    sigma, reason = float(np.sqrt(max(b.variance, 0.0))), ""
    if not b.variance > (0.4 * step) ** 2 or b.error <= 0:
        reason = "noise below the quantisation step"
    elif b.mean - 3 * sigma < ends[0] or b.mean + 3 * sigma > ends[1]:
        reason = "noise reaches a clipped end of the range"
    elif b.structure > structure:
        reason = f"texture or edges hold over {structure:g} times the energy of the diagonal detail"
    return Level(b.mean, b.variance, b.error, None, 1, 4 * b.blocks, False, 0.0, b.lag1, not reason, reason)


def _refuse(levels: list[Level], correlation: float, gain: float | None) -> None:
    used = [v for v in levels if v.used]
    judged = used or levels
    weight = np.array([v.pixels for v in judged], dtype=np.float64)
    lag = float(np.average([v.lag1 for v in judged], weights=weight)) if judged else 0.0
    if abs(lag) > correlation + 4 / np.sqrt(max(weight.sum(), 4.0) / 4):
        raise FrameError(
            f"transfer_single: neighbouring pixels correlate in the flattest parts ({lag:.2f}, white noise has 0): the image "
            "is resampled, demosaicked, compressed or textured throughout, and its variance says nothing about the gain; give "
            "the raw image"
        )
    separate: list[Level] = []
    for level in sorted(used, key=lambda v: v.mean):
        if not separate or level.mean - separate[-1].mean > 2 * np.sqrt(separate[-1].variance):
            separate.append(level)
    need = 3 if gain is None else 1
    if len(separate) < need:
        reasons = [v.reason for v in levels if not v.used]
        left = [f"{reasons.count(r)} because {r}" for r in dict.fromkeys(reasons)]
        raise FrameError(
            f"transfer_single: {len(separate)} separate signal levels are populated by flat pixels, expected {need} or more, "
            f"each two sigma of noise from the next{'; left out: ' + '; '.join(left) if left else ''}. "
            f"Give flats and darks to transfer{', or gain= to fit the floor alone' if gain is None else ''}"
        )


def _solve(levels: list[Level], gain: float | None, offset: float | None) -> Transfer:
    used = [v for v in levels if v.used]
    zero = offset or 0.0
    x = np.array([v.mean - zero for v in used])
    v = np.array([level.variance for level in used])
    relative = np.array([level.variance_std / level.variance for level in used])
    if gain is None:
        line = weighted_line(np.stack([x, np.ones_like(x)], axis=1), np.eye(len(x)), v, relative, x)
    else:
        line = _floor(v, relative, x, gain)
    if gain is None and not line.slope > 3 * np.sqrt(line.covariance[0, 0]):
        raise FrameError(
            f"transfer_single: variance does not rise with the mean (slope {line.slope:.3g} ADU): this image "
            "does not show the detector's noise. Give flats and darks to transfer"
        )
    return _result(line, levels, offset, gain)


def _floor(variance: Array, relative: Array, x: Array, gain: float) -> Line:
    """The floor b of var = x/gain + b, weights from the fitted variance."""
    floor = float(np.median(variance - x / gain))
    for _ in range(50):
        weight = 1 / (relative * np.maximum(x / gain + floor, 0.1 * variance)) ** 2
        floor, last = float(np.average(variance - x / gain, weights=weight)), floor
        if abs(floor - last) <= 1e-9 * abs(floor):
            break
    covariance = np.diag([0.0, 1 / float(weight.sum())])
    return Line(1 / gain, floor, covariance, float(np.sum(weight * (variance - x / gain - floor) ** 2)), x.size - 1)


def _result(line: Line, levels: list[Level], offset: float | None, gain: float | None) -> Transfer:
    covariance, bent = widened(line)
    doubts = []
    if bent:
        doubts.append(
            f"variance is no straight line in the mean (chi-square {line.chi2:.3g} for {line.dof} degrees of freedom): some "
            "structure is taken for noise; the errors are widened to match"
        )
    zero, intercept = 0.0 if offset is None else float(offset), line.intercept
    if offset is None and intercept < 0:
        zero, intercept = -intercept / line.slope, 0.0
        doubts.append("no offset given: taken where the fitted variance is zero, with no read noise; the noise law is the same")
    elif offset is None:
        doubts.append("no offset given: taken as 0, so read_noise is the noise where the counts are 0")
    elif intercept < 0:
        doubts.append("the line meets the offset below zero variance: read noise is not measured here; give darks")
    value, std, read_noise, read_noise_std = electrons(line.slope, intercept, covariance)
    stds = (None if gain is not None else std, read_noise_std)
    source = f"one image, {sum(v.used for v in levels)} levels" + ("" if gain is None else ", gain given")
    detector = Detector(value, read_noise, zero, None, *stds, source=source)
    return Transfer(detector, tuple(levels), line.slope, intercept, covariance, line.chi2, line.dof, doubts=tuple(doubts))
