"""How close an image is to another: PSNR, SSIM, MSE, MAE; and what it may be compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight import io, outputs
from firstlight import measure as mea
from firstlight.errors import ReadError
from firstlight.evaluation.images import Given, Parent
from firstlight.frame import Frame, Unit
from firstlight.measure.fidelity import WINDOW
from firstlight.measure.sample import same_pixels
from firstlight.noise import Unmodelled

__all__ = ["METRICS", "peak_of", "quality", "reference", "similarity", "truth_of"]

Array = NDArray[Any]
METRICS = ("psnr", "ssim", "mse", "mae")
SMALLEST = 7  # px a side below which there is no SSIM


def quality(x: Array, truth: Array, *, peak: float) -> dict[str, float]:
    """psnr [dB], ssim, mse [unit^2] and mae [unit] of (..., Y, X) images over `peak` [unit]; pixels not finite are left out."""
    good = np.isfinite(x) & np.isfinite(truth)
    if not good.any():
        return dict.fromkeys(METRICS, float("nan"))
    error = np.asarray(x, dtype=np.float64)[good] - np.asarray(truth, dtype=np.float64)[good]
    mse = float(np.mean(error**2))
    decibel = float(10 * np.log10(peak**2 / mse)) if mse > 0 else float("inf")
    return {"psnr": decibel, "ssim": similarity(x, truth, peak=peak), "mse": mse, "mae": float(np.mean(np.abs(error)))}


def similarity(x: Array, truth: Array, *, peak: float) -> float:
    """SSIM, averaged over the (Y, X) planes: window as `measure.ssim`, below 11 px a side a square of 7 px, below 7 px NaN."""
    from skimage.metrics import structural_similarity

    side = min(x.shape[-2:])
    if side < SMALLEST:
        return float("nan")
    planes = [np.asarray(a, dtype=np.float64).reshape(-1, *a.shape[-2:]) for a in (x, truth)]
    found = []
    for a, b in zip(*planes, strict=True):
        good = np.isfinite(a) & np.isfinite(b)
        if side >= WINDOW:
            found.append(mea.ssim(np.where(good, a, 0), np.where(good, b, 0), peak=peak, good=good))
        else:
            small = (np.where(good, v, 0) for v in (a, b))
            found.append(float(structural_similarity(*small, data_range=peak, win_size=SMALLEST)))
    return float(np.mean(found))


def truth_of(parent: Parent, truth: Path | None) -> Path | None:
    """The clean image of a parent: the file itself, or the one of a folder with the same name but for its extension.

    Raises ReadError where a folder holds none or several.
    """
    if truth is None or truth.is_file():
        return truth
    names = {parent.id, outputs.stem(parent.path)}
    found = (
        [p for p in sorted(truth.iterdir()) if outputs.stem(p) in names and io.kind(p) in io.FORMATS] if truth.is_dir() else []
    )
    if len(found) != 1:
        raise ReadError(
            f"{truth}: {len(found)} images named {' or '.join(sorted(names))}, expected one; give a file or a folder"
        )
    return found[0]


def reference(frame: Frame, clean: Path | None, given: Given) -> tuple[Array | None, str, float, Callable[[Array], Array]]:
    """What images are compared with, what that is, its peak, and how an image is brought to the same numbers.

    A clean image where there is one, with profile documented the noisy input in 0..1, else nothing. Raises FrameError where
    the clean image has other pixels or another unit.
    """
    noisy = np.asarray(frame.data, dtype=np.float64)
    if clean is not None:
        truth = io.read(clean)
        same_pixels("evaluate", frame, truth=truth)
        data = np.asarray(truth.data, dtype=np.float64)
        return data, clean.name, peak_of(frame, data), lambda x: x
    if given.profile != "documented":
        return None, "none", 1.0, lambda x: x
    low, high = np.nanpercentile(noisy, (1.0, 99.5))

    def scaled(x: Array) -> Array:
        return np.asarray(np.clip((x - low) / max(high - low, 1e-12), 0, 1))

    return scaled(noisy), "noisy input", 1.0, scaled


def peak_of(frame: Frame, truth: Array) -> float:
    """White of a picture's codes, else the truth's largest value above the offset [unit]."""
    dtype = np.dtype(frame.data.dtype)
    if frame.unit is Unit.DISPLAY:
        return float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0
    offset = 0.0 if isinstance(frame.noise, Unmodelled) else float(np.min(np.asarray(frame.noise.offset)))
    return float(np.nanmax(truth)) - offset
