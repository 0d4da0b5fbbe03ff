"""Levels of a multiscale image by means of 2 x 2 x 2 voxels, and OME-Zarr 0.5 metadata that say so.

Axes Z, Y, X longer than one voxel are halved (odd ends average what there is) until none is longer than SMALL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.frame import Frame

__all__ = ["OME_AXES", "halved", "halvings", "metadata"]

Array = NDArray[Any]
OME_AXES = "TCZYX"
KINDS = {"T": "time", "C": "channel"}
SMALL = 256


def halvings(axes: str, shape: Sequence[int], levels: int | None = None) -> list[tuple[int, ...]]:
    """Per level but the first, by how much each axis is halved again (1 or 2); at most `levels` levels with the first."""
    found: list[tuple[int, ...]] = []
    size = list(shape)
    most = levels if levels is not None else 16
    while len(found) + 1 < most and max(n for a, n in zip(axes, size, strict=True) if a in "ZYX") > SMALL:
        step = tuple(2 if a in "ZYX" and n > 1 else 1 for a, n in zip(axes, size, strict=True))
        size = [-(-n // f) for n, f in zip(size, step, strict=True)]
        found.append(step)
    return found


def halved(block: Array, factors: Sequence[int]) -> Array:
    """Means over 2 voxels along the axes of factor 2, in the block's type (integers to the nearest); odd ends stand alone."""
    exact = block.dtype == np.float64 or (block.dtype.kind in "iu" and block.dtype.itemsize > 2)
    total: Array = block if block.dtype.kind == "f" else block.astype(np.float64 if exact else np.float32)
    for axis, factor in enumerate(factors):
        if factor == 2:
            total = _pairs(total, axis)
    mean: Array = total / total.dtype.type(np.prod(factors))
    out: Array = mean if block.dtype.kind == "f" else np.rint(mean)
    return np.asarray(out, dtype=block.dtype)


def _pairs(array: Array, axis: int) -> Array:
    """Sums of neighbours along an axis, twice the last of an odd number."""
    lead = (slice(None),) * axis
    even, odd = array[(*lead, slice(0, None, 2))], array[(*lead, slice(1, None, 2))]
    if even.shape == odd.shape:
        return np.asarray(even + odd)
    out = np.array(even)
    out[(*lead, slice(0, -1))] += odd
    out[(*lead, slice(-1, None))] *= 2
    return out


def metadata(like: Frame, steps: Sequence[Sequence[int]]) -> dict[str, Any]:
    """OME-Zarr 0.5 metadata of one image with the levels 0, 1, ...: scale and centre of the first voxel in micrometre."""
    axes = [
        {"name": a.lower(), "type": KINDS.get(a, "space")} | ({"unit": "micrometer"} if a in like.spacing else {})
        for a in like.axes
    ]
    spacing = np.array([float(like.spacing.get(a, 1.0)) for a in like.axes])
    factor = np.ones(len(spacing))
    datasets: list[dict[str, Any]] = []
    for i, step in enumerate([np.ones(len(spacing)), *steps]):
        factor = factor * np.asarray(step)
        moves: list[dict[str, Any]] = [{"type": "scale", "scale": (spacing * factor).tolist()}]
        if i:
            moves.append({"type": "translation", "translation": (spacing * (factor - 1) / 2).tolist()})
        datasets.append({"path": str(i), "coordinateTransformations": moves})
    image = {"name": "image", "axes": axes, "datasets": datasets} | ({"type": "mean"} if steps else {})
    return {"version": "0.5", "multiscales": [image]}
