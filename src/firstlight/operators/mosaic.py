"""Sampling colours through a colour filter array, as a linear operator."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firstlight.errors import FrameError
from firstlight.geometry import Mosaic
from firstlight.operators.operator import Operator

__all__ = ["mosaic"]

Array = NDArray[Any]


def mosaic(pattern: ArrayLike, shape: tuple[int, int], *, phase: tuple[int, int] = (0, 0)) -> Operator:
    """The operator that takes colours (..., C, Y, X) to the samples (..., Y, X) of a mosaic, and back by its adjoint.

    pattern: colour indices (rows, cols) from 0 to C - 1; pixel (y, x) has pattern[(y + phase[0]) % rows][...]. Units are kept.
    A A^T is the identity, and A^T A keeps the samples and sets the rest to 0. Raises FrameError for no pattern of colours.
    """
    table = np.asarray(pattern)
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.size == 0:
        raise FrameError(f"operators.mosaic: a pattern of {table.dtype} {table.shape}, expected integers (rows, cols)")
    colors = int(table.max()) + 1
    cfa = Mosaic(tuple(tuple(int(i) for i in row) for row in table), phase, "RGBCMYW"[:colors])
    color = cfa.at(shape)
    mask = color == np.arange(colors)[:, None, None]

    def forward(x: Array) -> Array:
        return np.asarray(np.sum(np.where(mask, x, 0), axis=-3, dtype=x.dtype))

    def adjoint(y: Array) -> Array:
        return np.where(mask, y[..., None, :, :], y.dtype.type(0))

    return Operator(forward, adjoint, (colors, *shape), shape, lambda x: np.where(mask, x, x.dtype.type(0)))
