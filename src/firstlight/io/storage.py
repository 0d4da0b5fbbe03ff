"""How numbers are stored: codec, chunks fit for sections, rounding to significant bits.

A section is what one `put` brings of a large output: slices (Z) of a volume, detector rows (Y) of a scan, whole along every
other axis. Chunks are cut so that no two sections share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.errors import WriteError

__all__ = [
    "BLOCK_BYTES",
    "CODECS",
    "Storage",
    "along",
    "blocks",
    "chunk_shape",
    "ends",
    "pieces",
    "rounded",
    "section_chunks",
    "whole_section",
]

BLOCK_BYTES = 64 << 20
CODECS = ("bitshuffle-lz4", "zstd", "gzip", "none")
DEPTH = 8  # slices a chunk: one slice costs the reading of eight, a cut across them an eighth of the volume's chunks


@dataclass(frozen=True)
class Storage:
    """What the caller asks of a format: codec (None: its own default), section [px along `along`], levels of a pyramid."""

    codec: str | None = None
    section: int | None = None
    levels: int | None = None

    def needs(self, path: Any, codecs: Sequence[str]) -> None:
        """Raises WriteError for a codec that the format does not have."""
        if self.codec is not None and self.codec not in codecs:
            has = f"codec {', '.join(codecs)}" if codecs else "no codec to choose"
            raise WriteError(f"{path}: codec {self.codec!r}, expected {has}; choose another or another format")
        if self.section is not None and self.section < 1:
            raise WriteError(f"{path}: sections of {self.section} px, expected at least 1")
        if self.levels is not None and self.levels < 1:
            raise WriteError(f"{path}: {self.levels} levels, expected at least 1")


def along(axes: str) -> int:
    """Index of the axis that sections divide: Z where there is one, else Y."""
    return axes.index("Z" if "Z" in axes else "Y")


def whole_section(box: Box, shape: Sequence[int], axis: int) -> bool:
    """Whether a box is whole along every axis but `axis`."""
    return all(i == axis or (a == 0 and b == n) for i, (a, b, n) in enumerate(zip(box.start, box.stop, shape, strict=True)))


def ends(box: Box, shape: Sequence[int], chunks: Sequence[int]) -> bool:
    """Whether a box begins and ends where chunks do."""
    parts = zip(box.start, box.stop, chunks, shape, strict=True)
    return all(a % c == 0 and (b % c == 0 or b == n) for a, b, c, n in parts)


def chunk_shape(shape: Sequence[int], itemsize: int, limit: int = 1 << 20, side: int | None = None) -> tuple[int, ...]:
    """A chunk of at most `limit` bytes: whole rows, then planes, and so on; `side` bounds it along Y and X [px]."""
    room = max(1, limit // itemsize)
    chunk: list[int] = []
    for axis, n in enumerate(reversed(shape)):
        k = max(1, min(n, room, side if side and axis < 2 else n))
        room //= k
        chunk.append(k)
    return tuple(reversed(chunk))


def section_chunks(shape: Sequence[int], axis: int, section: int, itemsize: int, limit: int) -> tuple[int, ...]:
    """A chunk of at most `limit` bytes whose depth along `axis` divides `section`; square where it cuts slices."""
    depth = max(d for d in range(1, DEPTH + 1) if section % d == 0)
    room = max(1, limit // (itemsize * depth))
    side = None if axis >= len(shape) - 2 else 1 << (room.bit_length() - 1) // 2
    rest = list(chunk_shape([n for i, n in enumerate(shape) if i != axis], 1, room, side))
    return (*rest[:axis], max(1, min(depth, shape[axis])), *rest[axis:])


def rounded(numbers: Any, bits: int) -> NDArray[Any]:
    """Floating-point numbers to `bits` significant binary digits, ties to even: relative error at most 2^-bits.

    NaN and infinities stay; integers are returned as they are.
    """
    block: NDArray[Any] = np.ascontiguousarray(numbers)
    digits = np.finfo(block.dtype).nmant + 1 if block.dtype.kind == "f" else bits
    if bits >= digits:
        return block
    word = np.dtype(f"u{block.dtype.itemsize}")
    drop = word.type(digits - bits)
    raw = block.view(word)
    half = word.type((1 << int(drop) - 1) - 1)
    out = (raw + half + ((raw >> drop) & word.type(1))) & ~word.type((1 << int(drop)) - 1)
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(np.sum(block))
    if not finite:  # a carry would turn the payload of NaN into a number
        out = np.where(np.isfinite(block), out, raw)
    return np.asarray(out).view(block.dtype)


def pieces(shape: Sequence[int], axis: int, step: int) -> list[Box]:
    """Boxes of `step` along `axis`, whole along the others, in order."""
    whole = Box.whole(shape)

    def at(i: int) -> Box:
        start, stop = list(whole.start), list(whole.stop)
        start[axis], stop[axis] = i, min(i + step, shape[axis])
        return Box(tuple(start), tuple(stop))

    return [at(i) for i in range(0, shape[axis], step)] if prod(shape) else []


def blocks(shape: Sequence[int], itemsize: int, limit: int = BLOCK_BYTES) -> Iterator[Box]:
    """Boxes that partition an array in C order, each of at most `limit` bytes where a row allows it."""
    whole = tuple(shape)
    axis, room = len(whole), max(1, limit // max(1, itemsize))
    inner = 1
    while axis > 0 and inner * whole[axis - 1] <= room:
        axis -= 1
        inner *= whole[axis]
    if axis == 0:
        yield Box.whole(whole)
        return
    step = max(1, room // max(1, inner))
    for lead in product(*(range(n) for n in whole[: axis - 1])):
        for start in range(0, whole[axis - 1], step):
            stop = min(whole[axis - 1], start + step)
            yield Box((*lead, start, *(0,) * (len(whole) - axis)), (*(i + 1 for i in lead), stop, *whole[axis:]))
