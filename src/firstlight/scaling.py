"""Reversible fixed scalings between electrons and the numbers a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace as _replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.frame import Frame, Unit
from firstlight.noise import Unmodelled

__all__ = ["Scaling", "scale", "unscale"]


@dataclass(frozen=True)
class Scaling:
    """scaled = (x + offset) / scale; x and offset in the frame's unit, scale in the same unit, `scaled` dimensionless.

    Raises FrameError for a scale that is not positive.
    """

    scale: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise FrameError(f"scaling: scale {self.scale}, expected a positive number")

    def apply(self, x: ArrayLike) -> NDArray[Any]:
        """Scaled values, float32, of `x` [unit]; computed in double precision and rounded once."""
        if getattr(x, "dtype", None) == np.float32 and not self.offset and float(np.float32(self.scale)) == self.scale:
            # the same bits: a quotient of two singles rounds alike by way of a double (Figueroa 1995, SIGNUM Newsl. 30, 21)
            return np.asarray(np.divide(x, np.float32(self.scale)))
        scaled = np.array(x, dtype=np.float64)
        if self.offset:
            scaled += self.offset
        scaled /= self.scale
        return scaled.astype(np.float32)

    def invert(self, scaled: ArrayLike) -> NDArray[Any]:
        """The values [unit], float32, that `apply` scaled: within 2 ulp of max(|x|, offset)."""
        return np.asarray(np.asarray(scaled, dtype=np.float64) * self.scale - self.offset, dtype=np.float32)


def scale(frame: Frame, *, scale: float, offset: float = 0.0) -> Frame:
    """The frame as (x + offset) / scale, float32, dimensionless; scale and offset in electrons, as in `Scaling`.

    Noise, std and saturation go along. Raises FrameError for a scale that is not positive or a frame not in electrons.
    """
    frame.need("scaling.scale", Unit.ELECTRON)
    data = Scaling(scale, offset).apply(frame.data)
    moved = _moved(frame, 1 / scale, offset / scale)
    return frame.then("scaling.scale", {"scale": scale, "offset": offset}, data=data, unit=Unit.ARBITRARY, **moved)


def unscale(frame: Frame, *, scale: float, offset: float = 0.0) -> Frame:
    """The electrons, float32, that `scale` scaled: x * scale - offset; noise, std and saturation go along.

    Raises FrameError for a scale that is not positive or a frame not in arbitrary units.
    """
    frame.need("scaling.unscale", Unit.ARBITRARY)
    data = Scaling(scale, offset).invert(frame.data)
    moved = _moved(frame, scale, -offset)
    return frame.then("scaling.unscale", {"scale": scale, "offset": offset}, data=data, unit=Unit.ELECTRON, **moved)


def _moved(frame: Frame, k: float, shift: float) -> dict[str, Any]:
    """What moves along with data that become k x + shift."""
    level = frame.observation.saturation
    return {
        "noise": frame.noise if isinstance(frame.noise, Unmodelled) else frame.noise.scaled(k).shifted(shift),
        "std": None if frame.std is None else np.asarray(frame.std) * np.float32(k),
        "observation": frame.observation if level is None else _replace(frame.observation, saturation=level * k + shift),
    }
