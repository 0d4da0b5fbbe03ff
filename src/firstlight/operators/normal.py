"""A^T W A of a parallel-beam scan as a convolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from firstlight.operators.gridding import Gridding

__all__ = ["Normal"]

Array = NDArray[Any]


class Normal:
    """A^T W A of images (S, size, size) by two FFTs of twice their side: no projector.

    weights (A,): of each projection, 1 by default. It equals the pair of `radon` for objects inside the circle that the
    detector sees, where no projection is cut. Feichtinger, Groechenig and Strohmer (1995) for irregular sampling.
    """

    def __init__(self, grid: Gridding, weights: Array | None = None) -> None:
        self.size = n = grid.size
        self.side = int(fft.next_fast_len(2 * n))
        wide = Gridding(grid.angles, grid.columns, size=2 * n, width=grid.width, filtered=False, pairs=1, workers=1)
        share = np.ones(grid.angles.size) if weights is None else np.asarray(weights, dtype=np.float64)
        waves = np.repeat(share[:, None] / grid.width, grid.width // 2 + 1, axis=1).astype(np.complex64)
        waves[:, -1] = 0
        kernel = np.zeros((self.side, self.side))
        at = (np.arange(2 * n) - n) % self.side
        kernel[np.ix_(at, at)] = wide.points(waves)
        kernel[at[0], :] = kernel[:, at[0]] = 0  # distance n has no partner at -n, and no two pixels lie n apart
        self.transform = fft.fft2(kernel).real.astype(np.float32) / self.side**2

    def __call__(self, images: Array) -> Array:
        """A^T W A x, images and result (S, size, size) float32."""
        x = np.asarray(images, dtype=np.float32)
        out = np.empty_like(x)
        work = np.empty((self.side, self.side), np.complex64)
        n = self.size
        for i in range(0, len(x), 2):
            work[:n, n:] = 0
            work[n:] = 0
            work[:n, :n].real = x[i]
            work[:n, :n].imag = x[i + 1] if i + 1 < len(x) else 0
            fft.fft(work[:n], axis=1, overwrite_x=True)  # in place, and only the rows that are not zero
            fft.fft(work, axis=0, overwrite_x=True)
            work *= self.transform
            fft.ifft(work, axis=0, norm="forward", overwrite_x=True)
            fft.ifft(work[:n], axis=1, norm="forward", overwrite_x=True)
            out[i] = work[:n, :n].real
            if i + 1 < len(x):
                out[i + 1] = work[:n, :n].imag
        return out
