"""Highlights: where a colour has reached its ceiling its true amount is unknown, so that hue is given up, not invented."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter, uniform_filter

from firstlight.develop.colour import LUMA
from firstlight.errors import FrameError
from firstlight.frame import Flag, Frame
from firstlight.geometry import Mosaic

__all__ = ["neutral", "reached"]

Array = NDArray[Any]
ROWS = 32  # rows worked on at once, which a cache holds
LOST = Flag.COSMIC_RAY | Flag.HOT | Flag.DEAD | Flag.DEFECT | Flag.NO_DATA


def reached(frame: Frame, mosaic: Mosaic | None = None) -> NDArray[np.bool_]:
    """Pixels (Y, X) to whose colours a saturated sample contributes: those flagged, and within half a period around them.

    Flags (Y, X) or (C, Y, X); defect pixels are replaced by their neighbours, and left out. mosaic: what the samples were of.
    """
    if frame.flags is None:
        return np.zeros(frame.shape[-2:], dtype=bool)
    flags = np.asarray(frame.flags)
    hit = ((flags & int(Flag.SATURATED)) != 0) & ((flags & int(LOST)) == 0)
    plane = np.broadcast_to(np.any(hit, axis=0) if hit.ndim == 3 else hit, frame.shape[-2:])
    if mosaic is None or not plane.any():
        return np.asarray(plane)
    size = 2 * (max(mosaic.period) // 2) + 1
    return np.asarray(maximum_filter(plane.astype(np.uint8), size)).astype(bool)


def neutral(frame: Frame, *, saturated: ArrayLike, ceilings: Sequence[float], knee: float = 0.95, feather: int = 2) -> Frame:
    """Balanced camera colours (C, Y, X), grey where any colour is saturated: of the same luminance, never magenta.

    saturated: (Y, X) or (C, Y, X) of pixels whose colours a saturated sample entered. ceilings: level [unit] at which each
    colour saturates. x' = x + w (L - x), L the luminance: w is 1 at those pixels and falls to 0 over 2 `feather` + 1 px, and
    rises from 0 to 1 as a colour goes from `knee` to 1 of its ceiling. Grey stays grey under a matrix that keeps white, so
    that the same may be done before or after one.
    Raises FrameError for another frame, mask or ceilings.
    """
    mask = np.asarray(saturated, dtype=bool)
    mask = np.asarray(mask.any(axis=0)) if mask.ndim == 3 else mask
    top = np.asarray(ceilings, dtype=np.float32)
    if frame.axes != "CYX" or top.shape != (frame.shape[0],) or mask.shape != frame.shape[-2:] or frame.shape[0] != 3:
        raise FrameError(
            f"develop.neutral: axes {frame.axes!r}, shape {frame.shape}, mask {mask.shape}, {top.size} ceilings; "
            "expected R, G and B (CYX), a mask (Y, X) and a ceiling a colour"
        )
    if not (np.all(top > 0) and 0 < knee < 1 and feather >= 0):
        raise FrameError(f"develop.neutral: ceilings {list(ceilings)}, knee {knee:g}, feather {feather}; see its documentation")
    data = np.asarray(frame.data)
    out = np.empty(data.shape, dtype=np.result_type(data.dtype, np.float32))
    for y in range(0, data.shape[1], ROWS):
        part = np.s_[:, y : y + ROWS]
        out[part] = _towards_grey(data[part], _weight(mask, y, feather), top, knee)
    told = {"ceilings": [float(c) for c in ceilings], "knee": knee, "feather": feather}
    return frame.then("develop.neutral", told, data=out)


def _weight(mask: Array, y: int, feather: int) -> Array:
    """Of rows y to y + ROWS: 1 on the mask, falling to 0 outside."""
    low, high = max(0, y - 2 * feather), min(len(mask), y + ROWS + 2 * feather)
    wide = mask[low:high]
    if not wide.any():
        return np.zeros((min(len(mask), y + ROWS) - y, mask.shape[1]), dtype=np.float32)
    grown = maximum_filter(wide.astype(np.uint8), 2 * feather + 1).astype(np.float32)
    return np.asarray(uniform_filter(grown, 2 * feather + 1)[y - low :][:ROWS])


def _towards_grey(rgb: Array, weight: Array, top: Array, knee: float) -> Array:
    if not weight.any() and np.all(rgb.max(axis=(1, 2)) <= knee * top):
        return rgb
    share = ((rgb / top[:, None, None]).max(axis=0) - knee) / (1 - knee)
    t = np.clip(share, 0, 1)
    w = np.maximum(np.clip(weight, 0, 1), t * t * (3 - 2 * t))
    grey = np.tensordot(LUMA.astype(rgb.dtype), rgb, axes=1)
    return np.asarray(rgb + w * (grey - rgb))
