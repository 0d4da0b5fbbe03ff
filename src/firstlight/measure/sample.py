"""Which pixels are looked at: whole planes of small frames, blocks spread over large ones, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Frame

__all__ = ["LIMIT", "Block", "blocks", "boxes", "same_pixels"]

Array = NDArray[Any]
LIMIT = 1 << 22  # pixels looked at: figures are then good to about 0.001, in some 200 MB
SIDE = 512  # px, a block of a large frame
SEED = 20261121


class Block(NamedTuple):
    """One (Y, X) piece: its frame, data in float64 [unit], and where they may be used (unflagged and finite)."""

    frame: Frame
    data: Array
    good: Array


def boxes(shape: tuple[int, ...], limit: int = LIMIT) -> list[Box]:
    """One box per (Y, X) plane, or, above `limit` pixels, blocks of 512 x 512 drawn without replacement, seed fixed."""
    lead, (rows, cols) = shape[:-2], shape[-2:]
    if prod(shape) <= limit:
        return [Box((*i, 0, 0), (*(k + 1 for k in i), rows, cols)) for i in product(*(range(n) for n in lead))]
    grid = (*lead, ceil(rows / SIDE), ceil(cols / SIDE))
    count = max(1, limit // (SIDE * SIDE))
    chosen = np.sort(np.random.default_rng(SEED).choice(prod(grid), min(count, prod(grid)), replace=False))
    out = []
    for number in chosen:
        *at, i, j = (int(k) for k in np.unravel_index(number, grid))
        y, x = min(i * SIDE, max(rows - SIDE, 0)), min(j * SIDE, max(cols - SIDE, 0))
        out.append(Box((*at, y, x), (*(k + 1 for k in at), min(y + SIDE, rows), min(x + SIDE, cols))))
    return out


def blocks(frame: Frame, limit: int = LIMIT, edge: int = 0) -> Iterator[Block]:
    """The pieces of a frame, `edge` px along the image border left out of `good`."""
    for box in boxes(frame.shape, limit):
        part = frame.crop(box)
        plane = np.asarray(part.data, dtype=np.float64).reshape(part.shape[-2:])
        good = np.isfinite(plane)
        if part.flags is not None:
            good &= np.broadcast_to(np.asarray(part.flags), part.shape).reshape(plane.shape) == 0
        if edge:
            good &= _inside(frame.shape[-2:], box, edge)
        yield Block(part, plane, good)


def _inside(shape: tuple[int, ...], box: Box, edge: int) -> Array:
    rows, cols = (np.arange(box.start[k], box.stop[k]) for k in (-2, -1))
    return ((rows >= edge) & (rows < shape[0] - edge))[:, None] & ((cols >= edge) & (cols < shape[1] - edge))[None, :]


def same_pixels(what: str, frame: Frame, **others: Frame) -> None:
    """Raises FrameError where another frame has other axes, another shape or another unit."""
    for name, other in others.items():
        if other.shape != frame.shape:
            raise FrameError(f"{what}: {name} has shape {other.shape}, the noisy frame {frame.shape}; give the same pixels")
        if other.axes != frame.axes:
            raise FrameError(f"{what}: {name} has axes {other.axes!r}, the noisy frame {frame.axes!r}; reorder one of them")
        if other.unit != frame.unit:
            raise FrameError(f"{what}: {name} is in {other.unit}, the noisy frame in {frame.unit}; convert one of them")
