"""Writing HDF5 block by block: chunks of at most 1 MiB, bitshuffle and LZ4 unless told.

An HDF5 file whose writer is killed may be damaged, so one that can be resumed is not written in place: each section becomes
a small file of its own beside the goal, and closing copies their compressed chunks, as they are, into one file. That reads and
writes the compressed bytes once more, and needs their room twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.box import Box
from firstlight.frame import Frame, Unit
from firstlight.geometry import Scan
from firstlight.io import describe, hdf_layouts
from firstlight.io.hdf import FIELDS, OURS, opened
from firstlight.io.partial import Partial
from firstlight.io.storage import Storage, along, blocks, chunk_shape, section_chunks

__all__ = ["SectionsWriter", "Writer"]

CACHE = 64 << 20  # holds the chunks that a straddling block leaves half written
CHUNK = 1 << 20
FLOAT = np.dtype(np.float32)


class Writer:
    """An HDF5 file being written block by block; h5py's own lock makes concurrent puts safe."""

    def __init__(
        self, partial: Partial, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool, storage: Storage
    ) -> None:
        import h5py

        self._partial = partial
        self._storage = storage
        self._file = h5py.File(partial.temp, "w", rdcc_nbytes=CACHE)
        try:
            scan = isinstance(like.geometry, Scan) and like.axes == "AYX"
            self._file.create_group(OURS)
            chunks = self.chunks = layout(like.axes, shape, dtype.itemsize, storage)
            self.data = _array(self._file, "exchange/data" if scan else f"{OURS}/data", shape, dtype, chunks, storage.codec)
            self.std = _array(self._file, f"{OURS}/std", shape, FLOAT, chunks, storage.codec) if std else None
            self._describe(like, std)
            if scan:
                _write_exchange(self._file, like, shape)
        except BaseException:
            self._file.close()
            raise

    def _describe(self, like: Frame, std: bool) -> None:
        group = self._file[OURS]
        group["description"] = describe.dumps(like, std=std)
        for name, part in describe.maps(like).items():
            shape, dtype = describe.map_shape(part), np.dtype(part.dtype)
            if not shape or 0 in shape:
                group[name] = np.asarray(part)
                continue
            chunks = chunk_shape(shape, dtype.itemsize, CHUNK)
            target = _array(self._file, f"{OURS}/{name}", shape, dtype, chunks, self._storage.codec)
            for box in blocks(shape, dtype.itemsize):
                target[box.slices] = part[box.slices]

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""
        self.data[box.slices] = block
        if self.std is not None:
            self.std[box.slices] = std

    def close(self) -> None:
        """Finish and rename to the final name."""
        self._file.close()
        self._partial.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._file.close()
        self._partial.abort()


class SectionsWriter:
    """Sections of an HDF5 file as files of their own, joined when it is closed; outlives its process."""

    def __init__(
        self, partial: Partial, like: Frame, shape: tuple[int, ...], dtype: np.dtype[Any], std: bool, storage: Storage
    ) -> None:
        self._partial, self._make = partial, (like, shape, dtype, std, storage)
        self._axis, self._dtype, self._has_std = along(like.axes), dtype, std
        self.chunks = layout(like.axes, shape, dtype.itemsize, storage)
        partial.temp.touch()

    def _part(self, box: Box) -> Path:
        return self._partial.temp.with_name(f"section-{box.start[self._axis]:08d}-{box.stop[self._axis]:08d}.h5")

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (a whole section), and its standard error where the output has one."""
        import h5py

        target, codec = self._part(box), self._make[-1].codec
        temp = target.with_suffix(".new")
        with h5py.File(temp, "w") as file:
            _array(file, "data", box.shape, self._dtype, self.chunks, codec)[...] = block
            if self._has_std:
                _array(file, "std", box.shape, FLOAT, self.chunks, codec)[...] = std
        with temp.open("rb") as done:
            os.fsync(done.fileno())
        temp.replace(target)

    def flush(self, box: Box) -> None:
        """What was put at `box` is on disk since its put."""

    def close(self) -> None:
        """Copy the sections' chunks into one file and rename it to the final name."""
        import h5py

        whole = Writer(self._partial, *self._make)
        for box in self._partial.journal.done if self._partial.journal else ():
            with h5py.File(self._part(box), "r") as part:
                _copy_chunks(part["data"], whole.data, box.start)
                if whole.std is not None:
                    _copy_chunks(part["std"], whole.std, box.start)
        whole.close()

    def keep(self) -> None:
        """Leave what was written for another run."""
        self._partial.keep()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.abort()


def layout(axes: str, shape: tuple[int, ...], itemsize: int, storage: Storage) -> tuple[int, ...]:
    """Chunks: whole rows, then planes; where sections are named, so that none shares a chunk."""
    if storage.section is None:
        return chunk_shape(shape, itemsize, CHUNK)
    return section_chunks(shape, along(axes), storage.section, itemsize, CHUNK)


def _array(file: Any, name: str, shape: Any, dtype: np.dtype[Any], chunks: tuple[int, ...], codec: str | None) -> Any:
    # sections at the end are shorter than a chunk, and copied chunks must be alike: so the array may be, on paper, larger
    most = tuple(max(n, c) for n, c in zip(shape, chunks, strict=True))
    grow = None if most == tuple(shape) else most
    return file.create_dataset(name, shape, dtype, chunks=chunks, maxshape=grow, **filters(codec or "bitshuffle-lz4"))


def filters(codec: str) -> dict[str, Any]:
    """h5py's options for a codec; LZ4 alone compresses no floating-point numbers, so bytes are shuffled before it."""
    import hdf5plugin

    match codec:
        case "bitshuffle-lz4":
            return dict(hdf5plugin.Bitshuffle(cname="lz4"))
        case "lz4":
            return {"shuffle": True, **hdf5plugin.LZ4()}
        case "zstd":
            return dict(hdf5plugin.Bitshuffle(cname="zstd", clevel=1))
        case "gzip":
            return {"shuffle": True, "compression": "gzip", "compression_opts": 4}
    return {}


def _copy_chunks(part: Any, whole: Any, start: tuple[int, ...]) -> None:
    """Chunks as they are stored, from a section to its place."""
    for i in range(part.id.get_num_chunks()):
        at = part.id.get_chunk_info(i).chunk_offset
        mask, raw = part.id.read_direct_chunk(at)
        whole.id.write_direct_chunk(tuple(a + b for a, b in zip(at, start, strict=True)), raw, mask)


def _write_exchange(file: Any, like: Frame, shape: tuple[int, ...]) -> None:
    assert isinstance(like.geometry, Scan)
    file["implements"] = "exchange"
    file["exchange/theta"] = np.rad2deg(like.geometry.angles)
    file["exchange/theta"].attrs["units"] = "degrees"
    file["exchange/data"].attrs["axes"] = "theta:y:x"
    file["exchange/data"].attrs["units"] = "counts" if like.unit == Unit.ADU else str(like.unit)
    source = like.observation.source
    if source and Path(source).is_file() and isinstance(like.observation.header, hdf_layouts.Header):
        with opened(Path(source)) as origin:
            _pass_through(file, origin, like.unit, shape)


def _pass_through(file: Any, origin: Any, unit: Unit, shape: tuple[int, ...]) -> None:
    for name in ("measurement", "process", "exchange/title"):
        if name in origin:
            origin.copy(name, file, name=name)
    for name in FIELDS.values():
        node = origin.get(name)
        if node is None:
            continue
        if unit == Unit.ADU and node.shape[-2:] == shape[-2:]:
            origin.copy(name, file, name=name)
        else:  # a tool that divides by a white field would divide calibrated data twice
            why = "of another detector area" if unit == Unit.ADU else f"data are in {unit}"
            file["exchange"].attrs["omitted"] = f"white and dark fields: {why}"
