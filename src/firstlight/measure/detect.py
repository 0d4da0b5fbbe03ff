"""Where the stars are: a matched filter that knows each pixel's noise, neighbours taken off, or a restored image searched."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.measure.sample import same_pixels
from firstlight.noise import Noise

__all__ = ["WAYS", "Found", "Plane", "detect", "gauss", "peaks", "plane", "star_width"]

Array = NDArray[Any]
SPREAD = 2.354820045  # FWHM of a Gaussian over its sigma, 2 sqrt(2 ln 2)
LOST = Flag.COSMIC_RAY | Flag.HOT | Flag.DEAD | Flag.DEFECT | Flag.NO_DATA  # a saturated pixel still says "at least so much"
WAYS = ("filter", "stars", "restored", "peaks")
MESH = 64  # px, of the sky under the detections: many star widths, fewer than a sky gradient


class Found(NamedTuple):
    """Detections, most significant first: y and x [px, pixel centres at integers], significance [standard errors]."""

    y: Array
    x: Array
    significance: Array


class Plane(NamedTuple):
    """A frame as detection and photometry see it, all (Y, X).

    data: float64 [unit], lost pixels filled from `expected`; expected: the mean that the variance is taken at, the restored
    image or the data smoothed over a star's width [unit]; variance [unit^2]; good: neither lost nor infinite; flags: Flag bits;
    noise: the frame's law.
    """

    data: Array
    expected: Array
    variance: Array
    good: NDArray[np.bool_]
    flags: Array
    noise: Noise


def plane(frame: Frame, restored: Frame | None, fwhm: float) -> Plane:
    """The frame's data, variance and flags; raises FrameError unless it is one plane of counts with known noise."""
    frame.need("sources", Unit.ADU, Unit.ADU_RATE, Unit.ELECTRON, Unit.ELECTRON_RATE)
    if frame.axes != "YX" or isinstance(frame.geometry, Mosaic):
        what = "a colour mosaic" if isinstance(frame.geometry, Mosaic) else f"axes {frame.axes!r}"
        raise FrameError(f"sources: got {what}, expected one (Y, X) plane of one band; give one plane")
    if not fwhm > 0:
        raise FrameError(f"sources: a star width (FWHM) of {fwhm:g} px, expected a positive number")
    noise = frame.known_noise("sources")
    if restored is not None:
        same_pixels("sources", frame, restored=restored)
    data = np.asarray(frame.data, dtype=np.float64)
    flags = np.zeros(frame.shape, np.int64) if frame.flags is None else np.broadcast_to(np.asarray(frame.flags), frame.shape)
    good = np.isfinite(data) & ((flags & int(LOST)) == 0)
    if np.count_nonzero(good) < good.size / 10:
        raise FrameError(f"sources: {np.count_nonzero(good)} of {good.size} pixels are unflagged and finite, expected a tenth")
    smooth = _smooth(data, good, fwhm)
    expected = smooth if restored is None else np.asarray(restored.data, dtype=np.float64)
    expected = np.where(np.isfinite(expected), expected, smooth)
    return Plane(np.where(good, data, expected), expected, noise.variance(expected), good, flags, noise)


def gauss(width: int, centre: float, sigma: float) -> Array:
    """A unit Gaussian integrated over each of `width` pixels."""
    from scipy.special import erf

    return np.asarray(np.diff(erf((np.arange(width + 1) - 0.5 - centre) / (np.sqrt(2) * sigma))) / 2)


def _blur(image: Array, kernel: Array) -> Array:
    from scipy.ndimage import convolve1d

    return np.asarray(convolve1d(convolve1d(image, kernel, axis=0, mode="constant"), kernel, axis=1, mode="constant"))


def _kernel(fwhm: float) -> Array:
    r = int(np.ceil(1.8 * fwhm))
    return gauss(2 * r + 1, r, fwhm / SPREAD)


def _smooth(data: Array, good: Array, fwhm: float) -> Array:
    k = _kernel(fwhm)
    weight = _blur(good.astype(np.float64), k)
    middle = float(np.median(data[good]))
    return np.asarray(middle + _blur(np.where(good, data - middle, 0), k) / np.maximum(weight, 0.01))


def sky(image: Array, good: Array) -> Array:
    """The smooth sky (Y, X) under an image: clipped medians of a mesh, interpolated (Background2D of photutils)."""
    from photutils.background import Background2D

    box = [min(MESH, n) for n in image.shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mesh cell without data is interpolated over
        return np.asarray(Background2D(image, box, mask=~good, exclude_percentile=95).background)


def significance(image: Array, variance: Array, good: Array, fwhm: float, matched: bool = True) -> Array:
    """Standard errors by which a star of width `fwhm` [px] at each pixel stands out of an image less its sky.

    With k the star's shape and v the variance, the best linear estimate of its flux over its standard error is
    sum(k image / v) / sqrt(sum(k^2 / v)); lost pixels weigh nothing. Not `matched`: the pixel over its own standard error.
    """
    weight = np.where(good, 1 / np.maximum(variance, np.finfo(np.float64).tiny), 0)
    if not matched:
        return np.asarray(image * np.sqrt(weight))
    k = _kernel(fwhm)
    scale = np.sqrt(_blur(weight, k * k))
    return np.asarray(np.divide(_blur(image * weight, k), scale, out=np.zeros(image.shape), where=scale > 0))


def detect(frame: Frame, *, restored: Frame | None = None, threshold: float = 5.0, fwhm: float, way: str = "filter") -> Found:
    """Stars above `threshold` standard errors of their flux on the calibrated frame.

    frame: (Y, X) counts or electrons with known noise. way:
    "filter": local maxima of a matched filter on `frame`; `restored` gives the mean that the variance is taken at and what
    stands in lost pixels. No restored image searched in its stead is as complete at equal purity (bench/astronomy.py).
    "stars": the same with the light and the noise of fitted neighbours taken off, peaks of `restored` tried first: more of a
    crowded field, where stars are Gaussians of `fwhm`; where they are not, their wings become stars.
    "restored", "peaks": local maxima of `restored` (of `frame` without one), seen through the star's shape, or pixel by
    pixel: for what is no star. In units of the noise of `frame`, so a threshold is a flux; a restored image has less noise,
    so that of equal purity is lower there (`completeness.at_purity` finds it).
    Raises FrameError as `plane` does, for a threshold that is not positive, or another way.
    """
    return search(plane(frame, restored, fwhm), restored is not None, threshold, fwhm, way)


def search(p: Plane, dual: bool, threshold: float, fwhm: float, way: str) -> Found:
    """`detect` on a plane; dual: its expected mean is a restored image."""
    if not threshold > 0:
        raise FrameError(f"sources: threshold {threshold:g}, expected a positive number of standard errors")
    if way not in WAYS:
        raise FrameError(f"sources: way {way!r}, expected one of {', '.join(WAYS)}")
    if way == "stars":
        from firstlight.measure import blends

        hints = p.expected - sky(p.expected, p.good) if dual else None
        return blends.search(p, sky(p.data, p.good), hints, threshold, fwhm)
    image = p.expected if dual and way != "filter" else p.data
    return peaks(significance(image - sky(image, p.good), p.variance, p.good, fwhm, way != "peaks"), threshold)


def peaks(s: Array, threshold: float) -> Found:
    """Local maxima of a (Y, X) map above `threshold`, highest first; places are peaks of a parabola."""
    from photutils.detection import find_peaks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # none found: an empty table
        found = find_peaks(s, threshold, box_size=3)
    if found is None or len(found) == 0:
        return Found(np.zeros(0), np.zeros(0), np.zeros(0))
    y, x = np.asarray(found["y_peak"]), np.asarray(found["x_peak"])
    order = np.argsort(-s[y, x], kind="stable")
    y, x = y[order], x[order]
    return Found(y + _vertex(s, y, x, 0), x + _vertex(s, y, x, 1), s[y, x])


def _vertex(s: Array, y: Array, x: Array, axis: int) -> Array:
    """Offset of the maximum from its pixel by a parabola through the logarithms of three, exact for a Gaussian; 0 at the
    border.
    """
    n, at = s.shape[axis], (y, x)[axis]
    step = np.where((at > 0) & (at < n - 1), 1, 0)
    sides = (s[y - step, x], s[y + step, x]) if axis == 0 else (s[y, x - step], s[y, x + step])
    top = s[y, x]
    low, middle, high = (np.log(np.maximum(v, 0.05 * top)) for v in (sides[0], top, sides[1]))
    bend = 2 * middle - low - high
    return np.asarray(np.divide(high - low, 2 * bend, out=np.zeros(len(y)), where=bend > 0).clip(-0.5, 0.5))


def star_width(frame: Frame, *, stars: int = 50, guess: float = 3.0) -> float:
    """FWHM [px] of the field's stars: median Gaussian fit of up to `stars` bright, unsaturated, lone ones.

    Raises FrameError with fewer than three, or as `plane` does.
    """
    width = guess
    for _ in range(2):
        p = plane(frame, None, width)
        found = search(p, False, 20.0, width, "filter")
        lone = _lone(p, found, 4 * width)[:stars]
        if len(lone) < 3:
            raise FrameError(f"sources: {len(lone)} bright lone stars to take the width from, expected 3; give the FWHM [px]")
        width = _fit(p, np.stack([found.x, found.y], axis=1)[lone], width)
    return width


def _lone(p: Plane, found: Found, apart: float) -> Array:
    from scipy.spatial import cKDTree

    points = np.stack([found.y, found.x], axis=1)
    if not len(points):
        return np.zeros(0, int)
    near = cKDTree(points).query_ball_point(points, apart, return_length=True) == 1
    inside = np.all((points > apart) & (points < np.array(p.data.shape) - 1 - apart), axis=1)
    r = int(np.ceil(apart / 2))
    clean = [not np.any(p.flags[max(y - r, 0) : y + r + 1, max(x - r, 0) : x + r + 1]) for y, x in np.rint(points).astype(int)]
    return np.flatnonzero(near & inside & np.array(clean))


def _fit(p: Plane, xy: Array, width: float) -> float:
    from photutils.psf import fit_fwhm

    side = 2 * int(np.ceil(1.5 * width)) + 1
    image = p.data - sky(p.data, p.good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that failed is NaN
        found = np.asarray(fit_fwhm(image, xypos=xy, fwhm=width, fit_shape=side, error=np.sqrt(p.variance)))
    found = found[np.isfinite(found) & (found > 0.3) & (found < 4 * width)]
    if len(found) < 3:
        raise FrameError(f"sources: {len(found)} stars with a Gaussian width, expected 3; give the FWHM [px]")
    return float(np.median(found))
