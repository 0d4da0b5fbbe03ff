"""The parallel-beam Radon transform as an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.operators.gridding import Gridding
from firstlight.operators.normal import Normal
from firstlight.operators.operator import Operator

__all__ = ["radon"]

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
    centers = np.broadcast_to(np.asarray((columns - 1) / 2 if center is None else center, dtype=np.float64), (slices,))
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
