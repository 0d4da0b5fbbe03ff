"""How close an image is to the truth, always beside what doing nothing and a 3 x 3 median would give."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.geometry import Mosaic
from firstlight.measure.sample import LIMIT, Block, blocks, same_pixels
from firstlight.noise import Noise

__all__ = ["affine_fit", "fidelity", "median3", "psnr", "ssim"]

Array = NDArray[Any]
WINDOW = 11  # px: SSIM's Gaussian of sigma 1.5, cut at 3.5 sigma (Wang et al. 2004)


def _same(what: str, x: ArrayLike, truth: ArrayLike, peak: float) -> tuple[Array, Array]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if a.shape != b.shape or a.size == 0:
        raise FrameError(f"{what}: image of shape {a.shape}, truth of shape {b.shape}; expected the same pixels, at least one")
    if not peak > 0:
        raise FrameError(f"{what}: peak {peak}, expected a positive signal in the unit of the data")
    return a, b


def psnr(x: ArrayLike, truth: ArrayLike, *, peak: float) -> float:
    """Peak signal-to-noise ratio [dB], 10 log10(peak^2 / mean((x - truth)^2)); infinite for equal arrays of any shape."""
    a, b = _same("psnr", x, truth, peak)
    return _decibel(float(np.mean((a - b) ** 2)), peak)


def _decibel(mse: float, peak: float) -> float:
    return float(10 * np.log10(peak * peak / mse)) if mse > 0 else float("inf")


def ssim(x: ArrayLike, truth: ArrayLike, *, peak: float, good: NDArray[np.bool_] | None = None) -> float:
    """Structural similarity of two (Y, X) images over the range `peak`: Gaussian window of 1.5 px, Wang et al. 2004.

    Pixels that are not `good` take the truth's value and are left out of the mean. Raises FrameError under 11 px a side.
    """
    total, n = _ssim_sum(*_same("ssim", x, truth, peak), peak, good)
    return total / n if n else float("nan")


def _ssim_sum(x: Array, truth: Array, peak: float, good: Array | None) -> tuple[float, int]:
    from skimage.metrics import structural_similarity

    if x.ndim != 2 or min(x.shape) < WINDOW:
        raise FrameError(f"ssim: image of shape {x.shape}, expected two axes of at least {WINDOW} px")
    use = np.ones(x.shape, bool) if good is None else good
    truth = np.where(use, truth, 0) if good is not None else truth
    x = np.where(use, x, truth)
    _, image = structural_similarity(
        x, truth, data_range=peak, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    r = WINDOW // 2
    inner = np.s_[r:-r, r:-r]
    return float(image[inner][use[inner]].sum()), int(np.count_nonzero(use[inner]))


def affine_fit(x: ArrayLike, target: ArrayLike) -> tuple[float, float, Array]:
    """Least squares (scale, offset, scale x + offset) of `x` on `target`, for images that were each stretched on their own.

    Raises FrameError where the shapes differ or x is constant.
    """
    a, b = _same("affine fit", x, target, 1.0)
    good = np.isfinite(a) & np.isfinite(b)
    u, v = a[good], b[good]
    spread = float(u.var()) if u.size else 0.0
    if not spread > 0:
        raise FrameError("affine fit: the image is constant, expected structure to fit the scale on")
    scale = float(((u - u.mean()) * (v - v.mean())).mean() / spread)
    offset = float(v.mean() - scale * u.mean())
    return scale, offset, scale * a + offset


def median3(frame: Frame) -> Array:
    """The 3 x 3 median of a frame's planes, float64 [unit], edges repeated; on a mosaic the median within each colour.

    Bayer: 3 x 3 of each cell position (5 x 5 px); other patterns: pixels of the same colour within 5 x 5 px.
    """
    data = np.asarray(frame.data, dtype=np.float64)
    planes = data.reshape(-1, *data.shape[-2:])
    out = [_median_plane(p, np.isfinite(p), frame.geometry) for p in planes]
    return np.stack(out).reshape(data.shape)


def _median_plane(plane: Array, good: Array, geometry: Any) -> Array:
    import cv2

    if not good.any():
        return plane
    middle = float(np.median(plane[good]))
    filled = np.where(good, plane - middle, 0).astype(np.float32)
    if not isinstance(geometry, Mosaic):
        return np.asarray(cv2.medianBlur(filled, 3), dtype=np.float64) + middle
    if geometry.period == (2, 2):
        out = np.empty(plane.shape)
        for i in range(2):
            for j in range(2):
                out[i::2, j::2] = cv2.medianBlur(np.ascontiguousarray(filled[i::2, j::2]), 3)
        return out + middle
    return _median_of_color(filled, geometry.at((plane.shape[0], plane.shape[1]))) + middle


def _median_of_color(plane: Array, color: Array) -> Array:
    import warnings

    out = np.empty(plane.shape)
    rows = 64  # 25 shifted copies of a strip at a time
    padded = np.pad(plane, 2, mode="edge")
    colors = np.pad(color, 2, constant_values=-1)
    for y in range(0, plane.shape[0], rows):
        h = min(rows, plane.shape[0] - y)
        shifts = [np.s_[y + i : y + i + h, j : j + plane.shape[1]] for i in range(5) for j in range(5)]
        near = np.stack([np.where(colors[s] == color[y : y + h], padded[s], np.nan) for s in shifts])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            out[y : y + h] = np.nanmedian(near, axis=0)
    return out


class _Sums:
    """Squared errors and SSIM gathered over blocks."""

    def __init__(self, peak: float) -> None:
        self.peak, self.squares, self.n, self.similar, self.windows = peak, 0.0, 0, 0.0, 0

    def add(self, x: Array, truth: Array, good: Array, period: tuple[int, int]) -> None:
        error = (x - truth)[good]
        self.squares += float(error @ error)
        self.n += error.size
        for i in range(period[0]):
            for j in range(period[1]):
                s = np.s_[i :: period[0], j :: period[1]]
                if min(x[s].shape) >= WINDOW:
                    total, n = _ssim_sum(x[s], truth[s], self.peak, good[s])
                    self.similar, self.windows = self.similar + total, self.windows + n

    def row(self) -> dict[str, float | None]:
        value = _decibel(self.squares / max(self.n, 1), self.peak)
        return {
            "psnr": value if np.isfinite(value) else None,
            "ssim": self.similar / self.windows if self.windows else None,
        }


def fidelity(
    frame: Frame, restored: Frame, truth: Frame, *, peak: float | None = None, edge: int = 0, pixels: int = LIMIT
) -> dict[str, Any]:
    """PSNR [dB] and SSIM against `truth` of the restored frame, of the noisy frame unchanged, and of its 3 x 3 median.

    Returns {"peak", "peak_source", "restored", "unchanged", "median3"}, each row {"psnr", "ssim"} (None: infinite, or an
    image too small). `peak` [unit] is the same for both figures: by default the truth's largest unflagged value above its
    offset. Flagged pixels count in neither. On a mosaic SSIM is the mean over cell positions. Raises FrameError where
    shapes or units differ.
    """
    same_pixels("fidelity", frame, restored=restored, truth=truth)
    triples = list(zip(*(blocks(f, pixels, edge) for f in (frame, restored, truth)), strict=True))
    source = "given"
    if peak is None:
        peak, source = _peak(truth, [t[2] for t in triples]), "largest value of the truth above its offset"
    if not peak > 0:
        raise FrameError(f"fidelity: peak {peak:g} {frame.unit}, expected a positive signal; give the peak")
    rows = {name: _Sums(peak) for name in ("restored", "unchanged", "median3")}
    for noisy, clean, true in triples:
        good = noisy.good & clean.good & true.good
        smooth = _median_plane(noisy.data, noisy.good, noisy.frame.geometry)
        for name, x in (("restored", clean.data), ("unchanged", noisy.data), ("median3", smooth)):
            rows[name].add(x, true.data, good, frame.period())
    if not rows["restored"].n:
        raise FrameError("fidelity: no pixel is unflagged and finite in the noisy frame, the restored frame and the truth")
    return {"peak": peak, "peak_source": source, **{name: sums.row() for name, sums in rows.items()}}


def _peak(truth: Frame, parts: list[Block]) -> float:

    top = max((float(b.data[b.good].max()) for b in parts if b.good.any()), default=0.0)
    offset = float(np.min(truth.noise.offset)) if isinstance(truth.noise, Noise) else 0.0
    return top - offset
