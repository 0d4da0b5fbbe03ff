"""Reversible fixed scalings between electrons and the numbers a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError

__all__ = ["Scaling"]


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
        return np.asarray((np.asarray(x, dtype=np.float64) + self.offset) / self.scale, dtype=np.float32)

    def invert(self, scaled: ArrayLike) -> NDArray[Any]:
        """The values [unit], float32, that `apply` scaled: within 2 ulp of max(|x|, offset)."""
        return np.asarray(np.asarray(scaled, dtype=np.float64) * self.scale - self.offset, dtype=np.float32)
