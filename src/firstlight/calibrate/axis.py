"""Evidence for the rotation axis: estimates by each method, and the error bar of the double wedge's."""

from __future__ import annotations

from math import hypot, sqrt
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter

from firstlight.calibrate.wedge import CLASSES, FINE, Cross, Curves, cross_spectra, curves, roughness, top

__all__ = [
    "REACH",
    "UNSURE",
    "Estimate",
    "Search",
    "borne_out",
    "by_centroid",
    "by_phase",
    "by_vo",
    "by_wedge",
    "details",
    "error_of",
    "halves",
    "without_rings",
]

Array = NDArray[Any]
REACH = 8.0  # px around the first estimate in which the second is looked for
RING = 31  # px: widest ring is half of it
BLUR = 1 / 16  # of the width: standard deviation
UNSURE = 1.5  # px: error bar, confidence 0.5, where one kind of evidence is all there is
WHITENED = 0.7  # of the cross spectrum's amplitude: 1 gives noise and the step between two angles the same say as the object


class Estimate(NamedTuple):
    """center, its random and systematic error [px]."""

    center: float
    random: float
    systematic: float


class Search(NamedTuple):
    """Where to look: within `reach` of `near` [px], or everywhere on `columns`."""

    columns: int
    near: float | None = None
    reach: float = 0.0


def without_rings(sino: Array) -> Array:
    """Minus the rough part of the mean over angles where there are rings: jumps between columns beyond noise and object."""
    mean = sino.mean(axis=0)
    jumps = _scatter(np.diff(mean, 2))
    noise = _scatter(np.diff(sino[:: max(len(sino) // 64, 1)], 2, axis=1)) / sqrt(len(sino))
    if jumps < max(3 * noise, 1e-3 * float(np.abs(mean).max())):
        return sino
    return np.asarray(sino - (mean - gaussian_filter1d(median_filter(mean, RING, mode="nearest"), RING / 6, mode="nearest")))


def details(sino: Array) -> Array:
    """Minus its blur along X: what is left has no level that ends at the edges of the field."""
    return np.asarray(sino - gaussian_filter1d(sino, sino.shape[1] * BLUR, axis=1, mode="nearest"))


def _scatter(values: Array) -> float:
    """Standard deviation by the median of |values|."""
    return 1.4826 * float(np.median(np.abs(values)))


def by_wedge(parts: list[Cross], sinograms: list[Array], search: Search, truncated: bool) -> Estimate:
    """The double wedge: by power where the whole object is seen, else located with all frequencies alike and then refined in
    the part of the field that has its mirror image in the field."""
    columns = search.columns
    flat = _estimate(curves(parts, white=True, columns=columns), search)
    if not truncated:
        best = _estimate(curves(parts, white=False, columns=columns), search)
        apart = max(abs(best.center - flat.center) - 2 * hypot(best.random, flat.random) - 0.3, 0.0)
        return best._replace(systematic=hypot(best.systematic, apart / 2))
    center = flat.center
    for _ in range(2):
        window = _window(columns, center)
        inner = curves(halves([s * window for s in sinograms], columns), white=False, columns=columns)
        center = top(_sum(inner), center, REACH)
    best = _estimate(inner, search)
    apart = max(abs(center - flat.center), abs(best.center - center))
    return Estimate(center, best.random, hypot(flat.systematic, best.systematic, apart / 2))


def error_of(estimate: Estimate) -> float:
    """Random and systematic error together [px]."""
    return hypot(estimate.random, estimate.systematic)


def borne_out(estimate: Estimate, near: Estimate, phase: float) -> Estimate:
    """An estimate that opposite projections confirm to a few pixels: only the errors near it are left, UNSURE at least."""
    least = max(abs(phase - estimate.center), UNSURE)
    return estimate._replace(random=min(near.random, least), systematic=min(near.systematic, least))


def halves(sinograms: list[Array], columns: int) -> list[Cross]:
    """Two halves of the rows (and their half turns), so that they can be held against each other."""
    halves = [sinograms[::2], sinograms[1::2]] if len(sinograms) > 1 else [sinograms]
    return [cross_spectra(half, columns) for half in halves]


def _window(columns: int, center: float) -> Array:
    """1 in the middle, falling to 0 over the outer quarter of the field that has its mirror image in the field; (X,)."""
    half = max(min(center, columns - 1 - center), 8.0) + 1.0
    edge = np.clip((1 - np.abs(np.arange(columns) - center) / half) * 4, 0, 1)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * edge), dtype=np.float32)


def _sum(parts: list[Curves], classes: Any = slice(None)) -> Array:
    return np.asarray(sum(p.values[classes].sum(axis=0) for p in parts))


def _estimate(parts: list[Curves], search: Search) -> Estimate:
    def at(curve: Array) -> float:
        return top(curve, search.near, search.reach)

    k = np.arange(CLASSES)
    bit = [(k >> b) & 1 for b in range(3)]
    mixed = [bit[1], bit[2], bit[1] ^ bit[2], bit[0] ^ bit[1], bit[0] ^ bit[2], bit[0] ^ bit[1] ^ bit[2]]
    apart = [at(_sum(parts, s == 0)) - at(_sum(parts, s == 1)) for s in mixed]
    if len(parts) > 1:
        apart.append(at(_sum(parts[:1])) - at(_sum(parts[1:])))
    curve = _sum(parts)
    even, odd = (at(_sum(parts, bit[0] == b)) for b in (0, 1))
    noise = [_spread([at(_sum(parts, (bit[0] == b) & (s == v))) for s in mixed[:3] for v in (0, 1)]) for b in (0, 1)]
    excess = max(abs(even - odd) - 2 * hypot(*noise) - 0.3, 0.0)
    return Estimate(at(curve), sqrt(float(np.mean(np.square(apart)))) / 2, excess / 2)


def _spread(pairs: list[float]) -> float:
    """Error of a whole from pairs of estimates by its halves."""
    d = np.diff(np.reshape(pairs, (-1, 2)), axis=1)
    return sqrt(float(np.mean(d * d))) / 2


def by_phase(stack: list[Array], theta: Array, order: Array, search: Search) -> float:
    """Phase correlation of projections half a turn apart (up to 64 pairs) with the mirror image of the other [px]."""
    first = np.flatnonzero(theta <= max(theta[-1] - np.pi, 0.0) + 1e-6)
    first = first[:: max(len(first) // 64, 1)]
    last = np.abs(theta[None] - theta[first][:, None] - np.pi).argmin(axis=1)
    columns = search.columns
    padded = scipy.fft.next_fast_len(2 * columns, real=True)
    taper = _window(columns, (columns - 1) / 2)
    total = np.zeros(padded // 2 + 1, dtype=np.complex128)
    for row in stack:
        a, b = (scipy.fft.rfft((row[order[i]] - row[order[i]].mean()) * taper, padded, axis=1) for i in (first, last))
        total += (a * b).sum(axis=0)
    curve = scipy.fft.irfft(total / np.maximum(np.abs(total), 1e-30) ** WHITENED, padded * FINE // 2)
    return top(curve[: (columns - 1) * FINE + 1], search.near, search.reach)


def by_centroid(sinograms: list[Array]) -> float:
    """The fixed part of the centroid's sinusoid (Helgason-Ludwig, first moment) [px]; for an object inside the field."""
    sino: Array = np.asarray(np.sum(sinograms, axis=0, dtype=np.float64))
    theta = np.arange(len(sino)) * np.pi / len(sino)
    mass, moment = sino.sum(axis=1), sino @ np.arange(sino.shape[1])
    fit = np.linalg.lstsq(np.stack([mass, np.cos(theta), np.sin(theta)], axis=1), moment, rcond=None)[0]
    return float(fit[0])


def by_vo(sino: Array, near: float) -> float:
    """The lowest of Vo's metric within 2 px of `near`, on one sinogram [px], by a parabola through nine points."""
    shifts = np.arange(-4, 5) * 0.5
    bend, slope, _ = np.polyfit(shifts, roughness(sino, sino.shape[1], near + shifts), 2)
    return near + (float(np.clip(-slope / (2 * bend), -2, 2)) if bend > 0 else 0.0)
