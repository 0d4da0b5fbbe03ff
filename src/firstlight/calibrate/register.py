"""Whole-frame shifts: measured to a fraction of a pixel, applied by whole pixels.

Why by whole pixels: interpolation averages neighbours, so a sub-pixel shift correlates the noise and no independent-pixel
model holds any more. A whole-pixel shift moves every pixel with its noise, std and flags, untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.calibrate.detector import floated, mark
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.noise import Noise

__all__ = ["Shift", "measure_shift", "register", "shift_between"]

Array = NDArray[Any]


class Shift(NamedTuple):
    """What to add to a frame's pixel coordinates [px] to reach the reference, and the peak's height in standard deviations."""

    dy: float
    dx: float
    confidence: float


class _Prepared(NamedTuple):
    shape: tuple[int, ...]
    period: tuple[int, int]
    padded: tuple[int, int]
    spectrum: Array


def shift_between(reference: Frame, frame: Frame, *, upsample: int = 20) -> tuple[float, float]:
    """(dy, dx) [px, 1/upsample] that moves `frame` onto `reference`; see `measure_shift` for method and confidence."""
    dy, dx, _ = measure_shift(reference, frame, upsample=upsample)
    return dy, dx


def measure_shift(reference: Frame, frame: Frame, *, upsample: int = 20) -> Shift:
    """The shift between two frames of one scene by cross-correlation, with its confidence.

    Flagged and non-finite pixels are filled from their neighbours and a 3x3 median takes out single hot pixels, which stand
    still while the scene drifts. Leading axes are averaged, a mosaic is binned by its period. Zero-padded, so that shifts do
    not wrap; refined to 1/upsample px by a matrix Fourier transform (Guizar-Sicairos, Thurman & Fienup 2008). Confidence:
    the peak over the standard deviation of the correlation far from it; two frames of pure noise stay below about 6.
    Raises FrameError for frames of different shape, or without structure.
    """
    return _shift(_prepare(reference), _prepare(frame), upsample)


def register(frames: Sequence[Frame], *, reference: int = 0, least: float = 8.0) -> list[Frame]:
    """The frames moved onto frame number `reference` by whole pixels (whole periods of a mosaic); border flagged NO_DATA.

    Pixels that come from outside repeat the border's value. Noise, std, flags and geometry move along; history keeps the
    shift, so that `combine` knows which frames still share a master's pixel. Raises FrameError where a shift's confidence
    is below `least`.
    """
    if not frames or not -len(frames) <= reference < len(frames):
        raise FrameError(f"calibrate.register: {len(frames)} frames and reference {reference}; give frames and one of theirs")
    base = _prepare(frames[reference])
    out = []
    for i, frame in enumerate(frames):
        found = Shift(0.0, 0.0, np.inf) if i == reference % len(frames) else _shift(base, _prepare(frame), 20)
        if found.confidence < least:
            raise FrameError(
                f"calibrate.register: frame {i} matches the reference with confidence {found.confidence:.1f}, "
                f"expected {least:g}; flag fixed hot pixels first (flag_hot_pixels), leave the frame out, or lower least="
            )
        out.append(_moved(frame, found))
    return out


def _prepare(frame: Frame) -> _Prepared:
    """Spectrum of the frame's structure: background removed, tapered at the border, zero-padded to 1.5 times its size."""
    from scipy.fft import next_fast_len, rfft2

    image = _plane(frame)
    rows, cols = frame.period()
    h, w = image.shape[0] // rows * rows, image.shape[1] // cols * cols
    image = image[:h, :w].reshape(h // rows, rows, w // cols, cols).mean(axis=(1, 3), dtype=np.float32)
    image = _structure(image)
    padded = tuple(int(next_fast_len(int(1.5 * n) + 16, real=True)) for n in image.shape)
    return _Prepared(frame.shape, (rows, cols), (padded[0], padded[1]), rfft2(image, padded, workers=1))


def _plane(frame: Frame) -> Array:
    data = floated(frame)
    bad = ~np.isfinite(data)
    if frame.flags is not None:
        bad |= np.asarray(frame.flags) != 0
    lead = tuple(range(data.ndim - 2))
    count = np.maximum((~bad).sum(axis=lead), 1)
    mean = np.where(bad, 0, data).sum(axis=lead) / count
    return np.asarray(np.where(bad.all(axis=lead), np.nan, mean), dtype=np.float32)


def _structure(image: Array) -> Array:
    from cv2 import medianBlur
    from scipy.ndimage import uniform_filter
    from scipy.signal.windows import tukey

    bad = np.isnan(image)
    middle = float(np.nanmedian(image)) if not bad.all() else 0.0
    if bad.any():
        near = uniform_filter(np.where(bad, 0, image), 5) / np.maximum(uniform_filter((~bad).astype(np.float32), 5), 0.02)
        image = np.where(bad, np.where(near == 0, middle, near), image)
    image = medianBlur(np.ascontiguousarray(image, dtype=np.float32), 3)
    image = image - uniform_filter(image, max(15, min(image.shape) // 8))
    top = float(np.quantile(image, 0.9995))
    if not np.ptp(image) > 0:
        raise FrameError("calibrate.register: the frame has no structure to register by: every pixel is alike or flagged")
    # one bright source must not decide alone
    image = np.minimum(image, top) if top > 0 else image
    return np.asarray(image * np.outer(tukey(image.shape[0], 0.1), tukey(image.shape[1], 0.1)), dtype=np.float32)


def _shift(reference: _Prepared, frame: _Prepared, upsample: int) -> Shift:
    from scipy.fft import irfft2

    if reference.shape[-2:] != frame.shape[-2:] or reference.period != frame.period:
        raise FrameError(f"calibrate.register: frames of shape {reference.shape} and {frame.shape}; give frames of one shape")
    product = reference.spectrum * np.conj(frame.spectrum)
    surface = irfft2(product, reference.padded, workers=1)
    peak = np.unravel_index(int(np.argmax(surface)), surface.shape)
    confidence = _confidence(surface, peak)
    coarse = np.array([p - n if p > n // 2 else p for p, n in zip(peak, surface.shape, strict=True)], dtype=float)
    fine = _refined(product, reference.padded, coarse, upsample)
    return Shift(float(fine[0] * frame.period[0]), float(fine[1] * frame.period[1]), confidence)


def _confidence(surface: Array, peak: tuple[Any, ...]) -> float:
    far = np.ones(surface.shape, dtype=bool)
    rows, cols = (np.arange(p - 8, p + 9) % n for p, n in zip(peak, surface.shape, strict=True))
    far[np.ix_(rows, cols)] = False
    return float((surface[peak] - surface[far].mean()) / surface[far].std())


def _refined(product: Array, padded: tuple[int, int], coarse: Array, upsample: int) -> Array:
    """The peak of the correlation on a grid of 1/upsample px within 1.5 px of `coarse`."""
    steps = np.arange(-int(1.5 * upsample), int(1.5 * upsample) + 1) / upsample
    from scipy.fft import fftfreq, rfftfreq

    fy, fx = fftfreq(padded[0]), rfftfreq(padded[1])
    weight = np.where((np.arange(fx.size) == 0) | (2 * fx == 1), 1.0, 2.0)  # the half spectrum stands for both halves
    ky = np.exp(2j * np.pi * np.outer(coarse[0] + steps, fy))
    kx = np.exp(2j * np.pi * np.outer(fx, coarse[1] + steps)) * weight[:, None]
    surface = (ky @ product @ kx).real
    y, x = np.unravel_index(int(np.argmax(surface)), surface.shape)
    return np.asarray([coarse[0] + steps[y], coarse[1] + steps[x]])


class _Move(NamedTuple):
    by: tuple[int, int]
    rows: Array
    cols: Array


def _moved(frame: Frame, shift: Shift) -> Frame:
    dy, dx = (round(s / p) * p for s, p in zip((shift.dy, shift.dx), frame.period(), strict=True))
    shape = frame.shape
    at_y, at_x = (np.arange(n) - d for n, d in zip(shape[-2:], (dy, dx), strict=True))
    outside = ((at_y < 0) | (at_y >= shape[-2]))[:, None] | ((at_x < 0) | (at_x >= shape[-1]))[None, :]
    move = _Move((dy, dx), np.clip(at_y, 0, shape[-2] - 1)[:, None], np.clip(at_x, 0, shape[-1] - 1)[None, :])
    flags = mark(_taken(frame.flags, shape, move), outside, Flag.NO_DATA, shape)
    noise = frame.noise
    if isinstance(noise, Noise):
        noise = Noise(*(_taken(getattr(noise, k), shape, move) for k in ("a", "b", "offset", "c", "d")))
    box = Box((0,) * (len(shape) - 2) + (-dy, -dx), (*shape[:-2], shape[-2] - dy, shape[-1] - dx))
    return frame.then(
        "calibrate.register",
        {"dy": dy, "dx": dx, "measured": [shift.dy, shift.dx], "confidence": shift.confidence},
        data=np.asarray(frame.data)[..., move.rows, move.cols],
        noise=noise,
        std=_taken(frame.std, shape, move),
        flags=flags,
        geometry=None if frame.geometry is None else frame.geometry.crop(frame.axes, box),
        observation=replace(
            frame.observation, **{k: _taken(getattr(frame.observation, k), shape, move) for k in ("offset", "saturation")}
        ),
    )


def _taken(part: Any, shape: tuple[int, ...], move: _Move) -> Any:
    """A map moved like the data; what is constant along Y and X stays as it is."""
    if part is None or np.ndim(part) < 2:
        return part
    if any(m not in (1, n) for m, n in zip(part.shape[-2:], shape[-2:], strict=True)):
        return np.roll(part, move.by, axis=(-2, -1))  # a CFA cell
    rows, cols = (at if n > 1 else np.zeros((1, 1), dtype=int) for at, n in zip(move[1:], part.shape[-2:], strict=True))
    return np.asarray(part)[..., rows, cols]
