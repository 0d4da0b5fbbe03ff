"""The rotation axis of a scan by itself: a few rows through the steps before it, each method's value, a sheet of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstlight import calibrate, scale
from firstlight import recipe as rec
from firstlight.errors import FirstlightError, FrameError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.restore.center_sharpness import around, sharpest_center, unsharpness
from firstlight.tomography.chain import Resources, call_of
from firstlight.tomography.doubts import angle_doubts
from firstlight.tomography.pictures import save_sheet

__all__ = ["Found", "find"]

METHODS = ("auto", "wedge", "phase", "vo", "sharpness")
SEARCH = "calibrate.find_center"
SIDE = 700  # px of the slices on a sheet, at most
BEFORE = {Unit.ADU: "", Unit.TRANSMISSION: "calibrate.transmission", Unit.OPTICAL_DEPTH: "calibrate.attenuation"}  # made by


@dataclass(frozen=True)
class Found:
    """center [px along X], its confidence, each method's value, doubts; None and the reason where it was refused.

    tried: centres of the slices on the sheet, each with its unsharpness.
    """

    center: float | None
    confidence: float
    methods: dict[str, float]
    doubts: tuple[str, ...] = ()
    refused: str | None = None
    tried: tuple[dict[str, float], ...] = ()
    sheet: str | None = None

    @property
    def agreement(self) -> float | None:
        """The largest distance between two methods [px]."""
        values = [v for v in self.methods.values() if np.isfinite(v)]
        return round(max(values) - min(values), 3) if len(values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {"center": self.center, "confidence": self.confidence, "methods": self.methods, "agreement": self.agreement}
        more = {"doubts": list(self.doubts), "refused": self.refused, "tried": list(self.tried), "sheet": self.sheet}
        return found | more

    def text(self) -> str:
        """For people."""
        out = [] if self.center is None else [f"centre {self.center:.2f} px, confidence {self.confidence:.2f}"]
        out += [f"  {name:10s} {value:8.2f}" for name, value in self.methods.items()]
        out += [] if self.agreement is None else [f"methods agree within {self.agreement:.2f} px"]
        out += [f"doubt: {d}" for d in self.doubts]
        out += [f"slice at {t['center']:8.2f}: unsharpness {t['unsharpness']:.4f}" for t in self.tried]
        return "\n".join(out + ([f"sheet {self.sheet}"] if self.sheet else []))


def find(
    frame: Frame,
    *,
    method: str = "auto",
    rows: int | Sequence[int] = 32,
    guess: float | None = None,
    width: float | None = None,
    sheet: Path | None = None,
    resources: Resources | None = None,
) -> Found:
    """The axis of a scan in ADU, transmission or optical depth; `sheet`: a PNG of slices around it, or around a refused one.

    Raises FrameError for what is no scan or no method, and as the steps before the search do.
    """
    if frame.axes != "AYX" or not isinstance(frame.geometry, Scan):
        raise FrameError(f"center: got axes {frame.axes}, expected a scan AYX with the angle of each projection")
    if method not in METHODS:
        raise FrameError(f"center: method {method!r}, expected one of {', '.join(METHODS)}")
    few = _few(frame, rows, resources or Resources())
    doubts = tuple(angle_doubts(frame.geometry))
    own = "auto" if method == "sharpness" else method
    try:
        found = calibrate.center_of(few, method=own, rows=few.shape[1], guess=guess, width=width)
        result = Found(found.center, found.confidence, found.methods, (*found.doubts, *doubts))
        if method == "sharpness" or sheet is not None:
            result = _sharpened(few, result, method)
    except FirstlightError as error:
        result = Found(None, 0.0, {}, doubts, str(error))
    if sheet is None:
        return result
    middle = next((c for c in (result.center, guess) if c is not None), (frame.shape[2] - 1) / 2)
    return _drawn(few, result, middle, width or (4.0 if result.center is not None else frame.shape[2] / 16), sheet)


def _few(frame: Frame, rows: int | Sequence[int], resources: Resources) -> Frame:
    """Rows of the scan as optical depth, through the shipped steps that they have not behind them."""
    if frame.unit not in BEFORE:
        raise FrameError(f"center: got projections in {frame.unit}, expected {', '.join(BEFORE)}")
    bound, problems = rec.bound(rec.load("tomography"), frame)
    names = [c.step.use for c in bound]
    behind = names.index(BEFORE[frame.unit]) + 1 if BEFORE[frame.unit] else 0
    steps = bound[behind : names.index(SEARCH)]
    rec.raise_all([p for p in problems if any(p.where == c.where for c in steps)])
    return scale.sample(frame, [call_of(c) for c in steps], rows, memory=resources.room)


def _sharpened(few: Frame, result: Found, method: str) -> Found:
    assert isinstance(few.geometry, Scan)
    sharp = sharpest_center(few, guess=result.center, width=4.0, rows=min(4, few.shape[1]))
    assert isinstance(sharp.geometry, Scan)
    value = float(np.mean(np.asarray(sharp.geometry.center)))
    methods = {**result.methods, "sharpness": value}
    return Found(value if method == "sharpness" else result.center, result.confidence, methods, result.doubts)


def _drawn(few: Frame, result: Found, middle: float, width: float, sheet: Path) -> Found:
    centers = np.clip(middle + width * np.linspace(-1, 1, 9), 0, few.shape[2] - 1)
    slices = np.asarray(around(few, centers, size=min(few.shape[2], SIDE)).data)
    figures = unsharpness(slices)
    save_sheet(slices, [f"{c:.2f} px, unsharpness {f:.4f}" for c, f in zip(centers, figures, strict=True)], sheet)
    tried = tuple(
        {"center": round(float(c), 3), "unsharpness": round(float(f), 5)} for c, f in zip(centers, figures, strict=True)
    )
    return Found(result.center, result.confidence, result.methods, result.doubts, result.refused, tried, str(sheet))
