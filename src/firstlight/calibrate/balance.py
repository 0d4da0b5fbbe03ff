"""White balance: each colour times its multiplier, green's 1, with its noise and levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.calibrate.detector import floated
from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.geometry import Mosaic
from firstlight.noise import Noise, spread

__all__ = ["multipliers_of", "white_balance"]

Array = NDArray[Any]


def white_balance(frame: Frame, *, multipliers: Sequence[float] | None = None) -> Frame:
    """A mosaic (Y, X) or colours (C, Y, X), each colour times its multiplier over green's; same unit, float.

    multipliers: one a colour of the mosaic (of CYX: R, G, B); None: those of the observation, which become 1. With x' = g x
    the noise is a' = g a, b' = g^2 b, c' = c, d' = g^2 d; black level and saturation are times g, per phase of the mosaic:
    colours saturate at levels of their own from here on. Negatives are kept. Raises FrameError for another frame, or
    multipliers that are absent, not positive, or not one a colour.
    """
    gains = multipliers_of(frame, multipliers)
    cell = _cell(frame, gains)
    data = floated(frame)
    full = np.asarray(spread(cell, frame.shape), dtype=data.dtype)
    seen = frame.observation
    offset, saturation = (None if v is None else _times(v, cell, frame) for v in (seen.offset, seen.saturation))
    return frame.then(
        "calibrate.white_balance",
        {"multipliers": [float(g) for g in gains]},
        data=data * full,
        noise=frame.noise.scaled(cell) if isinstance(frame.noise, Noise) else frame.noise,
        std=None if frame.std is None else np.asarray(frame.std * full),
        observation=replace(seen, white_balance=(1.0,) * gains.size, offset=offset, saturation=saturation),
    )


def multipliers_of(frame: Frame, multipliers: Sequence[float] | None = None) -> Array:
    """Multipliers (C,) of each colour, green's 1, float64: those given, or the frame's own. Raises FrameError."""
    colors = frame.geometry.colors if isinstance(frame.geometry, Mosaic) else "RGB"
    given = frame.observation.white_balance if multipliers is None else multipliers
    if given is None:
        raise FrameError(f"white balance: the file states no multipliers; give one for each of {', '.join(colors)}")
    gains = np.asarray(given, dtype=np.float64)
    if gains.shape != (len(colors),) or not (np.all(np.isfinite(gains)) and np.all(gains > 0)):
        raise FrameError(
            f"white balance: multipliers {list(given)}, expected a positive number for each of {', '.join(colors)}"
        )
    return np.asarray(gains / (gains[colors.index("G")] if "G" in colors else gains.min()))


def _cell(frame: Frame, gains: Array) -> Array:
    if isinstance(frame.geometry, Mosaic) and frame.axes == "YX":
        return np.asarray(gains[frame.geometry.cell()])
    if frame.axes == "CYX" and frame.shape[0] == gains.size:
        return gains[:, None, None]
    raise FrameError(f"white balance: axes {frame.axes!r} of shape {frame.shape}, expected a mosaic (YX) or its colours (CYX)")


def _times(level: Any, cell: Array, frame: Frame) -> Any:
    if np.ndim(level) == 0 or np.shape(level) == cell.shape:
        return 0.0 if not np.any(level) else level * cell
    return np.asarray(spread(np.asarray(level), frame.shape)) * spread(cell, frame.shape)
