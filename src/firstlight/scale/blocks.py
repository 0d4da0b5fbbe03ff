"""Running a local step over frames larger than memory: read, compute and write overlapped by threads.

A step is local where it declares `halo`, the pixels it looks beyond its own along Y and X (a number, or a function of
the frame and the step's parameters). At most `memory` bytes are in use:
`workers` blocks with their halos being computed, and the room of one more for results that wait to be written in order.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import Any, Protocol

import numpy as np

from firstlight.box import Box
from firstlight.errors import FrameError
from firstlight.frame import Frame
from firstlight.tiles import Tile, plan

__all__ = ["Sink", "around", "bands", "map_blocks"]

BYTES_PER_PIXEL = 128  # measured peak of the non-local means per pixel read: noise maps, float64, std; plain: 98
MEMORY = 1 << 30


class Sink(Protocol):
    """What takes blocks, in order: an `io.Writer`, or an array in memory."""

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Data [unit] at `box` (all axes), and their standard error where there is one."""


def around(frame: Frame, box: Box, *, halo: int, multiple: int = 1) -> Box:
    """What must be read for a step to give in `box` (all axes) what it gives on the whole frame; see `map_blocks`."""
    phase = [multiple * p for p in frame.period()]
    start = tuple(max(0, a - halo) // p * p for a, p in zip(box.start[-2:], phase, strict=True))
    stop = tuple(min(n, b + halo) for b, n in zip(box.stop[-2:], frame.shape[-2:], strict=True))
    return Box((*box.start[:-2], *start), (*box.stop[:-2], *stop))


def bands(
    frame: Frame, halo: int, memory: int = MEMORY, workers: int = 2, multiple: int = 1
) -> list[tuple[tuple[int, ...], Tile]]:
    """(leading index, tile over (Y, X)) in C order; tiles start at multiples of `multiple` periods of the mosaic.

    Raises FrameError where not even one period of rows with its halo fits the memory.
    """
    height, width = frame.shape[-2:]
    phase = (multiple * frame.period()[0], multiple * frame.period()[1])
    room = memory // ((workers + 1) * BYTES_PER_PIXEL)  # pixels of one block, its halo included
    cols = width
    while cols > 4096 and room // cols < 8 * halo + 64:
        cols = -(-cols // 2)
    rows = min(height, max(1, room // cols), 2048)
    least = 2 * halo + phase[0]
    if rows < min(height, least):
        raise FrameError(
            f"blocks: {memory >> 20} MiB hold {rows} rows of {cols} px, expected at least {least}; give more memory"
        )
    tiles = plan((height, width), (rows, cols), (halo, halo if cols < width else 0), phase=phase)
    return [(lead, t) for lead in product(*(range(n) for n in frame.shape[:-2])) for t in tiles]


def map_blocks(
    step: Callable[[Frame], Frame],
    frame: Frame,
    out: Sink,
    *,
    halo: int,
    multiple: int = 1,
    memory: int = MEMORY,
    workers: int | None = None,
    tick: Callable[[int, int], None] | None = None,
) -> None:
    """Apply a local `step` to every plane of `frame` block by block and put data (and std) into `out`, in order.

    multiple: blocks start at multiples of so many periods of the mosaic (pixels without one), as a network's grid demands.
    `tick(done, total)` is called after each block. The result equals the step on the whole frame where its halo is honest.
    """
    workers = workers or min(8, os.cpu_count() or 1)
    jobs = bands(frame, halo, memory, workers, multiple)
    with ThreadPoolExecutor(workers) as pool:
        for done, (box, data, std) in enumerate(_in_flight(pool, workers, step, frame, jobs), 1):
            out.put(box, data, std)
            if tick:
                tick(done, len(jobs))


def _in_flight(
    pool: ThreadPoolExecutor,
    workers: int,
    step: Callable[[Frame], Frame],
    frame: Frame,
    jobs: list[tuple[tuple[int, ...], Tile]],
) -> Iterator[tuple[Box, Any, Any]]:
    waiting: deque[Future[tuple[Box, Any, Any]]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(_one, step, frame, *job))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _one(step: Callable[[Frame], Frame], frame: Frame, lead: tuple[int, ...], tile: Tile) -> tuple[Box, Any, Any]:
    read = tile.read.intersect(Box.whole(frame.shape[-2:]))
    ends = tuple(i + 1 for i in lead)
    block = frame.crop(Box(lead + read.start, ends + read.stop))
    result = step(block.replace(data=np.asarray(block.data)))
    core: Any = (Ellipsis, *tile.core.within(read).slices)
    std = None if result.std is None else np.broadcast_to(result.std, result.shape)[core]
    return Box(lead + tile.core.start, ends + tile.core.stop), result.data[core], std
