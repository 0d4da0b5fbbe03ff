"""The eight symmetries of the pixel grid, and what an estimator says under each of them, averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COUNT", "averaged", "turn"]

Array = NDArray[Any]
COUNT = 8


def turn(part: Array, which: int, *, back: bool = False) -> Array:
    """An array (..., Y, X) under symmetry `which` 0..7: quarter turns, from 4 on a flip of X after them; `back` undoes it."""
    if back:
        part = part[..., ::-1] if which >= 4 else part
        return np.rot90(part, -which % 4, axes=(-2, -1))
    part = np.rot90(part, which % 4, axes=(-2, -1))
    return part[..., ::-1] if which >= 4 else part


def averaged(ask: Callable[[Array], tuple[Array, Array | None]], z: Array, multiple: int) -> tuple[Array, Array | None]:
    """Mean estimate of z (Y, X) over the symmetries, and its log-variance, None where `ask` gives none; float32 (Y, X).

    ask: z to an estimate m and the logarithm s of its variance. multiple: z is continued by its border to lengths that are
    multiples of it, so that turned blocks meet the network's grid as the turned whole does. m_k being the estimates and M
    their mean, the variance of M is

        mean e^s_k - mean (m_k - M)^2,

    since the error of a mean is the mean error less the spread (Krogh & Vedelsby, NIPS 1995); but no less than 1/8 of
    mean e^s_k, what independent errors would leave.
    """
    height, width = z.shape
    padded = np.pad(z, [(0, -height % multiple), (0, -width % multiple)], mode="edge")
    first, log_variance = ask(padded)
    off, square, error = (np.zeros(padded.shape, dtype=np.float32) for _ in range(3))
    for k in range(COUNT):
        found, log_variance = ask(np.ascontiguousarray(turn(padded, k))) if k else (first, log_variance)
        gap = turn(found, k, back=True) - first  # from the first: squares of differences lose no digits
        off += gap / COUNT
        square += gap**2 / COUNT
        if log_variance is not None:
            error += np.exp(turn(log_variance, k, back=True)) / COUNT
    own = (slice(height), slice(width))
    known = None if log_variance is None else np.log(np.maximum(error - (square - off**2), error / COUNT))[own]
    return (first + off)[own], known
