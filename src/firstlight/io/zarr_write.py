"""Writing Zarr v3 and OME-Zarr 0.5 block by block, large volumes with a pyramid.

Chunks of at most 4 MiB, every chunk stored, bitshuffle and LZ4 unless told. Never sharded: blocks may straddle chunks.
Where the caller names its sections, chunks are 8 slices deep and no section shares one, and the first levels of the pyramid
are written with each section; the others, and all where blocks came in another way, when the writer is closed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firstlight.box import Box
from firstlight.frame import Frame
from firstlight.io import describe
from firstlight.io.partial import Partial
from firstlight.io.pyramid import OME_AXES, halved, halvings, metadata
from firstlight.io.storage import Storage, along, blocks, chunk_shape, ends, pieces, section_chunks, whole_section

__all__ = ["Writer"]

Array = NDArray[Any]
OURS = "firstlight"
CHUNK, SIDE = 4 << 20, 1024


class Writer:
    """A Zarr group being written block by block.

    Blocks may straddle chunks: such a put rereads and rewrites the chunks it shares, under a lock. Blocks that fill their
    chunks (`chunks`) are written concurrently.
    """

    def __init__(
        self, partial: Partial, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool, storage: Storage
    ) -> None:
        self._partial, self._storage, self._lock = partial, storage, Lock()
        self._axis = along(like.axes)
        ome = set(like.axes) <= set(OME_AXES)
        levels = storage.levels if storage.levels or storage.section else 1
        self._steps = halvings(like.axes, shape, levels) if ome else []
        self._open(std) if partial.resumed else self._lay_out(like, shape, dtype, std, ome)
        self.chunks: tuple[int, ...] = self._levels[0].chunks
        self._streamed = self._streams()

    def _lay_out(self, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool, ome: bool) -> None:
        import zarr

        self._group = zarr.open_group(self._partial.temp, mode="w", zarr_format=3)
        chunks, names = self._chunks(shape, dtype.itemsize), [a.lower() for a in like.axes]
        self._levels = [self._array("0", shape, dtype, chunks, names)]
        for i, step in enumerate(self._steps, 1):
            shape = tuple(-(-n // f) for n, f in zip(shape, step, strict=True))
            chunks = _thinner(chunks, shape, self._axis, step[self._axis])
            self._levels.append(self._array(str(i), shape, dtype, chunks, names))
        full = self._levels[0]
        self._std = self._array("std", full.shape, np.dtype(np.float32), full.chunks) if std else None
        for name, part in describe.maps(like).items():
            self._fill(name, part)
        self._group.attrs[OURS] = json.loads(describe.dumps(like, std=std))
        if ome:
            self._group.attrs["ome"] = metadata(like, self._steps)

    def _open(self, std: bool) -> None:
        import zarr

        for torn in self._partial.temp.rglob("*.partial"):  # what a kill left of zarr's own temporary files
            torn.unlink()
        self._group = zarr.open_group(self._partial.temp, mode="r+")
        self._levels = [self._group[str(i)] for i in range(len(self._steps) + 1)]
        self._std = self._group["std"] if std else None

    def _chunks(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        if self._storage.section is None:
            return chunk_shape(shape, itemsize, CHUNK, SIDE)
        return section_chunks(shape, self._axis, self._storage.section, itemsize, CHUNK)

    def _streams(self) -> int:
        """How many levels below the first a section fills by itself: as often as a chunk's depth can be halved."""
        depth, n = self.chunks[self._axis], 0
        if self._storage.section is None:
            return 0
        while n < len(self._steps) and depth % self._steps[n][self._axis] == 0:
            depth //= self._steps[n][self._axis]
            n += 1
        return n

    def _array(self, name: str, shape: Sequence[int], dtype: np.dtype[Any], chunks: Any, axes: Any = None) -> Any:
        return self._group.create_array(
            name,
            shape=tuple(shape),
            dtype=dtype,
            chunks=chunks,
            compressors=compressor(self._storage.codec or "bitshuffle-lz4", dtype.itemsize),
            dimension_names=axes,
            config={"write_empty_chunks": True},
        )

    def _fill(self, name: str, part: Any) -> None:
        shape, dtype = describe.map_shape(part), np.dtype(part.dtype)
        target = self._array(name, shape, dtype, chunk_shape(shape, dtype.itemsize, CHUNK, SIDE) if shape else ())
        for box in blocks(part.shape, dtype.itemsize):
            target[box.slices] = np.asarray(part[box.slices])

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""
        block = np.broadcast_to(np.asarray(block, dtype=self._levels[0].dtype), box.shape)
        std = None if std is None else np.broadcast_to(np.asarray(std), box.shape)
        if ends(box, self._levels[0].shape, self.chunks):
            self._put(box, block, std)
        else:
            with self._lock:
                self._put(box, block, std)
        if self._streamed and self._sectioned(box):
            self._put_levels(box, block)
        else:
            self._streamed = 0

    def _put(self, box: Box, block: Array, std: Array | None) -> None:
        self._levels[0][box.slices] = block
        if self._std is not None:
            self._std[box.slices] = std

    def _sectioned(self, box: Box) -> bool:
        shape = self._levels[0].shape
        return whole_section(box, shape, self._axis) and ends(box, shape, self.chunks)

    def _put_levels(self, box: Box, block: Array) -> None:
        for level, step in zip(self._levels[1:], self._steps[: self._streamed], strict=False):
            box, block = _half(box, step), halved(block, step)
            level[box.slices] = block

    def flush(self, box: Box) -> None:
        """What was put at `box` has reached the disk."""
        arrays = [*self._levels[:1], *([self._std] if self._std is not None else [])]
        for array in arrays:
            _sync(self._partial.temp, array, box)
        for level, step in zip(self._levels[1:], self._steps[: self._streamed], strict=False):
            box = _half(box, step)
            _sync(self._partial.temp, level, box)

    def close(self) -> None:
        """Write what the pyramid lacks, level from level, and rename to the final name."""
        for i in range(self._streamed, len(self._steps)):
            self._build(self._levels[i], self._levels[i + 1], self._steps[i])
        self._partial.commit()

    def _build(self, fine: Any, coarse: Any, step: tuple[int, ...]) -> None:
        axis, depth = self._axis, coarse.chunks[self._axis]
        for box in pieces(coarse.shape, axis, depth):
            ends_ = [min(b * f, n) for b, f, n in zip(box.stop, step, fine.shape, strict=True)]
            source = Box(tuple(a * f for a, f in zip(box.start, step, strict=True)), tuple(ends_))
            coarse[box.slices] = halved(np.asarray(fine[source.slices]), step)

    def keep(self) -> None:
        """Leave what was written for another run."""
        self._partial.keep()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.abort()


def compressor(codec: str, itemsize: int) -> Any:
    """The Zarr v3 codec of that name, None for "none"."""
    from zarr.codecs import BloscCodec, GzipCodec

    if codec == "gzip":
        return GzipCodec(level=4)
    if codec == "none":
        return None
    if codec == "zstd":
        return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=itemsize)
    return BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=itemsize)


def _half(box: Box, step: Sequence[int]) -> Box:
    """Where a box that begins at even voxels stands one level up."""
    start = tuple(a // f for a, f in zip(box.start, step, strict=True))
    return Box(start, tuple(-(-b // f) for b, f in zip(box.stop, step, strict=True)))


def _thinner(chunks: Sequence[int], shape: Sequence[int], axis: int, factor: int) -> tuple[int, ...]:
    """The chunk of the next level: as wide, and half as deep where the depth can be halved."""
    depth = chunks[axis] // factor if chunks[axis] % factor == 0 else chunks[axis]
    return tuple(max(1, min(n, depth if i == axis else c)) for i, (c, n) in enumerate(zip(chunks, shape, strict=True)))


def _sync(root: Path, array: Any, box: Box) -> None:
    """The files of the chunks that a box touches have reached the disk."""
    lows = [a // c for a, c in zip(box.start, array.chunks, strict=True)]
    highs = [-(-b // c) for b, c in zip(box.stop, array.chunks, strict=True)]
    for index in np.ndindex(*(b - a for a, b in zip(lows, highs, strict=True))):
        name = "/".join(str(a + i) for a, i in zip(lows, index, strict=True))
        with (root / array.path / "c" / name).open("rb") as file:
            os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
