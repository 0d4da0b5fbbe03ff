"""The rotation axis of a tomography scan, with a confidence, or a refusal.

The estimate is the double wedge's (calibrate/wedge.py); phase correlation of opposite projections, the centroid and Vo's
metric on one row stand beside it. Its error bar has a random part, from halves of the evidence that share no noise, and a
systematic one, from what should agree but does not: even harmonics (blind to whatever stands still on the detector) against
odd ones, and frequencies weighted equally against by their power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import erf, hypot, sqrt
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, median_filter

from firstlight.calibrate.overlap import overlap_center
from firstlight.calibrate.turn import arc_of, half_turns, resampled
from firstlight.calibrate.wedge import CLASSES, FINE, Cross, Curves, cross_spectra, curves, roughness, top
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs

__all__ = ["CenterResult", "center_of", "find_center"]

Array = NDArray[Any]
STEP = "calibrate.find_center"
METHODS = ("auto", "wedge", "phase", "vo")
LEAST = 0.2  # confidence below which the axis is refused
TRUNCATED = 0.05  # mean of the outermost columns over the largest value: above, the object leaves the field
REACH = 8.0  # px around the first estimate in which the second is looked for
RING = 31  # px: widest ring is half of it
BLUR = 1 / 16  # of the width: standard deviation
OUTSIDE = "the object leaves the field of view"
UNSURE = 1.5  # px: error bar, confidence 0.5, where one kind of evidence is all there is
RINGS = "rings were taken off before the search"
DISTURBED = (
    0.65  # px: least error bar, confidence 0.88, where edges or rings take part; by phantoms, tests/calibrate/test_center.py
)
WHITENED = 0.7  # of the cross spectrum's amplitude: 1 gives noise and the step between two angles the same say as the object
AGREE = 3.0  # px: opposite projections this near bear the wedge out; by chance 6 in a detector's width do
BAD = Flag.DEAD | Flag.NO_DATA | Flag.HOT | Flag.DEFECT


@dataclass(frozen=True)
class CenterResult:
    """center [px along X, first column 0]; confidence: the probability that it is right within 1 px, taking the error bar
    `sigma` [px] as normal; methods: each method's own value [px]; doubts: what a person should know.
    """

    center: float
    confidence: float
    methods: dict[str, float]
    doubts: tuple[str, ...] = ()
    sigma: float = 0.0


class _Estimate(NamedTuple):
    """center, its random and systematic error [px]."""

    center: float
    random: float
    systematic: float


class _Search(NamedTuple):
    """Where to look: within `reach` of `near` [px], or everywhere on `columns`."""

    columns: int
    near: float | None = None
    reach: float = 0.0


@needs(copies=4.0, sample=32)
def find_center(
    frame: Frame,
    *,
    method: str = "auto",
    rows: int | Sequence[int] = 32,
    guess: float | None = None,
    width: float | None = None,
) -> Frame:
    """The frame with Scan.center set as center_of finds it; data, noise and flags are shared.

    History tells center, confidence and each method's value. Raises FrameError as center_of does.
    """
    found = center_of(frame, method=method, rows=rows, guess=guess, width=width)
    params = {"method": method, "rows": rows if isinstance(rows, int) else list(rows), "guess": guess, "width": width}
    result = {"center": found.center, "confidence": found.confidence, "methods": found.methods, "doubts": list(found.doubts)}
    given = {k: v for k, v in params.items() if v is not None}
    return frame.then(STEP, given | {"found": result}, geometry=replace(_scan(frame), center=found.center))


def center_of(
    frame: Frame,
    *,
    method: str = "auto",
    rows: int | Sequence[int] = 32,
    guess: float | None = None,
    width: float | None = None,
) -> CenterResult:
    """The rotation axis [px along X] of a scan (A, Y, X) of minus-log projections over 180 or 360 degrees.

    method: "wedge" (the double wedge over many rows), "phase" (correlation of opposite projections), "vo" (Vo's metric on the
    strongest row, near the wedge's value), "auto": the wedge, or the overlap of opposite projections where the object leaves
    the field of a full turn (calibrate/overlap.py). rows: how many detector rows, spread evenly, or which. guess, width:
    search within guess +- width [px] only. Non-finite and flagged pixels are filled from their neighbours along X. Raises
    FrameError for other axes or units, too few angles, a field without an object, or where the axis cannot be told:
    confidence under 0.2.
    Vo et al., Opt. Express 22, 19078 (2014); one-shot form: see calibrate/wedge.py.
    """
    scan = _checked(frame, method)
    turns, columns = half_turns(scan.angles, STEP), frame.shape[2]
    arc = arc_of(scan.angles, STEP)
    doubts: list[str] = []
    stack = _rows(frame, rows, doubts)
    search = _search(columns, guess, width)
    sinograms = [[resampled(row, turn) for turn in turns] for row in stack]
    raw = [s for sino in sinograms for s in sino]
    quiet = [_without_rings(s) for s in raw]
    if any(a is not b for a, b in zip(raw, quiet, strict=True)):
        doubts.append(RINGS)
    level = float(np.abs(np.mean([s[:, [0, 1, -2, -1]].mean(axis=0) for s in quiet], axis=0)).max())
    truncated = level > TRUNCATED * float(np.mean([np.percentile(np.abs(s), 99) for s in quiet]))
    if truncated:
        doubts.append(OUTSIDE)
    if truncated:
        quiet = [_details(s) for s in quiet]
    parts = _parts(quiet, columns)
    estimate = _wedge(parts, quiet, search, truncated)
    methods = {
        "wedge": estimate.center,
        "phase": _phase([_details(r) for r in stack] if truncated else stack, arc.angles, arc.order, search),
    }
    if abs(methods["phase"] - estimate.center) < AGREE and _error(estimate) > 1:
        near = _Search(columns, estimate.center, REACH)
        estimate = _borne_out(estimate, _wedge(parts, quiet, near, truncated), methods["phase"])
    if arc.full:
        methods["overlap"], error = overlap_center([(row[0], row[1]) for row in sinograms])
        if truncated:
            estimate = _Estimate(methods["overlap"], error, 0.0)
    if not truncated:
        methods["centroid"] = _centroid([row[0] for row in sinograms])
    if method == "vo" or (method == "auto" and len(stack) > 1):
        best = max(quiet, key=lambda s: float(s.std()))
        methods["vo"] = _vo(best, estimate.center)
    return _judged(method, estimate, methods, doubts, search)


def _judged(method: str, estimate: _Estimate, methods: dict[str, float], doubts: list[str], search: _Search) -> CenterResult:
    best = "overlap" if OUTSIDE in doubts and "overlap" in methods else "wedge"
    chosen = best if method == "auto" else method
    center = methods[chosen]
    sigma = hypot(_error(estimate), center - estimate.center)
    aside = abs(methods["phase"] - estimate.center)
    if best == "overlap":
        sigma = max(sigma, DISTURBED)
    elif OUTSIDE in doubts:
        sigma = max(sigma, UNSURE if aside > AGREE else hypot(DISTURBED, aside / 2))
    elif RINGS in doubts:
        sigma = max(sigma, DISTURBED)
    confidence = round(erf(1 / sqrt(2) / max(sigma, 0.3)), 3)
    if estimate.systematic > 0.5:
        doubts.append(
            f"parts of the evidence differ by {estimate.systematic:.1f} px more than their noise: rings, drift, truncation?"
        )
    if estimate.random > 0.5:
        doubts.append(f"noise leaves +- {estimate.random:.1f} px")
    said = ", ".join(f"{k} {v:.1f}" for k, v in methods.items())
    if confidence < LEAST or not np.isfinite(center):
        raise FrameError(
            f"{STEP}: the axis cannot be told ({said}; +- {sigma:.0f} px): noise, an empty field, or angles that are not those "
            "of the file? Give guess= and width=, more rows=, or the centre by hand"
        )
    if search.near is not None and abs(center - search.near) > search.reach - 0.5:
        raise FrameError(
            f"{STEP}: the best axis {center:.1f} lies on the edge of {search.near:g} +- {search.reach:g} px; widen width="
        )
    return CenterResult(
        round(float(center), 3), confidence, {k: round(float(v), 3) for k, v in methods.items()}, tuple(doubts), round(sigma, 3)
    )


def _scan(frame: Frame) -> Scan:
    if frame.axes != "AYX" or not isinstance(frame.geometry, Scan):
        raise FrameError(
            f"{STEP}: got axes {frame.axes} with {type(frame.geometry).__name__}, expected a scan AYX with its angles"
        )
    return frame.geometry


def _checked(frame: Frame, method: str) -> Scan:
    if method not in METHODS:
        raise FrameError(f"{STEP}: method {method!r}, expected one of {', '.join(METHODS)}")
    scan = _scan(frame)
    if frame.unit in (Unit.ADU, Unit.ELECTRON, Unit.TRANSMISSION):
        raise FrameError(f"{STEP}: got projections in {frame.unit}, expected optical depth: dark/flat and minus log come first")
    if frame.shape[2] < 16:
        raise FrameError(f"{STEP}: {frame.shape[2]} columns, expected at least 16")
    return scan


def _search(columns: int, guess: float | None, width: float | None) -> _Search:
    if guess is None and width is None:
        return _Search(columns)
    near = (columns - 1) / 2 if guess is None else float(guess)
    reach = 0.1 * columns if width is None else float(width)
    if not (0 <= near <= columns - 1 and reach >= 1):
        raise FrameError(
            f"{STEP}: guess {near:g} +- {reach:g} px, expected a column of 0..{columns - 1} and a width of 1 or more"
        )
    return _Search(columns, near, reach)


def _rows(frame: Frame, rows: int | Sequence[int], doubts: list[str]) -> list[Array]:
    """The sinograms (A, X) float32 to look at, bad pixels filled, rows of one value left out."""
    height = frame.shape[1]
    if isinstance(rows, int):
        if rows < 1:
            raise FrameError(f"{STEP}: rows {rows}, expected at least 1")
        count = min(rows, height)
        chosen = [int((k + 0.5) * height / count) for k in range(count)]
    else:
        chosen = [int(r) for r in rows]
        if not chosen or min(chosen) < 0 or max(chosen) >= height:
            raise FrameError(f"{STEP}: rows {chosen}, expected rows of 0..{height - 1}")
    flags = None if frame.flags is None else np.broadcast_to(frame.flags, frame.shape)
    filled = [_filled(frame.data[:, r], None if flags is None else flags[:, r]) for r in chosen]
    bad = sum(number for _, number in filled)
    if bad:
        doubts.append(f"{bad} bad pixels filled from their neighbours")
    stack = [row for row, _ in filled if row is not None and float(np.ptp(row)) > 0]
    if not stack:
        raise FrameError(
            f"{STEP}: the {len(chosen)} rows looked at hold no object (one value, or no finite one); choose other rows="
        )
    return stack


def _filled(data: Any, flags: Any) -> tuple[Array | None, int]:
    row = np.array(data, dtype=np.float32)
    bad = ~np.isfinite(row) if flags is None else ~np.isfinite(row) | ((np.asarray(flags) & int(BAD)) != 0)
    number = int(bad.sum())
    if number > row.size // 2:
        return None, number
    x = np.arange(row.shape[1])
    for a in np.flatnonzero(bad.any(axis=1)):
        good = ~bad[a]
        row[a] = np.interp(x, x[good], row[a, good]) if good.any() else np.where(bad[a - 1], 0, row[a - 1])
    return row, number


def _without_rings(sino: Array) -> Array:
    """Minus the rough part of the mean over angles where there are rings: jumps between columns beyond noise and object."""
    mean = sino.mean(axis=0)
    jumps = _scatter(np.diff(mean, 2))
    noise = _scatter(np.diff(sino[:: max(len(sino) // 64, 1)], 2, axis=1)) / sqrt(len(sino))
    if jumps < max(3 * noise, 1e-3 * float(np.abs(mean).max())):
        return sino
    return np.asarray(sino - (mean - gaussian_filter1d(median_filter(mean, RING, mode="nearest"), RING / 6, mode="nearest")))


def _details(sino: Array) -> Array:
    """Minus its blur along X: what is left has no level that ends at the edges of the field."""
    return np.asarray(sino - gaussian_filter1d(sino, sino.shape[1] * BLUR, axis=1, mode="nearest"))


def _scatter(values: Array) -> float:
    """Standard deviation by the median of |values|."""
    return 1.4826 * float(np.median(np.abs(values)))


def _wedge(parts: list[Cross], sinograms: list[Array], search: _Search, truncated: bool) -> _Estimate:
    columns = search.columns
    flat = _estimate(curves(parts, white=True, columns=columns), search)
    if not truncated:
        best = _estimate(curves(parts, white=False, columns=columns), search)
        apart = max(abs(best.center - flat.center) - 2 * hypot(best.random, flat.random) - 0.3, 0.0)
        return best._replace(systematic=hypot(best.systematic, apart / 2))
    center = flat.center
    for _ in range(2):
        window = _window(columns, center)
        inner = curves(_parts([s * window for s in sinograms], columns), white=False, columns=columns)
        center = top(_sum(inner), center, REACH)
    best = _estimate(inner, search)
    apart = max(abs(center - flat.center), abs(best.center - center))
    return _Estimate(center, best.random, hypot(flat.systematic, best.systematic, apart / 2))


def _error(estimate: _Estimate) -> float:
    return hypot(estimate.random, estimate.systematic)


def _borne_out(estimate: _Estimate, near: _Estimate, phase: float) -> _Estimate:
    """An estimate that opposite projections confirm to a few pixels: only the errors near it are left, UNSURE at least."""
    least = max(abs(phase - estimate.center), UNSURE)
    return estimate._replace(random=min(near.random, least), systematic=min(near.systematic, least))


def _parts(sinograms: list[Array], columns: int) -> list[Cross]:
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


def _estimate(parts: list[Curves], search: _Search) -> _Estimate:
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
    return _Estimate(at(curve), sqrt(float(np.mean(np.square(apart)))) / 2, excess / 2)


def _spread(pairs: list[float]) -> float:
    """Error of a whole from pairs of estimates by its halves."""
    d = np.diff(np.reshape(pairs, (-1, 2)), axis=1)
    return sqrt(float(np.mean(d * d))) / 2


def _phase(stack: list[Array], theta: Array, order: Array, search: _Search) -> float:
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


def _centroid(sinograms: list[Array]) -> float:
    """The fixed part of the centroid's sinusoid (Helgason-Ludwig, first moment) [px]; for an object inside the field."""
    sino: Array = np.asarray(np.sum(sinograms, axis=0, dtype=np.float64))
    theta = np.arange(len(sino)) * np.pi / len(sino)
    mass, moment = sino.sum(axis=1), sino @ np.arange(sino.shape[1])
    fit = np.linalg.lstsq(np.stack([mass, np.cos(theta), np.sin(theta)], axis=1), moment, rcond=None)[0]
    return float(fit[0])


def _vo(sino: Array, near: float) -> float:
    """The lowest of Vo's metric within 2 px of `near`, on one sinogram [px], by a parabola through nine points."""
    shifts = np.arange(-4, 5) * 0.5
    bend, slope, _ = np.polyfit(shifts, roughness(sino, sino.shape[1], near + shifts), 2)
    return near + (float(np.clip(-slope / (2 * bend), -2, 2)) if bend > 0 else 0.0)
