"""The parallel-beam Radon transform as an operator: by gridding, by linear interpolation, and with a tilted axis."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.operators.gridding import Gridding
from firstlight.operators.normal import Normal
from firstlight.operators.operator import Operator

__all__ = ["lamino", "radon", "radon_line"]

Array = NDArray[Any]


def radon(
    angles: ArrayLike,
    columns: int,
    *,
    center: float | ArrayLike | None = None,
    size: int | None = None,
    slices: int = 1,
    pairs: int = 8,
    workers: int | None = None,
    convolution: bool = True,
) -> Operator:
    """Line integrals (A, slices, X) [unit x px] of images (slices, size, size), float32, with the exact adjoint.

    angles (A,) [rad]; columns: detector pixels; center [px]: the rotation axis, (columns - 1) / 2 by default, one for all
    slices or one each; size [px]: `columns` by default. Image x grows with the column, y with the row; the detector sees
    x cos t + y sin t + center. `normal` is a convolution (convolution=True), equal to the pair for objects inside the circle
    that the detector sees; else it is the pair. Raises FrameError for shapes that do not fit.
    """
    grid = Gridding(np.asarray(angles, dtype=np.float64), columns, size=size, filtered=False, pairs=pairs, workers=workers)
    centers = _centers("radon", center, columns, slices)
    response = grid.phases(float(centers.mean()), nyquist=0.0)
    turns = None if np.ptp(centers) == 0 else (centers - centers.mean()) / grid.width
    normal = Normal(grid) if convolution else None
    return Operator(
        lambda x: grid.forward(x, response, turns=turns),
        lambda y: grid.adjoint(y, response, turns=turns),
        (slices, grid.size, grid.size),
        (grid.angles.size, slices, columns),
        normal,
    )


def radon_line(
    angles: ArrayLike,
    columns: int,
    *,
    center: float | ArrayLike | None = None,
    size: int | None = None,
    slices: int = 1,
    workers: int | None = None,
) -> Operator:
    """`radon` by linear interpolation, pixel by pixel: its adjoint is the plain backprojection. Arguments as of `radon`.

    Slower and smoother than `radon`; nothing rings, and nothing negative comes of what is not. Raises FrameError for shapes
    that do not fit.
    """
    from firstlight.operators.backproject import backproject, project

    t, side = np.asarray(angles, dtype=np.float64), columns if size is None else size
    if t.ndim != 1 or t.size < 1 or columns < 2 or side < 1 or not np.all(np.isfinite(t)):
        raise FrameError(
            f"radon_line: angles of shape {t.shape}, {columns} columns, size {side}; expected at least 1 (finite), 2, 1"
        )
    centers = _centers("radon_line", center, columns, slices)
    threads = workers or len(os.sched_getaffinity(0))
    return Operator(
        lambda x: project(x, t, centers, columns, workers=threads),
        lambda y: backproject(y, t, centers, side, workers=threads),
        (slices, side, side),
        (t.size, slices, columns),
    )


def lamino(
    angles: ArrayLike,
    columns: int,
    rows: int,
    *,
    tilt: float,
    center: float | None = None,
    row: float | None = None,
    size: int | None = None,
    height: int | None = None,
    workers: int | None = None,
) -> Operator:
    """Line integrals (A, rows, columns) [unit x px] of a volume (height, size, size), float32, about a tilted axis.

    angles (A,) [rad]; tilt [degrees]: between the rotation axis and the beam, 90 where they are perpendicular (`radon_line`).
    center [px along columns], row [px along rows]: where the volume's centre falls, the detector's middle by default. size,
    height [px]: of the volume, columns and rows by default. A point (x, y, z) from the centre falls on column x cos t + y sin t
    + center and row z sin(tilt) + (y cos t - x sin t) cos(tilt) + row; bilinear, with the exact adjoint. Helfen et al. (2005),
    Appl. Phys. Lett. 86, 071915. Raises FrameError for a tilt that is not between 0 and 180 or shapes that do not fit.
    """
    from firstlight.operators.tilted import backproject, project

    t, side = np.asarray(angles, dtype=np.float64), columns if size is None else size
    deep = rows if height is None else height
    if t.ndim != 1 or t.size < 1 or columns < 2 or min(rows, side, deep) < 1 or not np.all(np.isfinite(t)):
        raise FrameError(
            f"lamino: angles of shape {t.shape}, {columns} columns, {rows} rows, size {side}, height {deep}; "
            "expected at least 1 (finite), 2, 1, 1, 1"
        )
    if not 0 < tilt < 180:
        raise FrameError(f"lamino: tilt {tilt:g} degrees, expected between 0 and 180; 90 is a rotation axis across the beam")
    lean, threads = float(np.deg2rad(tilt)), workers or len(os.sched_getaffinity(0))
    at = (columns - 1) / 2 if center is None else center
    level = (rows - 1) / 2 if row is None else row
    return Operator(
        lambda x: project(x, t, lean, at, level, np.empty((t.size, rows, columns), np.float32), workers=threads),
        lambda y: backproject(y, t, lean, at, level, np.empty((deep, side, side), np.float32), workers=threads),
        (deep, side, side),
        (t.size, rows, columns),
    )


def _centers(what: str, center: float | ArrayLike | None, columns: int, slices: int) -> Array:
    """The rotation axis of each slice [px]."""
    found = np.asarray((columns - 1) / 2 if center is None else center, dtype=np.float64)
    if slices < 1 or found.shape not in ((), (1,), (slices,)) or not np.all(np.isfinite(found)):
        raise FrameError(
            f"{what}: centre of shape {found.shape} for {slices} slices, expected one finite number [px], or one a slice"
        )
    return np.broadcast_to(found, (slices,))
