"""Every problem of a recipe on a scan at once: one row goes through the steps, and on past those that refuse it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from firstlight import recipe as rec
from firstlight.box import Box
from firstlight.errors import FirstlightError
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.needs import needs_of
from firstlight.noise import Unmodelled
from firstlight.recipe import Problem
from firstlight.tomography.chain import Job, Resources, call_of, planned, prepared
from firstlight.tomography.doubts import angle_problems

__all__ = ["problems"]

UNITS = (Unit.ADU, Unit.TRANSMISSION, Unit.OPTICAL_DEPTH)
ROWS, ROOM = 16, 64 << 20  # rows that are tried, at most, and their bytes
INSIDE = 0.5  # transmission, and optical depth, of a stand-in


def problems(
    frame: Frame, bound: Sequence[rec.Call], options: rec.Options, resources: Resources
) -> tuple[list[Problem], Job | None]:
    """Problems of the angles, of each step on what the step before gives, and of the memory; the job where there are none."""
    scan = frame.geometry
    assert isinstance(scan, Scan)
    found = [Problem("scan", doubt) for doubt in angle_problems(scan)]
    first, wrong = _walked(frame, bound, searched=not found)
    outside = _outside(frame, bound)
    found += [w for w in wrong if not any(w.where == o.where and "centre" in w.message for o in outside)] + outside
    ready = [c for c in bound if c.whole]
    try:
        planned(frame, [call_of(c) for c in ready], first, options, resources)
    except FirstlightError as error:
        found.append(Problem("memory", str(error)))
    job = None
    if not found and len(ready) == len(bound):
        job = prepared(frame, bound, options, resources)
    return found, job


def _outside(frame: Frame, bound: Sequence[rec.Call]) -> list[Problem]:
    """Centres that a step states and the detector does not have."""
    out = []
    for call in bound:
        center = call.values.get("center")
        if center is not None and not np.all((np.asarray(center) >= 0) & (np.asarray(center) <= frame.shape[2] - 1)):
            out.append(Problem(call.where, f"center {center} lies outside the {frame.shape[2]} columns of the detector"))
    return out


def _walked(frame: Frame, bound: Sequence[rec.Call], searched: bool) -> tuple[Frame | None, list[Problem]]:
    """What comes out of a few rows, and each step that refuses what the one before gives it.

    A step behind one that is broken gets stand-ins of every unit, so that one mistake is not reported again by all that follow.
    searched: the axis is looked for; not where the angles are at fault, nor on stand-ins.
    """
    rows = int(np.clip(ROOM // (4 * frame.shape[0] * frame.shape[2]), 1, min(ROWS, frame.shape[1])))
    first = (frame.shape[1] - rows) // 2
    box = Box((first, 0), (first + rows, frame.shape[2]))
    few = _rows(frame, frame, box)
    found: list[Problem] = []
    now: Frame | None = few
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in bound:
            values = {k: _rows(v, frame, box) for k, v in call.values.items()}
            if not call.whole:
                now, searched = None, False
                continue
            if _search(call) and not searched and (now is None or now.unit is Unit.OPTICAL_DEPTH):
                now = _stood_in(call, values, few)
                continue
            given = now
            if given is not None:
                now, error = _tried(call, values, given)
                if error is None:
                    continue
                found.append(Problem(call.where, error))
            searched = False
            now = _centred(given) if given is not None and _search(call) else _stood_in(call, values, few, given)
    return now, found


def _centred(frame: Frame) -> Frame:
    scan = frame.geometry
    assert isinstance(scan, Scan)
    return frame.replace(geometry=replace(scan, center=(frame.shape[2] - 1) / 2))


def _search(call: rec.Call) -> bool:
    needs = needs_of(call.function)
    return needs is not None and needs.sample > 0


def _rows(value: Any, frame: Frame, box: Box) -> Any:
    if isinstance(value, list):
        return [_rows(v, frame, box) for v in value]
    if isinstance(value, Frame) and value.shape[-2:] == frame.shape[-2:]:
        part = value.crop(box)
        return part.replace(data=np.asarray(part.data))
    return value[box.start[0] : box.stop[0]] if np.ndim(value) == 1 and np.size(value) == frame.shape[1] else value


def _tried(call: rec.Call, values: Any, frame: Frame) -> tuple[Frame | None, str | None]:
    try:
        return call.function(frame, **replace(call, values=values).ready()), None
    except FirstlightError as error:
        return None, str(error)


def _stood_in(call: rec.Call, values: Any, few: Frame, given: Frame | None = None) -> Frame | None:
    """What the step makes of a stand-in of the first unit that it takes, that of `given` before others; None: it takes none."""
    few = _centred(few)
    for unit in UNITS if given is None else (given.unit, *UNITS):
        data = np.full(few.shape, INSIDE, np.float32)
        stand_in = few.replace(data=data, unit=unit, flags=None, std=None, noise=Unmodelled("a stand-in"))
        if _search(call):
            return stand_in.replace(unit=Unit.OPTICAL_DEPTH)
        done, error = _tried(call, values, stand_in)
        if error is None:
            return done
    return None
