"""What a method finds and what it does to fluxes, at equal purity, on fields whose sources are known.

A threshold in sigmas means nothing between images of different noise, so every method gets its own: the lowest at which the
share of its detections that are real is the one asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.measure.aperture import ANNULUS, RADIUS, aperture_flux
from firstlight.measure.detect import SPREAD, Found
from firstlight.measure.match import match

__all__ = ["Gain", "Operating", "Recovered", "Sweep", "at_purity", "background_bias", "by_flux", "gain", "recover", "sweep"]

Array = NDArray[Any]
CORE = 0.4  # FWHM: radius of the inner aperture of the width


class Sweep(NamedTuple):
    """Counts of F fields at T rising thresholds. detected, matched (F, T): detections, and those that are a source;
    recovered (F, T): sources brighter than asked that were found; wanted (F,): all of those.
    """

    thresholds: Array
    detected: Array
    matched: Array
    recovered: Array
    wanted: Array


class Operating(NamedTuple):
    """The threshold chosen for a purity, and what it gives; completeness 0 and threshold infinite where none reaches it."""

    threshold: float
    completeness: float
    purity: float


class Gain(NamedTuple):
    """Difference of completeness at equal purity, and its 95 % interval by paired bootstrap over fields."""

    value: float
    low: float
    high: float


class Recovered(NamedTuple):
    """One entry a source, detected or not. true and flux, flux_std [unit]: flux on the calibrated frame at the detection's
    place, at the true one where there is none; restored_flux: the same on the restored image (NaN without one); detected;
    dy, dx [px]: detection less truth, NaN where undetected; core, whole: flux of the image searched in an inner aperture and
    in the aperture at the true place; flags.
    """

    true: Array
    flux: Array
    flux_std: Array
    restored_flux: Array
    detected: Array
    dy: Array
    dx: Array
    core: Array
    whole: Array
    flags: Array


def sweep(
    found: Sequence[Found], truth: Sequence[ArrayLike], *, radius: float, brighter: float = 0.0, thresholds: Any = None
) -> Sweep:
    """Counts at every threshold. found: one a field, down to a threshold low enough to be impure; truth: (n, 3) y, x, flux
    of each field's sources, faint ones too, so that finding one is no false alarm; radius [px] of a match.

    Raises FrameError where the numbers of fields differ.
    """
    if len(found) != len(truth) or not found:
        raise FrameError(f"sweep: {len(found)} fields searched, {len(truth)} known, expected the same number, at least one")
    known = [np.asarray(t, dtype=np.float64).reshape(-1, 3) for t in truth]
    levels = _levels(found, sum(map(len, known))) if thresholds is None else np.sort(np.asarray(thresholds, dtype=np.float64))
    counts = [[_count(f, t, level, radius, brighter) for level in levels] for f, t in zip(found, known, strict=True)]
    detected, matched, recovered = np.moveaxis(np.array(counts, dtype=np.int64).reshape(len(found), len(levels), 3), -1, 0)
    wanted = np.array([np.count_nonzero(t[:, 2] > brighter) for t in known])
    return Sweep(levels, detected, matched, recovered, wanted)


def _levels(found: Sequence[Found], sources: int, count: int = 400) -> Array:
    """Thresholds even in rank, from the most significant down to half as many more detections as there are sources."""
    every = np.sort(np.concatenate([f.significance for f in found]))[::-1][: int(1.5 * sources) + 10]
    return np.unique(every[np.linspace(0, every.size - 1, min(count, every.size)).astype(int)]) if every.size else np.ones(1)


def _count(found: Found, truth: Array, level: float, radius: float, brighter: float) -> tuple[int, int, int]:
    keep = found.significance >= level
    _, j = match(np.stack([found.y[keep], found.x[keep]], axis=1), truth[:, :2], radius=radius)
    return int(np.count_nonzero(keep)), len(j), int(np.count_nonzero(truth[j, 2] > brighter))


def at_purity(counts: Sweep, *, purity: float = 0.95) -> Operating:
    """The threshold of the highest completeness whose detections are pure to `purity`, all fields together."""
    detected, matched, recovered = (np.asarray(n).sum(axis=0) for n in counts[1:4])
    pure = matched / np.maximum(detected, 1)
    ok = (pure >= purity) & (detected > 0)
    if not ok.any():
        return Operating(float("inf"), 0.0, float("nan"))
    best = int(np.argmax(np.where(ok, recovered, -1)))
    return Operating(float(counts.thresholds[best]), float(recovered[best] / max(counts.wanted.sum(), 1)), float(pure[best]))


def gain(method: Sweep, baseline: Sweep, *, rng: np.random.Generator, purity: float = 0.95, resamples: int = 4000) -> Gain:
    """Completeness of `method` less that of `baseline`, both at `purity`, on the same fields.

    Fields are drawn with replacement, the same for both, and each draw chooses both thresholds anew. Raises FrameError
    unless the fields are the same.
    """
    if not np.array_equal(method.wanted, baseline.wanted):
        raise FrameError(f"gain: fields with {method.wanted} and {baseline.wanted} sources, expected the same fields")
    fields = len(method.wanted)
    drawn = rng.multinomial(fields, np.full(fields, 1 / fields), size=resamples)
    spread = _completeness(method, drawn, purity) - _completeness(baseline, drawn, purity)
    value = at_purity(method, purity=purity).completeness - at_purity(baseline, purity=purity).completeness
    return Gain(value, *(float(q) for q in np.quantile(spread, (0.025, 0.975))))


def _completeness(counts: Sweep, drawn: Array, purity: float) -> Array:
    detected, matched, recovered = (drawn @ n for n in counts[1:4])
    ok = (matched >= purity * detected) & (detected > 0)
    return np.asarray(np.where(ok, recovered, 0).max(axis=1) / np.maximum(drawn @ counts.wanted, 1))


def recover(
    frame: Frame,
    truth: ArrayLike,
    found: Found,
    *,
    fwhm: float,
    match_radius: float,
    restored: Frame | None = None,
    radius: float = RADIUS,
    annulus: tuple[float, float] = ANNULUS,
    others: Any = None,
) -> Recovered:
    """What became of sources `truth` (n, 3: y, x, flux) among the detections `found`, fluxes in dual-image mode.

    radius and annulus [FWHM] as in `aperture_flux`; `others` (m, 2): further known stars around which no sky is taken.
    """
    known = np.asarray(truth, dtype=np.float64).reshape(-1, 3)
    places = np.stack([found.y, found.x], axis=1)
    i, j = match(places, known[:, :2], radius=match_radius)
    at, detected = known[:, :2].copy(), np.zeros(len(known), bool)
    at[j], detected[j] = places[i], True
    off = np.where(detected[:, None], at - known[:, :2], np.nan)
    stars = places if others is None else np.concatenate([places, np.asarray(others, dtype=np.float64).reshape(-1, 2)])
    options: dict[str, Any] = {"fwhm": fwhm, "annulus": annulus, "others": stars}
    dual = aperture_flux(frame, at[:, 0], at[:, 1], restored=restored, radius=radius, **options)
    searched = frame if restored is None else restored.replace(noise=frame.noise)
    y, x = known[:, 0], known[:, 1]
    core, whole = (aperture_flux(searched, y, x, radius=r, **options).flux for r in (CORE, radius))
    alone = np.full(len(known), np.nan)
    if restored is not None:
        alone = aperture_flux(searched, at[:, 0], at[:, 1], radius=radius, **options).flux
    return Recovered(known[:, 2], dual.flux, dual.flux_std, alone, detected, off[:, 0], off[:, 1], core, whole, dual.flags)


def by_flux(got: Sequence[Recovered], edges: Sequence[float], *, fwhm: float, radius: float = RADIUS) -> list[dict[str, Any]]:
    """A row per bin of true flux [unit], of every source in it whether or not it was detected.

    low, high; magnitude: -2.5 log10 of the mean flux; n; completeness; ratio: mean of measured over true flux on the
    calibrated frame, ratio_error its standard error, scatter its standard deviation; pull: standard deviation of (measured -
    true) / flux_std, 1 where error bars are honest; restored_ratio: the same ratio on the restored image alone; offset_y,
    offset_x: mean, and offset: RMS distance [px] of the detected; fwhm: Gaussian width [px] of the image searched, from all
    light of the bin within two radii (None where that is no star). None where a bin is empty.
    """
    every = Recovered(*(np.concatenate([np.asarray(getattr(g, k)) for g in got]) for k in Recovered._fields))
    return [_bin(every, lo, hi, fwhm, radius) for lo, hi in pairwise(edges)]


def _bin(every: Recovered, lo: float, hi: float, fwhm: float, radius: float) -> dict[str, Any]:
    here = (every.true >= lo) & (every.true < hi) & np.isfinite(every.flux)
    g = Recovered(*(v[here] for v in every))
    row: dict[str, Any] = {"low": float(lo), "high": float(hi), "n": len(g.true)}
    if len(g.true) < 2:
        return row
    ratio, hit = g.flux / g.true, g.detected
    return row | {
        "magnitude": float(-2.5 * np.log10(g.true.mean())),
        "completeness": float(hit.mean()),
        "ratio": float(ratio.mean()),
        "ratio_error": float(ratio.std(ddof=1) / np.sqrt(len(ratio))),
        "scatter": float(ratio.std(ddof=1)),
        "pull": float(((g.flux - g.true) / g.flux_std).std(ddof=1)),
        "restored_ratio": _or_none(float(np.mean(g.restored_flux / g.true))),
        "offset_y": float(g.dy[hit].mean()) if hit.any() else None,
        "offset_x": float(g.dx[hit].mean()) if hit.any() else None,
        "offset": float(np.sqrt(np.mean(g.dy[hit] ** 2 + g.dx[hit] ** 2))) if hit.any() else None,
        "fwhm": _width(float(g.core.sum()), float(g.whole.sum()), CORE * fwhm, radius * fwhm),
    }


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _width(core: float, whole: float, inner: float, outer: float) -> float | None:
    """FWHM [px] of the Gaussian with that share of the light of radius `outer` inside `inner`: 1 - exp(-r^2 / 2 sigma^2)."""
    from scipy.optimize import brentq

    def share(s: float) -> float:
        return float(np.expm1(-(inner**2) / (2 * s * s)) / np.expm1(-(outer**2) / (2 * s * s)))

    low, high = inner / 6, 20 * outer
    if not whole > 0 or not share(high) < core / whole < share(low):
        return None
    return SPREAD * float(brentq(lambda s: share(s) - core / whole, low, high))


def background_bias(image: ArrayLike, truth: ArrayLike, places: ArrayLike, *, apart: float) -> tuple[float, float]:
    """(mean, standard error) of image less truth [unit] on the sky: pixels at least `apart` [px] from every place (y, x).

    The error is from the scatter of means of 32 px cells, since neighbours of a restored image share noise. Raises
    FrameError where shapes differ or fewer than two cells are half sky.
    """
    from firstlight.measure.aperture import _near

    a, b = np.asarray(image, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise FrameError(f"background: image of shape {a.shape}, truth of shape {b.shape}, expected the same (Y, X)")
    rows, cols = (n // 32 * 32 for n in a.shape)
    free = ~_near((a.shape[0], a.shape[1]), np.asarray(places, dtype=np.float64).reshape(-1, 2), apart)
    free &= np.isfinite(a) & np.isfinite(b)
    cut = np.where(free, a - b, 0)[:rows, :cols].reshape(rows // 32, 32, cols // 32, 32).sum(axis=(1, 3))
    count = free[:rows, :cols].reshape(rows // 32, 32, cols // 32, 32).sum(axis=(1, 3))
    means = (cut / np.maximum(count, 1))[count >= 512]
    if means.size < 2:
        raise FrameError(f"background: {means.size} cells of 32 px are half sky, expected 2; lower `apart`")
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(means.size))
