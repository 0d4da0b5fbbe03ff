"""Stars beside stars: neighbours' light and its noise are fitted and taken off before a star's significance is taken.

The matched filter is the best test for one star in noise that is known (Neyman and Pearson, 1933), with the variance that
pixels have without that star. A neighbour breaks both: its light moves or swallows the peak, its photons are noise. So, as
in Stetson's (1987) FIND and ALLSTAR: find, fit all together, take off, search what is left.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.frame import Flag
from firstlight.measure.detect import SPREAD, Found, Plane, peaks, significance

__all__ = ["Stars", "light", "search"]

Array = NDArray[Any]
FITTED = 4.0  # standard errors from which a star is taken off its neighbours: below, more is added by fitting noise than gained
FAINTEST = 1.5  # standard errors from which a peak of the restored image is tried
APART = 0.6  # FWHM within which a residual's peak is a misfit and no second star
BRIGHT = 50.0  # standard errors from which a star tells how far the Gaussian is from the field's true shape
BRIGHTEST, REACH = 20, 6  # stars, FWHM, of that difference
ROUNDS, STEPS = 4, 3
SHIFT = 0.3  # px, of the prior on how far a fit moves a peak: two stars closer than the width do not run away


class Stars(NamedTuple):
    """Fitted stars: y, x [px], flux [unit]."""

    y: Array
    x: Array
    flux: Array


class _Stamps(NamedTuple):
    """(N, n, n): flat index into the image, share of the flux per pixel, its derivatives [1/px]; share is 0 outside."""

    pixel: Array
    share: Array
    by_y: Array
    by_x: Array


def _stamps(stars: Stars, shape: tuple[int, ...], fwhm: float) -> _Stamps:
    from scipy.special import erf

    sigma = fwhm / SPREAD
    r = int(np.ceil(4.5 * sigma)) + 1
    offsets, edges = np.arange(-r, r + 1), np.arange(-r, r + 2) - 0.5

    def profile(at: Array, n: int) -> tuple[Array, Array, Array]:
        middle = np.rint(at).astype(int)
        z = (edges - (at - middle)[:, None]) / (np.sqrt(2) * sigma)
        inside = (middle[:, None] + offsets >= 0) & (middle[:, None] + offsets < n)
        density = np.exp(-z * z) / (np.sqrt(2 * np.pi) * sigma)
        place = np.clip(middle[:, None] + offsets, 0, n - 1)
        return place, np.diff(erf(z) / 2, axis=1) * inside, -np.diff(density, axis=1) * inside

    (iy, py, dy), (ix, px, dx) = profile(stars.y, shape[0]), profile(stars.x, shape[1])
    outer = [a[:, :, None] * b[:, None, :] for a, b in ((py, px), (dy, px), (py, dx))]
    return _Stamps(iy[:, :, None] * shape[1] + ix[:, None, :], *outer)


def light(stars: Stars, shape: tuple[int, ...], fwhm: float) -> Array:
    """(Y, X) mean light [unit] of Gaussian stars of `fwhm` [px], integrated over pixels."""
    s = _stamps(stars, shape, fwhm)
    size = shape[0] * shape[1]
    return np.bincount(s.pixel.ravel(), (stars.flux[:, None, None] * s.share).ravel(), size).reshape(shape)


def _fitted(stars: Stars, image: Array, weight: Array, fwhm: float) -> Stars:
    """One Gauss-Newton step of weighted least squares for all places and fluxes at once."""
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import cg

    n, s = len(stars.y), _stamps(stars, image.shape, fwhm)
    f = stars.flux[:, None, None]
    parts = np.stack([s.share, f * s.by_y, f * s.by_x])
    columns = np.broadcast_to(np.arange(3 * n).reshape(3, n, 1, 1), parts.shape)
    rows = np.broadcast_to(s.pixel, parts.shape)
    design = csr_matrix((parts.ravel(), (rows.ravel(), columns.ravel())), shape=(image.size, 3 * n))
    left = (image - light(stars, image.shape, fwhm)).ravel()
    normal = design.T @ design.multiply(weight.reshape(-1, 1)) + diags(np.repeat([0.0, SHIFT**-2, SHIFT**-2], n))
    right = design.T @ (weight.ravel() * left)
    size = normal.diagonal()
    scale = diags(np.divide(1, np.sqrt(size), out=np.zeros(3 * n), where=size > 0))
    step = scale @ cg(scale @ normal @ scale, scale @ right, rtol=1e-4, maxiter=300)[0]
    dy, dx = np.clip(step[n : 2 * n], -0.5, 0.5), np.clip(step[2 * n :], -0.5, 0.5)
    return Stars(stars.y + dy, stars.x + dx, np.maximum(stars.flux + step[:n], 0))


class _Scene(NamedTuple):
    """What is searched: image less sky, sky [unit], the plane, star width [px], where saturation disturbs no fit; misfit:
    variance per ring around a star, over the square of its flux.
    """

    image: Array
    level: Array
    plane: Plane
    fwhm: float
    used: NDArray[np.bool_]
    misfit: Array


def search(p: Plane, level: Array, restored: Array | None, threshold: float, fwhm: float) -> Found:
    """Stars above `threshold` [standard errors], each with its neighbours' light and noise taken off.

    level: the sky [unit]; restored: a restored image less its own sky [unit], whose peaks are tried first, or None. The
    significance is the matched filter's in the noise that a star's pixels would have without it.
    """
    scene = _Scene(
        p.data - level, level, p, fwhm, p.good & ~_around(p.flags & int(Flag.SATURATED) != 0, fwhm), np.zeros(2 * REACH)
    )
    stars = Stars(*np.zeros((3, 0)))
    seen = _left(stars, scene, FITTED)
    if len(seen.y):  # before stars are put where the Gaussian is not theirs
        scene = scene._replace(misfit=_misfit(_refined(_started(seen, scene), scene), scene))
    if restored is not None:
        tried = _refined(_hinted(restored, scene), scene)
        stars = Stars(*(v[_own(tried, scene) >= FITTED] for v in tried))
    for _ in range(ROUNDS):
        more = _left(stars, scene, FITTED)
        if not len(more.y):
            break
        stars = _refined(Stars(*(np.concatenate(pair) for pair in zip(stars, _started(more, scene), strict=True))), scene)
    rest, own = _left(stars, scene, threshold), _own(stars, scene)
    y, x, s = (np.concatenate(pair) for pair in zip((stars.y, stars.x, own), rest, strict=True))
    order = np.argsort(-s, kind="stable")
    order = order[s[order] >= threshold]
    return Found(y[order], x[order], s[order])


def _around(bad: Array, fwhm: float) -> Array:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~bad) <= 2 * fwhm) if bad.any() else bad


def _hinted(restored: Array, scene: _Scene) -> Stars:
    """Peaks of the restored image itself, which parts stars that the filter runs together."""
    v = scene.plane.noise.variance(scene.level)
    unit = Stars(*np.array([[scene.image.shape[0] // 2], [scene.image.shape[1] // 2], [1.0]]))
    top = float(_stamps(unit, scene.image.shape, scene.fwhm).share.max())
    error = np.sqrt(4 * np.pi * v) * scene.fwhm / SPREAD  # of a lone star's flux, sqrt(v / sum(k^2))
    found = peaks(restored / (top * error), FAINTEST)
    at = np.rint(found.y).astype(int), np.rint(found.x).astype(int)
    return Stars(found.y, found.x, found.significance * error[at])


def _started(found: Found, scene: _Scene) -> Stars:
    at = np.rint(found.y).astype(int), np.rint(found.x).astype(int)
    v = scene.plane.noise.variance(scene.level)[at]
    return Stars(found.y, found.x, found.significance * np.sqrt(4 * np.pi * v) * scene.fwhm / SPREAD)


def _refined(stars: Stars, scene: _Scene) -> Stars:
    for _ in range(STEPS if len(stars.y) else 0):
        weight = np.where(scene.used, 1 / _variance(stars, scene)[0], 0)
        stars = _fitted(stars, scene.image, weight, scene.fwhm)
    return stars


def _variance(stars: Stars, scene: _Scene) -> tuple[Array, Array]:
    """(Y, X) variance [unit^2] with the fitted stars, and without them.

    Both hold the light that no star explains, smoothed wider than a star, so that one star hardly raises its own noise; the
    first also what real stars deviate from a Gaussian.
    """
    from scipy.ndimage import gaussian_filter

    model = light(stars, scene.image.shape, scene.fwhm)
    left = np.where(scene.plane.good, scene.image - model, 0)
    base = scene.level + np.maximum(gaussian_filter(left, 3 * scene.fwhm / SPREAD), 0)
    without, noise = scene.plane.noise.variance(base), scene.plane.noise.variance(base + model)
    return noise + _spread(stars, scene), without


def _misfit(stars: Stars, scene: _Scene) -> Array:
    """(rings,) what the brightest stars leave beyond noise when a Gaussian is fitted, over flux^2: median over stars."""
    best = _bright(stars, scene)
    if np.count_nonzero(best) < 5:
        return scene.misfit
    order = np.argsort(-stars.flux * best)[: min(BRIGHTEST, np.count_nonzero(best))]
    ring, at, inside = _rings(Stars(*(v[order] for v in stars)), scene)
    left = scene.image - light(stars, scene.image.shape, scene.fwhm)
    excess = (left**2 - _variance(stars, scene)[0]).ravel()[at]
    share = np.where(inside & scene.used.ravel()[at], excess, np.nan) / stars.flux[order, None, None] ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rings beyond the image
        rings = [np.nanmedian(np.nanmean(share[:, ring == k], axis=1)) for k in range(2 * REACH)]
    return np.asarray(np.maximum(np.nan_to_num(rings), 0))


def _bright(stars: Stars, scene: _Scene) -> NDArray[np.bool_]:
    pixels = 4 * np.pi * (scene.fwhm / SPREAD) ** 2
    return np.asarray(stars.flux > BRIGHT * np.sqrt(pixels * np.median(scene.plane.noise.variance(scene.level))))


def _spread(stars: Stars, scene: _Scene) -> Array:
    """(Y, X) variance from bright stars' misfit. It is one pattern and no noise, so over the 4 pi sigma^2 pixels of a star it
    adds up where noise would average.
    """
    shape, best = scene.image.shape, _bright(stars, scene)
    if not scene.misfit.any() or not best.any():
        return np.zeros(shape)
    some = Stars(*(v[best] for v in stars))
    ring, at, inside = _rings(some, scene)
    profile = np.append(scene.misfit, np.zeros(max(int(ring.max()) + 1 - len(scene.misfit), 0)))
    spread = some.flux[:, None, None] ** 2 * profile[ring] * inside * (4 * np.pi * (scene.fwhm / SPREAD) ** 2)
    return np.bincount(at.ravel(), spread.ravel(), shape[0] * shape[1]).reshape(shape)


def _rings(stars: Stars, scene: _Scene) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Half widths from the centre (n, n); flat index of the pixels around each star, and which are inside (N, n, n)."""
    offsets = np.arange(-int(np.ceil(REACH * scene.fwhm)), int(np.ceil(REACH * scene.fwhm)) + 1)
    ring = (np.hypot(offsets[:, None], offsets) / (0.5 * scene.fwhm)).astype(int)
    return ring, *_squares(stars.y, stars.x, offsets, scene.image.shape)


def _squares(y: Array, x: Array, offsets: Array, shape: tuple[int, ...]) -> tuple[Array, NDArray[np.bool_]]:
    """(N, n, n) flat indices around places, and which of them lie inside the image."""
    iy, ix = (np.rint(v).astype(int)[:, None] + offsets for v in (y, x))
    inside = ((iy >= 0) & (iy < shape[0]))[:, :, None] & ((ix >= 0) & (ix < shape[1]))[:, None, :]
    iy, ix = np.clip(iy, 0, shape[0] - 1), np.clip(ix, 0, shape[1] - 1)
    return iy[:, :, None] * shape[1] + ix[:, None, :], inside


def _left(stars: Stars, scene: _Scene, threshold: float) -> Found:
    """Peaks of what the fitted stars leave, but for misfits at their places."""
    from scipy.spatial import cKDTree

    left = scene.image - light(stars, scene.image.shape, scene.fwhm)
    use = scene.used if len(stars.y) else scene.plane.good
    found = peaks(significance(left, _variance(stars, scene)[0], use, scene.fwhm), threshold)
    if not len(stars.y) or not len(found.y):
        return found
    near = cKDTree(np.stack(stars[:2], axis=1)).query(np.stack(found[:2], axis=1))[0]
    return Found(*(v[near > APART * scene.fwhm] for v in found))


def _own(stars: Stars, scene: _Scene) -> Array:
    """Significance of each fitted star with the others taken off, in noise to which the others alone contribute."""
    s = _stamps(stars, scene.image.shape, scene.fwhm)
    mine = stars.flux[:, None, None] * s.share
    model = light(stars, scene.image.shape, scene.fwhm).ravel()[s.pixel]
    full, without = (v.ravel()[s.pixel] for v in _variance(stars, scene))
    others = 1 - np.divide(mine, model, out=np.zeros(mine.shape), where=model > 0)
    weight = scene.plane.good.ravel()[s.pixel] / (without + np.clip(others, 0, 1) * (full - without))
    data = scene.image.ravel()[s.pixel] - model + mine
    scale = np.sqrt((s.share**2 * weight).sum(axis=(1, 2)))
    top = (s.share * data * weight).sum(axis=(1, 2))
    return np.asarray(np.divide(top, scale, out=np.zeros(len(scale)), where=scale > 0))
