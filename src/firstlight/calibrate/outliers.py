"""Outliers: cosmic rays, hot pixels, and stacks that are clipped of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr

from firstlight.box import Box
from firstlight.calibrate.detector import floated, mark, noted
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.noise import Noise, Unmodelled, spread

__all__ = ["combine", "flag_cosmic_rays", "flag_hot_pixels"]

Array = NDArray[Any]
BLOCK = 1 << 22  # samples stacked at a time: 16 MB of float32, some five times that with its temporaries
NAMES = ("a", "b", "c", "d")


def flag_cosmic_rays(
    frame: Frame, *, sigma: float = 4.5, neighbour: float = 0.3, contrast: float = 5.0, iterations: int = 4
) -> Frame:
    """Sets COSMIC_RAY by L.A.Cosmic (van Dokkum 2001, through astroscrappy) on each YX plane; data unchanged.

    sigma: detection limit in standard deviations of the noise model; neighbour: its fraction for adjacent pixels; contrast:
    Laplacian over fine structure, higher where star cores are flagged. Pixels flagged before are left out. A 2x2 mosaic is
    searched colour by colour. Raises FrameError without a noise model, or for another mosaic.
    """
    noise = frame.known_noise("calibrate.flag_cosmic_rays")
    rows, cols = frame.period()
    if (rows, cols) not in {(1, 1), (2, 2)}:
        raise FrameError(
            f"calibrate.flag_cosmic_rays: got a mosaic of period {rows} x {cols}, expected none or 2 x 2: neighbours of one "
            "colour are not on a grid; stack several frames with calibrate.combine instead"
        )
    data = floated(frame)
    var = noise.variance(data)
    taken = np.broadcast_to(False if frame.flags is None else np.asarray(frame.flags) != 0, data.shape)
    level = np.broadcast_to(np.asarray(spread(noise.offset, data.shape)), data.shape)
    found = np.zeros(data.shape, dtype=bool)
    limits = {"sigclip": sigma, "sigfrac": neighbour, "objlim": contrast, "niter": iterations}
    for plane in np.ndindex(data.shape[:-2]):
        for y, x in np.ndindex(rows, cols):
            at = (*plane, slice(y, None, rows), slice(x, None, cols))
            found[at] = _lacosmic(data[at] - level[at], var[at], taken[at], **limits)
    params = {"sigma": sigma, "neighbour": neighbour, "contrast": contrast, "iterations": iterations}
    return frame.then("calibrate.flag_cosmic_rays", params, flags=mark(frame.flags, found, Flag.COSMIC_RAY, frame.shape))


def _lacosmic(data: Array, var: Array, taken: Array, **limits: float) -> Array:
    from astroscrappy import detect_cosmics

    found, _ = detect_cosmics(
        np.ascontiguousarray(data, dtype=np.float32),
        inmask=np.ascontiguousarray(taken | ~np.isfinite(data)),
        invar=np.ascontiguousarray(np.maximum(var, 1e-12), dtype=np.float32),
        gain=1.0,  # the variance is given: the noise is not modelled a second time
        satlevel=np.inf,  # saturated pixels carry a flag already
        **limits,
    )
    return np.asarray(found & ~taken)


def flag_hot_pixels(
    frame: Frame, *, reference: Frame | Sequence[Frame] | None = None, sigma: float = 6.0, contrast: float = 0.3
) -> Frame:
    """Sets HOT where a fixed pixel stands more than `sigma` above its neighbours of the same colour; data unchanged.

    `reference` shows the fixed pattern: a master dark, or unregistered frames of a drifting scene, whose median is taken.
    None: the frame itself, and then a pixel is hot only if no neighbour has more than `contrast` of its excess, so that
    stars stay (and touching hot pixels are missed). The standard deviation is the larger of the noise model's and the
    clipped spread of the differences from a 5x5 median. Leading axes: their median is searched.
    """
    if reference is None or isinstance(reference, Frame):
        shown = frame if reference is None else reference
    else:
        shown = combine(reference, method="median")
    if shown.shape[-2:] != frame.shape[-2:]:
        raise FrameError(f"calibrate.flag_hot_pixels: reference of {shown.shape} px, frame of {frame.shape}; give equal ones")
    image = floated(shown)
    image = np.median(image, axis=tuple(range(image.ndim - 2))) if image.ndim > 2 else image
    excess, local = _excess(image, shown.period())
    scale = _spread(excess)
    if isinstance(shown.noise, Noise) and image.ndim == len(shown.shape):
        hot = excess > sigma * np.maximum(scale, np.sqrt(shown.noise.variance(local)))
    else:
        hot = excess > sigma * scale
    if reference is None:
        hot &= _isolated(excess, shown.period(), contrast)
    params = {"reference": _note_frames(reference), "sigma": sigma, "contrast": contrast}
    return frame.then("calibrate.flag_hot_pixels", params, flags=mark(frame.flags, hot, Flag.HOT, frame.shape))


def _note_frames(frames: Frame | Sequence[Frame] | None) -> Any:
    return noted(frames) if frames is None or isinstance(frames, Frame) else f"{len(frames)} frames"


def _excess(image: Array, period: tuple[int, int]) -> tuple[Array, Array]:
    """(image - local median, local median) over 5x5 pixels of the same place in the mosaic's period."""
    from cv2 import medianBlur

    filled = np.nan_to_num(image, nan=float(np.nanmedian(image))).astype(np.float32)
    local = np.empty_like(filled)
    for y, x in np.ndindex(*period):
        at = (slice(y, None, period[0]), slice(x, None, period[1]))
        local[at] = medianBlur(np.ascontiguousarray(filled[at]), 5)
    return filled - local, local


def _spread(excess: Array) -> float:
    """Standard deviation without what lies beyond 4 of it; a MAD would be 0 for whole counts of little noise."""
    from scipy.stats import sigmaclip

    return float(sigmaclip(excess.ravel(), 4.0, 4.0).clipped.std())


def _isolated(excess: Array, period: tuple[int, int], contrast: float) -> Array:
    from scipy.ndimage import maximum_filter

    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    out = np.empty(excess.shape, dtype=bool)
    for y, x in np.ndindex(*period):
        at = (slice(y, None, period[0]), slice(x, None, period[1]))
        out[at] = maximum_filter(excess[at], footprint=ring, mode="nearest") <= contrast * excess[at]
    return out


def combine(frames: Sequence[Frame], *, method: str = "clip", sigma: float = 3.0) -> Frame:
    """The mean of aligned frames with outliers clipped ('clip'), the plain 'mean', or the 'median'; flagged pixels left out.

    Clipped: farther than `sigma` from the median, in units of the larger of the noise model and (from 5 frames on) the
    pixel's own robust scatter, which alone is used where the noise is unknown; symmetric clipping below 5 sigma lowers the
    mean of few-electron Poisson signals, and so does the median (by up to 1/6 e-). Noise: a and b divided by the number of
    frames used at each pixel (times the normal median's inefficiency); c and d, the noise of shared masters, average only
    between frames that `register` shifted differently. Noise unknown: std from the scatter. Exposure: the mean. Where no
    frame is usable, the data are the plain mean and the flags those of all frames. Works in blocks of rows. Raises FrameError
    for no frames, or frames that differ in shape, axes, unit or offset.
    """
    return stacked("calibrate.combine", frames, method, sigma)


def stacked(step: str, frames: Sequence[Frame], method: str, sigma: float) -> Frame:
    """`combine` under the name of the step that asks for it."""
    _check_stack(step, frames, method, sigma)
    first, n = frames[0], len(frames)
    rows = max(1, BLOCK // max(1, n * int(np.prod(first.shape)) // first.shape[-2]))
    blocks = [
        _stack_rows([f.crop(Box((y, 0), (min(y + rows, first.shape[-2]), first.shape[-1]))) for f in frames], method, sigma)
        for y in range(0, first.shape[-2], rows)
    ]
    data, std, count, bad = (_joined([getattr(b, k) for b in blocks]) for k in ("data", "std", "used", "flags"))
    noise: Noise | Unmodelled = next((f.noise for f in frames if isinstance(f.noise, Unmodelled)), first.noise)
    if isinstance(noise, Noise):
        parts = [b.noise for b in blocks]
        alike = _alike(frames)
        noise = _thinned(noise, count, n, method, first.shape) if alike else _rebuilt(noise, parts)
        std = None
    flags = None if bad is None or not bad.any() else bad
    about = replace(first.observation, exposure=_exposure(frames))
    params = {"method": method, "sigma": sigma, "frames": n}
    return first.then(step, params, data=data, noise=noise, std=std, flags=flags, observation=about)


def _exposure(frames: Sequence[Frame]) -> float | None:
    """The exposure [s] that a mean of frames stands for: the mean of theirs; unknown where one of them is."""
    times = [f.observation.exposure for f in frames]
    known = [t for t in times if t is not None]
    if len(known) < len(times):
        return None
    return times[0] if len(set(known)) == 1 else float(np.mean(known))


def _check_stack(step: str, frames: Sequence[Frame], method: str, sigma: float) -> None:
    if isinstance(frames, Frame) or not frames:
        raise FrameError(f"{step}: got {'one frame' if isinstance(frames, Frame) else 'no frames'}, expected a list of frames")
    if method not in {"mean", "median", "clip"} or not sigma > 0:
        raise FrameError(f"{step}: method {method!r} with sigma {sigma}, expected mean, median or clip and a positive sigma")
    first = frames[0]
    for f in frames[1:]:
        if (f.shape, f.axes, f.unit) != (first.shape, first.axes, first.unit):
            raise FrameError(
                f"{step}: frames differ: {f.axes} {f.shape} in {f.unit}, and {first.axes} {first.shape} in {first.unit}"
            )
        both = isinstance(f.noise, Noise) and isinstance(first.noise, Noise)
        if both and not _same(f.noise.offset, first.noise.offset):  # type: ignore[union-attr]
            raise FrameError(f"{step}: frames differ in their offset; calibrate.subtract_offset or subtract_bias first")


class _Rows(NamedTuple):
    data: Array
    std: Array | None
    used: Array
    flags: Array | None
    noise: tuple[Array, ...] | None


def _stack_rows(parts: Sequence[Frame], method: str, sigma: float) -> _Rows:
    """One block of rows; samples stand along the last axis, where sorting and summing are fast."""
    x = np.stack([floated(p) for p in parts], axis=-1)
    good, flags = _usable(parts, x)
    x = np.where(np.isfinite(x), x, 0)
    unknown = any(isinstance(p.noise, Unmodelled) for p in parts)
    used = good
    if method == "clip":
        used = _clipped(x, good, None if unknown else parts[0].noise, sigma)  # type: ignore[arg-type]
    count = used.sum(axis=-1)
    data = _median(x, used) if method == "median" else np.where(used, x, 0).sum(axis=-1, dtype=np.float64) / count
    factor = factors(len(parts), method)[count]
    std = _scatter(x, used, count, data, factor) if unknown else None
    noise = None if unknown or _alike(parts) else _mixed(parts, used, count, factor)
    return _Rows(data.astype(x.dtype), std, count, flags, noise)


def _usable(parts: Sequence[Frame], x: Array) -> tuple[Array, Array | None]:
    """(samples that count, flags where none does); where none does, all count, so that the value stays finite."""
    good = np.isfinite(x)
    lost = ~good.any(axis=-1)
    bits = np.where(lost, np.uint8(Flag.NO_DATA), np.uint8(0))
    for i, p in enumerate(parts):
        if p.flags is not None:
            good[..., i] &= np.asarray(p.flags) == 0
            bits = np.bitwise_or(bits, p.flags)
    none = ~np.asarray(good.any(axis=-1))
    return (good | none[..., None], np.where(none, bits, 0)) if none.any() else (good, None)


def _median(x: Array, used: Array) -> Array:
    order = np.sort(np.where(used, x, np.inf), axis=-1)
    count = used.sum(axis=-1)[..., None]
    low = np.take_along_axis(order, (count - 1) // 2, axis=-1)
    return np.asarray((low + np.take_along_axis(order, count // 2, axis=-1))[..., 0] / 2)


def _clipped(x: Array, good: Array, noise: Noise | None, sigma: float) -> Array:
    centre = _median(x, good)
    away = np.abs(x - centre[..., None])
    scatter = 1.4826 * _median(away, good)
    if noise is None:
        scale = np.maximum(scatter, np.median(scatter))  # the scatter of a few samples may vanish by chance
    else:
        law = np.sqrt(noise.variance(centre))
        scale = np.maximum(law, scatter) if x.shape[-1] >= 5 else law
    kept = good & (away <= sigma * scale[..., None])
    return np.where(kept.any(axis=-1)[..., None], kept, good)


def _scatter(x: Array, used: Array, count: Array, data: Array, factor: Array) -> Array | None:
    if x.shape[-1] < 2:
        return None
    var = (np.where(used, x - data[..., None], 0) ** 2).sum(axis=-1) / np.maximum(count - 1, 1)
    var = np.where(count > 1, var, np.median(var[count > 1]) if (count > 1).any() else np.inf)
    return np.asarray(np.sqrt(var * factor), dtype=x.dtype)


def _same(p: Any, q: Any) -> bool:
    return p is q or (np.shape(p) == np.shape(q) and bool(np.array_equal(p, q)))


def _alike(frames: Sequence[Frame]) -> bool:
    """True where one noise model holds for all frames and their masters' noise is common to all, or absent."""
    noises = [f.noise for f in frames]
    if not all(isinstance(n, Noise) and all(_same(getattr(n, k), getattr(noises[0], k)) for k in NAMES) for n in noises):
        return False
    masters = any(np.any(getattr(noises[0], k)) for k in "cd")
    return not masters or len({_shift(f) for f in frames}) == 1


def _shift(frame: Frame) -> tuple[int, int]:
    """The whole-pixel shift that `register` gave the frame: equal shifts see the same pixels of a master."""
    moves = [(int(r.params["dy"]), int(r.params["dx"])) for r in frame.history if r.step == "calibrate.register"]
    return sum(m[0] for m in moves), sum(m[1] for m in moves)


def _mixed(parts: Sequence[Frame], used: Array, count: Array, factor: Array) -> tuple[Array, ...]:
    """(a, b, c, d) of the mean of frames with different noise; c and d add up coherently within one shift only."""
    out = [np.zeros(count.shape) for _ in NAMES]
    groups: dict[tuple[int, int], list[int]] = {}
    for i, p in enumerate(parts):
        groups.setdefault(_shift(p), []).append(i)
        for k, name in enumerate("ab"):
            out[k] += used[..., i] * spread(getattr(p.noise, name), count.shape) * factor / count
    for members in groups.values():
        for k, name in enumerate("cd", start=2):
            shared = sum(used[..., i] * np.sqrt(spread(getattr(parts[i].noise, name), count.shape)) for i in members)
            out[k] += (shared / count) ** 2
    return tuple(out)


def _thinned(noise: Noise, count: Array, n: int, method: str, shape: tuple[int, ...]) -> Noise:
    """The noise of the mean, its a and b divided by the count: one number where every pixel has all n frames."""
    factor = factors(n, method)
    share: Any = float(factor[n]) if np.all(count == n) else factor[count]
    a, b = ((p if isinstance(share, float) else spread(p, shape)) * share for p in (noise.a, noise.b))
    return Noise(a, b, noise.offset, noise.c, noise.d)


def _rebuilt(noise: Noise, parts: Sequence[tuple[Array, ...] | None]) -> Noise:
    maps = [_joined([p[i] for p in parts if p is not None]).astype(np.float32) for i in range(len(NAMES))]
    a, b, c, d = (m if m.any() else 0.0 for m in maps)
    return Noise(a, b, noise.offset, c, d)


def _joined(blocks: Sequence[Any]) -> Any:
    if all(b is None for b in blocks):
        return None
    return np.concatenate(blocks, axis=-2)


def factors(n: int, method: str) -> Array:
    """var(mean or median of k) / var(one) for k = 0..n; 0 counts as 1."""
    if method == "median":
        return np.array([1.0] + [_median_factor(k) for k in range(1, n + 1)])
    return 1 / np.maximum(np.arange(n + 1), 1.0)


@lru_cache(maxsize=512)
def _median_factor(n: int) -> float:
    """Variance of the median of n standard normal samples, from its order statistics; pi/(2n) for large n."""
    if n > 100:  # David & Nagaraja, Order Statistics: next order of the expansion
        return float(np.pi / (2 * (n + np.pi / 2 - 1)))
    half = min(6.0, 10 / np.sqrt(n))
    t, step = np.linspace(-half, half, 601, retstep=True)
    pdf, cdf = np.exp(-t * t / 2) / np.sqrt(2 * np.pi), ndtr(t)
    m = (n - 1) // 2
    if n % 2:
        weight = np.exp(gammaln(n + 1) - 2 * gammaln(m + 1)) * (cdf * (1 - cdf)) ** m * pdf
        return float((t * t * weight).sum() * step)
    # joint density of the two middle ones, u < v; on the diagonal half a cell counts
    low, high = cdf**m * pdf, (1 - cdf) ** m * pdf
    both = np.triu(np.outer(low, high)) * (1 - 0.5 * np.eye(t.size))
    weight = np.exp(gammaln(n + 1) - 2 * gammaln(m + 1)) * both
    return float((((t[:, None] + t[None, :]) / 2) ** 2 * weight).sum() * step * step)
