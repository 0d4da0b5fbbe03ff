"""What a frame's own pixels say about its noise and about what its header claims."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.frame import Frame, Unit
from firstlight.measure.sample import Block, blocks
from firstlight.noise import Noise, spread

__all__ = ["FlatNoise", "flat_noise", "noise_correlation", "plausibility"]

Array = NDArray[Any]
CELL = 16  # px, a piece of image judged flat or not
REACH = 2  # px, the noise's correlation is taken to vanish farther away than this
LAGS = 4  # px, measured
FLATTEST, ENOUGH = 0.1, 64  # part of the cells that is used, and how many there should be; up to a quarter in small images
WINDOW = 9  # px, of the local quadratic fit that is taken off
WHOLE = 0.8  # share of unflagged pixels that a window needs
PIXELS = 1 << 20
AGREES = 1.3  # factor between measured and modelled variance; simulated scenes give 0.98 to 1.04
CORRELATED = 0.05  # reported above this; costs the non-local means 0.05 to 0.2 dB (bench/white.py)
RATE = {Unit.ELECTRON: Unit.ELECTRON_RATE, Unit.ADU: Unit.ADU_RATE}


class FlatNoise(NamedTuple):
    """Noise measured in the flattest cells: lag-1 correlations, their standard error, and (n,) cell means, variances, model."""

    lag_y: float
    lag_x: float
    error: float
    mean: Array
    variance: Array
    model: Array | None


def noise_correlation(frame: Frame) -> tuple[float, float] | None:
    """Lag-1 autocorrelation (y, x) of an unrestored frame's noise; None where too few flat pixels can be used.

    A 9 x 9 local quadratic fit is taken off, the flattest tenth of 16 px cells kept (up to a quarter in small images), each
    scaled by its own noise, and the autocovariances are solved for those of the noise before the fit was taken off: white
    noise gives 0 within its standard error. On a mosaic, lag 1 is the nearest pixel of the same cell position.
    """
    found = flat_noise(frame)
    return None if found is None else (found.lag_y, found.lag_x)


@lru_cache(maxsize=1)
def _high_pass() -> Array:
    """Kernel: 1 at the pixel minus a least-squares quadratic over the window, evaluated at its middle."""
    r = WINDOW // 2
    y, x = (k.ravel().astype(np.float64) for k in np.mgrid[-r : r + 1, -r : r + 1])
    smooth = np.linalg.pinv(np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1))[0]
    kernel = -smooth.reshape(WINDOW, WINDOW)
    kernel[r, r] += 1
    return np.asarray(kernel)


def _half_plane(reach: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(reach + 1) for j in range(-reach, reach + 1) if i > 0 or j >= 0]


@lru_cache(maxsize=1)
def _mixing() -> Array:
    """(measured lags, noise lags): autocovariance after the high-pass h of noise with autocovariance R, (h * h~ * R)(lag)."""
    from scipy.signal import correlate2d

    own, c = correlate2d(_high_pass(), _high_pass()), WINDOW - 1

    def at(i: int, j: int) -> float:
        return float(own[c + i, c + j]) if max(abs(i), abs(j)) <= c else 0.0

    return np.array(
        [
            [at(i - e, j - f) + (at(i + e, j + f) if (e, f) != (0, 0) else 0) for e, f in _half_plane(REACH)]
            for i, j in _half_plane(LAGS)
        ]
    )


class _Planes(NamedTuple):
    passed: Array  # high-passed, scaled by each cell's noise
    used: Array  # bool
    mean: Array  # (n,) per used cell
    variance: Array
    model: Array


def flat_noise(frame: Frame, pixels: int = PIXELS) -> FlatNoise | None:
    """The noise in the flattest cells of at most about `pixels` pixels; None where fewer than 16 cells can be used."""
    planes = [p for b in blocks(frame, pixels) for p in _planes(b)]
    count = sum(p.mean.size for p in planes)
    if count < 16:
        return None
    lags = _half_plane(LAGS)
    total, n = np.zeros(len(lags)), np.zeros(len(lags))
    for p in planes:
        u = np.where(p.used, p.passed, 0)
        for k, (i, j) in enumerate(lags):
            here = np.s_[: u.shape[0] - i, max(0, -j) : u.shape[1] - max(0, j)]
            there = np.s_[i:, max(0, j) : u.shape[1] - max(0, -j)]
            total[k] += np.sum(u[here] * u[there])
            n[k] += np.count_nonzero(p.used[here] & p.used[there])
    mixing = _mixing()
    noise_cov = np.linalg.lstsq(mixing, total / np.maximum(n, 1), rcond=None)[0]
    if not noise_cov[0] > 0:
        return None
    names = _half_plane(REACH)
    rho = noise_cov / noise_cov[0]
    error = float(np.sqrt(np.linalg.inv(mixing.T @ mixing)[1, 1] / n[0]))
    # what the high-pass leaves of unit-variance noise that is so correlated
    kept = float(mixing[0] @ rho)
    mean, variance, model = (np.concatenate([getattr(p, k) for p in planes]) for k in ("mean", "variance", "model"))
    y, x = (float(rho[names.index(k)]) for k in ((1, 0), (0, 1)))
    return FlatNoise(y, x, error, mean, variance / kept, model if isinstance(frame.noise, Noise) else None)


def _planes(block: Block) -> list[_Planes]:
    py, px = block.frame.period()
    model = None
    if isinstance(block.frame.noise, Noise):
        model = _model(block.frame.noise, block.data.reshape(block.frame.shape)).reshape(block.data.shape)
    parts = [np.s_[i::py, j::px] for i in range(py) for j in range(px)]
    found = (_plane(block.data[s], block.good[s], None if model is None else model[s]) for s in parts)
    return [p for p in found if p is not None]


def _model(noise: Noise, data: Array) -> Array:
    """Predicted variance of noisy pixels, continued below the offset, so that its mean over a cell is unbiased."""
    offset = np.broadcast_to(spread(noise.offset, data.shape), data.shape)
    mirrored = 2 * noise.variance(offset) - noise.variance(2 * offset - data)
    return np.where(data < offset, mirrored, noise.variance(data))


def _cells(a: Array) -> Array:
    rows, cols = a.shape[0] // CELL, a.shape[1] // CELL
    cut = a[: rows * CELL, : cols * CELL].reshape(rows, CELL, cols, CELL)
    return cut.swapaxes(1, 2).reshape(rows, cols, CELL * CELL)


def _plane(data: Array, good: Array, model: Array | None) -> _Planes | None:
    import cv2

    if min(data.shape) < 2 * CELL or not good.any():
        return None
    middle = np.median(data[good])
    filled, share = _filled(data - middle, good)
    passed = cv2.filter2D(filled, -1, _high_pass(), borderType=cv2.BORDER_REFLECT)
    clear = good & (share > WHOLE)
    cells = _cells(passed)
    sd = 1.4826 * np.median(np.abs(cells), axis=-1)
    low, high = data[good].min(), data[good].max()
    clipped = _cells((data <= low) | (data >= high)).mean(axis=-1)
    usable = (sd > 0) & (clipped < 0.02) & (_cells(clear).mean(axis=-1) > 0.5)
    if not usable.any():
        return None
    mean = _cells(filled).mean(axis=-1)
    structure = _cells(filled - passed).std(axis=-1)
    # against the noise usual at that level: a cell's own sd would favour cells where chance made it large
    structure[usable] /= _usual(mean[usable], sd[usable])
    part_used = float(np.clip(ENOUGH / np.count_nonzero(usable), FLATTEST, 0.25))
    usable &= structure <= np.quantile(structure[usable], part_used)
    scale = _spread(np.where(usable, sd, np.inf))
    part = np.s_[: scale.shape[0], : scale.shape[1]]
    scaled = passed[part] / scale
    used = _spread(usable) & clear[part] & (np.abs(scaled) < 4)
    expected = np.zeros(np.count_nonzero(usable)) if model is None else _cells(model).mean(axis=-1)[usable]
    return _Planes(scaled, used, mean[usable] + middle, (sd * sd)[usable], expected)


def _filled(data: Array, good: Array) -> tuple[Array, Array]:
    """Flagged pixels replaced by the mean of the good ones around them, and the share of good ones in each window.

    A window with a few filled pixels is used: hundreds of scattered hot pixels would else leave too few, ill-chosen cells.
    """
    import cv2

    size = (WINDOW, WINDOW)
    weight = cv2.boxFilter(good.astype(np.float64), -1, size, borderType=cv2.BORDER_REFLECT)
    if good.all():
        return data, weight
    near = [
        cv2.boxFilter(k, -1, (5, 5), borderType=cv2.BORDER_REFLECT) for k in (good * np.float64(1), np.where(good, data, 0))
    ]
    return np.where(good, data, near[1] / np.maximum(near[0], 0.04)), weight


def _usual(mean: Array, sd: Array) -> Array:
    """The median sd of the 31 cells nearest in mean."""
    from scipy.ndimage import median_filter

    order = np.argsort(mean, kind="stable")
    out = np.empty_like(sd)
    out[order] = median_filter(sd[order], 31, mode="nearest")
    return out


def _spread(cells: Array) -> Array:
    return np.repeat(np.repeat(cells, CELL, axis=0), CELL, axis=1)


def plausibility(frame: Frame) -> list[str]:
    """Doubts about a frame, each a plain sentence with figures; an empty list where nothing looks wrong.

    Looks at the pixels (blocks of a large frame), the unit, the noise model, the exposure and the stated saturation.
    """
    parts = list(blocks(frame, PIXELS))
    flags_ok = np.concatenate([b.good.ravel() for b in parts])
    values = np.concatenate([b.data.ravel() for b in parts])
    finite = np.isfinite(values)
    out = []
    if not finite.all():
        out.append(f"{np.count_nonzero(~finite)} of the {values.size} pixels looked at are not finite")
    values = values[finite & flags_ok]
    if values.size == 0:
        return [*out, "no pixel is finite and unflagged"]
    if values.min() == values.max():
        return [*out, f"all {values.size} pixels looked at have the same value, {values[0]:g}"]
    levels, counts = np.unique(values, return_counts=True)
    noise = flat_noise(frame)
    return [*out, *_containers(frame, levels, values.size), *_piles(frame, levels, counts), *_noise(frame, noise, values)]


def _containers(frame: Frame, levels: Array, n: int) -> list[str]:
    out = []
    dtype = np.dtype(frame.data.dtype)
    if dtype.kind == "f" and levels.size > 2 and np.all(levels == np.rint(levels)):
        out.append(f"every value is a whole number though the data are {dtype}: raw counts or photon counts in {frame.unit}?")
    if 2 < levels.size <= 256 and n > 8 * levels.size:  # fewer pixels than that leave levels out by chance
        gap = np.diff(levels)
        central = gap[levels.size // 20 : max(levels.size // 2, 1)]  # tails are sparse anyway
        missing = np.mean(central > 1.5 * gap.min()) if central.size else 0
        if missing > 0.1:
            out.append(
                f"only {levels.size} levels, unevenly spaced ({missing:.0%} of the steps skip a level): "
                "stretched after quantisation"
            )
        elif dtype.itemsize == 1:
            out.append(f"only {levels.size} levels (8 bit): display data, unless the file says that these are counts")
    return out


def _piles(frame: Frame, levels: Array, counts: Array) -> list[str]:
    if levels.size < 12:
        return []
    out, n = [], int(counts.sum())
    low, near_low = int(counts[0]), float(counts[1:6].mean())
    high, near_high = int(counts[-1]), float(counts[-6:-1].mean())
    if low > max(20, 0.002 * n) and low > 4 * near_low:
        out.append(
            f"{low} pixels ({low / n:.1%}) lie exactly at the minimum, {levels[0]:g}, {low / near_low:.0f} times as many as on "
            "the next levels: clipped at black, dark regions are biased upwards"
        )
    if high > max(8, 4 * near_high):
        stated = frame.observation.saturation
        top = None if stated is None else float(np.min(stated))
        if top is None:
            out.append(
                f"{high} unflagged pixels pile up at the maximum, {levels[-1]:g}: saturated, and no saturation is stated"
            )
        elif levels[-1] < 0.99 * top:
            out.append(f"{high} pixels pile up at the maximum, {levels[-1]:g}, below the stated saturation of {top:g}")
    return out


def _noise(frame: Frame, noise: FlatNoise | None, values: Array) -> list[str]:
    if noise is None:
        return []
    out = _unit(frame, noise)
    lag = max(noise.lag_y, noise.lag_x, key=abs)
    ratio = None if noise.model is None else float(np.median(noise.variance / np.maximum(noise.model, 1e-300)))
    structure = ratio is not None and lag > 0 and ratio - 1 > 0.6 * lag  # what is left of the scene explains both
    if abs(lag) > max(CORRELATED, 5 * noise.error) and not structure:
        out.append(
            f"noise in the flattest regions is correlated: lag-1 {noise.lag_y:.2f} (y), {noise.lag_x:.2f} (x), white noise has "
            f"0 +- {noise.error:.3f}: resampled (drizzled), smoothed, or oversampled structure"
        )
    if ratio is not None and not 1 / AGREES < ratio < AGREES:
        out.append(f"noise variance measured in the flattest regions is {ratio:.3g} times what the noise model says")
    return out


def _unit(frame: Frame, noise: FlatNoise) -> list[str]:
    """Electrons obey var >= mean, and no detector reads below about 0.2 e- RMS."""
    if frame.unit != Unit.ELECTRON:
        return []
    sd = float(np.sqrt(np.median(noise.variance)))
    bright = noise.mean > 5
    ratio = float(np.median(noise.variance[bright] / noise.mean[bright])) if np.count_nonzero(bright) >= 16 else None
    if sd >= 0.2 and (ratio is None or ratio > 0.5):
        return []
    fact = f"the noise is {sd:.3g} RMS" if sd < 0.2 else f"variance / mean is {ratio:.3g}, at least 1 for electrons"
    text = f"unit says {frame.unit} but the values look like {RATE[Unit.ELECTRON]}: {fact} in the flattest regions"
    exposure = frame.observation.exposure
    if exposure:
        text += f"; times the exposure of {exposure:g} s that is {sd * exposure:.3g} e-"
    return [text]
