"""Cutting images into tiles and putting them together again, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import FrameError

__all__ = ["Tile", "blend", "covering", "cut", "grid", "plan", "strides"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Tile:
    """One tile: `read` is what an algorithm sees (it may pass the far border, see `cut`), `core` the part it answers for.

    The cores of a plan partition the image; `number` counts them in row-major order, `index` places them in the grid.
    """

    number: int
    index: tuple[int, ...]
    read: Box
    core: Box


def _per_axis(name: str, value: int | Sequence[int], ndim: int, least: int) -> tuple[int, ...]:
    values = (value,) * ndim if isinstance(value, int) else tuple(int(v) for v in value)
    if len(values) != ndim or min(values) < least:
        raise FrameError(f"tiles: {name} {value}, expected {ndim} numbers of at least {least}, or one for all")
    return values


def plan(
    shape: Sequence[int],
    tile: int | Sequence[int],
    halo: int | Sequence[int] = 0,
    multiple: int | Sequence[int] = 1,
    phase: int | Sequence[int] = 1,
) -> list[Tile]:
    """Tiles of at most `tile` px that cover `shape`, each core at least `halo` px inside its tile or at the image border.

    Tile lengths are multiples of `multiple`, tile starts multiples of `phase` (a CFA's period); the last tile of an axis is
    aligned to the border, rounded up to `phase`, so it may pass the border by less than `phase` (or by less than
    `multiple` where the image is smaller than one tile). Raises FrameError where a tile leaves no room beside its halo.
    """
    n = len(shape)
    sizes, halos = _per_axis("tile", tile, n, 1), _per_axis("halo", halo, n, 0)
    multiples, phases = _per_axis("multiple", multiple, n, 1), _per_axis("phase", phase, n, 1)
    axes = [_plan_axis(*a) for a in zip(shape, sizes, halos, multiples, phases, strict=True)]
    return _tiles(axes)


def _plan_axis(length: int, tile: int, halo: int, multiple: int, phase: int) -> list[tuple[int, int, int, int]]:
    if tile % multiple:
        raise FrameError(f"tiles: tile of {tile} px is no multiple of {multiple}; try {ceil(tile / multiple) * multiple}")
    size = min(tile, ceil(length / multiple) * multiple)
    step = (size - 2 * halo) // phase * phase
    if size >= length:
        starts = [0]
    elif step < 1:
        raise FrameError(f"tiles: tile of {tile} px leaves no room beside a halo of {halo} and a phase of {phase}; enlarge it")
    else:
        starts = strides(ceil(length / phase) * phase, size, step, phase)
    return _cores(length, size, starts)


def _cores(length: int, size: int, starts: Sequence[int]) -> list[tuple[int, int, int, int]]:
    # two neighbours share their overlap half and half
    cuts = [0, *((b + min(a + size, length)) // 2 for a, b in pairwise(starts)), length]
    return [(s, s + size, a, b) for s, (a, b) in zip(starts, pairwise(cuts), strict=True)]


def _tiles(axes: Sequence[Sequence[tuple[int, int, int, int]]]) -> list[Tile]:
    out = []
    for number, index in enumerate(product(*(range(len(a)) for a in axes))):
        read0, read1, core0, core1 = zip(*(a[i] for a, i in zip(axes, index, strict=True)), strict=True)
        out.append(Tile(number, index, Box(read0, read1), Box(core0, core1)))
    return out


def strides(length: int, tile: int, step: int, phase: int = 1) -> list[int]:
    """Starts [px] of tiles every `step` px, the last one aligned to the border (rounded up to a multiple of `phase`)."""
    if step < 1 or tile < 1:
        raise FrameError(f"tiles: tile {tile} and step {step}, expected positive lengths")
    if tile > length:
        raise FrameError(f"tiles: tile of {tile} px is larger than the image's {length} px; use a smaller tile")
    last = ceil((length - tile) / phase) * phase
    return [*range(0, last, step), last]


def grid(shape: Sequence[int], rows: int, cols: int, tile: int, gaps: bool = False) -> list[Tile]:
    """A rows x cols grid of `tile` px squares over (Y, X): stride floor((L - t)/(n - 1)), the last aligned to the edge.

    Raises FrameError for a grid that leaves gaps, unless `gaps`; cores are then the tiles themselves.
    """
    axes = []
    for length, n in zip(shape, (rows, cols), strict=True):
        starts = _grid_starts(length, n, tile)
        holes = [b - a - tile for a, b in pairwise(starts)]
        if n < 1 or (not gaps and (max(holes, default=0) > 0 or (n == 1 and tile < length))):
            raise FrameError(
                f"tiles: {n} tiles of {tile} px leave gaps of up to {max(holes, default=length - tile)} px over {length} px; "
                f"use {covering(length, tile)} tiles"
            )
        axes.append([(s, s + tile, s, s + tile) for s in starts] if gaps else _cores(length, tile, starts))
    return _tiles(axes)


def covering(length: int, tile: int) -> int:
    """The least number of tiles of a `grid` axis without gaps: ceil(L / t), or more where the rounded stride leaves one."""
    n = max(1, ceil(length / tile))
    while n > 1 and length - tile - (n - 2) * ((length - tile) // (n - 1)) > tile:
        n += 1
    return n


def _grid_starts(length: int, n: int, tile: int) -> list[int]:
    if tile > length:
        raise FrameError(f"tiles: tile of {tile} px is larger than the image's {length} px; use a smaller tile")
    if n == 1:
        return [0]
    step = (length - tile) // (n - 1)
    return [*(i * step for i in range(n - 1)), length - tile]


def cut(data: Any, tile: Tile, mode: str = "edge") -> Array:
    """The tile's pixels, `(..., *read.shape)`; beyond the border padded as numpy.pad's `mode` says. Leading axes are whole."""
    lead = len(data.shape) - tile.read.ndim
    shape = tuple(data.shape[lead:])
    inside = tile.read.intersect(Box.whole(shape))
    block = np.asarray(data[(slice(None),) * lead + inside.slices])
    pad = [(0, 0)] * lead + [
        (a - r, s - b) for r, s, a, b in zip(tile.read.start, tile.read.stop, inside.start, inside.stop, strict=True)
    ]
    return np.pad(block, pad, mode=mode) if any(p != (0, 0) for p in pad) else block  # type: ignore[call-overload]


def blend(pieces: Iterable[tuple[Tile, Array]], out: Any, taper: bool = False) -> Any:
    """Put tiles, each `(..., *read.shape)`, into `out`: cores side by side, or `taper`-ed across their overlaps.

    A tapered blend is a running convex mean, out += w/(W + w) (tile - out): tiles that agree return their value to the last
    bit, at the borders too, where the weight is never zero.
    """
    total: Array | None = None
    for tile, block in pieces:
        if not taper:
            out[_tail(tile.core)] = block[_tail(tile.core.within(tile.read))]
            continue
        shape = out.shape[len(out.shape) - tile.core.ndim :]
        if total is None:
            total = np.zeros(shape, dtype=np.float32)
        _blend_tapered(tile, block, out, total, Box.whole(shape))
    return out


def _blend_tapered(tile: Tile, block: Array, out: Any, total: Array, whole: Box) -> None:
    inside = tile.read.intersect(whole)
    weight = _window(tile, whole)[inside.within(tile.read).slices]
    here = _tail(inside)
    total[inside.slices] += weight
    share = weight / total[inside.slices]
    new = block[_tail(inside.within(tile.read))]
    # whole numbers are blended as floats and rounded: differences of unsigned ones would wrap, halves would be cut
    whole_numbers = np.dtype(out.dtype).kind in "iu"
    real = np.result_type(new.dtype, np.float64 if whole_numbers else np.float32)
    old = np.asarray(out[here], dtype=real)
    with np.errstate(invalid="ignore"):  # inf - inf, and what an empty array held before
        mixed = old + share * (new - old)
    out[here] = np.where((share == 1) | (new == old), new, np.rint(mixed) if whole_numbers else mixed)


def _tail(box: Box) -> Any:
    return (Ellipsis, *box.slices)


def _window(tile: Tile, whole: Box) -> Array:
    """Weights `(*read.shape)`: 1 inside, a linear ramp from the core's edge outwards, 1 up to the image border."""
    window = np.ones((), dtype=np.float32)
    for r0, r1, c0, c1, end in zip(tile.read.start, tile.read.stop, tile.core.start, tile.core.stop, whole.stop, strict=True):
        i = np.arange(r0, r1, dtype=np.float32)
        left = np.ones_like(i) if c0 == 0 else np.clip((i - r0 + 1) / max(2 * (c0 - r0), 1), 0, 1)
        right = np.ones_like(i) if c1 == end else np.clip((r1 - i) / max(2 * (r1 - c1), 1), 0, 1)
        window = window[..., None] * np.minimum(left, right)
    return window
