"""Laminography: flat samples whose rotation axis leans towards the beam, by filtered backprojection."""

from __future__ import annotations

import numpy as np

from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.restore.reconstruct import EDGE, scan_of, volume

__all__ = ["laminography"]

STEP = "restore.laminography"


def laminography(
    frame: Frame,
    *,
    tilt: float,
    height: int | None = None,
    filter: str = "ramp",
    center: float | None = None,
    row: float | None = None,
    size: int | None = None,
    padding: str = "edge",
    workers: int | None = None,
) -> Frame:
    """Attenuation (Z, Y, X) [1/mm, float32] of optical depth (A, Y, X) taken about a tilted axis, which Z follows.

    tilt [degrees]: between the rotation axis and the beam; 90 is reconstruct's linerec, 60 an axis that leans by 30. height
    [px]: slices, as many as detector rows by default. row [px along Y]: where the volume's centre falls on the detector, its
    middle by default. filter, center [px along X, one for all rows], size, padding: as of reconstruct. Each row goes through
    the ramp, times sin(tilt) for the way that a plane of frequencies turns. The angles should make a full turn; frequencies
    within |90 - tilt| of the axis are never seen, the mean of each slice among them, and what falls beyond the detector counts
    as zero. It needs all detector rows at once. Noise becomes Unmodelled. Helfen et al. (2005), Appl.
    Phys. Lett. 86, 071915. Raises FrameError for another unit, no centre, a tilt outside 0..180 or what is not finite.
    """
    from firstlight.operators import lamino
    from firstlight.operators.backproject import filtered
    from firstlight.operators.ramp import angle_weights

    if padding not in ("edge", "zero"):
        raise FrameError(f"{STEP}: padding {padding!r}, expected edge or zero")
    scan, data, centers = scan_of(frame, STEP, center)
    if np.ptp(centers) != 0:
        raise FrameError(f"{STEP}: centres from {centers.min():g} to {centers.max():g} px; give one for all rows")
    at = float(centers[0])
    operator = lamino(
        scan.angles, data.shape[2], data.shape[1], tilt=tilt, center=at, row=row, size=size, height=height, workers=workers
    )
    q = filtered(data, filter, EDGE if padding == "edge" else 0)
    q *= (angle_weights(scan.angles) * np.sin(np.deg2rad(tilt))).astype(np.float32)[:, None, None]
    slices = operator.adjoint(q)
    params = {"tilt": tilt, "height": slices.shape[0], "filter": filter, "center": at, "row": row, "size": slices.shape[1]}
    return volume(frame, slices, None, STEP, params | {"padding": padding})
