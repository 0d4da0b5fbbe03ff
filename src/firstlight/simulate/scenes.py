"""Scenes with known truth, one function each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf

__all__ = ["Star", "chart", "cosmic_rays", "filaments", "linearise", "phantom_projections", "spots", "star_field"]

Array = NDArray[Any]


class Star(NamedTuple):
    """A point source: position [px, pixel centres at integers] and total flux [e-]."""

    y: float
    x: float
    flux: float


def linearise(srgb: ArrayLike) -> Array:
    """Linear light in [0, 1], float64, of 8-bit sRGB codes or of sRGB values in [0, 1] (IEC 61966-2-1); axes kept."""
    v = np.asarray(srgb)
    v = v / 255.0 if v.dtype == np.uint8 else v.astype(np.float64)
    return np.asarray(np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4))


def _pixel_gauss(n: int, centre: float, sigma: float) -> Array:
    """Integral of a unit Gaussian over each of n pixels, so that flux is conserved however narrow it is."""
    edges = (np.arange(n + 1) - 0.5 - centre) / (np.sqrt(2) * sigma)
    return np.asarray(np.diff(erf(edges)) / 2)


def star_field(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    n: int = 230,
    sky: float = 40.0,
    faintest: float = 100.0,
    brightest: float = 30000.0,
    slope: float = 0.6,
    fwhm: float = 2.5,
) -> tuple[Array, list[Star]]:
    """Stars of power-law flux N(>F) ~ F^-slope over a flat sky [e-/px]; returns (image (Y, X) [e-], stars).

    The PSF is a pixel-integrated Gaussian of `fwhm` [px].
    """
    sigma = fwhm / 2.3548
    image = np.full(shape, float(sky))
    u = rng.random(n)
    lo, hi = faintest**-slope, brightest**-slope
    flux = (lo + u * (hi - lo)) ** (-1 / slope)
    stars = [Star(float(rng.uniform(0, shape[0] - 1)), float(rng.uniform(0, shape[1] - 1)), float(f)) for f in flux]
    for s in stars:
        r = int(8 * sigma) + 2
        y0, x0 = max(0, int(s.y) - r), max(0, int(s.x) - r)
        y1, x1 = min(shape[0], int(s.y) + r + 1), min(shape[1], int(s.x) + r + 1)
        image[y0:y1, x0:x1] += s.flux * np.outer(_pixel_gauss(y1 - y0, s.y - y0, sigma), _pixel_gauss(x1 - x0, s.x - x0, sigma))
    return image, stars


def filaments(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    n: int = 40,
    peak: float = 50.0,
    width: float = 1.3,
    background: float = 1.0,
) -> Array:
    """Curved tubules of Gaussian profile (sigma `width` [px]) over a background [e-]; the brightest pixel is `peak` [e-]."""
    image = np.zeros(shape)
    for _ in range(n):
        _draw_walk(image, rng, step=0.25, length=1.2 * max(shape), bend=0.01)
    image = _blur(image, width)
    return np.asarray(background + image * ((peak - background) / image.max()))


def cosmic_rays(shape: tuple[int, int], rng: np.random.Generator, *, n: int = 40, energy: float = 2000.0) -> Array:
    """Charge [e-] that `n` particles leave in the detector: sharp straight tracks of a few pixels, about `energy` [e-] each."""
    image = np.zeros(shape)
    for _ in range(n):
        length, angle = 1 + rng.exponential(3), rng.uniform(0, np.pi)
        t = np.arange(0, length, 0.5)
        y = np.rint(rng.uniform(0, shape[0] - 1) + t * np.sin(angle)).astype(int)
        x = np.rint(rng.uniform(0, shape[1] - 1) + t * np.cos(angle)).astype(int)
        ok = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
        np.add.at(image, (y[ok], x[ok]), energy * rng.lognormal(0, 0.5) / t.size)
    return image


def _draw_walk(image: Array, rng: np.random.Generator, step: float, length: float, bend: float) -> None:
    count = int(length / step)
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(_smooth_noise(rng, count) * bend * step * 4)
    y = rng.uniform(0, image.shape[0]) + np.cumsum(np.sin(angle)) * step
    x = rng.uniform(0, image.shape[1]) + np.cumsum(np.cos(angle)) * step
    bright = rng.uniform(0.4, 1.0) * step
    iy, ix = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - iy, x - ix
    for dy, dx, w in ((0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx), (1, 0, fy * (1 - fx)), (1, 1, fy * fx)):
        ok = (iy + dy >= 0) & (iy + dy < image.shape[0]) & (ix + dx >= 0) & (ix + dx < image.shape[1])
        np.add.at(image, (iy[ok] + dy, ix[ok] + dx), (w * bright)[ok])


def _smooth_noise(rng: np.random.Generator, count: int) -> Array:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(rng.standard_normal(count), 40) * 12)


def _blur(image: Array, sigma: float) -> Array:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma, mode="constant"))


def spots(
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    density: float = 0.004,
    peak: float = 20.0,
    width: float = 1.4,
    background: float = 1.5,
) -> Array:
    """Spots (Gaussian sigma `width` [px], `density` per px) over a soft background [e-].

    The brightest lies within one `background` below `peak` [e-].
    """
    image = np.zeros(shape)
    count = int(density * image.size)
    y, x = rng.integers(0, shape[0], count), rng.integers(0, shape[1], count)
    np.add.at(image, (y, x), rng.uniform(0.2, 1.0, count))
    image = _blur(image, width)
    soft = _blur(rng.standard_normal(shape), 24)
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    return np.asarray(background * (0.5 + soft) + image * ((peak - 1.5 * background) / image.max()))


def chart(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """A colour test scene, (Y, X, 3) linear RGB in [0, 1]: patches, a Siemens star, a smooth ramp and fine texture."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float64)
    v, u = y / shape[0], x / shape[1]
    rgb = np.stack([0.15 + 0.5 * u, 0.15 + 0.4 * v, 0.5 - 0.35 * u * v], axis=-1)
    patches = rng.uniform(0.02, 0.9, (4, 6, 3))
    low = v < 0.5
    i, j = np.minimum((v * 8).astype(int), 3), np.minimum((u * 6).astype(int), 5)
    inside = low & ((v * 8) % 1 > 0.08) & ((u * 6) % 1 > 0.08)
    rgb[inside] = patches[i[inside], j[inside]]
    radius, angle = np.hypot(y - 0.75 * shape[0], x - 0.28 * shape[1]), np.arctan2(y - 0.75 * shape[0], x - 0.28 * shape[1])
    star = radius < 0.21 * min(shape)
    rgb[star] = (0.1 + 0.75 * (0.5 + 0.5 * np.tanh(3 * np.sin(24 * angle) * np.minimum(1, radius / 12))))[star][:, None]
    texture = _blur(rng.standard_normal(shape), 0.8)
    grass = (v > 0.55) & (u > 0.55)
    rgb[grass] *= (1 + 0.6 * texture)[grass][:, None]
    return np.asarray(np.clip(rgb, 0.003, 1.0))


def phantom_projections(
    angles: ArrayLike, rows: int, width: int, *, center: float | None = None, scale: float = 2.0
) -> tuple[Array, Array]:
    """Parallel projections of a stack of ellipses: (line integrals (A, Y, X), central attenuation slice (X, X) [1/px]).

    angles [rad]; `center` is the rotation axis [px], the middle by default; `scale` the largest line integral. Analytic:
    a chord through an ellipse, so there is no interpolation in the truth. The slice is the middle row's.
    """
    angles = np.asarray(angles, dtype=np.float64)
    center = (width - 1) / 2 if center is None else center
    half = min(center, width - 1 - center)
    # x0, y0, semi-axes, tilt, density, vertical half-extent: fractions of the half width
    parts = np.array(
        [
            (0.0, 0.0, 0.86, 0.72, 0.3, 1.0, 2.0),
            (0.0, 0.0, 0.78, 0.64, 0.3, -0.6, 2.0),
            (0.25, 0.1, 0.12, 0.28, -0.4, 0.5, 0.7),
            (-0.28, -0.05, 0.2, 0.12, 0.7, -0.3, 1.2),
            (0.05, -0.35, 0.07, 0.07, 0.0, 0.8, 0.5),
            (-0.1, 0.36, 0.05, 0.14, 1.1, 0.9, 0.9),
        ]
    )
    t = (np.arange(width) - center) / half
    heights = np.linspace(-1, 1, rows) if rows > 1 else np.zeros(1)
    out = np.zeros((angles.size, rows, width))
    for x0, y0, p, q, tilt, density, extent in parts:
        squash = np.sqrt(np.maximum(1 - (heights / extent) ** 2, 0))
        r2 = (p * np.cos(angles - tilt)) ** 2 + (q * np.sin(angles - tilt)) ** 2
        u = t[None, :] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        root = r2[:, None, None] * squash[None, :, None] ** 2 - u[:, None, :] ** 2
        out += density * 2 * p * q * np.sqrt(np.maximum(root, 0)) / r2[:, None, None]
    unit = scale / out.max()
    slice_ = _phantom_slice(parts, width, center, half, unit)
    return np.asarray(out * unit), slice_


def _phantom_slice(parts: Array, width: int, center: float, half: float, unit: float) -> Array:
    g = (np.arange(width) - center) / half
    x, y = np.meshgrid(g, g)
    out = np.zeros((width, width))
    for x0, y0, p, q, tilt, density, _ in parts:
        a = (x - x0) * np.cos(tilt) + (y - y0) * np.sin(tilt)
        b = -(x - x0) * np.sin(tilt) + (y - y0) * np.cos(tilt)
        out += density * ((a / p) ** 2 + (b / q) ** 2 <= 1)
    return np.asarray(out * unit / half)
