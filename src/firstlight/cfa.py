"""Colour filter arrays under crop, flip, turn and pad: what an operation does to the data, its mosaic follows.

For every operation here, with at(shape) the colour of each pixel,

    operation(mosaic, ...).at(new shape) == operation of the array mosaic.at(shape)

Crops are `Mosaic.crop`. Padding takes its values from pixels of the same colour: an outer row i gets the row r of the image
whose colours are those of row i, the nearest to the mirror row -i. An X-Trans mosaic keeps its colours that way, mirrored
about its edge it would not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.errors import FrameError
from firstlight.geometry import Mosaic

__all__ = ["extend", "flip", "pad", "same", "shift_to", "turn"]

Array = NDArray[Any]


def same(first: Mosaic, second: Mosaic) -> bool:
    """Whether both give every pixel the same colour (letter), however their patterns are written."""
    rows, cols = (int(np.lcm(a, b)) for a, b in zip(first.period, second.period, strict=True))
    one, other = (np.array(list(m.colors))[m.at((rows, cols))] for m in (first, second))
    return bool(np.array_equal(one, other))


def flip(mosaic: Mosaic, shape: tuple[int, int], axis: int) -> Mosaic:
    """The mosaic of an array (Y, X) of `shape` reversed along `axis` (0: Y, 1: X)."""
    pattern = np.flip(np.array(mosaic.pattern), axis)
    phase = list(mosaic.phase)
    phase[axis] = -phase[axis] - shape[axis]
    return replace(mosaic, pattern=_tuples(pattern), phase=(phase[0], phase[1]))


def turn(mosaic: Mosaic, shape: tuple[int, int], quarters: int) -> Mosaic:
    """The mosaic of an array (Y, X) of `shape` turned as `numpy.rot90(array, quarters)` does: counterclockwise."""
    for _ in range(quarters % 4):  # rot90 is a transpose, then Y reversed
        pattern = _tuples(np.array(mosaic.pattern).T)
        shape = (shape[1], shape[0])
        mosaic = flip(replace(mosaic, pattern=pattern, phase=mosaic.phase[::-1]), shape, 0)
    return mosaic


def pad(mosaic: Mosaic, before: tuple[int, int]) -> Mosaic:
    """The mosaic seen from `before` px above and left of its first pixel, inwards where negative."""
    return replace(mosaic, phase=(mosaic.phase[0] - before[0], mosaic.phase[1] - before[1]))


def extend(plane: Array, mosaic: Mosaic, widths: tuple[tuple[int, int], tuple[int, int]]) -> tuple[Array, Mosaic]:
    """The plane (..., Y, X) with `widths` ((top, bottom), (left, right)) px more, of pixels of like colour, and its mosaic.

    Raises FrameError where the plane is smaller than a period, so that a colour of the pattern may be missing.
    """
    shape = plane.shape[-2:]
    if shape[0] < mosaic.period[0] or shape[1] < mosaic.period[1]:
        raise FrameError(f"cfa: an image of {shape} px is smaller than its mosaic's period {mosaic.period}; give a larger one")
    cell = mosaic.cell()
    rows, cols = (_sources(c, n, *w) for c, n, w in zip((cell, cell.T), shape, widths, strict=True))
    out = plane[..., rows, :][..., cols]
    return np.ascontiguousarray(out), pad(mosaic, (widths[0][0], widths[1][0]))


def shift_to(mosaic: Mosaic, pattern: Array) -> tuple[int, int] | None:
    """The least pad (top, left) [px] after which the mosaic is `pattern` from its first pixel on; None where none does."""
    wanted = Mosaic(_tuples(np.asarray(pattern)), colors=mosaic.colors)
    for top, left in np.ndindex(wanted.period):
        if same(pad(mosaic, (top, left)), wanted):
            return top, left
    return None


def _sources(lines: Array, n: int, before: int, after: int) -> Array:
    """For each of -before ... n + after - 1 the line inside that holds the same colours, nearest to its mirror image."""
    period = len(lines)
    kinds = np.unique(lines, axis=0, return_inverse=True)[1].reshape(-1)
    out = np.arange(-before, n + after)
    inside = np.arange(n)
    for k, i in enumerate(out):
        if not 0 <= i < n:
            mirror = -i if i < 0 else 2 * (n - 1) - i
            like = inside[kinds[inside % period] == kinds[i % period]][:: 1 if i < 0 else -1]  # of two as near, the outer
            out[k] = like[np.argmin(np.abs(like - mirror))]
    return out


def _tuples(pattern: Array) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(i) for i in row) for row in pattern)
