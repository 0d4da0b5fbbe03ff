"""Stars by DAOStarFinder at one setting for every image, injected stars of known flux, and what was found of them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FirstlightError, FrameError, ReadError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Mosaic
from firstlight.measure.aperture import aperture_flux
from firstlight.measure.detect import SPREAD, sky
from firstlight.measure.match import match
from firstlight.measure.white import with_white_noise
from firstlight.noise import Noise
from firstlight.simulate.inject import inject
from firstlight.simulate.scenes import Star

__all__ = ["Counts", "Stars", "background", "catalogue", "channel", "count", "find", "fluxes", "grey", "injected", "levels"]

Array = NDArray[Any]
FAINT, BRIGHT = 3.0, 60.0  # standard errors of an injected star's flux on a flat sky
APART = 8.0  # FWHM between injected stars, so that their sky is their own
CLEAR = 3.0  # FWHM between an injected star and anything found before
QUIET = 5.0  # sigma of the sky: nothing above it that near, as far as there are FEW such places
FEW = 20
MOST = 300  # injected stars an image
LEAST = 5
COUNTS = (Unit.ADU, Unit.ADU_RATE, Unit.ELECTRON, Unit.ELECTRON_RATE)


class Stars(NamedTuple):
    """Detections: y, x [px, pixel centres at integers]."""

    y: Array
    x: Array

    @property
    def places(self) -> Array:
        """(n, 2) of (y, x)."""
        return np.stack([self.y, self.x], axis=1)


class Counts(NamedTuple):
    """True positives, false positives, false negatives."""

    tp: int
    fp: int
    fn: int

    @property
    def precision(self) -> float:
        """tp / (tp + fp), NaN where nothing was found."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float("nan")

    @property
    def recall(self) -> float:
        """tp / (tp + fn), NaN where nothing was there."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float("nan")

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn), NaN without any."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else float("nan")


def grey(frame: Frame) -> Frame:
    """One plane (Y, X), float64, for stars: the mean over channels, its noise with it; flags are OR-ed.

    Raises FrameError for a mosaic or axes other than YX and CYX.
    """
    if frame.axes not in ("YX", "CYX") or isinstance(frame.geometry, Mosaic):
        what = "a colour mosaic" if isinstance(frame.geometry, Mosaic) else f"axes {frame.axes}"
        raise FrameError(f"stars: got {what}, expected one plane (Y, X) or its colours (C, Y, X)")
    data = np.asarray(frame.data, dtype=np.float64)
    flags = None if frame.flags is None else np.broadcast_to(np.asarray(frame.flags), frame.shape)
    if frame.axes == "YX":
        return frame.replace(data=data)
    each = [channel(frame, c) for c in range(frame.shape[0])]
    noise = frame.noise
    if isinstance(noise, Noise):
        a, b, offset = (float(np.mean([np.mean(getattr(f.noise, k)) for f in each])) for k in ("a", "b", "offset"))
        noise = Noise(a / len(each), b / len(each), offset)
    flags = None if flags is None else np.bitwise_or.reduce(flags, axis=0)
    return Frame(data.mean(axis=0), "YX", frame.unit, noise, flags=flags)


def channel(frame: Frame, c: int) -> Frame:
    """One channel of a (C, Y, X) frame as (Y, X), its noise and flags with it."""
    part = frame.crop(Box((c, 0, 0), (c + 1, *frame.shape[1:])))
    noise = part.noise
    if isinstance(noise, Noise):
        cells = [np.asarray(getattr(noise, k)) for k in ("a", "b", "offset", "c", "d")]
        noise = Noise(*(m.reshape(m.shape[-2:]) if m.ndim > 2 else m for m in cells))
    flags = None if part.flags is None else np.broadcast_to(np.asarray(part.flags), part.shape)[0]
    return Frame(np.asarray(part.data)[0], "YX", frame.unit, noise, flags=flags, observation=part.observation)


def background(image: Array) -> tuple[float, float]:
    """(median, standard deviation) [unit] of the sky, clipped at 3 sigma; raises FrameError for an image without any noise."""
    from astropy.stats import sigma_clipped_stats

    _, level, sigma = sigma_clipped_stats(image[np.isfinite(image)], sigma=3.0)
    if not sigma > 0:
        sigma = float(np.nanstd(image))
    if not sigma > 0:
        raise FrameError("stars: the image is constant, there is nothing to find")
    return float(level), float(sigma)


def find(image: Array, *, fwhm: float, threshold: float) -> Stars:
    """Stars (Stetson 1987, photutils' DAOStarFinder) of an image (Y, X) less its smooth sky, above `threshold` [its unit].

    Non-finite pixels hold no star. Raises FrameError for a width or threshold that is not positive.
    """
    from photutils.detection import DAOStarFinder

    if not (fwhm > 0 and threshold > 0):
        raise FrameError(f"stars: FWHM {fwhm:g} px, threshold {threshold:g}; expected positive numbers")
    good = np.isfinite(image)
    flat = np.where(good, image - sky(np.where(good, image, np.nanmedian(image)), good), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # none found: None
        table = DAOStarFinder(threshold=threshold, fwhm=fwhm)(flat, mask=~good)
    if table is None or not len(table):
        return Stars(np.zeros(0), np.zeros(0))
    names = [next(n for n in (f"{k}_centroid", f"{k}centroid") if n in table.colnames) for k in "yx"]
    y, x = (np.asarray(table[n], dtype=np.float64) for n in names)
    inside = np.isfinite(y) & np.isfinite(x)
    return Stars(y[inside], x[inside])


def levels(text: str) -> list[float]:
    """Thresholds of "1.5,2,3" or "1.5..5.0" (every 0.5), rising. Raises FrameError for others."""
    try:
        if ".." in text:
            low, high = (float(v) for v in text.split(".."))
            found = [float(v) for v in np.arange(low, high + 1e-9, 0.5)]
        else:
            found = sorted(float(v) for v in text.split(","))
    except ValueError:
        found = []
    if not found or not all(0 < v < np.inf for v in found):
        raise FrameError(f"--thresholds {text!r}: expected positive numbers such as 1.5,2,3 or 1.5..5.0")
    return found


def injected(frame: Frame, *, fwhm: float, rng: np.random.Generator) -> tuple[Frame, Array]:
    """(frame with stars added, (n, 3) of their y, x and flux [unit] in the mean of the channels).

    frame: (Y, X) or (C, Y, X) with known noise. Fluxes are even in their logarithm from 3 to 60 standard errors of a star of
    `fwhm` [px] on the sky, places random, APART from each other and CLEAR of what is there, the quietest ones; light brings
    its noise (simulate.inject). Raises FrameError where fewer than 5 find room.
    """
    if not isinstance(frame.noise, Noise):
        frame = with_white_noise(frame)
    plain = frame.replace(data=np.asarray(frame.data, dtype=np.float32))
    image = np.asarray(grey(plain).data)
    _, sigma = background(image)
    places = _places(image, find(image, fwhm=fwhm, threshold=1.5 * sigma).places, sigma, fwhm, rng)
    error = sigma * np.sqrt(4 * np.pi) * fwhm / SPREAD  # of the matched filter: sigma_sky sqrt(4 pi) sigma_star
    flux = error * np.exp(rng.uniform(np.log(FAINT), np.log(BRIGHT), len(places)))
    things = [Star(float(y), float(x), float(f)) for (y, x), f in zip(places, flux, strict=True)]
    return _with(plain, things, fwhm, rng), np.column_stack([places, flux])


def _with(frame: Frame, things: Sequence[Star], fwhm: float, rng: np.random.Generator) -> Frame:
    if frame.axes == "YX":
        return inject(frame, things, rng=rng, fwhm=fwhm)
    planes = [inject(channel(frame, c), things, rng=rng, fwhm=fwhm).data for c in range(frame.shape[0])]
    out = np.stack(planes).astype(np.float32)
    return frame.then("simulate.inject", {"fwhm": fwhm, "stars": len(things)}, data=out)


def _places(image: Array, taken: Array, sigma: float, fwhm: float, rng: np.random.Generator) -> Array:
    from scipy.spatial import cKDTree

    step, edge = APART * fwhm, 3 * fwhm
    axes = [np.arange(edge + step / 2, n - edge - 0.5, step) for n in image.shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    grid = grid + rng.uniform(-step / 4, step / 4, grid.shape)
    if len(taken) and len(grid):
        grid = grid[cKDTree(taken).query(grid)[0] > CLEAR * fwhm]
    if len(grid) < LEAST:
        raise FrameError(
            f"stars: room for {len(grid)} injected stars between those that are there, expected {LEAST}; give a --catalogue"
        )
    loud = _loudest(image, grid, fwhm)
    quiet = np.count_nonzero(loud <= QUIET * sigma)
    return rng.permutation(grid[np.argsort(loud)][: max(quiet, FEW)])[:MOST]


def _loudest(image: Array, places: Array, fwhm: float) -> Array:
    """The largest value above the sky [unit] within CLEAR FWHM along each axis of places (n, 2): galaxies, edges, ghosts."""
    from scipy.ndimage import maximum_filter

    good = np.isfinite(image)
    level = sky(np.where(good, image, np.nanmedian(image)), good)
    top = maximum_filter(np.where(good, image - level, np.inf), 2 * int(CLEAR * fwhm) + 1)
    y, x = np.rint(places).astype(int).T
    return np.asarray(top[y, x])


def count(found: Stars, truth: Array, *, radius: float, false: int | None = None) -> Counts:
    """Matches of detections and known places (n, 2+), one to one within `radius` [px]. false: false alarms counted elsewhere.

    None: every detection that matches nothing is one.
    """
    i, _ = match(found.places, truth[:, :2], radius=radius)
    return Counts(len(i), len(found.y) - len(i) if false is None else false, len(truth) - len(i))


def fluxes(image: Array, truth: Array, *, fwhm: float) -> Array:
    """Aperture flux [unit] of an image (Y, X) at places (n, 2+), less the local sky; NaN off the image."""
    plain = Frame(np.asarray(image, dtype=np.float64), "YX", Unit.ADU, Noise(0.0, background(image)[1] ** 2))
    return np.asarray(aperture_flux(plain, truth[:, 0], truth[:, 1], fwhm=fwhm).flux)


def catalogue(path: Path) -> Array:
    """(n, 2) places y, x [px] of a table (CSV, ECSV or FITS) with such columns, as `firstlight sources --out` writes.

    Raises ReadError.
    """
    from astropy.table import Table

    kind = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".fits": "fits"}.get(path.suffix.lower())
    try:
        if kind is None or not path.is_file():
            raise ReadError(f"{path}: expected a catalogue, .csv, .ecsv or .fits, that exists")
        table = Table.read(path, format=kind)
        places = np.stack([np.asarray(table[k], dtype=np.float64) for k in "yx"], axis=1)
    except FirstlightError:
        raise
    except Exception as error:  # astropy's readers raise of every kind
        raise ReadError(f"{path}: no table with columns y and x [px] ({error})") from error
    return places[np.isfinite(places).all(axis=1)]
