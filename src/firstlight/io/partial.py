"""Outputs that appear whole or not at all: written beside their final name, then renamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.atomic import beside
from firstlight.box import Box
from firstlight.errors import ReadError
from firstlight.frame import Frame
from firstlight.io import describe

__all__ = ["MappedWriter", "Partial", "companions", "read_described"]


class Partial:
    """A file (or folder) under construction, with its companions; `commit` renames all, the main file last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temp = beside(path)
        self._sides: dict[Path, Path] = {}

    def side(self, name: str) -> Path:
        """Temporary path of the companion `PATH.name`."""
        final = self.path.with_name(f"{self.path.name}.{name}")
        return self._sides.setdefault(final, self.temp.with_name(f"{self.temp.name}.{name}"))

    def describe(self, frame: Frame, shape: tuple[int, ...], std: bool) -> np.memmap[Any, Any] | None:
        """Write the description and maps as companions; returns the open std plane of `shape`, where asked for."""
        self.side("json").write_text(describe.dumps(frame, std=std))
        return self.maps(frame, shape, std)

    def maps(self, frame: Frame, shape: tuple[int, ...], std: bool) -> np.memmap[Any, Any] | None:
        """Write the maps alone as companions; returns the open std plane of `shape`, where asked for."""
        for name, part in describe.maps(frame).items():
            save_map(self.side(f"{name}.npy"), part)
        if not std:
            return None
        return np.lib.format.open_memmap(self.side("std.npy"), mode="w+", dtype=np.float32, shape=shape)

    def commit(self) -> None:
        """Rename to the final names; companions of an earlier output that this one lacks are removed."""
        for name in ("json", *(f"{m}.npy" for m in describe.MAPS)):
            old = self.path.with_name(f"{self.path.name}.{name}")
            if old not in self._sides:
                old.unlink(missing_ok=True)
        for final, temp in self._sides.items():
            temp.replace(final)
        if self.temp.is_dir() and self.path.is_dir():
            shutil.rmtree(self.path)
        self.temp.replace(self.path)

    def abort(self) -> None:
        """Remove everything written so far."""
        for temp in (self.temp, *self._sides.values()):
            if temp.is_dir():
                shutil.rmtree(temp)
            else:
                temp.unlink(missing_ok=True)


class MappedWriter:
    """A writer of the array that `make(temporary path)` maps, with companions beside it."""

    def __init__(self, path: Path, like: Frame, shape: tuple[int, ...], std: bool, make: Callable[[Path], Any]) -> None:
        self._partial = Partial(path)
        try:
            self._data = make(self._partial.temp)
            self._std = self._partial.describe(like, shape, std)
        except BaseException:
            self._partial.abort()
            raise

    def put(self, box: Box, block: Any, std: Any = None) -> None:
        """Write `block` [unit of the frame] at `box` (all axes), and its standard error where the output has one."""
        self._data[box.slices] = block
        if self._std is not None:
            self._std[box.slices] = std

    def close(self) -> None:
        """Finish and rename to the final name."""
        self._data.flush()
        self._partial.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.abort()


def save_map(path: Path, part: Any) -> None:
    """A map as a .npy file, block by block, so that one on disk never stands in memory."""
    from firstlight.io import blocks

    if not part.shape or 0 in part.shape:
        with path.open("wb") as f:
            np.save(f, np.asarray(part))
        return
    out = np.lib.format.open_memmap(path, mode="w+", dtype=part.dtype, shape=tuple(part.shape))
    for box in blocks(part.shape, np.dtype(part.dtype).itemsize):
        out[box.slices] = part[box.slices]
    out.flush()


def companions(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The description beside a file and its maps (memory-mapped), or (None, {}) where there is none of ours."""
    side = path.with_name(f"{path.name}.json")
    if not side.is_file():
        return None, {}
    text = side.read_text()
    if '"firstlight"' not in text:
        return None, {}
    found = {m: np.load(f, mmap_mode="r") for m in describe.MAPS if (f := path.with_name(f"{path.name}.{m}.npy")).is_file()}
    return text, found


def read_described(data: Any, path: Path, plain: Frame) -> Frame:
    """`plain`, or, where a companion describes the file, the Frame it describes, with plain's header kept."""
    text, arrays = companions(path)
    if text is None:
        return plain
    try:
        return describe.attach(data, text, arrays, header=plain.observation.header, source=str(path))
    except Exception as error:
        raise ReadError(f"{path}: {path.name}.json beside it belongs to another file ({error}); remove or rename it") from error
