"""Which detection is which star: one to one, nothing used twice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError

__all__ = ["match"]


def match(found: ArrayLike, truth: ArrayLike, *, radius: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (i into found, j into truth) that are each other's nearest and at most `radius` [px] apart.

    found, truth: (n, 2) and (m, 2) places (y, x) [px], finite. Pairs come in the order of `found`. Raises FrameError for
    other shapes or a negative radius.
    """
    from scipy.spatial import cKDTree

    a, b = (_places(name, p) for name, p in (("found", found), ("truth", truth)))
    if not radius >= 0:
        raise FrameError(f"match: radius {radius:g} px, expected 0 or more")
    if not len(a) or not len(b):
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    distance, there = cKDTree(b).query(a)
    _, back = cKDTree(a).query(b)
    i = np.flatnonzero((back[there] == np.arange(len(a))) & (distance <= radius))
    return i, np.asarray(there[i], dtype=np.intp)


def _places(name: str, value: Any) -> NDArray[Any]:
    points = np.asarray(value, dtype=np.float64)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2 or not np.all(np.isfinite(points)):
        raise FrameError(f"match: {name} of shape {points.shape}, expected (n, 2) finite places (y, x)")
    return points
