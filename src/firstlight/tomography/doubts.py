"""What is odd about a scan's angles, in words."""

from __future__ import annotations

import numpy as np

from firstlight.calibrate.turn import SAME, arc_of
from firstlight.errors import FirstlightError
from firstlight.geometry import Scan

__all__ = ["angle_doubts", "angle_problems"]

SHORT = 2.0  # degrees that half a turn may lack


def angle_problems(scan: Scan) -> list[str]:
    """Too few angles, less than 180 degrees of them, wide gaps: one sentence each."""
    try:
        arc = arc_of(scan.angles, "angles")
    except FirstlightError as error:
        return [str(error)]
    out, span = [], float(np.degrees(arc.span))
    if span < 180 - SHORT:
        out.append(f"the angles cover {span:.1f} degrees, expected 180 or 360; are they in radians, is this the whole scan?")
    inner = np.diff(arc.angles)[arc.angles[:-1] < np.pi]
    if inner.size and float(inner.max()) > max(4 * arc.step, np.radians(2)):
        out.append(f"a gap of {np.degrees(inner.max()):.1f} degrees between projections, expected {np.degrees(arc.step):.2f}")
    return out


def angle_doubts(scan: Scan) -> list[str]:
    """The problems, and how many angles are repeated."""
    turn = np.sort(np.mod(scan.angles, 2 * np.pi))
    repeated = int(np.count_nonzero(np.diff(turn) <= SAME))
    said = f"{repeated} of {scan.angles.size} angles are there before: projections of one angle share its weight"
    return angle_problems(scan) + ([said] if repeated else [])
