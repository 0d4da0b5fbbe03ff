"""Signal levels of a photon-transfer curve: frames grouped, mean and variance of each group by differences."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, trim_mean

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit

__all__ = ["Level", "check_frames", "distrusted", "group", "lattice", "measure_level", "truncation", "typical"]

Array = NDArray[Any]
BIN = 1024  # pixels of like brightness that share one outlier threshold, so that vignetting is not taken for outliers


@dataclass(frozen=True)
class Level:
    """One signal level: mean [ADU, with offset], variance [ADU^2, quantisation taken off] and its standard error.

    exposure [s] or None; `frames` and `pixels` that entered; `clipped`: fraction of pixels at the end of the range; `lag1`:
    correlation of the noise of neighbouring pixels (mean of x and y); `used` in the fit, else `reason` says why not; photons:
    mean per pixel, where given.
    """

    mean: float
    variance: float
    variance_std: float
    exposure: float | None
    frames: int
    pixels: int
    dark: bool = False
    clipped: float = 0.0
    lag1: float = 0.0
    used: bool = True
    reason: str = ""
    photons: float | None = None


def lattice(values: Array) -> float:
    """The step between the values a digitised image takes [its unit]; 0 where they lie on no lattice (averages, floats).

    The step is their smallest spacing, if every value is a whole number of steps from the first.
    """
    values = np.unique(values[np.isfinite(values)].astype(np.float64))
    if values.size < 2:
        return 0.0
    step = float(np.diff(values).min())
    cells = (values - values[0]) / step
    # float32 holds 24 bits; more cells than pixels' worth of codes is no digitisation
    return step if cells[-1] < 2**20 and np.allclose(cells, np.rint(cells), rtol=0, atol=1e-3) else 0.0


def group(frames: Sequence[Frame], levels: Sequence[Hashable] | None, offset: float) -> list[list[int]]:
    """Indices of the frames of each level: by label, else by exposure and, within one exposure, by mean.

    Frames belong to one mean where it differs by less than 2 % of the signal above `offset` [ADU] (5 % at one stated exposure),
    plus what noise explains.
    """
    if levels is not None and len(levels) != len(frames):
        raise FrameError(f"transfer: {len(levels)} levels for {len(frames)} flats; give one label per flat")
    keys = levels if levels is not None else [f.observation.exposure for f in frames]
    sets: dict[Hashable, list[int]] = {}
    for i, key in enumerate(keys):
        sets.setdefault(key, []).append(i)
    if levels is not None:
        return list(sets.values())
    means = [(typical(f), float(np.nanstd(np.asarray(f.data, dtype=np.float64))) / np.sqrt(f.data.size)) for f in frames]
    return [part for key, members in sets.items() for part in _by_mean(members, means, offset, 0.02 if key is None else 0.05)]


def _by_mean(members: list[int], means: Sequence[tuple[float, float]], offset: float, drift: float) -> list[list[int]]:
    order = sorted(members, key=lambda i: means[i][0])
    parts = [[order[0]]]
    for i in order[1:]:
        low, error = means[parts[-1][0]]
        if means[i][0] - low > drift * abs(means[i][0] - offset) + 10 * error:
            parts.append([])
        parts[-1].append(i)
    return parts


def check_frames(frames: Sequence[Frame], what: str) -> None:
    """Raises FrameError unless all are (Y, X) frames in ADU, of one shape, with finite numbers."""
    for frame in frames:
        frame.need(f"transfer: {what}", Unit.ADU)
        if frame.axes != "YX":
            raise FrameError(
                f"transfer: {what} has axes {frame.axes!r}, expected single images (YX); give each exposure by itself"
            )
        if frame.shape != frames[0].shape:
            raise FrameError(f"transfer: {what} of shapes {frames[0].shape} and {frame.shape}; give frames of one size or crop")
        good = int(np.count_nonzero(np.isfinite(np.asarray(frame.data)) & ~distrusted(frame)))
        if good < 64:
            raise FrameError(f"transfer: {good} pixels of {what} are unflagged and finite, expected at least 64")
        if min(frame.shape) < 8:
            raise FrameError(f"transfer: {what} of shape {frame.shape}, expected at least 8 x 8 pixels")


def measure_level(frames: Sequence[Frame], *, dark: bool, stuck: Array, top: float, step: float, clip: float) -> Level:
    """Mean and temporal variance of frames of one scene (each (Y, X) [ADU]), by their differences from their mean.

    For two frames this is var(A - B)/2, in which fixed patterns cancel (Janesick 2007); a lamp that drifted between frames
    leaves a copy of the mean image, which is fitted and taken off. Pixels further out than `clip` sigma are dropped and the
    truncated normal's variance restored. step^2/12 (quantisation) is subtracted. Values at or above `top` [ADU] count as
    clipped; `stuck` (Y, X) are pixels that are so in the dark, and left out.
    """
    stack = np.stack([np.asarray(f.data, dtype=np.float64) for f in frames])
    ok = np.all(np.isfinite(stack), axis=0) & ~stuck
    for frame in frames:
        ok &= ~distrusted(frame)
    if ok.sum() < 64:
        raise FrameError(f"transfer: {int(ok.sum())} pixels are unflagged and finite in a level, expected at least 64")
    mean = stack.mean(axis=0)
    rest = _residuals(stack - mean, mean, ok)
    ok &= ~_outliers(rest, mean, ok, clip, step)
    rest = _residuals(stack - mean, mean, ok)
    n, pixels = len(frames), int(ok.sum())
    clipped, floored = float(np.mean(stack[:, ok] >= top)), _floored(stack[:, ok], step)
    each = np.sum(rest[:, ok] ** 2, axis=0) / (n - 1)
    scale = pixels / (pixels - 2) / (1 - truncation(clip))  # mean and drift were fitted
    return Level(
        mean=float(mean[ok].mean()),
        variance=float(each.mean()) * scale - step**2 / 12,
        variance_std=float(each.std()) * scale / np.sqrt(pixels),
        exposure=frames[0].observation.exposure,
        frames=n,
        pixels=pixels,
        dark=dark,
        clipped=clipped,
        lag1=_lag1(rest, ok),
        used=not floored,
        reason=f"{'darks' if dark else 'flats'} pile up at 0: the camera cuts off its noise, so mean and variance are wrong"
        if floored
        else "",
    )


def _floored(values: Array, step: float) -> bool:
    zeros = np.count_nonzero(values == 0)
    return bool(
        values.min() == 0 and zeros > 0.001 * values.size and zeros > np.count_nonzero((values > 0) & (values < 1.5 * step))
    )


def distrusted(frame: Frame) -> Array:
    """True (Y, X) where a flag other than saturated is set: dropping the bright noise alone would bias what is left."""
    if frame.flags is None:
        return np.zeros(frame.shape, dtype=bool)
    return np.broadcast_to((np.asarray(frame.flags) | int(Flag.SATURATED)) != int(Flag.SATURATED), frame.shape)


def typical(frame: Frame) -> float:
    """Mean [unit] of the unflagged finite pixels but the lowest and highest hundredth: cosmic rays and hot pixels left out."""
    data = np.asarray(frame.data, dtype=np.float64)
    data = data[np.isfinite(data) & ~distrusted(frame)]
    return float(trim_mean(data, 0.01)) if data.size else float("nan")


def _residuals(rest: Array, mean: Array, ok: Array) -> Array:
    base = np.where(ok, mean - mean[ok].mean(), 0)
    power = float(np.sum(base**2))
    rest = rest - rest[:, ok].mean(axis=1)[:, None, None]
    drift = np.tensordot(rest, base, axes=2) / power if power > 0 else np.zeros(len(rest))
    return np.asarray(rest - drift[:, None, None] * base)


def truncation(clip: float) -> float:
    """Share of its variance that a normal loses where it is cut at +- `clip` sigma."""
    return float(2 * clip * norm.pdf(clip) / (1 - 2 * norm.sf(clip)))


def _outliers(rest: Array, mean: Array, ok: Array, clip: float, step: float) -> Array:
    n, cut = len(rest), truncation(clip)
    values = np.abs(rest[:, ok]) * np.sqrt(n / (n - 1))
    order = np.argsort(mean[ok], kind="stable")
    bad = np.zeros(order.size, dtype=bool)
    for part in np.array_split(order, max(1, order.size // BIN)):
        v = values[:, part]
        sigma = 1.4826 * float(np.median(v)) + step / 2  # the median of digitised noise is good to half a step
        for _ in range(20):
            keep = v <= clip * sigma
            new = float(np.sqrt(np.mean(v[keep] ** 2) / (1 - cut))) if keep.any() else sigma
            if abs(new - sigma) <= 1e-6 * sigma:
                break
            sigma = new
        bad[part] = np.any(v > clip * sigma, axis=0) & (sigma > 0)
    out = np.zeros(ok.shape, dtype=bool)
    out[ok] = bad
    return out


def _lag1(rest: Array, ok: Array) -> float:
    r = np.where(ok, rest, 0)
    power = float(np.sum(r * r))
    if power == 0:
        return 0.0
    return float((np.sum(r[:, :, 1:] * r[:, :, :-1]) + np.sum(r[:, 1:] * r[:, :-1])) / (2 * power))
