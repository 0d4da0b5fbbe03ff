"""The gridding kernel: Kaiser-Bessel, four cells wide, on a grid finer than the image needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.special import i0

__all__ = ["OVER", "WIDTH", "Kernel", "grid_side", "kernel"]

WIDTH = 4
OVER = 1 << 14  # table entries per cell: rounding to the nearest is then below the kernel's own error
# (cells per pixel, factor on the shape parameter of Beatty et al. 2005), by the error on smooth phantoms at N = 512. What the
# ramp has filtered vanishes outside the field, so nothing folds in and low side lobes pay; plain projections do not vanish.
FILTERED = (1.25, 1.4)
PLAIN = (2.0, 1.1)


@dataclass(frozen=True, eq=False)
class Kernel:
    """table (OVER + 1, 4): the weights of cells -1, 0, 1, 2 for a sample at i / OVER; entry OVER - i has them reversed.

    correction: 1 over the kernel's transform at each pixel, with (-1)^n.
    """

    table: NDArray[np.float32]
    correction: NDArray[np.float32]


def grid_side(size: int, filtered: bool) -> int:
    """Even number of cells along each side of the grid for an image of `size` pixels."""
    ratio = (FILTERED if filtered else PLAIN)[0]
    return 2 * int(next_fast_len(math.ceil(ratio * size / 2)))


def kernel(size: int, side: int, filtered: bool) -> Kernel:
    """The kernel for `size` pixels centred on a grid of `side` cells; Jackson et al. (1991), Fessler and Sutton (2003)."""
    ratio = side / size
    beta = (FILTERED if filtered else PLAIN)[1] * math.pi * math.sqrt((WIDTH / ratio * (ratio - 0.5)) ** 2 - 0.8)
    u = np.abs(np.arange(OVER + 1)[:, None] / OVER - (np.arange(WIDTH) - 1))
    table = np.where(u < WIDTH / 2, i0(beta * np.sqrt(np.maximum(0, 1 - (2 * u / WIDTH) ** 2))) / i0(beta), 0)
    n = np.arange(size) - size // 2
    z = np.sqrt((beta**2 - (math.pi * WIDTH * n / side) ** 2).astype(np.complex128))
    transform = (WIDTH * np.sinh(z) / z).real / i0(beta)
    return Kernel(table.astype(np.float32), ((-1.0) ** n / transform).astype(np.float32))
