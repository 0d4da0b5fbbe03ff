"""A^T W A of a parallel-beam scan as a convolution."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from firstlight.operators.gridding import Gridding

__all__ = ["Normal"]

Array = NDArray[Any]
COLUMNS = 64  # columns transformed at a time: with the padded column they stay in the cache


class Normal:
    """A^T W A of images (S, size, size) by two FFTs of twice their side: no projector.

    weights (A,): of each projection, 1 by default. It equals the pair of `radon` for objects inside the circle that the
    detector sees, where no projection is cut. Feichtinger, Groechenig and Strohmer (1995) for irregular sampling.
    """

    def __init__(self, grid: Gridding, weights: Array | None = None) -> None:
        self.size = n = grid.size
        self.side = 2 * int(fft.next_fast_len(n))
        wide = Gridding(grid.angles, grid.columns, size=2 * n, width=grid.width, filtered=False, pairs=1, workers=1)
        share = np.ones(grid.angles.size) if weights is None else np.asarray(weights, dtype=np.float64)
        waves = np.repeat(share[:, None] / grid.width, grid.width // 2 + 1, axis=1).astype(np.complex64)
        waves[:, -1] = 0
        kernel = np.zeros((self.side, self.side))
        at = (np.arange(2 * n) - n) % self.side
        kernel[np.ix_(at, at)] = wide.points(waves)
        kernel[at[0], :] = kernel[:, at[0]] = 0  # distance n has no partner at -n, and no two pixels lie n apart
        self.transform = fft.fft2(kernel).real.astype(np.float32) / self.side**2
        self._spare: SimpleQueue[tuple[Array, Array]] = SimpleQueue()

    def __call__(self, images: Array, out: Array | None = None) -> Array:
        """A^T W A x, images and result (S, size, size) float32; may be called from several threads."""
        x = np.asarray(images, dtype=np.float32)
        out = np.empty_like(x) if out is None else out
        work = self._borrow()
        for i in range(0, len(x), 2):
            self._pair(x[i : i + 2], out[i : i + 2], *work)
        self._spare.put(work)
        return out

    def circulant(self) -> Array:
        """The symbol (side / 2, side / 2) float64 of the best periodic stand-in on a grid of half the side.

        T. Chan (1988): each distance and its alias, weighted by how many pairs of pixels have them.
        """
        m = self.side // 2
        kernel = fft.ifft2(self.transform).real * self.side**2
        near = np.arange(m) / m
        far = np.r_[0, np.arange(self.side - m + 1, self.side)]  # the distances j - m that j stands for as well
        rows = (1 - near)[:, None] * kernel[:m] + near[:, None] * kernel[far]
        both = (1 - near) * rows[:, :m] + near * rows[:, far]
        symbol: Array = fft.fft2(both).real
        return symbol

    def _pair(self, x: Array, out: Array, rows: Array, block: Array) -> None:
        """Two slices as one complex image. Columns go in blocks that stay in the cache, and only rows that are not zero."""
        n = self.size
        rows[:, n:] = 0
        pack(x, rows[:, :n])
        fft.fft(rows, axis=1, overwrite_x=True)
        for first in range(0, self.side, COLUMNS):
            part = slice(first, min(first + COLUMNS, self.side))
            tall = block[:, : part.stop - part.start]
            tall[:n] = rows[:, part]
            tall[n:] = 0
            fft.fft(tall, axis=0, overwrite_x=True)
            tall *= self.transform[:, part]
            fft.ifft(tall, axis=0, norm="forward", overwrite_x=True)
            rows[:, part] = tall[:n]
        fft.ifft(rows, axis=1, norm="forward", overwrite_x=True)
        unpack(rows[:, :n], out)

    def _borrow(self) -> tuple[Array, Array]:
        with suppress(Empty):
            return self._spare.get_nowait()
        return np.empty((self.size, self.side), np.complex64), np.empty((self.side, COLUMNS), np.complex64)


def pack(x: Array, z: Array) -> None:
    """One or two real images (S, Y, X) as one complex one (Y, X)."""
    z.real = x[0]
    z.imag = x[1] if len(x) > 1 else 0


def unpack(z: Array, out: Array) -> None:
    """The inverse of `pack`."""
    out[0] = z.real
    if len(out) > 1:
        out[1] = z.imag


def power(gram: Callable[[Array], Array], size: int, steps: int = 12) -> float:
    """The largest eigenvalue of a symmetric operator on (1, size, size), by power iteration from fixed noise."""
    x = np.random.default_rng(0).standard_normal((1, size, size)).astype(np.float32)
    found = 0.0
    for _ in range(steps):
        x /= np.linalg.norm(x)
        y = gram(x)
        found = float(np.linalg.norm(y))
        x = y.copy()
    return found
