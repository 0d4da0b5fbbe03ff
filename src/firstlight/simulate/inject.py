"""Stars and galaxies of known flux added to a frame, with the noise that their own light brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.geometry import Mosaic
from firstlight.noise import spread
from firstlight.simulate.scenes import Star, _pixel_gauss

__all__ = ["Galaxy", "inject", "render"]

Array = NDArray[Any]
SPREAD = 2.354820045  # FWHM of a Gaussian over its sigma
FINE = 5  # samples a pixel and axis of a galaxy's profile
FINER = 9  # of those, in the three pixels around its centre
REACH = 6.0  # effective radii at which a profile ends; the flux is what lies inside


class Galaxy(NamedTuple):
    """A Sersic profile: place [px], total flux, effective (half-light) radius [px] along the major axis, index n as `sersic`,
    axis ratio, angle [rad] of the major axis from x to y.
    """

    y: float
    x: float
    flux: float
    radius: float
    sersic: float = 1.0
    ratio: float = 1.0
    angle: float = 0.0


def render(shape: tuple[int, int], things: Sequence[Star | Galaxy], *, fwhm: float | None = None, psf: Any = None) -> Array:
    """The mean light (Y, X), float64 [unit of the fluxes], of stars and galaxies seen through a PSF.

    The PSF is a pixel-integrated Gaussian of `fwhm` [px], or `psf`: an odd (Y, X) image of one star, taken as summing to 1,
    moved below a pixel by cubic splines. Light outside the image is lost, as on a detector. Raises FrameError unless exactly
    one of the two is given, for an even psf, or for a galaxy without size.
    """
    if (fwhm is None) == (psf is None):
        raise FrameError("render: expected one of fwhm [px] and psf (an image of one star), got both or none")
    image, star = np.zeros(shape), None if psf is None else _unit_sum(psf)
    for t in things:
        if not np.isfinite([t.y, t.x, t.flux]).all() or t.flux < 0:
            raise FrameError(f"render: {t}, expected a finite place and a flux of 0 or more")
        stamp, y0, x0 = _galaxy(t, fwhm, star) if isinstance(t, Galaxy) else _star(t, fwhm, star)
        _add(image, t.flux * stamp, y0, x0)
    return image


def _unit_sum(psf: Any) -> Array:
    image = np.asarray(psf, dtype=np.float64)
    if image.ndim != 2 or not all(n % 2 for n in image.shape) or not image.sum() > 0:
        raise FrameError(f"render: psf of shape {image.shape}, expected an image with odd sides and a positive sum")
    return np.asarray(image / image.sum())


def _star(t: Star, fwhm: float | None, psf: Array | None) -> tuple[Array, int, int]:
    iy, ix = int(np.floor(t.y + 0.5)), int(np.floor(t.x + 0.5))
    if psf is not None:
        moved = _moved(psf, t.y - iy, t.x - ix)
        return moved, iy - moved.shape[0] // 2, ix - moved.shape[1] // 2
    assert fwhm is not None
    sigma = fwhm / SPREAD
    r = int(6 * sigma) + 2
    return np.outer(*(_pixel_gauss(2 * r + 1, r + c - i, sigma) for c, i in ((t.y, iy), (t.x, ix)))), iy - r, ix - r


def _moved(psf: Array, dy: float, dx: float) -> Array:
    from scipy.ndimage import shift

    out = shift(np.pad(psf, 2), (dy, dx), order=3, mode="constant")
    return np.asarray(out / out.sum())


def _sersic(t: Galaxy, v: Array, u: Array) -> Array:
    """Sersic 1968: I(r) ~ exp(-b (r/R)^(1/n)), b the root of gamma(2n, b) = 1/2, so that R holds half the light."""
    from scipy.special import gammaincinv

    y, x = np.meshgrid(v, u, indexing="ij")
    major, minor = x * np.cos(t.angle) + y * np.sin(t.angle), -x * np.sin(t.angle) + y * np.cos(t.angle)
    rho = np.hypot(major, minor / t.ratio) / t.radius
    return np.where(rho <= REACH, np.exp(-gammaincinv(2 * t.sersic, 0.5) * rho ** (1 / t.sersic)), 0)


def _galaxy(t: Galaxy, fwhm: float | None, psf: Array | None) -> tuple[Array, int, int]:
    from scipy.ndimage import convolve1d
    from scipy.signal import fftconvolve

    if not (t.radius > 0 and t.sersic > 0 and 0 < t.ratio <= 1):
        raise FrameError(f"render: {t}, expected radius > 0, sersic > 0 and 0 < ratio <= 1")
    iy, ix = int(np.floor(t.y + 0.5)), int(np.floor(t.x + 0.5))
    blur = 6 * (fwhm or 0) / SPREAD if psf is None else max(psf.shape) / 2
    r = int(np.ceil(REACH * t.radius + blur)) + 2
    grid = (np.arange((2 * r + 1) * FINE) + 0.5) / FINE - 0.5 - r
    dy, dx = (t.y - iy, t.x - ix) if psf is None else (0.0, 0.0)  # binned before it is smeared: then the PSF is what moves
    light = _sersic(t, grid - dy, grid - dx)
    core = np.s_[(r - 1) * FINE : (r + 2) * FINE]  # the cusp: each sample there the mean of finer ones
    finer = (grid[core, None] + (np.arange(FINER) - (FINER - 1) / 2) / (FINER * FINE)).ravel()
    cusp = _sersic(t, finer - dy, finer - dx)
    light[core, core] = cusp.reshape(3 * FINE, FINER, 3 * FINE, FINER).mean(axis=(1, 3))
    if psf is None:
        assert fwhm is not None
        half = int(6 * fwhm / SPREAD * FINE) + 1
        k = _pixel_gauss(2 * half + 1, half, fwhm / SPREAD * FINE)
        light = convolve1d(convolve1d(light, k, axis=0, mode="constant"), k, axis=1, mode="constant")
    stamp = light.reshape(2 * r + 1, FINE, 2 * r + 1, FINE).sum(axis=(1, 3))
    if psf is not None:
        stamp = np.maximum(fftconvolve(stamp, _moved(psf, t.y - iy, t.x - ix), mode="same"), 0)
    return np.asarray(stamp / stamp.sum()), iy - r, ix - r


def _add(image: Array, stamp: Array, y0: int, x0: int) -> None:
    a, b = max(y0, 0), max(x0, 0)
    part = stamp[a - y0 : max(image.shape[0] - y0, 0), b - x0 : max(image.shape[1] - x0, 0)]
    image[a : a + part.shape[0], b : b + part.shape[1]] += part


def inject(
    frame: Frame,
    things: Sequence[Star | Galaxy],
    *,
    rng: np.random.Generator,
    fwhm: float | None = None,
    psf: Any = None,
) -> Frame:
    """A frame with stars and galaxies of known flux [unit] added as if they had been there when it was exposed.

    frame: (Y, X), noisy, with known noise. What is there stays, its noise with it; the new light l brings its own: with
    a > 0 photons as a Poisson(l / a), and what a shared flat adds, c (2 s l + l^2), as a Gaussian, s the data less offset
    (0 where negative). Whole-number data are rounded; where the frame states a saturation, data end there, flagged. PSF as
    in `render`, or the frame's own. Raises FrameError for other axes, a mosaic, unmodelled noise or a negative gain.
    """
    noise = frame.known_noise("inject")
    if frame.axes != "YX" or isinstance(frame.geometry, Mosaic):
        raise FrameError(f"inject: axes {frame.axes!r} or a colour mosaic, expected one (Y, X) plane of one band")
    psf = frame.psf if psf is None and fwhm is None else psf
    rows, cols = frame.shape
    light = render((rows, cols), things, fwhm=fwhm, psf=psf)
    a, c, offset = (np.asarray(spread(p, frame.shape)) for p in (noise.a, noise.c, noise.offset))
    if np.any(a < 0):
        raise FrameError("inject: a negative gain, expected a >= 0; flag those pixels and give them a positive gain")
    quanta = np.divide(light, a, out=np.zeros(light.shape), where=a > 0)
    data = np.asarray(frame.data)
    shared = np.sqrt(c * (2 * np.maximum(data - offset, 0) * light + light * light))
    new = data + np.where(a > 0, a * rng.poisson(quanta), light) + shared * rng.standard_normal(light.shape)
    params = {"things": [[type(t).__name__.lower(), *map(float, t)] for t in things], "fwhm": fwhm}
    return _saturated(frame.then("simulate.inject", params), new)


def _saturated(frame: Frame, new: Array) -> Frame:
    dtype = np.dtype(frame.data.dtype)
    whole = dtype.kind in "iu"
    new, flags = np.rint(new) if whole else new, frame.flags
    full = frame.observation.saturation
    if full is not None:
        top = spread(np.asarray(full, dtype=np.float64) if np.ndim(full) else float(full), frame.shape)
        over = new >= top
        new = np.minimum(new, top)
        if np.any(over):
            old = np.zeros(frame.shape, np.uint8) if flags is None else np.broadcast_to(np.asarray(flags), frame.shape)
            flags = np.where(over, old | int(Flag.SATURATED), old)
    if whole and (new.max() > np.iinfo(dtype).max):
        raise FrameError(
            f"inject: {new.max():g} does not fit {dtype} data, and the frame states no saturation; convert it first"
        )
    return replace(frame, data=new.astype(dtype if whole or dtype.itemsize >= 4 else np.float32), flags=flags)
