"""Aperture sums with their standard errors, around places that are given."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.measure.detect import Plane, plane

__all__ = ["ANNULUS", "CROWDED_AT", "RADIUS", "Fluxes", "aperture_flux", "fluxes"]

Array = NDArray[Any]
RADIUS = 1.6  # FWHM: 99.9 % of a Gaussian star
ANNULUS = (3.0, 5.0)  # FWHM
CLIP = 4.0  # standard errors: cosmic rays and stars go, and so little of the noise's tail that no mean is moved by 0.01
CROWDED_AT = 2.0  # FWHM around a detection that no sky is taken from


class Fluxes(NamedTuple):
    """One entry a place. flux, flux_std [unit]; background and background_std [unit/px]; area [px] inside the image;
    flags: Flag bits in the aperture, EDGE where it leaves the image. NaN where there is no sky or nothing of the aperture.
    """

    flux: Array
    flux_std: Array
    background: Array
    background_std: Array
    area: Array
    flags: Array


def aperture_flux(
    frame: Frame,
    y: Any,
    x: Any,
    *,
    restored: Frame | None = None,
    fwhm: float,
    radius: float = RADIUS,
    annulus: tuple[float, float] = ANNULUS,
    others: Any = None,
) -> Fluxes:
    """Flux at places y, x [px] on `frame`, whether or not a star was detected there.

    radius and annulus in units of `fwhm` [px]. `others`: (n, 2) places (y, x) of stars, around which no sky is taken; the
    places themselves by default. `restored` gives the mean that the variance is taken at, and the value of lost pixels
    (cosmic ray, hot, dead, defect, no data), which without it come from a Gaussian of `fwhm`; they are told by the flags.
    flux = sum(w (data - sky)), var = sum(w^2 v) + sum(w)^2 var(sky), w the pixel's share in the aperture. Raises FrameError
    as `detect` does.
    """
    y, x = np.atleast_1d(np.asarray(y, dtype=np.float64)), np.atleast_1d(np.asarray(x, dtype=np.float64))
    stars = np.stack([y, x], axis=1) if others is None else np.asarray(others, dtype=np.float64).reshape(-1, 2)
    return fluxes(plane(frame, restored, fwhm), y, x, fwhm, radius, annulus, stars)


def fluxes(p: Plane, y: Array, x: Array, fwhm: float, radius: float, annulus: tuple[float, float], stars: Array) -> Fluxes:
    """`aperture_flux` of a plane."""
    from photutils.aperture import CircularAperture

    inner, outer = annulus
    if not 0 < radius <= inner < outer:
        raise FrameError(f"sources: aperture {radius:g}, annulus {inner:g} to {outer:g}, expected 0 < radius <= inner < outer")
    if not len(y):
        none = np.zeros(0)
        return Fluxes(none, none, none, none, none, np.zeros(0, np.int64))
    free = p.good & ((p.flags & int(Flag.SATURATED)) == 0) & ~_near(p.data.shape, stars, CROWDED_AT * fwhm)
    circles = CircularAperture(np.stack([x, y], axis=1), radius * fwhm).to_mask(method="exact")
    rows = [_one(p, m, _ring(p, free, cy, cx, inner * fwhm, outer * fwhm)) for m, cy, cx in zip(circles, y, x, strict=True)]
    flux, std, level, error, area, flags = (np.array(column) for column in zip(*rows, strict=True))
    return Fluxes(flux, std, level, error, area, flags.astype(np.int64))


def _one(p: Plane, mask: Any, ring: tuple[float, float]) -> tuple[float, float, float, float, float, int]:
    large, small = mask.get_overlap_slices(p.data.shape)
    if large is None:
        return (np.nan, np.nan, *ring, 0.0, int(Flag.EDGE))
    w, level, error = mask.data[small], *ring
    area = float(w.sum())
    flux = float(np.sum(w * (p.data[large] - level)))
    std = float(np.sqrt(np.sum(w * w * p.variance[large]) + (area * error) ** 2))
    bits = int(np.bitwise_or.reduce(p.flags[large][w > 0], initial=0))
    bits |= int(Flag.NO_DATA) if np.any(~p.good[large][w > 0] & (p.flags[large][w > 0] == 0)) else 0
    whole = area > float(mask.data.sum()) * (1 - 1e-9)
    return flux, std, level, error, area, bits if whole else bits | int(Flag.EDGE)


def _ring(p: Plane, free: Array, y: float, x: float, inner: float, outer: float) -> tuple[float, float]:
    """(mean, standard error) of the sky [unit/px] in the annulus, clipped about the median by the known noise."""
    r = int(np.ceil(outer))
    y0, x0 = max(int(y) - r, 0), max(int(x) - r, 0)
    cut = np.s_[y0 : max(int(y) + r + 2, 0), x0 : max(int(x) + r + 2, 0)]
    yy, xx = np.ogrid[y0 : y0 + p.data[cut].shape[0], x0 : x0 + p.data[cut].shape[1]]
    d2 = (yy - y) ** 2 + (xx - x) ** 2
    here = (d2 > inner * inner) & (d2 <= outer * outer)
    use = here & free[cut]
    if np.count_nonzero(use) < 10:  # crowded: stars and all, rather than no sky
        use = here & p.good[cut]
    if np.count_nonzero(use) < 10:
        return np.nan, np.nan
    data, var = p.data[cut][use], p.variance[cut][use]
    away = np.abs(data - np.median(data))
    spread = max(float(np.sqrt(np.median(var))), 1.4826 * float(np.median(away)))  # structure beyond the noise is kept by half
    keep = away <= CLIP * spread
    return float(data[keep].mean()), float(np.sqrt(var[keep].mean() / np.count_nonzero(keep)))


def _near(shape: tuple[int, ...], stars: Array, radius: float) -> Array:
    out, r = np.zeros(shape, bool), int(np.ceil(radius))
    for y, x in stars:
        y0, x0 = max(int(y) - r, 0), max(int(x) - r, 0)
        yy, xx = np.ogrid[y0 : min(int(y) + r + 2, shape[0]), x0 : min(int(x) + r + 2, shape[1])]
        if yy.size and xx.size:
            out[yy, xx] |= (yy - y) ** 2 + (xx - x) ** 2 <= radius * radius
    return out
