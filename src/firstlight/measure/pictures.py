"""Pictures of frames, for people: one plane, stretched so that faint and bright are both seen."""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.noise import Noise, spread

__all__ = ["Stretch", "data_uri", "detail_box", "picture", "residual_picture", "stretch_of"]

Array = NDArray[Any]
LARGEST = 2048  # px a side read for a picture; larger frames are read with a stride
PULL = 4.0  # standard deviations at the ends of the residual's colours


class Stretch(NamedTuple):
    """From signal to grey: low -> 0, high -> 1 [unit], then asinh(soft t)/asinh(soft), or sRGB encoding, or a straight line."""

    low: float
    high: float
    soft: float = 0.0
    srgb: bool = False

    def apply(self, x: Array) -> Array:
        """Grey values in [0, 1] of `x` [unit]; NaN is black."""
        t = np.clip((np.nan_to_num(x, nan=self.low) - self.low) / (self.high - self.low), 0, 1)
        if self.srgb:
            return np.where(t <= 0.0031308, 12.92 * t, 1.055 * t ** (1 / 2.4) - 0.055)
        return np.asarray(np.arcsinh(self.soft * t) / np.arcsinh(self.soft)) if self.soft > 0 else t

    @property
    def words(self) -> str:
        """What was done, for a caption."""
        kind = "sRGB curve" if self.srgb else "asinh" if self.soft else "linear"
        return f"{kind}, {self.low:.4g} to {self.high:.4g}"


def picture(frame: Frame, *, stretch: Stretch | None = None, size: int = 900) -> NDArray[np.uint8]:
    """A preview, uint8 (Y, X) or (Y, X, 3) RGB, at most `size` px a side: the middle plane; channels and CFA in colour."""
    import cv2

    light = _light(frame)
    shade = (stretch or stretch_of(frame)).apply(light)
    shrink = size / max(shade.shape[:2])
    if shrink < 1:
        y, x = (max(1, round(n * shrink)) for n in shade.shape[:2])
        shade = cv2.resize(shade, (x, y), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(shade * 255), dtype=np.uint8)


def stretch_of(frame: Frame, noisy: Frame | None = None) -> Stretch:
    """A stretch from the frame's percentiles: sRGB for camera data, asinh where most pixels are faint, else linear.

    Black is low enough for the noise of `noisy` to be seen. The asinh puts the median at a fifth of white.
    """
    values = _finite(frame)
    low, middle, high = (float(v) for v in np.percentile(values, (0.5, 50, 99.7)))
    if noisy is not None:
        low = min(low, float(np.percentile(_finite(noisy), 4)))
    if isinstance(frame.geometry, Mosaic) or frame.unit in (Unit.CAMERA, Unit.REC2020):
        return Stretch(min(0.0, low) if low < 0.05 * high else low, max(high, low + 1e-12), srgb=True)
    if high <= low:
        return Stretch(low, low + (abs(low) or 1.0))
    if frame.unit == Unit.DISPLAY or middle - low > 0.15 * (high - low):
        return Stretch(low, high)
    top = float(np.percentile(values, 99.9))
    return Stretch(low, top, soft=_softening((middle - low) / (top - low), 0.2))


def _finite(frame: Frame) -> Array:
    light = _light(frame)
    values = light[np.isfinite(light)]
    return values if values.size else np.zeros(1)


def _softening(t: float, wanted: float) -> float:
    """The s with asinh(s t)/asinh(s) = wanted, by bisection on log s; 1e4 at most."""
    low, high = np.log(1e-2), np.log(1e4)
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if np.arcsinh(np.exp(middle) * t) < wanted * np.arcsinh(np.exp(middle)) else (low, middle)
    return float(np.exp(low))


def detail_box(frame: Frame, size: int = 128, stretch: Stretch | None = None) -> Box:
    """The (Y, X) box of at most `size` px where the stretched picture has most structure, in whole mosaic periods."""
    import cv2

    light, cell, step = _light(frame), _cell(frame), _stride(frame)
    shade = (stretch or stretch_of(frame)).apply(light)
    grey = cv2.GaussianBlur(shade.mean(axis=2) if shade.ndim == 3 else shade, (0, 0), 1.0)
    small = max(8, size // (cell * step))
    energy = np.hypot(*np.gradient(grey)) if min(grey.shape) > 1 else grey
    score = cv2.boxFilter(energy, -1, (small, small), borderType=cv2.BORDER_CONSTANT)
    y, x = (int(k) for k in np.unravel_index(int(np.argmax(score)), score.shape))
    out = []
    for middle, n, period in zip((y, x), frame.shape[-2:], frame.period(), strict=True):
        length = min(size, n)
        start = min(max(middle * cell * step - length // 2, 0), n - length)
        out.append((start // period * period, length))
    return Box(tuple(s for s, _ in out), tuple(s + k for s, k in out))


def residual_picture(frame: Frame, restored: Frame, *, block: int = 1) -> NDArray[np.uint8]:
    """(y - x_hat)/sqrt(v) of the middle plane, uint8 RGB: blue -4 sigma, dark 0, orange +4; without a model scaled by its MAD.

    `block` px squares are summed and divided by `block`: white noise keeps its spread of 1, structure stands out.
    """
    box = _middle(frame)
    rows, cols = (n // block for n in frame.shape[-2:])
    high = max(1, (1 << 22) // max(1, frame.shape[-1] * block)) * block  # rows read at a time
    scale = 1.0 if isinstance(frame.noise, Noise) else _own_scale(frame, restored)
    strips = []
    for start in range(0, rows * block, high):
        stop = min(start + high, rows * block)
        strip = Box((*box.start[:-2], start, 0), (*box.stop[:-2], stop, cols * block))
        pull = np.nan_to_num(_pull(frame.crop(strip), restored.crop(strip)) / scale)
        strips.append(pull.reshape((stop - start) // block, block, cols, block).sum(axis=(1, 3)) / block)
    return _diverging(np.concatenate(strips) / PULL)


def _pull(frame: Frame, restored: Frame) -> Array:
    y, x = _plane(frame, 1), _plane(restored, 1)
    if not isinstance(frame.noise, Noise):
        return np.asarray(y - x)
    v = frame.noise.variance(np.nan_to_num(x).reshape(frame.shape)).reshape(x.shape)
    return np.asarray((y - x) / np.sqrt(np.where(v > 0, v, np.nan)))


def _own_scale(frame: Frame, restored: Frame) -> float:
    step = _stride(frame)
    taken = _plane(frame, step) - _plane(restored, step)
    if not np.isfinite(taken).any():
        return 1.0
    return 1.4826 * float(np.nanmedian(np.abs(taken - np.nanmedian(taken)))) or 1.0


def _diverging(t: Array) -> NDArray[np.uint8]:
    t = np.clip(t, -1, 1)[..., None]
    cold, middle, warm = (np.array(c, dtype=np.float64) for c in ((92, 170, 255), (24, 26, 31), (255, 138, 60)))
    return np.asarray(np.rint(middle + np.abs(t) * (np.where(t > 0, warm, cold) - middle)), dtype=np.uint8)


def data_uri(image: NDArray[np.uint8], *, lossless: bool = True) -> str:
    """A data URI of a uint8 (Y, X) or (Y, X, 3) RGB image: PNG, or WebP of quality 90, which noise needs to stay small."""
    import base64

    import cv2

    kind, options = ("png", [cv2.IMWRITE_PNG_COMPRESSION, 9]) if lossless else ("webp", [cv2.IMWRITE_WEBP_QUALITY, 90])
    _, buffer = cv2.imencode(f".{kind}", image[..., ::-1] if image.ndim == 3 else image, options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.tobytes()).decode()}"


def _middle(frame: Frame) -> Box:
    """The middle (Y, X) plane as a box of all axes."""
    at = tuple(n // 2 for n in frame.shape[:-2])
    return Box((*at, 0, 0), (*(i + 1 for i in at), *frame.shape[-2:]))


def _stride(frame: Frame) -> int:
    return max(1, ceil(max(frame.shape[-2:]) / LARGEST))


def _plane(frame: Frame, step: int, channel: int | None = None) -> Array:
    at = [n // 2 for n in frame.shape[:-2]]
    if channel is not None:
        at[frame.axes.index("C")] = channel
    window: tuple[Any, ...] = (*at, slice(None, None, step), slice(None, None, step))
    plane = np.asarray(frame.data[window], dtype=np.float64)
    if frame.flags is None:
        return plane
    flags: Array = np.broadcast_to(np.asarray(frame.flags), frame.shape)
    return np.where(flags[window] & Flag.NO_DATA, np.nan, plane)


def _cell(frame: Frame) -> int:
    """Side [px] of the least square that holds every colour wherever it lies on its own grid: 2 for Bayer, 3 for X-Trans."""
    if not isinstance(frame.geometry, Mosaic):
        return 1
    period = frame.geometry.period
    full = frame.geometry.at((period[0] * 6, period[1] * 6))
    wanted = len(np.unique(full))
    for n in range(1, max(period) + 1):
        blocks = full[: full.shape[0] // n * n, : full.shape[1] // n * n].reshape(full.shape[0] // n, n, -1, n).swapaxes(1, 2)
        if all(len(np.unique(b)) == wanted for row in blocks for b in row):
            return n
    return max(period)


def _light(frame: Frame) -> Array:
    """The middle plane (Y, X), or (Y, X, 3) where there are two or three channels or a mosaic, NaN where there is no data."""
    step = _stride(frame)
    if isinstance(frame.geometry, Mosaic):
        return _superpixels(frame)
    channels = frame.shape[frame.axes.index("C")] if "C" in frame.axes else 1
    if channels not in (2, 3):
        return _plane(frame, step)
    planes = [_plane(frame, step, c) for c in range(channels)]
    if frame.unit in (Unit.CAMERA, Unit.REC2020, Unit.DISPLAY):
        return np.stack([*planes, np.zeros_like(planes[0])][:3], axis=-1)
    # channels of a microscope have nothing to do with each other's brightness: give all the first one's range
    ends = [np.nanpercentile(p, (0.5, 99.7)) if np.isfinite(p).any() else np.array([0.0, 1.0]) for p in planes]
    widths = [max(float(e[1] - e[0]), 1e-12) for e in ends]
    planes = [ends[0][0] + (p - e[0]) * (widths[0] / w) for p, e, w in zip(planes, ends, widths, strict=True)]
    return np.stack([*planes, np.full_like(planes[0], ends[0][0])][:3], axis=-1)


def _superpixels(frame: Frame) -> Array:
    assert isinstance(frame.geometry, Mosaic)
    plane, n = _plane(frame, 1), _cell(frame)
    plane = plane - _black(frame, plane)
    rows, cols = plane.shape[0] // n, plane.shape[1] // n
    color = frame.geometry.at((plane.shape[0], plane.shape[1]))

    def fold(a: Array) -> Array:
        return np.asarray(a[: rows * n, : cols * n].reshape(rows, n, cols, n).sum(axis=(1, 3)))

    known = np.isfinite(plane)
    letters = [frame.geometry.colors.find(k) for k in "RGB"]
    planes = []
    for index in letters if min(letters) >= 0 else (0, 0, 0):
        here = (color == index) & known
        count = fold(here)
        planes.append(np.where(count > 0, fold(np.where(here, plane, 0)) / np.maximum(count, 1), np.nan))
    gains = _white(frame, planes)
    step = _stride(frame)
    return np.stack([p * g for p, g in zip(planes, gains, strict=True)], axis=-1)[::step, ::step]


def _black(frame: Frame, plane: Array) -> Any:
    """Black level [unit]: the noise model's, else of raw counts their darkest pixels'."""
    if isinstance(frame.noise, Noise) and np.ndim(frame.noise.offset) in (0, 2):
        return spread(frame.noise.offset, plane.shape)
    return float(np.nanpercentile(plane, 0.1)) if frame.unit == Unit.ADU and np.isfinite(plane).any() else 0.0


def _white(frame: Frame, planes: list[Array]) -> list[float]:
    """White balance of the file, else grey world; green is 1."""
    given = frame.observation.white_balance
    if given is not None and len(given) >= 3 and given[1] > 0:
        return [given[0] / given[1], 1.0, given[2] / given[1]]
    means = [float(np.nanmean(p)) if np.isfinite(p).any() else 1.0 for p in planes]
    return [float(np.clip(means[1] / m, 0.2, 5)) if m > 0 and means[1] > 0 else 1.0 for m in means]
