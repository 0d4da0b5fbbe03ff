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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.axis import (
    REACH,
    UNSURE,
    Estimate,
    Search,
    borne_out,
    by_centroid,
    by_phase,
    by_vo,
    by_wedge,
    details,
    error_of,
    halves,
    without_rings,
)
from firstlight.calibrate.gaps import fill
from firstlight.calibrate.overlap import overlap_center
from firstlight.calibrate.turn import arc_of, half_turns, resampled
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
OUTSIDE = "the object leaves the field of view"
ASIDE = 0.02  # of the detector's width, that the axis of a full turn is off the middle: two sides make a wider field
RINGS = "rings were taken off before the search"
DISTURBED = 0.65  # px: least error bar, confidence 0.88, where edges or rings take part; by phantoms, see the bench
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


def _spectra(frame: Frame, **_: Any) -> float:
    return 8.0 * 4 * frame.shape[0] * frame.shape[-1]  # a row's padded spectrum, sums of them


@needs(copies=5.0, fixed=_spectra, sample=32)
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
    search within guess +- width [px] only. Non-finite and flagged pixels are filled from their neighbours along X, whole
    projections from those around them. Raises
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
    quiet = [without_rings(s) for s in raw]
    if any(a is not b for a, b in zip(raw, quiet, strict=True)):
        doubts.append(RINGS)
    level = float(np.abs(np.mean([s[:, [0, 1, -2, -1]].mean(axis=0) for s in quiet], axis=0)).max())
    truncated = level > TRUNCATED * float(np.mean([np.percentile(np.abs(s), 99) for s in quiet]))
    if truncated:
        doubts.append(OUTSIDE)
    if truncated:
        quiet = [details(s) for s in quiet]
    parts = halves(quiet, columns)
    estimate = by_wedge(parts, quiet, search, truncated)
    methods = {
        "wedge": estimate.center,
        "phase": by_phase([details(r) for r in stack] if truncated else stack, arc.angles, arc.order, search),
    }
    if abs(methods["phase"] - estimate.center) < AGREE and error_of(estimate) > 1:
        near = Search(columns, estimate.center, REACH)
        estimate = borne_out(estimate, by_wedge(parts, quiet, near, truncated), methods["phase"])
    if arc.full:
        methods["overlap"], error = overlap_center([(row[0], row[1]) for row in sinograms])
        if truncated:
            estimate = Estimate(methods["overlap"], error, 0.0)
    if not truncated:
        methods["centroid"] = by_centroid([row[0] for row in sinograms])
    if method == "vo" or (method == "auto" and len(stack) > 1):
        best = max(quiet, key=lambda s: float(s.std()))
        methods["vo"] = by_vo(best, estimate.center)
    return _judged(method, estimate, methods, doubts, search)


def _judged(method: str, estimate: Estimate, methods: dict[str, float], doubts: list[str], search: Search) -> CenterResult:
    best = "overlap" if OUTSIDE in doubts and "overlap" in methods else "wedge"
    chosen = best if method == "auto" else method
    center = methods[chosen]
    sigma = hypot(error_of(estimate), center - estimate.center)
    aside = abs(methods["phase"] - estimate.center)
    if best == "overlap":
        sigma = max(sigma, DISTURBED)
    elif OUTSIDE in doubts:
        sigma = max(sigma, UNSURE if aside > AGREE else hypot(DISTURBED, aside / 2))
    elif RINGS in doubts:
        sigma = max(sigma, DISTURBED)
    confidence = round(erf(1 / sqrt(2) / max(sigma, 0.3)), 3)
    if best == "overlap":
        doubts += _wider(center, search.columns)
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


def _wider(center: float, columns: int) -> list[str]:
    """What a whole turn about an axis off the middle could show besides, where the object leaves the field."""
    off = abs(center - (columns - 1) / 2)
    if off <= ASIDE * columns:
        return []
    return [
        f"the axis is {off:.0f} px off the middle: calibrate.stitch_360 after this step makes the field {2 * off:.0f} px wider"
    ]


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


def _search(columns: int, guess: float | None, width: float | None) -> Search:
    if guess is None and width is None:
        return Search(columns)
    near = (columns - 1) / 2 if guess is None else float(guess)
    reach = 0.1 * columns if width is None else float(width)
    if not (0 <= near <= columns - 1 and reach >= 1):
        raise FrameError(
            f"{STEP}: guess {near:g} +- {reach:g} px, expected a column of 0..{columns - 1} and a width of 1 or more"
        )
    return Search(columns, near, reach)


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
    return fill(row, bad, 0.0) if number else row, number
